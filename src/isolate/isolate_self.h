/* The worker's own part of its isolation: what the spawning side cannot do because executing a program resets it.
 *
 * bulkhead-worker, first thing after the arguments are read and the engine's library is opened (see below), before it
 * looks at a tenant's byte. libc only. */
#ifndef BULKHEAD_ISOLATE_SELF_H
#define BULKHEAD_ISOLATE_SELF_H

#include "base/cleanup.h"
#include "base/error.h"

/* Makes the process not dumpable (no core, no ptrace by its own uid) and checks that no_new_privs and the parent-death
 * signal are really in place, then restricts itself by Landlock (isolate_landlock.h). -ERROR_ISOLATION_UNAVAILABLE when
 * they are not: the worker must then exit. Afterwards /proc/self/fd and the like belong to root: open libraries by
 * descriptor before this call. */
must_check int isolate_lockdown_self(struct error *err);

#endif
