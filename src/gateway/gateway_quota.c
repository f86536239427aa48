/* Quotas of tenants and keys: what a request takes at its head, reserves before it is queued, is charged when its lease
 * ends, and gives back at its end.
 *
 * State exists for who uses something, and no longer. There is no bound beside that of tenants and keys, so none is
 * ever thrown out while something of it is used: no key escapes its limit by being one of many. Where there is no
 * memory for it, the request is refused. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/random.h"

#include <stdarg.h>
#include <stdio.h>

/* A lease that was cheaper lowers the memory of the most expensive one by this part. */
#define COST_DECAY 64u
/* States looked at in each round of housekeeping, four times a second. */
#define CHECKS 2048u

static const struct {
    const char *field, *what;
    uint64_t unit;
} limit_names[SCHEDULE_LIMIT_COUNT] = {
    [SCHEDULE_COMPUTE_HOUR] = {"computeSecondsPerHour", "seconds of compute per hour", NS_PER_S},
    [SCHEDULE_COMPUTE_DAY] = {"computeSecondsPerDay", "seconds of compute per day", NS_PER_S},
    [SCHEDULE_TOKENS_MINUTE] = {"tokensPerMinute", "tokens per minute", 1},
    [SCHEDULE_TOKENS_DAY] = {"tokensPerDay", "tokens per day", 1},
    [SCHEDULE_LIMIT_REQUESTS] = {"requestsPerMinute", "requests per minute", 1},
    [SCHEDULE_LIMIT_CONCURRENCY] = {"concurrency", "requests at once", 1},
    [SCHEDULE_LIMIT_BYTES_IN] = {"bytesPerSecondIn", "bytes per second in", 1},
    [SCHEDULE_LIMIT_BYTES_OUT] = {"bytesPerSecondOut", "bytes per second out", 1},
};

struct schedule_quota_time gateway_quota_time(void)
{
    return (struct schedule_quota_time){uv_hrtime(), clock_wall_ms() * NS_PER_MS};
}

void gateway_quotas_init(struct gateway *g)
{
    map_init(&g->quotas.keys, LIMIT_KEYS * 2);
    list_init(&g->quotas.all);
    list_init(&g->quotas.waited);
    list_init(&g->quotas.changed);
    list_init(&g->quotas.paused);
    random_bytes(&g->quotas.seed, sizeof g->quotas.seed);
}

/* --- limits and state --- */

/* What the catalog says; NULL: no limits. */
const struct catalog_quota *gateway_quota_row(const struct gateway *g, const struct gateway_tenant *t, int level)
{
    if (!gateway_tenant_present(g, t))
        return NULL;
    const struct catalog_tenant *tenant = catalog_tenant_at(g->catalog, t->index);
    uint32_t quota = level == GATEWAY_QUOTA_TENANT ? tenant->quota : tenant->key_quota;
    return quota > 0 ? catalog_quota_at(g->catalog, quota - 1) : NULL;
}

static void limits_set(struct gateway_quota *q, const struct catalog_quota *row)
{
    struct schedule_quota_limits limits = {0};
    if (row)
        limits = (struct schedule_quota_limits){
            .requests = row->requests_per_minute,
            .burst = row->burst,
            .concurrency = row->concurrency,
            .windows = {[SCHEDULE_COMPUTE_HOUR] = row->compute_s_per_hour * NS_PER_S,
                        [SCHEDULE_COMPUTE_DAY] = row->compute_s_per_day * NS_PER_S,
                        [SCHEDULE_TOKENS_MINUTE] = row->tokens_per_minute,
                        [SCHEDULE_TOKENS_DAY] = row->tokens_per_day},
            .flows = {[SCHEDULE_BYTES_IN] = row->bytes_per_s_in, [SCHEDULE_BYTES_OUT] = row->bytes_per_s_out},
        };
    schedule_quota_set(&q->schedule, &limits);
}

void gateway_quotas_set(struct gateway *g)
{
    if (g->quotas.n == 0)
        return;
    list_each(node, &g->quotas.all)
    {
        struct gateway_quota *q = container_of(node, struct gateway_quota, in_all);
        const struct schedule_quota_limits before = q->schedule.limits;
        limits_set(q, gateway_quota_row(g, q->tenant, q->id ? GATEWAY_QUOTA_KEY : GATEWAY_QUOTA_TENANT));
        if (memcmp(before.flows, q->schedule.limits.flows, sizeof before.flows) != 0)
            gateway_quota_changed(g, q); /* they may begin anew */
    }
}

