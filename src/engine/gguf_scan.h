/* A look at a GGUF file before llama.cpp gets it: that every length in its header stays within the file and within what
 * models in the field have, so that a lie costs nothing and is named. Pure; the file may be hostile. */
#ifndef BULKHEAD_ENGINE_GGUF_SCAN_H
#define BULKHEAD_ENGINE_GGUF_SCAN_H

#include "base/error.h"
#include "base/str.h"

/* What the scan takes. A large vocabulary has 300 k tokens and as many merges, a large model 2 k tensors. */
#define GGUF_KEYS_MAX     4096u
#define GGUF_TENSORS_MAX  65536u
#define GGUF_ELEMENTS_MAX (16u * 1024 * 1024) /* of an array */
#define GGUF_STRING_MAX   (4u * 1024 * 1024)  /* a chat template is some KiB */
#define GGUF_TOKEN_MAX    512u                /* a string in an array: a token of the vocabulary, or a merge */

enum gguf_value { /* types of values in the header, as the format numbers them; lists are not told of */
                  GGUF_VALUE_FLOAT32 = 6,
                  GGUF_VALUE_STRING = 8,
                  GGUF_VALUE_ARRAY = 9,
};

struct gguf_tensor {
    struct str name;  /* in the file */
    uint32_t rank;    /* 1 .. 4 */
    uint64_t dims[4]; /* ≥ 1 each, 1 beyond rank; their product fits int64_t */
    uint32_t type;
    uint64_t offset; /* from where the data begin; its bytes are not checked */
};

/* Told of what is in a header, in its order; negative ends the scan with that, err set. Each may be NULL. */
struct gguf_visitor {
    void *ctx;
    /* text: of a string; bits: of any other value but a list. Both empty for a list. */
    int (*key)(void *ctx, struct str name, uint32_t type, struct str text, uint64_t bits, struct error *err);
    int (*tensor)(void *ctx, const struct gguf_tensor *tensor, struct error *err);
};

/* -ERROR_REFUSED says what is wrong. */
must_check int gguf_scan(struct str file, struct error *err);
/* Likewise, and tells the visitor; *ret_data: where in the file the tensors' data begin. */
must_check int gguf_scan_each(struct str file, const struct gguf_visitor *visitor, uint64_t *ret_data,
                              struct error *err);

#endif
