"""Generations that wait for a place in a running batch: they are bounded, shed, refused and reserve compute as any request."""
import json
from contextlib import contextmanager

import pytest

from conftest import ROOT, model_yaml, standing, tenant_yaml, wait_until

GGUF = str(ROOT / "examples/models/novelist.gguf")


@pytest.fixture
def talking(make_server):
    def make(config=None, **quota):
        server = make_server(config=config) if config else make_server()
        server.quota = lambda **new: server.apply(tenant_yaml("acme", quota=new))
        server.apply(tenant_yaml("acme", quota=quota) +
                     model_yaml("talk", "acme", GGUF, "llama", resources={"cpu": 1, "memory": "512Mi"}))
        server.acme = server.key("acme")
        assert ask(server, max_tokens=1).status == 200
        return server
    return make


def ask(server, headers=None, **body):
    body = {"model": "talk", "prompt": "It is", "temperature": 0, "ignore_eos": True, **body}
    return server.http("POST", "/v1/completions", server.acme, body, headers=headers)


@contextmanager
def stopped(server):
    """Its worker stands still in the middle of a lease: whoever comes now waits."""
    pid, = [r["status"]["pid"] for r in server.status()["replicas"]]
    wait_until(lambda: server.status()["device"]["used"] == 0, "it to rest")
    with standing(server, pid):
        first = send(server)
        wait_until(lambda: server.status()["device"]["used"] == 1, "its lease")
        yield first


def send(server, headers="", **body):
    """A request whose answer is read later."""
    sock = server.raw()
    body = json.dumps({"model": "talk", "prompt": "It is", "max_tokens": 1, **body}).encode()
    sock.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.acme}\r\n{headers}"
                  f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
    return sock


def answered(sock):
    """Status and body of an answer that is short."""
    got = b""
    while b"\r\n\r\n" not in got or not got.endswith(b"}"):
        more = sock.recv(65536)
        if not more:
            break
        got += more
    sock.close()
    return int(got.split()[1]), got.decode()


def queued(server):
    return server.status()["gateway"]["queued"]


def test_their_bytes_are_bounded(talking):
    server = talking(queueBytes=2000)
    with stopped(server) as first:
        waits = send(server, prompt="x " * 600)
        wait_until(lambda: queued(server) >= 1, "it to wait")
        more = answered(send(server, prompt="y " * 600))
        assert more[0] == 429 and "queue" in more[1], more
        small = send(server)
        wait_until(lambda: queued(server) >= 2, "a small one to wait")
    assert [answered(s)[0] for s in (first, waits, small)] == [200] * 3
    wait_until(lambda: queued(server) == 0, "the queue to be empty")


def test_a_deleted_models_are_404_at_once(talking):
    server = talking()
    with stopped(server):
        waits = send(server)
        wait_until(lambda: queued(server) >= 1, "it to wait")
        server.cli("delete", "model", "talk", "--tenant", "acme")
        assert answered(waits)[0] == 404


def test_who_cannot_wait_longer_is_told(talking):
    server = talking()
    with stopped(server):
        status, body = answered(send(server, "X-Request-Timeout-Ms: 200\r\n"))
    assert status in (503, 504) and "deadline" in body.lower() or "time" in body.lower(), body


def test_concurrent_generations_do_not_overrun_compute(talking):
    """Together they take several times what is left; no more than one of them runs over it."""
    server = talking(computeSecondsPerDay=1000)

    def used():
        status = json.loads(server.cli("get", "tenant", "acme", "-o", "json").stdout)["status"]
        return status["quota"]["computeSecondsPerDay"]["used"]

    def took(n):
        before = used()
        assert ask(server, max_tokens=n).status == 200
        wait_until(lambda: used() > before, "the use")
        return used() - before
    n = 50
    while took(n) < 0.7 and n < 1600:
        n *= 2
    alone = max(took(n), took(n))
    limit = int(used() + alone) + 1
    server.quota(computeSecondsPerDay=limit)
    left = limit - used()
    socks = [send(server, max_tokens=n, ignore_eos=True, prompt=f"{i}") for i in range(24)]
    answers = [answered(s) for s in socks]
    assert {a[0] for a in answers} == {200, 429}, [a[0] for a in answers]
    assert all("seconds of compute per day" in body for status, body in answers if status == 429)
    over = used() - limit
    print(f"alone {alone:.2f} s, left {left:.2f} s, done {sum(a[0] == 200 for a in answers)}, over by {over:.2f} s")
    assert over <= 2 * alone  # what one of them reserved may have kept the next out, too
