#include "oip_fixture.h"

#include <math.h>

static const struct tensor_view *decoded(struct fixture *f, const char *dtype, const char *shape, const char *data)
{
    int status = decode_data(f, dtype, shape, data);
    if (status < 0)
        fail_msg("%s %s %s: %s", dtype, shape, data, f->err.text);
    return &f->request.inputs[0];
}

static void refused(struct fixture *f, const char *dtype, const char *shape, const char *data, const char *text)
{
    int status = decode_data(f, dtype, shape, data);
    if (status != -ERROR_INVALID_TENSOR)
        fail_msg("%d for %s %s %s: %s", status, dtype, shape, data, f->err.text);
    assert_text(f, text);
}

/* Each integer datatype: its ends are taken, one beyond is not, and nothing but whole numbers is. */
static void test_integer_ranges(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *dtype, *ends, *below, *above;
        uint64_t bits[2]; /* of the ends */
        size_t bytes;
    } cases[] = {
        {"UINT8", "[0,255]", "-1", "256", {0, 255}, 1},
        {"UINT16", "[0,65535]", "-1", "65536", {0, 65535}, 2},
        {"UINT32", "[0,4294967295]", "-1", "4294967296", {0, UINT32_MAX}, 4},
        {"UINT64", "[0,18446744073709551615]", "-1", "18446744073709551616", {0, UINT64_MAX}, 8},
        {"INT8", "[-128,127]", "-129", "128", {0x80, 0x7F}, 1},
        {"INT16", "[-32768,32767]", "-32769", "32768", {0x8000, 0x7FFF}, 2},
        {"INT32", "[-2147483648,2147483647]", "-2147483649", "2147483648", {0x80000000, 0x7FFFFFFF}, 4},
        {"INT64",
         "[-9223372036854775808,9223372036854775807]",
         "-9223372036854775809",
         "9223372036854775808",
         {UINT64_C(1) << 63, INT64_MAX},
         8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct tensor_view *x = decoded(f, cases[i].dtype, "[2]", cases[i].ends);
        assert_int_equal(x->size, 2 * cases[i].bytes);
        assert_memory_equal(x->data, &cases[i].bits[0], cases[i].bytes);
        assert_memory_equal((const char *)x->data + cases[i].bytes, &cases[i].bits[1], cases[i].bytes);
        const char *bad[] = {cases[i].below,
                             cases[i].above,
                             "1.0",
                             "1e0",
                             "1e400",
                             "true",
                             "null",
                             "\"1\"",
                             "[1]",
                             "{}",
                             "123456789012345678901234567890"};
        for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
            char data[96], text[96];
            (void)snprintf(data, sizeof data, "[1,%s]", bad[k]);
            (void)snprintf(text, sizeof text, "%s takes integers from", cases[i].dtype);
            refused(f, cases[i].dtype, "[2]", data, text);
            assert_text(f, "input \"x\": element 1 of its data is ");
        }
        x = decoded(f, cases[i].dtype, "[1]", "[-0]");
        assert_memory_equal(x->data, &(uint64_t){0}, cases[i].bytes);
    }
    refused(f, "INT64", "[1]", "[9223372036854775808]",
            "is 9223372036854775808; INT64 takes integers from -9223372036854775808 to 9223372036854775807");
    refused(f, "UINT64", "[1]", "[18446744073709551616]", "is 18446744073709551616; UINT64 takes");
    refused(f, "UINT8", "[1]", "[1.5]", "is 1.5; UINT8 takes integers from 0 to 255");
}

static void test_bool(void **state)
{
    struct fixture *f = *state;
    const struct tensor_view *x = decoded(f, "BOOL", "[3]", "[true,false,true]");
    assert_int_equal(x->size, 3);
    assert_memory_equal(x->data, "\1\0\1", 3);
    refused(f, "BOOL", "[1]", "[1]", "element 0 of its data is 1; BOOL takes true or false");
    refused(f, "BOOL", "[2]", "[true,0]", "element 1 of its data is 0; BOOL takes true or false");
    refused(f, "BOOL", "[1]", "[\"true\"]", "is a string");
    refused(f, "BOOL", "[1]", "[null]", "is null");
}

