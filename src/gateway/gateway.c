#include "gateway/gateway.h"

#include "base/clock.h"
#include "base/filter.h"
#include "base/log.h"
#include "base/random.h"
#include "bus/bus_loop.h"
#include "gateway/gateway_internal.h"
#include "role/role.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#define HOUSEKEEPING_MS   250u
#define CONFIG_TIMEOUT_MS 10000
/* The answer scratch: the JSON of outputs as large as the largest body, `false,` for a byte being the longest, with
 * names, shapes and the request's id. */
#define ANSWER_PER_BODY_BYTE 6u
#define ANSWER_BASE_BYTES    (64 * KIB)
/* Workers that answer faster than they are looked at keep the loop from its sockets for so many rounds at most. */
#define PREPARE_ROUNDS_MAX 16u

static void on_supervisor_gone(void *ctx, int code)
{
    (void)ctx;
    (void)code;
    _exit(0); /* nothing here outlives the supervisor, and nothing here needs saving */
}

/* --- one turn of the loop ---
 *
 * poll: sockets are read, requests are parsed and queued. check: results that came meanwhile, then leases for all that
 * was queued in this turn (so batches form by themselves). prepare: last look before sleeping. */

static void channels_pull(struct gateway *g)
{
    list_each_safe(node, &g->busy)
    {
        struct gateway_replica *replica = container_of(node, struct gateway_replica, in_busy);
        channel_unpark(replica->channel);
        gateway_replica_pull(replica);
    }
}

static void on_check(uv_check_t *check)
{
    struct gateway *g = check->data;
    channels_pull(g);
    gateway_dispatch(g);
    gateway_large_turn(g);
}

/* True when every channel is asleep: nothing came meanwhile. */
static bool channels_park(struct gateway *g)
{
    bool asleep = true;
    list_each_safe(node, &g->busy)
    {
        struct gateway_replica *replica = container_of(node, struct gateway_replica, in_busy);
        if (channel_park(replica->channel)) {
            gateway_replica_listen(replica);
            continue;
        }
        asleep = false;
        gateway_replica_pull(replica);
    }
    return asleep;
}

static void on_timer(uv_timer_t *timer);

