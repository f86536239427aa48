"""Models that are lent: what apply takes and refuses, what is shown, and what a delete takes away."""
import json
import os
import signal
import subprocess

import pytest

from conftest import BUILD, IDENTITY, model_yaml, tenant_yaml, wait_until

SHARED = {"level": "shared"}


@pytest.fixture
def tiny(folder):
    path = folder / "tiny.gguf"
    subprocess.run([BUILD / "test/unit/engine/gguf_tiny", path, "1"], check=True)
    return path


def grant_yaml(name, tenant, model, tenants, **spec):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Grant", "metadata": {"name": name, "tenant": tenant},
                       "spec": {"model": model, "tenants": tenants, **spec}}) + "\n---\n"


@pytest.fixture
def lent(server, tiny):
    server.apply(tenant_yaml("acme") + tenant_yaml("bob") + tenant_yaml("eve", isolation={"minimum": "process"}) +
                 model_yaml("base", "acme", str(tiny), engine="llama", isolation=SHARED))
    server.apply(grant_yaml("lend", "acme", "base", ["bob", "eve"]))
    return server


def explain(server, tenant):
    return json.loads(server.cli("explain", "model", "base", "--tenant", tenant, "-o", "json").stdout)


def ask(server, key):
    return server.http("POST", "/v1/completions", key, {"model": "base", "prompt": "x", "max_tokens": 2, "temperature": 0})


def test_a_language_model_at_level_shared_is_a_process_of_its_own(lent):
    assert ask(lent, lent.key("acme")).status == 200
    (replica,) = json.loads(lent.cli("get", "replicas", "-o", "json").stdout)["items"]
    assert replica["status"]["level"] == "shared"
    assert replica["status"]["wall"].startswith("shared, a process for all tenants of this model: process")
    shown = explain(lent, "acme")
    assert shown["measured"] and "lender" not in shown
    assert shown["replicas"][0]["besides"] == {"replicas": 0, "tenants": 1}  # bob; eve has its own


def test_what_is_lent_is_shown(lent):
    items = json.loads(lent.cli("get", "grants", "-o", "json").stdout)["items"]
    assert [(g["metadata"]["tenant"], g["metadata"]["name"], g["spec"]) for g in items] == [
        ("acme", "lend", {"model": "base", "tenants": ["bob", "eve"], "sharedBatch": False})]
    table = lent.cli("get", "grants").stdout.splitlines()
    assert table[0].split() == ["TENANT", "NAME", "MODEL", "TENANTS", "SHARED", "BATCH", "AGE"]
    assert table[1].split()[:5] == ["acme", "lend", "base", "bob,eve", "false"]
    assert lent.cli("get", "grants", "--tenant", "bob").stdout == ""
    bob, eve = explain(lent, "bob"), explain(lent, "eve")
    assert (bob["level"], bob["lender"], bob["servedBy"]) == ("shared", "acme", "the lender's replicas")
    assert (eve["level"], eve["lender"], eve["servedBy"]) == ("process", "acme", "replicas of its own")
    assert "Lent by acme, served by replicas of its own." in lent.cli("explain", "model", "base", "--tenant", "eve").stdout
    document_of = lent.cli("get", "grant", "lend", "--tenant", "acme", "-o", "yaml").stdout
    assert "unchanged" in lent.apply(document_of).stdout


def test_what_cannot_be_lent_is_refused(lent, folder):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))

    def refused(yaml, words):
        result = lent.apply(yaml, check=False)
        assert result.returncode == 1 and words in result.stderr, result.stderr
    refused(grant_yaml("g", "acme", "none", ["bob"]), "Grant acme/g: spec.model: Tenant acme has no Model none")
    refused(grant_yaml("g", "acme", "base", ["nobody"]), "there is no Tenant nobody")
    refused(grant_yaml("g", "acme", "base", ["acme"]), "acme is whose model it is")
    refused(grant_yaml("g", "acme", "base", []), "spec.tenants: at least 1, found 0")
    refused(grant_yaml("g", "acme", "base", ["bob"]), "Tenant bob is lent a model base already, by Grant acme/lend")
    refused(grant_yaml("g", "bob", "base", ["eve"]), "Tenant bob has no Model base")
    refused(model_yaml("base", "bob", "echo.json"), "Tenant bob is lent a model of this name, by Grant acme/lend")
    lent.apply(model_yaml("echo", "acme", "echo.json"))
    refused(grant_yaml("g", "acme", "echo", ["bob"]), "only language models (engine llama) can be lent")
    refused(tenant_yaml("acme", isolation={"minimum": "process"}), "is above Model acme/base's isolation.level")


def test_deletes_ask_for_the_grant_first(lent):
    def delete(*args):
        return lent.cli("delete", *args, check=False)
    refused = delete("model", "base", "--tenant", "acme")
    assert refused.returncode == 1 and "is lent to others by Grant acme/lend; delete that first" in refused.stderr
    refused = delete("tenant", "bob")
    assert refused.returncode == 1 and "Tenant bob is lent a model by Grant acme/lend" in refused.stderr
    assert "needs --tenant T" in delete("grant", "lend").stderr
    assert delete("grant", "lend", "--tenant", "acme").stdout == "Grant acme/lend deleted\n"
    gone = lent.cli("explain", "model", "base", "--tenant", "bob", check=False)
    assert gone.returncode == 1 and "there is no Model bob/base" in gone.stderr
    assert delete("tenant", "bob").returncode == 0
    assert delete("model", "base", "--tenant", "acme").returncode == 0


