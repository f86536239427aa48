"""Row 12, what a tenant can learn of another's prompts by the time its own take. Two tenants use one lent model in one worker, in a
batch in common, in turns of their own, or with an adapter for each; a prompt's beginning is sent by one of them, or another beginning of that length, by the toss of a coin; then the prober asks for an
answer to a prompt that begins so. A classifier over all that it sees (time to the first token, between tokens, to the end, counts
of pieces and what the server says was cached) tries to tell which it was: of another tenant's it must do no better than chance, of
its own it must be right (or this probe would find nothing)."""

import contextlib
import random
import tempfile

from cases import figure, load_notes, target
from classifier import auc, separability
from lending import lent
from measure import spread
from rows.row10 import first_answer
from servers import Bulkhead
from tokens import Files, Job, Lane, Use, play

NUMBER = 12
TITLE = "is a prefix cached? a classifier over the times that a prober sees"
MODEL, VOCABULARY = ("--size", "small"), 320
PREFIX, SUFFIX, ANSWER = 384, 8, 6
ADAPTER = ("--adapter", "4")
WAYS = {"a batch in common": {"shared": True}, "turns of their own": {"shared": False}, "an adapter each": {"shared": True}}
ADAPTED = "an adapter each"
TENANTS = ("prober", "other")
TRIALS_EACH = 125  # a pair, of another's beginnings, in each way
TRIALS_MIN = 1000  # then chance alone stays within 0.45 to 0.55 in 99 of 100 runs
OWN_EACH = 4       # of as many trials one is of an own beginning, which is told apart at once
CHANCE, OWN_WANTED = (0.45, 0.55), 0.9
CPU, MEMORY_MIB = 1, 512


class Prober:
    """Two tenants on a server of their own, in one of the ways; seen: {who: (samples, labels)}."""

    def __init__(self, stack, way, files, rng):
        self.rng, self.model = rng, "base:voice" if way == ADAPTED else "base"
        adapters = [files.make(name, *MODEL, *ADAPTER, "--seed", str(i)) for i, name in enumerate(TENANTS)] if way == ADAPTED else ()
        self.server = stack.enter_context(Bulkhead(lent(files.make("probed", *MODEL), CPU, MEMORY_MIB, TENANTS, adapters, **WAYS[way]), ()))
        self.keys = {name: self.server.make_keys(name, 1)[0] for name in TENANTS}
        for key in self.keys.values():
            first_answer(self.server, key, self.model)
        self.seen = {name: ([], []) for name in TENANTS}
        self.use = Use(self.server)

    def ask(self, who, tokens, answer):
        job = Job(self.rng, VOCABULARY, 0, answer)
        job.body.update(prompt=tokens, cache_prompt=True)
        answers, _ = play([Lane(self.server.port, [job], self.model, self.keys[who])])
        return answers[0]

    def words(self, count):
        return [self.rng.randrange(20, VOCABULARY) for _ in range(count)]

    def trial(self, who, sent):
        """What `prober` sees when `who` has sent the beginning before, or (sent: 0) another one."""
        beginning, other = self.words(PREFIX), self.words(PREFIX)
        self.ask(who, (beginning if sent else other) + self.words(SUFFIX), 1)
        seen = self.ask("prober", beginning + self.words(SUFFIX), ANSWER)
        gaps = [b - a for a, b in zip(seen["times_s"], seen["times_s"][1:])]
        samples, labels = self.seen[who]
        samples.append([seen["first_s"], seen["last_s"], max(gaps, default=0), sum(gaps), len(seen["times_s"]), seen["cached"]])
        labels.append(sent)

    def found(self, who):
        """AUC of the classifier and of the first token alone; times to that, when the beginning was sent before and when not."""
        samples, labels = self.seen[who]
        miss, hit = ([1e3 * s[0] for s, label in zip(samples, labels) if label == wanted] for wanted in (0, 1))
        return {"all": separability(samples, labels), "first": auc([-s for s in hit], [-s for s in miss]), "hit": hit, "miss": miss,
                "count": len(samples)}


def figures(way, who, found):
    return [figure("%s, %s: AUC of the classifier, %d trials" % (way, who, found["count"]), "", [found["all"]], "%.3f"),
            figure("  AUC of the time to first token alone", "", [found["first"]], "%.3f"),
            figure("  time to first token, sent before", "ms", found["hit"]),
            figure("  time to first token, not sent", "ms", found["miss"])]


def targets(way, other, own):
    return [target("AUC, another's prefix, %s" % way, "%.2f to %.2f" % CHANCE, other["all"], CHANCE[0] <= other["all"] <= CHANCE[1]),
            target("  of the first token's time alone", "%.2f to %.2f" % CHANCE, other["first"],
                   CHANCE[0] <= other["first"] <= CHANCE[1]),
            target("  its own prefix, first token's time", ">= %.1f" % OWN_WANTED, own["first"], own["first"] >= OWN_WANTED)]


def run(settings, progress):
    rng = random.Random(11)
    trials = max(TRIALS_MIN, TRIALS_EACH * settings.pairs)
    order = [(way, who, sent) for way in WAYS for who, count in (("other", trials), ("prober", trials // OWN_EACH)) for sent in (0, 1)
             for _ in range((count + 1) // 2)]
    rng.shuffle(order)
    with contextlib.ExitStack() as stack:
        files = Files(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-bench-")))
        probers = {way: Prober(stack, way, files, rng) for way in WAYS}
        for i, (way, who, sent) in enumerate(order):
            probers[way].trial(who, sent)
            if (i + 1) % 250 == 0:
                progress("trial %d of %d" % (i + 1, len(order)))
        notes = load_notes([prober.use.end() for prober in probers.values()])
    found = {way: {who: prober.found(who) for who in TENANTS} for way, prober in probers.items()}
    return {
        "title": TITLE,
        "figures": [f for way in WAYS for who, name in (("other", "another's"), ("prober", "its own"))
                    for f in figures(way, name, found[way][who])],
        "targets": [t for way in WAYS for t in targets(way, found[way]["other"], found[way]["prober"])],
        "notes": notes,
        "runs": {way: {who: {"samples": samples, "labels": labels} for who, (samples, labels) in prober.seen.items()}
                 for way, prober in probers.items()},
        "plots": [{"title": "Time to first token by what was sent before, and by whom", "unit": "ms", "lines": {}, "bars": [
            {"label": "%s, %s" % (way, name), "series": {"the beginning": spread(found[way][who]["hit"]),
                                                         "something else": spread(found[way][who]["miss"])}}
            for way in WAYS for who, name in (("other", "another tenant"), ("prober", "the prober itself"))]}],
    }
