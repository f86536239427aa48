/* The buffer: its maximum, sticky failure, JSON strings. */
#include "base/buf.h"
#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <yyjson.h>

#include <cmocka.h>

static void grows_to_its_maximum(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 1000);
    for (int i = 0; i < 1000; i++)
        buf_append_char(&b, (char)('a' + i % 26));
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.size, 1000);
    assert_true(b.capacity <= 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(b.data[i], 'a' + i % 26);
    buf_append_char(&b, 'x');
    assert_int_equal(b.failed, -ERROR_LIMIT);
    assert_int_equal(b.size, 1000);
}

static void failure_is_sticky(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 10);
    buf_append_text(&b, "12345");
    buf_append(&b, "1234567", 7);
    assert_int_equal(b.failed, -ERROR_LIMIT);
    buf_append_char(&b, '6');
    buf_format(&b, "%d", 7);
    buf_append_json(&b, STR("x"));
    buf_append_str(&b, STR("8"));
    assert_null(buf_reserve(&b, 0));
    assert_string_equal(buf_terminate(&b), "");
    assert_int_equal(b.size, 5);
    assert_int_equal(b.failed, -ERROR_LIMIT);
    buf_clear(&b);
    assert_int_equal(b.failed, 0);
    buf_append_text(&b, "1234567890");
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.size, 10);
}

static void sizes_that_wrap_are_refused(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_append_text(&b, "abc");
    assert_null(buf_reserve(&b, SIZE_MAX - 1));
    assert_int_equal(b.failed, -ERROR_LIMIT);
}

static void a_maximum_of_zero_holds_nothing(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 0);
    buf_append(&b, NULL, 0);
    assert_non_null(buf_reserve(&b, 0));
    assert_int_equal(b.failed, 0);
    buf_append_char(&b, 'a');
    assert_int_equal(b.failed, -ERROR_LIMIT);
    assert_int_equal(b.size, 0);
}

static void reserve_then_commit(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 4096);
    char *room = buf_reserve(&b, 300);
    memset(room, 'r', 300);
    assert_int_equal(b.size, 0);
    buf_commit(&b, 200);
    assert_int_equal(b.size, 200);
    buf_append_text(&b, "end");
    assert_memory_equal(b.data + 198, "rrend", 5);
}

static void formats(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 1000);
    buf_format(&b, "%s-%d", "a", 5);
    buf_format(&b, "%s", "");
    assert_string_equal(buf_terminate(&b), "a-5");
    assert_int_equal(b.size, 3);
    buf_format(&b, "%0900d", 1); /* does not fit what is allocated, but the maximum */
    assert_int_equal(b.size, 903);
    buf_format(&b, "%098d", 1);
    assert_int_equal(b.failed, -ERROR_LIMIT);
    assert_int_equal(b.size, 903);
    buf_clear(&b);
    buf_format(&b, "%0999d", 1); /* the most: one byte is its NUL's */
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.size, 999);
    buf_clear(&b);
    buf_format(&b, "%01000d", 1);
    assert_int_equal(b.failed, -ERROR_LIMIT);
    assert_int_equal(b.size, 0);
}

static void consumes_from_the_front(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 100);
    buf_append_text(&b, "0123456789");
    buf_consume(&b, 0);
    buf_consume(&b, 4);
    assert_string_equal(buf_terminate(&b), "456789");
    buf_consume(&b, 6);
    assert_int_equal(b.size, 0);
    buf_append_text(&b, "x");
    assert_string_equal(buf_terminate(&b), "x");
    struct buf zeroed = {0};
    buf_consume(&zeroed, 0);
    buf_done(&zeroed);
}

static void done_leaves_it_usable(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 3);
    buf_append_text(&b, "abcd");
    buf_done(&b);
    assert_int_equal(b.failed, 0);
    buf_append_text(&b, "abc");
    assert_int_equal(b.size, 3);
    buf_append_text(&b, "d");
    assert_int_equal(b.failed, -ERROR_LIMIT);
    buf_done(&b);
}

/* --- JSON --- */

static void json_is(struct str s, const char *expected)
{
    _buf_ struct buf b;
    buf_init(&b, 1 << 16);
    buf_append_json(&b, s);
    assert_string_equal(buf_terminate(&b), expected);
}

static void json_escapes(void **state)
{
    (void)state;
    json_is((struct str){0}, "\"\"");
    json_is(STR("plain"), "\"plain\"");
    json_is(STR("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
    json_is(STR("\n\r\t"), "\"\\n\\r\\t\"");
    json_is(STR("\0\x01\x1F\x7F"), "\"\\u0000\\u0001\\u001f\\u007f\"");
    json_is(STR("é€🐙"), "\"é€🐙\"");
    json_is(STR("\xFF"), "\"\xEF\xBF\xBD\"");
    json_is(STR("a\xE2\x82"), "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");       /* ends early */
    json_is(STR("\xE2\x82\"x"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\\\"x\""); /* a broken character swallows no quote */
    json_is(STR("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    json_is(STR("\xC3\xA9\xC3"), "\"é\xEF\xBF\xBD\"");
}

/* Any bytes become a JSON string that another parser reads, and valid UTF-8 comes back as it was. */
static void json_of_any_bytes_parses(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    for (int round = 0; round < 20000; round++) {
        char bytes[40];
        seed = seed * 1664525 + 1013904223;
        size_t size = seed >> 27;
        for (size_t i = 0; i < size; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (char)(seed >> 20 & 1 ? seed >> 24 : (seed >> 24) % 0x60); /* half of them ASCII */
        }
        struct str s = {bytes, size};
        _buf_ struct buf b;
        buf_init(&b, 1024);
        buf_append_json(&b, s);
        assert_true(str_is_utf8((struct str){b.data, b.size}));
        yyjson_doc *doc = yyjson_read(b.data, b.size, 0);
        assert_non_null(doc);
        yyjson_val *root = yyjson_doc_get_root(doc);
        assert_true(yyjson_is_str(root));
        struct str back = {yyjson_get_str(root), yyjson_get_len(root)};
        if (str_is_utf8(s))
            assert_true(str_equal(back, s));
        yyjson_doc_free(doc);
    }
}

static void json_at_the_limit(void **state)
{
    (void)state;
    _buf_ struct buf b;
    buf_init(&b, 8);
    buf_append_json(&b, STR("abcdef"));
    assert_int_equal(b.failed, 0);
    buf_clear(&b);
    buf_append_json(&b, STR("abcde\n"));
    assert_int_equal(b.failed, -ERROR_LIMIT);
    buf_clear(&b);
    buf_append_json(&b, STR("\x01")); /* "\u0001" */
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.size, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_to_its_maximum),
        cmocka_unit_test(failure_is_sticky),
        cmocka_unit_test(sizes_that_wrap_are_refused),
        cmocka_unit_test(a_maximum_of_zero_holds_nothing),
        cmocka_unit_test(reserve_then_commit),
        cmocka_unit_test(formats),
        cmocka_unit_test(consumes_from_the_front),
        cmocka_unit_test(done_leaves_it_usable),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(json_of_any_bytes_parses),
        cmocka_unit_test(json_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
