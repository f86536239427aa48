/* The running batch of a language model's replica. Whenever it has something to step, it asks the scheduler for a lease
 * as a request would (a turn); with the lease, sequences that wait get the free places, and the worker steps until the
 * quantum is over. What it tells of them is copied once and checked against what it was given. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

#include <assert.h>
#include <string.h>

/* Events of a sequence in one step, at most (engine/engine.h). */
#define STEP_EVENTS 4u
/* Of one lease: a model that makes ten thousand steps a second, with a full batch, tells 13,000 in a quantum. */
#define LEASE_EVENTS_MAX 65536u
/* A prompt of a million tokens is worked on in pieces of 512, each of which is told. */
#define SILENT_LEASES_MAX 512u
int gateway_batch_start(struct gateway_replica *replica)
{
    struct gateway_batch *b = calloc(1, sizeof *b);
    if (!b)
        return -ERROR_NO_MEMORY;
    b->replica = replica;
    list_init(&b->seats);
    list_init(&b->adapters);
    replica->batch = b;
    gateway_batch_look(b);
    return 0;
}

void gateway_batch_free(struct gateway_replica *replica)
{
    struct gateway_batch *b = take(&replica->batch);
    if (!b)
        return;
    assert(b->n_sequences == 0 && !b->turn && list_empty(&b->seats) && list_empty(&b->adapters));
    list_remove(&b->in_look);
    free(b);
}

/* --- a turn --- */

static uint64_t cache_secret(const struct gateway_request *r, unsigned half)
{
    return hash_bytes(r->gateway->cache_seeds[half], &r->tenant->uid, sizeof r->tenant->uid);
}

static uint64_t events_max(const struct gateway_request *r, const struct generation *g)
{
    uint64_t steps = (uint64_t)r->version->signature->token.context + g->max_tokens;
    return 1024 + STEP_EVENTS * steps + g->n_tokens + g->prompt.size;
}

/* Puts the next generation of a request into the batch: 1; 0: the slot has no room for it now. */
static int sequence_start(struct gateway_batch *b, struct gateway_request *r, struct gateway_worn worn)
{
    struct gateway_replica *replica = b->replica;
    uint64_t room = replica->channel->geometry.inbox_slot_bytes - b->slot_used;
    struct generation g;
    struct error err = {0};
    r->generate->make(r, r->n_started, &g);
    g.cache_secret[0] = cache_secret(r, 0);
    g.cache_secret[1] = cache_secret(r, 1);
    g.adapter = worn.number;
    size_t size = generation_size(&g);
    if (size > room)
        return 0;
    char *slot = channel_slot_own(replica->channel, 0);
    int code = generation_encode(&g, slot + b->slot_used, room, &err);
    if (code < 0)
        return code;
    struct gateway_sequence *s = &b->sequences[b->n_sequences];
    *s = (struct gateway_sequence){
        .request = r,
        .id = ++replica->gateway->request_id_last,
        .index = r->n_started,
        .max_tokens = g.max_tokens,
        .worn = worn,
        .n_events_max = events_max(r, &g),
    };
    struct channel_frame item = {
        .type = CHANNEL_ITEM, .request_id = s->id, .tenant_id = r->tenant->uid, .offset = b->slot_used, .length = size};
    if (channel_push(replica->channel, &item) < 0)
        return -ERROR_PEER;
    b->slot_used += (size + CHANNEL_DATA_ALIGN - 1) & ~(uint64_t)(CHANNEL_DATA_ALIGN - 1);
    b->n_sequences++;
    gateway_places_take(r, s, &g);
    gateway_adapter_used(b, worn.number, true);
    if (r->begun_ns == 0)
        r->begun_ns = uv_hrtime();
    return 1;
}

/* The next that waits gets a place: 1; 0: not now. Whoever cannot have one is out of the way afterwards. */
static int place_fill(struct gateway_batch *b, struct gateway_request *r)
{
    struct error err = {0};
    struct gateway_worn worn;
    int code = gateway_adapter_get(b, r, &worn, &err);
    if (code == 0)
        gateway_adapter_wait(b, r);
    else if (code < 0)
        gateway_generate_fail(r, code, &err);
    if (code <= 0)
        return 1;
    code = b->slot_used < b->replica->channel->geometry.inbox_slot_bytes ? sequence_start(b, r, worn) : 0;
    if (code >= 0 || code == -ERROR_PEER)
        return code;
    gateway_generate_fail(r, -ERROR_INTERNAL, NULL); /* a surface that asks for what cannot be said */
    return 1;
}

