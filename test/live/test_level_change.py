"""Another level is a new version: it takes over without a failed request, and nothing stays below a raised floor."""
import json
import subprocess
import threading

import pytest
from conftest import BULKHEAD, IDENTITY, model_yaml, tenant_yaml, vector, wait_until

CLIENTS = 4


def working_levels():
    result = subprocess.run([BULKHEAD, "doctor", "-o", "json"], capture_output=True, text=True, timeout=300)
    return [level["name"] for level in json.loads(result.stdout)["levels"]
            if level["state"] != "unavailable" and level["limits"]]


LEVELS = working_levels()
OTHERS = [level for level in LEVELS if level != "process"]


class Load:
    """Clients that ask one request after another and note every answer that is not 200."""

    def __init__(self, server, key):
        self.server, self.key, self.ended = server, key, threading.Event()
        self.answers, self.wrong = [0] * CLIENTS, []
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(CLIENTS)]

    def _run(self, i):
        connection = self.server.connect()
        while not self.ended.is_set():
            answer = self.server.infer("echo", vector(1, [1, 2, 3, i]), self.key, connection)
            if answer.status != 200 or answer.json["outputs"][0]["data"] != [1, 2, 3, i]:
                self.wrong.append((answer.status, answer.body[:300]))
                return
            self.answers[i] += 1
        connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.more()
        return self

    def more(self):
        """Until every client has got answers that it asked for from now on."""
        before = list(self.answers)
        wait_until(lambda: self.wrong or all(a > b + 1 for a, b in zip(self.answers, before)), "answers under load")
        assert self.wrong == []

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def serving(server):
    """(version, level) of the replicas that are ready."""
    return {(r["status"]["version"], r["status"]["level"]) for r in server.status()["replicas"]
            if r["status"]["state"] == "ready"}


def apply(server, level, memory="64Mi"):
    """A level that boots a machine is tested when it is first asked for, and who asks is told to come again."""
    yaml = tenant_yaml("acme") + model_yaml("echo", "acme", "echo.json", isolation={"level": level},
                                            resources={"memory": memory}, replicas={"idleAfter": "1s"})
    done = []

    def applied():
        done[:] = [server.apply(yaml, check=False)]
        return "being tested" not in done[0].stderr
    wait_until(applied, f"level {level} to be tested", 120)
    assert done[0].returncode == 0, done[0].stderr
    if level == "microvm":
        server.fds = None  # its files are opened by the first who uses it, and kept


# The same change of version within one level stands for the takeover itself, on every host.
@pytest.mark.parametrize("other", [("process", "128Mi"), *((level, "64Mi") for level in OTHERS)])
def test_a_new_version_takes_over_without_a_failed_request(server, folder, other):
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    apply(server, "process")
    with Load(server, server.key("acme")) as load:
        for version, (level, memory) in enumerate([other, ("process", "64Mi"), other], 2):
            apply(server, level, memory)
            load.more()
            wait_until(lambda: (version, level) in serving(server), f"version {version} to serve at {level}")
            load.more()
    assert load.wrong == []
    wait_until(lambda: serving(server) <= {(4, other[0])}, "older versions' replicas to go")


@pytest.mark.skipif(not OTHERS, reason="this host has no level but process")
@pytest.mark.parametrize("other", OTHERS)
def test_older_versions_do_not_outlive_a_raised_floor(server, folder, other):
    low, high = sorted(["process", other], key=LEVELS.index)
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    apply(server, low)
    key = server.key("acme")
    inputs = json.dumps({"inputs": vector(1, [1, 2, 3, 4])})
    assert server.http("POST", "/v2/models/echo/versions/1/infer", key, inputs).status == 200
    apply(server, high)
    server.apply(tenant_yaml("acme", isolation={"minimum": high}))
    wait_until(lambda: all(level != low for _, level in serving(server)), "the replica below the floor to go")
    answer = server.http("POST", "/v2/models/echo/versions/1/infer", key, inputs)
    assert answer.status == 503 and "below what its tenant demands" in answer.json["error"]
    assert server.infer("echo", vector(1, [1, 2, 3, 4]), key).status == 200
