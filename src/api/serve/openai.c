#include "api/serve/openai.h"

#include "api/serve/openai_call.h"
#include "base/clock.h"
#include "base/random.h"

#include <stdio.h>

/* An answer of one choice's text as JSON takes six bytes for each at most; with probabilities more. */
#define ANSWER_BYTES_MAX (64 * MIB)

/* Nothing has been said yet. */
static void generations_init(struct openai_call *call)
{
    const struct openai_request *q = &call->request;
    for (uint32_t i = 0; i < call->n; i++) {
        call->usage[i] = (struct openai_usage){0};
        call->offsets[i] = 0;
        openai_choice_init(&call->choices[i], LIMIT_GATHERED_BYTES / call->n);
        if (call->vectors)
            call->vectors[i] = (struct openai_vector){0};
        if (q->echo)
            buf_append_str(&call->choices[i].text, q->prompts[i / q->n].text);
    }
}

static void generations_done(struct openai_call *call)
{
    for (uint32_t i = 0; i < call->n; i++) {
        if (call->choices)
            openai_choice_done(&call->choices[i]);
        if (call->vectors)
            free(call->vectors[i].values);
    }
}

static void call_release(void *user)
{
    struct openai_call *call = user;
    generations_done(call);
    buf_done(&call->out);
    buf_done(&call->tokens);
}

void openai_call_refuse(struct gateway_request *r, const struct openai_error *error)
{
    _buf_ struct buf body;
    buf_init(&body, 8 * KIB);
    openai_error_encode(error, &body);
    if (body.failed || error_info(error->code) == error_info(ERROR_NO_MEMORY)) /* the gateway knows whose memory */
        gateway_fail(r, error->code, NULL);
    else
        gateway_refuse(r, error->code, (struct str){body.data, body.size});
}

static void id_make(struct openai_call *call)
{
    static const char *const prefixes[OPENAI_KIND_COUNT] = {"chatcmpl", "cmpl", "embd", "tok", "detok", "gen"};
    uint64_t number[2];
    random_bytes(number, sizeof number);
    (void)snprintf(call->id, sizeof call->id, "%s-%016llx%08llx", prefixes[call->request.kind],
                   (unsigned long long)number[0], (unsigned long long)(number[1] >> 32));
    call->answer = (struct openai_answer){.kind = call->request.kind,
                                          .id = str_from(call->id),
                                          .created = clock_wall_ms() / 1000,
                                          .model = call->request.model};
}

struct openai_call *openai_call_new(struct gateway_request *r, enum openai_kind kind)
{
    struct openai_call *call = arena_alloc(gateway_arena(r), sizeof *call);
    struct openai_error error = {0};
    if (!call) {
        gateway_fail(r, -ERROR_NO_MEMORY, NULL);
        return NULL;
    }
    *call = (struct openai_call){0};
    if (!openai_request_decode(kind, gateway_body(r), gateway_arena(r), &call->request, &error)) {
        openai_call_refuse(r, &error);
        return NULL;
    }
    id_make(call);
    buf_init(&call->out, ANSWER_BYTES_MAX);
    buf_init(&call->tokens, (gateway_body(r).size + 16) * sizeof(int32_t)); /* at most one for each byte, and a few */
    gateway_user_set(r, call, call_release);
    return call;
}

/* What is kept of each generation. */
static bool call_prepare(struct gateway_request *r, struct openai_call *call)
{
    const struct openai_request *q = &call->request;
    struct arena *arena = gateway_arena(r);
    uint32_t n = q->n_prompts * q->n; /* ≤ LIMIT_EMBEDDINGS */
    bool vectors = q->kind == OPENAI_EMBEDDING;
    call->usage = arena_array(arena, n, sizeof *call->usage);
    call->offsets = arena_array(arena, n, sizeof *call->offsets);
    call->choices = arena_array(arena, n, sizeof *call->choices);
    call->vectors = vectors ? arena_array(arena, n, sizeof *call->vectors) : NULL;
    bool all = call->usage && call->offsets && call->choices && (call->vectors || !vectors);
    if (!all) {
        call->choices = NULL;
        call->vectors = NULL;
        return false;
    }
    call->n = n;
    generations_init(call);
    return true;
}

struct openai_usage openai_call_usage(const struct openai_call *call)
{
    struct openai_usage sum = {0};
    for (uint32_t i = 0; i < call->n; i++) {
        if (i % call->request.n == 0) {
            sum.prompt_tokens += call->usage[i].prompt_tokens;
            sum.cached_tokens += call->usage[i].cached_tokens;
        }
        sum.completion_tokens += call->usage[i].completion_tokens;
    }
    return sum;
}

/* --- generations --- */

static void on_make(struct gateway_request *r, uint32_t index, struct generation *ret_generation)
{
    const struct openai_call *call = gateway_user(r);
    openai_generation(&call->request, index, call->context, ret_generation);
}

