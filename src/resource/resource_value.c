/* One field's value: from JSON or from its default into the kind's struct. */
#include "resource/resource_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

const char *const resource_type_names[RESOURCE_TYPE_COUNT] = {
    [RESOURCE_STRING] = "string",   [RESOURCE_NAME] = "name",         [RESOURCE_INTEGER] = "integer",
    [RESOURCE_BYTES] = "bytes",     [RESOURCE_DURATION] = "duration", [RESOURCE_CPU] = "cpu",
    [RESOURCE_BOOLEAN] = "boolean", [RESOURCE_ENUM] = "enum",         [RESOURCE_MAP] = "map",
    [RESOURCE_SET] = "words",       [RESOURCE_SIZES] = "integers",    [RESOURCE_DEVICES] = "devices",
    [RESOURCE_NAMES] = "names",
};

/* What to write, for "expected …, found …". */
static const char *const expectations[RESOURCE_TYPE_COUNT] = {
    [RESOURCE_STRING] = "a string",
    [RESOURCE_NAME] = "a name",
    [RESOURCE_INTEGER] = "a whole number",
    [RESOURCE_BYTES] = "bytes such as \"256Mi\", \"1Gi\" or 1000000",
    [RESOURCE_DURATION] = "a duration such as \"10ms\", \"5m\" or \"1h30m\"",
    [RESOURCE_CPU] = "CPU cores such as 1, 2 or \"500m\"",
    [RESOURCE_BOOLEAN] = "true or false",
    [RESOURCE_ENUM] = "one of its words",
    [RESOURCE_MAP] = "an object of strings",
    [RESOURCE_SET] = "a list of words",
    [RESOURCE_SIZES] = "a list of whole numbers",
    [RESOURCE_DEVICES] = "a list of devices such as [{name: cpu, slots: 4}]",
    [RESOURCE_NAMES] = "a list of names",
};

static struct str json_str(yyjson_val *value)
{
    return (struct str){yyjson_get_str(value), yyjson_get_len(value)};
}

/* Replaces what a terminal would act on and cuts between characters. */
static void describe_string(struct str s, char text[static 64])
{
    enum { SHOWN = 40 };
    size_t size = s.size < SHOWN ? s.size : SHOWN;
    while (size < s.size && size > 0 && ((unsigned char)s.data[size] & 0xC0) == 0x80)
        size--;
    size_t used = 0;
    text[used++] = '"';
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        text[used++] = (char)(c < 0x20 || c == 0x7F ? '?' : c);
    }
    (void)snprintf(text + used, 64 - used, "%s\"", size < s.size ? "..." : "");
}

void resource_value_describe(yyjson_val *value, char text[static 64])
{
    if (yyjson_is_str(value))
        describe_string(json_str(value), text);
    else if (yyjson_is_uint(value))
        (void)snprintf(text, 64, "%" PRIu64, yyjson_get_uint(value));
    else if (yyjson_is_sint(value))
        (void)snprintf(text, 64, "%" PRId64, yyjson_get_sint(value));
    else if (yyjson_is_real(value))
        (void)snprintf(text, 64, "%g", yyjson_get_real(value));
    else if (yyjson_is_bool(value))
        (void)snprintf(text, 64, "%s", yyjson_get_bool(value) ? "true" : "false");
    else if (yyjson_is_arr(value))
        (void)snprintf(text, 64, "a list");
    else if (yyjson_is_obj(value))
        (void)snprintf(text, 64, "an object");
    else
        (void)snprintf(text, 64, "nothing (null)");
}

static int unexpected(const struct resource_field *field, yyjson_val *value, struct error *err)
{
    char found[64];
    resource_value_describe(value, found);
    return error_set(err, ERROR_INVALID_RESOURCE, "expected %s, found %s", expectations[field->type], found);
}

bool resource_type_is_number(enum resource_type type)
{
    return type == RESOURCE_INTEGER || type == RESOURCE_BYTES || type == RESOURCE_DURATION || type == RESOURCE_CPU;
}

