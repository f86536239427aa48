/* cgroup v2 (and mixtures with v1) against a folder that follows the kernel's rules: fake_cgroupfs.h. */
#include "fake_cgroupfs.h"

#include "isolate/isolate_cgroup.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define mkdirat  fake_mkdirat
#define unlinkat fake_unlinkat
#define write    fake_write
#include "isolate/isolate_cgroup.c"
#include "isolate/isolate_cgroup_find.c"
#include "isolate/isolate_cgroup_limit.c"
#undef mkdirat
#undef unlinkat
#undef write

#define ALL "cpuset cpu io memory hugetlb pids\n"

static char mountinfo_path[160], self_path[160];
static const struct cgroup_source source = {mountinfo_path, self_path};

/* Describes the tree as mounted at its folder, and says which group is ours. */
static void describe(const char *mountinfo, const char *self)
{
    snprintf(mountinfo_path, sizeof mountinfo_path, "%s/.mountinfo", fake_top);
    snprintf(self_path, sizeof self_path, "%s/.self", fake_top);
    fake_put(fake_top, ".mountinfo", mountinfo);
    fake_put(fake_top, ".self", self);
}

static void describe_v2(const char *root, const char *own)
{
    char mountinfo[1024], self[256];
    snprintf(mountinfo, sizeof mountinfo,
             "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
             "30 22 0:26 %s %s rw,nosuid,nodev shared:4 master:2 - cgroup2 cgroup2 rw,nsdelegate\n"
             "31 22 0:27 / /tmp/none rw - tmpfs tmpfs rw,cpu,memory\n",
             root, fake_top);
    snprintf(self, sizeof self, "0::%s\n", own);
    describe(mountinfo, self);
}

static const char *at(const char *path)
{
    static char folder[2][PATH_MAX];
    static size_t turn;
    turn = !turn;
    snprintf(folder[turn], sizeof folder[turn], "%s/%s", fake_top, path);
    return folder[turn];
}

static const struct isolate_limits limits = {.memory_bytes = 64 * MIB, .cpu_milli = 1500, .pids = 7};

static int before(void **state)
{
    leftovers_before(state);
    fake_tree_make(ALL);
    return 0;
}

static int after(void **state)
{
    char hidden[PATH_MAX];
    snprintf(hidden, sizeof hidden, "%s/.mountinfo", fake_top);
    unlink(hidden);
    snprintf(hidden, sizeof hidden, "%s/.self", fake_top);
    unlink(hidden);
    fake_remove(fake_top);
    return leftovers_after(state);
}

static void open_tree(struct cgroup_tree *t)
{
    struct error err = {0};
    if (cgroup_tree_open(t, &source, "s1", &err) != 0)
        fail_msg("%s", err.text);
}

/* ---- finding ---- */

static void test_our_group_is_the_real_root(void **state)
{
    (void)state;
    describe_v2("/", "/");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, CGROUP_LIMITS | CGROUP_WELCOME);
    assert_string_equal(t.missing, "");
    assert_int_equal(t.n_homes, 1);
    assert_int_equal(t.homes[0].version, 2);
    assert_string_equal(t.homes[0].path, fake_top);
    assert_true(fake_listed(at("bulkhead.s1"), "cgroup.subtree_control", "memory"));
    struct stat s;
    assert_int_equal(stat(at("bulkhead.s1"), &s), 0);
    assert_int_equal(s.st_mode & 0777, 0700);
    cgroup_tree_close(&t);
    assert_false(fake_has(at("bulkhead.s1"), "cgroup.procs"));
}

/* Our own group holds ourselves, so it cannot hand controllers down: our folder goes to the mount's root. Nobody is
 * moved, and what others set stays. */
static void test_our_group_holds_processes(void **state)
{
    (void)state;
    fake_put(fake_top, "cgroup.subtree_control", "cpu memory pids\n");
    fake_group_make("/system.slice", "");
    fake_put(at("system.slice"), "cgroup.subtree_control", "cpu memory pids\n");
    fake_group_make("/system.slice/bulkhead.service", "4711\n");
    describe_v2("/", "/system.slice/bulkhead.service");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, CGROUP_LIMITS | CGROUP_WELCOME);
    assert_string_equal(t.homes[0].path, fake_top);
    assert_string_equal(fake_get(at("system.slice/bulkhead.service"), "cgroup.procs"), "4711\n");
    assert_string_equal(fake_get(at("system.slice/bulkhead.service"), "cgroup.subtree_control"), "");
    assert_false(fake_has(at("system.slice/bulkhead.service/bulkhead.s1"), "cgroup.procs"));
    assert_true(fake_has(at("bulkhead.s1"), "cgroup.procs"));
    cgroup_tree_close(&t);
}

