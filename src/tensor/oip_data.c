/* JSON data arrays into binary form: one pass over yyjson's values, a tight loop for each datatype. */

#include "tensor/oip_internal.h"

#include <math.h>

/* Where a row of numbers goes; moves on with each row. For BYTES the first pass only counts. */
struct sink {
    char *out;
    size_t bytes;
};

/* Converts `n` values that start at `first`; returns how many it took: n, or the index of the first that does not fit.
 * The values of an array lie side by side as long as they are no containers (yyjson.h, unsafe_yyjson_get_next), and
 * containers are never taken. */
typedef size_t (*row_fn)(struct sink *sink, yyjson_val *first, size_t n);

static size_t row_bool(struct sink *sink, yyjson_val *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!unsafe_yyjson_is_bool(first + i))
            return i;
        sink->out[i] = (char)unsafe_yyjson_get_bool(first + i);
    }
    sink->out += n;
    return n;
}

#define ROW_UNSIGNED(name, type, max)                                     \
    static size_t name(struct sink *sink, yyjson_val *first, size_t n)    \
    {                                                                     \
        for (size_t i = 0; i < n; i++) {                                  \
            yyjson_val *v = first + i;                                    \
            uint64_t number = unsafe_yyjson_get_uint(v);                  \
            bool zero = unsafe_yyjson_is_sint(v) && number == 0; /* -0 */ \
            if ((!unsafe_yyjson_is_uint(v) || number > (max)) && !zero)   \
                return i;                                                 \
            type value = (type)number;                                    \
            memcpy(sink->out + i * sizeof value, &value, sizeof value);   \
        }                                                                 \
        sink->out += n * sizeof(type);                                    \
        return n;                                                         \
    }

#define ROW_SIGNED(name, type, min, max)                                       \
    static size_t name(struct sink *sink, yyjson_val *first, size_t n)         \
    {                                                                          \
        for (size_t i = 0; i < n; i++) {                                       \
            yyjson_val *v = first + i;                                         \
            int64_t number = unsafe_yyjson_get_sint(v);                        \
            bool fits = unsafe_yyjson_is_uint(v)   ? (uint64_t)number <= (max) \
                        : unsafe_yyjson_is_sint(v) ? number >= (min)           \
                                                   : false;                    \
            if (!fits)                                                         \
                return i;                                                      \
            type value = (type)number;                                         \
            memcpy(sink->out + i * sizeof value, &value, sizeof value);        \
        }                                                                      \
        sink->out += n * sizeof(type);                                         \
        return n;                                                              \
    }

ROW_UNSIGNED(row_uint8, uint8_t, UINT8_MAX)
ROW_UNSIGNED(row_uint16, uint16_t, UINT16_MAX)
ROW_UNSIGNED(row_uint32, uint32_t, UINT32_MAX)
ROW_UNSIGNED(row_uint64, uint64_t, UINT64_MAX)
ROW_SIGNED(row_int8, int8_t, INT8_MIN, INT8_MAX)
ROW_SIGNED(row_int16, int16_t, INT16_MIN, INT16_MAX)
ROW_SIGNED(row_int32, int32_t, INT32_MIN, INT32_MAX)
ROW_SIGNED(row_int64, int64_t, INT64_MIN, INT64_MAX)

/* An integer too large for 64 bits, or a number beyond FP64: yyjson kept its text. */
static bool raw_number(yyjson_val *v, double *ret_number)
{
    yyjson_val number;
    if (!unsafe_yyjson_is_raw(v) || !yyjson_read_number(unsafe_yyjson_get_raw(v), &number, 0, NULL, NULL))
        return false;
    *ret_number = yyjson_get_num(&number);
    return isfinite(*ret_number);
}

/* Any JSON number; false for what is none or is beyond FP64. */
static bool any_number(yyjson_val *v, double *ret_number)
{
    if (unsafe_yyjson_is_uint(v))
        *ret_number = (double)unsafe_yyjson_get_uint(v);
    else if (unsafe_yyjson_is_sint(v)) /* yyjson reads "-0" as the integer 0 with a sign */
        *ret_number = unsafe_yyjson_get_sint(v) == 0 ? -0.0 : (double)unsafe_yyjson_get_sint(v);
    else
        return raw_number(v, ret_number);
    return true;
}

static size_t row_fp32(struct sink *sink, yyjson_val *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = first + i;
        double number;
        if (unsafe_yyjson_is_real(v))
            number = unsafe_yyjson_get_real(v);
        else if (!any_number(v, &number))
            return i;
        float value = (float)number;
        if (isinf(value))
            return i;
        memcpy(sink->out + i * sizeof value, &value, sizeof value);
    }
    sink->out += n * sizeof(float);
    return n;
}

