#include "resource_fixture.h"

#include <stdio.h>

static void explain(const char *what, struct buf *text)
{
    struct error err = {0};
    buf_init(text, MIB);
    assert_int_equal(resource_explain(str_from(what), text, &err), 0);
    (void)buf_terminate(text);
}

static void expect_refused(const char *what, const char *reason)
{
    struct error err = {0};
    _buf_ struct buf text;
    buf_init(&text, MIB);
    assert_int_equal(resource_explain(str_from(what), &text, &err), -ERROR_NOT_FOUND);
    assert_string_equal(err.text, reason);
    assert_int_equal(text.size, 0);
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(resource_kind_from_name(STR("Model")), RESOURCE_MODEL);
    assert_int_equal(resource_kind_from_name(STR("model")), RESOURCE_MODEL);
    assert_int_equal(resource_kind_from_name(STR("models")), RESOURCE_MODEL);
    assert_int_equal(resource_kind_from_name(STR("keys")), RESOURCE_KEY);
    assert_int_equal(resource_kind_from_name(STR("mod")), RESOURCE_NONE);
    assert_int_equal(resource_kind_from_name(STR("")), RESOURCE_NONE);
    assert_non_null(resource_field_find(RESOURCE_MODEL, STR("spec.resources.memory")));
    assert_null(resource_field_find(RESOURCE_MODEL, STR("spec.resources")));
    assert_null(resource_field_find(RESOURCE_NONE, STR("spec")));
}

static void test_field(void **state)
{
    (void)state;
    _buf_ struct buf text;
    explain("model.spec.isolation.level", &text);
    assert_string_equal(text.data,
                        "KIND      Model\n"
                        "FIELD     spec.isolation.level\n"
                        "TYPE      enum\n"
                        "DEFAULT   process\n"
                        "VALUES    shared, pool, process, container, microvm\n"
                        "\n"
                        "    The wall around its workers, weakest first. A host that cannot provide it refuses "
                        "the model. A\n"
                        "    change makes a new version.\n");
    buf_done(&text);
    explain("Model.resources.memory", &text);
    assert_non_null(strstr(text.data, "RANGE     16Mi to 1Ti\n"));
}

static void test_part(void **state)
{
    (void)state;
    _buf_ struct buf text;
    explain("model.replicas", &text);
    assert_non_null(strstr(text.data, "PART      spec.replicas\n"));
    assert_non_null(strstr(text.data, "spec.replicas.idleAfter  duration  0s\n"));
    assert_null(strstr(text.data, "spec.engine"));
}

static void test_every_kind(void **state)
{
    (void)state;
    for (int kind = RESOURCE_NONE + 1; kind < RESOURCE_KIND_COUNT; kind++) {
        const struct resource_kind_info *info = &resource_kinds[kind];
        _buf_ struct buf text;
        explain(info->plural, &text);
        for (size_t i = 0; i < info->n_fields; i++) {
            assert_non_null(strstr(text.data, info->fields[i].path));
            assert_true(strlen(info->fields[i].help) > 3);
            _buf_ struct buf path, detail;
            buf_init(&path, KIB);
            buf_format(&path, "%s.%s", info->name, info->fields[i].path);
            explain(buf_terminate(&path), &detail);
        }
        for (const char *line = text.data; *line; line += strcspn(line, "\n") + 1)
            assert_true(strcspn(line, "\n") <= 100);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refused("modle", "there is no kind \"modle\" (did you mean \"Model\"?)");
    expect_refused(
        "", "there is no kind \"\"; there are Server, Tenant, Model, Grant, Adapter, Version, Replica, Key and Device");
    expect_refused("model.", "Model has no field \"\"; `explain Model` lists them");
    expect_refused("model.spec.gpu", "Model has no field \"spec.gpu\"; `explain Model` lists them");
    expect_refused("model..", "Model has no field \".\"; `explain Model` lists them");
}

/* docs/resources.md is generated; BULKHEAD_UPDATE=1 writes it anew. */
static void test_reference_is_current(void **state)
{
    (void)state;
    const char *source = getenv("BULKHEAD_SOURCE");
    if (!source)
        skip();
    _buf_ struct buf wanted, path, found;
    buf_init(&wanted, MIB);
    buf_init(&path, 4 * KIB);
    buf_init(&found, MIB);
    resource_reference(&wanted);
    buf_format(&path, "%s/docs/resources.md", source);
    if (getenv("BULKHEAD_UPDATE")) {
        FILE *file = fopen(buf_terminate(&path), "w");
        assert_non_null(file);
        assert_int_equal(fwrite(wanted.data, 1, wanted.size, file), wanted.size);
        assert_int_equal(fclose(file), 0);
        return;
    }
    FILE *file = fopen(buf_terminate(&path), "r");
    assert_non_null(file);
    size_t n;
    while ((n = fread(buf_reserve(&found, 4096), 1, 4096, file)) > 0)
        buf_commit(&found, n);
    (void)fclose(file);
    if (!str_equal((struct str){found.data, found.size}, (struct str){wanted.data, wanted.size}))
        fail_msg("docs/resources.md is not what the tables say; run the tests with BULKHEAD_UPDATE=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),      cmocka_unit_test(test_field),    cmocka_unit_test(test_part),
        cmocka_unit_test(test_every_kind), cmocka_unit_test(test_refusals), cmocka_unit_test(test_reference_is_current),
    };
    return cmocka_run_group_tests_name("resource_explain", tests, NULL, NULL);
}
