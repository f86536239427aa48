/* Workers of several tenants in the model: who is free, and how those share that have nothing else. */
#include "test/sim/schedule_world.h"

#include "schedule/schedule_internal.h"

#include <stdlib.h>

void hosts_new(struct world *w)
{
    for (uint32_t i = 0; i < HOSTS_MAX; i++) {
        struct host *host = calloc(1, sizeof *host);
        sim_require(host != NULL, "out of memory");
        host->device = i % w->n_devices;
        w->hosts[i] = host;
        for (uint32_t class = 0; class < CLASSES; class ++) {
            struct tenants_group *g = &host->groups[class];
            share_init(&g->group, TENANTS_MAX, w->devices[host->device].slots, g->members, g->pairs, g->since);
        }
    }
}

void hosts_free(struct world *w)
{
    for (uint32_t i = 0; i < HOSTS_MAX; i++)
        free(w->hosts[i]);
}

struct host *host_any(struct world *w, const struct tenant *t, const struct target *g)
{
    uint32_t from = (uint32_t)sim_below(&w->random, HOSTS_MAX);
    for (uint32_t i = 0; i < HOSTS_MAX; i++) {
        struct host *host = w->hosts[(from + i) % HOSTS_MAX];
        if (host->device == g->device && !host->seats[t->index])
            return host;
    }
    return NULL;
}

bool lane_held(const struct target *g, uint32_t class)
{
    return g->lanes[class].n_queued > 0 && g->n_free == 0 && g->n_out > 0;
}

void seat_add(struct world *w, struct target *g, struct host *host)
{
    uint32_t place = 0;
    while (place < REPLICAS_MAX && g->replicas[place])
        place++;
    if (place == REPLICAS_MAX)
        return;
    struct replica *r = calloc(1, sizeof *r);
    sim_require(r != NULL, "out of memory");
    r->target = g;
    r->host = host;
    g->replicas[place] = r;
    g->n_replicas++;
    if (host->run)
        g->n_out++;
    else
        g->n_free++;
    host->seats[g->tenant->index] = r;
    schedule_seat_add(w->s, &r->schedule, &g->schedule, &host->schedule);
    check_target_changed(w, g);
}

void seat_removed(struct world *w, struct replica *r)
{
    struct host *host = r->host;
    struct target *g = r->target;
    uint32_t index = g->tenant->index;
    sim_require(host->seats[index] == r, "a seat that nobody has");
    host->seats[index] = NULL;
    if (host->run)
        g->n_out--;
    else
        g->n_free--;
    for (uint32_t class = 0; class < CLASSES; class ++)
        share_runnable(&host->groups[class].group, index, false);
    (void)w;
}

void host_taken(struct world *w, struct host *host, struct run *run)
{
    sim_require(!host->run, "two leases on one worker");
    host->run = run;
    w->counts.held++;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        struct replica *seat = host->seats[i];
        if (!seat)
            continue;
        seat->target->n_free--;
        seat->target->n_out++;
        if (seat != run->replica)
            check_target_changed(w, seat->target);
    }
}

void host_given(struct world *w, struct host *host)
{
    host->run = NULL;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        struct replica *seat = host->seats[i];
        if (!seat)
            continue;
        seat->target->n_free++;
        seat->target->n_out--;
        check_target_changed(w, seat->target);
    }
}

/* ---- shares ---- */

/* The host whose seat is all that the tenant has on that device; NULL: it has something else, or waits by its own will.
 */
static struct host *only_host(const struct world *w, const struct tenant *t, uint32_t device, uint32_t class,
                              struct target **ret_g)
{
    struct host *only = NULL;
    for (uint32_t i = 0; i < TARGETS_MAX; i++) {
        struct target *g = t->targets[i];
        for (uint32_t k = 0; g && g->device == device && k < REPLICAS_MAX; k++) {
            if (!g->replicas[k])
                continue;
            if (only || !g->replicas[k]->host || g->delay_ns > 0)
                return NULL;
            only = g->replicas[k]->host;
            *ret_g = g;
        }
    }
    (void)w;
    (void)class;
    return only;
}

