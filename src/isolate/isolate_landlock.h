/* Landlock: what the process itself gives up of the file system, of TCP and of signalling, for good.
 *
 * bulkhead-worker (through isolate_lockdown_self) and the probe's child. libc only, no allocation. The second lock on
 * doors that the mount and network namespaces close already: a mistake in one leaves the other. */
#ifndef BULKHEAD_ISOLATE_LANDLOCK_H
#define BULKHEAD_ISOLATE_LANDLOCK_H

#include "base/cleanup.h"
#include "base/error.h"

/* The kernel's ABI version; 0: this kernel has none, or it is switched off. */
int isolate_landlock_version(void);

/* From here on: files can be read, the devices and /tmp written, nothing executed, no folder, socket or node made,
 * no TCP port bound or connected, no process outside signalled, no abstract socket outside reached (the last three as
 * far as the version goes: 4 and 6). Descriptors that are open stay as they are. Needs no_new_privs. 0 when the kernel
 * has no Landlock: the level's report says so. */
must_check int isolate_landlock_apply(struct error *err);

#endif
