/* Leases in time: maxDelay, overdue leases, wake-ups, and memory that runs out. */
#include <stdlib.h>

static int allocations_left = -1; // -1 = no limit

static void *test_malloc(size_t size)
{
    if (allocations_left == 0)
        return NULL;
    allocations_left -= allocations_left > 0;
    return malloc(size);
}

static void *test_calloc(size_t count, size_t size)
{
    if (allocations_left == 0)
        return NULL;
    allocations_left -= allocations_left > 0;
    return calloc(count, size);
}

static void *test_aligned_alloc(size_t alignment, size_t size)
{
    if (allocations_left == 0)
        return NULL;
    allocations_left -= allocations_left > 0;
    return aligned_alloc(alignment, size);
}

/* The room itself, with its allocations under control. */
#define malloc        test_malloc
#define calloc        test_calloc
#define aligned_alloc test_aligned_alloc
#define CACHE_LINE    SLAB_CACHE_LINE // both have one
#include "base/slab.c"
#undef CACHE_LINE
#include "schedule/heap.c"
#include "schedule/lease.c"
#include "schedule/schedule.c"
#undef malloc
#undef calloc
#undef aligned_alloc

#include "test/unit/schedule/fixture.h"

static void test_delay_makes_a_free_replica_wait(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 2);
    world_tenant(&w, 0, 1, 4, 1);
    world_target_set(&w, 0, 1, 4, 10 * MS, 100);
    uint64_t start_ns = w.now_ns;
    world_submit(&w, 0);
    w.now_ns += 4 * MS;
    world_submit(&w, 0); // does not begin the wait anew
    assert_null(world_next(&w));
    assert_int_equal(schedule_wakeup(w.s), start_ns + 10 * MS);
    w.now_ns = start_ns + 10 * MS - 1;
    assert_null(world_next(&w));
    w.now_ns = start_ns + 10 * MS;
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->n_requests, 2);
    assert_true(schedule_cancel(w.s, world_submit(&w, 0)));
    assert_int_equal(schedule_wakeup(w.s), lease->limit_ns);
    world_complete(&w, lease);
    assert_int_equal(schedule_wakeup(w.s), UINT64_MAX);
    world_done(&w);
}

static void test_delay_ends_when_the_batch_is_full(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows_max, rows;
        size_t bytes_max, bytes;
        uint64_t shape_key;
        uint32_t n_until_full;
    } cases[] = {
        {4, 1, 1000, 1, 1, 4},   // by rows
        {100, 1, 100, 40, 1, 3}, // by bytes
        {100, 1, 100, 1, 0, 1},  // nothing may join
        {1, 1, 100, 1, 1, 1},    // cannot batch
        {100, 200, 100, 1, 1, 1}, {100000, 1, 1000, 1, 1, LIMIT_BATCH_ITEMS},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct world w;
        world_init(&w, 1);
        world_tenant(&w, 0, 1, 1, 1);
        world_target_set(&w, 0, 1, cases[c].rows_max, 10 * MS, cases[c].bytes_max);
        for (uint32_t i = 0; i < cases[c].n_until_full; i++) {
            assert_null(world_next(&w));
            struct schedule_request *r = world_request(&w, 0);
            r->rows = cases[c].rows;
            r->bytes = cases[c].bytes;
            r->shape_key = cases[c].shape_key;
            assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
        }
        struct schedule_lease *lease = world_next(&w);
        assert_non_null(lease);
        world_complete(&w, lease);
        world_done(&w);
    }
}

static void test_delay_follows_the_head(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 2, 1);
    world_target_set(&w, 0, 1, 2, 10 * MS, 100);
    uint64_t start_ns = w.now_ns;
    struct schedule_request *first = world_submit(&w, 0);
    w.now_ns += 3 * MS;
    struct schedule_request *second = world_submit(&w, 0); // full: runnable
    assert_int_equal(schedule_wakeup(w.s), UINT64_MAX);
    assert_true(schedule_cancel(w.s, first)); // no longer: waits for the second one's time
    assert_null(world_next(&w));
    assert_int_equal(schedule_wakeup(w.s), start_ns + 13 * MS);
    world_target_set(&w, 0, 1, 2, 0, 100); // no delay any more
    struct schedule_lease *lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], second);
    world_complete(&w, lease);
    world_target_set(&w, 0, 1, 2, UINT64_MAX, 100);
    world_submit(&w, 0);
    assert_null(world_next(&w));
    assert_true(schedule_wakeup(w.s) > w.now_ns + 1000000 * NS_PER_S); // practically never
    world_done(&w);
}

