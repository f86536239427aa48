/* The encoded event: numbers and lengths, then id, name, text, tokens, values. A token: id, logarithm, the length of
 * its text, the number of its rivals, the text, and each rival likewise. */
#include "tensor/generation_internal.h"

enum {
    VERSION = 1,
    HEAD_BYTES = 4 + 4 + 4 + 4 * 4 + 6 * 4,
    TOKEN_HEAD_BYTES = 4 + 4 + 2 + 1,
    TOP_HEAD_BYTES = 4 + 4 + 2,
    VALUE_BYTES = 4,
};

_Static_assert(HEAD_BYTES + 2 * LIMIT_REQUEST_ID_BYTES + LIMIT_EVENT_TEXT_BYTES + TOKEN_HEAD_BYTES + LIMIT_TOKEN_BYTES +
                       LIMIT_TOP_LOGPROBS * (TOP_HEAD_BYTES + LIMIT_TOKEN_BYTES) <=
                   LIMIT_EVENT_BYTES,
               "an event has room for a token with all its rivals");
_Static_assert(HEAD_BYTES + LIMIT_EVENT_TEXT_BYTES + LIMIT_EVENT_TOKENS * TOKEN_HEAD_BYTES <= LIMIT_EVENT_BYTES &&
                   HEAD_BYTES + LIMIT_EVENT_VALUES * VALUE_BYTES <= LIMIT_EVENT_BYTES,
               "and for what the limits say");

/* --- tokens --- */

static size_t token_size(const struct generation_token *t)
{
    size_t size = TOKEN_HEAD_BYTES + t->text.size;
    for (uint32_t i = 0; i < t->n_top; i++)
        size += TOP_HEAD_BYTES + t->top[i].text.size;
    return size;
}

static struct str text_cut(struct str text)
{
    return (struct str){text.data, text.size < LIMIT_TOKEN_BYTES ? text.size : LIMIT_TOKEN_BYTES};
}

int generation_event_add(struct generation_event *event, void *buffer, const struct generation_token *token)
{
    struct generation_token t = *token;
    if (t.n_top > LIMIT_TOP_LOGPROBS || event->n_tokens == LIMIT_EVENT_TOKENS)
        return -ERROR_LIMIT;
    t.text = text_cut(t.text);
    for (uint32_t i = 0; i < t.n_top; i++)
        t.top[i].text = text_cut(t.top[i].text);
    struct generation_event with = *event;
    with.tokens.size += token_size(&t);
    if (generation_event_size(&with) > LIMIT_EVENT_BYTES)
        return -ERROR_LIMIT;
    struct wire_writer w = {.data = buffer, .size = event->tokens.size};
    write_u64(&w, (uint32_t)t.id, 4);
    write_float(&w, t.logprob);
    write_u64(&w, t.text.size, 2);
    write_u64(&w, t.n_top, 1);
    write_bytes(&w, t.text.data, t.text.size);
    for (uint32_t i = 0; i < t.n_top; i++) {
        write_u64(&w, (uint32_t)t.top[i].id, 4);
        write_float(&w, t.top[i].logprob);
        write_u64(&w, t.top[i].text.size, 2);
        write_bytes(&w, t.top[i].text.data, t.top[i].text.size);
    }
    event->tokens = (struct str){buffer, w.size};
    event->n_tokens++;
    return 0;
}

static bool logprob_is(float value)
{
    return float_between(value, -9999, 0);
}

/* False when what is there is no token. */
static bool token_read(struct wire_reader *r, struct generation_token *t)
{
    t->id = read_i32(r);
    t->logprob = read_float(r);
    uint32_t size = read_u32(r, 2);
    t->n_top = read_u32(r, 1);
    if (r->failed || t->id < 0 || !logprob_is(t->logprob) || size > LIMIT_TOKEN_BYTES || t->n_top > LIMIT_TOP_LOGPROBS)
        return false;
    t->text = read_str(r, size);
    for (uint32_t i = 0; i < t->n_top; i++) {
        t->top[i].id = read_i32(r);
        t->top[i].logprob = read_float(r);
        size = read_u32(r, 2);
        if (t->top[i].id < 0 || !logprob_is(t->top[i].logprob) || size > LIMIT_TOKEN_BYTES)
            return false;
        t->top[i].text = read_str(r, size);
    }
    return !r->failed;
}

bool generation_event_token(struct str *rest, struct generation_token *ret_token)
{
    struct wire_reader r = {(const uint8_t *)rest->data, rest->size, false};
    if (rest->size == 0 || !token_read(&r, ret_token))
        return false;
    *rest = (struct str){(const char *)r.data, r.size};
    return true;
}

/* --- encoding --- */

size_t generation_event_size(const struct generation_event *e)
{
    return HEAD_BYTES + e->id.size + e->name.size + e->text.size + e->tokens.size + (size_t)e->n_values * VALUE_BYTES;
}

