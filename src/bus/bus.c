#include "bus/bus.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define MEMFD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

struct packet {
    uint32_t type;
    uint32_t _reserved;
    union bus_body body;
};

_Static_assert(sizeof(struct packet) <= LIMIT_BUS_MESSAGE_BYTES, "a packet must fit the socket buffer");

union control_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * LIMIT_BUS_FDS)];
};

int bus_pair(int ret_fds[static 2], struct error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) < 0)
        return error_set(err, ERROR_IO, "no socket pair between roles: %s", strerror(errno));
    return 0;
}

int bus_send(int fd, enum bus_role self, enum bus_role peer, enum bus_type type, const void *body, const int *fds,
             uint32_t n_fds)
{
    const struct bus_type_info *info = bus_type_info(type);
    assert(info && (info->senders & self) && (info->receivers & peer) && info->n_fds == n_fds);
    struct packet packet = {.type = type};
    memcpy(&packet.body, body, info->body_bytes);
    struct iovec iov = {&packet, offsetof(struct packet, body) + info->body_bytes};
    union control_space control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
    }
    ssize_t sent;
    do {
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0;
    return errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS ? -ERROR_AGAIN : -ERROR_GONE;
}

static void fds_collect(struct msghdr *message, struct bus_message *m)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && m->n_fds < LIMIT_BUS_FDS; i++)
            memcpy(&m->fds[m->n_fds++], CMSG_DATA(header) + i * sizeof(int), sizeof(int));
    }
}

/* Where messages hold text. */
static const struct {
    enum bus_type type;
    size_t offset, size; /* in the body */
} texts[] = {
#define TEXT(type, field)                                                                              \
    {                                                                                                  \
        BUS_##type, offsetof(union bus_body, type.field), sizeof(((union bus_body *)NULL)->type.field) \
    }
    TEXT(ROLE_CONFIG, listen),
    TEXT(ISOLATION, text),
    TEXT(CORES, taken),
    TEXT(CORES, text),
    TEXT(ROLE_RELOAD, listen),
    TEXT(CATALOG_TAKEN, error.text),
    TEXT(DEMAND_REFUSED, error.text),
    TEXT(REPLICA_START, engine),
    TEXT(REPLICA_START, tenant),
    TEXT(REPLICA_START, model),
    TEXT(REPLICA_STATE, engine),
    TEXT(REPLICA_STATE, tenant),
    TEXT(REPLICA_STATE, model),
    TEXT(REPLICA_STATE, text),
    TEXT(REPLICA_ADAPTER, tenant),
    TEXT(REPLICA_ADAPTER, name),
    TEXT(REPLICA_FACTS, cpus),
    TEXT(REPLICA_FACTS, cgroup),
    TEXT(REPLICA_FACTS, kernel),
    TEXT(REPLICA_FACTS, wall),
    TEXT(REPLICA_LOADED, error.text),
    TEXT(WORKER_CONFIG, engine),
    TEXT(INGEST_START, engine),
    TEXT(INGEST_START, tenant),
    TEXT(INGEST_START, model),
    TEXT(INGEST_CONFIG, engine),
    TEXT(DESCRIBE_FAILED, error.text),
    TEXT(INGEST_FAILED, error.text),
    TEXT(GUEST_CONFIG, worker.engine),
    TEXT(WORKER_BLANK, engine),
    TEXT(INFER, tenant),
    TEXT(INFER, model),
#undef TEXT
};

/* Text that came from a less trusted process gets its NUL before anyone reads it as a string. */
void bus_text_terminate(struct bus_message *m)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].type == m->type)
            ((char *)&m->body)[texts[i].offset + texts[i].size - 1] = '\0';
}

int bus_recv(int fd, enum bus_role self, enum bus_role peer, struct bus_message *ret_message)
{
    struct packet packet;
    struct iovec iov = {&packet, sizeof packet};
    union control_space control;
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do {
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN ? 0 : -ERROR_GONE;
    struct bus_message *m = ret_message;
    m->n_fds = 0;
    for (uint32_t i = 0; i < LIMIT_BUS_FDS; i++)
        m->fds[i] = -1;
    fds_collect(&message, m);
    if (got == 0) { /* the end, or an empty packet: that one may carry descriptors too */
        bus_message_done(m);
        return -ERROR_GONE;
    }
    m->type = (size_t)got >= offsetof(struct packet, body) ? packet.type : BUS_NONE;
    const struct bus_type_info *info = bus_type_info(m->type);
    bool valid = info && (info->senders & peer) && (info->receivers & self) && info->n_fds == m->n_fds &&
                 (size_t)got == offsetof(struct packet, body) + info->body_bytes &&
                 !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    if (!valid) {
        bus_message_done(m);
        return -ERROR_PEER;
    }
    memcpy(&m->body, &packet.body, info->body_bytes);
    bus_text_terminate(m);
    return 1;
}

int bus_wait(int fd, enum bus_role self, enum bus_role peer, int timeout_ms, struct bus_message *ret_message)
{
    uint64_t end_ns = clock_monotonic_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;
    for (;;) {
        int r = bus_recv(fd, self, peer, ret_message);
        if (r != 0)
            return r;
        int rest_ms = -1;
        if (timeout_ms >= 0) {
            uint64_t now_ns = clock_monotonic_ns();
            if (now_ns >= end_ns)
                return -ERROR_REQUEST_TIMEOUT;
            rest_ms = (int)((end_ns - now_ns) / NS_PER_MS) + 1;
        }
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, rest_ms) < 0 && errno != EINTR)
            return -ERROR_GONE;
    }
}

int bus_memfd(const char *name, const void *data, size_t size, int *ret_fd)
{
    _close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -ERROR_NO_MEMORY;
    const char *bytes = data;
    size_t done = 0;
    while (done < size) {
        ssize_t wrote = write(fd, bytes + done, size - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return -ERROR_NO_MEMORY;
        done += (size_t)wrote;
    }
    if (fcntl(fd, F_ADD_SEALS, MEMFD_SEALS) < 0)
        return -ERROR_IO;
    *ret_fd = take_fd(&fd);
    return 0;
}

int bus_memfd_check(int fd, size_t size)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t actual = lseek(fd, 0, SEEK_END);
    bool sound = seals >= 0 && (seals & MEMFD_SEALS) == MEMFD_SEALS && actual >= 0 && (size_t)actual == size;
    return sound ? 0 : -ERROR_PEER;
}

int bus_memfd_map(int fd, size_t size, const void **ret_data)
{
    int r = bus_memfd_check(fd, size);
    if (r < 0)
        return r;
    if (size == 0) {
        *ret_data = NULL;
        return 0;
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return -ERROR_NO_MEMORY;
    *ret_data = data;
    return 0;
}
