"""Row 9, sharing: what two tenants with models of different cost get, eight equal ones, a flood beside a polite client, critical
requests over batch load, and three times the load that the device can take; with `--scheduler fifo` beside it, and that behind
nginx's limit_req, to see what first come, first served does and what a limit of requests per second changes."""

import contextlib
import json
import statistics
import threading
import time

from cases import Case, figure, floats, generator, lease_seconds, leases, load_notes, resources, target
from measure import Generator
from servers import BenchError, Bulkhead, NginxLimits

NUMBER = 9
TITLE = "sharing one slot: time by weight, a flood, critical over batch"
SHARE_WANTED, THROUGHPUT_WANTED, JAIN_WANTED, SLACK_US = 0.05, 0.95, 0.99, 2000
CHEAP_US, DEAR_US, STEP_US = 1000, 20000, 5000
OVERLOAD_US, GOODPUT_WANTED, REFUSAL_MS_MAX = 2000, 0.95, 10
FLOOD_RUN_MS = 4000  # behind 256 others a request takes a while, first come, first served
# What an operator would give each of two tenants who know of 1 ms requests: half of the device.
LIMITED_PER_S, FLOODING = 500000 // CHEAP_US, 256
ONE_SLOT = "  devices: [{name: cpu, slots: 1}]\n  timeouts: {request: 1m}\n"


def model_file(us):
    return '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "busy": "%dus"}' % us


class Tenant:
    """A tenant with one identity model of that many microseconds a lease, one request at a time."""

    def __init__(self, name, us, weight=1, spec=""):
        self.name, self.us = name, us
        self.resources = resources(name, [(name, "identity", name + ".json", "maxSize: 1")], weight)
        if spec:
            self.resources = self.resources.replace("  quota:", "  %s\n  quota:" % spec, 1)
        self.source = (name + ".json", model_file(us).encode())
        self.case = Case(name, "x", [1, 4], floats(4))


class World:
    """A server with these tenants, and a generator for each."""

    def __init__(self, settings, stack, tenants, *arguments):
        self.server = stack.enter_context(Bulkhead("---\n".join(t.resources for t in tenants), [t.source for t in tenants],
                                                   ONE_SLOT, arguments))
        self.settings, self.stack, self.tenants = settings, stack, {t.name: t for t in tenants}
        self.keys = {t.name: self.server.make_keys(t.name, 1) for t in tenants}
        for t in tenants:
            t.case.wait(self.server, self.keys[t.name][0])

    def load(self, name, connections):
        case, keys = self.tenants[name].case, self.keys[name]
        answer, json_bytes = case.answer(self.server, keys[0])
        return generator(self.stack, self.settings, connections, keys, case, answer, json_bytes)

    def together(self, loads, **how):
        """(runs, seconds of leases by tenant) of generators that run at the same time."""
        before = {name: lease_seconds(self.server, name) for name in self.tenants}
        runs = Generator.runs_together(self.server, [(load, how) for load in loads])
        return runs, {name: lease_seconds(self.server, name) - before[name] for name in self.tenants}


def jain(values):
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))


def shares(settings, stack, progress):
    world = World(settings, stack, [Tenant("dear", DEAR_US, 1), Tenant("cheap", CHEAP_US, 3)])
    loads = [world.load("dear", 16), world.load("cheap", 16)]
    errors = []
    for pair in range(settings.pairs):
        _, seconds = world.together(loads)
        share = seconds["cheap"] / sum(seconds.values())
        errors.append(abs(share - 0.75) / 0.75)
        progress("share of weight 3 to 1, run %d: %.3f" % (pair + 1, share))
    return errors


def equals(settings, stack, progress):
    world = World(settings, stack, [Tenant("t%d" % i, CHEAP_US) for i in range(8)])
    loads = [world.load(name, 4) for name in world.tenants]
    found = []
    for pair in range(settings.pairs):
        _, seconds = world.together(loads)
        found.append(jain(list(seconds.values())))
        progress("eight equal tenants, run %d: Jain %.4f" % (pair + 1, found[-1]))
    return found