int generation_event_encode(const struct generation_event *e, void *data, size_t capacity, size_t *ret_size)
{
    if (e->id.size > LIMIT_REQUEST_ID_BYTES || e->name.size > LIMIT_REQUEST_ID_BYTES ||
        e->text.size > LIMIT_EVENT_TEXT_BYTES || e->n_tokens > LIMIT_EVENT_TOKENS || e->n_values > LIMIT_EVENT_VALUES)
        return -ERROR_LIMIT;
    size_t size = generation_event_size(e);
    if (size > LIMIT_EVENT_BYTES || size > capacity)
        return -ERROR_LIMIT;
    struct wire_writer w = {.data = data};
    write_u64(&w, VERSION, 1);
    write_u64(&w, e->kind, 1);
    write_u64(&w, e->finish, 1);
    write_u64(&w, e->id.size, 1);
    write_u64(&w, (uint32_t)e->status, 4);
    write_u64(&w, e->index, 4);
    write_u64(&w, e->prompt_tokens, 4);
    write_u64(&w, e->cached_tokens, 4);
    write_u64(&w, e->prompt_done, 4);
    write_u64(&w, e->completion_tokens, 4);
    write_u64(&w, e->name.size, 4);
    write_u64(&w, e->text.size, 4);
    write_u64(&w, e->n_tokens, 4);
    write_u64(&w, e->tokens.size, 4);
    write_u64(&w, e->n_values, 4);
    write_u64(&w, e->n_elements, 4);
    write_bytes(&w, e->id.data, e->id.size);
    write_bytes(&w, e->name.data, e->name.size);
    write_bytes(&w, e->text.data, e->text.size);
    write_bytes(&w, e->tokens.data, e->tokens.size);
    write_bytes(&w, e->values, (size_t)e->n_values * VALUE_BYTES);
    *ret_size = w.size;
    return 0;
}

/* --- decoding --- */

static const char *tokens_wrong(const struct generation_event *e)
{
    struct str rest = e->tokens;
    struct generation_token t;
    for (uint32_t i = 0; i < e->n_tokens; i++)
        if (!generation_event_token(&rest, &t))
            return "a token is out of range";
    return rest.size > 0 ? "bytes follow its tokens" : NULL;
}

static const char *end_wrong(const struct generation_event *e)
{
    bool end = e->kind == GENERATION_EVENT_END;
    if (end != (e->finish != GENERATION_RUNNING) || e->finish >= GENERATION_FINISH_COUNT)
        return "its end is told wrongly";
    if ((e->finish == GENERATION_ERROR) != (e->status != 0) || e->status > 0 || e->status <= -(int)ERROR_COUNT)
        return "its status is unknown";
    if (e->prompt_done > e->prompt_tokens || e->cached_tokens > e->prompt_done)
        return "its counts are out of range";
    return NULL;
}

static const char *event_wrong(const struct generation_event *e)
{
    if (e->kind <= GENERATION_EVENT_NONE || e->kind >= GENERATION_EVENT_KIND_COUNT)
        return "its kind is unknown";
    const char *reason = end_wrong(e);
    if (reason)
        return reason;
    if (!str_is_utf8(e->text) || !str_is_utf8(e->id) || !str_is_utf8(e->name))
        return "its text is not UTF-8";
    if ((e->kind != GENERATION_EVENT_TOOL && (e->id.size > 0 || e->name.size > 0)) ||
        (e->kind != GENERATION_EVENT_VECTOR && (e->n_values > 0 || e->n_elements > 0)))
        return "it has what its kind has not";
    if (e->kind == GENERATION_EVENT_VECTOR && (e->n_values > e->n_elements || e->index > e->n_elements - e->n_values))
        return "a vector's piece lies outside it";
    return tokens_wrong(e);
}

static bool event_read(struct wire_reader *r, struct generation_event *e)
{
    uint32_t version = read_u32(r, 1);
    e->kind = (enum generation_event_kind)read_u32(r, 1);
    e->finish = (enum generation_finish)read_u32(r, 1);
    uint32_t id = read_u32(r, 1);
    e->status = read_i32(r);
    e->index = read_u32(r, 4);
    e->prompt_tokens = read_u32(r, 4);
    e->cached_tokens = read_u32(r, 4);
    e->prompt_done = read_u32(r, 4);
    e->completion_tokens = read_u32(r, 4);
    uint32_t name = read_u32(r, 4), text = read_u32(r, 4);
    e->n_tokens = read_u32(r, 4);
    uint32_t tokens = read_u32(r, 4);
    e->n_values = read_u32(r, 4);
    e->n_elements = read_u32(r, 4);
    if (r->failed || version != VERSION || id > LIMIT_REQUEST_ID_BYTES || name > LIMIT_REQUEST_ID_BYTES ||
        text > LIMIT_EVENT_TEXT_BYTES || e->n_tokens > LIMIT_EVENT_TOKENS || e->n_values > LIMIT_EVENT_VALUES)
        return false;
    e->id = read_str(r, id);
    e->name = read_str(r, name);
    e->text = read_str(r, text);
    e->tokens = read_str(r, tokens);
    e->values = e->n_values > 0 ? read_bytes(r, (size_t)e->n_values * VALUE_BYTES) : NULL;
    return !r->failed && r->size == 0;
}

int generation_event_decode(const void *data, size_t size, struct generation_event *ret, struct error *err)
{
    struct wire_reader r = {data, size, false};
    struct generation_event e = {0};
    const char *reason = NULL;
    if (size > LIMIT_EVENT_BYTES || !event_read(&r, &e))
        reason = "its lengths do not add up";
    reason = reason ? reason : event_wrong(&e);
    if (reason)
        return error_set(err, ERROR_PEER, "A worker told of a generation wrongly: %s.", reason);
    *ret = e;
    return 0;
}
