/* Versions: the part of a model's spec that makes one, and how a replica's start finds it again. */
#include "registry_internal.h"

#include <assert.h>
#include <stdio.h>

/* A change of one of these makes a new version; anything else only changes the model. */
static const char *const version_parts[] = {"engine", "source", "isolation", "resources"};

int registry_version_document(const struct resource_model *model, struct buf *json, struct error *err)
{
    _buf_ struct buf whole;
    buf_init(&whole, REGISTRY_DOCUMENT_BYTES);
    resource_encode(RESOURCE_MODEL, model, NULL, &whole);
    yyjson_doc *document = whole.failed ? NULL : yyjson_read(whole.data, whole.size, 0);
    if (!document)
        return error_set_default(err, whole.failed ? whole.failed : -ERROR_NO_MEMORY);
    yyjson_val *spec = yyjson_obj_get(yyjson_doc_get_root(document), "spec");
    bool first = true;
    buf_append_char(json, '{');
    for (size_t i = 0; i < sizeof version_parts / sizeof *version_parts; i++) {
        yyjson_val *part = yyjson_obj_get(spec, version_parts[i]);
        size_t size = 0;
        char *text = part ? yyjson_val_write(part, 0, &size) : NULL;
        if (!text)
            continue;
        buf_format(json, "%s\"%s\":", first ? "" : ",", version_parts[i]);
        buf_append(json, text, size);
        first = false;
        free(text);
    }
    buf_append_char(json, '}');
    yyjson_doc_free(document);
    return json->failed ? error_set_default(err, json->failed) : 0;
}

