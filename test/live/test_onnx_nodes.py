"""ONNX's own node models: what ONNX Runtime run directly answers, the server answers, bit for bit.

Debian's libonnx-testdata holds about a thousand models of one operator each, with inputs. Every one is given to ONNX
Runtime's C API directly (test/tools/ort_direct.c), then applied, asked and deleted again, also those that must be refused.
Of those that ONNX Runtime runs and whose inputs and outputs are tensors of the protocol's datatypes, every answer must
be the direct one: datatype, shape and bytes. Where an operator draws random numbers (RANDOM) without a seed of its own,
datatype and shape. A worker that ends on its own fails the test.

Which models are not served, and why, stands in onnx_nodes/VERSION.txt, VERSION being the package's; the run must match
that file where there is one. BULKHEAD_UPDATE=1 writes it; BULKHEAD_ONNX_TESTDATA=FOLDER takes the package unpacked there.
"""
import collections
import gzip
import http.client
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import threading

from conftest import BUILD, CEILING_S, ROOT, tenant_yaml
from onnx_file import Model, tensor

PACKAGE = pathlib.Path(os.environ.get("BULKHEAD_ONNX_TESTDATA", "/"))
NODES = PACKAGE / "usr/share/libonnx-testdata/data/node"
CHANGES = PACKAGE / "usr/share/doc/libonnx-testdata/changelog.Debian.gz"
LISTS = ROOT / "test/live/onnx_nodes"
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
THREADS = 2
APPLIED_AT_ONCE = 40

EQUAL = "served, bit for bit"
ALIKE = "served, equal datatype and shape of random numbers"
CRASHES = "ONNX Runtime crashes"  # not sent to the server
CASED = "served, bit for bit, where the host has the locale en_US.UTF-8"  # by ONNX Runtime's default


class Case:
    """One node model with its first set of inputs."""

    def __init__(self, folder):
        self.name, self.path = folder.name, folder / "model.onnx"
        self.model = Model(self.path.read_bytes())
        self.inputs = []  # (name, datatype, shape, binary form)
        self.direct = None  # name -> (datatype, shape, binary form), once ONNX Runtime has run it
        self.group = self.reason = None  # what became of it
        for value in self.model.inputs + self.model.outputs:
            if value.datatype is None:
                self.end(f"not a tensor of the protocol: {value.kind}", f"'{value.name}'")
                return
        for i, value in enumerate(self.model.inputs):
            name, datatype, shape, data = tensor((folder / f"test_data_set_0/input_{i}.pb").read_bytes())
            assert name == value.name
            assert datatype == value.datatype or (datatype, value.datatype) == ("UINT16", "BF16")
            self.inputs.append((name, value.datatype, shape, data))

        self.random = sorted({operator for operator, attributes in self.model.nodes
                              if operator in RANDOM and "seed" not in attributes})
        # Left out, or NONE, which nobody writes: the case is not changed, and no locale is needed.
        self.cased = any(operator == "StringNormalizer" and "case_change_action" in attributes
                         for operator, attributes in self.model.nodes)

    def end(self, group, reason=""):
        if self.group is None:
            self.group, self.reason = group, " ".join(reason.split())[:150].strip()

    def body(self):
        head = json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": shape,
                                       "parameters": {"binary_data_size": len(data)}}
                                      for name, datatype, shape, data in self.inputs],
                           "parameters": {"binary_data_output": True}}).encode()
        return len(head), head + b"".join(data for *_, data in self.inputs)


# --- ONNX Runtime without the server ---

def direct_text(text):
    """What ONNX Runtime says, without places in its source and on this machine."""
    text = re.sub(r"^ort_direct: (\S+): (Load model from \S+ failed:)?", "", text.strip())
    return re.sub(r"\S*/\S+\.(cc|h|onnx)(:\d+)?(:\d+)?( [^()]*\([^()]*\)( const)?)?( \[with .*?\])?", "", text)


def direct_run(cases, folder):
    """Runs all of them in a process each, and keeps what they answered or why not."""
    lines = []
    for i, case in enumerate(cases):
        words = [f"{folder}/{i}.out", str(case.path), "1", "0"]
        for k, (name, datatype, shape, data) in enumerate(case.inputs):
            path = folder / f"{i}.{k}.in"
            path.write_bytes(data)
            words.append(f"{name}={datatype}:{','.join(map(str, shape))}:{path}")
        assert not any(set("\t\n") & set(word) for word in words)
        lines.append("\t".join(words) + "\n")
    run = subprocess.run([BUILD / "test/unit/engine/ort_direct", ROOT / "build/engines/libonnxruntime.so.1", "-"],
                         input="".join(lines).encode(), stdout=subprocess.PIPE, timeout=600, check=True)
    for i, (case, status) in enumerate(zip(cases, map(int, run.stdout.split()), strict=True)):
        text, data = (folder / f"{i}.out.txt").read_text(), (folder / f"{i}.out").read_bytes()
        if status < 0:
            case.end(CRASHES, f"signal {-status}")
        elif status > 0 and case.cased and "locale" in text:
            case.end(CASED)
        elif status > 0:
            loaded = not text.startswith(f"ort_direct: {case.path}: ")
            case.end("ONNX Runtime does not run it" if loaded else "ONNX Runtime does not load it", direct_text(text))
        else:
            case.direct, at = {}, 0
            for line in text.splitlines():
                name, datatype, size, dims = line.rsplit(" ", 3)
                shape = [int(dim) for dim in dims.split(",") if dim]
                case.direct[name] = datatype, shape, data[at:at + int(size)]
                at += int(size)
            assert at == len(data), (case.name, text, len(data))


# --- through the server ---

