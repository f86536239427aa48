#include "ladder/ladder_advice.h"

const struct ladder_question ladder_questions[LADDER_QUESTION_COUNT] = {
    [LADDER_CRITICAL] = {"critical",
                         "What does a wrong or missing answer of this model cost?",
                         {"no", "money", "patient"},
                         {"an inconvenience", "money, or a contract", "it can hurt a patient"}},
    [LADDER_REGULATED] = {"regulated",
                          "Must the software around it be what was examined?",
                          {"no", "regulated", "locked"},
                          {"no", "auditors ask what exactly ran",
                           "certified as it is: it may not change, not even for fixes"}},
    [LADDER_NEIGHBOURS] = {"neighbours",
                           "Who else's models run on this host?",
                           {"none", "trusted", "untrusted"},
                           {"nobody's", "others', and they are trusted like ours",
                            "others', and nobody vouches for them"}},
    [LADDER_LATENCY] = {"latency",
                        "How much time may the wall add to one request?",
                        {"relaxed", "normal", "tight"},
                        {"tens of milliseconds", "some milliseconds", "less than one millisecond"}},
    [LADDER_BURST] = {"burst",
                      "Do requests come in bursts, after times of quiet?",
                      {"no", "yes"},
                      {"no, or a slow first answer is fine", "yes, and the first answer must be quick"}},
    [LADDER_LEGACY] = {"legacy",
                       "Does it need an operating system other than the host's?",
                       {"no", "libraries", "kernel"},
                       {"no", "older or other libraries", "another kernel"}},
};

int ladder_answer_find(enum ladder_question_id question, struct str answer)
{
    for (int i = 0; ladder_questions[question].answers[i]; i++)
        if (str_equal(answer, str_from(ladder_questions[question].answers[i])))
            return i;
    return -1;
}

#define ANSWER(index) (1u << (index))
#define CRITICAL      (ANSWER(1) | ANSWER(2))
#define UNTRUSTED     ANSWER(2)
#define LOCKED        ANSWER(2)

const struct ladder_rule ladder_rules[] = {
    {{[LADDER_CRITICAL] = CRITICAL, [LADDER_NEIGHBOURS] = UNTRUSTED},
     LADDER_RAISE,
     LADDER_MICROVM,
     "nobody vouches for what its neighbours run, and the damage would be great: a flaw in the host's kernel alone "
     "must not be enough to reach it"},
    {{[LADDER_REGULATED] = LOCKED, [LADDER_NEIGHBOURS] = UNTRUSTED},
     LADDER_RAISE,
     LADDER_MICROVM,
     "a stack that may not be changed keeps its flaws: who breaks it must find only a guest's kernel"},
    {{[LADDER_LEGACY] = ANSWER(2)}, LADDER_RAISE, LADDER_MICROVM, "only a virtual machine has a kernel of its own"},
    {{[LADDER_LEGACY] = ANSWER(1)}, LADDER_RAISE, LADDER_CONTAINER, "an image brings its own libraries"},
    {{[LADDER_REGULATED] = LOCKED},
     LADDER_RAISE,
     LADDER_CONTAINER,
     "what was certified is an image, pinned by its digest; the host's libraries may change without touching it"},
    {{[LADDER_REGULATED] = ANSWER(1)},
     LADDER_RAISE,
     LADDER_CONTAINER,
     "the digest of an image says exactly what ran; as a wall it is no stronger than process"},
    {{[LADDER_CRITICAL] = CRITICAL},
     LADDER_RAISE,
     LADDER_PROCESS,
     "a crash of another tenant's model must not touch its requests, nor that model its memory"},
    {{[LADDER_NEIGHBOURS] = UNTRUSTED},
     LADDER_RAISE,
     LADDER_PROCESS,
     "what nobody vouches for never runs in the same process"},
    {{[LADDER_NEIGHBOURS] = ANSWER(0)},
     LADDER_RAISE,
     LADDER_PROCESS,
     "alone on the host, it has nobody to share a worker with"},
    {{[LADDER_BURST] = ANSWER(1)},
     LADDER_RAISE,
     LADDER_POOL,
     "a blank worker with the engine loaded waits for the first request after a time of quiet"},
    {{0},
     LADDER_RAISE,
     LADDER_SHARED,
     "nothing in the answers asks for a worker of its own, and sharing one saves memory"},
    {{[LADDER_BURST] = ANSWER(1)},
     LADDER_KEEP_WARM,
     LADDER_PROCESS,
     "a start at this level takes the time below, so one replica is kept running for the first request of a burst"},
    {{[LADDER_LATENCY] = ANSWER(2)},
     LADDER_WARN,
     LADDER_MICROVM,
     "each request goes into a virtual machine and back: measure whether that fits less than one millisecond"},
    {{[LADDER_LATENCY] = ANSWER(2), [LADDER_NEIGHBOURS] = ANSWER(1) | UNTRUSTED},
     LADDER_WARN,
     LADDER_SHARED,
     "neighbours compete for caches and cores: a tight latency budget wants cores of its own, at any level"},
    {{[LADDER_CRITICAL] = CRITICAL, [LADDER_NEIGHBOURS] = UNTRUSTED},
     LADDER_WARN,
     LADDER_SHARED,
     "no level contains timing side channels: only a host of its own does"},
    {.reason = NULL},
};

static bool holds(const struct ladder_rule *rule, const uint8_t *answers)
{
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++)
        if (rule->answers[q] && !(rule->answers[q] & ANSWER(answers[q])))
            return false;
    return true;
}

void ladder_advise(const uint8_t answers[static LADDER_QUESTION_COUNT], enum ladder_level minimum,
                   struct ladder_advice *ret_advice)
{
    struct ladder_advice advice = {.level = LADDER_NONE};
    for (const struct ladder_rule *rule = ladder_rules; rule->reason; rule++)
        if (rule->effect == LADDER_RAISE && rule->level > advice.level && holds(rule, answers))
            advice.level = rule->level;
    advice.by_minimum = minimum > advice.level;
    advice.level = advice.by_minimum ? minimum : advice.level;
    for (const struct ladder_rule *rule = ladder_rules; rule->reason && advice.n_rules < LADDER_RULES_MAX; rule++) {
        bool counts = rule->effect == LADDER_RAISE ? rule->level == advice.level : rule->level <= advice.level;
        if (!counts || !holds(rule, answers))
            continue;
        advice.rules[advice.n_rules++] = rule;
        advice.keep_warm = advice.keep_warm || rule->effect == LADDER_KEEP_WARM;
    }
    *ret_advice = advice;
}
