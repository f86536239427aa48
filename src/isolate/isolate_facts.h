/* What can be seen of a running worker from outside, in /proc: the evidence for `bulkhead explain model`.
 *
 * Supervisor only. Reads text of the kernel, never memory of the worker. What cannot be read is 0 or "". */
#ifndef BULKHEAD_ISOLATE_FACTS_H
#define BULKHEAD_ISOLATE_FACTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum isolate_namespace {
    ISOLATE_NS_CGROUP = 0,
    ISOLATE_NS_IPC,
    ISOLATE_NS_MNT,
    ISOLATE_NS_NET,
    ISOLATE_NS_PID,
    ISOLATE_NS_USER,
    ISOLATE_NS_UTS,
    ISOLATE_NS_COUNT
};
extern const char *const isolate_namespace_names[ISOLATE_NS_COUNT]; /* as in /proc/PID/ns */

struct isolate_facts {
    uint64_t namespaces[ISOLATE_NS_COUNT]; /* inode numbers */
    uint32_t own;                          /* bit per namespace that is not the caller's */
    bool own_root;                         /* its root folder is not the caller's */
    uint32_t seccomp;                      /* 0 none, 1 strict, 2 filter */
    bool no_new_privs;
    uint64_t capabilities; /* effective */
    uint32_t uid;          /* in the caller's user namespace */
    char cgroup[256];      /* of ours, "/bulkhead.…" and what is above it */
    char kernel[96];       /* of the host: "Linux 6.1.0-18-amd64" */
};

/* False when there is no such process (any more): then everything is 0. The caller knows the process by a pidfd or has
 * not reaped it, so that the number is still its. */
bool isolate_facts_read(pid_t pid, struct isolate_facts *ret_facts);

#endif
