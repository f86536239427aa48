"""The Open Inference Protocol, request by request: every datatype, shape and form, and what is refused."""
import json
import struct
import time

import pytest

import onnx_model as onnx
from conftest import described_before, model_yaml, tenant_yaml, vector


def serve(server, folder, **models):
    """Models of tenant acme by name: identity models by their inputs, ONNX models by their bytes. The tenant's key."""
    text = tenant_yaml("acme")
    for name, what in models.items():
        if isinstance(what, bytes):
            (folder / f"{name}.onnx").write_bytes(what)
            text += model_yaml(name, "acme", f"{name}.onnx", engine="onnx")
            if name == "broken":
                described_before(server, what)
        else:
            (folder / f"{name}.json").write_text(json.dumps({"inputs": what}))
            text += model_yaml(name, "acme", f"{name}.json")
    server.apply(text)
    return server.key("acme")


def tensor(name, datatype, shape):
    return {"name": name, "datatype": datatype, "shape": shape}


def parts(answer):
    """(the JSON part, name -> bytes of the binary outputs)."""
    size = int(answer.headers["Inference-Header-Content-Length"])
    head, at, data = json.loads(answer.body[:size]), size, {}
    for output in head["outputs"]:
        n = output.get("parameters", {}).get("binary_data_size")
        if n is not None:
            data[output["name"]] = answer.body[at:at + n]
            at += n
    assert at == len(answer.body)
    return head, data


# --- 16-bit floats ---

@pytest.mark.parametrize("datatype,sent,got", [
    ("FP16", [1, -0.0, 0.1, 65504, 65519.9, 6e-8, 1e-9, 2049], [1.0, -0.0, 0.1, 65500.0, 65500.0, 6e-8, 0.0, 2048.0]),
    ("BF16", [1, -0.0, 0.1, 3.3895314e38, 257, 1e-40, 4e-41, 259],
     [1.0, -0.0, 0.1, 3.39e38, 256.0, 9e-41, 0.0, 260.0])])
def test_16_bit_floats_are_json_numbers(server, folder, datatype, sent, got):
    key = serve(server, folder, m=[tensor("x", datatype, [-1, 4])])
    answer = server.infer("m", vector(2, sent, datatype=datatype), key)
    assert answer.status == 200, answer.body
    assert answer.json["outputs"][0]["data"] == got
    again = server.infer("m", vector(2, got, datatype=datatype), key)
    assert again.body == answer.body
    for number in ("65520" if datatype == "FP16" else "3.4e38", "-1e400", '"1"', "null", "NaN"):
        body = '{"inputs":[{"name":"x","datatype":"%s","shape":[1,4],"data":[0,0,0,%s]}]}' % (datatype, number)
        answer = server.http("POST", "/v2/models/m/infer", key, body)
        assert answer.status == 400, number


def test_16_bit_floats_of_an_engine(server, folder):
    casts = onnx.model([("Add", ["a", "a"], ["b"])], [("a", onnx.FLOAT16, ["n", 3])], [("b", onnx.FLOAT16, ["n", 3])])
    key = serve(server, folder, m=casts)
    answer = server.infer("m", vector(1, [0.1, -2, 40000], name="a", datatype="FP16"), key)
    assert answer.status == 501 and "binary_data" in answer.json["error"]  # 80000 is infinite: no JSON
    answer = server.infer("m", vector(2, [0.1, -2, 30000, 0, 1, 2], name="a", datatype="FP16"), key)
    assert answer.json["outputs"] == [{"name": "b", "datatype": "FP16", "shape": [2, 3],
                                       "data": [0.2, -4.0, 60000.0, 0.0, 2.0, 4.0]}]


# --- dimensions of zero, and several open ones ---

