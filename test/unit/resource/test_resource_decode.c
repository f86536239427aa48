#include "resource_fixture.h"

#include "base/clock.h"
#include "base/log.h"

static void test_model_defaults(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(decode_text(MODEL("\"engine\":\"onnx\",\"source\":\"a/b.onnx\""), &r, &err), 0);
    assert_int_equal(r.meta.kind, RESOURCE_MODEL);
    assert_string_equal(r.meta.name, "digits");
    assert_string_equal(r.meta.tenant, "acme");
    assert_string_equal(r.model.engine, "onnx");
    assert_string_equal(r.model.source, "a/b.onnx");
    assert_int_equal(r.model.isolation_level, 2);
    assert_int_equal(r.model.cpu_milli, 1000);
    assert_int_equal(r.model.memory_bytes, 256 * MIB);
    assert_int_equal(r.model.batch_max, 32);
    assert_int_equal(r.model.batch_delay_ns, 0);
    assert_int_equal(r.model.replicas_min, 0);
    assert_int_equal(r.model.replicas_max, 1);
    assert_int_equal(r.model.replicas_idle_after_ns, 0);
}

static void test_tenant_defaults(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(decode_text("{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"acme\"}}", &r, &err), 0);
    assert_int_equal(r.tenant.weight, 1);
    assert_int_equal(r.tenant.isolation_minimum, 0);
    assert_int_equal(r.tenant.requests_per_minute, 0);
    assert_int_equal(r.tenant.burst, 0);
    assert_int_equal(r.tenant.queue_depth, LIMIT_QUEUE_DEPTH_DEFAULT);
}

/* Defaults are texts in the table: they must say what base/limits.h says. */
static void test_server_defaults_are_the_limits(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(decode_text("{" API "\"kind\":\"Server\"}", &r, &err), 0);
    assert_string_equal(r.meta.name, "server");
    assert_string_equal(r.server.listen, "127.0.0.1:8080");
    assert_int_equal(r.server.connections, LIMIT_CONNECTIONS);
    assert_int_equal(r.server.body_bytes, LIMIT_BODY_BYTES);
    assert_int_equal(r.server.head_timeout_ns, LIMIT_HEAD_TIMEOUT_MS * NS_PER_MS);
    assert_int_equal(r.server.idle_timeout_ns, LIMIT_IDLE_TIMEOUT_MS * NS_PER_MS);
    assert_int_equal(r.server.write_timeout_ns, LIMIT_WRITE_TIMEOUT_MS * NS_PER_MS);
    assert_int_equal(r.server.drain_timeout_ns, LIMIT_DRAIN_MS * NS_PER_MS);
    assert_true(r.server.cpu_reserved == UINT64_MAX);
    assert_int_equal(r.server.uid_base, 790000);
    assert_int_equal(r.server.uid_count, 4096);
    assert_string_equal(r.server.group, "bulkhead");
    assert_int_equal(r.server.log_level, LOG_LEVEL_INFO);
}

static void test_every_member_given(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(
        decode_text("{" API "\"kind\":\"Model\",\"status\":{\"anything\":[1]},"
                    "\"metadata\":{\"name\":\"digits\",\"tenant\":\"acme\",\"uid\":7,\"generation\":3,"
                    "\"resourceVersion\":12,\"labels\":{\"app.kubernetes.io/name\":\"x\",\"team\":\"\"},"
                    "\"annotations\":{\"note\":\"Grüße\"}},"
                    "\"spec\":{\"engine\":\"identity\",\"source\":\"x\",\"isolation\":{\"level\":\"microvm\"},"
                    "\"resources\":{\"cpu\":\"2\",\"memory\":\"1Gi\"},"
                    "\"batching\":{\"maxSize\":256,\"maxDelay\":\"1s\"},"
                    "\"replicas\":{\"min\":64,\"max\":64,\"idleAfter\":\"5m\"}}}",
                    &r, &err),
        0);
    assert_int_equal(r.meta.uid, 7);
    assert_int_equal(r.meta.generation, 3);
    assert_int_equal(r.meta.resource_version, 12);
    assert_int_equal(r.meta.labels.n, 2);
    assert_string_equal(r.meta.labels.entries[0].key, "app.kubernetes.io/name");
    assert_string_equal(r.meta.annotations.entries[0].value, "Grüße");
    assert_int_equal(r.model.isolation_level, 4);
    assert_int_equal(r.model.cpu_milli, 2000);
    assert_int_equal(r.model.memory_bytes, GIB);
    assert_int_equal(r.model.batch_delay_ns, NS_PER_S);
    assert_int_equal(r.model.replicas_min, 64);
    assert_int_equal(r.model.replicas_idle_after_ns, 300 * NS_PER_S);
}

