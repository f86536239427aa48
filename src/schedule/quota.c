#include "schedule/quota.h"
#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>

#define RETRY_NS_CONCURRENCY_MIN NS_PER_MS
/* What bytes can make others wait at most; a changed limit cannot blow it up. */
#define FLOW_NS_MAX (3600 * NS_PER_S)
/* A lease is never charged more; 2^44 times 2^20 requests at once is no overflow. */
#define RESERVED_MAX SCHEDULE_CHARGE_NS_MAX

static const uint64_t window_ns[SCHEDULE_WINDOW_COUNT] = {
    [SCHEDULE_COMPUTE_HOUR] = 3600 * NS_PER_S,
    [SCHEDULE_COMPUTE_DAY] = 86400 * NS_PER_S,
    [SCHEDULE_TOKENS_MINUTE] = 60 * NS_PER_S,
    [SCHEDULE_TOKENS_DAY] = 86400 * NS_PER_S,
};

static const enum schedule_quota_kind window_kind[SCHEDULE_WINDOW_COUNT] = {
    [SCHEDULE_COMPUTE_HOUR] = SCHEDULE_COMPUTE,
    [SCHEDULE_COMPUTE_DAY] = SCHEDULE_COMPUTE,
    [SCHEDULE_TOKENS_MINUTE] = SCHEDULE_TOKENS,
    [SCHEDULE_TOKENS_DAY] = SCHEDULE_TOKENS,
};

uint64_t schedule_window_ns(enum schedule_window window)
{
    return window_ns[window];
}

