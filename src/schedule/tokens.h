/* Who gets the next place in a language model's running batch: the Virtual Token Counter, weighted.
 *
 * Sheng, Cao, Li, Zhu, Li, Zhuo, Gonzalez, Stoica: Fairness in Serving Large Language Models, OSDI '24, Algorithm 2.
 * Each tenant that shares a batch (or the batches of a model's replicas) has a counter of the tokens it was served,
 * those of prompts counting SCHEDULE_TOKEN_INPUT (w_p), those of answers SCHEDULE_TOKEN_OUTPUT (w_q), over its weight.
 * A free place goes to the waiting tenant of least counter; a prompt is charged when it gets its place, an answer token
 * by token. Who comes to wait is lifted to the least counter of those that wait, or, where nobody does, to that of the
 * last one that left: idle time earns nothing.
 *
 * What holds (there Theorem 4.4, by way of Lemma 4.3; there with equal weights): while tenants f and g both wait from
 * t1 to t2, W the weighted tokens they were served in between,
 *
 *     |Wf/wf − Wg/wg| ≤ U/wf + U/wg ≤ 2U        U = max(w_p × L_input, w_q × M)
 *
 * L_input the longest prompt, M the tokens that the running batch can hold, prompts and answers; w_p ≤ w_q. Why: when f
 * gets a place its counter is the least, so no more than g's. Until it gets another, its counter grows by that prompt
 * and by what its sequences in the batch then still answer, all of which fit M: at most w_p L + w_q (M − L) ≤ U. Who
 * waits has no less than the least counter, which never goes back, and who comes is lifted to it. So counters of two
 * that wait are never further apart than U/wf on one side and U/wg on the other.
 *
 * Where the one of least counter may not have a free place, another one that has no sequence in the batch may, if it
 * would be next were the first one's prompt charged, and if its counter is no more than w_q × (M − R)/wf beyond the
 * least, R the longest prompt and answer together: with that sequence it then comes to no more than U/wf beyond, as
 * above.
 *
 * A prompt's length is known only once the worker has cut it into tokens; until then it is charged as `expected`. What
 * that is too much, over the tenant's weight and summed over its sequences that wait to be corrected, comes on top for
 * each side.
 *
 * Pure: no clock, no allocation, one thread. A step costs O(log n) amortised, n the tenants that wait. Counters are
 * kept modulo 2^64 in 2^-20 weighted tokens; two of one batch may be 2^43 apart. */
#ifndef BULKHEAD_SCHEDULE_TOKENS_H
#define BULKHEAD_SCHEDULE_TOKENS_H

#include "schedule/schedule.h"

/* As the paper has them in its measurements, and as tokens are priced in the field. */
#define SCHEDULE_TOKEN_INPUT  1u
#define SCHEDULE_TOKEN_OUTPUT 2u

/* A tenant in one batch and class. Zeroed by the caller; stays where it is until schedule_tokens_forget. */
struct schedule_tokens_account {
    /* read-only */
    uint64_t count;
    bool waits;
    /* private */
    struct schedule_order_node _node;
};

/* What shares a running batch. Zeroed by the caller. */
struct schedule_tokens {
    /* private */
    struct schedule_order_node *_waiting;  /* by count */
    struct schedule_tokens_account *_left; /* the last that left; NULL: nobody, or it is forgotten … */
    uint64_t _left_count;                  /* … with this count */
};

/* A sequence in the batch. */
struct schedule_tokens_ticket {
    /* private */
    uint64_t _per_token; /* of a weighted token: the weight of its admission, so that a correction is exact */
    uint32_t _input;     /* tokens of its prompt that are charged */
};

/* Requests of it wait from now on, or (leave) none does any more. Twice is as good as once. */
void schedule_tokens_wait(struct schedule_tokens *t, struct schedule_tokens_account *a);
void schedule_tokens_leave(struct schedule_tokens *t, struct schedule_tokens_account *a);
/* Who is next, or NULL: nobody waits. Among equals it is not said who. */
struct schedule_tokens_account *schedule_tokens_next(const struct schedule_tokens *t);

/* Of one that may not have a place though it is next; that would have its sequence's prompt charged: weight ≥ 1. */
struct schedule_tokens_barred {
    uint32_t weight, expected;
};

/* Whether an account of such a weight that has nothing in the batch may have the place instead; `most`: M − R. */
bool schedule_tokens_may_pass(const struct schedule_tokens *t, const struct schedule_tokens_account *a, uint32_t weight,
                              uint32_t most, const struct schedule_tokens_barred *next);

/* A sequence of it gets a place, whose prompt is thought to have so many tokens (0 counts as 1); weight ≥ 1. */
void schedule_tokens_admit(struct schedule_tokens *t, struct schedule_tokens_account *a,
                           struct schedule_tokens_ticket *ticket, uint32_t weight, uint32_t expected);
/* So many tokens of its prompt are to be worked on, or were: known now, or known better. */
void schedule_tokens_input(struct schedule_tokens *t, struct schedule_tokens_account *a,
                           struct schedule_tokens_ticket *ticket, uint32_t input);
/* So many more tokens of its answer. */
void schedule_tokens_output(struct schedule_tokens *t, struct schedule_tokens_account *a,
                            const struct schedule_tokens_ticket *ticket, uint32_t output);

/* The account goes; it must not wait. */
void schedule_tokens_forget(struct schedule_tokens *t, struct schedule_tokens_account *a);

#endif