static size_t row_fp64(struct sink *sink, yyjson_val *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = first + i;
        double number;
        if (unsafe_yyjson_is_real(v))
            number = unsafe_yyjson_get_real(v);
        else if (!any_number(v, &number))
            return i;
        memcpy(sink->out + i * sizeof number, &number, sizeof number);
    }
    sink->out += n * sizeof(double);
    return n;
}

static size_t row_half(struct sink *sink, yyjson_val *first, size_t n, enum tensor_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = first + i;
        double number;
        uint16_t value;
        if (unsafe_yyjson_is_real(v))
            number = unsafe_yyjson_get_real(v);
        else if (!any_number(v, &number))
            return i;
        if (!oip_half_from_fp64(dtype, number, &value))
            return i;
        memcpy(sink->out + i * sizeof value, &value, sizeof value);
    }
    sink->out += n * sizeof(uint16_t);
    return n;
}

static size_t row_fp16(struct sink *sink, yyjson_val *first, size_t n)
{
    return row_half(sink, first, n, TENSOR_FP16);
}

static size_t row_bf16(struct sink *sink, yyjson_val *first, size_t n)
{
    return row_half(sink, first, n, TENSOR_BF16);
}

static size_t row_bytes_count(struct sink *sink, yyjson_val *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!unsafe_yyjson_is_str(first + i) || unsafe_yyjson_get_len(first + i) > UINT32_MAX)
            return i;
        sink->bytes += sizeof(uint32_t) + unsafe_yyjson_get_len(first + i); /* ≤ 3 × the text's own size */
    }
    return n;
}

static size_t row_bytes(struct sink *sink, yyjson_val *first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t size = (uint32_t)unsafe_yyjson_get_len(first + i);
        memcpy(sink->out, &size, sizeof size); /* little-endian, as the only hosts we build for */
        memcpy(sink->out + sizeof size, unsafe_yyjson_get_str(first + i), size);
        sink->out += sizeof size + size;
    }
    return n;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as they lie in memory");

static const struct {
    row_fn row;
    const char *takes; /* for messages */
} rows[TENSOR_DTYPE_COUNT] = {
    [TENSOR_BOOL] = {row_bool, "true or false"},
    [TENSOR_UINT8] = {row_uint8, "integers from 0 to 255"},
    [TENSOR_UINT16] = {row_uint16, "integers from 0 to 65535"},
    [TENSOR_UINT32] = {row_uint32, "integers from 0 to 4294967295"},
    [TENSOR_UINT64] = {row_uint64, "integers from 0 to 18446744073709551615"},
    [TENSOR_INT8] = {row_int8, "integers from -128 to 127"},
    [TENSOR_INT16] = {row_int16, "integers from -32768 to 32767"},
    [TENSOR_INT32] = {row_int32, "integers from -2147483648 to 2147483647"},
    [TENSOR_INT64] = {row_int64, "integers from -9223372036854775808 to 9223372036854775807"},
    [TENSOR_FP16] = {row_fp16, "numbers of magnitude up to 65504"},
    [TENSOR_BF16] = {row_bf16, "numbers of magnitude up to 3.3895314e38"},
    [TENSOR_FP32] = {row_fp32, "numbers of magnitude up to 3.4028235e38"},
    [TENSOR_FP64] = {row_fp64, "numbers of magnitude up to 1.7976931348623157e308"},
    [TENSOR_BYTES] = {row_bytes, "strings"},
};

/* What a value is, for a message. */
static const char *value_text(yyjson_val *v, char *text, size_t capacity)
{
    size_t size = 0;
    if (yyjson_is_uint(v))
        size = oip_number_u64(text, yyjson_get_uint(v));
    else if (yyjson_is_sint(v))
        size = oip_number_i64(text, yyjson_get_sint(v));
    else if (yyjson_is_real(v)) {
        double number = yyjson_get_real(v);
        size = oip_numbers_fp64(text, &number, 1);
    } else if (yyjson_is_raw(v)) {
        struct str raw = {yyjson_get_raw(v), yyjson_get_len(v)};
        size = raw.size < capacity ? raw.size : capacity - 1;
        memcpy(text, raw.data, size);
    } else if (yyjson_is_bool(v))
        return yyjson_get_bool(v) ? "true" : "false";
    else
        return yyjson_is_null(v) ? "null" : yyjson_is_str(v) ? "a string" : yyjson_is_arr(v) ? "an array" : "an object";
    text[size] = '\0';
    return text;
}

