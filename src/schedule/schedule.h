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
 * time, when charges are exact; docs/internals/scheduler.md derives it and says what a wrong estimate adds. Within a
 * tenant: targets in order of their head request's arrival; within a target by arrival.
 *
 * Runnable: some target of the tenant has a queued request and a free replica, and is not waiting for
 * batching.maxDelay. Who becomes runnable again starts no earlier than the present virtual time, whatever kept it away:
 * no saved credit.
 *
 * Work-conserving, with two exceptions: batching.maxDelay (opt-in) makes a free replica wait; and the tenant whose turn
 * it is keeps its turn when its lease needs more slots than are free, so that small leases cannot starve a big one.
 *
 * A request is in exactly one of: not submitted, queued, leased. Every submitted request leaves through exactly one of:
 * lease completion, schedule_replica_remove, schedule_cancel, schedule_expire, schedule_target_flush.
 *
 * Cost: every call is O(log n), n the tenants that are runnable, the requests with a deadline or the leases; no call
 * depends on how many tenants, targets or requests merely exist. schedule_next also visits the requests of the lease
 * it forms and at most SCHEDULE_SCAN_MAX that it passes over. A `now_ns` smaller than an earlier one counts as that
 * one.
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

#define SCHEDULE_SLOTS_MAX   4096u /* of one device; with the cap on a lease's charge it keeps virtual time in range */
#define SCHEDULE_SCAN_MAX    64u   /* requests of another shape passed over while a batch is gathered */
#define SCHEDULE_ROW_CLASSES 10u   /* estimates by rows: 1, 2, ≤ 4, ≤ 8, … ≤ 256, more */

/* GCRA (ATM Forum TM 4.1, "virtual scheduling"; as in nginx limit_req without its delay). One word of state. */
struct schedule_rate {
    uint64_t interval_ns; /* 60 s / requestsPerMinute, rounded up; 0 = unlimited */
    uint64_t burst_ns;    /* tolerance: (burst − 1) × interval */
    uint64_t arrival_ns;  /* private: theoretical arrival time */
};
/* per_minute 0 = unlimited; burst 0 counts as 1. Changes keep what is used up, as far as the new limits can express
 * it. A zeroed struct is unlimited. */
void schedule_rate_set(struct schedule_rate *r, uint64_t per_minute, uint64_t burst);
/* 0 and the unit is taken; or -ERROR_RATE_LIMITED and *ret_retry_ns says when one unit will pass. */
must_check int schedule_rate_take(struct schedule_rate *r, uint64_t now_ns, uint64_t *ret_retry_ns);

/* Private: node of a pairing heap (order.h). */
struct schedule_order_node {
    struct schedule_order_node *child, *next, *prev; /* prev: the sibling before, or the parent of a first child */
    uint64_t key;
};

struct schedule_tenant {
    /* set by schedule_tenant_set */
    uint32_t weight;    /* ≥ 1 */
    uint32_t queue_max; /* queued requests over all targets; 0 refuses every request */
    /* read-only */
    uint32_t queued, leased; /* requests */
    uint64_t served_ns;      /* cost of the leases that ended (lease time × slots), for shares */
    /* private */
    struct list _targets;
    uint64_t _lease_started_ns; /* of the latest lease; 0 = none since the queue was empty */
    uint64_t _lease_gap_ns;     /* smoothed time between leases while backlogged; 0 = unknown */
    /* What a turn needs lies together, right before the handle: heap.c fetches that ahead. */
    unsigned __int128 _vtime;              /* virtual time, 2^-32 ns / weight: never wraps */
    uint64_t _vtime_per_ns;                /* 2^32 / weight */
    struct schedule_order_node *_runnable; /* targets that could run now, by their head's arrival */
    uint32_t _turn; /* handle in the heap of runnable tenants; 0 = not in it (so for the other heaps) */
};

struct schedule_target {
    /* set by schedule_target_set */
    struct schedule_tenant *tenant;
    uint32_t slots;          /* 1 .. the device's */
    uint32_t batch_rows_max; /* ≥ 1: rows in one lease; 1 for a model that cannot batch */
    uint64_t delay_ns;       /* batching.maxDelay; 0 = none */
    size_t batch_bytes_max;  /* bytes of inputs one lease may gather (the channel slot) */
    uint32_t replicas_max;   /* for the caller's autoscaling; the scheduler does not read it */
    /* read-only */
    uint32_t queued, replicas, replicas_free;
    uint64_t estimate_ns; /* expected time of a one-row lease; 0 = unknown */
    /* private */
    uint64_t _estimate_ns[SCHEDULE_ROW_CLASSES]; /* 0 = no lease of that many rows has completed yet */
    uint64_t _queued_rows, _queued_bytes;
    struct list _queue, _free, _in_tenant;
    struct schedule_order_node _in_runnable;
    bool _runnable;  /* _in_runnable is in its tenant's heap */
    uint32_t _delay; /* handle in the heap of targets that wait for maxDelay */
};

