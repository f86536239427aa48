/* String views and bounded number parsing. For every room; nothing here allocates or blocks.
 *
 * A struct str borrows: it is valid as long as the bytes it points at, is not NUL-terminated, and may hold any byte. */
#ifndef BULKHEAD_BASE_STR_H
#define BULKHEAD_BASE_STR_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *data; /* may be NULL when size is 0 */
    size_t size;      /* bytes */
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_FORMAT   "%.*s"
#define STR_ARG(s)   (int)(s).size, (s).data ? (s).data : ""

static inline struct str str_from(const char *text)
{
    return (struct str){text, text ? strlen(text) : 0};
}

static inline bool str_equal(struct str a, struct str b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* ASCII case is ignored; for header names and schemes. */
bool str_equal_nocase(struct str a, struct str b);

static inline bool str_starts(struct str s, struct str prefix)
{
    return s.size >= prefix.size && (prefix.size == 0 || memcmp(s.data, prefix.data, prefix.size) == 0);
}

/* The rest after `size` bytes; size ≤ s.size. (NULL + 0 is undefined in C: an empty view stays as it is.) */
static inline struct str str_skip(struct str s, size_t size)
{
    return size > 0 ? (struct str){s.data + size, s.size - size} : s;
}

/* Without spaces and tabs at either end. */
struct str str_trim(struct str s);

/* Decimal digits only, no sign, no space, no leading plus; 0 on success, -ERROR_INVALID_ARGUMENT on anything else or
 * overflow. */
must_check int str_to_u64(struct str s, uint64_t *ret_value);

/* Copies into a NUL-terminated buffer of `capacity` bytes; -ERROR_LIMIT when it does not fit (buffer untouched). */
must_check int str_copy(struct str s, char *buffer, size_t capacity);

/* True for a DNS-1123 label: [a-z0-9]([a-z0-9-]*[a-z0-9])?, 1..63 bytes (RFC 1123 §2.1 with RFC 1035 §2.3.4). */
bool str_is_name(struct str s);

/* Valid UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
bool str_is_utf8(struct str s);

/* Constant-time comparison of two byte ranges of the same size: time depends on size only. */
bool bytes_equal_secret(const void *a, const void *b, size_t size);

#endif
