#include "engine/identity_model.h"

#define DIM_MAX INT32_MAX

struct cursor {
    const char *start, *at, *end;
    struct error *err;
};

static int refuse(const struct cursor *c, const char *expected)
{
    (void)error_set(c->err, ERROR_REFUSED, "identity model, byte %zu: expected %s", (size_t)(c->at - c->start),
                    expected);
    return -ERROR_REFUSED; /* spelled out, so that the compiler sees that outputs are set otherwise */
}

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

/* Takes the character (behind spaces) if it comes next. */
static bool next_is(struct cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

/* A string without escapes, borrowed from the text. */
static int parse_string(struct cursor *c, const char *expected, struct str *ret_string)
{
    if (!next_is(c, '"'))
        return refuse(c, expected);
    const char *first = c->at;
    while (c->at < c->end && *c->at != '"') {
        if ((unsigned char)*c->at < 0x20 || *c->at == '\\')
            return refuse(c, "a string without escapes and control characters");
        c->at++;
    }
    if (c->at == c->end)
        return refuse(c, "a closing quote");
    *ret_string = (struct str){first, (size_t)(c->at - first)};
    c->at++;
    return 0;
}

/* -1 or 1..DIM_MAX. */
static int parse_dim(struct cursor *c, int64_t *ret_dim)
{
    static const char expected[] = "a dimension: -1 or 1 to 2147483647";
    skip_space(c);
    bool negative = c->at < c->end && *c->at == '-';
    struct str digits = {c->at + negative, 0};
    while (digits.data + digits.size < c->end && digits.data[digits.size] >= '0' && digits.data[digits.size] <= '9')
        digits.size++;
    uint64_t value;
    if (digits.size == 0 || digits.data[0] == '0' || str_to_u64(digits, &value) < 0)
        return refuse(c, expected);
    if (negative ? value != 1 : value > DIM_MAX)
        return refuse(c, expected);
    c->at = digits.data + digits.size;
    *ret_dim = negative ? -1 : (int64_t)value;
    return 0;
}

static int parse_shape(struct cursor *c, struct tensor_shape *shape)
{
    if (!next_is(c, '['))
        return refuse(c, "a shape: an array of dimensions");
    shape->rank = 0;
    if (next_is(c, ']'))
        return 0;
    do {
        if (shape->rank == LIMIT_TENSOR_RANK)
            return refuse(c, "at most 8 dimensions");
        int result = parse_dim(c, &shape->dims[shape->rank]);
        if (result < 0)
            return result;
        shape->rank++;
    } while (next_is(c, ','));
    return next_is(c, ']') ? 0 : refuse(c, "',' or ']'");
}

static int parse_name(struct cursor *c, struct tensor_spec *spec)
{
    struct str name;
    int result = parse_string(c, "a name: a string", &name);
    if (result < 0)
        return result;
    if (name.size == 0 || !str_is_utf8(name) || str_copy(name, spec->name, sizeof spec->name) < 0)
        return refuse(c, "a name of 1 to 255 bytes of UTF-8");
    return 0;
}

static int parse_datatype(struct cursor *c, struct tensor_spec *spec)
{
    struct str name;
    int result = parse_string(c, "a datatype: a string", &name);
    if (result < 0)
        return result;
    spec->dtype = tensor_dtype_from_name(name);
    return spec->dtype == TENSOR_INVALID ? refuse(c, "a datatype such as FP32") : 0;
}

static int parse_busy(struct cursor *c, uint64_t *ret_ns)
{
    static const struct {
        struct str unit;
        uint64_t ns;
    } units[] = {{{"us", 2}, 1000}, {{"ms", 2}, 1000000}, {{"s", 1}, 1000000000}};
    static const char expected[] = "a duration of at most 10 s, such as \"250us\", \"1ms\" or \"2s\"";
    struct str text;
    int result = parse_string(c, expected, &text);
    if (result < 0)
        return result;
    size_t digits = 0;
    while (digits < text.size && text.data[digits] >= '0' && text.data[digits] <= '9')
        digits++;
    uint64_t value;
    if (str_to_u64((struct str){text.data, digits}, &value) < 0)
        return refuse(c, expected);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (!str_equal(str_skip(text, digits), units[i].unit) || value > IDENTITY_BUSY_NS_MAX / units[i].ns)
            continue;
        *ret_ns = value * units[i].ns;
        return 0;
    }
    return refuse(c, expected);
}

