/* What a tenant's models and adapters hold, against its quotas of models and artifact bytes. */
#include "registry_internal.h"

struct artifact {
    uint8_t digest[STORE_DIGEST_BYTES];
    uint64_t bytes;
};

struct walk {
    struct registry *registry;
    struct artifact *artifacts; /* with repetitions */
    size_t n, capacity;
    uint64_t n_models;
    struct error *err;
    int rc;
};

static int artifact_note(struct walk *w, const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t bytes)
{
    struct artifact *artifacts = memory_array_room(w->artifacts, w->n, &w->capacity, sizeof *artifacts);
    if (!artifacts) {
        w->rc = error_set_default(w->err, -ERROR_NO_MEMORY);
        return 1;
    }
    w->artifacts = artifacts;
    memcpy(w->artifacts[w->n].digest, digest, STORE_DIGEST_BYTES);
    w->artifacts[w->n++].bytes = bytes;
    return 0;
}

static int each_version(void *ctx, const struct store_version *v)
{
    int r = artifact_note(ctx, v->digest, v->artifact_bytes);
    return r == 0 && v->image_bytes > 0 ? artifact_note(ctx, v->image, v->image_bytes) : r;
}

static int each_owner(void *ctx, const struct store_resource *stored)
{
    struct walk *w = ctx;
    w->n_models += stored->kind == RESOURCE_MODEL;
    const struct store_ops *ops = w->registry->config.store;
    int rc = ops->version_each(w->registry->store, stored->uid, each_version, w, w->err);
    w->rc = rc < 0 ? rc : w->rc;
    return w->rc < 0;
}

static int compare(const void *a, const void *b)
{
    return memcmp(((const struct artifact *)a)->digest, ((const struct artifact *)b)->digest, STORE_DIGEST_BYTES);
}

int registry_holding(struct registry *r, struct str tenant, const struct registry_plan *plan,
                     struct registry_holding *ret_holding, struct error *err)
{
    struct walk w = {.registry = r, .err = err};
    int rc = r->config.store->resource_each(r->store, RESOURCE_MODEL, tenant, str_any(), each_owner, &w, err);
    if (rc >= 0 && w.rc >= 0)
        rc = r->config.store->resource_each(r->store, RESOURCE_ADAPTER, tenant, str_any(), each_owner, &w, err);
    rc = rc < 0 ? rc : w.rc;
    for (uint32_t i = 0; plan && rc >= 0 && i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        bool model = item->kind == RESOURCE_MODEL;
        if ((!model && item->kind != RESOURCE_ADAPTER) || !str_equal(str_from(item->next.meta.tenant), tenant))
            continue;
        w.n_models += model && !item->exists;
        if (item->version_new && (artifact_note(&w, item->digest, item->artifact_bytes) != 0 ||
                                  (item->image_bytes > 0 && artifact_note(&w, item->image, item->image_bytes) != 0)))
            rc = w.rc;
    }
    if (rc >= 0 && w.n > 0)
        qsort(w.artifacts, w.n, sizeof *w.artifacts, compare);
    struct registry_holding holding = {.models = w.n_models};
    for (size_t i = 0; rc >= 0 && i < w.n; i++)
        if (i == 0 || compare(&w.artifacts[i - 1], &w.artifacts[i]) != 0)
            holding.artifact_bytes += w.artifacts[i].bytes; /* each is at most LIMIT_ARTIFACT_BYTES */
    free(w.artifacts);
    if (rc >= 0)
        *ret_holding = holding;
    return rc;
}

int registry_holding_check(const struct registry_plan *plan, const struct registry_plan_item *item,
                           const struct resource_tenant *tenant, struct error *err)
{
    bool adds_model = item->kind == RESOURCE_MODEL && !item->exists && tenant->models > 0;
    bool adds_bytes = item->version_new && tenant->artifact_bytes > 0;
    if (!adds_model && !adds_bytes)
        return 0;
    struct registry_holding after;
    int rc = registry_holding(plan->registry, str_from(tenant->meta.name), plan, &after, err);
    if (rc < 0)
        return rc;
    if (adds_model && after.models > tenant->models)
        return error_set(err, -ERROR_REFUSED, "%s: the tenant's quota of %llu models (spec.quota.models) is used up",
                         item->title, (unsigned long long)tenant->models);
    if (adds_bytes && after.artifact_bytes > tenant->artifact_bytes)
        return error_set(err, -ERROR_REFUSED,
                         "%s: the tenant's artifacts would take %llu bytes; its quota (spec.quota.artifactBytes) is "
                         "%llu",
                         item->title, (unsigned long long)after.artifact_bytes,
                         (unsigned long long)tenant->artifact_bytes);
    return 0;
}