static void test_fp32(void **state)
{
    struct fixture *f = *state;
    static const float expected[] = {0.0f,        -0.0f,           -0.0f, 1.0f,          0.1f,  -1.5f, 3.40282347e38f,
                                     16777216.0f, 1.40129846e-45f, 0.0f,  1.8446744e19f, 1e30f, -7.0f};
    const struct tensor_view *x = decoded(f, "FP32", "[13]",
                                          "[0,-0,-0.0,1,0.1,-1.5,3.4028235e38,16777217,1e-45,1e-400,"
                                          "18446744073709551616,1000000000000000000000000000000,-7]");
    assert_int_equal(x->size, sizeof expected);
    assert_memory_equal(x->data, expected, sizeof expected);
    refused(f, "FP32", "[1]", "[3.4028236e38]", "FP32 takes numbers of magnitude up to 3.4028235e38");
    refused(f, "FP32", "[1]", "[-1e39]", "element 0 of its data is -1e39; FP32");
    refused(f, "FP32", "[1]", "[1e400]", "element 0 of its data is 1e400; FP32");
    refused(f, "FP32", "[1]", "[\"NaN\"]", "is a string; FP32");
    refused(f, "FP32", "[2]", "[1,true]", "element 1 of its data is true; FP32");
    refused(f, "FP32", "[1]", "[null]", "is null");
    /* 309 digits: beyond FP64 too, and the message does not carry all of them */
    char data[400] = "[";
    memset(data + 1, '9', 350);
    memcpy(data + 351, "]", 2);
    refused(f, "FP32", "[1]", data, "is 99999");
    refused(f, "FP64", "[1]", data, "is 99999");
    assert_true(strlen(f->err.text) < 200);
}

static void test_fp64(void **state)
{
    struct fixture *f = *state;
    static const double expected[] = {
        -0.0, 0.1, 1.7976931348623157e308, 5e-324, 18446744073709551616.0, 9007199254740993.0, -9223372036854775809.0};
    const struct tensor_view *x =
        decoded(f, "FP64", "[7]",
                "[-0,0.1,1.7976931348623157e308,5e-324,18446744073709551616,9007199254740993,-9223372036854775809]");
    assert_int_equal(x->size, sizeof expected);
    assert_memory_equal(x->data, expected, sizeof expected);
    refused(f, "FP64", "[1]", "[1e309]", "is 1e309; FP64 takes numbers of magnitude up to 1.7976931348623157e308");
    refused(f, "FP64", "[1]", "[-1e309]", "is -1e309");
    refused(f, "FP64", "[1]", "[{}]", "is an object");
}

static void test_half(void **state)
{
    struct fixture *f = *state;
    const struct tensor_view *x =
        decoded(f, "FP16", "[8]", "[1,-0,0.1,65504,-65519.99,2049,2051,18446744073709551616e-15]");
    static const uint16_t fp16[] = {0x3C00, 0x8000, 0x2E66, 0x7BFF, 0xFBFF, 0x6800, 0x6802, 0x7481};
    assert_int_equal(x->size, sizeof fp16);
    assert_memory_equal(x->data, fp16, sizeof fp16);
    x = decoded(f, "BF16", "[3,2]", "[[1,-0.1],[3.3895314e38,257],[259,1e-41]]");
    static const uint16_t bf16[] = {0x3F80, 0xBDCD, 0x7F7F, 0x4380, 0x4382, 0x0000};
    assert_int_equal(x->size, sizeof bf16);
    assert_memory_equal(x->data, bf16, sizeof bf16);
    assert_int_equal(decoded(f, "BF16", "[0,2]", "[]")->size, 0);
    refused(f, "FP16", "[2]", "[1,65520]",
            "element 1 of its data is 65520; FP16 takes numbers of magnitude up to 65504");
    refused(f, "FP16", "[1]", "[-1e9]", "element 0 of its data is -1000000000.0; FP16");
    refused(f, "FP16", "[1]", "[1e400]", "is 1e400; FP16");
    refused(f, "FP16", "[1]", "[\"1\"]", "is a string; FP16");
    refused(f, "FP16", "[1]", "[null]", "is null; FP16");
    refused(f, "BF16", "[1]", "[3.4e38]", "BF16 takes numbers of magnitude up to 3.3895314e38");
    refused(f, "BF16", "[1]", "[true]", "is true; BF16");
}

static void test_bytes(void **state)
{
    struct fixture *f = *state;
    const struct tensor_view *x = decoded(f, "BYTES", "[2,2]", "[\"ab\",\"\",\"\\u0000\\u00e9\",\"\\\"\"]");
    static const char expected[] = "\2\0\0\0ab\0\0\0\0\3\0\0\0\0\303\251\1\0\0\0\"";
    assert_int_equal(x->size, sizeof expected - 1);
    assert_memory_equal(x->data, expected, sizeof expected - 1);
    x = decoded(f, "BYTES", "[2,1]", "[[\"ab\"],[\"c\"]]");
    assert_int_equal(x->size, 11);
    assert_memory_equal(x->data, "\2\0\0\0ab\1\0\0\0c", 11);
    x = decoded(f, "BYTES", "[0]", "[]");
    assert_int_equal(x->size, 0);
    refused(f, "BYTES", "[2]", "[\"a\",1]", "element 1 of its data is 1; BYTES takes strings");
    refused(f, "BYTES", "[1,1]", "[[[\"a\"]]]", "element 0 of its data is an array; BYTES takes strings");
}

