/* Shared by the tests of this folder: spawn the helper, read its report, and check that nothing is left. */
#ifndef BULKHEAD_TEST_ISOLATE_SUPPORT_H
#define BULKHEAD_TEST_ISOLATE_SUPPORT_H

#include "base/cleanup.h"
#include "isolate/isolate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Generous: reached only when something is broken. More where machines boot. */
extern int test_wait_ms;

struct child {
    const struct isolate_ops *ops;
    struct isolate_instance *instance;
    int pidfd;   /* borrowed */
    int out;     /* the helper's descriptor 3, our end */
    int control; /* of a machine: the supervisor's end of its port; else 0 */
};

/* The scope of this test process, and the first of its 16 uids. */
const char *test_scope(void);
uid_t test_uid(void);

/* A valid spawn of the helper in a mode; argv is static storage, at most 10 arguments, NULL-terminated. The program
 * descriptor stays open for the life of the test program. */
struct isolate_spawn child_spawn_default(const char *mode, ...);
/* Spawns with a pipe as descriptor 3, before the spawn's own descriptors. Returns what ops->spawn returned. At a level
 * of machines the spawn gets one (none of its own descriptors goes in), which is told what to run. */
int child_spawn(struct child *c, const struct isolate_ops *ops, const struct isolate_spawn *spawn, struct error *err);
/* As child_spawn, asserting success. */
void child_start(struct child *c, const struct isolate_ops *ops, const struct isolate_spawn *spawn);
/* Reads the report until the helper closed it, or until a line "ready". Static storage. */
const char *child_report(struct child *c);
/* Its process id, as seen from here. */
pid_t child_pid(const struct child *c);
/* Waits for the end, discards, closes; returns the wait status. */
int child_end(struct child *c);
/* kill, then child_end. */
int child_kill(struct child *c);
/* True when the descriptor became readable in time. */
bool wait_readable(int fd);

/* A process that does nothing until it is killed, or this one ends. */
pid_t bystander_start(void);

/* The value of a line "key value" in a report, or NULL; static storage, valid until the next call. */
const char *report_value(const char *report, const char *key);
long report_number(const char *report, const char *key);
size_t report_count(const char *report, const char *key);

/* cmocka setup and teardown: counts descriptors; asserts that none was added, and that no child, no process of our
 * uids and no control group of our scope is left. */
int leftovers_before(void **state);
int leftovers_after(void **state);
/* Number of folders named bulkhead.<scope>* below the cgroup mounts. */
size_t leftover_groups(void);

/* Mounts that this process sees. */
size_t mounts_count(void);

/* For tests of real walls: false (with a reason printed) when there is no root and that is expected here; fails the
 * test when it is not. */
bool have_root(void);
/* True when this host has runc; false with a reason printed. */
bool container_runtime_here(void);

#endif
