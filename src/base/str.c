#include "base/str.h"

#include "base/error.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool str_equal_nocase(struct str a, struct str b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}

struct str str_trim(struct str s)
{
    while (s.size > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
        s = str_skip(s, 1);
    while (s.size > 0 && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t'))
        s.size--;
    return s;
}

int str_to_u64(struct str s, uint64_t *ret_value)
{
    if (s.size == 0)
        return -ERROR_INVALID_ARGUMENT;
    uint64_t value = 0;
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return -ERROR_INVALID_ARGUMENT;
        uint64_t digit = (uint64_t)(s.data[i] - '0');
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, digit, &value))
            return -ERROR_INVALID_ARGUMENT;
    }
    *ret_value = value;
    return 0;
}

int str_copy(struct str s, char *buffer, size_t capacity)
{
    if (s.size >= capacity)
        return -ERROR_LIMIT;
    if (s.size > 0)
        memcpy(buffer, s.data, s.size);
    buffer[s.size] = '\0';
    return 0;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool str_is_name(struct str s)
{
    if (s.size < 1 || s.size > 63 || !is_alnum(s.data[0]) || !is_alnum(s.data[s.size - 1]))
        return false;
    for (size_t i = 0; i < s.size; i++)
        if (!is_alnum(s.data[i]) && s.data[i] != '-')
            return false;
    return true;
}

/* Length of the sequence that starts with `lead`, and the smallest code point it may encode. 0 = not a lead byte. */
static size_t utf8_sequence(unsigned char lead, uint32_t *ret_bits, uint32_t *ret_min)
{
    if (lead < 0x80) {
        *ret_bits = lead;
        *ret_min = 0;
        return 1;
    }
    if (lead >= 0xC2 && lead < 0xE0) {
        *ret_bits = lead & 0x1Fu;
        *ret_min = 0x80;
        return 2;
    }
    if (lead >= 0xE0 && lead < 0xF0) {
        *ret_bits = lead & 0x0Fu;
        *ret_min = 0x800;
        return 3;
    }
    if (lead >= 0xF0 && lead < 0xF5) {
        *ret_bits = lead & 0x07u;
        *ret_min = 0x10000;
        return 4;
    }
    return 0;
}

bool str_is_utf8(struct str s)
{
    size_t i = 0;
    while (i < s.size) {
        uint32_t code = 0, min = 0;
        size_t length = utf8_sequence((unsigned char)s.data[i], &code, &min);
        if (length == 0 || length > s.size - i)
            return false;
        for (size_t k = 1; k < length; k++) {
            unsigned char c = (unsigned char)s.data[i + k];
            if ((c & 0xC0u) != 0x80u)
                return false;
            code = code << 6 | (c & 0x3Fu);
        }
        if (code < min || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
            return false;
        i += length;
    }
    return true;
}

bool bytes_equal_secret(const void *a, const void *b, size_t size)
{
    const volatile unsigned char *x = a, *y = b;
    unsigned char difference = 0;
    for (size_t i = 0; i < size; i++)
        difference = (unsigned char)(difference | (x[i] ^ y[i]));
    return difference == 0;
}
