"""Row 7, memory: what a tenant that is idle costs in all processes of the server together, and what the gateway takes
before it has anything to do, beside nginx and haproxy configured as reverse proxies with one listening socket.

A store is filled with tenants that each have a key (and, in the second filling, a model without a replica), as rows
like those that the server wrote itself for the first of them; then the server starts with it, and its processes' PSS
(each page's share of who uses it) is read when it serves and has come to rest. The cost is what is above the same
server with one tenant. How long a change takes with so many is told too: one key made, until the gateway serves it."""

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import statistics
import time

from measure import spread
from rows import row1
from servers import BenchError, Bulkhead, NginxFront, NginxStatic, Server, UnixConnection, accepts, wait_for

NUMBER = 7
TITLE = "memory: idle tenants, and the idle gateway beside nginx and haproxy"
# One below the limit: the key that is then made must fit.
FILLINGS = (("a key each", 999999, False), ("a key and a model each", 100000, True))
PER_TENANT_MAX = 1024  # 1,000,000 of them in 1 GiB
IDLE_STARTS, REST_S, LOAD_S_MAX = 5, 2.0, 300
BASE62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 10s
    timeout client 75s
    timeout server 75s
frontend front
    bind 127.0.0.1:%(port)d
    default_backend models
backend models
    server one 127.0.0.1:%(upstream)d
"""


def memory(pid):
    """{"pss", "rss_peak"} of a process, in bytes."""
    found = {}
    for path, line_name, name in (("smaps_rollup", "Pss:", "pss"), ("status", "VmHWM:", "rss_peak")):
        with open("/proc/%d/%s" % (pid, path), encoding="ascii") as file:
            for line in file:
                if line.startswith(line_name):
                    found[name] = 1024 * int(line.split()[1])
    return found


def memories(server):
    """{what a process does: its memory}"""
    return {role: memory(pid) for pid, role in server.processes().items()}


def pss(found):
    return sum(one["pss"] for one in found.values())


class Haproxy(Server):
    """A reverse proxy for `upstream`, one thread."""

    def __init__(self, upstream):
        super().__init__("haproxy")
        self.upstream = upstream

    def begin(self):
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if not program:
            raise BenchError("haproxy is not installed: tools/deps install --bench")
        text = HAPROXY % {"port": self.port, "upstream": self.upstream.port}
        self.start([program, "-db", "-f", self.file("haproxy.cfg", text)])
        wait_for(self.name, lambda: self.check_alive() and accepts(self.port))


class Filled(Bulkhead):
    """A server that starts with n tenants in its store; n = 1: the template alone."""

    def __init__(self, n, with_model):
        super().__init__(row1.RESOURCES.replace("min: 1", "min: 0"), ["examples/identity/identity.json"])
        self.n, self.with_model, self.serving_s, self.key = n, with_model, 0.0, ""

    def begin(self):
        super().begin()
        self.key = self.make_keys(row1.TENANT, 1)[0]
        if not self.with_model:
            self.command("delete", "model", "identity", "--tenant", row1.TENANT)
        self.stop()
        self.fill()
        begin = time.monotonic()
        self.start([self.program, "serve", "--data", os.path.dirname(self.admin), "--listen",
                    "127.0.0.1:%d" % self.port, "--config", os.path.join(self.folder, "server.yaml")])
        self.wait_known(self.key)
        self.serving_s = time.monotonic() - begin

    def database(self):
        for folder, _, names in os.walk(os.path.dirname(self.admin)):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    if file.read(15) == b"SQLite format 3":
                        return path
        raise BenchError("the data folder holds no database")

    def fill(self):
        """Copies of the first tenant's rows, under names and uids of their own."""
        if self.n == 1:
            return
        with contextlib.closing(sqlite3.connect(self.database())) as db:
            db.row_factory = sqlite3.Row
            uid = db.execute("SELECT uid FROM meta").fetchone()[0]
            template = {row["tenant"] != "": dict(row) for row in db.execute("SELECT * FROM resource")}
            version = db.execute("SELECT * FROM version").fetchone()
            key = dict(db.execute("SELECT * FROM key").fetchone())
            chance = random.Random(1)
            rows = {"resource": [], "version": [], "key": []}
            for i in range(1, self.n):
                name, uid = "tenant-%06d" % i, uid + 1
                tenant_uid = uid
                rows["resource"].append(renamed(template[False], uid, name, ""))
                if self.with_model:
                    uid += 2
                    rows["resource"].append(renamed(template[True], uid - 1, template[True]["name"], name))
                    rows["version"].append({**dict(version), "uid": uid, "model_uid": uid - 1})
                rows["key"].append({**key, "id": "".join(chance.choices(BASE62, k=16)), "tenant_uid": tenant_uid,
                                    "hash": hashlib.sha256(name.encode()).digest()})
            for table, some in rows.items():
                if some:
                    columns = list(some[0])
                    db.executemany("INSERT INTO %s (%s) VALUES (%s)" % (
                        table, ", ".join(columns), ", ".join(":" + column for column in columns)), some)
            db.execute("UPDATE meta SET uid = ?, revision = revision + 1", (uid,))
            db.commit()

    def key_time(self):
        """Seconds from asking for a key until a request with it is known to the gateway."""
        begin = time.monotonic()
        connection = UnixConnection(self.admin)
        connection.timeout = LOAD_S_MAX
        key = connection.call("POST", "/v1alpha1/keys", {"tenant": row1.TENANT, "name": "bench"})["key"]
        connection.close()
        self.wait_known(key)
        return time.monotonic() - begin

    def wait_known(self, key):
        """Until the gateway serves and knows the key. It listens only once it has its first catalog."""
        def known():
            self.check_alive()
            try:
                return self.post("/v2/models/none/infer", {"X-API-Key": key}, b"")[0] == 404
            except OSError:
                return False
        wait_for("bulkhead with %d tenants" % self.n, known, LOAD_S_MAX)


