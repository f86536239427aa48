/* The system calls that a worker may make. Tables of base/filter.h.
 *
 * Const data without a library behind it: src/filter_main.c makes the worker's programs of it, and whoever writes a
 * seccomp profile for another wall (an OCI bundle) reads the same rows. */
#ifndef BULKHEAD_ISOLATE_ISOLATE_FILTER_H
#define BULKHEAD_ISOLATE_ISOLATE_FILTER_H

#include "base/filter.h"

/* For the rest of its life, from before the engine sees the model's first byte. */
extern const struct filter_table isolate_filter_run;
/* On top of that, for whoever has one model only. What models of several tenants share (level shared) lacks it: with it
 * one of them could take all descriptors that the process may have. */
extern const struct filter_table isolate_filter_own;
/* What the engines' libraries are known to ask and can do without: refused in every worker as anything else, but not
 * counted, so that what is counted is news. */
extern const struct filter_table isolate_filter_known;
/* On top of both, for an ingest: it answers with a descriptor. */
extern const struct filter_table isolate_filter_ingest;
/* On top of all, from the worker's first act until then: the engine's library is loaded and looks at the machine. */
extern const struct filter_table isolate_filter_load;

#endif
