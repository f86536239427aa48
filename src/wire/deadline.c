/* Time-outs without a timer per connection: one list per kind, each with one time-out, so that appending keeps it
 * sorted and a scan touches only what has expired. A change of state costs two list operations and no system call. */
#include "wire/wire_internal.h"

static const enum wire_deadline deadline_of[WIRE_STATE_COUNT] = {
    [WIRE_IDLE] = WIRE_DEADLINE_IDLE,        [WIRE_READ_HEAD] = WIRE_DEADLINE_HEAD,
    [WIRE_READ_BODY] = WIRE_DEADLINE_BODY,   [WIRE_HANDLING] = WIRE_DEADLINE_NONE, /* the handler has its own */
    [WIRE_STREAMING] = WIRE_DEADLINE_STREAM, [WIRE_WRITING] = WIRE_DEADLINE_WRITE,
    [WIRE_DISCARDING] = WIRE_DEADLINE_BODY,  [WIRE_LINGERING] = WIRE_DEADLINE_LINGER,
    [WIRE_CLOSING] = WIRE_DEADLINE_NONE,
};

uint32_t wire_deadline_stream_ms(uint32_t write_timeout_ms)
{
    uint32_t quarter_ms = write_timeout_ms / 4;
    return quarter_ms > 0 && quarter_ms < WIRE_STREAM_LOOK_MS ? quarter_ms : WIRE_STREAM_LOOK_MS;
}

void wire_deadlines_init(struct wire_server *server)
{
    const struct wire_config *config = &server->config;
    for (int kind = 0; kind < WIRE_DEADLINE_COUNT; kind++)
        list_init(&server->deadlines[kind].head);
    server->deadlines[WIRE_DEADLINE_IDLE].timeout_ms = config->idle_timeout_ms;
    server->deadlines[WIRE_DEADLINE_HEAD].timeout_ms = config->head_timeout_ms;
    server->deadlines[WIRE_DEADLINE_BODY].timeout_ms = config->body_window_ms;
    server->deadlines[WIRE_DEADLINE_WRITE].timeout_ms = config->write_timeout_ms / 4;
    server->deadlines[WIRE_DEADLINE_STREAM].timeout_ms = wire_deadline_stream_ms(config->write_timeout_ms);
    server->deadlines[WIRE_DEADLINE_LINGER].timeout_ms = WIRE_LINGER_MS;
    server->deadlines[WIRE_DEADLINE_PEER].timeout_ms = WIRE_PEER_MS;
}

void wire_deadlines_set(struct wire_server *server, enum wire_deadline kind, uint32_t timeout_ms)
{
    struct wire_deadline_list *list = &server->deadlines[kind];
    list_each_safe(node, &list->head)
    {
        struct wire_connection *c = container_of(node, struct wire_connection, deadline);
        if (timeout_ms == 0)
            list_remove(node);
        c->deadline_ms = c->deadline_ms - list->timeout_ms + timeout_ms; /* all by the same: the order stays */
    }
    list->timeout_ms = timeout_ms;
}

void wire_deadline_renew(struct wire_connection *c)
{
    bool half = c->state == WIRE_HANDLING && c->eof;
    struct wire_deadline_list *list = &c->server->deadlines[half ? WIRE_DEADLINE_PEER : deadline_of[c->state]];
    list_remove(&c->deadline);
    c->deadline_stale = false;
    if (list->timeout_ms == 0)
        return;
    c->deadline_ms = wire_socket_now_ms(c->server) + list->timeout_ms;
    list_append(&list->head, &c->deadline);
}

/* The time-out of the present state has passed. */
static void expired(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    size_t pending;
    switch (c->state) {
    case WIRE_READ_HEAD:
        wire_connection_fail(c, -ERROR_REQUEST_TIMEOUT, "The head of the request did not arrive in time.");
        break;
    case WIRE_READ_BODY:
    case WIRE_DISCARDING:
        if (c->body.paused || c->body.window_bytes * 1000 >=
                                  (uint64_t)server->config.body_rate_bytes_per_s * server->config.body_window_ms) {
            c->body.window_bytes = 0;
            wire_deadline_renew(c);
        } else if (c->state == WIRE_DISCARDING) {
            wire_connection_close(c);
        } else {
            wire_connection_fail(c, -ERROR_REQUEST_TIMEOUT, "The body of the request arrives too slowly.");
        }
        break;
    case WIRE_WRITING:
        pending = wire_socket_pending(c) + wire_stream_waiting(c);
        c->out_stalls = pending < c->out_seen ? 0 : c->out_stalls + 1;
        c->out_seen = pending;
        if (c->out_stalls >= 4) {
            server->stats.timeouts_write++;
            wire_connection_abort(c, -ERROR_CANCELLED);
        } else {
            wire_deadline_renew(c);
        }
        break;
    case WIRE_STREAMING:
        wire_deadline_renew(c);
        wire_stream_look(c);
        break;
    case WIRE_IDLE:
    case WIRE_LINGERING:
        wire_connection_close(c);
        break;
    case WIRE_HANDLING:
        wire_connection_probe(c);
        break;
    case WIRE_CLOSING:
    case WIRE_STATE_COUNT:
        break;
    }
}

void wire_deadlines_scan(struct wire_server *server)
{
    uint64_t now_ms = wire_socket_now_ms(server);
    for (int kind = 0; kind < WIRE_DEADLINE_COUNT; kind++) {
        struct list *head = &server->deadlines[kind].head, *first;
        while ((first = list_first(head))) {
            struct wire_connection *c = container_of(first, struct wire_connection, deadline);
            if (c->deadline_ms > now_ms)
                break;
            expired(c);
        }
    }
}

uint32_t wire_deadlines_tick_ms(const struct wire_server *server)
{
    uint32_t tick_ms = 1000;
    for (int kind = 0; kind < WIRE_DEADLINE_COUNT; kind++) {
        uint32_t timeout_ms = server->deadlines[kind].timeout_ms;
        if (timeout_ms > 0 && timeout_ms < tick_ms && kind != WIRE_DEADLINE_PEER)
            tick_ms = timeout_ms;
    }
    return tick_ms / 4 < 10 ? 10 : tick_ms / 4;
}
