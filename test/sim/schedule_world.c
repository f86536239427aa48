#include "test/sim/schedule_world.h"

#include "schedule/schedule_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void *new_zeroed(size_t size)
{
    void *data = calloc(1, size); // from the heap, one by one: a sanitizer sees what the scheduler keeps too long
    sim_require(data != NULL, "out of memory");
    return data;
}

uint64_t world_clock(struct world *w)
{
    bool known = w->told_ns == w->now_ns;
    w->told_ns = w->now_ns;
    if (!known || !sim_chance(&w->random, 3))
        return w->now_ns;
    w->counts.jumps++;
    return w->now_ns - sim_below(&w->random, NS_PER_S);
}

void world_init(struct world *w, uint64_t seed, const struct profile *profile, uint32_t slots)
{
    memset(w, 0, sizeof *w);
    w->random.state = seed;
    w->profile = *profile;
    w->slots = slots;
    w->now_ns = 1000 * NS_PER_S;
    const struct schedule_device_config device = {.name = "cpu", .slots = slots};
    const struct schedule_config config = {.devices = &device, .n_devices = 1, .seed = sim_next(&w->random)};
    sim_require(schedule_new(&config, &w->s) == 0, "no scheduler");
    struct schedule_class_state *class = &w->s->devices[0].classes[SCHEDULE_INTERACTIVE];
    if (sim_chance(&w->random, 30)) // a server that has run for long: the heap's keys wrap soon
        class->vtime = ((unsigned __int128)1 << 92) - ((unsigned __int128)sim_scale(&w->random, 1, NS_PER_S) << 32);
    w->vtime = (uint64_t)(class->vtime >> 32);
}

void world_done(struct world *w)
{
    const struct counts *c = &w->counts;
    uint64_t out = c->completed + c->cancelled + c->expired + c->flushed + c->lost;
    sim_require(c->submitted == out, "%" PRIu64 " requests were submitted, %" PRIu64 " came out", c->submitted, out);
    schedule_free(w->s); // asserts that it is empty
}

/* ---- tenants, targets, replicas ---- */

struct tenant *tenant_add(struct world *w, uint32_t weight, uint32_t queue_max, uint32_t depth)
{
    uint32_t index = 0;
    while (index < TENANTS_MAX && w->tenants[index])
        index++;
    if (index == TENANTS_MAX)
        return NULL;
    struct tenant *t = new_zeroed(sizeof *t);
    t->index = index;
    t->depth = depth;
    w->tenants[index] = t;
    for (uint32_t i = 0; i < TENANTS_MAX; i++)
        w->since_served[i][index] = 0;
    tenant_change(w, t, weight, queue_max);
    return t;
}

void tenant_change(struct world *w, struct tenant *t, uint32_t weight, uint32_t queue_max)
{
    sim_trace("tenant %u: weight %u, queue_max %u", t->index, weight, queue_max);
    t->weight = weight;
    t->queue_max = queue_max;
    schedule_tenant_set(w->s, &t->schedule, &(struct schedule_tenant_config){.weight = weight, .queue_max = queue_max});
}

void tenant_remove(struct world *w, struct tenant *t)
{
    sim_trace("tenant %u: gone", t->index);
    for (uint32_t i = 0; i < TARGETS_MAX; i++) {
        if (t->targets[i])
            target_remove(w, t->targets[i]);
    }
    sim_require(t->schedule.served_ns == t->served_ns, "tenant %u was served %" PRIu64 ", not %" PRIu64, t->index,
                t->schedule.served_ns, t->served_ns);
    schedule_tenant_remove(w->s, &t->schedule);
    w->tenants[t->index] = NULL;
    free(t);
}

static void target_tell(struct world *w, struct target *g)
{
    schedule_target_set(w->s, &g->schedule, &g->tenant->schedule,
                        &(struct schedule_target_config){
                            .slots = g->slots,
                            .batch_rows_max = g->rows_max,
                            .batch_bytes_max = g->bytes_max,
                            .delay_ns = g->delay_ns,
                        });
}

struct target *target_add(struct world *w, struct tenant *t)
{
    uint32_t place = 0;
    while (place < TARGETS_MAX && t->targets[place])
        place++;
    if (place == TARGETS_MAX)
        return NULL;
    struct target *g = new_zeroed(sizeof *g);
    g->tenant = t;
    list_init(&g->queue);
    t->targets[place] = g;
    target_change(w, g);
    uint64_t cost_ns = sim_scale(&w->random, 10 * NS_PER_US, 200 * NS_PER_MS);
    for (uint32_t i = 0; i < SCHEDULE_ROW_CLASSES; i++) {
        g->cost_ns[i] = cost_ns;
        cost_ns += cost_ns * sim_below(&w->random, 100) / 100;
        if (w->profile.exact)
            g->schedule._estimate_ns[i] = g->cost_ns[i];
    }
    if (w->profile.exact)
        g->schedule.estimate_ns = g->cost_ns[0];
    return g;
}

