"""A worker that has been taken over hurts nobody but its own tenant: hostile_worker.c in the place of bulkhead-worker."""
import contextlib
import http.client
import json
import os
import re
import shutil
import threading

import pytest

from conftest import BUILD, IDENTITY, ROOT, fds, model_yaml, tenant_yaml, wait_until
from load import Load

SOURCE = (ROOT / "test/live/hostile_worker.c").read_text()
BEHAVIOURS = os.environ.get("BULKHEAD_HOSTILE", "").split() or re.findall(r'^    \{"([a-z-]+)", [a-z_]+\},$', SOURCE,
                                                                           re.M)

BEHAVIOURS = [name for name in BEHAVIOURS if not name.startswith(("ingest-", "guest-"))]  # those: test_ingest.py, test_microvm.py

# What the hostile tenant itself may get: by default its requests fail.
FAILS = {500, 503}
MAY_ANSWER = {200} | FAILS
# Answers the first request before (or while) it misbehaves, or never answers: its client gives up after a while.
EXPECTED = {name: MAY_ANSWER for name in (
    "takes-no-time", "load-twice", "flood-idle", "ring-for-ever", "done-twice", "consumed-lies", "changes-memory", "punches-holes",
    "sends-descriptors", "talks-to-supervisor")}
SILENT = {"never-open", "blocks-bell-reader", "blocks-bell-writer", "closes-bells", "ring-for-ever", "consumed-lies"}
PATIENCE_S = 3
DRAIN_S = 60  # a lease that is never done is overdue after 30 s


def request_body(name):
    return json.dumps({"parameters": {"timeout": PATIENCE_S * 1000000} if name == "never-open" else {}, "inputs": [
        {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": list(range(8))},
        {"name": "y", "shape": [2, 1], "datatype": "BYTES", "data": ["abcd", "efgh"]}]})


def provoke(server, key, name):
    """The status of a request to that model, or None when the client had to give up."""
    timeout = PATIENCE_S if name in SILENT and name != "never-open" else 60
    connection = server.connect(timeout)
    try:
        connection.request("POST", f"/v2/models/{name}/infer", request_body(name), {"Authorization": "Bearer " + key})
        answer = connection.getresponse()
        body = answer.read()
    except TimeoutError:
        return None
    finally:
        connection.close()
    assert all(32 <= byte < 127 for byte in body) or answer.status == 200, body
    return answer.status


@pytest.fixture
def hostile(make_server, folder):
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    shutil.copy(BUILD / "bulkhead", programs / "bulkhead")
    shutil.copy(BUILD / "test/live/hostile-worker", programs / "bulkhead-worker")
    server = make_server(start=False)
    server.program = programs / "bulkhead"
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("evil") + tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json"))
    server.evil, server.calm = server.key("evil"), server.key("calm")

    def model(name):
        (folder / f"{name}.json").write_text(json.dumps({"hostile": name}, separators=(",", ":")))
        server.apply(model_yaml(name, "evil", f"{name}.json"))

    server.model = model
    return server


def test_the_table_of_behaviours_was_read():
    assert "BULKHEAD_HOSTILE" in os.environ or len(BEHAVIOURS) >= 30 and EXPECTED.keys() | SILENT <= set(BEHAVIOURS)


def test_what_a_worker_says_of_its_time_changes_no_quota(hostile):
    hostile.apply(tenant_yaml("evil", quota={"computeSecondsPerDay": 1}))
    hostile.model("takes-no-time")
    statuses = [provoke(hostile, hostile.evil, "takes-no-time") for _ in range(8)]
    assert statuses[0] == 200 and statuses[-1] == 429, statuses
    assert statuses.count(200) <= 4, statuses  # of 0.3 s each


GROUPS = [BEHAVIOURS[i:i + 10] for i in range(0, len(BEHAVIOURS), 10)]


@pytest.mark.parametrize("names", GROUPS, ids=[f"{g[0]}..{g[-1]}" for g in GROUPS])
def test_a_hostile_worker_hurts_its_own_tenant_only(hostile, names):
    gateway, control = hostile.pid("gateway"), hostile.pid("control")
    with Load(hostile, hostile.calm, threads=1) as calm:
        wait_until(lambda: calm.count() > 0, "the calm tenant's model")
        before = fds(hostile.process.pid)
        for name in names:
            hostile.model(name)
            for _ in range(2):
                status = provoke(hostile, hostile.evil, name)
                assert status in EXPECTED.get(name, FAILS) or (status is None and name in SILENT), (name, status)
            served = calm.count()
            wait_until(lambda: calm.count() > served + 3 or calm.broken or len(calm.statuses) > 1,
                       f"service for the calm tenant beside {name}")
            assert (set(calm.statuses), calm.broken, calm.wrong) == ({200}, 0, 0), (name, calm.codes)
            hostile.cli("delete", "model", name, "--tenant", "evil")
            wait_until(lambda: not any(r["metadata"]["tenant"] == "evil" for r in hostile.status()["replicas"]),
                       f"the worker of {name} to end", DRAIN_S)
        wait_until(lambda: fds(hostile.process.pid) <= before, "the supervisor's descriptors to be closed")
    assert (hostile.pid("gateway"), hostile.pid("control")) == (gateway, control)
    assert not [l for l in hostile.log if l["event"] in ("forged", "not_json", "role_ended")]
    assert all(ord(c) >= 32 for l in hostile.log for c in l["message"])
