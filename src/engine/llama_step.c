/* A turn: steps, each of a token for each sequence that generates, then of tokens of prompts, shared among the tenants
 * whose prompts are not worked off, or, while others wait for their next token, LLAMA_PREFILL_BUSY for one after the
 * other.
 *
 * llama.cpp computes neighbouring streams together that get equally many tokens, and anything else one after the other,
 * in one decode call or in several; so every call is one such computation. That of a sequence is the same in any
 * company: one token, or two at least of a prompt that has two, since ggml has other kernels for one, whose sums come
 * in another order (llama_rows.c). */
#include "engine/llama_internal.h"

#include "base/clock.h"

/* On processors, of weights that a call reads once for several tokens (fills_gaps), 16 tokens cost about twice as much
 * as 4: where several sequences generate, a few tokens more cost less than another call. */
#define GAP_ANSWERS_MIN 4u
#define GAP_MAX         2u
/* A block of 16 tokens of repacked Q4_K takes 38 ms, 15 take 53, and 12 take 44; but each looks at as many cells as the
 * longest, 0.3 ms for 256 of them. */
#define BLOCK_MISSING_MAX 4u
#define BLOCK_CELLS_MAX   4096u /* of all that are missing */

struct step {
    struct llama *l;
    const struct engine_turn *turn;
    const struct engine_token_sink *sink;
    struct error *err;
    uint32_t only;      /* adapter of those that get their next token; 0: all of the turn */
    uint32_t n_answers; /* of them */
    bool each_alone;    /* each of them gets a call of its own */
    uint64_t filled;    /* streams that got a token which nobody wants */
};

/* A sequence whose adapter is not there is of any turn's kind, so that it comes to its end. */
static bool allowed(const struct step *t, const struct llama_sequence *s)
{
    return s->state != LLAMA_FREE && !s->parked && (t->turn->tenant_id == 0 || s->tenant_id == t->turn->tenant_id) &&
           (llama_adapter_is(t->l, s->g.adapter, t->turn->kind) || !llama_adapter_loaded(t->l, s->g.adapter));
}

/* A new sequence waits until there is a stream for it. */
static bool admit(struct step *t, struct llama_sequence *s)
{
    if (s->id >= 0)
        return true;
    if (!llama_stream_take(t->l, s))
        return false;
    s->n_cached = s->n_done;
    return true;
}

static void token_put(struct llama *l, struct llama_sequence *s, uint32_t index, bool answer)
{
    struct llama_batch *b = &l->batch;
    b->token[b->n_tokens] = s->tokens[index];
    b->pos[b->n_tokens] = (llama_pos)index;
    b->n_seq_id[b->n_tokens] = 1;
    b->seq_id[b->n_tokens][0] = s->id;
    b->logits[b->n_tokens] = answer;
    if (answer)
        s->row = b->n_tokens;
    b->n_tokens++;
}

static void tokens_put(struct llama *l, struct llama_sequence *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        token_put(l, s, s->n_done + i, s->n_done + i + 1 == s->n_tokens);
    s->n_given = n;
}

static bool prefills(const struct llama_sequence *s)
{
    return llama_left_of(s) > 1;
}

static bool runs(const struct step *t, const struct llama_sequence *s)
{
    return allowed(t, s) && s->state == LLAMA_RUNNING && s->id >= 0;
}

static void batch_clear(struct llama *l)
{
    l->batch.n_tokens = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        l->sequences[i].row = -1;
        l->sequences[i].n_given = 0;
    }
}

/* Those whose prompts are not worked off, the oldest first. */
static uint32_t prompts_of(const struct step *t, struct llama_sequence *found[LLAMA_SEQUENCES])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        struct llama_sequence *s = &t->l->sequences[i];
        if (!runs(t, s) || !prefills(s))
            continue;
        uint32_t at = n++;
        for (; at > 0 && found[at - 1]->age > s->age; at--)
            found[at] = found[at - 1];
        found[at] = s;
    }
    return n;
}

