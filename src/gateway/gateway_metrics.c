/* Counts for /metrics, in the page that control reads. */
#include "gateway/gateway_internal.h"

int gateway_metrics_start(struct gateway *g, struct error *err)
{
    int r = bus_metrics_new(&g->metrics, &g->metrics_fd);
    return r < 0 ? error_set(err, r, "the gateway has no memory for its figures") : 0;
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
    if (code == -ERROR_RATE_LIMITED)
        reason = BUS_METRICS_RATE;
    else if (code == -ERROR_QUEUE_FULL)
        reason = BUS_METRICS_QUEUE;
    else if (code == -ERROR_QUOTA_EXCEEDED)
        reason = BUS_METRICS_QUOTA;
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

void gateway_metrics_lease(struct gateway_version *v, uint64_t ns, uint32_t rows)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (!row)
        return;
    bus_metrics_add(&row->lease_ns, ns);
    bus_metrics_add(&row->batch_rows, rows);
    bus_metrics_add(&row->batch[bus_metrics_bucket(rows, 0, BUS_METRICS_BATCH_BUCKETS)], 1);
}

void gateway_metrics_restart(struct gateway_version *v)
{
    struct bus_metrics_row *row = row_of_version(v);
    if (row)
        bus_metrics_add(&row->worker_restarts, 1);
}
