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
 * was loaded is used once before it goes.
 *
 * Who waits for one goes before those of lower classes: where only these use another, it is lifted: its sequences are
 * parked and keep their cells, and it is wanted again on their behalf. Requests of higher classes do not make way,
 * until one has waited so long that it is overdue; then it is stepped once before it is lifted again. */
#include "gateway/gateway_adapter_internal.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define REFUSED_NS NS_PER_S
/* One for which others made way is not lifted again before it was stepped, for so long at most. */
#define KEPT_NS NS_PER_S

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

static struct gateway_adapter *find(const struct gateway_batch *b, uint64_t uid)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = gateway_adapter_at(node);
        if (a->uid == uid && a->state != ADAPTER_STRAY)
            return a;
    }
    return NULL;
}

static struct gateway_adapter *find_number(const struct gateway_batch *b, uint32_t number)
{
    list_each(node, &b->adapters)
    {
        if (gateway_adapter_at(node)->worn.number == number && number > 0)
            return gateway_adapter_at(node);
    }
    return NULL;
}

/* --- to control --- */

static void tell(struct gateway_batch *b, struct gateway_adapter *a, bool is_loaded)
{
    struct gateway *g = b->replica->gateway;
    struct bus_replica_adapter body = {.replica_uid = b->replica->uid,
                                       .adapter_uid = a->uid,
                                       .tenant_uid = a->tenant->uid,
                                       .bytes = a->bytes,
                                       .sequences = a->n_sequences,
                                       .loaded = is_loaded};
    memcpy(body.tenant, a->tenant->name, sizeof body.tenant);
    memcpy(body.name, a->name, sizeof body.name);
    if (!g->control || bus_conn_send(g->control, BUS_REPLICA_ADAPTER, &body, NULL, 0) < 0)
        return; /* the next one is told all anew */
    a->told = is_loaded;
    a->sequences_told = a->n_sequences;
}

void gateway_adapters_tell(struct gateway_batch *b)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = gateway_adapter_at(node);
        if (a->state == ADAPTER_LOADED && (!a->told || a->sequences_told != a->n_sequences))
            tell(b, a, true);
    }
}

/* --- into the worker --- */

void gateway_adapter_drop(struct gateway_batch *b, struct gateway_adapter *a)
{
    struct gateway_replica *replica = b->replica;
    assert(a->n_sequences == 0);
    struct channel_frame frame = {.type = CHANNEL_ADAPTER_DROP, .index = a->worn.number};
    if (a->state == ADAPTER_LOADED && replica->channel && channel_push(replica->channel, &frame) == 0)
        channel_ring(replica->channel);
    struct gateway_version *v = a->version;
    if (a->told)
        tell(b, a, false);
    if (take(&a->counted))
        gateway_metrics_adapter(v, BUS_METRICS_ADAPTER_GONE, a->bytes);
    list_remove(&a->in_batch);
    if (!gateway_adapter_nobody_aside(a) || gateway_adapter_is_missed(b, a)) {
        a->state = ADAPTER_WANTED;
        a->worn = (struct gateway_worn){0};
        a->unserved = false;
        a->wanted_ns = a->wanted_ns > 0 ? a->wanted_ns : uv_hrtime();
        list_append(&b->adapters, &a->in_batch);
        return;
    }
    free(a);
    gateway_version_let_go(v);
}

/* Whoever waits for it, with a generation in the batch or without. */
static void waiting_fail(struct gateway_batch *b, struct gateway_adapter *a, int code, const struct error *err)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        for (struct list *node; (node = list_first(&a->aside[class]));)
            gateway_generate_fail(container_of(node, struct gateway_request, node), code, err);
    struct gateway_request *r;
    while ((r = gateway_lifted_first(b, a->uid)))
        gateway_generate_fail(r, code, err);
}

static void refuse(struct gateway_batch *b, struct gateway_adapter *a, int status, const char *text)
{
    (void)error_set(&a->refusal, ERROR_MODEL_UNAVAILABLE, "The adapter cannot be loaded: %s",
                    text ? text : error_text(NULL, status));
    a->refusal.retry_after_ms = (uint32_t)(REFUSED_NS / NS_PER_MS);
    a->state = ADAPTER_REFUSED;
    a->worn = (struct gateway_worn){0};
    a->refused_until_ns = uv_hrtime() + REFUSED_NS;
    struct error refusal = a->refusal;
    gateway_version_hold(a->version);
    struct gateway_version *v = a->version;
    waiting_fail(b, a, -ERROR_MODEL_UNAVAILABLE, &refusal);
    gateway_version_let_go(v);
    gateway_batch_look(b);
}

