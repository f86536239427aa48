"""Level shared: one worker hosts models of several tenants. What one of them does to it costs nobody else an answer."""
import json
import os
import pathlib
import re
import signal
import socket
import threading

import pytest

from conftest import IDENTITY, ROOT, model_yaml, processes, tenant_yaml, vector, wait_until
from load import Load
from test_escape import hostile  # noqa: F401  (a fixture: real workers with an engine that does what it is told)
from test_pool import memory_limit

DIGITS = str(ROOT / "examples/digits/digits.onnx")
IMAGE = [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [(i * 7 % 16) / 16 for i in range(64)]}]
SHARED = {"level": "shared"}
LOSSES = int(re.search(r"SHARED_LOSSES_MAX (\d+)u", (ROOT / "src/control/control_replica.c").read_text()).group(1))
TENANTS = ("acme", "umbra")


def echoes(server, folder, tenants=TENANTS, **spec):
    """Each tenant's key; each has an identity model `echo` at level shared."""
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply("".join(tenant_yaml(t) + model_yaml("echo", t, "echo.json", isolation=SHARED, **spec) for t in tenants))
    return {t: server.key(t) for t in tenants}


def echo(server, key, value=4):
    return server.infer("echo", vector(1, [1, 2, 3, value]), key)


def replicas(server, tenant=None):
    return [r for r in server.status()["replicas"] if tenant in (None, r["metadata"]["tenant"])]


def pids(server, tenant=None):
    return {r["status"]["pid"] for r in replicas(server, tenant) if r["status"]["level"] == "shared"}


def level_text(server):
    return server.status()["isolation"]["levels"][0]["text"]


def tried_alone(server, n=1):
    """Waits until so many requests have been given a worker of their own."""
    server.wait_log("replica_started", count=n, contains="alone, for one request")
    return n


# --- what it is ---

def test_two_tenants_share_one_worker(server, folder):
    keys = echoes(server, folder)
    for i, key in enumerate(keys.values()):
        answer = echo(server, key, i)
        assert answer.status == 200 and answer.json["outputs"][0]["data"] == [1, 2, 3, i], answer.body
    assert len(server.workers()) == 1 and pids(server) == set(server.workers())
    assert "2 replicas in 1 shared workers" in level_text(server)
    assert all(r["status"]["level"] == "shared" and r["status"]["wall"].startswith("shared, ") for r in replicas(server))
    pid = server.workers()[0]
    status = pathlib.Path("/proc", str(pid), "status").read_text()
    for task in pathlib.Path("/proc", str(pid), "task").iterdir():  # every thread is behind both filters
        text = (task / "status").read_text()
        assert re.search(r"^Seccomp:\t2$", text, re.M) and re.search(r"^NoNewPrivs:\t1$", text, re.M)
        assert re.search(r"^Seccomp_filters:\t\d+$", text, re.M).group() == \
            re.search(r"^Seccomp_filters:\t\d+$", status, re.M).group()
    assert int(re.search(r"^Seccomp_filters:\t(\d+)$", status, re.M).group(1)) >= 2


def test_models_of_another_engine_are_elsewhere(server, folder):
    keys = echoes(server, folder)
    server.apply(model_yaml("digits", "acme", DIGITS, "onnx", isolation=SHARED) +
                 model_yaml("digits", "umbra", DIGITS, "onnx", isolation=SHARED) +
                 model_yaml("own", "acme", DIGITS, "onnx"))
    assert [echo(server, k).status for k in keys.values()] == [200, 200]
    answers = [server.infer("digits", IMAGE, k).json["outputs"] for k in keys.values()]
    assert answers[0] == answers[1] == server.infer("own", IMAGE, keys["acme"]).json["outputs"]
    by_engine = {}
    for r in replicas(server):
        if r["status"]["level"] == "shared":
            by_engine.setdefault(r["status"]["engine"], set()).add(r["status"]["pid"])
    assert [len(found) for found in by_engine.values()] == [1, 1] and by_engine["onnx"] != by_engine["identity"]
    assert "4 replicas in 2 shared workers" in level_text(server)


def test_a_tenant_is_told_how_many_are_beside_it_and_not_who(server, folder):
    keys = echoes(server, folder, ("acme", "umbra", "initech"))
    assert [echo(server, k).status for k in keys.values()] == [200] * 3
    found = json.loads(server.cli("explain", "model", "echo", "--tenant", "acme", "-o", "json").stdout)
    replica, = found["replicas"]
    assert found["level"] == "shared" and replica["besides"] == {"replicas": 2, "tenants": 2}
    assert replica["pid"] == server.workers()[0] and "limits" in replica["parts"]
    verdicts = {w["topic"]: w["verdict"] for w in found["walls"]}
    assert (verdicts["faults"], verdicts["memory"], verdicts["network"]) == ("limited", "not contained", "contained")
    text = server.cli("explain", "model", "echo", "--tenant", "acme").stdout
    assert "2 other replicas in this worker, of 2 other tenants" in text
    assert not any(other in text + json.dumps(found) for other in ("umbra", "initech"))


