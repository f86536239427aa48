"""Every limit and time-out that a client can meet, at limit - 1, limit and limit + 1. docs/limits.md is their table."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import socket
import threading

import pytest

from conftest import CEILING_S, IDENTITY, ROOT, Answer, model_yaml, standing, tenant_yaml, vector, wait_until

LIMITS_H = (ROOT / "src/base/limits.h").read_text()
LIMITS_MD = (ROOT / "docs/limits.md").read_text()
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def limits():
    """name -> value, as limits.h defines them."""
    found = {}
    for name, value in re.findall(r"^#define (LIMIT_\w+)\s+(\S.*?)\s*(?:/\*.*)?$", LIMITS_H, re.M):
        value = re.sub(r"\b(\d+)[uUlL]+\b", r"\1", value)
        found[name] = eval(value, {"KIB": KIB, "MIB": MIB, "GIB": GIB})
    return found


LIMIT = limits()


def rows():
    """The table's rows, cell by cell."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in LIMITS_MD.splitlines()
            if line.startswith("| ") and not line.startswith("| Limit ") and not line.startswith("| ---")]


# --- the table itself ---


def test_the_table_has_every_limit_with_its_value():
    stated = {}
    for row in rows():
        name = re.match(r"`(LIMIT_\w+)`$", row[0])
        if name:
            number, unit = re.match(r"([\d ]+)\s*(KiB|MiB|GiB|ms|)", row[1]).groups()
            scale = {"KiB": KIB, "MiB": MIB, "GiB": GIB}.get(unit, 1)
            stated[name[1]] = int(number.replace(" ", "")) * scale
    assert stated == LIMIT


def test_the_table_names_tests_that_exist():
    live = "".join(path.read_text() for path in sorted((ROOT / "test/live").glob("test_*.py")))
    for row in rows():
        assert len(row) == 5, row
        names = re.findall(r"`(test_\w+|[\w/]+\.c)`", row[4])
        assert names or row[4].startswith("Not tested:"), row
        for name in names:
            if name.endswith(".c"):
                assert (ROOT / "test" / name).exists(), row
            else:
                assert f"def {name}(" in live, row


# --- helpers ---


def config(limits=None, timeouts=None, **spec):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "test"},
                       "spec": {"limits": limits or {}, "timeouts": timeouts or {}, **spec}})


@pytest.fixture
def serving(make_server, folder):
    """A function that makes a server of that configuration with tenant acme, its key and its identity model `echo`."""
    def make(tenant=None, model=None, shape=None, engine=None, **spec):
        s = make_server(config=config(**spec))
        (folder / "echo.json").write_text(json.dumps(engine or {"inputs": [dict(IDENTITY["inputs"][0],
                                                                               shape=shape or [-1, 4])]}))
        s.apply(tenant_yaml("acme", **(tenant or {})) + model_yaml("echo", "acme", "echo.json", **(model or {})))
        s.acme = s.key("acme")
        return s
    return make


def receive(sock):
    """One answer from a raw socket."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return Answer(answer.status, answer.headers, answer.read())


def exchange(server, data):
    """Sends bytes on a connection of their own; the answer."""
    with server.raw() as sock:
        sock.sendall(data)
        return receive(sock)


def head_of(server, method="POST", path="/v2/models/echo/infer", *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {server.acme}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request_of(rows=1, **more):
    return {"inputs": vector(rows, [1.0, 2.0, 3.0, 4.0] * rows), **more}


def padded(size, content=None):
    """A good inference request of exactly that many bytes."""
    text = json.dumps(content or request_of())
    assert len(text) <= size
    return (text + " " * (size - len(text))).encode()


def post(server, body, *headers):
    return exchange(server, head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}", *headers) +
                    body)


def admin(server, method, path, body=b""):
    """A request to the admin socket, without the command line's own checks."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(CEILING_S)
        sock.connect(str(server.data / "admin.sock"))
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(body)
        return receive(sock)


def held_by_server(server, sock):
    """Is the server's end of this connection still open?"""
    here, there = f":{server.port:04X}", f":{sock.getsockname()[1]:04X}"
    lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(l[1].endswith(here) and l[2].endswith(there) and l[3] == "01" for l in lines)


