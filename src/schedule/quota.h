/* Quotas: what a tenant, or one key of it, may use, and what it has used.
 *
 * Pure: no clock, no allocation; time is an argument. One struct per tenant or key, embedded in the caller's; the
 * gateway's loop is the only thread. A request takes a *ticket* of each quota that it is under and goes through
 *
 *   enter ─► reserve ─► spend … settle ─► leave          (leave alone is enough after any of them)
 *
 * The ticket knows what it still holds, so leaving gives everything back exactly once, however the request ended.
 *
 * Rates (requests) are GCRA: schedule_rate. Budgets (compute, tokens) are fixed windows of a minute, an hour and a day
 * that begin with UTC's, so that everybody can tell when one ends. A window is used up when what was *settled* reaches
 * the limit. Until then a request may reserve when
 *
 *   used + reserved by others < limit,   or nobody else holds a reservation
 *
 * so the first request passes whatever its estimate is, none is refused for its own reservation, and, where no
 * reservation is too small, the sum of all requests is above the limit by no more than the last one. A request that
 * does not fit only because others might still need the rest is not refused but told to wait (-ERROR_AGAIN) for one of
 * them to settle. An amount that is not known reserves as
 * much as any request can cost.
 *
 * Tokens are counted as they come and can be stopped at any of them, so their budgets are exact: a request may reserve
 * when all that it asks for is free, or nobody else holds a reservation, and then gets no more than the rest. It may
 * use what it holds and what nobody has reserved: schedule_quota_left. So a request that fits the rest is never stopped
 * by others.
 *
 * The wall clock: set back, a window keeps what was used, and its end moves along with the clock; set forward, the next
 * window begins. So no jump blocks for longer than one window or gives more than one window's worth. */
#ifndef BULKHEAD_SCHEDULE_QUOTA_H
#define BULKHEAD_SCHEDULE_QUOTA_H

#include "schedule/schedule.h"

/* What is reserved and settled; each kind has two windows. */
enum schedule_quota_kind { SCHEDULE_COMPUTE = 0, SCHEDULE_TOKENS, SCHEDULE_QUOTA_KINDS };
enum schedule_window {
    SCHEDULE_COMPUTE_HOUR = 0, /* ns × slots, as all compute here */
    SCHEDULE_COMPUTE_DAY,
    SCHEDULE_TOKENS_MINUTE,
    SCHEDULE_TOKENS_DAY,
    SCHEDULE_WINDOW_COUNT
};

/* Bytes per second: of a second's worth ahead nobody waits; what is beyond has to wait until it is made up for. */
enum schedule_direction { SCHEDULE_BYTES_IN = 0, SCHEDULE_BYTES_OUT, SCHEDULE_DIRECTION_COUNT };

/* What refused: a window's number, or one of these. */
enum schedule_quota_limit {
    SCHEDULE_LIMIT_REQUESTS = SCHEDULE_WINDOW_COUNT,
    SCHEDULE_LIMIT_CONCURRENCY,
    SCHEDULE_LIMIT_BYTES_IN, /* the caller's: it decides how long is too long to wait */
    SCHEDULE_LIMIT_BYTES_OUT,
    SCHEDULE_LIMIT_COUNT
};

struct schedule_quota_limits { /* 0 = no limit */
    uint64_t requests, burst;  /* per minute; at once */
    uint64_t concurrency;      /* requests between enter and leave */
    uint64_t windows[SCHEDULE_WINDOW_COUNT];
    uint64_t flows[SCHEDULE_DIRECTION_COUNT]; /* bytes per second */
};

struct schedule_quota_time {
    uint64_t now_ns;  /* monotonic, as everywhere in this room */
    uint64_t wall_ns; /* since 1970, UTC */
};

struct schedule_quota_refusal {
    enum schedule_quota_limit limit; /* the one that lasts longest */
    uint64_t retry_ns;               /* when that limit lets a request pass again; of CONCURRENCY a guess */
};

/* Zeroed by the caller: no limits, nothing used. */
struct schedule_quota {
    struct schedule_quota_limits limits; /* set by schedule_quota_set */
    /* read-only */
    struct schedule_rate rate;
    struct schedule_quota_use {
        uint64_t window; /* number of the window since 1970 that `used` belongs to */
        uint64_t used;
    } use[SCHEDULE_WINDOW_COUNT];
    uint64_t reserved[SCHEDULE_QUOTA_KINDS];   /* the sum over tickets … */
    uint32_t n_reserved[SCHEDULE_QUOTA_KINDS]; /* … and how many those are */
    uint32_t active;                           /* tickets that entered */
    /* private */
    uint64_t _stay_ns;                                 /* smoothed time from enter to leave; 0 = unknown */
    uint64_t _flow_until_ns[SCHEDULE_DIRECTION_COUNT]; /* when what was taken is made up for */
    uint64_t _flow_typical;                            /* smoothed bytes of an answer */
};

/* Zeroed by the caller before it enters. */
struct schedule_quota_ticket {
    uint64_t _entered_ns;
    uint64_t _reserved[SCHEDULE_QUOTA_KINDS];
    uint64_t _flow_out; /* bytes taken ahead for its answer */
    bool _holds[SCHEDULE_QUOTA_KINDS];
    bool _entered;
};

/* New limits. What is used stays; who is inside stays inside. Only bytes per second, when they become more, begin anew.
 */