def test_a_floor_above_it_refuses(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    model = model_yaml("echo", "acme", "echo.json", isolation=SHARED)
    refused = server.apply(tenant_yaml("acme", isolation={"minimum": "pool"}) + model, check=False)
    assert refused.returncode == 1 and '"shared" is below Tenant acme\'s isolation.minimum "pool"' in refused.stderr
    server.apply(tenant_yaml("acme") + model)
    refused = server.apply(tenant_yaml("acme", isolation={"minimum": "pool"}), check=False)
    assert refused.returncode == 1 and '"pool" is above Model acme/echo\'s isolation.level "shared"' in refused.stderr
    key = server.key("acme")
    assert echo(server, key).status == 200 and pids(server)


def test_the_limits_are_those_of_all_together(server, folder):
    keys = echoes(server, folder, resources={"memory": "64Mi"}, replicas={"idleAfter": "1s"})
    assert echo(server, keys["acme"]).status == 200
    pid, = server.workers()
    assert memory_limit(pid) == 64 << 20
    assert echo(server, keys["umbra"]).status == 200 and memory_limit(pid) == 128 << 20
    with Load(server, keys["acme"], threads=1):  # which keeps its own
        wait_until(lambda: len(replicas(server)) == 1, "the idle one to leave")
        wait_until(lambda: memory_limit(pid) < 128 << 20, "its share of the limit to go with it")
    assert server.workers() == [pid]


def test_both_are_answered_right_under_load(server, folder):
    keys = echoes(server, folder)
    wrong, ended = [], threading.Event()

    def ask(key, value):
        connection = server.connect()
        while not ended.is_set():
            answer = server.infer("echo", vector(1, [value] * 4), key, connection)
            if answer.status != 200 or answer.json["outputs"][0]["data"] != [value] * 4:
                wrong.append((value, answer.status, answer.body[:200]))
                return
            counts[value] = counts.get(value, 0) + 1

    counts = {}
    threads = [threading.Thread(target=ask, args=(key, 10 * i + k)) for i, key in enumerate(keys.values()) for k in range(3)]
    for t in threads:
        t.start()
    wait_until(lambda: wrong or len(counts) == 6 and min(counts.values()) > 100, "answers for all")
    ended.set()
    for t in threads:
        t.join()
    assert wrong == [] and len(server.workers()) == 1


def test_one_that_goes_disturbs_nobody(server, folder):
    keys = echoes(server, folder)
    assert [echo(server, k).status for k in keys.values()] == [200, 200]
    pid, = server.workers()
    with Load(server, keys["acme"], threads=2) as load:
        for i in range(5):
            server.cli("delete", "model", "echo", "--tenant", "umbra")
            wait_until(lambda: len(replicas(server)) == 1, "its replica to end")
            server.apply(model_yaml("echo", "umbra", "echo.json", isolation=SHARED))
            assert echo(server, keys["umbra"]).status == 200
            assert pids(server) == {pid}
    assert (set(load.statuses), load.broken, load.wrong) == ({200}, 0, 0) and load.count() > 20
    held = len(os.listdir(f"/proc/{pid}/fd"))
    tasks = len(os.listdir(f"/proc/{pid}/task"))
    assert tasks == 5, tasks  # its own thread, and for each model one that serves and one that can give its lease up
    server.cli("delete", "model", "echo", "--tenant", "umbra")
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < held, "its descriptors to be closed")
    server.cli("delete", "model", "echo", "--tenant", "acme")
    wait_until(lambda: pid not in processes(), "an empty worker to end")
    assert "0 replicas in 0 shared workers" in level_text(server)


@pytest.mark.parametrize("role", ["control", "gateway"])
def test_a_new_role_finds_its_members_again(server, folder, role):
    keys = echoes(server, folder)
    assert [echo(server, k).status for k in keys.values()] == [200, 200]
    before = server.workers()
    os.kill(server.pid(role), signal.SIGKILL)
    server.wait_log("serving", count=2)
    assert [echo(server, k).status for k in keys.values()] == [200, 200]
    assert server.workers() == before and pids(server) == set(before)


