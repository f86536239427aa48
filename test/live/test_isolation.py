"""Walls and limits as an operator meets them: refused with the reason where they cannot be had, and what happens when a
model breaks or bursts."""
import json
import shutil
import signal
import subprocess
import sys

from conftest import BULKHEAD, IDENTITY, described_before, model_yaml, standing, tenant_yaml, vector, wait_until

# A mount namespace of the server's own in which no cgroup hierarchy is to be seen.
WITHOUT_CGROUPS = ["unshare", "-m", "sh", "-c", 'umount -a -l -t cgroup,cgroup2; exec "$0" "$@"']


def test_without_root_it_refuses_and_says_why(folder):
    folder.chmod(0o777)
    for program in (BULKHEAD, BULKHEAD.with_name("bulkhead-worker")):  # the tree may lie where that user cannot enter
        shutil.copy(program, folder)
    result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", folder / BULKHEAD.name,
                             "serve", "--data", folder / "data", "--listen", "127.0.0.1:0"], text=True,
                            capture_output=True, timeout=60)
    assert result.returncode == 1
    assert "needs root" in result.stderr and "sudo" in result.stderr
    assert not (folder / "data").exists()


def test_without_limits_a_model_is_refused(make_server, folder):
    server = make_server(start=False)
    server.prefix = WITHOUT_CGROUPS
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"), check=False)
    assert result.returncode == 1
    assert "spec.isolation.level" in result.stderr and "--allow-unlimited" in result.stderr
    assert server.status()["isolation"]["limits"] is False


def test_allow_unlimited_runs_it_and_status_says_so(make_server, folder):
    server = make_server("--allow-unlimited", start=False)
    server.prefix = WITHOUT_CGROUPS
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"))
    key = server.key("acme")
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
    status = server.status()
    assert status["isolation"]["allowUnlimited"] is True and status["isolation"]["limits"] is False
    assert "NO LIMITS" in status["replicas"][0]["status"]["wall"]


def test_a_level_that_is_not_there_is_refused(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    levels = server.status()["isolation"]["levels"]
    for level in (row["name"] for row in levels if row["state"] == "unavailable"):
        result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": level}),
                              check=False)
        assert result.returncode == 1 and level in result.stderr, result.stderr


def test_status_tells_every_level(server):
    status = server.status()["isolation"]
    assert [row["name"] for row in status["levels"]] == ["shared", "pool", "process", "container", "microvm"]
    for row in status["levels"]:
        assert row["state"] in ("available", "testing", "unavailable") and row["text"], row
    process = status["levels"][2]
    assert process["state"] == "available" and process["limits"] is True and process["text"] == status["text"]


