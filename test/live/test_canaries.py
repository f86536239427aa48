"""Each prompt of a language model holds a mark of its own, and its answer is made to be that mark: whatever reaches a client,
whole or cut off, may hold no other. Two tenants, each with a worker, and clients that leave in every state of a request.

`make test` looks at some hundreds of whole answers, `make soak` (BULKHEAD_SOAK) at 100,000, BULKHEAD_CANARIES=n at so many.
BULKHEAD_SEED=n repeats a run. Long runs say now and then how far they are (pytest -s)."""
import collections
import http.client
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import CEILING_S, ROOT, model_yaml, tenant_yaml

ANSWERS = int(os.environ.get("BULKHEAD_CANARIES", 100000 if os.environ.get("BULKHEAD_SOAK") else 400))
TOLD_S = 60  # how often a run tells of itself
PATIENCE_S = 8 * CEILING_S  # of a client: its answer is one of many, and may be of the class that waits
CLIENTS = 8  # of each tenant: with 8 choices each they are more than a worker's places
MARK = re.compile(r"mark-\w+-\d+-\w+")
# How far a client gets before it leaves; those that stay read it all.
STATES = ("stays", "stays", "stays", "head", "body", "sent", "waits", "first", "middle", "last", "turns")
WAITS_S_MAX = 0.1  # of those that read nothing: they leave in the queue, at a prompt, or with answers in the socket


@pytest.fixture
def tenants(server, tmp_path):
    path = tmp_path / "tiny.gguf"
    subprocess.run([sys.executable, ROOT / "test/tools/gguf_random.py", path, "--size", "tiny"], check=True)
    for name in ("acme", "other"):
        server.apply(tenant_yaml(name) + model_yaml("talk", name, str(path), "llama", resources={"cpu": 1, "memory": "2Gi"}))
    return {name: server.key(name) for name in ("acme", "other")}


class Raw:
    """What came over a socket, for http.client to make sense of."""

    def __init__(self, data):
        self.data = data

    def makefile(self, *_):
        return io.BytesIO(self.data)


def read_answer(data):
    """(status, body) of as much of an answer as there is; (0, b"") when not even its head is."""
    response = http.client.HTTPResponse(Raw(data))
    try:
        response.begin()
    except (http.client.HTTPException, OSError):
        return 0, b""
    try:
        return response.status, response.read()
    except http.client.IncompleteRead as e:
        return response.status, e.partial


def texts_of(body, streams):
    """index -> text of the choices in a body, which may be cut off."""
    found = collections.defaultdict(str)
    parts = re.findall(rb"data: (\{.*\})\n", body) if streams else [body]
    for part in parts:
        try:
            for choice in json.loads(part).get("choices", ()):
                found[choice["index"]] += choice.get("text") or choice.get("delta", choice.get("message", {})).get("content") or ""
        except ValueError:
            assert not streams, part  # an event is whole, or not there
    return found


class Client(threading.Thread):
    def __init__(self, server, tenant, key, seed, quota, figures):
        super().__init__()
        self.server, self.tenant, self.key, self.quota, self.figures = server, tenant, key, quota, figures
        self.rng = random.Random(seed)
        self.failures = []

    def run(self):
        number = 0
        try:
            while self.quota.left():
                number += 1
                self.one(f"mark-{self.tenant}-{number}-{self.rng.getrandbits(60):x}")
        except BaseException as e:
            self.failures.append(e)
            self.quota.stop()

    def body(self, mark):
        body = {"model": "talk", "max_tokens": 100, "stream": self.rng.random() < 0.6, "n": self.rng.choice((1, 1, 1, 8)),
                "grammar": f'root ::= "{mark}"', "cache_prompt": self.rng.random() < 0.7}
        text = "please say " + mark
        if self.rng.random() < 0.5:
            return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}
        return "/v1/completions", {**body, "prompt": text}

    def request(self, path, body):
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\nConnection: close\r\n" \
               f"Content-Length: {len(data)}\r\n\r\n".encode()
        return head, data

    def talk(self, raw, head, data, state):
        """Sends and reads as far as the state says; what came."""
        if state == "head":
            raw.sendall(head[:self.rng.randrange(1, len(head))])
            return b""
        if state == "body":
            raw.sendall(head + data[:self.rng.randrange(len(data))])
            return b""
        raw.sendall(head + data)
        if state in ("sent", "waits"):
            time.sleep(self.rng.random() * WAITS_S_MAX * (state == "waits"))
            return b""
        if state == "turns":  # says that nothing more comes, and may read on
            raw.shutdown(socket.SHUT_WR)
        wanted = {"first": 1, "middle": self.rng.randrange(200, 3000)}.get(state, 1 << 30)
        got = b""
        while len(got) < wanted:
            piece = raw.recv(min(wanted - len(got), 65536))
            if not piece or state == "last" and (b"[DONE]" in got or b'"usage"' in got):
                return got + piece
            got += piece
        return got

    def one(self, mark):
        state = self.rng.choice(STATES)
        path, body = self.body(mark)
        raw = self.server.raw()
        raw.settimeout(PATIENCE_S)
        try:
            got = self.talk(raw, *self.request(path, body), state)
        except (ConnectionResetError, BrokenPipeError):
            assert state == "turns"
            got = b""
        if state != "stays" and self.rng.random() < 0.5:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        self.check(state, mark, body, got)

    def check(self, state, mark, body, got):
        status, content = read_answer(got)
        texts = texts_of(content, body["stream"]) if status == 200 else {}
        for seen in (got.decode(errors="replace"), *texts.values()):
            assert all(mark.startswith(found) for found in MARK.findall(seen)), (mark, seen)  # its end may not be there yet
        assert all(mark.startswith(text) for text in texts.values()), (mark, texts)
        self.figures[self.tenant, state] += 1
        if state == "stays":
            assert status in (200, 429, 503), got[:500]
            if status == 200:
                assert dict(texts) == {i: mark for i in range(body["n"])}, (mark, content[-500:])
                self.quota.take()
            self.figures[self.tenant, status] += 1


