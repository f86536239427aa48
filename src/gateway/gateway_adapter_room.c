/* Room for adapters in a worker: what each tenant may have there, and which one goes for another. */
#include "gateway/gateway_adapter_internal.h"

#include "base/clock.h"

#define OVERDUE_NS (5 * NS_PER_S)

/* --- who waits --- */

bool gateway_adapter_nobody_aside(const struct gateway_adapter *a)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        if (!list_empty(&a->aside[class]))
            return false;
    return true;
}

bool gateway_adapter_is_missed(const struct gateway_batch *b, const struct gateway_adapter *a)
{
    return gateway_lifted_first(b, a->uid) != NULL;
}

uint32_t gateway_adapter_class(const struct gateway_batch *b, const struct gateway_adapter *a)
{
    uint32_t top = 0;
    while (top < SCHEDULE_CLASS_COUNT && list_empty(&a->aside[top]))
        top++;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        const struct gateway_sequence *s = &b->sequences[i];
        uint32_t class = (uint32_t)s->request->schedule.priority;
        top = s->lifted && s->request->adapter_uid == a->uid && class < top ? class : top;
    }
    return top;
}

bool gateway_adapter_is_overdue(const struct gateway_adapter *a, uint64_t now_ns)
{
    return a->wanted_ns > 0 && now_ns > a->wanted_ns && now_ns - a->wanted_ns > OVERDUE_NS;
}

/* --- budgets --- */

/* It takes room in the worker, or will. */
static bool takes_room(const struct gateway_adapter *a)
{
    return a->state == ADAPTER_ASKED || a->state == ADAPTER_LOADED || a->state == ADAPTER_STRAY;
}

static uint64_t room_used(const struct gateway_batch *b, const struct gateway_tenant *t) /* NULL: by all */
{
    uint64_t bytes = 0;
    list_each(node, &b->adapters)
    {
        const struct gateway_adapter *a = gateway_adapter_at(node);
        if (takes_room(a) && (!t || a->tenant == t))
            bytes += a->bytes;
    }
    return bytes;
}

static uint64_t room_of(const struct gateway_batch *b)
{
    return b->replica->version->signature->token.adapter_bytes;
}

/* The tenants that have adapters there, or want some, t among them. */
static uint32_t tenants_of(const struct gateway_batch *b, const struct gateway_tenant *t,
                           const struct gateway_tenant *seen[LIMIT_ADAPTERS_LOADED])
{
    uint32_t n = 0;
    seen[n++] = t;
    list_each(node, &b->adapters)
    {
        const struct gateway_tenant *other = gateway_adapter_at(node)->tenant;
        bool known = gateway_adapter_at(node)->state == ADAPTER_REFUSED;
        for (uint32_t i = 0; i < n && !known; i++)
            known = seen[i] == other;
        if (!known && n < LIMIT_ADAPTERS_LOADED)
            seen[n++] = other;
    }
    return n;
}

/* What a tenant may have loaded there. Where the budgets of those that are there exceed the room, each is cut alike. */
static uint64_t budget_of(const struct gateway_batch *b, const struct gateway_tenant *t)
{
    const struct gateway *g = b->replica->gateway;
    const struct gateway_tenant *seen[LIMIT_ADAPTERS_LOADED];
    uint32_t n = tenants_of(b, t, seen);
    uint64_t room = room_of(b), sum = 0, own = 0;
    for (uint32_t i = n; i-- > 0;) { /* t last */
        uint64_t quota =
            gateway_tenant_present(g, seen[i]) ? catalog_tenant_at(g->catalog, seen[i]->index)->adapter_bytes_max : 0;
        own = quota == 0 ? room / n : quota < room ? quota : room;
        sum += own;
    }
    return sum > room ? (uint64_t)((unsigned __int128)own * room / sum) : own;
}

static uint32_t places_used(const struct gateway_batch *b, const struct gateway_tenant *t) /* NULL: by all */
{
    uint32_t n = 0;
    list_each(node, &b->adapters) n +=
        takes_room(gateway_adapter_at(node)) && (!t || gateway_adapter_at(node)->tenant == t);
    return n;
}

/* It has more than its budget of bytes, or than an equal share of the places. */
static bool is_over(const struct gateway_batch *b, const struct gateway_tenant *t)
{
    const struct gateway_tenant *seen[LIMIT_ADAPTERS_LOADED];
    return room_used(b, t) > budget_of(b, t) || places_used(b, t) > LIMIT_ADAPTERS_LOADED / tenants_of(b, t, seen);
}

/* It was loaded for requests that still wait for their places; those of lower classes count only while it is kept. */
static bool is_awaited(struct gateway_adapter *a, uint32_t class, uint64_t now_ns)
{
    bool some = false;
    for (uint32_t i = 0; i < SCHEDULE_CLASS_COUNT && a->unserved && !some; i++)
        list_each(node, &a->version->lines[i].requests)
        {
            some = container_of(node, struct gateway_request, node)->adapter_uid == a->uid;
            if (some && (i <= class || now_ns < a->kept_until_ns))
                return true;
            if (some)
                break;
        }
    a->unserved = some;
    return false;
}

