#include "tensor/tensor.h"

#include <stdio.h>

static const struct {
    const char *name;
    uint8_t name_size;
    uint8_t bytes;
} dtypes[TENSOR_DTYPE_COUNT] = {[TENSOR_INVALID] = {"?", 0, 0},
#define X(dtype, name, bytes) [TENSOR_##dtype] = {name, sizeof(name) - 1, bytes},
                                TENSOR_DTYPE_TABLE(X)
#undef X
};

const char *tensor_dtype_name(enum tensor_dtype dtype)
{
    return (unsigned)dtype < TENSOR_DTYPE_COUNT ? dtypes[dtype].name : dtypes[TENSOR_INVALID].name;
}

enum tensor_dtype tensor_dtype_from_name(struct str name)
{
    for (enum tensor_dtype dtype = TENSOR_INVALID + 1; dtype < TENSOR_DTYPE_COUNT; dtype++)
        if (dtypes[dtype].name_size == name.size && memcmp(dtypes[dtype].name, name.data, name.size) == 0)
            return dtype;
    return TENSOR_INVALID;
}

size_t tensor_dtype_bytes(enum tensor_dtype dtype)
{
    return (unsigned)dtype < TENSOR_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

int tensor_shape_elements(const struct tensor_shape *shape, uint64_t *ret_elements)
{
    int64_t elements = 1;
    bool empty = false;
    if (shape->rank > LIMIT_TENSOR_RANK)
        return -ERROR_INVALID_TENSOR;
    for (uint32_t i = 0; i < shape->rank; i++) {
        int64_t dim = shape->dims[i];
        if (dim < 0)
            return -ERROR_INVALID_TENSOR;
        empty |= dim == 0;
        if (__builtin_mul_overflow(elements, dim > 0 ? dim : 1, &elements))
            return -ERROR_INVALID_TENSOR;
    }
    *ret_elements = empty ? 0 : (uint64_t)elements;
    return 0;
}

const char *tensor_shape_text(const struct tensor_shape *shape, char *text, size_t capacity)
{
    char full[LIMIT_TENSOR_RANK * 21 + 3]; /* 20 characters of a dim and its comma; brackets, NUL */
    size_t size = 0;
    full[size++] = '[';
    for (uint32_t i = 0; i < shape->rank && i < LIMIT_TENSOR_RANK; i++) {
        int length = snprintf(full + size, sizeof full - size, i > 0 ? ",%lld" : "%lld", (long long)shape->dims[i]);
        if (length > 0)
            size += (size_t)length;
    }
    full[size++] = ']';
    full[size] = '\0';
    if (capacity > 0)
        (void)snprintf(text, capacity, "%s", full); /* cut to fit, as promised */
    return text;
}

bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b)
{
    return a->rank == b->rank && a->rank <= LIMIT_TENSOR_RANK &&
           memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0;
}

bool tensor_shape_matches(const struct tensor_shape *shape, const struct tensor_shape *pattern)
{
    if (shape->rank != pattern->rank || shape->rank > LIMIT_TENSOR_RANK)
        return false;
    for (uint32_t i = 0; i < shape->rank; i++)
        if (shape->dims[i] < 0 || (pattern->dims[i] != -1 && pattern->dims[i] != shape->dims[i]))
            return false;
    return true;
}

static uint32_t load_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

static int bytes_check(const uint8_t *data, size_t size, uint64_t elements, struct error *err)
{
    size_t at = 0;
    for (uint64_t i = 0; i < elements; i++) {
        if (size - at < sizeof(uint32_t))
            return error_set(err, ERROR_INVALID_TENSOR,
                             "BYTES element %llu of %llu has no room for its 4-byte length: the data ends at byte %zu",
                             (unsigned long long)i, (unsigned long long)elements, size);
        uint32_t length = load_u32(data + at);
        at += sizeof(uint32_t);
        if (size - at < length)
            return error_set(err, ERROR_INVALID_TENSOR,
                             "BYTES element %llu of %llu says it is %u bytes long, but only %zu bytes follow",
                             (unsigned long long)i, (unsigned long long)elements, length, size - at);
        at += length;
    }
    if (at != size)
        return error_set(err, ERROR_INVALID_TENSOR, "%zu bytes are left behind the last of %llu BYTES elements",
                         size - at, (unsigned long long)elements);
    return 0;
}

static int bool_check(const uint8_t *data, size_t size, struct error *err)
{
    unsigned all = 0;
    for (size_t i = 0; i < size; i++)
        all |= data[i];
    if (all <= 1)
        return 0;
    size_t i = 0;
    while (data[i] <= 1)
        i++;
    return error_set(err, ERROR_INVALID_TENSOR, "BOOL element %zu is byte %u; only 0 and 1 are BOOL", i, data[i]);
}

int tensor_data_check(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *data, size_t size,
                      struct error *err)
{
    char text[96];
    uint64_t elements;
    int status = tensor_shape_elements(shape, &elements);
    if (status < 0)
        return error_set(err, status, "the shape %s is not valid", tensor_shape_text(shape, text, sizeof text));
    if (dtype <= TENSOR_INVALID || dtype >= TENSOR_DTYPE_COUNT)
        return error_set(err, ERROR_INVALID_TENSOR, "the datatype is unknown");
    if (dtype == TENSOR_BYTES)
        return bytes_check(data, size, elements, err);

    uint64_t expected;
    if (__builtin_mul_overflow(elements, tensor_dtype_bytes(dtype), &expected) || expected != size)
        return error_set(err, ERROR_INVALID_TENSOR, "%s %s has %llu elements of %zu bytes, but the data is %zu bytes",
                         tensor_dtype_name(dtype), tensor_shape_text(shape, text, sizeof text),
                         (unsigned long long)elements, tensor_dtype_bytes(dtype), size);
    return dtype == TENSOR_BOOL ? bool_check(data, size, err) : 0;
}

size_t tensor_data_prefix(enum tensor_dtype dtype, const void *data, size_t size, uint64_t elements)
{
    if (dtype != TENSOR_BYTES) {
        size_t bytes;
        return __builtin_mul_overflow(elements, tensor_dtype_bytes(dtype), &bytes) || bytes > size ? size : bytes;
    }
    size_t at = 0;
    for (uint64_t i = 0; i < elements && size - at >= sizeof(uint32_t); i++) {
        uint32_t length = load_u32((const uint8_t *)data + at);
        at += sizeof(uint32_t);
        if (size - at < length)
            return size;
        at += length;
    }
    return at;
}

int tensor_spec_find(const struct tensor_spec *specs, uint32_t n, struct str name)
{
    for (uint32_t i = 0; i < n; i++)
        if (str_equal((struct str){specs[i].name, strnlen(specs[i].name, sizeof specs[i].name)}, name))
            return (int)i;
    return -1;
}
