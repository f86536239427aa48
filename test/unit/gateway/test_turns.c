/* A language model of several tenants: whose turn it is, who is stepped in it and who pays. */
#include "schedule/schedule_internal.h"
#include "test/unit/gateway/lease_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { OWNER = 100, GUEST = 200, THIRD = 300, SEQUENCES = 4, ANSWER = 100, ITEMS_MAX = 64 };

static struct lease_fixture f;
static struct gateway_tenant guest_tenant, third_tenant;
static struct gateway_version *guest, *third; /* the third one where a test wants it */

static uint32_t n_ends, n_fails;
static uint64_t items[3][ITEMS_MAX]; /* of the owner, of the guest, of the third */
static uint32_t n_items[3];
static uint64_t parked[16]; /* that the worker was told of */
static uint32_t n_parked;
static struct str asked;

static void on_make(struct gateway_request *r, uint32_t index, struct generation *g)
{
    (void)r;
    generation_init(g, GENERATION_COMPLETION);
    g->prompt = asked;
    g->max_tokens = 100 + index;
}

static int on_event(struct gateway_request *r, uint32_t index, const struct generation_event *e, struct error *err)
{
    (void)r;
    (void)index;
    (void)e;
    (void)err;
    return 0;
}

static void on_end(struct gateway_request *r)
{
    n_ends++;
    gateway_answer(r, 200, NULL, NULL, 0, STR("x"));
}

static void on_fail(struct gateway_request *r, int code, const struct error *err)
{
    (void)code;
    (void)err;
    n_fails++;
    gateway_answer(r, 200, NULL, NULL, 0, STR("x"));
}

static const struct gateway_generate ops = {on_make, on_event, on_end, on_fail};

/* A guest's version, as the catalog makes it of a loan that the owner's replicas serve. */
static struct gateway_version *guest_start(struct gateway_tenant *tenant, uint64_t uid)
{
    *tenant = (struct gateway_tenant){.uid = uid, .classes = 1u << SCHEDULE_INTERACTIVE};
    schedule_tenant_set(f.g.schedule, &tenant->schedule,
                        &(struct schedule_tenant_config){.weight = 1, .queue_max = 100});
    struct gateway_version *v = calloc(1, sizeof *v);
    assert_non_null(v);
    v->gateway = &f.g;
    v->tenant = tenant;
    v->uid = f.version->uid;
    v->batch_max = 1;
    v->class = SCHEDULE_INTERACTIVE;
    v->replicas_max = 1;
    gateway_version_lists_init(v);
    v->host = f.version;
    list_append(&f.version->guests, &v->in_guests);
    v->signature = malloc(sizeof *v->signature);
    assert_non_null(v->signature);
    *v->signature = *f.version->signature;
    schedule_target_set(f.g.schedule, &v->schedule, &tenant->schedule,
                        &(struct schedule_target_config){.batch_rows_max = 1, .batch_bytes_max = 32 * KIB});
    return v;
}

static void guest_stop(struct gateway_version *v)
{
    assert_int_equal(v->n_requests + v->n_held, 0);
    gateway_places_done(v);
    list_remove(&v->in_guests);
    schedule_target_remove(f.g.schedule, &v->schedule);
    schedule_tenant_remove(f.g.schedule, &v->tenant->schedule);
    gateway_stats_free(v);
    free(v->signature);
    free(v);
}

static int setup(void **state)
{
    (void)state;
    static const struct channel_geometry geometry = {256, 1, 64 * KIB, 64 * KIB};
    static struct tensor_signature signature;
    signature = (struct tensor_signature){.token = {TENSOR_TOKEN_ANSWER, 1000, 2000, SEQUENCES, 50, 8, 0}};
    asked = STR("p");
    n_ends = n_fails = n_parked = n_items[0] = n_items[1] = n_items[2] = 0;
    fixture_init(&f, &geometry, 16 * KIB, 1, &signature);
    f.tenant.uid = OWNER;
    f.version->batch_max = LIMIT_BATCH_ITEMS;
    struct schedule_lease *none;
    schedule_replica_remove(f.g.schedule, &f.replica->schedule, 1, &none);
    assert_int_equal(gateway_batch_start(f.replica), 0);
    guest = guest_start(&guest_tenant, GUEST);
    third = NULL;
    return 0;
}

