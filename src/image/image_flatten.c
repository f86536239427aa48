#include "image/image_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char magic[16] = {'b', 'u', 'l', 'k', 'h', 'e', 'a', 'd', '-', 'r', 'o', 'o', 't', '-', '0', '1'};

/* Where the root is written, one piece behind the other. */
struct output {
    int fd;
    uint64_t size;
};

static int put(struct output *out, const void *data, size_t size, struct error *err)
{
    const char *from = data;
    for (size_t left = size; left > 0;) {
        ssize_t n = write(out->fd, from, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_NO_MEMORY, "the unpacked image cannot be kept: %s", strerrordesc_np(errno));
        from += n;
        left -= (size_t)n;
    }
    out->size += size;
    return 0;
}

static int members_add(struct tree *tree, struct str bytes, uint32_t layer, struct tar *t, struct output *out,
                       struct error *err)
{
    struct tar_member m;
    int r;
    *t = (struct tar){.rest = bytes};
    while ((r = tar_next(t, &m, err)) > 0) {
        uint64_t offset = out->size;
        r = tree_put(tree, &m, layer, offset, err);
        if (r == 0 && m.type == TAR_FILE &&
            m.content.size > LIMIT_IMAGE_BYTES - (out->size - sizeof(struct image_head)))
            r = error_set(err, ERROR_REFUSED, "its files have more than %zu MiB", (size_t)(LIMIT_IMAGE_BYTES / MIB));
        if (r == 0 && m.type == TAR_FILE)
            r = put(out, m.content.data, m.content.size, err);
        if (r < 0)
            return r;
    }
    return r;
}

static int layer_add(struct tree *tree, const struct layout_layer *layer, uint32_t number, struct output *out,
                     struct error *err)
{
    struct blob tar = {0};
    uint8_t digest[IMAGE_DIGEST_BYTES];
    _free_ struct tar *t = malloc(sizeof *t);
    if (!t)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = blob_unpack(layer->packing, layer->packed, LIMIT_IMAGE_LAYER_BYTES, &tar, err);
    if (r == 0)
        r = blob_digest(tar.bytes, digest, err);
    if (r == 0 && memcmp(digest, layer->digest, sizeof digest) != 0)
        r = error_set(err, ERROR_REFUSED, "layer %u is not, unpacked, what the configuration says (diff_ids)",
                      number + 1);
    if (r == 0)
        r = members_add(tree, tar.bytes, number, t, out, err);
    blob_done(&tar);
    return r < 0 ? error_wrap(err, r, "layer %u", number + 1) : r;
}

struct row { /* image_root.h */
    uint64_t offset, size;
    uint16_t path_size, target_size;
    uint8_t type, executable;
    uint8_t zero[2];
};
_Static_assert(sizeof(struct row) == 24 && LIMIT_IMAGE_PATH_BYTES <= UINT16_MAX, "as the format says");

static int table_put(const struct tree *tree, struct output *out, struct error *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < tree->n; i++) {
        const struct tree_node *node = tree->nodes[i];
        struct row row = {.offset = node->offset,
                          .size = node->size,
                          .path_size = (uint16_t)node->path.size,
                          .target_size = (uint16_t)node->target.size,
                          .type = (uint8_t)node->type,
                          .executable = node->executable};
        r = put(out, &row, sizeof row, err);
        if (r == 0)
            r = put(out, node->path.data, node->path.size, err);
        if (r == 0)
            r = put(out, node->target.data, node->target.size, err);
    }
    return r;
}

static int layers_add(const struct layout *layout, struct tree *tree, struct output *out, struct error *err)
{
    struct image_head head = {.n_entries = 0};
    int r = put(out, &head, sizeof head, err); /* written again when it is known */
    for (uint32_t i = 0; r == 0 && i < layout->n_layers; i++)
        r = layer_add(tree, &layout->layers[i], i, out, err);
    if (r < 0)
        return r;
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.manifest, layout->manifest, sizeof head.manifest);
    memcpy(head.index, layout->index, sizeof head.index);
    head.n_entries = tree->n;
    head.table_offset = out->size;
    r = table_put(tree, out, err);
    head.table_bytes = out->size - head.table_offset;
    if (r == 0 && lseek(out->fd, 0, SEEK_SET) != 0)
        r = error_set_default(err, ERROR_IO);
    return r < 0 ? r : put(out, &head, sizeof head, err);
}

int image_flatten(struct str bytes, int out_fd, struct error *err)
{
    struct tree tree = {.n = 0};
    struct output out = {.fd = out_fd};
    _free_ struct layout *layout = malloc(sizeof *layout);
    if (!layout)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = layout_read(bytes, layout, err);
    if (r == 0)
        r = layers_add(layout, &tree, &out, err);
    tree_done(&tree);
    return r;
}
