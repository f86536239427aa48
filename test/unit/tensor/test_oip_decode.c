#include "oip_fixture.h"

#define X "{\"name\":\"x\",\"shape\":[2],\"datatype\":\"UINT8\",\"data\":[1,2]}"
#define BINARY_X(size) \
    "{\"name\":\"x\",\"shape\":[2],\"datatype\":\"UINT16\",\"parameters\":{\"binary_data_size\":" size "}}"

static void refused(struct fixture *f, const char *json, int code, const char *text)
{
    memset(&f->request, 0x55, sizeof f->request);
    static struct oip_request before;
    before = f->request;
    int status = decode(f, json);
    if (status != code)
        fail_msg("%d instead of %d for %s: %s", status, code, json, f->err.text);
    assert_int_equal(f->err.code, code);
    assert_text(f, text);
    assert_memory_equal(&f->request, &before, sizeof before);
}

static void test_hot(void **state)
{
    struct fixture *f = *state;
    float values[64];
    for (int i = 0; i < 64; i++)
        values[i] = (float)i;
    assert_int_equal(decode_with(f,
                                 "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,64],\"datatype\":\"FP32\",\"parameters\":{"
                                 "\"binary_data_size\":256}}],\"outputs\":[{\"name\":\"x\",\"parameters\":{"
                                 "\"binary_data\":true}}]}",
                                 values, sizeof values),
                     0);
    const struct tensor_view *x = &f->request.inputs[0];
    assert_int_equal(f->request.n_inputs, 1);
    assert_str(x->name, "x");
    assert_int_equal(x->dtype, TENSOR_FP32);
    assert_true(tensor_shape_equal(&x->shape, &(struct tensor_shape){2, {1, 64}}));
    assert_int_equal(x->size, 256);
    assert_memory_equal(x->data, values, 256);
    assert_int_equal(f->request.n_outputs, 1);
    assert_str(f->request.outputs[0].name, "x");
    assert_true(f->request.outputs[0].binary);
    assert_null(f->request.id.data);
    assert_int_equal(f->request.timeout_us, 0);
    /* not copied: the view points behind the JSON */
    assert_in_range((uintptr_t)x->data, (uintptr_t)f->body, (uintptr_t)f->body + 512);
    assert_true(f->arena.bytes <= 4096);
}

static void test_invalid_json(void **state)
{
    struct fixture *f = *state;
    refused(f, "", -ERROR_INVALID_JSON, "holds no JSON");
    refused(f, "{\"inputs\":[\n {\"name\":\"x\",}]}", -ERROR_INVALID_JSON, "line 2, column 13 (byte 24)");
    refused(f, "{\"inputs\":[" X "]", -ERROR_INVALID_JSON, "line 1, column");
    refused(f, "{\"inputs\":[" X "]} x", -ERROR_INVALID_JSON, "not valid JSON");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[NaN]}]}",
            -ERROR_INVALID_JSON, "not valid JSON");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[Infinity]}]}",
            -ERROR_INVALID_JSON, "not valid JSON");
    refused(f, "{\"id\":\"\xff\"}", -ERROR_INVALID_JSON, "not valid JSON");
    refused(f, "{\"id\":\"\\ud800\"}", -ERROR_INVALID_JSON, "not valid JSON");
    refused(f, "{'id':1}", -ERROR_INVALID_JSON, "not valid JSON");
}

static void test_not_an_object(void **state)
{
    struct fixture *f = *state;
    refused(f, "[]", -ERROR_INVALID_REQUEST, "is a JSON object");
    refused(f, "1", -ERROR_INVALID_REQUEST, "is a JSON object");
    refused(f, "{}", -ERROR_INVALID_REQUEST, "no \"inputs\"");
    refused(f, "{\"inputs\":[[]]}", -ERROR_INVALID_REQUEST, "inputs[0] must be an object");
    refused(f, "{\"inputs\":[" X ",7]}", -ERROR_INVALID_REQUEST, "inputs[1] must be an object");
    refused(f, "{\"inputs\":[],\"outputs\":[\"x\"]}", -ERROR_INVALID_REQUEST, "outputs[0] must be an object");
}