static int setup_long(void **state)
{
    static uint32_t tokens = 1000;
    int r = setup(state);
    *state = &tokens;
    return r;
}

static int teardown(void **state)
{
    (void)state;
    gateway_replica_kill(f.replica, BUS_STOP_PROTOCOL);
    guest_stop(guest);
    if (third)
        guest_stop(third);
    fixture_done(&f);
    return 0;
}

static struct gateway_request *ask(struct gateway_version *v, uint32_t n)
{
    struct gateway_request *r = gateway_request_new(&f.g);
    assert_non_null(r);
    r->tenant = v->tenant;
    v->tenant->n_requests++;
    r->version = v;
    v->n_requests++;
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    gateway_generate(r, n, 1, &ops);
    return r;
}

/* --- the worker --- */

static struct channel_frame lease;
static bool is_parked(uint64_t id)
{
    for (uint32_t i = 0; i < n_parked; i++)
        if (parked[i] == id)
            return true;
    return false;
}

static void parking_take(const struct channel_frame *frame)
{
    bool was = is_parked(frame->request_id);
    assert_int_equal(was, frame->type == CHANNEL_RESUME); /* told once */
    if (!was) {
        parked[n_parked++] = frame->request_id;
        return;
    }
    uint32_t i = 0;
    while (parked[i] != frame->request_id)
        i++;
    parked[i] = parked[--n_parked];
}

/* False: no lease. */
static bool turn(void)
{
    struct channel_frame frame;
    struct error err = {0};
    bool leased = false;
    gateway_dispatch(&f.g);
    while (channel_pull(f.guest, &frame, &err) == 1) {
        if (frame.type == CHANNEL_ITEM) {
            uint32_t whose = frame.tenant_id == GUEST ? 1 : frame.tenant_id == THIRD ? 2 : 0;
            items[whose][n_items[whose]++] = frame.request_id;
        }
        if (frame.type == CHANNEL_PARK || frame.type == CHANNEL_RESUME)
            parking_take(&frame);
        if (frame.type == CHANNEL_LEASE) {
            lease = frame;
            leased = true;
        }
    }
    return leased;
}

static void push(const struct channel_frame *frame)
{
    assert_int_equal(channel_push(f.guest, frame), 0);
    channel_ring(f.guest);
    gateway_replica_pull(f.replica);
}

static void tell_of(uint64_t id, enum generation_event_kind kind, uint32_t prompt, uint32_t worked, uint32_t completion)
{
    struct generation_event e = {.kind = kind,
                                 .text = kind == GENERATION_EVENT_TEXT ? STR("x") : (struct str){0},
                                 .prompt_tokens = prompt,
                                 .prompt_done = worked,
                                 .completion_tokens = completion,
                                 .finish = kind == GENERATION_EVENT_END ? GENERATION_STOP : GENERATION_RUNNING};
    size_t size = 0;
    assert_int_equal(generation_event_encode(&e, channel_slot_own(f.guest, 0), 64 * KIB, &size), 0);
    push(&(struct channel_frame){.type = CHANNEL_PART,
                                 .flags = kind == GENERATION_EVENT_END ? CHANNEL_FINAL : 0,
                                 .request_id = id,
                                 .lease_id = lease.lease_id,
                                 .length = size});
}

static void tell(uint64_t id, enum generation_event_kind kind, uint32_t completion)
{
    tell_of(id, kind, 3, 3, completion);
}

static void done(uint32_t more)
{
    push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 100, .b = more});
}

