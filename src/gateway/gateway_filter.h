/* The system calls that the role `gateway` may make once it serves. A table of base/filter.h; read when the tree is
 * built and by tests. */
#ifndef BULKHEAD_GATEWAY_GATEWAY_FILTER_H
#define BULKHEAD_GATEWAY_GATEWAY_FILTER_H

#include "base/filter.h"

extern const struct filter_table gateway_filter_table;

#endif
