/* Quotas at limit − 1, limit and limit + 1, the clock's jumps, and thousands of random interleavings of requests
 * against a plain model. */
#include "base/clock.h"
#include "schedule/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define HOUR_NS   (3600 * NS_PER_S)
#define DAY_NS    (24 * HOUR_NS)
#define MINUTE_NS (60 * NS_PER_S)
#define WALL      (20000 * DAY_NS + 5 * HOUR_NS + 10 * MINUTE_NS) /* ten minutes into an hour */

static const struct schedule_quota_time start = {1000 * NS_PER_S, WALL};

static struct schedule_quota_time after(struct schedule_quota_time t, uint64_t ns)
{
    return (struct schedule_quota_time){t.now_ns + ns, t.wall_ns + ns};
}

static struct schedule_quota quota_of(struct schedule_quota_limits limits)
{
    struct schedule_quota q = {0};
    schedule_quota_set(&q, &limits);
    return q;
}

static void expect_enter(struct schedule_quota *q, struct schedule_quota_ticket *t, struct schedule_quota_time time)
{
    struct schedule_quota_refusal refusal = {.retry_ns = 7};
    assert_int_equal(schedule_quota_enter(q, t, time, &refusal), 0);
    assert_int_equal(refusal.retry_ns, 7); // an output is untouched where it means nothing
}

static void expect_refused(struct schedule_quota *q, struct schedule_quota_time time, int code,
                           enum schedule_quota_limit limit, uint64_t retry_ns)
{
    struct schedule_quota before = *q;
    struct schedule_quota_ticket t = {0};
    struct schedule_quota_refusal refusal = {0};
    assert_int_equal(schedule_quota_enter(q, &t, time, &refusal), code);
    assert_int_equal(refusal.limit, limit);
    assert_int_equal(refusal.retry_ns, retry_ns);
    assert_int_equal(q->active, before.active); // nothing taken
    assert_int_equal(q->rate.arrival_ns, before.rate.arrival_ns);
    assert_false(t._entered);
}

static void use(struct schedule_quota *q, uint64_t ns, struct schedule_quota_time time)
{
    struct schedule_quota_ticket t = {0};
    struct schedule_quota_refusal refusal;
    expect_enter(q, &t, time);
    assert_int_equal(schedule_quota_reserve(q, &t, SCHEDULE_COMPUTE, ns, time, &refusal), 0);
    schedule_quota_settle(q, &t, SCHEDULE_COMPUTE, ns, time);
    schedule_quota_leave(q, &t, time);
}

static void test_no_limits_refuse_nothing(void **state)
{
    (void)state;
    struct schedule_quota q = {0};
    struct schedule_quota_ticket t[100] = {0};
    struct schedule_quota_refusal refusal;
    for (int i = 0; i < 100; i++) {
        expect_enter(&q, &t[i], start);
        assert_int_equal(schedule_quota_reserve(&q, &t[i], SCHEDULE_COMPUTE, UINT64_MAX, start, &refusal), 0);
    }
    for (int i = 0; i < 100; i++)
        schedule_quota_leave(&q, &t[i], start);
    assert_true(schedule_quota_fresh(&q, start));
}

static void test_concurrency_at_its_limit(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.concurrency = 3});
    struct schedule_quota_ticket t[3] = {0}, other = {0};
    for (int i = 0; i < 3; i++)
        expect_enter(&q, &t[i], start);
    expect_refused(&q, start, -ERROR_QUOTA_EXCEEDED, SCHEDULE_LIMIT_CONCURRENCY, NS_PER_MS);
    schedule_quota_leave(&q, &t[1], start);
    schedule_quota_leave(&q, &t[1], start); // twice: gives back once
    schedule_quota_leave(&q, &other, start);
    expect_enter(&q, &t[1], start);
    expect_refused(&q, start, -ERROR_QUOTA_EXCEEDED, SCHEDULE_LIMIT_CONCURRENCY, NS_PER_MS);
    schedule_quota_set(&q, &(struct schedule_quota_limits){.concurrency = 1}); // who is inside stays inside
    assert_int_equal(q.active, 3);
    for (int i = 0; i < 3; i++)
        schedule_quota_leave(&q, &t[i], after(start, 6 * NS_PER_S));
    expect_enter(&q, &t[0], start);
    struct schedule_quota_refusal refusal = {0};
    assert_int_equal(schedule_quota_enter(&q, &other, start, &refusal), -ERROR_QUOTA_EXCEEDED);
    assert_true(refusal.retry_ns > NS_PER_S); // as long as requests have stayed
}

