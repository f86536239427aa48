/* Replicas: take the channel, load the model, serve, let go. Whatever a worker does wrong costs it its life and nobody
 * else anything. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* After a failed start requests are refused for so long; control's own back-off is what paces the next start. */
#define REFUSE_MS 1000u
/* A demand that was not followed by a replica for so long is sent again. Control forgets what was demanded when a
 * replica ends unasked; our demand after that end may reach it first. */
#define DEMAND_AGAIN_MS 2000u
/* Of one lease. An honest worker sends two for each output (the second only where the slot was nearly full), as many
 * for the slots that it fills, what it was refused, and DONE. More would hold the loop for as long as the worker cares
 * to write. */
#define LEASE_FRAMES_MAX (4 * LIMIT_TENSORS + 64 + LIMIT_BLOCKED_CALLS)
#define LEVEL_SHARED     1u /* enum isolate_level */

#define BATCH_FRAMES_AT_ONCE 256u

static const bool moves[GATEWAY_REPLICA_STATE_COUNT][GATEWAY_REPLICA_STATE_COUNT] = {
    [GATEWAY_REPLICA_ANNOUNCED] = {[GATEWAY_REPLICA_OPENING] = true, [GATEWAY_REPLICA_GONE] = true},
    [GATEWAY_REPLICA_OPENING] = {[GATEWAY_REPLICA_LOADING] = true, [GATEWAY_REPLICA_GONE] = true},
    [GATEWAY_REPLICA_LOADING] = {[GATEWAY_REPLICA_READY] = true, [GATEWAY_REPLICA_GONE] = true},
    [GATEWAY_REPLICA_READY] = {[GATEWAY_REPLICA_DRAINING] = true, [GATEWAY_REPLICA_GONE] = true},
    [GATEWAY_REPLICA_DRAINING] = {[GATEWAY_REPLICA_GONE] = true},
};

static void state_set(struct gateway_replica *replica, enum gateway_replica_state state)
{
    assert(moves[replica->state][state]);
    replica->state = state;
}

/* --- birth and death --- */

static void version_attach(struct gateway_replica *replica)
{
    if (replica->version || replica->tenant_uid == 0) /* whose it is, its first STATE says */
        return;
    struct gateway_version *v = gateway_version_of_uid(replica->gateway, replica->version_uid, replica->tenant_uid);
    if (!v)
        return;
    replica->version = v;
    list_append(&v->replicas, &replica->in_version);
    v->n_replicas++;
}

static struct gateway_replica *replica_get(struct gateway *g, uint64_t uid, uint64_t version_uid, uint64_t tenant_uid)
{
    struct gateway_replica *replica = map_get(&g->replicas, uid);
    if (!replica) {
        replica = calloc(1, sizeof *replica);
        if (!replica || map_put(&g->replicas, uid, replica) < 0) {
            free(replica);
            return NULL;
        }
        replica->gateway = g;
        replica->uid = uid;
        replica->version_uid = version_uid;
        replica->state = GATEWAY_REPLICA_ANNOUNCED;
        struct gateway_lone *lone = gateway_lone_of(g, uid);
        if (lone)
            gateway_lone_take(lone, replica);
    }
    if (replica->tenant_uid == 0)
        replica->tenant_uid = tenant_uid;
    version_attach(replica);
    return replica;
}

static void bell_closed(uv_handle_t *handle)
{
    free(handle);
}

static void channel_drop(struct gateway_replica *replica)
{
    if (replica->bell)
        uv_close((uv_handle_t *)replica->bell, bell_closed);
    replica->bell = NULL;
    channel_close(replica->channel);
    replica->channel = NULL;
    list_remove(&replica->in_busy);
}

