/* Sets of processors, numbered as the kernel does.
 *
 * Supervisor, and its children before they run their program. Sets of at most LIMIT_CPUS; what a host has beyond is
 * left alone. Only the last three functions ask the kernel. */
#ifndef BULKHEAD_ISOLATE_CPUS_H
#define BULKHEAD_ISOLATE_CPUS_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#include <sys/types.h>

#define ISOLATE_CPUS_TEXT 4096u /* the longest list of LIMIT_CPUS numbers takes less */

struct isolate_cpus {
    uint64_t words[LIMIT_CPUS / 64]; /* all zero: the empty set */
};

/* cpu < LIMIT_CPUS for both. */
void isolate_cpus_add(struct isolate_cpus *set, uint32_t cpu);
bool isolate_cpus_has(const struct isolate_cpus *set, uint32_t cpu);
uint32_t isolate_cpus_count(const struct isolate_cpus *set);
/* Is each of `set` in `all`? */
bool isolate_cpus_within(const struct isolate_cpus *set, const struct isolate_cpus *all);
void isolate_cpus_unite(struct isolate_cpus *set, const struct isolate_cpus *more);
void isolate_cpus_subtract(struct isolate_cpus *set, const struct isolate_cpus *less);
void isolate_cpus_keep(struct isolate_cpus *set, const struct isolate_cpus *only);

/* "0-3,7", as the kernel writes lists; blanks and a line's end around it are allowed. -ERROR_INVALID_ARGUMENT. */
must_check int isolate_cpus_parse(struct str text, struct isolate_cpus *ret_set);
/* The same form; cut to the capacity. */
void isolate_cpus_text(const struct isolate_cpus *set, char *text, size_t capacity);

/* Those that a process (0: the caller's thread) may use by now. -ERROR_NOT_FOUND: it is gone. */
must_check int isolate_cpus_of(pid_t pid, struct isolate_cpus *ret_set);
/* All threads of a process stay on these from now on, and what they start; a child may undo that. Best effort: false
 * when it did not work for one of them. */
bool isolate_cpus_bind(pid_t pid, const struct isolate_cpus *set);
/* The processors that share a core with this one, itself included: hardware threads. Just itself where the host does
 * not tell. */
void isolate_cpus_core(uint32_t cpu, struct isolate_cpus *ret_set);

#endif
