/* The scheduler: who may use which device slots next.
 *
 * A pure library: no sockets, threads, clock or randomness (time is an argument, nanoseconds, never going back).
 * Driven by the gateway's loop (exactly one thread) and, in tests, by test/sim. Objects live in the caller's structs
 * (embedded), so the scheduler allocates nothing but its heap arrays, and an idle tenant costs only its struct.
 *
 * Model of the world: a device is a pool of slots. A *target* is one model version that requests queue for; a *replica*
 * is a running copy of a target that executes one lease at a time. A *lease* is the right of one replica to run one
 * batch of one tenant's requests on `slots` slots. Order between tenants: start-time fair queuing over lease time ×
 * slots as the caller measures it (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM '96): virtual time of a tenant
 * grows by cost / weight; a tenant that was idle starts at the current virtual time. While a lease runs its tenant is
 * charged the estimate (per target and rows, exponentially smoothed); completion corrects to what was measured. Bound
 * for tenants f, g that stay backlogged and runnable: |Wf/wf − Wg/wg| ≤ slots × (lf/wf + lg/wg), l = longest lease
 * cost. Within a tenant: targets in order of their head request's arrival; within a target by arrival.
 *
 * Work-conserving: a batch forms from what waits while the device is busy; only batching.maxDelay (opt-in) makes a free
 * replica wait. A request is in exactly one of: not submitted, queued, leased. Every submitted request leaves through
 * exactly one of: lease completion, schedule_cancel, schedule_expire, schedule_target_flush.
 *
 * Classes, quotas and pre-emption have their enum and fields here but no code yet. */
#ifndef BULKHEAD_SCHEDULE_SCHEDULE_H
#define BULKHEAD_SCHEDULE_SCHEDULE_H

#include "base/cleanup.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/list.h"

enum schedule_class { SCHEDULE_CRITICAL = 0, SCHEDULE_INTERACTIVE, SCHEDULE_BATCH, SCHEDULE_CLASS_COUNT };

struct schedule;

/* GCRA (ATM Forum TM 4.1, "virtual scheduling"; as in nginx limit_req without its delay). One word of state. */
struct schedule_rate {
    uint64_t interval_ns; /* 60 s / requestsPerMinute; 0 = unlimited */
    uint64_t burst_ns;    /* tolerance: (burst − 1) × interval */
    uint64_t arrival_ns;  /* private: theoretical arrival time */
};
void schedule_rate_set(struct schedule_rate *r, uint64_t per_minute, uint64_t burst);
/* 0 and the unit is taken; or -ERROR_RATE_LIMITED and *ret_retry_ns says when one unit will pass. */
must_check int schedule_rate_take(struct schedule_rate *r, uint64_t now_ns, uint64_t *ret_retry_ns);

struct schedule_tenant {
    /* set by schedule_tenant_set */
    uint32_t weight;          /* ≥ 1 */
    uint32_t queue_max;       /* queued requests over all targets */
    uint32_t concurrency_max; /* 0 = unlimited; kept for the quota issue, no code reads it yet */
    struct schedule_rate rate;
    /* read-only */
    uint32_t queued, leased;
    uint64_t served_ns; /* cost charged so far (lease time × slots), for shares */
    /* private */
    uint64_t _vtime;       /* virtual time, ns / weight */
    uint32_t _heap_index;  /* position + 1 in the runnable heap; 0 = not in it */
    struct list _runnable; /* targets with queued work and a free replica */
    struct list _targets;
};

struct schedule_target {
    /* set by schedule_target_set */
    struct schedule_tenant *tenant;
    uint32_t slots;          /* ≥ 1, ≤ the device's */
    uint32_t batch_rows_max; /* ≥ 1: rows in one lease; 1 for a model that cannot batch */
    uint64_t delay_ns;       /* batching.maxDelay; 0 = none */
    size_t batch_bytes_max;  /* bytes of inputs one lease may gather (the channel slot) */
    uint32_t replicas_max;
    /* read-only */
    uint32_t queued, replicas, replicas_free;
    uint64_t estimate_ns; /* expected lease time of one row; 0 = unknown */
    /* private */
    struct list _queue, _free, _in_tenant, _in_runnable;
    uint64_t _estimate_fixed_ns; /* part of the estimate that does not grow with rows */
};

struct schedule_replica {
    struct schedule_target *target; /* set by schedule_replica_add */
    struct schedule_lease *lease;   /* read-only: what it runs, or NULL */
    struct list _node;
};

