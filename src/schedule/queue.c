#include "schedule/schedule_internal.h"

#include <assert.h>

static struct schedule_request *queue_head(const struct schedule_target *g)
{
    return container_of(list_first(&g->_queue), struct schedule_request, _node);
}

/* Whether waiting for more requests is pointless: none may join, or no more fit. */
static bool batch_full(const struct schedule_target *g)
{
    return queue_head(g)->shape_key == 0 || g->_queued_rows >= g->batch_rows_max ||
           g->_queued_bytes >= g->batch_bytes_max || g->queued >= LIMIT_BATCH_ITEMS;
}

void schedule_target_update(struct schedule *s, struct schedule_target *g)
{
    struct schedule_tenant *t = g->tenant;
    bool able = g->queued > 0 && g->replicas_free > 0;
    bool waits = false;
    if (able && g->delay_ns > 0 && !batch_full(g)) {
        uint64_t end_ns = schedule_time_add(queue_head(g)->arrival_ns, g->delay_ns);
        waits = end_ns > s->now_ns;
        if (waits)
            schedule_heap_set(&s->delays, &g->_delay, end_ns, 0);
    }
    if (!waits)
        schedule_heap_remove(&s->delays, &g->_delay);

    bool runnable = able && !waits;
    uint64_t key = runnable ? queue_head(g)->_sequence : 0;
    if (g->_runnable && (!runnable || g->_in_runnable.key != key)) {
        schedule_order_remove(&t->_runnable, &g->_in_runnable);
        g->_runnable = false;
    }
    if (runnable && !g->_runnable) {
        schedule_order_insert(&t->_runnable, &g->_in_runnable, key);
        g->_runnable = true;
    }
    schedule_fair_update(s, t);
}

void schedule_delays_end(struct schedule *s)
{
    uint32_t *handle;
    uint64_t end_ns;
    while ((handle = schedule_heap_peek(&s->delays, &end_ns)) && end_ns <= s->now_ns)
        schedule_target_update(s, container_of(handle, struct schedule_target, _delay));
}

int schedule_queue_reserve(struct schedule *s, const struct schedule_request *r)
{
    int rc = 0;
    if (r->deadline_ns)
        rc = schedule_heap_reserve(&s->deadlines, s->deadlines.size + 1);
    if (rc == 0 && r->target->queued == 0)
        rc = schedule_heap_reserve(&s->delays, s->n_targets_backlogged + 1);
    if (rc == 0 && r->target->tenant->queued == 0)
        rc = schedule_heap_reserve(&s->fair, s->n_tenants_backlogged + 1);
    return rc;
}

void schedule_queue_append(struct schedule *s, struct schedule_request *r)
{
    struct schedule_target *g = r->target;
    list_append(&g->_queue, &r->_node);
    if (g->queued++ == 0)
        s->n_targets_backlogged++;
    if (g->tenant->queued++ == 0)
        s->n_tenants_backlogged++;
    s->queued++;
    g->_queued_rows += r->rows;
    g->_queued_bytes += r->bytes;
    if (r->deadline_ns) {
        uint64_t key = r->deadline_ns < SCHEDULE_TIME_MAX ? r->deadline_ns : SCHEDULE_TIME_MAX;
        schedule_heap_set(&s->deadlines, &r->_deadline, key, 0);
    }
}

void schedule_queue_remove(struct schedule *s, struct schedule_request *r)
{
    struct schedule_target *g = r->target;
    assert(g->queued > 0 && g->tenant->queued > 0);
    list_remove(&r->_node);
    if (--g->queued == 0)
        s->n_targets_backlogged--;
    if (--g->tenant->queued == 0) {
        s->n_tenants_backlogged--;
        g->tenant->_lease_started_ns = 0;
    }
    s->queued--;
    g->_queued_rows -= r->rows;
    g->_queued_bytes -= r->bytes;
    schedule_heap_remove(&s->deadlines, &r->_deadline);
}

static void lease_add(struct schedule *s, struct schedule_lease *lease, struct schedule_request *r)
{
    schedule_queue_remove(s, r);
    r->lease = lease;
    lease->requests[lease->n_requests++] = r;
    lease->rows += r->rows;
}

void schedule_queue_gather(struct schedule *s, struct schedule_target *g, struct schedule_lease *lease)
{
    struct schedule_request *head = queue_head(g);
    uint64_t key = head->shape_key;
    size_t bytes = head->bytes;
    lease_add(s, lease, head);
    if (key == 0 || lease->rows >= g->batch_rows_max)
        return;
    /* Those of another shape are passed over, not held up: the lease runs anyway, and the first of them is then the
     * head. Among equals the order is kept: the first that does not fit ends the batch. */
    uint32_t n_passed = 0;
    list_each_safe(node, &g->_queue)
    {
        struct schedule_request *r = container_of(node, struct schedule_request, _node);
        if (r->shape_key != key) {
            if (++n_passed > SCHEDULE_SCAN_MAX)
                return;
            continue;
        }
        if (lease->n_requests == LIMIT_BATCH_ITEMS || r->rows > g->batch_rows_max - lease->rows ||
            bytes > g->batch_bytes_max || r->bytes > g->batch_bytes_max - bytes)
            return;
        bytes += r->bytes;
        lease_add(s, lease, r);
        if (lease->rows == g->batch_rows_max)
            return;
    }
}
