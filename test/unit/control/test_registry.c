/* Apply, get and delete. */
#include "registry_fixture.h"

/* The body of an apply whose sources a and b have the digests of these contents. */
static const char *body(struct fixture *f, const char *resources)
{
    static char text[16384];
    char a[65], b[65];
    fixture_upload(f, "content a", a);
    fixture_upload(f, "content b", b);
    (void)snprintf(text, sizeof text, "{\"resources\":[%s],\"artifacts\":{\"a.json\":\"%s\",\"b.json\":\"%s\"}}",
                   resources, a, b);
    return text;
}

static void test_apply_creates(void **state)
{
    struct fixture *f = *state;
    /* a model may stand before its tenant */
    fixture_applied(f, body(f, MODEL("acme", "digits", "a.json", "") "," TENANT("acme", "\"weight\":3")));
    assert_int_equal(f->change.created, 2);
    assert_string_equal(buf_terminate(&f->results),
                        "[{\"kind\":\"Model\",\"name\":\"digits\",\"tenant\":\"acme\",\"result\":\"created\","
                        "\"version\":1},{\"kind\":\"Tenant\",\"name\":\"acme\",\"tenant\":\"\",\"result\":"
                        "\"created\"}]");
    const char *models = fixture_get(f, RESOURCE_MODEL, "acme", "digits");
    assert_non_null(strstr(models, "\"version\":1,\"versions\":1,\"digest\":\""));
    assert_non_null(strstr(models, "\"generation\":1"));
    assert_non_null(strstr(models, "\"level\":\"process\"")); /* defaults are shown */
    assert_non_null(strstr(fixture_get(f, RESOURCE_TENANT, "", ""), "\"weight\":3"));
    assert_non_null(strstr(fixture_get(f, RESOURCE_VERSION, "acme", ""), "\"number\":1,\"newest\":true"));
}

static void test_apply_again(void **state)
{
    struct fixture *f = *state;
    const char *both = TENANT("acme", "") "," MODEL("acme", "digits", "a.json", "");
    fixture_applied(f, body(f, both));
    uint64_t generation = f->change.generation;
    fixture_applied(f, body(f, both));
    assert_int_equal(f->change.unchanged, 2);
    assert_int_equal(f->change.generation, generation); /* nothing was written */

    /* a change beside the version's parts */
    fixture_applied(f, body(f, MODEL("acme", "digits", "a.json", ",\"replicas\":{\"max\":2}")));
    assert_int_equal(f->change.changed, 1);
    assert_int_equal(f->change.generation, generation + 1);
    assert_non_null(strstr(buf_terminate(&f->results), "\"changed\",\"version\":1"));
    assert_non_null(strstr(fixture_get(f, RESOURCE_MODEL, "acme", "digits"), "\"generation\":2"));

    /* another content under the same name, another level, more memory: a version each */
    fixture_applied(f, body(f, MODEL("acme", "digits", "b.json", ",\"replicas\":{\"max\":2}")));
    assert_non_null(strstr(buf_terminate(&f->results), "\"changed\",\"version\":2"));
    fixture_applied(f, body(f, MODEL("acme", "digits", "b.json", ",\"isolation\":{\"level\":\"pool\"}")));
    assert_non_null(strstr(buf_terminate(&f->results), "\"changed\",\"version\":3"));
    fixture_applied(f, body(f, MODEL("acme", "digits", "b.json",
                                     ",\"isolation\":{\"level\":\"pool\"},\"resources\":{\"memory\":\"512Mi\"}")));
    assert_non_null(strstr(buf_terminate(&f->results), "\"changed\",\"version\":4"));
    const char *versions = fixture_get(f, RESOURCE_VERSION, "acme", "digits");
    assert_non_null(strstr(versions, "\"number\":4,\"newest\":true"));
    assert_non_null(strstr(versions, "\"number\":1,\"newest\":false"));

    /* labels change the resource, not its generation */
    fixture_applied(f,
                    body(f, "{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"acme\",\"labels\":{\"a\":\"b\"}}}"));
    assert_int_equal(f->change.changed, 1);
    assert_non_null(strstr(fixture_get(f, RESOURCE_TENANT, "", "acme"), "\"generation\":1"));
}

