"""The profile for one small machine: docs/edge.md."""
import json
import pathlib
import re

from conftest import BUILD, model_yaml, tenant_yaml, vector, wait_until
from test_sharing import Load

MIB = 1 << 20
EDGE = json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
                   "spec": {"profile": "edge", "limits": {"connections": 4096, "bodyBytes": "32Mi"}, "pool": {"size": 4}}})
SANITIZED = "debug" in str(BUILD)


def pss(pid):
    return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024


def own(server):
    return [server.process.pid, server.pid("control"), server.pid("gateway")]


def test_the_servers_own_memory_is_bounded(make_server, folder):
    """Under load from many connections, with answers as large as they may be. Sanitizers' shadow memory is not measured."""
    server = make_server(config=EDGE)
    (folder / "wide.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]}))
    models = "".join(model_yaml(f"m{i}", "acme", "wide.json", replicas={"max": 1, "idleAfter": "1s"}) for i in range(20))
    server.apply(tenant_yaml("acme") + models)
    key = server.key("acme")
    load = Load(server, key, 12, "m0")
    body = json.dumps({"inputs": vector(1, [0.5] * 40000)})
    answers = [server.http("POST", f"/v2/models/m{i % 4}/infer", key, body) for i in range(24)]
    load.stop()
    assert {a.status for a in answers} <= {200, 503} and answers[-1].status == 200
    assert all(a.code in ("no_memory", "overloaded") for a in answers if a.status == 503)
    if not SANITIZED:
        assert sum(map(pss, own(server))) < 64 * MIB
        for role, mib in (("control", 24), ("gateway", 28)):
            limits = pathlib.Path(f"/proc/{server.pid(role)}/limits").read_text()
            assert re.search(r"Max data size\s+(\d+)\s+(\d+)", limits).groups() == (str(mib * MIB),) * 2


def test_the_profile_cuts_what_the_file_says(make_server, folder):
    server = make_server(config=EDGE)
    (folder / "m.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}))
    server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "m.json"))
    key = server.key("acme")
    answer = server.http("POST", "/v2/models/m/infer", key, b"x" * (MIB + 1))
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert server.http("POST", "/v2/models/m/infer", key, b"x" * MIB).status == 400
    wait_until(lambda: server.status()["gateway"]["connections"] == 0, "no connection to be left")
    held = [server.connect() for _ in range(64)]
    for c in held:
        assert server.http("GET", "/v2", key, connection=c).status == 200
    late = server.connect()  # an idle one gives way
    assert server.http("GET", "/v2", key, connection=late).status == 200
    wait_until(lambda: server.status()["gateway"]["connections"] == 64, "no more of them")
    for c in [*held, late]:
        c.close()
