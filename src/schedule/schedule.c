#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>

#define RETRY_NS_UNKNOWN NS_PER_S
#define RETRY_NS_MIN     NS_PER_MS
#define RETRY_NS_MAX     (LIMIT_QUEUE_WAIT_MS * NS_PER_MS) /* by then whatever is queued now has left */

int schedule_new(uint32_t slots, struct schedule **ret_schedule)
{
    if (slots == 0 || slots > SCHEDULE_SLOTS_MAX)
        return -ERROR_INVALID_ARGUMENT;
    struct schedule *s = calloc(1, sizeof *s);
    if (!s)
        return -ERROR_NO_MEMORY;
    s->slots = slots;
    int rc = schedule_heap_reserve(&s->limits, slots); /* each lease takes a slot at least */
    if (rc < 0) {
        free(s);
        return rc;
    }
    *ret_schedule = s;
    return 0;
}

void schedule_free(struct schedule *s)
{
    if (!s)
        return;
    assert(s->n_tenants == 0 && s->n_leases_out == 0 && s->queued == 0);
    schedule_pool_done(s);
    schedule_heap_done(&s->fair);
    schedule_heap_done(&s->deadlines);
    schedule_heap_done(&s->delays);
    schedule_heap_done(&s->limits);
    free(s);
}

void schedule_tenant_set(struct schedule *s, struct schedule_tenant *t, uint32_t weight, uint32_t queue_max)
{
    if (!t->_targets.next) {
        list_init(&t->_targets);
        s->n_tenants++;
    }
    t->weight = weight ? weight : 1;
    t->queue_max = queue_max;
    t->_vtime_per_ns = (UINT64_C(1) << 32) / t->weight;
}

void schedule_tenant_remove(struct schedule *s, struct schedule_tenant *t)
{
    assert(t->_targets.next && list_empty(&t->_targets) && t->queued == 0 && t->leased == 0);
    s->n_tenants--;
    *t = (struct schedule_tenant){0};
}

void schedule_target_set(struct schedule *s, struct schedule_target *g, struct schedule_tenant *tenant, uint32_t slots,
                         uint32_t batch_rows_max, uint64_t delay_ns, size_t batch_bytes_max)
{
    if (!g->tenant) {
        g->tenant = tenant;
        list_init(&g->_queue);
        list_init(&g->_free);
        list_append(&tenant->_targets, &g->_in_tenant);
    }
    assert(g->tenant == tenant);
    g->slots = slots == 0 ? 1 : slots < s->slots ? slots : s->slots;
    g->batch_rows_max = batch_rows_max ? batch_rows_max : 1;
    g->delay_ns = delay_ns;
    g->batch_bytes_max = batch_bytes_max;
    schedule_target_update(s, g);
}

void schedule_target_remove(struct schedule *s, struct schedule_target *g)
{
    assert(g->tenant && g->queued == 0 && g->replicas == 0);
    schedule_target_update(s, g);
    assert(!g->_runnable && g->_delay == 0);
    list_remove(&g->_in_tenant);
    *g = (struct schedule_target){0};
}

static uint64_t retry_clamp(uint64_t retry_ns)
{
    if (retry_ns < RETRY_NS_MIN)
        return RETRY_NS_MIN;
    return retry_ns < RETRY_NS_MAX ? retry_ns : RETRY_NS_MAX;
}

/* Refuses only what is certain to be late if the estimates hold: full batches ahead of it, on every replica the device
 * has room for, and no other tenant in the way. */
