#include "supervisor/supervisor.h"

#include "base/filter.h"
#include "base/hash.h"
#include "base/log.h"
#include "supervisor/supervisor_internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int supervisor_watch(struct supervisor *s, int fd, uv_poll_cb callback, void *data, uv_poll_t **ret_poll)
{
    uv_poll_t *poll = calloc(1, sizeof *poll);
    if (!poll)
        return -ERROR_NO_MEMORY;
    if (uv_poll_init(s->loop, poll, fd) < 0) {
        free(poll);
        return -ERROR_IO;
    }
    poll->data = data;
    *ret_poll = poll;
    return uv_poll_start(poll, UV_READABLE, callback) < 0 ? -ERROR_IO : 0;
}

static void watch_closed(uv_handle_t *handle)
{
    free(handle);
}

void supervisor_unwatch(uv_poll_t **poll)
{
    if (*poll)
        uv_close((uv_handle_t *)*poll, watch_closed);
    *poll = NULL;
}

/* The end, in this order: gateway drained → workers gone → control has closed the store → stop. */
void supervisor_drain_step(struct supervisor *s)
{
    if (!s->draining || !s->gateway_drained)
        return;
    if (s->replicas.count + s->ingests.count + supervisor_pools_count(s) + supervisor_shared_count(s) > 0) {
        supervisor_replicas_kill(s);
        return;
    }
    if (!s->control_drained) {
        struct bus_empty nothing = {0};
        supervisor_tell(s, CHILD_CONTROL, BUS_DRAIN, &nothing, NULL, 0);
        if (s->children[CHILD_CONTROL].bus)
            return;
    }
    uv_stop(s->loop);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    log_warn("drain_timeout", "requests were still running after %u ms; ending them", s->config->drain_timeout_ms);
    if (s->gateway_drained && s->replicas.count == 0) {
        uv_stop(s->loop);
        return;
    }
    s->gateway_drained = true;
    supervisor_replicas_kill(s);
    supervisor_drain_step(s);
    (void)uv_timer_start(timer, on_drain_timeout, 2000, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct supervisor *s = handle->data;
    if (number == SIGHUP) {
        if (!s->draining) {
            supervisor_reload(s);
            supervisor_isolation_probe_all(s);
        }
        return;
    }
    if (s->draining) {
        log_warn("drain_again", "signal %d again: ending at once", number);
        uv_stop(s->loop);
        return;
    }
    log_info("draining", "signal %d: no new requests; the running ones are answered", number);
    s->draining = true;
    supervisor_pools_kill(s);
    supervisor_ingests_kill(s); /* their applies are refused: the server is shutting down */
    struct bus_empty nothing = {0};
    if (s->children[CHILD_GATEWAY].bus)
        supervisor_tell(s, CHILD_GATEWAY, BUS_DRAIN, &nothing, NULL, 0);
    else
        s->gateway_drained = true;
    (void)uv_timer_start(&s->drain_timer, on_drain_timeout, s->config->drain_timeout_ms, 0);
    supervisor_drain_step(s);
}

/* Names this server's cgroups: stable for a data folder, so that a new server finds what a killed one left. */
static void scope_name(const struct supervisor *s, char scope[static 32])
{
    struct stat info = {0};
    (void)fstat(s->data_dir, &info); /* of an open descriptor: cannot fail */
    uint64_t parts[2] = {(uint64_t)info.st_dev, (uint64_t)info.st_ino};
    (void)snprintf(scope, 32, "d%016llx",
                   (unsigned long long)hash_bytes((struct hash_seed){0, 0}, parts, sizeof parts));
}

static int start(struct supervisor *s, struct error *err)
{
    if (geteuid() != 0)
        return error_set(
            err, ERROR_REFUSED,
            "the server needs root to give each worker its own user, network namespace and limits; start it "
            "with sudo");
    int r = supervisor_data_open(s, err);
    if (r >= 0) {
        char scope[32];
        scope_name(s, scope);
        r = supervisor_isolation_open(s, scope, err);
    }
    for (int i = 0; r >= 0 && i < CHILD_COUNT; i++)
        r = supervisor_child_start(&s->children[i], err);
    if (r < 0)
        return r;
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};
    for (int i = 0; i < 3; i++) {
        (void)uv_signal_init(s->loop, &s->signals[i]); /* both fail only without memory for the first signal pipe */
        s->signals[i].data = s;
        (void)uv_signal_start(&s->signals[i], on_signal, numbers[i]);
    }
    return 0;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL); /* ours with memory of their own are closed before */
}

/* Everything down: the children die with their sockets or are killed, the loop is emptied. */
static void finish(struct supervisor *s)
{
    for (int i = 0; i < CHILD_COUNT; i++)
        supervisor_child_end(&s->children[i]); /* workers' ends are told to nobody from here on */
    supervisor_replicas_kill(s);
    supervisor_ingests_kill(s);
    supervisor_pools_kill(s);
    while (s->replicas.count + s->ingests.count + supervisor_pools_count(s) + supervisor_shared_count(s) > 0)
        (void)uv_run(s->loop, UV_RUN_ONCE); /* each ends through its pidfd */
    supervisor_workers_close(s);
    supervisor_isolation_close(s);
    uv_walk(s->loop, close_handle, NULL);
    (void)uv_run(s->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(s->loop); /* empty by now */
    map_done(&s->ingests);
    map_done(&s->replicas);
    supervisor_data_close(s);
    free(s->uids_used);
}

int supervisor_run(const struct supervisor_config *config, struct error *err)
{
    uv_loop_t loop;
    /* Before the loop, which would make itself an io_uring where libuv is new: children inherit the refusal, too. */
    int r = filter_install(&filter_supervisor, err);
    if (r < 0)
        return 1;
    if (uv_loop_init(&loop) < 0)
        return error_set(err, ERROR_NO_MEMORY, "no event loop");
    role_ignore_sigpipe();
    (void)umask(022); /* what must be closed to others gets its own mode */
    struct supervisor s = {.config_now = *config,
                           .config = &s.config_now,
                           .loop = &loop,
                           .data_dir = -1,
                           .store_dir = -1,
                           .empty_dir = -1,
                           .lock = -1,
                           .listen_fd = -1,
                           .admin_fd = -1,
                           .metrics_fd = -1};
    map_init(&s.replicas, LIMIT_REPLICAS);
    map_init(&s.ingests, LIMIT_INGESTS);
    s.uids_used = calloc(config->uid_count, 1);
    supervisor_pools_open(&s);
    supervisor_shared_open(&s);
    supervisor_workers_open(&s);
    supervisor_cores_open(&s);
    supervisor_child_setup(&s, CHILD_CONTROL, "control");
    supervisor_child_setup(&s, CHILD_GATEWAY, "gateway");
    (void)uv_timer_init(s.loop, &s.drain_timer); /* always succeeds */
    s.drain_timer.data = &s;
    r = s.uids_used ? start(&s, err) : error_set_default(err, ERROR_NO_MEMORY);
    if (r >= 0)
        (void)uv_run(s.loop, UV_RUN_DEFAULT); /* returns after uv_stop */
    finish(&s);
    if (r >= 0)
        log_info("stopped", "all processes ended");
    return r < 0 ? 1 : s.exit_status;
}
