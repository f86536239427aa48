#include "isolate/isolate_probe.h"

#include "base/filter.h"
#include "isolate/isolate_landlock.h"
#include "isolate/isolate_root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#define NET_DEV_BYTES_MAX 16384

static const char *uid_wrong(const struct isolate_launch *l)
{
    uid_t uids[3];
    gid_t gids[3];
    if (getresuid(&uids[0], &uids[1], &uids[2]) != 0 || getresgid(&gids[0], &gids[1], &gids[2]) != 0)
        return "its user cannot be read";
    for (size_t i = 0; i < 3; i++) {
        if (uids[i] != l->spawn->uid || gids[i] != l->spawn->gid)
            return "it does not run as its own user and group";
    }
    return getgroups(0, NULL) != 0 ? "it kept supplementary groups" : NULL;
}

static const char *privilege_wrong(const struct isolate_launch *l)
{
    (void)l;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0)
        return "its capabilities cannot be read";
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (data[i].effective | data[i].permitted | data[i].inheritable)
            return "it kept capabilities";
    }
    if (prctl(PR_CAPBSET_READ, 0L, 0L, 0L, 0L) != 0)
        return "it kept its capability bounding set";
    return prctl(PR_GET_NO_NEW_PRIVS, 0L, 0L, 0L, 0L) != 1 ? "it may gain new privileges" : NULL;
}

static const char *parent_wrong(const struct isolate_launch *l)
{
    (void)l;
    int death_signal = 0;
    if (prctl(PR_GET_PDEATHSIG, &death_signal, 0L, 0L, 0L) != 0 || death_signal != SIGKILL)
        return "it would outlive the server";
    return getpid() != 1 ? "it sees other processes" : NULL;
}

/* Interfaces that are down may exist (loopback always does, tunnels on some hosts); one that is up may not. */
static const char *network_wrong(const struct isolate_launch *l)
{
    char text[NET_DEV_BYTES_MAX];
    _close_ int dev = openat(l->_proc_fd, "net/dev", O_RDONLY | O_CLOEXEC);
    _close_ int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (dev < 0 || sock < 0)
        return "its network cannot be read";
    size_t size = 0;
    for (ssize_t n; size < sizeof text && (n = read(dev, text + size, sizeof text - size)) > 0;)
        size += (size_t)n;
    if (size == 0 || size == sizeof text)
        return "its network cannot be read";
    for (struct str rest = {text, size}; rest.size > 0;) {
        const char *end = memchr(rest.data, '\n', rest.size);
        struct str line = {rest.data, end ? (size_t)(end - rest.data) : rest.size};
        rest = str_skip(rest, line.size + (end ? 1 : 0));
        size_t colon = 0;
        while (colon < line.size && line.data[colon] != ':')
            colon++;
        if (colon == line.size) /* the two lines of the table's head */
            continue;
        struct ifreq request = {0};
        struct str name = str_trim((struct str){line.data, colon});
        if (str_copy(name, request.ifr_name, sizeof request.ifr_name) != 0 || ioctl(sock, SIOCGIFFLAGS, &request) != 0)
            return "a network interface cannot be read";
        if (request.ifr_flags & IFF_UP)
            return "it has a network interface that is up";
    }
    return NULL;
}

/* ---- namespaces ---- */

static struct {
    const char *file, *wrong;
    ino_t outside; /* 0: this kernel has no such namespace */
} namespaces[] = {
    {"ns/user", "it shares the host's user namespace", 0},     {"ns/mnt", "it shares the host's mount namespace", 0},
    {"ns/pid", "it shares the host's pid namespace", 0},       {"ns/net", "it shares the host's network namespace", 0},
    {"ns/ipc", "it shares the host's ipc namespace", 0},       {"ns/uts", "it shares the host's uts namespace", 0},
    {"ns/cgroup", "it shares the host's cgroup namespace", 0},
};

void isolate_probe_remember(void)
{
    char path[64];
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        struct stat s;
        (void)snprintf(path, sizeof path, "/proc/self/%s", namespaces[i].file); /* fits */
        namespaces[i].outside = stat(path, &s) == 0 ? s.st_ino : 0;
    }
}

