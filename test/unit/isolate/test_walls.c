/* The walls of `process`, from inside. Every attack is first shown to work without them (through `fake`): one that
 * finds nothing to try proves nothing. Needs root. */
#include "support.h"

#include "isolate/isolate_cgroup.h"
#include "isolate/isolate_fake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

static const struct isolate_ops *const ops = &isolate_process;

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

static void test_identity(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("facts", NULL);
    s.gid++;
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%u %u %u", s.uid, s.uid, s.uid);
    assert_string_equal(report_value(report, "uid"), wanted);
    snprintf(wanted, sizeof wanted, "%u %u %u", s.gid, s.gid, s.gid);
    assert_string_equal(report_value(report, "gid"), wanted);
    assert_int_equal(report_number(report, "groups"), 0);
    const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_string_equal(report_value(report, sets[i]), "0000000000000000");
    assert_int_equal(report_number(report, "pid"), 1);
    assert_int_equal(report_number(report, "ppid"), 0);
    long ours = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0L);
    assert_true(ours < 0 || report_number(report, "keyring") != ours);
    assert_int_equal(child_end(&c), 0);
}

static void test_network(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("facts", NULL);
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_count(report, "interface-up"), 0);
    assert_true(report_count(report, "interface-down") >= 1); /* loopback is always there: so the list was read */
    assert_int_equal(child_end(&c), 0);
}

static void test_rlimits(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("facts", NULL);
    s.limits.fds = 33;
    s.limits.file_bytes = 12345;
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_string_equal(report_value(report, "rlimit-core"), "0 0");
    assert_string_equal(report_value(report, "rlimit-nofile"), "33 33");
    assert_string_equal(report_value(report, "rlimit-fsize"), "12345 12345");
    assert_string_equal(report_value(report, "rlimit-memlock"), "65536 65536");
    assert_string_equal(report_value(report, "rlimit-msgqueue"), "0 0");
    assert_int_equal(report_number(report, "rlimit-as"), -1);
    assert_int_equal(child_end(&c), 0);
}

static void test_file_size(void **state)
{
    (void)state;
    const char *const sizes[] = {"1048575", "1048576", "1048577"};
    for (size_t i = 0; i < 3; i++) {
        struct isolate_spawn s = child_spawn_default("file", sizes[i], NULL);
        s.limits.file_bytes = MIB;
        struct child c;
        child_start(&c, ops, &s);
        assert_int_equal(report_number(child_report(&c), "file"), i < 2 ? 0 : EFBIG);
        assert_int_equal(child_end(&c), 0);
    }
}

static void test_tmp(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("tmp", NULL);
    s.limits.file_bytes = 64 * MIB;
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_number(report, "tmp-bytes"), LIMIT_REPLICA_TMP_BYTES);
    assert_int_equal(report_number(report, "tmp-bytes-errno"), ENOSPC);
    assert_int_equal(report_number(report, "tmp-exec"), EACCES);
    assert_int_equal(report_number(report, "tmp-files"), LIMIT_REPLICA_TMP_FILES - 2); /* the folder, and the big one */
    assert_int_equal(report_number(report, "tmp-files-errno"), ENOSPC);
    assert_int_equal(child_end(&c), 0);
}

/* The next replica finds nothing of the last one's. */
static void test_tmp_is_fresh(void **state)
{
    for (int i = 0; i < 2; i++)
        test_tmp(state);
}

static void test_landlock(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("landlock", NULL);
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_null(report_value(report, "landlock-error"));
    const char *const free_before[] = {"before-file", "before-null", "before-folder", "before-socket",
                                       "before-port", "after-file",  "after-null"};
    for (size_t i = 0; i < sizeof free_before / sizeof *free_before; i++)
        assert_int_equal(report_number(report, free_before[i]), 0);
    long version = report_number(report, "landlock-version");
    if (version == 0) {
        print_message("no Landlock in this kernel: only its absence was tested\n");
    } else {
        assert_int_equal(report_number(report, "after-folder"), EACCES);
        assert_int_equal(report_number(report, "after-socket"), EACCES);
    }
    if (version >= 4)
        assert_int_equal(report_number(report, "after-port"), EACCES);
    assert_int_equal(child_end(&c), 0);
}

