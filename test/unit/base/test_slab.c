#include "base/memory.h"
#include "base/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { OBJECTS = 5000, OBJECT_BYTES = 200 };

static bool all_zero(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return false;
    return true;
}

static void test_slab(void **state)
{
    (void)state;
    static unsigned char *objects[OBJECTS];
    struct slab s;
    slab_init(&s, OBJECT_BYTES);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < OBJECTS; i++) {
            if (objects[i])
                continue;
            objects[i] = slab_take(&s);
            assert_non_null(objects[i]);
            assert_int_equal((uintptr_t)objects[i] % 64, 0);
            assert_true(all_zero(objects[i], OBJECT_BYTES));
            memset(objects[i], (int)(i % 251) + 1, OBJECT_BYTES);
        }
        for (size_t i = 0; i < OBJECTS; i++) /* nobody wrote into another's */
            assert_true(objects[i][0] == i % 251 + 1 && objects[i][OBJECT_BYTES - 1] == i % 251 + 1);
        for (size_t i = round; i < OBJECTS; i += round + 1) {
            slab_give(&s, objects[i]);
            objects[i] = NULL;
        }
    }
    for (size_t i = 0; i < OBJECTS; i++)
        slab_give(&s, objects[i]);
    slab_give(&s, NULL);
    slab_done(&s);
    slab_done(&s);
}

static void test_slab_of_large_objects(void **state)
{
    (void)state;
    struct slab s;
    slab_init(&s, 100000);
    char *a = slab_take(&s), *b = slab_take(&s);
    assert_true(a && b && a != b);
    memset(a, 1, 100000);
    memset(b, 2, 100000);
    assert_int_equal(a[99999], 1);
    slab_give(&s, a);
    slab_give(&s, b);
    slab_done(&s);
}

static void test_memory_large(void **state)
{
    (void)state;
    assert_int_equal(memory_large_alignment(1), 64);
    assert_int_equal(memory_large_size(65), 128);
    size_t bytes = memory_large_size((8U << 20) + 1);
    assert_int_equal(bytes % memory_large_alignment(bytes), 0);
    unsigned char *p = aligned_alloc(memory_large_alignment(bytes), bytes);
    assert_non_null(p);
    memory_large_advise(p, bytes);
    memset(p, 7, bytes);
    assert_int_equal(p[bytes - 1], 7);
    free(p);
    memory_large_advise(NULL, bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slab),
        cmocka_unit_test(test_slab_of_large_objects),
        cmocka_unit_test(test_memory_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
