/* Places in the running batches of a language model: whose generation gets the next one, and what it is counted.
 *
 * Requests wait in a line for each version (so: tenant) and class, first come, first served. A free place goes to the
 * highest class that waits, and there to the tenant with the least Virtual Token Counter (schedule/tokens.h). Counters
 * are kept with the version whose replicas serve. What a sequence is charged is what the worker tells of it, as it is
 * relayed: tokens of its prompt that were worked on, not taken from the cache, and tokens of its answer. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

/* Before any prompt's length is known, and so that no few of them decide: tokens of English text, in bytes. */
#define TOKEN_BYTES_USUAL   4u
#define PROMPT_TOKENS_KNOWN 1024u
/* What was learned is forgotten by halves. */
#define PROMPT_TOKENS_MAX (UINT64_C(1) << 20)

void gateway_places_init(struct gateway_version *v)
{
    list_init(&v->places.versions);
    v->places.prompt_tokens = PROMPT_TOKENS_KNOWN;
    v->places.prompt_bytes = TOKEN_BYTES_USUAL * PROMPT_TOKENS_KNOWN;
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        list_init(&v->lines[class].requests);
}

void gateway_places_done(struct gateway_version *v)
{
    list_remove(&v->in_generating);
    if (v->lobby.tenant)
        schedule_target_remove(v->gateway->schedule, &v->lobby);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        schedule_tokens_forget(&gateway_version_host(v)->places.tokens[class], &v->lines[class].account);
}

static struct gateway_line *line_of(struct gateway_request *r)
{
    return &r->version->lines[r->schedule.priority];
}

static struct schedule_tokens *tokens_of(struct gateway_request *r)
{
    return &gateway_version_host(r->version)->places.tokens[r->schedule.priority];
}

/* Into the scheduler's queues: what memory it holds is its body. */
static int lobby_enter(struct gateway_request *r, struct error *err)
{
    struct gateway_version *v = r->version;
    struct schedule *s = v->gateway->schedule;
    if (!v->lobby.tenant)
        schedule_target_set(s, &v->lobby, &v->tenant->schedule,
                            &(struct schedule_target_config){.device = v->schedule.device, .slots = v->schedule.slots});
    r->schedule = (struct schedule_request){.target = &v->lobby,
                                            .priority = r->schedule.priority,
                                            .rows = 1,
                                            .bytes = r->body.size,
                                            .deadline_ns = r->deadline_ns};
    uint64_t retry_ns = 0;
    int code = schedule_submit(s, &r->schedule, uv_hrtime(), &retry_ns);
    if (code >= 0)
        return 0;
    (void)error_set_default(err, code);
    err->retry_after_ms = (uint32_t)(retry_ns / NS_PER_MS + 1);
    return code;
}

static void line_enter(struct gateway_request *r)
{
    struct gateway_places *p = &gateway_version_host(r->version)->places;
    p->critical = p->critical || r->schedule.priority == SCHEDULE_CRITICAL;
    list_append(&line_of(r)->requests, &r->node);
    if (!list_linked(&r->version->in_generating))
        list_append(&gateway_version_host(r->version)->places.versions, &r->version->in_generating);
    r->version->n_generating += r->n_generations - r->n_started;
    schedule_tokens_wait(tokens_of(r), &line_of(r)->account);
}

static void line_leave(struct gateway_request *r)
{
    list_remove(&r->node);
    if (take(&r->aside))
        return;
    r->version->n_generating -= r->n_generations - r->n_started;
    if (list_empty(&line_of(r)->requests))
        schedule_tokens_leave(tokens_of(r), &line_of(r)->account);
}

int gateway_places_wait(struct gateway_request *r, struct error *err)
{
    if (r->lone) {
        gateway_lone_wait(r);
        return 0;
    }
    int code = r->begun_ns == 0 ? lobby_enter(r, err) : 0;
    if (code < 0)
        return code;
    line_enter(r);
    return 0;
}

void gateway_places_leave(struct gateway_request *r)
{
    if (!list_linked(&r->node))
        return;
    (void)schedule_cancel(r->gateway->schedule, &r->schedule); /* false: it has begun, or was taken out by that */
    line_leave(r);
}

void gateway_places_aside(struct gateway_request *r, struct list *aside)
{
    line_leave(r);
    r->aside = true;
    list_append(aside, &r->node);
}

void gateway_places_back(struct gateway_request *r)
{
    line_leave(r);
    if (r->lone)
        gateway_lone_wait(r);
    else
        line_enter(r);
}

