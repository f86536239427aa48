/* Requests to language models, from their generations' first word to the last event: queue, events, streams, ends. */
#include "gateway/gateway_internal.h"

#include "wire/sse.h"

#include <assert.h>
#include <string.h>

static int version_wait(struct gateway_request *r, struct error *err)
{
    struct gateway_version *v = r->version;
    if (v->generation != r->gateway->stats.generation) /* deleted meanwhile */
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    int code = gateway_places_wait(r, err);
    if (code < 0)
        return code;
    gateway_batches_look(v);
    gateway_demand(v);
    return 0;
}

/* What it can take of a quota: a token of a prompt is at least one byte, with one put before and one behind; prompt and
 * answer together fit the context. A chat template may add more: what is not reserved is used as far as there is room.
 */
static uint64_t tokens_max(const struct gateway_request *r, uint32_t index, const struct generation *g)
{
    uint64_t context = r->version->signature->token.context, sum = 0;
    bool answers = g->kind == GENERATION_COMPLETION || g->kind == GENERATION_CHAT;
    if (index % r->n_choices == 0)
        sum = (g->n_tokens > 0 ? g->n_tokens : g->prompt.size + g->tools.size) + UINT64_C(2);
    if (answers)
        sum += g->max_tokens;
    return sum < context ? sum : context;
}

/* A generation that no slot can hold would wait for ever. */
static int sizes_check(struct gateway_request *r, struct error *err)
{
    size_t max = r->version->schedule.batch_bytes_max;
    for (uint32_t i = 0; i < r->n_generations; i++) {
        struct generation g;
        r->generate->make(r, i, &g);
        r->tokens_max += tokens_max(r, i, &g);
        size_t size = generation_size(&g);
        if (size > max)
            return error_set(err, ERROR_BODY_TOO_LARGE, "The prompt takes %zu bytes; a request may have at most %zu.",
                             size, max);
    }
    return 0;
}

/* What it may use of its quotas at most. Who waits for one of them keeps nothing of the other. */
static int reserve(struct gateway_request *r, struct error *err)
{
    uint64_t cost_ns;
    if (__builtin_mul_overflow(r->tokens_max, r->version->token_cost_ns * GATEWAY_RESERVE_TOKENS_FACTOR, &cost_ns))
        cost_ns = 0; /* as one that is not known */
    int code = gateway_quota_reserve(r, SCHEDULE_TOKENS, r->tokens_max, err);
    if (code != 0)
        return code;
    code = gateway_quota_reserve(r, SCHEDULE_COMPUTE, cost_ns, err);
    if (code != 0)
        gateway_quota_settle(r, SCHEDULE_TOKENS);
    return code;
}

/* It uses no more. */
static void settle(struct gateway_request *r)
{
    gateway_quota_settle(r, SCHEDULE_TOKENS);
    gateway_quota_settle(r, SCHEDULE_COMPUTE);
}

/* Also when it has waited for others' reservations to end. */
static void admit(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct gateway_version *v = r->version;
    struct error err = {0};
    (void)signature;
    int code = gateway_version_state(v, &err);
    if (gateway_version_host(v)->n_replicas > 0 && v->device != CATALOG_DEVICE_NONE)
        code = 0;
    if (code >= 0)
        code = reserve(r, &err);
    if (code > 0) {
        r->next = admit;
        return;
    }
    if (code >= 0)
        code = version_wait(r, &err);
    if (code < 0) {
        r->generate->fail(r, code, &err);
        return;
    }
    gateway_request_state_set(r, GATEWAY_REQUEST_GENERATING);
}

void gateway_generate(struct gateway_request *r, uint32_t n, uint32_t choices, const struct gateway_generate *generate)
{
    struct gateway_version *v = r->version;
    struct error err = {0};
    assert(n > 0 && choices > 0 && n % choices == 0 && v && v->signature && v->signature->token.sequences > 0);
    r->generate = generate;
    r->n_generations = n;
    r->n_choices = choices;
    r->n_started = r->n_ended = 0;
    r->tokens_max = 0;
    if (r->arrival_ns == 0)
        r->arrival_ns = uv_hrtime();
    int code = gateway_generate_enter(r, &err);
    if (code >= 0)
        code = sizes_check(r, &err);
    if (code < 0) {
        generate->fail(r, code, &err);
        return;
    }
    if (r->x && !wire_peer_watch(r->x)) { /* nobody waits for it */
        generate->fail(r, -ERROR_CANCELLED, NULL);
        return;
    }
    admit(r, v->signature);
}

void gateway_generate_stop(struct gateway_request *r)
{
    gateway_places_leave(r);
    gateway_batches_cancel(r);
    settle(r);
    r->n_ended = r->n_started = r->n_generations;
    if (r->lone)
        gateway_lone_left(r);
}

void gateway_generate_fail(struct gateway_request *r, int code, const struct error *err)
{
    gateway_generate_stop(r);
    if (r->streaming) /* else with the answer */
        gateway_stats_failure(r);
    r->generate->fail(r, code, err);
}

