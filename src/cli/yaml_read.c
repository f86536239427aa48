/* YAML events (libyaml) to JSON text, in one pass: an anchor is a range of what was written, an alias a copy of it. */
#include "cli/yaml.h"
#include "cli/yaml_keys.h"

#include <stdio.h>
#include <yaml.h>

struct frame { /* an open mapping or sequence */
    bool mapping, expects_key;
    uint32_t n;      /* entries so far */
    uint32_t serial; /* of the mapping, for its keys in the table */
    uint32_t height; /* deepest nesting seen inside */
    int anchor;      /* index, or -1 */
};

struct anchor {
    char *name;
    size_t start, end; /* range of the output */
    uint32_t height;   /* nesting of what it names */
    bool open;         /* not finished: an alias to it would contain itself */
};

struct reader {
    struct buf *json;
    struct error *err;
    struct frame frames[YAML_DEPTH_MAX];
    uint32_t depth;
    uint32_t serial;
    struct anchor anchors[YAML_ANCHORS_MAX];
    uint32_t n_anchors;
    struct yaml_keys keys;
    uint32_t n_documents, n_places;
    struct yaml_place *places; /* [YAML_DOCUMENTS_MAX] or NULL */
    size_t document_start;     /* in the output, its comma included */
    bool document_empty;
};

static int fail(struct reader *r, const yaml_mark_t *mark, const char *text)
{
    return error_set(r->err, -ERROR_INVALID_REQUEST, "line %zu, column %zu: %s", mark->line + 1, mark->column + 1,
                     text);
}

static int fail_limit(struct reader *r, const yaml_mark_t *mark, const char *text, uint32_t most)
{
    return error_set(r->err, -ERROR_INVALID_REQUEST, "line %zu, column %zu: %s; at most %u are possible",
                     mark->line + 1, mark->column + 1, text, most);
}

/* --- values --- */

/* Before a value (not a key): the comma of a sequence, and the turn of a mapping. */
static void value_begin(struct reader *r)
{
    if (r->depth == 0)
        return;
    struct frame *frame = &r->frames[r->depth - 1];
    if (frame->mapping) {
        frame->expects_key = true;
    } else if (frame->n++ > 0) {
        buf_append_char(r->json, ',');
    }
}

static bool at_key(const struct reader *r)
{
    return r->depth > 0 && r->frames[r->depth - 1].mapping && r->frames[r->depth - 1].expects_key;
}

/* A new anchor for what starts here; index, -1 for none, or a negative code below -1. */
static int anchor_begin(struct reader *r, const yaml_char_t *name, const yaml_mark_t *mark, int *ret_index)
{
    *ret_index = -1;
    if (!name)
        return 0;
    if (r->n_anchors == YAML_ANCHORS_MAX)
        return fail(r, mark, "too many anchors in one document");
    struct anchor *anchor = &r->anchors[r->n_anchors];
    anchor->name = strdup((const char *)name);
    if (!anchor->name)
        return error_set_default(r->err, -ERROR_NO_MEMORY);
    anchor->start = anchor->end = r->json->size;
    anchor->height = 0;
    anchor->open = true;
    *ret_index = (int)r->n_anchors++;
    return 0;
}

static void anchor_end(struct reader *r, int index, uint32_t height)
{
    if (index < 0)
        return;
    r->anchors[index].end = r->json->size;
    r->anchors[index].height = height;
    r->anchors[index].open = false;
}

static void height_note(struct reader *r, uint32_t height)
{
    if (r->depth > 0 && r->frames[r->depth - 1].height < height)
        r->frames[r->depth - 1].height = height;
}

static int read_alias(struct reader *r, const yaml_event_t *event)
{
    const yaml_mark_t *mark = &event->start_mark;
    if (at_key(r))
        return fail(r, mark, "an alias cannot be a key");
    const struct anchor *anchor = NULL;
    for (uint32_t i = r->n_anchors; i > 0 && !anchor; i--)
        if (strcmp(r->anchors[i - 1].name, (const char *)event->data.alias.anchor) == 0)
            anchor = &r->anchors[i - 1];
    if (!anchor)
        return fail(r, mark, "an alias to an anchor that is not there");
    if (anchor->open)
        return fail(r, mark, "an alias inside of its own anchor");
    if (r->depth + anchor->height > YAML_DEPTH_MAX)
        return fail_limit(r, mark, "nested too deeply", YAML_DEPTH_MAX);
    value_begin(r);
    size_t size = anchor->end - anchor->start;
    char *room = buf_reserve(r->json, size); /* may move the memory: take the source after it */
    if (room) {
        memcpy(room, r->json->data + anchor->start, size);
        buf_commit(r->json, size);
    }
    height_note(r, anchor->height);
    return 0;
}

