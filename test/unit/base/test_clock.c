/* Clocks and their text. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void text_is(uint64_t wall_ms, const char *expected)
{
    char text[CLOCK_TEXT_BYTES];
    memset(text, 'x', sizeof text);
    clock_wall_text(wall_ms, text);
    assert_string_equal(text, expected);
}

static void texts(void **state)
{
    (void)state;
    text_is(0, "1970-01-01T00:00:00.000Z");
    text_is(1, "1970-01-01T00:00:00.001Z");
    text_is(999, "1970-01-01T00:00:00.999Z");
    text_is(951782400000, "2000-02-29T00:00:00.000Z");
    text_is(2147483647999, "2038-01-19T03:14:07.999Z");
    text_is(2147483648000, "2038-01-19T03:14:08.000Z");
    text_is(4102444799123, "2099-12-31T23:59:59.123Z");
    text_is(253402300799999, "9999-12-31T23:59:59.999Z");
}

static void text_of_any_time_ends(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 64; shift++) {
        char text[CLOCK_TEXT_BYTES];
        memset(text, 'x', sizeof text);
        clock_wall_text(UINT64_MAX >> shift, text);
        assert_non_null(memchr(text, '\0', sizeof text));
        assert_int_equal(text[strlen(text) - 1], 'Z');
    }
}

static void clocks_run(void **state)
{
    (void)state;
    uint64_t last = clock_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_monotonic_ns();
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_wall_ms() > UINT64_C(1700000000000)); /* after 2023 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(text_of_any_time_ends),
        cmocka_unit_test(clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
