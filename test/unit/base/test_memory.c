/* Arrays that grow, and files in memory that are put together. */
#include "base/memory.h"

#include "base/limits.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* Of any size, and with readers who mapped it before: the same bytes, nothing more of them, and it can be sealed. */
static void a_file_stays_what_it_is(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 2 * MIB - 1, 2 * MIB, 7 * MIB + 4099};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t bytes = sizes[k];
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_true(fd >= 0);
        unsigned char *data = malloc(bytes + 1);
        assert_non_null(data);
        for (size_t i = 0; i < bytes; i++)
            data[i] = (unsigned char)(i * 7 + i / 4096);
        assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
        unsigned char *mapped = bytes > 0 ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
        assert_ptr_not_equal(mapped, MAP_FAILED);
        memory_file_gather(fd, 0, bytes);
        for (uint64_t from = 4096; from < bytes; from += 3 * MIB) /* parts, and one that reaches behind its end */
            memory_file_gather(fd, from, 4 * MIB);
        assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)bytes);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL), 0);
        if (bytes > 0) {
            assert_memory_equal(mapped, data, bytes);
            assert_int_equal(munmap(mapped, bytes), 0);
        }
        free(data);
        assert_int_equal(close(fd), 0);
    }
}

/* Whatever the process has mapped already, and maps in between. */
static void a_mapping_begins_at_a_huge_page(void **state)
{
    (void)state;
    const size_t sizes[] = {8 * MIB, 9 * MIB + 1, 31 * MIB + 5 * 4096};
    for (size_t k = 0; k < 10 * sizeof sizes / sizeof sizes[0]; k++) {
        size_t bytes = sizes[k % 3], odd = (k + 1) * 4096;
        int fd = memfd_create("test", MFD_CLOEXEC);
        assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
        void *before = mmap(NULL, odd, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        void *place = memory_file_place(bytes);
        void *between = mmap(NULL, bytes / 4 - 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        void *mapped = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(mapped, MAP_FAILED);
        if (!place)
            skip(); /* mappings grow upwards here */
        assert_int_equal((uintptr_t)mapped % (2 * MIB), 0);
        memory_file_placed(place);
        assert_int_equal(munmap(mapped, bytes), 0);
        assert_int_equal(munmap(between, bytes / 4 - 4096), 0);
        assert_int_equal(munmap(before, odd), 0);
        assert_int_equal(close(fd), 0);
    }
    assert_null(memory_file_place(1));
    assert_null(memory_file_place(SIZE_MAX));
    memory_file_placed(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mapping_begins_at_a_huge_page),
        cmocka_unit_test(grows_and_keeps),
        cmocka_unit_test(a_file_stays_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