/* Only what is missing is switched on. */
static void test_hands_down_what_is_missing(void **state)
{
    (void)state;
    fake_put(fake_top, "cgroup.subtree_control", "memory\n");
    describe_v2("/", "/");
    struct cgroup_tree t;
    open_tree(&t);
    assert_string_equal(fake_get(fake_top, "cgroup.subtree_control"), "memory cpu pids cpuset io\n");
    cgroup_tree_close(&t);
}

/* A container with a cgroup namespace: its root is not the real one and holds processes. */
static void test_cannot_delegate(void **state)
{
    (void)state;
    fake_root_is_real = false;
    describe_v2("/../../docker/x", "/");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, 0);
    assert_int_equal(t.n_homes, 0);
    assert_non_null(strstr(t.missing, "memory, cpu, pids cannot be limited: "));
    assert_non_null(strstr(t.missing, "hand"));
    assert_false(fake_has(at("bulkhead.s1"), "cgroup.procs"));
    struct cgroup_group g;
    struct error err;
    assert_int_equal(cgroup_group_new(&t, "w", &g, &err), 0); /* exists nowhere */
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "memory, cpu, pids cannot be limited"));
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

static void test_read_only(void **state)
{
    (void)state;
    fake_mkdir_errno = EROFS;
    describe_v2("/", "/");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, 0);
    assert_non_null(strstr(t.missing, "read-only"));
    cgroup_tree_close(&t);
}

/* What is written counts only if the kernel says that it is had. */
static void test_processors(void **state)
{
    (void)state;
    describe_v2("/", "/");
    struct cgroup_tree t;
    open_tree(&t);
    struct cgroup_group g;
    struct isolate_cpus two = {0};
    struct error err = {0};
    isolate_cpus_add(&two, 1);
    isolate_cpus_add(&two, 3);
    assert_int_equal(cgroup_group_new(&t, "w", &g, NULL), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "cpuset.cpus"), ""); /* those of the folder above */
    fake_put(at("bulkhead.s1/w"), "cpuset.cpus.effective", "1,3\n");
    assert_int_equal(cgroup_group_cpus(&t, &g, &two, &err), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "cpuset.cpus"), "1,3");
    fake_put(at("bulkhead.s1/w"), "cpuset.cpus.effective", "0-2\n"); /* 3 is off, so it is the folder's above */
    assert_int_equal(cgroup_group_cpus(&t, &g, &two, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "1,3"));
    assert_non_null(strstr(err.text, "0-2"));
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

static void test_part_of_the_controllers(void **state)
{
    (void)state;
    fake_put(fake_top, "cgroup.controllers", "io memory cpuset\n");
    describe_v2("/", "/");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, 1u << CGROUP_MEMORY | CGROUP_WELCOME);
    assert_memory_equal(t.missing, "cpu, pids cannot be limited: ", 29);
    struct cgroup_group g;
    struct error err = {0};
    assert_int_equal(cgroup_group_new(&t, "w", &g, &err), 0);
    /* without `required` what can be set is set, and the rest told */
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, false, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "memory.max"), "67108864");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

static void test_no_cgroups_at_all(void **state)
{
    (void)state;
    describe("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\nnonsense\n", "");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.n_homes, 0);
    assert_non_null(strstr(t.missing, "no such cgroup controllers"));
    cgroup_tree_close(&t);
    const struct cgroup_source absent = {"/nonexistent/a", "/nonexistent/b"};
    assert_int_equal(cgroup_tree_open(&t, &absent, "s1", NULL), 0);
    assert_non_null(strstr(t.missing, "/proc"));
    cgroup_tree_close(&t);
    cgroup_tree_close(&t);
}

