"""How rows measure: one load generator for all servers, runs in ABBA order, medians and quartiles of ratios."""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile

from servers import TREE, BenchError, end_with_parent

QUARTILES = 4


def compiled(source, folder, *flags):
    """The path of a C file of this folder, compiled."""
    program = os.path.join(folder, source.removesuffix(".c"))
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O2",
                    os.path.join(TREE, "test", "bench", source), "-o", program, *flags], check=True)
    return program


class BareEngine:
    """test/bench/ort_loop.c, compiled: ONNX Runtime without a server around it, one thread, batches of one size."""

    def __init__(self, settings, model, case):
        self.settings = settings
        self.folder = tempfile.TemporaryDirectory(prefix="bulkhead-bench-")
        program = compiled("ort_loop.c", self.folder.name, "-ldl", "-isystem",
                           os.path.join(TREE, "build", "deps", "onnxruntime", "include"))
        payload = os.path.join(self.folder.name, "payload")
        with open(payload, "wb") as file:
            file.write(case.payload)
        if isinstance(model, bytes):
            with open(os.path.join(self.folder.name, "model.onnx"), "wb") as file:
                file.write(model)
            model = file.name
        self.command = [program, os.path.join(TREE, "build", "engines", "libonnxruntime.so.1"),
                        os.path.join(TREE, model), case.name, ",".join(map(str, case.shape)), payload]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def run(self):
        """One run: inferences_per_s, cpu_us (per inference), p50_us."""
        done = subprocess.run([*self.command, str(self.settings.run_ms)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(done.stderr)
        run = json.loads(done.stdout)
        return {"inferences_per_s": run["inferences"] / run["seconds"], "p50_us": run["p50_us"],
                "cpu_us": 1e6 * run["cpu_s"] / run["inferences"]}


class Generator:
    """test/bench/load.c, compiled; with the requests that it sends and the answer that it expects: as many bytes, and
    the first `exact` of them the same (all, if None)."""

    def __init__(self, settings, connections, keys, request, answer, exact=None):
        self.settings, self.connections = settings, connections
        self.exact = len(answer) if exact is None else exact
        self.folder = tempfile.TemporaryDirectory(prefix="bulkhead-bench-")
        self.files = [self.save("keys", "".join(key + "\n" for key in keys).encode()),
                      self.save("request", request), self.save("answer", answer)]
        self.program = compiled("load.c", self.folder.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def save(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return self.path(name)

    def start(self, server, run_ms=None, warm_ms=None, rate=0, pids=()):
        """rate: requests a second; 0 is a closed loop."""
        command = [self.program, server.port, self.connections, rate, warm_ms or self.settings.warm_ms,
                   run_ms or self.settings.run_ms, *self.files, self.exact, *pids]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, preexec_fn=end_with_parent)

    def run(self, server, **how):
        """One run against `server`: the generator's counts, and what follows from them."""
        return self.runs_together(server, [(self, how)])[0]

    @staticmethod
    def runs_together(server, loads):
        """Runs of several generators against one server at the same time; loads: [(generator, {how})]."""
        processes = server.processes()
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(generator.start(server, pids=processes, **how)) for generator, how in loads]
            outputs = [load.communicate() for load in started]
        server.check_alive()
        return [Generator.result(server, processes, load, *output) for load, output in zip(started, outputs)]

    @staticmethod
    def result(server, processes, load, text, errors):
        if load.returncode != 0:
            raise BenchError("%s: %s%s" % (server.name, errors, server.log_tail()))
        run = json.loads(text)
        if run["bad_status"] or run["bad_body"] or run["closed"] or not run["requests"]:
            raise BenchError("%s: %d answers with a wrong status, %d with a wrong body, %d connections closed, %d good\n"
                             "%s%s" % (server.name, run["bad_status"], run["bad_body"], run["closed"], run["requests"],
                                       errors, server.log_tail()))
        return Generator.derive(run, processes)

    @staticmethod
    def derive(run, processes):
        by_role = {}
        for role, seconds in zip(processes.values(), run.pop("server_cpu_s")):
            by_role[role] = by_role.get(role, 0.0) + seconds
        _, _, _, idle, wait, _, _, steal = run["machine_s"]
        machine_s = sum(run["machine_s"])
        run["requests_per_s"] = run["requests"] / run["seconds"]
        run["cpu_us_by_process"] = {role: 1e6 * seconds / run["requests"] for role, seconds in by_role.items()}
        run["cpu_us"] = sum(run["cpu_us_by_process"].values())
        run["generator_idle"] = 1 - run["generator_cpu_s"] / run["seconds"]
        # What neither servers nor generator used: others' work says whether the machine was quiet.
        busy_s = machine_s - idle - wait - steal
        run["others"] = max(0.0, busy_s - sum(by_role.values()) - run["generator_cpu_s"]) / machine_s
        run["steal"] = steal / machine_s
        return run


def spread(values):
    """{median, q1, q3} of a list."""
    if len(values) < 2:
        return {"median": values[0], "q1": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=QUARTILES, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def summary(runs, *names):
    """{name: spread} over several runs of one server."""
    return {name: spread([run[name] for run in runs]) for name in names}


def abba(generator, first, others, pairs, progress):
    """Runs `first` against each of `others` in pairs: first other, other first, and so on; the comparisons take turns,
    so that a slow change of the machine meets them all alike. Returns, per other, its list of (first run, other run)."""
    results = [[] for _ in others]
    for pair in range(pairs):
        for runs, other in zip(results, others):
            if pair % 2 == 0:
                a = generator.run(first)
                b = generator.run(other)
            else:
                b = generator.run(other)
                a = generator.run(first)
            runs.append((a, b))
            progress("pair %d of %d: %s %.0f/s %.1f us, %s %.0f/s %.1f us" % (
                pair + 1, pairs, first.name, a["requests_per_s"], a["cpu_us"], other.name, b["requests_per_s"],
                b["cpu_us"]))
    return results


def ratios(runs, name):
    """The quantity `name` of the first server over that of the other, pair by pair."""
    return [a[name] / b[name] for a, b in runs]