static void test_requests_and_refund(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.requests = 60, .burst = 2});
    struct schedule_quota_ticket a = {0}, b = {0}, c = {0};
    expect_enter(&q, &a, start);
    expect_enter(&q, &b, start);
    struct schedule_quota_state s = schedule_quota_requests(&q, start);
    assert_int_equal(s.limit, 2);
    assert_int_equal(s.used, 2);
    assert_int_equal(s.reset_ns, 2 * NS_PER_S);
    expect_refused(&q, start, -ERROR_RATE_LIMITED, SCHEDULE_LIMIT_REQUESTS, NS_PER_S);
    schedule_quota_refund(&q, &c); // never entered
    expect_refused(&q, start, -ERROR_RATE_LIMITED, SCHEDULE_LIMIT_REQUESTS, NS_PER_S);
    schedule_quota_refund(&q, &b);
    schedule_quota_leave(&q, &b, start);
    expect_enter(&q, &b, start);
    expect_refused(&q, start, -ERROR_RATE_LIMITED, SCHEDULE_LIMIT_REQUESTS, NS_PER_S);
    expect_refused(&q, after(start, NS_PER_S - 1), -ERROR_RATE_LIMITED, SCHEDULE_LIMIT_REQUESTS, 1);
    expect_enter(&q, &c, after(start, NS_PER_S));
}

static void test_the_first_request_passes_and_the_next_window_is_free(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_HOUR] = NS_PER_S}});
    struct schedule_quota_ticket t = {0}, other = {0};
    struct schedule_quota_refusal refusal = {0};
    expect_enter(&q, &t, start);
    assert_int_equal(schedule_quota_reserve(&q, &t, SCHEDULE_COMPUTE, 100 * NS_PER_S, start, &refusal), 0);
    expect_enter(&q, &other, start); // nothing is used yet
    assert_int_equal(schedule_quota_reserve(&q, &other, SCHEDULE_COMPUTE, 1, start, &refusal), -ERROR_AGAIN);
    schedule_quota_settle(&q, &t, SCHEDULE_COMPUTE, NS_PER_S - 1, start);
    assert_int_equal(schedule_quota_reserve(&q, &other, SCHEDULE_COMPUTE, 50, start, &refusal), 0);
    schedule_quota_settle(&q, &other, SCHEDULE_COMPUTE, 50, start);
    assert_int_equal(schedule_quota_reserve(&q, &t, SCHEDULE_COMPUTE, 1, start, &refusal), -ERROR_QUOTA_EXCEEDED);
    assert_int_equal(refusal.limit, SCHEDULE_COMPUTE_HOUR);
    assert_int_equal(refusal.retry_ns, 50 * MINUTE_NS);
    schedule_quota_leave(&q, &t, start);
    schedule_quota_leave(&q, &other, start);
    expect_refused(&q, after(start, 50 * MINUTE_NS - 1), -ERROR_QUOTA_EXCEEDED,
                   (enum schedule_quota_limit)SCHEDULE_COMPUTE_HOUR, 1);
    assert_false(schedule_quota_fresh(&q, after(start, 50 * MINUTE_NS - 1)));
    assert_true(schedule_quota_fresh(&q, after(start, 50 * MINUTE_NS)));
    expect_enter(&q, &t, after(start, 50 * MINUTE_NS));
}

