/* Which replicas should run. The gateway says what it needs, models say their minimum, the supervisor says what is; the
 * difference is started or stopped. Failed starts are repeated with a doubled, jittered delay. */
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "control/control_internal.h"
#include "ladder/ladder.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STABLE_NS (10 * NS_PER_S) /* a replica that lived so long after loading ends the back-off */
/* So long after the last back-off the failures of a version without replicas are forgotten with it. */
#define FAILURES_KEPT_NS (60 * NS_PER_S)
/* Who waits for a start that is further away than this is told so. */
#define PATIENCE_NS       NS_PER_S
#define STORE_RETRY_NS    NS_PER_S
#define SHARED_LOSSES_MAX 3u

struct lone_wait { /* a request's own replica, whose model is being copied */
    struct list node;
    struct bus_demand_lone body;
};

/* NULL: no memory, or uids that there cannot be. */
static struct control_version *version_get(struct control *c, uint64_t uid, uint64_t borrower_uid)
{
    uint64_t key;
    if (registry_version_key(uid, borrower_uid, &key) < 0)
        return NULL;
    struct control_version *v = map_get(&c->versions, key);
    if (v)
        return v;
    v = calloc(1, sizeof *v);
    if (!v || map_put(&c->versions, key, v) < 0) {
        free(v);
        return NULL;
    }
    v->key = key;
    v->control = c;
    v->uid = uid;
    v->borrower_uid = borrower_uid;
    v->files[CONTROL_MODEL] = v->files[CONTROL_IMAGE] = -1;
    list_init(&v->lones);
    return v;
}

static void back_off(struct control_version *v)
{
    uint64_t delay_ms = LIMIT_RESTART_DELAY_MIN_MS;
    for (uint32_t i = 0; i < v->failures && delay_ms < LIMIT_RESTART_DELAY_MAX_MS; i++)
        delay_ms *= 2;
    if (delay_ms > LIMIT_RESTART_DELAY_MAX_MS)
        delay_ms = LIMIT_RESTART_DELAY_MAX_MS;
    delay_ms = delay_ms / 2 + random_u64() % delay_ms; /* ± 50 % */
    v->failures++;
    v->start_after_ns = clock_monotonic_ns() + delay_ms * NS_PER_MS;
}

static void replica_count(struct control *c, const struct control_replica *replica, int by)
{
    if (replica->lone) {
        replica->version->n_lone += (uint32_t)by; /* wraps around to one less */
        c->n_lone += (uint32_t)by;
    } else {
        replica->version->n_replicas += (uint32_t)by;
    }
}

static void replica_free(struct control_replica *r)
{
    if (!r)
        return;
    fd_close(&r->model_fd);
    free(r->adapters);
    free(r);
}

static struct control_replica *replica_new(void)
{
    struct control_replica *r = calloc(1, sizeof *r);
    if (r)
        r->model_fd = -1;
    return r;
}

static void on_copied(void *ctx, int rc, int *fd, const struct error *err);
static void lones_continue(struct control *c, struct control_version *v, int rc, const struct error *err);

/* The model's memory that a replica of the same version has already, whoever's, so that they share its pages. */
static int model_of_replica(struct control *c, const struct control_version *v)
{
    size_t cursor = 0;
    for (struct control_replica *r; (r = map_next(&c->replicas, &cursor));)
        if (r->state.version_uid == v->uid && r->model_fd >= 0)
            return fcntl(r->model_fd, F_DUPFD_CLOEXEC, 0);
    return -1;
}

/* Is its model being copied for another tenant, with whose replica it will then share it? */
static bool copied_for_another(struct control *c, const struct control_version *v)
{
    size_t cursor = 0;
    for (const struct control_version *other; (other = map_next(&c->versions, &cursor));)
        if (other != v && other->uid == v->uid && other->copying)
            return true;
    return false;
}

/* What a replica of the version is started with: 0 when it is in v->files, 1 while it is copied, and then somebody
 * looks again; negative when that failed. */