void hosts_changed(struct world *w, struct tenant *t, uint32_t class)
{
    for (uint32_t i = 0; i < HOSTS_MAX && w->hosts[i]; i++) {
        struct host *host = w->hosts[i];
        if (!host->seats[t->index])
            continue;
        struct target *g = NULL;
        bool only = only_host(w, t, host->device, class, &g) == host;
        share_runnable(&host->groups[class].group, t->index, only && (lane_runnable(g, class) || lane_held(g, class)));
    }
}

void hosts_charged(struct world *w, const struct run *run, double time_ns)
{
    const struct target *g = run->replica->target;
    for (uint32_t i = 0; i < HOSTS_MAX && w->hosts[i]; i++) {
        struct group *group = &w->hosts[i]->groups[run->class].group;
        if (w->hosts[i]->device != g->device)
            continue;
        if (group->members[g->tenant->index].runnable)
            share_charged(w, group, g->tenant->index, "seats", run->slots, time_ns);
        else
            group->members[g->tenant->index].charged += time_ns * run->slots; /* no neighbour of those here */
    }
}

void hosts_corrected(struct world *w, const struct target *g, uint32_t class, uint32_t slots, double charged_ns,
                     double measured_ns)
{
    for (uint32_t i = 0; i < HOSTS_MAX && w->hosts[i]; i++)
        if (w->hosts[i]->device == g->device)
            share_corrected(w, &w->hosts[i]->groups[class].group, g->tenant->index, "seats", slots, charged_ns,
                            measured_ns);
}

/* ---- leases that serve several ---- */

uint64_t host_complete(struct world *w, struct run *run)
{
    struct host *host = run->replica->host;
    struct schedule_part parts[TENANTS_MAX];
    struct target *targets[TENANTS_MAX];
    uint32_t n = 0;
    bool split = !w->profile.steady && sim_chance(&w->random, 30);
    for (uint32_t i = 0; split && i < TENANTS_MAX; i++) {
        struct replica *seat = host->seats[i];
        /* Who has queued there in that class has a place in its order; others only pay. */
        if (!seat || seat->target->lanes[run->class].n_queued == 0 ||
            !schedule_may_join(w->s, &seat->target->schedule, 0))
            continue;
        targets[n] = seat->target;
        parts[n++] = (struct schedule_part){.target = &seat->target->schedule, .weight = sim_below(&w->random, 1000)};
    }
    uint64_t now_ns = world_clock(w);
    schedule_complete_parts(w->s, run->lease, now_ns, parts, n);
    uint64_t others_ns = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (targets[i]->tenant == run->replica->target->tenant)
            continue;
        others_ns += parts[i].cost_ns;
        w->counts.split++;
        check_part_charged(w, targets[i], run->class, run->slots, parts[i].cost_ns);
    }
    return others_ns;
}

/* ---- in the long run ---- */

/* Tenants that always have work, on one worker, beside others that have workers of their own and move virtual time on:
 * they share the worker's time by weight, whatever their leases take. */
void play_seats(struct world *w)
{
    struct sim_random *r = &w->random;
    uint32_t n = (uint32_t)sim_between(r, 2, w->profile.tenants_most), n_seats = (uint32_t)sim_between(r, 2, n);
    uint64_t longest_ns = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct target *g = steady_join(w, &longest_ns);
        if (i < n_seats)
            seat_add(w, g, w->hosts[0]);
        else
            replica_add(w, g);
    }
    uint64_t start_ns = w->now_ns;
    steady_run(w, 400 * longest_ns);
    double sum = 0, weights = 0, span = (double)(w->now_ns - start_ns);
    for (uint32_t i = 0; i < n_seats; i++) {
        sum += (double)w->tenants[i]->served_ns / span;
        weights += w->tenants[i]->weight;
    }
    for (uint32_t i = 0; i < n_seats; i++) {
        double used = (double)w->tenants[i]->served_ns / span, due = sum * w->tenants[i]->weight / weights;
        double off = used > due ? used - due : due - used;
        sim_require(off <= 0.03 * due + 2 * (double)longest_ns / span,
                    "seat %u has used %.3f of its worker's time, its share is %.3f", i, used, due);
    }
    sim_require(n > n_seats || sum > 0.99, "a worker was idle for %.3f of its time", 1 - sum);
    play_end(w);
}