/* Free places go to the requests that wait, but not to those of a lower class than the turn's. */
static int places_fill(struct gateway_batch *b, enum schedule_class lowest)
{
    struct gateway_request *r;
    int code = 1;
    while (code > 0 && (r = gateway_places_next(b, lowest)))
        code = place_fill(b, r);
    gateway_adapters_continue(b);
    return code < 0 ? code : 0;
}

/* What those that the running lease steps would have cost if each had been alone: noted whenever that changes. */
static void ran_note(struct gateway_batch *b)
{
    const struct schedule_lease *lease = b->replica->lease;
    if (!lease)
        return;
    uint64_t now_ns = uv_hrtime(), cost_ns = gateway_quota_cost(lease, now_ns - b->ran_until_ns);
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (gateway_is_stepped(b, &b->sequences[i]))
            b->sequences[i].ran_ns += cost_ns;
    b->ran_until_ns = now_ns;
}

static void lease_end(struct gateway_replica *replica, bool again)
{
    gateway_seat_done(replica->batch, take(&replica->lease), again);
}

/* The worker learns who goes on, and who does not. */
static int parks_send(struct gateway_batch *b)
{
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        struct gateway_sequence *s = &b->sequences[i];
        bool parked = gateway_rests(s);
        if (parked == s->told_parked)
            continue;
        struct channel_frame frame = {.type = parked ? CHANNEL_PARK : CHANNEL_RESUME, .request_id = s->id};
        frame.index = parked ? 0 : s->worn.number;
        if (channel_push(b->replica->channel, &frame) < 0)
            return -ERROR_PEER;
        s->told_parked = parked;
    }
    return 0;
}

int gateway_turn_begin(struct gateway_replica *replica, struct schedule_lease *lease)
{
    struct gateway_batch *b = replica->batch;
    b->turn = container_of(lease->requests[0], struct gateway_turn, schedule);
    b->seat = container_of(lease->replica, struct gateway_seat, schedule);
    list_remove(&b->turn->node);
    gateway_seat_turn(b, lease->priority);
    replica->lease = lease;
    replica->started_ns = lease->started_ns;
    replica->n_frames = 0;
    b->n_events = 0;
    b->shared = false;
    b->ran_until_ns = lease->started_ns;
    int code = places_fill(b, lease->priority);
    bool some = gateway_turn_choose(b, lease);
    if (code >= 0 && !some && b->slot_used == 0) { /* they went away meanwhile, or others took the places */
        lease_end(replica, false);
        replica->gateway->look_again = true;
        gateway_replica_rest(replica);
        return 0;
    }
    if (code >= 0)
        code = parks_send(b);
    replica->lease_id = ++replica->gateway->lease_id_last;
    struct channel_frame frame = {.type = CHANNEL_LEASE,
                                  .lease_id = replica->lease_id,
                                  .tenant_id = b->shared ? 0 : b->seat->version->tenant->uid,
                                  .index = b->kind,
                                  .a = LIMIT_QUANTUM_US};
    if (code >= 0)
        code = channel_push(replica->channel, &frame);
    channel_ring(replica->channel);
    replica->sent_ns = uv_hrtime();
    return code < 0 ? -ERROR_PEER : 0;
}

/* --- what the worker says --- */

static struct gateway_sequence *sequence_find(struct gateway_batch *b, uint64_t id)
{
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i].id == id)
            return &b->sequences[i];
    return NULL;
}

static bool was_cancelled(const struct gateway_batch *b, uint64_t id)
{
    for (uint32_t i = 0; i < b->n_cancelled; i++)
        if (b->cancelled[i].id == id)
            return true;
    return false;
}

static void sequence_remove(struct gateway_batch *b, struct gateway_sequence *s)
{
    ran_note(b);
    gateway_quota_learn(s->request->version, s->ran_ns, gateway_places_end(s));
    gateway_share_leave(b, s);
    uint32_t adapter = s->worn.number;
    if (b->replica->lease && gateway_is_stepped(b, s))
        gateway_adapter_stepped(b, adapter);
    *s = b->sequences[--b->n_sequences];
    gateway_adapter_used(b, adapter, false);
}

