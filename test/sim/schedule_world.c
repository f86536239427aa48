#include "test/sim/schedule_world.h"

#include "schedule/schedule_internal.h"

#include <inttypes.h>
#include <stdio.h>
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
    if (!w->begin_ns) { // the scheduler's clock begins with the first time that it is told
        w->begin_ns = w->now_ns;
        for (uint32_t i = 0; i < w->n_devices; i++)
            w->devices[i].since_ns = w->now_ns;
    }
    if (!known || !sim_chance(&w->random, 3))
        return w->now_ns;
    w->counts.jumps++;
    return w->now_ns - sim_below(&w->random, NS_PER_S);
}

static void config_draw(struct world *w, uint32_t slots, struct schedule_config *config,
                        struct schedule_device_config *devices)
{
    struct sim_random *r = &w->random;
    static const char *const names[DEVICES_MAX] = {"cpu", "gpu"};
    w->n_devices = w->profile.classes && sim_chance(r, 40) ? 2 : 1;
    for (uint32_t i = 0; i < w->n_devices; i++) {
        w->devices[i].slots = i == 0 ? slots : (uint32_t)sim_between(r, 1, SLOTS_MAX);
        devices[i] = (struct schedule_device_config){.name = names[i], .slots = w->devices[i].slots};
    }
    for (uint32_t class = 1; class < CLASSES; class ++)
        w->share_permille[class] = sim_chance(r, 60) ? 50 : (uint32_t)sim_between(r, 0, 250);
    if (w->profile.overload) {
        w->queue_max = sim_chance(r, 80) ? (uint32_t)sim_scale(r, 1, 200) : 0;
        w->queue_bytes_max = sim_chance(r, 50) ? sim_scale(r, 16, 100000) : 0;
    }
    *config = (struct schedule_config){
        .devices = devices,
        .n_devices = w->n_devices,
        .policy = w->profile.fifo ? SCHEDULE_FIFO : SCHEDULE_FAIR,
        .queue_max = w->queue_max,
        .queue_bytes_max = w->queue_bytes_max,
        .seed = sim_next(r),
    };
    memcpy(config->share_permille, w->share_permille, sizeof config->share_permille);
}

void world_init(struct world *w, uint64_t seed, const struct profile *profile, uint32_t slots)
{
    memset(w, 0, sizeof *w);
    w->random.state = seed;
    w->profile = *profile;
    w->now_ns = 1000 * NS_PER_S;
    struct schedule_device_config devices[DEVICES_MAX];
    struct schedule_config config;
    config_draw(w, slots, &config, devices);
    sim_require(schedule_new(&config, &w->s) == 0, "no scheduler");
    for (uint32_t i = 0; i < w->n_devices; i++) {
        struct device *d = &w->devices[i];
        sim_require(schedule_device_find(w->s, devices[i].name) == (int)i, "a device is not found");
        for (uint32_t class = 0; class < CLASSES; class ++) {
            struct schedule_class_state *c = &w->s->devices[i].classes[class];
            if (sim_chance(&w->random, 30)) // a server that has run for long: the heap's keys wrap soon
                c->vtime = ((unsigned __int128)1 << 92) - ((unsigned __int128)sim_scale(&w->random, 1, NS_PER_S) << 32);
            d->vtime[class] = (uint64_t)(c->vtime >> 32);
            struct tenants_group *g = d->groups[class] = new_zeroed(sizeof *g);
            share_init(&g->group, TENANTS_MAX, d->slots, g->members, g->pairs, g->since);
        }
    }
    if (profile->seats)
        hosts_new(w);
}

void world_done(struct world *w)
{
    const struct counts *c = &w->counts;
    uint64_t out = c->completed + c->cancelled + c->expired + c->flushed + c->lost + c->shed;
    sim_require(c->submitted == out, "%" PRIu64 " requests were submitted, %" PRIu64 " came out", c->submitted, out);
    hosts_free(w);
    schedule_free(w->s); // asserts that it is empty
    for (uint32_t i = 0; i < DEVICES_MAX * CLASSES; i++)
        free(w->devices[i / CLASSES].groups[i % CLASSES]);
}

