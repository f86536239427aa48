/* What is counted of a JSON text, at the bound and one beyond, by the quick pass and by the exact one. */
#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { PLENTY = 1 << 30 };

static bool within(struct str text, size_t nodes, size_t members, size_t entries)
{
    struct json_bound bound = {nodes, members, entries};
    return json_within(text, &bound);
}

/* Each number is the least that is taken. */
static void need(struct str text, size_t nodes, size_t members, size_t entries)
{
    struct {
        size_t least, n[3];
    } rows[] = {{nodes, {0, PLENTY, PLENTY}}, {members, {PLENTY, 0, PLENTY}}, {entries, {PLENTY, PLENTY, 0}}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t n = 0; n < rows[i].least + 3; n++) {
            rows[i].n[i] = n;
            if (within(text, rows[i].n[0], rows[i].n[1], rows[i].n[2]) != (n >= rows[i].least))
                fail_msg("%.*s: bound %zu of kind %zu, not %zu", STR_ARG(text), n, i, rows[i].least);
        }
    }
}

static void test_counts(void **state)
{
    (void)state;
    need(STR("[1,2,3]"), 1, 0, 3);
    need(STR("[]"), 1, 0, 1);
    need(STR("{\"a\":1,\"bcd\":[true,null]}"), 4, 2, 4);
    need(STR("[\"a,b:{}[]\",\"\\\"\",\"\\\\\",\"longer than eight bytes, \\\" and so on\\\\\"]"), 5, 0, 4);
    need(STR("  [ -1.5e3 ,\n\t2 ]  "), 1, 0, 2);
    need(STR("\"\\u005c\\\\\""), 1, 0, 0);
    /* what is no JSON ends, too */
    need(STR("\"never ends"), 1, 0, 0);
    need(STR("\"\\"), 1, 0, 0);
    need(STR("\"twelve bytes\\"), 1, 0, 0);
    assert_true(within((struct str){0}, 1, 1, 1));
}

/* The same numbers each time. */
static size_t next(uint32_t *state, size_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

/* Arbitrary texts of telling characters, against a count a byte at a time. */
static void test_any_text(void **state)
{
    (void)state;
    static const char bytes[] = "\"\"\\,:[{]}1 abcdefghijklmnop";
    uint32_t number = 7;
    for (int round = 0; round < 3000; round++) {
        char text[6000];
        size_t size = next(&number, round % 10 == 0 ? sizeof text : 60);
        size_t letters = round % 3 == 0 ? sizeof bytes - 1 : 9;
        for (size_t i = 0; i < size; i++)
            text[i] = bytes[next(&number, letters)];
        size_t nodes = 0, members = 0, entries = 0;
        bool inside = false;
        for (size_t i = 0; i < size; i++) {
            if (inside && text[i] == '\\')
                i++;
            else if (text[i] == '"')
                nodes += (inside = !inside);
            else if (!inside) {
                nodes += text[i] == '[' || text[i] == '{';
                members += text[i] == ':';
                entries += text[i] == ',' || text[i] == '[' || text[i] == '{';
            }
        }
        char *exact = malloc(size + 1); /* so that a byte beyond is seen by sanitizers */
        assert_non_null(exact);
        memcpy(exact, text, size);
        exact = realloc(exact, size > 0 ? size : 1);
        assert_non_null(exact);
        struct str s = {exact, size};
        assert_true(within(s, nodes, members, entries));
        assert_true(nodes == 0 || !within(s, nodes - 1, members, entries));
        assert_true(members == 0 || !within(s, nodes, members - 1, entries));
        assert_true(entries == 0 || !within(s, nodes, members, entries - 1));
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_any_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
