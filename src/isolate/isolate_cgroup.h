/* Control groups: finds the hierarchies (v1, v2 or both, as this host has them), and makes, limits, measures and
 * removes one group per worker below `<our own group>/bulkhead.<scope>/`.
 *
 * Supervisor only. Never moves a process that it did not create, never mounts or unmounts, never touches a group
 * outside `bulkhead.<scope>` but for switching controllers on (additive) in a v2 group above it. */
#ifndef BULKHEAD_ISOLATE_CGROUP_H
#define BULKHEAD_ISOLATE_CGROUP_H

#include "base/cleanup.h"
#include "base/error.h"
#include "base/limits.h"
#include "isolate/isolate.h"
#include "isolate/isolate_cpus.h"

#include <limits.h>

enum cgroup_controller {
    CGROUP_MEMORY = 0,
    CGROUP_CPU,
    CGROUP_PIDS,
    CGROUP_CPUACCT, /* v1 only, measures; v2 has it in cpu */
    CGROUP_CPUSET,  /* which processors; a host without it has the limits all the same */
    CGROUP_IO,      /* v1: blkio, where it knows weights; likewise */
    CGROUP_CONTROLLER_COUNT
};
#define CGROUP_LIMITS ((1u << CGROUP_MEMORY) | (1u << CGROUP_CPU) | (1u << CGROUP_PIDS))

/* Used where they are there. */
#define CGROUP_WELCOME ((1u << CGROUP_CPUSET) | (1u << CGROUP_IO))

#define CGROUP_HOMES_MAX 16u /* Linux has 14 v1 controllers */

#define CGROUP_CPU_PERIOD_US 100000u

/* One hierarchy that we use. */
struct cgroup_home {
    int version;          /* 1 or 2 */
    unsigned controllers; /* bits of enum cgroup_controller that live here */
    bool other;           /* only swept, see cgroup_tree_add_others */
    int parent_fd;        /* folder that holds bulkhead.<scope> */
    int base_fd;          /* bulkhead.<scope> itself */
    char path[PATH_MAX];  /* of the parent, for people */
};

struct cgroup_tree {
    /* read-only */
    struct cgroup_home homes[CGROUP_HOMES_MAX];
    size_t n_homes;
    unsigned controllers; /* all that can be used */
    char missing[256];    /* in words, "" when memory, cpu and pids can all be limited */
    char base[80];        /* "bulkhead.<scope>" */
    /* private */
    char _lingering[16][LIMIT_NAME_BYTES + 1]; /* groups that were busy when they were removed */
};

/* Where the host describes its hierarchies; tests give their own. */
struct cgroup_source {
    const char *mountinfo; /* path of a file in the form of /proc/self/mountinfo */
    const char *self;      /* likewise /proc/self/cgroup */
};
extern const struct cgroup_source cgroup_source_host;

/* One worker's group; it exists in each home of `homes`. */
struct cgroup_group {
    char name[LIMIT_NAME_BYTES + 1]; /* "" = there is none */
    unsigned homes;                  /* bits */
};

/* What a child needs to enter its group; the parent closes it with cgroup_join_done after the clone. */
struct cgroup_join {
    int fds[CGROUP_HOMES_MAX]; /* the child writes "0" into each */
    size_t n_fds;
    int into_fd;       /* v2: folder for CLONE_INTO_CGROUP, or -1 */
    int into_procs_fd; /* v2: where the child writes "0" when the kernel does not know CLONE_INTO_CGROUP, or -1 */
};
#define CGROUP_JOIN_NONE ((struct cgroup_join){.into_fd = -1, .into_procs_fd = -1})

/* Finds what there is and makes `bulkhead.<scope>` in each hierarchy. A host that lacks controllers is no failure: see
 * `controllers` and `missing`. Fails only for a scope that is no name. The tree is closed with cgroup_tree_close. */
must_check int cgroup_tree_open(struct cgroup_tree *t, const struct cgroup_source *source, const char *scope,
                                struct error *err);