static void test_the_longest_refusal_is_told(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){
        .requests = 1,
        .burst = 1,
        .windows = {[SCHEDULE_COMPUTE_HOUR] = 10, [SCHEDULE_COMPUTE_DAY] = 20},
    });
    use(&q, 15, start);
    expect_refused(&q, start, -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_HOUR, 50 * MINUTE_NS);
    use(&q, 5, after(start, HOUR_NS));
    expect_refused(&q, after(start, HOUR_NS), -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_DAY,
                   DAY_NS - 6 * HOUR_NS - 10 * MINUTE_NS);
}

static void test_an_unknown_amount_keeps_the_rest(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_DAY] = NS_PER_S}});
    struct schedule_quota_ticket a = {0}, b = {0};
    struct schedule_quota_refusal refusal;
    assert_int_equal(schedule_quota_reserve(&q, &a, SCHEDULE_COMPUTE, 0, start, &refusal), 0);
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_COMPUTE, 0, start, &refusal), -ERROR_AGAIN);
    schedule_quota_leave(&q, &a, start); // cancelled: charged nothing
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_COMPUTE, 0, start, &refusal), 0);
    schedule_quota_leave(&q, &b, start);
    assert_true(schedule_quota_fresh(&q, start));
}

static void test_tokens_are_spent_in_steps(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of(
        (struct schedule_quota_limits){.windows = {[SCHEDULE_TOKENS_MINUTE] = 100, [SCHEDULE_TOKENS_DAY] = 1000}});
    struct schedule_quota_ticket a = {0}, b = {0};
    struct schedule_quota_refusal refusal = {0};
    assert_int_equal(schedule_quota_reserve(&q, &a, SCHEDULE_TOKENS, 60, start, &refusal), 0);
    schedule_quota_spend(&q, &a, SCHEDULE_TOKENS, 20, start); // prompt
    for (int i = 0; i < 30; i++)
        schedule_quota_spend(&q, &a, SCHEDULE_TOKENS, 1, start);
    assert_int_equal(q.reserved[SCHEDULE_TOKENS], 10);
    assert_int_equal(schedule_quota_window(&q, SCHEDULE_TOKENS_MINUTE, start).used, 50);
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_TOKENS, 1000, start, &refusal), -ERROR_AGAIN);
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_TOKENS, 41, start, &refusal), -ERROR_AGAIN);
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_TOKENS, 35, start, &refusal), 0); // 50 + 10 + 35 < 100
    assert_int_equal(schedule_quota_left(&q, &a, SCHEDULE_TOKENS, start), 15);                 // its 10, and nobody's 5
    assert_int_equal(schedule_quota_left(&q, &b, SCHEDULE_TOKENS, start), 40);
    schedule_quota_settle(&q, &a, SCHEDULE_TOKENS, 15, start); // more than it reserved
    schedule_quota_settle(&q, &b, SCHEDULE_TOKENS, 35, start);
    assert_int_equal(schedule_quota_reserve(&q, &a, SCHEDULE_TOKENS, 1, start, &refusal), -ERROR_QUOTA_EXCEEDED);
    assert_int_equal(refusal.limit, SCHEDULE_TOKENS_MINUTE);
    assert_int_equal(refusal.retry_ns, MINUTE_NS);
    assert_int_equal(schedule_quota_window(&q, SCHEDULE_COMPUTE_DAY, start).used, 0);
    struct schedule_quota_time next = after(start, MINUTE_NS);
    assert_int_equal(schedule_quota_reserve(&q, &a, SCHEDULE_TOKENS, 1, next, &refusal), 0);
    assert_int_equal(schedule_quota_window(&q, SCHEDULE_TOKENS_DAY, next).used, 100);
    schedule_quota_leave(&q, &a, next);
}

