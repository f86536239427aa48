/* What each OCI runtime of this host can do: it runs a program that only waits, and the kernel is asked what walls
 * that process really has. */
#include "isolate/isolate_container.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define PROBE_UID    65533u /* owns nothing and runs for some ms; not the namespace's root */
#define WAIT_MS      5000
#define STATUS_BYTES 8192u
#define REASON_BYTES 150

/* ---- the process, from outside ---- */

/* The text behind "Key:\t" in a status file; "" when it is not there. */
static void status_value(const char *status, const char *key, char value[static 64])
{
    size_t size = strlen(key);
    value[0] = '\0';
    for (const char *line = status; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, key, size) != 0 || line[size] != ':')
            continue;
        const char *start = line + size + 1 + strspn(line + size + 1, "\t ");
        if (str_copy((struct str){start, strcspn(start, "\n")}, value, 64) != 0)
            value[0] = '\0';
        return;
    }
}

static bool status_is(const char *status, const char *key, const char *wanted)
{
    char value[64];
    status_value(status, key, value);
    return strcmp(value, wanted) == 0;
}

static bool file_read(pid_t pid, const char *file, char *text, size_t capacity)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    for (ssize_t n = 1; fd >= 0 && n > 0 && size<capacity - 1; size += n> 0 ? (size_t)n : 0)
        n = read(fd, text + size, capacity - 1 - size);
    text[size] = '\0';
    return size > 0;
}

/* True when the process is in another namespace of this kind than we are. */
static bool namespace_own(pid_t pid, const char *kind)
{
    char path[64];
    struct stat theirs, ours;
    (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, kind); /* fits */
    if (stat(path, &theirs) != 0)
        return false;
    (void)snprintf(path, sizeof path, "/proc/self/ns/%s", kind); /* fits */
    return stat(path, &ours) == 0 && theirs.st_ino != ours.st_ino;
}

/* Lines "inside outside count": true when host root is in none. */
static bool root_unmapped(const char *map)
{
    for (const char *line = map; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        uint64_t numbers[3] = {0};
        const char *at = line;
        for (size_t i = 0; i < 3; i++) {
            at += strspn(at, " ");
            size_t size = strcspn(at, " \n");
            if (str_to_u64((struct str){at, size}, &numbers[i]) != 0)
                return false;
            at += size;
        }
        if (numbers[1] == 0)
            return false;
    }
    return true;
}

/* A runtime installs it last, perhaps a moment after it has said that the container runs. */
static bool filter_awaited(pid_t pid)
{
    char status[STATUS_BYTES];
    for (int waited = 0; waited < WAIT_MS && file_read(pid, "status", status, sizeof status); waited++) {
        if (status_is(status, "Seccomp", "2"))
            return true;
        (void)poll(NULL, 0, 1); /* nobody tells */
    }
    return false;
}

/* What the program itself must have; of a sandbox it is the sandbox's kernel that sees to it. */
static const char *rights_wrong(const char *status)
{
    static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    char ids[64];
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!status_is(status, sets[i], "0000000000000000"))
            return "it left capabilities to the process";
    }
    (void)snprintf(ids, sizeof ids, "%u\t%u\t%u\t%u", PROBE_UID, PROBE_UID, PROBE_UID, PROBE_UID); /* fits */
    if (!status_is(status, "Uid", ids) || !status_is(status, "Gid", ids))
        return "it did not run the process as its own user and group";
    if (!status_is(status, "NoNewPrivs", "1"))
        return "it lets the process gain new privileges";
    return NULL;
}

static const char *walls_missing(pid_t pid, bool sandbox)
{
    static const struct {
        const char *kind, *shared;
        bool sandbox; /* also of a kernel of its own, which lets its program see nothing of the other two */
    } kinds[] = {
        {"user", "it shares the host's users", true},
        {"mnt", "it shares the host's mounts", true},
        {"pid", "it shares the host's processes", true},
        {"net", "it shares the host's network", true},
        {"ipc", "it shares the host's queues", true},
        {"uts", "it shares the host's name", false},
        {"cgroup", "it shares the host's control groups", false},
    };
    char status[STATUS_BYTES], map[512];
    if (!file_read(pid, "status", status, sizeof status))
        return "its process cannot be looked at";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if ((!sandbox || kinds[i].sandbox) && !namespace_own(pid, kinds[i].kind))
            return kinds[i].shared;
    }
    const char *wrong = sandbox ? NULL : rights_wrong(status);
    if (wrong)
        return wrong;
    if (!filter_awaited(pid))
        return "it did not install the system call filter";
    if (!file_read(pid, "uid_map", map, sizeof map) || !root_unmapped(map))
        return "it mapped the host's root";
    return NULL;
}

/* ---- one runtime ---- */

