/* How long a critical request waits at most, in numbers: the formula of docs/edge.md, on a virtual clock. */
#include "test/unit/schedule/fixture.h"

enum { LONG_MS = 40, SHORT_MS = 3, CRITICAL = 0, OTHERS = 3, TURNS = 20000, CRITICAL_PLACES = 64 };

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

struct run {
    struct world w;
    struct schedule_lease *running;
    uint64_t ends_ns, preempt_ns; /* preempt_ns: how long a lease that is given up still takes */
    bool cancellable;
};

static void run_init(struct run *run, bool cancellable)
{
    *run = (struct run){.cancellable = cancellable, .preempt_ns = 1 * MS};
    world_init(&run->w, 1);
    for (uint32_t i = 0; i <= OTHERS; i++) {
        world_tenant(&run->w, i, 1, 1, 1);
        schedule_target_set(run->w.s, &run->w.targets[i], &run->w.tenants[i],
                            &(struct schedule_target_config){.slots = 1, .cancellable = cancellable});
        world_teach(&run->w, i, 1, (i == CRITICAL ? SHORT_MS : LONG_MS) * MS);
    }
    run->w.n_requests = CRITICAL_PLACES;
}

/* Two requests of each lower tenant always wait: full load of both lower classes. The first places of w->requests are
 * the critical ones'; a place without a target is free. */
static void feed(struct run *run)
{
    struct world *w = &run->w;
    for (uint32_t i = 1; i <= OTHERS; i++)
        while (w->targets[i].queued < 2) {
            do
                w->n_requests = w->n_requests + 1 < WORLD_REQUESTS ? w->n_requests + 1 : CRITICAL_PLACES;
            while (w->requests[w->n_requests].target);
            struct schedule_request *r = world_request(w, i);
            r->priority = i == 1 ? SCHEDULE_INTERACTIVE : SCHEDULE_BATCH;
            assert_int_equal(schedule_submit(w->s, r, w->now_ns, NULL), 0);
        }
}

static void dispatch(struct run *run)
{
    struct schedule_lease *lease = world_next(&run->w);
    if (lease) {
        assert_null(run->running);
        run->running = lease;
        run->ends_ns = run->w.now_ns + (world_owner(&run->w, lease) == CRITICAL ? SHORT_MS : LONG_MS) * MS;
    }
    while ((lease = schedule_preempt(run->w.s, run->w.now_ns))) {
        assert_true(run->cancellable && lease == run->running);
        if (run->ends_ns > run->w.now_ns + run->preempt_ns)
            run->ends_ns = run->w.now_ns + run->preempt_ns;
    }
}

static void end(struct run *run)
{
    struct schedule_lease *lease = take(&run->running);
    run->w.now_ns = run->ends_ns;
    struct schedule_request *only = lease->requests[0]; /* leases are of one row */
    if (lease->preempted) {
        schedule_requeue(run->w.s, lease, run->w.now_ns);
        schedule_lease_free(run->w.s, lease);
    } else {
        world_complete(&run->w, lease);
        only->target = NULL;
    }
}

/* One critical request after the other, each at a random moment; the longest that one waited for its lease. */
static uint64_t longest_wait(bool cancellable)
{
    static struct run run;
    uint32_t seed = 7;
    uint64_t longest_ns = 0;
    run_init(&run, cancellable);
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        feed(&run);
        dispatch(&run);
        assert_non_null(run.running);
        if (next(&seed) % 4 != 0) {
            end(&run);
            continue;
        }
        uint64_t left_ns = run.ends_ns - run.w.now_ns;
        run.w.now_ns += next(&seed) % (left_ns / 1000 + 1) * 1000;
        struct schedule_request *r = &run.w.requests[turn % CRITICAL_PLACES];
        *r = (struct schedule_request){
            .target = &run.w.targets[CRITICAL], .priority = SCHEDULE_CRITICAL, .rows = 1, .bytes = 16, .shape_key = 1};
        uint64_t asked_ns = run.w.now_ns;
        assert_int_equal(schedule_submit(run.w.s, r, asked_ns, NULL), 0);
        dispatch(&run);
        while (!r->lease) {
            end(&run);
            feed(&run);
            dispatch(&run);
        }
        if (run.w.now_ns - asked_ns > longest_ns)
            longest_ns = run.w.now_ns - asked_ns;
        end(&run);
    }
    world_done(&run.w);
    return longest_ns;
}

/* Leases that nobody can give up: what runs, and one that is due of each lower class. */
static void test_engines_that_cannot_cancel(void **state)
{
    (void)state;
    assert_in_range(longest_wait(false), LONG_MS * MS, 3 * LONG_MS * MS);
}

static void test_engines_that_can(void **state)
{
    (void)state;
    assert_in_range(longest_wait(true), 1, 3 * LONG_MS * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_engines_that_cannot_cancel),
                                       cmocka_unit_test(test_engines_that_can)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
