/* What a guest of level microvm boots: Debian's cloud kernel as it is, and a memory file system that is put together
 * here (cpio, format newc): the first program, the kernel's modules, the worker and the libraries it needs.
 *
 * Supervisor and doctor. Everything ends up in sealed memfds, which the machine monitor gets by descriptor. */
#ifndef BULKHEAD_ISOLATE_GUEST_IMAGE_H
#define BULKHEAD_ISOLATE_GUEST_IMAGE_H

#include "base/cleanup.h"
#include "base/error.h"

#include <stdint.h>

#define ISOLATE_GUEST_N_MODULES 7

struct isolate_guest_kernel {
    int kernel_fd;                                  /* owned */
    int module_fds[ISOLATE_GUEST_N_MODULES];        /* -1: built into the kernel, or so it is taken to be */
    char module_names[ISOLATE_GUEST_N_MODULES][48]; /* in the guest */
    char version[96];                               /* for people */
};

/* Looks beside this program (guest/vmlinuz, guest/NAME.ko), then for the newest cloud kernel in /boot with its modules.
 * -ERROR_ISOLATION_UNAVAILABLE says what to install. */
must_check int isolate_guest_kernel_find(struct isolate_guest_kernel *ret_kernel, struct error *err);
void isolate_guest_kernel_done(struct isolate_guest_kernel *kernel);

struct isolate_guest_parts {
    int worker_fd;  /* with library_fd -1: for the probe */
    int library_fd; /* its engine's; -1: none */
    int runtime_fd; /* crun, which runs the worker in a container there; -1: the worker stands behind level process */
};

/* The memory file system. */
must_check int isolate_guest_image_build(const struct isolate_guest_kernel *kernel,
                                         const struct isolate_guest_parts *parts, int *ret_fd, uint64_t *ret_bytes,
                                         struct error *err);
/* The OCI runtime for guests, to be closed by the caller. -ERROR_ISOLATION_UNAVAILABLE with what to install. */
must_check int isolate_guest_runtime_open(int *ret_fd, struct error *err);

#endif