class Quota:
    """Answers that are still wanted of a tenant; none once anything has failed."""

    def __init__(self, count, failed):
        self.count, self.failed, self.lock = count, failed, threading.Lock()

    def left(self):
        return self.count > 0 and not self.failed.is_set()

    def take(self):
        with self.lock:
            self.count -= 1

    def stop(self):
        self.failed.set()


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmRSS:"))


def watch(server, clients, quotas, look=lambda left: None):
    """Until all clients have ended: what is left to do, and what the processes take meanwhile. `look` is told what is left, often."""
    begin = told = time.monotonic()
    for client in clients:
        while client.is_alive():
            client.join(0.05)
            look(sum(quota.count for quota in quotas))
            if time.monotonic() - told < TOLD_S:
                continue
            told = time.monotonic()
            sizes = [resident_mib(pid) for pid in (server.pid("gateway"), *server.workers()) if pid]
            print(f"{told - begin:.0f} s: {sum(quota.count for quota in quotas)} answers left; gateway and workers take {sizes} MiB", flush=True)


def test_no_answer_holds_anothers_mark(server, tenants):
    seed = int(os.environ.get("BULKHEAD_SEED", random.randrange(1 << 32)))
    print(f"\nBULKHEAD_SEED={seed}")
    for key in tenants.values():
        assert server.http("POST", "/v1/completions", key, {"model": "talk", "prompt": "x", "max_tokens": 1}).status == 200
    workers = server.workers()
    assert len(workers) == 2  # one each
    figures = collections.Counter()
    failed = threading.Event()
    quotas = {tenant: Quota((ANSWERS + 1) // 2, failed) for tenant in tenants}
    clients = [Client(server, tenant, key, f"{seed} {tenant} {i}", quotas[tenant], figures)
               for tenant, key in tenants.items() for i in range(CLIENTS)]
    for client in clients:
        client.start()
    watch(server, clients, quotas.values())
    lost = [line for line in server.log if line["event"] in ("replica_lost", "lease_overdue")]
    assert not lost, lost  # says more than what the clients then saw
    for client in clients:
        if client.failures:
            raise client.failures[0]
    print(", ".join(f"{tenant} {what}: {count}" for (tenant, what), count in sorted(figures.items(), key=str)))
    assert all(figures[tenant, state] > 0 for tenant in tenants for state in STATES)
    assert sum(figures[tenant, 200] for tenant in tenants) >= ANSWERS
    assert server.workers() == workers  # nobody's worker was lost on the way


def test_a_foreign_mark_would_be_seen(server):
    """The check itself, on answers that hold what they must not: as JSON, in one event, and spread over several."""
    client = Client(server, "acme", "", 1, Quota(1, threading.Event()), collections.Counter())
    mark, foreign = "mark-acme-1-abc", "mark-other-2-def"

    def answer(body):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def event(text):
        return b"data: " + json.dumps({"choices": [{"index": 0, "text": text}]}).encode() + b"\n\n"
    for streams, body in ((False, json.dumps({"choices": [{"index": 0, "text": foreign}]}).encode()),
                          (False, json.dumps({"error": {"message": "not " + foreign}}).encode()),
                          (True, event(foreign)), (True, event(foreign[:6]) + event(foreign[6:])), (True, event("mark-acme-2-abc"))):
        with pytest.raises(AssertionError):
            client.check("middle", mark, {"stream": streams, "n": 1}, answer(body))
    client.check("middle", mark, {"stream": True, "n": 1}, answer(event(mark[:6]) + event(mark[6:])))
