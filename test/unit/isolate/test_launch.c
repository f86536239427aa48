/* The launch itself: into a real cgroup v2 group where the host has that hierarchy (controllers or not), with the older
 * clone, and each step failing in turn. Needs root. */
#include "support.h"

#include "isolate/isolate_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool no_clone3;

static long test_syscall(long number, long a, long b, long c, long d, long e)
{
    if (number == SYS_clone3 && no_clone3) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(number, a, b, c, d, e);
}

#define SYSCALL_SIX(number, a, b, c, d, e, ...) \
    test_syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define syscall(...) SYSCALL_SIX(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#include "isolate/isolate_launch.c"
#undef syscall

/* ---- a group of the real v2 hierarchy ---- */

static struct cgroup_tree tree;
static struct cgroup_group group;

/* By hand, since the host's v2 may have no controller to offer: then the tree would not use it. */
static bool group_open(void)
{
    char line[4096], point[4096] = "";
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (strstr(line, " - cgroup2 ")) {
            char *rest = line;
            for (int skip = 0; skip < 4; skip++)
                rest = strchr(rest, ' ') + 1;
            snprintf(point, sizeof point, "%.*s", (int)strcspn(rest, " "), rest);
        }
    }
    fclose(file);
    if (!point[0]) {
        print_message("no cgroup v2 hierarchy is mounted here\n");
        return false;
    }
    struct cgroup_home *h = &tree.homes[0];
    tree.n_homes = 1;
    h->version = 2;
    snprintf(tree.base, sizeof tree.base, "bulkhead.%s", test_scope());
    h->parent_fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(h->parent_fd >= 0);
    assert_int_equal(mkdirat(h->parent_fd, tree.base, 0700), 0);
    h->base_fd = openat(h->parent_fd, tree.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(h->base_fd >= 0);
    assert_int_equal(cgroup_group_new(&tree, "w", &group, NULL), 0);
    return true;
}

static int stay(const struct isolate_launch *l, struct error *err)
{
    (void)err;
    close(l->_report_fd); /* as exec would */
    while (pause() < 0)
        ;
    return 0;
}

static int stay_as_two(const struct isolate_launch *l, struct error *err)
{
    (void)fork(); /* a second one, to be killed as well */
    return stay(l, err);
}

/* From outside: the child sees its own group as the root of its cgroup namespace. */
static void assert_in_group(pid_t pid)
{
    char path[64], text[4096] = "", wanted[128];
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    snprintf(wanted, sizeof wanted, "/%s/w\n", tree.base);
    if (!strstr(text, wanted))
        fail_msg("not in the group: %s", text);
}

static struct isolate_spawn spawn;
static struct isolate_launch launch;

static int before(void **state)
{
    leftovers_before(state);
    no_clone3 = false;
    spawn = child_spawn_default("exit", "0", NULL);
    launch = (struct isolate_launch){.spawn = &spawn, .walls = true, .join = CGROUP_JOIN_NONE};
    return 0;
}

static int after(void **state)
{
    cgroup_join_done(&launch.join);
    if (tree.n_homes > 0) {
        cgroup_group_remove(&tree, &group);
        cgroup_tree_close(&tree);
    }
    return leftovers_after(state);
}

static void run_and_reap(void)
{
    pid_t pid;
    int pidfd, status;
    struct error err = {0};
    if (isolate_launch(&launch, &pid, &pidfd, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(isolate_wait(pidfd, true, &status), 0);
    assert_int_equal(status, 0);
    close(pidfd);
}

static void launch_check_kill(void)
{
    pid_t pid;
    int pidfd, status;
    struct error err = {0};
    assert_int_equal(cgroup_group_join(&tree, &group, &launch.join, NULL), 0);
    launch.namespaces = CLONE_NEWPID; /* so that a second one is reaped with the first */
    if (isolate_launch(&launch, &pid, &pidfd, &err) != 0)
        fail_msg("%s", err.text);
    assert_in_group(pid);
    assert_int_equal(isolate_wait(pidfd, false, &status), -ERROR_AGAIN);
    cgroup_group_kill(&tree, &group);
    assert_true(wait_readable(pidfd));
    assert_int_equal(isolate_wait(pidfd, false, &status), 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(pidfd);
}

static void test_into_group(void **state)
{
    (void)state;
    launch.run = stay;
    if (group_open())
        launch_check_kill();
}

static void test_old_clone(void **state)
{
    (void)state;
    no_clone3 = true;
    launch.namespaces = CLONE_NEWPID;
    run_and_reap();
    launch.run = stay;
    if (group_open())
        launch_check_kill();
}

static void test_group_kill(void **state)
{
    (void)state;
    launch.run = stay_as_two;
    if (group_open())
        launch_check_kill();
}

/* ---- failures ---- */

static void refused(const char *words)
{
    pid_t pid = 12345;
    int pidfd = 12345;
    struct error err = {0};
    assert_int_equal(isolate_launch(&launch, &pid, &pidfd, &err), -ERROR_ISOLATION_UNAVAILABLE);
    if (!strstr(err.text, words))
        fail_msg("'%s' does not say '%s'", err.text, words);
    assert_int_equal(pid, 12345);
    assert_int_equal(pidfd, 12345);
}

static void test_join_fails(void **state)
{
    (void)state;
    launch.join.fds[launch.join.n_fds++] = open("/dev/full", O_WRONLY | O_CLOEXEC);
    refused("could not join its control groups: No space left on device");
}

static void test_drop_fails(void **state)
{
    (void)state;
    spawn.uid = (uid_t)-1; /* means "leave it": then the way back is open, which is noticed */
    refused("could not drop to its user and group");
}

static void test_namespace_fails(void **state)
{
    (void)state;
    launch.namespaces = CLONE_FS | CLONE_NEWNS; /* contradict each other */
    refused("namespaces could not be made");
}

static int fail_with_words(const struct isolate_launch *l, struct error *err)
{
    (void)l;
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "in %s", "words");
}

static void test_run_fails(void **state)
{
    (void)state;
    launch.run = fail_with_words;
    refused("in words");
}

/* Somebody else reaped the child: no error, no hang. */
static void test_reaped_elsewhere(void **state)
{
    (void)state;
    pid_t pid;
    int pidfd, status;
    assert_int_equal(isolate_launch(&launch, &pid, &pidfd, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(isolate_wait(pidfd, false, &status), 0);
    assert_int_equal(status, 255 << 8);
    close(pidfd);
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
        T(test_into_group), T(test_old_clone),       T(test_group_kill), T(test_join_fails),
        T(test_drop_fails), T(test_namespace_fails), T(test_run_fails),  T(test_reaped_elsewhere),
    };
    int failed = cmocka_run_group_tests(root, NULL, NULL);
    return geteuid() == 0 ? failed + cmocka_run_group_tests(tests, NULL, NULL) : failed;
}