/* All sequences that use it are of lower classes; some do. */
static bool may_be_lifted(const struct gateway_batch *b, const struct gateway_adapter *a, uint32_t class,
                          uint64_t now_ns)
{
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i].worn.number == a->worn.number &&
            (uint32_t)b->sequences[i].request->schedule.priority <= class)
            return false;
    return a->n_sequences > 0 && !a->stale && now_ns >= a->kept_until_ns;
}

enum whose { OF_TENANT, OF_THOSE_OVER, OF_ANYBODY };

struct search {
    const struct gateway_tenant *tenant;
    uint32_t class;
    bool lift; /* those in use too */
    uint64_t now_ns;
};

/* The least recently used one that may go, of those. */
static struct gateway_adapter *victim(struct gateway_batch *b, const struct search *s, enum whose whose)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = gateway_adapter_at(node);
        bool free_now = a->state == ADAPTER_LOADED && a->n_sequences == 0;
        bool lifted = s->lift && a->state == ADAPTER_LOADED && may_be_lifted(b, a, s->class, s->now_ns);
        if ((!free_now && !lifted) || is_awaited(a, s->class, s->now_ns))
            continue;
        if (a->stale || whose == OF_ANYBODY || (whose == OF_TENANT ? a->tenant == s->tenant : is_over(b, a->tenant)))
            return a;
    }
    return NULL;
}

/* For room in all. Who has none there at all gets one: only more tenants than there is room for come so far. */
static struct gateway_adapter *victim_of_all(struct gateway_batch *b, const struct search *s)
{
    struct gateway_adapter *gone = victim(b, s, OF_THOSE_OVER);
    if (!gone)
        gone = victim(b, s, OF_TENANT);
    return gone || places_used(b, s->tenant) > 0 ? gone : victim(b, s, OF_ANYBODY);
}

/* The least recently used of that tenant, or of those that have more than their budget. */
bool gateway_adapter_makes_way(const struct gateway_batch *b, const struct gateway_adapter *a, uint32_t class)
{
    bool for_tenant = false, for_all = false;
    uint64_t now_ns = uv_hrtime();
    if (a->state != ADAPTER_LOADED || a->unserved)
        return false;
    list_each(node, &b->adapters)
    {
        const struct gateway_adapter *o = gateway_adapter_at(node);
        uint32_t other = o->state == ADAPTER_WANTED ? gateway_adapter_class(b, o) : SCHEDULE_CLASS_COUNT;
        if (other == SCHEDULE_CLASS_COUNT || (other > class && !gateway_adapter_is_overdue(o, now_ns)))
            continue;
        for_tenant = for_tenant || (o->lack == LACKS_BUDGET && o->tenant == a->tenant);
        for_all = for_all || o->lack == LACKS_ROOM;
    }
    for_all = for_all && is_over(b, a->tenant);
    for (struct list *node = list_first(&b->adapters); (for_tenant || for_all) && gateway_adapter_at(node) != a;
         node = node->next) {
        const struct gateway_adapter *o = gateway_adapter_at(node);
        for_tenant = for_tenant && (o->state != ADAPTER_LOADED || o->tenant != a->tenant);
        for_all = for_all && (o->state != ADAPTER_LOADED || !is_over(b, o->tenant));
    }
    return for_tenant || for_all;
}

static void evict(struct gateway_batch *b, struct gateway_adapter *gone)
{
    if (gone->n_sequences > 0)
        gateway_sequences_lift(b, gone->worn.number);
    gone->n_sequences = 0;
    gateway_metrics_adapter(gone->version, BUS_METRICS_ADAPTER_EVICTED, 0);
    gateway_adapter_drop(b, gone);
}

/* Those that nobody uses go first; then others are lifted. */
static struct gateway_adapter *gone_next(struct gateway_batch *b, const struct gateway_adapter *a, bool of_all)
{
    struct search s = {.tenant = a->tenant, .class = gateway_adapter_class(b, a), .now_ns = uv_hrtime()};
    struct gateway_adapter *gone = of_all ? victim_of_all(b, &s) : victim(b, &s, OF_TENANT);
    s.lift = true;
    return gone ? gone : of_all ? victim_of_all(b, &s) : victim(b, &s, OF_TENANT);
}

int gateway_adapter_room(struct gateway_batch *b, struct gateway_adapter *a, struct error *err)
{
    uint64_t budget = budget_of(b, a->tenant), room = room_of(b);
    struct gateway_adapter *gone;
    a->lack = LACKS_NOTHING;
    if (room == 0)
        return error_set(err, ERROR_UNSUPPORTED, "the model's worker has no room for any");
    if (a->bytes > budget)
        return error_set(err, ERROR_LIMIT, "it takes more of a worker's memory than this tenant may have there");
    while (room_used(b, a->tenant) + a->bytes > budget) {
        if (!(gone = gone_next(b, a, false))) {
            a->lack = LACKS_BUDGET;
            return 1;
        }
        evict(b, gone);
    }
    while (room_used(b, NULL) + a->bytes > room || places_used(b, NULL) >= LIMIT_ADAPTERS_LOADED) {
        if (!(gone = gone_next(b, a, true))) {
            a->lack = LACKS_ROOM;
            return 1;
        }
        evict(b, gone);
    }
    return 0;
}