def test_a_batch_of_no_rows(server, folder):
    add = onnx.model([("Add", ["a", "a"], ["b"])], [("a", onnx.FLOAT, ["n", 3])], [("b", onnx.FLOAT, ["n", 3])])
    key = serve(server, folder, onnx=add, echo=[tensor("a", "FP32", [-1, 3]), tensor("s", "BYTES", [-1])])
    empty = [{**tensor("a", "FP32", [0, 3]), "data": []}]
    answer = server.infer("onnx", empty, key)
    assert answer.status == 200, answer.body
    assert answer.json["outputs"] == [{"name": "b", "datatype": "FP32", "shape": [0, 3], "data": []}]
    answer = server.infer("echo", empty + [{**tensor("s", "BYTES", [0]), "data": []}], key)
    assert [(o["shape"], o["data"]) for o in answer.json["outputs"]] == [([0, 3], []), ([0], [])]
    head = json.dumps({"inputs": [{**tensor("a", "FP32", [0, 3]), "parameters": {"binary_data_size": 0}}],
                       "parameters": {"binary_data_output": True}})
    answer = server.http("POST", "/v2/models/onnx/infer", key, head, {"Inference-Header-Content-Length": str(len(head))})
    assert parts(answer)[1] == {"b": b""}
    answer = server.infer("echo", empty + [{**tensor("s", "BYTES", [1]), "data": ["x"]}], key)
    assert answer.status == 400 and "must be equal in all inputs" in answer.json["error"]
    answer = server.infer("onnx", [{**tensor("a", "FP32", [1, 0]), "data": []}], key)
    assert answer.status == 400 and "[-1,3]" in answer.json["error"]
    assert server.infer("onnx", vector(1, [1, 2, 3], name="a"), key).json["outputs"][0]["data"] == [2, 4, 6]


def test_models_with_several_open_dimensions(server, folder):
    matmul = onnx.model([("MatMul", ["a", "b"], ["c"])],
                        [("a", onnx.FLOAT, ["n", "m"]), ("b", onnx.FLOAT, ["m", "k"])], [("c", onnx.FLOAT, ["n", "k"])])
    concat = onnx.model([("Relu", ["a"], ["b"])], [("a", onnx.FLOAT, ["n", "h", "w"])], [("b", onnx.FLOAT, ["n", "h", "w"])])
    key = serve(server, folder, matmul=matmul, relu=concat, echo=[tensor("x", "INT16", [-1, -1, 2, -1])])
    a, b = {**tensor("a", "FP32", [2, 3]), "data": [1, 2, 3, 4, 5, 6]}, {**tensor("b", "FP32", [3, 1]), "data": [1, 0, 2]}
    answer = server.infer("matmul", [a, b], key)
    assert answer.json["outputs"] == [{"name": "c", "datatype": "FP32", "shape": [2, 1], "data": [7, 16]}], answer.body
    answer = server.infer("matmul", [{**a, "shape": [2, 0], "data": []}, {**b, "shape": [0, 4], "data": []}], key)
    assert answer.json["outputs"][0]["shape"] == [2, 4] and answer.json["outputs"][0]["data"] == [0] * 8
    for shape in ([1, 2, 3], [3, 2, 1], [2, 0, 5], [0, 0, 0]):
        n = shape[0] * shape[1] * shape[2]
        answer = server.infer("relu", [{**tensor("a", "FP32", shape), "data": [i - 1 for i in range(n)]}], key)
        assert answer.status == 200, answer.body
        assert answer.json["outputs"][0]["shape"] == shape
        assert answer.json["outputs"][0]["data"] == [max(0, i - 1) for i in range(n)]
    for shape in ([1, 1, 2, 1], [2, 3, 2, 4], [1, 0, 2, 7]):
        n = shape[0] * shape[1] * shape[2] * shape[3]
        answer = server.infer("echo", [{**tensor("x", "INT16", shape), "data": list(range(n))}], key)
        assert (answer.json["outputs"][0]["shape"], answer.json["outputs"][0]["data"]) == (shape, list(range(n)))
    for shape in ([1, 1, 3, 1], [1, 2, 1], []):
        answer = server.infer("echo", [{**tensor("x", "INT16", shape), "data": [0] * 3}], key)
        assert answer.status == 400


