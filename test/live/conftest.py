"""Live tests: black-box against the real binary, as root.

BULKHEAD_BUILD names the folder with bulkhead and bulkhead-worker (tools/test-run sets it). Every server gets its own data
folder and a port of the kernel's choice. Nothing here sleeps to wait for something: events are waited for, with a generous
ceiling. After every test: no alert in the log, no descriptor more than before, no process, cgroup or socket left.
"""
import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", ROOT / "build/debug")).resolve()
BULKHEAD = BUILD / "bulkhead"
# What glibc's name service keeps for a thread is suppressed by LeakSanitizer itself; that note is no alert of the server.
os.environ.setdefault("LSAN_OPTIONS", "print_suppressions=0")
# What a server leaves behind becomes a child of these tests, so that others' processes on this host are never counted.
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
CEILING_S = 60 if "debug" in str(BUILD) else 15  # sanitizers on a busy machine


def wait_until(condition, what, ceiling=CEILING_S):
    """Polls for what has no event of its own (files in /proc and /sys)."""
    end = time.monotonic() + ceiling
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {ceiling} s in vain for {what}")
        time.sleep(0.02)


def processes():
    """pid -> (parent, argv) of all bulkhead processes."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            argv = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")[:-1]
            if argv and os.path.basename(argv[0]) in (b"bulkhead", b"bulkhead-worker", b"bulkhead-machine", b"bulkhead-image"):
                stat = pathlib.Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
                if stat[0] != "Z":
                    # in a container the worker is started by its path
                    found[int(entry)] = (int(stat[1]), [os.path.basename(argv[0]).decode(), *(a.decode() for a in argv[1:])])
    return found


def stand_still(pid):
    """Stops a process where it is: when this returns it runs no further until SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + CEILING_S
    while pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < end, f"process {pid} does not stand still"
        os.sched_yield()  # the signal is on its way


@contextlib.contextmanager
def standing(server, *pids):
    """The workers of a server, or these of them, stand still meanwhile: what they run does not end, however long anything else takes. Not for
    ever: a lease is ended after 30 s while there is no estimate, then after 8 times that, and at least 1 s."""
    pids = pids or server.workers()
    assert pids
    for pid in pids:
        stand_still(pid)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def cgroups():
    """Every cgroup of ours, in any hierarchy."""
    found = set()
    for base, dirs, _ in os.walk("/sys/fs/cgroup"):
        for name in dirs:
            if "bulkhead" in os.path.join(base, name):
                found.add(os.path.join(base, name))
    return found