void target_simple(struct world *w, struct target *g, uint64_t cost_ns)
{
    g->slots = g->rows_max = 1;
    g->delay_ns = 0;
    for (uint32_t i = 0; i < SCHEDULE_ROW_CLASSES; i++)
        g->cost_ns[i] = g->schedule._estimate_ns[i] = cost_ns;
    target_tell(w, g);
    check_target_changed(w, g);
}

void target_change(struct world *w, struct target *g)
{
    struct sim_random *r = &w->random;
    g->slots = sim_chance(r, 70) ? 1 : (uint32_t)sim_between(r, 1, w->slots);
    g->rows_max = sim_chance(r, 40) ? 1 : (uint32_t)sim_scale(r, 2, ROWS_MAX);
    g->bytes_max = sim_chance(r, 80) ? 1 << 20 : sim_scale(r, 1, 4096);
    bool delayed = g->delay_ns > 0;
    g->delay_ns = w->profile.delays && sim_chance(r, 50) ? sim_scale(r, 1000, 100 * NS_PER_MS) : 0;
    if (!delayed)
        check_window(g);
    target_tell(w, g);
    sim_trace("target %p of %u: slots %u, rows %u, delay %" PRIu64, (void *)g, g->tenant->index, g->slots, g->rows_max,
              g->delay_ns);
    check_target_changed(w, g);
}

void replica_add(struct world *w, struct target *g)
{
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (g->replicas[i])
            continue;
        struct replica *r = new_zeroed(sizeof *r);
        r->target = g;
        g->replicas[i] = r;
        g->n_free++;
        schedule_replica_add(w->s, &r->schedule, &g->schedule);
        check_target_changed(w, g);
        return;
    }
}

/* ---- requests ---- */

static void request_out(struct request *r, enum request_state expected, uint64_t *counter)
{
    sim_require(r->state == expected, "a request leaves in state %d, not %d", (int)r->state, (int)expected);
    r->state = REQUEST_OUT;
    ++*counter;
    free(r);
}

static void request_dequeue(struct world *w, struct request *r)
{
    sim_require(r->state == REQUEST_QUEUED, "a request leaves the queue in state %d", (int)r->state);
    list_remove(&r->in_queue);
    r->target->n_queued--;
    r->target->tenant->n_queued--;
    w->n_queued--;
}

/* It leaves its queue other than by a lease. */
static void request_taken(struct world *w, struct request *r, uint64_t *counter)
{
    struct target *g = r->target;
    bool first = r->schedule.arrival_ns == g->window_ns;
    request_dequeue(w, r);
    if (first)
        check_window(g);
    request_out(r, REQUEST_QUEUED, counter);
    check_target_changed(w, g);
}

static void check_refusal(struct world *w, const struct request *r, int rc, uint64_t retry_ns)
{
    const struct target *g = r->target;
    if (g->tenant->n_queued >= g->tenant->queue_max) {
        sim_require(rc == -ERROR_QUEUE_FULL && retry_ns > 0, "a full queue is refused with %d", rc);
        w->counts.full++;
        return;
    }
    sim_require(rc == -ERROR_DEADLINE && r->schedule.deadline_ns, "refused with %d", rc);
    if (r->schedule.deadline_ns > w->now_ns) {
        sim_require(g->n_queued > 0 || g->n_free == 0, "refused though it could start at once");
        sim_require(g->schedule.estimate_ns > 0, "refused without an estimate");
    }
    w->counts.hopeless++;
}

bool request_submit(struct world *w, struct target *g, uint32_t rows, uint64_t shape_key, uint64_t deadline_ns)
{
    struct request *r = new_zeroed(sizeof *r);
    r->target = g;
    r->schedule = (struct schedule_request){
        .target = &g->schedule,
        .priority = SCHEDULE_INTERACTIVE,
        .rows = rows,
        .bytes = rows * UINT64_C(16),
        .shape_key = shape_key,
        .deadline_ns = deadline_ns,
    };
    uint64_t retry_ns = 0;
    int rc = schedule_submit(w->s, &r->schedule, world_clock(w), &retry_ns);
    if (rc < 0) {
        check_refusal(w, r, rc, retry_ns);
        free(r);
        return false;
    }
    sim_require(g->tenant->n_queued < g->tenant->queue_max, "the queue bound was passed");
    sim_require(r->schedule.arrival_ns == w->now_ns, "arrived at another time");
    r->state = REQUEST_QUEUED;
    if (g->n_queued++ == 0)
        g->window_ns = w->now_ns;
    r->urgency = deadline_ns ? deadline_ns : w->now_ns + LIMIT_QUEUE_WAIT_MS * NS_PER_MS;
    struct list *before = &g->queue;
    while (before->prev != &g->queue && container_of(before->prev, struct request, in_queue)->urgency > r->urgency)
        before = before->prev;
    list_append(before, &r->in_queue);
    g->tenant->n_queued++;
    w->n_queued++;
    w->counts.submitted++;
    check_target_changed(w, g);
    return true;
}

void request_cancel(struct world *w, struct request *r)
{
    bool queued = r->state == REQUEST_QUEUED;
    sim_require(schedule_cancel(w->s, &r->schedule) == queued, "cancelled in state %d", (int)r->state);
    if (!queued)
        return; // leased: its answer will be dropped
    request_taken(w, r, &w->counts.cancelled);
}

