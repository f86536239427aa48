/* Requests on their way through: in, batched, out by each of the ways, refused for each of the reasons. */
#include "test/unit/schedule/fixture.h"

static void test_slots_of_the_device(void **state)
{
    (void)state;
    struct schedule *s = NULL;
    struct schedule_device_config device = {.name = "cpu"};
    const struct schedule_config config = {.devices = &device, .n_devices = 1};
    assert_int_equal(schedule_new(&config, &s), -ERROR_INVALID_ARGUMENT);
    device.slots = SCHEDULE_SLOTS_MAX + 1;
    assert_int_equal(schedule_new(&config, &s), -ERROR_INVALID_ARGUMENT);
    assert_null(s);
    device.slots = SCHEDULE_SLOTS_MAX;
    assert_int_equal(schedule_new(&config, &s), 0);
    schedule_free(s);
    schedule_free(NULL);
}

static void test_one_request(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    assert_null(world_next(&w));
    struct schedule_request *r = world_submit(&w, 0);
    assert_int_equal(r->arrival_ns, w.now_ns);
    assert_int_equal(w.tenants[0].queued, 1);
    struct schedule_lease *lease = world_next(&w);
    assert_non_null(lease);
    assert_int_equal(lease->n_requests, 1);
    assert_ptr_equal(lease->requests[0], r);
    assert_ptr_equal(r->lease, lease);
    assert_ptr_equal(w.replicas[0][0].lease, lease);
    assert_int_equal(w.tenants[0].queued, 0);
    assert_int_equal(w.tenants[0].leased, 1);
    assert_false(schedule_cancel(w.s, r));
    assert_null(world_next(&w));
    w.now_ns += 5 * MS;
    schedule_complete(w.s, lease, w.now_ns);
    assert_null(r->lease);
    assert_ptr_equal(lease->requests[0], r); // readable until freed
    schedule_lease_free(w.s, lease);
    assert_false(schedule_cancel(w.s, r));
    struct schedule_stats stats;
    schedule_stats(w.s, &stats);
    assert_int_equal(stats.busy_ns, 5 * MS);
    assert_int_equal(stats.requests, 1);
    assert_int_equal(stats.leases, 1);
    assert_int_equal(stats.slots_used, 0);
    assert_int_equal(w.tenants[0].served_ns, 5 * MS);
    assert_int_equal(w.targets[0].estimate_ns, 5 * MS);
    assert_int_equal(schedule_wakeup(w.s), UINT64_MAX);
    world_done(&w);
}

/* It had its place before, and others took it while it was being lost. */
static void test_a_lost_request_comes_back_into_a_full_queue(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 0);
    world_tenant_set(&w, 0, 1, 1);
    world_submit(&w, 0);
    struct schedule_request *r = world_request(&w, 0);
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), -ERROR_QUEUE_FULL);
    r->again = true;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
    assert_int_equal(w.tenants[0].queued, 2);
    assert_int_equal(schedule_submit(w.s, world_request(&w, 0), w.now_ns, NULL), -ERROR_QUEUE_FULL);
    assert_true(schedule_cancel(w.s, r));
    world_done(&w);
}

static void test_batch_forms_while_the_device_is_busy(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 4, 1);
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->n_requests, 1);
    for (int i = 0; i < 6; i++)
        world_submit(&w, 0);
    assert_null(world_next(&w));
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_int_equal(lease->n_requests, 4);
    assert_int_equal(lease->rows, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_ptr_equal(lease->requests[i], &w.requests[1 + i]);
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_int_equal(lease->n_requests, 2);
    world_complete(&w, lease);
    assert_null(world_next(&w));
    world_done(&w);
}

/* What one lease gathers from a queue of (rows, bytes, shape). */
struct gather_case {
    uint32_t rows[6];
    size_t bytes[6];
    uint64_t shape[6];
    size_t n;
    const char *expected; /* numbers of the requests in the lease */
};

