/* From pieces to text: whole characters, nothing of a stop string, and the same however the pieces are cut. */
#include "engine/token_text.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct result {
    char text[4096];
    size_t size;
    bool stopped;
};

/* Cuts `bytes` as `cuts` says and gives the pieces; every text on the way must be whole characters. */
static struct result run(struct str bytes, const struct str *stops, uint32_t n_stops, uint64_t cuts)
{
    struct result r = {.size = 0};
    static struct token_text t;
    char text[TOKEN_TEXT_BYTES];
    token_text_init(&t, stops, n_stops);
    for (size_t at = 0; at < bytes.size && !t.stopped;) {
        size_t n = 1 + cuts % 5;
        cuts = cuts * UINT64_C(6364136223846793005) + 1;
        n = n < bytes.size - at ? n : bytes.size - at;
        size_t size = token_text_add(&t, (struct str){bytes.data + at, n}, at + n == bytes.size, text);
        assert_true(str_is_utf8((struct str){text, size}));
        assert_true(r.size + size <= sizeof r.text);
        memcpy(r.text + r.size, text, size);
        r.size += size;
        at += n;
    }
    r.stopped = t.stopped;
    return r;
}

static void expect(struct str bytes, const struct str *stops, uint32_t n_stops, struct str text, bool stopped)
{
    for (uint64_t cuts = 0; cuts < 200; cuts++) {
        struct result r = run(bytes, stops, n_stops, cuts);
        if (!str_equal((struct str){r.text, r.size}, text))
            fail_msg("cuts %u: '%.*s' is not '%.*s'", (unsigned)cuts, (int)r.size, r.text, STR_ARG(text));
        assert_int_equal(r.stopped, stopped);
    }
}

static void test_characters(void **state)
{
    (void)state;
    expect(STR("Grüße \xF0\x9F\x99\x82 und €"), NULL, 0, STR("Grüße \xF0\x9F\x99\x82 und €"), false);
    expect(STR("a\xFFz"), NULL, 0, STR("a\xEF\xBF\xBDz"), false);
    expect(STR("a\xE2\x82"), NULL, 0, STR("a\xEF\xBF\xBD\xEF\xBF\xBD"), false);
    expect(STR("\xED\xA0\x80"), NULL, 0, STR("\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"), false); /* a surrogate */
    expect(STR("\xC3z"), NULL, 0, STR("\xEF\xBF\xBDz"), false);
}

static void test_stops(void **state)
{
    (void)state;
    const struct str stops[] = {STR("END"), STR("\n\n"), STR("ü€"), STR("EN")};
    expect(STR("some text END more"), stops, 1, STR("some text "), true);
    expect(STR("some EN ENEND"), stops, 1, STR("some EN EN"), true);
    expect(STR("ends with EN"), stops, 1, STR("ends with EN"), false);
    expect(STR("a\nb\n\nc"), stops, 2, STR("a\nb"), true);
    expect(STR("aü€b"), stops, 3, STR("a"), true);
    expect(STR("aüb ü"), stops, 3, STR("aüb ü"), false);
    expect(STR("\xC3\xC3\xBC\xE2\x82\xAC!"), stops, 3, STR("\xEF\xBF\xBD"), true);
}

/* Of several that are there the first counts, and of two at one place it makes no difference: the text ends there. When
 * the shorter is complete before the longer, cuts may not matter either. */
static void test_several(void **state)
{
    (void)state;
    const struct str stops[] = {STR("b"), STR("ab")};
    for (uint64_t cuts = 0; cuts < 100; cuts++) {
        struct result r = run(STR("xxab"), stops, 2, cuts);
        assert_true(r.stopped && str_equal((struct str){r.text, r.size}, STR("xx")));
    }
}

/* Random bytes, with everything on the way held to the same answer as in one piece. */
static void test_any_bytes(void **state)
{
    (void)state;
    const struct str stops[] = {STR("aa\xC3\xBC"), STR("ba"), STR("\xC3\xBC\xC3\xBC"), STR("aaaaab")};
    static const char alphabet[] = {'a', 'b', 'c', '\xC3', '\xBC', '\xE2', '\x82', '\xF0'};
    uint64_t random = 1;
    for (unsigned round = 0; round < 3000; round++) {
        char bytes[40];
        for (size_t i = 0; i < sizeof bytes; i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[i] = alphabet[random >> 61];
        }
        struct str all = {bytes, sizeof bytes};
        struct result a = run(all, stops, 4, round), b = run(all, stops, 4, round * 7 + 3);
        assert_int_equal(a.stopped, b.stopped);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.text, b.text, a.size);
        for (unsigned i = 0; i < 4; i++)
            assert_null(memmem(a.text, a.size, stops[i].data, stops[i].size));
    }
}

static void test_longest_piece(void **state)
{
    (void)state;
    static struct token_text t;
    static char piece[TOKEN_PIECE_BYTES], text[TOKEN_TEXT_BYTES], stop[LIMIT_STOP_BYTES];
    memset(stop, 's', sizeof stop);
    struct str stops[] = {{stop, sizeof stop}};
    token_text_init(&t, stops, 1);
    memset(piece, '\xFF', sizeof piece);
    assert_int_equal(token_text_add(&t, (struct str){stop, sizeof stop - 1}, false, text), 0);
    assert_int_equal(token_text_add(&t, (struct str){piece, sizeof piece}, false, text),
                     sizeof stop - 1 + 3 * sizeof piece);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters), cmocka_unit_test(test_stops),         cmocka_unit_test(test_several),
        cmocka_unit_test(test_any_bytes),  cmocka_unit_test(test_longest_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
