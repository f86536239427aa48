/* What an apply wants opened before it writes, what is kept of it, and what a refused one leaves. */
#include "registry_fixture.h"

#include <time.h>

static void body_of(char text[static 4096], const char *resources, const char *hex)
{
    (void)snprintf(text, 4096, "{\"resources\":[%s],\"artifacts\":{\"a\":\"%s\"}}", resources, hex);
}

static int apply(struct fixture *f, struct registry_ingest *ingest, const char *body)
{
    buf_clear(&f->results);
    f->err = (struct error){0};
    return registry_apply(f->registry, str_from(body), ingest, &f->change, &f->results, &f->err);
}

static void test_a_new_version_wants_its_artifact_opened(void **state)
{
    struct fixture *f = *state;
    char hex[65], again[65], text[4096];
    struct registry_ingest ingest;
    registry_ingest_init(&ingest);
    fixture_upload(f, "{}", hex);
    body_of(text, TENANT("acme", "") "," MODEL("acme", "m", "a", ",\"resources\":{\"cpu\":2,\"memory\":\"64Mi\"}"),
            hex);
    assert_int_equal(apply(f, &ingest, text), 1);
    assert_int_equal(f->results.size, 0);
    assert_string_equal(ingest.wanted.engine, "identity");
    assert_string_equal(ingest.wanted.tenant, "acme");
    assert_string_equal(ingest.wanted.model, "m");
    assert_int_equal(ingest.wanted.number, 1);
    assert_int_equal(ingest.wanted.cpu_milli, 2000);
    assert_int_equal(ingest.wanted.memory_bytes, 64 * MIB);
    assert_int_equal(ingest.wanted.artifact_bytes, 2);
    int fd = -1; /* enough is known to hand it over */
    assert_int_equal(fixture_memfd(f, &ingest.wanted, &fd), 0);
    close(fd);
    assert_string_equal(fixture_get(f, RESOURCE_TENANT, "", ""), "[]"); /* nothing was written */
    assert_int_equal(apply(f, &ingest, text), 1);
    assert_int_equal(registry_ingest_add(&ingest, STR("told")), 0);
    assert_int_equal(apply(f, &ingest, text), 0);
    assert_int_equal(f->change.created, 2);
    registry_ingest_done(&ingest);

    /* neither an unchanged model, nor other resources, nor another model of the same bytes */
    fixture_applied(f, text);
    body_of(text, MODEL("acme", "m", "a", "") "," MODEL("acme", "n", "a", ""), hex);
    fixture_applied(f, text);
    assert_int_equal(f->change.created, 1);
    assert_int_equal(f->n_described, 0);
    /* but other bytes, and then each pair once */
    fixture_upload(f, "{ }", again);
    body_of(text, MODEL("acme", "m", "a", "") "," MODEL("acme", "n", "a", ""), again);
    fixture_applied(f, text);
    assert_int_equal(f->n_described, 1);
}

static void test_other_code_describes_again(void **state)
{
    struct fixture *f = *state;
    char hex[65], text[4096];
    fixture_upload(f, "{}", hex);
    body_of(text, TENANT("acme", "") "," MODEL("acme", "m", "a", ""), hex);
    fixture_applied(f, text);
    f->engine_id = 5;
    fixture_applied(f, text); /* unchanged: what serves is left alone */
    assert_int_equal(f->n_described, 1);
    body_of(text, MODEL("acme", "n", "a", ""), hex);
    fixture_applied(f, text);
    assert_int_equal(f->n_described, 2);
    /* forgotten with the last version */
    static const char *const names[] = {"m", "n"};
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), str_from(names[i]), &f->change, &f->err), 0);
    fixture_upload(f, "{}", hex);
    fixture_applied(f, text);
    assert_int_equal(f->n_described, 3);
}

static void test_what_happens_in_between_counts(void **state)
{
    struct fixture *f = *state;
    char hex[65], text[4096];
    struct registry_ingest ingest;
    fixture_applied(f, "{\"resources\":[" TENANT("acme", "") "]}");
    registry_ingest_init(&ingest);
    fixture_upload(f, "{}", hex);
    body_of(text, MODEL("acme", "m", "a", ""), hex);
    assert_int_equal(apply(f, &ingest, text), 1);
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err), 0);
    assert_int_equal(registry_ingest_add(&ingest, STR("told")), 0);
    assert_int_equal(apply(f, &ingest, text), -ERROR_INVALID_RESOURCE);
    assert_non_null(strstr(f->err.text, "there is no Tenant acme"));
    registry_ingest_done(&ingest);
}

static void test_a_refused_apply_leaves_no_artifact(void **state)
{
    struct fixture *f = *state;
    char hex[65], kept[65], text[4096];
    struct registry_ingest ingest;
    fixture_upload(f, "{}", kept);
    body_of(text, TENANT("acme", "") "," MODEL("acme", "m", "a", ""), kept);
    fixture_applied(f, text);
    fixture_upload(f, "bad", hex);
    registry_ingest_init(&ingest);
    (void)snprintf(text, sizeof text, "{\"artifacts\":{\"a\":\"%s\",\"b\":\"%s\",\"c\":1,\"d\":\"zz\"}}", hex, kept);
    assert_int_equal(fixture_files(f), 2);
    registry_apply_drop(f->registry, str_from(text), &ingest);
    assert_int_equal(fixture_files(f), 1); /* what a version names stays */
    fixture_upload(f, "bad", hex);         /* by somebody who came later */
    ingest.began_ns -= 1000000000;
    registry_apply_drop(f->registry, str_from(text), &ingest);
    assert_int_equal(fixture_files(f), 2);
    registry_apply_drop(f->registry, STR("no JSON"), &ingest);
    registry_apply_drop(f->registry, STR("[]"), &ingest);
    assert_int_equal(fixture_files(f), 2);
    registry_ingest_done(&ingest);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_version_wants_its_artifact_opened),
        TEST(test_other_code_describes_again),
        TEST(test_what_happens_in_between_counts),
        TEST(test_a_refused_apply_leaves_no_artifact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
