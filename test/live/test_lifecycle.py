"""Life cycle: replicas to zero and back, SIGHUP, data folders that cannot be trusted or are full."""
import concurrent.futures
import contextlib
import ctypes
import errno
import json
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import CEILING_S, IDENTITY, ROOT, model_yaml, tenant_yaml, vector, wait_until

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_random  # noqa: E402  (behind the path that finds it)

SEED = int(os.environ.get("BULKHEAD_SEED", time.time_ns() % 1_000_000))
ROUNDS = 12 if os.environ.get("BULKHEAD_SOAK") else 3


def one_model(server, folder, model=IDENTITY, tenant=None, **replicas):
    (folder / "echo.json").write_text(json.dumps(model))
    server.apply(tenant_yaml("acme", **(tenant or {})) + model_yaml("echo", "acme", "echo.json", replicas=replicas))
    return server.key("acme")


def infer(server, key, connection=None, **more):
    return server.infer("echo", vector(1, [1, 2, 3, 4]), key, connection=connection, **more)


# --- to zero and back ---

def test_an_idle_replica_ends_and_the_next_request_starts_one(server, folder):
    key = one_model(server, folder, idleAfter="50ms")
    for i in range(ROUNDS):
        assert infer(server, key).status == 200
        server.wait_log("replica_started", count=i + 1)
        assert "no longer needed" in server.wait_log("replica_ended", count=i + 1)["message"]
        wait_until(lambda: not server.workers(), "the idle worker to end")
        assert server.status()["device"]["used"] == 0
    assert infer(server, key).status == 200


def test_replicas_of_the_minimum_stay(server, folder):
    key = one_model(server, folder, idleAfter="50ms", min=1, max=2)
    worker = wait_until(server.workers, "the minimum")
    # Its only request long ago, the gateway has said "idle" several times when this other model ended as often.
    (folder / "other.json").write_text(json.dumps(IDENTITY))
    server.apply(model_yaml("other", "acme", "other.json", replicas={"idleAfter": "50ms"}))
    for i in range(ROUNDS):
        assert server.infer("other", vector(1, [1, 2, 3, 4]), key).status == 200
        server.wait_log("replica_ended", count=i + 1, contains="model=other")
    assert server.workers() == worker
    assert not [l for l in server.log if l["event"] == "replica_ended" and "model=echo" in l["message"]]


def test_a_request_that_runs_longer_than_idle_after_is_no_idleness(server, folder):
    key = one_model(server, folder, dict(IDENTITY, busy="700ms"), idleAfter="10ms")
    for _ in range(2):
        assert infer(server, key).status == 200
    assert not [l for l in server.log if l["event"] == "replica_lost"]


def test_requests_around_the_end_of_a_replica_wait_and_are_answered(server, folder):
    """Clients come back after about the time in which replicas end: into READY, DRAINING, GONE and starting ones."""
    key = one_model(server, folder, idleAfter="1ms")
    print(f"seed {SEED} (BULKHEAD_SEED={SEED} repeats it)")
    enough = 8 * ROUNDS

    def client(number):
        rng = random.Random(SEED + number)
        statuses, connection = [], server.connect()
        while len([l for l in server.log if l["event"] == "replica_ended"]) < enough:
            answer = infer(server, key, connection)
            statuses.append((answer.status, answer.body if answer.status != 200 else b""))
            time.sleep(rng.random() * 0.4)  # a random moment, not a wait
        connection.close()
        return statuses

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for statuses in pool.map(client, range(2)):
            assert {status for status, _ in statuses} == {200}, statuses
    assert not [l for l in server.log if l["event"] == "replica_lost"]


