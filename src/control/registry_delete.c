/* Deleting what was applied. */
#include "registry_internal.h"

struct digests { /* of a model's versions, to be released after the commit */
    uint8_t (*rows)[STORE_DIGEST_BYTES];
    size_t n, capacity;
    bool failed;
};

static int digests_note(void *ctx, const struct store_version *v)
{
    struct digests *digests = ctx;
    void *rows = memory_array_room(digests->rows, digests->n + 1, &digests->capacity, sizeof *digests->rows);
    if (!rows) {
        digests->failed = true;
        return 1;
    }
    digests->rows = rows;
    memcpy(digests->rows[digests->n++], v->digest, STORE_DIGEST_BYTES);
    if (v->image_bytes > 0)
        memcpy(digests->rows[digests->n++], v->image, STORE_DIGEST_BYTES);
    return 0;
}

/* A model or an adapter. */
static int delete_content(struct registry *r, enum resource_kind kind, uint64_t uid, struct digests *digests,
                          uint64_t *ret_revision, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    int rc = ops->version_each(r->store, uid, digests_note, digests, err);
    if (rc >= 0 && digests->failed)
        rc = error_set_default(err, -ERROR_NO_MEMORY);
    if (rc >= 0)
        rc = ops->begin(r->store, err);
    if (rc < 0)
        return rc;
    rc = ops->version_delete_model(r->store, uid, err);
    for (size_t i = 0; rc >= 0 && i < digests->n; i++)
        rc = ops->description_release(r->store, digests->rows[i], err);
    if (rc >= 0)
        rc = ops->resource_delete(r->store, uid, err);
    rc = registry_transaction_end(r, rc, ret_revision, err);
    if (rc < 0)
        return rc;
    if (kind == RESOURCE_MODEL)
        r->n_models--;
    else
        r->n_adapters--;
    return 0;
}

static int delete_grant(struct registry *r, uint64_t uid, uint64_t *ret_revision, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    int rc = ops->begin(r->store, err);
    if (rc < 0)
        return rc;
    rc = ops->resource_delete(r->store, uid, err);
    rc = registry_transaction_end(r, rc, ret_revision, err);
    if (rc < 0)
        return rc;
    r->n_grants--;
    return 0;
}

static int note_first(void *ctx, const struct store_resource *stored)
{
    char *name = ctx;
    if (str_copy(stored->name, name, LIMIT_NAME_BYTES + 1) < 0)
        name[0] = '?'; /* no name apply would have let through, but a model all the same */
    return 1;
}

static int count_key(void *ctx, const struct store_key *key)
{
    (void)key;
    ++*(uint64_t *)ctx;
    return 0;
}

static int delete_tenant(struct registry *r, struct str name, uint64_t uid, uint64_t *ret_revision, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    char model[LIMIT_NAME_BYTES + 1] = "";
    uint64_t n_keys = 0;
    int rc = ops->resource_each(r->store, RESOURCE_MODEL, name, str_any(), note_first, model, err);
    if (rc >= 0 && model[0])
        rc = error_set(err, -ERROR_CONFLICT, "Tenant " STR_FORMAT " still has models (%s, for one); delete them first",
                       STR_ARG(name), model);
    if (rc >= 0)
        rc = registry_adapters_check_delete(r, name, str_any(), err);
    if (rc >= 0)
        rc = registry_lend_check_delete_tenant(r, name, err);
    if (rc >= 0)
        rc = ops->key_each(r->store, uid, count_key, &n_keys, err);
    if (rc >= 0)
        rc = ops->begin(r->store, err);
    if (rc < 0)
        return rc;
    rc = ops->key_delete_tenant(r->store, uid, err);
    if (rc >= 0)
        rc = ops->resource_delete(r->store, uid, err);
    rc = registry_transaction_end(r, rc, ret_revision, err);
    if (rc < 0)
        return rc;
    r->n_tenants--;
    r->n_keys -= n_keys;
    return 0;
}

int registry_delete(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                    struct registry_change *ret_change, struct error *err)
{
    if (!resource_kinds[kind].declared)
        return error_set(err, -ERROR_INVALID_REQUEST, "resources of this kind cannot be deleted");
    struct registry_row row;
    int rc = registry_need(r, kind, tenant, name, NULL, &row, err);
    if (rc < 0)
        return rc;
    uint64_t revision = 0;
    struct digests digests = {0};
    if (kind == RESOURCE_MODEL) {
        rc = registry_lend_check_delete_model(r, tenant, name, err);
        if (rc >= 0)
            rc = registry_adapters_check_delete(r, tenant, name, err);
    }
    if (rc < 0)
        return rc;
    if (kind == RESOURCE_TENANT)
        rc = delete_tenant(r, name, row.uid, &revision, err);
    else if (kind == RESOURCE_GRANT)
        rc = delete_grant(r, row.uid, &revision, err);
    else
        rc = delete_content(r, kind, row.uid, &digests, &revision, err);
    for (size_t i = 0; rc >= 0 && i < digests.n; i++)
        registry_artifact_release(r, digests.rows[i]);
    free(digests.rows);
    if (rc < 0)
        return rc;
    *ret_change = (struct registry_change){.generation = revision, .changed = 1};
    return 0;
}