def test_no_more_than_a_worker_takes(server, folder):
    most = int(re.search(r"LIMIT_SHARED_MEMBERS\s+(\d+)u", (ROOT / "src/base/limits.h").read_text()).group(1))
    keys = echoes(server, folder, [f"t{i}" for i in range(most + 1)], resources={"memory": "16Mi"})
    for i, key in enumerate(keys.values()):
        assert echo(server, key).status == 200
        assert len(server.workers()) == (1 if i < most else 2)


# --- what happens when it is lost ---

def what(deed):
    return [{"name": "what", "shape": [1], "datatype": "BYTES", "data": ["neighbour " + deed]}]


@pytest.fixture
def beside(hostile, folder):  # noqa: F811
    """Tenants evil and calm, whose models `deeds` share a worker and do what they are asked to."""
    hostile.apply(tenant_yaml("calm") + "".join(
        model_yaml("deeds", t, "hostile.json", isolation=SHARED, resources={"memory": "128Mi"}) for t in ("evil", "calm")))
    hostile.calm = hostile.key("calm")
    for key in (hostile.evil, hostile.calm):
        assert hostile.infer("deeds", what("nothing"), key).status == 200
    together(hostile)
    return hostile


def together(server):
    """Both are loaded in one worker."""
    def there():
        for key in (server.evil, server.calm):
            server.infer("deeds", [{"name": "what", "shape": [1], "datatype": "BYTES", "data": ["nothing"]}], key)
        found = [r["status"] for r in replicas(server) if r["status"]["model"] == "deeds"]
        return len(found) == 2 and len({r["pid"] for r in found}) == 1 and all(r["state"] == "ready" for r in found)
    wait_until(there, "both to share a worker")
    return replicas(server)[0]["status"]["pid"]


class Asked:
    """A request in a thread of its own."""

    def __init__(self, server, deed, key):
        self.thread = threading.Thread(target=lambda: setattr(self, "answer", server.infer("deeds", what(deed), key)))
        self.thread.start()

    def get(self):
        self.thread.join()
        return self.answer


def running(server, n):
    wait_until(lambda: server.status()["device"]["used"] >= n, f"{n} leases to run")


@pytest.mark.parametrize("deed,code", [("segfault", "worker_lost"), ("abort", "worker_lost"), ("leave", "worker_lost"),
                                       ("eat-memory", "model_memory_exceeded")])
def test_a_crash_costs_its_own_tenant_only(beside, deed, code):
    pid = together(beside)
    calm = Asked(beside, "doze", beside.calm)
    running(beside, 1)
    evil = Asked(beside, deed, beside.evil)
    assert (calm.get().status, calm.answer.json["outputs"][0]["data"]) == (200, ["done"]), (calm.answer.body, beside.log[-9:])
    evil.get()
    overdue = any(l["event"] == "lease_overdue" for l in beside.log)  # a machine so busy that eating took more than a second
    if overdue:  # then it is known who is to blame: that one gets no second try
        code = "worker_lost"
    assert (evil.answer.status, evil.answer.code) == (503, code), (evil.answer.body, beside.log[-9:])
    wait_until(lambda: pid not in processes(), "the lost worker to be gone")
    if not overdue:
        tried_alone(beside)  # and the other, if the deed was not so slow on a busy machine that it had been answered before
    assert len([l for l in beside.log if l["event"] == "shared_lost"]) == 1  # the second try was in no shared worker
    together(beside)
    wait_until(lambda: not any("alone" in r["status"]["wall"] for r in replicas(beside)), "the lone workers to end")


def test_each_crash_is_retried_once_only(beside):
    for i in range(3):
        answer = beside.infer("deeds", what("segfault"), beside.evil)
        assert (answer.status, answer.code) == (503, "worker_lost")
        tried_alone(beside, i + 1)
        wait_until(lambda: beside.infer("deeds", what("nothing"), beside.evil).status == 200, "its model to be back")
    assert len([l for l in beside.log if "alone, for one request" in l["message"]]) == 3


def test_many_crashes_beside_a_load(beside):
    """The calm tenant's every request is answered, however often its worker is taken away under it."""
    statuses, ended = [], threading.Event()

    def ask():
        connection = beside.connect()
        while not ended.is_set():
            statuses.append(beside.infer("deeds", what("nothing"), beside.calm, connection).status)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(6):
        before = len(statuses)
        answer = beside.infer("deeds", what("segfault"), beside.evil)
        assert answer.status == 503, answer.body
        wait_until(lambda: len(statuses) > before + 5, "answers for the calm tenant")
    ended.set()
    for t in threads:
        t.join()
    assert set(statuses) == {200} and len(statuses) > 30, (len(statuses), [s for s in statuses if s != 200])
    assert len([l for l in beside.log if l["event"] == "shared_lost"]) >= 2


