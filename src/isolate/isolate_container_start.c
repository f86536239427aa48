/* One container's start and end: group, bundle, the runtime's call, and the adoption of what it leaves running. */
#include "isolate/isolate_container.h"

#include "base/clock.h"
#include "isolate/isolate_bundle.h"
#include "isolate/isolate_follow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARGUMENTS_MAX  64u
#define CHILDREN_MAX   2048u
#define PID_TEXT_BYTES 32u

struct paths {
    char bundle[CONTAINER_FOLDER_MAX + 128], config[CONTAINER_FOLDER_MAX + 160], log[CONTAINER_FOLDER_MAX + 160],
        pid[CONTAINER_FOLDER_MAX + 160], state[CONTAINER_FOLDER_MAX + 128];
};

static void paths_fill(const struct container *c, struct paths *p)
{
    const char *folder = container_host.folder; /* all fit: a name has at most LIMIT_NAME_BYTES */
    (void)snprintf(p->bundle, sizeof p->bundle, "%s/bundles/%s", folder, c->i.name);
    (void)snprintf(p->config, sizeof p->config, "%s/config.json", p->bundle);
    (void)snprintf(p->log, sizeof p->log, "%s/log", p->bundle);
    (void)snprintf(p->pid, sizeof p->pid, "%s/pid", p->bundle);
    (void)snprintf(p->state, sizeof p->state, "%s/state/%s", folder, isolate_runtime_names[c->runtime->kind]);
}

/* ---- the group ---- */

static bool group_has(const struct cgroup_group *g, const char *file)
{
    bool has = false;
    for_each_home(&container_host.tree, g, h)
    {
        _close_ int fd = cgroup_file_open(&container_host.tree.homes[h], g->name, file, O_RDONLY);
        has |= fd >= 0;
    }
    return has;
}

/* Where the runtime finds the group that we have made. v1: a relative path is taken from the runtime's own group in
 * each hierarchy, as ours is. v2 alone: from the mount's root. */
static void cgroups_path(const struct container *c, char *path, size_t capacity)
{
    static const char mount_point[] = "/sys/fs/cgroup";
    const struct cgroup_tree *t = &container_host.tree;
    const char *above = NULL;
    for (size_t h = 0; h < t->n_homes; h++) {
        if (t->homes[h].version == 1 && !t->homes[h].other) {
            (void)snprintf(path, capacity, "%s/%s", t->base, c->i.name); /* fits */
            return;
        }
        if (t->homes[h].version == 2 && !t->homes[h].other)
            above = t->homes[h].path;
    }
    bool below = above && strncmp(above, mount_point, sizeof mount_point - 1) == 0;
    (void)snprintf(path, capacity, "%s/%s/%s", below ? above + sizeof mount_point - 1 : "", t->base, c->i.name);
}

static unsigned resources_of(const struct cgroup_group *g)
{
    unsigned have = container_host.tree.controllers, resources = 0;
    if (have & (1u << CGROUP_MEMORY))
        resources |= BUNDLE_MEMORY;
    if (have & (1u << CGROUP_MEMORY) &&
        (group_has(g, "memory.memsw.limit_in_bytes") || group_has(g, "memory.swap.max")))
        resources |= BUNDLE_SWAP;
    if (have & (1u << CGROUP_CPU))
        resources |= BUNDLE_CPU;
    if (have & (1u << CGROUP_PIDS))
        resources |= BUNDLE_PIDS;
    return resources;
}

static int group_prepare(struct container *c, const struct isolate_spawn *spawn, struct error *err)
{
    struct error reason = {0};
    int r = cgroup_group_new(&container_host.tree, spawn->name, &c->i.group, err);
    if (r != 0)
        return r;
    r = cgroup_group_limit(&container_host.tree, &c->i.group, &spawn->limits, spawn->limits_required, &reason);
    c->i.limits = r == 0;
    if (r != 0 && spawn->limits_required)
        return error_set(err, r, "%s", reason.text);
    (void)snprintf(c->i.limits_missing, sizeof c->i.limits_missing, "%.250s", reason.text); /* for people */
    return spawn->cpus ? cgroup_group_cpus(&container_host.tree, &c->i.group, spawn->cpus, err) : 0;
}

/* ---- the bundle ---- */

static int file_write(const char *path, struct str text, struct error *err)
{
    _close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text.data, text.size) != (ssize_t)text.size)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The container's bundle could not be written: %m.");
    return 0;
}