static void test_clock_jumps_are_bounded(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_HOUR] = 10}});
    use(&q, 10, start);
    struct schedule_quota_time back = {start.now_ns, start.wall_ns - 30 * DAY_NS};
    expect_refused(&q, back, -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_HOUR, 50 * MINUTE_NS);
    back = after(back, 50 * MINUTE_NS); // what was said is true
    use(&q, 10, back);
    struct schedule_quota_time forth = {back.now_ns, start.wall_ns + 400 * DAY_NS};
    use(&q, 10, forth); // one window's worth for the jump
    expect_refused(&q, forth, -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_HOUR, 50 * MINUTE_NS);
}

static void test_a_changed_limit_keeps_what_is_used(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_HOUR] = 10}});
    use(&q, 10, start);
    schedule_quota_set(&q, &(struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_HOUR] = 12}});
    use(&q, 1, start);
    use(&q, 1, start);
    expect_refused(&q, start, -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_HOUR, 50 * MINUTE_NS);
    schedule_quota_set(&q, &(struct schedule_quota_limits){.windows = {[SCHEDULE_COMPUTE_DAY] = 13}});
    use(&q, 1, start);
    expect_refused(&q, start, -ERROR_QUOTA_EXCEEDED, (enum schedule_quota_limit)SCHEDULE_COMPUTE_DAY,
                   DAY_NS - 5 * HOUR_NS - 10 * MINUTE_NS);
}

static void test_saved_and_restored(void **state)
{
    (void)state;
    struct schedule_quota_limits limits = {
        .requests = 60,
        .burst = 10,
        .windows = {[SCHEDULE_COMPUTE_HOUR] = 10, [SCHEDULE_COMPUTE_DAY] = 100},
        .flows = {[SCHEDULE_BYTES_IN] = 100, [SCHEDULE_BYTES_OUT] = 1000},
    };
    struct schedule_quota q = quota_of(limits), r = quota_of(limits);
    struct schedule_quota_ticket ticket = {0};
    schedule_quota_flow_in(&q, 700, start.now_ns);
    schedule_quota_flow_out(&q, &ticket, 9000, start.now_ns);
    for (int i = 0; i < 5; i++)
        use(&q, 1, start);
    struct schedule_quota_saved saved;
    schedule_quota_save(&q, start, &saved);
    struct schedule_quota_time reboot = {5, start.wall_ns + 2 * NS_PER_S}; // another boot: monotonic time begins again
    schedule_quota_restore(&r, &saved, reboot);
    assert_int_equal(schedule_quota_requests(&r, reboot).used, 3);
    assert_int_equal(schedule_quota_window(&r, SCHEDULE_COMPUTE_HOUR, reboot).used, 5);
    assert_int_equal(schedule_quota_window(&r, SCHEDULE_COMPUTE_DAY, after(reboot, HOUR_NS)).used, 5);
    assert_int_equal(schedule_quota_window(&r, SCHEDULE_COMPUTE_HOUR, after(reboot, HOUR_NS)).used, 0);
    assert_int_equal(schedule_quota_flow_wait(&r, SCHEDULE_BYTES_IN, reboot.now_ns), 4 * NS_PER_S);
    assert_int_equal(schedule_quota_flow_wait(&r, SCHEDULE_BYTES_OUT, reboot.now_ns), 6 * NS_PER_S);
}