static void wait_us(uint64_t us)
{
    for (uint64_t until_ns = uv_hrtime() + us * 1000; uv_hrtime() < until_ns;)
        ;
}

/* --- */

/* Without consent each tenant's turn steps its own sequences only; they take turns and each pays its own. */
static void each_has_turns_of_its_own(void **state)
{
    (void)state;
    n_items[0] = n_items[1] = 0;
    ask(f.version, 1);
    ask(guest, 1);
    uint64_t before_ns[2] = {0, 0}, longest_ns[2] = {0, 0};
    uint32_t told[2] = {0, 0};
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(turn());
        assert_true(lease.tenant_id == OWNER || lease.tenant_id == GUEST);
        uint32_t whose = lease.tenant_id == GUEST;
        assert_int_equal(n_items[0] + n_items[1], 2); /* places were given at the first */
        wait_us(whose ? 100 : 1000);
        tell(items[whose][0], GENERATION_EVENT_TEXT, ++told[whose]);
        done(1);
        uint64_t served_ns[2] = {f.tenant.schedule.served_ns, guest_tenant.schedule.served_ns};
        assert_int_equal(served_ns[!whose], before_ns[!whose]); /* the other paid nothing */
        uint64_t took_ns = served_ns[whose] - before_ns[whose];
        longest_ns[whose] = took_ns > longest_ns[whose] ? took_ns : longest_ns[whose];
        before_ns[whose] = served_ns[whose];
        uint64_t apart_ns = before_ns[0] > before_ns[1] ? before_ns[0] - before_ns[1] : before_ns[1] - before_ns[0];
        assert_true(apart_ns <= longest_ns[0] + longest_ns[1]);
    }
    assert_true(told[0] > 0 && told[1] > 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(turn());
        uint32_t whose = lease.tenant_id == GUEST;
        tell(items[whose][0], GENERATION_EVENT_END, told[whose]);
        done(1 - i);
    }
    assert_int_equal(n_ends, 2);
    assert_false(turn());
    assert_true(list_empty(&f.replica->batch->seats));
    assert_false(list_linked(&f.replica->in_busy));
}

/* Nobody's answers wait for a prompt of which much is left; the rest of it is no hindrance. */
static void a_long_prompt_has_turns_of_its_own(void **state)
{
    (void)state;
    guest->shared_batch = true;
    ask(f.version, 1);
    ask(guest, 1);
    assert_true(turn());
    tell_of(items[1][0], GENERATION_EVENT_PROGRESS, 900, 643, 0);
    tell(items[0][0], GENERATION_EVENT_TEXT, 1);
    done(2);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(turn());
        assert_int_not_equal(lease.tenant_id, 0);
        if (i == 3)
            tell_of(items[1][0], GENERATION_EVENT_PROGRESS, 900, 644, 0);
        else
            tell(items[0][0], GENERATION_EVENT_TEXT, 2 + i);
        done(2);
    }
    assert_true(turn());
    assert_int_equal(lease.tenant_id, 0);
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL);
}

/* The worker has told nothing of it, as it is behind others of its tenant. */
static void a_long_prompt_is_known_by_its_bytes(void **state)
{
    (void)state;
    static char text[8 * KIB];
    memset(text, 'p', sizeof text);
    guest->shared_batch = true;
    ask(f.version, 1);
    asked = (struct str){text, sizeof text};
    ask(guest, 1);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(turn());
        assert_int_not_equal(lease.tenant_id, 0);
        if (lease.tenant_id == OWNER)
            tell(items[0][0], GENERATION_EVENT_TEXT, 1 + i);
        done(2);
    }
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL);
}

