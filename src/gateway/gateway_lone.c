/* A second try, alone. A shared worker was lost while requests of several tenants were in it, and nobody can tell whose
 * fault that was. Each of them is run once more in a fresh worker that is started for this one request and ends with
 * it: who is lost again was the reason, or met it again, and gets a 503.
 *
 * To the scheduler each such request queues for a target of its own, which only its own worker serves; so it waits,
 * runs and is paid for as any other. Few such workers run at once; the rest wait, and the tenant that has fewest goes
 * first, so that one with many cannot hold up the others.
 *
 *   waiting ──demanded──► running ──its worker's end (or the refusal of one)──► (freed)
 *      └──the request has gone away──► (freed)
 *
 * Generations of a language model are tried again where their client has been told nothing of them: all of the request
 * begin anew, in a running batch of its own. That worker is one more replica of its model's to those who ask for turns
 * and step it (its tenant has a seat there, and pays as elsewhere); but it is in nobody's count of replicas, and its
 * places are for that request alone, which stands aside of all lines. As generations may take long, few of the workers
 * are for them, and fewer for those of one tenant; one whose second try has not begun in time is lost for good. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

struct gateway_lone {
    struct schedule_target schedule; /* first; of tensors */
    struct list node;                /* in gateway.lones_waiting or .lones_running */
    struct gateway_version *version; /* which stays as long, as for a request */
    struct gateway_request *request; /* NULL once it was answered */
    struct gateway_replica *replica; /* NULL before it is announced */
    uint64_t replica_uid;            /* ours to choose; 0: waits */
    uint64_t demanded_ns;
    bool generates;          /* of a language model; its request is NULL as soon as all generations are over */
    struct list generations; /* its request, while a generation of it waits for a place there */
    uint64_t until_ns;       /* the first of them has begun by then */
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
    if (!lone->generates)
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

/* The model was deleted, or is not lent any more: nothing begins. */
static bool is_gone(const struct gateway_lone *lone)
{
    return lone->version->generation != lone->version->gateway->stats.generation;
}

/* Of generations; NULL: of all tenants. */
static uint32_t generating_of(struct gateway *g, const struct gateway_tenant *tenant)
{
    uint32_t n = 0;
    list_each(node, &g->lones_running)
    {
        const struct gateway_lone *lone = lone_at(node);
        n += lone->generates && (!tenant || lone->version->tenant == tenant);
    }
    return n;
}

static struct gateway_lone *lone_next(struct gateway *g)
{
    struct gateway_lone *best = NULL;
    uint32_t least = UINT32_MAX;
    bool full = generating_of(g, NULL) >= LIMIT_LONE_GENERATIONS;
    list_each(node, &g->lones_waiting)
    {
        struct gateway_lone *lone = lone_at(node);
        if (best && lone->version->tenant == best->version->tenant)
            continue; /* they come in the order of their loss: mostly one tenant's behind each other */
        if (lone->generates && (full || is_gone(lone)))
            continue;
        if (lone->generates && generating_of(g, lone->version->tenant) >= LIMIT_LONE_GENERATIONS / 2)
            continue;
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

/* NULL: it gets no second try. */
static struct gateway_lone *lone_new(const struct gateway_request *r)
{
    struct gateway_version *v = r->version;
    bool may = !r->tried_alone && !r->gateway->draining && v->generation == r->gateway->stats.generation;
    struct gateway_lone *lone = may ? calloc(1, sizeof *lone) : NULL;
    if (!lone)
        return NULL;
    list_init(&lone->generations);
    lone->version = v;
    return lone;
}

static void lone_wait(struct gateway_lone *lone, struct gateway_request *r)
{
    lone->version->n_requests++;
    lone->request = r;
    r->lone = lone;
    r->tried_alone = true;
    list_append(&r->gateway->lones_waiting, &lone->node);
}

int gateway_lone_start(struct gateway_request *r)
{
    struct gateway *g = r->gateway;
    struct gateway_version *v = r->version;
    struct gateway_lone *lone = lone_new(r);
    if (!lone)
        return -ERROR_WORKER_LOST;
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
    lone_wait(lone, r);
    return 0;
}

int gateway_lone_generate(struct gateway_request *r)
{
    struct gateway_lone *lone = r->generate->again && !r->stopped ? lone_new(r) : NULL;
    if (!lone || !r->generate->again(r)) {
        free(lone);
        return -ERROR_WORKER_LOST;
    }
    gateway_places_leave(r);
    gateway_batches_cancel(r);
    r->n_started = r->n_ended = 0;
    r->tokens_free = r->tokens_paid;
    lone->generates = true;
    lone->until_ns = uv_hrtime() + LIMIT_LONE_WAIT_MS * NS_PER_MS;
    lone_wait(lone, r);
    gateway_lone_wait(r);
    log_info("generation_again", "tenant=%s model=%s: its worker was lost; it is tried once more, alone",
             r->tenant->name, r->version->model);
    return 0;
}

void gateway_lone_wait(struct gateway_request *r)
{
    struct gateway_lone *lone = r->lone;
    r->aside = true;
    list_append(&lone->generations, &r->node);
    if (lone->replica && lone->replica->batch)
        gateway_batch_look(lone->replica->batch);
}

struct gateway_request *gateway_lone_next(const struct gateway_lone *lone)
{
    bool waits = !list_empty(&lone->generations) && (lone->request->n_started > 0 || !is_gone(lone));
    return waits ? lone->request : NULL;
}

bool gateway_lone_is_over(const struct gateway_lone *lone)
{
    return !lone->generates || !lone->request;
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
    replica->version = gateway_version_host(lone->version); /* which it holds */
    if (lone->generates)
        list_append(&replica->version->replicas, &replica->in_version);
}

void gateway_lone_ended(struct gateway_lone *lone, int code, const struct error *err)
{
    struct gateway *g = lone->version->gateway;
    struct gateway_request *r = lone->request;
    if (r) {
        lone->request = NULL;
        r->lone = NULL;
    }
    if (r && lone->generates) {
        gateway_generate_fail(r, code, err);
    } else if (r && r->state != GATEWAY_REQUEST_ANSWERED) { /* else its client still reads */
        (void)schedule_cancel(g->schedule, &r->schedule);   /* a leased one was given back with its replica */
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

/* Those that do not come to their second try. */
static void generations_check(struct list *lones, uint64_t now_ns, const struct error *lost)
{
    list_each_safe(node, lones)
    {
        struct gateway_lone *lone = lone_at(node);
        struct gateway_request *r = lone->generates ? lone->request : NULL;
        if (!r || r->n_started > 0)
            continue;
        if (is_gone(lone))
            gateway_generate_fail(r, -ERROR_MODEL_NOT_FOUND, NULL);
        else if (lone->until_ns <= now_ns)
            gateway_generate_fail(r, lost->code, lost);
    }
}

void gateway_lones_check(struct gateway *g, uint64_t now_ns)
{
    struct error err = {0};
    (void)error_set_default(&err, ERROR_WORKER_LOST);
    generations_check(&g->lones_waiting, now_ns, &err);
    generations_check(&g->lones_running, now_ns, &err);
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