/* ---- attacks ---- */

/* What there is to attack, made by the test as root. */
struct targets {
    int tcp, abstract, secret, shm;
    pid_t bystander;
    char arguments[7][128];
};

static volatile char bystander_byte = 1;

static void targets_make(struct targets *t)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t size = sizeof in;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    t->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(t->tcp, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(t->tcp, 8), 0);
    assert_int_equal(getsockname(t->tcp, (struct sockaddr *)&in, &size), 0);
    snprintf(t->arguments[0], sizeof t->arguments[0], "%u", ntohs(in.sin_port));

    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(t->arguments[1], sizeof t->arguments[1], "bulkhead-%s", test_scope());
    memcpy(un.sun_path + 1, t->arguments[1], strlen(t->arguments[1]));
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(t->arguments[1]));
    t->abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(t->abstract, (struct sockaddr *)&un, size), 0);
    assert_int_equal(listen(t->abstract, 8), 0);

    t->bystander = bystander_start();
    snprintf(t->arguments[2], sizeof t->arguments[2], "%d", (int)t->bystander);
    snprintf(t->arguments[3], sizeof t->arguments[3], "%p", (const void *)&bystander_byte);

    snprintf(t->arguments[4], sizeof t->arguments[4], "/tmp/bulkhead-isolate-XXXXXX");
    t->secret = mkostemp(t->arguments[4], O_CLOEXEC);
    assert_int_equal(fchmod(t->secret, 0600), 0);
    /* Replicas have a uid each: another replica's file is as closed as root's. */
    assert_int_equal(fchown(t->secret, test_uid() + 1, test_uid() + 1), 0);

    struct cgroup_tree tree;
    char scope[64];
    snprintf(scope, sizeof scope, "%s-path", test_scope()); /* closing the tree removes its folder: not the server's */
    assert_int_equal(cgroup_tree_open(&tree, &cgroup_source_host, scope, NULL), 0);
    assert_true(tree.n_homes > 0);
    snprintf(t->arguments[5], sizeof t->arguments[5], "%.100s/cgroup.procs", tree.homes[0].path);
    cgroup_tree_close(&tree);

    key_t key = (key_t)(0x42000000 + getpid());
    t->shm = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0666);
    assert_true(t->shm >= 0);
    snprintf(t->arguments[6], sizeof t->arguments[6], "%d", (int)key);
}

static void targets_remove(struct targets *t)
{
    kill(t->bystander, SIGKILL);
    waitpid(t->bystander, NULL, 0);
    shmctl(t->shm, IPC_RMID, NULL);
    unlink(t->arguments[4]);
    close(t->secret);
    close(t->abstract);
    close(t->tcp);
}

static void test_attacks(void **state)
{
    (void)state;
    static const char *const attacks[] = {
        "tcp",        "abstract", "raw-socket", "kill",           "ptrace",  "memory",   "process-vm", "file",
        "cgroup",     "shm",      "chroot",     "setuid",         "unshare", "priority", "passwd",     "processes",
        "write-root", "node",     "hostname",   "user-namespace", "mount",   "remount",
    };
    struct targets t;
    targets_make(&t);
    struct isolate_spawn s = child_spawn_default("attack", t.arguments[0], t.arguments[1], t.arguments[2],
                                                 t.arguments[3], t.arguments[4], t.arguments[5], t.arguments[6], NULL);
    struct child c;
    char key[64];
    size_t n_wrong = 0;
    for (int walls = 0; walls <= 1; walls++) {
        child_start(&c, walls ? ops : &isolate_fake, &s);
        const char *report = child_report(&c);
        for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
            snprintf(key, sizeof key, "attack-%s", attacks[i]);
            long result = report_number(report, key);
            if ((result == 0) == walls) {
                print_message("%s %s (%ld)\n", attacks[i], walls ? "succeeds behind the wall" : "finds no target",
                              result);
                n_wrong++;
            }
        }
        assert_int_equal(child_end(&c), 0);
    }
    targets_remove(&t);
    assert_int_equal(n_wrong, 0);
}