static int files_look(struct control *c, struct control_version *v, const struct registry_version *row,
                      struct error *err)
{
    if (v->copying)
        return 1;
    if (v->copy_failed < 0) {
        int r = v->copy_failed;
        v->copy_failed = 0;
        return error_set(err, r, "%s", v->last_error);
    }
    if (v->files[CONTROL_MODEL] < 0)
        v->files[CONTROL_MODEL] = model_of_replica(c, v);
    bool image = v->files[CONTROL_MODEL] >= 0;
    if (image && (row->image_bytes == 0 || v->files[CONTROL_IMAGE] >= 0))
        return 0;
    if (!image && copied_for_another(c, v)) {
        v->waits_copy = true;
        return 1;
    }
    struct registry_version of = image ? registry_image_of(row) : *row;
    v->copying = control_copy_start(c, &of, on_copied, v);
    return v->copying ? 1 : error_set_default(err, ERROR_NO_MEMORY);
}

/* Who waited for this version's copy looks for itself. */
static void copy_ended(struct control *c, const struct control_version *v)
{
    size_t cursor = 0;
    for (struct control_version *other; (other = map_next(&c->versions, &cursor));)
        if (other->uid == v->uid && other->waits_copy) {
            other->waits_copy = false;
            c->reconcile_at_ns = 0;
        }
}

/* No replica of it is wanted that is not started. */
static void files_forget(struct control *c, struct control_version *v)
{
    if (v->copying) {
        control_copy_cancel(v->copying);
        v->copying = NULL;
        copy_ended(c, v);
    }
    v->copy_failed = 0;
    v->waits_copy = false;
    fd_close(&v->files[CONTROL_MODEL]);
    fd_close(&v->files[CONTROL_IMAGE]);
}

