/* Control and gateway: start, configure, introduce to each other, start again. */
#include "supervisor/supervisor_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define RESTART_DELAY_MIN_MS 50u
#define RESTART_DELAY_MAX_MS 5000u
#define STABLE_NS            (10 * NS_PER_S) /* after so long a life the back-off starts anew */

static const enum bus_role child_bus[CHILD_COUNT] = {[CHILD_CONTROL] = BUS_CONTROL, [CHILD_GATEWAY] = BUS_GATEWAY};

static int child_index(const struct supervisor_child *c)
{
    return (int)(c - c->supervisor->children);
}

void supervisor_tell(struct supervisor *s, int child, enum bus_type type, const void *body, const int *fds,
                     uint32_t n_fds)
{
    (void)bus_conn_send(s->children[child].bus, type, body, fds,
                        n_fds); /* a gone peer is told everything on its return */
}

static void on_ready(struct supervisor_child *c)
{
    struct supervisor *s = c->supervisor;
    c->ready = true;
    if (s->children[CHILD_CONTROL].ready && s->children[CHILD_GATEWAY].ready && !s->draining)
        log_info("serving", "listen=%s slots=%u isolation=\"%s\"", s->listen_text, s->config->devices[0].slots,
                 s->levels[ISOLATE_PROCESS].report.text);
}

static void on_role_drained(struct supervisor_child *c)
{
    struct supervisor *s = c->supervisor;
    if (child_index(c) == CHILD_GATEWAY)
        s->gateway_drained = true;
    else
        s->control_drained = true;
    supervisor_drain_step(s);
}

/* The matrix of messages lets no others through. */
static void on_message(void *ctx, struct bus_message *m)
{
    struct supervisor_child *c = ctx;
    struct supervisor *s = c->supervisor;
    if (m->type == BUS_READY)
        on_ready(c);
    else if (m->type == BUS_DRAINED)
        on_role_drained(c);
    else if (m->type == BUS_REPLICA_START)
        supervisor_replica_start(s, &m->body.REPLICA_START, m->fds[0], m->fds[1]);
    else if (m->type == BUS_REPLICA_STOP)
        supervisor_replica_stop(s, m->body.REPLICA_STOP.replica_uid, m->body.REPLICA_STOP.reason);
    else if (m->type == BUS_ISOLATION_WANTED)
        supervisor_isolation_wanted(s, &m->body.ISOLATION_WANTED);
    else if (m->type == BUS_POOL)
        supervisor_pools_want(s, m->body.POOL.engines);
    else if (m->type == BUS_LOOK)
        supervisor_look(s, &m->body.LOOK);
    else if (m->type == BUS_INGEST_START)
        supervisor_ingest_start(s, &m->body.INGEST_START, m->fds[0], m->fds[1]);
    else if (m->type == BUS_INGEST_STOP)
        supervisor_ingest_stop(s, m->body.INGEST_STOP.id);
    else if (m->type == BUS_ADAPTER_GIVE)
        supervisor_adapter_give(s, &m->body.ADAPTER_GIVE, m->fds[0]);
    else if (m->type == BUS_CHANNEL_SEALED)
        supervisor_replica_sealed(s, &m->body.CHANNEL_SEALED);
}

static void on_gone(void *ctx, int code)
{
    struct supervisor_child *c = ctx;
    c->bus = NULL;
    if (code == -ERROR_PEER && c->pid > 0) {
        log_error("role_protocol", "the %s process broke the protocol of the bus", c->role->name);
        (void)uv_kill(c->pid, SIGKILL); /* our own child, not yet reaped: the pid is still its */
    }
}

static void on_restart(uv_timer_t *timer)
{
    struct supervisor_child *c = timer->data;
    struct error err = {0};
    if (c->supervisor->draining)
        return;
    int r = supervisor_child_start(c, &err);
    if (r < 0) {
        log_alert("role_restart", "%s", error_text(&err, r));
        (void)uv_timer_start(timer, on_restart, RESTART_DELAY_MAX_MS, 0);
    }
}

static void child_forget(struct supervisor_child *c)
{
    supervisor_unwatch(&c->watch);
    fd_close(&c->pidfd);
    bus_conn_close(c->bus);
    c->bus = NULL;
    c->pid = 0;
    c->ready = false;
}

void supervisor_child_end(struct supervisor_child *c)
{
    char text[64];
    if (c->pid > 0) {
        (void)kill(c->pid, SIGKILL); /* our own child, not yet reaped */
        struct pollfd end = {.fd = c->pidfd, .events = POLLIN};
        while (!role_reap(c->pid, text))
            (void)poll(&end, 1, 1000); /* a killed child is gone within moments */
    }
    child_forget(c);
}

static void on_child_exit(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct supervisor_child *c = poll->data;
    struct supervisor *s = c->supervisor;
    char text[64];
    if (!role_reap(c->pid, text))
        return;
    child_forget(c);
    if (child_index(c) == CHILD_GATEWAY)
        supervisor_replicas_orphaned(s);
    else
        supervisor_ingests_kill(s); /* who waited for them waits no more */
    if (s->draining) {
        s->gateway_drained = s->gateway_drained || child_index(c) == CHILD_GATEWAY;
        s->control_drained = s->control_drained || child_index(c) == CHILD_CONTROL;
        supervisor_drain_step(s);
        return;
    }
    if (clock_monotonic_ns() - c->started_ns > STABLE_NS)
        c->failures = 0;
    uint32_t delay_ms = RESTART_DELAY_MIN_MS << (c->failures < 8 ? c->failures : 8);
    if (delay_ms > RESTART_DELAY_MAX_MS)
        delay_ms = RESTART_DELAY_MAX_MS;
    c->failures++;
    log_error("role_ended", "the %s process ended (%s); starting it again in %u ms", c->role->name, text, delay_ms);
    (void)uv_timer_start(&c->restart, on_restart, delay_ms, 0);
}

