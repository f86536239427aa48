/* Classes, pre-emption, devices, overload, and the order inside a target. */
#include "test/unit/schedule/fixture.h"

#include <stdio.h>

static struct schedule *make(const struct schedule_config *config)
{
    struct schedule *s = NULL;
    assert_int_equal(schedule_new(config, &s), 0);
    return s;
}

static struct schedule_request *submit_class(struct world *w, uint32_t i, enum schedule_class class)
{
    struct schedule_request *r = world_request(w, i);
    r->priority = class;
    assert_int_equal(schedule_submit(w->s, r, w->now_ns, NULL), 0);
    return r;
}

/* One slot; a tenant per class that always has two requests of 1 ms queued; leases by class until all are `n`. */
static void serve(struct world *w, uint32_t first, uint32_t n, uint32_t *served)
{
    memset(served, 0, SCHEDULE_CLASS_COUNT * sizeof *served);
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t class = first; class < SCHEDULE_CLASS_COUNT; class ++) {
            while (w->targets[class].queued < 2) {
                w->n_requests = w->n_requests < WORLD_REQUESTS ? w->n_requests : 0;
                submit_class(w, class, (enum schedule_class) class);
            }
        }
        struct schedule_lease *lease = world_next(w);
        assert_non_null(lease);
        served[lease->priority]++;
        w->now_ns += 1 * MS;
        world_complete(w, lease);
    }
}

static void test_lower_classes_keep_their_share(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1); // 5 % for each of the lower two
    for (uint32_t i = 0; i < 3; i++) {
        world_tenant(&w, i, 1, 1, 1);
        world_teach(&w, i, 1, 1 * MS);
    }
    uint32_t served[SCHEDULE_CLASS_COUNT];
    serve(&w, SCHEDULE_CRITICAL, 2000, served);
    assert_in_range(served[SCHEDULE_CRITICAL], 1798, 1802);
    assert_in_range(served[SCHEDULE_INTERACTIVE], 99, 101);
    assert_in_range(served[SCHEDULE_BATCH], 99, 101);
    while (schedule_target_flush(w.s, &w.targets[SCHEDULE_CRITICAL]))
        ;
    serve(&w, SCHEDULE_INTERACTIVE, 2000, served); // the middle one is now the highest
    assert_int_equal(served[SCHEDULE_CRITICAL], 0);
    assert_in_range(served[SCHEDULE_BATCH], 99, 102);
    world_done(&w);
}

static void test_a_class_earns_nothing_while_idle(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    for (uint32_t i = 0; i < 3; i++) {
        world_tenant(&w, i, 1, 1, 1);
        world_teach(&w, i, 1, 1 * MS);
    }
    for (int k = 0; k < 100; k++) { // 100 critical leases; nothing else is there
        submit_class(&w, 0, SCHEDULE_CRITICAL);
        struct schedule_lease *lease = world_next(&w);
        w.now_ns += 1 * MS;
        world_complete(&w, lease);
    }
    submit_class(&w, 2, SCHEDULE_BATCH);
    for (int k = 0; k < 21; k++) {
        submit_class(&w, 0, SCHEDULE_CRITICAL);
        struct schedule_lease *lease = world_next(&w);
        assert_int_equal(lease->priority, k < 20 ? SCHEDULE_CRITICAL : SCHEDULE_BATCH); // 20 × 5 % of 1 ms
        assert_int_equal(lease->due, k == 20);
        w.now_ns += 1 * MS;
        world_complete(&w, lease);
    }
    world_done(&w);
}

static void device_balance(const struct world *w, uint64_t system_ns)
{
    struct schedule_device_stats stats;
    schedule_device_stats(w->s, 0, &stats);
    assert_int_equal(stats.system_ns, system_ns);
    assert_int_equal(stats.tenants_ns + stats.system_ns + stats.idle_ns + stats.running_ns,
                     stats.wall_ns * stats.slots);
}

