/* Generations that ran in a shared worker when it was lost: each request is tried once more, in a worker of its own. */
#include "test/unit/gateway/adapters_fixture.h"

enum { SHARED = 1, PROCESS = 3 };

struct worker {
    struct gateway_replica *replica;
    struct channel *guest;
};

/* That of the model; `w.f` has the one that turn() and push() speak for. */
static struct worker common;

static void speak_for(struct worker worker)
{
    w.f.replica = worker.replica;
    w.f.guest = worker.guest;
}

static void common_start(void)
{
    w.f.replica->level = SHARED;
    w.f.replica->loaded = true;
    w.f.replica->version_uid = w.f.version->uid;
    common = (struct worker){w.f.replica, w.f.guest};
}

static int setup_shared(void **state)
{
    (void)setup(state);
    w.f.version->signature->batchable = false; /* as a worker tells it */
    common_start();
    return 0;
}

static int teardown_shared(void **state)
{
    assert_true(list_empty(&w.f.g.lones_waiting) && list_empty(&w.f.g.lones_running));
    assert_int_equal(w.f.g.n_lones_running, 0);
    speak_for(common);
    return teardown(state);
}

static struct bus_replica_state state_of(uint64_t uid, uint32_t phase, uint32_t level)
{
    return (struct bus_replica_state){
        .replica_uid = uid, .version_uid = w.f.version->uid, .tenant_uid = TENANT, .phase = phase, .level = level};
}

/* The model's worker ends, and another one is there. */
static void lose_to(bool wanted, bool out_of_memory)
{
    struct bus_replica_state ended = state_of(common.replica->uid, BUS_REPLICA_ENDED, common.replica->level);
    ended.wanted = wanted;
    ended.out_of_memory = out_of_memory;
    gateway_replica_state(&w.f.g, &ended);
    channel_close(common.guest);
    fixture_replica(&w.f, &geometry);
    struct schedule_lease *none;
    schedule_replica_remove(w.f.g.schedule, &w.f.replica->schedule, 1, &none);
    assert_int_equal(gateway_batch_start(w.f.replica), 0);
    common_start();
}

static void lose(void)
{
    lose_to(false, false);
}

/* Control has started it, and it says that it is loaded. */
static struct worker lone_start(uint64_t uid)
{
    struct bus_replica_state starting = state_of(uid, BUS_REPLICA_STARTING, PROCESS);
    struct worker lone;
    gateway_replica_state(&w.f.g, &starting);
    lone.replica = map_get(&w.f.g.replicas, uid);
    assert_non_null(lone.replica);
    assert_non_null(lone.replica->lone);
    assert_int_equal(w.f.version->n_replicas, 1); /* it counts for nobody's */
    assert_int_equal(channel_fake_pair(&geometry, 1, &lone.replica->channel, &lone.guest), 0);
    lone.replica->opened = true;
    lone.replica->state = GATEWAY_REPLICA_LOADING;
    size_t size = 0;
    assert_int_equal(
        tensor_signature_encode(w.f.version->signature, channel_slot_own(lone.guest, 0), 2 * BODY_BYTES_MAX, &size), 0);
    speak_for(lone);
    push(&(struct channel_frame){.type = CHANNEL_LOAD, .length = size});
    assert_int_equal(lone.replica->state, GATEWAY_REPLICA_READY);
    return lone;
}

static void lone_ended(uint64_t uid, struct worker lone, bool wanted)
{
    struct bus_replica_state ended = state_of(uid, BUS_REPLICA_ENDED, PROCESS);
    ended.wanted = wanted;
    gateway_replica_state(&w.f.g, &ended);
    channel_close(lone.guest);
    speak_for(common);
}

/* Of a prompt of three tokens. */
static void tell(uint64_t id, uint32_t completion, bool last)
{
    struct generation_event e = {.kind = last ? GENERATION_EVENT_END : GENERATION_EVENT_TEXT,
                                 .text = last ? STR("") : STR("x"),
                                 .prompt_tokens = 3,
                                 .prompt_done = 3,
                                 .completion_tokens = completion,
                                 .finish = last ? GENERATION_STOP : GENERATION_RUNNING};
    size_t size = 0;
    assert_int_equal(generation_event_encode(&e, channel_slot_own(w.f.guest, 0), BODY_BYTES_MAX, &size), 0);
    push(&(struct channel_frame){.type = CHANNEL_PART,
                                 .flags = last ? CHANNEL_FINAL : 0,
                                 .request_id = id,
                                 .lease_id = lease.lease_id,
                                 .length = size});
}

