/* Adapters on their way to replicas that run: the gateway asks, the supervisor hands over. And which are there, as the
 * gateway says. */
#include "base/log.h"
#include "control/control_internal.h"

#include <stdlib.h>
#include <string.h>

struct adapter_wait {
    struct control *control;
    struct bus_demand_adapter body;
};

/* Whatever a gateway asks for: only an adapter of who uses that replica, with the base that it was found to fit. */
static int adapter_find(struct control *c, const struct bus_demand_adapter *body, struct registry_adapter *ret_adapter,
                        struct error *err)
{
    const struct control_replica *replica = map_get(&c->replicas, body->replica_uid);
    struct registry_version version;
    if (!c->registry || !replica || replica->stopping)
        return error_set_default(err, ERROR_WORKER_LOST);
    const struct control_version *v = replica->version;
    int r = registry_adapter_find(c->registry, body->adapter_uid, ret_adapter, err);
    if (r >= 0)
        r = registry_version_find(c->registry, v->uid, v->borrower_uid, &version, err);
    if (r >= 0)
        r = registry_adapter_allowed(c->registry, ret_adapter, &version, err);
    return r;
}

static void refuse(struct control *c, const struct bus_demand_adapter *body, int r, const struct error *err)
{
    log_warn("adapter_refused", "%s", error_text(err, r));
    struct bus_adapter_refused refused = {
        .replica_uid = body->replica_uid, .number = body->number, .epoch = body->epoch, .status = r};
    (void)bus_conn_send(c->gateway, BUS_ADAPTER_REFUSED, &refused, NULL, 0); /* a new gateway demands anew */
}

/* Meanwhile the replica, the loan or the adapter may be gone: looked at again. */
static void on_copied(void *ctx, int rc, int *fd, const struct error *err)
{
    struct adapter_wait *wait = ctx;
    struct control *c = wait->control;
    struct bus_demand_adapter body = wait->body;
    struct registry_adapter adapter;
    struct error again = *err;
    free(wait);
    c->n_adapter_waits--;
    if (rc >= 0)
        rc = adapter_find(c, &body, &adapter, &again);
    if (rc < 0) {
        refuse(c, &body, rc, &again);
        return;
    }
    struct bus_adapter_give give = {.replica_uid = body.replica_uid,
                                    .number = body.number,
                                    .epoch = body.epoch,
                                    .bytes = adapter.content.artifact_bytes};
    (void)bus_conn_send(c->supervisor, BUS_ADAPTER_GIVE, &give, fd, 1); /* without it we end anyway */
}

void control_demand_adapter(struct control *c, const struct bus_demand_adapter *body)
{
    struct registry_adapter adapter;
    struct error err = {0};
    int r = adapter_find(c, body, &adapter, &err);
    if (r >= 0 && c->n_adapter_waits >= LIMIT_REPLICAS)
        r = error_set_default(&err, ERROR_OVERLOADED);
    struct adapter_wait *wait = r >= 0 ? malloc(sizeof *wait) : NULL;
    if (wait) {
        *wait = (struct adapter_wait){c, *body};
        if (control_copy_start(c, &adapter.content, on_copied, wait)) {
            c->n_adapter_waits++;
            return;
        }
        free(wait);
    }
    refuse(c, body, r < 0 ? r : error_set_default(&err, ERROR_NO_MEMORY), &err);
}

/* --- what is loaded --- */

static struct control_adapter *find(const struct control_replica *r, uint64_t uid)
{
    for (uint32_t i = 0; i < r->n_adapters; i++)
        if (r->adapters[i].uid == uid)
            return &r->adapters[i];
    return NULL;
}

void control_replica_adapter(struct control *c, const struct bus_replica_adapter *body)
{
    struct control_replica *r = map_get(&c->replicas, body->replica_uid);
    if (!r)
        return;
    struct control_adapter *a = find(r, body->adapter_uid);
    if (!body->loaded) {
        if (a)
            *a = r->adapters[--r->n_adapters];
        return;
    }
    if (!r->adapters)
        r->adapters = calloc(LIMIT_ADAPTERS_LOADED, sizeof *r->adapters);
    if (!a && r->adapters && r->n_adapters < LIMIT_ADAPTERS_LOADED)
        a = &r->adapters[r->n_adapters++];
    if (!a)
        return; /* no memory: it is not shown */
    *a = (struct control_adapter){
        .uid = body->adapter_uid, .tenant_uid = body->tenant_uid, .bytes = body->bytes, .sequences = body->sequences};
    memcpy(a->tenant, body->tenant, sizeof a->tenant);
    memcpy(a->name, body->name, sizeof a->name);
}

void control_adapters_lost(struct control *c)
{
    size_t cursor = 0;
    for (struct control_replica *r; (r = map_next(&c->replicas, &cursor));)
        r->n_adapters = 0;
}

void control_adapters_append(const struct control_replica *r, struct buf *json)
{
    for (uint32_t i = 0; i < r->n_adapters; i++) {
        const struct control_adapter *a = &r->adapters[i];
        buf_append_text(json, i == 0 ? ",\"adapters\":[{\"tenant\":" : ",{\"tenant\":");
        buf_append_json(json, str_from(a->tenant));
        buf_append_text(json, ",\"name\":");
        buf_append_json(json, str_from(a->name));
        buf_format(json, ",\"bytes\":%llu,\"sequences\":%u}", (unsigned long long)a->bytes, a->sequences);
    }
    if (r->n_adapters > 0)
        buf_append_char(json, ']');
}

uint64_t control_adapters_most(struct control *c, uint64_t tenant_uid)
{
    uint64_t most = 0;
    size_t cursor = 0;
    for (const struct control_replica *r; (r = map_next(&c->replicas, &cursor));) {
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < r->n_adapters; i++)
            bytes += r->adapters[i].tenant_uid == tenant_uid ? r->adapters[i].bytes : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

void control_adapter_loaded(void *ctx, const char *tenant, const char *name, struct buf *status)
{
    struct control *c = ctx;
    uint32_t n = 0;
    size_t cursor = 0;
    buf_append_text(status, "\"loaded\":[");
    for (const struct control_replica *r; (r = map_next(&c->replicas, &cursor));)
        for (uint32_t i = 0; i < r->n_adapters; i++) {
            const struct control_adapter *a = &r->adapters[i];
            if (strcmp(a->tenant, tenant) != 0 || strcmp(a->name, name) != 0)
                continue;
            buf_format(status, "%s{\"replica\":\"%016llx\",\"bytes\":%llu,\"sequences\":%u}", n++ > 0 ? "," : "",
                       (unsigned long long)r->state.replica_uid, (unsigned long long)a->bytes, a->sequences);
        }
    buf_format(status, "],\"replicas\":%u,", n);
}
