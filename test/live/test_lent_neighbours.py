"""What one tenant of a lent model gets beside another, counted in tokens and answers and never in time: shares by weight, a place for
who has none, and no word of another's cache."""
import collections
import contextlib
import http.client
import json
import sys
import threading

import pytest

from conftest import CEILING_S, ROOT, model_yaml, tenant_yaml, wait_until
from test_adapters import adapter_yaml
from test_grants import SHARED, grant_yaml

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_mirror  # noqa: E402  (behind the path that finds it)

MODELS = ROOT / "examples/models"
PATIENCE_S = 8 * CEILING_S
PATIENT = """apiVersion: bulkhead.dev/v1alpha1
kind: Server
metadata: {name: bulkhead}
spec:
  timeouts: {request: 10m}
"""
PLACES = 32  # of the novelist
WEIGHTS = {"acme": 3, "bob": 1}
SHAPES = {"acme": (12, 64), "bob": (230, 16)}  # tokens of a prompt, of an answer
CLIENTS = 24  # of each tenant, for 8 places: there is always somebody waiting
WARM, SERVED = 3000, 30000  # of acme's tokens, those of answers twice: before counting begins, and until it ends
ERROR_MAX = 0.05


@pytest.fixture
def novelist(server):
    """acme lends it to bob; they may share batches."""
    server.apply("".join(tenant_yaml(t) for t in WEIGHTS) +
                 model_yaml("novelist", "acme", str(MODELS / "novelist.gguf"), "llama", isolation=SHARED, resources={"cpu": 1, "memory": "512Mi"}) +
                 grant_yaml("lend", "acme", "novelist", ["bob"], sharedBatch=True))
    server.keys = {t: server.key(t) for t in WEIGHTS}
    for tenant in WEIGHTS:
        assert ask(server, tenant, "novelist", "It", max_tokens=1).status == 200
    assert len(server.workers()) == 1
    return server


def lend(server, folder, shared_batch):
    gguf_mirror.write_model(folder / "mirror.gguf")
    server.apply("".join(tenant_yaml(t, weight=w, quota={"queueDepth": 1000}) for t, w in WEIGHTS.items()) +
                 model_yaml("mirror", "acme", "mirror.gguf", "llama", isolation=SHARED, resources={"cpu": 1, "memory": "112Mi"}) +
                 grant_yaml("lend", "acme", "mirror", ["bob"], sharedBatch=shared_batch), cwd=folder)
    server.keys = {t: server.key(t) for t in WEIGHTS}
    for tenant in WEIGHTS:
        assert ask(server, tenant, "mirror", [300], max_tokens=1).status == 200
    assert len(server.workers()) == 1


def ask(server, tenant, model, prompt, **body):
    return server.http("POST", "/v1/completions", server.keys[tenant], {
        "model": model, "prompt": prompt, "temperature": 0, "ignore_eos": True, **body}, connection=server.connect(PATIENCE_S))


class Tally:
    """Tokens that were served, by tenant, as clients read them."""

    def __init__(self):
        self.lock, self.over = threading.Lock(), threading.Event()
        self.served, self.begin, self.end, self.failures = collections.Counter(), None, None, []

    def add(self, tenant, tokens):
        with self.lock:
            self.served[tenant] += tokens
            if self.begin is None and self.served["acme"] >= WARM and self.served["bob"] > 0:
                self.begin = dict(self.served)
            if self.begin and self.end is None and self.served["acme"] - self.begin["acme"] >= SERVED:
                self.end = dict(self.served)
                self.over.set()

    def ratio(self):
        return (self.end["acme"] - self.begin["acme"]) / (self.end["bob"] - self.begin["bob"])


def keep_asking(server, tenant, number, tally):
    prompt, answer = SHAPES[tenant]
    try:
        for i in range(1 << 20):
            if tally.over.is_set():
                return
            stream(server, tenant, [260 + (number + i * k) % 250 for k in range(prompt)], answer, tally)
    except (AssertionError, OSError, http.client.HTTPException) as error:
        if not tally.over.is_set():
            tally.failures.append(error)
            tally.over.set()


