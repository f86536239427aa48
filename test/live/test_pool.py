"""Level pool: blank workers that wait with their engine loaded, become one model's, and never come back."""
import json
import os
import pathlib
import re
import signal
import statistics
import time

import pytest

from conftest import IDENTITY, ROOT, model_yaml, processes, tenant_yaml, vector, wait_until

DIGITS = str(ROOT / "examples/digits/digits.onnx")
IMAGE = [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [(i * 7 % 16) / 16 for i in range(64)]}]
ROUNDS = 20


def server_yaml(size):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "default"},
                       "spec": {"pool": {"size": size}}})


def pool_text(server):
    return server.status()["isolation"]["levels"][1]["text"]


def replica_pids(server):
    return {r["status"]["pid"] for r in server.status()["replicas"] if r["status"]["pid"]}


def ready(server, n):
    """The pids of the blanks, once n of them are ready."""
    wait_until(lambda: f"{n} of {n} blank workers ready" in pool_text(server), f"{n} blank workers")
    return wait_until(lambda: len(blanks := set(server.workers()) - replica_pids(server)) == n and blanks,
                      "those that ended to be gone")


def two_levels(server, **replicas):
    server.apply(tenant_yaml("acme") + "".join(
        model_yaml(level, "acme", DIGITS, "onnx", isolation={"level": level}, replicas=replicas)
        for level in ("process", "pool")))
    return server.key("acme")


def pool_model(server, folder, **spec):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": "pool"}, **spec))
    return server.key("acme")


def echo(server, key):
    return server.infer("echo", vector(1, [1, 2, 3, 4]), key)


def wall_of(server, model="echo"):
    return [r["status"]["wall"] for r in server.status()["replicas"] if r["status"]["model"] == model]


def test_without_a_model_of_the_level_there_is_no_blank(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"))
    assert echo(server, server.key("acme")).status == 200
    assert "0 of 0 blank workers ready" in pool_text(server)
    assert set(server.workers()) == replica_pids(server)


def test_answers_are_those_of_level_process(server):
    key = two_levels(server)
    blank = ready(server, 1).pop()
    answers = {level: server.infer(level, IMAGE, key) for level in ("pool", "process")}
    assert [a.status for a in answers.values()] == [200, 200], answers
    assert answers["pool"].json["outputs"] == answers["process"].json["outputs"]
    pids = {r["status"]["model"]: r["status"]["pid"] for r in server.status()["replicas"]}
    assert pids["pool"] == blank and pids["process"] != blank
    assert "a blank worker" in wall_of(server, "pool")[0]
    explained = json.loads(server.cli("explain", "model", "pool", "--tenant", "acme", "-o", "json").stdout)
    beside = json.loads(server.cli("explain", "model", "process", "--tenant", "acme", "-o", "json").stdout)
    assert explained["level"] == "pool"
    assert [w["verdict"] for w in explained["walls"]] == [w["verdict"] for w in beside["walls"]]
    for own, other in zip(explained["replicas"], beside["replicas"], strict=True):
        assert own["parts"] == other["parts"] and own["uid"] != other["uid"]


def test_a_blank_holds_its_engine_and_nothing_of_a_tenant(server):
    two_levels(server)
    blank = pathlib.Path("/proc", str(ready(server, 1).pop()))
    assert (blank / "cmdline").read_bytes() == b"bulkhead-worker\0"
    names = [entry.split(b"=")[0] for entry in (blank / "environ").read_bytes().split(b"\0") if entry]
    assert set(names) <= {b"ASAN_OPTIONS", b"UBSAN_OPTIONS"}  # of sanitized builds; set by the library later: not here
    held = {int(fd): os.readlink(blank / "fd" / fd) for fd in os.listdir(blank / "fd")}
    assert all(held[fd] == "/dev/null" for fd in (0, 1, 2))
    assert len(held) == 4 and held[3].startswith("socket:"), held
    maps = (blank / "maps").read_text()
    assert "library.so" in maps or "libonnxruntime" in maps, maps
    assert "memfd" not in maps  # no model, no channel
    status = (blank / "status").read_text()
    assert re.search(r"^Seccomp:\t2$", status, re.M) and re.search(r"^Seccomp_filters:\t[2-9]", status, re.M)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M)


