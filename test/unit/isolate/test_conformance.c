/* What every back-end promises. Run against `fake` and, as root, against `process` and `container`; with the argument
 * `microvm` against that one, which takes minutes: test/live/test_microvm.py does. */
#include "support.h"

#include "isolate/isolate_cpus.h"
#include "isolate/isolate_fake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const struct isolate_ops *ops;

/* Of a worker in a machine no more is known than whether it ended by itself. */
static int code_of(int code)
{
    return ops->machine ? 0 : code;
}

static int signal_of(int number)
{
    return ops->machine ? SIGKILL : number;
}

static int before(void **state)
{
    leftovers_before(state);
    return ops->setup(test_scope(), NULL);
}

static int after(void **state)
{
    ops->teardown();
    return leftovers_after(state);
}

static void test_probe(void **state)
{
    (void)state;
    struct isolate_report report;
    ops->probe(&report);
    if (!report.available || !report.limits)
        fail_msg("not available here: %s", report.text);
    assert_memory_equal(report.text, ops->name, strlen(ops->name));
}

static void test_exit_status(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("exit", "7", NULL);
    struct child c;
    child_start(&c, ops, &s);
    int status = child_end(&c);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code_of(7));
}

static void test_fault(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("fault", NULL);
    struct child c;
    child_start(&c, ops, &s);
    int status = child_end(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signal_of(SIGSEGV));
}

/* A failed assertion kills. The first process of a pid namespace is immune to signals that it sends itself: abort()
 * then goes on to an illegal instruction, which is why the signal may be another. */
static void test_abort(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("abort", NULL);
    struct child c;
    child_start(&c, ops, &s);
    int status = child_end(&c);
    assert_true(WIFSIGNALED(status) && (WTERMSIG(status) == signal_of(SIGABRT) || WTERMSIG(status) == SIGSEGV));
}

