/* Adapters: found by the names of their owner, brought into a running worker when the first generation needs them, and
 * dropped when others do. Control has the bytes; the worker says when they are loaded.
 *
 *   (none) ──wanted──► WANTED ──room──► ASKED ──the worker: loaded──► LOADED ──not used, room needed──► (dropped)
 *                         └──────────────┴──refused, or too large──► REFUSED for a second, with the words
 *   ASKED ──control was lost──► STRAY (its answer drops it), and WANTED anew under another number
 *
 * Whose generation waits for one stands aside, out of its line, so that nobody waits behind it, and its deadline goes
 * on. A tenant has a budget of bytes in each worker: its quota, or an equal share of the worker's room among those that
 * have adapters there. Within it the least recently used one goes, never one that a sequence uses; and for room others
 * give theirs only as far as they have more than their budget.
 *
 * So that one that is always used cannot keep another out, it makes way for one that waits: what then comes for it
 * stands aside too, until its sequences have ended and it is gone, or nobody waits for its room any more. And one that
 * was loaded is used once before it goes. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define REFUSED_NS NS_PER_S

enum gateway_adapter_state {
    ADAPTER_WANTED = 1,
    ADAPTER_ASKED,
    ADAPTER_LOADED,
    ADAPTER_STRAY,
    ADAPTER_REFUSED,
};

/* What keeps a wanted one out. */
enum gateway_adapter_lack { LACKS_NOTHING, LACKS_BUDGET, LACKS_ROOM };

struct gateway_adapter {
    struct list in_batch; /* the least recently used first */
    struct list aside;    /* requests that wait for it */
    enum gateway_adapter_state state;
    struct gateway_tenant *tenant; /* which the version keeps */
    struct gateway_version *version;
    uint64_t uid, bytes;
    uint32_t number; /* in the worker; 0: not asked for */
    uint32_t n_sequences;
    bool counted; /* in the figures, as loaded */
    enum gateway_adapter_lack lack;
    bool unserved; /* loaded for requests that are back in their line, and of which none has a place yet */
    bool stale;    /* the catalog has it no more: goes with its last sequence */
    uint64_t refused_until_ns;
    struct error refusal;
};

static struct gateway_adapter *adapter_at(struct list *node)
{
    return container_of(node, struct gateway_adapter, in_batch);
}

/* --- names --- */

const struct catalog_adapter *gateway_adapter_row(const struct gateway *g, const struct gateway_tenant *t,
                                                  struct str name)
{
    if (!gateway_tenant_present(g, t))
        return NULL;
    const char *colon = memchr(name.data, ':', name.size);
    size_t base = colon ? (size_t)(colon - name.data) : 0;
    struct str own = colon ? (struct str){name.data + base + 1, name.size - base - 1} : name;
    const struct catalog_adapter *row = catalog_adapter_find(g->catalog, t->index, own);
    if (row && colon &&
        !str_equal(str_from(catalog_model_at(g->catalog, row->model)->name), (struct str){name.data, base}))
        return NULL;
    return row;
}

int gateway_model_find(struct gateway_request *r, struct str name, struct gateway_version **ret_version,
                       struct error *err)
{
    int code = gateway_version_find(r, name, (struct str){0}, ret_version, err);
    const struct catalog_adapter *row =
        code == -ERROR_MODEL_NOT_FOUND ? gateway_adapter_row(r->gateway, r->tenant, name) : NULL;
    if (!row)
        return code;
    const char *base = catalog_model_at(r->gateway->catalog, row->model)->name;
    code = gateway_version_find(r, str_from(base), (struct str){0}, ret_version, err);
    if (code < 0)
        return code;
    r->adapter_uid = row->uid;
    (void)snprintf(r->adapter_name, sizeof r->adapter_name, "%s", row->name);
    return 0;
}

/* The catalog's row of a request's adapter as it was when it came; NULL: it is gone, or has become another. */
static const struct catalog_adapter *row_of(const struct gateway_request *r)
{
    const struct catalog_adapter *row = gateway_adapter_row(r->gateway, r->tenant, str_from(r->adapter_name));
    return row && row->uid == r->adapter_uid ? row : NULL;
}

