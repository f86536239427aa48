/* The root folder of workers: a mount namespace made once per (program, engine library) and entered by every worker
 * that runs them.
 *
 * Supervisor only. The namespace holds a tmpfs with nothing but the loader, the libraries that the program and the
 * engine need (bound read-only, one file each), five device nodes, an empty /tmp, and copies of the few files that tell
 * an engine about the processor. Nothing is mounted in the supervisor's own namespace, so nothing can be left behind:
 * the kernel drops it all with the last descriptor and the last worker. Which libraries are needed is asked of the
 * host's own loader. No tenant byte is read. */
#ifndef BULKHEAD_ISOLATE_ROOT_H
#define BULKHEAD_ISOLATE_ROOT_H

#include "base/cleanup.h"
#include "base/error.h"
#include "isolate/isolate.h"

#include <limits.h>
#include <stddef.h>

/* Where the child puts things into the namespace that are its own (isolate_enter.c). */
#define ISOLATE_ROOT_TMP  "/tmp"
#define ISOLATE_ROOT_PROC "/proc"

/* One file of the root. */
struct isolate_root_file {
    char path[PATH_MAX]; /* in the root, absolute */
    int fd;              /* the host's file; owned */
};

/* ONNX Runtime has 8 libraries, llama.cpp 10 and 14 variants of its kernels, a sanitizer adds 2, a GPU build some ten
 * more. */
#define ISOLATE_ROOT_FILES_MAX 64

struct isolate_root_files {
    struct isolate_root_file files[ISOLATE_ROOT_FILES_MAX];
    size_t n_files;
};

/* The namespace for this program and library (-1: none) and what else its root holds (NULL: nothing), built when it is
 * asked for first; some ms. On success *ret_ns_fd is borrowed: it stays open until isolate_roots_close, or until room
 * is needed for another after ISOLATE_ROOTS_MAX. -ERROR_ISOLATION_UNAVAILABLE with the reason: a library that cannot be
 * found, mounts that are not allowed. */
must_check int isolate_root_get(int program_fd, int library_fd, const struct isolate_root_extra *extra, int *ret_ns_fd,
                                struct error *err);
#define ISOLATE_ROOTS_MAX 16 /* one per engine is needed */

/* A namespace without program and libraries, which the caller owns: for a probe, which must not go by what worked once.
 */
must_check int isolate_root_new_bare(int *ret_ns_fd, struct error *err);

/* Forgets all of them. Running workers keep theirs. */
void isolate_roots_close(void);

/* isolate_root_find.c: appends the loader and all libraries that the program and the library need, found by the host's
 * loader, and the library itself at library_path. */
must_check int isolate_root_files_find(int program_fd, int library_fd, const char *library_path,
                                       struct isolate_root_files *files, struct error *err);
void isolate_root_files_done(struct isolate_root_files *files);

#endif
