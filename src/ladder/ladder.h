/* The ladder of isolation in words: what each level contains, on this host, and why.
 *
 * Pure tables, for every process; nothing here tests or changes anything. What a replica's wall really consists of is
 * told by whoever looked at it (LADDER_… bits below); a row of the table says what follows from that. */
#ifndef BULKHEAD_LADDER_LADDER_H
#define BULKHEAD_LADDER_LADDER_H

#include "base/str.h"

#include <stdint.h>

/* The ranks of enum isolate_level; a test compares the two. */
enum ladder_level {
    LADDER_NONE = 0,
    LADDER_SHARED,
    LADDER_POOL,
    LADDER_PROCESS,
    LADDER_CONTAINER,
    LADDER_MICROVM,
    LADDER_LEVEL_COUNT
};
extern const char *const ladder_level_names[LADDER_LEVEL_COUNT];
/* LADDER_NONE when unknown. */
enum ladder_level ladder_level_from_name(struct str name);

/* What a wall may consist of; seen from outside, at the running worker. */
enum ladder_part {
    LADDER_PID_NS = 1u << 0, /* namespaces other than the supervisor's */
    LADDER_NET_NS = 1u << 1,
    LADDER_IPC_NS = 1u << 2,
    LADDER_MOUNT_NS = 1u << 3,
    LADDER_USER_NS = 1u << 4,
    LADDER_UTS_NS = 1u << 5,
    LADDER_CGROUP_NS = 1u << 6,
    LADDER_ROOT = 1u << 7,         /* a root folder other than the host's */
    LADDER_LIMITS = 1u << 8,       /* memory, cpu and pids */
    LADDER_SECCOMP = 1u << 9,      /* a system call filter */
    LADDER_NO_PRIVILEGE = 1u << 10 /* own uid, no capability in the host's user namespace, no new privileges */
};
#define LADDER_PARTS 11u
/* "netNamespace"; bit: 0 … LADDER_PARTS - 1. */
extern const char *const ladder_part_names[LADDER_PARTS];
/* What a level's wall is meant to consist of, where a host can do everything. */
uint32_t ladder_parts_meant(enum ladder_level level);

enum ladder_topic {
    LADDER_FAULTS = 0,
    LADDER_MEMORY,
    LADDER_FILES,
    LADDER_NETWORK,
    LADDER_CPU_TIME,
    LADDER_TIMING, /* side channels: caches, predictors, memory bandwidth */
    LADDER_KERNEL,
    LADDER_TOPIC_COUNT
};
extern const char *const ladder_topic_names[LADDER_TOPIC_COUNT]; /* "cpuTime" */

enum ladder_verdict { LADDER_NOT_CONTAINED = 0, LADDER_LIMITED, LADDER_CONTAINED, LADDER_VERDICT_COUNT };
extern const char *const ladder_verdict_names[LADDER_VERDICT_COUNT]; /* "not contained" */

struct ladder_row {
    enum ladder_level level;
    enum ladder_topic topic;
    uint32_t needs; /* parts that must all be there for this row; 0: the last resort */
    enum ladder_verdict verdict;
    const char *by; /* what contains, or why not */
};
/* Rows of one level and topic stand together, the one that needs most first. Ends with a row whose `by` is NULL. */
extern const struct ladder_row ladder_rows[];

/* The row that holds for a wall of these parts. NULL only for a level or topic that there is not. */
const struct ladder_row *ladder_judge(enum ladder_level level, enum ladder_topic topic, uint32_t parts);

#endif
