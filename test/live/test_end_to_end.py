"""The whole way: resources, keys, one request through all roles."""
import json
import os
import pathlib
import struct
import subprocess

from conftest import BULKHEAD, IDENTITY, ROOT, cgroups, model_yaml, tenant_yaml, vector, wait_until


def test_a_request_goes_through_all_roles(identity):
    answer = identity.infer("echo", vector(2, [1, 2, 3, 4, 5, 6, 7, 8]), identity.acme, id="abc")
    assert answer.status == 200, answer.body
    assert answer.json == {"model_name": "echo", "model_version": "1", "id": "abc", "outputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}]}


def test_binary_tensors(identity):
    head = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32",
                                   "parameters": {"binary_data_size": 16}}],
                       "parameters": {"binary_data_output": True}}).encode()
    data = struct.pack("<4f", 1.5, -2.25, float("nan"), float("inf"))
    answer = identity.http("POST", "/v2/models/echo/infer", identity.acme, head + data,
                           {"Inference-Header-Content-Length": str(len(head))})
    assert answer.status == 200, answer.body
    size = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.body[size:] == data
    assert json.loads(answer.body[:size])["outputs"][0]["parameters"] == {"binary_data_size": 16}


def test_health_is_open_and_all_else_needs_a_key(identity):
    assert identity.http("GET", "/v2/health/live").status == 200
    assert identity.http("GET", "/v2/health/ready").status == 200
    for path in ("/v2", "/v2/models", "/v2/models/echo", "/v2/models/echo/ready", "/nothing", "/", "/metrics"):
        answer = identity.http("GET", path)
        assert answer.status == 401, path
        assert answer.code == "unauthenticated"
        assert identity.http("GET", path, "bh_" + "0" * 16 + "_" + "0" * 43).status == 401
    assert identity.http("GET", "/nothing", identity.acme).status == 404
    assert identity.http("PUT", "/v2/models/echo/infer", identity.acme, b"{}").status == 405


def test_both_ways_to_send_a_key(identity):
    assert identity.http("GET", "/v2", headers={"X-API-Key": identity.acme}).status == 200
    assert identity.http("GET", "/v2", headers={"Authorization": "bearer " + identity.acme}).status == 200
    assert identity.http("GET", "/v2", headers={"Authorization": "Basic " + identity.acme}).status == 401
    both = {"Authorization": "Bearer " + identity.acme, "X-API-Key": identity.acme}
    assert identity.http("GET", "/v2", headers=both).status == 401  # which one counts is nobody's guess
    with identity.raw() as raw:
        line = b"Authorization: Bearer " + identity.acme.encode() + b"\r\n"
        raw.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + line + line + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 401 ")
    wrong = identity.acme[:-1] + ("a" if identity.acme[-1] != "a" else "b")
    assert identity.http("GET", "/v2", wrong).status == 401


def test_another_tenants_model_is_the_same_404_as_none(identity):
    identity.apply(tenant_yaml("other"))
    other = identity.key("other")
    theirs = identity.infer("echo", vector(1, [1, 2, 3, 4]), other)
    nobodys = identity.infer("nosuch", vector(1, [1, 2, 3, 4]), other)
    assert theirs.status == nobodys.status == 404
    assert theirs.body == nobodys.body
    assert identity.http("GET", "/v2/models", other).json == {"models": []}
    assert identity.http("GET", "/v2/models/echo", other).status == 404


def test_metadata_and_readiness(identity):
    assert "binary_tensor_data" in identity.http("GET", "/v2", identity.acme).json["extensions"]
    assert identity.http("GET", "/v2/models", identity.acme).json == {
        "models": [{"name": "echo", "version": "1", "ready": True}]}
    meta = identity.http("GET", "/v2/models/echo", identity.acme).json
    assert meta["name"] == "echo" and meta["versions"] == ["1"]
    assert meta["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert identity.http("GET", "/v2/models/echo/versions/1", identity.acme).status == 200
    for version in ("2", "01", "0", "-1", "1x", ""):
        assert identity.http("GET", f"/v2/models/echo/versions/{version}", identity.acme).status == 404, version
    assert identity.http("GET", "/v2/models/echo/versions/1/ready", identity.acme).json == {"ready": True}


def test_a_changed_source_is_a_new_version_and_the_old_one_stays_addressable(identity, folder):
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).json["model_version"] == "1"
    (folder / "echo.json").write_text(json.dumps({"inputs": [{"name": "y", "datatype": "INT32", "shape": [-1, 2]}]}))
    out = identity.apply(model_yaml("echo", "acme", "echo.json")).stdout
    assert "version 2" in out
    answer = identity.infer("echo", vector(1, [1, 2], "y", "INT32"), identity.acme)
    assert answer.status == 200 and answer.json["model_version"] == "2"
    old = identity.http("POST", "/v2/models/echo/versions/1/infer", identity.acme,
                        {"inputs": vector(1, [1, 2, 3, 4])})
    assert old.status == 200 and old.json["model_version"] == "1"