static void timer_arm(struct gateway *g)
{
    uint64_t next_ns = schedule_wakeup(g->schedule);
    if (next_ns >= g->timer_ns) /* an earlier alarm is set: it looks again */
        return;
    uint64_t now_ns = uv_hrtime();
    uint64_t wait_ms = next_ns > now_ns ? (next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    uv_update_time(&g->loop);
    (void)uv_timer_start(&g->timer, on_timer, wait_ms, 0); /* fails only without a callback */
    g->timer_ns = next_ns;
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct gateway *g = prepare->data;
    gateway_dispatch(g);
    bool asleep = false;
    for (uint32_t i = 0; i < PREPARE_ROUNDS_MAX && !asleep; i++) {
        asleep = channels_park(g);
        if (!asleep)
            gateway_dispatch(g);
    }
    timer_arm(g);
    if (take(&g->look_again) || !asleep) { /* an alarm that is due: the loop looks at its sockets and comes back */
        (void)uv_timer_start(&g->timer, on_timer, 0, 0);
        g->timer_ns = 0;
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    g->timer_ns = UINT64_MAX;
    uint64_t now_ns = uv_hrtime();
    gateway_expire(g, now_ns);
    for (struct schedule_lease *lease; (lease = schedule_overdue(g->schedule, now_ns));) {
        struct gateway_replica *replica = gateway_lease_replica(lease);
        log_warn("lease_overdue", "tenant=%s model=%s: a lease took longer than its limit; ending the worker",
                 replica->version->tenant->name, replica->version->model);
        gateway_replica_kill(replica, BUS_STOP_OVERDUE);
    }
}

static void stats_send(struct gateway *g)
{
    struct wire_stats wire = {0};
    struct schedule_stats schedule;
    if (g->server)
        wire_server_stats(g->server, &wire);
    struct schedule_device_stats cpu;
    schedule_stats(g->schedule, &schedule);
    schedule_device_stats(g->schedule, 0, &cpu);
    g->stats.connections = wire.connections;
    g->stats.queued = (uint32_t)schedule.queued;
    struct schedule_device_stats own;
    schedule_device_stats(g->schedule, g->config.n_devices, &own);
    g->stats.slots = cpu.slots + own.slots;
    g->stats.slots_used = cpu.slots_used + own.slots_used;
    if (memcmp(&g->stats, &g->stats_sent, sizeof g->stats) == 0)
        return;
    if (bus_conn_send(g->control, BUS_STATS, &g->stats, NULL, 0) == 0)
        g->stats_sent = g->stats;
}

static void on_housekeeping(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    gateway_replicas_check(g, uv_hrtime());
    gateway_metrics_look(g);
    gateway_quotas_check(g, uv_hrtime());
    gateway_quotas_tell(g, false);
    gateway_now_tell(g);
    stats_send(g);
}

/* --- messages --- */

static void on_drained(void *ctx)
{
    struct gateway *g = ctx;
    struct bus_empty nothing = {0};
    gateway_quotas_tell(g, true);
    (void)bus_conn_send(g->supervisor, BUS_DRAINED, &nothing, NULL, 0); /* without it we end anyway */
}

static struct wire_config wire_config_of(const struct gateway *g)
{
    struct wire_config config;
    wire_config_default(&config);
    config.connections_max = g->config.connections_max;
    config.bodies_bytes_max = g->config.bodies_bytes_max;
    config.head_timeout_ms = g->config.head_timeout_ms;
    config.idle_timeout_ms = g->config.idle_timeout_ms;
    config.write_timeout_ms = g->config.write_timeout_ms;
    return config;
}

/* The supervisor sends only what it has checked, and of that only what may change. */
static void on_reload(struct gateway *g, const struct bus_role_config *body)
{
    g->config.log_level = body->log_level;
    g->config.connections_max = body->connections_max;
    g->config.head_timeout_ms = body->head_timeout_ms;
    g->config.idle_timeout_ms = body->idle_timeout_ms;
    g->config.write_timeout_ms = body->write_timeout_ms;
    g->config.request_timeout_ms = body->request_timeout_ms;
    log_setup("gateway", (enum log_level)g->config.log_level);
    struct wire_config config = wire_config_of(g);
    if (g->server)
        wire_server_limits_set(g->server, &config);
}

static int serve_start(struct gateway *g, int fd, struct error *err)
{
    struct wire_config config = wire_config_of(g);
    return wire_server_start(&g->loop, fd, &config, &gateway_wire_handler, g, &g->server, err);
}

static int listen_fd = -1; /* kept until the first catalog is there: no request is refused for want of one */

/* Once it has a catalog, and knows what was used before. */
static void serve_begin(struct gateway *g)
{
    struct error err = {0};
    if (g->server || g->draining || !g->catalog || !g->quotas.restored)
        return;
    int code = serve_start(g, listen_fd, &err);
    if (code < 0) {
        log_alert("listen", "%s", error_text(&err, code));
        _exit(1);
    }
    listen_fd = -1;
    struct bus_empty nothing = {0};
    (void)bus_conn_send(g->supervisor, BUS_READY, &nothing, NULL, 0); /* without it we end anyway */
}

static void on_catalog(struct gateway *g, struct bus_message *m)
{
    const struct bus_catalog *body = &m->body.CATALOG;
    struct bus_catalog_taken answer = {.generation = body->generation};
    int code = gateway_catalog_take(g, m->fds[0], body->bytes, &answer.error);
    if (code < 0)
        log_alert("catalog_refused", "a catalog was refused: %s", error_text(&answer.error, code));
    (void)bus_conn_send(g->control, BUS_CATALOG_TAKEN, &answer, NULL, 0); /* a gone control sends it again */
    serve_begin(g);
}

static void on_control_message(void *ctx, struct bus_message *m)
{
    struct gateway *g = ctx;
    if (m->type == BUS_CATALOG) {
        on_catalog(g, m);
    } else if (m->type == BUS_QUOTA_STORED) {
        gateway_quotas_stored(g, &m->body.QUOTA_STORED, m->fds[0]);
        serve_begin(g);
    } else if (m->type == BUS_DEMAND_REFUSED) {
        gateway_demand_refused(g, &m->body.DEMAND_REFUSED);
    } else if (m->type == BUS_ADAPTER_REFUSED) {
        gateway_adapter_refused(g, &m->body.ADAPTER_REFUSED);
    } else if (m->type == BUS_INFER) {
        gateway_bus_infer(g, &m->body.INFER, m->fds[0]);
    }
}

static void on_control_gone(void *ctx, int code)
{
    struct gateway *g = ctx;
    (void)code;
    g->control = NULL; /* the last catalog serves on; the supervisor introduces the next one */
    gateway_bus_infers_lost(g);
}

static void on_peer(struct gateway *g, struct bus_message *m)
{
    static const struct bus_conn_events events = {.message = on_control_message, .gone = on_control_gone};
    bus_conn_close(g->control);
    g->control = NULL;
    gateway_bus_infers_lost(g);
    if (bus_conn_open(&g->loop, m->fds[0], BUS_GATEWAY, BUS_CONTROL, &events, g, &g->control) < 0)
        return;
    m->fds[0] = -1;
    memset(&g->stats_sent, 0, sizeof g->stats_sent);
    gateway_metrics_tell(g);
    gateway_quotas_tell_all(g);
    gateway_replicas_tell(g);
}

static void on_drain(struct gateway *g)
{
    g->draining = true;
    gateway_replicas_drain(g);
    if (g->server)
        wire_server_drain(g->server, on_drained, g);
    else
        on_drained(g);
}

/* So many slots of the first device are for leases of replicas with cores of their own, and one at least is not. */
static void cores_take(struct gateway *g, uint32_t dedicated)
{
    uint32_t slots = g->config.devices[0].slots, own = dedicated < slots ? dedicated : slots - 1;
    schedule_device_resize(g->schedule, 0, slots - own, uv_hrtime());
    schedule_device_resize(g->schedule, g->config.n_devices, own, uv_hrtime());
}

/* The matrix of messages lets no others through. */
static void on_supervisor_message(void *ctx, struct bus_message *m)
{
    struct gateway *g = ctx;
    if (m->type == BUS_PEER)
        on_peer(g, m);
    else if (m->type == BUS_CHANNEL || m->type == BUS_CHANNEL_STREAM)
        gateway_replica_channel(g, &m->body.CHANNEL, m);
    else if (m->type == BUS_REPLICA_STATE)
        gateway_replica_state(g, &m->body.REPLICA_STATE);
    else if (m->type == BUS_CORES)
        cores_take(g, m->body.CORES.dedicated);
    else if (m->type == BUS_REPLICA_DRAIN)
        gateway_replica_drain(g, m->body.REPLICA_DRAIN.replica_uid);
    else if (m->type == BUS_ROLE_RELOAD)
        on_reload(g, &m->body.ROLE_RELOAD);
    else if (m->type == BUS_DRAIN)
        on_drain(g);
}

/* --- start --- */

static void routes_check(void)
{
    for (size_t i = 0; gateway_surfaces[i]; i++)
        for (size_t k = 0; k < gateway_surfaces[i]->n_routes; k++) {
            const struct gateway_route *route = &gateway_surfaces[i]->routes[k];
            assert(route->scope == GATEWAY_OPEN || route->scope == GATEWAY_TENANT);
            assert(route->path && route->handler && route->summary);
            assert(!route->metered || route->scope == GATEWAY_TENANT);
        }
}

static int scheduler_new(struct gateway *g)
{
    struct schedule_device_config devices[SCHEDULE_DEVICES_MAX];
    struct schedule_config config = {
        .devices = devices,
        .n_devices = g->config.n_devices + 1,
        .policy = g->config.fifo ? SCHEDULE_FIFO : SCHEDULE_FAIR,
        .share_permille =
            {[SCHEDULE_INTERACTIVE] = g->config.share_interactive, [SCHEDULE_BATCH] = g->config.share_batch},
        .queue_bytes_max = g->config.queue_bytes_max,
    };
    if (g->config.n_devices > LIMIT_DEVICES)
        return -ERROR_PEER;
    for (uint32_t i = 0; i < g->config.n_devices; i++)
        devices[i] = (struct schedule_device_config){g->config.devices[i].name, g->config.devices[i].slots};
    /* What is no name in a Server file: cores that replicas have of their own. It has what the first device lost. */
    devices[g->config.n_devices] = (struct schedule_device_config){"cpu/own", g->config.devices[0].slots};
    random_bytes(&config.seed, sizeof config.seed);
    int r = schedule_new(&config, &g->schedule);
    if (r >= 0)
        cores_take(g, 0);
    return r;
}

static int state_init(struct gateway *g, int bus_fd, struct error *err)
{
    static const struct bus_conn_events events = {.message = on_supervisor_message, .gone = on_supervisor_gone};
    map_init(&g->tenants, LIMIT_TENANTS * 2);
    slab_init(&g->tenants_slab, sizeof(struct gateway_tenant));
    map_init(&g->versions, LIMIT_MODELS * LIMIT_VERSIONS_SERVED * 2);
    map_init(&g->replicas, LIMIT_REPLICAS * 2);
    map_init(&g->requests, LIMIT_ADMIN_CONNECTIONS * 2);
    list_init(&g->lones_waiting);
    list_init(&g->lones_running);
    list_init(&g->busy);
    gateway_quotas_init(g);
    list_init(&g->look);
    list_init(&g->large);
    list_init(&g->connections);
    list_init(&g->requests_free);
    g->memory.bytes_max = g->config.bodies_bytes_max; /* as much again */
    buf_init(&g->answer, ANSWER_PER_BODY_BYTE * g->config.body_bytes_max + ANSWER_BASE_BYTES);
    g->timer_ns = UINT64_MAX;
    random_bytes(&g->shape_seed, sizeof g->shape_seed);
    random_bytes(g->cache_seeds, sizeof g->cache_seeds);
    g->sha = EVP_MD_fetch(NULL, "SHA256", NULL);
    g->sha_ctx = EVP_MD_CTX_new();
    if (!g->sha || !g->sha_ctx || uv_loop_init(&g->loop) < 0)
        return error_set(err, ERROR_NO_MEMORY, "the gateway cannot set itself up");
    int r = scheduler_new(g);
    if (r < 0)
        return error_set_default(err, r);
    r = gateway_metrics_start(g, err);
    if (r < 0)
        return r;
    r = gateway_bus_answers_start(g);
    if (r < 0)
        return error_set(err, r, "the gateway cannot set itself up");
    r = bus_conn_open(&g->loop, bus_fd, BUS_GATEWAY, BUS_SUPERVISOR, &events, g, &g->supervisor);
    return r < 0 ? error_set(err, r, "the gateway cannot speak to the supervisor") : 0;
}

static void reserve_closed(uv_handle_t *handle)
{
    (void)handle;
}

/* libuv opens a descriptor in reserve with its first stream, and libc its time zone with the first date: here, while
 * paths may still be opened. */
static int filter(struct gateway *g, struct error *err)
{
    static uv_tcp_t first;
    tzset();
    if (uv_tcp_init(&g->loop, &first) == 0)
        uv_close((uv_handle_t *)&first, reserve_closed);
    return filter_install(&filter_gateway, err);
}

/* All of these always succeed on a fresh loop. */
static void hooks_start(struct gateway *g)
{
    (void)uv_check_init(&g->loop, &g->check);
    (void)uv_prepare_init(&g->loop, &g->prepare);
    (void)uv_timer_init(&g->loop, &g->timer);
    (void)uv_timer_init(&g->loop, &g->housekeeping);
    (void)uv_timer_init(&g->loop, &g->quotas.timer);
    g->check.data = g->prepare.data = g->timer.data = g->housekeeping.data = g->quotas.timer.data = g;
    (void)uv_check_start(&g->check, on_check);
    (void)uv_prepare_start(&g->prepare, on_prepare);
    (void)uv_timer_start(&g->housekeeping, on_housekeeping, HOUSEKEEPING_MS, HOUSEKEEPING_MS);
}

static int configure(struct gateway *g, int bus_fd, struct error *err)
{
    struct bus_message m;
    int r = bus_wait(bus_fd, BUS_GATEWAY, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
    if (r < 0 || m.type != BUS_ROLE_CONFIG)
        return error_set(err, ERROR_PEER, "the gateway got no configuration");
    g->config = m.body.ROLE_CONFIG;
    listen_fd = take_fd(&m.fds[0]);
    int root = take_fd(&m.fds[1]);
    r = role_data_limit(g->config.data_bytes_max, err);
    if (r < 0)
        return r;
    return role_drop(role_find("gateway"), root, g->config.uid, g->config.gid, err);
}

int gateway_run(int bus_fd)
{
    static struct gateway gateway;
    struct gateway *g = &gateway;
    struct error err = {0};
    routes_check();
    role_ignore_sigpipe();
    int r = configure(g, bus_fd, &err);
    if (r >= 0) {
        log_setup("gateway", (enum log_level)g->config.log_level);
        r = state_init(g, bus_fd, &err);
    }
    if (r >= 0)
        r = filter(g, &err);
    if (r < 0) {
        log_alert("gateway_start", "%s", error_text(&err, r));
        return 1;
    }
    hooks_start(g);
    return uv_run(&g->loop, UV_RUN_DEFAULT);
}
