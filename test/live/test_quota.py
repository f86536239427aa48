"""Quotas of tenants and keys: each limit hit, what the refusal says proven true, and the bypasses that others know."""
import contextlib
import json
import os
import re
import signal
import socket
import struct
import threading
import time

import pytest

from conftest import IDENTITY, model_yaml, standing, tenant_yaml, vector, wait_until
from load import Load

INPUTS = vector(1, [1, 2, 3, 4])
BODY = json.dumps({"inputs": INPUTS}).encode()
HELD = "1s"


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
def stopped(server, model="slow"):
    """That model's worker holds still meanwhile. It is ended after eight times what its leases took lately, so let them
    take a second (HELD), or let there have been none: then it is 30 s."""
    worker, = [r["status"]["pid"] for r in server.status()["replicas"] if r["status"]["model"] == model]
    with standing(server, worker):
        yield worker


def in_flight(server, stack, n, key=None, model="slow"):
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


def taken(answer, first):
    """How many requests of one per minute have been taken since, however long that was."""
    return round((seconds(answer.headers["x-ratelimit-reset-requests"]) + time.time() - first) / 60)


def test_a_request_that_the_server_refuses_does_not_count(serving):
    server = serving({"requestsPerMinute": 1, "burst": 99, "queueDepth": 1}, HELD, batching={"maxSize": 1})
    first = time.time()
    assert passes(server, model="slow")
    with contextlib.ExitStack() as stack, stopped(server):
        in_flight(server, stack, 1)
        wait_until(lambda: server.status()["device"]["used"] == 1, "it to run")
        in_flight(server, stack, 1)
        wait_until(lambda: server.status()["gateway"]["queued"] == 1, "it to wait")
        answer = server.infer("slow", INPUTS, server.acme)
        refused(answer, "queue_full")
        assert taken(answer, first) == 3
    wait_until(lambda: server.status()["gateway"]["queued"] == 0, "the queue to be empty")
    answer = server.infer("slow", INPUTS, server.acme)
    assert answer.status == 200 and taken(answer, first) == 4


def test_a_refusal_that_nobody_reads_outlives_what_was_used(serving):
    """Its answer hangs in the connection; meanwhile nothing of the quota is used any more, and its state goes."""
    server = serving({"requestsPerMinute": 6000, "burst": 1})
    gateway = server.pid("gateway")
    head = f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.acme}\r\n\r\n".encode()
    for _ in range(3):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            sock.settimeout(1)
            with pytest.raises(TimeoutError):
                while True:
                    sock.sendall(head * 100)
            time.sleep(1)  # a round of housekeeping is a quarter of a second
        time.sleep(0.2)
    assert server.pid("gateway") == gateway
    assert passes(server)


def test_who_waits_as_long_as_told_is_not_told_to_wait_again(serving):
    """The tenant's limit refuses for a second, the key's would for a minute: the minute is told."""
    server = serving({"requestsPerMinute": 60, "burst": 1, "perKey": {"requestsPerMinute": 1, "burst": 1}})
    start = time.monotonic()
    assert passes(server)
    answer = server.infer("echo", INPUTS, server.acme)
    refused(answer, "rate_limited", "key", "spec.quota.perKey.requestsPerMinute")
    assert 59 - (time.monotonic() - start) <= int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert 58 - (time.monotonic() - start) <= seconds(answer.headers["x-ratelimit-reset-requests"]) <= 61


def test_what_is_left_of_requests_at_once_and_of_bytes(serving):
    server = serving({"concurrency": 5, "bytesPerSecondIn": 1000, "bytesPerSecondOut": 20000, "perKey": {"concurrency": 4}},
                     HELD, batching={"maxSize": 1})
    start = time.monotonic()
    answer = server.http("POST", "/v2/models/slow/infer", server.acme, padded(20000))
    assert answer.status == 200
    told = {name[12:]: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}
    assert told["limit-concurrency"] == told["remaining-concurrency"] == "4"  # the key's; itself it is over
    assert (told["limit-bytes-in"], told["remaining-bytes-in"]) == ("1000", "0")
    assert 19 - (time.monotonic() - start) <= seconds(told["reset-bytes-in"]) <= 20
    assert told["limit-bytes-out"] == "20000" and 20000 - len(answer.body) <= int(told["remaining-bytes-out"]) <= 20000
    assert seconds(told["reset-bytes-out"]) <= 1
    server.quota({"concurrency": 2})
    assert passes(server, model="slow")
    with contextlib.ExitStack() as stack, stopped(server):
        in_flight(server, stack, 2)
        wait_until(lambda: used(server, "concurrency") == 2, "them to be there")
        answer = server.infer("slow", INPUTS, server.acme)
        refused(answer, "quota_exceeded", "2 requests at once")
        assert (answer.headers["x-ratelimit-limit-concurrency"], answer.headers["x-ratelimit-remaining-concurrency"]) == ("2", "0")
    assert "x-ratelimit-limit-bytes-in" not in answer.headers


