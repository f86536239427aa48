/* The compact form of a signature: version, counts, flags, platform, then each spec as
 *   dtype u8 · rank u8 · rank × dim i64 · name size u8 · name
 * A language model has no specs, and six numbers as u32 and adapter_bytes as i64 instead.
 * little-endian, nothing aligned. 64 + 64 specs of rank 8 with names of 255 bytes take 41.3 KiB. */

#include "tensor/tensor.h"

enum { FLAG_BATCHABLE = 1, FLAG_TOKENS = 2, TOKEN_NUMBERS = 6 };
enum { SIGNATURE_VERSION = 1, HEAD_BYTES = 5, PLATFORM_BYTES = sizeof((struct tensor_signature *)0)->platform };

_Static_assert(HEAD_BYTES + PLATFORM_BYTES +
                       2 * LIMIT_TENSORS * (3 + 8 * LIMIT_TENSOR_RANK + LIMIT_TENSOR_NAME_BYTES) <=
                   TENSOR_SIGNATURE_BYTES_MAX,
               "the largest signature must fit its bound");
_Static_assert(LIMIT_TENSOR_NAME_BYTES <= UINT8_MAX && LIMIT_TENSORS <= UINT8_MAX && LIMIT_TENSOR_RANK <= UINT8_MAX,
               "counts travel as one byte");

struct writer {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
};

static void write_bytes(struct writer *w, const void *data, size_t size)
{
    if (w->failed || w->capacity - w->size < size) {
        w->failed = true;
        return;
    }
    memcpy(w->data + w->size, data, size);
    w->size += size;
}

static void write_u8(struct writer *w, uint32_t value)
{
    uint8_t byte = (uint8_t)value;
    write_bytes(w, &byte, 1);
}

static void write_i64(struct writer *w, int64_t value)
{
    for (unsigned shift = 0; shift < 64; shift += 8)
        write_u8(w, (uint32_t)((uint64_t)value >> shift & 0xFF));
}

static void write_u32(struct writer *w, uint32_t value)
{
    for (unsigned shift = 0; shift < 32; shift += 8)
        write_u8(w, value >> shift & 0xFF);
}

static void write_token_model(struct writer *w, const struct tensor_token_model *t)
{
    const uint32_t numbers[TOKEN_NUMBERS] = {t->flags, t->context, t->cells, t->sequences, t->vocabulary, t->embedding};
    for (unsigned i = 0; i < TOKEN_NUMBERS; i++)
        write_u32(w, numbers[i]);
    write_i64(w, (int64_t)t->adapter_bytes);
}

static void write_spec(struct writer *w, const struct tensor_spec *spec)
{
    size_t name_size = strnlen(spec->name, LIMIT_TENSOR_NAME_BYTES);
    write_u8(w, spec->dtype);
    write_u8(w, spec->shape.rank);
    for (uint32_t i = 0; i < spec->shape.rank && i < LIMIT_TENSOR_RANK; i++)
        write_i64(w, spec->shape.dims[i]);
    write_u8(w, (uint32_t)name_size);
    write_bytes(w, spec->name, name_size);
}

int tensor_signature_encode(const struct tensor_signature *s, void *data, size_t capacity, size_t *ret_size)
{
    if (s->n_inputs > LIMIT_TENSORS || s->n_outputs > LIMIT_TENSORS)
        return -ERROR_LIMIT;
    struct writer w = {.data = data, .capacity = capacity};
    size_t platform_size = strnlen(s->platform, PLATFORM_BYTES - 1);
    write_u8(&w, SIGNATURE_VERSION);
    write_u8(&w, s->n_inputs);
    write_u8(&w, s->n_outputs);
    bool tokens = s->token.sequences > 0;
    write_u8(&w, (s->batchable ? FLAG_BATCHABLE : 0u) | (tokens ? FLAG_TOKENS : 0u));
    write_u8(&w, (uint32_t)platform_size);
    write_bytes(&w, s->platform, platform_size);
    if (tokens)
        write_token_model(&w, &s->token);
    for (uint32_t i = 0; i < s->n_inputs; i++)
        write_spec(&w, &s->inputs[i]);
    for (uint32_t i = 0; i < s->n_outputs; i++)
        write_spec(&w, &s->outputs[i]);
    if (w.failed)
        return -ERROR_LIMIT;
    *ret_size = w.size;
    return 0;
}

