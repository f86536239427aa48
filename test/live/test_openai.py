"""The OpenAI surface over a real language model: answers, streams, refusals, clients that leave or do not read."""
import base64
import json
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest

from conftest import CEILING_S, ROOT, model_yaml, tenant_yaml, wait_until

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_hostile  # noqa: E402  (behind the path that finds it)

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """A model of random weights: it speaks no sense, but always the same."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    subprocess.run([sys.executable, ROOT / "test/tools/gguf_random.py", path, "--size", "tiny"], check=True)
    return path


@pytest.fixture
def llm(server, folder, gguf):
    (folder / "echo.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}))
    server.apply(tenant_yaml("acme") + tenant_yaml("other") + model_yaml("echo", "acme", "echo.json") +
                 model_yaml("talk", "acme", str(gguf), "llama", resources={"cpu": 1, "memory": "512Mi"}))
    server.acme, server.other = server.key("acme"), server.key("other")
    return server


def post(server, path, body, key=None, status=200):
    answer = server.http("POST", path, key or server.acme, {"model": "talk", **body})
    assert answer.status == status, answer.body
    return answer.json


def complete(server, **body):
    return post(server, PATH, {"prompt": "say something", "temperature": 0, "max_tokens": 8, **body})


def events(response):
    """The data of each server-sent event of an answer that streams, as they come."""
    for line in response:
        line = line.rstrip(b"\n")
        if line.startswith(b"data: "):
            yield line[6:].decode()


def stream(server, path=PATH, **body):
    """All chunks of a stream, which must end with [DONE]."""
    connection = server.connect()
    connection.request("POST", path, json.dumps({"model": "talk", "prompt": "say something", "stream": True, **body}),
                       {"Authorization": "Bearer " + server.acme})
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Transfer-Encoding"] == "chunked"
    found = list(events(response))
    assert found[-1] == "[DONE]"
    connection.close()
    return [json.loads(data) for data in found[:-1]]


def text_of(chunks, index=0):
    return "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index)


def test_models_are_the_tenants_own(llm):
    listed = llm.http("GET", "/v1/models", llm.acme).json
    assert listed["object"] == "list"
    assert sorted(m["id"] for m in listed["data"]) == ["echo", "talk"]
    assert all(m["object"] == "model" and m["owned_by"] == "acme" for m in listed["data"])
    assert [llm.http("GET", "/v1/models/" + m["id"], llm.acme).json for m in listed["data"]] == listed["data"]
    assert llm.http("GET", "/v1/models", llm.other).json["data"] == []
    theirs = llm.http("GET", "/v1/models/talk", llm.other)
    none = llm.http("GET", "/v1/models/talk2", llm.other)
    assert theirs.status == none.status == 404
    assert theirs.json["error"]["code"] == "model_not_found"
    assert theirs.body.replace(b"talk", b"talk2") == none.body


def test_an_answer(llm):
    answer = complete(llm)
    assert answer["object"] == "text_completion" and answer["model"] == "talk"
    assert answer["id"].startswith("cmpl-")
    choice = answer["choices"][0]
    assert choice["index"] == 0 and choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 2 and usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    again = complete(llm)
    assert again["choices"] == answer["choices"]  # greedy
    assert again["id"] != answer["id"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
    longest = complete(llm, ignore_eos=True)
    assert longest["usage"]["completion_tokens"] == 8
    assert longest["choices"][0]["finish_reason"] == "length"


def test_a_deadline_counts_while_the_model_starts(llm):
    answer = llm.http("POST", PATH, llm.acme, {"model": "talk", "prompt": "x"}, {"X-Request-Timeout-Ms": "1"})
    assert answer.status == 503, answer.body  # the first request: there is no worker yet
    assert answer.json["error"]["code"] == "deadline_exceeded"
    assert complete(llm)


def test_a_stream_says_the_same_in_pieces(llm):
    whole = complete(llm, ignore_eos=True, max_tokens=40)
    chunks = stream(llm, temperature=0, ignore_eos=True, max_tokens=40, stream_options={"include_usage": True})
    assert text_of(chunks) == whole["choices"][0]["text"]
    assert {c["id"] for c in chunks} == {chunks[0]["id"]}
    assert {c["object"] for c in chunks} == {"text_completion"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert [c["finish_reason"] for chunk in chunks[:-2] for c in chunk["choices"]] == [None] * (len(chunks) - 2)
    assert chunks[-1]["choices"] == []
    assert {**chunks[-1]["usage"], "prompt_tokens_details": 0} == {**whole["usage"], "prompt_tokens_details": 0}
    assert all(c["usage"] is None for c in chunks[:-1])
    assert len(chunks) > 10  # not all at the end
    assert all("usage" not in c for c in stream(llm, max_tokens=2))


def test_choices_and_seeds(llm):
    body = {"n": 3, "temperature": 1.5, "seed": 7, "max_tokens": 12}
    first, second = complete(llm, **body), complete(llm, **body)
    assert [c["index"] for c in first["choices"]] == [0, 1, 2]
    assert first["choices"] == second["choices"]
    assert len({c["text"] for c in first["choices"]}) > 1
    one = complete(llm, **{**body, "n": 1})
    assert first["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]  # counted once
    assert first["usage"]["completion_tokens"] > one["usage"]["completion_tokens"]
    chunks = stream(llm, **body)
    assert [text_of(chunks, i) for i in range(3)] == [c["text"] for c in first["choices"]]


def test_completions(llm):
    answer = post(llm, "/v1/completions", {"prompt": ["one", "two"], "temperature": 0, "logprobs": 2, "max_tokens": 5,
                                           "ignore_eos": True})
    assert answer["object"] == "text_completion"
    assert [c["index"] for c in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]
        assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == 5
        assert all(value <= 0 for value in logprobs["token_logprobs"])
        assert all(0 < len(top) <= 2 for top in logprobs["top_logprobs"])
        assert logprobs["text_offset"][0] == 0
    echo = post(llm, "/v1/completions", {"prompt": "one", "temperature": 0, "max_tokens": 5, "ignore_eos": True, "echo": True})
    assert echo["choices"][0]["text"] == "one" + answer["choices"][0]["text"]
    # a stream says the prompt first, of each choice
    both = stream(llm, prompt=["one", "é" * 99], n=2, temperature=0, max_tokens=5, ignore_eos=True, echo=True)
    assert text_of(both, 0) == text_of(both, 1) == echo["choices"][0]["text"]
    for index in (2, 3):
        assert text_of(both, index).startswith("é" * 99) and len(text_of(both, index)) > 99
    long = {"prompt": "x" * 600000, "max_tokens": 5, "echo": True, "stream": True, "n": 2}
    assert "1048576 bytes" in post(llm, PATH, long, status=400)["error"]["message"]
    # a stop string ends it, and is not in it
    text = echo["choices"][0]["text"][3:]
    stop = text[2:4]
    cut = post(llm, "/v1/completions", {"prompt": "one", "temperature": 0, "max_tokens": 5, "stop": stop, "ignore_eos": True})
    assert cut["choices"][0]["text"] == text[:text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"


def test_a_long_echo_is_cut_between_characters(llm):
    llm.apply(model_yaml("novelist", "acme", str(ROOT / "examples/models/novelist.gguf"), "llama"))
    prompt = "the " * 511 + "theé and the " + "man " * 20  # the é would be cut where chunks of 2 KiB are
    asked = {"model": "novelist", "prompt": prompt, "temperature": 0, "max_tokens": 4, "ignore_eos": True}
    chunks = stream(llm, echo=True, **asked)
    assert text_of(chunks) == prompt + post(llm, PATH, asked)["choices"][0]["text"]
    pieces = [c["choices"][0]["text"] for c in chunks[:2]]
    assert pieces == [prompt[:2047], prompt[2047:]]


HI = [{"role": "user", "content": "say something"}]


def chat(server, status=200, **body):
    return post(server, "/v1/chat/completions", {"messages": HI, "temperature": 0, "max_tokens": 8, **body}, status=status)


def test_chat(llm):
    answer = chat(llm, ignore_eos=True, logprobs=True, top_logprobs=3)
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8 == len(choice["logprobs"]["content"])
    for entry in choice["logprobs"]["content"]:
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"], abs=1e-4)  # greedy takes the best
    chunks = stream(llm, "/v1/chat/completions", prompt=None, messages=HI, temperature=0, max_tokens=8, ignore_eos=True)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["object"] == "chat.completion.chunk"
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert said == choice["message"]["content"]
    parts = [{"role": "developer", "content": [{"type": "text", "text": "be brief"}]}, *HI]
    assert chat(llm, messages=parts)["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"]
    error = chat(llm, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], status=400)["error"]
    assert error["param"] == "messages[0].content"


def test_a_schema_is_kept(llm):
    schema = {"type": "object", "properties": {"a": {"type": "integer", "enum": [1, 2]}}, "required": ["a"],
              "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = complete(llm, response_format=form, max_tokens=60)
    assert json.loads(answer["choices"][0]["text"])["a"] in (1, 2)
    wrong = chat(llm, response_format={"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}, status=400)
    assert wrong["error"]["type"] == "invalid_request_error"


def test_a_chat_answers_with_json_alone(llm):
    """Also one that likes a fence around it: what the tokens say is the answer, and the answer is JSON."""
    fence = post(llm, "/tokenize", {"prompt": "`", "add_special_tokens": False})["tokens"][-1]
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(4):
        answer = chat(llm, response_format=form, max_tokens=400, temperature=1, seed=seed, logit_bias={fence: 100}, logprobs=True)
        said = answer["choices"][0]["message"]["content"]
        assert json.loads(said)["a"] in (1, 2)
        assert "".join(t["token"] for t in answer["choices"][0]["logprobs"]["content"]) == said
    for path, more in (("/v1/chat/completions", {"messages": HI}), (PATH, {"prompt": "x"})):
        for any_object in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}):
            choice = post(llm, path, {"response_format": any_object, "max_tokens": 20, "temperature": 0, **more})["choices"][0]
            said = choice["text"] if path == PATH else choice["message"]["content"]
            assert said.lstrip()[:1] in ("{", ""), said  # a model of random weights may not get to its end
            assert choice["finish_reason"] == "length" or isinstance(json.loads(said), dict)


def test_null_members_refusals_and_schemas_that_make_no_sense(llm):
    """What clients send back of earlier answers; and a schema's fault is not called the messages'."""
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "name": None, "tool_calls": None,
            "tool_call_id": None, "reasoning_content": None, "audio": None, "function_call": None}
    assert chat(llm, messages=[*HI, said, *HI], max_tokens=2)["choices"]
    for schema in ({"type": "nonsense"}, {"$ref": "#/nowhere"}, {"type": "string", "pattern": "^(a$"}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        error = chat(llm, response_format=form, status=400)["error"]
        assert error["message"].startswith("The schema of the response format is refused: "), error


TOOL_TEMPLATE = """{% if tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{% for c in m.tool_calls %}\
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{% endfor %}{% else %}{{ m.content }}\
{% endif %}<end>
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}}} for name in ("weather", "news")]


