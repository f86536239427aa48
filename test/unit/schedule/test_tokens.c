/* The Virtual Token Counter: who is next, the lift, corrections. */
#include "schedule/tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void admit(struct schedule_tokens *t, struct schedule_tokens_account *a, uint32_t weight, uint32_t input,
                  uint32_t output)
{
    struct schedule_tokens_ticket ticket;
    schedule_tokens_admit(t, a, &ticket, weight, input);
    schedule_tokens_output(t, a, &ticket, output);
}

static void test_least_is_next(void **state)
{
    (void)state;
    struct schedule_tokens t = {0};
    struct schedule_tokens_account a = {0}, b = {0};
    assert_null(schedule_tokens_next(&t));
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    schedule_tokens_wait(&t, &b);
    admit(&t, &a, 1, 10, 0);
    assert_ptr_equal(schedule_tokens_next(&t), &b);
    admit(&t, &b, 1, 4, 2); // two tokens of an answer count as four of a prompt
    assert_ptr_equal(schedule_tokens_next(&t), &b);
    admit(&t, &b, 1, 1, 1);
    assert_ptr_equal(schedule_tokens_next(&t), &a);
    schedule_tokens_leave(&t, &a);
    schedule_tokens_leave(&t, &a);
    assert_ptr_equal(schedule_tokens_next(&t), &b);
    schedule_tokens_leave(&t, &b);
    assert_null(schedule_tokens_next(&t));
}

static void test_weights_share_one_to_three(void **state)
{
    (void)state;
    struct schedule_tokens t = {0};
    struct schedule_tokens_account a = {0}, b = {0};
    unsigned n_a = 0, n_b = 0;
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    for (int i = 0; i < 4000; i++) {
        bool is_a = schedule_tokens_next(&t) == &a;
        admit(&t, is_a ? &a : &b, is_a ? 3 : 1, 7, 5);
        n_a += is_a;
        n_b += !is_a;
    }
    assert_in_range(n_a, 2999, 3001);
    assert_in_range(n_b, 999, 1001);
}

static void test_idle_time_earns_nothing(void **state)
{
    (void)state;
    struct schedule_tokens t = {0};
    struct schedule_tokens_account a = {0}, b = {0}, c = {0}, d = {0};
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    admit(&t, &a, 1, 100, 0);
    admit(&t, &b, 1, 300, 0);
    schedule_tokens_wait(&t, &c); // lifted to the least that waits
    assert_int_equal(c.count, a.count);
    schedule_tokens_leave(&t, &a);
    schedule_tokens_leave(&t, &c);
    schedule_tokens_leave(&t, &b);
    admit(&t, &b, 1, 50, 0);      // still runs
    schedule_tokens_wait(&t, &d); // nobody waits: lifted to the last that left, as it is now
    assert_int_equal(d.count, b.count);
    schedule_tokens_leave(&t, &d);
    schedule_tokens_wait(&t, &b); // who has had more than others is not lowered
    assert_int_equal(b.count, d.count);
    schedule_tokens_leave(&t, &b);
    uint64_t left = b.count;
    schedule_tokens_forget(&t, &b);
    b = (struct schedule_tokens_account){0};
    schedule_tokens_wait(&t, &b);
    assert_int_equal(b.count, left);
    schedule_tokens_leave(&t, &b);
}

static void test_corrections_are_exact(void **state)
{
    (void)state;
    struct schedule_tokens t = {0};
    struct schedule_tokens_account a = {0}, b = {0};
    struct schedule_tokens_ticket ticket;
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    schedule_tokens_admit(&t, &a, &ticket, 7, 0); // unknown: something is charged, so that places go round
    assert_true(a.count > b.count);
    assert_ptr_equal(schedule_tokens_next(&t), &b);
    schedule_tokens_input(&t, &a, &ticket, 5000);
    schedule_tokens_input(&t, &a, &ticket, 3);
    uint64_t three = a.count;
    schedule_tokens_input(&t, &a, &ticket, 0);
    assert_int_equal(a.count, 0);
    schedule_tokens_admit(&t, &b, &ticket, 7, 3);
    assert_int_equal(b.count, three);
    assert_ptr_equal(schedule_tokens_next(&t), &a);
}

static void test_counts_wrap(void **state)
{
    (void)state;
    struct schedule_tokens t = {._left_count = UINT64_MAX - 5};
    struct schedule_tokens_account a = {.count = UINT64_MAX - 5}, b = a;
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    admit(&t, &a, 1, 1, 0);
    assert_true(a.count < b.count);
    assert_ptr_equal(schedule_tokens_next(&t), &b);
    schedule_tokens_leave(&t, &b);
    schedule_tokens_wait(&t, &b); // lifted over the wrap
    assert_int_equal(b.count, a.count);
}

/* In place of one that may not: as if that had got it, and never beyond the bound. */
static void test_passes_up_to_the_others_prompt(void **state)
{
    (void)state;
    struct schedule_tokens t = {._left_count = UINT64_MAX - 5};
    struct schedule_tokens_account a = {0}, b = {0};
    schedule_tokens_wait(&t, &a);
    schedule_tokens_wait(&t, &b);
    assert_true(schedule_tokens_may_pass(&t, &b, 4, 0, &(struct schedule_tokens_barred){2, 0}));
    admit(&t, &b, 4, 100, 0);
    assert_true(schedule_tokens_may_pass(&t, &b, 4, 50, &(struct schedule_tokens_barred){2, 50}));
    assert_false(schedule_tokens_may_pass(&t, &b, 4, 50, &(struct schedule_tokens_barred){2, 49}));
    assert_false(schedule_tokens_may_pass(&t, &b, 4, 49, &(struct schedule_tokens_barred){2, 50}));
    assert_true(schedule_tokens_may_pass(&t, &b, 1, 13, &(struct schedule_tokens_barred){1, 25}));
    assert_false(schedule_tokens_may_pass(&t, &b, 1, 12, &(struct schedule_tokens_barred){1, 25}));
    assert_true(schedule_tokens_may_pass(&t, &b, 1, UINT32_MAX, &(struct schedule_tokens_barred){1, UINT32_MAX}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_is_next),
        cmocka_unit_test(test_weights_share_one_to_three),
        cmocka_unit_test(test_idle_time_earns_nothing),
        cmocka_unit_test(test_corrections_are_exact),
        cmocka_unit_test(test_counts_wrap),
        cmocka_unit_test(test_passes_up_to_the_others_prompt),
    };
    return cmocka_run_group_tests_name("tokens", tests, NULL, NULL);
}
