"""Row 5, neighbours. Two tenants of weights 3 and 1, each with its own copy of an engine-bound model, both flooding one slot:
how the device's time is shared. And a polite tenant (50 requests/s) beside one that floods over 256 connections: the polite
one's p99 against its p99 alone."""

import contextlib

from cases import Case, figure, floats, generator, lease_seconds, leases, load_notes, resources, target
from mlp import mlp
from servers import Bulkhead

NUMBER = 5
TITLE = "neighbours: service of weights 3:1 under flood; a polite tenant's p99 beside 256 flooding connections"
SHARE_WANTED, SHARE_ERROR_MAX, SLACK_US = 3.0, 0.03, 2000
FLOOD_CONNECTIONS, SHARE_CONNECTIONS, POLITE_CONNECTIONS, POLITE_RATE = 256, 64, 16, 50
RUN_FACTOR = 4  # 50 requests a second need time for a p99
CASE = Case("heavy", "x", [1, 784], floats(784))
TENANTS = {"gold": 3, "iron": 1, "polite": 1}
RESOURCES = "---\n".join(resources(tenant, [("heavy", "onnx", "heavy.onnx", "maxSize: 4")], weight)
                         for tenant, weight in TENANTS.items())
ONE_SLOT = "  cpu: {reserved: 1}\n"


def shares(server, loads, progress, count):
    """Per run: service of gold over that of iron, in device time."""
    ratios, runs = [], []
    for turn in range(count):
        before = {tenant: lease_seconds(server, tenant) for tenant in ("gold", "iron")}
        runs += loads["gold"].runs_together(server, [(loads["gold"], {}), (loads["iron"], {})])
        gold, iron = (lease_seconds(server, tenant) - before[tenant] for tenant in ("gold", "iron"))
        ratios.append(gold / iron)
        progress("share %d of %d: %.3f" % (turn + 1, count, ratios[-1]))
    return ratios, runs


def polite(server, loads, settings, progress, count):
    """Pairs of runs of the polite tenant: alone, and beside the flood; and the flood's mean lease in us."""
    how = {"run_ms": settings.run_ms * RUN_FACTOR, "rate": POLITE_RATE}
    alone, beside, flood, lease_us = [], [], [], []
    for turn in range(count):
        alone.append(loads["polite"].run(server, **how))
        time_before, leases_before = lease_seconds(server, "iron"), leases(server, "iron")
        # The flood begins earlier and ends later than what is timed beside it.
        pair = loads["polite"].runs_together(server, [
            (loads["polite"], how), (loads["flood"], {"run_ms": settings.run_ms * RUN_FACTOR + settings.warm_ms})])
        beside.append(pair[0])
        flood.append(pair[1])
        lease_us.append(1e6 * (lease_seconds(server, "iron") - time_before) / (leases(server, "iron") - leases_before))
        progress("polite %d of %d: p99 alone %.0f us, beside the flood %.0f us, lease %.0f us" % (
            turn + 1, count, alone[-1]["p99_us"], beside[-1]["p99_us"], lease_us[-1]))
    return alone, beside, flood, lease_us


def run(settings, progress):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Bulkhead(RESOURCES, [("heavy.onnx", mlp([784] + [1024] * 8 + [10]))], ONE_SLOT))
        keys = {tenant: server.make_keys(tenant, 10) for tenant in TENANTS}
        loads = {}
        for name, tenant, connections in (("gold", "gold", SHARE_CONNECTIONS), ("iron", "iron", SHARE_CONNECTIONS),
                                          ("polite", "polite", POLITE_CONNECTIONS), ("flood", "iron", FLOOD_CONNECTIONS)):
            CASE.wait(server, keys[tenant][-1])
            loads[name] = generator(stack, settings, connections, keys[tenant], CASE,
                                    *CASE.answer(server, keys[tenant][0]))
        ratios, share_runs = shares(server, loads, progress, settings.pairs)
        alone, beside, flood, lease_us = polite(server, loads, settings, progress, max(1, settings.pairs // 2))
    share = figure("service of weight 3 / service of weight 1", "x", ratios, "%.3f")
    over = figure("polite p99 beside - alone - the flood's mean lease", "us",
                  [b["p99_us"] - a["p99_us"] - lease for a, b, lease in zip(alone, beside, lease_us)], "%.0f")
    error = abs(share["values"]["median"] / SHARE_WANTED - 1)
    return {
        "title": TITLE,
        "figures": [share,
                    figure("polite alone, p99", "us", [r["p99_us"] for r in alone], "%.0f"),
                    figure("polite beside the flood, p99", "us", [r["p99_us"] for r in beside], "%.0f"),
                    figure("mean lease of the flood", "us", lease_us, "%.0f"), over],
        "targets": [target("service 3:1", "within %.0f %%" % (100 * SHARE_ERROR_MAX), share["values"]["median"],
                           error <= SHARE_ERROR_MAX),
                    target("polite p99 beyond solo + one lease", "<= %d us" % SLACK_US, over["values"]["median"],
                           over["values"]["median"] <= SLACK_US)],
        "notes": ["no run had an error: any would end the bench",
                  "the flood's mean lease stands in for its longest, which is larger: the wanted figure is stricter so",
                  *load_notes(share_runs + alone + beside + flood)],
        "runs": {"gold and iron": share_runs, "polite alone": alone, "polite beside": beside, "flood": flood},
    }