def test_tools_are_called(llm, folder):
    """A model of random weights that is pushed towards a brace; the grammar does the rest."""
    (folder / "tools.gguf").write_bytes(gguf_hostile.model_file().with_metadata(tokenizer__chat_template=TOOL_TEMPLATE))
    llm.apply(model_yaml("caller", "acme", "tools.gguf", "llama", resources={"cpu": 1, "memory": "512Mi"}))
    brace = post(llm, "/tokenize", {"model": "caller", "prompt": "{", "add_special_tokens": False})["tokens"][-1]
    body = {"model": "caller", "messages": HI, "tools": TOOLS, "temperature": 1, "max_tokens": 200, "logit_bias": {brace: 100},
            "tool_choice": {"type": "function", "function": {"name": "news"}}, "parallel_tool_calls": False}
    for seed in range(3):
        choice = post(llm, "/v1/chat/completions", {**body, "seed": seed})["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and call["type"] == "function" and call["id"].startswith("call_")
        assert call["function"]["name"] == "news"
        assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
        chunks = stream(llm, "/v1/chat/completions", prompt=None, **{**body, "seed": seed})
        pieces = [t for c in chunks for t in c["choices"][0]["delta"].get("tool_calls", [])]
        assert pieces[0]["function"]["name"] == "news" and {t["index"] for t in pieces} == {0}
        assert json.loads("".join(t["function"]["arguments"] for t in pieces))["city"] in ("Rome", "Oslo")
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    said = [*HI, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "nothing new"}]
    assert post(llm, "/v1/chat/completions", {**body, "messages": said, "tool_choice": "none"})["choices"]
    assert chat(llm, tools=TOOLS, status=400)["error"]["param"] == "tools"  # whose template knows none


