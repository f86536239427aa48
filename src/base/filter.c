#include "base/filter.h"

#include "base/blocked.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Once a counted filter stands it lets nobody take the signal again, us included. */
static bool caught;

int filter_install(const struct filter *f, struct error *err)
{
    if (f->counted && !caught && blocked_catch() != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "SIGSYS could not be taken: %m.");
    caught = caught || f->counted;
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
