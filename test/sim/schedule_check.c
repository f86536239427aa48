#include "test/sim/schedule_world.h"

#include <inttypes.h>

uint32_t rows_class(uint32_t rows)
{
    uint32_t class = 0;
    for (uint64_t most = 1; most < rows && class < SCHEDULE_ROW_CLASSES - 1; most *= 2)
        class ++;
    return class;
}

static struct request *queue_head(const struct target *g)
{
    return container_of(list_first(&g->queue), struct request, in_queue);
}

static bool batch_full(const struct target *g)
{
    uint64_t rows = 0, bytes = 0;
    list_each(node, &g->queue)
    {
        const struct request *r = container_of(node, struct request, in_queue);
        rows += r->schedule.rows;
        bytes += r->schedule.bytes;
    }
    return queue_head(g)->schedule.shape_key == 0 || rows >= g->rows_max || bytes >= g->bytes_max ||
           g->n_queued >= LIMIT_BATCH_ITEMS;
}

static bool target_runnable(const struct target *g)
{
    return g->n_queued > 0 && g->n_free > 0 && g->waits_until_ns == 0;
}

static bool tenant_runnable(const struct tenant *t)
{
    for (uint32_t i = 0; i < TARGETS_MAX; i++) {
        if (t->targets[i] && target_runnable(t->targets[i]))
            return true;
    }
    return false;
}

static struct pair *pair_of(struct world *w, const struct tenant *a, const struct tenant *b, double *ret_difference)
{
    bool ordered = a->index < b->index;
    *ret_difference = ordered ? a->account.charged - b->account.charged : b->account.charged - a->account.charged;
    return ordered ? &w->pairs[a->index][b->index] : &w->pairs[b->index][a->index];
}

static void tenant_update(struct world *w, struct tenant *t)
{
    bool was = t->runnable;
    t->runnable = tenant_runnable(t);
    if (was || !t->runnable)
        return;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *other = w->tenants[i];
        if (!other || other == t)
            continue;
        double difference;
        struct pair *pair = pair_of(w, t, other, &difference);
        if (other->runnable)
            *pair = (struct pair){difference, difference};
        w->since_served[t->index][i] = other->account.charged;
    }
}

void check_target_changed(struct world *w, struct target *g)
{
    g->waits_until_ns = 0;
    if (g->n_queued > 0 && g->n_free > 0 && g->delay_ns > 0 && !batch_full(g)) {
        uint64_t until_ns = g->window_ns + g->delay_ns;
        if (until_ns > w->now_ns)
            g->waits_until_ns = until_ns;
    }
    tenant_update(w, g->tenant);
}

void check_window(struct target *g)
{
    if (g->delay_ns == 0) // nobody looks
        return;
    g->window_ns = g->n_queued > SCHEDULE_SCAN_MAX ? 0 : UINT64_MAX;
    list_each(node, &g->queue)
    {
        const struct request *r = container_of(node, struct request, in_queue);
        if (r->schedule.arrival_ns < g->window_ns)
            g->window_ns = r->schedule.arrival_ns;
    }
}

void check_delays(struct world *w)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        for (uint32_t j = 0; w->tenants[i] && j < TARGETS_MAX; j++) {
            struct target *g = w->tenants[i]->targets[j];
            if (g && g->waits_until_ns && g->waits_until_ns <= w->now_ns)
                check_target_changed(w, g);
        }
    }
}

/* How far one tenant's account may lie from where virtual time is, in either direction together. */
static double account_width(const struct world *w, const struct tenant *t)
{
    return w->slots * (t->account.longest + t->account.undercharged + t->account.overcharged);
}

/* Sums of doubles, weights rounded to 32 bits, keys to sixteenths of a nanosecond. */
static double with_tolerance(double bound)
{
    return bound * 1.000001 + 2;
}

/* The share bound of DESIGN §6, over every interval at once: while both stay runnable, the difference of their accounts
 * may not move by more than the widths of both. */