/* What get shows is what apply takes: unchanged, with resourceVersion and status, and without sending the artifact. */
static void test_get_applies(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, TENANT("acme", "\"weight\":7") "," MODEL("acme", "digits", "a.json", "")));
    char document[8192], text[9000];
    (void)snprintf(document, sizeof document, "%s", fixture_get(f, RESOURCE_MODEL, "acme", "digits"));
    (void)snprintf(text, sizeof text, "{\"resources\":%s}", document);
    fixture_applied(f, text);
    assert_int_equal(f->change.unchanged, 1);
    /* it changes meanwhile */
    fixture_applied(f, body(f, MODEL("acme", "digits", "a.json", ",\"replicas\":{\"max\":2}")));
    fixture_refused(f, text, ERROR_CONFLICT, "Model acme/digits: metadata.resourceVersion is");
    /* it is gone meanwhile */
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("digits"), &f->change, &f->err), 0);
    fixture_refused(f, text, ERROR_INVALID_RESOURCE, "spec.source: \"a.json\" was not uploaded");
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, TENANT("acme", "\"isolation\":{\"minimum\":\"process\"}")));
    static const struct {
        const char *resources;
        int code;
        const char *text;
    } cases[] = {
        {MODEL("nobody", "m", "a.json", ""), ERROR_INVALID_RESOURCE,
         "Model nobody/m: metadata.tenant: there is no Tenant nobody"},
        {MODEL("acme", "m", "c.json", ""), ERROR_INVALID_RESOURCE, "spec.source: \"c.json\" was not uploaded"},
        {MODEL("acme", "m", "a.json", ",\"isolation\":{\"level\":\"shared\"}"), ERROR_REFUSED,
         "Model acme/m: spec.isolation.level: \"shared\" is below Tenant acme's isolation.minimum \"process\""},
        {MODEL("acme", "m", "a.json", ",\"isolation\":{\"level\":\"container\"}"), ERROR_ISOLATION_UNAVAILABLE,
         "\"container\" is not available: no container runtime was found"},
        {MODEL("acme", "m", "a.json", ",\"isolation\":{\"level\":\"microvm\"}"), ERROR_AGAIN,
         "spec.isolation.level: \"microvm\" is still being tested; try again in a few seconds"},
        {MODEL("acme", "m", "a.json", ",\"isolation\":{\"runtime\":\"runc\"}"), ERROR_INVALID_RESOURCE,
         "Model acme/m: spec.isolation.runtime: only workers of level container, and of level"},
        {TENANT("strict", "\"isolation\":{\"minimum\":\"container\"}") "," MODEL("strict", "m", "a.json", ""),
         ERROR_REFUSED,
         "Model strict/m: spec.isolation.level: \"process\" is below Tenant strict's isolation.minimum \"container\", and "
         "container cannot be had: no container runtime was found"},
        {MODEL("acme", "m", "a.json", ",\"resources\":{\"cpu\":5}"), ERROR_REFUSED, "5 cores, but the device has 4"},
        {MODEL("acme", "m", "a.json", ",\"resources\":{\"cpu\":\"500m\"}"), ERROR_INVALID_RESOURCE, "whole cores"},
        {MODEL("acme", "m", "a.json", ",\"resources\":{\"cpu\":\"1500m\"}"), ERROR_INVALID_RESOURCE, "whole cores"},
        {MODEL("acme", "m", "a.json", ",\"resources\":{\"memory\":\"5Gi\"}"), ERROR_REFUSED, "the host has 4096 MiB"},
        {MODEL("acme", "m", "a.json", ",\"replicas\":{\"min\":3,\"max\":2}"), ERROR_INVALID_RESOURCE, "replicas"},
        {MODEL("acme", "m", "a.json", ",\"memroy\":1"), ERROR_INVALID_RESOURCE, "Model acme/m: spec.memroy: unknown"},
        {"{" API "\"kind\":\"Model\",\"metadata\":{\"name\":\"m\",\"tenant\":\"acme\"},\"spec\":{\"engine\":\"torch\","
         "\"source\":\"a.json\"}}",
         ERROR_INVALID_RESOURCE, "spec.engine: this server has no engine \"torch\""},
        {"{" API "\"kind\":\"Server\",\"metadata\":{}}", ERROR_INVALID_RESOURCE, "serve --config"},
        {"{" API "\"kind\":\"Key\",\"metadata\":{}}", ERROR_INVALID_RESOURCE, "read-only"},
        {TENANT("new", "") "," TENANT("new", ""), ERROR_INVALID_RESOURCE, "Tenant new: stands twice"},
        {"{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"new\",\"resourceVersion\":4}}", ERROR_CONFLICT,
         "Tenant new: metadata.resourceVersion is 4, but it does not exist"},
        {"1", ERROR_INVALID_RESOURCE, "resources[0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fixture_refused(f, body(f, cases[i].resources), cases[i].code, cases[i].text);
    /* all or nothing: the good ones around a bad one do not stay */
    fixture_refused(f, body(f, TENANT("new", "") "," MODEL("nobody", "m", "a.json", "") "," TENANT("other", "")),
                    ERROR_INVALID_RESOURCE, "nobody");
    assert_null(strstr(fixture_get(f, RESOURCE_TENANT, "", ""), "new"));

    fixture_refused(f, "{", ERROR_INVALID_JSON, "at byte 1");
    fixture_refused(f, "[]", ERROR_INVALID_REQUEST, "expected {\"resources\"");
    fixture_refused(f, "{\"resources\":[]}", ERROR_INVALID_REQUEST, "1 to 1024");
    fixture_refused(f, "{\"resources\":[1],\"more\":1}", ERROR_INVALID_REQUEST, "unknown member \"more\"");
    fixture_refused(f, "{\"resources\":[" MODEL("acme", "m", "a", "") "],\"artifacts\":{\"a\":\"../x\"}}",
                    ERROR_INVALID_REQUEST, "not a SHA-256");
    fixture_refused(f,
                    "{\"resources\":[" MODEL("acme", "m", "a", "") "],\"artifacts\":{\"a\":\"0123456789abcdef0123456789"
                                                                   "abcdef0123456789abcdef0123456789abcdef\"}}",
                    ERROR_INVALID_RESOURCE, "the artifact was not uploaded");
}

static void test_an_engine_that_cannot_share(void **state)
{
    struct fixture *f = *state;
    fixture_refused(f,
                    body(f, TENANT("acme", "") ",{" API
                                               "\"kind\":\"Model\",\"metadata\":{\"name\":\"m\",\"tenant\":\"acme\"},"
                                               "\"spec\":{\"engine\":\"onnx\",\"source\":\"a.json\","
                                               "\"isolation\":{\"level\":\"shared\"}}}"),
                    ERROR_REFUSED, "Model acme/m: spec.isolation.level: \"shared\" cannot be had with engine \"onnx\"");
}

static void test_floor_rises(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, TENANT("acme", "") "," MODEL("acme", "m", "a.json", ",\"isolation\":{\"level\":\"shared\"}")));
    fixture_refused(f, body(f, TENANT("acme", "\"isolation\":{\"minimum\":\"process\"}")), ERROR_REFUSED,
                    "Tenant acme: spec.isolation.minimum: \"process\" is above Model acme/m's isolation.level "
                    "\"shared\"");
    /* both in one apply */
    fixture_applied(
        f, body(f, TENANT("acme", "\"isolation\":{\"minimum\":\"process\"}") "," MODEL("acme", "m", "a.json", "")));
    assert_int_equal(f->change.changed, 2);
}

