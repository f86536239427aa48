/* Grants: what is refused, what is in the catalog, and what a borrower's replica is. */
#include "registry_fixture.h"

static const char *body(struct fixture *f, const char *resources)
{
    static char text[32768];
    char a[65], b[65];
    fixture_upload(f, "content a", a);
    fixture_upload(f, "content b", b);
    (void)snprintf(text, sizeof text, "{\"resources\":[%s],\"artifacts\":{\"a.gguf\":\"%s\",\"b.gguf\":\"%s\"}}",
                   resources, a, b);
    return text;
}

#define WORLD TENANT("acme", "") "," TENANT("bob", "") "," TENANT("eve", "\"isolation\":{\"minimum\":\"process\"}")
#define BASE  LLAMA("acme", "base", "a.gguf", LEVEL("shared"))

static struct catalog *catalog(struct fixture *f)
{
    uint64_t generation;
    int fd = -1;
    size_t bytes;
    struct catalog *c = NULL;
    if (registry_catalog(f->registry, &generation, &fd, &bytes, &f->err) < 0 ||
        catalog_open(fd, bytes, &c, &f->err) < 0)
        fail_msg("catalog: %s", f->err.text);
    close(fd);
    return c;
}

static const struct catalog_model *row(const struct catalog *c, const char *tenant, const char *name)
{
    const struct catalog_tenant *t = catalog_tenant_find(c, str_from(tenant));
    for (uint32_t i = 0; t && i < catalog_n_tenants(c); i++)
        if (catalog_tenant_at(c, i) == t)
            return catalog_model_find(c, i, str_from(name));
    return NULL;
}

static uint64_t tenant_uid(struct fixture *f, const char *name)
{
    struct catalog *c = catalog(f);
    uint64_t uid = catalog_tenant_find(c, str_from(name))->uid;
    catalog_close(c);
    return uid;
}

/* It goes with the version, whose replicas are started with it, and only language models have it. */
static void test_repack(void **state)
{
    struct fixture *f = *state;
    struct registry_version v;
    fixture_refused(f, body(f, WORLD "," MODEL("acme", "m", "a.gguf", ",\"resources\":{\"repack\":true}")),
                    ERROR_INVALID_RESOURCE, "spec.resources.repack: engine \"identity\"");
    fixture_applied(f, body(f, WORLD "," LLAMA("acme", "base", "a.gguf", "")));
    uint64_t uid = fixture_version(f, "acme", "base");
    assert_int_equal(registry_version_find(f->registry, uid, 0, &v, &f->err), 0);
    assert_false(v.repack);
    fixture_applied(f, body(f, LLAMA("acme", "base", "a.gguf", ",\"resources\":{\"repack\":true}")));
    uint64_t again = fixture_version(f, "acme", "base");
    assert_int_not_equal(again, uid);
    assert_int_equal(registry_version_find(f->registry, again, 0, &v, &f->err), 0);
    assert_true(v.repack);
}

/* Nothing waits for other rows of a language model: what says so is refused, not ignored. */
static void test_batching_of_language_models(void **state)
{
    struct fixture *f = *state;
    fixture_refused(f, body(f, WORLD "," LLAMA("acme", "base", "a.gguf", ",\"batching\":{\"maxDelay\":\"1ms\"}")),
                    ERROR_INVALID_RESOURCE, "spec.batching.maxDelay: the requests of a language model");
    fixture_refused(f, body(f, WORLD "," LLAMA("acme", "base", "a.gguf", ",\"batching\":{\"preferredSizes\":[2]}")),
                    ERROR_INVALID_RESOURCE, "spec.batching.preferredSizes: the requests of a language model");
    fixture_applied(f, body(f, WORLD "," LLAMA("acme", "base", "a.gguf", ",\"batching\":{\"maxSize\":2}")));
    uint64_t uid = fixture_version(f, "acme", "base");
    fixture_applied(f, body(f, LLAMA("acme", "base", "a.gguf", ",\"batching\":{\"maxSize\":3}")));
    assert_true(fixture_version(f, "acme", "base") == uid); /* the gateway gives the places */
}

