/* HTTP/1.1 server: bytes in, exchanges out. No policy: it knows no tenant, key, model or route.
 *
 * Lives in the gateway (public listener) and in control (admin socket), on that role's libuv loop, single-threaded.
 * llhttp parses. An *exchange* is one request and its answer. Exchanges of a connection come one after another; a
 * pipelined request is parsed after the answer before it is written.
 *
 * Sequence per exchange:
 *   head(x)               request line and headers are complete. The handler looks at x->request and either
 *                           - calls wire_accept(x, mode, body_bytes_max) and returns, or
 *                           - answers at once (wire_answer); wire then discards or closes, never reads a large body
 *   data(x, chunk)        WIRE_STREAM only: each piece of the body, in order; valid during the call. The handler may
 *                         call wire_pause / wire_resume (back-pressure)
 *   end(x)                the whole request is there. WIRE_WHOLE: x->body is all of it, contiguous, valid until the
 *                         exchange is answered or reset. (A body that lies wholly in the read buffer is not copied.)
 *   reset(x, code)        the peer went away, timed out or broke the protocol before the answer was finished
 *                         (wire answers 400/408/413 itself where it still can), or the server stops. x is gone after
 *                         the call returns. code is negative:
 *                           -ERROR_CANCELLED          the peer is gone, or takes no answer
 *                           -ERROR_REQUEST_TIMEOUT    its body came too slowly
 *                           -ERROR_BODY_TOO_LARGE, -ERROR_HTTP_MALFORMED
 *                           -ERROR_OVERLOADED, -ERROR_NO_MEMORY    no memory for its body, or its answer
 *                           -ERROR_QUEUE_FULL         its owner has its part of that memory
 *                           -ERROR_DRAINING           wire_server_stop
 *   done(x)               the answer is handed to the kernel; x is gone after the call. Every exchange for which head()
 *                         was called gets exactly one of done or reset, last.
 *
 * Handlers may call wire from inside any of these, wire_server_stop included. wire sets SIGPIPE to be ignored.
 *
 * A peer that half-closes (FIN behind its request) is still answered, unless the handler asked for its exchange to end
 * then (wire_peer_watch). While its request is handled it is sent a 100 Continue after a tenth of a second or so, which
 * a peer that has closed altogether answers with a reset: that is how it is noticed before its answer is written (but
 * not of HTTP/1.0, which knows no 100). A handler that neither accepts nor answers in head() is a bug (assert).
 *
 * An answer may stream: wire_stream_begin sends its head, wire_stream_write a piece of the body, as often as there is
 * one, wire_stream_end ends it. What the peer does not take at once is kept, up to a maximum: before that is full the
 * producer is told to stop, and room() tells it to go on. A peer that takes nothing for the write time-out is reset.
 *
 * An answer before the body has arrived: the rest is read and dropped up to 64 KiB and the connection goes on; if more
 * is to come, or nobody knows how much (chunked), or the client waits for 100-continue, the answer says `Connection:
 * close`.
 *
 * Body larger than body_bytes_max: 413 before it is read when Content-Length says so, else as soon as it is crossed.
 * Time-outs (header, body rate, write, idle) and connection limits come from wire_config. Over connections_max
 * see wire_owner. `Expect: 100-continue` is answered once the body is accepted. A request
 * with both Content-Length and Transfer-Encoding, a repeated or malformed Content-Length, an obsolete line folding, or
 * a bad header character is a 400 and a close (request smuggling). */
#ifndef BULKHEAD_WIRE_WIRE_H
#define BULKHEAD_WIRE_WIRE_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#include <sys/types.h>
#include <uv.h>

struct wire_config {
    uint32_t connections_max;
    size_t head_bytes_max; /* request line + headers; over it: 431 (414 when the target alone is too long) */
    uint32_t headers_max;  /* over it: 431 */
    size_t target_bytes_max;
    size_t bodies_bytes_max;   /* sum over connections of bodies, and of what peers have not taken of answers */
    uint32_t head_timeout_ms;  /* first byte of a request → end of its head; 408 */
    uint32_t idle_timeout_ms;  /* between requests; silent close */
    uint32_t write_timeout_ms; /* no byte of an answer taken by the peer for so long (up to a quarter more): close */
    uint32_t body_window_ms;   /* body-rate: fewer than body_rate × window bytes in a window: 408 */
    uint32_t body_rate_bytes_per_s;
};

/* All fields at their defaults of base/limits.h. */
void wire_config_default(struct wire_config *config);

enum wire_method {
    WIRE_GET = 0,
    WIRE_HEAD,
    WIRE_POST,
    WIRE_PUT,
    WIRE_DELETE,
    WIRE_OPTIONS,
    WIRE_OTHER,
    WIRE_METHOD_COUNT
};
extern const char *const wire_method_names[WIRE_METHOD_COUNT];

enum wire_body_mode { WIRE_WHOLE = 0, WIRE_STREAM };

