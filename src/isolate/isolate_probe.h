/* The walls as seen from inside: what the probe's child looks at before it calls the level available.
 *
 * Runs in a child of the supervisor after every step of a launch, instead of a program; allocates nothing. */
#ifndef BULKHEAD_ISOLATE_PROBE_H
#define BULKHEAD_ISOLATE_PROBE_H

#include "isolate/isolate_internal.h"

/* The user of the probe's child: "nobody". It executes nothing and lives for less than a millisecond. */
#define ISOLATE_PROBE_UID 65534

/* 0 when the process has the given uid and gid, no other groups, no capability, no new privileges, a parent-death
 * signal, pid 1 of its namespace and no network interface that is up. */
int isolate_probe_inside(const struct isolate_launch *l, struct error *err);

#endif
