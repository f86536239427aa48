/* Arrays that grow. */
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void grows_and_keeps(void **state)
{
    (void)state;
    uint32_t *array = NULL;
    size_t capacity = 0;
    for (uint32_t n = 0; n < 1000; n++) {
        size_t before = capacity;
        array = memory_array_room(array, n, &capacity, sizeof *array);
        assert_non_null(array);
        assert_true(capacity > n && (capacity == before || n == before));
        array[n] = n;
    }
    for (uint32_t n = 0; n < 1000; n++)
        assert_int_equal(array[n], n);
    free(array);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
