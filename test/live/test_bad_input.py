"""Bad input gets a clear catalogued error, and nothing else happens: no alert, no worker lost, no state changed, and the
next request is served. No message names a path, an address, a process or a place in memory."""
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import threading

import pytest

from conftest import CEILING_S, ROOT, Answer, model_yaml, tenant_yaml, wait_until
from load import Load

CODES = {code: int(status) for code, status in
         re.findall(r'X\(\w+, "(\w+)", (\d+),', (ROOT / "src/base/error.h").read_text())}
SECRET = re.compile(r"0x[0-9a-f]{4,}|/(tmp|proc|sys|dev|usr|var|home|root|work|etc|run|memfd)\b|\bpids? ?\d|"
                    r"\b\d+\.\d+\.\d+\.\d+\b|\.sock\b|\.[ch]:\d+|bulkhead-worker|\bSIG[A-Z]{3}|\(null\)|\bbh_")
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def check_message(text):
    assert not SECRET.search(text), text
    assert text.isprintable() and text[:1] != " " and len(text) >= 10, text


def check_answer(answer, status, code, texts=()):
    """A catalogued error with these fragments and nothing that is nobody's business."""
    content = answer.json
    assert set(content) == {"error", "code"}, content
    assert (answer.status, content["code"]) == (status, code), content
    assert CODES[code] == status
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.headers["Retry-After"] is not None) == (status in (408, 429, 503)), (status, answer.headers)
    check_message(content["error"])
    for text in texts:
        assert text in content["error"], (text, content["error"])


@contextlib.contextmanager
def case(what):
    """Says which row of a table failed."""
    try:
        yield
    except Exception as e:
        raise AssertionError(f"{what}: {e}") from e


class Witness:
    """What must be as before after bad input."""

    def __init__(self, server):
        self.server = server
        self.connection = server.connect()
        self.before = self.state()

    def state(self):
        resources = [self.server.cli("get", kind, "-o", "json").stdout for kind in ("tenant", "model", "version", "key")]
        return resources, self.server.workers(), [self.server.pid(role) for role in ("control", "gateway")]

    def serves(self, connection=None):
        answer = self.server.infer("echo", [TENSOR], self.server.acme, connection=connection)
        assert answer.status == 200 and answer.json["outputs"][0]["data"] == [1, 2, 3, 4], answer.body

    def nothing_happened(self):
        self.serves()
        assert self.state() == self.before
        assert [line for line in self.server.log if line["level"] in ("alert", "error")] == []


@pytest.fixture
def witness(identity):
    assert identity.infer("echo", [TENSOR], identity.acme).status == 200  # loads its worker
    w = Witness(identity)
    yield w
    w.nothing_happened()
    w.connection.close()


def receive(sock):
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return Answer(answer.status, answer.headers, answer.read())


# --- inference requests ---

def tensor(**change):
    """The good input with members changed, or left out when None."""
    return {k: v for k, v in {**TENSOR, **change}.items() if v is not None}


def inputs(*tensors, **more):
    return json.dumps({"inputs": list(tensors), **more})