def refused(answer, status, code, *texts):
    assert (answer.status, answer.code) == (status, code), answer.body
    for text in texts:
        assert text in answer.json["error"], answer.json["error"]


def ends_with_a_message(server, *texts):
    """The server refuses to start, in one line for a person."""
    assert server.process.wait(CEILING_S) == 1
    server.reader.join()
    server.process = None
    server.alerts_expected = True  # what is no log line counts as an alert
    assert any(all(text in line["message"] for text in texts) for line in server.log), server.log


def around(limit):
    return limit - 1, limit, limit + 1


# --- heads ---


def test_head_bytes(serving):
    server = serving()
    for size in around(LIMIT["LIMIT_HTTP_HEAD_BYTES"]):
        rest = size - len(head_of(server, "GET", "/v2", "X-Padding: "))
        answer = exchange(server, head_of(server, "GET", "/v2", "X-Padding: " + "x" * rest))
        if size <= LIMIT["LIMIT_HTTP_HEAD_BYTES"]:
            assert answer.status == 200
        else:
            refused(answer, 431, "headers_too_large")


def test_header_count(serving):
    server = serving()
    for count in around(LIMIT["LIMIT_HTTP_HEADERS"]):
        answer = exchange(server, head_of(server, "GET", "/v2", *(f"X-{i}: 1" for i in range(count - 2))))
        if count <= LIMIT["LIMIT_HTTP_HEADERS"]:
            assert answer.status == 200
        else:
            refused(answer, 431, "headers_too_large")


def test_target_bytes(serving):
    server = serving()
    for size in around(LIMIT["LIMIT_HTTP_TARGET_BYTES"]):
        answer = exchange(server, head_of(server, "GET", "/v2?" + "x" * (size - 4)))
        if size <= LIMIT["LIMIT_HTTP_TARGET_BYTES"]:
            assert answer.status == 200
        else:
            refused(answer, 414, "uri_too_long")


# --- bodies ---


def test_body_bytes(serving):
    limit = 64 * KIB
    server = serving(limits={"bodyBytes": "64Ki"})
    for size in around(limit):
        chunks = padded(size)
        middle = size // 3
        chunked = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (middle, chunks[:middle], size - middle, chunks[middle:])
        with_length = post(server, padded(size)) if size <= limit else exchange(
            server, head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {size}"))  # no byte of it is sent
        in_chunks = exchange(server, head_of(server, "POST", "/v2/models/echo/infer", "Transfer-Encoding: chunked") +
                             chunked)
        for answer in (with_length, in_chunks):
            if size <= limit:
                assert answer.status == 200, answer.body
            else:
                refused(answer, 413, "body_too_large")
                assert answer.headers["Connection"] == "close"


def test_body_bytes_by_default(serving):
    server = serving(shape=[-1, 1 << 20])
    limit = LIMIT["LIMIT_BODY_BYTES"]
    json_part = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [7, 1 << 20],
                                        "parameters": {"binary_data_size": 28 * MIB}}],
                            "outputs": [{"name": "x", "parameters": {"binary_data": True}}]}).encode()
    json_part += b" " * (limit - 28 * MIB - len(json_part))
    answer = post(server, json_part + bytes(28 * MIB), f"Inference-Header-Content-Length: {len(json_part)}")
    assert answer.status == 200 and len(answer.body) > 28 * MIB
    for length in (limit + 1, 1 << 40, (1 << 63) - 1):
        refused(exchange(server, head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {length}")),
                413, "body_too_large")
    refused(exchange(server, head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {1 << 63}")),
            400, "http_malformed", "Content-Length")


def test_answer_bytes(serving):
    """What came in as binary goes out as JSON, at its longest: a byte of BOOL as `false,`."""
    server = serving(limits={"bodyBytes": "64Ki"}, engine={"inputs": [{"name": "x", "datatype": "BOOL",
                                                                       "shape": [-1, -1]}]})
    count = 64 * KIB - 200
    json_part = json.dumps({"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1, count],
                                        "parameters": {"binary_data_size": count}}]}).encode()
    answer = post(server, json_part + bytes(count), f"Inference-Header-Content-Length: {len(json_part)}")
    assert answer.status == 200 and answer.json["outputs"][0]["data"] == [False] * count, answer.body[:200]