void supervisor_child_config(const struct supervisor_child *c, struct bus_role_config *ret_body)
{
    const struct supervisor *s = c->supervisor;
    const struct supervisor_config *config = s->config;
    *ret_body = (struct bus_role_config){
        .uid = config->uid_base + c->role->uid_offset,
        .gid = config->uid_base + c->role->uid_offset,
        .admin_gid = s->admin_gid,
        .fifo = config->fifo,
        .log_level = config->log_level,
        .connections_max = config->connections_max,
        .allow_unlimited = config->allow_unlimited,
        .memory_bytes = uv_get_total_memory(),
        .body_bytes_max = config->body_bytes_max,
        .head_timeout_ms = config->head_timeout_ms,
        .idle_timeout_ms = config->idle_timeout_ms,
        .write_timeout_ms = config->write_timeout_ms,
        .drain_timeout_ms = config->drain_timeout_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .share_interactive = config->share_interactive,
        .share_batch = config->share_batch,
        .n_devices = config->n_devices,
        .queue_bytes_max = config->queue_bytes_max,
        .bodies_bytes_max = config->bodies_bytes_max,
    };
    if (config->edge)
        ret_body->data_bytes_max =
            c == &s->children[CHILD_GATEWAY] ? LIMIT_EDGE_GATEWAY_BYTES : LIMIT_EDGE_CONTROL_BYTES;
    memcpy(ret_body->devices, config->devices, sizeof ret_body->devices);
    for (uint32_t i = 0; i < config->n_engines; i++) {
        struct bus_engine *engine = &ret_body->engines[i];
        (void)snprintf(engine->name, sizeof engine->name, "%s", config->engines[i].name);
        engine->id = supervisor_engine_id(s, i);
    }
    (void)snprintf(ret_body->listen, sizeof ret_body->listen, "%s", s->listen_text);
}

static int config_send(struct supervisor_child *c)
{
    const struct supervisor *s = c->supervisor;
    struct bus_role_config body;
    supervisor_child_config(c, &body);
    bool control = child_index(c) == CHILD_CONTROL;
    int fds[2] = {control ? s->admin_fd : s->listen_fd, control ? s->store_dir : s->empty_dir};
    int r = bus_conn_send(c->bus, BUS_ROLE_CONFIG, &body, fds, 2);
    if (r >= 0 && control)
        r = supervisor_isolation_tell(s, c->bus);
    struct bus_empty nothing = {0};
    if (r >= 0 && control && s->metrics_fd >= 0)
        r = bus_conn_send(c->bus, BUS_METRICS_LISTEN, &nothing, &s->metrics_fd, 1);
    return r;
}

/* A fresh conversation between control and gateway; each end learns of it at the same time. */
static int introduce(struct supervisor *s, struct error *err)
{
    if (!s->children[CHILD_CONTROL].bus || !s->children[CHILD_GATEWAY].bus)
        return 0;
    int pair[2];
    int r = bus_pair(pair, err);
    if (r < 0)
        return r;
    struct bus_empty nothing = {0};
    supervisor_tell(s, CHILD_CONTROL, BUS_PEER, &nothing, &pair[0], 1);
    supervisor_tell(s, CHILD_GATEWAY, BUS_PEER, &nothing, &pair[1], 1);
    fd_close(&pair[0]);
    fd_close(&pair[1]);
    return 0;
}

/* The process runs: watch it, speak to it, and introduce it. */
static int child_connect(struct supervisor_child *c, int *ours, struct error *err)
{
    static const struct bus_conn_events events = {.message = on_message, .gone = on_gone};
    struct supervisor *s = c->supervisor;
    int r = supervisor_watch(s, c->pidfd, on_child_exit, c, &c->watch);
    if (r >= 0)
        r = bus_conn_open(s->loop, *ours, BUS_SUPERVISOR, child_bus[child_index(c)], &events, c, &c->bus);
    if (r < 0)
        return error_set(err, r, "the %s process cannot be watched", c->role->name);
    (void)take_fd(ours);
    r = config_send(c);
    if (r < 0)
        return error_set(err, r, "the %s process does not take its configuration", c->role->name);
    supervisor_cores_tell(s, child_index(c));
    supervisor_replicas_tell(s, child_index(c));
    if (child_index(c) == CHILD_GATEWAY)
        supervisor_replicas_offer(s);
    return introduce(s, err);
}

int supervisor_child_start(struct supervisor_child *c, struct error *err)
{
    int pair[2];
    int r = bus_pair(pair, err);
    if (r < 0)
        return r;
    _close_ int ours = pair[0], theirs = pair[1];
    r = role_spawn(c->role, c->supervisor->config->program_fd, theirs, &c->pid, &c->pidfd, err);
    if (r < 0)
        return r;
    c->started_ns = clock_monotonic_ns();
    r = child_connect(c, &ours, err);
    if (r < 0)
        supervisor_child_end(c); /* half a child would be started a second time beside the first */
    return r;
}

void supervisor_child_setup(struct supervisor *s, int index, const char *role)
{
    struct supervisor_child *c = &s->children[index];
    *c = (struct supervisor_child){.supervisor = s, .role = role_find(role), .pidfd = -1};
    (void)uv_timer_init(s->loop, &c->restart); /* always succeeds */
    c->restart.data = c;
}
