/* Streams of cells: which sequence has which, and the prefixes that stay in those that nobody has.
 *
 * A prefix is found by the tenant's secret and the adapter under which it was made, never by its tokens alone: the
 * cells of one tenant are out of another's reach whatever it sends, and nothing in its answers or their timing tells
 * whether they are there. Half of the streams may hold prefixes that nobody else's sequence takes away; each tenant
 * that has some has an equal share of that half, and only what a tenant has beyond its share, or its own, makes room.
 *
 * llama.cpp computes neighbouring streams in one go and the others in further ones, so sequences are put close
 * together, from the first stream on; a prefix that is in the way moves, by a copy of its whole stream.
 *
 * Cells that no sequence sees still take part in sums, times zero, and zero times what is infinite is no number. A
 * hostile adapter can make such cells, so a stream that an adapter was in (its taint) is overwritten before anybody
 * else gets it: with zeros, or where it is in a copy that llama.cpp has not made yet, or is not known to lie, by a copy
 * of one that never was an adapter's, which the last stream is. */
#include "engine/llama_internal.h"

#include <stdlib.h>

/* What a copy of a stream is worth. */
#define PREFIX_TOKENS_MIN 16u

static bool secret_same(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

static bool free_now(const struct llama_stream *m)
{
    return !m->owner && m->n_tokens == 0;
}

static bool holds_prefix(const struct llama_stream *m)
{
    return !m->owner && m->n_tokens > 0;
}

static uint32_t prefixes_of(const struct llama *l, const uint64_t secret[2])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->token.sequences; i++)
        n += holds_prefix(&l->streams[i]) && secret_same(l->streams[i].secret, secret);
    return n;
}

/* What each tenant may keep, when `secret` is one of them. */
static uint32_t share(const struct llama *l, const uint64_t secret[2])
{
    uint32_t tenants = 1;
    for (uint32_t i = 0; i < l->token.sequences; i++) {
        const struct llama_stream *m = &l->streams[i];
        bool first = holds_prefix(m) && !secret_same(m->secret, secret);
        for (uint32_t k = 0; k < i && first; k++)
            first = !holds_prefix(&l->streams[k]) || !secret_same(l->streams[k].secret, m->secret);
        tenants += first;
    }
    return l->token.sequences / 2 / tenants;
}

static llama_memory_t memory_of(const struct llama *l)
{
    return l->api->llama_get_memory(l->context);
}

/* A part of a stream can always be removed from models that keep prefixes, and a whole one from any. */
static void cells_remove(struct llama *l, uint32_t id, uint32_t from)
{
    (void)l->api->llama_memory_seq_rm(memory_of(l), (llama_seq_id)id, (llama_pos)from, -1);
}

/* All of it, before the next decode call; what was there is gone. */
static void stream_copy_all(struct llama *l, uint32_t from, uint32_t to)
{
    l->api->llama_memory_seq_cp(memory_of(l), (llama_seq_id)from, (llama_seq_id)to, -1, -1);
    l->streams[to].taint = l->streams[from].taint;
    l->copied |= UINT64_C(1) << from | UINT64_C(1) << to;
}

/* What an adapter may have left there is gone before the next decode call. */
static void stream_clean(struct llama *l, uint32_t id)
{
    if (!(l->copied >> id & 1) && llama_cells_zero(l, id))
        l->streams[id].taint = 0;
    else
        stream_copy_all(l, l->token.sequences - 1, id);
}

/* What llama.cpp saves of a sequence and sets again is its tokens' cells and no others, so that those of a long stream
 * that were never used stay without pages, and a copy takes as long as its tokens need. */
static bool cells_copy(struct llama *l, uint32_t from, uint32_t to, size_t size)
{
    uint8_t *state = malloc(size);
    bool copied = state && l->api->llama_state_seq_get_data(l->context, state, size, (llama_seq_id)from) == size &&
                  l->api->llama_state_seq_set_data(l->context, state, size, (llama_seq_id)to) == size;
    free(state);
    if (!copied)
        cells_remove(l, to, 0);
    return copied;
}

