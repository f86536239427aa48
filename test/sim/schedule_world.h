/* A simulated gateway around the scheduler: devices, tenants, targets, replicas and requests, and beside them a model
 * of what must be true of them, kept without looking into the scheduler's decisions. Every operation of the scheduler
 * goes through a function here, which does it, updates the model and checks the one against the other; a difference
 * ends the program with the seed (sim.h).
 *
 *   schedule_world.c  tenants, targets, requests      schedule_lease.c  leases: start, end, pre-emption
 *   schedule_drive.c  what follows every event: expiry, shedding, starts, pre-emption, wake-up; numbers
 *   schedule_check.c  runnability, batches, classes, what must come next      schedule_share.c  the share bound
 *   schedule_play.c   what happens: random scenarios from a profile
 *   schedule_steady.c, schedule_seats.c, schedule_crowd.c  tenants that always have work */
#ifndef BULKHEAD_TEST_SIM_SCHEDULE_WORLD_H
#define BULKHEAD_TEST_SIM_SCHEDULE_WORLD_H

#include "test/sim/sim.h"

#include "base/clock.h"
#include "schedule/schedule.h"

enum { TENANTS_MAX = 50, TARGETS_MAX = 4, REPLICAS_MAX = 4, SLOTS_MAX = 8, ROWS_MAX = 300, DEVICES_MAX = 2 };
enum { RUNS_MAX = DEVICES_MAX * SLOTS_MAX, CLASSES = SCHEDULE_CLASS_COUNT };

/* What may happen in a scenario. */
struct profile {
    const char *name;
    bool exact;     /* leases take what the estimate says, replicas do not fail */
    bool failures;  /* replicas fail, also with a lease, and come back; leases become overdue */
    bool deadlines; /* requests have deadlines */
    bool churn;     /* tenants and targets come and go and are changed */
    bool delays;    /* targets have a maxDelay, and preferred sizes */
    bool steady;    /* nothing changes; shares in the long run (schedule_steady.c) */
    bool away;      /* one tenant is away for long and comes back (schedule_steady.c) */
    bool credit;    /* a deliberate fault, which the share bound has to find: who comes back keeps its virtual time */
    bool crowd;     /* 100,000 tenants (schedule_crowd.c) */
    bool classes;   /* requests of all classes; minimum shares; several devices */
    bool preempt;   /* the gateway cancels leases for critical requests */
    bool overload;  /* the queues are bounded in total */
    bool fifo;      /* first come, first served */
    bool seats;     /* several tenants share workers, one lease at a time (schedule_seats.c) */
    uint32_t tenants_most;
    uint32_t steps;
    uint32_t seeds; /* by default */
};

enum request_state { REQUEST_NEW = 0, REQUEST_QUEUED, REQUEST_LEASED, REQUEST_OUT };

struct request {
    struct schedule_request schedule; /* first */
    enum request_state state;
    struct target *target;
    struct list in_queue; /* of its target and class, by urgency and then arrival */
    uint64_t urgency;     /* when it is due; 0: re-queued */
    uint64_t order;       /* of arrival */
    bool requeued;
};

struct replica {
    struct schedule_replica schedule; /* first */
    struct target *target;
    struct run *run;   /* NULL = free, or it is a seat and its host runs another's lease */
    struct host *host; /* NULL: the target's own */
};

/* A target's requests of one class. */
struct lane {
    struct list queue;
    uint32_t n_queued;
    uint64_t window_ns;      /* since when its maxDelay runs */
    uint64_t waits_until_ns; /* maxDelay holds it back until then; 0 = not */
};

struct target {
    struct schedule_target schedule; /* first */
    struct tenant *tenant;
    uint32_t index; /* in its tenant */
    struct lane lanes[CLASSES];
    struct replica *replicas[REPLICAS_MAX];
    uint32_t device, weight, slots, rows_max, n_queued, n_free, n_replicas, n_out;
    size_t bytes_max;
    uint64_t delay_ns;
    uint32_t preferred[3], n_preferred;
    bool cancellable;
    uint64_t cost_ns[SCHEDULE_ROW_CLASSES]; /* of a lease, by rows as the scheduler classes them */
};

/* One of those that share something by weight. Its account is in virtual nanoseconds: cost by the weight it had at the
 * start of each lease. */
struct member {
    bool runnable;
    double charged;                            /* estimates of running leases, measured cost of ended ones */
    double longest, undercharged, overcharged; /* the largest of a single lease, time only */
};

/* Since when two members have both been runnable without a break, how the difference of their accounts has moved. */
struct pair {
    double least, most;
};

/* Those that share: the tenants of a class of a device, or the targets of a tenant in one. */
struct group {
    uint32_t n, slots;
    struct member *members;
    struct pair *pairs; /* [i × n + j], i < j: account i − account j */
    double *since;      /* [i × n + j]: account of j when i last got a lease or became runnable */
};

