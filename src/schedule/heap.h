/* An indexed 4-ary min-heap over 64-bit keys, private to this room.
 *
 * An item is known by its handle, a uint32_t in the item itself: 0 = not in the heap. container_of leads from the
 * handle back to the item. Keys are compared modulo 2^64, so the keys in one heap must lie within 2^63 of each other;
 * equal keys are ordered by `tie`. Growing is a call of its own, so that all others cannot fail.
 *
 * Made for a million items that lie scattered in memory: four children, 16 bytes each, fill one cache line, and a sift
 * touches no item, only entries and a dense table of positions. */
#ifndef BULKHEAD_SCHEDULE_HEAP_H
#define BULKHEAD_SCHEDULE_HEAP_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

struct schedule_heap_entry {
    uint64_t key;
    uint32_t tie;
    uint32_t id; /* handle − 1 */
};

struct schedule_heap {
    uint32_t size, capacity; /* read-only */
    /* private */
    struct schedule_heap_entry *_entries; /* [0] is the least; [1], [5], [9] … begin a cache line */
    uint32_t *_positions;                 /* by id: index in entries; of a free id: the next free one + 1 */
    uint32_t **_handles;                  /* by id: where the item keeps its handle */
    uint32_t _free_id, _n_ids;            /* first free id + 1, 0 = none; ids ever given out */
    void *_block;                         /* all three arrays */
};

/* Room for `count` entries altogether. 0 or -ERROR_NO_MEMORY, the heap unchanged. A zeroed struct is an empty heap. */
must_check int schedule_heap_reserve(struct schedule_heap *h, uint32_t count);
void schedule_heap_done(struct schedule_heap *h);

/* Inserts the item (asserts that there is room), or moves it to where its new key belongs. */
void schedule_heap_set(struct schedule_heap *h, uint32_t *handle, uint64_t key, uint32_t tie);
/* Does nothing for an item that is not in the heap. */
void schedule_heap_remove(struct schedule_heap *h, uint32_t *handle);

/* The handle of the least item and its key (ret_key may be NULL), or NULL for an empty heap. */
static inline uint32_t *schedule_heap_peek(const struct schedule_heap *h, uint64_t *ret_key)
{
    if (!h->size)
        return NULL;
    if (ret_key)
        *ret_key = h->_entries[0].key;
    return h->_handles[h->_entries[0].id];
}

/* The key of an item that is in the heap. */
static inline uint64_t schedule_heap_key(const struct schedule_heap *h, const uint32_t *handle)
{
    return h->_entries[h->_positions[*handle - 1]].key;
}

#endif
