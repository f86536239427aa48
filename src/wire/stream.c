/* Answers whose body comes in pieces. A piece goes to the kernel at once; only what it does not take is kept: first
 * `flying`, which is libuv's until it is written, and behind it `waiting`. */
#include "wire/wire_internal.h"

#include <assert.h>

/* A piece is cut into chunks that are framed in the scratch memory. */
#define CHUNK_BYTES_MAX (32 * KIB)
/* Eight digits of its size, and two line ends. */
#define CHUNK_FRAME_BYTES 12u
static const char last_chunk[] = "0\r\n\r\n";

static struct wire_connection *streaming(struct wire_exchange *x)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    assert(c->exchange_open && c->state == WIRE_STREAMING && !c->stream->ended);
    return c;
}

void wire_stream_free(struct wire_connection *c)
{
    struct wire_stream *s = take(&c->stream);
    if (!s)
        return;
    wire_memory_give(c, s->flying.capacity + s->waiting.capacity);
    buf_done(&s->flying);
    buf_done(&s->waiting);
    free(s);
}

static int let_go(struct wire_connection *c, int code)
{
    wire_connection_abort(c, code);
    return code;
}

static size_t kept_bytes(const struct wire_stream *s)
{
    return s->flying.size + s->waiting.size;
}

/* Gives `flying` to libuv. */
static int fly(struct wire_connection *c)
{
    struct iovec part = {c->stream->flying.data, c->stream->flying.size};
    return wire_socket_write_later(c, &part, 1) < 0 ? let_go(c, -ERROR_CANCELLED) : 0;
}

/* To the kernel, or behind what it has not taken. On failure the exchange was reset. */
static int send_bytes(struct wire_connection *c, const char *data, size_t size)
{
    struct wire_stream *s = c->stream;
    bool first = s->flying.size == 0;
    c->server->stats.bytes_out += size;
    s->given += size;
    if (first) {
        struct iovec part = {(char *)data, size};
        ssize_t written = wire_socket_write(c, &part, 1);
        if (written < 0)
            return let_go(c, -ERROR_CANCELLED);
        if ((size_t)written == size)
            return 0;
        data += written;
        size -= (size_t)written;
    }
    struct buf *rest = first ? &s->flying : &s->waiting;
    size_t before = rest->capacity;
    buf_append(rest, data, size);
    if (rest->failed)
        return let_go(c, -ERROR_NO_MEMORY);
    int result = wire_memory_take(c, rest->capacity - before);
    if (result < 0)
        return let_go(c, result);
    return first ? fly(c) : 0;
}

static int verdict(struct wire_stream *s)
{
    if (kept_bytes(s) <= s->bytes_max / 2)
        return 0;
    s->stopped = true;
    return 1;
}

static struct wire_stream *stream_new(struct wire_connection *c, const struct wire_stream_options *options)
{
    struct wire_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    /* Beyond the maximum: a head that nobody reads, and the last chunk. */
    size_t capacity_max = options->buffer_bytes_max + WIRE_ANSWER_HEAD_BYTES_MAX + sizeof(last_chunk);
    buf_init(&s->flying, capacity_max);
    buf_init(&s->waiting, capacity_max);
    s->bytes_max = options->buffer_bytes_max;
    s->idle = options->idle;
    s->idle_ms = options->idle_ms;
    s->chunked = c->parser.llhttp.http_minor > 0;
    s->bodyless = c->exchange.request.method == WIRE_HEAD;
    s->written_ms = s->taken_ms = wire_socket_now_ms(c->server);
    return s;
}

int wire_stream_begin(struct wire_exchange *x, const struct wire_answer *head,
                      const struct wire_stream_options *options)
{
    static const struct wire_answer overflow = {.status = 500};
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    assert(c->exchange_open && !c->answered && c->state == WIRE_HANDLING && options->buffer_bytes_max >= 256);
    assert(head->status >= 200 && head->status != 204 && head->status != 304 && head->status <= 599);
    assert(head->body.size == 0 && !head->body_owned);
    struct wire_stream *s = stream_new(c, options);
    if (!s)
        return let_go(c, -ERROR_NO_MEMORY);
    c->stream = s;
    c->answered = c->peer_watched = true;
    c->discard_bytes = 0;
    if (head->close || !x->request.keep_alive || c->server->draining)
        c->close_after = true;
    if (!s->chunked && !s->bodyless) /* its end is our FIN, which must not be overtaken by an RST */
        c->close_after = c->linger = true;
    wire_body_release(c);
    x->body = (struct str){0};
    enum wire_framing framing = s->chunked ? WIRE_FRAMED_CHUNKED : WIRE_FRAMED_CLOSE;
    size_t size = wire_answer_head(c, head, framing);
    if (size == 0)
        size = wire_answer_head(c, &overflow, framing); /* without headers it fits */
    wire_connection_set_state(c, WIRE_STREAMING);
    int result = send_bytes(c, c->server->scratch, size);
    return result < 0 ? result : verdict(s);
}

