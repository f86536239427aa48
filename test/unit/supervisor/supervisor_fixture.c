#include "supervisor_fixture.h"

#include "base/log.h"
#include "isolate/isolate_internal.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { ACTOR_FD = 3, MEMBERS_MAX = 64, ENDS_MAX = 256, UIDS = 64 };

struct stage stage;
struct script *script;

static struct {
    uv_loop_t loop;
    struct supervisor s;
    struct supervisor_config config;
    int control, gateway; /* the test's ends */
    struct bus_replica_state ends[CHILD_COUNT][ENDS_MAX];
    size_t n_ends[CHILD_COUNT];
    unsigned live; /* instances */
} world;

/* --- actors --- */

static void member_message(int fd, struct bus_message *m)
{
    struct bus_empty nothing = {0};
    if (m->type == BUS_WORKER_CONFIG && script->talks)
        (void)!bus_send(fd, BUS_WORKER, BUS_SUPERVISOR, BUS_BLANK_READY, &nothing, NULL, 0);
}

/* False: this conversation is over. */
static bool member_hears(int fd)
{
    struct bus_message m;
    int r = bus_recv(fd, BUS_WORKER, BUS_SUPERVISOR, &m);
    if (r == 0)
        return true;
    if (r < 0)
        return script->stuck;
    member_message(fd, &m);
    bool over = m.type == BUS_WORKER_CONFIG && script->hangs_up;
    bus_message_done(&m);
    return !over;
}

static _Noreturn void actor(void)
{
    struct pollfd fds[1 + MEMBERS_MAX] = {{.fd = ACTOR_FD, .events = POLLIN}};
    size_t n = 1;
    for (;;) {
        (void)poll(fds, n, -1);
        struct bus_message m;
        struct bus_empty nothing = {0};
        int r = fds[0].revents ? bus_recv(ACTOR_FD, BUS_WORKER, BUS_SUPERVISOR, &m) : 0;
        if (r < 0)
            _exit(0);
        if (r > 0 && m.type == BUS_WORKER_BLANK) {
            script->hosts = m.body.WORKER_BLANK.hosts;
            r = bus_send(ACTOR_FD, BUS_WORKER, BUS_SUPERVISOR, BUS_BLANK_READY, &nothing, NULL, 0);
        }
        if (r > 0 && m.type == BUS_WORKER_HOST && n < 1 + MEMBERS_MAX) {
            fds[n++] = (struct pollfd){.fd = take_fd(&m.fds[0]), .events = POLLIN};
            script->hosted++;
        }
        if (fds[0].revents && r > 0)
            bus_message_done(&m);
        for (size_t i = 1; i < n; i++) {
            if (!fds[i].revents)
                continue;
            bool stays = member_hears(fds[i].fd);
            if (stays && script->stuck && (fds[i].revents & POLLHUP))
                fds[i].fd = -fds[i].fd - 1; /* kept open, heard no more */
            if (stays)
                continue;
            script->left++; /* before the other end can notice */
            (void)close(fds[i].fd);
            fds[i--] = fds[--n];
        }
    }
}

/* --- the back-end --- */

static int stage_spawn(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                       struct error *err)
{
    struct isolate_instance *i = isolate_instance_new(spawn);
    if (!i)
        return error_set_default(err, ERROR_NO_MEMORY);
    pid_t parent = getpid();
    i->pid = fork();
    if (i->pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent || dup2(spawn->fds[0], ACTOR_FD) < 0)
            _exit(1);
        (void)syscall(SYS_close_range, ACTOR_FD + 1, ~0u, 0); /* else it would hold the other ends open */
        actor();
    }
    assert_true(i->pid > 0);
    i->pidfd = (int)syscall(SYS_pidfd_open, i->pid, 0);
    assert_true(i->pidfd >= 0);
    world.live++;
    stage.spawns++;
    stage.first = spawn->limits;
    *ret_instance = i;
    *ret_pidfd = i->pidfd;
    return 0;
}

