/* Answers: the head is put together in the server's scratch memory, a small body copied behind it, and both leave with
 * one write(2), a larger body with one writev(2). Only what the kernel does not take at once is kept, in memory of its
 * own. */
#include "base/clock.h"
#include "wire/wire_internal.h"

#include <assert.h>
#include <time.h>

/* Bodies up to this size are copied: cheaper than a second part for the kernel to walk. */
#define COPIED_BYTES_MAX (16 * KIB)

#define LINE(status, reason)                               \
    {                                                      \
        status, STR("HTTP/1.1 " #status " " reason "\r\n") \
    }
static const struct {
    int status;
    struct str line;
} lines[] = {
    LINE(200, "OK"),
    LINE(201, "Created"),
    LINE(202, "Accepted"),
    LINE(204, "No Content"),
    LINE(206, "Partial Content"),
    LINE(301, "Moved Permanently"),
    LINE(302, "Found"),
    LINE(303, "See Other"),
    LINE(304, "Not Modified"),
    LINE(307, "Temporary Redirect"),
    LINE(308, "Permanent Redirect"),
    LINE(400, "Bad Request"),
    LINE(401, "Unauthorized"),
    LINE(403, "Forbidden"),
    LINE(404, "Not Found"),
    LINE(405, "Method Not Allowed"),
    LINE(406, "Not Acceptable"),
    LINE(408, "Request Timeout"),
    LINE(409, "Conflict"),
    LINE(411, "Length Required"),
    LINE(412, "Precondition Failed"),
    LINE(413, "Content Too Large"),
    LINE(414, "URI Too Long"),
    LINE(415, "Unsupported Media Type"),
    LINE(417, "Expectation Failed"),
    LINE(422, "Unprocessable Content"),
    LINE(429, "Too Many Requests"),
    LINE(431, "Request Header Fields Too Large"),
    LINE(499, "Client Closed Request"),
    LINE(500, "Internal Server Error"),
    LINE(501, "Not Implemented"),
    LINE(502, "Bad Gateway"),
    LINE(503, "Service Unavailable"),
    LINE(504, "Gateway Timeout"),
};
#undef LINE

/* A cursor in memory that is large enough for everything but careless handlers' headers. */
struct out {
    char *data, *end;
    bool overflow;
};

static void put(struct out *out, const char *data, size_t size)
{
    if (size > (size_t)(out->end - out->data)) {
        out->overflow = true;
        return;
    }
    if (size > 0)
        memcpy(out->data, data, size);
    out->data += size;
}

#define PUT(out, literal) put((out), "" literal, sizeof(literal) - 1)

/* A control character in a header would let its author write headers, or answers, of his own. */
static void put_clean(struct out *out, const char *data, size_t size)
{
    char *from = out->data;
    put(out, data, size);
    for (char *at = from; at < out->data; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = ' ';
    }
}

static void put_number(struct out *out, uint64_t value)
{
    char digits[20];
    char *at = digits + sizeof(digits);
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put(out, at, (size_t)(digits + sizeof(digits) - at));
}

static void put_status(struct out *out, int status)
{
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (lines[i].status == status) {
            put(out, lines[i].line.data, lines[i].line.size);
            return;
        }
    }
    PUT(out, "HTTP/1.1 ");
    put_number(out, (uint64_t)status);
    PUT(out, " Unknown\r\n");
}

