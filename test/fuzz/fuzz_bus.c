/*
 * A packet from a broken or hostile role: refused whole, or a message that the matrix allows and that its receiver can
 * read without looking.
 *
 * Input: whose end receives, who sends (a role each, by number), how many descriptors come along, and the packet. With
 * the bit FIT_SIZE the packet gets the size of its type (what is missing is 0xFF: no text ends), with FIT_FDS as many
 * descriptors as its type has: what any fuzzer would have to guess. What bus_recv lets through must be of a type that
 * this peer may send to this role, of exactly its size and number of descriptors, with a NUL in every text; what it
 * refuses leaves no descriptor behind.
 */
#undef NDEBUG
#include "bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_FDS_MAX = LIMIT_BUS_FDS + 3, HEAD_BYTES = 8 }; /* more than a message may have; {type, reserved} */
enum { FIT_SIZE = 0x80, FIT_FDS = 0x40, N_FDS_MASK = 0x3F };

/* The table's texts once more, by name: the test must not believe the list that it tests. */
#define TEXTS(X)                   \
    X(ROLE_CONFIG, listen)         \
    X(ISOLATION, text)             \
    X(ROLE_RELOAD, listen)         \
    X(CATALOG_TAKEN, error.text)   \
    X(DEMAND_REFUSED, error.text)  \
    X(REPLICA_START, engine)       \
    X(REPLICA_START, tenant)       \
    X(REPLICA_START, model)        \
    X(REPLICA_STATE, engine)       \
    X(REPLICA_STATE, tenant)       \
    X(REPLICA_STATE, model)        \
    X(REPLICA_STATE, text)         \
    X(REPLICA_FACTS, cgroup)       \
    X(REPLICA_FACTS, kernel)       \
    X(REPLICA_FACTS, wall)         \
    X(REPLICA_LOADED, error.text)  \
    X(WORKER_CONFIG, engine)       \
    X(INFER, tenant)               \
    X(INFER, model)                \
    X(INGEST_START, engine)        \
    X(INGEST_START, tenant)        \
    X(INGEST_START, model)         \
    X(INGEST_CONFIG, engine)       \
    X(DESCRIBE_FAILED, error.text) \
    X(INGEST_FAILED, error.text)   \
    X(GUEST_CONFIG, worker.engine) \
    X(WORKER_BLANK, engine)

static void text_check(const char *text, size_t size)
{
    assert(memchr(text, '\0', size));
}

static void texts_check(const struct bus_message *m)
{
#define CHECK(name, field)     \
    if (m->type == BUS_##name) \
        text_check(m->body.name.field, sizeof m->body.name.field);
    TEXTS(CHECK)
#undef CHECK
}

/* The lowest free descriptor: the same before and after when nothing leaked. */
static int fd_lowest(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD, 3);
    assert(fd >= 0);
    close(fd);
    return fd;
}

static bool packet_send(int fd, const uint8_t *packet, size_t size, uint32_t n_fds)
{
    int fds[N_FDS_MAX];
    for (uint32_t i = 0; i < n_fds; i++)
        fds[i] = STDERR_FILENO;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec iov = {(void *)packet, size};
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
    return sendmsg(fd, &message, MSG_NOSIGNAL) >= 0; /* a packet larger than the socket's buffer does not leave */
}

static void received_check(const struct bus_message *m, enum bus_role self, enum bus_role peer, size_t size)
{
    const struct bus_type_info *info = bus_type_info(m->type);
    assert(info && (info->senders & peer) && (info->receivers & self));
    assert(size == HEAD_BYTES + info->body_bytes && m->n_fds == info->n_fds);
    for (uint32_t i = 0; i < LIMIT_BUS_FDS; i++)
        assert(i < m->n_fds ? fcntl(m->fds[i], F_GETFD) == FD_CLOEXEC : m->fds[i] == -1);
    texts_check(m);
}

static void receive(enum bus_role self, enum bus_role peer, const uint8_t *packet, size_t size, uint32_t n_fds)
{
    int pair[2];
    struct error err = {0};
    assert(bus_pair(pair, &err) == 0);
    if (packet_send(pair[0], packet, size, n_fds)) {
        struct bus_message m;
        memset(&m, 0xEE, sizeof m);
        int r = bus_recv(pair[1], self, peer, &m);
        if (r == 1) {
            received_check(&m, self, peer, size);
            bus_message_done(&m);
        } else {
            assert(r == -ERROR_PEER || (r == -ERROR_GONE && size == 0));
            for (uint32_t i = 0; i < LIMIT_BUS_FDS; i++)
                assert(m.fds[i] == -1);
        }
        assert(bus_recv(pair[1], self, peer, &m) == 0); /* one packet is one message */
    }
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum bus_role roles[] = {BUS_SUPERVISOR, BUS_CONTROL, BUS_GATEWAY, BUS_WORKER, BUS_INGEST};
    static uint8_t packet[2 * LIMIT_BUS_MESSAGE_BYTES];
    if (size < 3 || size - 3 > sizeof packet)
        return -1;
    size_t packet_size = size - 3;
    memcpy(packet, data + 3, packet_size);
    memset(packet + packet_size, 0xFF, sizeof packet - packet_size);
    uint32_t type = 0, n_fds = data[2] & N_FDS_MASK;
    memcpy(&type, packet, packet_size < sizeof type ? packet_size : sizeof type);
    const struct bus_type_info *info = bus_type_info(type);
    if (info && (data[2] & FIT_SIZE))
        packet_size = HEAD_BYTES + info->body_bytes;
    if (info && (data[2] & FIT_FDS))
        n_fds = info->n_fds;
    int lowest = fd_lowest();
    receive(roles[data[0] % 5], roles[data[1] % 5], packet, packet_size, n_fds % (N_FDS_MAX + 1));
    assert(fd_lowest() == lowest);
    return 0;
}