I64 = (1 << 63) - 1
JSON = "invalid_json"
REQUEST = "invalid_request"
SHAPE = "invalid_tensor"
CONTROL = "\x1b[2J\n"  # comes back as JSON writes it
REQUESTS = [  # what, body, code, fragments
    ("nothing", "", JSON, ["no JSON"]),
    ("spaces", "  \n ", JSON, []),
    ("no JSON", "hello", JSON, ["line 1, column 1 (byte 0)"]),
    ("a cut off object", '{"inputs": [', JSON, ["line 1, column 13 (byte 12)"]),
    ("an error on line 3", '{\n "inputs":\n  [1,]}', JSON, ["line 3, column"]),
    ("two documents", inputs(TENSOR) + "{}", JSON, ["line 1, column"]),
    ("a comment", "/* */" + inputs(TENSOR), JSON, ["line 1, column 1"]),
    ("single quotes", inputs(TENSOR).replace('"', "'"), JSON, ["line 1, column 2"]),
    ("NaN", inputs(tensor(data=[1, 2, 3, float("nan")])), JSON, ["line 1"]),
    ("a lone surrogate", inputs(TENSOR, id="x").replace('"x"}', '"\\ud800"}'), JSON, ["line 1"]),
    ("a wrong UTF-8 sequence", inputs(TENSOR).encode() + b"\xff", JSON, ["line 1"]),
    ("UTF-16", inputs(TENSOR).encode("utf-16"), JSON, ["byte 0"]),
    ("a NUL", inputs(TENSOR) + "\0", JSON, []),
    ("a list", "[]", REQUEST, ["JSON object"]),
    ("a number", "1", REQUEST, ["JSON object"]),
    ("null", "null", REQUEST, ["JSON object"]),
    ("no inputs", "{}", REQUEST, ['no "inputs"']),
    ("inputs that are no list", '{"inputs": {}}', REQUEST, ['"inputs"', "must be an array"]),
    ("an input that is no object", inputs(1), REQUEST, ["inputs[0] must be an object"]),
    ("an empty list of inputs", inputs(), SHAPE, ['Input "x" is missing', "FP32 [-1,4]"]),
    ("an unknown member", inputs(TENSOR, input=1), REQUEST, ['unknown member "input"']),
    ("an unknown member of an input", inputs(tensor(dtype="FP32")), REQUEST, ["inputs[0]", 'unknown member "dtype"']),
    ("an unknown member of an output", inputs(TENSOR, outputs=[{"name": "x", "datatype": "FP32"}]), REQUEST,
     ["outputs[0]", 'unknown member "datatype"']),
    ("a member twice", '{"inputs": [], "inputs": []}', REQUEST, ['"inputs" twice']),
    ("an id that is a number", inputs(TENSOR, id=1), REQUEST, ['"id"', "must be a string"]),
    ("parameters that are a list", inputs(TENSOR, parameters=[]), REQUEST, ['"parameters"', "must be an object"]),
    ("a timeout below 0", inputs(TENSOR, parameters={"timeout": -1}), REQUEST, ['"timeout"', "whole number"]),
    ("a timeout with a fraction", inputs(TENSOR, parameters={"timeout": 0.5}), REQUEST, ['"timeout"']),
    ("no name", inputs(tensor(name=None)), REQUEST, ['inputs[0] has no "name"']),
    ("an empty name", inputs(tensor(name="")), REQUEST, ["1 to 255 bytes"]),
    ("a name with a NUL", inputs(tensor(name="x\0")), REQUEST, ["no NUL"]),
    ("no datatype", inputs(tensor(datatype=None)), REQUEST, ['input "x" has no "datatype"']),
    ("no shape", inputs(tensor(shape=None)), REQUEST, ['input "x" has no "shape"']),
    ("no data", inputs(tensor(data=None)), REQUEST, ['input "x"', '"data"', "binary_data_size"]),
    ("data and a size", inputs(tensor(parameters={"binary_data_size": 16})), REQUEST, ["either"]),
    ("another name", inputs(tensor(name="y")), SHAPE, ['no input "y"', 'it has "x"']),
    ("a name of control characters", inputs(tensor(name=CONTROL)), SHAPE, ["no input"]),
    ("an input twice", inputs(TENSOR, TENSOR), SHAPE, ['"x" is there twice']),
    ("an unknown datatype", inputs(tensor(datatype="FLOAT")), SHAPE, ['"FLOAT"', "FP32"]),
    ("a datatype that is a number", inputs(tensor(datatype=32)), REQUEST, ['"datatype"', "must be a string"]),
    ("another datatype", inputs(tensor(datatype="INT64")), SHAPE, ["is INT64 [1,4]", "expects FP32 [-1,4]"]),
    ("another shape", inputs(tensor(shape=[1, 3], data=[1, 2, 3])), SHAPE, ["is FP32 [1,3]", "expects FP32 [-1,4]"]),
    ("another rank", inputs(tensor(shape=[4])), SHAPE, ["is FP32 [4]", "expects FP32 [-1,4]"]),
    ("a scalar", inputs(tensor(shape=[], data=[1])), SHAPE, ["is FP32 []", "expects FP32 [-1,4]"]),
    ("a negative dim", inputs(tensor(shape=[-1, 4])), SHAPE, ["Dimension 0", "from 0 to 9223372036854775807"]),
    ("a dim that is a fraction", inputs(tensor(shape=[1.0, 4])), SHAPE, ["Dimension 0"]),
    ("a dim that is text", inputs(tensor(shape=["1", 4])), SHAPE, ["Dimension 0"]),
    ("a dim beyond 63 bits", inputs(tensor(shape=[1 << 63, 4])), SHAPE, ["Dimension 0"]),
    ("dims beyond 64 bits", inputs(tensor(shape=[1 << 32, 1 << 32])), SHAPE, ["[4294967296,4294967296]", "more elements"]),
    ("dims that come round to 4", inputs(tensor(shape=[(1 << 62) + 1, 4])), SHAPE, ["more elements"]),
    ("dims that come to 0", inputs(tensor(shape=[I64, I64, 0])), SHAPE, []),
    ("a great many rows", inputs(tensor(shape=[1 << 40, 4])), SHAPE, ["its data has 4"]),
    ("a value too few", inputs(tensor(data=[1, 2, 3])), SHAPE, ["[1,4] has 4 elements", "its data has 3"]),
    ("a value too many", inputs(tensor(data=[1, 2, 3, 4, 5])), SHAPE, ["its data has 5"]),
    ("data that is text", inputs(tensor(data="1234")), REQUEST, ['"data"', "must be an array"]),
    ("a value that is text", inputs(tensor(data=[1, "2", 3, 4])), SHAPE, ["element 1", "a string", "FP32"]),
    ("a value that is null", inputs(tensor(data=[1, None, 3, 4])), SHAPE, ["element 1", "null"]),
    ("a value that is true", inputs(tensor(data=[1, 2, True, 4])), SHAPE, ["element 2", "true"]),
    ("a value beyond FP32", inputs(tensor(data=[1, 2, 3, 1e39])), SHAPE, ["element 3", "3.4028235e38"]),
    ("a value beyond FP64", inputs(TENSOR).replace("[1, 2", "[1e999, 2"), SHAPE, ["element 0", "1e999"]),
    ("a value of 10,000 digits", inputs(TENSOR).replace("[1, 2", "[" + "9" * 10_000 + ", 2"), SHAPE, ["element 0"]),
    ("ragged rows", inputs(tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7]])), SHAPE, ["has 3 entries", "[2,4] needs 4"]),
    ("a row too few", inputs(tensor(shape=[2, 4], data=[[1, 2, 3, 4]])), SHAPE, ["has 1 entries", "[2,4] needs 2"]),
    ("rows of rows", inputs(tensor(data=[[[1], [2], [3], [4]]])), SHAPE, ["element 0", "an array"]),
    ("a row and values", inputs(tensor(shape=[2, 4], data=[[1, 2, 3, 4], 5, 6, 7, 8])), SHAPE, ["has 5 entries"]),
    ("a row and a value", inputs(tensor(shape=[2, 4], data=[[1, 2, 3, 4], 5])), SHAPE, ["nested 1 deep", "element 4"]),
    ("an unknown output", inputs(TENSOR, outputs=[{"name": "y"}]), SHAPE, ['no output "y"', 'it has "x"']),
    ("an output twice", inputs(TENSOR, outputs=[{"name": "x"}, {"name": "x"}]), SHAPE, ["asked for twice"]),
    ("an output without a name", inputs(TENSOR, outputs=[{}]), REQUEST, ['outputs[0] has no "name"']),
    ("binary_data that is a number", inputs(TENSOR, outputs=[{"name": "x", "parameters": {"binary_data": 1}}]), REQUEST,
     ['"binary_data"', "must be a boolean"]),
    ("too many rows", inputs(tensor(shape=[33, 4], data=[0] * 132)), SHAPE, ["33 rows", "at most 32"]),
    ("a name of 255 bytes", inputs(tensor(name="€" * 85)), SHAPE, ["no input"]),
    ("format characters", inputs(tensor(name="%s%n%p%x")), SHAPE, ['"%s%n%p%x"']),
]


