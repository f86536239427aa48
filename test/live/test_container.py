"""Level `container`: the same answers from behind an OCI runtime's walls, and nothing left when it ends."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from conftest import IDENTITY, ROOT, container_row, model_yaml, tenant_yaml, vector, wait_until
from load import Load

LEVEL = {"level": "container"}

pytestmark = pytest.mark.skipif(not shutil.which("runc", path="/usr/sbin:/usr/bin"),
                                reason="no runc on this host (Debian: apt-get install runc)")


def proc(pid, file):
    return pathlib.Path("/proc", str(pid), file).read_text()


def runtimes_left(server):
    """What an OCI runtime or our bundles could leave: folders, and groups in hierarchies that only it uses."""
    scope = {os.path.basename(path) for path in server.cgroups if path.endswith("-oci")}
    assert len(scope) <= 1
    return [path for name in scope for path in
            [*pathlib.Path("/run").glob(name), *pathlib.Path("/sys/fs/cgroup").glob(f"**/{name}")]]


def test_digits_answers_bit_for_bit(contained):
    digits = ROOT / "examples/digits"
    contained.apply(model_yaml("free", "acme", str(digits / "digits.onnx"), engine="onnx") +
                    model_yaml("walled", "acme", str(digits / "digits.onnx"), engine="onnx", isolation=LEVEL))
    request = json.loads((digits / "request.json").read_text())
    free, walled = (contained.infer(name, request["inputs"], contained.acme) for name in ("free", "walled"))
    assert free.status == walled.status == 200, walled.body
    assert free.json["outputs"] == walled.json["outputs"]


def test_the_walls_are_there(contained):
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation=LEVEL))
    assert contained.infer("echo", vector(1, [1, 2, 3, 4]), contained.acme).status == 200
    status = contained.status()["replicas"][0]["status"]
    pid, uid = status["pid"], status["uid"]
    assert "container (runc" in status["wall"] and "root sha256:" in status["wall"]
    facts = dict(line.split(":\t", 1) for line in proc(pid, "status").splitlines() if ":\t" in line)
    assert facts["Uid"].split() == [str(uid)] * 4
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2" and int(facts["Seccomp_filters"]) >= 2  # the bundle's and the worker's own
    assert all(int(facts[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
    outside = [int(line.split()[1]) for line in proc(pid, "uid_map").splitlines()]
    assert 0 not in outside and uid in outside
    root = pathlib.Path("/proc", str(pid), "root")
    assert {path.name for path in root.iterdir()} <= {"bulkhead-worker", "dev", "engine", "lib", "lib64", "proc", "tmp",
                                                      "usr"}
    assert not (root / "dev/kmsg").exists() and not (root / "dev/mem").exists()
    mounts = {line.split()[4]: line.split()[5].split(",") for line in proc(pid, "mountinfo").splitlines()}
    assert "ro" in mounts["/"] and "nosuid" in mounts["/proc"] and "noexec" in mounts["/tmp"]


def test_a_named_runtime_is_used_or_refused_in_its_words(contained):
    runtimes = {r["name"]: r for r in contained.status()["isolation"]["runtimes"]}
    assert set(runtimes) == {"runc", "crun", "runsc", "kata"} and runtimes["runc"]["state"] == "available"
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation={**LEVEL, "runtime": "runc"}))
    assert contained.infer("echo", vector(1, [1, 2, 3, 4]), contained.acme).status == 200
    assert "container (runc" in contained.status()["replicas"][0]["status"]["wall"]
    for name, told in runtimes.items():
        if told["state"] != "unavailable":
            continue
        result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation={**LEVEL, "runtime": name}), check=False)
        assert result.returncode == 1
        assert f"Model acme/echo: spec.isolation.runtime: \"{name}\" is not available: " in result.stderr
        assert told["text"][:60] in result.stderr, result.stderr
    result = contained.apply(model_yaml("echo", "acme", "echo.json", isolation={"level": "process", "runtime": "runc"}),
                             check=False)
    assert result.returncode == 1 and "spec.isolation.runtime: only workers of level container" in result.stderr
    version = json.loads(contained.cli("get", "versions", "--tenant", "acme", "-o", "json").stdout)
    assert "\"runtime\": \"runc\"" in json.dumps(version)


def ready(server):
    return {r["status"]["pid"] for r in server.status()["replicas"] if r["status"]["state"] == "ready"}


def test_a_killed_worker_is_replaced(contained):
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation=LEVEL))
    with Load(contained, contained.acme, threads=2) as load:
        wait_until(lambda: load.count() > 10, "service")
        killed = []
        for _ in range(3):
            killed.append(wait_until(lambda: next(iter(ready(contained) - {*killed}), None), "another worker"))
            os.kill(killed[-1], signal.SIGKILL)
            wait_until(lambda: ready(contained) - {*killed}, "another worker")
            before = load.count()
            wait_until(lambda: load.count() > before, "service after the kill")
    assert set(load.statuses) <= {200, 503} and load.wrong == 0 and load.broken == 0


@pytest.mark.parametrize("before, after", [("process", "container"), ("container", "process")])
def test_a_level_change_fails_no_request(contained, before, after):
    contained.apply(model_yaml("echo", "acme", "echo.json", isolation={"level": before}))
    with Load(contained, contained.acme, threads=2) as load:
        wait_until(lambda: load.count() > 10, "service")
        contained.apply(model_yaml("echo", "acme", "echo.json", isolation={"level": after}))
        wait_until(lambda: contained.infer("echo", vector(1, [1, 2, 3, 4]), contained.acme).json["model_version"] ==
                   "2", f"the version at level {after} to take over")
        count = load.count()
        wait_until(lambda: load.count() > count + 10, "service at the new level")
        walls = [r["status"]["wall"] for r in contained.status()["replicas"]]
    assert any(wall.startswith(after) for wall in walls), walls
    assert set(load.statuses) == {200}, load.statuses
    assert load.wrong == 0 and load.broken == 0


def test_without_a_runtime_it_is_refused_and_says_what_to_install(make_server, folder):
    server = make_server(start=False)
    server.prefix = ["unshare", "-m", "sh", "-c",  # a mount namespace in which no runtime can be executed
                     'for r in /usr/sbin/runc /usr/bin/crun; do [ -e $r ] && mount --bind /dev/null $r; done; exec "$0" "$@"']
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    wait_until(lambda: container_row(server)["state"] == "unavailable", "the test of level container")
    result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation=LEVEL), check=False)
    assert result.returncode == 1
    assert "spec.isolation.level" in result.stderr and "install runc" in result.stderr, result.stderr


def test_kill_of_the_supervisor_leaves_nothing(make_server, folder):
    server = make_server()
    wait_until(lambda: container_row(server)["state"] == "available", "level container")
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation=LEVEL))
    key = server.key("acme")
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    worker = server.workers()[0]
    fd = os.pidfd_open(worker)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not os.path.exists(f"/proc/{worker}/root/bulkhead-worker"), "the worker's end", ceiling=1)
    os.close(fd)
    folder, = {name for path in server.cgroups if (name := os.path.basename(path)).endswith("-oci")}
    assert pathlib.Path("/run", folder).exists()
    make_server()  # of another data folder: sweeps what is in nobody's use
    assert not pathlib.Path("/run", folder).exists()
    server.start()  # sweeps
    wait_until(lambda: container_row(server)["state"] == "available", "level container again")
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    server.stop()
    assert runtimes_left(server) == []
