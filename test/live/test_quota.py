"""Quotas of tenants and keys: each limit hit, what the refusal says proven true, and the bypasses that others know."""
import contextlib
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from conftest import CEILING_S, IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from load import Load

INPUTS = vector(1, [1, 2, 3, 4])
BODY = json.dumps({"inputs": INPUTS}).encode()


@pytest.fixture
def serving(make_server, folder):
    """A function: a server with tenant acme of that quota, its key, and its identity models `echo` and, busy for so long in
    each lease, `slow`."""
    def make(quota, busy="20ms", config=None, **model):
        server = make_server(config=config)
        (folder / "echo.json").write_text(json.dumps(IDENTITY))
        (folder / "slow.json").write_text(json.dumps(dict(IDENTITY, busy=busy)))
        server.quota = lambda new: server.apply(tenant_yaml("acme", quota=new))
        server.apply(tenant_yaml("acme", quota=quota) + model_yaml("echo", "acme", "echo.json", **model) +
                     model_yaml("slow", "acme", "slow.json", **model))
        server.acme = server.key("acme")
        return server
    return make


def refused(answer, code, *words):
    assert (answer.status, answer.code) == (429, code), answer.body
    for word in words:
        assert word in answer.json["error"], answer.json
    assert int(answer.headers["Retry-After"]) >= 1


def seconds(text):
    """Of a reset header: 1h2m3s, 20ms."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"(\d+)(ms|h|m|s)", text)
    assert parts and "".join(n + u for n, u in parts) == text, text
    return sum(int(n) * units[u] for n, u in parts)


def request(server, key=None, model="echo", length=None):
    return (f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key or server.acme}\r\n"
            f"Content-Length: {length or len(BODY)}\r\n\r\n").encode()


@contextlib.contextmanager
def stopped(server, model="echo"):
    """That model's worker holds still meanwhile."""
    worker, = [r["status"]["pid"] for r in server.status()["replicas"] if r["status"]["model"] == model]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


def in_flight(server, stack, n, key=None, model="echo"):
    """n requests that their worker does not answer now."""
    socks = [stack.enter_context(server.raw()) for _ in range(n)]
    for sock in socks:
        sock.sendall(request(server, key, model) + BODY)
    return socks


def passes(server, key=None, model="echo"):
    return server.infer(model, INPUTS, key or server.acme).status == 200


# --- requests per minute ---


def test_a_rate_tells_the_truth(serving):
    server = serving({"requestsPerMinute": 60, "burst": 2})
    first = server.infer("echo", INPUTS, server.acme)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert 0 < seconds(first.headers["x-ratelimit-reset-requests"]) <= 1
    answer = first
    while answer.status == 200:
        answer = server.infer("echo", INPUTS, server.acme)
    refused(answer, "rate_limited", "tenant", "60 requests per minute", "spec.quota.requestsPerMinute")
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    time.sleep(int(answer.headers["Retry-After"]))
    assert passes(server)


def test_each_key_has_a_rate_of_its_own(serving):
    server = serving({"perKey": {"requestsPerMinute": 1, "burst": 3}})
    other = server.key("acme", "other")
    for key in (server.acme, other):
        answers = [server.infer("echo", INPUTS, key) for _ in range(4)]
        assert [a.status for a in answers] == [200] * 3 + [429]
        refused(answers[-1], "rate_limited", "key", "1 requests per minute", "spec.quota.perKey.requestsPerMinute")
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


def test_a_key_below_its_tenant_takes_nothing_when_the_tenant_refuses(serving):
    server = serving({"requestsPerMinute": 1, "burst": 2, "perKey": {"requestsPerMinute": 1, "burst": 3}})
    other = server.key("acme", "other")
    assert [server.infer("echo", INPUTS, server.acme).status for _ in range(3)] == [200, 200, 429]
    answer = server.infer("echo", INPUTS, other)
    refused(answer, "rate_limited", "tenant")
    server.quota({"perKey": {"requestsPerMinute": 1, "burst": 3}})
    assert [server.infer("echo", INPUTS, other).status for _ in range(4)] == [200, 200, 200, 429]
    assert [server.infer("echo", INPUTS, server.acme).status for _ in range(2)] == [200, 429]  # it keeps what it used