class AdminConnection(http.client.HTTPConnection):
    def __init__(self, server):
        super().__init__("localhost", timeout=CEILING_S)
        self.path = str(server.data / "admin.sock")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, target, body=None):
        self.request(method, target, body)
        answer = self.getresponse()
        return answer.status, json.loads(answer.read())


def apply(admin, named):
    """named: model name -> case. The answer's status and text."""
    digests, resources = {}, []
    for name, case in named.items():
        status, stored = admin.ask("POST", "/v1alpha1/artifacts", case.path.read_bytes())
        assert status == 200, stored
        digests[name] = stored["digest"]
        resources.append({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Model",
                          "metadata": {"name": name, "tenant": "onnx"},
                          "spec": {"engine": "onnx", "source": name, "batching": {"maxSize": 256}}})
    status, answer = admin.ask("POST", "/v1alpha1/apply",
                               json.dumps({"resources": resources, "artifacts": digests}).encode())
    return status, answer.get("error", "")


def answer_outputs(answer):
    size = int(answer.headers["Inference-Header-Content-Length"])
    outputs, at = {}, size
    for output in json.loads(answer.body[:size])["outputs"]:
        n = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = output["datatype"], output["shape"], answer.body[at:at + n]
        at += n
    assert at == len(answer.body)
    return outputs


def compare(case, answer):
    """Of a case that ONNX Runtime runs: what the server made of it."""
    if answer.status != 200:
        case.end("NOT SERVED", f"{answer.status} {answer.json['error']}")
        return
    outputs = answer_outputs(answer) if case.model.outputs else {}
    exact = not case.random
    for name, (datatype, shape, data) in case.direct.items():
        got = outputs.get(name)
        if got is None or got[:2] != (datatype, shape) or len(got[2]) != len(data) or exact and got[2] != data:
            case.end("NOT EQUAL", f"'{name}' {got and got[:2]} for {datatype, shape}")
    if set(outputs) != set(case.direct):
        case.end("NOT EQUAL", f"outputs {sorted(outputs)}")
    case.end(CASED if case.cased else EQUAL if exact else ALIKE, ", ".join(case.random))


def serve(server, key, named, admin):
    connection = server.connect()
    good = {name: case for name, case in named.items() if case.direct is not None}
    groups = [good] if good else []
    groups += [{name: case} for name, case in named.items() if case.direct is None]
    for group in groups:
        status, text = apply(admin, group)
        if status != 200:
            for case in group.values():
                assert case.direct is None, (case.name, status, text)
                assert status == 422, (case.name, status, text)
            continue
        for name, case in group.items():
            head, body = case.body()
            answer = server.http("POST", f"/v2/models/{name}/infer", key, body,
                                 {"Inference-Header-Content-Length": str(head)}, connection)
            if case.direct is not None:
                compare(case, answer)
            else:
                assert answer.status in (400, 422, 500, 503), (case.name, answer.status, answer.body)
                assert answer.code in ("model_unavailable", "engine_error", "invalid_tensor"), (case.name, answer.body)
            status, text = admin.ask("DELETE", f"/v1alpha1/models/{name}?tenant=onnx")
            assert status == 200, text
    connection.close()


def serve_all(server, cases):
    server.apply(tenant_yaml("onnx"))
    key = server.key("onnx")
    numbered = [(f"n{i}", case) for i, case in enumerate(cases) if case.group != CRASHES]
    batches = [dict(numbered[i:i + APPLIED_AT_ONCE]) for i in range(0, len(numbered), APPLIED_AT_ONCE)]
    failures = []

    def work():
        admin = AdminConnection(server)
        try:
            while not failures:
                serve(server, key, batches.pop(), admin)
        except IndexError:  # none left
            pass
        except BaseException as failure:  # shown by the test's own thread
            failures.append(failure)
        admin.close()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# --- the list ---

def report(cases, version):
    counts = collections.Counter(case.group for case in cases)
    lines = [f"# libonnx-testdata {version}: its {len(cases)} node models. Written by test_onnx_nodes.py with",
             "# BULKHEAD_UPDATE=1; see there.", ""]
    lines += [f"{counts[group]:5} {group}" for group in sorted(counts, key=lambda g: (not g.startswith("served"), g))]
    for group in sorted(set(counts) - {EQUAL}):
        lines += ["", f"{group}:"]
        lines += [f"  {c.name}" + (f": {c.reason}" if c.reason else "") for c in cases if c.group == group]
    return "\n".join(lines) + "\n"


def test_every_node_model(server, folder):
    assert NODES.is_dir(), "libonnx-testdata is not installed: tools/deps install --test"
    version = gzip.decompress(CHANGES.read_bytes()).split(b"(", 1)[1].split(b")", 1)[0].decode()
    cases = [Case(path) for path in sorted(NODES.iterdir())]
    assert len(cases) > 900
    direct_run([case for case in cases if case.group is None], folder)
    serve_all(server, cases)
    text = report(cases, version)
    print(text)
    refused = {f"n{i}" for i, case in enumerate(cases) if case.direct is None}
    lost = [line["message"] for line in server.log if line["event"] in ("replica_lost", "worker_protocol")]
    ends = re.compile(r"tenant=onnx model=(n\d+) version=1: it could not load its model")
    assert [text for text in lost if not (match := ends.fullmatch(text)) or match[1] not in refused] == []
    assert [(c.name, c.group, c.reason) for c in cases if c.group.startswith("NOT ")] == []
    path = LISTS / f"{version}.txt"
    if os.environ.get("BULKHEAD_UPDATE") == "1":
        path.write_text(text)
    if path.exists():
        assert text == path.read_text(), "the list is stale: BULKHEAD_UPDATE=1 writes it"