static void aside_back(struct gateway_adapter *a, uint32_t class)
{
    for (struct list *node; (node = list_first(&a->aside[class]));)
        gateway_places_back(container_of(node, struct gateway_request, node));
}

static uint32_t n_asked(const struct gateway_batch *b)
{
    uint32_t n = 0;
    list_each(node, &b->adapters) n +=
        gateway_adapter_at(node)->state == ADAPTER_ASKED || gateway_adapter_at(node)->state == ADAPTER_STRAY;
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
    int code = replica->channel ? gateway_adapter_room(b, a, &err) : 1;
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
    a->worn.number = ++b->adapter_last;
    a->state = ADAPTER_ASKED;
    if (!list_linked(&replica->in_busy))
        list_append(&g->busy, &replica->in_busy);
}

/* Those whose room nobody waits for any more. */
static void ways_end(struct gateway_batch *b)
{
    list_each(node, &b->adapters)
    {
        struct gateway_adapter *a = gateway_adapter_at(node);
        for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT && a->state == ADAPTER_LOADED; class ++) {
            if (list_empty(&a->aside[class]) || gateway_adapter_makes_way(b, a, class))
                continue;
            aside_back(a, class);
            gateway_batch_look(b);
        }
    }
}

/* Wanted ones are asked for by class; but first of all those that are overdue. */
static uint32_t rank_of(const struct gateway_batch *b, const struct gateway_adapter *a, uint64_t now_ns)
{
    return gateway_adapter_is_overdue(a, now_ns) ? 0 : 1 + gateway_adapter_class(b, a);
}

/* One before it, of its tenant, waits for the tenant's budget. */
static bool comes_later(const struct gateway_batch *b, const struct gateway_adapter *a, uint64_t now_ns)
{
    uint32_t rank = rank_of(b, a, now_ns), class = gateway_adapter_class(b, a);
    bool before = true;
    list_each(node, &b->adapters)
    {
        const struct gateway_adapter *o = gateway_adapter_at(node);
        before = before && o != a;
        if (o == a || o->state != ADAPTER_WANTED || o->lack != LACKS_BUDGET || o->tenant != a->tenant)
            continue;
        uint32_t other = rank_of(b, o, now_ns);
        if ((other < rank || (other == rank && before)) && gateway_adapter_class(b, o) <= class)
            return true;
    }
    return false;
}

/* In order: a large one is not passed over for ever. But a tenant's budget is its own affair, and who waits for room
 * holds up no higher class, which may lift what that one may not. One may drop others, but none that is wanted. */
static void wanted_ask(struct gateway_batch *b, uint64_t now_ns)
{
    uint32_t below = SCHEDULE_CLASS_COUNT;
    for (uint32_t rank = 0; rank <= SCHEDULE_CLASS_COUNT && below > 0; rank++)
        list_each(node, &b->adapters)
        {
            struct gateway_adapter *a = gateway_adapter_at(node);
            uint32_t class = gateway_adapter_class(b, a);
            if (a->state != ADAPTER_WANTED || class >= below || rank_of(b, a, now_ns) != rank ||
                comes_later(b, a, now_ns))
                continue;
            ask(b, a);
            if (a->state == ADAPTER_WANTED && a->lack != LACKS_BUDGET)
                below = class;
        }
}

void gateway_adapters_continue(struct gateway_batch *b)
{
    if (list_empty(&b->adapters))
        return;
    uint64_t now_ns = uv_hrtime();
    list_each_safe(node, &b->adapters)
    {
        struct gateway_adapter *a = gateway_adapter_at(node);
        bool unused = a->n_sequences == 0 && gateway_adapter_class(b, a) == SCHEDULE_CLASS_COUNT;
        if (unused && (a->state == ADAPTER_WANTED || (a->state == ADAPTER_REFUSED && a->refused_until_ns <= now_ns) ||
                       (a->state == ADAPTER_LOADED && a->stale)))
            gateway_adapter_drop(b, a);
    }
    wanted_ask(b, now_ns);
    ways_end(b);
}