def test_inference_requests(witness):
    """All on one connection: it goes on after each."""
    for what, body, code, texts in REQUESTS:
        with case(what):
            answer = witness.server.http("POST", "/v2/models/echo/infer", witness.server.acme,
                                         body if isinstance(body, bytes) else body.encode(),
                                         connection=witness.connection)
            answer.body = answer.body.replace(json.dumps(CONTROL)[1:-1].encode(), b"...")
            check_answer(answer, 400, code, texts)
            witness.serves(witness.connection)


BINARY = [  # what, size of the tensor said, bytes sent, Inference-Header-Content-Length for the JSON's n bytes, code
    ("a byte too few", 15, 15, lambda n: n, SHAPE, ["4 elements of 4 bytes", "15 bytes"]),
    ("a byte too many", 17, 17, lambda n: n, SHAPE, ["4 elements of 4 bytes", "17 bytes"]),
    ("a byte less than said", 16, 15, lambda n: n, SHAPE, ["binary_data_size is 16", "15 bytes are left"]),
    ("a byte more than said", 16, 17, lambda n: n, REQUEST, ["1 bytes behind the JSON"]),
    ("nothing", 0, 0, lambda n: n, SHAPE, ["4 elements of 4 bytes", "0 bytes"]),
    ("a size below 0", -1, 16, lambda n: n, REQUEST, ["binary_data_size", "whole number"]),
    ("a size beyond 64 bits", 1 << 64, 16, lambda n: n, REQUEST, ["binary_data_size"]),
    ("a huge size", I64, 16, lambda n: n, SHAPE, ["only 16 bytes"]),
    ("a size that is text", "16", 16, lambda n: n, REQUEST, ["binary_data_size"]),
    ("a header one too small", 16, 16, lambda n: n - 1, JSON, ["line 1"]),
    ("a header one too large", 16, 16, lambda n: n + 1, JSON, ["line 1"]),
    ("a header beyond the body", 16, 16, lambda n: n + 17, REQUEST, ["Inference-Header-Content-Length", "body"]),
    ("a header of 0", 16, 16, lambda n: 0, SHAPE, ["raw request", "4 elements of 4 bytes"]),
    ("a header below 0", 16, 16, lambda n: -1, REQUEST, ["Inference-Header-Content-Length"]),
    ("a header beyond 64 bits", 16, 16, lambda n: 1 << 64, REQUEST, ["Inference-Header-Content-Length"]),
    ("a header that is text", 16, 16, lambda n: "abc", REQUEST, ["Inference-Header-Content-Length"]),
    ("a header in hexadecimal", 16, 16, hex, REQUEST, ["Inference-Header-Content-Length"]),
    ("a header with a sign", 16, 16, lambda n: f"+{n}", REQUEST, ["Inference-Header-Content-Length"]),
    ("an empty header", 16, 16, lambda n: "", REQUEST, ["Inference-Header-Content-Length"]),
]


