"""Adapters: opened with their base before they are taken, refused where they do not fit, shown, replaced and deleted."""
import json
import os
import subprocess
import sys

import pytest

from conftest import BUILD, ROOT, model_yaml, tenant_yaml, wait_until
from test_grants import SHARED, grant_yaml

sys.path.insert(0, str(ROOT / "test/tools"))

import gguf_hostile  # noqa: E402  (behind the path that finds it)

MODELS = ROOT / "examples/models"
HOSTILE_STEP = 1 if os.environ.get("BULKHEAD_SOAK") else 20


def adapter_yaml(name, tenant, base, source):
    return json.dumps({"apiVersion": "bulkhead.dev/v1alpha1", "kind": "Adapter", "metadata": {"name": name, "tenant": tenant},
                       "spec": {"base": base, "source": str(source)}}) + "\n---\n"


@pytest.fixture
def lent(server):
    server.apply(tenant_yaml("acme") + tenant_yaml("bob") + tenant_yaml("eve", isolation={"minimum": "process"}) +
                 model_yaml("novelist", "acme", str(MODELS / "novelist.gguf"), engine="llama", isolation=SHARED) +
                 grant_yaml("lend", "acme", "novelist", ["bob", "eve"]))
    return server


def adapters(server, *args):
    return {(a["metadata"]["tenant"], a["metadata"]["name"]): a
            for a in json.loads(server.cli("get", "adapters", *args, "-o", "json").stdout)["items"]}


def opened(server, event="adapter_opened"):
    return len([line for line in server.log if line["event"] == event])


def test_adapters_of_owner_and_borrower(lent):
    result = lent.apply(adapter_yaml("scribe", "acme", "novelist", MODELS / "scribe.gguf") +
                        adapter_yaml("cynic", "bob", "novelist", MODELS / "cynic.gguf"))
    assert result.stdout == "Adapter acme/scribe created\nAdapter bob/cynic created\n"
    assert opened(lent) == 2
    for tenant, name in (("acme", "scribe"), ("bob", "cynic")):  # whose it is, not whose its base
        lent.wait_log("adapter_opened", contains=f"tenant={tenant} model=novelist adapter={name} ")
    shown = adapters(lent)
    assert set(shown) == {("acme", "scribe"), ("bob", "cynic")}
    assert all(a["status"]["usable"] and a["status"]["bytes"] == 276384 for a in shown.values())
    assert set(adapters(lent, "--tenant", "bob")) == {("bob", "cynic")}
    table = lent.cli("get", "adapters").stdout.splitlines()
    assert table[0].split() == ["TENANT", "NAME", "BASE", "BYTES", "DIGEST", "USABLE", "REPLICAS", "AGE"]
    document = lent.cli("get", "adapter", "cynic", "--tenant", "bob", "-o", "yaml").stdout
    assert "unchanged" in lent.apply(document).stdout
    assert opened(lent) == 2

    changed = lent.apply(adapter_yaml("cynic", "bob", "novelist", MODELS / "scribe.gguf"))
    assert "Adapter bob/cynic changed" in changed.stdout and opened(lent) == 2  # known to fit
    assert adapters(lent)["bob", "cynic"]["status"]["digest"] == shown["acme", "scribe"]["status"]["digest"]


def test_what_is_no_adapter_of_this_base_is_refused(lent, folder):
    """Each is opened by a process of its own with the base, and its words come back; nothing stays of it."""
    good = (MODELS / "scribe.gguf").read_bytes()
    files = {"garbage": b"this is no adapter", "cut": good[:-3000], "header": good[:700],
             "model": (MODELS / "novelist.gguf").read_bytes(), "other": good.replace(b"llama", b"lla_a")}
    stored = {path.name for path in (lent.data / "store/artifacts").iterdir()}
    for name, data in files.items():
        (folder / "bad.gguf").write_bytes(data)
        result = lent.apply(adapter_yaml("bad", "bob", "novelist", "bad.gguf"), check=False)
        assert result.returncode == 1, name
        assert "Adapter bob/bad: spec.source: engine llama cannot use it with Model acme/novelist, version 1: " in result.stderr, \
            (name, result.stderr)
        assert str(lent.data) not in result.stderr and "/proc/" not in result.stderr
    assert adapters(lent) == {}
    wait_until(lambda: {path.name for path in (lent.data / "store/artifacts").iterdir()} == stored, "refused artifacts to be gone")
    lent.apply(adapter_yaml("good", "bob", "novelist", MODELS / "scribe.gguf"))


