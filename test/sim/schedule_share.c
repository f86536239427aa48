#include "test/sim/schedule_world.h"

void share_init(struct group *group, uint32_t n, uint32_t slots, struct member *members, struct pair *pairs,
                double *since)
{
    *group = (struct group){.n = n, .slots = slots, .members = members, .pairs = pairs, .since = since};
}

void share_joined(struct group *group, uint32_t index)
{
    group->members[index] = (struct member){0};
    for (uint32_t i = 0; i < group->n; i++)
        group->since[i * group->n + index] = 0;
}

static struct pair *pair_of(const struct group *group, uint32_t a, uint32_t b, double *ret_difference)
{
    double difference = group->members[a].charged - group->members[b].charged;
    *ret_difference = a < b ? difference : -difference;
    return a < b ? &group->pairs[a * group->n + b] : &group->pairs[b * group->n + a];
}

void share_runnable(struct group *group, uint32_t index, bool runnable)
{
    struct member *m = &group->members[index];
    bool was = m->runnable;
    m->runnable = runnable;
    if (was || !runnable)
        return;
    for (uint32_t i = 0; i < group->n; i++) {
        if (i == index)
            continue;
        double difference;
        struct pair *pair = pair_of(group, index, i, &difference);
        if (group->members[i].runnable)
            *pair = (struct pair){difference, difference};
        group->since[index * group->n + i] = group->members[i].charged;
    }
}

/* How far an account may lie from where virtual time is, in either direction together. */
static double width(const struct group *group, uint32_t index)
{
    const struct member *m = &group->members[index];
    return group->slots * (m->longest + m->undercharged + m->overcharged);
}

/* Sums of doubles, weights rounded to 32 bits, keys to sixteenths of a nanosecond. */
static double with_tolerance(double bound)
{
    return bound * 1.000001 + 2;
}

/* A bound is broken. That ends the program, unless a deliberate fault is to break it: whose scenario goes on. */
#define share_require(w, what, ...)         \
    do {                                    \
        if ((w)->profile.credit)            \
            (w)->counts.broken += !(what);  \
        else                                \
            sim_require(what, __VA_ARGS__); \
    } while (0)

/* The share bound of DESIGN §6, over every interval at once: while both stay runnable, the difference of their accounts
 * may not move by more than the widths of both. */
static void check_bound(struct world *w, struct group *group, uint32_t index, const char *what)
{
    if (!group->members[index].runnable)
        return;
    for (uint32_t i = 0; i < group->n; i++) {
        if (i == index || !group->members[i].runnable)
            continue;
        double difference;
        struct pair *pair = pair_of(group, index, i, &difference);
        pair->least = difference < pair->least ? difference : pair->least;
        pair->most = difference > pair->most ? difference : pair->most;
        double bound = width(group, index) + width(group, i);
        share_require(w, pair->most - pair->least <= with_tolerance(bound),
                      "share bound: %s %u and %u moved apart by %.0f, allowed are %.0f", what, index, i,
                      pair->most - pair->least, bound);
        if (bound > 0 && (pair->most - pair->least) / bound > w->share_nearest)
            w->share_nearest = (pair->most - pair->least) / bound;
        const struct member *a = &group->members[index], *b = &group->members[i];
        w->counts.pairs_checked++;
        w->counts.pairs_exact += a->undercharged + a->overcharged + b->undercharged + b->overcharged == 0;
    }
}

/* Nobody that could run is passed over for long, whoever comes and goes meanwhile: since it was served last, any other
 * has got at most what it may lie behind, and what the passed-over one may lie ahead. */
static void check_nobody_starves(struct world *w, struct group *group, uint32_t served, const char *what)
{
    for (uint32_t i = 0; i < group->n; i++) {
        if (i == served || !group->members[i].runnable)
            continue;
        double got = group->members[served].charged - group->since[i * group->n + served];
        double bound = width(group, i) + width(group, served);
        share_require(w, got <= with_tolerance(bound), "starvation: %s %u waits while %u got %.0f, allowed are %.0f",
                      what, i, served, got, bound);
        if (bound > 0 && got / bound > w->starve_nearest)
            w->starve_nearest = got / bound;
    }
    for (uint32_t i = 0; i < group->n; i++)
        group->since[served * group->n + i] = group->members[i].charged;
}

void share_charged(struct world *w, struct group *group, uint32_t index, const char *what, uint32_t slots,
                   double time_ns)
{
    struct member *m = &group->members[index];
    m->longest = time_ns > m->longest ? time_ns : m->longest;
    m->charged += time_ns * slots;
    check_bound(w, group, index, what);
    check_nobody_starves(w, group, index, what);
}

void share_corrected(struct world *w, struct group *group, uint32_t index, const char *what, uint32_t slots,
                     double charged_ns, double measured_ns)
{
    struct member *m = &group->members[index];
    m->longest = measured_ns > m->longest ? measured_ns : m->longest;
    m->undercharged = measured_ns - charged_ns > m->undercharged ? measured_ns - charged_ns : m->undercharged;
    m->overcharged = charged_ns - measured_ns > m->overcharged ? charged_ns - measured_ns : m->overcharged;
    m->charged += (measured_ns - charged_ns) * slots;
    check_bound(w, group, index, what);
}
