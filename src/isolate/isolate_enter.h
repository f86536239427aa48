/* Steps of a child's life that take it into its namespaces; the order and what comes between: isolate_child.c.
 *
 * Run in the child, allocate nothing; 0, or -1 with errno. */
#ifndef BULKHEAD_ISOLATE_ENTER_H
#define BULKHEAD_ISOLATE_ENTER_H

#include "isolate/isolate_internal.h"

/* Own cgroup and UTS namespaces, with a host name that names nothing. After joining the control groups. */
int isolate_enter_names(struct isolate_launch *l);
/* The root of l->root_fd, in a mount namespace of its own, with its /tmp (and /proc, where the spawn asks for it).
 * Opens l->_proc_fd first: later steps write there. */
int isolate_enter_root(struct isolate_launch *l);
/* A user namespace that maps only the replica's own uid and gid, and can have none below it. As that user. */
int isolate_enter_user(struct isolate_launch *l);
/* No capability in any set. */
int isolate_enter_powerless(struct isolate_launch *l);

#endif
