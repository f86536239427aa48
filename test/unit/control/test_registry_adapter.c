/* Adapters: what is refused, what is opened with which base, what is in the catalog, and who may load which. */
#include "registry_fixture.h"

static const char *body(struct fixture *f, const char *resources)
{
    static char text[32768];
    char a[65], b[65], v[65], w[65];
    fixture_upload(f, "content a", a);
    fixture_upload(f, "content b", b);
    fixture_upload(f, "voice v", v);
    fixture_upload(f, "voice w", w);
    (void)snprintf(text, sizeof text,
                   "{\"resources\":[%s],\"artifacts\":{\"a.gguf\":\"%s\",\"b.gguf\":\"%s\",\"v.gguf\":\"%s\","
                   "\"w.gguf\":\"%s\"}}",
                   resources, a, b, v, w);
    return text;
}

#define WORLD TENANT("acme", "") "," TENANT("bob", "") "," TENANT("eve", "\"isolation\":{\"minimum\":\"process\"}")
#define BASE  LLAMA("acme", "base", "a.gguf", LEVEL("shared"))
#define LEND  GRANT("acme", "lend", "base", "\"bob\",\"eve\"", "")
#define ADAPTER(tenant, name, base, source)                                                 \
    "{" API "\"kind\":\"Adapter\",\"metadata\":{\"name\":\"" name "\",\"tenant\":\"" tenant \
    "\"},\"spec\":{\"base\":\"" base "\",\"source\":\"" source "\"}}"

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

/* Copy of the row; uid 0: it is not in the catalog. */
static struct catalog_adapter published(struct fixture *f, const char *tenant, const char *name)
{
    struct catalog *c = catalog(f);
    const struct catalog_tenant *t = catalog_tenant_find(c, str_from(tenant));
    struct catalog_adapter copy = {0};
    for (uint32_t i = 0; t && i < catalog_n_tenants(c); i++)
        if (catalog_tenant_at(c, i) == t) {
            const struct catalog_adapter *a = catalog_adapter_find(c, i, str_from(name));
            copy = a ? *a : copy;
            if (a)
                assert_string_equal(catalog_model_at(c, a->model)->name, "base");
        }
    catalog_close(c);
    return copy;
}

static const char *status(struct fixture *f, const char *tenant, const char *name)
{
    return fixture_get(f, RESOURCE_ADAPTER, tenant, name);
}