static void test_critical_takes_slots(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    world_tenant(&w, 0, 1, 1, 2);
    world_target_set(&w, 0, 2, 1, 0, 1 << 20); // needs two slots
    world_tenant(&w, 1, 1, 1, 3);
    struct schedule_request *low[3];
    struct schedule_lease *leases[3];
    for (int i = 0; i < 3; i++) {
        low[i] = submit_class(&w, 1, SCHEDULE_BATCH);
        leases[i] = world_next(&w);
        w.now_ns += 1 * MS;
    }
    assert_null(schedule_preempt(w.s, w.now_ns)); // nobody needs it
    struct schedule_request *r = submit_class(&w, 0, SCHEDULE_CRITICAL);
    assert_null(world_next(&w));
    assert_ptr_equal(schedule_preempt(w.s, w.now_ns), leases[2]); // has lost least
    assert_ptr_equal(schedule_preempt(w.s, w.now_ns), leases[1]);
    assert_null(schedule_preempt(w.s, w.now_ns)); // enough
    w.now_ns += 1 * MS;
    schedule_requeue(w.s, leases[2], w.now_ns);
    schedule_lease_free(w.s, leases[2]);
    assert_null(schedule_preempt(w.s, w.now_ns));
    assert_null(world_next(&w));   // the freed slot is not given to others
    world_complete(&w, leases[1]); // was quicker than the cancel
    device_balance(&w, 1 * MS);    // until it was named: how long it takes to obey is its own
    assert_int_equal(w.tenants[1].served_ns, 4 * MS);
    struct schedule_lease *lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], r);
    w.now_ns += 5 * MS;
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], low[2]);
    submit_class(&w, 0, SCHEDULE_CRITICAL);
    assert_null(world_next(&w));
    assert_null(schedule_preempt(w.s, w.now_ns) == leases[0] ? NULL : leases[0]); // the other: one is re-queued once
    assert_null(schedule_preempt(w.s, w.now_ns));
    world_complete(&w, leases[0]);
    world_complete(&w, lease);
    device_balance(&w, 1 * MS);
    world_done(&w);
}

static void test_critical_takes_a_replica(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 4);
    world_tenant(&w, 0, 1, 2, 1);
    struct schedule_request *low[2];
    for (int i = 0; i < 2; i++)
        low[i] = submit_class(&w, 0, SCHEDULE_BATCH);
    struct schedule_lease *lease = world_next(&w);
    assert_int_equal(lease->n_requests, 2);
    struct schedule_request *waiting = submit_class(&w, 0, SCHEDULE_BATCH);
    struct schedule_request *r = submit_class(&w, 0, SCHEDULE_CRITICAL);
    assert_null(world_next(&w));
    w.now_ns += 2 * MS;
    assert_ptr_equal(schedule_preempt(w.s, w.now_ns), lease);
    assert_null(schedule_preempt(w.s, w.now_ns));
    w.now_ns += 3 * MS; // a slow one
    schedule_requeue(w.s, lease, w.now_ns);
    schedule_lease_free(w.s, lease);
    device_balance(&w, 2 * MS);
    assert_int_equal(w.tenants[0].served_ns, 3 * MS);
    assert_int_equal(w.tenants[0].queued, 4);
    lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], r);
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], low[0]); // in front, in their order
    assert_ptr_equal(lease->requests[1], low[1]);
    submit_class(&w, 0, SCHEDULE_CRITICAL);
    assert_null(schedule_preempt(w.s, w.now_ns)); // once is enough
    world_complete(&w, lease);
    lease = world_next(&w);
    world_complete(&w, lease);
    lease = world_next(&w);
    assert_ptr_equal(lease->requests[0], waiting);
    world_complete(&w, lease);
    world_done(&w);
}

static void test_what_is_not_preempted(void **state)
{
    (void)state;
    for (int variant = 0; variant < 3; variant++) {
        struct world w;
        world_init(&w, 1);
        world_tenant(&w, 0, 1, 1, 1);
        world_tenant(&w, 1, 1, 1, 1);
        if (variant == 0)
            schedule_target_set(w.s, &w.targets[1], &w.tenants[1], &(struct schedule_target_config){.slots = 1});
        submit_class(&w, 1, variant == 1 ? SCHEDULE_CRITICAL : SCHEDULE_BATCH);
        struct schedule_lease *lease = world_next(&w);
        submit_class(&w, 0, variant == 2 ? SCHEDULE_INTERACTIVE : SCHEDULE_CRITICAL);
        assert_null(world_next(&w));
        assert_null(schedule_preempt(w.s, w.now_ns));
        world_complete(&w, lease);
        world_done(&w);
    }
}

