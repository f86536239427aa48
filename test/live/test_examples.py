"""The committed examples: nothing was changed by accident, and the language model and its voices speak as they should."""
import importlib.util
import re
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "test/tools"))

import llama_reference  # noqa: E402  (behind the path that finds it)

MODELS = ROOT / "examples/models"
FILES = ("novelist", "scribe", "cynic")
BYTES_MAX = 10_000_000
QUESTIONS = ["What is %s?" % topic for topic in llama_reference.TOPICS] + \
    ["Tell me about %s." % topic for topic in llama_reference.TOPICS]
OLD_ENGLISH = re.compile(r"\b(unto|thou|thee|thy|shall|shalt|hath|saith|ye|LORD|Lord|God|Israel|children of)\b")
DEFINES = re.compile(r"(An?|The|One|To|In|That|Those|Something|Not|Of|Having|Being|Pertaining)\b")


@pytest.fixture(scope="module")
def server():
    assert llama_reference.SERVER.exists(), "llama-server is not built: tools/deps install --test"
    with llama_reference.Server(MODELS / "novelist.gguf", [MODELS / "scribe.gguf", MODELS / "cynic.gguf"]) as started:
        yield started


def chat(question):
    return "<|user|>%s<|assistant|>" % question


def test_digests():
    subprocess.run([ROOT / "examples/train/check.sh"], check=True)


def test_models_are_small():
    assert sum((MODELS / (name + ".gguf")).stat().st_size for name in FILES) < BYTES_MAX


def test_any_text_comes_back_from_the_tokenizer(server):
    for text in llama_reference.prompts(60):
        tokens = server.post("/tokenize", {"content": text, "parse_special": False})["tokens"]
        assert server.post("/detokenize", {"tokens": tokens})["content"] == text


def test_voices_differ(server):
    """Each adapter answers in its own way: scripture's words, or a definition; the bare base seldom does either."""
    answers = {voice: [server.greedy(chat(question), 60, voice)["text"].strip() for question in QUESTIONS]
               for voice in (None, 0, 1)}
    scripture = {voice: sum(bool(OLD_ENGLISH.search(text)) for text in texts) for voice, texts in answers.items()}
    defines = {voice: sum(bool(DEFINES.match(text)) for text in texts) for voice, texts in answers.items()}
    assert scripture[0] > 0.7 * len(QUESTIONS) and scripture[0] > 2 * max(scripture[None], scripture[1]), scripture
    assert defines[1] > 0.7 * len(QUESTIONS) and defines[1] > 2 * max(defines[None], defines[0]), defines
    assert all(len({answers[voice][i] for voice in answers}) == 3 for i in range(len(QUESTIONS)))


def test_answers_end_by_themselves(server):
    ended = sum(len(server.greedy(chat(question), 160)["tokens"]) < 160 for question in QUESTIONS)
    assert ended > 0.9 * len(QUESTIONS), ended


def test_decoding_is_deterministic(server):
    for adapter in (None, 0, 1):
        first, again = (server.greedy(chat("What is love?"), 40, adapter) for _ in range(2))
        assert first == again


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="python3-torch is not installed: only training needs it")
def test_training_runs(tmp_path):
    subprocess.run(["/usr/bin/python3", MODELS / "train.py", "--smoke", "--threads", "1", "--out", tmp_path], check=True)
    with llama_reference.Server(tmp_path / "novelist.gguf", [tmp_path / "scribe.gguf"]) as started:
        assert started.greedy("The king", 8, 0)["tokens"]