static void test_what_a_batch_gathers(void **state)
{
    (void)state;
    static const struct gather_case cases[] = {
        {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 3, "012"},
        {{3, 5, 1}, {1, 1, 1}, {1, 1, 1}, 3, "01"},          // rows: exactly the limit of 8
        {{3, 6, 1}, {1, 1, 1}, {1, 1, 1}, 3, "0"},           // one over it: the order among equals is kept
        {{1, 1, 1}, {50, 50, 1}, {1, 1, 1}, 3, "01"},        // bytes: exactly the limit of 100
        {{1, 1, 1}, {50, 51, 1}, {1, 1, 1}, 3, "0"},         // one over it
        {{9, 1}, {1, 1}, {1, 1}, 2, "0"},                    // too large for any batch: alone
        {{1, 1}, {101, 1}, {1, 1}, 2, "0"},                  // likewise by bytes
        {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 2, 1, 2}, 4, "02"}, // another shape is passed over
        {{1, 1, 1, 1}, {1, 1, 1, 1}, {0, 0, 1, 1}, 4, "0"},  // shape 0 never shares
        {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 0, 0, 1}, 4, "03"}, // nor joins
        {{1, 8, 1, 1}, {1, 1, 1, 1}, {2, 2, 1, 1}, 4, "0"},  // no overtaking by those behind the one that did not fit
        {{UINT32_MAX, 1}, {1, 1}, {1, 1}, 2, "0"},           // no overflow of rows
        {{1, UINT32_MAX}, {1, 1}, {1, 1}, 2, "0"},           //
        {{1, 1}, {1, SIZE_MAX}, {1, 1}, 2, "0"},             // nor of bytes
        {{1, 1, 1}, {0, 100, 0}, {1, 1, 1}, 3, "012"},       // empty inputs
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct world w;
        world_init(&w, 1);
        world_tenant_set(&w, 0, 1, 1000);
        world_target_set(&w, 0, 1, 8, 0, 100);
        for (size_t i = 0; i < cases[c].n; i++) {
            struct schedule_request *r = world_request(&w, 0);
            r->rows = cases[c].rows[i];
            r->bytes = cases[c].bytes[i];
            r->shape_key = cases[c].shape[i];
            assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
        }
        schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
        struct schedule_lease *lease = world_next(&w);
        char got[8] = "";
        for (uint32_t i = 0; i < lease->n_requests; i++)
            got[i] = (char)('0' + (lease->requests[i] - w.requests));
        assert_string_equal(got, cases[c].expected);
        world_complete(&w, lease);
        world_done(&w);
    }
}

static void test_scan_and_batch_are_bounded(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 100000, 0);
    world_tenant_set(&w, 0, 1, 100000);
    world_submit(&w, 0);
    for (uint32_t i = 0; i < SCHEDULE_SCAN_MAX; i++) {
        struct schedule_request *other = world_request(&w, 0);
        other->shape_key = 2;
        assert_int_equal(schedule_submit(w.s, other, w.now_ns, NULL), 0);
    }
    struct schedule_request *reached = world_submit(&w, 0); // the last that the scan may reach
    struct schedule_request *other = world_request(&w, 0);
    other->shape_key = 2;
    assert_int_equal(schedule_submit(w.s, other, w.now_ns, NULL), 0);
    struct schedule_request *beyond = world_submit(&w, 0);
    schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->n_requests, 2);
    assert_ptr_equal(reached->lease, lease);
    assert_null(beyond->lease);
    world_complete(&w, lease);
    lease = world_next(&w); // those passed over are next
    assert_int_equal(lease->n_requests, SCHEDULE_SCAN_MAX + 1);
    world_complete(&w, lease);

    for (uint32_t i = 0; i < LIMIT_BATCH_ITEMS + 1; i++)
        world_submit(&w, 0);
    lease = world_next(&w);
    assert_int_equal(lease->n_requests, LIMIT_BATCH_ITEMS);
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_int_equal(lease->n_requests, 2);
    world_complete(&w, lease);
    world_done(&w);
}

static void test_queue_bound(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant_set(&w, 0, 1, 3);
    for (int i = 0; i < 3; i++)
        world_submit(&w, 0); // limit − 1, and limit
    struct schedule_request *r = world_request(&w, 0);
    uint64_t retry_ns = 0;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_QUEUE_FULL);
    assert_int_equal(retry_ns, NS_PER_S); // nothing is known yet
    assert_int_equal(w.tenants[0].queued, 3);
    assert_false(schedule_cancel(w.s, r));
    for (int i = 0; i < 2; i++) { // a lease each 20 ms
        struct schedule_lease *lease = world_next(&w);
        w.now_ns += 20 * MS;
        world_complete(&w, lease);
    }
    world_submit(&w, 0);
    world_submit(&w, 0);
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_QUEUE_FULL);
    assert_int_equal(retry_ns, 20 * MS);
    world_tenant_set(&w, 0, 1, 0); // a smaller bound drops nothing
    assert_int_equal(w.tenants[0].queued, 3);
    world_tenant_set(&w, 0, 1, 4);
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    world_done(&w);
}

