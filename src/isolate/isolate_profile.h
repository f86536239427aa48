/* The seccomp profile of a bundle (runtime-spec, linux.seccomp), made of the worker's own tables (isolate_filter.h).
 *
 * Supervisor only; pure. It allows what the worker may call at any time of its life, and what the runtime and the
 * loader call between the profile's start and the worker's first act, which is to install its own, narrower filter.
 * So the profile is what still holds should that act be skipped. */
#ifndef BULKHEAD_ISOLATE_PROFILE_H
#define BULKHEAD_ISOLATE_PROFILE_H

#include "base/filter.h"

#include <stdbool.h>
#include <yyjson.h>

/* What is called on top before the worker's own filter stands. */
extern const struct filter_table isolate_filter_start;

/* Adds "seccomp" to the object; false when memory ran out. */
bool profile_add(yyjson_mut_doc *doc, yyjson_mut_val *linux_part);

#endif
