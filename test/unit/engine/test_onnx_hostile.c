/* The onnx engine on files that a tenant should not have sent: refused in words that say why, or served; never a crash,
 * never a look outside the file. */
#include "engine_fixture.h"
#include "onnx_builder.h"

static int open_model(struct pb *model, struct error *err)
{
    struct engine *e = NULL;
    int result = fixture_open(&engine_onnx, model->data, model->size, &e, err);
    engine_onnx.close(e);
    pb_free(model);
    return result;
}

static void must_refuse(struct pb *model, const char *why)
{
    struct error err;
    int result = open_model(model, &err);
    if (result != -ERROR_REFUSED || !strstr(err.text, why))
        fail_msg("wanted '%s', got %d '%s'", why, result, err.text);
}

/* y = op(x), FP32[N] to `type` of the caller's making. */
static struct pb one_node(const char *domain, const char *op, int opset)
{
    struct pb graph = {0}, model = {0};
    onnx_node_of(&graph, domain, op, "x", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N");
    onnx_model(&model, &graph, opset);
    return model;
}

static void test_unknown_things(void **state)
{
    (void)state;
    struct pb model = one_node(NULL, "Frobnicate", 17);
    must_refuse(&model, "Frobnicate");
    model = one_node("com.example", "Frobnicate", 17);
    onnx_opset(&model, "com.example", 1);
    must_refuse(&model, "com.example");
    model = one_node(NULL, "Relu", 999);
    must_refuse(&model, "opset");
    model = one_node(NULL, "Relu", 17);
    pb_int(&model, 1, 999); /* IR version; the last one counts */
    must_refuse(&model, "IR version");
    model = (struct pb){0};
    pb_int(&model, 1, 8); /* no graph at all */
    must_refuse(&model, "");
}

static void test_types_that_cannot_be_served(void **state)
{
    (void)state;
    struct pb graph = {0}, model = {0}, tensor = {0}, type = {0}, element = {0};
    onnx_node(&graph, "SplitToSequence", "x", "parts", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    pb_int(&tensor, 1, ONNX_FLOAT);
    pb_message(&type, 1, &tensor);
    pb_message(&element, 1, &type);
    pb_message(&type, 4, &element); /* a sequence of tensors */
    onnx_value_typed(&graph, ONNX_OUTPUT, "parts", &type);
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "output 'parts' is a sequence, which cannot be served");

    graph = model = (struct pb){0};
    onnx_node(&graph, "OptionalHasElement", "maybe", "y", NULL);
    pb_int(&tensor, 1, ONNX_FLOAT);
    onnx_shape(&tensor, "N");
    pb_message(&type, 1, &tensor);
    pb_message(&element, 1, &type);
    pb_message(&type, 9, &element); /* an optional tensor */
    onnx_value_typed(&graph, ONNX_INPUT, "maybe", &type);
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_BOOL, "");
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "input 'maybe' is optional, which cannot be served");

    graph = model = (struct pb){0};
    onnx_node(&graph, "Identity", "x", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_COMPLEX64, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_COMPLEX64, "N");
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "");
}

static void test_shapes_that_cannot_be_served(void **state)
{
    (void)state;
    struct pb graph = {0}, model = {0};
    onnx_node(&graph, "Reshape", "x,s", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_INPUT, "s", ONNX_INT64, "K"); /* so that y may have any rank */
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, NULL);
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "output 'y' has a shape of unknown rank");

    graph = model = (struct pb){0};
    onnx_node(&graph, "Identity", "x", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "1,1,1,1,1,1,1,1,1");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "1,1,1,1,1,1,1,1,1");
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "input 'x' has more than 8 dimensions");
}

