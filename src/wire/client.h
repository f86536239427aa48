/* A small blocking HTTP/1.1 client for the command line: one request on one connection over a Unix socket.
 *
 * Lives in the CLI process; blocks, with a time-out; needs about 130 KiB of stack. llhttp parses the answer. Knows no
 * resource and no error code of the server: it hands back status and body. An answer that comes before the request is
 * sent (a refusal) counts as the answer. */
#ifndef BULKHEAD_WIRE_CLIENT_H
#define BULKHEAD_WIRE_CLIENT_H

#include "base/buf.h"
#include "base/error.h"

struct wire_client_request {
    const char *method;       /* "GET" … */
    const char *target;       /* path and query, already encoded */
    const char *content_type; /* NULL: none */
    struct str body;          /* sent with Content-Length; ignored when body_fd ≥ 0 */
    int body_fd;              /* -1, or a file whose first body_fd_bytes bytes are sent as the body */
    uint64_t body_fd_bytes;
    uint32_t timeout_ms; /* no progress for so long: failure */
};

/* Sends the request over the Unix socket at `path`; fills status and body (ret_body initialised by the caller with its
 * maximum). Failures: -ERROR_GONE (nobody listens there; the text says what to start), -ERROR_FORBIDDEN (permission on
 * the socket), -ERROR_REQUEST_TIMEOUT, -ERROR_PEER (not HTTP), -ERROR_LIMIT (answer larger than the buffer), -ERROR_IO
 * (the file). On failure ret_body may hold a part of an answer. */
must_check int wire_client_unix(const char *path, const struct wire_client_request *request, int *ret_status,
                                struct buf *ret_body, struct error *err);

#endif
