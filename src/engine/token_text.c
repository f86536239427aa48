#include "engine/token_text.h"

void token_text_init(struct token_text *t, const struct str *stops, uint32_t n_stops)
{
    t->n_stops = 0;
    t->stopped = false;
    t->held = 0;
    for (uint32_t i = 0; i < n_stops; i++)
        token_text_stop(t, stops[i]);
}

void token_text_stop(struct token_text *t, struct str stop)
{
    if (stop.size < 1 || stop.size > LIMIT_STOP_BYTES || t->n_stops == TOKEN_STOPS_MAX)
        return;
    t->stop_sizes[t->n_stops] = (uint16_t)stop.size;
    memcpy(t->stops[t->n_stops++], stop.data, stop.size);
}

/* Where the first stop string begins; t->held when there is none. */
static size_t stop_find(const struct token_text *t)
{
    size_t first = t->held;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        const char *at = memmem(t->pending, t->held, t->stops[i], t->stop_sizes[i]);
        if (at && (size_t)(at - t->pending) < first)
            first = (size_t)(at - t->pending);
    }
    return first;
}

/* Where the longest end that a stop string begins with starts; t->held when there is none. */
static size_t stop_begun(const struct token_text *t)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < t->n_stops; i++) {
        size_t n = t->stop_sizes[i] - 1u < t->held ? t->stop_sizes[i] - 1u : t->held;
        while (n > longest && memcmp(t->pending + t->held - n, t->stops[i], n) != 0)
            n--;
        if (n > longest)
            longest = n;
    }
    return t->held - longest;
}

/* Bytes of the character that `data` begins with; 0: it is none; -1: it is one as far as it goes. RFC 3629. */
static int character(const unsigned char *data, size_t size)
{
    unsigned char c = data[0], low = 0x80, high = 0xBF;
    if (c < 0x80)
        return 1;
    int length = c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF) {
        if ((size_t)i >= size)
            return -1;
        if (data[i] < low || data[i] > high)
            return 0;
    }
    return length;
}

/* Gives the first `size` bytes of what is pending, as characters; returns how many bytes were given. */
static size_t give(struct token_text *t, size_t size, bool last, char *text, size_t *ret_size)
{
    size_t at = 0, written = 0;
    while (at < size) {
        int n = character((const unsigned char *)t->pending + at, size - at);
        if (n < 0 && !last)
            break;
        if (n > 0) {
            memcpy(text + written, t->pending + at, (size_t)n);
            written += (size_t)n;
            at += (size_t)n;
        } else {
            memcpy(text + written, "\xEF\xBF\xBD", 3);
            written += 3;
            at++;
        }
    }
    *ret_size = written;
    return at;
}

size_t token_text_add(struct token_text *t, struct str piece, bool last, char ret_text[static TOKEN_TEXT_BYTES])
{
    size_t size = 0;
    if (piece.size > 0)
        memcpy(t->pending + t->held, piece.data, piece.size);
    t->held += piece.size;
    size_t end = stop_find(t);
    t->stopped = end < t->held;
    last = last || t->stopped;
    if (!last)
        end = stop_begun(t);
    size_t given = give(t, end, last, ret_text, &size);
    t->held = t->stopped ? 0 : t->held - given;
    memmove(t->pending, t->pending + given, t->held);
    return size;
}