# --- concurrency ---


@pytest.mark.parametrize("level", ("tenant", "key"))
def test_concurrency(serving, level):
    limit = {"concurrency": 3}
    server = serving(limit if level == "tenant" else {"perKey": limit}, HELD)
    other = server.key("acme", "other")
    assert passes(server, model="slow")
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
    server = serving({"concurrency": 2, "perKey": {"concurrency": 2}}, HELD, batching={"maxSize": 1})

    def all_free():
        with contextlib.ExitStack() as stack:
            with stopped(server):
                socks = in_flight(server, stack, 2)
                wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
                refused(server.infer("echo", INPUTS, server.acme), "quota_exceeded")
            return all(sock.recv(100).startswith(b"HTTP/1.1 200 ") for sock in socks)

    assert passes(server) and passes(server, model="slow")
    for _ in range(3):
        for sock in (server.raw(), server.raw()):  # gone within the body
            sock.sendall(request(server, length=100000) + b"{")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    wait_until(lambda: passes(server), "the slots of bodies that never came")
    assert all_free()
    with stopped(server):  # gone while running and queued
        for sock in (server.raw(), server.raw()):
            sock.sendall(request(server, model="slow") + BODY)
            wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    wait_until(lambda: passes(server), "the slots of clients that went")
    assert all_free()
    with stopped(server) as worker:  # its time is over, its worker dies
        with contextlib.ExitStack() as stack:
            sock, = in_flight(server, stack, 1)
            wait_until(lambda: server.status()["device"]["used"] == 1, "one to run")
            late = server.infer("slow", INPUTS, server.acme, parameters={"timeout": 50000})
            assert (late.status, late.code) == (503, "deadline_exceeded")
            os.kill(worker, signal.SIGKILL)
            assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: passes(server, model="slow"), "a new worker")
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


# --- compute ---


def window_left(period=3600):
    return period - time.time() % period


@pytest.fixture
def in_one_hour():
    """The test does not run over the end of an hour, or of a day: it waits for the next one where that is near."""
    if window_left() < 120:
        time.sleep(window_left() + 0.1)


def lease_seconds(server, leases=1):
    """Of so many at least: the figures are a moment old."""
    wait_until(lambda: server.status()["gateway"]["leases"] >= leases, "leases")
    return server.status()["gateway"]["leaseSeconds"]


def quota_status(server):
    return json.loads(server.cli("get", "tenant", "acme", "-o", "json").stdout)["status"]["quota"]


def used(server, limit):
    """As `get tenant` shows it, a second later at most."""
    return quota_status(server)[limit]["used"]


@pytest.mark.parametrize("level", ("tenant", "key"))
def test_concurrent_requests_do_not_overrun_a_compute_quota(serving, in_one_hour, level):
    """64 clients at once, each of whom would find something left: together they get the quota and one request more. The
    first of them has no estimate to go by."""
    limit = {"computeSecondsPerHour": 1}
    server = serving(limit if level == "tenant" else {"perKey": limit}, busy="60ms", batching={"maxSize": 1})
    with Load(server, server.acme, model="slow", threads=64) as load:
        wait_until(lambda: load.count(429) > 64, "the quota to be used up")
    assert load.broken == 0 and load.wrong == 0
    assert set(load.statuses) == {200, 429} and set(load.codes) == {"quota_exceeded"}, (load.statuses, load.codes)
    took = lease_seconds(server, load.count())
    assert took >= 1 and load.count() <= 1 / 0.06 + 1, (took, load.statuses)  # each takes 60 ms at least; one over
    before = window_left()
    answer = server.infer("slow", INPUTS, server.acme)
    refused(answer, "quota_exceeded", level, "1 seconds of compute per hour", "computeSecondsPerHour")
    assert window_left() - 1 <= int(answer.headers["Retry-After"]) <= before + 2  # true: the hour's end
    assert answer.headers["x-ratelimit-limit-compute"] == "1"
    assert answer.headers["x-ratelimit-remaining-compute"] == "0.000"
    assert window_left() - 1 <= seconds(answer.headers["x-ratelimit-reset-compute"]) <= before + 2
    if level == "key":
        assert passes(server, server.key("acme", "other"), "slow")