# A user namespace in which root is root, so that what it may have can be taken away from this server alone.
# A namespace's map is written from outside, here by a helper that ends before the server starts.
IN_USER_NAMESPACE = [sys.executable, "-c", """
import ctypes, os, sys
ready, told = os.pipe()
if (helper := os.fork()) == 0:
    os.read(ready, 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{os.getppid()}/{kind}_map", "w") as file:
            file.write("0 0 4294967295")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10020000) == 0  # CLONE_NEWUSER | CLONE_NEWNS: mounts too are this root's
os.write(told, b"x")
assert os.waitpid(helper, 0)[1] == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""]


def network_namespaces(server, n):
    subprocess.run(["nsenter", "-U", "-t", str(server.process.pid), "sh", "-c",
                    f"echo {n} > /proc/sys/user/max_net_namespaces"], check=True)


def test_a_host_that_loses_a_level_stops_its_replicas(make_server, folder):
    server = make_server(start=False)
    server.prefix = IN_USER_NAMESPACE
    server.alerts_expected = True
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    yaml = tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", replicas={"min": 1})
    server.apply(yaml)
    key = server.key("acme")
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200

    network_namespaces(server, 0)
    server.process.send_signal(signal.SIGHUP)
    server.wait_log("isolation_lost")
    wait_until(lambda: not server.workers(), "the replica to be stopped")
    lost = server.status()["isolation"]["levels"][2]
    assert lost["state"] == "unavailable" and lost["text"]
    result = server.apply(yaml, check=False)
    assert result.returncode == 1 and "is not available" in result.stderr and lost["text"][:40] in result.stderr
    answer = server.infer("echo", vector(1, [1, 2, 3, 4]), key)
    assert answer.status == 503 and answer.code == "model_unavailable" and "isolation level" in answer.json["error"]
    assert not server.workers()

    network_namespaces(server, 1000)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.status()["isolation"]["levels"][2]["state"] == "available", "the level to be back")
    wait_until(lambda: server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200, "the model to be back")
    server.apply(yaml)


def test_nothing_runs_below_a_tenants_floor(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    result = server.apply(tenant_yaml("acme", isolation={"minimum": "container"}) +
                          model_yaml("echo", "acme", "echo.json"), check=False)
    assert result.returncode == 1 and "isolation.minimum" in result.stderr


def test_a_broken_model_hurts_nobody_else(identity, folder):
    """One that apply would refuse today, but was taken: what cannot load any more is told to whom asks for it."""
    broken = b"\x08\x07 this is no model"
    (folder / "broken.onnx").write_bytes(broken)
    described_before(identity, broken)
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    identity.apply(tenant_yaml("clumsy") + model_yaml("broken", "clumsy", "broken.onnx", engine="onnx"))
    clumsy = identity.key("clumsy")
    answer = identity.infer("broken", vector(1, [1, 2, 3, 4]), clumsy)
    assert answer.status == 503 and answer.code == "model_unavailable" and answer.headers["Retry-After"]
    assert "cannot be loaded" in answer.json["error"]
    again = identity.infer("broken", vector(1, [1, 2, 3, 4]), clumsy)  # refused at once, without another start
    assert again.status == 503 and again.headers["Retry-After"]
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    wait_until(lambda: len(identity.workers()) == 1, "the broken worker to be gone")


def test_a_model_over_its_memory_hurts_nobody_else(identity, folder):
    (folder / "wide.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, -1]}]}))
    identity.apply(tenant_yaml("greedy") +
                   model_yaml("wide", "greedy", "wide.json", resources={"memory": "16Mi"}))
    greedy = identity.key("greedy")

    def send(n):
        head = json.dumps({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, n],
                                       "parameters": {"binary_data_size": n}}],
                           "parameters": {"binary_data_output": True}}).encode()
        return identity.http("POST", "/v2/models/wide/infer", greedy, head + bytes(n),
                             {"Inference-Header-Content-Length": str(len(head))})

    assert send(1000).status == 200
    answer = send(30_000_000)  # its output alone is more than the worker may have
    assert answer.status == 503 and answer.code == "model_memory_exceeded", answer.json
    assert "spec.resources.memory" in answer.json["error"] and "Retry-After" not in answer.headers
    identity.wait_log("replica_lost", contains="spec.resources.memory of 16 MiB")
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    assert wait_until(lambda: send(1000).status == 200, "the model to be back")


def test_requests_that_wait_for_a_deleted_model_get_their_404(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", batching={"maxSize": 1}, replicas={"min": 1, "max": 1}))
    key = server.key("acme")
    server.wait_log("replica_loaded")
    body = json.dumps({"inputs": vector(1, [1, 2, 3, 4])})
    connections = [server.connect() for _ in range(3)]
    with standing(server):
        for c in connections:
            c.request("POST", "/v2/models/echo/infer", body, {"Authorization": "Bearer " + key})
        wait_until(lambda: server.status()["device"]["used"] and server.status()["gateway"]["queued"] == 2,
                   "one to run and others to queue")
        server.cli("delete", "model", "echo", "--tenant", "acme")
    assert sorted(c.getresponse().status for c in connections) == [200, 404, 404]  # what runs is answered, what waits is told
