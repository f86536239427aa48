/* A closed loop of load for `bulkhead bench`: keep-alive HTTP/1.1 connections to a port of this host, each with one
 * request in flight, the next one sent as soon as the answer is there.
 *
 * Lives in the CLI process: one thread, blocks until the run is over, allocates the connections and nothing else.
 * Several groups run side by side (a victim and its neighbour). llhttp parses the answers; only their status is looked
 * at. It shares the machine with what it measures. */
#ifndef BULKHEAD_WIRE_LOAD_H
#define BULKHEAD_WIRE_LOAD_H

#include "base/error.h"
#include "base/str.h"

#include <signal.h>

#define WIRE_LOAD_CONNECTIONS_MAX 256u /* of all groups together */
#define WIRE_LOAD_GROUPS_MAX      4u

struct wire_load_group {
    struct str request; /* a whole request, head and body; at most 16 KiB */
    uint32_t n_connections;
    /* After the warm-up: nanoseconds from sending a request (the first of a connection: from connecting) to the end of
     * its answer with status 200, in the order of the answers; what does not fit is counted only. The caller's. */
    uint64_t *samples_ns;
    size_t samples_max;
    /* --- filled by the run --- */
    size_t n_samples;
    uint64_t n_answers, n_failed; /* with status 200; with another status, or a connection that ended early */
    int first_status;             /* of the first failed answer; 0: a connection ended, or nothing failed */
};

struct wire_load {
    uint16_t port; /* on 127.0.0.1 */
    uint64_t warm_ns, run_ns;
    uint64_t answers_max;              /* the run also ends when its first group has so many samples; 0: no such end */
    uint64_t silence_ns_max;           /* no answer at all for so long: -ERROR_REQUEST_TIMEOUT */
    const volatile sig_atomic_t *stop; /* set by a signal: -ERROR_CANCELLED */
    struct wire_load_group *groups;
    uint32_t n_groups; /* 1 … WIRE_LOAD_GROUPS_MAX */
    uint64_t ns;       /* filled: how long was counted */
};

/* Other failures: -ERROR_GONE (nobody listens), -ERROR_PEER (not HTTP), -ERROR_NO_MEMORY, -ERROR_IO. On failure what
 * was filled is undefined. */
must_check int wire_load_run(struct wire_load *load, struct error *err);

#endif