struct schedule_replica {
    struct schedule_target *target; /* set by schedule_replica_add */
    struct schedule_lease *lease;   /* read-only: what it runs, or NULL */
    struct list _node;
};

/* Zeroed by the caller before its first submit; may be submitted again once it is out. */
struct schedule_request {
    /* set by the caller before submit */
    struct schedule_target *target;
    enum schedule_class priority; /* SCHEDULE_INTERACTIVE for now */
    uint32_t rows;                /* ≥ 1; more than batch_rows_max, or more bytes than batch_bytes_max, runs alone */
    size_t bytes;                 /* of inputs, as gathered */
    uint64_t shape_key;           /* only requests with equal keys share a batch; 0 = never share */
    uint64_t deadline_ns;         /* absolute: it must have been answered; 0 = none */
    /* read-only */
    uint64_t arrival_ns;
    struct schedule_lease *lease; /* while leased */
    /* private */
    uint64_t _sequence; /* order of arrival, unique */
    struct list _node;
    uint32_t _deadline; /* handle in the heap of deadlines */
};

struct schedule_lease {
    struct schedule_replica *replica; /* after schedule_replica_remove only good for comparing */
    uint64_t started_ns;
    uint64_t limit_ns;    /* absolute time from which it is overdue (LIMIT_LEASE_*) */
    uint64_t estimate_ns; /* expected time; 0 = unknown */
    uint32_t rows;
    uint32_t n_requests;
    uint32_t slots;
    struct schedule_request *requests[LIMIT_BATCH_ITEMS]; /* in order of arrival */
    /* private */
    uint64_t _charged_ns;         /* cost charged so far: at first the estimate × slots, at the end as measured */
    uint64_t _vtime_per_ns;       /* of the tenant when it started: the correction uses the same rate */
    struct schedule_lease *_next; /* while it lies in the pool */
    uint32_t _limit;              /* handle in the heap of running leases; 0 = reported as overdue */
    bool _running;
};

/* `slots`: of the one device `cpu`, 1..SCHEDULE_SLOTS_MAX. -ERROR_INVALID_ARGUMENT, -ERROR_NO_MEMORY. */
must_check int schedule_new(uint32_t slots, struct schedule **ret_schedule);
void schedule_free(struct schedule *s); /* accepts NULL; asserts that no tenant is registered and no lease is out */

/* Registers (first call on a zeroed struct) or changes; never fails, nothing queued is lost. weight 0 counts as 1,
 * likewise a target's slots and batch_rows_max; slots beyond the device's count as all of them. A changed weight or
 * size counts for leases that start afterwards. A target keeps the tenant it was registered with. The structs must stay
 * where they are until removed, which zeroes them. */
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

/* Queues. 0; or, the request untouched and not queued:
 *   -ERROR_QUEUE_FULL  the tenant has queue_max requests queued
 *   -ERROR_DEADLINE    it has passed, or the target's own queue alone, at its present estimate, takes longer (never
 *                      said without an estimate, nor of a request that could start at once: that one renews the
 * estimate) -ERROR_NO_MEMORY with *ret_retry_ns a guess when trying again makes sense, 0 where there is none: for a
 * full queue the time between leases that this tenant has seen lately. ret_retry_ns may be NULL. The rate is taken by
 * the caller beforehand. */
must_check int schedule_submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns, uint64_t *ret_retry_ns);

/* Takes a queued request out (client gone) and returns true. A leased one cannot be taken out: returns false and the
 * caller drops the answer when the lease completes; false too for one that is not in the scheduler. */
bool schedule_cancel(struct schedule *s, struct schedule_request *r);

/* The next lease to run now, or NULL: nothing runnable, or not enough free slots for the one whose turn it is. Call
 * until NULL, after schedule_expire: this call does not look at deadlines. The lease belongs to the scheduler until
 * schedule_complete / schedule_replica_remove hands it over. */
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

/* When to call schedule_expire, schedule_next and schedule_overdue again though nothing happens (deadline, maxDelay,
 * overdue lease): nothing becomes possible before it by time alone. UINT64_MAX = never. */
uint64_t schedule_wakeup(const struct schedule *s);

struct schedule_stats {
    uint32_t slots, slots_used;
    uint64_t queued, leases, requests, busy_ns; /* busy_ns: slots × time used by completed leases */
    uint64_t vtime;                             /* ns of a tenant of weight 1 */
};
void schedule_stats(const struct schedule *s, struct schedule_stats *ret_stats);

#endif
