/* Puts a hostile image onto a file system: in a child whose root is the folder that it fills and whose user is the
 * replica's, so that whoever takes it over by the image's bytes is where the image's worker is anyway, and alone.
 *
 * Supervisor only. */
#ifndef BULKHEAD_ISOLATE_IMAGE_H
#define BULKHEAD_ISOLATE_IMAGE_H

#include "isolate/isolate_rootfs.h"

/* Fills the empty folder, which belongs to that user afterwards, as all in it does. Blocks: 1 s per GB, at most
 * ISOLATE_LAUNCH_MS. -ERROR_ISOLATION_UNAVAILABLE, or -ERROR_REFUSED for an image that is not well-formed. */
must_check int rootfs_image_unpack(int folder_fd, const struct rootfs_parts *parts, struct error *err);

#endif
