"""Row 8, the frontier beside row 1's peak: the highest rate of requests at which p99 stays within 1, 5, 10 and 50 ms. Requests
are due at a fixed rate whatever the server does, and latency counts from when they were due."""

import contextlib

from cases import figure, load_notes
from measure import Generator
from rows import row1

NUMBER = 8
TITLE = "the frontier: requests/s at p99 <= 1, 5, 10 and 50 ms, row 1's request, open loop over 64 connections"
LIMITS_MS = (1, 5, 10, 50)
RATES = [int(5000 * 1.12 ** i) for i in range(30)]  # 5,000 to 134,000
RUN_MS, KEPT = 1000, 0.99
REPEATS_MAX = 5
GIVE_UP = 3  # so many rates in a row beyond the widest limit end the climb


def climb(generator, server, run_ms):
    """{limit: highest rate that held it}, and the runs."""
    best, runs, lost = dict.fromkeys(LIMITS_MS, 0), [], 0
    for rate in RATES:
        run = generator.run(server, rate=rate, run_ms=run_ms)
        runs.append({"rate": rate, **run})
        kept = run["requests_per_s"] >= KEPT * rate
        for limit in LIMITS_MS:
            if kept and run["p99_us"] <= 1000 * limit:
                best[limit] = rate
        lost = 0 if kept and run["p99_us"] <= 1000 * LIMITS_MS[-1] else lost + 1
        if lost == GIVE_UP:
            break
    return best, runs


def run(settings, progress):
    repeats, run_ms = min(REPEATS_MAX, settings.pairs), min(RUN_MS, settings.run_ms)
    with contextlib.ExitStack() as stack:
        bulkhead, keys, _ = row1.bulkhead_start(stack, progress)
        answer = row1.answer_checked(bulkhead, keys[0])
        generator = stack.enter_context(Generator(settings, row1.CONNECTIONS, keys, row1.CASE.request_text(), answer[0]))
        _, pair, choice = row1.nginx_choose(stack, settings, generator, keys, answer, progress)
        bests, runs = {"bulkhead": [], "nginx pair": []}, {"bulkhead": [], "nginx pair": []}
        for turn in range(repeats):
            for name, server in list(zip(bests, (bulkhead, pair)))[::1 if turn % 2 == 0 else -1]:
                best, some = climb(generator, server, run_ms)
                bests[name].append(best)
                runs[name] += some
                progress("climb %d of %d: %s %s" % (turn + 1, repeats, name, best))
    return {
        "title": TITLE,
        "figures": [figure("%s, p99 <= %d ms" % (name, limit), "requests/s", [best[limit] for best in bests[name]], "%.0f")
                    for limit in LIMITS_MS for name in bests],
        "targets": [],
        "notes": ["rates climb in steps of 12 %% from %d/s; %d climbs each" % (RATES[0], repeats),
                  "nginx's worker processes: %s" % choice["chosen"]["pair"],
                  *load_notes(runs["bulkhead"] + runs["nginx pair"])],
        "runs": runs,
    }