def test_embeddings(llm):
    answer = post(llm, "/v1/embeddings", {"input": ["one", "two", "one"]})
    vectors = [d["embedding"] for d in answer["data"]]
    assert [d["index"] for d in answer["data"]] == [0, 1, 2]
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5) and vectors[0] != vectors[1]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    packed = post(llm, "/v1/embeddings", {"input": "one", "encoding_format": "base64"})["data"][0]["embedding"]
    data = base64.b64decode(packed)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(vectors[0], abs=1e-5)
    wrong = post(llm, "/v1/embeddings", {"input": "one", "dimensions": len(vectors[0]) + 1}, status=400)
    assert wrong["error"]["param"] == "dimensions"
    assert len(post(llm, "/v1/embeddings", {"input": ["x"] * 100})["data"]) == 100  # more than run at once


def test_tokens_and_back(llm):
    answer = post(llm, "/tokenize", {"prompt": "hello wide world", "add_special_tokens": False})
    assert answer["count"] == len(answer["tokens"]) > 2
    assert answer["max_model_len"] >= 128
    assert post(llm, "/detokenize", {"tokens": answer["tokens"]})["prompt"].strip() == "hello wide world"


def test_refusals(llm):
    def error(body, status=400, path=PATH, **more):
        answer = post(llm, path, body, status=status, **more)
        assert set(answer) == {"error"} and set(answer["error"]) == {"message", "type", "param", "code"}
        return answer["error"]

    wrong = error({"prompt": "x", "temperature": "hot"})
    assert (wrong["param"], wrong["code"], wrong["type"]) == ("temperature", "invalid_type", "invalid_request_error")
    assert error({})["code"] == "missing_required_parameter"
    assert error({"prompt": "x", "model": "nobody"}, 404)["code"] == "model_not_found"
    assert error({"prompt": "x"}, 404, key=llm.other)["code"] == "model_not_found"
    assert "not a language model" in error({"prompt": "x", "model": "echo"})["message"]
    assert error({"prompt": "x", "n": 0})["param"] == "n"
    long = error({"prompt": "word " * 5000})
    assert long["type"] == "invalid_request_error" and "tokens" in long["message"]
    long = error({"prompt": "word " * 5000, "stream": True})  # before its head is out
    assert long["type"] == "invalid_request_error"
    assert llm.http("POST", PATH, llm.acme, b"{").json["error"]["code"] is None
    nobody = llm.http("POST", PATH, None, b"{}")
    assert (nobody.status, nobody.json["error"]["code"]) == (401, "invalid_api_key")
    assert nobody.headers["WWW-Authenticate"] == "Bearer"
    assert llm.http("GET", "/v1/nothing", llm.acme).json["error"]["code"] == "unknown_url"
    assert llm.http("GET", PATH, llm.acme).json["error"]["code"] == "method_not_supported"
    assert post(llm, "/tokenize", {}, status=400)["error"]["param"] == "prompt"
    tensors = llm.infer("talk", [], llm.acme)
    assert tensors.status == 400 and PATH in tensors.json["error"], tensors.body