/* --- budgets --- */

static struct gateway_adapter *find(const struct gateway_batch *b, uint64_t uid)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        if (a->uid == uid && a->state != ADAPTER_STRAY)
            return a;
    }
    return NULL;
}

static struct gateway_adapter *find_number(const struct gateway_batch *b, uint32_t number)
{
    list_each(node, &b->adapters)
    {
        if (adapter_at(node)->number == number && number > 0)
            return adapter_at(node);
    }
    return NULL;
}

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
        const struct gateway_adapter *a = adapter_at(node);
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
        const struct gateway_tenant *other = adapter_at(node)->tenant;
        bool known = adapter_at(node)->state == ADAPTER_REFUSED;
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
    list_each(node, &b->adapters) n += takes_room(adapter_at(node)) && (!t || adapter_at(node)->tenant == t);
    return n;
}

/* It has more than its budget of bytes, or than an equal share of the places. */
static bool is_over(const struct gateway_batch *b, const struct gateway_tenant *t)
{
    const struct gateway_tenant *seen[LIMIT_ADAPTERS_LOADED];
    return room_used(b, t) > budget_of(b, t) || places_used(b, t) > LIMIT_ADAPTERS_LOADED / tenants_of(b, t, seen);
}

/* Where requests wait for it, it is wanted again, behind the others. */
static void drop(struct gateway_batch *b, struct gateway_adapter *a)
{
    struct gateway_replica *replica = b->replica;
    assert(a->n_sequences == 0);
    struct channel_frame frame = {.type = CHANNEL_ADAPTER_DROP, .index = a->number};
    if (a->state == ADAPTER_LOADED && replica->channel && channel_push(replica->channel, &frame) == 0)
        channel_ring(replica->channel);
    struct gateway_version *v = a->version;
    if (take(&a->counted))
        gateway_metrics_adapter(v, BUS_METRICS_ADAPTER_GONE, a->bytes);
    list_remove(&a->in_batch);
    if (!list_empty(&a->aside)) {
        a->state = ADAPTER_WANTED;
        a->number = 0;
        a->unserved = false;
        list_append(&b->adapters, &a->in_batch);
        return;
    }
    free(a);
    gateway_version_let_go(v);
}

/* It was loaded for requests that still wait for their places. */
static bool is_awaited(struct gateway_adapter *a)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT && a->unserved; class ++)
        list_each(node, &a->version->lines[class].requests)
        {
            if (container_of(node, struct gateway_request, node)->adapter_uid == a->uid)
                return true;
        }
    a->unserved = false;
    return false;
}

enum { OF_TENANT, OF_THOSE_OVER, OF_ANYBODY };

/* The least recently used one that may go, of those. */
static struct gateway_adapter *victim(struct gateway_batch *b, const struct gateway_tenant *t, int whose)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        if (a->state != ADAPTER_LOADED || a->n_sequences > 0 || is_awaited(a))
            continue;
        if (a->stale || whose == OF_ANYBODY || (whose == OF_TENANT ? a->tenant == t : is_over(b, a->tenant)))
            return a;
    }
    return NULL;
}

/* For room in all. Who has none there at all gets one: only more tenants than there is room for come so far. */
static struct gateway_adapter *victim_of_all(struct gateway_batch *b, const struct gateway_tenant *t)
{
    struct gateway_adapter *gone = victim(b, t, OF_THOSE_OVER);
    if (!gone)
        gone = victim(b, t, OF_TENANT);
    return gone || places_used(b, t) > 0 ? gone : victim(b, t, OF_ANYBODY);
}

/* Whether it is the one that goes next for another which waits: the least recently used of that tenant, or of those
 * that have more than their budget. */