def test_the_operator_can_infer(identity, folder):
    (folder / "request.json").write_text(json.dumps({"inputs": vector(1, [1, 2, 3, 4])}))
    out = identity.cli("infer", "echo", "--tenant", "acme", "--input", str(folder / "request.json")).stdout
    assert json.loads(out)["outputs"][0]["data"] == [1, 2, 3, 4]
    assert identity.cli("infer", "nosuch", "--tenant", "acme", "--input", str(folder / "request.json"),
                        check=False).returncode == 1


def test_a_revoked_key_ends_its_connections(identity):
    connection = identity.connect()
    assert identity.http("GET", "/v2", identity.acme, connection=connection).status == 200
    key_id = identity.acme.split("_")[1]
    identity.cli("key", "revoke", key_id)
    assert identity.http("GET", "/v2", identity.acme).status == 401
    assert connection.sock.recv(1) == b""  # closed by the server
    connection.close()


def test_a_key_is_shown_once_and_stored_as_a_hash(identity):
    secret = identity.acme.split("_")[2]
    assert secret not in identity.cli("key", "list").stdout
    for path in (identity.data / "store").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert all(secret not in line["message"] for line in identity.log)


def test_deleting_a_model_ends_its_worker(identity):
    identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    assert len(identity.workers()) == 1
    identity.cli("delete", "model", "echo", "--tenant", "acme")
    assert identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme).status == 404
    wait_until(lambda: not identity.workers(), "the worker to end")


def test_minimum_replicas_start_by_themselves(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme") +
                 model_yaml("echo", "acme", "echo.json", replicas={"min": 2, "max": 2}))
    wait_until(lambda: len(server.workers()) == 2, "two workers")
    uids = {os.stat(f"/proc/{pid}").st_uid for pid in server.workers()}
    assert 0 not in uids


def test_apply_is_all_or_nothing(server, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    bad = server.apply(tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", resources={"memroy": "1Gi"}),
                       check=False)
    assert bad.returncode == 1
    assert "spec.resources.memroy" in bad.stderr and "memory" in bad.stderr
    assert "acme" not in server.cli("get", "tenant").stdout


def test_what_is_got_can_be_applied_again(identity):
    yaml = identity.cli("get", "tenant", "acme", "-o", "yaml").stdout
    assert "unchanged" in identity.apply(yaml).stdout


def test_state_survives_a_restart(identity):
    identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    assert identity.stop() == 0
    identity.start()
    assert identity.infer("echo", vector(1, [5, 6, 7, 8]), identity.acme).json["outputs"][0]["data"] == [5, 6, 7, 8]


def test_workers_are_walled(identity):
    identity.infer("echo", vector(1, [1, 2, 3, 4]), identity.acme)
    pid = identity.workers()[0]
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                  if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split()[0] not in ("0", str(os.getuid()))
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == 0
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    assert any("replica-" in path for path in cgroups())
    text = identity.status()
    assert text["replicas"][0]["status"]["wall"].startswith(
        "process; namespaces")


def test_roles_have_their_own_uid_and_root(identity):
    seen = set()
    for role in ("control", "gateway"):
        pid = identity.pid(role)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        uid = [l for l in status.splitlines() if l.startswith("Uid:")][0].split()[1]
        assert uid != "0"
        seen.add(uid)
        assert os.readlink(f"/proc/{pid}/root") != "/"
    assert len(seen) == 2


def test_demo_resources_apply(server):
    out = server.cli("apply", "-f", str(ROOT / "examples/demo.yaml")).stdout
    assert "digits" in out and "diagnosis" in out
    for one in ("acme/novelist", "acme/novelist-to-clinic", "acme/scribe", "clinic/cynic"):
        assert one in out, out


def test_port_in_use(identity, make_server):
    second = make_server(start=False)
    second.port = identity.port
    second.start(wait=False)
    assert second.process.wait(60) == 1
    second.reader.join()
    assert any("in use" in line["message"] for line in second.log)
    second.process = None
    second.alerts_expected = True  # the message on stderr is text for a person, not a log line


def test_second_server_on_the_same_data_is_refused(identity, folder):
    result = subprocess.run([BULKHEAD, "serve", "--data", identity.data, "--listen", "127.0.0.1:0"], text=True,
                            capture_output=True, timeout=30)
    assert result.returncode == 1 and "another server" in result.stderr
