/* The back-end without walls: for tests of the supervisor and of this interface, as any user on any host.
 *
 * It really forks and executes the program and hands the descriptors over, so it is no sandbox and must never serve:
 * isolate_find does not know it. Counts calls, and fails when told to. Single-threaded, like every back-end. */
#ifndef BULKHEAD_ISOLATE_FAKE_H
#define BULKHEAD_ISOLATE_FAKE_H

#include "isolate/isolate.h"

struct isolate_fake_calls {
    unsigned probes, setups, teardowns, spawns, limits, usages, kills, explains, discards; /* failed ones included */
    unsigned live; /* instances spawned and not discarded */
};

/* Forgets counts and planned failures; there must be no live instance. */
void isolate_fake_reset(void);
struct isolate_fake_calls isolate_fake_count(void);
/* The nth spawn from now (1 = the next) fails with -code, once. nth 0 takes the plan back. */
void isolate_fake_fail_spawn(unsigned nth, int code);
/* What probe reports from now on, e.g. unavailable. NULL: available, with limits. */
void isolate_fake_report(const struct isolate_report *report);

#endif
