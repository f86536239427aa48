"""Bad neighbours: a hostile model in a real worker does its worst (escape/neighbour.c) while another tenant is being served.
That tenant sees no error; the offender gets its own, and a fresh worker."""
import os
import pathlib
import threading

import pytest

from conftest import ROOT, model_yaml, tenant_yaml, wait_until
from load import Load
from test_escape import WALLS, apply_at, attempt, boots, hostile, long_tier, patience  # noqa: F401  (hostile: a fixture)
from test_shared import together

DIGITS = [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [float(i % 17) for i in range(64)]}]
# What the offender's own request gets: these end or block the worker, and the others may return.
ENDS = {"segfault": "worker_lost", "abort": "worker_lost", "leave": "worker_lost", "garbage": "worker_lost"}
RETURNS = ["fork", "open", "fill-tmp", "flood-log"]
HANGS = ["loop", "sleep"]
MEMORY = {"memory": "128Mi"}
ALONE = [wall for wall in WALLS if wall != "shared"]


def what(deed):
    return [{"name": "what", "shape": [1], "datatype": "BYTES", "data": ["neighbour " + deed]}]


def ask(server, deed, model, wall="process"):
    return server.infer(model, what(deed), server.evil, **patience(server, wall))


def answers_again(server, model, wall="process"):
    wait_until(lambda: attempt(server, "files.host-users", model, wall).startswith("held E"), "a fresh worker that answers",
               240 if boots(wall) else 60)


@pytest.fixture
def neighbours(hostile, folder):  # noqa: F811
    """Tenant victim with the digits model under load, and tenant evil with its key."""
    (folder / "digits.onnx").write_bytes(pathlib.Path(ROOT, "examples/digits/digits.onnx").read_bytes())
    hostile.apply(tenant_yaml("victim") + model_yaml("digits", "victim", "digits.onnx", engine="onnx"))
    hostile.victim = hostile.key("victim")
    assert hostile.infer("digits", DIGITS, hostile.victim).status == 200
    return hostile


def unharmed(load):
    assert load.broken == load.wrong == 0 and set(load.statuses) == {200} and load.statuses[200] > 20, \
        (load.statuses, load.codes, load.broken, load.wrong)


@pytest.mark.parametrize("wall", ALONE)
def test_the_victim_sees_no_error(neighbours, wall):
    if boots(wall):
        neighbours.fds = None  # the level's files are opened by the first who uses it, and kept
    apply_at(neighbours, wall, resources=MEMORY)
    ends, returns = dict(ENDS), list(RETURNS)
    if boots(wall) and not long_tier():  # each costs a boot
        ends, returns = {name: ends[name] for name in ("segfault", "garbage")}, ["open"]
    with Load(neighbours, neighbours.victim, "digits", DIGITS, threads=2) as load:
        answers_again(neighbours, "hostile", wall)
        for name, code in ends.items():
            answer = ask(neighbours, name, "hostile", wall)
            assert (answer.status, answer.code) == (503, code), (name, answer.body, neighbours.log[-4:])
            answers_again(neighbours, "hostile", wall)
        for name in returns:
            answer = ask(neighbours, name, "hostile", wall)
            assert answer.status in (200, 503), (name, answer.body)
            answers_again(neighbours, "hostile", wall)
        neighbours.cli("delete", "model", "hostile", "--tenant", "evil")
        # The first lease of a model: of one whose leases took milliseconds so far, eating a busy machine's memory for more
        # than a second would be a hang.
        apply_at(neighbours, wall, "eater", resources=MEMORY)
        answer = ask(neighbours, "eat-memory", "eater", wall)
        assert (answer.status, answer.code) == (503, "model_memory_exceeded"), (answer.body, neighbours.log[-4:])
        answers_again(neighbours, "eater", wall)
    unharmed(load)
    assert not any("forged" in line["message"] for line in neighbours.log)


@pytest.mark.parametrize("wall", ALONE)
def test_a_hang_costs_its_own_tenant_only(neighbours, wall):
    """Both hang at once, each in its own model, until their lease is overdue."""
    if boots(wall):
        neighbours.fds = None
    answers = {}
    hangs = HANGS if not boots(wall) or long_tier() else HANGS[:1]
    for name in hangs:
        apply_at(neighbours, wall, name, resources=MEMORY)
        answers_again(neighbours, name, wall)
    with Load(neighbours, neighbours.victim, "digits", DIGITS, threads=2) as load:
        threads = [threading.Thread(target=lambda n=name: answers.update({n: ask(neighbours, n, n, wall)})) for name in hangs]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for name in hangs:
            assert answers[name].status in (503, 504), (name, answers[name].body)
            answers_again(neighbours, name, wall)
    unharmed(load)


@pytest.mark.parametrize("deed", [*ENDS, *RETURNS, *HANGS, "eat-memory"])
def test_in_one_worker_the_victim_sees_no_error(hostile, deed):  # noqa: F811
    """At level shared a crash takes the others' requests along, which are tried once more, each alone."""
    hostile.apply(tenant_yaml("calm"))
    hostile.calm = hostile.key("calm")
    for tenant in ("evil", "calm"):
        apply_at(hostile, "shared", "deeds", tenant=tenant, resources=MEMORY)
    pid = together(hostile)
    held = len(os.listdir(f"/proc/{pid}/fd"))
    with Load(hostile, hostile.calm, "deeds", what("nothing"), threads=2) as load:
        answer = ask(hostile, deed, "deeds")
        if deed in RETURNS:  # all of it is refused: it holds what it holds, and nobody is in want of it
            assert answer.status == 200, answer.body
            assert together(hostile) == pid and len(os.listdir(f"/proc/{pid}/fd")) == held
        elif deed in ENDS:
            assert (answer.status, answer.code) == (503, ENDS[deed]), (answer.body, hostile.log[-4:])
        else:  # overdue, after a second; eating may be done by then, and alone once more
            assert answer.status in (503, 504), answer.body
        wait_until(lambda: ask(hostile, "nothing", "deeds").status == 200, "the offender's model to be back")
        before = load.count()
        wait_until(lambda: load.count() > before + 20, "answers for the calm tenant")
    unharmed(load)
    assert not any("forged" in line["message"] for line in hostile.log)
