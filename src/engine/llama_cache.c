/* Which ids have cells, and the prefixes that stay in them.
 *
 * A prefix is found by the tenant's secret and the adapter under which it was made, never by its tokens alone: the
 * cells of one tenant are out of another's reach whatever it sends, and nothing in its answers or their timing tells
 * whether they are there. Half of all cells may hold prefixes; each tenant that has some may keep an equal share of
 * that half, and only what a tenant has beyond its share, or its own, makes room for others. */
#include "engine/llama_internal.h"

static bool secret_same(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

static uint32_t cells_of(const struct llama *l, const uint64_t secret[2])
{
    uint32_t cells = 0;
    for (uint32_t i = 0; i < LLAMA_IDS; i++)
        if (l->prefixes[i].id >= 0 && secret_same(l->prefixes[i].secret, secret))
            cells += l->prefixes[i].n_tokens;
    return cells;
}

/* What each tenant may keep, when `secret` is one of them. */
static uint32_t share(const struct llama *l, const uint64_t secret[2])
{
    uint32_t tenants = 1;
    for (uint32_t i = 0; i < LLAMA_IDS; i++) {
        const struct llama_prefix *p = &l->prefixes[i];
        bool first = p->id >= 0 && !secret_same(p->secret, secret);
        for (uint32_t k = 0; k < i && first; k++)
            first = l->prefixes[k].id < 0 || !secret_same(l->prefixes[k].secret, p->secret);
        tenants += first;
    }
    return l->token.cells / 2 / tenants;
}

uint32_t llama_cells_used(const struct llama *l)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < LLAMA_IDS; i++)
        used += l->prefixes[i].id >= 0 ? l->prefixes[i].n_tokens : 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        used += l->sequences[i].id >= 0 ? l->sequences[i].n_done : 0;
    return used;
}

void llama_prefix_forget(struct llama *l, struct llama_prefix *p)
{
    llama_id_give(l, p->id);
    free(p->tokens);
    *p = (struct llama_prefix){.id = -1};
}

bool llama_prefix_evict(struct llama *l, const struct llama_sequence *s)
{
    struct llama_prefix *oldest = NULL;
    uint32_t each = share(l, s->g.cache_secret);
    for (uint32_t i = 0; i < LLAMA_IDS; i++) {
        struct llama_prefix *p = &l->prefixes[i];
        if (p->id < 0 || (oldest && oldest->used < p->used))
            continue;
        if (secret_same(p->secret, s->g.cache_secret) || cells_of(l, p->secret) > each)
            oldest = p;
    }
    if (oldest)
        llama_prefix_forget(l, oldest);
    return oldest != NULL;
}

int32_t llama_id_take(struct llama *l, const struct llama_sequence *s)
{
    do {
        for (uint32_t i = 0; i < LLAMA_IDS; i++) {
            if (l->ids[i])
                continue;
            l->ids[i] = true;
            return (int32_t)i;
        }
    } while (llama_prefix_evict(l, s));
    return -1;
}

void llama_id_give(struct llama *l, int32_t id)
{
    if (id < 0)
        return;
    (void)l->api->llama_memory_seq_rm(l->api->llama_get_memory(l->context), id, -1, -1); /* a whole id never fails */
    l->ids[id] = false;
}

static bool cached(const struct llama *l, const struct llama_sequence *s)
{
    return l->cacheable && !(s->g.flags & GENERATION_NO_CACHE) && (s->g.cache_secret[0] || s->g.cache_secret[1]);
}

uint32_t llama_prefix_use(struct llama *l, struct llama_sequence *s)
{
    struct llama_prefix *best = NULL;
    uint32_t longest = 0;
    for (uint32_t i = 0; cached(l, s) && i < LLAMA_IDS; i++) {
        struct llama_prefix *p = &l->prefixes[i];
        if (p->id < 0 || !secret_same(p->secret, s->g.cache_secret) || p->adapter != s->g.adapter)
            continue;
        uint32_t n = 0, most = p->n_tokens < s->n_tokens - 1 ? p->n_tokens : s->n_tokens - 1;
        while (n < most && p->tokens[n] == s->tokens[n])
            n++;
        if (n > longest) {
            longest = n;
            best = p;
        }
    }
    if (!best)
        return 0;
    best->used = ++l->age;
    l->api->llama_memory_seq_cp(l->api->llama_get_memory(l->context), best->id, s->id, 0, (llama_pos)longest);
    return longest;
}

/* Of the same tenant and adapter, prefixes of what will be kept are of no more use. */
static void prefixes_swallow(struct llama *l, const struct llama_sequence *s)
{
    for (uint32_t i = 0; i < LLAMA_IDS; i++) {
        struct llama_prefix *p = &l->prefixes[i];
        if (p->id >= 0 && secret_same(p->secret, s->g.cache_secret) && p->adapter == s->g.adapter &&
            p->n_tokens <= s->n_done && memcmp(p->tokens, s->tokens, p->n_tokens * sizeof *p->tokens) == 0)
            llama_prefix_forget(l, p);
    }
}

bool llama_prefix_keep(struct llama *l, struct llama_sequence *s)
{
    if (s->id < 0 || s->n_done == 0 || !cached(l, s) || s->n_done > share(l, s->g.cache_secret))
        return false;
    prefixes_swallow(l, s);
    /* No more than its share, by letting its own go; and half of the ids stay for sequences. */
    uint32_t n_prefixes = 0;
    for (uint32_t i = 0; i < LLAMA_IDS; i++)
        n_prefixes += l->prefixes[i].id >= 0;
    while (cells_of(l, s->g.cache_secret) + s->n_done > share(l, s->g.cache_secret) || n_prefixes >= LLAMA_IDS / 2) {
        if (!llama_prefix_evict(l, s))
            return false;
        n_prefixes--;
    }
    struct llama_prefix *p = l->prefixes;
    while (p->id >= 0)
        p++;
    *p = (struct llama_prefix){.id = s->id,
                               .secret = {s->g.cache_secret[0], s->g.cache_secret[1]},
                               .adapter = s->g.adapter,
                               .used = ++l->age,
                               .tokens = s->tokens,
                               .n_tokens = s->n_done};
    s->tokens = NULL;
    s->id = -1;
    return true;
}
