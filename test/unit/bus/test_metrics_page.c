/* The page of figures: who may write it, and how pairs find their rows. */
#include "bus/bus.h"
#include "bus/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct bus_metrics *page;
static int fd = -1;

static int setup(void **state)
{
    (void)state;
    return bus_metrics_new(&page, &fd);
}

static int teardown(void **state)
{
    (void)state;
    bus_metrics_unmap(page);
    fd_close(&fd);
    return 0;
}

static void test_one_writer(void **state)
{
    (void)state;
    const struct bus_metrics *seen;
    assert_int_equal(bus_metrics_map(fd, &seen), 0);
    bus_metrics_add(&bus_metrics_row(page, "acme", "echo")->requests[1], 3);
    assert_int_equal(bus_metrics_read(&seen->rows[1].requests[1]), 3);
    assert_true(mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    bus_metrics_unmap(seen);
}

static void test_other_pages_are_refused(void **state)
{
    (void)state;
    const struct bus_metrics *seen = NULL;
    int other = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* the size, but no seals: it could shrink */
    assert_int_equal(ftruncate(other, sizeof *page), 0);
    assert_int_equal(bus_metrics_map(other, &seen), -ERROR_PEER);
    fd_close(&other);
    assert_int_equal(bus_memfd("test", "short", 5, &other), 0);
    assert_int_equal(bus_metrics_map(other, &seen), -ERROR_PEER);
    fd_close(&other);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(bus_metrics_map(pipes[0], &seen), -ERROR_PEER);
    fd_close(&pipes[0]);
    fd_close(&pipes[1]);
    assert_null(seen);
}

static void test_rows(void **state)
{
    (void)state;
    assert_ptr_equal(bus_metrics_row(page, "other", "other"), &page->rows[0]);
    struct bus_metrics_row *first = bus_metrics_row(page, "acme", "");
    assert_ptr_equal(first, &page->rows[1]);
    for (unsigned i = 1; i < LIMIT_METRICS_ROWS + 5; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", i);
        struct bus_metrics_row *row = bus_metrics_row(page, "acme", name);
        assert_ptr_equal(row, i < LIMIT_METRICS_ROWS ? &page->rows[1 + i] : &page->rows[0]);
        assert_ptr_equal(bus_metrics_row(page, "acme", name), row);
    }
    assert_ptr_equal(bus_metrics_row(page, "acme", ""), first);
    assert_int_equal(page->n_rows, LIMIT_METRICS_ROWS + 1);
}

static void test_buckets(void **state)
{
    (void)state;
    static const struct {
        uint64_t value;
        uint32_t bucket;
    } rows[] = {{0, 0}, {1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {255, 8}, {256, 8}, {257, 9}, {UINT64_MAX, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(bus_metrics_bucket(rows[i].value, 0, BUS_METRICS_BATCH_BUCKETS), rows[i].bucket);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_one_writer), TEST(test_other_pages_are_refused), TEST(test_rows),
                                       TEST(test_buckets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
