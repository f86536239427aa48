/* Classes share a device by order, the lower ones with a guaranteed part.
 *
 * The highest class with a runnable flow is next. While it is, each lower class with one earns: its share of the charge
 * of every lease that starts. As soon as it has earned what its own next lease will be charged, that lease is due, goes
 * first, and is paid from it. So over any time in which it waits behind higher classes it gets its share of what was
 * started, less one lease; and never more. Where it is served because nothing higher is runnable, that pays back what
 * it has earned, down to nothing. A class without runnable flows, without ones that wait for a worker that another's
 * lease holds (seat.c) and without leases loses what it has earned.
 *
 * A lease that took longer than its estimate is paid for likewise: what was earned may so fall below 0, but not below
 * SCHEDULE_DEBT_NS_MAX. docs/internals/scheduler.md has the bounds. */
#include "schedule/schedule_internal.h"

static int64_t share_of(const struct schedule *s, uint32_t class, uint64_t cost_ns)
{
    return (int64_t)((unsigned __int128)cost_ns * s->share_permille[class] / 1000); /* ≤ 2^56 */
}

/* What the next lease of the class would be charged, if its head came alone. */
static uint64_t next_cost(const struct schedule_class_state *c)
{
    const struct schedule_lane *lane = schedule_flow_lane(schedule_fair_peek(c));
    return schedule_estimate_cost(lane->target, schedule_lane_head(lane)->rows);
}

struct schedule_flow *schedule_class_pick(const struct schedule_device *d, bool *ret_due, uint8_t *ret_earning)
{
    struct schedule_flow *next = NULL;
    *ret_due = false;
    *ret_earning = 0;
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        const struct schedule_class_state *c = &d->classes[class];
        if (c->fair.size == 0)
            continue;
        if (!next) {
            next = schedule_fair_peek(c);
            continue;
        }
        *ret_earning |= (uint8_t)(1u << class);
        if (!*ret_due && c->earned_ns > 0 && (uint64_t)c->earned_ns >= next_cost(c)) {
            next = schedule_fair_peek(c);
            *ret_due = true;
        }
    }
    return next;
}

void schedule_class_charge(struct schedule *s, struct schedule_lease *lease)
{
    struct schedule_device *d = &s->devices[lease->device];
    struct schedule_class_state *own = &d->classes[lease->_lane->class];
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        if (lease->_earning >> class & 1)
            d->classes[class].earned_ns += share_of(s, class, lease->_charged_ns);
    }
    lease->_repaid_ns = 0;
    if (lease->due) {
        own->earned_ns -= (int64_t)lease->_charged_ns;
    } else if (own->earned_ns > 0) {
        uint64_t earned_ns = (uint64_t)own->earned_ns;
        lease->_repaid_ns = earned_ns < lease->_charged_ns ? earned_ns : lease->_charged_ns;
        own->earned_ns -= (int64_t)lease->_repaid_ns;
    }
}

void schedule_class_correct(struct schedule *s, struct schedule_lease *lease, uint64_t cost_ns)
{
    struct schedule_device *d = &s->devices[lease->device];
    struct schedule_class_state *own = &d->classes[lease->_lane->class];
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        struct schedule_class_state *c = &d->classes[class];
        if ((lease->_earning >> class & 1) && (c->fair.size > 0 || c->n_running > 0 || c->n_held > 0))
            c->earned_ns += share_of(s, class, cost_ns) - share_of(s, class, lease->_charged_ns);
    }
    if (lease->due) {
        int64_t least_ns = -(int64_t)(SCHEDULE_DEBT_NS_MAX * lease->slots);
        int64_t after_ns = own->earned_ns - ((int64_t)cost_ns - (int64_t)lease->_charged_ns);
        if (after_ns < least_ns) /* a debt from before stays */
            after_ns = own->earned_ns < least_ns ? own->earned_ns : least_ns;
        own->earned_ns = after_ns;
    } else if (lease->preempted && cost_ns < lease->_repaid_ns) {
        own->earned_ns += (int64_t)(lease->_repaid_ns - cost_ns);
    }
}

void schedule_class_rest(struct schedule_class_state *c)
{
    if (c->fair.size == 0 && c->n_running == 0 && c->n_held == 0 && c->earned_ns > 0)
        c->earned_ns = 0;
}
