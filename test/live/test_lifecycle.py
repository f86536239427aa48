"""Life cycle: replicas to zero and back, SIGHUP, data folders that cannot be trusted or are full."""
import concurrent.futures
import json
import os
import random
import signal
import time

from conftest import IDENTITY, model_yaml, tenant_yaml, vector, wait_until

SEED = int(os.environ.get("BULKHEAD_SEED", time.time_ns() % 1_000_000))
ROUNDS = 12 if os.environ.get("BULKHEAD_SOAK") else 3


def one_model(server, folder, model=IDENTITY, tenant=None, **replicas):
    (folder / "echo.json").write_text(json.dumps(model))
    server.apply(tenant_yaml("acme", **(tenant or {})) + model_yaml("echo", "acme", "echo.json", replicas=replicas))
    return server.key("acme")


def infer(server, key, connection=None, **more):
    return server.infer("echo", vector(1, [1, 2, 3, 4]), key, connection=connection, **more)


# --- to zero and back ---

def test_an_idle_replica_ends_and_the_next_request_starts_one(server, folder):
    key = one_model(server, folder, idleAfter="50ms")
    for i in range(ROUNDS):
        assert infer(server, key).status == 200
        server.wait_log("replica_started", count=i + 1)
        assert "no longer needed" in server.wait_log("replica_ended", count=i + 1)["message"]
        wait_until(lambda: not server.workers(), "the idle worker to end")
        assert server.status()["device"]["used"] == 0
    assert infer(server, key).status == 200


def test_replicas_of_the_minimum_stay(server, folder):
    key = one_model(server, folder, idleAfter="50ms", min=1, max=2)
    worker = wait_until(server.workers, "the minimum")
    # Its only request long ago, the gateway has said "idle" several times when this other model ended as often.
    (folder / "other.json").write_text(json.dumps(IDENTITY))
    server.apply(model_yaml("other", "acme", "other.json", replicas={"idleAfter": "50ms"}))
    for i in range(ROUNDS):
        assert server.infer("other", vector(1, [1, 2, 3, 4]), key).status == 200
        server.wait_log("replica_ended", count=i + 1, contains="model=other")
    assert server.workers() == worker
    assert not [l for l in server.log if l["event"] == "replica_ended" and "model=echo" in l["message"]]


def test_a_request_that_runs_longer_than_idle_after_is_no_idleness(server, folder):
    key = one_model(server, folder, dict(IDENTITY, busy="700ms"), idleAfter="10ms")
    for _ in range(2):
        assert infer(server, key).status == 200
    assert not [l for l in server.log if l["event"] == "replica_lost"]


def test_requests_around_the_end_of_a_replica_wait_and_are_answered(server, folder):
    """Clients come back after about the time in which replicas end: into READY, DRAINING, GONE and starting ones."""
    key = one_model(server, folder, idleAfter="1ms")
    print(f"seed {SEED} (BULKHEAD_SEED={SEED} repeats it)")
    enough = 8 * ROUNDS

    def client(number):
        rng = random.Random(SEED + number)
        statuses, connection = [], server.connect()
        while len([l for l in server.log if l["event"] == "replica_ended"]) < enough:
            answer = infer(server, key, connection)
            statuses.append((answer.status, answer.body if answer.status != 200 else b""))
            time.sleep(rng.random() * 0.4)  # a random moment, not a wait
        connection.close()
        return statuses

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for statuses in pool.map(client, range(2)):
            assert {status for status, _ in statuses} == {200}, statuses
    assert not [l for l in server.log if l["event"] == "replica_lost"]


def test_the_wait_for_a_start_is_bounded(server, folder):
    """While no replica can start: as many wait as the queue is deep, as long as they say; the rest is refused."""
    key = one_model(server, folder, tenant={"quota": {"queueDepth": 3}}, idleAfter="1ms")
    assert infer(server, key).status == 200
    wait_until(lambda: not server.workers(), "the idle worker to end")
    server.process.send_signal(signal.SIGSTOP)  # it starts nothing now
    waiting = []

    def wait():
        connection = server.connect()
        connection.request("POST", "/v2/models/echo/infer", json.dumps({"inputs": vector(1, [1, 2, 3, 4])}),
                           {"Authorization": "Bearer " + key})
        waiting.append(connection)
        wait_until(lambda: server.status()["gateway"]["queued"] == len(waiting), "a request to wait")

    try:
        wait()
        wait()
        late = infer(server, key, parameters={"timeout": 20000})
        assert (late.status, late.code) == (503, "deadline_exceeded")
        wait()
        refused = infer(server, key)
        assert (refused.status, refused.code) == (429, "queue_full") and refused.headers["Retry-After"]
    finally:
        server.process.send_signal(signal.SIGCONT)
    for connection in waiting:
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["outputs"][0]["data"] == [1, 2, 3, 4]
        connection.close()


def test_a_new_gateway_does_not_take_replicas_for_idle(server, folder):
    key = one_model(server, folder, idleAfter="1h")
    assert infer(server, key).status == 200
    workers, gateway = server.workers(), server.pid("gateway")
    os.kill(gateway, signal.SIGKILL)
    wait_until(lambda: server.pid("gateway") not in (None, gateway), "a new gateway")
    server.wait_log("serving", count=2)
    assert infer(server, key).status == 200
    time.sleep(0.6)  # two of the gateway's looks at what is idle: nothing may happen, so there is nothing to wait for
    assert server.workers() == workers
    assert not [l for l in server.log if l["event"] == "replica_ended"]
