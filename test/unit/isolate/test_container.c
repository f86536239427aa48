/* Level `container` beyond what every back-end promises: the bundle, the root file system, and what runtimes do. */
#include "support.h"

#include "base/buf.h"
#include "isolate/isolate_bundle.h"
#include "isolate/isolate_container.h"
#include "isolate/isolate_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <yyjson.h>

/* ---- the bundle ---- */

static const char *const arguments[] = {"/bulkhead-worker", "--follow=4", "bulkhead-worker", NULL};
static const char *const environment[] = {NULL};

static struct bundle bundle_default(void)
{
    return (struct bundle){
        .root = "/run/x/roots/0",
        .root_digest = "00ff",
        .arguments = arguments,
        .environment = environment,
        .uid = 700001,
        .gid = 700002,
        .limits = {.memory_bytes = 256 * MIB, .cpu_milli = 1500, .pids = 20, .file_bytes = 4096, .fds = 64},
        .resources = BUNDLE_MEMORY | BUNDLE_SWAP | BUNDLE_CPU | BUNDLE_PIDS,
        .cgroups_path = "bulkhead.x/replica-1",
    };
}

static yyjson_doc *bundle_doc(const struct bundle *b)
{
    _buf_ struct buf json;
    struct error err = {0};
    buf_init(&json, BUNDLE_JSON_BYTES_MAX);
    if (bundle_write(b, &json, &err) != 0)
        fail_msg("bundle: %s", err.text);
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    assert_non_null(doc);
    return doc;
}

#define AT(doc, pointer) yyjson_doc_ptr_get(doc, pointer)

static void assert_text(yyjson_doc *doc, const char *pointer, const char *wanted)
{
    const char *text = yyjson_get_str(AT(doc, pointer));
    if (!text || strcmp(text, wanted) != 0)
        fail_msg("%s is %s, not %s", pointer, text ? text : "absent", wanted);
}

static void assert_number(yyjson_doc *doc, const char *pointer, uint64_t wanted)
{
    yyjson_val *value = AT(doc, pointer);
    if (!yyjson_is_uint(value) || yyjson_get_uint(value) != wanted)
        fail_msg("%s is not %llu", pointer, (unsigned long long)wanted);
}

static void test_bundle(void **state)
{
    (void)state;
    struct bundle b = bundle_default();
    yyjson_doc *doc = bundle_doc(&b);
    assert_text(doc, "/ociVersion", "1.0.2");
    assert_null(AT(doc, "/hooks"));
    assert_false(yyjson_get_bool(AT(doc, "/process/terminal")));
    assert_true(yyjson_is_bool(AT(doc, "/process/terminal")));
    assert_true(yyjson_get_bool(AT(doc, "/process/noNewPrivileges")));
    assert_true(yyjson_get_bool(yyjson_obj_get(AT(doc, "/root"), "readonly")));
    assert_string_equal(yyjson_get_str(yyjson_obj_get(AT(doc, "/root"), "path")), b.root);
    assert_text(doc, "/process/cwd", "/");
    assert_number(doc, "/process/user/uid", 700001);
    assert_number(doc, "/process/user/gid", 700002);
    assert_number(doc, "/process/user/umask", 077);
    assert_text(doc, "/process/args/0", "/bulkhead-worker");
    assert_text(doc, "/process/args/2", "bulkhead-worker");
    assert_null(AT(doc, "/process/args/3"));
    assert_null(AT(doc, "/process/env/0"));
    for (size_t i = 0; i < 5; i++) {
        static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted", "ambient"};
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/process/capabilities/%s", sets[i]);
        assert_true(yyjson_is_arr(AT(doc, pointer)));
        assert_int_equal(yyjson_arr_size(AT(doc, pointer)), 0);
    }
    yyjson_doc_free(doc);
}

