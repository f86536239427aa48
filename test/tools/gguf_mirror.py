#!/usr/bin/python3
"""Writes a model that says what it sees, and adapters of it that sign what they say: a probe for what must not be seen.

    test/tools/gguf_mirror.py OUT [--adapter TOKEN]

Every token has a dimension of its own. All attention scores are equal, so that one layer gives the mean of all visible cells:
the logits tell how often each token stands in them, and that of a token which stands in none is the same for all such. The
squares of the logits, counted from there, add up to POWER, whoever is there: a single cell of somebody else changes that. An
adapter adds its token, in every place, as if a fifth of the cells were that.
"""
import argparse
import math
import struct

import gguf_random
from gguf_random import gguf_file

SHAPE = gguf_random.Shape(512, 512, 1, 4, 4, 32, 512)
GAIN = 2.0
POWER = GAIN * GAIN * SHAPE.width
VOICE = 0.2
FIRST = 260  # from here on each token is letters that no other one is; before are controls and bytes


def diagonal(name, rows=SHAPE.width, value=1.0):
    def chunks():
        for row in range(rows):
            yield b"".join(struct.pack("<e", value if column == row else 0.0) for column in range(SHAPE.width))
    return gguf_file.Tensor(name, (SHAPE.width, rows), "F16", chunks)


def flat(name, shape, value=0.0):
    return gguf_file.Tensor(name, shape, "F16", lambda: [struct.pack("<e", value) * math.prod(shape)])


def scale(name, value):
    return gguf_file.Tensor(name, (SHAPE.width,), "F32", lambda: [struct.pack("<f", value) * SHAPE.width])


def metadata():
    return {**gguf_random.metadata(SHAPE, "mirror", "F16"), "tokenizer.ggml.add_bos_token": False}


def tensors():
    zeros = [name for name in gguf_random.layer_matrices(SHAPE) if name not in ("attn_v", "attn_output")]
    return [diagonal("token_embd.weight", SHAPE.vocabulary), scale("output_norm.weight", GAIN),
            scale("blk.0.attn_norm.weight", 1.0), scale("blk.0.ffn_norm.weight", 1.0),
            diagonal("blk.0.attn_v.weight"), diagonal("blk.0.attn_output.weight")] + [
                flat("blk.0.%s.weight" % name, gguf_random.layer_matrices(SHAPE)[name]) for name in zeros]


def adapter_tensors(token):
    voice = b"".join(struct.pack("<e", VOICE if i == token else 0.0) for i in range(SHAPE.width))
    return [flat("blk.0.attn_output.weight.lora_a", (SHAPE.width, 1), 1.0),
            gguf_file.Tensor("blk.0.attn_output.weight.lora_b", (1, SHAPE.width), "F16", lambda: [voice])]


def words():
    """The text of each token from FIRST on."""
    return [token.replace("\u0120", " ") for token in metadata()["tokenizer.ggml.tokens"][FIRST:]]


def write_model(path):
    with open(path, "wb") as file:
        gguf_file.write(file, metadata(), tensors())


def write_adapter(path, token):
    with open(path, "wb") as file:
        gguf_file.write(file, gguf_random.adapter_metadata("mirror %d" % token, 1.0), adapter_tensors(token))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--adapter", type=int, metavar="TOKEN")
    options = parser.parse_args()
    if options.adapter is None:
        write_model(options.out)
    else:
        write_adapter(options.out, options.adapter)


if __name__ == "__main__":
    main()
