/* The system calls that the supervisor may make, and those of what it starts until that has a filter of its own. Tables
 * of base/filter.h; read when the tree is built and by tests. */
#ifndef BULKHEAD_SUPERVISOR_SUPERVISOR_FILTER_H
#define BULKHEAD_SUPERVISOR_SUPERVISOR_FILTER_H

#include "base/filter.h"

extern const struct filter_table supervisor_filter_table;
/* A filter is inherited: roles and workers from clone to their own filter, OCI runtimes and QEMU all their life. */
extern const struct filter_table supervisor_filter_start;

#endif