static int send_chunk(struct wire_connection *c, struct str piece)
{
    static const char digits[] = "0123456789abcdef";
    char *at = c->server->scratch;
    if (c->stream->chunked) {
        int shift = 28;
        while (!(piece.size >> shift & 15))
            shift -= 4;
        for (; shift >= 0; shift -= 4)
            *at++ = digits[piece.size >> shift & 15];
        *at++ = '\r';
        *at++ = '\n';
    }
    memcpy(at, piece.data, piece.size);
    at += piece.size;
    if (c->stream->chunked) {
        *at++ = '\r';
        *at++ = '\n';
    }
    return send_bytes(c, c->server->scratch, (size_t)(at - c->server->scratch));
}

int wire_stream_write(struct wire_exchange *x, struct str piece)
{
    struct wire_connection *c = streaming(x);
    struct wire_stream *s = c->stream;
    if (piece.size == 0 || s->bodyless) /* an empty chunk would be the last */
        return 0;
    size_t n_chunks = (piece.size - 1) / CHUNK_BYTES_MAX + 1;
    size_t framed = piece.size + n_chunks * CHUNK_FRAME_BYTES; /* piece.size is of memory: far from the end of size_t */
    if (framed > s->bytes_max)
        return -ERROR_LIMIT;
    if (kept_bytes(s) > s->bytes_max - framed) {
        s->stopped = true;
        return -ERROR_AGAIN;
    }
    s->written_ms = wire_socket_now_ms(c->server);
    while (piece.size > 0) {
        size_t size = piece.size < CHUNK_BYTES_MAX ? piece.size : CHUNK_BYTES_MAX;
        int result = send_chunk(c, (struct str){piece.data, size});
        if (result < 0)
            return result;
        piece = str_skip(piece, size);
    }
    return verdict(s);
}

static void finish(struct wire_connection *c)
{
    wire_stream_free(c);
    wire_connection_answered(c);
}

void wire_stream_end(struct wire_exchange *x)
{
    struct wire_connection *c = streaming(x);
    struct wire_stream *s = c->stream;
    s->ended = true;
    if (s->chunked && !s->bodyless && send_bytes(c, last_chunk, sizeof(last_chunk) - 1) < 0)
        return;
    if (kept_bytes(s) == 0) {
        finish(c);
        return;
    }
    c->out_seen = wire_socket_pending(c) + s->waiting.size;
    c->out_stalls = 0;
    wire_connection_set_state(c, WIRE_WRITING);
}

void wire_stream_written(struct wire_connection *c, int status)
{
    struct wire_stream *s = c->stream;
    if (c->state == WIRE_CLOSING)
        return; /* freed with the connection */
    if (status < 0) {
        (void)let_go(c, -ERROR_CANCELLED);
        return;
    }
    struct buf written = s->flying;
    s->flying = s->waiting;
    s->waiting = written;
    buf_clear(&s->waiting);
    if (s->flying.size > 0 && fly(c) < 0)
        return;
    if (s->ended && kept_bytes(s) == 0) {
        finish(c);
    } else if (!s->ended && s->stopped && kept_bytes(s) <= s->bytes_max / 4) {
        s->stopped = false;
        c->server->handler->room(c->server->ctx, &c->exchange);
    }
}

void wire_stream_look(struct wire_connection *c)
{
    struct wire_stream *s = c->stream;
    uint64_t now_ms = wire_socket_now_ms(c->server);
    uint64_t pending = wire_socket_pending(c) + s->waiting.size;
    uint64_t taken = s->given > pending ? s->given - pending : 0;
    uint32_t timeout_ms = c->server->config.write_timeout_ms;
    if (pending == 0 || taken > s->taken)
        s->taken_ms = now_ms;
    s->taken = taken;
    if (timeout_ms > 0 && now_ms - s->taken_ms >= timeout_ms) {
        c->server->stats.timeouts_write++;
        wire_connection_abort(c, -ERROR_CANCELLED);
    } else if (pending == 0 && s->idle_ms > 0 && s->idle.size > 0 && now_ms - s->written_ms >= s->idle_ms) {
        (void)!wire_stream_write(&c->exchange, s->idle); /* nothing is kept: taken, or reset */
    }
}
