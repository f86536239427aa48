/* Workers of several tenants: one lease at a time, places in the order that are kept meanwhile, costs that are split.
 */
#include "test/unit/schedule/fixture.h"

enum { SHARED = 2 }; /* tenants 0 and 1 sit on one worker; 2 has its own */

static struct world w;
static struct schedule_host host;

static int setup(void **state)
{
    (void)state;
    host = (struct schedule_host){0};
    world_init(&w, 2);
    for (uint32_t i = 0; i < 3; i++)
        world_tenant(&w, i, 1, 1, i == SHARED);
    schedule_seat_add(w.s, &w.replicas[0][0], &w.targets[0], &host);
    schedule_seat_add(w.s, &w.replicas[1][0], &w.targets[1], &host);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_done(&w);
    return 0;
}

static void test_one_lease_at_a_time(void **state)
{
    (void)state;
    world_submit(&w, 0);
    world_submit(&w, 1);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 0);
    assert_int_equal(w.targets[1].replicas_free, 0);
    assert_null(world_next(&w)); /* a slot is free, the worker is not */
    w.now_ns += MS;
    world_complete(&w, lease);
    assert_int_equal(w.targets[0].replicas_free, 1);
    lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 1);
    w.now_ns += MS;
    world_complete(&w, lease);
}

/* A seat that comes while another has the lease waits for its end; one that goes with the lease frees the others. */
static void test_seats_come_and_go(void **state)
{
    (void)state;
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w), *lost = NULL;
    world_tenant(&w, 3, 1, 1, 0);
    schedule_seat_add(w.s, &w.replicas[3][0], &w.targets[3], &host);
    world_submit(&w, 3);
    assert_null(world_next(&w));
    schedule_replica_remove(w.s, &w.replicas[1][0], w.now_ns, &lost); /* out, without a lease */
    assert_null(lost);
    schedule_replica_remove(w.s, &w.replicas[0][0], w.now_ns, &lost);
    assert_ptr_equal(lost, lease);
    schedule_lease_free(w.s, lost);
    lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 3);
    world_complete(&w, lease);
}

/* What a class has earned stays while a lease of it goes back to the queue, though the seats are given back one after
 * the other and the first one's requests wait for company. */
static void test_earned_stays_when_requeued(void **state)
{
    (void)state;
    world_target_set(&w, 0, 1, 8, 10 * MS, 1 << 20);
    world_target_set(&w, SHARED, 2, 1, 0, 1 << 20);
    world_submit(&w, 1);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 1);
    world_submit(&w, 0);
    world_class(&w)->earned_ns = 5 * MS;
    struct schedule_request *r = world_request(&w, SHARED);
    r->priority = SCHEDULE_CRITICAL;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
    assert_ptr_equal(schedule_preempt(w.s, w.now_ns), lease);
    schedule_requeue(w.s, lease, w.now_ns);
    schedule_lease_free(w.s, lease);
    assert_int_equal(world_class(&w)->earned_ns, 5 * MS);
}

/* Tenant 0's leases take ten times as long as tenant 1's, and tenant 2 moves virtual time on meanwhile: the two of them
 * still get equal time of their worker. */
static void test_places_are_kept(void **state)
{
    (void)state;
    static const uint64_t cost_ns[] = {10 * MS, MS, MS};
    struct schedule_lease *running[2] = {NULL, NULL}; /* on the worker of two, on the other */
    uint64_t end_ns[2] = {0, 0}, served_ns[2] = {0, 0}, stop_ns = w.now_ns + 1000 * MS;
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t k = 0; k < SCHEDULE_ROW_CLASSES; k++)
            w.targets[i]._estimate_ns[k] = cost_ns[i];
    while (w.now_ns < stop_ns) {
        for (uint32_t i = 0; i < 3; i++)
            while (w.targets[i].queued < 2) {
                w.n_requests %= WORLD_REQUESTS - 1;
                world_submit(&w, i);
            }
        for (struct schedule_lease *lease; (lease = world_next(&w));) {
            uint32_t owner = world_owner(&w, lease);
            running[owner == 2] = lease;
            end_ns[owner == 2] = w.now_ns + cost_ns[owner];
        }
        assert_true(running[0] && running[1]); /* work-conserving */
        uint32_t first = end_ns[0] <= end_ns[1] ? 0 : 1;
        w.now_ns = end_ns[first];
        uint32_t owner = world_owner(&w, running[first]);
        if (owner < 2)
            served_ns[owner] += cost_ns[owner];
        world_complete(&w, running[first]);
        running[first] = NULL;
    }
    for (uint32_t i = 0; i < 2; i++)
        if (running[i])
            world_complete(&w, running[i]);
    assert_in_range(served_ns[0], 480 * MS, 520 * MS);
    assert_in_range(served_ns[1], 480 * MS, 520 * MS);
}

static void test_split_to_the_nanosecond(void **state)
{
    (void)state;
    static const uint64_t weights[][2] = {{1, 2}, {0, 5}, {7, 0}, {0, 0}, {UINT32_MAX, UINT32_MAX}, {1, 1000000007}};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        uint64_t before_ns[2] = {w.tenants[0].served_ns, w.tenants[1].served_ns};
        world_submit(&w, 0);
        struct schedule_lease *lease = world_next(&w);
        uint64_t took_ns = 1000003 * (i + 1);
        w.now_ns += took_ns;
        struct schedule_part parts[2] = {{.target = &w.targets[0], .weight = weights[i][0]},
                                         {.target = &w.targets[1], .weight = weights[i][1]}};
        schedule_complete_parts(w.s, lease, w.now_ns, parts, 2);
        schedule_lease_free(w.s, lease);
        uint64_t own_ns = w.tenants[0].served_ns - before_ns[0], other_ns = w.tenants[1].served_ns - before_ns[1];
        assert_int_equal(own_ns + other_ns, took_ns);
        uint64_t sum = weights[i][0] + weights[i][1];
        uint64_t expected_ns = sum > 0 ? (uint64_t)((unsigned __int128)took_ns * weights[i][1] / sum) : 0;
        assert_in_range(other_ns, expected_ns, expected_ns + 1);
        assert_int_equal(parts[1].cost_ns, other_ns);
    }
}

/* Who was served by others' turns pays in the order, too; and does not join before the others have come as far. */
static void test_part_is_paid_for(void **state)
{
    (void)state;
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w);
    world_submit(&w, 0);
    world_submit(&w, 1);
    assert_true(schedule_may_join(w.s, &w.targets[1], 0));
    w.now_ns += 10 * MS;
    struct schedule_part parts[2] = {{.target = &w.targets[0], .weight = 1}, {.target = &w.targets[1], .weight = 9}};
    schedule_complete_parts(w.s, lease, w.now_ns, parts, 2);
    schedule_lease_free(w.s, lease);
    assert_false(schedule_may_join(w.s, &w.targets[1], 8 * MS));
    assert_true(schedule_may_join(w.s, &w.targets[1], 9 * MS));
    lease = world_next(&w);
    assert_int_equal(world_owner(&w, lease), 0);
    world_complete(&w, lease);
    lease = world_next(&w);
    world_complete(&w, lease);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_lease_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seats_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_earned_stays_when_requeued, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_to_the_nanosecond, setup, teardown),
        cmocka_unit_test_setup_teardown(test_part_is_paid_for, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
