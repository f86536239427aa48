/* Micro benchmark of the scheduler: nanoseconds for one request from submit to complete, and for whose-turn-is-it
 * alone, by how many tenants are runnable. One line of JSON per row, for bench.py; figures are the least of several
 * rounds, since everything else on the machine only adds.
 *
 *   bench_schedule [TENANTS_MAX]      default 1000000 (needs about 1 GiB); 0: only the idle device */
#include "base/clock.h"
#include "base/str.h"
#include "schedule/schedule.h"
#include "schedule/schedule_internal.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 5, OPS = 200000 };

/* A tenant with everything that one needs; two requests, so that it stays backlogged while one of them is served. */
struct place {
    struct schedule_tenant tenant;
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
    r->deadline_ns = now_ns + LIMIT_QUEUE_WAIT_MS * NS_PER_MS;
    require(schedule_submit(s, r, now_ns, NULL) == 0);
}

static struct place *places_new(struct schedule *s, uint32_t n)
{
    struct place *places = calloc(n, sizeof *places);
    require(places != NULL);
    for (uint32_t i = 0; i < n; i++) {
        struct place *p = &places[i];
        schedule_tenant_set(s, &p->tenant, 1 + (uint32_t)(random_next() % 8), 16);
        schedule_target_set(s, &p->target, &p->tenant, 1, 1, 0, 1 << 20);
        schedule_replica_add(s, &p->replica, &p->target);
        p->tenant._vtime = (unsigned __int128)(random_next() % NS_PER_MS) << 32; /* an order unlike that in memory */
        for (int r = 0; r < 2; r++)
            p->requests[r] = (struct schedule_request){.target = &p->target, .rows = 1, .bytes = 256, .shape_key = 1};
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
        schedule_tenant_remove(s, &places[i].tenant);
    }
    free(places);
}

static void report(const char *name, uint32_t n_tenants, double ns)
{
    printf("{\"bench\": \"schedule\", \"row\": \"%s\", \"tenants\": %u, \"ns\": %.1f}\n", name, n_tenants, ns);
    fflush(stdout);
}

/* The gateway's path without contention: the device is idle, a request comes, runs, is answered. */
static void bench_alone(void)
{
    struct schedule *s = NULL;
    require(schedule_new(4, &s) == 0);
    struct place *p = places_new(s, 1);
    uint64_t now_ns = NS_PER_S;
    double least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = cpu_ns();
        for (int op = 0; op < OPS; op++) {
            submit(s, &p->requests[0], now_ns);
            struct schedule_lease *lease = schedule_next(s, now_ns);
            now_ns += 20000;
            schedule_complete(s, lease, now_ns);
            schedule_lease_free(s, lease);
            if (schedule_wakeup(s) <= now_ns)
                abort();
        }
        double ns = (double)(cpu_ns() - start_ns) / OPS;
        least = ns < least ? ns : least;
    }
    report("submit, next, complete; device idle", 1, least);
    places_free(s, p, 1);
    schedule_free(s);
}

/* n tenants are backlogged; each op completes a lease, submits its tenant's next request and starts the next lease. */
static void bench_backlogged(uint32_t n)
{
    struct schedule *s = NULL;
    require(schedule_new(1, &s) == 0);
    struct place *places = places_new(s, n);
    uint64_t now_ns = NS_PER_S;
    for (uint32_t i = 0; i < n; i++) {
        submit(s, &places[i].requests[0], now_ns);
        submit(s, &places[i].requests[1], now_ns);
    }
    double least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = cpu_ns();
        for (int op = 0; op < OPS; op++) {
            struct schedule_lease *lease = schedule_next(s, now_ns);
            now_ns += 1000;
            struct schedule_request *r = lease->requests[0];
            schedule_complete(s, lease, now_ns);
            schedule_lease_free(s, lease);
            submit(s, r, now_ns);
        }
        double ns = (double)(cpu_ns() - start_ns) / OPS;
        least = ns < least ? ns : least;
    }
    report("submit, next, complete; all backlogged", n, least);
    places_free(s, places, n);
    schedule_free(s);
}

/* Only the order of tenants: whose turn is it, charge, back into the order. */
static void bench_turn(uint32_t n)
{
    struct schedule *s = NULL;
    require(schedule_new(1, &s) == 0);
    struct place *places = places_new(s, n);
    require(schedule_heap_reserve(&s->fair, n) == 0);
    struct schedule_lease lease = {.slots = 1};
    for (uint32_t i = 0; i < n; i++) {
        schedule_order_insert(&places[i].tenant._runnable, &places[i].target._in_runnable, i);
        schedule_fair_update(s, &places[i].tenant);
    }
    double least = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = cpu_ns();
        for (int op = 0; op < OPS; op++) {
            struct schedule_tenant *t = schedule_fair_peek(s);
            lease.estimate_ns = NS_PER_MS;
            schedule_fair_charge(s, t, &lease);
            schedule_fair_update(s, t);
        }
        double ns = (double)(cpu_ns() - start_ns) / OPS;
        least = ns < least ? ns : least;
    }
    report("pick and requeue", n, least);
    for (uint32_t i = 0; i < n; i++) {
        schedule_order_remove(&places[i].tenant._runnable, &places[i].target._in_runnable);
        schedule_fair_update(s, &places[i].tenant);
    }
    places_free(s, places, n);
    schedule_free(s);
}

int main(int argc, char **argv)
{
    uint64_t n_max = 1000000;
    if (argc > 2 || (argc == 2 && str_to_u64(str_from(argv[1]), &n_max) < 0) || n_max > LIMIT_TENANTS) {
        fprintf(stderr, "usage: bench_schedule [TENANTS_MAX]\n");
        return 2;
    }
    bench_alone();
    for (uint32_t n = 1; n <= n_max; n *= 10)
        bench_turn(n);
    for (uint32_t n = 1; n <= n_max; n *= 10)
        bench_backlogged(n);
    return 0;
}
