/* The identity engine's model file: no byte sequence may crash the parser, and what it takes must be a sound model. */
#include "engine/identity_model.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tensor_spec inputs[LIMIT_TENSORS];
    struct identity_model model;
    struct error err = {0};
    if (identity_model_parse((struct str){(const char *)data, size}, inputs, &model, &err) < 0) {
        if (err.code >= 0 || err.text[0] == '\0')
            abort();
        return 0;
    }
    if (model.n_inputs < 1 || model.n_inputs > LIMIT_TENSORS || model.busy_ns > IDENTITY_BUSY_NS_MAX ||
        model.busy_per_row_ns > IDENTITY_BUSY_NS_MAX)
        abort();
    for (uint32_t i = 0; i < model.n_inputs; i++) {
        const struct tensor_spec *spec = &model.inputs[i];
        if (spec->shape.rank > LIMIT_TENSOR_RANK || spec->dtype <= TENSOR_INVALID || spec->dtype >= TENSOR_DTYPE_COUNT)
            abort();
        for (uint32_t d = 0; d < spec->shape.rank; d++)
            if (spec->shape.dims[d] < -1 || spec->shape.dims[d] == 0)
                abort();
        if (!str_is_utf8(str_from(spec->name)) || tensor_spec_find(inputs, i, str_from(spec->name)) >= 0)
            abort();
    }
    return 0;
}