static void test_adapters_of_owner_and_borrowers(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, TENANT("acme", "\"quota\":{\"adapterBytes\":\"1Mi\"}") "," TENANT("bob", "") "," TENANT(
                                   "eve", "\"isolation\":{\"minimum\":\"process\"}") "," BASE));
    uint32_t opened = f->n_described;
    fixture_applied(f, body(f, LEND "," ADAPTER("acme", "voice", "base", "v.gguf") "," ADAPTER(
                                   "bob", "voice", "base", "v.gguf") "," ADAPTER("eve", "voice", "base", "w.gguf")));
    assert_int_equal(f->change.created, 4);
    assert_int_equal(f->n_described, opened + 2); /* each content once with that base, whoever has it */
    struct catalog_adapter acme = published(f, "acme", "voice"), bob = published(f, "bob", "voice"),
                           eve = published(f, "eve", "voice");
    assert_true(acme.uid && bob.uid && eve.uid && acme.uid != bob.uid);
    assert_int_equal(acme.bytes, strlen("voice v"));
    assert_memory_equal(acme.digest, bob.digest, sizeof bob.digest);
    assert_true(acme.model != bob.model && bob.model != eve.model);
    assert_non_null(strstr(status(f, "bob", ""), "\"usable\":true"));
    struct catalog *c = catalog(f);
    assert_int_equal(catalog_tenant_find(c, STR("acme"))->adapter_bytes_max, MIB);
    assert_int_equal(catalog_tenant_find(c, STR("bob"))->adapter_bytes_max, 0);
    catalog_close(c);

    /* the same again changes nothing; other content is another adapter */
    fixture_applied(f, body(f, ADAPTER("acme", "voice", "base", "v.gguf")));
    assert_int_equal(f->change.unchanged, 1);
    assert_true(published(f, "acme", "voice").uid == acme.uid);
    uint32_t files = fixture_files(f);
    fixture_applied(f, body(f, ADAPTER("acme", "voice", "base", "w.gguf")));
    assert_true(published(f, "acme", "voice").uid != acme.uid);
    assert_int_equal(f->n_described, opened + 2); /* it is known to fit */
    assert_int_equal(fixture_files(f), files);    /* bob has the old one */
    fixture_applied(f, body(f, ADAPTER("bob", "voice", "base", "w.gguf")));
    assert_int_equal(fixture_files(f), files - 1);
    assert_int_equal(registry_delete(f->registry, RESOURCE_ADAPTER, STR("bob"), STR("voice"), &f->change, &f->err), 0);
    assert_int_equal(published(f, "bob", "voice").uid, 0);
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    const int bad = ERROR_INVALID_RESOURCE;
    fixture_applied(f, body(f, WORLD "," BASE "," MODEL("acme", "tensor", "a.gguf", "")));
    fixture_refused(f, body(f, ADAPTER("nobody", "v", "base", "v.gguf")), bad, "there is no Tenant nobody");
    fixture_refused(f, body(f, ADAPTER("acme", "v", "bases", "v.gguf")), bad,
                    "Tenant acme has no Model bases, and is lent none");
    fixture_refused(f, body(f, ADAPTER("bob", "v", "base", "v.gguf")), bad,
                    "Tenant bob has no Model base, and is lent none");
    fixture_refused(f, body(f, ADAPTER("acme", "v", "base", "x.gguf")), bad, "was not uploaded");
    fixture_refused(f, body(f, ADAPTER("acme", "v", "tensor", "v.gguf")), ERROR_REFUSED, "only language models");
    fixture_applied(f, body(f, ADAPTER("acme", "v", "base", "v.gguf")));
    fixture_refused(f, body(f, MODEL("acme", "base", "a.gguf", "")), ERROR_REFUSED,
                    "cannot be the base of Adapter acme/v");
    fixture_refused(
        f, body(f, TENANT("acme", "\"quota\":{\"artifactBytes\":8}") "," ADAPTER("acme", "w", "base", "w.gguf")),
        ERROR_REFUSED, "spec.quota.artifactBytes");
    assert_int_equal(registry_delete(f->registry, RESOURCE_MODEL, STR("acme"), STR("base"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_non_null(strstr(f->err.text, "is the base of Adapter acme/v"));
}

static void test_names_are_one_set(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," LEND "," LLAMA("acme", "other", "a.gguf",
                                                                 "") "," ADAPTER("bob", "other", "base", "v.gguf")));
    fixture_refused(f, body(f, ADAPTER("acme", "other", "base", "v.gguf")), ERROR_CONFLICT,
                    "Tenant acme has a Model of this name");
    fixture_refused(f, body(f, ADAPTER("bob", "base", "base", "v.gguf")), ERROR_CONFLICT,
                    "is lent a model of this name, by Grant acme/lend");
    fixture_refused(f, body(f, LLAMA("bob", "other", "b.gguf", "")), ERROR_CONFLICT,
                    "Tenant bob has an Adapter of the name other");
    fixture_refused(f, body(f, GRANT("acme", "g", "other", "\"bob\"", "")), ERROR_CONFLICT,
                    "Tenant bob has an Adapter of the name other");
    fixture_refused(f, body(f, LLAMA("eve", "x", "b.gguf", "") "," ADAPTER("eve", "x", "base", "v.gguf")),
                    ERROR_CONFLICT, "of th");
}

