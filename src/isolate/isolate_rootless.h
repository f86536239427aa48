/* A server that a plain user starts: it becomes root of a user namespace, in which the user's subordinate ids
 * (/etc/subuid, /etc/subgid) are the users of roles and workers.
 *
 * The very first thing a process does, single-threaded, before it opens or starts anything. The ids are mapped by
 * newuidmap and newgidmap (package uidmap), set-uid programs of the system that hand out only what an administrator
 * gave this user. It gains nothing on the host: every wall that needs more is found missing by its probe. */
#ifndef BULKHEAD_ISOLATE_ROOTLESS_H
#define BULKHEAD_ISOLATE_ROOTLESS_H

#include "base/cleanup.h"
#include "base/error.h"

#include <stddef.h>

/* What Debian gives each user; a probe runs as 65534. */
#define ISOLATE_ROOTLESS_IDS_MIN 65536u

/* Afterwards the caller is root in a user and mount namespace of its own, and users and groups 1 … *ret_ids can be used
 * there. For a plain user only. Blocks for some ms. -ERROR_ISOLATION_UNAVAILABLE with what to install or to enable;
 * the process must end then: it may be half-way. */
must_check int isolate_rootless_enter(uint32_t *ret_ids, struct error *err);

/* What isolate_rootless_enter would find, in words; true when it has all that it needs. Changes nothing. */
bool isolate_rootless_describe(char *text, size_t capacity);

#endif