/* Nobody of the host is mapped but the worker's own id and the powerless one that is the namespace's root. */
static void test_bundle_ids(void **state)
{
    (void)state;
    struct bundle b = bundle_default();
    yyjson_doc *doc = bundle_doc(&b);
    static const char *const maps[] = {"/linux/uidMappings", "/linux/gidMappings"};
    for (size_t i = 0; i < 2; i++) {
        yyjson_val *map = AT(doc, maps[i]), *one;
        size_t at, max;
        assert_int_equal(yyjson_arr_size(map), 2);
        yyjson_arr_foreach(map, at, max, one)
        {
            assert_int_equal(yyjson_get_uint(yyjson_obj_get(one, "size")), 1);
            uint64_t host = yyjson_get_uint(yyjson_obj_get(one, "hostID"));
            assert_true(host == BUNDLE_ROOT_UID || host == (i == 0 ? b.uid : b.gid));
        }
    }
    static const char *const kinds[] = {"pid", "network", "ipc", "uts", "mount", "user", "cgroup"};
    yyjson_val *namespaces = AT(doc, "/linux/namespaces"), *one;
    size_t at, max, n = 0;
    yyjson_arr_foreach(namespaces, at, max, one)
    {
        assert_null(yyjson_obj_get(one, "path")); /* joined from nowhere: all are new */
        for (size_t i = 0; i < 7; i++)
            n += strcmp(yyjson_get_str(yyjson_obj_get(one, "type")), kinds[i]) == 0;
    }
    assert_int_equal(n, 7);
    yyjson_doc_free(doc);
}

/* No mount brings anything of the host's in. */
static void test_bundle_mounts(void **state)
{
    (void)state;
    struct bundle b = bundle_default();
    yyjson_doc *doc = bundle_doc(&b);
    yyjson_val *mounts = AT(doc, "/mounts"), *one;
    size_t at, max;
    assert_int_equal(yyjson_arr_size(mounts), 3);
    yyjson_arr_foreach(mounts, at, max, one)
    {
        const char *type = yyjson_get_str(yyjson_obj_get(one, "type"));
        assert_true(strcmp(type, "proc") == 0 || strcmp(type, "tmpfs") == 0);
        assert_string_equal(yyjson_get_str(yyjson_obj_get(one, "source")), type);
        bool size = strcmp(type, "proc") == 0, nosuid = false, noexec = false;
        yyjson_val *option;
        size_t k, n_options;
        yyjson_arr_foreach(yyjson_obj_get(one, "options"), k, n_options, option)
        {
            const char *text = yyjson_get_str(option);
            assert_null(strstr(text, "bind"));
            size |= strncmp(text, "size=", 5) == 0;
            nosuid |= strcmp(text, "nosuid") == 0;
            noexec |= strcmp(text, "noexec") == 0;
        }
        assert_true(size && nosuid && noexec);
    }
    yyjson_doc_free(doc);
}

static void test_bundle_resources(void **state)
{
    (void)state;
    struct bundle b = bundle_default();
    yyjson_doc *doc = bundle_doc(&b);
    assert_number(doc, "/linux/resources/memory/limit", 256 * MIB);
    assert_number(doc, "/linux/resources/memory/swap", 256 * MIB);
    assert_number(doc, "/linux/resources/cpu/quota", 150000);
    assert_number(doc, "/linux/resources/cpu/period", 100000);
    assert_number(doc, "/linux/resources/pids/limit", 20);
    assert_false(yyjson_get_bool(AT(doc, "/linux/resources/devices/0/allow")));
    assert_text(doc, "/linux/resources/devices/0/access", "rwm");
    assert_text(doc, "/linux/cgroupsPath", "bulkhead.x/replica-1");
    yyjson_doc_free(doc);
    b.resources = BUNDLE_MEMORY; /* a host that accounts no swap, and has no other controller */
    doc = bundle_doc(&b);
    assert_number(doc, "/linux/resources/memory/limit", 256 * MIB);
    assert_null(AT(doc, "/linux/resources/memory/swap"));
    assert_null(AT(doc, "/linux/resources/cpu"));
    assert_null(AT(doc, "/linux/resources/pids"));
    yyjson_doc_free(doc);
}