static int bundle_make(const struct container *c, const struct container_order *order, const struct paths *p,
                       struct error *err)
{
    const struct isolate_spawn *spawn = order->spawn;
    const char *arguments[ARGUMENTS_MAX] = {NULL};
    char follow[32], path[256];
    size_t n = 0;
    for (; order->root->command[n]; n++)
        arguments[n] = order->root->command[n];
    (void)snprintf(follow, sizeof follow, ISOLATE_FOLLOW_ARGUMENT "%zu", 3 + spawn->n_fds); /* fits */
    if (order->follow)
        arguments[n++] = follow;
    for (size_t i = order->follow ? 0 : 1; spawn->argv[i]; i++) {
        if (n == ARGUMENTS_MAX - 1)
            return error_set(err, ERROR_INVALID_ARGUMENT, "The worker cannot be started: too many arguments.");
        arguments[n++] = spawn->argv[i];
    }
    char cpus[ISOLATE_CPUS_TEXT];
    if (spawn->cpus)
        isolate_cpus_text(spawn->cpus, cpus, sizeof cpus);
    cgroups_path(c, path, sizeof path);
    const struct bundle bundle = {
        .root = order->root->path,
        .root_digest = order->root->digest,
        .arguments = arguments,
        .environment = (const char *const *)isolate_environment(),
        .uid = spawn->uid,
        .gid = spawn->gid,
        .limits = spawn->limits,
        .resources = resources_of(&c->i.group),
        .cpus = spawn->cpus ? cpus : NULL,
        .cgroups_path = path,
        .filter = spawn->filter,
    };
    _buf_ struct buf json;
    buf_init(&json, BUNDLE_JSON_BYTES_MAX);
    int r = bundle_write(&bundle, &json, err);
    if (r == 0 && mkdir(p->bundle, 0700) != 0)
        r = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The container's bundle could not be made: %m.");
    return r == 0 ? file_write(p->config, (struct str){json.data, json.size}, err) : r;
}

/* ---- children that a failed runtime leaves to us ---- */

/* Our children by now; 0 where the kernel does not list them. */
static size_t children_read(pid_t pids[static CHILDREN_MAX])
{
    char path[64], text[16384];
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)gettid()); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
    size_t n = 0;
    for (struct str rest = {text, size > 0 ? (size_t)size : 0}; rest.size > 0 && n < CHILDREN_MAX;) {
        const char *end = memchr(rest.data, ' ', rest.size);
        struct str one = {rest.data, end ? (size_t)(end - rest.data) : rest.size};
        uint64_t pid;
        rest = str_skip(rest, one.size + (end ? 1 : 0));
        if (str_to_u64(one, &pid) == 0 && pid > 1 && pid <= INT32_MAX)
            pids[n++] = (pid_t)pid;
    }
    return n;
}

/* Kills and reaps every child that was not there before the runtime ran: we start no other meanwhile. */
static void strays_reap(const pid_t before[], size_t n_before)
{
    pid_t now[CHILDREN_MAX];
    size_t n = children_read(now);
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        for (size_t k = 0; k < n_before && !known; k++)
            known = before[k] == now[i];
        if (known)
            continue;
        (void)kill(now[i], SIGKILL); /* our own child, not yet reaped: the pid is still its */
        while (waitpid(now[i], NULL, 0) < 0 && errno == EINTR)
            ;
    }
}

/* ---- adoption ---- */

static int pid_read(const char *path, pid_t *ret_pid, struct error *err)
{
    char text[PID_TEXT_BYTES];
    _close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);
    uint64_t pid;
    if (size > 0 && text[size - 1] == '\n')
        size--;
    if (size <= 0 || str_to_u64((struct str){text, (size_t)size}, &pid) != 0 || pid < 2 || pid > INT32_MAX)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime did not tell the container's process.");
    *ret_pid = (pid_t)pid;
    return 0;
}

/* The runtime's word is checked: only our own child can be waited for, and the pid of a child that was not reaped
 * belongs to nobody else. */
