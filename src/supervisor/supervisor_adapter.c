/* Adapters of language models on their way from control to a worker that runs. The supervisor looks at the memory's
 * seals and size, never at what is in it. */
#include "supervisor/supervisor_internal.h"

static int adapter_hand_over(const struct supervisor_replica *r, const struct bus_adapter_give *give, int adapter_fd)
{
    struct bus_conn *bus = supervisor_replica_bus(r);
    if (!bus) /* no descriptor gets into a virtual machine */
        return -ERROR_UNSUPPORTED;
    if (give->number == 0 || give->bytes == 0 || bus_memfd_check(adapter_fd, give->bytes) < 0)
        return -ERROR_INTERNAL;
    return bus_conn_send(bus, BUS_WORKER_ADAPTER, give, &adapter_fd, 1);
}

void supervisor_adapter_give(struct supervisor *s, const struct bus_adapter_give *give, int adapter_fd)
{
    const struct supervisor_replica *r = map_get(&s->replicas, give->replica_uid);
    if (!r || r->state != REPLICA_RUNNING || r->epoch != give->epoch)
        return; /* it ends, or its gateway has: who asked will hear of that, or is gone */
    int result = adapter_hand_over(r, give, adapter_fd);
    if (result >= 0)
        return;
    struct bus_adapter_refused refused = {
        .replica_uid = give->replica_uid, .number = give->number, .epoch = give->epoch, .status = result};
    supervisor_tell(s, CHILD_GATEWAY, BUS_ADAPTER_REFUSED, &refused, NULL, 0);
}
