"""The n-th allocation and the n-th store call of each role fails, in each scenario: no crash, no hang, nothing lost.

For every scenario and role: n = 1, 2, … until a run ends without the fault being reached. A request that meets the fault is
answered with a 5xx or 429 of ours, or its role dies and is replaced; then, without any help, both tenants are served
again, what was acknowledged is there, and no descriptor or process is left over.

`make test` takes a few n of every scenario and role, spread over all of them; `make soak` (BULKHEAD_SOAK) takes all.
BULKHEAD_FAULTS_N=n runs that n only and prints the stack where it hit.
"""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import threading
import time

import pytest

from conftest import CEILING_S, IDENTITY, ROOT, Answer, left_behind, model_yaml, processes, tenant_yaml, vector, wait_until
from faults import Faults, built_in

SOAK = bool(os.environ.get("BULKHEAD_SOAK"))
ONLY = int(os.environ.get("BULKHEAD_FAULTS_N", "0"))
SAMPLES = 3  # of n for each scenario and role in `make test`
N_MAX = 20000  # more calls than any scenario makes: a loop that feeds itself must end
WHERE = [("control", "store")] + [(role, "memory") for role in ("supervisor", "control", "gateway", "worker")]
REPORT = re.compile(r"AddressSanitizer|runtime error|LeakSanitizer|Assertion|UndefinedBehavior|#\d+ 0x")

pytestmark = pytest.mark.skipif(not built_in(), reason="this build cannot fail calls on purpose (gcc's sanitizers only)")


def config(idle):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "test"},
                       "spec": {"log": {"level": "debug"}, "timeouts": {"idle": idle}}})


def in_library(reports):
    """Is every report about a null pointer that a library did not check, having got it from malloc? libcrypto's start has
    such places. The first frame outside of libc is then the library's, not ours."""
    starts = [i for i, text in enumerate(reports) if "ERROR: AddressSanitizer" in text]
    for i in starts:
        null = re.search(r"SEGV on unknown address 0x0{9}[0-9a-f]{3} ", reports[i])
        frames = [text for text in reports[i:i + 20] if re.search(r"#\d+ 0x", text) and "/libc.so" not in text]
        if not null or not frames or not re.search(r"\(/(usr/)?lib/.*/lib(crypto|sqlite3|uv|yyjson)\.so", frames[0]):
            return False
    return bool(starts) and not any("runtime error" in text or "Assertion" in text for text in reports)


