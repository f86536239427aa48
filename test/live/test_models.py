"""Really trained models on held-out data: the server against ONNX Runtime run directly."""
import json
import struct
import subprocess

import pytest

from conftest import BUILD, ROOT, tenant_yaml

MODELS = {
    "digits": {"tenant": "acme", "input": "image", "shape": [8, 8], "output": "probabilities", "accuracy": 0.97,
               "leading": [1]},
    "diagnosis": {"tenant": "clinic", "input": "features", "shape": [30], "output": "probability", "accuracy": 0.95,
                  "leading": []},
}


@pytest.fixture
def demo(server):
    server.cli("apply", "-f", str(ROOT / "examples/demo.yaml"))
    server.apply("".join(tenant_yaml(m["tenant"]) for m in MODELS.values()))  # without the demo's rate limit
    return server


def infer_binary(server, key, connection, model, rows):
    m = MODELS[model]
    data = b"".join(struct.pack(f"<{len(r)}f", *r) for r in rows)
    head = json.dumps({"inputs": [{"name": m["input"], "datatype": "FP32",
                                   "shape": [len(rows), *m["leading"], *m["shape"]],
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}).encode()
    answer = server.http("POST", f"/v2/models/{model}/infer", key, head + data,
                         {"Inference-Header-Content-Length": str(len(head))}, connection)
    assert answer.status == 200, answer.body
    size = int(answer.headers["Inference-Header-Content-Length"])
    outputs, at = {}, size
    for output in json.loads(answer.body[:size])["outputs"]:
        n = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = answer.body[at:at + n]
        at += n
    assert at == len(answer.body)
    return outputs


def ort_direct(folder, model, rows):
    """The same rows, one by one, by ONNX Runtime's C API without any of our engine code: name -> raw bytes."""
    m = MODELS[model]
    samples = folder / "samples.bin"
    samples.write_bytes(b"".join(struct.pack(f"<{len(r)}f", *r) for r in rows))
    shape = ",".join(map(str, [len(rows), *m["leading"], *m["shape"]]))
    run = subprocess.run([BUILD / "test/unit/engine/ort_direct", ROOT / "build/engines/libonnxruntime.so.1",
                          ROOT / f"examples/{model}/{model}.onnx", "1", "1", f"{m['input']}=FP32:{shape}:{samples}"],
                         capture_output=True, timeout=120, check=True)
    outputs, at = {}, 0
    for line in run.stderr.decode().splitlines():
        name, _, size, _ = line.split(" ", 3)
        outputs[name] = run.stdout[at:at + int(size)]
        at += int(size)
    return outputs


@pytest.mark.parametrize("model", MODELS)
def test_every_held_out_sample(demo, model, folder):
    held = json.loads((ROOT / f"examples/{model}/heldout.json").read_text())
    m = MODELS[model]
    key = demo.key(m["tenant"])
    connection = demo.connect()
    direct = ort_direct(folder, model, held["inputs"])
    right = 0
    for i, row in enumerate(held["inputs"]):
        outputs = infer_binary(demo, key, connection, model, [row])
        for name, data in outputs.items():  # bit for bit
            assert data == direct[name][i * len(data):(i + 1) * len(data)], (i, name)
        label, = struct.unpack("<q", outputs["label"])
        right += label == held["labels"][i]
        assert label == held["expected"]["label"][i]
        values = struct.unpack(f"<{len(outputs[m['output']]) // 4}f", outputs[m["output"]])
        for got, want in zip(values, held["expected"][m["output"]][i]):
            assert abs(got - want) <= 1e-5
    connection.close()
    assert right / len(held["inputs"]) >= m["accuracy"]


@pytest.mark.parametrize("model", MODELS)
def test_json_and_binary_agree(demo, model):
    held = json.loads((ROOT / f"examples/{model}/heldout.json").read_text())
    m = MODELS[model]
    key = demo.key(m["tenant"])
    rows = held["inputs"][:3]
    binary = infer_binary(demo, key, None, model, rows)
    answer = demo.infer(model, [{"name": m["input"], "datatype": "FP32",
                                 "shape": [3, *m["leading"], *m["shape"]], "data": sum(rows, [])}], key)
    assert answer.status == 200, answer.body
    for output in answer.json["outputs"]:
        kind = {"FP32": "f", "INT64": "q"}[output["datatype"]]
        assert struct.pack(f"<{len(output['data'])}{kind}", *output["data"]) == binary[output["name"]]
