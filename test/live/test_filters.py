"""Every process of a running server is under its system call filter."""
import json
import pathlib
import re

import pytest

from conftest import ROOT, model_yaml, tenant_yaml, vector, wait_until
from test_metrics import metrics
from test_microvm import BOOT_S, config
from test_microvm import apply as apply_when_tested
from test_hostile_worker import hostile, request_body  # noqa: F401 (a fixture)


def status(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.M))


def test_every_process_is_filtered(identity, folder):
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 200
    (worker,) = identity.workers()
    supervisor = status(identity.process.pid)
    roles = {role: status(identity.pid(role)) for role in ("control", "gateway")}
    for name, facts in {"supervisor": supervisor, "worker": status(worker), **roles}.items():
        assert (facts["Seccomp"], facts["NoNewPrivs"]) == ("2", "1"), name
    ours = int(status("self").get("Seccomp_filters", 0))  # what this test itself runs under
    own = int(supervisor["Seccomp_filters"]) - ours
    assert own == 1
    assert all(int(facts["Seccomp_filters"]) - ours == 2 for facts in roles.values())
    assert int(status(worker)["Seccomp_filters"]) - ours == 3  # its own: while loading, and for the rest of its life


def test_every_thread_of_an_engine_is_filtered(server, folder):
    """ONNX Runtime's threads are born under the narrow filter; the worker answers with all of them."""
    server.apply(tenant_yaml("acme") + model_yaml("digits", "acme", str(ROOT / "examples/digits/digits.onnx"),
                                                  engine="onnx", resources={"cpu": 2}))
    key = server.key("acme")
    assert server.http("GET", "/v2/models/digits", key).status == 200
    wait_until(server.workers, "a worker")
    (worker,) = server.workers()
    threads = list(pathlib.Path(f"/proc/{worker}/task").iterdir())
    assert len(threads) >= 2
    filters = {re.search(r"^Seccomp_filters:\s*(\d+)", (t / "status").read_text(), re.M)[1] for t in threads}
    ours = int(status("self").get("Seccomp_filters", 0))
    assert filters == {str(3 + ours)}


def test_a_worker_that_was_taken_over_gets_nothing_from_the_kernel(hostile):  # noqa: F811
    hostile.model("asks-the-kernel")
    answer = hostile.http("POST", "/v2/models/asks-the-kernel/infer", hostile.evil, request_body("asks-the-kernel"))
    text = answer.json["error"]
    calls = re.search(r"EPERM (\d+) of (\d+)\.", text)
    assert answer.status == 500 and calls and calls[1] == calls[2] and int(calls[1]) > 20, text
    assert hostile.infer("echo", vector(1, [1, 2, 3, 4]), hostile.calm).status == 200


@pytest.mark.parametrize("level", ["shared", "pool", "process", "container", "microvm"])
def test_what_engines_are_known_to_ask_is_no_news(make_server, level):
    """The demo's models serve without one refused call being told; only such as nobody knows of are counted."""
    server = make_server(config=config() if level == "microvm" else None)
    row = next(row for row in server.status()["isolation"]["levels"] if row["name"] == level)
    if row["state"] == "unavailable":
        pytest.skip(f"level {level}: {row['text']}")
    adapter = {"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Adapter", "metadata": {"name": "scribe", "tenant": "acme"},
               "spec": {"base": "novelist", "source": str(ROOT / "examples/models/scribe.gguf")}}
    names = ["novelist", *([] if level == "microvm" else ["scribe"])]  # which takes no adapters
    apply_when_tested(server, tenant_yaml("acme") + "".join(
        model_yaml(name, "acme", str(ROOT / "examples" / source), engine=engine, isolation={"level": level})
        for name, source, engine in (("digits", "digits/digits.onnx", "onnx"), ("novelist", "models/novelist.gguf", "llama"))) +
        (json.dumps(adapter) if "scribe" in names else ""), level)
    if level in ("container", "microvm"):
        server.fds = None  # the level's files are opened by the first who uses it, and kept
    key, connection = server.key("acme"), server.connect(BOOT_S)
    image = json.loads((ROOT / "examples/digits/request.json").read_text())["inputs"]
    slow = {"timeout": BOOT_S * 1000000}  # microseconds; a machine boots
    assert server.infer("digits", image, key, connection, parameters=slow).status == 200
    for name in names:
        answer = server.http("POST", "/v1/completions", key, {"model": name, "prompt": "The king", "max_tokens": 4},
                             connection=connection)
        assert answer.status == 200, answer.body
    connection.close()
    found = metrics(server)
    for model in ("digits", "novelist"):
        assert found.get("bulkhead_blocked_syscalls_total", tenant="acme", model=model) == 0
    assert [line for line in server.log if line["event"] == "worker_blocked_calls"] == []
