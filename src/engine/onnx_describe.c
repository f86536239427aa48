#include "engine/onnx_internal.h"
#include "engine/onnx_scan.h"

#include <stdio.h>

static const uint8_t dtypes[] = {
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT] = TENSOR_FP32,    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8] = TENSOR_UINT8,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8] = TENSOR_INT8,     [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16] = TENSOR_UINT16,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16] = TENSOR_INT16,   [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32] = TENSOR_INT32,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64] = TENSOR_INT64,   [ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING] = TENSOR_BYTES,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL] = TENSOR_BOOL,     [ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16] = TENSOR_FP16,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE] = TENSOR_FP64,   [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32] = TENSOR_UINT32,
    [ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64] = TENSOR_UINT64, [ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16] = TENSOR_BF16,
};
#define N_DTYPES (sizeof dtypes / sizeof dtypes[0])

static const char *const kinds[] = {
    [ONNX_TYPE_UNKNOWN] = "of an unknown type",
    [ONNX_TYPE_TENSOR] = "a tensor",
    [ONNX_TYPE_SEQUENCE] = "a sequence",
    [ONNX_TYPE_MAP] = "a map",
    [ONNX_TYPE_OPAQUE] = "opaque",
    [ONNX_TYPE_SPARSETENSOR] = "a sparse tensor",
    [ONNX_TYPE_OPTIONAL] = "optional",
};

enum tensor_dtype onnx_dtype(ONNXTensorElementDataType type)
{
    return (size_t)type < N_DTYPES ? (enum tensor_dtype)dtypes[type] : TENSOR_INVALID;
}

