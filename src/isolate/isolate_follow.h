/* A program's first step when an OCI runtime has started it: the part of a launch that the runtime cannot do.
 *
 * Every program that is run at level `container` calls this first in main, before it looks at its arguments; started
 * any other way the call does nothing. libc only. The other side is isolate_container.c: it passes one end of a socket
 * and puts "--follow=NUMBER" before the arguments. */
#ifndef BULKHEAD_ISOLATE_FOLLOW_H
#define BULKHEAD_ISOLATE_FOLLOW_H

#include "base/cleanup.h"

#define ISOLATE_FOLLOW_ARGUMENT "--follow="
#define ISOLATE_FOLLOW_BYTE     'F'

/* Waits until the supervisor has become this process's parent (the runtime ends meanwhile), asks the kernel to kill
 * this process when the supervisor dies, and empties the environment. Then the socket is closed, which tells the
 * supervisor, and *argc and *argv are as the spawn asked for.
 * 0, or -1 when the supervisor is gone or the kernel refuses: the program must exit. */
must_check int isolate_follow(int *argc, char ***argv);

#endif