def test_a_first_request_passes_under_a_small_quota(serving, in_one_hour):
    server = serving({"computeSecondsPerDay": 1, "computeSecondsPerHour": 1}, busy="1500ms")
    first = server.infer("slow", INPUTS, server.acme)
    assert first.status == 200
    assert first.headers["x-ratelimit-remaining-compute"] == "0.000"
    refused(server.infer("slow", INPUTS, server.acme), "quota_exceeded", "per day")  # the one that lasts longer
    before = window_left(86400)
    answer = server.infer("echo", INPUTS, server.acme)
    assert window_left(86400) - 1 <= int(answer.headers["Retry-After"]) <= before + 2
    server.quota({"computeSecondsPerDay": 1000, "computeSecondsPerHour": 100})  # more, and what is used stays used
    answer = server.infer("echo", INPUTS, server.acme)
    assert answer.status == 200
    assert float(answer.headers["x-ratelimit-remaining-compute"]) <= 98.5


def test_a_fair_share_of_a_batch_is_charged(serving, in_one_hour):
    """A batch's time is its requests' by rows."""
    server = serving({"computeSecondsPerHour": 1000}, busy=HELD)
    assert passes(server, model="slow")
    before = lease_seconds(server)
    with contextlib.ExitStack() as stack:
        with stopped(server, "slow"):
            socks = in_flight(server, stack, 1, model="slow")
            wait_until(lambda: server.status()["device"]["used"] == 1, "it to run")
            socks += in_flight(server, stack, 8, model="slow")
            wait_until(lambda: server.status()["gateway"]["queued"] == 8, "them to wait")
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.status()["gateway"]["leases"] == 3, "two leases")
    took = lease_seconds(server, 3)
    assert took > before
    rest = float(server.infer("echo", INPUTS, server.acme).headers["x-ratelimit-remaining-compute"])
    assert took <= 1000 - rest + 0.01 <= took + 0.5  # the one asked last is in the latter


def test_what_was_really_used_is_charged(serving, in_one_hour):
    """A client that goes while its request runs has used what it ran until it was given up; one that goes while it waits
    has used nothing."""
    server = serving({"computeSecondsPerHour": 1000}, busy=HELD, batching={"maxSize": 1})
    assert passes(server, model="slow")
    with stopped(server, "slow"):
        for state in ("used", "queued"):
            sock = server.raw()
            sock.sendall(request(server, model="slow") + BODY)
            part = "device" if state == "used" else "gateway"
            wait_until(lambda: server.status()[part][state] == 1, f"one to be {state}")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    took = lease_seconds(server, 2)
    rest = float(server.infer("echo", INPUTS, server.acme).headers["x-ratelimit-remaining-compute"])
    assert 1 < took <= 1000 - rest + 0.01 <= took + 0.5  # the one asked last is in the latter


# --- what is used outlives processes ---


@pytest.mark.parametrize("victim", ("restart", "gateway", "control", "server"))
def test_counters_survive(serving, in_one_hour, victim):
    server = serving({"computeSecondsPerDay": 100, "requestsPerMinute": 1, "burst": 99,
                      "perKey": {"computeSecondsPerHour": 50}}, busy="200ms")
    first = time.time()
    for _ in range(3):
        answer = server.infer("slow", INPUTS, server.acme)
        assert answer.status == 200
    before = float(answer.headers["x-ratelimit-remaining-compute"])
    assert before < 49.5
    wait_until(lambda: used(server, "computeSecondsPerDay") >= 49.99 - before, "the store to have it")
    server.lose(victim)
    answer = wait_until(lambda: answer_of(server), "an answer")
    assert answer.status == 200, answer.body
    assert answer.headers["x-ratelimit-limit-compute"] == "50"  # the key's, of which less is left
    after = float(answer.headers["x-ratelimit-remaining-compute"])
    assert before - 0.5 < after <= before  # that answer's own is in it
    assert taken(answer, first) == 4


