"""A model file of more than 4 GiB, as real ones are: stored, opened and served.

`make test` leaves it out: it takes 5 GB of memory and of disk for a minute. `make test LONG=1` and `make soak` run it."""
import os
import shutil
import subprocess
import sys

import pytest

from conftest import BULKHEAD, ROOT, model_yaml, tenant_yaml, wait_until

sys.path[:0] = [str(ROOT / "test/tools"), str(ROOT / "examples/models")]
import gguf_file  # noqa: E402
import gguf_random  # noqa: E402

PATIENCE_S = 600  # what is copied and hashed thrice takes as long as the machine needs
LONG = os.environ.get("BULKHEAD_LONG") or os.environ.get("BULKHEAD_SOAK")
SHAPE = gguf_random.Shape(320, 4096, 24, 32, 8, 11008, 512)


def write_large(path, shape=SHAPE, seed=1):
    """Layers of zeros, which change nothing, are holes in the file; the embeddings, which are the output's matrix too, lie
    behind them. So whatever comes last is most like itself, and is said again and again."""
    embeddings, final, *layers = gguf_random.tensors(shape, "Q8_0", seed)
    tensors = layers + [final, embeddings]
    with open(path, "wb") as file:
        file.write(b"".join(data for _, data in gguf_file.header(gguf_random.metadata(shape), tensors)))
        for tensor in tensors:
            end = file.tell() + gguf_file.size(tensor) + gguf_file.padding(gguf_file.size(tensor))
            for chunk in tensor.chunks() if tensor in (final, embeddings) else ():
                file.write(chunk)
            file.seek(end)
        file.truncate(end)
    return end


@pytest.mark.skipif(not LONG, reason="takes 5 GB: BULKHEAD_LONG=1")
def test_a_file_beyond_four_gigabytes(server, folder):
    free = int(next(line for line in open("/proc/meminfo") if line.startswith("MemAvailable")).split()[1]) << 10
    if free < 12 << 30 or shutil.disk_usage(folder).free < 12 << 30:
        pytest.skip("needs 12 GiB of memory and of disk")
    size = write_large(folder / "large.gguf")
    assert size > 4 << 30
    (folder / "large.yaml").write_text(tenant_yaml("acme") + model_yaml(
        "large", "acme", "large.gguf", "llama", resources={"cpu": 1, "memory": "2Gi"}, replicas={"min": 1}))
    subprocess.run([BULKHEAD, "apply", "-f", folder / "large.yaml", "--admin", server.data / "admin.sock"], check=True,
                   timeout=PATIENCE_S)
    (folder / "large.gguf").unlink()
    key = server.key("acme")
    wait_until(lambda: server.http("GET", "/v2/models/large/ready", key).status == 200, "the model", PATIENCE_S)
    answer = server.http("POST", "/v1/completions", key,
                         {"model": "large", "prompt": "abc zyx", "max_tokens": 3, "temperature": 0, "logprobs": 0},
                         connection=server.connect(PATIENCE_S))
    assert answer.status == 200, answer.body
    said = answer.json["choices"][0]["logprobs"]["tokens"]
    assert len(said) == 3 and len(set(said)) == 1 and "zyx".endswith(said[0].strip()), said