struct schedule_request {
    /* set by the caller before submit */
    struct schedule_target *target;
    enum schedule_class priority; /* SCHEDULE_INTERACTIVE for now */
    uint32_t rows;                /* ≥ 1 */
    size_t bytes;                 /* of inputs, as gathered */
    uint64_t shape_key;           /* only requests with equal keys share a batch; 0 = never share */
    uint64_t deadline_ns;         /* absolute; 0 = none */
    /* read-only */
    uint64_t arrival_ns;
    struct schedule_lease *lease; /* while leased */
    /* private */
    struct list _node;
    uint32_t _deadline_index; /* position + 1 in the deadline heap */
};

struct schedule_lease {
    struct schedule_replica *replica;
    uint64_t started_ns;
    uint64_t limit_ns; /* absolute time after which it is overdue (LIMIT_LEASE_*) */
    uint64_t estimate_ns;
    uint32_t rows;
    uint32_t n_requests;
    struct schedule_request *requests[LIMIT_BATCH_ITEMS];
    /* private */
    uint64_t _charged_ns;
    struct list _node;
};

/* `slots`: of the one device `cpu`, ≥ 1. */
must_check int schedule_new(uint32_t slots, struct schedule **ret_schedule);
void schedule_free(struct schedule *s); /* accepts NULL; no object may be registered any more, asserts */

/* Registers (first call on a zeroed struct) or changes. weight 0 counts as 1. */
void schedule_tenant_set(struct schedule *s, struct schedule_tenant *t, uint32_t weight, uint32_t queue_max);
void schedule_tenant_remove(struct schedule *s, struct schedule_tenant *t); /* must have no targets */
void schedule_target_set(struct schedule *s, struct schedule_target *g, struct schedule_tenant *tenant, uint32_t slots,
                         uint32_t batch_rows_max, uint64_t delay_ns, size_t batch_bytes_max);
void schedule_target_remove(struct schedule *s, struct schedule_target *g); /* no queue, no replicas */
void schedule_replica_add(struct schedule *s, struct schedule_replica *r, struct schedule_target *g);
/* The replica is gone. If it held a lease, the lease ends now: time so far is charged to the tenant, and *ret_lease (to
 * be given to schedule_lease_free) tells the caller whose requests were lost; NULL otherwise. */
void schedule_replica_remove(struct schedule *s, struct schedule_replica *r, uint64_t now_ns,
                             struct schedule_lease **ret_lease);

/* Queues. 0; or -ERROR_QUEUE_FULL, -ERROR_DEADLINE (cannot make it by the present estimate of this tenant's queue),
 * with *ret_retry_ns an honest guess when trying again makes sense. The rate is taken by the caller beforehand. */
must_check int schedule_submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns, uint64_t *ret_retry_ns);

/* Takes a queued request out (client gone). A leased one cannot be taken out: returns false and the caller drops the
 * answer when the lease completes. */
bool schedule_cancel(struct schedule *s, struct schedule_request *r);

/* The next lease to run now, or NULL: nothing runnable, or no slots. Call until NULL. The lease belongs to the
 * scheduler until schedule_complete / schedule_replica_remove hands it over. */
struct schedule_lease *schedule_next(struct schedule *s, uint64_t now_ns);

/* The lease's work is done (or failed): frees its slots and replica, corrects the charge to now − started (× slots).
 * The requests are out of the scheduler after this call; pointers in `lease` stay readable until schedule_lease_free.
 */
void schedule_complete(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns);
void schedule_lease_free(struct schedule *s, struct schedule_lease *lease);

/* A queued request whose deadline has passed, taken out; NULL when none. Call until NULL. */
struct schedule_request *schedule_expire(struct schedule *s, uint64_t now_ns);
/* A queued request of a target, taken out (the model was deleted or cannot start); NULL when none. */
struct schedule_request *schedule_target_flush(struct schedule *s, struct schedule_target *g);
/* A running lease that is overdue: the caller kills its worker. NULL when none. Each lease is reported once. */
struct schedule_lease *schedule_overdue(struct schedule *s, uint64_t now_ns);

/* When to call again though nothing happens (deadline, maxDelay, overdue lease); UINT64_MAX = never. */
uint64_t schedule_wakeup(const struct schedule *s);

struct schedule_stats {
    uint32_t slots, slots_used;
    uint64_t queued, leases, requests, busy_ns; /* busy_ns: slots × time used by completed leases */
    uint64_t vtime;
};
void schedule_stats(const struct schedule *s, struct schedule_stats *ret_stats);

#endif
