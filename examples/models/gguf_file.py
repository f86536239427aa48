"""GGUF files, version 3, written as a stream: just enough for our models, adapters and tests. No library needed.

Format: docs/gguf.md of ggml. Numbers are little-endian; a tensor's dimensions stand innermost first, as ggml counts them.
"""
import struct
from collections import namedtuple

ALIGNMENT = 32
VERSION = 3

# ggml's types that we write: number, elements a block, bytes a block.
Kind = namedtuple("Kind", "number elements size")
KINDS = {"F32": Kind(0, 1, 4), "F16": Kind(1, 1, 2), "Q8_0": Kind(8, 32, 34), "Q4_K": Kind(12, 256, 144),
         "Q6_K": Kind(14, 256, 210)}

# The types of metadata that we write.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9

# chunks: a function that yields the tensor's bytes, size(tensor) in all.
Tensor = namedtuple("Tensor", "name shape kind chunks")


def size(tensor):
    kind = KINDS[tensor.kind]
    elements = 1
    for dimension in tensor.shape:
        elements *= dimension
    assert tensor.shape[0] % kind.elements == 0, (tensor.name, tensor.shape, tensor.kind)
    return elements // kind.elements * kind.size


def padding(length):
    return -length % ALIGNMENT


def _string(label, text):
    data = text if isinstance(text, bytes) else text.encode()
    return [(label + ".length", struct.pack("<Q", len(data))), (label + ".text", data)]


def _value(label, value):
    """(type's number, pieces). An int is a UINT32, in a list an INT32, as the tokenizer's types are."""
    if isinstance(value, bool):
        return BOOL, [(label, struct.pack("<?", value))]
    if isinstance(value, int):
        return UINT32, [(label, struct.pack("<I", value))]
    if isinstance(value, float):
        return FLOAT32, [(label, struct.pack("<f", value))]
    if isinstance(value, (str, bytes)):
        return STRING, _string(label, value)
    pieces, first = [], value[0]
    if isinstance(first, str):
        number = STRING
        pieces.append((label + ".items", b"".join(b for text in value for _, b in _string("", text))))
    elif isinstance(first, int):
        number = INT32
        pieces.append((label + ".items", struct.pack("<%di" % len(value), *value)))
    else:
        number = FLOAT32
        pieces.append((label + ".items", struct.pack("<%df" % len(value), *value)))
    return ARRAY, [(label + ".of", struct.pack("<I", number)), (label + ".count", struct.pack("<Q", len(value)))] + pieces


def header(metadata, tensors):
    """Everything before the tensors' bytes as (label, bytes) pieces in order, so that a test can bend each by its name."""
    pieces = [("magic", b"GGUF"), ("version", struct.pack("<I", VERSION)),
              ("tensors", struct.pack("<Q", len(tensors))), ("keys", struct.pack("<Q", len(metadata)))]
    for key, value in metadata.items():
        number, value_pieces = _value(key, value)
        pieces += _string(key + " key", key) + [(key + ".type", struct.pack("<I", number))] + value_pieces
    offset = 0
    for tensor in tensors:
        label = tensor.name + " tensor"
        pieces += _string(label, tensor.name)
        pieces.append((label + ".dimensions", struct.pack("<I", len(tensor.shape))))
        pieces += [("%s.shape%d" % (label, i), struct.pack("<Q", n)) for i, n in enumerate(tensor.shape)]
        pieces.append((label + ".kind", struct.pack("<I", KINDS[tensor.kind].number)))
        pieces.append((label + ".offset", struct.pack("<Q", offset)))
        offset += size(tensor) + padding(size(tensor))
    length = sum(len(data) for _, data in pieces)
    return pieces + [("padding", bytes(padding(length)))]


def write(file, metadata, tensors):
    """The whole model into file, an open binary file. Tensors are written as they come: nothing is kept in memory."""
    file.write(b"".join(data for _, data in header(metadata, tensors)))
    for tensor in tensors:
        written = 0
        for chunk in tensor.chunks():
            written += file.write(chunk)
        assert written == size(tensor), (tensor.name, written, size(tensor))
        file.write(bytes(padding(written)))