struct targets_group {
    struct group group;
    struct member members[TARGETS_MAX];
    struct pair pairs[TARGETS_MAX * TARGETS_MAX];
    double since[TARGETS_MAX * TARGETS_MAX];
};

struct tenants_group {
    struct group group;
    struct member members[TENANTS_MAX];
    struct pair pairs[TENANTS_MAX * TENANTS_MAX];
    double since[TENANTS_MAX * TENANTS_MAX];
};

struct tenant {
    struct schedule_tenant schedule; /* first */
    uint32_t index;
    uint32_t weight, queue_max, n_queued, n_leased;
    uint64_t queued_bytes, queue_bytes_max; /* max 0: none of its own */
    uint64_t class_bytes[CLASSES];          /* with SCHEDULE_REQUEST_BYTES for each request */
    uint32_t class_queued[CLASSES];
    uint32_t depth; /* greedy: keeps so many requests queued; 0 = sends now and then */
    struct target *targets[TARGETS_MAX];
    struct targets_group *groups[DEVICES_MAX][CLASSES]; /* NULL until it has a target there */
    uint64_t served_ns;
};

enum { HOSTS_MAX = 4 };

/* A worker of several tenants. Those that have nothing else share it as if it were theirs alone: also while one of them
 * has its lease, the others count as runnable. */
struct host {
    struct schedule_host schedule; /* first */
    uint32_t device;
    struct replica *seats[TENANTS_MAX];
    struct run *run; /* of one of them */
    struct tenants_group groups[CLASSES];
};

/* A lease under way. */
struct run {
    struct schedule_lease *lease; /* NULL = unused */
    struct replica *replica;
    struct request *requests[LIMIT_BATCH_ITEMS];
    uint64_t started_ns, end_ns, limit_ns;
    uint64_t charged_ns; /* cost */
    double repaid;
    uint32_t slots, weight, target_weight, n_requests, earning;
    enum schedule_class class;
    bool cancellable; /* when it started */
    bool reported;    /* as overdue */
    bool preempted;   /* named; ends by itself, or: */
    uint64_t preempted_ns;
    uint64_t obeys_ns; /* its worker stops then; UINT64_MAX = does not */
};

struct device {
    uint32_t slots, slots_used;
    uint64_t idle_ns, tenants_ns, system_ns, since_ns;
    struct tenants_group *groups[CLASSES];
    double earned[CLASSES]; /* of the minimum share; see check_class_started */
    uint32_t n_running[CLASSES];
    uint64_t vtime[CLASSES];
};

struct counts {
    uint64_t submitted, full, hopeless, overloaded;              /* the last three: refused */
    uint64_t completed, cancelled, expired, flushed, lost, shed; /* requests that left, by each way out */
    uint64_t leases, pairs_checked, pairs_exact, probes, jumps, reserved, due, preempted, requeued, cut, held, split;
    uint64_t broken; /* share bounds, where a deliberate fault is to break them; else that ends the program */
};

struct world {
    struct sim_random random;
    struct profile profile;
    struct schedule *s;
    uint32_t n_devices;
    struct device devices[DEVICES_MAX];
    uint32_t share_permille[CLASSES];
    uint32_t queue_max;
    uint64_t queue_bytes_max;
    uint64_t begin_ns, now_ns, told_ns; /* told: the latest that the scheduler knows of */
    uint64_t n_arrivals, n_queued, queued_bytes, busy_ns;
    struct tenant *tenants[TENANTS_MAX]; /* NULL = free place */
    struct run runs[RUNS_MAX];
    struct host *hosts[HOSTS_MAX];
    double share_nearest, starve_nearest; /* how near any difference came to its bound; 1 = reached */
    struct counts counts;
};

/* What to tell the scheduler: now, or sometimes, when it knows that already, an earlier time, which must count as now.
 */
uint64_t world_clock(struct world *w);
void world_init(struct world *w, uint64_t seed, const struct profile *profile, uint32_t slots);
/* Everything must have been removed; checks that all requests are accounted for. */
void world_done(struct world *w);
/* Counts the device's idle time; before its used slots change, and before they are compared. */
void world_idle(struct world *w, struct device *d);

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

/* True if it was queued; a refusal has been checked. Whoever had to give way has been shed. */
bool request_submit(struct world *w, struct target *g, enum schedule_class class, uint32_t rows, uint64_t shape_key,
                    uint64_t deadline_ns);
void request_cancel(struct world *w, struct request *r);
/* The scheduler has expired it. */
void request_expired(struct world *w, struct request *r);
/* For schedule_lease.c: into the model's queue, out of it, and out of the world. */
void request_enqueue(struct world *w, struct request *r);
void request_dequeue(struct world *w, struct request *r);
void request_out(struct request *r, enum request_state expected, uint64_t *counter);

