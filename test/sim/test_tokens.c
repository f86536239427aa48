/* The Virtual Token Counter through random scenarios: tenants with prompts and answers of their own lengths come, wait,
 * leave and come back; a running batch of so many places and so much memory takes them step by step. In some a few
 * places are for those that have nothing in the batch.
 *
 * The model knows nothing of counters: it adds up what each tenant was served and holds that against the bound of
 * schedule/tokens.h for each pair, over every interval in which both waited at once. How much a prompt was thought too
 * long, and was not corrected yet, is allowed for exactly, and so is the rounding of 1/weight.
 *
 * So that a bound which nothing can break proves nothing, the same scenarios are played with faulty choices; each must
 * break it in some of them. */
#include "base/list.h"
#include "schedule/tokens.h"
#include "test/sim/sim.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TENANTS_MAX = 8, PLACES_MAX = 24, QUEUE_MAX = 64, STEPS = 1200 };
#define WEIGHTS_LCM 840 /* of 1 .. 8: shares are whole numbers */

enum fault {
    FAULT_NONE,
    FAULT_FIRST_COME,
    FAULT_TURNS,
    FAULT_NO_LIFT,
    FAULT_NO_WEIGHT,
    FAULT_NO_ANSWERS,
    FAULT_PASS,
    FAULT_COUNT
};

static const char *const fault_names[] = {"none",
                                          "first come, first served",
                                          "one each in turn",
                                          "no lift",
                                          "weights ignored",
                                          "answers not counted",
                                          "passing without end"};

struct request {
    uint32_t input, output; /* as they turn out */
    uint32_t expected;      /* before it is known */
    uint64_t arrival;
};

struct sequence {
    struct request r;
    struct schedule_tokens_ticket ticket;
    uint32_t tenant, done;
    bool known;
};

struct tenant {
    struct schedule_tokens_account account;
    struct request queue[QUEUE_MAX];
    uint32_t n_queued, weight, input_most, output_most, busy_percent;
    bool active;
    int64_t served;   /* weighted tokens × LCM / weight */
    int64_t too_much; /* likewise: charged now beyond what will turn out */
    uint64_t naive;   /* a faulty counter's */
};

struct world {
    struct sim_random random;
    struct schedule_tokens tokens;
    struct tenant tenants[TENANTS_MAX];
    struct sequence batch[PLACES_MAX];
    uint32_t n_tenants, n_batch, places, kept, memory, longest, memory_used, input_most;
    uint64_t arrivals, turns;
    int64_t too_much_most;
    int64_t least[TENANTS_MAX][TENANTS_MAX], most[TENANTS_MAX][TENANTS_MAX]; /* of the difference, since both wait */
    bool both[TENANTS_MAX][TENANTS_MAX];
    double nearest;
    bool broken;
};

struct sums {
    enum fault fault;
    bool estimated;
    double nearest;
    uint64_t n_broken, n_seeds, n_admitted;
};

static int64_t share(const struct tenant *t, uint64_t weighted)
{
    return (int64_t)(weighted * (WEIGHTS_LCM / t->weight));
}

static void queue_add(struct world *w, struct tenant *t, bool estimated)
{
    if (t->n_queued == QUEUE_MAX)
        return;
    struct request r = {.input = (uint32_t)sim_between(&w->random, 1, t->input_most),
                        .output = (uint32_t)sim_between(&w->random, 1, t->output_most),
                        .arrival = ++w->arrivals};
    r.expected = r.input;
    if (estimated)
        r.expected = (uint32_t)sim_between(&w->random, 1, 3 * r.input);
    t->queue[t->n_queued++] = r;
}