/* Where all agree a turn is everybody's, and its cost is split by the tokens that each was served. */
static void who_agrees_shares_a_turn(void **state)
{
    (void)state;
    guest->shared_batch = true;
    n_items[0] = n_items[1] = 0;
    ask(f.version, 1);
    ask(guest, 1);
    assert_true(turn());
    assert_int_equal(lease.tenant_id, 0);
    tell(items[0][0], GENERATION_EVENT_TEXT, 1); /* and 3 of the prompt: 3 + 2 × 1 */
    tell(items[1][0], GENERATION_EVENT_TEXT, 6); /* 3 + 2 × 6 */
    wait_us(1000);
    done(1);
    uint64_t own_ns = f.tenant.schedule.served_ns, other_ns = guest_tenant.schedule.served_ns;
    assert_true(own_ns + other_ns >= 1000000);
    assert_in_range(other_ns, 3 * own_ns - 4, 3 * own_ns + 4);
    assert_true(turn());
    assert_int_equal(lease.tenant_id, 0);
    tell(items[0][0], GENERATION_EVENT_END, 1);
    tell(items[1][0], GENERATION_EVENT_END, 6);
    done(0);
    assert_int_equal(n_ends, 2);
    assert_false(turn());
}

static struct gateway_quota quota_of(struct gateway_tenant *tenant)
{
    struct gateway_quota q = {.tenant = tenant};
    schedule_quota_set(&q.schedule, &(struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_DAY] = 1u << 30}});
    return q;
}

static uint64_t used_ns(const struct gateway_quota *q)
{
    return q->schedule.use[SCHEDULE_COMPUTE_DAY].used;
}

static void count(struct gateway_request *r, struct gateway_quota *tenant, struct gateway_quota *key)
{
    r->quotas[GATEWAY_QUOTA_TENANT] = tenant;
    r->quotas[GATEWAY_QUOTA_KEY] = key;
    tenant->n_requests++;
    key->n_requests++;
}

/* Quotas of compute are charged what the scheduler charges, to the nanosecond, and each key by its tokens; also for who
 * has left before the turn's end. */
static void quotas_are_charged_as_turns_are(void **state)
{
    (void)state;
    uint64_t day = gateway_quota_time().wall_ns / schedule_window_ns(SCHEDULE_COMPUTE_DAY);
    struct gateway_quota tenants[2] = {quota_of(&f.tenant), quota_of(&guest_tenant)};
    struct gateway_quota keys[3] = {quota_of(&f.tenant), quota_of(&guest_tenant), quota_of(&guest_tenant)};
    list_init(&f.g.quotas.changed);
    guest->shared_batch = true;
    count(ask(f.version, 1), &tenants[0], &keys[0]);
    count(ask(guest, 1), &tenants[1], &keys[1]);
    count(ask(guest, 1), &tenants[1], &keys[2]);
    assert_true(turn());
    assert_int_equal(lease.tenant_id, 0);
    tell(items[0][0], GENERATION_EVENT_TEXT, 1); /* 3 + 2 × 1 */
    tell(items[1][0], GENERATION_EVENT_END, 11); /* 3 + 2 × 11 */
    assert_int_equal(n_ends, 1);
    tell(items[1][1], GENERATION_EVENT_TEXT, 6); /* 3 + 2 × 6 */
    wait_us(1000);
    done(2);
    uint64_t whole_ns = used_ns(&tenants[0]) + used_ns(&tenants[1]);
    if (gateway_quota_time().wall_ns / schedule_window_ns(SCHEDULE_COMPUTE_DAY) == day) { /* else it began anew */
        assert_true(whole_ns >= 1000000);
        assert_true(used_ns(&tenants[0]) == f.tenant.schedule.served_ns);
        assert_true(used_ns(&tenants[1]) == guest_tenant.schedule.served_ns);
        assert_true(used_ns(&tenants[0]) == used_ns(&keys[0]));
        assert_true(used_ns(&tenants[1]) == used_ns(&keys[1]) + used_ns(&keys[2]));
        assert_in_range(used_ns(&keys[0]), whole_ns / 9 - 1, whole_ns / 9 + 1); /* 5 of 45 */
        assert_in_range(used_ns(&keys[1]), whole_ns * 5 / 9 - 1, whole_ns * 5 / 9 + 1);
    }
    assert_int_equal(tenants[1].n_requests, 1); /* who has gone is held no more */
    assert_true(turn());
    wait_us(100);
    done(2); /* a worker that says nothing: whose turn it is pays */
    if (gateway_quota_time().wall_ns / schedule_window_ns(SCHEDULE_COMPUTE_DAY) == day) {
        assert_true(used_ns(&tenants[0]) + used_ns(&tenants[1]) >= whole_ns + 100000);
        assert_true(used_ns(&tenants[0]) == f.tenant.schedule.served_ns);
        assert_true(used_ns(&tenants[1]) == guest_tenant.schedule.served_ns);
        assert_true(used_ns(&keys[0]) + used_ns(&keys[1]) + used_ns(&keys[2]) ==
                    used_ns(&tenants[0]) + used_ns(&tenants[1]));
    }
    assert_true(turn());
    tell(items[0][0], GENERATION_EVENT_END, 1);
    tell(items[1][1], GENERATION_EVENT_END, 6);
    done(0);
    assert_int_equal(n_ends, 3);
    assert_int_equal(tenants[0].n_requests + tenants[1].n_requests, 0);
    assert_int_equal(keys[0].n_requests + keys[1].n_requests + keys[2].n_requests, 0);
    for (uint32_t i = 0; i < 2; i++)
        list_remove(&tenants[i].in_changed);
    for (uint32_t i = 0; i < 3; i++)
        list_remove(&keys[i].in_changed);
}

