#!/usr/bin/python3
"""Two tenants on one language model, which one of them lends the other: who gets how much, and what one feels of the other.

    test/bench/fair_tokens.py [--seconds N] [--runs N]      on build/, or BULKHEAD_BUILD

1. Both always have more waiting than there are places, weights 3:1, short prompts and long answers against long prompts and short
   answers, with a batch in common and with turns of their own. Wanted of tokens served, those of answers counting twice, by which the
   Virtual Token Counter gives places: 3:1 within 5 %. Device time, which decides where nobody waits for a place, is printed beside.
2. One tenant sends 32 long prompts at once, over and over; the other one chats, one short question after the other. Its time to
   the first token and between tokens against the same chat alone: wanted no more than 1.5 and 1.3 times. "Alone" is given twice: on
   an empty server, and beside as many of its own short generations as the long ones take places (the same batch shape)."""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import sys
import threading
import time

import servers
from servers import Bulkhead, TREE, wait_for

MODEL = os.path.join(TREE, "examples", "models", "novelist.gguf")
WEIGHTS = {"acme": 3, "bob": 1}
CLIENTS = 40  # of each tenant, for 32 places: both always wait for one
SHARE_ERROR_MAX, FIRST_MAX, BETWEEN_MAX = 0.05, 1.5, 1.3
RESOURCES = "".join("""apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: %s}
spec: {weight: %d, quota: {requestsPerMinute: 1000000000, queueDepth: 1024}}
---
""" % item for item in WEIGHTS.items()) + """apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: talk, tenant: acme}
spec:
  engine: llama
  source: %s
  isolation: {level: shared}
  resources: {cpu: 1, memory: 512Mi}
  replicas: {min: 1, max: 1}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Grant
metadata: {name: lend, tenant: acme}
spec: {model: talk, tenants: [bob], sharedBatch: %s}
"""
WORDS = "the a of and to in is was her his with as for had not be that it on at she he by".split()


