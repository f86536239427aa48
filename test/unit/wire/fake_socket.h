/* A socket in memory, in place of src/wire/socket.c: whoever includes this (one file per program) links the rest of the
 * server against it. Bytes are fed by the test, answers are kept, the kernel's generosity and the clock are the test's.
 */
#ifndef BULKHEAD_TEST_FAKE_SOCKET_H
#define BULKHEAD_TEST_FAKE_SOCKET_H

#include "wire/wire_internal.h"

#include <assert.h>

struct fake {
    struct wire_server *server;
    struct wire_connection *c; /* NULL once closed */
    char *out;                 /* what the peer got */
    size_t out_bytes, out_capacity;
    size_t window; /* bytes the kernel takes at once; the rest waits for fake_flush */
    bool broken;   /* writing fails */
    bool shut;     /* for writing */
    struct iovec queue[2];
    unsigned n_queue;
    bool closing;
    uint64_t now_ms;
};

static struct fake fake;

static inline void fake_take(const void *data, size_t size)
{
    if (fake.out_bytes + size > fake.out_capacity) {
        fake.out_capacity = (fake.out_bytes + size) * 2;
        fake.out = realloc(fake.out, fake.out_capacity);
        assert(fake.out);
    }
    memcpy(fake.out + fake.out_bytes, data, size);
    fake.out_bytes += size;
}

uint64_t wire_socket_now_ms(const struct wire_server *server)
{
    (void)server;
    return fake.now_ms;
}

int wire_socket_open(struct wire_connection *c, int fd)
{
    (void)c;
    (void)fd;
    return 0;
}

void wire_socket_read_start(struct wire_connection *c)
{
    c->socket.reading = !c->eof;
}

void wire_socket_read_stop(struct wire_connection *c)
{
    c->socket.reading = false;
}

void wire_socket_drop(struct wire_connection *c)
{
    (void)c;
}

ssize_t wire_socket_write(struct wire_connection *c, const struct iovec *parts, unsigned n_parts)
{
    assert(c == fake.c && !fake.closing && !fake.shut);
    size_t taken = 0;
    if (fake.broken)
        return -ERROR_GONE;
    for (unsigned i = 0; i < n_parts && taken < fake.window; i++) {
        size_t size = parts[i].iov_len < fake.window - taken ? parts[i].iov_len : fake.window - taken;
        fake_take(parts[i].iov_base, size);
        taken += size;
    }
    return (ssize_t)taken;
}

int wire_socket_write_later(struct wire_connection *c, const struct iovec *parts, unsigned n_parts)
{
    assert(c == fake.c && !fake.closing && fake.n_queue == 0 && n_parts >= 1 && n_parts <= 2);
    memcpy(fake.queue, parts, n_parts * sizeof(*parts));
    fake.n_queue = n_parts;
    return 0;
}

size_t wire_socket_pending(const struct wire_connection *c)
{
    (void)c;
    size_t pending = 0;
    for (unsigned i = 0; i < fake.n_queue; i++)
        pending += fake.queue[i].iov_len;
    return pending;
}

bool wire_socket_reset(const struct wire_connection *c)
{
    (void)c;
    return fake.broken;
}

void wire_socket_shutdown(struct wire_connection *c)
{
    (void)c;
    fake.shut = true;
}

void wire_socket_close(struct wire_connection *c)
{
    assert(c == fake.c && !fake.closing);
    c->socket.reading = false;
    fake.closing = true;
}

/* The kernel takes what it had left waiting. */
static inline void fake_flush(void)
{
    if (fake.n_queue == 0 || fake.closing)
        return;
    for (unsigned i = 0; i < fake.n_queue; i++)
        fake_take(fake.queue[i].iov_base, fake.queue[i].iov_len);
    fake.n_queue = 0;
    wire_connection_written(fake.c, 0);
}

/* What libuv does later: the closed callback. */
static inline void fake_settle(void)
{
    if (!fake.c || !fake.closing)
        return;
    if (fake.n_queue > 0) {
        fake.n_queue = 0;
        wire_connection_written(fake.c, UV_ECANCELED);
    }
    wire_connection_free(fake.c);
    fake.c = NULL;
}

/* False: out of memory. */
static inline bool fake_open(const struct wire_config *config, const struct wire_handler *handler, void *ctx)
{
    fake = (struct fake){.window = SIZE_MAX, .now_ms = 1000};
    fake.server = wire_server_new(config, handler, ctx);
    if (!fake.server)
        return false;
    fake.c = wire_connection_new(fake.server);
    if (!fake.c) {
        wire_server_free(fake.server);
        return false;
    }
    wire_socket_read_start(fake.c);
    return true;
}

/* One read of at most `size` bytes. Returns how many were taken: 0 when the connection does not read now. */
static inline size_t fake_feed(const char *data, size_t size)
{
    if (!fake.c || fake.closing || !fake.c->socket.reading || size == 0)
        return 0;
    struct iovec space = wire_connection_space(fake.c);
    if (space.iov_len == 0) { /* as libuv: UV_ENOBUFS */
        wire_connection_broken(fake.c);
        return 0;
    }
    if (size > space.iov_len)
        size = space.iov_len;
    memcpy(space.iov_base, data, size);
    wire_connection_received(fake.c, size);
    return size;
}

static inline void fake_eof(void)
{
    if (!fake.c || fake.closing || !fake.c->socket.reading)
        return;
    if (wire_connection_space(fake.c).iov_len == 0)
        wire_connection_broken(fake.c);
    else
        wire_connection_received(fake.c, 0);
}

/* Closes what is open and checks that nothing is left. */
static inline void fake_done(void)
{
    if (fake.c && !fake.closing)
        wire_connection_abort(fake.c, -ERROR_DRAINING);
    fake_settle();
    assert(fake.server->stats.connections == 0);
    assert(fake.server->memory.bytes == 0);
    wire_server_free(fake.server);
    free(fake.out);
}

#endif