void world_idle(struct world *w, struct device *d)
{
    if (!d->since_ns)
        return;
    d->idle_ns += (d->slots - d->slots_used) * (w->now_ns - d->since_ns);
    d->since_ns = w->now_ns;
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
    for (uint32_t i = 0; i < w->n_devices * CLASSES; i++)
        share_joined(&w->devices[i / CLASSES].groups[i % CLASSES]->group, index);
    for (uint32_t i = 0; i < HOSTS_MAX * CLASSES; i++)
        if (w->hosts[i / CLASSES])
            share_joined(&w->hosts[i / CLASSES]->groups[i % CLASSES].group, index);
    tenant_change(w, t, weight, queue_max);
    return t;
}

void tenant_change(struct world *w, struct tenant *t, uint32_t weight, uint32_t queue_max)
{
    t->weight = weight;
    t->queue_max = queue_max;
    t->queue_bytes_max = 0;
    if (w->profile.overload && sim_chance(&w->random, 40))
        t->queue_bytes_max = sim_scale(&w->random, 16, 20000);
    sim_trace("tenant %u: weight %u, queue_max %u, queue_bytes_max %" PRIu64, t->index, weight, queue_max,
              t->queue_bytes_max);
    schedule_tenant_set(w->s, &t->schedule,
                        &(struct schedule_tenant_config){
                            .weight = weight, .queue_max = queue_max, .queue_bytes_max = t->queue_bytes_max});
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
    for (uint32_t i = 0; i < DEVICES_MAX * CLASSES; i++)
        free(t->groups[i / CLASSES][i % CLASSES]);
    free(t);
}

static void target_tell(struct world *w, struct target *g)
{
    schedule_target_set(w->s, &g->schedule, &g->tenant->schedule,
                        &(struct schedule_target_config){
                            .device = g->device,
                            .weight = g->weight,
                            .slots = g->slots,
                            .batch_rows_max = g->rows_max,
                            .batch_bytes_max = g->bytes_max,
                            .delay_ns = g->delay_ns,
                            .preferred = g->preferred,
                            .n_preferred = g->n_preferred,
                            .cancellable = g->cancellable,
                        });
    check_target_changed(w, g);
}

static void groups_join(struct world *w, struct target *g)
{
    for (uint32_t class = 0; class < CLASSES; class ++) {
        struct targets_group **group = &g->tenant->groups[g->device][class];
        if (!*group) {
            *group = new_zeroed(sizeof **group);
            share_init(&(*group)->group, TARGETS_MAX, w->devices[g->device].slots, (*group)->members, (*group)->pairs,
                       (*group)->since);
        }
        share_joined(&(*group)->group, g->index);
    }
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
    g->index = place;
    g->device = (uint32_t)sim_below(&w->random, w->n_devices);
    for (uint32_t class = 0; class < CLASSES; class ++)
        list_init(&g->lanes[class].queue);
    groups_join(w, g);
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
    g->slots = g->rows_max = g->weight = 1;
    g->delay_ns = 0;
    g->n_preferred = 0;
    for (uint32_t i = 0; i < SCHEDULE_ROW_CLASSES; i++)
        g->cost_ns[i] = g->schedule._estimate_ns[i] = cost_ns;
    target_tell(w, g);
}

void target_change(struct world *w, struct target *g)
{
    struct sim_random *r = &w->random;
    g->slots = sim_chance(r, 70) ? 1 : (uint32_t)sim_between(r, 1, w->devices[g->device].slots);
    g->weight = sim_chance(r, 50) ? 1 : (uint32_t)sim_scale(r, 1, 100);
    g->rows_max = sim_chance(r, 40) ? 1 : (uint32_t)sim_scale(r, 2, ROWS_MAX);
    g->bytes_max = sim_chance(r, 80) ? 1 << 20 : sim_scale(r, 1, 4096);
    g->cancellable = sim_chance(r, 80);
    bool delayed = g->delay_ns > 0;
    g->delay_ns = w->profile.delays && sim_chance(r, 50) ? sim_scale(r, 1000, 100 * NS_PER_MS) : 0;
    g->n_preferred = g->delay_ns && g->rows_max > 4 && sim_chance(r, 50) ? 3 : 0;
    for (uint32_t i = 0; i < g->n_preferred; i++)
        g->preferred[i] = i == 2 ? g->rows_max - 1 : 2 + i;
    for (uint32_t class = 0; class < CLASSES && !delayed; class ++)
        check_window(g, &g->lanes[class]);
    sim_trace("target %u of %u: device %u, slots %u, rows %u, delay %" PRIu64, g->index, g->tenant->index, g->device,
              g->slots, g->rows_max, g->delay_ns);
    target_tell(w, g);
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
        g->n_replicas++;
        schedule_replica_add(w->s, &r->schedule, &g->schedule);
        check_target_changed(w, g);
        return;
    }
}