def test_the_wait_for_a_start_is_bounded(server, folder):
    """While no replica can start: as many wait as the queue is deep, as long as they say; the rest is refused."""
    key = one_model(server, folder, tenant={"quota": {"queueDepth": 3}}, idleAfter="1ms")
    assert infer(server, key).status == 200
    wait_until(lambda: not server.workers(), "the idle worker to end")
    server.process.send_signal(signal.SIGSTOP)  # it starts nothing now
    waiting = []

    def wait():
        connection = server.connect()
        connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                           {"Authorization": "Bearer " + key})
        waiting.append(connection)
        wait_until(lambda: server.status()["gateway"]["queued"] == len(waiting), "a request to wait")

    try:
        wait()
        wait()
        late = infer(server, key, parameters={"timeout": 20000})
        assert (late.status, late.code) == (503, "deadline_exceeded")
        wait()
        refused = infer(server, key)
        assert (refused.status, refused.code) == (429, "queue_full") and refused.headers["Retry-After"]
    finally:
        server.process.send_signal(signal.SIGCONT)
    for connection in waiting:
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3, 4]
        connection.close()


def test_a_new_gateway_does_not_take_replicas_for_idle(server, folder):
    key = one_model(server, folder, idleAfter="1h")
    assert infer(server, key).status == 200
    workers, gateway = server.workers(), server.pid("gateway")
    os.kill(gateway, signal.SIGKILL)
    wait_until(lambda: server.pid("gateway") not in (None, gateway), "a new gateway")
    server.wait_log("serving", count=2)
    assert infer(server, key).status == 200
    time.sleep(0.6)  # two of the gateway's looks at what is idle: nothing may happen, so there is nothing to wait for
    assert server.workers() == workers
    assert not [l for l in server.log if l["event"] == "replica_ended"]


# --- SIGHUP ---

def server_yaml(**spec):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "test"},
                       "spec": spec})


def reload(server, config, event="reloaded"):
    """Writes the Server file, sends SIGHUP, and returns the log line that answers it."""
    (server.data.parent / "server.yaml").write_text(config)
    count = len([l for l in server.log if l["event"] == event])
    server.process.send_signal(signal.SIGHUP)
    return server.wait_log(event, count=count + 1)["message"]


def closed_after(connection):
    """Seconds until the server closes an idle connection."""
    start = time.monotonic()
    assert connection.recv(1) == b""
    return time.monotonic() - start


def test_sighup_changes_what_may_change(make_server, folder):
    server = make_server(config=server_yaml(limits={"connections": 64}))
    key = one_model(server, folder)
    pids = [server.pid("control"), server.pid("gateway")]
    assert infer(server, key).status == 200
    workers = server.workers()
    idle = server.raw()  # with the old time-out of 75 s
    assert "changed: 1" in reload(server, server_yaml(limits={"connections": 64}, timeouts={"idle": "200ms"}))
    assert closed_after(idle) < 10
    assert closed_after(server.raw()) < 10
    # a request's head
    assert "changed: 1" in reload(server, server_yaml(limits={"connections": 64},
                                                      timeouts={"idle": "200ms", "head": "100ms"}))
    slow = server.raw()
    slow.sendall(b"GET /v2 HTTP/1.1\r\n")
    assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
    slow.close()
    # connections
    assert "changed: 3" in reload(server, server_yaml(limits={"connections": 2}))
    wait_until(lambda: server.status()["gateway"]["connections"] == 0, "the connections to be closed")
    (folder / "slow.json").write_text(json.dumps(dict(IDENTITY, busy="3s")))
    server.apply(model_yaml("slow", "acme", "slow.json"))
    two = [server.connect(), server.connect()]
    for connection in two:
        connection.request("POST", "/v2/models/slow/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                           {"Authorization": "Bearer " + key})
    wait_until(lambda: server.status()["gateway"]["connections"] == 2, "two connections")
    third = server.raw()  # idle ones would give way to it
    assert third.recv(4096).startswith(b"HTTP/1.1 503 ")
    third.close()
    for connection in two:  # those that are open serve on
        assert connection.getresponse().status == 200
        connection.close()
    server.cli("delete", "model", "slow", "--tenant", "acme")
    wait_until(lambda: server.workers() == workers, "the slow model's worker to end")
    # nothing was restarted for it, and what starts later has the new values too
    assert [server.pid("control"), server.pid("gateway")] == pids and server.workers() == workers
    assert "changed: 2" in reload(server, server_yaml(limits={"connections": 2}, timeouts={"head": "100ms",
                                                                                          "idle": "200ms"}))
    os.kill(pids[1], signal.SIGKILL)
    server.wait_log("serving", count=2)
    assert closed_after(server.raw()) < 10


def test_sighup_changes_the_log_level_of_every_role(make_server, folder):
    server = make_server(config=server_yaml(log={"level": "info"}))
    key = one_model(server, folder, idleAfter="1ms")
    assert infer(server, key).status == 200
    server.wait_log("replica_ended")
    loaded = len([l for l in server.log if l["event"] == "replica_loaded"])
    (folder / "server.yaml").write_text(server_yaml(log={"level": "warn"}))
    server.process.send_signal(signal.SIGHUP)

    def quiet():
        """The level has no event of its own: the line that would tell is one it hides."""
        before = len(server.log)
        assert infer(server, key).status == 200
        wait_until(lambda: not server.workers(), "the idle worker to end")
        return len(server.log) == before

    wait_until(quiet, "the roles to be quiet")
    assert len([l for l in server.log if l["event"] == "replica_loaded"]) <= loaded + 1  # control's line
    assert "changed: 1" in reload(server, server_yaml(log={"level": "info"}))
    assert infer(server, key).status == 200
    server.wait_log("replica_started", count=2)
    server.wait_log("replica_loaded", count=loaded + 1)


def test_sighup_changes_the_drain_timeout(make_server, folder):
    server = make_server(config=server_yaml(drainTimeout="1h"))
    key = one_model(server, folder, dict(IDENTITY, busy="5s"))
    connection = server.connect()
    connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                       {"Authorization": "Bearer " + key})
    wait_until(lambda: server.status()["device"]["used"] == 1, "the request to run")
    assert "changed: 1" in reload(server, server_yaml(drainTimeout="100ms"))
    process = server.process
    process.send_signal(signal.SIGTERM)
    assert "100 ms" in server.wait_log("drain_timeout")["message"]
    assert process.wait(10) == 0
    server.reader.join()
    server.process = None
    connection.close()


