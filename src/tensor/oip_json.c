/* There is no limit of nesting: yyjson walks nested values without recursion and nothing here follows them deeper than
 * a shape's rank, so deep nesting costs 16 bytes a level and no stack. */
#include "tensor/oip_internal.h"

#include "base/json.h"

#include <stdio.h>

/* Big integers stay text, so that their range can be told; so do numbers beyond FP64. */
#define READ_FLAGS YYJSON_READ_BIGNUM_AS_RAW

static size_t heap_left(const struct oip_json *json)
{
    size_t used = json->_arena->bytes + json->_heap_bytes;
    return used < json->_arena->bytes_max ? json->_arena->bytes_max - used : 0;
}

static void *heap_alloc(void *context, size_t size)
{
    struct oip_json *json = context;
    if (size > heap_left(json))
        return NULL;
    void *memory = malloc(size);
    if (memory)
        json->_heap_bytes += size;
    return memory;
}

static void *heap_realloc(void *context, void *memory, size_t old_size, size_t size)
{
    struct oip_json *json = context;
    if (size > old_size && size - old_size > heap_left(json))
        return NULL;
    void *moved = realloc(memory, size);
    if (moved)
        json->_heap_bytes += size - old_size; /* modulo 2^64 when it shrinks */
    return moved;
}

static void heap_free(void *context, void *memory)
{
    (void)context; /* what was freed stays counted: yyjson frees at the end only */
    free(memory);
}

static int refuse_json(struct str text, const yyjson_read_err *failure, struct error *err)
{
    if (failure->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_set(err, ERROR_NO_MEMORY,
                         "The JSON part of %zu bytes needs more memory than one request may take; "
                         "send large tensors as binary data.",
                         text.size);
    size_t position = failure->pos <= text.size ? failure->pos : text.size;
    size_t line = 1, column = 1;
    for (size_t i = 0; i < position; i++) {
        column = text.data[i] == '\n' ? 1 : column + 1;
        line += text.data[i] == '\n';
    }
    return error_set(err, ERROR_INVALID_JSON, "The body is not valid JSON at line %zu, column %zu (byte %zu): %s.",
                     line, column, position, failure->msg);
}

int oip_json_parse(struct oip_json *json, struct str text, struct arena *arena, struct error *err)
{
    if (text.size == 0)
        return error_set(err, ERROR_INVALID_JSON, "The body holds no JSON; an inference request is a JSON object.");
    static const struct json_bound bound = {
        .nodes = LIMIT_JSON_ENTRIES, .members = LIMIT_JSON_NODES, .entries = LIMIT_JSON_ENTRIES};
    if (!json_within(text, &bound))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "The JSON holds too much: at most %u entries of arrays, strings and arrays, and %u members of "
                         "objects, are taken; send large tensors as binary data.",
                         LIMIT_JSON_ENTRIES, LIMIT_JSON_NODES);
    json->_arena = arena;
    json->_heap_bytes = 0;
    size_t memory_max = yyjson_read_max_memory_usage(text.size, READ_FLAGS);
    if (memory_max == 0 || memory_max > sizeof json->_pool ||
        !yyjson_alc_pool_init(&json->_alc, json->_pool, memory_max))
        json->_alc = (yyjson_alc){heap_alloc, heap_realloc, heap_free, json};

    yyjson_read_err failure;
    /* The cast drops const only: without YYJSON_READ_INSITU the text is not written to. */
    json->doc = yyjson_read_opts((char *)(uintptr_t)text.data, text.size, READ_FLAGS, &json->_alc, &failure);
    return json->doc ? 0 : refuse_json(text, &failure, err);
}

void oip_json_done(struct oip_json *json)
{
    yyjson_doc_free(json->doc);
    json->doc = NULL;
}

void *oip_json_alloc(struct oip_json *json, size_t size)
{
    return size <= heap_left(json) ? arena_alloc(json->_arena, size) : NULL;
}

static bool kind_matches(yyjson_val *value, enum oip_kind kind)
{
    switch (kind) {
    case OIP_STRING:
        return yyjson_is_str(value);
    case OIP_ARRAY:
        return yyjson_is_arr(value);
    case OIP_OBJECT:
        return yyjson_is_obj(value);
    case OIP_BOOL:
        return yyjson_is_bool(value);
    case OIP_COUNT:
        return yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX;
    }
    return false;
}

static const char *kind_text(enum oip_kind kind)
{
    static const char *const texts[] = {
        [OIP_STRING] = "a string", [OIP_ARRAY] = "an array",           [OIP_OBJECT] = "an object",
        [OIP_BOOL] = "a boolean",  [OIP_COUNT] = "a whole number ≥ 0",
    };
    return texts[kind];
}

static size_t member_find(const struct oip_member *table, size_t n, struct str name)
{
    size_t i = 0;
    while (i < n && !str_equal(table[i].name, name))
        i++;
    return i;
}

int oip_json_members(yyjson_val *object, const struct oip_member *table, size_t n, bool open,
                     const struct oip_where *where, yyjson_val **values, struct error *err)
{
    for (size_t i = 0; i < n; i++)
        values[i] = NULL;
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key = yyjson_obj_iter_next(&iter); key; key = yyjson_obj_iter_next(&iter)) {
        struct str name = {unsafe_yyjson_get_str(key), unsafe_yyjson_get_len(key)};
        size_t i = member_find(table, n, name);
        if (i == n) {
            if (open)
                continue;
            name = oip_name_shown(name);
            return error_set(err, ERROR_INVALID_REQUEST, "%s has an unknown member \"" STR_FORMAT "\".",
                             OIP_WHERE(where), STR_ARG(name));
        }
        if (values[i])
            return error_set(err, ERROR_INVALID_REQUEST, "%s has the member \"%s\" twice.", OIP_WHERE(where),
                             table[i].name.data);
        values[i] = yyjson_obj_iter_get_val(key);
        if (!kind_matches(values[i], table[i].kind))
            return error_set(err, ERROR_INVALID_REQUEST, "The member \"%s\" of %s must be %s.", table[i].name.data,
                             OIP_WHERE(where), kind_text(table[i].kind));
    }
    return 0;
}

struct str oip_name_shown(struct str name)
{
    if (name.size <= OIP_NAME_SHOWN_BYTES)
        return name;
    name.size = OIP_NAME_SHOWN_BYTES;
    while (name.size > 0 && ((unsigned char)name.data[name.size] & 0xC0u) == 0x80u)
        name.size--;
    return name;
}

const char *oip_where_text(const struct oip_where *where, char text[static OIP_WHERE_BYTES])
{
    struct str name = oip_name_shown(where->name);
    if (!where->kind)
        (void)snprintf(text, OIP_WHERE_BYTES, "the request");
    else if (name.size == 0)
        (void)snprintf(text, OIP_WHERE_BYTES, "%ss[%u]", where->kind, where->index);
    else
        (void)snprintf(text, OIP_WHERE_BYTES, "%s \"" STR_FORMAT "\"", where->kind, STR_ARG(name));
    return text;
}
