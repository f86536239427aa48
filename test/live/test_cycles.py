"""Starting, serving and stopping, over and over, at each level: nothing may be left. Some cycles here, 1,000 per level in
`make soak` (BULKHEAD_CYCLES=n says how many; virtual machines: test_microvm.py)."""
import json
import os
import pathlib
import shutil

import pytest

from conftest import BUILD, IDENTITY, model_yaml, tenant_yaml, vector, wait_until
from oci import Layout, member, tar

CYCLES = int(os.environ.get("BULKHEAD_CYCLES", "1000" if os.environ.get("BULKHEAD_SOAK") else "30"))
# What the supervisor may grow by after the first cycles. Without sanitizers it does not grow at all. With them its
# allocator goes on taking fresh pages for a while, some 13 KiB for each start, and LeakSanitizer looks at the end as well.
MEMORY_KIB = 16384 if "debug" in str(BUILD) else 512
ISOLATION = {
    "shared": {"level": "shared"},
    "process": {"level": "process"},
    "pool": {"level": "pool"},
    "container": {"level": "container"},
    "image": {"level": "container", "image": "image"},
}


def level(server, name):
    return next(row for row in server.status()["isolation"]["levels"] if row["name"] == name)


def memory_kib(pid):
    text = pathlib.Path("/proc", str(pid), "status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")))


def groups_within(server):
    """Of replicas and shared workers; a pool's blank workers stay."""
    found = []
    for path in server.cgroups:
        if os.path.exists(path):
            found += [entry.path for entry in os.scandir(path) if entry.is_dir() and entry.name.startswith(("replica-", "shared-"))]
    return sorted(found)


def held(server):
    """What a cycle could leave of: descriptors, mounts, folders below the supervisor's own mount, children."""
    pid = server.process.pid
    folders = [f"/proc/{pid}/root/run/{os.path.basename(path)}/{part}" for path in server.cgroups if path.endswith("-oci")
               for part in ("bundles", "state/runc")]
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "mounts": len(pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()),
            "folders": sum(len(os.listdir(path)) for path in set(folders) if os.path.exists(path)),
            "children": len(children)}


@pytest.mark.parametrize("what", ISOLATION)
def test_cycles_leave_nothing(make_server, folder, what):
    if ISOLATION[what]["level"] == "container" and not shutil.which("runc", path="/usr/sbin:/usr/bin"):
        pytest.skip("no runc on this host (Debian: apt-get install runc)")
    server = make_server(start=False)
    # Freed memory that AddressSanitizer keeps back, to notice its use, is no leak.
    server.environment["ASAN_OPTIONS"] = "quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    server.start()
    name = ISOLATION[what]["level"]
    wait_until(lambda: level(server, name)["state"] == "available", f"level {name}")
    (folder / "echo.json").write_text(json.dumps(IDENTITY))
    Layout([tar([member("etc/os-release", b"NAME=elsewhere\n")])]).write(folder / "image")
    server.apply(tenant_yaml("acme"))
    key = server.key("acme")
    first = None
    for i in range(CYCLES):
        server.apply(model_yaml("echo", "acme", "echo.json", isolation=ISOLATION[what]))
        assert server.infer("echo", vector(1, [i, 2, 3, 4]), key).json["outputs"][0]["data"][0] == i
        server.cli("delete", "model", "echo", "--tenant", "acme")
        wait_until(lambda: not server.status()["replicas"], "the replica's end")
        if i == CYCLES // 5:
            wait_until(lambda: not groups_within(server), "its groups to be gone")
            first = held(server), memory_kib(server.process.pid)
    wait_until(lambda: not groups_within(server), "the groups to be gone")
    # a pool's blank worker is on its way in or out
    wait_until(lambda: all(now <= first[0][kind] for kind, now in held(server).items()),
               f"all to be as it was: {first[0]}, now {held(server)}")
    grown = memory_kib(server.process.pid) - first[1]
    print(f"{what}: {CYCLES} cycles, the supervisor grew by {grown} KiB")
    assert grown <= MEMORY_KIB
    assert not [path for path in (server.data / "store/artifacts").iterdir()]
    scopes = {os.path.basename(path) for path in server.cgroups}
    server.stop()
    assert not [path for scope in scopes for path in
                [*pathlib.Path("/run").glob(scope), *pathlib.Path("/sys/fs/cgroup").glob(f"**/{scope}")]]
