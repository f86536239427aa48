"""Row 11, eight tenants of one language model: one server that lends it to all of them, against a llama-server with one thread for
each. Every tenant has one stream, one request after the other; first all on the bare base, then each with an adapter.

Memory is the PSS of all processes of a side right after a run, and once more after the last one and a rest, in which our worker gives
back what is not used. A conversation may be as long on both sides (4,096 tokens, what the model says of itself), all eight at once. In Q8_0 llama.cpp maps the file, so that its processes share the weights too; in Q4_K
both sides repack them, which is llama-server's default, and each of its processes then has its own."""

import contextlib
import itertools
import random
import tempfile
import time

from cases import figure, load_notes, target
from lending import lent
from rows.row10 import VOCABULARY, first_answer, ratio
from servers import Bulkhead
from tokens import Files, Group, Job, Lane, LlamaServer, measured, pss

NUMBER = 11
TITLE = "eight tenants of one language model, against eight llama-servers with one thread"
TENANTS = ["t%d" % i for i in range(8)]
# Name, arguments of gguf_random, with repacked weights?, MiB beside what cells and adapters need.
MODELS = (("Q8_0", ("--size", "0.1B"), False, 96), ("Q4_K repacked", ("--size", "0.1B", "--kind", "Q4_K"), True, 96 + 64))
CPU, CONTEXT, RANK = 2, 4096, "8"
STREAM_MIB = 2 * 48  # of the limit: half of what is beside the library is for cells, the rest for adapters and embeddings
PROMPT, ANSWER, REQUESTS = (32, 192), (24, 72), 2
MEMORY_WANTED, BARE_WANTED, ADAPTERS_WANTED = 0.3, 1.5, 1.0
REST_S = 32  # LIMIT_REST_MS, and some time for it
MIB = 1 << 20


def jobs(seed):
    rng = random.Random(seed)
    return [[Job(rng, VOCABULARY, rng.randint(*PROMPT), rng.randint(*ANSWER)) for _ in range(REQUESTS)] for _ in TENANTS]


class Sides:
    """The lending server, and a llama-server for each tenant; with adapters or without."""

    def __init__(self, stack, model, adapters, repack, memory):
        self.model = "base:voice" if adapters else "base"
        memory += STREAM_MIB * (len(TENANTS) + bool(adapters))  # one stream is never an adapter's
        same = ("-fa", "off", "--repack" if repack else "--no-repack")
        self.ours = stack.enter_context(Bulkhead(lent(model, CPU, memory, TENANTS, adapters, repack), ()))
        self.keys = [self.ours.make_keys(name, 1)[0] for name in TENANTS]
        self.peers = Group([stack.enter_context(LlamaServer(model, "llama-server", 1, CONTEXT, 1,
                                                            same + (("--lora", adapters[i]) if adapters else ())))
                            for i in range(len(TENANTS))])
        for key in self.keys:
            first_answer(self.ours, key, self.model)

    def once(self, server, work):
        ports = [s.port for s in server.servers] if server is self.peers else [server.port] * len(TENANTS)
        return measured(server, [Lane(port, lane, self.model, key) for port, lane, key in zip(ports, work, self.keys)])

    def run(self, settings, what, progress):
        """([(ours, peers)], [their bytes of memory, of each pair and at rest])"""
        pairs, memory = [], []
        for server in (self.ours, self.peers):
            self.once(server, jobs(what))
        for pair in range(settings.pairs):
            order = (self.ours, self.peers) if pair % 2 == 0 else (self.peers, self.ours)
            runs = {server: self.once(server, jobs("%s %d" % (what, pair))) for server in order}
            pairs.append((runs[self.ours], runs[self.peers]))
            memory.append((pss(self.ours), pss(self.peers)))
            progress("%s, pair %d of %d: %.0f against %.0f tokens/s, %.0f against %.0f MiB" % (
                what, pair + 1, settings.pairs, *(r["tokens_per_s"] for r in pairs[-1]), *(m / MIB for m in memory[-1])))
        time.sleep(REST_S)
        memory.append((pss(self.ours), pss(self.peers)))
        progress("%s, at rest: %.0f against %.0f MiB" % (what, *(m / MIB for m in memory[-1])))
        return pairs, memory


def figures_of(what, pairs, memory):
    return [figure("%s: tokens/s" % what, "1/s", [a["tokens_per_s"] for a, _ in pairs], "%.1f"),
            figure("  8 x llama-server", "1/s", [b["tokens_per_s"] for _, b in pairs], "%.1f"),
            figure("  tokens/s, ratio", "x", ratio(pairs, "tokens_per_s")),
            figure("  CPU per token, ratio", "x", ratio(pairs, "cpu_us")),
            figure("  time to first token, ratio", "x", ratio(pairs, "first_ms")),
            figure("  memory", "MiB", [a / MIB for a, _ in memory[:-1]], "%.0f"),
            figure("  8 x llama-server", "MiB", [b / MIB for _, b in memory[:-1]], "%.0f"),
            figure("  memory, ratio", "x", [a / b for a, b in memory[:-1]]),
            figure("  memory at rest, ratio", "x", [a / b for a, b in memory[-1:]])]


def run(settings, progress):
    figures, targets, runs, bars = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        files = Files(folder)
        adapters = [files.make(name, "--size", "0.1B", "--adapter", RANK, "--seed", str(i)) for i, name in enumerate(TENANTS)]
        for (name, options, repack, least), (whose, own, wanted) in itertools.product(
                MODELS, (("bare base", (), BARE_WANTED), ("eight adapters", adapters, ADAPTERS_WANTED))):
            what = "%s, %s" % (name, whose)
            with contextlib.ExitStack() as stack:
                model = files.make("-".join(word.strip("-") for word in options), *options)
                pairs, memory = Sides(stack, model, own, repack, least).run(settings, what, progress)
            more = figures_of(what, pairs, memory)
            fast, small = more[2]["values"]["median"], more[7]["values"]["median"]
            targets += [target("tokens/s, " + what, ">= %.1f x" % wanted, fast, fast >= wanted),
                        target("memory, " + what, "<= %.1f x" % MEMORY_WANTED, small, small <= MEMORY_WANTED)]
            figures += more
            runs += [run for pair in pairs for run in pair]
            bars.append({"label": what, "series": {"tokens/s": more[2]["values"], "memory": more[7]["values"],
                                                   "time to first token": more[4]["values"]}})
    return {"title": TITLE, "figures": figures, "targets": targets, "notes": load_notes(runs), "runs": runs,
            "plots": [{"title": "One server for eight tenants, over eight llama-servers", "unit": "x", "bars": bars,
                       "lines": {"memory wanted": MEMORY_WANTED, "tokens/s wanted on the bare base": BARE_WANTED}}]}
