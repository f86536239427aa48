"""Memory for bodies that come slowly."""
import contextlib
import json
import re

from conftest import model_yaml, tenant_yaml, wait_until
from test_quota import padded, passes, request, serving  # noqa: F401 (a fixture)

SMALL = json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
                    "spec": {"profile": "edge"}})
SMALL_BODY, SMALL_BODIES = 1 << 20, 8 << 20


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
        refusals, held = [], []
        for sock in socks:
            sock.settimeout(0.3)
            try:
                refusals.append(sock.recv(4096).decode())
            except TimeoutError:
                held.append(sock)
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
            sock.settimeout(20)
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    wait_until(lambda: server.http("POST", "/v2/models/echo/infer", server.acme, body).status == 200, "room again")
