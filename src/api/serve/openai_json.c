#include "api/serve/openai_json.h"

#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>

bool openai_refuse(struct openai_error *error, int code, const char *name, const char *param, const char *format, ...)
{
    *error = (struct openai_error){.code = code < 0 ? code : -code, .name = name};
    if (param)
        (void)snprintf(error->param, sizeof error->param, "%s", param);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return false;
}

bool openai_refuse_memory(struct openai_error *error)
{
    return openai_refuse(error, ERROR_NO_MEMORY, NULL, NULL, "%s", error_info(-ERROR_NO_MEMORY)->text);
}

static void *alloc(void *ctx, size_t size)
{
    return arena_alloc(ctx, size);
}

static void *alloc_again(void *ctx, void *memory, size_t old_size, size_t size)
{
    if (size <= old_size)
        return memory;
    void *moved = arena_alloc(ctx, size);
    if (moved)
        memcpy(moved, memory, old_size);
    return moved;
}

static void alloc_free(void *ctx, void *memory)
{
    (void)ctx; /* with the arena */
    (void)memory;
}

void openai_json_alloc_init(yyjson_alc *alc, struct arena *arena)
{
    *alc = (yyjson_alc){alloc, alloc_again, alloc_free, arena};
}

static bool body_within(enum openai_kind kind, struct str body, struct openai_error *error)
{
    bool tokens = kind == OPENAI_COMPLETION || kind == OPENAI_EMBEDDING || kind == OPENAI_DETOKENIZE;
    uint32_t entries = LIMIT_JSON_NODES + (tokens ? LIMIT_PROMPT_TOKENS : 0);
    struct json_bound bound = {.nodes = LIMIT_JSON_NODES, .members = LIMIT_JSON_NODES, .entries = entries};
    return json_within(body, &bound) ||
           openai_refuse(error, ERROR_INVALID_REQUEST, "request_too_large", NULL,
                         "The JSON body of your request holds too much: at most %u strings, arrays and objects, and %u "
                         "entries of arrays and objects, are taken.",
                         LIMIT_JSON_NODES, entries);
}

yyjson_val *openai_json_parse(enum openai_kind kind, struct str body, struct arena *arena, struct openai_error *error)
{
    if (!body_within(kind, body, error))
        return NULL;
    yyjson_alc alc;
    openai_json_alloc_init(&alc, arena);
    yyjson_read_err failure;
    yyjson_doc *doc = NULL;
    if (body.size > 0) /* the cast drops const only: without INSITU the text is not written to */
        doc = yyjson_read_opts((char *)(uintptr_t)body.data, body.size, YYJSON_READ_NOFLAG, &alc, &failure);
    if (!doc && body.size > 0 && failure.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) {
        (void)openai_refuse_memory(error);
        return NULL;
    }
    if (!doc) {
        (void)openai_refuse(error, ERROR_INVALID_JSON, NULL, NULL,
                            "We could not parse the JSON body of your request: %s at byte %zu.",
                            body.size > 0 ? failure.msg : "it is empty", body.size > 0 ? failure.pos : 0);
        return NULL;
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (yyjson_is_obj(root))
        return root;
    (void)openai_refuse(error, ERROR_INVALID_REQUEST, NULL, NULL,
                        "The body of the request must be a JSON object, but is %s.", openai_json_type(root));
    return NULL;
}

const char *openai_json_type(yyjson_val *value)
{
    switch (yyjson_get_type(value)) {
    case YYJSON_TYPE_NULL:
        return "null";
    case YYJSON_TYPE_BOOL:
        return "a boolean";
    case YYJSON_TYPE_NUM:
        return yyjson_is_int(value) ? "an integer" : "a decimal";
    case YYJSON_TYPE_STR:
        return "a string";
    case YYJSON_TYPE_ARR:
        return "an array";
    case YYJSON_TYPE_OBJ:
        return "an object";
    default:
        return "nothing";
    }
}

bool openai_refuse_type(struct openai_error *error, const char *param, const char *wanted, yyjson_val *value)
{
    return openai_refuse(error, ERROR_INVALID_REQUEST, "invalid_type", param,
                         "Invalid type for '%s': expected %s, but got %s instead.", param, wanted,
                         openai_json_type(value));
}

bool openai_once(yyjson_val *object, const struct str *names, size_t n, const char *param, struct openai_error *error)
{
    uint32_t seen = 0;
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
        size_t i = 0;
        while (i < n && !str_equal(names[i], openai_json_str(key)))
            i++;
        if (i < n && (seen >> i & 1))
            return openai_refuse(error, ERROR_INVALID_REQUEST, "invalid_value", param, "'%s' of '%s' is there twice.",
                                 names[i].data, param);
        seen |= i < n ? 1u << i : 0;
    }
    return true;
}

bool openai_take_bool(yyjson_val *value, const char *param, bool *ret, struct openai_error *error)
{
    if (!yyjson_is_bool(value))
        return openai_refuse_type(error, param, "a boolean", value);
    *ret = yyjson_get_bool(value);
    return true;
}

bool openai_take_int(yyjson_val *value, const char *param, int64_t min, int64_t max, int64_t *ret,
                     struct openai_error *error)
{
    if (!yyjson_is_int(value))
        return openai_refuse_type(error, param, "an integer", value);
    bool above = yyjson_is_uint(value) && yyjson_get_uint(value) > (uint64_t)INT64_MAX;
    int64_t number = above ? INT64_MAX : yyjson_get_sint(value);
    if (above || number > max)
        return openai_refuse(error, ERROR_INVALID_REQUEST, "integer_above_max_value", param,
                             "Invalid '%s': integer above maximum value. Expected a value <= %lld.", param,
                             (long long)max);
    if (number < min)
        return openai_refuse(error, ERROR_INVALID_REQUEST, "integer_below_min_value", param,
                             "Invalid '%s': integer below minimum value. Expected a value >= %lld.", param,
                             (long long)min);
    *ret = number;
    return true;
}

bool openai_take_number(yyjson_val *value, const char *param, double min, double max, float *ret,
                        struct openai_error *error)
{
    if (!yyjson_is_num(value))
        return openai_refuse_type(error, param, "a decimal", value);
    double number = yyjson_get_num(value);
    if (!(number <= max))
        return openai_refuse(error, ERROR_INVALID_REQUEST, "decimal_above_max_value", param,
                             "Invalid '%s': decimal above maximum value. Expected a value <= %g.", param, max);
    if (!(number >= min))
        return openai_refuse(error, ERROR_INVALID_REQUEST, "decimal_below_min_value", param,
                             "Invalid '%s': decimal below minimum value. Expected a value >= %g.", param, min);
    *ret = (float)number;
    return true;
}

bool openai_take_text(yyjson_val *value, const char *param, size_t bytes_max, struct str *ret,
                      struct openai_error *error)
{
    if (!yyjson_is_str(value))
        return openai_refuse_type(error, param, "a string", value);
    struct str text = openai_json_str(value);
    if (text.size > bytes_max)
        return openai_refuse(error, ERROR_INVALID_REQUEST, "string_above_max_length", param,
                             "Invalid '%s': string too long. Expected a string with maximum length %zu bytes, but got "
                             "one with %zu bytes instead.",
                             param, bytes_max, text.size);
    *ret = text;
    return true;
}