static int stage_limit(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err)
{
    (void)i;
    stage.limits++;
    if (stage.limit_fails)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "the kernel does not take it");
    stage.last = *limits;
    return 0;
}

static int stage_usage(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err)
{
    (void)i;
    (void)err;
    *ret_usage = (struct isolate_usage){.memory_bytes = stage.usage_bytes, .oom_kills = stage.oom_kills};
    return 0;
}

static void stage_explain(struct isolate_instance *i, struct isolate_report *ret_report)
{
    *ret_report = (struct isolate_report){.available = true, .limits = true, .pid = i->pid, .text = "a stage"};
}

static int stage_discard(struct isolate_instance *i, int *ret_status)
{
    if (stage.on_discard)
        stage.on_discard(&world.s);
    int r = isolate_instance_reap(i, ret_status);
    if (r != 0)
        return r;
    stage.discards++;
    world.live--;
    isolate_instance_free(i);
    return 0;
}

static const struct isolate_ops stage_ops = {
    .name = "stage",
    .level = ISOLATE_PROCESS,
    .own_root = true,
    .spawn = stage_spawn,
    .limit = stage_limit,
    .usage = stage_usage,
    .kill = isolate_instance_kill,
    .explain = stage_explain,
    .reap = isolate_instance_reap,
    .discard = stage_discard,
};

const struct isolate_ops *__wrap_isolate_find(enum isolate_level level);
const struct isolate_ops *__wrap_isolate_find(enum isolate_level level)
{
    (void)level;
    return &stage_ops;
}

/* --- control and gateway --- */

const struct role *const role_table[] = {NULL}; /* nobody is started here */

static void on_message(void *ctx, struct bus_message *m)
{
    (void)ctx;
    (void)m;
}

static void on_gone(void *ctx, int code)
{
    (void)ctx;
    (void)code;
}

static void child_open(int index, enum bus_role peer, int *ret_fd)
{
    static const struct bus_conn_events events = {.message = on_message, .gone = on_gone};
    int pair[2];
    assert_int_equal(bus_pair(pair, NULL), 0);
    assert_int_equal(
        bus_conn_open(&world.loop, pair[0], BUS_SUPERVISOR, peer, &events, NULL, &world.s.children[index].bus), 0);
    *ret_fd = pair[1];
}

static void hear(int index, int fd, enum bus_role self)
{
    struct bus_message m;
    int r;
    while ((r = bus_recv(fd, self, BUS_SUPERVISOR, &m)) > 0) {
        if (m.type == BUS_REPLICA_STATE && m.body.REPLICA_STATE.phase == BUS_REPLICA_ENDED) {
            assert_true(world.n_ends[index] < ENDS_MAX);
            world.ends[index][world.n_ends[index]++] = m.body.REPLICA_STATE;
        }
        bus_message_done(&m);
    }
    assert_int_equal(r, 0);
}

static struct bus_replica_state end_of(int index, uint64_t uid)
{
    hear(CHILD_CONTROL, world.control, BUS_CONTROL);
    hear(CHILD_GATEWAY, world.gateway, BUS_GATEWAY);
    for (size_t i = 0; i < world.n_ends[index]; i++)
        if (world.ends[index][i].replica_uid == uid)
            return world.ends[index][i];
    return (struct bus_replica_state){0};
}

struct bus_replica_state ended(struct supervisor *s, uint64_t uid)
{
    (void)s;
    return end_of(CHILD_CONTROL, uid);
}

struct bus_replica_state ended_for_gateway(struct supervisor *s, uint64_t uid)
{
    (void)s;
    return end_of(CHILD_GATEWAY, uid);
}

/* --- the world --- */

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

