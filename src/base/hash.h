/* Keyed hash for tables whose keys a tenant may choose: SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input
 * PRF", 2012; the 1-3 variant as used by Rust's and Python's hash tables). Pure. */
#ifndef BULKHEAD_BASE_HASH_H
#define BULKHEAD_BASE_HASH_H

#include "base/str.h"

struct hash_seed {
    uint64_t k0, k1;
};

uint64_t hash_bytes(struct hash_seed seed, const void *data, size_t size);

static inline uint64_t hash_str(struct hash_seed seed, struct str s)
{
    return hash_bytes(seed, s.data, s.size);
}

#endif