class Client(threading.Thread):
    """Asks again and again, and keeps when each piece of an answer came."""

    def __init__(self, world, tenant, prompt_words, answer, pause_s=0.0):
        super().__init__(daemon=True)
        self.world, self.tenant, self.words, self.answer, self.pause_s = world, tenant, prompt_words, answer, pause_s
        self.rng = random.Random(id(self))
        self.served = []  # (when, weighted tokens)
        self.first, self.between, self.error = [], [], None
        self.start()

    def prompt(self):
        return "%d %s" % (self.rng.randrange(10**9), " ".join(self.rng.choice(WORDS) for _ in range(self.words)))

    def run(self):
        try:
            while not self.world.over.is_set():
                self.once()
                time.sleep(self.pause_s)
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            if not self.world.over.is_set():
                self.error = error

    def once(self):
        body = {"model": "talk", "prompt": self.prompt(), "max_tokens": self.answer, "temperature": 0, "ignore_eos": True,
                "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.world.server.port, timeout=300)
        begin_s, times, usage = time.monotonic(), [], None
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"Authorization": "Bearer " + self.world.keys[self.tenant], "Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(answer.read())
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            piece = json.loads(line[6:])
            usage = piece.get("usage") or usage
            if piece["choices"]:
                times.append(time.monotonic())
        connection.close()
        times = times[:-1] or times  # the last says only why it ended
        self.first.append(times[0] - begin_s)
        self.between.append((times[-1] - times[0]) / max(1, usage["completion_tokens"] - 1))
        worked = usage["prompt_tokens"] - (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self.served.append((times[0], worked))
        self.served += [(when, 2 * usage["completion_tokens"] / len(times)) for when in times]


class World:
    """A server with the lent model, and clients on it."""

    def __init__(self, shared_batch):
        self.server = Bulkhead(RESOURCES % (MODEL, "true" if shared_batch else "false"), (), "  timeouts: {request: 5m}\n")
        self.server.program = os.path.join(os.environ.get("BULKHEAD_BUILD", os.path.join(TREE, "build")), "bulkhead")
        self.over = threading.Event()

    def __enter__(self):
        self.server.__enter__()
        self.keys = {tenant: self.server.make_keys(tenant, 1)[0] for tenant in WEIGHTS}
        for key in self.keys.values():
            body = json.dumps({"model": "talk", "prompt": "a", "max_tokens": 1})
            wait_for("the first answer", lambda: self.server.post(
                "/v1/completions", {"Authorization": "Bearer " + key}, body)[0] == 200, 120)
        return self

    def __exit__(self, *what):
        self.over.set()
        self.server.__exit__(*what)

    def device_s(self):
        """{tenant: seconds of leases}"""
        found = re.findall(r'bulkhead_lease_seconds_total\{[^}]*tenant="(\w+)"[^}]*\} ([0-9.e+-]+)', self.server.metrics_text())
        return {tenant: sum(float(s) for t, s in found if t == tenant) for tenant in WEIGHTS}

    def clients(self, n, *what):
        return [Client(self, *what) for _ in range(n)]

    def done(self, clients):
        """Ends all clients."""
        self.over.set()
        for client in clients:
            client.join(120)
            if client.error:
                raise client.error
        self.over.clear()


def served(clients, from_s, to_s):
    return sum(n for c in clients for when, n in list(c.served) if from_s <= when < to_s)


def shares(shared_batch, seconds):
    """Tokens and device time of weight 3 over those of weight 1, both always with more waiting than there are places."""
    with World(shared_batch) as world:
        acme, bob = world.clients(CLIENTS, "acme", 8, 64), world.clients(CLIENTS, "bob", 160, 16)
        time.sleep(5)  # until the first have been round
        before, from_s = world.device_s(), time.monotonic()
        time.sleep(seconds)
        after, to_s = world.device_s(), time.monotonic()
        time.sleep(seconds / 2)  # what was running is counted by its end
        tokens = served(acme, from_s, to_s) / served(bob, from_s, to_s)
        device = (after["acme"] - before["acme"]) / (after["bob"] - before["bob"])
        world.done(acme + bob)
    return tokens, device


def chat(world, seconds, others):
    """Medians of bob's chat: to the first token, and between tokens, beside these others."""
    clients = [client for n, *what in others for client in world.clients(n, *what)]
    time.sleep(3 if clients else 0)
    chats = world.clients(1, "bob", 8, 32, 0.05)
    time.sleep(seconds)
    world.done(chats + clients)
    return statistics.median(chats[0].first), statistics.median(chats[0].between), len(chats[0].first)


def felt(seconds):
    with World(True) as world:
        alone = chat(world, seconds, ())
        shape = chat(world, seconds, [(15, "bob", 8, 32)])
        beside = chat(world, seconds, [(32, "acme", 220, 32)])
    return alone, shape, beside


def say(title, values, wanted, good):
    print("%-62s %s   wanted %s: %s" % (title, " ".join("%.2f" % v for v in values), wanted, "yes" if good else "NO"), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    wanted = WEIGHTS["acme"] / WEIGHTS["bob"]

    def near(values):
        return abs(statistics.median(values) / wanted - 1) <= SHARE_ERROR_MAX
    for batch in (True, False):
        runs = [shares(batch, given.seconds) for _ in range(given.runs)]
        title = "3:1, %s: " % ("a batch in common" if batch else "turns of their own")
        tokens, times = ([r[i] for r in runs] for i in (0, 1))
        say(title + "tokens served", tokens, "3 within 5 %", near(tokens))
        say(title + "device time", times, "(nothing)", True)  # places are short: who gets them, tokens decide
    runs = [felt(given.seconds / 2) for _ in range(given.runs)]
    for title, base in (("an empty server", 0), ("the same batch shape", 1)):
        first, between = ([r[2][i] / r[base][i] for r in runs] for i in (0, 1))
        say("chat beside 32 long prompts, to the first token, over %s" % title, first, "<= %.1f" % FIRST_MAX,
            statistics.median(first) <= FIRST_MAX)
        say("  between tokens", between, "<= %.1f" % BETWEEN_MAX, statistics.median(between) <= BETWEEN_MAX)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except servers.BenchError as fault:
        sys.exit(str(fault))
