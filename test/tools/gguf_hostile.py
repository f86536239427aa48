#!/usr/bin/python3
"""Writes hostile GGUF files: a small valid model and a small valid adapter, each bent in every way that we know of.

    test/tools/gguf_hostile.py DIR [--random N]      DIR/model-NAME.gguf and DIR/adapter-NAME.gguf

A file whose NAME starts with 'odd-' may be loaded: its fields agree with each other, or a reader need not look. Every other
one must be refused, or at worst kill the process that opens it. 'model-valid' and 'adapter-valid' must load.
--random N adds N files (odd-) of each with random bytes of the header changed. Also a module: models() and adapters() give
(name, bytes).
"""
import argparse
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import gguf_random  # noqa: E402  (behind the path that finds it)
from gguf_random import gguf_file  # noqa: E402

SHAPE = gguf_random.SIZES["tiny"]
RANK = 4
U32, U64 = (1 << 32) - 1, (1 << 64) - 1


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


class File:
    """A file in named pieces, to be bent one at a time."""

    def __init__(self, metadata, tensors):
        self.metadata, self.tensors = metadata, tensors
        self.pieces = gguf_file.header(metadata, tensors)
        self.data = b"".join(part for tensor in tensors for part in
                             (*tensor.chunks(), bytes(gguf_file.padding(gguf_file.size(tensor)))))

    def whole(self):
        return b"".join(data for _, data in self.pieces) + self.data

    def with_piece(self, label, data):
        assert any(name == label for name, _ in self.pieces), label
        return b"".join(data if name == label else old for name, old in self.pieces) + self.data

    def with_metadata(self, **changes):
        """A well-formed file that says something else; None leaves the key out. '__' stands for '.'."""
        metadata = dict(self.metadata)
        for name, value in changes.items():
            key = name.replace("__", ".")
            if value is None:
                del metadata[key]
            else:
                metadata[key] = value
        return File(metadata, self.tensors).whole()

    def with_tensors(self, tensors):
        return File(self.metadata, tensors).whole()

    def border(self, label):
        """Where the piece begins."""
        at = 0
        for name, data in self.pieces:
            if name == label:
                return at
            at += len(data)
        raise KeyError(label)


def lies(file, key, tensor):
    """Lies in the header that any GGUF can tell. key: one of its text values; tensor: one of its tensors' names."""
    whole, label = file.whole(), tensor + " tensor"
    head = len(whole) - len(file.data)
    yield "empty", b""
    yield "one-byte", b"G"
    yield "magic-only", b"GGUF"
    yield "magic-other", file.with_piece("magic", b"GGML")
    yield "magic-big-endian", file.with_piece("magic", b"FUGG")
    for version in (0, 1, 4, 0x03000000, U32):
        yield "version-%d" % version, file.with_piece("version", u32(version))
    for name in ("tensors", "keys"):
        count = len(file.tensors if name == "tensors" else file.metadata)
        for number in (count + 1, 1 << 16, 1 << 31, 1 << 32, 1 << 62, 1 << 63, U64):
            yield "%s-%d" % (name, number), file.with_piece(name, u64(number))
    yield "odd-tensors-0" if "adapter.type" in file.metadata else "tensors-0", file.with_piece("tensors", u64(0))
    yield "keys-0", file.with_piece("keys", u64(0))
    for number in (0, 1, 1 << 16, 1 << 31, 1 << 32, 1 << 62, U64 - 7, U64):
        yield "key-length-%d" % number, file.with_piece(key + " key.length", u64(number))
        yield "text-length-%d" % number, file.with_piece(key + ".length", u64(number))
        yield "tensor-name-length-%d" % number, file.with_piece(label + ".length", u64(number))
    for kind in (9, 12, 13, 255, U32):
        yield "value-type-%d" % kind, file.with_piece(key + ".type", u32(kind))
    for count in (0, 5, 255, U32):
        yield "dimensions-%d" % count, file.with_piece(label + ".dimensions", u32(count))
    for side in (0, 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, U64):
        yield "side-%d" % side, file.with_piece(label + ".shape0", u64(side))
        yield "other-side-%d" % side, file.with_piece(label + ".shape1", u64(side))
    for kind in (4, 5, 31, 200, 1 << 31, U32):
        yield "kind-%d" % kind, file.with_piece(label + ".kind", u32(kind))
    for offset in (1, 16, len(file.data), 1 << 32, 1 << 62, 1 << 63, U64 - 31, U64):
        yield "offset-%d" % offset, file.with_piece(label + ".offset", u64(offset))
    for alignment in (0, 3, 31, 1 << 31):
        yield "alignment-%d" % alignment, file.with_metadata(general__alignment=alignment)
    yield "tensor-twice", file.with_tensors([*file.tensors, file.tensors[0]])
    yield "tensor-missing", file.with_tensors([t for t in file.tensors if t.name != tensor])
    yield "architecture-missing", file.with_metadata(general__architecture=None)
    yield "odd-architecture-nul", file.with_metadata(general__architecture="llama\0nonsense")
    for name in ("", "nonsense", "x" * 5000, "%s%n"):
        yield "architecture-%s" % ("long" if len(name) > 64 else name.encode().hex()), \
            file.with_metadata(general__architecture=name)
    for at in sorted({4, 8, 12, 23, head // 4, head // 2, head - 40, head - 1, head, head + 1, len(whole) // 2,
                      len(whole) - 64, len(whole) - 33}):
        yield "cut-%d" % at, whole[:at]
    yield "odd-more-behind", whole + bytes(4096)
    yield "odd-key-not-text", file.with_piece(key + ".text", b"\xff\xfe\x00\x80"[:len(dict(file.pieces)[key + ".text"])].ljust(
        len(dict(file.pieces)[key + ".text"]), b"\xc0"))


