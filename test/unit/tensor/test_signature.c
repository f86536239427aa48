#include "tensor/tensor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* By member: padding stays as it is, so that whole signatures can be compared. */
static void set_spec(struct tensor_spec *spec, const char *name, enum tensor_dtype dtype, struct tensor_shape shape)
{
    assert_int_equal(str_copy(str_from(name), spec->name, sizeof spec->name), 0);
    spec->dtype = dtype;
    spec->shape.rank = shape.rank;
    memcpy(spec->shape.dims, shape.dims, sizeof shape.dims);
}

static struct tensor_signature *small_signature(void)
{
    static struct tensor_signature s;
    memset(&s, 0, sizeof s);
    s.n_inputs = 2;
    s.n_outputs = 1;
    s.batchable = true;
    memcpy(s.platform, "onnxruntime_onnx", sizeof "onnxruntime_onnx");
    set_spec(&s.inputs[0], "image", TENSOR_FP32, (struct tensor_shape){4, {-1, 3, 224, 224}});
    set_spec(&s.inputs[1], "größe", TENSOR_INT64, (struct tensor_shape){2, {-1, -1}});
    set_spec(&s.outputs[0], "label", TENSOR_BYTES, (struct tensor_shape){1, {-1}});
    return &s;
}

static size_t encode(const struct tensor_signature *s, uint8_t *data)
{
    size_t size = 0;
    assert_int_equal(tensor_signature_encode(s, data, TENSOR_SIGNATURE_BYTES_MAX, &size), 0);
    return size;
}

static void test_round_trip(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    static struct tensor_signature back;
    struct tensor_signature *s = small_signature();
    size_t size = encode(s, data);
    assert_int_equal(size, 5 + 16 + (2 + 32 + 1 + 5) + (2 + 16 + 1 + 7) + (2 + 8 + 1 + 5));
    struct error err = {0};
    memset(&back, 0x55, sizeof back);
    assert_int_equal(tensor_signature_decode(data, size, &back, &err), 0);
    assert_memory_equal(&back, s, sizeof back); /* every byte is set, so that a copy leaks nothing */
}

static void test_largest(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    static struct tensor_signature s, back;
    s.n_inputs = s.n_outputs = LIMIT_TENSORS;
    memset(s.platform, 'p', sizeof s.platform - 1);
    for (uint32_t i = 0; i < LIMIT_TENSORS; i++) {
        memset(s.inputs[i].name, 'n', LIMIT_TENSOR_NAME_BYTES);
        s.inputs[i].name[0] = (char)('0' + i);
        s.inputs[i].dtype = TENSOR_BF16;
        s.inputs[i].shape.rank = LIMIT_TENSOR_RANK;
        for (uint32_t k = 0; k < LIMIT_TENSOR_RANK; k++)
            s.inputs[i].shape.dims[k] = k % 2 ? -1 : 1 << k;
        s.outputs[i] = s.inputs[i];
    }
    size_t size = encode(&s, data), unused = 7;
    assert_int_equal(tensor_signature_decode(data, size, &back, NULL), 0);
    assert_memory_equal(&back, &s, sizeof s);
    assert_int_equal(tensor_signature_encode(&s, data, size - 1, &unused), -ERROR_LIMIT);
    assert_int_equal(unused, 7);
    s.n_inputs++;
    assert_int_equal(tensor_signature_encode(&s, data, sizeof data, &unused), -ERROR_LIMIT);
}

static void refuse(const uint8_t *data, size_t size)
{
    static struct tensor_signature back, before;
    struct error err = {0};
    memset(&back, 0x55, sizeof back);
    memset(&before, 0x55, sizeof before);
    assert_int_equal(tensor_signature_decode(data, size, &back, &err), -ERROR_PEER);
    assert_non_null(strstr(err.text, "A worker described its model wrongly"));
    assert_memory_equal(&back, &before, sizeof back);
}

static void test_cut_and_longer(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    size_t size = encode(small_signature(), data);
    for (size_t cut = 0; cut < size; cut++)
        refuse(data, cut);
    data[size] = 0;
    refuse(data, size + 1);
}

static void change(size_t at, uint8_t value)
{
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    size_t size = encode(small_signature(), data);
    assert_true(at < size);
    data[at] = value;
    refuse(data, size);
}

