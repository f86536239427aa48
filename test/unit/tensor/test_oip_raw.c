#include "oip_fixture.h"

static struct tensor_signature signature;

static void model(bool batchable, enum tensor_dtype dtype, struct tensor_shape shape)
{
    memset(&signature, 0, sizeof signature);
    signature.batchable = batchable;
    signature.n_inputs = 1;
    signature.inputs[0] = (struct tensor_spec){.name = "x", .dtype = dtype, .shape = shape};
}

static int raw(struct fixture *f, const void *data, size_t size)
{
    free(f->body);
    f->body = malloc(size > 0 ? size : 1);
    assert_non_null(f->body);
    if (size > 0)
        memcpy(f->body, data, size);
    memset(&f->request, 0xA5, sizeof f->request);
    f->err = (struct error){0};
    return oip_request_raw((struct str){f->body, size}, &signature, &f->arena, &f->request, &f->err);
}

/* Takes `size` zero bytes as a tensor of that shape. */
static void takes(struct fixture *f, size_t size, const char *shape)
{
    static const char zeros[4096];
    char text[96];
    uint32_t rows = 0;
    if (raw(f, zeros, size) < 0)
        fail_msg("%s", f->err.text);
    assert_int_equal(f->request.n_inputs, 1);
    assert_string_equal(tensor_shape_text(&f->request.inputs[0].shape, text, sizeof text), shape);
    assert_ptr_equal(f->request.inputs[0].data, f->body);
    assert_int_equal(f->request.inputs[0].size, size);
    assert_int_equal(oip_request_check(&f->request, &signature, &rows, &f->err), 0);
    assert_int_equal(rows, 1);
}

static void refuses(struct fixture *f, size_t size, int code, const char *text)
{
    static const char zeros[4096];
    assert_int_equal(raw(f, zeros, size), code);
    if (!strstr(f->err.text, text))
        fail_msg("%s", f->err.text);
}

static void test_shapes(void **state)
{
    struct fixture *f = *state;
    model(true, TENSOR_FP32, (struct tensor_shape){2, {-1, 4}});
    takes(f, 16, "[1,4]");
    refuses(f, 32, -ERROR_INVALID_TENSOR, "input \"x\" of a raw request: FP32 [1,4] has 4 elements");
    refuses(f, 0, -ERROR_INVALID_TENSOR, "but the data is 0 bytes");
    model(true, TENSOR_INT16, (struct tensor_shape){3, {-1, -1, 3}});
    takes(f, 12, "[1,2,3]");
    takes(f, 0, "[1,0,3]");
    refuses(f, 13, -ERROR_INVALID_TENSOR, "are no multiple of 6");
    model(false, TENSOR_INT16, (struct tensor_shape){2, {2, -1}});
    takes(f, 12, "[2,3]");
    model(false, TENSOR_FP64, (struct tensor_shape){0, {0}});
    takes(f, 8, "[]");
    model(true, TENSOR_FP64, (struct tensor_shape){1, {-1}});
    takes(f, 8, "[1]");
    model(true, TENSOR_FP64, (struct tensor_shape){3, {-1, -1, -1}});
    refuses(f, 8, -ERROR_INVALID_REQUEST,
            "cannot tell the shape of input \"x\", which is FP64 [-1,-1,-1]: more than one dimension is open");
    model(false, TENSOR_FP64, (struct tensor_shape){2, {-1, 0}});
    refuses(f, 0, -ERROR_INVALID_REQUEST, "another dimension is zero");
    model(false, TENSOR_FP64, (struct tensor_shape){3, {INT64_MAX, -1, 2}});
    refuses(f, 8, -ERROR_INVALID_REQUEST, "more elements than can be counted");
    model(false, TENSOR_FP64, (struct tensor_shape){1, {INT64_MAX}});
    refuses(f, 8, -ERROR_INVALID_REQUEST, "more elements than can be counted");
}

static void test_wishes(void **state)
{
    struct fixture *f = *state;
    model(true, TENSOR_BOOL, (struct tensor_shape){2, {-1, 2}});
    takes(f, 2, "[1,2]");
    assert_null(f->request.id.data);
    assert_int_equal(f->request.n_outputs, 0);
    assert_true(f->request.binary_output_default);
    assert_int_equal(f->request.timeout_us, 0);
    assert_int_equal(raw(f, "\1\2", 2), -ERROR_INVALID_TENSOR);
    assert_string_equal(f->err.text, "input \"x\" of a raw request: BOOL element 1 is byte 2; only 0 and 1 are BOOL");
    signature.n_inputs = 2;
    refuses(f, 2, -ERROR_INVALID_REQUEST, "for models with one input; this one has 2");
    signature.n_inputs = 0;
    refuses(f, 0, -ERROR_INVALID_REQUEST, "this one has 0");
}

static void test_bytes(void **state)
{
    struct fixture *f = *state;
    static const struct tensor_shape shapes[] = {{1, {-1}}, {2, {-1, 1}}, {3, {-1, 1, -1}}};
    uint32_t rows;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        model(true, TENSOR_BYTES, shapes[i]);
        assert_int_equal(raw(f, "\377ab", 3), 0);
        assert_int_equal(f->request.inputs[0].size, 7);
        assert_memory_equal(f->request.inputs[0].data, "\3\0\0\0\377ab", 7);
        assert_int_equal(oip_request_check(&f->request, &signature, &rows, &f->err), 0);
        assert_int_equal(raw(f, NULL, 0), 0);
        assert_memory_equal(f->request.inputs[0].data, "\0\0\0\0", 4);
    }
    model(true, TENSOR_BYTES, (struct tensor_shape){2, {-1, 2}});
    refuses(f, 3, -ERROR_INVALID_REQUEST, "BYTES [-1,2]: the body is one element of BYTES");
    model(false, TENSOR_BYTES, (struct tensor_shape){1, {-1}});
    static char large[4096];
    arena_done(&f->arena);
    arena_init(&f->arena, sizeof large);
    assert_int_equal(raw(f, large, sizeof large), -ERROR_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shapes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_wishes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bytes, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("oip_raw", tests, NULL, NULL);
}
