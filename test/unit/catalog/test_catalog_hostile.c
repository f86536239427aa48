/* What a broken or malicious control could hand to the gateway. */
#include "catalog_fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

/* The snapshot's bytes on the heap, in a block of exactly their size, so that ASan sees a read one byte beyond. */
static char *snapshot_copy(struct catalog_builder *b, size_t *ret_bytes)
{
    int fd = -1;
    size_t bytes = 0;
    assert_int_equal(catalog_build(b, &fd, &bytes, NULL), 0);
    char *copy = malloc(bytes);
    assert_non_null(copy);
    assert_int_equal(pread(fd, copy, bytes, 0), bytes);
    close(fd);
    *ret_bytes = bytes;
    return copy;
}

static int open_sealed_with(const char *data, size_t bytes, size_t announced, unsigned seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), bytes);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    struct catalog *c = NULL;
    int result = catalog_open(fd, announced, &c, NULL);
    catalog_close(c);
    close(fd);
    return result;
}

static void test_seals_and_size(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(2, 2);
    size_t bytes = 0;
    char *data = snapshot_copy(b, &bytes);
    unsigned all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    assert_int_equal(open_sealed_with(data, bytes, bytes, all), 0);
    assert_int_equal(open_sealed_with(data, bytes, bytes, all & ~(unsigned)F_SEAL_WRITE), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes, bytes, all & ~(unsigned)F_SEAL_SHRINK), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes, bytes, all & ~(unsigned)F_SEAL_GROW), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes, bytes, all & ~(unsigned)F_SEAL_SEAL), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes, bytes - 1, all), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes, bytes + 1, all), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, bytes - 64, bytes - 64, all), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, 0, 0, all), -ERROR_PEER);
    assert_int_equal(open_sealed_with(data, 63, 63, all), -ERROR_PEER);
    assert_int_equal(catalog_open(-1, bytes, &(struct catalog *){NULL}, NULL), -ERROR_PEER);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(catalog_open(null, bytes, &(struct catalog *){NULL}, NULL), -ERROR_PEER);
    close(null);
    free(data);
    catalog_builder_free(b);
}

/* Every byte in turn, through several changes: refused, or everything readable is still inside. */
static void test_every_byte_flipped(void **state)
{
    (void)state;
    static const unsigned char masks[] = {0x01, 0x80, 0xFF, 0x02};
    struct catalog_builder *b = fixture_builder(6, 9);
    size_t bytes = 0;
    char *data = snapshot_copy(b, &bytes);
    struct catalog c;
    assert_int_equal(catalog_view(&c, data, bytes, NULL), 0);
    size_t refused = 0;
    volatile uint64_t sum = fixture_read_everything(&c);
    for (size_t i = 0; i < bytes; i++)
        for (size_t m = 0; m < sizeof masks; m++) {
            data[i] = (char)(data[i] ^ masks[m]);
            struct error err = {0};
            int result = catalog_view(&c, data, bytes, &err);
            if (result == 0) {
                sum = sum + fixture_read_everything(&c);
            } else {
                assert_int_equal(result, -ERROR_PEER);
                assert_true(err.text[0] != '\0');
                refused++;
            }
            data[i] = (char)(data[i] ^ masks[m]);
        }
    assert_int_equal(catalog_view(&c, data, bytes, NULL), 0);
    assert_true(refused > 0 && refused < bytes * sizeof masks);
    free(data);
    catalog_builder_free(b);
}

static void test_every_truncation(void **state)
{
    (void)state;
    struct catalog_builder *b = fixture_builder(3, 3);
    size_t bytes = 0;
    char *data = snapshot_copy(b, &bytes);
    for (size_t size = 0; size < bytes; size++) {
        char *shorter = malloc(size ? size : 1);
        memcpy(shorter, data, size);
        struct catalog c;
        assert_int_equal(catalog_view(&c, shorter, size, NULL), -ERROR_PEER);
        if (size >= sizeof(struct catalog_head)) { /* even where the head agrees with the size */
            ((struct catalog_head *)(void *)shorter)->bytes = size;
            assert_int_equal(catalog_view(&c, shorter, size, NULL), -ERROR_PEER);
        }
        free(shorter);
    }
    free(data);
    catalog_builder_free(b);
}

struct attack {
    const char *name;
    void (*change)(struct catalog *c);
};

static void key_tenant_outside(struct catalog *c)
{
    ((struct catalog_key *)(uintptr_t)c->keys)[0].tenant = c->head->n_tenants;
}