/* The counts go up and stay within what was asked for; they are what the tenant is charged for. */
static int counts_check(const struct gateway_sequence *s, const struct generation_event *e, struct error *err)
{
    if (e->prompt_tokens < s->prompt_tokens || (s->prompt_tokens > 0 && e->prompt_tokens != s->prompt_tokens) ||
        e->cached_tokens < s->cached_tokens || e->prompt_done < s->prompt_done ||
        e->completion_tokens < s->completion_tokens)
        return error_set(err, ERROR_PEER, "counts of tokens that go back");
    if (e->cached_tokens > e->prompt_tokens || e->prompt_done > e->prompt_tokens)
        return error_set(err, ERROR_PEER, "more tokens of a prompt than it has");
    if (e->completion_tokens > s->max_tokens)
        return error_set(err, ERROR_PEER, "more tokens than were asked for");
    return 0;
}

/* What each is served decides what it pays. */
static void served_count(struct gateway_batch *b, const struct gateway_sequence *s, const struct generation_event *e)
{
    uint32_t before = s->prompt_done > s->cached_tokens ? s->prompt_done - s->cached_tokens : 0;
    uint32_t after = e->prompt_done > e->cached_tokens ? e->prompt_done - e->cached_tokens : 0;
    uint64_t served = (after > before ? after - before : 0) * (uint64_t)SCHEDULE_TOKEN_INPUT +
                      (e->completion_tokens - s->completion_tokens) * (uint64_t)SCHEDULE_TOKEN_OUTPUT;
    gateway_share_add(b, s->request, served);
}

/* What a lost try has cost already costs nothing. */
static void tokens_pay(struct gateway_request *r, uint64_t tokens)
{
    uint64_t paid = tokens < r->tokens_free ? tokens : r->tokens_free;
    r->tokens_free -= paid;
    r->tokens_paid += tokens - paid;
    if (tokens > paid)
        gateway_quota_spend(r, SCHEDULE_TOKENS, tokens - paid);
}

/* False: the answer goes beyond what may be used; that of it is neither charged nor told. A prompt is charged when it
 * is known, and once for all its choices. */
static bool counts_take(struct gateway_batch *b, struct gateway_sequence *s, const struct generation_event *e)
{
    struct gateway_request *r = s->request;
    uint32_t prompt = e->prompt_tokens - s->prompt_tokens, answer = e->completion_tokens - s->completion_tokens;
    if (prompt > 0 && s->index % r->n_choices == 0)
        tokens_pay(r, prompt);
    served_count(b, s, e);
    gateway_places_told(s, e);
    s->prompt_tokens = e->prompt_tokens;
    s->cached_tokens = e->cached_tokens;
    s->prompt_done = e->prompt_done;
    if (answer > r->tokens_free && !gateway_quota_fits(r, SCHEDULE_TOKENS, answer - r->tokens_free))
        return false;
    tokens_pay(r, answer);
    s->completion_tokens = e->completion_tokens;
    return true;
}

static int on_event(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway_batch *b = replica->batch;
    if (!replica->lease || f->lease_id != replica->lease_id || f->request_id == 0)
        return error_set(err, ERROR_PEER, "an event outside of a lease");
    if (f->length > LIMIT_EVENT_BYTES || ++b->n_events > LEASE_EVENTS_MAX)
        return error_set(err, ERROR_PEER, "an event that is too long, or too many");
    memcpy(b->event, (const char *)channel_slot_other(replica->channel, f->slot) + f->offset, f->length);
    struct generation_event e;
    struct gateway_sequence *s = sequence_find(b, f->request_id);
    int code = generation_event_decode(b->event, f->length, &e, err);
    if (code < 0)
        return code;
    if (!s && !was_cancelled(b, f->request_id))
        return error_set(err, ERROR_PEER, "an event of a request that it does not hold");
    bool last = e.kind == GENERATION_EVENT_END;
    if (last != ((f->flags & CHANNEL_FINAL) != 0))
        return error_set(err, ERROR_PEER, "an end that is none");
    if (!s)
        return 0;
    code = counts_check(s, &e, err);
    if (code < 0)
        return code;
    if (++s->n_events > s->n_events_max)
        return error_set(err, ERROR_PEER, "more events than its steps can give");
    struct gateway_request *r = s->request;
    uint32_t index = s->index;
    if (!counts_take(b, s, &e)) {
        gateway_generate_cut(r);
        return 0;
    }
    if (last)
        sequence_remove(b, s);
    gateway_generate_event(r, index, &e);
    return 0;
}