uint64_t resource_value_number(const struct resource_field *field, const void *resource)
{
    uint64_t value;
    memcpy(&value, (const char *)resource + field->offset, sizeof value);
    return value;
}

static int set_number(const struct resource_field *field, uint64_t value, void *resource, struct error *err)
{
    if (value < field->min || value > field->max) {
        char min[RESOURCE_VALUE_BYTES], max[RESOURCE_VALUE_BYTES], found[RESOURCE_VALUE_BYTES];
        resource_format_number(field->type, field->min, min);
        resource_format_number(field->type, field->max, max);
        resource_format_number(field->type, value, found);
        return error_set(err, ERROR_INVALID_RESOURCE, "must be between %s and %s, found %s", min, max, found);
    }
    memcpy((char *)resource + field->offset, &value, sizeof value);
    return 0;
}

static int parse_number(enum resource_type type, struct str text, uint64_t *ret_value)
{
    if (type == RESOURCE_BYTES)
        return resource_parse_bytes(text, ret_value);
    if (type == RESOURCE_DURATION)
        return resource_parse_duration(text, ret_value);
    if (type == RESOURCE_CPU)
        return resource_parse_cpu(text, ret_value);
    return str_to_u64(text, ret_value);
}

/* A JSON number where the type takes one: cores may have a fraction, nothing else. */
static int number_from_json(enum resource_type type, yyjson_val *value, uint64_t *ret_value)
{
    if (type == RESOURCE_DURATION)
        return -ERROR_INVALID_ARGUMENT; /* 5 of what? */
    if (yyjson_is_uint(value)) {
        uint64_t scale = type == RESOURCE_CPU ? 1000 : 1;
        return __builtin_mul_overflow(yyjson_get_uint(value), scale, ret_value) ? -ERROR_INVALID_ARGUMENT : 0;
    }
    if (type != RESOURCE_CPU || !yyjson_is_real(value))
        return -ERROR_INVALID_ARGUMENT;
    double milli = round(yyjson_get_real(value) * 1000);
    if (!(milli >= 0 && milli <= 1e15) || fabs(yyjson_get_real(value) * 1000 - milli) > 1e-6)
        return -ERROR_INVALID_ARGUMENT;
    *ret_value = (uint64_t)milli;
    return 0;
}