/* Everything that is not named is refused, and what the worker's own tables refuse outright is not allowed here. */
static void test_bundle_profile(void **state)
{
    (void)state;
    struct bundle b = bundle_default();
    yyjson_doc *doc = bundle_doc(&b);
    assert_null(AT(doc, "/linux/seccomp")); /* only for the worker */
    yyjson_doc_free(doc);
    b.filter = true;
    doc = bundle_doc(&b);
    assert_text(doc, "/linux/seccomp/defaultAction", "SCMP_ACT_ERRNO");
    assert_number(doc, "/linux/seccomp/defaultErrnoRet", 1);
    static const char *const never[] = {"bpf",   "clone3",  "fork",        "io_uring_setup",   "kexec_load", "keyctl",
                                        "mount", "ptrace",  "setns",       "socket",           "unshare",    "vfork",
                                        "open",  "connect", "init_module", "process_vm_readv", "userfaultfd"};
    yyjson_val *rules = AT(doc, "/linux/seccomp/syscalls"), *rule, *name;
    size_t at, n_rules, k, n_names, n_clone = 0, n_run = 0;
    yyjson_arr_foreach(rules, at, n_rules, rule)
    {
        bool allows = strcmp(yyjson_get_str(yyjson_obj_get(rule, "action")), "SCMP_ACT_ALLOW") == 0;
        yyjson_arr_foreach(yyjson_obj_get(rule, "names"), k, n_names, name)
        {
            for (size_t i = 0; allows && i < sizeof never / sizeof *never; i++)
                assert_string_not_equal(yyjson_get_str(name), never[i]);
            n_clone += allows && strcmp(yyjson_get_str(name), "clone") == 0 &&
                       yyjson_arr_size(yyjson_obj_get(rule, "args")) == 1;
            n_run += allows && filter_table_find(&isolate_filter_run, yyjson_get_str(name)) != NULL;
        }
    }
    assert_int_equal(n_clone, 1); /* threads only */
    assert_true(n_run >= 25);     /* the worker's table is in it */
    yyjson_doc_free(doc);
}

static void test_bundle_hostile_texts(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "/bulkhead-worker", "\"],\"hooks\":{\"prestart\":[{\"path\":\"/x\"}]},\"y\":[\"", "\\\n\x01\x7f", NULL};
    struct bundle b = bundle_default();
    b.arguments = hostile;
    yyjson_doc *doc = bundle_doc(&b);
    assert_null(AT(doc, "/hooks"));
    assert_text(doc, "/process/args/1", hostile[1]);
    assert_text(doc, "/process/args/2", hostile[2]);
    yyjson_doc_free(doc);
    static const char *const invalid[] = {"/bulkhead-worker", "\xff\xfe", NULL};
    b.arguments = invalid;
    _buf_ struct buf json;
    buf_init(&json, BUNDLE_JSON_BYTES_MAX);
    assert_int_equal(bundle_write(&b, &json, NULL), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(json.size, 0);
}

/* ---- the root file system ---- */

