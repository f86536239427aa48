"""`bulkhead advise`: from answers to a level, its reasons and the YAML, on this host."""
import json
import os
import pty
import shutil
import subprocess

from conftest import BULKHEAD, ROOT, tenant_yaml

HARMLESS = {"critical": "no", "regulated": "no", "neighbours": "none", "latency": "normal", "burst": "no", "legacy": "no"}
LEVELS = ["none", "shared", "pool", "process", "container", "microvm"]


def advise(*args, answers=HARMLESS, stdin=subprocess.DEVNULL, **more):
    flags = [f"--{name}={answer}" for name, answer in answers.items()]
    return subprocess.run([BULKHEAD, "advise", *flags, *args], text=True, capture_output=True, timeout=300, stdin=stdin,
                          **more)


def found(result):
    value = json.loads(result.stdout)
    assert set(value) == {"answers", "minimum", "level", "available", "text", "proposed", "works", "reasons", "warnings",
                          "cost", "yaml"}
    assert set(value["cost"]) == {"startMs", "text"} and value["reasons"]
    assert LEVELS.index(value["proposed"]) >= LEVELS.index(value["level"]) >= LEVELS.index(value["minimum"])
    assert result.returncode == (0 if value["works"] else 1)
    assert f"isolation: {{level: {value['proposed']}}}" in value["yaml"]
    return value


def test_the_harmless_case_and_what_it_costs():
    value = found(advise("-o", "json"))
    assert value["answers"] == HARMLESS and value["level"] == value["proposed"] == "process" and value["available"]
    assert value["cost"]["startMs"] > 0 and f"{value['cost']['startMs']} ms" in value["cost"]["text"]
    text = advise()
    assert text.returncode == 0 and text.stdout.startswith("Level: process\n") and "it is available" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 100


def test_what_doctor_calls_unavailable_is_never_advised_in_silence():
    doctor = json.loads(subprocess.run([BULKHEAD, "doctor", "-o", "json"], capture_output=True, timeout=300).stdout)
    works = {level["name"]: level["state"] != "unavailable" and level["limits"] for level in doctor["levels"]}
    texts = {level["name"]: level["text"] for level in doctor["levels"]}
    for change in [{"neighbours": "trusted"}, {"neighbours": "trusted", "burst": "yes"}, {"legacy": "libraries"},
                   {"legacy": "kernel"}, {"critical": "patient", "neighbours": "untrusted"}]:
        result = advise("-o", "json", answers=HARMLESS | change)
        value = found(result)
        assert value["available"] is works[value["level"]]
        text = advise(answers=HARMLESS | change).stdout
        if value["available"]:
            assert value["proposed"] == value["level"] and "NOT AVAILABLE" not in text
            continue
        assert value["text"] == texts[value["level"]] and f"{value['level']} IS NOT AVAILABLE" in text
        stronger = [name for name in LEVELS[LEVELS.index(value["level"]) + 1:] if works[name]]
        assert value["works"] is bool(stronger) and value["proposed"] == (stronger or [value["level"]])[0]
        assert ("is stronger and is available" in text) is bool(stronger)
        if change.get("burst") and value["proposed"] == "process":
            assert "replicas: {min: 1" in value["yaml"]  # there is no pool, so one is kept


def test_never_below_the_floor(server):
    server.apply(tenant_yaml("strict", isolation={"minimum": "microvm"}) + tenant_yaml("usual"))
    for tenant, level in (("strict", "microvm"), ("usual", "process"), ("new", "process")):
        value = found(advise("-o", "json", "--tenant", tenant, "--data", server.data))
        assert value["level"] == level, tenant
        assert any("isolation.minimum" in reason for reason in value["reasons"]) is (tenant == "strict")
    assert found(advise("-o", "json", "--minimum", "container"))["level"] == "container"
    assert found(advise("-o", "json", "--tenant", "strict", "--minimum", "shared", "--data",
                        server.data))["level"] == "microvm"
    gone = advise("--tenant", "strict", "--data", "/nonexistent")
    assert gone.returncode == 1 and "Level:" not in gone.stdout  # not knowing the floor is no reason to guess


def test_the_yaml_can_be_applied(server):
    for name in ("digits", "dice"):
        value = found(advise("-o", "json", "--tenant", "acme", "--model", name, "--data", server.data))
        shutil.copy(ROOT / "examples" / "digits" / "digits.onnx", server.data.parent / f"{name}.onnx")
        server.apply(tenant_yaml("acme") + "---\n" + value["yaml"], cwd=server.data.parent)
    text = advise("--model", "digits").stdout
    assert "kind: Model" in text and "source: digits.onnx" in text


def test_answers_from_a_file(folder):
    (folder / "a.yaml").write_text("critical: patient\nregulated: no\nneighbours: trusted\nlatency: tight\nburst: true\n"
                                   "legacy: no\nminimum: process\n")
    value = found(advise("-o", "json", "-f", folder / "a.yaml", answers={}))
    assert value["answers"] == {"critical": "patient", "regulated": "no", "neighbours": "trusted", "latency": "tight",
                                "burst": "yes", "legacy": "no"} and value["minimum"] == value["level"] == "process"
    assert found(advise("-o", "json", "-f", folder / "a.yaml", answers={"legacy": "kernel"}))["level"] == "microvm"
    for text, words in [("critical: maybe\n", 'critical takes no, money or patient, not "maybe"'),
                        ("colour: red\n", 'there is no question "colour"'), ("critical: [no]\n", "expected one of"),
                        ("- a\n", "expected one document"), ("a: 1\n---\nb: 1\n", "expected one document"),
                        ("critical: {\n", "line"), ("minimum: none\n", "minimum takes")]:
        (folder / "b.yaml").write_text(text)
        result = advise("-f", folder / "b.yaml", answers={})
        assert result.returncode in (1, 2) and words in result.stderr, (text, result.stderr)


def test_what_is_missing_or_wrong_is_said():
    for name in HARMLESS:
        result = advise(answers={k: v for k, v in HARMLESS.items() if k != name})
        assert result.returncode == 2 and f"--{name}" in result.stderr and result.stdout == ""
        result = advise(answers=HARMLESS | {name: "purple"})
        assert result.returncode == 2 and f"--{name} takes" in result.stderr
    assert advise("--minimum", "castle").returncode == 2
    assert advise("--model", "Big Model").returncode == 1


def test_it_asks_on_a_terminal():
    ours, theirs = pty.openpty()
    process = subprocess.Popen([BULKHEAD, "advise", "-o", "json", "--latency=normal"], stdin=theirs, stderr=theirs,
                               stdout=subprocess.PIPE)
    os.close(theirs)
    seen = b""

    def until(word):
        nonlocal seen
        while word not in seen:
            seen += os.read(ours, 4096)
        seen = seen.split(word, 1)[1]

    for name, answers in [("critical", ["perhaps", "money"]), ("regulated", ["no"]), ("neighbours", [" trusted "]),
                          ("burst", ["yes"]), ("legacy", ["no"])]:
        for answer in answers:
            until(f"{name}? ".encode())
            os.write(ours, answer.encode() + b"\n")
    out, _ = process.communicate(timeout=300)
    os.close(ours)
    value = json.loads(out)
    assert value["answers"] == {"critical": "money", "regulated": "no", "neighbours": "trusted", "latency": "normal",
                                "burst": "yes", "legacy": "no"} and value["level"] == "process"
    assert any("one replica is kept" in reason for reason in value["reasons"])