def begin_stream(llm, **body):
    """A stream that is under way: the socket, after its first event."""
    raw = llm.raw()
    data = json.dumps({"model": "talk", "prompt": "x", "stream": True, "ignore_eos": True, "max_tokens": 400, **body}).encode()
    raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + llm.acme.encode() +
                b"\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    got = b""
    while b"data: " not in got:
        got += raw.recv(65536)
    assert got.startswith(b"HTTP/1.1 200 ")
    return raw


def test_clients_that_leave_free_their_places(llm):
    complete(llm)
    for how in ("close", "reset"):
        for _ in range(80):  # more than there are places
            raw = begin_stream(llm, n=8)
            if how == "reset":
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
        assert complete(llm)["choices"]  # who stays is served


def test_a_client_that_does_not_read_is_in_nobodys_way(llm):
    slow = [begin_stream(llm, n=8, max_tokens=450, logprobs=5) for _ in range(3)]
    want = complete(llm, max_tokens=20, ignore_eos=True)
    for _ in range(5):
        assert complete(llm, max_tokens=20, ignore_eos=True)["choices"] == want["choices"]
    for raw in slow:  # who reads again gets it all
        raw.settimeout(CEILING_S)
        got = b""
        while b"data: [DONE]" not in got[-200:]:
            piece = raw.recv(1 << 20)
            assert piece, got[-500:]
            got += piece
        raw.close()