static void quota_free(struct gateway *g, struct gateway_quota *q)
{
    if (q->id)
        (void)map_remove(&g->quotas.keys, q->id);
    else
        q->tenant->quota = NULL;
    list_remove(&q->in_all);
    list_remove(&q->in_changed);
    g->quotas.n--;
    free(q);
}

struct gateway_quota *gateway_quota_get(struct gateway *g, struct gateway_tenant *t, const char *key_id)
{
    uint64_t id = key_id ? hash_bytes(g->quotas.seed, key_id, CATALOG_KEY_ID_BYTES) | 1 : 0;
    struct gateway_quota *q = id ? map_get(&g->quotas.keys, id) : t->quota;
    if (q) /* two keys of one hash are not seen in this world's life: then the second is refused */
        return !id || (q->tenant == t && memcmp(q->key, key_id, sizeof q->key) == 0) ? q : NULL;
    q = calloc(1, sizeof *q);
    if (!q || (id && map_put(&g->quotas.keys, id, q) < 0)) {
        free(q);
        return NULL;
    }
    q->tenant = t;
    q->id = id;
    for (enum schedule_quota_kind kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++) {
        q->queues[kind].quota = q;
        list_init(&q->queues[kind].requests);
    }
    if (id)
        memcpy(q->key, key_id, sizeof q->key);
    else
        t->quota = q;
    list_append(&g->quotas.all, &q->in_all);
    g->quotas.n++;
    limits_set(q, gateway_quota_row(g, t, id ? GATEWAY_QUOTA_KEY : GATEWAY_QUOTA_TENANT));
    return q;
}

void gateway_quotas_forget(struct gateway *g, struct gateway_tenant *t)
{
    if (g->quotas.n == 0)
        return;
    list_each_safe(node, &g->quotas.all)
    {
        struct gateway_quota *q = container_of(node, struct gateway_quota, in_all);
        if (q->tenant == t)
            quota_free(g, q);
    }
}

/* --- a request --- */

static uint64_t limit_of(const struct schedule_quota_limits *limits, enum schedule_quota_limit limit)
{
    if (limit < (enum schedule_quota_limit)SCHEDULE_WINDOW_COUNT)
        return limits->windows[limit] / limit_names[limit].unit;
    return limit == SCHEDULE_LIMIT_REQUESTS      ? limits->requests
           : limit == SCHEDULE_LIMIT_CONCURRENCY ? limits->concurrency
           : limit == SCHEDULE_LIMIT_BYTES_IN    ? limits->flows[SCHEDULE_BYTES_IN]
                                                 : limits->flows[SCHEDULE_BYTES_OUT];
}

int gateway_quota_refuse(struct gateway_request *r, int level, int code, const struct schedule_quota_refusal *refusal,
                         struct error *err)
{
    static const enum bus_metrics_refusal reasons[SCHEDULE_LIMIT_COUNT] = {
        [SCHEDULE_COMPUTE_HOUR] = BUS_METRICS_COMPUTE, [SCHEDULE_COMPUTE_DAY] = BUS_METRICS_COMPUTE,
        [SCHEDULE_TOKENS_MINUTE] = BUS_METRICS_TOKENS, [SCHEDULE_TOKENS_DAY] = BUS_METRICS_TOKENS,
        [SCHEDULE_LIMIT_REQUESTS] = BUS_METRICS_RATE,  [SCHEDULE_LIMIT_CONCURRENCY] = BUS_METRICS_CONCURRENCY,
        [SCHEDULE_LIMIT_BYTES_IN] = BUS_METRICS_BYTES, [SCHEDULE_LIMIT_BYTES_OUT] = BUS_METRICS_BYTES,
    };
    bool key = level == GATEWAY_QUOTA_KEY;
    r->refused_by = reasons[refusal->limit];
    (void)error_set(err, code, "The %s's quota of %llu %s is used up (spec.quota.%s%s).", key ? "key" : "tenant",
                    (unsigned long long)limit_of(&r->quotas[level]->schedule.limits, refusal->limit),
                    limit_names[refusal->limit].what, key ? "perKey." : "", limit_names[refusal->limit].field);
    err->retry_after_ms = (uint32_t)(refusal->retry_ns / NS_PER_MS + 1); /* at most a day */
    return code;
}

