/* Little-endian reading and writing for generation.c and generation_event.c. */
#ifndef BULKHEAD_TENSOR_GENERATION_INTERNAL_H
#define BULKHEAD_TENSOR_GENERATION_INTERNAL_H

#include "tensor/generation.h"

struct wire_writer {
    uint8_t *data; /* of at least the bytes that will be written: sizes are known before */
    size_t size;
};

struct wire_reader {
    const uint8_t *data;
    size_t size; /* bytes left */
    bool failed; /* there were fewer than asked for; then all that is read is 0 */
};

static inline void write_bytes(struct wire_writer *w, const void *data, size_t size)
{
    if (size > 0)
        memcpy(w->data + w->size, data, size);
    w->size += size;
}

static inline void write_u64(struct wire_writer *w, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        w->data[w->size++] = (uint8_t)(value >> (8 * i));
}

static inline void write_float(struct wire_writer *w, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_u64(w, bits, 4);
}

static inline const void *read_bytes(struct wire_reader *r, size_t size)
{
    if (r->failed || r->size < size) {
        r->failed = true;
        return NULL;
    }
    const void *data = r->data;
    r->data += size;
    r->size -= size;
    return data;
}

static inline uint64_t read_u64(struct wire_reader *r, unsigned bytes)
{
    const uint8_t *data = read_bytes(r, bytes);
    uint64_t value = 0;
    for (unsigned i = 0; data && i < bytes; i++)
        value |= (uint64_t)data[i] << (8 * i);
    return value;
}

static inline uint32_t read_u32(struct wire_reader *r, unsigned bytes)
{
    return (uint32_t)read_u64(r, bytes);
}

static inline int32_t read_i32(struct wire_reader *r)
{
    uint32_t bits = read_u32(r, 4);
    int32_t value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float read_float(struct wire_reader *r)
{
    uint32_t bits = read_u32(r, 4);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline struct str read_str(struct wire_reader *r, size_t size)
{
    const char *data = read_bytes(r, size);
    return data ? (struct str){data, size} : (struct str){NULL, 0};
}

/* False for what is not a number too. */
static inline bool float_between(float value, float low, float high)
{
    return value >= low && value <= high;
}

#endif
