/* The command line's client: blocking, one request on one connection. Time-outs are the socket's own (SO_SNDTIMEO and
 * SO_RCVTIMEO), so each counts from the last progress. */
#include "wire/client.h"

#include "base/list.h"

#include <errno.h>
#include <llhttp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

/* Sent and received in pieces of this size; on the stack. */
#define PIECE_BYTES 65536

struct client {
    int fd;
    const struct wire_client_request *request;
    llhttp_t parser;
    bool complete;
    int status;
    struct buf *body;
    struct error *err;
};

static int failed(const struct client *client, const char *doing)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return error_set(client->err, ERROR_REQUEST_TIMEOUT, "no progress for %u ms while %s",
                         client->request->timeout_ms, doing);
    return error_set(client->err, ERROR_GONE, "the connection ended while %s: %s", doing, strerror(errno));
}

static int connect_unix(struct client *client, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (str_copy(str_from(path), address.sun_path, sizeof(address.sun_path)) < 0)
        return error_set(client->err, ERROR_INVALID_ARGUMENT, "the socket's path is longer than %zu bytes: %s",
                         sizeof(address.sun_path) - 1, path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return error_set(client->err, ERROR_IO, "cannot make a socket: %s", strerror(errno));
    uint32_t ms = client->request->timeout_ms;
    struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    if (setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
        setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
        return error_set(client->err, ERROR_IO, "cannot set a socket's time-out: %s", strerror(errno));
    int result;
    do
        result = connect(client->fd, (struct sockaddr *)&address, sizeof(address));
    while (result < 0 && errno == EINTR);
    if (result == 0)
        return 0;
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR)
        return error_set(client->err, ERROR_GONE,
                         "no server listens on %s; start one with 'bulkhead serve', or say which with --admin", path);
    if (errno == EACCES || errno == EPERM)
        return error_set(client->err, ERROR_FORBIDDEN,
                         "no permission on %s; it is for root, the server's user and the group 'bulkhead'", path);
    return failed(client, "connecting");
}

/* 1: sent; 0: the peer stopped listening, perhaps because it has answered already; or an error. */
static int send_all(struct client *client, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EPIPE || errno == ECONNRESET)
                return 0;
            return failed(client, "sending the request");
        }
        data += sent;
        size -= (size_t)sent;
    }
    return 1;
}

static int send_file(struct client *client)
{
    char piece[PIECE_BYTES];
    uint64_t at = 0, end = client->request->body_fd_bytes;
    while (at < end) {
        size_t wanted = end - at < sizeof(piece) ? (size_t)(end - at) : sizeof(piece);
        ssize_t got = pread(client->request->body_fd, piece, wanted, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(client->err, ERROR_IO, "cannot read the file to send: %s", strerror(errno));
        if (got == 0)
            return error_set(client->err, ERROR_IO, "the file became shorter while it was sent");
        int result = send_all(client, piece, (size_t)got);
        if (result <= 0)
            return result;
        at += (uint64_t)got;
    }
    return 1;
}

static bool clean(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text <= ' ' || *text == 0x7f)
            return false;
    }
    return true;
}

static int send_request(struct client *client)
{
    const struct wire_client_request *request = client->request;
    if (!clean(request->method) || !clean(request->target))
        return error_set(client->err, ERROR_INVALID_ARGUMENT, "a method or target may hold no space or control byte");
    _buf_ struct buf head;
    buf_init(&head, PIECE_BYTES);
    buf_format(&head, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", request->method, request->target);
    if (request->content_type)
        buf_format(&head, "Content-Type: %s\r\n", request->content_type);
    bool from_file = request->body_fd >= 0;
    uint64_t body_bytes = from_file ? request->body_fd_bytes : request->body.size;
    if (body_bytes > 0 || strcmp(request->method, "POST") == 0 || strcmp(request->method, "PUT") == 0)
        buf_format(&head, "Content-Length: %llu\r\n", (unsigned long long)body_bytes);
    buf_append_text(&head, "\r\n");
    if (head.failed)
        return error_set(client->err, head.failed, "the request's head is too large");
    int result = send_all(client, head.data, head.size);
    if (result > 0)
        result = from_file ? send_file(client) : send_all(client, request->body.data, request->body.size);
    return result < 0 ? result : 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct client *client = container_of(parser, struct client, parser);
    client->status = llhttp_get_status_code(parser);
    return strcmp(client->request->method, "HEAD") == 0 ? 1 : 0; /* 1: no body follows */
}

static int on_body(llhttp_t *parser, const char *at, size_t size)
{
    struct client *client = container_of(parser, struct client, parser);
    buf_append(client->body, at, size);
    return client->body->failed ? HPE_USER : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct client *client = container_of(parser, struct client, parser);
    if (client->status < 200) /* an interim answer */
        return 0;
    client->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static int receive_answer(struct client *client)
{
    char piece[PIECE_BYTES];
    uint64_t total = 0;
    llhttp_init(&client->parser, HTTP_RESPONSE, &settings);
    while (!client->complete) {
        ssize_t got = recv(client->fd, piece, sizeof(piece), 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return failed(client, "waiting for the answer");
        if (got == 0 && total == 0)
            return error_set(client->err, ERROR_GONE, "the server closed the connection without an answer");
        total += (uint64_t)got;
        enum llhttp_errno result =
            got > 0 ? llhttp_execute(&client->parser, piece, (size_t)got) : llhttp_finish(&client->parser);
        if (client->body->failed)
            return error_set(client->err, client->body->failed, "the answer is larger than %zu bytes",
                             client->body->capacity_max);
        if (!client->complete && (result != HPE_OK || got == 0))
            return error_set(client->err, ERROR_PEER, "the answer is not well-formed HTTP/1.1: %s",
                             got == 0 ? "it ends too early" : llhttp_errno_name(result));
    }
    return 0;
}

int wire_client_unix(const char *path, const struct wire_client_request *request, int *ret_status, struct buf *ret_body,
                     struct error *err)
{
    struct client client = {.fd = -1, .request = request, .body = ret_body, .err = err};
    int result = connect_unix(&client, path);
    if (result == 0)
        result = send_request(&client);
    if (result == 0)
        result = receive_answer(&client);
    fd_close(&client.fd);
    if (result < 0)
        return result;
    *ret_status = client.status;
    return 0;
}