static void world_init(struct world *w, uint64_t seed, enum fault fault)
{
    memset(w, 0, sizeof *w);
    w->random.state = seed;
    w->n_tenants = (uint32_t)sim_between(&w->random, 2, TENANTS_MAX);
    w->places = (uint32_t)sim_between(&w->random, 1, PLACES_MAX);
    uint32_t input_most = (uint32_t)sim_scale(&w->random, 1, 400), output_most = (uint32_t)sim_scale(&w->random, 1, 60);
    for (uint32_t i = 0; i < w->n_tenants; i++) {
        struct tenant *t = &w->tenants[i];
        t->weight = (uint32_t)sim_between(&w->random, 1, 8);
        t->input_most = (uint32_t)sim_scale(&w->random, 1, input_most);
        t->output_most = (uint32_t)sim_scale(&w->random, 1, output_most);
        t->busy_percent = (uint32_t)sim_between(&w->random, 30, 100);
        w->input_most = t->input_most > w->input_most ? t->input_most : w->input_most;
        w->longest = t->input_most + t->output_most > w->longest ? t->input_most + t->output_most : w->longest;
    }
    w->kept = sim_chance(&w->random, 50) ? (uint32_t)sim_between(&w->random, 0, w->places - 1) : 0;
    w->kept = fault == FAULT_PASS ? w->places - 1 : w->kept;
    /* Any request fits alone. */
    w->memory = (uint32_t)sim_between(&w->random, input_most + output_most, (input_most + output_most) * w->places);
}

/* --- who is next --- */

static struct tenant *pick_naive(struct world *w, enum fault fault)
{
    struct tenant *best = NULL;
    for (uint32_t k = 0; k < w->n_tenants; k++) {
        struct tenant *t = &w->tenants[(w->turns + k) % w->n_tenants];
        if (t->n_queued == 0)
            continue;
        if (!best || (fault == FAULT_FIRST_COME && t->queue[0].arrival < best->queue[0].arrival) ||
            (fault != FAULT_FIRST_COME && fault != FAULT_TURNS && t->naive < best->naive))
            best = t;
    }
    return best;
}

static bool holds(const struct world *w, const struct tenant *t)
{
    for (uint32_t i = 0; i < w->n_batch; i++)
        if (&w->tenants[w->batch[i].tenant] == t)
            return true;
    return false;
}

/* Whether it may have one of the places that are left: the last ones are for who has none. */
static bool is_open(const struct world *w, const struct tenant *t)
{
    bool some_hold_none = false;
    for (uint32_t i = 0; i < w->n_tenants; i++)
        some_hold_none = some_hold_none || !holds(w, &w->tenants[i]);
    return w->n_batch + w->kept < w->places || !some_hold_none || !holds(w, t);
}

static struct tenant *pick(struct world *w, enum fault fault)
{
    if (fault != FAULT_NONE && fault != FAULT_PASS)
        return pick_naive(w, fault);
    struct schedule_tokens_account *a = schedule_tokens_next(&w->tokens);
    struct tenant *next = a ? container_of(a, struct tenant, account) : NULL, *best = NULL;
    if (!next || is_open(w, next))
        return next;
    struct schedule_tokens_barred barred = {.weight = next->weight, .expected = next->queue[0].expected};
    for (uint32_t i = 0; i < w->n_tenants; i++) {
        struct tenant *t = &w->tenants[i];
        if (t->account.waits && is_open(w, t) && (!best || t->account.count < best->account.count) &&
            (fault == FAULT_PASS ||
             schedule_tokens_may_pass(&w->tokens, &t->account, t->weight, w->memory - w->longest, &barred)))
            best = t;
    }
    return best;
}

/* What a faulty scheduler counts; with `no lift` it is right but for that. */
static void naive_count(struct world *w, struct tenant *t, enum fault fault, uint32_t input, uint32_t output)
{
    uint64_t weighted = input * SCHEDULE_TOKEN_INPUT + (fault == FAULT_NO_ANSWERS ? 0 : output * SCHEDULE_TOKEN_OUTPUT);
    (void)w;
    t->naive += fault == FAULT_NO_WEIGHT ? weighted * WEIGHTS_LCM : (uint64_t)share(t, weighted);
}