ONNXTensorElementDataType onnx_element_type(enum tensor_dtype dtype)
{
    for (size_t i = 0; i < N_DTYPES; i++)
        if (dtypes[i] == dtype && dtype != TENSOR_INVALID)
            return (ONNXTensorElementDataType)i;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

/* The batch axis while the tensors are walked: dim 0 of every input and output must be dynamic and mean the same thing,
 * which a model says by giving it one name everywhere, or none anywhere. */
struct axis {
    bool possible;
    char *name; /* of the first tensor seen; NULL before */
};

struct describer {
    const OrtApi *api;
    const OrtSession *session;
    struct str model;
    struct axis axis;
    struct error *err;
};

static int describer_check(const struct describer *d, OrtStatus *status)
{
    return onnx_check(d->api, status, ERROR_REFUSED, "the model cannot be described", d->err);
}

static int refuse(const struct describer *d, bool output, const char *name, const char *reason)
{
    char clean[64];
    onnx_text_clean(str_from(name), clean, sizeof clean);
    return error_set(d->err, ERROR_REFUSED, "%s '%s' %s", output ? "output" : "input", clean, reason);
}

static int axis_see(struct describer *d, const struct tensor_shape *shape, const char *dim_name)
{
    if (shape->rank == 0 || shape->dims[0] != -1) {
        d->axis.possible = false;
    } else if (!d->axis.name) {
        d->axis.name = strdup(dim_name ? dim_name : "");
        if (!d->axis.name)
            return error_set_default(d->err, ERROR_NO_MEMORY);
    } else if (strcmp(d->axis.name, dim_name ? dim_name : "") != 0) {
        d->axis.possible = false;
    }
    return 0;
}

static int describe_tensor(struct describer *d, bool output, const OrtTensorTypeAndShapeInfo *info,
                           struct tensor_spec *spec)
{
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    const char *dim_names[LIMIT_TENSOR_RANK] = {NULL};
    int result = describer_check(d, d->api->GetTensorElementType(info, &type));
    if (result == 0)
        result = describer_check(d, d->api->GetDimensionsCount(info, &rank));
    if (result < 0)
        return result;
    spec->dtype = onnx_dtype(type);
    if (spec->dtype == TENSOR_INVALID)
        return refuse(d, output, spec->name, "has an element type that cannot be served");
    if (rank > LIMIT_TENSOR_RANK)
        return refuse(d, output, spec->name, "has more than 8 dimensions, which cannot be served");
    if (rank == 0 && !onnx_scan_declares_shape(d->model, str_from(spec->name), output))
        return refuse(d, output, spec->name, "has a shape of unknown rank, which cannot be served");
    spec->shape.rank = (uint32_t)rank;
    result = describer_check(d, d->api->GetDimensions(info, spec->shape.dims, rank));
    if (result == 0)
        result = describer_check(d, d->api->GetSymbolicDimensions(info, dim_names, rank));
    if (result < 0)
        return result;
    for (size_t i = 0; i < rank; i++)
        if (spec->shape.dims[i] < -1)
            return refuse(d, output, spec->name, "has a negative dimension");
    return axis_see(d, &spec->shape, dim_names[0]);
}

static int describe_type(struct describer *d, bool output, size_t index, struct tensor_spec *spec)
{
    OrtTypeInfo *info = NULL; /* the tensor's info belongs to it */
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    enum ONNXType kind = ONNX_TYPE_UNKNOWN;
    int result = describer_check(d, output ? d->api->SessionGetOutputTypeInfo(d->session, index, &info)
                                           : d->api->SessionGetInputTypeInfo(d->session, index, &info));
    if (result < 0)
        return result;
    result = describer_check(d, d->api->GetOnnxTypeFromTypeInfo(info, &kind));
    if (result == 0 && kind != ONNX_TYPE_TENSOR) {
        char reason[64];
        const char *what = (size_t)kind < sizeof kinds / sizeof kinds[0] ? kinds[kind] : kinds[0];
        (void)snprintf(reason, sizeof reason, "is %s, which cannot be served", what);
        result = refuse(d, output, spec->name, reason);
    }
    if (result == 0)
        result = describer_check(d, d->api->CastTypeInfoToTensorInfo(info, &tensor));
    if (result == 0 && !tensor)
        result = refuse(d, output, spec->name, "is not a tensor");
    if (result == 0)
        result = describe_tensor(d, output, tensor, spec);
    d->api->ReleaseTypeInfo(info);
    return result;
}

static int describe_name(struct describer *d, bool output, size_t index, struct tensor_spec *spec)
{
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    int result = describer_check(d, d->api->GetAllocatorWithDefaultOptions(&allocator));
    if (result < 0)
        return result;
    result = describer_check(d, output ? d->api->SessionGetOutputName(d->session, index, allocator, &name)
                                       : d->api->SessionGetInputName(d->session, index, allocator, &name));
    if (result < 0)
        return result;
    if (name[0] == '\0' || !str_is_utf8(str_from(name)) || str_copy(str_from(name), spec->name, sizeof spec->name) < 0)
        result = refuse(d, output, name, "needs a name of 1 to 255 bytes of UTF-8");
    allocator->Free(allocator, name);
    return result;
}

static int describe_tensors(struct describer *d, bool output, struct tensor_spec *specs, uint32_t *ret_n)
{
    size_t n = 0;
    int result = describer_check(d, output ? d->api->SessionGetOutputCount(d->session, &n)
                                           : d->api->SessionGetInputCount(d->session, &n));
    if (result < 0)
        return result;
    if (n > LIMIT_TENSORS)
        return error_set(d->err, ERROR_REFUSED, "the model has %zu %s; at most %u can be served", n,
                         output ? "outputs" : "inputs", LIMIT_TENSORS);
    for (size_t i = 0; i < n && result == 0; i++) {
        result = describe_name(d, output, i, &specs[i]);
        if (result == 0)
            result = describe_type(d, output, i, &specs[i]);
    }
    *ret_n = (uint32_t)n;
    return result;
}

int onnx_describe_session(const OrtApi *api, const OrtSession *session, struct str model,
                          struct tensor_signature *signature, struct error *err)
{
    struct describer d = {.api = api, .session = session, .model = model, .axis.possible = true, .err = err};
    int result = describe_tensors(&d, false, signature->inputs, &signature->n_inputs);
    if (result == 0)
        result = describe_tensors(&d, true, signature->outputs, &signature->n_outputs);
    free(d.axis.name);
    if (result < 0)
        return result;
    if (signature->n_outputs == 0)
        return error_set(err, ERROR_REFUSED, "the model has no outputs");
    signature->batchable = d.axis.possible && signature->n_inputs > 0;
    (void)snprintf(signature->platform, sizeof signature->platform, "onnxruntime_onnx"); /* fits */
    return 0;
}
