/* What was used of quotas: rows of bus/quota.h in and out of the store, and as the status of a tenant. */
#include "registry_internal.h"

#include "base/clock.h"

/* No window is longer than a day; a clock that is wrong must not keep a row for ever. */
#define UNTIL_MS_MAX (UINT64_C(2) * 86400 * 1000)

int registry_quota_put(struct registry *r, const struct bus_quota *rows, uint32_t n, struct error *err)
{
    struct store_quota *stored = calloc(n, sizeof *stored);
    struct bus_quota_use *uses = calloc(n, sizeof *uses);
    int rc = stored && uses ? 0 : error_set_default(err, -ERROR_NO_MEMORY);
    uint64_t now_ms = clock_wall_ms();
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        if (!bus_quota_check(&rows[i])) {
            rc = error_set(err, -ERROR_PEER, "a row of the gateway's is malformed");
            break;
        }
        uses[i] = rows[i].use;
        uint64_t until_ms = bus_quota_until_ms(&uses[i]);
        stored[i] = (struct store_quota){
            .tenant_uid = rows[i].tenant_uid,
            .key = bus_quota_key(&rows[i]),
            .use = {(const char *)&uses[i], sizeof uses[i]},
            .until_ms = until_ms < now_ms + UNTIL_MS_MAX ? until_ms : now_ms + UNTIL_MS_MAX,
        };
    }
    if (rc == 0)
        rc = r->config.store->quota_put(r->store, stored, n, err);
    free(stored);
    free(uses);
    return rc;
}

int registry_quota_purge(struct registry *r, struct error *err)
{
    return r->config.store->quota_purge(r->store, clock_wall_ms(), err);
}

struct each {
    int (*row)(void *ctx, const struct bus_quota *row);
    void *ctx;
    uint64_t now_ms;
};

static int each_stored(void *ctx, const struct store_quota *stored)
{
    struct each *each = ctx;
    struct bus_quota row = {.tenant_uid = stored->tenant_uid};
    if ((stored->use.size != sizeof row.use && stored->use.size != BUS_QUOTA_USE_BYTES_FIRST) ||
        stored->until_ms < each->now_ms || (stored->key.size != 0 && stored->key.size != sizeof row.key))
        return 0;
    memcpy(&row.use, stored->use.data, stored->use.size);
    memcpy(row.key, stored->key.data, stored->key.size);
    return bus_quota_check(&row) ? each->row(each->ctx, &row) : 0;
}

int registry_quota_each(struct registry *r, uint64_t tenant_uid, int (*row)(void *ctx, const struct bus_quota *row),
                        void *ctx, struct error *err)
{
    struct each each = {row, ctx, clock_wall_ms()};
    return r->config.store->quota_each(r->store, tenant_uid, each_stored, &each, err);
}

/* --- status --- */

struct status {
    const struct resource_tenant *tenant;
    struct buf *json;
    struct bus_quota_use use;
    uint64_t now_ms;
};

static int note_own(void *ctx, const struct bus_quota *row)
{
    struct status *s = ctx;
    if (row->key[0])
        return 0;
    s->use = row->use;
    return 1;
}

static void member(struct status *s, const char *name)
{
    if (s->json->data[s->json->size - 1] != '{')
        buf_append_char(s->json, ',');
    buf_format(s->json, "\"%s\":", name);
}

static void append_reset(struct status *s, enum bus_quota_window w)
{
    char text[CLOCK_TEXT_BYTES];
    if (s->use.windows[w].until_ms > s->now_ms) {
        clock_wall_text(s->use.windows[w].until_ms, text);
        buf_format(s->json, ",\"resets\":\"%s\"", text);
    }
    buf_append_char(s->json, '}');
}

/* Of the window that runs now. */
static uint64_t window_used(const struct status *s, enum bus_quota_window w)
{
    return s->use.windows[w].until_ms > s->now_ms ? s->use.windows[w].used : 0;
}

static void append_compute(struct status *s, const char *name, enum bus_quota_window w, uint64_t limit)
{
    if (limit == 0)
        return;
    member(s, name);
    buf_format(s->json, "{\"limit\":%llu,\"used\":%.3f", (unsigned long long)limit,
               (double)window_used(s, w) / (double)NS_PER_S);
    append_reset(s, w);
}

