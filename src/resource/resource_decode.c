/* A JSON document against its kind's table. The walk follows the document, not the table, so that every member is
 * either known or complained about; it goes only where the table goes, so its depth is the table's. */
#include "resource/resource_internal.h"

#include <assert.h>
#include <stdio.h>

enum { FIELDS_MAX = 64 };

struct decode {
    const struct resource_kind_info *info;
    union resource_any *resource;
    bool seen[FIELDS_MAX];
    struct error *err;
};

/* "Model acme/digits", as far as the names are names. */
static void make_title(const struct resource_kind_info *info, yyjson_val *document,
                       char title[static RESOURCE_TITLE_BYTES])
{
    yyjson_val *meta = yyjson_obj_get(document, "metadata");
    yyjson_val *name = yyjson_obj_get(meta, "name"), *tenant = yyjson_obj_get(meta, "tenant");
    struct str n = {yyjson_get_str(name), yyjson_get_len(name)}, t = {yyjson_get_str(tenant), yyjson_get_len(tenant)};
    bool has_name = name && n.data && str_is_name(n), has_tenant = info->tenanted && t.data && str_is_name(t);
    (void)snprintf(title, RESOURCE_TITLE_BYTES, "%s%s" STR_FORMAT "%s" STR_FORMAT, info->name, has_name ? " " : "",
                   has_name && has_tenant ? (int)t.size : 0, t.data ? t.data : "", has_name && has_tenant ? "/" : "",
                   has_name ? (int)n.size : 0, n.data ? n.data : "");
}

/* The member of `prefix` on the way to `path`: ("spec.", "spec.quota.burst") → "quota"; empty when not on the way. */
static struct str member_below(struct str prefix, const char *path)
{
    struct str s = str_from(path);
    if (!str_starts(s, prefix))
        return (struct str){NULL, 0};
    s = str_skip(s, prefix.size);
    const char *dot = memchr(s.data, '.', s.size);
    return (struct str){s.data, dot ? (size_t)(dot - s.data) : s.size};
}

static int unknown_field(struct decode *d, struct str prefix, struct str member)
{
    char where[RESOURCE_PATH_BYTES];
    /* what a document calls it is the peer's: cut, and never a control character */
    struct str shown = {member.data, member.size < LIMIT_NAME_BYTES ? member.size : LIMIT_NAME_BYTES};
    (void)snprintf(where, sizeof where, STR_FORMAT STR_FORMAT, STR_ARG(prefix), STR_ARG(shown));
    for (char *c = where; *c; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7F)
            *c = '?';
    struct resource_suggestion near = {.wanted = member};
    const char *elsewhere = NULL;
    for (size_t i = 0; i < d->info->n_fields; i++) {
        const char *path = d->info->fields[i].path, *leaf = strrchr(path, '.');
        struct str sibling = member_below(prefix, path);
        if (sibling.size > 0)
            resource_suggest_offer(&near, sibling);
        if (!elsewhere && leaf && str_equal_nocase(member, str_from(leaf + 1)))
            elsewhere = path;
    }
    if (near.best.size > 0)
        return error_set(d->err, ERROR_INVALID_RESOURCE, "%s: unknown field (did you mean \"" STR_FORMAT "\"?)", where,
                         STR_ARG(near.best));
    if (elsewhere)
        return error_set(d->err, ERROR_INVALID_RESOURCE, "%s: unknown field (did you mean \"%s\"?)", where, elsewhere);
    return error_set(d->err, ERROR_INVALID_RESOURCE, "%s: unknown field", where);
}

static int decode_object(struct decode *d, yyjson_val *object, struct str prefix);

/* One member of an object; `path` is its full path. */
static int decode_member(struct decode *d, yyjson_val *value, struct str prefix, struct str path)
{
    for (size_t i = 0; i < d->info->n_fields; i++) {
        const struct resource_field *field = &d->info->fields[i];
        if (!str_equal(path, str_from(field->path)))
            continue;
        d->seen[i] = true;
        int result = resource_value_from_json(field, value, d->resource, d->err);
        return result < 0 ? error_wrap(d->err, result, "%s", field->path) : 0;
    }
    char deeper[RESOURCE_PATH_BYTES];
    int size = snprintf(deeper, sizeof deeper, STR_FORMAT ".", STR_ARG(path));
    for (size_t i = 0; size > 0 && (size_t)size < sizeof deeper && i < d->info->n_fields; i++)
        if (str_starts(str_from(d->info->fields[i].path), (struct str){deeper, (size_t)size}))
            return decode_object(d, value, (struct str){deeper, (size_t)size});
    return unknown_field(d, prefix, str_skip(path, prefix.size));
}

