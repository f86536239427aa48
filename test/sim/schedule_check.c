#include "test/sim/schedule_world.h"

#include "schedule/schedule_internal.h"

#include <inttypes.h>

uint32_t rows_class(uint32_t rows)
{
    uint32_t class = 0;
    for (uint64_t most = 1; most < rows && class < SCHEDULE_ROW_CLASSES - 1; most *= 2)
        class ++;
    return class;
}

uint32_t class_of(const struct world *w, const struct request *r)
{
    return w->profile.fifo ? SCHEDULE_INTERACTIVE : (uint32_t)r->schedule.priority;
}

static struct request *queue_head(const struct lane *lane)
{
    return container_of(lane->queue.next, struct request, in_queue);
}

static bool batch_full(const struct target *g, const struct lane *lane)
{
    uint64_t rows = 0, bytes = 0;
    list_each(node, &lane->queue)
    {
        const struct request *r = container_of(node, struct request, in_queue);
        rows += r->schedule.rows;
        bytes += r->schedule.bytes;
    }
    bool preferred = g->n_preferred > 0 && rows >= g->preferred[0];
    return queue_head(lane)->schedule.shape_key == 0 || rows >= g->rows_max || preferred || bytes >= g->bytes_max ||
           lane->n_queued >= LIMIT_BATCH_ITEMS;
}

bool lane_runnable(const struct target *g, uint32_t class)
{
    const struct lane *lane = &g->lanes[class];
    return lane->n_queued > 0 && g->n_free > 0 && lane->waits_until_ns == 0;
}

static bool each_runnable(const struct world *w, uint32_t device, uint32_t class, uint32_t *at, struct target **ret_g);

static bool any_held(const struct world *w, uint32_t device, uint32_t class)
{
    for (uint32_t i = 0; w->profile.seats && i < TENANTS_MAX * TARGETS_MAX; i++) {
        const struct tenant *t = w->tenants[i / TARGETS_MAX];
        const struct target *g = t ? t->targets[i % TARGETS_MAX] : NULL;
        if (g && g->device == device && lane_held(g, class))
            return true;
    }
    return false;
}

static bool class_busy(const struct world *w, uint32_t device, uint32_t class)
{
    uint32_t at = 0;
    struct target *g;
    return w->devices[device].n_running[class] > 0 || each_runnable(w, device, class, &at, &g) ||
           any_held(w, device, class);
}

/* Neither something to run, or that only waits for a shared worker, nor a lease: it loses what it has earned. */
static void check_class_rest(struct world *w, uint32_t device, uint32_t class)
{
    struct device *d = &w->devices[device];
    if (d->earned[class] > 0 && !class_busy(w, device, class))
        d->earned[class] = 0;
}

void check_lane_changed(struct world *w, struct target *g, uint32_t class)
{
    struct tenant *t = g->tenant;
    struct lane *lane = &g->lanes[class];
    lane->waits_until_ns = 0;
    if (lane->n_queued > 0 && g->n_free > 0 && g->delay_ns > 0 && !batch_full(g, lane)) {
        uint64_t until_ns = lane->window_ns + g->delay_ns;
        if (until_ns > w->now_ns)
            lane->waits_until_ns = until_ns;
    }
    share_runnable(&t->groups[g->device][class]->group, g->index, lane_runnable(g, class));
    bool runnable = false;
    for (uint32_t i = 0; i < TARGETS_MAX; i++) {
        const struct target *other = t->targets[i];
        runnable |= other && other->device == g->device && lane_runnable(other, class);
    }
    share_runnable(&w->devices[g->device].groups[class]->group, t->index, runnable);
    hosts_changed(w, t, class);
    check_class_rest(w, g->device, class);
}

void check_target_changed(struct world *w, struct target *g)
{
    for (uint32_t class = 0; class < CLASSES; class ++)
        check_lane_changed(w, g, class);
}

void check_window(const struct target *g, struct lane *lane)
{
    if (g->delay_ns == 0) // nobody looks
        return;
    lane->window_ns = lane->n_queued > SCHEDULE_SCAN_MAX ? 0 : UINT64_MAX;
    list_each(node, &lane->queue)
    {
        const struct request *r = container_of(node, struct request, in_queue);
        if (r->schedule.arrival_ns < lane->window_ns)
            lane->window_ns = r->schedule.arrival_ns;
    }
}