static bool failed_with(uint32_t i, int code)
{
    return !seen[i].r && seen[i].n_fails == 1 && seen[i].n_ends == 0 && error_info(seen[i].code) == error_info(code);
}

/* --- what is tried again --- */

static void each_begins_anew_and_alone(void **state)
{
    (void)state;
    uint32_t one = ask_for("", 0), two = ask_for_many("", 0, 2);
    assert_true(turn());
    assert_int_equal(n_items, 3);
    tell(items[0], 1, false);
    tell(items[1], 1, false);
    tell(items[1], 2, true); /* one choice was there already */
    assert_int_equal(seen[two].n_events + seen[one].n_events, 3);
    lose();
    assert_true(seen[two].n_again == 1 && seen[one].n_again == 1 && seen[two].r && seen[one].r);
    assert_int_equal(seen[two].n_events + seen[one].n_events, 0);
    uint32_t fresh = ask_for("", 0);
    assert_true(turn());
    assert_int_equal(n_items, 1); /* nobody waits for those */
    assert_int_equal(n_lones, 2);
    uint64_t uids[2] = {lones[0], lones[1]};
    end(items[0], 0);
    assert_int_equal(seen[fresh].n_ends, 1);

    /* All choices of the one, and nobody else's. */
    struct worker lone = lone_start(uids[0]);
    assert_true(turn());
    assert_int_equal(n_items, 2);
    tell(items[0], 4, true);
    assert_int_equal(seen[two].n_ends, 0);
    end(items[1], 0);
    assert_int_equal(seen[two].n_ends, 1);
    assert_int_equal(seen[two].n_events, 2);
    assert_false(turn());
    assert_int_equal(lone.replica->state, GATEWAY_REPLICA_GONE); /* it is let go of */
    lone_ended(uids[0], lone, true);

    /* The other is lost again: no third time. */
    lone = lone_start(uids[1]);
    assert_true(turn());
    assert_int_equal(n_items, 1);
    tell(items[0], 1, false);
    lone_ended(uids[1], lone, false);
    assert_true(failed_with(one, ERROR_WORKER_LOST));
    assert_false(turn());
    assert_int_equal(n_lones, 0);
    assert_true(alive());
}

/* More generations than there are places: the rest follow, there too. */
static void all_have_places_one_after_the_other(void **state)
{
    (void)state;
    w.f.version->signature->token.sequences = 2;
    uint32_t i = ask_for_many("", 0, 5);
    assert_true(turn());
    assert_int_equal(n_items, 2);
    lose();
    assert_int_equal(w.f.version->n_generating, 0); /* also those that waited in the line */
    assert_false(turn());
    struct worker lone = lone_start(lones[0]);
    for (uint32_t n = 0; n < 3; n++) {
        assert_true(turn());
        assert_int_equal(n_items, n < 2 ? 2 : 1);
        if (n < 2)
            tell(items[1], 0, true);
        end(items[0], 0);
    }
    assert_int_equal(seen[i].n_ends, 1);
    assert_false(turn());
    lone_ended(lone.replica->uid, lone, true);
}

/* What a client knows of cannot be taken back. A loss that was wanted, or of a worker behind its own tenant's wall, is
 * as before. */
static void others_are_lost_for_good(void **state)
{
    (void)state;
    enum { TOLD, WANTED, OWN, DELETED, DRAINING, WAYS };
    for (int way = TOLD; way < WAYS; way++) {
        uint32_t i = ask_for("", 0);
        assert_true(turn());
        is_told = way == TOLD;
        common.replica->level = way == OWN ? PROCESS : SHARED;
        w.f.version->generation -= way == DELETED;
        w.f.g.draining = way == DRAINING;
        w.f.version->n_held++;
        lose_to(way == WANTED, false);
        w.f.version->n_held--;
        w.f.version->generation += way == DELETED;
        w.f.g.draining = false;
        if (!failed_with(i, ERROR_WORKER_LOST) || seen[i].n_again != 0)
            fail_msg("way %d: %d, tried %u times", way, seen[i].code, seen[i].n_again);
        assert_false(turn());
        assert_int_equal(n_lones, 0);
    }
}

/* In one process any of them may have taken the memory, or broken the channel. */
static void other_ends_of_a_shared_worker_count_too(void **state)
{
    (void)state;
    uint32_t memory = ask_for("", 0);
    assert_true(turn());
    lose_to(false, true);
    assert_int_equal(seen[memory].n_again, 1);
    uint32_t protocol = ask_for("", 0);
    assert_true(turn());
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    assert_int_equal(seen[protocol].n_again, 1);
    lose();
    gateway_lones_drain(&w.f.g);
    assert_true(failed_with(memory, ERROR_DRAINING) && failed_with(protocol, ERROR_DRAINING));
}

