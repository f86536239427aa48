/* A small world for the tests of the scheduler: one device, a few tenants with a target each, requests by number. */
#ifndef BULKHEAD_TEST_SCHEDULE_FIXTURE_H
#define BULKHEAD_TEST_SCHEDULE_FIXTURE_H

#include "base/clock.h"
#include "schedule/schedule.h"
#include "schedule/schedule_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { WORLD_TENANTS = 8, WORLD_REPLICAS = 8, WORLD_REQUESTS = 2048 };

#define MS NS_PER_MS

struct world {
    struct schedule *s;
    struct schedule_tenant tenants[WORLD_TENANTS];
    struct schedule_target targets[WORLD_TENANTS]; /* targets[i] belongs to tenants[i] */
    struct schedule_replica replicas[WORLD_TENANTS][WORLD_REPLICAS];
    struct schedule_request requests[WORLD_REQUESTS];
    uint32_t n_requests;
    uint64_t now_ns;
};

static inline void world_init(struct world *w, uint32_t slots)
{
    memset(w, 0, sizeof *w);
    w->now_ns = 1000 * NS_PER_S;
    const struct schedule_device_config device = {.name = "cpu", .slots = slots};
    const struct schedule_config config = {.devices = &device, .n_devices = 1, .share_permille = {0, 50, 50}};
    assert_int_equal(schedule_new(&config, &w->s), 0);
}

/* The only device's state of the class that requests here are of. */
static inline struct schedule_class_state *world_class(const struct world *w)
{
    return &w->s->devices[0].classes[SCHEDULE_INTERACTIVE];
}

/* Tenant i's flow of that class, or NULL. */
static inline struct schedule_flow *world_flow(const struct world *w, uint32_t i)
{
    const struct schedule_active *a = w->tenants[i]._active;
    return a ? container_of(a->flows.next, struct schedule_flow, in_active) : NULL;
}

static inline void world_tenant_set(struct world *w, uint32_t i, uint32_t weight, uint32_t queue_max)
{
    schedule_tenant_set(w->s, &w->tenants[i],
                        &(struct schedule_tenant_config){.weight = weight, .queue_max = queue_max});
}

static inline void world_target_set(struct world *w, uint32_t i, uint32_t slots, uint32_t rows_max, uint64_t delay_ns,
                                    size_t bytes_max)
{
    schedule_target_set(w->s, &w->targets[i], &w->tenants[i],
                        &(struct schedule_target_config){.slots = slots,
                                                         .batch_rows_max = rows_max,
                                                         .delay_ns = delay_ns,
                                                         .batch_bytes_max = bytes_max,
                                                         .cancellable = true});
}

/* Tenant i with a one-slot target of batches up to `rows_max` and `n_replicas` replicas. */
static inline void world_tenant(struct world *w, uint32_t i, uint32_t weight, uint32_t rows_max, uint32_t n_replicas)
{
    world_tenant_set(w, i, weight, 1000);
    world_target_set(w, i, 1, rows_max, 0, 1 << 20);
    for (uint32_t r = 0; r < n_replicas; r++)
        schedule_replica_add(w->s, &w->replicas[i][r], &w->targets[i]);
}

/* A request of one row and shape 1, not yet submitted. */
static inline struct schedule_request *world_request(struct world *w, uint32_t i)
{
    assert_true(w->n_requests < WORLD_REQUESTS);
    struct schedule_request *r = &w->requests[w->n_requests++];
    *r = (struct schedule_request){
        .target = &w->targets[i], .priority = SCHEDULE_INTERACTIVE, .rows = 1, .bytes = 16, .shape_key = 1};
    return r;
}

static inline struct schedule_request *world_submit(struct world *w, uint32_t i)
{
    struct schedule_request *r = world_request(w, i);
    assert_int_equal(schedule_submit(w->s, r, w->now_ns, NULL), 0);
    return r;
}

static inline struct schedule_lease *world_next(struct world *w)
{
    return schedule_next(w->s, w->now_ns);
}

/* The tenant's number whose lease it is. */
static inline uint32_t world_owner(const struct world *w, const struct schedule_lease *lease)
{
    return (uint32_t)(lease->replica->target - w->targets);
}

static inline void world_complete(struct world *w, struct schedule_lease *lease)
{
    schedule_complete(w->s, lease, w->now_ns);
    schedule_lease_free(w->s, lease);
}

/* Runs one lease of tenant i of `rows` rows for `time_ns`, so that its time is known. Needs an idle world. */
static inline void world_teach(struct world *w, uint32_t i, uint32_t rows, uint64_t time_ns)
{
    struct schedule_request *r = world_request(w, i);
    r->rows = rows;
    assert_int_equal(schedule_submit(w->s, r, w->now_ns, NULL), 0);
    struct schedule_lease *lease = world_next(w);
    assert_non_null(lease);
    assert_ptr_equal(lease->requests[0], r);
    w->now_ns += time_ns;
    world_complete(w, lease);
    w->n_requests--;
}

/* Takes everything apart, whatever state it is in; schedule_free asserts that nothing was left. */
static inline void world_done(struct world *w)
{
    for (uint32_t i = 0; i < WORLD_TENANTS; i++) {
        if (!w->tenants[i].weight)
            continue;
        if (w->targets[i].tenant) {
            while (schedule_target_flush(w->s, &w->targets[i]))
                ;
            for (uint32_t r = 0; r < WORLD_REPLICAS; r++) {
                struct schedule_lease *lease = NULL;
                if (w->replicas[i][r].target)
                    schedule_replica_remove(w->s, &w->replicas[i][r], w->now_ns, &lease);
                schedule_lease_free(w->s, lease);
            }
            schedule_target_remove(w->s, &w->targets[i]);
        }
        schedule_tenant_remove(w->s, &w->tenants[i]);
    }
    schedule_free(w->s);
}

#endif