def floods(settings, stack, progress):
    """Throughput of both policies, and what the flood does to the polite one's p99 beside what it has alone, in us."""
    tenants = [Tenant("flood", CHEAP_US), Tenant("polite", CHEAP_US)]
    worlds = {"fair": World(settings, stack, tenants), "fifo": World(settings, stack, tenants, "--scheduler", "fifo")}
    throughput, inflation, runs_all = [], {"fair": [], "fifo": []}, []
    loads = {policy: (world.load("flood", FLOODING), world.load("polite", 1)) for policy, world in worlds.items()}
    for pair in range(settings.pairs):
        both = {}
        for policy in ("fair", "fifo")[::1 if pair % 2 == 0 else -1]:
            flood, polite = loads[policy]
            solo = polite.run(worlds[policy].server)
            runs, _ = worlds[policy].together([flood, polite], run_ms=max(settings.run_ms, FLOOD_RUN_MS))
            both[policy] = sum(run["requests_per_s"] for run in runs)
            inflation[policy].append(runs[1]["p99_us"] - solo["p99_us"])
            runs_all += runs
        throughput.append(both["fair"] / both["fifo"])
        progress("flood, run %d: fair/fifo %.3f, polite p99 +%.0f us fair, +%.0f us fifo" % (
            pair + 1, throughput[-1], inflation["fair"][-1], inflation["fifo"][-1]))
    return throughput, inflation, runs_all


def limiteds(settings, stack, progress):
    """The same flood, and one of requests that take five times as long, with limit_req in front of a single queue: what they do
    to the polite one's p99, in us; and how much of the device the flood gets when it is there alone."""
    tenants = [Tenant("flood", CHEAP_US), Tenant("dear", STEP_US), Tenant("polite", CHEAP_US)]
    world = World(settings, stack, tenants, "--scheduler", "fifo")
    front = stack.enter_context(NginxLimits(world.server, {world.keys[t.name][0]: t.name for t in tenants},
                                            LIMITED_PER_S, 2 * FLOODING))
    loads = {t.name: world.load(t.name, 1 if t.name == "polite" else FLOODING) for t in tenants}
    inflation, use, run_ms = {"flood": [], "dear": []}, [], max(settings.run_ms, FLOOD_RUN_MS)
    for pair in range(settings.pairs):
        solo = loads["polite"].run(front)
        alone = loads["flood"].run(front, run_ms=run_ms)
        use.append(alone["requests_per_s"] * CHEAP_US / 1e6)
        for name, found in inflation.items():
            runs = Generator.runs_together(front, [(loads[n], {"run_ms": run_ms}) for n in (name, "polite")])
            found.append(runs[1]["p99_us"] - solo["p99_us"])
        progress("limit_req, run %d: polite p99 +%.0f us, +%.0f us when the flood is dearer; %.2f of the device for one alone" % (
            pair + 1, inflation["flood"][-1], inflation["dear"][-1], use[-1]))
    return inflation, use


def criticals(settings, stack, progress):
    """What the critical one's p99 is above its own alone, in us; the mean lease of the batch load in the same run; and the first
    without the second. A step is so much processor time: how long it takes by the clock is up to the machine, and that is what has
    to be waited for. The mean stands in for the longest, which is larger: what is wanted is stricter so. Leases that were cut short
    for a critical request are not in it: they are no leases that ended."""
    world = World(settings, stack, [Tenant("mass", STEP_US), Tenant("vital", CHEAP_US, spec="classes: [critical]")])
    mass, vital = world.load("mass", 32), world.load("vital", 1)
    found, lease_us = [], []
    for pair in range(settings.pairs):
        solo = vital.run(world.server)
        n_before = leases(world.server, "mass")
        runs, seconds = world.together([mass, vital])
        found.append(runs[1]["p99_us"] - solo["p99_us"])
        lease_us.append(1e6 * seconds["mass"] / (leases(world.server, "mass") - n_before))
        progress("critical over batch, run %d: p99 +%.0f us, mean lease %.0f us" % (pair + 1, found[-1], lease_us[-1]))
    return found, lease_us, [over - step for over, step in zip(found, lease_us)]


def refusal_ms(server, case, key, ending, found):
    """One request after the other; how long each refusal took."""
    while not ending.is_set():
        begin = time.monotonic()
        status, _, _ = server.post(case.path, {**case.headers, "X-API-Key": key}, case.body)
        if status in (429, 503):
            found.append(1000 * (time.monotonic() - begin))


