"""`bulkhead bench isolation`: that it measures, reports and leaves nothing; never how long anything took."""
import html.parser
import json
import os
import re
import signal
import subprocess

import pytest

from conftest import BULKHEAD, cgroups, processes, wait_until

LEVELS = ["shared", "pool", "process", "container", "microvm"]
VOID = {"meta", "br"}


def bench(folder, *args, **more):
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen([BULKHEAD, "bench", "isolation", "--output", folder, *args], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}, **more)


def ours(folder):
    """The processes of the bench's server: its serve names the folder, the others are below it."""
    found = {pid for pid, (_, argv) in processes().items() if any(str(folder) in word for word in argv)}
    for _ in range(4):
        found |= {pid for pid, (parent, _) in processes().items() if parent in found}
    return found


def nothing_left(folder, before):
    assert not list((folder / "tmp").iterdir())
    wait_until(lambda: not ours(folder), "its processes to be gone")
    left = {group for group in cgroups() - before if str(folder) in group}
    assert not left


class Page(html.parser.HTMLParser):
    """Every element is closed; nothing is fetched, nothing is executed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        assert tag not in ("script", "link", "iframe", "img", "object", "embed"), tag
        for name, value in attributes:
            assert name not in ("src", "href", "srcset") and not name.startswith("on"), (tag, name)
            assert "://" not in (value or ""), (tag, name, value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def series(value, samples=None):
    assert set(value) == {"samples", "failed", "min", "p50", "p99", "max"}
    assert 0 < value["min"] <= value["p50"] <= value["p99"] <= value["max"] and value["failed"] == 0
    assert value["samples"] == samples if samples else value["samples"] > 0


def apart(report, neighbour):
    """The victim on a core of its own, or why not."""
    [target] = [target for target in report["targets"] if target["name"] == "neighbourApart"]
    if "ownCoresMissing" in neighbour:
        assert target["state"] == "not measured" and target["why"] == neighbour["ownCoresMissing"]
        assert report["host"]["cpus"] < 2 or "cpuset" in target["why"]
        return
    for name in ("ownCoresAloneMs", "ownCoresFloodedMs"):
        series(neighbour[name])
    ratio = neighbour["ownCoresFloodedMs"]["p99"] / neighbour["ownCoresAloneMs"]["p99"]
    assert abs(target["value"] / ratio - 1) < 1e-3 and abs(neighbour["ownCoresP99Inflation"] / ratio - 1) < 1e-3


def test_a_container_is_compared_with_its_runtime_alone(folder):
    groups = cgroups()
    process = bench(folder, "--level", "container", "--runs", "2", "--seconds", "1", "-o", "json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    report = json.loads(out)
    [level] = [level for level in report["levels"] if level["name"] == "container"]
    if level["state"] == "unavailable":
        pytest.skip(level["text"])
    series(level["bareRuntimeMs"], 2)
    [target] = [target for target in report["targets"] if target["name"] == "containerColdStart"]
    assert abs(target["value"] / (level["coldStartMs"]["p50"] / level["bareRuntimeMs"]["p50"]) - 1) < 1e-3
    assert "run with the bundle of a container" in (folder / "bulkhead-isolation.html").read_text()
    nothing_left(folder, groups)


def test_it_measures_and_reports(folder):
    groups = cgroups()
    process = bench(folder, "--level", "process,shared", "--runs", "2", "--seconds", "1", "-o", "json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    report = json.loads(out)
    assert json.loads((folder / "bulkhead-isolation.json").read_text()) == report
    assert report["kind"] == "IsolationReport" and report["settings"]["runs"] == 2
    assert report["host"]["cpus"] > 0 and report["host"]["cpu"] and len(report["host"]["loadBefore"]) == 3
    assert [level["name"] for level in report["levels"]] == LEVELS
    levels = {level["name"]: level for level in report["levels"]}
    assert all(level["state"] in ("measured", "skipped", "unavailable") for level in report["levels"])
    assert all(level["text"] for level in report["levels"] if level["state"] == "unavailable")
    assert levels["container"]["state"] != "measured" and "coldStartMs" not in levels["container"]
    found = levels["process"]
    assert found["state"] == "measured" and found["wall"].startswith("process")
    series(found["coldStartMs"], 2)
    series(found["warmStartMs"], 2)
    for name in ("addedLatencyMs", "boundLatencyMs"):
        series(found[name])
    assert found["boundLatencyMs"]["min"] >= 5  # it computes 5 ms
    assert 0 < found["requestsPerSecond"] <= 200 and found["emptyRequestsPerSecond"] > 0
    assert found["idleMemory"]["pssBytes"] > 0 and found["idleMemory"]["processes"] >= 1
    for name in ("aloneMs", "floodedMs", "allSlotsFloodedMs"):
        series(found["neighbour"][name])
    assert found["neighbour"]["floodRequestsPerSecond"] > 0
    apart(report, found["neighbour"])
    assert "no cores of their own" in levels["shared"]["neighbour"]["ownCoresMissing"]
    assert found["toProcess"]["coldStartP50"] == 1
    for target in report["targets"]:
        assert target["state"] in ("met", "missed", "not measured") and target["text"]
        assert ("value" in target) is (target["state"] != "not measured") is ("why" not in target)
    page = Page((folder / "bulkhead-isolation.html").read_text())
    assert page.seen.count("svg") >= 5 and page.seen.count("table") >= 3
    text = " ".join(page.words)
    assert all(name in text for name in LEVELS) and report["host"]["cpu"] in text
    nothing_left(folder, groups)
    advised(folder, report)


def advise(folder, *args):
    answers = ["--critical=no", "--regulated=no", "--neighbours=none", "--latency=normal", "--burst=no", "--legacy=no"]
    result = subprocess.run([BULKHEAD, "advise", "-o", "json", *answers, *args], text=True, capture_output=True, timeout=300,
                            cwd=folder)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["cost"]["text"]


def advised(folder, report):
    """`advise` finds the report where it was written, and tells its figures."""
    level = next(level for level in report["levels"] if level["name"] == "process")
    text = advise(folder)
    assert f"measured here on {report['began'][:10]}" in text
    assert f"after a cold start {level['coldStartMs']['p50']:.3g} ms" in text
    assert f"{level['addedLatencyMs']['p50']:.3g} ms" in text and "MiB" in text and "neighbour" in text
    (folder / "elsewhere").mkdir()
    assert "are not measured on this host" in advise(folder / "elsewhere")
    named = advise(folder / "elsewhere", "--measured", folder / "bulkhead-isolation.json")
    assert named.split("; ", 1)[1] == text.split("; ", 1)[1]  # but for the start just now
    other = {**report, "host": {**report["host"], "kernel": "Linux 1.0"}}
    for name, content, words in [("other.json", json.dumps(other), "on another host"),
                                 ("list.json", "[]", "is no report"), ("broken.json", "{", "is no report"),
                                 ("empty.json", json.dumps({**report, "levels": []}), "no figures of this level"),
                                 ("odd.json", json.dumps({**report, "levels": [{"name": "process", "coldStartMs": 7}]}),
                                  "no figures of this level")]:
        (folder / name).write_text(content)
        assert words in advise(folder, "--measured", folder / name), name
    (folder / "page.json").write_text(json.dumps({**report, "began": "\x1b[2Jevil....."}))
    assert "on an unknown day" in advise(folder, "--measured", folder / "page.json")


def test_a_table_and_an_unavailable_level(folder):
    found = json.loads(subprocess.run([BULKHEAD, "doctor", "-o", "json"], capture_output=True, timeout=300).stdout)
    missing = [level for level in found["levels"] if level["state"] == "unavailable"]
    process = bench(folder, "--runs", "1", "--seconds", "1", "--level", ",".join(["process"] + [m["name"] for m in missing]))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    lines = out.splitlines()
    assert re.match(r"process +[\d.]+/[\d.]+ ", next(line for line in lines if line.startswith("process")))
    for level in missing:
        assert any(line.startswith(level["name"]) and level["text"][:20] in line for line in lines), level
    assert "bulkhead-isolation.html" in out


def test_a_signal_ends_it_without_traces(folder):
    # few starts, then load for so long that its worker is still there when it is looked for, on however busy a machine
    groups = cgroups()
    process = bench(folder, "--level", "process", "--runs", "2", "--seconds", "600")
    wait_until(lambda: any(argv[:1] == ["bulkhead-worker"] for pid, (_, argv) in processes().items()
                           if pid in ours(folder)), "a worker of its server")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "stopped by a signal" in err
    assert not list(folder.glob("bulkhead-isolation*"))
    nothing_left(folder, groups)


def test_what_is_refused(folder):
    for args, words in [(["--level", "vm"], "--level takes"), (["--runs", "0"], "--runs takes"),
                        (["--seconds", "x"], "--seconds takes"), (["-o", "xml"], "-o takes"),
                        (["--level", "process,"], "--level takes")]:
        process = bench(folder, *args)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2 and words in err, (args, err)
    process = subprocess.run([BULKHEAD, "bench", "isolation", "--output", folder / "none"], text=True, capture_output=True,
                             timeout=60)
    assert process.returncode == 1 and "cannot write a report there" in process.stderr
    process = subprocess.run([BULKHEAD, "bench"], text=True, capture_output=True, timeout=60)
    assert process.returncode == 2 and "bench isolation" in process.stderr