/* How many tokens each of them gets in one call, so that nothing of one token is left of any; 0: that cannot be. */
static uint32_t part_of(struct llama_sequence *const group[], uint32_t n)
{
    uint32_t most = LLAMA_PART_TOKENS / n;
    for (uint32_t i = 0; i < n; i++)
        most = group[i]->n_wanted < most ? group[i]->n_wanted : most;
    for (uint32_t part = most; part >= 2 && part + 1 >= most; part--) {
        bool fits = true;
        for (uint32_t i = 0; i < n; i++)
            fits = fits && group[i]->n_wanted - part != 1;
        if (fits)
            return part;
    }
    return 0;
}

/* The next call: neighbours of one adapter, from the first stream on, whose prompts get something in this step. False:
 * nobody's. */
static bool prompts_put(struct step *t)
{
    struct llama *l = t->l;
    struct llama_sequence *group[LLAMA_SEQUENCES];
    uint32_t n = 0, part = 0;
    batch_clear(l);
    for (uint32_t i = 0; i < l->token.sequences; i++) {
        struct llama_sequence *s = l->streams[i].owner;
        bool wants = s && runs(t, s) && s->n_wanted > 0 && (n == 0 || s->g.adapter == group[0]->g.adapter);
        if (!wants && n > 0)
            break;
        if (!wants)
            continue;
        group[n] = s;
        uint32_t together = part_of(group, n + 1);
        if (together == 0)
            break;
        part = together;
        n++;
    }
    for (uint32_t i = 0; i < n; i++) {
        tokens_put(l, group[i], part);
        group[i]->n_wanted -= part;
    }
    return n > 0;
}

static bool answers(const struct step *t, uint32_t id)
{
    const struct llama_sequence *s = t->l->streams[id].owner;
    return s && runs(t, s) && !prefills(s) && (t->only == 0 || s->g.adapter == t->only);
}

/* Of an adapter's turn only where that was already, or another one of its kind, which computes what is put there:
 * nothing of it may get anywhere else. */
static bool fillable(const struct step *t, uint32_t from, uint32_t to)
{
    bool fits = true;
    for (uint32_t i = from; i < to && fits; i++) {
        uint32_t taint = t->l->streams[i].taint;
        fits = answers(t, i) || t->turn->kind == 0 ||
               (llama_adapter_is(t->l, taint, t->turn->kind) && (t->only == 0 || taint == t->only));
    }
    return fits;
}

/* A token that nobody wants, forgotten after the call. */
static void token_fill(struct step *t, uint32_t id)
{
    struct llama_batch *b = &t->l->batch;
    b->token[b->n_tokens] = 0;
    b->pos[b->n_tokens] = (llama_pos)llama_stream_end(t->l, id);
    b->n_seq_id[b->n_tokens] = 1;
    b->seq_id[b->n_tokens][0] = (llama_seq_id)id;
    b->logits[b->n_tokens++] = false;
    t->l->streams[id].rests = false;
    t->filled |= UINT64_C(1) << id;
}

struct span {
    uint32_t from, to; /* streams */
};

/* A kernel for so many rows at once takes less time for all than for some fewer one after the other. */
static bool block_of(const struct step *t, uint32_t first, struct span *ret_span)
{
    const struct llama *l = t->l;
    if (l->block == 0 || l->block > l->token.sequences)
        return false;
    uint32_t highest = l->token.sequences - l->block, from = first < highest ? first : highest, to = from + l->block;
    uint32_t missing = l->block, longest = 0;
    for (uint32_t i = first; i < to; i++) {
        if (!answers(t, i))
            continue;
        missing--;
        longest = l->streams[i].owner->n_tokens > longest ? l->streams[i].owner->n_tokens : longest;
    }
    *ret_span = (struct span){from, to};
    return missing <= BLOCK_MISSING_MAX && missing * longest <= BLOCK_CELLS_MAX && fillable(t, from, to);
}

