/* Level `container`: an OCI bundle of our own, run by the OCI runtime that this host has.
 *
 * The runtime ends once the container runs; its first process becomes our child, because the supervisor is a subreaper.
 * How, and what the runtime is told: docs/internals/isolation.md. */
#include "isolate/isolate_container.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

/* Below the mount: whoever uses the folder holds a lock on it. Removing it would take away the mount of another mount
 * namespace, too, so without that mark it is left alone. */
#define FOLDER_LOCKED 01711
#define LOCK_TRIES    100 /* of 10 ms: a server that was killed a moment ago */

#define FOLDER_MODE    0711 /* the runtime's first process walks down to the root as the namespace's root */
#define FOLDER_OPTIONS "mode=711,size=50%"

struct container_host container_host;

/* ---- the folder ---- */

/* A mount namespace of our own, so that the folder's mount is seen and held by nobody else. Once per process. */
static int namespace_leave(void)
{
    static bool done;
    if (!done && (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) != 0))
        return -1;
    done = true;
    return 0;
}

static int folder_fill(const char *folder)
{
    static const char *const parts[] = {"bundles", "roots", "state"};
    char path[CONTAINER_FOLDER_MAX + 32];
    for (size_t i = 0; i < sizeof parts / sizeof *parts + ISOLATE_RUNTIME_COUNT - 1; i++) {
        if (i < sizeof parts / sizeof *parts)
            (void)snprintf(path, sizeof path, "%.127s/%s", folder, parts[i]); /* fits */
        else
            (void)snprintf(path, sizeof path, "%.127s/state/%s", folder, /* fits */
                           isolate_runtime_names[i + 1 - sizeof parts / sizeof *parts]);
        if (mkdir(path, FOLDER_MODE) != 0 || chmod(path, FOLDER_MODE) != 0)
            return -1;
    }
    return 0;
}

/* Takes the folder's lock; -1: somebody holds it, or it is another folder by now. */
static int folder_lock(const char *folder)
{
    struct stat named, opened;
    _close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0 || fstat(fd, &opened) != 0 || lstat(folder, &named) != 0 ||
        named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
        return -1;
    return take_fd(&fd);
}

static int folder_make(const char *folder)
{
    rootfs_remove(folder);                 /* an earlier server's */
    for (int i = 0; i < LOCK_TRIES; i++) { /* a server that starts at the same time may sweep it before it is ours */
        if (mkdir(folder, FOLDER_MODE) != 0 && errno != EEXIST)
            return -1;
        int fd = folder_lock(folder);
        if (fd >= 0 && fchmod(fd, FOLDER_LOCKED) == 0)
            return fd;
        fd_close(&fd);
        (void)poll(NULL, 0, 10);
    }
    return -1;
}

/* Empty folders that servers of any data folder left when they were killed. */
static void folders_sweep(void)
{
    DIR *dir = opendir(CONTAINER_FOLDER_PARENT);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct str name = str_from(entry->d_name);
        char folder[sizeof CONTAINER_FOLDER_PARENT + sizeof entry->d_name];
        struct stat info;
        if (!str_starts(name, STR("bulkhead.")) || name.size < 4 || strcmp(name.data + name.size - 4, "-oci") != 0)
            continue;
        (void)snprintf(folder, sizeof folder, CONTAINER_FOLDER_PARENT "/%s", entry->d_name); /* fits */
        if (lstat(folder, &info) != 0 || info.st_mode != (S_IFDIR | FOLDER_LOCKED) || info.st_uid != 0)
            continue;
        _close_ int fd = folder_lock(folder);
        if (fd >= 0)
            (void)rmdir(folder); /* refused where there is something in it */
    }
    if (dir)
        (void)closedir(dir); /* nothing was written through it */
}

static void folder_open(const char *base)
{
    struct container_host *h = &container_host;
    char folder[CONTAINER_FOLDER_MAX];
    (void)snprintf(folder, sizeof folder, CONTAINER_FOLDER_PARENT "/%.100s", base); /* fits */
    folders_sweep();
    h->lock = folder_make(folder);
    bool mounted = h->lock >= 0 && namespace_leave() == 0 &&
                   mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, FOLDER_OPTIONS) == 0;
    if (mounted && folder_fill(folder) == 0) {
        memcpy(h->folder, folder, sizeof folder);
        return;
    }
    (void)snprintf(h->missing, sizeof h->missing, "its folder in " CONTAINER_FOLDER_PARENT " could not be made: %s",
                   strerror(errno)); /* cut is fine: for people */
    if (mounted)
        (void)umount2(folder, MNT_DETACH);
    (void)rmdir(folder);
    fd_close(&h->lock);
}

