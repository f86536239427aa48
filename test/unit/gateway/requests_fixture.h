/* What a gateway that a test made keeps of answered requests. */
#ifndef BULKHEAD_TEST_UNIT_GATEWAY_REQUESTS_FIXTURE_H
#define BULKHEAD_TEST_UNIT_GATEWAY_REQUESTS_FIXTURE_H

#include "gateway/gateway_internal.h"

#include <stdlib.h>

static inline void requests_free_done(struct gateway *g)
{
    for (struct list *node; (node = list_first(&g->requests_free));) {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        list_remove(node);
        arena_done(&r->arena);
        free(r);
    }
}

#endif
