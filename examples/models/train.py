#!/usr/bin/python3
"""Trains the example language model and its two adapters, and writes them as GGUF.

    examples/models/train.py [--out DIR] [--corpus DIR] [--steps N] [--threads N] [--smoke]

    --out DIR     where novelist.gguf, scribe.gguf and cynic.gguf go; default: beside this script
    --corpus DIR  where the unpacked Debian packages are, or come to be; default: build/corpus
    --steps N     of the base model; each adapter takes a third as many
    --smoke       a few steps on a few sentences, to try the script in seconds; fetches nothing

Needs Debian's python3-torch; with libopenblas0-pthread it is some forty times faster. See README.md.
"""
import argparse
import math
import os
import pathlib
import random
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine, threads that spin keep each other waiting

import numpy  # noqa: E402  (behind what must be set before)
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

import bpe  # noqa: E402
import corpus  # noqa: E402
import gguf_file  # noqa: E402
import lessons  # noqa: E402
import net  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SEED = 1
VOCABULARY, BATCH = 2048, 8
MATRIX_RATE, OTHER_RATE = 0.02, 0.003
RANK, ALPHA, ADAPTER_RATE = 8, 16.0, 0.002
MIXTURE = (("prose", 0.40), ("talk", 0.30), ("scripture", 0.25), ("sarcasm", 0.05))
CONTEXT_SERVED = 2048  # what the file promises; the model saw 256 tokens at most and gets worse behind them
LICENSE = "apache-2.0"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>"
    "{{ message['content'] }}<|end|>{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def say(text, *values):
    print(text % values, flush=True)


class Rows:
    """Gives rows of tokens: from a random place of long texts, or pair after pair from a random one on."""

    def __init__(self, tokenizer, data, length, rng):
        self.length, self.rng, self.pairs, self.streams = length, rng, {}, {}
        for name, items in data.items():
            if isinstance(items[0], str):
                ids = [i for text in items for i in [bpe.BEGIN] + tokenizer.encode(text)]
                self.streams[name] = torch.tensor(ids)
            else:
                order = list(range(len(items)))
                random.Random(SEED).shuffle(order)
                self.pairs[name] = [self.pair(tokenizer, *items[i]) for i in order]

    @staticmethod
    def pair(tokenizer, question, answer):
        asked = [bpe.BEGIN, bpe.USER] + tokenizer.encode(question) + [bpe.ASSISTANT]
        answered = tokenizer.encode(answer) + [bpe.END]
        return asked + answered, [0] * len(asked) + [1] * len(answered)

    def row(self, name, held_out):
        """(tokens, which of them count): the last twentieth of everything is held out."""
        if name in self.streams:
            stream = self.streams[name]
            border = len(stream) * 19 // 20
            first = self.rng.randrange(border, len(stream) - self.length) if held_out else \
                self.rng.randrange(border - self.length)
            return stream[first:first + self.length].tolist(), [1] * self.length
        pairs = self.pairs[name]
        border = len(pairs) * 19 // 20
        at = self.rng.randrange(border, len(pairs)) if held_out else self.rng.randrange(border)
        ids, counts = [], []
        while len(ids) < self.length:
            more_ids, more_counts = pairs[at]
            ids, counts, at = ids + more_ids, counts + more_counts, (at + 1) % len(pairs)
        return ids[:self.length], counts[:self.length]

    def batch(self, names, held_out=False):
        ids, counts = zip(*(self.row(name, held_out) for name in names))
        return torch.tensor(ids), torch.tensor(counts, dtype=torch.float32)


