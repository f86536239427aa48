/* Other processes: tracing, their memory, signals, shared memory, set-uid programs. */
#include "escape.h"

#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* `argument` of most: "PID" or "PID ADDRESS" of a victim: a process of root's that sleeps. */
static pid_t victim(const char *argument)
{
    return (pid_t)strtol(argument, NULL, 10);
}

static void *victim_address(const char *argument)
{
    const char *space = strchr(argument, ' ');
    return space ? (void *)(uintptr_t)strtoull(space + 1, NULL, 16) : NULL;
}

/* --- ptrace --- */

static enum verdict trace_attach(const char *argument)
{
    pid_t pid = victim(argument);
    int status;
    if (ptrace(PTRACE_ATTACH, pid, NULL, NULL) < 0)
        return HELD;
    (void)waitpid(pid, &status, __WALL);
    (void)ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return ESCAPED;
}

static enum verdict trace_seize(const char *argument)
{
    if (ptrace(PTRACE_SEIZE, victim(argument), NULL, NULL) < 0)
        return HELD;
    (void)ptrace(PTRACE_INTERRUPT, victim(argument), NULL, NULL);
    (void)waitpid(victim(argument), NULL, __WALL);
    (void)ptrace(PTRACE_DETACH, victim(argument), NULL, NULL);
    return ESCAPED;
}

static enum verdict trace_parent(const char *argument)
{
    (void)argument; /* the one who started this */
    if (getppid() == 0) {
        errno = ESRCH; /* it cannot even be named */
        return HELD;
    }
    if (ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) < 0)
        return HELD;
    return ESCAPED; /* let go at this process's end */
}

/* --- memory and descriptors of others --- */

static enum verdict vm_read(const char *argument)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {victim_address(argument), 1};
    return of_call(process_vm_readv(victim(argument), &here, 1, &there, 1, 0));
}

static enum verdict vm_write(const char *argument)
{
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {victim_address(argument), 1};
    return of_call(process_vm_writev(victim(argument), &here, 1, &there, 1, 0));
}

static enum verdict vm_descriptor(const char *argument)
{
    int pidfd = (int)syscall(SYS_pidfd_open, victim(argument), 0);
    return pidfd < 0 ? HELD : of_call(syscall(SYS_pidfd_getfd, pidfd, 0, 0));
}

static enum verdict vm_compare(const char *argument)
{
    return of_call(syscall(SYS_kcmp, getpid(), victim(argument), 1 /* KCMP_VM */, 0, 0));
}

/* --- signals and priorities --- */

static enum verdict signal_kill(const char *argument)
{
    return of_call(kill(victim(argument), 0));
}

static enum verdict signal_stop(const char *argument)
{
    if (kill(victim(argument), SIGCONT) < 0)
        return HELD;
    return ESCAPED;
}

static enum verdict signal_thread(const char *argument)
{
    return of_call(syscall(SYS_tgkill, victim(argument), victim(argument), 0));
}

static enum verdict signal_pidfd(const char *argument)
{
    int pidfd = (int)syscall(SYS_pidfd_open, victim(argument), 0);
    return pidfd < 0 ? HELD : of_call(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
}

static enum verdict signal_queue(const char *argument)
{
    return of_call(sigqueue(victim(argument), 0, (union sigval){0}));
}

static enum verdict signal_priority(const char *argument)
{
    return of_call(setpriority(PRIO_PROCESS, (id_t)victim(argument), 1));
}

static enum verdict signal_raise_own(const char *argument)
{
    (void)argument;
    int before = getpriority(PRIO_PROCESS, 0);
    if (setpriority(PRIO_PROCESS, 0, before - 1) < 0)
        return HELD;
    (void)setpriority(PRIO_PROCESS, 0, before);
    return ESCAPED;
}

static enum verdict signal_realtime(const char *argument)
{
    (void)argument;
    struct sched_param parameter = {.sched_priority = 1}, normal = {0};
    if (sched_setscheduler(0, SCHED_FIFO, &parameter) < 0)
        return HELD;
    (void)sched_setscheduler(0, SCHED_OTHER, &normal);
    return ESCAPED;
}

static enum verdict signal_affinity(const char *argument)
{
    cpu_set_t set;
    if (sched_getaffinity(victim(argument), sizeof set, &set) < 0)
        return HELD;
    return of_call(sched_setaffinity(victim(argument), sizeof set, &set));
}

static enum verdict signal_limits(const char *argument)
{
    struct rlimit limit;
    if (prlimit(victim(argument), RLIMIT_CORE, NULL, &limit) < 0)
        return HELD;
    return of_call(prlimit(victim(argument), RLIMIT_CORE, &limit, NULL));
}

/* --- memory and messages shared by name --- */

static enum verdict shm_posix(const char *argument)
{
    char path[300];
    (void)snprintf(path, sizeof path, "/dev/shm/%s", argument);
    return of_call(open(path, O_RDWR | O_CLOEXEC));
}

/* `argument`: "KEY" of a segment of root's. */
static enum verdict shm_systemv(const char *argument)
{
    int id = shmget((key_t)strtol(argument, NULL, 10), 0, 0);
    if (id < 0)
        return HELD;
    void *at = shmat(id, NULL, SHM_RDONLY);
    return at == (void *)-1 ? HELD : ESCAPED;
}

static enum verdict shm_queue(const char *argument)
{
    return of_call(msgget((key_t)strtol(argument, NULL, 10), 0));
}

/* `argument`: "PID FD" of a memfd in another process. */
static enum verdict shm_memfd(const char *argument)
{
    char path[64];
    const char *space = strchr(argument, ' ');
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)victim(argument), space ? space + 1 : "0");
    return of_call(open(path, O_RDWR | O_CLOEXEC));
}

