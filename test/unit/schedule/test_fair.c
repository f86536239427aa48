/* Whose turn it is: shares by cost and weight, no saved credit, kept turns, corrections. */
#include "test/unit/schedule/fixture.h"

/* A tenant's behaviour in run(): it always has `depth` requests queued, and each of its leases takes `time_ns`. */
struct load {
    uint64_t time_ns;
    uint32_t depth;
};

/* Serves the loads for span_ns of virtual time; used_ns[i] is the slot time of leases that ended in it. */
static void run(struct world *w, const struct load *loads, uint32_t n, uint64_t span_ns, uint64_t *used_ns)
{
    struct schedule_lease *running[16] = {NULL};
    uint64_t ends_ns[16] = {0};
    uint64_t stop_ns = w->now_ns + span_ns;
    memset(used_ns, 0, n * sizeof *used_ns);
    for (;;) {
        for (uint32_t i = 0; i < n; i++) {
            while (w->targets[i].queued < loads[i].depth) {
                if (w->n_requests == WORLD_REQUESTS)
                    w->n_requests = 0; // by then the oldest have been answered
                world_submit(w, i);
            }
        }
        struct schedule_lease *lease;
        while ((lease = world_next(w))) {
            uint32_t at = 0;
            while (running[at])
                at++;
            running[at] = lease;
            ends_ns[at] = w->now_ns + loads[world_owner(w, lease)].time_ns;
        }
        uint32_t first = 16;
        for (uint32_t at = 0; at < 16; at++) {
            if (running[at] && (first == 16 || ends_ns[at] < ends_ns[first]))
                first = at;
        }
        assert_true(first < 16); // work-conserving: something always runs
        if (ends_ns[first] > stop_ns)
            break;
        w->now_ns = ends_ns[first];
        used_ns[world_owner(w, running[first])] += loads[world_owner(w, running[first])].time_ns;
        world_complete(w, running[first]);
        running[first] = NULL;
    }
    for (uint32_t at = 0; at < 16; at++) {
        if (running[at])
            world_complete(w, running[at]);
    }
}

static void expect_near(uint64_t value, uint64_t expected, uint64_t tolerance)
{
    if (value < expected - tolerance || value > expected + tolerance)
        fail_msg("%llu is not %llu ± %llu", (unsigned long long)value, (unsigned long long)expected,
                 (unsigned long long)tolerance);
}

static void test_shares_by_weight_and_cost(void **state)
{
    (void)state;
    static const uint32_t slots[] = {1, 2, 3};
    for (size_t c = 0; c < sizeof slots / sizeof *slots; c++) {
        struct world w;
        world_init(&w, slots[c]);
        world_tenant(&w, 0, 1, 1, 3);
        world_tenant(&w, 1, 3, 1, 3);                            // three times the weight …
        const struct load loads[] = {{20 * MS, 4}, {1 * MS, 4}}; // … and leases a twentieth as long
        uint64_t used_ns[2];
        run(&w, loads, 2, 10 * NS_PER_S, used_ns);
        uint64_t total_ns = used_ns[0] + used_ns[1];
        expect_near(used_ns[0], total_ns / 4, slots[c] * 40 * MS);
        world_done(&w);
    }
}

/* Three equal tenants of one replica each on two slots: two thirds of a slot each, however long their leases. */
static void test_few_replicas_and_short_leases_lose_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 2);
    for (uint32_t i = 0; i < 3; i++)
        world_tenant(&w, i, 1, 1, 1);
    const struct load loads[] = {{10 * MS, 2}, {10 * MS, 2}, {1 * MS, 2}};
    uint64_t used_ns[3];
    run(&w, loads, 3, 10 * NS_PER_S, used_ns);
    for (int i = 0; i < 3; i++)
        expect_near(used_ns[i], 20 * NS_PER_S / 3, 20 * NS_PER_S / 100);
    world_done(&w);
}

