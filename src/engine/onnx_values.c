#include "engine/onnx_internal.h"

static int value_check(const struct onnx *onnx, OrtStatus *status, struct error *err)
{
    return onnx_check(onnx->api, status, ERROR_ENGINE, "ONNX Runtime", err);
}

static uint32_t load_u32(const void *data)
{
    uint32_t value;
    memcpy(&value, data, sizeof value); /* little-endian hosts only, as the channel */
    return value;
}

/* The view was checked when it was submitted: its elements fill it exactly. ONNX Runtime's own filling function takes
 * C strings, so each element is written into place instead; an element may hold NUL bytes. */
static int strings_fill(struct onnx *onnx, const struct tensor_view *view, uint64_t elements, OrtValue *value,
                        struct error *err)
{
    const char *at = view->data;
    for (uint64_t i = 0; i < elements; i++) {
        uint32_t size = load_u32(at);
        char *element = NULL;
        int result = value_check(onnx, onnx->api->GetResizedStringTensorElementBuffer(value, i, size, &element), err);
        if (result < 0)
            return result;
        if (size > 0)
            memcpy(element, at + sizeof size, size);
        at += sizeof size + size;
    }
    return 0;
}

int onnx_value_from_view(struct onnx *onnx, const struct tensor_view *view, OrtValue **ret_value, struct error *err)
{
    static max_align_t nothing; /* a tensor without elements may come without memory, but the library wants a pointer */
    ONNXTensorElementDataType type = onnx_element_type(view->dtype);
    uint64_t elements;
    int result = tensor_shape_elements(&view->shape, &elements);
    if (result < 0)
        return error_set_default(err, result);
    if (view->dtype != TENSOR_BYTES) {
        if ((uintptr_t)view->data % tensor_dtype_bytes(view->dtype) != 0)
            return error_set(err, ERROR_INTERNAL, "the engine was given a tensor that is not aligned");
        /* The cast: ONNX Runtime never writes to an input. Were it to, the memory is mapped read-only, and the worker
         * dies with its own tenant's request only. */
        void *data = view->size > 0 ? (void *)(uintptr_t)view->data : (void *)&nothing;
        return value_check(onnx,
                           onnx->api->CreateTensorWithDataAsOrtValue(onnx->memory, data, view->size, view->shape.dims,
                                                                     view->shape.rank, type, ret_value),
                           err);
    }
    OrtValue *value = NULL;
    result = value_check(
        onnx, onnx->api->CreateTensorAsOrtValue(onnx->allocator, view->shape.dims, view->shape.rank, type, &value),
        err);
    if (result < 0)
        return result;
    result = strings_fill(onnx, view, elements, value, err);
    if (result < 0)
        onnx->api->ReleaseValue(value);
    else
        *ret_value = value;
    return result;
}

/* The library gives all strings end to end and their offsets. They are read behind the room that their length prefixes
 * need, and then moved to the front one by one: element i moves from 4 n + offset to 4 (i + 1) + offset, never past
 * what has not moved yet. */
static int strings_read(struct onnx *onnx, OrtValue *value, uint64_t elements, struct tensor_view *view,
                        struct error *err)
{
    size_t content = 0, prefixes, total;
    int result = value_check(onnx, onnx->api->GetStringTensorDataLength(value, &content), err);
    if (result < 0)
        return result;
    buf_clear(&onnx->strings);
    buf_clear(&onnx->offsets);
    if (__builtin_mul_overflow(elements, sizeof(uint32_t), &prefixes) ||
        __builtin_add_overflow(prefixes, content, &total) || total > ONNX_STRINGS_BYTES_MAX)
        return error_set(err, ERROR_ENGINE, "the strings are larger than 1 GiB together");
    char *data = buf_reserve(&onnx->strings, total + 1);
    size_t *offsets = buf_reserve(&onnx->offsets, (elements + 1) * sizeof *offsets);
    if (!data || !offsets)
        return error_set_default(err, ERROR_NO_MEMORY);
    if (elements > 0)
        result = value_check(
            onnx, onnx->api->GetStringTensorContent(value, data + prefixes, content, offsets, elements), err);
    if (result < 0)
        return result;
    offsets[elements] = content;
    char *to = data;
    for (uint64_t i = 0; i < elements; i++) {
        size_t size = offsets[i + 1] - offsets[i];
        uint32_t prefix = (uint32_t)size; /* content is below 1 GiB */
        const char *from = data + prefixes + offsets[i];
        memmove(to + sizeof prefix, from, size);
        memcpy(to, &prefix, sizeof prefix);
        to += sizeof prefix + size;
    }
    view->data = data;
    view->size = total;
    return 0;
}

