/* What the back-ends of this room share: the instance, and the launch of a child through one ordered list of steps.
 *
 * Supervisor only. The parent's half is isolate_launch.c, the child's half isolate_child.c. */
#ifndef BULKHEAD_ISOLATE_INTERNAL_H
#define BULKHEAD_ISOLATE_INTERNAL_H

#include "base/cleanup.h"
#include "isolate/isolate.h"
#include "isolate/isolate_cgroup.h"

struct isolate_instance {
    char name[LIMIT_NAME_BYTES + 1];
    pid_t pid; /* in the supervisor's pid namespace */
    int pidfd;
    uid_t uid;
    bool nested;              /* microvm: its worker runs in a container there */
    uint64_t memory_extra;    /* microvm: of the machine, beyond the worker's limit */
    bool limits;              /* memory, cpu and pids are limited */
    char limits_missing[256]; /* why not */
    struct cgroup_group group;
    bool reaped;
    int status; /* as in wait(2), once reaped */
    struct isolate_usage usage_last;
};

/* What every worker gets, at every level. */
#define ISOLATE_MEMLOCK_BYTES  (64 * KIB) /* engines lock nothing; 64 KiB is the old kernel default */
#define ISOLATE_NPROC_MAX      4096       /* belt for the uid where the pids controller counts exactly */
#define ISOLATE_SIGPENDING_MAX 1024
/* When the whole host runs out of memory, a worker goes before the gateway and the supervisor. */
#define ISOLATE_OOM_SCORE_ADJUST 500

/* A spawn's descriptors and one that a back-end adds. */
#define ISOLATE_LAUNCH_FDS_MAX (ISOLATE_FDS_MAX + 1)

/* One launch. Filled by a back-end, read by the child (which has a copy of everything). */
struct isolate_launch {
    const struct isolate_spawn *spawn;
    bool walls;          /* false: only the steps that need no privilege (fake) */
    uint64_t namespaces; /* CLONE_NEW… */
    struct cgroup_join join;
    int root_fd; /* mount namespace to enter (isolate_root.h), borrowed; 0: the caller's */
    bool nproc;  /* RLIMIT_NPROC stands in for a missing pids controller */
    /* Runs in the child instead of the program, after all steps; 0 or -ERROR_… with err set. NULL: the program. */
    int (*run)(const struct isolate_launch *l, struct error *err);

    /* private */
    bool _join_by_writing; /* the kernel could not start the child in its v2 group */
    bool _proc;            /* mount a /proc */
    int _report_fd;        /* the child writes a struct error here when it fails; closed by exec */
    int _parent_fd;        /* pidfd of the parent */
    int _program_fd;       /* -1 when `run` is set */
    int _null_fd;
    int _proc_fd; /* O_PATH of the child's own folder in the host's /proc; -1 without walls. Closed by exec */
    char *const *_environment;
};

/* Starts the child and waits until it runs its program, or `run` has returned. On success the caller owns the child
 * (to be reaped with isolate_wait) and *ret_pidfd. On failure there is no child. Blocks for the time of a start, at
 * most ISOLATE_LAUNCH_MS. */
must_check int isolate_launch(struct isolate_launch *l, pid_t *ret_pid, int *ret_pidfd, struct error *err);
#define ISOLATE_LAUNCH_MS 10000

/* The child's life from clone to exec. */
_Noreturn void isolate_child(struct isolate_launch *l);

/* The environment of a worker: NULL-terminated, static storage. */
char *const *isolate_environment(void);

/* Reaps: 0 with the wait status, or -ERROR_AGAIN while it runs (only when !block). A child that somebody else reaped
 * counts as exited with 255. */
int isolate_wait(int pidfd, bool block, int *ret_status);

/* The parts that every back-end does the same way. */
int isolate_spawn_check(const struct isolate_spawn *spawn, bool walls, struct error *err);
/* A new instance of that name, without process and cgroup; NULL when out of memory. */
struct isolate_instance *isolate_instance_new(const struct isolate_spawn *spawn);
/* isolate_ops.reap where the process itself is the worker. */
int isolate_instance_reap(struct isolate_instance *i, int *ret_status);
/* Closes the pidfd and frees. The process must be reaped. */
void isolate_instance_free(struct isolate_instance *i);
/* SIGKILL through the pidfd; nothing when it is gone. */
void isolate_instance_kill(struct isolate_instance *i);
/* Level process has been set up in this process. */
bool isolate_process_ready(void);
/* Memory and CPU of the main process, from /proc; what cannot be read keeps its last value. */
void isolate_process_usage(struct isolate_instance *i);

#endif