static void test_members(void **state)
{
    struct fixture *f = *state;
    refused(f, "{\"inputs\":{}}", -ERROR_INVALID_REQUEST, "The member \"inputs\" of the request must be an array");
    refused(f, "{\"inputs\":null}", -ERROR_INVALID_REQUEST, "must be an array");
    refused(f, "{\"inputs\":[],\"id\":7}", -ERROR_INVALID_REQUEST, "\"id\" of the request must be a string");
    refused(f, "{\"inputs\":[],\"x\":7}", -ERROR_INVALID_REQUEST, "the request has an unknown member \"x\"");
    refused(f, "{\"inputs\":[],\"inputs\":[]}", -ERROR_INVALID_REQUEST, "the member \"inputs\" twice");
    refused(f, "{\"inputs\":[],\"parameters\":[]}", -ERROR_INVALID_REQUEST, "must be an object");
    refused(f, "{\"inputs\":[],\"parameters\":{\"timeout\":-1}}", -ERROR_INVALID_REQUEST, "whole number");
    refused(f, "{\"inputs\":[],\"parameters\":{\"timeout\":1.0}}", -ERROR_INVALID_REQUEST, "whole number");
    refused(f, "{\"inputs\":[],\"parameters\":{\"timeout\":9223372036854775808}}", -ERROR_INVALID_REQUEST, "whole");
    refused(f, "{\"inputs\":[],\"parameters\":{\"timeout\":1,\"timeout\":1}}", -ERROR_INVALID_REQUEST, "twice");
    refused(f, "{\"inputs\":[],\"parameters\":{\"binary_data_output\":1}}", -ERROR_INVALID_REQUEST, "a boolean");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"nama\":1}]}", -ERROR_INVALID_REQUEST,
            "inputs[0] has an unknown member \"nama\"");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"name\":\"x\"}]}", -ERROR_INVALID_REQUEST, "\"name\" twice");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"shape\":[1]}]}", -ERROR_INVALID_REQUEST,
            "\"shape\" twice");
    refused(f, "{\"inputs\":[{\"datatype\":\"FP32\",\"datatype\":\"FP32\"}]}", -ERROR_INVALID_REQUEST,
            "\"datatype\" twice");
    refused(f, "{\"inputs\":[{\"data\":[1],\"data\":[1]}]}", -ERROR_INVALID_REQUEST, "\"data\" twice");
    refused(f, "{\"inputs\":[{\"data\":7}]}", -ERROR_INVALID_REQUEST, "\"data\" of inputs[0] must be an array");
    refused(f, "{\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\"}]}", -ERROR_INVALID_REQUEST,
            "outputs[0] has an unknown member \"datatype\"");
    refused(f, "{\"inputs\":[],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]}",
            -ERROR_INVALID_REQUEST, "\"binary_data\" of output \"y\" must be a boolean");
    refused(f, "{\"inputs\":[" X "],\"outputs\":[{}]}", -ERROR_INVALID_REQUEST, "outputs[0] has no \"name\"");
}

