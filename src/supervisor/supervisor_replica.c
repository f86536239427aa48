/* Workers: start behind their wall, give them a channel, drain, kill, clean up. */
#include "supervisor/supervisor_internal.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define PAGE_BYTES 4096u
/* The inbox slot holds a lease: the inputs of a batch. Two of the largest bodies, so that one large request never waits
 * for an empty slot alone; memory is taken only where touched. */
#define SLOT_BODIES 2u

static const char *const stop_texts[BUS_STOP_COUNT] = {
    [BUS_STOP_WANTED] = "no longer needed",
    [BUS_STOP_DRAINED] = "no longer needed",
    [BUS_STOP_OVERDUE] = "a request took too long",
    [BUS_STOP_PROTOCOL] = "it broke the protocol of its channel",
    [BUS_STOP_LOAD] = "it could not load its model",
    [BUS_STOP_ISOLATION] = "this host lost its isolation level",
    [BUS_STOP_CORES] = "it was moved away from the processors that are its own",
};

static const bool moves[REPLICA_STATE_COUNT][REPLICA_STATE_COUNT] = {
    [REPLICA_OFFERED] = {[REPLICA_OFFERED] = true, [REPLICA_RUNNING] = true, [REPLICA_DYING] = true},
    [REPLICA_RUNNING] = {[REPLICA_OFFERED] = true, [REPLICA_DRAINING] = true, [REPLICA_DYING] = true},
    [REPLICA_DRAINING] = {[REPLICA_DYING] = true},
};

static void state_set(struct supervisor_replica *r, enum replica_state state)
{
    assert(r->state == 0 || moves[r->state][state]);
    r->state = state;
}

static void state_body(const struct supervisor_replica *r, enum bus_replica_phase phase, const char *text,
                       struct bus_replica_state *ret_body)
{
    *ret_body = (struct bus_replica_state){
        .replica_uid = r->start.replica_uid,
        .version_uid = r->start.version_uid,
        .model_uid = r->start.model_uid,
        .tenant_uid = r->start.tenant_uid,
        .phase = phase,
        .pid = r->worker ? r->worker->pid : 0,
        .uid = r->supervisor->config->uid_base + (r->worker ? r->worker->uid_index : 0),
        .level = r->start.level,
        .version_number = r->start.version_number,
        .wanted = r->wanted_end,
        .out_of_memory = r->out_of_memory,
        .shared_lost = r->shared_lost,
        .no_cores = r->no_cores,
        .lone = r->start.flags & BUS_START_LONE,
        .started_ms = r->started_ms,
    };
    memcpy(ret_body->engine, r->start.engine, sizeof ret_body->engine);
    memcpy(ret_body->tenant, r->start.tenant, sizeof ret_body->tenant);
    memcpy(ret_body->model, r->start.model, sizeof ret_body->model);
    (void)snprintf(ret_body->text, sizeof ret_body->text, "%s", text); /* may be cut */
}

static enum bus_replica_phase phase_of(const struct supervisor_replica *r)
{
    switch (r->state) {
    case REPLICA_OFFERED:
        return BUS_REPLICA_STARTING;
    case REPLICA_RUNNING:
        return BUS_REPLICA_RUNNING;
    case REPLICA_DRAINING:
    case REPLICA_DYING:
    case REPLICA_STATE_COUNT:
        break;
    }
    return BUS_REPLICA_STOPPING;
}

static void tell_both(struct supervisor_replica *r, enum bus_replica_phase phase, const char *text)
{
    struct bus_replica_state body;
    state_body(r, phase, text, &body);
    supervisor_tell(r->supervisor, CHILD_CONTROL, BUS_REPLICA_STATE, &body, NULL, 0);
    supervisor_tell(r->supervisor, CHILD_GATEWAY, BUS_REPLICA_STATE, &body, NULL, 0);
}

void supervisor_replicas_tell(struct supervisor *s, int child)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        struct bus_replica_state body;
        state_body(r, phase_of(r), r->wall, &body);
        supervisor_tell(s, child, BUS_REPLICA_STATE, &body, NULL, 0);
    }
    struct bus_empty nothing = {0};
    supervisor_tell(s, child, BUS_REPLICAS_TOLD, &nothing, NULL, 0);
}

static void replica_kill(struct supervisor_replica *r)
{
    if (r->state == REPLICA_DYING)
        return;
    state_set(r, REPLICA_DYING);
    channel_fds_close(&r->offered);
    fd_close(&r->control_fd);
    fd_close(&r->stream_fd);
    if (r->shared)
        supervisor_shared_leave(r, !r->mistrusted);
    else
        supervisor_worker_kill(r->worker);
}