/* A weight that the tenant's replicas cannot use leaves the rest to the others, and gives no claim afterwards. */
static void test_weight_beyond_the_replicas_saves_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 2);
    world_tenant(&w, 0, 1000, 1, 1);
    world_tenant(&w, 1, 1, 1, 2);
    const struct load loads[] = {{5 * MS, 4}, {5 * MS, 4}, {5 * MS, 4}};
    uint64_t used_ns[3];
    run(&w, loads, 2, 10 * NS_PER_S, used_ns);
    expect_near(used_ns[0], 10 * NS_PER_S, 100 * MS);
    expect_near(used_ns[1], 10 * NS_PER_S, 100 * MS);
    world_tenant_set(&w, 0, 1, 1000);
    schedule_replica_add(w.s, &w.replicas[0][1], &w.targets[0]);
    world_tenant(&w, 2, 1, 1, 2);
    run(&w, loads, 3, NS_PER_S, used_ns);
    for (int i = 0; i < 3; i++)
        expect_near(used_ns[i], 2 * NS_PER_S / 3, 30 * MS);
    world_done(&w);
}

static void test_idle_time_saves_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant(&w, 1, 1, 1, 1);
    const struct load loads[] = {{2 * MS, 3}, {2 * MS, 3}};
    uint64_t used_ns[2];
    run(&w, loads, 1, 5 * NS_PER_S, used_ns); // tenant 1 is idle all that time
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 4 * MS);
    expect_near(used_ns[1], NS_PER_S / 2, 4 * MS);
    world_done(&w);
}

/* Leaving for a moment before each lease must not be cheaper than staying. */
static void test_coming_and_going_gains_nothing(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant(&w, 1, 1, 1, 1);
    const struct load loads[] = {{2 * MS, 1}, {2 * MS, 5}}; // depth 1: the queue is empty after each lease
    uint64_t used_ns[2];
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 4 * MS);
    world_done(&w);
}

static void test_equal_tenants_take_turns(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    for (uint32_t i = 0; i < 4; i++)
        world_tenant(&w, i, 1, 1, 1);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 4; i++)
            world_submit(&w, i);
    }
    for (uint32_t turn = 0; turn < 12; turn++) {
        struct schedule_lease *lease = world_next(&w);
        assert_int_equal(world_owner(&w, lease), turn % 4);
        world_complete(&w, lease); // in no time at all: the turn passes nevertheless
    }
    world_done(&w);
}

static void test_a_wrong_estimate_is_corrected(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant(&w, 1, 1, 1, 1);
    world_teach(&w, 0, 1, 500 * MS); // its first time, cold
    world_teach(&w, 1, 1, 500 * MS);
    const struct load loads[] = {{1 * MS, 3}, {10 * MS, 3}};
    uint64_t used_ns[2];
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 25 * MS);
    world_done(&w);
}

static void test_a_changed_weight_counts_at_once(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant(&w, 1, 1, 1, 1);
    const struct load loads[] = {{2 * MS, 3}, {2 * MS, 3}};
    uint64_t used_ns[2];
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 4 * MS);
    world_tenant_set(&w, 0, 4, 1000);
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S * 4 / 5, 10 * MS);
    world_tenant_set(&w, 0, 0, 1000); // counts as 1
    assert_int_equal(w.tenants[0].weight, 1);
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 10 * MS);
    world_done(&w);
}

/* The charge of a running lease is taken back at the weight it was made with, not at one set meanwhile. */
static void test_weight_changed_during_a_lease(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1000, 1, 1);
    world_teach(&w, 0, 1, 500 * MS);
    unsigned __int128 before = world_class(&w)->vtime; // all has ended: nobody is ahead of it
    world_submit(&w, 0);
    world_submit(&w, 0);
    struct schedule_lease *lease = world_next(&w);
    world_tenant_set(&w, 0, 1, 1000);
    world_complete(&w, lease);
    assert_true(world_flow(&w, 0)->vtime == before);
    world_done(&w);
}

