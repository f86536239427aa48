/* An OCI image layout made into one flat root file system.
 *
 * Ingest only (`bulkhead-image`, behind a worker's wall); pure but for what it writes to the one descriptor that it is
 * given. The layout is hostile: every digest is checked (index entry, manifest, configuration, layers packed and
 * unpacked), every size bounded, no name leaves the root, no link points out of it. What a root may not have is left
 * out (owners, extended attributes, setuid and setgid bits; all below /dev, /proc, /sys and /tmp, which are mounted
 * fresh; /etc/ld.so.preload) or refused (devices, pipes, /bulkhead and /engine, where the worker is put). */
#ifndef BULKHEAD_IMAGE_IMAGE_H
#define BULKHEAD_IMAGE_IMAGE_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

/* `layout`: a packed folder (base/bundle.h) or a tar file, both with oci-layout, index.json and blobs/. Writes the root
 * (image_root.h) to out_fd, an empty file that can be read and sought; on failure what it holds is of no use. Layers:
 * plain tar, gzip or zstd. The image is the one for linux and this processor; several are refused. -ERROR_REFUSED with
 * what is wrong, in words for whoever made the image; -ERROR_NO_MEMORY. The same layout gives the same bytes. Blocks
 * for seconds; needs up to 2 × LIMIT_IMAGE_BYTES of memory beside the output. */
must_check int image_flatten(struct str layout, int out_fd, struct error *err);

#endif
