/* What was used, to control and back: once a second what has changed, and all of it to a gateway that begins. */
#include "base/log.h"
#include "bus/quota.h"
#include "gateway/gateway_internal.h"

#include <sys/mman.h>

_Static_assert((int)BUS_QUOTA_COMPUTE_HOUR == (int)SCHEDULE_COMPUTE_HOUR &&
                   (int)BUS_QUOTA_COMPUTE_DAY == (int)SCHEDULE_COMPUTE_DAY &&
                   (int)BUS_QUOTA_TOKENS_MINUTE == (int)SCHEDULE_TOKENS_MINUTE &&
                   (int)BUS_QUOTA_TOKENS_DAY == (int)SCHEDULE_TOKENS_DAY &&
                   (int)BUS_QUOTA_WINDOWS == (int)SCHEDULE_WINDOW_COUNT,
               "one numbering");

#define TELL_NS UINT64_C(1000000000)
#define NS_MS   UINT64_C(1000000)

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
            saved.use[w].used > 0 ? (saved.use[w].window + 1) * (schedule_window_ns(w) / NS_MS) : 0;
    }
    row->use.rate_until_ms = (saved.rate_wall_ns + NS_MS - 1) / NS_MS;
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

void gateway_quotas_tell_all(struct gateway *g)
{
    if (g->quotas.n == 0)
        return;
    list_each(node, &g->quotas.all) gateway_quota_changed(g, container_of(node, struct gateway_quota, in_all));
}

static void restore(struct gateway *g, const struct bus_quota *row, struct schedule_quota_time now)
{
    struct gateway_tenant *t = bus_quota_check(row) ? map_get(&g->tenants, row->tenant_uid) : NULL;
    struct gateway_quota *q = t ? gateway_quota_get(g, t, row->key[0] ? row->key : NULL) : NULL;
    if (!q) /* of a tenant that is gone; or no memory, and then it counts from 0 */
        return;
    struct schedule_quota_saved saved = {0};
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++) {
        uint64_t number = row->use.windows[w].until_ms / (schedule_window_ns(w) / NS_MS);
        if (number > 0)
            saved.use[w] = (struct schedule_quota_use){number - 1, row->use.windows[w].used};
    }
    if (__builtin_mul_overflow(row->use.rate_until_ms, NS_MS, &saved.rate_wall_ns))
        saved.rate_wall_ns = UINT64_MAX;
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
