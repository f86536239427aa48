/* What a lease of so many rows will take, learned from those that ended.
 *
 * One smoothed value per power of two of rows: inference time over rows is neither linear nor monotone (kernels switch
 * at sizes), so a fitted line would be wrong in the middle. A sample moves the value by a quarter of the difference and
 * counts at most four times the present value, so that one stall (a stopped machine, a page-in) is forgotten within a
 * few leases; a lasting slow-down still takes over in a few. */
#include "schedule/schedule_internal.h"

static uint32_t rows_class(uint32_t rows)
{
    uint32_t class = rows <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(rows - 1);
    return class < SCHEDULE_ROW_CLASSES ? class : SCHEDULE_ROW_CLASSES - 1;
}

uint64_t schedule_estimate_known(const struct schedule_target *g, uint32_t rows)
{
    return g->_estimate_ns[rows_class(rows)];
}

uint64_t schedule_estimate_floor(const struct schedule_target *g, uint32_t rows)
{
    for (uint32_t class = rows_class(rows) + 1; class -- > 0;) {
        if (g->_estimate_ns[class])
            return g->_estimate_ns[class];
    }
    return 0;
}

uint64_t schedule_estimate(const struct schedule_target *g, uint32_t rows)
{
    uint64_t floor_ns = schedule_estimate_floor(g, rows);
    if (floor_ns)
        return floor_ns;
    for (uint32_t class = rows_class(rows) + 1; class < SCHEDULE_ROW_CLASSES; class ++) {
        if (g->_estimate_ns[class])
            return g->_estimate_ns[class];
    }
    return 0;
}

void schedule_estimate_learn(struct schedule_target *g, uint32_t rows, uint64_t time_ns)
{
    uint64_t *estimate_ns = &g->_estimate_ns[rows_class(rows)];
    uint64_t sample_ns = time_ns < SCHEDULE_CHARGE_NS_MAX ? time_ns : SCHEDULE_CHARGE_NS_MAX;
    if (!sample_ns)
        sample_ns = 1; /* 0 means unknown */
    if (!*estimate_ns)
        *estimate_ns = sample_ns;
    if (sample_ns > *estimate_ns * 4)
        sample_ns = *estimate_ns * 4;
    *estimate_ns = *estimate_ns - *estimate_ns / 4 + sample_ns / 4;
    if (!*estimate_ns)
        *estimate_ns = sample_ns;
    g->estimate_ns = schedule_estimate(g, 1);
}

uint64_t schedule_estimate_cost(const struct schedule_target *g, uint32_t rows)
{
    uint64_t time_ns = schedule_estimate(g, rows);
    return (time_ns ? time_ns : SCHEDULE_CHARGE_NS_UNKNOWN) * g->slots; /* samples are ≤ SCHEDULE_CHARGE_NS_MAX */
}
