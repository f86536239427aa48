#include "base/memory.h"

#include "base/limits.h"

#include <linux/mman.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CACHE_LINE = 64, ARRAY_FIRST = 64 };

#define HUGE_PAGE  (2 * MIB) /* on x86-64, and on arm64 with pages of 4 KiB */
#define PLACED_MIN (4 * HUGE_PAGE)

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

void memory_file_gather(int fd, uint64_t from, size_t bytes)
{
    size_t before = (HUGE_PAGE - from % HUGE_PAGE) % HUGE_PAGE;
    size_t whole = bytes > before ? (bytes - before) / HUGE_PAGE * HUGE_PAGE : 0;
    if (whole == 0 || whole > SIZE_MAX - HUGE_PAGE || from > (uint64_t)INT64_MAX - bytes)
        return;
    /* Its place in the file and in our addresses must be those of huge pages both. */
    char *room = mmap(NULL, whole + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return;
    char *p = room + (HUGE_PAGE - (uintptr_t)room % HUGE_PAGE) % HUGE_PAGE;
    if (mmap(p, whole, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)(from + before)) != MAP_FAILED)
        (void)madvise(p, whole, MADV_COLLAPSE);
    (void)munmap(room, whole + HUGE_PAGE);
}

static void *room_find(size_t bytes)
{
    void *found = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found != MAP_FAILED)
        (void)munmap(found, bytes);
    return found == MAP_FAILED ? NULL : found;
}

/* The kernel puts a mapping at the upper end of the highest gap that it fits into. So a page that is in its way, more
 * than a quarter of its size below that end, decides where it comes to lie; above that page is room for smaller ones.
 */
void *memory_file_place(size_t bytes)
{
    if (bytes < PLACED_MIN || bytes > SIZE_MAX / 4)
        return NULL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    size_t above = (whole / 4 + page) / page * page;
    char *found = room_find(whole);
    if ((uintptr_t)found < above + HUGE_PAGE)
        return NULL;
    char *begin = found - above - (uintptr_t)(found - above) % HUGE_PAGE;
    void *place =
        mmap(begin + whole, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (place == MAP_FAILED)
        return NULL;
    if (room_find(whole) == begin)
        return place;
    memory_file_placed(place);
    return NULL;
}

void memory_file_placed(void *place)
{
    if (place)
        (void)munmap(place, (size_t)sysconf(_SC_PAGESIZE));
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