static void test_scope_is_a_name(void **state)
{
    (void)state;
    describe_v2("/", "/");
    struct cgroup_tree t = {0};
    assert_int_equal(cgroup_tree_open(&t, &source, "", NULL), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(cgroup_tree_open(&t, &source, "a/b", NULL), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(cgroup_tree_open(&t, &source, "..", NULL), -ERROR_INVALID_ARGUMENT);
    cgroup_tree_close(&t);
}

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        const char *root, *point, *group, *path;
    } cases[] = {
        {"/", "/m", "/", "/m"},
        {"/", "/m", "/a/b", "/m/a/b"},
        {"/", "/m", "", "/m"},
        {"/docker/x", "/m", "/docker/x", "/m"},
        {"/docker/x", "/m", "/docker/x/y", "/m/y"},
        {"/docker/x", "/m", "/docker/xy", "/m"}, /* a namesake, not below */
        {"/docker/x", "/m", "/elsewhere", "/m"},
        {"/", "/m", "/../outside", "/m"}, /* never out of the mount */
        {"/..", "/m", "/../outside", "/m"},
        {"/", "/m\\040n\\134o", "/a", "/m n\\o/a"},
        {"/", "/m\\04", "/a", "/m\\04/a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct mount m = {.root = str_from(cases[i].root), .point = str_from(cases[i].point)};
        char path[PATH_MAX];
        assert_int_equal(group_path(&m, str_from(cases[i].group), path), 0);
        assert_string_equal(path, cases[i].path);
    }
    char deep[PATH_MAX + 10], path[PATH_MAX] = "before";
    memset(deep, 'a', sizeof deep);
    const struct mount m = {.root = STR("/"), .point = STR("/m")};
    assert_int_equal(group_path(&m, (struct str){deep, sizeof deep}, path), -ERROR_LIMIT);
    assert_string_equal(path, "before");
}

/* v1 holds memory, v2 the rest: each limit goes where its controller lives. */
static void test_hybrid(void **state)
{
    (void)state;
    fake_put(fake_top, "cgroup.controllers", "cpu pids\n");
    fake_group_make("/unified", "");
    char v1[PATH_MAX], mountinfo[PATH_MAX * 3];
    snprintf(v1, sizeof v1, "%s/v1", fake_top);
    mkdir(v1, 0755);
    mkdir(at("v1/mine"), 0755);
    fake_put(v1, "cgroup.subtree_control", "");
    fake_put(at("v1/mine"), "cgroup.subtree_control", "");
    snprintf(mountinfo, sizeof mountinfo,
             "30 22 0:26 / %s rw - cgroup2 cgroup2 rw\n"
             "31 22 0:27 / %s rw - cgroup cgroup rw,memory\n"
             "32 22 0:28 / /nonexistent rw - cgroup cgroup rw,xattr,name=systemd\n",
             fake_top, v1);
    describe(mountinfo, "4:memory:/mine\n1:name=systemd:/x\n0::/\n");
    struct cgroup_tree t;
    open_tree(&t);
    assert_int_equal(t.controllers, CGROUP_LIMITS);
    assert_int_equal(t.n_homes, 2);
    assert_int_equal(t.homes[0].version, 1);
    assert_int_equal(t.homes[0].controllers, 1u << CGROUP_MEMORY);
    assert_int_equal(t.homes[1].version, 2);
    assert_string_equal(t.homes[0].path, at("v1/mine"));
    struct cgroup_group g;
    assert_int_equal(cgroup_group_new(&t, "w", &g, NULL), 0);
    fake_put(at("v1/mine/bulkhead.s1/w"), "memory.limit_in_bytes", "");
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, NULL), 0);
    assert_string_equal(fake_get(at("v1/mine/bulkhead.s1/w"), "memory.limit_in_bytes"), "67108864");
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "pids.max"), "7");
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "cpu.max"), "150000 100000");
    assert_string_equal(fake_get(at("bulkhead.s1/w"), "cpu.weight"), "150");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* ---- a group ---- */

static struct cgroup_group open_group(struct cgroup_tree *t)
{
    struct cgroup_group g = {0};
    describe_v2("/", "/");
    open_tree(t);
    assert_int_equal(cgroup_group_new(t, "w-1", &g, NULL), 0);
    return g;
}

