#include "isolate/isolate_probe.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

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
    (void)l;
    char text[NET_DEV_BYTES_MAX];
    _close_ int dev = open("/proc/self/net/dev", O_RDONLY | O_CLOEXEC);
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

int isolate_probe_inside(const struct isolate_launch *l, struct error *err)
{
    const char *(*const checks[])(const struct isolate_launch *l) = {
        uid_wrong,
        privilege_wrong,
        parent_wrong,
        network_wrong,
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        const char *wrong = checks[i](l);
        if (wrong)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "A process behind the wall was not isolated: %s.",
                             wrong);
    }
    return 0;
}