def ready_at(server):
    """When the next body may come, as the refusal of one says: a span of wall time in which that is."""
    begin = time.time()
    answer = wait_until(lambda: answer_of(server), "an answer")
    refused(answer, "quota_exceeded", "1000 bytes per second in")
    return begin + int(answer.headers["Retry-After"]) - 2, time.time() + int(answer.headers["Retry-After"]) + 1


@pytest.mark.parametrize("victim", ("restart", "gateway"))
def test_what_bytes_have_to_make_up_for_survives(serving, victim):
    """A restart is no way to the next ten minutes' worth of bytes."""
    server = serving({"bytesPerSecondIn": 1000, "bytesPerSecondOut": 1000000})
    assert server.http("POST", "/v2/models/echo/infer", server.acme, padded(600000)).status == 200
    before = ready_at(server)
    wait_until(lambda: used(server, "bytesPerSecondIn") > 300000, "the store to have it")
    server.lose(victim)
    after = ready_at(server)
    assert before[0] <= after[1] and after[0] <= before[1], (before, after)  # the same moment
    server.quota({"bytesPerSecondIn": 100000000})
    assert passes(server)  # a higher limit begins anew …
    wait_until(lambda: used(server, "bytesPerSecondIn") < 100000000, "the store to know")
    assert server.stop() == 0
    server.start()
    assert passes(server)  # … for good


def answer_of(server):
    with contextlib.suppress(OSError):
        return server.infer("echo", INPUTS, server.acme)
    return None


# --- bytes ---


def padded(size):
    return BODY + b" " * (size - len(BODY))


def test_body_bytes(serving):
    server = serving({"bodyBytes": 5000})
    path = "/v2/models/echo/infer"
    for size, status in ((4999, 200), (5000, 200), (5001, 413), (100000, 413)):
        answer = server.http("POST", path, server.acme, padded(size))
        assert answer.status == status, (size, answer.body)
    assert answer.code == "body_too_large"
    assert "100000 bytes" in answer.json["error"] and "spec.quota.bodyBytes" in answer.json["error"]
    for size, status in ((5000, b"200"), (5001, b"413")):  # without Content-Length: as soon as it is crossed
        with server.raw() as raw:
            raw.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.acme}\r\n"
                        f"Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode() + padded(size) + b"\r\n0\r\n\r\n")
            answer = raw.recv(4096)
            assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'"code":"body_too_large"' in answer and b"more than 5000 bytes" in answer and b"spec.quota.bodyBytes" in answer
    server.quota({"bodyBytes": 0})
    assert server.http("POST", path, server.acme, padded(100000)).status == 200


def test_response_bytes(serving):
    server = serving({})
    rows = vector(30, [0.5] * 120)
    size = len(server.infer("echo", rows, server.acme).body)
    for limit, status in ((size + 1, 200), (size, 200), (size - 1, 422)):
        server.quota({"responseBytes": limit, "concurrency": 1})
        answer = server.infer("echo", rows, server.acme)
        assert answer.status == status
    assert answer.code == "response_too_large"
    assert f"{size} bytes" in answer.json["error"] and f"{size - 1} (spec.quota.responseBytes)" in answer.json["error"]
    assert passes(server)


def test_bytes_per_second_in_are_shaped(serving):
    """Whatever comes at once: beyond a second's worth and one body, bodies are read as fast as the quota says."""
    server = serving({"bytesPerSecondIn": 100000})
    assert passes(server)
    start = time.monotonic()
    answers = []

    def client():
        answers.append(server.http("POST", "/v2/models/echo/infer", server.acme, padded(40000)).status)

    threads = [threading.Thread(target=client) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 10
    assert time.monotonic() - start >= (400000 - 100000 - 2 * 40000) / 100000
    # one that goes while it waits has sent nothing that counts, and gives its slot back
    server.quota({"bytesPerSecondIn": 100000, "concurrency": 1})
    time.sleep(1)
    assert server.http("POST", "/v2/models/echo/infer", server.acme, padded(300000)).status == 200
    with server.raw() as raw:
        raw.sendall(request(server, length=2000000))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: passes(server), "the slot")


