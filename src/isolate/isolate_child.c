/* The child's life from clone to exec: one ordered list of steps, each with the words to say when it fails.
 *
 * Runs in a copy of the single-threaded supervisor with all signals blocked; allocates nothing, returns nowhere. The
 * order matters: docs/internals/isolation.md tells why. */
#include "isolate/isolate_enter.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Where the child's own descriptors lie, behind the handed over ones. */
enum { OWN_PROGRAM = 0, OWN_REPORT, OWN_PARENT, OWN_PROC, OWN_COUNT };

/* By system call: libc refuses to touch the two signals it keeps for itself, but a parent may have left those ignored
 * or blocked as well. The kernel's struct for SIG_DFL is all zeroes on every architecture. */
static int signals_reset(struct isolate_launch *l)
{
    (void)l;
    const uint64_t standard[4] = {0}; /* handler, flags, restorer, mask */
    for (int number = 1; number < NSIG; number++) {
        if (number == SIGKILL || number == SIGSTOP)
            continue;
        if (syscall(SYS_rt_sigaction, number, standard, NULL, sizeof(uint64_t)) != 0)
            return -1;
    }
    return 0;
}

static int terminal_leave(struct isolate_launch *l)
{
    (void)l;
    return setsid() < 0 ? -1 : 0;
}

/* Writing "0" moves the writer itself; on v1 that skips the lock over all thread groups that moving another process
 * would wait for. */
static int cgroups_join(struct isolate_launch *l)
{
    for (size_t i = 0; i < l->join.n_fds; i++) {
        if (write(l->join.fds[i], "0", 1) != 1)
            return -1;
    }
    if (l->_join_by_writing && write(l->join.into_procs_fd, "0", 1) != 1)
        return -1;
    return 0;
}

/* What the supervisor keeps to is not the worker's: from here on the cpuset alone says where it runs, also when that
 * grows (since Linux 6.2 a mask that was asked for once is kept for ever). */
static int processors_take(struct isolate_launch *l)
{
    struct isolate_cpus all;
    memset(&all, 0xff, sizeof all);
    return l->spawn->cpus && syscall(SYS_sched_setaffinity, 0, sizeof all, &all) != 0 ? -1 : 0;
}

static int oom_score_raise(struct isolate_launch *l)
{
    (void)l;
    _close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1; /* no /proc here: a preference is lost, no wall */
    char score[16];
    int n = snprintf(score, sizeof score, "%d", ISOLATE_OOM_SCORE_ADJUST);
    return write(fd, score, (size_t)n) < 0 ? -1 : 0;
}

/* Everything is first copied above the target range, so that no target overwrites a source. */
static int descriptors_hand_over(struct isolate_launch *l)
{
    const struct isolate_spawn *s = l->spawn;
    const int first_own = 3 + (int)s->n_fds;
    const int free_from = first_own + OWN_COUNT;
    int given[ISOLATE_LAUNCH_FDS_MAX], own[OWN_COUNT] = {l->_program_fd, l->_report_fd, l->_parent_fd, l->_proc_fd};

    for (size_t i = 0; i < s->n_fds; i++) {
        given[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, free_from);
        if (given[i] < 0)
            return -1;
    }
    for (int i = 0; i < OWN_COUNT; i++) {
        if (own[i] >= 0 && (own[i] = fcntl(own[i], F_DUPFD_CLOEXEC, free_from)) < 0)
            return -1;
    }
    int null_fd = fcntl(l->_null_fd, F_DUPFD_CLOEXEC, free_from);
    int stderr_fd = s->stderr_fd > 0 ? fcntl(s->stderr_fd, F_DUPFD_CLOEXEC, free_from) : null_fd;
    if (null_fd < 0 || stderr_fd < 0)
        return -1;
    if (dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(stderr_fd, 2) < 0)
        return -1;
    for (size_t i = 0; i < s->n_fds; i++) {
        if (dup2(given[i], 3 + (int)i) < 0)
            return -1;
    }
    for (int i = 0; i < OWN_COUNT; i++) {
        if (own[i] >= 0 ? dup3(own[i], first_own + i, O_CLOEXEC) < 0 : close(first_own + i) != 0 && errno != EBADF)
            return -1;
    }
    l->_program_fd = own[OWN_PROGRAM] < 0 ? -1 : first_own + OWN_PROGRAM;
    l->_report_fd = first_own + OWN_REPORT;
    l->_parent_fd = first_own + OWN_PARENT;
    l->_proc_fd = own[OWN_PROC] < 0 ? -1 : first_own + OWN_PROC;
    l->_null_fd = 0;
    return (int)syscall(SYS_close_range, (unsigned)free_from, ~0u, 0u);
}