static void test_rows_of_borrowers(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," LLAMA("eve", "own", "b.gguf", "")));
    fixture_applied(f, body(f, GRANT("acme", "lend", "base", "\"bob\",\"eve\"", ",\"sharedBatch\":true")));
    assert_non_null(strstr(fixture_get(f, RESOURCE_GRANT, "acme", ""), "\"tenants\":[\"bob\",\"eve\"]"));
    struct catalog *c = catalog(f);
    assert_int_equal(catalog_n_models(c), 4);
    const struct catalog_model *own = row(c, "acme", "base"), *bob = row(c, "bob", "base"),
                               *eve = row(c, "eve", "base");
    assert_true(own && bob && eve && row(c, "eve", "own"));
    assert_int_equal(own->lender, 0);
    assert_int_equal(own->shared_batch, 0);
    assert_ptr_equal(catalog_model_at(c, bob->lender - 1), own);
    assert_ptr_equal(catalog_model_at(c, eve->lender - 1), own);
    assert_int_equal(bob->shared_batch, 1);
    assert_true(bob->uid != eve->uid && bob->uid != own->uid);
    const struct catalog_version *a = catalog_version_at(c, own->version_first),
                                 *b = catalog_version_at(c, bob->version_first),
                                 *e = catalog_version_at(c, eve->version_first);
    assert_true(a->uid == b->uid && a->uid == e->uid);
    assert_int_equal(a->hosted, 0);
    assert_int_equal(b->hosted, 1); /* shared is enough for bob */
    assert_int_equal(b->level, 1);
    assert_int_equal(e->hosted, 0); /* and not for eve */
    assert_int_equal(e->level, 3);
    catalog_close(c);

    /* who is no longer named loses it */
    fixture_applied(f, body(f, GRANT("acme", "lend", "base", "\"eve\"", "")));
    c = catalog(f);
    assert_null(row(c, "bob", "base"));
    assert_int_equal(row(c, "eve", "base")->shared_batch, 0);
    catalog_close(c);
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("acme"), STR("lend"), &f->change, &f->err), 0);
    c = catalog(f);
    assert_null(row(c, "eve", "base"));
    assert_int_equal(catalog_n_models(c), 2);
    catalog_close(c);
}

/* Lenders and borrowers in any order of names; rows stay grouped by tenant. */
static void test_order_of_names(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, TENANT("a", "") "," TENANT("m", "") "," TENANT("z", "") "," TENANT("zz", "") "," //
                LLAMA("m", "base", "a.gguf", "") "," LLAMA("z", "zoo", "b.gguf", "") ","            //
                GRANT("m", "g", "base", "\"a\",\"z\",\"zz\"", "") "," GRANT("z", "g", "zoo", "\"a\",\"m\"", "")));
    struct catalog *c = catalog(f);
    assert_int_equal(catalog_n_models(c), 7);
    static const char *const rows[][2] = {{"a", "base"}, {"a", "zoo"}, {"m", "base"}, {"m", "zoo"},
                                          {"z", "base"}, {"z", "zoo"}, {"zz", "base"}};
    for (size_t i = 0; i < 7; i++)
        assert_non_null(row(c, rows[i][0], rows[i][1]));
    assert_null(row(c, "zz", "zoo"));
    assert_int_equal(catalog_version_at(c, row(c, "a", "base")->version_first)->level, 3);
    catalog_close(c);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, WORLD "," BASE "," MODEL("acme", "tensor", "a.gguf", "") "," LLAMA("bob", "own", "a.gguf", "")));
    const int bad = ERROR_INVALID_RESOURCE;
    fixture_refused(f, body(f, GRANT("acme", "g", "base", "\"acme\"", "")), bad, "acme is whose model it is");
    fixture_refused(f, body(f, GRANT("acme", "g", "bases", "\"bob\"", "")), bad, "Tenant acme has no Model bases");
    fixture_refused(f, body(f, GRANT("acme", "g", "base", "\"nobody\"", "")), bad, "there is no Tenant nobody");
    fixture_refused(f, body(f, GRANT("nobody", "g", "base", "\"bob\"", "")), bad, "there is no Tenant nobody");
    fixture_refused(f, body(f, GRANT("acme", "g", "base", "", "")), bad, "at least 1");
    fixture_refused(f, body(f, GRANT("acme", "g", "base", "\"bob\",\"bob\"", "")), bad, "given twice");
    fixture_refused(f, body(f, GRANT("acme", "g", "tensor", "\"bob\"", "")), ERROR_REFUSED, "only language models");
    fixture_applied(f, body(f, GRANT("acme", "g", "base", "\"bob\"", "")));
    fixture_refused(f, body(f, GRANT("acme", "g", "tensor", "\"bob\"", "")), ERROR_REFUSED,
                    "spec.model: cannot change");
    /* lent, it stays a language model */
    fixture_refused(f, body(f, MODEL("acme", "base", "a.gguf", "")), ERROR_REFUSED, "lent by Grant acme/g");
    /* what is lent to bob is not bob's to lend */
    fixture_refused(f, body(f, GRANT("bob", "g", "base", "\"eve\"", "")), bad, "Tenant bob has no Model base");
}

