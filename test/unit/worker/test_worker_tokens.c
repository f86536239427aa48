/* A language model's leases: the worker runs in a thread on an shm channel with the llama engine and the tiny random
 * model, the test plays gateway. */
#include "test/unit/engine/llama_fixture.h"
#include "test/unit/worker/host_pull.h"
#include "worker/worker.c"

#include <pthread.h>

enum { WAIT_MS = 30000, SLOT_BYTES = 128 * 1024, EVENTS_MAX = 8192 };

struct fixture {
    struct worker w;
    struct llama_model_file model;
    int bus;
    struct channel *host;
    struct channel_geometry geometry;
    uint64_t inbox_used, lease_id;
    pthread_t thread;
    int result;
    struct recorder record;
};

static struct fixture fixture;

static void *guest_main(void *ctx)
{
    struct fixture *f = ctx;
    int r = 0;
    while (r == 0)
        r = channel_work(&f->w);
    f->result = r;
    return NULL;
}

static void channel_make(struct fixture *f, uint32_t epoch, struct channel_fds *ret_guest)
{
    struct error err = {0};
    struct channel_fds host;
    assert_int_equal(channel_create(&f->geometry, &host, ret_guest, &err), 0);
    assert_int_equal(channel_shm_open(true, &f->geometry, epoch, &host, &f->host, &err), 0);
}

static void push(struct fixture *f, struct channel_frame frame)
{
    assert_int_equal(channel_push(f->host, &frame), 0);
    channel_ring(f->host);
}

static struct channel_frame pull(struct fixture *f)
{
    return host_pull(f->host, WAIT_MS);
}

static struct fixture *start(uint64_t outbox_bytes)
{
    struct fixture *f = &fixture;
    struct channel_fds guest;
    struct error err = {0};
    int fds[2];
    memset(f, 0, sizeof *f);
    f->geometry = (struct channel_geometry){1024, 1, SLOT_BYTES, outbox_bytes};
    f->model = llama_tiny(1);
    assert_int_equal(bus_pair(fds, &err), 0);
    f->bus = fds[0];
    f->w.bus_fd = fds[1];
    f->w.ops = &engine_llama;
    f->w.model = f->model.data;
    f->w.model_fd = f->model.fd;
    f->w.library_fd = llama_fixture_library();
    f->w.config.library = BUS_LIBRARY_FD;
    f->w.config.model_bytes = f->model.size;
    f->w.config.threads = 1;
    channel_make(f, 7, &guest);
    assert_int_equal(channel_shm_open(false, &f->geometry, 7, &guest, &f->w.channel, &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, guest_main, f), 0);
    push(f, (struct channel_frame){.type = CHANNEL_LOAD});
    struct channel_frame loaded = pull(f);
    assert_int_equal(loaded.type, CHANNEL_LOAD);
    assert_int_equal(loaded.status, 0);
    return f;
}

static int stop(struct fixture *f, bool tell)
{
    if (tell)
        push(f, (struct channel_frame){.type = CHANNEL_UNLOAD});
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    channel_close(f->host);
    channel_close(f->w.channel);
    f->w.ops->close(f->w.engine);
    free(f->w.signature);
    llama_model_done(&f->model);
    fd_close(&f->bus);
    fd_close(&f->w.bus_fd);
    return f->result;
}

static void item(struct fixture *f, uint64_t id, const struct generation *g)
{
    char *slot = channel_slot_own(f->host, 0);
    size_t size = generation_size(g);
    assert_true(f->inbox_used + size <= SLOT_BYTES);
    assert_int_equal(generation_encode(g, slot + f->inbox_used, size, NULL), 0);
    push(f, (struct channel_frame){
                .type = CHANNEL_ITEM, .request_id = id, .tenant_id = 1, .offset = f->inbox_used, .length = size});
    f->inbox_used += size;
}

static void lease(struct fixture *f, uint32_t budget_us)
{
    push(f, (struct channel_frame){.type = CHANNEL_LEASE, .lease_id = ++f->lease_id, .a = budget_us});
}

