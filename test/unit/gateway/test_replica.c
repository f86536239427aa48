/* What the gateway asks of control, when it gives up on whom, and how it bears a worker that only makes noise. */
#include "gateway/gateway_replica.c" /* its callbacks, without a loop that calls them */

#include "test/unit/gateway/control_fixture.h"

enum { BATCH_MAX = 8 };

/* The replicas of the next demand; -1: there is none. */
static int demand_next(struct world *w)
{
    struct bus_message m;
    while (bus_recv(w->control, BUS_CONTROL, BUS_GATEWAY, &m) > 0) {
        bus_message_done(&m);
        if (m.type == BUS_DEMAND)
            return (int)m.body.DEMAND.replicas;
    }
    return -1;
}

/* Control forgets a demand when a replica ends unasked, and the two may cross. */
static void a_demand_without_an_answer_is_repeated(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway_version *v = w.f.version;
    schedule_replica_remove(w.f.g.schedule, &w.f.replica->schedule, uv_hrtime(), &(struct schedule_lease *){NULL});
    v->n_replicas = 0;
    fixture_request(&w.f, one_row);
    assert_int_equal(demand_next(&w), 1);
    uint64_t now_ns = uv_hrtime();
    gateway_replicas_check(&w.f.g, now_ns);
    assert_int_equal(demand_next(&w), -1);
    gateway_replicas_check(&w.f.g, now_ns + 3000 * NS_PER_MS);
    assert_int_equal(demand_next(&w), 1);
    v->n_replicas = 1; /* it was answered */
    gateway_replicas_check(&w.f.g, now_ns + 9000 * NS_PER_MS);
    assert_int_equal(demand_next(&w), -1);
    schedule_replica_add(w.f.g.schedule, &w.f.replica->schedule, &v->schedule);
    world_done(&w);
}

/* Its load failed, and who waited was told; who came before its process had ended waits for a replica that never comes.
 */
static void who_comes_after_a_failed_load_gets_a_new_replica(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway_version *v = w.f.version;
    schedule_replica_remove(w.f.g.schedule, &w.f.replica->schedule, uv_hrtime(), &(struct schedule_lease *){NULL});
    v->refused_until_ns = uv_hrtime() + 1000000 * NS_PER_MS;
    fixture_request(&w.f, one_row);
    assert_int_equal(demand_next(&w), -1);
    assert_int_equal(v->schedule.queued, 1);
    v->n_replicas = 0;
    version_lost(v, &(struct bus_replica_state){0}, false);
    assert_int_equal(demand_next(&w), 1);
    v->n_replicas = 1;
    schedule_replica_add(w.f.g.schedule, &w.f.replica->schedule, &v->schedule);
    world_done(&w);
}

static void a_drain_tells_those_who_wait_for_a_start(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway *g = &w.f.g;
    fixture_request(&w.f, one_row); /* its replica is there: it will be answered */
    g->draining = true;
    gateway_replicas_drain(g);
    assert_int_equal(g->requests.count, 1);
    w.f.version->n_replicas = 0;
    gateway_replicas_drain(g);
    assert_int_equal(g->requests.count, 0);
    w.f.version->n_replicas = 1;
    world_done(&w);
}

static void bells_without_frames_end_the_worker(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway_replica *replica = w.f.replica;
    uv_poll_t bell = {.data = replica};
    w.f.g.supervisor = NULL;
    for (uint32_t i = 0; i < geometry.n_frames; i++)
        on_bell(&bell, 0, UV_READABLE);
    assert_int_equal(replica->state, GATEWAY_REPLICA_READY);
    struct channel_frame stats = {.type = CHANNEL_STATS};
    for (uint32_t i = 0; i < 300; i++) { /* one for each frame is what a bell is for */
        assert_int_equal(channel_push(w.f.guest, &stats), 0);
        channel_ring(w.f.guest);
        on_bell(&bell, 0, UV_READABLE);
    }
    assert_int_equal(replica->state, GATEWAY_REPLICA_READY);
    on_bell(&bell, 0, UV_READABLE);
    assert_int_equal(replica->state, GATEWAY_REPLICA_GONE);
    world_done(&w);
}

