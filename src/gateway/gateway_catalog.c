/* A new catalog: checked, then taken in one step. Tenants and versions keep their queues; what is no longer there is
 * refused from now on and freed when its last request has ended. */
#include "base/memory.h"
#include "gateway/gateway_internal.h"

#include <stdio.h>
#include <string.h>

_Static_assert(CATALOG_CLASS_COUNT == SCHEDULE_CLASS_COUNT && CATALOG_CLASS_DEFAULT == SCHEDULE_INTERACTIVE,
               "classes have one numbering");

/* An old version that nobody asks for by its number any more lets go of its replicas after this, whatever the model's
 * idleAfter: without it they would stay for ever, for idleAfter 0 means that the newest one always stays ready. */
#define OLD_IDLE_NS UINT64_C(30000000000)

static void tenant_schedule(struct gateway *g, struct gateway_tenant *t, const struct catalog_tenant *row)
{
    struct schedule_tenant_config config = {
        .weight = row->weight, .queue_max = row->queue_max, .queue_bytes_max = row->queue_bytes_max};
    schedule_tenant_set(g->schedule, &t->schedule, &config);
}

static int tenant_get(struct gateway *g, const struct catalog_tenant *row, struct gateway_tenant **ret_tenant)
{
    struct gateway_tenant *t = map_get(&g->tenants, row->uid);
    if (!t) {
        t = slab_take(&g->tenants_slab);
        if (!t || map_put(&g->tenants, row->uid, t) < 0) {
            slab_give(&g->tenants_slab, t);
            return -ERROR_NO_MEMORY;
        }
        t->uid = row->uid;
        tenant_schedule(g, t, row);
    }
    *ret_tenant = t;
    return 0;
}

static void tenant_set(struct gateway *g, struct gateway_tenant *t, const struct catalog_tenant *row, uint32_t index,
                       uint64_t generation)
{
    t->generation = generation;
    t->index = index;
    (void)snprintf(t->name, sizeof t->name, "%s", row->name);
    t->classes = row->classes;
    tenant_schedule(g, t, row);
}

void gateway_version_schedule(struct gateway_version *v)
{
    struct gateway *g = v->gateway;
    struct schedule_target_config config = {
        /* nothing of a version without a device is submitted */
        .device = v->device == CATALOG_DEVICE_NONE ? 0
                  : v->dedicated && v->device == 0 ? g->config.n_devices
                                                   : v->device,
        .weight = v->weight,
        .slots = v->slots,
        .batch_rows_max = v->signature && !v->signature->batchable ? 1 : v->batch_max,
        .batch_bytes_max = 2 * g->config.body_bytes_max,
        .delay_ns = v->delay_ns,
        .cancellable = v->cancellable,
        .stepped = v->signature && v->signature->token.sequences > 0,
    };
    if (config.batch_rows_max > 1) {
        config.preferred = v->preferred;
        config.n_preferred = v->n_preferred;
    }
    schedule_target_set(g->schedule, &v->schedule, &v->tenant->schedule, &config);
}

/* What tells a version apart: its uid, and for one that is lent to whom, and whose replicas serve it. When that changes
 * it is another version: what runs with the old one ends there. */
static uint64_t version_key(const struct gateway *g, const struct catalog_version *row,
                            const struct catalog_model *model, const struct gateway_tenant *tenant)
{
    if (model->lender == 0)
        return row->uid;
    const uint64_t key[] = {row->uid, tenant->uid, row->hosted, model->uid};
    return hash_bytes(g->cache_seeds[0], key, sizeof key); /* secret: nobody chooses what meets in it */
}

static struct gateway_version *version_obtain(struct gateway *g, uint32_t index);

/* The owner's row of that version. */
static struct gateway_version *version_host(struct gateway *g, const struct catalog_version *row,
                                            const struct catalog_model *model)
{
    const struct catalog_model *owner = catalog_model_at(g->catalog, model->lender - 1);
    for (uint32_t k = 0; k < owner->n_versions; k++)
        if (catalog_version_at(g->catalog, owner->version_first + k)->uid == row->uid)
            return version_obtain(g, owner->version_first + k);
    return NULL;
}

int gateway_version_signature_copy(struct gateway_version *v)
{
    const struct gateway_version *host = v->host;
    if (v->signature || !host->signature)
        return 0;
    v->signature = malloc(sizeof *v->signature);
    if (!v->signature)
        return -ERROR_NO_MEMORY;
    *v->signature = *host->signature;
    v->shapes_fixed = host->shapes_fixed;
    gateway_version_schedule(v);
    return 0;
}

void gateway_version_lists_init(struct gateway_version *v)
{
    list_init(&v->waiting);
    gateway_places_init(v);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        list_init(&v->turns_queued[class]);
    list_init(&v->replicas);
    list_init(&v->guests);
}