/* Puts a packed prefix into a stream, which may be its own. False: not possible now, and nothing is in there. */
static bool cells_unpack(struct llama *l, const struct llama_stream *m, uint32_t to)
{
    if (l->copied >> to & 1) /* a copy is still to come there, or from there */
        return false;
    if (l->streams[to].taint > 0 && l->streams[to].taint != m->adapter)
        stream_clean(l, to);
    l->streams[to].taint = m->adapter;
    bool done =
        l->api->llama_state_seq_set_data(l->context, m->packed, m->packed_bytes, (llama_seq_id)to) == m->packed_bytes;
    if (!done)
        cells_remove(l, to, 0);
    return done;
}

/* The prefix at `from` is at `to`, too; what was there is gone. False: no memory, and nothing is at `to`. */
static bool stream_copy(struct llama *l, uint32_t from, uint32_t to)
{
    if (l->streams[from].packed)
        return cells_unpack(l, &l->streams[from], to);
    bool later = (l->copied >> from & 1) || (l->copied >> to & 1) || !l->cells_known || l->windowed;
    size_t size = later ? 0 : l->api->llama_state_seq_get_size(l->context, (llama_seq_id)from);
    if (later || size > LLAMA_COPY_BYTES) {
        stream_copy_all(l, from, to);
        return true;
    }
    if (l->streams[to].taint > 0 && l->streams[to].taint != l->streams[from].taint)
        stream_clean(l, to);
    l->streams[to].taint = l->streams[from].taint;
    return cells_copy(l, from, to, size);
}

void llama_prefix_forget(struct llama *l, uint32_t id)
{
    struct llama_stream *m = &l->streams[id];
    if (!holds_prefix(m))
        return;
    cells_remove(l, id, 0);
    free(m->tokens);
    free(m->packed);
    *m = (struct llama_stream){.taint = m->taint};
}

void llama_stream_give(struct llama *l, struct llama_sequence *s)
{
    if (s->id < 0)
        return;
    cells_remove(l, (uint32_t)s->id, 0);
    l->streams[s->id].owner = NULL;
    s->id = -1;
}

/* The prefix used longest ago of those that may make room for this sequence; -1: none. */
static int32_t victim(const struct llama *l, const struct llama_sequence *s, int32_t except)
{
    int32_t oldest = -1;
    uint32_t each = share(l, s->g.cache_secret);
    for (uint32_t i = 0; i < l->token.sequences; i++) {
        const struct llama_stream *m = &l->streams[i];
        if (!holds_prefix(m) || (int32_t)i == except || (oldest >= 0 && l->streams[oldest].used < m->used))
            continue;
        if (secret_same(m->secret, s->g.cache_secret) || prefixes_of(l, m->secret) > each)
            oldest = (int32_t)i;
    }
    return oldest;
}

static bool may_go_to(const struct llama *l, uint32_t id, uint32_t taint)
{
    return taint == 0 || id + 1 < l->token.sequences;
}

/* An empty stream for the prefix at `id`, or `id` itself when that prefix had to go; -1: there is none. */
static int32_t spare_find(struct llama *l, const struct llama_sequence *s, uint32_t id, int32_t best)
{
    int32_t to = -1;
    for (uint32_t i = 0; i < l->token.sequences; i++)
        if (i != id && free_now(&l->streams[i]) && may_go_to(l, i, l->streams[id].taint))
            to = (int32_t)i;
    if (to >= 0)
        return to;
    to = victim(l, s, best);
    if (to < 0 || (to != (int32_t)id && !may_go_to(l, (uint32_t)to, l->streams[id].taint)))
        return -1;
    llama_prefix_forget(l, (uint32_t)to);
    return to;
}

/* The prefix at `id` is at `to` then, if there is memory; of its cells at `id` the first `left` stay. */
static void prefix_move(struct llama *l, uint32_t id, uint32_t to, uint32_t left)
{
    struct llama_stream *m = &l->streams[id];
    struct llama_stream old = l->streams[to];
    if (m->packed) { /* it moves without its cells */
        l->streams[to] = *m;
        l->streams[to].taint = old.taint;
        l->streams[to].rests = old.rests;
    } else if (stream_copy(l, id, to)) {
        l->streams[to] = *m;
    } else {
        free(m->tokens);
    }
    cells_remove(l, id, left);
    *m = (struct llama_stream){.taint = m->taint};
}

