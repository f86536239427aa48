/* A tenant with a language model and four adapters of 100 bytes each, whose worker and control a test plays. For tests
 * that include it once. */
#ifndef BULKHEAD_TEST_ADAPTERS_FIXTURE_H
#define BULKHEAD_TEST_ADAPTERS_FIXTURE_H

#include "test/unit/gateway/control_fixture.h"

enum { TENANT = 100, BYTES = 100, SEQUENCES = 4 };

static struct world w;
static struct gateway_version *asking; /* NULL: the owner */
static enum schedule_class asking_class;
static struct {
    struct gateway_request *r; /* NULL: over */
    int code;
    char text[ERROR_TEXT_BYTES_MAX];
    uint32_t n_events, n_ends, n_fails, n_again;
} seen[8];
static bool is_told; /* clients know some of what has come, so that nothing is tried again */
static uint32_t n_seen;

static inline void on_make(struct gateway_request *r, uint32_t index, struct generation *g)
{
    (void)r;
    (void)index;
    generation_init(g, GENERATION_COMPLETION);
    g->prompt = STR("p");
    g->max_tokens = 10;
}

static inline int on_event(struct gateway_request *r, uint32_t index, const struct generation_event *e,
                           struct error *err)
{
    (void)index;
    (void)e;
    (void)err;
    for (uint32_t i = 0; i < n_seen; i++)
        seen[i].n_events += seen[i].r == r;
    return 0;
}

static inline void over(struct gateway_request *r, int code, const struct error *err)
{
    for (uint32_t i = 0; i < n_seen; i++)
        if (seen[i].r == r) {
            seen[i].r = NULL;
            seen[i].code = code;
            seen[i].n_ends += code == 0;
            seen[i].n_fails += code != 0;
            (void)snprintf(seen[i].text, sizeof seen[i].text, "%s", err ? error_text(err, code) : "");
        }
    gateway_answer(r, 200, NULL, NULL, 0, STR("x"));
}

static inline void on_end(struct gateway_request *r)
{
    over(r, 0, NULL);
}

static inline void on_fail(struct gateway_request *r, int code, const struct error *err)
{
    over(r, code, err);
}

static inline bool on_again(struct gateway_request *r)
{
    for (uint32_t i = 0; i < n_seen && !is_told; i++)
        if (seen[i].r == r) {
            seen[i].n_again++;
            seen[i].n_events = 0;
        }
    return !is_told;
}

static const struct gateway_generate ops = {on_make, on_event, on_end, on_fail, on_again};

/* A tenant with a model m and n adapters a0 … of 100 bytes each, uids `uid0` and on; and one with an adapter b0. */
static inline void catalog_give(uint64_t generation, uint64_t uid0, uint32_t n, uint64_t budget)
{
    struct catalog_builder *b = NULL;
    struct catalog_tenant t = {
        .uid = TENANT, .weight = 1, .queue_max = 10, .classes = 2, .adapter_bytes_max = budget, .name = "t"};
    struct catalog_model m = {.uid = 1, .batch_max = 32, .replicas_max = 1, .weight = 1, .class = 1, .name = "m"};
    struct catalog_version v = {.uid = w.f.version->uid, .number = 1, .slots = 1, .level = 2, .engine = "llama"};
    assert_int_equal(catalog_builder_new(generation, &b), 0);
    assert_int_equal(catalog_add_tenant(b, &t), 0);
    t.uid++;
    (void)snprintf(t.name, sizeof t.name, "u");
    assert_int_equal(catalog_add_tenant(b, &t), 1);
    assert_int_equal(catalog_add_model(b, &m), 0);
    assert_int_equal(catalog_add_version(b, &v), 0);
    for (uint32_t i = 0; i < n; i++) {
        struct catalog_adapter a = {.uid = uid0 + i, .bytes = BYTES};
        (void)snprintf(a.name, sizeof a.name, "a%u", i);
        assert_int_equal(catalog_add_adapter(b, &a), (int)i);
    }
    m.uid = 2;
    m.tenant = 1;
    v.uid = w.f.version->uid + 1;
    assert_int_equal(catalog_add_model(b, &m), 1);
    assert_int_equal(catalog_add_version(b, &v), 1);
    assert_int_equal(
        catalog_add_adapter(
            b, &(struct catalog_adapter){.uid = 900, .bytes = BYTES, .tenant = 1, .model = 1, .name = "b0"}),
        (int)n);
    int fd = -1;
    size_t bytes;
    assert_int_equal(catalog_build(b, &fd, &bytes, NULL), 0);
    catalog_builder_free(b);
    catalog_close(w.f.g.catalog);
    w.f.g.catalog = NULL;
    assert_int_equal(catalog_open(fd, bytes, &w.f.g.catalog, NULL), 0);
    close(fd);
    w.f.tenant.generation = w.f.version->generation = w.f.g.stats.generation = generation;
    gateway_adapters_sweep(&w.f.g);
}

