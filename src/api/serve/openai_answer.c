/* Answers and chunks. What comes of a worker is text only where buf_append_json makes it JSON, and numbers were
 * checked to be finite. */
#include "api/serve/openai_codec.h"

#include <math.h>

static const char *const finish_texts[GENERATION_FINISH_COUNT] = {
    [GENERATION_STOP] = "stop",
    [GENERATION_LENGTH] = "length",
    [GENERATION_TOOL_CALLS] = "tool_calls",
    [GENERATION_ERROR] = "stop", /* told as a failure, not as an answer */
};

const char *openai_finish_text(enum generation_finish finish)
{
    return finish_texts[finish];
}

/* --- gathering --- */

void openai_choice_init(struct openai_choice *c, size_t bytes_max)
{
    *c = (struct openai_choice){.bytes_max = bytes_max};
    buf_init(&c->text, bytes_max);
    buf_init(&c->reasoning, bytes_max);
    for (unsigned i = 0; i < 4; i++)
        buf_init(&c->logprobs.lists[i], bytes_max);
}

void openai_choice_done(struct openai_choice *c)
{
    buf_done(&c->text);
    buf_done(&c->reasoning);
    for (unsigned i = 0; i < 4; i++)
        buf_done(&c->logprobs.lists[i]);
    for (uint32_t i = 0; i < c->n_tools; i++)
        buf_done(&c->tools[i].arguments);
    free(c->tools);
    c->tools = NULL;
    c->n_tools = 0;
}

static int tool_add(struct openai_choice *c, const struct generation_event *event)
{
    if (event->index > c->n_tools || event->index >= LIMIT_TOOLS)
        return -ERROR_PEER;
    if (event->index == c->n_tools) {
        struct openai_tool_call *tools = realloc(c->tools, (c->n_tools + 1) * sizeof *tools);
        if (!tools)
            return -ERROR_NO_MEMORY;
        c->tools = tools;
        struct openai_tool_call *call = &tools[c->n_tools];
        buf_init(&call->arguments, c->bytes_max);
        if (str_copy(event->id, call->id, sizeof call->id) < 0 ||
            str_copy(event->name, call->name, sizeof call->name) < 0)
            return -ERROR_PEER;
        c->n_tools++;
    }
    struct buf *arguments = &c->tools[event->index].arguments;
    buf_append_str(arguments, event->text);
    return arguments->failed;
}

/* --- probabilities --- */

static void append_number(struct buf *b, float value)
{
    buf_format(b, "%.9g", isfinite(value) ? (double)value : -9999.0);
}

static void append_chat_token(struct buf *b, struct str text, float logprob)
{
    buf_append_text(b, "{\"token\":");
    buf_append_json(b, text);
    buf_append_text(b, ",\"logprob\":");
    append_number(b, logprob);
    buf_append_text(b, ",\"bytes\":[");
    for (size_t i = 0; i < text.size; i++)
        buf_format(b, i > 0 ? ",%u" : "%u", (unsigned char)text.data[i]);
    buf_append_char(b, ']');
}

static void append_chat_entry(struct buf *b, const struct generation_token *token)
{
    append_chat_token(b, token->text, token->logprob);
    buf_append_text(b, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < token->n_top; i++) {
        if (i > 0)
            buf_append_char(b, ',');
        append_chat_token(b, token->top[i].text, token->top[i].logprob);
        buf_append_char(b, '}');
    }
    buf_append_text(b, "]}");
}

static uint64_t characters(struct str text)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.size; i++)
        n += ((unsigned char)text.data[i] & 0xC0u) != 0x80u;
    return n;
}

static void append_completion_entry(struct openai_logprobs *l, const struct generation_token *token)
{
    buf_append_json(&l->lists[0], token->text);
    append_number(&l->lists[1], token->logprob);
    buf_append_char(&l->lists[2], '{');
    for (uint32_t i = 0; i < token->n_top; i++) {
        if (i > 0)
            buf_append_char(&l->lists[2], ',');
        buf_append_json(&l->lists[2], token->top[i].text);
        buf_append_char(&l->lists[2], ':');
        append_number(&l->lists[2], token->top[i].logprob);
    }
    buf_append_char(&l->lists[2], '}');
    buf_format(&l->lists[3], "%llu", (unsigned long long)l->offset);
    l->offset += characters(token->text);
}

static int logprobs_add(struct openai_logprobs *l, enum openai_kind kind, const struct generation_event *event)
{
    struct str rest = event->tokens;
    struct generation_token token;
    while (generation_event_token(&rest, &token)) {
        for (unsigned i = 0; i < (kind == OPENAI_CHAT ? 1 : 4); i++)
            if (l->lists[i].size > 0)
                buf_append_char(&l->lists[i], ',');
        if (kind == OPENAI_CHAT)
            append_chat_entry(&l->lists[0], &token);
        else
            append_completion_entry(l, &token);
    }
    for (unsigned i = 0; i < 4; i++)
        if (l->lists[i].failed)
            return l->lists[i].failed;
    return 0;
}

