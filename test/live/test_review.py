"""Life and death of roles and replicas in the order that nobody plans: found by review, each once a bug."""
import json
import os
import signal
import threading
import time

import pytest

from conftest import IDENTITY, model_yaml, tenant_yaml, vector, wait_until


def apply_models(server, folder, busy="1ms", count=1, **spec):
    (folder / "m.json").write_text(json.dumps(dict(IDENTITY, busy=busy)))
    server.apply(tenant_yaml("acme") + "".join(model_yaml(f"m{i}", "acme", "m.json", **spec) for i in range(count)))
    return server.key("acme")


def in_background(server, key, model="m0", **more):
    """A request whose answer nobody awaits yet; .join() and .answer."""
    thread = threading.Thread(target=lambda: setattr(thread, "answer", server.infer(model, vector(1, [1, 2, 3, 4]), key,
                                                                                    **more)), daemon=True)
    thread.answer = None
    thread.start()
    return thread


def test_a_second_signal_ends_at_once(server, folder):
    key = apply_models(server, folder, busy="9s", count=4, replicas={"min": 1})
    wait_until(lambda: [r["status"]["state"] for r in server.status()["replicas"]] == ["ready"] * 4, "four workers")
    threads = [threading.Thread(target=lambda: pytest.raises(Exception, server.infer, "m0", vector(1, [1, 2, 3, 4]), key))]
    threads[0].start()
    wait_until(lambda: server.status()["device"]["used"] > 0, "the request to run")
    server.process.send_signal(signal.SIGTERM)
    server.wait_log("draining")
    assert server.stop() == 0  # the second one; ASan watches what the last workers' ends are told to
    threads[0].join()
    assert [l for l in server.log if l["event"] == "drain_again"]


def test_a_drain_does_not_wait_for_those_who_wait_for_a_start(server, folder):
    """Nothing starts any more: who waits for a start is told so instead of being let down by the deadline."""
    key = apply_models(server, folder)
    os.kill(server.pid("control"), signal.SIGSTOP)  # the demand is not heard
    waiting = in_background(server, key)
    try:
        time.sleep(0.5)  # nothing tells that it waits, now that control is silent
        assert waiting.is_alive()
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        waiting.join(20)
        assert waiting.answer and (waiting.answer.status, waiting.answer.code) == (503, "draining")
        assert time.monotonic() - begin < 20
    finally:
        os.kill(server.pid("control"), signal.SIGCONT)
    assert server.process.wait(60) == 0


def test_an_old_version_lets_go_of_its_replicas(server, folder):
    key = apply_models(server, folder, replicas={"idleAfter": "0s"})
    assert server.infer("m0", vector(1, [1, 2, 3, 4]), key).status == 200
    old = server.workers()
    apply_models(server, folder, busy="2ms", replicas={"idleAfter": "0s"})
    assert server.infer("m0", vector(1, [1, 2, 3, 4]), key).json["model_version"] == "2"
    new = [w for w in server.workers() if w not in old]
    assert len(old) == len(new) == 1
    wait_until(lambda: server.workers() == new, "the old version's worker to end", 90)


def test_a_start_that_fails_before_there_is_a_worker_is_told(server, folder):
    """An artifact that is missing on disk: nobody waits for the deadline, and it serves again once it is back."""
    key = apply_models(server, folder)
    artifacts = list((server.data / "store/artifacts").iterdir())
    assert len(artifacts) == 1
    artifacts[0].rename(artifacts[0].with_name("elsewhere"))
    begin = time.monotonic()
    answer = server.infer("m0", vector(1, [1, 2, 3, 4]), key)
    assert (answer.status, answer.code) == (503, "model_unavailable") and int(answer.headers["Retry-After"]) >= 1
    assert "missing" in answer.json["error"] and str(server.data) not in answer.json["error"]
    assert time.monotonic() - begin < 15  # and not the 30 s of a request's deadline
    artifacts[0].with_name("elsewhere").rename(artifacts[0])
    wait_until(lambda: server.infer("m0", vector(1, [1, 2, 3, 4]), key).status == 200, "the model to serve")


def test_a_worker_that_always_dies_is_paced_and_told(server, folder):
    key = apply_models(server, folder)
    for _ in range(6):  # the back-off doubles from 0.1 s
        wait_until(lambda: server.infer("m0", vector(1, [1, 2, 3, 4]), key).status == 200, "the model to serve", 60)
        lost = len([l for l in server.log if l["event"] == "replica_lost"])
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_log("replica_lost", count=lost + 1)
    begin = time.monotonic()
    answer = server.infer("m0", vector(1, [1, 2, 3, 4]), key)
    if answer.status != 200:  # the jitter may have made the wait short
        assert (answer.status, answer.code) == (503, "model_unavailable") and int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - begin < 15


def test_an_idle_control_sleeps(server):
    def switches():
        with open(f"/proc/{server.pid('control')}/status") as status:
            return int(next(line.split()[1] for line in status if line.startswith("voluntary_ctxt")))

    server.status()
    wait_until(lambda: (lambda before: (time.sleep(1), switches() - before)[1])(switches()) < 5, "control to sleep")
