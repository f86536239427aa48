/* An OCI bundle's config.json (runtime-spec 1.0.2), written for one worker.
 *
 * Supervisor only; pure: text out of values, no file and no kernel is asked. What is never in it: hooks, a terminal,
 * capabilities, a mount of the host's, an annotation that a runtime acts on. */
#ifndef BULKHEAD_ISOLATE_BUNDLE_H
#define BULKHEAD_ISOLATE_BUNDLE_H

#include "base/buf.h"
#include "isolate/isolate.h"

/* The namespace's root: a host user that owns nothing and runs none of our programs but the runtime's own first steps.
 * The worker's own uid and gid keep their numbers; every other number of the host, root included, is not mapped. */
#define BUNDLE_ROOT_UID       65534u
#define BUNDLE_JSON_BYTES_MAX (256 * KIB)
#define BUNDLE_TMP_BYTES      (16 * MIB) /* counts against memory_bytes as well */

enum bundle_resource { BUNDLE_MEMORY = 1, BUNDLE_SWAP = 2, BUNDLE_CPU = 4, BUNDLE_PIDS = 8 };

struct bundle {
    const char *root;               /* host path of the root file system */
    const char *root_digest;        /* its SHA-256, for whoever reads the bundle */
    const char *const *arguments;   /* NULL-terminated; [0] is a path in the root */
    const char *const *environment; /* NULL-terminated "NAME=value" */
    uid_t uid;                      /* not 0, not BUNDLE_ROOT_UID */
    gid_t gid;                      /* likewise */
    struct isolate_limits limits;   /* as of isolate_spawn */
    unsigned resources;             /* enum bundle_resource: which limits the runtime sets */
    const char *cpus;               /* the list of its processors; NULL: not restricted */
    const char *cgroups_path;       /* linux.cgroupsPath */
    bool filter;                    /* the program is bulkhead-worker: its seccomp profile (isolate_profile.h) */
};

/* Appends the text. -ERROR_NO_MEMORY, or -ERROR_INVALID_ARGUMENT when a text is not valid UTF-8. */
must_check int bundle_write(const struct bundle *b, struct buf *json, struct error *err);

#endif