static void test_missing_members(void **state)
{
    struct fixture *f = *state;
    refused(f, "{\"inputs\":[{}]}", -ERROR_INVALID_REQUEST, "inputs[0] has no \"name\"");
    refused(f, "{\"inputs\":[{\"name\":\"x\"}]}", -ERROR_INVALID_REQUEST, "input \"x\" has no \"datatype\"");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\"}]}", -ERROR_INVALID_REQUEST, "no \"shape\"");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1]}]}", -ERROR_INVALID_REQUEST,
            "either \"data\" or the parameter \"binary_data_size\"");
    refused(f,
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1],\"parameters\":{\"binary_"
            "data_size\":1}}]}",
            -ERROR_INVALID_REQUEST, "either \"data\" or");
    refused(f, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT9\",\"shape\":[1],\"data\":[1]}]}",
            -ERROR_INVALID_TENSOR, "input \"x\" has the unknown datatype \"INT9\"; there are BOOL");
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    char json[1024], name[LIMIT_TENSOR_NAME_BYTES + 2];
    memset(name, 'n', sizeof name);
    name[LIMIT_TENSOR_NAME_BYTES] = '\0';
    (void)snprintf(json, sizeof json, "{\"inputs\":[],\"outputs\":[{\"name\":\"%s\"}]}", name);
    assert_int_equal(decode(f, json), 0);
    assert_str(f->request.outputs[0].name, name);
    name[LIMIT_TENSOR_NAME_BYTES] = 'n';
    name[LIMIT_TENSOR_NAME_BYTES + 1] = '\0';
    (void)snprintf(json, sizeof json, "{\"inputs\":[],\"outputs\":[{\"name\":\"%s\"}]}", name);
    refused(f, json, -ERROR_INVALID_REQUEST, "1 to 255 bytes");
    refused(f, "{\"inputs\":[{\"name\":\"\"}]}", -ERROR_INVALID_REQUEST, "1 to 255 bytes");
    refused(f, "{\"inputs\":[{\"name\":\"a\\u0000b\"}]}", -ERROR_INVALID_REQUEST, "no NUL");
    /* a long unknown member is cut at a character's border: 39 × 2 bytes and no half one */
    (void)snprintf(
        json, sizeof json, "{\"a%s\":1}",
        "öööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööööö");
    refused(f, json, -ERROR_INVALID_REQUEST, "ööö\".");
    assert_true(str_is_utf8(str_from(f->err.text)));
}

static void test_id(void **state)
{
    struct fixture *f = *state;
    char json[256], id[LIMIT_REQUEST_ID_BYTES + 2];
    memset(id, 'i', sizeof id);
    id[LIMIT_REQUEST_ID_BYTES] = '\0';
    (void)snprintf(json, sizeof json, "{\"id\":\"%s\",\"inputs\":[]}", id);
    assert_int_equal(decode(f, json), 0);
    assert_str(f->request.id, id);
    id[LIMIT_REQUEST_ID_BYTES] = 'i';
    id[LIMIT_REQUEST_ID_BYTES + 1] = '\0';
    (void)snprintf(json, sizeof json, "{\"id\":\"%s\",\"inputs\":[]}", id);
    refused(f, json, -ERROR_INVALID_REQUEST, "\"id\" has 129 bytes; at most 128");
    assert_int_equal(decode(f, "{\"id\":\"\",\"inputs\":[]}"), 0);
    assert_non_null(f->request.id.data);
    assert_int_equal(f->request.id.size, 0);
    assert_int_equal(decode(f, "{\"id\":\"a\\u0000\\u00e9\",\"inputs\":[]}"), 0);
    assert_int_equal(f->request.id.size, 4);
    assert_memory_equal(f->request.id.data, "a\0é", 4);
}

static void test_parameters(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        decode(f, "{\"parameters\":{\"timeout\":1500,\"priority\":2,\"colour\":{\"a\":[null]},\"sequence_id\":3},"
                  "\"inputs\":[],\"outputs\":[]}"),
        0);
    assert_int_equal(f->request.timeout_us, 1500);
    assert_int_equal(f->request.priority, 2);
    assert_false(f->request.binary_output_default);
    assert_int_equal(f->request.n_inputs, 0);
    assert_int_equal(f->request.n_outputs, 0);
}

