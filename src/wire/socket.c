/* The libuv side of a connection. Nothing here knows HTTP. A test that wants no socket defines these functions itself.
 */
#include "wire/wire_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct wire_connection *connection_of(void *handle)
{
    return container_of(handle, struct wire_connection, socket.uv);
}

uint64_t wire_socket_now_ms(const struct wire_server *server)
{
    return uv_now(server->loop);
}

static void on_space(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    (void)suggested;
    struct iovec space = wire_connection_space(connection_of(handle));
    *ret_buf = uv_buf_init(space.iov_base, (unsigned)space.iov_len);
}

/* Of a local socket that a peer has closed altogether; TCP does not tell that from half. */
static bool hung_up(const struct wire_connection *c)
{
    uv_os_fd_t fd;
    struct pollfd wait = {.fd = -1};
    if (uv_fileno(&c->socket.uv.handle, &fd) < 0)
        return false;
    wait.fd = fd;
    return poll(&wait, 1, 0) > 0 && (wait.revents & POLLHUP);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    (void)buf;
    struct wire_connection *c = connection_of(stream);
    if (size > 0)
        wire_connection_received(c, (size_t)size);
    else if (size == UV_EOF && c->state == WIRE_HANDLING && hung_up(c))
        wire_connection_broken(c); /* nobody is left to answer */
    else if (size == UV_EOF)
        wire_connection_received(c, 0);
    else if (size < 0)
        wire_connection_broken(c);
}

int wire_socket_open(struct wire_connection *c, int fd)
{
    struct wire_socket *s = &c->socket;
    uv_loop_t *loop = c->server->loop;
    int result = c->server->is_unix ? uv_pipe_init(loop, &s->uv.pipe, 0) : uv_tcp_init(loop, &s->uv.tcp);
    if (result < 0)
        return -ERROR_NO_MEMORY;
    result = c->server->is_unix ? uv_pipe_open(&s->uv.pipe, fd) : uv_tcp_open(&s->uv.tcp, fd);
    if (result < 0)
        return -ERROR_IO;
    if (!c->server->is_unix)
        (void)uv_tcp_nodelay(&s->uv.tcp, 1); /* only latency is lost without */
    return 0;
}

void wire_socket_read_start(struct wire_connection *c)
{
    if (c->socket.reading || c->eof)
        return;
    c->socket.reading = true;
    if (uv_read_start(&c->socket.uv.stream, on_space, on_read) < 0)
        wire_connection_broken(c);
}

void wire_socket_read_stop(struct wire_connection *c)
{
    if (!c->socket.reading)
        return;
    c->socket.reading = false;
    (void)uv_read_stop(&c->socket.uv.stream); /* never fails */
}

void wire_socket_drop(struct wire_connection *c)
{
    uv_os_fd_t fd;
    if (uv_fileno(&c->socket.uv.handle, &fd) == 0)
        (void)!read(fd, c->server->scratch, WIRE_SCRATCH_BYTES); /* non-blocking; a courtesy */
}

static unsigned to_bufs(const struct iovec *parts, unsigned n_parts, uv_buf_t bufs[static 2])
{
    for (unsigned i = 0; i < n_parts && i < 2; i++)
        bufs[i] = (uv_buf_t){.base = parts[i].iov_base, .len = parts[i].iov_len};
    return n_parts < 2 ? n_parts : 2;
}

ssize_t wire_socket_write(struct wire_connection *c, const struct iovec *parts, unsigned n_parts)
{
    uv_buf_t bufs[2];
    unsigned n_bufs = to_bufs(parts, n_parts, bufs);
    int result = uv_try_write(&c->socket.uv.stream, bufs, n_bufs);
    if (result == UV_EAGAIN)
        return 0;
    return result < 0 ? -ERROR_GONE : result;
}

static void on_written(uv_write_t *write, int status)
{
    struct wire_connection *c = container_of(write, struct wire_connection, socket.write);
    wire_connection_written(c, status);
}

int wire_socket_write_later(struct wire_connection *c, const struct iovec *parts, unsigned n_parts)
{
    uv_buf_t bufs[2];
    unsigned n_bufs = to_bufs(parts, n_parts, bufs);
    return uv_write(&c->socket.write, &c->socket.uv.stream, bufs, n_bufs, on_written) < 0 ? -ERROR_GONE : 0;
}

size_t wire_socket_pending(const struct wire_connection *c)
{
    size_t pending = uv_stream_get_write_queue_size(&c->socket.uv.stream);
    uv_os_fd_t fd;
    int in_kernel = 0;
    if (uv_fileno(&c->socket.uv.handle, &fd) == 0 && ioctl(fd, SIOCOUTQ, &in_kernel) == 0 && in_kernel > 0)
        pending += (size_t)in_kernel;
    return pending;
}

bool wire_socket_reset(const struct wire_connection *c)
{
    uv_os_fd_t fd;
    if (c->server->is_unix || uv_fileno(&c->socket.uv.handle, &fd) < 0)
        return false;
    return write(fd, "", 0) < 0 && errno != EAGAIN && errno != EINTR; /* nothing to send, but its state is looked at */
}

void wire_socket_shutdown(struct wire_connection *c)
{
    uv_os_fd_t fd;
    if (uv_fileno(&c->socket.uv.handle, &fd) == 0)
        (void)shutdown(fd, SHUT_WR); /* the write queue is empty; if the peer is gone, reading tells */
}

static void on_closed(uv_handle_t *handle)
{
    struct wire_connection *c = connection_of(handle);
    wire_server_forget(c->server, c);
}

void wire_socket_close(struct wire_connection *c)
{
    c->socket.reading = false;
    uv_close(&c->socket.uv.handle, on_closed);
}