enum schedule_quota_kind schedule_window_kind(enum schedule_window window)
{
    return window_kind[window];
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* What counts in the window of now; all of it where the clock was set back. */
static uint64_t used_now(const struct schedule_quota *q, enum schedule_window w, uint64_t wall_ns)
{
    return q->use[w].window >= wall_ns / window_ns[w] ? q->use[w].used : 0;
}

/* A later window than that of now: the clock was set back. What was used counts until the window of now ends. */
static void clock_follow(struct schedule_quota *q, uint64_t wall_ns)
{
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        if (q->use[w].window > wall_ns / window_ns[w])
            q->use[w].window = wall_ns / window_ns[w];
}

static uint64_t window_left_ns(enum schedule_window w, uint64_t wall_ns)
{
    return window_ns[w] - wall_ns % window_ns[w];
}

void schedule_quota_set(struct schedule_quota *q, const struct schedule_quota_limits *limits)
{
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        if (limits->flows[f] > q->limits.flows[f])
            q->_flow_until_ns[f] = 0; /* what was to be made up for at a slower rate */
    q->limits = *limits;
    schedule_rate_set(&q->rate, limits->requests, limits->burst);
}

static void refusal_note(struct schedule_quota_refusal *refusal, enum schedule_quota_limit limit, uint64_t retry_ns)
{
    if (retry_ns >= refusal->retry_ns)
        *refusal = (struct schedule_quota_refusal){.limit = limit, .retry_ns = retry_ns};
}

/* Notes every window of the kind that is used up; false when there is none. */
static bool windows_used_up(const struct schedule_quota *q, enum schedule_quota_kind kind, uint64_t wall_ns,
                            struct schedule_quota_refusal *refusal)
{
    bool any = false;
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        if (window_kind[w] == kind && q->limits.windows[w] && used_now(q, w, wall_ns) >= q->limits.windows[w]) {
            refusal_note(refusal, (enum schedule_quota_limit)w, window_left_ns(w, wall_ns));
            any = true;
        }
    return any;
}

int schedule_quota_enter(struct schedule_quota *q, struct schedule_quota_ticket *t, struct schedule_quota_time time,
                         struct schedule_quota_refusal *ret_refusal)
{
    assert(!t->_entered);
    clock_follow(q, time.wall_ns);
    struct schedule_quota_refusal refusal = {0};
    bool refused = windows_used_up(q, SCHEDULE_COMPUTE, time.wall_ns, &refusal);
    if (q->limits.concurrency && q->active >= q->limits.concurrency) {
        uint64_t stay_ns = q->_stay_ns / q->limits.concurrency;
        refusal_note(&refusal, SCHEDULE_LIMIT_CONCURRENCY,
                     stay_ns > RETRY_NS_CONCURRENCY_MIN ? stay_ns : RETRY_NS_CONCURRENCY_MIN);
        refused = true;
    }
    uint64_t retry_ns = 0;
    struct schedule_rate rate = q->rate; /* taken only when nothing else refuses */
    bool limited = schedule_rate_take(&rate, time.now_ns, &retry_ns) < 0;
    if (limited) {
        refusal_note(&refusal, SCHEDULE_LIMIT_REQUESTS, retry_ns);
        q->rate = rate; /* cut to what the limits can express, so that the time that is told comes */
    }
    if (refused || limited) {
        *ret_refusal = refusal;
        return refusal.limit == SCHEDULE_LIMIT_REQUESTS ? -ERROR_RATE_LIMITED : -ERROR_QUOTA_EXCEEDED;
    }
    q->rate = rate;
    q->active++;
    *t = (struct schedule_quota_ticket){._entered = true, ._entered_ns = time.now_ns};
    return 0;
}

void schedule_quota_refund(struct schedule_quota *q, const struct schedule_quota_ticket *t)
{
    if (!t->_entered)
        return;
    uint64_t interval_ns = q->rate.interval_ns;
    q->rate.arrival_ns = q->rate.arrival_ns > interval_ns ? q->rate.arrival_ns - interval_ns : 0;
}

static void reservation_end(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind)
{
    if (!t->_holds[kind])
        return;
    assert(q->n_reserved[kind] > 0 && q->reserved[kind] >= t->_reserved[kind]);
    q->reserved[kind] -= t->_reserved[kind];
    q->n_reserved[kind]--;
    t->_reserved[kind] = 0;
    t->_holds[kind] = false;
}

/* What is left in the window that has least; 0: used up. */
static uint64_t rest_of(const struct schedule_quota *q, enum schedule_quota_kind kind, uint64_t wall_ns)
{
    uint64_t rest = UINT64_MAX;
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        if (window_kind[w] == kind && q->limits.windows[w]) {
            uint64_t limit = q->limits.windows[w], used = used_now(q, w, wall_ns);
            uint64_t left = limit > used ? limit - used : 0;
            rest = left < rest ? left : rest;
        }
    return rest;
}

static uint64_t amount_of(uint64_t amount)
{
    return amount && amount < RESERVED_MAX ? amount : RESERVED_MAX;
}

bool schedule_quota_room(const struct schedule_quota *q, enum schedule_quota_kind kind, uint64_t amount,
                         struct schedule_quota_time time)
{
    uint64_t rest = rest_of(q, kind, time.wall_ns);
    if (rest == 0 || q->n_reserved[kind] == 0)
        return true;
    if (kind != SCHEDULE_TOKENS)
        return q->reserved[kind] < rest;
    return q->reserved[kind] <= rest && amount_of(amount) <= rest - q->reserved[kind];
}

uint64_t schedule_quota_left(const struct schedule_quota *q, const struct schedule_quota_ticket *t,
                             enum schedule_quota_kind kind, struct schedule_quota_time time)
{
    uint64_t rest = rest_of(q, kind, time.wall_ns);
    uint64_t nobodys = rest > q->reserved[kind] ? rest - q->reserved[kind] : 0;
    return rest == UINT64_MAX ? rest : add_capped(t->_reserved[kind], nobodys);
}

int schedule_quota_reserve(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind,
                           uint64_t amount, struct schedule_quota_time time, struct schedule_quota_refusal *ret_refusal)
{
    struct schedule_quota_refusal refusal = {0};
    clock_follow(q, time.wall_ns);
    reservation_end(q, t, kind);
    if (windows_used_up(q, kind, time.wall_ns, &refusal)) {
        *ret_refusal = refusal;
        return -ERROR_QUOTA_EXCEEDED;
    }
    if (!schedule_quota_room(q, kind, amount, time))
        return -ERROR_AGAIN;
    /* Compute is not cut to the rest: a window may end meanwhile, and then the rest is larger. */
    uint64_t reserved = amount_of(amount), rest = rest_of(q, kind, time.wall_ns);
    if (kind == SCHEDULE_TOKENS && reserved > rest)
        reserved = rest;
    t->_reserved[kind] = reserved;
    t->_holds[kind] = true;
    q->reserved[kind] += reserved;
    q->n_reserved[kind]++;
    return 0;
}

void schedule_quota_spend(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind,
                          uint64_t used, struct schedule_quota_time time)
{
    uint64_t covered = used < t->_reserved[kind] ? used : t->_reserved[kind];
    t->_reserved[kind] -= covered;
    q->reserved[kind] -= covered;
    clock_follow(q, time.wall_ns);
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        if (window_kind[w] == kind) {
            uint64_t before = used_now(q, w, time.wall_ns);
            q->use[w] = (struct schedule_quota_use){time.wall_ns / window_ns[w], add_capped(before, used)};
        }
}

void schedule_quota_settle(struct schedule_quota *q, struct schedule_quota_ticket *t, enum schedule_quota_kind kind,
                           uint64_t used, struct schedule_quota_time time)
{
    schedule_quota_spend(q, t, kind, used, time);
    reservation_end(q, t, kind);
}

/* --- bytes per second --- */

static uint64_t flow_ns(const struct schedule_quota *q, enum schedule_direction flow, uint64_t bytes)
{
    uint64_t rate = q->limits.flows[flow];
    unsigned __int128 ns = rate ? (unsigned __int128)bytes * NS_PER_S / rate : 0;
    return ns < FLOW_NS_MAX ? (uint64_t)ns : FLOW_NS_MAX;
}

static void flow_take(struct schedule_quota *q, enum schedule_direction flow, uint64_t bytes, uint64_t now_ns)
{
    uint64_t *until_ns = &q->_flow_until_ns[flow];
    *until_ns = (*until_ns > now_ns ? *until_ns : now_ns) + flow_ns(q, flow, bytes);
    if (*until_ns - now_ns > FLOW_NS_MAX)
        *until_ns = now_ns + FLOW_NS_MAX;
}

uint64_t schedule_quota_flow_wait(const struct schedule_quota *q, enum schedule_direction flow, uint64_t now_ns)
{
    uint64_t free_ns = now_ns + NS_PER_S;
    bool waits = q->limits.flows[flow] && q->_flow_until_ns[flow] > free_ns;
    return waits ? q->_flow_until_ns[flow] - free_ns : 0;
}

void schedule_quota_flow_in(struct schedule_quota *q, uint64_t bytes, uint64_t now_ns)
{
    flow_take(q, SCHEDULE_BYTES_IN, bytes, now_ns);
}

void schedule_quota_flow_unread(struct schedule_quota *q, uint64_t bytes)
{
    uint64_t back_ns = flow_ns(q, SCHEDULE_BYTES_IN, bytes), *until_ns = &q->_flow_until_ns[SCHEDULE_BYTES_IN];
    *until_ns -= back_ns < *until_ns ? back_ns : *until_ns;
}

void schedule_quota_flow_expect(struct schedule_quota *q, struct schedule_quota_ticket *t, uint64_t now_ns)
{
    t->_flow_out = q->_flow_typical;
    flow_take(q, SCHEDULE_BYTES_OUT, t->_flow_out, now_ns);
}

static void flow_give(struct schedule_quota *q, struct schedule_quota_ticket *t)
{
    uint64_t back_ns = flow_ns(q, SCHEDULE_BYTES_OUT, t->_flow_out), *until_ns = &q->_flow_until_ns[SCHEDULE_BYTES_OUT];
    *until_ns -= back_ns < *until_ns ? back_ns : *until_ns;
    t->_flow_out = 0;
}

void schedule_quota_flow_out(struct schedule_quota *q, struct schedule_quota_ticket *t, uint64_t bytes, uint64_t now_ns)
{
    flow_give(q, t);
    flow_take(q, SCHEDULE_BYTES_OUT, bytes, now_ns);
    q->_flow_typical = q->_flow_typical ? q->_flow_typical - q->_flow_typical / 8 + bytes / 8 : bytes;
}

void schedule_quota_leave(struct schedule_quota *q, struct schedule_quota_ticket *t, struct schedule_quota_time time)
{
    for (enum schedule_quota_kind kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++)
        reservation_end(q, t, kind);
    flow_give(q, t);
    if (t->_entered) {
        assert(q->active > 0);
        q->active--;
        uint64_t stay_ns = time.now_ns > t->_entered_ns ? time.now_ns - t->_entered_ns : 0;
        q->_stay_ns = q->_stay_ns ? q->_stay_ns - q->_stay_ns / 8 + stay_ns / 8 : stay_ns;
    }
    *t = (struct schedule_quota_ticket){0};
}

bool schedule_quota_fresh(struct schedule_quota *q, struct schedule_quota_time time)
{
    clock_follow(q, time.wall_ns);
    if (q->active > 0 || q->n_reserved[SCHEDULE_COMPUTE] > 0 || q->n_reserved[SCHEDULE_TOKENS] > 0)
        return false;
    if (q->rate.interval_ns && q->rate.arrival_ns > time.now_ns)
        return false;
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        if (q->limits.flows[f] && q->_flow_until_ns[f] > time.now_ns)
            return false;
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        if (q->limits.windows[w] && used_now(q, w, time.wall_ns) > 0)
            return false;
    return true;
}

struct schedule_quota_state schedule_quota_window(const struct schedule_quota *q, enum schedule_window window,
                                                  struct schedule_quota_time time)
{
    uint64_t used = used_now(q, window, time.wall_ns);
    return (struct schedule_quota_state){
        .limit = q->limits.windows[window],
        .used = used,
        .reset_ns = used > 0 ? window_left_ns(window, time.wall_ns) : 0,
    };
}

static uint64_t ahead_of(uint64_t until_ns, uint64_t now_ns, uint64_t max_ns)
{
    uint64_t ahead_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    return ahead_ns < max_ns ? ahead_ns : max_ns;
}

struct schedule_quota_state schedule_quota_requests(const struct schedule_quota *q, struct schedule_quota_time time)
{
    const struct schedule_rate *r = &q->rate;
    if (!r->interval_ns)
        return (struct schedule_quota_state){0};
    uint64_t most_ns = r->burst_ns + r->interval_ns; /* further ahead counts as that: schedule_rate_take */
    uint64_t ahead_ns = ahead_of(r->arrival_ns, time.now_ns, most_ns);
    return (struct schedule_quota_state){
        .limit = r->burst_ns / r->interval_ns + 1,
        .used = (ahead_ns + r->interval_ns - 1) / r->interval_ns,
        .reset_ns = ahead_ns,
    };
}

struct schedule_quota_state schedule_quota_flow(const struct schedule_quota *q, enum schedule_direction flow,
                                                uint64_t now_ns)
{
    uint64_t limit = q->limits.flows[flow];
    uint64_t ahead_ns = ahead_of(q->_flow_until_ns[flow], now_ns, UINT64_MAX);
    unsigned __int128 used = ((unsigned __int128)ahead_ns * limit + NS_PER_S - 1) / NS_PER_S;
    return (struct schedule_quota_state){
        .limit = limit,
        .used = used < UINT64_MAX ? (uint64_t)used : UINT64_MAX,
        .reset_ns = limit ? ahead_ns : 0,
    };
}

uint32_t schedule_quota_others(const struct schedule_quota *q, const struct schedule_quota_ticket *t)
{
    return q->active - t->_entered;
}

void schedule_quota_save(const struct schedule_quota *q, struct schedule_quota_time time,
                         struct schedule_quota_saved *ret_saved)
{
    *ret_saved = (struct schedule_quota_saved){0};
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++)
        ret_saved->use[w] = q->use[w];
    if (q->rate.interval_ns && q->rate.arrival_ns > time.now_ns)
        ret_saved->rate_wall_ns = add_capped(time.wall_ns, q->rate.arrival_ns - time.now_ns);
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        if (q->limits.flows[f] && q->_flow_until_ns[f] > time.now_ns)
            ret_saved->flow_wall_ns[f] = add_capped(time.wall_ns, q->_flow_until_ns[f] - time.now_ns);
}

void schedule_quota_restore(struct schedule_quota *q, const struct schedule_quota_saved *saved,
                            struct schedule_quota_time time)
{
    for (enum schedule_window w = 0; w < SCHEDULE_WINDOW_COUNT; w++) {
        uint64_t window = time.wall_ns / window_ns[w];
        q->use[w] = saved->use[w];
        if (q->use[w].window > window) /* saved before the clock was set back */
            q->use[w].window = window;
    }
    /* schedule_rate_take cuts it to what the limits can express */
    q->rate.arrival_ns = time.now_ns + ahead_of(saved->rate_wall_ns, time.wall_ns, SCHEDULE_TIME_MAX);
    for (enum schedule_direction f = 0; f < SCHEDULE_DIRECTION_COUNT; f++)
        q->_flow_until_ns[f] = time.now_ns + ahead_of(saved->flow_wall_ns[f], time.wall_ns, FLOW_NS_MAX);
}
