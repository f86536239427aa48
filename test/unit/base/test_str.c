/* Views, numbers, names, UTF-8. */
#include "base/error.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void views_compare(void **state)
{
    (void)state;
    assert_true(str_equal(STR("abc"), str_from("abc")));
    assert_false(str_equal(STR("abc"), STR("abd")));
    assert_false(str_equal(STR("abc"), STR("ab")));
    assert_true(str_equal(STR(""), (struct str){0}));
    assert_true(str_equal(STR("a\0b"), (struct str){"a\0b", 3}));
    assert_true(str_equal_nocase(STR("Content-LENGTH"), STR("content-length")));
    assert_false(str_equal_nocase(STR("a["), STR("a{"))); /* 0x5B and 0x7B differ in the case bit only */
    assert_false(str_equal_nocase(STR("@"), STR("`")));
    assert_false(str_equal_nocase(STR("a"), STR("ab")));
    assert_true(str_equal_nocase((struct str){0}, STR("")));
    assert_true(str_starts(STR("abc"), STR("ab")));
    assert_true(str_starts(STR("abc"), (struct str){0}));
    assert_true(str_starts((struct str){0}, (struct str){0}));
    assert_false(str_starts(STR("ab"), STR("abc")));
    assert_int_equal(str_from(NULL).size, 0);
}

static void skip_and_trim(void **state)
{
    (void)state;
    assert_true(str_equal(str_skip(STR("abc"), 1), STR("bc")));
    assert_int_equal(str_skip(STR("abc"), 3).size, 0);
    assert_int_equal(str_skip((struct str){0}, 0).size, 0); /* an empty view may have no address */
    assert_true(str_equal(str_trim(STR(" \t a b\t ")), STR("a b")));
    assert_true(str_equal(str_trim(STR("a")), STR("a")));
    assert_int_equal(str_trim(STR(" \t ")).size, 0);
    assert_int_equal(str_trim((struct str){0}).size, 0);
    assert_true(str_equal(str_trim(STR("\na")), STR("\na"))); /* spaces and tabs only */
}

static void number_is(struct str s, uint64_t expected)
{
    uint64_t value = 99;
    assert_int_equal(str_to_u64(s, &value), 0);
    assert_true(value == expected);
}

static void number_refused(struct str s)
{
    uint64_t value = 99;
    assert_int_equal(str_to_u64(s, &value), -ERROR_INVALID_ARGUMENT);
    assert_true(value == 99);
}

