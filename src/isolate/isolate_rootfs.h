/* The root file system of containers: a folder with the worker program, the libraries that it and its engine need, and
 * empty folders to mount on; copied from the host once, with a digest over all of it.
 *
 * Supervisor only, in a folder that it alone can write. Two checks pin it: the digest is taken from what was read back
 * from the finished tree (every path, mode, size and content), and before each start every entry must still be the one
 * that was digested (inode, owner, mode, size, times of change). No tenant byte is read. */
#ifndef BULKHEAD_ISOLATE_ROOTFS_H
#define BULKHEAD_ISOLATE_ROOTFS_H

#include "base/cleanup.h"
#include "base/error.h"

#include <limits.h>
#include <stddef.h>
#include <sys/stat.h>

#define ROOTFS_ENTRIES_MAX  128u /* ISOLATE_ROOT_FILES_MAX files and the folders that hold them */
#define ROOTFS_DIGEST_BYTES 65u  /* SHA-256 in hexadecimal, and NUL */
#define ROOTFS_PROGRAM      "/bulkhead-worker"

struct rootfs_entry {
    char path[256]; /* in the root, absolute */
    struct stat seen;
};

struct rootfs {
    char path[PATH_MAX]; /* of the folder; "" = there is none */
    char digest[ROOTFS_DIGEST_BYTES];
    /* private */
    struct rootfs_entry *_entries; /* [_n_entries], sorted by path */
    size_t _n_entries;
};

/* Builds the tree in `path`, which must not exist; its parent must be searchable by every user. library_fd -1: no
 * engine library. On failure nothing is left. Some ms per 10 MB. */
must_check int rootfs_build(const char *path, int program_fd, int library_fd, struct rootfs *ret_root,
                            struct error *err);
/* -ERROR_ISOLATION_UNAVAILABLE when the tree is not what was digested. */
must_check int rootfs_check(const struct rootfs *root, struct error *err);
/* Removes the tree and frees; accepts a zeroed one. Running containers keep theirs. */
void rootfs_done(struct rootfs *root);
/* Removes a folder and everything in it, as far as it can; never follows a link or leaves the file system. */
void rootfs_remove(const char *path);

#endif
