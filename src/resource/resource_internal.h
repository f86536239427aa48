/* Inside of the resource room. */
#ifndef BULKHEAD_RESOURCE_RESOURCE_INTERNAL_H
#define BULKHEAD_RESOURCE_RESOURCE_INTERNAL_H

#include "resource/resource.h"

#define RESOURCE_PATH_BYTES  128u /* a field's path or part of one, with NUL */
#define RESOURCE_VALUE_BYTES 48u  /* a number as its user would write it, with NUL */
#define RESOURCE_TITLE_BYTES (3 * (LIMIT_NAME_BYTES + 1))

/* Any kind's struct. */
union resource_any {
    struct resource_meta meta;
    struct resource_server server;
    struct resource_tenant tenant;
    struct resource_model model;
    struct resource_grant grant;
    struct resource_adapter adapter;
};

extern const char *const resource_type_names[RESOURCE_TYPE_COUNT];

/* --- resource_number.c: numbers as people write them; -ERROR_INVALID_ARGUMENT for anything else --- */

must_check int resource_parse_bytes(struct str text, uint64_t *ret_bytes);
must_check int resource_parse_duration(struct str text, uint64_t *ret_ns);
must_check int resource_parse_cpu(struct str text, uint64_t *ret_milli);
/* The shortest exact form: 268435456 → 256Mi, 90 s → 1m30s, 1500 milli → 1500m. For enums use names. */
void resource_format_number(enum resource_type type, uint64_t value, char text[static RESOURCE_VALUE_BYTES]);

/* --- resource_value.c: one field's value. err's text lacks the path, which the caller puts before it --- */

must_check int resource_value_from_json(const struct resource_field *field, yyjson_val *value, void *resource,
                                        struct error *err);
/* From a default. A text that does not fit its own field is a bug: asserted. */
void resource_value_from_default(const struct resource_field *field, void *resource);
uint64_t resource_value_number(const struct resource_field *field, const void *resource);
bool resource_type_is_number(enum resource_type type); /* held in a uint64_t */
/* For messages: "\"text\"", "12", "a list", cut to fit, control characters replaced. */
void resource_value_describe(yyjson_val *value, char text[static 64]);

/* --- resource_suggest.c --- */

/* Something to propose instead of an unknown word: the nearest candidate offered that is near enough. */
struct resource_suggestion {
    struct str wanted;
    struct str best; /* size 0: none */
    unsigned distance;
};
void resource_suggest_offer(struct resource_suggestion *s, struct str candidate);

/* --- resource_check.c --- */

/* What no single field can see. Errors as from resource_value_from_json, but with their path. */
must_check int resource_check_fields(enum resource_kind kind, const union resource_any *resource, struct error *err);

#endif