/* schedule_lease.c */
void replica_remove(struct world *w, struct replica *r);
/* The scheduler has started this lease. */
void run_start(struct world *w, struct schedule_lease *lease);
void run_complete(struct world *w, struct run *run);
/* The scheduler has named this lease. */
void run_preempt(struct world *w, struct schedule_lease *lease);
/* Its worker has obeyed. */
void run_requeue(struct world *w, struct run *run);

/* schedule_drive.c: what a gateway does after every event: expire, look for overdue leases, start what can start. */
void world_drive(struct world *w);
/* Time passes to now_ns without an event, driving at nothing: nothing must have become possible. */
void world_probe(struct world *w, uint64_t now_ns);
/* The numbers that the scheduler shows, against the model. */
void world_compare(struct world *w);

/* schedule_check.c */
uint32_t rows_class(uint32_t rows);
uint32_t class_of(const struct world *w, const struct request *r); /* whose queue it is in */
bool lane_runnable(const struct target *g, uint32_t class);
/* After any change of a queue; of the target's replicas, sizes or delay. */
void check_lane_changed(struct world *w, struct target *g, uint32_t class);
void check_target_changed(struct world *w, struct target *g);
/* After requests left its queue: maxDelay now runs since the first arrival of the rest. */
void check_window(const struct target *g, struct lane *lane);
/* maxDelay of all targets against the present time; the scheduler looks when it is asked for the next lease. */
void check_delays(struct world *w);
void check_lease_started(struct world *w, struct run *run);
/* cost_ns: what it is charged now, own_ns of it its own tenant. Before the run's slots are given back. */
void check_lease_ended(struct world *w, struct run *run, uint64_t cost_ns, uint64_t own_ns);
/* A lease of others' has served the target too, at this cost. */
void check_part_charged(struct world *w, struct target *g, uint32_t class, uint32_t slots, uint64_t cost_ns);
/* schedule_next, and then schedule_preempt, said NULL. */
void check_nothing_to_start(struct world *w);
void check_nothing_to_preempt(struct world *w);
/* The lease of this run was named though it should not have been. */
void check_preempted(struct world *w, const struct run *run);
/* This request would be, or was, the first to go. */
bool check_is_worst(const struct world *w, const struct tenant *t, uint32_t class, uint64_t tenant_bytes);
/* The earliest time at which something becomes possible by time alone. */
uint64_t check_wakeup_expected(const struct world *w);

/* schedule_share.c */
void share_init(struct group *group, uint32_t n, uint32_t slots, struct member *members, struct pair *pairs,
                double *since);
void share_joined(struct group *group, uint32_t index);
void share_runnable(struct group *group, uint32_t index, bool runnable);
/* A lease of its starts, with this charge for each slot, by the weight; or a charge changes. */
void share_charged(struct world *w, struct group *group, uint32_t index, const char *what, uint32_t slots,
                   double time_ns);
void share_corrected(struct world *w, struct group *group, uint32_t index, const char *what, uint32_t slots,
                     double charged_ns, double measured_ns);

/* schedule_play.c */
void play_top_up(struct world *w);
/* To the next event, or to somewhere before it; false if there is none. */
bool play_time(struct world *w);
void play_end(struct world *w);
void play(struct world *w);

/* schedule_seats.c */
void hosts_new(struct world *w);
void hosts_free(struct world *w);
void seat_add(struct world *w, struct target *g, struct host *host);
struct host *host_any(struct world *w, const struct tenant *t, const struct target *g); /* it has no seat there yet */
/* A lease on one of its seats starts, or has ended. */
void host_taken(struct world *w, struct host *host, struct run *run);
void host_given(struct world *w, struct host *host);
void seat_removed(struct world *w, struct replica *r);
/* After any change of a queue or of replicas. */
void hosts_changed(struct world *w, struct tenant *t, uint32_t class);
void hosts_charged(struct world *w, const struct run *run, double time_ns);
void hosts_corrected(struct world *w, const struct target *g, uint32_t class, uint32_t slots, double charged_ns,
                     double measured_ns);
/* Completes a lease on a host; now and then others there take part in it. Returns its own tenant's part. */
uint64_t host_complete(struct world *w, struct run *run);
bool lane_held(const struct target *g, uint32_t class);
void play_seats(struct world *w);

/* schedule_steady.c */
/* A tenant with one target, which always has something queued; *longest_ns becomes its lease time if that is longer. */
struct target *steady_join(struct world *w, uint64_t *longest_ns);
void steady_run(struct world *w, uint64_t span_ns);
void play_steady(struct world *w);
void play_away(struct world *w);

/* schedule_crowd.c. Without a world: a seed, what it adds up, and how near any two came to the share bound. */
void play_crowd(uint64_t seed, struct counts *counts, double *ret_nearest);

#endif
