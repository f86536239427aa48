#include "engine/onnx_scan.h"

#include "engine/onnx_error.h"

enum message {
    OTHER = 0, /* skipped unread */
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    SPARSE_TENSOR,
    FUNCTION,
    TRAINING,
    MESSAGE_COUNT
};

#define FIELDS 32u /* field numbers looked at are smaller */

/* Where tensors can be: message × field number → the message in that field. */
static const uint8_t children[MESSAGE_COUNT][FIELDS] = {
    [MODEL] = {[7] = GRAPH, [20] = TRAINING, [25] = FUNCTION},
    [TRAINING] = {[1] = GRAPH, [2] = GRAPH},
    [GRAPH] = {[1] = NODE, [5] = TENSOR, [15] = SPARSE_TENSOR},
    [FUNCTION] = {[7] = NODE, [11] = ATTRIBUTE},
    [NODE] = {[5] = ATTRIBUTE},
    [ATTRIBUTE] = {[5] = TENSOR, [6] = GRAPH, [10] = TENSOR, [11] = GRAPH, [22] = SPARSE_TENSOR, [23] = SPARSE_TENSOR},
    [SPARSE_TENSOR] = {[1] = TENSOR, [2] = TENSOR},
};

enum tensor_field { TENSOR_NAME = 8, TENSOR_EXTERNAL_DATA = 13, TENSOR_DATA_LOCATION = 14 };

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number;
    uint32_t wire;
    uint64_t value;  /* WIRE_VARINT */
    struct str body; /* WIRE_BYTES */
};

static int take_varint(struct str *s, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s->size && i < 10; i++) {
        uint8_t byte = (uint8_t)s->data[i];
        value |=
            (uint64_t)(byte & 0x7f) << (7 * i); /* at i = 9 only one bit is left; more are cut off, as protobuf does */
        if (byte & 0x80)
            continue;
        *s = str_skip(*s, i + 1);
        *ret_value = value;
        return 0;
    }
    return -ERROR_REFUSED;
}

/* Takes one field from the front of a message: 1, 0 at its end, negative when malformed. Groups are malformed: ONNX
 * has none. */
static int take_field(struct str *s, struct field *f)
{
    uint64_t tag, size = 0;
    if (s->size == 0)
        return 0;
    if (take_varint(s, &tag) < 0 || tag > UINT32_MAX || tag >> 3 == 0)
        return -ERROR_REFUSED;
    *f = (struct field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
    switch (f->wire) {
    case WIRE_VARINT:
        return take_varint(s, &f->value) < 0 ? -ERROR_REFUSED : 1;
    case WIRE_FIXED64:
        size = 8;
        break;
    case WIRE_FIXED32:
        size = 4;
        break;
    case WIRE_BYTES:
        if (take_varint(s, &size) < 0)
            return -ERROR_REFUSED;
        break;
    default:
        return -ERROR_REFUSED;
    }
    if (size > s->size)
        return -ERROR_REFUSED;
    f->body = (struct str){s->data, (size_t)size};
    *s = str_skip(*s, (size_t)size);
    return 1;
}

static int refuse_malformed(struct error *err)
{
    return error_set(err, ERROR_REFUSED, "the model is not a well-formed ONNX file");
}

static int refuse_external(struct str tensor, struct error *err)
{
    char name[64] = "";
    struct field f;
    while (take_field(&tensor, &f) > 0)
        if (f.number == TENSOR_NAME && f.wire == WIRE_BYTES)
            onnx_text_clean(f.body, name, sizeof name);
    return error_set(err, ERROR_REFUSED,
                     "tensor '%s' keeps its data in another file (external data); a model must be a single file: "
                     "save it again without external data",
                     name);
}

static int scan_tensor(struct str tensor, struct error *err)
{
    struct str rest = tensor;
    struct field f;
    int more;
    while ((more = take_field(&rest, &f)) > 0)
        /* Whatever its wire type or value: a lenient parser must not see what we do not. */
        if (f.number == TENSOR_EXTERNAL_DATA ||
            (f.number == TENSOR_DATA_LOCATION && (f.wire != WIRE_VARINT || f.value)))
            return refuse_external(tensor, err);
    return more < 0 ? refuse_malformed(err) : 0;
}

static int scan_message(struct str body, enum message message, unsigned depth, struct error *err)
{
    struct field f;
    int more;
    if (message == TENSOR)
        return scan_tensor(body, err);
    if (depth == ONNX_SCAN_DEPTH_MAX)
        return error_set(err, ERROR_REFUSED, "the model nests its graphs too deeply");
    while ((more = take_field(&body, &f)) > 0) {
        enum message child = f.number < FIELDS ? (enum message)children[message][f.number] : OTHER;
        if (child == OTHER)
            continue;
        if (f.wire != WIRE_BYTES)
            return refuse_malformed(err);
        int result = scan_message(f.body, child, depth + 1, err);
        if (result < 0)
            return result;
    }
    return more < 0 ? refuse_malformed(err) : 0;
}

int onnx_scan(struct str model, struct error *err)
{
    static const struct str ort_format = {"ORTM", 4}; /* a FlatBuffers file identifier, at byte 4 */
    if (model.size == 0)
        return error_set(err, ERROR_REFUSED, "the model file is empty");
    if (model.size > ONNX_MODEL_BYTES_MAX)
        return error_set(err, ERROR_REFUSED, "the model is larger than the 2 GiB that an ONNX file can hold");
    if (model.size >= 8 && str_starts(str_skip(model, 4), ort_format))
        return error_set(err, ERROR_REFUSED, "the model is in ONNX Runtime's own format; give the .onnx file instead");
    return scan_message(model, MODEL, 0, err);
}

/* The last field of that number in a message; false when there is none. */
static bool find_field(struct str body, uint32_t number, struct str *ret_body)
{
    struct field f;
    bool found = false;
    while (take_field(&body, &f) > 0) {
        if (f.number != number || f.wire != WIRE_BYTES)
            continue;
        *ret_body = f.body;
        found = true;
    }
    return found;
}

bool onnx_scan_declares_shape(struct str model, struct str name, bool output)
{
    enum { MODEL_GRAPH = 7, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
    enum { VALUE_NAME = 1, VALUE_TYPE = 2, TYPE_TENSOR = 1, TENSOR_SHAPE = 2 };
    struct str graph, value_name, type, tensor, shape;
    struct field f;
    if (!find_field(model, MODEL_GRAPH, &graph))
        return false;
    while (take_field(&graph, &f) > 0) {
        if (f.number != (output ? GRAPH_OUTPUT : GRAPH_INPUT) || f.wire != WIRE_BYTES)
            continue;
        if (find_field(f.body, VALUE_NAME, &value_name) && str_equal(value_name, name))
            return find_field(f.body, VALUE_TYPE, &type) && find_field(type, TYPE_TENSOR, &tensor) &&
                   find_field(tensor, TENSOR_SHAPE, &shape);
    }
    return false;
}
