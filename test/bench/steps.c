/* Counts the user-mode instructions of a running process's main thread, by single-stepping it: the exact figure where
 * processor time is too noisy to compare two versions, and where neither hardware counters nor Valgrind are to be had.
 *
 *   steps PID ADDRESS TIMES SECONDS
 *
 * ADDRESS (hexadecimal) is an instruction that runs once per request. Counts from the first time it is reached until
 * it was reached TIMES times more, or SECONDS are over; the process is then let go. Prints "reached COUNT", then a line
 * "ADDRESS COUNT" for each instruction that ran. x86-64 only. */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

enum { PLACES = 1 << 17 }; /* a request passes some thousand instructions; the table is never more than half full */

static struct {
    uint64_t address, count;
} places[PLACES];
static size_t n_places;

__attribute__((noreturn)) static void die(const char *what)
{
    (void)fprintf(stderr, "steps: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void count(uint64_t address)
{
    size_t at = (size_t)((address * 0x9E3779B97F4A7C15u) >> 40) % PLACES;
    while (places[at].count > 0 && places[at].address != address)
        at = (at + 1) % PLACES;
    if (places[at].count == 0 && ++n_places > PLACES / 2)
        die("too many different instructions");
    places[at].address = address;
    places[at].count++;
}

static uint64_t instruction_at(pid_t pid)
{
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) < 0)
        die("registers");
    return registers.rip;
}

/* One instruction; signals that are for the process reach it. */
static void step(pid_t pid, int *signal)
{
    int status;
    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)*signal) < 0 || waitpid(pid, &status, __WALL) < 0)
        die("step");
    if (!WIFSTOPPED(status)) {
        errno = ESRCH;
        die("the process ended");
    }
    *signal = WSTOPSIG(status) == SIGTRAP || status >> 16 ? 0 : WSTOPSIG(status);
}

/* Both on one core, so that a step costs no wake-up of another. */
static void share_core(pid_t pid, cpu_set_t *ret_before)
{
    cpu_set_t one;
    if (sched_getaffinity(pid, sizeof *ret_before, ret_before) < 0)
        die("affinity");
    int core = 0;
    while (!CPU_ISSET(core, ret_before))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(pid, sizeof one, &one) < 0 || sched_setaffinity(0, sizeof one, &one) < 0)
        die("affinity");
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        (void)fputs("usage: steps PID ADDRESS TIMES SECONDS\n", stderr);
        return 2;
    }
    pid_t pid = (pid_t)strtol(argv[1], NULL, 10);
    uint64_t address = strtoull(argv[2], NULL, 16), times = strtoull(argv[3], NULL, 10), reached = 0;
    time_t end = time(NULL) + strtol(argv[4], NULL, 10);
    int status, signal = 0;
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 ||
        waitpid(pid, &status, __WALL) < 0)
        die("attach");
    cpu_set_t before;
    share_core(pid, &before);
    bool counting = false;
    for (unsigned turn = 0; reached < times && (turn % 4096 || time(NULL) < end); turn++) {
        uint64_t at = instruction_at(pid);
        if (at == address) {
            reached += counting;
            counting = true;
        }
        if (counting && reached < times)
            count(at);
        step(pid, &signal);
    }
    (void)sched_setaffinity(pid, sizeof before, &before); /* it lives for one measurement only */
    if (ptrace(PTRACE_DETACH, pid, NULL, (void *)(intptr_t)signal) < 0)
        die("detach");
    (void)printf("reached %llu\n", (unsigned long long)reached);
    for (size_t i = 0; i < PLACES; i++)
        if (places[i].count > 0)
            (void)printf("%llx %llu\n", (unsigned long long)places[i].address, (unsigned long long)places[i].count);
    return 0;
}
