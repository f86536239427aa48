/* What tenants and keys have used, as it goes from the gateway to control, into the store, and back to the next
 * gateway.
 *
 * Rows of BUS_QUOTA_ROW_BYTES in a sealed memfd beside BUS_QUOTA_USED or BUS_QUOTA_STORED. Times are wall time, so a
 * row means the same after a restart; a use counts until its time has come. The store keeps a row's bytes as they are,
 * on one host, in its byte order. A reader trusts nothing: bus_quota_check. */
#ifndef BULKHEAD_BUS_QUOTA_H
#define BULKHEAD_BUS_QUOTA_H

#include "base/cleanup.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As the scheduler's windows (enum schedule_window), which the gateway asserts. */
enum bus_quota_window {
    BUS_QUOTA_COMPUTE_HOUR = 0, /* ns of device slots */
    BUS_QUOTA_COMPUTE_DAY,
    BUS_QUOTA_TOKENS_MINUTE,
    BUS_QUOTA_TOKENS_DAY,
    BUS_QUOTA_WINDOWS
};

/* As enum schedule_direction; likewise. */
enum bus_quota_flow { BUS_QUOTA_BYTES_IN = 0, BUS_QUOTA_BYTES_OUT, BUS_QUOTA_FLOWS };

/* Nothing is made up for longer. */
#define BUS_QUOTA_FLOW_MS_MAX (3600u * 1000u)

#define BUS_QUOTA_KEY_BYTES 16u

struct bus_quota_use {
    struct {
        uint64_t until_ms; /* end of its window */
        uint64_t used;
    } windows[BUS_QUOTA_WINDOWS];
    uint64_t rate_until_ms;                  /* when the burst of requests is whole again; 0 = it is */
    uint64_t flow_until_ms[BUS_QUOTA_FLOWS]; /* when the bytes per second that came are made up for; 0 = they are */
};

/* As servers stored it before they kept flows. */
#define BUS_QUOTA_USE_BYTES_FIRST offsetof(struct bus_quota_use, flow_until_ms)

struct bus_quota {
    uint64_t tenant_uid;           /* not 0 */
    char key[BUS_QUOTA_KEY_BYTES]; /* id of the key, base62; zeros: the tenant's own */
    struct bus_quota_use use;
};

_Static_assert(sizeof(struct bus_quota) == 112, "no padding: bytes are stored");

/* What a tenant uses now and nobody stores: rows beside BUS_TENANTS_NOW. Only what has changed is told; a tenant of
 * whom nothing was told uses nothing. */
struct bus_tenant_now {
    uint64_t tenant_uid;
    uint64_t queued_bytes;
    uint32_t requests;    /* between head and end; counted where a limit for it exists */
    uint32_t queued;      /* requests that wait for a device */
    uint32_t connections; /* whose last request had a key of it */
    uint32_t _reserved;
};

/* It uses nothing: told once, and then forgotten. */
static inline bool bus_tenant_idle(const struct bus_tenant_now *now)
{
    return now->queued_bytes == 0 && now->requests == 0 && now->queued == 0 && now->connections == 0;
}

/* The key's id; empty for the tenant's own row. */
static inline struct str bus_quota_key(const struct bus_quota *q)
{
    return (struct str){q->key, q->key[0] ? BUS_QUOTA_KEY_BYTES : 0};
}

/* A row that may be looked at further. */
static inline bool bus_quota_check(const struct bus_quota *q)
{
    bool own = !q->key[0];
    for (uint32_t i = 0; i < BUS_QUOTA_KEY_BYTES; i++) {
        char c = q->key[i];
        bool base62 = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (own ? c != 0 : !base62)
            return false;
    }
    return q->tenant_uid != 0;
}

/* The last moment at which the row says anything. */
static inline uint64_t bus_quota_until_ms(const struct bus_quota_use *use)
{
    uint64_t until_ms = use->rate_until_ms;
    for (uint32_t w = 0; w < BUS_QUOTA_WINDOWS; w++)
        if (use->windows[w].used > 0 && use->windows[w].until_ms > until_ms)
            until_ms = use->windows[w].until_ms;
    for (uint32_t f = 0; f < BUS_QUOTA_FLOWS; f++)
        until_ms = use->flow_until_ms[f] > until_ms ? use->flow_until_ms[f] : until_ms;
    return until_ms;
}

#endif