/* --- what it costs --- */

static void tokens_are_paid_once(void **state)
{
    (void)state;
    struct gateway_quota quota = {.tenant = &w.f.tenant, .schedule.limits.windows[SCHEDULE_TOKENS_DAY] = 1000};
    for (int kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++)
        list_init(&quota.queues[kind].requests);
    const uint64_t *used = &quota.schedule.use[SCHEDULE_TOKENS_DAY].used;
    const uint64_t *count = &w.f.version->lines[SCHEDULE_INTERACTIVE].account.count;
    uint64_t sums[3] = {7, 7 + 3 + 6, 7 + 9 + 3 + 4}; /* the more of both tries */
    uint32_t second[3] = {2, 6, 4};
    for (int way = 0; way < 3; way++) {
        uint32_t i = ask_for("", 0);
        seen[i].r->quotas[GATEWAY_QUOTA_TENANT] = &quota;
        quota.n_requests++;
        assert_true(turn());
        tell(items[0], 4, false);
        lose();
        uint64_t before = *used, counted = *count;
        assert_false(turn());
        struct worker lone = lone_start(lones[0]);
        assert_true(turn());
        tell(items[0], 1, false);
        assert_int_equal(*used, before);
        tell(items[0], second[way], true);
        assert_int_equal(seen[i].n_ends, 1);
        assert_int_equal(*used, sums[way]);
        assert_int_equal(*count, counted); /* who is next in the model's worker is another matter */
        lease_over(0);
        assert_false(turn());
        lone_ended(lone.replica->uid, lone, true);
    }
    assert_int_equal(quota.n_requests, 0);
    list_remove(&quota.in_changed);
}

/* --- bounds --- */

struct borrower {
    struct gateway_tenant tenant;
    struct gateway_version *version;
};

static void borrower_start(struct borrower *b, uint64_t uid)
{
    struct gateway_version *v = calloc(1, sizeof *v);
    assert_non_null(v);
    b->version = v;
    b->tenant =
        (struct gateway_tenant){.uid = uid, .generation = w.f.tenant.generation, .classes = 1u << SCHEDULE_INTERACTIVE};
    schedule_tenant_set(w.f.g.schedule, &b->tenant.schedule,
                        &(struct schedule_tenant_config){.weight = 1, .queue_max = 100});
    v->gateway = &w.f.g;
    v->tenant = &b->tenant;
    v->uid = w.f.version->uid;
    v->generation = w.f.version->generation;
    v->batch_max = v->replicas_max = 1;
    v->class = SCHEDULE_INTERACTIVE;
    gateway_version_lists_init(v);
    v->host = w.f.version;
    list_append(&w.f.version->guests, &v->in_guests);
    v->signature = malloc(sizeof *v->signature);
    assert_non_null(v->signature);
    *v->signature = *w.f.version->signature;
    schedule_target_set(w.f.g.schedule, &v->schedule, &b->tenant.schedule,
                        &(struct schedule_target_config){.batch_rows_max = 1, .batch_bytes_max = 2 * BODY_BYTES_MAX});
}

static void borrower_end(struct borrower *b)
{
    assert_int_equal(b->version->n_requests + b->version->n_held, 0);
    gateway_places_done(b->version);
    list_remove(&b->version->in_guests);
    schedule_target_remove(w.f.g.schedule, &b->version->schedule);
    schedule_tenant_remove(w.f.g.schedule, &b->tenant.schedule);
    gateway_stats_free(b->version);
    free(b->version->signature);
    free(b->version);
}

