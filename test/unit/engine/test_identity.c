/* The identity engine's model file, and what the engine does with it. */
#include "engine_fixture.h"

#include "base/clock.h"
#include "engine/identity_model.h"

#include <time.h>

#define INPUT(name, dtype, shape) "{\"name\":\"" name "\",\"datatype\":\"" dtype "\",\"shape\":" shape "}"

static int parse(const char *text, struct identity_model *ret_model, struct error *err)
{
    static struct tensor_spec inputs[LIMIT_TENSORS];
    /* On the heap at its exact size, so that ASan sees a read beyond it. */
    struct str whole = str_from(text);
    char *copy = malloc(whole.size + (whole.size == 0));
    assert_non_null(copy);
    memcpy(copy, whole.data, whole.size);
    memset(err, 0, sizeof *err);
    int result = identity_model_parse((struct str){copy, whole.size}, inputs, ret_model, err);
    free(copy);
    return result;
}

static void test_takes(void **state)
{
    (void)state;
    struct identity_model model;
    struct error err;
    assert_int_equal(parse(" { \"inputs\" : [ " INPUT("x", "FP32", "[-1, 64]") " ] } \n", &model, &err), 0);
    assert_int_equal(model.n_inputs, 1);
    assert_int_equal(model.busy_ns, 0);
    assert_string_equal(model.inputs[0].name, "x");
    assert_int_equal(model.inputs[0].dtype, TENSOR_FP32);
    assert_int_equal(model.inputs[0].shape.rank, 2);
    assert_int_equal(model.inputs[0].shape.dims[0], -1);
    assert_int_equal(model.inputs[0].shape.dims[1], 64);

    assert_int_equal(parse("{\"busyPerRow\":\"250us\",\"inputs\":[" INPUT("a", "BYTES", "[]") "," INPUT(
                               "b", "BOOL", "[2147483647]") "],\"busy\":\"10s\"}",
                           &model, &err),
                     0);
    assert_int_equal(model.n_inputs, 2);
    assert_int_equal(model.busy_ns, IDENTITY_BUSY_NS_MAX);
    assert_int_equal(model.busy_per_row_ns, 250000);
    assert_int_equal(model.inputs[0].shape.rank, 0);
}

static void test_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why; /* why: part of the answer */
    } cases[] = {
        {"", "a JSON object"},
        {"[]", "a JSON object"},
        {"{}", "a member"},
        {"{\"busy\":\"1ms\"}", "\"inputs\""},
        {"{\"inputs\":[]}", "an input"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "]} {}", "nothing behind"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "],}", "a member"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "],\"inputs\":[]}", "once"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "],\"color\":1}", "a member"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "," INPUT("x", "FP32", "[-1]") "]}", "different names"},
        {"{\"inputs\":[" INPUT("", "FP32", "[-1]") "]}", "1 to 255 bytes"},
        {"{\"inputs\":[" INPUT("a\\u0041", "FP32", "[-1]") "]}", "without escapes"},
        {"{\"inputs\":[" INPUT("\xff", "FP32", "[-1]") "]}", "UTF-8"},
        {"{\"inputs\":[" INPUT("x\n", "FP32", "[-1]") "]}", "control characters"},
        {"{\"inputs\":[" INPUT("x", "FP31", "[-1]") "]}", "datatype such as"},
        {"{\"inputs\":[" INPUT("x", "FP32", "-1") "]}", "an array of dimensions"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[0]") "]}", "a dimension"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-2]") "]}", "a dimension"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[1.5]") "]}", "','"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[01]") "]}", "a dimension"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[2147483648]") "]}", "a dimension"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[99999999999999999999]") "]}", "a dimension"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[1,1,1,1,1,1,1,1,1]") "]}", "at most 8"},
        {"{\"inputs\":[{\"name\":\"x\",\"shape\":[1]}]}", "\"datatype\""},
        {"{\"inputs\":[{\"name\":\"x\",\"name\":\"y\"}]}", "once"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]"), "',' or ']'"},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1]") "]", "',' or '}'"},
        {"{\"inputs", "closing quote"},
        {"{\"busy\":\"11s\"}", "at most 10 s"},
        {"{\"busy\":\"10001ms\"}", "at most 10 s"},
        {"{\"busy\":\"18446744073709551616us\"}", "at most 10 s"},
        {"{\"busy\":\"1m\"}", "at most 10 s"},
        {"{\"busy\":\"ms\"}", "at most 10 s"},
        {"{\"busy\":\"-1ms\"}", "at most 10 s"},
        {"{\"busy\":1}", "at most 10 s"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct identity_model model;
        struct error err;
        if (parse(cases[i].text, &model, &err) != -ERROR_REFUSED || !strstr(err.text, cases[i].why))
            fail_msg("%s: %s", cases[i].text, err.text);
        assert_non_null(strstr(err.text, "byte "));
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct identity_model model;
    struct error err;
    for (unsigned n = LIMIT_TENSORS; n <= LIMIT_TENSORS + 1; n++) {
        char text[8192];
        int size = snprintf(text, sizeof text, "{\"inputs\":[");
        for (unsigned i = 0; i < n; i++)
            size +=
                snprintf(text + size, sizeof text - (size_t)size, "%s" INPUT("x%u", "FP32", "[1]"), i ? "," : "", i);
        (void)snprintf(text + size, sizeof text - (size_t)size, "]}");
        assert_int_equal(parse(text, &model, &err), n <= LIMIT_TENSORS ? 0 : -ERROR_REFUSED);
    }
    for (unsigned n = LIMIT_TENSOR_NAME_BYTES; n <= LIMIT_TENSOR_NAME_BYTES + 1; n++) {
        char text[1024];
        (void)snprintf(text, sizeof text, "{\"inputs\":[{\"datatype\":\"FP32\",\"shape\":[1],\"name\":\"%0*d\"}]}",
                       (int)n, 7);
        assert_int_equal(parse(text, &model, &err), n <= LIMIT_TENSOR_NAME_BYTES ? 0 : -ERROR_REFUSED);
    }
    static const char head[] = "{\"inputs\":[" INPUT("x", "FP32", "[1]") "]}";
    for (size_t n = IDENTITY_MODEL_BYTES_MAX; n <= IDENTITY_MODEL_BYTES_MAX + 1; n++) {
        char *text = malloc(n + 1);
        assert_non_null(text);
        memset(text, ' ', n);
        memcpy(text, head, sizeof head - 1);
        text[n] = '\0';
        assert_int_equal(parse(text, &model, &err), n <= IDENTITY_MODEL_BYTES_MAX ? 0 : -ERROR_REFUSED);
        free(text);
    }
}

