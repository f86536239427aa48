#include "resource_fixture.h"

static void encode_text(const union resource_any *r, const char *status, struct buf *text)
{
    buf_init(text, MIB);
    resource_encode(r->meta.kind, r, status, text);
    (void)buf_terminate(text);
    assert_int_equal(text->failed, 0);
}

static void test_whole_document(void **state)
{
    (void)state;
    union resource_any r;
    assert_int_equal(
        decode_text(MODEL_WITH("\"resources\":{\"cpu\":\"1500m\"},\"batching\":{\"maxDelay\":\"1ms\"}"), &r, NULL), 0);
    r.meta.uid = 9;
    r.meta.resource_version = 4;
    _buf_ struct buf text;
    encode_text(&r, "{\"version\":1}", &text);
    assert_string_equal(
        text.data,
        "{\"apiVersion\":\"bulkhead.dev/v1alpha1\",\"kind\":\"Model\",\"metadata\":{\"name\":\"digits\",\"tenant\":"
        "\"acme\",\"uid\":9,\"resourceVersion\":4},\"spec\":{\"engine\":\"onnx\",\"source\":\"digits.onnx\","
        "\"isolation\":{\"level\":\"process\",\"runtime\":\"any\"},\"resources\":{\"cpu\":\"1500m\",\"cpuset\":\"shared\",\"memory\":\"256Mi\",\"repack\":false},\"batching\":{"
        "\"maxSize\":32,\"maxDelay\":\"1ms\",\"invariant\":true},\"weight\":1,\"class\":\"interactive\",\"replicas\":{\"min\":0,\"max\":1,\"idleAfter\":\"0s\"}},\"status\":{"
        "\"version\":1}}");
}

static void test_decode_of_encode(void **state)
{
    (void)state;
    static const char *const documents[] = {
        MODEL("\"engine\":\"onnx\",\"source\":\"a \\\"b\\\\.onnx\""),
        MODEL_WITH("\"resources\":{\"cpu\":0.25,\"memory\":16777217},\"replicas\":{\"min\":3,\"max\":4}"),
        MODEL_WITH("\"isolation\":{\"level\":\"container\",\"runtime\":\"crun\"}"),
        TENANT(""),
        TENANT("\"weight\":7,\"isolation\":{\"minimum\":\"microvm\"},\"quota\":{\"burst\":3,\"queueDepth\":1}"),
        GRANT("\"model\":\"base\",\"tenants\":[\"globex\",\"bob\"]"),
        GRANT("\"model\":\"base\",\"tenants\":[\"bob\"],\"sharedBatch\":true"),
        ADAPTER("\"base\":\"base\",\"source\":\"voice.gguf\""),
        TENANT("\"quota\":{\"adapterBytes\":\"3Mi\"}"),
        SERVER(""),
        SERVER("\"cpu\":{\"reserved\":0},\"listen\":\"[::1]:0\",\"drainTimeout\":\"0s\",\"log\":{\"level\":\"alert\"}"),
        "{" API "\"kind\":\"Server\"}",
        "{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"uid\":18446744073709551615,\"generation\":2,"
        "\"resourceVersion\":3,\"labels\":{\"b\":\"1\",\"a\":\"\"},\"annotations\":{\"n\":\"ä\\\"\"}}}",
    };
    for (size_t i = 0; i < sizeof documents / sizeof documents[0]; i++) {
        union resource_any r = {0}, again = {0};
        struct error err = {0};
        assert_int_equal(decode_text(documents[i], &r, &err), 0);
        _buf_ struct buf text;
        encode_text(&r, i % 2 ? "{}" : NULL, &text);
        assert_int_equal(decode_text(text.data, &again, &err), 0);
        assert_memory_equal(&r, &again, sizeof r);
    }
}

/* Fields of one object must stand together in a table: encoding closes an object once. */
static void test_encoded_objects_are_unique(void **state)
{
    (void)state;
    union resource_any r = {0};
    for (int kind = RESOURCE_SERVER; kind <= RESOURCE_MODEL; kind++) {
        memset(&r, 0, sizeof r);
        const struct resource_kind_info *info = &resource_kinds[kind];
        for (size_t i = 0; i < info->n_fields; i++)
            resource_value_from_default(&info->fields[i], &r);
        r.meta.kind = (enum resource_kind)kind;
        memcpy(r.meta.name, "a", 2);
        if (info->tenanted)
            memcpy(r.meta.tenant, "t", 2);
        if (kind == RESOURCE_MODEL) {
            memcpy(r.model.engine, "onnx", 5);
            memcpy(r.model.source, "x", 2);
        }
        _buf_ struct buf text;
        encode_text(&r, NULL, &text);
        union resource_any again;
        struct error err = {0};
        assert_int_equal(decode_text(text.data, &again, &err), 0); /* would say "given twice" */
        assert_memory_equal(&again, &r, info->bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_document),
        cmocka_unit_test(test_decode_of_encode),
        cmocka_unit_test(test_encoded_objects_are_unique),
    };
    return cmocka_run_group_tests_name("resource_encode", tests, NULL, NULL);
}
