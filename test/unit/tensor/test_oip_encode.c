#include "oip_fixture.h"

#include <math.h>

struct answer {
    struct buf body;
    size_t json_size;
    struct error err;
};

static int answer_setup(void **state)
{
    struct answer *a = calloc(1, sizeof *a);
    if (!a)
        return -1;
    buf_init(&a->body, MIB);
    *state = a;
    return 0;
}

static int answer_teardown(void **state)
{
    struct answer *a = *state;
    buf_done(&a->body);
    free(a);
    return 0;
}

#define with_answer(test) cmocka_unit_test_setup_teardown(test, answer_setup, answer_teardown)

static int encode(struct answer *a, const struct tensor_view *outputs, const bool *binary, uint32_t n)
{
    buf_clear(&a->body);
    a->json_size = 777;
    a->err = (struct error){0};
    return oip_answer_encode(STR("m"), STR("1"), (struct str){0}, outputs, binary, n, &a->body, &a->json_size, &a->err);
}

/* The text of one output as JSON data. */
static const char *data_text(struct answer *a, enum tensor_dtype dtype, const void *data, size_t size, int64_t n)
{
    static char text[4096];
    struct tensor_view y = {STR("y"), dtype, {1, {n}}, data, size};
    if (encode(a, &y, &(bool){false}, 1) < 0)
        fail_msg("%s", a->err.text);
    assert_int_equal(a->json_size, 0);
    struct str body = {a->body.data, a->body.size};
    const char *start = strstr(buf_terminate(&a->body), "\"data\":");
    assert_non_null(start);
    start += sizeof "\"data\":" - 1;
    size_t length = (size_t)(body.data + body.size - start) - sizeof "}]}" + 1;
    assert_true(length < sizeof text);
    memcpy(text, start, length);
    text[length] = '\0';
    return text;
}

static void test_binary(void **state)
{
    struct answer *a = *state;
    static const char json[] = "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"y\","
                               "\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}";
    struct tensor_view y = {STR("y"), TENSOR_FP32, {2, {1, 2}}, "abcdefgh", 8};
    assert_int_equal(encode(a, &y, &(bool){true}, 1), 0);
    assert_int_equal(a->json_size, sizeof json - 1);
    assert_int_equal(a->body.size, sizeof json - 1 + 8);
    assert_memory_equal(a->body.data, json, sizeof json - 1);
    assert_memory_equal(a->body.data + a->json_size, "abcdefgh", 8);
}

static void test_mix(void **state)
{
    struct answer *a = *state;
    struct tensor_view outputs[] = {
        {STR("b1"), TENSOR_UINT8, {1, {3}}, "abc", 3},
        {STR("j\""), TENSOR_INT8, {0, {0}}, "\377", 1},
        {STR("b2"), TENSOR_FP16, {1, {1}}, "de", 2},
    };
    static const char body[] =
        "{\"model_name\":\"m\",\"outputs\":["
        "{\"name\":\"b1\",\"datatype\":\"UINT8\",\"shape\":[3],\"parameters\":{\"binary_data_size\":3}},"
        "{\"name\":\"j\\\"\",\"datatype\":\"INT8\",\"shape\":[],\"data\":[-1]},"
        "{\"name\":\"b2\",\"datatype\":\"FP16\",\"shape\":[1],\"parameters\":{\"binary_data_size\":2}}]}abcde";
    buf_append_text(&a->body, "kept");
    assert_int_equal(oip_answer_encode(STR("m"), STR(""), (struct str){0}, outputs, (bool[]){true, false, true}, 3,
                                       &a->body, &a->json_size, &a->err),
                     0);
    assert_string_equal(buf_terminate(&a->body) + 4, body);
    assert_int_equal(a->json_size, sizeof body - 1 - 5);
    assert_int_equal(encode(a, NULL, NULL, 0), 0);
    assert_string_equal(buf_terminate(&a->body), "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[]}");
}

static void test_id(void **state)
{
    struct answer *a = *state;
    assert_int_equal(
        oip_answer_encode(STR("m"), STR("2"), STR("a\"\n\x01"), NULL, NULL, 0, &a->body, &a->json_size, &a->err), 0);
    assert_string_equal(buf_terminate(&a->body),
                        "{\"model_name\":\"m\",\"model_version\":\"2\",\"id\":\"a\\\"\\n\\u0001\",\"outputs\":[]}");
    buf_clear(&a->body);
    assert_int_equal(oip_answer_encode(STR("m"), STR("2"), STR(""), NULL, NULL, 0, &a->body, &a->json_size, &a->err),
                     0);
    assert_non_null(strstr(buf_terminate(&a->body), "\"id\":\"\""));
}

