/* Files: of the host, of /proc, of /sys, control groups, devices, inherited descriptors. */
#include "escape.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The secret's file begins so. */
#define SECRET "bulkhead-secret"

static enum verdict secret_read(int fd)
{
    char text[64] = "";
    if (fd < 0)
        return HELD;
    ssize_t n = read(fd, text, sizeof text - 1);
    int code = errno;
    (void)close(fd);
    errno = code;
    return n > 0 && strncmp(text, SECRET, strlen(SECRET)) == 0 ? ESCAPED : HELD;
}

static enum verdict readable(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return HELD;
    ssize_t n = read(fd, &byte, 1);
    int code = errno;
    (void)close(fd);
    errno = code;
    return n < 0 ? HELD : ESCAPED;
}

static enum verdict written(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return HELD;
    ssize_t n = write(fd, text, strlen(text));
    int code = errno;
    (void)close(fd);
    errno = code;
    return n < 0 ? HELD : ESCAPED;
}

/* Writes back what it has read: succeeds without a change. */
static enum verdict rewritten(const char *path)
{
    char text[4096] = "";
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return HELD;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n >= 0)
        n = pwrite(fd, text, (size_t)n, 0);
    int code = errno;
    (void)close(fd);
    errno = code;
    return n < 0 ? HELD : ESCAPED;
}

/* --- files --- */

static enum verdict file_absolute(const char *argument)
{
    return secret_read(open(argument, O_RDONLY | O_CLOEXEC));
}

static enum verdict file_dots(const char *argument)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "../../../../../../../../..%s", argument);
    return secret_read(open(path, O_RDONLY | O_CLOEXEC));
}

/* `argument`: "PID PATH" */
static enum verdict file_others_root(const char *argument)
{
    char path[4096];
    const char *space = strchr(argument, ' ');
    if (!space)
        return NOTHING;
    (void)snprintf(path, sizeof path, "/proc/%.*s/root%s", (int)(space - argument), argument, space + 1);
    return secret_read(open(path, O_RDONLY | O_CLOEXEC));
}

static enum verdict file_own_root(const char *argument)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "/proc/self/cwd/../../../../../../../../..%s", argument);
    return secret_read(open(path, O_RDONLY | O_CLOEXEC));
}

static enum verdict file_symlink(const char *argument)
{
    char link[64];
    (void)snprintf(link, sizeof link, "/tmp/.escape-link-%d", (int)getpid());
    if (symlink(argument, link) < 0)
        return HELD;
    enum verdict verdict = secret_read(open(link, O_RDONLY | O_CLOEXEC));
    int code = errno;
    (void)unlink(link);
    errno = code;
    return verdict;
}

static enum verdict file_hardlink(const char *argument)
{
    char link_path[4100];
    (void)snprintf(link_path, sizeof link_path, "%s-link", argument);
    if (link(argument, link_path) < 0)
        return HELD;
    (void)unlink(link_path);
    return ESCAPED;
}

/* By the file's handle instead of its name: no folder on the way is looked at. */
static enum verdict file_handle(const char *argument)
{
    union {
        struct file_handle handle;
        char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } u;
    int mount_id;
    memset(&u, 0, sizeof u);
    u.handle.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(AT_FDCWD, argument, &u.handle, &mount_id, 0) < 0)
        return HELD;
    char folder[4096];
    (void)snprintf(folder, sizeof folder, "%s", argument);
    *strrchr(folder, '/') = '\0';
    int mount_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mount_fd < 0)
        return HELD;
    int fd = open_by_handle_at(mount_fd, &u.handle, O_RDONLY | O_CLOEXEC);
    int code = errno;
    (void)close(mount_fd);
    errno = code;
    return secret_read(fd);
}

static enum verdict file_host_users(const char *argument)
{
    (void)argument;
    return readable("/etc/passwd");
}

static enum verdict file_create(const char *argument)
{
    char path[4200];
    (void)snprintf(path, sizeof path, "%s-created", argument); /* beside the secret */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return HELD;
    (void)close(fd);
    (void)unlink(path);
    return ESCAPED;
}

/* --- procfs --- */

