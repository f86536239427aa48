#include "test/sim/schedule_world.h"

#include <inttypes.h>

static struct tenant *any_tenant(struct world *w)
{
    uint32_t from = (uint32_t)sim_below(&w->random, TENANTS_MAX);
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        if (w->tenants[(from + i) % TENANTS_MAX])
            return w->tenants[(from + i) % TENANTS_MAX];
    }
    return NULL;
}

static struct target *any_target(struct world *w, struct tenant *t)
{
    uint32_t from = (uint32_t)sim_below(&w->random, TARGETS_MAX);
    for (uint32_t i = 0; t && i < TARGETS_MAX; i++) {
        if (t->targets[(from + i) % TARGETS_MAX])
            return t->targets[(from + i) % TARGETS_MAX];
    }
    return NULL;
}

/* Its own, or a seat. */
static void any_replica_add(struct world *w, struct target *g, uint32_t seat_percent)
{
    struct host *host = w->profile.seats && sim_chance(&w->random, seat_percent) ? host_any(w, g->tenant, g) : NULL;
    if (host)
        seat_add(w, g, host);
    else
        replica_add(w, g);
}

static void play_join(struct world *w)
{
    struct sim_random *r = &w->random;
    uint32_t weight = sim_chance(r, 40) ? 1 : (uint32_t)sim_scale(r, 1, 1000);
    uint32_t depth = sim_chance(r, 65) ? (uint32_t)sim_scale(r, 1, 16) : 0;
    struct tenant *t = tenant_add(w, weight, (uint32_t)sim_scale(r, 1, 200), depth);
    if (!t)
        return;
    uint32_t n_targets = sim_chance(r, 70) ? 1 : (uint32_t)sim_between(r, 1, TARGETS_MAX);
    for (uint32_t i = 0; i < n_targets; i++) {
        struct target *g = target_add(w, t);
        uint32_t n_replicas = (uint32_t)sim_between(r, sim_chance(r, 90), REPLICAS_MAX);
        for (uint32_t j = 0; j < n_replicas; j++)
            any_replica_add(w, g, n_replicas == 1 ? 90 : 50);
    }
}

static bool play_request(struct world *w, struct target *g)
{
    struct sim_random *r = &w->random;
    uint32_t rows = sim_chance(r, 80) ? 1 : (uint32_t)sim_scale(r, 1, ROWS_MAX);
    uint64_t shape_key = sim_chance(r, 85) ? 1 : sim_below(r, 4);
    uint64_t deadline_ns = 0;
    if (w->profile.deadlines && sim_chance(r, 60)) {
        deadline_ns = w->now_ns + sim_scale(r, 1, 2 * NS_PER_S);
        if (sim_chance(r, 2))
            deadline_ns = sim_chance(r, 50) ? w->now_ns : UINT64_C(1) << 61; // practically none
    }
    uint32_t class = SCHEDULE_INTERACTIVE;
    if (w->profile.classes || w->profile.fifo)
        class = sim_chance(r, 60) ? g->index % CLASSES : (uint32_t)sim_below(r, CLASSES);
    return request_submit(w, g, (enum schedule_class) class, rows, shape_key, deadline_ns);
}

/* Greedy tenants always have something queued, so that shares mean something. */
void play_top_up(struct world *w)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        struct tenant *t = w->tenants[i];
        while (t && t->n_queued < t->depth && t->n_queued < t->queue_max) {
            struct target *g = any_target(w, t);
            if (!g || !play_request(w, g) || (w->queue_max && w->n_queued >= w->queue_max))
                break;
        }
    }
}

static void play_cancel(struct world *w)
{
    struct target *g = any_target(w, any_tenant(w));
    if (!g)
        return;
    uint32_t n_passed = (uint32_t)sim_below(&w->random, 4);
    const struct lane *lane = &g->lanes[sim_below(&w->random, CLASSES)];
    list_each(node, &lane->queue)
    {
        if (n_passed-- == 0) {
            request_cancel(w, container_of(node, struct request, in_queue));
            return;
        }
    }
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        if (w->runs[i].lease)
            request_cancel(w, w->runs[i].requests[0]); // too late
    }
}

static void play_failure(struct world *w)
{
    struct target *g = any_target(w, any_tenant(w));
    if (!g)
        return;
    struct replica *r = g->replicas[sim_below(&w->random, REPLICAS_MAX)];
    if (r)
        replica_remove(w, r);
    else if (sim_chance(&w->random, 70))
        any_replica_add(w, g, 50);
}

