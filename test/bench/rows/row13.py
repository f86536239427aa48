"""Row 13, fair tokens: two tenants on one language model, which one of them lends the other, with and without a batch in common.

Shares: both always have more waiting than there are places, with weights 3:1, short prompts and long answers against long prompts
and short answers: who is served how many tokens, those of answers counted twice, by which the Virtual Token Counter gives places.

A chat beside long prompts, weights alike: one tenant sends 32 long prompts at once, over and over; the other one asks one short
question after the other, a tenth of a second after each answer. Its time to the first token and between tokens, over those of the same chat without the long prompts:
beside as many answers of its own as the others had under way (the same shape of batch, but for their prompts), and on an empty
server, which is shown only."""

import contextlib
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from cases import figure, load_notes, target
from measure import spread
from rows.row10 import first_answer
from servers import Bulkhead, BenchError
from tokens import Files, Job, Lane, Use, answer_of, play

NUMBER = 13
TITLE = "fair tokens: weights 3:1 on one model; a chat beside another tenant's 32 long prompts"
MODELS, VOCABULARY, WORDS_FROM, CPU, MEMORY_MIB = {"quick": "small", "talk": "0.01B"}, 320, 20, 1, 512  # for shares, for chats
SHARES, ALIKE = {"acme": 3, "bob": 1}, {"acme": 1, "bob": 1}
WAITING = 96  # requests of each tenant, for 32 places: also when all that are there end at once
SHORT, LONG = (8, 64), (160, 16)  # tokens of prompt and answer
QUESTION, PAUSE_S, STORM, STORM_CLIENTS = (8, 32), 0.1, (512, 32), 32
ROUNDS_MAX = 5
SHARE_S_MAX, CHAT_S_MAX, WARM_S = 15.0, 8.0, 2.0
SHARE_FACTOR, CHAT_FACTOR = 10, 6  # of the length of a run
ANSWERS_MIN = 3  # of a chat
SHARE_ERROR_MAX, FIRST_MAX, BETWEEN_MAX = 0.05, 1.5, 1.3
TENANT = """apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: %s}
spec: {weight: %d, quota: {requestsPerMinute: 1000000000, queueDepth: 1024}}
---
"""
RESOURCES = """apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: %(name)s, tenant: acme}
spec:
  engine: llama
  source: %(source)s
  isolation: {level: shared}
  resources: {cpu: %(cpu)d, memory: %(memory)dMi}
  replicas: {min: 1, max: 1}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Grant
metadata: {name: lend-%(name)s, tenant: acme}
spec: {model: %(name)s, tenants: [bob], sharedBatch: %(shared)s}
---
"""


class Again(Lane):
    """Asks the same kind of question again and again, until a time, or (None) once."""

    def __init__(self, who, port, key, model, shape, until_s=None):
        super().__init__(port, [], model, key)
        self.who, self.key, self.model, self.shape, self.until_s = who, key, model, shape, until_s
        self.rng = random.Random("%s %r" % (who, id(self)))

    def send(self, selector):
        if time.monotonic() >= self.until_s if self.until_s else self.answers:
            return
        prompt, answer = self.shape
        job = Job(self.rng, VOCABULARY, 0, answer)
        job.body["prompt"] = [self.rng.randrange(WORDS_FROM, VOCABULARY) for _ in range(prompt)]
        self.jobs.append(job)
        self.requests.append(job.request(self.model, self.key, {}))
        super().send(selector)

    def found(self):
        """(when it was asked, what answer_of tells) of each."""
        return [(answer[0], answer_of(job, *answer)) for job, answer in zip(self.jobs, self.answers)]


class World:
    """A server with the lent models; files: {name: path}."""

    def __init__(self, stack, files, shared_batch):
        self.name = "a batch in common" if shared_batch else "turns of their own"
        self.server = stack.enter_context(Bulkhead("".join(TENANT % item for item in SHARES.items()) + "".join(
            RESOURCES % {"name": name, "source": path, "cpu": CPU, "memory": MEMORY_MIB, "shared": str(shared_batch).lower()}
            for name, path in files.items()), (), "  timeouts: {request: 5m}\n"))
        self.keys = {name: self.server.make_keys(name, 1)[0] for name in SHARES}
        for key in self.keys.values():
            for name in files:
                first_answer(self.server, key, name)
        self.shares, self.chats, self.uses = [], [], []

    def weigh(self, weights):
        self.server.command("apply", "-f", self.server.file("weights.yaml", "".join(TENANT % item for item in weights.items())))

    def play(self, model, seconds, *groups):
        """Lanes of groups (how many, whose, of which shape), which began together and have all ended; and when they began."""
        begin_s = time.monotonic()
        lanes = [Again(who, self.server.port, self.keys[who], model, shape, begin_s + WARM_S + seconds)
                 for count, who, shape in groups for _ in range(count)]
        use = Use(self.server)
        play(lanes)
        if lanes:
            self.uses.append(use.end())
        return lanes, begin_s

    def share(self, seconds):
        """Tokens of weight 3 over those of weight 1."""
        self.weigh(SHARES)
        lanes, begin_s = self.play("quick", seconds, (WAITING, "acme", SHORT), (WAITING, "bob", LONG))
        tokens = {name: served([lane for lane in lanes if lane.who == name], begin_s + WARM_S, begin_s + WARM_S + seconds)
                  for name in SHARES}
        if 0 in tokens.values():
            raise BenchError("a tenant was served nothing for %.1f s" % seconds)
        self.shares.append(tokens["acme"] / tokens["bob"])

    def questions(self, until_s):
        """One after the other, as Again.found tells of them."""
        found = []
        while time.monotonic() < until_s:
            lane = Again("bob", self.server.port, self.keys["bob"], "talk", QUESTION)
            play([lane])
            found += lane.found()
            time.sleep(PAUSE_S)
        return found

    def beside(self, seconds, *groups):
        """What bob's chat feels beside these, and the lanes of these."""
        begin_s = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.questions, begin_s + WARM_S + seconds)
            lanes, _ = self.play("talk", seconds, *groups)
        return felt(asked.result(), begin_s), lanes, begin_s + WARM_S

    def chat(self, seconds):
        """What bob's chat feels: beside the long prompts, beside answers of its own, alone."""
        self.weigh(ALIKE)
        beside, lanes, from_s = self.beside(seconds, (STORM_CLIENTS, "acme", STORM))
        beside["under_way"] = sum(max(0, min(asked + a["last_s"], from_s + seconds) - max(asked + a["first_s"], from_s))
                                  for lane in lanes for asked, a in lane.found()) / seconds
        shape, _, _ = self.beside(seconds, (max(1, round(beside["under_way"])), "bob", QUESTION))
        alone, _, _ = self.beside(seconds)
        self.chats.append({"beside": beside, "shape": shape, "alone": alone})

    def ratios(self, what, base):
        return [chat["beside"][what] / chat[base][what] for chat in self.chats]