def test_sighup_names_what_needs_a_restart(make_server, folder):
    server = make_server(config=server_yaml())
    key = one_model(server, folder)
    reload(server, server_yaml(cpu={"reserved": 0 if (os.cpu_count() or 1) > 2 else 1}, limits={"bodyBytes": "1Ki"},
                               uids={"base": 800000, "count": 64}, admin={"group": "nobody-has-it"},
                               timeouts={"write": "5s"}))
    later = {l["message"].split()[0] for l in server.log if l["event"] == "reload_later"}
    expected = {"spec.limits.bodyBytes", "spec.uids.base", "spec.uids.count", "spec.admin.group"}
    assert later - {"spec.cpu.reserved"} == expected  # on one core, nothing can be reserved
    assert all(l["level"] == "warn" and "started again" in l["message"] for l in server.log
               if l["event"] == "reload_later")
    assert "changed: 0" in reload(server, server_yaml(timeouts={"write": "5s"}))  # only that one was taken over
    assert infer(server, key).status == 200


@pytest.mark.parametrize("config, text", [
    (None, "server.yaml cannot be read"), ("{", "server.yaml"), ("kind: Tenant\n", "server.yaml"),
    (server_yaml(timeouts={"idle": "1parsec"}), "spec.timeouts.idle"), (server_yaml(limit={}), "spec.limit"),
], ids=["gone", "no yaml", "another kind", "a bad value", "an unknown field"])
def test_a_bad_file_changes_nothing(make_server, folder, config, text):
    server = make_server(config=server_yaml(timeouts={"idle": "200ms"}))
    key = one_model(server, folder)
    path = folder / "server.yaml"
    path.unlink()
    if config is not None:
        path.write_text(config)
    server.process.send_signal(signal.SIGHUP)
    message = server.wait_log("reload_refused")["message"]
    assert text in message and "everything stays as it is" in message
    assert infer(server, key).status == 200
    assert closed_after(server.raw()) < 10  # still the old 200 ms
    assert "changed: 1" in reload(server, server_yaml(timeouts={"idle": "1m"}))


