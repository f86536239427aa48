/* The arena: alignment, maximum, reset. ASan watches the edges of what it hands out. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void allocations_are_aligned_and_apart(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 20);
    struct {
        unsigned char *data;
        size_t size;
    } taken[300];
    for (size_t i = 0; i < 300; i++) {
        taken[i].size = i * 7 % 500;
        taken[i].data = arena_alloc(&a, taken[i].size);
        assert_non_null(taken[i].data);
        assert_int_equal((uintptr_t)taken[i].data % 16, 0);
        memset(taken[i].data, (int)i & 0xFF, taken[i].size);
    }
    for (size_t i = 0; i < 300; i++)
        for (size_t k = 0; k < taken[i].size; k++)
            assert_int_equal(taken[i].data[k], i & 0xFF);
    arena_done(&a);
}

static void the_maximum_counts_whole_blocks(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 3 * 4096);
    size_t n = 0;
    while (arena_alloc(&a, 1000))
        n++;
    assert_int_equal(n, 12); /* four to a block */
    assert_int_equal(a.bytes, 3 * 4096);
    assert_non_null(arena_alloc(&a, 16)); /* a refusal spoils nothing: the last block has room */
    arena_done(&a);
    assert_int_equal(a.bytes, 0);
    assert_int_equal(a.bytes_max, 3 * 4096);
    assert_non_null(arena_alloc(&a, 1)); /* and it can be used again */
    arena_done(&a);
}

static void large_ones_get_their_own_block(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 100000);
    char *large = arena_alloc(&a, 99000);
    assert_non_null(large);
    memset(large, 1, 99000);
    assert_null(arena_alloc(&a, 1000));
    arena_done(&a);
    for (size_t size = 100000 - 64; size <= 100000; size++) { /* never more than the maximum, header included */
        char *edge = arena_alloc(&a, size);
        if (edge)
            memset(edge, 2, size);
        assert_true(a.bytes <= a.bytes_max);
        assert_true(size < 100000 || !edge);
        arena_done(&a);
    }
}

static void sizes_that_wrap_are_refused(void **state)
{
    (void)state;
    struct arena a;
    for (size_t i = 0; i < 64; i++) {
        arena_init(&a, i < 16 ? SIZE_MAX : SIZE_MAX / 2); /* the first wrap, the rest are over the maximum */
        assert_null(arena_alloc(&a, SIZE_MAX - i));
    }
    assert_null(arena_array(&a, SIZE_MAX / 8 + 1, 8));
    assert_null(arena_array(&a, (size_t)1 << 33, (size_t)1 << 33));
    assert_null(arena_copy(&a, (struct str){"x", SIZE_MAX}));
    assert_int_equal(a.bytes, 0);
    arena_done(&a);
}

static void size_zero_gives_a_pointer(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 8192);
    assert_non_null(arena_alloc(&a, 0));
    assert_non_null(arena_array(&a, 0, 100));
    assert_non_null(arena_array(&a, 100, 0));
    assert_non_null(arena_alloc(&a, 4080)); /* fills the block to its end */
    assert_non_null(arena_alloc(&a, 0));
    arena_done(&a);
}

static void reset_keeps_one_block(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 20);
    arena_reset(&a);
    assert_int_equal(a.bytes, 0);
    void *first = arena_alloc(&a, 100);
    for (int i = 0; i < 20; i++) {
        assert_non_null(arena_alloc(&a, 3000));
        assert_non_null(arena_alloc(&a, 9000));
    }
    arena_reset(&a);
    assert_int_equal(a.bytes, 4096);
    char *all = arena_alloc(&a, 4000);
    assert_non_null(all);
    memset(all, 3, 4000);
    assert_int_equal(a.bytes, 4096);
    (void)first;
    arena_reset(&a);
    arena_done(&a);

    arena_init(&a, 1 << 20); /* only large blocks: nothing worth keeping */
    assert_non_null(arena_alloc(&a, 9000));
    arena_reset(&a);
    assert_int_equal(a.bytes, 0);
    arena_done(&a);
}

static void copies_end_with_nul(void **state)
{
    (void)state;
    struct arena a = {.bytes_max = 4096}; /* zeroed is valid */
    assert_string_equal(arena_copy(&a, (struct str){"abcdef", 3}), "abc");
    assert_string_equal(arena_copy(&a, (struct str){0}), "");
    assert_null(arena_copy(&a, (struct str){"", 5000}));
    arena_done(&a);
    struct arena zeroed = {0};
    assert_null(arena_alloc(&zeroed, 1));
    arena_done(&zeroed);
}

static void blocks_beyond_the_first_count_in_a_budget(void **state)
{
    (void)state;
    struct budget budget = {.bytes_max = 3 * 4096};
    struct budget_share share = {0};
    struct arena a;
    arena_init(&a, 1 << 20);
    arena_budget_set(&a, &budget, &share);
    assert_non_null(arena_alloc(&a, 4000));
    assert_int_equal(budget.bytes, 0);
    for (int i = 1; i <= 3; i++) {
        assert_non_null(arena_alloc(&a, 4000));
        assert_int_equal(budget.bytes, i * 4096);
        assert_int_equal(share.bytes, i * 4096);
    }
    assert_int_equal(a.refused, 0);
    assert_null(arena_alloc(&a, 4000));
    assert_int_equal(a.refused, -ERROR_OVERLOADED);
    arena_reset(&a);
    assert_int_equal(a.refused, 0);
    assert_int_equal(budget.bytes + share.bytes, 0);
    arena_budget_set(&a, &budget, NULL); /* nobody's: only the total counts */
    assert_non_null(arena_alloc(&a, 8000));
    assert_true(budget.bytes > 8000 && share.bytes == 0);
    arena_done(&a);
    assert_int_equal(budget.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_apart),
        cmocka_unit_test(the_maximum_counts_whole_blocks),
        cmocka_unit_test(large_ones_get_their_own_block),
        cmocka_unit_test(sizes_that_wrap_are_refused),
        cmocka_unit_test(size_zero_gives_a_pointer),
        cmocka_unit_test(reset_keeps_one_block),
        cmocka_unit_test(copies_end_with_nul),
        cmocka_unit_test(blocks_beyond_the_first_count_in_a_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