static void test_out_of_range(void **state)
{
    (void)state;
    change(0, 2);                   /* version */
    change(1, LIMIT_TENSORS + 1);   /* inputs */
    change(2, LIMIT_TENSORS + 1);   /* outputs */
    change(3, 2);                   /* flag */
    change(4, 32);                  /* platform too long */
    change(5, 0xFF);                /* platform no UTF-8 */
    change(21, TENSOR_INVALID);     /* datatype */
    change(21, TENSOR_DTYPE_COUNT); /* datatype */
    change(22, LIMIT_TENSOR_RANK + 1);
    change(22, 0);    /* rank 0 in a batchable model */
    change(23, 1);    /* batch axis not dynamic: 0xFF…01 = -255 */
    change(38, 0x80); /* dim 1: negative */
    change(38, 0x7F); /* dim 1: product overflows */
    change(55, 0);    /* no name */
    change(56, 0);    /* NUL in a name */
    change(56, 0xC0); /* no UTF-8 */
}

static void test_duplicates(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    static struct tensor_signature back;
    struct tensor_signature *s = small_signature();
    s->outputs[0] = s->inputs[0]; /* the same name in both lists is fine: identity has that */
    assert_int_equal(tensor_signature_decode(data, encode(s, data), &back, NULL), 0);
    s->inputs[1] = s->inputs[0];
    refuse(data, encode(s, data));
}

static void test_not_batchable(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    static struct tensor_signature back;
    struct tensor_signature *s = small_signature();
    s->inputs[0].shape.dims[0] = 8;
    refuse(data, encode(s, data));
    s->batchable = false;
    s->outputs[0].shape.rank = 0;
    assert_int_equal(tensor_signature_decode(data, encode(s, data), &back, NULL), 0);
    assert_int_equal(back.inputs[0].shape.dims[0], 8);
}

static void test_empty(void **state)
{
    (void)state;
    static struct tensor_signature s, back;
    uint8_t data[8];
    size_t size = 0;
    memset(&s, 0, sizeof s);
    assert_int_equal(tensor_signature_encode(&s, data, sizeof data, &size), 0);
    assert_int_equal(size, 5);
    assert_int_equal(tensor_signature_decode(data, size, &back, NULL), 0);
    assert_memory_equal(&back, &s, sizeof s);
}

static void test_language_model(void **state)
{
    (void)state;
    static uint8_t data[TENSOR_SIGNATURE_BYTES_MAX];
    static struct tensor_signature s, got;
    s.token = (struct tensor_token_model){
        TENSOR_TOKEN_CHAT | TENSOR_TOKEN_ANSWER, 2048, 8192, LIMIT_SEQUENCES, 259, 64, 77 * GIB};
    memcpy(s.platform, "llamacpp_gguf", sizeof "llamacpp_gguf");
    size_t size = encode(&s, data);
    assert_int_equal(tensor_signature_decode(data, size, &got, NULL), 0);
    assert_memory_equal(&got.token, &s.token, sizeof s.token);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(tensor_signature_decode(data, cut, &got, NULL), -ERROR_PEER);
    const struct tensor_token_model lies[] = {
        {TENSOR_TOKEN_CHAT, 1, 1, 1, 1, 1},
        {TENSOR_TOKEN_FLAGS_ALL + 1, 1, 1, 1, 1, 1},
        {TENSOR_TOKEN_ANSWER, 0, 1, 1, 1, 1},
        {TENSOR_TOKEN_ANSWER, 2, 1, 1, 1, 1},
        {TENSOR_TOKEN_ANSWER, 1, 1, LIMIT_SEQUENCES + 1, 1, 1},
        {TENSOR_TOKEN_ANSWER, 1, 1, 1, 1, 1, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        s.token = lies[i];
        size = encode(&s, data);
        assert_int_equal(tensor_signature_decode(data, size, &got, NULL), -ERROR_PEER);
    }
    s.token = (struct tensor_token_model){TENSOR_TOKEN_ANSWER, 1, 1, 1, 1, 1};
    s.n_inputs = 1;
    set_spec(&s.inputs[0], "x", TENSOR_FP32, (struct tensor_shape){1, {-1}});
    size = encode(&s, data);
    assert_int_equal(tensor_signature_decode(data, size, &got, NULL), -ERROR_PEER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_language_model), cmocka_unit_test(test_largest),
        cmocka_unit_test(test_cut_and_longer), cmocka_unit_test(test_out_of_range),   cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_not_batchable),  cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests_name("signature", tests, NULL, NULL);
}