static void replica_free(struct supervisor_replica *r)
{
    struct supervisor *s = r->supervisor;
    channel_fds_close(&r->offered);
    fd_close(&r->control_fd);
    fd_close(&r->stream_fd);
    if (r->shared)
        supervisor_shared_forget(r);
    supervisor_worker_free(r->worker);
    supervisor_cores_give(r);
    (void)map_remove(&s->replicas, r->start.replica_uid);
    free(r);
}

static void end_text(const struct supervisor_replica *r, int status, char text[static 256])
{
    if (r->stop_reason == BUS_STOP_ISOLATION)
        (void)snprintf(text, 256, "%s, %s: %.160s", stop_texts[BUS_STOP_ISOLATION], isolate_level_names[r->start.level],
                       r->supervisor->levels[r->start.level].report.text); /* cut is fine: control has the whole text */
    else if (r->stop_reason < BUS_STOP_COUNT && r->state == REPLICA_DYING && (r->wanted_end || r->stop_reason > 0))
        (void)snprintf(text, 256, "%s", stop_texts[r->stop_reason]);
    else if (r->shared_lost > 1)
        (void)snprintf(text, 256, "the worker that it shared with %u other replicas was lost%s%s", r->shared_lost - 1,
                       WIFSIGNALED(status) ? ", by signal: " : "",
                       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");
    else if (r->out_of_memory)
        (void)snprintf(text, 256, "it needed more memory than its spec.resources.memory of %llu MiB; raise that",
                       (unsigned long long)(r->start.memory_bytes / MIB));
    else if (WIFSIGNALED(status))
        (void)snprintf(text, 256, "the worker was ended by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(text, 256, "the worker ended with status %d", WEXITSTATUS(status));
}

void supervisor_replica_ended(struct supervisor_replica *r, int status, uint64_t oom_kills, uint32_t lost_with)
{
    struct supervisor *s = r->supervisor;
    bool unasked = !r->wanted_end && r->stop_reason == 0;
    r->shared_lost = r->state != REPLICA_DYING ? lost_with : 0; /* DYING: it was let go of, or is the reason itself */
    /* A worker whose child process was killed may live on and end otherwise; and of several models in one worker nobody
     * knows which took the memory. */
    r->out_of_memory = oom_kills > 0 && unasked && lost_with <= 1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    char text[256];
    end_text(r, status, text);
    if (r->wanted_end)
        log_info("replica_ended", "tenant=%s model=%s version=%u: %s", r->start.tenant, r->start.model,
                 r->start.version_number, text);
    else
        log_warn("replica_lost", "tenant=%s model=%s version=%u: %s", r->start.tenant, r->start.model,
                 r->start.version_number, text);
    tell_both(r, BUS_REPLICA_ENDED, text);
    replica_free(r);
    supervisor_drain_step(s);
}

static void on_worker_ended(void *owner, int status, uint64_t oom_kills)
{
    supervisor_replica_ended(owner, status, oom_kills, 0);
}

/* It closed its socket or said something, which a replica's worker has no reason to: either way it is over. */
static void on_worker_gone(void *owner)
{
    replica_kill(owner);
}

static void on_worker_message(void *owner, struct bus_message *m)
{
    (void)m;
    replica_kill(owner);
}

static const struct supervisor_worker_events worker_events = {
    .message = on_worker_message, .gone = on_worker_gone, .ended = on_worker_ended};

static int shared_join(struct supervisor_replica *r, int library_fd, struct error *err)
{
    static const char how[] = "shared, a worker that may host other tenants' models: ";
    int result = supervisor_shared_join(r, library_fd, err);
    if (result >= 0)
        (void)snprintf(r->wall, sizeof r->wall, "%s%.*s", how, (int)(sizeof r->wall - sizeof how), r->worker->wall);
    return result;
}

static void wall_text(struct supervisor_replica *r, const char *how)
{
    _buf_ struct buf b;
    buf_init(&b, 1 * KIB);
    buf_append_text(&b, how);
    if (r->start.flags & BUS_START_DEDICATED) {
        char cpus[128];
        isolate_cpus_text(&r->cpus, cpus, sizeof cpus);
        buf_format(&b, "on processors of its own, %s: ", cpus);
    }
    buf_append_text(&b, r->worker->wall);
    (void)snprintf(r->wall, sizeof r->wall, "%s", buf_terminate(&b)); /* cut is fine: for people */
}

int supervisor_worker_spawn(struct supervisor_replica *r, const struct isolate_machine *machine,
                            const struct isolate_image *image, int library_fd, struct error *err)
{
    bool own = r->start.flags & BUS_START_OWN;
    if (r->start.level == ISOLATE_SHARED && !own)
        return shared_join(r, library_fd, err);
    char name[64];
    (void)snprintf(name, sizeof name, "replica-%016llx", (unsigned long long)r->start.replica_uid);
    struct supervisor_worker_spec spec = {
        .name = name,
        .level = (enum isolate_level)r->start.level,
        .library_fd = library_fd,
        .limits = supervisor_worker_limits(r->start.memory_bytes, r->start.cpu_milli),
        .cpus = r->start.flags & BUS_START_DEDICATED ? &r->cpus : NULL,
        .runtime = (enum isolate_runtime)r->start.runtime,
        .image = image,
        .machine = machine,
    };
    const char *how = own                               ? "shared, a process for all tenants of this model: "
                      : r->start.flags & BUS_START_LONE ? "alone, for one request: "
                                                        : "";
    if (spec.level == ISOLATE_POOL) {
        how = "pool, a blank worker: ";
        r->worker = supervisor_pool_take(r->supervisor, r->start.engine, &spec.limits, spec.cpus);
    }
    if (r->worker) {
        r->worker->events = &worker_events;
        r->worker->owner = r;
    } else {
        how = spec.level == ISOLATE_POOL ? "pool, started for it (no blank worker was ready): " : how;
        int result = supervisor_worker_start(r->supervisor, &spec, &worker_events, r, &r->worker, err);
        if (result < 0)
            return result;
    }
    wall_text(r, how);
    return 0;
}

void supervisor_worker_config(const struct supervisor_replica *r, int library_fd, struct bus_worker_config *ret_body)
{
    *ret_body = (struct bus_worker_config){
        .replica_uid = r->start.replica_uid,
        .model_bytes = r->start.model_bytes,
        .memory_bytes = r->start.memory_bytes,
        .threads = (r->start.cpu_milli + 999) / 1000,
        .repack = (r->start.flags & BUS_START_REPACK) != 0,
        .library = supervisor_library_where(r->ops, library_fd),
    };
    memcpy(ret_body->engine, r->start.engine, sizeof ret_body->engine);
}

struct bus_conn *supervisor_replica_bus(const struct supervisor_replica *r)
{
    return r->shared ? r->bus : r->worker ? r->worker->bus : NULL;
}

static int worker_configure(struct supervisor_replica *r, int model_fd, int library_fd)
{
    struct bus_worker_config body;
    supervisor_worker_config(r, library_fd, &body);
    int fds[2] = {model_fd, body.library == BUS_LIBRARY_FD ? library_fd : model_fd};
    return bus_conn_send(supervisor_replica_bus(r), BUS_WORKER_CONFIG, &body, fds, 2);
}

void supervisor_channel_body(const struct supervisor_replica *r, struct bus_channel *ret_body)
{
    *ret_body = (struct bus_channel){
        .replica_uid = r->start.replica_uid,
        .version_uid = r->start.version_uid,
        .inbox_slot_bytes = r->geometry.inbox_slot_bytes,
        .outbox_slot_bytes = r->geometry.outbox_slot_bytes,
        .n_frames = r->geometry.n_frames,
        .n_slots = r->geometry.n_slots,
        .epoch = r->epoch,
    };
}

/* Makes a channel of the next epoch and offers its host end to the gateway. */
static int channel_offer(struct supervisor_replica *r, struct error *err)
{
    struct supervisor *s = r->supervisor;
    if (r->ops->machine)
        return supervisor_machine_offer(r, err);
    channel_fds_close(&r->offered);
    _cleanup_(channel_fds_close) struct channel_fds host = CHANNEL_FDS_NONE;
    int result = channel_create(&r->geometry, &host, &r->offered, err);
    if (result < 0)
        return result;
    r->epoch++;
    struct bus_channel body;
    supervisor_channel_body(r, &body);
    int fds[4] = {host.inbox, host.outbox, host.bell_guest, host.bell_host};
    supervisor_tell(s, CHILD_GATEWAY, BUS_CHANNEL, &body, fds, 4);
    return 0;
}

/* To the worker, once the gateway's end is sealed. */
static void channel_hand_over(struct supervisor_replica *r)
{
    struct bus_channel body;
    supervisor_channel_body(r, &body);
    int fds[4] = {r->offered.inbox, r->offered.outbox, r->offered.bell_guest, r->offered.bell_host};
    (void)bus_conn_send(supervisor_replica_bus(r), BUS_CHANNEL_GUEST, &body, fds,
                        4); /* a dead worker is seen by its pidfd */
    channel_fds_close(&r->offered);
}

void supervisor_replica_sealed(struct supervisor *s, const struct bus_channel_sealed *sealed)
{
    struct supervisor_replica *r = map_get(&s->replicas, sealed->replica_uid);
    if (!r || r->state != REPLICA_OFFERED || sealed->epoch != r->epoch)
        return; /* an answer to an older offer */
    struct error err = {0};
    int result = sealed->status;
    if (result >= 0 && !r->ops->machine) /* a stream shares no memory */
        result = channel_check_sealed(r->offered.inbox, &err);
    if (result < 0) {
        log_error("channel_refused", "tenant=%s model=%s: %s", r->start.tenant, r->start.model,
                  error_text(&err, result));
        replica_kill(r);
        return;
    }
    if (!r->ops->machine)
        channel_hand_over(r);
    state_set(r, REPLICA_RUNNING);
    tell_both(r, BUS_REPLICA_RUNNING, r->wall);
}

void supervisor_replicas_offer(struct supervisor *s)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        struct error err = {0};
        if (r->state != REPLICA_OFFERED)
            continue;
        int result = channel_offer(r, &err);
        if (result < 0) {
            log_error("channel_failed", "tenant=%s model=%s: %s", r->start.tenant, r->start.model,
                      error_text(&err, result));
            replica_kill(r);
        }
    }
}

