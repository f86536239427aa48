/* Writes small ONNX models for tests, straight as protobuf: no Python, no files.
 *
 *   struct pb graph = {0}, model = {0};
 *   onnx_node(&graph, "Add", "a,b", "y", NULL);
 *   onnx_value(&graph, ONNX_INPUT, "a", ONNX_FLOAT, "N,2"); ...
 *   onnx_model(&model, &graph, 17);
 *
 * A message is moved into its parent by pb_message, which leaves it empty. Shapes are text: "N,2" is a named and a
 * fixed dimension, "?" an unnamed dynamic one, "" a scalar, NULL no shape at all. Aborts when memory is out. */
#ifndef BULKHEAD_TEST_UNIT_ENGINE_ONNX_BUILDER_H
#define BULKHEAD_TEST_UNIT_ENGINE_ONNX_BUILDER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct pb {
    uint8_t *data;
    size_t size;
};

enum onnx_type {
    ONNX_FLOAT = 1,
    ONNX_UINT8 = 2,
    ONNX_INT8 = 3,
    ONNX_UINT16 = 4,
    ONNX_INT16 = 5,
    ONNX_INT32 = 6,
    ONNX_INT64 = 7,
    ONNX_STRING = 8,
    ONNX_BOOL = 9,
    ONNX_FLOAT16 = 10,
    ONNX_DOUBLE = 11,
    ONNX_UINT32 = 12,
    ONNX_UINT64 = 13,
    ONNX_COMPLEX64 = 14,
    ONNX_BFLOAT16 = 16,
};

enum onnx_graph_field { ONNX_NODE = 1, ONNX_INITIALIZER = 5, ONNX_INPUT = 11, ONNX_OUTPUT = 12, ONNX_SPARSE = 15 };

static inline void pb_raw(struct pb *p, const void *data, size_t size)
{
    uint8_t *grown = realloc(p->data, p->size + size + 1);
    if (!grown)
        abort();
    if (size > 0)
        memcpy(grown + p->size, data, size);
    p->data = grown;
    p->size += size;
}

