"""Who gets the device: classes, weights of tenants and models, devices, pre-emption; and the views of it.

Nothing here asserts a time: shares are ratios of what the server itself has counted, with a margin for a machine that does other
things too; the bench has the tight ones."""
import json
import threading

import pytest
from conftest import CEILING_S, IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from test_fairness import ask, gateway, give, gone, metric, running, send


def device(server, name="cpu"):
    return json.loads(server.cli("get", "device", name, "-o", "json").stdout)


def one_slot(make_server, *args, **spec):
    """A device with one slot, whatever this machine has."""
    return make_server(*args, config=json.dumps({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
        "spec": {"devices": [{"name": "cpu", "slots": 1}], **spec}}))


class Load:
    """Closed-loop clients, each on its connection, until stop()."""

    def __init__(self, server, key, clients, model="m", headers=None):
        self.server, self.key, self.model, self.headers = server, key, model, headers
        self.statuses, self.ending = [], threading.Event()
        self.threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for t in self.threads:
            t.start()

    def _client(self):
        connection = self.server.connect()
        while not self.ending.is_set():
            self.statuses.append(ask(self.server, self.key, self.model, self.headers, connection).status)
        connection.close()

    def stop(self):
        self.ending.set()
        for t in self.threads:
            t.join(CEILING_S)
        return self.statuses


def served(server):
    """tenant -> seconds of leases that ended, as the gateway measured them."""
    rows = json.loads(admin(server, "/v1alpha1/top"))["rows"]
    sums = {}
    for row in rows:
        sums[row["tenant"], row["model"]] = row["servedNs"] / 1e9
    return sums


def admin(server, path):
    from test_metrics import admin_http
    answer = admin_http(server, path=path)
    assert answer.status == 200, answer.body
    return answer.body


def grown(server, before, seconds):
    """What was served since, once it is so many seconds in all."""
    def look():
        now = served(server)
        delta = {k: v - before.get(k, 0) for k, v in now.items()}
        return delta if sum(delta.values()) >= seconds else None
    return wait_until(look, f"{seconds} s of leases", 4 * CEILING_S)


# --- shares ---

def test_two_tenants_share_time_by_weight_not_requests(make_server, folder):
    """One tenant's model costs twenty times the other's; weight 3 against 1."""
    server = one_slot(make_server)
    dear = give(server, folder, busy="20ms", tenant="dear", spec={"weight": 1}, batching={"maxSize": 1})
    cheap = give(server, folder, busy="1ms", tenant="cheap", spec={"weight": 3}, batching={"maxSize": 1})
    loads = [Load(server, dear, 8), Load(server, cheap, 8)]
    try:
        grown(server, served(server), 1)  # both are running
        before = served(server)
        delta = grown(server, before, 6)
    finally:
        statuses = [set(load.stop()) for load in loads]
    assert statuses == [{200}, {200}]
    share = delta["cheap", "m"] / sum(delta.values())
    assert 0.65 < share < 0.85, delta  # 0.75, by time


def test_a_tenants_models_share_its_weight(make_server, folder):
    """Two models at 1:3 against another tenant with one model, equal weights: 1/8, 3/8, 1/2."""
    server = one_slot(make_server)
    key = give(server, folder, busy="4ms", model="small", weight=1, batching={"maxSize": 1})
    give(server, folder, key=False, busy="4ms", model="large", weight=3, batching={"maxSize": 1})
    other = give(server, folder, busy="4ms", tenant="other", batching={"maxSize": 1})
    loads = [Load(server, key, 4, "small"), Load(server, key, 4, "large"), Load(server, other, 4)]
    try:
        grown(server, served(server), 1)
        delta = grown(server, served(server), 5)
    finally:
        for load in loads:
            assert set(load.stop()) == {200}
    total = sum(delta.values())
    assert 0.40 < delta["other", "m"] / total < 0.60, delta
    assert 0.60 < delta["acme", "large"] / (delta["acme", "large"] + delta["acme", "small"]) < 0.88, delta


# --- classes ---

