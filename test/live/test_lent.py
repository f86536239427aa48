"""One base for several tenants over HTTP: lent models and adapters, whose they are, and what becomes of them."""
import calendar
import json
import os
import signal
import threading
import time

import pytest

from conftest import ROOT, model_yaml, tenant_yaml, wait_until
from test_adapters import adapter_yaml
from test_grants import SHARED, grant_yaml

MODELS = ROOT / "examples/models"
HEAD = 10  # characters: later tokens may differ where two are nearly as likely, by who else is in the batch
SIZE = (MODELS / "cynic.gguf").stat().st_size


@pytest.fixture
def lent(server):
    """acme lends to bob, who uses its replicas, and to eve, whose floor asks for replicas of its own."""
    server.apply(tenant_yaml("acme") + tenant_yaml("bob") + tenant_yaml("eve", isolation={"minimum": "process"}) +
                 tenant_yaml("mallory") +
                 model_yaml("novelist", "acme", str(MODELS / "novelist.gguf"), engine="llama", isolation=SHARED) +
                 grant_yaml("lend", "acme", "novelist", ["bob", "eve"]))
    server.apply(adapter_yaml("scribe", "acme", "novelist", MODELS / "scribe.gguf") +
                 adapter_yaml("cynic", "bob", "novelist", MODELS / "cynic.gguf") +
                 adapter_yaml("cynic", "eve", "novelist", MODELS / "cynic.gguf"))
    server.keys = {name: server.key(name) for name in ("acme", "bob", "eve", "mallory")}
    return server


def ask(server, tenant, model, **body):
    return server.http("POST", "/v1/completions", server.keys[tenant],
                       {"model": model, "prompt": "The old man", "max_tokens": 12, "temperature": 0, **body})


def text(server, tenant, model, **body):
    answer = ask(server, tenant, model, **body)
    assert answer.status == 200, answer.body
    assert answer.json["model"] == model
    return answer.json["choices"][0]["text"]


def listed(server, tenant):
    return {m["id"] for m in server.http("GET", "/v1/models", server.keys[tenant]).json["data"]}


class Stream(threading.Thread):
    def __init__(self, server, tenant, model, request_class=None, **body):
        super().__init__()
        self.connection = server.connect(timeout=120)
        self.text, self.finish, self.error, self.begun = "", None, None, threading.Event()
        self.tokens = 0  # as their probabilities tell, where they were asked for
        self.arguments = ("POST", "/v1/completions", json.dumps(
            {"model": model, "prompt": "The old man", "max_tokens": 12, "temperature": 0, "stream": True, **body}),
            {"Authorization": "Bearer " + server.keys[tenant], "Content-Type": "application/json",
             **({"X-Request-Class": request_class} if request_class else {})})
        self.start()

    def run(self):
        self.connection.request(*self.arguments)
        response = self.connection.getresponse()
        self.status = response.status
        for line in response:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.error = chunk["error"]
                    continue
                self.begun.set()
                for choice in chunk["choices"]:
                    self.text += choice["text"]
                    self.tokens += len((choice["logprobs"] or {"tokens": []})["tokens"])
                    self.finish = choice["finish_reason"] or self.finish
        self.begun.set()


def replicas(server):
    return [(r["metadata"]["tenant"], r["status"]["level"])
            for r in json.loads(server.cli("get", "replicas", "-o", "json").stdout)["items"]]


def test_lent_models_answer_whom_they_are_lent_to(lent):
    own = text(lent, "acme", "novelist")
    assert text(lent, "bob", "novelist") == own
    assert len(replicas(lent)) == 1  # bob uses acme's
    assert text(lent, "eve", "novelist") == own
    assert sorted(level for _, level in replicas(lent)) == ["process", "shared"]
    assert ask(lent, "mallory", "novelist").status == 404
    assert listed(lent, "acme") == {"novelist", "scribe"}
    assert listed(lent, "bob") == listed(lent, "eve") == {"novelist", "cynic"}
    assert listed(lent, "mallory") == set()
    for tenant, status in (("bob", 200), ("mallory", 404)):
        for path in ("/v2/models/novelist", "/v2/models/novelist/ready"):
            assert lent.http("GET", path, lent.keys[tenant]).status == status


def seconds(stamp):
    return calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))


