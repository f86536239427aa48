/* Adapters on their way to replicas that run: the gateway asks, the supervisor hands over. */
#include "base/log.h"
#include "control/control_internal.h"

/* Whatever a gateway asks for: only an adapter of who uses that replica, with the base that it was found to fit. */
static int adapter_open(struct control *c, const struct bus_demand_adapter *body, int *ret_fd, uint64_t *ret_bytes,
                        struct error *err)
{
    const struct control_replica *replica = map_get(&c->replicas, body->replica_uid);
    struct registry_adapter adapter;
    struct registry_version version;
    if (!c->registry || !replica || replica->stopping)
        return error_set_default(err, ERROR_WORKER_LOST);
    const struct control_version *v = replica->version;
    int r = registry_adapter_find(c->registry, body->adapter_uid, &adapter, err);
    if (r >= 0)
        r = registry_version_find(c->registry, v->uid, v->borrower_uid, &version, err);
    if (r >= 0)
        r = registry_adapter_allowed(c->registry, &adapter, &version, err);
    if (r >= 0)
        r = registry_artifact_memfd(c->registry, &adapter.content, ret_fd, err);
    if (r >= 0)
        *ret_bytes = adapter.content.artifact_bytes;
    return r;
}

void control_demand_adapter(struct control *c, const struct bus_demand_adapter *body)
{
    struct bus_adapter_give give = {.replica_uid = body->replica_uid, .number = body->number, .epoch = body->epoch};
    struct error err = {0};
    _close_ int fd = -1;
    int r = adapter_open(c, body, &fd, &give.bytes, &err);
    if (r >= 0) {
        (void)bus_conn_send(c->supervisor, BUS_ADAPTER_GIVE, &give, &fd, 1); /* without it we end anyway */
        return;
    }
    log_warn("adapter_refused", "%s", error_text(&err, r));
    struct bus_adapter_refused refused = {
        .replica_uid = body->replica_uid, .number = body->number, .epoch = body->epoch, .status = r};
    (void)bus_conn_send(c->gateway, BUS_ADAPTER_REFUSED, &refused, NULL, 0); /* a new gateway demands anew */
}