class World:
    """A server with two tenants, their keys, and a page of faults."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.before = processes()
        self.faults = Faults(folder)
        server.environment = self.faults.environment
        server.alerts_expected = True  # judged here
        self.number = 0
        self.deaths = self.restarts = 0
        (folder / "echo.json").write_text(json.dumps(IDENTITY))
        server.start()
        server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json") +
                     tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json"))
        self.acme, self.calm = server.key("acme"), server.key("calm")
        self.digest = self.upload(json.dumps(IDENTITY).encode()).json["digest"]
        self.serves()

    # --- requests; None: the connection broke, which only a death may cause ---

    def _guarded(self, ask):
        try:
            answer = ask()
        except TimeoutError as error:
            raise AssertionError("no answer: it hangs") from error
        except (OSError, http.client.HTTPException):
            return None
        if answer.status >= 400:
            assert answer.status >= 500 or answer.status == 429, (answer.status, answer.body)
            assert answer.json["error"] and answer.json["code"], answer.body
        return answer

    def http(self, method, path, key=None, body=None, headers=None):
        return self._guarded(lambda: self.server.http(method, path, key or self.acme, body, headers))

    def infer(self, model="echo", key=None):
        answer = self.http("POST", f"/v2/models/{model}/infer", key, {"inputs": vector(1, [1, 2, 3, 4])})
        if answer and answer.status == 200:
            assert answer.json["outputs"][0]["data"] == [1, 2, 3, 4]
        return answer

    def admin(self, method, path, body=None):
        return self._guarded(lambda: self._admin(method, path, body))

    def _admin(self, method, path, body):
        class Connection(http.client.HTTPConnection):
            def connect(connection):
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(CEILING_S)
                connection.sock.connect(str(self.server.data / "admin.sock"))

        connection = Connection("localhost")
        try:
            connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def upload(self, data):
        return self.admin("POST", "/v1alpha1/artifacts", data)

    def apply(self, *documents):
        sources = {d["spec"]["source"]: self.digest for d in documents if d["kind"] == "Model"}
        return self.admin("POST", "/v1alpha1/apply", {"resources": list(documents), "artifacts": sources})

    def fresh(self, prefix):
        self.number += 1
        return f"{prefix}{self.number}"

    # --- afterwards ---

    def serves(self):
        """Without help from outside, unless all of it has ended."""
        self.faults.disarm()
        if self.server.process.poll() is not None:
            self.ended()
            self.server.start()
            self.restarts += 1
        for key in (self.acme, self.calm):
            wait_until(lambda: getattr(self.infer(key=key), "status", 0) == 200, "service after a fault")
        wait_until(lambda: getattr(self.admin("GET", "/v1alpha1/status"), "status", 0) == 200, "the admin socket")

    def ended(self):
        """The supervisor is gone: so is all else, and it said why."""
        self.server.reader.join(CEILING_S)
        assert not self.server.reader.is_alive()
        wait_until(lambda: left_behind([], self.before)[0] == {}, "the others to end with the supervisor")
        assert self.server.process.returncode in (0, 1), (self.server.process.returncode, self.server.log[-5:])

    def judged(self):
        """No report of a sanitizer, no signal but what a library does to itself."""
        lines = list(self.server.log)
        reports = [l["message"] for l in lines if l["event"] == "not_json" and REPORT.search(l["message"])]
        assert not reports or ONLY or in_library(reports), reports[:30]
        deaths = [l["message"] for l in lines if l["event"] == "role_ended"]
        return len(deaths)

    def restart(self):
        """Roles that died often are started again ever later; a new server does not wait."""
        assert self.server.stop() == 0
        self.server.start()
        self.serves()


# --- scenarios: prepare, yield, what meets the fault, yield, what must hold afterwards ---

def start(w):
    assert w.server.stop() == 0
    yield
    w.server.start(wait=False)

    def up():
        return w.server.process.poll() is not None or any(l["event"] == "serving" for l in list(w.server.log))

    wait_until(up, "a start or its failure")
    if w.server.process.poll() is None:
        w.infer()
    yield


def infer_json(w):
    yield
    w.infer()
    yield


def infer_binary(w):
    data = struct.pack("<4f", 1, 2, 3, 4)
    head = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters":
                                   {"binary_data_size": 16}}], "parameters": {"binary_data_output": True}}).encode()
    yield
    answer = w.http("POST", "/v2/models/echo/infer", None, head + data, {"Inference-Header-Content-Length": str(len(head))})
    if answer and answer.status == 200:
        assert answer.body.endswith(data)
    yield


def infer_large(w):
    """More than one read, an answer larger than the socket takes at once."""
    rows = 8
    model = w.fresh("wide")
    source = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16384]}]})
    w.digest, kept = w.upload(source.encode()).json["digest"], w.digest
    assert w.apply(json.loads(model_yaml(model, "acme", model).split("\n")[0])).status == 200
    w.digest = kept
    body = json.dumps({"inputs": vector(rows, [i % 7 for i in range(rows * 16384)])})
    wait_until(lambda: getattr(w.http("POST", f"/v2/models/{model}/infer", None, body), "status", 0) == 200, model)
    yield
    answer = w.http("POST", f"/v2/models/{model}/infer", None, body)
    if answer and answer.status == 200:
        assert answer.json["outputs"][0]["data"][:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    yield
    deleted(w, model)


def new_connection_of_another_key(w):
    yield
    w.infer(key=w.calm)
    yield


def about_the_models(w):
    yield
    for path in ("/v2", "/v2/models", "/v2/models/echo", "/v2/models/echo/config", "/v2/models/stats"):
        w.http("GET", path)
    w.http("POST", "/v2/repository/index", None, b"")
    yield


def batch(w):
    yield
    problems = []

    def client():
        try:
            for _ in range(3):
                w.infer()
        except AssertionError as error:
            problems.append(error)

    threads = [threading.Thread(target=client) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems, problems
    yield


def deleted(w, name):
    wait_until(lambda: w._admin("DELETE", f"/v1alpha1/models/{name}?tenant=acme", None).status in (200, 202, 404), name)


def model_of(w, name, **spec):
    return json.loads(model_yaml(name, "acme", name, **spec).split("\n")[0])


def exists(w, plural, name):
    answer = w._admin("GET", f"/v1alpha1/{plural}/{name}?tenant=acme", None)
    assert answer.status in (200, 404), answer.body
    return answer.status == 200 and len(answer.json["items"]) == 1


def cold_start(w):
    name = w.fresh("cold")
    assert w.apply(model_of(w, name)).status == 200
    yield
    w.infer(name)
    yield
    wait_until(lambda: getattr(w.infer(name), "status", 0) == 200, "the model after a failed start")
    deleted(w, name)


def scale_to_zero(w):
    name = w.fresh("nap")
    assert w.apply(model_of(w, name, replicas={"min": 0, "max": 1, "idleAfter": "30ms"})).status == 200
    yield
    w.infer(name)

    def gone():
        answer = w.admin("GET", "/v1alpha1/replicas?tenant=acme")
        return answer is None or answer.status != 200 or \
            not [r for r in answer.json["items"] if r["metadata"].get("model", r["metadata"]["name"]).startswith(name)]

    wait_until(gone, "the idle replica to end")
    w.infer(name)
    yield
    wait_until(lambda: getattr(w.infer(name), "status", 0) == 200, "the model after its nap")
    deleted(w, name)


def apply_new(w):
    name = w.fresh("new")
    documents = [json.loads(tenant_yaml(name).split("\n")[0]), model_of(w, name), model_of(w, name + "b")]
    yield
    answer = w.apply(*documents)
    yield
    there = [exists(w, "models", name), exists(w, "models", name + "b")]
    assert there[0] == there[1], "half of a change"
    if answer and answer.status in (200, 202):
        assert there[0], "lost"
        if answer.status == 202:  # stored, but no catalog could be made of it yet: that is tried again
            wait_until(lambda: w.server.infer(name, vector(1, [1, 2, 3, 4]), w.acme).status != 404, "the catalog")
        wait_until(lambda: getattr(w.infer(name), "status", 0) == 200, "the new model")
    for model in (name, name + "b"):
        deleted(w, model)
    wait_until(lambda: w._admin("DELETE", f"/v1alpha1/tenants/{name}", None).status in (200, 202, 404), name)


def apply_change(w):
    kept, w.digest = w.digest, w.upload(json.dumps(dict(IDENTITY, busy=f"{w.number + 1}us")).encode()).json["digest"]
    w.number += 1
    yield
    answer = w.apply(model_of(w, "echo"))
    yield
    w.digest = kept
    version = max(v["spec"]["number"] if "spec" in v and "number" in v["spec"] else 0
                  for v in w._admin("GET", "/v1alpha1/versions?tenant=acme", None).json["items"])
    if answer and answer.status in (200, 202):
        assert answer.json["resources"][0]["version"] >= version
        wait_until(lambda: w.infer().json.get("model_version") == str(answer.json["resources"][0]["version"]),
                   "the new version")


def key_create(w):
    yield
    answer = w.admin("POST", "/v1alpha1/keys", {"tenant": "acme", "name": "more"})
    yield
    if answer and answer.status in (200, 202):
        key = answer.json["key"]
        wait_until(lambda: w.server.http("GET", "/v2", key).status == 200, "the new key")
        w._admin("DELETE", "/v1alpha1/keys/" + answer.json["id"], None)


def key_revoke(w):
    made = w.admin("POST", "/v1alpha1/keys", {"tenant": "acme", "name": "brief"}).json
    yield
    answer = w.admin("DELETE", "/v1alpha1/keys/" + made["id"])
    yield
    if answer and answer.status in (200, 202):
        wait_until(lambda: w.server.http("GET", "/v2", made["key"]).status == 401, "the end of a revoked key")
    else:
        w._admin("DELETE", "/v1alpha1/keys/" + made["id"], None)


def upload(w):
    data = json.dumps(dict(IDENTITY, busy="3us")).encode() + b" " * 300000
    yield
    answer = w.upload(data)
    yield
    assert answer is None or answer.status != 200 or answer.json["bytes"] == len(data)
    assert w.upload(data).json["bytes"] == len(data)


def delete(w):
    name = w.fresh("gone")
    assert w.apply(model_of(w, name)).status == 200
    yield
    answer = w.admin("DELETE", f"/v1alpha1/models/{name}?tenant=acme")
    yield
    if answer and answer.status in (200, 202):
        assert not exists(w, "models", name)
        wait_until(lambda: w.server.infer(name, vector(1, [1, 2, 3, 4]), w.acme).status == 404, "the end of a model")
    else:
        deleted(w, name)


def admin_reads(w):
    yield
    for path in ("/metrics", "/v1alpha1/status", "/v1alpha1/models", "/v1alpha1/keys", "/v1alpha1/replicas"):
        w.admin("GET", path)
    yield


def admin_infer(w):
    yield
    answer = w.admin("POST", "/v1alpha1/infer?tenant=acme&model=echo", {"inputs": vector(1, [1, 2, 3, 4])})
    if answer and answer.status == 200:
        assert answer.json["outputs"][0]["data"] == [1, 2, 3, 4]
    yield


def reload(w):
    w.number += 1
    (w.folder / "server.yaml").write_text(config(f"{100 + w.number}s"))
    seen = len([l for l in w.server.log if l["event"].startswith("reload")])
    yield
    w.server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: w.server.process.poll() is not None or
               len([l for l in list(w.server.log) if l["event"].startswith("reload")]) > seen, "an answer to SIGHUP")
    yield


def drain(w):
    yield
    w.server.process.send_signal(signal.SIGTERM)
    assert w.server.process.wait(CEILING_S) in (0, 1)
    yield


def worker_lost(w):
    w.restart()  # forgets the ends before, after each of which a start waits longer
    yield
    for pid in w.server.workers():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    w.infer()
    yield


SCENARIOS = [start, infer_json, infer_binary, infer_large, new_connection_of_another_key, about_the_models, batch,
             cold_start, scale_to_zero, worker_lost, apply_new, apply_change, key_create, key_revoke, upload, delete,
             admin_reads, admin_infer, drain]
if SOAK:
    SCENARIOS.append(reload)  # an open finding, see TESTING.md


def run(w, scenario, role, kind, n):
    """One run; how often the fault was hit, and how many calls there were."""
    steps = scenario(w)
    next(steps)
    w.faults.arm(role, n, kind, trace=ONLY > 0)
    try:
        next(steps)
    finally:
        w.faults.disarm()
        hits, calls = w.faults.hits(role, kind), w.faults.calls(role, kind)
    w.serves()
    with contextlib.suppress(StopIteration):
        next(steps)
    return hits, calls


def sampled(total):
    """First, last, and some between; the last are where what was built is handed over."""
    if total <= SAMPLES:
        return list(range(1, total + 1))
    return sorted({1 + i * (total - 1) // (SAMPLES - 1) for i in range(SAMPLES)})


def numbers(total):
    if ONLY:
        yield ONLY
    elif SOAK:
        yield from range(1, N_MAX)
    else:
        yield from sampled(total)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_nth_call_fails(make_server, folder, scenario):
    w = World(make_server(config=config("99s"), start=False), folder)
    for role, kind in WHERE:
        _, total = run(w, scenario, role, kind, 1 << 40)
        done = hits = deaths_all = restarts = 0
        for n in numbers(total):
            deaths_before, w.restarts = w.judged(), 0
            try:
                hit, _ = run(w, scenario, role, kind, n)
                deaths = max(0, w.judged() - deaths_before)
            except Exception as error:
                raise AssertionError(f"{scenario.__name__}, {role}, {kind} call {n}: {error}") from error
            done, hits, deaths_all, restarts = done + 1, hits + hit, deaths_all + deaths, restarts + w.restarts
            if SOAK and not hit:
                break
            if w.judged() >= 3:
                w.restart()
        print(f"FAULTS {scenario.__name__} {role} {kind}: {total} calls, {hits} faults in {done} runs, "
              f"{deaths_all} roles and {restarts} servers ended")


def test_nothing_of_this_is_released():
    """Whatever of the tree is built without sanitizers knows no faults."""
    for program in (ROOT / "build/bulkhead", ROOT / "build/bulkhead-worker", ROOT / "build/clang/bulkhead"):
        if program.exists():
            assert b"BULKHEAD_FAULTS" not in program.read_bytes(), program
