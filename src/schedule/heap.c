#include "schedule/heap.h"

#include "base/error.h"

#include <assert.h>
#include <string.h>

enum { FANOUT = 4, CAPACITY_FIRST = 16, CACHE_LINE = 64 };

/* Entries are placed so that the first child of the root begins a cache line; then every group of siblings does. */
enum { ENTRIES_LEAD = CACHE_LINE / sizeof(struct schedule_heap_entry) - 1 };

static_assert(FANOUT * sizeof(struct schedule_heap_entry) == CACHE_LINE, "siblings fill a cache line");

int schedule_heap_reserve(struct schedule_heap *h, uint32_t count)
{
    if (count <= h->capacity)
        return 0;
    if (count > UINT32_MAX / 2)
        return -ERROR_NO_MEMORY;
    uint32_t capacity = h->capacity ? h->capacity : CAPACITY_FIRST;
    while (capacity < count)
        capacity *= 2;
    size_t entries_bytes = (capacity + (size_t)CACHE_LINE / sizeof *h->_entries) * sizeof *h->_entries;
    size_t handles_bytes = capacity * sizeof *h->_handles;
    size_t positions_bytes = capacity * sizeof *h->_positions;
    char *block = aligned_alloc(CACHE_LINE, entries_bytes + handles_bytes + positions_bytes); /* multiples of 64 */
    if (!block)
        return -ERROR_NO_MEMORY;
    struct schedule_heap_entry *entries = (struct schedule_heap_entry *)(void *)block + ENTRIES_LEAD;
    uint32_t **handles = (uint32_t **)(void *)(block + entries_bytes);
    uint32_t *positions = (uint32_t *)(void *)(block + entries_bytes + handles_bytes);
    if (h->capacity) {
        memcpy(entries, h->_entries, h->size * sizeof *entries);
        memcpy(handles, h->_handles, h->_n_ids * sizeof *handles);
        memcpy(positions, h->_positions, h->_n_ids * sizeof *positions);
    }
    free(h->_block);
    h->_block = block;
    h->_entries = entries;
    h->_handles = handles;
    h->_positions = positions;
    h->capacity = capacity;
    return 0;
}

void schedule_heap_done(struct schedule_heap *h)
{
    free(h->_block);
    *h = (struct schedule_heap){0};
}

static inline bool entry_less(const struct schedule_heap_entry *a, const struct schedule_heap_entry *b)
{
    int64_t distance = (int64_t)(a->key - b->key);
    return distance < 0 || (distance == 0 && a->tie < b->tie);
}

static inline void entry_place(struct schedule_heap *h, uint32_t index, struct schedule_heap_entry entry)
{
    h->_entries[index] = entry;
    h->_positions[entry.id] = index;
}

/* Both sifts move a hole instead of swapping: one write per level. */
static void sift_up(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    while (hole > 0) {
        uint32_t parent = (hole - 1) / FANOUT;
        if (!entry_less(&entry, &h->_entries[parent]))
            break;
        entry_place(h, hole, h->_entries[parent]);
        hole = parent;
    }
    entry_place(h, hole, entry);
}

static void sift_down(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    const struct schedule_heap_entry *entries = h->_entries;
    for (;;) {
        uint64_t first = (uint64_t)hole * FANOUT + 1;
        if (first >= h->size)
            break;
        /* The lines of all grandchildren are asked for before it is known which of them is needed: in a large heap each
         * level below the first few is a cache miss, and this way their waits overlap. */
        uint64_t grandchild = first * FANOUT + 1;
        if (grandchild + FANOUT * FANOUT <= h->size) {
            for (uint32_t i = 0; i < FANOUT; i++)
                __builtin_prefetch(&entries[grandchild + (uint64_t)i * FANOUT]);
        }
        uint32_t least = (uint32_t)first;
        uint32_t end = h->size - least < FANOUT ? h->size : least + FANOUT;
        for (uint32_t child = least + 1; child < end; child++) {
            if (entry_less(&entries[child], &entries[least]))
                least = child;
        }
        if (!entry_less(&entries[least], &entry))
            break;
        if (hole == 0) /* the next to be picked: fetch the item while the sift goes on */
            __builtin_prefetch(h->_handles[entries[least].id]);
        entry_place(h, hole, entries[least]);
        hole = least;
    }
    entry_place(h, hole, entry);
}

static void sift(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    if (hole > 0 && entry_less(&entry, &h->_entries[(hole - 1) / FANOUT]))
        sift_up(h, hole, entry);
    else
        sift_down(h, hole, entry);
}

void schedule_heap_set(struct schedule_heap *h, uint32_t *handle, uint64_t key, uint32_t tie)
{
    if (*handle) {
        uint32_t id = *handle - 1;
        assert(id < h->_n_ids && h->_handles[id] == handle);
        sift(h, h->_positions[id], (struct schedule_heap_entry){key, tie, id});
        return;
    }
    assert(h->size < h->capacity);
    uint32_t id;
    if (h->_free_id) {
        id = h->_free_id - 1;
        h->_free_id = h->_positions[id];
    } else {
        id = h->_n_ids++;
    }
    h->_handles[id] = handle;
    *handle = id + 1;
    sift_up(h, h->size++, (struct schedule_heap_entry){key, tie, id});
}

void schedule_heap_remove(struct schedule_heap *h, uint32_t *handle)
{
    if (!*handle)
        return;
    uint32_t id = *handle - 1;
    assert(id < h->_n_ids && h->_handles[id] == handle);
    uint32_t hole = h->_positions[id];
    *handle = 0;
    h->_positions[id] = h->_free_id;
    h->_free_id = id + 1;
    struct schedule_heap_entry last = h->_entries[--h->size];
    if (hole < h->size)
        sift(h, hole, last);
}
