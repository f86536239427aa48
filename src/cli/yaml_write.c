/* JSON values as YAML. */
#include "cli/yaml.h"

#define SIMPLE_KEY_BYTES 512u /* YAML lets a key without its own '?' have 1024 characters; escapes are longer */

struct writer {
    struct buf *yaml;
    uint32_t depth;
};

static bool plain_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '/')
        return true;
    if (c >= '0' && c <= '9')
        return true;
    return !first && (c == '.' || c == '_' || c == '-');
}

/* May the string stand without quotes, and be that string for readers of YAML 1.1 too (yes, 0b1, 1_000, 12:30)? */
static bool plain_ok(struct str s)
{
    static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "null", "true", "false", NULL};
    if (s.size == 0 || s.size > SIMPLE_KEY_BYTES || cli_yaml_scalar(s) != YAML_STRING)
        return false;
    for (size_t i = 0; words[i]; i++)
        if (str_equal_nocase(s, str_from(words[i])))
            return false;
    bool digit = s.data[0] >= '0' && s.data[0] <= '9';
    if (digit && s.data[0] == '0' && s.size > 1 && s.data[1] >= 'A' && s.data[1] != 'm')
        return false;
    for (size_t i = 0; i < s.size; i++)
        if (!plain_char(s.data[i], i == 0) || (digit && (s.data[i] == '_' || s.data[i] == '-')))
            return false;
    return true;
}

/* The code point at the start of valid UTF-8 that begins with a byte ≥ 0x80. */
static uint32_t utf8_code(struct str s, size_t *ret_length)
{
    unsigned char lead = (unsigned char)s.data[0];
    size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    uint32_t code = lead & (0x7Fu >> length);
    for (size_t i = 1; i < length && i < s.size; i++)
        code = code << 6 | ((unsigned char)s.data[i] & 0x3Fu);
    *ret_length = length;
    return code;
}

/* Characters YAML reads as line breaks or does not take as they are. */
static bool needs_escape(uint32_t code)
{
    return code < 0xA0 || code == 0x2028 || code == 0x2029 || code == 0xFEFF || code == 0xFFFE || code == 0xFFFF;
}

/* A JSON string is a double-quoted YAML scalar, but for the characters that only YAML minds. */
static void write_quoted(struct buf *yaml, struct str s)
{
    _buf_ struct buf json;
    buf_init(&json, yaml->capacity_max);
    buf_append_json(&json, s);
    if (json.failed) {
        yaml->failed = json.failed;
        return;
    }
    struct str rest = {json.data, json.size};
    while (rest.size > 0) {
        size_t plain = 0;
        while (plain < rest.size && (unsigned char)rest.data[plain] < 0x80)
            plain++;
        buf_append(yaml, rest.data, plain);
        rest = str_skip(rest, plain);
        if (rest.size == 0)
            break;
        size_t length;
        uint32_t code = utf8_code(rest, &length);
        if (needs_escape(code))
            buf_format(yaml, "\\u%04X", code);
        else
            buf_append(yaml, rest.data, length);
        rest = str_skip(rest, length);
    }
}

static void write_string(struct buf *yaml, struct str s)
{
    if (plain_ok(s))
        buf_append_str(yaml, s);
    else
        write_quoted(yaml, s);
}

static void write_scalar(struct buf *yaml, yyjson_val *value)
{
    if (yyjson_is_str(value)) {
        write_string(yaml, (struct str){yyjson_get_str(value), yyjson_get_len(value)});
    } else if (yyjson_is_obj(value)) {
        buf_append_text(yaml, "{}");
    } else if (yyjson_is_arr(value)) {
        buf_append_text(yaml, "[]");
    } else {
        _free_ char *text = yyjson_val_write(value, 0, NULL);
        buf_append_text(yaml, text ? text : "null");
    }
}

static bool is_block(yyjson_val *value)
{
    return (yyjson_is_obj(value) || yyjson_is_arr(value)) && yyjson_get_len(value) > 0;
}

static void write_indent(struct buf *yaml, uint32_t indent)
{
    for (uint32_t i = 0; i < indent; i++)
        buf_append_char(yaml, ' ');
}

static void write_block(struct writer *w, yyjson_val *value, uint32_t indent, bool started);

/* The value behind "key:" */
static void write_member(struct writer *w, yyjson_val *value, uint32_t indent)
{
    if (is_block(value)) {
        buf_append_char(w->yaml, '\n');
        write_block(w, value, indent + 2, false);
    } else {
        buf_append_char(w->yaml, ' ');
        write_scalar(w->yaml, value);
        buf_append_char(w->yaml, '\n');
    }
}

static void write_mapping(struct writer *w, yyjson_val *object, uint32_t indent, bool started)
{
    yyjson_obj_iter members = yyjson_obj_iter_with(object);
    for (yyjson_val *key = yyjson_obj_iter_next(&members); key; key = yyjson_obj_iter_next(&members)) {
        struct str name = {yyjson_get_str(key), yyjson_get_len(key)};
        if (!started)
            write_indent(w->yaml, indent);
        started = false;
        bool simple = name.size <= SIMPLE_KEY_BYTES / 6; /* of one byte, an escape makes at most six */
        if (!simple)
            buf_append_text(w->yaml, "? ");
        write_string(w->yaml, name);
        if (!simple) {
            buf_append_char(w->yaml, '\n');
            write_indent(w->yaml, indent);
        }
        buf_append_char(w->yaml, ':');
        write_member(w, yyjson_obj_iter_get_val(key), indent);
    }
}

static void write_sequence(struct writer *w, yyjson_val *array, uint32_t indent, bool started)
{
    yyjson_arr_iter items = yyjson_arr_iter_with(array);
    for (yyjson_val *item = yyjson_arr_iter_next(&items); item; item = yyjson_arr_iter_next(&items)) {
        if (!started)
            write_indent(w->yaml, indent);
        started = false;
        buf_append_text(w->yaml, "- ");
        if (is_block(item)) {
            write_block(w, item, indent + 2, true);
        } else {
            write_scalar(w->yaml, item);
            buf_append_char(w->yaml, '\n');
        }
    }
}

/* A mapping or sequence that is not empty; `started`: the cursor stands behind "- ", at column `indent`. */
static void write_block(struct writer *w, yyjson_val *value, uint32_t indent, bool started)
{
    if (w->depth == YAML_DEPTH_MAX) {
        w->yaml->failed = -ERROR_LIMIT;
        return;
    }
    w->depth++;
    if (yyjson_is_obj(value))
        write_mapping(w, value, indent, started);
    else
        write_sequence(w, value, indent, started);
    w->depth--;
}

void cli_yaml_write(yyjson_val *value, struct buf *yaml)
{
    struct writer w = {.yaml = yaml};
    if (is_block(value)) {
        write_block(&w, value, 0, false);
        return;
    }
    write_scalar(yaml, value);
    buf_append_char(yaml, '\n');
}