/* What is called together from the stream `first` on, which answers. In llama.cpp a gap between streams ends a
 * computation, and another one reads all weights again; a token that nobody wants costs less. */
static struct span span_of(const struct step *t, uint32_t first)
{
    const struct llama *l = t->l;
    struct span span;
    if (block_of(t, first, &span))
        return span;
    if (t->each_alone)
        return (struct span){first, first + 1};
    uint32_t gap_max = l->fills_gaps && t->n_answers >= GAP_ANSWERS_MIN ? GAP_MAX : 0;
    span = (struct span){first, first + 1};
    for (uint32_t i = first + 1; i < l->token.sequences && i - span.to <= gap_max; i++)
        if (answers(t, i) && fillable(t, span.to, i))
            span.to = i + 1;
    return span;
}

/* Who computes the rows of the call: each answer's and prompt's sequence's own adapter, and in a gap whose it was. */
static int adapters_put(struct step *t, bool one_each)
{
    struct llama *l = t->l;
    const struct llama_batch *b = &l->batch;
    const struct llama_adapter *first = NULL;
    for (int32_t i = 0; i < b->n_tokens; i++) {
        const struct llama_stream *m = &l->streams[b->seq_id[i][0]];
        bool given = m->owner && m->owner->n_given > 0;
        const struct llama_adapter *a =
            t->turn->kind > 0 ? llama_adapter_find(l, given ? m->owner->g.adapter : m->taint) : NULL;
        if (i == 0) {
            first = a;
            llama_adapter_use(l, a);
            llama_rows_begin(l, a ? a->of : NULL, one_each);
        }
        if ((t->turn->kind > 0 && !a) || (a && a->of != first->of))
            return error_set(t->err, ERROR_ENGINE, "A call has rows of adapters that are not of one kind.");
        if (a)
            llama_rows_add(l, a, b->logits[i]);
    }
    return 0;
}

static int decode(struct step *t, bool one_each)
{
    struct llama *l = t->l;
    if (l->batch.n_tokens == 0)
        return 0;
    int status, r = adapters_put(t, one_each);
    if (r < 0)
        return r;
    uint32_t rows = (uint32_t)l->batch.n_tokens;
    uint64_t start_ns = clock_monotonic_ns();
    while (!llama_pace_decode(l, l->context, l->batch, false, &status)) {
        llama_rows_again(l);
        for (uint32_t i = 0; i < l->token.sequences; i++)
            llama_stream_cut(l, i);
    }
    if (one_each && t->filled == 0)
        llama_alone_note(l, rows, clock_monotonic_ns() - start_ns);
    for (uint32_t i = 0; t->filled >> i; i++)
        if (t->filled >> i & 1)
            llama_stream_cut(l, i);
    t->filled = 0;
    if (!llama_rows_done(l) || status != 0)
        return error_set(t->err, ERROR_ENGINE, "The model could not be stepped further.");
    l->copied = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        l->sequences[i].n_done += l->sequences[i].n_given;
    return 0;
}

/* --- what came of it --- */

static int answered(struct step *t, struct llama_sequence *s)
{
    struct llama *l = t->l;
    struct generation_token token;
    struct error err = {0};
    int r = llama_sample(l, s, &token, &err);
    if (r < 0)
        return llama_end(l, s, t->sink, GENERATION_ERROR, r, &err);
    bool over = l->api->llama_vocab_is_eog(l->vocab, token.id) && !(s->g.flags & GENERATION_IGNORE_END);
    char piece[TOKEN_PIECE_BYTES];
    int32_t n =
        over ? 0
             : l->api->llama_token_to_piece(l->vocab, token.id, piece, sizeof piece, 0, llama_chat_keeps(s, token.id));
    if (n < 0)
        return llama_end(l, s, t->sink, GENERATION_ERROR,
                         error_set(&err, ERROR_ENGINE,
                                   "The model gave a token whose "
                                   "text is too long to be served."),
                         &err);
    if (!over)
        s->tokens[s->n_tokens++] = token.id;
    uint32_t answer = s->n_tokens - s->n_prompt;
    bool full = !over && (answer >= s->g.max_tokens || s->n_tokens >= l->token.context);
    size_t size = token_text_add(&s->text, (struct str){piece, (size_t)n}, over || full, l->text);
    bool last = over || full || s->text.stopped;
    r = llama_answer_tell(l, s, t->sink, (struct str){l->text, size}, over ? NULL : &token, last);
    bool enough = s->chat && l->api->llama_chat_enough(s->chat);
    if (r < 0 || !(last || enough))
        return r;
    bool calls = s->chat && l->api->llama_chat_calls(s->chat) > 0;
    return llama_end(l, s, t->sink,
                     !over && !s->text.stopped && !enough ? GENERATION_LENGTH
                     : calls                              ? GENERATION_TOOL_CALLS
                                                          : GENERATION_STOP,
                     0, NULL);
}