void gateway_generate_resume(struct gateway_request *r)
{
    if (!r->stopped)
        return;
    r->stopped = false;
    gateway_batches_park(r, false);
    struct error err = {0};
    int code = r->n_started < r->n_generations && !list_linked(&r->node) ? version_wait(r, &err) : 0;
    if (code < 0)
        gateway_generate_fail(r, code, &err);
}

/* --- what comes of them --- */

static void all_ended(struct gateway_request *r)
{
    settle(r); /* its last words may be read slowly */
    if (r->lone)
        gateway_lone_left(r);
    gateway_stats_generated(r);
    r->generate->end(r);
}

/* What a sequence's own failure may be called: a worker has no say in anything but its model and the request. */
static int failure_code(int status)
{
    switch (-status) {
    case ERROR_INVALID_REQUEST:
    case ERROR_INVALID_ARGUMENT:
    case ERROR_UNSUPPORTED:
    case ERROR_REFUSED:
    case ERROR_NO_MEMORY:
        return status;
    default:
        return -ERROR_ENGINE;
    }
}

static void failure_tell(struct gateway_request *r, const struct generation_event *e)
{
    struct error err = {0};
    int code = failure_code(e->status);
    if (e->text.size > 0)
        (void)error_set(&err, code, STR_FORMAT, STR_ARG(e->text));
    gateway_generate_fail(r, code, &err);
}

void gateway_generate_event(struct gateway_request *r, uint32_t index, const struct generation_event *e)
{
    struct error err = {0};
    bool last = e->kind == GENERATION_EVENT_END;
    if (last && e->finish == GENERATION_ERROR) {
        failure_tell(r, e);
        return;
    }
    int code = r->generate->event(r, index, e, &err);
    if (code == -ERROR_CANCELLED)
        return;
    if (code < 0) {
        gateway_generate_fail(r, code, &err);
        return;
    }
    if (last && ++r->n_ended == r->n_generations) {
        all_ended(r);
        return;
    }
    if (code == 1 && !r->stopped) {
        r->stopped = true;
        gateway_places_leave(r);
        gateway_batches_park(r, true);
    }
}

/* The end of a generation that was cut. False: the request is gone. */
static bool cut_tell(struct gateway_request *r, uint32_t index, const struct gateway_sequence *s)
{
    struct generation_event end = {.kind = GENERATION_EVENT_END,
                                   .finish = GENERATION_LENGTH,
                                   .prompt_tokens = s->prompt_tokens,
                                   .cached_tokens = s->cached_tokens,
                                   .prompt_done = s->prompt_done,
                                   .completion_tokens = s->completion_tokens};
    struct error err = {0};
    int code = r->generate->event(r, index, &end, &err);
    if (code < 0 && code != -ERROR_CANCELLED)
        gateway_generate_fail(r, code, &err);
    return code >= 0;
}

void gateway_generate_cut(struct gateway_request *r)
{
    struct gateway_sequence s;
    gateway_places_leave(r);
    r->n_ended = r->n_generations; /* what is told now is the end */
    while (gateway_batches_take(r, &s))
        if (!cut_tell(r, s.index, &s))
            return;
    s = (struct gateway_sequence){0};
    while (r->n_started < r->n_generations)
        if (!cut_tell(r, r->n_started++, &s))
            return;
    all_ended(r);
}

/* --- streams --- */

static int stream_result(int result)
{
    /* The client neither reads nor is told more than it was promised: what it has missed cannot be told later. */
    return result < 0 ? -ERROR_CANCELLED : result;
}

int gateway_stream_begin(struct gateway_request *r, size_t ahead)
{
    struct gateway *g = r->gateway;
    if (!r->x)
        return -ERROR_CANCELLED;
    g->stats.requests++;
    gateway_metrics_answer(r, 200);
    r->streaming = true;
    struct gateway_quota_headers quota;
    gateway_quota_headers(r, &quota);
    return stream_result(
        wire_sse_begin(r->x, quota.headers, quota.n, LIMIT_STREAM_BYTES + 2 * ahead, LIMIT_STREAM_IDLE_MS));
}

int gateway_stream_write(struct gateway_request *r, struct str events)
{
    struct error err = {0};
    int admitted = gateway_quota_answer(r, events.size, &err);
    if (admitted < 0 && r->n_ended < r->n_generations)
        return admitted; /* what is said of its end still goes out */
    r->streamed_bytes += events.size;
    r->gateway->stats.bytes_out += events.size;
    int result = wire_stream_write(r->x, events);
    if (result == -ERROR_AGAIN || result == -ERROR_LIMIT)
        wire_connection_end(r->x->connection_user); /* resets, and so frees r */
    return stream_result(result);
}

void gateway_stream_end(struct gateway_request *r)
{
    gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    wire_stream_end(r->x); /* done() or reset() frees r */
}

int gateway_answer_admit(struct gateway_request *r, size_t bytes, struct error *err)
{
    r->gateway->stats.bytes_out += bytes;
    return gateway_quota_answer(r, bytes, err);
}

bool gateway_streams(const struct gateway_request *r)
{
    return r->streaming;
}
