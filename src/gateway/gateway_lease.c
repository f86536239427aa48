/* Leases: gather a batch into the channel with one copy, take the outputs back, end the lease. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <string.h>

/* The answers of one lease may need this much of the gateway's own memory at most: the outbox slot, twice. */
#define OUTPUT_BYTES_MAX(replica) (CHANNEL_OUTPUT_SLOTS_MAX * (replica)->channel->geometry.outbox_slot_bytes)

static struct gateway_request *request_of(struct schedule_request *r)
{
    return container_of(r, struct gateway_request, schedule);
}

struct gateway_replica *gateway_lease_replica(const struct schedule_lease *lease)
{
    struct schedule_host *host = lease->replica->host;
    return host ? container_of(host, struct gateway_batch, host)->replica
                : container_of(lease->replica, struct gateway_replica, schedule);
}

static uint64_t align_up(uint64_t value)
{
    return (value + CHANNEL_DATA_ALIGN - 1) & ~(uint64_t)(CHANNEL_DATA_ALIGN - 1);
}

static uint64_t outputs_wanted(const struct gateway_request *r)
{
    const struct tensor_signature *s = r->version->signature;
    uint64_t all = s->n_outputs >= 64 ? UINT64_MAX : (UINT64_C(1) << s->n_outputs) - 1;
    if (r->oip.n_outputs == 0)
        return all;
    uint64_t mask = 0;
    for (uint32_t i = 0; i < r->oip.n_outputs; i++) {
        int index = tensor_spec_find(s->outputs, s->n_outputs, r->oip.outputs[i].name);
        assert(index >= 0); /* oip_request_check found it */
        mask |= UINT64_C(1) << index;
    }
    return mask;
}

/* Copies one input of all items behind each other; returns the bytes. The scheduler keeps the sum within the slot. */
static uint64_t gather_input(const struct schedule_lease *lease, uint32_t input, char *to)
{
    uint64_t bytes = 0;
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        const struct tensor_view *view = &request_of(lease->requests[k])->oip.inputs[input];
        if (view->size > 0)
            memcpy(to + bytes, view->data, view->size);
        bytes += view->size;
    }
    return bytes;
}

static uint64_t gather(struct gateway_replica *replica, const struct schedule_lease *lease, uint64_t wanted)
{
    char *slot = channel_slot_own(replica->channel, 0);
    const struct gateway_request *first = request_of(lease->requests[0]);
    const struct tensor_signature *s = replica->version->signature;
    struct channel_lease *head = (struct channel_lease *)(void *)slot;
    head->outputs_wanted = wanted;
    head->n_inputs = s->n_inputs;
    head->_reserved = 0;
    uint64_t offset = align_up(sizeof *head + s->n_inputs * sizeof head->inputs[0]);
    for (uint32_t i = 0; i < s->n_inputs; i++) {
        const struct tensor_view *view = &first->oip.inputs[i];
        struct channel_tensor *t = &head->inputs[i];
        *t = (struct channel_tensor){.dtype = (uint32_t)view->dtype, .rank = view->shape.rank, .data = offset};
        memcpy(t->dims, view->shape.dims, sizeof t->dims);
        if (s->batchable)
            t->dims[0] = replica->rows;
        t->bytes = gather_input(lease, i, slot + offset);
        offset = align_up(offset + t->bytes);
    }
    return offset;
}

static void outputs_reset(struct gateway_replica *replica)
{
    for (uint32_t i = 0; i < replica->version->signature->n_outputs; i++) {
        struct gateway_output *o = &replica->outputs[i];
        free(o->copy);
        *o = (struct gateway_output){0};
    }
    replica->copied_bytes = 0;
}

static int lease_send(struct gateway_replica *replica, struct schedule_lease *lease)
{
    struct gateway *g = replica->gateway;
    uint64_t wanted = 0;
    uint32_t rows = 0;
    if (channel_room(replica->channel) < lease->n_requests + 1)
        return -ERROR_PEER; /* one lease at a time and a ring for two: a worker that takes no frames */
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = request_of(lease->requests[k]);
        gateway_request_state_set(r, GATEWAY_REQUEST_LEASED);
        wanted |= outputs_wanted(r);
        rows += r->rows;
    }
    replica->lease = lease;
    replica->rows = rows;
    replica->lease_id = ++g->lease_id_last;
    replica->outputs_wanted = wanted;
    replica->n_frames = 0;
    replica->n_cancelled = 0;
    struct channel_frame frame = {
        .type = CHANNEL_LEASE,
        .lease_id = replica->lease_id,
        .length = gather(replica, lease, wanted),
        .a = rows,
        .b = lease->n_requests,
    };
    int code = channel_push(replica->channel, &frame);
    for (uint32_t k = 0; code >= 0 && k < lease->n_requests; k++) {
        const struct gateway_request *r = request_of(lease->requests[k]);
        struct channel_frame item = {
            .type = CHANNEL_ITEM,
            .lease_id = replica->lease_id,
            .request_id = r->id,
            .tenant_id = r->tenant->uid,
            .a = r->rows,
        };
        code = channel_push(replica->channel, &item);
    }
    channel_ring(replica->channel);
    replica->started_ns = lease->started_ns;
    replica->sent_ns = uv_hrtime();
    return code;
}