static bool text_is_printable(struct str s)
{
    for (size_t i = 0; i < s.size; i++)
        if ((unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7F)
            return false;
    return true;
}

static int set_string(const struct resource_field *field, struct str s, void *resource, struct error *err)
{
    if (field->type == RESOURCE_NAME && !str_is_name(s)) {
        char found[64];
        describe_string(s, found);
        return error_set(err, ERROR_INVALID_NAME,
                         "%s is no name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
                         found);
    }
    if (!text_is_printable(s))
        return error_set(err, ERROR_INVALID_RESOURCE, "must not hold control characters");
    if (s.size < field->min || s.size > field->max)
        return error_set(err, ERROR_INVALID_RESOURCE, "must be %" PRIu64 " to %" PRIu64 " bytes long, found %zu",
                         field->min, field->max, s.size);
    assert(field->max < field->size); /* a table's mistake: found by the first test of it */
    return str_copy(s, (char *)resource + field->offset, field->size);
}

/* The index of a word among the field's names. */
static int word_find(const struct resource_field *field, struct str s, uint32_t *ret_index, struct error *err)
{
    struct resource_suggestion suggestion = {.wanted = s};
    char words[160] = "";
    size_t used = 0;
    for (uint32_t i = 0; field->names[i]; i++) {
        if (str_equal(s, str_from(field->names[i]))) {
            *ret_index = i;
            return 0;
        }
        resource_suggest_offer(&suggestion, str_from(field->names[i]));
        int n = snprintf(words + used, sizeof words - used, "%s%s", i > 0 ? ", " : "", field->names[i]);
        used += n > 0 && (size_t)n < sizeof words - used ? (size_t)n : 0;
    }
    char found[64];
    describe_string(s, found);
    if (suggestion.best.size > 0)
        return error_set(err, ERROR_INVALID_RESOURCE, "expected one of %s, found %s (did you mean \"" STR_FORMAT "\"?)",
                         words, found, STR_ARG(suggestion.best));
    return error_set(err, ERROR_INVALID_RESOURCE, "expected one of %s, found %s", words, found);
}

static int set_enum(const struct resource_field *field, struct str s, void *resource, struct error *err)
{
    uint32_t index;
    int result = word_find(field, s, &index, err);
    if (result == 0)
        memcpy((char *)resource + field->offset, &index, sizeof index);
    return result;
}

static int set_words(const struct resource_field *field, yyjson_val *list, void *resource, struct error *err)
{
    uint32_t words = 0, index;
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    for (yyjson_val *word = yyjson_arr_iter_next(&iter); word; word = yyjson_arr_iter_next(&iter)) {
        if (!yyjson_is_str(word))
            return unexpected(field, word, err);
        int result = word_find(field, json_str(word), &index, err);
        if (result < 0)
            return result;
        if (words & (1u << index))
            return error_set(err, ERROR_INVALID_RESOURCE, "\"%s\" is given twice", field->names[index]);
        words |= 1u << index;
    }
    if (words == 0)
        return error_set(err, ERROR_INVALID_RESOURCE, "expected at least one word");
    memcpy((char *)resource + field->offset, &words, sizeof words);
    return 0;
}

static int set_sizes(const struct resource_field *field, yyjson_val *list, void *resource, struct error *err)
{
    struct resource_sizes *sizes = (void *)((char *)resource + field->offset);
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    for (yyjson_val *value = yyjson_arr_iter_next(&iter); value; value = yyjson_arr_iter_next(&iter)) {
        uint64_t number = yyjson_get_uint(value);
        if (!yyjson_is_uint(value))
            return unexpected(field, value, err);
        if (number < field->min || number > field->max)
            return error_set(err, ERROR_INVALID_RESOURCE, "each must be between %" PRIu64 " and %" PRIu64, field->min,
                             field->max);
        if (sizes->n > 0 && number <= sizes->values[sizes->n - 1])
            return error_set(err, ERROR_INVALID_RESOURCE, "must ascend, but %" PRIu64 " follows %u", number,
                             sizes->values[sizes->n - 1]);
        if (sizes->n == LIMIT_BATCH_PREFERRED)
            return error_set(err, ERROR_INVALID_RESOURCE, "at most %u numbers", LIMIT_BATCH_PREFERRED);
        sizes->values[sizes->n++] = (uint32_t)number;
    }
    return 0;
}

static int set_device(struct resource_devices *devices, yyjson_val *device, struct error *err)
{
    char shown[64];
    yyjson_val *name = yyjson_obj_get(device, "name"), *slots = yyjson_obj_get(device, "slots");
    if (yyjson_obj_size(device) != 2 || !yyjson_is_str(name) || !yyjson_is_uint(slots))
        return error_set(err, ERROR_INVALID_RESOURCE, "each is an object of name and slots: {name: cpu, slots: 4}");
    describe_string(json_str(name), shown);
    if (!str_is_name(json_str(name)))
        return error_set(err, ERROR_INVALID_NAME,
                         "%s is no name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
                         shown);
    for (uint32_t i = 0; i < devices->n; i++)
        if (str_equal(json_str(name), str_from(devices->entries[i].name)))
            return error_set(err, ERROR_INVALID_RESOURCE, "%s is given twice", shown);
    if (yyjson_get_uint(slots) < 1 || yyjson_get_uint(slots) > RESOURCE_DEVICE_SLOTS_MAX)
        return error_set(err, ERROR_INVALID_RESOURCE, "%s: slots must be between 1 and %u", shown,
                         RESOURCE_DEVICE_SLOTS_MAX);
    if (devices->n == LIMIT_DEVICES)
        return error_set(err, ERROR_INVALID_RESOURCE, "at most %u devices", LIMIT_DEVICES);
    int result = str_copy(json_str(name), devices->entries[devices->n].name, sizeof devices->entries[0].name);
    devices->entries[devices->n].slots = (uint32_t)yyjson_get_uint(slots);
    devices->n += result == 0;
    return result;
}

static int set_devices(const struct resource_field *field, yyjson_val *list, void *resource, struct error *err)
{
    struct resource_devices *devices = (void *)((char *)resource + field->offset);
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    int result = 0;
    for (yyjson_val *device = yyjson_arr_iter_next(&iter); result == 0 && device; device = yyjson_arr_iter_next(&iter))
        result = set_device(devices, device, err);
    return result;
}

static int set_names(const struct resource_field *field, yyjson_val *list, void *resource, struct error *err)
{
    struct resource_names *names = (void *)((char *)resource + field->offset);
    yyjson_arr_iter iter = yyjson_arr_iter_with(list);
    for (yyjson_val *value = yyjson_arr_iter_next(&iter); value; value = yyjson_arr_iter_next(&iter)) {
        struct str name = json_str(value);
        char shown[64];
        if (!yyjson_is_str(value))
            return unexpected(field, value, err);
        describe_string(name, shown);
        if (!str_is_name(name))
            return error_set(err, ERROR_INVALID_NAME,
                             "%s is no name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
                             shown);
        for (uint32_t i = 0; i < names->n; i++)
            if (str_equal(name, str_from(names->entries[i])))
                return error_set(err, ERROR_INVALID_RESOURCE, "%s is given twice", shown);
        if (names->n == field->max)
            return error_set(err, ERROR_INVALID_RESOURCE, "at most %" PRIu64 " names", field->max);
        int result = str_copy(name, names->entries[names->n], sizeof names->entries[0]);
        if (result < 0)
            return result;
        names->n++;
    }
    if (names->n < field->min)
        return error_set(err, ERROR_INVALID_RESOURCE, "at least %" PRIu64 ", found %u", field->min, names->n);
    return 0;
}

static bool is_map_key(struct str s)
{
    if (s.size < 1 || s.size > LIMIT_NAME_BYTES)
        return false;
    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];
        bool inner = c == '-' || c == '_' || c == '.' || c == '/';
        bool outer = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!outer && !(inner && i > 0 && i < s.size - 1))
            return false;
    }
    return true;
}