static int read_key(struct reader *r, const yaml_event_t *event, struct str text)
{
    struct frame *frame = &r->frames[r->depth - 1];
    if (event->data.scalar.anchor)
        return fail(r, &event->start_mark, "an anchor on a key");
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && str_equal(text, STR("<<")))
        return fail(r, &event->start_mark, "merge keys (<<) are not part of YAML 1.2: write the fields out");
    if (frame->n++ > 0)
        buf_append_char(r->json, ',');
    size_t start = r->json->size;
    buf_append_json(r->json, text);
    if (r->json->failed)
        return 0; /* told by the loop */
    int known = yaml_keys_note(&r->keys, frame->serial, r->json, start);
    if (known < 0)
        return error_set_default(r->err, known);
    if (known > 0) {
        char message[128];
        (void)snprintf(message, sizeof message, "the key \"%.64s\" stands twice", text.data); /* cut, if long */
        return fail(r, &event->start_mark, message);
    }
    buf_append_char(r->json, ':');
    frame->expects_key = false;
    return 0;
}

static int write_plain(struct reader *r, const yaml_event_t *event, struct str text)
{
    enum yaml_scalar kind = cli_yaml_scalar(text);
    switch (kind) {
    case YAML_NULL:
        buf_append_text(r->json, "null");
        return 0;
    case YAML_TRUE:
        buf_append_text(r->json, "true");
        return 0;
    case YAML_FALSE:
        buf_append_text(r->json, "false");
        return 0;
    case YAML_INTEGER:
    case YAML_FLOAT:
        if (cli_yaml_number(text, kind, r->json) < 0)
            return fail(r, &event->start_mark, "the number is too large or too long");
        return 0;
    case YAML_NOT_FINITE:
        return fail(r, &event->start_mark, "infinity and NaN have no place here");
    case YAML_STRING:
    default:
        buf_append_json(r->json, text);
        return 0;
    }
}

static int read_scalar(struct reader *r, const yaml_event_t *event)
{
    struct str text = {(const char *)event->data.scalar.value, event->data.scalar.length};
    if (event->data.scalar.tag)
        return fail(r, &event->start_mark, "tags are not taken: write the value plainly or in quotes");
    if (at_key(r))
        return read_key(r, event, text);
    bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (r->depth == 0 && plain && cli_yaml_scalar(text) == YAML_NULL)
        r->document_empty = true;
    value_begin(r);
    int index;
    int rc = anchor_begin(r, event->data.scalar.anchor, &event->start_mark, &index);
    if (rc < 0)
        return rc;
    if (plain)
        rc = write_plain(r, event, text);
    else
        buf_append_json(r->json, text);
    anchor_end(r, index, 0);
    return rc;
}

static int read_open(struct reader *r, const yaml_event_t *event, bool mapping)
{
    const yaml_char_t *tag = mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag;
    const yaml_char_t *name = mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    if (tag)
        return fail(r, &event->start_mark, "tags are not taken: write the value plainly");
    if (at_key(r))
        return fail(r, &event->start_mark, "a key is a plain or quoted text, no list and no mapping");
    if (r->depth == YAML_DEPTH_MAX)
        return fail_limit(r, &event->start_mark, "nested too deeply", YAML_DEPTH_MAX);
    value_begin(r);
    int index;
    int rc = anchor_begin(r, name, &event->start_mark, &index);
    if (rc < 0)
        return rc;
    r->frames[r->depth++] =
        (struct frame){.mapping = mapping, .expects_key = mapping, .serial = ++r->serial, .anchor = index};
    buf_append_char(r->json, mapping ? '{' : '[');
    return 0;
}

static void read_close(struct reader *r)
{
    struct frame *frame = &r->frames[--r->depth];
    buf_append_char(r->json, frame->mapping ? '}' : ']');
    anchor_end(r, frame->anchor, frame->height + 1);
    height_note(r, frame->height + 1);
}

