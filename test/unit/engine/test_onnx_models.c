/* The onnx engine on models that it takes: datatypes, strings, signatures, the batch axis, outputs that break their
 * word. Models are written here (onnx_builder.h). */
#include "engine_fixture.h"
#include "onnx_builder.h"

static struct engine *open_graph(struct pb *graph)
{
    struct pb model = {0};
    onnx_model(&model, graph, 17);
    struct engine *e = fixture_must_open(&engine_onnx, model.data, model.size);
    pb_free(&model); /* the engine keeps nothing of it: ASan watches */
    return e;
}

/* y = x of that type and shape, one node. */
static struct engine *open_identity(enum onnx_type type, const char *in_dims, const char *out_dims)
{
    struct pb graph = {0};
    onnx_node(&graph, "Identity", "x", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", type, in_dims);
    onnx_value(&graph, ONNX_OUTPUT, "y", type, out_dims);
    return open_graph(&graph);
}

static void test_adds_rows_of_a_batch(void **state)
{
    (void)state;
    struct pb graph = {0};
    onnx_node(&graph, "Add", "a,b", "sum", NULL);
    onnx_node(&graph, "Mul", "a,b", "product", NULL);
    onnx_value(&graph, ONNX_INPUT, "a", ONNX_FLOAT, "N,2");
    onnx_value(&graph, ONNX_INPUT, "b", ONNX_FLOAT, "N,2");
    onnx_value(&graph, ONNX_OUTPUT, "sum", ONNX_FLOAT, "N,2");
    onnx_value(&graph, ONNX_OUTPUT, "product", ONNX_FLOAT, "N,2");
    struct engine *e = open_graph(&graph);
    static const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {10, 20, 30, 40, 50, 60};
    static const float sum[] = {11, 22, 33, 44, 55, 66}, product[] = {10, 40, 90, 160, 250, 360};
    struct tensor_view inputs[2] = {fixture_view(TENSOR_FP32, 2, (int64_t[]){3, 2}, a, sizeof a),
                                    fixture_view(TENSOR_FP32, 2, (int64_t[]){3, 2}, b, sizeof b)};
    struct fixture_sink seen = {0};
    struct error err;
    assert_int_equal(fixture_run(e, inputs, 2, 3, 3, &seen, &err), 1);
    assert_memory_equal(seen.outputs[0].data, sum, sizeof sum);
    assert_memory_equal(seen.outputs[1].data, product, sizeof product);
    assert_memory_equal(inputs[0].data, a, sizeof a);
    fixture_sink_done(&seen);
    /* Rows change from batch to batch. */
    inputs[0].shape.dims[0] = inputs[1].shape.dims[0] = 1;
    inputs[0].size = inputs[1].size = 8;
    assert_int_equal(fixture_run(e, inputs, 2, 1, 2, &seen, &err), 1);
    assert_int_equal(seen.given, 2);
    assert_int_equal(seen.outputs[1].size, 8);
    assert_memory_equal(seen.outputs[1].data, product, 8);
    fixture_sink_done(&seen);
    fixture_view_free(&inputs[0]);
    fixture_view_free(&inputs[1]);
    e->ops->close(e);
}

static void test_every_datatype(void **state)
{
    (void)state;
    static const struct {
        enum onnx_type type;
        enum tensor_dtype dtype;
    } rows[] = {
        {ONNX_FLOAT, TENSOR_FP32},    {ONNX_UINT8, TENSOR_UINT8},   {ONNX_INT8, TENSOR_INT8},
        {ONNX_UINT16, TENSOR_UINT16}, {ONNX_INT16, TENSOR_INT16},   {ONNX_INT32, TENSOR_INT32},
        {ONNX_INT64, TENSOR_INT64},   {ONNX_STRING, TENSOR_BYTES},  {ONNX_BOOL, TENSOR_BOOL},
        {ONNX_FLOAT16, TENSOR_FP16},  {ONNX_DOUBLE, TENSOR_FP64},   {ONNX_UINT32, TENSOR_UINT32},
        {ONNX_UINT64, TENSOR_UINT64}, {ONNX_BFLOAT16, TENSOR_BF16},
    };
    /* Bytes that are right for every type: booleans, and as BYTES two strings of one byte. */
    static const uint8_t bytes[] = {1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1};
    assert_int_equal(sizeof rows / sizeof rows[0], TENSOR_DTYPE_COUNT - 1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct engine *e = open_identity(rows[i].type, "N,2", "N,2");
        struct tensor_signature *s = fixture_signature(e);
        assert_int_equal(s->inputs[0].dtype, rows[i].dtype);
        assert_int_equal(s->outputs[0].dtype, rows[i].dtype);
        size_t size = rows[i].dtype == TENSOR_BYTES ? 10 : 2 * tensor_dtype_bytes(rows[i].dtype);
        struct tensor_view input = fixture_view(rows[i].dtype, 2, (int64_t[]){1, 2}, bytes, size);
        struct fixture_sink seen = {0};
        struct error err;
        if (fixture_run(e, &input, 1, 1, 1, &seen, &err) != 1)
            fail_msg("%s: %s", tensor_dtype_name(rows[i].dtype), err.text);
        assert_int_equal(seen.outputs[0].dtype, rows[i].dtype);
        assert_int_equal(seen.outputs[0].size, size);
        assert_memory_equal(seen.outputs[0].data, bytes, size);
        fixture_sink_done(&seen);
        fixture_view_free(&input);
        free(s);
        e->ops->close(e);
    }
}

static size_t append_string(char *data, size_t at, const void *text, uint32_t size)
{
    memcpy(data + at, &size, sizeof size);
    if (size > 0)
        memcpy(data + at + sizeof size, text, size);
    return at + sizeof size + size;
}

static void test_strings(void **state)
{
    (void)state;
    struct engine *e = open_identity(ONNX_STRING, "N", "N");
    enum { LARGE = 100000 };
    char *data = malloc(LARGE + 256), *large = malloc(LARGE);
    assert_true(data && large);
    for (int i = 0; i < LARGE; i++)
        large[i] = (char)i;
    struct fixture_sink seen = {0};
    struct error err;
    for (int round = 0; round < 3; round++) { /* the engine's buffer grows and is used again */
        size_t size = append_string(data, 0, "", 0);
        size = append_string(data, size, "a\0b", 3);
        size = append_string(data, size, large, round == 1 ? LARGE : 5);
        size = append_string(data, size, "\xff\xfe", 2);
        size = append_string(data, size, "", 0);
        struct tensor_view input = fixture_view(TENSOR_BYTES, 1, (int64_t[]){5}, data, size);
        assert_int_equal(fixture_run(e, &input, 1, 5, 1, &seen, &err), 1);
        assert_int_equal(seen.outputs[0].size, size);
        assert_memory_equal(seen.outputs[0].data, data, size);
        fixture_sink_done(&seen);
        /* A length that lies is refused before the library sees it. */
        uint32_t lie = UINT32_MAX;
        memcpy((char *)(uintptr_t)input.data + 4, &lie, sizeof lie);
        assert_int_equal(fixture_run(e, &input, 1, 5, 1, &seen, &err), -ERROR_INVALID_TENSOR);
        fixture_view_free(&input);
    }
    free(data);
    free(large);
    e->ops->close(e);
}

static void test_empty_tensors(void **state)
{
    (void)state;
    static const enum onnx_type types[] = {ONNX_FLOAT, ONNX_STRING};
    for (size_t i = 0; i < 2; i++) {
        struct engine *e = open_identity(types[i], "N,M", "N,M");
        struct fixture_sink seen = {0};
        struct error err;
        struct tensor_view input = {.dtype = i == 0 ? TENSOR_FP32 : TENSOR_BYTES,
                                    .shape = {2, {2, 0}}}; /* no memory at all */
        if (fixture_run(e, &input, 1, 2, 1, &seen, &err) != 1)
            fail_msg("%s", err.text);
        assert_int_equal(seen.outputs[0].size, 0);
        assert_int_equal(seen.outputs[0].shape.dims[0], 2);
        assert_int_equal(seen.outputs[0].shape.dims[1], 0);
        fixture_sink_done(&seen);
        e->ops->close(e);
    }
}

static void test_batch_axis(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
        bool batchable;
    } cases[] = {
        {"N,2", "N,2", true},  {"?,2", "?,2", true},  {"N,2", "?,2", true}, /* ONNX Runtime infers the name */
        {"N,2", "M,2", false}, {"?,2", "N,2", false}, {"3,2", "3,2", false}, {"3,N", "3,N", false},
        {"N,M", "N,M", true},  {"N", "N", true},      {"2,2", "N,2", false}, {"", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine *e = open_identity(ONNX_FLOAT, cases[i].in, cases[i].out);
        struct tensor_signature *s = fixture_signature(e);
        if (s->batchable != cases[i].batchable)
            fail_msg("%s -> %s", cases[i].in, cases[i].out);
        assert_string_equal(s->platform, "onnxruntime_onnx");
        free(s);
        e->ops->close(e);
    }
}

static void test_initializers_are_no_inputs(void **state)
{
    (void)state;
    struct pb graph = {0};
    onnx_node(&graph, "Add", "x,w", "y", NULL);
    onnx_initializer(&graph, "w", ONNX_FLOAT, "1", &(float){5}, 4);
    onnx_value(&graph, ONNX_INPUT, "w", ONNX_FLOAT, "1"); /* may be given, need not */
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N");
    struct engine *e = open_graph(&graph);
    struct tensor_signature *s = fixture_signature(e);
    assert_int_equal(s->n_inputs, 1);
    assert_string_equal(s->inputs[0].name, "x");
    assert_true(s->batchable);
    struct tensor_view input = fixture_view(TENSOR_FP32, 1, (int64_t[]){1}, &(float){2}, 4);
    struct fixture_sink seen = {0};
    struct error err;
    assert_int_equal(fixture_run(e, &input, 1, 1, 1, &seen, &err), 1);
    assert_memory_equal(seen.outputs[0].data, &(float){7}, sizeof(float));
    fixture_sink_done(&seen);
    fixture_view_free(&input);
    free(s);
    e->ops->close(e);
}

static void test_no_inputs(void **state)
{
    (void)state;
    struct pb graph = {0}, attributes = {0}, tensor = {0};
    onnx_tensor(&tensor, "c", ONNX_INT64, "2", (int64_t[]){4, 5}, 16);
    onnx_attribute_tensor(&attributes, "value", &tensor);
    onnx_node(&graph, "Constant", "", "y", &attributes);
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_INT64, "2");
    struct engine *e = open_graph(&graph);
    struct tensor_signature *s = fixture_signature(e);
    assert_int_equal(s->n_inputs, 0);
    assert_false(s->batchable);
    struct fixture_sink seen = {0};
    struct error err;
    assert_int_equal(fixture_run(e, NULL, 0, 1, 1, &seen, &err), 1);
    assert_memory_equal(seen.outputs[0].data, ((int64_t[]){4, 5}), 16);
    fixture_sink_done(&seen);
    free(s);
    e->ops->close(e);
}

