/* The listener: accepting, refusing, draining, stopping. It accepts by itself (uv_poll and accept4) and not through
 * uv_listen, because running out of descriptors must neither spin nor throw waiting peers away, and because a peer that
 * is refused should cost no handle. */
#include "base/log.h"
#include "wire/wire_internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

void wire_config_default(struct wire_config *config)
{
    *config = (struct wire_config){
        .connections_max = LIMIT_CONNECTIONS,
        .head_bytes_max = LIMIT_HTTP_HEAD_BYTES,
        .headers_max = LIMIT_HTTP_HEADERS,
        .target_bytes_max = LIMIT_HTTP_TARGET_BYTES,
        .bodies_bytes_max = LIMIT_BODIES_BYTES,
        .head_timeout_ms = LIMIT_HEAD_TIMEOUT_MS,
        .idle_timeout_ms = LIMIT_IDLE_TIMEOUT_MS,
        .write_timeout_ms = LIMIT_WRITE_TIMEOUT_MS,
        .body_window_ms = LIMIT_BODY_WINDOW_MS,
        .body_rate_bytes_per_s = LIMIT_BODY_RATE_BYTES_PER_S,
    };
}

struct wire_server *wire_server_new(const struct wire_config *config, const struct wire_handler *handler, void *ctx)
{
    struct wire_server *server = calloc(1, sizeof(*server));
    if (!server)
        return NULL;
    server->config = *config;
    server->memory.bytes_max = config->bodies_bytes_max;
    server->handler = handler;
    server->ctx = ctx;
    server->fd = -1;
    server->scratch = malloc(WIRE_SCRATCH_BYTES);
    list_init(&server->connections);
    wire_deadlines_init(server);
    wire_owners_init(server);
    if (!server->scratch) {
        free(server);
        return NULL;
    }
    return server;
}

void wire_server_free(struct wire_server *server)
{
    while (server->spare) {
        struct wire_block *block = server->spare;
        server->spare = block->next;
        free(block);
    }
    free(server->scratch);
    free(server);
}

/* After each handle that libuv has closed. */
static void server_settle(struct wire_server *server)
{
    if (server->stopped) {
        if (server->n_handles == 0)
            wire_server_free(server);
        return;
    }
    if (server->draining && server->stats.connections == 0 && server->drained) {
        void (*drained)(void *) = take(&server->drained);
        drained(server->drained_ctx);
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct wire_server *server = handle->data;
    server->n_handles--;
    server_settle(server);
}

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void timer_update(struct wire_server *server);

static void on_tick(uv_timer_t *timer)
{
    struct wire_server *server = timer->data;
    wire_deadlines_scan(server);
    if (server->stopped)
        return;
    if (server->accept_paused && server->fd >= 0) {
        server->accept_paused = false;
        (void)uv_poll_start(&server->listener, UV_READABLE, on_acceptable); /* it worked before */
    }
    timer_update(server);
}

/* The timer runs only while there is something to watch, so that an idle server sleeps. */
static void timer_update(struct wire_server *server)
{
    bool wanted = server->stats.connections > 0 || server->accept_paused;
    bool active = uv_is_active((uv_handle_t *)&server->timer) != 0;
    uint32_t tick_ms = wire_deadlines_tick_ms(server);
    if (wanted && !active)
        (void)uv_timer_start(&server->timer, on_tick, tick_ms, tick_ms); /* fails only on a closing handle */
    else if (!wanted && active)
        (void)uv_timer_stop(&server->timer);
}

void wire_server_forget(struct wire_server *server, struct wire_connection *c)
{
    wire_connection_free(c);
    server->n_handles--;
    if (!server->stopped)
        timer_update(server);
    server_settle(server);
}

/* Tells the peer why, and closes. Nothing is read but what lies there already: unread bytes would make the kernel send
 * an RST, which may overtake the answer. */
static void refuse(struct wire_server *server, int fd, int code)
{
    server->stats.refused++;
    size_t size = wire_answer_refusal(server, code);
    if (size > 0)
        (void)send(fd, server->scratch, size, MSG_DONTWAIT | MSG_NOSIGNAL); /* a courtesy */
    (void)shutdown(fd, SHUT_WR);
    (void)!read(fd, server->scratch, WIRE_SCRATCH_BYTES); /* accepted non-blocking */
    fd_close(&fd);
}

static bool peer_allowed(struct wire_server *server, int fd)
{
    if (!server->is_unix || !server->handler->peer_allowed)
        return true;
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    return server->handler->peer_allowed(server->ctx, peer.uid, peer.gid, peer.pid);
}

/* Takes fd over. */
static void connection_open(struct wire_server *server, int fd)
{
    struct wire_connection *c = wire_connection_new(server);
    if (!c) {
        refuse(server, fd, -ERROR_NO_MEMORY);
        return;
    }
    int result = wire_socket_open(c, fd);
    server->n_handles++;
    if (result < 0) {
        fd_close(&fd);
        wire_connection_close(c);
        return;
    }
    wire_socket_read_start(c);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct wire_server *server = poll->data;
    for (int i = 0; i < WIRE_ACCEPT_BATCH && server->fd >= 0; i++) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                /* Waiting peers stay in the kernel's queue; the timer tries again. */
                log_warn("accept_paused", "out of descriptors or memory: %s", strerror(errno));
                server->accept_paused = true;
                (void)uv_poll_stop(&server->listener);
            }
            break;
        }
        if (server->stats.connections - server->n_closing >= server->config.connections_max &&
            !wire_owners_yield(server))
            refuse(server, fd, -ERROR_OVERLOADED);
        else if (!peer_allowed(server, fd))
            refuse(server, fd, -ERROR_FORBIDDEN);
        else
            connection_open(server, fd);
    }
    if (!server->stopped)
        timer_update(server);
}