def replicas(server):
    return [(r["metadata"]["tenant"], r["status"]["level"], r["status"]["state"])
            for r in json.loads(server.cli("get", "replicas", "-o", "json").stdout)["items"]]


def test_who_serves_whom(lent):
    """bob is served by the owner's replica, eve, who demands more, by one of her own; a loan that is taken back ends that."""
    keys = {tenant: lent.key(tenant) for tenant in ("acme", "bob", "eve")}
    answers = [ask(lent, keys[tenant]) for tenant in ("bob", "acme", "eve")]
    assert [a.status for a in answers] == [200] * 3, [a.body for a in answers]
    assert len({a.json["choices"][0]["text"] for a in answers}) == 1
    assert sorted(replicas(lent)) == [("acme", "shared", "ready"), ("eve", "process", "ready")]
    shown = explain(lent, "eve")
    assert shown["measured"] and len(shown["replicas"]) == 1 and "besides" not in shown["replicas"][0]
    assert explain(lent, "bob")["replicas"][0]["besides"] == {"replicas": 0, "tenants": 1}  # acme

    lent.apply(grant_yaml("lend", "acme", "base", ["bob"]))
    assert ask(lent, keys["eve"]).status == 404
    wait_until(lambda: sorted(replicas(lent)) == [("acme", "shared", "ready")], "eve's replica to end")
    assert ask(lent, keys["bob"]).status == 200
    lent.cli("delete", "grant", "lend", "--tenant", "acme")
    assert ask(lent, keys["bob"]).status == 404 and ask(lent, keys["acme"]).status == 200


def test_another_control_knows_whose_replicas_run(lent):
    """A control process that starts anew finds borrowers' replicas, and still takes them away with their loan."""
    keys = {tenant: lent.key(tenant) for tenant in ("acme", "eve")}
    assert ask(lent, keys["acme"]).status == 200 and ask(lent, keys["eve"]).status == 200
    before, running = lent.pid("control"), sorted(replicas(lent))
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: lent.pid("control") not in (None, before), "another control process")
    wait_until(lambda: lent.cli("status", check=False).returncode == 0 and len(replicas(lent)) == 2, "its socket")
    assert [r[:2] for r in sorted(replicas(lent))] == [r[:2] for r in running]
    assert ask(lent, keys["acme"]).status == 200 and ask(lent, keys["eve"]).status == 200
    lent.apply(grant_yaml("lend", "acme", "base", ["bob"]))
    wait_until(lambda: [r[0] for r in replicas(lent)] == ["acme"], "eve's replica to end")
    assert ask(lent, keys["acme"]).status == 200 and ask(lent, keys["eve"]).status == 404


def test_borrowers_pay_for_their_own_replicas(lent):
    """The lender's quota is the lender's; a borrower's own replica counts among the borrower's."""
    lent.apply(tenant_yaml("acme", quota={"replicas": 1}) +
               tenant_yaml("eve", isolation={"minimum": "process"}, quota={"memory": "16Mi"}))
    refused = ask(lent, lent.key("eve"))
    assert refused.status == 503 and b"spec.quota.memory" in refused.body
    assert replicas(lent) == []
    assert ask(lent, lent.key("acme")).status == 200
    lent.apply(tenant_yaml("eve", isolation={"minimum": "process"}, quota={"replicas": 1}))
    wait_until(lambda: ask(lent, lent.key("eve")).status == 200, "eve to be served")


def test_lent_models_are_nobody_elses_over_http(lent):
    """The names of lender, Grant and other borrowers never reach a tenant; who is lent nothing learns nothing."""
    lent.apply(tenant_yaml("mallory"))
    key = lent.key("mallory")
    assert ask(lent, key).status == 404
    listed = lent.http("GET", "/v1/models", key)
    assert listed.status == 200 and "base" not in str(listed.json)
    wait_until(lambda: ask(lent, lent.key("acme")).status == 200, "the owner to be served")


def models_mapped(pid):
    """inodes of the memory that a worker has its model in."""
    with open(f"/proc/{pid}/maps") as maps:
        return {line.split()[4] for line in maps if "memfd:artifact" in line}


def test_replicas_of_a_version_have_the_model_in_the_same_memory(server, tiny):
    """Weights are there once, however many replicas of the version run, for whomever; another model's are its own."""
    server.apply(tenant_yaml("acme") + model_yaml("base", "acme", str(tiny), engine="llama", replicas={"min": 2, "max": 2}) +
                 model_yaml("same", "acme", str(tiny), engine="llama", replicas={"min": 1}))

    def ready(model):
        replicas = json.loads(server.cli("get", "replicas", "-o", "json").stdout)["items"]
        return [r["status"]["pid"] for r in replicas if r["status"]["model"] == model and r["status"]["state"] == "ready"]
    wait_until(lambda: len(ready("base")) == 2 and len(ready("same")) == 1, "replicas to be ready")
    first, second = (models_mapped(pid) for pid in ready("base"))
    assert len(first) == 1 and first == second
    (same,) = ready("same")
    assert models_mapped(same) and models_mapped(same) != first
