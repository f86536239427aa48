/* A supervisor without its start: workers are forked children that do what a worker's bus asks for (actors), behind a
 * back-end that has no walls and whose calls are counted and can fail. The test plays control and gateway. */
#ifndef BULKHEAD_TEST_SUPERVISOR_FIXTURE_H
#define BULKHEAD_TEST_SUPERVISOR_FIXTURE_H

#include "supervisor/supervisor_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define WAIT_MS 15000 /* generous: reached only when something is broken */

/* What the back-end was asked, and what it answers. */
struct stage {
    unsigned spawns, limits, discards;
    struct isolate_limits first, last;        /* of the latest spawn, of the latest limit that was set */
    bool limit_fails;                         /* the next `limit` are refused */
    uint64_t usage_bytes, oom_kills;          /* what `usage` tells */
    void (*on_discard)(struct supervisor *s); /* before anything is removed */
};
extern struct stage stage;

/* How actors behave; shared with them. */
struct script {
    _Atomic bool stuck;      /* a member that is let go of does not leave */
    _Atomic bool talks;      /* a member says something when it is configured */
    _Atomic bool hangs_up;   /* a member ends its conversation when it is configured */
    _Atomic bool hosts;      /* the latest blank was told that it will host several */
    _Atomic unsigned hosted; /* conversations taken over */
    _Atomic unsigned left;   /* … and given back */
};
extern struct script *script;

/* cmocka setup and teardown: one supervisor, with two engines `one` and `two`. */
int supervisor_setup(void **state);
int supervisor_teardown(void **state);

/* A REPLICA_START as control sends it; model_uid and version_uid follow from the uid. */
struct bus_replica_start start_of(uint64_t uid, uint64_t tenant, uint32_t level);
void start(struct supervisor *s, const struct bus_replica_start *body);

/* One round of the loop, at most some ms. */
void turn(struct supervisor *s);
/* Turns until the condition holds; fails the test when it never does. */
#define until(s, condition)                                                             \
    do {                                                                                \
        for (unsigned waited = 0; !(condition); waited++) {                             \
            if (waited > WAIT_MS / 5)                                                   \
                fail_msg("%s:%d: never came true: %s", __FILE__, __LINE__, #condition); \
            turn(s);                                                                    \
        }                                                                               \
    } while (0)

/* What control was told of a replica's end, once it was: phase is 0 before. Reads what there is. */
struct bus_replica_state ended(struct supervisor *s, uint64_t uid);
/* The same for the gateway. */
struct bus_replica_state ended_for_gateway(struct supervisor *s, uint64_t uid);
/* NULL: it is gone. */
struct supervisor_replica *replica(struct supervisor *s, uint64_t uid);

#endif
