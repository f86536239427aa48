"""`bulkhead doctor`: what this host can isolate, with and without root, beside a server and without one."""
import json
import subprocess

from conftest import BULKHEAD, IDENTITY, cgroups, model_yaml, processes, tenant_yaml, vector, wait_until
from test_isolation import WITHOUT_CGROUPS

LEVELS = ["shared", "pool", "process", "container", "microvm"]
FACTS = ["os", "kernel", "user", "cpus", "memory", "cgroups", "userNamespaces", "landlock", "seccomp", "runtimes", "kvm",
         "qemu", "guestKernel", "cpusets"]


def doctor(*args, prefix=()):
    return subprocess.run([*prefix, BULKHEAD, "doctor", *args], text=True, capture_output=True, timeout=300)


def check(found):
    assert set(found) == {"version", "root", "default", "defaultWorks", "levels", "runtimes", "host"}
    assert [level["name"] for level in found["levels"]] == LEVELS
    for level in found["levels"]:
        assert set(level) == {"name", "state", "limits", "testMs", "text"}
        assert level["state"] in ("available", "degraded", "unavailable") and level["text"]
    assert [fact["name"] for fact in found["host"]] == FACTS
    assert all(set(fact) == {"name", "good", "text"} and fact["text"] for fact in found["host"])
    assert [runtime["name"] for runtime in found["runtimes"]] == ["runc", "crun", "runsc", "kata"]
    for runtime in found["runtimes"]:
        assert set(runtime) == {"name", "state", "text"} and runtime["state"] in ("available", "unavailable")
        assert runtime["text"]
    return {level["name"]: level for level in found["levels"]}


def test_json_table_and_yaml_tell_the_same():
    result = doctor("-o", "json")
    found = json.loads(result.stdout)
    levels = check(found)
    assert result.returncode == 0 and found["root"] is True and found["defaultWorks"] is True
    assert levels["process"]["state"] != "unavailable" and levels["process"]["limits"] and levels["process"]["testMs"] > 0
    table = doctor()
    assert table.returncode == 0 and table.stderr == ""
    lines = table.stdout.splitlines()
    for name in LEVELS:
        assert any(line.split()[:2] == [name, levels[name]["state"]] for line in lines), name
    for name in FACTS:
        assert any(line.startswith(name) for line in lines), name
    assert max(map(len, lines)) <= 100
    assert "Models run here at level process" in table.stdout
    assert doctor("-o", "yaml").stdout.startswith("version: ")
    assert doctor("-o", "xml").returncode == 2


def test_it_leaves_nothing_and_disturbs_no_server(identity):
    replicas = identity.status()["replicas"]
    assert doctor("-o", "json").returncode == 0
    wait_until(lambda: not any("bulkhead.doctor-" in str(group) for group in cgroups()), "its groups to be gone")
    wait_until(lambda: not any(argv[1:2] == ["doctor"] for _, argv in processes().values()), "its children to be gone")
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    assert identity.status()["replicas"][:len(replicas)] == replicas


def test_the_server_says_the_same(server):
    levels = check(json.loads(doctor("-o", "json").stdout))
    for told in server.status()["isolation"]["levels"]:
        if told["state"] == "testing":
            continue  # a level whose test takes long: doctor waited for it, the server told us before
        assert (told["state"] == "available") == (levels[told["name"]]["state"] != "unavailable"), told
        assert told["limits"] == levels[told["name"]]["limits"]


def test_without_limits_the_default_does_not_work():
    result = doctor("-o", "json", prefix=WITHOUT_CGROUPS)
    found = json.loads(result.stdout)
    level = check(found)["process"]
    assert result.returncode == 1 and found["defaultWorks"] is False
    assert level["state"] == "degraded" and level["limits"] is False and "NO LIMITS" in level["text"]
    cgroups_fact = next(fact for fact in found["host"] if fact["name"] == "cgroups")
    assert cgroups_fact["good"] is False and "mount cgroup v2" in cgroups_fact["text"]
    assert "--allow-unlimited" in doctor(prefix=WITHOUT_CGROUPS).stdout


def test_a_plain_user_is_told_what_root_would_add(folder):
    folder.chmod(0o755)
    program = folder / "bulkhead"
    program.write_bytes(BULKHEAD.read_bytes())
    program.chmod(0o755)
    result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "doctor", "-o",
                             "json"], text=True, capture_output=True, timeout=300, cwd="/")
    found = json.loads(result.stdout)
    check(found)
    assert result.returncode == 1 and found["root"] is False
    user = next(fact for fact in found["host"] if fact["name"] == "user")
    assert user["good"] is False and "Root would add" in user["text"] and "sudo" in user["text"]


def test_a_level_that_works_takes_a_model(server, folder):
    """What doctor calls available is no promise: a model is served there."""
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    key = None
    server.fds = None  # a level keeps the files that it needs, once used
    for name, level in check(json.loads(doctor("-o", "json").stdout)).items():
        if level["state"] == "unavailable" or not level["limits"]:
            continue
        yaml = tenant_yaml("acme") + model_yaml(f"echo-{name}", "acme", "echo.json", isolation={"level": name})
        # some levels are tested when somebody first asks for them
        result = wait_until(lambda: (r := server.apply(yaml, check=False)) and "still being tested" not in r.stderr and r,
                            f"the server to have tested {name}", 90)
        assert result.returncode == 0, result.stderr
        key = key or server.key("acme")
        answer = server.infer(f"echo-{name}", vector(1, [1, 2, 3, 4]), key, server.connect(90),
                              parameters={"timeout": 90 * 1000000})
        assert answer.status == 200, answer.body
    assert key