static void test_any_saved_bytes_are_bounded(void **state)
{
    (void)state;
    struct schedule_quota_limits limits = {
        .requests = 60, .burst = 1, .windows = {[SCHEDULE_COMPUTE_HOUR] = 10}, .flows = {[SCHEDULE_BYTES_IN] = 1}};
    struct schedule_quota q = quota_of(limits);
    struct schedule_quota_saved saved;
    memset(&saved, 0xFF, sizeof saved);
    schedule_quota_restore(&q, &saved, start);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, start.now_ns), 60 * MINUTE_NS - NS_PER_S);
    struct schedule_quota_ticket t = {0};
    struct schedule_quota_refusal refusal = {0};
    assert_int_equal(schedule_quota_enter(&q, &t, start, &refusal), -ERROR_QUOTA_EXCEEDED);
    assert_int_equal(refusal.retry_ns, 50 * MINUTE_NS);     // one window, no longer
    expect_enter(&q, &t, after(start, 50 * MINUTE_NS + 1)); // and the rate one request
    schedule_quota_settle(&q, &t, SCHEDULE_COMPUTE, UINT64_MAX, after(start, 50 * MINUTE_NS + 1));
    schedule_quota_settle(&q, &t, SCHEDULE_COMPUTE, UINT64_MAX, after(start, 50 * MINUTE_NS + 1)); // no wrap to little
    schedule_quota_leave(&q, &t, start);
    assert_int_equal(schedule_quota_window(&q, SCHEDULE_COMPUTE_HOUR, after(start, 50 * MINUTE_NS + 1)).used,
                     UINT64_MAX);
}

static void test_bytes_per_second(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.flows = {[SCHEDULE_BYTES_IN] = 1000}});
    uint64_t now = start.now_ns;
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now), 0);
    schedule_quota_flow_in(&q, 1000, now); // a second's worth
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now), 0);
    schedule_quota_flow_in(&q, 500, now);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now), NS_PER_S / 2);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_OUT, now), 0);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now + NS_PER_S / 2 - 1),
                     1); // what was said is true
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now + NS_PER_S / 2), 0);
    assert_false(schedule_quota_fresh(&q, start));
    schedule_quota_flow_unread(&q, 500);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now), 0);
    schedule_quota_flow_unread(&q, UINT64_MAX);
    assert_true(schedule_quota_fresh(&q, start));
    for (int i = 0; i < 10; i++)
        schedule_quota_flow_in(&q, UINT64_MAX, now); // bounded
    assert_true(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now) <= HOUR_NS);
    schedule_quota_set(&q, &(struct schedule_quota_limits){.flows = {[SCHEDULE_BYTES_IN] = 999}});
    assert_true(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now) > 0);
    schedule_quota_set(&q, &(struct schedule_quota_limits){.flows = {[SCHEDULE_BYTES_IN] = 1000}});
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_IN, now), 0); // a higher limit begins anew
}

static void test_answers_are_expected_to_be_like_those_before(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.flows = {[SCHEDULE_BYTES_OUT] = 1000}});
    struct schedule_quota_ticket t[3] = {0};
    uint64_t now = start.now_ns;
    schedule_quota_flow_expect(&q, &t[0], now); // nothing is known yet
    schedule_quota_flow_out(&q, &t[0], 800, now);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_OUT, now), 0);
    schedule_quota_flow_expect(&q, &t[1], now);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_OUT, now), 600 * NS_PER_MS);
    schedule_quota_flow_expect(&q, &t[2], now);
    schedule_quota_leave(&q, &t[2], start); // cancelled: no answer
    schedule_quota_leave(&q, &t[2], start);
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_OUT, now), 600 * NS_PER_MS);
    schedule_quota_flow_out(&q, &t[1], 200, now); // smaller than expected
    assert_int_equal(schedule_quota_flow_wait(&q, SCHEDULE_BYTES_OUT, now), 0);
    schedule_quota_leave(&q, &t[1], start);
    assert_false(schedule_quota_fresh(&q, after(start, NS_PER_S - 1)));
    assert_true(schedule_quota_fresh(&q, after(start, NS_PER_S)));
}

/* --- random interleavings against a plain model --- */

static uint64_t seed_state;

static uint64_t next_random(void)
{
    seed_state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = seed_state;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
    return next_random() % n;
}

#define REQUESTS 24
#define COST_MAX (2 * NS_PER_S) /* of one request: the overrun that is allowed */

