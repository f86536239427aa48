/* Artifacts, keys, the catalog, and what a restart finds. */
#include "registry_fixture.h"

#include <openssl/evp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void apply_one(struct fixture *f, const char *content, const char *resources)
{
    char hex[65], text[4096];
    fixture_upload(f, content, hex);
    (void)snprintf(text, sizeof text, "{\"resources\":[%s],\"artifacts\":{\"a.json\":\"%s\"}}", resources, hex);
    fixture_applied(f, text);
}

static void test_upload(void **state)
{
    struct fixture *f = *state;
    char hex[65], again[65];
    fixture_upload(f, "abc", hex);
    /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    fixture_upload(f, "abc", again);
    assert_string_equal(hex, again);
    assert_int_equal(fixture_files(f), 1);

    struct registry_upload *u = NULL;
    uint64_t bytes = 77;
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(fixture_files(f), 2);
    registry_upload_abort(u);
    assert_int_equal(fixture_files(f), 1);
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(registry_upload_finish(u, hex, &bytes, &f->err), -ERROR_INVALID_REQUEST); /* empty */
    assert_int_equal(bytes, 77);
    assert_int_equal(fixture_files(f), 1);
}

static void test_upload_limits(void **state)
{
    struct fixture *f = *state;
    struct registry_upload *u[9] = {NULL};
    for (int i = 0; i < 8; i++)
        assert_int_equal(registry_upload_begin(f->registry, &u[i], &f->err), 0);
    assert_int_equal(registry_upload_begin(f->registry, &u[8], &f->err), -ERROR_OVERLOADED);
    registry_upload_abort(u[0]);
    assert_int_equal(registry_upload_begin(f->registry, &u[0], &f->err), 0);
    /* the registry goes first */
    registry_close(f->registry);
    f->registry = NULL;
    assert_int_equal(fixture_files(f), 0);
    assert_int_equal(registry_upload_write(u[0], STR("x"), &f->err), -ERROR_DRAINING);
    char hex[65];
    uint64_t bytes;
    assert_int_equal(registry_upload_finish(u[1], hex, &bytes, &f->err), -ERROR_DRAINING);
    u[1] = NULL;
    for (int i = 0; i < 8; i++)
        registry_upload_abort(u[i]);
    fixture_open(f);
}

/* A write that does not fit: RLIMIT_FSIZE stands for a full disk. */
static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, small = {.rlim_cur = 4, .rlim_max = RLIM_INFINITY};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old;
    assert_int_equal(sigaction(SIGXFSZ, &ignore, &old), 0);
    struct registry_upload *u = NULL;
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(registry_upload_write(u, STR("more than four"), &f->err), -ERROR_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(sigaction(SIGXFSZ, &old, NULL), 0);
    assert_null(strstr(f->err.text, f->folder));
    registry_upload_abort(u);
    assert_int_equal(fixture_files(f), 0);
}

static uint64_t available;

static bool memory_available(void *ctx, uint64_t *ret_bytes)
{
    (void)ctx;
    *ret_bytes = available;
    return available > 0;
}

/* What does not fit into the host's memory is refused before it is put there. */
static void test_memory_is_looked_at(void **state)
{
    struct fixture *f = *state;
    registry_close(f->registry);
    f->config.memory_available = memory_available;
    fixture_open(f);
    apply_one(f, "the model", TENANT("acme", "") "," MODEL("acme", "m", "a.json", ""));
    struct registry_version v;
    assert_int_equal(registry_version_find(f->registry, fixture_version(f, "acme", "m"), 0, &v, &f->err), 0);
    int fd = -1;
    static const uint64_t little[] = {1, 64 * MIB - 1, 64 * MIB + 8};
    for (size_t i = 0; i < sizeof little / sizeof little[0]; i++) {
        available = little[i];
        assert_int_equal(fixture_memfd(f, &v, &fd), -ERROR_NO_MEMORY);
        assert_non_null(strstr(f->err.text, "acme/m version 1 takes 0 MiB of memory"));
        assert_int_equal(fd, -1);
    }
    available = 64 * MIB + 9;
    assert_int_equal(fixture_memfd(f, &v, &fd), 0);
    close(fd);
    v.artifact_bytes = LIMIT_ARTIFACT_BYTES; /* the sum does not wrap */
    fd = -1;
    assert_int_equal(fixture_memfd(f, &v, &fd), -ERROR_NO_MEMORY);
    assert_non_null(strstr(f->err.text, "takes 1048576 MiB"));
    available = 0; /* nobody knows */
    assert_int_equal(fixture_memfd(f, &v, &fd), -ERROR_IO);
    assert_non_null(strstr(f->err.text, "is damaged"));
}

