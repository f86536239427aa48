/* A gateway without loop, sockets and catalog, with one tenant, one version and one ready replica whose channel is a
 * fake pair: what is needed to run leases against a worker that a test plays. Requests are the operator's (no client):
 * answered ones are counted by the map of open requests. For tests that include it once. */
#ifndef BULKHEAD_TEST_LEASE_FIXTURE_H
#define BULKHEAD_TEST_LEASE_FIXTURE_H

#include "base/log.h"
#include "channel/channel_internal.h"
#include "gateway/gateway_internal.h"
#include "test/unit/gateway/requests_fixture.h"

#include <stdio.h>
#include <stdlib.h>

const struct gateway_surface *const gateway_surfaces[] = {NULL};

struct lease_fixture {
    struct gateway g;
    struct gateway_tenant tenant;
    struct gateway_version *version;
    struct gateway_replica *replica;
    struct channel *guest;
    uint64_t requests; /* started so far */
};

/* Our own failures must not look like the tested code's. */
static void fixture_need(bool condition)
{
    if (!condition)
        abort();
}

/* A ready replica of the version; one that was there before has ended. */
static void fixture_replica(struct lease_fixture *f, const struct channel_geometry *geometry)
{
    struct gateway *g = &f->g;
    struct gateway_version *v = f->version;
    struct gateway_replica *replica = f->replica = calloc(1, sizeof *replica);
    fixture_need(replica != NULL);
    v->n_replicas = 1;
    replica->gateway = g;
    replica->version = v;
    replica->uid = 1;
    replica->state = GATEWAY_REPLICA_READY;
    replica->opened = true;
    list_append(&v->replicas, &replica->in_version);
    fixture_need(map_put(&g->replicas, replica->uid, replica) == 0);
    fixture_need(channel_fake_pair(geometry, 1, &replica->channel, &f->guest) == 0);
    schedule_replica_add(g->schedule, &replica->schedule, &v->schedule);
}

static void fixture_init(struct lease_fixture *f, const struct channel_geometry *geometry, size_t body_bytes_max,
                         uint32_t batch_max, const struct tensor_signature *signature)
{
    *f = (struct lease_fixture){0};
    log_setup("test", LOG_LEVEL_ALERT);
    struct gateway *g = &f->g;
    g->config.body_bytes_max = body_bytes_max;
    g->config.request_timeout_ms = LIMIT_QUEUE_WAIT_MS;
    g->memory.bytes_max = GIB;
    map_init(&g->requests, 1000);
    map_init(&g->replicas, 10);
    map_init(&g->versions, 10);
    list_init(&g->lones_waiting);
    list_init(&g->lones_running);
    list_init(&g->busy);
    list_init(&g->look);
    gateway_quotas_init(g);
    list_init(&g->requests_free);
    buf_init(&g->answer, 5 * body_bytes_max);
    g->timer_ns = UINT64_MAX;
    const struct schedule_device_config device = {.name = "cpu", .slots = 1};
    fixture_need(schedule_new(&(struct schedule_config){.devices = &device, .n_devices = 1}, &g->schedule) == 0);

    (void)snprintf(f->tenant.name, sizeof f->tenant.name, "acme");
    schedule_tenant_set(g->schedule, &f->tenant.schedule, &(struct schedule_tenant_config){.queue_max = 1000});
    struct gateway_version *v = f->version = calloc(1, sizeof *v);
    fixture_need(v != NULL);
    v->gateway = g;
    v->tenant = &f->tenant;
    v->uid = 1;
    v->signature = malloc(sizeof *signature);
    fixture_need(v->signature);
    *v->signature = *signature;
    v->batch_max = batch_max;
    v->class = SCHEDULE_INTERACTIVE;
    f->tenant.classes = 1u << SCHEDULE_INTERACTIVE;
    v->replicas_max = 1;
    gateway_version_lists_init(v);
    (void)snprintf(v->model, sizeof v->model, "m");
    (void)snprintf(v->number_text, sizeof v->number_text, "1");
    schedule_target_set(
        g->schedule, &v->schedule, &f->tenant.schedule,
        &(struct schedule_target_config){.batch_rows_max = batch_max, .batch_bytes_max = 2 * body_bytes_max});
    fixture_replica(f, geometry);
}

/* A request with that JSON body from its handler on; it may be answered at once. */
static inline void fixture_request(struct lease_fixture *f, const char *json)
{
    struct gateway_request *r = gateway_request_new(&f->g);
    fixture_need(r && map_put(&f->g.requests, ++f->requests, r) == 0);
    r->infer_id = f->requests;
    gateway_request_own(r, &f->tenant);
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    char *body = arena_copy(&r->arena, str_from(json));
    fixture_need(body != NULL);
    r->body = (struct str){body, strlen(json)};
    gateway_infer(r, f->version, r->body.size);
}

/* The replica ends (if it still lives) and everything is freed; each request must have been answered by then. */
static void fixture_done(struct lease_fixture *f)
{
    struct gateway *g = &f->g;
    gateway_replica_kill(f->replica, BUS_STOP_PROTOCOL);
    for (struct schedule_request *q; (q = schedule_target_flush(g->schedule, &f->version->schedule));)
        gateway_fail(container_of(q, struct gateway_request, schedule), ERROR_WORKER_LOST, NULL);
    fixture_need(g->requests.count == 0 && f->tenant.n_requests == 0 && f->version->n_requests == 0);
    for (uint32_t i = 0; i < LIMIT_TENSORS; i++)
        free(f->replica->outputs[i].copy);
    gateway_batch_free(f->replica);
    channel_close(f->guest);
    free(f->replica);
    gateway_places_done(f->version);
    schedule_target_remove(g->schedule, &f->version->schedule);
    schedule_tenant_remove(g->schedule, &f->tenant.schedule);
    schedule_free(g->schedule);
    gateway_stats_free(f->version);
    free(f->version->signature);
    free(f->version);
    requests_free_done(g);
    buf_done(&g->answer);
    map_done(&g->requests);
    map_done(&g->replicas);
    map_done(&g->versions);
}

#endif
