/* The scheduler: who may use which device slots next.
 *
 * A pure library: no sockets, threads, clock or randomness (time is an argument, nanoseconds, never going back).
 * Driven by the gateway's loop (exactly one thread) and, in tests, by test/sim. Objects live in the caller's structs
 * (embedded); what only active tenants need comes from pools in schedule_submit, which can refuse, and returns to them
 * when the tenant has been idle. An idle tenant costs its struct.
 *
 * Model of the world: a *device* is a named pool of slots. A *target* is one model version that requests queue for, on
 * one device; a *replica* is a running copy of a target that executes one lease at a time. A *lease* is the right of
 * one replica to run one batch of requests of one tenant and class on `slots` slots.
 *
 * Order, on each device: class; then tenant; then the tenant's targets; then deadline.
 *   - Class: critical before interactive before batch, but each lower class keeps a minimum share of the device: what
 *     starts while it has to wait earns it that share of the cost, and once it has earned its next lease, that lease is
 *     *due* and goes first. A class without work earns nothing and loses what it had.
 *   - Tenant: start-time fair queuing over lease time × slots as the caller measures it (Goyal, Vin, Cheng: "Start-time
 *     Fair Queuing", SIGCOMM '96), per device and class: virtual time grows by cost / weight; who was idle starts at
 * the current virtual time. While a lease runs its tenant is charged the estimate (per target and rows, exponentially
 *     smoothed); completion corrects to what was measured. Bound for tenants f, g of a class that stay backlogged and
 *     runnable: |Wf/wf − Wg/wg| ≤ slots × (lf/wf + lg/wg), l = longest lease time, when charges are exact.
 *   - Target: the same rule once more inside the tenant, device and class, by the targets' weights.
 *   - Deadline: the earliest first; a request without one counts as due LIMIT_QUEUE_WAIT_MS after its arrival; equal
 *     ones by arrival. A batch takes the head and what may share its shape; others are passed over, not held up.
 * docs/internals/scheduler.md derives the bounds, of waiting too, and says what a wrong estimate adds.
 *
 * A replica may be a *seat* on a worker that several targets share: one lease at a time for all of them (seat.c).
 *
 * Runnable: some target of the tenant has a queued request and a free replica, and is not waiting for
 * batching.maxDelay. Who becomes runnable again starts no earlier than the present virtual time, whatever kept it away:
 * no saved credit.
 *
 * Work-conserving, with two exceptions: batching.maxDelay (opt-in) makes a free replica wait; and the tenant whose turn
 * it is keeps its turn when its lease needs more slots than are free, so that small leases cannot starve a big one.
 *
 * Pre-emption: only for class critical, and only by the caller's hand: schedule_preempt names a running lease of a
 * lower class, the caller cancels it, schedule_requeue takes its requests back. What it had run
 * by then is charged to nobody (`system_ns`), what it takes to end to its tenant, as any time: a worker that is slow to
 * obey, or never means to, gains nothing. tenants + system + idle + running = wall × slots, exactly, on each device.
 *
 * SCHEDULE_FIFO instead: first come, first served over all tenants; no classes, weights, deadlines' order, pre-emption
 * or shedding by share. Bounds, refusals, expiry and batching are the same. For comparison.
 *
 * A request is in exactly one of: not submitted, queued, leased. Every submitted request leaves through exactly one of:
 * lease completion, schedule_replica_remove, schedule_cancel, schedule_expire, schedule_shed, schedule_target_flush.
 *
 * Cost: every call is O(log n), n the tenants that are runnable, the requests of one target, the requests with a
 * deadline or the leases, amortised; no call depends on how many tenants, targets or requests merely exist.
 * schedule_next also looks at each device, and visits the requests of the lease it forms and at most SCHEDULE_SCAN_MAX
 * that it passes over. A `now_ns` smaller than an earlier one counts as that one. */
#ifndef BULKHEAD_SCHEDULE_SCHEDULE_H
#define BULKHEAD_SCHEDULE_SCHEDULE_H

#include "base/cleanup.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/list.h"

enum schedule_class { SCHEDULE_CRITICAL = 0, SCHEDULE_INTERACTIVE, SCHEDULE_BATCH, SCHEDULE_CLASS_COUNT };
enum schedule_policy { SCHEDULE_FAIR = 0, SCHEDULE_FIFO, SCHEDULE_POLICY_COUNT };

struct schedule;

