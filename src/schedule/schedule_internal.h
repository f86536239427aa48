/* What the files of this room share. Private to src/schedule and its tests.
 *
 *   schedule.c  registration, submit, cancel, expire, wake-up, numbers
 *   admit.c     which requests are refused or shed        flow.c      what active tenants need, from pools
 *   queue.c     requests in targets: what is runnable, what a lease gathers
 *   class.c     which class is next on a device           fair.c      which tenant in it, and which target of that
 *   lease.c     leases from start to end                  preempt.c   leases that make room for critical requests
 *   seat.c      replicas that are one worker
 *   estimate.c  how long a lease will take                rate.c      GCRA
 *   heap.c, order.c, sorted.c                             the kinds of priority queue */
#ifndef BULKHEAD_SCHEDULE_SCHEDULE_INTERNAL_H
#define BULKHEAD_SCHEDULE_SCHEDULE_INTERNAL_H

#include "base/slab.h"
#include "schedule/heap.h"
#include "schedule/order.h"
#include "schedule/schedule.h"
#include "schedule/sorted.h"

#include <assert.h>
#include <stddef.h>

/* Times are compared modulo 2^64 in the heaps; later ones count as this one (146 years). */
#define SCHEDULE_TIME_MAX (UINT64_C(1) << 62)
/* One lease is charged at most this time (4.9 h). Virtual times in the heap then lie within 3 × SCHEDULE_SLOTS_MAX ×
 * 2^44 ns < 2^58 ns of each other; a heap key counts sixteenths of a nanosecond: 2^62, below the heap's 2^63. */
#define SCHEDULE_CHARGE_NS_MAX (UINT64_C(1) << 44)
/* Charged while the first lease of a target runs and nothing is known about it. */
#define SCHEDULE_CHARGE_NS_UNKNOWN UINT64_C(1000000)
/* A class that took more than its minimum share, because a lease took longer than estimated, has to wait until that is
 * made good: but for at most this time × slots of one lease, so that one stuck lease does not lock out the class. */
#define SCHEDULE_DEBT_NS_MAX UINT64_C(1000000000)
/* What one request counts at most where bytes are summed up. */
#define SCHEDULE_BYTES_MAX (UINT64_C(1) << 40)

/* A tenant's part of one class of one device, while it has requests there, and until virtual time has passed its own:
 * to forget it earlier would forgive what it has used ahead of the others. */
struct schedule_flow {
    struct list in_active, idle; /* idle: in its class's list, unlinked while it has requests, queued or leased */
    struct schedule_active *active;
    uint32_t queued, running; /* requests; leases */
    uint64_t epoch;           /* which flow it is, among all that ever lay here */
    uint64_t held_ns; /* virtual time when only busy hosts began to keep it from running (seat.c), + 1; 0 = no */
    /* What a turn needs lies together, in the handle's cache line: heap.c fetches that ahead. */
    unsigned __int128 lanes_vtime; /* where a target that becomes runnable starts, as class_state.vtime */
    struct schedule_tenant *tenant;
    uint64_t vtime_per_ns;                /* the tenant's */
    unsigned __int128 vtime;              /* virtual time, 2^-32 ns / weight: never wraps */
    struct schedule_order_node *runnable; /* lanes that could run now, by their virtual time */
    uint32_t turn;                        /* handle in the heap of runnable flows */
    uint8_t device, class;
    uint16_t n_held; /* lanes with requests, and seats on busy hosts only: no more than leases run on a device */
};
static_assert(offsetof(struct schedule_flow, lanes_vtime) == 64 && sizeof(struct schedule_flow) == 128,
              "two cache lines");
static_assert(LIMIT_DEVICES <= UINT8_MAX && SCHEDULE_SLOTS_MAX <= UINT16_MAX, "a flow's small numbers");

/* What a target has queued in one class. */
struct schedule_lane {
    unsigned __int128 vtime;    /* against the other lanes of its flow */
    uint64_t vtime_per_ns;      /* the target's */
    struct schedule_flow *flow; /* while it has requests, queued or leased */
    struct schedule_order_node in_flow;
    struct schedule_target *target;
    struct schedule_sorted queue; /* requests: re-queued ones, then by deadline */
    uint64_t epoch;               /* of the flow that `vtime` was counted in */
    uint64_t bytes;               /* queued */
    uint64_t window_ns;           /* when maxDelay began: the first arrival that the next batch may hold */
    enum schedule_class class;
    uint32_t queued, running; /* requests; leases */
    uint32_t wanted;          /* slots that its runnable critical requests could use; part of the device's sum */
    uint32_t delay;           /* handle in the heap of lanes that wait for maxDelay */
    bool runnable;            /* in_flow is in its flow's heap */
    bool held;                /* counts in its flow's n_held */
};