static void put_date(struct out *out, struct wire_server *server)
{
    uint64_t now_ms = wire_socket_now_ms(server);
    if (now_ms >= server->date_until_ms) {
        uint64_t wall_ms = clock_wall_ms();
        time_t seconds = (time_t)(wall_ms / 1000);
        struct tm tm;
        gmtime_r(&seconds, &tm);
        server->date_bytes = strftime(server->date, sizeof(server->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        server->date_until_ms = now_ms + 1000 - wall_ms % 1000;
    }
    put(out, server->date, server->date_bytes);
}

enum connection_header { CONNECTION_DEFAULT = 0, CONNECTION_CLOSE, CONNECTION_KEEP_ALIVE };

static void put_framing(struct out *out, const struct wire_answer *a, enum wire_framing framing)
{
    if (framing == WIRE_FRAMED_CHUNKED) {
        PUT(out, "Transfer-Encoding: chunked\r\n");
    } else if (framing == WIRE_FRAMED_LENGTH && a->status != 204 && a->status != 304) {
        PUT(out, "Content-Length: ");
        put_number(out, a->body.size);
        PUT(out, "\r\n");
    }
    PUT(out, "\r\n");
}

/* Formats a head into the scratch memory. False: the headers do not fit. */
static bool format_head(struct wire_server *server, const struct wire_answer *a, enum connection_header connection,
                        enum wire_framing framing, struct out *out)
{
    *out = (struct out){server->scratch, server->scratch + WIRE_ANSWER_HEAD_BYTES_MAX, false};
    put_status(out, a->status);
    put_date(out, server);
    if (a->content_type) {
        PUT(out, "Content-Type: ");
        put(out, a->content_type, strlen(a->content_type)); /* a constant of the handler's */
        PUT(out, "\r\n");
    }
    for (uint32_t i = 0; i < a->n_headers; i++) {
        put_clean(out, a->headers[i].name.data, a->headers[i].name.size);
        PUT(out, ": ");
        put_clean(out, a->headers[i].value.data, a->headers[i].value.size);
        PUT(out, "\r\n");
    }
    if (connection == CONNECTION_CLOSE)
        PUT(out, "Connection: close\r\n");
    else if (connection == CONNECTION_KEEP_ALIVE)
        PUT(out, "Connection: keep-alive\r\n");
    put_framing(out, a, framing);
    return !out->overflow;
}

static enum connection_header connection_header(const struct wire_connection *c)
{
    if (c->close_after)
        return CONNECTION_CLOSE;
    return c->parser.llhttp.http_minor == 0 ? CONNECTION_KEEP_ALIVE : CONNECTION_DEFAULT;
}

size_t wire_answer_head(struct wire_connection *c, const struct wire_answer *a, enum wire_framing framing)
{
    struct out out;
    bool fits = format_head(c->server, a, connection_header(c), framing, &out);
    return fits ? (size_t)(out.data - c->server->scratch) : 0;
}

static void out_free(struct wire_connection *c)
{
    free(take(&c->out_copy));
    free(take(&c->out_owned));
    wire_memory_give(c, c->out_bytes);
    c->out_bytes = 0;
}

/* What the kernel has not taken goes to libuv: the head, and a body that is not ours, as a copy. */
static void write_rest(struct wire_connection *c, struct iovec *parts, unsigned n_parts, size_t written, char *owned)
{
    struct iovec rest[2];
    unsigned n_rest = 0;
    size_t copy_bytes = 0;
    for (unsigned i = 0; i < n_parts; i++) {
        size_t skip = written < parts[i].iov_len ? written : parts[i].iov_len;
        written -= skip;
        parts[i].iov_base = (char *)parts[i].iov_base + skip;
        parts[i].iov_len -= skip;
        if (i == 0 || !owned)
            copy_bytes += parts[i].iov_len;
    }
    size_t bytes = copy_bytes + (owned && n_parts > 1 ? parts[1].iov_len : 0);
    int result = wire_memory_take(c, bytes);
    c->out_bytes = result < 0 ? 0 : bytes;
    char *at = result < 0 || copy_bytes == 0 ? NULL : malloc(copy_bytes);
    if (result < 0 || (copy_bytes > 0 && !at)) {
        free(owned);
        wire_connection_abort(c, result < 0 ? result : -ERROR_NO_MEMORY);
        return;
    }
    if (copy_bytes > 0) {
        c->out_copy = at;
        for (unsigned i = 0; i < n_parts; i++) {
            if (i == 0 || !owned) {
                memcpy(at, parts[i].iov_base, parts[i].iov_len);
                at += parts[i].iov_len;
            }
        }
        rest[n_rest++] = (struct iovec){c->out_copy, copy_bytes};
    }
    c->out_owned = owned;
    if (owned && n_parts > 1 && parts[1].iov_len > 0)
        rest[n_rest++] = parts[1];
    if (wire_socket_write_later(c, rest, n_rest) < 0) {
        wire_connection_written(c, -1);
        return;
    }
    c->out_seen = wire_socket_pending(c);
    c->out_stalls = 0;
    wire_connection_set_state(c, WIRE_WRITING);
}

static void send_answer(struct wire_connection *c, const struct wire_answer *a, bool with_body)
{
    struct wire_server *server = c->server;
    char *owned = a->body_owned;
    enum connection_header connection = connection_header(c);
    static const struct wire_answer overflow = {.status = 500};
    struct out out;
    if (!format_head(server, a, connection, WIRE_FRAMED_LENGTH, &out)) {
        a = &overflow;
        (void)format_head(server, a, connection, WIRE_FRAMED_LENGTH, &out); /* without headers it fits */
    }
    struct iovec parts[2] = {{server->scratch, (size_t)(out.data - server->scratch)}, {NULL, 0}};
    unsigned n_parts = 1;
    if (with_body && a->body.size > 0 && a->status != 204 && a->status != 304) {
        if (a->body.size <= COPIED_BYTES_MAX) {
            memcpy(out.data, a->body.data, a->body.size);
            parts[0].iov_len += a->body.size;
        } else {
            parts[n_parts++] = (struct iovec){(char *)a->body.data, a->body.size};
        }
    }
    if (n_parts == 1 && owned) {
        free(owned);
        owned = NULL;
    }
    size_t total = parts[0].iov_len + parts[1].iov_len;
    ssize_t written = wire_socket_write(c, parts, n_parts);
    if (written < 0) {
        free(owned);
        wire_connection_abort(c, -ERROR_CANCELLED);
        return;
    }
    server->stats.bytes_out += total;
    if ((size_t)written < total) {
        write_rest(c, parts, n_parts, (size_t)written, owned);
        return;
    }
    free(owned);
    wire_connection_answered(c);
}

void wire_connection_written(struct wire_connection *c, int status)
{
    if (c->stream) {
        wire_stream_written(c, status);
        return;
    }
    out_free(c);
    if (c->state == WIRE_CLOSING)
        return;
    if (status < 0)
        wire_connection_abort(c, -ERROR_CANCELLED);
    else
        wire_connection_answered(c);
}

/* Decides what becomes of the part of the request that is not read yet: skipped, discarded, or the connection ends. */
static void plan_rest(struct wire_connection *c)
{
    c->discard_bytes = 0;
    if (c->state == WIRE_HANDLING)
        return;
    bool unknown = c->exchange.request.chunked && !c->parser.complete;
    uint64_t rest = unknown ? 0 : c->body.remaining;
    /* Who waits for "100 Continue" may now send the body or not: the next bytes could be either. */
    if (unknown || rest > WIRE_DISCARD_BYTES_MAX || (rest > 0 && c->expect_continue))
        c->close_after = c->linger = true;
    else
        c->discard_bytes = rest;
}

void wire_answer(struct wire_exchange *x, const struct wire_answer *answer)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    assert(c->exchange_open && !c->answered && answer->status >= 200 && answer->status <= 599);
    c->answered = true;
    if (answer->close || !x->request.keep_alive || c->server->draining)
        c->close_after = true;
    plan_rest(c);
    send_answer(c, answer, x->request.method != WIRE_HEAD);
}

static void error_fill(struct wire_server *server, int code, const char *text, struct wire_answer *ret_answer)
{
    const struct error_info *info = error_info(code);
    if (!text)
        text = info->text;
    *ret_answer = (struct wire_answer){.status = info->http_status, .content_type = "text/plain"};
    ret_answer->body = str_from(text);
    if (server->handler->error_answer)
        server->handler->error_answer(server->ctx, code, text, ret_answer);
}

void wire_answer_error(struct wire_connection *c, int code, const char *text, bool body)
{
    struct wire_answer answer;
    error_fill(c->server, code, text, &answer);
    send_answer(c, &answer, body);
}

size_t wire_answer_refusal(struct wire_server *server, int code)
{
    struct wire_answer answer;
    error_fill(server, code, NULL, &answer);
    struct out out;
    bool fits = format_head(server, &answer, CONNECTION_CLOSE, WIRE_FRAMED_LENGTH, &out) &&
                answer.body.size <= COPIED_BYTES_MAX;
    if (fits && answer.body.size > 0)
        memcpy(out.data, answer.body.data, answer.body.size);
    size_t size = fits ? (size_t)(out.data - server->scratch) + answer.body.size : 0;
    free(answer.body_owned);
    return size;
}
