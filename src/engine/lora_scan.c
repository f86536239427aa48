#include "engine/lora_scan.h"

#include "engine/gguf_scan.h"

#include <math.h>
#include <stdlib.h>

/* What llama.cpp's converter writes, as ggml numbers it; it can multiply with all of them. */
enum { TYPE_F32 = 0, TYPE_F16 = 1, TYPE_Q8_0 = 8, TYPE_BF16 = 30 };
enum { Q8_0_ELEMENTS = 32, Q8_0_BYTES = 34 };

struct list {
    struct gguf_tensor *tensors; /* owned [n_allocated] */
    uint32_t n, n_allocated, max;
    struct str architecture;
};

struct adapter {
    struct list list;
    struct str type, kind;
};

static int refuse(struct error *err, const char *what)
{
    (void)error_set(err, ERROR_REFUSED, "The file is no LoRA adapter that can be served: %s.", what);
    return -ERROR_REFUSED; /* written out, so that compilers see that a refusal is negative */
}

static int refuse_tensor(struct error *err, struct str name, const char *what)
{
    char clean[65];
    size_t n = 0;
    for (; n < name.size && n + 1 < sizeof clean; n++)
        clean[n] = name.data[n] > ' ' && name.data[n] < 127 ? name.data[n] : '?';
    clean[n] = '\0';
    (void)error_set(err, ERROR_REFUSED, "The adapter does not fit its base model: tensor \"%s\" %s.", clean, what);
    return -ERROR_REFUSED;
}

static int on_tensor(void *ctx, const struct gguf_tensor *tensor, struct error *err)
{
    struct list *l = ctx;
    if (l->n == l->max)
        return refuse(err, "it has too many tensors");
    if (l->n == l->n_allocated) {
        uint32_t n = l->n_allocated ? 2 * l->n_allocated : 64;
        struct gguf_tensor *tensors = realloc(l->tensors, n * sizeof *tensors);
        if (!tensors)
            return error_set_default(err, ERROR_NO_MEMORY);
        l->tensors = tensors;
        l->n_allocated = n;
    }
    l->tensors[l->n++] = *tensor;
    return 0;
}

static int on_base_key(void *ctx, struct str name, uint32_t type, struct str text, uint64_t bits, struct error *err)
{
    (void)bits, (void)err;
    struct list *l = ctx;
    if (str_equal(name, STR("general.architecture")) && type == GGUF_VALUE_STRING)
        l->architecture = text;
    return 0;
}

/* The types of what llama.cpp reads are checked: it aborts on another one. */
static int on_adapter_key(void *ctx, struct str name, uint32_t type, struct str text, uint64_t bits, struct error *err)
{
    struct adapter *a = ctx; /* `list` is its first member */
    struct str *wanted = str_equal(name, STR("general.type"))           ? &a->type
                         : str_equal(name, STR("adapter.type"))         ? &a->kind
                         : str_equal(name, STR("general.architecture")) ? &a->list.architecture
                                                                        : NULL;
    if (wanted && type != GGUF_VALUE_STRING)
        return refuse(err, "what says its kind is not text");
    if (wanted)
        *wanted = text;
    if (str_equal(name, STR("adapter.alora.invocation_tokens")))
        return refuse(err, "it is an activated LoRA, which works from certain tokens on only");
    if (!str_equal(name, STR("adapter.lora.alpha")))
        return 0;
    uint32_t low = (uint32_t)bits;
    float alpha;
    memcpy(&alpha, &low, sizeof alpha);
    return type == GGUF_VALUE_FLOAT32 && isfinite(alpha) ? 0 : refuse(err, "its adapter.lora.alpha is no number");
}