static void append_tokens(struct status *s, const char *name, enum bus_quota_window w, uint64_t limit)
{
    if (limit == 0)
        return;
    member(s, name);
    buf_format(s->json, "{\"limit\":%llu,\"used\":%llu", (unsigned long long)limit,
               (unsigned long long)window_used(s, w));
    append_reset(s, w);
}

static void append_count(struct status *s, const char *name, uint64_t limit, uint64_t used)
{
    if (limit == 0)
        return;
    member(s, name);
    buf_format(s->json, "{\"limit\":%llu,\"used\":%llu}", (unsigned long long)limit, (unsigned long long)used);
}

/* Of the burst. */
static uint64_t requests_used(const struct status *s, uint64_t burst)
{
    uint64_t ahead_ms = s->use.rate_until_ms > s->now_ms ? s->use.rate_until_ms - s->now_ms : 0;
    uint64_t per_minute = s->tenant->requests_per_minute, used;
    if (__builtin_mul_overflow(ahead_ms, per_minute, &used))
        return burst;
    used = (used + 59999) / 60000;
    return used < burst ? used : burst;
}

/* A second's worth, and what was taken beyond it and is to be made up for. */
static void append_flow(struct status *s, const char *name, enum bus_quota_flow f, uint64_t limit)
{
    uint64_t until_ms = s->use.flow_until_ms[f], used;
    if (limit == 0)
        return;
    uint64_t ahead_ms = until_ms > s->now_ms ? until_ms - s->now_ms : 0;
    if (ahead_ms > BUS_QUOTA_FLOW_MS_MAX)
        ahead_ms = BUS_QUOTA_FLOW_MS_MAX;
    used = (uint64_t)((double)ahead_ms / 1000 * (double)limit);
    append_count(s, name, limit, used);
}

static void append_now(struct status *s, struct registry *r, uint64_t uid)
{
    const struct resource_tenant *t = s->tenant;
    struct bus_tenant_now now = {0};
    if (r->config.now)
        r->config.now(r->config.ctx, uid, &now);
    append_count(s, "concurrency", t->concurrency, now.requests);
    append_count(s, "queueDepth", t->queue_depth, now.queued);
    append_count(s, "queueBytes", t->queue_bytes, now.queued_bytes);
    append_count(s, "connections", t->connections, now.connections);
    append_flow(s, "bytesPerSecondIn", BUS_QUOTA_BYTES_IN, t->bytes_per_s_in);
    append_flow(s, "bytesPerSecondOut", BUS_QUOTA_BYTES_OUT, t->bytes_per_s_out);
}

int registry_quota_status(struct registry *r, const struct resource_tenant *tenant, uint64_t uid, struct buf *json,
                          struct error *err)
{
    struct status s = {.tenant = tenant, .json = json, .now_ms = clock_wall_ms()};
    struct registry_holding holding;
    int rc = registry_quota_each(r, uid, note_own, &s, err);
    if (rc >= 0)
        rc = registry_holding(r, str_from(tenant->meta.name), NULL, &holding, err);
    if (rc < 0)
        return rc;
    uint64_t burst = registry_burst(tenant->burst, tenant->requests_per_minute);
    buf_append_text(json, "\"quota\":{");
    append_count(&s, "burst", tenant->requests_per_minute ? burst : 0, requests_used(&s, burst));
    append_now(&s, r, uid);
    append_compute(&s, "computeSecondsPerHour", BUS_QUOTA_COMPUTE_HOUR, tenant->compute_s_per_hour);
    append_compute(&s, "computeSecondsPerDay", BUS_QUOTA_COMPUTE_DAY, tenant->compute_s_per_day);
    append_tokens(&s, "tokensPerMinute", BUS_QUOTA_TOKENS_MINUTE, tenant->tokens_per_minute);
    append_tokens(&s, "tokensPerDay", BUS_QUOTA_TOKENS_DAY, tenant->tokens_per_day);
    append_count(&s, "models", tenant->models, holding.models);
    append_count(&s, "artifactBytes", tenant->artifact_bytes, holding.artifact_bytes);
    struct registry_running running = {0};
    if (r->config.running)
        r->config.running(r->config.ctx, uid, &running);
    append_count(&s, "replicas", tenant->replicas, running.replicas);
    append_count(&s, "memory", tenant->memory_bytes, running.memory_bytes);
    append_count(&s, "adapterBytes", tenant->adapter_bytes, running.adapter_bytes);
    buf_append_text(json, "},");
    return 0;
}