static void test_names_are_one_set(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f, body(f, WORLD "," BASE "," LLAMA("bob", "own", "b.gguf", "") "," LLAMA("acme", "own", "b.gguf", "")));
    fixture_refused(f, body(f, GRANT("acme", "g", "own", "\"bob\"", "")), ERROR_CONFLICT,
                    "has a Model of its own of the name own");
    fixture_applied(f, body(f, GRANT("acme", "g", "base", "\"bob\"", "")));
    fixture_refused(f, body(f, LLAMA("bob", "base", "b.gguf", "")), ERROR_CONFLICT,
                    "lent a model of this name, by Grant acme/g");
    fixture_refused(f, body(f, GRANT("acme", "h", "base", "\"eve\",\"bob\"", "")), ERROR_CONFLICT,
                    "already, by Grant acme/g");
    fixture_refused(f, body(f, LLAMA("eve", "base", "b.gguf", "") "," GRANT("eve", "g", "base", "\"bob\"", "")),
                    ERROR_CONFLICT, "already, by Grant acme/g");
    /* both in one apply */
    fixture_refused(f, body(f, LLAMA("eve", "base", "b.gguf", "") "," GRANT("acme", "g", "base", "\"eve\"", "")),
                    ERROR_CONFLICT, "by Grant acme/g");
    /* bob's place goes to eve in one apply */
    fixture_applied(f,
                    body(f, GRANT("acme", "g", "base", "\"eve\"", "") "," GRANT("acme", "h", "base", "\"bob\"", "")));
}

/* The fixture's host has levels up to process; the next is not there, and the last still being tested. */
static void test_levels(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," TENANT("max", "\"isolation\":{\"minimum\":\"container\"}")));
    fixture_refused(f, body(f, GRANT("acme", "g", "base", "\"max\"", "")), ERROR_ISOLATION_UNAVAILABLE,
                    "Tenant max demands level \"container\" for Model acme/base, which is not available: no container");
    fixture_applied(f, body(f, GRANT("acme", "g", "base", "\"bob\"", "")));
    fixture_refused(f, body(f, TENANT("bob", "\"isolation\":{\"minimum\":\"microvm\"}")), ERROR_AGAIN,
                    "Tenant bob demands level \"microvm\"");
    fixture_applied(f, body(f, TENANT("bob", "\"isolation\":{\"minimum\":\"pool\"}")));
    struct catalog *c = catalog(f);
    const struct catalog_version *v = catalog_version_at(c, row(c, "bob", "base")->version_first);
    assert_int_equal(v->hosted, 0);
    assert_int_equal(v->level, 2);
    catalog_close(c);
}

