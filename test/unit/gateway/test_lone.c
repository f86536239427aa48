/* Requests that were in a shared worker when it was lost: each is tried once more, alone, and never a third time. */
#include "gateway/gateway_internal.h"

#include "test/unit/gateway/control_fixture.h"

enum { BATCH_MAX = 32, SHARED = 1, PROCESS = 3 };

/* Its replica is a member of a shared worker. */
static void shared_init(struct world *w)
{
    world_init(w, BATCH_MAX);
    w->f.replica->level = SHARED;
    w->f.replica->loaded = true;
    w->f.replica->version_uid = w->f.version->uid;
}

static void shared_done(struct world *w)
{
    assert_true(list_empty(&w->f.g.lones_waiting) && list_empty(&w->f.g.lones_running));
    assert_int_equal(w->f.g.n_lones_running, 0);
    world_done(w);
}

static struct bus_replica_state state_of(uint64_t uid, uint32_t phase)
{
    return (struct bus_replica_state){.replica_uid = uid, .version_uid = 1, .phase = phase, .level = PROCESS};
}

/* Several requests are in the fixture's replica, and it is lost with its worker. The fixture gets another one. */
static void lose(struct world *w, uint32_t n_requests, uint32_t shared_lost)
{
    struct lease_fixture *f = &w->f;
    for (uint32_t i = 0; i < n_requests; i++)
        fixture_request(f, one_row);
    gateway_dispatch(&f->g);
    assert_non_null(f->replica->lease);
    struct bus_replica_state ended = state_of(f->replica->uid, BUS_REPLICA_ENDED);
    ended.level = SHARED;
    ended.shared_lost = shared_lost;
    gateway_replica_state(&f->g, &ended);
    channel_close(f->guest);
    fixture_replica(f, &geometry);
    gateway_dispatch(&f->g); /* as the loop does */
}

/* The uid of the next lone replica of that version that control is asked for; 0: of none. */
static uint64_t lone_next_of(struct world *w, uint64_t version_uid)
{
    struct bus_message m;
    while (bus_recv(w->control, BUS_CONTROL, BUS_GATEWAY, &m) > 0) {
        bus_message_done(&m);
        if (m.type == BUS_DEMAND_LONE) {
            assert_int_equal(m.body.DEMAND_LONE.version_uid, version_uid);
            return m.body.DEMAND_LONE.replica_uid;
        }
    }
    return 0;
}

static uint64_t lone_next(struct world *w)
{
    return lone_next_of(w, 1);
}

/* Control has started it, and it is loaded: it runs its request. */
static struct gateway_replica *lone_ready(struct world *w, uint64_t uid, struct channel **ret_guest)
{
    struct gateway *g = &w->f.g;
    struct bus_replica_state starting = state_of(uid, BUS_REPLICA_STARTING);
    gateway_replica_state(g, &starting);
    struct gateway_replica *replica = map_get(&g->replicas, uid);
    assert_non_null(replica);
    assert_non_null(replica->lone);
    assert_int_equal(w->f.version->n_replicas, 1); /* it counts for nobody's */
    replica->state = GATEWAY_REPLICA_READY;
    replica->opened = replica->loaded = true;
    assert_int_equal(channel_fake_pair(&geometry, 1, &replica->channel, ret_guest), 0);
    schedule_replica_add(g->schedule, &replica->schedule, gateway_lone_target(replica->lone));
    gateway_dispatch(g);
    assert_non_null(replica->lease);
    assert_int_equal(replica->lease->n_requests, 1);
    return replica;
}

static void lone_ended(struct world *w, uint64_t uid, bool wanted)
{
    struct bus_replica_state ended = state_of(uid, BUS_REPLICA_ENDED);
    ended.wanted = wanted;
    gateway_replica_state(&w->f.g, &ended);
    gateway_dispatch(&w->f.g);
}