/* ---- requests ---- */

void request_out(struct request *r, enum request_state expected, uint64_t *counter)
{
    sim_require(r->state == expected, "a request leaves in state %d, not %d", (int)r->state, (int)expected);
    r->state = REQUEST_OUT;
    ++*counter;
    free(r);
}

/* Adds (or takes away) what a request counts while it is queued. */
static void request_count(struct world *w, const struct request *r, int32_t sign)
{
    struct tenant *t = r->target->tenant;
    uint32_t class = class_of(w, r), one = (uint32_t)sign;
    uint64_t bytes = (uint64_t)((int64_t)r->schedule.bytes * sign);
    r->target->n_queued += one;
    r->target->lanes[class].n_queued += one;
    t->n_queued += one;
    t->class_queued[class] += one;
    t->queued_bytes += bytes;
    t->class_bytes[class] += bytes + (uint64_t)((int64_t)SCHEDULE_REQUEST_BYTES * sign);
    w->n_queued += (uint64_t)(int64_t)sign;
    w->queued_bytes += bytes;
}

void request_enqueue(struct world *w, struct request *r)
{
    struct lane *lane = &r->target->lanes[class_of(w, r)];
    if (lane->n_queued == 0 || r->schedule.arrival_ns < lane->window_ns)
        lane->window_ns = r->schedule.arrival_ns;
    uint64_t deadline_ns = r->schedule.deadline_ns;
    r->urgency = deadline_ns ? deadline_ns : r->schedule.arrival_ns + LIMIT_QUEUE_WAIT_MS * NS_PER_MS;
    if (w->profile.fifo || r->requeued)
        r->urgency = 0;
    struct list *before = &lane->queue;
    while (before->prev != &lane->queue) {
        const struct request *other = container_of(before->prev, struct request, in_queue);
        if (other->urgency < r->urgency || (other->urgency == r->urgency && other->order < r->order))
            break;
        before = before->prev;
    }
    list_append(before, &r->in_queue);
    r->state = REQUEST_QUEUED;
    request_count(w, r, 1);
}

void request_dequeue(struct world *w, struct request *r)
{
    sim_require(r->state == REQUEST_QUEUED, "a request leaves the queue in state %d", (int)r->state);
    list_remove(&r->in_queue);
    request_count(w, r, -1);
}

/* It leaves its queue other than by a lease. */
static void request_taken(struct world *w, struct request *r, uint64_t *counter)
{
    struct target *g = r->target;
    struct lane *lane = &g->lanes[class_of(w, r)];
    bool first = r->schedule.arrival_ns == lane->window_ns;
    request_dequeue(w, r);
    if (first)
        check_window(g, lane);
    uint32_t class = class_of(w, r);
    request_out(r, REQUEST_QUEUED, counter);
    check_lane_changed(w, g, class);
}

static bool queues_over(const struct world *w, uint32_t n_more, uint64_t bytes_more)
{
    return (w->queue_max && w->n_queued + n_more > w->queue_max) ||
           (w->queue_bytes_max && w->queued_bytes + bytes_more > w->queue_bytes_max);
}

static bool is_worst(const struct world *w, const struct request *r)
{
    const struct tenant *t = r->target->tenant;
    uint32_t class = class_of(w, r);
    return w->profile.fifo || (w->queue_bytes_max && r->schedule.bytes > w->queue_bytes_max) ||
           check_is_worst(w, t, class, t->class_bytes[class] + r->schedule.bytes + SCHEDULE_REQUEST_BYTES);
}

static bool tenant_full(const struct request *r)
{
    const struct tenant *t = r->target->tenant;
    return t->n_queued >= t->queue_max ||
           (t->queue_bytes_max && t->queued_bytes + r->schedule.bytes > t->queue_bytes_max);
}

