#include "test/sim/schedule_world.h"

#include <inttypes.h>
#include <stdlib.h>

static void drive_expire(struct world *w)
{
    struct schedule_request *expired;
    while ((expired = schedule_expire(w->s, world_clock(w))))
        request_expired(w, container_of(expired, struct request, schedule));
}

static void drive_overdue(struct world *w)
{
    struct schedule_lease *lease;
    while ((lease = schedule_overdue(w->s, world_clock(w)))) {
        struct replica *replica = container_of(lease->replica, struct replica, schedule);
        sim_require(replica->run && replica->run->lease == lease, "an unknown lease is overdue");
        sim_require(replica->run->limit_ns <= w->now_ns, "overdue before its time");
        sim_require(!replica->run->reported, "reported twice");
        replica->run->reported = true;
        if (sim_chance(&w->random, 90))
            replica_remove(w, replica); // else it is left to end by itself
    }
}

static void compare_devices(struct world *w)
{
    for (uint32_t i = 0; i < w->n_devices && w->begin_ns; i++) {
        struct device *d = &w->devices[i];
        struct schedule_device_stats stats;
        schedule_device_stats(w->s, i, &stats);
        world_idle(w, d);
        sim_require(stats.slots_used == d->slots_used && stats.tenants_ns == d->tenants_ns &&
                        stats.system_ns == d->system_ns && stats.idle_ns == d->idle_ns,
                    "device %u: tenants %" PRIu64 ", system %" PRIu64 ", idle %" PRIu64 "; there were %" PRIu64
                    ", %" PRIu64 ", %" PRIu64,
                    i, stats.tenants_ns, stats.system_ns, stats.idle_ns, d->tenants_ns, d->system_ns, d->idle_ns);
        uint64_t sum_ns = stats.tenants_ns + stats.system_ns + stats.running_ns + stats.idle_ns;
        sim_require(stats.wall_ns == w->now_ns - w->begin_ns && sum_ns == stats.wall_ns * stats.slots,
                    "of %" PRIu64 " slot ns %" PRIu64 " are accounted for", stats.wall_ns * stats.slots, sum_ns);
        for (uint32_t class = 0; class < CLASSES; class ++) {
            sim_require(stats.vtime[class] >= d->vtime[class], "virtual time went back");
            d->vtime[class] = stats.vtime[class];
        }
    }
}

/* Ends what was cancelled at once, so that its room is used. */
static bool drive_preempt(struct world *w)
{
    struct schedule_lease *lease;
    bool again = false;
    while (w->profile.preempt && (lease = schedule_preempt(w->s, world_clock(w))))
        run_preempt(w, lease);
    if (w->profile.preempt)
        check_nothing_to_preempt(w);
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        if (w->runs[i].lease && w->runs[i].obeys_ns <= w->now_ns) {
            run_requeue(w, &w->runs[i]);
            again = true;
        }
    }
    return again;
}

void world_drive(struct world *w)
{
    do {
        drive_expire(w);
        drive_overdue(w);
        check_delays(w);
        struct schedule_lease *lease;
        while ((lease = schedule_next(w->s, world_clock(w))))
            run_start(w, lease);
        check_nothing_to_start(w);
    } while (drive_preempt(w));
    uint64_t wakeup_ns = schedule_wakeup(w->s), expected_ns = check_wakeup_expected(w);
    sim_require(wakeup_ns == expected_ns, "wake-up at %" PRIu64 ", not %" PRIu64, wakeup_ns, expected_ns);
    sim_require(wakeup_ns > w->now_ns, "wake-up for something that is possible already");
    compare_devices(w);
}

void world_probe(struct world *w, uint64_t now_ns)
{
    w->now_ns = w->told_ns = now_ns;
    w->counts.probes++;
    sim_require(!schedule_expire(w->s, now_ns), "something expires before the wake-up");
    sim_require(!schedule_overdue(w->s, now_ns), "something is overdue before the wake-up");
    sim_require(!schedule_next(w->s, now_ns), "something can start before the wake-up");
}

static void compare_target(const struct target *g)
{
    sim_require(g->schedule.queued == g->n_queued && g->schedule.replicas == g->n_replicas &&
                    g->schedule.replicas_free == g->n_free,
                "a target shows %u queued, %u/%u replicas; there are %u, %u/%u", g->schedule.queued,
                g->schedule.replicas_free, g->schedule.replicas, g->n_queued, g->n_free, g->n_replicas);
}

void world_compare(struct world *w)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *t = w->tenants[i];
        if (!t)
            continue;
        sim_require(t->schedule.queued == t->n_queued && t->schedule.leased == t->n_leased &&
                        t->schedule.served_ns == t->served_ns && t->schedule.queued_bytes == t->queued_bytes,
                    "tenant %u shows %u queued, %u leased; there are %u, %u", i, t->schedule.queued, t->schedule.leased,
                    t->n_queued, t->n_leased);
        for (uint32_t j = 0; j < TARGETS_MAX; j++) {
            if (t->targets[j])
                compare_target(t->targets[j]);
        }
    }
    struct schedule_stats stats;
    schedule_stats(w->s, &stats);
    sim_require(stats.queued == w->n_queued && stats.queued_bytes == w->queued_bytes && stats.busy_ns == w->busy_ns &&
                    stats.requests == w->counts.completed + w->counts.lost && stats.shed == w->counts.shed &&
                    stats.preempted == w->counts.requeued,
                "the scheduler's totals differ");
}
