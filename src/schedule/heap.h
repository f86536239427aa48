/* An indexed 4-ary min-heap over 64-bit keys, private to this room. Four children instead of two: half the levels, and
 * the children of a node lie together in one or two cache lines.
 *
 * The heap holds pointers to the items' position fields (index + 1; 0 = not in the heap) and keeps them up to date;
 * container_of leads from there to the item. Keys are compared modulo 2^64, so the keys in one heap must lie within
 * 2^63 of each other; equal keys are ordered by `tie`. Growing is a call of its own, so that all others cannot fail. */
#ifndef BULKHEAD_SCHEDULE_HEAP_H
#define BULKHEAD_SCHEDULE_HEAP_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct schedule_heap_entry {
    uint64_t key;
    uint64_t tie;
    uint32_t *position;
};

struct schedule_heap {
    struct schedule_heap_entry *entries; /* read-only: entries[0] is the least */
    uint32_t size, capacity;             /* read-only */
};

/* Room for `count` entries altogether. 0 or -ERROR_NO_MEMORY, the heap unchanged. A zeroed struct is an empty heap. */
must_check int schedule_heap_reserve(struct schedule_heap *h, uint32_t count);
void schedule_heap_done(struct schedule_heap *h);

/* Inserts the item (asserts that there is room), or moves it to where its new key belongs. */
void schedule_heap_set(struct schedule_heap *h, uint32_t *position, uint64_t key, uint64_t tie);
/* Does nothing for an item that is not in the heap. */
void schedule_heap_remove(struct schedule_heap *h, uint32_t *position);

/* The least entry, or NULL. */
static inline const struct schedule_heap_entry *schedule_heap_peek(const struct schedule_heap *h)
{
    return h->size ? h->entries : NULL;
}

static inline uint64_t schedule_heap_key(const struct schedule_heap *h, const uint32_t *position)
{
    return h->entries[*position - 1].key;
}

#endif
