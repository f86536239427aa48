#include "base/map.h"

#include "base/error.h"

#define MAP_CAPACITY_FIRST 16u

void map_init(struct map *m, uint32_t count_max)
{
    *m = (struct map){.count_max = count_max};
}

void map_done(struct map *m)
{
    free(m->entries);
    *m = (struct map){.count_max = m->count_max};
}

/* Finalizer of MurmurHash3 (Appleby, public domain): every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

/* The place of `id`, or the free place where it would go. capacity > count always holds, so the search ends. */
static uint32_t place_of(const struct map *m, uint64_t id)
{
    uint32_t place = (uint32_t)mix(id) & (m->capacity - 1);
    while (m->entries[place].value && m->entries[place].id != id)
        place = (place + 1) & (m->capacity - 1);
    return place;
}

void *map_get(const struct map *m, uint64_t id)
{
    return m->capacity > 0 ? m->entries[place_of(m, id)].value : NULL;
}

static int grow(struct map *m)
{
    uint32_t capacity = m->capacity > 0 ? m->capacity * 2 : MAP_CAPACITY_FIRST;
    struct map bigger = {.capacity = capacity, .count = m->count, .count_max = m->count_max};
    if (capacity <= m->capacity)
        return -ERROR_LIMIT;
    bigger.entries = calloc(capacity, sizeof *bigger.entries);
    if (!bigger.entries)
        return -ERROR_NO_MEMORY;
    for (uint32_t i = 0; i < m->capacity; i++)
        if (m->entries[i].value)
            bigger.entries[place_of(&bigger, m->entries[i].id)] = m->entries[i];
    free(m->entries);
    *m = bigger;
    return 0;
}

int map_put(struct map *m, uint64_t id, void *value)
{
    if (m->capacity > 0) {
        uint32_t place = place_of(m, id);
        if (m->entries[place].value) {
            m->entries[place].value = value;
            return 0;
        }
    }
    if (m->count >= m->count_max)
        return -ERROR_LIMIT;
    if (m->count + 1 > m->capacity / 4 * 3) {
        int r = grow(m);
        if (r < 0)
            return r;
    }
    m->entries[place_of(m, id)] = (struct map_entry){id, value};
    m->count++;
    return 0;
}

void *map_remove(struct map *m, uint64_t id)
{
    if (m->capacity == 0)
        return NULL;
    uint32_t mask = m->capacity - 1;
    uint32_t hole = place_of(m, id);
    void *value = m->entries[hole].value;
    if (!value)
        return NULL;
    for (uint32_t next = (hole + 1) & mask; m->entries[next].value; next = (next + 1) & mask) {
        uint32_t home = (uint32_t)mix(m->entries[next].id) & mask;
        if (((next - home) & mask) >= ((next - hole) & mask)) { /* its search path crosses the hole */
            m->entries[hole] = m->entries[next];
            hole = next;
        }
    }
    m->entries[hole].value = NULL;
    m->count--;
    return value;
}

void *map_next(const struct map *m, size_t *cursor)
{
    while (*cursor < m->capacity) {
        void *value = m->entries[(*cursor)++].value;
        if (value)
            return value;
    }
    return NULL;
}
