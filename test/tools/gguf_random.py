#!/usr/bin/python3
"""Writes Llama models and LoRA adapters of random weights: valid for llama.cpp, quick to make, speaking no sense.

    test/tools/gguf_random.py OUT [--size tiny|small|0.01B|0.1B|0.3B|0.5B|1B] [--kind Q8_0|Q4_K] [--seed N] [--adapter RANK]

    --size     the shape; tiny (some 100 kB) and small are for tests, the others have so many parameters
    --kind     how the matrices are stored
    --adapter  writes a LoRA of that rank for the shape instead of the model

The same arguments give the same bytes. Only a chunk is in memory at a time. No library is needed.
"""
import argparse
import itertools
import math
import pathlib
import random
import string
import struct
import sys
from collections import namedtuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "models"))

import bpe  # noqa: E402  (behind the path that finds it)
import gguf_file  # noqa: E402

Shape = namedtuple("Shape", "vocabulary width layers heads kv_heads hidden context")
SIZES = {
    "tiny": Shape(320, 64, 2, 4, 2, 128, 512),
    "small": Shape(320, 256, 2, 4, 2, 256, 512),
    "0.01B": Shape(320, 512, 4, 8, 4, 1024, 1024),
    "0.1B": Shape(32000, 768, 12, 12, 4, 2048, 4096),
    "0.3B": Shape(32000, 1024, 20, 16, 4, 3072, 4096),
    "0.5B": Shape(32000, 1280, 24, 20, 4, 3584, 4096),
    "1B": Shape(32000, 2048, 16, 32, 8, 8192, 4096),
}
EPSILON, ROPE_BASE = 1e-5, 10000.0
CHUNK_BLOCKS = 1 << 15
TEMPLATE = ("{% for message in messages %}{{ '<|' + ('assistant' if message['role'] == 'assistant' else 'user') + '|>' + "
            "message['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


def merges(count):
    """Merges that make words of one to three letters, with a space before them or not, so that text has ordinary lengths."""
    space, letters = bpe.NAMES[ord(" ")], string.ascii_lowercase
    pairs = itertools.chain(
        ((space, a) for a in letters), itertools.product(letters, letters),
        ((space + a, b) for a, b in itertools.product(letters, letters)),
        ((a + b, c) for a, b, c in itertools.product(letters, letters, letters)),
        ((space + a + b, c) for a, b, c in itertools.product(letters, letters, letters)))
    return list(itertools.islice(pairs, count))


def metadata(shape, name="random", kind="Q8_0"):
    tokenizer = bpe.Tokenizer(merges(shape.vocabulary - 256 - len(bpe.SPECIAL)))
    assert len(tokenizer.tokens) == shape.vocabulary
    return {
        "general.architecture": "llama", "general.type": "model", "general.name": name,
        "general.file_type": {"Q8_0": 7, "Q4_K": 14, "F16": 1}[kind], "general.quantization_version": 2,
        "llama.vocab_size": shape.vocabulary, "llama.context_length": shape.context,
        "llama.embedding_length": shape.width, "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.hidden, "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads, "llama.attention.layer_norm_rms_epsilon": EPSILON,
        "llama.rope.dimension_count": shape.width // shape.heads, "llama.rope.freq_base": ROPE_BASE,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokenizer.tokens,
        "tokenizer.ggml.token_type": [bpe.CONTROL] * len(bpe.SPECIAL) +
                                     [bpe.NORMAL] * (shape.vocabulary - len(bpe.SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer.merges],
        "tokenizer.ggml.bos_token_id": bpe.BEGIN, "tokenizer.ggml.eos_token_id": bpe.END,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": TEMPLATE,
    }


# --- weights: about normal in size for the matrix's input, so that nothing overflows on the way through --------------


def blocks(kind, deviation, count, rng):
    """count blocks of random bytes, with the scales put where the kind has them."""
    data = bytearray(rng.randbytes(count * kind.size))

    def put(at, value):
        for i, byte in enumerate(struct.pack("<e", value)):
            data[at + i::kind.size] = bytes([byte]) * count

    if kind is gguf_file.KINDS["Q8_0"]:
        put(0, deviation / 73.9)  # an even spread over a signed byte deviates by 73.9
    elif kind is gguf_file.KINDS["Q4_K"]:
        # value = d * scale * q - dmin * min, scale and min 0..63, q 0..15: even in the middle, so 7.5 * d = dmin
        put(0, deviation / 190)
        put(2, 7.5 * deviation / 190)
    else:  # F16: sign and mantissa are random, the exponent is fixed
        high = struct.pack("<e", 2.0 ** math.floor(math.log2(deviation)))[1]
        data[1::2] = bytes(data[1::2]).translate(bytes(b & 0x80 | high | b & 3 for b in range(256)))
    return bytes(data)


def matrix(name, shape, kind_name, seed):
    kind = gguf_file.KINDS[kind_name]
    total = shape[0] * shape[1] // kind.elements

    def chunks():
        rng = random.Random("%s %d" % (name, seed))
        for first in range(0, total, CHUNK_BLOCKS):
            yield blocks(kind, 1 / math.sqrt(shape[0]), min(CHUNK_BLOCKS, total - first), rng)

    return gguf_file.Tensor(name, shape, kind_name, chunks)


def norm(name, width):
    return gguf_file.Tensor(name, (width,), "F32", lambda: [struct.pack("<f", 1.0) * width])


def layer_matrices(shape):
    """name -> (inputs, outputs) of a layer's matrices."""
    head = shape.width // shape.heads
    return {"attn_q": (shape.width, shape.width), "attn_k": (shape.width, shape.kv_heads * head),
            "attn_v": (shape.width, shape.kv_heads * head), "attn_output": (shape.width, shape.width),
            "ffn_gate": (shape.width, shape.hidden), "ffn_up": (shape.width, shape.hidden),
            "ffn_down": (shape.hidden, shape.width)}


def tensors(shape, kind, seed):
    found = [matrix("token_embd.weight", (shape.width, shape.vocabulary), kind, seed),
             norm("output_norm.weight", shape.width)]
    for layer in range(shape.layers):
        found += [norm("blk.%d.%s.weight" % (layer, name), shape.width) for name in ("attn_norm", "ffn_norm")]
        found += [matrix("blk.%d.%s.weight" % (layer, name), sides, kind, seed)
                  for name, sides in layer_matrices(shape).items()]
    return found


def adapter_metadata(name="random", alpha=16.0):
    return {"general.architecture": "llama", "general.type": "adapter", "general.name": name, "adapter.type": "lora",
            "adapter.lora.alpha": alpha, "general.file_type": 1}


def adapter_tensors(shape, rank, seed):
    found = []
    for layer, (name, (inputs, outputs)) in itertools.product(range(shape.layers), layer_matrices(shape).items()):
        full = "blk.%d.%s.weight" % (layer, name)
        found += [matrix(full + ".lora_a", (inputs, rank), "F16", seed),
                  matrix(full + ".lora_b", (rank, outputs), "F16", seed)]
    return found


def write_model(path, size, kind, seed=1):
    shape = SIZES[size]
    if kind == "Q4_K":
        assert shape.width % 256 == 0 and shape.hidden % 256 == 0, "Q4_K has blocks of 256: not for size " + size
    with open(path, "wb") as file:
        gguf_file.write(file, metadata(shape, "random %s %s" % (size, kind), kind), tensors(shape, kind, seed))


def write_adapter(path, size, rank, seed=1):
    with open(path, "wb") as file:
        gguf_file.write(file, adapter_metadata("random %s %d" % (size, seed)), adapter_tensors(SIZES[size], rank, seed))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--kind", choices=("Q8_0", "Q4_K"), default="Q8_0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--adapter", type=int, metavar="RANK")
    options = parser.parse_args()
    if options.adapter:
        write_adapter(options.out, options.size, options.adapter, options.seed)
    else:
        write_model(options.out, options.size, options.kind, options.seed)


if __name__ == "__main__":
    main()
