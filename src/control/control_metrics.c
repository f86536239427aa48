/* GET /metrics: one table of families, each written by one function. docs/metrics.md lists them; a live test compares.
 * What the gateway's page holds is copied, cut and escaped: it is another process's memory. */
#include "control/control_internal.h"

#include <stdio.h>
#include <string.h>

#define LABELS_BYTES (4 * (LIMIT_NAME_BYTES + 1) + 32)

struct writer {
    struct buf *out;
    const struct bus_metrics *page; /* may be NULL */
    const struct bus_stats *stats;
    uint32_t n_rows;
};

struct family {
    const char *name;
    const char *type; /* counter, gauge, histogram */
    const char *help;
    void (*write)(struct writer *w, const struct family *f);
    size_t offset; /* of the figure, in a row or in bus_stats */
};

/* --- labels --- */

static size_t escape(const char *from, char *to)
{
    size_t size = 0;
    for (size_t i = 0; i < LIMIT_NAME_BYTES && from[i]; i++) {
        char c = from[i];
        if (c == '\\' || c == '"')
            to[size++] = '\\';
        to[size++] = c < 0x20 || c > 0x7E ? '?' : c;
    }
    to[size] = '\0';
    return size;
}

/* tenant="…",model="…" */
static void labels_of(const struct bus_metrics_row *row, char labels[static LABELS_BYTES])
{
    char tenant[2 * LIMIT_NAME_BYTES + 1], model[2 * LIMIT_NAME_BYTES + 1];
    (void)escape(row->tenant, tenant);
    (void)escape(row->model, model);
    (void)snprintf(labels, LABELS_BYTES, "tenant=\"%s\",model=\"%s\"", tenant, model); /* LABELS_BYTES hold both */
}

/* --- figures --- */

/* Nanoseconds as decimal seconds, exactly. */
static void append_seconds(struct buf *out, uint64_t ns)
{
    buf_format(out, "%llu.%09llu", (unsigned long long)(ns / UINT64_C(1000000000)),
               (unsigned long long)(ns % UINT64_C(1000000000)));
}

static const void *figure_of(const struct bus_metrics_row *row, const struct family *f)
{
    return (const char *)row + f->offset;
}

static void write_requests(struct writer *w, const struct family *f)
{
    static const int statuses[] = BUS_METRICS_STATUSES;
    for (uint32_t i = 0; i < w->n_rows; i++) {
        char labels[LABELS_BYTES];
        labels_of(&w->page->rows[i], labels);
        for (uint32_t k = 0; k < BUS_METRICS_N_STATUSES; k++) {
            uint64_t n = bus_metrics_read(&w->page->rows[i].requests[k]);
            if (n > 0)
                buf_format(w->out, "%s{%s,code=\"%d\"} %llu\n", f->name, labels, statuses[k], (unsigned long long)n);
        }
    }
}

static void write_refusals(struct writer *w, const struct family *f)
{
    static const char *const reasons[BUS_METRICS_REFUSAL_COUNT] = {[BUS_METRICS_RATE] = "rate",
                                                                   [BUS_METRICS_QUEUE] = "queue",
                                                                   [BUS_METRICS_CONCURRENCY] = "concurrency",
                                                                   [BUS_METRICS_COMPUTE] = "compute",
                                                                   [BUS_METRICS_TOKENS] = "tokens",
                                                                   [BUS_METRICS_BYTES] = "bytes",
                                                                   [BUS_METRICS_CONNECTIONS] = "connections"};
    for (uint32_t i = 0; i < w->n_rows; i++) {
        char labels[LABELS_BYTES];
        labels_of(&w->page->rows[i], labels);
        for (uint32_t k = 0; k < BUS_METRICS_REFUSAL_COUNT; k++) {
            uint64_t n = bus_metrics_read(&w->page->rows[i].refusals[k]);
            if (n > 0)
                buf_format(w->out, "%s{%s,reason=\"%s\"} %llu\n", f->name, labels, reasons[k], (unsigned long long)n);
        }
    }
}