static int map_entry(struct resource_map *map, struct str key, yyjson_val *value, struct error *err)
{
    char shown[64];
    describe_string(key, shown);
    if (!is_map_key(key))
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "%s is no key: 1 to %u of letters, digits, '-', '_', '.' and '/', beginning and ending with a "
                         "letter or digit",
                         shown, LIMIT_NAME_BYTES);
    for (uint32_t i = 0; i < map->n; i++)
        if (str_equal(key, str_from(map->entries[i].key)))
            return error_set(err, ERROR_INVALID_RESOURCE, "%s is given twice", shown);
    if (map->n == RESOURCE_LABELS_MAX)
        return error_set(err, ERROR_INVALID_RESOURCE, "at most %u entries", RESOURCE_LABELS_MAX);
    if (!yyjson_is_str(value) || !text_is_printable(json_str(value)) || json_str(value).size > LIMIT_NAME_BYTES)
        return error_set(err, ERROR_INVALID_RESOURCE,
                         "%s must be a string of at most %u bytes without control characters", shown, LIMIT_NAME_BYTES);
    int result = str_copy(key, map->entries[map->n].key, sizeof map->entries[0].key);
    if (result == 0)
        result = str_copy(json_str(value), map->entries[map->n].value, sizeof map->entries[0].value);
    map->n += result == 0;
    return result;
}

