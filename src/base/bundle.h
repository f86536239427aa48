/* A folder as one artifact: a table of names and the files' bytes, each on a page of its own, so that a mapping of the
 * whole serves each file in place.
 *
 *   16 B  "bulkhead-folder1"
 *    8 B  number of files, u64 little-endian, 1 to LIMIT_FOLDER_FILES
 *   then for each file 272 B: u64 offset, u64 size, name, NUL-padded to 256
 *   then the files, in the table's order, each at the next multiple of 4096, zeroes between
 *
 * Names are relative, of parts split by '/', none of them empty, "." or "..", valid UTF-8 without control characters,
 * in ascending order of their bytes: the same folder always gives the same bytes. The command line writes it, engines
 * read it; what they read is a tenant's and hostile. Pure; also the fuzz target fuzz_bundle. */
#ifndef BULKHEAD_BASE_BUNDLE_H
#define BULKHEAD_BASE_BUNDLE_H

#include "base/buf.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

struct bundle { /* views of memory that the opener keeps */
    struct str bytes;
    uint32_t n_files;
};

/* Does it begin like one? */
bool bundle_is(struct str bytes);
/* Checks every name, offset and size. -ERROR_REFUSED with what is wrong. */
must_check int bundle_open(struct str bytes, struct bundle *ret_bundle, struct error *err);
/* File `index` < n_files; a NUL stands behind its name. */
void bundle_at(const struct bundle *b, uint32_t index, struct str *ret_name, struct str *ret_content);
bool bundle_find(const struct bundle *b, struct str name, struct str *ret_content);

struct bundle_file { /* to be written */
    char name[LIMIT_FOLDER_NAME_BYTES + 1];
    uint64_t size, offset;
};
/* May a file be called so? */
bool bundle_name_valid(struct str name);
/* Sorts the files, gives each its offset, and writes the table into *ret_head. The names are valid and unique. -
 * ERROR_LIMIT when the whole is larger than LIMIT_ARTIFACT_BYTES or there are too many or no files; -ERROR_NO_MEMORY.
 */
must_check int bundle_layout(struct bundle_file *files, size_t n_files, struct buf *ret_head, uint64_t *ret_bytes);

#endif
