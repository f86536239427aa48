#include "control/control.h"

#include "base/clock.h"
#include "base/filter.h"
#include "base/log.h"
#include "control/control_internal.h"
#include "control/control_run.h"
#include "role/role.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_TIMEOUT_MS 10000
#define TICK_MS           50u
/* The engines of this build. The list in engine_registry.c is the worker's; a test compares the two. */
static const struct {
    const char *name;
    bool shared; /* ENGINE_SHARED: several models in one process */
    bool lends;  /* ENGINE_TOKENS: sequences of several tenants in one model */
} engines[] = {{"identity", true, false}, {"llama", false, true}, {"onnx", true, false}};

struct registry *control_registry(struct control *c)
{
    return c->registry;
}

/* --- what the registry asks --- */

static bool engine_known(void *ctx, struct str name)
{
    (void)ctx;
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (str_equal(name, str_from(engines[i].name)))
            return true;
    return false;
}

static bool engine_shared(void *ctx, struct str name)
{
    (void)ctx;
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (str_equal(name, str_from(engines[i].name)))
            return engines[i].shared || engines[i].lends;
    return false;
}

static bool engine_lends(void *ctx, struct str name)
{
    (void)ctx;
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        if (str_equal(name, str_from(engines[i].name)))
            return engines[i].lends;
    return false;
}

static uint64_t engine_id(void *ctx, struct str name)
{
    struct control *c = ctx;
    for (uint32_t i = 0; i < BUS_ENGINES_MAX; i++)
        if (str_equal(name, str_from(c->config.engines[i].name)))
            return c->config.engines[i].id;
    return 0;
}

bool control_peer_allowed(const struct control *c, uid_t uid)
{
    if (uid == 0 || uid == c->config.uid)
        return true;
    /* A member by a supplementary group does not show it here; only the kernel's check of the mode did. */
    return c->config.admin_gid != UINT32_MAX;
}

/* --- messages --- */

static void on_metrics(struct control *c, int fd)
{
    const struct bus_metrics *m;
    int r = bus_metrics_map(fd, &m);
    if (r < 0) {
        log_error("metrics_refused", "the gateway's figures cannot be read: %s", error_info(r)->text);
        return;
    }
    bus_metrics_unmap(c->metrics);
    c->metrics = m;
}

/* The matrix of messages lets no others through. */
static void on_gateway_message(void *ctx, struct bus_message *m)
{
    struct control *c = ctx;
    if (m->type == BUS_CATALOG_TAKEN)
        control_publish_taken(c, &m->body.CATALOG_TAKEN);
    else if (m->type == BUS_DEMAND)
        control_demand(c, &m->body.DEMAND);
    else if (m->type == BUS_DEMAND_LONE)
        control_demand_lone(c, &m->body.DEMAND_LONE);
    else if (m->type == BUS_DEMAND_ADAPTER)
        control_demand_adapter(c, &m->body.DEMAND_ADAPTER);
    else if (m->type == BUS_REPLICA_LOADED)
        control_replica_loaded(c, &m->body.REPLICA_LOADED);
    else if (m->type == BUS_REPLICA_BLOCKED)
        control_replica_blocked(c, &m->body.REPLICA_BLOCKED);
    else if (m->type == BUS_REPLICA_ADAPTER)
        control_replica_adapter(c, &m->body.REPLICA_ADAPTER);
    else if (m->type == BUS_INFER_DONE)
        control_infer_done(c, &m->body.INFER_DONE, m->fds[0]);
    else if (m->type == BUS_QUOTA_USED)
        control_quota_used(c, &m->body.QUOTA_USED, m->fds[0]);
    else if (m->type == BUS_TENANTS_NOW)
        control_now_told(c, &m->body.TENANTS_NOW, m->fds[0]);
    else if (m->type == BUS_STATS)
        c->stats = m->body.STATS;
    else if (m->type == BUS_METRICS)
        on_metrics(c, m->fds[0]);
}

static void on_gateway_gone(void *ctx, int code)
{
    struct control *c = ctx;
    (void)code;
    c->gateway = NULL;
    control_infer_lost(c);
    control_now_lost(c);
    control_adapters_lost(c);
}

static void on_peer(struct control *c, struct bus_message *m)
{
    static const struct bus_conn_events events = {.message = on_gateway_message, .gone = on_gateway_gone};
    bus_conn_close(c->gateway);
    c->gateway = NULL;
    control_infer_lost(c);
    control_now_lost(c);
    control_adapters_lost(c);
    if (bus_conn_open(&c->loop, m->fds[0], BUS_CONTROL, BUS_GATEWAY, &events, c, &c->gateway) < 0)
        return;
    m->fds[0] = -1;
    control_publish_again(c);
}

static void on_admin_drained(void *ctx)
{
    struct control *c = ctx;
    struct registry *registry = c->registry;
    c->registry = NULL;
    control_copies_end(c);
    registry_close(registry);
    struct bus_empty nothing = {0};
    (void)bus_conn_send(c->supervisor, BUS_DRAINED, &nothing, NULL, 0); /* without it we end anyway */
    uv_stop(&c->loop);
}