static void test_deletes(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," GRANT("acme", "g", "base", "\"bob\"", "")));
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("base"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_non_null(strstr(f->err.text, "is lent to others by Grant acme/g"));
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("bob"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_non_null(strstr(f->err.text, "is lent a model by Grant acme/g"));
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("bob"), STR("g"), &f->change, &f->err),
                     -ERROR_NOT_FOUND);
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("acme"), STR("g"), &f->change, &f->err), 0);
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("base"), &f->change, &f->err), 0);
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("bob"), &f->change, &f->err), 0);
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("acme"), &f->change, &f->err), 0);
}

static void test_versions_of_borrowers(void **state)
{
    struct fixture *f = *state;
    fixture_applied(
        f,
        body(
            f,
            TENANT("acme", "\"quota\":{\"replicas\":9}") "," TENANT(
                "bob",
                "\"quota\":{\"replicas\":1,\"memory\":\"1Gi\"}") "," TENANT("eve",
                                                                            "\"isolation\":{\"minimum\":\"process\"}")));
    fixture_applied(f, body(f, LLAMA("acme", "base", "a.gguf", LEVEL("shared") ",\"replicas\":{\"min\":1}")));
    uint64_t uid = fixture_version(f, "acme", "base"), bob = tenant_uid(f, "bob"), eve = tenant_uid(f, "eve");
    struct registry_version v;
    assert_int_equal(registry_version_find(f->registry, uid, bob, &v, &f->err), -ERROR_MODEL_NOT_FOUND);
    fixture_applied(f, body(f, GRANT("acme", "g", "base", "\"bob\",\"eve\"", "")));
    assert_int_equal(registry_version_find(f->registry, uid, 0, &v, &f->err), 0);
    assert_string_equal(v.lender, "");
    assert_int_equal(v.n_beside, 1); /* bob; eve has its own */
    assert_int_equal(v.replicas_min, 1);
    uint64_t model_uid = v.model_uid;

    assert_int_equal(registry_version_find(f->registry, uid, bob, &v, &f->err), 0);
    assert_string_equal(v.tenant, "bob");
    assert_string_equal(v.lender, "acme");
    assert_string_equal(v.model, "base");
    assert_int_equal(v.tenant_uid, bob);
    assert_true(v.hosted);
    assert_int_equal(v.model_uid, model_uid);
    assert_int_equal(v.tenant_max.replicas, 1); /* its own quotas, not the owner's */
    assert_int_equal(v.tenant_max.memory_bytes, GIB);
    assert_int_equal(v.replicas_min, 0);

    assert_int_equal(registry_version_find(f->registry, uid, eve, &v, &f->err), 0);
    assert_false(v.hosted);
    assert_int_equal(v.level, 3);
    assert_int_equal(v.floor, 3);
    struct catalog *c = catalog(f);
    assert_true(v.model_uid == row(c, "eve", "base")->uid);
    catalog_close(c);
    assert_int_equal(registry_model_find(f->registry, STR("eve"), STR("base"), &v, &f->err), 0);
    assert_string_equal(v.lender, "acme");
    assert_int_equal(registry_model_find(f->registry, STR("eve"), STR("bases"), &v, &f->err), -ERROR_NOT_FOUND);

    uint64_t key = 0, other = 0;
    assert_int_equal(registry_version_key(uid, 0, &key), 0);
    assert_true(key == uid);
    assert_int_equal(registry_version_key(uid, bob, &key), 0);
    assert_int_equal(registry_version_key(uid, eve, &other), 0);
    assert_true(key != other && key != uid);
    assert_true(registry_version_key(uid, UINT64_MAX, &key) < 0);
    assert_true(registry_version_key(key, 0, &other) < 0); /* of nobody: no number of the store's */
    assert_int_equal(registry_version_find(f->registry, uid, UINT64_MAX, &v, &f->err), -ERROR_MODEL_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_repack, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_batching_of_language_models, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_rows_of_borrowers, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_order_of_names, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_names_are_one_set, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_levels, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deletes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_versions_of_borrowers, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("registry_lend", tests, NULL, NULL);
}