static bool cached(const struct llama *l, const struct llama_sequence *s)
{
    return l->cacheable && !(s->g.flags & GENERATION_NO_CACHE) && (s->g.cache_secret[0] || s->g.cache_secret[1]);
}

/* The prefix that has most in common with the sequence, of its tenant and adapter; -1: none. What is left of the prompt
 * is computed as it would be without the prefix: with an adapter one token alone would have other sums (llama_rows.c).
 */
static int32_t prefix_find(const struct llama *l, const struct llama_sequence *s, uint32_t *ret_common)
{
    int32_t best = -1;
    uint32_t left = s->g.adapter > 0 ? 2 : 1;
    *ret_common = 0;
    for (uint32_t i = 0; cached(l, s) && s->n_tokens > left && i < l->token.sequences; i++) {
        const struct llama_stream *m = &l->streams[i];
        if (!holds_prefix(m) || !secret_same(m->secret, s->g.cache_secret) || m->adapter != s->g.adapter)
            continue;
        uint32_t n = 0, most = m->n_tokens < s->n_tokens - left ? m->n_tokens : s->n_tokens - left;
        while (n < most && m->tokens[n] == s->tokens[n])
            n++;
        if (n > *ret_common) {
            *ret_common = n;
            best = (int32_t)i;
        }
    }
    return best;
}

static bool stepped_with(struct llama *l, const struct llama_sequence *s, const struct llama_sequence *other)
{
    const struct llama_adapter *a = llama_adapter_find(l, s->g.adapter);
    return other && llama_adapter_is(l, other->g.adapter, a ? a->kind : 0);
}

/* Smaller is better: beside one that is stepped in the same calls, near the first, without a copy. */
static uint32_t place_cost(struct llama *l, const struct llama_sequence *s, uint32_t id)
{
    bool beside = (id > 0 && stepped_with(l, s, l->streams[id - 1].owner)) ||
                  (id + 1 < l->token.sequences && stepped_with(l, s, l->streams[id + 1].owner));
    uint32_t taint = l->streams[id].taint;
    return id + (s->g.adapter > 0 && !beside ? 2 * LLAMA_SEQUENCES : 0u) +
           (taint > 0 && taint != s->g.adapter ? LLAMA_SEQUENCES : 0u);
}

static int32_t place_next(struct llama *l, const struct llama_sequence *s, uint64_t tried)
{
    int32_t best = -1;
    for (uint32_t i = 0; i < l->token.sequences; i++)
        if (!l->streams[i].owner && !(tried >> i & 1) && may_go_to(l, i, s->g.adapter) &&
            (best < 0 || place_cost(l, s, i) < place_cost(l, s, (uint32_t)best)))
            best = (int32_t)i;
    return best;
}

/* Goes on in the prefix's own stream; what is longer stays elsewhere, if there is room. */
static uint32_t stream_continue(struct llama *l, const struct llama_sequence *s, uint32_t id, uint32_t common)
{
    struct llama_stream *m = &l->streams[id];
    if (m->packed && !cells_unpack(l, m, id)) {
        llama_prefix_forget(l, id);
        return 0;
    }
    free(take(&m->packed));
    int32_t to = common < m->n_tokens ? spare_find(l, s, id, (int32_t)id) : -1;
    if (to >= 0) {
        prefix_move(l, id, (uint32_t)to, common);
        return common;
    }
    free(m->tokens);
    *m = (struct llama_stream){.taint = m->taint};
    cells_remove(l, id, common);
    return common;
}

/* Into the empty stream `id` comes what is cached; returns how many tokens that are. */
static uint32_t stream_fill(struct llama *l, const struct llama_sequence *s, uint32_t id, int32_t best, uint32_t common)
{
    struct llama_stream *m = best >= 0 ? &l->streams[best] : NULL;
    if (!m || common < PREFIX_TOKENS_MIN) {
        if (l->streams[id].taint > 0 && l->streams[id].taint != s->g.adapter)
            stream_clean(l, id);
        cells_remove(l, id, 0);
        return 0;
    }
    if (!stream_copy(l, (uint32_t)best, id))
        return 0;
    cells_remove(l, id, common);
    m->used = ++l->age;
    if (common == m->n_tokens) /* nobody misses it: what comes has all of it */
        llama_prefix_forget(l, (uint32_t)best);
    return common;
}

