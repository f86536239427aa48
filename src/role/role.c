#include "role/role.h"

#include "base/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

const struct role *role_find(const char *name)
{
    for (size_t i = 0; role_table[i]; i++)
        if (strcmp(role_table[i]->name, name) == 0)
            return role_table[i];
    return NULL;
}

/* Puts fd at `wanted` without CLOEXEC. */
static int place_fd(int fd, int wanted)
{
    if (fd == wanted)
        return fcntl(fd, F_SETFD, 0);
    return dup2(fd, wanted);
}

/* The child between fork and exec: async-signal-safe calls only. */
static _Noreturn void child_exec(const struct role *role, int program_fd, int bus_fd)
{
    sigset_t none;
    (void)sigemptyset(&none); /* cannot fail */
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid(); /* a terminal's signals are the supervisor's alone; cannot fail in a fresh child */
    int program = fcntl(program_fd, F_DUPFD, 16);
    int bus = fcntl(bus_fd, F_DUPFD, 16);
    int null = open("/dev/null", O_RDWR);
    if (program < 0 || bus < 0 || null < 0 || place_fd(null, STDIN_FILENO) < 0 || place_fd(null, STDOUT_FILENO) < 0 ||
        place_fd(bus, ROLE_BUS_FD) < 0)
        _exit(127);
    if (place_fd(program, ROLE_BUS_FD + 1) < 0 || fcntl(ROLE_BUS_FD + 1, F_SETFD, FD_CLOEXEC) < 0)
        _exit(127);
    if (syscall(SYS_close_range, ROLE_BUS_FD + 2, ~0U, 0) < 0)
        _exit(127);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) /* again after the uid change, which clears it */
        _exit(127);
    const char *const argv[] = {"bulkhead", "role", role->name, NULL};
    (void)syscall(SYS_execveat, ROLE_BUS_FD + 1, "", argv, environ, AT_EMPTY_PATH);
    _exit(127);
}

int role_spawn(const struct role *role, int program_fd, int bus_fd, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
    pid_t pid = fork();
    if (pid < 0)
        return error_set(err, ERROR_IO, "the %s process cannot be started: %s", role->name, strerror(errno));
    if (pid == 0)
        child_exec(role, program_fd, bus_fd);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        int r = error_set(err, ERROR_IO, "the %s process cannot be watched: %s", role->name, strerror(errno));
        (void)kill(pid, SIGKILL); /* our own unreaped child: the pid is still its */
        (void)waitpid(pid, NULL, 0);
        return r;
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

static int fail(const struct role *role, struct error *err, const char *what)
{
    return error_set(err, ERROR_IO, "the %s process cannot %s: %s", role->name, what, strerror(errno));
}

int role_data_limit(uint64_t bytes, struct error *err)
{
    struct rlimit data = {bytes, bytes};
    if (bytes == 0 || SANITIZED)
        return 0;
    if (setrlimit(RLIMIT_DATA, &data) < 0)
        return error_set(err, ERROR_INTERNAL, "the memory of the server's processes cannot be bounded: %s",
                         strerror(errno));
    return 0;
}

int role_drop(const struct role *role, int root_dir, uid_t uid, gid_t gid, struct error *err)
{
    pid_t parent = getppid();
    if (fchdir(root_dir) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return fail(role, err, "change its root folder");
    (void)close(root_dir); /* opened read-only: nothing to lose */
    struct rlimit fds, none = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &fds) < 0)
        return fail(role, err, "read its limits");
    if (fds.rlim_max > role->fds_max) /* never more than the host allows: raising it needs a capability we may lack */
        fds.rlim_max = role->fds_max;
    fds.rlim_cur = fds.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &fds) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return fail(role, err, "set its limits");
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return fail(role, err, "give up root");
    if (setuid(0) == 0 || getuid() != uid || geteuid() != uid)
        return error_set(err, ERROR_INTERNAL, "the %s process could take root back", role->name);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(role, err, "give up new privileges");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return fail(role, err, "tie its life to the supervisor's");
    if (getppid() != parent) /* it died before the line above: no signal will come */
        return error_set(err, ERROR_GONE, "the supervisor is gone");
    umask(077);
    return 0;
}

void role_ignore_sigpipe(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* cannot fail for these arguments */
}

int role_reap(pid_t pid, char text[static 64])
{
    int status;
    pid_t reaped = waitpid(pid, &status, WNOHANG);
    if (reaped != pid)
        return 0;
    if (WIFSIGNALED(status))
        (void)snprintf(text, 64, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(text, 64, "exit %d", WEXITSTATUS(status));
    return 1;
}
