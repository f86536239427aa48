#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>

/* Given-back leases kept for the next ones; more than the devices can run at once is never useful. */
static struct schedule_lease *pool_take(struct schedule *s)
{
    struct schedule_lease *lease = s->pool;
    if (lease) {
        s->pool = lease->_next;
        s->n_pool--;
    } else {
        lease = malloc(sizeof *lease);
        if (!lease)
            return NULL;
    }
    s->n_leases_out++;
    return lease;
}

void schedule_lease_free(struct schedule *s, struct schedule_lease *lease)
{
    if (!lease)
        return;
    assert(!lease->_running && s->n_leases_out > 0);
    s->n_leases_out--;
    if (s->n_pool >= s->slots) {
        free(lease);
        return;
    }
    lease->_next = s->pool;
    s->pool = lease;
    s->n_pool++;
}

void schedule_pool_done(struct schedule *s)
{
    while (s->pool) {
        struct schedule_lease *next = s->pool->_next;
        free(s->pool);
        s->pool = next;
    }
}

/* DESIGN §6: overdue by LIMIT_LEASE_FACTOR × the estimate. An estimate that was borrowed from another batch size gets
 * the long limit too: nothing may be killed for being the first of its size. So does work in steps: after many leases
 * of one token for each sequence comes one with a long prompt. */
static uint64_t lease_limit(const struct schedule_lease *lease, const struct schedule_target *g)
{
    uint64_t limit_ns = lease->estimate_ns * LIMIT_LEASE_FACTOR; /* ≤ 2^47 */
    bool known = !g->stepped && schedule_estimate_known(g, lease->rows);
    uint64_t least_ns = known ? LIMIT_LEASE_MIN_MS * NS_PER_MS : LIMIT_LEASE_FIRST_MS * NS_PER_MS;
    return schedule_time_add(lease->started_ns, limit_ns > least_ns ? limit_ns : least_ns);
}

/* How often this tenant gets a lease in that class, as long as it always had something queued. One stall counts little.
 */
static void lease_gap_learn(struct schedule_account *a, uint64_t now_ns)
{
    if (a->lease_started_ns) {
        uint64_t gap_ns = now_ns - a->lease_started_ns, before_ns = a->n_gaps > 0 ? a->lease_gap_ns : 0;
        if (before_ns && gap_ns > before_ns * 4)
            gap_ns = before_ns * 4;
        a->lease_gap_ns = before_ns ? before_ns - before_ns / 4 + gap_ns / 4 : gap_ns;
        a->n_gaps += a->n_gaps < UINT32_MAX;
    }
    a->lease_started_ns = now_ns;
}

static struct schedule_replica *replica_take(struct schedule_target *g)
{
    struct schedule_replica *r = container_of(list_first(&g->_free), struct schedule_replica, _node);
    list_remove(&r->_node);
    g->replicas_free--;
    return r;
}

void schedule_replica_give(struct schedule_target *g, struct schedule_replica *r)
{
    list_prepend(&g->_free, &r->_node);
    g->replicas_free++;
}

/* Its lease has ended. */
static void replica_free(struct schedule *s, struct schedule_replica *r)
{
    if (r->host)
        schedule_seats_give(s, r);
    else
        schedule_replica_give(r->target, r);
    schedule_target_update(s, r->target);
}

/* Counts the device's idle time up to now; before its used slots change. */
static void device_count(struct schedule *s, struct schedule_device *d)
{
    d->idle_ns += (d->slots - d->slots_used) * (s->now_ns - d->since_ns);
    d->since_ns = s->now_ns;
}

/* Slots that were taken away and that no lease holds any more are gone. */
static void device_shrink(struct schedule_device *d)
{
    if (d->slots > d->slots_set)
        d->slots = d->slots_used > d->slots_set ? d->slots_used : d->slots_set;
}

void schedule_device_resize(struct schedule *s, uint32_t device, uint32_t slots, uint64_t now_ns)
{
    assert(device < s->n_devices);
    struct schedule_device *d = &s->devices[device];
    schedule_time_advance(s, now_ns);
    device_count(s, d);
    d->slots_set = slots < d->slots_most ? slots : d->slots_most;
    if (d->slots < d->slots_set)
        d->slots = d->slots_set;
    device_shrink(d);
}