/* Who is served in others' turns far beyond its share waits for turns of its own. */
static void who_is_ahead_waits(void **state)
{
    (void)state;
    guest->shared_batch = true;
    n_items[0] = n_items[1] = 0;
    ask(f.version, 1);
    ask(guest, 1);
    uint32_t n_shared = 0, n_alone = 0;
    for (uint32_t i = 1; i <= 45 && n_alone == 0; i++) {
        assert_true(turn());
        n_shared += lease.tenant_id == 0;
        n_alone += lease.tenant_id == OWNER;
        wait_us(20000);
        if (lease.tenant_id != OWNER)
            tell(items[1][0], GENERATION_EVENT_TEXT, 2 * i);
        if (lease.tenant_id != GUEST && i == 1)
            tell(items[0][0], GENERATION_EVENT_TEXT, 1);
        else if (lease.tenant_id == OWNER)
            tell(items[0][0], GENERATION_EVENT_TEXT, 2);
        done(2);
    }
    assert_true(n_shared >= 1); /* sixteen, where the machine has time */
    assert_int_equal(n_alone, 1);
}

/* A turn is still everybody's but theirs whose own turn it must be: who does not agree, or has a long prompt. */
static void one_stays_behind(void **state)
{
    const uint32_t *long_prompt = *state; /* its tokens; NULL: it does not agree */
    guest->shared_batch = true;
    third = guest_start(&third_tenant, THIRD);
    third->shared_batch = long_prompt != NULL;
    struct gateway_version *versions[] = {f.version, guest, third};
    for (uint32_t i = 0; i < 3; i++)
        ask(versions[i], i == 2 ? 2 : 1);
    uint32_t told = 0, n_shared = 0, n_third = 0;
    for (uint32_t i = 0; i < 2000 && (n_shared == 0 || n_third == 0); i++) { /* as soon as the machine lets both run */
        assert_true(turn());
        if (i == 0 && long_prompt) { /* it is not known to be long yet */
            assert_int_equal(lease.tenant_id, 0);
            tell_of(items[2][0], GENERATION_EVENT_PROGRESS, *long_prompt, 3, 0);
        } else if (lease.tenant_id == 0) {
            assert_int_equal(n_parked, 2); /* whoever has one long prompt has turns for all of its own */
            assert_true(is_parked(items[2][0]) && is_parked(items[2][1]));
            n_shared++;
            told += told < ANSWER;
            for (uint32_t whose = 0; whose < 2; whose++)
                tell(items[whose][0], GENERATION_EVENT_PROGRESS, told);
        } else {
            assert_int_equal(lease.tenant_id, THIRD); /* the others always share theirs */
            assert_int_equal(n_parked, 0);
            n_third++;
            tell_of(items[2][0], GENERATION_EVENT_PROGRESS, long_prompt ? *long_prompt : 100,
                    n_third < 50 ? 3 + n_third : 53, 0);
        }
        wait_us(200);
        done(3);
    }
    assert_true(n_shared > 0 && n_third > 0);
    for (uint32_t i = 0; i < 3; i++)
        gateway_version_fail(versions[i], ERROR_MODEL_NOT_FOUND, NULL);
}