/* Out of the scheduler and off the channel; what it was running is lost, or tried again. */
static void replica_leave(struct gateway_replica *replica, const struct error *err, enum gateway_again again)
{
    struct gateway *g = replica->gateway;
    gateway_blocked_tell(replica);
    bool scheduled = replica->state == GATEWAY_REPLICA_READY || replica->state == GATEWAY_REPLICA_DRAINING;
    state_set(replica, GATEWAY_REPLICA_GONE);
    struct schedule_lease *lease = NULL;
    if (replica->batch)
        gateway_batch_lost(replica, err, again);
    if (scheduled && replica->schedule.target)
        schedule_replica_remove(g->schedule, &replica->schedule, uv_hrtime(), &lease);
    if (lease)
        gateway_lease_lost(replica, lease, err, again == GATEWAY_AGAIN_ALL);
    channel_drop(replica);
}

static void replica_free(struct gateway_replica *replica)
{
    struct gateway_version *v = replica->version;
    gateway_batch_free(replica);
    for (uint32_t i = 0; i < LIMIT_TENSORS; i++)
        free(replica->outputs[i].copy);
    (void)map_remove(&replica->gateway->replicas, replica->uid);
    list_remove(&replica->in_version);
    if (v && !replica->lone) {
        v->n_replicas--;
        v->demanded = v->demanded > v->n_replicas ? v->n_replicas : v->demanded;
    }
    free(replica);
    if (v)
        gateway_version_release(v);
}

void gateway_replica_kill(struct gateway_replica *replica, enum bus_stop_reason reason)
{
    struct bus_replica body = {.replica_uid = replica->uid, .reason = reason};
    if (replica->state == GATEWAY_REPLICA_GONE)
        return;
    struct error err = {0};
    (void)error_set_default(&err, ERROR_WORKER_LOST);
    /* A lease without end is its model's own doing. A broken channel in a shared worker may be anybody's there. */
    bool shared = replica->level == LEVEL_SHARED;
    replica_leave(replica, &err,
                  shared && reason == BUS_STOP_PROTOCOL  ? GATEWAY_AGAIN_ALL
                  : shared && reason == BUS_STOP_OVERDUE ? GATEWAY_AGAIN_OTHERS
                                                         : GATEWAY_AGAIN_NEVER);
    (void)bus_conn_send(replica->gateway->supervisor, BUS_REPLICA_STOP, &body, NULL, 0); /* without it we end anyway */
}

static void protocol_broken(struct gateway_replica *replica, const char *what)
{
    log_warn("worker_protocol", "tenant=%s model=%s: the worker sent %s",
             replica->version ? replica->version->tenant->name : "?", replica->version ? replica->version->model : "?",
             what);
    gateway_replica_kill(replica, BUS_STOP_PROTOCOL);
}

/* --- start --- */

/* A payload comes in pieces as small as the other end's buffers; less than this on average is a guest that rings for
 * the sake of it. */
#define STREAM_BYTES_PER_RING 256u

static void on_bell(uv_poll_t *poll, int status, int events)
{
    struct gateway_replica *replica = poll->data;
    (void)status;
    (void)events;
    channel_awake(replica->channel);
    gateway_replica_pull(replica);
    struct channel *c = replica->channel;
    /* Each ring follows a frame, and at most a ring full of them was taken before its bell was heard. */
    if (c && ++replica->n_rings > replica->n_taken + c->geometry.n_frames + c->stream_bytes / STREAM_BYTES_PER_RING)
        protocol_broken(replica, "bells without frames");
    if (replica->channel)
        gateway_replica_listen(replica);
}

void gateway_replica_listen(struct gateway_replica *replica)
{
    short wanted = channel_wants(replica->channel);
    if (!replica->bell || wanted == replica->bell_events)
        return;
    replica->bell_events = wanted;
    if (wanted == 0)
        (void)uv_poll_stop(replica->bell); /* cannot fail for an open handle */
    else
        (void)uv_poll_start(replica->bell, UV_READABLE | (wanted & POLLOUT ? UV_WRITABLE : 0), on_bell);
}