/* A new content of the base is opened with all that rest on it; nothing is served that was not. */
static void test_a_base_changes(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," LEND "," ADAPTER("acme", "v", "base", "v.gguf") "," ADAPTER(
                                   "bob", "w", "base", "w.gguf")));
    uint32_t opened = f->n_described;
    fixture_applied(f, body(f, LLAMA("acme", "base", "b.gguf", LEVEL("shared"))));
    assert_int_equal(f->n_described, opened + 3); /* itself, and two adapters with it */
    assert_true(published(f, "acme", "v").uid && published(f, "bob", "w").uid);
    fixture_applied(f,
                    body(f, LLAMA("acme", "base", "b.gguf", LEVEL("shared") ",\"resources\":{\"memory\":\"512Mi\"}")));
    assert_int_equal(f->n_described, opened + 3); /* the same content */

    /* while nothing is lent, bob's stays, unused; the base changes; then it is opened when the loan comes back */
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("acme"), STR("lend"), &f->change, &f->err), 0);
    assert_int_equal(published(f, "bob", "w").uid, 0);
    assert_non_null(
        strstr(status(f, "bob", "w"), "\"usable\":false,\"reason\":\"its base is not there, or no longer lent"));
    fixture_applied(f, body(f, LLAMA("acme", "base", "w.gguf", LEVEL("shared"))));
    assert_int_equal(f->n_described, opened + 5);
    fixture_applied(f, body(f, LEND));
    assert_int_equal(f->n_described, opened + 6);
    assert_true(published(f, "bob", "w").uid);
}

/* An apply whose adapter is found not to fit writes nothing: registry_ingest_add is not called. */
static void test_what_was_not_found_to_fit_is_not_served(void **state)
{
    struct fixture *f = *state;
    struct registry_ingest ingest;
    fixture_applied(f, body(f, WORLD "," BASE));
    registry_ingest_init(&ingest);
    int rc = registry_apply(f->registry, str_from(body(f, ADAPTER("acme", "v", "base", "v.gguf"))), &ingest, &f->change,
                            &f->results, &f->err);
    assert_int_equal(rc, 1);
    assert_string_equal(ingest.wanted.engine, "llama");
    assert_string_equal(ingest.wanted.model, "base");
    assert_int_equal(ingest.wanted.artifact_bytes, strlen("content a"));
    assert_string_equal(ingest.wanted_adapter.model, "v");
    assert_int_equal(ingest.wanted_adapter.artifact_bytes, strlen("voice v"));
    registry_ingest_done(&ingest);
    assert_string_equal(status(f, "acme", ""), "[]");
}

static uint64_t tenant_uid(struct fixture *f, const char *name)
{
    struct catalog *c = catalog(f);
    uint64_t uid = catalog_tenant_find(c, str_from(name))->uid;
    catalog_close(c);
    return uid;
}

static int allowed(struct fixture *f, uint64_t adapter_uid, uint64_t version, uint64_t borrower)
{
    struct registry_adapter a;
    struct registry_version v;
    int rc = registry_adapter_find(f->registry, adapter_uid, &a, &f->err);
    if (rc >= 0)
        rc = registry_version_find(f->registry, version, borrower, &v, &f->err);
    return rc < 0 ? rc : registry_adapter_allowed(f->registry, &a, &v, &f->err);
}