def test_references_and_names(lent):
    def refused(yaml, words):
        result = lent.apply(yaml, check=False)
        assert result.returncode == 1 and words in result.stderr, result.stderr
    scribe = MODELS / "scribe.gguf"
    refused(adapter_yaml("a", "bob", "nothing", scribe), "Adapter bob/a: spec.base: Tenant bob has no Model nothing, and is lent none")
    refused(adapter_yaml("novelist", "bob", "novelist", scribe), "Tenant bob is lent a model of this name, by Grant acme/lend")
    refused(adapter_yaml("novelist", "acme", "novelist", scribe), "Tenant acme has a Model of this name")
    refused(adapter_yaml("a", "bob", "novelist", "nowhere.gguf"), "No such file")
    lent.apply(tenant_yaml("mallory"))
    refused(adapter_yaml("a", "mallory", "novelist", scribe), "Tenant mallory has no Model novelist, and is lent none")
    refused(tenant_yaml("bob", quota={"artifactBytes": 1000}) + adapter_yaml("a", "bob", "novelist", scribe),
            "spec.quota.artifactBytes")


def test_a_base_that_its_adapters_do_not_fit_is_refused(lent, folder):
    """A new content of the base is opened with each adapter that rests on it, a borrower's too."""
    tiny = folder / "tiny.gguf"
    subprocess.run([BUILD / "test/unit/engine/gguf_tiny", tiny, "1"], check=True)
    lent.apply(adapter_yaml("cynic", "bob", "novelist", MODELS / "cynic.gguf"))
    result = lent.apply(model_yaml("novelist", "acme", str(tiny), engine="llama", isolation=SHARED), check=False)
    assert result.returncode == 1
    assert "Adapter bob/cynic: spec.source: engine llama cannot use it with Model acme/novelist, version 2: " in result.stderr
    (model,) = json.loads(lent.cli("get", "models", "-o", "json").stdout)["items"]
    assert model["status"]["version"] == 1 and adapters(lent)["bob", "cynic"]["status"]["usable"]
    lent.cli("delete", "adapter", "cynic", "--tenant", "bob")
    assert "version 2" in lent.apply(model_yaml("novelist", "acme", str(tiny), engine="llama", isolation=SHARED)).stdout


def test_deletes(lent):
    def delete(*args):
        return lent.cli("delete", *args, check=False)
    lent.apply(adapter_yaml("scribe", "acme", "novelist", MODELS / "scribe.gguf") +
               adapter_yaml("cynic", "bob", "novelist", MODELS / "cynic.gguf"))
    assert delete("grant", "lend", "--tenant", "acme").returncode == 0
    status = adapters(lent)["bob", "cynic"]["status"]
    assert not status["usable"] and status["reason"] == "its base is not there, or no longer lent to this tenant"
    assert "is the base of Adapter acme/scribe; delete that first" in delete("model", "novelist", "--tenant", "acme").stderr
    assert "still has adapters (cynic, for one)" in delete("tenant", "bob").stderr
    lent.apply(grant_yaml("lend", "acme", "novelist", ["bob"]))
    assert adapters(lent)["bob", "cynic"]["status"]["usable"]
    lent.stop()
    lent.start()
    assert adapters(lent)["bob", "cynic"]["status"]["usable"]
    assert delete("adapter", "cynic", "--tenant", "bob").stdout == "Adapter bob/cynic deleted\n"
    assert delete("adapter", "cynic", "--tenant", "bob").returncode == 1


def test_hostile_adapters_are_refused_and_cost_nobody_else(server, folder):
    """What bends an adapter's file is refused in words, or ends the process that opened it; the server and what is stored stay."""
    (folder / "base.gguf").write_bytes(dict(gguf_hostile.models())["valid"])
    files = [(name, data) for name, data in gguf_hostile.adapters() if not name.startswith("odd-") and name != "valid"]
    (folder / "good.gguf").write_bytes(dict(gguf_hostile.adapters())["valid"])
    server.apply(tenant_yaml("acme") + tenant_yaml("bob") + model_yaml("base", "acme", "base.gguf", engine="llama", isolation=SHARED) +
                 grant_yaml("lend", "acme", "base", ["bob"]) + adapter_yaml("good", "acme", "base", "good.gguf"), cwd=folder)
    stored = sorted(path.name for path in (server.data / "store/artifacts").iterdir())
    for name, data in files[::HOSTILE_STEP]:
        (folder / "bad.gguf").write_bytes(data)
        result = server.apply(adapter_yaml("bad", "bob", "base", "bad.gguf"), check=False, cwd=folder)
        assert result.returncode == 1 and "Adapter bob/bad: spec.source: " in result.stderr, (name, result.stderr)
        assert str(server.data) not in result.stderr and "/proc/" not in result.stderr, (name, result.stderr)
    assert set(adapters(server)) == {("acme", "good")} and adapters(server)["acme", "good"]["status"]["usable"]
    wait_until(lambda: sorted(path.name for path in (server.data / "store/artifacts").iterdir()) == stored, "refused artifacts to be gone")
    assert server.pid("control") and server.pid("gateway")
    print(f"\n{len(files[::HOSTILE_STEP])} hostile adapters refused")
