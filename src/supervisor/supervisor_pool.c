/* Level `pool`: blank workers, started ahead behind the walls of level `process`, with their engine's library loaded
 * and nothing of any tenant in them. One becomes a replica on demand and ends as one: it never comes back. */
#include "supervisor/supervisor_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define REFILL_DELAY_MS 100u /* so that a blank's start takes no processor time from the load of the one given away */
#define BACK_OFF_MIN_MS 100u
#define BACK_OFF_MAX_MS 30000u
#define STABLE_NS       (10 * NS_PER_S) /* after so long a life the back-off starts anew */

/*   STARTING ──BLANK_READY──► READY ──taken──► (its worker is a replica's; freed)
 *      └──────────┬─────────────┘
 *       late, one too many ──► DYING ──pidfd──► (freed)   */
enum blank_state { BLANK_STARTING = 1, BLANK_READY, BLANK_DYING };

struct blank {
    struct list node;
    struct supervisor_pool *pool;
    struct supervisor_worker *worker;
    enum blank_state state;
    bool wanted_end;
    uint64_t started_ns;
};

static void pool_step(struct supervisor_pool *p);

static const char *engine_of(const struct supervisor_pool *p)
{
    return p->supervisor->config->engines[p->engine].name;
}

static struct blank *blank_in(const struct supervisor_pool *p, enum blank_state state)
{
    list_each(node, &p->blanks)
    {
        struct blank *b = container_of(node, struct blank, node);
        if (b->state == state)
            return b;
    }
    return NULL;
}

static uint32_t blanks_in(const struct supervisor_pool *p, enum blank_state state)
{
    uint32_t n = 0;
    list_each(node, &p->blanks) n += container_of(node, struct blank, node)->state == state;
    return n;
}

static void on_timer(uv_timer_t *timer)
{
    pool_step(timer->data);
}

static void step_later(struct supervisor_pool *p, uint64_t ms)
{
    (void)uv_timer_start(&p->timer, on_timer, ms, 0); /* fails only on a closing handle */
}

static void step_after_failure(struct supervisor_pool *p)
{
    uint64_t ms = BACK_OFF_MIN_MS << (p->failures < 16 ? p->failures : 16);
    p->failures++;
    step_later(p, ms < BACK_OFF_MAX_MS ? ms : BACK_OFF_MAX_MS);
}

static void blank_kill(struct blank *b, bool wanted)
{
    if (b->state == BLANK_DYING)
        return;
    b->state = BLANK_DYING;
    b->wanted_end = wanted;
    supervisor_worker_kill(b->worker);
}

static void on_message(void *owner, struct bus_message *m)
{
    struct blank *b = owner;
    struct supervisor_pool *p = b->pool;
    if (m->type != BUS_BLANK_READY || b->state != BLANK_STARTING) {
        blank_kill(b, false);
        return;
    }
    b->state = BLANK_READY;
    log_debug("blank_ready", "engine=%s pid=%d: started ahead for level pool", engine_of(p), (int)b->worker->pid);
    supervisor_isolation_tell_level(p->supervisor, ISOLATE_POOL);
    pool_step(p);
}

static void on_gone(void *owner)
{
    blank_kill(owner, false); /* it has ended, or is about to */
}

static void on_ended(void *owner, int status, uint64_t oom_kills)
{
    struct blank *b = owner;
    struct supervisor_pool *p = b->pool;
    struct supervisor *s = p->supervisor;
    bool wanted = b->state == BLANK_DYING && b->wanted_end;
    if (clock_monotonic_ns() - b->started_ns > STABLE_NS)
        p->failures = 0;
    if (!wanted)
        log_warn("blank_lost", "engine=%s: a blank worker of level pool ended (wait status %d%s); another is started",
                 engine_of(p), status, oom_kills > 0 ? ", out of memory" : "");
    supervisor_worker_free(b->worker);
    list_remove(&b->node);
    free(b);
    supervisor_isolation_tell_level(s, ISOLATE_POOL);
    if (wanted)
        pool_step(p);
    else
        step_after_failure(p);
    supervisor_drain_step(s);
}

static int blank_start(struct supervisor_pool *p, struct error *err)
{
    static const struct supervisor_worker_events events = {.message = on_message, .gone = on_gone, .ended = on_ended};
    static uint64_t number;
    struct supervisor *s = p->supervisor;
    const struct supervisor_engine *engine = &s->config->engines[p->engine];
    char name[64];
    (void)snprintf(name, sizeof name, "blank-%016llx", (unsigned long long)++number); /* fits */
    struct supervisor_worker_spec spec = {
        .name = name,
        .level = ISOLATE_POOL,
        .library_fd = engine->library_fd,
        .limits = supervisor_worker_limits(LIMIT_BLANK_MEMORY_BYTES, LIMIT_BLANK_CPU_MILLI),
    };
    struct blank *b = calloc(1, sizeof *b);
    if (!b)
        return error_set_default(err, ERROR_NO_MEMORY);
    *b = (struct blank){.pool = p, .state = BLANK_STARTING, .started_ns = clock_monotonic_ns()};
    int r = supervisor_worker_start(s, &spec, &events, b, &b->worker, err);
    if (r < 0) {
        free(b);
        return r;
    }
    list_append(&p->blanks, &b->node);
    struct bus_worker_blank body = {.library = supervisor_library_where(b->worker->ops, engine->library_fd)};
    (void)snprintf(body.engine, sizeof body.engine, "%s", engine->name); /* the registry's names are short */
    if (bus_conn_send(b->worker->bus, BUS_WORKER_BLANK, &body, NULL, 0) < 0)
        blank_kill(b, false); /* ends through its pidfd */
    return 0;
}

