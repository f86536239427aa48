"""Memory for requests as they are decoded, which JSON makes many times larger than its body."""
import contextlib
import json
import os
import re
import select
import signal
import socket

from conftest import model_yaml, tenant_yaml, wait_until
from test_quota import request, serving  # noqa: F401 (a fixture)

SMALL = json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
                    "spec": {"profile": "edge"}})
WORK_BYTES = 8 << 20  # LIMIT_EDGE_BODIES_BYTES, and as much again
N = 100000


def numbers():
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, N], "data": [1] * N}]}).encode()


@contextlib.contextmanager
def standing_still(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_decoded_requests_take_no_memory_of_others(serving, folder):  # noqa: F811
    """Requests that wait for the reservation of one whose worker stands still: beyond its part a tenant is refused, in words;
    another one's pass; and once they have ended there is room again."""
    server = serving({"computeSecondsPerHour": 1000}, config=SMALL)
    (folder / "wide.json").write_text(json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]}))
    server.apply(tenant_yaml("polite") + "".join(
        model_yaml("wide", t, "wide.json", replicas={"min": 1}) for t in ("acme", "polite")))
    body = numbers()

    def status(key):
        return server.http("POST", "/v2/models/wide/infer", key, body).status
    polite = server.key("polite")
    wait_until(lambda: status(polite) == 200, "the polite tenant's model")

    def workers():
        return [r["status"]["pid"] for r in server.status()["replicas"]
                if (r["metadata"]["tenant"], r["status"]["model"], r["status"]["state"]) == ("acme", "wide", "ready")]
    acmes, = wait_until(workers, "a worker that has run nothing, so that the first request reserves all")
    with contextlib.ExitStack() as stack, standing_still(acmes):
        socks = [stack.enter_context(server.raw()) for _ in range(24)]
        for sock in socks:
            sock.sendall(request(server, model="wide", length=len(body)) + body)
        wait_until(lambda: len(select.select(socks, [], [], 0.1)[0]) >= len(socks) // 2, "refusals")
        refused, _, _ = select.select(socks, [], [], 0)
        refusals, held = [s.recv(4096).decode() for s in refused], [s for s in socks if s not in refused]
        assert 2 <= len(held) < 24, len(held)
        for text in refusals:
            assert text.startswith("HTTP/1.1 429 ") and '"code":"queue_full"' in text, text
            assert int(re.search(r"Retry-After: (\d+)", text)[1]) >= 1
            assert f"of {WORK_BYTES} that the server has for all" in text, text
        assert status(polite) == 200
        for sock in held:
            sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: status(server.acme) == 200, "room again")