static int on_part(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    if (!(f->flags & CHANNEL_WAIT))
        return on_event(replica, f, err);
    if (!replica->lease || f->lease_id != replica->lease_id || f->request_id != 0 || f->length != 0)
        return error_set(err, ERROR_PEER, "a wait outside of a lease, or with an event");
    struct channel_frame credit = {.type = CHANNEL_CREDIT, .slot = f->slot, .lease_id = f->lease_id};
    int code = channel_push(replica->channel, &credit);
    channel_ring(replica->channel);
    return code < 0 ? error_set(err, ERROR_PEER, "it takes no frames") : 0;
}

/* Requests whose sequences the batch has lost. Each is failed whole, which takes others of its sequences out too. */
static void sequences_fail(struct gateway_batch *b, int code, const struct error *err)
{
    while (b->n_sequences > 0) {
        struct gateway_request *r = b->sequences[b->n_sequences - 1].request;
        gateway_generate_fail(r, code, err);
    }
}

static void cancelled_forget(struct gateway_batch *b, uint64_t lease_id)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_cancelled; i++)
        if (b->cancelled[i].lease_id >= lease_id)
            b->cancelled[n++] = b->cancelled[i];
    b->n_cancelled = n;
}

static int on_done(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway *g = replica->gateway;
    struct gateway_batch *b = replica->batch;
    struct schedule_lease *lease = replica->lease;
    if (!lease || f->lease_id != replica->lease_id)
        return error_set(err, ERROR_PEER, "the end of a lease it does not hold");
    b->n_silent = b->n_events > 0 || gateway_sequences_stepped(b) == 0 ? 0 : b->n_silent + 1;
    if (f->status >= 0 &&
        (b->n_silent > SILENT_LEASES_MAX || (b->n_events == 0 && f->b == 0 && gateway_sequences_stepped(b))))
        return error_set(err, ERROR_PEER, "the end of a lease in which it did nothing");
    g->stats.leases++;
    uint64_t took_ns = uv_hrtime() - lease->started_ns;
    g->stats.lease_ns += took_ns;
    ran_note(b);
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (gateway_is_stepped(b, &b->sequences[i]))
            gateway_adapter_stepped(b, b->sequences[i].worn.number);
    cancelled_forget(b, replica->lease_id);
    gateway_replica_rest(replica);
    replica->version->idle_since_ns = uv_hrtime();
    b->slot_used = 0; /* the worker has copied what was in the slot */
    lease_end(replica, true);
    if (f->status < 0) {
        struct error failure = {0};
        (void)error_set_default(&failure, ERROR_ENGINE);
        sequences_fail(b, -ERROR_ENGINE, &failure);
        b->n_cancelled = 0;
    }
    return 0;
}

int gateway_turn_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    return f->type == CHANNEL_PART ? on_part(replica, f, err) : on_done(replica, f, err);
}

void gateway_batch_lost(struct gateway_replica *replica, const struct error *err, enum gateway_again again)
{
    struct gateway_batch *b = replica->batch;
    const struct gateway_version *hung =
        again == GATEWAY_AGAIN_OTHERS && replica->lease && !b->shared ? b->seat->version : NULL;
    if (replica->lease)
        gateway_shares_lost(b, replica->lease);
    replica->lease = NULL;
    gateway_seats_lost(b);
    while (again != GATEWAY_AGAIN_NEVER && b->n_sequences > 0) { /* takes all of its sequences out, as failing does */
        struct gateway_request *r = b->sequences[b->n_sequences - 1].request;
        if (r->version == hung || gateway_lone_generate(r) < 0)
            gateway_generate_fail(r, err->code, err);
    }
    sequences_fail(b, err->code, err);
    gateway_adapters_lost(b);
}

/* --- what the gateway says --- */

