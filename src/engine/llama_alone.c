/* Whether two or three sequences get their tokens in one call or in a call each.
 *
 * ggml's kernels for some rows of quantised weights are made for four and more: on a Zen 4, with one thread, a token of
 * a model of 0.1 billion parameters in Q8_0 takes 6 ms, and one each of two sequences 20 ms in one call. With many
 * threads it is the other way round, since then a call takes as long as its weights take to come from memory. So both
 * are measured while they run, and the slower way is tried again now and then. A sequence's numbers are the same either
 * way. */
#include "engine/llama_internal.h"

#define WEIGHT  8u   /* of all that was measured so far, over that of a new figure, and one */
#define AGAIN   256u /* choices between two tries of the slower way */
#define PERCENT 95u  /* of a common call's time that calls of their own may take together */

void llama_alone_note(struct llama *l, uint32_t n, uint64_t took_ns)
{
    if (n > LLAMA_ALONE_MAX)
        return;
    uint64_t *mean_ns = &l->alone.call_ns[n];
    *mean_ns = *mean_ns == 0 ? took_ns : *mean_ns - *mean_ns / WEIGHT + took_ns / WEIGHT;
}

bool llama_alone_choose(struct llama *l, uint32_t n)
{
    struct llama_alone *a = &l->alone;
    if (n < 2 || n > LLAMA_ALONE_MAX || !l->fills_gaps)
        return false;
    if (a->call_ns[n] == 0)
        return false; /* each is tried first of all */
    bool alone = a->call_ns[1] == 0 || n * a->call_ns[1] * 100 < a->call_ns[n] * PERCENT;
    return (++a->n_choices % AGAIN == 0) != alone;
}
