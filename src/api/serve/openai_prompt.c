/* Prompts: texts, tokens, messages. */
#include "api/serve/openai_request.h"

#include <stdio.h>

bool openai_json_write(struct openai_reader *p, yyjson_val *value, struct str *ret_text)
{
    size_t size = 0;
    char *text = yyjson_val_write_opts(value, YYJSON_WRITE_NOFLAG, &p->alc, &size, NULL);
    if (!text)
        return openai_refuse_memory(p->error);
    *ret_text = (struct str){text, size};
    return true;
}

/* --- texts and tokens --- */

static bool prompts_alloc(struct openai_reader *p, size_t n)
{
    p->request->prompts = arena_array(p->arena, n, sizeof *p->request->prompts);
    p->request->n_prompts = (uint32_t)n;
    return p->request->prompts || openai_refuse_memory(p->error);
}

static bool take_tokens(struct openai_reader *p, yyjson_val *array, struct openai_prompt *ret_prompt)
{
    size_t i, n = yyjson_arr_size(array), size;
    if (n > LIMIT_PROMPT_TOKENS)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "array_above_max_length", p->name,
                             "Invalid '%s': at most %u tokens are taken, but got %zu.", p->name, LIMIT_PROMPT_TOKENS,
                             n);
    int32_t *tokens = arena_array(p->arena, n, sizeof *tokens);
    if (!tokens)
        return openai_refuse_memory(p->error);
    yyjson_val *one;
    yyjson_arr_foreach(array, i, size, one)
    {
        int64_t number;
        if (!openai_take_int(one, p->name, 0, INT32_MAX, &number, p->error))
            return false;
        tokens[i] = (int32_t)number;
    }
    *ret_prompt = (struct openai_prompt){.tokens = tokens, .n_tokens = (uint32_t)n};
    return true;
}

static bool refuse_empty(struct openai_reader *p)
{
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "empty_array", p->name, "Invalid '%s': it must not be empty.",
                         p->name);
}

static bool take_one_prompt(struct openai_reader *p, yyjson_val *value, struct openai_prompt *ret_prompt)
{
    bool empty_text = p->request->kind == OPENAI_EMBEDDING && yyjson_is_str(value) && yyjson_get_len(value) == 0;
    if (empty_text || (yyjson_is_arr(value) && yyjson_arr_size(value) == 0))
        return refuse_empty(p);
    if (yyjson_is_arr(value))
        return take_tokens(p, value, ret_prompt);
    *ret_prompt = (struct openai_prompt){0};
    return openai_take_text(value, p->name, SIZE_MAX, &ret_prompt->text, p->error);
}

bool openai_take_prompts(struct openai_reader *p, yyjson_val *value)
{
    struct openai_request *r = p->request;
    bool one = r->kind == OPENAI_TOKENIZE || r->kind == OPENAI_DETOKENIZE;
    if (r->n_prompts > 0)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", p->name,
                             "'prompt' and 'content' cannot both be given.");
    if (r->kind == OPENAI_DETOKENIZE && !yyjson_is_arr(value))
        return openai_refuse_type(p->error, p->name, "an array of integers", value);
    if (r->kind == OPENAI_TOKENIZE && !yyjson_is_str(value))
        return openai_refuse_type(p->error, p->name, "a string", value);
    if (!yyjson_is_arr(value) && !yyjson_is_str(value))
        return openai_refuse_type(p->error, p->name, "a string or an array", value);
    size_t n = yyjson_arr_size(value);
    /* An array of numbers is one prompt of tokens. */
    if (one || yyjson_is_str(value) || n == 0 || yyjson_is_num(yyjson_arr_get_first(value)))
        return prompts_alloc(p, 1) && take_one_prompt(p, value, r->prompts);
    uint32_t max = r->kind == OPENAI_EMBEDDING ? LIMIT_EMBEDDINGS : LIMIT_CHOICES;
    if (n > max)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "array_above_max_length", p->name,
                             "Invalid '%s': array too long. Expected an array with maximum length %u, but got an array "
                             "with length %zu instead.",
                             p->name, max, n);
    if (!prompts_alloc(p, n))
        return false;
    r->parts = true;
    size_t i, size;
    yyjson_val *part;
    yyjson_arr_foreach(value, i, size, part)
    {
        if (!yyjson_is_str(part) && !yyjson_is_arr(part))
            return openai_refuse_type(p->error, p->name, "strings or arrays of integers", part);
        if (!take_one_prompt(p, part, &r->prompts[i]))
            return false;
    }
    return true;
}

/* --- messages --- */

/* "messages[3].content" for refusals. */
struct place {
    char text[64];
};

static struct place place(size_t index, const char *member)
{
    struct place here;
    (void)snprintf(here.text, sizeof here.text, "messages[%zu]%s%s", index, *member ? "." : "", member);
    return here;
}

static bool refuse_missing(struct openai_reader *p, size_t index, const char *member)
{
    struct place here = place(index, member);
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "missing_required_parameter", here.text,
                         "Missing required parameter: '%s'.", here.text);
}

static void text_set(yyjson_val *value, struct str text)
{
    (void)yyjson_set_strn(value, text.data, text.size); /* fails for NULL and containers only */
}

/* The models' templates know text only. */
static void refusal_rename(yyjson_val *part)
{
    yyjson_obj_iter iter = yyjson_obj_iter_with(part);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
        if (yyjson_equals_str(key, "type"))
            text_set(yyjson_obj_iter_get_val(key), STR("text"));
        else if (yyjson_equals_str(key, "text"))
            text_set(key, STR("ignored"));
        else if (yyjson_equals_str(key, "refusal"))
            text_set(key, STR("text"));
    }
}

