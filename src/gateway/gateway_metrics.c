/* Counts for /metrics, in the page that control reads. */
#include "gateway/gateway_internal.h"

#include <string.h>

_Static_assert(BUS_METRICS_CLASSES == SCHEDULE_CLASS_COUNT, "classes have one numbering");

int gateway_metrics_start(struct gateway *g, struct error *err)
{
    int r = bus_metrics_new(&g->metrics, &g->metrics_fd);
    if (r < 0)
        return error_set(err, r, "the gateway has no memory for its figures");
    g->metrics->n_devices = g->config.n_devices;
    for (uint32_t i = 0; i < g->config.n_devices; i++)
        memcpy(g->metrics->devices[i].name, g->config.devices[i].name, sizeof g->metrics->devices[i].name);
    gateway_metrics_look(g);
    return 0;
}

void gateway_metrics_tell(struct gateway *g)
{
    struct bus_empty nothing = {0};
    (void)bus_conn_send(g->control, BUS_METRICS, &nothing, &g->metrics_fd, 1); /* a new control is told again */
}

/* NULL in tests that have no page. */
static struct bus_metrics_row *row_of_version(struct gateway_version *v)
{
    if (!v->metrics && v->gateway->metrics)
        v->metrics = bus_metrics_row(v->gateway->metrics, v->tenant->name, v->model);
    return v->metrics;
}

static struct bus_metrics_row *row_of(struct gateway_request *r)
{
    if (r->version)
        return row_of_version(r->version);
    if (!r->gateway->metrics)
        return NULL;
    if (!r->tenant)
        return bus_metrics_row(r->gateway->metrics, "", "");
    if (!r->tenant->metrics)
        r->tenant->metrics = bus_metrics_row(r->gateway->metrics, r->tenant->name, "");
    return r->tenant->metrics;
}

static uint32_t status_index(int status)
{
    static const int statuses[] = BUS_METRICS_STATUSES;
    _Static_assert(sizeof statuses / sizeof statuses[0] == BUS_METRICS_N_STATUSES, "the table and its size");
    if (status == 200)
        return 1;
    for (uint32_t i = 1; i < BUS_METRICS_N_STATUSES; i++)
        if (statuses[i] == status)
            return i;
    return 0;
}

void gateway_metrics_answer(struct gateway_request *r, int status)
{
    struct bus_metrics_row *row = row_of(r);
    if (row)
        bus_metrics_add(&row->requests[status_index(status)], 1);
}

void gateway_metrics_other(struct gateway *g, int status)
{
    if (g->metrics)
        bus_metrics_add(&bus_metrics_row(g->metrics, "", "")->requests[status_index(status)], 1);
}

void gateway_metrics_refusal(struct gateway_request *r, int code)
{
    struct bus_metrics_row *row;
    enum bus_metrics_refusal reason;
    if (code == -ERROR_QUEUE_FULL)
        reason = BUS_METRICS_QUEUE;
    else if (code == -ERROR_RATE_LIMITED || code == -ERROR_QUOTA_EXCEEDED)
        reason = r->refused_by;
    else
        return;
    row = row_of(r);
    if (row)
        bus_metrics_add(&row->refusals[reason], 1);
}

void gateway_metrics_took(struct gateway_request *r, uint64_t ns)
{
    struct bus_metrics_row *row = row_of(r);
    if (row)
        bus_metrics_took(&row->duration, ns);
}

void gateway_metrics_waited(struct gateway_request *r, uint64_t ns)
{
    struct bus_metrics_row *row = row_of(r);
    if (row)
        bus_metrics_took(&row->queue_wait, ns);
}

void gateway_metrics_lease(struct gateway_version *v, uint64_t ns, uint32_t slots, uint32_t rows)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (!row)
        return;
    bus_metrics_add(&row->lease_ns, ns);
    bus_metrics_add(&row->served_ns, ns * slots);
    bus_metrics_add(&row->batch_rows, rows);
    bus_metrics_add(&row->batch[bus_metrics_bucket(rows, 0, BUS_METRICS_BATCH_BUCKETS)], 1);
}

static void gauge(uint64_t *place, uint64_t value)
{
    __atomic_store_n(place, value, __ATOMIC_RELAXED);
}

static void device_look(struct gateway *g, uint32_t device)
{
    struct bus_metrics_device *row = &g->metrics->devices[device];
    struct schedule_device_stats stats;
    schedule_device_stats(g->schedule, device, &stats);
    if (device == 0) { /* with those of its slots that are replicas' own */
        struct schedule_device_stats own;
        schedule_device_stats(g->schedule, g->config.n_devices, &own);
        stats.slots += own.slots;
        stats.slots_used += own.slots_used;
        for (uint32_t i = 0; i < SCHEDULE_CLASS_COUNT; i++)
            stats.queued[i] += own.queued[i];
        stats.tenants_ns += own.tenants_ns;
        stats.system_ns += own.system_ns;
        stats.running_ns += own.running_ns;
        stats.idle_ns += own.idle_ns;
    }
    gauge(&row->slots, stats.slots);
    gauge(&row->used, stats.slots_used);
    for (uint32_t i = 0; i < BUS_METRICS_CLASSES; i++)
        gauge(&row->queued[i], stats.queued[i]);
    gauge(&row->wall_ns, stats.wall_ns);
    gauge(&row->tenants_ns, stats.tenants_ns);
    gauge(&row->system_ns, stats.system_ns);
    gauge(&row->running_ns, stats.running_ns);
    gauge(&row->idle_ns, stats.idle_ns);
}

void gateway_metrics_look(struct gateway *g)
{
    if (!g->metrics)
        return;
    for (uint32_t i = 0; i < g->config.n_devices; i++)
        device_look(g, i);
    for (uint32_t i = 0; i < g->metrics->n_rows; i++) {
        gauge(&g->metrics->rows[i].queued, 0);
        gauge(&g->metrics->rows[i].running, 0);
    }
    size_t cursor = 0;
    for (struct gateway_version *v; (v = map_next(&g->versions, &cursor));) {
        uint32_t queued = v->lobby.tenant ? v->lobby.queued : v->schedule.queued; /* beside turns */
        if (queued > 0 && row_of_version(v))
            bus_metrics_add(&v->metrics->queued, queued);
    }
    list_each_safe(node, &g->busy)
    {
        const struct gateway_replica *replica = container_of(node, struct gateway_replica, in_busy);
        if (replica->lease && replica->version->metrics)
            bus_metrics_add(&replica->version->metrics->running, replica->lease->n_requests);
    }
}

void gateway_metrics_adapter(struct gateway_version *v, enum bus_metrics_adapter what, uint64_t bytes)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (!row)
        return;
    if (what == BUS_METRICS_ADAPTER_LOADED) {
        bus_metrics_add(&row->adapter_loads, 1);
        bus_metrics_add(&row->adapters_loaded, 1);
        bus_metrics_add(&row->adapters_loaded_bytes, bytes);
    } else if (what == BUS_METRICS_ADAPTER_GONE) {
        bus_metrics_add(&row->adapters_loaded, UINT64_MAX); /* one less: it was counted before */
        bus_metrics_add(&row->adapters_loaded_bytes, -bytes);
    } else {
        bus_metrics_add(&row->adapter_evictions, 1);
    }
}

void gateway_metrics_restart(struct gateway_version *v)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (row)
        bus_metrics_add(&row->worker_restarts, 1);
}

void gateway_metrics_blocked(struct gateway_version *v, uint32_t n)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (row && n > 0)
        bus_metrics_add(&row->blocked_calls, n);
}
