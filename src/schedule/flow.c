/* What active tenants need, from pools: one `active` each, with a flow for each device and class that they use, and a
 * lane for each target and class. Made in schedule_submit, which can refuse; given back when virtual time has passed
 * the flow's own, so that starting anew at virtual time forgets nothing. */
#include "schedule/schedule_internal.h"

#include <assert.h>

/* Looked at per call: of more flows than are made, so that those without requests cannot pile up. A few stay in each
 * class, so that a tenant whose requests come one by one needs nothing new for each. */
enum { RETIRE_PER_CALL = 2, IDLE_KEPT = 8 };

static struct schedule_flow *flow_of(const struct schedule_active *a, uint32_t device, enum schedule_class class)
{
    list_each(node, &a->flows)
    {
        struct schedule_flow *f = container_of(node, struct schedule_flow, in_active);
        if (f->device == device && f->class == (uint8_t) class)
            return f;
    }
    return NULL;
}

static struct schedule_active *active_new(struct schedule *s, struct schedule_tenant *t)
{
    struct schedule_active *a = slab_take(&s->actives);
    if (!a)
        return NULL;
    s->n_actives++;
    a->tenant = t;
    list_init(&a->flows);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        list_init(&a->accounts[class].requests);
    t->_active = a;
    return a;
}

static void flow_free(struct schedule *s, struct schedule_flow *f)
{
    assert(f->queued == 0 && f->running == 0 && f->turn == 0);
    schedule_class_of(s, f)->n_flows--;
    list_remove(&f->in_active);
    list_remove(&f->idle);
    slab_give(&s->flows, f);
}

static void active_end(struct schedule *s, struct schedule_active *a)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        assert(a->accounts[class].queued == 0);
        schedule_heap_remove(&s->shed[class], &a->accounts[class].shed);
    }
    a->tenant->_active = NULL;
    s->n_actives--;
    slab_give(&s->actives, a);
}

static struct schedule_flow *flow_new(struct schedule *s, struct schedule_active *a, uint32_t device,
                                      enum schedule_class class)
{
    struct schedule_class_state *c = &s->devices[device].classes[class];
    if (schedule_heap_reserve(&c->fair, c->n_flows + 1) < 0)
        return NULL;
    struct schedule_flow *f = slab_take(&s->flows);
    if (!f)
        return NULL;
    c->n_flows++;
    f->active = a;
    f->tenant = a->tenant;
    f->vtime_per_ns = a->tenant->_vtime_per_ns;
    f->device = (uint8_t)device;
    f->class = (uint8_t) class;
    f->epoch = ++s->epoch;
    f->vtime = c->vtime;
    list_append(&a->flows, &f->in_active);
    list_append(&c->idle, &f->idle);
    return f;
}

static int lane_new(struct schedule *s, struct schedule_target *g, enum schedule_class class)
{
    int rc = schedule_heap_reserve(&s->delays, s->n_lanes + 1);
    struct schedule_lane *lane = rc < 0 ? NULL : slab_take(&s->lanes);
    if (!lane)
        return -ERROR_NO_MEMORY;
    s->n_lanes++;
    lane->target = g;
    lane->class = class;
    lane->vtime_per_ns = g->_vtime_per_ns;
    schedule_sorted_init(&lane->queue);
    g->_lanes[class] = lane;
    return 0;
}

void schedule_lane_free(struct schedule *s, struct schedule_lane *lane)
{
    if (!lane)
        return;
    assert(lane->queued == 0 && lane->running == 0 && !lane->runnable && lane->delay == 0 && lane->wanted == 0);
    s->n_lanes--;
    slab_give(&s->lanes, lane);
}

int schedule_flow_reserve(struct schedule *s, const struct schedule_request *r)
{
    struct schedule_target *g = r->target;
    struct schedule_tenant *t = g->tenant;
    enum schedule_class class = schedule_request_class(s, r);
    if (r->deadline_ns && schedule_heap_reserve(&s->deadlines, s->n_deadlines + 1) < 0)
        return -ERROR_NO_MEMORY;
    if (!g->_lanes[class] && lane_new(s, g, class) < 0)
        return -ERROR_NO_MEMORY;
    if (g->_lanes[class]->flow)
        return 0;
    struct schedule_active *a = t->_active;
    if (schedule_heap_reserve(&s->shed[class], s->n_actives + !a) < 0)
        return -ERROR_NO_MEMORY;
    if (!a)
        a = active_new(s, t);
    if (!a)
        return -ERROR_NO_MEMORY;
    if (flow_of(a, g->device, class) || flow_new(s, a, g->device, class))
        return 0;
    if (list_empty(&a->flows))
        active_end(s, a);
    return -ERROR_NO_MEMORY;
}

struct schedule_flow *schedule_flow_find(const struct schedule *s, const struct schedule_lane *lane)
{
    (void)s;
    struct schedule_flow *f = flow_of(lane->target->tenant->_active, lane->target->device, lane->class);
    assert(f != NULL);
    return f;
}

void schedule_flow_busy(struct schedule *s, struct schedule_flow *f)
{
    if (!list_linked(&f->idle))
        return;
    list_remove(&f->idle);
    schedule_class_of(s, f)->n_busy++;
}

void schedule_flow_idle(struct schedule *s, struct schedule_flow *f)
{
    if (f->queued > 0 || f->running > 0 || list_linked(&f->idle))
        return;
    struct schedule_class_state *c = schedule_class_of(s, f);
    list_append(&c->idle, &f->idle);
    if (--c->n_busy == 0 && c->vtime < c->vtime_most)
        c->vtime = c->vtime_most; /* the busy period is over: nobody is owed anything */
}

void schedule_flows_retire(struct schedule *s, struct schedule_class_state *c)
{
    for (int i = 0; i < RETIRE_PER_CALL && c->n_flows - c->n_busy > IDLE_KEPT; i++) {
        struct list *node = list_first(&c->idle);
        if (!node)
            return;
        struct schedule_flow *f = container_of(node, struct schedule_flow, idle);
        struct schedule_active *a = f->active;
        list_remove(node);
        if (f->vtime > c->vtime) {
            list_append(&c->idle, node);
            continue;
        }
        flow_free(s, f);
        if (list_empty(&a->flows))
            active_end(s, a);
    }
}

void schedule_flows_weigh(struct schedule_tenant *t)
{
    list_each(node, &t->_active->flows) container_of(node, struct schedule_flow, in_active)->vtime_per_ns =
        t->_vtime_per_ns;
}

void schedule_active_free(struct schedule *s, struct schedule_tenant *t)
{
    struct schedule_active *a = t->_active;
    if (!a)
        return;
    list_each_safe(node, &a->flows) flow_free(s, container_of(node, struct schedule_flow, in_active));
    active_end(s, a);
}
