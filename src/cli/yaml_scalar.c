/* Plain scalars by YAML 1.2's core schema. */
#include "cli/yaml.h"

#include <math.h>

#define NUMBER_BYTES_MAX 64u /* longer ones lose their digits in any reader */

static bool one_of(struct str s, const char *const *words)
{
    for (; *words; words++)
        if (str_equal(s, str_from(*words)))
            return true;
    return false;
}

static size_t digits(struct str s)
{
    size_t n = 0;
    while (n < s.size && s.data[n] >= '0' && s.data[n] <= '9')
        n++;
    return n;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* 16 for 0x…, 8 for 0o…, else 0. */
static int prefixed_base(struct str s)
{
    if (s.size < 3 || s.data[0] != '0' || (s.data[1] != 'x' && s.data[1] != 'o'))
        return 0;
    int base = s.data[1] == 'x' ? 16 : 8;
    for (size_t i = 2; i < s.size; i++)
        if (digit_value(s.data[i]) >= base)
            return 0;
    return base;
}

static struct str without_sign(struct str s)
{
    return s.size > 0 && (s.data[0] == '-' || s.data[0] == '+') ? str_skip(s, 1) : s;
}

/* The parts of [-+]? ( \.[0-9]+ | [0-9]+ (\.[0-9]*)? ) ([eE][-+]?[0-9]+)? */
struct number {
    bool negative, dot;
    struct str whole, fraction, exponent; /* exponent with its sign, empty when there is none */
};

static bool number_split(struct str s, struct number *ret_number)
{
    struct number n = {.negative = s.size > 0 && s.data[0] == '-'};
    s = without_sign(s);
    n.whole = (struct str){s.data, digits(s)};
    s = str_skip(s, n.whole.size);
    if (s.size > 0 && s.data[0] == '.') {
        n.dot = true;
        s = str_skip(s, 1);
        n.fraction = (struct str){s.data, digits(s)};
        s = str_skip(s, n.fraction.size);
    }
    if (n.whole.size == 0 && n.fraction.size == 0)
        return false;
    if (s.size > 0 && (s.data[0] == 'e' || s.data[0] == 'E')) {
        n.exponent = str_skip(s, 1);
        struct str power = without_sign(n.exponent);
        if (power.size == 0 || digits(power) != power.size)
            return false;
        s.size = 0;
    }
    *ret_number = n;
    return s.size == 0;
}

enum yaml_scalar cli_yaml_scalar(struct str plain)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const infinities[] = {".inf", ".Inf", ".INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    struct number number;
    if (one_of(plain, nulls))
        return YAML_NULL;
    if (one_of(plain, trues))
        return YAML_TRUE;
    if (one_of(plain, falses))
        return YAML_FALSE;
    if (one_of(plain, nans) || one_of(without_sign(plain), infinities))
        return YAML_NOT_FINITE;
    if (prefixed_base(plain) != 0)
        return YAML_INTEGER;
    if (!number_split(plain, &number))
        return YAML_STRING;
    return number.dot || number.exponent.size > 0 ? YAML_FLOAT : YAML_INTEGER;
}

static int prefixed_number(struct str plain, int base, struct buf *json)
{
    uint64_t value = 0;
    for (size_t i = 2; i < plain.size; i++)
        if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit_value(plain.data[i]), &value))
            return -ERROR_LIMIT;
    buf_format(json, "%llu", (unsigned long long)value);
    return 0;
}

int cli_yaml_number(struct str plain, enum yaml_scalar kind, struct buf *json)
{
    int base = prefixed_base(plain);
    if (base != 0)
        return prefixed_number(plain, base, json);
    char text[NUMBER_BYTES_MAX + 1];
    struct number n;
    if (str_copy(plain, text, sizeof text) < 0 || !number_split(plain, &n) || !isfinite(strtod(text, NULL)))
        return -ERROR_LIMIT;
    /* JSON wants no plus, no leading zero and digits on both sides of the dot */
    while (n.whole.size > 1 && n.whole.data[0] == '0')
        n.whole = str_skip(n.whole, 1);
    if (n.negative)
        buf_append_char(json, '-');
    if (n.whole.size > 0)
        buf_append_str(json, n.whole);
    else
        buf_append_char(json, '0');
    if (kind == YAML_FLOAT && n.dot) {
        buf_append_char(json, '.');
        if (n.fraction.size > 0)
            buf_append_str(json, n.fraction);
        else
            buf_append_char(json, '0');
    }
    if (n.exponent.size > 0) {
        buf_append_char(json, 'e');
        buf_append_str(json, n.exponent);
    }
    return 0;
}