/* What the scheduler has taken out of its queues. */
static void queued_fail(struct gateway_request *r, int code, const struct error *err)
{
    if (r->state == GATEWAY_REQUEST_GENERATING)
        gateway_generate_fail(r, code, err);
    else
        gateway_fail(r, code, err);
}

void gateway_expire(struct gateway *g, uint64_t now_ns)
{
    for (struct schedule_request *r; (r = schedule_expire(g->schedule, now_ns));)
        queued_fail(request_of(r), -ERROR_DEADLINE, NULL);
}

/* The queues hold more than the server takes: the lowest class, and there the tenant furthest over its share, gives. */
static void shed(struct gateway *g)
{
    enum schedule_shed_reason reason;
    uint64_t retry_ns;
    for (struct schedule_request *r; (r = schedule_shed(g->schedule, &reason, &retry_ns));) {
        struct error err = {0};
        (void)error_set(
            &err, ERROR_OVERLOADED,
            reason == SCHEDULE_SHED_CLASS
                ? "The server is overloaded and gives way to requests of a higher class; try again later."
                : "The server is overloaded, and of what waits this tenant has most for its share; try again "
                  "later.");
        err.retry_after_ms = (uint32_t)(retry_ns / NS_PER_MS + 1);
        queued_fail(request_of(r), -ERROR_OVERLOADED, &err);
    }
}

/* Critical requests wait for what these leases hold. A worker that obeys says so in its DONE; one that does not runs
 * on. */
static void preempt(struct gateway *g, uint64_t now_ns)
{
    for (struct schedule_lease *lease; (lease = schedule_preempt(g->schedule, now_ns));) {
        struct gateway_replica *replica = gateway_lease_replica(lease);
        channel_lease_cancel(replica->channel, replica->lease_id);
    }
}

/* The worker gave the lease up for a critical one: what it held waits again, but for requests of clients that left. */
static void lease_requeue(struct gateway_replica *replica, struct schedule_lease *lease)
{
    struct gateway *g = replica->gateway;
    uint64_t now_ns = uv_hrtime();
    replica->lease = NULL;
    schedule_requeue(g->schedule, lease, now_ns);
    gateway_quota_charge_part(lease, now_ns - lease->preempted_ns);
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = request_of(lease->requests[k]);
        gateway_request_state_set(r, GATEWAY_REQUEST_QUEUED);
        if (r->x || r->infer_id)
            continue;
        (void)schedule_cancel(g->schedule, &r->schedule); /* queued: always taken out */
        gateway_request_drop(r);
    }
    schedule_lease_free(g->schedule, lease);
    outputs_reset(replica);
    if (replica->version->generation != g->stats.generation) /* deleted meanwhile: what queued for it has gone */
        gateway_version_fail(replica->version, ERROR_MODEL_NOT_FOUND, NULL);
    gateway_replica_idle(replica);
}

/* A lease that was named counts as on its way out, and no other is named in its stead. A worker that says it can give
 * leases up and does not could so make critical requests wait each time: its version is named once in vain. */
static void obedience_check(struct gateway_replica *replica, const struct schedule_lease *lease)
{
    struct gateway_version *v = replica->version;
    if (!lease->preempted || uv_hrtime() - lease->preempted_ns <= LIMIT_PREEMPT_MS * NS_PER_MS || v->disobeyed)
        return;
    log_info("worker_disobeys", "tenant=%s model=%s: a lease was not given up within %u ms; no other will be",
             v->tenant->name, v->model, LIMIT_PREEMPT_MS);
    v->disobeyed = true;
    v->cancellable = false;
    gateway_version_schedule(v);
}

