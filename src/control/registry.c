#include "registry_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>

void registry_title(const struct resource_meta *meta, char title[static REGISTRY_TITLE_BYTES])
{
    const char *kind = resource_kinds[meta->kind].name;
    if (meta->tenant[0])
        (void)snprintf(title, REGISTRY_TITLE_BYTES, "%s %s/%s", kind, meta->tenant, meta->name); /* names are bounded */
    else
        (void)snprintf(title, REGISTRY_TITLE_BYTES, "%s %s", kind, meta->name); /* names are bounded */
}

static const char *word_of(const char *path, uint32_t index)
{
    const struct resource_field *field = resource_field_find(RESOURCE_MODEL, str_from(path));
    for (uint32_t i = 0; field && field->names && field->names[i]; i++)
        if (i == index)
            return field->names[i];
    return "unknown";
}

const char *registry_level_name(uint32_t level)
{
    return word_of("spec.isolation.level", level);
}

const char *registry_runtime_name(uint32_t runtime)
{
    return word_of("spec.isolation.runtime", runtime);
}

int registry_decode(const struct store_resource *stored, union registry_resource *ret_resource, struct error *err)
{
    yyjson_read_err why;
    yyjson_doc *document =
        yyjson_read_opts((char *)(uintptr_t)stored->document.data, stored->document.size, 0, NULL, &why);
    if (!document && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_set_default(err, -ERROR_NO_MEMORY);
    if (!document)
        return error_set(err, -ERROR_IO, "the stored resource " STR_FORMAT " is damaged", STR_ARG(stored->name));
    int rc = resource_decode(yyjson_doc_get_root(document), (enum resource_kind)stored->kind, ret_resource, err);
    yyjson_doc_free(document);
    if (rc < 0) {
        /* not the requester's mistake: what was stored by an earlier build no longer passes */
        error_wrap(err, rc, "a stored resource cannot be read");
        if (err)
            err->code = -ERROR_IO;
        return -ERROR_IO;
    }
    ret_resource->meta.uid = stored->uid;
    ret_resource->meta.generation = stored->generation;
    ret_resource->meta.resource_version = stored->resource_version;
    return 0;
}

struct find {
    union registry_resource *resource;
    struct registry_row *row;
    struct error *err;
    bool found;
    int rc;
};

static int find_each(void *ctx, const struct store_resource *stored)
{
    struct find *find = ctx;
    if (find->resource) {
        find->rc = registry_decode(stored, find->resource, find->err);
        if (find->rc < 0)
            return 1;
    }
    find->found = true;
    if (find->row)
        *find->row = (struct registry_row){.uid = stored->uid,
                                           .generation = stored->generation,
                                           .resource_version = stored->resource_version,
                                           .created_ms = stored->created_ms,
                                           .changed_ms = stored->changed_ms};
    return 1;
}

int registry_find(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                  union registry_resource *ret_resource, struct registry_row *ret_row, struct error *err)
{
    assert(name.size > 0);
    struct find find = {.resource = ret_resource, .row = ret_row, .err = err};
    struct str owner = resource_kinds[kind].tenanted ? tenant : str_any();
    int rc = r->config.store->resource_each(r->store, (uint32_t)kind, owner, name, find_each, &find, err);
    if (rc < 0)
        return rc;
    if (find.rc < 0)
        return find.rc;
    return find.found ? 1 : 0;
}

int registry_transaction_end(struct registry *r, int rc, uint64_t *ret_revision, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    if (rc >= 0)
        rc = ops->commit(r->store, ret_revision, err);
    if (rc < 0)
        ops->rollback(r->store);
    return rc < 0 ? rc : 0;
}

int registry_need(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                  union registry_resource *ret_resource, struct registry_row *ret_row, struct error *err)
{
    if (name.size == 0 || (resource_kinds[kind].tenanted && tenant.size == 0))
        return error_set(err, -ERROR_INVALID_REQUEST, "a %s is named by %s", resource_kinds[kind].name,
                         resource_kinds[kind].tenanted ? "its tenant and its name" : "its name");
    int rc = registry_find(r, kind, tenant, name, ret_resource, ret_row, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (resource_kinds[kind].tenanted)
        return error_set(err, -ERROR_NOT_FOUND, "there is no %s " STR_FORMAT "/" STR_FORMAT, resource_kinds[kind].name,
                         STR_ARG(tenant), STR_ARG(name));
    return error_set(err, -ERROR_NOT_FOUND, "there is no %s " STR_FORMAT, resource_kinds[kind].name, STR_ARG(name));
}

static int newest_each(void *ctx, const struct store_version *v)
{
    struct registry_newest *newest = ctx;
    if (newest->n_versions++ > 0)
        return 0;
    newest->number = v->number;
    newest->uid = v->uid;
    newest->artifact_bytes = v->artifact_bytes;
    newest->created_ms = v->created_ms;
    memcpy(newest->digest, v->digest, sizeof newest->digest);
    memcpy(newest->image, v->image, sizeof newest->image);
    memcpy(newest->image_manifest, v->image_manifest, sizeof newest->image_manifest);
    newest->image_bytes = v->image_bytes;
    return 0;
}

int registry_newest(struct registry *r, uint64_t model_uid, struct registry_newest *ret_newest, struct error *err)
{
    struct registry_newest newest = {0};
    int rc = r->config.store->version_each(r->store, model_uid, newest_each, &newest, err);
    if (rc < 0)
        return rc;
    *ret_newest = newest;
    return 0;
}

static int count_resource(void *ctx, const struct store_resource *stored)
{
    (void)stored;
    ++*(uint64_t *)ctx;
    return 0;
}

static int count_key(void *ctx, const struct store_key *key)
{
    (void)key;
    ++*(uint64_t *)ctx;
    return 0;
}

static int registry_count(struct registry *r, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    int rc = ops->resource_each(r->store, RESOURCE_TENANT, str_any(), str_any(), count_resource, &r->n_tenants, err);
    if (rc < 0)
        return rc;
    rc = ops->resource_each(r->store, RESOURCE_MODEL, str_any(), str_any(), count_resource, &r->n_models, err);
    if (rc < 0)
        return rc;
    rc = ops->resource_each(r->store, RESOURCE_GRANT, str_any(), str_any(), count_resource, &r->n_grants, err);
    if (rc < 0)
        return rc;
    rc = ops->resource_each(r->store, RESOURCE_ADAPTER, str_any(), str_any(), count_resource, &r->n_adapters, err);
    if (rc < 0)
        return rc;
    return ops->key_each(r->store, 0, count_key, &r->n_keys, err);
}

int registry_open(const struct registry_config *config, struct registry **ret_registry, struct error *err)
{
    assert(config->store && config->level_refusal && config->engine_known && config->engine_shared &&
           config->engine_lends);
    struct registry *r = calloc(1, sizeof *r);
    if (!r)
        return error_set_default(err, -ERROR_NO_MEMORY);
    r->config = *config;
    list_init(&r->uploads);
    list_init(&r->copies);
    list_init(&r->removals);
    int rc = config->store->open(config->database, &r->store, err);
    if (rc >= 0)
        rc = registry_count(r, err);
    if (rc >= 0)
        rc = registry_artifact_sweep(r, err);
    if (rc < 0) {
        registry_close(r);
        return rc;
    }
    *ret_registry = r;
    return 0;
}

void registry_close(struct registry *r)
{
    if (!r)
        return;
    registry_upload_orphan_all(r);
    registry_removals_end(r);
    r->config.store->close(r->store);
    free(r);
}
