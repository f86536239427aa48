/* Level `shared`: one worker hosts models of several tenants, behind the walls of level `process`. It starts as a blank
 * one does; each model that joins gets a conversation of its own, which the worker serves in a thread of its own. To
 * control and the gateway such a member is a replica like any other, with its own channel.
 *
 * A member that is no longer needed leaves: its conversation ends, the thread gives everything back, and the others
 * notice nothing. Whatever else goes wrong (a crash, a lease without end, a broken protocol, a thread that does not
 * leave) costs the worker its life and all its members with it: in one address space nobody can say who is sound. */
#include "supervisor/supervisor_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define FDS_PER_MEMBER 16u /* conversation, channel, the next channel, the model until it is mapped */
#define LEAVE_LOOK_MS  100u

struct supervisor_shared {
    struct list node; /* in supervisor.shared */
    struct supervisor *supervisor;
    struct supervisor_worker *worker;
    struct list members; /* of struct supervisor_replica, by in_shared */
    uint32_t n_members;
    bool apart; /* for one member only */
    bool dying;
    char engine[32];
};

static void shared_kill(struct supervisor_shared *sh)
{
    if (sh->dying)
        return;
    sh->dying = true;
    supervisor_worker_kill(sh->worker);
}

/* --- limits: of all members together --- */

static struct isolate_limits limits_add(struct isolate_limits sum, const struct supervisor_replica *r)
{
    struct isolate_limits own = supervisor_worker_limits(r->start.memory_bytes, r->start.cpu_milli);
    if (__builtin_add_overflow(sum.memory_bytes, own.memory_bytes, &sum.memory_bytes))
        sum.memory_bytes = UINT64_MAX; /* then the kernel refuses it */
    sum.cpu_milli += own.cpu_milli;    /* ≤ LIMIT_SHARED_MEMBERS times the device's slots: start_valid */
    sum.pids += own.pids;
    sum.file_bytes = own.file_bytes;
    sum.fds += FDS_PER_MEMBER;
    return sum;
}

static struct isolate_limits limits_of(const struct supervisor_shared *sh)
{
    struct isolate_limits sum = {0};
    list_each(node, &sh->members) sum = limits_add(sum, container_of(node, struct supervisor_replica, in_shared));
    return sum;
}

/* Somebody has left. Its memory may lie about in the allocator for a while, and the others must not be killed for that:
 * the limit never goes below what is in use and a quarter more. */
static void limits_lower(struct supervisor_shared *sh)
{
    struct isolate_limits limits = limits_of(sh);
    struct isolate_usage usage = {0};
    struct error err = {0};
    struct supervisor_worker *w = sh->worker;
    if (w->ops->usage(w->instance, &usage, NULL) >= 0) {
        uint64_t least = usage.memory_bytes + usage.memory_bytes / 4;
        limits.memory_bytes = limits.memory_bytes > least ? limits.memory_bytes : least;
    }
    int r = w->ops->limit(w->instance, &limits, &err);
    if (r < 0)
        log_debug("shared_limits", "engine=%s: the limits stay as they were: %s", sh->engine, error_text(&err, r));
}

/* --- members --- */

static void member_remove(struct supervisor_replica *r)
{
    struct supervisor_shared *sh = r->shared;
    list_remove(&r->in_shared);
    sh->n_members--;
    bus_conn_close(r->bus);
    r->bus = NULL;
    r->shared = NULL;
    r->worker = NULL;
}

/* A member has nothing to say: who hears something hears a process that was taken over. */
static void on_member_message(void *ctx, struct bus_message *m)
{
    struct supervisor_replica *r = ctx;
    (void)m;
    shared_kill(r->shared);
}

static void on_member_gone(void *ctx, int code)
{
    struct supervisor_replica *r = ctx;
    struct supervisor_shared *sh = r->shared;
    (void)code;
    r->bus = NULL;
    if (r->leave_by_ns == 0 || sh->dying) { /* its worker has ended or is ending, or its thread failed */
        shared_kill(sh);
        return;
    }
    struct supervisor *s = sh->supervisor;
    supervisor_replica_ended(r, 0, 0, 0);
    if (sh->n_members == 0)
        shared_kill(sh);
    else
        limits_lower(sh);
    supervisor_isolation_tell_level(s, ISOLATE_SHARED);
}