static void test_limits(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, NULL), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "memory.max"), "67108864");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "memory.swap.max"), "0");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "memory.oom.group"), "1");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cpu.max"), "150000 100000");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "pids.max"), "7");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "io.weight"), "150");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "io.bfq.weight"), "150");
    /* the kernel takes no quota below 1 ms; 4 billion cores do not overflow */
    struct isolate_limits other = limits;
    other.cpu_milli = 1;
    assert_int_equal(cgroup_group_limit(&t, &g, &other, true, NULL), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cpu.max"), "1000 100000");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cpu.weight"), "1");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "io.weight"), "10");
    other.cpu_milli = UINT32_MAX;
    other.memory_bytes = UINT64_MAX;
    assert_int_equal(cgroup_group_limit(&t, &g, &other, true, NULL), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cpu.max"), "429496729500 100000");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cpu.weight"), "10000");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "io.weight"), "1000");
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "memory.max"), "18446744073709551615");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* A kernel whose disks' schedulers know no weights has no files for them: nothing is missing. */
static void test_io_without_weights(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    unlink(at("bulkhead.s1/w-1/io.weight"));
    unlink(at("bulkhead.s1/w-1/io.bfq.weight"));
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, NULL), 0);
    assert_false(fake_has(at("bulkhead.s1/w-1"), "io.weight"));
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* v1 has all controllers; blkio is used where it knows weights, and else left alone. */
static void io_of_v1(bool weighs)
{
    char v1[PATH_MAX], mountinfo[PATH_MAX * 2], text[512];
    snprintf(v1, sizeof v1, "%s/blkio", fake_top);
    mkdir(v1, 0755);
    fake_put(v1, "cgroup.subtree_control", weighs ? "blkio" : "");
    snprintf(mountinfo, sizeof mountinfo, "31 22 0:27 / %s rw - cgroup cgroup rw,blkio\n", v1);
    describe(mountinfo, "4:blkio:/\n");
    struct cgroup_tree t;
    struct cgroup_group g;
    open_tree(&t);
    assert_int_equal(t.controllers, weighs ? 1u << CGROUP_IO : 0);
    assert_int_equal(t.n_homes, weighs);
    assert_int_equal(fake_has(at("blkio/bulkhead.s1"), "cgroup.procs"), weighs);
    assert_false(cgroup_describe(&source, text, sizeof text));
    assert_int_equal(strstr(text, "v1: io") != NULL, weighs);
    assert_int_equal(strstr(text, "disk io cannot be weighed") != NULL, !weighs);
    if (weighs) {
        fake_put(at("blkio/bulkhead.s1"), "cgroup.subtree_control", "blkio");
        assert_int_equal(cgroup_group_new(&t, "w", &g, NULL), 0);
        assert_int_equal(cgroup_group_limit(&t, &g, &limits, false, NULL), -ERROR_ISOLATION_UNAVAILABLE);
        assert_string_equal(fake_get(at("blkio/bulkhead.s1/w"), "blkio.bfq.weight"), "150");
        cgroup_group_remove(&t, &g);
    }
    cgroup_tree_close(&t);
}

static void test_io_of_v1(void **state)
{
    (void)state;
    io_of_v1(true);
    io_of_v1(false);
}