static void test_flat_and_nested(void **state)
{
    struct fixture *f = *state;
    static const int16_t expected[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    static const char *const forms[] = {
        "[1,2,3,4,5,6,7,8,9,10,11,12]",
        "[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]]]",
        " [ [ [1,2,3],[4,5,6] ] , [ [7,8,9],[10,11,12] ] ] ",
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const struct tensor_view *x = decoded(f, "INT16", "[2,2,3]", forms[i]);
        assert_int_equal(x->size, sizeof expected);
        assert_memory_equal(x->data, expected, sizeof expected);
    }
    decoded(f, "INT16", "[1,1,1,1,1,1,1,1]", "[[[[[[[[7]]]]]]]]");
    decoded(f, "INT16", "[0]", "[]");
    decoded(f, "INT16", "[3,0]", "[]");
    decoded(f, "INT16", "[3,0]", "[[],[],[]]");
    decoded(f, "INT16", "[0,9223372036854775807]", "[]");
}

static void test_mismatch(void **state)
{
    struct fixture *f = *state;
    refused(f, "INT8", "[2,3]", "[1,2,3,4,5]", "input \"x\": the shape [2,3] has 6 elements, but its data has 5");
    refused(f, "INT8", "[2,3]", "[1,2,3,4,5,6,7]", "has 6 elements, but its data has 7");
    refused(f, "INT8", "[2,3]", "[]", "has 6 elements, but its data has 0");
    refused(f, "INT8", "[]", "[]", "the shape [] has 1 elements, but its data has 0");
    refused(f, "INT8", "[]", "[[1]]", "element 0 of its data is an array");
    refused(f, "INT8", "[0]", "[1]", "has 0 elements, but its data has 1");
    refused(f, "INT8", "[2,2]", "[1,[2],3,4]", "element 1 of its data is an array");
    refused(f, "INT8", "[2,2]", "[[1,2],3]", "nested 1 deep beside element 2, but the shape [2,2] has 2 dimensions");
    refused(f, "INT8", "[2,2]", "[[1,2],[3]]",
            "an array at depth 1 of its data has 1 entries at element 2, but the shape [2,2] needs 2");
    refused(f, "INT8", "[2,2]", "[[1,2],[3,4,5]]", "has 3 entries at element 2");
    refused(f, "INT8", "[2,2]", "[[1,2,3,4]]", "an array at depth 0 of its data has 1 entries");
    refused(f, "INT8", "[2,2]", "[[1,2],[3,4],[5,6]]", "depth 0 of its data has 3 entries");
    refused(f, "INT8", "[2,2]", "[[[1],[2]],[[3],[4]]]", "element 0 of its data is an array");
    refused(f, "INT8", "[4]", "[[1,2,3,4]]", "has 1 entries at element 0, but the shape [4] needs 4");
    refused(f, "INT8", "[1]", "[[1]]", "element 0 of its data is an array");
    refused(f, "INT8", "[2,0]", "[[],[1]]", "has 1 entries");
    refused(f, "INT8", "[1000000,1000000]", "[[1]]", "has 1000000000000 elements, but its data has fewer");
    refused(f, "INT8", "[0,5]", "[[1,2,3,4,5]]", "depth 0 of its data has 1 entries at element 0");
}

/* Over 600 bytes: parsed on the heap. */
static void test_large(void **state)
{
    struct fixture *f = *state;
    enum { N = 20000 };
    struct buf data;
    buf_init(&data, 4 * MIB);
    for (int nested = 0; nested < 2; nested++) {
        buf_clear(&data);
        buf_append_char(&data, '[');
        for (int i = 0; i < N; i++) {
            if (nested && i % 100 == 0)
                buf_append_text(&data, i ? "],[" : "[");
            else if (i)
                buf_append_char(&data, ',');
            buf_format(&data, "%.9g", (double)((float)i / 7.0f));
        }
        buf_append_text(&data, nested ? "]]" : "]");
        const struct tensor_view *x = decoded(f, "FP32", "[200,100]", buf_terminate(&data));
        for (int i = 0; i < N; i++)
            assert_true(((const float *)x->data)[i] == (float)i / 7.0f);
    }
    buf_done(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_fixture(test_integer_ranges),
        with_fixture(test_bool),
        with_fixture(test_fp32),
        with_fixture(test_fp64),
        with_fixture(test_half),
        with_fixture(test_bytes),
        with_fixture(test_flat_and_nested),
        with_fixture(test_mismatch),
        with_fixture(test_large),
    };
    return cmocka_run_group_tests_name("oip_data", tests, NULL, NULL);
}
