/* Quantities and durations: whole numbers with units, every sum and product checked. */
#include "resource/resource_internal.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>

struct unit {
    struct str suffix;
    uint64_t scale;
};

/* Kubernetes' suffixes. Binary ones first and largest first: what formatting prefers. */
static const struct unit byte_units[] = {
    {{"Ti", 2}, (uint64_t)1 << 40},
    {{"Gi", 2}, (uint64_t)1 << 30},
    {{"Mi", 2}, (uint64_t)1 << 20},
    {{"Ki", 2}, (uint64_t)1 << 10},
    {{"T", 1}, 1000000000000},
    {{"G", 1}, 1000000000},
    {{"M", 1}, 1000000},
    {{"k", 1}, 1000},
    {{"", 0}, 1},
};
enum { BYTE_UNITS_BINARY = 4 };

/* Largest first: the only order in which a duration names them. */
static const struct unit time_units[] = {
    {{"h", 1}, 3600 * NS_PER_S}, {{"m", 1}, 60 * NS_PER_S}, {{"s", 1}, NS_PER_S},
    {{"ms", 2}, NS_PER_MS},      {{"us", 2}, NS_PER_US},    {{"ns", 2}, 1},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Moves the leading run of digits, or of anything else, out of *text. */
static struct str take_run(struct str *text, bool digits)
{
    size_t size = 0;
    while (size < text->size && is_digit(text->data[size]) == digits)
        size++;
    struct str run = {text->data, size};
    *text = str_skip(*text, size);
    return run;
}

static int scaled(struct str digits, uint64_t scale, uint64_t *ret_value)
{
    uint64_t value;
    int result = str_to_u64(digits, &value);
    if (result < 0)
        return result;
    if (__builtin_mul_overflow(value, scale, &value))
        return -ERROR_INVALID_ARGUMENT;
    *ret_value = value;
    return 0;
}

int resource_parse_bytes(struct str text, uint64_t *ret_bytes)
{
    struct str digits = take_run(&text, true);
    for (size_t i = 0; i < COUNT(byte_units); i++)
        if (str_equal(text, byte_units[i].suffix))
            return scaled(digits, byte_units[i].scale, ret_bytes);
    return -ERROR_INVALID_ARGUMENT;
}

int resource_parse_duration(struct str text, uint64_t *ret_ns)
{
    uint64_t sum = 0;
    size_t unit = 0; /* the first that may still come */
    if (text.size == 0)
        return -ERROR_INVALID_ARGUMENT;
    while (text.size > 0) {
        struct str digits = take_run(&text, true), suffix = take_run(&text, false);
        while (unit < COUNT(time_units) && !str_equal(suffix, time_units[unit].suffix))
            unit++;
        uint64_t part;
        if (unit == COUNT(time_units) || scaled(digits, time_units[unit++].scale, &part) < 0 ||
            __builtin_add_overflow(sum, part, &sum))
            return -ERROR_INVALID_ARGUMENT;
    }
    *ret_ns = sum;
    return 0;
}

/* "2", "500m", "0.5", "1.25" */
int resource_parse_cpu(struct str text, uint64_t *ret_milli)
{
    struct str whole = take_run(&text, true);
    if (text.size == 0)
        return scaled(whole, 1000, ret_milli);
    if (str_equal(text, STR("m")))
        return scaled(whole, 1, ret_milli);
    uint64_t milli, part, scale = 1000;
    if (text.data[0] != '.' || scaled(whole, 1000, &milli) < 0)
        return -ERROR_INVALID_ARGUMENT;
    struct str fraction = str_skip(text, 1);
    for (size_t i = 0; i < fraction.size && i < 3; i++)
        scale /= 10;
    if (fraction.size > 3 || scaled(fraction, scale, &part) < 0 || __builtin_add_overflow(milli, part, &milli))
        return -ERROR_INVALID_ARGUMENT;
    *ret_milli = milli;
    return 0;
}

static void format_bytes(uint64_t value, char text[static RESOURCE_VALUE_BYTES])
{
    for (size_t i = 0; i < BYTE_UNITS_BINARY; i++)
        if (value > 0 && value % byte_units[i].scale == 0) {
            (void)snprintf(text, RESOURCE_VALUE_BYTES, "%" PRIu64 "%s", value / byte_units[i].scale,
                           byte_units[i].suffix.data);
            return;
        }
    (void)snprintf(text, RESOURCE_VALUE_BYTES, "%" PRIu64, value);
}

static void format_duration(uint64_t ns, char text[static RESOURCE_VALUE_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < COUNT(time_units); i++) {
        uint64_t count = ns / time_units[i].scale;
        ns %= time_units[i].scale;
        if (count == 0)
            continue;
        /* at most "5124095h34m33s709ms551us615ns": it fits */
        used += (size_t)snprintf(text + used, RESOURCE_VALUE_BYTES - used, "%" PRIu64 "%s", count,
                                 time_units[i].suffix.data);
    }
    if (used == 0)
        (void)snprintf(text, RESOURCE_VALUE_BYTES, "0s");
}

void resource_format_number(enum resource_type type, uint64_t value, char text[static RESOURCE_VALUE_BYTES])
{
    if (type == RESOURCE_BYTES)
        format_bytes(value, text);
    else if (type == RESOURCE_DURATION)
        format_duration(value, text);
    else if (type == RESOURCE_CPU && value % 1000 == 0)
        (void)snprintf(text, RESOURCE_VALUE_BYTES, "%" PRIu64, value / 1000);
    else
        (void)snprintf(text, RESOURCE_VALUE_BYTES, "%" PRIu64 "%s", value, type == RESOURCE_CPU ? "m" : "");
}
