/* Finding kinds and fields. */
#include "resource/resource_internal.h"

enum resource_kind resource_kind_from_name(struct str name)
{
    for (int kind = RESOURCE_NONE + 1; kind < RESOURCE_KIND_COUNT; kind++) {
        const struct resource_kind_info *info = &resource_kinds[kind];
        if (str_equal_nocase(name, str_from(info->name)) || str_equal_nocase(name, str_from(info->plural)))
            return (enum resource_kind)kind;
    }
    return RESOURCE_NONE;
}

const struct resource_field *resource_field_find(enum resource_kind kind, struct str path)
{
    const struct resource_kind_info *info = &resource_kinds[kind];
    for (size_t i = 0; i < info->n_fields; i++)
        if (str_equal(path, str_from(info->fields[i].path)))
            return &info->fields[i];
    return NULL;
}

int resource_peek(yyjson_val *document, enum resource_kind *ret_kind, struct error *err)
{
    char found[64];
    resource_value_describe(document, found);
    if (!yyjson_is_obj(document))
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "a resource is an object with apiVersion, kind, metadata and spec; "
                         "found %s",
                         found);
    yyjson_val *version = yyjson_obj_get(document, "apiVersion"), *kind = yyjson_obj_get(document, "kind");
    if (!version)
        return error_set(err, ERROR_INVALID_RESOURCE, "apiVersion: required (" RESOURCE_API_VERSION ")");
    resource_value_describe(version, found);
    if (!yyjson_equals_str(version, RESOURCE_API_VERSION))
        return error_set(err, ERROR_INVALID_RESOURCE, "apiVersion: expected \"" RESOURCE_API_VERSION "\", found %s",
                         found);
    if (!kind)
        return error_set(err, ERROR_INVALID_RESOURCE, "kind: required (Tenant, Model, Grant, Adapter)");
    resource_value_describe(kind, found);
    if (!yyjson_is_str(kind))
        return error_set(err, ERROR_INVALID_RESOURCE, "kind: expected a string, found %s", found);
    struct resource_suggestion suggestion = {.wanted = {yyjson_get_str(kind), yyjson_get_len(kind)}};
    for (int i = RESOURCE_NONE + 1; i < RESOURCE_KIND_COUNT; i++) {
        if (str_equal(suggestion.wanted, str_from(resource_kinds[i].name))) { /* exactly, as in the documentation */
            *ret_kind = (enum resource_kind)i;
            return 0;
        }
        resource_suggest_offer(&suggestion, str_from(resource_kinds[i].name));
    }
    if (suggestion.best.size > 0)
        return error_set(err, ERROR_INVALID_RESOURCE, "kind: there is no kind %s (did you mean \"" STR_FORMAT "\"?)",
                         found, STR_ARG(suggestion.best));
    return error_set(err, ERROR_INVALID_RESOURCE, "kind: there is no kind %s", found);
}
