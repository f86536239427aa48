"""Language models behind the worker's wall: opened at apply by the worker program, under its filters."""
import subprocess

import pytest

from conftest import BUILD, model_yaml, tenant_yaml


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