void check_delays(struct world *w)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        for (uint32_t j = 0; w->tenants[i] && j < TARGETS_MAX; j++) {
            struct target *g = w->tenants[i]->targets[j];
            for (uint32_t class = 0; g && class < CLASSES; class ++) {
                if (g->lanes[class].waits_until_ns && g->lanes[class].waits_until_ns <= w->now_ns)
                    check_lane_changed(w, g, class);
            }
        }
    }
}

/* Every runnable lane of a device and class, one after the other: 0 at first; false when there are no more. */
static bool each_runnable(const struct world *w, uint32_t device, uint32_t class, uint32_t *at, struct target **ret_g)
{
    while (*at < TENANTS_MAX * TARGETS_MAX) {
        const struct tenant *t = w->tenants[*at / TARGETS_MAX];
        struct target *g = t ? t->targets[*at % TARGETS_MAX] : NULL;
        ++*at;
        if (g && g->device == device && lane_runnable(g, class)) {
            *ret_g = g;
            return true;
        }
    }
    return false;
}

/* ---- batches ---- */

/* The requests that the lease must have gathered, by the rules of the header, from the queue before it. */
static uint32_t expected_batch(const struct target *g, const struct lane *lane, struct request **batch)
{
    struct request *head = queue_head(lane);
    uint32_t n = 0, n_passed = 0;
    uint64_t rows = 0, bytes = 0;
    list_each(node, &lane->queue)
    {
        struct request *r = container_of(node, struct request, in_queue);
        if (r == head) {
            batch[n++] = r;
            rows = r->schedule.rows;
            bytes = r->schedule.bytes;
            if (r->schedule.shape_key == 0)
                break;
        } else if (r->schedule.shape_key != head->schedule.shape_key) {
            if (++n_passed > SCHEDULE_SCAN_MAX)
                break;
        } else if (n == LIMIT_BATCH_ITEMS || rows + r->schedule.rows > g->rows_max ||
                   bytes + r->schedule.bytes > g->bytes_max) {
            break;
        } else {
            batch[n++] = r;
            rows += r->schedule.rows;
            bytes += r->schedule.bytes;
        }
    }
    return n;
}

/* A preferred size that the first n of the batch make, and that it may have been cut to: nothing else could run, and
 * the rest may wait. */
static uint32_t expected_cut(const struct world *w, const struct target *g, const struct lane *lane,
                             struct request **batch, uint32_t n)
{
    uint32_t n_runnable = 0, n_cut = 0;
    for (uint32_t class = 0; class < CLASSES; class ++) {
        struct target *other;
        for (uint32_t at = 0; each_runnable(w, g->device, class, &at, &other);)
            n_runnable++;
    }
    uint64_t rows = 0;
    for (uint32_t i = 0; i < n; i++) {
        rows += batch[i]->schedule.rows;
        for (uint32_t p = 0; p < g->n_preferred; p++)
            n_cut = rows == g->preferred[p] ? i + 1 : n_cut;
    }
    if (n_runnable > 1 || n_cut == 0 || n_cut == n || lane->n_queued - n_cut > SCHEDULE_SCAN_MAX)
        return n;
    uint32_t i = 0;
    list_each(node, &lane->queue)
    {
        struct request *r = container_of(node, struct request, in_queue);
        if (i < n_cut && batch[i] == r)
            i++;
        else if (r->schedule.arrival_ns + g->delay_ns <= w->now_ns)
            return n;
    }
    return n_cut;
}

static void check_batch(struct world *w, const struct run *run)
{
    const struct schedule_lease *lease = run->lease;
    const struct target *g = run->replica->target;
    const struct lane *lane = &g->lanes[run->class];
    static struct request *batch[LIMIT_BATCH_ITEMS];
    uint32_t n_full = expected_batch(g, lane, batch), n = expected_cut(w, g, lane, batch, n_full);
    w->counts.cut += n < n_full;
    sim_require(lease->n_requests == n, "a batch of %u requests, not %u", lease->n_requests, n);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < n; i++) {
        sim_require(lease->requests[i] == &batch[i]->schedule, "request %u of the batch is another", i);
        rows += batch[i]->schedule.rows;
    }
    sim_require(lease->rows == rows, "a lease of %u rows, not %" PRIu64, lease->rows, rows);
    uint64_t expected_ns = lease->estimate_ns ? lease->estimate_ns : NS_PER_MS;
    sim_require(run->charged_ns == expected_ns * lease->slots, "charged %" PRIu64 " for %" PRIu64 " ns on %u slots",
                run->charged_ns, expected_ns, lease->slots);
}

