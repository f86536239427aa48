/* A simulated gateway around the scheduler: tenants, targets, replicas and requests, and beside them a model of what
 * must be true of them, kept without looking into the scheduler. Every operation of the scheduler goes through a
 * function here, which does it, updates the model and checks the one against the other; a difference ends the program
 * with the seed (sim.h).
 *
 *   schedule_world.c  the operations          schedule_drive.c  what follows every event: expiry, starts, wake-up
 *   schedule_check.c  shares, runnability, what must come next
 *   schedule_play.c   what happens: random scenarios from a profile */
#ifndef BULKHEAD_TEST_SIM_SCHEDULE_WORLD_H
#define BULKHEAD_TEST_SIM_SCHEDULE_WORLD_H

#include "test/sim/sim.h"

#include "base/clock.h"
#include "schedule/schedule.h"

enum { TENANTS_MAX = 50, TARGETS_MAX = 4, REPLICAS_MAX = 4, SLOTS_MAX = 8, ROWS_MAX = 300 };

/* What may happen in a scenario. */
struct profile {
    const char *name;
    bool exact;     /* leases take what the estimate says, replicas do not fail */
    bool failures;  /* replicas fail, also with a lease, and come back; leases become overdue */
    bool deadlines; /* requests have deadlines */
    bool churn;     /* tenants and targets come and go and are changed */
    bool delays;    /* targets have a maxDelay */
    bool steady;    /* nothing changes; shares in the long run (schedule_steady.c) */
    uint32_t tenants_most;
    uint32_t steps;
    uint32_t seeds; /* by default */
};

enum request_state { REQUEST_NEW = 0, REQUEST_QUEUED, REQUEST_LEASED, REQUEST_OUT };

struct request {
    struct schedule_request schedule; /* first */
    enum request_state state;
    struct target *target;
    struct list in_queue; /* of its target, by urgency and then arrival */
    uint64_t urgency;     /* when it is due */
};

struct replica {
    struct schedule_replica schedule; /* first */
    struct target *target;
    struct run *run; /* NULL = free */
};

struct target {
    struct schedule_target schedule; /* first */
    struct tenant *tenant;
    struct list queue;
    struct replica *replicas[REPLICAS_MAX];
    uint32_t slots, rows_max, n_queued, n_free;
    size_t bytes_max;
    uint64_t delay_ns;
    uint64_t cost_ns[SCHEDULE_ROW_CLASSES]; /* of a lease, by rows as the scheduler classes them */
    uint64_t window_ns;                     /* since when its maxDelay runs */
    uint64_t waits_until_ns;                /* maxDelay holds it back until then; 0 = not */
    bool stays_down;                        /* no replica comes back before the end */
};

/* A tenant's account, in virtual nanoseconds: cost by the weight it had at the start of each lease. */
struct account {
    double charged;                            /* estimates of running leases, measured cost of ended ones */
    double longest, undercharged, overcharged; /* the largest of a single lease, time only */
};

struct tenant {
    struct schedule_tenant schedule; /* first */
    uint32_t index;
    uint32_t weight, queue_max, n_queued, n_leased;
    uint32_t depth; /* greedy: keeps so many requests queued; 0 = sends now and then */
    bool runnable;
    struct target *targets[TARGETS_MAX];
    struct account account;
    uint64_t served_ns;
};

/* A lease under way. */
struct run {
    struct schedule_lease *lease; /* NULL = unused */
    struct replica *replica;
    struct request *requests[LIMIT_BATCH_ITEMS];
    uint64_t started_ns, end_ns, limit_ns;
    uint64_t charged_ns; /* cost */
    uint32_t slots, weight, n_requests;
    bool reported; /* as overdue */
};

/* Since when two tenants have both been runnable without a break, how the difference of their accounts has moved. */
struct pair {
    double least, most;
};