void supervisor_replicas_orphaned(struct supervisor *s)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        bool lone = r->start.flags & BUS_START_LONE; /* its request has gone with the gateway */
        r->wanted_end = r->wanted_end || lone;
        if (r->state == REPLICA_DRAINING || lone)
            replica_kill(r);
        else if (r->state == REPLICA_RUNNING)
            state_set(r, REPLICA_OFFERED); /* the next gateway gets a fresh channel */
    }
}

static int start_valid(const struct supervisor *s, const struct bus_replica_start *start, struct error *err)
{
    if (s->replicas.count >= LIMIT_REPLICAS)
        return error_set(err, ERROR_LIMIT, "the server runs %u replicas already", LIMIT_REPLICAS);
    if (map_get(&s->replicas, start->replica_uid))
        return error_set(err, ERROR_CONFLICT, "a replica of this id runs already");
    if (start->runtime >= ISOLATE_RUNTIME_COUNT)
        return error_set(err, ERROR_INVALID_ARGUMENT, "there is no such OCI runtime");
    if ((start->flags & BUS_START_OWN) && start->level != ISOLATE_SHARED)
        return error_set(err, ERROR_INVALID_ARGUMENT, "only a replica of level shared may be a process of its own");
    if (start->cpu_milli == 0 || start->memory_bytes == 0 || start->cpu_milli / 1000 > s->config->devices[0].slots)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the limits of the replica are out of range");
    return 0;
}