static void quota_outside(struct catalog *c)
{
    ((struct catalog_tenant *)(uintptr_t)c->tenants)[0].quota = c->head->n_quotas + 1;
}

static void key_quota_outside(struct catalog *c)
{
    ((struct catalog_tenant *)(uintptr_t)c->tenants)[0].key_quota = UINT32_MAX;
}

static void quota_without_burst(struct catalog *c)
{
    ((struct catalog_quota *)(uintptr_t)c->quotas)[0].burst = 0;
}

static void name_without_end(struct catalog *c)
{
    memset(((struct catalog_tenant *)(uintptr_t)c->tenants)[0].name, 'a', LIMIT_NAME_BYTES + 1);
}

static void engine_without_end(struct catalog *c)
{
    memset(((struct catalog_version *)(uintptr_t)c->versions)[0].engine, 'a', CATALOG_ENGINE_BYTES);
}

static void name_with_slash(struct catalog *c)
{
    memcpy(((struct catalog_model *)(uintptr_t)c->models)[0].name, "../a", 5);
}

static void versions_outside(struct catalog *c)
{
    ((struct catalog_model *)(uintptr_t)c->models)[c->head->n_models - 1].n_versions++;
}

static void versions_shared(struct catalog *c)
{
    ((struct catalog_model *)(uintptr_t)c->models)[1].version_first = c->models[0].version_first;
}

static void versions_wrap(struct catalog *c)
{
    ((struct catalog_model *)(uintptr_t)c->models)[0].version_first = UINT32_MAX;
}

static void version_of_another(struct catalog *c)
{
    ((struct catalog_version *)(uintptr_t)c->versions)[0].model = 1;
}

static void model_of_another_tenant(struct catalog *c)
{
    ((struct catalog_model *)(uintptr_t)c->models)[0].tenant++;
}

static void range_outside(struct catalog *c)
{
    ((struct catalog_range *)(uintptr_t)c->ranges)[0].n = c->head->n_models + 1;
}

static void slot_outside(struct catalog *c)
{
    for (size_t i = 0; i <= c->key_table.mask; i++)
        if (c->key_table.slots[i].index_plus_1 == c->head->n_keys)
            ((struct catalog_slot *)(uintptr_t)c->key_table.slots)[i].index_plus_1++;
}

static void table_without_a_hole(struct catalog *c)
{
    for (size_t i = 0; i <= c->key_table.mask; i++)
        ((struct catalog_slot *)(uintptr_t)c->key_table.slots)[i].index_plus_1 = 1;
}

static void counts_wrap(struct catalog *c)
{
    ((struct catalog_head *)(uintptr_t)c->head)->n_keys = UINT32_MAX;
}

static struct catalog_model *lent(struct catalog *c)
{
    for (uint32_t i = 0; i < c->head->n_models; i++)
        if (c->models[i].lender)
            return &((struct catalog_model *)(uintptr_t)c->models)[i];
    fail();
    return NULL;
}

static void lender_outside(struct catalog *c)
{
    lent(c)->lender = c->head->n_models + 1;
}

static void lender_wraps(struct catalog *c)
{
    lent(c)->lender = UINT32_MAX;
}

static void lender_itself(struct catalog *c)
{
    struct catalog_model *m = lent(c);
    m->lender = (uint32_t)(m - c->models) + 1;
}

static void lender_of_another_name(struct catalog *c)
{
    lent(c)->name[1] = '7';
}

static void lent_other_bytes(struct catalog *c)
{
    ((struct catalog_version *)(uintptr_t)c->versions)[lent(c)->version_first].digest[0] ^= 1;
}

static void lent_other_version(struct catalog *c)
{
    ((struct catalog_version *)(uintptr_t)c->versions)[lent(c)->version_first].uid++;
}

static void lent_of_another_time(struct catalog *c)
{
    ((struct catalog_version *)(uintptr_t)c->versions)[lent(c)->version_first].created_s++;
}

static void lent_hosted_at_another_level(struct catalog *c)
{
    struct catalog_version *v = &((struct catalog_version *)(uintptr_t)c->versions)[lent(c)->version_first];
    v->hosted = 1;
    v->level = 3;
}

static void own_hosted(struct catalog *c)
{
    ((struct catalog_version *)(uintptr_t)c->versions)[0].hosted = 1;
    ((struct catalog_version *)(uintptr_t)c->versions)[0].level = CATALOG_LEVEL_SHARED;
}

