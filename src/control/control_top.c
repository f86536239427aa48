/* What `bulkhead top` looks at: the page's figures as they stand, with the tenants' weights. Whoever looks twice knows
 * what happened in between. The page is the gateway's memory: names are cut and escaped, counts bounded. */
#include "control/control_internal.h"

static void append_name(struct buf *json, const char *member, const char name[static LIMIT_NAME_BYTES + 1])
{
    char copy[LIMIT_NAME_BYTES + 1];
    memcpy(copy, name, sizeof copy);
    copy[LIMIT_NAME_BYTES] = '\0';
    for (char *c = copy; *c; c++)
        *c = *c < 0x20 || *c > 0x7E ? '?' : *c; /* names are tokens; what is none is nobody's */
    buf_format(json, "\"%s\":", member);
    buf_append_json(json, str_from(copy));
}

static void append_counts(struct buf *json, const char *member, const uint64_t *counts, uint32_t n)
{
    buf_format(json, ",\"%s\":[", member);
    for (uint32_t i = 0; i < n; i++)
        buf_format(json, "%s%llu", i > 0 ? "," : "", (unsigned long long)bus_metrics_read(&counts[i]));
    buf_append_char(json, ']');
}

/* Answers by status: what a client may send again later (429, 503), what it did wrong, and what went well. */
static void append_requests(struct buf *json, const struct bus_metrics_row *row)
{
    static const int statuses[] = BUS_METRICS_STATUSES;
    uint64_t good = 0, busy = 0, left = 0, all = 0;
    for (uint32_t i = 0; i < BUS_METRICS_N_STATUSES; i++) {
        uint64_t n = bus_metrics_read(&row->requests[i]);
        all += n;
        good += statuses[i] >= 200 && statuses[i] < 300 ? n : 0;
        busy += statuses[i] == 503 ? n : 0;
        left += statuses[i] == 499 ? n : 0;
    }
    buf_format(json, ",\"requests\":%llu,\"good\":%llu,\"unavailable\":%llu,\"left\":%llu", (unsigned long long)all,
               (unsigned long long)good, (unsigned long long)busy, (unsigned long long)left);
}

static void append_row(struct buf *json, const struct bus_metrics_row *row)
{
    buf_append_char(json, '{');
    append_name(json, "tenant", row->tenant);
    buf_append_char(json, ',');
    append_name(json, "model", row->model);
    append_requests(json, row);
    append_counts(json, "refusals", row->refusals, BUS_METRICS_REFUSAL_COUNT);
    append_counts(json, "duration", row->duration.buckets, BUS_METRICS_DURATION_BUCKETS);
    buf_format(json, ",\"servedNs\":%llu,\"queued\":%llu,\"running\":%llu}",
               (unsigned long long)bus_metrics_read(&row->served_ns),
               (unsigned long long)bus_metrics_read(&row->queued), (unsigned long long)bus_metrics_read(&row->running));
}

int control_top(struct control *c, struct buf *json, struct error *err)
{
    const struct bus_metrics *m = c->metrics;
    uint32_t n_rows = m ? __atomic_load_n(&m->n_rows, __ATOMIC_ACQUIRE) : 0;
    buf_append_text(json, "{\"devices\":");
    (void)control_devices(c, (struct str){0}, json); /* there is one at least */
    buf_format(json, ",\"durationShift\":%u,\"rows\":[", BUS_METRICS_DURATION_SHIFT);
    for (uint32_t i = 0; i < n_rows && i < LIMIT_METRICS_ROWS + 1; i++) {
        if (i > 0)
            buf_append_char(json, ',');
        append_row(json, &m->rows[i]);
    }
    buf_append_text(json, "],\"tenants\":");
    int r = registry_get(c->registry, RESOURCE_TENANT, (struct str){0}, (struct str){0}, json, err);
    buf_append_char(json, '}');
    return r;
}
