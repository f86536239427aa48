"""Attempts to get out of a worker's walls (escape/): first each without walls, where it must succeed, then by a hostile engine
in a real worker, where none may."""
import contextlib
import ctypes
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from conftest import BUILD, model_yaml, tenant_yaml, wait_until
from test_metrics import metrics

ESCAPE = BUILD / "test/live/escape"
LISTED = subprocess.run([ESCAPE, "list"], capture_output=True, text=True, check=True).stdout.splitlines()
NAMES = [line.split()[0] for line in LISTED]
MACHINE = [line.split()[0] for line in LISTED if line.endswith(" machine")]
# All that a worker can stand behind; crun runs its container in the machine.
WALLS = {name: {"level": name} for name in ("shared", "pool", "process", "container", "microvm")}
WALLS["microvm-crun"] = {"level": "microvm", "runtime": "crun"}
SECRET = "bulkhead-secret"
MACHINE_S = 180
BOOT_S = 90

VICTIM = """
import ctypes, os, time
here = ctypes.create_string_buffer(b"bulkhead-secret")
fd = os.memfd_create("victim")
print(hex(ctypes.addressof(here)), fd, flush=True)
time.sleep(3600)
"""


class Host:
    """What an attempt would reach if it got out: a secret file, a process of root's, sockets, shared memory, a cgroup."""

    def __init__(self, stack):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bulkhead-escape-"))
        stack.callback(shutil.rmtree, self.folder)
        self.folder.chmod(0o777)
        self.secret = self.folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o666)
        self.victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       text=True, env={"SECRET": SECRET})
        stack.callback(self.victim.wait)
        stack.callback(self.victim.kill)
        self.address, self.memfd = self.victim.stdout.readline().split()
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        self.path, self.abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        self.path.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.abstract.bind("\0bulkhead-escape-%d" % os.getpid())
        for s in (self.path, self.abstract):
            s.listen(8)
        self.shm = pathlib.Path("/dev/shm/bulkhead-escape-%d" % os.getpid())
        self.shm.write_text(SECRET)
        self.shm.chmod(0o666)
        stack.callback(self.shm.unlink)
        libc = ctypes.CDLL(None, use_errno=True)
        self.key = 0x62680000 + os.getpid() % 65536
        shm, queue = libc.shmget(self.key, 4096, 0o1666), libc.msgget(self.key, 0o1666)
        assert shm >= 0 and queue >= 0
        stack.callback(libc.shmctl, shm, 0, None)
        stack.callback(libc.msgctl, queue, 0, None)
        root = next(path for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
                    if os.path.exists(path + "/cgroup.procs"))
        self.cgroup = pathlib.Path(root) / ("bulkhead-escape-%d" % os.getpid())
        self.cgroup.mkdir()
        stack.callback(self.cgroup.rmdir)

    def disk(self):
        """A block device, by preference the one that / lies on."""
        number = os.stat("/").st_dev
        for path in (os.path.realpath("/dev/block/%d:%d" % (os.major(number), os.minor(number))), *glob.glob("/dev/vd?"),
                     *glob.glob("/dev/sd?"), *glob.glob("/dev/nvme?n?")):
            with contextlib.suppress(OSError), open(path, "rb"):
                return path
        return "/dev/loop-control"

    def argument(self, name, admin):
        group, _, what = name.partition(".")
        pid = str(self.victim.pid)
        special = {
            "files.host-users": "", "files.others-root": "%s %s" % (pid, self.secret), "cgroup.listed": "", "cgroup.leave": self.cgroup / "cgroup.procs",
            "cgroup.make": self.cgroup, "cgroup.release-agent": "", "devices.disk": self.disk(),
            "userns.join-mounts": pid, "userns.join-network": pid, "userns.join-ipc": pid,
            "shm.posix": self.shm.name, "shm.systemv": self.key, "shm.queue": self.key,
            "shm.memfd": "%s %s" % (pid, self.memfd), "network.tcp": self.tcp.getsockname()[1],
            "network.udp": self.udp.getsockname()[1], "unix-sockets.path": self.folder / "socket",
            "unix-sockets.admin": admin, "unix-sockets.abstract": "@bulkhead-escape-%d" % os.getpid(),
            "process_vm.read": "%s %s" % (pid, self.address), "process_vm.write": "%s %s" % (pid, self.address),
        }
        if name in special:
            return str(special[name])
        if group in ("files", "descriptors"):
            return str(self.secret)
        if group in ("ptrace", "process_vm", "signals") or what in ("environment", "memory", "others", "descriptors"):
            return pid
        return ""