static int name_compare(const void *a, const void *b)
{
    const struct str *x = &((const struct gguf_tensor *)a)->name, *y = &((const struct gguf_tensor *)b)->name;
    int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

static const struct gguf_tensor *find(const struct list *l, struct str name)
{
    const struct gguf_tensor wanted = {.name = name};
    return l->n > 0 ? bsearch(&wanted, l->tensors, l->n, sizeof wanted, name_compare) : NULL;
}

/* Of its data; 0: of a type that is not taken. */
static uint64_t tensor_bytes(const struct gguf_tensor *t)
{
    uint64_t n = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    if (n > UINT64_C(1) << 40) /* beyond any file */
        return UINT64_MAX;
    switch (t->type) {
    case TYPE_F32:
        return 4 * n;
    case TYPE_F16:
    case TYPE_BF16:
        return 2 * n;
    case TYPE_Q8_0:
        return t->dims[0] % Q8_0_ELEMENTS == 0 ? n / Q8_0_ELEMENTS * Q8_0_BYTES : 0;
    default:
        return 0;
    }
}

/* Infinite or no number: in memory that others use after it, it would spoil what they compute. */
static bool values_finite(const struct gguf_tensor *t, const uint8_t *data, uint64_t bytes)
{
    uint64_t each = t->type == TYPE_F32 ? 4 : t->type == TYPE_Q8_0 ? Q8_0_BYTES : 2;
    unsigned top = t->type == TYPE_F32 ? 2 : 0; /* where the 16 bits with the exponent lie */
    uint32_t exponent = t->type == TYPE_F32 || t->type == TYPE_BF16 ? 0x7F80 : 0x7C00;
    for (uint64_t at = 0; at < bytes; at += each)
        if (((data[at + top] | (uint32_t)data[at + top + 1] << 8) & exponent) == exponent)
            return false;
    return true;
}

static int data_check(struct str file, uint64_t start, const struct gguf_tensor *t, struct error *err)
{
    uint64_t bytes = tensor_bytes(t);
    if (bytes == 0)
        return refuse_tensor(err, t->name, "is not of type F32, F16, BF16 or Q8_0");
    if (t->offset > file.size - start || bytes > file.size - start - t->offset)
        return refuse_tensor(err, t->name, "lies beyond the end of the file");
    if (!values_finite(t, (const uint8_t *)file.data + start + t->offset, bytes))
        return refuse_tensor(err, t->name, "has values that are no numbers");
    return 0;
}

/* a takes what the tensor takes down to the rank, b takes it up to what the tensor gives; for the embeddings of tokens
 * a is looked up like the tensor itself, row by row. */
static int pair_check(const struct gguf_tensor *a, const struct gguf_tensor *b, const struct gguf_tensor *base,
                      bool embeddings, struct error *err)
{
    uint64_t rank = embeddings ? a->dims[0] : a->dims[1];
    bool fits = embeddings ? base->dims[0] == b->dims[1] && base->dims[1] == a->dims[1]
                           : base->dims[0] == a->dims[0] && base->dims[1] == b->dims[1];
    fits = fits && b->dims[0] == rank && base->rank >= 2;
    for (unsigned i = 2; i < 4; i++)
        fits = fits && a->dims[i] == base->dims[i] && b->dims[i] == base->dims[i];
    if (!fits)
        return refuse_tensor(err, a->name, "has not the dimensions that the model's needs");
    return rank <= LORA_RANK_MAX ? 0 : refuse_tensor(err, a->name, "has too high a rank");
}

/* The name of what a tensor belongs to; false: it is no part of a LoRA. */
static bool stem_of(struct str name, const char *suffix, struct str *ret_stem)
{
    size_t size = strlen(suffix);
    if (name.size <= size || memcmp(name.data + name.size - size, suffix, size) != 0)
        return false;
    *ret_stem = (struct str){name.data, name.size - size};
    return true;
}

static int pairs_check(struct adapter *a, struct str file, uint64_t start, const struct list *base, struct error *err)
{
    struct list *l = &a->list;
    bool output = find(base, STR("output.weight")) != NULL;
    qsort(l->tensors, l->n, sizeof *l->tensors, name_compare);
    for (uint32_t i = 0; i < l->n; i += 2) {
        const struct gguf_tensor *down = &l->tensors[i], *up = down + 1;
        struct str stem, other;
        if (!stem_of(down->name, ".lora_a", &stem) || i + 1 == l->n || !stem_of(up->name, ".lora_b", &other) ||
            !str_equal(stem, other))
            return refuse_tensor(err, down->name, "is not one of a pair NAME.lora_a and NAME.lora_b");
        const struct gguf_tensor *t = find(base, stem);
        bool embeddings = str_equal(stem, STR("token_embd.weight"));
        if (!t)
            return refuse_tensor(err, stem, "is not in the model");
        if (embeddings && !output) /* the same tensor makes the output there, in the other direction */
            return refuse_tensor(err, stem, "is the model's output as well, and cannot be adapted");
        int r = pair_check(down, up, t, embeddings, err);
        if (r == 0)
            r = data_check(file, start, down, err);
        if (r == 0)
            r = data_check(file, start, up, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int scan(struct adapter *a, struct list *base, struct str adapter_file, struct str base_file, struct error *err)
{
    const struct gguf_visitor of_base = {base, on_base_key, on_tensor}, of_adapter = {a, on_adapter_key, on_tensor};
    uint64_t start, base_start;
    int r = gguf_scan_each(adapter_file, &of_adapter, &start, err);
    if (r == 0)
        r = gguf_scan_each(base_file, &of_base, &base_start, err);
    if (r < 0)
        return r;
    if (!str_equal(a->type, STR("adapter")))
        return refuse(err, "its general.type is not \"adapter\"");
    if (!str_equal(a->kind, STR("lora")))
        return refuse(err, "its adapter.type is not \"lora\"");
    if (a->list.architecture.size == 0 || !str_equal(a->list.architecture, base->architecture))
        return refuse(err, "its general.architecture is not that of the base model");
    qsort(base->tensors, base->n, sizeof *base->tensors, name_compare);
    return pairs_check(a, adapter_file, start, base, err);
}

int lora_scan(struct str adapter, struct str base, struct error *err)
{
    struct adapter a = {.list = {.max = LORA_TENSORS_MAX}};
    struct list of_base = {.max = GGUF_TENSORS_MAX};
    int r = scan(&a, &of_base, adapter, base, err);
    free(a.list.tensors);
    free(of_base.tensors);
    return r;
}