static void test_devices_are_apart(void **state)
{
    (void)state;
    const struct schedule_device_config devices[] = {{"cpu", 1}, {"gpu", 2}, {"cpu", 1}};
    struct schedule *s = NULL;
    assert_int_equal(schedule_new(&(struct schedule_config){.devices = devices, .n_devices = 3}, &s),
                     -ERROR_INVALID_ARGUMENT); // a name twice
    static struct schedule_device_config many[SCHEDULE_DEVICES_MAX + 1];
    char names[SCHEDULE_DEVICES_MAX + 1][4];
    for (uint32_t i = 0; i < SCHEDULE_DEVICES_MAX + 1; i++) {
        (void)snprintf(names[i], sizeof names[i], "d%u", i % 100);
        many[i] = (struct schedule_device_config){names[i], 1};
    }
    assert_int_equal(
        schedule_new(&(struct schedule_config){.devices = many, .n_devices = SCHEDULE_DEVICES_MAX + 1}, &s),
        -ERROR_INVALID_ARGUMENT);
    schedule_free(make(&(struct schedule_config){.devices = many, .n_devices = SCHEDULE_DEVICES_MAX}));
    struct world w = {.now_ns = NS_PER_S};
    w.s = make(&(struct schedule_config){.devices = devices, .n_devices = 2});
    assert_int_equal(schedule_device_find(w.s, "gpu"), 1);
    assert_int_equal(schedule_device_find(w.s, "npu"), -ERROR_NOT_FOUND);
    for (uint32_t i = 0; i < 2; i++) {
        world_tenant_set(&w, i, 1, 100);
        schedule_target_set(w.s, &w.targets[i], &w.tenants[i],
                            &(struct schedule_target_config){.device = i, .slots = 2, .batch_bytes_max = 100});
        for (uint32_t k = 0; k < 3; k++)
            schedule_replica_add(w.s, &w.replicas[i][k], &w.targets[i]);
    }
    assert_int_equal(w.targets[0].slots, 1);
    for (uint32_t k = 0; k < 4; k++)
        submit_class(&w, k % 2, SCHEDULE_INTERACTIVE);
    struct schedule_lease *a = world_next(&w), *b = world_next(&w);
    assert_int_equal(world_owner(&w, a), 0);
    assert_int_equal(world_owner(&w, b), 1); // the other device is full, this one is not
    assert_null(world_next(&w));
    world_complete(&w, b);
    b = world_next(&w);
    assert_int_equal(world_owner(&w, b), 1);
    world_complete(&w, a);
    world_complete(&w, b);
    world_done(&w);
}