@pytest.fixture
def host():
    with contextlib.ExitStack() as stack:
        yield Host(stack)


def outside(name, argument):
    # The folder is what a careless parent might have left open.
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run([ESCAPE, name, argument], capture_output=True, text=True, timeout=60, stdin=folder,
                              check=False)
    finally:
        os.close(folder)
    return (done.stdout.splitlines() or ["ended with %d" % done.returncode])[-1]


def test_each_attempt_succeeds_without_walls(host):
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(socket.socket(socket.AF_UNIX))
        admin.bind(str(host.folder / "admin.sock"))
        admin.listen(1)
        verdicts = {name: outside(name, host.argument(name, host.folder / "admin.sock"))
                    for name in NAMES if name not in MACHINE}
    assert {name: v for name, v in verdicts.items() if not v.startswith("escaped ")} == {}
    assert len(NAMES) >= 60 and len({name.split(".")[0] for name in NAMES}) >= 15


def cpio(files):
    """An archive in the kernel's own form, `newc`, of {name: (mode, bytes)}."""
    out = b""
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return out


def kernel():
    found = sorted([*glob.glob(str(BUILD / "guest/vmlinuz")), *glob.glob(str(BUILD.parent / "guest/vmlinuz")),
                    *glob.glob("/boot/vmlinuz-*-cloud-amd64")])
    return found[-1] if found else None


def test_the_harmful_ones_succeed_in_a_machine_to_throw_away(folder):
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu or not kernel():
        pytest.skip("no QEMU or no kernel linux-image-cloud-amd64 here: %d attempts have no control" % len(MACHINE))
    (folder / "initrd").write_bytes(cpio({"init": (0o100755, ESCAPE.read_bytes()), "dev": (0o40755, b"")}))
    console = folder / "console"
    subprocess.run([qemu, "-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none",
                    "-no-reboot", "-kernel", kernel(), "-initrd", folder / "initrd", "-serial", "file:%s" % console,
                    "-append", "console=ttyS0 panic=-1 quiet no_timer_check"], timeout=MACHINE_S, check=True)
    said = dict(line.split("escape: ")[1].split(" ", 1) for line in console.read_text(errors="replace").splitlines()
                if "escape: " in line)
    assert sorted(said) == sorted(MACHINE), console.read_text(errors="replace")[-2000:]
    assert {name: v for name, v in said.items() if not v.startswith("escaped ")} == {}


def long_tier():
    """What boots many machines is done whole by `make test LONG=1` and `make soak`."""
    return bool(os.environ.get("BULKHEAD_LONG") or os.environ.get("BULKHEAD_SOAK"))


def boots(wall):
    return WALLS[wall]["level"] == "microvm"


def patience(server, wall):
    """For requests that may have to wait until a machine has booted, under emulation, on a busy host."""
    if not boots(wall):
        return {}
    return {"connection": server.connect(BOOT_S), "parameters": {"timeout": BOOT_S * 1000000}}


def apply_at(server, wall, name="hostile", tenant="evil", **spec):
    """Applies a hostile model behind a wall, or skips the test with the reason why that is not to be had here. A
    level that boots a machine is tried when it is first asked for, so the first answer may be to ask again."""
    level = WALLS[wall]["level"]
    yaml = model_yaml(name, tenant, "hostile.json", isolation=WALLS[wall], **spec)
    done = []

    def applied():
        done[:] = [server.apply(yaml, check=False)]
        return "being tested" not in done[0].stderr
    wait_until(applied, "level %s to be tested" % level, 150)
    if "spec.isolation." in done[0].stderr and ("available" in done[0].stderr or "apt install" in done[0].stderr):
        pytest.skip("level %s is not available here: %s" % (level, done[0].stderr))
    assert done[0].returncode == 0, done[0].stderr


@pytest.fixture
def hostile(make_server, folder):
    """A server whose workers are real ones, but for an engine that tries to get out."""
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    for program in ("bulkhead", "bulkhead-guest", "bulkhead-guest-oci"):
        shutil.copy(BUILD / program, programs / program)
    shutil.copy(BUILD / "test/live/escape-worker", programs / "bulkhead-worker")
    for beside in ("engines", "guest"):
        os.symlink(BUILD / beside, programs / beside)
    server = make_server(start=False, config="apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: s}\n"
                                             f"spec: {{timeouts: {{request: {BOOT_S}s}}}}\n")
    server.program = programs / "bulkhead"
    server.start()
    (folder / "hostile.json").write_text("{}")
    server.apply(tenant_yaml("evil"))
    server.evil = server.key("evil")
    return server