/* What a class and those below it may hold of n places. */
static uint32_t places_max(const struct gateway_places *p, uint32_t n, uint32_t class)
{
    uint32_t kept = class == SCHEDULE_BATCH ? (n < 16 ? 1 : n / 8) : 0;
    kept += class != SCHEDULE_CRITICAL && p->critical;
    return kept < n ? n - kept : 1;
}

/* As many as the worker has, and spec.batching.maxSize allows now. */
static uint32_t places_of(const struct gateway_version *host)
{
    uint32_t n = host->signature->token.sequences;
    return n < host->batch_max ? n : host->batch_max;
}

static bool class_open(const struct gateway_batch *b, uint32_t class)
{
    const struct gateway_version *host = b->replica->version;
    uint32_t n = places_of(host), held = 0;
    if (b->replica->state != GATEWAY_REPLICA_READY || b->n_sequences >= n)
        return false;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        held += (uint32_t)b->sequences[i].request->schedule.priority >= class;
    return held < places_max(&host->places, n, class);
}

/* Among the first n of the batch's sequences. */
static bool holds_place(const struct gateway_batch *b, const struct gateway_version *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (b->sequences[i].request->version == v)
            return true;
    return false;
}

/* Whether anybody whom the batch is for has nothing in it. */
static bool some_hold_none(const struct gateway_batch *b)
{
    uint32_t hold = 0, all = 1; /* the owner, and who is lent to; counted no further than needed */
    for (uint32_t i = 0; i < b->n_sequences; i++)
        hold += !holds_place(b, b->sequences[i].request->version, i);
    list_each(node, &b->replica->version->guests)
    {
        if (++all > hold)
            break;
    }
    return all > hold;
}

/* Whether the version may have one of the places that its class may have. */
static bool version_open(const struct gateway_batch *b, const struct gateway_version *v)
{
    const struct gateway_version *host = b->replica->version;
    uint32_t n = places_of(host), kept = n < 2 ? 0 : n < 32 ? 1 : n / 16;
    if (list_empty(&host->guests) || b->n_sequences + kept < n)
        return true;
    return !holds_place(b, v, b->n_sequences) || !some_hold_none(b);
}

bool gateway_places_open(const struct gateway_batch *b, const struct gateway_version *v, uint32_t class)
{
    return class_open(b, class) && version_open(b, v);
}

static struct gateway_request *line_first(const struct gateway_line *line)
{
    return container_of(list_first(&line->requests), struct gateway_request, node);
}

static bool is_stuck(const struct gateway_batch *b, const struct gateway_version *v)
{
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i].request->version == v && !b->sequences[i].parked && !b->sequences[i].lifted)
            return false;
    return true;
}

static bool holds_any_place(const struct gateway_version *v)
{
    list_each(node, &gateway_version_host(v)->replicas)
    {
        const struct gateway_batch *b = container_of(node, struct gateway_replica, in_version)->batch;
        if (b && holds_place(b, v, b->n_sequences))
            return true;
    }
    return false;
}

/* Whether it may have a place that the one of least counter may not have. */
static bool may_pass(const struct gateway_batch *b, const struct gateway_version *v, uint32_t class,
                     const struct schedule_tokens_barred *first)
{
    const struct gateway_version *host = b->replica->version;
    uint32_t context = host->signature->token.context, cells = host->signature->token.cells;
    uint64_t beside = (places_of(host) - UINT64_C(1)) * context; /* one sequence, in the same batch */
    uint32_t most = beside < cells - context ? (uint32_t)beside : cells - context;
    return !holds_any_place(v) && schedule_tokens_may_pass(&host->places.tokens[class], &v->lines[class].account,
                                                           v->tenant->schedule.weight, most, first);
}

/* How many tokens so many bytes of a prompt are, as far as those of lately tell; no more than a context holds. */
static uint32_t prompt_guess(const struct gateway_version *v, uint64_t bytes)
{
    const struct gateway_version *host = gateway_version_host(v);
    uint64_t tokens = bytes * host->places.prompt_tokens / host->places.prompt_bytes;
    return tokens < host->signature->token.context ? (uint32_t)tokens : host->signature->token.context;
}

/* Who is next where the one of least counter has what it may have: one that has nothing in the batch and would be next
 * if that first one got the place; but where no client of the first one reads, its counter stands still, and nobody
 * waits for it. */