static void own_shares_batches(struct catalog *c)
{
    ((struct catalog_model *)(uintptr_t)c->models)[0].shared_batch = 1;
}

static void adapter_of_another_base(struct catalog *c)
{
    struct catalog_adapter *a = &((struct catalog_adapter *)(uintptr_t)c->adapters)[0];
    a->model = c->adapters[1].model; /* of another tenant */
}

static void adapter_base_outside(struct catalog *c)
{
    ((struct catalog_adapter *)(uintptr_t)c->adapters)[0].model = UINT32_MAX;
}

static void adapter_tenant_outside(struct catalog *c)
{
    ((struct catalog_adapter *)(uintptr_t)c->adapters)[c->head->n_adapters - 1].tenant = c->head->n_tenants;
}

static void adapter_without_bytes(struct catalog *c)
{
    ((struct catalog_adapter *)(uintptr_t)c->adapters)[0].bytes = 0;
}

static void adapter_name_without_end(struct catalog *c)
{
    memset(((struct catalog_adapter *)(uintptr_t)c->adapters)[0].name, 'a', LIMIT_NAME_BYTES + 1);
}

static void adapter_range_outside(struct catalog *c)
{
    ((struct catalog_range *)(uintptr_t)c->adapter_ranges)[1].n = c->head->n_adapters + 1;
}

static void adapter_slot_outside(struct catalog *c)
{
    for (size_t i = 0; i <= c->adapter_table.mask; i++)
        if (c->adapter_table.slots[i].index_plus_1 == c->head->n_adapters)
            ((struct catalog_slot *)(uintptr_t)c->adapter_table.slots)[i].index_plus_1++;
}

static void adapter_counts_wrap(struct catalog *c)
{
    ((struct catalog_head *)(uintptr_t)c->head)->n_adapters = UINT32_MAX;
}

static void test_named_attacks(void **state)
{
    (void)state;
    static const struct attack attacks[] = {
        {"key_tenant_outside", key_tenant_outside},
        {"quota_outside", quota_outside},
        {"key_quota_outside", key_quota_outside},
        {"quota_without_burst", quota_without_burst},
        {"name_without_end", name_without_end},
        {"engine_without_end", engine_without_end},
        {"name_with_slash", name_with_slash},
        {"versions_outside", versions_outside},
        {"versions_shared", versions_shared},
        {"versions_wrap", versions_wrap},
        {"version_of_another", version_of_another},
        {"model_of_another_tenant", model_of_another_tenant},
        {"range_outside", range_outside},
        {"slot_outside", slot_outside},
        {"table_without_a_hole", table_without_a_hole},
        {"counts_wrap", counts_wrap},
        {"lender_outside", lender_outside},
        {"lender_wraps", lender_wraps},
        {"lender_itself", lender_itself},
        {"lender_of_another_name", lender_of_another_name},
        {"lent_other_bytes", lent_other_bytes},
        {"lent_other_version", lent_other_version},
        {"lent_of_another_time", lent_of_another_time},
        {"lent_hosted_at_another_level", lent_hosted_at_another_level},
        {"own_hosted", own_hosted},
        {"own_shares_batches", own_shares_batches},
        {"adapter_of_another_base", adapter_of_another_base},
        {"adapter_base_outside", adapter_base_outside},
        {"adapter_tenant_outside", adapter_tenant_outside},
        {"adapter_without_bytes", adapter_without_bytes},
        {"adapter_name_without_end", adapter_name_without_end},
        {"adapter_range_outside", adapter_range_outside},
        {"adapter_slot_outside", adapter_slot_outside},
        {"adapter_counts_wrap", adapter_counts_wrap},
    };
    struct catalog_builder *b = fixture_builder(6, 9);
    for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++) {
        size_t bytes = 0;
        char *data = snapshot_copy(b, &bytes);
        struct catalog c;
        assert_int_equal(catalog_view(&c, data, bytes, NULL), 0);
        attacks[i].change(&c);
        print_message("%s\n", attacks[i].name);
        assert_int_equal(catalog_view(&c, data, bytes, NULL), -ERROR_PEER);
        free(data);
    }
    catalog_builder_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seals_and_size),
        cmocka_unit_test(test_every_byte_flipped),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_named_attacks),
    };
    return cmocka_run_group_tests_name("catalog_hostile", tests, NULL, NULL);
}
