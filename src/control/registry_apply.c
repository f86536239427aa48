/* Apply: read every document, load what is stored under its name, check the whole, write it in one transaction. */
#include "registry_internal.h"

#include "base/clock.h"

#include <stdio.h>

struct registry_plan_item *registry_plan_find(const struct registry_plan *plan, enum resource_kind kind,
                                              struct str tenant, struct str name)
{
    /* at most LIMIT_APPLY_RESOURCES squared comparisons: half a million, some milliseconds */
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct registry_plan_item *item = &plan->items[i];
        if (item->kind == kind && str_equal(str_from(item->next.meta.name), name) &&
            (!resource_kinds[kind].tenanted || str_equal(str_from(item->next.meta.tenant), tenant)))
            return item;
    }
    return NULL;
}

/* Of a model or an adapter. */
static const char *source_of(const struct registry_plan_item *item, const union registry_resource *resource)
{
    return item->kind == RESOURCE_ADAPTER ? resource->adapter.source : resource->model.source;
}

static bool has_content(const struct registry_plan_item *item)
{
    return item->kind == RESOURCE_MODEL || item->kind == RESOURCE_ADAPTER;
}

static int read_artifact(yyjson_val *artifacts, struct registry_plan_item *item, struct error *err)
{
    yyjson_val *hex = yyjson_obj_get(artifacts, source_of(item, &item->next));
    if (!hex)
        return 0;
    struct str text = {yyjson_get_str(hex), yyjson_get_len(hex)};
    if (!yyjson_is_str(hex) || registry_hex_decode(text, item->digest) < 0)
        return error_set(err, -ERROR_INVALID_REQUEST, "%s: spec.source: its artifact is not a SHA-256 in hex",
                         item->title);
    item->has_artifact = true;
    return 0;
}

static int read_item(struct registry_plan *plan, yyjson_val *document, yyjson_val *artifacts, struct error *err)
{
    struct registry_plan_item *item = &plan->items[plan->n_items];
    int rc = resource_peek(document, &item->kind, err);
    if (rc < 0)
        return error_wrap(err, rc, "resources[%u]", plan->n_items);
    if (!resource_kinds[item->kind].declared)
        return error_set(err, -ERROR_INVALID_RESOURCE, "a %s cannot be applied%s", resource_kinds[item->kind].name,
                         item->kind == RESOURCE_SERVER ? "; it is the file of serve --config" : ": it is read-only");
    rc = resource_decode(document, item->kind, &item->next, err);
    if (rc < 0)
        return rc;
    registry_title(&item->next.meta, item->title);
    if (registry_plan_find(plan, item->kind, str_from(item->next.meta.tenant), str_from(item->next.meta.name)))
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: stands twice in this apply", item->title);
    if (has_content(item))
        rc = read_artifact(artifacts, item, err);
    if (rc >= 0)
        plan->n_items++;
    return rc;
}