def test_a_refused_body_that_comes_all_the_same(serving):
    """Up to 64 KiB of it are read and dropped, and the connection goes on; more of it ends the connection."""
    server = serving()
    for size, goes_on in ((64 * KIB - 1, True), (64 * KIB, True), (64 * KIB + 1, False)):
        with server.raw() as sock:
            sock.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            refused(receive(sock), 401, "unauthenticated")
            if goes_on:
                sock.sendall(bytes(size) + head_of(server, "GET", "/v2"))
                assert receive(sock).status == 200
            else:
                assert sock.recv(1) == b""


# --- connections ---


def test_connections(serving):
    """When all are busy one more is refused, and they notice nothing; one that is idle gives way."""
    limit = 5
    server = serving(model={"batching": {"maxSize": 1}}, limits={"connections": limit})
    assert server.http("GET", "/v2/models/echo", server.acme).status == 200  # no estimate yet: not overdue for 30 s
    worker = server.status()["replicas"][0]["status"]["pid"]
    body = json.dumps({"inputs": vector(1, [1.0, 2.0, 3.0, 4.0])}).encode()
    head = head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}")
    with contextlib.ExitStack() as stack:
        os.kill(worker, signal.SIGSTOP)
        busy = [stack.enter_context(server.raw()) for _ in range(limit)]
        for sock in busy:
            sock.sendall(head + body)
        wait_until(lambda: server.status()["gateway"]["queued"] >= limit - 1, "all of them at work")
        with server.raw() as sock:
            refused(receive(sock), 503, "overloaded")
            assert sock.recv(1) == b""
        os.kill(worker, signal.SIGCONT)
        for sock in busy:
            assert receive(sock).status == 200
        assert server.http("GET", "/v2", server.acme).status == 200
        n_ended = 0
        for sock in busy:
            sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                n_ended += sock.recv(1) == b""
        assert n_ended == 1


def test_admin_connections(serving):
    """The command line is served however many connect and say nothing."""
    server = serving()

    def idle():
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(CEILING_S)
            sock.connect(str(server.data / "admin.sock"))
            stack.pop_all()
            return sock
    idles = [idle() for _ in range(LIMIT["LIMIT_ADMIN_CONNECTIONS"])]
    try:
        assert idles[-1].fileno() >= 0
        wait_until(lambda: server.cli("status", check=False).returncode == 0, "a place")
        n_ended = 0
        for sock in idles:
            sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                n_ended += sock.recv(1) == b""
        assert 1 <= n_ended < len(idles), n_ended
    finally:
        for sock in idles:
            sock.close()


# --- time-outs ---


def test_head_timeout(serving):
    server = serving(timeouts={"head": "2s"})
    with server.raw() as slow, server.raw() as prompt:
        head = head_of(server, "GET", "/v2")
        for sock in (slow, prompt):
            sock.sendall(head[:-1])
        prompt.sendall(head[-1:])
        assert receive(prompt).status == 200
        refused(receive(slow), 408, "request_timeout", "head")
        assert slow.recv(1) == b""


def test_a_head_that_drips_is_cut_off_too(serving):
    server = serving(timeouts={"head": "2s", "idle": "1s"})
    with server.raw() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        sock.setblocking(False)
        while not select.select([sock], [], [], 0.1)[0]:  # one byte each tenth of a second
            sock.sendall(b"x")
        sock.settimeout(CEILING_S)
        refused(receive(sock), 408, "request_timeout", "head")


def test_idle_timeout(serving):
    server = serving(timeouts={"idle": "2s"})
    with server.raw() as never, server.raw() as once:
        once.sendall(head_of(server, "GET", "/v2"))
        assert receive(once).status == 200
        for sock in (never, once):
            assert sock.recv(1) == b""  # silently


def test_body_rate(serving):
    """1 KiB/s over 5 s: who stalls is cut off, who sends four times as much is served however long it takes."""
    server = serving()
    body = padded(256 * KIB)
    with server.raw() as stalled, server.raw() as slow:
        head = head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}")
        stalled.sendall(head + body[:100])
        slow.sendall(head)
        sent = 0
        while not select.select([stalled], [], [], 0.25)[0]:
            slow.sendall(body[sent:sent + KIB])
            sent += KIB
            assert sent < len(body)
        refused(receive(stalled), 408, "request_timeout", "body")
        slow.sendall(body[sent:])
        assert receive(slow).status == 200