/* A loss of the worker fails both; a sequence that is parked asks for nothing. */
static void a_lost_worker_takes_all_seats(void **state)
{
    (void)state;
    n_items[0] = n_items[1] = 0;
    ask(f.version, 1);
    ask(guest, 2);
    assert_true(turn());
    gateway_replica_kill(f.replica, BUS_STOP_PROTOCOL);
    assert_int_equal(n_fails, 2);
    assert_true(list_empty(&f.replica->batch->seats));
}

/* --- places --- */

/* As many as it asks for, and more, yet who has nothing there is in the next turn. */
static void nobody_holds_all_places(void **state)
{
    (void)state;
    guest->shared_batch = true;
    uint32_t n = 0, lead = f.version->signature->token.context; /* such are its prompts, as far as their bytes tell */
    for (uint32_t i = 0; i < 2 * SEQUENCES; i++)
        ask(f.version, 1)->body.size = (size_t)4 * lead;
    assert_true(turn());
    assert_int_equal(n_items[0], SEQUENCES - 1);
    ask(guest, 1);
    assert_false(turn());
    done(SEQUENCES - 1); /* of nobody a token: both have the same counter */
    assert_true(turn());
    assert_int_equal(n_items[1], 1);
    assert_int_equal(lease.tenant_id, 0);
    /* Soon it has had more than the other, who waits too but may not have that place: no reason to keep it empty … */
    for (uint32_t answer = ANSWER; n_items[1] > n; n++) {
        ask(guest, 1);
        tell(items[1][n], GENERATION_EVENT_TEXT, answer);
        tell(items[1][n], GENERATION_EVENT_END, answer);
        done(SEQUENCES - 1);
        assert_true(turn());
    }
    /* … until it would not be next even if the other had got it. */
    assert_in_range(n, lead / (2 * ANSWER + 3), lead / (2 * ANSWER) + 1);
    for (uint32_t i = 0; i < 3; i++)
        tell(items[0][i], GENERATION_EVENT_TEXT, ANSWER);
    done(SEQUENCES - 1);
    assert_true(turn());
    assert_int_equal(n_items[1], n + 1);
    assert_int_equal(n_items[0], SEQUENCES - 1);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
}

/* Where all whom the model is for have something in the batch, no place stays empty. */
static void places_are_kept_for_somebody_only(void **state)
{
    (void)state;
    ask(guest, 1);
    for (uint32_t i = 0; i < 2 * SEQUENCES; i++)
        ask(f.version, 1);
    assert_true(turn());
    assert_int_equal(n_items[1], 1);
    assert_int_equal(n_items[0], SEQUENCES - 1);
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL);
}

/* Its clients do not read, so its counter stands still below the other's; the other is served all the same. */
static void who_does_not_read_holds_nobody_up(void **state)
{
    (void)state;
    struct gateway_request *slow[SEQUENCES - 1];
    ask(guest, 1);
    assert_true(turn());
    tell(items[1][0], GENERATION_EVENT_TEXT, 50);
    tell(items[1][0], GENERATION_EVENT_END, 50);
    for (uint32_t i = 0; i < SEQUENCES - 1; i++)
        slow[i] = ask(f.version, 1);
    ask(f.version, 1);
    done(0);
    assert_true(turn());
    assert_int_equal(n_items[0], SEQUENCES - 1);
    for (uint32_t i = 0; i < SEQUENCES - 1; i++)
        gateway_batches_park(slow[i], true);
    ask(guest, 1); /* it has had 100 and more; the other, which waits, nothing but its prompts */
    done(SEQUENCES - 1);
    for (uint32_t i = 0; i < 3 && n_items[1] == 1; i++)
        if (turn() && n_items[1] == 1)
            done(SEQUENCES - 1);
    assert_int_equal(n_items[1], 2);
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL);
}