static void test_discard_of_the_living(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    child_report(&c);
    int status = 12345;
    assert_int_equal(ops->discard(c.instance, &status), -ERROR_AGAIN);
    assert_int_equal(status, 12345);
    status = child_kill(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_reap(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    child_report(&c);
    int status = 12345;
    assert_int_equal(ops->reap(c.instance, &status), -ERROR_AGAIN);
    assert_int_equal(status, 12345);
    ops->kill(c.instance);
    assert_true(wait_readable(c.pidfd));
    for (int i = 0; i < 2; i++) {
        status = 0;
        assert_int_equal(ops->reap(c.instance, &status), 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    struct isolate_usage usage = {0};
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    ops->kill(c.instance); /* whoever has its number by now */
    assert_int_equal(child_end(&c), status);
}

static void test_kill_after_death(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("exit", "3", NULL);
    struct child c;
    child_start(&c, ops, &s);
    assert_true(wait_readable(c.pidfd));
    assert_int_equal(WEXITSTATUS(child_kill(&c)), code_of(3));
}

static void test_descriptors(void **state)
{
    (void)state;
    /* Many open here, none of them close-on-exec: the worker must see none. */
    int stray[40], given[2];
    for (size_t i = 0; i < 40; i++)
        assert_true((stray[i] = dup(0)) >= 0);
    /* Sources that are each other's targets. */
    given[0] = stray[3];
    given[1] = stray[1];
    struct isolate_spawn s = child_spawn_default("facts", NULL);
    s.fds = given;
    s.n_fds = 2;
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_count(report, "fd"), 6); /* 0, 1, 2, the pipe, the two */
    for (int fd = 0; fd < 6; fd++) {
        char line[16];
        snprintf(line, sizeof line, "fd %d\n", fd);
        assert_non_null(strstr(report, line));
    }
    assert_string_equal(report_value(report, "stdin"), "/dev/null");
    assert_string_equal(report_value(report, "stdout"), "/dev/null");
    assert_int_equal(child_end(&c), 0);
    for (size_t i = 0; i < 40; i++)
        close(stray[i]);
}

/* Each handed over descriptor arrives in its place, even when the numbers cross. */
static void test_descriptor_order(void **state)
{
    (void)state;
    int pipes[4][2], high = 0;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pipe2(pipes[i], O_CLOEXEC), 0);
        high = pipes[i][1];
    }
    assert_true(high < 64);
    /* The helper reports on descriptor 3: place each pipe there in turn, with the others around it. */
    for (size_t i = 0; i < 4; i++) {
        struct isolate_spawn s = child_spawn_default("facts", NULL);
        int fds[4];
        for (size_t k = 0; k < 4; k++)
            fds[k] = pipes[(i + k) % 4][1];
        s.fds = fds;
        s.n_fds = 4;
        struct child c = {.ops = ops, .out = -1};
        assert_int_equal(ops->spawn(&s, &c.instance, &c.pidfd, NULL), 0);
        assert_true(wait_readable(c.pidfd));
        char byte;
        assert_int_equal(read(pipes[i][0], &byte, 1), 1);
        for (size_t k = 1; k < 4; k++) {
            struct pollfd p = {.fd = pipes[(i + k) % 4][0], .events = POLLIN};
            assert_int_equal(poll(&p, 1, 0), 0);
        }
        char rest[65536];
        assert_true(read(pipes[i][0], rest, sizeof rest) > 0);
        assert_int_equal(child_end(&c), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
}

static void test_stderr(void **state)
{
    (void)state;
    for (int wanted = -1; wanted <= 0; wanted++) {
        struct isolate_spawn s = child_spawn_default("facts", NULL);
        s.stderr_fd = wanted;
        struct child c;
        child_start(&c, ops, &s);
        assert_string_equal(report_value(child_report(&c), "stderr"), "/dev/null");
        child_end(&c);
    }
    int fd = open("/dev/zero", O_WRONLY | O_CLOEXEC);
    struct isolate_spawn s = child_spawn_default("facts", NULL);
    s.stderr_fd = fd;
    struct child c;
    child_start(&c, ops, &s);
    assert_string_equal(report_value(child_report(&c), "stderr"), "/dev/zero");
    child_end(&c);
    close(fd);
}

static void handler(int number)
{
    (void)number;
}

static void test_clean_start(void **state)
{
    (void)state;
    struct sigaction ours = {.sa_handler = handler}, ignore = {.sa_handler = SIG_IGN}, old[2];
    sigset_t blocked, mask;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaction(SIGUSR1, &ours, &old[0]);
    sigaction(SIGPIPE, &ignore, &old[1]);
    sigprocmask(SIG_BLOCK, &blocked, &mask);
    /* One of the two that libc keeps for itself: a parent may leave even those ignored or blocked. */
    const uint64_t libc_ignored[4] = {1 /* SIG_IGN */}, libc_default[4] = {0}, libc_bit = UINT64_C(1) << 31;
    syscall(SYS_rt_sigaction, 32, libc_ignored, NULL, sizeof(uint64_t));
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &libc_bit, NULL, sizeof libc_bit);
    setenv("BULKHEAD_SECRET", "1", 1);

    struct isolate_spawn s = child_spawn_default("facts", NULL);
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_string_equal(report_value(report, "cwd"), "/");
    assert_string_equal(report_value(report, "umask"), "77");
    assert_string_equal(report_value(report, "SigBlk"), "0000000000000000");
    assert_string_equal(report_value(report, "SigIgn"), "0000000000000000");
    assert_int_equal(report_number(report, "session-leader"), 1);
    assert_int_equal(report_number(report, "no-new-privs"), 1);
    assert_int_equal(report_number(report, "pdeathsig"), SIGKILL);
    assert_null(strstr(report, "BULKHEAD_SECRET"));
    for (const char *line = strstr(report, "\nenv "); line; line = strstr(line + 1, "\nenv "))
        assert_true(strncmp(line, "\nenv ASAN_OPTIONS=", 18) == 0 || strncmp(line, "\nenv UBSAN_OPTIONS=", 19) == 0);
    assert_int_equal(child_end(&c), 0);

    /* and ours are as they were */
    syscall(SYS_rt_sigaction, 32, libc_default, NULL, sizeof(uint64_t));
    syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &libc_bit, NULL, sizeof libc_bit);
    sigset_t now;
    sigprocmask(SIG_SETMASK, &mask, &now);
    assert_true(sigismember(&now, SIGUSR2) && !sigismember(&now, SIGTERM));
    sigaction(SIGUSR1, &old[0], &ours);
    assert_ptr_equal(ours.sa_handler, handler);
    sigaction(SIGPIPE, &old[1], NULL);
    unsetenv("BULKHEAD_SECRET");
}

static void test_lockdown_self(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("lockdown", NULL);
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_number(report, "lockdown"), 0);
    assert_int_equal(report_number(report, "dumpable"), 0);
    assert_int_equal(child_end(&c), 0);
}