static void test_output_choice(void **state)
{
    struct fixture *f = *state;
    const char *rest = "\"outputs\":[{\"name\":\"a\"},{\"name\":\"b\",\"parameters\":{\"binary_data\":false}},"
                       "{\"parameters\":{\"binary_data\":true,\"classification\":2},\"name\":\"c\"}]}";
    char json[512];
    (void)snprintf(json, sizeof json, "{\"inputs\":[],%s", rest);
    assert_int_equal(decode(f, json), 0);
    assert_int_equal(f->request.n_outputs, 3);
    assert_false(f->request.outputs[0].binary);
    assert_false(f->request.outputs[1].binary);
    assert_true(f->request.outputs[2].binary);
    (void)snprintf(json, sizeof json, "{\"inputs\":[],\"parameters\":{\"binary_data_output\":true},%s", rest);
    assert_int_equal(decode(f, json), 0);
    assert_true(f->request.binary_output_default);
    assert_true(f->request.outputs[0].binary);
    assert_false(f->request.outputs[1].binary);
    assert_true(f->request.outputs[2].binary);
}

static void test_shapes(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *shape;
        const char *text;
    } cases[] = {
        {"[-1]", "Dimension 0 in the shape of input \"x\" must be a whole number"},
        {"[2,1.0]", "Dimension 1 in the shape"},
        {"[9223372036854775808]", "Dimension 0 in the shape"},
        {"[18446744073709551616]", "Dimension 0 in the shape"},
        {"[\"2\"]", "Dimension 0 in the shape"},
        {"[4294967296,4294967296]", "[4294967296,4294967296] of input \"x\" has more elements than can be counted"},
        {"[4294967296,4294967296,0]", "more elements than can be counted"},
        {"[1,1,1,1,1,1,1,1,1]", "has 9 dimensions; at most 8"},
        {"[9223372036854775807]", "has 9223372036854775807 elements, but its data has 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(decode_data(f, "FP32", cases[i].shape, "[1]"), -ERROR_INVALID_TENSOR);
        assert_text(f, cases[i].text);
    }
    assert_int_equal(decode_data(f, "FP32", "[1,1,1,1,1,1,1,1]", "[1]"), 0);
    assert_int_equal(decode_data(f, "FP32", "[]", "[1]"), 0);
    assert_int_equal(f->request.inputs[0].shape.rank, 0);
}

static void test_too_many(void **state)
{
    struct fixture *f = *state;
    struct buf json;
    for (unsigned n = LIMIT_TENSORS; n <= LIMIT_TENSORS + 1; n++) {
        buf_init(&json, 64 * KIB);
        buf_append_text(&json, "{\"outputs\":[");
        for (unsigned i = 0; i < n; i++)
            buf_format(&json, "%s{\"name\":\"y%u\"}", i ? "," : "", i);
        buf_append_text(&json, "],\"inputs\":[");
        for (unsigned i = 0; i < LIMIT_TENSORS; i++)
            buf_format(&json, "%s{\"name\":\"x%u\",\"shape\":[1],\"datatype\":\"UINT8\",\"data\":[%u]}", i ? "," : "",
                       i, i);
        buf_append_text(&json, "]}");
        int status = decode(f, buf_terminate(&json));
        buf_done(&json);
        if (n > LIMIT_TENSORS) {
            assert_int_equal(status, -ERROR_INVALID_REQUEST);
            assert_text(f, "\"outputs\" has 65 entries; at most 64");
            continue;
        }
        assert_int_equal(status, 0);
        assert_int_equal(f->request.n_outputs, LIMIT_TENSORS);
        assert_int_equal(f->request.n_inputs, LIMIT_TENSORS);
        assert_int_equal(*(const uint8_t *)f->request.inputs[63].data, 63);
    }
}

