/* A connection: from bytes that arrive to the calls of the handler. The picture stands in wire_internal.h. */
#include "base/clock.h"
#include "wire/wire_internal.h"

#include <assert.h>

const char *const wire_state_names[WIRE_STATE_COUNT] = {
    [WIRE_IDLE] = "idle",
    [WIRE_READ_HEAD] = "read_head",
    [WIRE_READ_BODY] = "read_body",
    [WIRE_HANDLING] = "handling",
    [WIRE_STREAMING] = "streaming",
    [WIRE_WRITING] = "writing",
    [WIRE_DISCARDING] = "discarding",
    [WIRE_LINGERING] = "lingering",
    [WIRE_CLOSING] = "closing",
};

#define TO(state) (1u << WIRE_##state)
/* from → set of to */
static const unsigned moves[WIRE_STATE_COUNT] = {
    [WIRE_IDLE] = TO(READ_HEAD) | TO(CLOSING),
    [WIRE_READ_HEAD] =
        TO(IDLE) | TO(READ_BODY) | TO(HANDLING) | TO(WRITING) | TO(DISCARDING) | TO(LINGERING) | TO(CLOSING),
    [WIRE_READ_BODY] = TO(IDLE) | TO(HANDLING) | TO(WRITING) | TO(DISCARDING) | TO(LINGERING) | TO(CLOSING),
    [WIRE_HANDLING] = TO(IDLE) | TO(STREAMING) | TO(WRITING) | TO(CLOSING),
    [WIRE_STREAMING] = TO(IDLE) | TO(WRITING) | TO(LINGERING) | TO(CLOSING),
    [WIRE_WRITING] = TO(IDLE) | TO(DISCARDING) | TO(LINGERING) | TO(CLOSING),
    [WIRE_DISCARDING] = TO(IDLE) | TO(CLOSING),
    [WIRE_LINGERING] = TO(CLOSING),
    [WIRE_CLOSING] = 0,
};
#undef TO

void wire_connection_set_state(struct wire_connection *c, enum wire_state to)
{
    assert(moves[c->state] & (1u << to));
    c->state = to;
    c->deadline_stale = true;
    if (!c->processing)
        wire_deadline_renew(c);
}

struct wire_connection *wire_connection_new(struct wire_server *server)
{
    struct wire_connection *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->server = server;
    c->exchange.server = server;
    c->exchange.connection_user = &c->user;
    c->opened_ms = wire_socket_now_ms(server);
    list_append(&server->connections, &c->all);
    wire_owner_join(&server->nobody, c);
    server->stats.accepted++;
    server->stats.connections++;
    if (server->stats.connections > server->stats.connections_peak)
        server->stats.connections_peak = server->stats.connections;
    wire_deadline_renew(c);
    return c;
}

void wire_connection_free(struct wire_connection *c)
{
    c->server->stats.connections--;
    c->server->n_closing -= c->state == WIRE_CLOSING;
    wire_owner_leave(c);
    list_remove(&c->all);
    wire_stream_free(c);
    free(c);
}

void wire_connection_close(struct wire_connection *c)
{
    if (c->state == WIRE_CLOSING)
        return;
    struct wire_server *server = c->server;
    wire_connection_set_state(c, WIRE_CLOSING);
    wire_body_release(c);
    wire_owner_leave(c);
    server->n_closing++;
    wire_block_give(server, take(&c->block));
    if (server->handler->closed)
        server->handler->closed(server->ctx, take(&c->user));
    wire_socket_close(c);
}

/* The exchange ends without an answer of its handler's. */
static void exchange_reset(struct wire_connection *c, int code)
{
    if (!c->exchange_open)
        return;
    c->exchange_open = false;
    c->server->handler->reset(c->server->ctx, &c->exchange, code);
}

void wire_connection_abort(struct wire_connection *c, int code)
{
    exchange_reset(c, code);
    wire_connection_close(c);
}

