"""Level `microvm`: a virtual machine per replica. Skipped where this host lacks QEMU or the kernel (tools/deps install
--test brings both); a host that has them must boot a guest."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest import BUILD, IDENTITY, ROOT, model_yaml, processes, role_fds, tenant_yaml, vector, wait_until

BOOT_S = 150  # under emulation, on a host that is busy with other tests; time for one that is started anew, too
CYCLES = int(os.environ.get("BULKHEAD_VM_CYCLES", "300" if os.environ.get("BULKHEAD_SOAK") else
                            "50" if os.environ.get("BULKHEAD_LONG") else "3"))


def config(more=""):
    """A request waits for a boot as long as that, not 30 s."""
    return f"apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nspec: {{timeouts: {{request: {BOOT_S}s}}{more}}}\n"


def level(server, name="microvm"):
    return next(row for row in server.status()["isolation"]["levels"] if row["name"] == name)


def apply(server, yaml, name="microvm"):
    """The first one who asks starts the level's test, and is told so."""
    result = server.apply(yaml, check=False)
    if "still being tested" in result.stderr:
        wait_until(lambda: level(server, name)["state"] != "testing", f"the end of the test of level {name}", BOOT_S)
        result = server.apply(yaml, check=False)
    assert result.returncode == 0, result.stderr
    return result


def machines(server):
    return sorted(pid for pid, (parent, argv) in processes().items()
                  if server.process and parent == server.process.pid and argv[0] == "bulkhead-machine")


def ask(server, model, key, values=(1, 2, 3, 4), statuses=(200,), seconds=BOOT_S):
    connection = server.connect(seconds)
    try:
        answer = server.infer(model, vector(1, list(values)), key, connection, parameters={"timeout": seconds * 1000000})
    finally:
        connection.close()
    assert answer.status in statuses, answer.body
    return answer


@pytest.fixture
def server(make_server):
    server = make_server(config=config())
    found = level(server)
    if found["state"] == "unavailable":
        pytest.skip(f"level microvm: {found['text']}")
    server.fds = None  # the level's files are opened by the first who uses it, and kept: the last but one test counts
    return server


def replica(server, model):
    found = [r for r in server.status()["replicas"] if r["status"]["model"] == model]
    return found[0]["status"] if found else None