struct walk {
    row_fn row;
    const struct tensor_view *view;
    struct sink sink;
    uint64_t done; /* elements converted */
    struct error *err;
};

static int convert_row(struct walk *walk, yyjson_val *array, size_t n)
{
    if (n == 0)
        return 0;
    yyjson_val *first = unsafe_yyjson_get_first(array);
    size_t taken = walk->row(&walk->sink, first, n);
    if (taken == n) {
        walk->done += n;
        return 0;
    }
    char text[OIP_NUMBER_BYTES_MAX + 16];
    unsigned long long element = walk->done + taken;
    return error_set(walk->err, ERROR_INVALID_TENSOR, "element %llu of its data is %s; %s takes %s", element,
                     value_text(first + taken, text, sizeof text), tensor_dtype_name(walk->view->dtype),
                     rows[walk->view->dtype].takes);
}

/* One array of nested data. Recursion ends at the shape's rank. */
static int convert_nested(struct walk *walk, yyjson_val *array, uint32_t axis)
{
    const struct tensor_shape *shape = &walk->view->shape;
    char text[96];
    if (!yyjson_is_arr(array))
        return error_set(walk->err, ERROR_INVALID_TENSOR,
                         "its data is nested %u deep beside element %llu, but the shape %s has %u dimensions", axis,
                         (unsigned long long)walk->done, tensor_shape_text(shape, text, sizeof text), shape->rank);
    size_t n = unsafe_yyjson_get_len(array);
    if (n != (uint64_t)shape->dims[axis])
        return error_set(
            walk->err, ERROR_INVALID_TENSOR,
            "an array at depth %u of its data has %zu entries at element %llu, but the shape %s needs %lld", axis, n,
            (unsigned long long)walk->done, tensor_shape_text(shape, text, sizeof text), (long long)shape->dims[axis]);
    if (axis + 1 == shape->rank)
        return convert_row(walk, array, n);
    yyjson_val *child = n > 0 ? unsafe_yyjson_get_first(array) : NULL;
    for (size_t i = 0; i < n; i++) {
        int status = convert_nested(walk, child, axis + 1);
        if (status < 0)
            return status;
        child = unsafe_yyjson_get_next(child);
    }
    return 0;
}

static int convert(struct walk *walk, yyjson_val *data, bool nested, row_fn row)
{
    walk->row = row;
    walk->done = 0;
    return nested ? convert_nested(walk, data, 0) : convert_row(walk, data, unsafe_yyjson_get_len(data));
}

int oip_data_decode(struct oip_json *json, yyjson_val *data, struct tensor_view *view, struct error *err)
{
    char text[96];
    uint64_t elements;
    row_fn row = rows[view->dtype].row;
    int status = tensor_shape_elements(&view->shape, &elements);
    if (status < 0)
        return error_set(err, status, "the shape %s is not valid", tensor_shape_text(&view->shape, text, sizeof text));

    size_t n = unsafe_yyjson_get_len(data);
    bool nested = n > 0 && view->shape.rank > 0 && yyjson_is_arr(unsafe_yyjson_get_first(data));
    if (!nested && elements != n)
        return error_set(err, ERROR_INVALID_TENSOR, "the shape %s has %llu elements, but its data has %zu",
                         tensor_shape_text(&view->shape, text, sizeof text), (unsigned long long)elements, n);
    if (nested && elements > yyjson_doc_get_val_count(json->doc))
        return error_set(err, ERROR_INVALID_TENSOR, "the shape %s has %llu elements, but its data has fewer",
                         tensor_shape_text(&view->shape, text, sizeof text), (unsigned long long)elements);

    struct walk walk = {.view = view, .err = err};
    size_t size = (size_t)elements * tensor_dtype_bytes(view->dtype); /* elements are bounded by the text just now */
    if (view->dtype == TENSOR_BYTES) {
        status = convert(&walk, data, nested, row_bytes_count);
        if (status < 0)
            return status;
        size = walk.sink.bytes;
    }
    char *out = oip_json_alloc(json, size);
    if (!out)
        return error_set(err, ERROR_NO_MEMORY, "its %zu bytes exceed the memory that one request may take", size);
    walk.sink.out = out;
    status = convert(&walk, data, nested, row);
    if (status < 0)
        return status;
    view->data = out;
    view->size = size;
    return 0;
}