static bool makes_way(const struct gateway_batch *b, const struct gateway_adapter *a)
{
    bool for_tenant = false, for_all = false;
    if (a->state != ADAPTER_LOADED || a->unserved)
        return false;
    list_each(node, &b->adapters)
    {
        const struct gateway_adapter *o = adapter_at(node);
        if (o->state != ADAPTER_WANTED || list_empty(&o->aside))
            continue;
        for_tenant = for_tenant || (o->lack == LACKS_BUDGET && o->tenant == a->tenant);
        for_all = for_all || o->lack == LACKS_ROOM;
    }
    for_all = for_all && is_over(b, a->tenant);
    for (struct list *node = list_first(&b->adapters); (for_tenant || for_all) && adapter_at(node) != a;
         node = node->next) {
        const struct gateway_adapter *o = adapter_at(node);
        for_tenant = for_tenant && (o->state != ADAPTER_LOADED || o->tenant != a->tenant);
        for_all = for_all && (o->state != ADAPTER_LOADED || !is_over(b, o->tenant));
    }
    return for_tenant || for_all;
}

static void evict(struct gateway_batch *b, struct gateway_adapter *gone)
{
    gateway_metrics_adapter(gone->version, BUS_METRICS_ADAPTER_EVICTED, 0);
    drop(b, gone);
}

/* 0: there is room now; 1: there will be; or a refusal. */
static int room_make(struct gateway_batch *b, struct gateway_adapter *a, struct error *err)
{
    uint64_t budget = budget_of(b, a->tenant), room = room_of(b);
    struct gateway_adapter *gone;
    a->lack = LACKS_NOTHING;
    if (room == 0)
        return error_set(err, ERROR_UNSUPPORTED, "the model's worker has no room for any");
    if (a->bytes > budget)
        return error_set(err, ERROR_LIMIT, "it takes more of a worker's memory than this tenant may have there");
    while (room_used(b, a->tenant) + a->bytes > budget) {
        if (!(gone = victim(b, a->tenant, OF_TENANT))) {
            a->lack = LACKS_BUDGET;
            return 1;
        }
        evict(b, gone);
    }
    while (room_used(b, NULL) + a->bytes > room || places_used(b, NULL) >= LIMIT_ADAPTERS_LOADED) {
        if (!(gone = victim_of_all(b, a->tenant))) {
            a->lack = LACKS_ROOM;
            return 1;
        }
        evict(b, gone);
    }
    return 0;
}

/* --- into the worker --- */

static void aside_fail(struct gateway_adapter *a, int code, const struct error *err)
{
    for (struct list *node; (node = list_first(&a->aside));)
        gateway_generate_fail(container_of(node, struct gateway_request, node), code, err);
}

static void refuse(struct gateway_batch *b, struct gateway_adapter *a, int status, const char *text)
{
    (void)error_set(&a->refusal, ERROR_MODEL_UNAVAILABLE, "The adapter cannot be loaded: %s",
                    text ? text : error_text(NULL, status));
    a->refusal.retry_after_ms = (uint32_t)(REFUSED_NS / NS_PER_MS);
    a->state = ADAPTER_REFUSED;
    a->number = 0;
    a->refused_until_ns = uv_hrtime() + REFUSED_NS;
    struct error refusal = a->refusal;
    gateway_version_hold(a->version);
    struct gateway_version *v = a->version;
    aside_fail(a, -ERROR_MODEL_UNAVAILABLE, &refusal);
    gateway_version_let_go(v);
    gateway_batch_look(b);
}

static void aside_back(struct gateway_adapter *a)
{
    for (struct list *node; (node = list_first(&a->aside));)
        gateway_places_back(container_of(node, struct gateway_request, node));
}

static uint32_t n_asked(const struct gateway_batch *b)
{
    uint32_t n = 0;
    list_each(node, &b->adapters) n +=
        adapter_at(node)->state == ADAPTER_ASKED || adapter_at(node)->state == ADAPTER_STRAY;
    return n;
}

bool gateway_adapters_expected(const struct gateway_batch *b)
{
    return n_asked(b) > 0;
}

static void ask(struct gateway_batch *b, struct gateway_adapter *a)
{
    struct gateway_replica *replica = b->replica;
    struct gateway *g = replica->gateway;
    struct error err = {0};
    int code = replica->channel ? room_make(b, a, &err) : 1;
    if (code < 0)
        refuse(b, a, code, err.text);
    if (code != 0 || n_asked(b) >= LIMIT_ADAPTERS_WAITING || b->adapter_last == UINT32_MAX)
        return;
    struct bus_demand_adapter body = {.replica_uid = replica->uid,
                                      .adapter_uid = a->uid,
                                      .number = b->adapter_last + 1,
                                      .epoch = replica->channel->epoch};
    if (bus_conn_send(g->control, BUS_DEMAND_ADAPTER, &body, NULL, 0) < 0)
        return; /* control is away; asked again when it is back */
    a->number = ++b->adapter_last;
    a->state = ADAPTER_ASKED;
    if (!list_linked(&replica->in_busy))
        list_append(&g->busy, &replica->in_busy);
}

