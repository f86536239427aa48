"""Greedy answers over HTTP against those of llama.cpp's own server, on this machine, of the same GGUF, token for token: the bare
base, and each of its adapters.

`make test` asks some of the prompts, `make soak` (BULKHEAD_SOAK) all 100. The figures are printed: pytest -s."""
import concurrent.futures
import functools
import os
import sys
import threading

import pytest

from conftest import ROOT, model_yaml, tenant_yaml
from test_adapters import adapter_yaml

sys.path.insert(0, str(ROOT / "test/tools"))

import llama_reference  # noqa: E402  (behind the path that finds it)

EXAMPLES = ROOT / "examples/models"
MODEL = EXAMPLES / "novelist.gguf"
VOICES = (None, "scribe", "cynic")  # the bare base, and its adapters
PROMPTS = llama_reference.prompts(100)
ASKED = PROMPTS if os.environ.get("BULKHEAD_SOAK") else PROMPTS[:5] + PROMPTS[15::15]
TOKENS = 48
END = "<|end|>"  # a token for llama.cpp's server; ours tells it as the reason of the end
OTHERS = 16
NEAR = 1e-3  # two best so close count as a tie
# As our engine has it: the sums of flash attention are of 16 bits, and repacked weights are summed up in another order.
OPTIONS = ("-fa", "off", "--no-repack")


@pytest.fixture(scope="module", params=VOICES, ids=lambda voice: voice or "base")
def voice(request):
    return request.param


@pytest.fixture(scope="module")
def reference(voice):
    """prompt -> what llama.cpp's server answers, with the text of each token by itself."""
    assert llama_reference.SERVER.exists(), "llama-server is not built: tools/deps install --test"
    adapters = [EXAMPLES / f"{voice}.gguf"] if voice else []
    with llama_reference.Server(MODEL, adapters, options=OPTIONS) as server:
        @functools.cache
        def piece(token):
            return server.post("/detokenize", {"tokens": [token]})["content"]

        found = {}
        for prompt in ASKED:
            answer = server.greedy(prompt, TOKENS, 0 if voice else None)
            tokens = answer["tokens"]
            ended = piece(tokens[-1]) == END
            found[prompt] = {**answer, "ended": ended, "pieces": [piece(token) for token in tokens[:len(tokens) - ended]]}
        yield found


@pytest.fixture
def novelist(server, voice):
    """The base, and its adapters, which a request may name; .model is what is compared."""
    server.apply(tenant_yaml("acme") + model_yaml("novelist", "acme", str(MODEL), "llama",
                                                  resources={"cpu": 1, "memory": "512Mi"}) +
                 "".join(adapter_yaml(name, "acme", "novelist", EXAMPLES / f"{name}.gguf") for name in VOICES if name))
    server.acme, server.model = server.key("acme"), voice or "novelist"
    return server


def ask(server, prompt, model=None, **more):
    answer = server.http("POST", "/v1/completions", server.acme,
                         {"model": model or server.model, "prompt": prompt, "temperature": 0, "max_tokens": TOKENS, "logprobs": 2,
                          "cache_prompt": False, **more})
    assert answer.status == 200, answer.body
    return answer.json


def check_whole(answer, wanted):
    choice = answer["choices"][0]
    assert answer["usage"]["prompt_tokens"] == wanted["prompt_tokens"], wanted["prompt"]
    assert choice["logprobs"]["tokens"] == wanted["pieces"], wanted["prompt"]
    assert choice["text"] == wanted["text"], wanted["prompt"]
    assert choice["finish_reason"] == ("stop" if wanted["ended"] else "length"), wanted["prompt"]


def difference(tokens, wanted):
    """The first place where they differ, None: nowhere."""
    for place, (one, other) in enumerate(zip(tokens, wanted)):
        if one != other:
            return place
    return None if len(tokens) == len(wanted) else min(len(tokens), len(wanted))


def test_alone_every_token_is_the_references(novelist, reference):
    for prompt in ASKED:
        check_whole(ask(novelist, prompt), reference[prompt])
    print(f"\n{novelist.model}, alone: {len(ASKED)} prompts, {sum(len(r['pieces']) for r in reference.values())} tokens, all equal")


def keep_busy(server, number, stopping, done):
    for count in range(1 << 30):
        if stopping.is_set():
            return
        prompt = PROMPTS[(number * 7 + count) % len(PROMPTS)]
        model = (VOICES[count % len(VOICES)] or "novelist") if number % 2 else None
        done.append(ask(server, prompt, model, temperature=1, seed=count, ignore_eos=True, logprobs=None)["usage"]["completion_tokens"])


def gaps_of(wanted, alone):
    """Where the reference does not tell them for every token, those of our own answer alone, whose tokens are the same."""
    if wanted["gap"]:
        return wanted["gap"]
    best = [sorted(place.values(), reverse=True) for place in alone["choices"][0]["logprobs"]["top_logprobs"]]
    return [values[0] - values[1] if len(values) > 1 else 0.0 for values in best]


def test_in_company_only_what_is_close_differs(novelist, reference):
    """Equal up to the first place where the reference could hardly tell its two best apart. Half of the others ask the same
    voice and share its batches, half all of them in turn."""
    alone = {prompt: ask(novelist, prompt) for prompt in ASKED}
    stopping, done, differ, equal = threading.Event(), [], [], 0
    with concurrent.futures.ThreadPoolExecutor(OTHERS) as pool:
        others = [pool.submit(keep_busy, novelist, i, stopping, done) for i in range(OTHERS)]
        try:
            for prompt in ASKED:
                wanted, tokens = reference[prompt], ask(novelist, prompt)["choices"][0]["logprobs"]["tokens"]
                place = difference(tokens, wanted["pieces"])
                equal += len(tokens) if place is None else place
                if place is not None:
                    gaps = gaps_of(wanted, alone[prompt])
                    assert min(gaps[:place + 1]) < NEAR, (prompt, place, gaps[place])
                    differ.append(gaps[place])
        finally:
            stopping.set()
    assert all(other.result() is None for other in others) and len(done) > OTHERS
    print(f"\n{novelist.model}, beside {OTHERS} others ({len(done)} answers of theirs): {len(ASKED) - len(differ)} of {len(ASKED)} equal to "
          f"the end, {len(differ)} to the first tie, where the two best are {[round(gap, 6) for gap in differ]} apart; {equal} tokens equal")
