/* The system calls that the role `control` may make once it serves. A table of base/filter.h; read when the tree is
 * built and by tests. */
#ifndef BULKHEAD_CONTROL_CONTROL_FILTER_H
#define BULKHEAD_CONTROL_CONTROL_FILTER_H

#include "base/filter.h"

extern const struct filter_table control_filter_table;

#endif
