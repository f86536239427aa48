#include "base/memory.h"

#include "base/limits.h"

#include <linux/mman.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64, ARRAY_FIRST = 64 };

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

void memory_file_gather(int fd, size_t bytes)
{
    size_t whole = bytes / HUGE_PAGE * HUGE_PAGE;
    if (whole == 0 || whole > SIZE_MAX - HUGE_PAGE)
        return;
    /* Its place in the file and in our addresses must be those of huge pages both. */
    char *room = mmap(NULL, whole + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return;
    char *p = room + (HUGE_PAGE - (uintptr_t)room % HUGE_PAGE) % HUGE_PAGE;
    if (mmap(p, whole, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED)
        (void)madvise(p, whole, MADV_COLLAPSE);
    (void)munmap(room, whole + HUGE_PAGE);
}

void *memory_array_room(void *array, size_t n, size_t *capacity, size_t element_bytes)
{
    if (n < *capacity)
        return array;
    size_t larger = *capacity > 0 ? 2 * *capacity : ARRAY_FIRST;
    void *moved = reallocarray(array, larger, element_bytes); /* whose product cannot overflow unnoticed */
    if (moved)
        *capacity = larger;
    return moved;
}