def test_cards_tell_when_and_whose(lent):
    def card(tenant, name):
        found = lent.http("GET", "/v1/models/" + name, lent.keys[tenant]).json
        listing = {m["id"]: m for m in lent.http("GET", "/v1/models", lent.keys[tenant]).json["data"]}
        assert found == {**listing[name.split(":")[-1]], "id": name}
        assert lent.http("GET", "/v1/models/" + name.replace(":", "%3A"), lent.keys[tenant]).json == found
        return found["created"], found["owned_by"]

    def version(tenant):
        found = json.loads(lent.cli("get", "versions", "--tenant", tenant, "-o", "json").stdout)["items"]
        return max((v["status"]["number"], seconds(v["status"]["created"])) for v in found)[1]

    first = version("acme")
    assert abs(first - time.time()) < 3600  # seconds, and not of another clock
    assert card("acme", "novelist") == (first, "acme")
    assert card("bob", "novelist") == card("eve", "novelist") == (first, "bulkhead")  # whose it is they never learn
    adapter = json.loads(lent.cli("get", "adapter", "cynic", "--tenant", "bob", "-o", "json").stdout)
    made = seconds(adapter["status"]["changed"])
    assert card("bob", "cynic") == card("bob", "novelist:cynic") == (made, "bob")
    wait_until(lambda: int(time.time()) > first, "a second to pass")
    lent.apply(model_yaml("novelist", "acme", str(MODELS / "novelist.gguf"), engine="llama", isolation=SHARED,
                          resources={"cpu": 1, "memory": "300Mi"}))
    second = version("acme")
    assert second > first
    assert card("acme", "novelist") == (second, "acme")
    assert card("bob", "novelist") == (second, "bulkhead")
    assert card("bob", "cynic") == (made, "bob")


def test_adapters_speak_for_their_owner_only(lent):
    base = text(lent, "bob", "novelist")
    cynic = text(lent, "bob", "cynic")
    assert cynic != base and text(lent, "bob", "novelist:cynic") == cynic
    scribe = text(lent, "acme", "scribe")
    assert text(lent, "acme", "scribe", max_tokens=60) != text(lent, "acme", "novelist", max_tokens=60)
    assert scribe[:HEAD] != cynic[:HEAD] != base[:HEAD]
    assert text(lent, "eve", "cynic") == cynic
    assert lent.http("POST", "/v2/models/cynic/generate", lent.keys["bob"],
                     {"text_input": "The old man", "max_tokens": 12, "temperature": 0}).json["text_output"] == cynic
    nothing = ask(lent, "acme", "nothing")
    for name in ("cynic", "novelist:cynic", "novelist:", ":cynic", "cynic:novelist", "novelist:cynic:x"):
        refused = ask(lent, "acme", name)
        assert refused.status == 404 and refused.body == nothing.body.replace(b"nothing", name.encode())
        assert lent.http("GET", f"/v1/models/{name}", lent.keys["acme"]).status == 404
    assert lent.http("GET", "/v1/models/cynic", lent.keys["bob"]).status == 200
    # all at once, in one batch and turn by turn, each says what it said alone
    streams = [Stream(lent, tenant, model) for tenant, model in
               (("acme", "scribe"), ("bob", "cynic"), ("bob", "novelist"), ("acme", "novelist"), ("bob", "cynic"))]
    for stream in streams:
        stream.join()
    assert [s.text[:HEAD] for s in streams] == [t[:HEAD] for t in (scribe, cynic, base, base, cynic)]
    assert all(s.finish for s in streams)


def test_hostile_grammars_cost_nobody_else(lent):
    """Each once ended the worker of all, by its stack or by taking longer than a lease lasts."""
    doubled = "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(40)) + 'r40 ::= "a"\nroot ::= r0'
    bodies = [{"grammar": "root ::= " + "(" * 30000 + '"a"' + ")" * 30000},
              {"grammar": doubled},
              {"grammar": "root ::= " + "a? " * 20000 + '\na ::= "x"'}]
    bodies += [{"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}} for schema in (
        {"type": "object", "properties": {"!" * 30000: {"type": "integer"}}},
        {"type": "string", "pattern": "^" + "a?" * 2000 + "$"},
        {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(1500)}})]
    text(lent, "bob", "novelist")
    before = [r["status"]["pid"] for r in json.loads(lent.cli("get", "replicas", "-o", "json").stdout)["items"]]
    speaking = Stream(lent, "acme", "novelist", max_tokens=1500, ignore_eos=True)
    assert speaking.begun.wait(60)
    for body in bodies:
        answer = ask(lent, "bob", "novelist", **body)
        assert answer.status == 400, answer.body
    speaking.join(120)
    assert speaking.finish == "length" and not speaking.error
    after = [r["status"]["pid"] for r in json.loads(lent.cli("get", "replicas", "-o", "json").stdout)["items"]]
    assert before == after and len(after) == 1