static int results_give(struct step *t)
{
    struct llama *l = t->l;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        struct llama_sequence *s = &l->sequences[i];
        if (s->state != LLAMA_RUNNING || s->n_given == 0)
            continue;
        struct generation_event progress = llama_event(s, GENERATION_EVENT_PROGRESS);
        int r = s->row >= 0 ? answered(t, s) : llama_tell(l, s, t->sink, &progress, NULL);
        if (r < 0)
            return r;
    }
    return 0;
}

static int call(struct step *t, bool one_each)
{
    int r = decode(t, one_each);
    return r < 0 ? r : results_give(t);
}

static uint32_t answers_count(const struct step *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->l->token.sequences; i++)
        n += answers(t, i);
    return n;
}

/* A token for each that generates, in the order of the streams. */
static int answers_of(struct step *t, uint32_t only)
{
    struct llama *l = t->l;
    struct span span;
    int r = 0;
    t->only = only;
    t->n_answers = answers_count(t);
    t->each_alone = llama_alone_choose(l, t->n_answers);
    for (uint32_t first = 0; first < l->token.sequences && r == 0 && t->n_answers > 0; first = span.to) {
        span = (struct span){first, first + 1};
        if (!answers(t, first))
            continue;
        span = span_of(t, first);
        batch_clear(l);
        for (uint32_t i = span.from; i < span.to; i++) {
            if (i >= first && answers(t, i))
                tokens_put(l, l->streams[i].owner, 1);
            else
                token_fill(t, i);
        }
        r = call(t, true);
    }
    t->only = 0;
    return r;
}

/* Together, or those of one adapter after the other, where a computation has not shown yet that they can be. */
static int answers_step(struct step *t)
{
    struct llama *l = t->l;
    bool together = true;
    int r = 0;
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED; i++)
        if (l->adapters[i].number > 0 && l->adapters[i].kind == t->turn->kind)
            together = l->adapters[i].of->seen && !l->adapters[i].of->odd;
    if (together)
        return answers_of(t, 0);
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED && r == 0; i++)
        if (l->adapters[i].number > 0 && l->adapters[i].kind == t->turn->kind)
            r = answers_of(t, l->adapters[i].number);
    return r;
}

static struct llama_sequence *oldest_without_stream(const struct step *t)
{
    struct llama_sequence *found = NULL;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        struct llama_sequence *s = &t->l->sequences[i];
        if (allowed(t, s) && s->state == LLAMA_RUNNING && s->id < 0 && (!found || s->age < found->age))
            found = s;
    }
    return found;
}

static bool tenant_prefills(const struct step *t, uint64_t tenant_id)
{
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        const struct llama_sequence *s = &t->l->sequences[i];
        if (s->tenant_id == tenant_id && allowed(t, s) && s->state == LLAMA_RUNNING && prefills(s))
            return true;
    }
    return false;
}

/* The oldest of a tenant that has no prompt to be worked on yet, so that nobody's comes behind all of another's; else
 * the oldest. */
