#include "base/cleanup.h"

#include <errno.h>

void fd_close(int *fd)
{
    if (*fd < 0)
        return;
    int saved = errno;
    (void)close(*fd); /* nothing can be done about a failing close of a descriptor that nobody will read again */
    errno = saved;
    *fd = -1;
}
