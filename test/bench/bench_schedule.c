/* Micro benchmark of the scheduler: nanoseconds of processor time for one request from submit to complete, and for
 * whose-turn-is-it alone, by how many tenants are runnable. One line of JSON per row, for bench.py: the least and the
 * median of many short rounds, since everything else on the machine only adds.
 *
 * All tenants are backlogged. Weights (1 to 8) and costs (0.1 to 2 ms) are random, and each tenant has had a turn
 * before anything is timed, so that virtual times lie as they do in the long run and in an order unlike that in memory.
 *
 *   bench_schedule [TENANTS_MAX]      default 1000000 (needs about 1 GiB); 0: only the idle device */
#include "base/clock.h"
#include "base/slab.h"
#include "base/str.h"
#include "schedule/schedule.h"
#include "schedule/schedule_internal.h"

#include <stdio.h>
#include <time.h>

#define DEADLINE_NS (UINT64_C(1) << 60)

enum { ROUNDS = 61, OPS = 20000, COSTS = 4096 };

/* A tenant with everything that one needs; two requests, so that it stays backlogged while one of them is served. */
struct place {
    struct schedule_tenant *tenant; /* from a slab, as in the gateway */
    struct schedule_target target;
    struct schedule_replica replica;
    struct schedule_request requests[2];
};

static uint64_t random_state = 1;

static uint64_t random_next(void) /* splitmix64 */
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void require(bool what)
{
    if (!what)
        abort();
}

/* Time of this thread on a processor: what others take while it waits does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    require(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns)
{
    r->deadline_ns = now_ns + DEADLINE_NS; /* far enough that none of a million is refused as hopeless */
    require(schedule_submit(s, r, now_ns, NULL) == 0);
}

static struct schedule *schedule_make(uint32_t slots)
{
    struct schedule *s = NULL;
    const struct schedule_device_config device = {.name = "cpu", .slots = slots};
    const struct schedule_config config = {
        .devices = &device,
        .n_devices = 1,
        .share_permille = {0, 50, 50},
        .queue_max = UINT32_MAX,
        .seed = random_next(),
    };
    require(schedule_new(&config, &s) == 0);
    return s;
}

enum { GATEWAY_TENANT_BYTES = 256 }; /* the scheduler's part is embedded in a struct of about this size */
static struct slab tenants;

static struct place *places_new(struct schedule *s, uint32_t n)
{
    struct place *places = calloc(n, sizeof *places);
    slab_init(&tenants, GATEWAY_TENANT_BYTES);
    require(places != NULL);
    for (uint32_t i = 0; i < n; i++) {
        struct place *p = &places[i];
        p->tenant = slab_take(&tenants);
        require(p->tenant != NULL);
        schedule_tenant_set(
            s, p->tenant,
            &(struct schedule_tenant_config){.weight = 1 + (uint32_t)(random_next() % 8), .queue_max = 16});
        schedule_target_set(s, &p->target, p->tenant, &(struct schedule_target_config){.batch_bytes_max = 1 << 20});
        schedule_replica_add(s, &p->replica, &p->target);
        for (int r = 0; r < 2; r++)
            p->requests[r] = (struct schedule_request){
                .target = &p->target, .priority = SCHEDULE_INTERACTIVE, .rows = 1, .bytes = 256, .shape_key = 1};
    }
    return places;
}

static void places_free(struct schedule *s, struct place *places, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct schedule_lease *lease = NULL;
        while (schedule_target_flush(s, &places[i].target))
            ;
        schedule_replica_remove(s, &places[i].replica, 0, &lease);
        schedule_target_remove(s, &places[i].target);
        schedule_tenant_remove(s, places[i].tenant);
        slab_give(&tenants, places[i].tenant);
    }
    free(places);
    slab_done(&tenants);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, uint32_t n_tenants, double ns[static ROUNDS])
{
    qsort(ns, ROUNDS, sizeof *ns, compare);
    printf("{\"bench\": \"schedule\", \"row\": \"%s\", \"tenants\": %u, \"ns\": %.1f, \"ns_median\": %.1f}\n", name,
           n_tenants, ns[0], ns[ROUNDS / 2]);
    fflush(stdout);
}

/* What leases cost, in nanoseconds of device time; drawn beforehand. */
static uint32_t costs_ns[COSTS];