static int channel_take(struct gateway_replica *replica, const struct bus_channel *body, struct bus_message *m,
                        struct error *err)
{
    struct channel_geometry geometry = {body->n_frames, body->n_slots, body->inbox_slot_bytes, body->outbox_slot_bytes};
    int code;
    if (m->type == BUS_CHANNEL_STREAM) {
        code = channel_stream_open(true, &geometry, body->epoch, body->nonce, &m->fds[0], &replica->channel, err);
    } else {
        struct channel_fds fds = {m->fds[0], m->fds[1], m->fds[2], m->fds[3]};
        code = channel_shm_open(true, &geometry, body->epoch, &fds, &replica->channel, err);
        for (uint32_t i = 0; code >= 0 && i < 4; i++)
            m->fds[i] = -1;
    }
    if (code < 0)
        return code;
    replica->bell = calloc(1, sizeof *replica->bell);
    if (!replica->bell || uv_poll_init(&replica->gateway->loop, replica->bell, replica->channel->bell) < 0) {
        free(replica->bell);
        replica->bell = NULL;
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    replica->bell->data = replica;
    replica->bell_events = 0;
    gateway_replica_listen(replica);
    return 0;
}

void gateway_replica_channel(struct gateway *g, const struct bus_channel *body, struct bus_message *m)
{
    struct gateway_replica *replica = replica_get(g, body->replica_uid, body->version_uid, 0);
    struct bus_channel_sealed answer = {.replica_uid = body->replica_uid, .epoch = body->epoch};
    struct error err = {0};
    if (!replica || replica->state != GATEWAY_REPLICA_ANNOUNCED) {
        answer.status = -ERROR_CONFLICT;
    } else {
        answer.status = channel_take(replica, body, m, &err);
        if (answer.status < 0)
            log_error("channel_failed", "%s", error_text(&err, answer.status));
    }
    if (answer.status >= 0) {
        state_set(replica, GATEWAY_REPLICA_OPENING);
        replica->start_limit_ns = uv_hrtime() + LIMIT_REPLICA_START_MS * NS_PER_MS;
        list_append(&g->busy, &replica->in_busy);
    }
    (void)bus_conn_send(g->supervisor, BUS_CHANNEL_SEALED, &answer, NULL, 0); /* without it we end anyway */
}

static void loaded_tell(struct gateway_replica *replica, const struct error *err)
{
    struct bus_replica_loaded body = {.replica_uid = replica->uid, .version_uid = replica->version_uid};
    if (err)
        body.error = *err;
    (void)bus_conn_send(replica->gateway->control, BUS_REPLICA_LOADED, &body, NULL,
                        0); /* a new control is told again */
}

/* Those who wait for the version, and for those that it hosts. */
static void all_fail(struct gateway_version *v, int code, const struct error *err)
{
    v->n_held++;
    gateway_version_fail(v, code, err);
    list_each_safe(node, &v->guests)
        gateway_version_fail(container_of(node, struct gateway_version, in_guests), code, err);
    v->n_held--;
}

static void version_refuse(struct gateway_version *v, const char *text, uint32_t ms)
{
    (void)error_set(&v->refusal, ERROR_MODEL_UNAVAILABLE, "%s", text);
    v->refused_until_ns = uv_hrtime() + ms * NS_PER_MS;
    v->refusal.retry_after_ms = ms;
    struct error refusal = v->refusal;
    all_fail(v, ERROR_MODEL_UNAVAILABLE, &refusal);
}

/* Requests that waited for the signature go on. */
static void version_continue(struct gateway_version *v)
{
    struct list ready;
    list_init(&ready);
    v->n_requests++;
    for (struct list *node; (node = list_first(&v->waiting));) {
        list_remove(node);
        list_append(&ready, node);
    }
    uint64_t now_ns = uv_hrtime();
    for (struct list *node; (node = list_first(&ready));) {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        list_remove(node);
        r->tenant->n_waiting--;
        gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
        if (r->deadline_ns <= now_ns) /* housekeeping looks four times a second only */
            gateway_fail(r, ERROR_DEADLINE, NULL);
        else
            r->next(r, v->signature);
    }
    v->n_requests--;
}

static void waiting_continue(struct gateway_version *v)
{
    v->n_held++;
    version_continue(v);
    list_each_safe(node, &v->guests)
    {
        struct gateway_version *guest = container_of(node, struct gateway_version, in_guests);
        if (gateway_version_signature_copy(guest) == 0)
            version_continue(guest);
    }
    v->n_held--;
}

static int signature_take(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway_version *v = replica->version;
    if (f->length > TENSOR_SIGNATURE_BYTES_MAX)
        return error_set(err, ERROR_PEER, "a signature that is too long");
    char *copy = malloc(f->length + 1);
    struct tensor_signature *s = malloc(sizeof *s);
    int code = copy && s ? 0 : error_set_default(err, ERROR_NO_MEMORY);
    if (code >= 0) {
        memcpy(copy, (const char *)channel_slot_other(replica->channel, f->slot) + f->offset, f->length);
        code = tensor_signature_decode(copy, f->length, s, err);
    }
    free(copy);
    if (code < 0 || v->signature) { /* replicas of one version run the same bytes: the first word counts */
        free(s);
        return code;
    }
    v->signature = s;
    v->shapes_fixed = true;
    for (uint32_t i = 0; i < s->n_inputs; i++)
        for (uint32_t d = 1; d < s->inputs[i].shape.rank; d++)
            v->shapes_fixed = v->shapes_fixed && s->inputs[i].shape.dims[d] >= 0;
    return 0;
}

static int on_loaded(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway_version *v = replica->version;
    if (replica->state != GATEWAY_REPLICA_LOADING || !v)
        return error_set(err, ERROR_PEER, "an answer to no question");
    if (f->status < 0) {
        char text[ERROR_TEXT_BYTES_MAX / 2];
        size_t size = f->length < sizeof text - 1 ? f->length : sizeof text - 1;
        memcpy(text, (const char *)channel_slot_other(replica->channel, f->slot) + f->offset, size);
        text[size] = '\0';
        for (size_t i = 0; i < size; i++)
            text[i] = text[i] < 0x20 || text[i] > 0x7E ? '?' : text[i];
        struct error failure = {0};
        (void)error_set(&failure, ERROR_MODEL_UNAVAILABLE, "The model cannot be loaded: %s", text);
        if (replica->blocked.n > 0)
            (void)error_wrap(&failure, failure.code, "Refused system calls: %s",
                             blocked_words(&replica->blocked, text));
        loaded_tell(replica, &failure);
        gateway_replica_kill(replica, BUS_STOP_LOAD);
        if (!replica->lone)
            version_refuse(v, failure.text, REFUSE_MS);
        return 0;
    }
    int code = signature_take(replica, f, err);
    if (code < 0)
        return code;
    state_set(replica, GATEWAY_REPLICA_READY);
    replica->loaded = true;
    list_remove(&replica->in_busy);
    bool tokens = v->signature->token.sequences > 0;
    if (replica->lone) {
        if (tokens)
            code = gateway_batch_start(replica);
        else
            schedule_replica_add(v->gateway->schedule, &replica->schedule, gateway_lone_target(replica->lone));
        if (code < 0)
            return error_set_default(err, code);
        loaded_tell(replica, NULL);
        return 0;
    }
    v->refused_until_ns = 0;
    v->demanded = 0;
    v->idle_since_ns = uv_hrtime();
    v->cancellable = f->flags & CHANNEL_CANCELLABLE && !tokens && !v->disobeyed;
    gateway_version_schedule(v);
    if (tokens)
        code = gateway_batch_start(replica);
    else
        schedule_replica_add(v->gateway->schedule, &replica->schedule, &v->schedule);
    if (code < 0)
        return error_set_default(err, code);
    loaded_tell(replica, NULL);
    waiting_continue(v);
    return 0;
}

/* The worker is there and its version is in the catalog: the model can be loaded. */
static int load_send(struct gateway_replica *replica, struct error *err)
{
    if (!replica->opened || !replica->version || replica->state != GATEWAY_REPLICA_OPENING)
        return 0;
    state_set(replica, GATEWAY_REPLICA_LOADING);
    struct channel_frame load = {.type = CHANNEL_LOAD};
    if (channel_push(replica->channel, &load) < 0)
        return error_set(err, ERROR_PEER, "it takes no frames");
    channel_ring(replica->channel);
    return 0;
}

static int on_open(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    if (replica->opened || f->a != CHANNEL_PROTOCOL)
        return error_set(err, ERROR_PEER, "a second greeting, or one of another protocol");
    replica->opened = true;
    return load_send(replica, err);
}

static int frame_handle(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    switch ((enum channel_frame_type)f->type) {
    case CHANNEL_OPEN:
        return on_open(replica, f, err);
    case CHANNEL_LOAD:
        return on_loaded(replica, f, err);
    case CHANNEL_PART:
    case CHANNEL_DONE:
        return gateway_lease_frame(replica, f, err);
    case CHANNEL_ADAPTER:
        return gateway_adapter_frame(replica, f, err);
    case CHANNEL_BLOCKED:
        return gateway_blocked_frame(replica, f, err);
    case CHANNEL_STATS:
        return 0;
    case CHANNEL_NONE:
    case CHANNEL_UNLOAD:
    case CHANNEL_LEASE:
    case CHANNEL_ITEM:
    case CHANNEL_CREDIT:
    case CHANNEL_CANCEL:
    case CHANNEL_PARK:
    case CHANNEL_RESUME:
    case CHANNEL_ADAPTER_DROP:
    case CHANNEL_TYPE_COUNT:
        break;
    }
    return error_set(err, ERROR_PEER, "a frame that only the gateway sends"); /* channel_pull lets none through */
}

void gateway_replica_pull(struct gateway_replica *replica)
{
    /* A language model tells much in one lease: others have their turn in between. */
    for (uint32_t n = 0; replica->channel && !(replica->batch && n >= BATCH_FRAMES_AT_ONCE); n++) {
        struct channel_frame f;
        struct error err = {0};
        int code = channel_pull(replica->channel, &f, &err);
        if (code == 0)
            return;
        replica->n_taken++;
        if (code > 0 && ++replica->n_frames > LEASE_FRAMES_MAX && !replica->batch)
            code = error_set(&err, ERROR_PEER, "too many frames");
        if (code > 0)
            code = frame_handle(replica, &f, &err);
        if (code < 0)
            protocol_broken(replica, error_text(&err, code));
    }
}

/* --- end --- */

static void drained_tell(struct gateway_replica *replica)
{
    struct bus_replica body = {.replica_uid = replica->uid, .reason = BUS_STOP_DRAINED};
    struct error err = {0};
    (void)error_set_default(&err, ERROR_WORKER_LOST);
    replica_leave(replica, &err, GATEWAY_AGAIN_NEVER);
    (void)bus_conn_send(replica->gateway->supervisor, BUS_REPLICA_STOP, &body, NULL, 0); /* without it we end anyway */
}

void gateway_replica_rest(struct gateway_replica *replica)
{
    if (!replica->batch || !gateway_adapters_expected(replica->batch))
        list_remove(&replica->in_busy);
}

void gateway_replica_idle(struct gateway_replica *replica)
{
    gateway_replica_rest(replica);
    if (replica->version)
        replica->version->idle_since_ns = uv_hrtime();
    bool over = replica->lone && gateway_lone_is_over(replica->lone); /* one request, and no other */
    if (replica->state == GATEWAY_REPLICA_DRAINING || over)
        drained_tell(replica);
}

void gateway_replica_drain(struct gateway *g, uint64_t uid)
{
    struct gateway_replica *replica = map_get(&g->replicas, uid);
    if (!replica || replica->state == GATEWAY_REPLICA_GONE || replica->state == GATEWAY_REPLICA_DRAINING)
        return;
    bool holds = replica->lease || (replica->batch && replica->batch->n_sequences > 0);
    if (replica->state != GATEWAY_REPLICA_READY || !holds) {
        drained_tell(replica);
        return;
    }
    state_set(replica, GATEWAY_REPLICA_DRAINING); /* it runs one lease at a time: gateway_replica_idle lets it go */
    if (replica->batch)
        gateway_batch_look(replica->batch);
}

/* The one whose replicas were asked for; NULL: it is gone. */
static struct gateway_version *version_of_demand(struct gateway *g, uint64_t uid, uint64_t tenant_uid)
{
    if (tenant_uid == 0)
        return map_get(&g->versions, uid);
    size_t cursor = 0;
    for (struct gateway_version *v; (v = map_next(&g->versions, &cursor));)
        if (v->uid == uid && v->lent && !v->host && v->tenant->uid == tenant_uid)
            return v;
    return NULL;
}

void gateway_demand_refused(struct gateway *g, const struct bus_demand_refused *body)
{
    struct gateway_lone *lone = body->replica_uid ? gateway_lone_of(g, body->replica_uid) : NULL;
    if (lone)
        gateway_lone_ended(lone, body->error.code, &body->error);
    struct gateway_version *v = body->replica_uid ? NULL : version_of_demand(g, body->version_uid, body->tenant_uid);
    if (!v || v->n_replicas > 0) /* one is there already, or comes: it will serve or fail */
        return;
    uint32_t ms = body->error.retry_after_ms;
    v->demanded = 0;
    version_refuse(v, body->error.text, ms < LIMIT_RESTART_DELAY_MAX_MS ? ms : LIMIT_RESTART_DELAY_MAX_MS);
}

static void version_drain(struct gateway_version *v)
{
    if (v->gateway->draining && v->n_replicas == 0 && !v->host)
        all_fail(v, ERROR_DRAINING, NULL);
}

void gateway_replicas_drain(struct gateway *g)
{
    size_t cursor = 0;
    for (struct gateway_version *v; (v = map_next(&g->versions, &cursor));)
        version_drain(v);
    gateway_lones_drain(g);
}

/* What it means for those who wait for its version. */
static void version_lost(struct gateway_version *v, const struct bus_replica_state *body, bool loaded)
{
    v->demanded = 0;
    if (loaded || body->wanted || body->shared_lost > 1) { /* of many in one worker it was hardly this one's fault */
        gateway_demand(v);                                 /* what waits gets another replica */
        version_drain(v);
        return;
    }
    if (v->refused_until_ns > uv_hrtime()) { /* it told itself why not, and so were those who waited … */
        gateway_demand(v);                   /* … but not who came between that and its end */
        return;
    }
    char text[ERROR_TEXT_BYTES_MAX];
    (void)snprintf(text, sizeof text, "The model cannot be started: %s.", body->text);
    version_refuse(v, text, REFUSE_MS);
}

static void on_ended(struct gateway_replica *replica, const struct bus_replica_state *body)
{
    struct gateway_version *v = replica->version;
    gateway_replica_pull(replica); /* what it finished before its end still counts */
    bool loaded = replica->loaded;
    struct error err = {0};
    (void)error_set_default(&err, body->out_of_memory ? ERROR_MODEL_MEMORY_EXCEEDED : ERROR_WORKER_LOST);
    err.retry_after_ms = body->out_of_memory ? 0 : 1000;
    /* A language model is in no worker with others: there it is all who use it that shared the worker. */
    bool again = body->shared_lost > 0 || (replica->batch && replica->level == LEVEL_SHARED && !body->wanted);
    if (replica->state != GATEWAY_REPLICA_GONE)
        replica_leave(replica, &err, again ? GATEWAY_AGAIN_ALL : GATEWAY_AGAIN_NEVER);
    if (v)
        v->n_requests++; /* keep it a moment longer than its replica */
    struct gateway_lone *lone = replica->lone;
    replica_free(replica);
    if (lone)
        gateway_lone_ended(lone, err.code, &err);
    if (!v)
        return;
    if (!body->wanted)
        gateway_metrics_restart(v);
    if (!lone)
        version_lost(v, body, loaded);
    v->n_requests--;
    gateway_version_release(v);
}

void gateway_replica_state(struct gateway *g, const struct bus_replica_state *body)
{
    struct gateway_replica *replica = replica_get(g, body->replica_uid, body->version_uid, body->tenant_uid);
    if (replica)
        replica->level = body->level;
    struct error err = {0};
    if (replica && body->phase == BUS_REPLICA_ENDED)
        on_ended(replica, body);
    else if (replica && load_send(replica, &err) < 0)
        gateway_replica_kill(replica, BUS_STOP_PROTOCOL);
}

void gateway_replicas_attach(struct gateway *g)
{
    size_t cursor = 0;
    for (struct gateway_replica *replica; (replica = map_next(&g->replicas, &cursor));) {
        struct error err = {0};
        version_attach(replica);
        if (load_send(replica, &err) < 0)
            gateway_replica_kill(replica, BUS_STOP_PROTOCOL);
    }
}

void gateway_replicas_tell(struct gateway *g)
{
    size_t cursor = 0;
    for (struct gateway_replica *replica; (replica = map_next(&g->replicas, &cursor));)
        if (replica->state == GATEWAY_REPLICA_READY) {
            loaded_tell(replica, NULL);
            replica->blocked_untold = replica->blocked.n > 0;
            if (replica->batch)
                gateway_adapters_again(replica->batch);
        }
    gateway_lones_again(g);
    cursor = 0;
    for (struct gateway_version *v; (v = map_next(&g->versions, &cursor));) {
        v->demanded = 0; /* the old control's promises are void */
        gateway_demand(v);
    }
}

static void waiting_expire(struct gateway_version *v, uint64_t now_ns)
{
    list_each_safe(node, &v->waiting)
    {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        if (r->deadline_ns > now_ns)
            continue;
        list_remove(node);
        r->tenant->n_waiting--;
        gateway_fail(r, ERROR_DEADLINE, NULL);
    }
}

static void version_idle_check(struct gateway_version *v, uint64_t now_ns)
{
    if (v->idle_after_ns == 0 || v->n_replicas == 0 || now_ns - v->idle_since_ns < v->idle_after_ns ||
        gateway_version_in_use(v))
        return;
    struct bus_demand body = {.version_uid = v->uid, .tenant_uid = v->lent ? v->tenant->uid : 0};
    v->idle_since_ns = now_ns;                                            /* asked once per period */
    (void)bus_conn_send(v->gateway->control, BUS_DEMAND, &body, NULL, 0); /* asked again after the next period */
}

void gateway_replicas_check(struct gateway *g, uint64_t now_ns)
{
    size_t cursor = 0;
    for (struct gateway_replica *replica; (replica = map_next(&g->replicas, &cursor));) {
        gateway_blocked_tell(replica);
        if ((replica->state == GATEWAY_REPLICA_OPENING || replica->state == GATEWAY_REPLICA_LOADING) &&
            replica->start_limit_ns < now_ns)
            gateway_replica_kill(replica, BUS_STOP_LOAD);
        else if (replica->batch)
            gateway_adapters_continue(replica->batch); /* control was away, or refusals have had their time */
        if (replica->batch)
            gateway_adapters_tell(replica->batch);
    }
    gateway_lones_check(g, now_ns);
    cursor = 0;
    for (struct gateway_version *v; (v = map_next(&g->versions, &cursor));) {
        v->n_requests++; /* an answer must not free it under the loop */
        waiting_expire(v, now_ns);
        v->n_requests--;
        if (v->demanded > v->n_replicas && now_ns - v->demanded_ns > DEMAND_AGAIN_MS * NS_PER_MS) {
            v->demanded = 0;
            gateway_demand(v);
        }
        version_idle_check(v, now_ns);
    }
}
