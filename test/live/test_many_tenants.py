"""Ten thousand tenants at once through one gateway (99,900 in make soak), each with a key, a quota and a model of its own."""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import sqlite3
import threading

from conftest import BUILD, IDENTITY, model_yaml, tenant_yaml, vector, wait_until

N = int(os.environ.get("BULKHEAD_TENANTS", 99900 if os.environ.get("BULKHEAD_SOAK") else 10000))
CONNECTIONS = 16
FRESH = 10  # more that ask nothing before the end
PER_TENANT_MAX = 4096  # what one that has used its quota takes more than an idle one, in all processes


def key_of(i):
    return f"bh_{i:016d}_{'k' * 43}"


def name_of(i):
    return f"t-{i:06d}"


def fill(server):
    """Copies of the first tenant's rows under other names, as rows that the server wrote itself."""
    path, = pathlib.Path(server.data / "store").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        uid = db.execute("SELECT uid FROM meta").fetchone()[0]
        tenant, model = (dict(db.execute(f"SELECT * FROM resource WHERE tenant {op} ''").fetchone()) for op in ("=", "!="))
        version = dict(db.execute("SELECT * FROM version").fetchone())
        key = dict(db.execute("SELECT * FROM key").fetchone())
        rows = {"resource": [], "version": [], "key": []}
        for i in range(N + FRESH):
            name = name_of(i)
            document = tenant["document"].replace('"name":"acme"', f'"name":"{name}"', 1)
            rows["resource"].append({**tenant, "uid": uid + 1, "name": name, "document": document})
            document = model["document"].replace('"tenant":"acme"', f'"tenant":"{name}"', 1)
            rows["resource"].append({**model, "uid": uid + 2, "tenant": name, "document": document})
            rows["version"].append({**version, "uid": uid + 3, "model_uid": uid + 2})
            rows["key"].append({**key, "id": f"{i:016d}", "tenant_uid": uid + 1,
                                "hash": hashlib.sha256(key_of(i).encode()).digest()})
            uid += 3
        for table, some in rows.items():
            columns = list(some[0])
            db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)})", some)
        db.execute("UPDATE meta SET uid = ?, revision = revision + 1", (uid,))
        db.commit()


def memory(server):
    pids = [server.process.pid, server.pid("control"), server.pid("gateway")]
    return sum(int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024
               for pid in pids)


def ask_all(server):
    """What each tenant was told when it asked three times, over a few connections that show another key again and again."""
    statuses = [None] * N

    def some(first):
        connection = server.connect()
        for i in range(first, N, CONNECTIONS):
            statuses[i] = [server.http("POST", "/v2/models/none/infer", key_of(i), b"{}", connection=connection).status
                           for _ in range(3)]
        connection.close()
    threads = [threading.Thread(target=some, args=(k,)) for k in range(CONNECTIONS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return statuses


def test_all_are_active_and_none_counts_for_another(make_server, folder):
    server = make_server()
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    server.apply(tenant_yaml("acme", quota={"requestsPerMinute": 1, "burst": 2}) + model_yaml("echo", "acme", "echo.json"))
    server.key("acme")
    assert server.stop() == 0
    fill(server)
    server.start(ceiling=300)
    wait_until(lambda: server.http("GET", "/v2", key_of(N - 1)).status == 200, "a server that knows them", 300)
    before = memory(server)
    statuses = ask_all(server)
    wrong = [(i, s) for i, s in enumerate(statuses) if s != [404, 404, 429]]
    assert not wrong, wrong[:3]  # the burst of each is its own: none used another's
    active = memory(server)
    print(f"{N} tenants: {(active - before) / N:.0f} bytes more for one that has used its quota")
    if "debug" not in str(BUILD):  # sanitizers surround each piece of memory
        assert active - before <= N * PER_TENANT_MAX
    for i in range(N, N + FRESH):  # and others are served by workers of their own
        wait_until(lambda: server.infer("echo", vector(1, [1.0, 2.0, 3.0, 4.0]), key_of(i)).status == 200, "a model")
    assert server.http("POST", "/v2/models/echo/infer", "bh_" + "9" * 16 + "_" + "k" * 43, b"{}").status == 401
