/* An inference request between the handler and its answer: wait for the signature, decode, queue, encode. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int gateway_version_state(const struct gateway_version *lent, struct error *err)
{
    const struct gateway_version *v = gateway_version_host(lent);
    uint64_t now_ns = uv_hrtime();
    if (v->device == CATALOG_DEVICE_NONE)
        return error_set(err, ERROR_MODEL_UNAVAILABLE, "The model wants a device that this server no longer has.");
    if (v->refused_until_ns <= now_ns)
        return 0;
    int r = error_set(err, ERROR_MODEL_UNAVAILABLE, "%s", v->refusal.text);
    err->retry_after_ms = (uint32_t)((v->refused_until_ns - now_ns) / NS_PER_MS + 1);
    return r;
}

void gateway_demand(struct gateway_version *lent)
{
    struct gateway_version *v = gateway_version_host(lent);
    struct gateway *g = v->gateway;
    uint64_t waiting = gateway_version_waiting(v);
    if (waiting == 0 || v->generation != g->stats.generation || g->draining)
        return;
    /* One replica for what waits, one more for each further two full batches, as far as the model allows. */
    uint64_t full = 1 + waiting / (2 * v->batch_max);
    uint32_t wanted = full < v->replicas_max ? (uint32_t)full : v->replicas_max;
    if (v->n_replicas >= wanted || v->demanded >= wanted)
        return;
    struct bus_demand body = {.version_uid = v->uid, .tenant_uid = v->lent ? v->tenant->uid : 0, .replicas = wanted};
    if (bus_conn_send(g->control, BUS_DEMAND, &body, NULL, 0) < 0)
        return; /* control is away; asked again when it is back */
    v->demanded = wanted;
    v->demanded_ns = uv_hrtime();
}

static int deadline_set(struct gateway_request *r, uint64_t arrival_ns, struct error *err)
{
    uint64_t wait_ns = r->gateway->config.request_timeout_ms * NS_PER_MS;
    struct str header = gateway_header(r, STR("x-request-timeout-ms"));
    uint64_t wish_ns, ms;
    if (header.data && (str_to_u64(header, &ms) < 0 || ms == 0))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "The header X-Request-Timeout-Ms must be a number of milliseconds, 1 or more.");
    if (header.data && !__builtin_mul_overflow(ms, NS_PER_MS, &wish_ns) && wish_ns < wait_ns)
        wait_ns = wish_ns;
    if (r->oip.timeout_us > 0 && !__builtin_mul_overflow(r->oip.timeout_us, UINT64_C(1000), &wish_ns) &&
        wish_ns < wait_ns)
        wait_ns = wish_ns;
    if (r->deadline_ns == 0 || arrival_ns + wait_ns < r->deadline_ns) /* it began when the request came */
        r->deadline_ns = arrival_ns + wait_ns;
    return 0;
}

/* --- waiting for the signature --- */

static void wait_start(struct gateway_request *r, struct gateway_version *v)
{
    gateway_request_state_set(r, GATEWAY_REQUEST_WAITING);
    r->tenant->n_waiting++;
    list_append(&v->waiting, &r->node);
    gateway_demand(v);
}

static void wait_end(struct gateway_request *r)
{
    list_remove(&r->node);
    r->tenant->n_waiting--;
}

void gateway_signature_wait(struct gateway_request *r, struct gateway_version *v,
                            void (*next)(struct gateway_request *r, const struct tensor_signature *signature))
{
    if (!r->version) {
        r->version = v;
        v->n_requests++;
    }
    r->next = next;
    if (v->host && gateway_version_signature_copy(v) < 0) {
        gateway_fail(r, ERROR_NO_MEMORY, NULL);
        return;
    }
    if (v->signature) {
        next(r, v->signature);
        return;
    }
    struct error err = {0};
    int code = gateway_version_state(v, &err);
    if (code >= 0 && r->tenant->n_waiting + r->tenant->schedule.queued >= r->tenant->schedule.queue_max)
        code = error_set_default(&err, ERROR_QUEUE_FULL);
    if (code >= 0 && r->deadline_ns == 0) { /* its body, if it has one, says nothing of time */
        r->oip.timeout_us = 0;
        code = deadline_set(r, uv_hrtime(), &err);
    }
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    wait_start(r, v);
}

/* --- decode and submit --- */

/* Requests of equal keys may share a batch: the dims behind the batch axis of all inputs. Keyed, so that nobody can
 * send shapes that meet in one key. */