static int deadline_check(const struct schedule *s, const struct schedule_request *r, uint64_t *ret_retry_ns)
{
    const struct schedule_target *g = r->target;
    if (r->deadline_ns <= s->now_ns)
        return -ERROR_DEADLINE;
    bool starts_at_once = g->queued == 0 && g->replicas_free > 0;
    if (g->replicas == 0 || starts_at_once)
        return 0;
    uint64_t own_ns = schedule_estimate_floor(g, r->rows);
    uint32_t parallel = s->slots / g->slots < g->replicas ? s->slots / g->slots : g->replicas;
    uint64_t n_leases = g->_queued_rows / g->batch_rows_max / parallel;
    uint64_t wait_ns = 0;
    if (__builtin_mul_overflow(n_leases, schedule_estimate_floor(g, g->batch_rows_max), &wait_ns))
        wait_ns = SCHEDULE_TIME_MAX;
    uint64_t left_ns = r->deadline_ns - s->now_ns;
    if (schedule_time_add(wait_ns, own_ns) <= left_ns)
        return 0;
    if (own_ns <= left_ns) /* else no wait would help */
        *ret_retry_ns = retry_clamp(schedule_time_add(wait_ns, own_ns) - left_ns);
    return -ERROR_DEADLINE;
}

int schedule_submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    struct schedule_target *g = r->target;
    assert(g && g->tenant && r->rows > 0 && !r->lease && !list_linked(&r->_node));
    schedule_time_advance(s, now_ns);
    int rc = 0;
    uint64_t retry_ns = 0;
    if (g->tenant->queued >= g->tenant->queue_max) {
        rc = -ERROR_QUEUE_FULL;
        retry_ns = retry_clamp(g->tenant->_lease_gap_ns ? g->tenant->_lease_gap_ns : RETRY_NS_UNKNOWN);
    } else if (r->deadline_ns) {
        rc = deadline_check(s, r, &retry_ns);
    }
    if (rc == 0)
        rc = schedule_queue_reserve(s, r);
    if (rc < 0) {
        if (ret_retry_ns)
            *ret_retry_ns = retry_ns;
        return rc;
    }
    r->arrival_ns = s->now_ns;
    r->_sequence = s->sequence++;
    schedule_queue_append(s, r);
    schedule_target_update(s, g);
    return 0;
}

static void request_take(struct schedule *s, struct schedule_request *r)
{
    schedule_queue_remove(s, r);
    schedule_target_update(s, r->target);
}

bool schedule_cancel(struct schedule *s, struct schedule_request *r)
{
    if (!list_linked(&r->_node))
        return false;
    request_take(s, r);
    return true;
}

struct schedule_request *schedule_expire(struct schedule *s, uint64_t now_ns)
{
    schedule_time_advance(s, now_ns);
    uint64_t deadline_ns;
    uint32_t *handle = schedule_heap_peek(&s->deadlines, &deadline_ns);
    if (!handle || deadline_ns > s->now_ns)
        return NULL;
    struct schedule_request *r = container_of(handle, struct schedule_request, _deadline);
    request_take(s, r);
    return r;
}

struct schedule_request *schedule_target_flush(struct schedule *s, struct schedule_target *g)
{
    struct list *node = list_first(&g->_queue);
    if (!node)
        return NULL;
    struct schedule_request *r = container_of(node, struct schedule_request, _node);
    request_take(s, r);
    return r;
}

static uint64_t first_of(const struct schedule_heap *h, uint64_t time_ns)
{
    uint64_t first_ns;
    return schedule_heap_peek(h, &first_ns) && first_ns < time_ns ? first_ns : time_ns;
}

uint64_t schedule_wakeup(const struct schedule *s)
{
    uint64_t wakeup_ns = s->lease_missing ? schedule_time_add(s->now_ns, NS_PER_MS) : UINT64_MAX;
    wakeup_ns = first_of(&s->deadlines, wakeup_ns);
    wakeup_ns = first_of(&s->delays, wakeup_ns);
    return first_of(&s->limits, wakeup_ns);
}

void schedule_stats(const struct schedule *s, struct schedule_stats *ret_stats)
{
    *ret_stats = (struct schedule_stats){
        .slots = s->slots,
        .slots_used = s->slots_used,
        .queued = s->queued,
        .leases = s->leases,
        .requests = s->requests,
        .busy_ns = s->busy_ns,
        .vtime = (uint64_t)(s->vtime >> 32),
    };
}
