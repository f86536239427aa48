#include "schedule/schedule.h"
#include "schedule/schedule_internal.h"

#include "base/clock.h"

void schedule_rate_set(struct schedule_rate *r, uint64_t per_minute, uint64_t burst)
{
    /* Rounded up, so that never more than per_minute pass in a minute. */
    r->interval_ns = per_minute ? (60 * NS_PER_S - 1) / per_minute + 1 : 0;
    uint64_t tolerance = burst ? burst - 1 : 0;
    if (__builtin_mul_overflow(tolerance, r->interval_ns, &r->burst_ns) || r->burst_ns > SCHEDULE_TIME_MAX)
        r->burst_ns = SCHEDULE_TIME_MAX;
}

int schedule_rate_take(struct schedule_rate *r, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    if (!r->interval_ns)
        return 0;
    uint64_t arrival_ns = r->arrival_ns > now_ns ? r->arrival_ns : now_ns;
    /* The state furthest ahead that these limits can reach: one set under a slower rate must not block for longer. */
    uint64_t furthest_ns = now_ns + r->burst_ns + r->interval_ns;
    if (arrival_ns > furthest_ns)
        arrival_ns = furthest_ns;
    if (arrival_ns - now_ns > r->burst_ns) {
        r->arrival_ns = arrival_ns;
        *ret_retry_ns = arrival_ns - now_ns - r->burst_ns;
        return -ERROR_RATE_LIMITED;
    }
    r->arrival_ns = arrival_ns + r->interval_ns;
    return 0;
}
