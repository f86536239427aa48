/* Which requests are not taken, or not kept: full queues, deadlines that cannot be met, overload. */
#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>

#define RETRY_NS_UNKNOWN NS_PER_S
#define RETRY_NS_MIN     NS_PER_MS
#define RETRY_NS_MAX     (LIMIT_QUEUE_WAIT_MS * NS_PER_MS) /* by then whatever is queued now has left */
/* Fewer say nothing of a tenant's pace. */
#define PACE_GAPS_MIN 4u
#define SHED_KEY_TOP  (UINT64_C(1) << 61)

static uint64_t retry_clamp(uint64_t retry_ns)
{
    if (retry_ns < RETRY_NS_MIN)
        return RETRY_NS_MIN;
    return retry_ns < RETRY_NS_MAX ? retry_ns : RETRY_NS_MAX;
}

/* When this tenant will have room again: it gets a lease of that class so often. */
static uint64_t retry_of(const struct schedule_tenant *t, uint32_t class)
{
    uint64_t gap_ns = t->_active ? t->_active->accounts[class].lease_gap_ns : 0;
    return retry_clamp(gap_ns ? gap_ns : RETRY_NS_UNKNOWN);
}

/* ---- who has how much queued ---- */

/* Bytes for the weight, in 1/1024: more than 2^48 bytes of one tenant count as that. */
static uint64_t share_used(uint64_t bytes, uint32_t weight)
{
    return ((bytes < UINT64_C(1) << 48 ? bytes : UINT64_C(1) << 48) << 10) / weight;
}

/* Puts the account where it belongs if it has more than its place says. With less it stays: schedule_shed looks again
 * when it comes to it, so that a queue that fills and empties does not move it each time. */
static void account_place(struct schedule *s, struct schedule_active *a, enum schedule_class class)
{
    struct schedule_account *account = &a->accounts[class];
    uint64_t key = SHED_KEY_TOP - share_used(account->bytes, a->tenant->weight);
    if (!account->shed || key < schedule_heap_key(&s->shed[class], &account->shed))
        schedule_heap_set(&s->shed[class], &account->shed, key, 0);
}

void schedule_account_add(struct schedule *s, struct schedule_request *r)
{
    struct schedule_tenant *t = r->target->tenant;
    enum schedule_class class = schedule_request_class(s, r);
    struct schedule_account *account = &t->_active->accounts[class];
    uint64_t bytes = schedule_request_bytes(r);
    if (r->carries_nothing)
        return;
    if (r->requeued)
        list_prepend(&account->requests, &r->_in_active);
    else
        list_append(&account->requests, &r->_in_active);
    account->queued++;
    account->bytes += bytes;
    t->queued++;
    t->queued_bytes += bytes - SCHEDULE_REQUEST_BYTES;
    s->queued++;
    s->queued_of[class]++;
    s->queued_bytes += bytes - SCHEDULE_REQUEST_BYTES;
    if (s->queue_max > 0 || s->queue_bytes_max > 0)
        account_place(s, t->_active, class);
}

void schedule_account_remove(struct schedule *s, struct schedule_request *r)
{
    struct schedule_tenant *t = r->target->tenant;
    enum schedule_class class = schedule_request_class(s, r);
    struct schedule_account *account = &t->_active->accounts[class];
    uint64_t bytes = schedule_request_bytes(r);
    assert(r->carries_nothing || (account->queued > 0 && account->bytes >= bytes));
    account->queued -= !r->carries_nothing;
    if (account->queued == 0)
        account->lease_started_ns = account->n_gaps = 0;
    if (r->carries_nothing)
        return;
    list_remove(&r->_in_active);
    t->queued--;
    account->bytes -= bytes;
    t->queued_bytes -= bytes - SCHEDULE_REQUEST_BYTES;
    s->queued--;
    s->queued_of[class]--;
    s->queued_bytes -= bytes - SCHEDULE_REQUEST_BYTES;
}

void schedule_account_weigh(struct schedule *s, struct schedule_active *a)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        if (a->accounts[class].shed)
            account_place(s, a, class);
    }
}