/* `how`: replica_uid, level and flags; the rest is the version's, whose files are there. */
static int replica_start(struct control *c, struct control_version *version, const struct registry_version *row,
                         const struct bus_replica_start *how, struct error *err)
{
    struct bus_replica_start body = *how;
    body.flags |= row->repack ? BUS_START_REPACK : 0u;
    body.version_uid = row->uid;
    body.model_uid = row->model_uid;
    body.tenant_uid = row->tenant_uid;
    body.memory_bytes = row->memory_bytes;
    body.model_bytes = row->artifact_bytes;
    body.cpu_milli = (uint32_t)row->cpu_milli;
    body.runtime = row->runtime;
    if (row->dedicated)
        body.flags |= BUS_START_DEDICATED;
    body.version_number = row->number;
    memcpy(body.model_sha256, row->digest, sizeof body.model_sha256);
    memcpy(body.image_sha256, row->image, sizeof body.image_sha256);
    body.image_bytes = row->image_bytes;
    memcpy(body.engine, row->engine, sizeof body.engine);
    memcpy(body.tenant, row->tenant, sizeof body.tenant);
    memcpy(body.model, row->model, sizeof body.model);
    struct control_replica *replica = replica_new();
    _close_ int fd = fcntl(version->files[CONTROL_MODEL], F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || !replica || map_put(&c->replicas, body.replica_uid, replica) < 0) {
        replica_free(replica);
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    replica->version = version;
    replica->lone = body.flags & BUS_START_LONE;
    replica->lends = row->lends;
    /* As the supervisor will say; the gateway may say that it is loaded before that comes. */
    struct bus_replica_state *state = &replica->state;
    *state = (struct bus_replica_state){.replica_uid = body.replica_uid,
                                        .version_uid = row->uid,
                                        .model_uid = row->model_uid,
                                        .tenant_uid = row->tenant_uid,
                                        .phase = BUS_REPLICA_STARTING,
                                        .level = body.level,
                                        .version_number = row->number};
    memcpy(state->engine, body.engine, sizeof state->engine);
    memcpy(state->tenant, body.tenant, sizeof state->tenant);
    memcpy(state->model, body.model, sizeof state->model);
    replica->memory_bytes = row->memory_bytes;
    replica_count(c, replica, 1);
    const int fds[2] = {fd, row->image_bytes > 0 ? version->files[CONTROL_IMAGE] : fd};
    (void)bus_conn_send(c->supervisor, BUS_REPLICA_START, &body, fds, 2); /* without it we end anyway */
    replica->model_fd = take_fd(&fd);
    return 0;
}

void control_running(void *ctx, uint64_t tenant_uid, struct registry_running *ret_running)
{
    struct control *c = ctx;
    struct registry_running running = {0};
    size_t cursor = 0;
    for (struct control_replica *r; (r = map_next(&c->replicas, &cursor));) {
        if (r->state.tenant_uid != tenant_uid || r->lone) /* which stands in for one that was lost */
            continue;
        struct registry_version row;
        struct error err = {0};
        if (r->memory_bytes == 0 &&
            registry_version_find(c->registry, r->version->uid, r->version->borrower_uid, &row, &err) >= 0)
            r->memory_bytes = row.memory_bytes; /* started by an earlier control process */
        running.replicas++;
        running.memory_bytes += r->memory_bytes;
    }
    running.adapter_bytes = control_adapters_most(c, tenant_uid);
    *ret_running = running;
}

/* May one more replica of this version start under its tenant's quotas? */
static int quota_refusal(struct control *c, const struct registry_version *row, struct error *err)
{
    const struct registry_running *max = &row->tenant_max;
    struct registry_running now;
    if (max->replicas == 0 && max->memory_bytes == 0)
        return 0;
    control_running(c, row->tenant_uid, &now);
    if (max->replicas > 0 && now.replicas >= max->replicas)
        return error_set(err, ERROR_QUOTA_EXCEEDED,
                         "the tenant's quota of %u replicas (spec.quota.replicas) is used up", max->replicas);
    if (max->memory_bytes > 0 && now.memory_bytes + row->memory_bytes > max->memory_bytes)
        return error_set(err, ERROR_QUOTA_EXCEEDED,
                         "the tenant's replicas would take %llu MiB; its quota (spec.quota.memory) is %llu MiB",
                         (unsigned long long)((now.memory_bytes + row->memory_bytes) / MIB),
                         (unsigned long long)(max->memory_bytes / MIB));
    return 0;
}

/* At level shared a version that has gone down with others again and again, or while it was loading, starts in a worker
 * without others: if it is to blame, it is then alone in that, and backs off. Afterwards it may join others again. */
static int replica_start_usual(struct control *c, struct control_version *v, const struct registry_version *row,
                               struct error *err)
{
    struct bus_replica_start how = {.replica_uid = random_u64() | 1, .level = row->level}; /* never 0 */
    if (row->level == LADDER_SHARED && row->lends) /* whose worker hosts no other model, but other tenants' requests */
        how.flags |= BUS_START_OWN;
    else if (v->shared_losses >= SHARED_LOSSES_MAX)
        how.flags |= BUS_START_APART;
    int r = replica_start(c, v, row, &how, err);
    v->waits_cores = false;
    if (r >= 0 && (how.flags & BUS_START_APART))
        v->shared_losses = 0;
    return r;
}

static void replica_stop(struct control *c, struct control_replica *replica)
{
    if (replica->stopping)
        return;
    replica->stopping = true;
    fd_close(&replica->model_fd); /* so that many gigabytes are freed by the worker's end, and not by us */
    replica->version->n_stopping += !replica->lone;
    struct bus_replica body = {.replica_uid = replica->state.replica_uid, .reason = BUS_STOP_WANTED};
    (void)bus_conn_send(c->supervisor, BUS_REPLICA_STOP, &body, NULL, 0); /* without it we end anyway */
}

static void stop_some(struct control *c, struct control_version *v, uint32_t count)
{
    size_t cursor = 0;
    for (struct control_replica *r; count > 0 && (r = map_next(&c->replicas, &cursor));)
        if (r->version == v && !r->stopping && !r->lone) {
            replica_stop(c, r);
            count--;
        }
}

static void reconcile_at(struct control *c, uint64_t time_ns)
{
    if (time_ns < c->reconcile_at_ns)
        c->reconcile_at_ns = time_ns;
}

/* A start has failed, or waits for its back-off: comes it soon, who asked for it waits, else is told. */
static void start_later(struct control *c, struct control_version *v)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t wait_ns = v->start_after_ns > now_ns ? v->start_after_ns - now_ns : 0;
    reconcile_at(c, v->start_after_ns);
    if (v->demanded == 0 || (wait_ns < PATIENCE_NS && !v->start_failed))
        return;
    struct bus_demand_refused body = {.version_uid = v->uid, .tenant_uid = v->borrower_uid};
    (void)error_set(&body.error, ERROR_MODEL_UNAVAILABLE, "The model cannot be started: %s.", v->last_error);
    body.error.retry_after_ms = (uint32_t)(wait_ns / NS_PER_MS) + 1;
    (void)bus_conn_send(c->gateway, BUS_DEMAND_REFUSED, &body, NULL, 0); /* a new gateway demands anew */
    v->demanded = v->n_replicas - v->n_stopping;                         /* asked again by whom wants it again */
}

