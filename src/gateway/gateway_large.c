/* Requests with large bodies, whose JSON takes the loop's thread milliseconds: a few in a turn, so that what others
 * sent meanwhile is read in between. See docs/internals/loop.md. */
#include "gateway/gateway_internal.h"

void gateway_request_handle(struct gateway_request *r)
{
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    r->route->handler(r);
}

void gateway_large_add(struct gateway_request *r)
{
    gateway_request_state_set(r, GATEWAY_REQUEST_LARGE);
    list_append(&r->gateway->large, &r->node);
}

static uint64_t owner_of(const struct gateway_request *r)
{
    return r->tenant ? r->tenant->uid : 0;
}

/* The first of another tenant than the last one's, if there is one: so nobody waits for all of somebody else's. */
static struct gateway_request *next(const struct gateway *g)
{
    list_each(node, &g->large)
    {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        if (owner_of(r) != g->large_last)
            return r;
    }
    return container_of(list_first(&g->large), struct gateway_request, node);
}

void gateway_large_turn(struct gateway *g)
{
    uint64_t begin_ns = list_empty(&g->large) ? 0 : uv_hrtime();
    while (!list_empty(&g->large)) {
        struct gateway_request *r = next(g);
        list_remove(&r->node);
        g->large_last = owner_of(r);
        gateway_request_handle(r);
        if (uv_hrtime() - begin_ns >= LIMIT_TURN_MS * UINT64_C(1000000))
            break;
    }
    g->look_again = g->look_again || !list_empty(&g->large);
}