/* Of one generation: buffers double, so that they have at most twice what is in them. */
static size_t gathered_bytes(const struct openai_call *call, uint32_t index)
{
    const struct openai_vector *v = call->vectors ? &call->vectors[index] : NULL;
    return 2 * call->choices[index].bytes + (v && v->values ? v->n * sizeof *v->values : 0);
}

static int on_event(struct gateway_request *r, uint32_t index, const struct generation_event *event, struct error *err)
{
    struct openai_call *call = gateway_user(r);
    call->usage[index] = (struct openai_usage){.prompt_tokens = event->prompt_tokens,
                                               .cached_tokens = event->cached_tokens,
                                               .completion_tokens = event->completion_tokens};
    if (call->request.stream)
        return openai_stream_event(r, call, index, event);
    size_t before = gathered_bytes(call, index);
    int code = openai_gather_event(call, index, event, err);
    call->gathered_bytes += gathered_bytes(call, index) - before;
    return code < 0 ? code : gateway_hold(r, call->gathered_bytes + call->tokens.capacity, err);
}

static void on_end(struct gateway_request *r)
{
    struct openai_call *call = gateway_user(r);
    if (call->request.stream)
        openai_stream_end(r, call);
    else
        openai_gather_end(r, call);
}

static void on_fail(struct gateway_request *r, int code, const struct error *err)
{
    if (gateway_streams(r))
        openai_stream_fail(r, gateway_user(r), code, err);
    else
        gateway_fail(r, code, err);
}

static bool on_again(struct gateway_request *r)
{
    struct openai_call *call = gateway_user(r);
    if (call->told)
        return false;
    generations_done(call);
    generations_init(call);
    buf_clear(&call->tokens);
    call->gathered_bytes = 0;
    (void)!gateway_hold(r, call->tokens.capacity, NULL); /* less never fails */
    return true;
}

static const struct gateway_generate generate = {
    .make = on_make, .event = on_event, .end = on_end, .fail = on_fail, .again = on_again};

/* What the model can do decides here. */
static bool model_check(const struct openai_call *call, const struct tensor_signature *signature,
                        struct openai_error *error)
{
    static const struct {
        uint32_t flag;
        const char *text;
    } needs[OPENAI_KIND_COUNT] = {
        [OPENAI_CHAT] = {TENSOR_TOKEN_CHAT, "has no chat template that can be used; use /v1/completions"},
        [OPENAI_COMPLETION] = {TENSOR_TOKEN_ANSWER, "does not generate text"},
        [OPENAI_EMBEDDING] = {TENSOR_TOKEN_EMBED, "does not give embeddings"},
    };
    const struct openai_request *q = &call->request;
    const struct tensor_token_model *m = &signature->token;
    *error = (struct openai_error){.code = -ERROR_INVALID_REQUEST, .name = "invalid_value", .param = "model"};
    const char *text = NULL;
    if (m->sequences == 0)
        text = "is not a language model; use /v2/models/NAME/infer";
    else if ((m->flags & needs[q->kind].flag) != needs[q->kind].flag)
        text = needs[q->kind].text;
    if (text) {
        (void)snprintf(error->message, sizeof error->message, "The model `" STR_FORMAT "` %s.", STR_ARG(q->model),
                       text);
        return false;
    }
    if (q->common.tools.size > 0 && !(m->flags & TENSOR_TOKEN_TOOLS)) {
        (void)snprintf(error->param, sizeof error->param, "tools");
        (void)snprintf(error->message, sizeof error->message, "The chat template of the model knows no tools.");
        return false;
    }
    if (q->dimensions > 0 && q->dimensions != m->embedding) {
        (void)snprintf(error->param, sizeof error->param, "dimensions");
        (void)snprintf(error->message, sizeof error->message, "The model gives embeddings of %u dimensions only.",
                       m->embedding);
        return false;
    }
    if (q->kind == OPENAI_EMBEDDING && (uint64_t)q->n_prompts * m->embedding * sizeof(float) > LIMIT_GATHERED_BYTES) {
        (void)snprintf(error->param, sizeof error->param, "input");
        (void)snprintf(error->message, sizeof error->message,
                       "%u embeddings of %u dimensions are more than one answer holds.", q->n_prompts, m->embedding);
        return false;
    }
    return true;
}

static void on_signature(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct openai_call *call = gateway_user(r);
    struct openai_error error;
    if (!model_check(call, signature, &error)) {
        openai_call_refuse(r, &error);
        return;
    }
    call->context = signature->token.context;
    call->embedding = signature->token.embedding;
    if (!call_prepare(r, call))
        gateway_fail(r, -ERROR_NO_MEMORY, NULL);
    else
        gateway_generate(r, call->n, call->request.n, &generate);
}

static void model_fail(struct gateway_request *r, struct str model, int code, struct error *err)
{
    if (code == -ERROR_MODEL_NOT_FOUND)
        (void)error_set(err, code, "The model `" STR_FORMAT "` does not exist or you do not have access to it.",
                        STR_ARG(model));
    gateway_fail(r, code, err);
}