#define SCHEDULE_DEVICES_MAX (LIMIT_DEVICES + 1u) /* and the gateway's, of processors that are one model's own */
#define SCHEDULE_SLOTS_MAX   4096u /* of one device; with the cap on a lease's charge it keeps virtual time in range */
#define SCHEDULE_SCAN_MAX    64u   /* requests of another shape passed over while a batch is gathered */
#define SCHEDULE_ROW_CLASSES 10u   /* estimates by rows: 1, 2, ≤ 4, ≤ 8, … ≤ 256, more */
/* What a queued request counts beside its bytes, when shares of the queue memory are compared. */
#define SCHEDULE_REQUEST_BYTES 1024u

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

/* Private: node of an ordered queue (sorted.h). One cache line. */
struct schedule_sorted_node {
    struct list link;
    struct schedule_sorted_node *left, *right;
    uint64_t key, tie;
    uint64_t rows_below; /* its own and those of the tree below it */
    uint32_t rows, priority;
};

struct schedule_lane;   /* private: what a target has queued in one class (schedule_internal.h) */
struct schedule_active; /* private: what a tenant needs while it has requests */

struct schedule_tenant_config {
    uint32_t weight;          /* 0 counts as 1 */
    uint32_t queue_max;       /* queued requests over all targets and classes; 0 refuses every request */
    uint64_t queue_bytes_max; /* their bytes; 0 = no bound of its own */
};

struct schedule_tenant {
    /* set by schedule_tenant_set */
    uint32_t weight; /* ≥ 1 */
    uint32_t queue_max;
    uint64_t queue_bytes_max;
    /* read-only */
    uint32_t queued, leased; /* requests */
    uint64_t queued_bytes;
    uint64_t served_ns; /* cost of the leases that ended (lease time × slots), for shares */
    /* private */
    struct list _targets;
    struct schedule_active *_active; /* NULL while idle */
    uint64_t _vtime_per_ns;          /* 2^32 / weight */
};

struct schedule_target_config {
    uint32_t device;           /* of schedule_device_find; cannot change */
    uint32_t weight;           /* against the tenant's other targets; 0 counts as 1 */
    uint32_t slots;            /* of each lease; 0 counts as 1, more than the device has (by then) as all of them */
    uint32_t batch_rows_max;   /* rows in one lease; 0 counts as 1; 1 for a model that cannot batch, or must not */
    size_t batch_bytes_max;    /* bytes of inputs one lease may gather (the channel slot) */
    uint64_t delay_ns;         /* batching.maxDelay; 0 = none */
    const uint32_t *preferred; /* preferred numbers of rows, each 1 .. batch_rows_max, ascending; copied */
    uint32_t n_preferred;      /* ≤ LIMIT_BATCH_PREFERRED */
    bool cancellable;          /* its running leases can be cancelled: schedule_preempt may name them */
    bool stepped;              /* a lease steps what runs, and a step may take far longer than those before */
};

struct schedule_target {
    /* set by schedule_target_set */
    struct schedule_tenant *tenant;
    uint32_t device, slots, batch_rows_max, weight;
    uint64_t delay_ns;
    size_t batch_bytes_max;
    uint32_t preferred[LIMIT_BATCH_PREFERRED], n_preferred;
    bool cancellable, stepped;
    uint32_t replicas_max; /* for the caller's autoscaling; the scheduler does not read it */
    /* read-only */
    uint32_t queued, replicas, replicas_free;
    uint64_t estimate_ns; /* expected time of a one-row lease; 0 = unknown */
    /* private */
    uint64_t _estimate_ns[SCHEDULE_ROW_CLASSES];        /* 0 = no lease of that many rows has completed yet */
    uint64_t _vtime_per_ns;                             /* 2^32 / weight */
    struct schedule_lane *_lanes[SCHEDULE_CLASS_COUNT]; /* NULL until the first request of that class */
    struct list _free, _in_tenant;
    struct list _leases;    /* running ones, the newest last */
    struct list _blocked;   /* in its device's list: a critical request waits for a replica that a lower class holds */
    uint32_t _n_preempting; /* leases of it that are being cancelled so that a critical one gets their replica */
    uint32_t _n_seats_out;  /* seats on hosts that run a lease, of whichever target */
};

/* One worker that serves several targets, one lease at a time. Zeroed by the caller; stays while it has seats. */
struct schedule_host {
    struct list _seats;
};