/* What a tenant has queued in one class, over all targets and devices: who is shed first. */
struct schedule_account {
    struct list requests; /* in order of arrival */
    uint64_t bytes;       /* with SCHEDULE_REQUEST_BYTES for each */
    uint32_t queued;
    uint32_t shed;             /* handle in the heap of who is shed first */
    uint64_t lease_started_ns; /* of the latest lease; 0 = none since the queue was empty */
    uint64_t lease_gap_ns;     /* smoothed time between leases while something is queued; 0 = unknown */
    uint32_t n_gaps;           /* that it was made of since the queue was empty */
};

struct schedule_active {
    struct schedule_tenant *tenant;
    struct list flows;
    struct schedule_account accounts[SCHEDULE_CLASS_COUNT];
};

/* A class of a device. */
struct schedule_class_state {
    struct schedule_heap fair;    /* runnable flows by virtual time */
    struct list idle;             /* flows without requests */
    unsigned __int128 vtime;      /* where a flow that becomes runnable starts; never goes back (fair.c) */
    unsigned __int128 vtime_most; /* the most that any flow was ever charged to */
    int64_t earned_ns;            /* of its minimum share, and not used; below 0 = used too early (class.c) */
    uint32_t n_flows, n_busy;     /* that exist; that have requests, queued or leased */
    uint32_t n_running;           /* leases */
    uint32_t n_held;              /* flows that only busy hosts keep from running (seat.c) */
    uint32_t queued;              /* requests */
};

struct schedule_device {
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t slots, slots_used;
    uint32_t slots_most; /* as configured */
    uint32_t slots_set;  /* by schedule_device_resize: slots comes down to it as leases end; ≤ slots ≤ slots_most */
    struct schedule_class_state classes[SCHEDULE_CLASS_COUNT];
    uint64_t since_ns;                       /* idle_ns is counted up to here */
    uint64_t idle_ns, tenants_ns, system_ns; /* × slots */
    uint64_t started_sum_ns;                 /* of running leases: started × slots */
    struct list preemptible;                 /* running leases that may be pre-empted, the newest last */
    struct list blocked;                     /* targets: a critical request waits for one of their replicas */
    uint32_t slots_preemptible, slots_preempting;
    uint64_t slots_wanted; /* by critical requests that have a replica */
};

struct schedule {
    struct schedule_device *devices;
    uint32_t n_devices;
    enum schedule_policy policy;
    uint32_t share_permille[SCHEDULE_CLASS_COUNT];
    uint32_t queue_max;
    uint64_t queue_bytes_max;
    uint64_t seed;
    uint64_t now_ns, begin_ns; /* the latest time that any call has brought; the first */

    struct schedule_heap deadlines;                  /* queued requests with a deadline */
    struct schedule_heap delays;                     /* lanes that wait for maxDelay and for nothing else, by its end */
    struct schedule_heap limits;                     /* running leases not yet reported as overdue */
    struct schedule_heap shed[SCHEDULE_CLASS_COUNT]; /* active tenants, at least as many bytes first as they have */
    uint64_t sequence;                               /* of requests, in order of arrival */
    uint64_t epoch;                                  /* of flows */
    uint32_t turn; /* orders equal virtual times; when it wraps, some of them swap once */

    struct slab flows, lanes, actives;
    uint32_t n_tenants, n_lanes, n_actives;
    uint32_t n_deadlines;                    /* requests with one, queued or leased: all may have to be queued */
    uint32_t n_leases_running, n_leases_out; /* out: not yet given back to schedule_lease_free */
    struct schedule_lease *pool;             /* given back, to be used again */
    uint32_t n_pool, slots;                  /* slots: of all devices */
    bool lease_missing;                      /* schedule_next found no memory for a lease: try again soon */
    enum schedule_class shed_for;            /* whose arrival went over the bound in total */
    uint32_t queued_of[SCHEDULE_CLASS_COUNT];

    uint64_t queued, queued_bytes, leases, requests, busy_ns, preempted, n_shed; /* for schedule_stats */
};