static void metrics_start(struct control *c, struct bus_message *m)
{
    struct wire_config config;
    struct error err = {0};
    wire_config_default(&config);
    config.connections_max = LIMIT_ADMIN_CONNECTIONS;
    int r = c->metrics_server
                ? -ERROR_CONFLICT
                : wire_server_start(&c->loop, m->fds[0], &config, &manage_metrics_handler, c, &c->metrics_server, &err);
    if (r < 0)
        log_error("metrics_listen", "%s", error_text(&err, r));
    else
        m->fds[0] = -1;
}

static void on_supervisor_message(void *ctx, struct bus_message *m)
{
    struct control *c = ctx;
    if (m->type == BUS_PEER) {
        on_peer(c, m);
    } else if (m->type == BUS_REPLICA_STATE) {
        control_replica_state(c, &m->body.REPLICA_STATE);
    } else if (m->type == BUS_REPLICAS_TOLD) {
        c->told = true;
        control_reconcile(c);
    } else if (m->type == BUS_ISOLATION) {
        control_isolation(c, &m->body.ISOLATION);
    } else if (m->type == BUS_RUNTIME) {
        control_runtime(c, &m->body.RUNTIME);
    } else if (m->type == BUS_CORES) {
        control_cores(c, &m->body.CORES);
    } else if (m->type == BUS_REPLICA_FACTS) {
        control_explain_facts(c, &m->body.REPLICA_FACTS);
    } else if (m->type == BUS_LOOKED) {
        control_explain_looked(c, &m->body.LOOKED);
    } else if (m->type == BUS_INGEST_DONE) {
        control_ingest_done(c, &m->body.INGEST_DONE, m->fds[0]);
    } else if (m->type == BUS_INGEST_FAILED) {
        control_ingest_failed(c, &m->body.INGEST_FAILED);
    } else if (m->type == BUS_METRICS_LISTEN) {
        metrics_start(c, m);
    } else if (m->type == BUS_ROLE_RELOAD) {
        c->config.log_level = m->body.ROLE_RELOAD.log_level; /* the rest concerns the gateway */
        log_setup("control", (enum log_level)c->config.log_level);
    } else if (m->type == BUS_DRAIN) {
        wire_server_drain(c->admin, on_admin_drained, c);
    }
}

static void on_supervisor_gone(void *ctx, int code)
{
    (void)ctx;
    (void)code;
    _exit(0); /* what was acknowledged is on disk; nothing here outlives the supervisor */
}

static void on_tick(uv_timer_t *timer)
{
    struct control *c = timer->data;
    uint64_t now_ns = clock_monotonic_ns();
    control_publish_tick(c, now_ns);
    if (now_ns >= c->reconcile_at_ns)
        control_reconcile(c);
}

/* An idle server sleeps: the tick runs only while there is something to wait for. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct control *c = prepare->data;
    control_publish_flush(c);
    control_removals_look(c);
    bool wanted = control_publish_waits(c) || c->reconcile_at_ns != UINT64_MAX;
    bool active = uv_is_active((uv_handle_t *)&c->timer) != 0;
    if (wanted && !active)
        (void)uv_timer_start(&c->timer, on_tick, TICK_MS, TICK_MS); /* fails only on a closing handle */
    else if (!wanted && active)
        (void)uv_timer_stop(&c->timer);
}

/* --- start --- */

static bool memory_available(void *ctx, uint64_t *ret_bytes)
{
    static const char field[] = "\nMemAvailable:";
    const struct control *c = ctx;
    char text[2 * KIB]; /* it is the third line */
    ssize_t n = c->meminfo_fd >= 0 ? pread(c->meminfo_fd, text, sizeof text - 1, 0) : -1;
    text[n > 0 ? n : 0] = '\0';
    const char *at = strstr(text, field);
    if (!at)
        return false;
    at += sizeof field - 1;
    at += strspn(at, " ");
    uint64_t kib;
    if (str_to_u64((struct str){at, strspn(at, "0123456789")}, &kib) < 0 || kib > UINT64_MAX / KIB)
        return false;
    *ret_bytes = kib * KIB;
    return true;
}

