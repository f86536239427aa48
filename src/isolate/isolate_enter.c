/* The child's steps into its namespaces: names of the host, root folder, user namespace (isolate_child.c tells when).
 */
#include "isolate/isolate_enter.h"
#include "isolate/isolate_root.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define HOST_NAME "worker" /* names nothing */

/* Unshared here and not at the clone: the namespace's root is the group that its maker is in. */
int isolate_enter_names(struct isolate_launch *l)
{
    (void)l;
    if (unshare(CLONE_NEWCGROUP | CLONE_NEWUTS) != 0)
        return -1;
    return sethostname(HOST_NAME, sizeof HOST_NAME - 1) != 0 || setdomainname("", 0) != 0 ? -1 : 0;
}

/* A /proc of the child's own pid namespace, not attached yet: in a server that runs in a user namespace, the kernel
 * allows one only where another can be seen, so before the host's is out of sight. */
static int proc_open(void)
{
    _close_ int fs = fsopen("proc", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "subset", "pid", 0) != 0 ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
        return -1;
    return fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

int isolate_enter_root(struct isolate_launch *l)
{
    char options[128];
    /* For the steps and the probe that follow; closed by exec. */
    l->_proc_fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (l->_proc_fd < 0)
        return -1;
    if (l->root_fd <= 0) /* a test of other steps */
        return 0;
    _close_ int proc = l->_proc ? proc_open() : -1;
    if (l->_proc && proc < 0)
        return -1;
    /* The made one is entered, then copied: it has a dozen mounts, the host's may have thousands. */
    if (setns(l->root_fd, CLONE_NEWNS) != 0 || unshare(CLONE_NEWNS) != 0)
        return -1;
    (void)snprintf(options, sizeof options, "size=%zu,nr_inodes=%u,mode=0700,uid=%u,gid=%u", LIMIT_REPLICA_TMP_BYTES,
                   LIMIT_REPLICA_TMP_FILES, l->spawn->uid, l->spawn->gid); /* fits */
    if (mount("tmpfs", ISOLATE_ROOT_TMP, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0)
        return -1;
    return proc >= 0 ? move_mount(proc, "", AT_FDCWD, ISOLATE_ROOT_PROC, MOVE_MOUNT_F_EMPTY_PATH) : 0;
}

static int proc_write(int proc_fd, const char *path, const char *text)
{
    _close_ int fd = openat(proc_fd, path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ? -1 : 0;
}

int isolate_enter_user(struct isolate_launch *l)
{
    char map[64];
    if (unshare(CLONE_NEWUSER) != 0)
        return -1;
    /* A process that changed its ids is not dumpable, and its /proc/self is root's. Nobody else has this uid. */
    if (prctl(PR_SET_DUMPABLE, 1L, 0L, 0L, 0L) != 0)
        return -1;
    (void)snprintf(map, sizeof map, "%u %u 1", l->spawn->gid, l->spawn->gid); /* fits */
    if (proc_write(l->_proc_fd, "setgroups", "deny") != 0 || proc_write(l->_proc_fd, "gid_map", map) != 0)
        return -1;
    (void)snprintf(map, sizeof map, "%u %u 1", l->spawn->uid, l->spawn->uid); /* fits */
    if (proc_write(l->_proc_fd, "uid_map", map) != 0)
        return -1;
    if (proc_write(l->_proc_fd, "../sys/user/max_user_namespaces", "0") != 0)
        return -1;
    return prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L);
}

/* All sets; the bounding set too, which a new user namespace fills. */
int isolate_enter_powerless(struct isolate_launch *l)
{
    (void)l;
    for (int capability = 0; capability < 64; capability++) {
        if (prctl(PR_CAPBSET_DROP, (long)capability, 0L, 0L, 0L) != 0) {
            if (errno == EINVAL && capability > 0)
                break; /* past the kernel's last one */
            return -1;
        }
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capset, &header, none) != 0)
        return -1;
    if (setresuid(0, 0, 0) == 0) { /* by doing: there is no way back */
        errno = ENOTRECOVERABLE;
        return -1;
    }
    return 0;
}