static int root_make(struct rootfs *root, char folder[static 64], struct error *err)
{
    snprintf(folder, 64, "/tmp/bulkhead-rootfs-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char path[80];
    snprintf(path, sizeof path, "%s/root", folder);
    _close_ int program = open("/bin/cat", O_RDONLY | O_CLOEXEC);
    assert_true(program >= 0);
    const struct rootfs_parts parts = {.program_fd = program, .library_fd = -1};
    return rootfs_build(path, &parts, root, err);
}

static void test_root_is_pinned(void **state)
{
    (void)state;
    char folder[2][64], path[512];
    struct rootfs root = {0}, other = {0};
    struct error err = {0};
    if (root_make(&root, folder[0], &err) != 0 || root_make(&other, folder[1], &err) != 0)
        fail_msg("root: %s", err.text);
    assert_int_equal(strlen(root.digest), 64);
    assert_string_equal(root.digest, other.digest); /* of the content: not of when and where */
    assert_int_equal(rootfs_check(&root, NULL), 0);

    snprintf(path, sizeof path, "%s" ROOTFS_PROGRAM, root.path);
    chmod(path, 0755); /* each change below is seen, whoever makes it */
    assert_int_equal(rootfs_check(&root, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    snprintf(path, sizeof path, "%s/added", other.path);
    fd_close(&(int){open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)});
    assert_int_equal(rootfs_check(&other, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "changed"));
    unlink(path);
    assert_int_equal(rootfs_check(&other, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    rootfs_done(&root);
    rootfs_done(&other);
    assert_int_equal(rmdir(folder[0]), 0); /* all of it was removed */
    assert_int_equal(rmdir(folder[1]), 0);
}

/* What is written into a file of the root, even with its times put back. */
static void test_root_content_is_pinned(void **state)
{
    (void)state;
    char folder[64], path[512];
    struct rootfs root = {0};
    struct stat before;
    assert_int_equal(root_make(&root, folder, NULL), 0);
    snprintf(path, sizeof path, "%s" ROOTFS_PROGRAM, root.path);
    assert_int_equal(stat(path, &before), 0);
    _close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 100), 1);
    const struct timespec times[] = {before.st_atim, before.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    assert_int_equal(rootfs_check(&root, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    rootfs_done(&root);
    assert_int_equal(rmdir(folder), 0);
}

static void test_remove_follows_no_link(void **state)
{
    (void)state;
    char inside[64] = "/tmp/bulkhead-remove-XXXXXX", outside[64] = "/tmp/bulkhead-keep-XXXXXX", path[128], kept[128];
    assert_non_null(mkdtemp(inside));
    assert_non_null(mkdtemp(outside));
    snprintf(kept, sizeof kept, "%s/file", outside);
    fd_close(&(int){open(kept, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)});
    snprintf(path, sizeof path, "%s/link", inside);
    assert_int_equal(symlink(outside, path), 0);
    rootfs_remove(inside);
    assert_int_equal(access(inside, F_OK), -1);
    assert_int_equal(access(kept, F_OK), 0);
    unlink(kept);
    rmdir(outside);
}

/* ---- real containers ---- */

static int before(void **state)
{
    leftovers_before(state);
    return isolate_container.setup(test_scope(), NULL);
}

static int after(void **state)
{
    char folder[128];
    snprintf(folder, sizeof folder, "%s", container_host.folder);
    isolate_container.teardown();
    assert_int_equal(access(folder, F_OK), -1);
    return leftovers_after(state);
}

/* What a killed server leaves is gone after the next start of any; what is in use, or holds something, stays. */
static void test_empty_folders_are_swept(void **state)
{
    (void)state;
    char dead[80], used[80], full[80], inside[96], unmarked[80];
    snprintf(dead, sizeof dead, "/run/bulkhead.%s-dead-oci", test_scope());
    snprintf(used, sizeof used, "/run/bulkhead.%s-used-oci", test_scope());
    snprintf(full, sizeof full, "/run/bulkhead.%s-full-oci", test_scope());
    snprintf(unmarked, sizeof unmarked, "/run/bulkhead.%s-unmarked-oci", test_scope());
    const char *const folders[] = {dead, used, full, unmarked};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(mkdir(folders[i], 0711), 0);
        assert_int_equal(chmod(folders[i], i == 3 ? 0711 : 01711), 0);
    }
    snprintf(inside, sizeof inside, "%s/in", full);
    assert_int_equal(mkdir(inside, 0700), 0);
    _close_ int fd = open(used, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    isolate_container.teardown();
    assert_int_equal(isolate_container.setup(test_scope(), NULL), 0);
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(rmdir(used), 0);
    assert_int_equal(rmdir(inside), 0);
    assert_int_equal(rmdir(full), 0);
    assert_int_equal(rmdir(unmarked), 0);
}

static void test_memory_limit(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("memory", "268435456", NULL);
    s.limits.memory_bytes = 128 * MIB;
    struct child c;
    child_start(&c, &isolate_container, &s);
    assert_true(wait_readable(c.pidfd));
    struct isolate_usage usage = {0};
    assert_int_equal(isolate_container.usage(c.instance, &usage, NULL), 0);
    assert_true(usage.oom_kills >= 1);
    assert_true(usage.memory_peak_bytes <= 128 * MIB);
    int status = child_end(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_pids_limit(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("forks", "100", NULL);
    struct child c;
    child_start(&c, &isolate_container, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_number(report, "forks"), (long)s.limits.pids - 1);
    assert_int_equal(report_number(report, "forks-errno"), EAGAIN);
    child_kill(&c); /* the deaf ones too: leftovers_after looks */
}

static void test_explain_names_the_digest(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("hang", NULL);
    struct child c;
    child_start(&c, &isolate_container, &s);
    struct isolate_report report;
    isolate_container.explain(c.instance, &report);
    assert_non_null(strstr(report.text, "container (runc"));
    assert_non_null(strstr(report.text, container_host.roots[0].root.digest[0] ? "sha256:" : "?"));
    char digest[17];
    snprintf(digest, sizeof digest, "%s", container_host.roots[0].root.digest);
    assert_non_null(strstr(report.text, digest));
    child_kill(&c);
}

/* The profile holds also for a program that installs no filter of its own. */
static void test_filter(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("forks", "3", NULL);
    s.filter = true;
    struct child c;
    child_start(&c, &isolate_container, &s);
    const char *report = child_report(&c);
    assert_int_equal(report_number(report, "forks"), 0);
    assert_int_equal(report_number(report, "forks-errno"), EPERM);
    child_kill(&c);
}

/* A root that somebody has changed starts nothing any more. */
static void test_a_changed_root_is_refused(void **state)
{
    (void)state;
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    child_start(&c, &isolate_container, &s);
    assert_int_equal(child_end(&c), 0);
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s" ROOTFS_PROGRAM, container_host.roots[0].root.path);
    assert_int_equal(chmod(path, 0777), 0);
    struct error err = {0};
    assert_int_equal(child_spawn(&c, &isolate_container, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "changed"));
}

/* ---- runtimes that are none, slow or wrong ---- */

static char fake_path[64];

static void fake_runtime(const char *script)
{
    snprintf(fake_path, sizeof fake_path, "/tmp/bulkhead-runtime-XXXXXX");
    int fd = mkostemp(fake_path, 0); /* executed below: no O_CLOEXEC trouble, closed here */
    assert_true(fd >= 0);
    assert_int_equal(dprintf(fd, "#!/bin/sh\n%s\n", script) > 0, 1);
    assert_int_equal(fchmod(fd, 0755), 0);
    close(fd);
    for (int kind = 0; kind < ISOLATE_RUNTIME_COUNT; kind++)
        container_host.runtimes[kind].path[0] = '\0';
    snprintf(container_host.runtimes[ISOLATE_RUNTIME_RUNSC].path, PATH_MAX, "%s", fake_path);
    isolate_container.want(ISOLATE_RUNTIME_RUNSC);
}

/* Spawning and the probe fail with these words, and leave nothing. */
static void fake_refuses(const char *script, const char *words)
{
    fake_runtime(script);
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, &isolate_container, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" lacks \"%s\"", err.text, words);
    struct isolate_report report;
    isolate_container.probe(&report);
    assert_false(report.available);
    if (!strstr(report.text, "runsc does not work") || !strstr(report.text, words))
        fail_msg("\"%s\" lacks \"%s\"", report.text, words);
    unlink(fake_path);
}

#define LOG_OF_ARGUMENTS \
    "while [ $# -gt 0 ]; do [ \"$1\" = --log ] && log=$2; [ \"$1\" = --pid-file ] && pid=$2; shift; done; "

static void test_runtime_that_fails(void **state)
{
    (void)state;
    fake_refuses("exit 3", "ended with status 3");
}

static void test_runtime_that_complains(void **state)
{
    (void)state;
    fake_refuses(
        LOG_OF_ARGUMENTS
        "printf '{\"level\":\"info\",\"msg\":\"no\"}\\n{\"level\":\"error\",\"msg\":\"bad \\\\u001b[31mwall\"}\\n' >$log; exit 1",
        "refused: bad  [31mwall");
}

static void test_runtime_that_lies(void **state)
{
    (void)state;
    fake_refuses(LOG_OF_ARGUMENTS "[ -n \"$pid\" ] && echo 1 >$pid; exit 0", "did not tell the container's process");
}

/* The pid of a stranger is not taken for the container's, and the stranger lives on. */
static void test_runtime_that_names_a_stranger(void **state)
{
    (void)state;
    char script[512];
    fake_refuses(
        (snprintf(script, sizeof script, LOG_OF_ARGUMENTS "[ -n \"$pid\" ] && echo %d >$pid; exit 0", (int)getppid()),
         script),
        "did not become the server's");
    assert_int_equal(kill(getppid(), 0), 0);
}

/* A child of ours that is outside of the group is no container either, and it is ended. */
static void test_runtime_that_forgets_the_groups(void **state)
{
    (void)state;
    fake_refuses(LOG_OF_ARGUMENTS "[ -n \"$pid\" ] || exit 0; sleep 60 & echo $! >$pid; exit 0",
                 "did not put the container into its control groups");
}

/* What it leaves running when it fails is ended and reaped: leftovers_after looks. */
static void test_runtime_that_leaves_processes(void **state)
{
    (void)state;
    fake_refuses(LOG_OF_ARGUMENTS "[ -n \"$pid\" ] || exit 0; sleep 60 & sleep 61 & exit 1", "ended with status 1");
}

/* ---- the runtime that forgets one ---- */

/* A container that has ended and was reaped; from now on `script` stands for its runtime. */
static void ended(struct child *c, const char *script)
{
    struct isolate_spawn s = child_spawn_default("exit", "7", NULL);
    int status = 0;
    child_start(c, &isolate_container, &s);
    assert_true(wait_readable(c->pidfd));
    assert_int_equal(isolate_container.reap(c->instance, &status), 0);
    assert_int_equal(WEXITSTATUS(status), 7);
    fake_runtime(script);
    char *path = container_host.runtimes[((struct container *)c->instance)->runtime->kind].path;
    snprintf(path, PATH_MAX, "%s", fake_path);
}

static void test_it_is_forgotten_beside_other_work(void **state)
{
    (void)state;
    char folder[] = "/tmp/bulkhead-forget-XXXXXX", gate[64], script[96];
    assert_non_null(mkdtemp(folder));
    snprintf(gate, sizeof gate, "%s/gate", folder);
    snprintf(script, sizeof script, "read line <%s; exit 1", gate);
    assert_int_equal(mkfifo(gate, 0600), 0);
    struct child c;
    ended(&c, script);
    for (int i = 0; i < 3; i++)
        assert_int_equal(isolate_container.tidy(c.instance), -ERROR_AGAIN);
    fd_close(&(int){open(gate, O_WRONLY | O_CLOEXEC)}); /* waits for its reader, whose read then ends */
    while (isolate_container.tidy(c.instance) == -ERROR_AGAIN)
        poll(NULL, 0, 1);
    assert_int_equal(isolate_container.tidy(c.instance), 0);
    assert_int_equal(WEXITSTATUS(child_end(&c)), 7);
    unlink(fake_path);
    unlink(gate);
    rmdir(folder);
}

/* Discard waits for it, but not for ever; what it leaves is removed, it itself too: leftovers_after looks. */
static void test_a_runtime_that_does_not_forget(void **state)
{
    (void)state;
    struct child c;
    ended(&c, "exec sleep 1000");
    assert_int_equal(isolate_container.tidy(c.instance), -ERROR_AGAIN);
    struct container *container = (struct container *)c.instance;
    char bundle[CONTAINER_FOLDER_MAX + 128], state_path[CONTAINER_FOLDER_MAX + 128];
    snprintf(bundle, sizeof bundle, "%s/bundles/%s", container_host.folder, container->i.name);
    snprintf(state_path, sizeof state_path, "%s/state/%s/%s", container_host.folder,
             isolate_runtime_names[container->runtime->kind], container->i.name);
    assert_int_equal(access(bundle, F_OK), 0);
    container->forget_by_ns = 1;
    assert_int_equal(WEXITSTATUS(child_end(&c)), 7);
    assert_int_equal(access(bundle, F_OK), -1);
    assert_int_equal(access(state_path, F_OK), -1);
    unlink(fake_path);
}

static void test_no_runtime(void **state)
{
    (void)state;
    for (int kind = 0; kind < ISOLATE_RUNTIME_COUNT; kind++)
        container_host.runtimes[kind].path[0] = '\0';
    struct isolate_report report;
    isolate_container.probe(&report);
    assert_false(report.available);
    assert_non_null(strstr(report.text, "install runc"));
    for (int kind = ISOLATE_RUNTIME_RUNC; kind < ISOLATE_RUNTIME_COUNT; kind++)
        assert_int_equal(report.runtimes[kind].state, ISOLATE_RUNTIME_BROKEN);
    assert_string_equal(report.runtimes[ISOLATE_RUNTIME_KATA].text, "this host has no program kata-runtime");
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, &isolate_container, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "install runc"));
}

/* What the probe found is what spawn goes by. */
static void test_probed_without_success(void **state)
{
    (void)state;
    const struct isolate_report none = {0};
    isolate_container.probed(&none); /* every runtime is untested */
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    struct child c;
    struct error err = {0};
    assert_int_equal(child_spawn(&c, &isolate_container, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_non_null(strstr(err.text, "none of this host's OCI runtimes works"));
}

/* Debian 12's crun wants pure cgroup v2 or pure v1; where it does not work, the report says so in its words. */
static void test_probe_tells_every_runtime(void **state)
{
    (void)state;
    struct isolate_report report;
    isolate_container.probe(&report);
    print_message("%s\n", report.text);
    for (int kind = ISOLATE_RUNTIME_RUNC; kind < ISOLATE_RUNTIME_COUNT; kind++) {
        const struct isolate_runtime_report *one = &report.runtimes[kind];
        assert_true(one->text[0] != '\0');
        if (!container_host.runtimes[kind].path[0]) {
            assert_int_equal(one->state, ISOLATE_RUNTIME_BROKEN);
            assert_non_null(strstr(one->text, "this host has no program"));
            continue;
        }
        char words[320];
        snprintf(words, sizeof words, "%s %s%.100s", isolate_runtime_names[kind],
                 one->state == ISOLATE_RUNTIME_BROKEN ? "does not work: " : "", one->text);
        assert_non_null(strstr(report.text, words));
    }
    const struct isolate_runtime_report *crun = &report.runtimes[ISOLATE_RUNTIME_CRUN];
    bool hybrid = access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0;
    if (container_host.runtimes[ISOLATE_RUNTIME_CRUN].path[0] && hybrid && crun->state == ISOLATE_RUNTIME_BROKEN)
        assert_non_null(strstr(crun->text, "hybrid"));
}

/* Who names a runtime gets that one or a refusal, never another. */
static void test_the_named_runtime_or_none(void **state)
{
    (void)state;
    struct isolate_report report;
    isolate_container.probe(&report);
    isolate_container.probed(&report);
    struct isolate_spawn s = child_spawn_default("exit", "0", NULL);
    s.runtime = ISOLATE_RUNTIME_RUNC;
    struct child c;
    child_start(&c, &isolate_container, &s);
    assert_int_equal(child_end(&c), 0);
    for (int kind = ISOLATE_RUNTIME_RUNC; kind < ISOLATE_RUNTIME_COUNT; kind++) {
        if (report.runtimes[kind].state == ISOLATE_RUNTIME_WORKS)
            continue;
        struct error err = {0};
        s.runtime = (enum isolate_runtime)kind;
        assert_int_equal(child_spawn(&c, &isolate_container, &s, &err), -ERROR_ISOLATION_UNAVAILABLE);
        assert_non_null(strstr(err.text, isolate_runtime_names[kind]));
        assert_non_null(strstr(err.text, report.runtimes[kind].text));
    }
}

/* ---- the command lines of runtimes that differ ---- */

/* A program that writes down how it was called, and runs what it is told to as an OCI runtime would: in the background,
 * its id in the file that it was named. */
static void arguments_of(enum isolate_runtime kind, enum runtime_verb verb, char text[static 1024])
{
    char folder[] = "/tmp/bulkhead-calls-XXXXXX", calls[64], log[64], script[256];
    assert_non_null(mkdtemp(folder));
    snprintf(calls, sizeof calls, "%s/calls", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    snprintf(script, sizeof script, "echo \"$@\" >%s; ls /proc/$$/fd | tr '\\n' ' ' >>%s", calls, calls);
    fake_runtime(script);
    struct runtime runtime = {.kind = kind};
    snprintf(runtime.path, sizeof runtime.path, "%s", fake_path);
    _close_ int one = open("/dev/null", O_RDONLY | O_CLOEXEC), two = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int fds[] = {one, two};
    const struct runtime_call call = {.runtime = &runtime,
                                      .verb = verb,
                                      .name = "replica-1",
                                      .state = "/s",
                                      .log = log,
                                      .bundle = "/b",
                                      .pid_path = "/p",
                                      .fds = verb == RUNTIME_RUN ? fds : NULL,
                                      .n_fds = verb == RUNTIME_RUN ? 2 : 0,
                                      .stderr_fd = -1};
    struct error err = {0};
    if (runtime_run(&call, &err) != 0)
        fail_msg("%s", err.text);
    _close_ int fd = open(calls, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, text, 1023);
    assert_true(size > 0);
    text[size] = '\0';
    char *end = strstr(text, log); /* its own folder, not to be compared */
    assert_non_null(end);
    memmove(end, end + strlen(log) - 3, strlen(end + strlen(log) - 3) + 1);
    rootfs_remove(folder);
    unlink(fake_path);
}

static void test_command_lines(void **state)
{
    (void)state;
    static const struct {
        enum isolate_runtime kind;
        const char *run, *remove;
    } rows[] = {
        {ISOLATE_RUNTIME_RUNC,
         "--root /s --log log --log-format json run --detach --bundle /b --pid-file /p --preserve-fds 2 replica-1\n",
         "--root /s --log log --log-format json delete --force replica-1\n"},
        {ISOLATE_RUNTIME_CRUN,
         "--root /s --log log --log-format json run --detach --bundle /b --pid-file /p --preserve-fds 2 replica-1\n",
         "--root /s --log log --log-format json delete --force replica-1\n"},
        {ISOLATE_RUNTIME_RUNSC,
         "--root /s --log log --log-format json --network=none run --detach --bundle /b --pid-file /p --pass-fd 3:3 "
         "--pass-fd 4:4 replica-1\n",
         "--root /s --log log --log-format json --network=none delete --force replica-1\n"},
        {ISOLATE_RUNTIME_KATA,
         "--root /s --log log --log-format json run --detach --bundle /b --pid-file /p replica-1\n",
         "--root /s --log log --log-format json delete --force replica-1\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[1024];
        arguments_of(rows[i].kind, RUNTIME_RUN, text);
        assert_memory_equal(text, rows[i].run, strlen(rows[i].run));
        assert_non_null(strstr(text + strlen(rows[i].run), " 3 4 ")); /* what it is to hand over, it has */
        arguments_of(rows[i].kind, RUNTIME_DELETE, text);
        assert_memory_equal(text, rows[i].remove, strlen(rows[i].remove));
    }
}

/* Those whose test takes long are tried only when somebody asks: until then nothing of theirs is started. */
static void test_slow_runtimes_wait_to_be_asked_for(void **state)
{
    (void)state;
    fake_runtime("exit 3");
    container_host.wanted[ISOLATE_RUNTIME_RUNSC] = false;
    struct isolate_report report;
    isolate_container.probe(&report);
    assert_int_equal(report.runtimes[ISOLATE_RUNTIME_RUNSC].state, ISOLATE_RUNTIME_UNTESTED);
    isolate_container.want(ISOLATE_RUNTIME_RUNSC);
    isolate_container.probe(&report);
    assert_int_equal(report.runtimes[ISOLATE_RUNTIME_RUNSC].state, ISOLATE_RUNTIME_BROKEN);
    assert_non_null(strstr(report.runtimes[ISOLATE_RUNTIME_RUNSC].text, "ended with status 3"));
    unlink(fake_path);
}

#define T(f) cmocka_unit_test_setup_teardown(f, before, after)

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(test_bundle),
        cmocka_unit_test(test_bundle_ids),
        cmocka_unit_test(test_bundle_mounts),
        cmocka_unit_test(test_bundle_resources),
        cmocka_unit_test(test_bundle_hostile_texts),
        cmocka_unit_test(test_bundle_profile),
        cmocka_unit_test(test_remove_follows_no_link),
        cmocka_unit_test(test_root_is_pinned),
        cmocka_unit_test(test_root_content_is_pinned),
    };
    const struct CMUnitTest real[] = {
        T(test_probe_tells_every_runtime),
        T(test_filter),
        T(test_memory_limit),
        T(test_pids_limit),
        T(test_explain_names_the_digest),
        T(test_a_changed_root_is_refused),
        T(test_probed_without_success),
        T(test_the_named_runtime_or_none),
    };
    const struct CMUnitTest fakes[] = {
        T(test_runtime_that_fails),
        T(test_runtime_that_complains),
        T(test_runtime_that_lies),
        T(test_runtime_that_names_a_stranger),
        T(test_runtime_that_forgets_the_groups),
        T(test_runtime_that_leaves_processes),
        T(test_it_is_forgotten_beside_other_work),
        T(test_a_runtime_that_does_not_forget),
        T(test_no_runtime),
        T(test_command_lines),
        T(test_empty_folders_are_swept),
        T(test_slow_runtimes_wait_to_be_asked_for),
    };
    int failed = cmocka_run_group_tests_name("pure", pure, NULL, NULL);
    if (!have_root())
        return failed;
    if (container_runtime_here())
        failed += cmocka_run_group_tests_name("runc", real, NULL, NULL);
    return failed + cmocka_run_group_tests_name("fakes", fakes, NULL, NULL);
}