/* Small leases must not eat the slots that a big one waits for. */
static void test_the_turn_is_kept_for_a_big_lease(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 4);
    world_tenant(&w, 0, 1, 1, 4);
    world_tenant(&w, 1, 1, 1, 1);
    world_target_set(&w, 1, 4, 1, 0, 100);
    struct schedule_lease *small[4], *big;
    for (int i = 0; i < 12; i++)
        world_submit(&w, 0);
    for (int i = 0; i < 4; i++)
        small[i] = world_next(&w);
    world_submit(&w, 1);
    for (int i = 0; i < 4; i++) {
        assert_null(world_next(&w)); // free slots, but they are spoken for
        w.now_ns += 1 * MS;
        world_complete(&w, small[i]);
    }
    big = world_next(&w);
    assert_non_null(big);
    assert_int_equal(world_owner(&w, big), 1);
    assert_int_equal(big->slots, 4);
    assert_null(world_next(&w));
    w.now_ns += 1 * MS;
    world_complete(&w, big);
    assert_int_equal(w.tenants[1].served_ns, 4 * MS);
    world_done(&w);
}

/* A tenant's targets share what it gets by their weights, whatever their leases cost and however much each has queued;
 * one that was idle has saved nothing. */
static void test_targets_of_a_tenant_by_weight(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant_set(&w, 0, 1, 1000);
    static const struct {
        uint32_t weight;
        uint64_t time_ns;
    } models[] = {{3, 1 * MS}, {1, 20 * MS}, {2, 5 * MS}};
    for (uint32_t i = 0; i < 3; i++) {
        schedule_target_set(w.s, &w.targets[i], &w.tenants[0],
                            &(struct schedule_target_config){.weight = models[i].weight, .batch_bytes_max = 100});
        schedule_replica_add(w.s, &w.replicas[i][0], &w.targets[i]);
    }
    uint64_t used_ns[3] = {0};
    for (uint32_t n = 2; n <= 3; n++) { // the third joins later
        memset(used_ns, 0, sizeof used_ns);
        uint64_t stop_ns = w.now_ns + 10 * NS_PER_S;
        while (w.now_ns < stop_ns) {
            for (uint32_t i = 0; i < n; i++) {
                while (w.targets[i].queued < 2 + i) {
                    w.n_requests = w.n_requests < WORLD_REQUESTS ? w.n_requests : 0;
                    world_submit(&w, i);
                }
            }
            struct schedule_lease *lease = world_next(&w);
            uint32_t owner = world_owner(&w, lease);
            w.now_ns += models[owner].time_ns;
            used_ns[owner] += models[owner].time_ns;
            world_complete(&w, lease);
        }
        uint32_t weights = n == 2 ? 4 : 6;
        for (uint32_t i = 0; i < n; i++)
            expect_near(used_ns[i], 10 * NS_PER_S * models[i].weight / weights, 60 * MS);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct schedule_lease *lease;
        while (schedule_target_flush(w.s, &w.targets[i]))
            ;
        schedule_replica_remove(w.s, &w.replicas[i][0], w.now_ns, &lease);
        schedule_target_remove(w.s, &w.targets[i]);
    }
    world_done(&w);
}

