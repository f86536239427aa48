/* The rules of `bulkhead advise`, row by row, and what must hold for every set of answers. */
#include "base/limits.h"
#include "ladder/ladder_advice.h"
#include "ladder/ladder_reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void answers_parse(const char *const *words, uint8_t *ret_answers)
{
    for (int q = 0; q < LADDER_QUESTION_COUNT; q++) {
        int answer = ladder_answer_find((enum ladder_question_id)q, str_from(words[q]));
        assert_true(answer >= 0);
        ret_answers[q] = (uint8_t)answer;
    }
}

static void test_row_by_row(void **state)
{
    (void)state;
    /* critical, regulated, neighbours, latency, burst, legacy */
    static const struct {
        const char *answers[LADDER_QUESTION_COUNT];
        enum ladder_level level;
        const char *reasons[4]; /* words of every rule that must be named, in order */
    } rows[] = {
        {{"patient", "no", "untrusted", "normal", "no", "no"},
         LADDER_MICROVM,
         {"the damage would be great", "timing side channels"}},
        {{"money", "no", "untrusted", "normal", "no", "no"}, LADDER_MICROVM, {"the damage would be great", "timing"}},
        {{"no", "locked", "untrusted", "normal", "no", "no"}, LADDER_MICROVM, {"keeps its flaws"}},
        {{"no", "no", "none", "normal", "no", "kernel"}, LADDER_MICROVM, {"a kernel of its own"}},
        {{"no", "no", "trusted", "normal", "no", "libraries"}, LADDER_CONTAINER, {"its own libraries"}},
        {{"no", "locked", "none", "normal", "no", "no"}, LADDER_CONTAINER, {"pinned by its digest"}},
        {{"no", "regulated", "untrusted", "normal", "no", "no"}, LADDER_CONTAINER, {"no stronger than process"}},
        {{"patient", "no", "trusted", "normal", "no", "no"}, LADDER_PROCESS, {"nor that model its memory"}},
        {{"no", "no", "untrusted", "normal", "no", "no"}, LADDER_PROCESS, {"never runs in the same process"}},
        {{"no", "no", "none", "normal", "no", "no"}, LADDER_PROCESS, {"alone on the host"}},
        {{"no", "no", "trusted", "normal", "yes", "no"}, LADDER_POOL, {"a blank worker"}},
        {{"no", "no", "trusted", "normal", "no", "no"}, LADDER_SHARED, {"saves memory"}},
        {{"no", "no", "none", "normal", "yes", "no"}, LADDER_PROCESS, {"alone on the host", "one replica is kept"}},
        {{"no", "no", "none", "tight", "no", "kernel"},
         LADDER_MICROVM,
         {"a kernel of its own", "into a virtual machine"}},
        {{"no", "no", "trusted", "tight", "no", "no"}, LADDER_SHARED, {"saves memory", "cores of its own"}},
        {{"money", "regulated", "trusted", "relaxed", "no", "no"}, LADDER_CONTAINER, {"exactly what ran"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t answers[LADDER_QUESTION_COUNT];
        struct ladder_advice advice;
        answers_parse(rows[i].answers, answers);
        ladder_advise(answers, LADDER_NONE, &advice);
        assert_int_equal(advice.level, rows[i].level);
        uint32_t n = 0;
        for (; n < 4 && rows[i].reasons[n]; n++) {
            assert_true(n < advice.n_rules);
            if (!strstr(advice.rules[n]->reason, rows[i].reasons[n]))
                fail_msg("row %zu: \"%s\" instead of \"%s\"", i, advice.rules[n]->reason, rows[i].reasons[n]);
        }
        assert_int_equal(advice.n_rules, n);
    }
}

#define for_each_answers(a)                                                                                         \
    for (unsigned _n = 0; _n < 3 * 3 * 3 * 3 * 3 * 3; _n++)                                                         \
        if (((a)[0] = _n % 3, (a)[1] = _n / 3 % 3, (a)[2] = _n / 9 % 3, (a)[3] = _n / 27 % 3, (a)[4] = _n / 81 % 3, \
             (a)[5] = _n / 243 % 3, (a)[4] < 2))

static enum ladder_level level_for(const uint8_t *answers)
{
    struct ladder_advice advice;
    ladder_advise(answers, LADDER_NONE, &advice);
    return advice.level;
}

/* A worse damage, a stricter stack, worse neighbours or an older system never weaken the wall; latency never moves it.
 */
static void test_more_is_never_less(void **state)
{
    (void)state;
    uint8_t a[LADDER_QUESTION_COUNT], b[LADDER_QUESTION_COUNT];
    for_each_answers(a)
    {
        static const enum ladder_question_id rising[] = {LADDER_CRITICAL, LADDER_REGULATED, LADDER_LEGACY};
        for (size_t i = 0; i < sizeof rising / sizeof rising[0]; i++) {
            memcpy(b, a, sizeof b);
            if (b[rising[i]] == 2)
                continue;
            b[rising[i]]++;
            assert_true(level_for(b) >= level_for(a));
        }
        memcpy(b, a, sizeof b);
        b[LADDER_NEIGHBOURS] = 2;
        assert_true(level_for(b) >= level_for(a));
        memcpy(b, a, sizeof b);
        b[LADDER_LATENCY] = (uint8_t)((b[LADDER_LATENCY] + 1) % 3);
        assert_int_equal(level_for(b), level_for(a));
    }
}

static void test_never_below_the_floor(void **state)
{
    (void)state;
    uint8_t a[LADDER_QUESTION_COUNT];
    bool used[LADDER_RULES_MAX] = {false};
    for_each_answers(a)
    {
        for (int floor = LADDER_NONE; floor < LADDER_LEVEL_COUNT; floor++) {
            struct ladder_advice advice;
            ladder_advise(a, (enum ladder_level)floor, &advice);
            assert_true(advice.level >= (enum ladder_level)floor && advice.level > LADDER_NONE);
            assert_int_equal(advice.by_minimum, advice.level > level_for(a));
            assert_true(advice.by_minimum || advice.n_rules > 0); /* there is always a reason */
            for (uint32_t i = 0; i < advice.n_rules; i++)
                used[advice.rules[i] - ladder_rules] = true;
        }
    }
    for (const struct ladder_rule *rule = ladder_rules; rule->reason; rule++) {
        assert_true((size_t)(rule - ladder_rules) < LADDER_RULES_MAX);
        assert_true(used[rule - ladder_rules]);
    }
}

/* The text of a file below BULKHEAD_SOURCE; with `written` it is replaced. */
static void document(const char *name, struct buf *text, const struct buf *written)
{
    _buf_ struct buf path;
    buf_init(&path, 4 * KIB);
    buf_format(&path, "%s/docs/%s", getenv("BULKHEAD_SOURCE"), name);
    FILE *file = fopen(buf_terminate(&path), written ? "w" : "r");
    assert_non_null(file);
    if (written)
        assert_int_equal(fwrite(written->data, 1, written->size, file), written->size);
    size_t n;
    while (!written && (n = fread(buf_reserve(text, 4096), 1, 4096, file)) > 0)
        buf_commit(text, n);
    assert_int_equal(fclose(file), 0);
}

/* docs/advise.md is generated; BULKHEAD_UPDATE=1 writes it anew. */
static void test_document_of_rules(void **state)
{
    (void)state;
    if (!getenv("BULKHEAD_SOURCE"))
        skip();
    _buf_ struct buf wanted, found;
    buf_init(&wanted, MIB);
    buf_init(&found, MIB);
    ladder_reference_advice(&wanted);
    if (getenv("BULKHEAD_UPDATE"))
        document("advise.md", NULL, &wanted);
    document("advise.md", &found, NULL);
    if (!str_equal((struct str){found.data, found.size}, (struct str){wanted.data, wanted.size}))
        fail_msg("docs/advise.md is not what the tables say; run the tests with BULKHEAD_UPDATE=1");
}

/* docs/isolation-levels.md holds the table of walls between two marks. */
static void test_document_of_walls(void **state)
{
    (void)state;
    static const char begin[] = "<!-- walls -->\n", end[] = "<!-- /walls -->";
    if (!getenv("BULKHEAD_SOURCE"))
        skip();
    _buf_ struct buf wanted, found, whole;
    buf_init(&wanted, MIB);
    buf_init(&found, MIB);
    buf_init(&whole, MIB);
    ladder_reference_walls(&wanted);
    document("isolation-levels.md", &found, NULL);
    const char *from = strstr(buf_terminate(&found), begin), *to = strstr(buf_terminate(&found), end);
    assert_true(from && to && from < to);
    from += strlen(begin);
    if (getenv("BULKHEAD_UPDATE")) {
        buf_append(&whole, found.data, (size_t)(from - found.data));
        buf_append(&whole, wanted.data, wanted.size);
        buf_append_text(&whole, to);
        document("isolation-levels.md", NULL, &whole);
    } else if (!str_equal((struct str){from, (size_t)(to - from)}, (struct str){wanted.data, wanted.size})) {
        fail_msg("docs/isolation-levels.md is not what the tables say; run the tests with BULKHEAD_UPDATE=1");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_by_row),
        cmocka_unit_test(test_more_is_never_less),
        cmocka_unit_test(test_never_below_the_floor),
        cmocka_unit_test(test_document_of_rules),
        cmocka_unit_test(test_document_of_walls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
