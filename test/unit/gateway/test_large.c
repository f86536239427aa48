/* Large bodies: how many are handled in a turn, whose is next, and what happens to one whose client goes. */
#include "gateway/gateway_internal.h"
#include "test/unit/gateway/requests_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <stdlib.h>

#include <cmocka.h>

const struct gateway_surface *const gateway_surfaces[] = {NULL};

static struct gateway g;
static struct gateway_tenant tenants[2];
static struct gateway_request *handled[16];
static uint32_t n_handled;

static void quick(struct gateway_request *r)
{
    assert_int_equal(r->state, GATEWAY_REQUEST_HANDLED);
    assert_true(n_handled < 16);
    handled[n_handled++] = r;
}

/* Takes a whole turn. */
static void slow(struct gateway_request *r)
{
    uint64_t begin_ns = uv_hrtime();
    quick(r);
    while (uv_hrtime() - begin_ns < LIMIT_TURN_MS * UINT64_C(1000000))
        ;
}

static const struct gateway_route routes[] = {{.path = "/quick", .handler = quick}, {.path = "/slow", .handler = slow}};

static struct gateway_request *large(uint32_t tenant, uint32_t route)
{
    struct gateway_request *r = gateway_request_new(&g);
    assert_non_null(r);
    gateway_request_own(r, &tenants[tenant]);
    r->route = &routes[route];
    gateway_large_add(r);
    return r;
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof g);
    memset(tenants, 0, sizeof tenants);
    n_handled = 0;
    g.memory.bytes_max = MIB;
    g.config.body_bytes_max = MIB;
    tenants[0].uid = 7;
    tenants[1].uid = 8;
    list_init(&g.requests_free);
    list_init(&g.large);
    gateway_quotas_init(&g);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_true(list_empty(&g.large));
    for (uint32_t i = 0; i < n_handled; i++) {
        gateway_request_state_set(handled[i], GATEWAY_REQUEST_ANSWERED);
        gateway_request_free(handled[i]);
    }
    assert_int_equal(tenants[0].n_requests + tenants[1].n_requests, 0);
    requests_free_done(&g);
    return 0;
}

/* Each turn ends after one that takes all its time, and the loop is told to come back. */
static void test_one_that_takes_long_ends_the_turn(void **state)
{
    (void)state;
    gateway_large_turn(&g);
    assert_false(g.look_again);
    for (uint32_t i = 0; i < 3; i++)
        (void)large(0, 1);
    for (uint32_t i = 1; i <= 3; i++) {
        g.look_again = false;
        gateway_large_turn(&g);
        assert_int_equal(n_handled, i);
        assert_int_equal(g.look_again, i < 3);
    }
}

static void test_tenants_take_turns(void **state)
{
    (void)state;
    struct gateway_request *a[] = {large(0, 1), large(0, 1), large(0, 1)}, *b[] = {large(1, 1), large(1, 1)};
    struct gateway_request *order[] = {a[0], b[0], a[1], b[1], a[2]};
    for (uint32_t i = 0; i < 5; i++) {
        gateway_large_turn(&g);
        assert_ptr_equal(handled[i], order[i]);
    }
}

static void test_a_client_that_goes(void **state)
{
    (void)state;
    struct gateway_request *gone = large(0, 0), *stays = large(0, 0);
    gateway_request_cancel(gone);
    assert_int_equal(tenants[0].n_requests, 1);
    gateway_large_turn(&g);
    assert_int_equal(n_handled, 1);
    assert_ptr_equal(handled[0], stays);
}

/* What was asked for before the turn's end stays asked for. */
static void test_look_again_is_kept(void **state)
{
    (void)state;
    g.look_again = true;
    gateway_large_turn(&g);
    assert_true(g.look_again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_that_takes_long_ends_the_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tenants_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_client_that_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_look_again_is_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