/* Those whose room nobody waits for any more. */
static void ways_end(struct gateway_batch *b)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        if (a->state != ADAPTER_LOADED || list_empty(&a->aside) || makes_way(b, a))
            continue;
        aside_back(a);
        gateway_batch_look(b);
    }
}

/* One before it, of its tenant, waits for the tenant's budget. */
static bool comes_later(const struct gateway_batch *b, const struct gateway_adapter *a)
{
    list_each(node, &b->adapters)
    {
        const struct gateway_adapter *o = adapter_at(node);
        if (o == a)
            break;
        if (o->state == ADAPTER_WANTED && o->lack == LACKS_BUDGET && o->tenant == a->tenant)
            return true;
    }
    return false;
}

void gateway_adapters_continue(struct gateway_batch *b)
{
    if (list_empty(&b->adapters))
        return;
    uint64_t now_ns = uv_hrtime();
    list_each_safe(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        bool unused = a->n_sequences == 0 && list_empty(&a->aside);
        if (unused && (a->state == ADAPTER_WANTED || (a->state == ADAPTER_REFUSED && a->refused_until_ns <= now_ns) ||
                       (a->state == ADAPTER_LOADED && a->stale)))
            drop(b, a);
    }
    /* One may drop others, but none that is wanted. */
    list_each(other, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(other);
        if (a->state != ADAPTER_WANTED || comes_later(b, a))
            continue;
        ask(b, a);
        if (a->state == ADAPTER_WANTED && a->lack != LACKS_BUDGET)
            break; /* in order: a large one is not passed over for ever; a tenant's budget is its own affair */
    }
    ways_end(b);
}

static struct gateway_adapter *adapter_new(struct gateway_batch *b, const struct gateway_request *r,
                                           const struct catalog_adapter *row)
{
    struct gateway_adapter *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    *a = (struct gateway_adapter){
        .state = ADAPTER_WANTED, .tenant = r->tenant, .version = r->version, .uid = row->uid, .bytes = row->bytes};
    list_init(&a->aside);
    gateway_version_hold(a->version);
    list_append(&b->adapters, &a->in_batch);
    return a;
}

int gateway_adapter_get(struct gateway_batch *b, struct gateway_request *r, uint32_t *ret_number, struct error *err)
{
    *ret_number = 0;
    if (r->adapter_uid == 0)
        return 1;
    const struct catalog_adapter *row = row_of(r);
    if (!row)
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    struct gateway_adapter *a = find(b, r->adapter_uid);
    if (a && a->state == ADAPTER_REFUSED && a->refused_until_ns > uv_hrtime()) {
        *err = a->refusal;
        return -ERROR_MODEL_UNAVAILABLE;
    }
    if (!a && !(a = adapter_new(b, r, row)))
        return error_set_default(err, ERROR_NO_MEMORY);
    if (a->state == ADAPTER_WANTED || (r->n_started == 0 && makes_way(b, a))) /* who has begun goes on to its end */
        return 0;
    if (a->state == ADAPTER_REFUSED)
        a->state = ADAPTER_WANTED;
    list_remove(&a->in_batch);
    list_append(&b->adapters, &a->in_batch);
    *ret_number = a->state == ADAPTER_LOADED ? a->number : 0;
    return a->state == ADAPTER_LOADED;
}

void gateway_adapter_wait(struct gateway_batch *b, struct gateway_request *r)
{
    struct gateway_adapter *a = find(b, r->adapter_uid);
    gateway_places_aside(r, &a->aside);
}

