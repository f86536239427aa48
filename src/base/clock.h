/* Clocks. Monotonic time in nanoseconds for all measuring and waiting; wall time only for people (logs, records).
 * Any role, any thread. Pure rooms (schedule) take time as an argument and never call this. */
#ifndef BULKHEAD_BASE_CLOCK_H
#define BULKHEAD_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/* CLOCK_MONOTONIC. */
uint64_t clock_monotonic_ns(void);
/* CLOCK_THREAD_CPUTIME_ID: what the calling thread has used. */
uint64_t clock_thread_ns(void);
/* CLOCK_PROCESS_CPUTIME_ID: what all threads of the process have used. */
uint64_t clock_process_ns(void);
/* CLOCK_REALTIME since 1970, milliseconds. */
uint64_t clock_wall_ms(void);

#define CLOCK_TEXT_BYTES 32
/* "2026-11-21T11:02:48.123Z" (RFC 3339, UTC) of a wall time. */
void clock_wall_text(uint64_t wall_ms, char text[static CLOCK_TEXT_BYTES]);

#endif
