/* What was used, to control and back: once a second what has changed, and all of it to a gateway that begins. */
#include "base/clock.h"
#include "base/log.h"
#include "gateway/gateway_internal.h"

#include <sys/mman.h>

_Static_assert((int)BUS_QUOTA_COMPUTE_HOUR == (int)SCHEDULE_COMPUTE_HOUR &&
                   (int)BUS_QUOTA_COMPUTE_DAY == (int)SCHEDULE_COMPUTE_DAY &&
                   (int)BUS_QUOTA_TOKENS_MINUTE == (int)SCHEDULE_TOKENS_MINUTE &&
                   (int)BUS_QUOTA_TOKENS_DAY == (int)SCHEDULE_TOKENS_DAY &&
                   (int)BUS_QUOTA_WINDOWS == (int)SCHEDULE_WINDOW_COUNT &&
                   (int)BUS_QUOTA_BYTES_IN == (int)SCHEDULE_BYTES_IN &&
                   (int)BUS_QUOTA_BYTES_OUT == (int)SCHEDULE_BYTES_OUT &&
                   (int)BUS_QUOTA_FLOWS == (int)SCHEDULE_DIRECTION_COUNT,
               "one numbering");

#define TELL_NS NS_PER_S
/* Tenants looked at in each round of housekeeping, four times a second. */
#define NOW_TENANTS 2048u

void gateway_quota_changed(struct gateway *g, struct gateway_quota *q)
{
    if (!list_linked(&q->in_changed))
        list_append(&g->quotas.changed, &q->in_changed);
}

static void row_of(const struct gateway_quota *q, struct schedule_quota_time now, struct bus_quota *row)
{
    struct schedule_quota_saved saved;
    schedule_quota_save(&q->schedule, now, &saved);
    *row = (struct bus_quota){.tenant_uid = q->tenant->uid};
    if (q->id)
        memcpy(row->key, q->key, sizeof row->key);
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++) {
        row->use.windows[w].used = saved.use[w].used;
        row->use.windows[w].until_ms =
            saved.use[w].used > 0 ? (saved.use[w].window + 1) * (schedule_window_ns(w) / NS_PER_MS) : 0;
    }
    row->use.rate_until_ms = (saved.rate_wall_ns + NS_PER_MS - 1) / NS_PER_MS;
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        row->use.flow_until_ms[f] = (saved.flow_wall_ns[f] + NS_PER_MS - 1) / NS_PER_MS;
}

/* Those that changed longest ago first: with more than LIMIT_QUOTA_ROWS changes a second each has its turn later. */
static int changes_send(struct gateway *g)
{
    struct bus_quotas body = {0};
    struct bus_quota *rows = calloc(LIMIT_QUOTA_ROWS, sizeof *rows);
    struct schedule_quota_time now = gateway_quota_time();
    if (!rows)
        return -ERROR_NO_MEMORY;
    list_each(node, &g->quotas.changed)
    {
        if (body.n == LIMIT_QUOTA_ROWS)
            break;
        row_of(container_of(node, struct gateway_quota, in_changed), now, &rows[body.n++]);
    }
    _close_ int fd = -1;
    int r = bus_memfd("bulkhead-quotas", rows, body.n * sizeof *rows, &fd);
    free(rows);
    if (r >= 0)
        r = bus_conn_send(g->control, BUS_QUOTA_USED, &body, &fd, 1);
    for (; r >= 0 && body.n > 0; body.n--)
        list_remove(list_first(&g->quotas.changed));
    return r;
}

void gateway_quotas_tell(struct gateway *g, bool now)
{
    uint64_t now_ns = uv_hrtime();
    if (g->quotas.n == 0 || list_empty(&g->quotas.changed) || (!now && now_ns < g->quotas.tell_ns))
        return;
    g->quotas.tell_ns = now_ns + TELL_NS;
    int r; /* without control, or memory, they wait for the next time */
    do
        r = changes_send(g);
    while (r >= 0 && now && !list_empty(&g->quotas.changed));
}

/* --- what is used now --- */

static struct bus_tenant_now now_of(const struct gateway_tenant *t)
{
    return (struct bus_tenant_now){
        .tenant_uid = t->uid,
        .queued_bytes = t->schedule.queued_bytes,
        .requests = t->quota ? t->quota->schedule.active : 0,
        .queued = t->schedule.queued + t->n_waiting,
        .connections = wire_owner_connections(t->owner),
    };
}

