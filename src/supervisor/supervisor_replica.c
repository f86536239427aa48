/* Workers: start behind their wall, give them a channel, drain, kill, clean up. */
#include "supervisor/supervisor_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define PAGE_BYTES 4096u
/* The inbox slot holds a lease: the inputs of a batch. Two of the largest bodies, so that one large request never waits
 * for an empty slot alone; memory is taken only where touched. */
#define SLOT_BODIES 2u
/* Threads of a worker: one of ours, resources.cpu of the engine, and a few that its library keeps. */
#define PIDS_BASE  16u
#define WORKER_FDS 64u

static const char *const stop_texts[BUS_STOP_COUNT] = {
    [BUS_STOP_WANTED] = "no longer needed",          [BUS_STOP_DRAINED] = "no longer needed",
    [BUS_STOP_OVERDUE] = "a request took too long",  [BUS_STOP_PROTOCOL] = "it broke the protocol of its channel",
    [BUS_STOP_LOAD] = "it could not load its model", [BUS_STOP_ISOLATION] = "this host lost its isolation level",
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
        .pid = r->pid,
        .uid = r->supervisor->config->uid_base + r->uid_index,
        .level = r->start.level,
        .version_number = r->start.version_number,
        .wanted = r->wanted_end,
        .out_of_memory = r->out_of_memory,
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
    bus_conn_close(r->bus);
    r->bus = NULL;
    channel_fds_close(&r->offered);
    fd_close(&r->control_fd);
    fd_close(&r->stream_fd);
    r->ops->kill(r->instance);
}

