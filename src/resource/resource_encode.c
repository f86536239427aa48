/* A kind's struct as JSON, by the same table. */
#include "resource/resource_internal.h"

static void append_map(struct buf *body, const struct resource_map *map)
{
    buf_append_char(body, '{');
    for (uint32_t i = 0; i < map->n; i++) {
        if (i > 0)
            buf_append_char(body, ',');
        buf_append_json(body, str_from(map->entries[i].key));
        buf_append_char(body, ':');
        buf_append_json(body, str_from(map->entries[i].value));
    }
    buf_append_char(body, '}');
}

static void append_words(struct buf *body, const struct resource_field *field, uint32_t words)
{
    bool first = true;
    buf_append_char(body, '[');
    for (uint32_t i = 0; field->names[i]; i++)
        if (words & (1u << i)) {
            buf_format(body, "%s\"%s\"", first ? "" : ",", field->names[i]);
            first = false;
        }
    buf_append_char(body, ']');
}

static void append_sizes(struct buf *body, const struct resource_sizes *sizes)
{
    buf_append_char(body, '[');
    for (uint32_t i = 0; i < sizes->n; i++)
        buf_format(body, "%s%u", i > 0 ? "," : "", sizes->values[i]);
    buf_append_char(body, ']');
}

static void append_devices(struct buf *body, const struct resource_devices *devices)
{
    buf_append_char(body, '[');
    for (uint32_t i = 0; i < devices->n; i++)
        buf_format(body, "%s{\"name\":\"%s\",\"slots\":%u}", i > 0 ? "," : "", devices->entries[i].name,
                   devices->entries[i].slots);
    buf_append_char(body, ']');
}

static void append_names(struct buf *body, const struct resource_names *names)
{
    buf_append_char(body, '[');
    for (uint32_t i = 0; i < names->n; i++)
        buf_format(body, "%s\"%s\"", i > 0 ? "," : "", names->entries[i]);
    buf_append_char(body, ']');
}

/* A field without a value is left out, so that what is not set stays not set. */
static bool is_absent(const struct resource_field *field, const void *resource)
{
    const char *member = (const char *)resource + field->offset;
    if (field->default_text || field->required || field->type == RESOURCE_BOOLEAN || field->type == RESOURCE_ENUM)
        return false;
    if (resource_type_is_number(field->type))
        return resource_value_number(field, resource) == field->absent;
    if (field->type == RESOURCE_MAP)
        return ((const struct resource_map *)(const void *)member)->n == 0;
    if (field->type == RESOURCE_SIZES)
        return ((const struct resource_sizes *)(const void *)member)->n == 0;
    if (field->type == RESOURCE_DEVICES)
        return ((const struct resource_devices *)(const void *)member)->n == 0;
    if (field->type == RESOURCE_NAMES)
        return ((const struct resource_names *)(const void *)member)->n == 0;
    return member[0] == '\0';
}

static void append_value(struct buf *body, const struct resource_field *field, const void *resource)
{
    const char *member = (const char *)resource + field->offset;
    if (field->type == RESOURCE_MAP) {
        append_map(body, (const void *)member);
    } else if (field->type == RESOURCE_ENUM) {
        uint32_t index;
        memcpy(&index, member, sizeof index);
        buf_append_json(body, str_from(field->names[index]));
    } else if (field->type == RESOURCE_SET) {
        uint32_t words;
        memcpy(&words, member, sizeof words);
        append_words(body, field, words);
    } else if (field->type == RESOURCE_SIZES) {
        append_sizes(body, (const void *)member);
    } else if (field->type == RESOURCE_DEVICES) {
        append_devices(body, (const void *)member);
    } else if (field->type == RESOURCE_NAMES) {
        append_names(body, (const void *)member);
    } else if (field->type == RESOURCE_BOOLEAN) {
        buf_append_text(body, *member ? "true" : "false");
    } else if (resource_type_is_number(field->type)) {
        char text[RESOURCE_VALUE_BYTES];
        resource_format_number(field->type, resource_value_number(field, resource), text);
        size_t size = strlen(text);
        bool bare = field->type != RESOURCE_DURATION && text[size - 1] >= '0' && text[size - 1] <= '9';
        buf_format(body, bare ? "%s" : "\"%s\"", text);
    } else {
        buf_append_json(body, str_from(member));
    }
}

/* Bytes of both paths up to and with the last dot before which they agree. */
static size_t common_prefix(struct str a, struct str b)
{
    size_t common = 0;
    for (size_t i = 0; i < a.size && i < b.size && a.data[i] == b.data[i]; i++)
        if (a.data[i] == '.')
            common = i + 1;
    return common;
}

static size_t dots(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.size; i++)
        n += s.data[i] == '.';
    return n;
}

/* Closes the objects of the path before that `path` is not in, opens those it is in, writes `"leaf":`. In the tables
 * fields of one object stand together. */
static void append_key(struct buf *body, struct str before, struct str path)
{
    size_t common = common_prefix(before, path);
    for (size_t n = dots(str_skip(before, common)); n > 0; n--)
        buf_append_char(body, '}');
    buf_append_char(body, ',');
    size_t start = common;
    for (size_t i = common; i < path.size; i++)
        if (path.data[i] == '.') {
            buf_format(body, "\"%.*s\":{", (int)(i - start), path.data + start);
            start = i + 1;
        }
    buf_format(body, "\"%.*s\":", (int)(path.size - start), path.data + start);
}

void resource_encode(enum resource_kind kind, const void *resource, const char *status_json, struct buf *body)
{
    const struct resource_kind_info *info = &resource_kinds[kind];
    struct str before = STR("kind"); /* as if it were a field: what is open is its object, the document */
    buf_format(body, "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"%s\"", info->name);
    for (size_t i = 0; i < info->n_fields; i++) {
        const struct resource_field *field = &info->fields[i];
        if (is_absent(field, resource))
            continue;
        append_key(body, before, str_from(field->path));
        append_value(body, field, resource);
        before = str_from(field->path);
    }
    for (size_t n = dots(before); n > 0; n--)
        buf_append_char(body, '}');
    if (status_json) {
        buf_append_text(body, ",\"status\":");
        buf_append_text(body, status_json);
    }
    buf_append_char(body, '}');
}