def test_sighup_without_a_file_says_so(identity):
    identity.process.send_signal(signal.SIGHUP)
    assert "--config" in identity.wait_log("reload_nothing")["message"]
    assert infer(identity, identity.acme).status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "hangup"])
def test_a_terminal_speaks_to_the_supervisor_only(make_server, folder, number):
    """Ctrl-C and a hangup go to the whole process group; the running request is answered all the same."""
    server = make_server(start=False)
    server.prefix = ["setsid"]
    server.start()
    key = one_model(server, folder, dict(IDENTITY, busy="300ms"))
    assert infer(server, key).status == 200
    pids = [server.pid("control"), server.pid("gateway"), *server.workers()]
    connection = server.connect()
    connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                       {"Authorization": "Bearer " + key})
    wait_until(lambda: server.status()["device"]["used"] == 1, "the request to run")
    os.killpg(server.process.pid, number)
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3, 4]
    connection.close()
    if number == signal.SIGHUP:
        assert [server.pid("control"), server.pid("gateway"), *server.workers()] == pids
    else:
        assert server.process.wait(15) == 0
        server.reader.join()
        server.process = None


# --- file systems that cannot be trusted ---

class Fuse(threading.Thread):
    """A FUSE file system of one empty folder: as much of the protocol as looking at it takes."""
    LOOKUP, FORGET, GETATTR, STATFS, INIT, OPENDIR, RELEASEDIR = 1, 2, 3, 17, 26, 27, 29
    ATTR = struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.fd = folder, os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"bulkhead-test", os.fsencode(folder), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        self.start()

    def answer(self, opcode, body):
        if opcode == self.INIT:
            major, minor, readahead = struct.unpack_from("<3I", body)
            return struct.pack("<4I2HI", 7, min(minor, 31), readahead, 0, 1, 1, 4096).ljust(64, b"\0")
        if opcode == self.GETATTR:
            return struct.pack("<QII", 1, 0, 0) + self.ATTR
        if opcode == self.OPENDIR:
            return struct.pack("<QII", 0, 0, 0)
        if opcode == self.STATFS:
            return struct.pack("<5Q10I", 1, 1, 1, 1, 1, 4096, 255, 4096, *[0] * 7)
        return b"" if opcode == self.RELEASEDIR else None

    def run(self):
        with contextlib.suppress(OSError):  # ENODEV: unmounted
            while True:
                request = os.read(self.fd, 1 << 17)
                size, opcode, unique = struct.unpack_from("<IIQ", request)
                if opcode == self.FORGET:
                    continue
                body = self.answer(opcode, request[40:size])
                error = 0 if body is not None else -(errno.ENOENT if opcode == self.LOOKUP else errno.ENOSYS)
                os.write(self.fd, struct.pack("<IiQ", 16 + len(body or b""), error, unique) + (body or b""))

    def stop(self):
        subprocess.run(["umount", self.folder], check=True)
        self.join(CEILING_S)
        os.close(self.fd)


@pytest.fixture
def fuse(folder):
    if not os.path.exists("/dev/fuse"):  # the numbers of all such file systems are in unit/supervisor/test_data.c
        pytest.skip("this kernel has no FUSE")
    (folder / "data").mkdir()
    mounted = Fuse(folder / "data")
    yield mounted
    mounted.stop()


def test_a_data_folder_on_an_unfit_file_system_is_refused(fuse, make_server):
    server = make_server(start=False)
    server.alerts_expected = True  # the reason is plain text
    server.start(wait=False)
    assert server.process.wait(CEILING_S) == 1
    server.reader.join()
    server.process = None
    text = "".join(l["message"] for l in server.log)
    assert "lies on a FUSE file system" in text and "--data" in text, text


# --- a full disk ---