int container_try(const struct runtime *runtime, const struct rootfs *root, struct error *err)
{
    static const char *const arguments[] = {"cat", "/proc/self/fd/3", NULL}; /* ends when the pipe does */
    int ends[2], status = 0;
    char name[32];
    struct container *c = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(err, ERROR_INTERNAL, "The test's pipe could not be made: %m.");
    _close_ int in = ends[0], out = ends[1];
    if (fchmod(in, 0444) != 0) /* it is opened by name */
        return error_set(err, ERROR_INTERNAL, "The test's pipe could not be made: %m.");
    (void)snprintf(name, sizeof name, "probe-%s", isolate_runtime_names[runtime->kind]); /* fits */
    const struct isolate_spawn spawn = {
        .name = name,
        .program_fd = -1,
        .argv = arguments,
        .fds = &in,
        .n_fds = 1,
        .stderr_fd = -1,
        .uid = PROBE_UID,
        .gid = PROBE_UID,
        .limits = {.memory_bytes = 64 * MIB, .cpu_milli = 1000, .pids = 16, .file_bytes = MIB, .fds = 64},
        .filter = true,
        .limits_required = true,
    };
    const struct container_order order = {.spawn = &spawn, .runtime = runtime, .root = root};
    int r = container_start(&order, &c, err);
    if (r != 0)
        return r;
    const char *missing = walls_missing(c->i.pid, runtime_sandbox(runtime->kind));
    fd_close(&in);
    fd_close(&out);
    struct pollfd end = {.fd = c->i.pidfd, .events = POLLIN};
    bool ended = poll(&end, 1, WAIT_MS) == 1;
    if (!ended)
        isolate_instance_kill(&c->i);
    c->i.reaped = isolate_wait(c->i.pidfd, true, &status) == 0;
    container_end(c);
    if (!missing && (!ended || status != 0))
        missing = "the program in it did not end as it should";
    return missing ? error_set(err, ERROR_ISOLATION_UNAVAILABLE, "%s", missing) : 0;
}

/* ---- all of them ---- */

/* A program that every host has and that can wait for a descriptor. */
static int test_root_build(struct rootfs *ret_root, struct error *err)
{
    static const char *const candidates[] = {"/bin/cat", "/usr/bin/cat"};
    _close_ int program = -1;
    for (size_t i = 0; i < 2 && program < 0; i++)
        program = open(candidates[i], O_RDONLY | O_CLOEXEC);
    if (program < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "this host has no program cat to test with");
    char path[CONTAINER_FOLDER_MAX + 64];
    (void)snprintf(path, sizeof path, "%.127s/roots/probe-%d", container_host.folder, (int)getpid()); /* fits */
    const struct rootfs_parts parts = {.program_fd = program, .library_fd = -1};
    return rootfs_build(path, &parts, ret_root, err);
}

static void report_one(struct isolate_runtime_report *report, enum isolate_runtime_state state, const char *why)
{
    report->state = state;
    (void)snprintf(report->text, sizeof report->text, "%.*s", (int)sizeof report->text - 1, why); /* may be cut */
}

static void runtime_try(enum isolate_runtime kind, const struct rootfs *root, struct isolate_report *report,
                        struct buf *text)
{
    const struct runtime *runtime = &container_host.runtimes[kind];
    struct isolate_runtime_report *one = &report->runtimes[kind];
    struct error err = {0};
    if (!runtime->path[0]) {
        char why[64];
        (void)snprintf(why, sizeof why, "this host has no program %s", runtime_program(kind)); /* fits */
        report_one(one, ISOLATE_RUNTIME_BROKEN, why);
        return;
    }
    if (!container_host.wanted[kind])
        report_one(one, ISOLATE_RUNTIME_UNTESTED, "not tested yet: that begins when a model first asks for it");
    else if (container_try(runtime, root, &err) != 0)
        report_one(one, ISOLATE_RUNTIME_BROKEN, err.text);
    else
        report_one(one, ISOLATE_RUNTIME_WORKS, "works");
    report->available |= one->state == ISOLATE_RUNTIME_WORKS;
    buf_format(text, "%s%s %s%.*s", text->size > 0 ? "; " : "", isolate_runtime_names[kind],
               one->state == ISOLATE_RUNTIME_BROKEN ? "does not work: " : "", REASON_BYTES, one->text);
}

static void runtimes_try(struct isolate_report *report, struct buf *text)
{
    struct rootfs root = {0};
    struct error err = {0};
    bool found = false;
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++)
        found |= container_host.runtimes[kind].path[0] != '\0';
    if (!found)
        buf_append_text(text, "no OCI runtime was found: install runc (Debian: apt-get install runc)");
    int r = found ? test_root_build(&root, &err) : 0;
    if (r != 0)
        buf_append_text(text, err.text);
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++) {
        if (r == 0)
            runtime_try((enum isolate_runtime)kind, &root, report, text);
        else
            report_one(&report->runtimes[kind], ISOLATE_RUNTIME_BROKEN, err.text);
    }
    rootfs_done(&root);
}

void container_probe(struct isolate_report *ret_report)
{
    const struct container_host *h = &container_host;
    _buf_ struct buf text;
    buf_init(&text, 4096);
    *ret_report = (struct isolate_report){0};
    if (!h->open || !h->folder[0])
        buf_append_text(&text, h->open ? h->missing : "setup was not called");
    else if (prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) != 0) /* in the process that probes: not inherited */
        buf_append_text(&text, "the server cannot adopt the runtime's processes");
    else
        runtimes_try(ret_report, &text);
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++)
        if (!ret_report->runtimes[kind].text[0])
            report_one(&ret_report->runtimes[kind], ISOLATE_RUNTIME_BROKEN, buf_terminate(&text));
    ret_report->limits = ret_report->available; /* a container without its limits is not started */
    (void)snprintf(ret_report->text, sizeof ret_report->text, "container: %s", buf_terminate(&text)); /* may be cut */
}