void gateway_adapter_used(struct gateway_batch *b, uint32_t number, bool used)
{
    struct gateway_adapter *a = number > 0 ? find_number(b, number) : NULL;
    if (!a)
        return;
    a->n_sequences = used ? a->n_sequences + 1 : a->n_sequences - 1;
    a->unserved = a->unserved && !used;
    gateway_batch_look(b); /* where others are continued */
}

/* --- answers --- */

int gateway_adapter_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway_batch *b = replica->batch;
    struct gateway_adapter *a = b ? find_number(b, f->index) : NULL;
    if (!a || (a->state != ADAPTER_ASKED && a->state != ADAPTER_STRAY))
        return error_set(err, ERROR_PEER, "word of an adapter that was not asked for");
    if (a->state == ADAPTER_STRAY) {
        a->state = f->status == 0 ? ADAPTER_LOADED : ADAPTER_WANTED;
        drop(b, a);
    } else if (f->status < 0) {
        refuse(b, a, f->status, NULL);
    } else {
        a->state = ADAPTER_LOADED;
        a->counted = true;
        gateway_metrics_adapter(a->version, BUS_METRICS_ADAPTER_LOADED, a->bytes);
        a->unserved = !list_empty(&a->aside);
        aside_back(a);
        gateway_batch_look(b);
    }
    gateway_adapters_continue(b);
    if (!replica->lease)
        gateway_replica_rest(replica);
    return 0;
}

void gateway_adapter_refused(struct gateway *g, const struct bus_adapter_refused *body)
{
    struct gateway_replica *replica = map_get(&g->replicas, body->replica_uid);
    struct gateway_batch *b = replica ? replica->batch : NULL;
    struct gateway_adapter *a =
        b && replica->channel && replica->channel->epoch == body->epoch ? find_number(b, body->number) : NULL;
    if (!a || (a->state != ADAPTER_ASKED && a->state != ADAPTER_STRAY))
        return;
    if (a->state == ADAPTER_STRAY) {
        a->state = ADAPTER_WANTED;
        drop(b, a);
    } else {
        refuse(b, a, body->status, NULL);
    }
    gateway_adapters_continue(b);
}

/* --- what changes around them --- */

void gateway_adapters_again(struct gateway_batch *b)
{
    list_each_safe(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        if (a->state != ADAPTER_ASKED)
            continue;
        struct gateway_adapter *stray = calloc(1, sizeof *stray);
        if (!stray)
            continue; /* it may come yet; else deadlines end who waits */
        *stray = *a;
        stray->state = ADAPTER_STRAY;
        stray->in_batch = (struct list){0};
        list_init(&stray->aside);
        gateway_version_hold(stray->version);
        list_prepend(&b->adapters, &stray->in_batch);
        a->state = ADAPTER_WANTED;
        a->number = 0;
    }
    gateway_adapters_continue(b);
}

static bool is_served(const struct gateway *g, const struct gateway_adapter *a)
{
    uint32_t first, n;
    if (!gateway_tenant_present(g, a->tenant))
        return false;
    catalog_adapters_of(g->catalog, a->tenant->index, &first, &n);
    for (uint32_t i = 0; i < n; i++)
        if (catalog_adapter_at(g->catalog, first + i)->uid == a->uid)
            return true;
    return false;
}

static void sweep(struct gateway_batch *b)
{
    const struct gateway *g = b->replica->gateway;
    list_each_safe(node, &b->adapters)
    {
        struct gateway_adapter *a = adapter_at(node);
        a->stale = a->stale || !is_served(g, a);
        if (a->stale)
            aside_fail(a, -ERROR_MODEL_NOT_FOUND, NULL);
    }
    gateway_adapters_continue(b);
}

void gateway_adapters_sweep(struct gateway *g)
{
    size_t cursor = 0;
    for (struct gateway_replica *replica; (replica = map_next(&g->replicas, &cursor));)
        if (replica->batch)
            sweep(replica->batch);
}

void gateway_adapters_lost(struct gateway_batch *b)
{
    for (struct list *node; (node = list_first(&b->adapters));) {
        struct gateway_adapter *a = adapter_at(node);
        aside_back(a); /* for another replica */
        a->n_sequences = 0;
        a->state = ADAPTER_WANTED;
        drop(b, a);
    }
}