/* Who waits by choice holds nobody up, and gets no credit for it. */
static void test_delay_lets_others_pass(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 2, 1);
    world_tenant(&w, 1, 1, 1, 1);
    world_target_set(&w, 0, 1, 2, 10 * MS, 100);
    world_submit(&w, 0);
    for (int i = 0; i < 3; i++)
        world_submit(&w, 1);
    for (int i = 0; i < 2; i++) {
        struct schedule_lease *lease = world_next(&w);
        assert_int_equal(world_owner(&w, lease), 1);
        w.now_ns += 4 * MS;
        world_complete(&w, lease);
    }
    w.now_ns += 2 * MS;
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 0);
    assert_true(world_flow(&w, 0)->vtime >
                world_class(&w)->vtime); // started where virtual time was by then, not at its own zero
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 1);
    world_complete(&w, lease);
    world_done(&w);
}

static void test_overdue(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 4);
    for (uint32_t i = 0; i < 3; i++)
        world_tenant(&w, i, 1, 1, 1);
    world_teach(&w, 0, 1, 2 * NS_PER_S);
    world_teach(&w, 1, 1, 1 * MS);
    struct schedule_lease *leases[3];
    for (uint32_t i = 0; i < 3; i++) {
        world_submit(&w, i);
        leases[i] = world_next(&w);
        assert_int_equal(world_owner(&w, leases[i]), i);
    }
    uint64_t start_ns = w.now_ns;
    assert_int_equal(leases[0]->limit_ns, start_ns + 16 * NS_PER_S);                    // 8 × estimate
    assert_int_equal(leases[1]->limit_ns, start_ns + 1 * NS_PER_S);                     // at least
    assert_int_equal(leases[2]->limit_ns, start_ns + LIMIT_LEASE_FIRST_MS * NS_PER_MS); // nothing known
    assert_int_equal(schedule_wakeup(w.s), start_ns + NS_PER_S);
    assert_null(schedule_overdue(w.s, start_ns + NS_PER_S - 1));
    assert_ptr_equal(schedule_overdue(w.s, start_ns + NS_PER_S), leases[1]);
    assert_null(schedule_overdue(w.s, start_ns + NS_PER_S)); // reported once
    assert_int_equal(schedule_wakeup(w.s), start_ns + 16 * NS_PER_S);
    assert_ptr_equal(schedule_overdue(w.s, start_ns + 60 * NS_PER_S), leases[0]);
    assert_ptr_equal(schedule_overdue(w.s, start_ns + 60 * NS_PER_S), leases[2]);
    w.now_ns = start_ns + 60 * NS_PER_S;
    world_complete(&w, leases[1]); // it came back after all
    world_done(&w);
}

static void test_first_lease_of_its_size_has_time(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 64, 1);
    world_teach(&w, 0, 1, 1 * MS);
    struct schedule_request *r = world_request(&w, 0);
    r->rows = 64;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->estimate_ns, 1 * MS); // borrowed
    assert_int_equal(lease->limit_ns, w.now_ns + LIMIT_LEASE_FIRST_MS * NS_PER_MS);
    w.now_ns += 40 * MS;
    world_complete(&w, lease);
    world_submit(&w, 0);
    lease = world_next(&w);
    assert_int_equal(lease->estimate_ns, 1 * MS); // each size has its own
    world_complete(&w, lease);
    world_done(&w);
}

static void test_a_step_of_a_long_prompt_has_time(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    schedule_target_set(w.s, &w.targets[0], &w.tenants[0],
                        &(struct schedule_target_config){.slots = 1, .batch_rows_max = 1, .stepped = true});
    world_teach(&w, 0, 1, 20 * MS); // as often as it took so long for a token each
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->estimate_ns, 20 * MS);
    assert_int_equal(lease->limit_ns, w.now_ns + LIMIT_LEASE_FIRST_MS * NS_PER_MS);
    w.now_ns += 20 * NS_PER_S;
    assert_null(schedule_overdue(w.s, w.now_ns));
    world_complete(&w, lease);
    world_done(&w);
}

static void test_estimate_resists_one_stall(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_teach(&w, 0, 1, 4 * MS);
    world_teach(&w, 0, 1, 3600 * NS_PER_S);
    assert_int_equal(w.targets[0].estimate_ns, 7 * MS); // counted as 16 ms, a quarter of the way there
    for (int i = 0; i < 40; i++)
        world_teach(&w, 0, 1, 40 * MS);
    assert_true(w.targets[0].estimate_ns > 39 * MS); // but a lasting change takes over
    for (int i = 0; i < 40; i++)
        world_teach(&w, 0, 1, 0);
    assert_true(w.targets[0].estimate_ns > 0); // 0 would mean unknown
    assert_true(w.targets[0].estimate_ns < MS);
    world_done(&w);
}

