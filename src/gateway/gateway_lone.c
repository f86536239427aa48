/* A second try, alone. A shared worker was lost while requests of several tenants were in it, and nobody can tell whose
 * fault that was. Each of them is run once more in a fresh worker that is started for this one request and ends with
 * it: who is lost again was the reason, or met it again, and gets a 503.
 *
 * To the scheduler each such request queues for a target of its own, which only its own worker serves; so it waits,
 * runs and is paid for as any other. Few such workers run at once; the rest wait, and the tenant that has fewest goes
 * first, so that one with many cannot hold up the others.
 *
 *   waiting ──demanded──► running ──its worker's end (or the refusal of one)──► (freed)
 *      └──the request has gone away──► (freed) */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/random.h"

struct gateway_lone {
    struct schedule_target schedule; /* first */
    struct list node;                /* in gateway.lones_waiting or .lones_running */
    struct gateway_version *version; /* which stays as long, as for a request */
    struct gateway_request *request; /* NULL once it was answered */
    struct gateway_replica *replica; /* NULL before it is announced */
    uint64_t replica_uid;            /* ours to choose; 0: waits */
    uint64_t demanded_ns;
};

static struct gateway_lone *lone_at(struct list *node)
{
    return container_of(node, struct gateway_lone, node);
}

static void lone_free(struct gateway_lone *lone)
{
    struct gateway_version *v = lone->version;
    struct gateway *g = v->gateway;
    if (lone->replica_uid != 0)
        g->n_lones_running--;
    list_remove(&lone->node);
    schedule_target_remove(g->schedule, &lone->schedule);
    free(lone);
    v->n_requests--;
    gateway_version_release(v);
}

static uint32_t running_of(struct gateway *g, const struct gateway_tenant *tenant)
{
    uint32_t n = 0;
    list_each(node, &g->lones_running) n += lone_at(node)->version->tenant == tenant;
    return n;
}

static struct gateway_lone *lone_next(struct gateway *g)
{
    struct gateway_lone *best = NULL;
    uint32_t least = UINT32_MAX;
    list_each(node, &g->lones_waiting)
    {
        struct gateway_lone *lone = lone_at(node);
        if (best && lone->version->tenant == best->version->tenant)
            continue; /* they come in the order of their loss: mostly one tenant's behind each other */
        uint32_t n = running_of(g, lone->version->tenant);
        if (n < least) {
            least = n;
            best = lone;
        }
        if (least == 0)
            break;
    }
    return best;
}

void gateway_lones_demand(struct gateway *g)
{
    struct gateway_lone *lone;
    if (!g->control) /* asked again when it is back */
        return;
    while (g->n_lones_running < LIMIT_LONE_WORKERS && (lone = lone_next(g))) {
        struct bus_demand_lone body = {.version_uid = lone->version->uid, .replica_uid = random_u64() | 1};
        if (bus_conn_send(g->control, BUS_DEMAND_LONE, &body, NULL, 0) < 0)
            return;
        lone->replica_uid = body.replica_uid;
        lone->demanded_ns = uv_hrtime();
        list_remove(&lone->node);
        list_append(&g->lones_running, &lone->node);
        g->n_lones_running++;
    }
}

int gateway_lone_start(struct gateway_request *r)
{
    struct gateway *g = r->gateway;
    struct gateway_version *v = r->version;
    if (r->tried_alone || g->draining || v->generation != g->stats.generation)
        return -ERROR_WORKER_LOST;
    struct gateway_lone *lone = calloc(1, sizeof *lone);
    if (!lone)
        return -ERROR_NO_MEMORY;
    lone->version = v;
    schedule_target_set(g->schedule, &lone->schedule, &v->tenant->schedule,
                        &(struct schedule_target_config){.device = v->schedule.device,
                                                         .weight = v->schedule.weight,
                                                         .slots = v->schedule.slots,
                                                         .batch_rows_max = r->schedule.rows,
                                                         .batch_bytes_max = v->schedule.batch_bytes_max});
    r->schedule = (struct schedule_request){
        .target = &lone->schedule,
        .priority = r->schedule.priority,
        .rows = r->schedule.rows,
        .bytes = r->schedule.bytes,
        .deadline_ns = r->schedule.deadline_ns,
        .again = true,
    };
    int code = schedule_submit(g->schedule, &r->schedule, uv_hrtime(), NULL);
    if (code < 0) {
        schedule_target_remove(g->schedule, &lone->schedule);
        free(lone);
        return code;
    }
    gateway_request_state_set(r, GATEWAY_REQUEST_QUEUED);
    v->n_requests++;
    lone->request = r;
    r->lone = lone;
    r->tried_alone = true;
    list_append(&g->lones_waiting, &lone->node);
    return 0;
}

void gateway_lone_left(struct gateway_request *r)
{
    struct gateway_lone *lone = r->lone;
    r->lone = NULL;
    lone->request = NULL;
    if (lone->replica_uid == 0)
        lone_free(lone);
}

struct schedule_target *gateway_lone_target(struct gateway_lone *lone)
{
    return &lone->schedule;
}

struct gateway_lone *gateway_lone_of(struct gateway *g, uint64_t replica_uid)
{
    list_each(node, &g->lones_running)
    {
        if (lone_at(node)->replica_uid == replica_uid)
            return lone_at(node);
    }
    return NULL;
}

void gateway_lone_take(struct gateway_lone *lone, struct gateway_replica *replica)
{
    lone->replica = replica;
    replica->lone = lone;
    replica->version = lone->version; /* which it holds */
}

void gateway_lone_ended(struct gateway_lone *lone, int code, const struct error *err)
{
    struct gateway *g = lone->version->gateway;
    struct gateway_request *r = lone->request;
    if (r) {
        lone->request = NULL;
        r->lone = NULL;
    }
    if (r && r->state != GATEWAY_REQUEST_ANSWERED) {      /* else its client still reads */
        (void)schedule_cancel(g->schedule, &r->schedule); /* a leased one was given back with its replica */
        gateway_fail(r, code, err);
    }
    lone_free(lone);
}

void gateway_lones_again(struct gateway *g)
{
    list_each_safe(node, &g->lones_running)
    {
        struct gateway_lone *lone = lone_at(node);
        if (lone->replica)
            continue;
        lone->replica_uid = 0;
        g->n_lones_running--;
        list_remove(&lone->node);
        if (lone->request)
            list_append(&g->lones_waiting, &lone->node);
        else
            lone_free(lone);
    }
}

void gateway_lones_drain(struct gateway *g)
{
    list_each_safe(node, &g->lones_waiting) gateway_lone_ended(lone_at(node), ERROR_DRAINING, NULL);
    list_each_safe(other, &g->lones_running)
    {
        if (!lone_at(other)->replica)
            gateway_lone_ended(lone_at(other), ERROR_DRAINING, NULL);
    }
}

void gateway_lones_check(struct gateway *g, uint64_t now_ns)
{
    struct error err = {0};
    (void)error_set_default(&err, ERROR_WORKER_LOST);
    list_each_safe(node, &g->lones_running)
    {
        struct gateway_lone *lone = lone_at(node);
        struct gateway_replica *replica = lone->replica;
        if (!replica && now_ns - lone->demanded_ns > LIMIT_REPLICA_START_MS * NS_PER_MS)
            gateway_lone_ended(lone, err.code, &err);
        else if (replica && replica->state == GATEWAY_REPLICA_READY && !replica->lease && !lone->request)
            gateway_replica_drain(g, replica->uid); /* its client went away before it was ready */
    }
}
