/* Adapters come over the bus at any time, in the middle of a lease too; they are put aside until the engine has no step
 * under way. */
#include "worker/worker_internal.h"

#include <sys/mman.h>

static int put_aside(struct worker *w, struct bus_message *m)
{
    const struct bus_adapter_give *give = &m->body.WORKER_ADAPTER;
    if (w->n_adapters == WORKER_ADAPTERS_MAX || give->number == 0)
        return -ERROR_PEER;
    bool room = w->n_adapters < LIMIT_ADAPTERS_WAITING;
    w->adapters[w->n_adapters++] = (struct worker_adapter){
        .number = give->number, .epoch = give->epoch, .bytes = give->bytes, .fd = room ? take_fd(&m->fds[0]) : -1};
    return 1;
}

int worker_bus_look(struct worker *w)
{
    if (w->has_next)
        return 0;
    int r = bus_recv(w->bus_fd, BUS_WORKER, BUS_SUPERVISOR, &w->next);
    if (r <= 0)
        return r < 0 ? r : 2;
    w->has_next = w->next.type != BUS_WORKER_ADAPTER;
    if (w->has_next)
        return 0;
    r = put_aside(w, &w->next);
    bus_message_done(&w->next);
    return r;
}

static int adapter_load(struct worker *w, const struct worker_adapter *a, uint32_t *ret_kind)
{
    const void *data = NULL;
    struct error err = {0};
    if (!w->engine || !w->ops->adapter_load)
        return -ERROR_UNSUPPORTED;
    if (a->fd < 0)
        return -ERROR_OVERLOADED;
    int r = bus_memfd_map(a->fd, a->bytes, &data);
    if (r < 0)
        return r;
    r = w->ops->adapter_load(w->engine, a->number, a->fd, (struct str){data, a->bytes}, ret_kind, &err);
    (void)munmap((void *)(uintptr_t)data, a->bytes);
    return r;
}

static void forget(struct worker *w, uint32_t index)
{
    fd_close(&w->adapters[index].fd);
    memmove(&w->adapters[index], &w->adapters[index + 1], (--w->n_adapters - index) * sizeof w->adapters[0]);
}

int worker_adapters_load(struct worker *w)
{
    int r = 0;
    while (w->n_adapters > 0 && r >= 0) {
        const struct worker_adapter *a = &w->adapters[0];
        struct channel_frame frame = {.type = CHANNEL_ADAPTER, .index = a->number};
        bool late = a->epoch != w->channel->epoch; /* of an earlier gateway, whose numbers mean nothing any more */
        uint32_t kind = 0;
        if (!late)
            frame.status = adapter_load(w, a, &kind);
        frame.a = kind;
        forget(w, 0);
        if (!late)
            r = worker_push(w, &frame);
    }
    channel_ring(w->channel);
    return r;
}

void worker_adapters_drop(struct worker *w, uint32_t number)
{
    for (uint32_t i = w->n_adapters; i-- > 0;)
        if (number == 0 || w->adapters[i].number == number)
            forget(w, i);
    if (w->engine && w->ops->adapter_drop)
        w->ops->adapter_drop(w->engine, number);
}
