/* OCI runtimes of this host: found, run, and heard: every call is a program that ends within a bounded time and whose
 * last complaint is read from its log.
 *
 * Supervisor only. The one interface is the command line that runc has and others copy: --root, --log, run, delete;
 * where they differ, one table says how. A runtime dies with the supervisor. */
#ifndef BULKHEAD_ISOLATE_RUNTIME_H
#define BULKHEAD_ISOLATE_RUNTIME_H

#include "isolate/isolate_internal.h"

#define RUNTIME_MS 20000u /* one call; starts take some 50 ms here */

struct runtime {
    enum isolate_runtime kind; /* never ANY */
    char path[PATH_MAX];       /* "" = not on this host */
};

/* Looks for the program: a file that only root can write. */
void runtime_find(enum isolate_runtime kind, struct runtime *ret_runtime);
const char *runtime_program(enum isolate_runtime kind);
/* Its start takes seconds: it is tried only once somebody asks for it. */
bool runtime_slow(enum isolate_runtime kind);
/* The process that it leaves is not the program but a kernel for it, with a user and rights of its own. */
bool runtime_sandbox(enum isolate_runtime kind);

enum runtime_verb { RUNTIME_RUN = 1, RUNTIME_DELETE };

struct runtime_call {
    const struct runtime *runtime;
    enum runtime_verb verb;
    const char *name;                /* of the container */
    const char *state;               /* --root */
    const char *log;                 /* --log: a file of this call; made anew, left for the caller to remove */
    const char *bundle;              /* RUN: the folder */
    const char *pid_path;            /* RUN: where it writes the process's id */
    const int *fds;                  /* RUN: handed over as 3, 4, … */
    size_t n_fds;                    /* ≤ ISOLATE_LAUNCH_FDS_MAX */
    int stderr_fd;                   /* -1: /dev/null */
    const struct isolate_cpus *cpus; /* as of isolate_spawn */
};

/* Runs it and waits for its end. 0 when it ended with 0, else -ERROR_ISOLATION_UNAVAILABLE with its complaint. */
must_check int runtime_run(const struct runtime_call *call, struct error *err);
/* The same in two parts. Once it runs, the caller owns *ret_pidfd until runtime_wait has closed it. */
must_check int runtime_begin(const struct runtime_call *call, int *ret_pidfd, struct error *err);
/* Kills it when it has not ended by then. Its wait status; waits for as long as that takes. */
int runtime_wait(int *pidfd, uint64_t deadline_ns);

#endif
