/* Level microvm, the parts: what a machine monitor is given (isolate_microvm_run.c) and the back-end's operations
 * (isolate_microvm.c). Supervisor and doctor. */
#ifndef BULKHEAD_ISOLATE_MICROVM_H
#define BULKHEAD_ISOLATE_MICROVM_H

#include "isolate/isolate_guest_image.h"
#include "isolate/isolate_internal.h"

/* What all machines of a server share; opened once. */
struct microvm_parts {
    int monitor_fd, module_fd; /* QEMU, and its module for software emulation (-1: built in) */
    char module_path[128];
    int firmware_fd;
    struct isolate_guest_kernel kernel;
};
must_check int microvm_parts_open(struct microvm_parts *ret_parts, struct error *err);
void microvm_parts_close(struct microvm_parts *parts);

/* Starts the monitor behind the wall of level process. spawn: as of the worker; its program_fd and library_fd are not
 * used, they are in the image already. machine NULL: the probe's. */
must_check int microvm_run(const struct microvm_parts *parts, const struct isolate_spawn *spawn, int image_fd,
                           uint64_t image_bytes, bool kvm, struct isolate_instance **ret_instance, int *ret_pidfd,
                           struct error *err);

#endif