/* The tenant's quota has refused. Where the key's would for longer, that is what is told: who waits as long as it says
 * passes both. */
static int refuse_longest(struct gateway_request *r, const char *key_id, int code,
                          const struct schedule_quota_refusal *refusal, struct schedule_quota_time now,
                          struct error *err)
{
    struct gateway_quota *key = gateway_quota_row(r->gateway, r->tenant, GATEWAY_QUOTA_KEY)
                                    ? gateway_quota_get(r->gateway, r->tenant, key_id)
                                    : NULL;
    if (key) {
        struct schedule_quota look = key->schedule; /* nothing is taken of it */
        struct schedule_quota_ticket ticket = {0};
        struct schedule_quota_refusal longer;
        int key_code = schedule_quota_enter(&look, &ticket, now, &longer);
        if (key_code < 0 && longer.retry_ns > refusal->retry_ns) {
            r->quotas[GATEWAY_QUOTA_KEY] = key; /* its headers too */
            key->n_requests++;
            return gateway_quota_refuse(r, GATEWAY_QUOTA_KEY, key_code, &longer, err);
        }
    }
    return gateway_quota_refuse(r, GATEWAY_QUOTA_TENANT, code, refusal, err);
}

int gateway_quota_enter(struct gateway_request *r, const char *key_id, struct error *err)
{
    struct gateway *g = r->gateway;
    struct schedule_quota_time now = gateway_quota_time();
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        if (!gateway_quota_row(g, r->tenant, level))
            continue;
        struct gateway_quota *q = gateway_quota_get(g, r->tenant, level == GATEWAY_QUOTA_KEY ? key_id : NULL);
        if (!q)
            return error_set_default(err, ERROR_NO_MEMORY);
        r->quotas[level] = q;
        q->n_requests++;
        struct schedule_quota_refusal refusal;
        int code = schedule_quota_enter(&q->schedule, &r->tickets[level], now, &refusal);
        if (code < 0) /* gateway_fail gives back what the other level took */
            return level == GATEWAY_QUOTA_TENANT ? refuse_longest(r, key_id, code, &refusal, now, err)
                                                 : gateway_quota_refuse(r, level, code, &refusal, err);
        if (q->schedule.limits.requests)
            gateway_quota_changed(g, q);
    }
    return gateway_flow_enter(r, now.now_ns, err);
}

/* Waits in the queue of the one that has no room; who has waited before, before the others. */
static int wait_start(struct gateway_request *r, struct gateway_quota_queue *queue, struct error *err)
{
    struct gateway_tenant *t = r->tenant;
    if (t->n_waiting + t->schedule.queued >= t->schedule.queue_max)
        return error_set_default(err, ERROR_QUEUE_FULL);
    gateway_request_state_set(r, GATEWAY_REQUEST_WAITING);
    t->n_waiting++;
    if (list_empty(&queue->requests))
        list_append(&r->gateway->quotas.waited, &queue->in_waited);
    if (r->quota_waited)
        list_prepend(&queue->requests, &r->node);
    else
        list_append(&queue->requests, &r->node);
    r->quota_waited = true;
    return 1;
}

/* Small requests would pass a large one for ever. */
static bool others_first(const struct gateway_request *r, const struct gateway_quota *q, enum schedule_quota_kind kind)
{
    return kind == SCHEDULE_TOKENS && !r->quota_waited && !list_empty(&q->queues[kind].requests);
}

int gateway_quota_reserve(struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount, struct error *err)
{
    struct schedule_quota_time now = gateway_quota_time();
    r->quota_amount = amount;
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        struct gateway_quota *q = r->quotas[level];
        struct schedule_quota_refusal refusal;
        int code = q ? schedule_quota_reserve(&q->schedule, &r->tickets[level], kind, amount, now, &refusal) : 0;
        if (code == 0 && q && others_first(r, q, kind))
            code = -ERROR_AGAIN;
        if (code == 0)
            continue;
        for (int taken = 0; taken <= level; taken++) /* who waits keeps nothing from others */
            if (r->quotas[taken])
                schedule_quota_settle(&r->quotas[taken]->schedule, &r->tickets[taken], kind, 0, now);
        return code == -ERROR_AGAIN ? wait_start(r, &q->queues[kind], err)
                                    : gateway_quota_refuse(r, level, code, &refusal, err);
    }
    return 0;
}

