/* Building and reading. */
#include "catalog_fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

static struct catalog *build_and_open(struct catalog_builder *b)
{
    int fd = -1;
    size_t bytes = 0;
    struct error err = {0};
    struct catalog *c = NULL;
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), 0);
    assert_int_equal(catalog_open(fd, bytes, &c, &err), 0);
    close(fd);
    return c;
}

static void test_empty(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(0, 0);
    struct catalog *c = build_and_open(b);
    assert_int_equal(catalog_generation(c), 7);
    assert_int_equal(catalog_n_tenants(c) + catalog_n_keys(c) + catalog_n_models(c) + catalog_n_versions(c), 0);
    assert_null(catalog_key_find(c, "0123456789abcdef"));
    assert_null(catalog_tenant_find(c, STR("a")));
    assert_null(catalog_model_find(c, 0, STR("a")));
    catalog_close(c);
    catalog_builder_free(b);
}

static void test_finds_every_row(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(50, 1000);
    struct catalog *c = build_and_open(b);
    assert_int_equal(catalog_n_tenants(c), 50);
    assert_int_equal(catalog_n_keys(c), 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        char id[CATALOG_KEY_ID_BYTES + 1];
        fixture_key_id(i, id);
        const struct catalog_key *k = catalog_key_find(c, id);
        assert_non_null(k);
        assert_int_equal(k->tenant, i % 50);
        assert_int_equal(k->hash[31], i & 0xFF);
    }
    for (uint32_t i = 0; i < 50; i++) {
        const struct catalog_tenant *t = catalog_tenant_find(c, str_from(fixture_tenant(i).name));
        assert_ptr_equal(t, catalog_tenant_at(c, i));
        assert_int_equal(t->weight, 1 + i);
        uint32_t first = 0, n = 0;
        catalog_models_of(c, i, &first, &n);
        assert_int_equal(n, i % 3 + (i % 3 == 0 && i >= 3));
        for (uint32_t m = 0; m < n; m++) {
            const struct catalog_model *model = catalog_model_find(c, i, str_from(fixture_model(i, m).name));
            assert_ptr_equal(model, catalog_model_at(c, first + m));
            assert_int_equal(model->n_versions, 1 + i % 2);
            const struct catalog_version *newest = catalog_version_at(c, model->version_first);
            assert_int_equal(newest->number, model->n_versions);
            assert_int_equal(newest->created_s, 1700000000 + model->n_versions);
            assert_int_equal(newest->model, first + m);
            assert_int_equal(model->lender != 0, i % 3 == 0);
            assert_int_equal(newest->hosted, model->lender != 0 && i % 2 == 0);
            if (model->lender)
                assert_int_equal(catalog_model_at(c, model->lender - 1)->tenant, i - 2);
        }
        uint32_t base = first;
        catalog_adapters_of(c, i, &first, &n);
        assert_int_equal(n, i % 3 != 0 || i >= 3);
        const struct catalog_adapter *adapter = catalog_adapter_find(c, i, STR("a0"));
        assert_int_equal(adapter != NULL, n);
        if (adapter) {
            assert_ptr_equal(adapter, catalog_adapter_at(c, first));
            assert_int_equal(adapter->model, base);
            assert_int_equal(adapter->bytes, 100 + i);
            assert_int_equal(adapter->created_s, 1800000000 + i);
        }
    }
    catalog_close(c);
    catalog_builder_free(b);
}

static void test_unknown_is_null(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(3, 3);
    struct catalog *c = build_and_open(b);
    char name[LIMIT_NAME_BYTES + 2];
    memset(name, 'a', sizeof name);
    assert_null(catalog_key_find(c, "Key0000000000003"));
    assert_null(catalog_tenant_find(c, STR("")));
    assert_null(catalog_tenant_find(c, STR("t")));
    assert_null(catalog_tenant_find(c, STR("t0\0")));
    assert_null(catalog_tenant_find(c, (struct str){name, sizeof name}));
    assert_null(catalog_model_find(c, 2, (struct str){name, sizeof name}));
    assert_non_null(catalog_model_find(c, 2, STR("m1")));
    assert_null(catalog_model_find(c, 1, STR("m1"))); /* another tenant's model does not exist */
    assert_null(catalog_model_find(c, 77, STR("m1")));
    assert_non_null(catalog_adapter_find(c, 2, STR("a0")));
    assert_null(catalog_adapter_find(c, 0, STR("a0")));
    assert_null(catalog_adapter_find(c, 77, STR("a0")));
    assert_null(catalog_adapter_find(c, 2, STR("")));
    assert_null(catalog_adapter_find(c, 2, (struct str){name, sizeof name}));
    catalog_close(c);
    catalog_builder_free(b);
}

