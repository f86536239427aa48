#!/usr/bin/python3
"""What llama.cpp's own server answers: the reference that ours is compared with, made anew on each machine.

    test/tools/llama_reference.py [--model M.gguf] [--adapter A.gguf]... [--prompts N] [--tokens N] > reference.json

Default: the example model with both of its adapters. For the bare base and each adapter alone it decodes N prompts greedily,
one at a time, without any cache, and prints one JSON object a line:

    {"adapter": NAME or null, "prompt": TEXT, "prompt_tokens": N, "text": TEXT, "tokens": [ID, ...],
     "gap": [...]}      per token: best logarithm of a probability minus the second best; null where the server does not
                        tell it for every token, as when one ends within a character

'tools/deps install --test' builds the server. Floating point sums depend on the processor and on what is in a batch, so the
answers are no data to keep: compare with a run on the same machine with the same model, threads and batch sizes.
"""
import argparse
import contextlib
import http.client
import json
import pathlib
import random
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = ROOT / "build/deps/llama-server/llama-server"
EXAMPLES = ROOT / "examples/models"
START_S_MAX = 120

TOPICS = ("love", "marriage", "the sea", "money", "friends", "the king", "war", "wisdom", "death", "bread", "a fool", "the heart",
          "happiness", "pride", "a letter", "the house", "children", "truth", "the law", "fire")
OPENINGS = ("It was a truth", "In the beginning", "She could not but", "And it came to pass", "A person who",
            "Mr. Darcy", "The greatest of all", "There was in the land", "What is", "He had never been so")
ODD = ("", " ", "\n\n", "a", "Zürich, naïve café: 5 £ – “quoted”", "日本語のテキスト", "🙂🙃", "{\"json\": [1, 2, 3]}", "1234567890",
       "ALL IN CAPITALS", "tab\tand\r\nline", "x" * 300, "the " * 120, "<|user|> is text here", "C'est déjà l'été.")


def prompts(count):
    """The same count prompts each time: short, long, of odd bytes, and in the model's own style."""
    rng, found = random.Random(6), list(ODD)
    while len(found) < count:
        parts = [rng.choice(OPENINGS)] + [rng.choice(TOPICS) for _ in range(rng.randrange(1, 4))]
        text = " and ".join(parts)
        if rng.randrange(4) == 0:
            text = " ".join([text + "."] * rng.randrange(2, 12))
        found.append(text)
    return found[:count]


class Server:
    """A llama-server on a port of the kernel's choice, as a context manager."""

    def __init__(self, model, adapters=(), slots=1, context=2048, threads=1, options=()):
        self.adapters = [pathlib.Path(adapter) for adapter in adapters]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [SERVER, "-m", model, "--host", "127.0.0.1", "--port", str(self.port), "-np", str(slots),
                        "-c", str(context * slots), "-t", str(threads), "-tb", str(threads), "--no-warmup", *options]
        for adapter in self.adapters:
            self.command += ["--lora", adapter]
        if self.adapters:
            self.command.append("--lora-init-without-apply")

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + START_S_MAX
            while not self.ready():
                if self.process.poll() is not None:
                    raise RuntimeError("llama-server ended with %d" % self.process.returncode)
                if time.monotonic() > end:
                    raise RuntimeError("llama-server did not get ready in %d s" % START_S_MAX)
                time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ready(self):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def post(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError("%s: %d %s" % (path, response.status, answer))
        return answer

    def greedy(self, prompt, tokens, adapter=None):
        """adapter: its place in the list given to the constructor, or None for the bare base."""
        answer = self.post("/completion", {
            "prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": 2, "return_tokens": True,
            "cache_prompt": False, "lora": [{"id": i, "scale": float(i == adapter)} for i in range(len(self.adapters))]})
        gaps = []
        for place in answer["completion_probabilities"]:
            best = [entry["logprob"] for entry in place["top_logprobs"]]
            gaps.append(round(best[0] - best[1], 6))
        if [place["id"] for place in answer["completion_probabilities"]] != answer["tokens"]:
            gaps = None
        return {"adapter": None if adapter is None else self.adapters[adapter].stem, "prompt": prompt,
                "prompt_tokens": answer["tokens_evaluated"], "text": answer["content"], "tokens": answer["tokens"], "gap": gaps}


def reference(model, adapters, count, tokens):
    with Server(model, adapters) as server:
        for adapter in [None, *range(len(adapters))]:
            for prompt in prompts(count):
                yield server.greedy(prompt, tokens, adapter)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EXAMPLES / "novelist.gguf")
    parser.add_argument("--adapter", action="append")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    adapters = options.adapter
    if adapters is None:
        adapters = [EXAMPLES / "scribe.gguf", EXAMPLES / "cynic.gguf"] if str(options.model).startswith(str(EXAMPLES)) else []
    if not SERVER.exists():
        sys.exit("llama_reference.py: %s is not built: tools/deps install --test" % SERVER)
    for entry in reference(options.model, adapters, options.prompts, options.tokens):
        print(json.dumps(entry, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
