/* Isolation back-ends: one per level of the ladder (DESIGN §5), `fake` included.
 *
 * Lives in the supervisor, single-threaded, privileged. A back-end starts a worker behind a wall, limits it, tells its
 * use, and ends it without leaving anything (process, cgroup, mount) behind. It never speaks the channel and reads no
 * tenant byte. `probe` finds out by doing what this host can really provide; asking for more is refused with the
 * reason, never weakened. */
#ifndef BULKHEAD_ISOLATE_ISOLATE_H
#define BULKHEAD_ISOLATE_ISOLATE_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#include <sys/types.h>

enum isolate_level { /* weakest first; the order is the contract */
                     ISOLATE_NONE = 0,
                     ISOLATE_SHARED,
                     ISOLATE_POOL,
                     ISOLATE_PROCESS,
                     ISOLATE_CONTAINER,
                     ISOLATE_MICROVM,
                     ISOLATE_LEVEL_COUNT
};
extern const char *const isolate_level_names[ISOLATE_LEVEL_COUNT];
/* ISOLATE_NONE when unknown. */
enum isolate_level isolate_level_from_name(struct str name);

struct isolate_limits {
    uint64_t memory_bytes; /* > 0 */
    uint32_t cpu_milli;    /* 1000 = one core, > 0 */
    uint32_t pids;         /* processes and threads, > 0 */
    uint64_t file_bytes;   /* RLIMIT_FSIZE */
    uint32_t fds;          /* RLIMIT_NOFILE */
};

struct isolate_spawn {
    const char *name;        /* unique on this server, [a-z0-9-], ≤ 63 bytes: names the cgroup */
    int program_fd;          /* the worker program, executed by descriptor */
    const char *const *argv; /* NULL-terminated */
    const int *fds;          /* [n_fds] descriptors handed over as 3, 4, …; everything else is closed at birth */
    size_t n_fds;
    uid_t uid; /* the replica's own uid and gid, from the configured range */
    gid_t gid;
    struct isolate_limits limits;
    bool limits_required; /* false only with --allow-unlimited: start even where a limit cannot be set */
};

struct isolate_instance; /* one worker behind its wall; owned by the caller of spawn until `discard` */

struct isolate_usage {
    uint64_t memory_bytes, memory_peak_bytes;
    uint64_t cpu_ns;
    uint32_t pids;
    uint64_t oom_kills;
};

struct isolate_report { /* probe and explain */
    bool available;
    bool limits;    /* memory, cpu and pids can be limited */
    char text[512]; /* why not, what is degraded, or what the level consists of right now */
};

struct isolate_ops {
    const char *name;
    enum isolate_level level;
    /* By doing: spawns a trivial child through the same path. Blocks for some ms; called once at start. */
    void (*probe)(struct isolate_report *ret_report);
    /* Starts the worker; returns at once after the program was executed or failed to be. On success *ret_pidfd is owned
     * by the instance (borrow it for polling). Refusals: -ERROR_ISOLATION_UNAVAILABLE with the reason in words. The
     * child dies when the calling process dies. */
    int (*spawn)(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                 struct error *err);
    /* Changes limits of a running instance. */
    int (*limit)(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err);
    int (*usage)(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err);
    /* SIGKILL to all of it; returns at once; idempotent. */
    void (*kill)(struct isolate_instance *i);
    /* Human facts: "process (partial: no mount namespace, no syscall filter)", pid, cgroup. */
    void (*explain)(struct isolate_instance *i, struct isolate_report *ret_report);
    /* After the pidfd became readable: reaps, removes the cgroup, frees. Returns the wait status through ret_status
     * (waitid si_code/si_status folded as in wait(2)), or -ERROR_AGAIN if it still runs. */
    int (*discard)(struct isolate_instance *i, int *ret_status);
    /* Once at start: removes what an earlier server of the same `scope` left behind (cgroups). `scope` is [a-z0-9-]. */
    int (*setup)(const char *scope, struct error *err);
    void (*teardown)(void);
};

extern const struct isolate_ops isolate_process;
extern const struct isolate_ops isolate_fake;

/* The back-end of a level in this build, or NULL: not built yet (refused with that reason). */
const struct isolate_ops *isolate_find(enum isolate_level level);

#endif
