/* The network: raw, packet, netlink, TCP, UDP and unix sockets. */
#include "escape.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static enum verdict socket_raw(const char *argument)
{
    (void)argument;
    return of_call(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
}

static enum verdict socket_packet(const char *argument)
{
    (void)argument;
    return of_call(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
}

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtol(port, NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* `argument`: a port on which the test listens. */
static enum verdict socket_tcp(const char *argument)
{
    struct sockaddr_in to = loopback(argument);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? HELD : of_call(connect(fd, (struct sockaddr *)&to, sizeof to));
}

static enum verdict socket_udp(const char *argument)
{
    struct sockaddr_in to = loopback(argument);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? HELD : of_call(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to));
}

static enum verdict socket_listen(const char *argument)
{
    (void)argument;
    struct sockaddr_in at = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 1) < 0)
        return HELD;
    (void)close(fd);
    return ESCAPED;
}

/* `argument`: a path; an abstract name begins with @. */
static enum verdict socket_unix(const char *argument)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t size = strlen(argument);
    if (size == 0 || size >= sizeof to.sun_path)
        return NOTHING;
    memcpy(to.sun_path, argument, size);
    if (to.sun_path[0] == '@')
        to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? HELD
                  : of_call(connect(fd, (struct sockaddr *)&to,
                                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)));
}

/* Asks for the interfaces and looks whether one is up. */
static enum verdict netlink_links(const char *argument)
{
    (void)argument;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return HELD;
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
    } ask = {.head = {.nlmsg_len = sizeof ask, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
    char answer[16384];
    if (send(fd, &ask, sizeof ask, 0) < 0)
        return HELD;
    ssize_t n = recv(fd, answer, sizeof answer, 0);
    for (struct nlmsghdr *m = (void *)answer; n > 0 && NLMSG_OK(m, (size_t)n); m = NLMSG_NEXT(m, n)) {
        struct ifinfomsg *info = NLMSG_DATA(m);
        if (m->nlmsg_type == RTM_NEWLINK && (info->ifi_flags & IFF_UP))
            return ESCAPED;
    }
    return HELD;
}

static enum verdict netlink_audit(const char *argument)
{
    (void)argument;
    return of_call(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT));
}

static enum verdict netlink_loopback_up(const char *argument)
{
    (void)argument;
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return HELD;
    request.ifr_flags |= IFF_UP;
    return of_call(ioctl(fd, SIOCSIFFLAGS, &request));
}

const struct escape escapes_network[] = {
    {"raw-sockets.icmp", socket_raw, 0},
    {"raw-sockets.packet", socket_packet, 0},
    {"network.tcp", socket_tcp, 0},
    {"network.udp", socket_udp, 0},
    {"network.listen", socket_listen, 0},
    {"unix-sockets.path", socket_unix, 0},
    {"unix-sockets.admin", socket_unix, 0},
    {"unix-sockets.abstract", socket_unix, 0},
    {"netlink.links", netlink_links, 0},
    {"netlink.events", netlink_audit, 0},
    {"netlink.loopback-up", netlink_loopback_up, 0},
    {0},
};