static void test_data(void **state)
{
    struct answer *a = *state;
    assert_string_equal(data_text(a, TENSOR_BOOL, "\1\0", 2, 2), "[true,false]");
    assert_string_equal(data_text(a, TENSOR_UINT8, "\0\377", 2, 2), "[0,255]");
    assert_string_equal(data_text(a, TENSOR_INT8, "\200\177", 2, 2), "[-128,127]");
    assert_string_equal(data_text(a, TENSOR_UINT16, (uint16_t[]){0, UINT16_MAX}, 4, 2), "[0,65535]");
    assert_string_equal(data_text(a, TENSOR_INT16, (int16_t[]){INT16_MIN, INT16_MAX}, 4, 2), "[-32768,32767]");
    assert_string_equal(data_text(a, TENSOR_UINT32, (uint32_t[]){0, UINT32_MAX}, 8, 2), "[0,4294967295]");
    assert_string_equal(data_text(a, TENSOR_INT32, (int32_t[]){INT32_MIN, INT32_MAX}, 8, 2),
                        "[-2147483648,2147483647]");
    assert_string_equal(data_text(a, TENSOR_UINT64, (uint64_t[]){0, UINT64_MAX}, 16, 2), "[0,18446744073709551615]");
    assert_string_equal(data_text(a, TENSOR_INT64, (int64_t[]){INT64_MIN, INT64_MAX}, 16, 2),
                        "[-9223372036854775808,9223372036854775807]");
    assert_string_equal(data_text(a, TENSOR_FP16, (uint16_t[]){0x3C00, 0xB800, 0x2E66}, 6, 3), "[1.0,-0.5,0.1]");
    assert_string_equal(data_text(a, TENSOR_BF16, (uint16_t[]){0x3F80, 0xBF00, 0x3DCD}, 6, 3), "[1.0,-0.5,0.1]");
    assert_string_equal(data_text(a, TENSOR_FP32, (float[]){1, -0.5f, 0.1f}, 12, 3), "[1.0,-0.5,0.1]");
    assert_string_equal(data_text(a, TENSOR_FP64, (double[]){1, -0.5, 0.1}, 24, 3), "[1.0,-0.5,0.1]");
    assert_string_equal(data_text(a, TENSOR_BYTES, "\2\0\0\0a\"\0\0\0\0\2\0\0\0\303\251", 16, 3),
                        "[\"a\\\"\",\"\",\"é\"]");
    assert_string_equal(data_text(a, TENSOR_FP32, NULL, 0, 0), "[]");
    assert_string_equal(data_text(a, TENSOR_BYTES, NULL, 0, 0), "[]");
}

static void unsupported(struct answer *a, enum tensor_dtype dtype, const void *data, size_t size, int64_t n,
                        const char *text)
{
    struct tensor_view y = {STR("y"), dtype, {1, {n}}, data, size};
    assert_int_equal(encode(a, &y, &(bool){false}, 1), -ERROR_UNSUPPORTED);
    assert_non_null(strstr(a->err.text, text));
    assert_non_null(strstr(a->err.text, "output \"y\": "));
    assert_non_null(strstr(a->err.text, "\"parameters\":{\"binary_data\":true}"));
    assert_int_equal(a->body.size, 0);
    assert_int_equal(a->json_size, 777);
    assert_int_equal(encode(a, &y, &(bool){true}, 1), 0);
}

static void test_unsupported(void **state)
{
    struct answer *a = *state;
    unsupported(a, TENSOR_FP32, (float[]){1, NAN}, 8, 2, "NaN or infinite");
    unsupported(a, TENSOR_FP32, (float[]){-INFINITY}, 4, 1, "NaN or infinite");
    unsupported(a, TENSOR_FP64, (double[]){1, 2, INFINITY}, 24, 3, "NaN or infinite");
    unsupported(a, TENSOR_FP16, (uint16_t[]){0, 0x7C00}, 4, 2, "NaN or infinite");
    unsupported(a, TENSOR_BF16, (uint16_t[]){0xFFFF}, 2, 1, "NaN or infinite");
    unsupported(a, TENSOR_BYTES, "\0\0\0\0\1\0\0\0\377", 9, 2, "element 1 is not UTF-8");
}

static void test_inconsistent(void **state)
{
    struct answer *a = *state;
    struct tensor_view y = {STR("y"), TENSOR_FP32, {1, {2}}, "abcdefg", 7};
    assert_int_equal(encode(a, &y, &(bool){false}, 1), -ERROR_INVALID_TENSOR);
    y = (struct tensor_view){STR("y"), TENSOR_BYTES, {1, {2}}, "\1\0\0\0a\1\0\0\0", 9};
    assert_int_equal(encode(a, &y, &(bool){false}, 1), -ERROR_INVALID_TENSOR);
    y = (struct tensor_view){STR("y"), TENSOR_UINT8, {1, {-1}}, "a", 1};
    assert_int_equal(encode(a, &y, &(bool){false}, 1), -ERROR_INVALID_TENSOR);
    assert_int_equal(a->body.size, 0);
}

