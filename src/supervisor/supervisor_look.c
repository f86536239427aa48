/* What a replica's wall really consists of, read from /proc when somebody asks. */
#include "supervisor/supervisor_internal.h"

#include "isolate/isolate_facts.h"
#include "ladder/ladder.h"

#include <stdio.h>
#include <string.h>

_Static_assert(BUS_NAMESPACES == ISOLATE_NS_COUNT, "the bus carries the same namespaces");

/* The parts that are there, as seen; where the kernel tells nothing, a part counts as missing. */
static uint32_t parts_of(const struct isolate_facts *f, bool limits)
{
    static const uint32_t part_of_namespace[ISOLATE_NS_COUNT] = {
        [ISOLATE_NS_CGROUP] = LADDER_CGROUP_NS, [ISOLATE_NS_IPC] = LADDER_IPC_NS, [ISOLATE_NS_MNT] = LADDER_MOUNT_NS,
        [ISOLATE_NS_NET] = LADDER_NET_NS,       [ISOLATE_NS_PID] = LADDER_PID_NS, [ISOLATE_NS_USER] = LADDER_USER_NS,
        [ISOLATE_NS_UTS] = LADDER_UTS_NS,
    };
    uint32_t parts = 0;
    for (unsigned i = 0; i < ISOLATE_NS_COUNT; i++)
        if (f->own & (1u << i))
            parts |= part_of_namespace[i];
    if (f->own_root)
        parts |= LADDER_ROOT;
    if (limits && f->cgroup[0])
        parts |= LADDER_LIMITS;
    if (f->seccomp == 2)
        parts |= LADDER_SECCOMP;
    /* Capabilities in a user namespace of its own give none on the host. */
    if (f->no_new_privs && f->uid != 0 && (f->capabilities == 0 || (parts & LADDER_USER_NS)))
        parts |= LADDER_NO_PRIVILEGE;
    return parts;
}

static void replica_look(struct supervisor *s, struct supervisor_replica *r, uint64_t id)
{
    struct isolate_report report = {0};
    struct isolate_facts facts;
    r->worker->ops->explain(r->worker->instance, &report);
    if (!isolate_facts_read(r->worker->pid, &facts))
        return; /* it has just ended */
    struct bus_replica_facts body = {
        .look_id = id,
        .replica_uid = r->start.replica_uid,
        .capabilities = facts.capabilities,
        .own_namespaces = facts.own,
        .parts = parts_of(&facts, report.limits),
        .seccomp = facts.seccomp,
        .no_new_privs = facts.no_new_privs,
        .uid = facts.uid,
        .pid = r->worker->pid,
    };
    if (r->shared)
        supervisor_shared_beside(r, &body.shared_replicas, &body.shared_tenants);
    struct isolate_cpus cpus;
    if (isolate_cpus_of(r->worker->pid, &cpus) == 0)
        isolate_cpus_text(&cpus, body.cpus, sizeof body.cpus);
    body.own_cpus = isolate_cpus_count(&r->cpus) > 0;
    memcpy(body.namespaces, facts.namespaces, sizeof body.namespaces);
    memcpy(body.cgroup, facts.cgroup, sizeof body.cgroup);
    memcpy(body.kernel, facts.kernel, sizeof body.kernel);
    (void)snprintf(body.wall, sizeof body.wall, "%s", report.text); /* same size */
    supervisor_tell(s, CHILD_CONTROL, BUS_REPLICA_FACTS, &body, NULL, 0);
}

void supervisor_look(struct supervisor *s, const struct bus_look *look)
{
    size_t cursor = 0;
    for (struct supervisor_replica *r; (r = map_next(&s->replicas, &cursor));)
        if (r->start.model_uid == look->model_uid && r->state == REPLICA_RUNNING)
            replica_look(s, r, look->id);
    supervisor_tell(s, CHILD_CONTROL, BUS_LOOKED, look, NULL, 0);
}