static void write_durations(struct writer *w, const struct family *f)
{
    for (uint32_t i = 0; i < w->n_rows; i++) {
        const struct bus_metrics_duration *d = figure_of(&w->page->rows[i], f);
        char labels[LABELS_BYTES];
        labels_of(&w->page->rows[i], labels);
        uint64_t sum_ns = bus_metrics_read(&d->sum_ns), n = 0;
        for (uint32_t k = 0; k < BUS_METRICS_DURATION_BUCKETS; k++) {
            n += bus_metrics_read(&d->buckets[k]);
            buf_format(w->out, "%s_bucket{%s,le=\"", f->name, labels);
            if (k < BUS_METRICS_DURATION_BUCKETS - 1)
                append_seconds(w->out, UINT64_C(1) << (BUS_METRICS_DURATION_SHIFT + k));
            else
                buf_append_text(w->out, "+Inf");
            buf_format(w->out, "\"} %llu\n", (unsigned long long)n);
        }
        buf_format(w->out, "%s_sum{%s} ", f->name, labels);
        append_seconds(w->out, sum_ns);
        buf_format(w->out, "\n%s_count{%s} %llu\n", f->name, labels, (unsigned long long)n);
    }
}

static void write_batches(struct writer *w, const struct family *f)
{
    for (uint32_t i = 0; i < w->n_rows; i++) {
        const struct bus_metrics_row *row = &w->page->rows[i];
        char labels[LABELS_BYTES];
        labels_of(row, labels);
        uint64_t sum = bus_metrics_read(&row->batch_rows), n = 0;
        for (uint32_t k = 0; k < BUS_METRICS_BATCH_BUCKETS; k++) {
            n += bus_metrics_read(&row->batch[k]);
            if (k < BUS_METRICS_BATCH_BUCKETS - 1)
                buf_format(w->out, "%s_bucket{%s,le=\"%u\"} %llu\n", f->name, labels, 1u << k, (unsigned long long)n);
            else
                buf_format(w->out, "%s_bucket{%s,le=\"+Inf\"} %llu\n", f->name, labels, (unsigned long long)n);
        }
        buf_format(w->out, "%s_sum{%s} %llu\n%s_count{%s} %llu\n", f->name, labels, (unsigned long long)sum, f->name,
                   labels, (unsigned long long)n);
    }
}

static void write_row_count(struct writer *w, const struct family *f)
{
    for (uint32_t i = 0; i < w->n_rows; i++) {
        char labels[LABELS_BYTES];
        labels_of(&w->page->rows[i], labels);
        buf_format(w->out, "%s{%s} %llu\n", f->name, labels,
                   (unsigned long long)bus_metrics_read(figure_of(&w->page->rows[i], f)));
    }
}

static void write_row_seconds(struct writer *w, const struct family *f)
{
    for (uint32_t i = 0; i < w->n_rows; i++) {
        char labels[LABELS_BYTES];
        labels_of(&w->page->rows[i], labels);
        buf_format(w->out, "%s{%s} ", f->name, labels);
        append_seconds(w->out, bus_metrics_read(figure_of(&w->page->rows[i], f)));
        buf_append_char(w->out, '\n');
    }
}

static void write_u32(struct writer *w, const struct family *f)
{
    uint32_t value;
    memcpy(&value, (const char *)w->stats + f->offset, sizeof value);
    buf_format(w->out, "%s %u\n", f->name, value);
}

static void write_u64(struct writer *w, const struct family *f)
{
    uint64_t value;
    memcpy(&value, (const char *)w->stats + f->offset, sizeof value);
    buf_format(w->out, "%s %llu\n", f->name, (unsigned long long)value);
}

static void device_line(struct writer *w, const struct family *f, const struct bus_metrics_device *d, const char *use,
                        uint64_t ns)
{
    char name[2 * LIMIT_NAME_BYTES + 1];
    (void)escape(d->name, name);
    buf_format(w->out, "%s{device=\"%s\",use=\"%s\"} ", f->name, name, use);
    append_seconds(w->out, ns);
    buf_append_char(w->out, '\n');
}

static void write_devices(struct writer *w, const struct family *f)
{
    for (uint32_t i = 0; w->page && i < w->page->n_devices && i < LIMIT_DEVICES; i++) {
        const struct bus_metrics_device *d = &w->page->devices[i];
        device_line(w, f, d, "tenants", bus_metrics_read(&d->tenants_ns));
        device_line(w, f, d, "system", bus_metrics_read(&d->system_ns));
        device_line(w, f, d, "idle", bus_metrics_read(&d->idle_ns));
    }
}