static void version_reconcile(struct control *c, struct control_version *v)
{
    struct registry_version row;
    struct error err = {0};
    if (!v->copying && !v->waits_copy)
        lones_continue(c, v, 0, &err);
    int found = registry_version_find(c->registry, v->uid, v->borrower_uid, &row, &err);
    uint32_t wanted = 0;
    int refused = 0;
    if (found == -ERROR_MODEL_NOT_FOUND) {
        v->demanded =
            0; /* deleted, or no longer lent: nobody takes the demand back, and with it v would stay for ever */
    } else if (found < 0) { /* the store cannot be read: no reason to stop what serves */
        log_error("reconcile", "%s", error_text(&err, found));
        reconcile_at(c, clock_monotonic_ns() + STORE_RETRY_NS);
        return;
    }
    if (found >= 0) {
        if (row.hosted) /* the owner's replicas serve it */
            v->demanded = 0;
        uint64_t most = row.replicas_max < LIMIT_REPLICAS_PER_MODEL ? row.replicas_max : LIMIT_REPLICAS_PER_MODEL;
        uint64_t least = row.newest ? row.replicas_min : 0;
        uint64_t number = v->demanded > least ? v->demanded : least;
        wanted = (uint32_t)(number < most ? number : most);
        refused = control_version_refusal(c, &row, &err);
    }
    v->waits_cores = v->waits_cores && wanted > 0;
    uint32_t have = v->n_replicas - v->n_stopping;
    if (refused < 0 && have > 0) { /* such as an older version, when its tenant's floor is raised */
        log_warn("replicas_refused", "tenant=%s model=%s version=%u: %s; its replicas are stopped", row.tenant,
                 row.model, row.number, error_text(&err, refused));
        stop_some(c, v, have);
        have = 0;
    } else if (have > wanted) {
        stop_some(c, v, have - wanted);
    }
    if (have < wanted && clock_monotonic_ns() < v->start_after_ns) {
        start_later(c, v);
        return;
    }
    for (; have < wanted; have++) {
        int r = refused < 0 ? refused : quota_refusal(c, &row, &err);
        if (r >= 0)
            r = files_look(c, v, &row, &err);
        if (r > 0)
            return;
        if (r >= 0)
            r = replica_start_usual(c, v, &row, &err);
        v->level_refused = refused < 0;
        v->start_failed = r < 0;
        if (r >= 0)
            continue;
        log_error("replica_start", "tenant=%s model=%s version=%u: %s", row.tenant, row.model, row.number,
                  error_text(&err, r));
        (void)snprintf(v->last_error, sizeof v->last_error, "%.255s", error_text(&err, r));
        back_off(v);
        start_later(c, v);
        break;
    }
    if (list_empty(&v->lones))
        files_forget(c, v);
}

static int want_minimum(void *ctx, const struct registry_version *row)
{
    struct control *c = ctx;
    return version_get(c, row->uid, 0) ? 0 : -ERROR_NO_MEMORY;
}

