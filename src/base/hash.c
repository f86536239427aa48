#include "base/hash.h"

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

static void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

uint64_t hash_bytes(struct hash_seed seed, const void *data, size_t size)
{
    struct sip s = {
        seed.k0 ^ UINT64_C(0x736f6d6570736575),
        seed.k1 ^ UINT64_C(0x646f72616e646f6d),
        seed.k0 ^ UINT64_C(0x6c7967656e657261),
        seed.k1 ^ UINT64_C(0x7465646279746573),
    };
    const unsigned char *bytes = data;
    size_t whole = size & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8); /* little-endian hosts only, as the rest of the project (x86-64, arm64) */
        s.v3 ^= word;
        sip_round(&s);
        s.v0 ^= word;
    }
    uint64_t last = (uint64_t)size << 56;
    for (size_t i = whole; i < size; i++)
        last |= (uint64_t)bytes[i] << (8 * (i - whole));
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
