/* Attempts to get out of a worker's walls, one function each.
 *
 * The same table runs in two places: behind the walls, called by a hostile engine inside bulkhead-worker
 * (engine_escape.c), and outside them, as root, by the program `escape` (the positive control: an attempt that does not
 * succeed there proves nothing inside). libc only. */
#ifndef BULKHEAD_TEST_ESCAPE_H
#define BULKHEAD_TEST_ESCAPE_H

#include <errno.h>
#include <stddef.h>

enum verdict {
    HELD = 0, /* the wall held; errno says how */
    ESCAPED,
    NOTHING, /* there was nothing to try: no verdict, which a test counts as a failure */
};

struct escape {
    const char *name; /* group.what */
    /* `argument` is what the test names: a file, a process, a port; "" where none is needed. May leave a word in
     * escape_detail. Must not block for more than some seconds, and must not harm a host on which it succeeds, unless
     * `machine`. */
    enum verdict (*run)(const char *argument);
    /* Success changes the kernel for everybody, or needs what not every kernel has: the control runs in a throw-away
     * virtual machine. */
    int machine;
};

extern char escape_detail[256];

extern const struct escape escapes_files[], escapes_kernel[], escapes_process[], escapes_network[]; /* end: no name */

/* Writes "escaped", "held" or "nothing", the errno's name and the detail. 0, or -1 when there is no such attempt. */
int escape_run(const char *name, const char *argument, char *text, size_t size);

/* The usual verdict on a system call's result; a descriptor it gave stays open until the process ends. */
static inline enum verdict of_call(long result)
{
    return result < 0 ? HELD : ESCAPED;
}

/* What a hostile model does to its neighbours: does not return, or returns after some harm. 0 = no such deed. */
int neighbour_run(const char *name);

#endif
