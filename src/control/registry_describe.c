/* What engines said of artifacts: what a new version needs before it is written, and where it is kept. */
#include "registry_internal.h"

#include <stdio.h>
#include <time.h>

struct described {
    struct list node;
    char engine[32];
    uint8_t digest[STORE_DIGEST_BYTES];
    uint64_t engine_id;
    size_t size;
    char signature[];
};

void registry_ingest_init(struct registry_ingest *ingest)
{
    struct timespec now = {0};
    *ingest = (struct registry_ingest){0};
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    ingest->began_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    list_init(&ingest->described);
    list_init(&ingest->images);
    list_init(&ingest->fits);
}

void registry_ingest_done(struct registry_ingest *ingest)
{
    list_each_safe(node, &ingest->described)
    {
        list_remove(node);
        free(container_of(node, struct described, node));
    }
    registry_ingest_images_done(ingest);
    registry_fits_done(ingest);
}

int registry_ingest_add(struct registry_ingest *ingest, struct str signature)
{
    if (ingest->wanted_adapter.artifact_bytes > 0)
        return registry_fit_add(ingest);
    struct described *d = malloc(sizeof *d + signature.size);
    if (!d)
        return -ERROR_NO_MEMORY;
    memcpy(d->engine, ingest->wanted.engine, sizeof d->engine);
    memcpy(d->digest, ingest->wanted.digest, sizeof d->digest);
    d->engine_id = ingest->wanted_id;
    d->size = signature.size;
    memcpy(d->signature, signature.data, signature.size);
    list_append(&ingest->described, &d->node);
    return 0;
}

static void note_found(void *ctx, const struct store_description *d)
{
    (void)d;
    *(bool *)ctx = true;
}

/* 1, 0, or negative when the store cannot be read. */
static int is_described(struct registry *r, const struct registry_ingest *ingest, const char *engine,
                        const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t engine_id, struct error *err)
{
    for (const struct list *node = ingest->described.next; node != &ingest->described; node = node->next) {
        const struct described *d = container_of(node, struct described, node);
        if (strcmp(d->engine, engine) == 0 && memcmp(d->digest, digest, sizeof d->digest) == 0 &&
            d->engine_id == engine_id)
            return 1;
    }
    bool found = false;
    int rc = r->config.store->description_find(r->store, str_from(engine), digest, engine_id, note_found, &found, err);
    return rc < 0 ? rc : found;
}

int registry_plan_described(const struct registry_plan *plan, struct registry_ingest *ingest, struct error *err)
{
    const struct registry_config *config = &plan->registry->config;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        const struct resource_model *model = &item->next.model;
        if (item->kind != RESOURCE_MODEL || !item->version_new)
            continue;
        uint64_t engine_id = config->engine_id(config->ctx, str_from(model->engine));
        int rc = is_described(plan->registry, ingest, model->engine, item->digest, engine_id, err);
        if (rc < 0)
            return rc;
        if (rc > 0)
            continue;
        struct registry_version *wanted = &ingest->wanted;
        *wanted = (struct registry_version){.number = item->version,
                                            .level = registry_level_rank(model->isolation_level),
                                            .cpu_milli = model->cpu_milli,
                                            .memory_bytes = model->memory_bytes,
                                            .repack = model->repack,
                                            .artifact_bytes = item->artifact_bytes};
        memcpy(wanted->engine, model->engine, sizeof wanted->engine);
        memcpy(wanted->digest, item->digest, sizeof wanted->digest);
        memcpy(wanted->tenant, model->meta.tenant, sizeof wanted->tenant);
        memcpy(wanted->model, model->meta.name, sizeof wanted->model);
        ingest->wanted_id = engine_id;
        return 1;
    }
    return 0;
}

int registry_described_write(struct registry *r, const struct registry_ingest *ingest, struct error *err)
{
    for (const struct list *node = ingest->described.next; node != &ingest->described; node = node->next) {
        const struct described *d = container_of(node, struct described, node);
        struct store_description row = {
            .engine = str_from(d->engine), .engine_id = d->engine_id, .signature = {d->signature, d->size}};
        memcpy(row.digest, d->digest, sizeof row.digest);
        int rc = r->config.store->description_put(r->store, &row, err);
        if (rc < 0)
            return rc;
    }
    return registry_fits_write(r, ingest, err);
}

void registry_apply_drop(struct registry *r, struct str body, const struct registry_ingest *ingest)
{
    yyjson_doc *json = yyjson_read(body.data, body.size, 0);
    yyjson_val *artifacts = yyjson_obj_get(yyjson_doc_get_root(json), "artifacts"); /* all of these take NULL */
    yyjson_obj_iter each = yyjson_obj_iter_with(artifacts);
    for (yyjson_val *key = yyjson_obj_iter_next(&each); key; key = yyjson_obj_iter_next(&each)) {
        yyjson_val *value = yyjson_obj_iter_get_val(key);
        uint8_t digest[STORE_DIGEST_BYTES];
        if (yyjson_is_str(value) &&
            registry_hex_decode((struct str){yyjson_get_str(value), yyjson_get_len(value)}, digest) >= 0)
            registry_artifact_drop(r, digest, ingest->began_ns);
    }
    yyjson_doc_free(json);
    registry_images_drop(r, ingest);
}