/* One target's leases now and then take far longer than its estimate ever says; what they took counts all the same. */
static void test_targets_pay_what_their_leases_took(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant_set(&w, 0, 1, 1000);
    uint64_t used_ns[2] = {0}, n_leases[2] = {0};
    for (uint32_t i = 0; i < 2; i++) {
        schedule_target_set(w.s, &w.targets[i], &w.tenants[0],
                            &(struct schedule_target_config){.slots = 1, .batch_bytes_max = 100});
        world_submit(&w, i);
    }
    world_flow(&w, 0)->lanes_vtime = ((unsigned __int128)1 << 92) - ((unsigned __int128)1 << 60); // its keys wrap soon
    for (uint32_t i = 0; i < 2; i++)
        schedule_replica_add(w.s, &w.replicas[i][0], &w.targets[i]);
    while (w.now_ns < 1010 * NS_PER_S) {
        for (uint32_t i = 0; i < 2; i++) {
            w.n_requests = w.n_requests < WORLD_REQUESTS ? w.n_requests : 0;
            if (w.targets[i].queued < 2)
                world_submit(&w, i);
        }
        struct schedule_lease *lease = world_next(&w);
        uint32_t owner = world_owner(&w, lease);
        uint64_t time_ns = owner == 0 ? 5 * MS : n_leases[1] % 10 == 9 ? 100 * MS : 1 * MS;
        w.now_ns += time_ns;
        used_ns[owner] += time_ns;
        n_leases[owner]++;
        world_complete(&w, lease);
    }
    expect_near(used_ns[1], 5 * NS_PER_S, 120 * MS);
    for (uint32_t i = 0; i < 2; i++) {
        struct schedule_lease *lease;
        while (schedule_target_flush(w.s, &w.targets[i]))
            ;
        schedule_replica_remove(w.s, &w.replicas[i][0], w.now_ns, &lease);
        schedule_target_remove(w.s, &w.targets[i]);
    }
    world_done(&w);
}

/* Virtual time grows by 2^32 units per nanosecond; the keys of the heap wrap, the order must not. */
static void test_virtual_time_may_pass_any_word(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1);
    world_tenant(&w, 1, 1, 1, 1);
    world_class(&w)->vtime =
        ((unsigned __int128)1 << 92) - ((unsigned __int128)1 << 60); // its key wraps within a quarter second
    const struct load loads[] = {{2 * MS, 3}, {2 * MS, 3}};
    uint64_t used_ns[2];
    run(&w, loads, 2, NS_PER_S, used_ns);
    expect_near(used_ns[0], NS_PER_S / 2, 4 * MS);
    assert_true(world_flow(&w, 0)->vtime >> 92);
    world_tenant(&w, 2, 1, 1, 1);
    world_submit(&w, 2);
    assert_true(world_flow(&w, 2)->vtime == world_class(&w)->vtime);
    world_done(&w);
}

static void test_longest_charge_keeps_order(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, SCHEDULE_SLOTS_MAX);
    world_tenant(&w, 0, 1, 1, 2);
    world_target_set(&w, 0, SCHEDULE_SLOTS_MAX, 1, 0, 100);
    world_tenant(&w, 1, 1, 1, 1);
    world_submit(&w, 1);
    world_submit(&w, 0);
    struct schedule_lease *first = world_next(&w);
    assert_int_equal(world_owner(&w, first), 1);
    world_submit(&w, 1);
    world_complete(&w, first);
    struct schedule_lease *big = world_next(&w);
    assert_int_equal(world_owner(&w, big), 0);
    world_submit(&w, 0);
    w.now_ns += 300 * 3600 * NS_PER_S; // days: charged as the cap
    world_complete(&w, big);
    assert_int_equal(w.tenants[0].served_ns, SCHEDULE_CHARGE_NS_MAX * SCHEDULE_SLOTS_MAX);
    first = world_next(&w);
    assert_int_equal(world_owner(&w, first), 1);
    world_complete(&w, first);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_by_weight_and_cost),
        cmocka_unit_test(test_few_replicas_and_short_leases_lose_nothing),
        cmocka_unit_test(test_weight_beyond_the_replicas_saves_nothing),
        cmocka_unit_test(test_idle_time_saves_nothing),
        cmocka_unit_test(test_coming_and_going_gains_nothing),
        cmocka_unit_test(test_equal_tenants_take_turns),
        cmocka_unit_test(test_a_wrong_estimate_is_corrected),
        cmocka_unit_test(test_a_changed_weight_counts_at_once),
        cmocka_unit_test(test_weight_changed_during_a_lease),
        cmocka_unit_test(test_the_turn_is_kept_for_a_big_lease),
        cmocka_unit_test(test_targets_of_a_tenant_by_weight),
        cmocka_unit_test(test_targets_pay_what_their_leases_took),
        cmocka_unit_test(test_virtual_time_may_pass_any_word),
        cmocka_unit_test(test_longest_charge_keeps_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
