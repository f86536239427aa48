#include "tensor/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_dtype_names(void **state)
{
    (void)state;
    for (enum tensor_dtype d = TENSOR_BOOL; d < TENSOR_DTYPE_COUNT; d++)
        assert_int_equal(tensor_dtype_from_name(str_from(tensor_dtype_name(d))), d);
    assert_int_equal(tensor_dtype_from_name(STR("FP8")), TENSOR_INVALID);
    assert_int_equal(tensor_dtype_from_name(STR("fp32")), TENSOR_INVALID);
    assert_int_equal(tensor_dtype_from_name(STR("FP32 ")), TENSOR_INVALID);
    assert_int_equal(tensor_dtype_from_name(STR("?")), TENSOR_INVALID);
    assert_int_equal(tensor_dtype_from_name(STR("")), TENSOR_INVALID);
    assert_string_equal(tensor_dtype_name(TENSOR_INVALID), "?");
    assert_string_equal(tensor_dtype_name((enum tensor_dtype)99), "?");
    assert_int_equal(tensor_dtype_bytes(TENSOR_BYTES), 0);
    assert_int_equal(tensor_dtype_bytes(TENSOR_BF16), 2);
    assert_int_equal(tensor_dtype_bytes(TENSOR_FP64), 8);
    assert_int_equal(tensor_dtype_bytes((enum tensor_dtype)99), 0);
}

static void test_shape_elements(void **state)
{
    (void)state;
    uint64_t n = 77;
    assert_int_equal(tensor_shape_elements(&(struct tensor_shape){0}, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(tensor_shape_elements(&(struct tensor_shape){3, {2, 3, 4}}, &n), 0);
    assert_int_equal(n, 24);
    assert_int_equal(tensor_shape_elements(&(struct tensor_shape){2, {5, 0}}, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(tensor_shape_elements(&(struct tensor_shape){1, {INT64_MAX}}, &n), 0);
    assert_true(n == INT64_MAX);
    n = 77;
    struct tensor_shape bad[] = {
        {1, {-1}},
        {2, {4, INT64_MIN}},
        {2, {INT64_MAX, 2}},
        {2, {(int64_t)1 << 32, (int64_t)1 << 31}},
        {3, {INT64_MAX, 2, 0}}, /* an order in which strides would overflow */
        {3, {0, INT64_MAX, 2}},
        {LIMIT_TENSOR_RANK + 1, {1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(tensor_shape_elements(&bad[i], &n), -ERROR_INVALID_TENSOR);
    assert_int_equal(n, 77);
}

static void test_shape_text(void **state)
{
    (void)state;
    char text[256], small[5];
    assert_string_equal(tensor_shape_text(&(struct tensor_shape){3, {2, -1, 8}}, text, sizeof text), "[2,-1,8]");
    assert_string_equal(tensor_shape_text(&(struct tensor_shape){0}, text, sizeof text), "[]");
    assert_string_equal(tensor_shape_text(&(struct tensor_shape){2, {100, 200}}, small, sizeof small), "[100");
    struct tensor_shape widest = {.rank = LIMIT_TENSOR_RANK};
    for (uint32_t i = 0; i < LIMIT_TENSOR_RANK; i++)
        widest.dims[i] = INT64_MIN;
    assert_int_equal(strlen(tensor_shape_text(&widest, text, sizeof text)), LIMIT_TENSOR_RANK * 21 + 1);
}

static void test_shape_compare(void **state)
{
    (void)state;
    struct tensor_shape a = {2, {3, 4}}, b = {2, {3, 4}}, longer = {3, {3, 4, 1}};
    struct tensor_shape pattern = {2, {-1, 4}}, other = {2, {-1, 5}};
    b.dims[5] = 99; /* behind the rank */
    assert_true(tensor_shape_equal(&a, &b));
    assert_false(tensor_shape_equal(&a, &longer));
    assert_true(tensor_shape_matches(&a, &pattern));
    assert_false(tensor_shape_matches(&a, &other));
    assert_false(tensor_shape_matches(&longer, &pattern));
    assert_false(tensor_shape_matches(&pattern, &pattern)); /* a request's own dims are never dynamic */
}

static void test_data_check_fixed(void **state)
{
    (void)state;
    struct error err = {0};
    struct tensor_shape shape = {2, {2, 3}};
    uint8_t data[64] = {0};
    for (enum tensor_dtype d = TENSOR_BOOL; d < TENSOR_BYTES; d++) {
        size_t size = 6 * tensor_dtype_bytes(d);
        assert_int_equal(tensor_data_check(d, &shape, data, size, &err), 0);
        assert_int_equal(tensor_data_check(d, &shape, data, size - 1, &err), -ERROR_INVALID_TENSOR);
        assert_int_equal(tensor_data_check(d, &shape, data, size + 1, &err), -ERROR_INVALID_TENSOR);
        assert_int_equal(tensor_data_check(d, &shape, data, 0, NULL), -ERROR_INVALID_TENSOR);
        assert_int_equal(tensor_data_prefix(d, data, size, 4), 4 * tensor_dtype_bytes(d));
    }
    assert_int_equal(tensor_data_check(TENSOR_FP32, &shape, data, 23, &err), -ERROR_INVALID_TENSOR);
    assert_string_equal(err.text, "FP32 [2,3] has 6 elements of 4 bytes, but the data is 23 bytes");
    assert_int_equal(tensor_data_check(TENSOR_INVALID, &shape, data, 0, &err), -ERROR_INVALID_TENSOR);
    assert_int_equal(tensor_data_check(TENSOR_DTYPE_COUNT, &shape, data, 0, &err), -ERROR_INVALID_TENSOR);
    struct tensor_shape empty = {2, {0, 3}}, huge = {1, {INT64_MAX}}, negative = {1, {-6}};
    assert_int_equal(tensor_data_check(TENSOR_FP64, &empty, NULL, 0, &err), 0);
    assert_int_equal(tensor_data_check(TENSOR_FP64, &huge, data, (size_t)INT64_MAX * 8, &err), -ERROR_INVALID_TENSOR);
    assert_int_equal(tensor_data_check(TENSOR_UINT8, &negative, data, 6, &err), -ERROR_INVALID_TENSOR);
}

static void test_data_check_bool(void **state)
{
    (void)state;
    struct error err = {0};
    uint8_t data[] = {0, 1, 1, 0, 2};
    struct tensor_shape four = {1, {4}}, five = {1, {5}};
    assert_int_equal(tensor_data_check(TENSOR_BOOL, &four, data, 4, &err), 0);
    assert_int_equal(tensor_data_check(TENSOR_BOOL, &five, data, 5, &err), -ERROR_INVALID_TENSOR);
    assert_string_equal(err.text, "BOOL element 4 is byte 2; only 0 and 1 are BOOL");
}

static void test_data_check_bytes(void **state)
{
    (void)state;
    struct error err = {0};
    const char data[] = "\2\0\0\0ab\0\0\0\0\1\0\0\0c";
    size_t size = sizeof data - 1;
    struct tensor_shape three = {1, {3}}, two = {1, {2}}, four = {1, {4}}, none = {1, {0}};
    struct tensor_shape huge = {2, {(int64_t)1 << 40, (int64_t)1 << 20}};
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &three, data, size, &err), 0);
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &none, data, 0, &err), 0);
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &two, data, size, &err), -ERROR_INVALID_TENSOR);
    assert_string_equal(err.text, "5 bytes are left behind the last of 2 BYTES elements");
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &four, data, size, &err), -ERROR_INVALID_TENSOR);
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &huge, data, size, &err), -ERROR_INVALID_TENSOR);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(tensor_data_check(TENSOR_BYTES, &three, data, cut, &err), -ERROR_INVALID_TENSOR);
    assert_int_equal(tensor_data_check(TENSOR_BYTES, &(struct tensor_shape){0}, "\377\377\377\377x", 5, &err),
                     -ERROR_INVALID_TENSOR);
    assert_string_equal(err.text, "BYTES element 0 of 1 says it is 4294967295 bytes long, but only 1 bytes follow");
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, size, 0), 0);
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, size, 1), 6);
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, size, 2), 10);
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, size, 3), size);
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, size, 9), size); /* unchecked data: never beyond */
    assert_int_equal(tensor_data_prefix(TENSOR_BYTES, data, 5, 1), 5);
}

