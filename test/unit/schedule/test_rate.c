/* GCRA at limit − 1, limit and limit + 1, with exact times. */
#include "base/clock.h"
#include "schedule/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define START (1000 * NS_PER_S)

static void expect_pass(struct schedule_rate *r, uint64_t now_ns)
{
    uint64_t retry_ns = 7;
    assert_int_equal(schedule_rate_take(r, now_ns, &retry_ns), 0);
    assert_int_equal(retry_ns, 7); // an output is untouched where it means nothing
}

static void expect_limited(struct schedule_rate *r, uint64_t now_ns, uint64_t expected_retry_ns)
{
    uint64_t retry_ns = 0;
    assert_int_equal(schedule_rate_take(r, now_ns, &retry_ns), -ERROR_RATE_LIMITED);
    assert_int_equal(retry_ns, expected_retry_ns);
}

static void test_zeroed_and_zero_are_unlimited(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    for (int i = 0; i < 1000; i++)
        expect_pass(&r, START);
    schedule_rate_set(&r, 60, 1);
    expect_pass(&r, START);
    expect_limited(&r, START, NS_PER_S);
    schedule_rate_set(&r, 0, 1);
    expect_pass(&r, START);
}

static void test_burst_at_its_limit(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 60, 10); // one a second, ten at once
    for (int i = 0; i < 9; i++)
        expect_pass(&r, START); // limit − 1
    expect_pass(&r, START);     // limit
    expect_limited(&r, START, NS_PER_S);
    expect_limited(&r, START + 1, NS_PER_S - 1);
    expect_limited(&r, START + NS_PER_S - 1, 1);
    expect_pass(&r, START + NS_PER_S);
    expect_limited(&r, START + NS_PER_S, NS_PER_S);
}

static void test_retry_is_true(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 7, 3); // an interval that is no whole number of nanoseconds
    uint64_t now_ns = START, retry_ns = 0;
    for (int i = 0; i < 1000; i++) {
        if (schedule_rate_take(&r, now_ns, &retry_ns) == 0) {
            now_ns += NS_PER_MS;
            continue;
        }
        struct schedule_rate early = r;
        expect_limited(&early, now_ns + retry_ns - 1, 1);
        now_ns += retry_ns;
        expect_pass(&r, now_ns);
    }
}

static void test_never_more_than_per_minute(void **state)
{
    (void)state;
    for (uint64_t per_minute = 1; per_minute < 5000; per_minute = per_minute * 3 / 2 + 1) {
        struct schedule_rate r = {0};
        schedule_rate_set(&r, per_minute, 1);
        uint64_t now_ns = START, passed = 0, retry_ns = 0;
        while (now_ns < START + 60 * NS_PER_S) {
            if (schedule_rate_take(&r, now_ns, &retry_ns) == 0)
                passed++;
            else
                now_ns += retry_ns;
        }
        assert_int_equal(passed, per_minute);
    }
}

static void test_idle_time_saves_no_more_than_the_burst(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 6000, 5);
    expect_pass(&r, START);
    for (int i = 0; i < 5; i++)
        expect_pass(&r, 2 * START);
    expect_limited(&r, 2 * START, 10 * NS_PER_MS);
}

static void test_new_limits_do_not_block_for_old_ones(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 1, 1);
    expect_pass(&r, START); // would be used up for a minute
    schedule_rate_set(&r, 60, 1);
    expect_limited(&r, START, NS_PER_S);
    expect_pass(&r, START + NS_PER_S);
}

static void test_extremes_do_not_overflow(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 1, UINT64_MAX);
    for (int i = 0; i < 100; i++)
        expect_pass(&r, START);
    r = (struct schedule_rate){0};
    schedule_rate_set(&r, UINT64_MAX, 0);
    assert_int_equal(r.interval_ns, 1);
    expect_pass(&r, START);
    expect_limited(&r, START, 1);
}

static void test_time_going_back_gives_nothing(void **state)
{
    (void)state;
    struct schedule_rate r = {0};
    schedule_rate_set(&r, 60, 1);
    expect_pass(&r, START);
    uint64_t retry_ns = 0;
    assert_int_equal(schedule_rate_take(&r, START - 5 * NS_PER_S, &retry_ns), -ERROR_RATE_LIMITED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_zero_are_unlimited),
        cmocka_unit_test(test_burst_at_its_limit),
        cmocka_unit_test(test_retry_is_true),
        cmocka_unit_test(test_never_more_than_per_minute),
        cmocka_unit_test(test_idle_time_saves_no_more_than_the_burst),
        cmocka_unit_test(test_new_limits_do_not_block_for_old_ones),
        cmocka_unit_test(test_extremes_do_not_overflow),
        cmocka_unit_test(test_time_going_back_gives_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