static void test_memfd(void **state)
{
    struct fixture *f = *state;
    apply_one(f, "the model", TENANT("acme", "") "," MODEL("acme", "m", "a.json", ""));
    uint64_t uid = fixture_version(f, "acme", "m");
    struct registry_version v;
    assert_int_equal(registry_version_find(f->registry, uid, 0, &v, &f->err), 0);
    int fd = -1;
    assert_int_equal(fixture_memfd(f, &v, &fd), 0);
    char text[32] = "";
    assert_int_equal(pread(fd, text, sizeof text, 0), 9);
    assert_string_equal(text, "the model");
    assert_int_equal(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL),
                     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    close(fd);

    /* damaged, longer, missing */
    char path[200], hex[65];
    fixture_upload(f, "the model", hex);
    (void)snprintf(path, sizeof path, "%s/%s", f->artifacts, hex);
    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "T", 1, 0), 1);
    int copy = -1;
    assert_int_equal(fixture_memfd(f, &v, &copy), -ERROR_IO);
    assert_non_null(strstr(f->err.text, "Model acme/m version 1 is damaged"));
    assert_int_equal(pwrite(fd, "the model and", 13, 0), 13);
    assert_int_equal(fixture_memfd(f, &v, &copy), -ERROR_IO);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fixture_memfd(f, &v, &copy), -ERROR_IO);
    assert_non_null(strstr(f->err.text, "is missing"));
    assert_int_equal(copy, -1);
}

static void test_keys(void **state)
{
    struct fixture *f = *state;
    apply_one(f, "x", TENANT("acme", "") "," TENANT("other", ""));
    char key[REGISTRY_KEY_BYTES + 1], second[REGISTRY_KEY_BYTES + 1];
    assert_int_equal(registry_key_create(f->registry, STR("nobody"), STR(""), key, &f->change, &f->err),
                     -ERROR_NOT_FOUND);
    assert_int_equal(registry_key_create(f->registry, STR("acme"), STR("a\nb"), key, &f->change, &f->err),
                     -ERROR_INVALID_NAME);
    uint64_t generation = f->change.generation;
    assert_int_equal(registry_key_create(f->registry, STR("acme"), STR("ci \"1\""), key, &f->change, &f->err), 0);
    assert_int_equal(f->change.generation, generation + 1);
    assert_int_equal(strlen(key), REGISTRY_KEY_BYTES);
    assert_memory_equal(key, "bh_", 3);
    assert_int_equal(key[3 + STORE_KEY_ID_BYTES], '_');
    assert_int_equal(registry_key_create(f->registry, STR("other"), STR(""), second, &f->change, &f->err), 0);
    assert_string_not_equal(key, second);

    const char *list = fixture_get(f, RESOURCE_KEY, "acme", "");
    assert_non_null(strstr(list, "\"name\":\"ci \\\"1\\\"\",\"tenant\":\"acme\""));
    assert_null(strstr(list, "other"));
    assert_null(strstr(list, key + 3 + STORE_KEY_ID_BYTES)); /* no secret */
    assert_null(strstr(list, "hash"));

    uint64_t ret_generation;
    int fd = -1;
    size_t bytes;
    struct catalog *c = NULL;
    assert_int_equal(registry_catalog(f->registry, &ret_generation, &fd, &bytes, &f->err), 0);
    assert_int_equal(catalog_open(fd, bytes, &c, &f->err), 0);
    const struct catalog_key *found = catalog_key_find(c, key + 3);
    assert_non_null(found);
    uint8_t hash[32];
    unsigned int n = 0;
    EVP_Digest(key, REGISTRY_KEY_BYTES, hash, &n, EVP_sha256(), NULL);
    assert_memory_equal(hash, found->hash, sizeof hash);
    assert_string_equal(catalog_tenant_at(c, found->tenant)->name, "acme");
    catalog_close(c);
    close(fd);

    struct str id = {key + 3, STORE_KEY_ID_BYTES};
    assert_int_equal(registry_key_revoke(f->registry, id, &f->change, &f->err), 0);
    assert_int_equal(registry_key_revoke(f->registry, id, &f->change, &f->err), -ERROR_NOT_FOUND);
    assert_string_equal(fixture_get(f, RESOURCE_KEY, "acme", ""), "[]");
    /* keys go with their tenant */
    assert_int_equal(registry_delete(f->registry, RESOURCE_TENANT, STR(""), STR("other"), &f->change, &f->err), 0);
    assert_string_equal(fixture_get(f, RESOURCE_KEY, "", ""), "[]");
}