static void test_spec_find(void **state)
{
    (void)state;
    static struct tensor_spec specs[3] = {{.name = "a"}, {.name = "ab"}, {.name = ""}};
    memset(specs[2].name, 'n', LIMIT_TENSOR_NAME_BYTES);
    char longer[LIMIT_TENSOR_NAME_BYTES + 1];
    memset(longer, 'n', sizeof longer);
    assert_int_equal(tensor_spec_find(specs, 3, STR("a")), 0);
    assert_int_equal(tensor_spec_find(specs, 3, STR("ab")), 1);
    assert_int_equal(tensor_spec_find(specs, 1, STR("ab")), -1);
    assert_int_equal(tensor_spec_find(specs, 3, STR("a\0")), -1);
    assert_int_equal(tensor_spec_find(specs, 3, STR("")), -1);
    assert_int_equal(tensor_spec_find(specs, 3, (struct str){longer, sizeof longer - 1}), 2);
    assert_int_equal(tensor_spec_find(specs, 3, (struct str){longer, sizeof longer}), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype_names),      cmocka_unit_test(test_shape_elements),
        cmocka_unit_test(test_shape_text),       cmocka_unit_test(test_shape_compare),
        cmocka_unit_test(test_data_check_fixed), cmocka_unit_test(test_data_check_bool),
        cmocka_unit_test(test_data_check_bytes), cmocka_unit_test(test_spec_find),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