/* Counts only grow, by the worker's word; it cannot be made to tell none, or before it has a model. */
static void refused_calls_are_counted_by_the_workers_word(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway_replica *replica = w.f.replica;
    w.f.g.supervisor = NULL;
    static const struct {
        uint32_t number, count;
        uint64_t sum;
    } told[] = {{425, 3, 3}, {425, 5, 5}, {425, 2, 5}, {321, 1, 6}, {BLOCKED_OTHERS, UINT32_MAX, UINT32_MAX + 6ULL}};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        struct channel_frame f = {.type = CHANNEL_BLOCKED, .index = told[i].number, .a = told[i].count};
        assert_int_equal(channel_push(w.f.guest, &f), 0);
        channel_ring(w.f.guest);
        gateway_replica_pull(replica);
        assert_int_equal(replica->state, GATEWAY_REPLICA_READY);
        assert_int_equal(blocked_sum(&replica->blocked), told[i].sum);
    }
    gateway_blocked_tell(replica);
    assert_true(replica->blocked_logged);
    struct bus_message m;
    assert_int_equal(bus_recv(w.control, BUS_CONTROL, BUS_GATEWAY, &m), 1);
    assert_int_equal(m.type, BUS_REPLICA_BLOCKED);
    assert_int_equal(blocked_sum(&m.body.REPLICA_BLOCKED.blocked), blocked_sum(&replica->blocked));
    gateway_blocked_tell(replica); /* nothing is new */
    assert_int_equal(bus_recv(w.control, BUS_CONTROL, BUS_GATEWAY, &m), 0);
    gateway_replicas_tell(&w.f.g); /* to a new control all is */
    gateway_blocked_tell(replica);
    assert_true(!replica->blocked_untold);
    struct channel_frame none = {.type = CHANNEL_BLOCKED, .index = 1};
    assert_int_equal(channel_push(w.f.guest, &none), 0);
    channel_ring(w.f.guest);
    gateway_replica_pull(replica);
    assert_int_equal(replica->state, GATEWAY_REPLICA_GONE);
    world_done(&w);
}

/* Control counts its requests from 1: one of an earlier control must not be answered to the next one. */
static void requests_of_a_dead_control_are_forgotten(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, BATCH_MAX);
    struct gateway *g = &w.f.g;
    fixture_request(&w.f, one_row);
    gateway_dispatch(g); /* it is leased, the next one queues */
    assert_non_null(w.f.replica->lease);
    fixture_request(&w.f, one_row);
    gateway_bus_infers_lost(g);
    assert_int_equal(g->requests.count, 0);
    assert_int_equal(w.f.tenant.n_requests, 1);
    w.f.requests = 0;
    fixture_request(&w.f, one_row); /* number 1 again */
    struct error err = {0};
    (void)error_set_default(&err, ERROR_WORKER_LOST);
    struct schedule_lease *lease = NULL;
    schedule_replica_remove(g->schedule, &w.f.replica->schedule, uv_hrtime(), &lease);
    gateway_lease_lost(w.f.replica, lease, &err, false);
    assert_int_equal(g->requests.count, 1); /* still waits for its own answer */
    schedule_replica_add(g->schedule, &w.f.replica->schedule, &w.f.version->schedule);
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_demand_without_an_answer_is_repeated),
        cmocka_unit_test(who_comes_after_a_failed_load_gets_a_new_replica),
        cmocka_unit_test(a_drain_tells_those_who_wait_for_a_start),
        cmocka_unit_test(bells_without_frames_end_the_worker),
        cmocka_unit_test(refused_calls_are_counted_by_the_workers_word),
        cmocka_unit_test(requests_of_a_dead_control_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