static inline int setup_room(uint64_t room, uint64_t budget)
{
    world_init(&w, 1);
    w.f.tenant.uid = TENANT;
    w.f.version->signature->n_inputs = w.f.version->signature->n_outputs = 0;
    w.f.version->batch_max = LIMIT_BATCH_ITEMS;
    w.f.version->signature->token =
        (struct tensor_token_model){TENSOR_TOKEN_ANSWER, 1000, 2000, SEQUENCES, 50, 8, room};
    struct schedule_lease *none;
    schedule_replica_remove(w.f.g.schedule, &w.f.replica->schedule, 1, &none);
    assert_int_equal(gateway_batch_start(w.f.replica), 0);
    asking = NULL;
    asking_class = SCHEDULE_INTERACTIVE;
    w.f.tenant.classes = (1u << SCHEDULE_CLASS_COUNT) - 1;
    memset(seen, 0, sizeof seen);
    n_seen = 0;
    is_told = false;
    catalog_give(1, 500, 4, budget);
    return 0;
}

static inline int setup(void **state)
{
    (void)state;
    return setup_room(10 * BYTES, 2 * BYTES);
}

static inline int teardown(void **state)
{
    (void)state;
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    for (uint32_t i = 0; i < n_seen; i++)
        if (seen[i].r)
            gateway_request_cancel(seen[i].r);
    w.f.g.requests.count = 0; /* those that were cancelled are not answered */
    assert_int_equal(w.f.version->n_held, 0);
    catalog_close(w.f.g.catalog);
    w.f.g.catalog = NULL;
    world_done(&w);
    return 0;
}

/* Returns its place in `seen`. */
static inline uint32_t ask_for_many(const char *adapter, uint64_t uid, uint32_t n)
{
    struct gateway_request *r = gateway_request_new(&w.f.g);
    assert_non_null(r);
    seen[n_seen].r = r;
    r->version = asking ? asking : w.f.version;
    r->version->n_requests++;
    r->version->class = asking_class;
    r->tenant = r->version->tenant;
    r->tenant->n_requests++;
    r->adapter_uid = uid;
    (void)snprintf(r->adapter_name, sizeof r->adapter_name, "%s", adapter);
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    n_seen++;
    gateway_generate(r, n, 1, &ops);
    return n_seen - 1;
}

static inline uint32_t ask_for(const char *adapter, uint64_t uid)
{
    return ask_for_many(adapter, uid, 1);
}

/* --- control and the worker --- */

static struct bus_demand_adapter demanded;
static uint32_t n_demanded, n_dropped, n_dropped_sum, dropped, n_items, n_parked, n_resumed, resumed_under;
static uint64_t lones[8]; /* workers for one request that control was asked for in that turn */
static uint32_t n_lones;
static uint64_t items[8];
static uint32_t item_adapters[8];
static struct channel_frame lease;

