"""Row 1, the gateway's own cost: model `identity`, FP32[1,64] in binary both ways, over 64 kept connections with 10,000
keys, through authentication, rate limit, gateway and worker process and back; against nginx with key map, limit_req
and proxy_pass to a static nginx that answers the same bytes. Beside it, as the limit, that static nginx alone."""

import contextlib
import itertools
import json
import time

from cases import Case
from measure import Generator, abba, ratios, spread, summary
from servers import BenchError, Bulkhead, NginxFront, NginxStatic

NUMBER = 1
TITLE = "the gateway's own cost: identity, FP32[1,64] binary, 64 connections, 10,000 keys, authentication and limit"
CONNECTIONS, KEYS, TENANT = 64, 10000, "bench"
RATE_TARGET, CPU_TARGET = 1.2, 0.7
# nginx's worker processes, (in front, static): two cores, shared with the generator. The fastest is measured against.
NGINX_WORKERS = ((1, 1), (1, 2), (2, 1), (2, 2))
TRIAL_RUNS, TRIAL_MS = 5, 1000
SAMPLE_KEYS = 20

# A rate that is checked for each request and refuses none: 16 million a second.
RESOURCES = """apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: bench}
spec:
  quota: {requestsPerMinute: 1000000000, queueDepth: 256}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: identity, tenant: bench}
spec:
  engine: identity
  source: identity.json
  replicas: {min: 1, max: 1}
"""
# Printable bytes are numbers too: so the static nginx can answer exactly what Bulkhead answers.
PAYLOAD = bytes(65 + (i * 7 + i // 26) % 26 for i in range(256))
CASE = Case("identity", "x", [1, 64], PAYLOAD)


def answer_checked(server, key):
    """(body, bytes of its JSON part) of one answer, once everything in it is as it must be."""
    body, json_bytes = CASE.answer(server, key)
    output = json.loads(body[:json_bytes])["outputs"][0]
    if output.get("datatype") != "FP32" or output.get("shape") != [1, 64] or body[json_bytes:] != PAYLOAD:
        raise BenchError("%s answers something else than it was asked: %s" % (server.name, body[:400]))
    return body, json_bytes


def check_sample(proxies, static, keys):
    """Before anything is timed: good keys get the same answer everywhere; a bad key, or none, gets 401."""
    bodies = {answer_checked(server, key)[0] for server in (*proxies, static) for key in keys[::KEYS // SAMPLE_KEYS]}
    if len(bodies) != 1:
        raise BenchError("the servers' answers differ: %s" % bodies)
    bad = keys[0][:-1] + ("A" if keys[0][-1] != "A" else "B")
    for server, headers in itertools.product(proxies, ({"X-API-Key": bad}, {})):
        status, _, _ = server.post(CASE.path, {**CASE.headers, **headers}, CASE.body)
        if status != 401:
            raise BenchError("%s answers %d to a request without a valid key" % (server.name, status))


def bulkhead_start(stack, progress, n_keys=KEYS):
    """The server with its model running and all keys working, the keys, and the seconds that making them took."""
    server = stack.enter_context(Bulkhead(RESOURCES, ["examples/identity/identity.json"]))
    begin = time.monotonic()
    keys = server.make_keys(TENANT, n_keys)
    seconds = time.monotonic() - begin
    progress("%d keys made in %.1f s" % (len(keys), seconds))
    CASE.wait(server, keys[-1])
    return server, keys, seconds


def nginx_choose(stack, settings, generator, keys, answer, progress):
    """The static nginx and the pair that are fastest here, of all NGINX_WORKERS; and what each of those reached."""
    statics = {n: stack.enter_context(NginxStatic(*answer, workers=n)) for n in {s for _, s in NGINX_WORKERS}}
    fronts = {(f, s): stack.enter_context(NginxFront(statics[s], keys, TENANT, workers=f)) for f, s in NGINX_WORKERS}
    check_sample(list(fronts.values()), statics[1], keys)
    candidates = {**{"static %d" % n: server for n, server in statics.items()},
                  **{"front %d, static %d" % names: server for names, server in fronts.items()}}
    runs = {name: [] for name in candidates}
    for turn in range(min(TRIAL_RUNS, settings.pairs)):
        for name in list(candidates)[::1 if turn % 2 == 0 else -1]:
            runs[name].append(generator.run(candidates[name], run_ms=min(TRIAL_MS, settings.run_ms)))
    trials = {name: summary(some, "requests_per_s", "cpu_us") for name, some in runs.items()}
    for name, trial in trials.items():
        progress("nginx workers %s: %.0f/s %.1f us" % (name, trial["requests_per_s"]["median"],
                                                      trial["cpu_us"]["median"]))

    def fastest(prefix):
        return max((name for name in trials if name.startswith(prefix)),
                   key=lambda name: trials[name]["requests_per_s"]["median"])
    chosen = {"static": fastest("static"), "pair": fastest("front")}
    return candidates[chosen["static"]], candidates[chosen["pair"]], {"chosen": chosen, "trials": trials}


def comparison(name, runs, rate_target=None, cpu_target=None):
    rate, cpu = (spread(ratios(runs, quantity)) for quantity in ("requests_per_s", "cpu_us"))
    result = {"name": name, "requests_per_s": rate, "cpu_us": cpu, "pairs": len(runs), "targets": []}
    if rate_target is not None:
        result["targets"] += [
            {"what": "requests/s", "wanted": ">= %.1f x" % rate_target, "measured": rate["median"],
             "met": rate["median"] >= rate_target},
            {"what": "CPU per request", "wanted": "<= %.1f x" % cpu_target, "measured": cpu["median"],
             "met": cpu["median"] <= cpu_target}]
    return result


def run(settings, progress):
    """Everything that was measured, for bench.json and for report.py."""
    with contextlib.ExitStack() as stack:
        bulkhead, keys, keys_s = bulkhead_start(stack, progress)
        answer = answer_checked(bulkhead, keys[0])
        generator = stack.enter_context(Generator(settings, CONNECTIONS, keys, CASE.request_text(), answer[0]))
        static, pair, choice = nginx_choose(stack, settings, generator, keys, answer, progress)
        check_sample([bulkhead, pair], static, keys)
        again, versus_pair, versus_static = abba(generator, bulkhead, [bulkhead, pair, static], settings.pairs, progress)
    runs = {"bulkhead": [a for a, _ in again + versus_pair + versus_static] + [b for _, b in again],
            "nginx pair": [b for _, b in versus_pair], "static nginx alone": [b for _, b in versus_static]}
    return {
        "title": TITLE,
        "request_bytes": len(CASE.request_text()), "answer_body_bytes": len(answer[0]),
        "connections": CONNECTIONS, "keys": KEYS, "keys_made_s": keys_s, "nginx": choice,
        "servers": [{"name": name, "runs": some} for name, some in runs.items()],
        "comparisons": [comparison("bulkhead / bulkhead (control)", again),
                        comparison("bulkhead / nginx pair", versus_pair, RATE_TARGET, CPU_TARGET),
                        comparison("bulkhead / static nginx alone", versus_static)],
        "notes": ["nginx's worker processes: {pair} in the pair; {static} alone; the fastest of those tried".format(
            **choice["chosen"]),
            "one tenant: what waits while the worker is busy goes to it together, up to 32 rows",
            "making the keys took %.1f s" % keys_s],
    }