int openai_choice_add(struct openai_choice *c, enum openai_kind kind, const struct generation_event *event,
                      bool logprobs)
{
    int code = 0;
    /* Of probabilities the JSON grows to about ten times the event's bytes. */
    size_t bytes = event->text.size + event->id.size + event->name.size + (logprobs ? 10 * event->tokens.size : 0);
    if (bytes > c->bytes_max - c->bytes)
        return -ERROR_LIMIT;
    c->bytes += bytes;
    if (event->kind == GENERATION_EVENT_TEXT)
        buf_append_str(&c->text, event->text);
    else if (event->kind == GENERATION_EVENT_REASONING)
        buf_append_str(&c->reasoning, event->text);
    else if (event->kind == GENERATION_EVENT_TOOL)
        code = tool_add(c, event);
    else if (event->kind == GENERATION_EVENT_END)
        c->finish = event->finish;
    if (code >= 0 && logprobs && event->kind != GENERATION_EVENT_END)
        code = logprobs_add(&c->logprobs, kind, event);
    if (code >= 0)
        code = c->text.failed ? c->text.failed : c->reasoning.failed;
    return code;
}

static void append_logprobs(struct buf *b, enum openai_kind kind, const struct openai_logprobs *l)
{
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
                                        "],\"text_offset\":["};
    if (kind == OPENAI_CHAT) {
        buf_append_text(b, "{\"content\":[");
        buf_append(b, l->lists[0].data, l->lists[0].size);
        buf_append_text(b, "],\"refusal\":null}");
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        buf_append_text(b, names[i]);
        buf_append(b, l->lists[i].data, l->lists[i].size);
    }
    buf_append_text(b, "]}");
}

/* --- whole answers --- */

static struct str content(const struct buf *b)
{
    return (struct str){b->data, b->size};
}

static void append_head(const struct openai_answer *a, const char *object, struct buf *b)
{
    buf_append_text(b, "{\"id\":");
    buf_append_json(b, a->id);
    buf_format(b, ",\"object\":\"%s\",\"created\":%llu,\"model\":", object, (unsigned long long)a->created);
    buf_append_json(b, a->model);
    buf_append_text(b, ",\"choices\":[");
}

static void append_usage(const struct openai_usage *usage, struct buf *b)
{
    buf_format(b,
               "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
               (unsigned long long)usage->prompt_tokens, (unsigned long long)usage->completion_tokens,
               (unsigned long long)(usage->prompt_tokens + usage->completion_tokens),
               (unsigned long long)usage->cached_tokens);
}

static void append_message(const struct openai_choice *c, struct buf *b)
{
    buf_append_text(b, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->text.size == 0 && c->n_tools > 0)
        buf_append_text(b, "null");
    else
        buf_append_json(b, content(&c->text));
    buf_append_text(b, ",\"refusal\":null");
    if (c->reasoning.size > 0) {
        buf_append_text(b, ",\"reasoning_content\":");
        buf_append_json(b, content(&c->reasoning));
    }
    for (uint32_t i = 0; i < c->n_tools; i++) {
        const struct openai_tool_call *call = &c->tools[i];
        buf_append_text(b, i == 0 ? ",\"tool_calls\":[" : ",");
        buf_append_text(b, "{\"id\":");
        buf_append_json(b, str_from(call->id));
        buf_append_text(b, ",\"type\":\"function\",\"function\":{\"name\":");
        buf_append_json(b, str_from(call->name));
        buf_append_text(b, ",\"arguments\":");
        buf_append_json(b, content(&call->arguments));
        buf_append_text(b, "}}");
    }
    buf_append_text(b, c->n_tools > 0 ? "]}" : "}");
}

static void append_finish(enum generation_finish finish, struct buf *b)
{
    const char *text = openai_finish_text(finish);
    if (text)
        buf_format(b, ",\"finish_reason\":\"%s\"}", text);
    else
        buf_append_text(b, ",\"finish_reason\":null}");
}

void openai_answer_encode(const struct openai_answer *a, const struct openai_choice *choices, uint32_t n_choices,
                          bool logprobs, const struct openai_usage *usage, struct buf *b)
{
    append_head(a, a->kind == OPENAI_CHAT ? "chat.completion" : "text_completion", b);
    for (uint32_t i = 0; i < n_choices; i++) {
        const struct openai_choice *c = &choices[i];
        buf_format(b, i > 0 ? ",{\"index\":%u," : "{\"index\":%u,", i);
        if (a->kind == OPENAI_CHAT) {
            append_message(c, b);
        } else {
            buf_append_text(b, "\"text\":");
            buf_append_json(b, content(&c->text));
        }
        buf_append_text(b, ",\"logprobs\":");
        if (logprobs)
            append_logprobs(b, a->kind, &c->logprobs);
        else
            buf_append_text(b, "null");
        append_finish(c->finish, b);
    }
    buf_append_text(b, "],");
    append_usage(usage, b);
    buf_append_char(b, '}');
}

/* --- chunks --- */