def test_a_class_that_the_tenant_may_not_use_is_refused(server, folder):
    """Whatever the request says, and however it says it."""
    key = give(server, folder)
    critical = give(server, folder, tenant="vital", spec={"classes": ["critical"]})
    for wish in ({"headers": {"X-Request-Class": "critical"}}, {"parameters": {"priority": 1}},
                 {"headers": {"X-Request-Class": "critical"}, "parameters": {"priority": 3}}):
        answer = ask(server, key, **wish)
        assert (answer.status, answer.code) == (403, "forbidden"), wish
        assert "critical" in answer.json["error"]
        assert ask(server, critical, **wish).status == 200
    assert ask(server, critical, headers={"X-Request-Class": "batch"}).status == 403
    for wish in ({"headers": {"X-Request-Class": "batch"}}, {"parameters": {"priority": 2}}, {"parameters": {"priority": 900}},
                 {"parameters": {"priority": 0}}, {}):
        assert ask(server, key, **wish).status == 200, wish
    for value in ("", "Critical", "batch,critical", "urgent"):
        answer = ask(server, key, headers={"X-Request-Class": value})
        assert (answer.status, answer.code) == (400, "invalid_request"), value
    assert ask(server, critical).status == 200  # no wish: what the tenant may use


def test_a_models_class_must_be_its_tenants(server, folder):
    (folder / "m.json").write_text(json.dumps(IDENTITY))
    refused = server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "m.json", **{"class": "critical"}), check=False)
    assert refused.returncode == 1 and "spec.class" in refused.stderr and "critical" in refused.stderr
    server.apply(tenant_yaml("acme", classes=["critical", "batch"]) + model_yaml("m", "acme", "m.json", **{"class": "critical"}))
    key = server.key("acme")
    assert ask(server, key).status == 200
    server.apply(tenant_yaml("acme", classes=["batch"]))  # the next lower class then
    assert ask(server, key).status == 200
    assert ask(server, key, headers={"X-Request-Class": "interactive"}).status == 403


def test_critical_preempts_a_long_batch_which_is_run_again(make_server, folder):
    """The running lease of the lower class is given up, re-queued once and answered; its lost time is the system's."""
    server = one_slot(make_server)
    slow = give(server, folder, busy="6s", tenant="slow", batching={"maxSize": 1})
    vital = give(server, folder, busy="1ms", tenant="vital", spec={"classes": ["critical"]}, batching={"maxSize": 1})
    assert ask(server, vital).status == 200  # its replica is there
    holder = send(server, slow)
    running(server)
    assert ask(server, vital).status == 200
    assert device(server)["status"]["seconds"]["tenants"] < 6  # it was not waited for
    wait_until(lambda: device(server)["status"]["seconds"]["system"] > 0, "the lost time to be the system's")
    lost = device(server)["status"]["seconds"]["system"]
    running(server)  # the long one again: it is not given up a second time
    assert ask(server, vital).status == 200
    assert holder.recv(12) == b"HTTP/1.1 200"
    holder.close()
    wait_until(lambda: server.status()["device"]["used"] == 0, "the device to be free")
    assert device(server)["status"]["seconds"]["system"] == lost
    assert gone(server, "slow") == 0


def test_a_client_may_leave_while_its_lease_is_preempted(make_server, folder):
    server = one_slot(make_server)
    slow = give(server, folder, busy="6s", tenant="slow", batching={"maxSize": 1})
    vital = give(server, folder, busy="20ms", tenant="vital", spec={"classes": ["critical"]}, batching={"maxSize": 1})
    assert ask(server, vital).status == 200
    load = Load(server, vital, 2)
    for _ in range(5):
        holder = send(server, slow)
        wait_until(lambda: gateway(server)["queued"] + server.status()["device"]["used"], "something to do")
        holder.close()
    assert set(load.stop()) == {200}
    wait_until(lambda: gone(server, "slow") == 5 and server.status()["device"]["used"] == 0, "all to be gone")
    assert gateway(server)["queued"] == 0


def test_lower_classes_keep_their_share_under_critical_load(make_server, folder):
    server = one_slot(make_server, classes={"interactive": 10, "batch": 10})
    vital = give(server, folder, busy="5ms", tenant="vital", spec={"classes": ["critical"]}, batching={"maxSize": 1})
    batch = give(server, folder, busy="5ms", tenant="mass", batching={"maxSize": 1})
    loads = [Load(server, vital, 6), Load(server, batch, 6, headers={"X-Request-Class": "batch"})]
    try:
        grown(server, served(server), 1)
        delta = grown(server, served(server), 5)
    finally:
        statuses = [set(load.stop()) for load in loads]
    assert statuses == [{200}, {200}]
    share = delta["mass", "m"] / sum(delta.values())
    assert 0.05 < share < 0.35, delta


