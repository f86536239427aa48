/* The first program in a virtual machine of level microvm (`bulkhead-guest`, as /init).
 *
 * It brings the machine up (mounts, modules, ports), copies the model from the read-only disk into memory while it
 * checks its digest, starts the worker behind the wall of level `process` (so limits and walls hold inside the guest
 * too) or, where a model asks for an OCI runtime, of level `container`, and then is to this worker what the supervisor
 * is elsewhere: it hands it each new channel. It reads its port from the supervisor, and nothing that the worker says.
 * One thread; ends by ending the machine. */
#ifndef BULKHEAD_GUEST_GUEST_H
#define BULKHEAD_GUEST_GUEST_H

#include "isolate/isolate.h"

/* `wall`: what the worker is started behind in here: level process, or container. Never returns; must be process 1. */
_Noreturn void guest_run(const struct isolate_ops *wall);

#endif
