/* Micro benchmark of a worker's start at level process, without a server: microseconds from the call until the program
 * runs, beside a bare clone3 with the same seven namespaces and an exec of the same program. The two take turns, so
 * that what else runs on the machine meets both. One line of JSON, for people and for bench.py. Needs root.
 *
 *   bench_spawn PROGRAM [STARTS]      default 200 starts of each; PROGRAM should end at once when it has no descriptor
 * 3 */
#include "base/clock.h"
#include "isolate/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { STARTS_MAX = 10000 };

static const char *program;
static int program_fd;

static _Noreturn void die(const char *what)
{
    (void)fprintf(stderr, "bench_spawn: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double bare_us(void)
{
    int ends[2], pidfd = -1, status;
    char byte;
    if (pipe2(ends, O_CLOEXEC) != 0)
        die("pipe");
    uint64_t begin_ns = clock_monotonic_ns();
    struct clone_args args = {.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                                       CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_PIDFD,
                              .pidfd = (uint64_t)(uintptr_t)&pidfd,
                              .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        char *const argv[] = {(char *)"program", NULL}, *const environment[] = {NULL};
        (void)execve(program, argv, environment);
        _exit(127);
    }
    if (pid < 0)
        die("clone3");
    (void)close(ends[1]);
    (void)!read(ends[0], &byte, 1); /* closed by exec */
    double us = (double)(clock_monotonic_ns() - begin_ns) / 1000;
    (void)close(ends[0]);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    (void)close(pidfd);
    return us;
}

static double process_us(unsigned nth)
{
    static const char *const argv[] = {"program", NULL};
    char name[32];
    struct error err = {0};
    struct isolate_instance *instance = NULL;
    int pidfd = -1, status;
    (void)snprintf(name, sizeof name, "bench-%u", nth);
    const struct isolate_spawn spawn = {
        .name = name,
        .program_fd = program_fd,
        .argv = argv,
        .stderr_fd = -1,
        .library_fd = -1,
        .uid = 700000 + nth % 1000,
        .gid = 700000 + nth % 1000,
        .limits = {.memory_bytes = 256 * MIB, .cpu_milli = 1000, .pids = 16, .file_bytes = MIB, .fds = 64},
        .limits_required = true,
    };
    uint64_t begin_ns = clock_monotonic_ns();
    int r = isolate_process.spawn(&spawn, &instance, &pidfd, &err);
    double us = (double)(clock_monotonic_ns() - begin_ns) / 1000;
    if (r != 0) {
        (void)fprintf(stderr, "bench_spawn: %s\n", error_text(&err, r));
        exit(1);
    }
    isolate_process.kill(instance);
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR)
        ;
    if (isolate_process.discard(instance, &status) < 0)
        die("discard");
    return us;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static double bare[STARTS_MAX], process[STARTS_MAX];
    uint64_t n = 200;
    char scope[32];
    struct error err = {0};
    if (argc < 2 || (argc > 2 && (str_to_u64(str_from(argv[2]), &n) != 0 || n == 0 || n > STARTS_MAX))) {
        (void)fprintf(stderr, "usage: bench_spawn PROGRAM [STARTS]\n");
        return 2;
    }
    program = argv[1];
    program_fd = open(program, O_RDONLY | O_CLOEXEC);
    if (program_fd < 0)
        die(program);
    (void)snprintf(scope, sizeof scope, "bench-%d", (int)getpid());
    if (isolate_process.setup(scope, &err) != 0 || isolate_process.prepare(program_fd, -1, &err) != 0) {
        (void)fprintf(stderr, "bench_spawn: %s\n", err.text);
        return 1;
    }
    for (unsigned i = 0; i < n; i++) {
        bare[i] = bare_us();
        process[i] = process_us(i);
    }
    isolate_process.teardown();
    qsort(bare, n, sizeof *bare, compare);
    qsort(process, n, sizeof *process, compare);
    printf("{\"bench\": \"spawn\", \"starts\": %u, \"bare_us\": {\"p10\": %.0f, \"median\": %.0f}, "
           "\"process_us\": {\"p10\": %.0f, \"median\": %.0f}, \"ratio\": %.2f}\n",
           (unsigned)n, bare[n / 10], bare[n / 2], process[n / 10], process[n / 2], process[n / 2] / bare[n / 2]);
    return 0;
}