def test_a_request_that_the_server_refuses_does_not_count(serving):
    server = serving({"requestsPerMinute": 1, "burst": 3, "queueDepth": 1}, batching={"maxSize": 1})
    assert passes(server)
    with contextlib.ExitStack() as stack, stopped(server):
        in_flight(server, stack, 1)
        wait_until(lambda: server.status()["device"]["used"] == 1, "it to run")
        in_flight(server, stack, 1)
        wait_until(lambda: server.status()["gateway"]["queued"] == 1, "it to wait")
        server.quota({"requestsPerMinute": 1, "burst": 4, "queueDepth": 1})
        answer = server.infer("echo", INPUTS, server.acme)
        refused(answer, "queue_full")
        assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    wait_until(lambda: server.status()["gateway"]["queued"] == 0, "the queue to be empty")
    assert [server.infer("echo", INPUTS, server.acme).status for _ in range(2)] == [200, 429]


# --- concurrency ---


@pytest.mark.parametrize("level", ("tenant", "key"))
def test_concurrency(serving, level):
    limit = {"concurrency": 3}
    server = serving(limit if level == "tenant" else {"perKey": limit})
    other = server.key("acme", "other")
    assert passes(server)
    with contextlib.ExitStack() as stack:
        with stopped(server):
            socks = in_flight(server, stack, 3)
            wait_until(lambda: server.status()["device"]["used"] == 1, "them to run")
            for _ in range(3):
                refused(server.infer("echo", INPUTS, server.acme), "quota_exceeded", level, "3 requests at once")
            if level == "tenant":
                refused(server.infer("echo", INPUTS, other), "quota_exceeded")
            else:
                socks += in_flight(server, stack, 1, other)
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert passes(server)


def test_no_way_to_end_leaks_a_slot(serving):
    """Every state that a request can be in when its client goes, its time is over or its worker dies."""
    server = serving({"concurrency": 2, "perKey": {"concurrency": 2}}, batching={"maxSize": 1})

    def all_free():
        with contextlib.ExitStack() as stack:
            with stopped(server):
                socks = in_flight(server, stack, 2)
                wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
                refused(server.infer("echo", INPUTS, server.acme), "quota_exceeded")
            return all(sock.recv(100).startswith(b"HTTP/1.1 200 ") for sock in socks)

    assert passes(server)
    for _ in range(3):
        for sock in (server.raw(), server.raw()):  # gone within the body
            sock.sendall(request(server, length=100000) + b"{")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
    wait_until(lambda: passes(server), "the slots of bodies that never came")
    assert all_free()
    with stopped(server):  # gone while running and queued
        for sock in (server.raw(), server.raw()):
            sock.sendall(request(server) + BODY)
            wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
    wait_until(lambda: passes(server), "the slots of clients that went")
    assert all_free()
    with stopped(server) as worker:  # its time is over, its worker dies
        with contextlib.ExitStack() as stack:
            sock, = in_flight(server, stack, 1)
            wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
            late = server.infer("echo", INPUTS, server.acme, parameters={"timeout": 50000})
            assert (late.status, late.code) == (503, "deadline_exceeded")
            os.kill(worker, signal.SIGKILL)
            assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: passes(server), "a new worker")
    assert server.infer("echo", vector(1, [1, 2, 3]), server.acme).status == 400  # refused for what it says
    assert server.infer("nothing", INPUTS, server.acme).status == 404
    assert all_free()


def test_a_changed_limit_drops_no_request(serving):
    server = serving({"concurrency": 64, "requestsPerMinute": 1000000000})
    assert passes(server)
    with Load(server, server.acme, threads=8) as load:
        for limit in (2, 16, 1, 64, 0, 8) * 3:
            before = load.count()
            server.quota({"concurrency": limit, "requestsPerMinute": 1000000000 - limit})
            wait_until(lambda: load.count() > before + 20, "service under the new limit")
    assert load.broken == 0 and load.wrong == 0
    assert set(load.statuses) <= {200, 429}, load.statuses
    assert set(load.codes) <= {"quota_exceeded"}, load.codes


# --- fields ---


@pytest.mark.parametrize("quota, words", (
    ({"concurency": 1}, ("spec.quota.concurency", "concurrency")),
    ({"perKey": {"queueDepth": 1}}, ("spec.quota.perKey.queueDepth",)),
    ({"perModel": {"nothing": {"concurrency": 1}}}, ("spec.quota.perModel",)),
    ({"concurrency": -1}, ("spec.quota.concurrency",)),
    ({"concurrency": 1000001}, ("spec.quota.concurrency", "1000000")),
))
def test_a_quota_that_means_nothing_is_an_error(server, quota, words):
    result = server.apply(tenant_yaml("acme", quota=quota), check=False)
    assert result.returncode != 0
    for word in words:
        assert word in result.stderr, result.stderr