def cgroups_of(pid):
    """The groups that a server has made for itself; it keeps each open."""
    found = {os.path.realpath(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return {path for path in found if path.startswith("/sys/fs/cgroup/") and "bulkhead" in os.path.basename(path)}


def ancestors(pid):
    """Parent, its parent … of a process that may end meanwhile."""
    with contextlib.suppress(OSError):
        while pid > 1:
            pid = int(pathlib.Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[1])
            yield pid


def left_behind(servers, processes_before):
    """Processes and cgroups of ours once our servers have ended; other servers of these tests may still live."""
    alive = processes()
    living = {pid for pid, (_, argv) in alive.items() if argv[1:2] == ["serve"]}
    left = {}
    for pid, (_, argv) in alive.items():
        if pid not in processes_before and pid not in living and (argv[0] != "bulkhead" or argv[1:2] == ["role"]):
            above = set(ancestors(pid))
            if os.getpid() in above and not above & living:
                left[pid] = argv
    return left, {path for s in servers for path in s.cgroups if os.path.exists(path)}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["code"]


class Server:
    """One `bulkhead serve` with a data folder of its own."""

    def __init__(self, folder, *args, config=None):
        self.data = pathlib.Path(folder, "data")
        self.args = list(args)
        if config is not None:
            path = pathlib.Path(folder, "server.yaml")
            path.write_text(config)
            self.args += ["--config", str(path)]
        self.log, self.changed = [], threading.Condition()
        self.process = None
        self.port = None
        self.alerts_expected = False
        self.cgroups = set()  # its own, to be gone when it is
        self.fds = None  # what its roles held when it began to serve
        self.prefix = []  # command in front of the server's, such as unshare
        # Beside ours. LeakSanitizer's own suppression of the dynamic loader's blocks is no news, and not JSON.
        self.environment = {"LSAN_OPTIONS": "print_suppressions=0"}
        self.program = BULKHEAD

    # --- life ---

    def start(self, wait=True, ceiling=CEILING_S):
        self.log = []
        self.process = subprocess.Popen(
            [*self.prefix, self.program, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port or 0}", *self.args],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env={**os.environ, **self.environment})
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()
        if wait:
            line = self.wait_log("serving", ceiling=ceiling)
            self.port = int(re.search(r"listen=\S+:(\d+) ", line["message"]).group(1))
            self.cgroups |= cgroups_of(self.process.pid)
            self.fds = role_fds(self)
        return self

    def _read(self, process):
        for text in process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"level": "alert", "event": "not_json", "message": text}
            with self.changed:
                self.log.append(line)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def wait_log(self, event, count=1, contains="", ceiling=CEILING_S):
        """The count-th log line of that event, once it is there."""
        end = time.monotonic() + ceiling
        with self.changed:
            while True:
                lines = [l for l in self.log if l["event"] == event and contains in l["message"]]
                if len(lines) >= count:
                    return lines[count - 1]
                if self.process.poll() is not None and not self.reader.is_alive():
                    raise AssertionError(f"the server ended ({self.process.returncode}): {self.log}")
                if not self.changed.wait(end - time.monotonic()):
                    raise AssertionError(f"waited in vain for {count} × {event} {contains}: {self.log[-20:]}")

    def stop(self, number=signal.SIGTERM):
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(CEILING_S)
        self.reader.join(CEILING_S)
        self.process = None
        return code

    def pid(self, role):
        for pid, (parent, argv) in processes().items():
            if self.process and parent == self.process.pid and argv[1:] == ["role", role]:
                return pid
        return None

    def lose(self, victim):
        """Ends it and waits until it is back: "restart" (in order), or by kill -9 the whole "server" or one role."""
        if victim == "restart":
            assert self.stop() == 0
            self.start()
            return
        self.alerts_expected = True
        if victim == "server":
            pid = self.process.pid
            os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.reader.join()
            wait_until(lambda: not [p for p, (parent, _) in processes().items() if parent == pid],
                       "its processes to be gone")
            self.start()
            return
        old = self.pid(victim)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: self.pid(victim) not in (None, old), "another")
        wait_until(lambda: self.cli("status", check=False).returncode == 0 and self.status()["ready"], "service")

    def workers(self):
        return sorted(pid for pid, (parent, argv) in processes().items()
                      if self.process and parent == self.process.pid and argv[0] == "bulkhead-worker")

    # --- command line ---

    def cli(self, *args, stdin=None, check=True):
        result = subprocess.run([BULKHEAD, *args, "--admin", self.data / "admin.sock"], input=stdin, text=True,
                                capture_output=True, timeout=CEILING_S)
        if check and result.returncode != 0:
            raise AssertionError(f"{args}: {result.returncode} {result.stdout} {result.stderr}")
        return result

    def apply(self, yaml, check=True, cwd=None):
        path = pathlib.Path(cwd or self.data.parent, "apply.yaml")
        path.write_text(yaml)
        return self.cli("apply", "-f", str(path), check=check)

    def key(self, tenant, name="test"):
        return self.cli("key", "create", "--tenant", tenant, "--name", name).stdout.split()[-1]

    def status(self):
        return json.loads(self.cli("status", "-o", "json").stdout)

    # --- requests ---

    def connect(self, timeout=CEILING_S):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=CEILING_S)

    def http(self, method, path, key=None, body=None, headers=None, connection=None):
        c = connection or self.connect()
        headers = dict(headers or {})
        if key:
            headers["Authorization"] = "Bearer " + key
        c.request(method, path, body if body is None or isinstance(body, (bytes, str)) else json.dumps(body), headers)
        answer = c.getresponse()
        result = Answer(answer.status, answer.headers, answer.read())
        if connection is None:
            c.close()
        return result

    def infer(self, model, inputs, key, connection=None, **more):
        return self.http("POST", f"/v2/models/{model}/infer", key, {"inputs": inputs, **more}, connection=connection)


def fds(pid):
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def links(pid):
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{entry}: {os.readlink(f'/proc/{pid}/fd/{entry}')}")
    return sorted(found)


