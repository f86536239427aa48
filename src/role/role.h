/* Role records: how a long-lived process of the server is started and how it gives up what it does not need.
 *
 * The supervisor spawns control and gateway from its own program (by descriptor, so that the folder it lies in need not
 * be readable by their uids). Every role has the same visible order: load (its config comes as the first bus message) →
 * isolate (root folder) → drop (uid, privileges) → connect → filter (system calls, base/filter.h) → loop. */
#ifndef BULKHEAD_ROLE_ROLE_H
#define BULKHEAD_ROLE_ROLE_H

#include "base/cleanup.h"
#include "base/error.h"

#include <sys/types.h>

#define ROLE_BUS_FD 3 /* where a role finds its conversation with the supervisor */

struct role {
    const char *name;       /* argv[2] of `bulkhead role NAME`, and `role` in its log lines */
    unsigned bus;           /* enum bus_role */
    uint32_t uid_offset;    /* its uid = spec.uids.base + this */
    uint64_t fds_max;       /* RLIMIT_NOFILE, or less where the host allows less */
    int (*run)(int bus_fd); /* the process: returns its exit status */
};

/* NULL-terminated table; defined by main.c, which alone knows all roles. */
extern const struct role *const role_table[];
const struct role *role_find(const char *name); /* NULL when unknown */

/* First uid offset that replicas use; below it are the roles. */
#define ROLE_UID_OFFSET_REPLICAS 16u

/* Supervisor: starts `program_fd role NAME` with bus_fd as descriptor 3 and nothing else but stderr; stdin and stdout
 * are /dev/null. The child dies with the calling thread. ret_pidfd is CLOEXEC and owned by the caller. */
must_check int role_spawn(const struct role *role, int program_fd, int bus_fd, pid_t *ret_pid, int *ret_pidfd,
                          struct error *err);

/* RLIMIT_DATA of this process, before role_drop; 0 = none. Not in sanitized builds, whose shadow memory is data too. */
must_check int role_data_limit(uint64_t bytes, struct error *err);

/* In the role, as root: change the root folder to `root_dir` (closed here), take uid and gid, no groups, no new
 * privileges, no core, not dumpable, death with the parent (set after the uid change, which clears it), at most fds_max
 * descriptors. On failure the process must exit. */
must_check int role_drop(const struct role *role, int root_dir, uid_t uid, gid_t gid, struct error *err);

/* Every role: a peer that closes its socket is an error code, not a signal. */
void role_ignore_sigpipe(void);

/* Reaps a child that has ended: exit status text such as "exit 1" or "signal 9 (Killed)". 1 = reaped, 0 = still runs.
 */
int role_reap(pid_t pid, char text[static 64]);

#endif