struct player {
    struct schedule_quota_ticket ticket;
    bool entered, reserved;
    uint64_t cost; /* what it will really use; it reserves as much or more */
};

struct world {
    struct schedule_quota q;
    struct schedule_quota_time time;
    struct player players[REQUESTS];
    uint64_t hour, day; /* the model's counters */
    uint64_t hour_number, day_number;
    bool limits_changed; /* today: perhaps to below what is used */
};

static void model_check(struct world *w)
{
    uint32_t active = 0, reserved = 0;
    uint64_t sum = 0;
    for (int i = 0; i < REQUESTS; i++) {
        active += w->players[i].entered;
        reserved += w->players[i].reserved;
        sum += w->players[i].ticket._reserved[SCHEDULE_COMPUTE];
    }
    assert_int_equal(w->q.active, active);
    assert_int_equal(w->q.n_reserved[SCHEDULE_COMPUTE], reserved);
    assert_int_equal(w->q.reserved[SCHEDULE_COMPUTE], sum);
    uint64_t hour = schedule_quota_window(&w->q, SCHEDULE_COMPUTE_HOUR, w->time).used;
    uint64_t day = schedule_quota_window(&w->q, SCHEDULE_COMPUTE_DAY, w->time).used;
    assert_int_equal(hour, w->hour);
    assert_int_equal(day, w->day);
    if (w->limits_changed)
        return;
    if (w->q.limits.windows[SCHEDULE_COMPUTE_HOUR])
        assert_true(hour < w->q.limits.windows[SCHEDULE_COMPUTE_HOUR] + COST_MAX);
    if (w->q.limits.windows[SCHEDULE_COMPUTE_DAY])
        assert_true(day < w->q.limits.windows[SCHEDULE_COMPUTE_DAY] + COST_MAX);
}

static bool used_up(const struct world *w)
{
    const uint64_t *limit = w->q.limits.windows;
    return (limit[SCHEDULE_COMPUTE_HOUR] && w->hour >= limit[SCHEDULE_COMPUTE_HOUR]) ||
           (limit[SCHEDULE_COMPUTE_DAY] && w->day >= limit[SCHEDULE_COMPUTE_DAY]);
}

static void play_enter(struct world *w, struct player *p)
{
    struct schedule_quota_refusal refusal = {0};
    bool full = w->q.limits.concurrency && w->q.active >= w->q.limits.concurrency;
    int code = schedule_quota_enter(&w->q, &p->ticket, w->time, &refusal);
    p->entered = code == 0;
    assert_true(code == 0 || code == -ERROR_QUOTA_EXCEEDED);
    assert_int_equal(code < 0, full || used_up(w)); // refused exactly when something is used up
    assert_true(code == 0 || refusal.retry_ns > 0);
}

static void play_reserve(struct world *w, struct player *p)
{
    struct schedule_quota_refusal refusal = {0};
    p->cost = 1 + below(COST_MAX);
    uint64_t amount = below(4) == 0 ? 0 : p->cost + below(NS_PER_S);
    uint32_t others = w->q.n_reserved[SCHEDULE_COMPUTE];
    int code = schedule_quota_reserve(&w->q, &p->ticket, SCHEDULE_COMPUTE, amount, w->time, &refusal);
    assert_int_equal(code == -ERROR_QUOTA_EXCEEDED, used_up(w));
    if (code == -ERROR_AGAIN)
        assert_true(others > 0); // never for its own reservation
    p->reserved = code == 0;
}

static void play_settle(struct world *w, struct player *p)
{
    uint64_t cost = below(8) == 0 ? 0 : p->cost; // a lease that was lost at once
    schedule_quota_settle(&w->q, &p->ticket, SCHEDULE_COMPUTE, cost, w->time);
    p->reserved = false;
    w->hour += cost;
    w->day += cost;
}