/* The key of the next member, as an index into keys[n]; marks it in *seen. */
static int parse_key(struct cursor *c, const char *const *keys, size_t n, const char *expected, unsigned *seen)
{
    struct str key;
    int result = parse_string(c, expected, &key);
    if (result < 0)
        return result;
    for (size_t i = 0; i < n; i++) {
        if (!str_equal(key, str_from(keys[i])))
            continue;
        if (*seen & (1u << i))
            return refuse(c, "each member once");
        *seen |= 1u << i;
        return next_is(c, ':') ? (int)i : refuse(c, "':'");
    }
    return refuse(c, expected);
}

static int parse_input(struct cursor *c, struct tensor_spec *spec)
{
    static const char *const keys[] = {"name", "datatype", "shape"};
    unsigned seen = 0;
    if (!next_is(c, '{'))
        return refuse(c, "an input: an object");
    do {
        int key = parse_key(c, keys, 3, "a member \"name\", \"datatype\" or \"shape\"", &seen);
        if (key < 0)
            return key;
        int result = key == 0 ? parse_name(c, spec) : key == 1 ? parse_datatype(c, spec) : parse_shape(c, &spec->shape);
        if (result < 0)
            return result;
    } while (next_is(c, ','));
    if (!next_is(c, '}'))
        return refuse(c, "',' or '}'");
    return seen == 7 ? 0 : refuse(c, "an input with \"name\", \"datatype\" and \"shape\"");
}

static int parse_inputs(struct cursor *c, struct identity_model *model)
{
    if (!next_is(c, '['))
        return refuse(c, "an array of inputs");
    do {
        if (model->n_inputs == LIMIT_TENSORS)
            return refuse(c, "at most 64 inputs");
        struct tensor_spec *spec = &model->inputs[model->n_inputs];
        memset(spec, 0, sizeof *spec);
        int result = parse_input(c, spec);
        if (result < 0)
            return result;
        if (tensor_spec_find(model->inputs, model->n_inputs, str_from(spec->name)) >= 0)
            return refuse(c, "inputs of different names");
        model->n_inputs++;
    } while (next_is(c, ','));
    return next_is(c, ']') ? 0 : refuse(c, "',' or ']'");
}

int identity_model_parse(struct str text, struct tensor_spec *inputs, struct identity_model *ret_model,
                         struct error *err)
{
    static const char *const keys[] = {"inputs", "busy", "busyPerRow"};
    struct cursor c = {text.data, text.data, text.data + text.size, err};
    struct identity_model model = {.inputs = inputs};
    unsigned seen = 0;
    if (text.size > IDENTITY_MODEL_BYTES_MAX)
        return error_set(err, ERROR_REFUSED, "identity model: larger than %zu bytes", IDENTITY_MODEL_BYTES_MAX);
    if (!next_is(&c, '{'))
        return refuse(&c, "a JSON object");
    do {
        int key = parse_key(&c, keys, 3, "a member \"inputs\", \"busy\" or \"busyPerRow\"", &seen);
        if (key < 0)
            return key;
        int result = key == 0   ? parse_inputs(&c, &model)
                     : key == 1 ? parse_busy(&c, &model.busy_ns)
                                : parse_busy(&c, &model.busy_per_row_ns);
        if (result < 0)
            return result;
    } while (next_is(&c, ','));
    if (!next_is(&c, '}'))
        return refuse(&c, "',' or '}'");
    skip_space(&c);
    if (c.at != c.end)
        return refuse(&c, "nothing behind the object");
    if (!(seen & 1u))
        return refuse(&c, "a member \"inputs\"");
    *ret_model = model;
    return 0;
}
