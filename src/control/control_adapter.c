/* Adapters on their way to replicas that run: the gateway asks, the supervisor hands over. */
#include "base/log.h"
#include "control/control_internal.h"

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
