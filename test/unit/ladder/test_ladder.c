/* The ladder's tables: complete, in order, and never better for less. */
#include "ladder/ladder.h"

#include "isolate/isolate.h"
#include "isolate/isolate_facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_levels_are_those_of_isolate(void **state)
{
    (void)state;
    assert_int_equal(LADDER_LEVEL_COUNT, ISOLATE_LEVEL_COUNT);
    for (int level = 0; level < LADDER_LEVEL_COUNT; level++)
        assert_string_equal(ladder_level_names[level], isolate_level_names[level]);
    assert_int_equal(ladder_level_from_name(STR("container")), LADDER_CONTAINER);
    assert_int_equal(ladder_level_from_name(STR("none")), LADDER_NONE);
    assert_int_equal(ladder_level_from_name(STR("")), LADDER_NONE);
}

static void test_every_wall_has_a_verdict(void **state)
{
    (void)state;
    for (int level = LADDER_SHARED; level < LADDER_LEVEL_COUNT; level++)
        for (int topic = 0; topic < LADDER_TOPIC_COUNT; topic++) {
            const struct ladder_row *row = ladder_judge((enum ladder_level)level, (enum ladder_topic)topic, 0);
            assert_non_null(row);
            assert_int_equal(row->needs, 0);
            assert_true(row->by[0] != '\0');
        }
    assert_null(ladder_judge(LADDER_NONE, LADDER_FILES, UINT32_MAX));
    assert_null(ladder_judge(LADDER_MICROVM, LADDER_TOPIC_COUNT, UINT32_MAX));
}

/* Taking a part away never makes the verdict better, and every row can be reached. */
static void test_less_is_never_more(void **state)
{
    (void)state;
    bool reached[128] = {false};
    for (int level = LADDER_SHARED; level < LADDER_LEVEL_COUNT; level++)
        for (int topic = 0; topic < LADDER_TOPIC_COUNT; topic++)
            for (uint32_t parts = 0; parts < 1u << LADDER_PARTS; parts++) {
                const struct ladder_row *row = ladder_judge((enum ladder_level)level, (enum ladder_topic)topic, parts);
                reached[row - ladder_rows] = true;
                for (uint32_t bit = 0; bit < LADDER_PARTS; bit++) {
                    const struct ladder_row *less =
                        ladder_judge((enum ladder_level)level, (enum ladder_topic)topic, parts & ~(1u << bit));
                    assert_true(less->verdict <= row->verdict);
                }
            }
    for (const struct ladder_row *row = ladder_rows; row->by; row++)
        assert_true(reached[row - ladder_rows]);
}

/* What must never be claimed, written out: a wrong row would be a promise that does not hold. */
static void test_honest(void **state)
{
    (void)state;
    static const struct {
        enum ladder_level level;
        enum ladder_topic topic;
        uint32_t parts;
        enum ladder_verdict verdict;
    } rows[] = {
        {LADDER_PROCESS, LADDER_FAULTS, 0, LADDER_CONTAINED},
        {LADDER_PROCESS, LADDER_MEMORY, LADDER_LIMITS, LADDER_CONTAINED},
        {LADDER_PROCESS, LADDER_MEMORY, ~(uint32_t)LADDER_LIMITS, LADDER_LIMITED},
        {LADDER_PROCESS, LADDER_FILES, LADDER_MOUNT_NS | LADDER_ROOT, LADDER_CONTAINED},
        {LADDER_PROCESS, LADDER_FILES, LADDER_MOUNT_NS | LADDER_NO_PRIVILEGE, LADDER_LIMITED},
        {LADDER_PROCESS, LADDER_FILES, LADDER_MOUNT_NS, LADDER_NOT_CONTAINED},
        {LADDER_PROCESS, LADDER_NETWORK, LADDER_NET_NS, LADDER_CONTAINED},
        {LADDER_PROCESS, LADDER_NETWORK, ~(uint32_t)LADDER_NET_NS, LADDER_NOT_CONTAINED},
        {LADDER_PROCESS, LADDER_CPU_TIME, UINT32_MAX, LADDER_LIMITED},
        {LADDER_PROCESS, LADDER_CPU_TIME, ~(uint32_t)LADDER_LIMITS, LADDER_NOT_CONTAINED},
        {LADDER_PROCESS, LADDER_KERNEL, UINT32_MAX, LADDER_LIMITED},
        {LADDER_PROCESS, LADDER_KERNEL, ~(uint32_t)LADDER_SECCOMP, LADDER_NOT_CONTAINED},
        {LADDER_CONTAINER, LADDER_KERNEL, UINT32_MAX, LADDER_LIMITED},
        {LADDER_MICROVM, LADDER_KERNEL, UINT32_MAX, LADDER_CONTAINED},
        {LADDER_MICROVM, LADDER_KERNEL, ~(uint32_t)LADDER_NO_PRIVILEGE, LADDER_LIMITED},
        {LADDER_SHARED, LADDER_MEMORY, UINT32_MAX, LADDER_NOT_CONTAINED},
        {LADDER_SHARED, LADDER_FAULTS, UINT32_MAX, LADDER_LIMITED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(ladder_judge(rows[i].level, rows[i].topic, rows[i].parts)->verdict, rows[i].verdict);
    for (int level = LADDER_SHARED; level < LADDER_LEVEL_COUNT; level++)
        assert_int_equal(ladder_judge((enum ladder_level)level, LADDER_TIMING, UINT32_MAX)->verdict,
                         LADDER_NOT_CONTAINED);
}

static void test_facts_of_ourselves(void **state)
{
    (void)state;
    struct isolate_facts facts;
    assert_true(isolate_facts_read(getpid(), &facts));
    assert_int_equal(facts.own, 0);
    assert_false(facts.own_root);
    assert_int_equal(facts.uid, geteuid());
    for (int i = 0; i < ISOLATE_NS_COUNT; i++)
        assert_true(facts.namespaces[i] != 0);
    assert_memory_equal(facts.kernel, "Linux ", 6);
    assert_false(isolate_facts_read(0, &facts));
    assert_false(isolate_facts_read(-1, &facts));
    assert_false(isolate_facts_read(INT32_MAX, &facts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_are_those_of_isolate), cmocka_unit_test(test_every_wall_has_a_verdict),
        cmocka_unit_test(test_less_is_never_more),          cmocka_unit_test(test_honest),
        cmocka_unit_test(test_facts_of_ourselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