def test_binary_requests(witness):
    for what, said, sent, header, code, texts in BINARY:
        json_part = inputs(tensor(data=None, parameters={"binary_data_size": said})).encode()
        with case(what):
            answer = witness.server.http("POST", "/v2/models/echo/infer", witness.server.acme, json_part + bytes(sent),
                                         {"Inference-Header-Content-Length": str(header(len(json_part)))},
                                         connection=witness.connection)
            check_answer(answer, 400, code, texts)
            witness.serves(witness.connection)


def binary_tensor(datatype, shape, data):
    """Body and headers of a request whose input is binary."""
    head = inputs(tensor(datatype=datatype, shape=shape, data=None, parameters={"binary_data_size": len(data)})).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


BAD_VALUES = {"BOOL": 1, "UINT8": 256, "INT8": 128, "UINT16": 65536, "INT16": -32769, "UINT32": 1 << 32,
              "INT32": 1 << 31, "UINT64": 1 << 64, "INT64": 1 << 63, "FP64": "1", "BYTES": 1}
BAD_BYTES = [("BOOL", b"\x01\x02"), ("BYTES", struct.pack("<I", 5) + b"abcd"),
             ("BYTES", struct.pack("<I", 0xFFFFFFFF) + b"abcd"), ("BYTES", struct.pack("<I", 0)),
             ("BYTES", struct.pack("<III", 0, 0, 0)), ("BYTES", b"abc")]


def test_other_datatypes(server, folder):
    """A bad value of each datatype, and bytes that are none."""
    for name in BAD_VALUES:
        (folder / f"{name.lower()}.json").write_text(
            json.dumps({"inputs": [{"name": "x", "datatype": name, "shape": [-1, 2]}]}))
    server.apply(tenant_yaml("acme") +
                 "".join(model_yaml(n.lower(), "acme", f"{n.lower()}.json") for n in BAD_VALUES))
    key = server.key("acme")
    with contextlib.closing(server.connect()) as connection:
        for name, bad in BAD_VALUES.items():
            good = {"BOOL": [True, False], "BYTES": ["a", ""]}.get(name, [1, 2])
            for data in (good, [good[0], bad], good):
                answer = server.infer(name.lower(), [tensor(datatype=name, shape=[1, 2], data=data)], key, connection)
                if bad in data[1:] and data is not good:
                    check_answer(answer, 400, SHAPE, ['input "x"', "element 1", name])
                else:
                    assert answer.status == 200 and answer.json["outputs"][0]["data"] == good, answer.body
        workers = server.workers()
        for name, data in BAD_BYTES:
            body, headers = binary_tensor(name, [1, 2], data)
            with case(f"{name} {data}"):
                answer = server.http("POST", f"/v2/models/{name.lower()}/infer", key, body, headers, connection)
                check_answer(answer, 400, SHAPE, ['input "x"'])
    assert server.workers() == workers and len(workers) == len(BAD_VALUES)


