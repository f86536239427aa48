/* A root file system in one piece, as image_flatten writes it: all contents, then a table of entries.
 *
 *   128 B   head: magic, number of entries, offset and size of the table, digests of manifest and index
 *   …       contents of files, one behind the other (also of such as a later layer replaced)
 *   then for each entry 24 B: u64 offset, u64 size, u16 path size, u16 target size, u8 type, u8 executable, 2 B zero
 *   and the bytes of path and target
 *
 * Paths are relative, of parts split by '/', none of them empty, "." or "..", without control characters, in ascending
 * order of their bytes, each behind the folder that it is in; numbers are little-endian. Written by a process that
 * hostile bytes may have taken over, so all of it is checked again by whoever reads it. Pure but for image_root_unpack;
 * also the fuzz target fuzz_image_root. */
#ifndef BULKHEAD_IMAGE_IMAGE_ROOT_H
#define BULKHEAD_IMAGE_IMAGE_ROOT_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#define IMAGE_DIGEST_BYTES 32u

enum image_type { IMAGE_FILE = 1, IMAGE_FOLDER, IMAGE_LINK, IMAGE_TYPE_COUNT };

struct image_head {
    char magic[16];
    uint64_t n_entries, table_offset, table_bytes;
    uint8_t manifest[IMAGE_DIGEST_BYTES];
    uint8_t index[IMAGE_DIGEST_BYTES]; /* of the index that led to the manifest; zeros: there was none */
    uint8_t _reserved[24];             /* zero */
};

/* Fixed size, no pointers: whoever only wants the digests reads no further. -ERROR_REFUSED. */
must_check int image_head_read(struct str bytes, struct image_head *ret_head, struct error *err);

struct image_entry {
    enum image_type type;
    bool executable;
    struct str path, target; /* target: of a link, any bytes but NUL */
    struct str content;      /* of a file */
};

struct image_root { /* views of memory that the opener keeps */
    struct image_head head;
    struct str bytes, rest; /* rest: of the table */
    uint64_t n_left;
    struct str last; /* path */
};

must_check int image_root_open(struct str bytes, struct image_root *ret_root, struct error *err);
/* The next entry: 1, 0 at the end, -ERROR_REFUSED. */
must_check int image_root_next(struct image_root *root, struct image_entry *ret_entry, struct error *err);

/* Makes all of it in an empty folder. For a process whose root is that folder: a path could lead through a link. Modes
 * are 0755 and 0444, or 0555 for executables. -ERROR_REFUSED, -ERROR_IO. */
must_check int image_root_unpack(struct str bytes, int folder_fd, struct error *err);

/* By their bytes: < 0, 0, > 0. */
int image_path_compare(struct str a, struct str b);
/* May an entry be called so? */
bool image_path_valid(struct str path);

#endif