def test_a_guest_serves_outlives_the_gateway_and_is_replaced(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    assert level(server)["state"] == "testing"  # nobody has asked for it
    assert machines(server) == []
    apply(server, tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": "microvm"}))
    key = server.key("acme")
    start = time.monotonic()
    ask(server, "echo", key)
    print(f"cold start: {time.monotonic() - start:.1f} s")
    found = replica(server, "echo")
    assert found["level"] == "microvm" and found["wall"].startswith("microvm (")
    assert ("KVM" in level(server)["text"]) and (level(server)["degraded"] == ("emulation" in level(server)["text"]))
    assert machines(server) == [found["pid"]]
    argv = processes()[found["pid"]][1]
    assert not any(str(folder) in word for word in argv), argv  # everything goes in by descriptor
    if level(server)["degraded"]:  # else QEMU 7.2 leaves out memory barriers, and guests stand still now and then
        assert argv[argv.index("-smp") + 1] == "1,maxcpus=2"
    times = []
    connection = server.connect(BOOT_S)
    for i in range(50):
        start = time.monotonic()
        assert server.infer("echo", vector(1, [i, 2, 3, 4]), key, connection).json["outputs"][0]["data"][0] == i
        times.append(time.monotonic() - start)
    print(f"round trip: median {sorted(times)[25] * 1000:.2f} ms")
    connection.close()

    # A new gateway goes on with the same guest, over the stream that the old one left.
    os.kill(server.pid("gateway"), signal.SIGKILL)
    server.wait_log("role_lost" if any(l["event"] == "role_lost" for l in server.log) else "serving", 1)
    wait_until(lambda: server.pid("gateway"), "a new gateway")
    wait_until(lambda: served(server, key), "service after the gateway's death", BOOT_S)
    assert machines(server) == [found["pid"]]

    os.kill(found["pid"], signal.SIGKILL)
    server.wait_log("replica_lost")
    wait_until(lambda: served(server, key), "service after the machine's death", BOOT_S)
    assert machines(server) not in ([], [found["pid"]])

    server.cli("delete", "model", "echo", "--tenant", "acme")
    wait_until(lambda: machines(server) == [], "the end of the machine")


def served(server, key):
    try:
        return ask(server, "echo", key, statuses=(200, 503, 404)).status == 200
    except OSError:
        return False


def test_the_engine_answers_as_at_level_process(server, folder):
    """The emulated processor may have other vector units than this one, and with them other kernels of the engine, whose
    sums differ in the last bits."""
    digits = str(ROOT / "examples/digits/digits.onnx")
    apply(server, tenant_yaml("acme") + model_yaml("near", "acme", digits, "onnx") +
          model_yaml("far", "acme", digits, "onnx", isolation={"level": "microvm"}))
    key = server.key("acme")
    shape = next(i["shape"] for i in server.http("GET", "/v2/models/near", key).json["inputs"])
    name = next(i["name"] for i in server.http("GET", "/v2/models/near", key).json["inputs"])
    size = 1
    for d in shape[1:]:
        size *= d
    rows = [(i * 37 % 17) / 16 for i in range(size)]
    inputs = [{"name": name, "datatype": "FP32", "shape": [1, *shape[1:]], "data": rows}]
    answers = []
    for model in ("near", "far"):
        answer = server.infer(model, inputs, key, server.connect(BOOT_S), parameters={"timeout": BOOT_S * 1000000})
        assert answer.status == 200, answer.body
        answers.append(answer.json["outputs"])
    near, far = answers
    assert [(o["name"], o["shape"]) for o in near] == [(o["name"], o["shape"]) for o in far]
    same = near == far
    print("bit for bit the same" if same else "the same up to rounding")
    for a, b in zip(near, far):
        assert b["data"] == pytest.approx(a["data"], rel=1e-4, abs=1e-5)


def test_a_hostile_guest_hurts_nobody(make_server, folder):
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    for name in ("bulkhead", "bulkhead-guest"):
        shutil.copy(BUILD / name, programs / name)
    shutil.copy(BUILD / "test/live/hostile-worker", programs / "bulkhead-worker")
    if (BUILD / "guest").exists():
        (programs / "guest").symlink_to((BUILD / "guest").resolve())
    server = make_server(start=False, config=config())
    server.program = programs / "bulkhead"
    server.start()
    server.fds = None
    if level(server)["state"] == "unavailable":
        pytest.skip(f"level microvm: {level(server)['text']}")
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("evil") + tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json"))
    evil, calm = server.key("evil"), server.key("calm")
    ask(server, "echo", calm)
    for name, said in (("guest-garbage", "worker_protocol"), ("guest-oversized", "worker_protocol"),
                       ("guest-eats", "replica_lost")):
        (folder / f"{name}.json").write_text(json.dumps({"hostile": name}, separators=(",", ":")))
        apply(server, model_yaml(name, "evil", f"{name}.json", isolation={"level": "microvm"}))
        body = json.dumps({"inputs": [
            {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": list(range(8))},
            {"name": "y", "shape": [2, 1], "datatype": "BYTES", "data": ["abcd", "efgh"]}]})
        answer = server.http("POST", f"/v2/models/{name}/infer", evil, body, connection=server.connect(BOOT_S))
        assert answer.status == 503, answer.body
        server.wait_log(said, contains=name)
        if name == "guest-eats":
            assert answer.code == "model_memory_exceeded", answer.body
        ask(server, "echo", calm)
        server.cli("delete", "model", name, "--tenant", "evil")
        wait_until(lambda: machines(server) == [], "the end of the machine")
    server.wait_log("replica_lost", contains="guest-eats")


def test_guests_come_and_go_without_a_trace(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    apply(server, tenant_yaml("acme"))
    key = server.key("acme")
    for cycle in range(1 + CYCLES):
        if cycle == 1:
            server.fds = role_fds(server)
        apply(server, model_yaml("echo", "acme", "echo.json", isolation={"level": "microvm"}))
        ask(server, "echo", key)
        server.cli("delete", "model", "echo", "--tenant", "acme")
        wait_until(lambda: machines(server) == [], "the end of the machine")
    print(f"{CYCLES} cycles, {sum(l['event'] == 'replica_lost' for l in server.log)} machines lost")
    # the fixture looks for processes, control groups, mounts and descriptors that are left


def test_the_back_end_keeps_every_promise(folder):
    """The conformance suite of all back-ends (test/unit/isolate), beside the programs that this one needs."""
    programs = folder / "programs"
    programs.mkdir()
    shutil.copy(BUILD / "test/unit/isolate/isolate-test_conformance", programs / "conformance")
    shutil.copy(BUILD / "bulkhead-guest", programs)
    for beside in (BUILD / "guest", BUILD.parent / "guest"):
        if beside.exists():
            (programs / "guest").symlink_to(beside.resolve())
            break
    done = subprocess.run([programs / "conformance", "microvm"], capture_output=True, text=True, timeout=1200, check=False,
                          env={**os.environ, "BULKHEAD_BUILD": str(BUILD), "CMOCKA_MESSAGE_OUTPUT": "TAP"})
    told = done.stdout + done.stderr
    if "apt install" in told:
        pytest.skip(told[-500:])
    assert done.returncode == 0 and told.count("\nok ") >= 17 and "not ok" not in told, told[-3000:]


def test_without_its_kernel_the_level_is_refused(make_server, folder):
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    for name in ("bulkhead", "bulkhead-worker"):
        shutil.copy(BUILD / name, programs / name)
    server = make_server(start=False)
    server.program = programs / "bulkhead"
    server.prefix = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /boot; exec "$0" "$@"']
    server.start()
    found = level(server)
    assert found["state"] == "unavailable" and "apt install" in found["text"], found
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": "microvm"}),
                          check=False)
    assert result.returncode == 1 and "apt install" in result.stderr, result.stderr


def debugged(make_server, folder):
    """A server whose machines have a console; echo.json is there."""
    server = make_server(config=config(", log: {level: debug}"))
    server.alerts_expected = True  # the guest's kernel may have its say on the console
    if level(server)["state"] == "unavailable":
        pytest.skip(f"level microvm: {level(server)['text']}")
    server.fds = None
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    return server


def limits_read_back(wall, memory, cpu_milli):
    """What the guest's kernel has made of the limits: control groups v2, of which io may be missing."""
    found = re.search(r"; memory\.max=(\d+) memory\.swap\.max=(0?) cpu\.max=(\d+) 100000 cpu\.weight=(\d+) pids\.max=(\d+) "
                      r"io\.weight=(?:default (\d+))?\Z", wall)
    assert found, wall
    assert (int(found[1]), int(found[3]), int(found[4])) == (memory, cpu_milli * 100, cpu_milli // 10), wall
    assert found[6] is None or int(found[6]) == cpu_milli // 10, wall
    assert 2 <= int(found[5]) <= 1000, wall


def test_the_limits_of_a_worker_in_a_guest_are_its_kernels(make_server, folder):
    """Beside the machine's own: in the machine the worker has the limits of its model, whatever the machine has on top."""
    server = debugged(make_server, folder)
    apply(server, tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": "microvm"},
                                                   resources={"cpu": 2, "memory": "96Mi"}))
    ask(server, "echo", server.key("acme"))
    wall = server.wait_log("guest_wall")["message"]
    assert wall.startswith("process") and "control group bulkhead.guest/worker" in wall, wall
    limits_read_back(wall, 96 << 20, 2000)
    server.cli("delete", "model", "echo", "--tenant", "acme")
    wait_until(lambda: machines(server) == [], "the end of the machine")


def test_a_container_inside_the_guest(make_server, folder):
    """The layered form: crun runs the worker in the guest, on control groups v2. What it says of its wall comes over the
    console that a debugged machine has."""
    server = debugged(make_server, folder)
    nested = {"level": "microvm", "runtime": "crun"}
    limits = {"cpu": 1, "memory": "128Mi"}
    result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={**nested, "runtime": "runc"}),
                          check=False)
    if "still being tested" in result.stderr:
        wait_until(lambda: level(server)["state"] != "testing", "the end of the test of level microvm", BOOT_S)
        result = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json",
                                                               isolation={**nested, "runtime": "runc"}), check=False)
    assert result.returncode == 1 and "the OCI runtime in a guest is crun" in result.stderr, result.stderr
    apply(server, tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation=nested, resources=limits))
    key = server.key("acme")
    ask(server, "echo", key)
    found = replica(server, "echo")
    assert found["wall"].startswith("microvm (") and "in the guest a container (crun)" in found["wall"]
    assert "behind process" in found["wall"]
    wall = next(l["message"] for l in server.log if l["event"] == "guest_wall")
    assert wall.startswith("container (crun); namespaces user, mount, pid, net, ipc, uts, cgroup; read-only root sha256:"), wall
    assert "control group bulkhead.guest-oci/worker" in wall
    limits_read_back(wall, 128 << 20, 1000)
    told = server.cli("explain", "model", "echo", "--tenant", "acme").stdout
    assert "in the guest a container (crun)" in " ".join(told.split())
    server.cli("delete", "model", "echo", "--tenant", "acme")
    wait_until(lambda: machines(server) == [], "the end of the machine")


