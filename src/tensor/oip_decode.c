#include "tensor/oip_internal.h"

struct decode {
    struct oip_json *json;
    struct str binary; /* binary parts not yet claimed by an input */
    struct oip_request *request;
    uint64_t outputs_said_binary; /* bit n: outputs[n] has a binary_data of its own */
    struct error *err;
};

_Static_assert(LIMIT_TENSORS <= 64, "one bit for each output");

static struct str value_str(yyjson_val *value)
{
    return (struct str){unsafe_yyjson_get_str(value), unsafe_yyjson_get_len(value)};
}

/* The parser's strings go with it: copies into the arena. */
static int keep(struct decode *d, struct str text, struct str *ret_text)
{
    char *copy = oip_json_alloc(d->json, text.size + 1);
    if (!copy)
        return error_set_default(d->err, ERROR_NO_MEMORY);
    memcpy(copy, text.data, text.size);
    *ret_text = (struct str){copy, text.size};
    return 0;
}

/* The name goes into `where` too. */
static int decode_name(struct decode *d, yyjson_val *name, struct oip_where *where, struct str *ret_name)
{
    if (!name)
        return error_set(d->err, ERROR_INVALID_REQUEST, "%s has no \"name\".", OIP_WHERE(where));
    struct str text = value_str(name);
    if (text.size == 0 || text.size > LIMIT_TENSOR_NAME_BYTES || memchr(text.data, '\0', text.size))
        return error_set(d->err, ERROR_INVALID_REQUEST, "The \"name\" of %s must have 1 to %u bytes and no NUL.",
                         OIP_WHERE(where), LIMIT_TENSOR_NAME_BYTES);
    where->name = text;
    return keep(d, text, ret_name);
}

static int decode_dtype(struct decode *d, yyjson_val *value, const struct oip_where *where,
                        enum tensor_dtype *ret_dtype)
{
    if (!value)
        return error_set(d->err, ERROR_INVALID_REQUEST, "%s has no \"datatype\".", OIP_WHERE(where));
    struct str name = value_str(value);
    enum tensor_dtype dtype = tensor_dtype_from_name(name);
    if (dtype == TENSOR_INVALID) {
        name = oip_name_shown(name);
        return error_set(d->err, ERROR_INVALID_TENSOR,
                         "%s has the unknown datatype \"" STR_FORMAT "\"; there are BOOL, UINT8, UINT16, UINT32, "
                         "UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BF16 and BYTES.",
                         OIP_WHERE(where), STR_ARG(name));
    }
    *ret_dtype = dtype;
    return 0;
}

static int decode_shape(struct decode *d, yyjson_val *value, const struct oip_where *where,
                        struct tensor_shape *ret_shape)
{
    if (!value)
        return error_set(d->err, ERROR_INVALID_REQUEST, "%s has no \"shape\".", OIP_WHERE(where));
    size_t rank = unsafe_yyjson_get_len(value);
    if (rank > LIMIT_TENSOR_RANK)
        return error_set(d->err, ERROR_INVALID_TENSOR, "The shape of %s has %zu dimensions; at most %u are possible.",
                         OIP_WHERE(where), rank, LIMIT_TENSOR_RANK);
    ret_shape->rank = (uint32_t)rank;
    yyjson_arr_iter iter = yyjson_arr_iter_with(value);
    for (size_t i = 0; i < rank; i++) {
        yyjson_val *dim = yyjson_arr_iter_next(&iter);
        if (!yyjson_is_uint(dim) || yyjson_get_uint(dim) > INT64_MAX)
            return error_set(d->err, ERROR_INVALID_TENSOR,
                             "Dimension %zu in the shape of %s must be a whole number from 0 to 9223372036854775807.",
                             i, OIP_WHERE(where));
        ret_shape->dims[i] = (int64_t)yyjson_get_uint(dim);
    }
    uint64_t elements;
    char text[192];
    if (tensor_shape_elements(ret_shape, &elements) < 0)
        return error_set(d->err, ERROR_INVALID_TENSOR, "The shape %s of %s has more elements than can be counted.",
                         tensor_shape_text(ret_shape, text, sizeof text), OIP_WHERE(where));
    return 0;
}

/* A view of the next `size` bytes behind the JSON. */
static int decode_binary(struct decode *d, uint64_t size, struct tensor_view *view)
{
    if (size > d->binary.size)
        return error_set(d->err, ERROR_INVALID_TENSOR,
                         "binary_data_size is %llu, but only %zu bytes are left behind the JSON",
                         (unsigned long long)size, d->binary.size);
    int status = tensor_data_check(view->dtype, &view->shape, d->binary.data, (size_t)size, d->err);
    if (status < 0)
        return status;
    view->data = d->binary.data;
    view->size = (size_t)size;
    d->binary = str_skip(d->binary, (size_t)size);
    return 0;
}