static inline uint64_t schedule_time_add(uint64_t time_ns, uint64_t span_ns)
{
    uint64_t sum_ns;
    if (__builtin_add_overflow(time_ns, span_ns, &sum_ns) || sum_ns > SCHEDULE_TIME_MAX)
        return SCHEDULE_TIME_MAX;
    return sum_ns;
}

static inline void schedule_time_advance(struct schedule *s, uint64_t now_ns)
{
    if (now_ns <= s->now_ns)
        return;
    s->now_ns = now_ns < SCHEDULE_TIME_MAX ? now_ns : SCHEDULE_TIME_MAX;
    if (!s->begin_ns) {
        s->begin_ns = s->now_ns;
        for (uint32_t i = 0; i < s->n_devices; i++)
            s->devices[i].since_ns = s->now_ns;
    }
}

/* What a lease of the target takes of its device by now. */
static inline uint32_t schedule_slots_of(const struct schedule_device *d, const struct schedule_target *g)
{
    uint32_t most = d->slots_set > 0 ? d->slots_set : 1;
    return g->slots < most ? g->slots : most;
}

static inline struct schedule_class_state *schedule_class_of(const struct schedule *s, const struct schedule_flow *f)
{
    return &s->devices[f->device].classes[f->class];
}

static inline uint64_t schedule_request_bytes(const struct schedule_request *r)
{
    return (r->bytes < SCHEDULE_BYTES_MAX ? r->bytes : SCHEDULE_BYTES_MAX) + SCHEDULE_REQUEST_BYTES;
}

/* In which queues it waits: first come, first served knows no classes. */
static inline enum schedule_class schedule_request_class(const struct schedule *s, const struct schedule_request *r)
{
    return s->policy == SCHEDULE_FIFO ? SCHEDULE_INTERACTIVE : r->priority;
}

static inline struct schedule_request *schedule_lane_head(const struct schedule_lane *lane)
{
    struct schedule_sorted_node *node = container_of(lane->queue.list.next, struct schedule_sorted_node, link);
    return container_of(node, struct schedule_request, _sorted);
}

/* The lane whose turn it is in a runnable flow. */
static inline struct schedule_lane *schedule_flow_lane(const struct schedule_flow *f)
{
    return container_of(f->runnable, struct schedule_lane, in_flow);
}

/* flow.c. 0 or -ERROR_NO_MEMORY: the request's lane and flow exist, with room in every heap for one more request. */
must_check int schedule_flow_reserve(struct schedule *s, const struct schedule_request *r);
/* The flow of a lane that has no requests, which schedule_flow_reserve has made. */
struct schedule_flow *schedule_flow_find(const struct schedule *s, const struct schedule_lane *lane);
/* After its queued or running has changed: it begins or ends to have requests. */
void schedule_flow_busy(struct schedule *s, struct schedule_flow *f);
void schedule_flow_idle(struct schedule *s, struct schedule_flow *f);
/* Gives back a few flows of the class that virtual time has passed. */
void schedule_flows_retire(struct schedule *s, struct schedule_class_state *c);
/* All that the tenant has; it must have no requests. */
void schedule_active_free(struct schedule *s, struct schedule_tenant *t);
void schedule_lane_free(struct schedule *s, struct schedule_lane *lane);

/* fair.c. A flow's place follows from its virtual time and from whether it has a runnable lane, a lane's likewise:
 * after a change these put it where it belongs. */
uint64_t schedule_lane_key(const struct schedule *s, const struct schedule_lane *lane);
void schedule_lane_start(struct schedule_lane *lane); /* it becomes runnable: no saved credit */
void schedule_fair_update(struct schedule *s, struct schedule_flow *f);
/* For a class's heap of flows: fetches ahead what charging them needs. */
void schedule_fair_near(uint32_t *handle);
/* A flow that had this handle has lost its place to others: fetches ahead what their leases need. */
void schedule_fair_ahead(const struct schedule_class_state *c, uint32_t turn);
/* The tenant's weight has changed. */
void schedule_flows_weigh(struct schedule_tenant *t);
/* Whose turn it is in a class, or NULL. */
struct schedule_flow *schedule_fair_peek(const struct schedule_class_state *c);
/* Charges the flow and the lane whose turn it is for a lease that starts (slots, _charged_ns set), and moves virtual
 * time on. */
void schedule_fair_charge(struct schedule *s, struct schedule_flow *f, struct schedule_lane *lane,
                          struct schedule_lease *lease);
/* Replaces the charge by the given one. The caller follows with schedule_target_update, which puts flow and lane where
 * they now belong. */
