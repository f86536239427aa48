#include "schedule/heap.h"

#include "base/error.h"
#include "base/memory.h"

#include <assert.h>
#include <string.h>

enum { FANOUT_BITS = SCHEDULE_HEAP_FANOUT_BITS, FANOUT = 1 << FANOUT_BITS, CAPACITY_FIRST = 4, CACHE_LINE = 64 };

/* How far below the top an entry stands when what its turn will need is fetched: its leaf and the pointer to its item
 * among at most 256 next ones, the item itself among at most 64, what that leads to among 16. */
enum { AHEAD_LEAF = 4, AHEAD_ITEM = 3 };

/* Beside its handle an item keeps what its turn needs: so far before it too. */
enum { ITEM_BYTES_BEFORE = CACHE_LINE };

static_assert(FANOUT * sizeof(struct schedule_heap_entry) == CACHE_LINE, "siblings fill a cache line");

static size_t level_entries(uint32_t capacity, uint32_t level)
{
    size_t n = ((size_t)capacity + ((size_t)1 << (FANOUT_BITS * level)) - 1) >> (FANOUT_BITS * level);
    return (n + FANOUT - 1) / FANOUT * FANOUT;
}

static uint32_t top_level(uint32_t capacity)
{
    uint32_t level = 0;
    while (((uint64_t)1 << (FANOUT_BITS * level)) < capacity)
        level++;
    return level;
}

static inline uint32_t entry_handle(struct schedule_heap_entry entry)
{
    return (uint32_t)entry.who;
}

/* All ones if a is less than b, else 0. By arithmetic on purpose, here and below: which of two is less is a coin toss,
 * and a processor's wrong guess costs more than all of it. */
static inline uint64_t entry_less(struct schedule_heap_entry a, struct schedule_heap_entry b)
{
    uint64_t distance = a.key - b.key - (a.who < b.who);
    uint64_t less = distance >> 63; /* keys lie within 2^63 of each other: the sign of their distance */
    return -((less | (b.who == 0)) & (a.who != 0));
}

static inline struct schedule_heap_entry entry_least(struct schedule_heap_entry a, struct schedule_heap_entry b)
{
    uint64_t less = entry_less(b, a);
    return (struct schedule_heap_entry){a.key ^ ((a.key ^ b.key) & less), a.who ^ ((a.who ^ b.who) & less)};
}

/* Makes every node above the leaves anew. */
static void levels_fill(struct schedule_heap *h)
{
    for (uint32_t level = 1; level <= h->_top; level++) {
        size_t n = level_entries(h->capacity, level - 1) / FANOUT;
        const struct schedule_heap_entry *below = h->_levels[level - 1];
        for (size_t i = 0; i < n; i++) {
            const struct schedule_heap_entry *child = &below[i * FANOUT];
            h->_levels[level][i] = entry_least(entry_least(child[0], child[1]), entry_least(child[2], child[3]));
        }
    }
}

int schedule_heap_reserve(struct schedule_heap *h, uint32_t count)
{
    if (count <= h->capacity)
        return 0;
    if (count > UINT32_MAX / 2)
        return -ERROR_NO_MEMORY;
    uint32_t capacity = h->capacity ? h->capacity : CAPACITY_FIRST;
    while (capacity < count)
        capacity *= 2;
    struct schedule_heap grown = *h;
    grown.capacity = capacity;
    grown._top = top_level(capacity);
    size_t n_entries = 0;
    for (uint32_t level = 0; level <= grown._top; level++)
        n_entries += level_entries(capacity, level);
    size_t entries_bytes = n_entries * sizeof(struct schedule_heap_entry);
    size_t bytes = memory_large_size(entries_bytes + capacity * sizeof *h->_handles);
    char *block = aligned_alloc(memory_large_alignment(bytes), bytes);
    if (!block)
        return -ERROR_NO_MEMORY;
    memory_large_advise(block, bytes);
    memset(block, 0, entries_bytes);
    grown._block = block;
    for (uint32_t level = 0; level <= grown._top; level++) {
        grown._levels[level] = (struct schedule_heap_entry *)(void *)block;
        block += level_entries(capacity, level) * sizeof(struct schedule_heap_entry);
    }
    grown._handles = (uint32_t **)(void *)block;
    if (h->capacity) {
        memcpy(grown._levels[0], h->_levels[0], h->_n_ids * sizeof(struct schedule_heap_entry));
        memcpy(grown._handles, h->_handles, h->_n_ids * sizeof *h->_handles);
        levels_fill(&grown);
    }
    free(h->_block);
    *h = grown;
    return 0;
}

