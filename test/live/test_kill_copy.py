"""kill -9 while control is in the middle of a model of some hundred MiB: its upload, its copy into memory for `apply` or for a
replica, its removal. Nothing half-written is served or stays, and the same works afterwards; others are served all the while.

No moment is guessed: control is stopped again and again, and looked at; in the middle it is killed where it stands. A machine
on which the whole came between two looks tries once more."""
import contextlib
import http.client
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import BULKHEAD, CEILING_S, model_yaml, stand_still, tenant_yaml, vector, wait_until
from load import Load
from test_large_model import gguf_random, write_large

SHAPE = gguf_random.Shape(320, 2048, 4, 16, 8, 5504, 512)
ATTEMPTS = 20
BEGUN = 1 << 20  # what has so many bytes is no small model's
PATIENCE_S = 4 * CEILING_S  # hashing and copying takes what the machine needs


class Large:
    """Tenant acme's model `large` in two contents, beside tenant calm's `echo`, which is served."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.size = write_large(folder / "large.gguf", SHAPE)
        assert write_large(folder / "other.gguf", SHAPE, seed=2) == self.size and self.size > 150 << 20
        (folder / "echo.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')
        server.apply(tenant_yaml("acme") + tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json", replicas={"min": 1}))
        self.acme, self.calm = server.key("acme"), server.key("calm")
        assert self.calm_served() == 200
        self.stored = self.artifacts()

    def calm_served(self):
        return self.server.infer("echo", vector(1, [1, 2, 3, 4]), self.calm).status

    def artifacts(self):
        return sorted(os.listdir(self.server.data / "store/artifacts"))

    def command(self, *args):
        return subprocess.Popen([BULKHEAD, *args, "--admin", self.server.data / "admin.sock"], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def apply(self, source="large.gguf"):
        path = self.folder / "large.yaml"
        path.write_text(model_yaml("large", "acme", source, "llama", resources={"cpu": 1, "memory": "1Gi"}))
        return self.command("apply", "-f", path)

    def done(self, process):
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output

    def delete(self):
        return self.command("delete", "model", "large", "--tenant", "acme")

    def listed(self):
        return "large" in self.server.cli("get", "models", "--tenant", "acme").stdout

    def asked(self):
        return self.server.http("POST", "/v1/completions", self.acme,
                                {"model": "large", "prompt": "abc", "max_tokens": 1, "temperature": 0},
                                connection=self.server.connect(PATIENCE_S))

    def opened(self, pid):
        """(what it is called, bytes) of every file that a process holds."""
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{entry}"
                yield os.readlink(path), os.stat(path).st_size

    def held(self):
        """Large files and memories without a name that control and the server hold."""
        pids = [self.server.process.pid, self.server.pid("control")]
        return [(name, size) for pid in pids for name, size in self.opened(pid) if "(deleted)" in name and size >= BEGUN]

    # --- states of a control that stands still ---

    def half(self, size):
        return BEGUN <= size < self.size

    def uploading(self, _):
        folder = self.server.data / "store/artifacts"
        return any(self.half((folder / name).stat().st_size) for name in self.artifacts() if name.startswith(".upload-"))

    def copying(self, pid):
        return any("memfd:artifact" in name and self.half(size) for name, size in self.opened(pid))

    def removing(self, pid):
        return any("/artifacts/" in name and "(deleted)" in name and self.half(size) for name, size in self.opened(pid))

    def caught(self, state, over):
        """Lets control run for a moment at a time until it is in that state, and stands still: its pid. None: `over` before."""
        pid = self.server.pid("control")
        while True:
            stand_still(pid)
            if state(pid):
                return pid
            os.kill(pid, signal.SIGCONT)
            if over():
                return None
            time.sleep(0.001)  # it runs; how far does not matter

    def clean(self):
        """Nothing of it is there, on the disk or in memory, and nobody lists or serves it."""
        wait_until(lambda: self.artifacts() == self.stored, "what was left behind to be removed")
        wait_until(lambda: not self.held(), "memory to be given back")
        assert not self.listed()
        assert self.asked().status == 404

    def works(self):
        """Applied, served, and deleted again."""
        self.done(self.apply())
        answer = self.asked()
        assert answer.status == 200, answer.body
        self.done(self.delete())
        self.clean()


@pytest.fixture
def large(server, folder):
    return Large(server, folder)


@contextlib.contextmanager
def lost(large, victim):
    """Around what loses it: calm is served before and after, and meanwhile too unless the whole server goes."""
    with Load(large.server, large.calm, threads=1) as load:
        wait_until(lambda: load.count() > 0, "service for calm")
        yield
        before = load.count()
        wait_until(lambda: load.count() > before, "service for calm afterwards")
    assert load.wrong == 0
    if victim == "control":
        assert set(load.statuses) == {200} and load.broken == 0, (load.statuses, load.codes, load.broken)


VICTIMS = pytest.mark.parametrize("victim", ["control", "server"])


@VICTIMS
@pytest.mark.parametrize("state", ["uploading", "copying"])
def test_in_the_middle_of_an_apply(large, victim, state):
    for _ in range(ATTEMPTS):
        apply = large.apply()
        if large.caught(getattr(large, state), lambda: apply.poll() is not None):
            break
        large.done(apply)
        large.done(large.delete())
    else:
        pytest.fail(f"never seen {state}")
    with lost(large, victim):
        large.server.lose(victim)
        output, _ = apply.communicate(timeout=PATIENCE_S)
        assert apply.returncode != 0, output
    large.clean()
    large.works()


@VICTIMS
def test_in_the_middle_of_a_cold_start(large, victim):
    answers = []

    def ask():
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(large.asked())

    for _ in range(ATTEMPTS):
        large.done(large.apply())
        client = threading.Thread(target=ask)
        client.start()
        if large.caught(large.copying, lambda: not client.is_alive()):
            break
        client.join()
        assert answers.pop().status == 200
        large.done(large.delete())
    else:
        pytest.fail("never seen copying")
    with lost(large, victim):
        large.server.lose(victim)
        client.join()
    if victim == "control":  # the gateway asks the next one
        assert answers and answers[0].status == 200, answers and answers[0].body
    answer = large.asked()
    assert answer.status == 200, answer.body
    large.done(large.delete())
    large.clean()


@VICTIMS
def test_in_the_middle_of_a_removal(large, victim):
    for _ in range(ATTEMPTS):
        large.done(large.apply())
        large.done(large.apply("other.gguf"))  # one waits while the other is removed
        delete = large.delete()
        gone = lambda: delete.poll() is not None and large.artifacts() == large.stored and not large.held()  # noqa: E731
        if large.caught(large.removing, gone):
            break
        large.done(delete)
    else:
        pytest.fail("never seen removing")
    with lost(large, victim):
        large.server.lose(victim)
        delete.communicate(timeout=PATIENCE_S)
    large.clean()
    large.works()