/* One operation, `i` of its kind. */
struct world {
    struct schedule *schedule;
    struct place *places;
    struct schedule_lease lease; /* of op_turn */
    uint64_t now_ns;
};

static void measure(const char *name, uint32_t n_tenants, struct world *w, uint32_t n_warm,
                    void (*op)(struct world *w, uint32_t i))
{
    for (uint32_t i = 0; i < n_warm; i++)
        op(w, i);
    double ns[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = cpu_ns();
        for (uint32_t i = 0; i < OPS; i++)
            op(w, i);
        ns[round] = (double)(cpu_ns() - start_ns) / OPS;
    }
    report(name, n_tenants, ns);
}

/* The gateway's path without contention: the device is idle, a request comes, runs, is answered. */
static void op_alone(struct world *w, uint32_t i)
{
    (void)i;
    submit(w->schedule, &w->places[0].requests[0], w->now_ns);
    struct schedule_lease *lease = schedule_next(w->schedule, w->now_ns);
    w->now_ns += 20000;
    schedule_complete(w->schedule, lease, w->now_ns);
    schedule_lease_free(w->schedule, lease);
    if (schedule_wakeup(w->schedule) <= w->now_ns)
        abort();
}

static void bench_alone(void)
{
    struct world w = {.now_ns = NS_PER_S};
    w.schedule = schedule_make(4);
    w.places = places_new(w.schedule, 1);
    measure("submit, next, complete; device idle", 1, &w, OPS, op_alone);
    places_free(w.schedule, w.places, 1);
    schedule_free(w.schedule);
}

/* Completes a lease, submits its tenant's next request and starts the next lease. */
static void op_backlogged(struct world *w, uint32_t i)
{
    struct schedule_lease *lease = schedule_next(w->schedule, w->now_ns);
    w->now_ns += costs_ns[i % COSTS];
    struct schedule_request *r = lease->requests[0];
    schedule_complete(w->schedule, lease, w->now_ns);
    schedule_lease_free(w->schedule, lease);
    submit(w->schedule, r, w->now_ns);
}

static void bench_backlogged(uint32_t n)
{
    struct world w = {.now_ns = NS_PER_S};
    w.schedule = schedule_make(1);
    w.places = places_new(w.schedule, n);
    for (uint32_t i = 0; i < n; i++) {
        submit(w.schedule, &w.places[i].requests[0], w.now_ns);
        submit(w.schedule, &w.places[i].requests[1], w.now_ns);
    }
    measure("submit, next, complete; all backlogged", n, &w, 2 * n, op_backlogged);
    places_free(w.schedule, w.places, n);
    schedule_free(w.schedule);
}

/* Only the order of tenants: whose turn is it, charge, back into the order. */
static void op_turn(struct world *w, uint32_t i)
{
    struct schedule_flow *f = schedule_fair_peek(&w->schedule->devices[0].classes[SCHEDULE_INTERACTIVE]);
    struct schedule_lane *lane = schedule_flow_lane(f);
    w->lease._charged_ns = costs_ns[i % COSTS];
    schedule_fair_charge(w->schedule, f, lane, &w->lease);
    schedule_fair_update(w->schedule, f);
}

static void bench_turn(uint32_t n)
{
    struct world w = {.lease = {.slots = 1, .rows = 1}, .now_ns = NS_PER_S};
    w.schedule = schedule_make(1);
    w.places = places_new(w.schedule, n);
    for (uint32_t i = 0; i < n; i++)
        submit(w.schedule, &w.places[i].requests[0], w.now_ns);
    measure("pick and requeue", n, &w, 2 * n, op_turn);
    places_free(w.schedule, w.places, n);
    schedule_free(w.schedule);
}

int main(int argc, char **argv)
{
    uint64_t n_max = 1000000;
    if (argc > 2 || (argc == 2 && str_to_u64(str_from(argv[1]), &n_max) < 0) || n_max > LIMIT_TENANTS) {
        fprintf(stderr, "usage: bench_schedule [TENANTS_MAX]\n");
        return 2;
    }
    for (uint32_t i = 0; i < COSTS; i++)
        costs_ns[i] = 100000 + (uint32_t)(random_next() % 1900000);
    bench_alone();
    for (uint32_t n = 1; n <= n_max; n *= 10)
        bench_turn(n);
    for (uint32_t n = 1; n <= n_max; n *= 10)
        bench_backlogged(n);
    return 0;
}
