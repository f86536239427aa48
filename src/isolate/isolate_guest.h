/* What level microvm and the program that runs first in its guests (room guest) agree on. Both sides are of one build.
 */
#ifndef BULKHEAD_ISOLATE_GUEST_H
#define BULKHEAD_ISOLATE_GUEST_H

/* Paths in the guest's memory file system. */
#define ISOLATE_GUEST_INIT    "/init"
#define ISOLATE_GUEST_MODULES "/modules" /* kernel modules, loaded in the order of their names */
#define ISOLATE_GUEST_WORKER  "/bulkhead-worker"
#define ISOLATE_GUEST_RUNTIME "/usr/bin/crun" /* where the worker runs in a container there */
#define ISOLATE_GUEST_LIBRARY "/engine.so"    /* the engine's shared library; absent where it has none */

/* Names of the serial ports. */
#define ISOLATE_GUEST_PORT_CONTROL "bulkhead.control" /* bus/port.h; the guest only reads */
#define ISOLATE_GUEST_PORT_CHANNEL "bulkhead.channel" /* the channel's stream */

/* On the kernel's command line: end with ISOLATE_GUEST_PROBED as soon as modules and ports are there. */
#define ISOLATE_GUEST_PROBE_OPTION "bulkhead.probe"

/* How a guest ends: it writes one byte to this I/O port, and the machine monitor exits with 2 × value + 1. What a
 * hostile guest says this way is about itself only. */
#define ISOLATE_GUEST_EXIT_PORT 0xF4
enum isolate_guest_end {
    ISOLATE_GUEST_ENDED = 1,     /* the worker ended by itself */
    ISOLATE_GUEST_KILLED,        /* the worker was ended by a signal */
    ISOLATE_GUEST_OUT_OF_MEMORY, /* … for exceeding its memory limit */
    ISOLATE_GUEST_BAD_MODEL,     /* the disk does not hold the model that was announced */
    ISOLATE_GUEST_NO_WALL,       /* the worker could not be started behind its wall */
    ISOLATE_GUEST_BROKEN,        /* modules, ports, or a message that makes no sense */
    ISOLATE_GUEST_PROBED,
    ISOLATE_GUEST_END_COUNT
};

#endif