void schedule_heap_done(struct schedule_heap *h)
{
    free(h->_block);
    *h = (struct schedule_heap){0};
}

/* An entry has come near enough to the top to be picked soon. Always inline: gcc 12 drops calls that only prefetch. */
__attribute__((always_inline)) static inline void fetch_ahead(const struct schedule_heap *h, uint32_t level,
                                                              uint32_t handle)
{
    if (!handle)
        return;
    uint32_t id = handle - 1;
    if (level + AHEAD_LEAF == h->_top) {
        __builtin_prefetch(&h->_handles[id]);
        for (uint32_t l = 0; l < AHEAD_LEAF && l < level; l++)
            __builtin_prefetch(&h->_levels[l][id >> (FANOUT_BITS * l)]);
    } else if (level + AHEAD_ITEM == h->_top) {
        const char *item = (const char *)h->_handles[id];
        __builtin_prefetch(item);
        __builtin_prefetch(item - ITEM_BYTES_BEFORE);
    } else if (level + SCHEDULE_HEAP_NEAR == h->_top && h->near) {
        h->near(h->_handles[id]);
    }
}

/* The leaf was at least as small before: nodes that it has won are decided anew, up to the first that it has not. At
 * each level only one comparison waits for the level below: that with the least of the three siblings. */
static void replay_grown(struct schedule_heap *h, uint32_t handle, struct schedule_heap_entry winner)
{
    uint32_t id = handle - 1;
    for (uint32_t level = 1; level <= h->_top; level++) {
        struct schedule_heap_entry *node = &h->_levels[level][id >> (FANOUT_BITS * level)];
        if (entry_handle(*node) != handle)
            return;
        uint32_t place = id >> (FANOUT_BITS * (level - 1)), own = place % FANOUT;
        const struct schedule_heap_entry *siblings = &h->_levels[level - 1][place - own];
        struct schedule_heap_entry others =
            entry_least(entry_least(siblings[own ^ 1], siblings[own ^ 2]), siblings[own ^ 3]);
        winner = entry_least(winner, others);
        *node = winner;
        fetch_ahead(h, level, entry_handle(winner));
    }
}

/* The leaf is new or smaller than before: it wins until it meets one that is less. */
static void replay_shrunk(struct schedule_heap *h, struct schedule_heap_entry entry)
{
    uint32_t handle = entry_handle(entry), id = handle - 1;
    for (uint32_t level = 1; level <= h->_top; level++) {
        struct schedule_heap_entry *node = &h->_levels[level][id >> (FANOUT_BITS * level)];
        if (h->size > 1 && entry_handle(*node) != handle && !entry_less(entry, *node))
            return;
        *node = entry;
        fetch_ahead(h, level, handle);
    }
}

void schedule_heap_set(struct schedule_heap *h, uint32_t *handle, uint64_t key, uint32_t tie)
{
    struct schedule_heap_entry before = {0};
    if (*handle) {
        assert(*handle <= h->_n_ids && h->_handles[*handle - 1] == handle);
        before = h->_levels[0][*handle - 1];
    } else {
        assert(h->size < h->capacity);
        if (h->_free) {
            *handle = h->_free;
            h->_free = (uint32_t)h->_levels[0][*handle - 1].key;
        } else {
            *handle = ++h->_n_ids;
        }
        h->_handles[*handle - 1] = handle;
        h->size++;
    }
    struct schedule_heap_entry entry = {key, (uint64_t)tie << 32 | *handle};
    h->_levels[0][*handle - 1] = entry;
    if (h->size > 1 && entry_less(before, entry))
        replay_grown(h, *handle, entry);
    else
        replay_shrunk(h, entry);
}

void schedule_heap_remove(struct schedule_heap *h, uint32_t *handle)
{
    if (!*handle)
        return;
    assert(*handle <= h->_n_ids && h->_handles[*handle - 1] == handle);
    h->_levels[0][*handle - 1] = (struct schedule_heap_entry){.key = h->_free};
    h->_free = *handle;
    h->size--;
    *handle = 0;
    if (h->size == 0) { /* the usual case of a device that is not busy */
        for (uint32_t level = 1; level <= h->_top; level++)
            h->_levels[level][(h->_free - 1) >> (FANOUT_BITS * level)] = (struct schedule_heap_entry){0};
        return;
    }
    replay_grown(h, h->_free, (struct schedule_heap_entry){0});
}
