#include "tensor/oip_internal.h"

#include <math.h>

#define append_literal(buf, literal) buf_append((buf), "" literal, sizeof(literal) - 1)

/* Numbers are written in runs of this many straight into the buffer. */
enum { RUN = 128 };
_Static_assert((unsigned)RUN <= OIP_FP64_CHUNK, "a run goes through the FP64 writer at once");

static void append_count(struct buf *body, uint64_t value)
{
    char text[OIP_NUMBER_BYTES_MAX];
    buf_append(body, text, oip_number_u64(text, value));
}

static void append_shape(struct buf *body, const struct tensor_shape *shape)
{
    char text[OIP_NUMBER_BYTES_MAX];
    buf_append_char(body, '[');
    for (uint32_t i = 0; i < shape->rank && i < LIMIT_TENSOR_RANK; i++) {
        if (i > 0)
            buf_append_char(body, ',');
        buf_append(body, text, oip_number_i64(text, shape->dims[i]));
    }
    buf_append_char(body, ']');
}

/* One element of an integer datatype. */
static size_t put_integer(char *text, enum tensor_dtype dtype, const char *data, size_t i)
{
#define PUT(type, put)                                         \
    do {                                                       \
        type value;                                            \
        memcpy(&value, data + i * sizeof value, sizeof value); \
        return put(text, value);                               \
    } while (0)
    if (dtype == TENSOR_UINT8)
        PUT(uint8_t, oip_number_u64);
    if (dtype == TENSOR_UINT16)
        PUT(uint16_t, oip_number_u64);
    if (dtype == TENSOR_UINT32)
        PUT(uint32_t, oip_number_u64);
    if (dtype == TENSOR_UINT64)
        PUT(uint64_t, oip_number_u64);
    if (dtype == TENSOR_INT8)
        PUT(int8_t, oip_number_i64);
    if (dtype == TENSOR_INT16)
        PUT(int16_t, oip_number_i64);
    if (dtype == TENSOR_INT32)
        PUT(int32_t, oip_number_i64);
    PUT(int64_t, oip_number_i64);
#undef PUT
}

static size_t put_integers(char *text, enum tensor_dtype dtype, const char *data, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            text[size++] = ',';
        size += put_integer(text + size, dtype, data, i);
    }
    return size;
}

static size_t put_bools(char *text, const char *data, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            text[size++] = ',';
        size_t length = data[i] ? 4 : 5;
        memcpy(text + size, data[i] ? "true" : "false", length);
        size += length;
    }
    return size;
}

/* 0 when one of them is not finite. */
static size_t put_fp32(char *text, const char *data, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, data + i * sizeof value, sizeof value);
        if (!isfinite(value))
            return 0;
        if (i > 0)
            text[size++] = ',';
        size += oip_number_fp32(text + size, value);
    }
    return size;
}

static size_t put_half(char *text, enum tensor_dtype dtype, const char *data, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, data + i * sizeof bits, sizeof bits);
        if (!oip_half_finite(dtype, bits))
            return 0;
        if (i > 0)
            text[size++] = ',';
        size += oip_number_half(text + size, dtype, bits);
    }
    return size;
}

static size_t put_fp64(char *text, const char *data, size_t n)
{
    double values[RUN];
    memcpy(values, data, n * sizeof values[0]);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return 0;
    return oip_numbers_fp64(text, values, n);
}

static int append_numbers(struct buf *body, const struct tensor_view *output, uint64_t elements, struct error *err)
{
    const char *data = output->data;
    size_t bytes = tensor_dtype_bytes(output->dtype);
    for (uint64_t done = 0; done < elements;) {
        if (done > 0)
            buf_append_char(body, ',');
        size_t size, room = (body->capacity_max - body->size) / (OIP_NUMBER_BYTES_MAX + 1);
        size_t n = elements - done < RUN ? (size_t)(elements - done) : RUN;
        if (n > room && room > 0)
            n = room; /* close to the limit in small steps */
        char *text = buf_reserve(body, n * (OIP_NUMBER_BYTES_MAX + 1));
        if (!text)
            return 0; /* sticky: told at the end */
        if (output->dtype == TENSOR_FP32)
            size = put_fp32(text, data, n);
        else if (output->dtype == TENSOR_FP64)
            size = put_fp64(text, data, n);
        else if (output->dtype == TENSOR_FP16 || output->dtype == TENSOR_BF16)
            size = put_half(text, output->dtype, data, n);
        else if (output->dtype == TENSOR_BOOL)
            size = put_bools(text, data, n);
        else
            size = put_integers(text, output->dtype, data, n);
        if (size == 0)
            return error_set(err, ERROR_UNSUPPORTED,
                             "it holds NaN or infinite numbers, which JSON has no form for; ask for it with "
                             "\"parameters\":{\"binary_data\":true}");
        buf_commit(body, size);
        data += n * bytes;
        done += n;
    }
    return 0;
}