static struct gateway_version *version_new(struct gateway *g, const struct catalog_version *row,
                                           const struct catalog_model *model, struct gateway_tenant *tenant)
{
    uint64_t key = version_key(g, row, model, tenant);
    struct gateway_version *host = row->hosted ? version_host(g, row, model) : NULL;
    struct gateway_version *v = map_get(&g->versions, key) || (row->hosted && !host) ? NULL : calloc(1, sizeof *v);
    if (!v || map_put(&g->versions, key, v) < 0) {
        free(v);
        return NULL;
    }
    v->gateway = g;
    v->tenant = tenant;
    v->key = key;
    v->uid = row->uid;
    v->model_uid = model->uid;
    v->lent = model->lender != 0;
    v->number = row->number;
    gateway_version_lists_init(v);
    v->idle_since_ns = uv_hrtime();
    (void)snprintf(v->number_text, sizeof v->number_text, "%u", row->number);
    (void)snprintf(v->model, sizeof v->model, "%s", model->name);
    v->slots = row->slots;
    v->device = row->device;
    v->dedicated = row->dedicated;
    tenant->n_versions++;
    gateway_version_schedule(v);
    if (host) {
        v->host = host;
        list_append(&host->guests, &v->in_guests);
        gateway_version_hold(host);
    }
    return v;
}

/* The one that is there already, or NULL. */
static int version_get(struct gateway *g, const struct catalog_version *row, const struct catalog_model *model,
                       struct gateway_tenant *tenant, struct gateway_version **ret_version)
{
    struct gateway_version *v = map_get(&g->versions, version_key(g, row, model, tenant));
    if (v && (v->tenant != tenant || v->model_uid != model->uid || v->number != row->number || v->uid != row->uid ||
              (v->host != NULL) != row->hosted))
        return -ERROR_PEER; /* a version never changes whose it is */
    *ret_version = v;
    return 0;
}

static void version_set(struct gateway_version *v, const struct catalog_version *row, const struct catalog_model *model,
                        bool newest, uint64_t generation)
{
    v->generation = generation;
    v->replicas_max = model->replicas_max;
    v->batch_max = model->batch_max;
    v->idle_after_ns = model->idle_after_ns;
    if (!newest && (v->idle_after_ns == 0 || v->idle_after_ns > OLD_IDLE_NS))
        v->idle_after_ns = OLD_IDLE_NS;
    v->delay_ns = model->batch_delay_ns;
    v->weight = model->weight;
    v->shared_batch = model->shared_batch;
    v->class = (enum schedule_class)model->class;
    v->n_preferred = model->n_preferred;
    memcpy(v->preferred, model->preferred, sizeof v->preferred);
    v->device = row->device;
    gateway_version_schedule(v);
}

static void tenant_release(struct gateway *g, struct gateway_tenant *t)
{
    uint64_t generation = g->catalog ? catalog_generation(g->catalog) : 0;
    if (t->generation == generation || t->n_versions > 0 || t->n_requests > 0)
        return;
    gateway_quotas_forget(g, t);
    gateway_now_forget(g, t);
    wire_owner_forget(&t->owner);
    (void)map_remove(&g->tenants, t->uid);
    schedule_tenant_remove(g->schedule, &t->schedule);
    slab_give(&g->tenants_slab, t);
}

void gateway_version_release(struct gateway_version *v)
{
    struct gateway *g = v->gateway;
    uint64_t generation = g->catalog ? catalog_generation(g->catalog) : 0;
    if (v->generation == generation || v->n_requests > 0 || v->n_replicas > 0 || v->n_held > 0)
        return;
    (void)map_remove(&g->versions, v->key);
    gateway_places_done(v);
    schedule_target_remove(g->schedule, &v->schedule);
    struct gateway_tenant *t = v->tenant;
    struct gateway_version *host = v->host;
    t->n_versions--;
    list_remove(&v->in_guests);
    gateway_stats_free(v);
    free(v->signature);
    free(v);
    tenant_release(g, t);
    if (host)
        gateway_version_let_go(host);
}

/* Refuses what waits for versions that the new catalog does not hold, and frees what nobody needs. */
static void sweep(struct gateway *g)
{
    uint64_t generation = catalog_generation(g->catalog);
    /* Freeing moves map entries, so collect first. */
    uint32_t n = 0;
    struct gateway_version **gone = malloc((g->versions.count + 1) * sizeof *gone);
    size_t cursor = 0;
    for (struct gateway_version *v; gone && (v = map_next(&g->versions, &cursor));)
        if (v->generation != generation)
            gone[n++] = v;
    for (uint32_t i = 0; i < n; i++) {
        gone[i]->n_requests++; /* keeps it while its requests are answered */
        gateway_version_fail(gone[i], ERROR_MODEL_NOT_FOUND, NULL);
        gone[i]->n_requests--;
        gateway_version_release(gone[i]);
    }
    free(gone);
    uint32_t n_tenants = 0;
    struct gateway_tenant **tenants = malloc((g->tenants.count + 1) * sizeof *tenants);
    cursor = 0;
    for (struct gateway_tenant *t; tenants && (t = map_next(&g->tenants, &cursor));)
        if (t->generation != generation)
            tenants[n_tenants++] = t;
    for (uint32_t i = 0; i < n_tenants; i++)
        tenant_release(g, tenants[i]);
    free(tenants);
}