/* One of a target's own, or its seat on a host. */
struct schedule_replica {
    struct schedule_target *target; /* set by schedule_replica_add, schedule_seat_add */
    struct schedule_lease *lease;   /* read-only: what it runs, or NULL */
    struct schedule_host *host;     /* read-only; NULL: its target's own */
    struct list _node, _in_host;
};

/* Zeroed by the caller before its first submit; may be submitted again once it is out. */
struct schedule_request {
    /* set by the caller before submit */
    struct schedule_target *target;
    enum schedule_class priority;
    uint32_t rows;        /* ≥ 1; more than batch_rows_max, or more bytes than batch_bytes_max, runs alone */
    size_t bytes;         /* of inputs, as gathered */
    uint64_t shape_key;   /* only requests with equal keys share a batch; 0 = never share */
    uint64_t deadline_ns; /* absolute: it must have been answered; 0 = none */
    bool again;           /* it was let in before, and its lease was lost: no bound of a queue refuses it */
    bool carries_nothing; /* it stands for work that is counted elsewhere: in no bound of a queue, and is never shed */
    /* read-only */
    uint64_t arrival_ns;
    struct schedule_lease *lease; /* while leased */
    bool requeued;                /* its lease was pre-empted once; no other that holds it will be */
    /* private */
    uint32_t _deadline; /* handle in the heap of deadlines; 0 = not in it (so for the other heaps) */
    struct list _in_active;
    struct schedule_sorted_node _sorted; /* its tie is the order of arrival, unique */
};

struct schedule_lease {
    struct schedule_replica *replica; /* after schedule_replica_remove only good for comparing */
    uint64_t started_ns;
    uint64_t limit_ns;    /* absolute time from which it is overdue (LIMIT_LEASE_*) */
    uint64_t estimate_ns; /* expected time; 0 = unknown */
    uint32_t rows;
    uint32_t n_requests;
    uint32_t slots;
    uint32_t device;
    enum schedule_class priority;
    bool due;              /* it runs on the minimum share of its class: it is not pre-empted */
    bool preempted;        /* schedule_preempt has named it … */
    uint64_t preempted_ns; /* … at this time */
    struct schedule_request *requests[LIMIT_BATCH_ITEMS]; /* in the order of the queue */
    /* private */
    uint64_t _charged_ns;        /* cost charged so far: at first the estimate × slots, at the end as measured */
    uint64_t _vtime_per_ns;      /* of the tenant when it started: the correction uses the same rate */
    uint64_t _lane_vtime_per_ns; /* likewise of the target in its tenant */
    struct schedule_lane *_lane;
    uint64_t _repaid_ns;      /* what its class gave up of what it had earned (class.c) */
    struct list _preemptible; /* in its device's list, the newest last; unlinked = it is not */
    struct list _in_target;
    struct schedule_lease *_next; /* while it lies in the pool */
    uint32_t _limit;              /* handle in the heap of running leases; 0 = reported as overdue */
    uint8_t _earning;             /* bit per class that earned from it */
    bool _running, _for_replica;  /* for_replica: pre-empted for its replica, not for its slots */
};

struct schedule_device_config {
    const char *name; /* 1 .. LIMIT_NAME_BYTES bytes, unique; copied */
    uint32_t slots;   /* 1 .. SCHEDULE_SLOTS_MAX */
};

struct schedule_config {
    const struct schedule_device_config *devices; /* 1 .. SCHEDULE_DEVICES_MAX; the first is device 0 */
    uint32_t n_devices;
    enum schedule_policy policy;
    /* Thousandths of each device that a class keeps while it waits for higher ones; of critical it is not read. Their
     * sum is at most 500. */
    uint32_t share_permille[SCHEDULE_CLASS_COUNT];
    uint32_t queue_max;       /* requests queued in total; 0 = no bound */
    uint64_t queue_bytes_max; /* bytes queued in total; 0 = no bound */
    uint64_t seed;            /* random: nobody can then send requests in an order that makes a queue slow */
};

/* -ERROR_INVALID_ARGUMENT, -ERROR_NO_MEMORY. `config` is copied. */
must_check int schedule_new(const struct schedule_config *config, struct schedule **ret_schedule);
void schedule_free(struct schedule *s); /* accepts NULL; asserts that no tenant is registered and no lease is out */

/* The number of the device of that name, or -ERROR_NOT_FOUND. */
must_check int schedule_device_find(const struct schedule *s, const char *name);

/* The device has so many slots from now on, at most as many as it was configured with; 0: nothing is granted there.
 * Slots that leases hold are taken away when they end, and count until then. A target that takes more slots of each
 * lease than there are by now takes all of them. */
