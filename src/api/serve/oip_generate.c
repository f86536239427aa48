#include "api/serve/oip_internal.h"
#include "api/serve/openai_codec.h"
#include "wire/sse.h"

/* One event's JSON: 16 KiB of text, in which each byte may become six, beside the names. */
#define EVENT_BYTES_MAX  (256 * KIB)
#define ANSWER_BYTES_MAX (64 * MIB)

struct generate_call {
    struct openai_request request;
    struct str model, version; /* in the arena: the version may be gone when the answer is */
    bool stream;
    uint32_t context;  /* tokens */
    struct buf text;   /* gathered */
    struct buf events; /* being written */
};

static void call_release(void *user)
{
    struct generate_call *call = user;
    buf_done(&call->text);
    buf_done(&call->events);
}

static void append_answer(const struct generate_call *call, struct str text, struct buf *b)
{
    buf_append_text(b, "{\"model_name\":");
    buf_append_json(b, call->model);
    buf_append_text(b, ",\"model_version\":");
    buf_append_json(b, call->version);
    buf_append_text(b, ",\"text_output\":");
    buf_append_json(b, text);
    buf_append_char(b, '}');
}

static int events_write(struct gateway_request *r, struct generate_call *call, const struct buf *json)
{
    buf_clear(&call->events);
    wire_sse_append(&call->events, (struct str){0}, (struct str){json->data, json->size});
    int failed = json->failed ? json->failed : call->events.failed;
    return failed ? failed : gateway_stream_write(r, (struct str){call->events.data, call->events.size});
}

static int stream_text(struct gateway_request *r, struct generate_call *call, struct str text)
{
    _buf_ struct buf json;
    buf_init(&json, EVENT_BYTES_MAX);
    int begun = 0;
    if (!gateway_streams(r))
        begun = gateway_stream_begin(r, 0);
    if (begun < 0)
        return begun;
    append_answer(call, text, &json);
    int written = events_write(r, call, &json);
    return written == 0 ? begun : written;
}

static void on_make(struct gateway_request *r, uint32_t index, struct generation *ret_generation)
{
    const struct generate_call *call = gateway_user(r);
    openai_generation(&call->request, index, call->context, ret_generation);
}

static int on_event(struct gateway_request *r, uint32_t index, const struct generation_event *event, struct error *err)
{
    struct generate_call *call = gateway_user(r);
    (void)index; /* there is one */
    if (event->text.size == 0 || (event->kind != GENERATION_EVENT_TEXT && event->kind != GENERATION_EVENT_REASONING))
        return 0;
    if (call->stream)
        return stream_text(r, call, event->text);
    if (event->text.size > LIMIT_GATHERED_BYTES - call->text.size)
        return error_set(err, ERROR_ENGINE,
                         "The answer is larger than the server gathers; ask for it with generate_stream.");
    buf_append_str(&call->text, event->text);
    return call->text.failed ? error_set_default(err, call->text.failed) : gateway_hold(r, call->text.capacity, err);
}

static void on_end(struct gateway_request *r)
{
    struct generate_call *call = gateway_user(r);
    struct error err = {0};
    if (call->stream) {
        int begun = gateway_streams(r) ? 0 : stream_text(r, call, STR("")); /* a model may have nothing to say */
        if (begun == -ERROR_CANCELLED)
            return;
        if (gateway_streams(r))
            gateway_stream_end(r);
        else
            gateway_fail(r, begun, NULL);
        return;
    }
    _buf_ struct buf body;
    buf_init(&body, ANSWER_BYTES_MAX);
    append_answer(call, (struct str){call->text.data, call->text.size}, &body);
    int code = body.failed ? body.failed : gateway_answer_admit(r, body.size, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        serve_oip_answer(r, 200, &body);
}

static void on_fail(struct gateway_request *r, int code, const struct error *err)
{
    if (!gateway_streams(r)) {
        gateway_fail(r, code, err);
        return;
    }
    _buf_ struct buf json;
    buf_init(&json, 16 * KIB);
    buf_append_text(&json, "{\"error\":");
    buf_append_json(&json, str_from(error_text(err, code)));
    buf_append_text(&json, ",\"code\":");
    buf_append_json(&json, str_from(error_info(code)->name));
    buf_append_char(&json, '}');
    if (events_write(r, gateway_user(r), &json) != -ERROR_CANCELLED)
        gateway_stream_end(r);
}

static bool on_again(struct gateway_request *r)
{
    struct generate_call *call = gateway_user(r);
    if (gateway_streams(r)) /* a stream begins with the first words */
        return false;
    buf_clear(&call->text);
    return true;
}

static const struct gateway_generate generate = {
    .make = on_make, .event = on_event, .end = on_end, .fail = on_fail, .again = on_again};

static void on_signature(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct generate_call *call = gateway_user(r);
    struct error err = {0};
    if (signature->token.sequences == 0 || !(signature->token.flags & TENSOR_TOKEN_ANSWER)) {
        int code = error_set(&err, ERROR_INVALID_REQUEST, "The model does not generate text; send tensors to %s.",
                             "/v2/models/NAME/infer");
        gateway_fail(r, code, &err);
        return;
    }
    call->context = signature->token.context;
    gateway_generate(r, 1, 1, &generate);
}

/* The newest version also goes by its tenant's adapters' names. */
static struct gateway_version *model_find(struct gateway_request *r, bool with_version)
{
    struct gateway_version *v = NULL;
    struct error err = {0};
    if (with_version)
        return serve_oip_version(r, true);
    int code = gateway_model_find(r, gateway_param(r, 0), &v, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    return code < 0 ? NULL : v;
}

static void handle(struct gateway_request *r, bool with_version, bool stream)
{
    struct gateway_version *v = model_find(r, with_version);
    if (!v)
        return;
    struct arena *arena = gateway_arena(r);
    struct generate_call *call = arena_alloc(arena, sizeof *call);
    struct openai_error refusal = {0};
    struct error err = {0};
    if (!call) {
        gateway_fail(r, -ERROR_NO_MEMORY, NULL);
        return;
    }
    *call = (struct generate_call){.stream = stream,
                                   .model = with_version ? gateway_version_model(v) : gateway_param(r, 0),
                                   .version = gateway_version_text(v)};
    call->model.data = arena_copy(arena, call->model);
    call->version.data = arena_copy(arena, call->version);
    if (!call->model.data || !call->version.data) {
        gateway_fail(r, -ERROR_NO_MEMORY, NULL);
        return;
    }
    if (!openai_request_decode(OPENAI_GENERATE, gateway_body(r), arena, &call->request, &refusal)) {
        int code = error_set(&err, -refusal.code, "%s", refusal.message);
        gateway_fail(r, code, &err);
        return;
    }
    buf_init(&call->text, LIMIT_GATHERED_BYTES);
    buf_init(&call->events, 2 * EVENT_BYTES_MAX);
    gateway_user_set(r, call, call_release);
    gateway_signature_wait(r, v, on_signature);
}

void serve_oip_generate(struct gateway_request *r)
{
    handle(r, false, false);
}

void serve_oip_version_generate(struct gateway_request *r)
{
    handle(r, true, false);
}

void serve_oip_generate_stream(struct gateway_request *r)
{
    handle(r, false, true);
}

void serve_oip_version_generate_stream(struct gateway_request *r)
{
    handle(r, true, true);
}