static void replica_free(struct supervisor_replica *r)
{
    struct supervisor *s = r->supervisor;
    supervisor_unwatch(&r->watch);
    bus_conn_close(r->bus);
    channel_fds_close(&r->offered);
    fd_close(&r->control_fd);
    fd_close(&r->stream_fd);
    if (r->uid_index > 0)
        s->uids_used[r->uid_index] = 0;
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
    else if (r->out_of_memory)
        (void)snprintf(text, 256, "it needed more memory than its spec.resources.memory of %llu MiB; raise that",
                       (unsigned long long)(r->start.memory_bytes / MIB));
    else if (WIFSIGNALED(status))
        (void)snprintf(text, 256, "the worker was ended by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(text, 256, "the worker ended with status %d", WEXITSTATUS(status));
}

static void on_worker_exit(uv_poll_t *poll, int poll_status, int events)
{
    (void)poll_status;
    (void)events;
    struct supervisor_replica *r = poll->data;
    struct supervisor *s = r->supervisor;
    struct isolate_usage usage = {0};
    int status = 0;
    (void)uv_poll_stop(poll); /* before discard closes the pidfd: its number may be another's at once */
    if (r->ops->usage(r->instance, &usage, NULL) < 0)
        usage.oom_kills = 0;
    if (r->ops->discard(r->instance, &status) < 0) {
        (void)uv_poll_start(poll, UV_READABLE, on_worker_exit); /* still there */
        return;
    }
    r->instance = NULL;
    /* A worker whose child process was killed may live on and end otherwise. */
    r->out_of_memory = usage.oom_kills > 0 && !r->wanted_end && r->stop_reason == 0 && WIFSIGNALED(status) &&
                       WTERMSIG(status) == SIGKILL;
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

static void on_worker_message(void *ctx, struct bus_message *m)
{
    (void)ctx; /* the matrix lets a worker send nothing */
    (void)m;
}

static void on_worker_gone(void *ctx, int code)
{
    struct supervisor_replica *r = ctx;
    (void)code;
    r->bus = NULL;
    replica_kill(r); /* it closed its socket or sent something: either way it is over */
}

int supervisor_uid_take(struct supervisor *s, uint32_t *ret_index)
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

void supervisor_abandon(const struct isolate_ops *ops, struct isolate_instance *instance, int pidfd)
{
    int status;
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    ops->kill(instance);
    while (ops->discard(instance, &status) < 0)
        (void)poll(&end, 1, 1000); /* a killed worker is gone within moments */
}

int supervisor_worker_spawn(struct supervisor_replica *r, int bus_fd, const struct isolate_machine *machine,
                            int library_fd, struct error *err)
{
    struct supervisor *s = r->supervisor;
    static const char *const argv[] = {"bulkhead-worker", NULL};
    char name[64];
    (void)snprintf(name, sizeof name, "replica-%016llx", (unsigned long long)r->start.replica_uid);
    uint32_t cores = (r->start.cpu_milli + 999) / 1000;
    struct isolate_spawn spawn = {
        .name = name,
        .program_fd = s->config->worker_fd,
        .library_fd = library_fd,
        .argv = argv,
        .fds = &bus_fd,
        .n_fds = machine ? 0 : 1,
        .machine = machine,
        /* A worker is hostile: it gets no say in our log, unless an operator debugs. */
        .stderr_fd = s->config->log_level >= LOG_LEVEL_DEBUG ? STDERR_FILENO : -1,
        .uid = s->config->uid_base + r->uid_index,
        .gid = s->config->uid_base + r->uid_index,
        .limits = {.memory_bytes = r->start.memory_bytes,
                   .cpu_milli = r->start.cpu_milli,
                   .pids = PIDS_BASE + 2 * cores,
                   .file_bytes = LIMIT_REPLICA_TMP_BYTES, /* there is nowhere else to write */
                   .fds = WORKER_FDS},
        .filter = true,
        .limits_required = !s->config->allow_unlimited,
    };
    int pidfd;
    int result = r->ops->spawn(&spawn, &r->instance, &pidfd, err);
    if (result == -ERROR_ISOLATION_UNAVAILABLE)
        supervisor_isolation_probe(s, (enum isolate_level)r->start.level); /* it was available: has it been lost? */
    if (result < 0)
        return result;
    struct isolate_report report;
    r->ops->explain(r->instance, &report);
    r->pid = report.pid;
    (void)snprintf(r->wall, sizeof r->wall, "%.255s", report.text);
    result = supervisor_watch(s, pidfd, on_worker_exit, r, &r->watch);
    if (result >= 0)
        return 0;
    supervisor_unwatch(&r->watch);
    supervisor_abandon(r->ops, r->instance, pidfd);
    r->instance = NULL;
    return error_set(err, result, "a worker cannot be watched");
}

void supervisor_worker_config(const struct supervisor_replica *r, int library_fd, struct bus_worker_config *ret_body)
{
    *ret_body = (struct bus_worker_config){
        .replica_uid = r->start.replica_uid,
        .model_bytes = r->start.model_bytes,
        .threads = (r->start.cpu_milli + 999) / 1000,
        .library = library_fd < 0     ? BUS_LIBRARY_NONE
                   : r->ops->own_root ? BUS_LIBRARY_ROOT
                                      : BUS_LIBRARY_FD,
    };
    memcpy(ret_body->engine, r->start.engine, sizeof ret_body->engine);
}

static int worker_configure(struct supervisor_replica *r, int model_fd, int library_fd)
{
    struct bus_worker_config body;
    supervisor_worker_config(r, library_fd, &body);
    int fds[2] = {model_fd, body.library == BUS_LIBRARY_FD ? library_fd : model_fd};
    return bus_conn_send(r->bus, BUS_WORKER_CONFIG, &body, fds, 2);
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
    (void)bus_conn_send(r->bus, BUS_CHANNEL_GUEST, &body, fds, 4); /* a dead worker is seen by its pidfd */
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
        if (r->state == REPLICA_DRAINING)
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
    if (start->cpu_milli == 0 || start->memory_bytes == 0 || start->cpu_milli / 1000 > s->config->slots)
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

static int replica_launch(struct supervisor_replica *r, int model_fd, struct error *err)
{
    static const struct bus_conn_events events = {.message = on_worker_message, .gone = on_worker_gone};
    struct supervisor *s = r->supervisor;
    int library_fd, pair[2];
    int result = supervisor_library_of(s, r->start.engine, &library_fd);
    if (result < 0)
        return error_set(err, result, "this server has no engine \"%s\"", r->start.engine);
    result = supervisor_isolation_check(s, r->start.level, err);
    if (result < 0)
        return result;
    result = supervisor_uid_take(s, &r->uid_index);
    if (result < 0)
        return error_set(err, result, "all uids for replicas are in use; raise spec.uids.count");
    if (r->ops->machine)
        return supervisor_machine_launch(r, model_fd, library_fd, err);
    result = bus_pair(pair, err);
    if (result < 0)
        return result;
    _close_ int ours = pair[0], theirs = pair[1];
    result = supervisor_worker_spawn(r, theirs, NULL, library_fd, err);
    if (result < 0)
        return result;
    result = bus_conn_open(s->loop, ours, BUS_SUPERVISOR, BUS_WORKER, &events, r, &r->bus);
    if (result < 0)
        return error_set(err, result, "a worker cannot be spoken to");
    (void)take_fd(&ours);
    result = worker_configure(r, model_fd, library_fd);
    return result < 0 ? error_set(err, result, "a worker does not take its configuration") : channel_offer(r, err);
}

void supervisor_replica_start(struct supervisor *s, const struct bus_replica_start *start, int model_fd)
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
    result = replica_launch(r, model_fd, &err);
    if (result < 0) {
        log_error("replica_refused", "tenant=%s model=%s: %s", start->tenant, start->model, error_text(&err, result));
        if (r->instance) { /* ends through its pidfd */
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

void supervisor_replicas_level_lost(struct supervisor *s, enum isolate_level level)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        if (r->start.level != level || r->state == REPLICA_DYING)
            continue;
        r->stop_reason = BUS_STOP_ISOLATION;
        replica_kill(r);
    }
}
