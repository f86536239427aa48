/* Images: what an applied one is unpacked to, and where its root is kept. What was uploaded is dropped afterwards: the
 * root is an artifact of its own, named by its digest like any. */
#include "registry_internal.h"

#include "image/image_root.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

_Static_assert(STORE_DIGEST_BYTES == IMAGE_DIGEST_BYTES, "both are SHA-256");

struct unpacked {
    struct list node;
    uint8_t source[STORE_DIGEST_BYTES]; /* as it was uploaded */
    uint8_t root[STORE_DIGEST_BYTES], manifest[STORE_DIGEST_BYTES], index[STORE_DIGEST_BYTES];
    uint64_t root_bytes;
};

void registry_ingest_images_done(struct registry_ingest *ingest)
{
    list_each_safe(node, &ingest->images)
    {
        list_remove(node);
        free(container_of(node, struct unpacked, node));
    }
}

static const struct unpacked *unpacked_find(const struct registry_ingest *ingest, const uint8_t *source)
{
    for (const struct list *node = ingest->images.next; node != &ingest->images; node = node->next) {
        const struct unpacked *u = container_of(node, struct unpacked, node);
        if (memcmp(u->source, source, sizeof u->source) == 0)
            return u;
    }
    return NULL;
}

struct registry_root {
    struct registry_ingest *ingest;
    struct registry_upload *upload;
    struct unpacked *unpacked;
    struct str rest;
};

int registry_root_begin(struct registry *r, struct registry_ingest *ingest, struct str root,
                        struct registry_root **ret_root, struct error *err)
{
    struct image_head head;
    int rc = root.size > LIMIT_IMAGE_RESULT_BYTES ? -ERROR_PEER : image_head_read(root, &head, err);
    struct registry_root *made = rc < 0 ? NULL : calloc(1, sizeof *made);
    if (rc < 0)
        return rc;
    if (!made || !(made->unpacked = calloc(1, sizeof *made->unpacked))) {
        registry_root_free(made);
        return error_set_default(err, -ERROR_NO_MEMORY);
    }
    made->ingest = ingest;
    made->rest = root;
    memcpy(made->unpacked->source, ingest->wanted.digest, sizeof made->unpacked->source);
    memcpy(made->unpacked->manifest, head.manifest, sizeof made->unpacked->manifest);
    memcpy(made->unpacked->index, head.index, sizeof made->unpacked->index);
    rc = registry_upload_begin(r, &made->upload, err);
    if (rc < 0) {
        registry_root_free(made);
        return rc;
    }
    *ret_root = made;
    return 0;
}

void registry_root_free(struct registry_root *root)
{
    if (!root)
        return;
    registry_upload_abort(root->upload);
    free(root->unpacked);
    free(root);
}

int registry_root_step(struct registry_root *root, struct error *err)
{
    struct str slice = root->rest;
    if (slice.size > LIMIT_COPY_SLICE_BYTES)
        slice.size = LIMIT_COPY_SLICE_BYTES;
    int rc = registry_upload_write(root->upload, slice, err);
    root->rest = str_skip(root->rest, slice.size);
    if (rc < 0 || root->rest.size > 0)
        return rc < 0 ? rc : 1;
    struct registry_upload *upload = root->upload;
    struct unpacked *u = root->unpacked;
    char hex[REGISTRY_HEX_BYTES + 1];
    root->upload = NULL;
    rc = registry_upload_finish(upload, hex, &u->root_bytes, err);
    if (rc >= 0)
        rc = registry_hex_decode((struct str){hex, REGISTRY_HEX_BYTES}, u->root);
    if (rc < 0)
        return rc;
    list_append(&root->ingest->images, &u->node);
    root->unpacked = NULL;
    return 0;
}

/* A pinned reference names the manifest, or the index that led to it. */
static int pin_check(const struct registry_plan_item *item, struct str pin, const struct unpacked *u, struct error *err)
{
    char manifest[REGISTRY_HEX_BYTES + 1], index[REGISTRY_HEX_BYTES + 1];
    if (pin.size == 0)
        return 0;
    registry_hex(u->manifest, manifest);
    registry_hex(u->index, index);
    struct str digits = str_skip(pin, sizeof "sha256:" - 1);
    if (str_equal(digits, str_from(manifest)) || str_equal(digits, str_from(index)))
        return 0;
    return error_set(err, -ERROR_REFUSED,
                     "%s: spec.isolation.image: pinned to " STR_FORMAT ", but the image's digest is sha256:%s",
                     item->title, STR_ARG(pin), manifest);
}