static void test_numbers_or_strings(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        uint64_t milli;
    } cpus[] = {
        {MODEL_WITH("\"resources\":{\"cpu\":3}"), 3000},
        {MODEL_WITH("\"resources\":{\"cpu\":0.5}"), 500},
        {MODEL_WITH("\"resources\":{\"cpu\":1.0}"), 1000},
        {MODEL_WITH("\"resources\":{\"cpu\":\"500m\"}"), 500},
    };
    union resource_any r;
    for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; i++) {
        assert_int_equal(decode_text(cpus[i].spec, &r, NULL), 0);
        assert_int_equal(r.model.cpu_milli, cpus[i].milli);
    }
    assert_int_equal(decode_text(MODEL_WITH("\"resources\":{\"memory\":33554432}"), &r, NULL), 0);
    assert_int_equal(r.model.memory_bytes, 32 * MIB);
}

struct refusal {
    const char *document, *text;
};

static void expect_refusals(const struct refusal *refusals, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        union resource_any r, before;
        struct error err = {0};
        memset(&r, 0x5A, sizeof r);
        before = r;
        int result = decode_text(refusals[i].document, &r, &err);
        assert_string_equal(err.text, refusals[i].text);
        assert_true(result == -ERROR_INVALID_RESOURCE || result == -ERROR_INVALID_NAME);
        assert_int_equal(err.code, result);
        assert_memory_equal(&r, &before, sizeof r); /* outputs are untouched on failure */
        assert_int_equal(decode_text(refusals[i].document, &r, NULL), result);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {"[]", "a resource is an object with apiVersion, kind, metadata and spec; found a list"},
        {"{}", "apiVersion: required (bulkhead.dev/v1alpha1)"},
        {"{\"apiVersion\":\"v1\"}", "apiVersion: expected \"bulkhead.dev/v1alpha1\", found \"v1\""},
        {"{" API "\"kind\":3}", "kind: expected a string, found 3"},
        {"{" API "\"kind\":\"Modle\"}", "kind: there is no kind \"Modle\" (did you mean \"Model\"?)"},
        {"{" API "\"kind\":\"Pod\"}", "kind: there is no kind \"Pod\""},
        {"{" API "\"kind\":\"Version\"}", "Version: a Version is read-only: the server makes it"},
        {"{" API "\"kind\":\"Tenant\"}", "Tenant: metadata.name: required"},
        {"{" API "\"kind\":\"Tenant\",\"kind\":\"Tenant\"}", "Tenant: kind: given twice"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":null}",
         "Tenant: metadata: expected an object, found nothing (null)"},
        {"{" API "\"kind\":\"Model\",\"metadata\":{\"name\":\"a\"},\"spec\":{}}", "Model a: metadata.tenant: required"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"A_b\"}}",
         "Tenant: metadata.name: \"A_b\" is no name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or "
         "digit"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"tenant\":\"b\"}}",
         "Tenant a: metadata.tenant: unknown field"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\"},\"sepc\":{}}",
         "Tenant a: sepc: unknown field (did you mean \"spec\"?)"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":\"1\",\"x\":\"2\"}}}",
         "Tenant a: metadata.labels: \"x\" is given twice"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"labels\":{\"x\":1}}}",
         "Tenant a: metadata.labels: \"x\" must be a string of at most 63 bytes without control characters"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"labels\":{\"/x\":\"\"}}}",
         "Tenant a: metadata.labels: \"/x\" is no key: 1 to 63 of letters, digits, '-', '_', '.' and '/', beginning and "
         "ending with a letter or digit"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"labels\":[]}}",
         "Tenant a: metadata.labels: expected an object of strings, found a list"},
    };
    expect_refusals(refusals, sizeof refusals / sizeof refusals[0]);
}

