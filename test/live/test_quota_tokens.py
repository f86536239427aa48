"""Quotas of tokens, over a real language model: what is counted, what is cut, what is refused, and the bypasses that others
know. The days' windows are used, so that no minute ends within a test, but in the one about the minute."""
import json
import os
import signal
import threading
import time

import pytest

from conftest import CEILING_S, IDENTITY, ROOT, model_yaml, tenant_yaml, vector, wait_until

GGUF = str(ROOT / "examples/models/novelist.gguf")
PROMPT = "It is a truth universally acknowledged"


@pytest.fixture
def one_day():
    """The test does not run over the end of a day."""
    left = 86400 - time.time() % 86400
    if left < 240:
        time.sleep(left + 0.1)


@pytest.fixture
def talking(make_server, folder, one_day):
    def make(**quota):
        server = make_server()
        (folder / "echo.json").write_text(json.dumps(IDENTITY))
        server.quota = lambda **new: server.apply(tenant_yaml("acme", quota=new))
        server.apply(tenant_yaml("acme", quota=quota) + model_yaml("echo", "acme", "echo.json") +
                     model_yaml("talk", "acme", GGUF, "llama", resources={"cpu": 1, "memory": "512Mi"}))
        server.acme = server.key("acme")
        return server
    return make


def ask(server, path="/v1/completions", key=None, **body):
    body = {"model": "talk", "temperature": 0, "ignore_eos": True, **body}
    if "messages" not in body:
        body.setdefault("prompt", PROMPT)
    return server.http("POST", path, key or server.acme, body)


def used(server, limit="tokensPerDay"):
    status = json.loads(server.cli("get", "tenant", "acme", "-o", "json").stdout)["status"]
    return status["quota"][limit]["used"]


def workers(server):
    return [r["status"]["pid"] for r in server.status()["replicas"]]


def left(answer):
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def finishes(answer):
    return [c["finish_reason"] for c in answer.json["choices"]]


def refused(answer, *words):
    assert answer.status == 429, answer.body
    error = answer.json["error"]
    assert error["code"] == "insufficient_quota"
    for word in words:
        assert word in error["message"], error
    return int(answer.headers["Retry-After"])


def at_once(n, what):
    """The results of n calls at the same time."""
    results, gate = [None] * n, threading.Barrier(n)

    def run(i):
        gate.wait(CEILING_S)
        results[i] = what(i)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result is not None for result in results)
    return results


def streamed(server, **body):
    """The chunks of a stream."""
    connection = server.connect()
    connection.request("POST", "/v1/completions", json.dumps(
        {"model": "talk", "prompt": PROMPT, "temperature": 0, "ignore_eos": True, "stream": True,
         "stream_options": {"include_usage": True}, **body}), {"Authorization": "Bearer " + server.acme})
    response = connection.getresponse()
    assert response.status == 200
    data = [line[6:] for line in response.read().split(b"\n") if line.startswith(b"data: ")]
    connection.close()
    assert data[-1] == b"[DONE]"
    return response, [json.loads(d) for d in data[:-1]]


def test_what_counts_is_what_usage_says(talking):
    server = talking(tokensPerDay=10000, tokensPerMinute=9000, perKey={"tokensPerDay": 5000})
    total = 0
    for body in ({"max_tokens": 7}, {"max_tokens": 5, "n": 3}, {"max_tokens": 4, "prompt": [PROMPT, "What?"]},
                 {"max_tokens": 3, "prompt": [1, 2, 3]}):
        answer = ask(server, **body)
        assert answer.status == 200, answer.body
        total += answer.json["usage"]["total_tokens"]
        assert answer.headers["x-ratelimit-limit-tokens"] == "5000"
        assert left(answer) == 5000 - total
        assert answer.headers["x-ratelimit-reset-tokens"]
    answer = ask(server, "/v1/chat/completions", messages=[{"role": "user", "content": "Hello"}], max_tokens=6)
    total += answer.json["usage"]["total_tokens"]
    assert left(answer) == 5000 - total
    response, chunks = streamed(server, max_tokens=9)
    total += chunks[-1]["usage"]["total_tokens"]
    assert int(response.headers["x-ratelimit-remaining-tokens"]) < 5000
    wait_until(lambda: used(server) == total, "the use")
    assert "tokensPerDay" in server.cli("get", "tenant", "acme", "-o", "yaml").stdout
    wrong = ask(server, "/v1/chat/completions", messages=[{"role": "user", "content": "Hello"}], max_tokens=1,
                max_completion_tokens=1000)  # which of them is reserved, which is made?
    assert wrong.status == 400
    assert left(ask(server, max_tokens=1, prompt=[1])) == 5000 - total - 2  # which took nothing


@pytest.mark.parametrize("level", ("tenant", "key"))
@pytest.mark.parametrize("stream", (False, True))
def test_a_first_request_larger_than_the_quota_passes_and_is_cut(talking, level, stream):
    limit = {"tokensPerDay": 60}
    server = talking(**(limit if level == "tenant" else {"perKey": limit}))
    if stream:
        _, chunks = streamed(server, max_tokens=1000)
        usage, reasons = chunks[-1]["usage"], [c["finish_reason"] for k in chunks for c in k["choices"]]
        assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
        text = "".join(c["text"] for k in chunks for c in k["choices"])
    else:
        answer = ask(server, max_tokens=1000)
        usage, text = answer.json["usage"], answer.json["choices"][0]["text"]
        assert finishes(answer) == ["length"] and left(answer) == 0
    assert usage["total_tokens"] == 60 and usage["prompt_tokens"] > 4
    refused(ask(server, max_tokens=1), level, "60 tokens per day",
            "spec.quota." + ("perKey." if level == "key" else "") + "tokensPerDay")
    before = workers(server)
    server.quota(tokensPerDay=100000)
    again = ask(server, max_tokens=usage["completion_tokens"])  # its text and its usage belong together
    assert again.json["choices"][0]["text"] == text
    assert workers(server) == before  # a cut harms no worker