# --- raw requests, and who names the model ---

def raw(server, path, key, body, **headers):
    return server.http("POST", path, key, body, {"Inference-Header-Content-Length": "0", **headers})


def test_raw_requests(server, folder):
    key = serve(server, folder, m=[tensor("x", "FP32", [-1, 4])], open=[tensor("x", "INT16", [-1, 2, -1])],
                text=[tensor("s", "BYTES", [-1, 1])], several=[tensor("x", "INT16", [-1, -1, -1])],
                two=[tensor("x", "INT8", [-1]), tensor("y", "INT8", [-1])])
    data = struct.pack("<4f", 1.5, -2.25, float("nan"), 0)
    answer = raw(server, "/v2/models/m/infer", key, data)  # the first request: it waits for the model's start
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/octet-stream"
    head, outputs = parts(answer)
    assert head == {"model_name": "m", "model_version": "1", "outputs": [
        {**tensor("x", "FP32", [1, 4]), "parameters": {"binary_data_size": 16}}]}
    assert outputs == {"x": data}
    assert raw(server, "/v2/models/m/versions/1/infer", key, data).body == answer.body
    head, outputs = parts(raw(server, "/v2/models/open/infer", key, b"abcdefghijkl"))
    assert head["outputs"][0]["shape"] == [1, 2, 3] and outputs == {"x": b"abcdefghijkl"}
    head, outputs = parts(raw(server, "/v2/models/open/infer", key, b""))
    assert head["outputs"][0]["shape"] == [1, 2, 0] and outputs == {"x": b""}
    for text in (b"", b"\xff\x00abc", b"x" * 100000):
        head, outputs = parts(raw(server, "/v2/models/text/infer", key, text))
        assert head["outputs"][0]["shape"] == [1, 1]
        assert outputs == {"s": struct.pack("<I", len(text)) + text}
    for model, body, reason in (("m", data + data, "[1,4] has 4 elements"), ("m", b"", "the data is 0 bytes"),
                                ("open", b"abc", "no multiple of 4"), ("several", b"ab", "more than one dimension"),
                                ("two", b"a", "with one input; this one has 2")):
        answer = raw(server, f"/v2/models/{model}/infer", key, body)
        assert answer.status == 400 and reason in answer.json["error"], answer.body
    for length in ("-1", "17", "x", "", "99999999999999999999", "0x0"):
        answer = server.http("POST", "/v2/models/m/infer", key, data, {"Inference-Header-Content-Length": length})
        assert answer.status == 400, length
    assert server.http("POST", "/v2/models/m/infer", key, b"").code == "invalid_json"  # no header: no raw request


def test_the_model_named_by_a_header(server, folder):
    key = serve(server, folder, m=[tensor("x", "FP32", [-1, 4])])
    body = {"inputs": vector(1, [1, 2, 3, 4])}
    answer = server.http("POST", "/v2/infer", key, body, {"X-Model-ID": "m"})
    assert answer.status == 200 and answer.body == server.infer("m", body["inputs"], key).body
    assert parts(raw(server, "/v2/infer", key, b"0123456789abcdef", **{"x-model-id": "m"}))[1] == {"x": b"0123456789abcdef"}
    assert server.http("POST", "/v2/infer", None, body, {"X-Model-ID": "m"}).status == 401
    for headers in ({}, {"X-Model-ID": ""}):
        answer = server.http("POST", "/v2/infer", key, body, headers)
        assert answer.status == 400 and "X-Model-ID" in answer.json["error"]
    missing = server.infer("n", body["inputs"], key)
    for name in ("n", "m/versions/1", "m ,m", "M"):
        answer = server.http("POST", "/v2/infer", key, body, {"X-Model-ID": name})
        assert answer.status == 404 and answer.body == missing.body
    server.apply(tenant_yaml("other"))
    assert server.http("POST", "/v2/infer", server.key("other"), body, {"X-Model-ID": "m"}).body == missing.body
    assert server.http("GET", "/v2/infer", key).status == 405