struct reader {
    const uint8_t *data;
    size_t size; /* bytes left */
    struct error *err;
};

static int refuse(struct reader *r, const char *what)
{
    (void)error_set(r->err, ERROR_PEER, "A worker described its model wrongly: %s.", what);
    return -ERROR_PEER; /* written out, so that compilers see that a refusal is negative */
}

/* NULL (and the error set) when there are fewer. */
static const uint8_t *read_bytes(struct reader *r, size_t size)
{
    if (r->size < size) {
        (void)refuse(r, "the description is cut off"); /* the caller returns the code */
        return NULL;
    }
    const uint8_t *data = r->data;
    r->data += size;
    r->size -= size;
    return data;
}

/* UTF-8 without NUL. */
static int read_text(struct reader *r, size_t size, struct str *ret_text)
{
    const uint8_t *data = read_bytes(r, size);
    if (!data)
        return -ERROR_PEER;
    struct str text = {(const char *)data, size};
    if (memchr(data, '\0', size) || !str_is_utf8(text))
        return refuse(r, "a name is not UTF-8");
    *ret_text = text;
    return 0;
}

static int read_shape(struct reader *r, uint32_t rank, bool batchable, struct tensor_shape *ret_shape)
{
    if (rank > LIMIT_TENSOR_RANK)
        return refuse(r, "a shape has too many dimensions");
    const uint8_t *dims = read_bytes(r, rank * sizeof(int64_t));
    if (!dims)
        return -ERROR_PEER;
    struct tensor_shape shape = {.rank = rank};
    struct tensor_shape known = {.rank = rank};
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t dim = 0;
        for (unsigned k = 0; k < 8; k++)
            dim |= (uint64_t)dims[i * 8 + k] << (8 * k);
        shape.dims[i] = (int64_t)dim;
        known.dims[i] = shape.dims[i] == -1 ? 1 : shape.dims[i];
    }
    uint64_t elements;
    if (tensor_shape_elements(&known, &elements) < 0)
        return refuse(r, "a dimension is out of range");
    if (batchable && (rank == 0 || shape.dims[0] != -1))
        return refuse(r, "a tensor has no batch axis though the model has one");
    *ret_shape = shape;
    return 0;
}

/* Reads one spec; into `ret_spec` unless that is NULL. ret_name borrows from the data. */
static int read_spec(struct reader *r, bool batchable, struct tensor_spec *ret_spec, struct str *ret_name)
{
    struct tensor_shape shape;
    const uint8_t *head = read_bytes(r, 2);
    if (!head)
        return -ERROR_PEER;
    uint32_t dtype = head[0];
    if (dtype <= TENSOR_INVALID || dtype >= TENSOR_DTYPE_COUNT)
        return refuse(r, "a datatype is unknown");
    int status = read_shape(r, head[1], batchable, &shape);
    if (status < 0)
        return status;
    const uint8_t *name_size = read_bytes(r, 1);
    if (!name_size)
        return -ERROR_PEER;
    status = read_text(r, *name_size, ret_name);
    if (status < 0)
        return status;
    if (ret_name->size == 0)
        return refuse(r, "a tensor has no name");
    if (!ret_spec)
        return 0;
    ret_spec->dtype = (enum tensor_dtype)dtype;
    ret_spec->shape.rank = shape.rank; /* by member, so that padding stays zero: signatures are copied and sent */
    memcpy(ret_spec->shape.dims, shape.dims, sizeof shape.dims);
    return str_copy(*ret_name, ret_spec->name, sizeof ret_spec->name);
}

