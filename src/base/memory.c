#include "base/memory.h"

#include "base/limits.h"

#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64 };

#define HUGE_PAGE (2 * MIB) /* on x86-64, and on arm64 with pages of 4 KiB */

size_t memory_large_alignment(size_t bytes)
{
    return bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : CACHE_LINE;
}

size_t memory_large_size(size_t bytes)
{
    size_t alignment = memory_large_alignment(bytes);
    return (bytes + alignment - 1) / alignment * alignment;
}

void memory_large_advise(void *p, size_t bytes)
{
    if (p && memory_large_alignment(bytes) == HUGE_PAGE)
        (void)madvise(p, bytes, MADV_HUGEPAGE); /* a kernel without it refuses, and nothing else changes */
}

void *memory_large_new(size_t bytes)
{
    bytes = memory_large_size(bytes > 0 ? bytes : 1);
    void *p = aligned_alloc(memory_large_alignment(bytes), bytes);
    memory_large_advise(p, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}