static void each_is_tried_once_more_and_alone(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    lose(&w, 3, 2);
    assert_int_equal(g->requests.count, 3); /* none was answered */
    uint64_t uids[3];
    for (size_t i = 0; i < 3; i++)
        assert_true((uids[i] = lone_next(&w)) != 0 && (i == 0 || uids[i] != uids[i - 1]));
    assert_int_equal(lone_next(&w), 0);

    /* One is answered (here with the engine's error), and its worker is let go of. */
    struct channel *guest;
    struct gateway_replica *replica = lone_ready(&w, uids[0], &guest);
    struct channel_frame done = {.type = CHANNEL_DONE, .lease_id = replica->lease_id, .status = -ERROR_ENGINE};
    assert_int_equal(channel_push(guest, &done), 0);
    channel_ring(guest);
    gateway_replica_pull(replica);
    assert_int_equal(g->requests.count, 2);
    assert_int_equal(replica->state, GATEWAY_REPLICA_GONE);
    lone_ended(&w, uids[0], true);
    channel_close(guest);

    /* One is lost again: no third time. */
    (void)lone_ready(&w, uids[1], &guest);
    lone_ended(&w, uids[1], false);
    channel_close(guest);
    assert_int_equal(g->requests.count, 1);

    /* And one's worker does not get as far. */
    struct bus_replica_state starting = state_of(uids[2], BUS_REPLICA_STARTING);
    gateway_replica_state(g, &starting);
    lone_ended(&w, uids[2], false);
    assert_int_equal(g->requests.count, 0);
    assert_int_equal(lone_next(&w), 0);
    shared_done(&w);
}

/* Its worker ends, as it does once its request is answered, while the client still reads: that was the answer. */
static void an_answer_that_is_still_read_is_the_only_one(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    lose(&w, 1, 2);
    uint64_t uid = lone_next(&w);
    size_t cursor = 0;
    struct gateway_request *r = map_next(&g->requests, &cursor);
    assert_non_null(r->lone);
    assert_true(schedule_cancel(g->schedule, &r->schedule));
    gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    struct bus_replica_state starting = state_of(uid, BUS_REPLICA_STARTING);
    gateway_replica_state(g, &starting);
    uint64_t failed = g->stats.failed;
    lone_ended(&w, uid, true);
    assert_int_equal(g->stats.failed, failed);
    assert_int_equal(g->requests.count, 1);
    assert_null(r->lone);
    (void)map_remove(&g->requests, r->infer_id);
    gateway_request_free(r);
    shared_done(&w);
}

static void few_at_once(void **state)
{
    (void)state;
    struct world w;
    uint64_t uids[LIMIT_LONE_WORKERS + 3];
    shared_init(&w);
    lose(&w, LIMIT_LONE_WORKERS + 3, 5);
    for (size_t i = 0; i < LIMIT_LONE_WORKERS; i++)
        assert_int_not_equal(uids[i] = lone_next(&w), 0);
    assert_int_equal(lone_next(&w), 0);
    for (size_t i = 0; i < 3; i++) {
        lone_ended(&w, uids[i], false);
        assert_int_not_equal(uids[LIMIT_LONE_WORKERS + i] = lone_next(&w), 0);
        assert_int_equal(lone_next(&w), 0);
    }
    for (size_t i = 3; i < LIMIT_LONE_WORKERS + 3; i++)
        lone_ended(&w, uids[i], false);
    assert_int_equal(w.f.g.requests.count, 0);
    shared_done(&w);
}

