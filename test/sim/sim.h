/* What every simulation shares: a seeded random source, the loop over seeds, and failing with the seed that did it.
 *
 *   BULKHEAD_SIM_SEEDS=n   how many seeds a program plays over all its tests (default: the tests' own numbers)
 *   BULKHEAD_SIM_SEED=n    plays just this one, in every test
 *   BULKHEAD_SIM_VERBOSE=1 prints one line per step
 *
 * The first seed is random and printed; a scenario depends on its seed and on nothing else, so a failure printed by one
 * machine can be played again on another. Failing ends the program: what comes after a broken rule means nothing. */
#ifndef BULKHEAD_TEST_SIM_SIM_H
#define BULKHEAD_TEST_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

uint64_t sim_next(struct sim_random *r);
/* 0 .. n − 1; n ≥ 1. */
uint64_t sim_below(struct sim_random *r, uint64_t n);
/* least .. most, both included. */
uint64_t sim_between(struct sim_random *r, uint64_t least, uint64_t most);
/* least .. most, each power of two as likely as any other; least ≥ 1. */
uint64_t sim_scale(struct sim_random *r, uint64_t least, uint64_t most);
bool sim_chance(struct sim_random *r, uint32_t percent);

/* Plays `play(seed, ctx)` for n_seeds seeds; where the environment gives a number for the whole program, for this
 * test's part of it: n_seeds of n_seeds_program. */
void sim_run(const char *name, uint64_t n_seeds, uint64_t n_seeds_program, void (*play)(uint64_t seed, void *ctx),
             void *ctx);

/* A rule was broken: says so with the seed being played, and exits. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define sim_require(what, ...)     \
    do {                           \
        if (!(what))               \
            sim_fail(__VA_ARGS__); \
    } while (0)

/* Prints when BULKHEAD_SIM_VERBOSE is set. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
