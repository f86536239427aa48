"""Canaries where tenants share one worker: a lent model that says what it sees (test/tools/gguf_mirror.py), asked by its owner, by a
borrower who shares batches and by one who does not, bare and with adapters of which not all have room at once, in both classes,
by clients that leave in every state of a request, some with a deadline that ends them in a queue, while the worker is killed now
and then. Each tenant's prompts are tokens that no other's have, each request's a few of these; the probabilities of its answer
tell each cell that it saw, and which adapter spoke.

`make test` looks at 150 whole answers, `make soak` (BULKHEAD_SOAK) at 100,000, BULKHEAD_CANARIES=n at so many.
BULKHEAD_SEED=n repeats a run."""
import collections
import json
import os
import random
import re
import signal
import sys
import threading

import pytest

import test_canaries as canaries
from conftest import ROOT, model_yaml, tenant_yaml
from test_adapters import adapter_yaml
from test_grants import SHARED, grant_yaml

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_mirror  # noqa: E402  (behind the path that finds it)

ANSWERS = canaries.ANSWERS if {"BULKHEAD_CANARIES", "BULKHEAD_SOAK"} & os.environ.keys() else 150
WORDS = gguf_mirror.words()
TENANTS = ("acme", "bob", "carol")
ADAPTERS = ("first", "second")
RANGE = 60  # words of a tenant: of its adapters, then of its prompts
MARKS = 3   # words of a request; with its adapter's they are fewer than the five that an answer tells
CLIENTS = 6
LOSSES = 3  # of the worker, in each run


def words_of(tenant):
    begin = TENANTS.index(tenant) * RANGE
    return range(begin, begin + RANGE)


def voice_of(tenant, adapter):
    return words_of(tenant)[ADAPTERS.index(adapter)]


@pytest.fixture
def lent(server, folder):
    gguf_mirror.write_model(folder / "mirror.gguf")
    yaml = "".join(tenant_yaml(t) for t in TENANTS) + \
        model_yaml("mirror", "acme", "mirror.gguf", "llama", isolation=SHARED, resources={"cpu": 1, "memory": "256Mi"}) + \
        grant_yaml("together", "acme", "mirror", ["bob"], sharedBatch=True) + grant_yaml("apart", "acme", "mirror", ["carol"])
    for tenant in TENANTS:
        for adapter in ADAPTERS:
            path = folder / f"{tenant}-{adapter}.gguf"
            gguf_mirror.write_adapter(path, gguf_mirror.FIRST + voice_of(tenant, adapter))
            yaml += adapter_yaml(adapter, tenant, "mirror", path.name)
    server.apply(yaml, cwd=folder)
    # acme's have room together; of the others' one at a time
    room = (folder / "acme-first.gguf").stat().st_size + 100
    server.apply("".join(tenant_yaml(t, quota={"adapterBytes": room}) for t in ("bob", "carol")))
    server.keys = {t: server.key(t) for t in TENANTS}
    for tenant in TENANTS:
        assert ask(server, tenant, [1], "mirror").status == 200
    assert len(server.workers()) == 1  # of all
    return server


def ask(server, tenant, words, model, **body):
    return server.http("POST", "/v1/completions", server.keys[tenant], {
        "model": model, "prompt": [gguf_mirror.FIRST + word for word in words], "max_tokens": 4, "temperature": 0, "logprobs": 5, **body})


def check_seen(own, tokens, tops):
    """What an answer tells of the cells behind it is `own` words and nothing else; ValueError says what it saw."""
    own = {WORDS[word] for word in own}
    for token, top in zip(tokens, tops, strict=True):
        others = [p for name, p in top.items() if name not in own]
        if token not in own or not own <= top.keys() or not others or max(others) - min(others) > 0.1:
            raise ValueError(f"not only {own}: {token!r}, {top}")
        power = sum((top[name] - others[0]) ** 2 for name in own)
        if abs(power / gguf_mirror.POWER - 1) > 0.03:
            raise ValueError(f"more than {own}: {top}, {power}")


class Request:
    """Words of a tenant in some order, perhaps an earlier prompt of the same words, continued."""

    def __init__(self, rng, tenant, before=None):
        self.model = rng.choice(("mirror", "mirror", *ADAPTERS))
        if before and rng.random() < 0.4:
            self.marks, self.prompt = before.marks, before.prompt[:rng.randrange(1, len(before.prompt) + 1)]
        else:
            self.marks, self.prompt = rng.sample(words_of(tenant)[len(ADAPTERS):], MARKS), []
        self.prompt = [*self.prompt, *self.marks, *rng.choices(self.marks, k=rng.choice((3, 30, 200)))][:400]
        self.own = {*self.marks, voice_of(tenant, self.model)} if self.model in ADAPTERS else {*self.marks}