static struct schedule_lease *lease_start(struct schedule *s, struct schedule_flow *f, bool due, uint8_t earning)
{
    struct schedule_device *d = &s->devices[f->device];
    struct schedule_lane *lane = schedule_flow_lane(f);
    struct schedule_target *g = lane->target;
    uint32_t turn = f->turn;
    struct schedule_lease *lease = pool_take(s);
    if (!lease) {
        s->lease_missing = true;
        return NULL;
    }
    lease_gap_learn(&f->active->accounts[lane->class], s->now_ns);
    schedule_queue_gather(s, lane, lease);
    lease->replica = replica_take(g);
    lease->replica->lease = lease;
    lease->started_ns = s->now_ns;
    lease->estimate_ns = schedule_estimate(g, lease->rows);
    lease->limit_ns = lease_limit(lease, g);
    lease->slots = schedule_slots_of(d, g);
    lease->device = f->device;
    lease->priority = lane->class;
    lease->due = due;
    lease->_earning = earning;
    lease->_lane = lane;
    lease->_running = true;
    lease->_limit = 0;
    schedule_heap_set(&s->limits, &lease->_limit, lease->limit_ns, 0);
    device_count(s, d);
    d->slots_used += lease->slots;
    d->started_sum_ns += lease->slots * lease->started_ns;
    d->classes[lane->class].n_running++;
    s->n_leases_running++;
    lane->running++;
    f->running++;
    g->tenant->leased += lease->n_requests;
    lease->_charged_ns = schedule_estimate_cost(g, lease->rows);
    schedule_fair_charge(s, f, lane, lease);
    schedule_class_charge(s, lease);
    schedule_preempt_started(s, lease);
    if (lease->replica->host)
        schedule_seats_take(s, lease->replica);
    schedule_target_update(s, g);
    schedule_fair_ahead(&d->classes[lane->class], turn);
    return lease;
}

struct schedule_lease *schedule_next(struct schedule *s, uint64_t now_ns)
{
    schedule_time_advance(s, now_ns);
    schedule_delays_end(s);
    s->lease_missing = false;
    for (uint32_t i = 0; i < s->n_devices; i++) {
        struct schedule_device *d = &s->devices[i];
        bool due;
        uint8_t earning;
        struct schedule_flow *f = d->slots_used < d->slots ? schedule_class_pick(d, &due, &earning) : NULL;
        /* If it needs more slots than are free, its turn is kept: serving others meanwhile could take the slots away
         * from it for ever. */
        if (f && schedule_slots_of(d, schedule_flow_lane(f)->target) <= d->slots - d->slots_used)
            return lease_start(s, f, due, earning);
    }
    return NULL;
}

/* The parts' costs, to the nanosecond; returns what is the lease's own tenant's beside them. */
static uint64_t cost_split(uint64_t cost_ns, struct schedule_part *parts, uint32_t n_parts)
{
    unsigned __int128 total = 0, sum = 0;
    uint64_t given_ns = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        total += parts[i].weight;
    for (uint32_t i = 0; i < n_parts; i++) {
        sum += parts[i].weight;
        uint64_t until_ns = total > 0 ? (uint64_t)(cost_ns * sum / total) : 0;
        parts[i].cost_ns = until_ns - given_ns;
        given_ns = until_ns;
    }
    return cost_ns - given_ns;
}

/* Charges all parts but the lease's own, and returns that. */
static uint64_t parts_charge(struct schedule *s, const struct schedule_lease *lease, uint64_t cost_ns,
                             struct schedule_part *parts, uint32_t n_parts)
{
    uint64_t own_ns = cost_split(cost_ns, parts, n_parts);
    for (uint32_t i = 0; i < n_parts; i++) {
        struct schedule_target *g = parts[i].target;
        assert(g->device == lease->device);
        if (g->tenant == lease->_lane->target->tenant) {
            own_ns += parts[i].cost_ns;
            continue;
        }
        g->tenant->served_ns += parts[i].cost_ns;
        if (parts[i].cost_ns > 0)
            schedule_fair_add(s, g, lease->priority, parts[i].cost_ns);
    }
    return own_ns;
}

/* The lease holds nothing any more; its time from from_ns on goes to the tenant, or is split, and the rest to the
 * system. The caller follows with schedule_target_update. */