def overloads(settings, stack, progress):
    """Goodput at three times the rate that the device can do, over its peak; and the median refusal, in ms."""
    tenant = Tenant("busy", OVERLOAD_US)
    world = World(settings, stack, [tenant])
    closed = world.load("busy", 8)
    tenant.case.headers["X-Request-Timeout-Ms"] = "100"
    overload = world.load("busy", 256)
    ratios, medians = [], []
    for pair in range(settings.pairs):
        peak = closed.run(world.server)["requests_per_s"]
        ending, found = threading.Event(), []
        prober = threading.Thread(target=refusal_ms, args=(world.server, tenant.case, world.keys["busy"][0], ending, found))
        load = stack.enter_context(overload.start(world.server, rate=int(3 * peak)))
        prober.start()
        text, errors = load.communicate()
        ending.set()
        prober.join()
        if load.returncode != 0 or not found:
            raise BenchError("overload: %s, %d refusals" % (errors, len(found)))
        run = json.loads(text)
        ratios.append(run["requests"] / run["seconds"] / peak)
        medians.append(statistics.median(found))
        progress("overload, run %d: peak %.0f/s, goodput %.3f of it, %d refused, median refusal %.1f ms" % (
            pair + 1, peak, ratios[-1], run["bad_status"], medians[-1]))
    return ratios, medians


def run(settings, progress):
    with contextlib.ExitStack() as stack:
        goodput, refusals = overloads(settings, stack, progress)
    with contextlib.ExitStack() as stack:
        errors = shares(settings, stack, progress)
    with contextlib.ExitStack() as stack:
        equal = equals(settings, stack, progress)
    with contextlib.ExitStack() as stack:
        throughput, inflation, runs = floods(settings, stack, progress)
    with contextlib.ExitStack() as stack:
        limited, limited_use = limiteds(settings, stack, progress)
    with contextlib.ExitStack() as stack:
        critical, step_us, beyond = criticals(settings, stack, progress)
    figures = [figure("cost 20:1, weight 1:3: relative error of the share of time", "", errors, "%.4f"),
               figure("eight equal tenants: Jain index of time", "", equal, "%.4f"),
               figure("fair over fifo, requests/s under the flood", "x", throughput),
               figure("polite p99 under 256 flooding connections, over solo: fair", "us", inflation["fair"], "%.0f"),
               figure("the same: fifo", "us", inflation["fifo"], "%.0f"),
               figure("the same: nginx limit_req, half of the device each, and fifo", "us", limited["flood"], "%.0f"),
               figure("the same, the flood's requests five times as dear", "us", limited["dear"], "%.0f"),
               figure("device time that limit_req leaves one tenant alone", "", limited_use),
               figure("critical p99 over solo, under full batch load", "us", critical, "%.0f"),
               figure("mean lease of that batch load, by the clock", "us", step_us, "%.0f"),
               figure("critical p99 over solo and one such lease", "us", beyond, "%.0f"),
               figure("goodput at 3 x the peak rate, over the peak", "x", goodput),
               figure("refusals there, median", "ms", refusals)]
    error, jain_index, ratio, fair, _, _, _, _, _, _, vital, good, refusal = (f["values"]["median"] for f in figures)
    return {
        "title": TITLE,
        "figures": figures,
        "targets": [target("share of time", "within %.2f" % SHARE_WANTED, error, error <= SHARE_WANTED),
                    target("Jain index", ">= %.2f" % JAIN_WANTED, jain_index, jain_index >= JAIN_WANTED),
                    target("fair over fifo", ">= %.2f" % THROUGHPUT_WANTED, ratio, ratio >= THROUGHPUT_WANTED),
                    target("polite p99 over solo, us", "<= one lease + %d" % SLACK_US, fair, fair <= CHEAP_US + SLACK_US),
                    target("critical p99 over solo and one step as it took, us", "<= 0", vital, vital <= 0),
                    target("goodput at 3 x overload", ">= %.2f" % GOODPUT_WANTED, good, good >= GOODPUT_WANTED),
                    target("median refusal, ms", "<= %d" % REFUSAL_MS_MAX, refusal, refusal <= REFUSAL_MS_MAX)],
        "notes": load_notes(runs),
        "runs": {},
    }
