/* What was used of quotas, through the registry: what comes back, and what no gateway can make it keep. */
#include "registry_fixture.h"

#include "base/clock.h"
#include "base/random.h"

#include <string.h>

static struct bus_quota seen[8];
static uint32_t n_seen;

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_start(f, &store_memory);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_stop(*state);
    free(*state);
    return 0;
}

static int note(void *ctx, const struct bus_quota *row)
{
    (void)ctx;
    assert_true(n_seen < 8);
    seen[n_seen++] = *row;
    return 0;
}

static void expect_rows(struct fixture *f, uint64_t tenant_uid, uint32_t n)
{
    n_seen = 0;
    assert_int_equal(registry_quota_each(f->registry, tenant_uid, note, NULL, &f->err), 0);
    assert_int_equal(n_seen, n);
}

static struct bus_quota row_of(uint64_t tenant_uid, const char *key, uint64_t until_ms)
{
    struct bus_quota row = {.tenant_uid = tenant_uid};
    memcpy(row.key, key, strlen(key));
    row.use.windows[BUS_QUOTA_COMPUTE_HOUR].used = 7;
    row.use.windows[BUS_QUOTA_COMPUTE_HOUR].until_ms = until_ms;
    return row;
}

static void test_rows_come_back(void **state)
{
    struct fixture *f = *state;
    uint64_t now_ms = clock_wall_ms(), later_ms = now_ms + 3600000;
    struct bus_quota rows[] = {row_of(1, "", later_ms), row_of(1, "Key0000000000001", later_ms),
                               row_of(2, "", now_ms - 1000)};
    assert_int_equal(registry_quota_put(f->registry, rows, 3, &f->err), 0);
    expect_rows(f, 1, 2);
    assert_memory_equal(seen, rows, 2 * sizeof rows[0]);
    expect_rows(f, 0, 2); /* the third says nothing any more */
    rows[0].use.windows[BUS_QUOTA_COMPUTE_HOUR].used = 8;
    assert_int_equal(registry_quota_put(f->registry, rows, 1, &f->err), 0);
    expect_rows(f, 1, 2);
    assert_int_equal(seen[0].use.windows[BUS_QUOTA_COMPUTE_HOUR].used, 8);
    assert_int_equal(registry_quota_purge(f->registry, &f->err), 0);
    expect_rows(f, 0, 2);
}

static void test_bad_rows_are_refused_whole(void **state)
{
    struct fixture *f = *state;
    uint64_t later_ms = clock_wall_ms() + 3600000;
    struct bus_quota rows[2] = {row_of(1, "", later_ms), row_of(0, "", later_ms)};
    assert_int_equal(registry_quota_put(f->registry, rows, 2, &f->err), -ERROR_PEER);
    static const char *const keys[] = {"Key", "Key000000000000/", "'; DROP TABLE x;", "\x80yyyyyyyyyyyyyyy"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        rows[1] = row_of(1, keys[i], later_ms);
        assert_int_equal(registry_quota_put(f->registry, rows, 2, &f->err), -ERROR_PEER);
    }
    rows[1] = row_of(1, "", later_ms);
    rows[1].key[BUS_QUOTA_KEY_BYTES - 1] = 'a';
    assert_int_equal(registry_quota_put(f->registry, rows, 2, &f->err), -ERROR_PEER);
    expect_rows(f, 0, 0);
}

/* Whatever the numbers: stored as far as it is a row, and gone in some days. */
static void test_random_bytes(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2000; i++) {
        struct bus_quota row;
        random_bytes(&row, sizeof row);
        if (i % 2)
            memset(row.key, i % 4 == 1 ? 0 : 'k', sizeof row.key);
        row.tenant_uid %= 5;
        int rc = registry_quota_put(f->registry, &row, 1, &f->err);
        assert_int_equal(rc, bus_quota_check(&row) ? 0 : -ERROR_PEER);
    }
    n_seen = 0;
    assert_int_equal(registry_quota_each(f->registry, 0, note, NULL, &f->err), 0);
    assert_true(n_seen > 0); /* four tenants, each with a row of its own and perhaps one of a key */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_rows_are_refused_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_bytes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
