"""Batches form while the device is busy, and every answer is that of its own request."""
import json
import random
import threading

import onnx_model
from conftest import model_yaml, tenant_yaml, vector, wait_until

MIXED = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]},
                    {"name": "flag", "datatype": "BOOL", "shape": [-1]},
                    {"name": "count", "datatype": "UINT64", "shape": [-1, 1, 3]},
                    {"name": "score", "datatype": "FP64", "shape": [-1, 2]}], "busy": "5ms"}


def start(server, folder, artifact, **spec):
    (folder / "model.json").write_text(json.dumps(artifact))
    server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "model.json", **spec))
    return server.key("acme")


def mixed_inputs(rng, rows):
    letters = "aé漢🎈\"\\\n\u0000"
    return [
        {"name": "count", "datatype": "UINT64", "shape": [rows, 1, 3],
         "data": [rng.choice([0, 1, 2**63, 2**64 - 1]) for _ in range(rows * 3)]},
        {"name": "text", "datatype": "BYTES", "shape": [rows, 2],
         "data": ["".join(rng.choice(letters) for _ in range(rng.randrange(6))) for _ in range(rows * 2)]},
        {"name": "score", "datatype": "FP64", "shape": [rows, 2],
         "data": [rng.choice([0.1, -1e300, 5e-324, 3.0]) for _ in range(rows * 2)]},
        {"name": "flag", "datatype": "BOOL", "shape": [rows], "data": [rng.random() < 0.5 for _ in range(rows)]},
    ]


def test_every_request_gets_its_own_rows_back(server, folder):
    key = start(server, folder, MIXED)
    rng = random.Random(7)
    wrong, statuses = [], []

    def client(seed):
        own = random.Random(seed)
        connection = server.connect()
        for _ in range(20):
            inputs = mixed_inputs(own, own.randrange(1, 5))
            answer = server.infer("m", inputs, key, connection)
            statuses.append(answer.status)
            sent = {i["name"]: i["data"] for i in inputs}
            got = {o["name"]: o["data"] for o in answer.json["outputs"]} if answer.status == 200 else {}
            if got != sent:
                wrong.append((sent, answer.body))
        connection.close()

    threads = [threading.Thread(target=client, args=(rng.random(),)) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(statuses) == {200} and len(statuses) == 240
    assert wrong == []
    # Natural batching: while one lease ran, others waited and then went together.
    assert wait_until(lambda: server.status()["gateway"]["leases"], "the figures") < 240


def test_chosen_outputs_only_and_in_the_order_asked(server, folder):
    key = start(server, folder, MIXED)
    inputs = mixed_inputs(random.Random(1), 2)
    answer = server.infer("m", inputs, key, outputs=[{"name": "score"}, {"name": "flag"}])
    assert [o["name"] for o in answer.json["outputs"]] == ["score", "flag"]


def test_requests_of_different_shapes_are_not_mixed_up(server, folder):
    key = start(server, folder, {"inputs": [{"name": "x", "datatype": "INT32", "shape": [-1, -1]}], "busy": "5ms"})
    answers = {}

    def client(width):
        connection = server.connect()
        for i in range(10):
            data = [width * 1000 + i] * width
            answer = server.infer("m", vector(1, data, datatype="INT32"), key, connection)
            answers[(width, i)] = answer.status == 200 and answer.json["outputs"][0]["data"] == data
        connection.close()

    threads = [threading.Thread(target=client, args=(w,)) for w in range(1, 9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 80 and all(answers.values())


def test_a_model_without_a_batch_axis_runs_one_at_a_time(server, folder):
    key = start(server, folder, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3]}]})
    answer = server.infer("m", [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}], key)
    assert answer.status == 200 and answer.json["outputs"][0]["shape"] == [2, 3]
    assert server.infer("m", vector(3, [1] * 9), key).status == 400


def test_an_output_larger_than_the_channels_slot_comes_in_pieces(make_server, folder):
    """The slot holds two bodies; JSON needs fewer bytes than its tensor where elements are one digit wide."""
    server = make_server(config="apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: s}\n"
                                "spec: {limits: {bodyBytes: 64Ki}}\n")
    key = start(server, folder, {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, -1]}]})
    n = 16000  # 128,000 bytes as a tensor, 32,000 as JSON; the slot of 131,072 also holds descriptors
    answer = server.infer("m", vector(1, [1] * n, datatype="FP64"), key)
    assert answer.status == 200 and answer.json["outputs"][0]["data"] == [1] * n
    n = 30000  # 240,000 bytes as a tensor: its input does not fit the slot
    answer = server.infer("m", vector(1, [1] * n, datatype="FP64"), key)
    assert answer.status in (400, 413), answer.body
    assert server.infer("m", vector(1, [1], datatype="FP64"), key).status == 200


def test_outputs_over_the_limit_are_a_clear_failure_and_no_crash(make_server, folder):
    """A small input with a large output: ConstantOfShape makes as many zeros as it is told to."""
    server = make_server(config="apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: s}\n"
                                "spec: {limits: {bodyBytes: 64Ki}}\n")
    (folder / "zeros.onnx").write_bytes(onnx_model.model(
        [("ConstantOfShape", ["shape"], ["zeros"])], [("shape", onnx_model.INT64, [1])],
        [("zeros", onnx_model.FLOAT, ["n"])]))
    server.apply(tenant_yaml("acme") + model_yaml("zeros", "acme", "zeros.onnx", engine="onnx"))
    key = server.key("acme")

    def zeros(n):
        return server.http("POST", "/v2/models/zeros/infer", key, {
            "inputs": [{"name": "shape", "datatype": "INT64", "shape": [1], "data": [n]}],
            "parameters": {"binary_data_output": True}})

    assert zeros(60000).status == 200  # 240,000 bytes: two slots of 131,072 hold them, in pieces
    worker = server.workers()
    answer = zeros(70000)
    assert answer.status == 500 and "larger than the server takes" in answer.json["error"]
    assert zeros(10).status == 200
    assert server.workers() == worker
