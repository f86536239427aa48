"""Row 6, the scheduler and the key's look-up alone, as micro benchmarks in one process: bench_schedule.c and
bench_keys.c say what exactly one operation is. Each program runs several times, and the least of each figure counts."""

import json
import os
import subprocess

from measure import spread
from servers import TREE, BenchError, end_with_parent

NUMBER = 6
TITLE = "scheduler alone, and key look-up with limit check"
RUNS = 3
PICK, PICK_NS_MAX, PICK_RATIO_MAX = "pick and requeue", 250, 4.0
KEY_ROWS, KEY_NS_MAX = ("known key, accepted", "known key, over its rate", "unknown key"), 100
MANY, FEW = 1000000, 1000


def figures(program):
    """{(row, how many): what the program printed} of one run."""
    path = os.path.join(TREE, "build", "test", "bench", program)
    done = subprocess.run([path], capture_output=True, text=True, check=False, preexec_fn=end_with_parent)
    if done.returncode != 0:
        raise BenchError("%s ended with %d: %s" % (program, done.returncode, done.stderr))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["row"], row.get("tenants", row.get("keys"))): row for row in rows}


def column(runs, key, name):
    return [run[key][name] for run in runs if name in run[key]]


def of_runs(runs, name, least):
    """{(row, how many): spread over the runs}, the median replaced by the least where that counts."""
    found = {}
    for key in runs[0]:
        values = [run[key][name] for run in runs if name in run[key]]
        if values:
            found[key] = {**spread(values), **({"median": min(values)} if least else {})}
    return found


def table(values, kind):
    return [{"name": "%s, %d%s" % (*key, kind), "values": one, "unit": "ns", "form": "%.0f"}
            for key, one in values.items()]


def target(what, wanted, limit, measured):
    return {"what": what, "wanted": "<= %g%s" % (limit, wanted), "measured": measured, "met": measured <= limit}


def run(_, progress):
    """A fixed number of runs: each is short, and the least of its rounds counts."""
    runs = []
    for number in range(RUNS):
        runs.append({**figures("bench_schedule"), **figures("bench_keys")})
        progress("run %d of %d: pick and requeue at %d: %.0f ns; key accepted at %d: %.0f ns" % (
            number + 1, RUNS, MANY, runs[-1][PICK, MANY]["ns"], MANY, runs[-1][KEY_ROWS[0], MANY]["ns"]))
    least, chained = of_runs(runs, "ns", True), of_runs(runs, "chained", True)
    pick, few = least[PICK, MANY]["median"], least[PICK, FEW]["median"]
    targets = [target("pick and requeue at %d tenants" % MANY, " ns", PICK_NS_MAX, pick),
               target("pick and requeue at %d over %d tenants" % (MANY, FEW), " x", PICK_RATIO_MAX, pick / few)]
    targets += [target("%s, of %d" % (name, MANY), " ns", KEY_NS_MAX, least[name, MANY]["median"]) for name in KEY_ROWS]
    return {"title": TITLE, "figures": table(least, "") + table(chained, ", each after the one before"),
            "targets": targets, "runs": [list(one.values()) for one in runs],
            "notes": ["processor time, the least round of %d runs [quartiles of each run's]" % RUNS,
                      "scheduler: all tenants backlogged, weights 1 to 8 and costs 0.1 to 2 ms at random",
                      "keys: each with a tenant of its own, in random order; without the SHA-256 of a new key",
                      "a connection remembers the key that it last proved: then there is no look-up, only the limit"]}
