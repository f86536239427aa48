/* `process` on hosts that lack something: refused with the reason, or, where the operator allowed it, started without
 * limits and saying so. The source under test is included, with the host's facts replaced. Needs root. */
#include "support.h"

#include "isolate/isolate_cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct cgroup_source source; /* what the back-end takes for /proc */
static uid_t euid;

static uid_t test_geteuid(void)
{
    return euid;
}

#define cgroup_source_host source
#define geteuid            test_geteuid
#include "isolate/isolate_process.c"
#undef cgroup_source_host
#undef geteuid

static const struct isolate_ops *const ops = &isolate_process;
static char mountinfo_path[] = "/tmp/bulkhead-mountinfo-XXXXXX";

/* The host as it is, less the mounts whose line holds one of these words. */
static void host_without(const char *const words[])
{
    char line[8192];
    FILE *in = fopen("/proc/self/mountinfo", "re"), *out = fopen(mountinfo_path, "we");
    assert_true(in && out);
    while (fgets(line, sizeof line, in)) {
        bool drop = false;
        for (size_t i = 0; words[i]; i++)
            drop |= strstr(line, words[i]) != NULL;
        if (!drop)
            fputs(line, out);
    }
    fclose(in);
    fclose(out);
}

static int before(void **state)
{
    leftovers_before(state);
    snprintf(mountinfo_path, sizeof mountinfo_path, "/tmp/bulkhead-mountinfo-XXXXXX");
    int fd = mkstemp(mountinfo_path);
    source = (struct cgroup_source){mountinfo_path, "/proc/self/cgroup"};
    euid = 0;
    return close(fd);
}

static int after(void **state)
{
    ops->teardown();
    unlink(mountinfo_path);
    return leftovers_after(state);
}

static void test_no_limits(void **state)
{
    (void)state;
    host_without((const char *const[]){"cgroup", NULL});
    assert_int_equal(ops->setup(test_scope(), NULL), 0);

    struct isolate_report report;
    ops->probe(&report);
    assert_true(report.available);
    assert_false(report.limits);
    assert_memory_equal(report.text, LEVEL_TEXT "; NO LIMITS: ", sizeof LEVEL_TEXT "; NO LIMITS: " - 1);
    assert_non_null(strstr(report.text, "memory, cpu, pids cannot be limited: "));

    struct isolate_spawn s = child_spawn_default("forks", "100", NULL);
    s.limits.pids = 6;
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "memory, cpu, pids cannot be limited: "));

    s.limits_required = false;
    child_start(&c, ops, &s);
    assert_int_equal(report_number(child_report(&c), "forks"), 5); /* RLIMIT_NPROC stands in */
    ops->explain(c.instance, &report);
    assert_false(report.limits);
    assert_memory_equal(report.text, LEVEL_TEXT, sizeof LEVEL_TEXT - 1);
    assert_non_null(strstr(report.text, "NO LIMITS"));
    assert_int_equal(ops->limit(c.instance, &s.limits, &err), -ERROR_ISOLATION_UNAVAILABLE);
    struct isolate_usage usage = {0};
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    assert_true(usage.memory_bytes > 0 && usage.cpu_ns > 0 && usage.pids == 1);
    child_kill(&c); /* the pid namespace takes the forks along */
}

static void test_one_controller_missing(void **state)
{
    (void)state;
    host_without((const char *const[]){"pids", "cgroup2", NULL});
    assert_int_equal(ops->setup(test_scope(), NULL), 0);
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    s.limits_required = false;
    child_start(&c, ops, &s);
    struct isolate_report report;
    ops->explain(c.instance, &report);
    assert_false(report.limits);
    assert_non_null(strstr(report.text, "pids"));
    child_kill(&c);
}

static void test_without_setup(void **state)
{
    (void)state;
    host_without((const char *const[]){NULL});
    struct isolate_report report;
    ops->probe(&report); /* needs none: it makes and removes a scope of its own */
    assert_true(report.available && report.limits);
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    s.limits_required = false;
    child_start(&c, ops, &s);
    assert_int_equal(child_end(&c), 0);
}

static void test_not_root(void **state)
{
    (void)state;
    host_without((const char *const[]){NULL});
    euid = 1000;
    struct isolate_report report;
    ops->probe(&report);
    assert_false(report.available || report.limits);
    assert_string_equal(report.text, "process: needs root: start the server with sudo.");
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "sudo"));
    s.limits_required = false; /* this is about limits, not about root */
    assert_int_equal(child_spawn(&c, ops, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
}

/* Really another user: the kernel refuses too, with words. */
static void test_really_not_root(void **state)
{
    (void)state;
    host_without((const char *const[]){"cgroup", NULL});
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    s.limits_required = false;
    pid_t pid = fork();
    if (pid == 0) {
        struct child c;
        struct error err = {0};
        if (setresuid(s.uid, s.uid, s.uid) != 0)
            _exit(1);
        _exit(child_spawn(&c, ops, &s, &err) == -ERROR_ISOLATION_UNAVAILABLE && strstr(err.text, "root") ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_root(void **state)
{
    (void)state;
    (void)have_root();
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
    const struct CMUnitTest root[] = {cmocka_unit_test(test_root)};
    const struct CMUnitTest tests[] = {
        T(test_no_limits), T(test_one_controller_missing), T(test_without_setup),
        T(test_not_root),  T(test_really_not_root),
    };
    int failed = cmocka_run_group_tests(root, NULL, NULL);
    return geteuid() == 0 ? failed + cmocka_run_group_tests(tests, NULL, NULL) : failed;
}
