"""Bad neighbours: a hostile model in a real worker does its worst (escape/neighbour.c) while another tenant is being served.
That tenant sees no error; the offender gets its own, and a fresh worker."""
import pathlib

import pytest

from conftest import ROOT, model_yaml, tenant_yaml, wait_until
from load import Load
from test_escape import LEVELS, apply_at, attempt, hostile  # noqa: F401  (a fixture)

DIGITS = [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [float(i % 17) for i in range(64)]}]
# What the offender's own request gets: these end or block the worker, and the others may return.
ENDS = {"segfault": "worker_lost", "abort": "worker_lost", "leave": "worker_lost", "eat-memory": "model_memory_exceeded"}
RETURNS = ["fork", "open", "fill-tmp", "flood-log"]
HANGS = ["loop", "sleep"]


@pytest.fixture
def neighbours(hostile, folder):  # noqa: F811
    """Tenant victim with the digits model under load, and tenant evil with its key."""
    (folder / "digits.onnx").write_bytes(pathlib.Path(ROOT, "examples/digits/digits.onnx").read_bytes())
    hostile.apply(tenant_yaml("victim") + model_yaml("digits", "victim", "digits.onnx", engine="onnx"))
    hostile.victim = hostile.key("victim")
    assert hostile.infer("digits", DIGITS, hostile.victim).status == 200
    return hostile


def deed(server, name, model):
    return server.infer(model, [{"name": "what", "shape": [1], "datatype": "BYTES", "data": ["neighbour " + name]}],
                        server.evil)


def answers_again(server, model):
    wait_until(lambda: attempt(server, "files.host-users", model).startswith("held E"), "a fresh worker that answers")


@pytest.mark.parametrize("level", LEVELS[:2])
def test_the_victim_sees_no_error(neighbours, level):
    apply_at(neighbours, level, resources={"memory": "256Mi"})
    with Load(neighbours, neighbours.victim, "digits", DIGITS, threads=2) as load:
        for name, code in ENDS.items():
            answer = deed(neighbours, name, "hostile")
            assert (answer.status, answer.code) == (503, code), (name, answer.body, neighbours.log[-4:])
            answers_again(neighbours, "hostile")
        for name in RETURNS:
            answer = deed(neighbours, name, "hostile")
            assert answer.status in (200, 503), (name, answer.body)
            answers_again(neighbours, "hostile")
    assert load.broken == load.wrong == 0 and set(load.statuses) == {200} and load.statuses[200] > 20
    assert not any("forged" in line["message"] for line in neighbours.log)


def test_a_hang_costs_its_own_tenant_only(neighbours):
    """Both hang at once, each in its own model, until their lease is overdue."""
    import threading
    answers = {}
    for name in HANGS:
        neighbours.apply(model_yaml(name, "evil", "hostile.json"))
        answers_again(neighbours, name)
    with Load(neighbours, neighbours.victim, "digits", DIGITS, threads=2) as load:
        threads = [threading.Thread(target=lambda n=name: answers.update({n: deed(neighbours, n, n)})) for name in HANGS]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for name in HANGS:
            assert answers[name].status in (503, 504), (name, answers[name].body)
            answers_again(neighbours, name)
    assert load.broken == load.wrong == 0 and set(load.statuses) == {200} and load.statuses[200] > 20
