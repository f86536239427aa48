/* Processors of one replica alone (spec.resources.cpuset: dedicated): which, and everything else kept off them.
 *
 * A replica gets whole cores, all hardware threads of each, the highest numbers first: what the kernel does for the
 * whole host is mostly at the lowest. The rest is for all other workers, by their cpusets, and for the server's own
 * processes, by their affinity. Other programs of this host are not the server's to move. */
#include "supervisor/supervisor_internal.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define WATCH_MS 2000u /* between two looks whether the kernel took a processor away */

/* What replicas have of their own by now. */
static struct isolate_cpus taken(const struct supervisor *s)
{
    struct isolate_cpus all = {0};
    size_t cursor = 0;
    for (const struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));)
        isolate_cpus_unite(&all, &r->cpus);
    return all;
}

static bool dedicated(const struct supervisor_replica *r)
{
    return isolate_cpus_count(&r->cpus) > 0;
}

/* Without those that are switched off by now. */
static void keep_online(struct isolate_cpus *set)
{
    char text[ISOLATE_CPUS_TEXT];
    struct isolate_cpus online;
    _close_ int fd = open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (size > 0 && isolate_cpus_parse((struct str){text, (size_t)size}, &online) == 0)
        isolate_cpus_keep(set, &online);
}

void supervisor_cores_tell(struct supervisor *s, int child)
{
    const struct supervisor_cores *c = &s->cores;
    struct isolate_cpus all = taken(s);
    struct bus_cores body = {.usable = s->levels[ISOLATE_PROCESS].report.cpusets,
                             .total = isolate_cpus_count(&c->host),
                             .threads_per_core = c->threads_per_core,
                             .dedicated = isolate_cpus_count(&all)};
    isolate_cpus_text(&all, body.taken, sizeof body.taken);
    (void)snprintf(body.text, sizeof body.text, "%s", s->levels[ISOLATE_PROCESS].report.cpusets_text); /* same size */
    supervisor_tell(s, child, BUS_CORES, &body, NULL, 0);
}

/* Everything that is no dedicated replica's stays on `rest`. The first worker that cannot be moved is told. */
static int others_move(struct supervisor *s, const struct isolate_cpus *rest, struct error *err)
{
    int result = 0;
    list_each(node, &s->workers)
    {
        struct supervisor_worker *w = container_of(node, struct supervisor_worker, in_all);
        if (!w->instance || w->cpus_own || !w->ops->cpus)
            continue;
        struct error why = {0};
        int r = w->ops->cpus(w->instance, rest, &why);
        if (r < 0 && result == 0)
            result = error_set(err, r, "another worker could not be moved away: %.300s", error_text(&why, r));
    }
    bool bound = isolate_cpus_bind(getpid(), rest);
    for (int i = 0; i < CHILD_COUNT; i++)
        if (s->children[i].pid > 0)
            bound &= isolate_cpus_bind(s->children[i].pid, rest);
    if (!bound)
        log_warn("cores", "the server's own processes could not be kept off the processors that replicas have of "
                          "their own");
    return result;
}

static int changed(struct supervisor *s, struct error *err)
{
    struct isolate_cpus all = taken(s);
    s->cores.rest = s->cores.host;
    isolate_cpus_subtract(&s->cores.rest, &all);
    int r = others_move(s, &s->cores.rest, err);
    supervisor_cores_tell(s, CHILD_CONTROL);
    supervisor_cores_tell(s, CHILD_GATEWAY);
    return r;
}

/* Their worker runs where it must not: a processor was switched off, or somebody has changed its group. */
static void on_watch(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    bool any = false;
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        struct isolate_cpus now;
        if (!dedicated(r))
            continue;
        any = true;
        if (r->worker && r->worker->instance && isolate_cpus_of(r->worker->pid, &now) == 0 &&
            !isolate_cpus_within(&now, &r->cpus))
            supervisor_replica_displaced(r);
    }
    if (!any)
        (void)uv_timer_stop(timer);
}