static int take_unpacked(struct registry_plan_item *item, const struct unpacked *u, struct error *err)
{
    struct str path, pin;
    if (resource_image_split(item->next.model.isolation_image, &path, &pin) < 0) /* was checked with the document */
        return error_set_default(err, -ERROR_INVALID_RESOURCE);
    int rc = pin_check(item, pin, u, err);
    if (rc < 0)
        return rc;
    memcpy(item->image, u->root, sizeof item->image);
    memcpy(item->image_manifest, u->manifest, sizeof item->image_manifest);
    item->image_bytes = u->root_bytes;
    return 0;
}

int registry_image_load(struct registry_plan *plan, struct registry_plan_item *item, struct error *err)
{
    const char *image = item->next.model.isolation_image;
    if (!image[0])
        return 0;
    yyjson_val *hex = yyjson_obj_get(plan->artifacts, image);
    if (!hex) { /* what the stored model has already */
        if (item->newest.image_bytes == 0 || strcmp(image, item->present.model.isolation_image) != 0)
            return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.isolation.image: \"%.200s\" was not uploaded",
                             item->title, image);
        memcpy(item->image, item->newest.image, sizeof item->image);
        memcpy(item->image_manifest, item->newest.image_manifest, sizeof item->image_manifest);
        item->image_bytes = item->newest.image_bytes;
        return 0;
    }
    struct str text = {yyjson_get_str(hex), yyjson_get_len(hex)};
    if (!yyjson_is_str(hex) || registry_hex_decode(text, item->image_source) < 0)
        return error_set(err, -ERROR_INVALID_REQUEST, "%s: spec.isolation.image: its artifact is not a SHA-256 in hex",
                         item->title);
    const struct unpacked *u = unpacked_find(plan->ingest, item->image_source);
    if (u)
        return take_unpacked(item, u, err);
    item->image_wanted = true;
    int rc = registry_artifact_bytes(plan->registry, item->image_source, &item->image_source_bytes, err);
    if (rc == -ERROR_NOT_FOUND)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.isolation.image: the artifact was not uploaded",
                         item->title);
    return rc;
}

int registry_plan_unpacked(const struct registry_plan *plan, struct registry_ingest *ingest)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        if (!item->image_wanted)
            continue;
        struct registry_version *wanted = &ingest->wanted;
        *wanted = (struct registry_version){.number = item->version,
                                            .level = registry_level_rank(item->next.model.isolation_level),
                                            .cpu_milli = 1000,
                                            .memory_bytes = LIMIT_IMAGE_MEMORY_BYTES,
                                            .artifact_bytes = item->image_source_bytes};
        memcpy(wanted->digest, item->image_source, sizeof wanted->digest);
        memcpy(wanted->tenant, item->next.meta.tenant, sizeof wanted->tenant);
        memcpy(wanted->model, item->next.meta.name, sizeof wanted->model);
        ingest->wanted_image = true;
        return 1;
    }
    ingest->wanted_image = false;
    return 0;
}

void registry_apply_done(struct registry *r, const struct registry_ingest *ingest)
{
    for (const struct list *node = ingest->images.next; node != &ingest->images; node = node->next)
        registry_artifact_drop(r, container_of(node, struct unpacked, node)->source, ingest->began_ns);
}

void registry_images_drop(struct registry *r, const struct registry_ingest *ingest)
{
    for (const struct list *node = ingest->images.next; node != &ingest->images; node = node->next) {
        const struct unpacked *u = container_of(node, struct unpacked, node);
        registry_artifact_drop(r, u->source, ingest->began_ns);
        registry_artifact_release(r, u->root);
    }
}

struct registry_version registry_image_of(const struct registry_version *v)
{
    struct registry_version image = *v;
    assert(v->image_bytes > 0);
    memcpy(image.digest, v->image, sizeof image.digest);
    image.artifact_bytes = v->image_bytes;
    return image;
}
