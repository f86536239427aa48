/* Generations: the running batch of a language model against a worker that the test plays, honest and hostile. */
#include "schedule/schedule_internal.h"
#include "test/unit/gateway/lease_fixture.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct lease_fixture f;

/* What the surface of a request saw. */
struct seen {
    struct gateway_request *r; /* NULL: over */
    uint32_t n_events, n_ends, n_fails;
    int code, answer; /* `answer`: what event() says */
    char text[256];
    size_t text_size;
    const char *prompt;
    uint32_t max_tokens;
    uint32_t completion;
    struct error err;
};
static struct seen seen[8];

static void on_make(struct gateway_request *r, uint32_t index, struct generation *g)
{
    const struct seen *s = gateway_user(r);
    generation_init(g, GENERATION_COMPLETION);
    g->prompt = str_from(s->prompt);
    g->max_tokens = s->max_tokens + index;
}

static int on_event(struct gateway_request *r, uint32_t index, const struct generation_event *e, struct error *err)
{
    struct seen *s = gateway_user(r);
    (void)index;
    s->n_events++;
    s->completion = e->completion_tokens;
    if (e->kind == GENERATION_EVENT_TEXT) {
        assert_true(s->text_size + e->text.size < sizeof s->text);
        memcpy(s->text + s->text_size, e->text.data, e->text.size);
        s->text_size += e->text.size;
    }
    if (s->answer < 0)
        (void)error_set_default(err, s->answer);
    return s->answer;
}

static void over(struct gateway_request *r, struct seen *s)
{
    s->r = NULL;
    gateway_answer(r, 200, NULL, NULL, 0, STR("x"));
}

static void on_end(struct gateway_request *r)
{
    struct seen *s = gateway_user(r);
    s->n_ends++;
    over(r, s);
}

static void on_fail(struct gateway_request *r, int code, const struct error *err)
{
    struct seen *s = gateway_user(r);
    s->n_fails++;
    s->code = code;
    if (err)
        s->err = *err;
    over(r, s);
}

static const struct gateway_generate ops = {on_make, on_event, on_end, on_fail};
static void release(void *user)
{
    (void)user;
}

enum { SEQUENCES = 2 };

static int setup(void **state)
{
    (void)state;
    static const struct channel_geometry geometry = {256, 1, 64 * KIB, 64 * KIB};
    static struct tensor_signature signature;
    signature = (struct tensor_signature){.token = {TENSOR_TOKEN_ANSWER, 1000, 2000, SEQUENCES, 50, 8}};
    memset(seen, 0, sizeof seen);
    fixture_init(&f, &geometry, 16 * KIB, 1, &signature);
    f.version->batch_max = LIMIT_BATCH_ITEMS;
    struct schedule_lease *none;
    schedule_replica_remove(f.g.schedule, &f.replica->schedule, 1, &none);
    assert_int_equal(gateway_batch_start(f.replica), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++)
        if (seen[i].r)
            gateway_request_cancel(seen[i].r);
    f.g.requests.count = 0; /* those that were cancelled are not answered */
    fixture_done(&f);
    return 0;
}

static struct seen *ask(uint32_t n, const char *prompt)
{
    struct seen *s = seen;
    while (s->prompt)
        s++;
    s->prompt = prompt;
    s->max_tokens = 5;
    struct gateway_request *r = gateway_request_new(&f.g);
    assert_non_null(r);
    s->r = r;
    gateway_request_own(r, &f.tenant);
    r->version = f.version;
    f.version->n_requests++;
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    gateway_user_set(r, s, release);
    gateway_generate(r, n, 1, &ops);
    return s;
}

/* --- the worker --- */

static struct channel_frame frames[256];
static uint32_t n_frames;

/* All frames that the gateway has sent since the last call. */
static void turn(void)
{
    struct error err = {0};
    gateway_dispatch(&f.g);
    n_frames = 0;
    while (n_frames < 256 && channel_pull(f.guest, &frames[n_frames], &err) == 1)
        n_frames++;
}