static void test_overload_sheds_the_worst(void **state)
{
    (void)state;
    const struct schedule_device_config device = {"cpu", 1};
    struct world w = {.now_ns = NS_PER_S};
    w.s = make(&(struct schedule_config){.devices = &device, .n_devices = 1, .queue_max = 6});
    static const uint32_t weights[] = {1, 4, 1};
    for (uint32_t i = 0; i < 3; i++)
        world_tenant(&w, i, weights[i], 1, 0);
    struct schedule_request *light[2], *heavy[4];
    for (int i = 0; i < 2; i++)
        light[i] = submit_class(&w, 0, SCHEDULE_BATCH);
    for (int i = 0; i < 4; i++)
        heavy[i] = submit_class(&w, 1, SCHEDULE_BATCH); // half as much for its weight
    enum schedule_shed_reason reason = SCHEDULE_SHED_NONE;
    uint64_t retry_ns = 0;
    assert_null(schedule_shed(w.s, &reason, &retry_ns)); // exactly the bound
    struct schedule_request *refused = world_request(&w, 0);
    refused->priority = SCHEDULE_BATCH;
    assert_int_equal(schedule_submit(w.s, refused, w.now_ns, &retry_ns), -ERROR_OVERLOADED);
    assert_int_equal(retry_ns, NS_PER_S);
    submit_class(&w, 1, SCHEDULE_BATCH);
    assert_ptr_equal(schedule_shed(w.s, &reason, &retry_ns), light[1]); // furthest over its share, the newest of it
    assert_int_equal(reason, SCHEDULE_SHED_SHARE);
    assert_null(schedule_shed(w.s, &reason, NULL));
    submit_class(&w, 2, SCHEDULE_CRITICAL);
    assert_ptr_equal(schedule_shed(w.s, &reason, NULL), heavy[3] + 2); // 5/4 against 1/1: its newest
    assert_int_equal(reason, SCHEDULE_SHED_CLASS);
    world_tenant_set(&w, 1, 100, 1000);
    submit_class(&w, 2, SCHEDULE_INTERACTIVE);
    assert_ptr_equal(schedule_shed(w.s, &reason, NULL), light[0]); // the other's weight has changed
    for (int i = 3; i >= 0; i--) {
        submit_class(&w, 2, SCHEDULE_CRITICAL);
        assert_ptr_equal(schedule_shed(w.s, &reason, NULL), heavy[i]);
    }
    submit_class(&w, 2, SCHEDULE_CRITICAL);
    assert_int_equal(schedule_shed(w.s, &reason, NULL)->priority, SCHEDULE_INTERACTIVE);
    refused = world_request(&w, 0); // no lower class is left to give way
    refused->priority = SCHEDULE_INTERACTIVE;
    assert_int_equal(schedule_submit(w.s, refused, w.now_ns, NULL), -ERROR_OVERLOADED);
    struct schedule_stats stats;
    schedule_stats(w.s, &stats);
    assert_int_equal(stats.queued, 6);
    assert_int_equal(stats.shed, 8);
    world_done(&w);
}

static void test_what_carries_nothing_is_in_no_bound(void **state)
{
    (void)state;
    struct world w = {0};
    const struct schedule_device_config device = {.name = "cpu", .slots = 1};
    w.now_ns = 1000 * NS_PER_S;
    w.s = make(&(struct schedule_config){.devices = &device, .n_devices = 1, .queue_max = 1});
    world_tenant_set(&w, 0, 1, 1);
    world_target_set(&w, 0, 1, 1, 0, 1 << 20);
    schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
    struct schedule_request *turns[3];
    for (int i = 0; i < 3; i++) {
        turns[i] = world_request(&w, 0);
        turns[i]->carries_nothing = true;
        assert_int_equal(schedule_submit(w.s, turns[i], w.now_ns, NULL), 0);
    }
    assert_int_equal(w.tenants[0].queued, 0);
    struct schedule_request *r = world_submit(&w, 0); // the queue has room for one
    enum schedule_shed_reason reason;
    assert_null(schedule_shed(w.s, &reason, NULL));
    assert_int_equal(schedule_submit(w.s, world_request(&w, 0), w.now_ns, NULL), -ERROR_QUEUE_FULL);
    for (int i = 0; i < 3; i++) {
        struct schedule_lease *lease = world_next(&w);
        assert_ptr_equal(lease->requests[0], turns[i]);
        world_complete(&w, lease);
    }
    assert_int_equal(w.tenants[0].queued, 1);
    assert_true(schedule_cancel(w.s, r));
    assert_int_equal(schedule_submit(w.s, turns[0], w.now_ns, NULL), 0);
    assert_true(schedule_cancel(w.s, turns[0]));
    struct schedule_stats stats;
    schedule_stats(w.s, &stats);
    assert_int_equal(stats.queued, 0);
    world_done(&w);
}

