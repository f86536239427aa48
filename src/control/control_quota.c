/* What tenants and keys have used: the gateway tells once a second what has changed, the store keeps it, and a new
 * gateway is told all of it before it serves. */
#include "base/clock.h"
#include "base/log.h"
#include "bus/quota.h"
#include "control/control_internal.h"

#include <sys/mman.h>

/* What no longer means anything is forgotten at the start and then so often. */
#define PURGE_NS (24 * 3600 * NS_PER_S)

static void purge(struct control *c)
{
    uint64_t now_ns = clock_monotonic_ns();
    struct error err = {0};
    if (now_ns < c->quota_purge_ns)
        return;
    c->quota_purge_ns = now_ns + PURGE_NS;
    int r = registry_quota_purge(c->registry, &err);
    if (r < 0)
        log_error("quota_purge", "%s", error_text(&err, r));
}

void control_quota_used(struct control *c, const struct bus_quotas *body, int fd)
{
    const void *rows = NULL;
    struct error err = {0};
    if (!c->registry || body->n == 0 || body->n > LIMIT_QUOTA_ROWS)
        return;
    size_t bytes = body->n * sizeof(struct bus_quota);
    int r = bus_memfd_map(fd, bytes, &rows);
    if (r < 0) {
        log_error("quota_refused", "what the gateway says of quotas cannot be read: %s", error_info(r)->text);
        return;
    }
    purge(c);
    r = registry_quota_put(c->registry, rows, body->n, &err);
    if (r < 0) /* the next change of each brings it again */
        log_error("quota_store", "what tenants have used could not be stored: %s", error_text(&err, r));
    (void)munmap((void *)(uintptr_t)rows, bytes); /* our own mapping */
}

/* --- what is used now --- */

static void now_note(struct control *c, const struct bus_tenant_now *row)
{
    if (bus_tenant_idle(row)) {
        free(map_remove(&c->tenants_now, row->tenant_uid));
        return;
    }
    struct bus_tenant_now *kept = map_get(&c->tenants_now, row->tenant_uid);
    if (!kept) {
        kept = calloc(1, sizeof *kept);
        if (!kept || map_put(&c->tenants_now, row->tenant_uid, kept) < 0) {
            free(kept); /* `status` shows less until it changes again */
            return;
        }
    }
    *kept = *row;
}

void control_now_told(struct control *c, const struct bus_quotas *body, int fd)
{
    const void *rows = NULL;
    size_t bytes = body->n * sizeof(struct bus_tenant_now);
    int r = body->n > 0 && body->n <= LIMIT_QUOTA_ROWS ? bus_memfd_map(fd, bytes, &rows) : -ERROR_PEER;
    if (r < 0) {
        log_error("now_refused", "what the gateway says of tenants cannot be read: %s", error_info(r)->text);
        return;
    }
    for (uint32_t i = 0; i < body->n; i++)
        now_note(c, &((const struct bus_tenant_now *)rows)[i]);
    (void)munmap((void *)(uintptr_t)rows, bytes); /* our own mapping */
}

void control_now_lost(struct control *c)
{
    size_t cursor = 0;
    for (struct bus_tenant_now *row; (row = map_next(&c->tenants_now, &cursor));)
        free(row);
    map_done(&c->tenants_now);
    map_init(&c->tenants_now, LIMIT_TENANTS);
}

void control_now(void *ctx, uint64_t tenant_uid, struct bus_tenant_now *ret_now)
{
    struct control *c = ctx;
    const struct bus_tenant_now *row = map_get(&c->tenants_now, tenant_uid);
    *ret_now = row ? *row : (struct bus_tenant_now){.tenant_uid = tenant_uid};
}

/* --- what was used, to a new gateway --- */

struct tell {
    struct control *c;
    struct bus_quota *rows; /* [LIMIT_QUOTA_ROWS] */
    uint32_t n;
    bool failed;
};

static void tell_send(struct tell *t, bool last)
{
    struct bus_quotas body = {.n = t->n, .last = last};
    _close_ int fd = -1;
    if (bus_memfd("bulkhead-quotas", t->rows, t->n * sizeof *t->rows, &fd) < 0) {
        t->failed = true;
        return;
    }
    (void)bus_conn_send(t->c->gateway, BUS_QUOTA_STORED, &body, &fd, 1); /* gone: its successor is told */
    t->n = 0;
}

static int tell_row(void *ctx, const struct bus_quota *row)
{
    struct tell *t = ctx;
    t->rows[t->n++] = *row;
    if (t->n == LIMIT_QUOTA_ROWS)
        tell_send(t, false);
    return t->failed;
}

void control_quota_tell(struct control *c)
{
    if (c->quota_told || !c->gateway || !c->registry)
        return;
    struct tell t = {.c = c, .rows = calloc(LIMIT_QUOTA_ROWS, sizeof *t.rows)};
    struct error err = {0};
    purge(c);
    int r = t.rows ? registry_quota_each(c->registry, 0, tell_row, &t, &err) : -ERROR_NO_MEMORY;
    if (r < 0) { /* serving on matters more than what was used before */
        log_alert("quota_load", "what tenants have used could not be read and counts from 0: %s", error_text(&err, r));
        t.n = 0;
    }
    struct bus_quota none;
    t.rows = t.rows ? t.rows : &none;
    tell_send(&t, true);
    c->quota_told = !t.failed;
    if (t.rows != &none)
        free(t.rows);
}