static inline void pb_varint(struct pb *p, uint64_t value)
{
    do {
        uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        pb_raw(p, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static inline void pb_int(struct pb *p, unsigned field, int64_t value)
{
    pb_varint(p, (uint64_t)field << 3);
    pb_varint(p, (uint64_t)value);
}

static inline void pb_bytes(struct pb *p, unsigned field, const void *data, size_t size)
{
    pb_varint(p, (uint64_t)field << 3 | 2);
    pb_varint(p, size);
    pb_raw(p, data, size);
}

static inline void pb_text(struct pb *p, unsigned field, const char *text)
{
    pb_bytes(p, field, text, strlen(text));
}

static inline void pb_free(struct pb *p)
{
    free(p->data);
    *p = (struct pb){0};
}

/* Moves `child` into a field of p. */
static inline void pb_message(struct pb *p, unsigned field, struct pb *child)
{
    pb_bytes(p, field, child->data, child->size);
    pb_free(child);
}

/* For each comma-separated part of `list`: a text field. */
static inline void pb_list(struct pb *p, unsigned field, const char *list)
{
    while (*list) {
        size_t size = strcspn(list, ",");
        pb_bytes(p, field, list, size);
        list += size + (list[size] == ',');
    }
}

static inline void onnx_shape(struct pb *tensor_type, const char *dims)
{
    struct pb shape = {0};
    while (*dims) {
        struct pb dim = {0};
        size_t size = strcspn(dims, ",");
        if (*dims == '-' || (*dims >= '0' && *dims <= '9'))
            pb_int(&dim, 1, strtoll(dims, NULL, 10));
        else if (*dims != '?')
            pb_bytes(&dim, 2, dims, size);
        pb_message(&shape, 1, &dim);
        dims += size + (dims[size] == ',');
    }
    pb_message(tensor_type, 2, &shape);
}

/* A graph's input or output with a TypeProto of the caller's making, which is moved. */
static inline void onnx_value_typed(struct pb *graph, enum onnx_graph_field field, const char *name, struct pb *type)
{
    struct pb value = {0};
    pb_text(&value, 1, name);
    pb_message(&value, 2, type);
    pb_message(graph, field, &value);
}

static inline void onnx_value(struct pb *graph, enum onnx_graph_field field, const char *name, enum onnx_type type,
                              const char *dims)
{
    struct pb tensor = {0}, outer = {0};
    pb_int(&tensor, 1, type);
    if (dims)
        onnx_shape(&tensor, dims);
    pb_message(&outer, 1, &tensor);
    onnx_value_typed(graph, field, name, &outer);
}

/* `attributes` holds ready AttributeProto fields (number 5) and is moved; may be NULL. `domain` too. */
static inline void onnx_node_of(struct pb *graph, const char *domain, const char *op, const char *inputs,
                                const char *outputs, struct pb *attributes)
{
    struct pb node = {0};
    pb_list(&node, 1, inputs);
    pb_list(&node, 2, outputs);
    pb_text(&node, 4, op);
    if (domain)
        pb_text(&node, 7, domain);
    if (attributes) {
        pb_raw(&node, attributes->data, attributes->size);
        pb_free(attributes);
    }
    pb_message(graph, ONNX_NODE, &node);
}

static inline void onnx_node(struct pb *graph, const char *op, const char *inputs, const char *outputs,
                             struct pb *attributes)
{
    onnx_node_of(graph, NULL, op, inputs, outputs, attributes);
}

static inline void onnx_attribute_int(struct pb *attributes, const char *name, int64_t value)
{
    struct pb attribute = {0};
    pb_text(&attribute, 1, name);
    pb_int(&attribute, 3, value);
    pb_int(&attribute, 20, 2);
    pb_message(attributes, 5, &attribute);
}

static inline void onnx_attribute_message(struct pb *attributes, const char *name, unsigned field, int type,
                                          struct pb *message)
{
    struct pb attribute = {0};
    pb_text(&attribute, 1, name);
    pb_message(&attribute, field, message);
    pb_int(&attribute, 20, type);
    pb_message(attributes, 5, &attribute);
}

static inline void onnx_attribute_graph(struct pb *attributes, const char *name, struct pb *graph)
{
    onnx_attribute_message(attributes, name, 6, 5, graph);
}

static inline void onnx_attribute_tensor(struct pb *attributes, const char *name, struct pb *tensor)
{
    onnx_attribute_message(attributes, name, 5, 4, tensor);
}

/* dims as fixed numbers; raw little-endian data. */
static inline void onnx_tensor(struct pb *tensor, const char *name, enum onnx_type type, const char *dims,
                               const void *data, size_t size)
{
    while (*dims) {
        size_t length = strcspn(dims, ",");
        pb_int(tensor, 1, strtoll(dims, NULL, 10));
        dims += length + (dims[length] == ',');
    }
    pb_int(tensor, 2, type);
    pb_text(tensor, 8, name);
    pb_bytes(tensor, 9, data, size);
}

static inline void onnx_initializer(struct pb *graph, const char *name, enum onnx_type type, const char *dims,
                                    const void *data, size_t size)
{
    struct pb tensor = {0};
    onnx_tensor(&tensor, name, type, dims, data, size);
    pb_message(graph, ONNX_INITIALIZER, &tensor);
}

static inline void onnx_opset(struct pb *model, const char *domain, int version)
{
    struct pb opset = {0};
    pb_text(&opset, 1, domain);
    pb_int(&opset, 2, version);
    pb_message(model, 8, &opset);
}

/* IR version 8; the graph gets a name and is moved. */
static inline void onnx_model(struct pb *model, struct pb *graph, int opset)
{
    pb_int(model, 1, 8);
    onnx_opset(model, "", opset);
    pb_text(graph, 2, "test");
    pb_message(model, 7, graph);
}

#endif
