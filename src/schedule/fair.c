/* Start-time fair queuing over several slots, at two levels: tenants in a class of a device, and the targets of one
 * such tenant.
 *
 * The virtual time V of a flow (or lane) is the cost it was charged, divided by its weight. The runnable one with the
 * least V is next. One that becomes runnable starts at max(V, v), where
 *
 *     v = max over all leases started so far of (S − k × c),   S its owner's V just before, c the charge in V,
 *                                                               k = how many such leases fit the device, less one.
 *
 * With one slot k is 0 and v is the start tag of the lease in service, as in the paper. With several slots a flow may
 * have k leases under way when it starts another, so that its V runs ahead of what it has really used by k × c;
 * starting newcomers at S would make them pay for that, and would take from a tenant with short leases and few replicas
 * what it was owed each time a tenant with long ones starts. When a class has nothing left to do, v passes all V, as in
 * the paper (flow.c). docs/internals/scheduler.md has the bound. */
#include "schedule/schedule_internal.h"

#include <assert.h>

enum { KEY_SHIFT = 28 }; /* 2^-32 ns → 2^-4 ns; see SCHEDULE_CHARGE_NS_MAX */

uint64_t schedule_lane_key(const struct schedule *s, const struct schedule_lane *lane)
{
    return s->policy == SCHEDULE_FIFO ? schedule_lane_head(lane)->_sorted.tie : (uint64_t)(lane->vtime >> KEY_SHIFT);
}

void schedule_lane_start(struct schedule_lane *lane)
{
    if (lane->vtime < lane->flow->lanes_vtime)
        lane->vtime = lane->flow->lanes_vtime;
}

void schedule_fair_update(struct schedule *s, struct schedule_flow *f)
{
    struct schedule_class_state *c = schedule_class_of(s, f);
    bool held = !f->runnable && f->n_held > 0;
    bool comes = f->runnable ? !f->turn : held && !f->turn && !f->held_ns;
    if (comes && f->vtime < c->vtime)
        f->vtime = c->vtime;
    c->n_held = c->n_held + held - (f->held_ns != 0);
    if (!held)
        f->held_ns = 0;
    else if (!f->held_ns)
        f->held_ns = (uint64_t)(c->vtime >> 32) + 1;
    if (!f->runnable) {
        schedule_heap_remove(&c->fair, &f->turn);
        return;
    }
    uint64_t key = s->policy == SCHEDULE_FIFO ? f->runnable->key : (uint64_t)(f->vtime >> KEY_SHIFT);
    if (f->turn && schedule_heap_key(&c->fair, &f->turn) == key)
        return;
    schedule_heap_set(&c->fair, &f->turn, key, s->turn++);
}

void schedule_fair_near(uint32_t *handle)
{
    __builtin_prefetch(schedule_flow_lane(container_of(handle, struct schedule_flow, turn)));
}

/* A flow passes here twice before its turn: what is fetched the second time is found by what was fetched the first. */
void schedule_fair_ahead(const struct schedule_class_state *c, uint32_t turn)
{
    const uint32_t *second = schedule_heap_next(&c->fair, turn, 2), *first = schedule_heap_next(&c->fair, turn, 1);
    if (second) {
        const struct schedule_flow *f = container_of(second, struct schedule_flow, turn);
        __builtin_prefetch(&schedule_flow_lane(f)->target);
        __builtin_prefetch(f->tenant);
        __builtin_prefetch(&f->active->accounts[f->class]);
    }
    if (first) {
        const struct schedule_lane *lane = schedule_flow_lane(container_of(first, struct schedule_flow, turn));
        const struct schedule_request *head = schedule_lane_head(lane);
        __builtin_prefetch(&head->_sorted);
        __builtin_prefetch(head);
        __builtin_prefetch(&lane->target->_estimate_ns);
        __builtin_prefetch(&lane->target->_lanes);
    }
}