static enum verdict proc_environment(const char *argument)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%s/environ", argument);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[8192] = "";
    if (fd < 0)
        return HELD;
    ssize_t n = read(fd, text, sizeof text - 1);
    int code = errno;
    (void)close(fd);
    errno = code;
    return n > 0 && memmem(text, (size_t)n, SECRET, strlen(SECRET)) ? ESCAPED : HELD;
}

static enum verdict proc_memory(const char *argument)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%s/mem", argument);
    return of_call(open(path, O_RDWR | O_CLOEXEC));
}

static enum verdict proc_others(const char *argument)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%s/stat", argument);
    return readable(path);
}

static enum verdict proc_fd(const char *argument)
{
    char path[64], target[256];
    (void)snprintf(path, sizeof path, "/proc/%s/fd/0", argument);
    return of_call(readlink(path, target, sizeof target));
}

static enum verdict proc_kernel_memory(const char *argument)
{
    (void)argument;
    char head[4] = "";
    int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return of_call(fd);
    ssize_t n = read(fd, head, sizeof head);
    (void)close(fd);
    errno = ENODATA; /* a runtime may have put an empty file there */
    return n == (ssize_t)sizeof head && memcmp(head, "\177ELF", sizeof head) == 0 ? ESCAPED : HELD;
}

static enum verdict proc_kernel_symbols(const char *argument)
{
    (void)argument;
    char text[4096] = "";
    int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    int code = errno;
    if (fd >= 0)
        (void)close(fd);
    errno = code;
    /* Who may not know them reads zeroes. Some of the first symbols are at 0 anyway. */
    for (const char *line = text; n > 0 && line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strtoul(line, NULL, 16) != 0)
            return ESCAPED;
    }
    return HELD;
}

static enum verdict proc_sysctl(const char *argument)
{
    (void)argument;
    return rewritten("/proc/sys/kernel/panic");
}

static enum verdict proc_sysrq(const char *argument)
{
    (void)argument;
    return written("/proc/sysrq-trigger", "h"); /* prints the help into the kernel's log */
}

static enum verdict proc_core_pattern(const char *argument)
{
    (void)argument;
    return written("/proc/sys/kernel/core_pattern", "|/tmp/escape %P");
}

static enum verdict proc_mounts(const char *argument)
{
    (void)argument;
    return readable("/proc/1/mountinfo") == ESCAPED && getpid() != 1 ? ESCAPED : HELD;
}

/* --- sysfs --- */

static enum verdict sys_read(const char *argument)
{
    (void)argument;
    return readable("/sys/kernel/mm/transparent_hugepage/enabled");
}

static enum verdict sys_write(const char *argument)
{
    (void)argument;
    return of_call(open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY | O_CLOEXEC));
}

static enum verdict sys_devices(const char *argument)
{
    (void)argument;
    DIR *folder = opendir("/sys/class/net");
    struct dirent *entry = NULL;
    if (!folder)
        return HELD;
    while ((entry = readdir(folder)) && entry->d_name[0] == '.') {
    }
    (void)closedir(folder);
    return entry ? ESCAPED : HELD;
}

/* --- control groups --- */

static enum verdict cgroup_listed(const char *argument)
{
    (void)argument;
    DIR *folder = opendir("/sys/fs/cgroup");
    struct dirent *entry = NULL;
    if (!folder)
        return HELD;
    while ((entry = readdir(folder)) && entry->d_name[0] == '.') {
    }
    (void)closedir(folder);
    return entry ? ESCAPED : HELD;
}

/* `argument`: a cgroup.procs that the test has made for this. */
static enum verdict cgroup_leave(const char *argument)
{
    return written(argument, "0");
}

/* `argument`: that group's folder. */
static enum verdict cgroup_make(const char *argument)
{
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/escape", argument);
    if (mkdir(path, 0700) < 0)
        return HELD;
    (void)rmdir(path);
    return ESCAPED;
}

static enum verdict cgroup_release_agent(const char *argument)
{
    (void)argument;
    if (mkdir("/tmp/escape-cgroup", 0700) < 0 && errno != EEXIST)
        return HELD;
    if (mount("cgroup", "/tmp/escape-cgroup", "cgroup", 0, "none,name=escape") < 0) {
        int code = errno;
        (void)rmdir("/tmp/escape-cgroup");
        errno = code;
        return HELD;
    }
    return written("/tmp/escape-cgroup/release_agent", "/tmp/escape");
}

