#include "bus/bus_loop.h"

#include "base/list.h"
#include "base/log.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGES_PER_TURN 64 /* so that one talkative peer does not starve the loop */

struct queued {
    struct list node;
    enum bus_type type;
    uint32_t n_fds;
    int fds[LIMIT_BUS_FDS];
    union bus_body body;
};

struct bus_conn {
    uv_poll_t poll;
    int fd;
    enum bus_role self, peer;
    const struct bus_conn_events *events;
    void *ctx;
    struct list queue;
    uint32_t n_queued;
    bool closed, stuck; /* stuck: nothing is sent any more */
};

static void queued_free(struct queued *q)
{
    list_remove(&q->node);
    for (uint32_t i = 0; i < q->n_fds; i++)
        fd_close(&q->fds[i]);
    free(q);
}

static void queue_drop(struct bus_conn *conn)
{
    list_each_safe(node, &conn->queue) queued_free(container_of(node, struct queued, node));
    conn->n_queued = 0;
}

static void conn_closed(uv_handle_t *handle)
{
    struct bus_conn *conn = handle->data;
    fd_close(&conn->fd);
    free(conn);
}

void bus_conn_close(struct bus_conn *conn)
{
    if (!conn || conn->closed)
        return;
    conn->closed = true;
    queue_drop(conn);
    (void)uv_poll_stop(&conn->poll); /* always succeeds */
    uv_close((uv_handle_t *)&conn->poll, conn_closed);
}

static void conn_gone(struct bus_conn *conn, int code)
{
    const struct bus_conn_events *events = conn->events;
    void *ctx = conn->ctx;
    bus_conn_close(conn);
    events->gone(ctx, code);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void conn_watch(struct bus_conn *conn)
{
    int events = UV_READABLE | UV_DISCONNECT | (list_empty(&conn->queue) ? 0 : UV_WRITABLE);
    (void)uv_poll_start(&conn->poll, events, on_poll); /* fails only on a closing handle */
}

/* 0, or negative when the peer is gone. */
static int queue_flush(struct bus_conn *conn)
{
    list_each_safe(node, &conn->queue)
    {
        struct queued *q = container_of(node, struct queued, node);
        int r = bus_send(conn->fd, conn->self, conn->peer, q->type, &q->body, q->fds, q->n_fds);
        if (r == -ERROR_AGAIN)
            return 0;
        if (r < 0)
            return r;
        conn->n_queued--;
        queued_free(q);
    }
    conn_watch(conn);
    return 0;
}

static void on_readable(struct bus_conn *conn)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        struct bus_message m;
        int r = bus_recv(conn->fd, conn->self, conn->peer, &m);
        if (r == 0)
            return;
        if (r < 0) {
            conn_gone(conn, r);
            return;
        }
        conn->events->message(conn->ctx, &m);
        bus_message_done(&m);
        if (conn->closed) /* the memory lives until libuv has closed the handle */
            return;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct bus_conn *conn = poll->data;
    if (status < 0) {
        conn_gone(conn, -ERROR_GONE);
        return;
    }
    if ((events & UV_WRITABLE) && !list_empty(&conn->queue) && queue_flush(conn) < 0) {
        conn_gone(conn, -ERROR_GONE);
        return;
    }
    if (events & (UV_READABLE | UV_DISCONNECT))
        on_readable(conn);
}

void bus_conn_finish(struct bus_conn *conn)
{
    conn->stuck = true;
    queue_drop(conn);
    (void)shutdown(conn->fd, SHUT_WR); /* fails only where the peer is gone: that is reported by the poll */
    conn_watch(conn);
}

int bus_conn_open(uv_loop_t *loop, int fd, enum bus_role self, enum bus_role peer, const struct bus_conn_events *events,
                  void *ctx, struct bus_conn **ret_conn)
{
    struct bus_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return -ERROR_NO_MEMORY;
    *conn = (struct bus_conn){.fd = fd, .self = self, .peer = peer, .events = events, .ctx = ctx};
    list_init(&conn->queue);
    if (uv_poll_init(loop, &conn->poll, fd) < 0) {
        free(conn);
        return -ERROR_IO;
    }
    conn->poll.data = conn;
    conn_watch(conn);
    *ret_conn = conn;
    return 0;
}

static int queue_add(struct bus_conn *conn, enum bus_type type, const void *body, const int *fds, uint32_t n_fds)
{
    if (conn->n_queued >= BUS_QUEUE_MAX) {
        conn->stuck = true;
        (void)shutdown(conn->fd, SHUT_RDWR); /* both ends learn of it from their loops, as of any other end */
        return -ERROR_LIMIT;
    }
    struct queued *q = calloc(1, sizeof *q);
    if (!q)
        return -ERROR_NO_MEMORY;
    q->type = type;
    memcpy(&q->body, body, bus_type_info(type)->body_bytes);
    for (uint32_t i = 0; i < n_fds; i++) {
        q->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        q->n_fds++;
        if (q->fds[i] < 0) {
            queued_free(q);
            return -ERROR_LIMIT;
        }
    }
    list_append(&conn->queue, &q->node);
    conn->n_queued++;
    conn_watch(conn);
    return 0;
}

int bus_conn_send(struct bus_conn *conn, enum bus_type type, const void *body, const int *fds, uint32_t n_fds)
{
    assert(n_fds <= LIMIT_BUS_FDS);
    if (!conn || conn->closed || conn->stuck)
        return -ERROR_GONE;
    if (list_empty(&conn->queue)) {
        int r = bus_send(conn->fd, conn->self, conn->peer, type, body, fds, n_fds);
        if (r != -ERROR_AGAIN)
            return r; /* a gone peer is reported by the poll */
    }
    int r = queue_add(conn, type, body, fds, n_fds);
    if (r < 0)
        log_alert("bus_stuck", "a message of type %s could not be queued: %s", bus_type_info(type)->name,
                  error_info(r)->name);
    return r;
}