/* Adds the hierarchies that we do not use ourselves, but in which an OCI runtime makes a group of the same name for
 * each worker: sweeping and removing then finds those too. What cannot be opened is left out. */
void cgroup_tree_add_others(struct cgroup_tree *t, const struct cgroup_source *source);
/* Kills and removes every group below bulkhead.<scope>. Waits at most `wait_ms` for groups to become empty. True when
 * none is left. */
bool cgroup_tree_sweep(struct cgroup_tree *t, unsigned wait_ms);
/* Sweeps, removes bulkhead.<scope> and closes. Accepts a zeroed or closed tree. */
void cgroup_tree_close(struct cgroup_tree *t);

/* In words: version, controllers, and what is missing for limits ("v1: memory, cpu, pids"). Looks only; true when
 * memory, cpu and pids are all there; io is named too (whether they may be used, is for a probe to say). Reading the
 * mounts is all it needs: any process, any user. */
bool cgroup_describe(const struct cgroup_source *source, char *text, size_t capacity);

/* A fresh group; a leftover of that name is killed and removed first. */
must_check int cgroup_group_new(struct cgroup_tree *t, const char *name, struct cgroup_group *ret_group,
                                struct error *err);
/* Sets memory, cpu and pids, and weighs disk io as the processors where the host can. With `required` the first failure
 * is returned; without it the rest is still set and the failure is returned at the end. */
must_check int cgroup_group_limit(const struct cgroup_tree *t, const struct cgroup_group *g,
                                  const struct isolate_limits *limits, bool required, struct error *err);
must_check int cgroup_group_join(const struct cgroup_tree *t, const struct cgroup_group *g,
                                 struct cgroup_join *ret_join, struct error *err);
void cgroup_join_done(struct cgroup_join *join);
/* Its processes run on these processors from now on and can go to no others; not empty. Reads back what the kernel has
 * made of it: -ERROR_ISOLATION_UNAVAILABLE for a set that is not had exactly, such as one with a processor that is
 * switched off, and where there is no controller for it. */
must_check int cgroup_group_cpus(const struct cgroup_tree *t, const struct cgroup_group *g,
                                 const struct isolate_cpus *cpus, struct error *err);
/* cpu_milli of the limits as a quota per CGROUP_CPU_PERIOD_US. */
uint64_t cgroup_cpu_quota_us(const struct isolate_limits *limits);
/* True when the process is in the group, in each hierarchy that has it. */
bool cgroup_group_holds(const struct cgroup_tree *t, const struct cgroup_group *g, pid_t pid);
/* Overwrites the figures that the group knows. */
void cgroup_group_usage(const struct cgroup_tree *t, const struct cgroup_group *g, struct isolate_usage *usage);
/* SIGKILL to everything in it. */
void cgroup_group_kill(const struct cgroup_tree *t, const struct cgroup_group *g);
/* Removes it; a group that stays busy for some ms is remembered and removed by a later call. The group is "" then. */
void cgroup_group_remove(struct cgroup_tree *t, struct cgroup_group *g);

/* v1: a new cpuset has no processors and no memory nodes, and takes no process: it gets those of the folder that holds
 * it. group: NULL: bulkhead.<scope> itself. 0 or -errno; nothing to do in any other home. */
int cgroup_cpus_inherit(const struct cgroup_home *h, const char *group);

/* For the files of this family only. `group` is a group's name; results are 0 (or a count) or -errno. Reading gives
 * NUL-terminated text, cut to capacity. */
#define for_each_home(t, g, h)                \
    for (size_t h = 0; h < (t)->n_homes; h++) \
        if ((g)->homes & (1u << h))
int cgroup_file_open(const struct cgroup_home *h, const char *group, const char *file, int flags);
int cgroup_file_write(const struct cgroup_home *h, const char *group, const char *file, const char *text);
int cgroup_file_read(const struct cgroup_home *h, const char *group, const char *file, char *text, size_t capacity);

#endif