static void test_cancel_and_flush(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 0);
    struct schedule_request *a = world_submit(&w, 0), *b = world_submit(&w, 0), *c = world_submit(&w, 0);
    assert_true(schedule_cancel(w.s, b));
    assert_false(schedule_cancel(w.s, b));
    assert_int_equal(schedule_submit(w.s, b, w.now_ns, NULL), 0); // may come again, at the end
    assert_ptr_equal(schedule_target_flush(w.s, &w.targets[0]), a);
    assert_ptr_equal(schedule_target_flush(w.s, &w.targets[0]), c);
    assert_ptr_equal(schedule_target_flush(w.s, &w.targets[0]), b);
    assert_null(schedule_target_flush(w.s, &w.targets[0]));
    world_done(&w);
}

static void test_replica_lost_with_its_lease(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_teach(&w, 0, 1, 4 * MS);
    struct schedule_request *r = world_submit(&w, 0), *waiting = world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w), *lost = NULL;
    w.now_ns += 3 * MS;
    schedule_replica_remove(w.s, &w.replicas[0][0], w.now_ns, &lost);
    assert_ptr_equal(lost, lease);
    assert_ptr_equal(lost->requests[0], r);
    assert_null(r->lease);
    schedule_lease_free(w.s, lost);
    assert_int_equal(w.tenants[0].served_ns, 7 * MS);   // time so far is charged
    assert_int_equal(w.targets[0].estimate_ns, 4 * MS); // and teaches nothing
    assert_null(world_next(&w));
    schedule_replica_add(w.s, &w.replicas[0][1], &w.targets[0]);
    lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], waiting);
    world_complete(&w, lease);
    schedule_replica_remove(w.s, &w.replicas[0][1], w.now_ns, &lost);
    assert_null(lost);
    world_done(&w);
}

static void test_deadlines_expire_in_order(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 0);
    static const uint64_t after_ms[] = {30, 10, 20, 0};
    for (size_t i = 0; i < 4; i++) {
        struct schedule_request *r = world_request(&w, 0);
        r->deadline_ns = after_ms[i] ? w.now_ns + after_ms[i] * MS : 0;
        assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
    }
    uint64_t start_ns = w.now_ns;
    assert_int_equal(schedule_wakeup(w.s), start_ns + 10 * MS);
    assert_null(schedule_expire(w.s, start_ns + 10 * MS - 1));
    assert_ptr_equal(schedule_expire(w.s, start_ns + 10 * MS), &w.requests[1]);
    assert_null(schedule_expire(w.s, start_ns + 10 * MS));
    assert_int_equal(schedule_wakeup(w.s), start_ns + 20 * MS);
    assert_true(schedule_cancel(w.s, &w.requests[2]));
    assert_int_equal(schedule_wakeup(w.s), start_ns + 30 * MS);
    assert_ptr_equal(schedule_expire(w.s, start_ns + NS_PER_S), &w.requests[0]);
    assert_null(schedule_expire(w.s, UINT64_MAX)); // the one without a deadline stays
    assert_int_equal(w.tenants[0].queued, 1);
    assert_int_equal(schedule_wakeup(w.s), UINT64_MAX);
    world_done(&w);
}

static void test_deadline_refused_at_once(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 2);
    world_tenant(&w, 0, 1, 2, 0);
    struct schedule_request *r = world_request(&w, 0);
    uint64_t retry_ns = 99;
    r->deadline_ns = w.now_ns; // has passed: no estimate needed
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_DEADLINE);
    assert_int_equal(retry_ns, 0);
    r->deadline_ns = w.now_ns + 1; // no replica, no estimate: who knows
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    assert_true(schedule_cancel(w.s, r));

    schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
    world_teach(&w, 0, 1, 8 * MS);
    world_teach(&w, 0, 2, 10 * MS);
    r->deadline_ns = w.now_ns + 1; // could start at once: renews the estimate
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    assert_true(schedule_cancel(w.s, r));
    for (int i = 0; i < 4; i++) { // two leases of 10 ms, then its own 8 ms
        struct schedule_request *ahead = world_request(&w, 0);
        ahead->deadline_ns = w.now_ns + 26 * MS;
        assert_int_equal(schedule_submit(w.s, ahead, w.now_ns, NULL), 0);
    }
    r->deadline_ns = w.now_ns + 28 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    assert_true(schedule_cancel(w.s, r));
    r->deadline_ns = w.now_ns + 26 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_DEADLINE);
    assert_int_equal(retry_ns, 2 * MS);
    r->deadline_ns = w.now_ns + 7 * MS; // shorter than its own time: no waiting helps
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_DEADLINE);
    assert_int_equal(retry_ns, 0);
    schedule_replica_add(w.s, &w.replicas[0][1], &w.targets[0]); // two at a time
    r->deadline_ns = w.now_ns + 26 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    world_done(&w);
}

/* Others' shares count as they were felt lately: half of the gap between the tenant's leases for each one ahead; in its
 * own class only, and not from before its queue was empty. */
