#!/usr/bin/python3
"""Measures the release build and prints a table; everything measured goes to build/bench.json, tables and plots to
build/bench.html.

    make bench                               the figures: 14 pairs of runs per comparison, some minutes a row
    test/bench/bench.py --row 1              that row only
    test/bench/bench.py --row 10 --quick     three pairs: a quick look, under six minutes a row; not a result

Each row is a module in rows/ with NUMBER, TITLE and run(settings, progress). Environment: BENCH_PAIRS, BENCH_RUN_MS,
BENCH_WARM_MS. Servers are started as root (sudo where needed), on loopback only."""

import argparse
import datetime
import importlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[1]
sys.path.insert(0, str(HERE))

import plots  # noqa: E402  (behind the path that finds it)
import report  # noqa: E402
from servers import BenchError  # noqa: E402

PAIRS, QUICK_PAIRS, RUN_MS, QUICK_RUN_MS, WARM_MS = 14, 3, 2500, 800, 500
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, action="append", help="only this row; may be given several times")
    parser.add_argument("--quick", action="store_true", help="%d pairs only" % QUICK_PAIRS)
    parser.add_argument("--pairs", type=int, default=int(os.environ.get("BENCH_PAIRS", PAIRS)))
    parser.add_argument("--run-ms", type=int, default=int(os.environ.get("BENCH_RUN_MS", 0)))
    parser.add_argument("--warm-ms", type=int, default=int(os.environ.get("BENCH_WARM_MS", WARM_MS)))
    parser.add_argument("--output", default=str(TREE / "build" / "bench.json"))
    settings = parser.parse_args()
    settings.pairs = min(settings.pairs, QUICK_PAIRS) if settings.quick else settings.pairs
    settings.run_ms = settings.run_ms or (RUN_MS if settings.pairs >= PAIRS else QUICK_RUN_MS)
    if min(settings.pairs, settings.run_ms, settings.warm_ms) < 1:
        parser.error("pairs and times must be at least 1")
    return settings


def rows(wanted):
    found = {}
    for path in HERE.glob("rows/row*.py"):
        module = importlib.import_module("rows." + path.stem)
        found[module.NUMBER] = module
    unknown = set(wanted or ()) - set(found)
    if unknown:
        raise BenchError("there is no row %s; there are %s" % (sorted(unknown), sorted(found)))
    return [found[number] for number in sorted(found) if not wanted or number in wanted]


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=TREE, check=False)
        return (done.stdout or done.stderr).split("\n")[0].strip()
    except OSError:
        return ""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {"kernel": platform.release(), "cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(),
            "nginx": first_line("/usr/sbin/nginx", "-v"), "load_average": os.getloadavg()}


def progress(text):
    print("  .. " + text, file=sys.stderr, flush=True)


def save(path, text):
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    if "SUDO_UID" in os.environ:
        os.chown(path + ".part", int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
    os.replace(path + ".part", path)


def measure(settings):
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "command": " ".join(sys.argv), "commit": first_line("git", "describe", "--always", "--dirty"),
              "machine": machine(), "pairs": settings.pairs, "run_ms": settings.run_ms, "warm_ms": settings.warm_ms,
              "rows": {}}
    begin = time.monotonic()
    for module in rows(settings.row):
        progress("row %d" % module.NUMBER)
        row = module.run(settings, progress)
        result["rows"][str(module.NUMBER)] = row
        print("\n".join(report.lines(module.NUMBER, row, settings)), flush=True)
    if settings.pairs < PAIRS:
        print("Fewer than %d pairs: a quick look, not a result." % PAIRS)
    result["seconds"] = time.monotonic() - begin
    save(settings.output, json.dumps(result, indent=1) + "\n")
    save(os.path.splitext(settings.output)[0] + ".html", plots.page(result, settings))
    print("%s, %d cores, kernel %s, %s; all values in %s, plots beside it" % (
        result["machine"]["cpu"], result["machine"]["cores"], result["machine"]["kernel"], result["machine"]["nginx"],
        os.path.relpath(settings.output, TREE)))


def end(*_):
    """Ends through every `with`, so that nothing stays behind; a second signal must not cut that short."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit("bench: interrupted")


def main():
    settings = arguments()
    if os.geteuid() != 0:
        kept = ["%s=%s" % (name, value) for name, value in os.environ.items() if name.startswith("BENCH_")]
        os.execvp("sudo", ["sudo", "env", *kept, sys.executable, *sys.argv])
    for number in END_SIGNALS:
        signal.signal(number, end)
    try:
        measure(settings)
    except BenchError as error:
        sys.exit("bench: %s" % error)


if __name__ == "__main__":
    main()
