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

static const char *walls_missing(pid_t pid)
{
    static const struct {
        const char *kind, *shared;
    } kinds[] = {
        {"user", "it shares the host's users"},
        {"mnt", "it shares the host's mounts"},
        {"pid", "it shares the host's processes"},
        {"net", "it shares the host's network"},
        {"ipc", "it shares the host's queues"},
        {"uts", "it shares the host's name"},
        {"cgroup", "it shares the host's control groups"},
    };
    static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    char status[STATUS_BYTES], map[512], ids[64];
    if (!file_read(pid, "status", status, sizeof status))
        return "its process cannot be looked at";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!namespace_own(pid, kinds[i].kind))
            return kinds[i].shared;
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (!status_is(status, sets[i], "0000000000000000"))
            return "it left capabilities to the process";
    }
    (void)snprintf(ids, sizeof ids, "%u\t%u\t%u\t%u", PROBE_UID, PROBE_UID, PROBE_UID, PROBE_UID); /* fits */
    if (!status_is(status, "Uid", ids) || !status_is(status, "Gid", ids))
        return "it did not run the process as its own user and group";
    if (!status_is(status, "NoNewPrivs", "1"))
        return "it lets the process gain new privileges";
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
    (void)snprintf(name, sizeof name, "probe-%s", runtime_names[runtime->kind]); /* fits */
    const struct isolate_spawn spawn = {
        .name = name,
        .program_fd = -1,
        .argv = arguments,
        .fds = &in,
        .n_fds = 1,
        .stderr_fd = -1,
        .uid = PROBE_UID,
        .gid = PROBE_UID,
        .limits = {.memory_bytes = 64 * MIB, .cpu_milli = 1000, .pids = 16, .file_bytes = 0, .fds = 64},
        .filter = true,
        .limits_required = true,
    };
    const struct container_order order = {.spawn = &spawn, .runtime = runtime, .root = root};
    int r = container_start(&order, &c, err);
    if (r != 0)
        return r;
    const char *missing = walls_missing(c->i.pid);
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
    return rootfs_build(path, program, -1, ret_root, err);
}

/* What to do about runtimes that are not there. */
static void advice_append(struct buf *text, uint64_t found)
{
    if (found == 0)
        buf_append_text(text, "no OCI runtime was found: install runc (Debian: apt-get install runc)");
}

static void runtimes_try(struct isolate_report *report, struct buf *text)
{
    struct rootfs root = {0};
    struct error err = {0};
    uint64_t found = 0;
    for (int kind = 0; kind < RUNTIME_COUNT; kind++)
        found |= container_host.runtimes[kind].path[0] ? UINT64_C(1) << kind : 0;
    if (found == 0 || test_root_build(&root, &err) != 0) {
        buf_append_text(text, err.text);
        advice_append(text, found);
        return;
    }
    for (int kind = 0; kind < RUNTIME_COUNT; kind++) {
        const struct runtime *runtime = &container_host.runtimes[kind];
        if (!runtime->path[0])
            continue;
        int r = container_try(runtime, &root, &err);
        if (r == 0)
            report->facts |= UINT64_C(1) << kind;
        buf_format(text, "%s%s %s%.*s",
                   report->facts == 0 && text->size == 0 ? ""
                   : text->size                          ? "; "
                                                         : "",
                   runtime_names[kind], r == 0 ? "works" : "does not work: ", REASON_BYTES, r == 0 ? "" : err.text);
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
    ret_report->available = ret_report->facts != 0;
    ret_report->limits = ret_report->available; /* a container without its limits is not started */
    (void)snprintf(ret_report->text, sizeof ret_report->text, "container: %s", buf_terminate(&text)); /* may be cut */
}
