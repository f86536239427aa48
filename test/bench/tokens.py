"""Language models: GGUF files of random weights, llama.cpp's own server as the peer, and clients that read streams of tokens.

The clients are one loop over all connections and keep what comes with its time; it is made sense of after the run, so that
they take little of the machine that they share with the server."""

import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time

from measure import spread
from servers import TREE, BenchError, Server, wait_for

PATH = "/v1/completions"
FIRST_WORD = 300  # the ids below are bytes and specials in gguf_random's vocabularies
SILENCE_S_MAX, READY_S_MAX = 300, 120
SETTLE_S = 0.5  # before a run: threads of llama-server spin for 0.14 s behind its last answer, and take a core from who is next
END = b"\r\n0\r\n\r\n"  # of an answer in chunks
TEXT = re.compile(rb'"text":"[^"]')
TICKS = os.sysconf("SC_CLK_TCK")


class Files:
    """Random models and adapters, made once in a folder; see test/tools/gguf_random.py."""

    def __init__(self, folder):
        self.folder = folder

    def make(self, name, *options):
        path = os.path.join(self.folder, name + ".gguf")
        if not os.path.exists(path):
            subprocess.run([sys.executable, os.path.join(TREE, "test", "tools", "gguf_random.py"), path, *options], check=True)
        return path


class LlamaServer(Server):
    """llama.cpp's own server, built on the same ready libraries; `slots` places of `context` tokens each."""

    def __init__(self, model, name="llama-server", slots=1, context=1024, threads=1, options=()):
        super().__init__(name)
        self.program = os.path.join(TREE, "build", "deps", "llama-server", "llama-server")
        self.options = ["-m", model, "-np", slots, "-c", slots * context, "-t", threads, "-tb", threads, "--no-ui",
                        "--host", "127.0.0.1", "--log-verbosity", 0, *options]

    def begin(self):
        if not os.access(self.program, os.X_OK):
            raise BenchError("llama-server is not built: tools/deps install --bench")
        self.start([self.program, *map(str, self.options), "--port", str(self.port)])
        wait_for(self.name, lambda: self.check_alive() and self.ready(), READY_S_MAX)

    def ready(self):
        try:
            return self.post(PATH, {}, json.dumps({"prompt": [FIRST_WORD], "max_tokens": 1}))[0] == 200
        except OSError:
            return False


class Group:
    """Several servers that stand for one."""

    def __init__(self, servers):
        self.servers, self.name = servers, "%d x %s" % (len(servers), servers[0].name)

    def processes(self):
        return {pid: role for server in self.servers for pid, role in server.processes().items()}

    def check_alive(self):
        return all(server.check_alive() for server in self.servers)


class Job:
    """One request: so many tokens of prompt, made of `rng`, and so many of an answer."""

    def __init__(self, rng, vocabulary, prompt, answer):
        self.answer = answer
        self.body = {"prompt": [rng.randrange(FIRST_WORD, vocabulary) for _ in range(prompt)], "max_tokens": answer,
                     "temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": True,
                     "stream_options": {"include_usage": True}}

    def request(self, model, key, more):
        body = json.dumps({"model": model, **self.body, **more}).encode()
        lines = ["POST %s HTTP/1.1" % PATH, "Host: bench", "Connection: close", "Authorization: Bearer " + key, "Content-Type: application/json",
                 "Content-Length: %d" % len(body), "", ""]
        return "\r\n".join(lines).encode() + body


