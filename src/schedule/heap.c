#include "schedule/heap.h"

#include "base/error.h"

#include <assert.h>
#include <string.h>

enum { FANOUT = 4, CAPACITY_FIRST = 16 };

int schedule_heap_reserve(struct schedule_heap *h, uint32_t count)
{
    if (count <= h->capacity)
        return 0;
    if (count > UINT32_MAX / 2)
        return -ERROR_NO_MEMORY;
    uint32_t capacity = h->capacity ? h->capacity : CAPACITY_FIRST;
    while (capacity < count)
        capacity *= 2;
    struct schedule_heap_entry *entries = realloc(h->entries, capacity * sizeof *entries);
    if (!entries)
        return -ERROR_NO_MEMORY;
    h->entries = entries;
    h->capacity = capacity;
    return 0;
}

void schedule_heap_done(struct schedule_heap *h)
{
    free(h->entries);
    *h = (struct schedule_heap){0};
}

static inline bool entry_less(const struct schedule_heap_entry *a, const struct schedule_heap_entry *b)
{
    int64_t distance = (int64_t)(a->key - b->key);
    return distance < 0 || (distance == 0 && a->tie < b->tie);
}

static inline void entry_place(struct schedule_heap *h, uint32_t index, struct schedule_heap_entry entry)
{
    h->entries[index] = entry;
    *entry.position = index + 1;
}

/* Both sifts move a hole instead of swapping: one write per level. */
static void sift_up(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    while (hole > 0) {
        uint32_t parent = (hole - 1) / FANOUT;
        if (!entry_less(&entry, &h->entries[parent]))
            break;
        entry_place(h, hole, h->entries[parent]);
        hole = parent;
    }
    entry_place(h, hole, entry);
}

static void sift_down(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    for (;;) {
        uint64_t first = (uint64_t)hole * FANOUT + 1;
        if (first >= h->size)
            break;
        uint32_t least = (uint32_t)first;
        uint32_t end = h->size - least < FANOUT ? h->size : least + FANOUT;
        for (uint32_t child = least + 1; child < end; child++) {
            if (entry_less(&h->entries[child], &h->entries[least]))
                least = child;
        }
        if (!entry_less(&h->entries[least], &entry))
            break;
        entry_place(h, hole, h->entries[least]);
        hole = least;
    }
    entry_place(h, hole, entry);
}

static void sift(struct schedule_heap *h, uint32_t hole, struct schedule_heap_entry entry)
{
    if (hole > 0 && entry_less(&entry, &h->entries[(hole - 1) / FANOUT]))
        sift_up(h, hole, entry);
    else
        sift_down(h, hole, entry);
}

void schedule_heap_set(struct schedule_heap *h, uint32_t *position, uint64_t key, uint64_t tie)
{
    struct schedule_heap_entry entry = {key, tie, position};
    if (*position) {
        assert(h->entries[*position - 1].position == position);
        sift(h, *position - 1, entry);
        return;
    }
    assert(h->size < h->capacity);
    sift_up(h, h->size++, entry);
}

void schedule_heap_remove(struct schedule_heap *h, uint32_t *position)
{
    if (!*position)
        return;
    uint32_t hole = *position - 1;
    assert(hole < h->size && h->entries[hole].position == position);
    *position = 0;
    struct schedule_heap_entry last = h->entries[--h->size];
    if (hole < h->size)
        sift(h, hole, last);
}