def test_write_timeout(serving):
    """A client that takes nothing is cut off, one that takes a little from time to time gets all."""
    server = serving(timeouts={"write": "2s"}, shape=[-1, 1 << 20])
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [6, 1 << 20],
                                   "parameters": {"binary_data_size": 24 * MIB}}],
                       "parameters": {"binary_data_output": True}}).encode()
    headers = (f"Content-Length: {len(body) + 24 * MIB}", f"Inference-Header-Content-Length: {len(body)}")
    request = head_of(server, "POST", "/v2/models/echo/infer", *headers) + body + bytes(24 * MIB)
    socks = []
    try:
        for _ in range(2):
            sock = socket.socket()
            socks.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
            sock.settimeout(CEILING_S)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(request)
        deaf, slow = socks
        got = 0

        def cut_off():
            nonlocal got
            got += len(slow.recv(16 * KIB))
            select.select([], [], [], 0.1)
            return not held_by_server(server, deaf)
        wait_until(cut_off, "the deaf client to be cut off")
        while piece := slow.recv(MIB):
            got += len(piece)
            if got > 24 * MIB:
                break
        assert got > 24 * MIB
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            receive(deaf)
    finally:
        for sock in socks:
            sock.close()


# --- requests ---


def test_request_id_bytes(serving):
    server = serving()
    for size in around(LIMIT["LIMIT_REQUEST_ID_BYTES"]):
        answer = server.infer("echo", request_of()["inputs"], server.acme, id="i" * size)
        if size <= LIMIT["LIMIT_REQUEST_ID_BYTES"]:
            assert answer.json["id"] == "i" * size
        else:
            refused(answer, 400, "invalid_request", "\"id\"", f"{size} bytes", "at most 128")


