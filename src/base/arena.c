#include "base/arena.h"

#include <stdalign.h>

#define ARENA_ALIGN       16
#define ARENA_BLOCK_BYTES ((size_t)4096)

struct arena_block {
    struct arena_block *next;
    size_t capacity; /* bytes of data */
    alignas(ARENA_ALIGN) char data[];
};

void arena_init(struct arena *a, size_t bytes_max)
{
    *a = (struct arena){.bytes_max = bytes_max};
}

static void counted_give(struct arena *a)
{
    if (a->_counted > 0)
        budget_give(a->_budget, a->_share, a->_counted);
    a->_counted = 0;
    a->refused = 0;
}

void arena_budget_set(struct arena *a, struct budget *budget, struct budget_share *share)
{
    assert(a->_counted == 0);
    a->_budget = budget;
    a->_share = share;
}

void arena_done(struct arena *a)
{
    counted_give(a);
    for (struct arena_block *block = a->_first, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *a = (struct arena){.bytes_max = a->bytes_max};
}

void arena_reset(struct arena *a)
{
    struct arena_block *kept = NULL;
    counted_give(a);
    for (struct arena_block *block = a->_first, *next; block; block = next) {
        next = block->next;
        if (!kept && block->capacity == ARENA_BLOCK_BYTES - sizeof *block) {
            kept = block;
            kept->next = NULL;
        } else {
            free(block);
        }
    }
    a->_first = kept;
    a->_used = 0;
    a->bytes = kept ? ARENA_BLOCK_BYTES : 0;
}

static bool block_add(struct arena *a, size_t size)
{
    size_t total;
    if (__builtin_add_overflow(size, sizeof(struct arena_block), &total))
        return false;
    if (total < ARENA_BLOCK_BYTES)
        total = ARENA_BLOCK_BYTES;
    size_t after;
    if (__builtin_add_overflow(a->bytes, total, &after) || after > a->bytes_max)
        return false;
    bool counts = a->_budget && (a->_first || total > ARENA_BLOCK_BYTES);
    int refused = counts ? budget_take(a->_budget, a->_share, a->_counted, total) : 0;
    if (refused < 0) {
        a->refused = refused;
        return false;
    }
    a->_counted += counts ? total : 0;
    struct arena_block *block = malloc(total); /* without memory it counts until the request ends */
    if (!block)
        return false;
    block->capacity = total - sizeof *block;
    block->next = a->_first;
    a->_first = block;
    a->_used = 0;
    a->bytes = after;
    return true;
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t rounded;
    if (__builtin_add_overflow(size, ARENA_ALIGN - 1, &rounded))
        return NULL;
    rounded &= ~(size_t)(ARENA_ALIGN - 1);
    if (!a->_first || a->_first->capacity - a->_used < rounded)
        if (!block_add(a, rounded))
            return NULL;
    void *result = a->_first->data + a->_used;
    a->_used += rounded;
    return result;
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    return arena_alloc(a, total);
}

char *arena_copy(struct arena *a, struct str s)
{
    char *copy = s.size < SIZE_MAX ? arena_alloc(a, s.size + 1) : NULL;
    if (!copy)
        return NULL;
    if (s.size > 0)
        memcpy(copy, s.data, s.size);
    copy[s.size] = '\0';
    return copy;
}