static int member_join(struct supervisor_shared *sh, struct supervisor_replica *r, struct error *err)
{
    static const struct bus_conn_events events = {.message = on_member_message, .gone = on_member_gone};
    struct supervisor *s = sh->supervisor;
    struct supervisor_worker *w = sh->worker;
    int pair[2];
    if (sh->n_members > 0) {
        struct isolate_limits limits = limits_add(limits_of(sh), r);
        int limited = w->ops->limit(w->instance, &limits, err);
        if (limited < 0 && !s->config->allow_unlimited)
            return limited;
    }
    int result = bus_pair(pair, err);
    if (result < 0)
        return result;
    _close_ int ours = pair[0], theirs = pair[1];
    struct bus_empty nothing = {0};
    result = bus_conn_open(s->loop, ours, BUS_SUPERVISOR, BUS_WORKER, &events, r, &r->bus);
    if (result < 0)
        return error_set(err, result, "a worker cannot be spoken to");
    (void)take_fd(&ours);
    result = bus_conn_send(w->bus, BUS_WORKER_HOST, &nothing, &theirs, 1);
    if (result < 0) {
        bus_conn_close(r->bus);
        r->bus = NULL;
        return error_set(err, result, "a shared worker does not take another model");
    }
    list_append(&sh->members, &r->in_shared);
    sh->n_members++;
    r->shared = sh;
    r->worker = w;
    return 0;
}

/* --- the worker --- */

static void on_worker_message(void *owner, struct bus_message *m)
{
    if (m->type != BUS_BLANK_READY)
        shared_kill(owner);
}

static void on_worker_gone(void *owner)
{
    shared_kill(owner);
}

static void on_worker_ended(void *owner, int status, uint64_t oom_kills)
{
    struct supervisor_shared *sh = owner;
    struct supervisor *s = sh->supervisor;
    uint32_t n_members = sh->n_members;
    sh->dying = true;
    if (n_members > 0)
        log_warn("shared_lost", "engine=%s pid=%d: a shared worker ended with %u models in it (wait status %d%s)",
                 sh->engine, (int)sh->worker->pid, n_members, status, oom_kills > 0 ? ", out of memory" : "");
    for (struct list *node; (node = list_first(&sh->members));)
        supervisor_replica_ended(container_of(node, struct supervisor_replica, in_shared), status, oom_kills,
                                 n_members);
    supervisor_worker_free(sh->worker);
    list_remove(&sh->node);
    free(sh);
    supervisor_isolation_tell_level(s, ISOLATE_SHARED);
    supervisor_drain_step(s);
}

static const struct supervisor_worker_events worker_events = {
    .message = on_worker_message, .gone = on_worker_gone, .ended = on_worker_ended};

static int shared_start(struct supervisor_replica *r, int library_fd, struct supervisor_shared **ret_shared,
                        struct error *err)
{
    static uint64_t number;
    struct supervisor *s = r->supervisor;
    char name[64];
    (void)snprintf(name, sizeof name, "shared-%016llx", (unsigned long long)++number); /* fits */
    struct supervisor_worker_spec spec = {
        .name = name,
        .level = ISOLATE_SHARED,
        .library_fd = library_fd,
        .limits = limits_add((struct isolate_limits){0}, r),
    };
    spec.limits.fds = supervisor_worker_limits(1, 1).fds + LIMIT_SHARED_MEMBERS * FDS_PER_MEMBER; /* once, for all */
    struct supervisor_shared *sh = calloc(1, sizeof *sh);
    if (!sh)
        return error_set_default(err, ERROR_NO_MEMORY);
    sh->supervisor = s;
    sh->apart = r->start.flags & BUS_START_APART;
    memcpy(sh->engine, r->start.engine, sizeof sh->engine);
    list_init(&sh->members);
    int result = supervisor_worker_start(s, &spec, &worker_events, sh, &sh->worker, err);
    if (result < 0) {
        free(sh);
        return result;
    }
    list_append(&s->shared, &sh->node);
    struct bus_worker_blank body = {.library = supervisor_library_where(sh->worker->ops, library_fd), .hosts = 1};
    memcpy(body.engine, sh->engine, sizeof body.engine);
    result = bus_conn_send(sh->worker->bus, BUS_WORKER_BLANK, &body, NULL, 0);
    if (result < 0) {
        shared_kill(sh); /* ends through its pidfd */
        return error_set(err, result, "a worker does not take its configuration");
    }
    *ret_shared = sh;
    return 0;
}