static void check_refusal(struct world *w, const struct request *r, int rc, uint64_t retry_ns)
{
    const struct target *g = r->target;
    if (tenant_full(r)) {
        sim_require(rc == -ERROR_QUEUE_FULL && retry_ns > 0, "a full queue is refused with %d", rc);
        w->counts.full++;
        return;
    }
    if (rc == -ERROR_OVERLOADED) {
        sim_require(queues_over(w, 1, r->schedule.bytes) && is_worst(w, r) && retry_ns > 0,
                    "refused for an overload that is not there, or not its own");
        w->counts.overloaded++;
        return;
    }
    sim_require(rc == -ERROR_DEADLINE && r->schedule.deadline_ns, "refused with %d", rc);
    if (r->schedule.deadline_ns > w->now_ns) {
        sim_require(g->n_queued > 0 || g->n_free == 0, "refused though it could start at once");
        sim_require(g->schedule.estimate_ns > 0, "refused without an estimate");
    }
    w->counts.hopeless++;
}

/* Whoever has to give way: the newest of the one that is furthest over its share in the lowest class. */
static void requests_shed(struct world *w, uint32_t class_new)
{
    enum schedule_shed_reason reason = SCHEDULE_SHED_NONE;
    uint64_t retry_ns = 0;
    for (struct schedule_request *shed; (shed = schedule_shed(w->s, &reason, &retry_ns));) {
        struct request *r = container_of(shed, struct request, schedule);
        struct tenant *t = r->target->tenant;
        uint32_t class = class_of(w, r);
        sim_require(queues_over(w, 0, 0), "shed for nothing");
        sim_require(check_is_worst(w, t, class, t->class_bytes[class]), "tenant %u is shed, others have more",
                    t->index);
        sim_require(reason == (class > class_new ? SCHEDULE_SHED_CLASS : SCHEDULE_SHED_SHARE) && retry_ns > 0,
                    "shed for reason %d", (int)reason);
        for (uint32_t i = 0; i < TARGETS_MAX; i++) {
            const struct target *g = t->targets[i];
            for (struct list *node = g ? g->lanes[class].queue.next : NULL; node && node != &g->lanes[class].queue;
                 node = node->next) {
                const struct request *other = container_of(node, struct request, in_queue);
                sim_require(r->order >= other->order || other->requeued, "shed, though a newer one is queued");
            }
        }
        request_taken(w, r, &w->counts.shed);
    }
    sim_require(!queues_over(w, 0, 0), "the queues are over their bound, and nothing is shed");
}

/* The deliberate fault: a tenant that becomes runnable is not moved on to the present virtual time. */
static void credit_give(struct world *w, struct target *g, enum schedule_class class, unsigned __int128 vtime)
{
    struct schedule_flow *f = g->schedule._lanes[class]->flow;
    f->vtime = vtime;
    schedule_fair_update(w->s, f);
}

/* The tenant's virtual time if it is not runnable, so that it can be given back; 0: nothing to keep. */
static unsigned __int128 credit_of(const struct world *w, const struct target *g, enum schedule_class class)
{
    const struct schedule_lane *lane = g->schedule._lanes[class];
    const struct schedule_active *a = g->tenant->schedule._active;
    if (!w->profile.credit || !lane || !a)
        return 0;
    const struct schedule_flow *f = schedule_flow_find(w->s, lane);
    return f->turn ? 0 : f->vtime;
}

bool request_submit(struct world *w, struct target *g, enum schedule_class class, uint32_t rows, uint64_t shape_key,
                    uint64_t deadline_ns)
{
    unsigned __int128 credit = credit_of(w, g, class);
    struct request *r = new_zeroed(sizeof *r);
    r->target = g;
    r->schedule = (struct schedule_request){
        .target = &g->schedule,
        .priority = class,
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
    if (credit > 0 && g->schedule._lanes[class]->flow->turn)
        credit_give(w, g, class, credit);
    sim_require(!tenant_full(r), "the tenant's bound was passed");
    sim_require(!queues_over(w, 1, r->schedule.bytes) || !is_worst(w, r), "taken though it is the first to be shed");
    sim_require(r->schedule.arrival_ns == w->now_ns, "arrived at another time");
    r->order = w->n_arrivals++;
    request_enqueue(w, r);
    w->counts.submitted++;
    check_lane_changed(w, g, class_of(w, r));
    requests_shed(w, (uint32_t) class);
    return true;
}

void request_cancel(struct world *w, struct request *r)
{
    bool queued = r->state == REQUEST_QUEUED;
    sim_require(schedule_cancel(w->s, &r->schedule) == queued, "cancelled in state %d", (int)r->state);
    if (queued)
        request_taken(w, r, &w->counts.cancelled); // else its answer will be dropped
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
    t->targets[g->index] = NULL;
    free(g);
}
