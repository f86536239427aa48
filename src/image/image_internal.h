/* Shared by the files of this room only. */
#ifndef BULKHEAD_IMAGE_INTERNAL_H
#define BULKHEAD_IMAGE_INTERNAL_H

#include "base/cleanup.h"
#include "image/image.h"
#include "image/image_root.h"

/* --- image_tar.c: members of a tar file that lies in memory (ustar, GNU, pax) --- */

enum tar_type { TAR_FILE = 1, TAR_FOLDER, TAR_LINK, TAR_HARD_LINK, TAR_OTHER };

struct tar {
    struct str rest;
    uint32_t n_members;
    char path[LIMIT_IMAGE_PATH_BYTES + 1], target[LIMIT_IMAGE_PATH_BYTES + 1]; /* of the present member */
};

struct tar_member {
    enum tar_type type;
    bool executable;
    struct str path, target; /* as written, but for a leading "./" and a last '/'; valid until the next member */
    struct str content;      /* of a file */
};

/* 1, 0 at the end, -ERROR_REFUSED. */
must_check int tar_next(struct tar *t, struct tar_member *ret_member, struct error *err);

/* --- image_blob.c --- */

struct blob {
    struct str bytes;
    char *owned; /* NULL: bytes are somebody else's */
};
void blob_done(struct blob *b);

must_check int blob_digest(struct str bytes, uint8_t ret_digest[static IMAGE_DIGEST_BYTES], struct error *err);
/* "sha256:" and 64 digits. */
must_check int blob_digest_parse(struct str text, uint8_t ret_digest[static IMAGE_DIGEST_BYTES], struct error *err);
enum blob_packing { BLOB_PLAIN = 0, BLOB_GZIP, BLOB_ZSTD };
/* At most `max` bytes unpacked (< SIZE_MAX / 2); what is plain already is neither copied nor bounded. -ERROR_REFUSED
 * for what is not whole, or too much. */
must_check int blob_unpack(enum blob_packing packing, struct str packed, size_t max, struct blob *ret_blob,
                           struct error *err);

/* --- image_layout.c: what the layout's documents say; all of it checked but the layers' contents --- */

struct layout_layer {
    struct str packed;
    enum blob_packing packing;
    uint8_t digest[IMAGE_DIGEST_BYTES]; /* of its tar */
};

struct layout {
    struct layout_layer layers[LIMIT_IMAGE_LAYERS];
    size_t n_layers;
    uint8_t manifest[IMAGE_DIGEST_BYTES], index[IMAGE_DIGEST_BYTES];
};

must_check int layout_read(struct str bytes, struct layout *ret_layout, struct error *err);

/* --- image_tree.c: the root as it grows, layer by layer --- */

struct tree_node {
    enum image_type type;
    bool executable;
    uint32_t layer;
    uint64_t offset, size;   /* of a file's content in the output */
    struct str path, target; /* owned, in one piece with the node */
};

struct tree {
    struct tree_node **nodes; /* [n] by path */
    size_t n, capacity;
};

void tree_done(struct tree *t);
/* Adds a member of a layer; a file's content lies at `offset` of the output. Whiteouts take away what lower layers
 * have.
 */
must_check int tree_put(struct tree *t, const struct tar_member *m, uint32_t layer, uint64_t offset, struct error *err);

#endif