static bool shared_takes(const struct supervisor_shared *sh, const struct supervisor_replica *r)
{
    return !sh->dying && !sh->apart && !(r->start.flags & BUS_START_APART) && sh->n_members < LIMIT_SHARED_MEMBERS &&
           strcmp(sh->engine, r->start.engine) == 0;
}

/* --- for the other files --- */

int supervisor_shared_join(struct supervisor_replica *r, int library_fd, struct error *err)
{
    struct supervisor *s = r->supervisor;
    struct supervisor_shared *sh = NULL;
    list_each(node, &s->shared)
    {
        struct error why = {0};
        struct supervisor_shared *other = container_of(node, struct supervisor_shared, node);
        if (!shared_takes(other, r))
            continue;
        int result = member_join(other, r, &why);
        if (result >= 0) {
            supervisor_isolation_tell_level(s, ISOLATE_SHARED);
            return 0;
        }
        log_info("shared_full", "engine=%s pid=%d: a shared worker takes no further model: %s", other->engine,
                 (int)other->worker->pid, error_text(&why, result));
    }
    int result = shared_start(r, library_fd, &sh, err);
    if (result < 0)
        return result;
    result = member_join(sh, r, err);
    if (result < 0)
        shared_kill(sh);
    supervisor_isolation_tell_level(s, ISOLATE_SHARED);
    return result;
}

static void on_leave_timer(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    uint64_t now_ns = clock_monotonic_ns();
    bool waits = false;
    list_each(node, &s->shared)
    {
        struct supervisor_shared *sh = container_of(node, struct supervisor_shared, node);
        list_each(member, &sh->members)
        {
            const struct supervisor_replica *r = container_of(member, struct supervisor_replica, in_shared);
            if (sh->dying || r->leave_by_ns == 0)
                continue;
            waits = true;
            if (r->leave_by_ns > now_ns)
                continue;
            log_warn("shared_stuck", "tenant=%s model=%s: it does not leave its shared worker, which is ended",
                     r->start.tenant, r->start.model);
            shared_kill(sh);
        }
    }
    if (!waits)
        (void)uv_timer_stop(timer); /* always succeeds */
}

void supervisor_shared_leave(struct supervisor_replica *r, bool trusted)
{
    struct supervisor *s = r->supervisor;
    if (!trusted || !r->bus) {
        shared_kill(r->shared);
        return;
    }
    if (r->leave_by_ns > 0)
        return;
    r->leave_by_ns = clock_monotonic_ns() + LIMIT_SHARED_LEAVE_MS * NS_PER_MS;
    bus_conn_finish(r->bus);
    if (!uv_is_active((uv_handle_t *)&s->shared_timer)) /* fails only on a closing handle */
        (void)uv_timer_start(&s->shared_timer, on_leave_timer, LEAVE_LOOK_MS, LEAVE_LOOK_MS);
}

void supervisor_shared_forget(struct supervisor_replica *r)
{
    member_remove(r);
}

void supervisor_shared_open(struct supervisor *s)
{
    list_init(&s->shared);
    (void)uv_timer_init(s->loop, &s->shared_timer); /* always succeeds */
    s->shared_timer.data = s;
}

uint32_t supervisor_shared_count(const struct supervisor *s)
{
    uint32_t n = 0;
    list_each(node, &s->shared) n++;
    return n;
}

void supervisor_shared_text(const struct supervisor *s, char *text, size_t capacity)
{
    uint32_t n_workers = 0, n_models = 0;
    list_each(node, &s->shared)
    {
        n_workers++;
        n_models += container_of(node, struct supervisor_shared, node)->n_members;
    }
    (void)snprintf(text, capacity, "%u replicas in %u shared workers", n_models,
                   n_workers); /* cut is fine: for people */
}

void supervisor_shared_beside(const struct supervisor_replica *r, uint32_t *ret_replicas, uint32_t *ret_tenants)
{
    uint64_t tenants[LIMIT_SHARED_MEMBERS];
    uint32_t n_replicas = 0, n_tenants = 0;
    list_each(node, &r->shared->members)
    {
        const struct supervisor_replica *other = container_of(node, struct supervisor_replica, in_shared);
        uint32_t i = 0;
        n_replicas += other != r;
        if (other->start.tenant_uid == r->start.tenant_uid)
            continue;
        while (i < n_tenants && tenants[i] != other->start.tenant_uid)
            i++;
        if (i == n_tenants)
            tenants[n_tenants++] = other->start.tenant_uid;
    }
    *ret_replicas = n_replicas;
    *ret_tenants = n_tenants;
}