/* --- becoming somebody else --- */

static enum verdict suid_root(const char *argument)
{
    (void)argument;
    if (setresuid(0, 0, 0) < 0)
        return HELD;
    return geteuid() == 0 && syscall(SYS_setgroups, 0, NULL) == 0 ? ESCAPED : HELD;
}

static enum verdict suid_groups(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_setgroups, 0, NULL));
}

static enum verdict run_program(char *const argv[])
{
    int report[2], code = 0, status = 0;
    pid_t pid = pipe2(report, O_CLOEXEC) < 0 ? -1 : fork();
    if (pid < 0) { /* in our own place then, which would end us without a verdict: no better than "escaped" */
        (void)execv(argv[0], argv);
        return HELD;
    }
    if (pid == 0) {
        (void)execv(argv[0], argv);
        code = errno;
        (void)!write(report[1], &code, sizeof code);
        _exit(127);
    }
    (void)close(report[1]);
    ssize_t n = read(report[0], &code, sizeof code);
    (void)close(report[0]);
    (void)waitpid(pid, &status, 0);
    errno = n > 0 ? code : 0;
    return n > 0 ? HELD : ESCAPED;
}

static enum verdict suid_program(const char *argument)
{
    (void)argument;
    char *const argv[] = {(char *)"/usr/bin/passwd", (char *)"--help", NULL};
    return run_program(argv);
}

static enum verdict suid_shell(const char *argument)
{
    (void)argument;
    char *const argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"exit 0", NULL};
    return run_program(argv);
}

/* A program of one's own, from memory. */
static enum verdict suid_own_program(const char *argument)
{
    (void)argument;
    static const char script[] = "#!/bin/sh\nexit 0\n";
    int fd = memfd_create("escape", 0);
    if (fd < 0 || write(fd, script, sizeof script - 1) < 0)
        return HELD;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    char *const argv[] = {path, NULL};
    return run_program(argv);
}

static enum verdict suid_dump(const char *argument)
{
    (void)argument;
    struct rlimit core = {RLIM_INFINITY, RLIM_INFINITY};
    return of_call(setrlimit(RLIMIT_CORE, &core)); /* a core is a file of the host with a tenant's memory in it */
}

const struct escape escapes_process[] = {
    {"ptrace.attach", trace_attach, 0},
    {"ptrace.seize", trace_seize, 0},
    {"ptrace.parent", trace_parent, 0},
    {"process_vm.read", vm_read, 0},
    {"process_vm.write", vm_write, 0},
    {"process_vm.descriptor", vm_descriptor, 0},
    {"process_vm.compare", vm_compare, 0},
    {"signals.kill", signal_kill, 0},
    {"signals.continue", signal_stop, 0},
    {"signals.thread", signal_thread, 0},
    {"signals.pidfd", signal_pidfd, 0},
    {"signals.queue", signal_queue, 0},
    {"signals.priority", signal_priority, 0},
    {"signals.own-priority", signal_raise_own, 0},
    {"signals.realtime", signal_realtime, 0},
    {"signals.affinity", signal_affinity, 0},
    {"signals.limits", signal_limits, 0},
    {"shm.posix", shm_posix, 0},
    {"shm.systemv", shm_systemv, 0},
    {"shm.queue", shm_queue, 0},
    {"shm.memfd", shm_memfd, 0},
    {"suid.root", suid_root, 0},
    {"suid.groups", suid_groups, 0},
    {"suid.program", suid_program, 0},
    {"suid.shell", suid_shell, 0},
    {"suid.own-program", suid_own_program, 0},
    {"suid.dump", suid_dump, 0},
    {0},
};
