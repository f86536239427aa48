/* The parent's half of a launch: clone, watch the report pipe, reap. */
#include "isolate/isolate_internal.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* What a sanitized worker keeps back of freed memory, to notice its use, must stay far below its model's limit. */
#define SANITIZER_OPTIONS "quarantine_size_mb=16"

/* Empty, but that a sanitized worker gets its sanitizers' options, without LeakSanitizer: that one ptraces, which a
 * process that is not dumpable refuses; and where a test says which calls fail (test/faults). */
char *const *isolate_environment(void)
{
    static char asan[1024], ubsan[1024], faults[1024], *list[4];
    if (!SANITIZED)
        return list;
    const char *given = getenv("ASAN_OPTIONS");
    int n = snprintf(asan, sizeof asan, "ASAN_OPTIONS=" SANITIZER_OPTIONS ":%s%sdetect_leaks=0", given ? given : "",
                     given ? ":" : "");
    list[0] = n > 0 && (size_t)n < sizeof asan ? asan : "ASAN_OPTIONS=" SANITIZER_OPTIONS ":detect_leaks=0";
    given = getenv("UBSAN_OPTIONS");
    n = given ? snprintf(ubsan, sizeof ubsan, "UBSAN_OPTIONS=%s", given) : 0;
    int at = 1;
    if (n > 0 && (size_t)n < sizeof ubsan)
        list[at++] = ubsan;
    given = getenv("BULKHEAD_FAULTS");
    n = given ? snprintf(faults, sizeof faults, "BULKHEAD_FAULTS=%s", given) : 0;
    list[at] = n > 0 && (size_t)n < sizeof faults ? faults : NULL;
    return list;
}

/* The older call, for kernels or filters above us that refuse clone3. It cannot start in a cgroup. */
static pid_t clone_old(const struct isolate_launch *l, int *ret_pidfd)
{
    unsigned long flags = (unsigned long)l->namespaces | CLONE_PIDFD | SIGCHLD;
    return (pid_t)syscall(SYS_clone, flags, NULL, ret_pidfd, NULL, 0UL);
}

/* 0 in the child, its pid in the parent, -1 with errno. */
static pid_t clone_child(struct isolate_launch *l, int *ret_pidfd)
{
    struct clone_args args = {
        .flags = l->namespaces | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
    };
    l->_join_by_writing = false;
    if (l->join.into_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (unsigned)l->join.into_fd;
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0 && errno == ENOSYS) {
        l->_join_by_writing = l->join.into_procs_fd >= 0;
        pid = clone_old(l, ret_pidfd);
    }
    return pid;
}

/* The child's report: 0 when the pipe closed without one, else the error that stands in err. */
static int report_read(int fd, struct error *err)
{
    struct error report = {0};
    uint64_t deadline_ns = clock_monotonic_ns() + ISOLATE_LAUNCH_MS * NS_PER_MS;
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        struct pollfd pipe_end = {.fd = fd, .events = POLLIN};
        int n = poll(&pipe_end, 1, now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_INTERNAL, "The worker did not start within %d s.", ISOLATE_LAUNCH_MS / 1000);
        ssize_t size = read(fd, &report, sizeof report);
        if (size < 0 && errno == EINTR)
            continue;
        if (size == 0)
            return 0;
        if (size != (ssize_t)sizeof report || report.code >= 0)
            return error_set(err, ERROR_INTERNAL, "The worker's start report could not be read.");
        report.text[sizeof report.text - 1] = '\0';
        return error_set(err, report.code, "%s", report.text);
    }
}

static int clone_error(const struct isolate_launch *l, struct error *err)
{
    if (l->namespaces && errno == EPERM)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "The worker's namespaces could not be made: this needs root (CAP_SYS_ADMIN).");
    if (l->namespaces && (errno == ENOSPC || errno == EINVAL))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "The worker's namespaces could not be made: %m; this kernel lacks a kind of them, or has "
                         "reached a limit of /proc/sys/user.");
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's process could not be made: %m.");
}

int isolate_launch(struct isolate_launch *l, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0)
        return error_set(err, ERROR_INTERNAL, "The worker's start pipe could not be made: %m.");
    _close_ int report_fd = report[0];
    _close_ int child_report_fd = report[1];
    _close_ int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    _close_ int parent_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (null_fd < 0 || parent_fd < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's start could not be prepared: %m.");
    l->_report_fd = child_report_fd;
    l->_parent_fd = parent_fd;
    l->_null_fd = null_fd;
    l->_proc_fd = -1;
    l->_proc = l->spawn->proc || SANITIZED; /* the sanitizers' run time reads its maps */
    l->_program_fd = l->run ? -1 : l->spawn->program_fd;
    l->_environment = isolate_environment();

    /* A handler of ours must not run in the child: it would write into the loop's own pipe. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before); /* fails only for a bad argument */
    int pidfd = -1;
    pid_t pid = clone_child(l, &pidfd);
    if (pid == 0)
        isolate_child(l);
    int clone_errno = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = clone_errno;
    if (pid < 0)
        return clone_error(l, err);

    fd_close(&child_report_fd);
    int r = report_read(report_fd, err);
    if (r != 0) {
        int status;
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0); /* it is exiting anyway, or hangs */
        (void)isolate_wait(pidfd, true, &status);
        fd_close(&pidfd);
        return r;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

int isolate_wait(int pidfd, bool block, int *ret_status)
{
    siginfo_t info = {0};
    int r;
    do
        r = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | (block ? 0 : WNOHANG));
    while (r != 0 && errno == EINTR);
    if (r != 0) {
        *ret_status = 255 << 8;
        return 0;
    }
    if (info.si_pid == 0)
        return -ERROR_AGAIN;
    if (info.si_code == CLD_EXITED)
        *ret_status = (info.si_status & 0xff) << 8;
    else
        *ret_status = (info.si_status & 0x7f) | (info.si_code == CLD_DUMPED ? 0x80 : 0);
    return 0;
}
