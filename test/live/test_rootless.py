"""A server that a plain user starts: what works with user namespaces works, the rest is refused with the reason."""
import json
import os
import shutil
import subprocess

import pytest
from conftest import BULKHEAD, IDENTITY, model_yaml, tenant_yaml, vector

pytestmark = pytest.mark.skipif(not shutil.which("newuidmap"), reason="package uidmap is not installed")
NOBODY = 65534


@pytest.fixture
def as_nobody(folder):
    """A command's prefix: user nobody, who has subordinate ids in this command's view of /etc alone."""
    folder.chmod(0o755)
    ids = folder / "ids"
    ids.write_text("daemon:1000:70000\nnobody:200000:65535\nnobody:200000:65536\n")  # the second is too small to be taken

    def make(ids=ids):
        script = (f"mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && "
                  f'exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$0" "$@"')
        return ["unshare", "-m", "sh", "-c", script]

    programs = folder / "programs"  # where this user can execute them, wherever the tree lies
    programs.mkdir()
    for name in ("bulkhead", "bulkhead-worker"):
        shutil.copy(BULKHEAD.parent / name, programs / name)
    data = folder / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    return make


def rootless(make_server, folder, as_nobody, *args):
    server = make_server(*args, start=False)
    server.program = folder / "programs" / "bulkhead"
    server.prefix = as_nobody()
    return server.start()


def cli(server, as_nobody, *args, check=True):
    """As the user who started it: to its namespace, the root of this host is nobody."""
    result = subprocess.run([*as_nobody(), server.program, *args, "--data", server.data], text=True, capture_output=True,
                            timeout=120)
    assert not check or result.returncode == 0, result.stderr
    return result


def test_it_serves_without_limits_when_told_to(make_server, folder, as_nobody):
    server = rootless(make_server, folder, as_nobody, "--allow-unlimited")
    assert "plain user" in server.wait_log("rootless")["message"]
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    (folder / "all.yaml").write_text(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", replicas={"min": 1}))
    cli(server, as_nobody, "apply", "-f", folder / "all.yaml")
    key = cli(server, as_nobody, "key", "create", "--tenant", "acme").stdout.split()[-1]
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200

    found = json.loads(cli(server, as_nobody, "explain", "model", "echo", "--tenant", "acme", "-o", "json").stdout)
    walls = {wall["topic"]: wall["verdict"] for wall in found["walls"]}
    assert found["measured"] and walls["network"] == "contained" and walls["files"] == "contained"
    assert walls["memory"] == "limited" and walls["cpuTime"] == "not contained"
    [pid] = server.workers()
    uids = {role: os.stat(f"/proc/{pid}").st_uid for role, pid in
            {"supervisor": server.process.pid, "control": server.pid("control"), "gateway": server.pid("gateway"),
             "worker": pid}.items()}
    status = open(f"/proc/{pid}/status").read()
    assert f"Uid:\t{200000 + found['replicas'][0]['uid'] - 1}\t" in status  # one of nobody's own, and nobody else's
    for role in ("control", "gateway"):
        line = next(l for l in open(f"/proc/{server.pid(role)}/status") if l.startswith("Uid:"))
        assert 200000 <= int(line.split()[1]) < 265536, (role, uids)


def test_models_with_limits_are_refused(make_server, folder, as_nobody):
    server = rootless(make_server, folder, as_nobody)
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    (folder / "all.yaml").write_text(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json"))
    result = cli(server, as_nobody, "apply", "-f", folder / "all.yaml", check=False)
    assert result.returncode == 1 and "cannot be limited" in result.stderr and "--allow-unlimited" in result.stderr


def test_doctor_shows_what_such_a_server_could_do(folder, as_nobody):
    program = folder / "programs" / "bulkhead"

    def doctor(prefix):
        result = subprocess.run([*prefix, program, "doctor", "-o", "json"], text=True, capture_output=True, timeout=300,
                                cwd="/")
        value = json.loads(result.stdout)
        assert value["root"] is False and result.returncode == 1 and value["defaultWorks"] is False
        return ({level["name"]: level for level in value["levels"]}["process"],
                next(fact["text"] for fact in value["host"] if fact["name"] == "user"))

    process, user = doctor(as_nobody())
    assert process["state"] == "degraded" and "NO LIMITS" in process["text"]
    assert "65536 subordinate ids of nobody" in user and "Root would add limits" in user
    for text in ("", "nobody:1000:10\n", "nobody:4294967290:65536\n", "nobody:x:65536\n", "nobody:0:65536\n", "nobody\n",
                 "nobody:5000\n", ":::\n"):
        (folder / "none").write_text(text)
        process, user = doctor(as_nobody(folder / "none"))
        assert process["state"] == "unavailable" and "no 65536 subordinate ids" in process["text"], text
        assert "usermod --add-subuids" in user


def test_without_ids_it_refuses_and_says_how(folder, as_nobody):
    (folder / "none").write_text("")
    result = subprocess.run([*as_nobody(folder / "none"), folder / "programs" / "bulkhead", "serve", "--data",
                             folder / "data", "--listen", "127.0.0.1:0"], text=True, capture_output=True, timeout=60)
    assert result.returncode == 1 and "needs root" in result.stderr and "sudo" in result.stderr
    assert "usermod --add-subuids" in result.stderr and not list((folder / "data").iterdir())