def test_the_least_recently_used_adapter_goes_but_not_under_a_sequence(lent):
    """A budget of one adapter: they alternate, and who needs the other waits for the one that speaks."""
    lent.apply(tenant_yaml("bob", quota={"adapterBytes": SIZE + 1000}) +
               adapter_yaml("second", "bob", "novelist", MODELS / "scribe.gguf"))
    cynic, second = text(lent, "bob", "cynic"), text(lent, "bob", "second")
    assert cynic != second
    for _ in range(3):
        assert text(lent, "bob", "cynic") == cynic and text(lent, "bob", "second") == second
    scribe = text(lent, "acme", "scribe")  # another tenant's budget is another
    long = Stream(lent, "bob", "cynic", max_tokens=200, ignore_eos=True)
    assert long.begun.wait(60)
    other = Stream(lent, "bob", "second")
    assert text(lent, "acme", "scribe")[:HEAD] == scribe[:HEAD]
    long.join()
    other.join()
    assert long.status == other.status == 200 and long.text[:HEAD] == cynic[:HEAD] and other.text[:HEAD] == second[:HEAD]
    late = ask(lent, "bob", "cynic", max_tokens=2)
    assert late.status == 200
    lent.apply(tenant_yaml("bob", quota={"adapterBytes": 1000}))
    refused = ask(lent, "bob", "second")
    assert refused.status == 503 and "than this tenant may have there" in str(refused.json)


def test_batch_gives_its_adapters_room_and_gets_it_back(lent):
    """A budget of one adapter, which batch streams use: an interactive request for another one has it before any of them
    is over, and they go on to the end that they have when nobody disturbs them."""
    lent.apply(tenant_yaml("bob", quota={"adapterBytes": SIZE + 1000}) +
               adapter_yaml("second", "bob", "novelist", MODELS / "scribe.gguf"))
    second = text(lent, "bob", "second", max_tokens=4)
    long = {"max_tokens": 300, "ignore_eos": True, "request_class": "batch"}
    alone = Stream(lent, "bob", "cynic", **long)
    alone.join()
    before = 0
    for _ in range(8):  # until the request has come in while all of them ran
        streams = [Stream(lent, "bob", "cynic", **long) for _ in range(4)]
        assert all(s.begun.wait(60) for s in streams)
        assert text(lent, "bob", "second", max_tokens=4)[:HEAD] == second[:HEAD]
        before += all(s.finish is None for s in streams)
        for stream in streams:
            stream.join()
            assert (stream.status, stream.finish, stream.error) == (200, "length", None)
            assert stream.text[:HEAD] == alone.text[:HEAD]
        if before:
            break
    assert before > 0


def shown(server, kind, *args):
    found = json.loads(server.cli("get", kind, *args, "-o", "json").stdout)
    return found.get("items", found)


def test_where_adapters_are_is_shown(lent):
    def where(tenant, name):
        status = shown(lent, "adapter", name, "--tenant", tenant)["status"]
        assert status["replicas"] == len(status["loaded"])
        return [(r["replica"], r["bytes"], r["sequences"]) for r in status["loaded"]]

    def inside():
        return {(a["tenant"], a["name"], a["bytes"], a["sequences"], r["metadata"]["name"])
                for r in shown(lent, "replicas") for a in r["status"].get("adapters", [])}

    def used(tenant):
        return shown(lent, "tenant", tenant)["status"]["quota"].get("adapterBytes")

    lent.apply(tenant_yaml("bob", quota={"adapterBytes": 3 * SIZE}))
    assert where("bob", "cynic") == [] and inside() == set() and used("bob") == {"limit": 3 * SIZE, "used": 0}
    text(lent, "bob", "cynic")
    text(lent, "acme", "scribe")
    (replica,) = [r["metadata"]["name"] for r in shown(lent, "replicas")]
    wait_until(lambda: inside() == {("bob", "cynic", SIZE, 0, replica), ("acme", "scribe", SIZE, 0, replica)}, "both")
    assert where("bob", "cynic") == where("acme", "scribe") == [(replica, SIZE, 0)] and where("eve", "cynic") == []
    assert used("bob") == {"limit": 3 * SIZE, "used": SIZE} and used("acme") is None
    text(lent, "eve", "cynic")  # in a replica of its own
    wait_until(lambda: len(where("eve", "cynic")) == 1, "eve's")
    assert where("eve", "cynic")[0][0] != replica and used("bob")["used"] == SIZE
    rows = {tuple(line.split()[:2]): line.split() for line in lent.cli("get", "adapters").stdout.splitlines()}
    assert rows["bob", "cynic"][6] == "1"
    # in use while streams of it run, however many come before it is seen
    streams = []
    while where("bob", "cynic") == [(replica, SIZE, 0)]:
        streams = [s for s in streams if s.is_alive()] + [Stream(lent, "bob", "cynic", max_tokens=300, ignore_eos=True)]
    for stream in streams:
        stream.join()
    wait_until(lambda: where("bob", "cynic") == [(replica, SIZE, 0)], "it to rest")
    os.kill(lent.pid("control"), signal.SIGKILL)

    def known():
        try:
            return (replica, SIZE, 0) in where("bob", "cynic")
        except AssertionError:  # there is no control just now
            return False
    wait_until(known, "a new control to know")
    lent.apply(tenant_yaml("bob", quota={"adapterBytes": 1000}))
    assert ask(lent, "bob", "cynic").status in (200, 503)  # one that is there stays until others need its room
    os.kill(lent.pid("gateway"), signal.SIGKILL)
    wait_until(lambda: inside() == set() and where("acme", "scribe") == [], "all to be gone with the gateway")
    assert used("bob")["used"] == 0