def test_bytes_that_are_no_text_have_no_json(server, folder):
    """An output that JSON cannot hold: a catalogued error that says what to ask for instead."""
    (folder / "b.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 1]}]}))
    server.apply(tenant_yaml("acme") + model_yaml("b", "acme", "b.json"))
    key = server.key("acme")
    body, headers = binary_tensor("BYTES", [1, 1], struct.pack("<I", 2) + b"\xff\xfe")
    answer = server.http("POST", "/v2/models/b/infer", key, body, headers)
    assert answer.status >= 400, answer.body
    check_answer(answer, answer.status, answer.code, ["binary"])


# --- addresses, methods, keys ---

ADDRESSES = [
    ("GET", "/", 404, "not_found"), ("GET", "/v2/", 404, "not_found"), ("GET", "//v2", 404, "not_found"),
    ("GET", "/v2/models/", 404, "not_found"), ("GET", "/v2/models/echo/", 404, "not_found"),
    ("GET", "/v2/models//ready", 404, "not_found"), ("GET", "/V2", 404, "not_found"),
    ("GET", "/v2/models/../echo", 404, "not_found"), ("GET", "/v2/models/%65cho", 404, "model_not_found"),
    ("GET", "/v2/models/ECHO", 404, "model_not_found"), ("GET", "/v2/models/" + "e" * 64, 404, "model_not_found"),
    ("GET", "/v2/models/echo\x7f", 400, "http_malformed"), ("GET", "/v2/models/nosuch", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/2", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/0", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/-1", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/one", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/4294967297", 404, "model_not_found"),
    ("GET", "/v2/models/echo/versions/18446744073709551617", 404, "model_not_found"),
    ("POST", "/v2/models/nosuch/infer", 404, "model_not_found"),
    ("POST", "/v2/models/echo/versions/7/infer", 404, "model_not_found"),
    ("GET", "/v2/models/echo/infer", 405, "method_not_allowed"), ("POST", "/v2", 405, "method_not_allowed"),
    ("DELETE", "/v2/models/echo", 405, "method_not_allowed"), ("TRACE", "/v2", 405, "method_not_allowed"),
    ("OPTIONS", "/v2", 405, "method_not_allowed"), ("POST", "/v2/health/live", 405, "method_not_allowed"),
    ("BREW", "/v2", 400, "http_malformed"), ("get", "/v2", 400, "http_malformed"),
]


def test_addresses(witness):
    for method, path, status, code in ADDRESSES:
        with case(f"{method} {path}"), witness.server.raw() as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {witness.server.acme}\r\n"
                         "Content-Length: 0\r\n\r\n".encode("latin-1"))
            check_answer(receive(sock), status, code)


def test_another_tenants_model_is_not_there(witness):
    """The same bytes as for a model that nobody has."""
    server = witness.server
    server.apply(tenant_yaml("other"))
    other = server.key("other")
    for path in ("", "/ready", "/versions/1", "/versions/1/ready"):
        answers = [server.http("GET", f"/v2/models/{name}{path}", other) for name in ("echo", "nosuch")]
        check_answer(answers[0], 404, "model_not_found")
        assert answers[0].body == answers[1].body
    answers = [server.infer(name, [TENSOR], other) for name in ("echo", "nosuch")]
    check_answer(answers[0], 404, "model_not_found")
    assert answers[0].body == answers[1].body
    assert server.http("GET", "/v2/models", other).json == {"models": []}
    witness.before = witness.state()


KEYS = ["", "x", "bh_", "bh__", "Bearer", "bh_" + "0" * 16 + "_" + "0" * 43, "bh_" + "\xff" * 60, "a" * 4000,
        "../../etc/passwd", "' OR 1=1 --", "%00"]


def test_keys(witness):
    good = witness.server.acme
    wrong = [*KEYS, good[:-1], good + "0", good.upper(), good.replace("bh_", "bx_"), f"{good},{good}",
             good[:25] + ("0" if good[25] != "0" else "1") + good[26:]]
    for key in wrong:
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}, {"Authorization": key}):
            with case(headers):
                answer = witness.server.http("GET", "/v2", headers=headers, connection=witness.connection)
                check_answer(answer, 401, "unauthenticated", ["API key"])
                assert answer.headers["WWW-Authenticate"] == "Bearer"
    witness.serves(witness.connection)


# --- HTTP itself ---

HEADS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # TLS
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # HTTP/2
    b"GET /v2\r\n\r\n",  # HTTP/0.9
    b"GET /v2 HTTP/1.1\r\n\r\n",  # no Host
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET  /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v2 HTTP/1.2\r\nHost: a\r\n\r\n",
    b"GET v2 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v2 HTTP/1.1\nHost: a\n\n",
    b"GET /v2 HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",  # folding
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nX\xc3: b\r\n\r\n",
    b"GET /v2 HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"POST /v2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
]
EXPECTATION = b"POST /v2 HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"


def test_heads(witness):
    for data in [*HEADS, EXPECTATION]:
        with case(data[:60]), witness.server.raw() as sock:
            sock.sendall(data)
            check_answer(receive(sock), *((417, "expectation_failed") if data == EXPECTATION else (400, "http_malformed")))
            assert sock.recv(1) == b""  # nothing behind it is taken for a request


CHUNKS = [b"x\r\n", b"-1\r\n", b"1\r\nab\r\n", b"1;\0\r\n", b"fffffffffffffffff\r\n", b"1\r\na\r\n0\r\nX : y\r\n\r\n",
          b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n", b"1\na\n0\n\n"]


def test_chunks(witness):
    for chunks in CHUNKS:
        with case(chunks), witness.server.raw() as sock:
            sock.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-API-Key: " +
                         witness.server.acme.encode() + b"\r\n\r\n" + chunks)
            check_answer(receive(sock), 400, "http_malformed")
            assert sock.recv(1) == b""


# --- resources and the command line ---

def resource(kind, metadata=None, **spec):
    return {"apiVersion": "bulkhead.dev/v1alpha1", "kind": kind, "metadata": metadata or {"name": "acme"}, "spec": spec}


def tenant_named(name):
    return resource("Tenant", {"name": name})


def model(**spec):
    return resource("Model", {"name": "m", "tenant": "acme"}, **{"engine": "identity", "source": "echo.json", **spec})