void wire_connection_fail(struct wire_connection *c, int code, const char *text)
{
    struct wire_stats *stats = &c->server->stats;
    if (code == -ERROR_REQUEST_TIMEOUT && c->state == WIRE_READ_HEAD)
        stats->timeouts_head++;
    else if (code == -ERROR_REQUEST_TIMEOUT)
        stats->timeouts_body++;
    else
        stats->protocol_errors++;
    bool with_body = c->exchange.request.method != WIRE_HEAD;
    exchange_reset(c, code);
    if (c->state == WIRE_CLOSING)
        return;
    wire_body_release(c);
    c->answered = c->close_after = c->linger = true;
    wire_answer_error(c, code, text, with_body);
}

/* The body cannot be taken: the handler knows better than wire what to say of it. */
static void body_refuse(struct wire_connection *c, int code)
{
    struct wire_server *server = c->server;
    if (!server->handler->body_refused || code == -ERROR_HTTP_MALFORMED) {
        wire_connection_fail(c, code, NULL);
        return;
    }
    server->stats.protocol_errors++;
    wire_body_release(c);
    c->close_after = c->linger = true;
    server->handler->body_refused(server->ctx, &c->exchange, code);
    assert(c->answered || c->state == WIRE_CLOSING);
}

static void linger_start(struct wire_connection *c)
{
    wire_socket_shutdown(c);
    wire_block_give(c->server, take(&c->block));
    c->begin = c->fill = 0;
    c->discard_bytes = 0;
    wire_connection_set_state(c, WIRE_LINGERING);
    wire_socket_read_start(c);
}

void wire_connection_answered(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    c->served = true;
    if (c->exchange_open) {
        c->exchange_open = false;
        server->handler->done(server->ctx, &c->exchange);
        if (c->state == WIRE_CLOSING)
            return;
    }
    wire_body_release(c);
    c->head_bytes = 0;
    if (c->close_after || server->draining) {
        if (c->linger && !c->eof)
            linger_start(c);
        else
            wire_connection_close(c);
        return;
    }
    c->begin = c->next;
    wire_connection_set_state(c, c->discard_bytes > 0 ? WIRE_DISCARDING : WIRE_IDLE);
    wire_connection_process(c);
}

/* Nothing of the next request is here: the block goes back. Else the next request begins. */
static bool step_idle(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    if (c->begin == c->fill) {
        wire_block_give(server, take(&c->block));
        c->begin = c->fill = 0;
        if (c->eof || server->draining)
            wire_connection_close(c);
        return false;
    }
    c->exchange.request = (struct wire_request){0};
    c->exchange.body = (struct str){0};
    c->exchange.user = NULL;
    c->exchange.started_ns = clock_monotonic_ns();
    c->head_bytes = 0;
    c->accepted = c->answered = c->peer_watched = c->probed = false;
    wire_parser_start(&c->parser, &server->config, c->block->headers);
    wire_connection_set_state(c, WIRE_READ_HEAD);
    return true;
}

/* 1: sent, 0: the kernel takes nothing now; negative: the connection cannot go on. */
static int continue_send(struct wire_connection *c)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec part = {(char *)text, sizeof(text) - 1};
    ssize_t written = wire_socket_write(c, &part, 1);
    if (written < 0 || (written > 0 && (size_t)written < part.iov_len))
        return -ERROR_CANCELLED;
    return written > 0;
}

void wire_connection_probe(struct wire_connection *c)
{
    /* A FIN says that the peer sends no more, and TCP has no word for "and takes no more": its kernel answers the next
     * byte with a reset. A 100 may come at any time (RFC 9110 §15.2), but not to a client of HTTP/1.0. */
    bool silent = c->probed || c->server->is_unix || c->parser.llhttp.http_minor == 0;
    int sent = silent ? 0 : continue_send(c);
    c->probed = c->probed || sent > 0;
    if (sent < 0 || wire_socket_reset(c))
        wire_connection_abort(c, -ERROR_CANCELLED);
    else
        wire_deadline_renew(c);
}

