#!/usr/bin/python3
"""Where a role's time goes under row 1's load, for work on the code; not part of `make bench`.

    test/bench/profile_role.py [ROLE]            processor time by symbol, by perf (default role: gateway)
    test/bench/profile_role.py --steps [ROLE]    user-mode instructions per request and by function, by single-stepping

perf's cpu-clock sees kernel and user space but no region where interrupts are off; single-stepping is exact, sees user
space only, and slows the role down a thousandfold, so that it uses few connections and some minutes. One run each, as
root."""

import argparse
import bisect
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from measure import Generator, compiled  # noqa: E402  (behind the path that finds it)
from rows import row1  # noqa: E402
from servers import BenchError  # noqa: E402

LINES, PERF_HZ = 45, 4000
STEPS_CONNECTIONS, STEPS_REQUESTS, STEPS_S = 8, 100, 60
ONCE = {"gateway": "gateway_authenticate"}  # a function that runs once per request


def say(text):
    print("  .. " + text, file=sys.stderr, flush=True)


def pid_of(server, role):
    for pid, name in server.processes().items():
        if name.endswith(" " + role):
            return pid
    raise BenchError("there is no process for %s among %s" % (role, sorted(server.processes().values())))


# --- perf --------------------------------------------------------------------------------------------------------

def by_perf(server, generator, role, folder):
    if not shutil.which("perf"):
        raise BenchError("perf is not installed (Debian: linux-perf)")
    data = os.path.join(folder, "perf.data")
    with subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", str(PERF_HZ), "-o", data, "-p",
                           str(pid_of(server, role))], stderr=subprocess.DEVNULL) as perf:
        try:
            run = generator.run(server)
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait()
    text = subprocess.run(["perf", "report", "-i", data, "--stdio", "--sort", "symbol,dso", "-t", "|", "-q"],
                          capture_output=True, text=True, check=False).stdout
    cpu = run["cpu_us_by_process"]["bulkhead " + role]
    print("%s: %.0f requests/s, %.2f us of processor time per request, of which" % (role, run["requests_per_s"], cpu))
    kernel = 0.0
    rows = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 3 and words[0].endswith("%"):
            share = float(words[0][:-1]) / 100
            kernel += share * ("kernel" in words[2])
            rows.append("%8.3f us %6.2f %%  %s  %s" % (share * cpu, 100 * share, words[1], words[2]))
    print("%8.3f us %6.2f %%  the kernel in all" % (kernel * cpu, 100 * kernel))
    print("\n".join(rows[:LINES]))


# --- single steps ------------------------------------------------------------------------------------------------

def mappings(pid):
    """[(start, end, file offset, path)] of what a process may execute."""
    found = []
    with open("/proc/%d/maps" % pid, encoding="utf-8") as file:
        for line in file:
            words = line.split(None, 5)
            if "x" in words[1]:
                start, end = (int(word, 16) for word in words[0].split("-"))
                found.append((start, end, int(words[2], 16), words[5].strip() if len(words) > 5 else "?"))
    return found


class Symbols:
    """Names for addresses of one process, by nm; in a stripped library only the exported ones."""

    def __init__(self, pid, program):
        self.maps, self.program, self.tables = mappings(pid), program, {}

    def table(self, path):
        if path not in self.tables:
            lines = []
            for option in ([], ["-D"]):
                lines = lines or subprocess.run(["nm", "-nS", "--defined-only", *option, path], capture_output=True,
                                                text=True, check=False).stdout.splitlines()
            words = [line.split(None, 3) for line in lines]
            symbols = sorted((int(w[0], 16), int(w[1], 16), w[3].split("@")[0]) for w in words
                             if len(w) == 4 and w[2] in "tTwWiuU")
            self.tables[path] = [list(column) for column in zip(*symbols)] or [[], [], []]
        return self.tables[path]

    def path(self, mapped):
        # The supervisor starts roles from a descriptor: the name in the map is the file's own.
        return mapped.removesuffix(" (deleted)")

    def name(self, address):
        for start, end, offset, mapped in self.maps:
            if start <= address < end:
                path = self.path(mapped)
                addresses, sizes, names = self.table(path)
                place = address - start + offset
                at = bisect.bisect_right(addresses, place) - 1
                inside = at >= 0 and place < addresses[at] + sizes[at]
                return (names[at] if inside else "(no name)"), os.path.basename(path)
        return "?", "?"

    def address(self, name):
        addresses, _, names = self.table(self.program)
        for start, _, offset, mapped in self.maps:
            if self.path(mapped) == self.program and name in names:
                return start - offset + addresses[names.index(name)]
        raise BenchError("%s is not in the process's program" % name)


def by_steps(server, generator, role, folder):
    if role not in ONCE:
        raise BenchError("--steps knows %s only" % ", ".join(ONCE))
    program, pid = compiled("steps.c", folder), pid_of(server, role)
    symbols = Symbols(pid, server.program)
    load = generator.start(server, run_ms=(STEPS_S + 20) * 1000)
    try:
        done = subprocess.run([program, str(pid), "%x" % symbols.address(ONCE[role]), str(STEPS_REQUESTS), str(STEPS_S)],
                              capture_output=True, text=True, timeout=STEPS_S + 30, check=False)
    finally:
        load.terminate()
        load.wait()
    if done.returncode != 0:
        raise BenchError(done.stderr)
    server.check_alive()
    first, *rest = done.stdout.splitlines()
    requests = int(first.split()[1])
    if not requests:
        raise BenchError("no request passed in %d s" % STEPS_S)
    counts = {}
    for line in rest:
        address, count = line.split()
        name = symbols.name(int(address, 16))
        counts[name] = counts.get(name, 0) + int(count)
    print("%s: %.0f user-mode instructions per request (%d requests), of which" % (
        role, sum(counts.values()) / requests, requests))
    libraries = {}
    for (_, library), count in counts.items():
        libraries[library] = libraries.get(library, 0) + count / requests
    for library, count in sorted(libraries.items(), key=lambda item: -item[1]):
        print("%8.0f  in all of %s" % (count, library))
    for (name, library), count in sorted(counts.items(), key=lambda item: -item[1])[:LINES]:
        print("%8.0f  %s  %s" % (count / requests, name, library))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", nargs="?", default="gateway")
    parser.add_argument("--steps", action="store_true", help="single-step instead of sampling")
    parser.add_argument("--keys", type=int, default=1000, help="how many keys are made and used")
    options = parser.parse_args()
    settings = argparse.Namespace(pairs=1, run_ms=5000, warm_ms=500)
    connections = STEPS_CONNECTIONS if options.steps else row1.CONNECTIONS
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-bench-"))
            server, keys, _ = row1.bulkhead_start(stack, say, options.keys)
            answer = row1.answer_checked(server, keys[0])[0]
            generator = stack.enter_context(Generator(settings, connections, keys, row1.CASE.request_text(), answer))
            (by_steps if options.steps else by_perf)(server, generator, options.role, folder)
    except BenchError as error:
        sys.exit("profile: %s" % error)


if __name__ == "__main__":
    main()