static void numbers(void **state)
{
    (void)state;
    number_is(STR("0"), 0);
    number_is(STR("007"), 7);
    number_is(STR("18446744073709551615"), UINT64_MAX);
    number_is(STR("00000000000000000000000000018446744073709551615"), UINT64_MAX);
    number_is((struct str){"123", 2}, 12); /* the view's size counts, not a NUL */
    number_refused(STR("18446744073709551616"));
    number_refused(STR("18446744073709551620")); /* overflows in the multiplication's sum */
    number_refused(STR("184467440737095516150"));
    number_refused(STR("99999999999999999999999999999999999999"));
    const char *const bad[] = {"", "+1", "-1", "-0", " 1", "1 ", "0x1", "1.0", "1e3", "1_000", "\xD9\xA1", "a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        number_refused(str_from(bad[i]));
    number_refused((struct str){0});
    number_refused(STR("1\0"));
    for (int c = 1; c < 256; c++)
        if (c < '0' || c > '9')
            number_refused((struct str){(char[]){'1', (char)c}, 2});
}

static void copy_fits_or_leaves_alone(void **state)
{
    (void)state;
    char buffer[4] = "zzz";
    assert_int_equal(str_copy(STR("abcd"), buffer, sizeof buffer), -ERROR_LIMIT);
    assert_string_equal(buffer, "zzz");
    assert_int_equal(str_copy(STR("abc"), buffer, sizeof buffer), 0);
    assert_string_equal(buffer, "abc");
    assert_int_equal(str_copy((struct str){0}, buffer, 1), 0);
    assert_string_equal(buffer, "");
    assert_int_equal(str_copy((struct str){0}, buffer, 0), -ERROR_LIMIT);
}

static void names(void **state)
{
    (void)state;
    const char *const good[] = {"a", "0", "a-b", "a--b", "0a", "digits", "xn--caf-dma"};
    const char *const bad[] = {"",    "-",    "-a",  "a-",  "A", "aB",    "a.b", "a_b",
                               "a/b", "../a", "a b", "a\n", "é", "a\xFF", "a:b", "a%2f"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(str_is_name(str_from(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(str_is_name(str_from(bad[i])));
    assert_false(str_is_name((struct str){0}));
    assert_false(str_is_name(STR("a\0b")));
    char text[65];
    memset(text, 'a', sizeof text);
    assert_true(str_is_name((struct str){text, 62}));
    assert_true(str_is_name((struct str){text, 63}));
    assert_false(str_is_name((struct str){text, 64}));
}

/* --- UTF-8: against the table of RFC 3629 §4, byte by byte --- */

/* Bytes of the character at s (1..4) by the RFC's grammar, or 0. */
static size_t rfc_character(const unsigned char *s, size_t size)
{
    static const struct {
        unsigned char first_min, first_max, second_min, second_max;
        size_t length;
    } rows[] = {
        {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (s[0] < rows[i].first_min || s[0] > rows[i].first_max)
            continue;
        if (rows[i].length > size)
            return 0;
        if (rows[i].length > 1 && (s[1] < rows[i].second_min || s[1] > rows[i].second_max))
            return 0;
        for (size_t k = 2; k < rows[i].length; k++)
            if (s[k] < 0x80 || s[k] > 0xBF)
                return 0;
        return rows[i].length;
    }
    return 0;
}

static bool rfc_valid(const unsigned char *s, size_t size)
{
    for (size_t length; size > 0; s += length, size -= length) {
        length = rfc_character(s, size);
        if (length == 0)
            return false;
    }
    return true;
}

static void utf8_of_three_bytes(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 1u << 24; bits += bits % 7 == 0 ? 1 : 3) { /* all leads, most continuations */
        const unsigned char s[3] = {(unsigned char)(bits >> 16), (unsigned char)(bits >> 8), (unsigned char)bits};
        if (str_is_utf8((struct str){(const char *)s, 3}) != rfc_valid(s, 3))
            fail_msg("%02x %02x %02x", s[0], s[1], s[2]);
    }
}

static void utf8_of_four_bytes_at_the_edges(void **state)
{
    (void)state;
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                          0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xFF};
    for (unsigned lead = 0; lead < 256; lead++)
        for (size_t i = 0; i < sizeof edges; i++)
            for (size_t j = 0; j < sizeof edges; j++)
                for (size_t k = 0; k < sizeof edges; k++) {
                    const unsigned char s[4] = {(unsigned char)lead, edges[i], edges[j], edges[k]};
                    for (size_t size = 1; size <= 4; size++)
                        if (str_is_utf8((struct str){(const char *)s, size}) != rfc_valid(s, size))
                            fail_msg("%02x %02x %02x %02x, %zu", s[0], s[1], s[2], s[3], size);
                }
}

static void utf8_by_name(void **state)
{
    (void)state;
    assert_true(str_is_utf8((struct str){0}));
    assert_true(str_is_utf8(STR("plain \0 text")));
    assert_true(str_is_utf8(STR("\xF4\x8F\xBF\xBF")));  /* U+10FFFF */
    assert_false(str_is_utf8(STR("\xF4\x90\x80\x80"))); /* U+110000 */
    assert_false(str_is_utf8(STR("\xED\xA0\x80")));     /* a surrogate */
    assert_false(str_is_utf8(STR("\xC0\xAF")));         /* overlong / */
    assert_false(str_is_utf8(STR("\xE0\x80\xAF")));     /* overlong / */
    assert_false(str_is_utf8(STR("\xF0\x80\x80\xAF"))); /* overlong / */
    assert_false(str_is_utf8(STR("\x80")));             /* a lone continuation */
    assert_false(str_is_utf8(STR("abc\xE2\x82")));      /* ends early */
    assert_false(str_is_utf8((struct str){"\xE2\x82\xAC", 2}));
}

static void secrets_compare(void **state)
{
    (void)state;
    unsigned char a[32], b[32];
    memset(a, 7, sizeof a);
    memcpy(b, a, sizeof b);
    assert_true(bytes_equal_secret(a, b, sizeof a));
    assert_true(bytes_equal_secret(a, b, 0));
    for (size_t i = 0; i < sizeof a; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            b[i] ^= (unsigned char)(1u << bit);
            assert_false(bytes_equal_secret(a, b, sizeof a));
            b[i] = a[i];
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_compare),
        cmocka_unit_test(skip_and_trim),
        cmocka_unit_test(numbers),
        cmocka_unit_test(copy_fits_or_leaves_alone),
        cmocka_unit_test(names),
        cmocka_unit_test(utf8_of_three_bytes),
        cmocka_unit_test(utf8_of_four_bytes_at_the_edges),
        cmocka_unit_test(utf8_by_name),
        cmocka_unit_test(secrets_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
