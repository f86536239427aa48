/* Hash map from a 64-bit id to a pointer: open addressing, linear probing, backward-shift deletion. Any role, one
 * owner. Ids are ours (uids from the store, random numbers), never chosen by a tenant; they are mixed all the same. */
#ifndef BULKHEAD_BASE_MAP_H
#define BULKHEAD_BASE_MAP_H

#include "base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct map_entry {
    uint64_t id;
    void *value; /* NULL = free place */
};

struct map {
    struct map_entry *entries; /* [capacity], private */
    uint32_t capacity;         /* 0 or a power of two */
    uint32_t count;            /* read-only */
    uint32_t count_max;
};

void map_init(struct map *m, uint32_t count_max);
void map_done(struct map *m);                    /* does not touch the values; accepts a zeroed struct */
void *map_get(const struct map *m, uint64_t id); /* NULL when absent */
/* value is not NULL; replaces. 0, -ERROR_LIMIT at count_max, -ERROR_NO_MEMORY. */
must_check int map_put(struct map *m, uint64_t id, void *value);
void *map_remove(struct map *m, uint64_t id); /* the value, or NULL */

/* for (size_t i = 0; (value = map_next(m, &i));) - order is arbitrary; do not change the map meanwhile. */
void *map_next(const struct map *m, size_t *cursor);

#endif