static int set_map(const struct resource_field *field, yyjson_val *value, void *resource, struct error *err)
{
    struct resource_map *map = (void *)((char *)resource + field->offset);
    yyjson_obj_iter iter;
    if (!yyjson_obj_iter_init(value, &iter))
        return 0; /* an empty object */
    yyjson_val *key;
    while ((key = yyjson_obj_iter_next(&iter))) {
        int result = map_entry(map, json_str(key), yyjson_obj_iter_get_val(key), err);
        if (result < 0)
            return result;
    }
    return 0;
}

static int set_list(const struct resource_field *field, yyjson_val *list, void *resource, struct error *err)
{
    if (field->type == RESOURCE_SET)
        return set_words(field, list, resource, err);
    if (field->type == RESOURCE_SIZES)
        return set_sizes(field, list, resource, err);
    if (field->type == RESOURCE_DEVICES)
        return set_devices(field, list, resource, err);
    return set_names(field, list, resource, err);
}

int resource_value_from_json(const struct resource_field *field, yyjson_val *value, void *resource, struct error *err)
{
    uint64_t number = 0;
    bool is_string = yyjson_is_str(value);
    switch (field->type) {
    case RESOURCE_STRING:
    case RESOURCE_NAME:
        return is_string ? set_string(field, json_str(value), resource, err) : unexpected(field, value, err);
    case RESOURCE_ENUM:
        return is_string ? set_enum(field, json_str(value), resource, err) : unexpected(field, value, err);
    case RESOURCE_INTEGER:
    case RESOURCE_BYTES:
    case RESOURCE_DURATION:
    case RESOURCE_CPU:
        if (is_string && field->type != RESOURCE_INTEGER ? parse_number(field->type, json_str(value), &number) < 0
                                                         : number_from_json(field->type, value, &number) < 0)
            return unexpected(field, value, err);
        return set_number(field, number, resource, err);
    case RESOURCE_BOOLEAN:
        if (!yyjson_is_bool(value))
            return unexpected(field, value, err);
        *((bool *)resource + field->offset) = yyjson_get_bool(value);
        return 0;
    case RESOURCE_MAP:
        return yyjson_is_obj(value) ? set_map(field, value, resource, err) : unexpected(field, value, err);
    case RESOURCE_SET:
    case RESOURCE_SIZES:
    case RESOURCE_DEVICES:
    case RESOURCE_NAMES:
        return yyjson_is_arr(value) ? set_list(field, value, resource, err) : unexpected(field, value, err);
    case RESOURCE_TYPE_COUNT:
    default:
        return error_set_default(err, ERROR_INTERNAL);
    }
}

/* "interactive, batch": a default's words. */
static int words_from_text(const struct resource_field *field, struct str text, void *resource)
{
    uint32_t words = 0, index = 0;
    int result = 0;
    while (result == 0 && text.size > 0) {
        const char *comma = memchr(text.data, ',', text.size);
        size_t size = comma ? (size_t)(comma - text.data) : text.size;
        result = word_find(field, (struct str){text.data, size}, &index, NULL);
        words |= 1u << index;
        text = comma ? str_trim(str_skip(text, size + 1)) : (struct str){0};
    }
    memcpy((char *)resource + field->offset, &words, sizeof words);
    return result;
}

void resource_value_from_default(const struct resource_field *field, void *resource)
{
    struct str text = str_from(field->default_text);
    int result = 0;
    if (resource_type_is_number(field->type)) {
        uint64_t number = field->absent;
        if (field->default_text)
            result = parse_number(field->type, text, &number);
        memcpy((char *)resource + field->offset, &number, sizeof number);
    } else if (field->default_text && field->type == RESOURCE_ENUM) {
        result = set_enum(field, text, resource, NULL);
    } else if (field->default_text && field->type == RESOURCE_SET) {
        result = words_from_text(field, text, resource);
    } else if (field->default_text && field->type == RESOURCE_BOOLEAN) {
        *((bool *)resource + field->offset) = str_equal(text, STR("true"));
    } else if (field->default_text) {
        result = set_string(field, text, resource, NULL);
    }
    assert(result == 0);
}