void request_expired(struct world *w, struct request *r)
{
    sim_require(r->schedule.deadline_ns && r->schedule.deadline_ns <= w->now_ns, "expired before its time");
    request_taken(w, r, &w->counts.expired);
}

void target_remove(struct world *w, struct target *g)
{
    struct tenant *t = g->tenant;
    struct schedule_request *flushed;
    while ((flushed = schedule_target_flush(w->s, &g->schedule))) {
        struct request *r = container_of(flushed, struct request, schedule);
        sim_require(r->target == g, "flushed from another target");
        request_taken(w, r, &w->counts.flushed);
    }
    sim_require(g->n_queued == 0, "%u requests were not flushed", g->n_queued);
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (g->replicas[i])
            replica_remove(w, g->replicas[i]);
    }
    schedule_target_remove(w->s, &g->schedule);
    for (uint32_t i = 0; i < TARGETS_MAX; i++) {
        if (t->targets[i] == g)
            t->targets[i] = NULL;
    }
    free(g);
}

/* ---- leases ---- */

/* The model's side of a lease that ends; the scheduler has been told already. */
static void run_end(struct world *w, struct run *run, uint64_t *counter)
{
    struct tenant *t = run->replica->target->tenant;
    uint64_t time_ns = w->now_ns - run->started_ns;
    if (time_ns > SCHEDULE_CHARGE_NS_MAX) // the machine slept for hours, the lease with it
        time_ns = SCHEDULE_CHARGE_NS_MAX;
    double charged = (double)run->charged_ns / run->slots / run->weight, measured = (double)time_ns / run->weight;
    struct account *a = &t->account;
    a->longest = measured > a->longest ? measured : a->longest;
    a->undercharged = measured - charged > a->undercharged ? measured - charged : a->undercharged;
    a->overcharged = charged - measured > a->overcharged ? charged - measured : a->overcharged;
    a->charged += (measured - charged) * run->slots;
    t->served_ns += time_ns * run->slots;
    w->busy_ns += time_ns * run->slots;
    w->slots_used -= run->slots;
    t->n_leased -= run->n_requests;
    for (uint32_t i = 0; i < run->n_requests; i++) {
        sim_require(run->lease->requests[i] == &run->requests[i]->schedule, "the lease changed under way");
        sim_require(!run->requests[i]->schedule.lease, "a request that is out still names its lease");
        request_out(run->requests[i], REQUEST_LEASED, counter);
    }
    schedule_lease_free(w->s, run->lease);
    run->replica->run = NULL;
    check_account_changed(w, t);
    *run = (struct run){0};
}

void run_complete(struct world *w, struct run *run)
{
    struct replica *replica = run->replica;
    sim_trace("%" PRIu64 " tenant %u: lease ends", w->now_ns, replica->target->tenant->index);
    schedule_complete(w->s, run->lease, world_clock(w));
    run_end(w, run, &w->counts.completed);
    replica->target->n_free++;
    check_target_changed(w, replica->target);
}

void replica_remove(struct world *w, struct replica *r)
{
    struct target *g = r->target;
    struct schedule_lease *lease = (void *)r; // must be overwritten
    schedule_replica_remove(w->s, &r->schedule, world_clock(w), &lease);
    sim_require(lease == (r->run ? r->run->lease : NULL), "removing a replica gives another lease");
    if (r->run)
        run_end(w, r->run, &w->counts.lost);
    else
        g->n_free--;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (g->replicas[i] == r)
            g->replicas[i] = NULL;
    }
    free(r);
    check_target_changed(w, g);
}

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
    for (uint32_t i = 0; i < SLOTS_MAX && !run; i++)
        run = w->runs[i].lease ? NULL : &w->runs[i];
    sim_require(run != NULL, "more leases than slots");
    struct replica *replica = container_of(lease->replica, struct replica, schedule);
    struct target *g = replica->target;
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
        .n_requests = lease->n_requests,
    };
    sim_require(lease->started_ns == w->now_ns && lease->limit_ns > w->now_ns, "a lease at another time");
    sim_require(!w->profile.exact || lease->estimate_ns == run->end_ns - w->now_ns, "an estimate for another size");
    check_lease_started(w, run);
    sim_trace("%" PRIu64 " tenant %u: lease of %u requests on %u slots until %" PRIu64, w->now_ns, g->tenant->index,
              lease->n_requests, lease->slots, run->end_ns);
    replica->run = run;
    g->n_free--;
    w->slots_used += lease->slots;
    for (uint32_t i = 0; i < lease->n_requests; i++) {
        struct request *r = container_of(lease->requests[i], struct request, schedule);
        sim_require(r->schedule.lease == lease, "a request in a lease that it does not name");
        request_dequeue(w, r);
        r->state = REQUEST_LEASED;
        run->requests[i] = r;
    }
    if (g->n_queued > 0)
        check_window(g);
    g->tenant->n_leased += lease->n_requests;
    w->counts.leases++;
    check_target_changed(w, g);
}