# --- devices ---

def test_devices_are_declared_and_found(make_server, folder):
    server = one_slot(make_server, devices=[{"name": "npu", "slots": 2}])
    rows = server.cli("get", "devices").stdout.splitlines()
    assert rows[0].split()[:4] == ["NAME", "SLOTS", "USED", "QUEUED"]
    assert [r.split()[0] for r in rows[1:]] == ["cpu", "npu"] and rows[2].split()[1] == "2"
    key = give(server, folder, busy="500ms", resources={"device": "npu"}, batching={"maxSize": 1}, replicas={"max": 3})
    other = give(server, folder, tenant="other")
    load = Load(server, key, 3)  # each asks again at once: one more than there are slots
    try:
        wait_until(lambda: npu(server, "used", "queued") == (2, 1), "both slots of the npu to be used, and one to wait")
        assert ask(server, other).status == 200  # another device: nothing to do with it
        wait_until(lambda: device(server)["status"]["used"] == 0, "the page to show that it is over")
        wait_until(lambda: npu(server, "used", "queued") == (2, 1), "the npu still to be at work")
    finally:
        statuses = load.stop()
    assert set(statuses) == {200}
    seconds = 0.49 * len(statuses)
    wait_until(lambda: npu(server, "used", "queued") == (0, 0), "the last lease to end")
    wait_until(lambda: metric(server, "bulkhead_device_seconds_total", device="npu", use="tenants") > seconds,
               "the last lease to be counted")  # the page is written four times a second
    assert device(server, "npu")["status"]["seconds"]["tenants"] > seconds


def npu(server, *members):
    status = device(server, "npu")["status"]
    return tuple(status[m] for m in members)


def test_a_device_that_is_not_there(make_server, folder):
    server = one_slot(make_server)
    (folder / "m.json").write_text(json.dumps(IDENTITY))
    refused = server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "m.json", resources={"device": "gpu"}), check=False)
    assert refused.returncode == 1 and 'no device "gpu"' in refused.stderr
    unknown = server.cli("get", "device", "gpu", check=False)
    assert unknown.returncode == 1 and "no Device gpu" in unknown.stderr


