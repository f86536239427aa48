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

struct scan {
    const struct bundle *folder; /* NULL: there is none */
    struct error *err;
};

/* What a tensor says of where its data lies. */
struct external {
    struct str name;     /* of the tensor */
    struct str location; /* data NULL: not told */
    uint64_t offset, length;
    bool has_offset, has_length;
    bool named;   /* it has the field at all */
    bool located; /* data_location says external, and nothing else */
    bool odd;     /* something that an exporter does not write: a lenient parser must not see what we do not */
};

enum entry_field { ENTRY_KEY = 1, ENTRY_VALUE = 2 };

static void external_entry(struct external *e, struct str entry)
{
    struct str key = {NULL, 0}, value = {NULL, 0};
    struct field f;
    int more;
    while ((more = take_field(&entry, &f)) > 0) {
        struct str *part = f.number == ENTRY_KEY ? &key : f.number == ENTRY_VALUE ? &value : NULL;
        e->odd = e->odd || !part || part->data || f.wire != WIRE_BYTES;
        if (part)
            *part = f.body;
    }
    e->odd = e->odd || more < 0 || !key.data || !value.data;
    if (e->odd)
        return;
    if (str_equal(key, STR("location"))) {
        e->odd = e->location.data != NULL;
        e->location = value;
    } else if (str_equal(key, STR("offset"))) {
        e->odd = e->has_offset || str_to_u64(value, &e->offset) < 0;
        e->has_offset = true;
    } else if (str_equal(key, STR("length"))) {
        e->odd = e->has_length || str_to_u64(value, &e->length) < 0;
        e->has_length = true;
    } else if (!str_equal(key, STR("checksum"))) {
        e->odd = true;
    }
}

static int refuse_external(const struct scan *s, const struct external *e, const char *why)
{
    char name[64], location[128];
    onnx_text_clean(e->name, name, sizeof name);
    size_t size = e->location.size < sizeof location ? e->location.size : sizeof location - 1;
    for (size_t i = 0; i < size; i++) /* as it stands in the model, even where it looks like a path of ours */
        location[i] = e->location.data[i] >= ' ' && e->location.data[i] <= '~' ? e->location.data[i] : '?';
    location[size] = '\0';
    return error_set(s->err, ERROR_REFUSED, "tensor '%s' keeps its data in another file (external data), '%s': %s",
                     name, location, why);
}

static int external_check(const struct scan *s, const struct external *e, bool initializer)
{
    struct str file;
    if (!s->folder)
        return refuse_external(s, e,
                               "give the folder that holds both as spec.source, or save the model as a single file");
    if (e->odd || !e->located || !e->location.data)
        return refuse_external(s, e, "what it says of that is not well-formed; save the model again");
    if (!initializer)
        return refuse_external(s, e,
                               "only initializers of the main graph may; save the model again with that one inside");
    if (e->location.size > 0 && e->location.data[0] == '/')
        return refuse_external(s, e, "an absolute path; it must name a file of the model's own folder");
    /* With a '*' the library means memory at an address. */
    if (!bundle_name_valid(e->location) || memchr(e->location.data, '*', e->location.size))
        return refuse_external(s, e, "no plain name of a file inside the model's own folder");
    if (!bundle_find(s->folder, e->location, &file))
        return refuse_external(s, e, "there is no such file in the model's folder");
    if (e->offset > file.size || (e->has_length && e->length > file.size - e->offset))
        return refuse_external(s, e, "that file is shorter than the tensor needs");
    return 0;
}

static int scan_tensor(const struct scan *s, struct str tensor, bool initializer)
{
    struct external e = {.name = {"", 0}};
    struct field f;
    int more;
    while ((more = take_field(&tensor, &f)) > 0) {
        if (f.number == TENSOR_NAME && f.wire == WIRE_BYTES) {
            e.name = f.body;
        } else if (f.number == TENSOR_EXTERNAL_DATA) {
            e.named = true;
            e.odd = e.odd || f.wire != WIRE_BYTES;
            if (f.wire == WIRE_BYTES)
                external_entry(&e, f.body);
        } else if (f.number == TENSOR_DATA_LOCATION && (f.wire != WIRE_VARINT || f.value)) {
            e.named = e.located = true;
            e.odd = e.odd || f.wire != WIRE_VARINT || f.value != 1;
        } else if (f.number == TENSOR_DATA_LOCATION) {
            e.odd = true; /* inside: fine, unless it also says external */
        }
    }
    if (more < 0)
        return refuse_malformed(s->err);
    return e.named ? external_check(s, &e, initializer) : 0;
}

static int scan_message(const struct scan *s, struct str body, enum message message, unsigned depth)
{
    struct field f;
    int more;
    if (depth == ONNX_SCAN_DEPTH_MAX)
        return error_set(s->err, ERROR_REFUSED, "the model nests its graphs too deeply");
    while ((more = take_field(&body, &f)) > 0) {
        enum message child = f.number < FIELDS ? (enum message)children[message][f.number] : OTHER;
        if (child == OTHER)
            continue;
        if (f.wire != WIRE_BYTES)
            return refuse_malformed(s->err);
        /* depth 1 is the main graph, or a training or function body, which is no GRAPH at that depth */
        int result = child == TENSOR ? scan_tensor(s, f.body, message == GRAPH && depth == 1)
                                     : scan_message(s, f.body, child, depth + 1);
        if (result < 0)
            return result;
    }
    return more < 0 ? refuse_malformed(s->err) : 0;
}

int onnx_scan(struct str model, const struct bundle *folder, struct error *err)
{
    static const struct str ort_format = {"ORTM", 4}; /* a FlatBuffers file identifier, at byte 4 */
    if (model.size == 0)
        return error_set(err, ERROR_REFUSED, "the model file is empty");
    if (model.size > ONNX_MODEL_BYTES_MAX)
        return error_set(err, ERROR_REFUSED, "the model is larger than the 2 GiB that an ONNX file can hold");
    if (model.size >= 8 && str_starts(str_skip(model, 4), ort_format))
        return error_set(err, ERROR_REFUSED, "the model is in ONNX Runtime's own format; give the .onnx file instead");
    const struct scan scan = {folder, err};
    return scan_message(&scan, model, MODEL, 0);
}

int onnx_scan_folder(const struct bundle *folder, struct str *ret_model, struct error *err)
{
    uint32_t found = 0;
    if (bundle_find(folder, STR("model.onnx"), ret_model))
        return 0;
    for (uint32_t i = 0; i < folder->n_files; i++) {
        struct str name, content, end = STR(".onnx");
        bundle_at(folder, i, &name, &content);
        if (name.size <= end.size || memchr(name.data, '/', name.size) ||
            !str_equal(str_skip(name, name.size - end.size), end))
            continue;
        found++;
        *ret_model = content;
    }
    if (found == 1)
        return 0;
    return error_set(err, ERROR_REFUSED,
                     found == 0 ? "the folder has no file whose name ends in .onnx"
                                : "the folder has several files whose names end in .onnx; call the model model.onnx");
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