static int now_send(struct gateway *g, const struct bus_tenant_now *rows, uint32_t n)
{
    struct bus_quotas body = {.n = n};
    _close_ int fd = -1;
    int r = bus_memfd("bulkhead-now", rows, n * sizeof *rows, &fd);
    return r < 0 ? r : bus_conn_send(g->control, BUS_TENANTS_NOW, &body, &fd, 1);
}

void gateway_now_tell(struct gateway *g)
{
    struct bus_tenant_now *rows = NULL;
    uint32_t n = 0, n_tenants = g->catalog ? catalog_n_tenants(g->catalog) : 0, *cursor = &g->quotas.now_cursor;
    uint32_t looks = n_tenants < NOW_TENANTS ? n_tenants : NOW_TENANTS, first = *cursor;
    for (uint32_t i = 0; g->control && i < looks; i++) {
        const struct gateway_tenant *t = g->tenant_at[(first + i) % n_tenants];
        struct bus_tenant_now now = now_of(t);
        if (memcmp(&now, &t->told, sizeof now) == 0 || (!t->told.tenant_uid && bus_tenant_idle(&now)))
            continue;
        rows = rows ? rows : calloc(looks, sizeof *rows);
        if (!rows)
            return; /* the next time */
        rows[n++] = now;
    }
    *cursor = n_tenants > 0 ? (first + looks) % n_tenants : 0;
    int r = n > 0 ? now_send(g, rows, n) : 0;
    for (uint32_t i = 0; r >= 0 && i < n; i++) {
        struct gateway_tenant *t = map_get(&g->tenants, rows[i].tenant_uid);
        t->told = rows[i];
    }
    free(rows);
}

void gateway_now_forget(struct gateway *g, const struct gateway_tenant *t)
{
    struct bus_tenant_now nothing = {.tenant_uid = t->uid};
    if (g->control && t->told.tenant_uid && !bus_tenant_idle(&t->told))
        (void)now_send(g, &nothing, 1); /* or a row is kept there that nobody asks for, until control or we end */
}

void gateway_quotas_tell_all(struct gateway *g)
{
    size_t cursor = 0;
    for (struct gateway_tenant *t; (t = map_next(&g->tenants, &cursor));)
        t->told = (struct bus_tenant_now){0};
    if (g->quotas.n == 0)
        return;
    list_each(node, &g->quotas.all) gateway_quota_changed(g, container_of(node, struct gateway_quota, in_all));
}

static uint64_t ns_of(uint64_t ms)
{
    uint64_t ns;
    return __builtin_mul_overflow(ms, NS_PER_MS, &ns) ? UINT64_MAX : ns;
}

static void restore(struct gateway *g, const struct bus_quota *row, struct schedule_quota_time now)
{
    struct gateway_tenant *t = bus_quota_check(row) ? map_get(&g->tenants, row->tenant_uid) : NULL;
    struct gateway_quota *q = t ? gateway_quota_get(g, t, row->key[0] ? row->key : NULL) : NULL;
    if (!q) /* of a tenant that is gone; or no memory, and then it counts from 0 */
        return;
    struct schedule_quota_saved saved = {0};
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++) {
        uint64_t number = row->use.windows[w].until_ms / (schedule_window_ns(w) / NS_PER_MS);
        if (number > 0)
            saved.use[w] = (struct schedule_quota_use){number - 1, row->use.windows[w].used};
    }
    saved.rate_wall_ns = ns_of(row->use.rate_until_ms);
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        saved.flow_wall_ns[f] = ns_of(row->use.flow_until_ms[f]);
    schedule_quota_restore(&q->schedule, &saved, now);
}

void gateway_quotas_stored(struct gateway *g, const struct bus_quotas *body, int fd)
{
    const void *rows = NULL;
    if (g->quotas.restored) /* a new control tells what this gateway has told the old one */
        return;
    g->quotas.restored = body->last;
    size_t bytes = body->n * sizeof(struct bus_quota);
    int r = body->n > LIMIT_QUOTA_ROWS ? -ERROR_PEER : bus_memfd_map(fd, bytes, &rows);
    if (r < 0) {
        log_alert("quota_refused", "what tenants used before counts from 0: %s", error_info(r)->text);
        return;
    }
    struct schedule_quota_time now = gateway_quota_time();
    for (uint32_t i = 0; i < body->n; i++)
        restore(g, &((const struct bus_quota *)rows)[i], now);
    if (rows)
        (void)munmap((void *)(uintptr_t)rows, bytes); /* our own mapping */
}