static void test_usage(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    child_report(&c);
    struct isolate_usage usage = {0};
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    assert_true(usage.memory_bytes > 0);
    assert_true(usage.memory_peak_bytes >= usage.memory_bytes);
    assert_true(usage.cpu_ns > 0);
    assert_true(usage.pids >= 1);
    assert_int_equal(usage.oom_kills, 0);
    ops->kill(c.instance);
    assert_true(wait_readable(c.pidfd));
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0); /* after death too */
    child_end(&c);
}

static void test_explain(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    struct isolate_report report;
    ops->explain(c.instance, &report);
    assert_true(report.available && report.limits);
    assert_int_equal(report.pid, child_pid(&c));
    child_kill(&c);
}

static void test_limit(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    struct isolate_limits limits = s.limits;
    for (int step = 0; step < 3; step++) { /* up, down, up */
        limits.memory_bytes = step == 1 ? 128 * MIB : 512 * MIB;
        limits.cpu_milli = step == 1 ? 100 : 1500;
        limits.pids = step == 1 ? 4 : 64;
        struct error err = {0};
        if (ops->limit(c.instance, &limits, &err) != 0)
            fail_msg("limit: %s", err.text);
    }
    struct isolate_limits bad[3] = {limits, limits, limits};
    bad[0].memory_bytes = 0;
    bad[1].cpu_milli = 0;
    bad[2].pids = 0;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ops->limit(c.instance, &bad[i], NULL), -ERROR_INVALID_ARGUMENT);
    child_kill(&c);
}

