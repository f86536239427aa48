/* Shared by the files of this room only. */
#ifndef BULKHEAD_GUEST_INTERNAL_H
#define BULKHEAD_GUEST_INTERNAL_H

#include "base/cleanup.h"
#include "base/error.h"
#include "isolate/isolate_guest.h"

#include <stddef.h>

/* guest_boot.c: file systems, modules. */
must_check int guest_boot(struct error *err);
/* Opens the serial port of that name, waiting for it to appear. */
must_check int guest_port_open(const char *name, int flags, int *ret_fd, struct error *err);
/* An option stands on the kernel's command line. */
bool guest_option(const char *option);
/* Ends the machine. */
_Noreturn void guest_end(enum isolate_guest_end how);

/* guest_model.c: the first `bytes` of the disk as a sealed memfd, if their SHA-256 is that. -ERROR_PEER if not. */
must_check int guest_model_load(uint64_t bytes, const uint8_t sha256[static 32], int *ret_fd, struct error *err);
/* For tests: the same from any descriptor. */
must_check int guest_model_copy(int from, uint64_t bytes, const uint8_t sha256[static 32], int *ret_fd,
                                struct error *err);

#endif
