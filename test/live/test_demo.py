"""The demo that `make run` starts: the lines it prints work by copy and paste."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from conftest import BUILD, CEILING_S, ROOT, wait_until


@pytest.fixture
def demo(folder):
    """A function that runs the demo on a port of its own; its text once it has said all. Each is ended after the test."""
    running = []

    def run():
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        out = folder / f"out{len(running)}"
        with out.open("w") as file:
            process = subprocess.Popen([ROOT / "tools/run", "--data", folder / "data", "--listen", f"127.0.0.1:{port}"],
                                       stdout=file, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                       env={**os.environ, "BULKHEAD_BUILD": str(BUILD)})
        running.append(process)
        wait_until(lambda: process.poll() is not None or "Ctrl-C stops" in out.read_text(), "the demo's text")
        assert process.poll() is None
        return out.read_text()

    def stop():
        process = running[-1]
        process.send_signal(signal.SIGTERM)
        return process.wait(CEILING_S)

    run.stop = stop
    yield run
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(CEILING_S)


def pasted(text):
    """What each printed curl command says when a shell runs it, in order."""
    commands = re.findall(r"^    (curl (?:.*\\\n)*.*)$", text, re.M)
    return [subprocess.run(["bash", "-c", c], cwd=ROOT, capture_output=True, text=True, timeout=CEILING_S, check=True).stdout
            for c in commands]


def said(stream):
    """The text of a chat's stream that came to its end."""
    chunks = [line[6:] for line in stream.splitlines() if line.startswith("data: ")]
    assert chunks[-1] == "[DONE]", stream
    return "".join(c["delta"].get("content") or "" for line in chunks[:-1] for c in json.loads(line)["choices"])


def check(text):
    digits, diagnosis, *chats, foreign = pasted(text)
    assert [o["data"] for o in json.loads(digits)["outputs"] if o["name"] == "label"] == [[8]]
    assert json.loads(diagnosis)["model_name"] == "diagnosis"
    assert json.loads(foreign)["code"] == "model_not_found"
    voices = [said(chat) for chat in chats]
    assert len(voices) == 3 and all(voices), voices  # one may be as short as "A splary."
    assert len(set(voices)) == 3, voices  # the base, and two adapters of it


def test_the_printed_lines_work(demo):
    first = demo()
    assert first.count("/novelist created") == 1 and first.count("Adapter ") == 2  # one base, lent, with two voices
    check(first)
    assert demo.stop() == 0
    check(demo())  # the same folder: the keys are still there
    assert demo.stop() == 0


def test_a_model_of_ones_own(demo, folder):
    """What README.md says to a user with a GGUF file and a LoRA, done with the example's; but for cores and memory, of which
    this machine may have fewer."""
    text = demo()
    port = re.search(r"http://127.0.0.1:(\d+)", text).group(1)
    keys = dict(line.split() for line in (folder / "data/demo-keys").read_text().splitlines())
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("### A language model of your own"):readme.index("## Use it")]
    yaml, commands = re.findall(r"```(?:yaml)?\n(.*?)```", section, re.S)
    (folder / "chat.yaml").write_text(re.sub(r"cpu: \d+, memory: \d+Gi", "cpu: 1, memory: 512Mi", yaml))
    shutil.copy(ROOT / "examples/models/novelist.gguf", folder / "my-model.gguf")
    shutil.copy(ROOT / "examples/models/cynic.gguf", folder / "my-lora.gguf")
    for here, there in (("build/bulkhead", str(BUILD / "bulkhead")), ("demo-data", str(folder / "data")), (":8080", ":" + port)):
        assert here in commands
        commands = commands.replace(here, there)
    ran = subprocess.run(["bash", "-ec", commands], cwd=folder, capture_output=True, text=True, timeout=CEILING_S,
                         env={**os.environ, "ACME": keys["acme"]}, check=True).stdout
    assert "Model acme/chat created" in ran and "Adapter acme/support created" in ran
    answer = json.loads(ran.splitlines()[-1])
    assert answer["model"] == "support" and answer["choices"][0]["message"]["content"]
    assert demo.stop() == 0
