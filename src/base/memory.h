/* Arrays that grow, and memory for large ones that are read at random: asked for in huge pages, so that a look-up costs
 * a miss of the cache but not one of the address translation as well. Advice only: where the host gives none,
 * everything works as before. Any role, any thread; blocks for the time of one system call where the block is large,
 * and calls nobody back.
 *
 *     size_t bytes = memory_large_size(wanted);
 *     p = aligned_alloc(memory_large_alignment(bytes), bytes);
 *     memory_large_advise(p, bytes);           free(p) as usual */
#ifndef BULKHEAD_BASE_MEMORY_H
#define BULKHEAD_BASE_MEMORY_H

#include "base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

/* `bytes` rounded up to a multiple of the alignment. A block is large from 4 MiB: it wastes less than half of itself.
 */
size_t memory_large_size(size_t bytes);
/* 64 (a cache line), or that of a huge page for a large block. */
size_t memory_large_alignment(size_t bytes);
/* p may be NULL. */
void memory_large_advise(void *p, size_t bytes);
/* All of that, zeroed; NULL: no memory. free() as usual. */
must_check void *memory_large_new(size_t bytes);
/* The same for a part of a file in memory (memfd) that is written already and will be read again and again: the whole
 * huge pages within it are put together, for everybody who maps it, whatever the host's settings for such files are.
 * Blocks while it is copied; the copies are charged to whom the caller is charged to. What cannot be put together stays
 * as it was. Kernels before 6.1 cannot. */
void memory_file_gather(int fd, uint64_t from, size_t bytes);
/* For a library that maps such a file by itself: its huge pages are mapped as such only where the mapping begins at a
 * multiple of their size, which the kernel cares for with files on disks, but not with those in memory. After this the
 * next mapping of `bytes` begins so; smaller ones, of up to a quarter of it in all, may come before, and those of other
 * threads may spoil it. To be given to memory_file_placed() after that. NULL: nothing was done, because the file is
 * small or the kernel puts mappings elsewhere. */
void *memory_file_place(size_t bytes);
void memory_file_placed(void *place); /* takes NULL */

/* An array with room for one element more than the n that it holds, twice as large where it was full, and perhaps
 * elsewhere; from malloc, NULL at first with *capacity 0. NULL: no memory, and the old one stays as it was. */
must_check void *memory_array_room(void *array, size_t n, size_t *capacity, size_t element_bytes);

#endif
