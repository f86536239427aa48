"""Nobody keeps others from connecting: not with a key, and not without one."""
import contextlib
import json
import resource
import socket

import pytest

from conftest import IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from test_metrics import metrics

CONNECTIONS = 4096  # LIMIT_CONNECTIONS


@pytest.fixture
def server(make_server, folder):
    s = make_server()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    s.apply(tenant_yaml("hostile") + tenant_yaml("polite") + model_yaml("echo", "polite", "echo.json"))
    s.hostile, s.polite = s.key("hostile"), s.key("polite")
    wait_until(lambda: s.infer("echo", vector(1, [1.0, 2.0, 3.0, 4.0]), s.polite).status == 200, "the polite tenant's model")
    return s


@pytest.fixture(autouse=True)
def descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 16384), max(before[1], 16384)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ended(sock):
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                if sock.recv(65536) == b"":
                    return True
            except ConnectionError:
                return True
    return False


def polite_is_served(server, kept):
    """On the connection that it keeps, and on new ones."""
    assert server.infer("echo", vector(1, [1.0, 2.0, 3.0, 4.0]), server.polite, connection=kept).status == 200
    for _ in range(20):
        assert server.infer("echo", vector(1, [1.0, 2.0, 3.0, 4.0]), server.polite).status == 200


@pytest.mark.parametrize("what", ["idle", "silent", "head", "body"])
def test_a_hostile_crowd_shuts_nobody_out(server, what):
    """As many connections as there may be: kept alive with a key, without a word, with an unfinished head, or with a body that
    does not end; and once more as many."""
    auth = f"Host: x\r\nAuthorization: Bearer {server.hostile}\r\n"
    text = {"idle": f"GET /v2 HTTP/1.1\r\n{auth}\r\n", "silent": "", "head": "GET /v2 HTT",
            "body": f"POST /v2/models/none/infer HTTP/1.1\r\n{auth}Content-Length: 1000000\r\n\r\nx"}[what].encode()
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(contextlib.closing(server.connect()))
        polite_is_served(server, kept)
        for _ in range(2):
            crowd = []
            for _ in range(CONNECTIONS):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                with contextlib.suppress(ConnectionError):
                    sock.sendall(text)
                crowd.append(sock)
            polite_is_served(server, kept)
        wait_until(lambda: server.status()["gateway"]["connections"] >= CONNECTIONS - 70, "a crowd that stands")
        assert server.status()["gateway"]["connections"] <= CONNECTIONS
        polite_is_served(server, kept)
        assert sum(ended(sock) for sock in crowd) >= 1


def test_a_tenants_own_quota(server):
    """Beyond it its own idle one is closed; where all are busy the new one is refused."""
    server.apply(tenant_yaml("hostile", quota={"connections": 3, "concurrency": 100}))
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(5):
            idle.append(stack.enter_context(contextlib.closing(server.connect())))
            assert server.http("GET", "/v2", server.hostile, connection=idle[-1]).status == 200
        assert [ended(c.sock) for c in idle] == [True, True, False, False, False]
        head = f"POST /v2/models/none/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.hostile}\r\n"
        for c in idle[2:]:
            c.sock.sendall(f"{head}Content-Length: 1000000\r\n\r\nx".encode())
        wait_until(lambda: json.loads(server.cli("get", "tenant", "hostile", "-o", "json").stdout)
                   ["status"]["quota"]["concurrency"]["used"] == 3, "the server to have their heads")
        late = stack.enter_context(contextlib.closing(server.connect()))
        answer = server.http("GET", "/v2", server.hostile, connection=late)
        assert (answer.status, answer.code) == (429, "quota_exceeded"), answer.body
        assert "spec.quota.connections" in answer.json["error"] and int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Connection"] == "close"
        assert metrics(server).get("bulkhead_quota_refusals_total", tenant="hostile", model="", reason="connections") == 1
        assert server.http("GET", "/v2", server.polite).status == 200
        idle[3].close()
        wait_until(lambda: server.http("GET", "/v2", server.hostile).status == 200, "a place")