static bool version_idle(const struct control_version *v)
{
    uint64_t kept_ns = v->failures > 0 ? v->start_after_ns + FAILURES_KEPT_NS : 0;
    return v->n_replicas == 0 && v->n_lone == 0 && v->demanded == 0 && !v->copying && !v->waits_copy &&
           list_empty(&v->lones) && v->files[CONTROL_MODEL] < 0 && v->files[CONTROL_IMAGE] < 0 &&
           kept_ns < clock_monotonic_ns();
}

/* One version has changed and nothing else: looking at all costs a walk through the store for each. */
static void reconcile_one(struct control *c, struct control_version *v)
{
    if (!c->told || !c->registry)
        return;
    version_reconcile(c, v);
    if (version_idle(v)) /* such as one that does not exist: a gateway may demand what it likes */
        free(map_remove(&c->versions, v->key));
}

void control_reconcile(struct control *c)
{
    struct error err = {0};
    if (!c->told || !c->registry)
        return;
    c->reconcile_at_ns = UINT64_MAX;
    int r = registry_version_each_wanted(c->registry, want_minimum, c, &err);
    if (r < 0)
        log_error("reconcile", "%s", error_text(&err, r));
    /* Collected first: freeing a version moves the map's entries. */
    uint64_t gone[64];
    size_t n_gone = 0, cursor = 0;
    for (struct control_version *v; (v = map_next(&c->versions, &cursor));) {
        version_reconcile(c, v);
        if (version_idle(v) && n_gone < sizeof gone / sizeof gone[0])
            gone[n_gone++] = v->key;
    }
    for (size_t i = 0; i < n_gone; i++)
        free(map_remove(&c->versions, gone[i]));
}

void control_replicas_allow(struct control *c)
{
    size_t cursor = 0;
    for (struct control_version *v; (v = map_next(&c->versions, &cursor));) {
        if (!v->level_refused)
            continue;
        v->level_refused = false;
        v->failures = 0;
        v->start_after_ns = 0;
    }
    control_reconcile(c);
}

void control_demand(struct control *c, const struct bus_demand *body)
{
    struct control_version *v = version_get(c, body->version_uid, body->tenant_uid);
    if (!v)
        return; /* out of memory, or no such uids: the gateway's requests time out */
    v->demanded = body->replicas;
    reconcile_one(c, v);
}

/* May this one request be tried where nothing else is? */
static int lone_check(struct control *c, const struct bus_demand_lone *body, struct registry_version *ret_row,
                      struct error *err)
{
    if (!c->told || !c->registry || body->replica_uid == 0 || map_get(&c->replicas, body->replica_uid))
        return error_set_default(err, ERROR_WORKER_LOST);
    if (c->n_lone + c->n_lone_waits >= LIMIT_LONE_WORKERS)
        return error_set(err, ERROR_LIMIT, "%u requests are being tried again already", LIMIT_LONE_WORKERS);
    int r = registry_version_find(c->registry, body->version_uid, 0, ret_row, err);
    if (r < 0)
        return r;
    if (ret_row->floor > LADDER_PROCESS)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "its tenant demands more than level process by now");
    r = control_level_refusal(c, LADDER_PROCESS, err);
    if (r >= 0 && !version_get(c, body->version_uid, 0))
        r = error_set_default(err, ERROR_NO_MEMORY);
    return r;
}

static void lone_refuse(struct control *c, const struct bus_demand_lone *body, int r, const struct error *err)
{
    struct bus_demand_refused refused = {.version_uid = body->version_uid, .replica_uid = body->replica_uid};
    (void)error_set(&refused.error, ERROR_MODEL_UNAVAILABLE,
                    "The worker of this request was lost, and no other can be "
                    "started: %.300s.",
                    error_text(err, r));
    (void)bus_conn_send(c->gateway, BUS_DEMAND_REFUSED, &refused, NULL, 0); /* a new gateway knows of no request */
}