void schedule_device_resize(struct schedule *s, uint32_t device, uint32_t slots, uint64_t now_ns);

/* Registers (first call on a zeroed struct) or changes; never fails, nothing queued is lost, no wait starts anew. A
 * changed weight or size counts for leases that start afterwards. A target keeps the tenant and the device it was
 * registered with. The structs must stay where they are until removed, which zeroes them. */
void schedule_tenant_set(struct schedule *s, struct schedule_tenant *t, const struct schedule_tenant_config *config);
void schedule_tenant_remove(struct schedule *s, struct schedule_tenant *t); /* must have no targets */
void schedule_target_set(struct schedule *s, struct schedule_target *g, struct schedule_tenant *tenant,
                         const struct schedule_target_config *config);
void schedule_target_remove(struct schedule *s, struct schedule_target *g); /* no queue, no replicas */
void schedule_replica_add(struct schedule *s, struct schedule_replica *r, struct schedule_target *g);
/* A seat on a host: a replica of `g` as any other, but of all seats of a host only one runs a lease at a time. Whoever
 * sits there with something queued keeps, while another has the lease, its place in the order: see seat.c. All targets
 * of a host are on one device, no two of one tenant. schedule_replica_remove takes it away. */
void schedule_seat_add(struct schedule *s, struct schedule_replica *r, struct schedule_target *g,
                       struct schedule_host *host);
/* The replica is gone. If it held a lease, the lease ends now: time so far is charged to the tenant, and *ret_lease (to
 * be given to schedule_lease_free) tells the caller whose requests were lost; NULL otherwise. (A caller that ends a
 * worker because it does not obey a pre-emption calls schedule_requeue before.) */
void schedule_replica_remove(struct schedule *s, struct schedule_replica *r, uint64_t now_ns,
                             struct schedule_lease **ret_lease);

/* Queues. 0; or, the request untouched and not queued:
 *   -ERROR_QUEUE_FULL  the tenant has queue_max requests or queue_bytes_max bytes queued
 *   -ERROR_OVERLOADED  the queues are full in total, and this request would be the first to be shed
 *   -ERROR_DEADLINE    it has passed, or its target, at its present estimates, takes longer: for what is ahead of it
 *                      in its class, after the running lease that ends first where no replica is free; or for so
 *                      many leases at twice the pace that its tenant had lately in that class. (Never said without an
 * estimate, nor of a request that could start at once: that one renews the estimate.) -ERROR_NO_MEMORY with
 * *ret_retry_ns when trying again makes sense, 0 where it does not: for a full queue the time between leases that this
 * tenant has seen lately, for a deadline how much too late it would be. ret_retry_ns may be NULL. The rate is taken by
 * the caller beforehand. After 0 the queues may be over their bound in total by this one request: the caller then loops
 * over schedule_shed. */
must_check int schedule_submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns, uint64_t *ret_retry_ns);

enum schedule_shed_reason {
    SCHEDULE_SHED_NONE = 0,
    SCHEDULE_SHED_CLASS, /* it gives way to a higher class */
    SCHEDULE_SHED_SHARE, /* its tenant is furthest over its share of the queues' memory */
    SCHEDULE_SHED_COUNT
};
/* While the queues are over their bound in total: a queued request, taken out. It is the newest of that tenant in the
 * lowest class with a queue which has most bytes queued there for its weight. NULL when the queues are within their
 * bound. Call until NULL. ret_retry_ns as for schedule_submit. */
struct schedule_request *schedule_shed(struct schedule *s, enum schedule_shed_reason *ret_reason,
                                       uint64_t *ret_retry_ns);

/* Takes a queued request out (client gone) and returns true. A leased one cannot be taken out: returns false and the
 * caller drops the answer when the lease completes; false too for one that is not in the scheduler. */
bool schedule_cancel(struct schedule *s, struct schedule_request *r);

/* The next lease to run now, or NULL: on no device is there one that is runnable and for which there are free slots.
 * Call until NULL, after schedule_expire: this call does not look at deadlines. The lease belongs to the scheduler
 * until schedule_complete / schedule_requeue / schedule_replica_remove hands it over. */
struct schedule_lease *schedule_next(struct schedule *s, uint64_t now_ns);

/* The lease's work is done (or failed): frees its slots and replica, corrects the charge to now − started (× slots).
 * The requests are out of the scheduler after this call; pointers in `lease` stay readable until schedule_lease_free.
 */