def test_many_choices_are_cut_together(talking):
    server = talking(tokensPerDay=150)
    answer = ask(server, n=8, max_tokens=500, temperature=1, seed=3)
    assert answer.status == 200
    assert finishes(answer) == ["length"] * 8
    assert answer.json["usage"]["total_tokens"] == 150
    refused(ask(server, n=8, max_tokens=1), "150 tokens per day")
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), server.acme).status == 200  # it has no tokens


@pytest.mark.parametrize("body", ({"max_tokens": 40}, {"n": 2, "max_tokens": 20}, {"max_tokens": 2000}))
def test_concurrent_first_requests_do_not_overrun(talking, body):
    server = talking(tokensPerDay=500)
    assert ask(server, prompt=[1], max_tokens=1).json["usage"]["total_tokens"] == 2  # loaded
    answers = at_once(24, lambda i: ask(server, **body))
    done = [a for a in answers if a.status == 200]
    for answer in answers:
        if answer.status != 200:
            refused(answer, "500 tokens per day")
    total = 2 + sum(a.json["usage"]["total_tokens"] for a in done)
    prompt = done[0].json["usage"]["prompt_tokens"]
    assert 500 <= total <= 500 + prompt  # a prompt is charged when it has been worked on
    full = body["max_tokens"] * body.get("n", 1)
    cut = [a for a in done if a.json["usage"]["completion_tokens"] < full]
    assert len(cut) <= 1  # the last
    assert all(set(finishes(a)) == {"length"} for a in done)
    wait_until(lambda: used(server) == total, "the use")


def test_who_fits_waits_and_is_not_refused(talking):
    """Together they reserve far more than the quota, and use far less."""
    server = talking(tokensPerDay=3000)
    answers = at_once(16, lambda i: ask(server, max_tokens=1500, stop=["e"]))
    assert [a.status for a in answers] == [200] * 16, [a.body for a in answers]
    assert {a.json["choices"][0]["finish_reason"] for a in answers} == {"stop"}


def test_an_aborted_stream_is_charged_what_came_and_gives_the_rest_back(talking):
    server = talking(tokensPerDay=3000)
    assert ask(server, max_tokens=1).status == 200
    sock = server.raw()
    body = json.dumps({"model": "talk", "prompt": PROMPT, "max_tokens": 1900, "stream": True, "ignore_eos": True}).encode()
    sock.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.acme}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
    got = b""
    while got.count(b"data: ") < 3:
        got += sock.recv(4096)
    sock.close()
    answer = ask(server, max_tokens=1)
    came = 3000 - left(answer)
    assert 5 < came < 2000
    rest = left(answer)
    last = ask(server, prompt=[1], max_tokens=min(rest - 1, 1200))
    assert last.status == 200 and last.json["usage"]["completion_tokens"] == min(rest - 1, 1200)  # none of it is kept


def test_one_that_waits_may_go(talking):
    server = talking(tokensPerDay=1500)
    assert ask(server, prompt=[1], max_tokens=1).status == 200
    worker, = workers(server)  # that of `talk`: nothing asks for the other
    os.kill(worker, signal.SIGSTOP)
    try:
        socks = []
        for _ in range(4):  # the first reserves all
            sock = server.raw()
            body = json.dumps({"model": "talk", "prompt": PROMPT, "max_tokens": 1900, "ignore_eos": True}).encode()
            sock.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.acme}\r\n"
                          f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
            socks.append(sock)
        for sock in reversed(socks):
            sock.close()
    finally:
        os.kill(worker, signal.SIGCONT)
    answer = wait_until(lambda: (lambda a: a if a.status == 200 else None)(ask(server, prompt=[1], max_tokens=100)), "room")
    assert answer.json["usage"]["completion_tokens"] == 100


def test_a_minute_ends_when_it_says(talking):
    server = talking(tokensPerMinute=40)
    assert ask(server, prompt=[1], max_tokens=1).status == 200

    def used_up():  # within one minute: else what is left is the next one's
        answer = ask(server, max_tokens=500)
        assert answer.status == 429 or answer.json["usage"]["total_tokens"] <= 40
        begin = time.time()
        answer = ask(server, max_tokens=1)
        return (begin, answer, time.time()) if answer.status == 429 else None
    begin, answer, end = wait_until(used_up, "a minute's tokens to be used up")
    retry = refused(answer, "40 tokens per minute", "spec.quota.tokensPerMinute")
    assert answer.headers["x-ratelimit-limit-tokens"] == "40" and left(answer) == 0
    assert begin - 1 <= end // 60 * 60 + 60 - retry <= end + 1 or begin // 60 < end // 60  # it ends with the clock's
    time.sleep(retry)
    assert ask(server, max_tokens=1).status == 200


@pytest.mark.parametrize("victim", ("restart", "gateway"))
def test_tokens_outlive_the_server(talking, victim):
    server = talking(tokensPerDay=50)
    assert ask(server, max_tokens=500).json["usage"]["total_tokens"] == 50
    wait_until(lambda: used(server) == 50, "the store to have it")
    server.lose(victim)
    refused(ask(server, max_tokens=1), "50 tokens per day")
    server.quota(tokensPerDay=80)  # the rest of a larger quota
    answer = wait_until(lambda: (lambda a: a if a.status == 200 else None)(ask(server, max_tokens=500)), "the new limit")
    assert answer.json["usage"]["total_tokens"] == 30