static void replica_prepare(struct supervisor_replica *r, struct supervisor *s, const struct bus_replica_start *start)
{
    uint64_t slot = (SLOT_BODIES * s->config->body_bytes_max + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    *r = (struct supervisor_replica){
        .supervisor = s,
        .start = *start,
        .ops = isolate_find((enum isolate_level)start->level),
        .offered = CHANNEL_FDS_NONE,
        .control_fd = -1,
        .stream_fd = -1,
        .geometry = {LIMIT_CHANNEL_FRAMES, 1, slot, slot},
        .started_ms = clock_wall_ms(),
    };
}

static int replica_launch(struct supervisor_replica *r, int model_fd, int image_fd, struct error *err)
{
    struct supervisor *s = r->supervisor;
    int library_fd;
    int result = supervisor_library_of(s, r->start.engine, &library_fd);
    if (result < 0)
        return error_set(err, result, "this server has no engine \"%s\"", r->start.engine);
    result = supervisor_isolation_check(s, r->start.level, err);
    if (result >= 0)
        result = supervisor_cores_take(r, err);
    if (result < 0)
        return result;
    if (r->ops->machine)
        return supervisor_machine_launch(r, model_fd, library_fd, err);
    struct isolate_image image = {.fd = image_fd, .bytes = r->start.image_bytes};
    memcpy(image.sha256, r->start.image_sha256, sizeof image.sha256);
    result = supervisor_worker_spawn(r, NULL, image.bytes > 0 ? &image : NULL, library_fd, err);
    if (result < 0)
        return result;
    result = worker_configure(r, model_fd, library_fd);
    return result < 0 ? error_set(err, result, "a worker does not take its configuration") : channel_offer(r, err);
}

/* Control sends the same memory to all replicas of a version. Each gets an open file of its own: a position belongs to
 * the open file, and one worker could move another's, which reads. */
static int model_reopen(int fd, int *ret_fd, struct error *err)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fits */
    *ret_fd = open(path, O_RDWR | O_CLOEXEC);
    return *ret_fd < 0 ? error_set(err, ERROR_IO, "the model's memory cannot be opened: %s", strerrordesc_np(errno))
                       : 0;
}

