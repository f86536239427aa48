/* Files that a command names. */
#include "cli_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum cli_exit cli_read_file(const char *path, size_t max, struct buf *ret_content)
{
    buf_init(ret_content, max + 1);
    bool standard = strcmp(path, "-") == 0;
    _close_ int opened = standard ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    int fd = standard ? STDIN_FILENO : opened;
    if (fd < 0)
        return cli_complain("%s: %s", path, strerrordesc_np(errno));
    for (;;) {
        size_t room = max + 1 - ret_content->size < 64 * KIB ? max + 1 - ret_content->size : 64 * KIB;
        char *into = room > 0 ? buf_reserve(ret_content, room) : NULL;
        if (!into && ret_content->size > max)
            return cli_complain("%s: more than %zu MiB", standard ? "standard input" : path, max / MIB);
        if (!into)
            return cli_complain("out of memory");
        ssize_t n = read(fd, into, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_complain("%s: %s", standard ? "standard input" : path, strerrordesc_np(errno));
        if (n == 0)
            return CLI_DONE;
        buf_commit(ret_content, (size_t)n);
    }
}
