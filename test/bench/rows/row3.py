"""Row 3, inferences per second of an MLP 784-512-512-10 served over 64 connections, against a bare C loop over ONNX Runtime:
one thread, batches of 1. The server's batches under load must pay for its HTTP, its queues and its wall."""

import contextlib

from cases import Case, figure, floats, generator, leases, load_notes, resources, target
from measure import BareEngine
from mlp import mlp
from servers import Bulkhead

NUMBER = 3
TITLE = "MLP 784-512-512-10, 64 connections: inferences/s against a bare loop over ONNX Runtime, one thread, batch 1"
CONNECTIONS, KEYS, WANTED = 64, 1000, 1.0
CASE = Case("mlp", "x", [1, 784], floats(784))
RESOURCES = resources("bench", [("mlp", "onnx", "mlp.onnx", "maxSize: 64")])


def run(settings, progress):
    model = mlp([784, 512, 512, 10])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Bulkhead(RESOURCES, [("mlp.onnx", model)]))
        keys = server.make_keys("bench", KEYS)
        bare = stack.enter_context(BareEngine(settings, model, CASE))
        CASE.wait(server, keys[-1])
        load = generator(stack, settings, CONNECTIONS, keys, CASE, *CASE.answer(server, keys[0]))
        served, engine, batches = [], [], []
        for pair in range(settings.pairs):
            if pair % 2 == 1:
                engine.append(bare.run())
            before = leases(server, "bench")
            served.append(load.run(server))
            # The lease count also sees the warm-up; so do the requests, in about the same proportion.
            whole = 1 + settings.warm_ms / settings.run_ms
            batches.append(served[-1]["requests"] * whole / max(1, leases(server, "bench") - before))
            if pair % 2 == 0:
                engine.append(bare.run())
            progress("pair %d of %d: served %.0f/s, bare %.0f/s, about %.0f together" % (
                pair + 1, settings.pairs, served[-1]["requests_per_s"], engine[-1]["inferences_per_s"], batches[-1]))
    ratio = figure("served / bare", "x", [s["requests_per_s"] / e["inferences_per_s"] for s, e in zip(served, engine)])
    measured = ratio["values"]["median"]
    return {
        "title": TITLE,
        "figures": [figure("served, inferences", "1/s", [r["requests_per_s"] for r in served], "%.0f"),
                    figure("bare loop, inferences", "1/s", [r["inferences_per_s"] for r in engine], "%.0f"),
                    figure("requests per lease (estimated)", "", batches, "%.1f"),
                    figure("served, CPU of all processes", "us/request", [r["cpu_us"] for r in served]),
                    figure("bare loop, CPU", "us/inference", [r["cpu_us"] for r in engine]),
                    ratio],
        "targets": [target("inferences/s", ">= %.1f x the bare loop" % WANTED, measured, measured >= WANTED)],
        "notes": load_notes(served),
        "runs": {"served": served, "bare": engine},
    }
