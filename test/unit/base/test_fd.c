/* Descriptors and moves. */
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void close_forgets_the_number(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), number = fd;
    assert_true(is_open(number));
    fd_close(&fd);
    assert_int_equal(fd, -1);
    assert_false(is_open(number));
    fd_close(&fd); /* absent: nothing */
    assert_int_equal(fd, -1);
}

static void close_keeps_errno(void **state)
{
    (void)state;
    int fd = 1 << 20; /* not open: close fails */
    errno = ENOENT;
    fd_close(&fd);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(fd, -1);
}

static int opened(bool keep, int *ret_number)
{
    _close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *ret_number = fd;
    return keep ? take_fd(&fd) : -1;
}

static void scopes_close_what_was_not_taken(void **state)
{
    (void)state;
    int number;
    assert_int_equal(opened(false, &number), -1);
    assert_false(is_open(number));
    int fd = opened(true, &number);
    assert_int_equal(fd, number);
    assert_true(is_open(fd));
    fd_close(&fd);
}

static char *allocated(bool keep)
{
    _free_ char *text = malloc(10);
    return keep ? take(&text) : NULL;
}

static void scopes_free_what_was_not_taken(void **state)
{
    (void)state;
    assert_null(allocated(false)); /* LeakSanitizer looks */
    char *text = allocated(true);
    assert_non_null(text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close_forgets_the_number),
        cmocka_unit_test(close_keeps_errno),
        cmocka_unit_test(scopes_close_what_was_not_taken),
        cmocka_unit_test(scopes_free_what_was_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
