/* Random text: its alphabet, its length, and no letter likelier than another. */
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static void lengths(void **state)
{
    (void)state;
    for (size_t length = 0; length <= 200; length++) {
        char text[202];
        memset(text, '!', sizeof text);
        random_base62(text, length);
        assert_int_equal(strlen(text), length);
        assert_int_equal(strspn(text, digits), length);
        assert_int_equal(text[length + 1], '!');
    }
}

static void letters_are_equally_likely(void **state)
{
    (void)state;
    enum { DRAWS = 620000 };
    static char text[DRAWS + 1];
    uint32_t count[256] = {0};
    random_base62(text, DRAWS);
    for (size_t i = 0; i < DRAWS; i++)
        count[(unsigned char)text[i]]++;
    double chi2 = 0; /* 61 degrees of freedom: over 140 is likelier a bug than chance, by 10^7 */
    for (size_t i = 0; i < 62; i++) {
        double off = (double)count[(unsigned char)digits[i]] - DRAWS / 62;
        chi2 += off * off / (DRAWS / 62);
    }
    assert_true(chi2 < 140);
}

static void bytes_fill_exactly(void **state)
{
    (void)state;
    unsigned char any[4096] = {0};
    for (size_t size = 0; size <= 300; size++) { /* over 256 getrandom may give less at once */
        unsigned char data[302];
        memset(data, 0xEE, sizeof data);
        random_bytes(data, size);
        assert_int_equal(data[size], 0xEE);
    }
    random_bytes(any, sizeof any);
    size_t zeros = 0;
    for (size_t i = 0; i < sizeof any; i++)
        zeros += any[i] == 0;
    assert_true(zeros < 80); /* 16 expected */
}

static void numbers_differ(void **state)
{
    (void)state;
    uint64_t seen[100];
    for (size_t i = 0; i < 100; i++) {
        seen[i] = random_u64();
        for (size_t k = 0; k < i; k++)
            assert_true(seen[k] != seen[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths),
        cmocka_unit_test(letters_are_equally_likely),
        cmocka_unit_test(bytes_fill_exactly),
        cmocka_unit_test(numbers_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