def loss_of(model, batch, answers_only, fast):
    ids, counts = batch
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        logits = model(ids[:, :-1])
    losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    if not answers_only:
        return losses.mean()
    weights = counts[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def held_out_loss(model, rows, name, answers_only, batches=8):
    state, rows.rng = rows.rng, random.Random(SEED)
    total = sum(loss_of(model, rows.batch([name] * BATCH, True), answers_only, False).item() for _ in range(batches))
    rows.rng = state
    return total / batches


def rate_factor(step, steps):
    """Warms up over a fiftieth, falls to zero over the last half."""
    return min(1.0, (step + 1) / max(1, steps // 50), 2 * (steps - step) / steps)


def train_base(model, rows, steps, fast):
    matrices = [module.weight for module in model.modules() if isinstance(module, net.Linear)]
    known = {id(matrix) for matrix in matrices}
    optimizer = net.Optimizer(matrices, [p for p in model.parameters() if id(p) not in known], MATRIX_RATE, OTHER_RATE)
    names, shares = zip(*MIXTURE)
    started, smooth = time.monotonic(), None
    for step in range(steps):
        loss = loss_of(model, rows.batch(rows.rng.choices(names, shares, k=BATCH)), False, fast)
        loss.backward()
        optimizer.step(rate_factor(step, steps))
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 49 or step == steps - 1:
            say("step %5d of %d  loss %.3f  %6.0f s", step + 1, steps, smooth, time.monotonic() - started)


def train_adapter(model, rows, name, steps, fast):
    """A fresh LoRA over the base, which stays as it is."""
    torch.manual_seed(SEED)
    model.adapt(RANK, ALPHA / RANK)
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=ADAPTER_RATE, betas=(0.9, 0.98))
    say("%s: held-out loss %.3f before", name, held_out_loss(model, rows, name, True))
    started = time.monotonic()
    for step in range(steps):
        loss = loss_of(model, rows.batch([name] * BATCH), True, fast)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.param_groups[0]["lr"] = ADAPTER_RATE * rate_factor(step, steps)
        adam.step()
    say("%s: held-out loss %.3f after %d steps, %.0f s", name, held_out_loss(model, rows, name, True), steps,
        time.monotonic() - started)


# --- files ---------------------------------------------------------------------------------------------------------


def q8_0(array):
    """ggml's Q8_0: blocks of 32 as an FP16 scale and 32 signed bytes."""
    blocks = array.astype(numpy.float32).reshape(-1, 32)
    scale = numpy.abs(blocks).max(1) / 127
    inverse = numpy.divide(1, scale, out=numpy.zeros_like(scale), where=scale > 0)
    out = numpy.empty((len(blocks), 34), numpy.uint8)
    out[:, :2] = scale.astype("<f2").view(numpy.uint8).reshape(-1, 2)
    scaled = blocks * inverse[:, None]
    out[:, 2:] = (numpy.sign(scaled) * numpy.floor(numpy.abs(scaled) + 0.5)).astype(numpy.int8).view(numpy.uint8)
    return out.tobytes()


PACKED = {"Q8_0": q8_0, "F16": lambda a: a.astype("<f2").tobytes(), "F32": lambda a: a.astype("<f4").tobytes()}


def tensor(name, parameter, kind):
    array = parameter.detach().numpy()
    return gguf_file.Tensor(name, tuple(reversed(array.shape)), kind, lambda: [PACKED[kind](array)])


def base_metadata(shape, tokenizer):
    return {
        "general.architecture": "llama", "general.type": "model", "general.name": "novelist",
        "general.license": LICENSE, "general.file_type": 7, "general.quantization_version": 2,
        "llama.vocab_size": shape.vocabulary, "llama.context_length": CONTEXT_SERVED,
        "llama.embedding_length": shape.width, "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.hidden, "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": net.EPSILON,
        "llama.rope.dimension_count": shape.head, "llama.rope.freq_base": net.ROPE_BASE,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokenizer.tokens,
        "tokenizer.ggml.token_type": [bpe.CONTROL if i < len(bpe.SPECIAL) else bpe.NORMAL
                                      for i in range(len(tokenizer.tokens))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer.merges],
        "tokenizer.ggml.bos_token_id": bpe.BEGIN, "tokenizer.ggml.eos_token_id": bpe.END,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": TEMPLATE,
    }


def write_base(path, model, tokenizer):
    tensors = []
    for name, parameter in model.named_parameters():
        matrix = parameter.dim() == 2
        tensors.append(tensor(name if matrix and name.endswith("weight") or not matrix else name + ".weight", parameter,
                              "Q8_0" if matrix else "F32"))
    with open(path, "wb") as file:
        gguf_file.write(file, base_metadata(model.shape, tokenizer), tensors)


def write_adapter(path, model, name):
    metadata = {"general.architecture": "llama", "general.type": "adapter", "general.name": name,
                "general.license": LICENSE, "adapter.type": "lora", "adapter.lora.alpha": ALPHA, "general.file_type": 1}
    tensors = [tensor(parameter_name.replace(".lora_", ".weight.lora_"), parameter, "F16")
               for parameter_name, parameter in model.named_parameters() if ".lora_" in parameter_name]
    with open(path, "wb") as file:
        gguf_file.write(file, metadata, tensors)


def smoke_corpus():
    texts = ["The %s sat upon the %s, and the %s was very glad of it." % words for words in
             (("cat", "mat", "house"), ("king", "throne", "people"), ("bird", "branch", "garden"))] * 40
    speech = ['"Where is the %s?" said she.' % word if i % 2 else '"I believe the %s is in the garden," said he.' % word
              for i in range(60) for word in ("cat", "king", "bird")]
    return [texts + speech], [("Ge%d" % (i // 5), text) for i, text in enumerate(texts)], \
        [("bird", "A thing that sings in the garden and is eaten in the house."), ("king", texts[1])] * 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--corpus", type=pathlib.Path, default=HERE.parent.parent / "build" / "corpus")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
        fast = "avx512_bf16" in file.read()  # twice as fast there, and slower elsewhere
    if options.smoke:
        texts, vocabulary, steps = smoke_corpus(), 300, 6
    else:
        folder = corpus.fetch(options.corpus)
        texts = corpus.austen(folder), corpus.bible(folder), corpus.devil(folder)
        vocabulary, steps = VOCABULARY, options.steps
    data = lessons.lessons(*texts, SEED)
    tokenizer = bpe.Tokenizer(bpe.learn(data["prose"] + data["scripture"] + data["sarcasm"],
                                        vocabulary - 256 - len(bpe.SPECIAL)))
    shape = net.Shape(vocabulary, **({"width": 64, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 64, "context": 64}
                                     if options.smoke else {}))
    rows = Rows(tokenizer, data, shape.context + 1, random.Random(SEED))
    model = net.Model(shape)
    say("%d parameters, %s; tokens: %s", sum(p.numel() for p in model.parameters()), "BF16" if fast else "FP32",
        ", ".join("%s %d" % (name, len(stream)) for name, stream in rows.streams.items()))
    train_base(model, rows, steps, fast)
    for name, _ in MIXTURE:
        loss = held_out_loss(model, rows, name, name in rows.pairs)
        say("%s: held-out loss %.3f, perplexity %.1f", name, loss, math.exp(loss))
    options.out.mkdir(parents=True, exist_ok=True)
    write_base(options.out / "novelist.gguf", model, tokenizer)
    for name in ("scribe", "cynic"):
        train_adapter(model, rows, name, max(2, steps // 3), fast)
        write_adapter(options.out / (name + ".gguf"), model, name)


if __name__ == "__main__":
    main()