/* Calls `each` for every sequence of the request, wherever it runs; it may remove it. */
static void sequences_each(struct gateway_request *r, void (*each)(struct gateway_batch *b, struct gateway_sequence *s))
{
    list_each(node, &gateway_version_host(r->version)->replicas)
    {
        struct gateway_batch *b = container_of(node, struct gateway_replica, in_version)->batch;
        for (uint32_t i = b ? b->n_sequences : 0; i-- > 0;)
            if (b->sequences[i].request == r)
                each(b, &b->sequences[i]);
        if (b)
            gateway_batch_look(b);
    }
}

/* A worker that takes no frames is found out by its lease, which does not end. */
static void tell(struct gateway_batch *b, enum channel_frame_type type, uint64_t id)
{
    struct gateway_replica *replica = b->replica;
    struct channel_frame frame = {.type = (uint8_t)type, .request_id = id, .lease_id = replica->lease_id};
    if (replica->channel && channel_push(replica->channel, &frame) == 0)
        channel_ring(replica->channel);
}

static void sequence_cancel(struct gateway_batch *b, struct gateway_sequence *s)
{
    tell(b, CHANNEL_CANCEL, s->id);
    if (b->n_cancelled < sizeof b->cancelled / sizeof b->cancelled[0])
        b->cancelled[b->n_cancelled++] =
            (struct gateway_cancelled){.id = s->id, .lease_id = b->replica->lease ? b->replica->lease_id : 0};
    sequence_remove(b, s);
}

static void park_tell(struct gateway_batch *b, struct gateway_sequence *s)
{
    if (!s->told_parked)
        tell(b, CHANNEL_PARK, s->id);
    s->told_parked = true;
}

static void sequence_park(struct gateway_batch *b, struct gateway_sequence *s)
{
    if (s->parked)
        return;
    ran_note(b);
    s->parked = true;
    park_tell(b, s);
}

static void sequence_resume(struct gateway_batch *b, struct gateway_sequence *s)
{
    (void)b;
    s->parked = false;
}

void gateway_batch_yield(struct gateway_batch *b)
{
    uint32_t top = b->replica->lease ? gateway_class_top(b) : SCHEDULE_CLASS_COUNT;
    if (top >= b->class_top)
        return;
    b->class_top = top;
    ran_note(b);
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        struct gateway_sequence *s = &b->sequences[i];
        if ((uint32_t)s->request->schedule.priority <= top || s->yields)
            continue;
        s->yields = true;
        park_tell(b, s);
    }
}

void gateway_sequences_lift(struct gateway_batch *b, uint32_t number)
{
    ran_note(b);
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        struct gateway_sequence *s = &b->sequences[i];
        if (s->worn.number != number)
            continue;
        s->lifted = true;
        park_tell(b, s);
    }
}

struct gateway_request *gateway_lifted_first(const struct gateway_batch *b, uint64_t adapter_uid)
{
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i].lifted && b->sequences[i].request->adapter_uid == adapter_uid)
            return b->sequences[i].request;
    return NULL;
}

uint32_t gateway_lifted_return(struct gateway_batch *b, uint64_t adapter_uid, struct gateway_worn worn)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        struct gateway_sequence *s = &b->sequences[i];
        if (!s->lifted || s->request->adapter_uid != adapter_uid)
            continue;
        s->lifted = false; /* the worker learns the number with the word that it goes on */
        s->worn = worn;
        n++;
    }
    return n;
}

void gateway_batches_park(struct gateway_request *r, bool parked)
{
    sequences_each(r, parked ? sequence_park : sequence_resume);
}

void gateway_batches_cancel(struct gateway_request *r)
{
    sequences_each(r, sequence_cancel);
}

bool gateway_batches_take(struct gateway_request *r, struct gateway_sequence *ret_sequence)
{
    list_each(node, &gateway_version_host(r->version)->replicas)
    {
        struct gateway_batch *b = container_of(node, struct gateway_replica, in_version)->batch;
        for (uint32_t i = 0; b && i < b->n_sequences; i++)
            if (b->sequences[i].request == r) {
                *ret_sequence = b->sequences[i];
                sequence_cancel(b, &b->sequences[i]);
                gateway_batch_look(b);
                return true;
            }
    }
    return false;
}
