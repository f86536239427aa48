#include "resource_fixture.h"

#include "base/clock.h"

typedef int (*parse)(struct str text, uint64_t *ret_value);

struct sample {
    enum resource_type type;
    const char *text;
    uint64_t value;
    const char *formatted; /* NULL: as text */
};

static parse parser_of(enum resource_type type)
{
    return type == RESOURCE_BYTES ? resource_parse_bytes
                                  : (type == RESOURCE_DURATION ? resource_parse_duration : resource_parse_cpu);
}

static void test_good(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {RESOURCE_BYTES, "0", 0, NULL},
        {RESOURCE_BYTES, "1", 1, NULL},
        {RESOURCE_BYTES, "1023", 1023, NULL},
        {RESOURCE_BYTES, "1024", 1024, "1Ki"},
        {RESOURCE_BYTES, "256Mi", 256 * MIB, NULL},
        {RESOURCE_BYTES, "1536Mi", 1536 * MIB, NULL},
        {RESOURCE_BYTES, "1Gi", GIB, NULL},
        {RESOURCE_BYTES, "1Ti", 1024 * GIB, NULL},
        {RESOURCE_BYTES, "1k", 1000, "1000"},
        {RESOURCE_BYTES, "10M", 10000000, "10000000"},
        {RESOURCE_BYTES, "2G", 2000000000, "1953125Ki"},
        {RESOURCE_BYTES, "3T", 3000000000000, "2929687500Ki"},
        {RESOURCE_BYTES, "18446744073709551615", UINT64_MAX, NULL},
        {RESOURCE_DURATION, "0ms", 0, "0s"},
        {RESOURCE_DURATION, "1ns", 1, NULL},
        {RESOURCE_DURATION, "10us", 10000, NULL},
        {RESOURCE_DURATION, "1500ms", 1500 * NS_PER_MS, "1s500ms"},
        {RESOURCE_DURATION, "90s", 90 * NS_PER_S, "1m30s"},
        {RESOURCE_DURATION, "5m", 300 * NS_PER_S, NULL},
        {RESOURCE_DURATION, "1h30m", 5400 * NS_PER_S, NULL},
        {RESOURCE_DURATION, "18446744073709551615ns", UINT64_MAX, "5124095h34m33s709ms551us615ns"},
        {RESOURCE_CPU, "1", 1000, NULL},
        {RESOURCE_CPU, "500m", 500, NULL},
        {RESOURCE_CPU, "1500m", 1500, NULL},
        {RESOURCE_CPU, "2000m", 2000, "2"},
        {RESOURCE_CPU, "0.5", 500, "500m"},
        {RESOURCE_CPU, "1.25", 1250, "1250m"},
        {RESOURCE_CPU, "0.001", 1, "1m"},
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const struct sample *s = &samples[i];
        uint64_t value = 42, again = 42;
        char text[RESOURCE_VALUE_BYTES];
        assert_int_equal(parser_of(s->type)(str_from(s->text), &value), 0);
        assert_true(value == s->value);
        resource_format_number(s->type, value, text);
        assert_string_equal(text, s->formatted ? s->formatted : s->text);
        assert_int_equal(parser_of(s->type)(str_from(text), &again), 0);
        assert_true(again == value);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const struct sample samples[] = {
        {RESOURCE_BYTES, "", 0, NULL},
        {RESOURCE_BYTES, "Mi", 0, NULL},
        {RESOURCE_BYTES, "-1", 0, NULL},
        {RESOURCE_BYTES, "1.5Gi", 0, NULL},
        {RESOURCE_BYTES, "1 Gi", 0, NULL},
        {RESOURCE_BYTES, "1gi", 0, NULL},
        {RESOURCE_BYTES, "1K", 0, NULL},
        {RESOURCE_BYTES, "1Gi1", 0, NULL},
        {RESOURCE_BYTES, "18446744073709551616", 0, NULL},
        {RESOURCE_BYTES, "16777216Ti", 0, NULL},
        {RESOURCE_DURATION, "", 0, NULL},
        {RESOURCE_DURATION, "5", 0, NULL},
        {RESOURCE_DURATION, "s", 0, NULL},
        {RESOURCE_DURATION, "5 s", 0, NULL},
        {RESOURCE_DURATION, "-5s", 0, NULL},
        {RESOURCE_DURATION, "1.5s", 0, NULL},
        {RESOURCE_DURATION, "30m1h", 0, NULL},
        {RESOURCE_DURATION, "1s1s", 0, NULL},
        {RESOURCE_DURATION, "1h30", 0, NULL},
        {RESOURCE_DURATION, "5124096h", 0, NULL},
        {RESOURCE_DURATION, "5124095h2100s", 0, NULL},
        {RESOURCE_CPU, "", 0, NULL},
        {RESOURCE_CPU, "m", 0, NULL},
        {RESOURCE_CPU, ".5", 0, NULL},
        {RESOURCE_CPU, "1.", 0, NULL},
        {RESOURCE_CPU, "0.0001", 0, NULL},
        {RESOURCE_CPU, "0.5m", 0, NULL},
        {RESOURCE_CPU, "1.2.3", 0, NULL},
        {RESOURCE_CPU, "18446744073709552", 0, NULL},
    };
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        uint64_t value = 42;
        if (parser_of(samples[i].type)(str_from(samples[i].text), &value) == 0)
            fail_msg("\"%s\" was taken", samples[i].text);
        assert_int_equal(value, 42);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests_name("resource_number", tests, NULL, NULL);
}
