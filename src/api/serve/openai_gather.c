/* Answers in one piece: what the events bring is kept until all generations have ended. */
#include "api/serve/openai_call.h"

#include <math.h>

static int vector_add(struct openai_vector *v, uint32_t n, const struct generation_event *event, struct error *err)
{
    if (!v->values) {
        v->values = calloc(n > 0 ? n : 1, sizeof *v->values);
        if (!v->values)
            return error_set_default(err, ERROR_NO_MEMORY);
        v->n = n;
    }
    if (event->n_elements != v->n || event->index != v->n_here || event->n_values > v->n - v->n_here)
        return error_set(err, ERROR_ENGINE, "The model gave an embedding that does not fit together.");
    memcpy(v->values + v->n_here, event->values, event->n_values * sizeof *v->values);
    for (uint32_t i = 0; i < event->n_values; i++)
        if (!isfinite(v->values[v->n_here + i]))
            return error_set(err, ERROR_ENGINE, "The model gave an embedding with a value that is no number.");
    v->n_here += event->n_values;
    return 0;
}

static int tokens_add(struct openai_call *call, const struct generation_event *event)
{
    struct str rest = event->tokens;
    struct generation_token token;
    while (generation_event_token(&rest, &token))
        buf_append(&call->tokens, &token.id, sizeof token.id);
    return call->tokens.failed;
}

int openai_gather_event(struct openai_call *call, uint32_t index, const struct generation_event *event,
                        struct error *err)
{
    int code;
    if (event->kind == GENERATION_EVENT_VECTOR)
        return call->vectors ? vector_add(&call->vectors[index], call->embedding, event, err)
                             : error_set(err, ERROR_ENGINE, "The model gave an embedding that nobody asked for.");
    if (event->kind == GENERATION_EVENT_TOKENS)
        code = tokens_add(call, event);
    else
        code = openai_choice_add(&call->choices[index], call->request.kind, event,
                                 call->request.common.flags & GENERATION_LOGPROBS);
    if (code == -ERROR_LIMIT)
        return error_set(err, ERROR_ENGINE, "The answer is larger than the server gathers; ask for it as a stream.");
    return code < 0 ? error_set_default(err, code == -ERROR_PEER ? ERROR_ENGINE : code) : 0;
}

static int embeddings_encode(struct openai_call *call, struct error *err)
{
    struct openai_usage usage = openai_call_usage(call);
    openai_embeddings_begin(&call->out);
    for (uint32_t i = 0; i < call->n; i++) {
        const struct openai_vector *v = &call->vectors[i];
        if (v->n_here == 0 || v->n_here < v->n)
            return error_set(err, ERROR_ENGINE, "The model gave no embedding, or only a part of one.");
        openai_embedding_append(i, v->values, v->n, call->request.base64, &call->out);
    }
    openai_embeddings_end(call->answer.model, usage.prompt_tokens, &call->out);
    return 0;
}

static void tokens_encode(struct openai_call *call)
{
    size_t n = call->tokens.size / sizeof(int32_t);
    buf_format(&call->out, "{\"count\":%zu,\"max_model_len\":%u,\"tokens\":[", n, call->context);
    for (size_t i = 0; i < n; i++) {
        int32_t token;
        memcpy(&token, call->tokens.data + i * sizeof token, sizeof token);
        buf_format(&call->out, i > 0 ? ",%d" : "%d", token);
    }
    buf_append_text(&call->out, "]}");
}

static void text_encode(struct openai_call *call)
{
    struct str text = {call->choices[0].text.data, call->choices[0].text.size};
    buf_append_text(&call->out, "{\"prompt\":");
    buf_append_json(&call->out, text);
    buf_append_char(&call->out, '}');
}

void openai_gather_end(struct gateway_request *r, struct openai_call *call)
{
    struct openai_usage usage = openai_call_usage(call);
    struct error err = {0};
    int code = 0;
    buf_clear(&call->out);
    switch (call->request.kind) {
    case OPENAI_CHAT:
    case OPENAI_COMPLETION:
        openai_answer_encode(&call->answer, call->choices, call->n, call->request.common.flags & GENERATION_LOGPROBS,
                             &usage, &call->out);
        break;
    case OPENAI_EMBEDDING:
        code = embeddings_encode(call, &err);
        break;
    case OPENAI_TOKENIZE:
        tokens_encode(call);
        break;
    case OPENAI_DETOKENIZE:
        text_encode(call);
        break;
    case OPENAI_GENERATE: /* never here: oip_generate.c */
    case OPENAI_KIND_COUNT:
        break;
    }
    if (code >= 0)
        code = call->out.failed;
    if (code >= 0)
        code = gateway_hold(r, call->gathered_bytes + call->tokens.capacity + call->out.capacity, &err);
    if (code >= 0)
        code = gateway_answer_admit(r, call->out.size, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        gateway_answer(r, 200, "application/json", NULL, 0, (struct str){call->out.data, call->out.size});
}
