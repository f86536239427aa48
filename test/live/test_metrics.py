"""GET /metrics: the text format, what is counted, and its bounds."""
import json
import math
import os
import re
import signal
import socket

import pytest

from conftest import IDENTITY, ROOT, Answer, model_yaml, tenant_yaml, vector, wait_until

METRICS_MD = (ROOT / "docs/metrics.md").read_text()
PAIRS = int(re.search(r"LIMIT_METRICS_ROWS (\d+)u", (ROOT / "src/base/limits.h").read_text())[1])

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf'({NAME})(?:\{{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\}})? (\S+)\Z')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')


class Metrics:
    """A strict reader of Prometheus' text format 0.0.4, for what one exposition may look like."""

    def __init__(self, text):
        self.help, self.types, self.samples, self.labels = {}, {}, {}, {}
        assert text.endswith("\n") and "\r" not in text
        family = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                family, self.help[family] = self._new(line[7:], self.help)
            elif line.startswith("# TYPE "):
                name, self.types[name] = self._new(line[7:], self.types)
                assert name == family and self.types[name] in ("counter", "gauge", "histogram")
            else:
                self._sample(line, family)
        assert set(self.help) == set(self.types)
        self._histograms()

    @staticmethod
    def _new(rest, table):
        name, _, value = rest.partition(" ")
        assert re.fullmatch(NAME, name) and value and name not in table
        return name, value

    def _sample(self, line, family):
        match = SAMPLE.match(line)
        assert match, line
        name, inner, value = match.groups()
        labels = dict(LABEL.findall(inner or ""))
        assert ",".join(f'{k}="{v}"' for k, v in labels.items()) == (inner or ""), line  # none twice
        base = re.sub(r"_(bucket|sum|count)\Z", "", name) if self.types[family] == "histogram" else name
        assert base == family, f"{line}: outside its family"
        assert (name, frozenset(labels.items())) not in self.samples, f"{line}: twice"
        number = float(value.replace("+Inf", "inf"))
        assert number >= 0 and math.isfinite(number)
        self.samples[name, frozenset(labels.items())] = number
        self.labels.setdefault(family, set()).update(set(labels) - {"le"})

    def _histograms(self):
        for (name, labels), count in list(self.samples.items()):
            if not name.endswith("_count") or self.types.get(name[:-6]) != "histogram":
                continue
            buckets = sorted((float(dict(key)["le"].replace("+Inf", "inf")), n) for (other, key), n in
                             self.samples.items() if other == name[:-6] + "_bucket" and labels <= key)
            assert buckets[-1] == (math.inf, count)
            assert all(a[1] <= b[1] and a[0] < b[0] for a, b in zip(buckets, buckets[1:]))
            assert (name[:-6] + "_sum", labels) in self.samples

    def get(self, name, **labels):
        return self.samples.get((name, frozenset(labels.items())), 0)

    def pairs(self, name):
        return {(dict(l)["tenant"], dict(l)["model"]) for n, l in self.samples if n == name}


def admin_http(server, method="GET", path="/metrics"):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(15)
        s.connect(str(server.data / "admin.sock"))
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while chunk := s.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return Answer(int(lines[0].split()[1]), dict(l.split(": ", 1) for l in lines[1:]), body)


def metrics(server):
    answer = admin_http(server)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(answer.body.decode("ascii"))


ECHO = {"tenant": "acme", "model": "echo"}


def test_the_documentation_lists_every_family(identity):
    """With figures in each, so that every label shows."""
    identity.apply(tenant_yaml("acme", quota={"requestsPerMinute": 1, "burst": 1}))
    identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 429
    m = metrics(identity)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in METRICS_MD.splitlines()
            if line.startswith("| `bulkhead_")]
    assert [(name.strip("`"), kind, text) for name, kind, _, text in rows] == [
        (name, m.types[name], m.help[name]) for name in m.help]
    for name, _, labels, _ in rows:
        assert m.labels[name.strip("`")] == set(labels.split(", ") if labels else []), name