static bool key_alive(struct gateway *g, const struct gateway_connection *c)
{
    const struct catalog_key *row =
        c->key_bytes > 3 + CATALOG_KEY_ID_BYTES ? catalog_key_find(g->catalog, c->key + 3) : NULL;
    return row && g->tenant_at[row->tenant] == c->tenant;
}

/* A revoked key's open connections end. */
static void connections_sweep(struct gateway *g)
{
    list_each_safe(node, &g->connections)
    {
        struct gateway_connection *c = container_of(node, struct gateway_connection, node);
        if (!key_alive(g, c))
            wire_connection_end(c->handle);
    }
}

/* Finds or makes what the rows name. On failure what exists is as it was; what was made waits for the next catalog. */
static int rows_get(struct gateway *g, struct catalog *catalog, struct gateway_tenant **tenant_at,
                    struct gateway_version **version_at)
{
    int r = 0;
    for (uint32_t i = 0; r >= 0 && i < catalog_n_tenants(catalog); i++)
        r = tenant_get(g, catalog_tenant_at(catalog, i), &tenant_at[i]);
    for (uint32_t i = 0; r >= 0 && i < catalog_n_versions(catalog); i++) {
        const struct catalog_version *row = catalog_version_at(catalog, i);
        const struct catalog_model *model = catalog_model_at(catalog, row->model);
        r = version_get(g, row, model, tenant_at[model->tenant], &version_at[i]);
    }
    return r;
}

static void rows_set(struct gateway *g, struct catalog *catalog, struct gateway_tenant **tenant_at,
                     struct gateway_version **version_at)
{
    uint64_t generation = catalog_generation(catalog);
    for (uint32_t i = 0; i < catalog_n_tenants(catalog); i++)
        tenant_set(g, tenant_at[i], catalog_tenant_at(catalog, i), i, generation);
    for (uint32_t i = 0; i < catalog_n_versions(catalog); i++) {
        const struct catalog_version *row = catalog_version_at(catalog, i);
        const struct catalog_model *model = catalog_model_at(catalog, row->model);
        if (version_at[i])
            version_set(version_at[i], row, model, i == model->version_first, generation);
    }
}

int gateway_catalog_take(struct gateway *g, int fd, size_t bytes, struct error *err)
{
    struct catalog *catalog;
    int r = catalog_open(fd, bytes, &catalog, err);
    if (r < 0)
        return r;
    struct gateway_tenant **tenant_at = memory_large_new((catalog_n_tenants(catalog) + 1) * sizeof *tenant_at);
    struct gateway_version **version_at = memory_large_new((catalog_n_versions(catalog) + 1) * sizeof *version_at);
    r = tenant_at && version_at ? rows_get(g, catalog, tenant_at, version_at) : -ERROR_NO_MEMORY;
    if (r < 0) { /* the old one serves on */
        free(tenant_at);
        free(version_at);
        catalog_close(catalog);
        return error_set_default(err, r);
    }
    rows_set(g, catalog, tenant_at, version_at);
    free(g->tenant_at);
    free(g->version_at);
    catalog_close(g->catalog);
    g->catalog = catalog;
    g->tenant_at = tenant_at;
    g->version_at = version_at;
    g->stats.generation = catalog_generation(catalog);
    gateway_quotas_set(g);
    connections_sweep(g);
    gateway_replicas_attach(g);
    gateway_adapters_sweep(g);
    sweep(g);
    return 0;
}

/* --- lookups --- */

/* The version of a row. Made when it is first asked for: a model that nobody uses costs no more than its rows. NULL: no
 * memory. */
static struct gateway_version *version_obtain(struct gateway *g, uint32_t index)
{
    if (g->version_at[index])
        return g->version_at[index];
    const struct catalog_version *row = catalog_version_at(g->catalog, index);
    const struct catalog_model *model = catalog_model_at(g->catalog, row->model);
    struct gateway_version *v = version_new(g, row, model, g->tenant_at[model->tenant]);
    if (v)
        version_set(v, row, model, index == model->version_first, catalog_generation(g->catalog));
    g->version_at[index] = v;
    return v;
}