static uint64_t shape_key(const struct gateway_request *r, const struct tensor_signature *signature)
{
    if (!signature->batchable || r->rows == 0) /* engines treat "nothing" differently: it runs alone */
        return 0;
    if (r->version->shapes_fixed)
        return 1;
    uint64_t key = 0;
    for (uint32_t i = 0; i < signature->n_inputs; i++) {
        const struct tensor_shape *shape = &r->oip.inputs[i].shape;
        struct hash_seed seed = {r->gateway->shape_seed.k0 ^ key, r->gateway->shape_seed.k1};
        key = hash_bytes(seed, &shape->dims[1], (shape->rank - 1) * sizeof shape->dims[0]); /* rank ≥ 1: batchable */
    }
    return key < 2 ? key + 2 : key;
}

/* What the request takes of a channel slot at most: tensors, each aligned, behind a lease's head. (JSON is no bound:
 * "7," may mean eight bytes.) Each request counts a head of its own, so a batch of them always fits. */
static size_t lease_bytes(const struct oip_request *oip)
{
    size_t bytes = sizeof(struct channel_lease) + oip->n_inputs * sizeof(struct channel_tensor) + CHANNEL_DATA_ALIGN;
    for (uint32_t i = 0; i < oip->n_inputs; i++)
        bytes += oip->inputs[i].size + CHANNEL_DATA_ALIGN; /* the arena's maximum bounds the sum */
    return bytes;
}

static void infer_decoded(struct gateway_request *r, const struct tensor_signature *signature);

uint32_t gateway_class_default(const struct gateway_version *v)
{
    uint32_t allowed = v->tenant->classes, class = v->class;
    while (class < SCHEDULE_CLASS_COUNT && !(allowed >> class & 1))
        class ++;
    for (uint32_t i = 0; class == SCHEDULE_CLASS_COUNT && i < SCHEDULE_CLASS_COUNT; i++)
        if (allowed >> (SCHEDULE_CLASS_COUNT - 1 - i) & 1)
            class = SCHEDULE_CLASS_COUNT - 1 - i;
    return class;
}

/* The header's class, else the parameter's (Triton counts from 1, the highest), else the model's as far as its tenant
 * may use it: the next lower one, else the lowest above. What was asked for and is not allowed is refused. */
static int class_of(const struct gateway_request *r, enum schedule_class *ret_class, struct error *err)
{
    static const char *const names[SCHEDULE_CLASS_COUNT] = {"critical", "interactive", "batch"};
    uint32_t allowed = r->tenant->classes, class = r->version->class;
    struct str header = gateway_header(r, STR("x-request-class"));
    if (!header.data && r->oip.priority == 0) {
        class = gateway_class_default(r->version);
    } else if (header.data) {
        for (class = 0; class < SCHEDULE_CLASS_COUNT && !str_equal(header, str_from(names[class]));)
            class ++;
        if (class == SCHEDULE_CLASS_COUNT)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "The header X-Request-Class must be critical, interactive or batch.");
    } else {
        class = r->oip.priority < SCHEDULE_CLASS_COUNT ? (uint32_t)r->oip.priority - 1 : SCHEDULE_BATCH;
    }
    if (class >= SCHEDULE_CLASS_COUNT || !(allowed >> class & 1))
        return error_set(err, ERROR_FORBIDDEN, "This tenant may not use class %s.", names[class]);
    *ret_class = (enum schedule_class) class;
    return 0;
}

int gateway_generate_enter(struct gateway_request *r, struct error *err)
{
    enum schedule_class class = SCHEDULE_INTERACTIVE;
    r->oip.priority = 0;
    r->oip.timeout_us = 0;
    int code = class_of(r, &class, err);
    r->schedule = (struct schedule_request){.priority = class};
    return code < 0 ? code : gateway_deadline_set(r, err);
}

