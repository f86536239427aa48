/* The tables as text: `bulkhead explain`, and docs/resources.md. */
#include "resource/resource_internal.h"

#include <stdio.h>

enum { LINE_COLUMNS = 100 };

static void format_bound(const struct resource_field *f, uint64_t value, char text[static RESOURCE_VALUE_BYTES])
{
    resource_format_number(f->type, value, text);
}

/* "16Mi to 1Ti", "shared, pool, …", "1 to 31 bytes"; empty where everything of the type goes. */
static void append_range(struct buf *text, const struct resource_field *f)
{
    if (f->type == RESOURCE_ENUM || f->type == RESOURCE_SET) {
        for (size_t i = 0; f->names[i]; i++)
            buf_format(text, "%s%s", i > 0 ? ", " : "", f->names[i]);
    } else if (f->max < UINT64_MAX && resource_type_is_number(f->type)) {
        char min[RESOURCE_VALUE_BYTES], max[RESOURCE_VALUE_BYTES];
        format_bound(f, f->min, min);
        format_bound(f, f->max, max);
        buf_format(text, "%s to %s", min, max);
    } else if (f->max < UINT64_MAX && f->type == RESOURCE_STRING) {
        buf_format(text, "%llu to %llu bytes", (unsigned long long)f->min, (unsigned long long)f->max);
    } else if (f->type == RESOURCE_SIZES) {
        buf_format(text, "at most %u of %llu to %llu", LIMIT_BATCH_PREFERRED, (unsigned long long)f->min,
                   (unsigned long long)f->max);
    } else if (f->type == RESOURCE_DEVICES) {
        buf_format(text, "at most %u, each of 1 to %u slots", LIMIT_DEVICES, RESOURCE_DEVICE_SLOTS_MAX);
    } else if (f->type == RESOURCE_NAMES) {
        buf_format(text, "%llu to %llu", (unsigned long long)f->min, (unsigned long long)f->max);
    } else if (f->type == RESOURCE_MAP) {
        buf_format(text, "at most %u entries", RESOURCE_LABELS_MAX);
    }
}

static const char *default_text(const struct resource_kind_info *info, const struct resource_field *f)
{
    if (!info->declared && f->size == 0)
        return "observed";
    if (f->required)
        return "required";
    return f->default_text ? f->default_text : "";
}

/* Breaks `words` at spaces, each line indented by `indent`. */
static void append_wrapped(struct buf *text, const char *words, size_t indent)
{
    struct str rest = str_from(words);
    while (rest.size > 0) {
        size_t line = rest.size;
        if (line > LINE_COLUMNS - indent) {
            line = LINE_COLUMNS - indent;
            while (line > 0 && rest.data[line] != ' ')
                line--;
            if (line == 0)
                line = LINE_COLUMNS - indent;
        }
        buf_format(text, "%*s" STR_FORMAT "\n", (int)indent, "", (int)line, rest.data);
        rest = str_trim(str_skip(rest, line));
    }
}

static void explain_field(struct buf *text, const struct resource_kind_info *info, const struct resource_field *f)
{
    buf_format(text, "KIND      %s\nFIELD     %s\nTYPE      %s\n", info->name, f->path, resource_type_names[f->type]);
    if (f->unit)
        buf_format(text, "UNIT      %s\n", f->unit);
    if (default_text(info, f)[0])
        buf_format(text, "DEFAULT   %s\n", default_text(info, f));
    size_t before = text->size;
    buf_append_text(text, f->type == RESOURCE_ENUM || f->type == RESOURCE_SET ? "VALUES    " : "RANGE     ");
    size_t start = text->size;
    append_range(text, f);
    if (text->size == start)
        text->size = before;
    else
        buf_append_char(text, '\n');
    buf_append_char(text, '\n');
    append_wrapped(text, f->help, 4);
}

static void explain_fields(struct buf *text, const struct resource_kind_info *info, struct str prefix)
{
    size_t widest = 0;
    for (size_t i = 0; i < info->n_fields; i++)
        if (str_starts(str_from(info->fields[i].path), prefix) && strlen(info->fields[i].path) > widest)
            widest = strlen(info->fields[i].path);
    buf_format(text, "%-*s  %-9s %s\n", (int)widest, "FIELD", "TYPE", "DEFAULT");
    for (size_t i = 0; i < info->n_fields; i++) {
        const struct resource_field *f = &info->fields[i];
        if (!str_starts(str_from(f->path), prefix))
            continue;
        const char *value = default_text(info, f);
        buf_format(text, value[0] ? "%-*s  %-9s %s\n" : "%-*s  %s%s\n", (int)widest, f->path,
                   resource_type_names[f->type], value);
        append_wrapped(text, f->help, 4);
    }
}

static void explain_kind(struct buf *text, const struct resource_kind_info *info)
{
    buf_format(text, "KIND      %s (%s), %s\n\n", info->name, info->plural, RESOURCE_API_VERSION);
    append_wrapped(text, info->help, 4);
    buf_append_char(text, '\n');
    explain_fields(text, info, STR(""));
}