static void folder_close(void)
{
    struct container_host *h = &container_host;
    if (!h->folder[0])
        return;
    (void)umount2(h->folder, MNT_DETACH); /* nothing runs any more; the next server's mount would cover it */
    rootfs_remove(h->folder); /* a runtime that was ended with its probe may have written below the mount meanwhile */
    h->folder[0] = '\0';
    fd_close(&h->lock);
}

/* ---- setup and teardown ---- */

static int container_setup(const char *scope, struct error *err)
{
    struct container_host *h = &container_host;
    assert(!h->open);
    char name[LIMIT_NAME_BYTES + 1];
    *h = (struct container_host){.lock = -1};
    if (snprintf(name, sizeof name, "%s-oci", scope) >= (int)sizeof name)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The server's scope is too long.");
    int r = cgroup_tree_open(&h->tree, &cgroup_source_host, name, err);
    if (r != 0)
        return r;
    h->open = true;
    cgroup_tree_add_others(&h->tree, &cgroup_source_host);
    if (!cgroup_tree_sweep(&h->tree, 2000))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "What an earlier server left in its control groups could not be removed within 2 s.");
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++) {
        runtime_find((enum isolate_runtime)kind, &h->runtimes[kind]);
        h->wanted[kind] = !runtime_slow((enum isolate_runtime)kind);
    }
    if (geteuid() != 0)
        (void)snprintf(h->missing, sizeof h->missing, "needs root: start the server with sudo"); /* fits */
    else
        folder_open(h->tree.base);
    return 0;
}

static void container_teardown(void)
{
    struct container_host *h = &container_host;
    if (!h->open)
        return;
    for (size_t i = 0; i < CONTAINER_ROOTS_MAX; i++)
        rootfs_done(&h->roots[i].root);
    folder_close();
    cgroup_tree_close(&h->tree);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0L, 0L, 0L, 0L); /* cannot fail */
    h->open = false;
}

/* ---- spawn ---- */

static int refuse(struct error *err, const char *why)
{
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "Level container is not available: %s.", why);
}

static int runtime_choose(enum isolate_runtime asked, const struct runtime **ret_runtime, struct error *err)
{
    const struct container_host *h = &container_host;
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++) {
        if (asked != ISOLATE_RUNTIME_ANY && asked != (enum isolate_runtime)kind)
            continue;
        if (h->runtimes[kind].path[0] && (!h->probed || h->reports[kind].state == ISOLATE_RUNTIME_WORKS)) {
            *ret_runtime = &h->runtimes[kind];
            return 0;
        }
    }
    if (asked == ISOLATE_RUNTIME_ANY)
        return refuse(err, h->probed ? "none of this host's OCI runtimes works" : "install runc, an OCI runtime");
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime %s is not available: %s.",
                     isolate_runtime_names[asked], h->probed ? h->reports[asked].text : "this host has none");
}