void check_account_changed(struct world *w, struct tenant *t)
{
    if (!t->runnable)
        return;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *other = w->tenants[i];
        if (!other || other == t || !other->runnable)
            continue;
        double difference;
        struct pair *pair = pair_of(w, t, other, &difference);
        pair->least = difference < pair->least ? difference : pair->least;
        pair->most = difference > pair->most ? difference : pair->most;
        double bound = account_width(w, t) + account_width(w, other);
        sim_require(pair->most - pair->least <= with_tolerance(bound),
                    "share bound: tenants %u and %u moved apart by %.0f, allowed are %.0f", t->index, other->index,
                    pair->most - pair->least, bound);
        if (bound > 0 && (pair->most - pair->least) / bound > w->share_nearest)
            w->share_nearest = (pair->most - pair->least) / bound;
        w->counts.pairs_checked++;
        w->counts.pairs_exact += t->account.undercharged + t->account.overcharged + other->account.undercharged +
                                     other->account.overcharged ==
                                 0;
    }
}

/* No tenant that could run is passed over for long, whoever comes and goes meanwhile: since it was served last, any
 * other has got at most what it may lie behind, and what the passed-over one may lie ahead. */
static void check_nobody_starves(struct world *w, const struct tenant *served)
{
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *t = w->tenants[i];
        if (!t || t == served || !t->runnable)
            continue;
        double got = served->account.charged - w->since_served[i][served->index];
        double bound = account_width(w, t) + account_width(w, served);
        sim_require(got <= with_tolerance(bound), "starvation: tenant %u waits while %u got %.0f, allowed are %.0f", i,
                    served->index, got, bound);
        if (bound > 0 && got / bound > w->starve_nearest)
            w->starve_nearest = got / bound;
    }
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        if (w->tenants[i])
            w->since_served[served->index][i] = w->tenants[i]->account.charged;
    }
}

/* The requests that the lease must have gathered, by the rules of the header, from the queue before it. */
static uint32_t expected_batch(const struct target *g, struct request **batch)
{
    struct request *head = queue_head(g);
    uint32_t n = 0, n_passed = 0;
    uint64_t rows = 0, bytes = 0;
    list_each(node, &g->queue)
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

void check_lease_started(struct world *w, struct run *run)
{
    const struct schedule_lease *lease = run->lease;
    struct target *g = run->replica->target;
    struct tenant *t = g->tenant;
    sim_require(t->runnable && target_runnable(g), "a lease for a target that cannot run");
    sim_require(lease->slots == g->slots && w->slots_used + lease->slots <= w->slots, "slots oversubscribed: %u + %u",
                w->slots_used, lease->slots);
    static struct request *batch[LIMIT_BATCH_ITEMS];
    uint32_t n = expected_batch(g, batch);
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

    double time = (double)run->charged_ns / lease->slots / run->weight;
    t->account.longest = time > t->account.longest ? time : t->account.longest;
    t->account.charged += (double)run->charged_ns / run->weight;
    check_account_changed(w, t);
    check_nobody_starves(w, t);
}

/* Work conservation: a slot may stay free only if no tenant could run, or if the lease whose turn it is needs more than
 * are free. Which one that is, the model does not know; it must at least exist. */
void check_nothing_to_start(struct world *w)
{
    bool some = false, some_too_big = false;
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        const struct tenant *t = w->tenants[i];
        if (!t || !t->runnable)
            continue;
        some = true;
        for (uint32_t j = 0; j < TARGETS_MAX; j++) {
            const struct target *g = t->targets[j];
            some_too_big |= g && target_runnable(g) && g->slots > w->slots - w->slots_used;
        }
    }
    sim_require(!some || some_too_big, "%u of %u slots stay free while something could run", w->slots - w->slots_used,
                w->slots);
    w->counts.reserved += some && w->slots_used < w->slots;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t check_wakeup_expected(const struct world *w)
{
    uint64_t wakeup_ns = UINT64_MAX;
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        if (w->runs[i].lease && !w->runs[i].reported)
            wakeup_ns = earlier(wakeup_ns, w->runs[i].limit_ns);
    }
    for (uint32_t i = 0; i < TENANTS_MAX; i++) {
        for (uint32_t j = 0; w->tenants[i] && j < TARGETS_MAX; j++) {
            const struct target *g = w->tenants[i]->targets[j];
            if (!g)
                continue;
            if (g->waits_until_ns)
                wakeup_ns = earlier(wakeup_ns, g->waits_until_ns);
            list_each(node, &g->queue)
            {
                const struct request *r = container_of(node, struct request, in_queue);
                if (r->schedule.deadline_ns)
                    wakeup_ns = earlier(wakeup_ns, r->schedule.deadline_ns);
            }
        }
    }
    return wakeup_ns;
}
