#include "oip_fixture.h"

static struct tensor_signature signature;

static void set_signature(bool batchable)
{
    memset(&signature, 0, sizeof signature);
    signature.batchable = batchable;
    signature.n_inputs = 3;
    signature.n_outputs = 2;
    signature.inputs[0] = (struct tensor_spec){"a", TENSOR_FP32, {2, {-1, 2}}};
    signature.inputs[1] = (struct tensor_spec){"b", TENSOR_INT8, {2, {-1, -1}}};
    signature.inputs[2] = (struct tensor_spec){"c", TENSOR_UINT8, {1, {-1}}};
    signature.outputs[0] = (struct tensor_spec){"y", TENSOR_FP32, {2, {-1, 2}}};
    signature.outputs[1] = (struct tensor_spec){"z", TENSOR_FP32, {2, {-1, 2}}};
}

#define A(rows, data)  "{\"name\":\"a\",\"shape\":[" rows ",2],\"datatype\":\"FP32\",\"data\":[" data "]}"
#define B(shape, data) "{\"name\":\"b\",\"shape\":[" shape "],\"datatype\":\"INT8\",\"data\":[" data "]}"
#define C(rows, data)  "{\"name\":\"c\",\"shape\":[" rows "],\"datatype\":\"UINT8\",\"data\":[" data "]}"

static int check(struct fixture *f, const char *inputs, const char *outputs, uint32_t *rows)
{
    char json[1024];
    (void)snprintf(json, sizeof json, "{\"inputs\":[%s],\"outputs\":[%s]}", inputs, outputs);
    assert_int_equal(decode(f, json), 0);
    return oip_request_check(&f->request, &signature, rows, &f->err);
}

static void refused(struct fixture *f, const char *inputs, const char *outputs, const char *text)
{
    uint32_t rows = 77;
    assert_int_equal(check(f, inputs, outputs, &rows), -ERROR_INVALID_TENSOR);
    assert_text(f, text);
    assert_int_equal(rows, 77);
}

static void test_every_order(void **state)
{
    struct fixture *f = *state;
    set_signature(true);
    static const char *const orders[] = {
        A("2", "1,2,3,4") "," B("2,1", "1,2") "," C("2", "1,2"),
        A("2", "1,2,3,4") "," C("2", "1,2") "," B("2,1", "1,2"),
        B("2,1", "1,2") "," A("2", "1,2,3,4") "," C("2", "1,2"),
        B("2,1", "1,2") "," C("2", "1,2") "," A("2", "1,2,3,4"),
        C("2", "1,2") "," A("2", "1,2,3,4") "," B("2,1", "1,2"),
        C("2", "1,2") "," B("2,1", "1,2") "," A("2", "1,2,3,4"),
    };
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        uint32_t rows = 0;
        assert_int_equal(check(f, orders[i], "{\"name\":\"z\"},{\"name\":\"y\"}", &rows), 0);
        assert_int_equal(rows, 2);
        assert_str(f->request.inputs[0].name, "a");
        assert_int_equal(f->request.inputs[0].size, 16);
        assert_str(f->request.inputs[1].name, "b");
        assert_int_equal(f->request.inputs[1].dtype, TENSOR_INT8);
        assert_str(f->request.inputs[2].name, "c");
        assert_int_equal(f->request.inputs[2].shape.rank, 1);
        assert_str(f->request.outputs[0].name, "z"); /* wishes keep their own order */
    }
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    set_signature(true);
    refused(f, "", "", "Input \"a\" is missing; the model expects FP32 [-1,2].");
    refused(f, A("1", "1,2") "," C("1", "1"), "", "Input \"b\" is missing; the model expects INT8 [-1,-1].");
    refused(f, A("1", "1,2") "," A("1", "1,2"), "", "Input \"a\" is there twice.");
    refused(f, "{\"name\":\"q\",\"shape\":[0],\"datatype\":\"INT8\",\"data\":[]}", "",
            "The model has no input \"q\"; it has \"a\", \"b\", \"c\".");
    const char *all = A("1", "1,2") "," B("1,1", "1") "," C("1", "1");
    refused(f, all, "{\"name\":\"a\"}", "The model has no output \"a\"; it has \"y\", \"z\".");
    refused(f, all, "{\"name\":\"y\"},{\"name\":\"y\"}", "Output \"y\" is asked for twice.");
}

static void test_dtype_and_shape(void **state)
{
    struct fixture *f = *state;
    set_signature(true);
    refused(f, "{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP64\",\"data\":[1,2]}", "",
            "Input \"a\" is FP64 [1,2], but the model expects FP32 [-1,2] (-1: any size).");
    refused(f, "{\"name\":\"a\",\"shape\":[1,3],\"datatype\":\"FP32\",\"data\":[1,2,3]}", "",
            "Input \"a\" is FP32 [1,3], but the model expects FP32 [-1,2]");
    refused(f, "{\"name\":\"a\",\"shape\":[2],\"datatype\":\"FP32\",\"data\":[1,2]}", "", "is FP32 [2], but");
    set_signature(false);
    signature.inputs[0].shape.dims[0] = 1;
    refused(f, "{\"name\":\"a\",\"shape\":[2,1],\"datatype\":\"FP32\",\"data\":[1,2]}", "",
            "but the model expects FP32 [1,2].");
}

static void test_rows(void **state)
{
    struct fixture *f = *state;
    uint32_t rows = 0;
    set_signature(true);
    assert_int_equal(check(f, A("0", "") "," B("0,1", "") "," C("0", ""), "", &rows), 0);
    assert_int_equal(rows, 0);
    refused(f, A("0", "") "," B("1,1", "1") "," C("0", ""), "",
            "must be equal in all inputs; it is 0 in the first one and 1 in \"b\".");
    refused(f, A("1", "1,2") "," B("2,1", "1,2") "," C("1", "1"), "",
            "must be equal in all inputs; it is 1 in the first one and 2 in \"b\".");
    signature.n_inputs = 1;
    signature.inputs[0] = signature.inputs[1];
    refused(f, B("4294967296,0", ""), "", "must be from 0 to 4294967295, not 4294967296.");
    assert_int_equal(check(f, B("4294967295,0", ""), "", &rows), 0);
    assert_int_equal(rows, UINT32_MAX);
    signature.batchable = false;
    assert_int_equal(check(f, B("0,5", ""), "", &rows), 0);
    assert_int_equal(rows, 1);
    signature.n_inputs = 0;
    signature.batchable = true;
    assert_int_equal(check(f, "", "", &rows), 0);
    assert_int_equal(rows, 1);
    refused(f, C("1", "1"), "", "The model has no input \"c\"; it has none.");
}

/* Many long names: the message is cut between names. */
static void test_many_names(void **state)
{
    struct fixture *f = *state;
    memset(&signature, 0, sizeof signature);
    signature.n_inputs = LIMIT_TENSORS;
    for (uint32_t i = 0; i < LIMIT_TENSORS; i++) {
        memset(signature.inputs[i].name, 'n', LIMIT_TENSOR_NAME_BYTES);
        signature.inputs[i].name[0] = (char)('0' + i);
    }
    refused(f, C("1", "1"), "", "The model has no input \"c\"; it has \"0nnn");
    assert_text(f, "\", ….");
    assert_true(str_is_utf8(str_from(f->err.text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_fixture(test_every_order), with_fixture(test_names),      with_fixture(test_dtype_and_shape),
        with_fixture(test_rows),        with_fixture(test_many_names),
    };
    return cmocka_run_group_tests_name("oip_check", tests, NULL, NULL);
}