static void submit(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct gateway *g = r->gateway;
    struct error err = {0};
    uint32_t rows = 0;
    int code = oip_request_check(&r->oip, signature, &rows, &err);
    if (code >= 0 && signature->batchable && rows > r->version->batch_max)
        code =
            error_set(&err, ERROR_INVALID_TENSOR, "The batch has %u rows; this model takes at most %u in one request.",
                      rows, r->version->batch_max);
    enum schedule_class class = SCHEDULE_INTERACTIVE;
    if (code >= 0)
        code = class_of(r, &class, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    r->rows = rows;
    size_t bytes = lease_bytes(&r->oip);
    if (bytes > r->version->schedule.batch_bytes_max) {
        code = error_set(&err, ERROR_BODY_TOO_LARGE, "The inputs take %zu bytes; a request may have at most %zu.",
                         bytes, r->version->schedule.batch_bytes_max);
        gateway_fail(r, code, &err);
        return;
    }
    r->schedule = (struct schedule_request){
        .target = &r->version->schedule,
        .priority = class,
        .rows = rows > 0 ? rows : 1,
        .bytes = bytes,
        .shape_key = shape_key(r, signature),
        .deadline_ns = r->deadline_ns,
    };
    code = gateway_quota_reserve(r, SCHEDULE_COMPUTE, r->version->cost_ns * GATEWAY_RESERVE_FACTOR, &err);
    if (code > 0)
        r->next = infer_decoded;
    if (code < 0)
        gateway_fail(r, code, &err);
    if (code != 0)
        return;
    uint64_t retry_ns = 0;
    code = schedule_submit(g->schedule, &r->schedule, uv_hrtime(), &retry_ns);
    if (code < 0) {
        (void)error_set_default(&err, code);
        err.retry_after_ms = (uint32_t)(retry_ns / NS_PER_MS + 1);
        gateway_fail(r, code, &err);
        return;
    }
    gateway_request_state_set(r, GATEWAY_REQUEST_QUEUED);
    if (r->version->n_replicas == 0 || r->version->schedule.queued > 2 * r->version->batch_max)
        gateway_demand(r->version);
}

static void infer_decoded(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct error err = {0};
    int code = gateway_version_state(r->version, &err);
    if (signature->token.sequences > 0) {
        code = error_set(&err, ERROR_INVALID_REQUEST,
                         "This is a language model, which has no tensors; use /v1/chat/completions, /v1/completions or "
                         "/v1/embeddings.");
        gateway_fail(r, code, &err);
        return;
    }
    if (code < 0 && (gateway_version_host(r->version)->n_replicas == 0 || r->version->device == CATALOG_DEVICE_NONE)) {
        gateway_fail(r, code, &err);
        return;
    }
    submit(r, signature);
}

/* An inference request begins: from here on it counts for its version. */
static void infer_start(struct gateway_request *r, struct gateway_version *v)
{
    r->arrival_ns = uv_hrtime();
    r->version = v;
    v->n_requests++;
}

/* The least of what the server grants, the header says and the body says (in microseconds, as in Triton). */
int gateway_deadline_set(struct gateway_request *r, struct error *err)
{
    return deadline_set(r, r->arrival_ns, err);
}

void gateway_infer(struct gateway_request *r, struct gateway_version *v, size_t json_size)
{
    struct error err = {0};
    infer_start(r, v);
    int code = oip_request_decode(r->body, json_size, &r->arena, &r->oip, &err);
    if (code >= 0)
        code = gateway_deadline_set(r, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    gateway_signature_wait(r, v, infer_decoded);
}

static void raw_decode(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct error err = {0};
    int code = oip_request_raw(r->body, signature, &r->arena, &r->oip, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        infer_decoded(r, signature);
}

void gateway_infer_raw(struct gateway_request *r, struct gateway_version *v)
{
    struct error err = {0};
    infer_start(r, v);
    r->oip.timeout_us = 0;
    r->oip.priority = 0;
    int code = gateway_deadline_set(r, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    gateway_signature_wait(r, v, raw_decode);
}

/* --- the ways out --- */

void gateway_request_drop(struct gateway_request *r)
{
    gateway_metrics_answer(r, error_info(ERROR_CANCELLED)->http_status);
    gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    gateway_request_free(r);
}

void gateway_request_cancel(struct gateway_request *r)
{
    struct gateway *g = r->gateway;
    switch (r->state) {
    case GATEWAY_REQUEST_WAITING:
        wait_end(r);
        gateway_request_drop(r);
        return;
    case GATEWAY_REQUEST_LARGE:
        list_remove(&r->node);
        gateway_request_drop(r);
        return;
    case GATEWAY_REQUEST_QUEUED:
        (void)schedule_cancel(g->schedule, &r->schedule); /* queued: always taken out */
        gateway_request_drop(r);
        return;
    case GATEWAY_REQUEST_LEASED: {
        struct gateway_replica *replica = container_of(r->schedule.lease->replica, struct gateway_replica, schedule);
        struct channel_frame frame = {.type = CHANNEL_CANCEL, .lease_id = replica->lease_id, .request_id = r->id};
        if (replica->channel && channel_push(replica->channel, &frame) == 0)
            channel_ring(replica->channel);
        if (++replica->n_cancelled == r->schedule.lease->n_requests && replica->channel)
            channel_lease_cancel(replica->channel, replica->lease_id); /* nobody is left who wants its answer */
        return;                                                        /* dropped when its lease ends */
    }
    case GATEWAY_REQUEST_GENERATING:
        gateway_generate_stop(r);
        break;
    case GATEWAY_REQUEST_READING:
    case GATEWAY_REQUEST_HANDLED:
    case GATEWAY_REQUEST_ANSWERED:
    case GATEWAY_REQUEST_STATE_COUNT:
        break;
    }
    if (r->state != GATEWAY_REQUEST_ANSWERED)
        gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    gateway_request_free(r);
}

void gateway_version_fail(struct gateway_version *v, int code, const struct error *err)
{
    v->n_requests++; /* the version outlives its last request */
    for (struct list *node; (node = list_first(&v->waiting));) {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        wait_end(r);
        gateway_fail(r, code, err);
    }
    gateway_quotas_fail(v, code, err);
    for (struct gateway_request *r; (r = gateway_places_first(v));)
        gateway_generate_fail(r, code, err);
    bool turns = v->signature && v->signature->token.sequences > 0; /* then nothing else queues there */
    for (struct schedule_request *q; !turns && (q = schedule_target_flush(v->gateway->schedule, &v->schedule));)
        gateway_fail(container_of(q, struct gateway_request, schedule), code, err);
    v->n_requests--;
}

/* --- the answer --- */

/* The request's rows of an output. Each answer goes on where the one before ended: BYTES have to be walked, and walking
 * a batch's elements anew for each of its requests could hold the loop for seconds. */
static void rows_cut(const struct gateway_request *r, struct gateway_output *o, uint32_t row0, struct tensor_view *view)
{
    uint64_t per_row = 1;
    for (uint32_t d = 1; d < o->shape.rank; d++)
        per_row *= (uint64_t)o->shape.dims[d]; /* the whole product was checked */
    o->cut += tensor_data_prefix(o->dtype, o->data + o->cut, o->bytes - o->cut, (row0 - o->cut_row) * per_row);
    view->shape.dims[0] = r->rows;
    view->data = o->data + o->cut;
    view->size = tensor_data_prefix(o->dtype, view->data, o->bytes - o->cut, r->rows * per_row);
    o->cut += view->size;
    o->cut_row = row0 + r->rows;
}

static uint32_t outputs_collect(const struct gateway_request *r, struct gateway_replica *replica, uint32_t row0,
                                struct tensor_view *views, bool *binary)
{
    const struct tensor_signature *s = r->version->signature;
    uint32_t wished = r->oip.n_outputs > 0 ? r->oip.n_outputs : s->n_outputs;
    for (uint32_t i = 0; i < wished; i++) {
        int index = r->oip.n_outputs > 0 ? tensor_spec_find(s->outputs, s->n_outputs, r->oip.outputs[i].name) : (int)i;
        assert(index >= 0); /* oip_request_check found it */
        struct gateway_output *o = &replica->outputs[index];
        views[i] = (struct tensor_view){.name = str_from(s->outputs[index].name),
                                        .dtype = o->dtype,
                                        .shape = o->shape,
                                        .data = o->data,
                                        .size = o->bytes};
        binary[i] = r->oip.n_outputs > 0 ? r->oip.outputs[i].binary : r->oip.binary_output_default;
        if (s->batchable)
            rows_cut(r, o, row0, &views[i]);
    }
    return wished;
}

void gateway_infer_answer(struct gateway_request *r, struct gateway_replica *replica, uint32_t row0)
{
    struct gateway *g = r->gateway;
    struct tensor_view views[LIMIT_TENSORS];
    bool binary[LIMIT_TENSORS];
    uint32_t n = outputs_collect(r, replica, row0, views, binary);
    buf_clear(&g->answer);
    size_t json_size = 0;
    struct error err = {0};
    int code = oip_answer_encode(gateway_version_model(r->version), gateway_version_text(r->version), r->oip.id, views,
                                 binary, n, &g->answer, &json_size, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    code = gateway_quota_answer(r, g->answer.size, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    gateway_stats_success(r, replica);
    g->stats.bytes_out += g->answer.size;
    struct str body = {g->answer.data, g->answer.size};
    if (json_size == 0) {
        gateway_answer(r, 200, "application/json", NULL, 0, body);
        return;
    }
    char size_text[24];
    (void)snprintf(size_text, sizeof size_text, "%zu", json_size);
    struct wire_header header = {STR("Inference-Header-Content-Length"), str_from(size_text)};
    gateway_answer(r, 200, "application/octet-stream", &header, 1, body);
}