static void test_binary_sizes(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("4") "]}", "abcd", 4), 0);
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("4") "]}", "abc", 3), -ERROR_INVALID_TENSOR);
    assert_text(f, "input \"x\": binary_data_size is 4, but only 3 bytes are left");
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("4") "]}", "abcde", 5), -ERROR_INVALID_REQUEST);
    assert_text(f, "1 bytes behind the JSON belong to no input");
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("3") "]}", "abc", 3), -ERROR_INVALID_TENSOR);
    assert_text(f, "input \"x\": UINT16 [2] has 2 elements of 2 bytes, but the data is 3 bytes");
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("5") "]}", "abcde", 5), -ERROR_INVALID_TENSOR);
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("9223372036854775807") "]}", "abcd", 4),
                     -ERROR_INVALID_TENSOR);
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("-4") "]}", "abcd", 4), -ERROR_INVALID_REQUEST);
    assert_int_equal(decode_with(f, "{\"inputs\":[" BINARY_X("\\\"4\\\"") "]}", "abcd", 4), -ERROR_INVALID_JSON);
    assert_int_equal(decode_with(f, "{\"inputs\":[" X "]}", "a", 1), -ERROR_INVALID_REQUEST);
    assert_int_equal(decode_with(f,
                                 "{\"inputs\":[{\"name\":\"x\",\"shape\":[0],\"datatype\":\"FP64\",\"parameters\":{"
                                 "\"binary_data_size\":0}}]}",
                                 NULL, 0),
                     0);
    /* the header says more than there is */
    struct str body = STR("{\"inputs\":[]}");
    assert_int_equal(oip_request_decode(body, body.size, &f->arena, &f->request, &f->err), 0);
    assert_int_equal(oip_request_decode(body, body.size + 1, &f->arena, &f->request, &f->err), -ERROR_INVALID_REQUEST);
    assert_text(f, "Inference-Header-Content-Length says 14 bytes, but the body has only 13");
    assert_int_equal(oip_request_decode(body, 0, &f->arena, &f->request, &f->err), -ERROR_INVALID_JSON);
    assert_int_equal(oip_request_decode((struct str){NULL, 0}, 0, &f->arena, &f->request, &f->err),
                     -ERROR_INVALID_JSON);
}

static void test_binary_order(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        decode_with(f,
                    "{\"inputs\":[" BINARY_X(
                        "4") ",{\"name\":\"j\",\"shape\":[1],\"datatype\":\"INT8\","
                             "\"data\":[-7]},{\"name\":\"b\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{"
                             "\"binary_data_size\":11}}]}",
                    "\1\0\2\0\0\0\0\0\3\0\0\0abc", 15),
        0);
    const struct tensor_view *in = f->request.inputs;
    assert_memory_equal(in[0].data, "\1\0\2\0", 4);
    assert_int_equal(*(const int8_t *)in[1].data, -7);
    assert_int_equal(in[2].size, 11);
    assert_memory_equal(in[2].data, "\0\0\0\0\3\0\0\0abc", 11);
    assert_int_equal((const char *)in[2].data - (const char *)in[0].data, 4);
}

static void test_binary_contents(void **state)
{
    struct fixture *f = *state;
    const char *bytes = "{\"inputs\":[{\"name\":\"s\",\"shape\":[1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_"
                        "data_size\":6}}]}";
    const char *boolean = "{\"inputs\":[{\"name\":\"s\",\"shape\":[2],\"datatype\":\"BOOL\",\"parameters\":{\"binary_"
                          "data_size\":2}}]}";
    assert_int_equal(decode_with(f, bytes, "\2\0\0\0ab", 6), 0);
    assert_int_equal(decode_with(f, bytes, "\3\0\0\0ab", 6), -ERROR_INVALID_TENSOR);
    assert_text(f, "input \"s\": BYTES element 0 of 1 says it is 3 bytes long, but only 2 bytes follow");
    assert_int_equal(decode_with(f, bytes, "\1\0\0\0ab", 6), -ERROR_INVALID_TENSOR);
    assert_text(f, "1 bytes are left");
    assert_int_equal(decode_with(f, boolean, "\0\1", 2), 0);
    assert_int_equal(decode_with(f, boolean, "\0\3", 2), -ERROR_INVALID_TENSOR);
    assert_text(f, "BOOL element 1 is byte 3");
    assert_int_equal(decode_with(f,
                                 "{\"inputs\":[{\"name\":\"h\",\"shape\":[2],\"datatype\":\"FP16\",\"parameters\":{"
                                 "\"binary_data_size\":4}},{\"name\":\"b\",\"shape\":[1],\"datatype\":\"BF16\","
                                 "\"parameters\":{\"binary_data_size\":2}}]}",
                                 "abcdef", 6),
                     0);
}

