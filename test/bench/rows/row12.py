"""Row 12, what a tenant can learn of another's prompts by the time its own take. Two tenants use one lent model in one worker; a
prompt's beginning is sent by one of them, or another beginning of that length, by the toss of a coin; then the prober asks for an
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
TRIALS_EACH = 125  # a pair; of others' and of own beginnings
TRIALS_MIN = 1000  # of each: then chance stays within 0.45 to 0.55 in 9,999 runs of 10,000
CHANCE, OWN_WANTED = (0.45, 0.55), 0.9
CPU, MEMORY_MIB = 1, 512


class Prober:
    def __init__(self, server, keys, rng):
        self.server, self.keys, self.rng = server, keys, rng

    def ask(self, who, tokens, answer):
        job = Job(self.rng, VOCABULARY, 0, answer)
        job.body.update(prompt=tokens, cache_prompt=True)
        answers, _ = play([Lane(self.server.port, [job], "base", self.keys[who])])
        return answers[0]

    def words(self, count):
        return [self.rng.randrange(20, VOCABULARY) for _ in range(count)]

    def trial(self, who, sent):
        """What `prober` sees when `who` has sent the beginning before, or (sent: 0) another one."""
        beginning, other = self.words(PREFIX), self.words(PREFIX)
        self.ask(who, (beginning if sent else other) + self.words(SUFFIX), 1)
        seen = self.ask("prober", beginning + self.words(SUFFIX), ANSWER)
        gaps = [b - a for a, b in zip(seen["times_s"], seen["times_s"][1:])]
        return [seen["first_s"], seen["last_s"], max(gaps, default=0), sum(gaps), len(seen["times_s"]), seen["cached"]]


def run(settings, progress):
    rng = random.Random(11)
    trials = max(TRIALS_MIN, TRIALS_EACH * settings.pairs)
    order = [(who, sent) for who in ("other", "prober") for sent in (0, 1) for _ in range((trials + 1) // 2)]
    rng.shuffle(order)
    seen = {"other": ([], []), "prober": ([], [])}
    with contextlib.ExitStack() as stack:
        files = Files(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-bench-")))
        server = stack.enter_context(Bulkhead(lent(files.make("probed", *MODEL), CPU, MEMORY_MIB, ("prober", "other")), ()))
        keys = {name: server.make_keys(name, 1)[0] for name in seen}
        for key in keys.values():
            first_answer(server, key, "base")
        prober, use = Prober(server, keys, rng), Use(server)
        for i, (who, sent) in enumerate(order):
            samples, labels = seen[who]
            samples.append(prober.trial(who, sent))
            labels.append(sent)
            if (i + 1) % 250 == 0:
                progress("trial %d of %d" % (i + 1, len(order)))
        notes = load_notes([use.end()])
    found = {}
    for who, (samples, labels) in seen.items():
        first = [[s[0] for s, label in zip(samples, labels) if label == wanted] for wanted in (0, 1)]
        found[who] = {"all": separability(samples, labels), "first": auc([-s for s in first[1]], [-s for s in first[0]]),
                      "miss_ms": [1e3 * s for s in first[0]], "hit_ms": [1e3 * s for s in first[1]]}
    other, own = found["other"], found["prober"]
    return {
        "title": TITLE,
        "figures": [figure("another tenant's: AUC of the classifier, %d trials" % len(seen["other"][0]), "", [other["all"]], "%.3f"),
                    figure("  AUC of the time to first token alone", "", [other["first"]], "%.3f"),
                    figure("  time to first token, sent before", "ms", other["hit_ms"]),
                    figure("  time to first token, not sent", "ms", other["miss_ms"]),
                    figure("its own: AUC of the classifier, %d trials" % len(seen["prober"][0]), "", [own["all"]], "%.3f"),
                    figure("  AUC of the time to first token alone", "", [own["first"]], "%.3f"),
                    figure("  time to first token, sent before", "ms", own["hit_ms"]),
                    figure("  time to first token, not sent", "ms", own["miss_ms"])],
        "targets": [target("AUC, another tenant's prefix", "%.2f to %.2f" % CHANCE, other["all"],
                           CHANCE[0] <= other["all"] <= CHANCE[1]),
                    target("AUC of the first token's time, another's", "%.2f to %.2f" % CHANCE, other["first"],
                           CHANCE[0] <= other["first"] <= CHANCE[1]),
                    target("AUC, its own prefix, time to first token", ">= %.1f" % OWN_WANTED, own["first"],
                           own["first"] >= OWN_WANTED)],
        "notes": notes,
        "runs": {who: {"samples": samples, "labels": labels} for who, (samples, labels) in seen.items()},
        "plots": [{"title": "Time to first token by what was sent before, and by whom", "unit": "ms", "lines": {}, "bars": [
            {"label": "another tenant", "series": {"the beginning": spread(other["hit_ms"]), "something else": spread(other["miss_ms"])}},
            {"label": "the prober itself", "series": {"the beginning": spread(own["hit_ms"]), "something else": spread(own["miss_ms"])}}]}],
    }
