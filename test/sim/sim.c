#include "test/sim/sim.h"

#include "base/random.h"
#include "base/str.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *playing_name;
static uint64_t playing_seed;
static bool verbose;

/* Sanitizers call this before they end the process; absent in a build without them. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

uint64_t sim_next(struct sim_random *r) // splitmix64 (Steele, Lea, Flood 2014)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_below(struct sim_random *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)sim_next(r) * n) >> 64);
}

uint64_t sim_between(struct sim_random *r, uint64_t least, uint64_t most)
{
    return least + sim_below(r, most - least + 1);
}

uint64_t sim_scale(struct sim_random *r, uint64_t least, uint64_t most)
{
    uint64_t n_doublings = 0;
    while (n_doublings < 63 && (least << n_doublings) <= most / 2)
        n_doublings++;
    uint64_t from = least << sim_below(r, n_doublings + 1);
    return sim_between(r, from, from <= most / 2 ? from * 2 - 1 : most);
}

bool sim_chance(struct sim_random *r, uint32_t percent)
{
    return sim_below(r, 100) < percent;
}

static void say_seed(void)
{
    fprintf(stderr, "%s: seed %" PRIu64 " failed; again with BULKHEAD_SIM_SEED=%" PRIu64 "\n", playing_name,
            playing_seed, playing_seed);
}

static void on_abort(int number)
{
    (void)number;
    say_seed(); // not signal-safe; the process is lost anyway, and an assert interrupts no stdio of ours
}

void sim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    say_seed();
    _exit(1);
}

void sim_trace(const char *format, ...)
{
    if (!verbose)
        return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

static bool number_from_environment(const char *name, uint64_t *ret_value)
{
    const char *text = getenv(name);
    if (!text)
        return false;
    if (str_to_u64(str_from(text), ret_value) < 0)
        sim_fail("%s is not a number: %s", name, text);
    return true;
}

void sim_run(const char *name, uint64_t n_seeds, uint64_t n_seeds_program, void (*play)(uint64_t seed, void *ctx),
             void *ctx)
{
    playing_name = name;
    verbose = getenv("BULKHEAD_SIM_VERBOSE") != NULL;
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGABRT, &action, NULL); // without it a failed assert only lacks its seed
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(say_seed);

    uint64_t first = random_u64() >> 16; // short enough to type
    uint64_t n_wanted;
    if (number_from_environment("BULKHEAD_SIM_SEED", &first))
        n_seeds = 1;
    else if (number_from_environment("BULKHEAD_SIM_SEEDS", &n_wanted))
        n_seeds = (uint64_t)(((unsigned __int128)n_wanted * n_seeds + n_seeds_program - 1) / n_seeds_program);
    printf("# %s: %" PRIu64 " seeds from %" PRIu64 "\n", name, n_seeds, first);
    fflush(stdout);
    for (uint64_t i = 0; i < n_seeds; i++) {
        playing_seed = first + i;
        play(playing_seed, ctx);
    }
}