def attempt(server, what, model, wall="process"):
    answer = server.infer(model, [{"name": "what", "shape": [1], "datatype": "BYTES", "data": [what]}], server.evil,
                          **patience(server, wall))
    if answer.status != 200:
        return "held: the worker was ended: %d %s" % (answer.status, answer.body[:200])
    return answer.json["outputs"][0]["data"][0]


@pytest.mark.parametrize("wall", WALLS)
def test_no_attempt_succeeds_behind_the_walls(hostile, host, wall):
    """In a machine an attempt meets the machine's kernel, behind the same walls as outside; what is of the host is not
    there at all."""
    apply_at(hostile, wall)
    if boots(wall):
        hostile.fds = None  # the level's files are opened by the first who uses it, and kept
    verdicts = {name: attempt(hostile, ("%s %s" % (name, host.argument(name, hostile.data / "admin.sock"))).strip(),
                              "hostile", wall) for name in NAMES}
    bad = {name: v for name, v in verdicts.items() if not v.startswith("held")}
    assert bad == {}, sorted(bad.items())
    assert host.victim.poll() is None
    assert host.secret.read_text() == SECRET and {p.name for p in host.folder.iterdir()} == {"secret", "socket"}


def blocked(server):
    """What its replica was refused."""
    [replica] = json.loads(server.cli("get", "replicas", "--tenant", "evil", "-o", "json").stdout)["items"]
    return replica["status"]["blockedCalls"]


def blocked_everywhere(server, each):
    """Waits until it is `each` calls of two kinds, and then told alike by all who tell."""
    expected = {"count": 2 * each, "calls": [{"call": "io_uring_setup", "count": each}, {"call": "add_key", "count": each}]}
    wait_until(lambda: blocked(server)["count"] >= 2 * each, "the count")
    assert blocked(server) == expected
    explained = json.loads(server.cli("explain", "model", "hostile", "--tenant", "evil", "-o", "json").stdout)
    assert [replica["blockedCalls"] for replica in explained["replicas"]] == [expected]
    assert metrics(server).get("bulkhead_blocked_syscalls_total", tenant="evil", model="hostile") == 2 * each


@pytest.mark.parametrize("wall", WALLS)
def test_refused_system_calls_are_counted(hostile, wall):
    apply_at(hostile, wall)
    if boots(wall):
        hostile.fds = None  # as above
    wait_until(lambda: attempt(hostile, "calls 0", "hostile", wall) == "0", "an answer", MACHINE_S)
    assert blocked(hostile) == {"count": 0, "calls": []}
    assert attempt(hostile, "calls 3", "hostile", wall) == "6"
    assert attempt(hostile, "calls 4", "hostile", wall) == "8"
    blocked_everywhere(hostile, 7)
    told = [line["message"] for line in hostile.log if line["event"] == "worker_blocked_calls"]
    assert len(told) == 1 and "model=hostile" in told[0] and "io_uring_setup (" in told[0]
    assert "io_uring_setup 7, add_key 7" in hostile.cli("explain", "model", "hostile", "--tenant", "evil").stdout


def test_a_new_gateway_is_told_of_refused_calls_too(hostile):
    apply_at(hostile, "process")
    assert attempt(hostile, "calls 2", "hostile") == "4"
    blocked_everywhere(hostile, 2)
    before = hostile.pid("gateway")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: hostile.pid("gateway") not in (None, before), "the next gateway")
    wait_until(lambda: attempt(hostile, "calls 1", "hostile") == "2", "its answer")
    blocked_everywhere(hostile, 3)


def test_a_refused_call_that_cannot_be_counted_ends_the_worker(hostile):
    """Who blocks the signal that counts gets no call made either."""
    apply_at(hostile, "process")
    assert attempt(hostile, "calls 1", "hostile") == "2"
    [before] = hostile.workers()
    assert attempt(hostile, "muffled", "hostile").startswith("held: the worker was ended: 503")
    wait_until(lambda: before not in hostile.workers(), "the worker's end")
    wait_until(lambda: attempt(hostile, "calls 1", "hostile") == "2", "the next worker")
