/* The scheduler through random scenarios. Every test is one profile of what may happen; every seed draws slots,
 * tenants and events anew. What is checked stands in schedule_world.h. */
#include "test/sim/schedule_world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct profile profiles[] = {
    {.name = "steady", .exact = true, .steady = true, .tenants_most = 8, .seeds = 50},
    {.name = "exact", .exact = true, .tenants_most = 12, .steps = 400, .seeds = 500},
    {.name = "exact_churn",
     .exact = true,
     .churn = true,
     .deadlines = true,
     .tenants_most = 20,
     .steps = 300,
     .seeds = 500},
    {.name = "misestimated", .failures = true, .tenants_most = 12, .steps = 400, .seeds = 500},
    {.name = "batched", .delays = true, .deadlines = true, .tenants_most = 6, .steps = 400, .seeds = 500},
    {.name = "classes", .exact = true, .classes = true, .tenants_most = 8, .steps = 400, .seeds = 500},
    {.name = "critical",
     .exact = true,
     .classes = true,
     .preempt = true,
     .tenants_most = 6,
     .steps = 400,
     .seeds = 500},
    {.name = "overload",
     .classes = true,
     .overload = true,
     .deadlines = true,
     .tenants_most = 10,
     .steps = 300,
     .seeds = 500},
    {.name = "fifo",
     .fifo = true,
     .failures = true,
     .overload = true,
     .churn = true,
     .delays = true,
     .tenants_most = 10,
     .steps = 300,
     .seeds = 500},
    {.name = "away", .exact = true, .steady = true, .away = true, .tenants_most = 8, .seeds = 50},
    {.name = "away_and_keeps_its_credit",
     .exact = true,
     .steady = true,
     .away = true,
     .credit = true,
     .tenants_most = 8,
     .seeds = 50},
    {.name = "crowd", .exact = true, .steady = true, .crowd = true, .seeds = 1},
    {.name = "seats_steady", .exact = true, .steady = true, .seats = true, .tenants_most = 8, .seeds = 200},
    {.name = "seats", .exact = true, .seats = true, .tenants_most = 8, .steps = 400, .seeds = 500},
    {.name = "seats_misestimated",
     .failures = true,
     .seats = true,
     .churn = true,
     .classes = true,
     .deadlines = true,
     .tenants_most = 12,
     .steps = 400,
     .seeds = 500},
    {.name = "everything",
     .seats = true,
     .failures = true,
     .deadlines = true,
     .churn = true,
     .delays = true,
     .classes = true,
     .preempt = true,
     .overload = true,
     .tenants_most = TENANTS_MAX,
     .steps = 300,
     .seeds = 500},
};

enum { N_PROFILES = sizeof profiles / sizeof *profiles };

struct sums {
    const struct profile *profile;
    struct counts counts;
    double share_nearest, starve_nearest;
};

static void add(struct counts *sum, const struct counts *c)
{
    sum->submitted += c->submitted;
    sum->full += c->full;
    sum->hopeless += c->hopeless;
    sum->completed += c->completed;
    sum->cancelled += c->cancelled;
    sum->expired += c->expired;
    sum->flushed += c->flushed;
    sum->lost += c->lost;
    sum->leases += c->leases;
    sum->pairs_checked += c->pairs_checked;
    sum->pairs_exact += c->pairs_exact;
    sum->probes += c->probes;
    sum->jumps += c->jumps;
    sum->reserved += c->reserved;
    sum->overloaded += c->overloaded;
    sum->shed += c->shed;
    sum->due += c->due;
    sum->preempted += c->preempted;
    sum->requeued += c->requeued;
    sum->cut += c->cut;
    sum->held += c->held;
    sum->split += c->split;
    sum->broken += c->broken;
}

static void play_seed(uint64_t seed, void *ctx)
{
    struct sums *sums = ctx;
    if (sums->profile->crowd) {
        play_crowd(seed, &sums->counts, &sums->share_nearest);
        return;
    }
    struct world *w = malloc(sizeof *w);
    sim_require(w != NULL, "out of memory");
    struct sim_random random = {seed};
    uint32_t slots = sums->profile->away || sim_chance(&random, 25) ? 1 : (uint32_t)sim_between(&random, 2, SLOTS_MAX);
    world_init(w, sim_next(&random), sums->profile, slots);
    if (sums->profile->steady && sums->profile->seats)
        play_seats(w);
    else if (sums->profile->away)
        play_away(w);
    else if (sums->profile->steady)
        play_steady(w);
    else
        play(w);
    world_done(w);
    sim_require(!sums->profile->credit || w->counts.broken > 0, "a fault that breaks the share bound is not found");
    add(&sums->counts, &w->counts);
    sums->share_nearest = w->share_nearest > sums->share_nearest ? w->share_nearest : sums->share_nearest;
    sums->starve_nearest = w->starve_nearest > sums->starve_nearest ? w->starve_nearest : sums->starve_nearest;
    free(w);
}

static void test_profile(void **state)
{
    struct sums sums = {.profile = *state};
    uint64_t n_seeds_program = 0;
    for (size_t i = 0; i < N_PROFILES; i++)
        n_seeds_program += profiles[i].seeds;
    sim_run(sums.profile->name, sums.profile->seeds, n_seeds_program, play_seed, &sums);
    const struct counts *c = &sums.counts;
    printf("#   requests %" PRIu64 ": completed %" PRIu64 " cancelled %" PRIu64 " expired %" PRIu64 " flushed %" PRIu64
           " lost %" PRIu64 " shed %" PRIu64 "; refused: full %" PRIu64 " hopeless %" PRIu64 " overloaded %" PRIu64
           "\n",
           c->submitted, c->completed, c->cancelled, c->expired, c->flushed, c->lost, c->shed, c->full, c->hopeless,
           c->overloaded);
    printf("#   leases %" PRIu64 ", share checks %" PRIu64 " (%" PRIu64 " with exact charges), probes %" PRIu64
           ", late clocks %" PRIu64 ", turns kept %" PRIu64 "\n",
           c->leases, c->pairs_checked, c->pairs_exact, c->probes, c->jumps, c->reserved);
    printf("#   due to lower classes %" PRIu64 ", pre-empted %" PRIu64 ", re-queued %" PRIu64
           ", cut to a preferred size %" PRIu64 ", on shared workers %" PRIu64 ", split %" PRIu64
           ", found of a deliberate fault %" PRIu64 "\n",
           c->due, c->preempted, c->requeued, c->cut, c->held, c->split, c->broken);
    printf("#   nearest to its bound: share %.3f, starvation %.3f\n", sums.share_nearest, sums.starve_nearest);
    fflush(stdout);
}

int main(void)
{
    struct CMUnitTest tests[N_PROFILES];
    for (size_t i = 0; i < N_PROFILES; i++)
        tests[i] = (struct CMUnitTest){profiles[i].name, test_profile, NULL, NULL, (void *)&profiles[i]};
    cmocka_set_test_filter(getenv("BULKHEAD_SIM_PROFILE"));
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