def test_too_far_behind_is_refused(serving):
    server = serving({"bytesPerSecondIn": 1000})
    start = time.monotonic()
    assert server.http("POST", "/v2/models/echo/infer", server.acme, padded(500000)).status == 200
    answer = server.infer("echo", INPUTS, server.acme)
    refused(answer, "quota_exceeded", "tenant", "1000 bytes per second in", "spec.quota.bytesPerSecondIn")
    assert 498 - (time.monotonic() - start) <= int(answer.headers["Retry-After"]) <= 500  # a second's worth is free
    server.quota({"bytesPerSecondIn": 100000000})
    assert server.http("POST", "/v2/models/echo/infer", server.acme, padded(100000)).status == 200
    text = metrics(server)
    assert 'bulkhead_quota_refusals_total{tenant="acme",model="",reason="bytes"} 1' in text


def metrics(server):
    import http.client
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(server.data / "admin.sock"))
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def test_bytes_per_second_out(serving):
    """An answer is not held back; the next request is."""
    server = serving({"bytesPerSecondOut": 1000}, batching={"maxSize": 256})
    rows = vector(200, [0.5] * 800)
    start = time.monotonic()
    first = server.infer("echo", rows, server.acme)
    assert first.status == 200 and 2500 < len(first.body) < 20000
    assert passes(server)
    assert time.monotonic() - start >= len(first.body) / 1000 - 1
    refused(wait_until(lambda: (a := server.infer("echo", rows, server.acme)).status == 429 and a, "a refusal")
            if len(first.body) > 31500 else large_then_next(server), "quota_exceeded", "bytes per second out")


def large_then_next(server):
    """The answer after one that makes up for more than half a minute."""
    server.quota({"bytesPerSecondOut": 40})
    rows = vector(200, [0.5] * 800)
    answer = server.infer("echo", rows, server.acme)
    return answer if answer.status == 429 else server.infer("echo", rows, server.acme)


def test_a_slow_body_holds_its_slot_and_no_more(serving):
    """One byte now and then: it counts in concurrency, takes memory for what came, and the body rate ends it."""
    server = serving({"concurrency": 2, "bodyBytes": 100000})
    assert passes(server)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.raw()) for _ in range(3)]
        for sock in socks:
            sock.sendall(request(server, length=90000) + b"{")
        ends = [sock.recv(200) for sock in socks]  # two are cut off, one was refused at once
    codes = sorted(end.split(b" ")[1] for end in ends)
    assert codes == [b"408", b"408", b"429"], ends
    wait_until(lambda: passes(server), "their slots")


# --- what control holds them to ---


def test_status_shows_use_against_limit(serving, in_one_hour):
    server = serving({"computeSecondsPerHour": 100, "computeSecondsPerDay": 200, "requestsPerMinute": 1, "burst": 9, "models": 3,
                      "artifactBytes": "1Mi", "replicas": 5, "memory": "1Gi"}, busy="200ms", resources={"memory": "64Mi"})
    assert passes(server, model="slow") and passes(server)
    wait_until(lambda: used(server, "computeSecondsPerHour") >= 0.2, "the use")
    text = server.cli("get", "tenant", "acme", "-o", "yaml").stdout
    quota = quota_status(server)
    assert "computeSecondsPerHour" in text
    assert quota["computeSecondsPerHour"]["limit"] == 100 and quota["computeSecondsPerDay"]["limit"] == 200
    took = lease_seconds(server, 2)
    wait_until(lambda: abs(used(server, "computeSecondsPerDay") - took) < 0.02, "all of it")
    assert quota["computeSecondsPerHour"]["resets"].endswith(":00:00.000Z")
    assert quota["burst"] == {"limit": 9, "used": 2}
    assert quota["models"] == {"limit": 3, "used": 2}
    assert quota["replicas"] == {"limit": 5, "used": 2}
    assert quota["memory"] == {"limit": 1 << 30, "used": 2 * 64 << 20}
    assert 0 < quota["artifactBytes"]["used"] < quota["artifactBytes"]["limit"] == 1 << 20


def in_use(server, numbers):
    """The status, where these are its requests, queued ones and connections."""
    status = quota_status(server)
    return status if tuple(status[n]["used"] for n in ("concurrency", "queueDepth", "connections")) == numbers else None


