"""What cannot be opened is refused at apply, by a process behind a wall, and nothing of it stays; serving goes on."""
import contextlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import threading

import pytest

import onnx_model
from conftest import BUILD, BULKHEAD, IDENTITY, ROOT, model_yaml, processes, tenant_yaml, vector, wait_until
from load import Load
from test_hostile_worker import hostile  # noqa: F401 - a fixture

DIGITS = ROOT / "examples/digits/digits.onnx"


def ingests(server):
    return [pid for pid, (parent, argv) in processes().items()
            if parent == server.process.pid and argv[:2] == ["bulkhead-worker", "ingest"]]


def artifacts(server):
    return sorted(os.listdir(server.data / "store/artifacts"))


def opened(server, name=""):
    return [l["message"] for l in server.log if l["event"] == "model_opened" and f"model={name}" in l["message"]]


def state(server):
    """Everything that a refused apply must leave as it was; not what tenants use at the moment, which is told late."""
    rows = [json.loads(server.cli("get", kind, "-o", "json").stdout)["items"] for kind in ("tenants", "models", "versions")]
    for tenant in rows[0]:
        del tenant["status"]["quota"]
    return server.status()["generation"], artifacts(server), rows


def float_model(op, opset=17):
    return onnx_model.model([(op, ["x"], ["y"])], [("x", onnx_model.FLOAT, ["n", 4])],
                            [("y", onnx_model.FLOAT, ["n", 4])], opset=opset)


