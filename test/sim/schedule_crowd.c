/* A crowd: 100,000 tenants that always have something queued, on a device of few slots. Too many for the model of
 * schedule_world.h, which keeps every pair; where nobody comes or goes the share bound of all pairs over an interval is
 * one comparison: that of the one furthest ahead and the one furthest behind, each by what it is allowed. */
#include "test/sim/schedule_world.h"

#include <stdlib.h>

enum { CROWD = 100000, LEASES = 6 * CROWD, CHECKS = 6, CROWD_SLOTS_MAX = 3, CROWD_WEIGHT_MAX = 4 };

/* As many requests and replicas as slots, and one: it stays queued, and able to run, whatever it has on the device. */
enum { SPARE = CROWD_SLOTS_MAX + 1 };

struct place {
    struct schedule_tenant tenant;
    struct schedule_target target;
    struct schedule_replica replicas[SPARE];
    struct schedule_request requests[SPARE];
    bool in[SPARE]; /* the request is queued or leased */
    uint32_t weight;
    uint64_t cost_ns, charged_ns, checked_ns; /* of a lease; of all that started; until the last check */
};

struct crowd {
    struct sim_random random;
    struct schedule *s;
    struct place *places;
    struct schedule_lease *leases[CROWD_SLOTS_MAX];
    uint64_t ends_ns[CROWD_SLOTS_MAX], now_ns, n_started, charged_ns;
    uint32_t slots, n_running;
};

static void place_submit(struct crowd *c, struct place *p)
{
    uint32_t i = 0;
    while (i < SPARE && p->in[i])
        i++;
    sim_require(i < SPARE, "a tenant has more leases than the device has slots");
    p->in[i] = true;
    p->requests[i] = (struct schedule_request){
        .target = &p->target, .priority = SCHEDULE_INTERACTIVE, .rows = 1, .bytes = 16, .shape_key = 1};
    sim_require(schedule_submit(c->s, &p->requests[i], c->now_ns, NULL) == 0, "a request is refused");
}

static void place_new(struct crowd *c, struct place *p)
{
    p->weight = (uint32_t)sim_between(&c->random, 1, CROWD_WEIGHT_MAX);
    p->cost_ns = sim_between(&c->random, NS_PER_MS, 2 * NS_PER_MS);
    schedule_tenant_set(c->s, &p->tenant, &(struct schedule_tenant_config){.weight = p->weight, .queue_max = SPARE});
    schedule_target_set(c->s, &p->target, &p->tenant, &(struct schedule_target_config){.batch_bytes_max = 1 << 20});
    p->target.estimate_ns = p->target._estimate_ns[0] = p->cost_ns; /* charges are exact */
    for (uint32_t i = 0; i <= c->slots; i++)
        schedule_replica_add(c->s, &p->replicas[i], &p->target);
}

static void place_remove(struct crowd *c, struct place *p)
{
    sim_require(p->tenant.queued == 1 && p->tenant.leased == 0, "a request is lost, or is there twice");
    sim_require(p->tenant.served_ns == p->charged_ns, "a tenant was served other than it was charged");
    while (schedule_target_flush(c->s, &p->target))
        continue;
    for (uint32_t i = 0; i <= c->slots; i++) {
        struct schedule_lease *lease;
        schedule_replica_remove(c->s, &p->replicas[i], c->now_ns, &lease);
    }
    schedule_target_remove(c->s, &p->target);
    schedule_tenant_remove(c->s, &p->tenant);
}

static void crowd_start(struct crowd *c)
{
    for (struct schedule_lease *lease; (lease = schedule_next(c->s, c->now_ns)); c->n_running++) {
        sim_require(c->n_running < c->slots && lease->n_requests == 1, "more starts than fits");
        struct place *p = container_of(lease->requests[0]->target, struct place, target);
        p->charged_ns += p->cost_ns;
        c->charged_ns += p->cost_ns;
        c->n_started++;
        c->leases[c->n_running] = lease;
        c->ends_ns[c->n_running] = c->now_ns + p->cost_ns;
        place_submit(c, p);
    }
    sim_require(c->n_running == c->slots, "a slot is free while everybody waits");
}

