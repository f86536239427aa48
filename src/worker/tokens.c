/* The worker's side of a language model: sequences come as ITEMs and live over many leases; a lease is the right to
 * step them for a while. See channel.h for what each frame means. */
#include "worker/worker_internal.h"

#include "base/clock.h"

#include <string.h>

static uint64_t align_up(uint64_t value)
{
    return (value + CHANNEL_DATA_ALIGN - 1) & ~(uint64_t)(CHANNEL_DATA_ALIGN - 1);
}

/* --- frames --- */

/* A sequence that the engine did not take, told of in the next lease. */
static int refused_keep(struct worker *w, uint64_t request_id, int status, const struct error *err)
{
    struct worker_tokens *t = &w->tokens;
    if (t->n_refused == LIMIT_SEQUENCES)
        return -ERROR_PEER;
    struct worker_refused *refused = &t->refused[t->n_refused++];
    refused->request_id = request_id;
    refused->err = *err;
    refused->err.code = status;
    return 0;
}

static int item_take(struct worker *w, const struct channel_frame *f)
{
    struct generation g;
    struct error err = {0};
    const char *slot = channel_slot_other(w->channel, f->slot);
    if (generation_decode(slot + f->offset, f->length, &g, &err) < 0 || f->request_id == 0)
        return -ERROR_PEER;
    int r = w->ops->token_submit(w->engine, f->request_id, f->tenant_id, &g, &err);
    if (r == -ERROR_AGAIN || r == -ERROR_INVALID_ARGUMENT)
        return -ERROR_PEER; /* more than the signature says, or an id twice */
    w->items++;
    return r < 0 ? refused_keep(w, f->request_id, r, &err) : 0;
}

static void refused_drop(struct worker *w, uint64_t request_id)
{
    struct worker_tokens *t = &w->tokens;
    for (uint32_t i = 0; i < t->n_refused; i++)
        if (t->refused[i].request_id == request_id)
            t->refused[i--] = t->refused[--t->n_refused];
}

int worker_tokens_frame(struct worker *w, const struct channel_frame *f)
{
    switch ((enum channel_frame_type)f->type) {
    case CHANNEL_ITEM:
        return item_take(w, f);
    case CHANNEL_CANCEL:
        if (f->request_id == 0)
            return -ERROR_PEER;
        refused_drop(w, f->request_id);
        w->ops->cancel(w->engine, f->request_id);
        return 0;
    case CHANNEL_PARK: /* an unknown id: its END may be on its way */
        (void)w->ops->park(w->engine, f->request_id, NULL);
        return 0;
    case CHANNEL_RESUME:
        (void)w->ops->resume(w->engine, f->request_id, f->index, NULL);
        return 0;
    case CHANNEL_CREDIT: /* of a slot that its lease's end has freed already */
        return 0;
    case CHANNEL_ADAPTER_DROP:
        if (f->index == 0)
            return -ERROR_PEER;
        worker_adapters_drop(w, f->index);
        return 0;
    case CHANNEL_NONE:
    case CHANNEL_OPEN:
    case CHANNEL_LOAD:
    case CHANNEL_UNLOAD:
    case CHANNEL_LEASE:
    case CHANNEL_PART:
    case CHANNEL_DONE:
    case CHANNEL_STATS:
    case CHANNEL_ADAPTER:
    case CHANNEL_BLOCKED:
    case CHANNEL_TYPE_COUNT:
        break;
    }
    return -ERROR_PEER;
}

void worker_tokens_reset(struct worker *w)
{
    w->tokens.n_refused = 0;
    if (w->engine && w->ops->token_step)
        w->ops->cancel(w->engine, 0);
}

/* --- events --- */

/* In the middle of a step: what else comes than CREDIT is put aside until the step is over. */
static int credit_wait(struct worker *w)
{
    struct worker_tokens *t = &w->tokens;
    struct channel_frame frame = {.type = CHANNEL_PART,
                                  .flags = CHANNEL_WAIT,
                                  .slot = t->lease.slot,
                                  .lease_id = t->lease.lease_id,
                                  .offset = t->out_used};
    int r = worker_push(w, &frame);
    while (r >= 0) {
        r = channel_pull(w->channel, &frame, NULL);
        if (r == 0) {
            r = worker_wait(w);
            r = r == 0 ? -ERROR_GONE : r; /* a new channel: this lease is lost */
        } else if (r > 0 && frame.type == CHANNEL_CREDIT) {
            t->out_used = 0;
            return 0;
        } else if (r > 0) {
            if (t->n_deferred == LIMIT_CHANNEL_FRAMES)
                return -ERROR_PEER;
            t->deferred[t->n_deferred++] = frame;
        }
    }
    return r;
}