BROKEN = {
    "garbage": (b"\x08\x07 this is no model", "onnx", "not a well-formed ONNX file"),
    "truncated": (DIGITS.read_bytes()[:2000], "onnx", "not a well-formed ONNX file"),
    "unknown-op": (float_model("Frobnicate"), "onnx", "Frobnicate"),
    "future-opset": (float_model("Relu", opset=9000), "onnx", "opset"),
    "no-json": (b"{not json", "identity", "engine identity cannot open it"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_load_is_refused_and_leaves_nothing(identity, folder, name):
    content, engine, words = BROKEN[name]
    (folder / "broken").write_bytes(content)
    (folder / "other.json").write_text(json.dumps(dict(IDENTITY, busy="1us")))
    before = state(identity)
    result = identity.apply(tenant_yaml("new") + model_yaml("fine", "new", "other.json") +
                            model_yaml("broken", "new", "broken", engine=engine), check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert f"document 3 (line 5): Model new/broken: spec.source: engine {engine} cannot open it: " in result.stderr
    assert words in result.stderr and str(folder) not in result.stderr.replace(str(folder / "apply.yaml"), "")
    assert state(identity) == before and ingests(identity) == []
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    # a new version that cannot load leaves the present one as it is
    before = state(identity)
    result = identity.apply(model_yaml("echo", "acme", "broken", engine=engine), check=False)
    assert result.returncode == 1 and words in result.stderr and state(identity) == before


def test_a_model_that_needs_more_memory_to_be_opened_is_told_so(identity):
    before = state(identity)
    result = identity.apply(tenant_yaml("new") + model_yaml("digits", "new", str(DIGITS), engine="onnx",
                                                            resources={"memory": "16Mi"}), check=False)
    assert result.returncode == 1 and "needs more memory than its spec.resources.memory of 16 MiB" in result.stderr
    assert state(identity) == before


def test_what_was_described_is_not_described_again(make_server, folder):
    engines = folder / "engines"
    shutil.copytree(ROOT / "build/engines", engines)
    server = make_server("--engines", str(engines))
    digits = model_yaml("digits", "acme", str(DIGITS), engine="onnx")
    server.apply(tenant_yaml("acme") + tenant_yaml("other") + digits)
    assert len(opened(server)) == 1
    server.apply(digits)  # unchanged
    server.apply(model_yaml("digits", "acme", str(DIGITS), engine="onnx", resources={"memory": "200Mi"}))
    server.apply(model_yaml("again", "acme", str(DIGITS), engine="onnx") +
                 model_yaml("third", "other", str(DIGITS), engine="onnx"))
    assert len(opened(server)) == 1
    server.stop()
    server.start()
    server.apply(model_yaml("fourth", "other", str(DIGITS), engine="onnx"))
    assert opened(server) == []
    server.stop()
    os.utime(engines / "libonnxruntime.so.1")  # another library, for all the server knows
    server.start()
    server.apply(model_yaml("fifth", "other", str(DIGITS), engine="onnx"))
    assert len(opened(server)) == 1
    server.cli("delete", "model", "fifth", "--tenant", "other")
    for name, tenant in (("digits", "acme"), ("again", "acme"), ("third", "other"), ("fourth", "other")):
        server.cli("delete", "model", name, "--tenant", tenant)
    assert artifacts(server) == []
    server.apply(model_yaml("sixth", "other", str(DIGITS), engine="onnx"))  # forgotten with its last version
    assert len(opened(server)) == 2


def test_many_models_in_one_file_and_two_files_at_once(server, folder):
    names = [f"m{i}" for i in range(12)]
    for i, name in enumerate(names):
        (folder / f"{name}.json").write_text(json.dumps(dict(IDENTITY, busy=f"{i + 1}us")))
    server.apply(tenant_yaml("a") + tenant_yaml("b"))
    results = {}

    def work(tenant):
        path = folder / f"{tenant}.yaml"
        path.write_text("".join(model_yaml(name, tenant, f"{name}.json") for name in names))
        results[tenant] = server.cli("apply", "-f", str(path), check=False)

    threads = [threading.Thread(target=work, args=(tenant,)) for tenant in ("a", "b", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(r.returncode == 0 for r in results.values()), results
    for tenant in ("a", "b"):
        key = server.key(tenant)
        assert server.infer(names[-1], vector(1, [1, 2, 3, 4]), key).status == 200
    versions = json.loads(server.cli("get", "versions", "-o", "json").stdout)["items"]
    assert len(versions) == 2 * len(names)  # whoever came second found nothing new


# --- a process that was taken over ---

INGESTS = {
    "ingest-crashes": "crashed on it (signal 4",
    "ingest-exits": "ended without an answer",
    "ingest-eats": "needs more memory than its spec.resources.memory of 64 MiB",
    "ingest-garbage": "what it says of the model is not readable",
    "ingest-lies": "what it says of the model is not readable",
    "ingest-unsealed": "what it says of the model is not readable",
    "ingest-pipe": "what it says of the model is not readable",
    "ingest-talks": "ended without an answer",
    "ingest-forges-text": "?[2Jforged?",
    "ingest-forges-code": "odd",
}


def hostile_yaml(folder, name, file=None):
    file = file or f"{name}.json"
    (folder / file).write_text(json.dumps({"hostile": name}, separators=(",", ":")) + " " * (len(file) % 7))
    return model_yaml(file.split(".")[0], "evil", file, resources={"memory": "64Mi"})


@contextlib.contextmanager
def applying(server, folder, yaml, name):
    """The apply of a model that never answers, in the background."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml)
    process = subprocess.Popen([BULKHEAD, "apply", "-f", path, "--admin", server.data / "admin.sock"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_hostile_ingest_is_refused_in_bounds_while_serving_goes_on(hostile, folder):
    before = state(hostile)
    gateway, control = hostile.pid("gateway"), hostile.pid("control")
    with Load(hostile, hostile.calm, threads=1) as calm:
        wait_until(lambda: calm.count() > 0, "the calm tenant's model")
        with applying(hostile, folder, hostile_yaml(folder, "ingest-hangs"), "hang") as hang:
            wait_until(lambda: ingests(hostile), "the ingest that hangs")
            for name, words in INGESTS.items():
                result = hostile.apply(hostile_yaml(folder, name), check=False)
                assert result.returncode == 1 and words in result.stderr, (name, result.stderr)
                assert "Model evil/" in result.stderr and all(ord(c) >= 32 or c == "\n" for c in result.stderr)
                served = calm.count()
                wait_until(lambda: calm.count() > served or calm.broken, "service for the calm tenant")
            hostile.cli("get", "models")
            stdout, stderr = hang.communicate(timeout=90)
            assert hang.returncode == 1 and "opening it took longer than 30 s" in stderr, stderr
        assert (set(calm.statuses), calm.broken, calm.wrong) == ({200}, 0, 0), calm.codes
    assert ingests(hostile) == [] and state(hostile) == before
    assert (hostile.pid("gateway"), hostile.pid("control")) == (gateway, control)
    assert not [l for l in hostile.log if l["event"] in ("forged", "not_json", "role_ended")]
    assert all(ord(c) >= 32 for l in hostile.log for c in l["message"])


def test_a_client_that_goes_away_leaves_nothing(hostile, folder):
    before = state(hostile)
    with applying(hostile, folder, hostile_yaml(folder, "ingest-hangs"), "hang") as hang:
        wait_until(lambda: ingests(hostile), "the ingest that hangs")
        hang.send_signal(signal.SIGKILL)
        wait_until(lambda: not ingests(hostile), "the ingest to end with its client")
    wait_until(lambda: state(hostile) == before, "its artifact to go")


def test_more_at_once_than_are_opened_at_once(hostile, folder):
    """Four hang, a fifth and a good one wait for a place; when the clients of the four go, the good one is served."""
    with contextlib.ExitStack() as stack:
        hangs = [stack.enter_context(applying(hostile, folder, hostile_yaml(folder, "ingest-hangs", f"h{'g' * i}.json"),
                                              f"hang{i}")) for i in range(5)]
        wait_until(lambda: len(ingests(hostile)) == 4, "four ingests")
        (folder / "good.json").write_text(json.dumps(dict(IDENTITY, busy="2us")))
        good = stack.enter_context(applying(hostile, folder, model_yaml("good", "calm", "good.json"), "good"))
        assert len(hostile.status()["replicas"]) <= 1  # admin requests are answered meanwhile
        assert len(ingests(hostile)) == 4 and good.poll() is None
        for hang in hangs:
            hang.send_signal(signal.SIGKILL)
        assert good.wait(60) == 0, good.stderr.read()
    wait_until(lambda: not ingests(hostile), "all ingests to end")
    assert hostile.infer("good", vector(1, [1, 2, 3, 4]), hostile.calm).status == 200


def test_control_killed_in_the_middle(hostile, folder):
    before = state(hostile)
    control = hostile.pid("control")
    with applying(hostile, folder, hostile_yaml(folder, "ingest-hangs"), "hang") as hang:
        wait_until(lambda: ingests(hostile), "the ingest that hangs")
        os.kill(control, signal.SIGKILL)
        assert hang.wait(60) == 1
        wait_until(lambda: not ingests(hostile), "the ingest to end with control")
    wait_until(lambda: hostile.pid("control") not in (None, control), "a new control")
    wait_until(lambda: hostile.cli("status", check=False).returncode == 0, "control to answer")
    assert state(hostile) == before  # what was uploaded is swept at its start
    result = hostile.apply(hostile_yaml(folder, "ingest-exits"), check=False)
    assert "ended without an answer" in result.stderr
    assert hostile.infer("echo", vector(1, [1, 2, 3, 4]), hostile.calm).status == 200


def test_the_server_stops_while_a_model_is_opened(hostile, folder):
    with applying(hostile, folder, hostile_yaml(folder, "ingest-hangs"), "hang") as hang:
        wait_until(lambda: ingests(hostile), "the ingest that hangs")
        assert hostile.stop() == 0
        stdout, stderr = hang.communicate(timeout=60)
        assert hang.returncode == 1, stderr


# --- folders ---

def floats(count, seed):
    return struct.pack(f"<{count}f", *(random.Random(seed).uniform(-1, 1) for _ in range(count)))


def external_model(location="weights.bin", more=None, bias="deep/er/bias.bin"):
    more = {"offset": 4096, "length": 64 * 64 * 4} if more is None else more
    return onnx_model.model([("MatMul", ["x", "w"], ["h"]), ("Reshape", ["h", "s"], ["r"]), ("Add", ["r", "b"], ["y"])],
                            [("x", onnx_model.FLOAT, ["n", 64])], [("y", onnx_model.FLOAT, ["n", 64])],
                            initializers=[onnx_model.external_tensor("w", [64, 64], location, **more),
                                          onnx_model.external_tensor("b", [64], bias),
                                          onnx_model.number(1, 2) + onnx_model.number(2, onnx_model.INT64) +
                                          onnx_model.message(8, "s") + onnx_model.message(9, struct.pack("<2q", -1, 64))])


def make_folder(path, content=None):
    (path / "deep/er").mkdir(parents=True)
    (path / "model.onnx").write_bytes(content or external_model())
    (path / "weights.bin").write_bytes(b"\xff" * 4096 + floats(64 * 64, 1) + b"more")
    (path / "deep/er/bias.bin").write_bytes(floats(64, 2))
    (path / "empty.txt").touch()
    return path


def infer_floats(server, key, model, data, rows):
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 64],
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}).encode()
    answer = server.http("POST", f"/v2/models/{model}/infer", key, head + data,
                         {"Inference-Header-Content-Length": str(len(head))})
    assert answer.status == 200, answer.body
    return answer.body[int(answer.headers["Inference-Header-Content-Length"]):]


def test_external_data_inside_the_folder_answers_as_onnx_runtime_does(server, folder):
    source = make_folder(folder / "net")
    rows = floats(3 * 64, 3)
    (folder / "rows.bin").write_bytes(rows)
    direct = subprocess.run([BUILD / "test/unit/engine/ort_direct", ROOT / "build/engines/libonnxruntime.so.1",
                             source / "model.onnx", "1", "1", f"x=FP32:3,64:{folder / 'rows.bin'}"],
                            capture_output=True, timeout=120, check=True).stdout
    server.apply(tenant_yaml("acme") + model_yaml("net", "acme", "net/", engine="onnx"))
    key = server.key("acme")
    singly = b"".join(infer_floats(server, key, "net", rows[i * 256:i * 256 + 256], 1) for i in range(3))
    assert len(direct) == 3 * 256 and singly == direct
    # the same folder gives the same bytes, whoever made it and when
    os.utime(source / "weights.bin", (1, 1))
    again = make_folder(folder / "copy")
    result = server.apply(model_yaml("net", "acme", "net", engine="onnx") + model_yaml("two", "acme", "copy", engine="onnx"))
    assert "two created" in result.stdout and len(artifacts(server)) == 1 and len(opened(server)) == 1
    (again / "deep/er/bias.bin").write_bytes(floats(64, 4))
    server.apply(model_yaml("two", "acme", "copy", engine="onnx"))
    assert infer_floats(server, key, "two", rows[:256], 1) != direct[:256]
    server.stop()
    server.start()
    assert infer_floats(server, key, "net", rows[:256], 1) == direct[:256]


OUTSIDE = {
    "parent": ("../weights.bin", "no plain name of a file inside the model's own folder"),
    "inner-parent": ("deep/../weights.bin", "no plain name"),
    "absolute": ("/etc/hostname", "an absolute path"),
    "missing": ("other.bin", "there is no such file in the model's folder"),
    "empty": ("", "no plain name"),
    "memory": ("*/_ORT_MEM_ADDR_/*", "no plain name"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_external_data_outside_is_refused(server, folder, name):
    location, words = OUTSIDE[name]
    make_folder(folder / "net", external_model(location))
    (folder / "weights.bin").write_bytes(b"\0" * 65536)
    server.apply(tenant_yaml("acme"))
    before = state(server)
    result = server.apply(model_yaml("net", "acme", "net", engine="onnx"), check=False)
    assert result.returncode == 1 and f"tensor 'w' keeps its data in another file (external data), '{location}': " in result.stderr
    assert words in result.stderr and state(server) == before


def test_external_data_is_taken_as_it_is_or_not_at_all(server, folder):
    server.apply(tenant_yaml("acme"))
    size = 4096 + 64 * 64 * 4 + 4
    for number, (more, words) in enumerate((({"offset": size + 1}, "that file is shorter than the tensor needs"),
                                            ({"offset": 8192, "length": size - 8191}, "that file is shorter"),
                                            ({"offset": 2 ** 64}, "not well-formed"), ({"offset": -1}, "not well-formed"),
                                            ({"offset": 4096, "surprise": 1}, "not well-formed"),
                                            ({"offset": 8192}, "ONNX Runtime refuses the model"))):
        make_folder(folder / f"net{number}", external_model(more=more))
        result = server.apply(model_yaml("net", "acme", f"net{number}", engine="onnx"), check=False)
        assert result.returncode == 1 and words in result.stderr, (more, result.stderr)
    single = folder / "single.onnx"
    single.write_bytes(external_model())
    result = server.apply(model_yaml("net", "acme", "single.onnx", engine="onnx"), check=False)
    assert result.returncode == 1 and "give the folder that holds both as spec.source" in result.stderr
    assert artifacts(server) == []


def test_what_a_folder_may_not_hold_is_named(server, folder):
    server.apply(tenant_yaml("acme"))
    calls = {
        "link.bin": (lambda path: path.symlink_to("/etc/hostname"), "a symbolic link"),
        "socket": (lambda path: os.mknod(path, 0o140600), "neither a file nor a folder"),
        "fifo": (os.mkfifo, "neither a file nor a folder"),
        "device": (lambda path: os.mknod(path, 0o020600, os.makedev(1, 3)), "neither a file nor a folder"),
        "new\nline": (lambda path: path.touch(), "UTF-8 without control characters"),
        "l" * 200: (lambda path: (path.mkdir(), (path / ("m" * 100)).touch()), "more than 255 bytes"),
        "linked": (lambda path: path.symlink_to(folder), "a symbolic link"),
    }
    for number, (name, (make, words)) in enumerate(calls.items()):
        source = make_folder(folder / f"net{number}")
        make(source / name)
        result = server.apply(model_yaml("net", "acme", f"net{number}", engine="onnx"), check=False)
        assert result.returncode == 1 and words in result.stderr and "Model acme/net: spec.source" in result.stderr, result.stderr
        assert name in result.stderr or "\n" in name or len(name) > 100, result.stderr
    (folder / "none").mkdir()
    many = make_folder(folder / "many")
    for i in range(1021):
        (many / f"f{i}").touch()
    several = make_folder(folder / "several")
    (several / "model.onnx").rename(several / "a.onnx")
    (several / "b.onnx").touch()
    nothing = make_folder(folder / "nothing")
    (nothing / "model.onnx").unlink()
    for name, words in (("none", "the folder is empty"), ("many", "more files than a folder may hold"),
                        ("several", "call the model model.onnx"), ("nothing", "no file whose name ends in .onnx")):
        result = server.apply(model_yaml("net", "acme", name, engine="onnx"), check=False)
        assert result.returncode == 1 and words in result.stderr, result.stderr
    (many / "f0").unlink()
    server.apply(model_yaml("net", "acme", "many", engine="onnx"))
    assert len(artifacts(server)) == 1