static int read_specs(struct reader *r, uint32_t n, bool batchable, struct tensor_spec *ret_specs)
{
    struct str names[LIMIT_TENSORS];
    for (uint32_t i = 0; i < n; i++) {
        int status = read_spec(r, batchable, ret_specs ? &ret_specs[i] : NULL, &names[i]);
        if (status < 0)
            return status;
        for (uint32_t k = 0; k < i; k++)
            if (str_equal(names[k], names[i]))
                return refuse(r, "a name is there twice");
    }
    return 0;
}

static int read_token_model(struct reader *r, struct tensor_token_model *ret)
{
    const uint8_t *data = read_bytes(r, TOKEN_NUMBERS * sizeof(uint32_t) + sizeof(uint64_t));
    uint32_t numbers[TOKEN_NUMBERS] = {0};
    uint64_t adapter_bytes = 0;
    if (!data)
        return -ERROR_PEER;
    for (unsigned i = 0; i < TOKEN_NUMBERS * sizeof(uint32_t); i++)
        numbers[i / 4] |= (uint32_t)data[i] << (8 * (i % 4));
    for (unsigned i = 0; i < sizeof adapter_bytes; i++)
        adapter_bytes |= (uint64_t)data[TOKEN_NUMBERS * sizeof(uint32_t) + i] << (8 * i);
    struct tensor_token_model t = {numbers[0], numbers[1], numbers[2],   numbers[3],
                                   numbers[4], numbers[5], adapter_bytes};
    if ((t.flags & ~(uint32_t)TENSOR_TOKEN_FLAGS_ALL) || !(t.flags & (TENSOR_TOKEN_EMBED | TENSOR_TOKEN_ANSWER)) ||
        t.context < 1 || t.cells < t.context || t.sequences < 1 || t.sequences > LIMIT_SEQUENCES ||
        t.adapter_bytes > INT64_MAX)
        return refuse(r, "a number of a language model is out of range");
    if (ret)
        *ret = t;
    return 0;
}

/* Walks a whole signature; into `ret` unless that is NULL. */
static int read_signature(struct reader r, struct tensor_signature *ret)
{
    struct str platform;
    const uint8_t *head = read_bytes(&r, HEAD_BYTES);
    if (!head)
        return -ERROR_PEER;
    uint32_t n_inputs = head[1], n_outputs = head[2];
    bool batchable = head[3] == FLAG_BATCHABLE, tokens = head[3] == FLAG_TOKENS;
    if (head[0] != SIGNATURE_VERSION || n_inputs > LIMIT_TENSORS || n_outputs > LIMIT_TENSORS ||
        head[3] > FLAG_TOKENS || (tokens && (n_inputs > 0 || n_outputs > 0)) || head[4] >= PLATFORM_BYTES)
        return refuse(&r, "its head is out of range");
    int status = read_text(&r, head[4], &platform);
    if (status < 0)
        return status;
    status = tokens ? read_token_model(&r, ret ? &ret->token : NULL) : 0;
    if (status < 0)
        return status;
    status = read_specs(&r, n_inputs, batchable, ret ? ret->inputs : NULL);
    if (status < 0)
        return status;
    status = read_specs(&r, n_outputs, batchable, ret ? ret->outputs : NULL);
    if (status < 0)
        return status;
    if (r.size > 0)
        return refuse(&r, "bytes follow its end");
    if (!ret)
        return 0;
    ret->n_inputs = n_inputs;
    ret->n_outputs = n_outputs;
    ret->batchable = batchable;
    return str_copy(platform, ret->platform, sizeof ret->platform);
}

int tensor_signature_decode(const void *data, size_t size, struct tensor_signature *ret_signature, struct error *err)
{
    /* Once without storing, so that the output is untouched on failure and no 42 KiB of scratch are needed. */
    struct reader r = {.data = data, .size = size, .err = err};
    int status = read_signature(r, NULL);
    if (status < 0)
        return status;
    memset(ret_signature, 0, sizeof *ret_signature);
    return read_signature(r, ret_signature);
}
