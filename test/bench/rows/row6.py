"""Row 6, the scheduler and the key's look-up alone, as micro benchmarks in one process: bench_schedule.c and
bench_keys.c say what exactly one operation is. Each program runs several times; of each run's figure the least and the median are kept."""

import json
import os
import statistics
import subprocess

from servers import TREE, BenchError, end_with_parent

NUMBER = 6
TITLE = "scheduler alone, and key look-up with limit check"
RUNS = 5
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


def line(runs, key):
    least, medians = column(runs, key, "ns"), column(runs, key, "ns_median")
    chained = column(runs, key, "chained")
    return "%-42s %9d %9.0f %9.0f%s" % (*key, min(least), statistics.median(medians),
                                       " %9.0f" % min(chained) if chained else "")


def target(what, measured, limit, form):
    return {"what": what, "wanted": "<= " + form % limit, "measured": form % measured, "met": measured <= limit}


def run(_, progress):
    """A fixed number of runs: each is short, and the least of them counts."""
    runs = []
    for number in range(RUNS):
        runs.append({**figures("bench_schedule"), **figures("bench_keys")})
        progress("run %d of %d: pick and requeue at %d: %.0f ns; key accepted at %d: %.0f ns" % (
            number + 1, RUNS, MANY, runs[-1][PICK, MANY]["ns"], MANY, runs[-1][KEY_ROWS[0], MANY]["ns"]))
    pick = {n: min(column(runs, (PICK, n), "ns")) for n in (MANY, FEW)}
    targets = [target("pick and requeue at %d tenants" % MANY, pick[MANY], PICK_NS_MAX, "%.0f ns"),
               target("pick and requeue, %d over %d tenants" % (MANY, FEW), pick[MANY] / pick[FEW], PICK_RATIO_MAX,
                      "%.1f x")]
    targets += [target("%s, at %d keys" % (name, MANY), min(column(runs, (name, MANY), "ns")), KEY_NS_MAX, "%.0f ns")
                for name in KEY_ROWS]
    header = "%-42s %9s %9s %9s %9s" % ("ns of processor time, %d runs" % RUNS, "of", "least", "median", "chained")
    return {"title": TITLE, "lines": [header] + [line(runs, key) for key in runs[0]], "targets": targets,
            "runs": [list(one.values()) for one in runs],
            "notes": ["the least counts: everything else on the machine only adds; the median tells how much it did",
                      "scheduler: all tenants backlogged, weights 1 to 8 and costs 0.1 to 2 ms at random",
                      "keys: each with a tenant of its own, in random order; chained: each waits for the answer before",
                      "a connection remembers the key that it last proved: then there is no look-up, only the limit"]}