static void wait_end(struct gateway_quota_queue *queue, struct gateway_request *r)
{
    list_remove(&r->node);
    r->tenant->n_waiting--;
    if (list_empty(&queue->requests))
        list_remove(&queue->in_waited);
}

static bool has_room(const struct gateway_quota_queue *queue, struct schedule_quota_time now)
{
    const struct gateway_quota *q = queue->quota;
    const struct gateway_request *r = container_of(list_first(&queue->requests), struct gateway_request, node);
    return schedule_quota_room(&q->schedule, (enum schedule_quota_kind)(queue - q->queues), r->quota_amount, now);
}

void gateway_quotas_continue(struct gateway *g)
{
    if (g->quotas.n == 0 || list_empty(&g->quotas.waited))
        return;
    struct schedule_quota_time now = gateway_quota_time();
    list_each_safe(node, &g->quotas.waited)
    {
        struct gateway_quota_queue *queue = container_of(node, struct gateway_quota_queue, in_waited);
        struct list *first;
        while ((first = list_first(&queue->requests)) && has_room(queue, now)) {
            struct gateway_request *r = container_of(first, struct gateway_request, node);
            wait_end(queue, r);
            gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
            r->next(r, r->version->signature);
        }
    }
}

/* Calls out for those that wait and that `which` names; a queue stays, though its last request may go. */
static void waiting_fail(struct gateway *g, bool (*which)(const struct gateway_request *r, const void *ctx),
                         const void *ctx, int code, const struct error *err)
{
    if (g->quotas.n == 0)
        return;
    list_each_safe(node, &g->quotas.waited)
    {
        struct gateway_quota_queue *queue = container_of(node, struct gateway_quota_queue, in_waited);
        list_each_safe(request, &queue->requests)
        {
            struct gateway_request *r = container_of(request, struct gateway_request, node);
            if (!which(r, ctx))
                continue;
            wait_end(queue, r);
            gateway_fail(r, code, err);
        }
    }
}

static bool is_of_version(const struct gateway_request *r, const void *ctx)
{
    return r->version == ctx;
}

static bool is_late(const struct gateway_request *r, const void *ctx)
{
    return r->deadline_ns <= *(const uint64_t *)ctx;
}

void gateway_quotas_fail(struct gateway_version *v, int code, const struct error *err)
{
    waiting_fail(v->gateway, is_of_version, v, code, err);
}

void gateway_quotas_check(struct gateway *g, uint64_t now_ns)
{
    waiting_fail(g, is_late, &now_ns, ERROR_DEADLINE, NULL);
    struct schedule_quota_time now = gateway_quota_time();
    uint32_t n = g->quotas.n < CHECKS ? g->quotas.n : CHECKS;
    for (; n > 0; n--) {
        struct gateway_quota *q = container_of(list_first(&g->quotas.all), struct gateway_quota, in_all);
        /* what control does not know yet is told first: its store may hold more than nothing */
        if (q->n_requests == 0 && !list_linked(&q->in_changed) && schedule_quota_fresh(&q->schedule, now)) {
            quota_free(g, q);
            continue;
        }
        list_remove(&q->in_all);
        list_append(&g->quotas.all, &q->in_all);
    }
}

uint64_t gateway_quota_cost(const struct schedule_lease *lease, uint64_t took_ns)
{
    uint64_t cost_ns, max_ns = UINT64_MAX / LIMIT_BATCH_ITEMS;
    return __builtin_mul_overflow(took_ns, lease->slots, &cost_ns) || cost_ns > max_ns ? max_ns : cost_ns;
}

/* The most of lately. */
static void cost_learn(uint64_t *most_ns, uint64_t cost_ns)
{
    *most_ns -= *most_ns / COST_DECAY;
    *most_ns = cost_ns > *most_ns ? cost_ns : *most_ns;
}

