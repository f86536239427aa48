#include "engine/engine.h"

static const struct engine_ops *const engines[] = {
    &engine_identity,
    &engine_onnx,
    &engine_llama,
};

const struct engine_ops *engine_at(size_t index)
{
    return index < sizeof engines / sizeof engines[0] ? engines[index] : NULL;
}

const struct engine_ops *engine_find(struct str name)
{
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (str_equal(name, str_from(engines[i]->name)))
            return engines[i];
    return NULL;
}
