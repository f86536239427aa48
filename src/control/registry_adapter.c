/* Adapters: what they rest on, what was found to fit, and what may be served. An adapter's content is a version of it,
 * of which only the newest is kept; that it fits a base is kept as a description of it, by "an engine" that is named
 * after the base's digest. */
#include "registry_internal.h"

#include <stdio.h>

#define LEVEL_MICROVM 5u /* rank: no descriptor gets into its workers */
#define FIT           "lora:"
#define FIT_BYTES     (sizeof FIT + REGISTRY_HEX_BYTES)

struct fit { /* found by an ingest, and not written yet */
    struct list node;
    uint8_t adapter[STORE_DIGEST_BYTES], base[STORE_DIGEST_BYTES];
};

static void fit_name(const uint8_t base[static STORE_DIGEST_BYTES], char name[static FIT_BYTES])
{
    memcpy(name, FIT, sizeof FIT);
    registry_hex(base, name + sizeof FIT - 1);
}

static void note_found(void *ctx, const struct store_description *d)
{
    (void)d;
    *(bool *)ctx = true;
}

int registry_adapter_fits(struct registry *r, const uint8_t adapter[static STORE_DIGEST_BYTES],
                          const uint8_t base[static STORE_DIGEST_BYTES], struct error *err)
{
    char name[FIT_BYTES];
    bool found = false;
    fit_name(base, name);
    int rc = r->config.store->description_find(r->store, str_from(name), adapter, 0, note_found, &found, err);
    return rc < 0 ? rc : found;
}

int registry_fit_add(struct registry_ingest *ingest)
{
    struct fit *f = calloc(1, sizeof *f);
    if (!f)
        return -ERROR_NO_MEMORY;
    memcpy(f->adapter, ingest->wanted_adapter.digest, sizeof f->adapter);
    memcpy(f->base, ingest->wanted.digest, sizeof f->base);
    list_append(&ingest->fits, &f->node);
    return 0;
}

void registry_fits_done(struct registry_ingest *ingest)
{
    list_each_safe(node, &ingest->fits)
    {
        list_remove(node);
        free(container_of(node, struct fit, node));
    }
}

