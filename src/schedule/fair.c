/* Start-time fair queuing over several slots.
 *
 * A tenant's virtual time V is the cost it was charged, divided by its weight. The runnable tenant with the least V is
 * next. A tenant that becomes runnable starts at max(V, v), where
 *
 *     v = max over all leases started so far of (S − k × c),   S the tenant's V just before, c the charge in V,
 *                                                               k = how many such leases fit the device, less one.
 *
 * With one slot k is 0 and v is the start tag of the lease in service, as in the paper. With several slots a tenant may
 * have k leases under way when it starts another, so that its V runs ahead of what it has really used by k × c;
 * starting newcomers at S would make them pay for that, and would take from a tenant with short leases and few replicas
 * what it was owed each time a tenant with long ones starts. docs/internals/scheduler.md has the bound. */
#include "schedule/schedule_internal.h"

#include <assert.h>

enum { KEY_SHIFT = 28 }; /* 2^-32 ns → 2^-4 ns; see SCHEDULE_CHARGE_NS_MAX */

static inline uint64_t vtime_key(const struct schedule_tenant *t)
{
    return (uint64_t)(t->_vtime >> KEY_SHIFT);
}

void schedule_fair_update(struct schedule *s, struct schedule_tenant *t)
{
    if (!t->_runnable) {
        schedule_heap_remove(&s->fair, &t->_turn);
        return;
    }
    if (!t->_turn) {
        if (t->_vtime < s->vtime)
            t->_vtime = s->vtime;
    } else if (schedule_heap_key(&s->fair, &t->_turn) == vtime_key(t)) {
        return;
    }
    schedule_heap_set(&s->fair, &t->_turn, vtime_key(t), s->turn++);
}

struct schedule_tenant *schedule_fair_peek(const struct schedule *s)
{
    uint32_t *handle = schedule_heap_peek(&s->fair, NULL);
    return handle ? container_of(handle, struct schedule_tenant, _turn) : NULL;
}

static uint64_t lease_cost(const struct schedule_lease *lease, uint64_t time_ns)
{
    return (time_ns < SCHEDULE_CHARGE_NS_MAX ? time_ns : SCHEDULE_CHARGE_NS_MAX) * lease->slots;
}

void schedule_fair_charge(struct schedule *s, struct schedule_tenant *t, struct schedule_lease *lease)
{
    uint64_t time_ns = lease->estimate_ns ? lease->estimate_ns : SCHEDULE_CHARGE_NS_UNKNOWN;
    lease->_charged_ns = lease_cost(lease, time_ns);
    lease->_vtime_per_ns = t->_vtime_per_ns;

    unsigned __int128 charge = (unsigned __int128)lease->_charged_ns * lease->_vtime_per_ns;
    unsigned __int128 ahead = charge * (s->slots / lease->slots - 1);
    if (t->_vtime > ahead && t->_vtime - ahead > s->vtime)
        s->vtime = t->_vtime - ahead;
    t->_vtime += charge;
}

void schedule_fair_correct(struct schedule_tenant *t, struct schedule_lease *lease, uint64_t time_ns)
{
    uint64_t cost_ns = lease_cost(lease, time_ns);
    unsigned __int128 charged = (unsigned __int128)lease->_charged_ns * lease->_vtime_per_ns;
    assert(t->_vtime >= charged); /* the charges of running leases are part of it */
    t->_vtime -= charged;
    t->_vtime += (unsigned __int128)cost_ns * lease->_vtime_per_ns;
    lease->_charged_ns = cost_ns;
    t->served_ns += cost_ns;
}
