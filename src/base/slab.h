/* Objects of one size that come and go one by one and may become a million: taken from few large blocks, so that they
 * lie in huge pages (base/memory.h) and none pays for a header. Blocks are kept until slab_done. Under AddressSanitizer
 * each object is a block of its own, so that it sees what is used too long. Any role, one owner. */
#ifndef BULKHEAD_BASE_SLAB_H
#define BULKHEAD_BASE_SLAB_H

#include "base/cleanup.h"

#include <stddef.h>

struct slab { /* private */
    size_t object_bytes, block_bytes;
    char *next, *end; /* of the newest block: what was never given out */
    void *free;       /* given back, linked by their first word */
    void *blocks;     /* linked by their first word */
};

/* object_bytes > 0; rounded up to whole cache lines. */
void slab_init(struct slab *s, size_t object_bytes);
/* A zeroed object, aligned to a cache line; NULL: no memory. */
must_check void *slab_take(struct slab *s);
void slab_give(struct slab *s, void *object); /* accepts NULL */
/* Frees all blocks: no object may be used any more. (Under AddressSanitizer those not given back leak.) Accepts a
 * zeroed struct. */
void slab_done(struct slab *s);

#endif