static const char *namespaces_wrong(const struct isolate_launch *l)
{
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        struct stat s;
        if (namespaces[i].outside == 0 || fstatat(l->_proc_fd, namespaces[i].file, &s, 0) != 0 ||
            s.st_ino == namespaces[i].outside)
            return namespaces[i].wrong;
    }
    struct utsname names;
    if (uname(&names) != 0 || strcmp(names.nodename, "worker") != 0)
        return "it knows the host's name";
    return NULL;
}

static size_t proc_read(const struct isolate_launch *l, const char *path, char *text, size_t capacity)
{
    _close_ int fd = openat(l->_proc_fd, path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    for (ssize_t n; fd >= 0 && size < capacity - 1 && (n = read(fd, text + size, capacity - 1 - size)) > 0;)
        size += (size_t)n;
    text[size] = '\0';
    return size;
}

/* Cuts the next word off the front; empty at the end. */
static struct str word_next(struct str *rest)
{
    size_t begin = 0;
    while (begin < rest->size && strchr(" \t\n", rest->data[begin]))
        begin++;
    size_t end = begin;
    while (end < rest->size && !strchr(" \t\n", rest->data[end]))
        end++;
    struct str word = {rest->data + begin, end - begin};
    *rest = str_skip(*rest, end);
    return word;
}

/* "inside outside count", exactly one line, and that of the replica alone. */
static bool map_is(const struct isolate_launch *l, const char *file, unsigned id)
{
    char text[256], wanted[16];
    struct str rest = {text, proc_read(l, file, text, sizeof text)};
    (void)snprintf(wanted, sizeof wanted, "%u", id); /* fits */
    struct str inside = word_next(&rest), outside = word_next(&rest), count = word_next(&rest);
    return str_equal(inside, str_from(wanted)) && str_equal(outside, str_from(wanted)) && str_equal(count, STR("1")) &&
           word_next(&rest).size == 0;
}

static const char *user_wrong(const struct isolate_launch *l)
{
    char text[64];
    if (!map_is(l, "uid_map", l->spawn->uid) || !map_is(l, "gid_map", l->spawn->gid))
        return "its user namespace maps more than its own user and group";
    if (proc_read(l, "setgroups", text, sizeof text) == 0 || strcmp(text, "deny\n") != 0)
        return "it may change its groups";
    return unshare(CLONE_NEWUSER) == 0 ? "it could make another user namespace" : NULL;
}

/* ---- root folder ---- */

static bool among(struct str name, const char *const list[])
{
    for (size_t i = 0; list[i]; i++) {
        if (str_equal(name, str_from(list[i])))
            return true;
    }
    return false;
}

/* NULL-terminated `allowed`; true when the folder cannot be read or holds anything else. */
static bool folder_strange(const char *path, const char *const allowed[])
{
    DIR *dir = opendir(path);
    if (!dir)
        return true;
    bool strange = false;
    for (struct dirent *entry; (entry = readdir(dir));)
        strange |= strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                   !among(str_from(entry->d_name), allowed);
    (void)closedir(dir); /* read-only */
    return strange;
}

static bool has(struct str options, const char *option)
{
    return memmem(options.data, options.size, option, strlen(option)) != NULL;
}

static bool mount_strange(const struct isolate_launch *l, struct str point, struct str options)
{
    static const char *const points[] = {"/",         "/dev",        "/dev/null",    "/dev/zero",
                                         "/dev/full", "/dev/random", "/dev/urandom", NULL};
    if (str_equal(point, STR(ISOLATE_ROOT_TMP)))
        return !has(options, "noexec") || !has(options, "nosuid") || !has(options, "nodev");
    if (!among(point, points) && !(l->_proc && str_equal(point, STR(ISOLATE_ROOT_PROC))))
        return true;
    return !str_starts(options, STR("ro,")) || !has(options, "nosuid");
}

/* proc(5): id parent major:minor root point options … */
static const char *mounts_wrong(const struct isolate_launch *l)
{
    char text[16384];
    struct str rest = {text, proc_read(l, "mountinfo", text, sizeof text)};
    if (rest.size == 0 || rest.size == sizeof text - 1)
        return "its mounts cannot be read";
    while (rest.size > 0) {
        const char *end = memchr(rest.data, '\n', rest.size);
        struct str line = {rest.data, end ? (size_t)(end - rest.data) : rest.size};
        rest = str_skip(rest, line.size + (end ? 1 : 0));
        for (int skip = 0; skip < 4; skip++)
            (void)word_next(&line);
        struct str point = word_next(&line), options = word_next(&line);
        if (mount_strange(l, point, options))
            return "it has a mount of the host, or one that can be written";
    }
    return NULL;
}

static const char *root_wrong(const struct isolate_launch *l)
{
    static const char *const top[] = {"dev", "proc", "sys", "tmp", NULL};
    static const char *const nodes[] = {"null", "zero", "full", "random", "urandom", NULL};
    static const unsigned minors[] = {3, 5, 7, 8, 9}; /* of major 1: Documentation/admin-guide/devices.txt */
    char path[64];
    struct statvfs fs;
    if (folder_strange("/", top))
        return "its root folder holds other things than its own";
    if (statvfs("/", &fs) != 0 || !(fs.f_flag & ST_RDONLY))
        return "its root folder can be written";
    if (folder_strange("/dev", nodes))
        return "it has devices beside null, zero, full and random";
    for (size_t i = 0; nodes[i]; i++) {
        struct stat s;
        (void)snprintf(path, sizeof path, "/dev/%s", nodes[i]); /* fits */
        if (stat(path, &s) != 0 || !S_ISCHR(s.st_mode) || s.st_rdev != makedev(1, minors[i]))
            return "a device is not what its name says";
    }
    if (!l->_proc && access("/proc/self", F_OK) == 0)
        return "it has a /proc";
    return mounts_wrong(l);
}

static const char *tmp_wrong(const struct isolate_launch *l)
{
    (void)l;
    struct statvfs fs;
    if (statvfs(ISOLATE_ROOT_TMP, &fs) != 0 || fs.f_blocks * fs.f_frsize != LIMIT_REPLICA_TMP_BYTES ||
        fs.f_files != LIMIT_REPLICA_TMP_FILES)
        return "its /tmp has no limits";
    _close_ int fd = open(ISOLATE_ROOT_TMP "/probe", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 || write(fd, "x", 1) != 1 ? "it cannot use its /tmp" : NULL;
}

/* Last: it takes away what the others look at. */
static const char *landlock_wrong(const struct isolate_launch *l)
{
    (void)l;
    if (isolate_landlock_version() == 0)
        return NULL; /* the report says so */
    if (isolate_landlock_apply(NULL) != 0)
        return "Landlock refuses its rules";
    _close_ int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null_fd < 0)
        return "Landlock takes away too much";
    return mkdir(ISOLATE_ROOT_TMP "/folder", 0700) == 0 ? "Landlock does nothing" : NULL;
}

/* Last: from here on nothing else can be looked at. */
static const char *filter_wrong(const struct isolate_launch *l)
{
    (void)l;
    if (filter_install(&filter_worker_load, NULL) != 0 || filter_install(&filter_worker_run, NULL) != 0)
        return "its system calls cannot be filtered";
    /* The one call that the filter answers in its own way; the kernel would say EINVAL. */
    return syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS ? NULL : "its system call filter has no effect";
}

/* Its set is all that it can have, whatever it asks for. */
static const char *cpus_wrong(const struct isolate_launch *l)
{
    const struct isolate_cpus *own = l->spawn->cpus;
    struct isolate_cpus others, now;
    if (!own)
        return NULL;
    memset(&others, 0xff, sizeof others);
    (void)syscall(SYS_sched_setaffinity, 0, sizeof others, &others); /* what it has then counts */
    isolate_cpus_subtract(&others, own);
    (void)syscall(SYS_sched_setaffinity, 0, sizeof others, &others); /* likewise */
    if (isolate_cpus_of(0, &now) < 0 || !isolate_cpus_within(&now, own) || !isolate_cpus_within(own, &now))
        return "it could leave its processors";
    return NULL;
}

int isolate_probe_inside(const struct isolate_launch *l, struct error *err)
{
    const char *(*const checks[])(const struct isolate_launch *l) = {
        cpus_wrong, uid_wrong,  privilege_wrong, parent_wrong,   network_wrong, namespaces_wrong,
        user_wrong, root_wrong, tmp_wrong,       landlock_wrong, filter_wrong,
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const char *wrong = checks[i](l);
        if (wrong)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "A process behind the wall was not isolated: %s.",
                             wrong);
    }
    return 0;
}