def hparams(file):
    """Numbers of a model that do not fit together, or are too large for anything."""
    for key in ("embedding_length", "block_count", "feed_forward_length", "attention.head_count", "rope.dimension_count",
                "attention.head_count_kv", "context_length"):
        name = "llama__" + key.replace(".", "__")
        odd = "odd-" if key in ("context_length", "rope.dimension_count", "attention.head_count_kv") else ""
        for value in (0, 1, 3, 7, 1 << 20, 1 << 31, U32):
            yield "%s%s-%d" % (odd, key, value), file.with_metadata(**{name: value})
        yield "%s%s-text" % ("" if odd == "" or key == "context_length" else "odd-", key), file.with_metadata(**{name: "64"})
    yield "embedding-missing", file.with_metadata(llama__embedding_length=None)
    yield "blocks-missing", file.with_metadata(llama__block_count=None)
    yield "odd-vocabulary-0", file.with_metadata(llama__vocab_size=0)
    yield "odd-vocabulary-large", file.with_metadata(llama__vocab_size=1 << 31)
    for value in (float("nan"), float("inf"), -1.0, 0.0):
        yield "odd-epsilon-%s" % value, file.with_metadata(llama__attention__layer_norm_rms_epsilon=value)
        yield "odd-rope-base-%s" % value, file.with_metadata(llama__rope__freq_base=value)


def vocabulary(file):
    """Tokenizers that lie, and templates that never end."""
    tokens, kinds = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.token_type"]
    merges = file.metadata["tokenizer.ggml.merges"]
    yield "tokenizer-missing", file.with_metadata(tokenizer__ggml__model=None)
    yield "tokenizer-unknown", file.with_metadata(tokenizer__ggml__model="nonsense")
    yield "tokens-missing", file.with_metadata(tokenizer__ggml__tokens=None)
    yield "tokens-few", file.with_metadata(tokenizer__ggml__tokens=tokens[:100], tokenizer__ggml__token_type=kinds[:100])
    yield "merges-missing", file.with_metadata(tokenizer__ggml__merges=None)
    yield "pre-unknown", file.with_metadata(tokenizer__ggml__pre="nonsense")
    yield "odd-types-few", file.with_metadata(tokenizer__ggml__token_type=kinds[:10])
    yield "odd-types-wild", file.with_metadata(tokenizer__ggml__token_type=[-1, 99, 1 << 30] + kinds[3:])
    yield "odd-tokens-all-same", file.with_metadata(tokenizer__ggml__tokens=["a"] * len(tokens))
    yield "odd-tokens-empty", file.with_metadata(tokenizer__ggml__tokens=[""] * len(tokens))
    yield "odd-token-long", file.with_metadata(tokenizer__ggml__tokens=["x" * (1 << 20)] + tokens[1:])
    yield "odd-merge-no-space", file.with_metadata(tokenizer__ggml__merges=["ab"] + merges)
    yield "odd-merge-empty", file.with_metadata(tokenizer__ggml__merges=[""] + merges)
    for token in (len(tokens), 1 << 31, U32):
        yield "odd-bos-%d" % token, file.with_metadata(tokenizer__ggml__bos_token_id=token)
        yield "odd-eos-%d" % token, file.with_metadata(tokenizer__ggml__eos_token_id=token)
    loop = "{% for a in range(1000000000) %}"
    for name, text in (("endless", loop * 3 + "x" + "{% endfor %}" * 3), ("open", "{% for message in messages %}"),
                       ("deep", "{{ " + "(" * 50000 + "1" + ")" * 50000 + " }}"),
                       ("grows", "{% set x = 'a' * 1000000000 %}{{ x }}"), ("large", "{{ messages }}" * 100000),
                       ("bytes", "\ud7ff\0{{ messages }}"), ("include", "{% include '/etc/passwd' %}")):
        yield "odd-template-" + name, file.with_metadata(tokenizer__chat_template=text)