static void test_no_memory_is_refused_and_loses_nothing(void **state)
{
    (void)state;
    struct schedule *s = NULL;
    for (int allowed = 0; !s; allowed++) {
        allocations_left = allowed;
        const struct schedule_device_config device = {.name = "cpu", .slots = 4};
        int rc = schedule_new(&(struct schedule_config){.devices = &device, .n_devices = 1}, &s);
        assert_int_equal(rc, s ? 0 : -ERROR_NO_MEMORY);
        assert_in_range(allowed, 0, 3);
    }
    allocations_left = -1;
    schedule_free(s);

    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    struct schedule_request *r = world_request(&w, 0);
    r->deadline_ns = w.now_ns + NS_PER_S;
    for (int allowed = 0; w.tenants[0].queued == 0; allowed++) {
        allocations_left = allowed;
        int rc = schedule_submit(w.s, r, w.now_ns, NULL);
        assert_int_equal(rc, w.tenants[0].queued ? 0 : -ERROR_NO_MEMORY);
        assert_in_range(allowed, 0, 7);
    }
    allocations_left = 0;
    assert_null(world_next(&w)); // no memory for the lease: the request stays, and somebody comes back for it
    assert_int_equal(schedule_wakeup(w.s), w.now_ns + MS);
    allocations_left = -1;
    struct schedule_lease *lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], r);
    allocations_left = 0; // from here on the pool serves
    for (int i = 0; i < 5; i++) {
        world_submit(&w, 0); // an active tenant needs nothing new
        world_complete(&w, lease);
        lease = world_next(&w);
        assert_non_null(lease);
    }
    allocations_left = -1;
    world_complete(&w, lease);
    world_done(&w);
}

/* The four parts of the device's time, over all that was. */
static uint64_t device_sum_ns(const struct world *w)
{
    struct schedule_device_stats stats;
    schedule_device_stats(w->s, 0, &stats);
    return stats.tenants_ns + stats.system_ns + stats.running_ns + stats.idle_ns;
}

static void test_a_device_shrinks_as_its_leases_end(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    world_tenant(&w, 0, 1, 8, 4);
    world_target_set(&w, 0, 2, 1, 0, 100); // leases of two slots …
    world_tenant(&w, 1, 1, 1, 4);
    for (int i = 0; i < 6; i++)
        world_submit(&w, i < 2 ? 0 : 1);
    struct schedule_lease *big = world_next(&w), *small = world_next(&w);
    assert_int_equal(big->slots + small->slots, 3);
    assert_null(world_next(&w));
    w.now_ns += 10 * MS;
    schedule_device_resize(w.s, 0, 1, w.now_ns);
    struct schedule_device_stats stats;
    schedule_device_stats(w.s, 0, &stats);
    assert_int_equal(stats.slots, 3); // both still run
    assert_null(schedule_preempt(w.s, w.now_ns));
    w.now_ns += 10 * MS;
    world_complete(&w, small->slots == 1 ? small : big);
    schedule_device_stats(w.s, 0, &stats);
    assert_int_equal(stats.slots, 2);
    assert_null(world_next(&w)); // what ended was taken away
    w.now_ns += 10 * MS;
    world_complete(&w, small->slots == 1 ? big : small);
    assert_int_equal(device_sum_ns(&w), 20 * MS * 3 + 10 * MS * 2);
    for (int i = 0; i < 4; i++) { // … take the one that is left, one after the other
        struct schedule_lease *lease = world_next(&w);
        assert_non_null(lease);
        assert_int_equal(lease->slots, 1);
        assert_null(world_next(&w));
        w.now_ns += MS;
        world_complete(&w, lease);
    }
    assert_int_equal(device_sum_ns(&w), 20 * MS * 3 + 10 * MS * 2 + 4 * MS);
    schedule_device_resize(w.s, 0, 0, w.now_ns);
    world_submit(&w, 0);
    assert_null(world_next(&w));
    schedule_device_resize(w.s, 0, 7, w.now_ns); // no more than it was made with
    schedule_device_stats(w.s, 0, &stats);
    assert_int_equal(stats.slots, 3);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->slots, 2);
    world_complete(&w, lease);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delay_makes_a_free_replica_wait),
        cmocka_unit_test(test_delay_ends_when_the_batch_is_full),
        cmocka_unit_test(test_delay_follows_the_head),
        cmocka_unit_test(test_delay_lets_others_pass),
        cmocka_unit_test(test_overdue),
        cmocka_unit_test(test_a_step_of_a_long_prompt_has_time),
        cmocka_unit_test(test_first_lease_of_its_size_has_time),
        cmocka_unit_test(test_estimate_resists_one_stall),
        cmocka_unit_test(test_no_memory_is_refused_and_loses_nothing),
        cmocka_unit_test(test_a_device_shrinks_as_its_leases_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