def test_tensor_rank(serving):
    limit = LIMIT["LIMIT_TENSOR_RANK"]
    server = serving(engine={"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1] * limit}]})
    for rank in around(limit):
        answer = server.infer("echo", [{"name": "x", "datatype": "FP32", "shape": [1] * rank, "data": [1]}], server.acme)
        if rank == limit:
            assert answer.json["outputs"][0]["shape"] == [1] * limit
        elif rank < limit:
            refused(answer, 400, "invalid_tensor", "expects FP32 [-1,-1,-1,-1,-1,-1,-1,-1]")
        else:
            refused(answer, 400, "invalid_tensor", "9 dimensions", "at most 8")


def test_a_model_of_too_high_a_rank(server, folder):
    server.apply(tenant_yaml("acme"))
    for rank in around(LIMIT["LIMIT_TENSOR_RANK"]):
        (folder / "ranks.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1] * rank}]}))
        result = server.apply(model_yaml("ranks", "acme", "ranks.json"), check=False)
        assert result.returncode == (rank > LIMIT["LIMIT_TENSOR_RANK"]), result.stderr
        assert result.returncode == 0 or "expected at most 8 dimensions" in result.stderr


def test_tensors(serving):
    limit = LIMIT["LIMIT_TENSORS"]
    server = serving(engine={"inputs": [{"name": f"x{i}", "datatype": "FP32", "shape": [1]} for i in range(limit)]})
    for count in around(limit):
        inputs = [{"name": f"x{i}", "datatype": "FP32", "shape": [1], "data": [i]} for i in range(count)]
        answer = server.infer("echo", inputs, server.acme)
        if count == limit:
            assert [o["data"] for o in answer.json["outputs"]] == [[i] for i in range(limit)]
        elif count < limit:
            refused(answer, 400, "invalid_tensor", "\"x63\" is missing", "FP32 [1]")
        else:
            refused(answer, 400, "invalid_request", "\"inputs\" has 65 entries", "at most 64")
    inputs = [{"name": f"x{i}", "datatype": "FP32", "shape": [1], "data": [i]} for i in range(limit)]
    answer = server.infer("echo", inputs, server.acme, outputs=[{"name": f"x{i}"} for i in range(limit + 1)])
    refused(answer, 400, "invalid_request", "\"outputs\" has 65 entries", "at most 64")


def test_tensor_name_bytes(serving):
    limit = LIMIT["LIMIT_TENSOR_NAME_BYTES"]
    server = serving(engine={"inputs": [{"name": "n" * limit, "datatype": "FP32", "shape": [-1, 4]}]})
    for size in around(limit):
        answer = server.infer("echo", vector(1, [1, 2, 3, 4], name="n" * size), server.acme)
        if size == limit:
            assert answer.json["outputs"][0]["name"] == "n" * limit
        elif size < limit:
            refused(answer, 400, "invalid_tensor", "The model has no input")
        else:
            refused(answer, 400, "invalid_request", "1 to 255 bytes")


def test_json_depth_costs_nothing(serving):
    """What is deeper than a tensor's rank is refused or, in parameters that nobody knows, not looked at."""
    server = serving()
    for depth in (2, 3, 100_000):
        data = "[" * (depth - 1) + "[1,2,3,4]" + "]" * (depth - 1)
        answer = post(server, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":%s}]}' % data.encode())
        assert (answer.status == 200) == (depth == 2), answer.body
        text = json.dumps(request_of())[:-1] + ',"parameters":{"other":' + "[" * depth + "]" * depth + "}}"
        assert post(server, text.encode()).status == 200


def test_batch_rows(serving):
    server = serving(model={"batching": {"maxSize": 4}})
    for rows in around(4):
        answer = post(server, json.dumps(request_of(rows)).encode())
        if rows <= 4:
            assert answer.json["outputs"][0]["shape"] == [rows, 4]
        else:
            refused(answer, 400, "invalid_tensor", "5 rows", "at most 4")


# --- tenants ---


@pytest.mark.parametrize("burst", (1, 7))
def test_request_rate(serving, burst):
    """One a minute, so that none comes back within the test: exactly the burst passes."""
    server = serving(tenant={"quota": {"requestsPerMinute": 1, "burst": burst}})
    body = json.dumps(request_of()).encode()
    answers = [post(server, body) for _ in range(burst + 2)]
    assert [a.status for a in answers] == [200] * burst + [429] * 2
    refused(answers[-1], 429, "rate_limited", "1 requests per minute")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert server.http("GET", "/v2/models", server.acme).status == 200  # not metered


@contextlib.contextmanager
def worker_stopped(server):
    """The model's worker holds still meanwhile. It is loaded and has no estimate yet, so it is not overdue for 30 s."""
    assert server.http("GET", "/v2/models/echo", server.acme).status == 200
    with standing(server):
        yield


def test_queue_depth(serving):
    """One that runs, as many as may wait, and one more."""
    depth = 3
    server = serving(tenant={"quota": {"queueDepth": depth}}, model={"batching": {"maxSize": 1}})
    body = json.dumps(request_of()).encode()
    request = head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}") + body
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.raw()) for _ in range(depth + 2)]
        with worker_stopped(server):
            socks[0].sendall(request)
            wait_until(lambda: server.status()["device"]["used"] == 1, "the first to run")
            for sock in socks[1:]:
                sock.sendall(request)
            over, = select.select(socks, [], [], CEILING_S)[0]
            answer = receive(over)
            refused(answer, 429, "queue_full")
            assert int(answer.headers["Retry-After"]) >= 1
            assert select.select([s for s in socks if s != over], [], [], 0)[0] == []
        assert [receive(s).status for s in socks if s != over] == [200] * (depth + 1)


def test_deadline(serving):
    """The time a request may wait is its own `timeout`, in microseconds; at most LIMIT_QUEUE_WAIT_MS."""
    server = serving(model={"batching": {"maxSize": 1}})
    body = json.dumps(request_of()).encode()
    with server.raw() as first, server.raw() as patient:
        with worker_stopped(server):
            request = head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}") + body
            first.sendall(request)
            wait_until(lambda: server.status()["device"]["used"] == 1, "the first to run")
            body = json.dumps(request_of(parameters={"timeout": (1 << 63) - 1})).encode()
            patient.sendall(head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}") + body)
            answer = server.infer("echo", request_of()["inputs"], server.acme, parameters={"timeout": 1000})
            refused(answer, 503, "deadline_exceeded")
            assert int(answer.headers["Retry-After"]) >= 1
        assert receive(first).status == 200
        assert receive(patient).status == 200


# --- resources ---