static int rlimits_set(struct isolate_launch *l)
{
    const struct isolate_limits *limits = &l->spawn->limits;
    const struct {
        int resource;
        rlim_t value;
    } wanted[] = {
        {RLIMIT_CORE, 0},
        {RLIMIT_NOFILE, limits->fds},
        {RLIMIT_FSIZE, limits->file_bytes},
        {RLIMIT_MEMLOCK, ISOLATE_MEMLOCK_BYTES},
        {RLIMIT_NPROC, l->nproc ? limits->pids : ISOLATE_NPROC_MAX},
        {RLIMIT_SIGPENDING, ISOLATE_SIGPENDING_MAX},
        {RLIMIT_MSGQUEUE, 0},
        {RLIMIT_NICE, 0},
        {RLIMIT_RTPRIO, 0},
        /* never RLIMIT_AS: engines map far more than they touch, and sanitizers map terabytes */
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct rlimit present;
        if (getrlimit((__rlimit_resource_t)wanted[i].resource, &present) != 0)
            return -1;
        /* A lower limit of our own stays: raising it may not be allowed, and lower is stricter. */
        rlim_t value = wanted[i].value < present.rlim_max ? wanted[i].value : present.rlim_max;
        const struct rlimit limit = {value, value};
        if (setrlimit((__rlimit_resource_t)wanted[i].resource, &limit) != 0)
            return -1;
    }
    return 0;
}

static int folder_leave(struct isolate_launch *l)
{
    (void)l;
    (void)umask(077); /* cannot fail */
    return chdir("/");
}

static int keyring_leave(struct isolate_launch *l)
{
    (void)l;
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) >= 0)
        return 0;
    /* No keyrings in this kernel, or a filter above us that also keeps the worker from asking. */
    return errno == ENOSYS || errno == EPERM ? 0 : -1;
}

/* The capability to make a namespace is kept until that is done: some hosts let nobody else make a user namespace. */
static int uid_drop(struct isolate_launch *l)
{
    uid_t uid = l->spawn->uid;
    gid_t gid = l->spawn->gid;
    if (prctl(PR_SET_KEEPCAPS, 1L, 0L, 0L, 0L) != 0 || setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 ||
        setresuid(uid, uid, uid) != 0)
        return -1;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct admin[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = 1u << CAP_SYS_ADMIN, .permitted = 1u << CAP_SYS_ADMIN}};
    if (syscall(SYS_capset, &header, admin) != 0)
        return -1;
    if (setresuid(0, 0, 0) == 0) { /* by doing: there is no way back */
        errno = ENOTRECOVERABLE;
        return -1;
    }
    return 0;
}

static int privileges_freeze(struct isolate_launch *l)
{
    (void)l;
    return prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L);
}

/* After the uid drop, which clears the signal. A parent that died before the call is noticed through its pidfd. */
static int parent_follow(struct isolate_launch *l)
{
    if (prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L) != 0)
        return -1;
    struct pollfd parent = {.fd = l->_parent_fd, .events = POLLIN};
    int n = poll(&parent, 1, 0);
    if (n > 0)
        errno = ESRCH;
    return n == 0 ? 0 : -1;
}

static int signals_unblock(struct isolate_launch *l)
{
    (void)l;
    const uint64_t none = 0;
    return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none) != 0 ? -1 : 0;
}

static const struct step {
    bool wall; /* needs privilege; skipped by `fake` */
    const char *what;
    int (*run)(struct isolate_launch *l);
} steps[] = {
    {false, "reset its signal handlers", signals_reset},
    {false, "leave the terminal", terminal_leave},
    {true, "join its control groups", cgroups_join},
    {false, "take its processors", processors_take},
    {true, "raise its OOM score", oom_score_raise},
    {true, "leave the host's name and control groups", isolate_enter_names},
    {true, "enter its root folder", isolate_enter_root},
    {false, "arrange its descriptors", descriptors_hand_over},
    {true, "set its resource limits", rlimits_set},
    {false, "leave the folder", folder_leave},
    {true, "leave the session keyring", keyring_leave},
    {true, "drop to its user and group", uid_drop},
    {true, "enter its user namespace", isolate_enter_user},
    {true, "drop its capabilities", isolate_enter_powerless},
    {false, "refuse new privileges", privileges_freeze},
    {false, "follow its parent into death", parent_follow},
    {false, "unblock signals", signals_unblock},
};

static int program_run(const struct isolate_launch *l, struct error *err)
{
    if (l->run)
        return l->run(l, err);
    /* By descriptor: the program may lie in a folder that the replica's user cannot enter. */
    (void)syscall(SYS_execveat, l->_program_fd, "", l->spawn->argv, l->_environment, AT_EMPTY_PATH);
    if (errno == EACCES)
        return error_set(err, ERROR_INTERNAL,
                         "The worker program could not be executed: every user must be allowed to execute it (%m).");
    return error_set(err, ERROR_INTERNAL, "The worker program could not be executed: %m.");
}

_Noreturn void isolate_child(struct isolate_launch *l)
{
    struct error err = {0};
    int r = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && r == 0; i++) {
        if (steps[i].wall && !l->walls)
            continue;
        if (steps[i].run(l) != 0)
            r = error_set(&err, ERROR_ISOLATION_UNAVAILABLE, "The worker could not %s: %m.", steps[i].what);
    }
    if (r == 0)
        r = program_run(l, &err);
    if (r != 0)
        (void)!write(l->_report_fd, &err, sizeof err); /* below PIPE_BUF, so whole or not; a lost one reads as death */
    _exit(r == 0 ? 0 : 127);
}
