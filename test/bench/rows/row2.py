"""Row 2, a real model's cost beside the engine's: `digits` in binary over 64 connections. CPU per request of all processes
minus what the bare engine needs per inference, against the CPU per request of row 1's model in the same run."""

import contextlib

from cases import Case, figure, floats, generator, load_notes, resources, target
from measure import BareEngine
from servers import Bulkhead

NUMBER = 2
TITLE = "digits, binary, 64 connections: CPU per request without the bare engine's, against row 1's"
CONNECTIONS, KEYS, WANTED = 64, 1000, 1.0
MODEL = "examples/digits/digits.onnx"
DIGITS = Case("digits", "image", [1, 1, 8, 8], floats(64))
IDENTITY = Case("identity", "x", [1, 64], floats(64))
RESOURCES = resources("bench", [("digits", "onnx", "digits.onnx", "maxSize: 32"),
                                ("identity", "identity", "identity.json", "maxSize: 32")])


def run(settings, progress):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Bulkhead(RESOURCES, [MODEL, "examples/identity/identity.json"]))
        keys = server.make_keys("bench", KEYS)
        bare = stack.enter_context(BareEngine(settings, MODEL, DIGITS))
        loads = []
        for case in (DIGITS, IDENTITY):
            case.wait(server, keys[-1])
            loads.append(generator(stack, settings, CONNECTIONS, keys, case, *case.answer(server, keys[0])))
        digits, identity, engine = [], [], []
        for pair in range(settings.pairs):
            for load, runs in list(zip(loads, (digits, identity)))[::1 if pair % 2 == 0 else -1]:
                runs.append(load.run(server))
            engine.append(bare.run())
            progress("pair %d of %d: digits %.0f/s %.1f us, identity %.0f/s %.1f us, engine %.1f us" % (
                pair + 1, settings.pairs, digits[-1]["requests_per_s"], digits[-1]["cpu_us"],
                identity[-1]["requests_per_s"], identity[-1]["cpu_us"], engine[-1]["cpu_us"]))
    own = [d["cpu_us"] - e["cpu_us"] for d, e in zip(digits, engine)]
    ratio = figure("the server's own CPU per request / row 1's", "x", [o / i["cpu_us"] for o, i in zip(own, identity)])
    measured = ratio["values"]["median"]
    return {
        "title": TITLE,
        "figures": [
            figure("digits, requests", "1/s", [r["requests_per_s"] for r in digits], "%.0f"),
            figure("digits, CPU of all processes", "us/request", [r["cpu_us"] for r in digits]),
            figure("bare engine, batch 1, CPU", "us/inference", [r["cpu_us"] for r in engine]),
            figure("identity (row 1's model), CPU of all processes", "us/request", [r["cpu_us"] for r in identity]),
            ratio],
        "targets": [target("own CPU per request", "<= %.1f x row 1's" % WANTED, measured, measured <= WANTED)],
        "notes": ["what waits goes to the engine together, which is cheaper per item than the bare engine's batches of 1",
                  *load_notes(digits + identity)],
        "runs": {"digits": digits, "identity": identity, "bare engine": engine},
    }