/* Who shares the server with others, for instance a tenant: its connections, and the memory that they hold. A
 * connection is nobody's at first. wire makes it with its first connection and frees it after the last.
 *
 * Memory is that of bodies, and of answers that the peer has not taken: at most bodies_bytes_max, and of one owner as
 * much as all leave free (budget.h). A body that finds no room is refused (body_refused); a connection whose answer
 * finds none is ended, since its peer reads too slowly.
 *
 * When connections_max is reached, a new connection takes the place of one of whoever has most (nobody's count as one
 * owner's; of numbers less than twice apart the smaller may count as most): the one that is longest between two
 * requests or before its first; or, where there is none and the owner has more than an equal share of all connections,
 * one whose body is being received or whose answer is being sent. Where that owner's are all at work, of who has most
 * of the others. Where there is none at all, the new one is answered 503 and closed. */
struct wire_owner;

struct wire_header {
    struct str name;  /* as sent; compare with str_equal_nocase */
    struct str value; /* trimmed */
};

struct wire_request {
    enum wire_method method;
    struct str target; /* as sent: path?query */
    struct str path;   /* before '?'; not percent-decoded (names are DNS-1123, so a '%' matches no route) */
    struct str query;  /* after '?', or empty */
    const struct wire_header *headers; /* [n_headers] */
    uint32_t n_headers;
    int64_t content_length; /* -1: none given (no body, or chunked) */
    bool chunked;
    bool keep_alive; /* the client allows another request */
};

struct wire_answer {
    int status;
    const char *content_type; /* NULL: no header; never a client's bytes (not cleaned) */
    /* [n_headers] further headers; may be NULL. Control bytes in them become spaces; more than 31 KiB together become a
     * 500. Date, Content-Length and Connection are wire's own. */
    const struct wire_header *headers;
    uint32_t n_headers;
    struct str body;  /* copied or written before wire_answer returns unless `body_owned` */
    char *body_owned; /* if set: malloc'd memory that holds body.data; wire frees it when written */
    bool close;       /* close the connection after this answer */
};

struct wire_server;

struct wire_exchange {
    /* read-only for handlers; valid until done/reset */
    struct wire_request request;
    struct str body;     /* WIRE_WHOLE, from end() on */
    uint64_t started_ns; /* first byte of the request */
    struct wire_server *server;
    /* the handler's */
    void *user;             /* NULL at head() */
    void **connection_user; /* one pointer per connection, NULL at first; see handler.closed */
};

struct wire_handler {
    void (*head)(void *ctx, struct wire_exchange *x);
    void (*data)(void *ctx, struct wire_exchange *x, struct str chunk); /* may be NULL when nothing is streamed */
    void (*end)(void *ctx, struct wire_exchange *x);
    /* A body that was accepted cannot be taken: -ERROR_BODY_TOO_LARGE, -ERROR_OVERLOADED, -ERROR_NO_MEMORY,
     * -ERROR_QUEUE_FULL. Answer it before returning; the connection ends then. NULL: wire answers, and resets. */
    void (*body_refused)(void *ctx, struct wire_exchange *x, int code);
    void (*reset)(void *ctx, struct wire_exchange *x, int code);
    void (*done)(void *ctx, struct wire_exchange *x);
    /* An answer that streams and whose producer was told to stop: it may go on. Not called once it was ended. May be
     * NULL when nothing streams. */
    void (*room)(void *ctx, struct wire_exchange *x);
    /* A connection ended; free *connection_user here. May be NULL. */
    void (*closed)(void *ctx, void *connection_user);
    /* The body of an error that wire itself answers (400, 403, 408, 413, 414, 417, 429, 431, 503): fill `answer`, whose
     * status is set, from `code` (negative) and text. body_owned, or memory that lasts until the next call. May be
     * NULL: plain text. */
    void (*error_answer)(void *ctx, int code, const char *text, struct wire_answer *answer);
    /* Unix sockets only: may this peer connect? NULL: yes. */
    bool (*peer_allowed)(void *ctx, uid_t uid, gid_t gid, pid_t pid);
};

/* Takes over a listening TCP or Unix socket (bound and listening already). On success the server owns `fd`; on failure
 * the caller still does. `handler` and `ctx` live as long as the server. */
must_check int wire_server_start(uv_loop_t *loop, int fd, const struct wire_config *config,
                                 const struct wire_handler *handler, void *ctx, struct wire_server **ret_server,
                                 struct error *err);

/* Stops accepting and closes idle connections; connections with an exchange end after its answer (`Connection: close`).
 * `drained` is called once (perhaps at once) when no connection is left; it may call wire_server_stop, which is needed
 * all the same to free the server. */
void wire_server_drain(struct wire_server *server, void (*drained)(void *ctx), void *ctx);

/* Closes everything now (resets exchanges) and frees the server when libuv has closed its handles. Once it returns, no
 * handler is called any more. */
