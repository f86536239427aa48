/* The walls as seen from inside: what the probe's child looks at before it calls the level available.
 *
 * Runs in a child of the supervisor after every step of a launch, instead of a program; allocates only what listing a
 * folder takes. */
#ifndef BULKHEAD_ISOLATE_PROBE_H
#define BULKHEAD_ISOLATE_PROBE_H

#include "isolate/isolate_internal.h"

/* The user of the probe's child: "nobody". It executes nothing and lives for less than a millisecond. */
#define ISOLATE_PROBE_UID 65534

/* In the parent, before the launch: what the host's own namespaces are. */
void isolate_probe_remember(void);

/* 0 when the process has the given uid and gid, no other groups, no capability, no new privileges, a parent-death
 * signal, pid 1 of its namespace, no network interface that is up, namespaces of its own of every kind, no user but its
 * own mapped, a read-only root that holds nothing of the host, five devices, a limited /tmp, and Landlock rules that
 * hold where the kernel has them. Each is found out by looking or trying, and named when it is wrong. */
int isolate_probe_inside(const struct isolate_launch *l, struct error *err);

#endif