/* Takes events until the lease is over; returns how many sequences could be stepped further. */
static uint32_t finish(struct fixture *f)
{
    for (;;) {
        struct channel_frame frame = pull(f);
        assert_int_equal(frame.lease_id, f->lease_id);
        if (frame.type == CHANNEL_DONE) {
            assert_int_equal(frame.status, 0);
            f->inbox_used = 0;
            return frame.b;
        }
        assert_int_equal(frame.type, CHANNEL_PART);
        if (frame.flags & CHANNEL_WAIT) {
            assert_int_equal(frame.request_id, 0);
            push(f, (struct channel_frame){.type = CHANNEL_CREDIT});
            continue;
        }
        struct generation_event event;
        struct error err = {0};
        const char *slot = channel_slot_other(f->host, 0);
        if (generation_event_decode(slot + frame.offset, frame.length, &event, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal((frame.flags & CHANNEL_FINAL) != 0, event.kind == GENERATION_EVENT_END);
        (void)recorder_event(&f->record, frame.request_id, &event);
    }
}

static struct generation greedy(uint32_t max_tokens)
{
    struct generation g = llama_prompt("the abacus", max_tokens);
    g.flags = GENERATION_IGNORE_END;
    return g;
}

#define SECOND_US 1000000u

static void test_one_lease(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(20);
    item(f, 9, &g);
    lease(f, 30 * SECOND_US);
    assert_int_equal(finish(f), 0);
    struct told *t = recorder_of(&f->record, 9);
    assert_true(t->n_ends == 1 && t->n_tokens == 20 && t->finish == GENERATION_LENGTH);
    assert_int_equal(stop(f, true), 1);
}

static void test_many_short_leases(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(20);
    item(f, 9, &g);
    uint32_t leases = 0;
    do {
        lease(f, 1);
        leases++;
    } while (finish(f) > 0);
    struct told *t = recorder_of(&f->record, 9);
    assert_true(t->n_ends == 1 && t->n_tokens == 20);
    assert_true(leases >= 20); /* a step each */
    assert_int_equal(stop(f, true), 1);
}

/* More is told than the outbox holds, with other frames between. */
static void test_outbox_fills(void **state)
{
    (void)state;
    struct fixture *f = start(16 * KIB);
    struct generation g = greedy(60);
    g.flags |= GENERATION_LOGPROBS;
    g.n_top_logprobs = LIMIT_TOP_LOGPROBS;
    item(f, 1, &g);
    item(f, 2, &g);
    lease(f, 30 * SECOND_US);
    item(f, 3, &g);
    item(f, 4, &g);
    push(f, (struct channel_frame){.type = CHANNEL_CANCEL, .request_id = 4});
    assert_int_equal(finish(f), 0);
    for (uint64_t id = 1; id <= 3; id++) {
        struct told *t = recorder_of(&f->record, id);
        assert_true(t->n_ends == 1 && t->n_tokens == 60);
        assert_memory_equal(t->tokens, recorder_of(&f->record, 1)->tokens, 60 * sizeof(int32_t));
    }
    assert_int_equal(recorder_of(&f->record, 4)->n_ends, 0);
    assert_int_equal(stop(f, true), 1);
}

static void test_cancel(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(200);
    for (uint32_t leases = 0; leases < 4; leases++) { /* before any lease, and after some */
        item(f, 100 + leases, &g);
        for (uint32_t i = 0; i < leases; i++) {
            lease(f, 1);
            assert_int_equal(finish(f), 1);
        }
        push(f, (struct channel_frame){.type = CHANNEL_CANCEL, .request_id = 100 + leases});
        push(f, (struct channel_frame){.type = CHANNEL_CANCEL, .request_id = 100 + leases});
        uint32_t before = recorder_of(&f->record, 100 + leases)->n_events;
        lease(f, SECOND_US);
        assert_int_equal(finish(f), 0);
        assert_int_equal(recorder_of(&f->record, 100 + leases)->n_events, before);
    }
    /* In the middle of a lease: it ends soon. */
    item(f, 200, &g);
    g.max_tokens = 400;
    lease(f, 30 * SECOND_US);
    push(f, (struct channel_frame){.type = CHANNEL_CANCEL, .request_id = 200});
    assert_int_equal(finish(f), 0);
    assert_true(recorder_of(&f->record, 200)->n_tokens < 200);
    assert_int_equal(stop(f, true), 1);
}

static void test_park_and_resume(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(30);
    item(f, 1, &g);
    lease(f, 30 * SECOND_US);
    assert_int_equal(finish(f), 0);
    for (uint32_t leases = 0; leases < 3; leases++) {
        uint64_t id = 10 + leases;
        item(f, id, &g);
        for (uint32_t i = 0; i < leases; i++) {
            lease(f, 1);
            assert_int_equal(finish(f), 1);
        }
        push(f, (struct channel_frame){.type = CHANNEL_PARK, .request_id = id});
        push(f, (struct channel_frame){.type = CHANNEL_PARK, .request_id = 77});
        uint32_t before = recorder_of(&f->record, id)->n_events;
        lease(f, SECOND_US);
        assert_int_equal(finish(f), 0);
        assert_int_equal(recorder_of(&f->record, id)->n_events, before);
        push(f, (struct channel_frame){.type = CHANNEL_RESUME, .request_id = id});
        lease(f, 30 * SECOND_US);
        assert_int_equal(finish(f), 0);
        assert_memory_equal(recorder_of(&f->record, id)->tokens, recorder_of(&f->record, 1)->tokens,
                            30 * sizeof(int32_t));
    }
    assert_int_equal(stop(f, true), 1);
}

static void test_what_cannot_be_worked_on_ends_alone(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(3), bad = greedy(3);
    bad.grammar_kind = GENERATION_GBNF;
    bad.grammar = STR("root ::= missing");
    item(f, 1, &g);
    item(f, 2, &bad);
    lease(f, 30 * SECOND_US);
    assert_int_equal(finish(f), 0);
    assert_int_equal(recorder_of(&f->record, 1)->finish, GENERATION_LENGTH);
    assert_int_equal(recorder_of(&f->record, 2)->finish, GENERATION_ERROR);
    assert_int_equal(recorder_of(&f->record, 2)->status, -ERROR_INVALID_REQUEST);
    assert_int_equal(stop(f, true), 1);
}

static void test_broken_frames_end_the_worker(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct fixture *f = start(SLOT_BYTES);
        struct generation g = greedy(3);
        if (i == 0)
            push(f, (struct channel_frame){.type = CHANNEL_ITEM, .request_id = 1, .length = 10});
        if (i == 1)
            item(f, 0, &g);
        for (int k = 0; i == 2 && k < 2; k++)
            item(f, 5, &g);
        if (i == 3)
            lease(f, 0);
        for (int k = 0; i == 4 && k <= 64; k++)
            item(f, (uint64_t)k + 1, &g);
        assert_int_equal(stop(f, false), -ERROR_PEER);
    }
}

/* Another gateway: nothing of the sequences before is left. */
static void test_new_channel(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct generation g = greedy(20);
    struct channel_fds guest;
    item(f, 9, &g);
    lease(f, 1);
    assert_int_equal(finish(f), 1);
    channel_close(f->host);
    channel_make(f, 8, &guest);
    struct bus_channel body = {.epoch = 8,
                               .n_frames = f->geometry.n_frames,
                               .n_slots = 1,
                               .inbox_slot_bytes = SLOT_BYTES,
                               .outbox_slot_bytes = SLOT_BYTES};
    int fds[4] = {guest.inbox, guest.outbox, guest.bell_guest, guest.bell_host};
    assert_true(bus_send(f->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_CHANNEL_GUEST, &body, fds, 4) >= 0);
    channel_fds_close(&guest);
    assert_int_equal(pull(f).type, CHANNEL_OPEN);
    memset(&f->record, 0, sizeof f->record);
    f->inbox_used = 0;
    item(f, 9, &g);
    lease(f, 30 * SECOND_US);
    assert_int_equal(finish(f), 0);
    struct told *t = recorder_of(&f->record, 9);
    assert_true(f->record.n_told == 1 && t->n_ends == 1 && t->n_tokens == 20);
    assert_int_equal(stop(f, true), 1);
}

static void give(struct fixture *f, uint32_t number, uint32_t epoch, const struct llama_model_file *m)
{
    struct bus_adapter_give body = {.bytes = m->size, .number = number, .epoch = epoch};
    int fd;
    assert_int_equal(bus_memfd("adapter", m->data, m->size, &fd), 0);
    assert_int_equal(bus_send(f->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_WORKER_ADAPTER, &body, &fd, 1), 0);
    (void)close(fd);
}

static void told_of(struct fixture *f, uint32_t number, int status)
{
    struct channel_frame frame = pull(f);
    assert_int_equal(frame.type, CHANNEL_ADAPTER);
    assert_int_equal(frame.index, number);
    assert_int_equal(frame.status, status);
    assert_int_equal(frame.a > 0, status == 0);
    llama_kinds[number] = (uint32_t)frame.a;
}

static struct told *adapted(struct fixture *f, uint64_t id, uint32_t number)
{
    struct generation g = greedy(20);
    g.adapter = number;
    item(f, id, &g);
    push(f, (struct channel_frame){
                .type = CHANNEL_LEASE, .lease_id = ++f->lease_id, .a = 30 * SECOND_US, .index = llama_kinds[number]});
    assert_int_equal(finish(f), 0);
    return recorder_of(&f->record, id);
}

static void test_adapters(void **state)
{
    (void)state;
    struct fixture *f = start(SLOT_BYTES);
    struct llama_model_file first = llama_tiny_adapter(3), second = llama_tiny_adapter(4);
    give(f, 3, 7, &first);
    told_of(f, 3, 0);
    give(f, 3, 7, &first);
    uint32_t kind = llama_kinds[3];
    told_of(f, 3, -ERROR_INVALID_ARGUMENT);
    llama_kinds[3] = kind;
    give(f, 4, 7, &f->model); /* a model, not an adapter */
    told_of(f, 4, -ERROR_REFUSED);
    give(f, 5, 6, &second); /* for another gateway: not a word */
    give(f, 6, 7, &second);
    told_of(f, 6, 0);
    assert_int_equal(llama_kinds[6], kind);
    const struct told *base = adapted(f, 1, 0), *a = adapted(f, 2, 3), *b = adapted(f, 3, 6);
    assert_true(base->n_tokens == 20 && a->n_tokens == 20 && b->n_tokens == 20);
    assert_memory_not_equal(a->tokens, base->tokens, 20 * sizeof(int32_t));
    assert_memory_not_equal(a->tokens, b->tokens, 20 * sizeof(int32_t));
    assert_int_equal(adapted(f, 4, 5)->finish, GENERATION_ERROR);
    push(f, (struct channel_frame){.type = CHANNEL_ADAPTER_DROP, .index = 3});
    push(f, (struct channel_frame){.type = CHANNEL_ADAPTER_DROP, .index = 99});
    assert_int_equal(adapted(f, 5, 3)->finish, GENERATION_ERROR);
    assert_int_equal(adapted(f, 6, 6)->n_tokens, 20);
    llama_model_done(&first);
    llama_model_done(&second);
    assert_int_equal(stop(f, true), 1);
}

/* While the worker waits for room to tell more: nothing of the lease is lost, and the adapter is there after it. */
static void test_adapter_in_a_lease(void **state)
{
    (void)state;
    struct fixture *f = start(16 * KIB);
    struct llama_model_file file = llama_tiny_adapter(3);
    struct generation g = greedy(60);
    g.flags |= GENERATION_LOGPROBS;
    g.n_top_logprobs = LIMIT_TOP_LOGPROBS;
    item(f, 1, &g);
    lease(f, 30 * SECOND_US);
    bool given = false;
    for (struct channel_frame frame = {0}; frame.type != CHANNEL_DONE;) {
        frame = pull(f);
        if (!(frame.flags & CHANNEL_WAIT))
            continue;
        if (!given)
            give(f, 3, 7, &file);
        given = true;
        push(f, (struct channel_frame){.type = CHANNEL_CREDIT});
    }
    assert_true(given);
    f->inbox_used = 0;
    told_of(f, 3, 0);
    assert_int_equal(adapted(f, 2, 3)->n_tokens, 20);
    llama_model_done(&file);
    assert_int_equal(stop(f, true), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_lease),
        cmocka_unit_test(test_many_short_leases),
        cmocka_unit_test(test_outbox_fills),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_park_and_resume),
        cmocka_unit_test(test_what_cannot_be_worked_on_ends_alone),
        cmocka_unit_test(test_broken_frames_end_the_worker),
        cmocka_unit_test(test_new_channel),
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_adapter_in_a_lease),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
