/* Memory that several parties share: a total, and what each party has of it. No memory itself, only the count and the
 * rule: a party may have as much as all leave free, so alone half of the total, two a third each, and so on, and none
 * takes the others' room; but what it holds for one purpose alone may be whatever is free. One thread. */
#ifndef BULKHEAD_BASE_BUDGET_H
#define BULKHEAD_BASE_BUDGET_H

#include "base/cleanup.h"
#include "base/error.h"

#include <assert.h>
#include <stddef.h>

struct budget {
    size_t bytes, bytes_max;
};

struct budget_share { /* of one party; starts as zeros */
    size_t bytes;
};

/* `own`: what the purpose that wants more holds already. share NULL: nobody's, only the total counts.
 *   -ERROR_OVERLOADED  the total has no room     -ERROR_QUEUE_FULL  the party has its part */
must_check static inline int budget_take(struct budget *b, struct budget_share *share, size_t own, size_t bytes)
{
    size_t left = b->bytes_max > b->bytes ? b->bytes_max - b->bytes : 0;
    if (bytes > left)
        return -ERROR_OVERLOADED;
    if (share && share->bytes > own && bytes > (left > share->bytes ? (left - share->bytes) / 2 : 0))
        return -ERROR_QUEUE_FULL;
    b->bytes += bytes;
    if (share)
        share->bytes += bytes;
    return 0;
}

static inline void budget_give(struct budget *b, struct budget_share *share, size_t bytes)
{
    assert(b->bytes >= bytes && (!share || share->bytes >= bytes));
    b->bytes -= bytes;
    if (share)
        share->bytes -= bytes;
}

#endif
