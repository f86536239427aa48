"""Memory for bodies that come slowly."""
import contextlib
import json
import re
import select

from conftest import CEILING_S, model_yaml, tenant_yaml, wait_until
from test_quota import padded, passes, request, serving  # noqa: F401 (a fixture)

SMALL = json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
                    "spec": {"profile": "edge"}})
SMALL_BODY, SMALL_BODIES = 1 << 20, 8 << 20


def answered(socks, seconds):
    """Those that have something to read, once so long no further one has."""
    found = []
    while True:
        more = select.select([s for s in socks if s not in found], [], [], seconds)[0]
        if not more:
            return found
        found += more


def test_a_slow_body_pins_no_memory_of_others(serving):
    """More connections than there is memory for, each with nearly all of a largest body, which then drips: they get half of
    it and a refusal that says so; and another tenant's largest bodies pass meanwhile, and theirs once they let go."""
    server = serving({}, config=SMALL)
    server.apply(tenant_yaml("polite") + model_yaml("calm", "polite", "echo.json"))
    polite = server.key("polite")
    body = padded(SMALL_BODY)
    assert passes(server)
    wait_until(lambda: passes(server, polite, "calm"), "the other tenant's model")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.raw()) for _ in range(24)]
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                sock.sendall(request(server, length=SMALL_BODY) + body[:SMALL_BODY - 8192])
        told = wait_until(lambda: len(t := answered(socks, 2)) >= len(socks) - SMALL_BODIES // 2 // SMALL_BODY and t, "refusals")
        refusals, held = [sock.recv(4096).decode() for sock in told], [sock for sock in socks if sock not in told]
        assert 3 <= len(held) <= SMALL_BODIES // 2 // SMALL_BODY, len(held)
        for text in refusals:
            assert text.startswith("HTTP/1.1 429 ") and '"code":"queue_full"' in text, text
            assert int(re.search(r"Retry-After: (\d+)", text)[1]) >= 1
            assert f"of {SMALL_BODIES} that the server has for all" in text
        for _ in range(5):
            for sock in held:
                sock.sendall(b" " * 1024)
            answer = server.http("POST", "/v2/models/calm/infer", polite, body)
            assert answer.status == 200, answer.body
        assert server.http("POST", "/v2/models/echo/infer", server.acme, body).status == 429
        for sock in held:  # what is complete is answered, however long it took
            sock.sendall(b" " * (8192 - 5 * 1024))
            sock.settimeout(CEILING_S)
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.http("POST", "/v2/models/echo/infer", server.acme, body).status == 200, "room again")
