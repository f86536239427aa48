/* The page of figures that the gateway counts in and control shows at /metrics.
 *
 * One memfd, sealed against a change of size and against any further writable mapping: the gateway is the only writer,
 * control reads. All of it exists from the start on: a (tenant, model) beyond the first BUS_METRICS_ROWS goes into row
 * 0, `other`. One writer, so a counter is a relaxed load and store; a reader sees each figure whole, but not all of one
 * moment. The reader trusts no byte: it clamps the count of rows and escapes the names. */
#ifndef BULKHEAD_BUS_METRICS_H
#define BULKHEAD_BUS_METRICS_H

#include "base/cleanup.h"
#include "base/limits.h"

#include <stdint.h>

/* Answers' status codes, each a value of the label `code`; what is not here counts under 0. */
#define BUS_METRICS_STATUSES                                                                                        \
    {                                                                                                               \
        0, 200, 202, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 417, 422, 429, 431, 499, 500, 501, 503, \
    }
#define BUS_METRICS_N_STATUSES 22u

enum bus_metrics_refusal {
    BUS_METRICS_RATE = 0,
    BUS_METRICS_QUEUE,
    BUS_METRICS_CONCURRENCY,
    BUS_METRICS_COMPUTE,
    BUS_METRICS_TOKENS,
    BUS_METRICS_BYTES, /* per second */
    BUS_METRICS_CONNECTIONS,
    BUS_METRICS_REFUSAL_COUNT
};

enum bus_metrics_adapter {
    BUS_METRICS_ADAPTER_LOADED = 0, /* into a worker */
    BUS_METRICS_ADAPTER_EVICTED,    /* for another's room; it is gone as well */
    BUS_METRICS_ADAPTER_GONE,
};

/* Buckets of durations end at 2^(14 + i) ns: 16 µs, 33 µs … 34 s; those of batches at 2^i rows: 1 … 256. The last
 * bucket of each is for what is beyond. Not cumulative here. */
#define BUS_METRICS_DURATION_SHIFT   14u
#define BUS_METRICS_DURATION_BUCKETS 23u
#define BUS_METRICS_BATCH_BUCKETS    10u

struct bus_metrics_duration {
    uint64_t buckets[BUS_METRICS_DURATION_BUCKETS];
    uint64_t sum_ns;
};

struct bus_metrics_row {
    char tenant[LIMIT_NAME_BYTES + 1]; /* "" where a request was refused before it had one … */
    char model[LIMIT_NAME_BYTES + 1];  /* … likewise */
    uint64_t requests[BUS_METRICS_N_STATUSES];
    struct bus_metrics_duration duration, queue_wait;
    uint64_t batch[BUS_METRICS_BATCH_BUCKETS];
    uint64_t batch_rows;
    uint64_t lease_ns;
    uint64_t worker_restarts;
    uint64_t blocked_calls; /* system calls that its workers' filter refused */
    uint64_t refusals[BUS_METRICS_REFUSAL_COUNT];
    uint64_t served_ns;       /* slots × time of its leases */
    uint64_t queued, running; /* requests now, as of the last look */
    uint64_t adapter_loads, adapter_evictions;
    uint64_t adapters_loaded, adapters_loaded_bytes; /* now, in all replicas together */
};

#define BUS_METRICS_CLASSES 3u /* critical, interactive, batch */

struct bus_metrics_device { /* slots × ns since the gateway began; looked at four times a second */
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t slots, used;
    uint64_t queued[BUS_METRICS_CLASSES];
    uint64_t wall_ns; /* not × slots */
    uint64_t tenants_ns, system_ns, running_ns, idle_ns;
};

struct bus_metrics {
    uint32_t n_rows;    /* written with release, after the row's names */
    uint32_t n_devices; /* written before the page is sent */
    struct bus_metrics_device devices[LIMIT_DEVICES];
    struct bus_metrics_row rows[LIMIT_METRICS_ROWS + 1]; /* [0] is `other` */
};

/* A fresh page, mapped writable for the life of the process, and the descriptor to send (the caller's). */
must_check int bus_metrics_new(struct bus_metrics **ret_metrics, int *ret_fd);
/* Maps a page of another process read-only after checking its seals and size. Unmap with bus_metrics_unmap. */
must_check int bus_metrics_map(int fd, const struct bus_metrics **ret_metrics);
void bus_metrics_unmap(const struct bus_metrics *m);

/* The row of a pair, made when it is new; row 0 when the page is full. Names longer than a row's are cut. */
struct bus_metrics_row *bus_metrics_row(struct bus_metrics *m, const char *tenant, const char *model);

static inline void bus_metrics_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline uint64_t bus_metrics_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* The first bucket whose end is at least `value`. */
static inline uint32_t bus_metrics_bucket(uint64_t value, uint32_t shift, uint32_t n_buckets)
{
    uint64_t above = value > 1 ? (value - 1) >> shift : 0;
    uint32_t bucket = above > 0 ? 64u - (uint32_t)__builtin_clzll(above) : 0;
    return bucket < n_buckets ? bucket : n_buckets - 1;
}

static inline void bus_metrics_took(struct bus_metrics_duration *d, uint64_t ns)
{
    bus_metrics_add(&d->buckets[bus_metrics_bucket(ns, BUS_METRICS_DURATION_SHIFT, BUS_METRICS_DURATION_BUCKETS)], 1);
    bus_metrics_add(&d->sum_ns, ns);
}

#endif