static void test_delete(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, TENANT("acme", "") "," MODEL("acme", "m", "a.json", "") "," MODEL("acme", "n", "a.json", "")));
    assert_int_equal(fixture_files(f), 2); /* b was uploaded for nothing */
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_non_null(strstr(f->err.text, "still has models (m"));
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("x"), &f->change, &f->err),
                     -ERROR_NOT_FOUND);
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("m"), &f->change, &f->err), 0);
    assert_int_equal(fixture_files(f), 2); /* n has the same artifact */
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("n"), &f->change, &f->err), 0);
    assert_int_equal(fixture_files(f), 1);
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err), 0);
    assert_string_equal(fixture_get(f, RESOURCE_TENANT, "", ""), "[]");
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err),
                     -ERROR_NOT_FOUND);
}

static void test_uid_not_reused(void **state)
{
    struct fixture *f = *state;
    struct registry_version before, after;
    fixture_applied(f, body(f, TENANT("acme", "") "," MODEL("acme", "m", "a.json", ",\"replicas\":{\"min\":1}")));
    uint64_t uid = fixture_version(f, "acme", "m");
    assert_int_equal(registry_version_find(f->registry, uid, 0, &before, &f->err), 0);
    assert_string_equal(before.tenant, "acme");
    assert_string_equal(before.model, "m");
    assert_string_equal(before.engine, "identity");
    assert_int_equal(before.level, 3);
    assert_int_equal(before.cpu_milli, 1000);
    assert_int_equal(before.memory_bytes, 256 * MIB);
    assert_int_equal(before.artifact_bytes, 9);
    assert_int_equal(before.replicas_min, 1);
    assert_true(before.newest);
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("m"), &f->change, &f->err), 0);
    assert_int_equal(registry_version_find(f->registry, uid, 0, &before, &f->err), -ERROR_MODEL_NOT_FOUND);
    fixture_applied(f, body(f, MODEL("acme", "m", "a.json", "")));
    uint64_t again = fixture_version(f, "acme", "m");
    assert_true(again > uid);
    assert_int_equal(registry_version_find(f->registry, again, 0, &after, &f->err), 0);
    assert_true(after.model_uid > before.model_uid);
    assert_int_equal(after.number, 1);
}