/* Who is furthest over its share in the lowest class that has something queued; NULL: nobody has. */
static struct schedule_active *shed_first(struct schedule *s, uint32_t *ret_class)
{
    uint32_t class = SCHEDULE_CLASS_COUNT;
    while (class > 0 && s->queued_of[class - 1] == 0)
        class --;
    if (class == 0)
        return NULL;
    *ret_class = --class;
    for (;;) {
        uint64_t key;
        uint32_t *handle = schedule_heap_peek(&s->shed[class], &key);
        assert(handle != NULL);
        struct schedule_account *account = container_of(handle, struct schedule_account, shed);
        struct schedule_active *a = container_of(account - class, struct schedule_active, accounts[0]);
        uint64_t key_now = SHED_KEY_TOP - share_used(account->bytes, a->tenant->weight);
        if (account->queued > 0 && key_now <= key)
            return a;
        if (account->queued > 0)
            schedule_heap_set(&s->shed[class], handle, key_now, 0);
        else
            schedule_heap_remove(&s->shed[class], handle);
    }
}

static bool queues_over(const struct schedule *s, uint32_t n_more, uint64_t bytes_more)
{
    return (s->queue_max > 0 && s->queued + n_more > s->queue_max) ||
           (s->queue_bytes_max > 0 && s->queued_bytes + bytes_more > s->queue_bytes_max);
}

/* Whether this request itself would be shed first if it came in. */
static bool is_worst(struct schedule *s, const struct schedule_request *r)
{
    uint64_t bytes = schedule_request_bytes(r);
    if (s->policy == SCHEDULE_FIFO || (s->queue_bytes_max > 0 && bytes - SCHEDULE_REQUEST_BYTES > s->queue_bytes_max))
        return true;
    uint32_t lowest = 0;
    const struct schedule_active *first = shed_first(s, &lowest);
    if (!first || (uint32_t)r->priority != lowest)
        return !first || (uint32_t)r->priority > lowest;
    const struct schedule_tenant *t = r->target->tenant;
    if (first->tenant == t)
        return true;
    uint64_t own = t->_active ? t->_active->accounts[lowest].bytes : 0;
    return share_used(own + bytes, t->weight) >= share_used(first->accounts[lowest].bytes, first->tenant->weight);
}

struct schedule_request *schedule_shed(struct schedule *s, enum schedule_shed_reason *ret_reason,
                                       uint64_t *ret_retry_ns)
{
    if (!queues_over(s, 0, 0))
        return NULL;
    uint32_t class = 0;
    struct schedule_active *a = shed_first(s, &class);
    assert(a != NULL);
    struct schedule_request *r = container_of(a->accounts[class].requests.prev, struct schedule_request, _in_active);
    *ret_reason = class > (uint32_t)s->shed_for ? SCHEDULE_SHED_CLASS : SCHEDULE_SHED_SHARE;
    if (ret_retry_ns)
        *ret_retry_ns = retry_of(a->tenant, class);
    s->n_shed++;
    schedule_request_take(s, r);
    return r;
}

/* ---- deadlines ---- */

/* The least time until one of the target's replicas is free: 0 if one is, or if a lease is late already. */
static uint64_t replica_wait(const struct schedule *s, const struct schedule_target *g)
{
    if (g->replicas_free > 0 || g->_n_seats_out > 0) /* when another target's lease ends is not looked up */
        return 0;
    uint64_t least_ns = UINT64_MAX;
    uint32_t n_left = SCHEDULE_SCAN_MAX;
    list_each(node, &g->_leases)
    {
        const struct schedule_lease *lease = container_of(node, struct schedule_lease, _in_target);
        uint64_t end_ns = schedule_time_add(lease->started_ns, lease->estimate_ns);
        uint64_t left_ns = end_ns > s->now_ns ? end_ns - s->now_ns : 0;
        least_ns = left_ns < least_ns ? left_ns : least_ns;
        if (lease->preempted || lease->estimate_ns == 0 || --n_left == 0)
            return 0;
    }
    return least_ns == UINT64_MAX ? 0 : least_ns;
}