static void test_builder_refuses(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(2, 0);
    struct catalog_tenant t = fixture_tenant(2);
    t.name[0] = 'A';
    assert_int_equal(catalog_add_tenant(b, &t), -ERROR_INVALID_ARGUMENT);
    t = fixture_tenant(2);
    t.weight = 0;
    assert_int_equal(catalog_add_tenant(b, &t), -ERROR_INVALID_ARGUMENT);
    struct catalog_key k = {.tenant = 2};
    memcpy(k.id, "0123456789abcdef", sizeof k.id);
    assert_int_equal(catalog_add_key(b, &k), -ERROR_INVALID_ARGUMENT);
    k.tenant = 1;
    k.id[3] = '-';
    assert_int_equal(catalog_add_key(b, &k), -ERROR_INVALID_ARGUMENT);
    struct catalog_model m = fixture_model(0, 0); /* tenant 1 has models already: out of order */
    assert_int_equal(catalog_add_model(b, &m), -ERROR_INVALID_ARGUMENT);
    struct catalog_version v = fixture_version(1); /* not older than the one before */
    assert_int_equal(catalog_add_version(b, &v), -ERROR_INVALID_ARGUMENT);
    m = fixture_model(1, 1);
    assert_true(catalog_add_model(b, &m) >= 0);
    m = fixture_model(1, 2); /* the one before has no version yet */
    assert_int_equal(catalog_add_model(b, &m), -ERROR_INVALID_ARGUMENT);
    int fd = -1;
    size_t bytes = 0;
    assert_int_equal(catalog_build(b, &fd, &bytes, NULL), -ERROR_INVALID_ARGUMENT);
    for (uint32_t n = 100; n > 100 - LIMIT_VERSIONS_SERVED; n--) {
        v = fixture_version(n);
        assert_true(catalog_add_version(b, &v) >= 0);
    }
    v = fixture_version(1);
    assert_int_equal(catalog_add_version(b, &v), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(catalog_build(b, &fd, &bytes, NULL), 0);
    close(fd);
    catalog_builder_free(b);
}

static void test_duplicates_are_refused(void **state)
{
    (void)state;
    int fd = -1;
    size_t bytes = 0;
    struct error err = {0};
    struct catalog_builder *b = fixture_builder(3, 1);
    struct catalog_tenant t = fixture_tenant(1);
    assert_true(catalog_add_tenant(b, &t) >= 0);
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), -ERROR_INVALID_ARGUMENT);
    catalog_builder_free(b);

    b = fixture_builder(3, 1);
    struct catalog_model m = fixture_model(2, 1);
    struct catalog_version v = fixture_version(1);
    assert_true(catalog_add_model(b, &m) >= 0);
    assert_true(catalog_add_version(b, &v) >= 0);
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), -ERROR_INVALID_ARGUMENT);
    catalog_builder_free(b);

    b = fixture_builder(3, 1);
    struct catalog_key k = {.tenant = 2};
    memcpy(k.id, "Key0000000000000", sizeof k.id);
    assert_true(catalog_add_key(b, &k) >= 0);
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), -ERROR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "catalog: two keys of the same name");
    assert_int_equal(fd, -1);
    catalog_builder_free(b);

    b = fixture_builder(3, 1);
    struct catalog_adapter a = fixture_adapter(2, 1);
    assert_true(catalog_add_adapter(b, &a) >= 0);
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), -ERROR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "catalog: two adapters of the same name");
    catalog_builder_free(b);
}

static void expect_unbuilt(struct catalog_builder *b, const char *text)
{
    int fd = -1;
    size_t bytes = 0;
    struct error err = {0};
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), -ERROR_INVALID_ARGUMENT);
    assert_string_equal(err.text, text);
    catalog_builder_free(b);
}