void turn(struct supervisor *s)
{
    static uv_timer_t tick; /* ends the wait */
    (void)s;
    hear(CHILD_CONTROL, world.control, BUS_CONTROL); /* so that no queue grows */
    hear(CHILD_GATEWAY, world.gateway, BUS_GATEWAY);
    (void)uv_timer_init(&world.loop, &tick);
    assert_int_equal(uv_timer_start(&tick, on_tick, 5, 0), 0);
    (void)uv_run(&world.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    (void)uv_run(&world.loop, UV_RUN_NOWAIT);
}

struct supervisor_replica *replica(struct supervisor *s, uint64_t uid)
{
    return map_get(&s->replicas, uid);
}

struct bus_replica_start start_of(uint64_t uid, uint64_t tenant, uint32_t level)
{
    struct bus_replica_start body = {
        .replica_uid = uid,
        .version_uid = 1000 + uid,
        .model_uid = 2000 + uid,
        .tenant_uid = tenant,
        .memory_bytes = 64 * MIB,
        .model_bytes = 4096,
        .cpu_milli = 1000,
        .level = level,
        .version_number = 1,
        .engine = "one",
        .model = "m",
    };
    (void)snprintf(body.tenant, sizeof body.tenant, "t%u", (unsigned)tenant);
    return body;
}

void start(struct supervisor *s, const struct bus_replica_start *body)
{
    int model = memfd_create("model", MFD_CLOEXEC);
    assert_true(model >= 0 && ftruncate(model, (off_t)body->model_bytes) == 0);
    supervisor_replica_start(s, body, model, -1);
    (void)close(model);
}

int supervisor_setup(void **state)
{
    memset(&world, 0, sizeof world);
    memset(&stage, 0, sizeof stage);
    script = mmap(NULL, sizeof *script, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(script != MAP_FAILED);
    struct supervisor *s = &world.s;
    world.config = (struct supervisor_config){
        .uid_base = 70000, .uid_count = UIDS, .n_devices = 1, .body_bytes_max = MIB, .worker_fd = -1, .n_engines = 2};
    world.config.devices[0].slots = 64;
    world.config.engines[0].name = "one";
    world.config.engines[1].name = "two";
    world.config.engines[0].library_fd = world.config.engines[1].library_fd = -1;
    assert_int_equal(uv_loop_init(&world.loop), 0);
    s->config = &world.config;
    s->loop = &world.loop;
    s->uids_used = calloc(UIDS, 1);
    assert_non_null(s->uids_used);
    map_init(&s->replicas, LIMIT_REPLICAS);
    map_init(&s->ingests, LIMIT_INGESTS);
    for (int level = ISOLATE_SHARED; level < ISOLATE_LEVEL_COUNT; level++)
        s->levels[level] = (struct supervisor_level){.supervisor = s,
                                                     .level = (enum isolate_level)level,
                                                     .ops = &stage_ops,
                                                     .state = BUS_ISOLATION_AVAILABLE,
                                                     .report = {.available = true, .limits = true}};
    list_init(&s->workers);
    supervisor_cores_open(s);
    supervisor_pools_open(s);
    supervisor_shared_open(s);
    child_open(CHILD_CONTROL, BUS_CONTROL, &world.control);
    child_open(CHILD_GATEWAY, BUS_GATEWAY, &world.gateway);
    *state = s;
    return 0;
}

static void close_each(uv_handle_t *handle, void *ctx)
{
    (void)ctx;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

int supervisor_teardown(void **state)
{
    struct supervisor *s = *state;
    stage.on_discard = NULL;
    supervisor_replicas_kill(s);
    supervisor_pools_kill(s);
    until(s, s->replicas.count == 0 && supervisor_shared_count(s) == 0 && supervisor_pools_count(s) == 0);
    assert_int_equal(world.live, 0);
    for (size_t i = 0; i < UIDS; i++)
        assert_int_equal(s->uids_used[i], 0);
    for (int i = 0; i < CHILD_COUNT; i++)
        bus_conn_close(s->children[i].bus);
    uv_walk(&world.loop, close_each, NULL);
    while (uv_run(&world.loop, UV_RUN_NOWAIT) != 0)
        ;
    assert_int_equal(uv_loop_close(&world.loop), 0);
    (void)close(world.control);
    (void)close(world.gateway);
    map_done(&s->replicas);
    map_done(&s->ingests);
    free(s->uids_used);
    (void)munmap(script, sizeof *script);
    return 0;
}
