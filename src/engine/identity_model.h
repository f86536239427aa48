/* The model file of the identity engine: a small JSON object.
 *
 *   {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}], "busy": "1ms", "busyPerRow": "20us"}
 *
 * `inputs` is required, 1 to LIMIT_TENSORS entries of exactly these three members; `busy` and `busyPerRow` are
 * durations of a whole number and us, ms or s, at most 10 s. Nothing else is taken: no unknown or repeated member, no
 * escapes in strings, no bytes behind the object. The file is a tenant's and hostile: parsing is linear, bounded, does
 * not recurse and does not allocate. Pure; also the fuzz target fuzz_identity_model. */
#ifndef BULKHEAD_ENGINE_IDENTITY_MODEL_H
#define BULKHEAD_ENGINE_IDENTITY_MODEL_H

#include "tensor/tensor.h"

/* 64 inputs with the longest name and rank take 64 × (255 + 8 × 11 + 60) B = 26 KiB. */
#define IDENTITY_MODEL_BYTES_MAX (64 * KIB)
#define IDENTITY_BUSY_NS_MAX     UINT64_C(10000000000)

struct identity_model {
    uint64_t busy_ns;         /* CPU time to burn per step */
    uint64_t busy_per_row_ns; /* and for each row of the batch; a step burns at most IDENTITY_BUSY_NS_MAX */
    uint32_t n_inputs;
    struct tensor_spec *inputs; /* [LIMIT_TENSORS], the caller's */
};

/* Fills *ret_model and the caller's inputs[LIMIT_TENSORS]. -ERROR_REFUSED with the byte position and what was expected;
 * inputs are then undefined. */
must_check int identity_model_parse(struct str text, struct tensor_spec *inputs, struct identity_model *ret_model,
                                    struct error *err);

#endif