static void test_deadline_at_the_tenants_pace(void **state)
{
    (void)state;
    enum { N = 8, ROUNDS = 6, AHEAD = 10 };
    struct world w;
    world_init(&w, 1);
    for (uint32_t i = 0; i < N; i++)
        world_tenant(&w, i, 1, 1, 1);
    world_teach(&w, 0, 1, 10 * MS);
    for (int turn = 0; turn < N * ROUNDS; turn++) {
        for (uint32_t i = 0; i < N; i++)
            while (w.tenants[i].queued < 3)
                world_submit(&w, i);
        struct schedule_lease *lease = world_next(&w);
        w.now_ns += 10 * MS;
        world_complete(&w, lease);
    }
    const struct schedule_account *a = &w.tenants[0]._active->accounts[SCHEDULE_INTERACTIVE];
    assert_true(a->n_gaps >= 4);
    assert_in_range(a->lease_gap_ns, 70 * MS, 90 * MS);
    uint64_t half_ns = a->lease_gap_ns / 2, deadline_ns = w.now_ns + (AHEAD - 1) * half_ns + 15 * MS, retry_ns = 0;
    struct schedule_request *r;
    for (int i = 0; i < AHEAD; i++) { // the i-th may have to wait for i gaps; those that are queued have no deadline
        r = world_request(&w, 0);
        r->deadline_ns = deadline_ns;
        assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    }
    r = world_request(&w, 0);
    r->deadline_ns = deadline_ns;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_DEADLINE);
    assert_int_equal(retry_ns, half_ns - 5 * MS);
    r->priority = SCHEDULE_CRITICAL; // nothing was learned there
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    assert_true(schedule_cancel(w.s, r));
    for (uint32_t i = 1; i < N; i++)
        while (schedule_target_flush(w.s, &w.targets[i]))
            ;
    for (int turn = 0; turn < 4; turn++) { // alone: its pace is better soon
        struct schedule_lease *lease = world_next(&w);
        w.now_ns += 10 * MS;
        world_complete(&w, lease);
    }
    r->priority = SCHEDULE_INTERACTIVE;
    r->deadline_ns = w.now_ns + (AHEAD - 4) * half_ns; // at the pace of before it would have been refused
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    while (schedule_target_flush(w.s, &w.targets[0]))
        ;
    assert_int_equal(a->n_gaps, 0);
    world_done(&w);
}

/* With no replica free, what is left of the running lease that ends first comes before anything else. */
static void test_deadline_waits_for_a_replica(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 2);
    world_tenant(&w, 0, 1, 1, 2);
    world_teach(&w, 0, 1, 10 * MS);
    struct schedule_lease *leases[2];
    for (int i = 0; i < 2; i++) {
        world_submit(&w, 0);
        leases[i] = world_next(&w);
        w.now_ns += 4 * MS; // the first has 2 ms left, the other 6
    }
    struct schedule_request *r = world_request(&w, 0);
    uint64_t retry_ns = 0;
    r->deadline_ns = w.now_ns + 11 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), -ERROR_DEADLINE);
    assert_int_equal(retry_ns, 1 * MS);
    r->deadline_ns = w.now_ns + 12 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    assert_true(schedule_cancel(w.s, r));
    w.now_ns += 30 * MS; // both are late: who knows when they end
    r->deadline_ns = w.now_ns + 10 * MS;
    assert_int_equal(schedule_submit(w.s, r, w.now_ns, &retry_ns), 0);
    for (int i = 0; i < 2; i++)
        world_complete(&w, leases[i]);
    world_done(&w);
}

static void test_time_never_goes_back(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w);
    schedule_complete(w.s, lease, w.now_ns - 5 * MS);
    assert_int_equal(w.tenants[0].served_ns, 0);
    schedule_lease_free(w.s, lease);
    struct schedule_request *r = world_request(&w, 0);
    assert_int_equal(schedule_submit(w.s, r, 3, NULL), 0);
    assert_int_equal(r->arrival_ns, w.now_ns);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_of_the_device),
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_a_lost_request_comes_back_into_a_full_queue),
        cmocka_unit_test(test_batch_forms_while_the_device_is_busy),
        cmocka_unit_test(test_what_a_batch_gathers),
        cmocka_unit_test(test_scan_and_batch_are_bounded),
        cmocka_unit_test(test_queue_bound),
        cmocka_unit_test(test_cancel_and_flush),
        cmocka_unit_test(test_replica_lost_with_its_lease),
        cmocka_unit_test(test_deadlines_expire_in_order),
        cmocka_unit_test(test_deadline_refused_at_once),
        cmocka_unit_test(test_deadline_at_the_tenants_pace),
        cmocka_unit_test(test_deadline_waits_for_a_replica),
        cmocka_unit_test(test_time_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
