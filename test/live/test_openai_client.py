"""The official `openai` client (npm) drives the server."""
import json
import os
import shutil
import subprocess

import pytest

from conftest import ROOT, model_yaml, tenant_yaml
from test_adapters import MODELS, adapter_yaml
from test_grants import SHARED, grant_yaml
from test_openai import gguf  # noqa: F401  (a fixture)

MODULES = ROOT / "build/deps/openai-client/node_modules"
pytestmark = pytest.mark.skipif(not MODULES.exists() or not shutil.which("node"),
                                reason="needs node and the npm package openai: tools/deps install --test")


@pytest.fixture
def client(server, gguf):  # noqa: F811
    """A function that lets the client do one thing, with the key of a tenant."""
    server.apply(tenant_yaml("acme") + tenant_yaml("slow", quota={"requestsPerMinute": 60, "burst": 1}) + "".join(
        model_yaml("talk", tenant, str(gguf), "llama", resources={"cpu": 1, "memory": "512Mi"}) for tenant in ("acme", "slow")))
    keys = {tenant: server.key(tenant) for tenant in ("acme", "slow")}

    def act(name, tenant="acme"):
        done = subprocess.run(["node", ROOT / "test/live/openai_client.js", f"http://127.0.0.1:{server.port}/v1", keys[tenant], name],
                              env={**os.environ, "NODE_PATH": str(MODULES)}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    act.server, act.keys = server, keys
    return act


def test_models_and_answers(client):
    models = client("models")
    assert models["ids"] == ["talk"] and models["one"]["id"] == "talk" and models["one"]["owned_by"] == "acme"
    assert 1.6e9 < models["one"]["created"] < 1e11  # unix seconds
    answer = client("chat")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert answer["finish"] in ("stop", "length")
    stream = client("stream")
    assert stream["text"] == answer["text"] and stream["chunks"] > 2
    assert stream["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert client("runner")["text"] == answer["text"]
    completion = client("completion")
    assert completion["object"] == "text_completion"
    assert completion["echo"] == "one" + completion["text"]


def test_lent_models_and_adapters(client):
    client.server.apply(tenant_yaml("bob") + model_yaml("novelist", "acme", str(MODELS / "novelist.gguf"), "llama", isolation=SHARED) +
                        grant_yaml("lend", "acme", "novelist", ["bob"]) +
                        adapter_yaml("scribe", "acme", "novelist", MODELS / "scribe.gguf") +
                        adapter_yaml("cynic", "bob", "novelist", MODELS / "cynic.gguf"))
    client.keys["bob"] = client.server.key("bob")
    answer = client("voices", "bob")
    assert sorted(answer["ids"]) == ["cynic", "novelist"]
    texts = answer["texts"]
    assert all(len(text) > 10 for text in texts.values())
    assert texts["cynic"] == texts["novelist:cynic"] != texts["novelist"]
    assert (answer["foreign"]["kind"], answer["foreign"]["code"]) == ("NotFoundError", "model_not_found")


def test_embeddings(client):
    answer = client("embeddings")
    assert len(answer["packed"]) == 2
    for packed, plain in zip(answer["packed"], answer["plain"]):
        assert packed == pytest.approx(plain, abs=1e-5)


def test_errors_are_the_clients_own(client):
    errors = client("errors")
    kinds = {name: (e["kind"], e["status"]) for name, e in errors.items()}
    assert kinds == {"type": ("BadRequestError", 400), "missing": ("BadRequestError", 400), "model": ("NotFoundError", 404),
                     "key": ("AuthenticationError", 401), "stream": ("BadRequestError", 400)}
    assert (errors["type"]["param"], errors["type"]["code"]) == ("temperature", "invalid_type")
    assert errors["model"]["code"] == "model_not_found"


def test_aborts_free_their_places(client):
    result = client("aborts")
    assert result["seen"] >= 80
    assert result["aborted"]["kind"] == "APIUserAbortError"
    assert result["after"] == client("chat")["text"]


def test_retries_wait_as_they_are_told(client):
    client("chat")  # starts the model
    result = client("retries", "slow")
    assert result["once"]["kind"] == "RateLimitError" and result["once"]["code"] == "rate_limit_exceeded"
    assert len(result["texts"]) == 2