/* Hands a complete head to the handler. */
static void head_deliver(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    server->stats.requests++;
    wire_body_measure(c);
    c->exchange_open = true;
    server->handler->head(server->ctx, &c->exchange);
    if (c->state != WIRE_READ_HEAD)
        return; /* answered at once, or closed */
    assert(c->accepted);
    int result = wire_body_start(c);
    if (result < 0) {
        body_refuse(c, result);
        return;
    }
    if (c->body.kind != WIRE_BODY_NONE && c->expect_continue && c->next == c->begin + c->head_bytes) {
        /* If the kernel takes nothing now, the client will send after a while by itself (RFC 9110 §10.1.1). */
        if (continue_send(c) < 0) {
            wire_connection_abort(c, -ERROR_CANCELLED);
            return;
        }
    }
    c->expect_continue = false;
    wire_connection_set_state(c, WIRE_READ_BODY);
}

/* A chunked body is decoded behind its head: there must be room, before anyone sees where the head lies. */
static int head_room(struct wire_connection *c)
{
    size_t end = c->begin + c->head_bytes;
    if (!(c->parser.llhttp.flags & F_CHUNKED) || c->block->capacity - end >= KIB)
        return 0;
    return wire_block_room(c, WIRE_BLOCK_SLACK_BYTES - (c->fill - end)); /* fill - end < 1 KiB */
}

static bool step_head(struct wire_connection *c)
{
    const char *text = NULL;
    int result = wire_parser_head(&c->parser, c->block->data + c->begin, c->fill - c->begin);
    if (result == 0) {
        if (c->eof)
            wire_connection_close(c);
        else if (c->fill == c->block->capacity && (result = wire_block_room(c, WIRE_BLOCK_SLACK_BYTES)) < 0)
            wire_connection_fail(c, result, NULL);
        return false;
    }
    if (result > 0) {
        c->head_bytes = (size_t)result;
        result = head_room(c);
        struct str head = {c->block->data + c->begin, c->head_bytes};
        if (result == 0)
            result = wire_request_read(&c->parser, head, &c->exchange.request, &c->expect_continue, &text);
    }
    if (result < 0)
        wire_connection_fail(c, result, text);
    else
        head_deliver(c);
    return true;
}

static bool step_body(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    if (c->body.paused)
        return false;
    int result = wire_body_advance(c);
    if (c->state != WIRE_READ_BODY)
        return true; /* the handler answered or stopped from data() */
    if (result < 0) {
        body_refuse(c, result);
        return true;
    }
    if (result == 0) {
        if (c->eof && !c->body.paused)
            wire_connection_abort(c, -ERROR_CANCELLED);
        return false;
    }
    wire_connection_set_state(c, WIRE_HANDLING);
    server->handler->end(server->ctx, &c->exchange);
    return true;
}

void wire_connection_process(struct wire_connection *c)
{
    if (c->processing)
        return;
    c->processing = true;
    bool more = true;
    while (more) {
        switch (c->state) {
        case WIRE_IDLE:
            more = step_idle(c);
            break;
        case WIRE_READ_HEAD:
            more = step_head(c);
            break;
        case WIRE_READ_BODY:
            more = step_body(c);
            break;
        case WIRE_HANDLING:
        case WIRE_STREAMING:
        case WIRE_WRITING:
        case WIRE_DISCARDING:
        case WIRE_LINGERING:
        case WIRE_CLOSING:
        case WIRE_STATE_COUNT:
            more = false;
            break;
        }
    }
    c->processing = false;
    if (c->deadline_stale)
        wire_deadline_renew(c);
    if (c->state == WIRE_CLOSING || c->eof)
        return;
    /* While a request is being handled we go on reading, which tells us when the peer goes away, until the block is
     * full of what it sent ahead. */
    bool answering = c->state == WIRE_HANDLING || c->state == WIRE_STREAMING || c->state == WIRE_WRITING;
    bool full = answering && !wire_connection_dropping(c) && c->fill == c->block->capacity;
    bool paused = c->state == WIRE_READ_BODY && c->body.paused;
    if (full || paused)
        wire_socket_read_stop(c);
    else
        wire_socket_read_start(c);
}