void gateway_quota_learn(struct gateway_version *v, uint64_t ran_ns, uint64_t n_tokens)
{
    if (n_tokens > 0)
        cost_learn(&v->token_cost_ns, ran_ns / n_tokens);
}

void gateway_quota_charge(const struct schedule_lease *lease, uint64_t took_ns)
{
    uint64_t cost_ns = gateway_quota_cost(lease, took_ns);
    struct schedule_quota_time now = gateway_quota_time();
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = container_of(lease->requests[k], struct gateway_request, schedule);
        if (k == 0)
            cost_learn(&r->version->cost_ns, cost_ns);
        for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
            if (r->quotas[level]) {
                schedule_quota_settle(&r->quotas[level]->schedule, &r->tickets[level], SCHEDULE_COMPUTE,
                                      cost_ns / lease->rows * r->schedule.rows, now);
                gateway_quota_changed(r->gateway, r->quotas[level]);
            }
    }
}

void gateway_quota_spend(struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount)
{
    if (!r->quotas[GATEWAY_QUOTA_TENANT] && !r->quotas[GATEWAY_QUOTA_KEY])
        return;
    struct schedule_quota_time now = gateway_quota_time();
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level]) {
            schedule_quota_spend(&r->quotas[level]->schedule, &r->tickets[level], kind, amount, now);
            gateway_quota_changed(r->gateway, r->quotas[level]);
        }
}

void gateway_quota_charge_part(const struct schedule_lease *lease, uint64_t took_ns)
{
    uint64_t cost_ns = gateway_quota_cost(lease, took_ns);
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = container_of(lease->requests[k], struct gateway_request, schedule);
        gateway_quota_spend(r, SCHEDULE_COMPUTE, cost_ns / lease->rows * r->schedule.rows);
    }
}

void gateway_quota_spend_rest(struct gateway_version *v, uint64_t amount)
{
    struct gateway_quota *q = v->tenant->quota; /* where what it used before counts, it is there */
    struct schedule_quota_ticket none = {0};
    if (!q)
        return;
    schedule_quota_spend(&q->schedule, &none, SCHEDULE_COMPUTE, amount, gateway_quota_time());
    gateway_quota_changed(v->gateway, q);
}

bool gateway_quota_fits(const struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount)
{
    if (!r->quotas[GATEWAY_QUOTA_TENANT] && !r->quotas[GATEWAY_QUOTA_KEY])
        return true;
    struct schedule_quota_time now = gateway_quota_time();
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level] &&
            schedule_quota_left(&r->quotas[level]->schedule, &r->tickets[level], kind, now) < amount)
            return false;
    return true;
}

void gateway_quota_settle(struct gateway_request *r, enum schedule_quota_kind kind)
{
    struct schedule_quota_time now = gateway_quota_time();
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level])
            schedule_quota_settle(&r->quotas[level]->schedule, &r->tickets[level], kind, 0, now);
}

void gateway_quota_refund(struct gateway_request *r, int code)
{
    int status = error_info(code)->http_status;
    if ((status != 429 && status != 503) || r->state == GATEWAY_REQUEST_LEASED || r->begun_ns > 0)
        return;
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level])
            schedule_quota_refund(&r->quotas[level]->schedule, &r->tickets[level]);
}

void gateway_quota_leave(struct gateway_request *r)
{
    struct schedule_quota_time now = {0};
    gateway_flow_leave(r);
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        struct gateway_quota *q = r->quotas[level];
        if (!q)
            continue;
        for (enum schedule_quota_kind kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++)
            if (list_empty(&q->queues[kind].requests)) /* its last waiting request was cancelled */
                list_remove(&q->queues[kind].in_waited);
        now = now.now_ns ? now : gateway_quota_time();
        schedule_quota_leave(&q->schedule, &r->tickets[level], now);
        q->n_requests--;
        r->quotas[level] = NULL;
    }
}

/* --- headers --- */

