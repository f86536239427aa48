/* Error codes, and the object that explains one. */
#include "base/error.h"
#include "base/str.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void every_row_is_whole(void **state)
{
    (void)state;
    for (int code = 1; code < ERROR_COUNT; code++) {
        const struct error_info *info = error_info(code);
        assert_non_null(info->name);
        assert_true(info->name[0] != '\0' && info->text[0] != '\0');
        assert_in_range(info->http_status, 200, 599);
        assert_ptr_equal(info, error_info(-code));
        for (int other = 1; other < code; other++)
            assert_string_not_equal(info->name, error_info(other)->name);
    }
}

static void unknown_codes_are_internal(void **state)
{
    (void)state;
    const int unknown[] = {ERROR_COUNT, -ERROR_COUNT, INT_MAX, -INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_ptr_equal(error_info(unknown[i]), error_info(ERROR_INTERNAL));
    assert_string_equal(error_info(0)->name, "ok");
}

static void set_takes_either_sign(void **state)
{
    (void)state;
    struct error err = {.retry_after_ms = 5};
    assert_int_equal(error_set(&err, ERROR_IO, "disk %d", 7), -ERROR_IO);
    assert_int_equal(err.code, -ERROR_IO);
    assert_int_equal(err.retry_after_ms, 0);
    assert_string_equal(err.text, "disk 7");
    assert_int_equal(error_set(&err, -ERROR_PEER, "x"), -ERROR_PEER);
    assert_int_equal(err.code, -ERROR_PEER);
    assert_int_equal(error_set(NULL, ERROR_IO, "%s", "nobody asked"), -ERROR_IO);
    assert_int_equal(error_set_default(&err, ERROR_DRAINING), -ERROR_DRAINING);
    assert_string_equal(err.text, error_info(ERROR_DRAINING)->text);
}

static void text_falls_back_to_the_default(void **state)
{
    (void)state;
    struct error err = {0};
    assert_string_equal(error_text(NULL, ERROR_IO), error_info(ERROR_IO)->text);
    assert_string_equal(error_text(&err, -ERROR_IO), error_info(ERROR_IO)->text);
    (void)error_set(&err, ERROR_IO, "mine");
    assert_string_equal(error_text(&err, ERROR_PEER), "mine");
}

static void wrap_puts_context_in_front(void **state)
{
    (void)state;
    struct error err = {0};
    (void)error_set(&err, ERROR_INVALID_NAME, "no dots");
    err.retry_after_ms = 9;
    assert_int_equal(error_wrap(&err, ERROR_IO, "document %d", 2), -ERROR_INVALID_NAME);
    assert_string_equal(err.text, "document 2: no dots");
    assert_int_equal(err.retry_after_ms, 9);
    assert_int_equal(error_wrap(NULL, ERROR_IO, "x"), -ERROR_IO);

    struct error empty = {0};
    assert_int_equal(error_wrap(&empty, ERROR_REFUSED, "here"), -ERROR_REFUSED);
    assert_true(strncmp(empty.text, "here: ", 6) == 0);
    assert_string_equal(empty.text + 6, error_info(ERROR_REFUSED)->text);
}

static void long_text_is_cut_at_the_size(void **state)
{
    (void)state;
    char text[2 * ERROR_TEXT_BYTES_MAX];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct error err = {0};
    (void)error_set(&err, ERROR_IO, "%s", text);
    assert_int_equal(strlen(err.text), ERROR_TEXT_BYTES_MAX - 1);
    (void)error_wrap(&err, ERROR_IO, "context");
    assert_int_equal(strlen(err.text), ERROR_TEXT_BYTES_MAX - 1);
    assert_true(strncmp(err.text, "context: aaa", 12) == 0);
    (void)error_wrap(&err, ERROR_IO, "%s", text);
    assert_int_equal(strlen(err.text), ERROR_TEXT_BYTES_MAX - 1);
    assert_true(err.text[ERROR_TEXT_BYTES_MAX - 2] == 'a');
}

/* Valid in, valid out: a cut never leaves half a character. */
static void a_cut_leaves_whole_characters(void **state)
{
    (void)state;
    static const char *const characters[] = {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x90\x99"};
    for (size_t i = 0; i < 3; i++)
        for (size_t shift = 0; shift < 4; shift++) {
            char text[2 * ERROR_TEXT_BYTES_MAX] = "";
            memset(text, 'a', shift);
            while (strlen(text) + strlen(characters[i]) < sizeof text)
                memcpy(text + strlen(text), characters[i], strlen(characters[i])); /* the rest is zero */
            struct error err = {0};
            (void)error_set(&err, ERROR_IO, "%s", text);
            assert_true(str_is_utf8(str_from(err.text)));
            assert_in_range(strlen(err.text), ERROR_TEXT_BYTES_MAX - 4, ERROR_TEXT_BYTES_MAX - 1);
            (void)error_wrap(&err, ERROR_IO, "in %zu", shift);
            assert_true(str_is_utf8(str_from(err.text)));
            (void)error_wrap(&err, ERROR_IO, "%s", text);
            assert_true(str_is_utf8(str_from(err.text)));
        }
    /* What was not valid before stays as it is: it is not ours to repair. */
    char bad[ERROR_TEXT_BYTES_MAX + 8];
    memset(bad, '\x80', sizeof bad - 1);
    bad[sizeof bad - 1] = '\0';
    struct error err = {0};
    (void)error_set(&err, ERROR_IO, "%s", bad);
    assert_true(strlen(err.text) >= ERROR_TEXT_BYTES_MAX - 4);
}

static __attribute__((noinline)) void stack_fill(void)
{
    volatile char secret[8192];
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = 'S';
}

/* The object crosses process borders whole: no byte of anyone's stack may travel behind the text. */
static void wrap_leaks_no_stack(void **state)
{
    (void)state;
    struct error err = {0};
    (void)error_set(&err, ERROR_IO, "short");
    stack_fill();
    (void)error_wrap(&err, ERROR_IO, "context");
    size_t used = strlen(err.text);
    for (size_t i = used; i < sizeof err.text; i++)
        assert_int_equal(err.text[i], '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_whole),
        cmocka_unit_test(unknown_codes_are_internal),
        cmocka_unit_test(set_takes_either_sign),
        cmocka_unit_test(text_falls_back_to_the_default),
        cmocka_unit_test(wrap_puts_context_in_front),
        cmocka_unit_test(long_text_is_cut_at_the_size),
        cmocka_unit_test(a_cut_leaves_whole_characters),
        cmocka_unit_test(wrap_leaks_no_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
