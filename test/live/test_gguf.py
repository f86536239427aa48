"""The GGUF files that tests and bench make for themselves, tried with llama.cpp's own server."""
import itertools
import math
import os
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_hostile  # noqa: E402  (behind the path that finds it)
import gguf_random  # noqa: E402
import llama_reference  # noqa: E402

HOSTILE_STEP = 1 if os.environ.get("BULKHEAD_SOAK") else 8


@pytest.fixture(autouse=True)
def built():
    assert llama_reference.SERVER.exists(), "llama-server is not built: tools/deps install --test"


def test_random_files_are_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        gguf_random.write_model(tmp_path / name, "tiny", "Q8_0", seed=3)
    gguf_random.write_model(tmp_path / "c", "tiny", "Q8_0", seed=4)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()
    assert (tmp_path / "a").stat().st_size < 128 << 10


@pytest.mark.parametrize("size, kind", [("tiny", "Q8_0"), ("small", "Q8_0"), ("small", "Q4_K")])
def test_random_models_load_and_generate(tmp_path, size, kind):
    gguf_random.write_model(tmp_path / "model.gguf", size, kind)
    gguf_random.write_adapter(tmp_path / "adapter.gguf", size, 4)
    runs = []
    for _ in range(2):
        with llama_reference.Server(tmp_path / "model.gguf", [tmp_path / "adapter.gguf"]) as server:
            runs.append([server.greedy("hello there", 16, adapter)["tokens"] for adapter in (None, 0, None)])
    assert runs[0] == runs[1]
    base, adapted, again = runs[0]
    assert len(base) == 16 and base == again != adapted


def parameters_of(size):
    tensors = gguf_random.tensors(gguf_random.SIZES[size], "Q8_0", 1)
    return sum(math.prod(tensor.shape) for tensor in tensors)


@pytest.mark.parametrize("size, parameters", [("0.1B", 1e8), ("0.3B", 3e8), ("0.5B", 5e8), ("1B", 1e9)])
def test_sizes_mean_what_they_say(size, parameters):
    assert 0.9 * parameters < parameters_of(size) < 1.1 * parameters


@pytest.mark.parametrize("what", ["model", "adapter"])
def test_hostile_files_are_refused_by_llama_cpp_too(tmp_path, what):
    """Else the name of a file in the corpus would promise what nobody has seen."""
    files = gguf_hostile.models() if what == "model" else gguf_hostile.adapters()
    base = tmp_path / "base.gguf"
    gguf_random.write_model(base, "tiny", "Q8_0")
    wanted = [(name, data) for name, data in files if not name.startswith("odd-")]
    names = [name for name, _ in wanted]
    assert names[0] == "valid" and len(set(names)) == len(names) > 100
    for name, data in itertools.islice(wanted, 0, None, HOSTILE_STEP):
        path = tmp_path / "hostile.gguf"
        path.write_bytes(data)
        try:
            with llama_reference.Server(path) if what == "model" else llama_reference.Server(base, [path]):
                loaded = True
        except RuntimeError:
            loaded = False
        assert loaded == (name == "valid"), name