static struct gateway_request *next_beside(const struct gateway_batch *b, const struct gateway_line *first,
                                           uint32_t class)
{
    const struct gateway_line *best = NULL;
    const struct gateway_request *r = line_first(first);
    struct schedule_tokens_barred barred = {.weight = r->tenant->schedule.weight,
                                            .expected = prompt_guess(r->version, r->body.size)};
    bool stuck = is_stuck(b, r->version);
    list_each(node, &b->replica->version->places.versions)
    {
        const struct gateway_version *v = container_of(node, struct gateway_version, in_generating);
        const struct gateway_line *line = &v->lines[class];
        if (line->account.waits && version_open(b, v) && (stuck || may_pass(b, v, class, &barred)) &&
            (!best || (int64_t)(line->account.count - best->account.count) < 0))
            best = line;
    }
    return best ? line_first(best) : NULL;
}

static struct gateway_request *next_alone(const struct gateway_batch *b, uint32_t lowest)
{
    struct gateway_request *r = gateway_lone_next(b->replica->lone);
    bool open = b->replica->state == GATEWAY_REPLICA_READY && b->n_sequences < places_of(b->replica->version);
    return r && open && (uint32_t)r->schedule.priority <= lowest ? r : NULL;
}

struct gateway_request *gateway_places_next(const struct gateway_batch *b, uint32_t lowest)
{
    const struct gateway_version *v = b->replica->version;
    if (b->replica->lone)
        return next_alone(b, lowest);
    for (uint32_t class = 0; class <= lowest; class ++) {
        struct schedule_tokens_account *account = schedule_tokens_next(&v->places.tokens[class]);
        if (!account || !class_open(b, class))
            continue;
        const struct gateway_line *line = container_of(account, struct gateway_line, account);
        struct gateway_request *r = line_first(line);
        r = version_open(b, r->version) ? r : next_beside(b, line, class);
        if (r)
            return r;
    }
    return NULL;
}

struct gateway_request *gateway_places_first(const struct gateway_version *v)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        struct list *node = list_first(&v->lines[class].requests);
        if (node)
            return container_of(node, struct gateway_request, node);
    }
    return NULL;
}

void gateway_places_take(struct gateway_request *r, struct gateway_sequence *s, const struct generation *g)
{
    uint32_t context = r->version->signature->token.context, given = g->n_tokens < context ? g->n_tokens : context;
    s->prompt_bytes = given > 0 ? 0 : g->prompt.size + g->tools.size;
    s->prompt_expected = given > 0 ? given : prompt_guess(r->version, s->prompt_bytes);
    if (r->lone) { /* beside all lines: what it was served in its first try has been counted there */
        list_remove(&r->node);
        r->aside = false;
        if (++r->n_started < r->n_generations)
            gateway_lone_wait(r);
        return;
    }
    schedule_tokens_admit(tokens_of(r), &line_of(r)->account, &s->tokens, r->tenant->schedule.weight,
                          s->prompt_expected);
    struct gateway_line *line = line_of(r);
    (void)schedule_cancel(r->gateway->schedule, &r->schedule); /* there until its first one begins */
    list_remove(&r->node);                                     /* one each in turn */
    r->version->n_generating--;
    if (++r->n_started < r->n_generations)
        list_append(&line->requests, &r->node);
    else if (list_empty(&line->requests))
        schedule_tokens_leave(tokens_of(r), &line->account);
}

/* How many tokens the bytes of a prompt are: of chats it is what the template makes of them. */
static void prompt_learn(struct gateway_places *p, uint64_t bytes, uint32_t tokens)
{
    if (bytes == 0)
        return;
    p->prompt_bytes += bytes;
    p->prompt_tokens += tokens;
    if (p->prompt_tokens > PROMPT_TOKENS_MAX || p->prompt_bytes > TOKEN_BYTES_USUAL * PROMPT_TOKENS_MAX) {
        p->prompt_bytes = p->prompt_bytes / 2 + 1;
        p->prompt_tokens = p->prompt_tokens / 2 + 1;
    }
}

void gateway_places_told(struct gateway_sequence *s, const struct generation_event *e)
{
    struct gateway_request *r = s->request;
    struct schedule_tokens_account *account = &line_of(r)->account;
    if (e->prompt_tokens > 0) {
        if (s->prompt_tokens == 0)
            prompt_learn(&gateway_version_host(r->version)->places, s->prompt_bytes, e->prompt_tokens);
        schedule_tokens_input(tokens_of(r), account, &s->tokens, e->prompt_tokens - e->cached_tokens);
    }
    schedule_tokens_output(tokens_of(r), account, &s->tokens, e->completion_tokens - s->completion_tokens);
}

uint64_t gateway_places_end(struct gateway_sequence *s)
{
    uint32_t worked = s->prompt_done > s->cached_tokens ? s->prompt_done - s->cached_tokens : 0;
    schedule_tokens_input(tokens_of(s->request), &line_of(s->request)->account, &s->tokens, worked);
    return (uint64_t)worked + s->completion_tokens;
}