def stream(server, tenant, prompt, answer, tally):
    connection = server.connect(PATIENCE_S)
    connection.request("POST", "/v1/completions", json.dumps({
        "model": "mirror", "prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
        "cache_prompt": False}), {"Authorization": "Bearer " + server.keys[tenant], "Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    told = 0
    for line in response:
        if tally.over.is_set():
            break
        if not line.startswith(b"data: {"):
            continue
        tokens = sum(len((choice.get("logprobs") or {"tokens": ()})["tokens"]) for choice in json.loads(line[6:])["choices"])
        tally.add(tenant, (len(prompt) if told == 0 and tokens else 0) + 2 * tokens)
        told += tokens
    connection.close()


@pytest.mark.parametrize("shared_batch", (True, False))
def test_tokens_are_shared_by_weight(make_server, folder, shared_batch):
    """Weights 3:1, both always waiting for places, short prompts and long answers against the other way round."""
    server = make_server(config=PATIENT)
    lend(server, folder, shared_batch)
    tally = Tally()
    threads = [threading.Thread(target=keep_asking, args=(server, tenant, n, tally)) for tenant in WEIGHTS for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not tally.failures, tally.failures[0]
    ratio, wanted = tally.ratio(), WEIGHTS["acme"] / WEIGHTS["bob"]
    print(f"shared_batch={shared_batch}: {ratio:.3f} of {wanted}")
    assert abs(ratio / wanted - 1) <= ERROR_MAX, (tally.begin, tally.end)


class Hoarder(threading.Thread):
    """A long answer of bob's, whose beginning and end are noted."""

    def __init__(self, server):
        super().__init__()
        self.server, self.begun, self.ended, self.over = server, False, False, False
        self.start()

    def run(self):
        connection = self.server.connect(PATIENCE_S)
        connection.request("POST", "/v1/completions", json.dumps({
            "model": "novelist", "prompt": "It is", "max_tokens": 1900, "ignore_eos": True, "stream": True}),
            {"Authorization": "Bearer " + self.server.keys["bob"], "Content-Type": "application/json"})
        with contextlib.suppress(http.client.HTTPException, OSError):  # those in line may meet their deadline
            for line in connection.getresponse():
                self.begun = self.begun or line.startswith(b"data: {")
                self.ended = self.ended or b"[DONE]" in line
                if self.over:
                    break
        connection.close()


def test_who_takes_all_places_leaves_one(novelist):
    """A borrower asks for more long answers than there are places; the lender's is there before any of those has ended."""
    hoarders = [Hoarder(novelist) for _ in range(PLACES + 8)]
    wait_until(lambda: sum(h.begun for h in hoarders) >= PLACES - PLACES // 16, "them to take the places", PATIENCE_S)
    answer = ask(novelist, "acme", "novelist", "It is", max_tokens=4)
    n_ended = sum(h.ended for h in hoarders)
    for hoarder in hoarders:
        hoarder.over = True
    for hoarder in hoarders:
        hoarder.join()
    assert answer.status == 200 and answer.json["usage"]["completion_tokens"] == 4
    assert n_ended == 0


def test_a_cache_is_its_tenants_own(novelist):
    """The same prompts from the lender, a borrower, and with an adapter of each: what is cached is what oneself has sent."""
    server = novelist
    server.apply(adapter_yaml("scribe", "acme", "novelist", MODELS / "scribe.gguf") +
                 adapter_yaml("scribe", "bob", "novelist", MODELS / "scribe.gguf"))
    prompt = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. " * 2

    def cached(tenant, model):
        answer = ask(server, tenant, model, prompt, max_tokens=2)
        assert answer.status == 200, answer.body
        return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]
    for tenant, model in (("acme", "novelist"), ("bob", "novelist"), ("bob", "scribe"), ("acme", "scribe")):
        assert cached(tenant, model) == 0, (tenant, model)
        assert cached(tenant, model) > 40, (tenant, model)
    assert cached("acme", "novelist") > 40  # it is there still
