#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>

uint64_t schedule_urgency(const struct schedule *s, const struct schedule_request *r, uint64_t arrival_ns)
{
    if (s->policy == SCHEDULE_FIFO || r->requeued)
        return 0;
    return r->deadline_ns ? r->deadline_ns : schedule_time_add(arrival_ns, LIMIT_QUEUE_WAIT_MS * NS_PER_MS);
}

/* Whether waiting for more requests is pointless: none may join, no more fit, or there are as many as it prefers. */
static bool batch_full(const struct schedule_lane *lane)
{
    const struct schedule_target *g = lane->target;
    uint32_t enough = g->n_preferred > 0 ? g->preferred[0] : g->batch_rows_max;
    return schedule_lane_head(lane)->shape_key == 0 || schedule_sorted_rows(&lane->queue) >= enough ||
           lane->bytes >= g->batch_bytes_max || lane->queued >= LIMIT_BATCH_ITEMS;
}

static bool lane_waits(struct schedule *s, struct schedule_lane *lane)
{
    const struct schedule_target *g = lane->target;
    if (g->delay_ns == 0 || batch_full(lane))
        return false;
    uint64_t end_ns = schedule_time_add(lane->window_ns, g->delay_ns);
    if (end_ns <= s->now_ns)
        return false;
    schedule_heap_set(&s->delays, &lane->delay, end_ns, 0);
    return true;
}

void schedule_lane_update(struct schedule *s, struct schedule_lane *lane)
{
    struct schedule_flow *f = lane->flow;
    bool able = lane->queued > 0 && lane->target->replicas_free > 0;
    bool waits = able && lane_waits(s, lane);
    if (!waits)
        schedule_heap_remove(&s->delays, &lane->delay);
    bool held = lane->queued > 0 && lane->target->replicas_free == 0 && lane->target->_n_seats_out > 0;
    f->n_held = (uint16_t)(f->n_held + held - lane->held);
    lane->held = held;

    bool runnable = able && !waits;
    if (runnable && !lane->runnable)
        schedule_lane_start(lane);
    uint64_t key = runnable ? schedule_lane_key(s, lane) : 0;
    if (lane->runnable && (!runnable || lane->in_flow.key != key)) {
        schedule_order_remove(&f->runnable, &lane->in_flow);
        lane->runnable = false;
    }
    if (runnable && !lane->runnable) {
        schedule_order_insert(&f->runnable, &lane->in_flow, key);
        lane->runnable = true;
    }
    schedule_preempt_lane(s, lane);
    schedule_fair_update(s, f);
    struct schedule_class_state *c = schedule_class_of(s, f);
    schedule_class_rest(c);
    if (lane->queued == 0 && lane->running == 0) {
        lane->flow = NULL;
        schedule_flow_idle(s, f);
        schedule_flows_retire(s, c);
    }
}

void schedule_target_update(struct schedule *s, struct schedule_target *g)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        if (g->_lanes[class] && g->_lanes[class]->flow)
            schedule_lane_update(s, g->_lanes[class]);
    }
}

void schedule_delays_end(struct schedule *s)
{
    uint32_t *handle;
    uint64_t end_ns;
    while ((handle = schedule_heap_peek(&s->delays, &end_ns)) && end_ns <= s->now_ns)
        schedule_lane_update(s, container_of(handle, struct schedule_lane, delay));
}

static void lane_begin(struct schedule *s, struct schedule_lane *lane)
{
    lane->flow = schedule_flow_find(s, lane);
    if (lane->epoch != lane->flow->epoch) { /* its virtual time was counted in a flow that is no more */
        lane->epoch = lane->flow->epoch;
        lane->vtime = lane->flow->lanes_vtime;
    }
    schedule_flow_busy(s, lane->flow);
}

void schedule_queue_append(struct schedule *s, struct schedule_request *r)
{
    struct schedule_target *g = r->target;
    struct schedule_lane *lane = g->_lanes[schedule_request_class(s, r)];
    if (!lane->flow)
        lane_begin(s, lane);
    if (lane->queued == 0 || r->arrival_ns < lane->window_ns) /* earlier: re-queued */
        lane->window_ns = r->arrival_ns;
    r->_sorted.key = schedule_urgency(s, r, r->arrival_ns);
    r->_sorted.rows = r->rows;
    schedule_sorted_insert(&lane->queue, &r->_sorted);
    lane->queued++;
    lane->flow->queued++;
    lane->bytes += schedule_request_bytes(r) - SCHEDULE_REQUEST_BYTES;
    schedule_class_of(s, lane->flow)->queued++;
    g->queued++;
    schedule_account_add(s, r);
    if (r->deadline_ns) {
        uint64_t key = r->deadline_ns < SCHEDULE_TIME_MAX ? r->deadline_ns : SCHEDULE_TIME_MAX;
        schedule_heap_set(&s->deadlines, &r->_deadline, key, 0);
    }
}

