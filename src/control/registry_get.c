/* Reading: whole documents with their status, as JSON. */
#include "registry_internal.h"

#include "base/clock.h"

struct get {
    struct registry *registry;
    enum resource_kind kind;
    struct str tenant, name;
    struct buf *items;
    uint32_t n_items;
    struct resource_model model; /* whose versions are being listed */
    uint64_t newest_uid;
    struct registry_loans loans; /* adapters */
    struct error *err;
    int rc;
};

static void append_comma(struct get *get)
{
    if (get->n_items++ > 0)
        buf_append_char(get->items, ',');
}

static void append_time(struct buf *json, const char *member, uint64_t wall_ms)
{
    char text[CLOCK_TEXT_BYTES];
    clock_wall_text(wall_ms, text);
    buf_format(json, "\"%s\":\"%s\"", member, text);
}

static void append_image(struct buf *json, const uint8_t *root, const uint8_t *manifest, uint64_t bytes)
{
    char hex[2][REGISTRY_HEX_BYTES + 1];
    if (bytes == 0)
        return;
    registry_hex(manifest, hex[0]);
    registry_hex(root, hex[1]);
    buf_format(json, "\"image\":{\"digest\":\"sha256:%s\",\"root\":\"sha256:%s\",\"bytes\":%llu},", hex[0], hex[1],
               (unsigned long long)bytes);
}

static int model_status(struct get *get, uint64_t uid, struct buf *status)
{
    struct registry_newest newest;
    int rc = registry_newest(get->registry, uid, &newest, get->err);
    if (rc < 0)
        return rc;
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(newest.digest, hex);
    buf_format(status, "\"version\":%u,\"versions\":%u,\"digest\":\"%s\",\"bytes\":%llu,", newest.number,
               newest.n_versions, hex, (unsigned long long)newest.artifact_bytes);
    append_image(status, newest.image, newest.image_manifest, newest.image_bytes);
    return 0;
}

static int adapter_status(struct get *get, const struct resource_adapter *a, uint64_t uid, struct buf *status)
{
    struct registry_newest newest;
    const char *fault = NULL;
    int rc = registry_newest(get->registry, uid, &newest, get->err);
    if (rc >= 0)
        rc = registry_adapter_fault(get->registry, &get->loans, a, newest.digest, &fault, get->err);
    if (rc < 0)
        return rc;
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(newest.digest, hex);
    buf_format(status, "\"digest\":\"%s\",\"bytes\":%llu,\"usable\":%s,", hex,
               (unsigned long long)newest.artifact_bytes, fault ? "false" : "true");
    if (fault)
        buf_format(status, "\"reason\":\"%s\",", fault); /* ours: nothing to escape */
    const struct registry_config *config = &get->registry->config;
    if (config->adapter_loaded)
        config->adapter_loaded(config->ctx, a->meta.tenant, a->meta.name, status);
    return 0;
}

static int get_resource(void *ctx, const struct store_resource *stored)
{
    struct get *get = ctx;
    union registry_resource resource;
    get->rc = registry_decode(stored, &resource, get->err);
    if (get->rc < 0)
        return 1;
    _buf_ struct buf status;
    buf_init(&status, 4 * KIB);
    buf_append_char(&status, '{');
    if (get->kind == RESOURCE_MODEL)
        get->rc = model_status(get, stored->uid, &status);
    if (get->kind == RESOURCE_ADAPTER)
        get->rc = adapter_status(get, &resource.adapter, stored->uid, &status);
    if (get->kind == RESOURCE_TENANT)
        get->rc = registry_quota_status(get->registry, &resource.tenant, stored->uid, &status, get->err);
    append_time(&status, "created", stored->created_ms);
    buf_append_char(&status, ',');
    append_time(&status, "changed", stored->changed_ms);
    buf_append_char(&status, '}');
    if (get->rc < 0)
        return 1;
    append_comma(get);
    resource_encode(get->kind, &resource, buf_terminate(&status), get->items);
    return get->items->failed != 0;
}

static int get_version(void *ctx, const struct store_version *v)
{
    struct get *get = ctx;
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(v->digest, hex);
    if (get->newest_uid == 0)
        get->newest_uid = v->uid;
    append_comma(get);
    /* tokens need no escaping; the document was written by us */
    buf_format(get->items,
               "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Version\",\"metadata\":{\"name\":\"%s\","
               "\"tenant\":\"%s\",\"uid\":%llu},\"spec\":",
               get->model.meta.name, get->model.meta.tenant, (unsigned long long)v->uid);
    buf_append_str(get->items, v->document);
    buf_format(get->items, ",\"status\":{\"number\":%u,\"newest\":%s,\"digest\":\"%s\",\"bytes\":%llu,", v->number,
               get->newest_uid == v->uid ? "true" : "false", hex, (unsigned long long)v->artifact_bytes);
    append_image(get->items, v->image, v->image_manifest, v->image_bytes);
    append_time(get->items, "created", v->created_ms);
    buf_append_text(get->items, "}}");
    return get->items->failed != 0;
}

static int get_versions(void *ctx, const struct store_resource *stored)
{
    struct get *get = ctx;
    union registry_resource resource;
    get->rc = registry_decode(stored, &resource, get->err);
    if (get->rc < 0)
        return 1;
    get->model = resource.model;
    get->newest_uid = 0;
    const struct store_ops *ops = get->registry->config.store;
    int rc = ops->version_each(get->registry->store, stored->uid, get_version, get, get->err);
    if (rc < 0)
        get->rc = rc;
    return get->rc < 0;
}

struct tenants { /* names by uid, for keys */
    struct tenant_name {
        uint64_t uid;
        char name[LIMIT_NAME_BYTES + 1];
    } * rows;
    size_t n, capacity;
    bool failed;
};