static int output_shape(struct onnx *onnx, OrtValue *value, struct tensor_view *view, struct error *err)
{
    OrtTensorTypeAndShapeInfo *info = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    int result = value_check(onnx, onnx->api->GetTensorTypeAndShape(value, &info), err);
    if (result < 0)
        return result;
    result = value_check(onnx, onnx->api->GetTensorElementType(info, &type), err);
    if (result == 0)
        result = value_check(onnx, onnx->api->GetDimensionsCount(info, &rank), err);
    if (result == 0 && rank > LIMIT_TENSOR_RANK)
        result = error_set(err, ERROR_ENGINE, "it has more than 8 dimensions");
    if (result == 0)
        result = value_check(onnx, onnx->api->GetDimensions(info, view->shape.dims, rank), err);
    onnx->api->ReleaseTensorTypeAndShapeInfo(info);
    view->shape.rank = (uint32_t)rank;
    view->dtype = onnx_dtype(type);
    return result;
}

/* What a model declares it must keep: clients allocate by it, and a batch is cut into its requests along axis 0. */
static int output_fits(const struct onnx *onnx, uint32_t index, const struct tensor_view *view, struct error *err)
{
    const struct tensor_spec *spec = &onnx->signature.outputs[index];
    char declared[96], got[96];
    if (view->dtype != spec->dtype || !tensor_shape_matches(&view->shape, &spec->shape))
        return error_set(err, ERROR_ENGINE, "it came out as %s %s, but the model declares %s %s",
                         tensor_dtype_name(view->dtype), tensor_shape_text(&view->shape, got, sizeof got),
                         tensor_dtype_name(spec->dtype), tensor_shape_text(&spec->shape, declared, sizeof declared));
    if (onnx->signature.batchable && view->shape.dims[0] != (int64_t)onnx->pending.batch->rows)
        return error_set(err, ERROR_ENGINE,
                         "it came out as %s for %u rows of input, though the model declares one axis for both",
                         tensor_shape_text(&view->shape, got, sizeof got), onnx->pending.batch->rows);
    return 0;
}

static int output_read(struct onnx *onnx, uint32_t index, OrtValue *value, struct tensor_view *view, struct error *err)
{
    uint64_t elements;
    void *data = NULL;
    int result = output_shape(onnx, value, view, err);
    if (result == 0)
        result = output_fits(onnx, index, view, err);
    if (result < 0)
        return result;
    if (tensor_shape_elements(&view->shape, &elements) < 0)
        return error_set(err, ERROR_ENGINE, "its shape is not valid");
    if (view->dtype == TENSOR_BYTES)
        return strings_read(onnx, value, elements, view, err);
    if (__builtin_mul_overflow(elements, tensor_dtype_bytes(view->dtype), &view->size))
        return error_set(err, ERROR_ENGINE, "its shape is not valid");
    result = value_check(onnx, onnx->api->GetTensorMutableData(value, &data), err);
    view->data = data;
    return result;
}

int onnx_value_give(struct onnx *onnx, uint32_t index, OrtValue *value, const struct engine_sink *sink,
                    struct error *err)
{
    const char *name = onnx->signature.outputs[index].name;
    struct tensor_view view = {.name = str_from(name)};
    if (!value)
        return error_set(err, ERROR_ENGINE, "the model gave no output '%s'", name);
    int result = output_read(onnx, index, value, &view, err);
    if (result < 0)
        return error_wrap(err, result, "output '%s'", name);
    return sink->output(sink->ctx, index, &view) == 0 ? 0 : error_set_default(err, ERROR_GONE);
}