def test_the_counts_are_what_was_sent(identity, folder):
    key = identity.acme
    for _ in range(5):
        assert identity.infer("echo", vector(2, list(range(8))), key).status == 200
    assert identity.infer("echo", vector(1, [1, 2, 3]), key).status == 400
    assert identity.infer("none", vector(1, [1, 2, 3, 4]), key).status == 404
    assert identity.http("GET", "/v2/models/echo", key).status == 200
    assert identity.http("GET", "/v2/models/echo", "wrong").status == 401
    m = metrics(identity)
    assert m.get("bulkhead_requests_total", **ECHO, code="200") == 6
    assert m.get("bulkhead_requests_total", **ECHO, code="400") == 1
    assert m.get("bulkhead_requests_total", tenant="acme", model="", code="404") == 1
    assert m.get("bulkhead_requests_total", tenant="", model="", code="401") == 1
    assert sum(n for (name, _), n in m.samples.items() if name == "bulkhead_requests_total") == 9
    assert m.get("bulkhead_request_duration_seconds_count", **ECHO) == 5  # the one of 400 was never queued
    assert m.get("bulkhead_queue_wait_seconds_count", **ECHO) == 5
    assert m.get("bulkhead_batch_size_count", **ECHO) == 5
    assert m.get("bulkhead_batch_size_sum", **ECHO) == 10
    assert m.get("bulkhead_batch_size_bucket", **ECHO, le="1") == 0
    assert m.get("bulkhead_batch_size_bucket", **ECHO, le="2") == 5
    assert 0 < m.get("bulkhead_lease_seconds_total", **ECHO) <= m.get("bulkhead_request_duration_seconds_sum", **ECHO)
    assert m.get("bulkhead_device_slots") == identity.status()["device"]["slots"]
    assert m.get("bulkhead_worker_restarts_total", **ECHO) == 0
    wait_until(lambda: metrics(identity).get("bulkhead_catalog_generation") ==
               identity.status()["generation"]["taken"], "the generation")


def test_durations_fall_into_their_buckets(server, folder):
    (folder / "slow.json").write_text(json.dumps(dict(IDENTITY, busy="150ms")))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "slow.json"))
    key = server.key("acme")
    for _ in range(3):
        assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    m = metrics(server)
    assert m.get("bulkhead_request_duration_seconds_bucket", **ECHO, le="0.134217728") == 0
    assert m.get("bulkhead_request_duration_seconds_count", **ECHO) == 3
    assert m.get("bulkhead_request_duration_seconds_sum", **ECHO) >= 0.45
    assert m.get("bulkhead_lease_seconds_total", **ECHO) >= 0.45


def test_refusals_of_quotas_and_restarts_are_counted(identity):
    key = identity.acme
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    os.kill(identity.workers()[0], signal.SIGKILL)
    wait_until(lambda: metrics(identity).get("bulkhead_worker_restarts_total", **ECHO) == 1, "the worker's end")
    identity.apply(tenant_yaml("acme", quota={"requestsPerMinute": 1, "burst": 2}))
    statuses = [identity.infer("echo", vector(1, [1, 2, 3, 4]), key).status for _ in range(6)]
    assert statuses.count(429) >= 3
    m = metrics(identity)
    refused = m.get("bulkhead_quota_refusals_total", tenant="acme", model="", reason="rate")
    assert refused == statuses.count(429) == m.get("bulkhead_requests_total", tenant="acme", model="", code="429")
    # a full queue: nothing can start while the supervisor stands still
    identity.apply(tenant_yaml("calm", quota={"queueDepth": 1}) + model_yaml("echo", "calm", "echo.json"))
    calm = identity.key("calm")
    identity.process.send_signal(signal.SIGSTOP)
    try:
        waits = identity.connect()
        waits.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                      {"Authorization": "Bearer " + calm})
        wait_until(lambda: identity.infer("echo", vector(1, [1, 2, 3, 4]), calm,
                                          parameters={"timeout": 1000}).status == 429, "a full queue")
        assert metrics(identity).get("bulkhead_quota_refusals_total", tenant="calm", model="echo", reason="queue") == 1
    finally:
        identity.process.send_signal(signal.SIGCONT)
    assert waits.getresponse().status == 200
    waits.close()