void supervisor_replica_start(struct supervisor *s, const struct bus_replica_start *start, int model_fd, int image_fd)
{
    struct error err = {0};
    if (s->draining)
        return;
    struct supervisor_replica *r = calloc(1, sizeof *r);
    if (!r) { /* control would count on it for ever */
        struct supervisor_replica none;
        replica_prepare(&none, s, start);
        tell_both(&none, BUS_REPLICA_ENDED, error_info(-ERROR_NO_MEMORY)->text);
        return;
    }
    replica_prepare(r, s, start);
    int result = start_valid(s, start, &err);
    if (result >= 0 && map_put(&s->replicas, start->replica_uid, r) < 0)
        result = error_set_default(&err, ERROR_NO_MEMORY);
    if (result < 0) {
        tell_both(r, BUS_REPLICA_ENDED, error_text(&err, result));
        free(r);
        return;
    }
    state_set(r, REPLICA_OFFERED);
    _close_ int own_fd = -1;
    result = model_reopen(model_fd, &own_fd, &err);
    if (result >= 0)
        result = replica_launch(r, own_fd, image_fd, &err);
    if (result < 0) {
        log_error("replica_refused", "tenant=%s model=%s: %s", start->tenant, start->model, error_text(&err, result));
        if (r->worker) { /* ends through its pidfd */
            replica_kill(r);
            return;
        }
        tell_both(r, BUS_REPLICA_ENDED, error_text(&err, result));
        replica_free(r);
        return;
    }
    log_info("replica_started", "tenant=%s model=%s version=%u level=%s wall=\"%s\"", start->tenant, start->model,
             start->version_number, isolate_level_names[start->level], r->wall);
    tell_both(r, BUS_REPLICA_STARTING, r->wall);
}

void supervisor_replica_stop(struct supervisor *s, uint64_t uid, uint32_t reason)
{
    struct supervisor_replica *r = map_get(&s->replicas, uid);
    if (!r || reason >= BUS_STOP_ISOLATION || r->state == REPLICA_DYING) /* that reason is ours alone */
        return;
    if (r->state != REPLICA_DRAINING)
        r->stop_reason = reason;
    r->mistrusted = r->mistrusted || reason == BUS_STOP_OVERDUE || reason == BUS_STOP_PROTOCOL;
    if (reason == BUS_STOP_WANTED || reason == BUS_STOP_DRAINED)
        r->wanted_end = true;
    if (reason != BUS_STOP_WANTED || r->state == REPLICA_OFFERED) {
        replica_kill(r);
        return;
    }
    if (r->state == REPLICA_DRAINING)
        return;
    state_set(r, REPLICA_DRAINING);
    struct bus_replica body = {.replica_uid = uid, .reason = reason};
    supervisor_tell(s, CHILD_GATEWAY, BUS_REPLICA_DRAIN, &body, NULL, 0);
    tell_both(r, BUS_REPLICA_STOPPING, r->wall);
}

void supervisor_replicas_kill(struct supervisor *s)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        r->wanted_end = true;
        replica_kill(r);
    }
}

void supervisor_replica_displaced(struct supervisor_replica *r)
{
    if (r->state == REPLICA_DYING)
        return;
    r->stop_reason = BUS_STOP_CORES;
    replica_kill(r);
}

void supervisor_replicas_level_lost(struct supervisor *s, enum isolate_level level)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        if (r->start.level != level || r->state == REPLICA_DYING)
            continue;
        r->stop_reason = BUS_STOP_ISOLATION;
        r->mistrusted = true; /* all of its worker goes */
        replica_kill(r);
    }
}