/* What is printed reads back bit for bit, over the run length and with every datatype. */
static void test_round_trip(void **state)
{
    struct answer *a = *state;
    enum { N = 300 };
    static uint64_t words[N];
    uint64_t x = 88172645463325252u;
    void *setup = NULL;
    assert_int_equal(fixture_setup(&setup), 0);
    struct fixture *f = setup;
    for (enum tensor_dtype d = TENSOR_BOOL; d < TENSOR_BYTES; d++) {
        size_t bytes = tensor_dtype_bytes(d);
        for (size_t i = 0; i < N; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            words[i] = x;
            if (d == TENSOR_BOOL)
                words[i] &= UINT64_C(0x0101010101010101);
            else if (d == TENSOR_FP32)
                words[i] &= UINT64_C(0xFF7FFFFFFF7FFFFF); /* a clear exponent bit: finite */
            else if (d == TENSOR_FP16)
                words[i] &= UINT64_C(0xFBFFFBFFFBFFFBFF);
            else if (d == TENSOR_BF16)
                words[i] &= UINT64_C(0xFF7FFF7FFF7FFF7F);
            else if (d == TENSOR_FP64)
                words[i] &= UINT64_C(0xFFEFFFFFFFFFFFFF);
        }
        const char *text = data_text(a, d, words, 100 * bytes, 100);
        assert_int_equal(decode_data(f, tensor_dtype_name(d), "[100]", text), 0);
        assert_memory_equal(f->request.inputs[0].data, words, 100 * bytes);
        struct tensor_view y = {STR("y"), d, {1, {N}}, words, N * bytes};
        assert_int_equal(encode(a, &y, &(bool){false}, 1), 0);
        char *data = strstr(buf_terminate(&a->body), "\"data\":") + 7;
        a->body.data[a->body.size - 3] = '\0';
        assert_int_equal(decode_data(f, tensor_dtype_name(d), "[300]", data), 0);
        assert_memory_equal(f->request.inputs[0].data, words, N * bytes);
    }
    assert_int_equal(fixture_teardown((void **)&f), 0);
}

/* Whatever the maximum, the answer is whole or refused, and refused only when it does not (almost) fit. */
static void test_maximum(void **state)
{
    struct answer *a = *state;
    float values[200];
    for (int i = 0; i < 200; i++)
        values[i] = (float)i / 3;
    struct tensor_view y = {STR("y"), TENSOR_FP32, {1, {200}}, values, sizeof values};
    assert_int_equal(encode(a, &y, &(bool){false}, 1), 0);
    size_t whole = a->body.size;
    for (size_t max = 0; max < whole + 64; max++) {
        struct buf body;
        buf_init(&body, max);
        size_t json_size = 777;
        int status =
            oip_answer_encode(STR("m"), STR("1"), (struct str){0}, &y, &(bool){false}, 1, &body, &json_size, &a->err);
        if (status < 0) {
            assert_int_equal(status, -ERROR_LIMIT);
            assert_int_equal(body.failed, -ERROR_LIMIT);
            assert_int_equal(body.size, 0);
            assert_int_equal(json_size, 777);
            assert_true(max < whole + 40);
        } else {
            assert_int_equal(body.size, whole);
            assert_memory_equal(body.data, a->body.data, whole);
        }
        buf_done(&body);
    }
}

static void test_metadata(void **state)
{
    struct answer *a = *state;
    static struct tensor_signature s = {.n_inputs = 2, .n_outputs = 1, .platform = "onnxruntime_onnx"};
    s.inputs[0] = (struct tensor_spec){"a\"", TENSOR_FP32, {2, {-1, 64}}};
    s.inputs[1] = (struct tensor_spec){"b", TENSOR_BYTES, {0}};
    s.outputs[0] = (struct tensor_spec){"y", TENSOR_BOOL, {1, {3}}};
    oip_metadata_encode(STR("m"), (struct str[]){STR("2"), STR("1")}, 2, &s, &a->body);
    assert_string_equal(buf_terminate(&a->body),
                        "{\"name\":\"m\",\"versions\":[\"2\",\"1\"],\"platform\":\"onnxruntime_onnx\",\"inputs\":["
                        "{\"name\":\"a\\\"\",\"datatype\":\"FP32\",\"shape\":[-1,64]},"
                        "{\"name\":\"b\",\"datatype\":\"BYTES\",\"shape\":[]}],\"outputs\":["
                        "{\"name\":\"y\",\"datatype\":\"BOOL\",\"shape\":[3]}]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_answer(test_binary),     with_answer(test_mix),         with_answer(test_id),
        with_answer(test_data),       with_answer(test_unsupported), with_answer(test_inconsistent),
        with_answer(test_round_trip), with_answer(test_maximum),     with_answer(test_metadata),
    };
    return cmocka_run_group_tests_name("oip_encode", tests, NULL, NULL);
}