def weights(file):
    """Right in every field, and not numbers."""
    for name, pattern in (("nan", b"\x00\x7e"), ("infinite", b"\x00\x7c")):
        tensors = []
        for tensor in file.tensors:
            kind = gguf_file.KINDS[tensor.kind]
            if tensor.kind == "F32":
                tensors.append(tensor)
                continue
            data = bytearray(b"".join(tensor.chunks()))
            for i in range(2):
                data[i::kind.size] = pattern[i:i + 1] * (len(data) // kind.size)
            tensors.append(tensor._replace(chunks=lambda data=bytes(data): [data]))
        yield "odd-weights-" + name, file.with_tensors(tensors)


def adapter_lies(file):
    first, second = file.tensors[0], file.tensors[1]
    yield "type-model", file.with_metadata(general__type="model")
    yield "type-missing", file.with_metadata(general__type=None)
    yield "adapter-type-missing", file.with_metadata(adapter__type=None)
    yield "adapter-type-other", file.with_metadata(adapter__type="nonsense")
    yield "architecture-of-another", file.with_metadata(general__architecture="qwen2")
    yield "odd-alpha-missing", file.with_metadata(adapter__lora__alpha=None)
    yield "alpha-text", file.with_metadata(adapter__lora__alpha="16")
    for alpha in (float("nan"), float("inf"), -1e30):
        yield "odd-alpha-%s" % alpha, file.with_metadata(adapter__lora__alpha=alpha)
    yield "b-missing", file.with_tensors([t for t in file.tensors if t.name != second.name])
    yield "suffix-other", file.with_tensors([first._replace(name=first.name + "x"), *file.tensors[1:]])
    yield "not-in-base", file.with_tensors([t._replace(name=t.name.replace("blk.0", "blk.99")) for t in file.tensors])
    sides = {"wide": (SHAPE.width * 2, RANK), "narrow": (SHAPE.width // 2, RANK), "rank": (SHAPE.width, RANK * 2),
             "turned": (RANK, SHAPE.width)}
    for name, shape in sides.items():
        yield "sides-" + name, file.with_tensors([gguf_random.matrix(first.name, shape, "F16", 1), *file.tensors[1:]])
    yield "invocation-tokens-text", file.with_metadata(adapter__alora__invocation_tokens="x")
    yield "invocation-tokens-signed", file.with_metadata(adapter__alora__invocation_tokens=[1, 2])


def scrambled(file, count):
    whole, rng = file.whole(), random.Random(6)
    head = len(whole) - len(file.data)
    for number in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(head)
            data[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, data[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        yield "odd-random-%d" % number, bytes(data)


def model_file():
    return File(gguf_random.metadata(SHAPE), gguf_random.tensors(SHAPE, "Q8_0", 1))


def adapter_file():
    return File(gguf_random.adapter_metadata(), gguf_random.adapter_tensors(SHAPE, RANK, 1))


def models(random_count=0):
    file = model_file()
    yield "valid", file.whole()
    for source in (lies(file, "general.architecture", "blk.0.attn_q.weight"), hparams(file), vocabulary(file), weights(file)):
        yield from source
    yield "is-adapter", adapter_file().whole()
    yield from scrambled(file, random_count)


def adapters(random_count=0):
    file = adapter_file()
    yield "valid", file.whole()
    yield from lies(file, "general.architecture", "blk.0.attn_q.weight.lora_a")
    yield from adapter_lies(file)
    yield from weights(file)
    yield "is-model", model_file().whole()
    yield from scrambled(file, random_count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--random", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for prefix, files in (("model", models(options.random)), ("adapter", adapters(options.random))):
        for name, data in files:
            (options.folder / ("%s-%s.gguf" % (prefix, name))).write_bytes(data)


if __name__ == "__main__":
    main()
