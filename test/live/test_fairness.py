"""Deadlines, and clients that go away: nobody's request holds what others could use."""
import json
import socket
import threading

import onnx_model
import pytest
from conftest import IDENTITY, model_yaml, standing, tenant_yaml, vector, wait_until
from test_metrics import metrics


def give(server, folder, key=True, busy=None, model="m", tenant="acme", spec=None, **model_spec):
    """A tenant with one identity model; its key."""
    (folder / f"{tenant}-{model}.json").write_text(json.dumps(dict(IDENTITY, **({"busy": busy} if busy else {}))))
    server.apply(tenant_yaml(tenant, **(spec or {})) + model_yaml(model, tenant, f"{tenant}-{model}.json", **model_spec))
    return server.key(tenant) if key else None


def give_started(server, folder, model="m", **more):
    """As give(), with a replica that is there, for standing()."""
    key = give(server, folder, model=model, replicas={"min": 1}, **more)
    server.wait_log("replica_loaded", contains=f"model={model} ")
    return key


def ask(server, key, model="m", headers=None, connection=None, **more):
    return server.http("POST", f"/v2/models/{model}/infer", key, {"inputs": vector(1, [1.0, 2, 3, 4]), **more}, headers,
                       connection)


def send(server, key, model="m", body=None, http="1.1", **more):
    """A request on a socket of its own, its answer not waited for."""
    body = json.dumps({"inputs": vector(1, [1.0, 2, 3, 4]), **more}).encode() if body is None else body
    sock = server.raw()
    sock.sendall((f"POST /v2/models/{model}/infer HTTP/{http}\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
    return sock


def gateway(server):
    return server.status()["gateway"]


def running(server):
    return wait_until(lambda: server.status()["device"]["used"], "a lease to run")


def metric(server, name, **labels):
    """Sum of the samples that carry these labels."""
    total = 0.0
    for (sample, have), value in metrics(server).samples.items():
        if sample == name and set(labels.items()) <= have:
            total += value
    return total


def gone(server, tenant="acme"):
    return metric(server, "bulkhead_requests_total", tenant=tenant, code="499")


# --- deadlines ---

@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "99999999999999999999"])
def test_a_time_out_that_is_no_number_is_an_error(identity, value):
    answer = ask(identity, identity.acme, "echo", {"X-Request-Timeout-Ms": value})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert "X-Request-Timeout-Ms" in answer.json["error"]


def test_a_long_time_out_is_cut_to_the_servers(make_server, folder):
    """Also where microseconds or nanoseconds would overflow."""
    server = make_server(config="apiVersion: bulkhead.dev/v1alpha1\nkind: Server\nmetadata: {name: s}\n"
                                "spec: {timeouts: {request: 300ms}}\n")
    key = give_started(server, folder, busy="1s")
    with standing(server):
        first = send(server, key)
        running(server)
        wishes = {"headers": {"X-Request-Timeout-Ms": "18446744073709551615"}}, {"parameters": {"timeout": 2**63 - 1}}, {}
        for wish in wishes:
            answer = ask(server, key, **wish)
            assert (answer.status, answer.code) == (503, "deadline_exceeded"), wish
            assert int(answer.headers["Retry-After"]) >= 1
    # what runs may run on
    assert first.recv(12) == b"HTTP/1.1 200"
    first.close()


def test_what_cannot_make_its_deadline_leaves_the_queue(server, folder):
    """Refused at once where the estimate says so, dropped when its time is over where not; nobody else is hurt."""
    key = give_started(server, folder, busy="2s", batching={"maxSize": 1})
    with standing(server):
        holder = send(server, key)  # there is no estimate yet
        running(server)
        expired = ask(server, key, headers={"X-Request-Timeout-Ms": "50"})
        assert (expired.status, expired.code) == (503, "deadline_exceeded")
        expired = ask(server, key, parameters={"timeout": 50000})  # microseconds
        assert (expired.status, expired.code) == (503, "deadline_exceeded")
        assert "Retry-After" in expired.headers
    assert holder.recv(12) == b"HTTP/1.1 200"
    holder.close()
    assert ask(server, key, headers={"X-Request-Timeout-Ms": "20"}).status == 200  # it could start at once: it may try
    with standing(server):
        holder = send(server, key)
        running(server)
        refused = ask(server, key, headers={"X-Request-Timeout-Ms": "500"})  # behind 2 s
        assert (refused.status, refused.code) == (503, "deadline_exceeded")
    assert ask(server, key).status == 200
    holder.close()
    wait_until(lambda: server.status()["device"]["used"] == 0, "the device to be free")
    assert gateway(server)["queued"] == 0
    assert metric(server, "bulkhead_requests_total", tenant="acme", code="503") == 3