void schedule_quota_set(struct schedule_quota *q, const struct schedule_quota_limits *limits);

/* A request arrives: takes one of `requests` and of `concurrency`. 0; or, nothing taken, -ERROR_RATE_LIMITED (requests)
 * or -ERROR_QUOTA_EXCEEDED (concurrency, or a window of compute that is used up) with *ret_refusal. Whether it takes
 * tokens is not known yet. */
must_check int schedule_quota_enter(struct schedule_quota *q, struct schedule_quota_ticket *t,
                                    struct schedule_quota_time time, struct schedule_quota_refusal *ret_refusal);
/* The request was refused by something else: it does not count. Before schedule_quota_leave; nothing where it did not
 * enter. */
void schedule_quota_refund(struct schedule_quota *q, const struct schedule_quota_ticket *t);

/* Keeps `amount` (0 = not known) for it. 0; -ERROR_AGAIN: ask again when another has settled or left, or a window has
 * ended; -ERROR_QUOTA_EXCEEDED with *ret_refusal: a window is used up. A second reservation replaces the first. */
must_check int schedule_quota_reserve(struct schedule_quota *q, struct schedule_quota_ticket *t,
                                      enum schedule_quota_kind kind, uint64_t amount, struct schedule_quota_time time,
                                      struct schedule_quota_refusal *ret_refusal);
/* Whether reserving `amount` would not say -ERROR_AGAIN. */
bool schedule_quota_room(const struct schedule_quota *q, enum schedule_quota_kind kind, uint64_t amount,
                         struct schedule_quota_time time);
/* How much the ticket may use now without taking what others reserved; UINT64_MAX: no limit. */
uint64_t schedule_quota_left(const struct schedule_quota *q, const struct schedule_quota_ticket *t,
                             enum schedule_quota_kind kind, struct schedule_quota_time time);
/* It has used so much of what it reserved, or beyond; the rest of the reservation stays. Of work in steps: tokens. */
void schedule_quota_spend(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind,
                          uint64_t used, struct schedule_quota_time time);
/* Likewise, and it will use no more: the reservation ends. */
void schedule_quota_settle(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind,
                           uint64_t used, struct schedule_quota_time time);
/* How long a request has to wait now before it may take anything; 0 = it need not. */
uint64_t schedule_quota_flow_wait(const struct schedule_quota *q, enum schedule_direction flow, uint64_t now_ns);
/* So many bytes come, or came. */
void schedule_quota_flow_in(struct schedule_quota *q, uint64_t bytes, uint64_t now_ns);
/* They did not come after all. */
void schedule_quota_flow_unread(struct schedule_quota *q, uint64_t bytes);
/* It goes ahead: takes what answers are like, so that those who go ahead together do not all find the same room … */
void schedule_quota_flow_expect(struct schedule_quota *q, struct schedule_quota_ticket *t, uint64_t now_ns);
/* … and this is what its answer was. */
void schedule_quota_flow_out(struct schedule_quota *q, struct schedule_quota_ticket *t, uint64_t bytes,
                             uint64_t now_ns);

/* Gives back what the ticket holds, and zeroes it. A ticket that holds nothing may leave too. */
void schedule_quota_leave(struct schedule_quota *q, struct schedule_quota_ticket *t, struct schedule_quota_time time);

/* Nothing of it differs from a fresh one under the same limits: the caller may forget it. */
bool schedule_quota_fresh(struct schedule_quota *q, struct schedule_quota_time time);

/* For headers and `status`. `used` may be above `limit`. */
struct schedule_quota_state {
    uint64_t limit, used;
    uint64_t reset_ns; /* until `used` is 0, if nothing more comes */
};
struct schedule_quota_state schedule_quota_window(const struct schedule_quota *q, enum schedule_window window,
                                                  struct schedule_quota_time time);
/* limit: the burst; used: of it. */
struct schedule_quota_state schedule_quota_requests(const struct schedule_quota *q, struct schedule_quota_time time);

/* limit: a second's worth; used: of it and, beyond it, what is to be made up for. */
struct schedule_quota_state schedule_quota_flow(const struct schedule_quota *q, enum schedule_direction flow,
                                                uint64_t now_ns);
/* Requests between enter and leave beside that of the ticket. */
uint32_t schedule_quota_others(const struct schedule_quota *q, const struct schedule_quota_ticket *t);

/* What outlives the process: absolute, so it may be given back any time later. */
struct schedule_quota_saved {
    struct schedule_quota_use use[SCHEDULE_WINDOW_COUNT];
    uint64_t rate_wall_ns;                           /* when the rate's burst is whole again; 0 = it is */
    uint64_t flow_wall_ns[SCHEDULE_DIRECTION_COUNT]; /* when bytes per second are made up for; 0 = they are */
};
void schedule_quota_save(const struct schedule_quota *q, struct schedule_quota_time time,
                         struct schedule_quota_saved *ret_saved);
/* Any bytes are safe: what lies in the future counts as much as the limits can express, and no more. */
void schedule_quota_restore(struct schedule_quota *q, const struct schedule_quota_saved *saved,
                            struct schedule_quota_time time);

/* Length of a window. */
uint64_t schedule_window_ns(enum schedule_window window);
enum schedule_quota_kind schedule_window_kind(enum schedule_window window);

#endif