static void test_model_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {MODEL_WITH("\"resources\":{\"memroy\":1}"),
         "Model acme/digits: spec.resources.memroy: unknown field (did you mean \"memory\"?)"},
        {MODEL_WITH("\"batching\":{\"max_size\":1}"),
         "Model acme/digits: spec.batching.max_size: unknown field (did you mean \"maxSize\"?)"},
        {MODEL_WITH("\"memory\":1"),
         "Model acme/digits: spec.memory: unknown field (did you mean \"spec.resources.memory\"?)"},
        {MODEL_WITH("\"gpu\":1"), "Model acme/digits: spec.gpu: unknown field"},
        {MODEL_WITH("\"resources.cpu\":1"), "Model acme/digits: spec.resources.cpu: unknown field"},
        {MODEL_WITH("\"\":1"), "Model acme/digits: spec.: unknown field"},
        {MODEL_WITH("\"a\\u001b[2J\":1"), "Model acme/digits: spec.a?[2J: unknown field"},
        {MODEL_WITH("\"resources\":3"), "Model acme/digits: spec.resources: expected an object, found 3"},
        {MODEL_WITH("\"resources\":{\"cpu\":1,\"cpu\":2}"), "Model acme/digits: spec.resources.cpu: given twice"},
        {MODEL_WITH("\"replicas\":{},\"replicas\":{}"), "Model acme/digits: spec.replicas: given twice"},
        {MODEL("\"source\":\"x\""), "Model acme/digits: spec.engine: required"},
        {MODEL("\"engine\":\"\",\"source\":\"x\""),
         "Model acme/digits: spec.engine: must be 1 to 31 bytes long, found 0"},
        {MODEL("\"engine\":\"0123456789012345678901234567890x\""),
         "Model acme/digits: spec.engine: must be 1 to 31 bytes long, found 32"},
        {MODEL("\"engine\":\"a\\u0000b\""), "Model acme/digits: spec.engine: must not hold control characters"},
        {MODEL("\"engine\":7"), "Model acme/digits: spec.engine: expected a string, found 7"},
        {MODEL_WITH("\"isolation\":{\"level\":\"proces\"}"),
         "Model acme/digits: spec.isolation.level: expected one of shared, pool, process, container, microvm, found "
         "\"proces\" (did you mean \"process\"?)"},
        {MODEL_WITH("\"isolation\":{\"level\":\"vm\"}"),
         "Model acme/digits: spec.isolation.level: expected one of shared, pool, process, container, microvm, found "
         "\"vm\""},
        {MODEL_WITH("\"resources\":{\"memory\":\"12 MB\"}"),
         "Model acme/digits: spec.resources.memory: expected bytes such as \"256Mi\", \"1Gi\" or 1000000, found "
         "\"12 MB\""},
        {MODEL_WITH("\"resources\":{\"memory\":\"16383Ki\"}"),
         "Model acme/digits: spec.resources.memory: must be between 16Mi and 1Ti, found 16383Ki"},
        {MODEL_WITH("\"resources\":{\"cpu\":0}"),
         "Model acme/digits: spec.resources.cpu: must be between 1m and 4096, found 0"},
        {MODEL_WITH("\"resources\":{\"cpu\":-1}"),
         "Model acme/digits: spec.resources.cpu: expected CPU cores such as 1, 2 or \"500m\", found -1"},
        {MODEL_WITH("\"resources\":{\"cpu\":1e300}"),
         "Model acme/digits: spec.resources.cpu: expected CPU cores such as 1, 2 or \"500m\", found 1e+300"},
        {MODEL_WITH("\"resources\":{\"cpu\":0.0001}"),
         "Model acme/digits: spec.resources.cpu: expected CPU cores such as 1, 2 or \"500m\", found 0.0001"},
        {MODEL_WITH("\"batching\":{\"maxDelay\":5}"),
         "Model acme/digits: spec.batching.maxDelay: expected a duration such as \"10ms\", \"5m\" or \"1h30m\", found 5"},
        {MODEL_WITH("\"batching\":{\"maxDelay\":\"1001ms\"}"),
         "Model acme/digits: spec.batching.maxDelay: must be between 0s and 1s, found 1s1ms"},
        {MODEL_WITH("\"batching\":{\"maxSize\":\"3\"}"),
         "Model acme/digits: spec.batching.maxSize: expected a whole number, found \"3\""},
        {MODEL_WITH("\"batching\":{\"maxSize\":1.5}"),
         "Model acme/digits: spec.batching.maxSize: expected a whole number, found 1.5"},
        {MODEL_WITH("\"replicas\":{\"min\":2}"), "Model acme/digits: spec.replicas: min (2) must not be above max (1)"},
    };
    expect_refusals(refusals, sizeof refusals / sizeof refusals[0]);
}