/* --- device nodes --- */

static enum verdict device_make(const char *argument)
{
    (void)argument;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/.escape-device-%d", (int)getpid());
    if (mknod(path, S_IFCHR | 0600, makedev(1, 11)) < 0) /* the kernel's log */
        return HELD;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int code = errno;
    (void)unlink(path);
    errno = code;
    return of_call(fd);
}

static enum verdict device_log(const char *argument)
{
    (void)argument;
    return of_call(open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
}

static enum verdict device_memory(const char *argument)
{
    (void)argument;
    return of_call(open("/dev/mem", O_RDONLY | O_CLOEXEC));
}

/* `argument`: the disk that / lies on. */
static enum verdict device_disk(const char *argument)
{
    return of_call(open(argument, O_RDONLY | O_CLOEXEC));
}

static enum verdict device_terminal(const char *argument)
{
    (void)argument;
    return of_call(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
}

static enum verdict device_fuse(const char *argument)
{
    (void)argument;
    return of_call(open("/dev/fuse", O_RDWR | O_CLOEXEC));
}

/* --- descriptors that were left open --- */

/* A folder, a file of the host that can be written, or a socket that listens, among all open descriptors. The control
 * gives the folder as its standard input. */
static enum verdict fd_inherited(const char *argument)
{
    (void)argument;
    for (int fd = 0; fd < 1024; fd++) {
        struct stat info;
        int listens = 0;
        socklen_t size = sizeof listens;
        if (fstat(fd, &info) < 0)
            continue;
        (void)snprintf(escape_detail, sizeof escape_detail, "descriptor %d, mode %o", fd, info.st_mode);
        if (S_ISDIR(info.st_mode) || S_ISBLK(info.st_mode))
            return ESCAPED;
        if (S_ISSOCK(info.st_mode) && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens)
            return ESCAPED;
        if (S_ISREG(info.st_mode) && info.st_nlink > 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
            return ESCAPED; /* a file with a name that can be written */
    }
    escape_detail[0] = '\0';
    errno = 0;
    return HELD;
}

static enum verdict fd_folder(const char *argument)
{
    for (int fd = 0; fd < 1024; fd++) {
        enum verdict verdict = secret_read(openat(fd, argument + 1, O_RDONLY | O_CLOEXEC));
        if (verdict == ESCAPED)
            return verdict;
        if (fchdir(fd) == 0)
            return ESCAPED;
    }
    errno = EBADF;
    return HELD;
}

const struct escape escapes_files[] = {
    {"files.absolute", file_absolute, 0},
    {"files.dots", file_dots, 0},
    {"files.others-root", file_others_root, 0},
    {"files.own-root", file_own_root, 0},
    {"files.symlink", file_symlink, 0},
    {"files.hardlink", file_hardlink, 0},
    {"files.handle", file_handle, 0},
    {"files.host-users", file_host_users, 0},
    {"files.create", file_create, 0},
    {"procfs.environment", proc_environment, 0},
    {"procfs.memory", proc_memory, 0},
    {"procfs.others", proc_others, 0},
    {"procfs.descriptors", proc_fd, 0},
    {"procfs.kernel-memory", proc_kernel_memory, 1},
    {"procfs.kernel-symbols", proc_kernel_symbols, 0},
    {"procfs.sysctl", proc_sysctl, 0},
    {"procfs.sysrq", proc_sysrq, 1},
    {"procfs.mounts", proc_mounts, 0},
    {"core_pattern.write", proc_core_pattern, 1},
    {"sysfs.read", sys_read, 0},
    {"sysfs.write", sys_write, 0},
    {"sysfs.devices", sys_devices, 0},
    {"cgroup.listed", cgroup_listed, 0},
    {"cgroup.leave", cgroup_leave, 0},
    {"cgroup.make", cgroup_make, 0},
    {"cgroup.release-agent", cgroup_release_agent, 1},
    {"devices.make", device_make, 0},
    {"devices.log", device_log, 0},
    {"devices.memory", device_memory, 1},
    {"devices.disk", device_disk, 0},
    {"devices.terminal", device_terminal, 0},
    {"devices.fuse", device_fuse, 0},
    {"descriptors.inherited", fd_inherited, 0},
    {"descriptors.folder", fd_folder, 0},
    {0},
};