static void crowd_complete_next(struct crowd *c)
{
    uint32_t next = 0;
    for (uint32_t i = 1; i < c->n_running; i++)
        next = c->ends_ns[i] < c->ends_ns[next] ? i : next;
    struct schedule_lease *lease = c->leases[next];
    struct schedule_request *r = lease->requests[0];
    struct place *p = container_of(r->target, struct place, target);
    c->now_ns = c->ends_ns[next];
    schedule_complete(c->s, lease, c->now_ns);
    schedule_lease_free(c->s, lease);
    p->in[r - p->requests] = false;
    c->n_running--;
    c->leases[next] = c->leases[c->n_running];
    c->ends_ns[next] = c->ends_ns[c->n_running];
}

/* |Wf/wf − Wg/wg| ≤ slots × (lf/wf + lg/wg) for all f and g, since the start, or since the last check. Returns how much
 * of what is allowed those two have used that are nearest to breaking it. */
static double crowd_check(const struct crowd *c, bool since_check)
{
    struct side {
        double used, width;
    } ahead = {0}, behind = {0};
    for (uint32_t i = 0; i < CROWD; i++) {
        const struct place *p = &c->places[i];
        uint64_t used_ns = p->charged_ns - (since_check ? p->checked_ns : 0);
        struct side one = {(double)used_ns / p->weight, (double)(c->slots * p->cost_ns) / p->weight};
        if (i == 0 || one.used - one.width > ahead.used - ahead.width)
            ahead = one;
        if (i == 0 || one.used + one.width < behind.used + behind.width)
            behind = one;
    }
    double apart = ahead.used - behind.used, allowed = ahead.width + behind.width;
    sim_require(apart <= allowed * 1.000001 + 2, "share bound: of %d tenants two moved apart by %.0f, allowed are %.0f",
                CROWD, apart, allowed);
    return apart / allowed;
}

void play_crowd(uint64_t seed, struct counts *counts, double *ret_nearest)
{
    struct crowd c = {.random = {seed}, .now_ns = NS_PER_S};
    c.slots = (uint32_t)sim_between(&c.random, 1, CROWD_SLOTS_MAX);
    const struct schedule_device_config device = {.name = "cpu", .slots = c.slots};
    const struct schedule_config config = {.devices = &device, .n_devices = 1, .seed = sim_next(&c.random)};
    c.places = calloc(CROWD, sizeof *c.places);
    sim_require(c.places && schedule_new(&config, &c.s) == 0, "out of memory");
    for (uint32_t i = 0; i < CROWD; i++) {
        place_new(&c, &c.places[i]);
        place_submit(&c, &c.places[i]);
    }
    for (uint32_t check = 1; check <= CHECKS; check++) {
        while (c.n_started < (uint64_t)LEASES / CHECKS * check) {
            crowd_start(&c);
            crowd_complete_next(&c);
        }
        double all = crowd_check(&c, false), lately = crowd_check(&c, true);
        *ret_nearest = all > *ret_nearest ? all : *ret_nearest;
        *ret_nearest = lately > *ret_nearest ? lately : *ret_nearest;
        for (uint32_t i = 0; i < CROWD; i++)
            c.places[i].checked_ns = c.places[i].charged_ns;
        counts->pairs_checked += CROWD * (CROWD - UINT64_C(1)); /* half as many, twice */
        counts->pairs_exact += CROWD * (CROWD - UINT64_C(1));
    }
    while (c.n_running > 0)
        crowd_complete_next(&c);
    struct schedule_stats stats;
    schedule_stats(c.s, &stats);
    sim_require(stats.requests == c.n_started && stats.busy_ns == c.charged_ns && stats.queued == CROWD,
                "the scheduler's totals differ");
    counts->leases += c.n_started;
    counts->submitted += c.n_started + CROWD;
    counts->completed += c.n_started;
    counts->flushed += CROWD;
    for (uint32_t i = 0; i < CROWD; i++)
        place_remove(&c, &c.places[i]);
    schedule_free(c.s);
    free(c.places);
}