static struct llama_sequence *unready_next(const struct step *t)
{
    struct llama_sequence *found = NULL;
    bool found_first = false;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++) {
        struct llama_sequence *s = &t->l->sequences[i];
        if (!allowed(t, s) || s->state != LLAMA_WAITING)
            continue;
        bool first = !tenant_prefills(t, s->tenant_id);
        if (found && (first < found_first || (first == found_first && s->age > found->age)))
            continue;
        found = s;
        found_first = first;
    }
    return found;
}

/* Prompts are made ready for LLAMA_PREPARE_NS of each step, one at least, so that many at once delay nobody for longer.
 */
static int ready_make(struct step *t)
{
    struct llama_sequence *s;
    uint64_t start_ns = clock_monotonic_ns();
    int r = 0;
    while (r == 0 && (s = unready_next(t)) != NULL) {
        struct error err = {0};
        r = llama_prepare(t->l, s, &err);
        if (r < 0)
            r = llama_end(t->l, s, t->sink, GENERATION_ERROR, r, &err);
        if (clock_monotonic_ns() - start_ns > LLAMA_PREPARE_NS)
            break;
    }
    while (r == 0 && (s = oldest_without_stream(t)) != NULL && admit(t, s))
        ;
    return r;
}

/* Those whose adapter is not there, or not any more. */
static int orphans_end(struct step *t)
{
    struct llama *l = t->l;
    int r = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES && r == 0; i++) {
        struct llama_sequence *s = &l->sequences[i];
        struct error err = {0};
        if (!allowed(t, s) || llama_adapter_loaded(l, s->g.adapter))
            continue;
        int status = error_set(&err, ERROR_INVALID_REQUEST, "There is no adapter %u in this worker.", s->g.adapter);
        r = llama_end(l, s, t->sink, GENERATION_ERROR, status, &err);
    }
    return r;
}

static int step(struct step *t)
{
    struct llama *l = t->l;
    int r = orphans_end(t);
    if (r == 0)
        r = ready_make(t);
    for (uint32_t i = 0; i < LLAMA_SEQUENCES && r == 0; i++)
        if (allowed(t, &l->sequences[i]) && l->sequences[i].state == LLAMA_LISTING)
            r = llama_list(l, &l->sequences[i], t->sink);
    bool busy = answers_count(t) > 0;
    if (r == 0)
        r = answers_step(t);
    struct llama_sequence *prompts[LLAMA_SEQUENCES];
    uint32_t n = prompts_of(t, prompts);
    llama_prompts_want(l, prompts, n, busy);
    while (r == 0 && prompts_put(t))
        r = call(t, false);
    return r;
}

static int runnable(const struct llama *l)
{
    int n = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        n += l->sequences[i].state != LLAMA_FREE && !l->sequences[i].parked;
    return n;
}

static uint32_t anything(const struct step *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        n += allowed(t, &t->l->sequences[i]);
    return n;
}

int llama_token_step(struct engine *e, struct engine_turn *turn, const struct engine_token_sink *sink,
                     struct error *err)
{
    struct step t = {.l = llama_of(e), .turn = turn, .sink = sink, .err = err};
    uint64_t start_ns = clock_monotonic_ns(), now_ns = start_ns;
    int r = 0;
    for (bool first = true; r == 0 && anything(&t) > 0; first = false) {
        if (!first && (now_ns - start_ns >= turn->budget_ns || (sink->more && !sink->more(sink->ctx))))
            break;
        r = step(&t);
        t.l->stats.steps++;
        uint64_t end_ns = clock_monotonic_ns();
        t.l->stats.step_ns_last = end_ns - now_ns;
        t.l->stats.step_ns_total += end_ns - now_ns;
        now_ns = end_ns;
    }
    if (r == 0) {
        turn->ret_left = anything(&t);
        return runnable(t.l);
    }
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        if (t.l->sequences[i].state != LLAMA_FREE)
            llama_sequence_free(t.l, &t.l->sequences[i]);
    return r;
}