static void few_at_once_and_fewer_of_one_tenant(void **state)
{
    (void)state;
    struct borrower borrowers[2];
    w.f.version->signature->token.sequences = 32;
    for (uint32_t i = 0; i < 2; i++)
        borrower_start(&borrowers[i], TENANT + 1 + i);
    for (uint32_t i = 0; i < 3; i++)
        (void)ask_for("", 0);
    for (uint32_t i = 0; i < 4; i++) {
        asking = borrowers[i / 2].version;
        (void)ask_for("", 0);
    }
    asking = NULL;
    assert_true(turn());
    assert_int_equal(n_items, 7);
    lose();
    assert_false(turn());
    assert_int_equal(n_lones, LIMIT_LONE_GENERATIONS);
    uint64_t uid = lones[0];
    uint32_t n[3] = {0};
    for (uint32_t i = 0; i < n_lones; i++) {
        struct worker lone = lone_start(lones[i]);
        uint64_t tenant = gateway_lone_next(lone.replica->lone)->tenant->uid;
        n[tenant - TENANT]++;
        uid = tenant == TENANT ? lones[i] : uid;
        channel_close(lone.guest);
        speak_for(common);
    }
    for (uint32_t i = 0; i < 3; i++)
        assert_in_range(n[i], 1, LIMIT_LONE_GENERATIONS / 2);
    uint64_t running[LIMIT_LONE_GENERATIONS];
    memcpy(running, lones, sizeof running);
    struct bus_replica_state ended = state_of(uid, BUS_REPLICA_ENDED, PROCESS);
    gateway_replica_state(&w.f.g, &ended);
    assert_false(turn());
    assert_int_equal(n_lones, 1);
    gateway_lones_drain(&w.f.g);
    for (uint32_t i = 0; i < LIMIT_LONE_GENERATIONS; i++)
        if (running[i] != uid) {
            ended.replica_uid = running[i];
            gateway_replica_state(&w.f.g, &ended);
        }
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(seen[i].n_fails, 1);
    for (uint32_t i = 0; i < 2; i++)
        borrower_end(&borrowers[i]);
}

/* Of a turn without end those are to blame whose turn it was. */
static void a_hang_is_of_those_whose_turn_it_was(void **state)
{
    (void)state;
    struct borrower b;
    borrower_start(&b, TENANT + 1);
    uint32_t own = ask_for("", 0);
    asking = b.version;
    uint32_t lent = ask_for("", 0);
    asking = NULL;
    assert_true(turn());
    assert_int_equal(n_items, 2);
    bool owners = lease.tenant_id == TENANT;
    gateway_replica_kill(w.f.replica, BUS_STOP_OVERDUE);
    assert_true(failed_with(owners ? own : lent, ERROR_WORKER_LOST));
    assert_int_equal(seen[owners ? lent : own].n_again, 1);
    lose();
    gateway_lones_drain(&w.f.g);
    assert_true(failed_with(owners ? lent : own, ERROR_DRAINING));
    borrower_end(&b);
}

/* Two of them, the most of one tenant's, get their workers. */
static void lose_three(void)
{
    for (uint32_t i = 0; i < 3; i++)
        (void)ask_for("", 0);
    assert_true(turn());
    lose();
    assert_false(turn());
    assert_int_equal(n_lones, 2);
}

static void the_second_try_comes_soon_or_never(void **state)
{
    (void)state;
    lose_three();
    uint64_t now_ns = uv_hrtime(), wait_ns = LIMIT_LONE_WAIT_MS * UINT64_C(1000000);
    gateway_lones_check(&w.f.g, now_ns);
    assert_int_equal(seen[0].n_fails + seen[1].n_fails + seen[2].n_fails, 0);
    uint64_t uids[2] = {lones[0], lones[1]};
    struct worker lone = lone_start(uids[0]);
    assert_true(turn());
    gateway_lones_check(&w.f.g, now_ns + wait_ns);
    assert_int_equal(seen[0].n_fails + seen[1].n_fails + seen[2].n_fails, 2); /* all but the one that has begun */
    end(items[0], 0);
    assert_int_equal(seen[0].n_ends + seen[1].n_ends + seen[2].n_ends, 1);
    assert_false(turn());
    lone_ended(uids[0], lone, true);
    lone = lone_start(uids[1]); /* for nobody any more */
    gateway_lones_check(&w.f.g, uv_hrtime());
    assert_int_equal(lone.replica->state, GATEWAY_REPLICA_GONE);
    lone_ended(uids[1], lone, true);
}

/* --- what changes meanwhile --- */

static void nothing_begins_of_what_is_taken_away(void **state)
{
    (void)state;
    uint32_t first = ask_for("", 0), second = ask_for("", 0), third = ask_for("", 0);
    assert_true(turn());
    lose();
    assert_false(turn());
    uint64_t uid = lones[0];
    assert_int_equal(n_lones, 2);
    struct worker lone = lone_start(uid), unused = lone_start(lones[1]);
    uint64_t other = lones[1];
    w.f.g.stats.generation++;
    assert_false(turn());
    gateway_lones_check(&w.f.g, uv_hrtime());
    for (uint32_t i = first; i <= third; i++)
        assert_true(failed_with(i, ERROR_MODEL_NOT_FOUND));
    (void)second;
    w.f.g.stats.generation--;
    lone_ended(uid, lone, true);
    lone_ended(other, unused, true);
}