static void play_time(struct world *w)
{
    w->time = after(w->time, below(20) == 0 ? below(HOUR_NS) : below(NS_PER_S));
    if (w->time.wall_ns / HOUR_NS != w->hour_number)
        w->hour = 0;
    if (w->time.wall_ns / DAY_NS != w->day_number)
        w->day = 0;
    if (w->time.wall_ns / DAY_NS != w->day_number)
        w->limits_changed = false;
    w->hour_number = w->time.wall_ns / HOUR_NS;
    w->day_number = w->time.wall_ns / DAY_NS;
}

static void play_limits(struct world *w)
{
    struct schedule_quota_limits limits = {
        .concurrency = below(3) ? 1 + below(REQUESTS) : 0,
        .windows = {[SCHEDULE_COMPUTE_HOUR] = below(4) ? 1 + below(30 * NS_PER_S) : 0,
                    [SCHEDULE_COMPUTE_DAY] = below(4) ? 1 + below(200 * NS_PER_S) : 0},
    };
    w->limits_changed = true;
    schedule_quota_set(&w->q, &limits);
}

static void play_leave(struct world *w, struct player *p)
{
    if (p->reserved && below(2))
        play_settle(w, p);
    schedule_quota_leave(&w->q, &p->ticket, w->time); // answered, refused, cancelled, disconnected, timed out
    *p = (struct player){0};
}

static void play(uint64_t seed)
{
    struct world w = {.time = start};
    seed_state = seed;
    w.hour_number = w.time.wall_ns / HOUR_NS;
    w.day_number = w.time.wall_ns / DAY_NS;
    play_limits(&w);
    w.limits_changed = false;
    for (int step = 0; step < 600; step++) {
        struct player *p = &w.players[below(REQUESTS)];
        uint64_t what = below(100);
        if (what < 30 && !p->entered)
            play_enter(&w, p);
        else if (what < 55 && p->entered && !p->reserved)
            play_reserve(&w, p);
        else if (what < 70 && p->reserved)
            play_settle(&w, p);
        else if (what < 90)
            play_leave(&w, p);
        else if (what < 99)
            play_time(&w);
        else if (seed % 2)
            play_limits(&w);
        model_check(&w);
    }
    for (int i = 0; i < REQUESTS; i++)
        play_leave(&w, &w.players[i]);
    model_check(&w);
    assert_int_equal(w.q.active, 0);
    assert_true(schedule_quota_fresh(&w.q, after(w.time, 2 * DAY_NS)));
}

static void test_random_interleavings(void **state)
{
    (void)state;
    const char *given = getenv("BULKHEAD_SEED"), *count = getenv("BULKHEAD_QUOTA_SEEDS");
    uint64_t first = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 100000;
    uint64_t n = given ? 1 : count ? strtoull(count, NULL, 10) : 4000;
    printf("BULKHEAD_SEED=%llu … %llu\n", (unsigned long long)first, (unsigned long long)(first + n - 1));
    for (uint64_t i = 0; i < n; i++)
        play(first + i);
}

static void test_tokens_of_a_first_request_are_cut_to_the_rest(void **state)
{
    (void)state;
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_TOKENS_MINUTE] = 50}});
    struct schedule_quota_ticket a = {0}, b = {0};
    struct schedule_quota_refusal refusal = {0};
    assert_int_equal(schedule_quota_left(&q, &a, SCHEDULE_COMPUTE, start), UINT64_MAX);
    assert_int_equal(schedule_quota_reserve(&q, &a, SCHEDULE_TOKENS, 1000, start, &refusal), 0);
    assert_int_equal(schedule_quota_left(&q, &a, SCHEDULE_TOKENS, start), 50);
    assert_int_equal(schedule_quota_reserve(&q, &b, SCHEDULE_TOKENS, 1, start, &refusal), -ERROR_AGAIN);
    schedule_quota_spend(&q, &a, SCHEDULE_TOKENS, 20, start);
    assert_int_equal(schedule_quota_left(&q, &a, SCHEDULE_TOKENS, start), 30);
    struct schedule_quota_time next = after(start, MINUTE_NS);
    assert_int_equal(schedule_quota_left(&q, &a, SCHEDULE_TOKENS, next), 50); // a new window is there for it too
    assert_false(schedule_quota_room(&q, SCHEDULE_TOKENS, 21, next));
    assert_true(schedule_quota_room(&q, SCHEDULE_TOKENS, 20, next));
    schedule_quota_leave(&q, &a, next);
    assert_int_equal(q.reserved[SCHEDULE_TOKENS], 0);
    assert_true(schedule_quota_room(&q, SCHEDULE_TOKENS, 1000, next));
}