/* What it may use is what it was given, whatever is asked of the kernel for it; and it can be moved. */
static void test_cpus(void **state)
{
    (void)state;
    struct isolate_cpus all, one = {0}, now, none = {0};
    assert_int_equal(isolate_cpus_of(0, &all), 0);
    if (!ops->cpus || isolate_cpus_count(&all) < 2)
        skip();
    for (uint32_t cpu = LIMIT_CPUS; cpu-- > 0 && isolate_cpus_count(&one) == 0;)
        if (isolate_cpus_has(&all, cpu))
            isolate_cpus_add(&one, cpu);
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    s.cpus = &one;
    struct child c;
    child_start(&c, ops, &s);
    pid_t pid = child_pid(&c);
    for (int step = 0; step < 4; step++) { /* one, all, one, all */
        const struct isolate_cpus *wanted = step % 2 == 0 ? &one : &all;
        struct error err = {0};
        if (step > 0 && ops->cpus(c.instance, wanted, &err) != 0)
            fail_msg("cpus: %s", err.text);
        assert_int_equal(isolate_cpus_of(pid, &now), 0);
        assert_true(isolate_cpus_within(&now, wanted) && isolate_cpus_within(wanted, &now));
        (void)isolate_cpus_bind(pid, &all); /* with root's rights: cut down to the set, or refused */
        assert_int_equal(isolate_cpus_of(pid, &now), 0);
        assert_true(isolate_cpus_within(&now, wanted));
    }
    struct isolate_cpus impossible = one;
    isolate_cpus_add(&impossible, LIMIT_CPUS - 1);
    assert_int_equal(ops->cpus(c.instance, &none, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    assert_int_equal(ops->cpus(c.instance, &impossible, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    child_kill(&c);
    s.cpus = &impossible;
    struct isolate_instance *instance = NULL;
    int pidfd = -1;
    assert_int_equal(ops->spawn(&s, &instance, &pidfd, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    assert_null(instance);
}

static void test_refuses_invalid(void **state)
{
    (void)state;
    const struct isolate_spawn good = child_spawn_default("exit", "0", NULL);
    const char *const no_arguments[] = {NULL};
    const int absent[] = {-1};
    struct isolate_spawn bad[12];
    size_t n = 0;
    for (size_t i = 0; i < 12; i++)
        bad[i] = good;
    bad[n++].name = "";
    bad[n++].name = "../up";
    bad[n++].name = "Upper";
    bad[n++].name = "a234567890123456789012345678901234567890123456789012345678901234"; /* 64 */
    bad[n++].name = NULL;
    bad[n++].program_fd = -1;
    bad[n++].argv = no_arguments;
    bad[n].fds = absent;
    bad[n++].n_fds = 1;
    bad[n++].limits.memory_bytes = 0;
    bad[n++].limits.cpu_milli = 0;
    bad[n++].limits.pids = 0;
    bad[n++].limits.fds = 2;
    for (size_t i = 0; i < n; i++) {
        struct isolate_instance *instance = (void *)&n;
        int pidfd = 12345;
        struct error err = {0};
        assert_int_equal(ops->spawn(&bad[i], &instance, &pidfd, &err), -ERROR_INVALID_ARGUMENT);
        assert_true(err.text[0] != '\0');
        assert_ptr_equal(instance, (void *)&n); /* outputs untouched */
        assert_int_equal(pidfd, 12345);
    }
}

static void test_too_many_descriptors(void **state)
{
    (void)state;
    int fds[ISOLATE_FDS_MAX + 1];
    for (size_t i = 0; i < ISOLATE_FDS_MAX + 1; i++)
        fds[i] = 0;
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c = {.ops = ops, .out = -1};
    s.fds = fds;
    s.n_fds = ISOLATE_FDS_MAX + 1;
    assert_int_equal(ops->spawn(&s, &c.instance, &c.pidfd, NULL), -ERROR_INVALID_ARGUMENT);
    s.n_fds = ISOLATE_FDS_MAX;
    assert_int_equal(ops->spawn(&s, &c.instance, &c.pidfd, NULL), 0);
    child_end(&c);
}

/* What fails in the child is told in words, and leaves nothing. */
static void test_program_that_is_none(void **state)
{
    (void)state;
    char path[] = "/tmp/bulkhead-isolate-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    s.program_fd = fd;
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_INTERNAL);
    assert_non_null(strstr(err.text, "could not be executed"));
    assert_non_null(strstr(err.text, "Permission denied"));
    unlink(path);
    close(fd);

    const int closed[] = {1000}; /* no such descriptor */
    s = child_spawn_default("exit", "0", NULL);
    s.fds = closed;
    s.n_fds = 1;
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "descriptors"));
}

/* The worker dies with the process that spawned it, even when that one is killed. */
static void test_parent_death(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c = {.ops = ops};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L);
    pid_t middle = fork();
    if (middle == 0) {
        if (child_spawn(&c, ops, &s, NULL) != 0)
            _exit(1);
        child_report(&c);
        pid_t pid = child_pid(&c);
        if (write(ends[1], &pid, sizeof pid) != sizeof pid)
            _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    pid_t pid = 0;
    assert_true(wait_readable(ends[0]));
    assert_int_equal(read(ends[0], &pid, sizeof pid), sizeof pid);
    close(ends[0]);
    int worker = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(worker >= 0);
    kill(middle, SIGKILL);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    assert_true(wait_readable(worker));
    close(worker);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid); /* ours since its parent died */
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 0L, 0L, 0L, 0L);
}

/* Many at once, ended in another order. */
static void test_several(void **state)
{
    (void)state;
    struct child c[8];
    size_t n = ops->machine ? 2 : 8;
    for (size_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "worker-%zu", i);
        struct isolate_spawn s = child_spawn_default("hang", NULL);
        s.name = name;
        s.uid += (uid_t)i;
        s.gid += (gid_t)i;
        child_start(&c[i], ops, &s);
    }
    for (size_t i = 0; i < n; i++)
        child_kill(&c[(i * 3 + 5) % n]);
}