struct counts {
    uint64_t submitted, full, hopeless;                    /* the last two: refused */
    uint64_t completed, cancelled, expired, flushed, lost; /* requests that left, by each way out */
    uint64_t leases, pairs_checked, pairs_exact, probes, jumps, reserved;
};

struct world {
    struct sim_random random;
    struct profile profile;
    struct schedule *s;
    uint32_t slots, slots_used;
    uint64_t now_ns, told_ns; /* told: the latest that the scheduler knows of */
    uint64_t n_queued, busy_ns, vtime;
    struct tenant *tenants[TENANTS_MAX]; /* NULL = free place */
    struct run runs[SLOTS_MAX];
    struct pair pairs[TENANTS_MAX][TENANTS_MAX];   /* [i][j], i < j: account i − account j */
    double share_nearest, starve_nearest;          /* how near any difference came to its bound; 1 = reached */
    double since_served[TENANTS_MAX][TENANTS_MAX]; /* [i][j]: account of j when i last got a lease or became runnable */
    struct counts counts;
};

/* What to tell the scheduler: now, or sometimes, when it knows that already, an earlier time, which must count as now.
 */
uint64_t world_clock(struct world *w);
void world_init(struct world *w, uint64_t seed, const struct profile *profile, uint32_t slots);
/* Everything must have been removed; checks that all requests are accounted for. */
void world_done(struct world *w);

struct tenant *tenant_add(struct world *w, uint32_t weight, uint32_t queue_max, uint32_t depth);
void tenant_change(struct world *w, struct tenant *t, uint32_t weight, uint32_t queue_max);
void tenant_remove(struct world *w, struct tenant *t); /* with its targets, replicas and queue */
struct target *target_add(struct world *w, struct tenant *t);
/* Draws size, batch and delay anew and tells the scheduler. */
void target_change(struct world *w, struct target *g);
/* One slot, one row a lease, no delay, and this cost, which the scheduler knows. */
void target_simple(struct world *w, struct target *g, uint64_t cost_ns);
void target_remove(struct world *w, struct target *g);
void replica_add(struct world *w, struct target *g);
void replica_remove(struct world *w, struct replica *r);

/* True if it was queued; a refusal has been checked. */
bool request_submit(struct world *w, struct target *g, uint32_t rows, uint64_t shape_key, uint64_t deadline_ns);
void request_cancel(struct world *w, struct request *r);
/* The scheduler has expired it. */
void request_expired(struct world *w, struct request *r);
/* The scheduler has started this lease. */
void run_start(struct world *w, struct schedule_lease *lease);
void run_complete(struct world *w, struct run *run);

/* schedule_drive.c: what a gateway does after every event: expire, look for overdue leases, start what can start. */
void world_drive(struct world *w);
/* Time passes to now_ns without an event, driving at nothing: nothing must have become possible. */
void world_probe(struct world *w, uint64_t now_ns);
/* The numbers that the scheduler shows, against the model. */
void world_compare(struct world *w);

/* schedule_check.c */
uint32_t rows_class(uint32_t rows);
/* After any change of the target's queue, replicas, delay or of time. */
void check_target_changed(struct world *w, struct target *g);
/* After requests left its queue: maxDelay now runs since the first arrival of the rest. */
void check_window(struct target *g);
/* maxDelay of all targets against the present time; the scheduler looks when it is asked for the next lease. */
void check_delays(struct world *w);
void check_account_changed(struct world *w, struct tenant *t);
void check_lease_started(struct world *w, struct run *run);
/* schedule_next said NULL. */
void check_nothing_to_start(struct world *w);
/* The earliest time at which something becomes possible by time alone. */
uint64_t check_wakeup_expected(const struct world *w);

/* schedule_play.c */
void play_top_up(struct world *w);
/* To the next event, or to somewhere before it; false if there is none. */
bool play_time(struct world *w);
void play_end(struct world *w);
void play(struct world *w);

/* schedule_steady.c */
void play_steady(struct world *w);

#endif