static struct gateway_adapter *adapter_new(struct gateway_batch *b, const struct gateway_request *r,
                                           const struct catalog_adapter *row)
{
    struct gateway_adapter *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    *a = (struct gateway_adapter){
        .state = ADAPTER_WANTED,
        .tenant = r->tenant,
        .version = r->version,
        .uid = row->uid,
        .bytes = row->bytes,
        .wanted_ns = uv_hrtime(),
    };
    memcpy(a->name, row->name, sizeof a->name);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        list_init(&a->aside[class]);
    gateway_version_hold(a->version);
    list_append(&b->adapters, &a->in_batch);
    return a;
}

int gateway_adapter_get(struct gateway_batch *b, struct gateway_request *r, struct gateway_worn *ret_worn,
                        struct error *err)
{
    *ret_worn = (struct gateway_worn){0};
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
    if (a->state == ADAPTER_REFUSED) {
        a->state = ADAPTER_WANTED;
        a->wanted_ns = uv_hrtime();
    }
    /* Who has begun goes on to its end. */
    bool waits = r->n_started == 0 && gateway_adapter_makes_way(b, a, (uint32_t)r->schedule.priority);
    if (a->state == ADAPTER_WANTED || waits)
        return 0;
    list_remove(&a->in_batch);
    list_append(&b->adapters, &a->in_batch);
    if (a->state != ADAPTER_LOADED)
        return 0;
    *ret_worn = a->worn;
    return 1;
}

void gateway_adapter_wait(struct gateway_batch *b, struct gateway_request *r)
{
    struct gateway_adapter *a = find(b, r->adapter_uid);
    gateway_places_aside(r, &a->aside[r->schedule.priority]);
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

void gateway_adapter_stepped(struct gateway_batch *b, uint32_t number)
{
    struct gateway_adapter *a = find_number(b, number);
    if (a)
        a->wanted_ns = a->kept_until_ns = 0;
}

/* --- answers --- */

static void loaded(struct gateway_batch *b, struct gateway_adapter *a)
{
    uint64_t now_ns = uv_hrtime();
    a->kept_until_ns = gateway_adapter_is_overdue(a, now_ns) ? now_ns + KEPT_NS : 0;
    a->state = ADAPTER_LOADED;
    a->counted = true;
    gateway_metrics_adapter(a->version, BUS_METRICS_ADAPTER_LOADED, a->bytes);
    a->n_sequences = gateway_lifted_return(b, a->uid, a->worn);
    a->unserved = !gateway_adapter_nobody_aside(a);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        aside_back(a, class);
    gateway_batch_look(b);
}

int gateway_adapter_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    struct gateway_batch *b = replica->batch;
    struct gateway_adapter *a = b ? find_number(b, f->index) : NULL;
    if (!a || (a->state != ADAPTER_ASKED && a->state != ADAPTER_STRAY))
        return error_set(err, ERROR_PEER, "word of an adapter that was not asked for");
    if (f->status == 0 ? f->a == 0 || f->a > UINT32_MAX : f->a != 0)
        return error_set(err, ERROR_PEER, "an adapter of no kind");
    if (a->state == ADAPTER_STRAY) {
        a->state = f->status == 0 ? ADAPTER_LOADED : ADAPTER_WANTED;
        gateway_adapter_drop(b, a);
    } else if (f->status < 0) {
        refuse(b, a, f->status, NULL);
    } else {
        a->worn.kind = (uint32_t)f->a;
        loaded(b, a);
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
        gateway_adapter_drop(b, a);
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
        struct gateway_adapter *a = gateway_adapter_at(node);
        a->told = false;
        if (a->state != ADAPTER_ASKED)
            continue;
        struct gateway_adapter *stray = calloc(1, sizeof *stray);
        if (!stray)
            continue; /* it may come yet; else deadlines end who waits */
        *stray = *a;
        stray->state = ADAPTER_STRAY;
        stray->in_batch = (struct list){0};
        stray->uid = 0; /* nobody waits for it */
        for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
            list_init(&stray->aside[class]);
        gateway_version_hold(stray->version);
        list_prepend(&b->adapters, &stray->in_batch);
        a->state = ADAPTER_WANTED;
        a->worn = (struct gateway_worn){0};
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
        struct gateway_adapter *a = gateway_adapter_at(node);
        a->stale = a->stale || !is_served(g, a);
        if (a->stale)
            waiting_fail(b, a, -ERROR_MODEL_NOT_FOUND, NULL);
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
        struct gateway_adapter *a = gateway_adapter_at(node);
        for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
            aside_back(a, class); /* for another replica */
        a->n_sequences = 0;
        a->state = ADAPTER_WANTED;
        gateway_adapter_drop(b, a);
    }
}