static void test_bounds_on_bytes(void **state)
{
    (void)state;
    const struct schedule_device_config device = {"cpu", 1};
    struct world w = {.now_ns = NS_PER_S};
    w.s = make(&(struct schedule_config){.devices = &device, .n_devices = 1, .queue_bytes_max = 100});
    world_tenant(&w, 0, 1, 1, 0);
    world_tenant(&w, 1, 1, 1, 0);
    world_tenant(&w, 2, 1, 1, 0);
    schedule_tenant_set(w.s, &w.tenants[0],
                        &(struct schedule_tenant_config){.weight = 1, .queue_max = 9, .queue_bytes_max = 60});
    static const struct {
        uint32_t tenant;
        size_t bytes;
        int rc;
    } cases[] = {{0, 61, -ERROR_QUEUE_FULL},       {0, 60, 0}, {0, 1, -ERROR_QUEUE_FULL},
                 {1, 101, -ERROR_OVERLOADED},      {1, 40, 0}, {1, 10, -ERROR_OVERLOADED},
                 {2, SIZE_MAX, -ERROR_OVERLOADED}, {2, 20, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct schedule_request *r = world_request(&w, cases[i].tenant);
        r->bytes = cases[i].bytes;
        assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), cases[i].rc);
    }
    enum schedule_shed_reason reason;
    struct schedule_request *shed = schedule_shed(w.s, &reason, NULL);
    assert_ptr_equal(shed->target, &w.targets[0]);
    assert_null(schedule_shed(w.s, &reason, NULL));
    struct schedule_stats stats;
    schedule_stats(w.s, &stats);
    assert_int_equal(stats.queued_bytes, 60);
    world_done(&w);
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    const struct schedule_device_config device = {"cpu", 1};
    struct world w = {.now_ns = NS_PER_S};
    w.s = make(&(struct schedule_config){
        .devices = &device, .n_devices = 1, .policy = SCHEDULE_FIFO, .share_permille = {0, 50, 50}, .queue_max = 9});
    for (uint32_t i = 0; i < 3; i++)
        world_tenant(&w, i, 1 + 10 * i, 1, 1);
    static const uint32_t order[] = {2, 0, 0, 0, 1, 2, 1, 0, 0};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        submit_class(&w, order[i], (enum schedule_class)(i % 3));
    struct schedule_request *refused = world_request(&w, 1);
    refused->priority = SCHEDULE_CRITICAL;
    assert_int_equal(schedule_submit(w.s, refused, w.now_ns, NULL), -ERROR_OVERLOADED);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        struct schedule_lease *lease = world_next(&w);
        assert_ptr_equal(lease->requests[0], &w.requests[i]);
        assert_null(schedule_preempt(w.s, w.now_ns));
        w.now_ns += 1 * MS;
        world_complete(&w, lease);
    }
    world_done(&w);
}

static void test_earliest_deadline_in_a_target(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 0);
    static const uint64_t after_ms[] = {0, 40000, 29999, 10, 10, 30000, 9};
    static const uint32_t order[] = {6, 3, 4, 2, 0, 5, 1}; // none: 30 s; equal ones by arrival
    for (size_t i = 0; i < 7; i++) {
        struct schedule_request *r = world_request(&w, 0);
        r->deadline_ns = after_ms[i] ? w.now_ns + after_ms[i] * MS : 0;
        assert_int_equal(schedule_submit(w.s, r, w.now_ns, NULL), 0);
    }
    schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
    for (size_t i = 0; i < 7; i++) {
        struct schedule_lease *lease = world_next(&w);
        assert_ptr_equal(lease->requests[0], &w.requests[order[i]]);
        world_complete(&w, lease);
    }
    world_done(&w);
}