void gateway_dispatch(struct gateway *g)
{
    uint64_t now_ns = uv_hrtime();
    gateway_quotas_continue(g);
    gateway_turns_look(g);
    gateway_expire(g, now_ns); /* the alarm may be late: nothing runs after its deadline */
    shed(g);
    gateway_lones_demand(g);
    for (struct schedule_lease *lease; (lease = schedule_next(g->schedule, now_ns));) {
        struct gateway_replica *replica = gateway_lease_replica(lease);
        if (!list_linked(&replica->in_busy))
            list_append(&g->busy, &replica->in_busy);
        int code = replica->batch ? gateway_turn_begin(replica, lease) : lease_send(replica, lease);
        if (code < 0)
            gateway_replica_kill(replica, BUS_STOP_PROTOCOL);
    }
    preempt(g, now_ns);
}

/* --- the worker's frames --- */

/* The first piece of an output tells its shape; copied once, then checked. */
static int output_start(struct gateway_replica *replica, struct gateway_output *o, const struct channel_frame *f,
                        struct error *err)
{
    const struct tensor_spec *spec = &replica->version->signature->outputs[f->index];
    const char *slot = channel_slot_other(replica->channel, f->slot);
    struct channel_tensor t;
    if (f->length < sizeof t)
        return error_set(err, ERROR_PEER, "an output without a shape");
    memcpy(&t, slot + f->offset, sizeof t);
    o->dtype = (enum tensor_dtype)t.dtype;
    o->shape.rank = t.rank;
    if (o->dtype != spec->dtype || t.rank != spec->shape.rank)
        return error_set(err, ERROR_PEER, "an output that is not of the model's signature");
    memcpy(o->shape.dims, t.dims, sizeof o->shape.dims);
    uint64_t elements;
    int code = tensor_shape_elements(&o->shape, &elements);
    if (code < 0 || !tensor_shape_matches(&o->shape, &spec->shape))
        return error_set(err, ERROR_PEER, "an output whose shape is not of the model's signature");
    if (replica->version->signature->batchable && o->shape.dims[0] != (int64_t)replica->rows)
        return error_set(err, ERROR_PEER, "an output with another number of rows than the batch");
    size_t element = tensor_dtype_bytes(o->dtype);
    uint64_t bytes;
    if (element > 0 && (__builtin_mul_overflow(elements, element, &bytes) || bytes != t.bytes))
        return error_set(err, ERROR_PEER, "an output whose size does not fit its shape");
    if (t.bytes > OUTPUT_BYTES_MAX(replica))
        return error_set(err, ERROR_PEER, "an output larger than the server takes");
    if (t.data < f->offset + sizeof t || t.data > f->offset + f->length)
        return error_set(err, ERROR_PEER, "an output whose data lie elsewhere");
    o->bytes = t.bytes;
    o->started = true;
    bool whole = (f->flags & CHANNEL_FINAL) && !(f->flags & CHANNEL_WAIT);
    uint64_t here = f->offset + f->length - t.data;
    if (element > 0 && o->dtype != TENSOR_BOOL && whole && here == o->bytes) {
        /* Any bits are a valid value: it stays where it is until the answers are encoded, each byte read once. */
        o->data = slot + t.data;
        o->received = o->bytes;
        return 0;
    }
    if (o->bytes > OUTPUT_BYTES_MAX(replica) - replica->copied_bytes)
        return error_set(err, ERROR_PEER, "outputs that are together larger than the server takes");
    replica->copied_bytes += o->bytes;
    o->copy = malloc(o->bytes > 0 ? o->bytes : 1);
    if (!o->copy)
        return error_set_default(err, ERROR_NO_MEMORY);
    o->data = o->copy;
    if (here > o->bytes)
        return error_set(err, ERROR_PEER, "a piece of an output that is too long");
    memcpy(o->copy, slot + t.data, here);
    o->received = here;
    return 0;
}

static int output_continue(struct gateway_replica *replica, struct gateway_output *o, const struct channel_frame *f,
                           struct error *err)
{
    const char *slot = channel_slot_other(replica->channel, f->slot);
    if (!o->copy || f->length > o->bytes - o->received)
        return error_set(err, ERROR_PEER, "a piece of an output that is too long");
    memcpy(o->copy + o->received, slot + f->offset, f->length);
    o->received += f->length;
    return 0;
}

