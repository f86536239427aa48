/* What the files of this room share. Private to src/schedule and its tests.
 *
 *   schedule.c  registration, submit, cancel, expire, wake-up, numbers
 *   queue.c     requests in targets: what is runnable, what a lease gathers
 *   fair.c      virtual time: whose turn it is
 *   lease.c     leases from start to end
 *   estimate.c  how long a lease will take      rate.c  GCRA
 *   heap.c, order.c                             the two kinds of priority queue */
#ifndef BULKHEAD_SCHEDULE_SCHEDULE_INTERNAL_H
#define BULKHEAD_SCHEDULE_SCHEDULE_INTERNAL_H

#include "schedule/heap.h"
#include "schedule/order.h"
#include "schedule/schedule.h"

/* Times are compared modulo 2^64 in the heaps; later ones count as this one (146 years). */
#define SCHEDULE_TIME_MAX (UINT64_C(1) << 62)
/* One lease is charged at most this time (4.9 h). Virtual times in the heap then lie within 3 × SCHEDULE_SLOTS_MAX ×
 * 2^44 ns < 2^58 ns of each other; a heap key counts sixteenths of a nanosecond: 2^62, below the heap's 2^63. */
#define SCHEDULE_CHARGE_NS_MAX (UINT64_C(1) << 44)
/* Charged while the first lease of a target runs and nothing is known about it. */
#define SCHEDULE_CHARGE_NS_UNKNOWN UINT64_C(1000000)

struct schedule {
    uint32_t slots, slots_used;
    uint64_t now_ns; /* the latest time any call has brought */

    struct schedule_heap fair;      /* runnable tenants by virtual time */
    struct schedule_heap deadlines; /* queued requests with a deadline */
    struct schedule_heap delays;    /* targets that wait for maxDelay and for nothing else, by its end */
    struct schedule_heap limits;    /* running leases not yet reported as overdue */
    unsigned __int128 vtime;        /* where a tenant that becomes runnable starts; never goes back (fair.c) */
    uint64_t sequence;              /* of requests, in order of arrival */
    uint32_t turn;                  /* orders equal virtual times; when it wraps, some of them swap once */

    uint32_t n_tenants;
    uint32_t n_tenants_backlogged, n_targets_backlogged; /* with a queued request: bound what the heaps must hold */
    uint32_t n_leases_running, n_leases_out;             /* out: not yet given back to schedule_lease_free */
    struct schedule_lease *pool;                         /* given back, to be used again */
    uint32_t n_pool;
    bool lease_missing; /* schedule_next found no memory for a lease: try again soon */

    uint64_t queued, leases, requests, busy_ns; /* for schedule_stats */
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
    if (now_ns > s->now_ns)
        s->now_ns = now_ns < SCHEDULE_TIME_MAX ? now_ns : SCHEDULE_TIME_MAX;
}

/* fair.c. The tenant's place follows from its virtual time and from whether it has a runnable target: after a change of
 * either, schedule_fair_update puts it where it belongs. */
void schedule_fair_update(struct schedule *s, struct schedule_tenant *t);
/* Whose turn it is, or NULL. */
struct schedule_tenant *schedule_fair_peek(const struct schedule *s);
/* Charges the tenant whose turn it is for a lease that starts (slots, estimate_ns set), and moves virtual time on. */
void schedule_fair_charge(struct schedule *s, struct schedule_tenant *t, struct schedule_lease *lease);
/* Replaces the charge by the time that the lease really took. The caller follows with schedule_target_update, which
 * puts the tenant where it now belongs. */
void schedule_fair_correct(struct schedule_tenant *t, struct schedule_lease *lease, uint64_t time_ns);

/* queue.c. After any change of its queue, replicas, delay or time: decides anew whether the target is runnable. */
void schedule_target_update(struct schedule *s, struct schedule_target *g);
/* Targets whose maxDelay has passed become runnable. */
void schedule_delays_end(struct schedule *s);
/* 0 or -ERROR_NO_MEMORY: room in every heap for one more request of this target. */
must_check int schedule_queue_reserve(struct schedule *s, const struct schedule_request *r);
void schedule_queue_append(struct schedule *s, struct schedule_request *r);
/* Takes it out; the caller follows with schedule_target_update. */
void schedule_queue_remove(struct schedule *s, struct schedule_request *r);
/* Moves the target's head and what may share its batch into the lease. The queue must not be empty. */
void schedule_queue_gather(struct schedule *s, struct schedule_target *g, struct schedule_lease *lease);

/* estimate.c: the time of a lease of `rows` rows; 0 = unknown. From leases of the same size class only; of that or the
 * nearest smaller class (a lower bound as long as more rows take no less time); of the nearest class at all. */
uint64_t schedule_estimate_known(const struct schedule_target *g, uint32_t rows);
uint64_t schedule_estimate_floor(const struct schedule_target *g, uint32_t rows);
uint64_t schedule_estimate(const struct schedule_target *g, uint32_t rows);
void schedule_estimate_learn(struct schedule_target *g, uint32_t rows, uint64_t time_ns);

/* lease.c */
void schedule_pool_done(struct schedule *s);

#endif
