"""`bulkhead explain model`: what the wall around a model contains, and what is seen of each replica."""
import json
import os

from conftest import IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from test_isolation import WITHOUT_CGROUPS

TOPICS = ["faults", "memory", "files", "network", "cpuTime", "timing", "kernel"]
VERDICTS = {"contained", "limited", "not contained"}
REPLICA = {"name", "version", "level", "pid", "uid", "cgroup", "namespaces", "seccomp", "noNewPrivs", "capabilities",
           "kernel", "wall", "parts", "cpus", "ownCpus", "blockedCalls"}


def explain(server, model="echo", tenant="acme"):
    found = json.loads(server.cli("explain", "model", model, "--tenant", tenant, "-o", "json").stdout)
    assert set(found) == {"tenant", "model", "version", "level", "minimum", "available", "degraded", "text", "measured",
                          "walls", "replicas"}
    assert [wall["topic"] for wall in found["walls"]] == TOPICS
    assert all(wall["verdict"] in VERDICTS and wall["by"] for wall in found["walls"])
    assert all(set(replica) == REPLICA for replica in found["replicas"])
    return found, {wall["topic"]: wall for wall in found["walls"]}


def test_the_facts_are_those_of_the_worker(identity):
    found, walls = explain(identity)
    assert found["level"] == "process" and found["minimum"] == "shared" and found["available"] is True
    if not found["replicas"]:  # idle models may have none yet
        assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
        found, walls = explain(identity)
    assert found["measured"] is True
    [replica] = found["replicas"]
    [pid] = identity.workers()
    assert replica["pid"] == pid
    for name, namespace in replica["namespaces"].items():
        assert os.readlink(f"/proc/{pid}/ns/{name}") == f"{name}:[{namespace['inode']}]"
        ours = os.readlink(f"/proc/{identity.process.pid}/ns/{name}") == os.readlink(f"/proc/{pid}/ns/{name}")
        assert namespace["own"] is not ours
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    assert replica["seccomp"] == int(status["Seccomp"]) and replica["noNewPrivs"] is (status["NoNewPrivs"] == "1")
    assert replica["capabilities"] == status["CapEff"] and replica["uid"] == int(status["Uid"].split()[0]) != 0
    assert replica["kernel"] == f"Linux {os.uname().release}"
    assert replica["cgroup"] in open(f"/proc/{pid}/cgroup").read() and "bulkhead." in replica["cgroup"]
    # the verdicts follow from what was seen
    assert walls["network"]["verdict"] == "contained" and "netNamespace" in replica["parts"]
    assert walls["memory"]["verdict"] == "contained" and "limits" in replica["parts"]
    assert walls["timing"]["verdict"] == "not contained"
    root = os.stat(f"/proc/{pid}/root/.").st_ino != os.stat("/").st_ino
    assert (walls["files"]["verdict"] == "contained") is root
    assert (walls["kernel"]["verdict"] == "limited") is (status["Seccomp"] == "2")


def test_without_limits_the_answer_is_another(make_server, folder):
    server = make_server("--allow-unlimited", start=False)
    server.prefix = WITHOUT_CGROUPS
    server.start()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"))
    key = server.key("acme")
    found, walls = explain(server)
    for _ in range(2):  # first by what the host can do, then as seen at the replica
        assert walls["memory"]["verdict"] == "limited" and "NO LIMIT" in walls["memory"]["by"]
        assert walls["cpuTime"]["verdict"] == "not contained" and "NO LIMIT" in walls["cpuTime"]["by"]
        assert found["degraded"] is True
        assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
        found, walls = explain(server)
    assert found["measured"] is True and found["replicas"][0]["cgroup"] == ""


def test_the_text_for_people(identity):
    identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    text = identity.cli("explain", "model", "echo", "--tenant", "acme").stdout
    lines = text.splitlines()
    assert lines[0].startswith("Model acme/echo, version 1: level process")
    for topic in TOPICS:
        assert any(line.split()[:1] == [topic] for line in lines), topic
    assert max(map(len, lines)) <= 100
    wait_until(lambda: f"pid           {identity.workers()[0]}, uid" in
               identity.cli("explain", "model", "echo", "--tenant", "acme").stdout, "the replica's facts")


def test_kinds_and_models_are_not_mistaken_for_each_other(identity):
    assert identity.cli("explain", "model").stdout.startswith("KIND")
    assert "spec.isolation.level" in identity.cli("explain", "Model.spec.isolation.level").stdout
    for args, status, words in [
            (["model", "echo"], 2, "needs --tenant"),
            (["tenant", "echo", "--tenant", "acme"], 2, "model NAME --tenant T"),
            (["model", "--tenant", "acme"], 2, "model NAME --tenant T"),
            (["model", "nothing", "--tenant", "acme"], 1, "nothing"),
            (["model", "echo", "--tenant", "clinic"], 1, "clinic"),
            (["model", "Echo/..", "--tenant", "acme"], 1, "DNS-1123"),
    ]:
        result = identity.cli("explain", *args, check=False)
        assert result.returncode == status and words in result.stderr, (args, result)