def served(lanes, from_s, to_s):
    """Weighted tokens that came in that time."""
    total = 0.0
    for asked, a in (found for lane in lanes for found in lane.found()):
        times = a["times_s"]
        pieces = [(a["first_s"], a["prompt"] - a["cached"])] + [(when, 2 * a["tokens"] / len(times)) for when in times]
        total += sum(n for when, n in pieces if from_s <= asked + when < to_s)
    return total


def felt(found, begin_s):
    """Medians over the answers that were asked for once all was under way."""
    answers = [a for asked, a in found if asked >= begin_s + WARM_S]
    if len(answers) < ANSWERS_MIN:
        raise BenchError("a chat got %d answers only" % len(answers))
    return {"answers": len(answers), "first_ms": 1e3 * statistics.median(a["first_s"] for a in answers),
            "between_ms": 1e3 * statistics.median((a["last_s"] - a["first_s"]) / (a["tokens"] - 1) for a in answers)}


def one_round(world, settings, progress, text):
    world.share(min(SHARE_S_MAX, SHARE_FACTOR * settings.run_ms / 1e3))
    progress("%s, %s: tokens %.2f" % (text, world.name, world.shares[-1]))
    world.chat(min(CHAT_S_MAX, CHAT_FACTOR * settings.run_ms / 1e3))
    progress("  chat, first token and between tokens: " + ", ".join(
        "%s %.1f and %.2f ms (%d)" % (name, c["first_ms"], c["between_ms"], c["answers"]) for name, c in world.chats[-1].items()) +
        "; %.1f long ones' answers under way" % world.chats[-1]["beside"]["under_way"])


def figures(world):
    found = [figure(world.name + ": tokens of weight 3 over those of weight 1", "", world.shares)]
    for base, name in (("shape", "the same shape of batch"), ("alone", "an empty server")):
        found += [figure("  chat, first token, beside long prompts over " + name, "x", world.ratios("first_ms", base)),
                  figure("  chat, between tokens, likewise", "x", world.ratios("between_ms", base))]
    return found


def targets(world):
    share, wanted = spread(world.shares)["median"], SHARES["acme"] / SHARES["bob"]
    first, between = (spread(world.ratios(what, "shape"))["median"] for what in ("first_ms", "between_ms"))
    return [target(world.name + ": tokens 3:1", "3 within 5 %", share, abs(share / wanted - 1) <= SHARE_ERROR_MAX),
            target("  chat's first token", "<= %.1f" % FIRST_MAX, first, first <= FIRST_MAX),
            target("  chat's time between tokens", "<= %.1f" % BETWEEN_MAX, between, between <= BETWEEN_MAX)]


def run(settings, progress):
    with contextlib.ExitStack() as stack:
        files = Files(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-bench-")))
        models = {name: files.make(name, "--size", size) for name, size in MODELS.items()}
        worlds = [World(stack, models, shared) for shared in (True, False)]
        rounds = min(settings.pairs, ROUNDS_MAX)
        for i in range(rounds):
            for world in worlds:
                one_round(world, settings, progress, "round %d of %d" % (i + 1, rounds))
    return {
        "title": TITLE,
        "figures": [f for world in worlds for f in figures(world)],
        "targets": [t for world in worlds for t in targets(world)],
        "notes": load_notes([use for world in worlds for use in world.uses]),
        "runs": {world.name: {"shares": world.shares, "chats": world.chats} for world in worlds},
        "plots": [{"title": "A chat beside another tenant's 32 long prompts: time to the first token", "unit": "ms", "lines": {}, "bars": [
            {"label": world.name, "series": {name: spread([chat[key]["first_ms"] for chat in world.chats]) for key, name in (
                ("alone", "an empty server"), ("shape", "the same shape"), ("beside", "beside long prompts"))}} for world in worlds]}],
    }