/* y = reshape(x, s): what comes out is up to the input, whatever the model declares. */
static struct engine *open_reshape(const char *declared)
{
    struct pb graph = {0};
    onnx_node(&graph, "Reshape", "x,s", "/layer/y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "A");
    onnx_value(&graph, ONNX_INPUT, "s", ONNX_INT64, "2");
    onnx_value(&graph, ONNX_OUTPUT, "/layer/y", ONNX_FLOAT, declared);
    return open_graph(&graph);
}

static int reshape(struct engine *e, int64_t d0, int64_t d1, struct error *err)
{
    static const float x[6] = {0};
    struct tensor_view inputs[2] = {fixture_view(TENSOR_FP32, 1, (int64_t[]){6}, x, sizeof x),
                                    fixture_view(TENSOR_INT64, 1, (int64_t[]){2}, (int64_t[]){d0, d1}, 16)};
    struct fixture_sink seen = {0};
    int result = fixture_run(e, inputs, 2, 1, 1, &seen, err);
    fixture_sink_done(&seen);
    fixture_view_free(&inputs[0]);
    fixture_view_free(&inputs[1]);
    return result;
}

static void test_output_breaks_its_word(void **state)
{
    (void)state;
    struct engine *e = open_reshape("?,3");
    struct error err;
    assert_int_equal(reshape(e, 2, 3, &err), 1);
    assert_int_equal(reshape(e, 3, 2, &err), -ERROR_ENGINE);
    assert_string_equal(err.text, "output '/layer/y': it came out as FP32 [3,2], but the model declares FP32 [-1,3]");
    assert_int_equal(reshape(e, 2, 3, &err), 1); /* the engine lives on */
    e->ops->close(e);
}

static void test_input_that_fails(void **state)
{
    (void)state;
    struct engine *e = open_reshape("?,?");
    struct error err;
    assert_int_equal(reshape(e, 4, 4, &err), -ERROR_ENGINE);
    assert_non_null(strstr(err.text, "the model failed on this input"));
    assert_non_null(strstr(err.text, "Reshape"));
    assert_null(strstr(err.text, ".h:"));
    assert_null(strstr(err.text, "ReshapeHelper"));
    assert_int_equal(reshape(e, 6, 1, &err), 1);
    e->ops->close(e);
}

static void test_output_of_other_rows(void **state)
{
    (void)state;
    struct pb graph = {0}, attributes = {0};
    onnx_attribute_int(&attributes, "axis", 0);
    onnx_node(&graph, "Concat", "x,x", "y", &attributes);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N"); /* it is 2 N */
    struct engine *e = open_graph(&graph);
    struct tensor_view input = fixture_view(TENSOR_FP32, 1, (int64_t[]){2}, (float[]){1, 2}, 8);
    struct fixture_sink seen = {0};
    struct error err;
    assert_int_equal(fixture_run(e, &input, 1, 2, 1, &seen, &err), -ERROR_ENGINE);
    assert_non_null(strstr(err.text, "[4] for 2 rows"));
    assert_int_equal(seen.n, 0);
    fixture_view_free(&input);
    e->ops->close(e);
}

static void test_scalar_output(void **state)
{
    (void)state;
    struct pb graph = {0}, attributes = {0};
    onnx_attribute_int(&attributes, "keepdims", 0);
    onnx_node(&graph, "ReduceMax", "x", "y", &attributes);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "");
    struct engine *e = open_graph(&graph);
    struct tensor_view input = fixture_view(TENSOR_FP32, 1, (int64_t[]){2}, (float[]){1, 2}, 8);
    struct fixture_sink seen = {0};
    struct error err;
    assert_int_equal(fixture_run(e, &input, 1, 1, 1, &seen, &err), 1);
    assert_int_equal(seen.outputs[0].shape.rank, 0);
    assert_int_equal(seen.outputs[0].size, 4);
    assert_memory_equal(seen.outputs[0].data, &(float){2}, sizeof(float));
    fixture_sink_done(&seen);
    fixture_view_free(&input);
    e->ops->close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adds_rows_of_a_batch),
        cmocka_unit_test(test_every_datatype),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_empty_tensors),
        cmocka_unit_test(test_batch_axis),
        cmocka_unit_test(test_initializers_are_no_inputs),
        cmocka_unit_test(test_no_inputs),
        cmocka_unit_test(test_output_breaks_its_word),
        cmocka_unit_test(test_input_that_fails),
        cmocka_unit_test(test_output_of_other_rows),
        cmocka_unit_test(test_scalar_output),
    };
    return cmocka_run_group_tests_name("onnx_models", tests, NULL, NULL);
}