static int registry_start(struct control *c, struct error *err)
{
    if (mkdir("/artifacts", 0700) < 0 && errno != EEXIST)
        return error_set(err, ERROR_IO, "the folder of artifacts cannot be made: %s", strerror(errno));
    int artifacts = open("/artifacts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (artifacts < 0)
        return error_set(err, ERROR_IO, "the folder of artifacts cannot be opened: %s", strerror(errno));
    struct registry_config config = {
        .store = &store_sqlite,
        .database = "/bulkhead.db",
        .artifacts_dir = artifacts, /* open for the life of the process */
        .devices = c->config.devices,
        .n_devices = c->config.n_devices,
        .memory_bytes_max = c->config.memory_bytes,
        .memory_available = memory_available,
        .level_refusal = control_level_refusal,
        .runtime_refusal = control_runtime_refusal,
        .cores_refusal = control_cores_refusal,
        .engine_known = engine_known,
        .engine_shared = engine_shared,
        .engine_lends = engine_lends,
        .engine_id = engine_id,
        .served = control_pool_served,
        .running = control_running,
        .adapter_loaded = control_adapter_loaded,
        .now = control_now,
        .ctx = c,
    };
    return registry_open(&config, &c->registry, err);
}

static int admin_start(struct control *c, int fd, struct error *err)
{
    struct wire_config config;
    wire_config_default(&config);
    config.connections_max = LIMIT_ADMIN_CONNECTIONS;
    return wire_server_start(&c->loop, fd, &config, &manage_admin_handler, c, &c->admin, err);
}

static int connect_all(struct control *c, int bus_fd, int admin_fd, struct error *err)
{
    static const struct bus_conn_events events = {.message = on_supervisor_message, .gone = on_supervisor_gone};
    map_init(&c->replicas, LIMIT_REPLICAS * 2);
    map_init(&c->versions, LIMIT_MODELS * LIMIT_VERSIONS_SERVED);
    map_init(&c->tenants_now, LIMIT_TENANTS);
    map_init(&c->infers, LIMIT_ADMIN_CONNECTIONS);
    map_init(&c->explains, LIMIT_ADMIN_CONNECTIONS);
    map_init(&c->ingests, LIMIT_INGESTS);
    list_init(&c->ingest_queue);
    list_init(&c->waiters);
    c->reconcile_at_ns = c->publish_at_ns = UINT64_MAX;
    c->pool_sent = UINT32_MAX;
    if (uv_loop_init(&c->loop) < 0)
        return error_set(err, ERROR_NO_MEMORY, "no event loop");
    (void)uv_prepare_init(&c->loop, &c->prepare); /* these always succeed on a fresh loop */
    (void)uv_timer_init(&c->loop, &c->timer);
    control_copies_init(c);
    control_removals_init(c);
    control_stores_init(c);
    c->prepare.data = c->timer.data = c;
    (void)uv_prepare_start(&c->prepare, on_prepare);
    int r = bus_conn_open(&c->loop, bus_fd, BUS_CONTROL, BUS_SUPERVISOR, &events, c, &c->supervisor);
    if (r < 0)
        return error_set(err, r, "control cannot speak to the supervisor");
    return admin_start(c, admin_fd, err);
}

static int configure(struct control *c, int bus_fd, int *ret_admin_fd, struct error *err)
{
    struct bus_message m;
    int r = bus_wait(bus_fd, BUS_CONTROL, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
    if (r < 0 || m.type != BUS_ROLE_CONFIG)
        return error_set(err, ERROR_PEER, "control got no configuration");
    c->config = m.body.ROLE_CONFIG;
    *ret_admin_fd = take_fd(&m.fds[0]);
    int root = take_fd(&m.fds[1]);
    /* Waited for, so that nothing is refused only because a report is still under way. */
    for (uint32_t i = 1; i < BUS_LEVEL_COUNT; i++) {
        r = bus_wait(bus_fd, BUS_CONTROL, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
        if (r < 0 || m.type != BUS_ISOLATION)
            return error_set(err, ERROR_PEER, "control was not told what this host can isolate");
        control_isolation(c, &m.body.ISOLATION);
    }
    for (uint32_t i = 1; i < BUS_RUNTIME_COUNT; i++) {
        r = bus_wait(bus_fd, BUS_CONTROL, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
        if (r < 0 || m.type != BUS_RUNTIME)
            return error_set(err, ERROR_PEER, "control was not told which OCI runtimes this host has");
        control_runtime(c, &m.body.RUNTIME);
    }
    c->meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    r = role_data_limit(c->config.data_bytes_max, err);
    if (r < 0)
        return r;
    return role_drop(role_find("control"), root, c->config.uid, c->config.gid, err);
}

int control_run(int bus_fd)
{
    static struct control control;
    struct control *c = &control;
    struct error err = {0};
    int admin_fd = -1;
    role_ignore_sigpipe();
    int r = configure(c, bus_fd, &admin_fd, &err);
    if (r >= 0) {
        log_setup("control", (enum log_level)c->config.log_level);
        r = registry_start(c, &err);
    }
    if (r >= 0)
        r = connect_all(c, bus_fd, admin_fd, &err);
    if (r >= 0)
        r = filter_install(&filter_control, &err);
    if (r < 0) {
        log_alert("control_start", "%s", error_text(&err, r));
        return 1;
    }
    struct bus_empty nothing = {0};
    (void)bus_conn_send(c->supervisor, BUS_READY, &nothing, NULL, 0); /* without it we end anyway */
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    return 0;
}
