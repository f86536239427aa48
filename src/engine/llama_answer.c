/* Chats: the template before the answer, and what the answer's text means under it. */
#include "engine/llama_internal.h"

#include "base/random.h"

int llama_chat_begin(struct llama *l, struct llama_sequence *s, struct str *ret_prompt, struct error *err)
{
    char reason[LLAMA_COMMON_ERROR_BYTES] = "";
    const struct generation *g = &s->g;
    if (!l->templates)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "This model has no chat template that can be used; ask for a completion.");
    if (g->prompt.size > (size_t)l->token.context * LLAMA_BYTES_PER_TOKEN_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "The messages do not fit the model's context of %u tokens.",
                         l->token.context);
    bool schema = g->grammar_kind == GENERATION_JSON_SCHEMA;
    struct llama_chat_request request = {
        .messages = g->prompt.data,
        .messages_size = g->prompt.size,
        .tools = g->tools.data,
        .tools_size = g->tools.size,
        .tool_choice = g->tool_choice.data,
        .tool_choice_size = g->tool_choice.size,
        .schema = g->grammar.data,
        .schema_size = schema ? g->grammar.size : 0,
        .grammar = g->grammar.data,
        .grammar_size = schema ? 0 : g->grammar.size,
        .one_call = g->flags & GENERATION_ONE_CALL,
    };
    /* the templates' code has other words for it */
    if (schema && !l->api->llama_schema_check(g->grammar.data, g->grammar.size, reason))
        return error_set(err, ERROR_INVALID_REQUEST, "The schema of the response format is refused: %s.", reason);
    s->chat = l->api->llama_chat_open(l->templates, &request, &ret_prompt->data, &ret_prompt->size, reason);
    if (!s->chat)
        return error_set(err, ERROR_INVALID_REQUEST, "The model's chat template does not take these messages: %s.",
                         reason);
    s->n_preserved = (uint32_t)l->api->llama_chat_preserved(s->chat, l->vocab, s->preserved, LLAMA_PRESERVED_MAX);
    return 0;
}

bool llama_chat_keeps(const struct llama_sequence *s, llama_token token)
{
    for (uint32_t i = 0; i < s->n_preserved; i++)
        if (s->preserved[i] == token)
            return true;
    return false;
}

static void id_make(char *id)
{
    memcpy(id, "call_", 5);
    random_base62(id + 5, 24);
}

struct teller {
    struct llama *l;
    struct llama_sequence *s;
    const struct engine_token_sink *sink;
    const struct generation_token *token; /* goes with the first event */
    int result;
};

/* At most `max` bytes of it, whole characters. */
static size_t cut(const char *text, size_t size, size_t max)
{
    if (size <= max)
        return size;
    while (max > 0 && ((unsigned char)text[max] & 0xC0) == 0x80)
        max--;
    return max;
}

static bool on_part(void *ctx, enum llama_chat_part part, uint32_t index, const char *id, const char *name,
                    const char *text, size_t size)
{
    static const enum generation_event_kind kinds[] = {
        [LLAMA_CHAT_TEXT] = GENERATION_EVENT_TEXT,
        [LLAMA_CHAT_REASONING] = GENERATION_EVENT_REASONING,
        [LLAMA_CHAT_TOOL] = GENERATION_EVENT_TOOL,
    };
    struct teller *t = ctx;
    struct str first = str_from(id), called = str_from(name);
    if (!str_is_utf8((struct str){text, size}) || !str_is_utf8(first) || !str_is_utf8(called))
        return true; /* half a character: the parser gives it again when it is whole */
    do {
        size_t n = cut(text, size, LIMIT_EVENT_TEXT_BYTES);
        struct generation_event event = llama_event(t->s, kinds[part]);
        event.index = part == LLAMA_CHAT_TOOL ? index : 0;
        event.id = (struct str){first.data, cut(first.data, first.size, LIMIT_REQUEST_ID_BYTES)};
        event.name = (struct str){called.data, cut(called.data, called.size, LIMIT_REQUEST_ID_BYTES)};
        event.text = (struct str){text, n};
        t->result = llama_tell(t->l, t->s, t->sink, &event, t->token);
        t->token = NULL;
        first = called = STR("");
        text += n;
        size -= n;
    } while (t->result == 0 && size > 0);
    return t->result == 0;
}

int llama_answer_tell(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink, struct str text,
                      const struct generation_token *token, bool last)
{
    struct teller t = {.l = l, .s = s, .sink = sink, .token = token};
    const struct llama_chat_sink parts = {.ctx = &t, .part = on_part, .id_make = id_make};
    if (!s->chat) {
        (void)on_part(&t, LLAMA_CHAT_TEXT, 0, "", "", text.data, text.size);
        return t.result;
    }
    if (text.size > 0 || last)
        (void)l->api->llama_chat_add(s->chat, text.data, text.size, last, &parts); /* t.result tells */
    if (t.result == 0 && t.token) /* nothing to tell yet but that there is one token more */
        (void)on_part(&t, LLAMA_CHAT_TEXT, 0, "", "", "", 0);
    return t.result;
}