class Client(canaries.Client):
    before = None

    def one(self, mark):
        self.asked = self.before = Request(self.rng, self.tenant, self.before)
        super().one(mark)

    def body(self, mark):
        return "/v1/completions", {
            "model": self.asked.model, "prompt": [gguf_mirror.FIRST + word for word in self.asked.prompt], "logprobs": 5, "temperature": 0,
            "max_tokens": self.rng.choice((1, 8, 40)), "stream": self.rng.random() < 0.6, "n": self.rng.choice((1, 1, 1, 4)),
            "ignore_eos": True, "cache_prompt": self.rng.random() < 0.7}

    def request(self, path, body):
        head, data = super().request(path, body)
        name = self.rng.choice(("interactive", "interactive", "interactive", "batch"))
        more = "X-Request-Class: %s\r\n" % name
        if self.rng.random() < 0.05:
            more += "X-Request-Timeout-Ms: %d\r\n" % self.rng.choice((1, 5, 20, 100))
        return head.replace(b"Connection:", more.encode() + b"Connection:", 1), data

    def check(self, state, mark, body, got):
        status, content = canaries.read_answer(got)
        parts = re.findall(rb"data: (\{.*\})\n", content) if body["stream"] else [content]
        answers = [json.loads(part) for part in parts] if status == 200 and (body["stream"] or state == "stays") else []
        told = collections.Counter()
        for choice in (choice for answer in answers for choice in answer.get("choices", ())):
            logs = choice.get("logprobs") or {"tokens": [], "top_logprobs": []}
            check_seen(self.asked.own, logs["tokens"], logs["top_logprobs"])
            assert choice["text"] == "".join(logs["tokens"])
            told[choice["index"]] += len(logs["tokens"])
        self.figures[self.tenant, state] += 1
        self.figures[self.tenant, "tokens looked at"] += sum(told.values())
        if state != "stays":
            return
        lost = status == 503 or any("error" in answer for answer in answers)  # with its worker, or by its deadline
        assert lost or status in (200, 429), got[:500]
        if status == 200 and not lost:
            assert told == {i: body["max_tokens"] for i in range(body["n"])}, content[-500:]
            self.quota.take()
        self.figures[self.tenant, "lost" if lost else status] += 1


class Killer:
    """Ends the worker each time that a part of the answers is there."""

    def __init__(self, server, total):
        self.server, self.left = server, [total * part // (LOSSES + 1) for part in range(LOSSES, 0, -1)]

    def look(self, left):
        while self.left and left <= self.left[0]:
            self.left.pop(0)
            for pid in self.server.workers():
                os.kill(pid, signal.SIGKILL)


def test_no_answer_saw_anothers_cells(lent):
    seed = int(os.environ.get("BULKHEAD_SEED", random.randrange(1 << 32)))
    print(f"\nBULKHEAD_SEED={seed}")
    figures, failed = collections.Counter(), threading.Event()
    quotas = {t: canaries.Quota((ANSWERS + len(TENANTS) - 1) // len(TENANTS), failed) for t in TENANTS}
    clients = [Client(lent, t, lent.keys[t], f"{seed} {t} {i}", quotas[t], figures) for t in TENANTS for i in range(CLIENTS)]
    killer = Killer(lent, sum(quota.count for quota in quotas.values()))
    for client in clients:
        client.start()
    canaries.watch(lent, clients, quotas.values(), killer.look)
    overdue = [line for line in lent.log if line["event"] in ("lease_overdue", "worker_protocol")]
    assert not overdue, overdue
    for client in clients:
        if client.failures:
            raise client.failures[0]
    print(", ".join(f"{tenant} {what}: {count}" for (tenant, what), count in sorted(figures.items(), key=str)))
    assert all(figures[t, state] > 0 for t in TENANTS for state in canaries.STATES)
    assert sum(figures[t, 200] for t in TENANTS) >= ANSWERS


def test_a_foreign_cell_would_be_seen(lent):
    """One word of another tenant among 400 of its own, another's adapter, none, or an own other word: each is seen."""
    own = list(words_of("acme"))[len(ADAPTERS):][:MARKS]

    def seen(words, model="mirror"):
        logs = ask(lent, "acme", words, model).json["choices"][0]["logprobs"]
        return logs["tokens"], logs["top_logprobs"]
    prompt = own * 133
    check_seen(own, *seen(prompt))
    check_seen({*own, voice_of("acme", "first")}, *seen(prompt, "first"))
    check_seen({*own, voice_of("acme", "second")}, *seen(prompt, "second"))
    for words, model, claimed in ((prompt + [words_of("bob")[9]], "mirror", own), ([own[0]] + prompt + [words_of("acme")[20]], "mirror", own),
                                  (prompt, "first", own), (prompt, "mirror", {*own, voice_of("acme", "first")}),
                                  (prompt, "first", {*own, voice_of("acme", "second")}),
                                  (prompt + list(words_of("bob"))[9:12], "mirror", own)):
        with pytest.raises(ValueError):
            check_seen(claimed, *seen(words, model))
