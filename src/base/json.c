#include "base/json.h"

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* The lowest set bit is that of the first byte of `bytes` which is zero; those above it may be wrong. */
static uint64_t zeros(uint64_t bytes)
{
    return (bytes - ONES) & ~bytes & HIGHS;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest");

/* The first quote or backslash from `at` on, if not a little before it. */
static size_t plain_skip(struct str text, size_t at)
{
    uint64_t bytes, found = 0;
    while (found == 0 && text.size - at >= sizeof bytes) {
        memcpy(&bytes, text.data + at, sizeof bytes);
        found = zeros(bytes ^ ONES * '"') | zeros(bytes ^ ONES * '\\');
        at += found == 0 ? sizeof bytes : (size_t)__builtin_ctzll(found) / 8;
    }
    return at;
}

/* The place of the quote that ends the string whose text begins at `at`, or the text's end. */
static size_t string_end(struct str text, size_t at)
{
    for (size_t plain = 0; at < text.size; plain++) {
        if (plain == sizeof(uint64_t)) { /* where escapes are many, a byte at a time is faster */
            at = plain_skip(text, at);
            plain = 0;
        } else if (text.data[at] == '"') {
            return at;
        } else if (text.data[at] == '\\') {
            at += 2;
            plain = 0;
        } else {
            at++;
        }
    }
    return text.size;
}

typedef uint8_t lanes __attribute__((vector_size(16)));

static size_t lanes_sum(lanes v)
{
    size_t sum = 0;
    for (size_t i = 0; i < sizeof v; i++)
        sum += v[i];
    return sum;
}

/* What there is at most: as `json_within` counts, but for what stands in strings, too. */
static struct json_bound at_most(struct str text)
{
    enum { ROUNDS = 255 }; /* as far as a lane counts */
    size_t quotes = 0, opened = 0, commas = 0, colons = 0, at = 0;
    while (text.size - at >= sizeof(lanes)) {
        lanes q = {0}, o = {0}, m = {0}, c = {0};
        for (size_t i = 0; i < ROUNDS && text.size - at >= sizeof(lanes); i++, at += sizeof(lanes)) {
            lanes v;
            memcpy(&v, text.data + at, sizeof v);
            q -= (lanes)(v == '"'); /* true is -1 */
            o -= (lanes)((v | 0x20) == '{');
            m -= (lanes)(v == ',');
            c -= (lanes)(v == ':');
        }
        quotes += lanes_sum(q);
        opened += lanes_sum(o);
        commas += lanes_sum(m);
        colons += lanes_sum(c);
    }
    size_t rest = text.size - at; /* whatever it is */
    return (struct json_bound){
        .nodes = quotes / 2 + opened + rest + 1, .members = colons + rest, .entries = commas + opened + rest};
}

static bool below(const struct json_bound *n, const struct json_bound *bound)
{
    return n->nodes <= bound->nodes && n->members <= bound->members && n->entries <= bound->entries;
}

bool json_within(struct str text, const struct json_bound *bound)
{
    struct json_bound n = {text.size, text.size, text.size};
    if (below(&n, bound))
        return true;
    n = at_most(text);
    if (below(&n, bound))
        return true;
    n = (struct json_bound){0};
    for (size_t i = 0; i < text.size; i++) {
        switch (text.data[i]) {
        case '"':
            n.nodes++;
            i = string_end(text, i + 1);
            break;
        case '[':
        case '{':
            n.nodes++;
            n.entries++;
            break;
        case ',':
            n.entries++;
            break;
        case ':':
            n.members++;
            break;
        default:
            continue;
        }
        if (!below(&n, bound))
            return false;
    }
    return true;
}