static void play_change(struct world *w)
{
    struct sim_random *r = &w->random;
    struct tenant *t = any_tenant(w);
    struct target *g = any_target(w, t);
    uint32_t n_tenants = 0;
    for (uint32_t i = 0; i < TENANTS_MAX; i++)
        n_tenants += w->tenants[i] != NULL;
    switch (sim_below(r, 6)) {
    case 0:
        if (n_tenants < w->profile.tenants_most)
            play_join(w);
        break;
    case 1:
        if (n_tenants > 1 && sim_chance(r, 50))
            tenant_remove(w, t);
        break;
    case 2:
        if (t)
            tenant_change(w, t, (uint32_t)sim_scale(r, 1, 1000), (uint32_t)sim_between(r, 0, 100));
        break;
    case 3:
        if (g)
            target_change(w, g);
        break;
    case 4:
        if (g && sim_chance(r, 50))
            target_remove(w, g);
        break;
    default:
        if (t && (g = target_add(w, t)))
            replica_add(w, g);
        break;
    }
}

static uint64_t next_event(const struct world *w)
{
    uint64_t next_ns = schedule_wakeup(w->s);
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        const struct run *run = &w->runs[i];
        uint64_t end_ns = run->obeys_ns < run->end_ns ? run->obeys_ns : run->end_ns;
        if (run->lease && end_ns < next_ns)
            next_ns = end_ns;
    }
    return next_ns;
}

bool play_time(struct world *w)
{
    struct sim_random *r = &w->random;
    uint64_t next_ns = next_event(w);
    if (next_ns == UINT64_MAX)
        return false;
    if (next_ns > w->now_ns + 1 && sim_chance(r, 30)) {
        uint64_t last_ns = next_ns - 1;
        bool late = sim_chance(r, 50);
        world_probe(w, late ? last_ns : sim_between(r, w->now_ns, last_ns));
        if (!late)
            return true;
    }
    w->now_ns = next_ns > w->now_ns ? next_ns : w->now_ns;
    if (!w->profile.exact && sim_chance(r, 1))
        w->now_ns += sim_scale(r, NS_PER_MS, 1000 * NS_PER_S); // the machine slept
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        if (w->runs[i].lease && w->runs[i].end_ns <= w->now_ns && w->runs[i].obeys_ns > w->now_ns) {
            run_complete(w, &w->runs[i]);
            world_drive(w);
        }
    }
    world_drive(w);
    return true;
}

static void play_step(struct world *w)
{
    uint64_t dice = sim_below(&w->random, 100);
    if (dice < 20) {
        struct tenant *t = any_tenant(w);
        struct target *g = any_target(w, t);
        uint64_t n = sim_scale(&w->random, 1, 12);
        while (g && n-- > 0)
            (void)play_request(w, g); // a refusal has been checked
    } else if (dice < 25) {
        play_cancel(w);
    } else if (dice < 29 && w->profile.failures) {
        play_failure(w);
    } else if (dice < 33 && w->profile.churn) {
        play_change(w);
    } else if (!play_time(w)) {
        world_probe(w, w->now_ns + sim_scale(&w->random, 1, NS_PER_S));
    }
}

/* Nothing new arrives, every target has a replica: all that is queued must come out. */
static void play_out(struct world *w)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        for (uint32_t j = 0; w->tenants[i] && j < TARGETS_MAX; j++) {
            struct target *g = w->tenants[i]->targets[j];
            if (g && g->n_queued > 0 && !g->replicas[0])
                replica_add(w, g);
        }
    }
    world_drive(w);
    while (w->n_queued > 0 || w->devices[0].slots_used > 0 || w->devices[1].slots_used > 0) {
        sim_require(play_time(w), "%" PRIu64 " requests are queued and nothing will ever happen", w->n_queued);
        world_drive(w);
        for (uint32_t i = 0; i < TENANTS_MAX; i++) { // a replica that was killed as overdue
            for (uint32_t j = 0; w->tenants[i] && j < TARGETS_MAX; j++) {
                struct target *g = w->tenants[i]->targets[j];
                if (g && g->n_queued > 0 && !g->replicas[0])
                    replica_add(w, g);
            }
        }
        world_drive(w);
    }
}

void play_end(struct world *w)
{
    play_out(w);
    world_compare(w);
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        if (w->tenants[i])
            tenant_remove(w, w->tenants[i]);
    }
}

void play(struct world *w)
{
    uint32_t n_tenants = (uint32_t)sim_scale(&w->random, 1, w->profile.tenants_most);
    for (uint32_t i = 0; i < n_tenants; i++)
        play_join(w);
    for (uint32_t step = 0; step < w->profile.steps; step++) {
        play_top_up(w);
        world_drive(w);
        play_step(w);
        world_drive(w);
        if (step % 16 == 0)
            world_compare(w);
    }
    play_end(w);
}
