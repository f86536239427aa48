/* The catalog of the present state: every tenant, key, model, its served versions, and adapters, read from the store.
 */
#include "registry_internal.h"

#include <assert.h>

struct tenant {
    uint64_t uid;
    int index;      /* in the catalog */
    uint32_t floor; /* rank */
    char name[LIMIT_NAME_BYTES + 1];
};

struct placed { /* a model's row */
    uint32_t tenant;
    int index;
    const struct registry_loan *loan; /* NULL: its own */
    char name[LIMIT_NAME_BYTES + 1];
};

struct tenant_uid {
    uint64_t uid;
    int index; /* in the catalog */
};

struct assemble {
    struct registry *registry;
    struct catalog_builder *builder;
    struct tenant *tenants; /* [n_tenants], in the order of the store: by name */
    size_t n_tenants, tenants_capacity;
    struct tenant_uid *by_uid;  /* [n_tenants], ascending */
    struct catalog_model model; /* the one whose versions are being added */
    uint32_t n_versions;
    const struct registry_loan *loan; /* it is lent to who has the row; NULL: it is not */
    struct registry_loans loans;
    size_t next_loan;
    struct placed *placed; /* [n_placed], ascending by tenant */
    size_t n_placed, placed_capacity;
    struct error *err;
    int rc;
};

/* The outcome of a catalog_add_*, noted for the end of the walk. */
static int added(struct assemble *a, int result, const char *what)
{
    if (result >= 0)
        return 0;
    a->rc = error_set(a->err, result, "a %s does not fit into the catalog: %s", what, error_info(result)->text);
    return 1;
}

/* *ret_place: index + 1, or 0 where nothing is limited. */
static int add_quota(struct assemble *a, struct catalog_quota *quota, uint32_t *ret_place)
{
    static const struct catalog_quota none;
    *ret_place = 0;
    uint64_t burst = registry_burst(quota->burst, quota->requests_per_minute);
    quota->burst = 0;
    if (memcmp(quota, &none, sizeof none) == 0)
        return 0;
    quota->burst = burst;
    int index = catalog_add_quota(a->builder, quota);
    *ret_place = (uint32_t)index + 1;
    return added(a, index, "quota");
}

static int add_quotas(struct assemble *a, const struct resource_tenant *tenant, struct catalog_tenant *row)
{
    struct catalog_quota own = {.requests_per_minute = tenant->requests_per_minute,
                                .burst = tenant->burst,
                                .concurrency = tenant->concurrency,
                                .compute_s_per_hour = tenant->compute_s_per_hour,
                                .compute_s_per_day = tenant->compute_s_per_day,
                                .body_bytes = tenant->body_bytes,
                                .response_bytes = tenant->response_bytes,
                                .bytes_per_s_in = tenant->bytes_per_s_in,
                                .bytes_per_s_out = tenant->bytes_per_s_out,
                                .tokens_per_minute = tenant->tokens_per_minute,
                                .tokens_per_day = tenant->tokens_per_day,
                                .connections = tenant->connections};
    struct catalog_quota of_key = {.requests_per_minute = tenant->per_key.requests_per_minute,
                                   .burst = tenant->per_key.burst,
                                   .concurrency = tenant->per_key.concurrency,
                                   .compute_s_per_hour = tenant->per_key.compute_s_per_hour,
                                   .compute_s_per_day = tenant->per_key.compute_s_per_day,
                                   .tokens_per_minute = tenant->per_key.tokens_per_minute,
                                   .tokens_per_day = tenant->per_key.tokens_per_day};
    return add_quota(a, &own, &row->quota) != 0 || add_quota(a, &of_key, &row->key_quota) != 0;
}

