"""Language models behind the worker's wall: opened at apply by the worker program, under its filters."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import BUILD, ROOT, model_yaml, processes, tenant_yaml, wait_until

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_hostile  # noqa: E402  (behind the path that finds it)
import gguf_random  # noqa: E402


@pytest.fixture
def tiny(folder):
    path = folder / "tiny.gguf"
    subprocess.run([BUILD / "test/unit/engine/gguf_tiny", path, "1"], check=True)
    return path


def test_a_model_is_opened_at_apply(server, tiny):
    server.apply(tenant_yaml("acme") + model_yaml("tiny", "acme", str(tiny), engine="llama"))
    assert any(line["event"] == "model_opened" and "tiny" in line["message"] for line in server.log)


BROKEN = {
    "garbage": (lambda data: b"this is no model", "does not begin with GGUF"),
    "cut_in_header": (lambda data: data[:1000], "cut off in its header"),
    "cut_in_weights": (lambda data: data[:-5000], "llama.cpp refuses the model"),
    "architecture": (lambda data: data.replace(b"\x05\0\0\0\0\0\0\0llama\x14", b"\x05\0\0\0\0\0\0\0lla_a\x14", 1),
                     "llama.cpp refuses the model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_model_is_refused(server, tiny, folder, name):
    change, words = BROKEN[name]
    data = tiny.read_bytes()
    (folder / "broken.gguf").write_bytes(change(data))
    assert change(data) != data
    server.apply(tenant_yaml("acme"))
    result = server.apply(model_yaml("tiny", "acme", "broken.gguf", engine="llama"), check=False)
    assert result.returncode == 1 and words in result.stderr


def test_repacked_weights(server, folder):
    """Served like the others; each worker then has private memory of about the file's size more."""
    gguf_random.write_model(folder / "small.gguf", "small", "Q4_K")
    server.apply(tenant_yaml("acme") + "".join(
        model_yaml(name, "acme", "small.gguf", engine="llama", resources={"memory": "128Mi", "repack": name == "repacked"})
        for name in ("shared", "repacked")))
    key, texts = server.key("acme"), []
    for name in ("shared", "repacked"):
        answer = server.http("POST", "/v1/completions", key, {"model": name, "prompt": "x", "max_tokens": 8, "temperature": 0})
        assert answer.status == 200 and answer.json["usage"]["completion_tokens"] == 8, answer.body
        texts.append(answer.json["choices"][0]["text"])
    assert all(texts)
    refused = server.apply(model_yaml("m", "acme", "small.gguf", engine="identity", resources={"repack": True}), check=False)
    assert refused.returncode == 1 and "spec.resources.repack: " in refused.stderr


def anonymous_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("RssAnon:")) / 1024


def test_what_is_not_used_is_given_back(server, folder):
    """24 streams of 4 MiB, of sequences that are over and of a prefix, which is still there afterwards."""
    gguf_random.write_model(folder / "model.gguf", "0.01B", "Q8_0")
    server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "model.gguf", engine="llama", resources={"memory": "768Mi"}))
    key, first = server.key("acme"), list(range(256, 276)) * 10

    def ask(prompt, **more):
        answer = server.http("POST", "/v1/completions", key, {
            "model": "m", "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": True, **more})
        assert answer.status == 200, answer.body
        return answer.json["choices"][0]["text"], answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]

    text, cached = ask(first)
    assert cached == 0
    worker, = server.workers()
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda i: ask([200 + i] * 600, cache_prompt=False), range(24)))
    wait_until(lambda: anonymous_mib(worker) < 80, "cells to be given back", 90 + 30)  # LIMIT_REST_MS
    again, cached = ask(first)
    assert again == text and cached > 0 and server.workers() == [worker]


HOSTILE_STEP = 1 if os.environ.get("BULKHEAD_SOAK") else 25
ODD_RANDOM = 200 if os.environ.get("BULKHEAD_SOAK") else 50


def served(server, key):
    answer = server.http("POST", "/v1/completions", key, {"model": "tiny", "prompt": "x", "max_tokens": 2, "temperature": 0})
    assert answer.status == 200, answer.body
    return answer.json["choices"][0]["text"]


def kept(server):
    """What applying leaves: files beside the database, and how many processes there are."""
    files = sorted(str(path) for path in server.data.rglob("*") if not path.name.startswith("bulkhead.db"))
    return files, len([1 for parent, _ in processes().values() if parent == server.process.pid])


def test_hostile_models_are_refused_and_cost_nobody_else(server, tiny, folder):
    """What llama.cpp does not survive ends the process that opened it; serving goes on, and nothing stays."""
    files = [(name, data) for name, data in gguf_hostile.models() if not name.startswith("odd-") and name != "valid"]
    chosen = files[::HOSTILE_STEP] + [f for f in files if f[0] in ("block_count-0", "tokens-missing", "is-adapter")]
    server.apply(tenant_yaml("acme") + model_yaml("tiny", "acme", str(tiny), engine="llama"))
    key = server.key("acme")
    text, before = served(server, key), kept(server)
    for name, data in chosen:
        (folder / "bad.gguf").write_bytes(data)
        result = server.apply(model_yaml("bad", "acme", "bad.gguf", engine="llama"), check=False)
        assert result.returncode == 1 and "Model acme/bad: spec.source: " in result.stderr, (name, result.stderr)
        assert str(server.data) not in result.stderr and "/proc/" not in result.stderr, (name, result.stderr)
        assert server.http("GET", "/v1/models/bad", key).status == 404, name
        assert served(server, key) == text, name
    wait_until(lambda: kept(server) == before, "everything of refused models to be gone")
    print(f"\n{len(chosen)} hostile files refused")


def test_odd_models_cost_nobody_else(server, tiny, folder):
    """What a reader may take or leave: refused with a reason, or served as well as it can be; the neighbour does not notice."""
    server.apply(tenant_yaml("acme") + tenant_yaml("mallory") + model_yaml("tiny", "acme", str(tiny), engine="llama"))
    key, theirs, taken = server.key("acme"), server.key("mallory"), 0
    text, before = served(server, key), kept(server)
    files = [(name, data) for name, data in gguf_hostile.models(random_count=ODD_RANDOM) if name.startswith("odd-")]
    for name, data in files[::HOSTILE_STEP]:
        (folder / "odd.gguf").write_bytes(data)
        result = server.apply(model_yaml("odd", "mallory", "odd.gguf", engine="llama"), check=False)
        if result.returncode == 0:
            for path, body in (("completions", {"prompt": "x"}), ("chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
                answer = server.http("POST", "/v1/" + path, theirs, {"model": "odd", "max_tokens": 2, **body})
                assert answer.status == 200 or answer.json["error"]["message"], (name, answer.body)
            server.cli("delete", "model", "odd", "--tenant", "mallory")
            taken += 1
        else:
            assert "Model mallory/odd: spec.source: " in result.stderr, (name, result.stderr)
        assert served(server, key) == text, name
    wait_until(lambda: kept(server) == before, "everything of odd models to be gone")
    print(f"\n{len(files[::HOSTILE_STEP])} odd files, {taken} of them served")