/* The path itself, a field; or with a dot behind it, a part of the tree. */
static bool explain_path(struct buf *text, enum resource_kind kind, const char *path)
{
    const struct resource_kind_info *info = &resource_kinds[kind];
    const struct resource_field *field = resource_field_find(kind, str_from(path));
    if (field) {
        explain_field(text, info, field);
        return true;
    }
    char prefix[RESOURCE_PATH_BYTES + 1];
    (void)snprintf(prefix, sizeof prefix, "%s.", path);
    for (size_t i = 0; i < info->n_fields; i++)
        if (str_starts(str_from(info->fields[i].path), str_from(prefix))) {
            buf_format(text, "KIND      %s\nPART      %s\n\n", info->name, path);
            explain_fields(text, info, str_from(prefix));
            return true;
        }
    return false;
}

static int explain_unknown_kind(struct str name, struct error *err)
{
    struct resource_suggestion suggestion = {.wanted = name};
    for (int i = RESOURCE_NONE + 1; i < RESOURCE_KIND_COUNT; i++)
        resource_suggest_offer(&suggestion, str_from(resource_kinds[i].name));
    if (suggestion.best.size > 0)
        return error_set(err, ERROR_NOT_FOUND, "there is no kind \"" STR_FORMAT "\" (did you mean \"" STR_FORMAT "\"?)",
                         STR_ARG(name), STR_ARG(suggestion.best));
    return error_set(
        err, ERROR_NOT_FOUND,
        "there is no kind \"%.*s\"; there are Server, Tenant, Model, Grant, Adapter, Version, Replica, Key and Device",
        name.size > LIMIT_NAME_BYTES ? (int)LIMIT_NAME_BYTES : (int)name.size, name.size ? name.data : "");
}

int resource_explain(struct str kind_and_field, struct buf *text, struct error *err)
{
    const char *dot = kind_and_field.size ? memchr(kind_and_field.data, '.', kind_and_field.size) : NULL;
    struct str name = {kind_and_field.data, dot ? (size_t)(dot - kind_and_field.data) : kind_and_field.size};
    enum resource_kind kind = resource_kind_from_name(name);
    if (kind == RESOURCE_NONE)
        return explain_unknown_kind(name, err);
    if (!dot) {
        explain_kind(text, &resource_kinds[kind]);
        return text->failed;
    }
    struct str path = str_skip(kind_and_field, name.size + 1);
    char full[RESOURCE_PATH_BYTES];
    if (path.size > 0 && path.size < sizeof full - sizeof "spec.") {
        (void)snprintf(full, sizeof full, "spec." STR_FORMAT, STR_ARG(path));
        if (explain_path(text, kind, full + sizeof "spec." - 1) || explain_path(text, kind, full))
            return text->failed;
    }
    return error_set(err, ERROR_NOT_FOUND, "%s has no field \"%.*s\"; `explain %s` lists them",
                     resource_kinds[kind].name, path.size > LIMIT_NAME_BYTES ? (int)LIMIT_NAME_BYTES : (int)path.size,
                     path.data, resource_kinds[kind].name);
}

static void reference_kind(struct buf *text, const struct resource_kind_info *info)
{
    buf_format(text, "\n## %s\n\n%s\n\n", info->name, info->help);
    buf_append_text(text, "| Field | Type | Default | Range | Meaning |\n| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < info->n_fields; i++) {
        const struct resource_field *f = &info->fields[i];
        const char *value = default_text(info, f);
        bool is_literal = f->default_text != NULL;
        buf_format(text, "| `%s` | %s | %s%s%s | ", f->path, resource_type_names[f->type], is_literal ? "`" : "", value,
                   is_literal ? "`" : "");
        append_range(text, f);
        if (f->unit && f->type == RESOURCE_INTEGER)
            buf_format(text, " %s", f->unit);
        buf_format(text, " | %s |\n", f->help);
    }
}

void resource_reference(struct buf *text)
{
    buf_append_text(
        text,
        "# Resources\n\n"
        "<!-- Generated from src/resource/resource_kinds.c by `BULKHEAD_UPDATE=1 make test`. Do not edit. -->\n\n"
        "A resource is a document with `apiVersion: " RESOURCE_API_VERSION "`, a `kind`, `metadata` and `spec`.\n"
        "`bulkhead apply` takes Tenants, Models, Grants and Adapters; the server's own file is a Server; the others are\n"
        "observed: `bulkhead get` shows them, nobody applies them. An unknown field is an error, and so is a member\n"
        "given twice. A `status` in an applied document is ignored.\n\n"
        "| Type | Written as |\n| --- | --- |\n"
        "| name | a lower-case DNS-1123 token: 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a "
        "letter or digit |\n"
        "| integer | a whole number |\n"
        "| bytes | a whole number, or a string with a unit: `256Mi`, `1Gi`, `10M` (Ki, Mi, Gi, Ti are powers of "
        "1024; k, M, G, T of 1000) |\n"
        "| duration | a string with units, largest first: `10ms`, `5m`, `1h30m` (h, m, s, ms, us, ns) |\n"
        "| cpu | cores: `1`, `2`, `0.5`, or thousandths: `500m` |\n"
        "| enum | one of the words listed |\n"
        "| map | an object of strings; keys and values of at most 63 bytes |\n"
        "| words | a list of some of the words listed: `[interactive, batch]` |\n"
        "| integers | a list of whole numbers, ascending: `[8, 16]` |\n"
        "| devices | a list of names and slots: `[{name: cpu, slots: 4}]` |\n"
        "| names | a list of different names: `[acme, globex]` |\n");
    for (int kind = RESOURCE_NONE + 1; kind < RESOURCE_KIND_COUNT; kind++)
        reference_kind(text, &resource_kinds[kind]);
}