class Lane:
    """Sends one request after the other, each on a connection of its own, which llama-server closes after a stream."""

    def __init__(self, port, jobs, model, key, more=()):
        self.port, self.jobs, self.answers = port, list(jobs), []
        self.requests = [job.request(model, key, dict(more)) for job in self.jobs]
        self.sock, self.pieces, self.tail, self.begin_s = None, [], b"", 0.0

    def send(self, selector):
        """The next request, if there is one."""
        if len(self.answers) == len(self.requests):
            return
        self.pieces, self.tail, self.begin_s = [], b"", time.monotonic()
        self.sock = socket.create_connection(("127.0.0.1", self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(self.requests[len(self.answers)])
        selector.register(self.sock, selectors.EVENT_READ, self)

    def read(self, selector):
        """Takes what came; after the end of an answer the next request goes out."""
        data = self.sock.recv(1 << 16)
        self.pieces.append((time.monotonic(), data))
        self.tail = (self.tail + data)[-len(END):]
        if data and self.tail != END and not (len(self.pieces) == 1 and b" 200 " not in data[:16]):
            return
        self.answers.append((self.begin_s, self.pieces))
        selector.unregister(self.sock)
        self.sock.close()
        self.send(selector)


def answer_of(job, begin_s, pieces):
    """What one stream was like: first_s, last_s and times_s of pieces (since it was asked for), tokens, prompt, cached."""
    data = b"".join(piece for _, piece in pieces)
    if not data.startswith(b"HTTP/1.1 200 "):
        raise BenchError("a stream was refused: %s" % data[:600])
    usage = [json.loads(line).get("usage") for line in re.findall(rb"data: (\{.*\})\r?\n", data)][-1:]
    usage = usage[0] if usage else None
    if not usage or usage["completion_tokens"] != job.answer or b"data: [DONE]" not in data:
        raise BenchError("a stream of %d tokens ended otherwise: %s" % (job.answer, data[-600:]))
    text, came, times = TEXT.search(data), 0, [when - begin_s for when, piece in pieces if b"data: " in piece]
    for first, piece in pieces:  # until the one that brings the first text
        came += len(piece)
        if text and came >= text.end():
            break
    return {"first_s": first - begin_s, "last_s": pieces[-1][0] - begin_s, "times_s": times,
            "tokens": usage["completion_tokens"], "prompt": usage["prompt_tokens"],
            "cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)}


def play(lanes):
    """Runs all lanes at the same time, each to its end; their answers in the order of the jobs, and the seconds it took."""
    selector, begin_s = selectors.DefaultSelector(), time.monotonic()
    for lane in lanes:
        lane.send(selector)
    while selector.get_map():
        ready = selector.select(SILENCE_S_MAX)
        if not ready:
            raise BenchError("no server said anything for %d s" % SILENCE_S_MAX)
        for key, _ in ready:
            key.data.read(selector)
    seconds = time.monotonic() - begin_s
    selector.close()
    return [answer_of(job, *answer) for lane in lanes for job, answer in zip(lane.jobs, lane.answers)], seconds


# --- what a run used -----------------------------------------------------------------------------------------------------

def cpu_s(pid):
    """Processor time of a process so far; 0 when it is gone."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    except OSError:
        return 0.0


def machine_s():
    """Seconds of all processors so far: user, nice, system, idle, wait, irq, softirq, steal."""
    with open("/proc/stat", encoding="ascii") as file:
        return [int(word) / TICKS for word in file.readline().split()[1:9]]


def pss(server):
    """Bytes of memory of all processes of a server, a page that several use by its part."""
    total = 0
    for pid in server.processes():
        with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as file:
            total += sum(1024 * int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


class Use:
    """What a server, we and others took of the machine from when this is made to end()."""

    def __init__(self, server):
        self.server, self.pids, self.begin_s = server, server.processes(), time.monotonic()
        self.before = sum(map(cpu_s, self.pids)), time.process_time(), machine_s()

    def end(self):
        """used_s of the server, and what load_notes() asks for."""
        seconds = time.monotonic() - self.begin_s
        used, own = sum(map(cpu_s, self.pids)) - self.before[0], time.process_time() - self.before[1]
        parts = [b - a for a, b in zip(self.before[2], machine_s())]
        _, _, _, idle, wait, _, _, steal = parts
        self.server.check_alive()
        total = max(sum(parts), 1e-9)
        return {"used_s": used, "generator_idle": 1 - own / seconds, "steal": steal / total,
                "others": max(0.0, sum(parts) - idle - wait - steal - used - own) / total}


def measured(server, lanes):
    """One run: tokens_per_s, first_ms (the median), cpu_us per token, and what a Use tells."""
    time.sleep(SETTLE_S)
    use = Use(server)
    answers, seconds = play(lanes)
    found = use.end()
    tokens = sum(a["tokens"] for a in answers)
    return {**found, "tokens_per_s": tokens / seconds, "tokens": tokens, "answers": answers, "seconds": seconds,
            "first_ms": spread([1e3 * a["first_s"] for a in answers])["median"], "cpu_us": 1e6 * found["used_s"] / tokens}
