/* Leases in the model: start, end in each of the ways, pre-emption. */
#include "test/sim/schedule_world.h"

#include "schedule/schedule_internal.h"

#include <inttypes.h>
#include <stdlib.h>

static uint64_t run_time(struct world *w, const struct target *g, uint32_t rows)
{
    struct sim_random *r = &w->random;
    uint64_t time_ns = g->cost_ns[rows_class(rows)];
    if (w->profile.exact)
        return time_ns;
    if (sim_chance(r, 2))
        return sim_chance(r, 50) ? 0 : time_ns * 1000; // at once, or stuck for a long while
    if (sim_chance(r, 30))
        return time_ns * sim_between(r, 1, 100) / 10; // off by up to ten times
    return time_ns;
}

void run_start(struct world *w, struct schedule_lease *lease)
{
    struct run *run = NULL;
    for (uint32_t i = 0; i < RUNS_MAX && !run; i++)
        run = w->runs[i].lease ? NULL : &w->runs[i];
    sim_require(run != NULL, "more leases than slots");
    struct replica *replica = container_of(lease->replica, struct replica, schedule);
    struct target *g = replica->target;
    struct device *d = &w->devices[g->device];
    sim_require(!replica->run && replica->schedule.lease == lease, "a lease on a busy replica");
    *run = (struct run){
        .lease = lease,
        .replica = replica,
        .started_ns = w->now_ns,
        .end_ns = w->now_ns + run_time(w, g, lease->rows),
        .limit_ns = lease->limit_ns,
        .charged_ns = lease->_charged_ns,
        .slots = lease->slots,
        .weight = g->tenant->weight,
        .target_weight = g->weight,
        .class = lease->priority,
        .cancellable = g->cancellable,
        .n_requests = lease->n_requests,
        .obeys_ns = UINT64_MAX,
    };
    sim_require(lease->started_ns == w->now_ns && lease->limit_ns > w->now_ns, "a lease at another time");
    sim_require(!w->profile.exact || lease->estimate_ns == run->end_ns - w->now_ns, "an estimate for another size");
    check_lease_started(w, run);
    sim_trace("%" PRIu64 " tenant %u: lease of %u requests, class %d%s, on %u slots until %" PRIu64, w->now_ns,
              g->tenant->index, lease->n_requests, (int)run->class, lease->due ? " (due)" : "", lease->slots,
              run->end_ns);
    replica->run = run;
    if (replica->host)
        host_taken(w, replica->host, run);
    else
        g->n_free--;
    world_idle(w, d);
    d->slots_used += lease->slots;
    d->n_running[run->class]++;
    for (uint32_t i = 0; i < lease->n_requests; i++) {
        struct request *r = container_of(lease->requests[i], struct request, schedule);
        sim_require(r->schedule.lease == lease, "a request in a lease that it does not name");
        request_dequeue(w, r);
        r->state = REQUEST_LEASED;
        run->requests[i] = r;
    }
    struct lane *lane = &g->lanes[run->class];
    if (lane->n_queued > 0)
        check_window(g, lane);
    g->tenant->n_leased += lease->n_requests;
    w->counts.leases++;
    check_target_changed(w, g);
}

/* The model's side of a lease that ends; the scheduler has been told already. Its time before from_ns is the system's.
 */
static void run_end(struct world *w, struct run *run, uint64_t from_ns, uint64_t others_ns)
{
    struct target *g = run->replica->target;
    struct tenant *t = g->tenant;
    struct device *d = &w->devices[g->device];
    uint64_t time_ns = w->now_ns - run->started_ns, tenant_ns = w->now_ns - from_ns;
    if (tenant_ns > SCHEDULE_CHARGE_NS_MAX) // slept for hours
        tenant_ns = SCHEDULE_CHARGE_NS_MAX;
    check_lease_ended(w, run, tenant_ns * run->slots, tenant_ns * run->slots - others_ns);
    t->served_ns += tenant_ns * run->slots - others_ns;
    w->busy_ns += tenant_ns * run->slots;
    world_idle(w, d);
    d->tenants_ns += tenant_ns * run->slots;
    d->system_ns += (time_ns - tenant_ns) * run->slots;
    d->slots_used -= run->slots;
    d->n_running[run->class]--;
    t->n_leased -= run->n_requests;
    for (uint32_t i = 0; i < run->n_requests; i++) {
        sim_require(run->lease->requests[i] == &run->requests[i]->schedule, "the lease changed under way");
        sim_require(!run->requests[i]->schedule.lease, "a request that is out still names its lease");
    }
    schedule_lease_free(w->s, run->lease);
    run->replica->run = NULL;
}

