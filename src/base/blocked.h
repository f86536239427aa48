/* System calls that a process's filter refused, counted by number.
 *
 * Two ends. In a worker: where the program of base/filter.h says so (struct filter, `counted`), the kernel answers a
 * call that no row allows with SIGSYS instead of EPERM; the handler here makes it the same EPERM and counts. The call
 * was not made either way, and no code of the worker's can make it so: who overwrites the counts, or blocks the signal
 * (the kernel then kills the process), only deceives whoever reads them. In the gateway and control: the lists that
 * workers tell. Why a trap and not a notification to the supervisor: docs/internals/filters.md.
 *
 * Any thread may be interrupted at any place: the handler touches atomics of fixed size and the thread's registers, and
 * calls nothing. */
#ifndef BULKHEAD_BASE_BLOCKED_H
#define BULKHEAD_BASE_BLOCKED_H

#include "base/cleanup.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stdint.h>

/* Architectures whose registers the handler knows. Elsewhere a refused call is EPERM and not counted. */
#if defined(__x86_64__) || defined(__aarch64__)
#define BLOCKED_COUNTED 1
#else
#define BLOCKED_COUNTED 0
#endif

#define BLOCKED_OTHERS UINT32_MAX /* in place of a number: all calls for which a list has no place */

struct blocked_call {
    uint32_t number; /* of the system call on this architecture, or BLOCKED_OTHERS */
    uint32_t count;  /* ≥ 1; UINT32_MAX: that many or more */
};

struct blocked_list { /* all zero: empty */
    uint32_t n;
    struct blocked_call
        calls[LIMIT_BLOCKED_CALLS + 1]; /* [n] no number twice; the last place is BLOCKED_OTHERS' only */
};

/* More calls of that number; what has no place counts under BLOCKED_OTHERS. */
void blocked_add(struct blocked_list *list, uint32_t number, uint32_t count);
/* The number is now known to be `count` in all. Returns by how much it grew, 0 if it did not: counts never fall. */
uint32_t blocked_raise(struct blocked_list *list, uint32_t number, uint32_t count);
uint64_t blocked_sum(const struct blocked_list *list);

/* "io_uring_setup", "call 999" where it has no name here, "others". `text` holds BLOCKED_NAME_BYTES. Returns it. */
#define BLOCKED_NAME_BYTES 32
const char *blocked_name(uint32_t number, char text[static BLOCKED_NAME_BYTES]);

/* "io_uring_setup (3 times), bpf (1 time) and 2 more": the list for people. Returns `text`; "" for an empty list. */
#define BLOCKED_WORDS_BYTES 256
const char *blocked_words(const struct blocked_list *list, char text[static BLOCKED_WORDS_BYTES]);

/* Takes SIGSYS for this process, for good. Before the first counted filter, which does not let it be taken again. */
must_check int blocked_catch(void);
/* Moves what was counted in this process since the last time into the list: false = nothing (then one load). Of several
 * threads that ask each call goes to one. */
bool blocked_take(struct blocked_list *list);

#endif
