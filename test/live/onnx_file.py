"""Just enough of ONNX's protobuf files for the tests: the wire format by hand, since Python brings no reader for it.

Field numbers: onnx.proto3 of ONNX 1.17; wire format: the Protocol Buffers encoding guide.
"""
import struct

# ONNX's element types by the name that the Open Inference Protocol has for them, and those it has none for.
DATATYPES = {1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
             10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16"}
OTHER_DATATYPES = {0: "no datatype", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
                   19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0"}
FORMATS = {"FP32": "f", "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "INT32": "i", "INT64": "q", "BOOL": "?",
           "FP16": "H", "FP64": "d", "UINT32": "I", "UINT64": "Q", "BF16": "H"}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if not byte & 0x80:
            return value & (1 << 64) - 1, at


def fields(data):
    """(number, value) of every field: an int, or bytes."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            if kind == 2:
                size, at = varint(data, at)
            else:
                size = {1: 8, 5: 4}[kind]
            value = data[at:at + size]
            assert len(value) == size
            at += size
        yield tag >> 3, value


def message(data):
    """number -> values, in their order."""
    found = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def varints(values):
    """A repeated integer field, packed or not, as signed numbers."""
    for value in values:
        at, numbers = 0, [] if isinstance(value, bytes) else [value]
        while isinstance(value, bytes) and at < len(value):
            number, at = varint(value, at)
            numbers.append(number)
        for number in numbers:
            yield number - (1 << 64) if number >> 63 else number


def bytes_tensor(elements):
    """The binary form of BYTES."""
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)


def tensor(data):
    """A TensorProto: (name, datatype, shape, its binary form)."""
    m = message(data)
    dims = list(varints(m.get(1, [])))
    datatype = DATATYPES[m[2][0]]
    name = m.get(8, [b""])[0].decode()
    assert 13 not in m and m.get(14, [0])[0] == 0, "external data"
    if datatype == "BYTES":
        return name, datatype, dims, bytes_tensor(m.get(6, []))
    if 9 in m:
        return name, datatype, dims, m[9][0]
    if datatype in ("FP32", "FP64"):  # packed or not, the bytes are the same
        return name, datatype, dims, b"".join(m.get(4 if datatype == "FP32" else 10, []))
    number = {"INT64": 7, "UINT32": 11, "UINT64": 11}.get(datatype, 5)
    mask = (1 << 8 * struct.calcsize(FORMATS[datatype])) - 1
    values = [v & mask for v in varints(m.get(number, []))]
    return name, datatype, dims, b"".join(v.to_bytes(mask.bit_length() // 8, "little") for v in values)


class Value:
    """An input or output of a graph."""

    def __init__(self, data):
        m = message(data)
        self.name = m[1][0].decode()
        kind, body = next(fields(m[2][0])) if m.get(2, [b""])[0] else (0, b"")
        self.kind = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}.get(kind, "unknown")
        self.datatype = None  # the protocol's name, None when it has none
        if kind == 1:
            element = message(body).get(1, [0])[0]
            self.datatype = DATATYPES.get(element)
            if self.datatype is None:
                self.kind = OTHER_DATATYPES.get(element, f"element type {element}")


class Model:
    """The main graph's inputs (without those that an initializer fills) and outputs; every node's operator with the names
    of its attributes that are set, wherever it stands."""

    def __init__(self, data):
        m = message(data)
        graph = message(m[7][0])
        constants = {message(t).get(8, [b""])[0].decode() for t in graph.get(5, [])}
        self.inputs = [v for v in map(Value, graph.get(11, [])) if v.name not in constants]
        self.outputs = [Value(v) for v in graph.get(12, [])]
        self.nodes = []
        self._nodes(graph.get(1, []))
        for function in m.get(25, []):
            self._nodes(message(function).get(7, []))

    def _nodes(self, nodes):
        for node in nodes:
            m = message(node)
            attributes = [message(attribute) for attribute in m.get(5, [])]
            self.nodes.append((m[4][0].decode(), {a[1][0].decode() for a in attributes}))
            for a in attributes:
                for graph in a.get(6, []) + a.get(11, []):
                    self._nodes(message(graph).get(1, []))