#define TALKERS 8

/* Each takes a token at a time while it may. Together they stay within the limit, and who got all it asked for is never
 * stopped before it has had it. */
static void talk(uint64_t seed)
{
    seed_state = seed;
    uint64_t limit = 1 + below(500);
    struct schedule_quota q = quota_of((struct schedule_quota_limits){.windows = {[SCHEDULE_TOKENS_DAY] = limit}});
    struct schedule_quota_ticket tickets[TALKERS] = {0};
    uint64_t amounts[TALKERS] = {0}, rests[TALKERS] = {0}, had[TALKERS] = {0}, spent = 0;
    for (int step = 0; step < 2000; step++) {
        uint64_t k = below(TALKERS);
        struct schedule_quota_refusal refusal = {0};
        if (amounts[k] == 0) {
            uint64_t amount = 1 + below(300), rest = limit - spent;
            uint32_t others = q.n_reserved[SCHEDULE_TOKENS];
            int code = schedule_quota_reserve(&q, &tickets[k], SCHEDULE_TOKENS, amount, start, &refusal);
            assert_int_equal(code == -ERROR_QUOTA_EXCEEDED, rest == 0);
            assert_true(code != -ERROR_AGAIN || others > 0);
            amounts[k] = code == 0 ? amount : 0;
            rests[k] = rest;
            had[k] = 0;
        } else if (below(50) == 0) { // done, or gone
            schedule_quota_leave(&q, &tickets[k], start);
            amounts[k] = 0;
        } else if (schedule_quota_left(&q, &tickets[k], SCHEDULE_TOKENS, start) > 0) {
            schedule_quota_spend(&q, &tickets[k], SCHEDULE_TOKENS, 1, start);
            spent++;
            had[k]++;
        } else {
            assert_true(had[k] >= (amounts[k] < rests[k] ? amounts[k] : rests[k]));
            schedule_quota_leave(&q, &tickets[k], start);
            amounts[k] = 0;
        }
        assert_true(spent <= limit);
    }
}

static void test_tokens_never_overrun(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++)
        talk(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limits_refuse_nothing),
        cmocka_unit_test(test_concurrency_at_its_limit),
        cmocka_unit_test(test_requests_and_refund),
        cmocka_unit_test(test_the_first_request_passes_and_the_next_window_is_free),
        cmocka_unit_test(test_the_longest_refusal_is_told),
        cmocka_unit_test(test_an_unknown_amount_keeps_the_rest),
        cmocka_unit_test(test_tokens_are_spent_in_steps),
        cmocka_unit_test(test_tokens_of_a_first_request_are_cut_to_the_rest),
        cmocka_unit_test(test_tokens_never_overrun),
        cmocka_unit_test(test_clock_jumps_are_bounded),
        cmocka_unit_test(test_a_changed_limit_keeps_what_is_used),
        cmocka_unit_test(test_saved_and_restored),
        cmocka_unit_test(test_any_saved_bytes_are_bounded),
        cmocka_unit_test(test_bytes_per_second),
        cmocka_unit_test(test_answers_are_expected_to_be_like_those_before),
        cmocka_unit_test(test_random_interleavings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