static const struct channel_frame *sent(uint32_t index, enum channel_frame_type type)
{
    if (index >= n_frames || frames[index].type != type)
        fail_msg("frame %u of %u is not %d but %d", index, n_frames, type, index < n_frames ? frames[index].type : -1);
    return &frames[index];
}

/* The id of the first sequence that was sent; CANCELs of others may stand before it. */
static uint64_t sent_item(void)
{
    uint32_t i = 0;
    while (i < n_frames && frames[i].type != CHANNEL_ITEM)
        i++;
    return sent(i, CHANNEL_ITEM)->request_id;
}

static uint64_t lease_id(void)
{
    return f.replica->lease_id;
}

static struct generation_event event(enum generation_event_kind kind, const char *text, uint32_t completion)
{
    return (struct generation_event){.kind = kind,
                                     .text = str_from(text),
                                     .prompt_tokens = 3,
                                     .prompt_done = completion > 0 ? 3 : 1,
                                     .completion_tokens = completion,
                                     .finish = kind == GENERATION_EVENT_END ? GENERATION_STOP : GENERATION_RUNNING};
}

static void push(const struct channel_frame *frame)
{
    assert_int_equal(channel_push(f.guest, frame), 0);
    channel_ring(f.guest);
    gateway_replica_pull(f.replica);
}

static struct channel_frame part(uint64_t id, struct generation_event e)
{
    size_t size = 0;
    assert_int_equal(generation_event_encode(&e, channel_slot_own(f.guest, 0), 64 * KIB, &size), 0);
    return (struct channel_frame){.type = CHANNEL_PART,
                                  .flags = e.kind == GENERATION_EVENT_END ? CHANNEL_FINAL : 0,
                                  .request_id = id,
                                  .lease_id = lease_id(),
                                  .length = size};
}

static void tell(uint64_t id, struct generation_event e)
{
    struct channel_frame frame = part(id, e);
    push(&frame);
}

static void done(uint32_t more, int status)
{
    struct channel_frame frame = {.type = CHANNEL_DONE, .lease_id = lease_id(), .a = 100, .b = more, .status = status};
    push(&frame);
}

static bool alive(void)
{
    return f.replica->state == GATEWAY_REPLICA_READY;
}

/* --- what is honest --- */

static void test_one(void **state)
{
    (void)state;
    struct seen *s = ask(1, "hello");
    turn();
    const struct channel_frame *item = sent(0, CHANNEL_ITEM);
    const struct channel_frame *lease = sent(1, CHANNEL_LEASE);
    assert_int_equal(n_frames, 2);
    assert_int_equal(lease->a, LIMIT_QUANTUM_US);
    struct generation g;
    assert_int_equal(
        generation_decode((const char *)channel_slot_other(f.guest, 0) + item->offset, item->length, &g, NULL), 0);
    assert_true(str_equal(g.prompt, STR("hello")));
    assert_int_equal(g.max_tokens, 5);
    assert_true(g.cache_secret[0] != 0 || g.cache_secret[1] != 0);
    uint64_t id = item->request_id;
    tell(id, event(GENERATION_EVENT_PROGRESS, "", 0));
    tell(id, event(GENERATION_EVENT_TEXT, "wor", 1));
    done(1, 0);
    turn();
    sent(0, CHANNEL_LEASE); /* it goes on by itself */
    tell(id, event(GENERATION_EVENT_TEXT, "ld", 2));
    tell(id, event(GENERATION_EVENT_END, "", 2));
    assert_int_equal(s->n_ends, 1);
    assert_string_equal(s->text, "world");
    assert_int_equal(s->completion, 2);
    done(0, 0);
    turn();
    assert_int_equal(n_frames, 0);
    assert_true(alive());
    assert_false(list_linked(&f.replica->in_busy));
}

/* Who comes while others run joins them with the next lease; places are bounded; who waits is first come, first served
 * by request. */