def test_a_worker_that_dies_ends_its_streams_with_an_error(llm):
    complete(llm)
    raw = begin_stream(llm, max_tokens=480, n=16)
    os.kill(llm.workers()[0], signal.SIGKILL)
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        piece = raw.recv(65536)
        assert piece, got[-300:]
        got += piece
    raw.close()
    last = got.rsplit(b"data: ", 1)[1]
    assert b"worker_lost" in last and b"[DONE]" not in got[-200:]
    wait_until(lambda: llm.http("POST", PATH, llm.acme, {"model": "talk", "prompt": "x", "max_tokens": 2}).status == 200,
               "the model to serve again")


def test_hundreds_at_once(llm):
    """More than places, each with its own answer."""
    import concurrent.futures
    prompts = [f"number {i}" for i in range(100)]

    def one(prompt):
        return post(llm, "/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 6})["choices"][0]["text"]

    alone = [one(p) for p in prompts[:10]]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(one, prompts))
    assert len(together) == 100
    assert sum(a == b for a, b in zip(alone, together)) >= 8  # near ties may fall otherwise in another batch


# --- OIP's generate extension, over the same generations ---

GENERATE = "/v2/models/talk/generate"


def generate_stream(server, body, path=GENERATE + "_stream"):
    """All events of a stream, as objects."""
    connection = server.connect()
    connection.request("POST", path, json.dumps(body), {"Authorization": "Bearer " + server.acme})
    response = connection.getresponse()
    assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
    found = [json.loads(data) for data in events(response)]
    connection.close()
    return found


def test_generate_says_what_completions_say(llm):
    said = complete(llm)["choices"][0]["text"]
    body = {"text_input": "say something", "parameters": {"temperature": 0, "max_tokens": 8}}
    for path in (GENERATE, "/v2/models/talk/versions/1/generate"):
        answer = llm.http("POST", path, llm.acme, body)
        assert answer.status == 200, answer.body
        assert answer.json == {"model_name": "talk", "model_version": "1", "text_output": said}
    for path in (GENERATE + "_stream", "/v2/models/talk/versions/1/generate_stream"):
        found = generate_stream(llm, body, path)
        assert all(e["model_name"] == "talk" and e["model_version"] == "1" for e in found)
        assert "".join(e["text_output"] for e in found) == said
    longer = generate_stream(llm, {"text_input": "say", "ignore_eos": True, "parameters": {"max_tokens": 200}})
    assert len(longer) > 10
    stop = said[len(said) // 2]
    body["parameters"]["stop"] = [stop]
    assert llm.http("POST", GENERATE, llm.acme, body).json["text_output"] == said[:said.index(stop)]


def test_generate_refuses_in_oips_form(llm):
    rows = [({}, GENERATE, 400, "invalid_request", "text_input"),
            ({"text_input": "a", "parameters": {"temperature": 9}}, GENERATE + "_stream", 400, "invalid_request", "temperature"),
            (b"{", GENERATE, 400, "invalid_json", "JSON"),
            ({"text_input": "a"}, "/v2/models/echo/generate", 400, "invalid_request", "does not generate text"),
            ({"text_input": "a"}, "/v2/models/none/generate_stream", 404, "model_not_found", "no model"),
            ({"text_input": "a"}, "/v2/models/talk/versions/9/generate", 404, "model_not_found", "no model"),
            ({"text_input": "many words " * 20000}, GENERATE + "_stream", 400, "invalid_request", "context")]
    for body, path, status, code, text in rows:
        answer = llm.http("POST", path, llm.acme, body)
        assert answer.status == status and answer.code == code, (path, answer.body)
        assert text in answer.json["error"], answer.body
    theirs = llm.http("POST", GENERATE, llm.other, {"text_input": "a"})
    none = llm.http("POST", "/v2/models/none/generate", llm.acme, {"text_input": "a"})
    assert theirs.status == 404 and theirs.body == none.body


def test_generate_streams_of_a_worker_that_is_killed_end_with_an_error(llm):
    complete(llm)
    streams = []
    for _ in range(16):  # so that none has ended before
        connection = llm.connect()
        connection.request("POST", GENERATE + "_stream", json.dumps({"text_input": "a", "max_tokens": 480, "ignore_eos": True}),
                           {"Authorization": "Bearer " + llm.acme})
        streams.append((connection, connection.getresponse()))
    os.kill(llm.workers()[0], signal.SIGKILL)
    lasts = []
    for connection, response in streams:
        lasts.append([json.loads(data) for data in events(response)][-1])
        connection.close()
    lost = [last for last in lasts if "error" in last]
    assert lost and all(last["code"] == "worker_lost" and last["error"] for last in lost), lasts