/* Nothing adds up: descriptors, processes and groups (leftovers_after), and mounts here. BULKHEAD_CYCLES=n for more. */
static void test_cycles(void **state)
{
    (void)state;
    const char *wanted = getenv("BULKHEAD_CYCLES");
    uint64_t n = ops->machine ? 3 : 100;
    assert_true(!wanted || str_to_u64(str_from(wanted), &n) == 0);
    size_t mounts = mounts_count();
    for (uint64_t i = 0; i < n; i++) {
        bool hangs = i % 2 == 1; /* in turn: ends by itself, is killed */
        struct isolate_spawn s = child_spawn_default(hangs ? "hang" : "exit", hangs ? NULL : "0", NULL);
        struct child c;
        child_start(&c, ops, &s);
        if (hangs && ops->machine) /* so that it dies at work, not at its boot */
            child_report(&c);
        if (hangs)
            child_kill(&c);
        else
            assert_int_equal(child_end(&c), 0);
    }
    assert_int_equal(mounts_count(), mounts);
}

/* Everything goes into a machine through its ports and its disk. */
static void test_what_a_machine_takes(void **state)
{
    (void)state;
    const int fds[] = {0};
    const struct isolate_spawn good = child_spawn_default("exit", "0", NULL);
    const struct isolate_machine machine = {.disk_fd = 0, .disk_bytes = 1, .control_fd = 0, .channel_fd = 0};
    struct isolate_machine parts[4];
    struct isolate_spawn bad[7];
    for (size_t i = 0; i < 7; i++)
        bad[i] = good;
    bad[0].machine = NULL;
    bad[1].machine = &machine;
    bad[1].fds = fds;
    bad[1].n_fds = 1;
    for (size_t i = 0; i < 4; i++) {
        parts[i] = machine;
        bad[2 + i].machine = &parts[i];
    }
    parts[0].disk_fd = -1;
    parts[1].disk_bytes = 0;
    parts[2].control_fd = -1;
    parts[3].channel_fd = -1;
    bad[6].machine = &machine;
    bad[6].runtime = ISOLATE_RUNTIME_RUNC; /* in a guest there is crun */
    for (size_t i = 0; i < 7; i++) {
        struct isolate_instance *instance = (void *)&parts;
        int pidfd = 12345;
        struct error err = {0};
        int r = ops->spawn(&bad[i], &instance, &pidfd, &err);
        assert_int_equal(r, i == 6 ? -ERROR_ISOLATION_UNAVAILABLE : -ERROR_INVALID_ARGUMENT);
        assert_true(err.text[0] != '\0');
        assert_ptr_equal(instance, (void *)&parts);
        assert_int_equal(pidfd, 12345);
    }
}

static void test_root(void **state)
{
    (void)state;
    (void)have_root(); /* fails when root is missing and nobody said that it may be */
}