/* Empties a stream that may hold a prefix; false: there is no place for that. */
static bool stream_clear(struct llama *l, const struct llama_sequence *s, uint32_t id, int32_t best)
{
    if (free_now(&l->streams[id]))
        return true;
    int32_t to = spare_find(l, s, id, best);
    if (to >= 0 && to != (int32_t)id)
        prefix_move(l, id, (uint32_t)to, 0);
    return to >= 0;
}

bool llama_stream_take(struct llama *l, struct llama_sequence *s)
{
    uint64_t tried = 0;
    uint32_t common;
    int32_t best = prefix_find(l, s, &common), id;
    while ((id = place_next(l, s, tried)) >= 0 && id != best && !stream_clear(l, s, (uint32_t)id, best))
        tried |= UINT64_C(1) << id;
    if (id < 0)
        return false;
    s->n_done =
        id == best ? stream_continue(l, s, (uint32_t)id, common) : stream_fill(l, s, (uint32_t)id, best, common);
    s->id = id;
    l->streams[id].owner = s;
    l->streams[id].rests = false;
    if (s->g.adapter > 0)
        l->streams[id].taint = s->g.adapter;
    return true;
}

/* Of the same tenant and adapter, prefixes of what will be kept are of no more use. */
static void prefixes_swallow(struct llama *l, const struct llama_sequence *s)
{
    for (uint32_t i = 0; i < l->token.sequences; i++) {
        struct llama_stream *m = &l->streams[i];
        if (holds_prefix(m) && secret_same(m->secret, s->g.cache_secret) && m->adapter == s->g.adapter &&
            m->n_tokens <= s->n_done && memcmp(m->tokens, s->tokens, m->n_tokens * sizeof *m->tokens) == 0)
            llama_prefix_forget(l, i);
    }
}

void llama_prefix_keep(struct llama *l, struct llama_sequence *s)
{
    if (s->id < 0 || s->n_done == 0 || !cached(l, s))
        return;
    prefixes_swallow(l, s);
    uint32_t taint = l->streams[s->id].taint;
    l->streams[s->id] = (struct llama_stream){.secret = {s->g.cache_secret[0], s->g.cache_secret[1]},
                                              .adapter = s->g.adapter,
                                              .taint = taint,
                                              .used = ++l->age,
                                              .tokens = s->tokens,
                                              .n_tokens = s->n_done};
    s->tokens = NULL;
    s->id = -1;
}

uint32_t llama_stream_end(const struct llama *l, uint32_t id)
{
    const struct llama_stream *m = &l->streams[id];
    return m->owner ? m->owner->n_done : m->packed ? 0 : m->n_tokens;
}

void llama_stream_cut(struct llama *l, uint32_t id)
{
    cells_remove(l, id, llama_stream_end(l, id));
}

/* False: it stays as it is. */
static bool pack(struct llama *l, uint32_t id)
{
    struct llama_stream *m = &l->streams[id];
    size_t size = l->api->llama_state_seq_get_size(l->context, (llama_seq_id)id);
    uint8_t *packed = size <= LLAMA_COPY_BYTES ? malloc(size) : NULL;
    if (!packed || l->api->llama_state_seq_get_data(l->context, packed, size, (llama_seq_id)id) != size) {
        free(packed);
        return false;
    }
    m->packed = packed;
    m->packed_bytes = size;
    cells_remove(l, id, 0);
    return true;
}

bool llama_rest(struct engine *e)
{
    struct llama *l = llama_of(e);
    for (uint32_t i = 0; i < l->token.sequences && l->cells_known && !l->windowed; i++) {
        struct llama_stream *m = &l->streams[i];
        bool idle = !m->owner && !m->rests && !(l->copied >> i & 1);
        if (!idle || (holds_prefix(m) && !m->packed && !pack(l, i)))
            continue;
        m->rests = true;
        if (llama_cells_zero(l, i))
            m->taint = 0;
        return true;
    }
    return false;
}