/* `n` outputs y0, y1, ... of one input with a name of `name_bytes`. */
static struct pb many_outputs(unsigned n, unsigned name_bytes)
{
    struct pb graph = {0}, model = {0};
    char in[600], out[16];
    (void)snprintf(in, sizeof in, "%0*d", (int)name_bytes, 7);
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(out, sizeof out, "y%u", i);
        onnx_node(&graph, "Identity", in, out, NULL);
        onnx_value(&graph, ONNX_OUTPUT, out, ONNX_FLOAT, "N");
    }
    onnx_value(&graph, ONNX_INPUT, in, ONNX_FLOAT, "N");
    onnx_model(&model, &graph, 17);
    return model;
}

static void test_limits(void **state)
{
    (void)state;
    struct error err;
    struct pb model = many_outputs(LIMIT_TENSORS, LIMIT_TENSOR_NAME_BYTES);
    assert_int_equal(open_model(&model, &err), 0);
    model = many_outputs(LIMIT_TENSORS + 1, 1);
    must_refuse(&model, "65 outputs; at most 64");
    model = many_outputs(1, LIMIT_TENSOR_NAME_BYTES + 1);
    must_refuse(&model, "a name of 1 to 255 bytes");
}

static void test_names(void **state)
{
    (void)state;
    struct pb graph = {0}, model = {0};
    onnx_node(&graph, "Identity", "\xff\xfe", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "\xff\xfe", ONNX_FLOAT, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N");
    onnx_model(&model, &graph, 17);
    must_refuse(&model, "UTF-8");
}

static void test_external_data_is_not_opened(void **state)
{
    (void)state;
    /* Names that ONNX Runtime would follow, the last one into its own memory. */
    static const char *const locations[] = {"external_data_for_test.bin", "/dev/zero", "../../../../dev/zero",
                                            "*/_ORT_MEM_ADDR_/*"};
    for (size_t i = 0; i < sizeof locations / sizeof locations[0]; i++) {
        struct pb graph = {0}, model = {0}, tensor = {0}, entry = {0};
        pb_int(&tensor, 1, 1);
        pb_int(&tensor, 2, ONNX_FLOAT);
        pb_text(&tensor, 8, "w");
        pb_text(&entry, 1, "location");
        pb_text(&entry, 2, locations[i]);
        pb_message(&tensor, 13, &entry);
        pb_int(&tensor, 14, 1);
        pb_message(&graph, ONNX_INITIALIZER, &tensor);
        onnx_node(&graph, "Add", "x,w", "y", NULL);
        onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
        onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N");
        onnx_model(&model, &graph, 17);
        must_refuse(&model, "tensor 'w' keeps its data in another file");
    }
}

static void test_huge_dims(void **state)
{
    (void)state;
    static const char *const dims[] = {"1099511627776", "4294967296,4294967296", "9223372036854775807", "-1", "-5,2"};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        struct pb graph = {0}, model = {0};
        onnx_initializer(&graph, "w", ONNX_FLOAT, dims[i], "\0\0\0\0", 4);
        onnx_node(&graph, "Add", "x,w", "y", NULL);
        onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
        onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "?");
        onnx_model(&model, &graph, 17);
        must_refuse(&model, "");
    }
}

/* Nested Ifs, each a subgraph deeper. */
static struct pb nested(unsigned levels)
{
    struct pb inner = {0}, graph = {0}, model = {0};
    onnx_node(&inner, "Identity", "x", "deep", NULL);
    onnx_value(&inner, ONNX_OUTPUT, "deep", ONNX_FLOAT, "N");
    pb_text(&inner, 2, "g");
    for (unsigned i = 0; i < levels; i++) {
        struct pb outer = {0}, attributes = {0}, other = {0};
        char name[16];
        pb_raw(&other, inner.data, inner.size < 60 ? inner.size : 0);
        if (i > 0) { /* both branches as deep would double the size each time */
            onnx_node(&other, "Identity", "x", "shallow", NULL);
            onnx_value(&other, ONNX_OUTPUT, "shallow", ONNX_FLOAT, "N");
            pb_text(&other, 2, "g");
        }
        (void)snprintf(name, sizeof name, "r%u", i);
        onnx_attribute_graph(&attributes, "then_branch", &inner);
        onnx_attribute_graph(&attributes, "else_branch", &other);
        onnx_node(&outer, "If", "c", name, &attributes);
        onnx_value(&outer, ONNX_OUTPUT, name, ONNX_FLOAT, "N");
        pb_text(&outer, 2, "g");
        inner = outer;
    }
    graph = inner;
    onnx_value(&graph, ONNX_INPUT, "c", ONNX_BOOL, "");
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N");
    onnx_model(&model, &graph, 17);
    return model;
}

