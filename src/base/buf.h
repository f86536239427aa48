/* A growing byte buffer with a maximum given at creation. For every room; one owner, no locking.
 *
 * Failure is sticky: after the first append that does not fit or finds no memory, `failed` stays set and later appends
 * do nothing, so an encoder can append freely and check once at the end. */
#ifndef BULKHEAD_BASE_BUF_H
#define BULKHEAD_BASE_BUF_H

#include "base/str.h"

#include <stdarg.h>

struct buf {
    char *data;          /* read-only for users; NUL-terminated only after buf_terminate */
    size_t size;         /* bytes in use */
    size_t capacity;     /* bytes allocated */
    size_t capacity_max; /* never grows beyond */
    int failed;          /* 0, or -ERROR_LIMIT / -ERROR_NO_MEMORY */
};

/* An empty buffer that allocates on first use. */
void buf_init(struct buf *b, size_t capacity_max);
/* Frees; the struct may be used again as after buf_init with the same maximum. Accepts a zeroed struct. */
void buf_done(struct buf *b);
/* Forgets content and failure, keeps memory. */
void buf_clear(struct buf *b);

/* Room for `size` more bytes; the pointer is valid until the next call; NULL (and failed set) when refused. Does not
 * change size: call buf_commit after writing. */
void *buf_reserve(struct buf *b, size_t size);
void buf_commit(struct buf *b, size_t size);

void buf_append(struct buf *b, const void *data, size_t size);
void buf_append_str(struct buf *b, struct str s);
void buf_append_text(struct buf *b, const char *text);
void buf_append_char(struct buf *b, char c);
/* printf writes a NUL: the text needs a byte of room more than it counts. */
void buf_format(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vformat(struct buf *b, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* As a JSON string with its quotes. Bytes that are not valid UTF-8 come out as U+FFFD. */
void buf_append_json(struct buf *b, struct str s);
/* Puts a NUL behind the content without counting it; returns data, or "" when that failed. */
const char *buf_terminate(struct buf *b);
/* Drops the first `size` bytes. */
void buf_consume(struct buf *b, size_t size);

#define _buf_ _cleanup_(buf_done)

#endif
