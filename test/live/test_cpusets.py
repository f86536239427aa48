"""spec.resources.cpuset: dedicated: a replica's cores are its own, nothing else of the server runs there."""
import contextlib
import json
import os
import pathlib

import pytest

from conftest import IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from load import Load

CPUS = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(CPUS) != 2, reason="says what two processors are shared out to")
MIN = {"min": 1, "max": 1}


def apply(server, folder, check=True, **models):
    """models: name to spec; the engine is identity."""
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    return server.apply(tenant_yaml("acme") + "".join(model_yaml(name.replace("_", "-"), "acme", "echo.json", **spec)
                                                      for name, spec in models.items()), check=check)


def own(level="process", **more):
    return {"isolation": {"level": level}, "resources": {"cpuset": "dedicated", **more}, "replicas": MIN}


def shared(level="process", **more):
    return {"isolation": {"level": level}, "replicas": MIN, **more}


def pid_of(server, model):
    found = [r["status"]["pid"] for r in server.status()["replicas"]
             if r["status"]["model"] == model and r["status"]["state"] == "ready"]
    return found[0] if len(found) == 1 and found[0] else None


def ready(server, model):
    return wait_until(lambda: pid_of(server, model), f"{model} to be ready")


def cpus(pid):
    """Of all threads of a process and of those that it started."""
    used = set()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            used |= os.sched_getaffinity(int(task.name))
    return used


def level_known(server, level):
    [known] = [known for known in server.status()["isolation"]["levels"] if known["name"] == level]
    if known["state"] == "unavailable":
        pytest.skip(f"level {level}: {known['text']}")
    return known["state"] == "available"


def cpuset_of(pid):
    """The file that says where a worker may run, v1 or v2."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for base in (pathlib.Path("/sys/fs/cgroup/cpuset"), pathlib.Path("/sys/fs/cgroup")):
            if ("cpuset" in names.split(",") or not names) and (base / path.strip("/") / "cpuset.cpus").exists():
                return base / path.strip("/") / "cpuset.cpus"
    raise AssertionError(f"{pid} has no cpuset")


def roles(server):
    return [server.process.pid, server.pid("gateway"), server.pid("control")]


def echo(server, key, model):
    answer = server.infer(model, vector(1, [1, 2, 3, 4]), key)
    assert answer.status == 200, answer.body
    return answer


def waiting(server):
    return {w["model"]: w["reason"] for w in server.status()["waiting"]}


@pytest.mark.parametrize("level", ["pool", "process", "container"])
def test_its_core_is_its_own_and_comes_back(server, folder, level):
    wait_until(lambda: level_known(server, level), "the level to be tested")
    apply(server, folder, calm=own(level), busy=shared(), third=shared("shared"))
    key = server.key("acme")
    calm, busy, third = (ready(server, m) for m in ("calm", "busy", "third"))
    [mine] = cpus(calm)
    rest = CPUS - {mine}
    assert mine == max(CPUS) and cpus(busy) == rest and cpus(third) == rest
    assert [cpus(pid) for pid in roles(server)] == [rest] * 3
    # not even the host's root gets it out with that call; so its own never does
    for pid in (calm, busy, third):
        before = cpus(pid)
        os.sched_setaffinity(pid, CPUS)
        assert os.sched_getaffinity(pid) == before
        with pytest.raises(OSError):
            os.sched_setaffinity(pid, CPUS - before)
    for model in ("calm", "busy", "third"):
        echo(server, key, model)
    wall = next(r["status"]["wall"] for r in server.status()["replicas"] if r["status"]["model"] == "calm")
    assert f"on processors of its own, {mine}:" in wall
    facts = json.loads(server.cli("explain", "model", "calm", "--tenant", "acme", "-o", "json").stdout)["replicas"]
    assert [(f["cpus"], f["ownCpus"]) for f in facts] == [(str(mine), True)]
    assert f"cpus          {mine} (its own" in server.cli("explain", "model", "calm", "--tenant", "acme").stdout
    assert server.status()["device"]["dedicated"] == 1
    server.cli("delete", "model", "calm", "--tenant", "acme")
    wait_until(lambda: cpus(busy) == CPUS and cpus(third) == CPUS, "the core to be everybody's again")
    assert [cpus(pid) for pid in roles(server)] == [CPUS] * 3
    assert server.status()["device"]["dedicated"] == 0
    echo(server, key, "busy")


def test_what_cannot_be_had_is_refused_in_words(server, folder):
    for spec, words in ((own(cpu=2), "wants 2 cores for each of spec.replicas.max 1, but this server has 2, and one must"),
                        ({**own(), "replicas": {"max": 2}}, "wants 1 cores for each of spec.replicas.max 2"),
                        (own("shared"), "a replica of level shared has no process of its own")):
        refused = apply(server, folder, check=False, big=spec)
        assert refused.returncode != 0 and words in refused.stderr, refused.stderr
    assert server.status()["replicas"] == []


def test_a_second_one_waits_for_a_core_and_says_so(server, folder):
    apply(server, folder, first=own())
    key = server.key("acme")
    mine = cpus(ready(server, "first"))
    apply(server, folder, second=own())
    wait_until(lambda: "it waits for 1 processors of its own" in waiting(server).get("second", ""), "the reason")
    assert pid_of(server, "second") is None
    assert "it waits for 1 processors of its own" in server.cli("status").stdout
    refused = server.infer("second", vector(1, [1, 2, 3, 4]), key)
    assert refused.status == 503 and b"it waits for 1 processors of its own" in refused.body
    echo(server, key, "first")
    server.cli("delete", "model", "first", "--tenant", "acme")
    assert cpus(ready(server, "second")) == mine
    assert waiting(server) == {}
    echo(server, key, "second")


def test_a_new_version_takes_over_on_the_same_core(server, folder):
    apply(server, folder, calm=own())
    key = server.key("acme")
    old = ready(server, "calm")
    apply(server, folder, calm=own(memory="128Mi"))
    wait_until(lambda: pid_of(server, "calm") not in (None, old), "the new version")
    assert cpus(pid_of(server, "calm")) == {max(CPUS)}
    echo(server, key, "calm")


def test_who_is_moved_away_from_its_core_is_ended(server, folder):
    apply(server, folder, calm=own())
    key = server.key("acme")
    pid = ready(server, "calm")
    cpuset_of(pid).write_text(",".join(map(str, CPUS)))  # as a kernel does when it loses a processor
    server.wait_log("replica_lost", contains="it was moved away from the processors that are its own")
    wait_until(lambda: pid_of(server, "calm") not in (None, pid), "another one")
    assert cpus(pid_of(server, "calm")) == {max(CPUS)}
    echo(server, key, "calm")


def test_leases_of_others_have_only_what_is_left(make_server, folder):
    """Two busy models beside a dedicated one: never more than one lease on the one core that is left."""
    server = make_server()
    busy = json.dumps({**IDENTITY, "busy": "20ms"})
    (folder / "busy.json").write_text(busy)
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("calm", "acme", "busy.json", **own()) +
                 "".join(model_yaml(name, "acme", "busy.json", **shared()) for name in ("one", "two")))
    key = server.key("acme")
    for name in ("calm", "one", "two"):
        ready(server, name)

    def used():
        text = server.cli("get", "devices", "-o", "json").stdout
        [device] = [d for d in json.loads(text)["items"] if d["metadata"]["name"] == "cpu"]
        return device["status"]

    assert used()["slots"] == 2 and used()["dedicated"] == 1
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(Load(server, key, model=name, threads=2))
        seen = {used()["used"] for _ in range(60)}
    assert seen <= {0, 1}, seen