struct schedule_flow *schedule_fair_peek(const struct schedule_class_state *c)
{
    uint32_t *handle = schedule_heap_peek(&c->fair, NULL);
    return handle ? container_of(handle, struct schedule_flow, turn) : NULL;
}

/* Charges one level and moves its v on. n_more: such leases that fit the device beside this one. */
static void charge(unsigned __int128 *vtime, unsigned __int128 *level_vtime, unsigned __int128 cost, uint32_t n_more)
{
    unsigned __int128 ahead = cost * n_more;
    if (*vtime > ahead && *vtime - ahead > *level_vtime)
        *level_vtime = *vtime - ahead;
    *vtime += cost;
}

void schedule_fair_charge(struct schedule *s, struct schedule_flow *f, struct schedule_lane *lane,
                          struct schedule_lease *lease)
{
    struct schedule_class_state *c = schedule_class_of(s, f);
    uint32_t n_more = s->devices[f->device].slots / lease->slots - 1;
    lease->_vtime_per_ns = f->vtime_per_ns;
    lease->_lane_vtime_per_ns = lane->vtime_per_ns;
    charge(&f->vtime, &c->vtime, (unsigned __int128)lease->_charged_ns * lease->_vtime_per_ns, n_more);
    charge(&lane->vtime, &f->lanes_vtime, (unsigned __int128)lease->_charged_ns * lease->_lane_vtime_per_ns, n_more);
    if (f->vtime > c->vtime_most)
        c->vtime_most = f->vtime;
}

static void correct(unsigned __int128 *vtime, uint64_t charged_ns, uint64_t cost_ns, uint64_t vtime_per_ns)
{
    unsigned __int128 charged = (unsigned __int128)charged_ns * vtime_per_ns;
    assert(*vtime >= charged); /* the charges of running leases are part of it */
    *vtime -= charged;
    *vtime += (unsigned __int128)cost_ns * vtime_per_ns;
}

void schedule_fair_add(struct schedule *s, struct schedule_target *g, enum schedule_class class, uint64_t cost_ns)
{
    struct schedule_lane *lane = g->_lanes[class];
    for (uint32_t i = 0; i < SCHEDULE_CLASS_COUNT && (!lane || !lane->flow); i++)
        lane = g->_lanes[i];
    if (!lane || !lane->flow)
        return;
    struct schedule_flow *f = lane->flow;
    struct schedule_class_state *c = schedule_class_of(s, f);
    lane->vtime += (unsigned __int128)cost_ns * lane->vtime_per_ns;
    f->vtime += (unsigned __int128)cost_ns * f->vtime_per_ns;
    if (f->vtime > c->vtime_most)
        c->vtime_most = f->vtime;
    schedule_target_update(s, g);
}

bool schedule_may_join(const struct schedule *s, const struct schedule_target *g, uint64_t ahead_ns)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        const struct schedule_lane *lane = g->_lanes[class];
        const struct schedule_flow *f = lane ? lane->flow : NULL;
        if (!f)
            continue;
        unsigned __int128 reached = schedule_class_of(s, f)->vtime;
        if (f->held_ns) /* it will be moved on by what came since */
            reached = (unsigned __int128)(f->held_ns - 1) << 32;
        if (f->vtime > reached + (unsigned __int128)ahead_ns * f->vtime_per_ns)
            return false;
    }
    return true;
}

void schedule_fair_correct(struct schedule *s, struct schedule_lease *lease, uint64_t cost_ns)
{
    struct schedule_lane *lane = lease->_lane;
    struct schedule_flow *f = lane->flow;
    struct schedule_class_state *c = schedule_class_of(s, f);
    correct(&f->vtime, lease->_charged_ns, cost_ns, lease->_vtime_per_ns);
    correct(&lane->vtime, lease->_charged_ns, cost_ns, lease->_lane_vtime_per_ns);
    if (f->vtime > c->vtime_most)
        c->vtime_most = f->vtime;
    lease->_charged_ns = cost_ns;
}
