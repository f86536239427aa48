/* Which level a model needs: questions, and one table of rules that turns the answers into a level with its reasons.
 *
 * Pure. What a host can do, and what a level costs there, is the caller's to find out and to say; the rules never make
 * a level lower because of it. docs/advise.md is generated from these tables. */
#ifndef BULKHEAD_LADDER_ADVICE_H
#define BULKHEAD_LADDER_ADVICE_H

#include "ladder/ladder.h"

#define LADDER_ANSWERS_MAX 3u

enum ladder_question_id {
    LADDER_CRITICAL = 0,
    LADDER_REGULATED,
    LADDER_NEIGHBOURS,
    LADDER_LATENCY,
    LADDER_BURST,
    LADDER_LEGACY,
    LADDER_QUESTION_COUNT
};

struct ladder_question {
    const char *name;                            /* of the flag, and of the member in a file */
    const char *text;                            /* as asked */
    const char *answers[LADDER_ANSWERS_MAX + 1]; /* NULL-terminated; the harmless one first */
    const char *meanings[LADDER_ANSWERS_MAX];
};
extern const struct ladder_question ladder_questions[LADDER_QUESTION_COUNT];
/* Index of an answer, or -1. */
int ladder_answer_find(enum ladder_question_id question, struct str answer);

enum ladder_effect {
    LADDER_RAISE = 0, /* the level is at least `level` */
    LADDER_KEEP_WARM, /* where the level came out at `level` or higher: one replica always runs */
    LADDER_WARN       /* likewise: says so */
};

struct ladder_rule {
    uint8_t answers[LADDER_QUESTION_COUNT]; /* mask of answers that it holds for; 0: any */
    enum ladder_effect effect;
    enum ladder_level level;
    const char *reason;
};
/* In this order; those that raise stand before those that look at the level. Ends with a row whose reason is NULL. */
extern const struct ladder_rule ladder_rules[];
#define LADDER_RULES_MAX 24u

struct ladder_advice {
    enum ladder_level level;
    bool keep_warm;
    bool by_minimum;                                   /* only the tenant's floor demands this level */
    const struct ladder_rule *rules[LADDER_RULES_MAX]; /* that hold, in the table's order; a rule that raises is here
                                                          only when no other raises further */
    uint32_t n_rules;
};

/* answers[q] is an index into the question's answers; minimum is the tenant's floor, LADDER_NONE when there is none. */
void ladder_advise(const uint8_t answers[static LADDER_QUESTION_COUNT], enum ladder_level minimum,
                   struct ladder_advice *ret_advice);

#endif