static void test_tenant_and_server_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {TENANT("\"weight\":0"), "Tenant acme: spec.weight: must be between 1 and 1000, found 0"},
        {TENANT("\"weight\":1001"), "Tenant acme: spec.weight: must be between 1 and 1000, found 1001"},
        {TENANT("\"weight\":true"), "Tenant acme: spec.weight: expected a whole number, found true"},
        {TENANT("\"quota\":{\"queueDepth\":65537}"),
         "Tenant acme: spec.quota.queueDepth: must be between 1 and 65536, found 65537"},
        /* fields of later releases are not fields yet */
        {TENANT("\"quota\":{\"concurency\":3}"),
         "Tenant acme: spec.quota.concurency: unknown field (did you mean \"concurrency\"?)"},
        {TENANT("\"quota\":{\"perKey\":{\"queueDepth\":3}}"),
         "Tenant acme: spec.quota.perKey.queueDepth: unknown field (did you mean \"spec.quota.queueDepth\"?)"},
        {TENANT("\"quota\":{\"applesAtOnce\":3}"), "Tenant acme: spec.quota.applesAtOnce: unknown field"},
        {SERVER("\"listen\":\"localhost:80\""),
         "Server here: spec.listen: expected ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, found \"localhost:80\""},
        {SERVER("\"listen\":\"1.2.3.4:65536\""),
         "Server here: spec.listen: expected ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, found "
         "\"1.2.3.4:65536\""},
        {SERVER("\"listen\":\"[::1:80\""),
         "Server here: spec.listen: expected ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, found \"[::1:80\""},
        {SERVER("\"listen\":\":80\""),
         "Server here: spec.listen: expected ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080, found \":80\""},
        {SERVER("\"uids\":{\"base\":4294900000,\"count\":1000000}"),
         "Server here: spec.uids: base and count reach beyond the last user id"},
        {SERVER("\"log\":{\"level\":\"verbose\"}"),
         "Server here: spec.log.level: expected one of alert, error, warn, info, debug, found \"verbose\""},
    };
    expect_refusals(refusals, sizeof refusals / sizeof refusals[0]);
}

static void test_listen_addresses(void **state)
{
    (void)state;
    union resource_any r;
    assert_int_equal(decode_text(SERVER("\"listen\":\"0.0.0.0:0\""), &r, NULL), 0);
    assert_int_equal(decode_text(SERVER("\"listen\":\"[::]:65535\""), &r, NULL), 0);
    assert_int_equal(decode_text(SERVER("\"cpu\":{\"reserved\":0}"), &r, NULL), 0);
    assert_int_equal(r.server.cpu_reserved, 0);
}

static void test_long_strings_in_messages(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    /* 39 ASCII bytes, then a two-byte character across the cut: it must not be split */
    assert_int_equal(decode_text(TENANT("\"isolation\":{\"minimum\":\"012345678901234567890123456789012345678ä-and-"
                                        "more\"}"),
                                 &r, &err),
                     -ERROR_INVALID_RESOURCE);
    assert_true(str_is_utf8(str_from(err.text)));
    assert_non_null(strstr(err.text, "012345678...\""));
}

static void test_labels_full(void **state)
{
    (void)state;
    for (uint32_t n = RESOURCE_LABELS_MAX - 1; n <= RESOURCE_LABELS_MAX + 1; n++) {
        _buf_ struct buf text;
        buf_init(&text, 64 * KIB);
        buf_append_text(&text, "{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\",\"labels\":{");
        for (uint32_t i = 0; i < n; i++)
            buf_format(&text, "%s\"k%u\":\"v\"", i ? "," : "", i);
        buf_append_text(&text, "}}}");
        union resource_any r;
        struct error err = {0};
        int result = decode_text(buf_terminate(&text), &r, &err);
        assert_int_equal(result, n <= RESOURCE_LABELS_MAX ? 0 : -ERROR_INVALID_RESOURCE);
    }
}