def test_a_hang_costs_its_own_tenant_only(beside):
    """Its lease is overdue after a second; who runs beside it then is tried again, alone."""
    pid = together(beside)
    evil = Asked(beside, "sleep", beside.evil)
    running(beside, 1)
    statuses = []
    while evil.thread.is_alive():
        statuses.append(beside.infer("deeds", what("doze"), beside.calm).status)
    assert evil.get().status in (503, 504), evil.answer.body
    assert set(statuses) == {200}, statuses  # whether one of them was in the worker just then or not
    wait_until(lambda: pid not in processes(), "the worker to be ended")
    together(beside)


def test_a_killed_worker_costs_nobody_an_answer(server, folder):
    keys = echoes(server, folder)
    loads = [Load(server, key, threads=2) for key in keys.values()]
    with loads[0], loads[1]:
        for i in range(LOSSES):
            wait_until(lambda: len(pids(server)) == 1 and len(replicas(server)) >= 2 and
                       all(r["status"]["state"] == "ready" for r in replicas(server)), "both to be there")
            before = [load.count() for load in loads]
            os.kill(pids(server).pop(), signal.SIGKILL)
            wait_until(lambda: all(load.count() > b + 20 for load, b in zip(loads, before)), "answers again")
        # So often, so soon after another: now each is to show by itself whether it is the one.
        wait_until(lambda: len(pids(server)) == 2, "each to have a worker of its own")
    for load in loads:
        assert (set(load.statuses), load.broken, load.wrong) == ({200}, 0, 0), (load.statuses, load.codes)
    assert all(r["status"]["restarts"] == LOSSES for r in replicas(server))


def test_a_client_that_reads_late_has_one_answer(make_server, folder):
    """It is tried again, alone, and that worker has ended long before its answer has been read."""
    server = make_server(config="apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: s}\n"
                                "spec: {timeouts: {write: 10m, request: 10m}}\n")
    keys = echoes(server, folder)
    wide = {"name": "x", "datatype": "FP32", "shape": [-1, 50_000]}
    (folder / "wide.json").write_text(json.dumps({"inputs": [wide]}))
    server.apply(model_yaml("wide", "acme", "wide.json", isolation=SHARED))
    inputs = [{**wide, "shape": [16, 50_000], "data": [1.2345678] * 800_000}]  # 8 MB, more than sockets take
    assert server.infer("wide", inputs, keys["acme"]).status == echo(server, keys["umbra"]).status == 200
    gateway, (pid,) = server.pid("gateway"), pids(server)
    connection = server.connect(timeout=120)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    os.kill(pid, signal.SIGSTOP)
    connection.request("POST", "/v2/models/wide/infer", json.dumps({"inputs": inputs}),
                       {"Authorization": "Bearer " + keys["acme"], "Content-Type": "application/json"})
    running(server, 1)
    os.kill(pid, signal.SIGKILL)
    tried_alone(server)
    server.wait_log("replica_ended")
    wait_until(lambda: not any("alone" in r["status"]["wall"] for r in replicas(server)), "the lone worker to end")
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)  # or its window stays small
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["outputs"][0]["shape"] == [16, 50_000]
    assert server.pid("gateway") == gateway and echo(server, keys["umbra"]).status == 200


def test_a_member_that_is_stuck_is_ended(server, folder):
    """It does not leave when it is told to: the worker goes, and who else was in it comes back."""
    keys = echoes(server, folder)
    assert [echo(server, k).status for k in keys.values()] == [200, 200]
    pid, = server.workers()
    os.kill(pid, signal.SIGSTOP)
    server.cli("delete", "model", "echo", "--tenant", "umbra")
    server.wait_log("shared_stuck")
    wait_until(lambda: pid not in processes(), "the worker to be ended")
    assert echo(server, keys["acme"]).status == 200
    assert {r["metadata"]["tenant"] for r in replicas(server)} == {"acme"}


def test_a_model_that_hangs_can_be_deleted(beside):
    pid = together(beside)
    evil = Asked(beside, "sleep", beside.evil)
    running(beside, 1)
    beside.cli("delete", "model", "deeds", "--tenant", "evil")
    assert evil.get().status in (404, 503, 504), evil.answer.body
    wait_until(lambda: pid not in processes(), "the worker to be ended")
    assert beside.infer("deeds", what("doze"), beside.calm).status == 200


def test_a_drain_answers_what_runs(beside):
    together(beside)
    calm = Asked(beside, "doze", beside.calm)
    running(beside, 1)
    assert beside.stop() == 0
    assert calm.get().status == 200