static void header_add(struct gateway_quota_headers *h, struct str name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void header_add(struct gateway_quota_headers *h, struct str name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(h->values[h->n], sizeof h->values[h->n], format, args); /* numbers: they fit */
    va_end(args);
    h->headers[h->n] = (struct wire_header){name, str_from(h->values[h->n])};
    h->n++;
}

/* As OpenAI's: 6m0s, 1s, 20ms. */
static void header_add_time(struct gateway_quota_headers *h, struct str name, uint64_t ns)
{
    unsigned long long ms = (ns + NS_PER_MS - 1) / NS_PER_MS, s = (ms + 999) / 1000;
    if (ms < 1000)
        header_add(h, name, "%llums", ms);
    else if (s < 60)
        header_add(h, name, "%llus", s);
    else if (s < 3600)
        header_add(h, name, "%llum%llus", s / 60, s % 60);
    else
        header_add(h, name, "%lluh%llum%llus", s / 3600, s / 60 % 60, s % 60);
}

static uint64_t rest_of(const struct schedule_quota_state *s)
{
    return s->limit > s->used ? s->limit - s->used : 0;
}

/* The one of which less is left; for longer, where it is as much. */
static void tighter(struct schedule_quota_state *s, struct schedule_quota_state other)
{
    if (other.limit &&
        (!s->limit || rest_of(&other) < rest_of(s) || (rest_of(&other) == rest_of(s) && other.reset_ns > s->reset_ns)))
        *s = other;
}

/* Limit and rest of one that has whole numbers, and until when it is whole again. */
static void headers_add(struct gateway_quota_headers *h, const struct str names[static 3],
                        const struct schedule_quota_state *s)
{
    if (!s->limit)
        return;
    header_add(h, names[0], "%llu", (unsigned long long)s->limit);
    header_add(h, names[1], "%llu", (unsigned long long)rest_of(s));
    if (names[2].size > 0)
        header_add_time(h, names[2], s->reset_ns);
}

#define NAMES(what)                                                                                        \
    {                                                                                                      \
        STR("x-ratelimit-limit-" what), STR("x-ratelimit-remaining-" what), STR("x-ratelimit-reset-" what) \
    }

void gateway_quota_headers(const struct gateway_request *r, struct gateway_quota_headers *ret_headers)
{
    ret_headers->n = 0;
    if (!r->quotas[GATEWAY_QUOTA_TENANT] && !r->quotas[GATEWAY_QUOTA_KEY])
        return;
    struct schedule_quota_time now = gateway_quota_time();
    struct schedule_quota_state requests = {0}, concurrency = {0}, compute = {0}, tokens = {0}, in = {0}, out = {0};
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        if (!r->quotas[level])
            continue;
        const struct schedule_quota *q = &r->quotas[level]->schedule;
        tighter(&requests, schedule_quota_requests(q, now));
        tighter(&concurrency, (struct schedule_quota_state){.limit = q->limits.concurrency,
                                                            .used = schedule_quota_others(q, &r->tickets[level])});
        tighter(&compute, schedule_quota_window(q, SCHEDULE_COMPUTE_HOUR, now));
        tighter(&compute, schedule_quota_window(q, SCHEDULE_COMPUTE_DAY, now));
        tighter(&tokens, schedule_quota_window(q, SCHEDULE_TOKENS_MINUTE, now));
        tighter(&tokens, schedule_quota_window(q, SCHEDULE_TOKENS_DAY, now));
        tighter(&in, schedule_quota_flow(q, SCHEDULE_BYTES_IN, now.now_ns));
        tighter(&out, schedule_quota_flow(q, SCHEDULE_BYTES_OUT, now.now_ns));
    }
    static const struct str names[][3] = {
        NAMES("requests"),  {STR("x-ratelimit-limit-concurrency"), STR("x-ratelimit-remaining-concurrency")},
        NAMES("tokens"),    NAMES("bytes-in"),
        NAMES("bytes-out"),
    };
    headers_add(ret_headers, names[0], &requests);
    headers_add(ret_headers, names[1], &concurrency);
    headers_add(ret_headers, names[2], &tokens);
    headers_add(ret_headers, names[3], &in);
    headers_add(ret_headers, names[4], &out);
    if (compute.limit) {
        header_add(ret_headers, STR("x-ratelimit-limit-compute"), "%llu",
                   (unsigned long long)(compute.limit / NS_PER_S));
        header_add(ret_headers, STR("x-ratelimit-remaining-compute"), "%.3f",
                   (double)rest_of(&compute) / (double)NS_PER_S);
        header_add_time(ret_headers, STR("x-ratelimit-reset-compute"), compute.reset_ns);
    }
}