static int plan_read(struct registry_plan *plan, yyjson_val *root, struct error *err)
{
    yyjson_val *resources = yyjson_obj_get(root, "resources"), *artifacts = yyjson_obj_get(root, "artifacts");
    yyjson_obj_iter members = yyjson_obj_iter_with(root);
    for (yyjson_val *key = yyjson_obj_iter_next(&members); key; key = yyjson_obj_iter_next(&members))
        if (!yyjson_equals_str(key, "resources") && !yyjson_equals_str(key, "artifacts"))
            return error_set(err, -ERROR_INVALID_REQUEST, "unknown member \"%.64s\"", yyjson_get_str(key));
    if (!yyjson_is_arr(resources) || (artifacts && !yyjson_is_obj(artifacts)))
        return error_set(err, -ERROR_INVALID_REQUEST,
                         "expected {\"resources\": [document, …], \"artifacts\": {source: digest, …}}");
    size_t n = yyjson_arr_size(resources);
    if (n == 0 || n > LIMIT_APPLY_RESOURCES)
        return error_set(err, -ERROR_INVALID_REQUEST, "one apply takes 1 to %u resources, not %zu",
                         LIMIT_APPLY_RESOURCES, n);
    plan->items = calloc(n, sizeof *plan->items);
    if (!plan->items)
        return error_set_default(err, -ERROR_NO_MEMORY);
    yyjson_arr_iter each = yyjson_arr_iter_with(resources);
    for (yyjson_val *document = yyjson_arr_iter_next(&each); document; document = yyjson_arr_iter_next(&each)) {
        int rc = read_item(plan, document, artifacts, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The artifact of a model or an adapter: the one the request brought, else, for an unchanged source, the one it has. */
static int load_artifact(struct registry_plan *plan, struct registry_plan_item *item, struct error *err)
{
    const struct registry_newest *newest = &item->newest;
    if (!item->has_artifact) {
        const char *source = source_of(item, &item->next);
        if (newest->n_versions == 0 || strcmp(source, source_of(item, &item->present)) != 0)
            return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.source: \"%.200s\" was not uploaded", item->title,
                             source);
        memcpy(item->digest, newest->digest, sizeof item->digest);
    }
    int rc = registry_artifact_bytes(plan->registry, item->digest, &item->artifact_bytes, err);
    if (rc == -ERROR_NOT_FOUND)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.source: the artifact was not uploaded", item->title);
    return rc;
}

/* Everything behind the identity and the counters: equal bytes, equal spec (both are zeroed before decoding). */
static bool spec_equal(const struct registry_plan_item *item)
{
    size_t meta = sizeof(struct resource_meta);
    return memcmp((const char *)&item->next + meta, (const char *)&item->present + meta,
                  resource_kinds[item->kind].bytes - meta) == 0;
}

static bool map_equal(const struct resource_map *a, const struct resource_map *b)
{
    return a->n == b->n && memcmp(a->entries, b->entries, a->n * sizeof a->entries[0]) == 0;
}

static bool version_differs(const struct registry_plan_item *item)
{
    const struct resource_model *a = &item->next.model, *b = &item->present.model;
    if (item->kind == RESOURCE_ADAPTER) /* another base: another adapter to whom serves it */
        return strcmp(item->next.adapter.base, item->present.adapter.base) != 0 ||
               memcmp(item->digest, item->newest.digest, sizeof item->digest) != 0;
    return strcmp(a->engine, b->engine) != 0 || a->isolation_level != b->isolation_level ||
           a->isolation_runtime != b->isolation_runtime || a->cpu_milli != b->cpu_milli || a->cpuset != b->cpuset ||
           a->memory_bytes != b->memory_bytes || a->repack != b->repack ||
           strcmp(a->isolation_image, b->isolation_image) != 0 || item->image_bytes != item->newest.image_bytes ||
           memcmp(item->image, item->newest.image, sizeof item->image) != 0 ||
           memcmp(item->digest, item->newest.digest, sizeof item->digest) != 0;
}

static int plan_load(struct registry_plan *plan, struct error *err)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct registry_plan_item *item = &plan->items[i];
        const struct resource_meta *meta = &item->next.meta;
        int rc = registry_find(plan->registry, item->kind, str_from(meta->tenant), str_from(meta->name), &item->present,
                               &item->row, err);
        if (rc < 0)
            return rc;
        item->exists = rc > 0;
        if (item->exists && has_content(item)) {
            rc = registry_newest(plan->registry, item->row.uid, &item->newest, err);
            if (rc < 0)
                return rc;
        }
        if (has_content(item)) {
            rc = load_artifact(plan, item, err);
            if (rc >= 0 && item->kind == RESOURCE_MODEL)
                rc = registry_image_load(plan, item, err);
            if (rc < 0)
                return rc;
        }
        item->spec_changed = !item->exists || !spec_equal(item);
        item->meta_changed = !item->exists || !map_equal(&meta->labels, &item->present.meta.labels) ||
                             !map_equal(&meta->annotations, &item->present.meta.annotations);
        item->version_new =
            has_content(item) && (!item->exists || item->newest.n_versions == 0 || version_differs(item));
        item->version = item->newest.number + (item->version_new ? 1 : 0);
    }
    return 0;
}

static bool item_changed(const struct registry_plan_item *item)
{
    return item->spec_changed || item->meta_changed || item->version_new;
}

static int write_version(struct registry *r, const struct registry_plan_item *item, uint64_t model_uid, uint64_t now_ms,
                         struct error *err)
{
    _buf_ struct buf document;
    buf_init(&document, REGISTRY_DOCUMENT_BYTES);
    int rc = 0;
    if (item->kind == RESOURCE_ADAPTER) { /* only its newest content is kept, and described by the resource itself */
        buf_append_text(&document, "{}");
        rc = r->config.store->version_delete_model(r->store, model_uid, err);
    } else {
        rc = registry_version_document(&item->next.model, &document, err);
    }
    if (rc < 0)
        return rc;
    struct store_version v = {.model_uid = model_uid,
                              .number = item->version,
                              .artifact_bytes = item->artifact_bytes,
                              .document = {document.data, document.size},
                              .image_bytes = item->image_bytes,
                              .created_ms = now_ms};
    memcpy(v.digest, item->digest, sizeof v.digest);
    memcpy(v.image, item->image, sizeof v.image);
    memcpy(v.image_manifest, item->image_manifest, sizeof v.image_manifest);
    rc = r->config.store->uid_next(r->store, &v.uid, err);
    if (rc >= 0)
        rc = r->config.store->version_put(r->store, &v, err);
    if (rc >= 0 && item->kind == RESOURCE_ADAPTER && item->exists)
        rc = r->config.store->description_release(r->store, item->newest.digest, err);
    return rc;
}