static struct gateway_version *model_find(struct gateway_request *r, struct str model)
{
    struct gateway_version *v = NULL;
    struct error err = {0};
    int code = gateway_model_find(r, model, &v, &err);
    if (code < 0) {
        model_fail(r, model, code, &err);
        return NULL;
    }
    return v;
}

static void handle(struct gateway_request *r, enum openai_kind kind)
{
    struct openai_call *call = openai_call_new(r, kind);
    if (!call)
        return;
    struct gateway_version *v = model_find(r, call->request.model);
    if (v)
        gateway_signature_wait(r, v, on_signature);
}

/* --- routes --- */

static void chat_completions(struct gateway_request *r)
{
    handle(r, OPENAI_CHAT);
}

static void completions(struct gateway_request *r)
{
    handle(r, OPENAI_COMPLETION);
}

static void embeddings(struct gateway_request *r)
{
    handle(r, OPENAI_EMBEDDING);
}

static void tokenize(struct gateway_request *r)
{
    handle(r, OPENAI_TOKENIZE);
}

static void detokenize(struct gateway_request *r)
{
    handle(r, OPENAI_DETOKENIZE);
}

/* Names are tokens: only what came from the client needs escaping. */
static void append_model(struct buf *b, struct str id, const struct gateway_card *card)
{
    struct str owner = card->owner.size > 0 ? card->owner : STR("bulkhead");
    buf_append_text(b, "{\"id\":");
    buf_append_json(b, id);
    buf_format(b, ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"" STR_FORMAT "\"}",
               (unsigned long long)card->created_s, STR_ARG(owner));
}

static void list_model(void *ctx, const struct gateway_card *card)
{
    struct buf *b = ctx;
    if (b->failed)
        return;
    if (b->data[b->size - 1] != '[')
        buf_append_char(b, ',');
    append_model(b, card->name, card);
}

static void answer(struct gateway_request *r, const struct buf *body)
{
    if (body->failed)
        gateway_fail(r, body->failed, NULL);
    else
        gateway_answer(r, 200, "application/json", NULL, 0, (struct str){body->data, body->size});
}

static void models(struct gateway_request *r)
{
    _buf_ struct buf body;
    buf_init(&body, 64 * MIB); /* LIMIT_MODELS and LIMIT_ADAPTERS × about 230 bytes, with room */
    buf_append_text(&body, "{\"object\":\"list\",\"data\":[");
    gateway_cards_each(r, list_model, &body);
    buf_append_text(&body, "]}");
    answer(r, &body);
}

/* Some clients write the colon of BASE:ADAPTER as %3A. No name has a percent sign. */
static struct str colon_decode(struct str name, char decoded[static 2 * LIMIT_NAME_BYTES + 1])
{
    for (size_t i = 0; i + 3 <= name.size && name.size - 2 <= 2 * LIMIT_NAME_BYTES + 1; i++) {
        bool here =
            name.data[i] == '%' && name.data[i + 1] == '3' && (name.data[i + 2] == 'A' || name.data[i + 2] == 'a');
        if (!here)
            continue;
        memcpy(decoded, name.data, i);
        decoded[i] = ':';
        memcpy(decoded + i + 1, name.data + i + 3, name.size - i - 3);
        return (struct str){decoded, name.size - 2};
    }
    return name;
}

static void model(struct gateway_request *r)
{
    _buf_ struct buf body;
    buf_init(&body, KIB);
    struct gateway_card card;
    struct error err = {0};
    char decoded[2 * LIMIT_NAME_BYTES + 1];
    struct str name = colon_decode(gateway_param(r, 0), decoded);
    int code = gateway_card_find(r, name, &card, &err);
    if (code < 0) {
        model_fail(r, name, code, &err);
        return;
    }
    append_model(&body, name, &card);
    answer(r, &body);
}

static const struct gateway_route routes[] = {
    {WIRE_POST, "/v1/chat/completions", GATEWAY_TENANT, true, SIZE_MAX, chat_completions,
     "The next message of a conversation."},
    {WIRE_POST, "/v1/completions", GATEWAY_TENANT, true, SIZE_MAX, completions, "How a text goes on."},
    {WIRE_POST, "/v1/embeddings", GATEWAY_TENANT, true, SIZE_MAX, embeddings, "Texts as vectors."},
    {WIRE_GET, "/v1/models", GATEWAY_TENANT, false, 0, models, "The tenant's models and adapters."},
    {WIRE_GET, "/v1/models/{}", GATEWAY_TENANT, false, 0, model, "One model."},
    {WIRE_POST, "/tokenize", GATEWAY_TENANT, true, SIZE_MAX, tokenize, "A text as a model's tokens."},
    {WIRE_POST, "/detokenize", GATEWAY_TENANT, true, SIZE_MAX, detokenize, "Tokens as text."},
};

const struct gateway_surface serve_openai_surface = {"openai", routes, sizeof routes / sizeof routes[0], "/v1/",
                                                     openai_failure_encode};
