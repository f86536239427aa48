/* OCI runtimes of this host: found, run, and heard: every call is a program that ends within a bounded time and whose
 * last complaint is read from its log.
 *
 * Supervisor only. The one interface is the command line that runc has and others copy: --root, --log, run, delete. A
 * runtime dies with the supervisor. */
#ifndef BULKHEAD_ISOLATE_RUNTIME_H
#define BULKHEAD_ISOLATE_RUNTIME_H

#include "isolate/isolate_internal.h"

enum runtime_kind { RUNTIME_RUNC = 0, RUNTIME_CRUN, RUNTIME_RUNSC, RUNTIME_KATA, RUNTIME_COUNT };
/* As in spec.isolation.runtime; the order is the order of preference where none is named. */
extern const char *const runtime_names[RUNTIME_COUNT];

#define RUNTIME_MS 20000u /* one call; starts take some 50 ms here */

struct runtime {
    enum runtime_kind kind;
    char path[PATH_MAX]; /* "" = not on this host */
};

/* Looks for the program: a file that only root can write. */
void runtime_find(enum runtime_kind kind, struct runtime *ret_runtime);

struct runtime_call {
    const struct runtime *runtime;
    const char *state;            /* --root */
    const char *log;              /* --log: a file of this call; made anew, left for the caller to remove */
    const char *const *arguments; /* NULL-terminated, ≤ 16: "run", "--detach", … */
    const int *fds;               /* handed over as 3, 4, … */
    size_t n_fds;                 /* ≤ ISOLATE_LAUNCH_FDS_MAX */
    int stderr_fd;                /* -1: /dev/null */
};

/* Runs it and waits for its end. 0 when it ended with 0, else -ERROR_ISOLATION_UNAVAILABLE with its complaint. */
must_check int runtime_run(const struct runtime_call *call, struct error *err);

#endif
