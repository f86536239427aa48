#include "base/filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

size_t filter_table_count(const struct filter_table *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->n_rows; i++)
        count += t->rows[i].when.refused == 0;
    return count;
}

const struct filter_row *filter_table_find(const struct filter_table *t, const char *call)
{
    for (size_t i = 0; i < t->n_rows; i++)
        if (strcmp(t->rows[i].call, call) == 0)
            return &t->rows[i];
    return NULL;
}

int filter_install(const struct filter *f, struct error *err)
{
    /* The kernel copies it; its struct only lacks the const. */
    struct sock_fprog program = {.len = f->n_code, .filter = (struct sock_filter *)(uintptr_t)f->code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "New privileges could not be given up: %m.");
    long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "The system call filter could not be installed: %m; this kernel needs CONFIG_SECCOMP_FILTER.");
    if (r > 0) /* the id of a thread that has a filter of its own: a bug of ours */
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "A thread cannot take the process's system call filter.");
    return 0;
}
