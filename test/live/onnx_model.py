"""Writes small ONNX models for live tests, straight as protobuf (onnx.proto3), without the onnx package."""

FLOAT, INT64, STRING, FLOAT16, BFLOAT16 = 1, 7, 8, 10, 16


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def value_info(name, kind, shape):
    """A dim is a number, or a name when it is open."""
    dims = b"".join(message(1, number(1, d) if isinstance(d, int) else message(2, d)) for d in shape)
    return message(1, name) + message(2, message(1, number(1, kind) + message(2, dims)))


def node(op, inputs, outputs):
    return (b"".join(message(1, name) for name in inputs) + b"".join(message(2, name) for name in outputs) +
            message(4, op))


def external_tensor(name, shape, location, **more):
    """A FLOAT initializer whose data lies elsewhere; more: offset, length, as exporters write them."""
    entries = {"location": location, **{key: str(value) for key, value in more.items()}}
    return (b"".join(number(1, d) for d in shape) + number(2, FLOAT) + message(8, name) +
            b"".join(message(13, message(1, key) + message(2, value)) for key, value in entries.items()) + number(14, 1))


def model(nodes, inputs, outputs, opset=17, initializers=()):
    """nodes: (op, inputs, outputs); inputs and outputs: (name, kind, shape)."""
    graph = b"".join(message(1, node(*n)) for n in nodes) + message(2, "g")
    graph += b"".join(message(5, t) for t in initializers)
    graph += b"".join(message(11, value_info(*v)) for v in inputs) + b"".join(message(12, value_info(*v)) for v in outputs)
    return number(1, 8) + message(7, graph) + message(8, message(1, "") + number(2, opset))