static bool part_check(struct openai_reader *p, size_t index, yyjson_val *part)
{
    struct place here = place(index, "content");
    if (!OPENAI_ONCE(part, here.text, p->error, STR("type"), STR("text"), STR("refusal")))
        return false;
    yyjson_val *type = yyjson_obj_get(part, "type");
    if (!yyjson_is_obj(part))
        return openai_refuse_type(p->error, here.text, "an array of objects", part);
    bool refusal = yyjson_equals_str(type, "refusal");
    if (!refusal && !yyjson_equals_str(type, "text"))
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", here.text,
                             "Invalid content of '%s': the only type of content that is supported here is 'text'.",
                             here.text);
    yyjson_val *text = yyjson_obj_get(part, refusal ? "refusal" : "text");
    if (!yyjson_is_str(text))
        return openai_refuse_type(p->error, here.text, "text in each part", text);
    if (refusal)
        refusal_rename(part);
    return true;
}

static bool content_check(struct openai_reader *p, size_t index, yyjson_val *message, bool needed)
{
    yyjson_val *content = yyjson_obj_get(message, "content");
    if (!content || yyjson_is_null(content))
        return !needed || refuse_missing(p, index, "content");
    if (yyjson_is_str(content))
        return true;
    if (!yyjson_is_arr(content))
        return openai_refuse_type(p->error, place(index, "content").text, "a string or an array of objects", content);
    size_t i, n;
    yyjson_val *part;
    yyjson_arr_foreach(content, i, n, part)
    {
        if (!part_check(p, index, part))
            return false;
    }
    return true;
}

static bool calls_check(struct openai_reader *p, size_t index, yyjson_val *calls)
{
    struct place here = place(index, "tool_calls");
    size_t i, n;
    yyjson_val *call;
    if (!yyjson_is_arr(calls))
        return openai_refuse_type(p->error, here.text, "an array", calls);
    yyjson_arr_foreach(calls, i, n, call)
    {
        yyjson_val *function = yyjson_obj_get(call, "function");
        if (!OPENAI_ONCE(call, here.text, p->error, STR("id"), STR("type"), STR("function")) ||
            !OPENAI_ONCE(function, here.text, p->error, STR("name"), STR("arguments")))
            return false;
        if (!yyjson_equals_str(yyjson_obj_get(call, "type"), "function") ||
            !yyjson_is_str(yyjson_obj_get(call, "id")) || !yyjson_is_str(yyjson_obj_get(function, "name")) ||
            !yyjson_is_str(yyjson_obj_get(function, "arguments")))
            return openai_refuse(
                p->error, ERROR_INVALID_REQUEST, "invalid_value", here.text,
                "Invalid '%s': each call needs the type 'function' and the strings id, function.name and "
                "function.arguments.",
                here.text);
    }
    return true;
}

/* A text that need not be there; null is as good as none, and templates know none of it. */
static bool text_check(struct openai_reader *p, size_t index, yyjson_val *message, const char *member)
{
    yyjson_val *value = yyjson_obj_get(message, member);
    if (!value || yyjson_is_str(value))
        return true;
    if (!yyjson_is_null(value))
        return openai_refuse_type(p->error, place(index, member).text, "a string", value);
    text_set(value, STR(""));
    return true;
}

static bool members_check(struct openai_reader *p, size_t index, yyjson_val *message)
{
    if (!yyjson_is_obj(message))
        return openai_refuse_type(p->error, place(index, "").text, "an object", message);
    return OPENAI_ONCE(message, place(index, "").text, p->error, STR("role"), STR("content"), STR("name"),
                       STR("tool_calls"), STR("tool_call_id"), STR("reasoning_content")) &&
           text_check(p, index, message, "name") && text_check(p, index, message, "reasoning_content");
}

static bool message_check(struct openai_reader *p, size_t index, yyjson_val *message)
{
    if (!members_check(p, index, message))
        return false;
    yyjson_val *role = yyjson_obj_get(message, "role");
    yyjson_val *calls = yyjson_obj_get(message, "tool_calls");
    bool calling = calls && !yyjson_is_null(calls);
    if (!role)
        return refuse_missing(p, index, "role");
    if (yyjson_equals_str(role, "tool") && !yyjson_is_str(yyjson_obj_get(message, "tool_call_id")))
        return refuse_missing(p, index, "tool_call_id");
    if (!text_check(p, index, message, "tool_call_id") || (calling && !calls_check(p, index, calls)))
        return false;
    if (yyjson_equals_str(role, "assistant"))
        return content_check(p, index, message, !calling);
    if (yyjson_equals_str(role, "developer")) /* the models' templates know the role by its old name */
        text_set(role, STR("system"));
    if (yyjson_equals_str(role, "system") || yyjson_equals_str(role, "user") || yyjson_equals_str(role, "tool"))
        return content_check(p, index, message, true);
    struct place here = place(index, "role");
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", here.text,
                         "Invalid value for '%s'. Supported values are: 'system', 'developer', 'user', 'assistant' "
                         "and 'tool'.",
                         here.text);
}

bool openai_take_messages(struct openai_reader *p, yyjson_val *value)
{
    size_t i, n;
    yyjson_val *message;
    if (!yyjson_is_arr(value))
        return openai_refuse_type(p->error, p->name, "an array of objects", value);
    if (yyjson_arr_size(value) == 0)
        return refuse_empty(p);
    yyjson_arr_foreach(value, i, n, message)
    {
        if (!message_check(p, i, message))
            return false;
    }
    if (!prompts_alloc(p, 1))
        return false;
    p->request->prompts[0] = (struct openai_prompt){0};
    return openai_json_write(p, value, &p->request->prompts[0].text);
}