/* False: no lease. */
static inline bool turn(void)
{
    struct channel_frame frame;
    struct bus_message m;
    struct error err = {0};
    bool leased = false;
    gateway_dispatch(&w.f.g);
    n_demanded = n_dropped = n_items = n_parked = n_resumed = n_lones = 0;
    while (bus_recv(w.control, BUS_CONTROL, BUS_GATEWAY, &m) > 0) {
        if (m.type == BUS_DEMAND_ADAPTER) {
            demanded = m.body.DEMAND_ADAPTER;
            n_demanded++;
        } else if (m.type == BUS_DEMAND_LONE) {
            lones[n_lones++] = m.body.DEMAND_LONE.replica_uid;
        }
        bus_message_done(&m);
    }
    while (channel_pull(w.f.guest, &frame, &err) == 1) {
        if (frame.type == CHANNEL_ITEM) {
            struct generation g;
            const char *slot = channel_slot_other(w.f.guest, frame.slot);
            assert_int_equal(generation_decode(slot + frame.offset, frame.length, &g, NULL), 0);
            item_adapters[n_items] = g.adapter;
            items[n_items++] = frame.request_id;
        } else if (frame.type == CHANNEL_ADAPTER_DROP) {
            dropped = frame.index;
            n_dropped++;
            n_dropped_sum++;
        } else if (frame.type == CHANNEL_PARK) {
            n_parked++;
        } else if (frame.type == CHANNEL_RESUME) {
            resumed_under = frame.index;
            n_resumed++;
        } else if (frame.type == CHANNEL_LEASE) {
            lease = frame;
            leased = true;
        }
    }
    return leased;
}

static inline void push(const struct channel_frame *frame)
{
    assert_int_equal(channel_push(w.f.guest, frame), 0);
    channel_ring(w.f.guest);
    gateway_replica_pull(w.f.replica);
}

static inline void loaded_of_kind(uint32_t number, uint64_t kind)
{
    push(&(struct channel_frame){.type = CHANNEL_ADAPTER, .index = number, .a = kind});
}

/* Each is of a kind of its own, which has its number. */
static inline void loaded(uint32_t number, int status)
{
    push(&(struct channel_frame){
        .type = CHANNEL_ADAPTER, .index = number, .status = status, .a = status == 0 ? number : 0});
}

static inline void end(uint64_t id, uint32_t left)
{
    struct generation_event e = {
        .kind = GENERATION_EVENT_END, .prompt_tokens = 3, .prompt_done = 3, .finish = GENERATION_STOP};
    size_t size = 0;
    assert_int_equal(generation_event_encode(&e, channel_slot_own(w.f.guest, 0), BODY_BYTES_MAX, &size), 0);
    push(&(struct channel_frame){
        .type = CHANNEL_PART, .flags = CHANNEL_FINAL, .request_id = id, .lease_id = lease.lease_id, .length = size});
    push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 100, .b = left});
}

/* Ends the lease; its sequences go on. */
static inline void lease_over(uint32_t left)
{
    push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 1, .b = left});
}

static inline bool alive(void)
{
    return w.f.replica->state == GATEWAY_REPLICA_READY;
}

/* From the request to its end: what the worker is asked to load and drop. */
static inline void run(const char *adapter, uint64_t uid)
{
    uint32_t i = ask_for(adapter, uid);
    bool leased = turn();
    if (!leased) {
        assert_int_equal(n_demanded, 1);
        assert_int_equal(demanded.adapter_uid, uid);
        assert_int_equal(demanded.epoch, w.f.replica->channel->epoch);
        loaded(demanded.number, 0);
        assert_true(turn());
    }
    assert_int_equal(n_items, 1);
    assert_int_equal(item_adapters[0], lease.index);
    end(items[0], 0);
    assert_null(seen[i].r);
    assert_int_equal(seen[i].code, 0);
}

#endif
