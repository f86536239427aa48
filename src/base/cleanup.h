/* Cleanup attributes for locals, and explicit moves. For every room; nothing here blocks.
 *
 *   _free_ char *s = NULL;      freed at scope end
 *   _close_ int fd = -1;        closed at scope end unless -1
 *   return take_fd(&fd);        ownership moves to the caller
 */
#ifndef BULKHEAD_BASE_CLEANUP_H
#define BULKHEAD_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define must_check __attribute__((warn_unused_result))

/* Closes *fd unless it is -1, and sets it to -1. errno is kept. */
void fd_close(int *fd);

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

#define _cleanup_(function) __attribute__((cleanup(function)))
#define _free_              _cleanup_(cleanup_free)
#define _close_             _cleanup_(fd_close)

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Moves a pointer out of *pointer and leaves NULL there. */
#define take(pointer)                               \
    ({                                              \
        __typeof__(*(pointer)) taken_ = *(pointer); \
        *(pointer) = NULL;                          \
        taken_;                                     \
    })

#endif