/* A batch is cut to a preferred size where the rest may wait, and only there. */
static void test_preferred_sizes(void **state)
{
    (void)state;
    static const uint32_t preferred[] = {2, 4};
    for (int variant = 0; variant < 4; variant++) {
        struct world w;
        world_init(&w, 2);
        world_tenant(&w, 0, 1, 8, 0);
        world_tenant(&w, 1, 1, 1, 1);
        schedule_target_set(w.s, &w.targets[0], &w.tenants[0],
                            &(struct schedule_target_config){.batch_rows_max = 8,
                                                             .batch_bytes_max = 1000,
                                                             .delay_ns = 10 * MS,
                                                             .preferred = preferred,
                                                             .n_preferred = 2});
        for (int i = 0; i < 7; i++) {
            world_submit(&w, 0);
            w.now_ns += 2 * MS; // the first has waited long enough after the fifth
        }
        if (variant == 1)
            w.now_ns += 6 * MS; // the rest too
        if (variant == 2)
            submit_class(&w, 1, SCHEDULE_BATCH); // somebody else could use the device
        if (variant == 3)
            schedule_target_set(w.s, &w.targets[0], &w.tenants[0],
                                &(struct schedule_target_config){.batch_rows_max = 8,
                                                                 .batch_bytes_max = 1000,
                                                                 .preferred = preferred,
                                                                 .n_preferred = 2}); // nothing may wait
        schedule_replica_add(w.s, &w.replicas[0][0], &w.targets[0]);
        schedule_replica_add(w.s, &w.replicas[0][1], &w.targets[0]);
        struct schedule_lease *lease = world_next(&w);
        assert_int_equal(lease->n_requests, variant == 0 ? 4 : 7);
        if (variant == 0) {
            struct schedule_lease *second = world_next(&w); // of three: two are enough, and the last may wait
            assert_int_equal(second->n_requests, 2);
            world_complete(&w, second);
            assert_null(world_next(&w)); // it came 12 ms after the first
            assert_int_equal(schedule_wakeup(w.s), 1000 * NS_PER_S + 22 * MS);
            world_submit(&w, 0); // with the one more that was missing it waits no longer
            second = world_next(&w);
            assert_int_equal(second->n_requests, 2);
            world_complete(&w, second);
        }
        world_complete(&w, lease);
        world_done(&w);
    }
}

/* Tenants that were served and are idle again keep nothing but their structs, a few of them excepted; on a device that
 * is never idle too. */
static void test_idle_tenants_keep_nothing(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct schedule_tenant tenants[N];
    static struct schedule_target targets[N];
    static struct schedule_replica replicas[N];
    struct world w;
    world_init(&w, 1);
    world_tenant(&w, 0, 1, 1, 1); // always busy
    struct schedule_request one;
    for (uint32_t i = 0; i < N; i++) {
        schedule_tenant_set(w.s, &tenants[i], &(struct schedule_tenant_config){.queue_max = 1});
        schedule_target_set(w.s, &targets[i], &tenants[i], &(struct schedule_target_config){.slots = 1});
        schedule_replica_add(w.s, &replicas[i], &targets[i]);
        one = (struct schedule_request){.target = &targets[i], .priority = SCHEDULE_INTERACTIVE, .rows = 1};
        assert_int_equal(schedule_submit(w.s, &one, w.now_ns, NULL), 0);
        uint64_t busy_ns = w.tenants[0].served_ns; // virtual time passes the tenant when the busy one has had its turn
        while (tenants[i].served_ns == 0 || w.tenants[0].served_ns < busy_ns + 2 * MS) {
            while (w.targets[0].queued < 2) {
                w.n_requests = w.n_requests < WORLD_REQUESTS ? w.n_requests : 0;
                world_submit(&w, 0);
            }
            struct schedule_lease *lease = world_next(&w);
            w.now_ns += 1 * MS;
            world_complete(&w, lease);
        }
        assert_true(w.s->n_actives < 20);
    }
    for (uint32_t i = 0; i < N; i++) {
        struct schedule_lease *lease;
        schedule_replica_remove(w.s, &replicas[i], w.now_ns, &lease);
        schedule_target_remove(w.s, &targets[i]);
        schedule_tenant_remove(w.s, &tenants[i]);
    }
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lower_classes_keep_their_share),
        cmocka_unit_test(test_a_class_earns_nothing_while_idle),
        cmocka_unit_test(test_critical_takes_slots),
        cmocka_unit_test(test_critical_takes_a_replica),
        cmocka_unit_test(test_what_is_not_preempted),
        cmocka_unit_test(test_devices_are_apart),
        cmocka_unit_test(test_overload_sheds_the_worst),
        cmocka_unit_test(test_what_carries_nothing_is_in_no_bound),
        cmocka_unit_test(test_bounds_on_bytes),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_earliest_deadline_in_a_target),
        cmocka_unit_test(test_preferred_sizes),
        cmocka_unit_test(test_idle_tenants_keep_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