static int on_event(void *ctx, uint64_t request_id, const struct generation_event *event)
{
    struct worker *w = ctx;
    struct worker_tokens *t = &w->tokens;
    uint64_t slot_bytes = w->channel->geometry.outbox_slot_bytes;
    size_t size = generation_event_size(event);
    if (align_up(t->out_used) + size > slot_bytes) {
        t->result = size > slot_bytes ? -ERROR_LIMIT : credit_wait(w);
        if (t->result < 0)
            return 1;
    }
    uint64_t start = align_up(t->out_used);
    char *slot = channel_slot_own(w->channel, t->lease.slot);
    t->result = generation_event_encode(event, slot + start, slot_bytes - start, &size);
    if (t->result < 0)
        return 1;
    t->out_used = start + size;
    struct channel_frame frame = {
        .type = CHANNEL_PART,
        .flags = event->kind == GENERATION_EVENT_END ? CHANNEL_FINAL : 0,
        .slot = t->lease.slot,
        .lease_id = t->lease.lease_id,
        .request_id = request_id,
        .offset = start,
        .length = size,
    };
    t->result = worker_push(w, &frame);
    t->unrung = true;
    return t->result < 0;
}

/* Before each step but the first: what the last one gave goes out, and what came in is taken first. */
static bool on_more(void *ctx)
{
    struct worker *w = ctx;
    if (w->tokens.unrung)
        channel_ring(w->channel);
    w->tokens.unrung = false;
    return !channel_pending(w->channel) && w->tokens.n_deferred == 0;
}

static int refused_tell(struct worker *w)
{
    struct worker_tokens *t = &w->tokens;
    int r = 0;
    while (r == 0 && t->n_refused > 0) {
        const struct worker_refused *refused = &t->refused[--t->n_refused];
        struct generation_event event = {.kind = GENERATION_EVENT_END,
                                         .finish = GENERATION_ERROR,
                                         .status = refused->err.code,
                                         .text = str_from(error_text(&refused->err, refused->err.code))};
        r = on_event(w, refused->request_id, &event);
    }
    return r == 0 ? 0 : w->tokens.result;
}

/* --- a lease --- */

static int frames_take(struct worker *w)
{
    struct worker_tokens *t = &w->tokens;
    struct channel_frame frame;
    int r = 0;
    for (uint32_t i = 0; i < t->n_deferred && r >= 0; i++)
        r = worker_tokens_frame(w, &t->deferred[i]);
    t->n_deferred = 0;
    while (r >= 0 && (r = channel_pull(w->channel, &frame, NULL)) > 0)
        r = worker_tokens_frame(w, &frame);
    return r;
}

static int done_push(struct worker *w, int status, const struct error *err, uint64_t took_ns, uint32_t left)
{
    struct worker_tokens *t = &w->tokens;
    struct channel_frame frame = {
        .type = CHANNEL_DONE,
        .slot = t->lease.slot,
        .lease_id = t->lease.lease_id,
        .status = status,
        .a = took_ns / NS_PER_US > UINT32_MAX ? UINT32_MAX : (uint32_t)(took_ns / NS_PER_US),
        .b = left,
    };
    if (status < 0) { /* behind the events, which count all the same */
        const char *text = error_text(err, status);
        frame.length = strlen(text);
        if (align_up(t->out_used) + frame.length > w->channel->geometry.outbox_slot_bytes) {
            int r = credit_wait(w);
            if (r < 0)
                return r;
        }
        frame.offset = align_up(t->out_used);
        memcpy((char *)channel_slot_own(w->channel, t->lease.slot) + frame.offset, text, frame.length);
    }
    int r = worker_blocked_tell(w);
    if (r >= 0)
        r = worker_push(w, &frame);
    channel_ring(w->channel);
    return r;
}

int worker_tokens_lease(struct worker *w, const struct channel_frame *f)
{
    struct worker_tokens *t = &w->tokens;
    if (f->a == 0 || f->b != 0 || f->length != 0)
        return -ERROR_PEER;
    /* Under load the worker never waits, so an adapter that has come would wait for ever. */
    int r = w->has_next ? 0 : worker_bus_look(w);
    if (r == 1)
        r = worker_adapters_load(w);
    if (r < 0)
        return r;
    t->lease = *f;
    t->out_used = 0;
    t->result = 0;
    t->unrung = false;
    w->rest_ms = 0;
    uint64_t start_ns = clock_monotonic_ns(), budget_ns = f->a * NS_PER_US, took_ns = 0;
    struct engine_turn turn = {.tenant_id = f->tenant_id, .kind = f->index};
    struct engine_token_sink sink = {.ctx = w, .event = on_event, .more = on_more};
    struct error err = {0};
    int left = 0;
    do {
        r = frames_take(w);
        if (r >= 0)
            r = refused_tell(w);
        if (r < 0)
            return r;
        turn.budget_ns = budget_ns - took_ns;
        left = w->ops->token_step(w->engine, &turn, &sink, &err);
        if (t->result < 0) /* the sink's: the channel cannot go on */
            return t->result;
        (void)on_more(w); /* rings */
        took_ns = clock_monotonic_ns() - start_ns;
    } while (left > 0 && turn.ret_left > 0 && took_ns < budget_ns);
    r = frames_take(w);
    if (r < 0)
        return r;
    w->steps++;
    w->rest_ms = w->ops->rest ? LIMIT_REST_MS : 0;
    return done_push(w, left < 0 ? left : 0, &err, took_ns, left < 0 ? 0 : (uint32_t)left);
}