void schedule_fair_correct(struct schedule *s, struct schedule_lease *lease, uint64_t cost_ns);
/* Charges a target in whose name no lease was started: the flow of that class, or of one that it has. */
void schedule_fair_add(struct schedule *s, struct schedule_target *g, enum schedule_class class, uint64_t cost_ns);

/* class.c. What is next on a device, or NULL; *ret_lease_due whether on the minimum share of its class, and
 * *ret_earning which classes earn from it. */
struct schedule_flow *schedule_class_pick(const struct schedule_device *d, bool *ret_due, uint8_t *ret_earning);
/* A lease starts: charged, due and _earning are set. Or its charge changes to cost_ns. */
void schedule_class_charge(struct schedule *s, struct schedule_lease *lease);
void schedule_class_correct(struct schedule *s, struct schedule_lease *lease, uint64_t cost_ns);
/* After flows stopped to be runnable or leases ended: a class without either loses what it has earned. */
void schedule_class_rest(struct schedule_class_state *c);

/* queue.c. After any change of its queue, replicas, delay or time: decides anew what of the target is runnable. */
void schedule_target_update(struct schedule *s, struct schedule_target *g);
void schedule_lane_update(struct schedule *s, struct schedule_lane *lane);
/* Lanes whose maxDelay has passed become runnable. */
void schedule_delays_end(struct schedule *s);
/* The request waits; by its deadline, or before all others. schedule_flow_reserve has been called. */
void schedule_queue_append(struct schedule *s, struct schedule_request *r);
/* Takes it out; the caller follows with schedule_lane_update, which may end its flow. */
void schedule_queue_remove(struct schedule *s, struct schedule_request *r);
/* A request that did not go into a lease is gone: if maxDelay began with it, it now begins with the next one. NULL: the
 * target has a maxDelay from now on. */
void schedule_window_update(struct schedule_lane *lane, const struct schedule_request *gone);
/* Moves the lane's head and what may share its batch into the lease. The queue must not be empty. */
void schedule_queue_gather(struct schedule *s, struct schedule_lane *lane, struct schedule_lease *lease);
uint64_t schedule_urgency(const struct schedule *s, const struct schedule_request *r, uint64_t arrival_ns);

/* schedule.c. Takes out a queued request that leaves other than in a lease. */
void schedule_request_take(struct schedule *s, struct schedule_request *r);

/* admit.c. 0 or why it is refused, and when trying again makes sense. */
must_check int schedule_admit(struct schedule *s, const struct schedule_request *r, uint64_t *ret_retry_ns);
/* Bookkeeping of who has how much queued. */
void schedule_account_add(struct schedule *s, struct schedule_request *r);
void schedule_account_remove(struct schedule *s, struct schedule_request *r);
void schedule_account_weigh(struct schedule *s, struct schedule_active *a); /* after a change of the tenant's weight */

/* seat.c. The seat, one of its target's that are free, gets a lease: the host's others are not free any more. */
void schedule_seats_take(struct schedule *s, struct schedule_replica *r);
/* Its lease has ended, and it is free again or leaves: so are the others. */
void schedule_seats_give(struct schedule *s, struct schedule_replica *r);
void schedule_seat_remove(struct schedule_replica *r); /* from its host, free or out */

/* preempt.c. A lease starts or ends; a lane's wish for slots changes. */
void schedule_preempt_started(struct schedule *s, struct schedule_lease *lease);
void schedule_preempt_ended(struct schedule *s, struct schedule_lease *lease);
void schedule_preempt_lane(struct schedule *s, struct schedule_lane *lane);

/* estimate.c: the time of a lease of `rows` rows; 0 = unknown. From leases of the same size class only; of that or the
 * nearest smaller class (a lower bound as long as more rows take no less time); of the nearest class at all. */
uint64_t schedule_estimate_known(const struct schedule_target *g, uint32_t rows);
uint64_t schedule_estimate_floor(const struct schedule_target *g, uint32_t rows);
uint64_t schedule_estimate(const struct schedule_target *g, uint32_t rows);
void schedule_estimate_learn(struct schedule_target *g, uint32_t rows, uint64_t time_ns);
/* What a lease of so many rows is charged when it starts. */
uint64_t schedule_estimate_cost(const struct schedule_target *g, uint32_t rows);

/* lease.c. The one used last is taken first: its caches are warm, and surplus replicas stay idle and can be stopped. */
void schedule_replica_give(struct schedule_target *g, struct schedule_replica *r);
void schedule_pool_done(struct schedule *s);

#endif