/* --- classes --- */

static struct gateway_request *ask_class(struct gateway_version *v, enum schedule_class class)
{
    v->tenant->classes = 7;
    v->class = class; /* of requests that name none */
    return ask(v, 1);
}

static void a_higher_class_parks_a_lower_one_within_a_step(void **state)
{
    (void)state;
    ask_class(f.version, SCHEDULE_BATCH);
    assert_true(turn());
    uint64_t batch = items[0][0];
    tell(batch, GENERATION_EVENT_TEXT, 1);
    ask_class(guest, SCHEDULE_INTERACTIVE);
    assert_false(turn());          /* the lease runs … */
    assert_true(is_parked(batch)); /* … but has nothing to step any more */
    done(1);
    assert_true(turn());
    uint64_t interactive = items[1][0];
    assert_int_equal(lease.tenant_id, GUEST);
    assert_false(is_parked(interactive));
    tell(interactive, GENERATION_EVENT_TEXT, 1);
    ask_class(f.version, SCHEDULE_CRITICAL);
    assert_false(turn());
    assert_true(is_parked(batch) && is_parked(interactive));
    done(2);
    assert_true(turn());
    uint64_t critical = items[0][1];
    tell(critical, GENERATION_EVENT_END, 1);
    done(2);
    assert_true(turn()); /* who was parked goes on, the higher class first */
    assert_true(is_parked(batch) && !is_parked(interactive));
    tell(interactive, GENERATION_EVENT_END, 1);
    done(1);
    assert_true(turn());
    assert_int_equal(n_parked, 0);
    tell(batch, GENERATION_EVENT_TEXT, 2);
    tell(batch, GENERATION_EVENT_END, 2);
    done(0);
    assert_int_equal(n_ends, 3);
    assert_false(turn());
    assert_true(list_empty(&f.replica->batch->seats));
}

/* One tenant's two classes: a turn of each is asked for, and the lower one has its share. */
static void a_lower_class_has_its_share(void **state)
{
    (void)state;
    f.g.schedule->share_permille[SCHEDULE_BATCH] = 100;
    ask_class(f.version, SCHEDULE_BATCH);
    assert_true(turn());
    uint64_t batch = items[0][0];
    ask_class(f.version, SCHEDULE_INTERACTIVE);
    assert_false(turn());
    done(1);
    uint32_t told[2] = {0, 0}, n_leases = 0;
    for (; n_leases < 3000 && told[1] < 5; n_leases++) {
        assert_true(turn());
        uint64_t interactive = items[0][1];
        assert_false(is_parked(interactive)); /* it is stepped in all of them */
        told[0] += told[0] < 90;
        tell(interactive, GENERATION_EVENT_TEXT, told[0]);
        if (!is_parked(batch))
            tell(batch, GENERATION_EVENT_TEXT, ++told[1]);
        wait_us(200);
        done(2);
    }
    assert_int_equal(told[1], 5);
    assert_true(n_leases > told[1]); /* how many more is a matter of time: test/sim holds the share to its bounds */
}