def test_quotas_are_of_who_asks(lent):
    """Key and tenant, for a lent model and an adapter, in the owner's replica and in one of the borrower's own."""
    lent.apply(tenant_yaml("bob", quota={"perKey": {"tokensPerDay": 40}}) +
               tenant_yaml("eve", isolation={"minimum": "process"}, quota={"tokensPerDay": 30}) +
               tenant_yaml("acme", quota={"tokensPerDay": 1000}))
    assert ask(lent, "bob", "cynic", max_tokens=500, ignore_eos=True).json["usage"]["total_tokens"] == 40
    for model in ("cynic", "novelist", "novelist:cynic"):
        refused = ask(lent, "bob", model)
        assert refused.status == 429 and b"spec.quota.perKey.tokensPerDay" in refused.body
        assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    lent.keys["bob"] = lent.key("bob", "other")
    assert ask(lent, "bob", "cynic", max_tokens=2).status == 200
    assert ask(lent, "eve", "cynic", max_tokens=500, ignore_eos=True).json["usage"]["total_tokens"] == 30
    assert ask(lent, "eve", "novelist").status == 429
    mine = ask(lent, "acme", "novelist", max_tokens=3)
    assert mine.status == 200 and int(mine.headers["x-ratelimit-remaining-tokens"]) == 1000 - mine.json["usage"]["total_tokens"]
    lent.apply(tenant_yaml("acme", quota={"tokensPerDay": 1}))
    assert ask(lent, "acme", "novelist").status == 429
    assert ask(lent, "bob", "novelist", max_tokens=2).status == 200  # the lender's is the lender's


def test_adapters_come_back_after_a_loss(lent):
    cynic = text(lent, "bob", "cynic")
    for pid in lent.workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ask(lent, "bob", "cynic").status == 200, "a new worker to have the adapter")
    assert text(lent, "bob", "cynic") == cynic
    os.kill(lent.pid("gateway"), signal.SIGKILL)

    def again():
        try:
            return ask(lent, "bob", "cynic").status == 200
        except OSError:
            return False
    wait_until(again, "a new gateway to have the adapter loaded")
    assert text(lent, "bob", "cynic") == cynic
    os.kill(lent.pid("control"), signal.SIGKILL)
    wait_until(lambda: text(lent, "acme", "scribe"), "an adapter through a new control")


def test_what_is_taken_back_is_gone(lent):
    """A running stream ends as it would have; nothing new begins, by any name."""
    lent.apply(adapter_yaml("second", "bob", "novelist", MODELS / "scribe.gguf"))
    text(lent, "bob", "cynic")
    running = Stream(lent, "bob", "cynic", max_tokens=300, ignore_eos=True)
    assert running.begun.wait(60)
    lent.cli("delete", "grant", "lend", "--tenant", "acme")
    for name in ("novelist", "cynic", "novelist:cynic", "second"):
        assert ask(lent, "bob", name).status == 404
    assert listed(lent, "bob") == listed(lent, "eve") == set()
    running.join()
    assert running.status == 200 and running.finish in ("length", "stop") and running.error is None
    lent.apply(grant_yaml("lend", "acme", "novelist", ["bob"]))
    lent.cli("delete", "adapter", "cynic", "--tenant", "bob")
    assert ask(lent, "bob", "cynic").status == 404
    before = text(lent, "bob", "second")
    lent.apply(adapter_yaml("second", "bob", "novelist", MODELS / "cynic.gguf"))
    assert text(lent, "bob", "second") != before


def test_a_shared_batch_is_as_good_as_turns(lent):
    base = text(lent, "acme", "novelist")
    lent.cli("delete", "grant", "lend", "--tenant", "acme")
    lent.apply(grant_yaml("lend", "acme", "novelist", ["bob"], sharedBatch=True))
    streams = [Stream(lent, tenant, "novelist") for tenant in ("acme", "bob", "acme", "bob")]
    for stream in streams:
        stream.join()
    assert [s.text[:HEAD] for s in streams] == [base[:HEAD]] * 4