# --- how an output is sent ---

def test_binary_outputs_one_by_one_and_all(server, folder):
    key = serve(server, folder, m=[tensor("a", "INT8", [-1]), tensor("b", "BYTES", [-1]), tensor("c", "FP16", [-1])])
    inputs = [{**tensor("a", "INT8", [2]), "data": [1, -1]}, {**tensor("b", "BYTES", [2]), "data": ["x", ""]},
              {**tensor("c", "FP16", [2]), "data": [1, 2]}]
    binary = {"a": b"\x01\xff", "b": b"\x01\0\0\0x\0\0\0\0", "c": b"\0\x3c\0\x40"}
    plain = {"a": [1, -1], "b": ["x", ""], "c": [1.0, 2.0]}
    wish = {None: {}, True: {"parameters": {"binary_data": True}}, False: {"parameters": {"binary_data": False}}}
    for default in (None, True, False):
        more = {} if default is None else {"parameters": {"binary_data_output": default}}
        wishes = [None] + [[(name, w) for name, w in zip(order, said)]
                           for order in ("abc", "cb", "b") for said in ((None, True, False), (False, None, None), (True,) * 3)]
        for outputs in wishes:
            said = outputs or [(name, None) for name in "abc"]
            request = dict(more) if outputs is None else {**more, "outputs": [{"name": n, **wish[w]} for n, w in outputs]}
            answer = server.infer("m", inputs, key, **request)
            assert answer.status == 200, answer.body
            wanted = {n: default is True if w is None else w for n, w in said}
            if not any(wanted.values()):
                assert answer.headers["Content-Type"] == "application/json"
                assert "Inference-Header-Content-Length" not in answer.headers
                head, data = answer.json, {}
            else:
                assert answer.headers["Content-Type"] == "application/octet-stream"
                head, data = parts(answer)
            assert [o["name"] for o in head["outputs"]] == [n for n, _ in said]
            assert data == {n: binary[n] for n, w in wanted.items() if w}
            assert {o["name"]: o["data"] for o in head["outputs"] if "data" in o} == \
                {n: plain[n] for n, w in wanted.items() if not w}
            assert all(("data" in o) != ("parameters" in o) for o in head["outputs"])
    for parameters in ({"binary_data": 1}, {"binary_data": None}):
        answer = server.infer("m", inputs, key, outputs=[{"name": "a", "parameters": parameters}])
        assert answer.status == 400 and "binary_data" in answer.json["error"]
    assert server.infer("m", inputs, key, parameters={"binary_data_output": "true"}).status == 400


# --- what a tenant can learn ---

def test_repository_index(server, folder):
    key = serve(server, folder, b=[tensor("x", "FP32", [-1, 4])], a=[tensor("x", "FP32", [-1])], broken=b"no model")
    path = "/v2/repository/index"
    ready = {"state": "READY", "reason": ""}
    everything = [{"name": name, "version": "1", **ready} for name in ("a", "b", "broken")]
    for body in (None, b"", {}, {"ready": False}, {"ready": True}):
        answer = server.http("POST", path, key, body)
        assert answer.status == 200 and sorted(answer.json, key=lambda m: m["name"]) == everything, answer.body
    (folder / "a.json").write_text(json.dumps({"inputs": [tensor("x", "FP32", [-1, 2])]}))
    server.apply(model_yaml("a", "acme", "a.json"))
    answer = server.http("POST", path, key)
    assert [m["version"] for m in answer.json if m["name"] == "a"] == ["2", "1"]
    assert server.infer("broken", vector(1, [1]), key).status == 503  # now it is known that it cannot start
    states = {m["name"]: m for m in server.http("POST", path, key).json}
    assert states["broken"]["state"] == "UNAVAILABLE" and "cannot be loaded" in states["broken"]["reason"]
    assert {m["name"] for m in server.http("POST", path, key, {"ready": True}).json} == {"a", "b"}
    for body in (b"[]", b"{", {"ready": 1}, {"ready": True, "x": 1}, b'{"ready":true,"ready":true}', b"1"):
        assert server.http("POST", path, key, body).status == 400, body
    assert [server.http("POST", path, key, b"{}" + b" " * n).status for n in (1022, 1023)] == [200, 413]
    assert server.http("POST", path).status == 401
    server.apply(tenant_yaml("other"))
    assert server.http("POST", path, server.key("other")).json == []


