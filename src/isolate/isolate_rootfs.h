/* The root file system of containers: a folder with the worker program, the libraries that it and its engine need, and
 * empty folders to mount on; copied from the host once, with a digest over all of it. Where a model brings an image,
 * that is the root, and the worker lies in /bulkhead with its own loader and libraries: the image's are never used.
 *
 * Supervisor only, in a folder that it alone can write. Two checks pin it: the digest is taken from what was read back
 * from the finished tree (every path, mode, size and content), and before each start every entry must still be the one
 * that was digested (inode, owner, mode, size, times of change). An image's bytes are parsed by a child that has the
 * folder as its root and the user of the replica; the supervisor looks only at what the kernel says lies there then. */
#ifndef BULKHEAD_ISOLATE_ROOTFS_H
#define BULKHEAD_ISOLATE_ROOTFS_H

#include "base/cleanup.h"
#include "isolate/isolate.h"

#include <limits.h>
#include <stddef.h>
#include <sys/stat.h>

#define ROOTFS_ENTRIES_MAX  128u /* ISOLATE_ROOT_FILES_MAX files and the folders that hold them */
#define ROOTFS_DIGEST_BYTES 65u  /* SHA-256 in hexadecimal, and NUL */
#define ROOTFS_PROGRAM      "/bulkhead-worker"
/* Of an image. The loader has the worker's name: it is what a list of processes shows. */
#define ROOTFS_IMAGE_LOADER  "/bulkhead/bulkhead-worker"
#define ROOTFS_IMAGE_PROGRAM "/bulkhead/program"
#define ROOTFS_IMAGE_LIBS    "/bulkhead/lib"
#define ROOTFS_COMMAND_MAX   6u

struct rootfs_entry {
    char *path; /* in the root, absolute; owned */
    struct stat seen;
};

struct rootfs {
    char path[PATH_MAX]; /* of the folder; "" = there is none */
    char digest[ROOTFS_DIGEST_BYTES];
    const char *command[ROOTFS_COMMAND_MAX]; /* how the program is started in it; arguments follow. NULL-terminated */
    /* private */
    struct rootfs_entry *_entries; /* [_n_entries], sorted by path once it is built */
    size_t _n_entries, _capacity, _n_image;
    bool _has_image;
};

struct rootfs_parts {
    int program_fd;
    int library_fd;                    /* -1: no engine library */
    const struct isolate_image *image; /* NULL: a root of the host's files alone */
    uid_t uid;                         /* image: as whom it is unpacked; nobody else's */
    gid_t gid;
};

/* Builds the tree in `path`, which must not exist; its parent must be searchable by every user. On failure nothing is
 * left. Some ms per 10 MB. */
must_check int rootfs_build(const char *path, const struct rootfs_parts *parts, struct rootfs *ret_root,
                            struct error *err);
/* -ERROR_ISOLATION_UNAVAILABLE when the tree is not what was digested. */
must_check int rootfs_check(const struct rootfs *root, struct error *err);
/* Removes the tree and frees; accepts a zeroed one. Running containers keep theirs. */
void rootfs_done(struct rootfs *root);
/* Removes a folder and everything in it, as far as it can; never follows a link or leaves the file system. */
void rootfs_remove(const char *path);

#endif