static int add_tenant(void *ctx, const struct store_resource *stored)
{
    struct assemble *a = ctx;
    union registry_resource resource;
    a->rc = registry_decode(stored, &resource, a->err);
    if (a->rc < 0)
        return 1;
    struct tenant *tenants = memory_array_room(a->tenants, a->n_tenants, &a->tenants_capacity, sizeof *tenants);
    if (!tenants) {
        a->rc = error_set_default(a->err, -ERROR_NO_MEMORY);
        return 1;
    }
    a->tenants = tenants;
    const struct resource_tenant *tenant = &resource.tenant;
    struct catalog_tenant row = {.uid = stored->uid,
                                 .weight = (uint32_t)tenant->weight,
                                 .queue_max = (uint32_t)tenant->queue_depth,
                                 .classes = tenant->classes,
                                 .queue_bytes_max = tenant->queue_bytes,
                                 .adapter_bytes_max = tenant->adapter_bytes};
    if (add_quotas(a, tenant, &row) != 0)
        return 1;
    memcpy(row.name, tenant->meta.name, sizeof row.name);
    int index = catalog_add_tenant(a->builder, &row);
    struct tenant *noted = &a->tenants[a->n_tenants];
    noted->uid = stored->uid;
    noted->index = index;
    noted->floor = registry_level_rank(tenant->isolation_minimum);
    memcpy(noted->name, row.name, sizeof noted->name);
    a->n_tenants++;
    return added(a, index, "tenant");
}

static int compare_name(const void *name, const void *tenant)
{
    return strcmp(name, ((const struct tenant *)tenant)->name);
}

static int compare_uid(const void *a, const void *b)
{
    uint64_t x = ((const struct tenant_uid *)a)->uid, y = ((const struct tenant_uid *)b)->uid;
    return x < y ? -1 : x > y;
}

static const struct tenant *tenant_find(const struct assemble *a, const char *name)
{
    return a->n_tenants ? bsearch(name, a->tenants, a->n_tenants, sizeof *a->tenants, compare_name) : NULL;
}

/* Adds the row of a->model, and notes where. */
static int place(struct assemble *a)
{
    int index = catalog_add_model(a->builder, &a->model);
    if (added(a, index, "model") != 0)
        return 1;
    struct placed *placed = memory_array_room(a->placed, a->n_placed, &a->placed_capacity, sizeof *placed);
    if (!placed) {
        a->rc = error_set_default(a->err, -ERROR_NO_MEMORY);
        return 1;
    }
    a->placed = placed;
    struct placed *p = &a->placed[a->n_placed++];
    *p = (struct placed){.tenant = a->model.tenant, .index = index, .loan = a->loan};
    memcpy(p->name, a->model.name, sizeof p->name);
    return 0;
}

/* The row of that tenant and name, or NULL. */
static const struct placed *placed_find(const struct assemble *a, uint32_t tenant, const char *name)
{
    size_t low = 0, high = a->n_placed;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (a->placed[middle].tenant < tenant)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < a->n_placed && a->placed[low].tenant == tenant; low++)
        if (strcmp(a->placed[low].name, name) == 0)
            return &a->placed[low];
    return NULL;
}

static int add_version(void *ctx, const struct store_version *v)
{
    struct assemble *a = ctx;
    if (a->n_versions >= LIMIT_VERSIONS_SERVED)
        return 1;
    struct resource_model model;
    const struct tenant *tenant = &a->tenants[a->model.tenant];
    a->rc = registry_version_decode(v->document, tenant->name, a->model.name, &model, a->err);
    if (a->rc < 0)
        return 1;
    if (a->n_versions++ == 0 && place(a) != 0)
        return 1;
    uint32_t own = registry_level_rank(model.isolation_level);
    struct catalog_version row = {.uid = v->uid,
                                  .created_s = v->created_ms / 1000,
                                  .number = v->number,
                                  .slots = registry_slots(&model),
                                  .device = registry_device(a->registry, &model),
                                  .dedicated = model.cpuset != 0,
                                  .level = a->loan ? registry_level_lent(own, tenant->floor) : own};
    row.hosted = a->loan && row.level == CATALOG_LEVEL_SHARED;
    static_assert(sizeof row.engine == sizeof model.engine, "engine names have one size");
    memcpy(row.engine, model.engine, sizeof row.engine);
    memcpy(row.digest, v->digest, sizeof row.digest);
    const struct registry_config *config = &a->registry->config;
    if (config->served)
        config->served(config->ctx, row.engine, row.level);
    return added(a, catalog_add_version(a->builder, &row), "version");
}