RESOURCES = [  # document, fragments
    (resource("Tenant", weigth=2), ["Tenant acme: spec.weigth: unknown field", "weight"]),
    (resource("Tenant", quota={"requestsPerMinutes": 2}), ["spec.quota.requestsPerMinutes", "requestsPerMinute"]),
    (resource("Tenant", quota=[]), ["spec.quota", "object"]),
    (resource("Tenant", weight="2"), ["spec.weight", "a whole number"]),
    (resource("Tenant", weight=-1), ["spec.weight", "a whole number", "-1"]),
    (resource("Tenant", weight=1.5), ["spec.weight", "a whole number", "1.5"]),
    (resource("Tenant", weight=1 << 64), ["spec.weight"]),
    (resource("Tenant", isolation={"minimum": "strong"}), ["spec.isolation.minimum", "shared, pool, process"]),
    (tenant_named("Acme"), ["metadata.name", '"Acme"', "a-z"]),
    (tenant_named("-acme"), ["metadata.name"]), (tenant_named("ac me"), ["metadata.name"]),
    (tenant_named("acmé"), ["metadata.name"]), (tenant_named("../acme"), ["metadata.name"]),
    (tenant_named(""), ["metadata.name"]), (tenant_named(1), ["metadata.name"]),
    (resource("Tenant", {"labels": {}}), ["metadata.name"]),
    (resource("Tenant", {"name": "acme", "tenant": "acme"}), ["metadata.tenant"]),
    (resource("Tenant", {"name": "acme", "labels": {"a b": "c"}}), ["metadata.labels", '"a b"']),
    (resource("Tenant", {"name": "acme", "labels": {"a": 1}}), ["metadata.labels", '"a"']),
    (resource("Tenant", {"name": "acme", "resourceVersion": 999}), ["metadata.resourceVersion", "999"]),
    (dict(resource("Tenant"), specs={}), ["specs", "unknown"]),
    (dict(resource("Tenant"), apiVersion="v1"), ["apiVersion", "bulkhead.dev/v1alpha1"]),
    (dict(resource("Tenant"), kind="Tenent"), ["kind", "Tenent", "Tenant"]),
    ({"kind": "Tenant"}, ["apiVersion"]),
    ([], []), ("text", []), (1, []),
    (resource("Server"), ["Server"]),
    (resource("Replica"), ["Replica"]),
    (resource("Model", {"name": "m"}, engine="identity", source="echo.json"), ["metadata.tenant"]),
    (resource("Model", {"name": "m", "tenant": "nosuch"}, engine="identity", source="echo.json"),
     ["Model nosuch/m", "metadata.tenant", "no Tenant nosuch"]),
    (resource("Model", {"name": "m", "tenant": "acme"}, source="echo.json"), ["spec.engine", "required"]),
    (resource("Model", {"name": "m", "tenant": "acme"}, engine="identity"), ["spec.source"]),
    (model(engine="magic"), ["spec.engine", '"magic"']),
    (model(source="nosuch.json"), ["spec.source", "nosuch.json", "No such file"]),
    (model(source="nosuch/"), ["spec.source", "nosuch/", "No such file"]),
    (model(isolation={"level": "microvm"}), ["spec.isolation.level", "microvm"]),  # not available, or not tested yet
    (model(resources={"cpu": 0.5}), ["spec.resources.cpu", "whole cores"]),
    (model(resources={"cpu": 4096}), ["spec.resources.cpu"]),
    (model(resources={"memory": "15Mi"}), ["spec.resources.memory", "16Mi"]),
    (model(resources={"memory": "1Ti"}), ["spec.resources.memory"]),
    (model(resources={"memory": "1G i"}), ["spec.resources.memory", "bytes"]),
    (model(resources={"memroy": "1Gi"}), ["spec.resources.memroy", "memory"]),
    (model(batching={"maxDelay": 5}), ["spec.batching.maxDelay", "duration"]),
    (model(batching={"maxDelay": "2s"}), ["spec.batching.maxDelay", "1s"]),
    (model(replicas={"min": 2, "max": 1}), ["spec.replicas", "min (2)", "max (1)"]),
]


def test_resources(witness):
    """By the command line: exit 1, one line that names the file, the document and the field; nothing is applied."""
    for document, texts in RESOURCES:
        result = witness.server.apply(json.dumps(tenant_named("before")) + "\n---\n" + json.dumps(document), check=False)
        with case(f"{document}: {result}"):
            assert result.returncode == 1 and result.stdout == ""
            line, = result.stderr.splitlines()
            assert "document 2" in line
            # the person's own file is named as it was given
            check_message(line.replace(str(witness.server.data.parent / "apply.yaml"), "FILE"))
            for text in texts:
                assert text in line, text
    assert "before" not in witness.server.cli("get", "tenant").stdout


LAUGHS = "".join(f"b{i}: &b{i} [{','.join(['*' + last] * 9)}]\n" for i, last in
                 enumerate(["a"] + [f"b{k}" for k in range(11)]))