/* ---- classes ---- */

/* What the next lease of a class could be charged if its head came alone: the least and the most of all it has. */
static bool next_cost(const struct world *w, uint32_t device, uint32_t class, double *ret_least, double *ret_most)
{
    bool some = false;
    struct target *g;
    for (uint32_t at = 0; each_runnable(w, device, class, &at, &g); some = true) {
        double cost = (double)schedule_estimate_cost(&g->schedule, queue_head(&g->lanes[class])->schedule.rows);
        *ret_least = some && *ret_least < cost ? *ret_least : cost;
        *ret_most = some && *ret_most > cost ? *ret_most : cost;
    }
    return some;
}

/* Rounded down to nanoseconds at each step. */
#define EARNED_TOLERANCE 4096.0

/* The highest class with something to run is next, unless a lower one has earned its next lease: then that. What a
 * class has earned is computed anew from the leases that start, so no class gets less than its share, or more. */
static void check_class_started(struct world *w, struct run *run)
{
    struct device *d = &w->devices[run->replica->target->device];
    uint32_t device = (uint32_t)(d - w->devices), top = CLASSES;
    bool due_possible = false, due_certain = false;
    run->earning = 0;
    for (uint32_t class = 0; class < CLASSES; class ++) {
        double least = 0, most = 0;
        if (!next_cost(w, device, class, &least, &most))
            continue;
        if (top == CLASSES) {
            top = class;
            continue;
        }
        run->earning |= 1u << class;
        due_possible |= class == (uint32_t)run->class && d->earned[class] >= least - EARNED_TOLERANCE;
        due_certain |= d->earned[class] >= most + EARNED_TOLERANCE;
    }
    sim_require(run->lease->priority == run->class && run->lease->due == ((uint32_t)run->class != top),
                "a lease of class %d while %u waits, due %d", (int)run->class, top, run->lease->due);
    sim_require(!run->lease->due || due_possible, "class %d is served before it has earned it: %.0f", (int)run->class,
                d->earned[run->class]);
    sim_require(run->lease->due || !due_certain, "a lower class has earned its lease and is not served");
    w->counts.due += run->lease->due;
    run->repaid = 0;
    for (uint32_t class = 0; class < CLASSES; class ++) {
        if (run->earning >> class & 1)
            d->earned[class] += (double)run->charged_ns * w->share_permille[class] / 1000;
    }
    if (run->lease->due)
        d->earned[run->class] -= (double)run->charged_ns;
    else if (d->earned[run->class] > 0)
        run->repaid = d->earned[run->class] < (double)run->charged_ns ? d->earned[run->class] : (double)run->charged_ns;
    d->earned[run->class] -= run->repaid;
}

static void check_class_ended(struct world *w, const struct run *run, uint64_t cost_ns)
{
    uint32_t device = run->replica->target->device;
    struct device *d = &w->devices[device];
    double more = (double)cost_ns - (double)run->charged_ns;
    for (uint32_t class = 0; class < CLASSES; class ++) {
        if ((run->earning >> class & 1) && class_busy(w, device, class))
            d->earned[class] += more * w->share_permille[class] / 1000;
    }
    double *earned = &d->earned[run->class];
    double least = -(double)NS_PER_S * run->slots;
    if (run->lease->due && *earned - more < least)
        *earned = *earned < least ? *earned : least;
    else if (run->lease->due)
        *earned -= more;
    else if (run->preempted && (double)cost_ns < run->repaid)
        *earned += run->repaid - (double)cost_ns;
}

/* ---- leases ---- */

static void check_first_come(const struct world *w, const struct run *run)
{
    uint64_t order = queue_head(&run->replica->target->lanes[run->class])->order;
    struct target *g;
    for (uint32_t at = 0; each_runnable(w, run->replica->target->device, run->class, &at, &g);)
        sim_require(queue_head(&g->lanes[run->class])->order >= order, "who came later is served first");
}