static void test_adapters(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(decode_text(ADAPTER("\"base\":\"base\",\"source\":\"voice.gguf\""), &r, &err), 0);
    assert_string_equal(r.adapter.base, "base");
    assert_string_equal(r.adapter.source, "voice.gguf");
    static const struct {
        const char *document, *text;
    } refused[] = {
        {ADAPTER("\"base\":\"base\""), "Adapter acme/voice: spec.source: required"},
        {ADAPTER("\"source\":\"voice.gguf\""), "spec.base: required"},
        {ADAPTER("\"base\":\"acme/base\",\"source\":\"v\""), "spec.base: \"acme/base\" is no name"},
        {ADAPTER("\"base\":\"base\",\"source\":\"\""), "spec.source: must be 1 to 1023 bytes long"},
        {ADAPTER("\"base\":\"base\",\"source\":\"v\",\"rank\":8"), "spec.rank: unknown field"},
        {ADAPTER("\"model\":\"base\",\"source\":\"v\""), "spec.model: unknown field"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_true(decode_text(refused[i].document, &r, &err) < 0);
        assert_non_null(strstr(err.text, refused[i].text));
    }
}

static int decode_grant(uint32_t n, struct error *err)
{
    _buf_ struct buf text;
    union resource_any r;
    buf_init(&text, 64 * KIB);
    buf_append_text(&text, "{" API "\"kind\":\"Grant\",\"metadata\":{\"name\":\"g\",\"tenant\":\"a\"},\"spec\":{"
                           "\"model\":\"m\",\"tenants\":[");
    for (uint32_t i = 0; i < n; i++)
        buf_format(&text, "%s\"t%u\"", i ? "," : "", i);
    buf_append_text(&text, "]}}");
    int result = decode_text(buf_terminate(&text), &r, err);
    assert_true(result < 0 || r.grant.tenants.n == n);
    return result;
}

static void test_grants(void **state)
{
    (void)state;
    union resource_any r;
    struct error err = {0};
    assert_int_equal(decode_text(GRANT("\"model\":\"base\",\"tenants\":[\"globex\",\"bob\"]"), &r, &err), 0);
    assert_string_equal(r.grant.model, "base");
    assert_string_equal(r.grant.tenants.entries[1], "bob");
    assert_false(r.grant.shared_batch);
    assert_int_equal(decode_grant(LIMIT_GRANT_TENANTS, &err), 0);
    assert_int_equal(decode_grant(LIMIT_GRANT_TENANTS + 1, &err), -ERROR_INVALID_RESOURCE);
    assert_string_equal(err.text, "Grant a/g: spec.tenants: at most 64 names");
    assert_int_equal(decode_grant(0, &err), -ERROR_INVALID_RESOURCE);
    static const struct {
        const char *tenants, *text;
    } refused[] = {
        {"[\"bob\",7]", "spec.tenants: expected a list of names, found 7"},
        {"[\"Bob\"]", "spec.tenants: \"Bob\" is no name"},
        {"[\"bob\",\"eve\",\"bob\"]", "spec.tenants: \"bob\" is given twice"},
        {"[\"bob\",\"acme\"]", "spec.tenants: acme is whose model it is"},
        {"\"bob\"", "spec.tenants: expected a list of names, found \"bob\""},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char text[512];
        (void)snprintf(text, sizeof text, GRANT("\"model\":\"base\",\"tenants\":%s"), refused[i].tenants);
        assert_true(decode_text(text, &r, &err) < 0);
        assert_non_null(strstr(err.text, refused[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_defaults),
        cmocka_unit_test(test_tenant_defaults),
        cmocka_unit_test(test_server_defaults_are_the_limits),
        cmocka_unit_test(test_every_member_given),
        cmocka_unit_test(test_numbers_or_strings),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_model_refusals),
        cmocka_unit_test(test_tenant_and_server_refusals),
        cmocka_unit_test(test_listen_addresses),
        cmocka_unit_test(test_long_strings_in_messages),
        cmocka_unit_test(test_labels_full),
        cmocka_unit_test(test_grants),
        cmocka_unit_test(test_adapters),
    };
    return cmocka_run_group_tests_name("resource_decode", tests, NULL, NULL);
}