static struct engine *open_text(const char *text)
{
    return fixture_must_open(&engine_identity, text, strlen(text));
}

static void test_signature(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool batchable;
    } cases[] = {
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1,2]") "," INPUT("y", "BYTES", "[-1]") "]}", true},
        {"{\"inputs\":[" INPUT("x", "FP32", "[-1,2]") "," INPUT("y", "BYTES", "[2]") "]}", false},
        {"{\"inputs\":[" INPUT("x", "FP32", "[]") "]}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct engine *e = open_text(cases[i].text);
        struct tensor_signature *s = fixture_signature(e);
        assert_int_equal(s->batchable, cases[i].batchable);
        assert_string_equal(s->platform, "bulkhead_identity");
        assert_int_equal(s->n_outputs, s->n_inputs);
        assert_memory_equal(s->inputs, s->outputs, sizeof s->inputs);
        free(s);
        e->ops->close(e);
    }
}

static const void *seen_data; /* by the sink below */

static int look(void *ctx, uint32_t index, const struct tensor_view *output)
{
    (void)ctx, (void)index;
    seen_data = output->data;
    return 0;
}

static void test_echoes_without_copying(void **state)
{
    (void)state;
    struct engine *e = open_text("{\"inputs\":[" INPUT("x", "FP32", "[-1,2]") "," INPUT("y", "BYTES", "[-1]") "]}");
    static const float x[] = {1, 2, 3, 4};
    static const char y[] = "\2\0\0\0a\0\0\0\0";
    struct tensor_view inputs[2] = {
        fixture_view(TENSOR_FP32, 2, (int64_t[]){2, 2}, x, sizeof x),
        fixture_view(TENSOR_BYTES, 1, (int64_t[]){2}, y, 4 + 2 + 4),
    };
    struct fixture_sink sink = {0};
    struct error err;
    assert_int_equal(fixture_run(e, inputs, 2, 2, 3, &sink, &err), 1);
    assert_int_equal(sink.n, 2);
    assert_memory_equal(sink.outputs[0].data, x, sizeof x);
    assert_memory_equal(sink.outputs[1].data, y, 10);
    assert_int_equal(sink.outputs[1].dtype, TENSOR_BYTES);
    fixture_sink_done(&sink);

    struct engine_item item = {1, 1, 2};
    struct engine_batch batch = {1, &item, 2, 2, inputs, 1};
    assert_int_equal(e->ops->submit(e, &batch, &err), 0);
    assert_int_equal(e->ops->step(e, 0, &(struct engine_sink){.output = look}, &err), 1);
    assert_ptr_equal(seen_data, inputs[0].data);
    fixture_view_free(&inputs[0]);
    fixture_view_free(&inputs[1]);
    e->ops->close(e);
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void test_burns_cpu_time(void **state)
{
    (void)state;
    static const float x[3] = {0};
    struct tensor_view input = fixture_view(TENSOR_FP32, 1, (int64_t[]){3}, x, sizeof x);
    struct engine *e =
        open_text("{\"busy\":\"2ms\",\"busyPerRow\":\"1ms\",\"inputs\":[" INPUT("x", "FP32", "[-1]") "]}");
    struct fixture_sink sink = {0};
    struct error err;
    uint64_t start_ns = cpu_ns();
    assert_int_equal(fixture_run(e, &input, 1, 3, 1, &sink, &err), 1);
    assert_true(cpu_ns() - start_ns >= 5 * NS_PER_MS);
    fixture_sink_done(&sink);
    fixture_view_free(&input);
    e->ops->close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_echoes_without_copying),
        cmocka_unit_test(test_burns_cpu_time),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
