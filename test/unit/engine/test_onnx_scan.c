/* The scan of ONNX files: finds external data wherever a tensor can be, and gets over anything else. */
#include "engine/onnx_scan.h"
#include "onnx_builder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int scan(const void *data, size_t size, struct error *err)
{
    /* On the heap at its exact size, so that ASan sees a read beyond it. */
    char *copy = malloc(size + (size == 0));
    assert_non_null(copy);
    if (size > 0)
        memcpy(copy, data, size);
    memset(err, 0, sizeof *err);
    int result = onnx_scan((struct str){copy, size}, NULL, err);
    free(copy);
    return result;
}

enum external { NONE, DATA_ONLY, LOCATION_ONLY, LOCATION_ODD, LOCATION_MISTYPED, BOTH, EXTERNAL_COUNT };

static struct pb tensor(enum external external)
{
    struct pb t = {0}, entry = {0};
    onnx_tensor(&t, "weights", ONNX_FLOAT, "1", "\0\0\0\0", 4);
    if (external == DATA_ONLY || external == BOTH) {
        pb_text(&entry, 1, "location");
        pb_text(&entry, 2, "weights.bin");
        pb_message(&t, 13, &entry);
    }
    if (external == LOCATION_ONLY || external == BOTH)
        pb_int(&t, 14, 1);
    if (external == LOCATION_ODD) /* a parser that cuts it to 32 bits sees EXTERNAL */
        pb_int(&t, 14, INT64_C(0x100000001));
    if (external == LOCATION_MISTYPED)
        pb_text(&t, 14, "\1");
    return t;
}

/* A model with one tensor, at place `place`; false past the last place. */
static bool model_with_tensor(struct pb *model, int place, enum external external)
{
    struct pb t = tensor(external), graph = {0}, inner = {0}, attributes = {0}, message = {0};
    switch (place) {
    case 0: /* an initializer */
        pb_message(&graph, ONNX_INITIALIZER, &t);
        break;
    case 1: /* a Constant node */
        onnx_attribute_tensor(&attributes, "value", &t);
        onnx_node(&graph, "Constant", "", "c", &attributes);
        break;
    case 2: /* an attribute that is a list of tensors */
        onnx_attribute_message(&attributes, "values", 10, 9, &t);
        onnx_node(&graph, "Odd", "", "c", &attributes);
        break;
    case 3: /* in the body of an If */
        pb_message(&inner, ONNX_INITIALIZER, &t);
        onnx_attribute_graph(&attributes, "then_branch", &inner);
        onnx_node(&graph, "If", "c", "y", &attributes);
        break;
    case 4: /* in one of a list of graphs */
        pb_message(&inner, ONNX_INITIALIZER, &t);
        onnx_attribute_message(&attributes, "graphs", 11, 10, &inner);
        onnx_node(&graph, "Odd", "c", "y", &attributes);
        break;
    case 5: /* the values of a sparse initializer */
    case 6: /* its indices */
        pb_message(&message, place == 5 ? 1 : 2, &t);
        pb_message(&graph, ONNX_SPARSE, &message);
        break;
    case 7: /* a sparse tensor in an attribute */
    case 8: /* and in a list of them */
        pb_message(&message, 1, &t);
        onnx_attribute_message(&attributes, "sparse", place == 7 ? 22 : 23, place == 7 ? 11 : 12, &message);
        onnx_node(&graph, "Constant", "", "c", &attributes);
        break;
    case 9: /* in a function's node: onnx_node writes field 1, a function's nodes are field 7 */
        onnx_attribute_tensor(&attributes, "value", &t);
        pb_message(&message, 7, &attributes);
        pb_message(model, 25, &message);
        break;
    case 10: /* the default of a function's attribute */
        pb_message(&inner, 5, &t);
        pb_message(&message, 11, &inner);
        pb_message(model, 25, &message);
        break;
    case 11: /* in a graph for training */
        pb_message(&inner, ONNX_INITIALIZER, &t);
        pb_message(&message, 1, &inner);
        pb_message(model, 20, &message);
        break;
    case 12: /* in a second graph field, which parsers merge into the first */
        pb_message(&inner, ONNX_INITIALIZER, &t);
        pb_message(model, 7, &inner);
        break;
    default:
        pb_free(&t);
        return false;
    }
    onnx_model(model, &graph, 17);
    return true;
}

