#include "base/buf.h"

#include "base/error.h"

#include <assert.h>
#include <stdio.h>

void buf_init(struct buf *b, size_t capacity_max)
{
    *b = (struct buf){.capacity_max = capacity_max};
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.capacity_max = b->capacity_max};
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    b->failed = 0;
}

void *buf_reserve(struct buf *b, size_t size)
{
    if (b->failed)
        return NULL;
    size_t wanted;
    if (__builtin_add_overflow(b->size, size, &wanted) || wanted > b->capacity_max) {
        b->failed = -ERROR_LIMIT;
        return NULL;
    }
    if (wanted > b->capacity || !b->data) {
        size_t capacity = b->capacity < 128 ? 256 : b->capacity * 2;
        if (capacity < wanted)
            capacity = wanted;
        if (capacity > b->capacity_max)
            capacity = b->capacity_max;
        char *data = realloc(b->data, capacity > 0 ? capacity : 1);
        if (!data) {
            b->failed = -ERROR_NO_MEMORY;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->size;
}

void buf_commit(struct buf *b, size_t size)
{
    assert(size <= b->capacity - b->size);
    b->size += size;
}

void buf_append(struct buf *b, const void *data, size_t size)
{
    if (size == 0)
        return;
    void *room = buf_reserve(b, size);
    if (!room)
        return;
    memcpy(room, data, size);
    b->size += size;
}

void buf_append_str(struct buf *b, struct str s)
{
    buf_append(b, s.data, s.size);
}

void buf_append_text(struct buf *b, const char *text)
{
    buf_append(b, text, strlen(text));
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_vformat(struct buf *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    /* +1: vsnprintf writes its NUL into the reserved room too */
    char *room = length >= 0 ? buf_reserve(b, (size_t)length + 1) : NULL;
    if (room && vsnprintf(room, (size_t)length + 1, format, again) == length)
        b->size += (size_t)length;
    else if (!b->failed)
        b->failed = -ERROR_LIMIT;
    va_end(again);
}

void buf_format(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buf_vformat(b, format, args);
    va_end(args);
}

static size_t utf8_valid_prefix(struct str s)
{
    for (size_t length = 2; length <= 4 && length <= s.size; length++)
        if (str_is_utf8((struct str){s.data, length}))
            return length;
    return 0;
}

static void append_json_char(struct buf *b, unsigned char c)
{
    switch (c) {
    case '"':
        buf_append_text(b, "\\\"");
        break;
    case '\\':
        buf_append_text(b, "\\\\");
        break;
    case '\n':
        buf_append_text(b, "\\n");
        break;
    case '\r':
        buf_append_text(b, "\\r");
        break;
    case '\t':
        buf_append_text(b, "\\t");
        break;
    default:
        if (c < 0x20 || c == 0x7F)
            buf_format(b, "\\u%04x", c);
        else
            buf_append_char(b, (char)c);
    }
}

void buf_append_json(struct buf *b, struct str s)
{
    buf_append_char(b, '"');
    while (s.size > 0) {
        size_t plain = 0;
        while (plain < s.size && (unsigned char)s.data[plain] >= 0x20 && (unsigned char)s.data[plain] < 0x7F &&
               s.data[plain] != '"' && s.data[plain] != '\\')
            plain++;
        buf_append(b, s.data, plain);
        s = str_skip(s, plain);
        if (s.size == 0)
            break;
        if ((unsigned char)s.data[0] < 0x80) {
            append_json_char(b, (unsigned char)s.data[0]);
            s = str_skip(s, 1);
            continue;
        }
        size_t length = utf8_valid_prefix(s);
        if (length > 0)
            buf_append(b, s.data, length);
        else
            buf_append_text(b, "\xEF\xBF\xBD");
        s = str_skip(s, length > 0 ? length : 1);
    }
    buf_append_char(b, '"');
}

const char *buf_terminate(struct buf *b)
{
    char *room = buf_reserve(b, 1);
    if (!room)
        return "";
    *room = '\0';
    return b->data;
}

void buf_consume(struct buf *b, size_t size)
{
    assert(size <= b->size);
    if (size > 0 && size < b->size)
        memmove(b->data, b->data + size, b->size - size);
    b->size -= size;
}