static void test_catalog(void **state)
{
    struct fixture *f = *state;
    apply_one(f, "x",
              TENANT("zoo", "\"weight\":2,\"quota\":{\"requestsPerMinute\":600,\"queueDepth\":9}") "," TENANT(
                  "acme", "") "," MODEL("zoo", "b", "a.json", ",\"resources\":{\"cpu\":2}") "," MODEL("acme", "c",
                                                                                                      "a.json", ""));
    for (int i = 0; i < 10; i++) { /* more versions than are served */
        char content[32];
        (void)snprintf(content, sizeof content, "content %d", i);
        apply_one(f, content, MODEL("acme", "c", "a.json", ",\"batching\":{\"maxSize\":5}"));
    }
    uint64_t generation = 0;
    int fd = -1;
    size_t bytes;
    struct catalog *c = NULL;
    assert_int_equal(registry_catalog(f->registry, &generation, &fd, &bytes, &f->err), 0);
    assert_int_equal(generation, f->change.generation);
    if (catalog_open(fd, bytes, &c, &f->err) < 0)
        fail_msg("%s", f->err.text);
    close(fd);
    assert_int_equal(catalog_generation(c), generation);
    const struct catalog_tenant *zoo = catalog_tenant_find(c, STR("zoo"));
    assert_int_equal(zoo->weight, 2);
    assert_int_equal(zoo->queue_max, 9);
    assert_int_equal(catalog_quota_at(c, zoo->quota - 1)->requests_per_minute, 600);
    assert_int_equal(catalog_quota_at(c, zoo->quota - 1)->burst, 10);
    assert_int_equal(zoo->key_quota, 0);
    const struct catalog_tenant *acme = catalog_tenant_find(c, STR("acme"));
    assert_int_equal(acme->quota, 0);
    assert_int_equal(catalog_n_quotas(c), 1);
    uint32_t zoo_index = 0, acme_index = 0;
    for (uint32_t i = 0; i < catalog_n_tenants(c); i++)
        *(catalog_tenant_at(c, i) == zoo ? &zoo_index : &acme_index) = i;
    const struct catalog_model *b = catalog_model_find(c, zoo_index, STR("b"));
    assert_int_equal(b->n_versions, 1);
    assert_int_equal(catalog_version_at(c, b->version_first)->slots, 2);
    assert_int_equal(catalog_version_at(c, b->version_first)->level, 3);
    const struct catalog_model *m = catalog_model_find(c, acme_index, STR("c"));
    assert_int_equal(m->n_versions, LIMIT_VERSIONS_SERVED);
    assert_int_equal(m->batch_max, 5);
    assert_int_equal(catalog_version_at(c, m->version_first)->number, 11);
    assert_string_equal(catalog_version_at(c, m->version_first)->engine, "identity");
    assert_null(catalog_model_find(c, zoo_index, STR("c")));
    catalog_close(c);
}

static void test_restart(void **state)
{
    (void)state;
    struct fixture f;
    fixture_start(&f, &store_sqlite);
    apply_one(&f, "kept", TENANT("acme", "") "," MODEL("acme", "m", "a.json", ""));
    char key[REGISTRY_KEY_BYTES + 1], hex[65];
    assert_int_equal(registry_key_create(f.registry, STR("acme"), STR("k"), key, &f.change, &f.err), 0);
    uint64_t generation = f.change.generation;
    fixture_upload(&f, "never applied", hex);
    int fd = openat(f.artifacts_dir, ".upload-0123456789012345678901", O_CREAT | O_WRONLY, 0600);
    close(fd);
    fd = openat(f.artifacts_dir, "not ours", O_CREAT | O_WRONLY, 0600);
    close(fd);
    assert_int_equal(fixture_files(&f), 4);
    fixture_reopen(&f);
    assert_int_equal(fixture_files(&f), 2);
    assert_non_null(strstr(fixture_get(&f, RESOURCE_MODEL, "acme", "m"), "\"version\":1"));
    assert_non_null(strstr(fixture_get(&f, RESOURCE_KEY, "acme", "k"), "\"id\":\""));
    uint64_t again = 0;
    size_t bytes;
    assert_int_equal(registry_catalog(f.registry, &again, &fd, &bytes, &f.err), 0);
    close(fd);
    assert_int_equal(again, generation);
    fixture_stop(&f);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_upload),  TEST(test_upload_limits),       TEST(test_disk_full),
        TEST(test_memfd),   TEST(test_memory_is_looked_at), TEST(test_keys),
        TEST(test_catalog), cmocka_unit_test(test_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