static int count_wanted(void *ctx, const struct registry_version *v)
{
    uint32_t *n = ctx;
    assert_string_equal(v->model, "b");
    assert_int_equal(v->number, 2);
    ++*n;
    return 0;
}

static void test_wanted(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, TENANT("acme", "") "," MODEL("acme", "a", "a.json", "") "," MODEL("acme", "b", "a.json", "")));
    fixture_applied(f, body(f, MODEL("acme", "b", "b.json", ",\"replicas\":{\"min\":1}")));
    uint32_t n = 0;
    assert_int_equal(registry_version_each_wanted(f->registry, count_wanted, &n, &f->err), 0);
    assert_int_equal(n, 1);
}

static void test_get_unknown(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, TENANT("acme", "")));
    struct str none = STR("");
    static const enum resource_kind kinds[] = {RESOURCE_MODEL, RESOURCE_VERSION, RESOURCE_KEY};
    for (size_t i = 0; i < 3; i++) {
        buf_clear(&f->results);
        assert_int_equal(registry_get(f->registry, kinds[i], STR("nobody"), none, &f->results, &f->err),
                         -ERROR_NOT_FOUND);
        assert_int_equal(f->results.size, 0);
        assert_int_equal(registry_get(f->registry, kinds[i], STR("acme"), STR("x"), &f->results, &f->err),
                         -ERROR_NOT_FOUND);
        assert_string_equal(fixture_get(f, kinds[i], "acme", ""), "[]");
    }
    buf_clear(&f->results);
    assert_int_equal(registry_get(f->registry, RESOURCE_TENANT, none, STR("x"), &f->results, &f->err),
                     -ERROR_NOT_FOUND);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_apply_creates), TEST(test_apply_again),    TEST(test_get_applies),
        TEST(test_refused),       TEST(test_floor_rises),    TEST(test_an_engine_that_cannot_share),
        TEST(test_delete),        TEST(test_uid_not_reused), TEST(test_wanted),
        TEST(test_get_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