/* What others' shares leave it: so many leases of its tenant and class before it, at the pace that they had lately. No
 * bound, for the others may stop at any time: only half of it counts, and only what was learned since the queue was
 * empty last. */
static uint64_t pace_wait(const struct schedule_tenant *t, uint32_t class, uint64_t n_leases)
{
    const struct schedule_account *a = t->_active ? &t->_active->accounts[class] : NULL;
    uint64_t wait_ns;
    if (!a || a->n_gaps < PACE_GAPS_MIN)
        return 0;
    return __builtin_mul_overflow(n_leases, a->lease_gap_ns / 2, &wait_ns) ? SCHEDULE_TIME_MAX : wait_ns;
}

/* Refuses what is late if the estimates hold: what is ahead of it in its own target and class, in full batches on every
 * replica that the device has room for, after the lease that ends first; or, if that takes longer, at twice the pace at
 * which its tenant gets leases beside the others. */
static int deadline_check(const struct schedule *s, const struct schedule_request *r, uint64_t *ret_retry_ns)
{
    const struct schedule_target *g = r->target;
    if (r->deadline_ns <= s->now_ns)
        return -ERROR_DEADLINE;
    bool starts_at_once = g->queued == 0 && g->replicas_free > 0;
    if (g->replicas == 0 || starts_at_once)
        return 0;
    const struct schedule_lane *lane = g->_lanes[schedule_request_class(s, r)];
    uint64_t rows_ahead =
        lane ? schedule_sorted_rows_before(&lane->queue, schedule_urgency(s, r, s->now_ns), UINT64_MAX) : 0;
    uint64_t own_ns = schedule_estimate_floor(g, r->rows);
    const struct schedule_device *d = &s->devices[g->device];
    uint32_t n_fit = d->slots_set / schedule_slots_of(d, g);
    if (n_fit == 0)
        n_fit = 1; /* it has none now */
    uint32_t parallel = n_fit < g->replicas ? n_fit : g->replicas;
    uint64_t n_leases = rows_ahead / g->batch_rows_max / parallel;
    uint64_t wait_ns = 0;
    if (__builtin_mul_overflow(n_leases, schedule_estimate_floor(g, g->batch_rows_max), &wait_ns))
        wait_ns = SCHEDULE_TIME_MAX;
    wait_ns = schedule_time_add(wait_ns, replica_wait(s, g));
    uint64_t n_turns = g->estimate_ns ? rows_ahead / g->batch_rows_max : 0; /* without one nothing is refused */
    uint64_t pace_ns = pace_wait(g->tenant, schedule_request_class(s, r), n_turns);
    wait_ns = pace_ns > wait_ns ? pace_ns : wait_ns;
    uint64_t left_ns = r->deadline_ns - s->now_ns;
    if (schedule_time_add(wait_ns, own_ns) <= left_ns)
        return 0;
    if (own_ns <= left_ns) /* else no wait would help */
        *ret_retry_ns = retry_clamp(schedule_time_add(wait_ns, own_ns) - left_ns);
    return -ERROR_DEADLINE;
}

int schedule_admit(struct schedule *s, const struct schedule_request *r, uint64_t *ret_retry_ns)
{
    const struct schedule_tenant *t = r->target->tenant;
    uint64_t bytes = schedule_request_bytes(r) - SCHEDULE_REQUEST_BYTES;
    if (r->again || r->carries_nothing) /* there are no more of them than leases could hold */
        return 0;
    if (t->queued >= t->queue_max || (t->queue_bytes_max > 0 && (t->queued_bytes > t->queue_bytes_max ||
                                                                 bytes > t->queue_bytes_max - t->queued_bytes))) {
        *ret_retry_ns = retry_of(t, schedule_request_class(s, r));
        return -ERROR_QUEUE_FULL;
    }
    if (r->deadline_ns) {
        int rc = deadline_check(s, r, ret_retry_ns);
        if (rc < 0)
            return rc;
    }
    if (queues_over(s, 1, bytes)) {
        if (is_worst(s, r)) {
            *ret_retry_ns = retry_of(t, schedule_request_class(s, r));
            return -ERROR_OVERLOADED;
        }
        s->shed_for = r->priority;
    }
    return 0;
}