static void write_build(struct writer *w, const struct family *f)
{
    buf_format(w->out, "%s{version=\"%s\"} 1\n", f->name, BULKHEAD_VERSION);
}

#define ROW(member)   offsetof(struct bus_metrics_row, member)
#define STATS(member) offsetof(struct bus_stats, member)

static const struct family families[] = {
    {"bulkhead_requests_total", "counter",
     "Requests answered, by HTTP status; 499: the client went away before its answer.", write_requests, 0},
    {"bulkhead_request_duration_seconds", "histogram",
     "From the last byte of an inference request to its answer, for those that were queued for a device and whose client waited.",
     write_durations, ROW(duration)},
    {"bulkhead_queue_wait_seconds", "histogram",
     "From the last byte of an inference request to its lease of the device, starts of replicas included; of requests "
     "that succeeded.",
     write_durations, ROW(queue_wait)},
    {"bulkhead_lease_seconds_total", "counter", "Device time of leases that ended.", write_row_seconds, ROW(lease_ns)},
    {"bulkhead_batch_size", "histogram", "Rows that were computed together, per lease that ended.", write_batches, 0},
    {"bulkhead_worker_restarts_total", "counter", "Workers that ended without having been told to.", write_row_count,
     ROW(worker_restarts)},
    {"bulkhead_blocked_syscalls_total", "counter",
     "System calls of workers that their filter refused (EPERM), as the workers tell with their next answer.",
     write_row_count, ROW(blocked_calls)},
    {"bulkhead_adapter_loads_total", "counter", "Adapters of the tenant that were loaded into a worker of the model.",
     write_row_count, ROW(adapter_loads)},
    {"bulkhead_adapter_evictions_total", "counter", "Those of them that went to make room for another one.",
     write_row_count, ROW(adapter_evictions)},
    {"bulkhead_adapters_loaded", "gauge", "Those of them that are loaded, in all replicas together.", write_row_count,
     ROW(adapters_loaded)},
    {"bulkhead_adapters_loaded_bytes", "gauge", "Bytes of those that are loaded.", write_row_count,
     ROW(adapters_loaded_bytes)},
    {"bulkhead_quota_refusals_total", "counter",
     "Requests refused with 429, by the limit that is used up: rate (requestsPerMinute), queue (queueDepth), concurrency, "
     "compute (computeSecondsPerHour, computeSecondsPerDay), tokens, bytes (bytesPerSecondIn, bytesPerSecondOut) or connections, of the "
     "tenant or of the key.",
     write_refusals, 0},
    {"bulkhead_connections", "gauge", "Open connections of clients.", write_u32, STATS(connections)},
    {"bulkhead_queued_requests", "gauge", "Requests that wait for a device.", write_u32, STATS(queued)},
    {"bulkhead_device_slots", "gauge", "Slots of the device cpu.", write_u32, STATS(slots)},
    {"bulkhead_device_slots_used", "gauge", "Slots of the device cpu that leases hold.", write_u32, STATS(slots_used)},
    {"bulkhead_device_seconds_total", "counter",
     "Slots times seconds of a device: charged to tenants, lost to pre-emption (system), unused (idle); of leases that ended.",
     write_devices, 0},
    {"bulkhead_catalog_generation", "gauge", "The catalog that is served; grows with every change.", write_u64,
     STATS(generation)},
    {"bulkhead_build_info", "gauge", "Always 1; the label tells the version.", write_build, 0},
};

void control_metrics_write(const struct bus_metrics *m, const struct bus_stats *stats, struct buf *ret_text)
{
    uint32_t n_rows = m ? __atomic_load_n(&m->n_rows, __ATOMIC_ACQUIRE) : 0;
    struct writer w = {.out = ret_text,
                       .page = m,
                       .stats = stats,
                       .n_rows = n_rows < LIMIT_METRICS_ROWS + 1 ? n_rows : LIMIT_METRICS_ROWS + 1};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const struct family *f = &families[i];
        buf_format(ret_text, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, f->type);
        f->write(&w, f);
    }
}

void control_metrics(struct control *c, struct buf *ret_text)
{
    struct bus_stats stats = c->stats;
    stats.slots = c->config.devices[0].slots; /* known before the gateway tells its first figures */
    control_metrics_write(c->metrics, &stats, ret_text);
}
