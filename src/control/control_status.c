/* What `bulkhead status` and `bulkhead get replica` show. */
#include "base/clock.h"
#include "control/control_internal.h"

#include <stdio.h>

static const char *phase_name(const struct control_replica *r)
{
    switch ((enum bus_replica_phase)r->state.phase) {
    case BUS_REPLICA_STARTING:
        return "starting";
    case BUS_REPLICA_RUNNING:
        return r->loaded ? "ready" : "loading";
    case BUS_REPLICA_STOPPING:
        return "stopping";
    case BUS_REPLICA_ENDED:
        break;
    }
    return "ended";
}

static void append_member(struct buf *json, const char *name, const char *text)
{
    buf_format(json, ",\"%s\":", name);
    buf_append_json(json, str_from(text));
}

static void append_replica(struct buf *json, const struct control_replica *r)
{
    char time_text[CLOCK_TEXT_BYTES];
    clock_wall_text(r->state.started_ms, time_text);
    buf_format(json,
               "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Replica\",\"metadata\":{\"name\":\"%016llx\"",
               (unsigned long long)r->state.replica_uid);
    append_member(json, "tenant", r->state.tenant);
    buf_append_text(json, "},\"status\":{");
    buf_format(json, "\"state\":\"%s\"", phase_name(r));
    append_member(json, "model", r->state.model);
    buf_format(json, ",\"version\":%u", r->state.version_number);
    append_member(json, "engine", r->state.engine);
    append_member(json, "level", control_level_name(r->state.level));
    append_member(json, "wall", r->state.text);
    buf_format(json, ",\"pid\":%d,\"uid\":%u,\"restarts\":%u", r->state.pid, r->state.uid, r->version->restarts);
    append_member(json, "started", time_text);
    control_blocked_append(&r->blocked, json);
    control_adapters_append(r, json);
    if (r->version->last_error[0])
        append_member(json, "lastError", r->version->last_error);
    buf_append_text(json, "}}");
}

void control_replicas(struct control *c, struct str tenant, struct str name, struct buf *ret_items)
{
    size_t cursor = 0;
    bool first = true;
    buf_append_char(ret_items, '[');
    for (struct control_replica *r; (r = map_next(&c->replicas, &cursor));) {
        char uid[17];
        (void)snprintf(uid, sizeof uid, "%016llx", (unsigned long long)r->state.replica_uid); /* exactly 16 digits */
        if (tenant.size > 0 && !str_equal(tenant, str_from(r->state.tenant)))
            continue;
        if (name.size > 0 && !str_equal(name, (struct str){uid, 16}) && !str_equal(name, str_from(r->state.model)))
            continue;
        if (!first)
            buf_append_char(ret_items, ',');
        first = false;
        append_replica(ret_items, r);
    }
    buf_append_char(ret_items, ']');
}

/* Versions whose replicas wait for processors of their own: no replica of them could say so. */
static void append_waiting(struct control *c, struct buf *json)
{
    size_t cursor = 0;
    bool first = true;
    buf_append_text(json, ",\"waiting\":[");
    for (struct control_version *v; (v = map_next(&c->versions, &cursor));) {
        struct registry_version row;
        struct error err = {0};
        if (!v->waits_cores || registry_version_find(c->registry, v->uid, v->borrower_uid, &row, &err) < 0)
            continue;
        buf_format(json, "%s{\"version\":%u", first ? "" : ",", row.number);
        append_member(json, "tenant", row.tenant);
        append_member(json, "model", row.model);
        append_member(json, "reason", v->last_error);
        buf_append_char(json, '}');
        first = false;
    }
    buf_append_char(json, ']');
}

static double seconds_of(uint64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static void append_device(struct control *c, uint32_t index, struct buf *json)
{
    static const struct bus_metrics_device none;
    const struct bus_metrics_device *d = c->metrics ? &c->metrics->devices[index] : &none;
    uint64_t tenants = bus_metrics_read(&d->tenants_ns), system = bus_metrics_read(&d->system_ns);
    uint64_t running = bus_metrics_read(&d->running_ns), idle = bus_metrics_read(&d->idle_ns), queued = 0;
    double all = (double)tenants + (double)system + (double)running + (double)idle;
    for (uint32_t i = 0; i < BUS_METRICS_CLASSES; i++)
        queued += bus_metrics_read(&d->queued[i]);
    buf_format(json,
               "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Device\",\"metadata\":{\"name\":\"%s\"},"
               "\"status\":{\"slots\":%u,\"used\":%llu,\"dedicated\":%u,\"queued\":%llu,\"busyPercent\":%.1f,"
               "\"seconds\":{\"tenants\":%.3f,\"system\":%.3f,\"idle\":%.3f}}}",
               c->config.devices[index].name, c->config.devices[index].slots,
               (unsigned long long)bus_metrics_read(&d->used), index == 0 ? c->cores.dedicated : 0,
               (unsigned long long)queued, all > 0 ? 100 * (all - (double)idle) / all : 0.0,
               seconds_of(tenants + running), seconds_of(system), seconds_of(idle));
}

uint32_t control_devices(struct control *c, struct str name, struct buf *ret_items)
{
    uint32_t n = 0;
    buf_append_char(ret_items, '[');
    for (uint32_t i = 0; i < c->config.n_devices; i++) {
        if (name.size > 0 && !str_equal(name, str_from(c->config.devices[i].name)))
            continue;
        if (n++ > 0)
            buf_append_char(ret_items, ',');
        append_device(c, i, ret_items);
    }
    buf_append_char(ret_items, ']');
    return n;
}

void control_status(struct control *c, struct buf *json)
{
    const struct bus_stats *s = &c->stats;
    buf_append_text(json, "{\"version\":\"" BULKHEAD_VERSION "\"");
    buf_format(json, ",\"ready\":%s", c->gateway && c->generation_taken > 0 ? "true" : "false");
    append_member(json, "listen", c->config.listen);
    buf_format(json, ",\"generation\":{\"sent\":%llu,\"taken\":%llu}", (unsigned long long)c->generation_sent,
               (unsigned long long)c->generation_taken);
    buf_format(json,
               ",\"gateway\":{\"connected\":%s,\"connections\":%u,\"queued\":%u,\"answered\":%llu,\"refused\":%llu,"
               "\"failed\":%llu,\"bytesIn\":%llu,\"bytesOut\":%llu,\"leases\":%llu,\"leaseSeconds\":%.3f}",
               c->gateway ? "true" : "false", s->connections, s->queued, (unsigned long long)s->requests,
               (unsigned long long)s->refused, (unsigned long long)s->failed, (unsigned long long)s->bytes_in,
               (unsigned long long)s->bytes_out, (unsigned long long)s->leases, (double)s->lease_ns / (double)NS_PER_S);
    buf_format(json, ",\"device\":{\"name\":\"cpu\",\"slots\":%u,\"used\":%u,\"dedicated\":%u}",
               c->config.devices[0].slots, s->slots_used, c->cores.dedicated);
    buf_append_char(json, ',');
    control_isolation_append(c, json);
    buf_append_text(json, ",\"replicas\":");
    control_replicas(c, (struct str){0}, (struct str){0}, json);
    append_waiting(c, json);
    buf_append_char(json, '}');
}