static void chunk_begin(const struct openai_answer *a, uint32_t index, struct buf *b)
{
    append_head(a, a->kind == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion", b);
    buf_format(b, "{\"index\":%u,", index);
}

static void chunk_end(enum generation_finish finish, bool usage_null, struct buf *b)
{
    append_finish(finish, b);
    buf_append_text(b, usage_null ? "],\"usage\":null}" : "]}");
}

void openai_chunk_role(const struct openai_answer *a, uint32_t index, bool usage_null, struct buf *b)
{
    chunk_begin(a, index, b);
    buf_append_text(b, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
    chunk_end(GENERATION_RUNNING, usage_null, b);
}

static void append_delta(const struct generation_event *event, struct buf *b)
{
    buf_append_text(b, "\"delta\":{");
    if (event->kind == GENERATION_EVENT_TEXT) {
        buf_append_text(b, "\"content\":");
        buf_append_json(b, event->text);
    } else if (event->kind == GENERATION_EVENT_REASONING) {
        buf_append_text(b, "\"reasoning_content\":");
        buf_append_json(b, event->text);
    } else if (event->kind == GENERATION_EVENT_TOOL) {
        buf_format(b, "\"tool_calls\":[{\"index\":%u,", event->index);
        if (event->name.size > 0) {
            buf_append_text(b, "\"id\":");
            buf_append_json(b, event->id);
            buf_append_text(b, ",\"type\":\"function\",\"function\":{\"name\":");
            buf_append_json(b, event->name);
            buf_append_char(b, ',');
        } else {
            buf_append_text(b, "\"function\":{");
        }
        buf_append_text(b, "\"arguments\":");
        buf_append_json(b, event->text);
        buf_append_text(b, "}}]");
    }
    buf_append_char(b, '}');
}

static void append_chunk_logprobs(const struct openai_answer *a, const struct generation_event *event, uint64_t *offset,
                                  struct buf *b)
{
    struct openai_logprobs l = {.offset = *offset};
    for (unsigned i = 0; i < 4; i++)
        buf_init(&l.lists[i], 64 * LIMIT_EVENT_BYTES);
    int code = logprobs_add(&l, a->kind, event);
    if (code < 0)
        b->failed = code;
    append_logprobs(b, a->kind, &l);
    *offset = l.offset;
    for (unsigned i = 0; i < 4; i++)
        buf_done(&l.lists[i]);
}

bool openai_chunk_event(const struct openai_answer *a, uint32_t index, const struct generation_event *event,
                        bool logprobs, bool usage_null, uint64_t *offset, struct buf *b)
{
    bool end = event->kind == GENERATION_EVENT_END;
    bool chat = a->kind == OPENAI_CHAT;
    bool text = event->kind == GENERATION_EVENT_TEXT ||
                (chat && (event->kind == GENERATION_EVENT_REASONING || event->kind == GENERATION_EVENT_TOOL));
    bool tokens = logprobs && text && event->n_tokens > 0;
    if (!end && !(text && (event->text.size > 0 || event->name.size > 0)) && !tokens)
        return false;
    chunk_begin(a, index, b);
    if (chat) {
        append_delta(event, b);
    } else {
        buf_append_text(b, "\"text\":");
        buf_append_json(b, end ? (struct str){0} : event->text);
    }
    buf_append_text(b, ",\"logprobs\":");
    if (tokens)
        append_chunk_logprobs(a, event, offset, b);
    else
        buf_append_text(b, "null");
    chunk_end(event->finish, usage_null, b);
    return true;
}

void openai_chunk_usage(const struct openai_answer *a, const struct openai_usage *usage, struct buf *b)
{
    append_head(a, a->kind == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion", b);
    buf_append_text(b, "],");
    append_usage(usage, b);
    buf_append_char(b, '}');
}

/* --- embeddings --- */

static void append_base64(const unsigned char *data, size_t size, struct buf *b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = buf_reserve(b, (size + 2) / 3 * 4);
    if (!to)
        return;
    for (size_t i = 0; i < size; i += 3) {
        size_t here = size - i < 3 ? size - i : 3;
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= here > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= here > 2 ? data[i + 2] : 0;
        for (size_t k = 0; k < 4; k++)
            *to++ = k <= here ? digits[bits >> (18 - 6 * k) & 63] : '=';
    }
    buf_commit(b, (size + 2) / 3 * 4);
}

void openai_embeddings_begin(struct buf *b)
{
    buf_append_text(b, "{\"object\":\"list\",\"data\":[");
}

void openai_embedding_append(uint32_t index, const float *values, uint32_t n, bool base64, struct buf *b)
{
    buf_format(b, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", index > 0 ? "," : "", index);
    if (base64) {
        buf_append_char(b, '"');
        append_base64((const unsigned char *)values, n * sizeof *values, b);
        buf_append_text(b, "\"}");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        buf_append_char(b, i > 0 ? ',' : '[');
        append_number(b, values[i]);
    }
    buf_append_text(b, n > 0 ? "]}" : "[]}");
}

void openai_embeddings_end(struct str model, uint64_t prompt_tokens, struct buf *b)
{
    buf_append_text(b, "],\"model\":");
    buf_append_json(b, model);
    buf_format(b, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}", (unsigned long long)prompt_tokens,
               (unsigned long long)prompt_tokens);
}