/* Tenants 1 and 2 have m0, 2 has m1 too; what is lent to tenant 3 has to be a row that is somebody else's own. */
static void test_lent_must_fit(void **state)
{
    (void)state;
    struct catalog_model m0 = fixture_model(3, 0);
    struct catalog_builder *b = fixture_builder(3, 0);
    struct catalog_tenant t = fixture_tenant(3);
    assert_int_equal(catalog_set_lender(b, 3, 0), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(catalog_set_lender(b, 0, 3), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(catalog_set_lender(b, 1, 2), 0); /* of the same tenant */
    expect_unbuilt(b, "catalog: model 1: is not its lender's");

    b = fixture_builder(3, 0);
    assert_int_equal(catalog_set_lender(b, 2, 0), 0); /* m1, m0 */
    expect_unbuilt(b, "catalog: model 2: is not its lender's");

    b = fixture_builder(3, 0);
    m0.shared_batch = 1;
    assert_int_equal(catalog_add_tenant(b, &t), 3);
    (void)fixture_add_model(b, &m0, 2, 4, false);
    expect_unbuilt(b, "catalog: model 3: shares batches, but is not lent");

    b = fixture_builder(3, 0);
    m0.shared_batch = 0;
    assert_int_equal(catalog_add_tenant(b, &t), 3);
    (void)fixture_add_model(b, &m0, 2, CATALOG_LEVEL_SHARED, true);
    expect_unbuilt(b, "catalog: model 3: is hosted, but not lent");

    b = fixture_builder(3, 0);
    assert_int_equal(catalog_add_tenant(b, &t), 3);
    (void)fixture_add_model(b, &m0, 1, 4, false);
    assert_int_equal(catalog_set_lender(b, 3, 0), 0); /* which has two versions */
    expect_unbuilt(b, "catalog: model 3: is not its lender's");

    b = fixture_builder(3, 0);
    assert_int_equal(catalog_add_tenant(b, &t), 3);
    (void)fixture_add_model(b, &m0, 2, CATALOG_LEVEL_SHARED, true);
    assert_int_equal(catalog_set_lender(b, 3, 0), 0); /* whose replicas are at another level */
    expect_unbuilt(b, "catalog: model 3: has a version that is not its lender's");

    b = fixture_builder(4, 0);
    t = fixture_tenant(4);
    m0 = fixture_model(4, 0);
    assert_int_equal(catalog_add_tenant(b, &t), 4);
    (void)fixture_add_model(b, &m0, 2, 4, false);
    assert_int_equal(catalog_set_lender(b, 4, 3), 0); /* which is lent itself */
    expect_unbuilt(b, "catalog: model 4: is not its lender's");
}

static void test_adapter_must_fit(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(3, 0);
    struct catalog_adapter a = fixture_adapter(2, 0);
    a.name[0] = 'b';
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT); /* tenant 1's base */
    a.model = 3;
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT);
    a.model = 1;
    a.bytes = 0;
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT);
    a.bytes = LIMIT_ARTIFACT_BYTES + 1;
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT);
    a.bytes = LIMIT_ARTIFACT_BYTES;
    a.name[0] = '/';
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT);
    a.name[0] = 'b';
    assert_true(catalog_add_adapter(b, &a) >= 0);
    a = fixture_adapter(1, 0); /* tenant 2 has adapters already: out of order */
    a.name[0] = 'b';
    assert_int_equal(catalog_add_adapter(b, &a), -ERROR_INVALID_ARGUMENT);
    catalog_builder_free(b);
}

static void test_snapshot_is_sealed(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(1, 1);
    int fd = -1;
    size_t bytes = 0;
    assert_int_equal(catalog_build(b, &fd, &bytes, NULL), 0);
    assert_true(pwrite(fd, "x", 1, 0) < 0);
    assert_true(ftruncate(fd, 0) < 0);
    assert_true(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    catalog_builder_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_finds_every_row),
        cmocka_unit_test(test_unknown_is_null),
        cmocka_unit_test(test_builder_refuses),
        cmocka_unit_test(test_duplicates_are_refused),
        cmocka_unit_test(test_lent_must_fit),
        cmocka_unit_test(test_adapter_must_fit),
        cmocka_unit_test(test_snapshot_is_sealed),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
