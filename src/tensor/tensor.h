/* Tensors: datatypes, shapes, views, signatures. Types and pure functions; no allocation but where said.
 *
 * Names and encodings are those of the Open Inference Protocol v2 (kserve/open-inference-protocol, "Tensor Data") and
 * its binary tensor data extension: row-major, little-endian, BYTES elements each as a 4-byte little-endian length and
 * that many bytes. That binary form is also what travels over the channel and what engines see. */
#ifndef BULKHEAD_TENSOR_TENSOR_H
#define BULKHEAD_TENSOR_TENSOR_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

/* X(enum, name on the wire, bytes per element (0 = variable)) */
#define TENSOR_DTYPE_TABLE(X) \
    X(BOOL, "BOOL", 1)        \
    X(UINT8, "UINT8", 1)      \
    X(UINT16, "UINT16", 2)    \
    X(UINT32, "UINT32", 4)    \
    X(UINT64, "UINT64", 8)    \
    X(INT8, "INT8", 1)        \
    X(INT16, "INT16", 2)      \
    X(INT32, "INT32", 4)      \
    X(INT64, "INT64", 8)      \
    X(FP16, "FP16", 2)        \
    X(FP32, "FP32", 4)        \
    X(FP64, "FP64", 8)        \
    X(BF16, "BF16", 2)        \
    X(BYTES, "BYTES", 0)

enum tensor_dtype {
    TENSOR_INVALID = 0,
#define X(dtype, name, bytes) TENSOR_##dtype,
    TENSOR_DTYPE_TABLE(X)
#undef X
        TENSOR_DTYPE_COUNT
};

const char *tensor_dtype_name(enum tensor_dtype dtype);    /* "?" for an unknown one */
enum tensor_dtype tensor_dtype_from_name(struct str name); /* TENSOR_INVALID when unknown */
size_t tensor_dtype_bytes(enum tensor_dtype dtype);        /* 0 for BYTES and invalid */

struct tensor_shape {
    uint32_t rank;                   /* 0 (scalar) .. LIMIT_TENSOR_RANK */
    int64_t dims[LIMIT_TENSOR_RANK]; /* -1 = dynamic, in signatures only */
};

/* Product of the dims, checked; 1 for rank 0. -ERROR_INVALID_TENSOR on a negative dim, a rank over the limit, or when
 * the product of the dims without the zero ones exceeds 2^63-1 (so that no stride overflows either). */
must_check int tensor_shape_elements(const struct tensor_shape *shape, uint64_t *ret_elements);
/* "[2,-1,8]" for messages; truncated to fit; returns text. */
const char *tensor_shape_text(const struct tensor_shape *shape, char *text, size_t capacity);
bool tensor_shape_equal(const struct tensor_shape *a, const struct tensor_shape *b);
/* `shape` fits `pattern` where pattern may hold -1. */
bool tensor_shape_matches(const struct tensor_shape *shape, const struct tensor_shape *pattern);

/* A borrowed tensor in binary form. `name` and `data` belong to someone else (body, arena, channel). data need not be
 * aligned. */
struct tensor_view {
    struct str name;
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    const void *data;
    size_t size; /* bytes; for fixed-size dtypes = elements × element size */
};

/* Checks that `size` bytes are exactly the binary form of dtype × shape; for BYTES walks every length prefix. */
must_check int tensor_data_check(enum tensor_dtype dtype, const struct tensor_shape *shape, const void *data,
                                 size_t size, struct error *err);
/* BYTES: bytes taken by the first `elements` elements of an already checked tensor. For fixed-size: elements × size. */
size_t tensor_data_prefix(enum tensor_dtype dtype, const void *data, size_t size, uint64_t elements);

/* What a model takes and gives. Owned inline, no pointers, so it can be copied and sent. ~42 KiB: heap only. */
struct tensor_spec {
    char name[LIMIT_TENSOR_NAME_BYTES + 1];
    enum tensor_dtype dtype;
    struct tensor_shape shape; /* dims -1 = dynamic */
};

enum tensor_token_flag {
    TENSOR_TOKEN_CHAT = 1u << 0,   /* the model has a chat template */
    TENSOR_TOKEN_TOOLS = 1u << 1,  /* … that knows tools */
    TENSOR_TOKEN_EMBED = 1u << 2,  /* it gives embeddings */
    TENSOR_TOKEN_ANSWER = 1u << 3, /* it generates text */
    TENSOR_TOKEN_FLAGS_ALL = (1u << 4) - 1
};

/* What a language model is, which has no tensors that a request could give; all 0: it is none. */
struct tensor_token_model {
    uint32_t flags;     /* enum tensor_token_flag; ≥ one of EMBED and ANSWER */
    uint32_t context;   /* tokens of one sequence, prompt and answer; ≥ 1 */
    uint32_t cells;     /* tokens of all sequences at once; ≥ context */
    uint32_t sequences; /* at once; 1 .. LIMIT_SEQUENCES */
    uint32_t vocabulary;
    uint32_t embedding;     /* elements of a vector */
    uint64_t adapter_bytes; /* room for loaded adapters, as their files count, in all; 0: it takes none */
};

struct tensor_signature {
    uint32_t n_inputs, n_outputs;    /* ≤ LIMIT_TENSORS each */
    struct tensor_token_model token; /* sequences ≥ 1: a language model, and n_inputs = n_outputs = 0 */
    bool batchable;                  /* dim 0 of every input and output is dynamic and is the batch axis */
    char platform[32];               /* OIP metadata "platform", such as "onnxruntime_onnx" */
    struct tensor_spec inputs[LIMIT_TENSORS];
    struct tensor_spec outputs[LIMIT_TENSORS];
};

/* Index of the spec of that name, or -1. */
int tensor_spec_find(const struct tensor_spec *specs, uint32_t n, struct str name);

/* Compact binary form of a signature, for the channel (a worker's answer to LOAD). encode appends nothing and returns
 * -ERROR_LIMIT when `capacity` is too small; ret_size = bytes used. decode trusts nothing: -ERROR_PEER on anything out
 * of range, duplicate or empty names, invalid UTF-8, or trailing bytes. */
#define TENSOR_SIGNATURE_BYTES_MAX LIMIT_SIGNATURE_BYTES
must_check int tensor_signature_encode(const struct tensor_signature *s, void *data, size_t capacity, size_t *ret_size);
must_check int tensor_signature_decode(const void *data, size_t size, struct tensor_signature *ret_signature,
                                       struct error *err);

#endif