/* ---- bad neighbours ---- */

static void test_memory_limit(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("memory", "536870912", NULL);
    s.limits.memory_bytes = 64 * MIB;
    struct child c;
    child_start(&c, ops, &s);
    assert_null(report_value(child_report(&c), "memory-taken"));
    assert_true(wait_readable(c.pidfd));
    struct isolate_usage usage;
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    assert_true(usage.oom_kills >= 1);
    assert_true(usage.memory_peak_bytes > 32 * MIB && usage.memory_peak_bytes <= 64 * MIB);
    int status = child_end(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    /* and within the limit nothing happens */
    s = child_spawn_default("memory", "16777216", NULL);
    s.limits.memory_bytes = 64 * MIB;
    child_start(&c, ops, &s);
    assert_int_equal(report_number(child_report(&c), "memory-taken"), 16777216);
    assert_int_equal(child_end(&c), 0);
}

static void test_memory_limit_raised(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    s.limits.memory_bytes = 64 * MIB;
    struct child c;
    child_start(&c, ops, &s);
    child_report(&c);
    struct isolate_limits limits = s.limits;
    limits.memory_bytes = 1024 * MIB;
    assert_int_equal(ops->limit(c.instance, &limits, NULL), 0);
    limits.memory_bytes = 32 * MIB;
    assert_int_equal(ops->limit(c.instance, &limits, NULL), 0);
    child_kill(&c);
}

/* Too little memory to even start: an instance that ends at once, or a refusal; never a hang or a leftover. */
static void test_memory_limit_tiny(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    s.limits.memory_bytes = 4096;
    struct child c;
    struct error err = {0};
    if (child_spawn(&c, ops, &s, &err) == 0) {
        int status = child_end(&c);
        assert_true(WIFSIGNALED(status));
    } else {
        assert_true(err.text[0] != '\0');
    }
}

/* kill takes all that the worker started, sessions of their own or not. */
static void test_fork_bomb(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("forks", "1000", NULL);
    s.limits.pids = 8;
    struct child c;
    child_start(&c, ops, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_number(report, "forks"), 7);
    assert_int_equal(report_number(report, "forks-errno"), EAGAIN);
    struct isolate_usage usage;
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    assert_int_equal(usage.pids, 8);
    child_kill(&c);
}

static void test_cpu_is_counted(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("spin", NULL); /* 50 ms of its own time */
    s.limits.cpu_milli = 500;
    struct child c;
    child_start(&c, ops, &s);
    assert_true(wait_readable(c.pidfd));
    struct isolate_usage usage;
    assert_int_equal(ops->usage(c.instance, &usage, NULL), 0);
    assert_true(usage.cpu_ns >= 45000000);
    assert_int_equal(child_end(&c), 0);
}

/* What the kernel itself says of the group, v1 or v2. */
static void test_cpu_weight(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    s.limits.cpu_milli = 2500;
    struct child c;
    child_start(&c, ops, &s);
    struct cgroup_tree tree;
    assert_int_equal(cgroup_tree_open(&tree, &cgroup_source_host, test_scope(), NULL), 0);
    size_t n = 0;
    for (size_t h = 0; h < tree.n_homes; h++) {
        char text[64];
        const struct cgroup_home *home = &tree.homes[h];
        if (home->controllers & (1u << CGROUP_CPU)) {
            assert_true(cgroup_file_read(home, "worker-1", home->version == 1 ? "cpu.shares" : "cpu.weight", text,
                                         sizeof text) > 0);
            assert_string_equal(text, home->version == 1 ? "2560\n" : "250\n");
            n++;
        }
        fd_close(&tree.homes[h].base_fd); /* not closed as a tree: that would end the worker */
        fd_close(&tree.homes[h].parent_fd);
    }
    assert_int_equal(n, 1);
    child_kill(&c);
}

/* ---- leftovers of an earlier server ---- */

static void group_make(struct cgroup_tree *tree, const char *name, pid_t pid)
{
    struct cgroup_group group;
    char text[32];
    assert_int_equal(cgroup_group_new(tree, name, &group, NULL), 0);
    snprintf(text, sizeof text, "%d", (int)pid);
    for (size_t h = 0; pid > 0 && h < tree->n_homes; h++)
        assert_int_equal(cgroup_file_write(&tree->homes[h], name, "cgroup.procs", text), 0);
}

static void test_setup_removes_leftovers(void **state)
{
    (void)state;
    ops->teardown();
    struct cgroup_tree tree;
    assert_int_equal(cgroup_tree_open(&tree, &cgroup_source_host, test_scope(), NULL), 0);
    pid_t pids[3];
    for (size_t i = 0; i < 3; i++)
        pids[i] = bystander_start();
    group_make(&tree, "empty", 0);
    group_make(&tree, "one", pids[0]);
    group_make(&tree, "two", pids[1]);
    for (size_t h = 0; h < tree.n_homes; h++) { /* the tree is not closed: an earlier server died */
        fd_close(&tree.homes[h].base_fd);
        fd_close(&tree.homes[h].parent_fd);
    }
    assert_true(leftover_groups() > 0);

    struct error err = {0};
    if (ops->setup(test_scope(), &err) != 0)
        fail_msg("setup: %s", err.text);
    for (size_t i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    assert_int_equal(waitpid(pids[2], NULL, WNOHANG), 0); /* outside of the groups: not touched */
    kill(pids[2], SIGKILL);
    waitpid(pids[2], NULL, 0);
}

/* A group of the same name is no obstacle. */
static void test_spawn_over_leftover(void **state)
{
    (void)state;
    struct cgroup_tree tree;
    assert_int_equal(cgroup_tree_open(&tree, &cgroup_source_host, test_scope(), NULL), 0);
    group_make(&tree, "worker-1", 0);
    for (size_t h = 0; h < tree.n_homes; h++) {
        fd_close(&tree.homes[h].base_fd);
        fd_close(&tree.homes[h].parent_fd);
    }
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    child_start(&c, ops, &s);
    assert_int_equal(child_end(&c), 0);
}

static void test_never_root(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    s.uid = 0;
    assert_int_equal(child_spawn(&c, ops, &s, NULL), -ERROR_INVALID_ARGUMENT);
    s.uid = s.gid;
    s.gid = 0;
    assert_int_equal(child_spawn(&c, ops, &s, NULL), -ERROR_INVALID_ARGUMENT);
}

static void test_words(void **state)
{
    (void)state;
    static const char begin[] = "process; ";
    struct isolate_report report;
    ops->probe(&report);
    assert_memory_equal(report.text, begin, sizeof begin - 1);
    assert_non_null(strstr(report.text, "Landlock")); /* which version, or that there is none */
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, ops, &s);
    ops->explain(c.instance, &report);
    assert_memory_equal(report.text, begin, sizeof begin - 1);
    assert_non_null(strstr(report.text, "/worker-1"));
    assert_null(strstr(report.text, "NO LIMITS"));
    child_kill(&c);
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
    const struct CMUnitTest walls[] = {
        T(test_identity),
        T(test_network),
        T(test_rlimits),
        T(test_file_size),
        T(test_tmp),
        T(test_tmp_is_fresh),
        T(test_landlock),
        T(test_attacks),
        T(test_memory_limit),
        T(test_memory_limit_raised),
        T(test_memory_limit_tiny),
        T(test_fork_bomb),
        T(test_cpu_is_counted),
        T(test_cpu_weight),
        T(test_setup_removes_leftovers),
        T(test_spawn_over_leftover),
        T(test_never_root),
        T(test_words),
    };
    int failed = cmocka_run_group_tests(root, NULL, NULL);
    return geteuid() == 0 ? failed + cmocka_run_group_tests(walls, NULL, NULL) : failed;
}