@pytest.mark.parametrize("devices,words", [
    ([{"name": "CPU", "slots": 1}], "is no name"), ([{"name": "cpu"}], "name and slots"),
    ([{"name": "a", "slots": 0}], "between 1 and"), ([{"name": "a", "slots": 1}] * 2, "given twice"),
    ([{"name": f"d{i}", "slots": 1} for i in range(17)], "at most 16"),
    ([{"name": f"d{i}", "slots": 1} for i in range(16)], "cpu is one of them"), ("cpu", "a list of devices"),
])
def test_a_wrong_list_of_devices_is_explained(make_server, folder, devices, words):
    server = make_server(start=False, config=json.dumps({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"}, "spec": {"devices": devices}}))
    import subprocess
    from conftest import BULKHEAD
    result = subprocess.run([BULKHEAD, "serve", "--data", server.data, *server.args], capture_output=True, text=True,
                            timeout=CEILING_S)
    assert result.returncode == 1 and "spec.devices" in result.stderr and words in result.stderr, result.stderr


# --- batches ---

def test_a_model_that_is_not_invariant_is_never_batched(server, folder):
    key = give(server, folder, busy="10ms", batching={"invariant": False})
    load = Load(server, key, 8)
    wait_until(lambda: len(load.statuses) >= 40, "forty answers")
    statuses = load.stop()
    assert set(statuses) == {200}
    wait_until(lambda: gateway(server)["leases"] == len(statuses), "a lease for each request")


def test_preferred_sizes_cut_batches(server, folder):
    """Where the rest may wait: with maxDelay."""
    key = give(server, folder, busy="30ms", batching={"maxSize": 8, "preferredSizes": [4], "maxDelay": "1s"})
    load = Load(server, key, 12)
    wait_until(lambda: len(load.statuses) >= 70, "seventy answers")
    assert set(load.stop()) == {200}
    stats = server.http("GET", "/v2/models/m/stats", key).json["model_stats"][0]["batch_stats"]
    sizes = {b["batch_size"]: b["compute_infer"]["count"] for b in stats}
    assert sizes.get(4, 0) > sum(n for size, n in sizes.items() if size > 4), sizes


# --- fifo and overload ---

def test_fifo_serves_in_the_order_of_arrival(make_server, folder):
    """No weights there: eight clients of one tenant get eight times what one client of another gets."""
    server = one_slot(make_server, "--scheduler", "fifo")
    flood = give(server, folder, busy="5ms", tenant="flood", spec={"weight": 1}, batching={"maxSize": 1})
    polite = give(server, folder, busy="5ms", tenant="polite", spec={"weight": 1}, batching={"maxSize": 1})
    loads = [Load(server, flood, 8), Load(server, polite, 1)]
    try:
        grown(server, served(server), 0.5)
        delta = grown(server, served(server), 3)
    finally:
        for load in loads:
            assert set(load.stop()) == {200}
    assert delta["flood", "m"] > 4 * delta["polite", "m"], delta


def test_the_queues_memory_is_bounded_and_the_lowest_class_gives(make_server, folder):
    server = one_slot(make_server, limits={"queueBytes": "64Ki"})
    wide = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1024]}], "busy": "2s"}
    (folder / "wide.json").write_text(json.dumps(wide))
    server.apply(tenant_yaml("acme") + model_yaml("m", "acme", "wide.json", batching={"maxSize": 1}))
    key = server.key("acme")
    body = {"inputs": vector(1, [1.0] * 1024)}
    held = send(server, key, body=json.dumps(body).encode())
    running(server)
    answers = []

    def client(cls):
        answers.append((cls, server.http("POST", "/v2/models/m/infer", key, body, {"X-Request-Class": cls})))

    threads = [threading.Thread(target=client, args=("batch",)) for _ in range(14)]
    for t in threads:
        t.start()
    wait_until(lambda: gateway(server)["queued"] >= 13, "the queue to be nearly full")
    late = [threading.Thread(target=client, args=("interactive",)) for _ in range(4)]
    for t in late:
        t.start()
    wait_until(lambda: [a for c, a in answers if a.status == 503], "some to be shed")
    shed = [(c, a) for c, a in answers if a.status == 503]
    assert {c for c, _ in shed} == {"batch"}, shed
    assert all(a.code == "overloaded" and int(a.headers["Retry-After"]) >= 1 for _, a in shed)
    held.close()
    server.cli("delete", "model", "m", "--tenant", "acme")  # the rest need not be waited for
    for t in threads + late:
        t.join(CEILING_S)


# --- top ---

def test_top_shows_shares_queues_and_limits(make_server, folder):
    server = one_slot(make_server)
    flood = give(server, folder, busy="5ms", tenant="flood", spec={"weight": 1, "quota": {"queueDepth": 2}},
                 batching={"maxSize": 1})
    polite = give(server, folder, busy="5ms", tenant="polite", spec={"weight": 3}, batching={"maxSize": 1})
    idle = give(server, folder, tenant="idle")
    assert ask(server, idle).status == 200
    loads = [Load(server, flood, 6), Load(server, polite, 6)]
    try:
        grown(server, served(server), 0.5)
        text = server.cli("top", "--once", "--interval", "2").stdout
    finally:
        for load in loads:
            load.stop()
    lines = text.splitlines()
    assert lines[0].startswith("device cpu: ") and "of 1 slots used" in lines[0]
    table = {line.split()[0]: line.split() for line in lines if line and not line.startswith("device")}
    assert table["TENANT"][:5] == ["TENANT", "WEIGHT", "ASKED", "GOT", "WAITING"]
    assert (table["flood"][1], table["flood"][2]) == ("1", "25.0%")
    assert (table["polite"][1], table["polite"][2]) == ("3", "75.0%")
    assert table["idle"][2] == "-" and table["idle"][3] == "0.0%"
    assert float(table["polite"][3][:-1]) > float(table["flood"][3][:-1])
    assert "queue" in table["flood"] and "queue" not in table["polite"]
    bad = server.cli("top", "--interval", "0", check=False)
    assert bad.returncode == 2 and "1 to 3600" in bad.stderr