/* A kernel without swap has no swap file; a missing memory.max is a refusal. */
static void test_limit_files_missing(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    unlink(at("bulkhead.s1/w-1/memory.swap.max"));
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, NULL), 0);
    unlink(at("bulkhead.s1/w-1/memory.max"));
    struct error err = {0};
    assert_int_equal(cgroup_group_limit(&t, &g, &limits, true, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "The memory limit could not be set: No such file or directory.");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

static void test_usage(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    struct isolate_usage usage = {0};
    cgroup_group_usage(&t, &g, &usage);
    assert_int_equal(usage.memory_bytes, 4096);
    assert_int_equal(usage.memory_peak_bytes, 8192);
    assert_int_equal(usage.oom_kills, 1); /* not oom, not oom_group_kill */
    assert_int_equal(usage.cpu_ns, 1234000);
    assert_int_equal(usage.pids, 5);
    /* before Linux 5.19 there is no peak: the highest seen */
    unlink(at("bulkhead.s1/w-1/memory.peak"));
    fake_put(at("bulkhead.s1/w-1"), "memory.current", "16384\n");
    fake_put(at("bulkhead.s1/w-1"), "pids.current", "garbage\n");
    cgroup_group_usage(&t, &g, &usage);
    assert_int_equal(usage.memory_peak_bytes, 16384);
    assert_int_equal(usage.pids, 5); /* what cannot be read stays */
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

static void test_join(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    struct cgroup_join join;
    assert_int_equal(cgroup_group_join(&t, &g, &join, NULL), 0);
    assert_int_equal(join.n_fds, 0);
    char path[PATH_MAX];
    fake_path(join.into_fd, "", path);
    assert_string_equal(path, at("bulkhead.s1/w-1"));
    fake_path(join.into_procs_fd, "", path);
    assert_string_equal(path, at("bulkhead.s1/w-1/cgroup.procs"));
    cgroup_join_done(&join);
    unlink(at("bulkhead.s1/w-1/cgroup.procs"));
    assert_int_equal(cgroup_group_join(&t, &g, &join, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* ---- killing and removing ---- */

static void test_kill_by_file(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", "77\n78\n");
    cgroup_group_kill(&t, &g);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cgroup.kill"), "1");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* Before Linux 5.14: by pid; never init, never ourselves, never what 0 would mean. */
static void test_kill_by_pid(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    pid_t victim = bystander_start(), other = bystander_start();
    char procs[128];
    snprintf(procs, sizeof procs, "0\n1\n%d\n%d\nx\n99999999999\n", (int)getpid(), (int)victim);
    unlink(at("bulkhead.s1/w-1/cgroup.kill"));
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", procs);
    cgroup_group_kill(&t, &g);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "pids.max"), "0"); /* no new ones meanwhile */
    int status;
    assert_int_equal(waitpid(victim, &status, 0), victim);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(waitpid(other, &status, WNOHANG), 0);
    kill(other, SIGKILL);
    waitpid(other, &status, 0);
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", "");
    cgroup_group_remove(&t, &g);
    cgroup_tree_close(&t);
}

/* A group that is busy for a while is removed by a later call. */
static void test_lingering(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t), second;
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", "77\n");
    cgroup_group_remove(&t, &g);
    assert_string_equal(g.name, "");
    assert_true(fake_has(at("bulkhead.s1/w-1"), "cgroup.procs"));
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", "");
    assert_int_equal(cgroup_group_new(&t, "w-2", &second, NULL), 0);
    assert_false(fake_has(at("bulkhead.s1/w-1"), "cgroup.procs"));
    cgroup_group_remove(&t, &second);
    cgroup_tree_close(&t);
}

/* More than are remembered: the end finds them by looking. */
static void test_lingering_many(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t);
    cgroup_group_remove(&t, &g);
    for (size_t i = 0; i < 40; i++) {
        char name[16], path[64];
        snprintf(name, sizeof name, "w-%zu", i);
        snprintf(path, sizeof path, "bulkhead.s1/%s", name);
        assert_int_equal(cgroup_group_new(&t, name, &g, NULL), 0);
        fake_put(at(path), "cgroup.procs", "77\n");
        cgroup_group_remove(&t, &g);
    }
    cgroup_tree_close(&t); /* kills by cgroup.kill, then removes */
    assert_false(fake_has(at("bulkhead.s1"), "cgroup.procs"));
}

/* The next server of the scope finds groups, kills what is in them and removes them. */
static void test_sweep(void **state)
{
    (void)state;
    describe_v2("/", "/");
    fake_put(fake_top, "cgroup.subtree_control", "cpu memory pids\n");
    fake_group_make("/bulkhead.s1", "");
    fake_group_make("/bulkhead.s1/old-1", "77\n");
    fake_group_make("/bulkhead.s1/old-2", "");
    fake_group_make("/bulkhead.s2", "");
    fake_group_make("/bulkhead.s2/old-1", "78\n"); /* another server's */
    struct cgroup_tree t;
    open_tree(&t);
    assert_true(cgroup_tree_sweep(&t, 1000));
    assert_false(fake_has(at("bulkhead.s1/old-1"), "cgroup.procs"));
    assert_false(fake_has(at("bulkhead.s1/old-2"), "cgroup.procs"));
    cgroup_tree_close(&t);
    assert_string_equal(fake_get(at("bulkhead.s2/old-1"), "cgroup.procs"), "78\n");
}

static void test_new_over_leftover(void **state)
{
    (void)state;
    struct cgroup_tree t;
    struct cgroup_group g = open_group(&t), again;
    fake_put(at("bulkhead.s1/w-1"), "cgroup.procs", "77\n");
    assert_int_equal(cgroup_group_new(&t, "w-1", &again, NULL), 0);
    assert_string_equal(fake_get(at("bulkhead.s1/w-1"), "cgroup.procs"), "");
    cgroup_group_remove(&t, &again);
    cgroup_group_remove(&t, &g); /* gone already: no error */
    fake_mkdir_errno = EAGAIN;   /* cgroup.max.descendants reached */
    struct error err;
    assert_int_equal(cgroup_group_new(&t, "w-1", &g, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "control group could not be made"));
    cgroup_tree_close(&t);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_our_group_is_the_real_root),
        T(test_our_group_holds_processes),
        T(test_hands_down_what_is_missing),
        T(test_cannot_delegate),
        T(test_read_only),
        T(test_processors),
        T(test_part_of_the_controllers),
        T(test_no_cgroups_at_all),
        T(test_scope_is_a_name),
        T(test_paths),
        T(test_hybrid),
        T(test_limits),
        T(test_io_without_weights),
        T(test_io_of_v1),
        T(test_limit_files_missing),
        T(test_usage),
        T(test_join),
        T(test_kill_by_file),
        T(test_kill_by_pid),
        T(test_lingering),
        T(test_lingering_many),
        T(test_sweep),
        T(test_new_over_leftover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