# Descriptors that a role holds for each replica: its process and its bus; inbox, outbox and a bell each way. And the one
# that libuv keeps in reserve from a process's first connection on. Control keeps the model, for further replicas of its version.
REPLICA_FDS = {"supervisor": 2, "gateway": 4, "control": 1}
RESERVE_FDS = {"supervisor": 0, "gateway": 1, "control": 1}


def role_fds(s):
    return {"supervisor": fds(s.process.pid), **{role: fds(s.pid(role)) for role in ("control", "gateway")}}


def fds_grown(s):
    """role -> (descriptors, allowed) of every role that holds more than when it began to serve, replicas aside."""
    replicas = len(s.workers())
    if any(l["event"] == "replica_started" and "level=shared" in l["message"] for l in s.log):
        replicas = max(replicas, len(s.status()["replicas"])) + 1  # a shared worker has a bus beside its members'
    allowed = {role: count + RESERVE_FDS[role] + replicas * REPLICA_FDS[role] for role, count in s.fds.items()}
    return {role: (count, allowed[role]) for role, count in role_fds(s).items() if count > allowed[role]}


def fds_leaked(s):
    if s.process is None or s.process.poll() is not None or s.fds is None:
        return {}
    try:  # connections end a moment after their clients, and dying workers hold theirs until they are reaped
        wait_until(lambda: not fds_grown(s), "descriptors to be closed")
        return {}
    except AssertionError:
        return {role: (count, links(s.process.pid if role == "supervisor" else s.pid(role)), processes())
                for role, count in fds_grown(s).items()}


@pytest.fixture
def folder():
    path = tempfile.mkdtemp(prefix="bulkhead-test-")
    os.chmod(path, 0o755)
    yield pathlib.Path(path)
    shutil.rmtree(path)


@pytest.fixture
def make_server(folder):
    """A function that makes servers; afterwards all of them must be gone without a trace."""
    before = processes()
    servers = []

    def make(*args, config=None, start=True):
        server = Server(folder if not servers else tempfile.mkdtemp(dir=folder), *args, config=config)
        servers.append(server)
        return server.start() if start else server

    yield make
    leaked = [fds_leaked(s) for s in servers]
    codes = [server.stop() for server in servers]
    alerts = [l for s in servers if not s.alerts_expected for l in s.log if l["level"] == "alert"]
    with contextlib.suppress(AssertionError):
        wait_until(lambda: left_behind(servers, before) == ({}, set()), "all processes and cgroups to be gone")
    assert left_behind(servers, before) == ({}, set())
    assert not any((s.data / "admin.sock").exists() for s in servers)
    assert alerts == []
    assert not any(leaked), leaked
    assert all(code == 0 for code in codes), codes


@pytest.fixture
def server(make_server):
    return make_server()


IDENTITY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}


def tenant_yaml(name, **spec):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
                       "spec": spec}) + "\n---\n"


def model_yaml(name, tenant, source, engine="identity", **spec):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Model",
                       "metadata": {"name": name, "tenant": tenant},
                       "spec": {"engine": engine, "source": source, **spec}}) + "\n---\n"


def described_before(server, content):
    """As if the onnx engine had opened and described `content` before: apply takes it, and then it cannot load. The server
    is started again for it."""
    server.apply(tenant_yaml("elder") + model_yaml("digits", "elder", str(ROOT / "examples/digits/digits.onnx"), "onnx"))
    assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(server.data / "store/bulkhead.db")) as db:
        db.execute("INSERT INTO description (digest, engine, engine_id, signature) SELECT ?, engine, engine_id, signature "
                   "FROM description WHERE engine = 'onnx'", (hashlib.sha256(content).digest(),))
        db.commit()
    server.start()
    server.cli("delete", "model", "digits", "--tenant", "elder")
    server.cli("delete", "tenant", "elder")


@pytest.fixture
def identity(server, folder):
    """A server with tenant acme and its identity model `echo`; .acme is a key."""
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"))
    server.acme = server.key("acme")
    return server


def container_row(server):
    return server.status()["isolation"]["levels"][3]


@pytest.fixture
def contained(server, folder):
    """A server whose level container has been found to work."""
    wait_until(lambda: container_row(server)["state"] != "testing", "the test of level container")
    assert container_row(server)["state"] == "available", container_row(server)
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme"))
    server.acme = server.key("acme")
    return server


def vector(rows, values, name="x", datatype="FP32"):
    return [{"name": name, "shape": [rows, len(values) // rows], "datatype": datatype, "data": values}]