static void who_goes_away_leaves_nothing(void **state)
{
    (void)state;
    lose_three();
    uint64_t uids[2] = {lones[0], lones[1]};
    struct worker lone = lone_start(uids[0]);
    assert_true(turn());
    for (uint32_t i = 0; i < 3; i++) { /* one runs, one's worker starts, one waits for such a one */
        struct gateway_request *r = seen[i].r;
        seen[i].r = NULL;
        gateway_request_cancel(r);
    }
    assert_true(list_empty(&w.f.g.lones_waiting));
    push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 1, .b = 1});
    assert_false(turn());
    assert_int_equal(lone.replica->state, GATEWAY_REPLICA_GONE);
    lone_ended(uids[0], lone, true);
    struct bus_demand_refused refused = {.version_uid = 1, .replica_uid = uids[1]};
    (void)error_set(&refused.error, ERROR_MODEL_UNAVAILABLE, "no");
    gateway_demand_refused(&w.f.g, &refused);
}

static void a_refused_worker_is_told(void **state)
{
    (void)state;
    uint32_t i = ask_for("", 0);
    assert_true(turn());
    lose();
    assert_false(turn());
    struct bus_demand_refused refused = {.version_uid = 1, .replica_uid = lones[0]};
    (void)error_set(&refused.error, ERROR_MODEL_UNAVAILABLE, "no");
    gateway_demand_refused(&w.f.g, &refused);
    assert_true(failed_with(i, ERROR_MODEL_UNAVAILABLE));
    assert_int_equal(w.f.version->refused_until_ns, 0); /* that one alone */
}

static void a_new_control_is_asked_again(void **state)
{
    (void)state;
    uint32_t i = ask_for("", 0);
    assert_true(turn());
    lose();
    assert_false(turn());
    uint64_t uid = lones[0];
    gateway_replicas_tell(&w.f.g);
    assert_false(turn());
    assert_int_equal(n_lones, 1);
    assert_int_not_equal(lones[0], uid);
    gateway_replicas_drain(&w.f.g);
    assert_true(failed_with(i, ERROR_DRAINING));
}

/* --- adapters --- */

static void its_adapter_is_loaded_there_too(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        uint32_t i = ask_for("a0", 500);
        assert_false(turn());
        loaded(demanded.number, 0);
        assert_true(turn());
        assert_int_equal(n_items, 1);
        lose();
        assert_false(turn());
        uint64_t uid = lones[0];
        struct worker lone = lone_start(uid);
        assert_false(turn());
        assert_int_equal(n_demanded, 1);
        assert_int_equal(demanded.adapter_uid, 500);
        assert_int_equal(demanded.replica_uid, uid);
        gateway_lones_check(&w.f.g, uv_hrtime());
        assert_false(turn());
        assert_int_equal(lone.replica->state, GATEWAY_REPLICA_READY); /* it waits for it */
        loaded(demanded.number, way == 0 ? 0 : -ERROR_NO_MEMORY);
        bool leased = turn();
        assert_int_equal(leased, way == 0);
        if (way == 0) {
            assert_int_equal(n_items, 1);
            assert_int_equal(item_adapters[0], demanded.number);
            end(items[0], 0);
            assert_int_equal(seen[i].n_ends, 1);
            assert_false(turn());
        } else {
            assert_true(failed_with(i, ERROR_MODEL_UNAVAILABLE));
            gateway_lones_check(&w.f.g, uv_hrtime());
        }
        assert_int_equal(lone.replica->state, GATEWAY_REPLICA_GONE);
        lone_ended(uid, lone, true);
    }
}

/* Lost while it still waits for it. */
static void a_loss_before_the_adapter_is_there(void **state)
{
    (void)state;
    uint32_t i = ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number, 0);
    assert_true(turn());
    lose();
    assert_false(turn());
    struct worker lone = lone_start(lones[0]);
    assert_false(turn());
    assert_int_equal(n_demanded, 1);
    lone_ended(lone.replica->uid, lone, false);
    assert_true(failed_with(i, ERROR_WORKER_LOST));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_shared, teardown_shared)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_begins_anew_and_alone),
        TEST(all_have_places_one_after_the_other),
        TEST(others_are_lost_for_good),
        TEST(other_ends_of_a_shared_worker_count_too),
        TEST(tokens_are_paid_once),
        TEST(few_at_once_and_fewer_of_one_tenant),
        TEST(a_hang_is_of_those_whose_turn_it_was),
        TEST(the_second_try_comes_soon_or_never),
        TEST(nothing_begins_of_what_is_taken_away),
        TEST(who_goes_away_leaves_nothing),
        TEST(a_refused_worker_is_told),
        TEST(a_new_control_is_asked_again),
        TEST(its_adapter_is_loaded_there_too),
        TEST(a_loss_before_the_adapter_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
