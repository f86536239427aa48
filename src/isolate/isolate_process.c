/* Level `process`: an own process with namespaces of every kind, a read-only root, an own uid, control groups, resource
 * limits.
 *
 * The pid namespace makes killing exact: when the worker, its first process, dies, the kernel kills the rest. */
#include "isolate/isolate_internal.h"
#include "isolate/isolate_landlock.h"
#include "isolate/isolate_probe.h"
#include "isolate/isolate_root.h"

#include <assert.h>
#include <linux/sched.h>
#include <stdio.h>

#define LEVEL_TEXT "process"
/* Made by the clone; user, mount, uts and cgroup follow when their turn is (isolate_child.c). */
#define NAMESPACES ((uint64_t)CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC)
#define PROBE_NAME "probe.self" /* the dot keeps it apart from every worker's name */

static struct {
    bool open;
    struct cgroup_tree tree;
} host;

static int process_setup(const char *scope, struct error *err)
{
    assert(!host.open);
    int r = cgroup_tree_open(&host.tree, &cgroup_source_host, scope, err);
    if (r != 0)
        return r;
    host.open = true;
    if (!cgroup_tree_sweep(&host.tree, 2000))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "What an earlier server left in its control groups could not be removed within 2 s.");
    return 0;
}

bool isolate_process_ready(void)
{
    return host.open;
}

static void process_teardown(void)
{
    if (host.open)
        cgroup_tree_close(&host.tree);
    host.open = false;
    isolate_roots_close();
}

/* Makes and limits the group. Without limits_required, what fails is noted in the instance and the rest goes on. */
static int group_prepare(struct isolate_instance *i, const struct isolate_spawn *spawn, struct error *err)
{
    struct error reason = {0};
    int r;
    if (!host.open)
        r = error_set(&reason, ERROR_ISOLATION_UNAVAILABLE, "The limits cannot be set: setup was not called.");
    else
        r = cgroup_group_new(&host.tree, spawn->name, &i->group, &reason);
    if (r == 0)
        r = cgroup_group_limit(&host.tree, &i->group, &spawn->limits, spawn->limits_required, &reason);
    i->limits = r == 0;
    if (r != 0 && spawn->limits_required)
        return error_set(err, r, "%s", reason.text);
    if (r != 0)
        (void)snprintf(i->limits_missing, sizeof i->limits_missing, "%.250s", reason.text); /* for people */
    return spawn->cpus ? cgroup_group_cpus(&host.tree, &i->group, spawn->cpus, err) : 0;
}

/* Both for workers and, with `run`, for the probe's child. On failure nothing is left. */
static int instance_start(const struct isolate_spawn *spawn,
                          int (*run)(const struct isolate_launch *l, struct error *err),
                          struct isolate_instance **ret_instance, struct error *err)
{
    struct isolate_instance *i = isolate_instance_new(spawn);
    if (!i)
        return error_set_default(err, ERROR_NO_MEMORY);
    struct isolate_launch launch = {
        .spawn = spawn,
        .walls = true,
        .namespaces = NAMESPACES,
        .join = CGROUP_JOIN_NONE,
        .run = run,
    };
    int r = 0;
    _close_ int probe_root_fd = -1;
    if (run) {
        r = isolate_root_new_bare(&probe_root_fd, err);
        launch.root_fd = probe_root_fd;
    } else {
        r = isolate_root_get(spawn->program_fd, spawn->library_fd > 0 ? spawn->library_fd : -1, spawn->root,
                             &launch.root_fd, err);
    }
    if (r == 0)
        r = group_prepare(i, spawn, err);
    if (r == 0 && i->group.name[0])
        r = cgroup_group_join(&host.tree, &i->group, &launch.join, err);
    if (r == 0) {
        launch.nproc = !(host.tree.controllers & (1u << CGROUP_PIDS));
        r = isolate_launch(&launch, &i->pid, &i->pidfd, err);
    }
    cgroup_join_done(&launch.join);
    if (r != 0) {
        cgroup_group_remove(&host.tree, &i->group);
        isolate_instance_free(i);
        return r;
    }
    *ret_instance = i;
    return 0;
}

static int process_prepare(int program_fd, int library_fd, struct error *err)
{
    int borrowed;
    return isolate_root_get(program_fd, library_fd, NULL, &borrowed, err);
}

static int process_spawn(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                         struct error *err)
{
    int r = isolate_spawn_check(spawn, true, err);
    if (r != 0)
        return r;
    if (geteuid() != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "Level process needs root: start the server with sudo.");
    struct isolate_instance *i = NULL;
    r = instance_start(spawn, NULL, &i, err);
    if (r != 0)
        return r;
    assert(i);
    *ret_instance = i;
    *ret_pidfd = i->pidfd;
    return 0;
}

static int process_limit(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err)
{
    if (limits->memory_bytes == 0 || limits->cpu_milli == 0 || limits->pids == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The limits cannot be changed: a limit is 0.");
    if (!i->limits)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "%s", i->limits_missing);
    return cgroup_group_limit(&host.tree, &i->group, limits, true, err);
}

static int process_cpus(struct isolate_instance *i, const struct isolate_cpus *cpus, struct error *err)
{
    return cgroup_group_cpus(&host.tree, &i->group, cpus, err);
}

static int process_usage(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err)
{
    (void)err;
    isolate_process_usage(i); /* for what no controller counts; overwritten by what one does */
    if (i->group.name[0])
        cgroup_group_usage(&host.tree, &i->group, &i->usage_last);
    *ret_usage = i->usage_last;
    return 0;
}

