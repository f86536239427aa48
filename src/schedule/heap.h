/* A priority queue over 64-bit keys with items known by handle, private to this room.
 *
 * An item is known by its handle, a uint32_t in the item itself: 0 = not in the queue. container_of leads from the
 * handle back to the item. Keys are compared modulo 2^64, so the keys in one queue must lie within 2^63 of each other;
 * equal keys are ordered by `tie`. Growing is a call of its own, so that all others cannot fail.
 *
 * Made for a million items that lie scattered in memory. It is a 4-ary tournament: each item has a leaf of its own for
 * as long as it is in, and each node above holds the least of its four children, which fill one cache line. All lines
 * that a change touches therefore follow from the handle alone, no wait for memory depends on another one, and nothing
 * has to be told where it moved. The few entries nearest to the root are those that will be picked next: their
 * leaves and items are fetched ahead of time. */
#ifndef BULKHEAD_SCHEDULE_HEAP_H
#define BULKHEAD_SCHEDULE_HEAP_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

#define SCHEDULE_HEAP_LEVELS      18u /* leaves, and log4 of 2^31 and a half */
#define SCHEDULE_HEAP_NEAR        2u
#define SCHEDULE_HEAP_FANOUT_BITS 2u

struct schedule_heap_entry {
    uint64_t key;
    uint64_t who; /* tie × 2^32 + handle; 0: nobody, then a leaf's key is the next free handle */
};

struct schedule_heap {
    uint32_t size, capacity; /* read-only */
    /* May be set: fetches ahead what the caller looks at before it moves an item, beyond the item itself. Called when
     * an item has come up to SCHEDULE_HEAP_NEAR levels below the top. */
    void (*near)(uint32_t *handle);
    /* private */
    uint32_t _top;                                             /* the level with one entry: the least of all */
    uint32_t _free, _n_ids;                                    /* first free handle, 0 = none; handles ever given out */
    struct schedule_heap_entry *_levels[SCHEDULE_HEAP_LEVELS]; /* [0] by handle − 1; each group of 4 a cache line */
    uint32_t **_handles;                                       /* by handle − 1: where the item keeps it */
    void *_block;                                              /* all arrays */
};

/* Room for `count` entries altogether. 0 or -ERROR_NO_MEMORY, the queue unchanged. A zeroed struct is an empty one. */
must_check int schedule_heap_reserve(struct schedule_heap *h, uint32_t count);
void schedule_heap_done(struct schedule_heap *h);

/* Inserts the item (asserts that there is room), or moves it to where its new key belongs. */
void schedule_heap_set(struct schedule_heap *h, uint32_t *handle, uint64_t key, uint32_t tie);
/* Does nothing for an item that is not in the queue. */
void schedule_heap_remove(struct schedule_heap *h, uint32_t *handle);

/* The handle of the least item and its key (ret_key may be NULL), or NULL for an empty queue. */
static inline uint32_t *schedule_heap_peek(const struct schedule_heap *h, uint64_t *ret_key)
{
    if (!h->size)
        return NULL;
    const struct schedule_heap_entry *least = h->_levels[h->_top];
    if (ret_key)
        *ret_key = least->key;
    return h->_handles[(uint32_t)least->who - 1];
}

/* Who stands n_levels below the top on the way up from this leaf, or NULL: nobody. `leaf` is a handle, also of an item
 * that has just left: then these are the ones that took its places, and will soon be least themselves. */
static inline uint32_t *schedule_heap_next(const struct schedule_heap *h, uint32_t leaf, uint32_t n_levels)
{
    if (n_levels > h->_top)
        return NULL;
    uint32_t level = h->_top - n_levels;
    uint32_t handle = (uint32_t)h->_levels[level][(leaf - 1) >> (SCHEDULE_HEAP_FANOUT_BITS * level)].who;
    return handle ? h->_handles[handle - 1] : NULL;
}

/* The key of an item that is in the queue. */
static inline uint64_t schedule_heap_key(const struct schedule_heap *h, const uint32_t *handle)
{
    return h->_levels[0][*handle - 1].key;
}

#endif