static int write_item(struct registry *r, struct registry_plan_item *item, uint64_t revision, uint64_t now_ms,
                      struct error *err)
{
    const struct store_ops *ops = r->config.store;
    struct resource_meta *meta = &item->next.meta;
    meta->uid = meta->generation = meta->resource_version = 0; /* columns of the row, not of the document */
    _buf_ struct buf document;
    buf_init(&document, REGISTRY_DOCUMENT_BYTES);
    resource_encode(item->kind, &item->next, NULL, &document);
    if (document.failed)
        return error_set(err, document.failed, "%s is too large to be stored", item->title);
    struct store_resource row = {.kind = (uint32_t)item->kind,
                                 .uid = item->row.uid,
                                 .tenant = str_from(meta->tenant),
                                 .name = str_from(meta->name),
                                 .generation = item->row.generation + (item->spec_changed ? 1 : 0),
                                 .resource_version = revision,
                                 .document = {document.data, document.size},
                                 .created_ms = item->exists ? item->row.created_ms : now_ms,
                                 .changed_ms = now_ms};
    int rc = item->exists ? 0 : ops->uid_next(r->store, &row.uid, err);
    if (rc >= 0)
        rc = ops->resource_put(r->store, &row, err);
    if (rc >= 0 && item->version_new)
        rc = write_version(r, item, row.uid, now_ms, err);
    return rc;
}

/* One transaction; nothing is written, and no generation passes, when nothing changed. */
static int plan_write(struct registry_plan *plan, const struct registry_ingest *ingest, uint64_t *ret_revision,
                      struct error *err)
{
    struct registry *r = plan->registry;
    const struct store_ops *ops = r->config.store;
    uint64_t revision = 0, now_ms = clock_wall_ms();
    bool any = false;
    int rc = ops->revision(r->store, &revision, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < plan->n_items; i++)
        any = any || item_changed(&plan->items[i]);
    if (any) {
        rc = ops->begin(r->store, err);
        if (rc < 0)
            return rc;
        for (uint32_t i = 0; rc >= 0 && i < plan->n_items; i++)
            if (item_changed(&plan->items[i]))
                rc = write_item(r, &plan->items[i], revision + 1, now_ms, err);
        if (rc >= 0)
            rc = registry_described_write(r, ingest, err);
        rc = registry_transaction_end(r, rc, &revision, err);
        if (rc < 0)
            return rc;
    }
    *ret_revision = revision;
    return 0;
}

static void plan_report(const struct registry_plan *plan, uint64_t revision, struct registry_change *ret_change,
                        struct buf *results)
{
    struct registry_change change = {.generation = revision};
    buf_append_char(results, '[');
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        const char *result = !item->exists ? "created" : item_changed(item) ? "changed" : "unchanged";
        uint32_t *count = !item->exists ? &change.created : item_changed(item) ? &change.changed : &change.unchanged;
        ++*count;
        if (!item->exists && item->kind == RESOURCE_TENANT)
            plan->registry->n_tenants++;
        if (!item->exists && item->kind == RESOURCE_MODEL)
            plan->registry->n_models++;
        if (!item->exists && item->kind == RESOURCE_GRANT)
            plan->registry->n_grants++;
        if (!item->exists && item->kind == RESOURCE_ADAPTER)
            plan->registry->n_adapters++;
        buf_format(results, "%s{\"kind\":\"%s\",\"name\":\"%s\",\"tenant\":\"%s\",\"result\":\"%s\"", i > 0 ? "," : "",
                   resource_kinds[item->kind].name, item->next.meta.name, item->next.meta.tenant, result);
        if (item->kind == RESOURCE_MODEL)
            buf_format(results, ",\"version\":%u", item->version);
        buf_append_char(results, '}');
    }
    buf_append_char(results, ']');
    *ret_change = change;
}

/* Contents of adapters that have another one now. */
static void replaced_release(const struct registry_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        if (item->kind == RESOURCE_ADAPTER && item->exists && item->version_new)
            registry_artifact_release(plan->registry, item->newest.digest); /* unless somebody else has it */
    }
}

int registry_apply(struct registry *r, struct str body, struct registry_ingest *ingest,
                   struct registry_change *ret_change, struct buf *ret_results, struct error *err)
{
    yyjson_read_err why;
    yyjson_doc *json = yyjson_read_opts((char *)(uintptr_t)body.data, body.size, 0, NULL, &why);
    if (!json && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_set_default(err, -ERROR_NO_MEMORY);
    if (!json)
        return error_set(err, -ERROR_INVALID_JSON, "the body is not valid JSON: %s at byte %zu", why.msg, why.pos);
    struct registry_plan plan = {.registry = r, .ingest = ingest};
    uint64_t revision = 0;
    ingest->wanted_adapter = (struct registry_version){0};
    plan.artifacts = yyjson_obj_get(yyjson_doc_get_root(json), "artifacts");
    int rc = plan_read(&plan, yyjson_doc_get_root(json), err);
    if (rc >= 0)
        rc = plan_load(&plan, err);
    if (rc >= 0)
        rc = registry_plan_check(&plan, err);
    if (rc >= 0)
        rc = registry_plan_unpacked(&plan, ingest);
    if (rc == 0)
        rc = registry_plan_described(&plan, ingest, err);
    if (rc == 0)
        rc = registry_plan_fitted(&plan, ingest, err);
    if (rc == 0)
        rc = plan_write(&plan, ingest, &revision, err);
    if (rc == 0) {
        registry_apply_done(r, ingest);
        replaced_release(&plan);
        plan_report(&plan, revision, ret_change, ret_results);
    }
    yyjson_doc_free(json);
    free(plan.items);
    return rc;
}