void check_lease_started(struct world *w, struct run *run)
{
    const struct schedule_lease *lease = run->lease;
    struct target *g = run->replica->target;
    struct tenant *t = g->tenant;
    struct device *d = &w->devices[g->device];
    sim_require(lease->device == g->device && lane_runnable(g, run->class), "a lease for a target that cannot run");
    sim_require(lease->slots == g->slots && d->slots_used + lease->slots <= d->slots, "slots oversubscribed: %u + %u",
                d->slots_used, lease->slots);
    check_batch(w, run);
    if (w->profile.fifo) {
        check_first_come(w, run);
        return;
    }
    check_class_started(w, run);
    double time = (double)run->charged_ns / lease->slots;
    share_charged(w, &d->groups[run->class]->group, t->index, "tenants", run->slots, time / run->weight);
    share_charged(w, &t->groups[g->device][run->class]->group, g->index, "targets", run->slots,
                  time / run->target_weight);
    hosts_charged(w, run, time / run->weight);
}

void check_lease_ended(struct world *w, struct run *run, uint64_t cost_ns, uint64_t own_ns)
{
    struct target *g = run->replica->target;
    struct tenant *t = g->tenant;
    if (w->profile.fifo)
        return;
    check_class_ended(w, run, cost_ns);
    double charged = (double)run->charged_ns / run->slots, measured = (double)own_ns / run->slots;
    share_corrected(w, &w->devices[g->device].groups[run->class]->group, t->index, "tenants", run->slots,
                    charged / run->weight, measured / run->weight);
    share_corrected(w, &t->groups[g->device][run->class]->group, g->index, "targets", run->slots,
                    charged / run->target_weight, measured / run->target_weight);
    hosts_corrected(w, g, run->class, run->slots, charged / run->weight, measured / run->weight);
}

void check_part_charged(struct world *w, struct target *g, uint32_t class, uint32_t slots, uint64_t cost_ns)
{
    struct tenant *t = g->tenant;
    double time = (double)cost_ns / slots;
    g->tenant->served_ns += cost_ns;
    share_corrected(w, &w->devices[g->device].groups[class]->group, t->index, "tenants", slots, 0, time / t->weight);
    share_corrected(w, &t->groups[g->device][class]->group, g->index, "targets", slots, 0, time / g->weight);
    hosts_corrected(w, g, class, slots, 0, time / t->weight);
}

/* Work conservation: a slot may stay free only if nothing could run on its device, or if the lease whose turn it is
 * needs more than are free. Which one that is, the model does not know; it must at least exist. */
void check_nothing_to_start(struct world *w)
{
    for (uint32_t i = 0; i < w->n_devices; i++) {
        struct device *d = &w->devices[i];
        bool some = false, some_too_big = false;
        for (uint32_t class = 0; class < CLASSES; class ++) {
            struct target *g;
            for (uint32_t at = 0; each_runnable(w, i, class, &at, &g); some = true)
                some_too_big |= g->slots > d->slots - d->slots_used;
        }
        sim_require(!some || some_too_big, "%u of %u slots stay free while something could run",
                    d->slots - d->slots_used, d->slots);
        w->counts.reserved += some && d->slots_used < d->slots;
    }
}

/* ---- pre-emption ---- */

static uint64_t leases_wanted(const struct target *g)
{
    uint64_t rows = 0;
    list_each(node, &g->lanes[SCHEDULE_CRITICAL].queue) rows +=
        container_of(node, struct request, in_queue)->schedule.rows;
    return (rows + g->rows_max - 1) / g->rows_max;
}

static bool preemptible(const struct run *run)
{
    bool able =
        run->lease && !run->preempted && run->class != SCHEDULE_CRITICAL && !run->lease->due && run->cancellable;
    for (uint32_t i = 0; able && i < run->n_requests; i++)
        able = !run->requests[i]->requeued;
    return able;
}