YAML = [  # text, fragments
    ("", ["nothing in it"]), ("# nothing\n", ["nothing in it"]), ("a: b: c", ["line 1"]), ("a: [1", ["line"]),
    ("\tkind: Tenant", ["line 1"]), ("kind: Tenant\nkind: Model", ["kind"]), ("a: &x [*x]", ["line 1"]),
    ("a: !!python/object:x {}", ["line 1", "tag"]), ("a: \"\\x\"", ["line 1"]), ("%YAML 9.9\n---\na: 1", ["line 1"]),
    ("a: 'x", ["line"]), ("? [a]\n: b", ["line 1"]), ("a: b\0c", []), ("\ufeff", ["nothing in it"]),
    ("a: &a [x,x,x,x,x,x,x,x,x]\n" + LAUGHS, []),
]


def test_yaml(witness):
    for text, texts in YAML:
        result = witness.server.cli("apply", "-f", "-", stdin=text, check=False)
        with case(f"{text[:60]!r}: {result}"):
            assert result.returncode == 1 and result.stdout == ""
            line, = result.stderr.splitlines()
            check_message(line)
            assert all(t in line for t in texts)


COMMANDS = [  # arguments, exit, fragments
    (["get", "nosuch"], 2, ["nosuch"]), (["get", "tenant", "nosuch"], 1, ["nosuch"]),
    (["get", "tenant", "No Such"], 1, []), (["get", "model", "echo", "--tenant", "../x"], 1, []),
    (["delete", "model", "nosuch", "--tenant", "acme"], 1, ["nosuch"]), (["delete", "tenant", "nosuch"], 1, ["nosuch"]),
    (["delete", "model", "echo"], 2, ["tenant"]), (["delete", "replica", "x"], 1, ["cannot be deleted"]),
    (["delete", "tenant", "acme"], 1, ["acme"]),
    (["key", "create", "--tenant", "nosuch"], 1, ["nosuch"]), (["key", "create"], 2, ["tenant"]),
    (["key", "revoke", "nosuch"], 1, []), (["key", "revoke", "../x"], 1, []), (["key", "revoke"], 2, []),
    (["infer", "nosuch", "--tenant", "acme", "--input", "REQUEST"], 1, ["no model"]),
    (["infer", "echo", "--tenant", "nosuch", "--input", "REQUEST"], 1, ["no such tenant"]),
    (["infer", "echo", "--tenant", "acme", "--input", "WRONG"], 1, ["line 1, column 2"]),
    (["infer", "echo", "--tenant", "acme", "--input", "nosuch.json"], 1, ["nosuch.json"]),
    (["infer", "echo", "--tenant", "acme"], 2, ["input"]),
    (["apply"], 2, ["-f"]), (["apply", "-f", "nosuch.yaml"], 1, ["nosuch.yaml", "No such file"]),
    (["nosuch"], 2, ["nosuch"]), (["status", "--nosuch"], 2, ["nosuch"]), (["status", "more"], 2, ["more"]),
]


def test_commands(witness, folder):
    (folder / "request.json").write_text(inputs(TENSOR))
    (folder / "wrong.json").write_text("{")
    files = {"REQUEST": str(folder / "request.json"), "WRONG": str(folder / "wrong.json")}
    for arguments, code, texts in COMMANDS:
        result = witness.server.cli(*(files.get(a, a) for a in arguments), check=False)
        with case(result):
            assert result.returncode == code and result.stdout == ""
            assert result.stderr.startswith("bulkhead")
            check_message(result.stderr.splitlines()[0])
            for text in texts:
                assert text in result.stderr, text