static void requests_out(struct run *run, uint64_t *counter)
{
    for (uint32_t i = 0; i < run->n_requests; i++)
        request_out(run->requests[i], REQUEST_LEASED, counter);
    *run = (struct run){0};
}

static void replica_free(struct world *w, struct target *g, struct host *host)
{
    if (host)
        host_given(w, host);
    else
        g->n_free++;
    check_target_changed(w, g);
}

void run_complete(struct world *w, struct run *run)
{
    struct target *g = run->replica->target;
    sim_trace("%" PRIu64 " tenant %u: lease ends", w->now_ns, g->tenant->index);
    struct host *host = run->replica->host;
    uint64_t others_ns = 0;
    if (host)
        others_ns = host_complete(w, run);
    else
        schedule_complete(w->s, run->lease, world_clock(w));
    run_end(w, run, run->started_ns, others_ns);
    requests_out(run, &w->counts.completed);
    replica_free(w, g, host);
}

void run_preempt(struct world *w, struct schedule_lease *lease)
{
    struct replica *replica = container_of(lease->replica, struct replica, schedule);
    sim_require(replica->run && replica->run->lease == lease, "an unknown lease is pre-empted");
    struct run *run = replica->run;
    sim_trace("%" PRIu64 " tenant %u: lease is pre-empted", w->now_ns, replica->target->tenant->index);
    check_preempted(w, run);
    run->preempted = true;
    run->preempted_ns = w->now_ns;
    w->counts.preempted++;
    if (sim_chance(&w->random, 90)) // else it does not listen, and ends as it would
        run->obeys_ns = w->now_ns + (sim_chance(&w->random, 30) ? 0 : sim_scale(&w->random, 1, 5 * NS_PER_MS));
}

void run_requeue(struct world *w, struct run *run)
{
    struct target *g = run->replica->target;
    sim_trace("%" PRIu64 " tenant %u: lease was cancelled", w->now_ns, g->tenant->index);
    schedule_requeue(w->s, run->lease, world_clock(w));
    struct host *host = run->replica->host;
    uint32_t class = run->class;
    run_end(w, run, run->preempted_ns, 0);
    for (uint32_t i = 0; i < run->n_requests; i++) {
        struct request *r = run->requests[i];
        sim_require(!r->requeued && r->schedule.requeued, "re-queued twice");
        r->requeued = true;
        request_enqueue(w, r);
    }
    w->counts.requeued++;
    *run = (struct run){0};
    if (host) // others' seats are given back before its own
        check_lane_changed(w, g, class);
    replica_free(w, g, host);
}

void replica_remove(struct world *w, struct replica *r)
{
    struct target *g = r->target;
    struct schedule_lease *lease = (void *)r; // must be overwritten
    schedule_replica_remove(w->s, &r->schedule, world_clock(w), &lease);
    sim_require(lease == (r->run ? r->run->lease : NULL), "removing a replica gives another lease");
    if (r->run) {
        struct run *run = r->run;
        run_end(w, run, run->started_ns, 0);
        requests_out(run, &w->counts.lost);
        if (r->host)
            host_given(w, r->host);
        else
            g->n_free++;
    }
    if (r->host)
        seat_removed(w, r);
    else
        g->n_free--;
    g->n_replicas--;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (g->replicas[i] == r)
            g->replicas[i] = NULL;
    }
    free(r);
    check_target_changed(w, g);
}