static void test_batch(void **state)
{
    (void)state;
    struct seen *a = ask(2, "a");
    struct seen *b = ask(1, "b");
    turn();
    uint64_t a0 = sent(0, CHANNEL_ITEM)->request_id;
    uint64_t b0 = sent(1, CHANNEL_ITEM)->request_id; /* one each in turn */
    sent(2, CHANNEL_LEASE);
    tell(a0, event(GENERATION_EVENT_TEXT, "x", 1));
    tell(b0, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(b->n_ends, 1);
    struct seen *c = ask(1, "c");
    turn();
    assert_int_equal(n_frames, 0); /* the lease runs */
    done(1, 0);
    turn();
    uint64_t a1 = sent(0, CHANNEL_ITEM)->request_id;
    sent(1, CHANNEL_LEASE);
    tell(a0, event(GENERATION_EVENT_END, "", 1));
    assert_int_equal(a->n_ends, 0);
    done(1, 0);
    turn();
    uint64_t c0 = sent(0, CHANNEL_ITEM)->request_id;
    sent(1, CHANNEL_LEASE);
    tell(a1, event(GENERATION_EVENT_END, "", 6)); /* max_tokens 5 + index */
    assert_int_equal(a->n_ends, 1);
    tell(c0, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(c->n_ends, 1);
    done(0, 0);
    assert_true(alive());
}

/* In tokens of prompts, two for each of an answer; of the tenant's weight. */
static uint64_t counted(void)
{
    return f.version->lines[SCHEDULE_INTERACTIVE].account.count * f.tenant.schedule.weight >> 20;
}

static void test_tokens_are_counted(void **state)
{
    (void)state;
    ask(1, "abcdefgh");
    turn();
    uint64_t id = sent_item();
    assert_int_equal(counted(), 2); /* what its bytes may be */
    struct generation_event e = event(GENERATION_EVENT_PROGRESS, "", 0);
    e.prompt_tokens = 100;
    e.cached_tokens = e.prompt_done = 40;
    tell(id, e);
    assert_int_equal(counted(), 60); /* the cache's cost nothing */
    e.kind = GENERATION_EVENT_TEXT;
    e.prompt_done = 100;
    e.completion_tokens = 3;
    tell(id, e);
    assert_int_equal(counted(), 66);
    struct seen *s = ask(1, "gone");
    done(1, 0);
    turn();
    uint64_t gone = sent_item();
    uint64_t before = counted();
    assert_true(before > 66);
    e = event(GENERATION_EVENT_PROGRESS, "", 0);
    e.prompt_tokens = 50;
    e.prompt_done = 20;
    tell(gone, e);
    assert_int_equal(counted(), 116);
    struct gateway_request *r = s->r;
    s->r = NULL;
    gateway_request_cancel(r);
    assert_int_equal(counted(), 86); /* what was not worked on is given back */
    done(1, 0);
}

static void test_cancel(void **state)
{
    (void)state;
    struct seen *s = ask(3, "a");
    turn();
    uint64_t id0 = sent(0, CHANNEL_ITEM)->request_id, id1 = sent(1, CHANNEL_ITEM)->request_id;
    struct gateway_request *r = s->r;
    s->r = NULL;
    gateway_request_cancel(r); /* the client is gone */
    turn();
    assert_int_equal(n_frames, 2);
    uint64_t gone[2] = {sent(0, CHANNEL_CANCEL)->request_id, sent(1, CHANNEL_CANCEL)->request_id};
    assert_true((gone[0] == id0 && gone[1] == id1) || (gone[0] == id1 && gone[1] == id0));
    tell(id0, event(GENERATION_EVENT_TEXT, "late", 1)); /* it did not know yet */
    tell(id1, event(GENERATION_EVENT_END, "", 1));
    assert_true(alive());
    assert_int_equal(s->n_events, 0);
    done(0, 0);
    turn();
    assert_int_equal(n_frames, 0);
    struct seen *next = ask(1, "b");
    turn();
    tell(id0, event(GENERATION_EVENT_TEXT, "late", 2)); /* nor perhaps in the next lease */
    tell(sent(0, CHANNEL_ITEM)->request_id, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(next->n_ends, 1);
    done(0, 0);
    ask(1, "c");
    turn();
    tell(id0, event(GENERATION_EVENT_TEXT, "late", 2)); /* now it does */
    assert_false(alive());
}

static void test_park(void **state)
{
    (void)state;
    struct seen *s = ask(1, "a");
    turn();
    uint64_t id = sent(0, CHANNEL_ITEM)->request_id;
    struct gateway_request *r = s->r;
    s->answer = 1; /* its client does not read */
    tell(id, event(GENERATION_EVENT_TEXT, "x", 1));
    turn();
    assert_int_equal(sent(0, CHANNEL_PARK)->request_id, id);
    s->answer = 0;
    tell(id, event(GENERATION_EVENT_TEXT, "y", 2)); /* was on its way */
    done(0, 0);
    turn();
    assert_int_equal(n_frames, 0); /* nothing to run */
    assert_false(list_linked(&f.replica->in_busy));
    gateway_generate_resume(r);
    turn();
    assert_int_equal(sent(0, CHANNEL_RESUME)->request_id, id);
    sent(1, CHANNEL_LEASE);
    tell(id, event(GENERATION_EVENT_END, "", 2));
    assert_int_equal(s->n_ends, 1);
    done(0, 0);
    assert_true(alive());
}

static void test_client_goes_while_parked(void **state)
{
    (void)state;
    struct seen *s = ask(1, "a");
    turn();
    uint64_t id = sent(0, CHANNEL_ITEM)->request_id;
    struct gateway_request *r = s->r;
    s->answer = 1;
    tell(id, event(GENERATION_EVENT_TEXT, "x", 1));
    done(0, 0);
    turn();
    s->r = NULL;
    gateway_request_cancel(r);
    turn();
    sent(n_frames - 1, CHANNEL_CANCEL);
    assert_int_equal(f.replica->batch->n_sequences, 0);
}

/* A failure of the surface's takes the request out of the batch and nobody else. */
static void test_surface_fails(void **state)
{
    (void)state;
    struct seen *a = ask(1, "a"), *b = ask(1, "b");
    turn();
    uint64_t a0 = sent(0, CHANNEL_ITEM)->request_id, b0 = sent(1, CHANNEL_ITEM)->request_id;
    a->answer = -ERROR_ENGINE;
    tell(a0, event(GENERATION_EVENT_TEXT, "x", 1));
    assert_int_equal(a->n_fails, 1);
    assert_int_equal(a->code, -ERROR_ENGINE);
    turn();
    sent(0, CHANNEL_CANCEL);
    tell(b0, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(b->n_ends, 1);
    done(0, 0);
    assert_true(alive());
}

static void test_sequence_fails(void **state)
{
    (void)state;
    static const struct {
        int status, code;
    } rows[] = {{-ERROR_INVALID_REQUEST, -ERROR_INVALID_REQUEST}, {-ERROR_UNAUTHENTICATED, -ERROR_ENGINE}};
    for (size_t i = 0; i < 2; i++) {
        struct seen *s = ask(2, "a");
        turn();
        struct generation_event e = event(GENERATION_EVENT_END, "too long", 0);
        e.finish = GENERATION_ERROR;
        e.status = rows[i].status;
        tell(sent_item(), e);
        assert_int_equal(s->n_fails, 1); /* whole */
        assert_int_equal(s->code, rows[i].code);
        assert_string_equal(s->err.text, "too long");
        done(0, 0);
        assert_true(alive());
    }
}

/* Who ends, goes or is parked in a lease pays its share when that ends: here all of it. A lost one has ended. */
static void test_compute_is_charged(void **state)
{
    (void)state;
    enum { END, GONE, PARKED, LOST, WAYS };
    for (int way = END; way < WAYS; way++) {
        struct gateway_quota quota = {.tenant = &f.tenant, .schedule.limits.windows = {1, 1}};
        for (int kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++)
            list_init(&quota.queues[kind].requests);
        f.tenant.quota = &quota;
        struct seen *s = ask(1, "a");
        struct gateway_request *r = s->r;
        r->quotas[GATEWAY_QUOTA_TENANT] = &quota;
        quota.n_requests++;
        turn();
        uint64_t id = sent_item(), begin_ns = f.replica->started_ns;
        (void)poll(NULL, 0, 2);
        s->answer = way == PARKED;
        uint64_t end_ns = uv_hrtime();
        if (way == GONE) {
            s->r = NULL;
            gateway_request_cancel(r);
        } else if (way == LOST) {
            gateway_replica_kill(f.replica, BUS_STOP_PROTOCOL);
        } else {
            tell(id, event(way == END ? GENERATION_EVENT_END : GENERATION_EVENT_TEXT, "", 0));
        }
        const uint64_t *used_ns = &quota.schedule.use[SCHEDULE_COMPUTE_HOUR].used;
        if (way != LOST) {
            assert_int_equal(quota.n_requests, way == PARKED ? 2 : 1); /* it is held for whoever has left */
            (void)poll(NULL, 0, 2);
            end_ns = uv_hrtime();
            done(0, 0);
        }
        if (*used_ns < end_ns - begin_ns)
            fail_msg("way %d: %llu ns are charged", way, (unsigned long long)*used_ns);
        if (way == PARKED) {
            s->r = NULL;
            gateway_request_cancel(r);
            turn();
        }
        assert_int_equal(quota.n_requests, 0);
        list_remove(&quota.in_changed);
        f.tenant.quota = NULL;
    }
}

static void test_credit(void **state)
{
    (void)state;
    ask(1, "a");
    turn();
    tell(sent(0, CHANNEL_ITEM)->request_id, event(GENERATION_EVENT_TEXT, "x", 1));
    struct channel_frame frame = {.type = CHANNEL_PART, .flags = CHANNEL_WAIT, .lease_id = lease_id()};
    push(&frame);
    turn();
    sent(0, CHANNEL_CREDIT);
    assert_true(alive());
}

static void test_drain(void **state)
{
    (void)state;
    struct seen *a = ask(1, "a");
    turn();
    uint64_t id = sent(0, CHANNEL_ITEM)->request_id;
    gateway_replica_drain(&f.g, f.replica->uid);
    struct seen *b = ask(1, "b");
    done(1, 0);
    turn();
    sent(0, CHANNEL_LEASE); /* what began goes on, nothing new begins */
    assert_int_equal(n_frames, 1);
    tell(id, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(a->n_ends, 1);
    assert_int_equal(f.replica->state, GATEWAY_REPLICA_DRAINING);
    done(0, 0);
    turn();
    assert_int_equal(f.replica->state, GATEWAY_REPLICA_GONE);
    assert_non_null(b->r); /* it waits for another replica */
}

/* --- ends --- */

static void test_worker_dies(void **state)
{
    (void)state;
    for (int leased = 0; leased < 2; leased++) {
        struct seen *a = ask(1, "a"), *b = ask(2, "b"), *c = ask(1, "c");
        turn();
        if (!leased)
            done(1, 0);
        if (!leased)
            gateway_turns_look(&f.g); /* it waits for its turn */
        gateway_replica_kill(f.replica, BUS_STOP_PROTOCOL);
        assert_int_equal(a->n_fails + b->n_fails, 2);
        assert_int_equal(a->code, -ERROR_WORKER_LOST);
        assert_int_equal(c->n_fails, 0); /* it had not begun */
        assert_int_equal(f.replica->batch->n_sequences, 0);
        assert_true(list_empty(&f.replica->batch->seats));
        if (leased == 0) {
            teardown(NULL);
            setup(NULL);
        }
    }
}

static void test_engine_fails(void **state)
{
    (void)state;
    struct seen *a = ask(1, "a"), *b = ask(1, "b");
    turn();
    done(0, -ERROR_ENGINE);
    assert_int_equal(a->n_fails + b->n_fails, 2);
    assert_int_equal(a->code, -ERROR_ENGINE);
    assert_true(alive());
    struct seen *c = ask(1, "c");
    turn();
    tell(sent_item(), event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(c->n_ends, 1);
    done(0, 0);
}

static void test_version_goes(void **state)
{
    (void)state;
    struct seen *a = ask(1, "a"), *b = ask(1, "b"), *c = ask(1, "c");
    turn();
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL);
    assert_int_equal(c->n_fails, 1);
    assert_int_equal(a->n_fails + b->n_fails, 0); /* they run */
    done(2, 0);
    turn();
    sent(0, CHANNEL_LEASE);
}

static void test_waits_too_long(void **state)
{
    (void)state;
    ask(1, "a");
    ask(1, "b");
    struct seen *c = ask(1, "c");
    turn();
    assert_true(schedule_wakeup(f.g.schedule) <= c->r->deadline_ns);
    gateway_expire(&f.g, c->r->deadline_ns - 1);
    assert_int_equal(c->n_fails, 0);
    gateway_expire(&f.g, c->r->deadline_ns);
    assert_int_equal(c->n_fails, 1);
    assert_int_equal(c->code, -ERROR_DEADLINE);
    assert_int_equal(f.replica->batch->n_sequences, 2); /* who runs has no deadline */
}

static void test_refusals(void **state)
{
    (void)state;
    static char large[40 * KIB];
    memset(large, 'x', sizeof large - 1);
    struct seen *s = ask(1, large); /* the slot takes 32 KiB */
    assert_int_equal(s->code, -ERROR_BODY_TOO_LARGE);
    f.version->generation = 7; /* deleted */
    s = ask(1, "a");
    assert_int_equal(s->code, -ERROR_MODEL_NOT_FOUND);
}

/* What has not begun is in the scheduler's queues, whichever model of the tenant it is for. */
static void test_queues_are_bounded(void **state)
{
    (void)state;
    schedule_tenant_set(f.g.schedule, &f.tenant.schedule, &(struct schedule_tenant_config){.queue_max = 3});
    struct seen *a = ask(1, "a");
    ask(1, "b");
    turn();
    uint64_t a0 = sent_item();
    assert_int_equal(f.tenant.schedule.queued, 0); /* they run; a turn is none of it */
    struct seen *c = ask(2, "c"), *d = ask(1, "d");
    ask(1, "e");
    assert_int_equal(f.tenant.schedule.queued, 3);
    assert_int_equal(ask(1, "f")->code, -ERROR_QUEUE_FULL);
    struct gateway_request *r = d->r;
    d->r = NULL;
    gateway_request_cancel(r);
    assert_int_equal(f.tenant.schedule.queued, 2);
    tell(a0, event(GENERATION_EVENT_END, "", 0));
    assert_int_equal(a->n_ends, 1);
    done(1, 0);
    turn();
    sent_item(); /* c begins: it has left the queue, though its second generation waits */
    assert_int_equal(c->n_fails, 0);
    assert_int_equal(f.tenant.schedule.queued, 1);
    assert_int_equal(f.version->n_generating, 2);
}

static void test_overload_sheds(void **state)
{
    (void)state;
    f.g.schedule->queue_max = 2; /* the server's */
    struct seen *a = ask(1, "a"), *b = ask(1, "b");
    turn();
    done(1, 0);
    struct seen *c = ask(1, "c"), *d = ask(1, "d");
    f.g.schedule->queue_max = 1;
    turn();
    assert_int_equal(c->n_fails, 0);
    assert_int_equal(d->n_fails, 1); /* the newest */
    assert_int_equal(d->code, -ERROR_OVERLOADED);
    assert_int_equal(a->n_fails + b->n_fails, 0); /* who runs stays, and so does the turn */
    sent(0, CHANNEL_LEASE);
    assert_int_equal(ask(1, "e")->code, -ERROR_OVERLOADED);
}

/* --- what is hostile: it costs the worker its life, and its requests an error --- */

static void hostile(struct channel_frame frame)
{
    push(&frame);
    assert_false(alive());
    for (size_t i = 0; i < 8 && seen[i].prompt; i++) {
        assert_null(seen[i].r);
        assert_int_equal(seen[i].code, -ERROR_WORKER_LOST);
    }
    teardown(NULL);
    setup(NULL);
}

static uint64_t begin(void)
{
    ask(1, "a");
    turn();
    uint64_t id = sent(0, CHANNEL_ITEM)->request_id;
    tell(id, event(GENERATION_EVENT_TEXT, "x", 2));
    assert_true(alive());
    return id;
}

static void test_hostile(void **state)
{
    (void)state;
    struct channel_frame frame;
    struct generation_event e;
    uint64_t id = begin();
    hostile(part(id + 1, event(GENERATION_EVENT_TEXT, "x", 3))); /* an id that nobody has */
    id = begin();
    hostile(part(id, event(GENERATION_EVENT_TEXT, "x", 1))); /* counts go back */
    id = begin();
    hostile(part(id, event(GENERATION_EVENT_TEXT, "x", 6))); /* more than max_tokens */
    id = begin();
    e = event(GENERATION_EVENT_TEXT, "x", 3);
    e.prompt_tokens = 4; /* another prompt */
    hostile(part(id, e));
    id = begin();
    e = event(GENERATION_EVENT_TEXT, "x", 3);
    e.cached_tokens = 4; /* more than the prompt has */
    hostile(part(id, e));
    id = begin();
    frame = part(id, event(GENERATION_EVENT_TEXT, "x", 3));
    frame.flags = CHANNEL_FINAL; /* an end that is none */
    hostile(frame);
    id = begin();
    frame = part(id, event(GENERATION_EVENT_END, "", 3));
    frame.flags = 0;
    hostile(frame);
    id = begin();
    frame = part(id, event(GENERATION_EVENT_TEXT, "x", 3));
    frame.lease_id++;
    hostile(frame);
    id = begin();
    frame = part(id, event(GENERATION_EVENT_TEXT, "x", 3));
    frame.flags = CHANNEL_WAIT; /* a wait with an event */
    hostile(frame);
    id = begin();
    frame = part(id, event(GENERATION_EVENT_TEXT, "xyz", 3));
    ((char *)channel_slot_own(f.guest, 0))[frame.length - 2] = (char)0xFF; /* not UTF-8 */
    frame.length = frame.length / 2 * 2;
    hostile(frame);
    id = begin();
    frame = part(id, event(GENERATION_EVENT_TEXT, "x", 3));
    frame.length = LIMIT_EVENT_BYTES + 1;
    hostile(frame);
    id = begin();
    tell(id, event(GENERATION_EVENT_END, "", 3));
    seen[0].prompt = NULL;                                   /* that one was answered */
    hostile(part(id, event(GENERATION_EVENT_TEXT, "x", 3))); /* after its end */
    begin();
    hostile((struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease_id() + 1});
    begin();
    done(1, 0);
    hostile((struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease_id()}); /* without a lease */
}

/* A worker that holds sequences and does nothing. */
static void test_idle_worker(void **state)
{
    (void)state;
    ask(1, "a");
    turn();
    sent(1, CHANNEL_LEASE);
    done(0, 0);
    assert_false(alive());
    teardown(NULL);
    setup(NULL);
    ask(1, "a");
    unsigned n = 0;
    for (; alive() && n < 2000; n++) {
        turn();
        done(1, 0);
    }
    assert_in_range(n, 500, 520);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one),
        TEST(test_batch),
        TEST(test_tokens_are_counted),
        TEST(test_cancel),
        TEST(test_park),
        TEST(test_client_goes_while_parked),
        TEST(test_surface_fails),
        TEST(test_sequence_fails),
        TEST(test_compute_is_charged),
        TEST(test_credit),
        TEST(test_drain),
        TEST(test_worker_dies),
        TEST(test_engine_fails),
        TEST(test_version_goes),
        TEST(test_waits_too_long),
        TEST(test_refusals),
        TEST(test_queues_are_bounded),
        TEST(test_overload_sheds),
        TEST(test_hostile),
        TEST(test_idle_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
