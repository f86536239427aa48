"""Language models behind the worker's wall: opened at apply by the worker program, under its filters."""
import os
import subprocess
import sys

import pytest

from conftest import BUILD, ROOT, model_yaml, tenant_yaml

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_hostile  # noqa: E402  (behind the path that finds it)


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


HOSTILE_STEP = 1 if os.environ.get("BULKHEAD_SOAK") else 25


def test_hostile_models_are_refused_and_cost_nobody_else(server, tiny, folder):
    """What llama.cpp does not survive ends the process that opened it; serving goes on, and nothing stays."""
    files = [(name, data) for name, data in gguf_hostile.models() if not name.startswith("odd-") and name != "valid"]
    chosen = files[::HOSTILE_STEP] + [f for f in files if f[0] in ("block_count-0", "tokens-missing")]
    server.apply(tenant_yaml("acme") + model_yaml("tiny", "acme", str(tiny), engine="llama"))
    before = sorted(os.listdir(server.data / "store/artifacts"))
    for name, data in chosen:
        (folder / "bad.gguf").write_bytes(data)
        result = server.apply(model_yaml("bad", "acme", "bad.gguf", engine="llama"), check=False)
        assert result.returncode == 1 and "Model acme/bad: spec.source: " in result.stderr, (name, result.stderr)
    assert sorted(os.listdir(server.data / "store/artifacts")) == before