static int on_part(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    if (!replica->lease || f->lease_id != replica->lease_id || f->request_id != 0 ||
        f->index >= replica->version->signature->n_outputs || !(replica->outputs_wanted >> f->index & 1))
        return error_set(err, ERROR_PEER, "an output that was not asked for");
    struct gateway_output *o = &replica->outputs[f->index];
    if (o->complete || f->a != o->pieces)
        return error_set(err, ERROR_PEER, "a piece of an output out of order");
    o->pieces++;
    int code = f->a == 0 ? output_start(replica, o, f, err) : output_continue(replica, o, f, err);
    if (code < 0)
        return code;
    if (f->flags & CHANNEL_FINAL) {
        if (o->received != o->bytes)
            return error_set(err, ERROR_PEER, "an output that ends early");
        if (o->copy && tensor_data_check(o->dtype, &o->shape, o->copy, o->bytes, NULL) < 0)
            return error_set(err, ERROR_PEER, "an output whose elements are not of its datatype");
        o->complete = true;
    }
    if (!(f->flags & CHANNEL_WAIT))
        return 0;
    struct channel_frame credit = {.type = CHANNEL_CREDIT, .slot = f->slot, .lease_id = f->lease_id};
    code = channel_push(replica->channel, &credit);
    channel_ring(replica->channel);
    return code < 0 ? error_set(err, ERROR_PEER, "it takes no frames") : 0;
}

/* The text of a failure, from memory that the worker may change: copied once, cut, made printable. */
static void failure_text(const struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    size_t size = f->length < sizeof err->text - 1 ? f->length : sizeof err->text - 1;
    memcpy(err->text, (const char *)channel_slot_other(replica->channel, f->slot) + f->offset, size);
    err->text[size] = '\0';
    for (size_t i = 0; i < size; i++)
        if (err->text[i] < 0x20 || err->text[i] > 0x7E)
            err->text[i] = '?';
}

/* All requests of a lease that is done get their answer; it is given back first, so that answers may submit again. */
static void lease_answer(struct gateway_replica *replica, struct schedule_lease *lease, int code,
                         const struct error *err)
{
    uint32_t row0 = 0;
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = request_of(lease->requests[k]);
        uint32_t rows = r->rows;
        if (!r->x && !r->infer_id)
            gateway_request_drop(r);
        else if (code < 0)
            gateway_fail(r, code, err);
        else
            gateway_infer_answer(r, replica, row0);
        row0 += rows;
    }
}

static int on_done(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway *g = replica->gateway;
    struct schedule_lease *lease = replica->lease;
    if (!lease || f->lease_id != replica->lease_id)
        return error_set(err, ERROR_PEER, "the end of a lease it does not hold");
    obedience_check(replica, lease);
    if (f->status == -ERROR_CANCELLED && lease->preempted) {
        lease_requeue(replica, lease);
        return 0;
    }
    struct error failure = {0};
    int code = f->status < 0 ? -ERROR_ENGINE : 0;
    if (code < 0)
        failure_text(replica, f, &failure);
    for (uint32_t i = 0; code >= 0 && i < replica->version->signature->n_outputs; i++)
        if ((replica->outputs_wanted >> i & 1) && !replica->outputs[i].complete)
            return error_set(err, ERROR_PEER, "a lease without all its outputs");
    uint64_t now_ns = uv_hrtime();
    g->stats.leases++;
    g->stats.lease_ns += now_ns - lease->started_ns;
    gateway_metrics_lease(replica->version, now_ns - lease->started_ns, lease->slots, replica->rows);
    schedule_complete(g->schedule, lease, now_ns);
    gateway_quota_charge(lease, now_ns - lease->started_ns);
    replica->lease = NULL;
    if (code >= 0)
        gateway_stats_lease(replica, now_ns, f->a * NS_PER_US);
    lease_answer(replica, lease, code, &failure);
    schedule_lease_free(g->schedule, lease);
    outputs_reset(replica); /* now and not with the next lease: an idle replica keeps nothing */
    gateway_replica_idle(replica);
    return 0;
}

int gateway_lease_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    if (replica->batch)
        return gateway_turn_frame(replica, f, err);
    return f->type == CHANNEL_PART ? on_part(replica, f, err) : on_done(replica, f, err);
}

void gateway_lease_lost(struct gateway_replica *replica, struct schedule_lease *lease, const struct error *err,
                        bool again)
{
    replica->lease = NULL;
    obedience_check(replica, lease);
    if (!again) /* else the second try is what it pays for */
        gateway_quota_charge(lease, uv_hrtime() - lease->started_ns);
    for (uint32_t k = 0; k < lease->n_requests; k++) {
        struct gateway_request *r = request_of(lease->requests[k]);
        if (!r->x && !r->infer_id)
            gateway_request_drop(r);
        else if (!again || gateway_lone_start(r) < 0)
            gateway_fail(r, err->code, err);
    }
    schedule_lease_free(replica->gateway->schedule, lease);
}
