/* Catalogs are taken whole or not at all, and old versions let go. */
#include "gateway/gateway_internal.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

const struct gateway_surface *const gateway_surfaces[] = {NULL};

static struct gateway g;

static int setup(void **state)
{
    (void)state;
    log_setup("test", LOG_LEVEL_ALERT);
    g = (struct gateway){.config.body_bytes_max = MIB};
    map_init(&g.tenants, 10);
    slab_init(&g.tenants_slab, sizeof(struct gateway_tenant));
    map_init(&g.versions, 10);
    map_init(&g.replicas, 10);
    map_init(&g.requests, 10);
    list_init(&g.busy);
    list_init(&g.connections);
    list_init(&g.requests_free);
    const struct schedule_device_config device = {.name = "cpu", .slots = 1};
    return schedule_new(&(struct schedule_config){.devices = &device, .n_devices = 1}, &g.schedule);
}

/* A catalog of n tenants, t0 …, each with a model m of versions 2 and 1; tenant i's versions have the uids uid0 + 10 i
 * + number, its own 100 + i. `reversed`: the last tenant first. */
static int give(uint64_t generation, uint32_t n, uint64_t uid0, bool reversed)
{
    struct catalog_builder *b = NULL;
    assert_int_equal(catalog_builder_new(generation, &b), 0);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = reversed ? n - 1 - i : i;
        struct catalog_tenant t = {.uid = 100 + number, .weight = 1, .queue_max = 10, .classes = 6};
        (void)snprintf(t.name, sizeof t.name, "t%u", number);
        assert_int_equal(catalog_add_tenant(b, &t), i);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct catalog_model m = {
            .uid = 200 + i, .tenant = i, .batch_max = 1, .replicas_max = 1, .weight = 1, .class = 1, .name = "m"};
        assert_true(catalog_add_model(b, &m) >= 0);
        for (uint32_t k = 2; k > 0; k--) {
            struct catalog_version v = {
                .uid = uid0 + 10 * i + k, .number = k, .slots = 1, .level = 3, .engine = "identity"};
            assert_true(catalog_add_version(b, &v) >= 0);
        }
    }
    _close_ int fd = -1;
    size_t bytes;
    struct error err = {0};
    assert_int_equal(catalog_build(b, &fd, &bytes, &err), 0);
    catalog_builder_free(b);
    return gateway_catalog_take(&g, fd, bytes, &err);
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(give(1000, 0, 0, false), 0); /* nothing is left */
    assert_int_equal(g.tenants.count + g.versions.count, 0);
    catalog_close(g.catalog);
    free(g.tenant_at);
    free(g.version_at);
    map_done(&g.tenants);
    map_done(&g.versions);
    schedule_free(g.schedule);
    return 0;
}

static void expect_served(uint32_t tenant, uint64_t version_uid)
{
    struct gateway_request r = {.gateway = &g, .tenant = map_get(&g.tenants, 100 + tenant)};
    struct gateway_version *v = NULL;
    assert_non_null(r.tenant);
    assert_int_equal(gateway_version_find(&r, STR("m"), (struct str){0}, &v, NULL), 0);
    assert_int_equal(v->uid, version_uid);
    assert_ptr_equal(v->tenant, r.tenant);
}

/* A version that changes its tenant, or memory that runs out: the tenants that came before it in the rows must not have
 * changed either. */
static void a_catalog_is_taken_whole_or_not_at_all(void **state)
{
    (void)state;
    assert_int_equal(give(1, 3, 10, false), 0);
    expect_served(2, 32);
    assert_int_equal(give(2, 3, 10, true), -ERROR_PEER);
    assert_int_equal(g.stats.generation, 1);
    for (uint32_t i = 0; i < 3; i++)
        expect_served(i, 12 + 10 * i);
    g.tenants.count_max = 3; /* but four come */
    assert_true(give(2, 4, 500, false) < 0);
    for (uint32_t i = 0; i < 3; i++)
        expect_served(i, 12 + 10 * i);
    for (size_t cursor = 0;;) { /* what is served stays alive when its last replica goes */
        struct gateway_version *v = map_next(&g.versions, &cursor);
        if (!v)
            break;
        gateway_version_release(v);
    }
    assert_int_equal(g.versions.count, 3);
    g.tenants.count_max = 20;
    assert_int_equal(give(3, 2, 10, false), 0);
    expect_served(1, 22);
    assert_int_equal(g.versions.count, 2);
    assert_int_equal(g.tenants.count, 2);
}

static struct gateway_version *find(uint32_t tenant, struct str number, int wanted)
{
    struct gateway_request r = {.gateway = &g, .tenant = map_get(&g.tenants, 100 + tenant)};
    struct gateway_version *v = NULL;
    assert_int_equal(gateway_version_find(&r, STR("m"), number, &v, NULL), wanted);
    return v;
}

static void only_the_newest_version_stays_for_ever(void **state)
{
    (void)state;
    assert_int_equal(give(1, 1, 10, false), 0);
    assert_int_equal(find(0, STR("2"), 0)->idle_after_ns, 0);
    assert_true(find(0, STR("1"), 0)->idle_after_ns > 0);
}

static void a_version_is_made_when_it_is_asked_for(void **state)
{
    (void)state;
    assert_int_equal(give(1, 3, 10, false), 0);
    assert_int_equal(g.versions.count, 0);
    assert_null(gateway_version_of_uid(&g, 99, 100));
    assert_null(gateway_version_of_uid(&g, 21, 100));                /* another tenant's */
    struct gateway_version *v = gateway_version_of_uid(&g, 21, 101); /* a replica of it came first */
    assert_non_null(v);
    assert_int_equal(g.versions.count, 1);
    assert_ptr_equal(find(1, STR("1"), 0), v);
    g.versions.count_max = 1;
    assert_null(find(1, STR("2"), -ERROR_NO_MEMORY));
    assert_int_equal(give(2, 3, 10, false), 0); /* a new catalog keeps it */
    assert_ptr_equal(find(1, STR("1"), 0), v);
    assert_int_equal(v->generation, 2);
    assert_int_equal(g.versions.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_catalog_is_taken_whole_or_not_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(a_version_is_made_when_it_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_newest_version_stays_for_ever, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