/* Starts it, or lets it wait for its model: 0. */
static int lone_start(struct control *c, const struct bus_demand_lone *body, struct error *err)
{
    struct registry_version row;
    struct bus_replica_start how = {.replica_uid = body->replica_uid, .level = LADDER_PROCESS, .flags = BUS_START_LONE};
    int r = lone_check(c, body, &row, err);
    if (r < 0)
        return r;
    struct control_version *v = version_get(c, body->version_uid, 0);
    r = v ? files_look(c, v, &row, err) : error_set_default(err, ERROR_NO_MEMORY);
    if (r == 0)
        return replica_start(c, v, &row, &how, err);
    struct lone_wait *wait = r > 0 ? malloc(sizeof *wait) : NULL;
    if (r > 0 && !wait)
        r = error_set_default(err, ERROR_NO_MEMORY);
    if (r < 0)
        return r;
    wait->body = *body;
    list_append(&v->lones, &wait->node);
    c->n_lone_waits++;
    return 0;
}

void control_demand_lone(struct control *c, const struct bus_demand_lone *body)
{
    struct error err = {0};
    int r = lone_start(c, body, &err);
    if (r < 0)
        lone_refuse(c, body, r, &err);
    struct control_version *v = map_get(&c->versions, body->version_uid);
    if (v)
        reconcile_one(c, v); /* which lets go what nobody else needs */
}

/* The copy that these waited for has ended, with rc. */
static void lones_continue(struct control *c, struct control_version *v, int rc, const struct error *err)
{
    struct list waits;
    list_init(&waits);
    list_each_safe(node, &v->lones)
    {
        list_remove(node);
        list_append(&waits, node);
    }
    list_each_safe(node, &waits)
    {
        struct lone_wait *wait = container_of(node, struct lone_wait, node);
        struct error own = *err;
        list_remove(node);
        c->n_lone_waits--;
        int r = rc < 0 ? rc : lone_start(c, &wait->body, &own);
        if (r < 0)
            lone_refuse(c, &wait->body, r, &own);
        free(wait);
    }
}

static void on_copied(void *ctx, int rc, int *fd, const struct error *err)
{
    struct control_version *v = ctx;
    struct control *c = v->control;
    v->copying = NULL;
    if (rc >= 0) {
        v->files[v->files[CONTROL_MODEL] < 0 ? CONTROL_MODEL : CONTROL_IMAGE] = take_fd(fd);
    } else {
        v->copy_failed = rc;
        (void)snprintf(v->last_error, sizeof v->last_error, "%.255s", error_text(err, rc));
    }
    if (rc < 0)
        lones_continue(c, v, rc, err);
    copy_ended(c, v);
    reconcile_one(c, v);
}

/* A replica has ended unasked: when the next may start. */
static void replica_lost(struct control_version *v, const struct control_replica *replica,
                         const struct bus_replica_state *body)
{
    bool stable = replica->loaded && clock_monotonic_ns() - replica->loaded_ns > STABLE_NS;
    v->restarts += !body->no_cores; /* then it never began */
    v->waits_cores = body->no_cores;
    (void)snprintf(v->last_error, sizeof v->last_error, "%s", body->text);
    if (stable)
        v->failures = v->shared_losses = 0;
    if (body->shared_lost > 1) { /* most of those in a lost worker are not to blame: who is wanted starts at once */
        v->shared_losses = replica->loaded ? v->shared_losses + 1 : SHARED_LOSSES_MAX;
        return;
    }
    if (replica->lone && replica->lends) /* one tenant's request, for which the others' worker does not start later */
        return;
    /* What waited was told so by the gateway, which asks again when there is something new to run. */
    if (!replica->lone)
        v->demanded = v->n_replicas;
    back_off(v);
}

static void on_ended(struct control *c, struct control_replica *replica, const struct bus_replica_state *body)
{
    struct control_version *v = replica->version;
    replica_count(c, replica, -1);
    v->n_stopping -= replica->stopping && !replica->lone;
    if (!body->wanted)
        replica_lost(v, replica, body);
    if (v->files[CONTROL_MODEL] < 0 && !v->copying) /* for the next, which need not wait for a copy then */
        v->files[CONTROL_MODEL] = take_fd(&replica->model_fd);
    (void)map_remove(&c->replicas, body->replica_uid);
    replica_free(replica);
    reconcile_one(c, v);
}