/* Members of an object by index; each table below is in the order of its enum. */
enum { INPUT_NAME, INPUT_SHAPE, INPUT_DATATYPE, INPUT_PARAMETERS, INPUT_DATA, INPUT_COUNT };
static const struct oip_member input_members[INPUT_COUNT] = {
    [INPUT_NAME] = {STR("name"), OIP_STRING},         [INPUT_SHAPE] = {STR("shape"), OIP_ARRAY},
    [INPUT_DATATYPE] = {STR("datatype"), OIP_STRING}, [INPUT_PARAMETERS] = {STR("parameters"), OIP_OBJECT},
    [INPUT_DATA] = {STR("data"), OIP_ARRAY},
};
static const struct oip_member input_parameters[] = {{STR("binary_data_size"), OIP_COUNT}};

static int decode_input(struct decode *d, yyjson_val *input, uint32_t index)
{
    struct tensor_view *view = &d->request->inputs[index];
    yyjson_val *member[INPUT_COUNT], *binary_size = NULL;
    struct oip_where where = {.kind = "input", .index = index};
    if (!yyjson_is_obj(input))
        return error_set(d->err, ERROR_INVALID_REQUEST, "%s must be an object.", OIP_WHERE(&where));
    int status = oip_json_members(input, input_members, INPUT_COUNT, false, &where, member, d->err);
    if (status < 0)
        return status;
    status = decode_name(d, member[INPUT_NAME], &where, &view->name);
    if (status < 0)
        return status;
    status = decode_dtype(d, member[INPUT_DATATYPE], &where, &view->dtype);
    if (status < 0)
        return status;
    status = decode_shape(d, member[INPUT_SHAPE], &where, &view->shape);
    if (status < 0)
        return status;
    if (member[INPUT_PARAMETERS]) {
        status = oip_json_members(member[INPUT_PARAMETERS], input_parameters, 1, true, &where, &binary_size, d->err);
        if (status < 0)
            return status;
    }
    if (!member[INPUT_DATA] == !binary_size)
        return error_set(d->err, ERROR_INVALID_REQUEST,
                         "%s must have either \"data\" or the parameter \"binary_data_size\".", OIP_WHERE(&where));
    status = binary_size ? decode_binary(d, unsafe_yyjson_get_uint(binary_size), view)
                         : oip_data_decode(d->json, member[INPUT_DATA], view, d->err);
    return status < 0 ? error_wrap(d->err, status, "%s", OIP_WHERE(&where)) : 0;
}

enum { OUTPUT_NAME, OUTPUT_PARAMETERS, OUTPUT_COUNT };
static const struct oip_member output_members[OUTPUT_COUNT] = {
    [OUTPUT_NAME] = {STR("name"), OIP_STRING},
    [OUTPUT_PARAMETERS] = {STR("parameters"), OIP_OBJECT},
};
static const struct oip_member output_parameters[] = {{STR("binary_data"), OIP_BOOL}};

static int decode_output(struct decode *d, yyjson_val *output, uint32_t index)
{
    struct oip_output_wish *wish = &d->request->outputs[index];
    yyjson_val *member[OUTPUT_COUNT], *binary = NULL;
    struct oip_where where = {.kind = "output", .index = index};
    if (!yyjson_is_obj(output))
        return error_set(d->err, ERROR_INVALID_REQUEST, "%s must be an object.", OIP_WHERE(&where));
    int status = oip_json_members(output, output_members, OUTPUT_COUNT, false, &where, member, d->err);
    if (status < 0)
        return status;
    status = decode_name(d, member[OUTPUT_NAME], &where, &wish->name);
    if (status < 0)
        return status;
    if (member[OUTPUT_PARAMETERS]) {
        status = oip_json_members(member[OUTPUT_PARAMETERS], output_parameters, 1, true, &where, &binary, d->err);
        if (status < 0)
            return status;
    }
    wish->binary = binary && unsafe_yyjson_get_bool(binary);
    if (binary)
        d->outputs_said_binary |= UINT64_C(1) << index;
    return 0;
}

/* Calls `one` for each entry of `array`, which may be NULL. */
static int decode_each(struct decode *d, yyjson_val *array, const char *name,
                       int (*one)(struct decode *, yyjson_val *, uint32_t), uint32_t *ret_n)
{
    *ret_n = 0;
    if (!array)
        return 0;
    size_t n = unsafe_yyjson_get_len(array);
    if (n > LIMIT_TENSORS)
        return error_set(d->err, ERROR_INVALID_REQUEST, "\"%s\" has %zu entries; at most %u are possible.", name, n,
                         LIMIT_TENSORS);
    yyjson_arr_iter iter = yyjson_arr_iter_with(array);
    for (uint32_t i = 0; i < n; i++) {
        int status = one(d, yyjson_arr_iter_next(&iter), i);
        if (status < 0)
            return status;
    }
    *ret_n = (uint32_t)n;
    return 0;
}