static int tenants_note(void *ctx, const struct store_resource *stored)
{
    struct tenants *tenants = ctx;
    struct tenant_name *rows = memory_array_room(tenants->rows, tenants->n, &tenants->capacity, sizeof *rows);
    if (!rows) {
        tenants->failed = true;
        return 1;
    }
    tenants->rows = rows;
    struct tenant_name *row = &tenants->rows[tenants->n];
    if (str_copy(stored->name, row->name, sizeof row->name) < 0)
        return 0; /* not a name that apply lets through */
    row->uid = stored->uid;
    tenants->n++;
    return 0;
}

static int tenants_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct tenant_name *)a)->uid, y = ((const struct tenant_name *)b)->uid;
    return x < y ? -1 : x > y;
}

struct get_keys {
    struct get *get;
    struct tenants tenants;
};

static int get_key(void *ctx, const struct store_key *key)
{
    struct get_keys *keys = ctx;
    struct get *get = keys->get;
    /* by id, or by the name it was given */
    if (get->name.size > 0 && !str_equal(get->name, key->id) && !str_equal(get->name, key->name))
        return 0;
    struct tenant_name wanted = {.uid = key->tenant_uid};
    const struct tenant_name *tenant = keys->tenants.n ? bsearch(&wanted, keys->tenants.rows, keys->tenants.n,
                                                                 sizeof *keys->tenants.rows, tenants_compare)
                                                       : NULL;
    append_comma(get);
    buf_append_text(get->items,
                    "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Key\",\"metadata\":{\"name\":");
    buf_append_json(get->items, key->name);
    buf_format(get->items, ",\"tenant\":\"%s\"},\"status\":{\"id\":", tenant ? tenant->name : "");
    buf_append_json(get->items, key->id);
    buf_append_char(get->items, ',');
    append_time(get->items, "created", key->created_ms);
    buf_append_text(get->items, "}}");
    return get->items->failed != 0;
}

static int get_keys(struct get *get, uint64_t tenant_uid)
{
    struct registry *r = get->registry;
    const struct store_ops *ops = r->config.store;
    struct get_keys keys = {.get = get};
    int rc = ops->resource_each(r->store, RESOURCE_TENANT, str_any(), str_filter(get->tenant), tenants_note,
                                &keys.tenants, get->err);
    if (rc >= 0 && keys.tenants.failed)
        rc = error_set_default(get->err, -ERROR_NO_MEMORY);
    if (rc >= 0 && keys.tenants.n > 0)
        qsort(keys.tenants.rows, keys.tenants.n, sizeof *keys.tenants.rows, tenants_compare);
    if (rc >= 0)
        rc = ops->key_each(r->store, tenant_uid, get_key, &keys, get->err);
    free(keys.tenants.rows);
    return rc;
}

static int get_kind(struct get *get)
{
    struct registry *r = get->registry;
    const struct store_ops *ops = r->config.store;
    struct registry_row tenant = {0};
    if (get->tenant.size > 0 && get->kind != RESOURCE_TENANT) {
        int rc = registry_need(r, RESOURCE_TENANT, str_any(), get->tenant, NULL, &tenant, get->err);
        if (rc < 0)
            return rc;
    }
    switch (get->kind) {
    case RESOURCE_TENANT:
        return ops->resource_each(r->store, RESOURCE_TENANT, str_any(), str_filter(get->name), get_resource, get,
                                  get->err);
    case RESOURCE_MODEL:
        return ops->resource_each(r->store, RESOURCE_MODEL, str_filter(get->tenant), str_filter(get->name),
                                  get_resource, get, get->err);
    case RESOURCE_ADAPTER:
    case RESOURCE_GRANT: {
        int rc = get->kind == RESOURCE_ADAPTER ? registry_loans_load(r, NULL, &get->loans, get->err) : 0;
        return rc < 0 ? rc
                      : ops->resource_each(r->store, (uint32_t)get->kind, str_filter(get->tenant),
                                           str_filter(get->name), get_resource, get, get->err);
    }
    case RESOURCE_VERSION:
        return ops->resource_each(r->store, RESOURCE_MODEL, str_filter(get->tenant), str_filter(get->name),
                                  get_versions, get, get->err);
    case RESOURCE_KEY:
        return get_keys(get, tenant.uid);
    case RESOURCE_NONE:
    case RESOURCE_SERVER:
    case RESOURCE_REPLICA:
    case RESOURCE_DEVICE:
    case RESOURCE_KIND_COUNT:
    default:
        return error_set(get->err, -ERROR_INVALID_REQUEST, "resources of this kind are not kept by the registry");
    }
}

int registry_get(struct registry *r, enum resource_kind kind, struct str tenant, struct str name, struct buf *ret_items,
                 struct error *err)
{
    struct get get = {.registry = r, .kind = kind, .tenant = tenant, .name = name, .items = ret_items, .err = err};
    size_t before = ret_items->size;
    buf_append_char(ret_items, '[');
    int rc = get_kind(&get);
    registry_loans_done(&get.loans);
    if (rc >= 0)
        rc = get.rc;
    if (rc >= 0 && get.n_items == 0 && name.size > 0)
        rc = error_set(err, -ERROR_NOT_FOUND, "there is no %s " STR_FORMAT "%s" STR_FORMAT, resource_kinds[kind].name,
                       STR_ARG(tenant), tenant.size > 0 ? "/" : "", STR_ARG(name));
    buf_append_char(ret_items, ']');
    if (rc >= 0 && ret_items->failed)
        rc = error_set(err, ret_items->failed, "the list is longer than an answer may be; filter by tenant or name");
    if (rc < 0 && ret_items->size > before)
        ret_items->size = before;
    return rc < 0 ? rc : 0;
}