/* spec.batching.maxSize: as many are in the batch at once; a change counts from the next turn on. */
static void a_batch_has_its_size(void **state)
{
    (void)state;
    f.version->batch_max = 2;
    for (uint32_t i = 0; i < 3; i++)
        ask(f.version, 1);
    ask(guest, 1);
    assert_true(turn());
    assert_int_equal(n_items[0] + n_items[1], 2);
    done(2);
    assert_true(turn());
    assert_int_equal(n_items[0] + n_items[1], 2);
    f.version->batch_max = 3;
    done(2);
    assert_true(turn());
    assert_int_equal(n_items[0] + n_items[1], 3);
    f.version->batch_max = 1; /* who is in stays */
    uint32_t whose = lease.tenant_id == GUEST;
    tell(items[whose][0], GENERATION_EVENT_END, 1);
    done(2);
    assert_true(turn());
    assert_int_equal(n_items[0] + n_items[1], 3);
    assert_int_equal(f.replica->batch->n_sequences, 2);
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL); /* who waits still */
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
}

static void lower_classes_leave_places(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        ask_class(f.version, SCHEDULE_BATCH);
    assert_true(turn());
    assert_int_equal(n_items[0], SEQUENCES - 1);
    ask_class(guest, SCHEDULE_INTERACTIVE);
    assert_false(turn());
    done(3);
    assert_true(turn());
    assert_int_equal(n_items[1], 1);
    assert_int_equal(f.replica->batch->n_sequences, SEQUENCES);
    ask_class(guest, SCHEDULE_CRITICAL); /* has to wait for a place: from now on one is kept */
    ask_class(guest, SCHEDULE_INTERACTIVE);
    tell(items[1][0], GENERATION_EVENT_END, 1);
    done(3);
    assert_true(turn());
    assert_int_equal(n_items[1], 2);
    tell(items[1][1], GENERATION_EVENT_END, 1);
    done(3);
    assert_true(turn());
    assert_int_equal(n_items[1], 2); /* batch holds three of four, and the fourth is kept */
    for (uint32_t i = 0; i < SEQUENCES - 1; i++)
        assert_false(is_parked(items[0][i]));
    gateway_version_fail(guest, ERROR_MODEL_NOT_FOUND, NULL); /* who waits still */
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
}

/* Two reasons to be parked: it goes on when neither is left. */
static void who_yields_may_also_not_be_read(void **state)
{
    (void)state;
    struct gateway_request *slow = ask_class(f.version, SCHEDULE_BATCH);
    assert_true(turn());
    uint64_t batch = items[0][0];
    ask_class(guest, SCHEDULE_INTERACTIVE);
    assert_false(turn());
    assert_true(is_parked(batch));
    gateway_batches_park(slow, true);
    done(1);
    assert_true(turn());
    gateway_batches_park(slow, false); /* read again, but it still yields */
    tell(items[1][0], GENERATION_EVENT_TEXT, 1);
    done(1);
    assert_true(turn());
    assert_true(is_parked(batch));
    gateway_batches_park(slow, true);
    tell(items[1][0], GENERATION_EVENT_END, 1);
    done(1);
    assert_false(turn()); /* nothing to run */
    assert_true(is_parked(batch));
    gateway_batches_park(slow, false);
    assert_true(turn());
    assert_false(is_parked(batch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_has_turns_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(who_agrees_shares_a_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_prompt_has_turns_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_prompt_is_known_by_its_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(quotas_are_charged_as_turns_are, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_ahead_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(one_stays_behind, setup, teardown),
        {"one_stays_behind_with_a_long_prompt", one_stays_behind, setup_long, teardown, NULL},
        cmocka_unit_test_setup_teardown(a_lost_worker_takes_all_seats, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_holds_all_places, setup, teardown),
        cmocka_unit_test_setup_teardown(places_are_kept_for_somebody_only, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_read_holds_nobody_up, setup, teardown),
        cmocka_unit_test_setup_teardown(a_higher_class_parks_a_lower_one_within_a_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lower_class_has_its_share, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_has_its_size, setup, teardown),
        cmocka_unit_test_setup_teardown(lower_classes_leave_places, setup, teardown),
        cmocka_unit_test_setup_teardown(who_yields_may_also_not_be_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