enum { REQUEST_ID, REQUEST_PARAMETERS, REQUEST_INPUTS, REQUEST_OUTPUTS, REQUEST_COUNT };
static const struct oip_member request_members[REQUEST_COUNT] = {
    [REQUEST_ID] = {STR("id"), OIP_STRING},
    [REQUEST_PARAMETERS] = {STR("parameters"), OIP_OBJECT},
    [REQUEST_INPUTS] = {STR("inputs"), OIP_ARRAY},
    [REQUEST_OUTPUTS] = {STR("outputs"), OIP_ARRAY},
};
enum { PARAMETER_BINARY_OUTPUT, PARAMETER_TIMEOUT, PARAMETER_PRIORITY, PARAMETER_COUNT };
static const struct oip_member request_parameters[PARAMETER_COUNT] = {
    [PARAMETER_BINARY_OUTPUT] = {STR("binary_data_output"), OIP_BOOL},
    [PARAMETER_TIMEOUT] = {STR("timeout"), OIP_COUNT},
    [PARAMETER_PRIORITY] = {STR("priority"), OIP_COUNT},
};
_Static_assert(INPUT_COUNT <= OIP_MEMBERS_MAX && OUTPUT_COUNT <= OIP_MEMBERS_MAX && REQUEST_COUNT <= OIP_MEMBERS_MAX,
               "values fit their arrays");

static const struct oip_where the_request = {.kind = NULL};

static int decode_id(struct decode *d, yyjson_val *id)
{
    d->request->id = (struct str){NULL, 0};
    if (!id)
        return 0;
    if (unsafe_yyjson_get_len(id) > LIMIT_REQUEST_ID_BYTES)
        return error_set(d->err, ERROR_INVALID_REQUEST, "The \"id\" has %zu bytes; at most %u are possible.",
                         unsafe_yyjson_get_len(id), LIMIT_REQUEST_ID_BYTES);
    return keep(d, value_str(id), &d->request->id);
}

static int decode_parameters(struct decode *d, yyjson_val *parameters)
{
    yyjson_val *member[PARAMETER_COUNT] = {NULL};
    if (parameters) {
        int status =
            oip_json_members(parameters, request_parameters, PARAMETER_COUNT, true, &the_request, member, d->err);
        if (status < 0)
            return status;
    }
    yyjson_val *binary = member[PARAMETER_BINARY_OUTPUT], *timeout = member[PARAMETER_TIMEOUT];
    yyjson_val *priority = member[PARAMETER_PRIORITY];
    d->request->binary_output_default = binary && unsafe_yyjson_get_bool(binary);
    d->request->timeout_us = timeout ? unsafe_yyjson_get_uint(timeout) : 0;
    d->request->priority = priority ? unsafe_yyjson_get_uint(priority) : 0;
    return 0;
}

static int decode_request(struct decode *d, yyjson_val *root)
{
    yyjson_val *member[REQUEST_COUNT];
    if (!yyjson_is_obj(root))
        return error_set(d->err, ERROR_INVALID_REQUEST, "An inference request is a JSON object.");
    int status = oip_json_members(root, request_members, REQUEST_COUNT, false, &the_request, member, d->err);
    if (status < 0)
        return status;
    if (!member[REQUEST_INPUTS])
        return error_set(d->err, ERROR_INVALID_REQUEST, "The request has no \"inputs\".");
    status = decode_id(d, member[REQUEST_ID]);
    if (status < 0)
        return status;
    status = decode_parameters(d, member[REQUEST_PARAMETERS]);
    if (status < 0)
        return status;
    status = decode_each(d, member[REQUEST_INPUTS], "inputs", decode_input, &d->request->n_inputs);
    if (status < 0)
        return status;
    status = decode_each(d, member[REQUEST_OUTPUTS], "outputs", decode_output, &d->request->n_outputs);
    if (status < 0)
        return status;
    for (uint32_t i = 0; i < d->request->n_outputs; i++)
        if (!(d->outputs_said_binary >> i & 1))
            d->request->outputs[i].binary = d->request->binary_output_default;
    if (d->binary.size > 0)
        return error_set(d->err, ERROR_INVALID_REQUEST,
                         "%zu bytes behind the JSON belong to no input's binary_data_size.", d->binary.size);
    return 0;
}

/* Only what is used: the whole is 10 KiB. */
static void request_copy(struct oip_request *to, const struct oip_request *from)
{
    to->id = from->id;
    to->n_inputs = from->n_inputs;
    memcpy(to->inputs, from->inputs, from->n_inputs * sizeof from->inputs[0]);
    to->n_outputs = from->n_outputs;
    memcpy(to->outputs, from->outputs, from->n_outputs * sizeof from->outputs[0]);
    to->binary_output_default = from->binary_output_default;
    to->timeout_us = from->timeout_us;
    to->priority = from->priority;
}

int oip_request_decode(struct str body, size_t json_size, struct arena *arena, struct oip_request *ret_request,
                       struct error *err)
{
    if (json_size > body.size)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "Inference-Header-Content-Length says %zu bytes, but the body has only %zu.", json_size,
                         body.size);
    struct oip_json json;
    int status = oip_json_parse(&json, (struct str){body.data, json_size}, arena, err);
    if (status < 0)
        return status;
    struct oip_request request;
    struct decode d = {.json = &json, .binary = str_skip(body, json_size), .request = &request, .err = err};
    status = decode_request(&d, yyjson_doc_get_root(json.doc));
    if (status == 0)
        request_copy(ret_request, &request);
    oip_json_done(&json);
    return status;
}