static void test_who_may_load_which(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," LEND "," LLAMA("acme", "other", "a.gguf", LEVEL("shared")) "," //
                            ADAPTER("acme", "v", "base", "v.gguf") "," ADAPTER("bob", "w", "base", "w.gguf") "," //
                            ADAPTER("eve", "w", "base", "w.gguf")));
    uint64_t base = fixture_version(f, "acme", "base"), other = fixture_version(f, "acme", "other");
    uint64_t bob = tenant_uid(f, "bob"), eve = tenant_uid(f, "eve");
    uint64_t v = published(f, "acme", "v").uid, bobs = published(f, "bob", "w").uid,
             eves = published(f, "eve", "w").uid;
    assert_int_equal(allowed(f, v, base, 0), 0);
    assert_int_equal(allowed(f, bobs, base, 0), 0);                /* the owner's replicas serve bob */
    assert_int_equal(allowed(f, eves, base, eve), 0);              /* eve has its own … */
    assert_int_equal(allowed(f, bobs, base, eve), -ERROR_REFUSED); /* … and nobody else's adapter gets there */
    assert_int_equal(allowed(f, eves, base, 0), -ERROR_REFUSED);   /* nor hers into what bob shares */
    assert_int_equal(allowed(f, v, base, eve), -ERROR_REFUSED);
    assert_int_equal(allowed(f, v, other, 0), -ERROR_REFUSED); /* of the same content, but not its base */
    assert_int_equal(allowed(f, v, base, bob + 1000), -ERROR_MODEL_NOT_FOUND);
    assert_int_equal(allowed(f, base, base, 0), -ERROR_MODEL_NOT_FOUND); /* a model is no adapter */
    fixture_applied(f, body(f, ADAPTER("acme", "v", "base", "w.gguf")));
    assert_int_equal(allowed(f, v, base, 0), -ERROR_MODEL_NOT_FOUND); /* its content of before is gone */
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("acme"), STR("lend"), &f->change, &f->err), 0);
    assert_int_equal(allowed(f, bobs, base, 0), -ERROR_REFUSED);
}

static void test_tenants_with_adapters_stay(void **state)
{
    struct fixture *f = *state;
    fixture_applied(f, body(f, WORLD "," BASE "," LEND "," ADAPTER("bob", "w", "base", "w.gguf")));
    assert_int_equal(registry_delete(f->registry, RESOURCE_GRANT, STR("acme"), STR("lend"), &f->change, &f->err), 0);
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("bob"), &f->change, &f->err),
                     -ERROR_CONFLICT);
    assert_non_null(strstr(f->err.text, "still has adapters (w, for one)"));
    fixture_reopen(f);
}

static int setup_file(void **state)
{
    static struct fixture f;
    fixture_start(&f, &store_sqlite);
    *state = &f;
    return 0;
}

/* A virtual machine takes in no descriptor once it runs. The fixture's host has that level here. */
static int every_level(void *ctx, uint32_t level, struct error *err)
{
    (void)ctx;
    (void)level;
    (void)err;
    return 0;
}

static void test_microvm(void **state)
{
    struct fixture *f = *state;
    registry_close(f->registry);
    f->config.level_refusal = every_level;
    fixture_open(f);
    fixture_applied(f, body(f, WORLD "," BASE "," LEND "," LLAMA("acme", "deep", "a.gguf", LEVEL("microvm"))));
    fixture_refused(f, body(f, ADAPTER("acme", "v", "deep", "v.gguf")), ERROR_REFUSED,
                    "runs at level \"microvm\" for Tenant acme");
    fixture_applied(f, body(f, ADAPTER("bob", "w", "base", "w.gguf")));
    fixture_refused(f, body(f, TENANT("bob", "\"isolation\":{\"minimum\":\"microvm\"}")), ERROR_REFUSED,
                    "base of Adapter bob/w");
    fixture_refused(f, body(f, LLAMA("acme", "base", "a.gguf", LEVEL("microvm"))), ERROR_REFUSED,
                    "base of Adapter bob/w");
    fixture_refused(f,
                    body(f, TENANT("mia", "\"isolation\":{\"minimum\":\"microvm\"}") "," GRANT(
                                "acme", "g", "base", "\"mia\"", "") "," ADAPTER("mia", "w", "base", "w.gguf")),
                    ERROR_REFUSED, "for Tenant mia");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_adapters_of_owner_and_borrowers, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_names_are_one_set, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_base_changes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_what_was_not_found_to_fit_is_not_served, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_who_may_load_which, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_tenants_with_adapters_stay, setup_file, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_microvm, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("registry_adapter", tests, NULL, NULL);
}
