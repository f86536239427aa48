/* A process behind a wall, whoever it works for: its user, its instance, its socket, its end. */
#include "supervisor/supervisor_internal.h"

#include "base/log.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

/* Threads of a worker: one of ours, resources.cpu of the engine, and a few that its library keeps. */
#define PIDS_BASE  16u
#define WORKER_FDS 64u
#define TIDY_MS    5u /* between two looks */

/* A uid of the range, as an index to give back in uids_used. */
static int uid_take(struct supervisor *s, uint32_t *ret_index)
{
    for (uint32_t i = ROLE_UID_OFFSET_REPLICAS; i < s->config->uid_count; i++)
        if (!s->uids_used[i]) {
            s->uids_used[i] = 1;
            *ret_index = i;
            return 0;
        }
    return -ERROR_LIMIT;
}

int supervisor_library_of(const struct supervisor *s, const char *engine, int *ret_fd)
{
    for (uint32_t i = 0; i < s->config->n_engines; i++)
        if (strcmp(s->config->engines[i].name, engine) == 0) {
            *ret_fd = s->config->engines[i].library_fd;
            return 0;
        }
    return -ERROR_UNSUPPORTED;
}

/* Kills and reaps a process whose end nobody would notice later. */
static void process_abandon(const struct isolate_ops *ops, struct isolate_instance *instance, int pidfd)
{
    int status;
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    ops->kill(instance);
    while (ops->discard(instance, &status) < 0)
        (void)poll(&end, 1, 1000); /* a killed worker is gone within moments */
}

enum bus_library supervisor_library_where(const struct isolate_ops *ops, int library_fd)
{
    if (library_fd < 0)
        return BUS_LIBRARY_NONE;
    return ops->own_root ? BUS_LIBRARY_ROOT : BUS_LIBRARY_FD;
}

struct isolate_limits supervisor_worker_limits(uint64_t memory_bytes, uint32_t cpu_milli)
{
    uint32_t cores = (cpu_milli + 999) / 1000;
    return (struct isolate_limits){.memory_bytes = memory_bytes,
                                   .cpu_milli = cpu_milli,
                                   .pids = PIDS_BASE + 2 * cores,
                                   .file_bytes = LIMIT_REPLICA_TMP_BYTES, /* there is nowhere else to write */
                                   .fds = WORKER_FDS};
}

void supervisor_worker_kill(struct supervisor_worker *w)
{
    bus_conn_close(w->bus);
    w->bus = NULL;
    w->ops->kill(w->instance);
}

/* May wait for what `tidy` has not ended. */
static void worker_discard(struct supervisor_worker *w)
{
    int status;
    if (w->instance && w->ops->discard(w->instance, &status) < 0)
        log_alert("worker_left", "uid=%u: a worker that had ended could not be discarded",
                  w->supervisor->config->uid_base + w->uid_index);
    list_remove(&w->in_all);
    if (w->uid_index > 0)
        w->supervisor->uids_used[w->uid_index] = 0;
    free(w);
}

static void on_leaving(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    for (struct list *node; (node = list_first(&s->leaving));) {
        struct supervisor_worker *w = container_of(node, struct supervisor_worker, in_all);
        if (w->ops->tidy(w->instance) == -ERROR_AGAIN)
            return;
        worker_discard(w);
    }
    (void)uv_timer_stop(timer);
}

void supervisor_worker_free(struct supervisor_worker *w)
{
    if (!w)
        return;
    struct supervisor *s = w->supervisor;
    supervisor_unwatch(&w->watch); /* before discard closes the pidfd: its number may be another's at once */
    bus_conn_close(w->bus);
    w->bus = NULL;
    if (!w->instance || !w->ops->tidy) {
        worker_discard(w);
        return;
    }
    list_remove(&w->in_all);
    list_append(&s->leaving, &w->in_all);
    if (!uv_is_active((uv_handle_t *)&s->leaving_timer))
        (void)uv_timer_start(&s->leaving_timer, on_leaving, 0, TIDY_MS); /* fails only on a closing handle */
}

void supervisor_workers_open(struct supervisor *s)
{
    list_init(&s->workers);
    list_init(&s->leaving);
    (void)uv_timer_init(s->loop, &s->leaving_timer); /* always succeeds */
    s->leaving_timer.data = s;
}

void supervisor_workers_close(struct supervisor *s)
{
    for (struct list *node; (node = list_first(&s->leaving));)
        worker_discard(container_of(node, struct supervisor_worker, in_all));
}