static uint32_t pool_target(const struct supervisor_pool *p)
{
    const struct supervisor *s = p->supervisor;
    const struct supervisor_level *level = &s->levels[ISOLATE_POOL];
    /* A blank whose limits cannot be changed to a model's would be no worker for it. */
    bool possible = level->state == BUS_ISOLATION_AVAILABLE && level->report.limits;
    return p->wanted && possible && !s->draining ? s->config->pool_size : 0;
}

/* Brings the pool one step nearer to what it should be; one blank starts at a time. */
static void pool_step(struct supervisor_pool *p)
{
    struct error err = {0};
    uint32_t target = pool_target(p), n_ready = blanks_in(p, BLANK_READY);
    struct blank *starting = blank_in(p, BLANK_STARTING);
    if (starting && target == 0)
        blank_kill(starting, true);
    for (; n_ready > target; n_ready--)
        blank_kill(blank_in(p, BLANK_READY), true);
    if (target <= n_ready)
        return;
    if (starting) {
        uint64_t age_ms = (clock_monotonic_ns() - starting->started_ns) / NS_PER_MS;
        if (age_ms >= LIMIT_BLANK_START_MS)
            blank_kill(starting, false); /* its end starts the next */
        else
            step_later(p, LIMIT_BLANK_START_MS - age_ms);
        return;
    }
    int r = blank_start(p, &err);
    if (r >= 0) {
        step_later(p, LIMIT_BLANK_START_MS);
        return;
    }
    log_error("blank_refused", "engine=%s: a blank worker of level pool cannot be started: %s", engine_of(p),
              error_text(&err, r));
    step_after_failure(p);
}

/* --- for the other files --- */

void supervisor_pools_open(struct supervisor *s)
{
    for (uint32_t i = 0; i < SUPERVISOR_ENGINES_MAX; i++) {
        struct supervisor_pool *p = &s->pools[i];
        *p = (struct supervisor_pool){.supervisor = s, .engine = i};
        list_init(&p->blanks);
        (void)uv_timer_init(s->loop, &p->timer); /* always succeeds */
        p->timer.data = p;
    }
}

void supervisor_pools_want(struct supervisor *s, uint32_t engines)
{
    for (uint32_t i = 0; i < s->config->n_engines; i++)
        s->pools[i].wanted = engines & (1u << i);
    supervisor_pools_step(s);
    supervisor_isolation_tell_level(s, ISOLATE_POOL);
}

void supervisor_pools_step(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->config->n_engines; i++)
        pool_step(&s->pools[i]);
}

struct supervisor_worker *supervisor_pool_take(struct supervisor *s, const char *engine,
                                               const struct isolate_limits *limits, const struct isolate_cpus *cpus)
{
    struct supervisor_pool *p = NULL;
    for (uint32_t i = 0; i < s->config->n_engines; i++)
        if (strcmp(s->config->engines[i].name, engine) == 0)
            p = &s->pools[i];
    struct blank *b = p ? blank_in(p, BLANK_READY) : NULL;
    if (!b)
        return NULL;
    struct error err = {0};
    struct supervisor_worker *w = b->worker;
    int r = w->ops->limit(w->instance, limits, &err);
    if (r >= 0 && cpus)
        r = w->ops->cpus ? w->ops->cpus(w->instance, cpus, &err) : -ERROR_UNSUPPORTED;
    w->cpus_own = r >= 0 && cpus;
    if (r <
        0) { /* it may hold more memory than the model is given: then a fresh one finds out whether that is enough */
        log_info("blank_unfit", "engine=%s: a blank worker cannot take a model's limits: %s", engine,
                 error_text(&err, r));
        blank_kill(b, true);
        return NULL;
    }
    p->failures = 0;
    list_remove(&b->node);
    free(b);
    step_later(p, REFILL_DELAY_MS);
    supervisor_isolation_tell_level(s, ISOLATE_POOL);
    return w;
}

void supervisor_pools_kill(struct supervisor *s)
{
    for (uint32_t i = 0; i < SUPERVISOR_ENGINES_MAX; i++) {
        (void)uv_timer_stop(&s->pools[i].timer); /* always succeeds */
        s->pools[i].wanted = false;
        list_each(node, &s->pools[i].blanks) blank_kill(container_of(node, struct blank, node), true);
    }
}

uint32_t supervisor_pools_count(const struct supervisor *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < SUPERVISOR_ENGINES_MAX; i++)
        list_each(node, &s->pools[i].blanks) n++;
    return n;
}

void supervisor_pools_text(const struct supervisor *s, char *text, size_t capacity)
{
    uint32_t n_ready = 0, target = 0;
    for (uint32_t i = 0; i < s->config->n_engines; i++) {
        n_ready += blanks_in(&s->pools[i], BLANK_READY);
        target += pool_target(&s->pools[i]);
    }
    (void)snprintf(text, capacity, "%u of %u blank workers ready", n_ready, target); /* cut is fine: for people */
}