/* Was the member of that name given before, in the same object? Every earlier one was known, so they are few. */
static bool given_before(yyjson_val *object, yyjson_val *key)
{
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    yyjson_val *other;
    while ((other = yyjson_obj_iter_next(&iter)) && other != key)
        if (yyjson_equals_strn(other, yyjson_get_str(key), yyjson_get_len(key)))
            return true;
    return false;
}

/* `prefix` is "" or ends in a dot. */
static int decode_object(struct decode *d, yyjson_val *object, struct str prefix)
{
    if (!yyjson_is_obj(object)) {
        char found[64];
        resource_value_describe(object, found);
        return error_set(d->err, ERROR_INVALID_RESOURCE, STR_FORMAT ": expected an object, found %s",
                         (int)prefix.size - 1, prefix.data, found);
    }
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    yyjson_val *key;
    while ((key = yyjson_obj_iter_next(&iter))) {
        struct str name = {yyjson_get_str(key), yyjson_get_len(key)};
        bool top = prefix.size == 0;
        if (top && (str_equal(name, STR("apiVersion")) || str_equal(name, STR("kind"))) && !given_before(object, key))
            continue; /* resource_peek saw them */
        if (top && str_equal(name, STR("status")))
            continue; /* what `get -o yaml` shows may be applied again */
        char path[RESOURCE_PATH_BYTES];
        int size = snprintf(path, sizeof path, STR_FORMAT STR_FORMAT, STR_ARG(prefix), STR_ARG(name));
        if (name.size == 0 || size < 0 || (size_t)size >= sizeof path || memchr(name.data, '.', name.size))
            return unknown_field(d, prefix, name);
        if (given_before(object, key))
            return error_set(d->err, ERROR_INVALID_RESOURCE, "%s: given twice", path);
        int result = decode_member(d, yyjson_obj_iter_get_val(key), prefix, (struct str){path, (size_t)size});
        if (result < 0)
            return result;
    }
    return 0;
}

static int check_required(const struct decode *d)
{
    for (size_t i = 0; i < d->info->n_fields; i++)
        if (d->info->fields[i].required && !d->seen[i])
            return error_set(d->err, ERROR_INVALID_RESOURCE, "%s: required", d->info->fields[i].path);
    return 0;
}

int resource_decode(yyjson_val *document, enum resource_kind kind, void *resource, struct error *err)
{
    enum resource_kind found;
    int result = resource_peek(document, &found, err);
    if (result < 0)
        return result;
    const struct resource_kind_info *info = &resource_kinds[kind];
    char title[RESOURCE_TITLE_BYTES];
    make_title(&resource_kinds[found], document, title);
    if (found != kind)
        return error_set(err, ERROR_INVALID_RESOURCE, "%s: expected a %s", title, info->name);
    if (!info->declared && kind != RESOURCE_SERVER)
        return error_set(err, ERROR_INVALID_RESOURCE, "%s: a %s is read-only: the server makes it", title, info->name);
    union resource_any decoded;
    memset(&decoded, 0, sizeof decoded); /* padding too: structs are compared as bytes */
    decoded.meta.kind = kind;
    struct error why = {0};
    struct decode d = {.info = info, .resource = &decoded, .err = &why};
    assert(info->n_fields <= FIELDS_MAX);
    for (size_t i = 0; i < info->n_fields; i++)
        resource_value_from_default(&info->fields[i], &decoded);
    result = decode_object(&d, document, STR(""));
    if (result == 0)
        result = check_required(&d);
    if (result == 0)
        result = resource_check_fields(kind, &decoded, &why);
    if (result < 0)
        return error_set(err, result, "%s: %s", title, error_text(&why, result));
    memcpy(resource, &decoded, info->bytes);
    return 0;
}