@pytest.fixture
def small_disk(folder):
    """The data folder as a file system of its own; a function that fills what is free of it."""
    data = folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "bulkhead-test", data], check=True)

    def fill():
        with contextlib.suppress(OSError), open(data / "filler", "wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        return data / "filler"

    yield fill
    subprocess.run(["umount", data], check=True)


def names(server, kind):
    return {item["metadata"]["name"] for item in json.loads(server.cli("get", kind, "-o", "json").stdout)["items"]}


def test_a_full_disk_refuses_changes_and_serves_on(small_disk, make_server, folder):
    server = make_server()
    key = one_model(server, folder)
    assert infer(server, key).status == 200
    filler = small_disk()
    big = folder / "big.json"
    big.write_text(json.dumps(IDENTITY) + " " * 50_000)
    refused = server.apply(tenant_yaml("late") + model_yaml("big", "late", "big.json"), check=False)
    assert refused.returncode == 1 and "disk is full" in refused.stderr, refused
    kept = set()
    for i in range(500):  # pages that the store has in reserve hold some
        refused = server.apply(tenant_yaml(f"t{i}"), check=False)
        if refused.returncode != 0:
            break
        kept.add(f"t{i}")
    assert refused.returncode == 1 and "the disk of the store is full; nothing was changed" in refused.stderr, refused
    assert server.cli("key", "create", "--tenant", "acme", check=False).returncode == 1
    assert server.cli("delete", "tenant", "acme", check=False).returncode == 1
    assert names(server, "tenant") == {"acme"} | kept
    # old state serves on, and starts new workers
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_log("replica_lost")
    wait_until(lambda: infer(server, key).status == 200, "service after the worker's end")
    assert server.status()["ready"]
    # space again: no restart is needed, and nothing was lost
    filler.unlink()
    server.apply(tenant_yaml("late") + model_yaml("big", "late", "big.json"))
    late = server.key("late")
    assert server.infer("big", vector(1, [1, 2, 3, 4]), late).status == 200
    expected = {"acme", "late"} | kept
    assert names(server, "tenant") == expected
    assert server.stop() == 0
    server.start()
    assert names(server, "tenant") == expected
    assert infer(server, key).status == 200


def stored(server):
    """Artifacts, and what uploads have left."""
    return sorted(path.name for path in (server.data / "store/artifacts").iterdir())


def test_a_large_model_that_does_not_fit_the_disk_leaves_nothing(small_disk, make_server, folder):
    """It breaks off in the middle, however often; quotas hold meanwhile, and what fits is taken."""
    server = make_server()
    key = one_model(server, folder, tenant={"quota": {"requestsPerMinute": 1, "burst": 6}})
    before = stored(server)
    gguf_random.write_model(folder / "large.gguf", "0.01B", "Q8_0")
    assert (folder / "large.gguf").stat().st_size > 8 << 20  # the whole disk
    large = model_yaml("large", "acme", "large.gguf", engine="llama")
    for _ in range(3):
        refused = server.apply(large, check=False)
        assert refused.returncode == 1 and "disk is full; free some space there and try again" in refused.stderr, refused
        assert str(server.data) not in refused.stderr
        assert stored(server) == before
    assert infer(server, key).status == 200
    filler = small_disk()
    for i in range(500):  # pages that the store has in reserve hold some
        refused = server.cli("key", "create", "--tenant", "acme", "--name", f"k{i}", check=False)
        if refused.returncode != 0:
            break
    assert "the disk of the store is full; nothing was changed; free some space" in refused.stderr, refused
    keys = names(server, "key")
    statuses = [infer(server, key).status for _ in range(12)]
    assert statuses[0] == 200 and statuses[-1] == 429, statuses
    filler.unlink()
    later = server.key("acme", "later")  # no restart is needed
    assert names(server, "key") == keys | {"later"}
    subprocess.run(["mount", "-o", "remount,size=64m", server.data], check=True)
    server.apply(large)
    server.cli("delete", "model", "large", "--tenant", "acme")
    assert stored(server) == before
    assert server.stop() == 0
    server.start()
    assert names(server, "key") == keys | {"later"}
    assert server.http("GET", "/v2/models/echo", later).status == 200


def test_a_server_starts_on_a_full_disk(small_disk, make_server, folder):
    server = make_server()
    key = one_model(server, folder)
    assert server.stop() == 0
    filler = small_disk()
    server.start()
    assert infer(server, key).status == 200
    filler.unlink()
    server.apply(tenant_yaml("late"))