/* The view has passed tensor_data_check. */
static int append_strings(struct buf *body, const struct tensor_view *output, uint64_t elements, struct error *err)
{
    const char *data = output->data;
    for (uint64_t i = 0; i < elements && !body->failed; i++) {
        uint32_t size;
        memcpy(&size, data, sizeof size);
        struct str element = {data + sizeof size, size};
        if (!str_is_utf8(element))
            return error_set(err, ERROR_UNSUPPORTED,
                             "its element %llu is not UTF-8, which JSON strings must be; ask for it with "
                             "\"parameters\":{\"binary_data\":true}",
                             (unsigned long long)i);
        if (i > 0)
            buf_append_char(body, ',');
        buf_append_json(body, element);
        data += sizeof size + size;
    }
    return 0;
}

static int append_data(struct buf *body, const struct tensor_view *output, struct error *err)
{
    uint64_t elements;
    int status = tensor_shape_elements(&output->shape, &elements);
    if (status < 0)
        return error_set(err, status, "its shape is not valid");
    append_literal(body, ",\"data\":[");
    status = output->dtype == TENSOR_BYTES ? append_strings(body, output, elements, err)
                                           : append_numbers(body, output, elements, err);
    buf_append_char(body, ']');
    return status;
}

static int append_output(struct buf *body, const struct tensor_view *output, bool binary, struct error *err)
{
    int status = binary ? 0 : tensor_data_check(output->dtype, &output->shape, output->data, output->size, err);
    append_literal(body, "{\"name\":");
    buf_append_json(body, output->name);
    append_literal(body, ",\"datatype\":\"");
    buf_append_text(body, tensor_dtype_name(output->dtype));
    append_literal(body, "\",\"shape\":");
    append_shape(body, &output->shape);
    if (binary) {
        append_literal(body, ",\"parameters\":{\"binary_data_size\":");
        append_count(body, output->size);
        buf_append_char(body, '}');
    } else if (status == 0) {
        status = append_data(body, output, err);
    }
    buf_append_char(body, '}');
    if (status == 0)
        return 0;
    struct str name = oip_name_shown(output->name);
    return error_wrap(err, status, "output \"" STR_FORMAT "\"", STR_ARG(name));
}

static void append_head(struct buf *body, struct str model, struct str version, struct str id)
{
    append_literal(body, "{\"model_name\":");
    buf_append_json(body, model);
    if (version.size > 0) {
        append_literal(body, ",\"model_version\":");
        buf_append_json(body, version);
    }
    if (id.data) {
        append_literal(body, ",\"id\":");
        buf_append_json(body, id);
    }
    append_literal(body, ",\"outputs\":[");
}

int oip_answer_encode(struct str model, struct str version, struct str id, const struct tensor_view *outputs,
                      const bool *binary, uint32_t n_outputs, struct buf *body, size_t *ret_json_size,
                      struct error *err)
{
    size_t start = body->size;
    bool any_binary = false;
    append_head(body, model, version, id);
    for (uint32_t i = 0; i < n_outputs; i++) {
        if (i > 0)
            buf_append_char(body, ',');
        int status = append_output(body, &outputs[i], binary[i], err);
        if (status < 0) {
            body->size = start;
            return status;
        }
        any_binary |= binary[i];
    }
    append_literal(body, "]}");
    size_t json_size = body->size - start;
    for (uint32_t i = 0; i < n_outputs; i++)
        if (binary[i])
            buf_append(body, outputs[i].data, outputs[i].size);
    if (body->failed) {
        body->size = start;
        return error_set(err, body->failed, "The answer needs more than %zu bytes%s.", body->capacity_max,
                         any_binary ? "" : "; ask for binary outputs (binary_data_output)");
    }
    *ret_json_size = any_binary ? json_size : 0;
    return 0;
}

static void append_specs(struct buf *body, const struct tensor_spec *specs, uint32_t n)
{
    buf_append_char(body, '[');
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            buf_append_char(body, ',');
        append_literal(body, "{\"name\":");
        buf_append_json(body, str_from(specs[i].name));
        append_literal(body, ",\"datatype\":\"");
        buf_append_text(body, tensor_dtype_name(specs[i].dtype));
        append_literal(body, "\",\"shape\":");
        append_shape(body, &specs[i].shape);
        buf_append_char(body, '}');
    }
    buf_append_char(body, ']');
}

void oip_metadata_encode(struct str model, const struct str *versions, uint32_t n_versions,
                         const struct tensor_signature *signature, struct buf *body)
{
    append_literal(body, "{\"name\":");
    buf_append_json(body, model);
    append_literal(body, ",\"versions\":[");
    for (uint32_t i = 0; i < n_versions; i++) {
        if (i > 0)
            buf_append_char(body, ',');
        buf_append_json(body, versions[i]);
    }
    append_literal(body, "],\"platform\":");
    buf_append_json(body, str_from(signature->platform));
    append_literal(body, ",\"inputs\":");
    append_specs(body, signature->inputs, signature->n_inputs);
    append_literal(body, ",\"outputs\":");
    append_specs(body, signature->outputs, signature->n_outputs);
    buf_append_char(body, '}');
}