/* loan NULL: a model of its own tenant, else the row of a borrower. */
static int add_model(struct assemble *a, const struct resource_model *model, uint64_t uid,
                     const struct registry_loan *loan)
{
    const struct tenant *tenant = tenant_find(a, loan ? loan->borrower : model->meta.tenant);
    if (!tenant)
        return error_set(a->err, -ERROR_IO, "the store holds a model without its tenant");
    uint64_t row_uid = uid;
    int rc = loan ? registry_lent_uid(uid, tenant->uid, &row_uid, a->err) : 0;
    if (rc < 0)
        return rc;
    a->n_versions = 0;
    a->loan = loan;
    a->model = (struct catalog_model){.uid = row_uid,
                                      .tenant = (uint32_t)tenant->index,
                                      .batch_max = model->batch_invariant ? (uint32_t)model->batch_max : 1,
                                      .batch_delay_ns = model->batch_delay_ns,
                                      .replicas_min = (uint32_t)model->replicas_min,
                                      .replicas_max = (uint32_t)model->replicas_max,
                                      .idle_after_ns = model->replicas_idle_after_ns,
                                      .weight = (uint32_t)model->weight,
                                      .class = model->class};
    if (loan) { /* what is for the owner's own models does not bind a borrower, who pays for what runs */
        a->model.replicas_min = 0;
        a->model.weight = 1;
        a->model.shared_batch = loan->shared_batch;
    }
    if (model->batch_invariant) {
        a->model.n_preferred = model->batch_preferred.n;
        memcpy(a->model.preferred, model->batch_preferred.values, sizeof a->model.preferred);
    }
    memcpy(a->model.name, model->meta.name, sizeof a->model.name);
    const struct store_ops *ops = a->registry->config.store;
    rc = ops->version_each(a->registry->store, uid, add_version, a, a->err);
    return rc < 0 ? rc : a->rc;
}

/* The rows of what is lent to tenants up to `last` (NULL: all). */
static int add_loans(struct assemble *a, const char *last)
{
    while (a->next_loan < a->loans.n) {
        const struct registry_loan *loan = &a->loans.rows[a->next_loan];
        if (last && strcmp(loan->borrower, last) > 0)
            break;
        union registry_resource model;
        struct registry_row row;
        int rc = registry_need(a->registry, RESOURCE_MODEL, str_from(loan->lender), str_from(loan->model), &model, &row,
                               a->err);
        if (rc >= 0)
            rc = add_model(a, &model.model, row.uid, loan);
        if (rc < 0)
            return rc;
        a->next_loan++;
    }
    return 0;
}

static int set_lenders(struct assemble *a)
{
    for (size_t i = 0; i < a->n_placed; i++) {
        const struct placed *p = &a->placed[i];
        const struct tenant *lender = p->loan ? tenant_find(a, p->loan->lender) : NULL;
        const struct placed *own = lender ? placed_find(a, (uint32_t)lender->index, p->name) : NULL;
        if (p->loan && (!own || catalog_set_lender(a->builder, (uint32_t)p->index, (uint32_t)own->index) < 0))
            return error_set(a->err, -ERROR_IO, "the store holds a grant without its model");
    }
    return 0;
}

static int each_model(void *ctx, const struct store_resource *stored)
{
    struct assemble *a = ctx;
    union registry_resource resource;
    a->rc = registry_decode(stored, &resource, a->err);
    if (a->rc >= 0)
        a->rc = add_loans(a, resource.meta.tenant);
    if (a->rc >= 0)
        a->rc = add_model(a, &resource.model, stored->uid, NULL);
    return a->rc < 0;
}