def test_metadata_and_configuration(server, folder):
    add = onnx.model([("Add", ["a", "a"], ["b"])], [("a", onnx.FLOAT16, ["n", "w", 3])],
                     [("b", onnx.FLOAT16, ["n", "w", 3])])
    key = serve(server, folder, onnx=add, text=[tensor("s", "BYTES", [-1]), tensor("x", "BOOL", [2])])
    server.apply(model_yaml("onnx", "acme", "onnx.onnx", engine="onnx", replicas={"max": 3},
                            batching={"maxSize": 8, "maxDelay": "2ms"}))
    config = server.http("GET", "/v2/models/onnx/config", key)
    assert config.status == 200, config.body
    assert config.json == {
        "name": "onnx", "platform": "onnxruntime_onnx", "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [1]}}, "max_batch_size": 8,
        "input": [{"name": "a", "data_type": "TYPE_FP16", "dims": [-1, 3]}],
        "output": [{"name": "b", "data_type": "TYPE_FP16", "dims": [-1, 3]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 2000},
        "instance_group": [{"count": 3, "kind": "KIND_CPU"}]}
    assert server.http("GET", "/v2/models/onnx/versions/1/config", key).body == config.body
    config = server.http("GET", "/v2/models/text/config", key).json
    assert (config["max_batch_size"], config["platform"]) == (0, "bulkhead_identity")
    assert config["input"] == [{"name": "s", "data_type": "TYPE_STRING", "dims": [-1]},
                               {"name": "x", "data_type": "TYPE_BOOL", "dims": [2]}]
    assert "dynamic_batching" not in config
    (folder / "text.json").write_text(json.dumps({"inputs": [tensor("s", "BYTES", [-1])]}))
    server.apply(model_yaml("text", "acme", "text.json"))
    assert server.http("GET", "/v2/models/text", key).json == {
        "name": "text", "versions": ["2", "1"], "platform": "bulkhead_identity",
        "inputs": [tensor("s", "BYTES", [-1])], "outputs": [tensor("s", "BYTES", [-1])]}
    old = server.http("GET", "/v2/models/text/versions/1", key).json
    assert old["versions"] == ["1"] and len(old["inputs"]) == 2
    server.apply(tenant_yaml("other"))
    other = server.key("other")
    for path in ("/v2/models/onnx/config", "/v2/models/onnx/versions/1/config"):
        assert server.http("GET", path, other).status == 404
        assert server.http("GET", path).status == 401
    for path in ("/v2/models/none/config", "/v2/models/onnx/versions/9/config", "/v2/models/onnx/versions/x/config"):
        assert server.http("GET", path, key).status == 404


def stats(server, key, path="/v2/models/stats"):
    answer = server.http("GET", path, key)
    assert answer.status == 200, answer.body
    return answer.json["model_stats"]


def check_sums(s):
    """What holds between the figures of a version, however long things took."""
    i = s["inference_stats"]
    assert i["success"]["count"] == i["queue"]["count"] == i["compute_infer"]["count"]
    parts = [i[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert i["success"]["ns"] >= sum(parts)
    assert sum(b["compute_infer"]["count"] for b in s["batch_stats"]) == s["execution_count"]
    assert [b["batch_size"] for b in s["batch_stats"]] == sorted({b["batch_size"] for b in s["batch_stats"]})
    assert i["cache_hit"] == i["cache_miss"] == {"count": 0, "ns": 0}


def test_statistics(server, folder):
    key = serve(server, folder, m=[tensor("x", "FP32", [-1, 4])], idle=[tensor("x", "FP32", [-1])], broken=b"no model")
    (folder / "busy.json").write_text(json.dumps({"inputs": [tensor("x", "INT8", [-1])], "busy": "20ms"}))
    server.apply(model_yaml("busy", "acme", "busy.json"))
    none = {"count": 0, "ns": 0}
    for s in stats(server, key):
        assert (s["inference_count"], s["execution_count"], s["last_inference"], s["batch_stats"]) == (0, 0, 0, [])
        assert all(d == none for d in s["inference_stats"].values()) and len(s["inference_stats"]) == 8
    before = time.time() * 1000
    for rows in (1, 3, 1, 0):
        assert server.infer("m", [{**tensor("x", "FP32", [rows, 4]), "data": [1] * 4 * rows}], key).status == 200
    refused = server.infer("m", vector(1, [1, 2, 3]), key), server.http("POST", "/v2/models/m/infer", key, b"{")
    assert [a.status for a in refused] == [400, 400]
    s, = stats(server, key, "/v2/models/m/stats")
    check_sums(s)
    assert (s["name"], s["version"], s["inference_count"], s["execution_count"]) == ("m", "1", 5, 4)
    assert before - 1 <= s["last_inference"] <= time.time() * 1000 + 1
    assert (s["inference_stats"]["success"]["count"], s["inference_stats"]["fail"]["count"]) == (4, 2)
    assert s["inference_stats"]["success"]["ns"] > 0 and s["inference_stats"]["fail"]["ns"] > 0
    assert [(b["batch_size"], b["compute_input"]["count"]) for b in s["batch_stats"]] == [(0, 1), (1, 2), (3, 1)]
    assert stats(server, key, "/v2/models/m/versions/1/stats") == [s]
    server.http("GET", "/v2/models/m", key), server.http("GET", "/v2/models/m/config", key)  # no inference
    assert stats(server, key, "/v2/models/m/stats") == [s]

    assert server.infer("busy", [{**tensor("x", "INT8", [1]), "data": [1]}], key).status == 200
    s, = stats(server, key, "/v2/models/busy/stats")
    check_sums(s)
    # The worker's own word. It burns 20 ms of CPU time; the two clocks differ by some percent on a virtual machine.
    assert s["inference_stats"]["compute_infer"]["ns"] >= 18_000_000
    assert server.infer("broken", vector(1, [1]), key).status == 503
    s, = stats(server, key, "/v2/models/broken/stats")
    assert (s["inference_stats"]["fail"]["count"], s["execution_count"]) == (1, 0)
    assert {s["name"] for s in stats(server, key)} == {"m", "idle", "busy", "broken"}


def test_statistics_are_the_tenants_own(server, folder):
    key = serve(server, folder, m=[tensor("x", "FP32", [-1, 4])], stats=[tensor("x", "FP32", [-1, 4])])
    server.apply(tenant_yaml("other"))
    other = server.key("other")
    assert stats(server, other) == []
    for path in ("/v2/models/m/stats", "/v2/models/m/versions/1/stats"):
        assert server.http("GET", path, other).status == 404
        assert server.http("GET", path).status == 401
    for path in ("/v2/models/n/stats", "/v2/models/m/versions/2/stats", "/v2/models/m/versions/1/stats/x"):
        assert server.http("GET", path, key).status == 404
    # A model may be called so; only its metadata are hidden.
    assert server.infer("stats", vector(1, [1, 2, 3, 4]), key).status == 200
    s, = stats(server, key, "/v2/models/stats/stats")
    assert (s["name"], s["inference_count"]) == ("stats", 1)
    (folder / "m.json").write_text(json.dumps({"inputs": [tensor("x", "INT8", [-1])]}))
    server.apply(model_yaml("m", "acme", "m.json"))
    assert [s["version"] for s in stats(server, key, "/v2/models/m/stats")] == ["2", "1"]
    extensions = server.http("GET", "/v2", key).json["extensions"]
    assert extensions == ["binary_tensor_data", "generate", "model_configuration", "model_repository(index)", "statistics"]
