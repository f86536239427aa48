"""kill -9 at random moments under load: nothing acknowledged is lost, the rest serves on, no trace stays."""
import contextlib
import json
import os
import random
import signal
import time

import pytest

from conftest import CEILING_S, IDENTITY, model_yaml, standing, tenant_yaml, vector, wait_until
from load import Load

SEED = int(os.environ.get("BULKHEAD_SEED", time.time_ns() % 1_000_000))
ROUNDS = 40 if os.environ.get("BULKHEAD_SOAK") else 6


@pytest.fixture
def rng():
    print(f"seed {SEED} (BULKHEAD_SEED={SEED} repeats it)")
    return random.Random(SEED)


def two_tenants(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    (folder / "slow.json").write_text(json.dumps(dict(IDENTITY, busy="2ms")))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "slow.json") +
                 tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json"))
    return server.key("acme"), server.key("calm")


def test_killed_workers_hurt_their_own_tenant_only(server, folder, rng):
    acme, calm = two_tenants(server, folder)
    for key in (acme, calm):
        assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    calms = [p for p in server.workers()
             if p in {r["status"]["pid"] for r in server.status()["replicas"] if r["metadata"]["tenant"] == "calm"}]
    assert len(calms) == 1
    with Load(server, acme) as hit, Load(server, calm, threads=2) as spared:
        for _ in range(ROUNDS):
            victims = wait_until(lambda: [p for p in server.workers() if p not in calms], "a worker to kill")
            time.sleep(rng.random() * 0.2)  # a random moment, not a wait
            os.kill(victims[0], signal.SIGKILL)
            ended = len([l for l in server.log if l["event"] == "replica_lost"])
            server.wait_log("replica_lost", count=ended + 1 if ended == 0 else ended)
            before = hit.count()
            wait_until(lambda: hit.count() > before, "service for acme after a kill")
    assert set(hit.statuses) <= {200, 503}, hit.statuses
    assert set(hit.codes) <= {"worker_lost", "model_unavailable"}, hit.codes
    assert hit.wrong == 0 and hit.broken == 0
    assert set(spared.statuses) == {200} and spared.broken == 0 and spared.wrong == 0
    assert server.workers() and calms[0] in server.workers()


def test_killed_control_loses_nothing_acknowledged(server, folder, rng):
    acme, _ = two_tenants(server, folder)
    server.infer("echo", vector(1, [1, 2, 3, 4]), acme)
    workers = server.workers()
    tenants, keys = [], []
    with Load(server, acme, threads=2) as load:
        for i in range(ROUNDS):
            pid = wait_until(lambda: server.pid("control"), "control")
            delay = rng.random() * 0.05
            import threading
            killer = threading.Timer(delay, lambda: os.kill(pid, signal.SIGKILL))
            killer.start()
            while killer.is_alive():
                name = f"t{i}-{len(tenants)}"
                if server.apply(tenant_yaml(name), check=False).returncode == 0:
                    tenants.append(name)
                made = server.cli("key", "create", "--tenant", "acme", check=False)
                if made.returncode == 0:
                    keys.append(made.stdout.split()[-1])
            wait_until(lambda: server.pid("control") not in (None, pid), "a new control")
            wait_until(lambda: server.cli("status", check=False).returncode == 0, "the admin socket")
    assert set(load.statuses) == {200}, load.statuses
    assert load.broken == 0 and load.wrong == 0
    listed = {t["metadata"]["name"] for t in json.loads(server.cli("get", "tenant", "-o", "json").stdout)["items"]}
    assert set(tenants) <= listed
    wait_until(lambda: all(server.http("GET", "/v2", k).status == 200 for k in keys), "all acknowledged keys to work")
    assert server.workers() == workers  # no worker was restarted


def test_killed_gateway_comes_back_without_restarting_a_worker(server, folder, rng):
    acme, calm = two_tenants(server, folder)
    for key in (acme, calm):
        assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    workers = server.workers()
    for _ in range(ROUNDS):
        pid = server.pid("gateway")
        with Load(server, acme, threads=2) as load:
            wait_until(lambda: load.count() > 5, "some load")
            time.sleep(rng.random() * 0.1)  # a random moment, not a wait
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: server.pid("gateway") not in (None, pid), "a new gateway")
            before = load.count()
            wait_until(lambda: load.count() > before + 5, "service by the new gateway")
        assert set(load.statuses) == {200}, (load.statuses, load.codes)
    assert server.workers() == workers


def mount_namespace(pid):
    return os.readlink(f"/proc/{pid}/ns/mnt")


def mount_namespaces():
    """Of all processes: a namespace that none is in, and no descriptor of a server holds, takes its mounts along."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found.add(mount_namespace(pid))
    return found


def test_killed_supervisor_takes_everything_along(identity):
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    children = [identity.pid("control"), identity.pid("gateway"), *identity.workers()]
    mounts = mount_namespace(identity.workers()[0])
    assert mounts in mount_namespaces()
    assert identity.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not any(os.path.exists(f"/proc/{p}/exe") for p in children), "the children to end")
    wait_until(lambda: mounts not in mount_namespaces(), "the worker's mounts to be gone")
    identity.start()  # starts clean on the same folder
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200


def test_a_drain_answers_what_runs(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", replicas={"min": 1}))
    key = server.key("acme")
    server.wait_log("replica_loaded")
    connection = server.connect()
    with standing(server):
        connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                           {"Authorization": "Bearer " + key})
        wait_until(lambda: server.status()["device"]["used"] == 1, "the request to run")
        server.process.send_signal(signal.SIGTERM)
        server.wait_log("draining")
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3, 4]
    assert server.process.wait(CEILING_S) == 0
    server.reader.join()
    server.process = None


def test_a_stopped_worker_is_killed_when_its_lease_is_overdue(identity):
    """A worker that hangs: the gateway ends it and the request gets its 503."""
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    victim = identity.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    answer = identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    assert answer.status == 503 and answer.code == "worker_lost" and answer.headers["Retry-After"]
    wait_until(lambda: victim not in identity.workers(), "the stopped worker to be killed")
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