def test_names(server):
    limit = LIMIT["LIMIT_NAME_BYTES"]
    for size in around(limit):
        result = server.apply(tenant_yaml("t" * size), check=False)
        if size <= limit:
            assert result.returncode == 0
        else:
            assert result.returncode == 1
            assert "metadata.name" in result.stderr and "1 to 63" in result.stderr
        made = server.cli("key", "create", "--tenant", "t" * min(size, limit - 1), "--name", "k" * size, check=False)
        assert (made.returncode == 0) == (size <= limit), made.stderr
    assert set(re.findall(r"\bt{60,}\b", server.cli("get", "tenant").stdout)) == {"t" * (limit - 1), "t" * limit}


def test_apply_resources(server):
    limit = LIMIT["LIMIT_APPLY_RESOURCES"]
    for count in around(limit):
        documents = [json.loads(tenant_yaml(f"t{i}")[:-5]) for i in range(count)]
        answer = admin(server, "POST", "/v1alpha1/apply", json.dumps({"resources": documents}).encode())
        if count <= limit:
            assert answer.status == 200 and len(answer.json["resources"]) == count
        else:
            refused(answer, 400, "invalid_request", "1 to 1024 resources", "1025")
    assert "t1024" not in server.cli("get", "tenant").stdout
    result = server.apply("".join(tenant_yaml(f"t{i}") for i in range(limit + 1)), check=False)
    assert result.returncode == 1 and "1024" in result.stderr
    refused(admin(server, "POST", "/v1alpha1/apply", b'{"resources": []}'), 400, "invalid_request", "1 to 1024")


def test_admin_body_bytes(server):
    limit = LIMIT["LIMIT_ADMIN_BODY_BYTES"]
    for size in around(limit):
        text = json.dumps({"resources": [json.loads(tenant_yaml("acme")[:-5])]})
        answer = admin(server, "POST", "/v1alpha1/apply", (text + " " * (size - len(text))).encode())
        if size <= limit:
            assert answer.status == 200, answer.body
        else:
            refused(answer, 413, "body_too_large")


def test_key_body_bytes(server):
    server.apply(tenant_yaml("acme"))
    for size in around(4 * KIB):
        text = json.dumps({"tenant": "acme"})
        answer = admin(server, "POST", "/v1alpha1/keys", (text + " " * (size - len(text))).encode())
        assert answer.status == (200 if size <= 4 * KIB else 413), answer.body


def test_server_file_bytes(make_server, folder):
    for size in around(64 * KIB):
        text = config()
        server = make_server(config=text + " " * (size - len(text)), start=False)
        if size <= 64 * KIB:
            assert server.start().http("GET", "/v2/health/live").status == 200
            continue
        server.start(wait=False)
        ends_with_a_message(server, "larger than 65536 bytes")


def test_replicas_per_model(serving, folder):
    server = serving()
    limit = LIMIT["LIMIT_REPLICAS_PER_MODEL"]
    for count in around(limit):
        result = server.apply(model_yaml("echo", "acme", "echo.json", replicas={"max": count}), check=False)
        if count <= limit:
            assert result.returncode == 0, result.stderr
        else:
            assert result.returncode == 1
            assert "spec.replicas.max" in result.stderr and "between 1 and 64, found 65" in result.stderr


def test_replicas_run_up_to_their_maximum(serving):
    server = serving(model={"replicas": {"max": 2}, "batching": {"maxSize": 1}}, engine=dict(IDENTITY, busy="20ms"))
    stop = threading.Event()

    def load():
        while not stop.is_set():
            server.infer("echo", request_of()["inputs"], server.acme)
    threads = [threading.Thread(target=load) for _ in range(8)]
    for t in threads:
        t.start()
    try:
        wait_until(lambda: len(server.workers()) == 2, "a second replica")
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert len(server.workers()) == 2


def test_versions_served(serving):
    server = serving()
    limit = LIMIT["LIMIT_VERSIONS_SERVED"]
    for number in range(2, limit + 2):
        server.apply(model_yaml("echo", "acme", "echo.json", resources={"memory": f"{255 + number}Mi"}))
        ready = [server.http("GET", f"/v2/models/echo/versions/{v}/ready", server.acme).status
                 for v in range(1, number + 2)]
        gone = max(0, number - limit)
        assert ready == [404] * gone + [200] * (number - gone) + [404]