def test_deadlines_by_the_hundred_leave_no_trace(server, folder):
    """Counters and queue are as before, and the queue's depth is all there again."""
    key = give_started(server, folder, busy="1500ms", spec={"quota": {"queueDepth": 8}}, batching={"maxSize": 1})
    for _ in range(3):
        statuses = []

        def client():
            statuses.append(ask(server, key, headers={"X-Request-Timeout-Ms": "1"}).status)

        with standing(server):
            holder = send(server, key)
            running(server)
            for _ in range(4):
                threads = [threading.Thread(target=client) for _ in range(8)]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
        assert set(statuses) <= {503, 429} and 503 in statuses
        assert holder.recv(12) == b"HTTP/1.1 200"
        holder.close()
    wait_until(lambda: gateway(server)["queued"] == 0 and server.status()["device"]["used"] == 0, "an empty queue")
    # of another model, which has no estimate yet: of the first one the leases took as long as its worker stood still
    key = give_started(server, folder, model="n", spec={"quota": {"queueDepth": 8}}, batching={"maxSize": 1})
    with standing(server):
        holder = send(server, key, model="n")
        running(server)
        waiting = [send(server, key, model="n") for _ in range(8)]
        wait_until(lambda: gateway(server)["queued"] == 8, "all eight to wait")
        assert ask(server, key, model="n").status == 429
        for sock in waiting:
            sock.close()
        wait_until(lambda: gateway(server)["queued"] == 0, "them to be gone with their clients")
    assert gone(server) == 8
    assert holder.recv(12) == b"HTTP/1.1 200"
    holder.close()


# --- clients that go away ---

def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_a_running_lease_ends_with_its_client(server, folder, leave):
    """The slot is free again before the ten seconds of the step are over, and the worker lives on."""
    key = give(server, folder, busy="10s")
    sock = send(server, key)
    running(server)
    workers = server.workers()
    leave(sock)
    wait_until(lambda: server.status()["device"]["used"] == 0, "the slot to be free")
    assert gateway(server)["leases"] == 1 and gateway(server)["leaseSeconds"] < 10
    assert gone(server) == 1
    assert server.workers() == workers
    sock = send(server, key)  # and another one, now that a flag was set and cleared
    running(server)
    leave(sock)
    wait_until(lambda: gone(server) == 2, "the second to be gone")
    assert gateway(server)["leaseSeconds"] < 20
    wait_until(lambda: server.status()["device"]["used"] == 0, "the slot to be free")


def test_a_half_closed_client_still_gets_its_answer(server, folder):
    """Asked with a 100 whether it is there; and the lease is not given up."""
    key = give_started(server, folder, busy="1s")
    asked = b"HTTP/1.1 100 Continue\r\n\r\n"
    for http, first in (("1.1", asked + b"HTTP/1.1 200"), ("1.0", b"HTTP/1.1 200")):
        received = b""
        with standing(server):
            sock = send(server, key, http=http)
            sock.shutdown(socket.SHUT_WR)
            running(server)
            if http == "1.1":
                received = sock.recv(len(asked), socket.MSG_WAITALL)
        while piece := sock.recv(65536):
            received += piece
        assert received.startswith(first), received
        sock.close()
    assert gone(server) == 0


def test_a_lease_runs_on_while_one_of_its_clients_waits(server, folder):
    key = give_started(server, folder, busy="1s")
    with standing(server):
        holder = send(server, key)
        running(server)
        batch = [send(server, key) for _ in range(3)]
        wait_until(lambda: gateway(server)["queued"] == 3, "three to wait")
    assert holder.recv(12) == b"HTTP/1.1 200"
    holder.close()
    wait_until(lambda: gateway(server)["queued"] == 0, "the three to run together")
    batch[0].close()
    batch[2].close()
    assert batch[1].recv(12) == b"HTTP/1.1 200"
    batch[1].close()
    wait_until(lambda: gone(server) == 2, "the two to be counted")
    wait_until(lambda: gateway(server)["leases"] == 2, "the figures")


def test_onnx_runtime_gives_up_a_step_between_two_nodes(server, folder):
    """A chain of products that takes longer than a lease may (30 s, then its worker is killed)."""
    n, side = 3000, 1024
    nodes = [("MatMul", [f"v{i}", "v0"], [f"v{i + 1}"]) for i in range(n)]
    (folder / "chain.onnx").write_bytes(onnx_model.model(
        nodes, [("v0", onnx_model.FLOAT, [side, side])], [(f"v{n}", onnx_model.FLOAT, [side, side])]))
    server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "chain.onnx", "onnx", resources={"memory": "1Gi"}))
    key = server.key("acme")
    head = json.dumps({"inputs": [{"name": "v0", "shape": [side, side], "datatype": "FP32",
                                   "parameters": {"binary_data_size": 4 * side * side}}]}).encode()
    sock = server.raw()
    sock.sendall(f"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
                 f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + 4 * side * side}\r\n\r\n"
                 .encode() + head + bytes(4 * side * side))
    running(server)
    workers = server.workers()
    sock.close()
    wait_until(lambda: server.status()["device"]["used"] == 0, "the slot to be free")
    assert gone(server) == 1 and server.workers() == workers
    # 3,000 products of 2 × 1024³ operations are 6.4 TFLOP, of which a core does some 0.1 in a second
    assert 0 < gateway(server)["leaseSeconds"] < 30, gateway(server)
