#include "base/slab.h"

#include "base/limits.h"
#include "base/memory.h"
#include "base/sanitized.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum { CACHE_LINE = 64 };

#define BLOCK_FIRST (16 * KIB)
#define BLOCK_MAX   (8 * MIB)

void slab_init(struct slab *s, size_t object_bytes)
{
    size_t rounded = (object_bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    *s = (struct slab){.object_bytes = rounded, .block_bytes = BLOCK_FIRST};
}

static bool block_add(struct slab *s)
{
    size_t bytes = s->block_bytes;
    while (bytes < CACHE_LINE + s->object_bytes)
        bytes *= 2;
    char *block = aligned_alloc(memory_large_alignment(bytes), bytes); /* powers of two */
    if (!block)
        return false;
    memory_large_advise(block, bytes);
    memcpy(block, &s->blocks, sizeof s->blocks);
    s->blocks = block;
    s->next = block + CACHE_LINE;
    s->end = block + bytes;
    s->block_bytes = bytes < BLOCK_MAX ? bytes * 2 : bytes;
    return true;
}

void *slab_take(struct slab *s)
{
    assert(s->object_bytes > 0);
    char *object = s->free;
    if (SANITIZED) {
        object = aligned_alloc(CACHE_LINE, s->object_bytes);
    } else if (object) {
        memcpy(&s->free, object, sizeof s->free);
    } else if ((size_t)(s->end - s->next) >= s->object_bytes || block_add(s)) {
        object = s->next;
        s->next += s->object_bytes;
    }
    return object ? memset(object, 0, s->object_bytes) : NULL;
}

void slab_give(struct slab *s, void *object)
{
    if (SANITIZED) {
        free(object);
    } else if (object) {
        memcpy(object, &s->free, sizeof s->free);
        s->free = object;
    }
}

void slab_done(struct slab *s)
{
    while (s->blocks) {
        void *block = s->blocks;
        memcpy(&s->blocks, block, sizeof s->blocks);
        free(block);
    }
    *s = (struct slab){.object_bytes = s->object_bytes, .block_bytes = BLOCK_FIRST};
}