/* --- documents --- */

static int document_begin(struct reader *r, const yaml_event_t *event)
{
    if (event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
        return fail(r, &event->start_mark, "tags are not taken: no %TAG directive");
    for (; r->n_anchors > 0; r->n_anchors--)
        free(r->anchors[r->n_anchors - 1].name);
    r->n_documents++;
    r->document_start = r->json->size;
    r->document_empty = false;
    if (r->n_places > 0)
        buf_append_char(r->json, ',');
    return 0;
}

static int document_end(struct reader *r, const yaml_event_t *event)
{
    if (r->document_empty) {
        r->json->size = r->document_start;
        return 0;
    }
    if (r->n_places == YAML_DOCUMENTS_MAX)
        return fail_limit(r, &event->start_mark, "too many documents", YAML_DOCUMENTS_MAX);
    if (r->places)
        r->places[r->n_places].number = r->n_documents;
    r->n_places++;
    return 0;
}

static int read_event(struct reader *r, const yaml_event_t *event)
{
    /* the first content of a document */
    if (r->depth == 0 && r->places && r->n_places < YAML_DOCUMENTS_MAX &&
        (event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT ||
         event->type == YAML_SCALAR_EVENT))
        r->places[r->n_places].line = (uint32_t)event->start_mark.line + 1;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return document_begin(r, event);
    case YAML_DOCUMENT_END_EVENT:
        return document_end(r, event);
    case YAML_ALIAS_EVENT:
        return read_alias(r, event);
    case YAML_SCALAR_EVENT:
        return read_scalar(r, event);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return read_open(r, event, event->type == YAML_MAPPING_START_EVENT);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        read_close(r);
        return 0;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    default:
        return 0;
    }
}

static int read_stream(struct reader *r, yaml_parser_t *parser)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            if (parser->error == YAML_MEMORY_ERROR)
                return error_set_default(r->err, -ERROR_NO_MEMORY);
            if (parser->error == YAML_READER_ERROR)
                return error_set(r->err, -ERROR_INVALID_REQUEST, "byte %zu: %s", parser->problem_offset,
                                 parser->problem ? parser->problem : "not UTF-8 text");
            return fail(r, &parser->problem_mark, parser->problem ? parser->problem : "not YAML");
        }
        int rc = read_event(r, &event);
        bool end = event.type == YAML_STREAM_END_EVENT;
        if (rc >= 0 && r->json->failed == -ERROR_LIMIT)
            rc = fail(r, &event.start_mark, "the document is too large once its aliases are written out");
        else if (rc >= 0 && r->json->failed)
            rc = error_set_default(r->err, r->json->failed);
        yaml_event_delete(&event);
        if (rc < 0 || end)
            return rc;
    }
}

int cli_yaml_to_json_places(struct str yaml, struct buf *ret_json_array, struct yaml_place *ret_places, uint32_t *ret_n,
                            struct error *err)
{
    if (yaml.size > YAML_BYTES_MAX)
        return error_set(err, -ERROR_LIMIT, "more than %zu MiB of YAML", YAML_BYTES_MAX / MIB);
    if (str_starts(yaml, STR("\xEF\xBB\xBF")))
        yaml = str_skip(yaml, 3);
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return error_set_default(err, -ERROR_NO_MEMORY);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(yaml.data ? yaml.data : ""), yaml.size);
    struct reader r = {.json = ret_json_array, .err = err, .places = ret_places}; /* some 13 KiB */
    buf_append_char(r.json, '[');
    int rc = read_stream(&r, &parser);
    buf_append_char(r.json, ']');
    if (rc >= 0 && r.json->failed)
        rc = error_set_default(err, r.json->failed);
    yaml_parser_delete(&parser);
    for (; r.n_anchors > 0; r.n_anchors--)
        free(r.anchors[r.n_anchors - 1].name);
    yaml_keys_done(&r.keys);
    if (rc < 0)
        return rc;
    *ret_n = r.n_places;
    return 0;
}

int cli_yaml_to_json(struct str yaml, struct buf *ret_json_array, struct error *err)
{
    uint32_t n;
    return cli_yaml_to_json_places(yaml, ret_json_array, NULL, &n, err);
}
