/* Shares in the long run: tenants that always have work, on a device too small for all of them, must come to use what
 * weighted max-min fairness gives them, whatever their leases cost. A tenant can use at most one slot per replica; what
 * it cannot use goes to the others by weight ("water filling"). */
#include "test/sim/schedule_world.h"

/* ret_slots[i]: how many slots tenant i should use on average. */
static void water_fill(const struct world *w, const uint32_t *n_replicas, double *ret_slots)
{
    bool full[TENANTS_MAX] = {false};
    for (bool changed = true; changed;) {
        double slots = w->devices[0].slots, weights = 0;
        for (uint32_t i = 0; w->tenants[i]; i++) {
            if (full[i])
                slots -= n_replicas[i];
            else
                weights += w->tenants[i]->weight;
        }
        changed = false;
        for (uint32_t i = 0; w->tenants[i]; i++) {
            ret_slots[i] = full[i] ? n_replicas[i] : slots * w->tenants[i]->weight / weights;
            if (!full[i] && ret_slots[i] > n_replicas[i])
                full[i] = changed = true;
        }
    }
}

/* How far a share may lie from the ideal one: leases are not cut short, so a tenant that needs nearly all the time of
 * its only replica waits for others' leases now and then and cannot make up for all of it. Over 10,000 seeds the worst
 * was a tenth. Starting newcomers at the plain start tag makes it 0.29 (fair.c). */
#define SHARE_OFF_MOST 0.2

static void check_shares(struct world *w, const uint32_t *n_replicas, uint64_t span_ns)
{
    double ideal[TENANTS_MAX];
    water_fill(w, n_replicas, ideal);
    for (uint32_t i = 0; w->tenants[i]; i++) {
        const struct tenant *t = w->tenants[i];
        double used = (double)t->served_ns / (double)span_ns;
        double lease = (double)t->targets[0]->cost_ns[0] / (double)span_ns;
        double off = used > ideal[i] ? used - ideal[i] : ideal[i] - used;
        sim_require(off <= SHARE_OFF_MOST * ideal[i] + 2 * lease, "tenant %u used %.3f of %u slots, ideal is %.3f", i,
                    used, w->devices[0].slots, ideal[i]);
    }
}

struct target *steady_join(struct world *w, uint64_t *longest_ns)
{
    struct sim_random *r = &w->random;
    struct tenant *t = tenant_add(w, (uint32_t)sim_between(r, 1, 4), 100, REPLICAS_MAX + 2);
    struct target *g = target_add(w, t);
    uint64_t cost_ns = sim_scale(r, NS_PER_MS, 20 * NS_PER_MS);
    target_simple(w, g, cost_ns);
    *longest_ns = cost_ns > *longest_ns ? cost_ns : *longest_ns;
    return g;
}

void steady_run(struct world *w, uint64_t span_ns)
{
    uint64_t end_ns = w->now_ns + span_ns;
    while (w->now_ns < end_ns) {
        play_top_up(w);
        world_drive(w);
        sim_require(play_time(w), "nothing runs");
    }
}

static void replicas_add(struct world *w, struct target *g, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        replica_add(w, g);
}

void play_steady(struct world *w)
{
    struct sim_random *r = &w->random;
    uint32_t n_tenants = (uint32_t)sim_between(r, 2, w->profile.tenants_most), n_replicas[TENANTS_MAX] = {0};
    uint64_t longest_ns = 0;
    for (uint32_t i = 0; i < n_tenants; i++) {
        struct target *g = steady_join(w, &longest_ns);
        n_replicas[i] = (uint32_t)sim_between(r, 1, REPLICAS_MAX);
        replicas_add(w, g, n_replicas[i]);
    }
    uint64_t start_ns = w->now_ns;
    steady_run(w, 400 * longest_ns);
    check_shares(w, n_replicas, w->now_ns - start_ns);
    play_end(w);
}

/* On one slot, each with two replicas, so that all are able to run throughout. What the one that was away did not use
 * must not be its own when it comes back: kept, it would be served alone until it had made up for all of it. */
void play_away(struct world *w)
{
    uint32_t n_tenants = (uint32_t)sim_between(&w->random, 2, w->profile.tenants_most);
    uint64_t longest_ns = 0;
    for (uint32_t i = 0; i < n_tenants; i++)
        replicas_add(w, steady_join(w, &longest_ns), 2);
    steady_run(w, 20 * longest_ns);
    uint32_t depth = w->tenants[0]->depth;
    w->tenants[0]->depth = 0;
    steady_run(w, 400 * longest_ns);
    w->tenants[0]->depth = depth;
    steady_run(w, 400 * longest_ns);
    play_end(w);
}
