/* What requests take beside their bodies: counted for all and for each tenant, refused with the right code, given back.
 */
#include "gateway/gateway_internal.h"
#include "test/unit/gateway/requests_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <stdlib.h>

#include <cmocka.h>

const struct gateway_surface *const gateway_surfaces[] = {NULL};

enum { BYTES_MAX = 1000000 };

static struct gateway g;
static struct gateway_tenant tenants[2];

static struct gateway_request *request(struct gateway_tenant *t)
{
    struct gateway_request *r = gateway_request_new(&g);
    assert_non_null(r);
    gateway_request_own(r, t);
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    return r;
}

static void end(struct gateway_request *r)
{
    gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    gateway_request_free(r);
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof g);
    memset(tenants, 0, sizeof tenants);
    g.memory.bytes_max = BYTES_MAX;
    g.config.body_bytes_max = BYTES_MAX;
    list_init(&g.requests_free);
    gateway_quotas_init(&g);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(g.memory.bytes, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tenants[i].memory.bytes + tenants[i].n_requests, 0);
    requests_free_done(&g);
    return 0;
}

/* A tenant's requests share half; its only request may have all; another tenant finds room. */
static void test_decoded(void **state)
{
    (void)state;
    struct gateway_request *r[4], *other = request(&tenants[1]), *small = request(&tenants[0]);
    assert_non_null(arena_alloc(&small->arena, 2000)); /* small ones count nowhere */
    assert_int_equal(g.memory.bytes, 0);
    uint32_t n = 0;
    for (; n < 4; n++) {
        r[n] = request(&tenants[0]);
        if (!arena_alloc(&r[n]->arena, 150000))
            break;
    }
    assert_int_equal(n, 3);
    assert_in_range(g.memory.bytes, 450000, 460000);
    assert_int_equal(g.memory.bytes, tenants[0].memory.bytes);
    struct error err = {0};
    assert_int_equal(gateway_memory_explain(r[3], ERROR_NO_MEMORY, &err), -ERROR_QUEUE_FULL);
    assert_non_null(strstr(err.text, "of 1000000"));
    assert_int_equal(gateway_memory_explain(r[3], ERROR_INVALID_REQUEST, &err), ERROR_INVALID_REQUEST);
    assert_int_equal(gateway_memory_explain(r[0], -ERROR_NO_MEMORY, &err), -ERROR_NO_MEMORY); /* the machine's */
    assert_non_null(arena_alloc(&other->arena, 540000));
    end(r[3]);
    struct gateway_request *late = request(&tenants[1]);
    assert_null(arena_alloc(&late->arena, 150000));
    assert_int_equal(gateway_memory_explain(late, ERROR_NO_MEMORY, &err), -ERROR_OVERLOADED);
    end(late);
    end(other);
    for (uint32_t i = 0; i < n; i++)
        end(r[i]);
    other = request(&tenants[0]);
    assert_non_null(arena_alloc(&other->arena, 990000));
    end(other);
    end(small);
}

static void test_gathered(void **state)
{
    (void)state;
    struct gateway_request *a = request(&tenants[0]), *b = request(&tenants[0]), *c = request(&tenants[1]);
    struct error err = {0};
    assert_int_equal(gateway_hold(a, 300000, &err), 0);
    assert_int_equal(gateway_hold(b, 200000, &err), 0);
    assert_int_equal(gateway_hold(b, 200001, &err), -ERROR_QUEUE_FULL);
    assert_non_null(strstr(err.text, "gathered"));
    assert_int_equal(tenants[0].memory.bytes, 500000);
    assert_int_equal(gateway_hold(c, 500001, &err), -ERROR_OVERLOADED);
    assert_int_equal(gateway_hold(c, 500000, &err), 0);
    assert_int_equal(gateway_hold(a, 0, &err), 0);
    assert_int_equal(gateway_hold(a, 1, &err), 0);
    assert_int_equal(g.memory.bytes, 700001);
    end(a);
    end(b);
    end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_decoded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gathered, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
