/* What the files of level `container` share (isolate_container.c: the back-end; isolate_container_start.c: one
 * container's start and end; isolate_container_probe.c: what a runtime can do here). Supervisor only. */
#ifndef BULKHEAD_ISOLATE_CONTAINER_H
#define BULKHEAD_ISOLATE_CONTAINER_H

#include "isolate/isolate_internal.h"
#include "isolate/isolate_rootfs.h"
#include "isolate/isolate_runtime.h"

/* A mount of the supervisor's own mount namespace holds everything: it goes with the supervisor, however that ends. */
#define CONTAINER_FOLDER_PARENT "/run"
#define CONTAINER_FOLDER_MAX    128u
#define CONTAINER_ROOTS_MAX     8u

/* Roots are kept per program and library, and told apart by what changes when a file is written anew. */
struct container_root {
    struct stat program, library;
    uint8_t image[32]; /* zeros: none */
    struct rootfs root;
};

struct container_host {
    bool open;
    char folder[CONTAINER_FOLDER_MAX]; /* "" = could not be made */
    int lock;                          /* on the folder below the mount; -1 = none */
    char missing[200];                 /* why not, in words */
    struct cgroup_tree tree;
    struct runtime runtimes[ISOLATE_RUNTIME_COUNT]; /* row ANY is empty */
    bool wanted[ISOLATE_RUNTIME_COUNT];             /* the probe tries it */
    bool probed;
    struct isolate_runtime_report reports[ISOLATE_RUNTIME_COUNT]; /* once probed */
    struct container_root roots[CONTAINER_ROOTS_MAX];
    size_t root_next; /* the slot that is used again first */
};
extern struct container_host container_host;

struct container {
    struct isolate_instance i; /* first: the interface's instance is this address */
    const struct runtime *runtime;
    bool filter; /* its bundle has a seccomp profile */
    char digest[ROOTFS_DIGEST_BYTES];
    bool image; /* its root is an image of the model's */
    /* Once it has ended: the runtime that forgets it. */
    bool forgotten;
    int forgetter; /* pidfd while it runs, else -1 */
    uint64_t forget_by_ns;
};

struct container_order {
    const struct isolate_spawn *spawn;
    const struct runtime *runtime;
    const struct rootfs *root;
    bool follow; /* the program calls isolate_follow */
};

/* Makes the group and the bundle, runs the runtime, and takes the container's first process as our own child. On
 * failure nothing is left. */
must_check int container_start(const struct container_order *order, struct container **ret_container,
                               struct error *err);
/* After its process was reaped: lets the runtime forget it, in a process beside us. -ERROR_AGAIN until that has ended.
 */
int container_tidy(struct isolate_instance *i);
/* After its process was reaped: the runtime's state, the bundle, the group, the memory. Waits for the runtime. */
void container_end(struct container *c);

/* Tries one runtime by running a trivial program in a container and looking at it from outside. */
must_check int container_try(const struct runtime *runtime, const struct rootfs *root, struct error *err);
/* As isolate_ops.probe. */
void container_probe(struct isolate_report *ret_report);

#endif