/* "Landlock 7", or that there is none. */
static const char *landlock_text(void)
{
    static char text[64];
    int version = isolate_landlock_version();
    if (version > 0)
        (void)snprintf(text, sizeof text, "Landlock %d", version); /* fits */
    else
        (void)snprintf(text, sizeof text, "no Landlock in this kernel"); /* fits */
    return text;
}

static void process_explain(struct isolate_instance *i, struct isolate_report *ret_report)
{
    ret_report->available = true;
    ret_report->limits = i->limits;
    ret_report->pid = i->pid;
    (void)snprintf(ret_report->text, sizeof ret_report->text, /* cut is fine: for people */
                   LEVEL_TEXT "; namespaces user, mnt, pid, net, ipc, uts, cgroup; only uid %u mapped; read-only root; "
                              "%.40s; pid %d; %s%.200s%s%.63s",
                   (unsigned)i->uid, landlock_text(), (int)i->pid,
                   i->limits ? "control group " : "NO LIMITS: ", i->limits ? host.tree.base : i->limits_missing,
                   i->limits ? "/" : "", i->limits ? i->name : "");
}

static int process_discard(struct isolate_instance *i, int *ret_status)
{
    int r = isolate_instance_reap(i, ret_status);
    if (r != 0)
        return r;
    if (i->group.name[0])
        cgroup_group_remove(&host.tree, &i->group);
    isolate_instance_free(i);
    return 0;
}

/* The same path as a worker takes, with a check from inside in the program's place. */
static int probe_run(bool limits_required, const struct isolate_cpus *cpus, struct error *err)
{
    static const char *const argv[] = {"probe", NULL};
    const struct isolate_spawn spawn = {
        .name = PROBE_NAME,
        .program_fd = -1,
        .argv = argv,
        .stderr_fd = -1,
        .uid = ISOLATE_PROBE_UID,
        .gid = ISOLATE_PROBE_UID,
        .limits = {.memory_bytes = 64 * MIB, .cpu_milli = 1000, .pids = 16, .file_bytes = MIB, .fds = 64},
        .limits_required = limits_required,
        .cpus = cpus,
    };
    struct isolate_instance *i = NULL;
    isolate_probe_remember();
    int r = instance_start(&spawn, isolate_probe_inside, &i, err);
    if (r != 0)
        return r;
    assert(i);
    int status;
    i->reaped = isolate_wait(i->pidfd, true, &i->status) == 0;
    r = process_discard(i, &status);
    if (r == 0 && status != 0)
        r = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "A process behind the wall was killed at its start.");
    return r;
}

/* By doing: a process on one processor alone tries to leave it. */
static void probe_cpusets(struct isolate_report *report)
{
    struct isolate_cpus all = {0}, one = {0};
    struct error err = {0};
    int r = isolate_cpus_of(0, &all);
    for (uint32_t cpu = 0; cpu < LIMIT_CPUS && isolate_cpus_count(&one) == 0; cpu++)
        if (isolate_cpus_has(&all, cpu))
            isolate_cpus_add(&one, cpu);
    if (r == 0)
        r = probe_run(true, &one, &err);
    report->cpusets = r == 0;
    if (r != 0)
        (void)snprintf(report->cpusets_text, sizeof report->cpusets_text, "%.190s",
                       error_text(&err, r)); /* cut: fine */
}

static void process_probe(struct isolate_report *ret_report)
{
    struct error err = {0};
    *ret_report = (struct isolate_report){0};
    if (geteuid() != 0) {
        (void)snprintf(ret_report->text, sizeof ret_report->text,
                       "process: needs root: start the server with sudo."); /* fits */
        return;
    }
    bool opened_here = !host.open;
    if (opened_here) {
        char scope[32];
        (void)snprintf(scope, sizeof scope, "probe-%d", (int)getpid()); /* fits */
        (void)!process_setup(scope, &err);                              /* without groups, the next line finds out */
    }
    if (probe_run(true, NULL, &err) == 0) {
        *ret_report =
            (struct isolate_report){.available = true, .limits = true, .degraded = isolate_landlock_version() <= 0};
        (void)snprintf(ret_report->text, sizeof ret_report->text, LEVEL_TEXT "; %s", landlock_text()); /* fits */
        probe_cpusets(ret_report);
    } else {
        char why_limits[sizeof err.text];
        (void)snprintf(why_limits, sizeof why_limits, "%s", err.text); /* same size */
        ret_report->available = ret_report->degraded = probe_run(false, NULL, &err) == 0;
        (void)snprintf(ret_report->text, sizeof ret_report->text, "%s%.400s", /* for people */
                       ret_report->available ? LEVEL_TEXT "; NO LIMITS: " : "process: ",
                       ret_report->available ? why_limits : err.text);
        (void)snprintf(ret_report->cpusets_text, sizeof ret_report->cpusets_text, "%.190s", why_limits); /* likewise */
    }
    if (opened_here)
        process_teardown();
}

const struct isolate_ops isolate_process = {
    .name = "process",
    .level = ISOLATE_PROCESS,
    .own_root = true,
    .probe = process_probe,
    .prepare = process_prepare,
    .spawn = process_spawn,
    .limit = process_limit,
    .cpus = process_cpus,
    .usage = process_usage,
    .kill = isolate_instance_kill,
    .explain = process_explain,
    .reap = isolate_instance_reap,
    .discard = process_discard,
    .setup = process_setup,
    .teardown = process_teardown,
};