static void lease_end(struct schedule *s, struct schedule_lease *lease, uint64_t from_ns, struct schedule_part *parts,
                      uint32_t n_parts)
{
    assert(lease->_running);
    struct schedule_lane *lane = lease->_lane;
    struct schedule_tenant *t = lane->target->tenant;
    struct schedule_device *d = &s->devices[lease->device];
    uint64_t time_ns = s->now_ns - lease->started_ns, charged_time_ns = s->now_ns - from_ns;
    if (charged_time_ns > SCHEDULE_CHARGE_NS_MAX)
        charged_time_ns = SCHEDULE_CHARGE_NS_MAX;
    uint64_t cost_ns = charged_time_ns * lease->slots;
    schedule_preempt_ended(s, lease);
    schedule_class_correct(s, lease, cost_ns);
    uint64_t own_ns = parts_charge(s, lease, cost_ns, parts, n_parts);
    schedule_fair_correct(s, lease, own_ns);
    lease->_running = false;
    lease->replica->lease = NULL;
    for (uint32_t i = 0; i < lease->n_requests; i++)
        lease->requests[i]->lease = NULL;
    schedule_heap_remove(&s->limits, &lease->_limit);
    device_count(s, d);
    d->slots_used -= lease->slots;
    device_shrink(d);
    d->started_sum_ns -= lease->slots * lease->started_ns;
    d->tenants_ns += cost_ns;
    d->system_ns += (time_ns - charged_time_ns) * lease->slots;
    d->classes[lane->class].n_running--;
    s->n_leases_running--;
    lane->running--;
    lane->flow->running--;
    t->leased -= lease->n_requests;
    t->served_ns += own_ns;
    s->busy_ns += cost_ns;
}

/* The requests of a lease that has ended leave the scheduler. */
static void requests_out(struct schedule *s, const struct schedule_lease *lease)
{
    s->leases++;
    s->requests += lease->n_requests;
    for (uint32_t i = 0; i < lease->n_requests; i++)
        s->n_deadlines -= lease->requests[i]->deadline_ns != 0;
}

void schedule_complete_parts(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns,
                             struct schedule_part *parts, uint32_t n_parts)
{
    schedule_time_advance(s, now_ns);
    struct schedule_replica *replica = lease->replica;
    lease_end(s, lease, lease->started_ns, parts, n_parts);
    requests_out(s, lease);
    schedule_estimate_learn(replica->target, lease->rows, s->now_ns - lease->started_ns);
    replica_free(s, replica);
}

void schedule_complete(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns)
{
    schedule_complete_parts(s, lease, now_ns, NULL, 0);
}

void schedule_requeue(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns)
{
    assert(lease->preempted);
    schedule_time_advance(s, now_ns);
    struct schedule_replica *replica = lease->replica;
    lease_end(s, lease, lease->preempted_ns, NULL, 0);
    s->preempted++;
    for (uint32_t i = lease->n_requests; i-- > 0;) { /* the last first: each goes before those that are there */
        lease->requests[i]->requeued = true;
        schedule_queue_append(s, lease->requests[i]);
    }
    /* Held until its own seat is given back too: the class has work, and keeps what it has earned. */
    if (replica->host)
        schedule_lane_update(s, lease->_lane);
    replica_free(s, replica);
}

void schedule_replica_add(struct schedule *s, struct schedule_replica *r, struct schedule_target *g)
{
    assert(!r->target && g->tenant);
    r->target = g;
    r->lease = NULL;
    g->replicas++;
    schedule_replica_give(g, r);
    schedule_target_update(s, g);
}

void schedule_replica_remove(struct schedule *s, struct schedule_replica *r, uint64_t now_ns,
                             struct schedule_lease **ret_lease)
{
    struct schedule_target *g = r->target;
    assert(g && g->replicas > 0);
    schedule_time_advance(s, now_ns);
    struct schedule_lease *lease = r->lease;
    if (lease) {
        /* teaches the estimate nothing: how long it takes to die is not how long it takes */
        lease_end(s, lease, lease->started_ns, NULL, 0);
        requests_out(s, lease);
    }
    if (lease && r->host)
        schedule_seats_give(s, r);
    if (r->host) {
        schedule_seat_remove(r);
    } else if (!lease) {
        list_remove(&r->_node);
        g->replicas_free--;
    }
    g->replicas--;
    *r = (struct schedule_replica){0};
    schedule_target_update(s, g);
    *ret_lease = lease;
}

struct schedule_lease *schedule_overdue(struct schedule *s, uint64_t now_ns)
{
    schedule_time_advance(s, now_ns);
    uint64_t limit_ns;
    uint32_t *handle = schedule_heap_peek(&s->limits, &limit_ns);
    if (!handle || limit_ns > s->now_ns)
        return NULL;
    struct schedule_lease *lease = container_of(handle, struct schedule_lease, _limit);
    schedule_heap_remove(&s->limits, &lease->_limit);
    return lease;
}