/* An adapter that cannot be used is in no catalog: its status says why. */
static int each_adapter(void *ctx, const struct store_resource *stored)
{
    struct assemble *a = ctx;
    union registry_resource resource;
    struct registry_newest newest;
    const char *fault = NULL;
    a->rc = registry_decode(stored, &resource, a->err);
    const struct resource_adapter *adapter = &resource.adapter;
    if (a->rc >= 0)
        a->rc = registry_newest(a->registry, stored->uid, &newest, a->err);
    if (a->rc >= 0)
        a->rc = registry_adapter_fault(a->registry, &a->loans, adapter, newest.digest, &fault, a->err);
    const struct tenant *tenant = a->rc >= 0 ? tenant_find(a, adapter->meta.tenant) : NULL;
    const struct placed *base = tenant ? placed_find(a, (uint32_t)tenant->index, adapter->base) : NULL;
    if (a->rc < 0 || fault || !base)
        return a->rc < 0;
    struct catalog_adapter row = {.uid = newest.uid,
                                  .bytes = newest.artifact_bytes,
                                  .created_s = newest.created_ms / 1000,
                                  .tenant = (uint32_t)tenant->index,
                                  .model = (uint32_t)base->index};
    memcpy(row.digest, newest.digest, sizeof row.digest);
    memcpy(row.name, adapter->meta.name, sizeof row.name);
    return added(a, catalog_add_adapter(a->builder, &row), "adapter");
}

static int add_key(void *ctx, const struct store_key *key)
{
    struct assemble *a = ctx;
    struct tenant_uid wanted = {.uid = key->tenant_uid};
    const struct tenant_uid *found =
        a->n_tenants ? bsearch(&wanted, a->by_uid, a->n_tenants, sizeof *a->by_uid, compare_uid) : NULL;
    if (!found || key->id.size != CATALOG_KEY_ID_BYTES) {
        a->rc = error_set(a->err, -ERROR_IO, "the store holds a key without its tenant");
        return 1;
    }
    struct catalog_key row = {.tenant = (uint32_t)found->index};
    memcpy(row.id, key->id.data, sizeof row.id);
    memcpy(row.hash, key->hash, sizeof row.hash);
    return added(a, catalog_add_key(a->builder, &row), "key");
}

static int assemble(struct assemble *a)
{
    struct registry *r = a->registry;
    const struct store_ops *ops = r->config.store;
    int rc = ops->resource_each(r->store, RESOURCE_TENANT, str_any(), str_any(), add_tenant, a, a->err);
    if (rc < 0 || a->rc < 0)
        return rc < 0 ? rc : a->rc;
    a->by_uid = calloc(a->n_tenants + 1, sizeof *a->by_uid);
    if (!a->by_uid)
        return error_set_default(a->err, -ERROR_NO_MEMORY);
    for (size_t i = 0; i < a->n_tenants; i++)
        a->by_uid[i] = (struct tenant_uid){a->tenants[i].uid, a->tenants[i].index};
    qsort(a->by_uid, a->n_tenants, sizeof *a->by_uid, compare_uid);
    rc = ops->key_each(r->store, 0, add_key, a, a->err);
    if (rc < 0 || a->rc < 0)
        return rc < 0 ? rc : a->rc;
    rc = registry_loans_load(r, NULL, &a->loans, a->err);
    if (rc < 0)
        return rc;
    /* by (tenant, name), as the tenants came: so models are grouped by ascending tenant index */
    rc = ops->resource_each(r->store, RESOURCE_MODEL, str_any(), str_any(), each_model, a, a->err);
    rc = rc < 0 ? rc : a->rc;
    if (rc >= 0)
        rc = add_loans(a, NULL);
    if (rc >= 0)
        rc = set_lenders(a);
    if (rc >= 0)
        rc = ops->resource_each(r->store, RESOURCE_ADAPTER, str_any(), str_any(), each_adapter, a, a->err);
    return rc < 0 ? rc : a->rc;
}

int registry_catalog(struct registry *r, uint64_t *ret_generation, int *ret_fd, size_t *ret_bytes, struct error *err)
{
    uint64_t revision = 0;
    int rc = r->config.store->revision(r->store, &revision, err);
    if (rc < 0)
        return rc;
    struct assemble a = {.registry = r, .err = err};
    rc = catalog_builder_new(revision, &a.builder);
    if (rc < 0)
        return error_set_default(err, rc);
    rc = assemble(&a);
    if (rc >= 0)
        rc = catalog_build(a.builder, ret_fd, ret_bytes, err);
    catalog_builder_free(a.builder);
    registry_loans_done(&a.loans);
    free(a.placed);
    free(a.by_uid);
    free(a.tenants);
    if (rc < 0)
        return rc;
    *ret_generation = revision;
    return 0;
}
