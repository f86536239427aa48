/* A request's arena: many small allocations, one release, and a maximum given at creation. What it takes beyond its
 * first small block may count in a budget that it shares with others.
 *
 * Gateway and control, one owner, no locking. Blocks come from malloc; the first one may be kept across arena_reset so
 * that a steady stream of requests allocates nothing. Memory is not zeroed. */
#ifndef BULKHEAD_BASE_ARENA_H
#define BULKHEAD_BASE_ARENA_H

#include "base/budget.h"
#include "base/str.h"

struct arena_block;

struct arena {
    struct arena_block *_first; /* newest block first */
    size_t _used;               /* bytes used in the newest block */
    size_t bytes;               /* read-only: bytes of all blocks */
    size_t bytes_max;           /* read-only */
    struct budget *_budget;     /* NULL: its blocks count nowhere */
    struct budget_share *_share;
    size_t _counted;
    int refused; /* read-only: an allocation since the last reset failed for the budget's sake, as budget_take says */
};

void arena_init(struct arena *a, size_t bytes_max);
/* Releases all memory. Accepts a zeroed struct. */
void arena_done(struct arena *a);
/* Forgets all allocations; keeps one block of the standard size if there is one. */
void arena_reset(struct arena *a);

/* Its blocks count there from now on; both stay until arena_reset or arena_done. NULL: nowhere. It holds no counted
 * block.
 */
void arena_budget_set(struct arena *a, struct budget *budget, struct budget_share *share);

/* `size` bytes aligned to 16, or NULL: over the maximum or out of memory. size 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, size_t size);
/* count × size, checked. */
void *arena_array(struct arena *a, size_t count, size_t size);
/* A NUL-terminated copy. */
char *arena_copy(struct arena *a, struct str s);

#endif