static int adopt(struct container *c, const char *pid_path, struct error *err)
{
    siginfo_t info = {0};
    int r = pid_read(pid_path, &c->i.pid, err);
    if (r != 0)
        return r;
    c->i.pidfd = (int)syscall(SYS_pidfd_open, c->i.pid, 0);
    if (c->i.pidfd < 0 || waitid((idtype_t)P_PIDFD, (id_t)c->i.pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The container's process did not become the server's: %m.");
    bool dead = info.si_pid != 0;
    if (!dead && !cgroup_group_holds(&container_host.tree, &c->i.group, c->i.pid))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "The OCI runtime %s did not put the container into its control groups.",
                         isolate_runtime_names[c->runtime->kind]);
    return 0;
}

/* Lets the program run on, and waits until it has tied its life to ours. Its death meanwhile is its own affair: the
 * pidfd tells. */
static int follow_wait(const struct container *c, int gate, struct error *err)
{
    const char byte = ISOLATE_FOLLOW_BYTE;
    if (send(gate, &byte, 1, MSG_NOSIGNAL) != 1 && errno != EPIPE && errno != ECONNRESET)
        return error_set(err, ERROR_INTERNAL, "The worker could not be told to start: %m.");
    struct pollfd ends[] = {{.fd = gate, .events = POLLIN}, {.fd = c->i.pidfd, .events = POLLIN}};
    int n;
    do
        n = poll(ends, 2, ISOLATE_LAUNCH_MS);
    while (n < 0 && errno == EINTR);
    return n > 0 ? 0
                 : error_set(err, ERROR_INTERNAL, "The worker did not start within %d s.", ISOLATE_LAUNCH_MS / 1000);
}

static int run(struct container *c, const struct container_order *order, const struct paths *p, int gate,
               struct error *err)
{
    const struct isolate_spawn *spawn = order->spawn;
    int fds[ISOLATE_LAUNCH_FDS_MAX];
    size_t n_fds = 0;
    for (; n_fds < spawn->n_fds; n_fds++)
        fds[n_fds] = spawn->fds[n_fds];
    if (gate >= 0)
        fds[n_fds++] = gate;
    const struct runtime_call call = {
        .runtime = c->runtime,
        .verb = RUNTIME_RUN,
        .name = c->i.name,
        .state = p->state,
        .log = p->log,
        .bundle = p->bundle,
        .pid_path = p->pid,
        .fds = fds,
        .n_fds = n_fds,
        .stderr_fd = spawn->stderr_fd,
        .cpus = spawn->cpus,
    };
    return runtime_run(&call, err);
}

/* What it leaves is removed by container_end (its state is a folder), also where it could not be run. */
static void forget_begin(struct container *c)
{
    struct paths p;
    paths_fill(c, &p);
    const struct runtime_call call = {.runtime = c->runtime,
                                      .verb = RUNTIME_DELETE,
                                      .name = c->i.name,
                                      .state = p.state,
                                      .log = p.log,
                                      .stderr_fd = -1};
    c->forgotten = runtime_begin(&call, &c->forgetter, NULL) < 0;
    c->forget_by_ns = clock_monotonic_ns() + RUNTIME_MS * NS_PER_MS;
}

int container_tidy(struct isolate_instance *i)
{
    struct container *c = (struct container *)i;
    if (!c->forgotten && c->forgetter < 0)
        forget_begin(c);
    struct pollfd end = {.fd = c->forgetter, .events = POLLIN};
    if (!c->forgotten && poll(&end, 1, 0) <= 0 && clock_monotonic_ns() < c->forget_by_ns)
        return -ERROR_AGAIN;
    if (!c->forgotten)
        (void)runtime_wait(&c->forgetter, c->forget_by_ns); /* how it ended does not matter */
    c->forgotten = true;
    return 0;
}

void container_end(struct container *c)
{
    struct paths p;
    char state[sizeof p.state + LIMIT_NAME_BYTES + 2];
    paths_fill(c, &p);
    if (container_tidy(&c->i) != 0)
        (void)runtime_wait(&c->forgetter, c->forget_by_ns);
    (void)snprintf(state, sizeof state, "%s/%s", p.state, c->i.name); /* fits */
    rootfs_remove(state);
    rootfs_remove(p.bundle);
    if (c->i.group.name[0])
        cgroup_group_remove(&container_host.tree, &c->i.group);
    isolate_instance_free(&c->i);
}

/* Whatever part of it there is. */
static void start_undo(struct container *c, const pid_t before[], size_t n_before)
{
    if (c->i.group.name[0])
        cgroup_group_kill(&container_host.tree, &c->i.group);
    strays_reap(before, n_before);
    container_end(c);
}

int container_start(const struct container_order *order, struct container **ret_container, struct error *err)
{
    pid_t before[CHILDREN_MAX];
    size_t n_before = children_read(before);
    struct container *c = calloc(1, sizeof *c);
    if (!c)
        return error_set_default(err, ERROR_NO_MEMORY);
    c->i.pidfd = -1;
    c->forgetter = -1;
    c->i.uid = order->spawn->uid;
    c->runtime = order->runtime;
    c->filter = order->spawn->filter;
    (void)snprintf(c->i.name, sizeof c->i.name, "%s", order->spawn->name); /* length was checked */
    (void)snprintf(c->digest, sizeof c->digest, "%s", order->root->digest);
    c->image = order->spawn->image != NULL;
    struct paths p;
    paths_fill(c, &p);
    int ends[2] = {-1, -1};
    int r = group_prepare(c, order->spawn, err);
    if (r == 0)
        r = bundle_make(c, order, &p, err);
    if (r == 0 && order->follow && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        r = error_set(err, ERROR_INTERNAL, "The worker's start could not be prepared: %m.");
    _close_ int ours = ends[0], theirs = ends[1];
    if (r == 0)
        r = run(c, order, &p, theirs, err);
    fd_close(&theirs);
    if (r == 0)
        r = adopt(c, p.pid, err);
    if (r == 0 && order->follow)
        r = follow_wait(c, ours, err);
    if (r != 0) {
        start_undo(c, before, n_before);
        return r;
    }
    *ret_container = c;
    return 0;
}