int registry_version_decode(struct str document, const char *tenant, const char *name, struct resource_model *ret_model,
                            struct error *err)
{
    _buf_ struct buf whole;
    buf_init(&whole, REGISTRY_DOCUMENT_BYTES);
    buf_format(&whole,
               "{\"apiVersion\":\"" RESOURCE_API_VERSION
               "\",\"kind\":\"Model\",\"metadata\":{\"name\":\"%s\",\"tenant\":\"%s\"},\"spec\":",
               name, tenant);
    buf_append_str(&whole, document);
    buf_append_char(&whole, '}');
    yyjson_read_err why_not = {.code = YYJSON_READ_ERROR_MEMORY_ALLOCATION};
    yyjson_doc *json = whole.failed ? NULL : yyjson_read_opts(whole.data, whole.size, 0, NULL, &why_not);
    if (!json && why_not.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_set_default(err, -ERROR_NO_MEMORY);
    if (!json)
        return error_set(err, -ERROR_IO, "a stored version of Model %s/%s is damaged", tenant, name);
    struct error why = {0};
    int rc = resource_decode(yyjson_doc_get_root(json), RESOURCE_MODEL, ret_model, &why);
    yyjson_doc_free(json);
    if (rc < 0)
        return error_set(err, -ERROR_IO, "a stored version cannot be read: %s", error_text(&why, rc));
    return 0;
}

struct lookup {
    uint64_t version_uid;
    struct registry_version *version;
    struct buf *document; /* of the version */
    struct error *err;
    bool found;
    int rc;
};

static void version_fill(struct registry_version *version, const struct store_version *v)
{
    version->uid = v->uid;
    version->model_uid = v->model_uid;
    version->number = v->number;
    version->artifact_bytes = v->artifact_bytes;
    memcpy(version->digest, v->digest, sizeof version->digest);
    memcpy(version->image, v->image, sizeof version->image);
    version->image_bytes = v->image_bytes;
}

static int lookup_version(void *ctx, const struct store_version *v)
{
    struct lookup *lookup = ctx;
    if (v->uid != lookup->version_uid)
        return 0;
    lookup->found = true;
    version_fill(lookup->version, v);
    buf_append_str(lookup->document, v->document);
    return 1;
}

static int lookup_model(void *ctx, const struct store_resource *stored)
{
    struct lookup *lookup = ctx;
    if (stored->uid != lookup->version->model_uid)
        return 0;
    lookup->found = true;
    union registry_resource model;
    lookup->rc = registry_decode(stored, &model, lookup->err);
    if (lookup->rc < 0)
        return 1;
    memcpy(lookup->version->tenant, model.meta.tenant, sizeof lookup->version->tenant);
    memcpy(lookup->version->model, model.meta.name, sizeof lookup->version->model);
    lookup->version->replicas_min = model.model.replicas_min;
    lookup->version->replicas_max = model.model.replicas_max;
    return 1;
}

/* The rest of *version, whose uid, model, tenant and names are known already. */
static int version_complete(struct registry *r, struct str document, struct registry_version *version,
                            struct error *err)
{
    struct resource_model model = {0};
    int rc = registry_version_decode(document, version->tenant, version->model, &model, err);
    if (rc < 0)
        return rc;
    static_assert(sizeof version->engine == sizeof model.engine, "engine names have one size");
    memcpy(version->engine, model.engine, sizeof version->engine);
    version->level = registry_level_rank(model.isolation_level);
    version->runtime = model.isolation_runtime;
    version->cpu_milli = model.cpu_milli;
    version->dedicated = model.cpuset != 0;
    version->memory_bytes = model.memory_bytes;
    version->repack = model.repack;
    struct registry_newest newest;
    rc = registry_newest(r, version->model_uid, &newest, err);
    if (rc < 0)
        return rc;
    version->newest = newest.uid == version->uid;
    struct registry_row row;
    union registry_resource tenant;
    rc = registry_need(r, RESOURCE_TENANT, str_any(), str_from(version->tenant), &tenant, &row, err);
    if (rc < 0)
        return rc;
    version->tenant_uid = row.uid;
    version->floor = registry_level_rank(tenant.tenant.isolation_minimum);
    version->tenant_max = (struct registry_running){(uint32_t)tenant.tenant.replicas, tenant.tenant.memory_bytes};
    version->lends = r->config.engine_lends(r->config.ctx, str_from(version->engine));
    return 0;
}

int registry_version_key(uint64_t version_uid, uint64_t borrower_uid, uint64_t *ret_key)
{
    if (borrower_uid != 0)
        return registry_lent_uid(version_uid, borrower_uid, ret_key, NULL);
    if (version_uid >> 63)
        return -ERROR_INVALID_ARGUMENT; /* no uid of the store's */
    *ret_key = version_uid;
    return 0;
}

struct borrower {
    struct registry *registry;
    const struct registry_version *owners;
    uint64_t uid;      /* 0: count them only */
    uint32_t n_hosted; /* borrowers whom the owner's replicas serve */
    bool found;
    struct resource_tenant tenant; /* when found */
    struct error *err;
    int rc;
};

static int borrower_look(struct borrower *b, const char *name)
{
    union registry_resource tenant;
    struct registry_row row;
    int rc = registry_find(b->registry, RESOURCE_TENANT, str_any(), str_from(name), &tenant, &row, b->err);
    if (rc <= 0)
        return rc;
    uint32_t floor = registry_level_rank(tenant.tenant.isolation_minimum);
    b->n_hosted += registry_level_lent(b->owners->level, floor) == CATALOG_LEVEL_SHARED;
    if (row.uid == b->uid) {
        b->found = true;
        b->tenant = tenant.tenant;
    }
    return 0;
}

static int borrower_grant(void *ctx, const struct store_resource *stored)
{
    struct borrower *b = ctx;
    union registry_resource resource;
    b->rc = registry_decode(stored, &resource, b->err);
    if (b->rc < 0 || strcmp(resource.grant.model, b->owners->model) != 0)
        return b->rc < 0;
    for (uint32_t i = 0; b->rc >= 0 && i < resource.grant.tenants.n; i++)
        b->rc = borrower_look(b, resource.grant.tenants.entries[i]);
    return b->rc < 0;
}

/* The owner's version as the borrower's. */
static int version_of_borrower(const struct resource_tenant *tenant, uint64_t tenant_uid, struct registry_version *v,
                               struct error *err)
{
    memcpy(v->lender, v->tenant, sizeof v->lender);
    memcpy(v->tenant, tenant->meta.name, sizeof v->tenant);
    v->tenant_uid = tenant_uid;
    v->floor = registry_level_rank(tenant->isolation_minimum);
    v->level = registry_level_lent(v->level, v->floor);
    v->hosted = v->level == CATALOG_LEVEL_SHARED;
    v->replicas_min = 0; /* what its owner wants to have running is the owner's */
    v->tenant_max = (struct registry_running){(uint32_t)tenant->replicas, tenant->memory_bytes};
    return v->hosted ? 0 : registry_lent_uid(v->model_uid, tenant_uid, &v->model_uid, err);
}

/* Makes the owner's version that of a borrower, if uid is not 0; counts whom its replicas serve. */
static int version_lend(struct registry *r, uint64_t uid, struct registry_version *version, struct error *err)
{
    struct borrower b = {.registry = r, .owners = version, .uid = uid, .err = err};
    int rc = r->config.store->resource_each(r->store, RESOURCE_GRANT, str_from(version->tenant), str_any(),
                                            borrower_grant, &b, err);
    rc = rc < 0 ? rc : b.rc;
    if (rc >= 0 && uid != 0 && !b.found)
        rc = error_set(err, -ERROR_MODEL_NOT_FOUND, "the model is no longer lent to this tenant");
    version->n_beside = b.n_hosted;
    return rc >= 0 && uid != 0 ? version_of_borrower(&b.tenant, uid, version, err) : rc < 0 ? rc : 0;
}

int registry_version_find(struct registry *r, uint64_t version_uid, uint64_t borrower_uid,
                          struct registry_version *ret_version, struct error *err)
{
    struct registry_version version = {0};
    _buf_ struct buf document;
    buf_init(&document, REGISTRY_DOCUMENT_BYTES);
    struct lookup lookup = {.version_uid = version_uid, .version = &version, .document = &document, .err = err};
    const struct store_ops *ops = r->config.store;
    /* The store has no index from a version to itself: a start of a replica (tens of ms) affords the scan. */
    int rc = ops->version_each(r->store, 0, lookup_version, &lookup, err);
    if (rc < 0)
        return rc;
    if (!lookup.found)
        return error_set(err, -ERROR_MODEL_NOT_FOUND, "this version of the model is gone");
    lookup.found = false;
    rc = ops->resource_each(r->store, RESOURCE_MODEL, str_any(), str_any(), lookup_model, &lookup, err);
    if (rc < 0)
        return rc;
    if (lookup.rc < 0)
        return lookup.rc;
    if (!lookup.found)
        return error_set(err, -ERROR_MODEL_NOT_FOUND, "the model is gone");
    rc = version_complete(r, (struct str){document.data, document.size}, &version, err);
    if (rc >= 0 && version.lends)
        rc = version_lend(r, borrower_uid, &version, err);
    else if (rc >= 0 && borrower_uid != 0)
        rc = error_set(err, -ERROR_MODEL_NOT_FOUND, "the model cannot be lent");
    if (rc < 0)
        return rc;
    *ret_version = version;
    return 0;
}

int registry_model_find(struct registry *r, struct str tenant, struct str model, struct registry_version *ret_version,
                        struct error *err)
{
    struct registry_row row, borrower = {0};
    struct registry_newest newest;
    struct registry_loan loan;
    int lent = registry_loan_of(r, tenant, model, &loan, err);
    if (lent < 0)
        return lent;
    int rc = lent ? registry_need(r, RESOURCE_TENANT, str_any(), tenant, NULL, &borrower, err) : 0;
    if (rc >= 0)
        rc = registry_need(r, RESOURCE_MODEL, lent ? str_from(loan.lender) : tenant, model, NULL, &row, err);
    if (rc >= 0)
        rc = registry_newest(r, row.uid, &newest, err);
    if (rc >= 0 && newest.n_versions == 0)
        rc = error_set(err, -ERROR_NOT_FOUND, "the model has no version");
    return rc < 0 ? rc : registry_version_find(r, newest.uid, borrower.uid, ret_version, err);
}

struct wanted {
    uint64_t *uids; /* of newest versions, [n] */
    size_t n, capacity;
    struct error *err;
    int rc;
};

static int wanted_model(void *ctx, const struct store_resource *stored)
{
    struct wanted *wanted = ctx;
    union registry_resource model;
    wanted->rc = registry_decode(stored, &model, wanted->err);
    if (wanted->rc < 0)
        return 1;
    if (model.model.replicas_min == 0)
        return 0;
    uint64_t *uids = memory_array_room(wanted->uids, wanted->n, &wanted->capacity, sizeof *uids);
    if (!uids) {
        wanted->rc = error_set_default(wanted->err, -ERROR_NO_MEMORY);
        return 1;
    }
    wanted->uids = uids;
    wanted->uids[wanted->n++] = stored->uid; /* of the model, replaced by its newest version's below */
    return 0;
}

int registry_version_each_wanted(struct registry *r, int (*each)(void *ctx, const struct registry_version *v),
                                 void *ctx, struct error *err)
{
    struct wanted wanted = {.err = err};
    int rc = r->config.store->resource_each(r->store, RESOURCE_MODEL, str_any(), str_any(), wanted_model, &wanted, err);
    if (rc >= 0 && wanted.rc < 0)
        rc = wanted.rc;
    for (size_t i = 0; rc >= 0 && i < wanted.n; i++) {
        struct registry_newest newest;
        struct registry_version version;
        rc = registry_newest(r, wanted.uids[i], &newest, err);
        if (rc < 0 || newest.n_versions == 0)
            continue;
        rc = registry_version_find(r, newest.uid, 0, &version, err);
        if (rc >= 0 && each(ctx, &version) != 0)
            break;
    }
    free(wanted.uids);
    return rc < 0 ? rc : 0;
}
