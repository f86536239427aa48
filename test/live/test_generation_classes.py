"""Classes of generations: who may name which, and that a higher class does not wait for what a lower one runs."""
import json
import threading

import pytest

from conftest import CEILING_S, ROOT, model_yaml, tenant_yaml, wait_until

GGUF = str(ROOT / "examples/models/novelist.gguf")
LONG = 300


@pytest.fixture
def talking(server):
    server.apply(tenant_yaml("acme") +
                 model_yaml("talk", "acme", GGUF, "llama", resources={"cpu": 1, "memory": "512Mi"}))
    server.acme = server.key("acme")
    assert ask(server, max_tokens=1).status == 200
    return server


def ask(server, name=None, path="/v1/completions", **body):
    body = {"model": "talk", "prompt": "It is", "temperature": 0, "ignore_eos": True, **body}
    return server.http("POST", path, server.acme, body, headers={"X-Request-Class": name} if name else None)


def test_a_tenant_has_its_classes(talking):
    for name in ("interactive", "batch"):
        assert ask(talking, name, max_tokens=1).status == 200
    answer = ask(talking, "critical", max_tokens=1)
    assert answer.status == 403 and "critical" in answer.json["error"]["message"]
    assert ask(talking, "urgent", max_tokens=1).status == 400
    talking.apply(tenant_yaml("acme", classes=["critical"]))
    assert wait_until(lambda: (lambda a: a if a.status == 200 else None)(ask(talking, "critical", max_tokens=1)), "it")
    assert ask(talking, "batch", max_tokens=1).status == 403
    assert ask(talking, max_tokens=1).status == 200  # its model's class is interactive, and it may use none but the other


def test_batch_makes_way_and_loses_nothing(talking):
    """As many long batch generations as there may be at once, and more: an interactive request gets a place and is done
    before any of them, and they say what they say when nobody disturbs them."""
    alone = ask(talking, "batch", max_tokens=LONG).json["choices"][0]["text"]
    for _ in range(5):  # should this test get no processor until they are all done, it shows nothing
        if interactive_between(talking, alone):
            return
    raise AssertionError("no interactive request was done before the first batch one, five times")


def interactive_between(talking, alone):
    answers = []

    def batch():
        answers.append(ask(talking, "batch", max_tokens=LONG))
    threads = [threading.Thread(target=batch) for _ in range(36)]
    for thread in threads:
        thread.start()
    wait_until(lambda: talking.status()["device"]["used"] == 1, "them to run")
    n_short = 0
    while n_short < 5:
        short = ask(talking, "interactive", max_tokens=8)
        assert short.status == 200 and short.json["usage"]["completion_tokens"] == 8
        if answers:
            break
        n_short += 1
    for thread in threads:
        thread.join(CEILING_S * 4)
    assert [a.status for a in answers] == [200] * 36
    texts = [a.json["choices"][0]["text"] for a in answers]
    assert all(len(t) > 100 for t in texts)
    same = sum(t == alone for t in texts)
    print(f"{n_short} interactive ones came between; {same} of 36 as alone")
    assert json.loads(talking.cli("status", "-o", "json").stdout)["ready"]
    return n_short > 0