void wire_server_stop(struct wire_server *server);

/* Takes over connections_max and the time-outs of head, idle and write, for connections that are open too; nothing else
 * of `config` is looked at. More connections than the new maximum stay; no further one is taken. */
void wire_server_limits_set(struct wire_server *server, const struct wire_config *config);

struct wire_stats {
    uint32_t connections, connections_peak;
    uint64_t accepted, refused, yielded, requests, bytes_in, bytes_out; /* yielded: closed to make room */
    uint64_t timeouts_head, timeouts_body, timeouts_write, protocol_errors;
    size_t memory_bytes; /* as bodies_bytes_max counts */
};
void wire_server_stats(const struct wire_server *server, struct wire_stats *ret_stats);

/* In head() only: take the body. */
void wire_accept(struct wire_exchange *x, enum wire_body_mode mode, size_t body_bytes_max);
/* In head(), before wire_accept: from now on the connection is that of *owner; where that is NULL, of one that is made.
 * *owner must stay where it is until it is NULL again, its last connection having gone, or wire_owner_forget is called.
 * -ERROR_NO_MEMORY: the connection is whose it was. */
must_check int wire_owner_set(struct wire_exchange *x, struct wire_owner **owner);
/* Whether the connection is that owner's already; false for NULL. */
bool wire_owner_has(const struct wire_owner *owner, const struct wire_exchange *x);
/* Both accept NULL, which has nothing. */
uint32_t wire_owner_connections(const struct wire_owner *owner);
size_t wire_owner_memory(const struct wire_owner *owner);
/* Closes a connection of this owner at which nothing is being done. False: there is none among those looked at. */
bool wire_owner_yield(struct wire_owner *owner);
/* The place of *owner goes away before its connections; accepts NULL in it. */
void wire_owner_forget(struct wire_owner **owner);
/* Answers; exactly once per exchange, from head() on, in the same call or any later loop turn. May be called before the
 * body is read (an early refusal). done() or reset() may be called from inside, and head() of a request that waits
 * behind. answer->body may point into x->body. */
void wire_answer(struct wire_exchange *x, const struct wire_answer *answer);

struct wire_stream_options {
    size_t buffer_bytes_max; /* framing included; at least 256 */
    uint32_t idle_ms;        /* `idle` is sent when nothing else was for so long (up to a second more); 0: never */
    struct str idle;         /* lasts until the stream ends; for instance a comment, which also finds out who is gone */
};
/* From end() on, in place of wire_answer: sends the head of an answer whose body comes later, chunked, or to a client
 * of HTTP/1.0 ended by closing. `head` as for wire_answer, without a body and a Content-Length, and not 204 or 304. To
 * HEAD the head goes out and the pieces are dropped. From here on x->body is gone, and a peer that closes its side
 * counts as gone altogether: it is reset at once. Returns as wire_stream_write. */
must_check int wire_stream_begin(struct wire_exchange *x, const struct wire_answer *head,
                                 const struct wire_stream_options *options);
/* A piece of the body, copied; an empty one sends nothing. Never blocks.
 *    0                  taken, go on
 *    1                  taken, but half of the buffer is full now: stop; room() will be called
 *   -ERROR_AGAIN        not taken: it does not fit into the buffer now (who stops when told to, and whose pieces are
 *                       small beside the buffer, never meets this); room() will be called
 *   -ERROR_LIMIT        not taken: it never fits into the buffer
 *   -ERROR_CANCELLED    the peer is gone; -ERROR_NO_MEMORY: it was let go. reset() was called from inside, x is gone */
must_check int wire_stream_write(struct wire_exchange *x, struct str piece);
/* The body is complete. done() or reset() may be called from inside. A stream that cannot be completed is cut by
 * wire_connection_end, so that the client sees that something is missing. */
void wire_stream_end(struct wire_exchange *x);
/* From end() on: from now on a peer that closes its side (FIN) counts as gone, although HTTP would let it wait for the
 * answer; for answers that are dear to make. A peer that has sent more than a read buffer ahead is not noticed before
 * something is written to it. False: it has closed already. */
must_check bool wire_peer_watch(struct wire_exchange *x);
/* WIRE_STREAM: stop and continue reading. wire_resume may call data() and end() from inside. A paused body has no
 * time-out. */
void wire_pause(struct wire_exchange *x);
void wire_resume(struct wire_exchange *x);
/* Ends this exchange's connection after the current answer (a revoked key, for instance). */
void wire_close_after(struct wire_exchange *x);

/* Ends a connection now, whatever it is doing (an open exchange is reset with -ERROR_CANCELLED): its credential was
 * revoked. `connection_user` as the exchanges of that connection had it; it is closed() from inside. */
void wire_connection_end(void **connection_user);

/* First header of that name, ASCII case ignored; an empty view with data NULL when there is none. */
struct str wire_header_find(const struct wire_request *request, struct str name);

#endif
