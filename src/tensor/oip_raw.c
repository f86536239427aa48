#include "tensor/oip_internal.h"

static int refuse(const struct tensor_spec *spec, const char *why, struct error *err)
{
    struct str name = oip_name_shown(str_from(spec->name));
    char shape[96];
    return error_set(
        err, ERROR_INVALID_REQUEST,
        "A raw request cannot tell the shape of input \"" STR_FORMAT "\", which is %s %s: %s. Send it with "
        "a JSON header.",
        STR_ARG(name), tensor_dtype_name(spec->dtype), tensor_shape_text(&spec->shape, shape, sizeof shape), why);
}

/* The shape that `size` bytes have, for a datatype of fixed size. */
static int shape_fixed(const struct tensor_spec *spec, uint32_t first, size_t size, struct tensor_shape *shape,
                       struct error *err)
{
    uint64_t bytes = tensor_dtype_bytes(spec->dtype);
    uint32_t open = LIMIT_TENSOR_RANK;
    for (uint32_t i = first; i < shape->rank; i++) {
        if (shape->dims[i] < 0 && open != LIMIT_TENSOR_RANK)
            return refuse(spec, "more than one dimension is open", err);
        if (shape->dims[i] < 0)
            open = i;
        else if (__builtin_mul_overflow(bytes, (uint64_t)shape->dims[i], &bytes))
            return refuse(spec, "it has more elements than can be counted", err);
    }
    if (open == LIMIT_TENSOR_RANK)
        return 0; /* whether the size fits is checked with the data */
    if (bytes == 0)
        return refuse(spec, "another dimension is zero", err);
    if (size % bytes != 0) {
        struct str name = oip_name_shown(str_from(spec->name));
        return error_set(err, ERROR_INVALID_TENSOR,
                         "The %zu bytes of the raw request are no multiple of %llu, the bytes of input \"" STR_FORMAT
                         "\" for each step of its open dimension.",
                         size, (unsigned long long)bytes, STR_ARG(name));
    }
    shape->dims[open] = (int64_t)(size / bytes);
    return 0;
}

/* BYTES: the whole body is one element. */
static int element_decode(const struct tensor_spec *spec, uint32_t first, struct str body, struct arena *arena,
                          struct tensor_view *view, struct error *err)
{
    for (uint32_t i = first; i < view->shape.rank; i++) {
        if (view->shape.dims[i] != 1 && view->shape.dims[i] != -1)
            return refuse(spec, "the body is one element of BYTES", err);
        view->shape.dims[i] = 1;
    }
    uint32_t size = (uint32_t)body.size;
    char *data = body.size <= UINT32_MAX ? arena_alloc(arena, sizeof size + body.size) : NULL;
    if (!data)
        return error_set_default(err, ERROR_NO_MEMORY);
    memcpy(data, &size, sizeof size); /* little-endian, as the only hosts we build for */
    if (size > 0)
        memcpy(data + sizeof size, body.data, size);
    view->data = data;
    view->size = sizeof size + body.size;
    return 0;
}

int oip_request_json_size(struct str header, size_t body_size, size_t *ret_json_size, struct error *err)
{
    uint64_t json_size = body_size;
    if (header.data && (str_to_u64(header, &json_size) < 0 || json_size > body_size))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "Inference-Header-Content-Length must be the number of bytes of the JSON part, at most the "
                         "%zu bytes of the body.",
                         body_size);
    *ret_json_size = (size_t)json_size;
    return 0;
}

int oip_request_raw(struct str body, const struct tensor_signature *signature, struct arena *arena,
                    struct oip_request *ret_request, struct error *err)
{
    if (signature->n_inputs != 1)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "A raw request is for models with one input; this one has %u. Send them with a JSON header.",
                         signature->n_inputs);
    const struct tensor_spec *spec = &signature->inputs[0];
    struct tensor_view view = {
        .name = str_from(spec->name), .dtype = spec->dtype, .shape = spec->shape, .data = body.data, .size = body.size};
    uint32_t first = signature->batchable ? 1 : 0;
    if (signature->batchable)
        view.shape.dims[0] = 1;
    int status = spec->dtype == TENSOR_BYTES ? element_decode(spec, first, body, arena, &view, err)
                                             : shape_fixed(spec, first, body.size, &view.shape, err);
    if (status < 0)
        return status;
    status = tensor_data_check(view.dtype, &view.shape, view.data, view.size, err);
    if (status < 0) {
        struct str name = oip_name_shown(view.name);
        return error_wrap(err, status, "input \"" STR_FORMAT "\" of a raw request", STR_ARG(name));
    }
    ret_request->id = (struct str){0};
    ret_request->n_inputs = 1;
    ret_request->inputs[0] = view;
    ret_request->n_outputs = 0;
    ret_request->binary_output_default = true;
    ret_request->timeout_us = 0;
    ret_request->priority = 0;
    return 0;
}