/* Of a replica that an earlier control process has started: the tenant, unless it is the owner. */
static uint64_t borrower_of(struct control *c, const struct bus_replica_state *body)
{
    struct registry_version row;
    struct error err = {0};
    int r = c->registry ? registry_version_find(c->registry, body->version_uid, 0, &row, &err) : -ERROR_DRAINING;
    return r >= 0 && row.tenant_uid != body->tenant_uid ? body->tenant_uid : 0;
}

void control_cores(struct control *c, const struct bus_cores *body)
{
    bool freed = body->dedicated < c->cores.dedicated;
    c->cores = *body;
    if (!freed)
        return;
    size_t cursor = 0;
    for (struct control_version *v; (v = map_next(&c->versions, &cursor));)
        if (v->waits_cores) {
            v->waits_cores = false;
            v->failures = 0;
            v->start_after_ns = 0;
        }
    control_reconcile(c);
}

int control_cores_refusal(void *ctx, uint64_t cores, uint64_t replicas, struct error *err)
{
    const struct control *c = ctx;
    const struct bus_cores *known = &c->cores;
    if (known->total == 0)
        return error_set(err, ERROR_AGAIN, "is not known to be possible yet; try again in a few seconds");
    if (!known->usable)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "is not available: %.200s", known->text);
    uint64_t threads = known->threads_per_core > 0 ? known->threads_per_core : 1;
    uint64_t each = (cores + threads - 1) / threads * threads;
    uint32_t slots = c->config.devices[0].slots, have = known->total < slots ? known->total : slots;
    if (each * replicas < have) /* ≤ 4096 × LIMIT_REPLICAS_PER_MODEL */
        return 0;
    return error_set(err, ERROR_REFUSED,
                     "wants %llu cores for each of spec.replicas.max %llu, but this server has %u%s, and one must stay "
                     "for everything else",
                     (unsigned long long)each, (unsigned long long)replicas, have,
                     threads > 1 ? " (whole cores are given, with all their hardware threads)" : "");
}

void control_replica_state(struct control *c, const struct bus_replica_state *body)
{
    struct control_replica *replica = map_get(&c->replicas, body->replica_uid);
    bool adopted = false;
    if (!replica && body->phase != BUS_REPLICA_ENDED) { /* started by an earlier control process */
        struct control_version *v = version_get(c, body->version_uid, borrower_of(c, body));
        replica = v ? replica_new() : NULL;
        if (!replica || map_put(&c->replicas, body->replica_uid, replica) < 0) {
            replica_free(replica);
            return;
        }
        replica->version = v;
        replica->lone = body->lone;
        replica_count(c, replica, 1);
        adopted = body->phase != BUS_REPLICA_STOPPING && !replica->lone;
    }
    if (!replica)
        return;
    replica->state = *body;
    if (body->phase == BUS_REPLICA_STOPPING && !replica->stopping) {
        replica->stopping = true;
        replica->version->n_stopping += !replica->lone;
    }
    if (adopted && replica->version->demanded < replica->version->n_replicas - replica->version->n_stopping)
        replica->version->demanded++; /* it stays until someone says idle */
    if (body->phase == BUS_REPLICA_ENDED)
        on_ended(c, replica, body);
}

void control_replica_loaded(struct control *c, const struct bus_replica_loaded *body)
{
    struct control_replica *replica = map_get(&c->replicas, body->replica_uid);
    if (!replica)
        return;
    if (body->error.code < 0) {
        (void)snprintf(replica->version->last_error, sizeof replica->version->last_error, "%.255s", body->error.text);
        log_error("model_load", "tenant=%s model=%s: %s", replica->state.tenant, replica->state.model,
                  body->error.text);
        return; /* its end follows */
    }
    if (!replica->loaded) {
        replica->loaded = true;
        replica->loaded_ns = clock_monotonic_ns();
        log_info("replica_loaded", "tenant=%s model=%s version=%u", replica->state.tenant, replica->state.model,
                 replica->state.version_number);
    }
}
