/* Leases that make room for critical requests.
 *
 * A critical request that is queued lacks either a replica, all of its target's being held by leases of lower classes,
 * or slots of its device. The lease that started last is named first: it loses least. Nothing is named where that could
 * not let the critical request start, or where the next lease would be a lower class's that is due. */
#include "schedule/schedule_internal.h"

#include <assert.h>

void schedule_preempt_started(struct schedule *s, struct schedule_lease *lease)
{
    struct schedule_device *d = &s->devices[lease->device];
    lease->preempted = lease->_for_replica = false;
    lease->_preemptible = (struct list){0};
    list_append(&lease->_lane->target->_leases, &lease->_in_target);
    bool able = s->policy == SCHEDULE_FAIR && lease->priority != SCHEDULE_CRITICAL && !lease->due &&
                lease->_lane->target->cancellable;
    for (uint32_t i = 0; able && i < lease->n_requests; i++)
        able = !lease->requests[i]->requeued;
    if (!able)
        return;
    list_append(&d->preemptible, &lease->_preemptible);
    d->slots_preemptible += lease->slots;
}

static void preemptible_remove(struct schedule_device *d, struct schedule_lease *lease)
{
    if (!list_linked(&lease->_preemptible))
        return;
    list_remove(&lease->_preemptible);
    d->slots_preemptible -= lease->slots;
}

void schedule_preempt_ended(struct schedule *s, struct schedule_lease *lease)
{
    struct schedule_device *d = &s->devices[lease->device];
    preemptible_remove(d, lease);
    list_remove(&lease->_in_target);
    if (lease->preempted && lease->_for_replica)
        lease->_lane->target->_n_preempting--;
    else if (lease->preempted)
        d->slots_preempting -= lease->slots;
}

/* The fewest leases that what is queued needs. */
static uint64_t leases_wanted(const struct schedule_lane *lane)
{
    uint64_t rows_max = lane->target->batch_rows_max;
    return (schedule_sorted_rows(&lane->queue) + rows_max - 1) / rows_max;
}

void schedule_preempt_lane(struct schedule *s, struct schedule_lane *lane)
{
    struct schedule_target *g = lane->target;
    if (lane->class != SCHEDULE_CRITICAL)
        return;
    struct schedule_device *d = &s->devices[g->device];
    uint64_t n = lane->runnable ? leases_wanted(lane) : 0;
    uint32_t wanted = (uint32_t)(n < g->replicas_free ? n : g->replicas_free) * g->slots;
    d->slots_wanted += (uint64_t)wanted - lane->wanted;
    lane->wanted = wanted;
    bool blocked = lane->queued > 0 && g->replicas > 0 && g->replicas_free == 0;
    if (!blocked)
        list_remove(&g->_blocked);
    else if (!list_linked(&g->_blocked))
        list_append(&d->blocked, &g->_blocked);
}

static struct schedule_lease *preempt(struct schedule_device *d, struct schedule_lease *lease, bool for_replica)
{
    preemptible_remove(d, lease);
    lease->preempted = true;
    lease->_for_replica = for_replica;
    if (for_replica)
        lease->_lane->target->_n_preempting++;
    else
        d->slots_preempting += lease->slots;
    return lease;
}

/* Replicas: each blocked target is looked at until its state changes. */
static struct schedule_lease *preempt_replica(struct schedule_device *d)
{
    for (struct list *node; (node = list_first(&d->blocked));) {
        struct schedule_target *g = container_of(node, struct schedule_target, _blocked);
        uint32_t n_left = SCHEDULE_SCAN_MAX;
        for (struct list *at = g->_leases.prev;
             at != &g->_leases && n_left > 0 && g->_n_preempting < leases_wanted(g->_lanes[SCHEDULE_CRITICAL]);
             at = at->prev, n_left--) {
            struct schedule_lease *lease = container_of(at, struct schedule_lease, _in_target);
            if (list_linked(&lease->_preemptible))
                return preempt(d, lease, true);
        }
        list_remove(node);
    }
    return NULL;
}

static struct schedule_lease *preempt_slots(struct schedule_device *d)
{
    bool due;
    uint8_t earning;
    const struct schedule_flow *f = schedule_class_pick(d, &due, &earning);
    if (!f || due || f->class != SCHEDULE_CRITICAL || list_empty(&d->preemptible))
        return NULL;
    uint32_t each = schedule_slots_of(d, schedule_flow_lane(f)->target), room = d->slots_set / each * each;
    /* What was taken away from the device and is still held is no room that comes. */
    uint32_t coming = d->slots - d->slots_used + d->slots_preempting, lost = d->slots - d->slots_set;
    coming = coming > lost ? coming - lost : 0;
    uint32_t wanted = d->slots_wanted < room ? (uint32_t)d->slots_wanted : room;
    if (coming >= wanted || coming + d->slots_preemptible < each)
        return NULL;
    return preempt(d, container_of(d->preemptible.prev, struct schedule_lease, _preemptible), false);
}

struct schedule_lease *schedule_preempt(struct schedule *s, uint64_t now_ns)
{
    schedule_time_advance(s, now_ns);
    struct schedule_lease *lease = NULL;
    for (uint32_t i = 0; i < s->n_devices && !lease; i++) {
        lease = preempt_replica(&s->devices[i]);
        if (!lease)
            lease = preempt_slots(&s->devices[i]);
    }
    if (lease)
        lease->preempted_ns = s->now_ns;
    return lease;
}