/* As execve would refuse it; the runtime would tell it less plainly. */
static int program_check(int fd, struct stat *ret_info, struct error *err)
{
    errno = EACCES;
    if (fstat(fd, ret_info) != 0 || !S_ISREG(ret_info->st_mode) || (ret_info->st_mode & 0111) != 0111)
        return error_set(err, ERROR_INTERNAL,
                         "The worker program could not be executed: every user must be allowed to execute it (%m).");
    return 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* The root of this program and library, built when it is asked for first and looked at again each time. */
static int root_get(const struct isolate_spawn *spawn, const struct stat *program, const struct rootfs **ret_root,
                    struct error *err)
{
    struct container_host *h = &container_host;
    struct stat library = {0};
    int library_fd = spawn->library_fd > 0 ? spawn->library_fd : -1;
    if (library_fd >= 0 && fstat(library_fd, &library) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The engine's library cannot be read: %m.");
    uint8_t image[32] = {0};
    if (spawn->image)
        memcpy(image, spawn->image->sha256, sizeof image);
    for (size_t i = 0; i < CONTAINER_ROOTS_MAX; i++) {
        struct container_root *known = &h->roots[i];
        if (!known->root.path[0] || !same_file(&known->program, program) || !same_file(&known->library, &library) ||
            memcmp(known->image, image, sizeof image) != 0)
            continue;
        int r = rootfs_check(&known->root, err);
        if (r == 0)
            *ret_root = &known->root;
        return r;
    }
    size_t slot = h->root_next;
    char path[CONTAINER_FOLDER_MAX + 32];
    (void)snprintf(path, sizeof path, "%.127s/roots/%zu", h->folder, slot); /* fits */
    rootfs_done(&h->roots[slot].root);
    const struct rootfs_parts parts = {.program_fd = spawn->program_fd,
                                       .library_fd = library_fd,
                                       .image = spawn->image,
                                       .uid = spawn->uid,
                                       .gid = spawn->gid};
    int r = rootfs_build(path, &parts, &h->roots[slot].root, err);
    if (r != 0)
        return r;
    h->roots[slot].program = *program;
    h->roots[slot].library = library;
    memcpy(h->roots[slot].image, image, sizeof image);
    h->root_next = (slot + 1) % CONTAINER_ROOTS_MAX;
    *ret_root = &h->roots[slot].root;
    return 0;
}

static int container_spawn(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                           struct error *err)
{
    struct container_order order = {.spawn = spawn, .follow = true};
    struct container *c = NULL;
    struct stat program;
    int r = isolate_spawn_check(spawn, true, err);
    if (r != 0)
        return r;
    if (!container_host.open || !container_host.folder[0])
        return refuse(err, container_host.open ? container_host.missing : "setup was not called");
    r = runtime_choose(spawn->runtime, &order.runtime, err);
    if (r == 0)
        r = program_check(spawn->program_fd, &program, err);
    if (r == 0)
        r = root_get(spawn, &program, &order.root, err);
    if (r == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) != 0)
        r = refuse(err, "the server cannot adopt the runtime's processes");
    if (r == 0)
        r = container_start(&order, &c, err);
    if (r != 0)
        return r;
    *ret_instance = &c->i;
    *ret_pidfd = c->i.pidfd;
    return 0;
}

/* ---- a running one ---- */

static int container_limit(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err)
{
    if (limits->memory_bytes == 0 || limits->cpu_milli == 0 || limits->pids == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The limits cannot be changed: a limit is 0.");
    if (!i->limits)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "%s", i->limits_missing);
    return cgroup_group_limit(&container_host.tree, &i->group, limits, true, err);
}

static int container_cpus(struct isolate_instance *i, const struct isolate_cpus *cpus, struct error *err)
{
    return cgroup_group_cpus(&container_host.tree, &i->group, cpus, err);
}

static int container_usage(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err)
{
    (void)err;
    isolate_process_usage(i); /* for what no controller counts; overwritten by what one does */
    cgroup_group_usage(&container_host.tree, &i->group, &i->usage_last);
    *ret_usage = i->usage_last;
    return 0;
}

static void container_explain(struct isolate_instance *i, struct isolate_report *ret_report)
{
    const struct container *c = (const struct container *)i;
    *ret_report = (struct isolate_report){.available = true, .limits = i->limits, .pid = i->pid};
    (void)snprintf(
        ret_report->text, sizeof ret_report->text, /* cut is fine: for people */
        "container (%s%s); namespaces user, mount, pid, net, ipc, uts, cgroup; read-only root%s sha256:%.16s; "
        "pid %d, uid %u; %s%s%s%s",
        isolate_runtime_names[c->runtime->kind], c->filter ? "" : "; no syscall filter",
        c->image ? " of the model's image," : "", c->digest, (int)i->pid, (unsigned)i->uid,
        i->limits ? "control group " : "NO LIMITS: ", i->limits ? container_host.tree.base : i->limits_missing,
        i->limits ? "/" : "", i->limits ? i->name : "");
}

static int container_discard(struct isolate_instance *i, int *ret_status)
{
    int r = isolate_instance_reap(i, ret_status);
    if (r != 0)
        return r;
    container_end((struct container *)i);
    return 0;
}

static void container_probed(const struct isolate_report *report)
{
    container_host.probed = true;
    memcpy(container_host.reports, report->runtimes, sizeof container_host.reports);
}

static void container_want(enum isolate_runtime runtime)
{
    for (int kind = ISOLATE_RUNTIME_ANY + 1; kind < ISOLATE_RUNTIME_COUNT; kind++)
        container_host.wanted[kind] |= runtime == ISOLATE_RUNTIME_ANY || runtime == (enum isolate_runtime)kind;
}

const struct isolate_ops isolate_container = {
    .name = "container",
    .level = ISOLATE_CONTAINER,
    .own_root = true,
    .probe = container_probe,
    .probe_slow = true, /* a container per runtime */
    .want = container_want,
    .probed = container_probed,
    .spawn = container_spawn,
    .limit = container_limit,
    .cpus = container_cpus,
    .usage = container_usage,
    .kill = isolate_instance_kill,
    .explain = container_explain,
    .reap = isolate_instance_reap,
    .tidy = container_tidy,
    .discard = container_discard,
    .setup = container_setup,
    .teardown = container_teardown,
};