/* A tenant with many of them does not hold up another with one. */
static void the_tenant_with_fewest_goes_first(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    struct gateway_tenant other = {.name = "umbra"};
    schedule_tenant_set(g->schedule, &other.schedule, &(struct schedule_tenant_config){.queue_max = 1000});
    lose(&w, LIMIT_LONE_WORKERS + 3, 5);
    uint64_t first = lone_next(&w);
    while (lone_next(&w) != 0) {
    }
    struct gateway_version second = {.gateway = g, .tenant = &other, .uid = 2, .model = "m", .number_text = "1"};
    list_init(&second.waiting);
    list_init(&second.replicas);
    schedule_target_set(
        g->schedule, &second.schedule, &other.schedule,
        &(struct schedule_target_config){.batch_rows_max = BATCH_MAX, .batch_bytes_max = 2 * BODY_BYTES_MAX});
    /* Lost last, demanded next. */
    struct gateway_request *r = gateway_request_new(g);
    r->tenant = &other;
    other.n_requests++;
    r->version = &second;
    second.n_requests++;
    r->infer_id = 99;
    assert_int_equal(map_put(&g->requests, 99, r), 0);
    r->state = GATEWAY_REQUEST_LEASED;
    r->schedule.rows = 1;
    assert_int_equal(gateway_lone_start(r), 0);
    lone_ended(&w, first, false);
    assert_int_not_equal(lone_next_of(&w, 2), 0);
    gateway_lones_drain(g);
    assert_int_equal(g->requests.count, 0);
    schedule_target_remove(g->schedule, &second.schedule);
    schedule_tenant_remove(g->schedule, &other.schedule);
    shared_done(&w);
}

static void who_goes_away_or_is_refused_leaves_nothing(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    control_close(&w); /* all wait for the next */
    lose(&w, 3, 2);
    assert_int_equal(g->n_lones_running, 0);
    gateway_bus_infers_lost(g); /* the operator who asked is gone */
    assert_true(list_empty(&g->lones_waiting));

    control_open(&w);
    lose(&w, 1, 2);
    uint64_t uid = lone_next(&w);
    assert_int_not_equal(uid, 0);
    struct bus_demand_refused refused = {.version_uid = 1, .replica_uid = uid};
    (void)error_set(&refused.error, ERROR_MODEL_UNAVAILABLE, "no");
    gateway_demand_refused(g, &refused);
    assert_int_equal(g->requests.count, 0);
    assert_int_equal(w.f.version->refused_until_ns, 0); /* that one alone */
    shared_done(&w);
}

static void a_new_control_is_asked_again(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    lose(&w, 1, 2);
    uint64_t uid = lone_next(&w);
    gateway_replicas_tell(g);
    gateway_dispatch(g);
    uint64_t next = lone_next(&w);
    assert_true(next != 0 && next != uid && gateway_lone_of(g, uid) == NULL && gateway_lone_of(g, next) != NULL);
    assert_int_equal(g->n_lones_running, 1);
    gateway_replicas_drain(g);
    assert_int_equal(g->requests.count, 0);
    shared_done(&w);
}

/* What a lease without end or a lost worker of its own cost before, they cost still. */
static void other_losses_are_answered_at_once(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    lose(&w, 2, 0);
    assert_int_equal(g->requests.count, 0);
    w.f.replica->level = SHARED;
    fixture_request(&w.f, one_row);
    gateway_dispatch(g);
    gateway_replica_kill(w.f.replica, BUS_STOP_OVERDUE);
    assert_int_equal(g->requests.count, 0);
    assert_int_equal(lone_next(&w), 0);
    shared_done(&w);
}

/* In one address space a broken channel may be another's doing. */
static void a_broken_channel_in_a_shared_worker_is_tried_again(void **state)
{
    (void)state;
    struct world w;
    shared_init(&w);
    struct gateway *g = &w.f.g;
    fixture_request(&w.f, one_row);
    gateway_dispatch(g);
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    assert_int_equal(g->requests.count, 1);
    gateway_dispatch(g);
    uint64_t uid = lone_next(&w);
    assert_int_not_equal(uid, 0);
    lone_ended(&w, uid, false);
    assert_int_equal(g->requests.count, 0);
    shared_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_tried_once_more_and_alone),
        cmocka_unit_test(an_answer_that_is_still_read_is_the_only_one),
        cmocka_unit_test(few_at_once),
        cmocka_unit_test(the_tenant_with_fewest_goes_first),
        cmocka_unit_test(who_goes_away_or_is_refused_leaves_nothing),
        cmocka_unit_test(a_new_control_is_asked_again),
        cmocka_unit_test(other_losses_are_answered_at_once),
        cmocka_unit_test(a_broken_channel_in_a_shared_worker_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