void schedule_queue_remove(struct schedule *s, struct schedule_request *r)
{
    struct schedule_target *g = r->target;
    struct schedule_lane *lane = g->_lanes[schedule_request_class(s, r)];
    assert(lane->queued > 0 && g->queued > 0);
    schedule_sorted_remove(&lane->queue, &r->_sorted);
    lane->queued--;
    lane->flow->queued--;
    lane->bytes -= schedule_request_bytes(r) - SCHEDULE_REQUEST_BYTES;
    schedule_class_of(s, lane->flow)->queued--;
    g->queued--;
    schedule_account_remove(s, r);
    schedule_heap_remove(&s->deadlines, &r->_deadline);
}

/* What the head may share a batch with, in the order of the queue, up to the first of its shape that does not fit.
 * Those of another shape are passed over, not held up: the lease runs anyway, and the first of them is then the head.
 */
static void candidates(const struct schedule_lane *lane, struct schedule_lease *lease)
{
    const struct schedule_target *g = lane->target;
    const struct schedule_request *head = schedule_lane_head(lane);
    uint64_t bytes = head->bytes;
    uint32_t n_passed = 0;
    list_each(node, &lane->queue.list)
    {
        struct schedule_sorted_node *sorted = container_of(node, struct schedule_sorted_node, link);
        struct schedule_request *r = container_of(sorted, struct schedule_request, _sorted);
        if (r != head) {
            if (r->shape_key != head->shape_key) {
                if (++n_passed > SCHEDULE_SCAN_MAX)
                    return;
                continue;
            }
            if (lease->n_requests == LIMIT_BATCH_ITEMS || r->rows > g->batch_rows_max - lease->rows ||
                bytes > g->batch_bytes_max || r->bytes > g->batch_bytes_max - bytes)
                return;
            bytes += r->bytes;
        }
        lease->requests[lease->n_requests++] = r;
        lease->rows += r->rows;
        if (head->shape_key == 0 || lease->rows >= g->batch_rows_max)
            return;
    }
}

/* The earliest arrival among what stays behind of a short queue; 0 where the queue is long. */
static uint64_t rest_arrival(const struct schedule_lane *lane, const struct schedule_lease *lease, uint32_t n)
{
    if (lane->queued - n > SCHEDULE_SCAN_MAX)
        return 0;
    uint64_t arrival_ns = UINT64_MAX;
    uint32_t taken = 0;
    list_each(node, &lane->queue.list)
    {
        struct schedule_sorted_node *sorted = container_of(node, struct schedule_sorted_node, link);
        struct schedule_request *r = container_of(sorted, struct schedule_request, _sorted);
        if (taken < n && lease->requests[taken] == r)
            taken++;
        else if (r->arrival_ns < arrival_ns)
            arrival_ns = r->arrival_ns;
    }
    return arrival_ns;
}

/* A batch is cut to the largest preferred number of rows that it reaches, if nothing else could use the device now and
 * maxDelay lets the rest wait for more. Returns how many of the candidates it keeps. */
static uint32_t cut(const struct schedule *s, const struct schedule_lane *lane, const struct schedule_lease *lease)
{
    const struct schedule_target *g = lane->target;
    if (g->n_preferred == 0 || g->delay_ns == 0 || lane->flow->runnable->child)
        return lease->n_requests;
    uint32_t n_flows = 0;
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        n_flows += s->devices[g->device].classes[class].fair.size;
    if (n_flows > 1)
        return lease->n_requests;
    uint32_t n = 0;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < lease->n_requests; i++) {
        rows += lease->requests[i]->rows;
        for (uint32_t p = 0; p < g->n_preferred; p++)
            n = rows == g->preferred[p] ? i + 1 : n;
    }
    if (n == 0 || n == lease->n_requests)
        return lease->n_requests;
    uint64_t rest_ns = rest_arrival(lane, lease, n);
    return rest_ns > 0 && schedule_time_add(rest_ns, g->delay_ns) > s->now_ns ? n : lease->n_requests;
}

void schedule_window_update(struct schedule_lane *lane, const struct schedule_request *gone)
{
    static const struct schedule_lease none;
    if (lane->queued > 0 && (!gone || (lane->target->delay_ns > 0 && gone->arrival_ns == lane->window_ns)))
        lane->window_ns = rest_arrival(lane, &none, 0);
}

void schedule_queue_gather(struct schedule *s, struct schedule_lane *lane, struct schedule_lease *lease)
{
    lease->rows = lease->n_requests = 0;
    candidates(lane, lease);
    uint32_t n = lane->target->n_preferred > 0 ? cut(s, lane, lease) : lease->n_requests;
    if (lane->target->delay_ns > 0 && n < lane->queued)
        lane->window_ns = rest_arrival(lane, lease, n);
    lease->rows = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct schedule_request *r = lease->requests[i];
        schedule_queue_remove(s, r);
        r->lease = lease;
        lease->rows += r->rows;
    }
    lease->n_requests = n;
}
