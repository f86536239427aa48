#include "isolate/isolate_follow.h"

#include "base/str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* True once the supervisor says go; false when it died. */
static bool word_wait(int fd)
{
    char byte = 0;
    ssize_t n;
    do
        n = recv(fd, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    return n == 1 && byte == ISOLATE_FOLLOW_BYTE;
}

int isolate_follow(int *argc, char ***argv)
{
    static char *nothing[1];
    const size_t prefix = sizeof ISOLATE_FOLLOW_ARGUMENT - 1;
    if (*argc < 3 || strncmp((*argv)[1], ISOLATE_FOLLOW_ARGUMENT, prefix) != 0)
        return 0;
    uint64_t number = 0;
    if (str_to_u64(str_from((*argv)[1] + prefix), &number) != 0 || number < 3 || number > INT16_MAX)
        return -1;
    _close_ int fd = (int)number;
    /* Before the word the parent is the runtime, whose normal end would fire the signal. */
    if (!word_wait(fd) || prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L) != 0)
        return -1;
    struct pollfd gone = {.fd = fd, .events = POLLIN};
    if (poll(&gone, 1, 0) != 0) /* it died between its word and the line above */
        return -1;
    environ = nothing; /* runtimes add HOME and the like */
    (void)umask(077);  /* not every runtime knows the field */
    *argc -= 2;
    *argv += 2;
    return 0;
}