static void naive_lift(struct world *w, struct tenant *t, enum fault fault)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < w->n_tenants; i++)
        if (&w->tenants[i] != t && w->tenants[i].n_queued > 0 && w->tenants[i].naive < least)
            least = w->tenants[i].naive;
    if (fault != FAULT_NO_LIFT && least != UINT64_MAX && t->naive < least)
        t->naive = least;
}

/* --- a step --- */

static void admit(struct world *w, struct tenant *t, enum fault fault)
{
    struct sequence *s = &w->batch[w->n_batch++];
    *s = (struct sequence){.r = t->queue[0], .tenant = (uint32_t)(t - w->tenants)};
    memmove(t->queue, t->queue + 1, --t->n_queued * sizeof *t->queue);
    w->memory_used += s->r.input + s->r.output;
    w->turns = s->tenant + 1;
    schedule_tokens_admit(&w->tokens, &t->account, &s->ticket, t->weight, s->r.expected);
    if (t->n_queued == 0)
        schedule_tokens_leave(&w->tokens, &t->account);
    t->served += share(t, s->r.input * SCHEDULE_TOKEN_INPUT);
    if (s->r.expected > s->r.input)
        t->too_much += share(t, (s->r.expected - s->r.input) * SCHEDULE_TOKEN_INPUT);
    w->too_much_most = t->too_much > w->too_much_most ? t->too_much : w->too_much_most;
    naive_count(w, t, fault, s->r.input, 0);
}

static void step(struct world *w, enum fault fault)
{
    for (uint32_t i = w->n_batch; i-- > 0;) {
        struct sequence *s = &w->batch[i];
        struct tenant *t = &w->tenants[s->tenant];
        if (!s->known) {
            s->known = true;
            schedule_tokens_input(&w->tokens, &t->account, &s->ticket, s->r.input);
            if (s->r.expected > s->r.input)
                t->too_much -= share(t, (s->r.expected - s->r.input) * SCHEDULE_TOKEN_INPUT);
        }
        uint32_t n = (uint32_t)sim_between(&w->random, 1, 3); /* of one event */
        n = n < s->r.output - s->done ? n : s->r.output - s->done;
        s->done += n;
        schedule_tokens_output(&w->tokens, &t->account, &s->ticket, n);
        t->served += share(t, n * SCHEDULE_TOKEN_OUTPUT);
        naive_count(w, t, fault, 0, n);
        if (s->done < s->r.output && !sim_chance(&w->random, 1)) /* now and then a client leaves */
            continue;
        w->memory_used -= s->r.input + s->r.output;
        *s = w->batch[--w->n_batch];
    }
}

static void arrive(struct world *w, bool estimated, enum fault fault)
{
    for (uint32_t i = 0; i < w->n_tenants; i++) {
        struct tenant *t = &w->tenants[i];
        if (sim_chance(&w->random, 1))
            t->active = sim_chance(&w->random, t->busy_percent);
        uint64_t n = t->active ? sim_between(&w->random, 0, 3) : 0;
        bool waited = t->n_queued > 0;
        for (; n > 0; n--)
            queue_add(w, t, estimated);
        if (sim_chance(&w->random, 1) && t->n_queued > 0)
            t->n_queued--; /* gave up waiting */
        if (t->n_queued > 0 && !waited) {
            naive_lift(w, t, fault);
            schedule_tokens_wait(&w->tokens, &t->account);
        } else if (t->n_queued == 0) {
            schedule_tokens_leave(&w->tokens, &t->account);
            if (sim_chance(&w->random, 20))
                schedule_tokens_forget(&w->tokens, &t->account); /* as if its last version went; it may come back */
        }
    }
}

/* --- the bound --- */