@pytest.mark.parametrize("isolation", ({"level": "microvm"}, {"level": "microvm", "runtime": "crun"}), ids=("guest", "container"))
def test_critical_preempts_what_runs_in_a_guest(make_server, folder, isolation):
    """The lease of a lower class is given up in the middle of the engine's step, by a word over the machine's stream."""
    server = make_server(config=json.dumps({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
        "spec": {"devices": [{"name": "cpu", "slots": 1}]}}))
    if level(server)["state"] == "unavailable":
        pytest.skip(f"level microvm: {level(server)['text']}")
    server.fds = None
    (folder / "slow.json").write_text(json.dumps(dict(IDENTITY, busy="10s")))
    (folder / "quick.json").write_text(json.dumps(IDENTITY))
    apply(server, tenant_yaml("acme") + tenant_yaml("vital", classes=["critical"]) +
          model_yaml("slow", "acme", "slow.json", isolation=isolation, replicas={"min": 1}, batching={"maxSize": 1}) +
          model_yaml("quick", "vital", "quick.json", batching={"maxSize": 1}))
    key, vital = server.key("acme"), server.key("vital")
    ask(server, "quick", vital)
    wait_until(lambda: (replica(server, "slow") or {}).get("state") == "ready", "the machine", BOOT_S)
    machine = replica(server, "slow")["pid"]
    body = json.dumps({"inputs": vector(1, [1, 2, 3, 4])}).encode()
    with server.raw() as sock:
        sock.sendall((f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        wait_until(lambda: server.status()["device"]["used"] == 1, "it to run")
        ask(server, "quick", vital)
        seconds = json.loads(server.cli("get", "device", "cpu", "-o", "json").stdout)["status"]["seconds"]
        assert seconds["tenants"] < 9, seconds  # it was not waited for …
        wait_until(lambda: json.loads(server.cli("get", "device", "cpu", "-o", "json").stdout)
                   ["status"]["seconds"]["system"] > 0, "the lost time to be the system's")
        wait_until(lambda: server.status()["device"]["used"] == 1, "the long one to run again")
    wait_until(lambda: server.status()["device"]["used"] == 0, "it to be given up: its client has gone")
    assert replica(server, "slow")["pid"] == machine  # … and nobody was killed for it