void schedule_complete(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns);
/* The same for a lease that served several targets at once: its cost is split by the parts' weights, to the nanosecond;
 * each part's tenant is charged its own. A part whose tenant has nothing queued or running on the device counts for its
 * `served_ns` and for no place in an order. Parts of weight 0 cost nothing; without any other the lease's own tenant
 * pays all. `parts` is overwritten: cost_ns says what each was charged. */
struct schedule_part {
    struct schedule_target *target; /* on the lease's device; may have several parts */
    uint64_t weight;                /* the sum of all < 2^64 */
    uint64_t cost_ns;               /* out: time × slots */
};
void schedule_complete_parts(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns,
                             struct schedule_part *parts, uint32_t n_parts);
/* Whether such a lease of `device` may serve this target too, without a turn of its own: not once its tenant has been
 * charged more than `ahead_ns` of cost, by its weight, beyond what virtual time has reached. Who is served by others'
 * turns so gets at most that, and one lease, ahead of everybody else. */
bool schedule_may_join(const struct schedule *s, const struct schedule_target *g, uint64_t ahead_ns);
void schedule_lease_free(struct schedule *s, struct schedule_lease *lease);

/* A running lease of a lower class which a critical request needs out of the way: of its target's replicas, where all
 * are taken, or of its device's slots. The caller cancels it; it stays a running lease until schedule_requeue (it was
 * cancelled), schedule_complete (it ended by itself before) or schedule_replica_remove. NULL when none is needed, or
 * when cancelling would not let the critical request start. Of those possible the one that started last: it loses
 * least. Each lease is named once; never one that is due (see above), of a target that is not cancellable, or with a
 * request that was re-queued before. Call until NULL, after schedule_next has said NULL. */
struct schedule_lease *schedule_preempt(struct schedule *s, uint64_t now_ns);
/* The lease was cancelled (schedule_preempt must have named it): its requests are queued again, before all others of
 * their target and class; its time until it was named is charged to `system`, the rest to its tenant; slots and replica
 * are free. Never fails. To be followed by
 * schedule_lease_free, like schedule_complete. A request whose client is gone is then taken out by schedule_cancel. */
void schedule_requeue(struct schedule *s, struct schedule_lease *lease, uint64_t now_ns);

/* A queued request whose deadline has passed, taken out; NULL when none. Call until NULL. */
struct schedule_request *schedule_expire(struct schedule *s, uint64_t now_ns);
/* A queued request of a target, taken out (the model was deleted or cannot start); NULL when none. */
struct schedule_request *schedule_target_flush(struct schedule *s, struct schedule_target *g);
/* A running lease that is overdue: the caller kills its worker. NULL when none. Each lease is reported once. */
struct schedule_lease *schedule_overdue(struct schedule *s, uint64_t now_ns);

/* When to call schedule_expire, schedule_next and schedule_overdue again though nothing happens (deadline, maxDelay,
 * overdue lease): nothing becomes possible before it by time alone. UINT64_MAX = never. */
uint64_t schedule_wakeup(const struct schedule *s);

struct schedule_stats { /* over all devices */
    uint32_t slots, slots_used;
    uint64_t queued, queued_bytes, leases, requests, busy_ns; /* busy_ns: slots × time charged to tenants */
    uint64_t preempted, shed;                                 /* leases re-queued; requests shed */
};
void schedule_stats(const struct schedule *s, struct schedule_stats *ret_stats);

/* Slots × time since the scheduler was first told the time; wall × slots is the sum of the four, always, on a device
 * that was never resized; else the sum is that of the slots that there were over that time. */
struct schedule_device_stats {
    const char *name;
    uint32_t slots, slots_used;
    uint32_t queued[SCHEDULE_CLASS_COUNT]; /* requests */
    uint64_t wall_ns;                      /* time, not × slots */
    uint64_t tenants_ns;                   /* charged to tenants, of leases that ended */
    uint64_t system_ns;                    /* lost to pre-emption; beyond the cap on what one lease is charged */
    uint64_t running_ns;                   /* of leases under way */
    uint64_t idle_ns;
    uint64_t vtime[SCHEDULE_CLASS_COUNT]; /* ns of a tenant of weight 1 */
};
/* `device` < n_devices of the configuration. */
void schedule_device_stats(const struct schedule *s, uint32_t device, struct schedule_device_stats *ret_stats);

#endif