void check_preempted(struct world *w, const struct run *run)
{
    const struct target *g = run->replica->target;
    sim_require(preemptible(run), "a lease of class %d must not be pre-empted", (int)run->class);
    const struct device *d = &w->devices[g->device];
    uint64_t wanted = 0, coming = d->slots - d->slots_used;
    uint32_t n_here = 0;
    struct target *other;
    for (uint32_t at = 0; each_runnable(w, g->device, SCHEDULE_CRITICAL, &at, &other);) {
        uint64_t n = leases_wanted(other);
        wanted += (n < other->n_free ? n : other->n_free) * other->slots;
    }
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        const struct run *r = &w->runs[i];
        if (!r->lease || r->replica->target->device != g->device)
            continue;
        coming += r->preempted && !r->lease->_for_replica ? r->slots : 0;
        n_here += r->preempted && r->lease->_for_replica && r->replica->target == g;
        bool rival = run->lease->_for_replica ? r->replica->target == g : true;
        sim_require(!rival || !preemptible(r) || r->started_ns <= run->started_ns, "another lease would lose less");
    }
    if (run->lease->_for_replica)
        sim_require(g->lanes[SCHEDULE_CRITICAL].n_queued > 0 && g->n_free == 0 && n_here < leases_wanted(g),
                    "a replica is taken that nobody needs");
    else
        sim_require(coming < wanted, "slots are taken that nobody needs: %" PRIu64 " of %" PRIu64, coming, wanted);
}

/* No critical request waits for a replica that could be had; nor for slots, where no lower class can be due. */
void check_nothing_to_preempt(struct world *w)
{
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        const struct run *run = &w->runs[i];
        if (!preemptible(run))
            continue;
        const struct target *g = run->replica->target;
        uint32_t n_here = 0;
        uint64_t coming = w->devices[g->device].slots - w->devices[g->device].slots_used;
        for (uint32_t k = 0; k < RUNS_MAX; k++) {
            const struct run *r = &w->runs[k];
            if (r->lease && r->replica->target->device == g->device && r->preempted) {
                n_here += r->lease->_for_replica && r->replica->target == g;
                coming += r->lease->_for_replica ? 0 : r->slots;
            }
        }
        sim_require(g->lanes[SCHEDULE_CRITICAL].n_queued == 0 || g->n_free > 0 || n_here >= leases_wanted(g),
                    "a critical request waits for a replica that could be had");
        bool due = false;
        for (uint32_t class = 1; class < CLASSES; class ++) {
            double least = 0, most = 0;
            due |= next_cost(w, g->device, class, &least, &most) &&
                   w->devices[g->device].earned[class] >= least - EARNED_TOLERANCE;
        }
        struct target *first;
        uint32_t at = 0;
        if (!due && each_runnable(w, g->device, SCHEDULE_CRITICAL, &at, &first) &&
            coming + run->slots >= first->slots && coming < first->slots) {
            bool same = true; // which of them is next, the model does not know
            for (struct target *other; each_runnable(w, g->device, SCHEDULE_CRITICAL, &at, &other);)
                same &= other->slots == first->slots;
            sim_require(!same, "a critical request waits for slots that could be had");
        }
    }
}

/* ---- overload ---- */

static uint64_t share_used(uint64_t bytes, uint32_t weight)
{
    return (bytes << 10) / weight;
}

bool check_is_worst(const struct world *w, const struct tenant *t, uint32_t class, uint64_t tenant_bytes)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *other = w->tenants[i];
        for (uint32_t lower = class + 1; other && lower < CLASSES; lower++) {
            if (other->class_queued[lower] > 0)
                return false;
        }
        if (other && other != t && other->class_queued[class] > 0 &&
            share_used(other->class_bytes[class], other->weight) > share_used(tenant_bytes, t->weight))
            return false;
    }
    return true;
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t check_wakeup_expected(const struct world *w)
{
    uint64_t wakeup_ns = UINT64_MAX;
    for (uint32_t i = 0; i < RUNS_MAX; i++) {
        if (w->runs[i].lease && !w->runs[i].reported)
            wakeup_ns = earlier(wakeup_ns, w->runs[i].limit_ns);
    }
    for (uint32_t i = 0; i < TENANTS_MAX * TARGETS_MAX; i++) {
        const struct tenant *t = w->tenants[i / TARGETS_MAX];
        const struct target *g = t ? t->targets[i % TARGETS_MAX] : NULL;
        for (uint32_t class = 0; g && class < CLASSES; class ++) {
            const struct lane *lane = &g->lanes[class];
            if (lane->waits_until_ns)
                wakeup_ns = earlier(wakeup_ns, lane->waits_until_ns);
            list_each(node, &lane->queue)
            {
                const struct request *r = container_of(node, struct request, in_queue);
                if (r->schedule.deadline_ns)
                    wakeup_ns = earlier(wakeup_ns, r->schedule.deadline_ns);
            }
        }
    }
    return wakeup_ns;
}