def test_status_shows_what_is_in_use_now(serving):
    """What nobody stores: requests at once and in the queue, connections; and the bytes that are to be made up for."""
    server = serving({"concurrency": 7, "queueDepth": 9, "queueBytes": "1Mi", "connections": 8, "bytesPerSecondIn": 500000,
                      "bytesPerSecondOut": 7000000}, "500ms", batching={"maxSize": 1}, replicas={"max": 1})
    server.apply(tenant_yaml("other"))
    assert passes(server, model="slow")
    assert quota_status(server)["queueDepth"] == {"limit": 9, "used": 0}
    with Load(server, server.acme, model="slow", threads=3) as load:  # each asks again at once: one runs, two wait
        status = wait_until(lambda: in_use(server, (3, 2, 3)), "what is in use")
        assert {name: status[name]["limit"] for name in status} == {
            "concurrency": 7, "queueDepth": 9, "queueBytes": 1 << 20, "connections": 8, "bytesPerSecondIn": 500000,
            "bytesPerSecondOut": 7000000}
        assert 0 < status["queueBytes"]["used"] < 1 << 20
        assert json.loads(server.cli("get", "tenant", "other", "-o", "json").stdout)["status"]["quota"] == {
            "queueDepth": {"limit": 256, "used": 0}}
    assert set(load.statuses) == {200} and load.broken == 0
    status = wait_until(lambda: in_use(server, (0, 0, 0)), "all of them to be gone")
    assert status["queueBytes"]["used"] == 0
    server.quota({"bytesPerSecondIn": 5000})
    assert server.http("POST", "/v2/models/echo/infer", server.acme, padded(500000)).status == 200
    wait_until(lambda: 5000 < used(server, "bytesPerSecondIn") <= 500000 + 1000, "what is to be made up for")
    assert "bytesPerSecondIn:" in server.cli("get", "tenant", "acme", "-o", "yaml").stdout


def test_what_a_gateway_had_in_use_ends_with_it(serving):
    server = serving({"connections": 7})
    connections = [server.connect() for _ in range(3)]
    for connection in connections:
        assert server.infer("echo", INPUTS, server.acme, connection=connection).status == 200
    wait_until(lambda: used(server, "connections") == 3, "them to be seen")
    old = server.pid("gateway")
    server.alerts_expected = True
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: used(server, "connections") == 0, "them to be gone")
    wait_until(lambda: server.pid("gateway") not in (None, old), "another gateway")
    wait_until(lambda: answer_of(server), "service")
    for connection in connections:
        connection.close()


def test_models_and_artifacts_are_counted_at_apply(server, folder):
    for name, size in (("one", 100), ("two", 300), ("three", 100)):
        (folder / f"{name}.json").write_text(json.dumps(IDENTITY) + " " * (size - len(json.dumps(IDENTITY))) )
    server.apply(tenant_yaml("acme", quota={"models": 2, "artifactBytes": 450}))

    def model(name, source, **spec):
        return server.apply(model_yaml(name, "acme", source + ".json", **spec), check=False)

    assert model("a", "one").returncode == 0
    assert model("b", "three").returncode == 0  # the same bytes as one's: counted once
    again = model("c", "one")
    assert again.returncode != 0 and "spec.quota.models" in again.stderr, again.stderr
    assert model("b", "two").returncode == 0
    (folder / "two.json").write_text((folder / "two.json").read_text() + " ")
    beyond = model("b", "two")
    assert beyond.returncode != 0 and "spec.quota.artifactBytes" in beyond.stderr and "450" in beyond.stderr
    assert model("b", "one").returncode == 0  # takes nothing more
    assert model("a", "one", batching={"maxSize": 4}).returncode == 0
    server.apply(tenant_yaml("acme", quota={"models": 1}))  # below what there is: nothing goes
    assert model("a", "one", batching={"maxSize": 5}).returncode == 0
    server.cli("delete", "model", "b", "--tenant", "acme")
    assert model("c", "one").returncode != 0
    server.cli("delete", "model", "a", "--tenant", "acme")
    assert model("c", "one").returncode == 0


@pytest.mark.parametrize("quota, word", (({"replicas": 1}, "spec.quota.replicas"), ({"memory": "100Mi"}, "spec.quota.memory")))
def test_no_further_replica_starts(serving, quota, word):
    server = serving(quota, resources={"memory": "64Mi"}, replicas={"idleAfter": "1s"})
    assert passes(server)
    answer = server.infer("slow", INPUTS, server.acme)
    assert (answer.status, answer.code) == (503, "model_unavailable")
    assert word in answer.json["error"] and int(answer.headers["Retry-After"]) >= 1
    assert passes(server)  # the one that runs is not touched
    wait_until(lambda: passes(server, model="slow"), "room for the other, once the first is idle")
