"""Row 4, the latency of one connection: p50 of `digits` minus the bare engine's time, against the p50 of row 1's nginx pair
(key map, limit_req, proxy_pass to a static nginx that answers as many bytes)."""

import contextlib

from cases import Case, figure, floats, generator, load_notes, resources, target
from measure import BareEngine, Generator
from servers import Bulkhead, NginxFront, NginxStatic

NUMBER = 4
TITLE = "one connection: p50 of digits over the bare engine's time, against the nginx pair's p50"
KEYS, WANTED = 1000, 1.5
MODEL = "examples/digits/digits.onnx"
CASE = Case("digits", "image", [1, 1, 8, 8], floats(64))
RESOURCES = resources("bench", [("digits", "onnx", "digits.onnx", "maxSize: 32")])


def run(settings, progress):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Bulkhead(RESOURCES, [MODEL]))
        keys = server.make_keys("bench", KEYS)
        bare = stack.enter_context(BareEngine(settings, MODEL, CASE))
        CASE.wait(server, keys[-1])
        answer, json_bytes = CASE.answer(server, keys[0])
        load = generator(stack, settings, 1, keys, CASE, answer, json_bytes)
        same_size = b"A" * len(answer)
        static = stack.enter_context(NginxStatic(same_size, json_bytes))
        pair_server = stack.enter_context(NginxFront(static, keys, "bench"))
        pair_load = stack.enter_context(Generator(settings, 1, keys, CASE.request_text(), same_size))
        ours, pairs, engine = [], [], []
        for pair in range(settings.pairs):
            turns = [(load, server, ours), (pair_load, pair_server, pairs)]
            for generate, target_server, runs in turns[::1 if pair % 2 == 0 else -1]:
                runs.append(generate.run(target_server))
            engine.append(bare.run())
            progress("pair %d of %d: digits p50 %.0f us, nginx pair %.0f us, engine %.1f us" % (
                pair + 1, settings.pairs, ours[-1]["p50_us"], pairs[-1]["p50_us"], engine[-1]["p50_us"]))
    ratio = figure("(digits - engine) / nginx pair", "x",
                   [(o["p50_us"] - e["p50_us"]) / p["p50_us"] for o, e, p in zip(ours, engine, pairs)])
    measured = ratio["values"]["median"]
    return {
        "title": TITLE,
        "figures": [figure("digits, p50", "us", [r["p50_us"] for r in ours], "%.0f"),
                    figure("digits, p99", "us", [r["p99_us"] for r in ours], "%.0f"),
                    figure("nginx pair, p50", "us", [r["p50_us"] for r in pairs], "%.0f"),
                    figure("nginx pair, p99", "us", [r["p99_us"] for r in pairs], "%.0f"),
                    figure("bare engine, p50", "us", [r["p50_us"] for r in engine], "%.1f"), ratio],
        "targets": [target("p50 over the engine's", "<= %.1f x the nginx pair's" % WANTED, measured,
                           measured <= WANTED)],
        "notes": load_notes(ours + pairs),
        "runs": {"digits": ours, "nginx pair": pairs, "bare engine": engine},
    }
