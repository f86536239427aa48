#include "engine/gguf_scan.h"

enum {
    VALUE_UINT32 = 4,
    VALUE_COUNT = 13,
    NAME_BYTES_MAX = 64, /* a tensor's name in ggml, with its NUL */
    KEY_BYTES_MAX = 256,
    DIMS_MAX = 4,
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 65536,
};

/* Of a value by its type; 0: string and array. */
static const uint8_t value_bytes[VALUE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct scan {
    const uint8_t *data;
    size_t size, at;
    uint64_t alignment;
    const struct gguf_visitor *visitor;
    struct error *err;
};

static int refuse(struct scan *s, const char *what)
{
    (void)error_set(s->err, ERROR_REFUSED, "The file is no GGUF that can be served: %s.", what);
    return -ERROR_REFUSED; /* written out, so that compilers see that a refusal is negative */
}

static int number(struct scan *s, unsigned bytes, uint64_t *ret_value)
{
    if (s->size - s->at < bytes)
        return refuse(s, "it is cut off in its header");
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)s->data[s->at + i] << (8 * i);
    s->at += bytes;
    *ret_value = value;
    return 0;
}

static int string(struct scan *s, uint64_t max, struct str *ret_text)
{
    uint64_t size;
    int r = number(s, 8, &size);
    if (r < 0)
        return r;
    if (size > max)
        return refuse(s, "a text in its header is too long");
    if (size > s->size - s->at)
        return refuse(s, "it is cut off in its header");
    *ret_text = (struct str){(const char *)s->data + s->at, (size_t)size};
    s->at += (size_t)size;
    return 0;
}

static int array(struct scan *s)
{
    uint64_t type, n;
    int r = number(s, 4, &type);
    if (r == 0)
        r = number(s, 8, &n);
    if (r < 0)
        return r;
    if (type >= VALUE_COUNT || type == GGUF_VALUE_ARRAY)
        return refuse(s, "a list in its header is of an unknown type");
    if (n > GGUF_ELEMENTS_MAX)
        return refuse(s, "a list in its header is too long");
    if (type != GGUF_VALUE_STRING) {
        if (n * value_bytes[type] > s->size - s->at)
            return refuse(s, "it is cut off in its header");
        s->at += (size_t)n * value_bytes[type];
        return 0;
    }
    struct str text;
    for (uint64_t i = 0; i < n && r == 0; i++)
        r = string(s, GGUF_TOKEN_MAX, &text);
    return r;
}

static int key(struct scan *s)
{
    struct str name, text = STR("");
    uint64_t type = 0, value = 0;
    int r = string(s, KEY_BYTES_MAX, &name);
    if (r == 0)
        r = number(s, 4, &type);
    if (r < 0)
        return r;
    if (type >= VALUE_COUNT)
        return refuse(s, "a value in its header is of an unknown type");
    if (type == GGUF_VALUE_ARRAY)
        r = array(s);
    else if (type == GGUF_VALUE_STRING)
        r = string(s, GGUF_STRING_MAX, &text);
    else
        r = number(s, value_bytes[type], &value);
    if (r == 0 && str_equal(name, STR("general.alignment"))) {
        if (type != VALUE_UINT32 || value < 8 || value > ALIGNMENT_MAX || (value & (value - 1)) != 0)
            return refuse(s, "its alignment is out of range");
        s->alignment = value;
    }
    if (r == 0 && str_equal(name, STR("split.count")) && value > 1)
        return refuse(s, "it is one part of several; join them with llama.cpp's gguf-split");
    if (r == 0 && s->visitor->key)
        r = s->visitor->key(s->visitor->ctx, name, (uint32_t)type, text, value, s->err);
    return r;
}

static int tensor(struct scan *s, uint64_t *ret_offset)
{
    struct gguf_tensor t = {.dims = {1, 1, 1, 1}};
    uint64_t rank = 0, dim = 0, type = 0, elements = 1;
    int r = string(s, NAME_BYTES_MAX - 1, &t.name);
    if (r == 0)
        r = number(s, 4, &rank);
    if (r < 0)
        return r;
    if (rank < 1 || rank > DIMS_MAX)
        return refuse(s, "a tensor has no or more than 4 dimensions");
    for (uint64_t i = 0; i < rank; i++) {
        r = number(s, 8, &dim);
        if (r < 0)
            return r;
        if (dim < 1 || dim > INT64_MAX / elements)
            return refuse(s, "a tensor's dimensions are out of range");
        elements *= dim;
        t.dims[i] = dim;
    }
    r = number(s, 4, &type);
    if (r == 0)
        r = number(s, 8, ret_offset);
    if (r == 0 && *ret_offset % s->alignment != 0)
        return refuse(s, "a tensor does not lie where its alignment says");
    t.rank = (uint32_t)rank;
    t.type = (uint32_t)type;
    t.offset = *ret_offset;
    if (r == 0 && s->visitor->tensor)
        r = s->visitor->tensor(s->visitor->ctx, &t, s->err);
    return r;
}

int gguf_scan(struct str file, struct error *err)
{
    const struct gguf_visitor nobody = {0};
    uint64_t data;
    return gguf_scan_each(file, &nobody, &data, err);
}

int gguf_scan_each(struct str file, const struct gguf_visitor *visitor, uint64_t *ret_data, struct error *err)
{
    struct scan s = {(const uint8_t *)file.data, file.size, 0, ALIGNMENT_DEFAULT, visitor, err};
    uint64_t version, n_tensors, n_keys, offset, last = 0;
    if (file.size < 4 || memcmp(file.data, "GGUF", 4) != 0)
        return refuse(&s, "it does not begin with GGUF");
    s.at = 4;
    int r = number(&s, 4, &version);
    if (r == 0 && (version < 2 || version > 3))
        return refuse(&s, "its version is not 2 or 3");
    if (r == 0)
        r = number(&s, 8, &n_tensors);
    if (r == 0)
        r = number(&s, 8, &n_keys);
    if (r < 0)
        return r;
    if (n_tensors < 1 || n_tensors > GGUF_TENSORS_MAX || n_keys > GGUF_KEYS_MAX)
        return refuse(&s, "it has no tensors, or too many tensors or values");
    for (uint64_t i = 0; i < n_keys && r == 0; i++)
        r = key(&s);
    for (uint64_t i = 0; i < n_tensors && r == 0; i++) {
        r = tensor(&s, &offset);
        last = r == 0 && offset > last ? offset : last;
    }
    if (r < 0)
        return r;
    uint64_t start = (s.at + s.alignment - 1) / s.alignment * s.alignment;
    if (start > s.size || last >= s.size - start) /* how long each is, llama.cpp checks against the file */
        return refuse(&s, "a tensor lies beyond its end");
    *ret_data = start;
    return 0;
}