static void test_deep_nesting(void **state)
{
    (void)state;
    struct error err;
    struct pb model = nested(20);
    if (open_model(&model, &err) < 0)
        fail_msg("%s", err.text);
    model = nested(30);
    must_refuse(&model, "too deeply");
}

/* A model with a bit of everything, small enough to be broken in every place. */
static struct pb small_model(void)
{
    struct pb graph = {0}, model = {0}, attributes = {0};
    onnx_initializer(&graph, "w", ONNX_FLOAT, "2,2", (float[]){1, 2, 3, 4}, 16);
    onnx_attribute_int(&attributes, "transB", 1);
    onnx_node(&graph, "Gemm", "x,w", "h", &attributes);
    onnx_node(&graph, "Relu", "h", "y", NULL);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N,2");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_FLOAT, "N,2");
    onnx_model(&model, &graph, 17);
    return model;
}

static void run_if_it_opens(const uint8_t *data, size_t size)
{
    struct engine *e = NULL;
    struct error err;
    if (fixture_open(&engine_onnx, data, size, &e, &err) < 0)
        return;
    struct tensor_view input = fixture_view(TENSOR_FP32, 2, (int64_t[]){1, 2}, (float[]){1, 2}, 8);
    struct fixture_sink seen = {0};
    (void)fixture_run(e, &input, 1, 1, 1, &seen, &err); /* whatever comes: no crash */
    fixture_sink_done(&seen);
    fixture_view_free(&input);
    e->ops->close(e);
}

static void test_truncated(void **state)
{
    (void)state;
    struct pb model = small_model();
    for (size_t size = 0; size < model.size; size++)
        run_if_it_opens(model.data, size);
    pb_free(&model);
}

static void test_flipped_bits(void **state)
{
    (void)state;
    struct pb model = small_model();
    for (size_t bit = 0; bit < model.size * 8; bit++) {
        model.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        run_if_it_opens(model.data, model.size);
        model.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    pb_free(&model);
}

static void test_noise(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u; /* xorshift64, Marsaglia 2003 */
    for (int round = 0; round < 500; round++) {
        uint8_t noise[64];
        for (size_t i = 0; i < sizeof noise; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            noise[i] = (uint8_t)seed;
        }
        run_if_it_opens(noise, 1 + (size_t)round % sizeof noise);
    }
}

static void test_no_library(void **state)
{
    (void)state;
    /* The first test: once the library is loaded it stays, and its descriptor is not looked at again. */
    struct pb model = small_model();
    struct engine_options options = {.model = model.data, .model_bytes = model.size, .library_fd = -1, .threads = 1};
    struct engine *e = NULL;
    struct error err = {0};
    assert_int_equal(engine_onnx.open(&options, &e, &err), -ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "no ONNX Runtime"));
    options.library_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(engine_onnx.open(&options, &e, &err), -ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cannot be loaded"));
    assert_null(strstr(err.text, "/proc"));
    close(options.library_fd);
    options.threads = 0;
    assert_int_equal(engine_onnx.open(&options, &e, &err), -ERROR_INVALID_ARGUMENT);
    assert_null(e);
    pb_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_library), /* stays first */
        cmocka_unit_test(test_unknown_things),
        cmocka_unit_test(test_types_that_cannot_be_served),
        cmocka_unit_test(test_shapes_that_cannot_be_served),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_external_data_is_not_opened),
        cmocka_unit_test(test_huge_dims),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests_name("onnx_hostile", tests, NULL, NULL);
}