static int listener_check(int fd, bool *ret_is_unix, struct error *err)
{
    int value = 0;
    socklen_t size = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) < 0 || !value)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the descriptor to serve is not a listening socket");
    size = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &size) < 0)
        return error_set(err, ERROR_IO, "cannot learn a socket's domain: %s", strerror(errno));
    *ret_is_unix = value == AF_UNIX;
    return 0;
}

int wire_server_start(uv_loop_t *loop, int fd, const struct wire_config *config, const struct wire_handler *handler,
                      void *ctx, struct wire_server **ret_server, struct error *err)
{
    bool is_unix = false;
    int result = listener_check(fd, &is_unix, err);
    if (result < 0)
        return result;
    struct wire_server *server = wire_server_new(config, handler, ctx);
    if (!server)
        return error_set_default(err, ERROR_NO_MEMORY);
    server->loop = loop;
    server->fd = fd;
    server->is_unix = is_unix;
    (void)uv_timer_init(loop, &server->timer); /* cannot fail */
    server->timer.data = server;
    server->n_handles = 1;
    result = uv_poll_init(loop, &server->listener, fd);
    if (result == 0) {
        server->n_handles++;
        server->listener.data = server;
        result = uv_poll_start(&server->listener, UV_READABLE, on_acceptable);
    }
    if (result < 0) {
        server->fd = -1; /* stays the caller's */
        wire_server_stop(server);
        return error_set(err, ERROR_IO, "cannot watch the listening socket: %s", uv_strerror(result));
    }
    /* A peer that goes away must be an error code and not a signal; libuv writes with write(2). */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL); /* fails only on a bad address */
    *ret_server = server;
    return 0;
}

void wire_server_limits_set(struct wire_server *server, const struct wire_config *config)
{
    server->config.connections_max = config->connections_max;
    server->config.head_timeout_ms = config->head_timeout_ms;
    server->config.idle_timeout_ms = config->idle_timeout_ms;
    server->config.write_timeout_ms = config->write_timeout_ms;
    wire_deadlines_set(server, WIRE_DEADLINE_HEAD, config->head_timeout_ms);
    wire_deadlines_set(server, WIRE_DEADLINE_IDLE, config->idle_timeout_ms);
    wire_deadlines_set(server, WIRE_DEADLINE_WRITE, config->write_timeout_ms / 4);
    wire_deadlines_set(server, WIRE_DEADLINE_STREAM, wire_deadline_stream_ms(config->write_timeout_ms));
    if (server->timer.data && uv_is_active((uv_handle_t *)&server->timer)) {
        (void)uv_timer_stop(&server->timer); /* cannot fail; it starts again with the tick of the new time-outs */
        timer_update(server);
    }
}

static void listener_close(struct wire_server *server)
{
    if (server->listener.data && !uv_is_closing((uv_handle_t *)&server->listener))
        uv_close((uv_handle_t *)&server->listener, on_handle_closed);
    fd_close(&server->fd);
}

void wire_server_drain(struct wire_server *server, void (*drained)(void *ctx), void *ctx)
{
    server->draining = true;
    server->drained = drained;
    server->drained_ctx = ctx;
    listener_close(server);
    list_each_safe(node, &server->connections)
    {
        struct wire_connection *c = container_of(node, struct wire_connection, all);
        if (c->state == WIRE_IDLE && !c->processing)
            wire_connection_close(c);
    }
    server_settle(server);
}

void wire_server_stop(struct wire_server *server)
{
    assert(!server->stopped);
    server->stopped = true;
    listener_close(server);
    uv_close((uv_handle_t *)&server->timer, on_handle_closed);
    list_each_safe(node, &server->connections)
    {
        wire_connection_abort(container_of(node, struct wire_connection, all), -ERROR_DRAINING);
    }
}

void wire_server_stats(const struct wire_server *server, struct wire_stats *ret_stats)
{
    *ret_stats = server->stats;
    ret_stats->memory_bytes = server->memory.bytes;
}