struct iovec wire_connection_space(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    if (wire_connection_dropping(c)) {
        size_t size = WIRE_SCRATCH_BYTES;
        if (!c->close_after && c->discard_bytes < size)
            size = (size_t)c->discard_bytes;
        return (struct iovec){server->scratch, size};
    }
    if (!c->block) {
        c->block = wire_block_take(server);
        if (!c->block)
            return (struct iovec){0};
    }
    if (c->state == WIRE_READ_BODY)
        return wire_body_space(c);
    return (struct iovec){c->block->data + c->fill, c->block->capacity - c->fill};
}

static void drop(struct wire_connection *c, size_t size)
{
    c->body.window_bytes += size;
    if (!c->close_after) {
        c->discard_bytes -= size;
        if (c->discard_bytes == 0 && c->state == WIRE_DISCARDING)
            wire_connection_set_state(c, WIRE_IDLE);
        return;
    }
    c->discard_bytes += size; /* how much we were patient with */
    if (c->discard_bytes > WIRE_DISCARD_BYTES_MAX && c->state == WIRE_LINGERING)
        wire_connection_close(c);
}

void wire_connection_received(struct wire_connection *c, size_t size)
{
    c->server->stats.bytes_in += size;
    if (c->state == WIRE_CLOSING)
        return;
    if (size == 0) {
        c->eof = true;
        c->socket.reading = false;
        if (c->state == WIRE_DISCARDING || c->state == WIRE_LINGERING) {
            wire_connection_close(c);
            return;
        }
        if (c->peer_watched && (c->state == WIRE_HANDLING || c->state == WIRE_STREAMING)) {
            wire_connection_abort(c, -ERROR_CANCELLED);
            return;
        }
        if (c->state == WIRE_HANDLING)
            wire_deadline_renew(c);
    } else if (wire_connection_dropping(c)) {
        drop(c, size);
    } else if (c->state == WIRE_READ_BODY) {
        wire_body_received(c, size);
    } else {
        c->fill += size;
    }
    wire_connection_process(c);
}

void wire_connection_broken(struct wire_connection *c)
{
    wire_connection_abort(c, -ERROR_CANCELLED);
}

void wire_accept(struct wire_exchange *x, enum wire_body_mode mode, size_t body_bytes_max)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    assert(c->exchange_open && c->state == WIRE_READ_HEAD && !c->accepted && !c->answered);
    c->accepted = true;
    c->body.mode = mode;
    c->body.bytes_max = body_bytes_max;
}

void wire_pause(struct wire_exchange *x)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    if (c->state != WIRE_READ_BODY && c->state != WIRE_READ_HEAD)
        return;
    c->body.paused = true;
    if (!c->processing)
        wire_socket_read_stop(c);
}

void wire_resume(struct wire_exchange *x)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    if (!c->body.paused)
        return;
    c->body.paused = false;
    if (c->state == WIRE_READ_BODY) { /* the peer's rate counts from now */
        c->body.window_bytes = 0;
        wire_deadline_renew(c);
    }
    wire_connection_process(c);
}

bool wire_peer_watch(struct wire_exchange *x)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    assert(c->state == WIRE_HANDLING);
    c->peer_watched = true;
    return !c->eof;
}

void wire_close_after(struct wire_exchange *x)
{
    container_of(x, struct wire_connection, exchange)->close_after = true;
}

void wire_connection_end(void **connection_user)
{
    wire_connection_abort(container_of(connection_user, struct wire_connection, user), -ERROR_CANCELLED);
}