static void test_finds_external_data(void **state)
{
    (void)state;
    int places = 0;
    for (;; places++)
        for (enum external external = NONE; external < EXTERNAL_COUNT; external++) {
            struct pb model = {0};
            struct error err;
            if (!model_with_tensor(&model, places, external)) {
                assert_int_equal(places, 13);
                return;
            }
            int result = scan(model.data, model.size, &err);
            pb_free(&model);
            if (result != (external == NONE ? 0 : -ERROR_REFUSED))
                fail_msg("place %d, kind %d: %d %s", places, (int)external, result, err.text);
            if (external != NONE) {
                assert_non_null(strstr(err.text, "external data"));
                assert_non_null(strstr(err.text, "'weights'"));
            }
        }
}

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"\x3a", 1},                                              /* a graph without a length */
        {"\x3a\x05\x01", 3},                                      /* a graph cut off */
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* of 2^64 - 1 bytes */
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* a varint of 11 bytes */
        {"\x38\x01", 2},                                          /* a graph that is a number */
        {"\x08", 1},                                              /* a number without a value */
        {"\x0b\x0c", 2},                                          /* a group */
        {"\x02\x00", 2},                                          /* field number 0 */
        {"\x0f\x00", 2},                                          /* wire type 7 */
        {"\x09\x00\x00\x00\x00\x00\x00\x00", 8},                  /* a fixed64 cut off */
        {"\x0d\x00\x00\x00", 4},                                  /* a fixed32 cut off */
        {"\x88\x80\x80\x80\x80\x01\x00", 7},                      /* a tag above 32 bits */
        {"hello, world", 12},
    };
    struct error err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (scan(cases[i].bytes, cases[i].size, &err) != -ERROR_REFUSED || !strstr(err.text, "well-formed"))
            fail_msg("case %zu: %s", i, err.text);
    assert_int_equal(scan("", 0, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "empty"));
    assert_int_equal(scan("\x08\x08\x12\x04ORTM", 8, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "own format"));
    /* What it does not know it skips. */
    assert_int_equal(scan("\x09\0\0\0\0\0\0\0\0\x0d\0\0\0\0\x9a\x3f\x01x", 18, &err), 0);
}

static void test_size_limit(void **state)
{
    (void)state;
    struct error err;
    /* Refused by its size alone: nothing is read. */
    assert_int_equal(onnx_scan((struct str){"x", ONNX_MODEL_BYTES_MAX + 1}, NULL, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "2 GiB"));
}

/* `levels` nested subgraphs, three messages each, the innermost empty. */
static struct pb nested(unsigned levels)
{
    struct pb graph = {0}, model = {0};
    for (unsigned i = 0; i < levels; i++) {
        struct pb outer = {0}, attributes = {0};
        onnx_attribute_graph(&attributes, "body", &graph);
        onnx_node(&outer, "Loop", "a", "b", &attributes);
        graph = outer;
    }
    onnx_model(&model, &graph, 17);
    return model;
}

static void test_depth_limit(void **state)
{
    (void)state;
    /* model and main graph are 2 messages; the innermost message may be number ONNX_SCAN_DEPTH_MAX. */
    const unsigned levels_max = (ONNX_SCAN_DEPTH_MAX - 2) / 3;
    struct error err;
    for (unsigned levels = levels_max - 1; levels <= levels_max + 1; levels++) {
        struct pb model = nested(levels);
        assert_int_equal(scan(model.data, model.size, &err), levels <= levels_max ? 0 : -ERROR_REFUSED);
        if (levels > levels_max)
            assert_non_null(strstr(err.text, "too deeply"));
        pb_free(&model);
    }
    struct pb model = nested(2000);
    assert_int_equal(scan(model.data, model.size, &err), -ERROR_REFUSED);
    pb_free(&model);
}

static void test_truncated(void **state)
{
    (void)state;
    struct pb model = {0};
    struct error err;
    assert_true(model_with_tensor(&model, 3, NONE));
    for (size_t size = 0; size < model.size; size++)
        (void)scan(model.data, size, &err); /* a cut at a field's end is well-formed; ASan watches the rest */
    for (size_t i = 0; i < model.size * 8; i++) {
        model.data[i / 8] ^= (uint8_t)(1u << (i % 8));
        (void)scan(model.data, model.size, &err); /* as above */
        model.data[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    pb_free(&model);
}

static void test_declares_shape(void **state)
{
    (void)state;
    struct pb graph = {0}, model = {0}, type = {0};
    onnx_value(&graph, ONNX_INPUT, "scalar", ONNX_FLOAT, "");
    onnx_value(&graph, ONNX_OUTPUT, "none", ONNX_FLOAT, NULL);
    onnx_value(&graph, ONNX_OUTPUT, "some", ONNX_FLOAT, "N,2");
    onnx_value_typed(&graph, ONNX_OUTPUT, "untyped", &type);
    onnx_model(&model, &graph, 17);
    struct str file = {(const char *)model.data, model.size};
    assert_true(onnx_scan_declares_shape(file, STR("scalar"), false));
    assert_false(onnx_scan_declares_shape(file, STR("scalar"), true));
    assert_false(onnx_scan_declares_shape(file, STR("none"), true));
    assert_true(onnx_scan_declares_shape(file, STR("some"), true));
    assert_false(onnx_scan_declares_shape(file, STR("untyped"), true));
    assert_false(onnx_scan_declares_shape(file, STR("absent"), true));
    assert_false(onnx_scan_declares_shape(STR("x"), STR("absent"), true));
    pb_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_external_data), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_size_limit),          cmocka_unit_test(test_depth_limit),
        cmocka_unit_test(test_truncated),           cmocka_unit_test(test_declares_shape),
    };
    return cmocka_run_group_tests_name("onnx_scan", tests, NULL, NULL);
}