struct gateway_version *gateway_version_of_uid(struct gateway *g, uint64_t uid, uint64_t tenant_uid)
{
    uint32_t n = g->catalog ? catalog_n_versions(g->catalog) : 0;
    for (uint32_t i = 0; i < n; i++) { /* once per replica's life: a millisecond at the limit of versions */
        const struct catalog_version *row = catalog_version_at(g->catalog, i);
        const struct catalog_model *model = catalog_model_at(g->catalog, row->model);
        if (row->uid == uid && !row->hosted && catalog_tenant_at(g->catalog, model->tenant)->uid == tenant_uid)
            return version_obtain(g, i);
    }
    return NULL;
}

uint64_t gateway_version_waiting(const struct gateway_version *v)
{
    bool turns = v->signature && v->signature->token.sequences > 0; /* then what queues is no request */
    uint64_t n = (turns ? 0 : v->schedule.queued) + (list_empty(&v->waiting) ? 0 : 1) + v->n_generating;
    list_each(node, &v->guests) n += gateway_version_waiting(container_of(node, struct gateway_version, in_guests));
    return n;
}

bool gateway_version_in_use(const struct gateway_version *v)
{
    if (v->n_requests > 0)
        return true;
    list_each(node, &v->guests)
    {
        if (container_of(node, struct gateway_version, in_guests)->n_requests > 0)
            return true;
    }
    return false;
}

static int version_give(struct gateway *g, uint32_t index, struct gateway_version **ret_version, struct error *err)
{
    struct gateway_version *v = version_obtain(g, index);
    if (!v)
        return error_set_default(err, ERROR_NO_MEMORY);
    *ret_version = v;
    return 0;
}

int gateway_version_find(struct gateway_request *r, struct str model, struct str version,
                         struct gateway_version **ret_version, struct error *err)
{
    struct gateway *g = r->gateway;
    const struct catalog_model *row =
        gateway_tenant_present(g, r->tenant) ? catalog_model_find(g->catalog, r->tenant->index, model) : NULL;
    if (!row)
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    if (version.size == 0)
        return version_give(g, row->version_first, ret_version, err);
    uint64_t number;
    if (version.data[0] == '0' || str_to_u64(version, &number) < 0) /* one name per version: not 01 */
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    for (uint32_t k = 0; k < row->n_versions; k++)
        if (catalog_version_at(g->catalog, row->version_first + k)->number == number)
            return version_give(g, row->version_first + k, ret_version, err);
    return error_set_default(err, ERROR_MODEL_NOT_FOUND);
}

int gateway_models_each(struct gateway_request *r,
                        void (*each)(void *ctx, struct str name, const struct gateway_version *v), void *ctx,
                        struct error *err)
{
    struct gateway *g = r->gateway;
    uint32_t first, n;
    if (!gateway_tenant_present(g, r->tenant))
        return 0;
    catalog_models_of(g->catalog, r->tenant->index, &first, &n);
    for (uint32_t i = 0; i < n; i++) {
        const struct catalog_model *model = catalog_model_at(g->catalog, first + i);
        struct gateway_version *v = NULL;
        int code = version_give(g, model->version_first, &v, err);
        if (code < 0)
            return code;
        each(ctx, str_from(model->name), v);
    }
    return 0;
}

int gateway_versions_each(struct gateway_request *r, struct str model,
                          void (*each)(void *ctx, const struct gateway_version *v), void *ctx, struct error *err)
{
    struct gateway *g = r->gateway;
    uint32_t tenant = r->tenant->index, first = 0, n = 0;
    bool found = gateway_tenant_present(g, r->tenant);
    if (found && model.size == 0)
        catalog_models_of(g->catalog, tenant, &first, &n);
    const struct catalog_model *row = found && model.size > 0 ? catalog_model_find(g->catalog, tenant, model) : NULL;
    if (model.size > 0 && !row)
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    for (uint32_t i = 0; i < (row ? 1 : n); i++) {
        const struct catalog_model *one = row ? row : catalog_model_at(g->catalog, first + i);
        for (uint32_t k = 0; k < one->n_versions; k++) {
            struct gateway_version *v = NULL;
            int code = version_give(g, one->version_first + k, &v, err);
            if (code < 0)
                return code;
            each(ctx, v);
        }
    }
    return 0;
}

struct gateway_version_limits gateway_version_limits(const struct gateway_version *v)
{
    return (struct gateway_version_limits){
        .batch_rows_max = v->batch_max, .replicas_max = v->replicas_max, .batch_delay_ns = v->schedule.delay_ns};
}

const struct gateway_version *gateway_version_of(const struct gateway_request *r)
{
    return r->version;
}

struct str gateway_version_model(const struct gateway_version *v)
{
    return str_from(v->model);
}

struct str gateway_version_text(const struct gateway_version *v)
{
    return str_from(v->number_text);
}