void supervisor_cores_open(struct supervisor *s)
{
    struct supervisor_cores *c = &s->cores;
    if (isolate_cpus_of(0, &c->host) < 0)
        c->host = (struct isolate_cpus){0};
    c->rest = c->host;
    c->threads_per_core = 1;
    for (uint32_t cpu = 0; cpu < LIMIT_CPUS; cpu++) {
        struct isolate_cpus core;
        if (!isolate_cpus_has(&c->host, cpu))
            continue;
        isolate_cpus_core(cpu, &core);
        uint32_t n = isolate_cpus_count(&core);
        c->threads_per_core = n > c->threads_per_core ? n : c->threads_per_core;
    }
    (void)uv_timer_init(s->loop, &c->watch); /* always succeeds */
    c->watch.data = s;
}

const struct isolate_cpus *supervisor_cores_rest(const struct supervisor *s)
{
    return s->levels[ISOLATE_PROCESS].report.cpusets ? &s->cores.rest : NULL;
}

void supervisor_cores_probed(struct supervisor *s)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));)
        if (dedicated(r) && !s->levels[ISOLATE_PROCESS].report.cpusets)
            supervisor_replica_displaced(r);
    supervisor_cores_tell(s, CHILD_CONTROL);
    supervisor_cores_tell(s, CHILD_GATEWAY);
}

/* Whole cores of those that are free, one of which must remain. */
static bool cores_pick(const struct supervisor *s, uint32_t n, struct isolate_cpus *ret_set)
{
    struct isolate_cpus all = taken(s), left = s->cores.host, set = {0};
    isolate_cpus_subtract(&left, &all);
    keep_online(&left);
    for (uint32_t cpu = LIMIT_CPUS; cpu-- > 0 && isolate_cpus_count(&set) < n;) {
        struct isolate_cpus core;
        if (!isolate_cpus_has(&left, cpu))
            continue;
        isolate_cpus_core(cpu, &core);
        if (!isolate_cpus_within(&core, &left)) /* a thread of it is somebody else's, or switched off */
            continue;
        isolate_cpus_unite(&set, &core);
        isolate_cpus_subtract(&left, &core);
    }
    *ret_set = set;
    return isolate_cpus_count(&set) >= n && isolate_cpus_count(&left) > 0;
}

/* A model's new version takes over from the old one: for so long both are on the old one's processors. */
static bool cores_inherit(const struct supervisor_replica *heir, struct isolate_cpus *ret_set)
{
    const struct supervisor *s = heir->supervisor;
    size_t cursor = 0, inner = 0;
    for (const struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));) {
        if (r == heir || !dedicated(r) || r->start.model_uid != heir->start.model_uid ||
            r->start.version_number == heir->start.version_number || r->start.cpu_milli < heir->start.cpu_milli)
            continue;
        uint32_t n = 0;
        inner = 0;
        for (const struct supervisor_replica *other; (other = map_next(&s->replicas, &inner));)
            n += dedicated(other) && isolate_cpus_within(&other->cpus, &r->cpus);
        if (n > 1)
            continue;
        *ret_set = r->cpus;
        return true;
    }
    return false;
}

int supervisor_cores_take(struct supervisor_replica *r, struct error *err)
{
    struct supervisor *s = r->supervisor;
    uint32_t n = (r->start.cpu_milli + 999) / 1000;
    struct isolate_cpus set;
    if (!(r->start.flags & BUS_START_DEDICATED))
        return 0;
    if (!s->levels[ISOLATE_PROCESS].report.cpusets)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "this host cannot give a replica processors of its own (spec.resources.cpuset): %.200s",
                         s->levels[ISOLATE_PROCESS].report.cpusets_text);
    if (!cores_pick(s, n, &set) && !cores_inherit(r, &set)) {
        struct isolate_cpus all = taken(s);
        r->no_cores = true;
        return error_set(
            err, ERROR_LIMIT,
            "it waits for %u processors of its own: of this host's %u, %u are other replicas' own, and one "
            "core stays for everything else",
            n, isolate_cpus_count(&s->cores.host), isolate_cpus_count(&all));
    }
    r->cpus = set;
    int result = changed(s, err);
    if (result < 0) {
        supervisor_cores_give(r);
        return result;
    }
    (void)uv_timer_start(&s->cores.watch, on_watch, WATCH_MS, WATCH_MS);
    return 0;
}

void supervisor_cores_give(struct supervisor_replica *r)
{
    struct error err = {0};
    if (!dedicated(r))
        return;
    r->cpus = (struct isolate_cpus){0};
    int result = changed(r->supervisor, &err);
    if (result < 0) /* it has fewer processors than it could */
        log_warn("cores", "%s", error_text(&err, result));
}