def renamed(row, uid, name, tenant):
    document = row["document"]
    if tenant:
        document = document.replace('"tenant":"%s"' % row["tenant"], '"tenant":"%s"' % tenant)
    else:
        document = document.replace('"name":"%s"' % row["name"], '"name":"%s"' % name, 1)
    return {**row, "uid": uid, "name": name, "tenant": tenant, "document": document}


def rest(server):
    time.sleep(REST_S)
    return memories(server)


def filling(name, n, with_model, progress):
    with Filled(1, with_model) as server:
        base = rest(server)
    with Filled(n, with_model) as server:
        full = rest(server)
        key_s = server.key_time()
        after = rest(server)
        serving_s = server.serving_s
    per_tenant = max(pss(full), pss(after)) - pss(base)
    result = {"name": name, "tenants": n, "base": base, "full": full, "after_change": after, "serving_s": serving_s,
              "key_s": key_s, "bytes_per_tenant": per_tenant / (n - 1)}
    progress("%d tenants, %s: %.0f bytes each, serves after %.1f s, a new key after %.1f s" % (
        n, name, result["bytes_per_tenant"], serving_s, key_s))
    return result


def idle(progress):
    """{server: [bytes of PSS, one per start]} of what has nothing to do yet."""
    found = {"bulkhead gateway": [], "bulkhead, all processes": [], "nginx": [], "haproxy": []}
    for _ in range(IDLE_STARTS):
        with contextlib.ExitStack() as stack:
            static = stack.enter_context(NginxStatic(b"x", 1))
            front = stack.enter_context(NginxFront(static, ["none"], row1.TENANT))
            own = {pid: role for pid, role in front.processes().items() if pid not in static.processes()}
            bulkhead = stack.enter_context(Filled(1, False))
            haproxy = stack.enter_context(Haproxy(static))
            time.sleep(REST_S)
            found["nginx"].append(sum(memory(pid)["pss"] for pid in own))
            found["haproxy"].append(pss(memories(haproxy)))
            whole = memories(bulkhead)
            found["bulkhead gateway"].append(whole["bulkhead gateway"]["pss"])
            found["bulkhead, all processes"].append(pss(whole))
    progress(", ".join("%s %.1f MiB" % (name, statistics.median(some) / 2**20) for name, some in found.items()))
    return found


def figure(name, unit, values, form):
    return {"name": name, "values": spread(values), "unit": unit, "form": form}


def run(_, progress):
    idles = idle(progress)
    fillings = [filling(*one, progress) for one in FILLINGS]
    figures = [figure("idle PSS of " + name, "MiB", [value / 2**20 for value in some], "%.1f")
               for name, some in idles.items()]
    for one in fillings:
        name = "%d tenants with %s: " % (one["tenants"], one["name"])
        figures += [figure(name + "an idle one", "bytes", [one["bytes_per_tenant"]], "%.0f"),
                    figure(name + "start until served", "s", [one["serving_s"]], "%.1f"),
                    figure(name + "a new key until served", "s", [one["key_s"]], "%.1f")]
    return {"title": TITLE, "idle_pss": idles, "fillings": fillings, "figures": figures,
            "targets": [{"what": "an idle tenant with %s" % one["name"], "wanted": "<= %d bytes" % PER_TENANT_MAX,
                         "measured": one["bytes_per_tenant"], "met": one["bytes_per_tenant"] <= PER_TENANT_MAX}
                        for one in fillings],
            "notes": ["%d starts each for the idle servers; PSS at rest, before and after a change: the larger counts" %
                      IDLE_STARTS,
                      "one key less than the limit, for the key that is then made must fit",
                      "peak while a change is made (RSS): " + ", ".join("%s %.0f MiB" % (
                          role, one["rss_peak"] / 2**20) for role, one in fillings[0]["after_change"].items())]}