int registry_fits_write(struct registry *r, const struct registry_ingest *ingest, struct error *err)
{
    for (const struct list *node = ingest->fits.next; node != &ingest->fits; node = node->next) {
        const struct fit *f = container_of(node, struct fit, node);
        char name[FIT_BYTES];
        fit_name(f->base, name);
        struct store_description row = {.engine = str_from(name), .signature = STR("fits")};
        memcpy(row.digest, f->adapter, sizeof row.digest);
        int rc = r->config.store->description_put(r->store, &row, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- bases --- */

struct base {
    struct resource_model model;
    struct registry_newest newest; /* its digest, bytes, number and uid (0: not stored yet) */
    uint32_t level;                /* rank at which the adapter's tenant uses it */
};

/* The base of that name as it will be after the plan (NULL: as it is). 1, 0 when the tenant has none, or negative. */
static int base_find(struct registry *r, const struct registry_plan *plan, const struct registry_loans *loans,
                     const char *tenant, const char *name, struct base *ret_base, struct error *err)
{
    const struct registry_loan *loan = registry_loan_find(loans, tenant, name);
    const char *owner = loan ? loan->lender : tenant;
    union registry_resource found;
    struct registry_row row;
    const struct registry_plan_item *item =
        plan ? registry_plan_find(plan, RESOURCE_MODEL, str_from(owner), str_from(name)) : NULL;
    if (item) {
        ret_base->model = item->next.model;
        ret_base->newest = item->newest;
        ret_base->newest.number = item->version;
        ret_base->newest.artifact_bytes = item->artifact_bytes;
        memcpy(ret_base->newest.digest, item->digest, sizeof ret_base->newest.digest);
    } else {
        int rc = registry_find(r, RESOURCE_MODEL, str_from(owner), str_from(name), &found, &row, err);
        if (rc > 0)
            rc = registry_newest(r, row.uid, &ret_base->newest, err) < 0 ? -ERROR_IO : 1;
        if (rc <= 0)
            return rc;
        ret_base->model = found.model;
    }
    ret_base->level = registry_level_rank(ret_base->model.isolation_level);
    if (!loan)
        return 1;
    const struct registry_plan_item *borrower =
        plan ? registry_plan_find(plan, RESOURCE_TENANT, str_any(), str_from(tenant)) : NULL;
    int rc = borrower ? 1 : registry_find(r, RESOURCE_TENANT, str_any(), str_from(tenant), &found, NULL, err);
    if (rc <= 0)
        return rc;
    uint32_t floor = borrower ? borrower->next.tenant.isolation_minimum : found.tenant.isolation_minimum;
    ret_base->level = registry_level_lent(ret_base->level, registry_level_rank(floor));
    return 1;
}

int registry_adapter_fault(struct registry *r, const struct registry_loans *loans, const struct resource_adapter *a,
                           const uint8_t digest[static STORE_DIGEST_BYTES], const char **ret_fault, struct error *err)
{
    struct base base;
    int rc = base_find(r, NULL, loans, a->meta.tenant, a->base, &base, err);
    *ret_fault = rc == 0 ? "its base is not there, or no longer lent to this tenant"
                 : rc > 0 && base.level >= LEVEL_MICROVM
                     ? "its base runs at level microvm for this tenant, where no adapter can be loaded"
                     : NULL;
    if (rc <= 0 || *ret_fault)
        return rc < 0 ? rc : 0;
    rc = registry_adapter_fits(r, digest, base.newest.digest, err);
    if (rc == 0)
        *ret_fault = "it was not opened with the present version of its base; apply it again";
    return rc < 0 ? rc : 0;
}

/* --- what refuses a change --- */

/* Whether a model may be the base of an adapter; `title` is of what is being applied. */
static int check_base(const struct registry_plan *plan, const char *title, const char *tenant, const char *adapter,
                      const struct base *base, struct error *err)
{
    const struct registry_config *config = &plan->registry->config;
    const struct resource_model *m = &base->model;
    if (!config->engine_lends(config->ctx, str_from(m->engine)))
        return error_set(err, -ERROR_REFUSED,
                         "%s: Model %s/%s is of engine \"%s\", and cannot be the base of Adapter %s/%s: only language "
                         "models (engine llama) take adapters",
                         title, m->meta.tenant, m->meta.name, m->engine, tenant, adapter);
    if (base->level >= LEVEL_MICROVM)
        return error_set(err, -ERROR_REFUSED,
                         "%s: Model %s/%s runs at level \"microvm\" for Tenant %s, and no adapter can be loaded into a "
                         "virtual machine that runs: it cannot be the base of Adapter %s/%s",
                         title, m->meta.tenant, m->meta.name, tenant, tenant, adapter);
    return 0;
}

static int check_adapter(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    const struct resource_adapter *a = &item->next.adapter;
    struct str tenant = str_from(a->meta.tenant), name = str_from(a->meta.name);
    const struct registry_loan *loan = registry_loan_find(plan->loans, a->meta.tenant, a->meta.name);
    struct base base;
    int rc = registry_plan_find(plan, RESOURCE_MODEL, tenant, name) != NULL;
    if (rc == 0)
        rc = registry_find(plan->registry, RESOURCE_MODEL, tenant, name, NULL, NULL, err);
    if (rc > 0)
        return error_set(err, -ERROR_CONFLICT, "%s: Tenant %s has a Model of this name", item->title, a->meta.tenant);
    if (rc < 0)
        return rc;
    if (loan)
        return error_set(err, -ERROR_CONFLICT, "%s: Tenant %s is lent a model of this name, by Grant %s/%s",
                         item->title, a->meta.tenant, loan->lender, loan->grant);
    rc = base_find(plan->registry, plan, plan->loans, a->meta.tenant, a->base, &base, err);
    if (rc == 0)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.base: Tenant %s has no Model %s, and is lent none",
                         item->title, a->meta.tenant, a->base);
    return rc < 0 ? rc : check_base(plan, item->title, a->meta.tenant, a->meta.name, &base, err);
}

struct resting { /* a walk over stored adapters that the plan leaves as they are */
    const struct registry_plan *plan;
    const char *model;
    int (*each)(struct resting *w, const struct resource_adapter *a, uint64_t uid);
    const struct registry_plan_item *item;
    struct registry_ingest *ingest;
    struct error *err;
    int rc;
};

static int resting_one(void *ctx, const struct store_resource *stored)
{
    struct resting *w = ctx;
    union registry_resource resource;
    if (registry_plan_find(w->plan, RESOURCE_ADAPTER, stored->tenant, stored->name))
        return 0; /* looked at on its own */
    w->rc = registry_decode(stored, &resource, w->err);
    if (w->rc >= 0 && strcmp(resource.adapter.base, w->model) == 0)
        w->rc = w->each(w, &resource.adapter, stored->uid);
    return w->rc != 0;
}

static int resting_of_tenant(struct resting *w, const char *tenant)
{
    struct registry *r = w->plan->registry;
    int rc =
        r->config.store->resource_each(r->store, RESOURCE_ADAPTER, str_from(tenant), str_any(), resting_one, w, w->err);
    return rc < 0 ? rc : w->rc;
}

/* Adapters of a model's owner, and of all to whom it will be lent. Ends at the first that is not 0. */
static int resting_of_model(struct resting *w, const struct resource_model *m)
{
    const struct registry_loans *loans = w->plan->loans;
    w->model = m->meta.name;
    int rc = resting_of_tenant(w, m->meta.tenant);
    for (size_t i = 0; rc == 0 && i < loans->n; i++)
        if (strcmp(loans->rows[i].lender, m->meta.tenant) == 0 && strcmp(loans->rows[i].model, m->meta.name) == 0)
            rc = resting_of_tenant(w, loans->rows[i].borrower);
    return rc;
}

static int resting_check(struct resting *w, const struct resource_adapter *a, uint64_t uid)
{
    struct base base;
    (void)uid;
    int rc = base_find(w->plan->registry, w->plan, w->plan->loans, a->meta.tenant, a->base, &base, w->err);
    return rc <= 0 ? rc : check_base(w->plan, w->item->title, a->meta.tenant, a->meta.name, &base, w->err);
}

static int name_taken(const struct registry_plan *plan, const char *title, const char *tenant, const char *name,
                      struct error *err)
{
    int rc = registry_plan_find(plan, RESOURCE_ADAPTER, str_from(tenant), str_from(name)) != NULL;
    if (rc == 0)
        rc = registry_find(plan->registry, RESOURCE_ADAPTER, str_from(tenant), str_from(name), NULL, NULL, err);
    if (rc > 0)
        return error_set(err, -ERROR_CONFLICT, "%s: Tenant %s has an Adapter of the name %s", title, tenant, name);
    return rc;
}

/* What a tenant whose floor rises is lent, and has adapters of. */
static int check_floor(struct resting *w, const struct resource_tenant *tenant)
{
    const struct registry_loans *loans = w->plan->loans;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < loans->n; i++) {
        if (strcmp(loans->rows[i].borrower, tenant->meta.name) != 0)
            continue;
        w->model = loans->rows[i].model;
        rc = resting_of_tenant(w, tenant->meta.name);
    }
    return rc;
}

static int check_item(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    struct resting w = {.plan = plan, .each = resting_check, .item = item, .err = err};
    int rc = 0;
    if (item->kind == RESOURCE_ADAPTER)
        return check_adapter(plan, item, err);
    if (item->kind == RESOURCE_MODEL) {
        rc = name_taken(plan, item->title, item->next.meta.tenant, item->next.meta.name, err);
        return rc < 0 ? rc : resting_of_model(&w, &item->next.model);
    }
    if (item->kind == RESOURCE_TENANT)
        return check_floor(&w, &item->next.tenant);
    const struct resource_grant *g = &item->next.grant;
    w.model = g->model;
    for (uint32_t i = 0; rc >= 0 && i < g->tenants.n; i++) {
        rc = name_taken(plan, item->title, g->tenants.entries[i], g->model, err);
        if (rc >= 0) /* which may have waited for this loan */
            rc = resting_of_tenant(&w, g->tenants.entries[i]);
    }
    return rc;
}

static bool concerned(const struct registry_plan *plan)
{
    bool any = plan->registry->n_adapters > 0;
    for (uint32_t i = 0; i < plan->n_items; i++)
        any = any || plan->items[i].kind == RESOURCE_ADAPTER;
    return any;
}

int registry_adapters_check(const struct registry_plan *plan, struct error *err)
{
    int rc = 0;
    for (uint32_t i = 0; concerned(plan) && rc >= 0 && i < plan->n_items; i++)
        rc = check_item(plan, &plan->items[i], err);
    return rc;
}

/* --- what is to be opened --- */

/* 1 when the adapter must be opened with its base first. */
static int want_fit(struct resting *w, const struct resource_adapter *a, const uint8_t *digest, uint64_t bytes)
{
    const struct registry_plan *plan = w->plan;
    struct registry_ingest *ingest = w->ingest;
    struct base base;
    int rc = base_find(plan->registry, plan, plan->loans, a->meta.tenant, a->base, &base, w->err);
    if (rc <= 0)
        return rc;
    for (const struct list *node = ingest->fits.next; node != &ingest->fits; node = node->next) {
        const struct fit *f = container_of(node, struct fit, node);
        if (memcmp(f->adapter, digest, sizeof f->adapter) == 0 &&
            memcmp(f->base, base.newest.digest, sizeof f->base) == 0)
            return 0;
    }
    rc = registry_adapter_fits(plan->registry, digest, base.newest.digest, w->err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    const struct resource_model *m = &base.model;
    struct registry_version *wanted = &ingest->wanted;
    *wanted = (struct registry_version){.number = base.newest.number,
                                        .level = base.level,
                                        .cpu_milli = m->cpu_milli,
                                        .memory_bytes = m->memory_bytes,
                                        .repack = m->repack,
                                        .artifact_bytes = base.newest.artifact_bytes};
    memcpy(wanted->engine, m->engine, sizeof wanted->engine);
    memcpy(wanted->digest, base.newest.digest, sizeof wanted->digest);
    memcpy(wanted->tenant, m->meta.tenant, sizeof wanted->tenant);
    memcpy(wanted->model, m->meta.name, sizeof wanted->model);
    struct registry_version *adapter = &ingest->wanted_adapter;
    *adapter = (struct registry_version){.number = 1, .artifact_bytes = bytes};
    memcpy(adapter->digest, digest, sizeof adapter->digest);
    memcpy(adapter->tenant, a->meta.tenant, sizeof adapter->tenant);
    memcpy(adapter->model, a->meta.name, sizeof adapter->model);
    return 1;
}

static int resting_want(struct resting *w, const struct resource_adapter *a, uint64_t uid)
{
    struct registry_newest newest;
    int rc = registry_newest(w->plan->registry, uid, &newest, w->err);
    return rc < 0 ? rc : newest.n_versions == 0 ? 0 : want_fit(w, a, newest.digest, newest.artifact_bytes);
}

static int want_item(struct resting *w, const struct registry_plan_item *item)
{
    int rc = 0;
    if (item->kind == RESOURCE_ADAPTER)
        return want_fit(w, &item->next.adapter, item->digest, item->artifact_bytes);
    if (item->kind == RESOURCE_MODEL)
        return item->version_new ? resting_of_model(w, &item->next.model) : 0;
    const struct resource_grant *g = &item->next.grant;
    w->model = g->model;
    for (uint32_t i = 0; item->kind == RESOURCE_GRANT && rc == 0 && i < g->tenants.n; i++)
        rc = resting_of_tenant(w, g->tenants.entries[i]);
    return rc;
}

int registry_plan_fitted(struct registry_plan *plan, struct registry_ingest *ingest, struct error *err)
{
    struct registry_loans loans = {0};
    if (!concerned(plan))
        return 0;
    int rc = registry_loans_load(plan->registry, plan, &loans, err);
    plan->loans = &loans;
    for (uint32_t i = 0; rc == 0 && i < plan->n_items; i++) {
        struct resting w = {.plan = plan, .each = resting_want, .ingest = ingest, .err = err};
        rc = want_item(&w, &plan->items[i]);
    }
    plan->loans = NULL;
    registry_loans_done(&loans);
    return rc;
}

/* --- looking up, and deleting --- */

struct lookup {
    uint64_t uid; /* of its content, then its own */
    struct registry_adapter *adapter;
    bool found;
    struct error *err;
    int rc;
};

static int lookup_version(void *ctx, const struct store_version *v)
{
    struct lookup *lookup = ctx;
    if (v->uid != lookup->uid)
        return 0;
    lookup->found = true;
    lookup->uid = v->model_uid;
    lookup->adapter->content.artifact_bytes = v->artifact_bytes;
    lookup->adapter->content.number = v->number;
    memcpy(lookup->adapter->content.digest, v->digest, sizeof lookup->adapter->content.digest);
    return 1;
}

static int lookup_resource(void *ctx, const struct store_resource *stored)
{
    struct lookup *lookup = ctx;
    union registry_resource resource;
    if (stored->uid != lookup->uid)
        return 0;
    lookup->found = true;
    lookup->rc = registry_decode(stored, &resource, lookup->err);
    if (lookup->rc < 0)
        return 1;
    memcpy(lookup->adapter->base, resource.adapter.base, sizeof lookup->adapter->base);
    memcpy(lookup->adapter->content.tenant, resource.meta.tenant, sizeof lookup->adapter->content.tenant);
    memcpy(lookup->adapter->content.model, resource.meta.name, sizeof lookup->adapter->content.model);
    return 1;
}

int registry_adapter_find(struct registry *r, uint64_t adapter_uid, struct registry_adapter *ret_adapter,
                          struct error *err)
{
    struct registry_adapter adapter = {0};
    struct lookup lookup = {.uid = adapter_uid, .adapter = &adapter, .err = err};
    const struct store_ops *ops = r->config.store;
    int rc = ops->version_each(r->store, 0, lookup_version, &lookup, err);
    bool content = lookup.found;
    lookup.found = false;
    if (rc >= 0 && content)
        rc = ops->resource_each(r->store, RESOURCE_ADAPTER, str_any(), str_any(), lookup_resource, &lookup, err);
    rc = rc < 0 ? rc : lookup.rc;
    if (rc >= 0 && !lookup.found)
        rc = error_set(err, -ERROR_MODEL_NOT_FOUND, "the adapter, or this content of it, is gone");
    if (rc < 0)
        return rc;
    *ret_adapter = adapter;
    return 0;
}

/* Do these replicas, of the owner, serve that tenant? */
static int serves(struct registry *r, const struct registry_version *v, const char *tenant, struct error *err)
{
    struct registry_row row;
    struct registry_version theirs;
    if (v->lender[0])
        return 0;
    int rc = registry_find(r, RESOURCE_TENANT, str_any(), str_from(tenant), NULL, &row, err);
    if (rc <= 0)
        return rc;
    rc = registry_version_find(r, v->uid, row.uid, &theirs, err);
    return rc == -ERROR_MODEL_NOT_FOUND ? 0 : rc < 0 ? rc : theirs.hosted;
}

int registry_adapter_allowed(struct registry *r, const struct registry_adapter *a, const struct registry_version *v,
                             struct error *err)
{
    int rc = strcmp(a->base, v->model) != 0              ? 0
             : strcmp(a->content.tenant, v->tenant) == 0 ? 1
                                                         : serves(r, v, a->content.tenant, err);
    if (rc > 0)
        rc = registry_adapter_fits(r, a->content.digest, v->digest, err);
    if (rc == 0)
        rc = error_set(err, -ERROR_REFUSED, "Adapter %s/%s does not belong to Model %s/%s", a->content.tenant,
                       a->content.model, v->tenant, v->model);
    return rc < 0 ? rc : 0;
}

struct based {
    struct str tenant, model;
    struct error *err;
    int rc;
};

static int adapter_rests(void *ctx, const struct store_resource *stored)
{
    struct based *based = ctx;
    union registry_resource resource;
    based->rc = registry_decode(stored, &resource, based->err);
    if (based->rc >= 0 && (!based->model.data || str_equal(based->model, str_from(resource.adapter.base))))
        based->rc =
            based->model.data
                ? error_set(based->err, -ERROR_CONFLICT,
                            "Model " STR_FORMAT "/" STR_FORMAT " is the base of Adapter %s/%s; delete that first",
                            STR_ARG(based->tenant), STR_ARG(based->model), resource.meta.tenant, resource.meta.name)
                : error_set(based->err, -ERROR_CONFLICT,
                            "Tenant " STR_FORMAT " still has adapters (%s, for one); delete them first",
                            STR_ARG(based->tenant), resource.meta.name);
    return based->rc < 0;
}

int registry_adapters_check_delete(struct registry *r, struct str tenant, struct str model, struct error *err)
{
    struct based based = {tenant, model, err, 0};
    int rc = r->config.store->resource_each(r->store, RESOURCE_ADAPTER, tenant, str_any(), adapter_rests, &based, err);
    return rc < 0 ? rc : based.rc;
}