def test_pairs_beyond_the_bound_count_as_other(server, folder):
    """Also where a tenant and its model are really called `other`."""
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    tenants = [f"t{i}" for i in range(3)] + ["other"]
    models = ["other"] + [f"m{i}" for i in range(PAIRS // 3 + 2)]
    server.apply("".join(tenant_yaml(t) + "".join(model_yaml(m, t, "echo.json") for m in models) for t in tenants))
    asked = 0
    for t in reversed(tenants):
        key = server.key(t)
        connection = server.connect()
        for m in models:  # unknown names would not be pairs; a refused body starts no worker
            answer = server.http("POST", f"/v2/models/{m}/infer", key, b"{", connection=connection)
            assert answer.status == 400
            answer = server.http("GET", f"/v2/models/{m}/none", key, connection=connection)
            assert answer.status == 404
            asked += 2
        connection.close()
    m = metrics(server)
    assert m.pairs("bulkhead_lease_seconds_total") <= {(t, n) for t in tenants + [""] for n in models + [""]}
    assert len(m.pairs("bulkhead_lease_seconds_total")) == PAIRS + 1
    assert m.get("bulkhead_requests_total", tenant="other", model="other", code="400") > 1
    assert sum(n for (name, _), n in m.samples.items() if name == "bulkhead_requests_total") == asked


def test_counters_start_anew_with_a_new_gateway_and_outlive_control(identity):
    key = identity.acme
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    control = identity.pid("control")
    os.kill(control, signal.SIGKILL)
    wait_until(lambda: identity.pid("control") not in (None, control), "a new control")
    wait_until(lambda: identity.cli("status", check=False).returncode == 0, "the admin socket")
    wait_until(lambda: metrics(identity).get("bulkhead_requests_total", **ECHO, code="200") == 1, "the same figures")
    os.kill(identity.pid("gateway"), signal.SIGKILL)
    identity.wait_log("serving", count=3)
    wait_until(lambda: metrics(identity).get("bulkhead_requests_total", **ECHO, code="200") == 0, "a fresh page")
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    assert metrics(identity).get("bulkhead_requests_total", **ECHO, code="200") == 1


def server_yaml(listen):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "test"},
                       "spec": {"metrics": {"listen": listen}}})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_an_address_of_its_own(make_server, address):
    server = make_server(config=server_yaml(address))
    port = int(server.wait_log("metrics")["message"].rsplit(":", 1)[1])
    host = address.rsplit(":", 1)[0].strip("[]")

    def ask(request):
        with socket.create_connection((host, port), timeout=15) as s:
            s.sendall(request + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            data = b""
            while chunk := s.recv(65536):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body.decode()

    status, head, body = ask(b"GET /metrics")
    assert status == 200 and "Content-Type: text/plain; version=0.0.4" in head
    assert Metrics(body).get("bulkhead_build_info", version=server.status()["version"]) == 1
    assert ask(b"HEAD /metrics")[0] == 200 and ask(b"HEAD /metrics")[2] == ""
    assert ask(b"GET /v1alpha1/status")[0] == 404  # nothing of the admin socket
    assert ask(b"DELETE /metrics")[0] == 405
    with socket.create_connection((host, port), timeout=15) as s:  # a body, which nobody takes
        s.sendall(b"POST /v1alpha1/apply HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        assert s.recv(4096).startswith(b"HTTP/1.1 404 ")
    control = server.pid("control")
    os.kill(control, signal.SIGKILL)
    server.wait_log("serving", count=2)
    assert ask(b"GET /metrics")[0] == 200
    # bound already: a second server is told so
    other = make_server(config=server_yaml(f"{address.rsplit(':', 1)[0]}:{port}"), start=False)
    other.start(wait=False)
    assert other.process.wait(60) == 1
    other.reader.join()
    assert any("spec.metrics.listen" in l["message"] for l in other.log)
    other.process, other.alerts_expected = None, True  # the reason is plain text


def test_the_admin_socket_takes_get_only(identity):
    assert admin_http(identity, "POST").status == 405
    assert admin_http(identity, path="/metrics/x").status == 404