def memory_limit(pid):
    for line in pathlib.Path("/proc", str(pid), "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for base, name in ((f"/sys/fs/cgroup/{controllers}", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            file = pathlib.Path(base + path, name)
            if file.exists() and (controllers == "memory" or name == "memory.max"):
                return int(file.read_text())
    return None


def test_a_replica_has_the_limits_of_its_model(server, folder):
    key = pool_model(server, folder, resources={"memory": "96Mi", "cpu": 1})
    blank = ready(server, 1).pop()
    before = memory_limit(blank)
    assert echo(server, key).status == 200 and replica_pids(server) == {blank}
    assert before == 256 << 20 and memory_limit(blank) == 96 << 20


def test_a_worker_is_never_used_again(server, folder):
    key = pool_model(server, folder, replicas={"idleAfter": "50ms"})
    used = []
    for i in range(5):
        blank = ready(server, 1).pop()
        assert blank not in used
        assert echo(server, key).status == 200
        assert "no longer needed" in server.wait_log("replica_ended", count=i + 1)["message"]
        wait_until(lambda: blank not in processes(), "the used worker to end")
        used.append(blank)
    assert len([l for l in server.log if l["event"] == "replica_started" and "a blank worker" in l["message"]]) == 5
    assert not [l for l in server.log if l["event"] == "blank_lost"]


def test_without_a_blank_one_is_started_and_it_says_so(make_server, folder):
    server = make_server(config=server_yaml(0))
    key = pool_model(server, folder)
    assert echo(server, key).status == 200
    assert "no blank worker was ready" in wall_of(server)[0]
    assert "0 of 0 blank workers ready" in pool_text(server) and set(server.workers()) == replica_pids(server)


def test_a_killed_blank_is_replaced(server, folder):
    key = pool_model(server, folder)
    for i in range(3):
        blank = ready(server, 1).pop()
        os.kill(blank, signal.SIGKILL)
        server.wait_log("blank_lost", count=i + 1)
        wait_until(lambda: blank not in processes(), "the blank to end")
    ready(server, 1)
    assert echo(server, key).status == 200 and "a blank worker" in wall_of(server)[0]


def test_the_size_follows_a_reload_and_models_that_go(make_server, folder):
    server = make_server(config=server_yaml(3))
    pool_model(server, folder)
    ready(server, 3)
    for size in (1, 2, 0):
        (folder / "server.yaml").write_text(server_yaml(size))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: f"{size} of {size} blank workers ready" in pool_text(server), f"{size} blank workers")
        wait_until(lambda: len(server.workers()) == size, "the others to end")
    (folder / "server.yaml").write_text(server_yaml(2))
    server.process.send_signal(signal.SIGHUP)
    ready(server, 2)
    server.cli("delete", "model", "echo", "--tenant", "acme")
    wait_until(lambda: not server.workers(), "the blanks to end with the last model of the level")


def test_a_pool_too_large_for_the_user_ids_is_refused(make_server, folder):
    server = make_server(start=False, config=json.dumps(
        {"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "default"},
         "spec": {"pool": {"size": 5}, "uids": {"count": 32}}}))
    server.start(wait=False)
    assert server.process.wait(30) == 1
    server.reader.join(30)
    assert any("spec.pool.size" in l["message"] and "at least 40" in l["message"] for l in server.log), server.log
    server.process, server.log = None, []


def test_pool_size(make_server):
    server = make_server(start=False, config=server_yaml(33))
    server.start(wait=False)
    assert server.process.wait(30) == 1
    server.reader.join(30)
    assert any("spec.pool.size" in l["message"] for l in server.log), server.log
    server.process, server.log = None, []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_blanks_end_with_the_server(make_server, folder, number):
    server = make_server(config=server_yaml(2))
    pool_model(server, folder)
    blanks = ready(server, 2)
    assert server.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: not blanks & set(processes()), "the blanks to end with their server")
    server.start()  # the next one starts clean, and fills its pool for the model that it knows
    assert not blanks & ready(server, 2)


def test_a_new_control_and_a_new_gateway_keep_the_pool(server, folder):
    key = pool_model(server, folder)
    blanks = ready(server, 1)
    for i, role in enumerate(("control", "gateway")):
        os.kill(server.pid(role), signal.SIGKILL)
        server.wait_log("serving", count=i + 2)
    assert ready(server, 1) == blanks
    assert echo(server, key).status == 200 and replica_pids(server) == blanks


def test_warm_starts_beside_cold_ones(server):
    """Reported, not asserted: the ratio is a target of `bulkhead bench isolation`."""
    key = two_levels(server, idleAfter="10ms")
    taken = {"pool": [], "process": []}
    for i in range(ROUNDS):
        for level in taken:
            ready(server, 1)
            wait_until(lambda: not replica_pids(server), "no replica to run")
            began = time.monotonic()
            answer = server.infer(level, IMAGE, key)
            taken[level].append(time.monotonic() - began)
            assert answer.status == 200, answer.body
    warm, cold = (statistics.median(taken[level]) * 1000 for level in ("pool", "process"))
    print(f"first answer after a start, median of {ROUNDS}: pool {warm:.1f} ms, process {cold:.1f} ms, ratio {warm / cold:.2f}")
    started = [l["message"] for l in server.log if l["event"] == "replica_started" and "level=pool" in l["message"]]
    assert len(started) == ROUNDS and all("a blank worker" in text for text in started)