static void test_registry(void **state)
{
    (void)state;
    for (int level = 0; level < ISOLATE_LEVEL_COUNT; level++) {
        const struct isolate_ops *found = isolate_find((enum isolate_level)level);
        assert_true(found != &isolate_fake);
        bool policy = level == ISOLATE_POOL || level == ISOLATE_SHARED; /* over the walls of process */
        assert_true(!found || found->level == (policy ? ISOLATE_PROCESS : (enum isolate_level)level));
        assert_int_equal(isolate_level_from_name(str_from(isolate_level_names[level])), level);
    }
    assert_ptr_equal(isolate_find(ISOLATE_PROCESS), &isolate_process);
    assert_null(isolate_find(ISOLATE_LEVEL_COUNT));
    assert_int_equal(isolate_level_from_name(STR("proces")), ISOLATE_NONE);
    assert_int_equal(isolate_level_from_name((struct str){0}), ISOLATE_NONE);
}

static void test_fake_plan(void **state)
{
    (void)state;
    isolate_fake_reset();
    isolate_fake_fail_spawn(2, ERROR_OVERLOADED);
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    for (int i = 1; i <= 3; i++) {
        int r = child_spawn(&c, &isolate_fake, &s, NULL);
        assert_int_equal(r, i == 2 ? -ERROR_OVERLOADED : 0);
        assert_int_equal(isolate_fake_count().live, i == 2 ? 0 : 1);
        if (r == 0)
            child_end(&c);
    }
    assert_int_equal(isolate_fake_count().spawns, 3);
    assert_int_equal(isolate_fake_count().discards, 2);
    assert_int_equal(isolate_fake_count().live, 0);
    const struct isolate_report none = {.text = "no"};
    struct isolate_report report;
    isolate_fake_report(&none);
    isolate_fake.probe(&report);
    assert_false(report.available);
    isolate_fake_reset();
    isolate_fake.probe(&report);
    assert_true(report.available && report.limits);
    isolate_fake_reset();
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

static const struct CMUnitTest every[] = {
    T(test_probe),
    T(test_exit_status),
    T(test_fault),
    T(test_abort),
    T(test_discard_of_the_living),
    T(test_reap),
    T(test_kill_after_death),
    T(test_descriptors),
    T(test_descriptor_order),
    T(test_stderr),
    T(test_clean_start),
    T(test_lockdown_self),
    T(test_usage),
    T(test_explain),
    T(test_limit),
    T(test_cpus),
    T(test_refuses_invalid),
    T(test_too_many_descriptors),
    T(test_program_that_is_none),
    T(test_parent_death),
    T(test_several),
    T(test_cycles),
};

/* Descriptors are not handed over there; the machine's console is nobody's stderr; what is no program is found out by
 * the guest. */
static const struct CMUnitTest every_machine[] = {
    T(test_probe),
    T(test_exit_status),
    T(test_fault),
    T(test_abort),
    T(test_discard_of_the_living),
    T(test_reap),
    T(test_kill_after_death),
    T(test_clean_start),
    T(test_lockdown_self),
    T(test_usage),
    T(test_explain),
    T(test_limit),
    T(test_refuses_invalid),
    T(test_what_a_machine_takes),
    T(test_parent_death),
    T(test_several),
    T(test_cycles),
};

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "microvm") == 0) {
        test_wait_ms = ISOLATE_PROBE_MS;
        ops = &isolate_microvm;
        return cmocka_run_group_tests_name("microvm", every_machine, NULL, NULL);
    }
    const struct CMUnitTest alone[] = {
        cmocka_unit_test(test_root),
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_fake_plan),
    };
    int failed = cmocka_run_group_tests(alone, NULL, NULL);
    ops = &isolate_fake;
    failed += cmocka_run_group_tests_name("fake", every, NULL, NULL);
    if (geteuid() == 0) {
        ops = &isolate_process;
        failed += cmocka_run_group_tests_name("process", every, NULL, NULL);
        if (container_runtime_here()) {
            ops = &isolate_container;
            failed += cmocka_run_group_tests_name("container", every, NULL, NULL);
        }
    }
    return failed;
}