def test_labels(server):
    for count in around(16):
        document = json.loads(tenant_yaml("acme")[:-5])
        document["metadata"]["labels"] = {f"l{i}": "v" for i in range(count)}
        result = server.apply(json.dumps(document), check=False)
        if count <= 16:
            assert result.returncode == 0, result.stderr
        else:
            assert result.returncode == 1 and "metadata.labels" in result.stderr and "at most 16" in result.stderr


def test_yaml_depth(server):
    for depth in (64, 65, 100_000):
        result = server.cli("apply", "-f", "-", stdin="a: " + "[" * (depth - 1) + "]" * (depth - 1), check=False)
        assert result.returncode == 1
        assert ("64" in result.stderr) == (depth > 64), result.stderr


NUMBERS = [  # kind, field, smallest, largest
    ("Tenant", "weight", 1, 1000),
    ("Tenant", "quota.requestsPerMinute", 0, 1_000_000_000),
    ("Tenant", "quota.burst", 0, 1_000_000_000),
    ("Tenant", "quota.queueDepth", 1, 65536),
    ("Model", "batching.maxSize", 1, LIMIT["LIMIT_BATCH_ITEMS"]),
    ("Model", "replicas.max", 1, LIMIT["LIMIT_REPLICAS_PER_MODEL"]),
]


def test_ranges_of_fields(serving):
    server = serving()
    for kind, field, least, most in NUMBERS:
        for value in (least - 1, least, most - 1, most, most + 1):
            spec = {}
            where = spec
            for part in field.split(".")[:-1]:
                where = where.setdefault(part, {})
            where[field.split(".")[-1]] = value
            result = server.apply(tenant_yaml("acme", **spec) if kind == "Tenant" else
                                  model_yaml("echo", "acme", "echo.json", **spec), check=False)
            if least <= value <= most:
                assert result.returncode == 0, result.stderr
            else:
                assert result.returncode == 1 and f"spec.{field}" in result.stderr, result.stderr


SERVER_NUMBERS = [
    ("limits.connections", "0", "100001"), ("limits.bodyBytes", "1023", "536870913"),
    ("timeouts.head", "9ms", "3600001ms"), ("timeouts.idle", "9ms", "3600001ms"),
    ("timeouts.write", "9ms", "3600001ms"), ("drainTimeout", None, "3600001ms"),
]


@pytest.mark.parametrize("field,below,above", SERVER_NUMBERS)
def test_ranges_of_the_servers_own_fields(make_server, field, below, above):
    for value in (below, above):
        if value is None:
            continue
        spec = {}
        where = spec
        for part in field.split(".")[:-1]:
            where = where.setdefault(part, {})
        where[field.split(".")[-1]] = int(value) if value.isdigit() else value
        server = make_server(config=config(**spec), start=False)
        server.start(wait=False)
        ends_with_a_message(server, f"spec.{field}", "must be between")


# --- the roles ---


def test_catalog_acknowledgement(server):
    """While the gateway does not take a change up, the command says so after two seconds and the change stands."""
    gateway = server.pid("gateway")
    os.kill(gateway, signal.SIGSTOP)
    try:
        result = server.apply(tenant_yaml("acme"))
        assert "pending" in result.stderr
    finally:
        os.kill(gateway, signal.SIGCONT)
    key = server.key("acme")
    wait_until(lambda: server.http("GET", "/v2", key).status == 200, "the change")


def test_drain_timeout(serving):
    """A request that runs for longer is ended with the server, which says so and still ends with 0."""
    server = serving(drainTimeout="200ms", engine=dict(IDENTITY, busy="10s"))
    with server.raw() as sock:
        body = json.dumps(request_of()).encode()
        sock.sendall(head_of(server, "POST", "/v2/models/echo/infer", f"Content-Length: {len(body)}") + body)
        wait_until(lambda: server.status()["device"]["used"] == 1, "the request to run")
        assert server.stop() == 0
        assert any(line["event"] == "drain_timeout" for line in server.log)
        with contextlib.suppress(ConnectionResetError, http.client.HTTPException):  # if the gateway ended first
            refused(receive(sock), 503, "worker_lost")