static void on_process_end(uv_poll_t *poll, int poll_status, int events)
{
    (void)poll_status;
    (void)events;
    struct supervisor_worker *w = poll->data;
    struct isolate_usage usage = {0};
    int status = 0;
    if (w->ops->usage(w->instance, &usage, NULL) < 0)
        usage.oom_kills = 0;
    if (w->ops->reap(w->instance, &status) < 0)
        return; /* still there: the poll says it again */
    (void)uv_poll_stop(poll);
    /* First it is told, then tidied up: that may take a runtime so long that the gateway gives the worker up meanwhile
     * and never learns why it ended. */
    w->events->ended(w->owner, status, usage.oom_kills);
}

static void on_message(void *ctx, struct bus_message *m)
{
    struct supervisor_worker *w = ctx;
    w->events->message(w->owner, m);
}

static void on_gone(void *ctx, int code)
{
    (void)code;
    struct supervisor_worker *w = ctx;
    w->bus = NULL;
    w->events->gone(w->owner);
}

static int worker_spawn(struct supervisor_worker *w, const struct supervisor_worker_spec *spec, int bus_fd,
                        struct error *err)
{
    struct supervisor *s = w->supervisor;
    const char *const argv[] = {spec->unpack ? "bulkhead-image" : "bulkhead-worker", spec->ingest ? "ingest" : NULL,
                                NULL};
    struct isolate_spawn spawn = {
        .name = spec->name,
        .program_fd = spec->unpack ? s->config->image_fd : s->config->worker_fd,
        .library_fd = spec->library_fd,
        .argv = argv,
        .fds = &bus_fd,
        .n_fds = spec->machine ? 0 : 1,
        .machine = spec->machine,
        .runtime = spec->runtime,
        .image = spec->image,
        /* A worker is hostile: it gets no say in our log, unless an operator debugs. */
        .stderr_fd = s->config->log_level >= LOG_LEVEL_DEBUG ? STDERR_FILENO : -1,
        .uid = s->config->uid_base + w->uid_index,
        .gid = s->config->uid_base + w->uid_index,
        .limits = spec->limits,
        .cpus = spec->cpus     ? spec->cpus
                : w->ops->cpus ? supervisor_cores_rest(s)
                               : NULL,
        .filter = true,
        .limits_required = !s->config->allow_unlimited,
    };
    int pidfd;
    int r = w->ops->spawn(&spawn, &w->instance, &pidfd, err);
    if (r == -ERROR_ISOLATION_UNAVAILABLE)
        supervisor_isolation_probe(s, spec->level); /* it was available: has it been lost? */
    if (r < 0)
        return r;
    struct isolate_report report;
    w->ops->explain(w->instance, &report);
    w->pid = report.pid;
    (void)snprintf(w->wall, sizeof w->wall, "%.255s", report.text);
    r = supervisor_watch(s, pidfd, on_process_end, w, &w->watch);
    if (r >= 0)
        return 0;
    process_abandon(w->ops, w->instance, pidfd);
    w->instance = NULL;
    return error_set(err, r, "a worker cannot be watched");
}

static int worker_start(struct supervisor_worker *w, const struct supervisor_worker_spec *spec, struct error *err)
{
    static const struct bus_conn_events bus_events = {.message = on_message, .gone = on_gone};
    struct supervisor *s = w->supervisor;
    int pair[2];
    int r = uid_take(s, &w->uid_index);
    if (r < 0)
        return error_set(err, r, "all uids for replicas are in use; raise spec.uids.count");
    if (spec->machine)
        return worker_spawn(w, spec, -1, err);
    r = bus_pair(pair, err);
    if (r < 0)
        return r;
    _close_ int ours = pair[0], theirs = pair[1];
    enum bus_role peer = spec->ingest ? BUS_INGEST : BUS_WORKER;
    r = bus_conn_open(s->loop, ours, BUS_SUPERVISOR, peer, &bus_events, w, &w->bus);
    if (r < 0)
        return error_set(err, r, "a worker cannot be spoken to");
    (void)take_fd(&ours);
    return worker_spawn(w, spec, theirs, err);
}

int supervisor_worker_start(struct supervisor *s, const struct supervisor_worker_spec *spec,
                            const struct supervisor_worker_events *events, void *owner,
                            struct supervisor_worker **ret_worker, struct error *err)
{
    struct supervisor_worker *w = calloc(1, sizeof *w);
    if (!w)
        return error_set_default(err, ERROR_NO_MEMORY);
    w->supervisor = s;
    w->ops = isolate_find(spec->level);
    w->events = events;
    w->owner = owner;
    w->cpus_own = spec->cpus != NULL;
    list_append(&s->workers, &w->in_all);
    int r = worker_start(w, spec, err);
    if (r < 0) {
        supervisor_worker_free(w);
        return r;
    }
    *ret_worker = w;
    return 0;
}