ADMIN = [  # method, path, body, status, code (None: any of that status)
    ("GET", "/", "", 404, "not_found"), ("GET", "/v1alpha1", "", 404, "not_found"),
    ("GET", "/v1alpha1/nosuch", "", 404, "not_found"), ("PUT", "/v1alpha1/apply", "", 405, "method_not_allowed"),
    ("GET", "/v1alpha1/tenants?x=y", "", 400, "invalid_request"),
    ("GET", "/v1alpha1/models?tenant=A", "", 400, "invalid_name"),
    ("POST", "/v1alpha1/apply", "", 400, "invalid_json"), ("POST", "/v1alpha1/apply", "{", 400, "invalid_json"),
    ("POST", "/v1alpha1/apply", "[]", 400, "invalid_request"), ("POST", "/v1alpha1/apply", "1", 400, "invalid_request"),
    ("POST", "/v1alpha1/apply", '{"resources": [1]}', 400, "invalid_resource"),
    ("POST", "/v1alpha1/apply", '{"resources": [], "x": 1}', 400, "invalid_request"),
    ("POST", "/v1alpha1/apply", '{"resources": ' + "[" * 200_000 + "]" * 200_000 + "}", 400, None),
    ("POST", "/v1alpha1/apply", json.dumps({"resources": [model()], "artifacts": {"echo.json": "../../x"}}), 400, None),
    ("POST", "/v1alpha1/apply", json.dumps({"resources": [model()], "artifacts": {"echo.json": "0" * 64}}), 400, None),
    ("POST", "/v1alpha1/apply", json.dumps({"resources": [model()], "artifacts": {"echo.json": 1}}), 400, None),
    ("POST", "/v1alpha1/keys", "", 400, "invalid_json"), ("POST", "/v1alpha1/keys", "{}", 400, "invalid_request"),
    ("POST", "/v1alpha1/keys", '{"tenant": 1}', 400, "invalid_request"),
    ("POST", "/v1alpha1/keys", '{"tenant": "acme", "x": 1}', 400, "invalid_request"),
    ("POST", "/v1alpha1/keys", '{"tenant": "nosuch"}', 404, "not_found"),
    ("POST", "/v1alpha1/keys", '{"tenant": "acme", "name": "a\\u0007b"}', 400, "invalid_name"),
    ("DELETE", "/v1alpha1/keys/0000000000000000", "", 404, "not_found"),
    ("POST", "/v1alpha1/infer", "", 400, "invalid_request"),
    ("POST", "/v1alpha1/infer?tenant=acme&model=echo", "{", 400, "invalid_json"),
    ("POST", "/v1alpha1/infer?tenant=acme&model=nosuch", "{}", 404, "model_not_found"),
    ("POST", "/v1alpha1/infer?tenant=nosuch&model=echo", "{}", 404, "not_found"),
]


def test_admin_requests(witness):
    """What the command line would never send."""
    for method, path, body, status, code in ADMIN:
        with case(f"{method} {path} {body[:60]}"), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(CEILING_S)
            sock.connect(str(witness.server.data / "admin.sock"))
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = receive(sock)
            assert answer.status == status, answer.body
            assert set(answer.json) == {"error", "code"} and CODES[answer.code] == status
            assert code in (None, answer.code), answer.body
            check_message(answer.json["error"])


def test_an_upload_that_breaks_off_leaves_nothing(witness):
    store = witness.server.data / "store"

    def artifacts():
        return sorted(p.name for p in store.rglob("*") if p.is_file() and "artifacts" in str(p))
    before = artifacts()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(witness.server.data / "admin.sock"))
        sock.sendall(b"POST /v1alpha1/artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000))
    wait_until(lambda: artifacts() == before, "the half artifact to go")


# --- a tenant that means ill ---

def test_a_hostile_tenant_does_not_disturb_another(identity):
    """Slow readers, pipelined requests by the thousand, floods of heads, half-open connections and broken requests: the
    other tenant gets every answer."""
    server = identity
    server.apply(tenant_yaml("calm") + model_yaml("echo", "calm", "echo.json"))
    calm = server.key("calm")
    assert server.infer("echo", [TENSOR], calm).status == 200
    assert server.infer("echo", [TENSOR], server.acme).status == 200
    workers = server.workers()
    body = inputs(tensor(shape=[32, 4], data=[0.123456789] * 128)).encode()
    request = (f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.acme}\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    with Load(server, calm, threads=2) as load, contextlib.ExitStack() as stack:
        def served(what):
            before = load.count()
            wait_until(lambda: load.count() > before + 20, f"the other tenant's answers during {what}")

        def push(data):
            """A new connection and as much of this as the kernel takes."""
            sock = stack.enter_context(server.raw())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                while data:
                    data = data[sock.send(data):]
            return sock

        slow = [push(request * 2000) for _ in range(8)]  # no answer is ever taken
        served("pipelines that nobody reads")
        for _ in range(300):
            push(request[:50])  # a part of a head and nothing more
        served("half-open connections")
        for _ in range(100):
            push(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)))
        served("floods of headers")
        for _ in range(50):
            push(request[:-10])
            push(os.urandom(1000))
            push(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + bytes(100_000))
        served("broken requests")
        for sock in slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
            sock.close()
        served("resets")
    assert set(load.statuses) == {200} and load.broken == 0 and load.wrong == 0, (load.statuses, load.codes, load.broken)
    assert server.workers() == workers
    assert server.infer("echo", [TENSOR], server.acme).status == 200


def test_pipelined_requests_are_answered_in_order(identity):
    count = 3000

    def request(i):
        body = inputs(TENSOR, id=str(i)).encode()
        return (f"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nX-API-Key: {identity.acme}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    with identity.raw() as sock, sock.makefile("rb") as reader:
        sender = threading.Thread(target=lambda: sock.sendall(b"".join(request(i) for i in range(count))))
        sender.start()
        for i in range(count):
            head = b"".join(iter(reader.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 200 "), (i, head)
            size = int(re.search(rb"Content-Length: (\d+)", head)[1])
            assert json.loads(reader.read(size))["id"] == str(i)
        sender.join()
