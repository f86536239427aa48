"""Row 10, a language model beside llama.cpp's own server: the same GGUF of random weights, threads, places and context; 1, 4 and 16
streams over HTTP, each of them one request after the other, with prompts and answers of different lengths.

Both servers run all the time, and take turns with the same requests. The peer sums as our engine does: -fa off, --no-repack, since
weights that are not repacked lie in memory once for all workers. Where repacking changes anything (llama.cpp does it to Q4_K on this
kind of processor, to Q8_0 not) both are compared with it too."""

import contextlib
import random
import tempfile

from cases import figure, load_notes, target
from servers import Bulkhead, wait_for
from tokens import Files, Job, Lane, LlamaServer, measured

NUMBER = 10
TITLE = "language model beside llama-server: tokens/s, time to first token"
# Name, arguments of gguf_random, threads, memory in MiB, {streams: requests of each and run}, with repacked weights?
# Ours cuts its memory into streams of 4,096 tokens: so much that there are as many places as the peer has, or some more.
MODELS = (("0.1B Q8_0", ("--size", "0.1B"), 1, 2048, {1: 3, 4: 2, 16: 1}, False),
          ("0.1B Q4_K", ("--size", "0.1B", "--kind", "Q4_K"), 1, 2048, {1: 3, 4: 2, 16: 1}, False),
          ("0.1B Q4_K repacked", ("--size", "0.1B", "--kind", "Q4_K"), 1, 2048, {1: 3, 4: 2, 16: 1}, True),
          ("0.5B Q8_0", ("--size", "0.5B"), 2, 4096, {1: 1, 4: 1, 16: 1}, False))
SPEED_WANTED, FIRST_WANTED = 0.97, 1.05
SLOTS, CONTEXT, VOCABULARY = 16, 512, 32000
PROMPT, ANSWER = (32, 256), (24, 72)  # tokens, evenly between
RESOURCES = """apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: bench}
spec:
  quota: {requestsPerMinute: 1000000000, queueDepth: 1024}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: talk, tenant: bench}
spec:
  engine: llama
  source: %s
  resources: {cpu: %d, memory: %dMi, repack: %s}
  replicas: {min: 1, max: 1}
"""


def jobs(seed, streams, requests):
    """The same requests to each server of a pair: [[Job of a stream]]."""
    rng = random.Random(seed)
    return [[Job(rng, VOCABULARY, rng.randint(*PROMPT), rng.randint(*ANSWER)) for _ in range(requests)] for _ in range(streams)]


def first_answer(server, key, model):
    """Waits until the model answers that key."""
    body = '{"model": "%s", "prompt": [300], "max_tokens": 1}' % model
    wait_for("the first answer of %s" % model, lambda: server.check_alive() and server.post(
        "/v1/completions", {"Authorization": "Bearer " + key}, body)[0] == 200, 120)


class Comparison:
    """One model on ours and the peer."""

    def __init__(self, settings, stack, files, model):
        self.settings, (self.name, options, threads, memory, self.streams, repack) = settings, model
        path = files.make("-".join(word.strip("-") for word in options), *options)
        self.ours = stack.enter_context(Bulkhead(RESOURCES % (path, threads, memory, str(repack).lower()), ()))
        self.key = self.ours.make_keys("bench", 1)[0]
        self.peer = stack.enter_context(LlamaServer(path, "llama-server", SLOTS, CONTEXT, threads, (
            "-fa", "off", "--repack" if repack else "--no-repack")))
        first_answer(self.ours, self.key, "talk")

    def once(self, server, work):
        return measured(server, [Lane(server.port, lane, "talk", self.key) for lane in work])

    def run(self, progress):
        """{streams: [(run of ours, run of the peer)]}"""
        found = {streams: [] for streams in self.streams}
        for server in (self.ours, self.peer):  # each once for nothing
            self.once(server, jobs(0, 4, 1))
        for pair in range(self.settings.pairs):
            for streams, requests in self.streams.items():
                work = jobs("%s %d %d" % (self.name, pair, streams), streams, requests)
                order = (self.ours, self.peer) if pair % 2 == 0 else (self.peer, self.ours)
                runs = {server: self.once(server, work) for server in order}
                found[streams].append((runs[self.ours], runs[self.peer]))
                progress("%s, streams: %d, pair %d of %d: %s" % (self.name, streams, pair + 1, self.settings.pairs, "; ".join(
                    "%.0f tokens/s, %.0f ms" % (r["tokens_per_s"], r["first_ms"]) for r in found[streams][-1])))
        return found


def ratio(pairs, name):
    return [ours[name] / peer[name] for ours, peer in pairs]


def summarise(title, pairs):
    """(figures, targets) of one model, number of streams and peer of the same options."""
    figures = [figure("%s: tokens/s" % title, "1/s", [a["tokens_per_s"] for a, _ in pairs], "%.1f"),
               figure("  llama-server", "1/s", [b["tokens_per_s"] for _, b in pairs], "%.1f"),
               figure("  tokens/s, ratio", "x", ratio(pairs, "tokens_per_s")),
               figure("  CPU per token, ratio", "x", ratio(pairs, "cpu_us")),
               figure("  time to first token", "ms", [a["first_ms"] for a, _ in pairs], "%.0f"),
               figure("  llama-server", "ms", [b["first_ms"] for _, b in pairs], "%.0f"),
               figure("  time to first token, ratio", "x", ratio(pairs, "first_ms"))]
    fast, soon = figures[2]["values"]["median"], figures[6]["values"]["median"]
    return figures, [target("tokens/s, " + title, ">= %.2f x llama-server" % SPEED_WANTED, fast, fast >= SPEED_WANTED),
                     target("time to first token, " + title, "<= %.2f x" % FIRST_WANTED, soon, soon <= FIRST_WANTED)]


def run(settings, progress):
    figures, targets, runs, bars = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        for model in MODELS:
            with contextlib.ExitStack() as stack:
                comparison = Comparison(settings, stack, Files(folder), model)
                found = comparison.run(progress)
            for streams in comparison.streams:
                title = "%s, %d stream%s" % (comparison.name, streams, "s" if streams > 1 else "")
                more, wanted = summarise(title, found[streams])
                figures += more
                targets += wanted
                bars.append({"label": title, "series": {"tokens/s": more[2]["values"], "time to first token": more[6]["values"]}})
                runs += [run for pair in found[streams] for run in pair]
    return {"title": TITLE, "figures": figures, "targets": targets, "notes": load_notes(runs), "runs": runs,
            "plots": [{"title": "Bulkhead over llama-server, by model and streams", "unit": "x", "bars": bars,
                       "lines": {"tokens/s wanted": SPEED_WANTED, "time to first token wanted": FIRST_WANTED}}]}
