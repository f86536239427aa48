#include "isolate/isolate_image.h"

#include "image/image_root.h"
#include "isolate/isolate_internal.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { FD_FOLDER = 3, FD_IMAGE }; /* in the child */

struct unpack {
    struct isolate_launch launch; /* first: `run` gets its address */
    const struct rootfs_parts *parts;
};

/* The order is the wall: the folder becomes the root while that is allowed, then nothing is. */
static int cage_enter(const struct rootfs_parts *parts)
{
    const struct rlimit file = {LIMIT_IMAGE_BYTES, LIMIT_IMAGE_BYTES}, none = {0, 0};
    if (fchdir(FD_FOLDER) != 0 || chroot(".") != 0 || setrlimit(RLIMIT_FSIZE, &file) != 0 ||
        setrlimit(RLIMIT_NPROC, &none) != 0 || setgroups(0, NULL) != 0 ||
        setresgid(parts->gid, parts->gid, parts->gid) != 0 || setresuid(parts->uid, parts->uid, parts->uid) != 0)
        return -1;
    return prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L); /* cleared with the user */
}

static int unpack_run(const struct isolate_launch *launch, struct error *err)
{
    const struct rootfs_parts *parts = ((const struct unpack *)launch)->parts;
    uint64_t bytes = parts->image->bytes;
    void *image = mmap(NULL, bytes, PROT_READ, MAP_SHARED, FD_IMAGE, 0);
    if (image == MAP_FAILED || cage_enter(parts) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The image could not be unpacked: %m.");
    struct error why = {0};
    int r = image_root_unpack((struct str){image, bytes}, FD_FOLDER, &why);
    return r < 0 ? error_set(err, r == -ERROR_REFUSED ? ERROR_REFUSED : ERROR_ISOLATION_UNAVAILABLE,
                             "The image could not be unpacked: %.400s.", error_text(&why, r))
                 : 0;
}

int rootfs_image_unpack(int folder_fd, const struct rootfs_parts *parts, struct error *err)
{
    static const char *const argv[] = {"unpack", NULL};
    const int fds[] = {folder_fd, parts->image->fd};
    const struct isolate_spawn spawn = {
        .name = "unpack", .program_fd = -1, .argv = argv, .fds = fds, .n_fds = 2, .stderr_fd = -1};
    struct unpack u = {.launch = {.spawn = &spawn, .join = CGROUP_JOIN_NONE, .run = unpack_run}, .parts = parts};
    pid_t pid;
    int pidfd = -1, status;
    if (parts->uid == 0 || parts->gid == 0 || fchown(folder_fd, parts->uid, parts->gid) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The image's folder could not be prepared: %m.");
    int r = isolate_launch(&u.launch, &pid, &pidfd, err);
    if (r < 0)
        return r;
    (void)isolate_wait(pidfd, true, &status); /* it has said all it had to: it is on its way out */
    fd_close(&pidfd);
    return status == 0 ? 0 : error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The image could not be unpacked.");
}