static void test_deep(void **state)
{
    struct fixture *f = *state;
    enum { DEPTH = 200000 };
    static const char head[] = "{\"inputs\":[],\"parameters\":{\"a\":";
    char *json = malloc(sizeof head + 2 * DEPTH + 3);
    assert_non_null(json);
    memcpy(json, head, sizeof head - 1);
    memset(json + sizeof head - 1, '[', DEPTH);
    memset(json + sizeof head - 1 + DEPTH, ']', DEPTH);
    memcpy(json + sizeof head - 1 + 2 * DEPTH, "}}", 3);
    assert_int_equal(decode(f, json), 0); /* no stack grows with it */
    free(json);
}

static int decode_many(struct fixture *f, const char *before, const char *each, size_t n, const char *after)
{
    size_t size = strlen(before), unit = strlen(each);
    char *json = malloc(size + n * unit + strlen(after) + 1);
    assert_non_null(json);
    memcpy(json, before, size + 1);
    for (size_t i = 0; i < n; i++, size += unit)
        memcpy(json + size, each, unit);
    memcpy(json + size - (n > 0), after, strlen(after) + 1); /* over the last comma */
    int status = decode(f, json);
    free(json);
    return status;
}

/* What takes the gateway's one thread long is refused before it is parsed. */
static void test_values(void **state)
{
    struct fixture *f = *state;
    static const char tensor[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[5242880],\"data\":[";
    arena_done(&f->arena);
    arena_init(&f->arena, 512 * MIB);
    /* its own entries: a member and four of the input, two arrays' first, a dimension */
    assert_int_equal(decode_many(f, tensor, "7,", LIMIT_JSON_ENTRIES - 7, "]}]}"), -ERROR_INVALID_TENSOR);
    assert_non_null(strstr(f->err.text, "has 5242873"));
    assert_int_equal(decode_many(f, tensor, "7,", LIMIT_JSON_ENTRIES - 6, "]}]}"), -ERROR_INVALID_REQUEST);
    assert_non_null(strstr(f->err.text, "binary"));
    static const char parameters[] = "{\"inputs\":[],\"parameters\":{";
    assert_int_equal(decode_many(f, parameters, "\"\":0,", LIMIT_JSON_NODES - 2, "}}"), 0);
    assert_int_equal(decode_many(f, parameters, "\"\":0,", LIMIT_JSON_NODES - 1, "}}"), -ERROR_INVALID_REQUEST);
    assert_non_null(strstr(f->err.text, "131072 members"));
    assert_int_equal(decode_many(f, "{\"inputs\":[],\"parameters\":{\"a\":[", "[],", LIMIT_JSON_ENTRIES, "]}}"),
                     -ERROR_INVALID_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_fixture(test_hot),          with_fixture(test_invalid_json),    with_fixture(test_not_an_object),
        with_fixture(test_members),      with_fixture(test_missing_members), with_fixture(test_names),
        with_fixture(test_id),           with_fixture(test_parameters),      with_fixture(test_output_choice),
        with_fixture(test_shapes),       with_fixture(test_too_many),        with_fixture(test_binary_sizes),
        with_fixture(test_binary_order), with_fixture(test_binary_contents), with_fixture(test_deep),
        with_fixture(test_values),
    };
    return cmocka_run_group_tests_name("oip_decode", tests, NULL, NULL);
}