static void pair_check(struct world *w, uint32_t f, uint32_t g)
{
    const struct tenant *a = &w->tenants[f], *b = &w->tenants[g];
    bool both = a->n_queued > 0 && b->n_queued > 0;
    int64_t difference = a->served - b->served;
    if (both && !w->both[f][g])
        w->least[f][g] = w->most[f][g] = difference;
    w->both[f][g] = both;
    if (!both)
        return;
    w->least[f][g] = difference < w->least[f][g] ? difference : w->least[f][g];
    w->most[f][g] = difference > w->most[f][g] ? difference : w->most[f][g];
    uint64_t input = w->input_most * SCHEDULE_TOKEN_INPUT, held = w->memory * SCHEDULE_TOKEN_OUTPUT;
    uint64_t u = input > held ? input : held;
    int64_t rounding = (a->served + b->served) / 100000 + WEIGHTS_LCM;
    int64_t bound = share(a, u) + share(b, u) + 2 * w->too_much_most + rounding;
    double ratio = (double)(w->most[f][g] - w->least[f][g]) / (double)bound;
    w->nearest = ratio > w->nearest ? ratio : w->nearest;
    w->broken = w->broken || ratio > 1;
}

static void pairs_check(struct world *w)
{
    for (uint32_t f = 0; f < w->n_tenants; f++)
        for (uint32_t g = f + 1; g < w->n_tenants; g++)
            pair_check(w, f, g);
}

static void play(uint64_t seed, void *ctx)
{
    struct sums *sums = ctx;
    struct world *w = malloc(sizeof *w);
    sim_require(w != NULL, "out of memory");
    world_init(w, seed, sums->fault);
    for (uint32_t i = 0; i < STEPS && !w->broken; i++) {
        arrive(w, sums->estimated, sums->fault);
        pairs_check(w);
        for (struct tenant *t; w->n_batch < w->places && (t = pick(w, sums->fault));) {
            if (w->memory - w->memory_used < t->queue[0].input + t->queue[0].output)
                break; /* it waits for memory, and others with it */
            admit(w, t, sums->fault);
            sums->n_admitted++;
            pairs_check(w);
        }
        /* Nobody who waits is passed over while there is a place for whom the counters name. */
        sim_require(sums->fault != FAULT_NONE || !schedule_tokens_next(&w->tokens) || w->n_batch > 0, "idle");
        step(w, sums->fault);
        pairs_check(w);
    }
    sim_require(sums->fault != FAULT_NONE || !w->broken, "the bound is broken: %.3f of it", w->nearest);
    sums->nearest = w->nearest > sums->nearest ? w->nearest : sums->nearest;
    sums->n_broken += w->broken;
    sums->n_seeds++;
    free(w);
}

#define SEEDS       2000u
#define SEEDS_FAULT 100u
#define SEEDS_ALL   (2 * SEEDS + (FAULT_COUNT - 1) * SEEDS_FAULT)

static void test_bound(void **state)
{
    struct sums sums = {.estimated = *state != NULL};
    sim_run(sums.estimated ? "lengths of prompts estimated" : "lengths of prompts known", SEEDS, SEEDS_ALL, play,
            &sums);
    printf("#   %" PRIu64 " sequences, nearest to its bound: %.3f\n", sums.n_admitted, sums.nearest);
    assert_int_equal(sums.n_broken, 0);
}

static void test_faults_break_it(void **state)
{
    (void)state;
    for (enum fault fault = FAULT_NONE + 1; fault < FAULT_COUNT; fault++) {
        struct sums sums = {.fault = fault};
        sim_run(fault_names[fault], SEEDS_FAULT, SEEDS_ALL, play, &sums);
        printf("#   broken in %" PRIu64 " of %" PRIu64 "\n", sums.n_broken, sums.n_seeds);
        if (sums.n_seeds == SEEDS_FAULT)
            assert_true(sums.n_broken > 0);
    }
}

int main(void)
{
    static bool estimated = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        {"test_bound_estimated", test_bound, NULL, NULL, &estimated},
        cmocka_unit_test(test_faults_break_it),
    };
    return cmocka_run_group_tests_name("tokens", tests, NULL, NULL);
}
