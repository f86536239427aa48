#include "bus/port.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

struct head {
    uint32_t type, size;
};

int bus_port_send(int fd, enum bus_type type, const void *body)
{
    const struct bus_type_info *info = bus_type_info(type);
    struct {
        struct head head;
        union bus_body body;
    } packet = {.head = {type, info->body_bytes}};
    memcpy(&packet.body, body, info->body_bytes);
    size_t size = sizeof packet.head + info->body_bytes;
    ssize_t sent;
    do {
        sent = send(fd, &packet, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)size)
        return 0;
    return sent >= 0 || errno == EAGAIN || errno == ENOBUFS ? -ERROR_AGAIN : -ERROR_GONE;
}

static int read_all(int fd, void *data, size_t size)
{
    char *to = data;
    while (size > 0) {
        ssize_t got = read(fd, to, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -ERROR_GONE;
        to += got;
        size -= (size_t)got;
    }
    return 0;
}

int bus_port_recv(int fd, struct bus_message *ret_message)
{
    struct bus_message *m = ret_message;
    struct head head;
    int r = read_all(fd, &head, sizeof head);
    if (r < 0)
        return r;
    const struct bus_type_info *info = bus_type_info(head.type);
    if (!info || info->n_fds > 0 || !(info->senders & BUS_SUPERVISOR) || !(info->receivers & BUS_WORKER) ||
        head.size != info->body_bytes)
        return -ERROR_PEER;
    m->type = head.type;
    m->n_fds = 0;
    for (uint32_t i = 0; i < LIMIT_BUS_FDS; i++)
        m->fds[i] = -1;
    r = read_all(fd, &m->body, info->body_bytes);
    if (r < 0)
        return r;
    bus_text_terminate(m);
    return 1;
}
