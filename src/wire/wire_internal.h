/* Private parts of the HTTP/1.1 server: what its files share. Nobody outside src/wire includes this.
 *
 *   socket.c      libuv: the only file that touches a stream; tests and the fuzzer replace it whole
 *   server.c      listener, accepting, draining, stopping
 *   connection.c  the state machine of a connection, from bytes to handler calls
 *   parse.c       llhttp: where a head ends, what chunks hold        request.c  what a head must satisfy
 *   body.c        where body bytes go                                block.c    read buffers and their pool
 *   answer.c      heads of answers, writing them                     deadline.c time-outs
 *   stream.c      answers whose body comes in pieces                 sse.c      server-sent events in such a body
 *   owner.c       whose connections and bodies they are; who gives way
 *
 * States of a connection (legal moves: connection.c; what ends a state that lasts too long: deadline.c):
 *
 *              bytes           head()+accept       whole body          wire_answer
 *      IDLE ─────────► HEAD ─────────────► BODY ─────────► HANDLING ───────────────┐
 *       ▲               │ no body ────────────────────────────▲                    │
 *       │               │                  │                                       ▼
 *       │               └── answered early ┴──────────────► (WRITING, if the kernel took only a part)
 *       │                   HANDLING ─ wire_stream_begin ─► STREAMING ─ …_end ─────┤ (WRITING likewise)
 *       │                                                                          │
 *       ├────────────────────────── keep-alive, nothing unread ────────────────────┤
 *       └───────── DISCARDING ◄──── keep-alive, ≤ 64 KiB of the body unread ───────┤
 *                  LINGERING  ◄──── closing, but the peer may still be sending ────┤
 *                  CLOSING    ◄──── from anywhere ─────────────────────────────────┘ */
#ifndef BULKHEAD_WIRE_INTERNAL_H
#define BULKHEAD_WIRE_INTERNAL_H

#include "base/budget.h"
#include "base/buf.h"
#include "base/list.h"
#include "wire/wire.h"

#include <llhttp.h>
#include <sys/uio.h>

/* A read buffer's first size: a head of the usual few hundred bytes and a small body, so that neither is copied. */
#define WIRE_BLOCK_BYTES (8 * KIB)
/* A grown read buffer holds the largest head and this much behind it (chunked bodies are decoded there). */
#define WIRE_BLOCK_SLACK_BYTES (4 * KIB)
/* Blocks kept for reuse; 256 × 12 KiB = 3 MiB. */
#define WIRE_BLOCKS_SPARE_MAX 256u
/* Answers that fit are copied behind their head and leave with one write(2). */
#define WIRE_SCRATCH_BYTES (64 * KIB)
/* The unread rest of a refused request: read and dropped up to here, cut off beyond. */
#define WIRE_DISCARD_BYTES_MAX (64 * KIB)
/* How long a connection that we end waits for the peer to stop sending. */
#define WIRE_LINGER_MS 2000u
/* The head of an answer takes at most this much of the scratch memory. */
#define WIRE_ANSWER_HEAD_BYTES_MAX (WIRE_SCRATCH_BYTES / 2)
/* A look at a stream; more often where the write time-out is short. */
#define WIRE_STREAM_LOOK_MS 1000u
/* How long a peer that has sent its FIN is believed to wait for its answer before it is asked (again); looked at with
 * the server's tick. */
#define WIRE_PEER_MS 100u
/* Body memory: first allocation; then doubled up to what was announced. */
#define WIRE_BODY_FIRST_BYTES (16 * KIB)
/* WIRE_STREAM: largest chunk. One read(2) takes at most WIRE_READ_BYTES_MAX, so that a fast peer cannot keep the loop
 * (libuv reads up to 32 times per turn). */
#define WIRE_STREAM_BYTES   (64 * KIB)
#define WIRE_READ_BYTES_MAX (128 * KIB)
/* Chunked framing (sizes, extensions, trailers) beyond this plus 16 bytes per body byte is an attack on our CPU. */
#define WIRE_FRAMING_BYTES_MAX (16 * KIB)
/* Accepted per loop turn. */
#define WIRE_ACCEPT_BATCH 64

/* ---- read buffers: block.c ---- */

/* Held from the first byte of a request to the end of its answer; an idle connection has none. */
struct wire_block {
    struct wire_block *next;
    char *data; /* behind the headers, or malloc'd when grown */
    size_t capacity;
    struct wire_header *headers; /* [config.headers_max] */
};

struct wire_connection;

must_check struct wire_block *wire_block_take(struct wire_server *server);
void wire_block_give(struct wire_server *server, struct wire_block *block); /* NULL allowed */
/* At least `bytes` free behind c->fill: moves the present request to the front of the block, or grows it once.
 * -ERROR_NO_MEMORY. Not once the handler has seen the request (its views point into the block). */
must_check int wire_block_room(struct wire_connection *c, size_t bytes);

/* ---- parsing: parse.c, request.c ---- */

struct wire_parser {
    llhttp_t llhttp; /* first: callbacks get back from it */
    const struct wire_config *config;
    struct wire_header *headers; /* [config->headers_max] */
    uint32_t n_headers;
    struct str target;
    size_t scanned; /* bytes of this head that llhttp has seen */
    /* chunked bodies */
    char *decoded_end;
    uint64_t body_bytes, framing_bytes;
    bool in_body, complete;
    /* why a callback stopped llhttp; 0: llhttp's own opinion */
    int code;
};

void wire_parser_start(struct wire_parser *p, const struct wire_config *config, struct wire_header *headers);
/* data[size] is all there is of the request so far, data[p->scanned…] not seen yet. Returns the size of the head when
 * complete, 0 when more is needed, or -ERROR_HTTP_MALFORMED, -ERROR_URI_TOO_LONG, -ERROR_HEADERS_TOO_LARGE. */
must_check int wire_parser_head(struct wire_parser *p, const char *data, size_t size);
/* The bytes of the head now lie elsewhere. */
void wire_parser_moved(struct wire_parser *p, const char *from, const char *to);
/* Chunked body: decodes data[size] in place (the body's bytes move to the front). Returns 1 at the end of the body, 0
 * when more is needed, or -ERROR_HTTP_MALFORMED. ret_consumed < size only at the end: the next request starts there. */
must_check int wire_parser_chunks(struct wire_parser *p, char *data, size_t size, size_t *ret_decoded,
                                  size_t *ret_consumed);

/* What llhttp leaves open: the request line byte by byte, Host, Content-Length, Transfer-Encoding, Expect. Fills
 * `ret_request`. -ERROR_HTTP_MALFORMED or -ERROR_EXPECTATION_FAILED, with ret_text set to a static explanation. */
must_check int wire_request_read(const struct wire_parser *p, struct str head, struct wire_request *ret_request,
                                 bool *ret_expect_continue, const char **ret_text);

/* ---- connections ---- */

enum wire_state {
    WIRE_IDLE = 0,   /* between requests: nothing of the next one is here */
    WIRE_READ_HEAD,  /* a head is incomplete, or head() is being called */
    WIRE_READ_BODY,  /* accepted; the body is incomplete */
    WIRE_HANDLING,   /* the handler holds the whole request */
    WIRE_STREAMING,  /* an answer has begun, and more of it will come */
    WIRE_WRITING,    /* answered; the kernel has not taken everything */
    WIRE_DISCARDING, /* answered; reading the unwanted rest of the body */
    WIRE_LINGERING,  /* answered and shut down for writing; dropping what still comes, so that no RST overtakes it */
    WIRE_CLOSING,    /* given to libuv to close */
    WIRE_STATE_COUNT
};
extern const char *const wire_state_names[WIRE_STATE_COUNT];

enum wire_deadline {
    WIRE_DEADLINE_NONE = 0,
    WIRE_DEADLINE_IDLE,
    WIRE_DEADLINE_HEAD,
    WIRE_DEADLINE_BODY,   /* a window of the body rate */
    WIRE_DEADLINE_WRITE,  /* a quarter of the write time-out */
    WIRE_DEADLINE_STREAM, /* a look at a stream: is it taken, is it idle? */
    WIRE_DEADLINE_LINGER,
    WIRE_DEADLINE_PEER, /* a peer that sends no more, while its request is handled: is it still there? */
    WIRE_DEADLINE_COUNT
};

enum wire_body_kind {
    WIRE_BODY_NONE = 0,
    WIRE_BODY_IN_PLACE, /* known length, all of it fits behind the head */
    WIRE_BODY_MEMORY,   /* known length, WIRE_WHOLE, own memory */
    WIRE_BODY_STREAM,   /* known length, WIRE_STREAM */
    WIRE_BODY_CHUNKED   /* decoded behind the head; WIRE_WHOLE gathers it in own memory */
};

struct wire_body {
    enum wire_body_kind kind;
    enum wire_body_mode mode;
    size_t bytes_max;      /* the handler's limit */
    uint64_t remaining;    /* known length: bytes that have not arrived */
    uint64_t window_bytes; /* arrived in the present window of the body rate */
    char *memory;
    size_t size, capacity; /* of memory */
    bool paused;
};

/* The libuv side; only socket.c looks inside. */
struct wire_socket {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    uv_write_t write;
    bool reading;
};

/* An answer that streams. */
struct wire_stream {
    /* What the kernel has not taken: `flying` is libuv's until it is written, what came since then waits. */
    struct buf flying, waiting;
    size_t bytes_max;
    struct str idle;
    uint32_t idle_ms;
    bool chunked;
    bool bodyless; /* the answer to HEAD */
    bool stopped;  /* the producer was told to stop */
    bool ended;
    uint64_t given, taken; /* bytes of the answer so far; of them, what the peer had taken at the last look */
    uint64_t taken_ms;     /* when it had last taken something, or there was nothing to take */
    uint64_t written_ms;   /* last piece */
};

struct wire_connection {
    struct wire_socket socket;
    struct wire_server *server;
    struct list all;      /* server->connections */
    struct list deadline; /* server->deadlines[] */
    uint64_t deadline_ms;
    struct wire_owner *owner; /* NULL once it is closing */
    struct list in_owner;
    size_t held_bytes; /* of server->memory: its body, and what the peer has not taken of an answer */
    uint64_t opened_ms;
    bool deadline_stale;   /* the state changed since the deadline was set; done once per process() */
    enum wire_state state; /* changed by wire_connection_set_state only */
    bool eof;              /* the peer has sent everything it will */
    bool processing;       /* wire_connection_process is on the stack */
    bool exchange_open;    /* head() was called, neither done nor reset yet */
    bool accepted, answered;
    bool served;          /* a request of it was answered */
    bool peer_watched;    /* a FIN ends the exchange */
    bool expect_continue; /* the client waits for our word before it sends the body */
    bool probed;          /* it was sent a 100 to find out whether anybody is there */
    bool close_after;     /* no further request after this answer */
    bool linger;          /* … and the peer may still be sending */
    void *user;
    /* reading: block->data[begin, fill) has arrived; [begin, begin+head_bytes) is the present head; the next request
     * starts at `next` */
    struct wire_block *block;
    size_t begin, fill, next, head_bytes;
    uint64_t discard_bytes; /* of the answered request's body, not arrived yet; or, lingering, what was dropped */
    struct wire_parser parser;
    struct wire_body body;
    /* writing */
    char *out_copy, *out_owned; /* in libuv's queue; freed when written */
    size_t out_bytes;           /* of both, held */
    size_t out_seen;            /* pending at the last look, and how often it had not moved */
    uint32_t out_stalls;
    struct wire_stream *stream; /* NULL: the answer does not stream */
    struct wire_exchange exchange;
};

void wire_connection_set_state(struct wire_connection *c, enum wire_state to);
/* Handles what has arrived as far as it goes. Safe anywhere: inside itself it does nothing. */
void wire_connection_process(struct wire_connection *c);
/* The answer to the present request is with the kernel. */
void wire_connection_answered(struct wire_connection *c);
/* Ends everything without a word to the peer: reset() if an exchange is open, then close. */
void wire_connection_abort(struct wire_connection *c, int code);
/* The same, but the peer is told why. text NULL: the code's default. */
void wire_connection_fail(struct wire_connection *c, int code, const char *text);
void wire_connection_close(struct wire_connection *c);
/* In WIRE_HANDLING, after the peer's FIN: finds out whether it only sends no more or is gone; then aborts. */
void wire_connection_probe(struct wire_connection *c);
/* In WIRE_IDLE, in the server's list, without a socket yet. NULL: out of memory. */
must_check struct wire_connection *wire_connection_new(struct wire_server *server);
/* After its socket is closed. */
void wire_connection_free(struct wire_connection *c);
/* Is what arrives now thrown away? */
static inline bool wire_connection_dropping(const struct wire_connection *c)
{
    return c->state == WIRE_DISCARDING || c->state == WIRE_LINGERING ||
           (c->state == WIRE_WRITING && (c->close_after || c->discard_bytes > 0));
}

/* ---- bodies: body.c ---- */

/* Before head(): how much of a body of known length is already there (c->next, c->body.remaining). */
void wire_body_measure(struct wire_connection *c);
/* After wire_accept. -ERROR_BODY_TOO_LARGE, -ERROR_OVERLOADED, -ERROR_NO_MEMORY. */
must_check int wire_body_start(struct wire_connection *c);
/* Where to read to in WIRE_READ_BODY; then tell what came. */
struct iovec wire_body_space(struct wire_connection *c);
void wire_body_received(struct wire_connection *c, size_t size);
/* Delivers what has arrived (WIRE_STREAM), makes room for more. 1: complete, and x->body is set; 0: more is needed, or
 * the handler paused, answered or went away meanwhile; or an error as above or -ERROR_HTTP_MALFORMED. */
must_check int wire_body_advance(struct wire_connection *c);
void wire_body_release(struct wire_connection *c);

/* ---- owners: owner.c ---- */

/* An owner with n connections is in list log2(n): exact enough, and a connection more or less moves it seldom. */
#define WIRE_OWNER_RANKS 32u
/* Connections looked at for one that gives way, of one owner and of all. */
#define WIRE_YIELD_SCAN     64u
#define WIRE_YIELD_SCAN_ALL 256u
/* The first request of a connection that is younger may lie in the socket, unread: it does not give way. */
#define WIRE_YIELD_AGE_MS 10u

struct wire_owner {
    struct wire_server *server;
    struct wire_owner **place; /* the caller's pointer to it; NULL: nobody's, or forgotten */
    struct list connections;   /* wire_connection.in_owner; those looked at in vain are moved to the end */
    struct list in_rank;       /* server->owners[]; unlinked while it has no connections */
    uint32_t n_connections;
    struct budget_share memory;
};

void wire_owners_init(struct wire_server *server);
/* A new connection is nobody's. */
void wire_owner_join(struct wire_owner *owner, struct wire_connection *c);
/* Does nothing for one that has left. */
void wire_owner_leave(struct wire_connection *c);
/* Closes a connection to make room for another; false: none gives way. */
bool wire_owners_yield(struct wire_server *server);
/* Counts memory for a body or an answer, as budget_take. What a connection holds is given back when it closes. */
must_check int wire_memory_take(struct wire_connection *c, size_t bytes);
void wire_memory_give(struct wire_connection *c, size_t bytes);

/* ---- answers: answer.c, stream.c ---- */

enum wire_framing { WIRE_FRAMED_LENGTH = 0, WIRE_FRAMED_CHUNKED, WIRE_FRAMED_CLOSE };
/* Formats the head of an answer into server->scratch; returns its size, at most WIRE_ANSWER_HEAD_BYTES_MAX. 0: its
 * headers do not fit. */
size_t wire_answer_head(struct wire_connection *c, const struct wire_answer *a, enum wire_framing framing);
/* libuv has written what was flying. */
void wire_stream_written(struct wire_connection *c, int status);
/* A look at it, every now and then: is it taken, is it idle? */
void wire_stream_look(struct wire_connection *c);
void wire_stream_free(struct wire_connection *c); /* also where there is none */
/* What waits behind the bytes that libuv has. */
static inline size_t wire_stream_waiting(const struct wire_connection *c)
{
    return c->stream ? c->stream->waiting.size : 0;
}

/* Writes an answer of wire's own (no exchange). */
void wire_answer_error(struct wire_connection *c, int code, const char *text, bool body);
/* Formats an error answer into server->scratch, for a socket that gets no connection; returns its size. */
size_t wire_answer_refusal(struct wire_server *server, int code);

/* ---- time-outs: deadline.c ---- */

void wire_deadlines_init(struct wire_server *server);
/* Gives the list a new time-out, as if its connections had come with it. 0: none. */
void wire_deadlines_set(struct wire_server *server, enum wire_deadline kind, uint32_t timeout_ms);
/* How often a stream is looked at. */
uint32_t wire_deadline_stream_ms(uint32_t write_timeout_ms);
/* Puts c into the list of its state, or renews its place there. */
void wire_deadline_renew(struct wire_connection *c);
/* Called by the timer. */
void wire_deadlines_scan(struct wire_server *server);
/* Between scans: a quarter of the shortest time-out, 10…250 ms. */
uint32_t wire_deadlines_tick_ms(const struct wire_server *server);

/* ---- the server ---- */

struct wire_deadline_list {
    struct list head; /* by deadline: each list has one time-out, so appending keeps the order */
    uint32_t timeout_ms;
};

struct wire_server {
    uv_loop_t *loop;
    struct wire_config config;
    const struct wire_handler *handler;
    void *ctx;
    struct wire_stats stats;
    struct list connections;
    struct wire_deadline_list deadlines[WIRE_DEADLINE_COUNT];
    struct budget memory; /* bodies, and answers that peers have not taken */
    struct wire_owner nobody;
    struct list owners[WIRE_OWNER_RANKS];
    uint32_t n_owners;  /* that have connections, nobody among them */
    uint32_t n_closing; /* of stats.connections: libuv has them still, their descriptors are closed */
    struct wire_block *spare;
    uint32_t n_spare;
    char *scratch; /* [WIRE_SCRATCH_BYTES]: answers are put together here, and unwanted bytes dropped */
    char date[40]; /* "Date: …\r\n", good until date_until_ms */
    size_t date_bytes;
    uint64_t date_until_ms;
    /* listening */
    int fd; /* -1: not any more */
    bool is_unix;
    uv_poll_t listener;
    uv_timer_t timer;
    bool accept_paused; /* out of descriptors; the timer tries again */
    uint32_t n_handles; /* of libuv, not closed yet */
    bool draining, stopped;
    void (*drained)(void *ctx);
    void *drained_ctx;
};

/* A server that listens nowhere yet. NULL: out of memory. */
must_check struct wire_server *wire_server_new(const struct wire_config *config, const struct wire_handler *handler,
                                               void *ctx);
void wire_server_free(struct wire_server *server);
/* A connection's handle is closed: forget it, tell the drainer, free the server if it was the last. */
void wire_server_forget(struct wire_server *server, struct wire_connection *c);

/* ---- the socket: socket.c, replaced by tests without one ---- */

uint64_t wire_socket_now_ms(const struct wire_server *server); /* the loop's time: taken once per turn */
must_check int wire_socket_open(struct wire_connection *c, int fd);
void wire_socket_read_start(struct wire_connection *c);
void wire_socket_read_stop(struct wire_connection *c);
/* Reads and drops what lies there: a socket that is closed with unread bytes sends an RST, which may overtake what was
 * written last. */
void wire_socket_drop(struct wire_connection *c);
/* Bytes the kernel took, perhaps 0; negative: the connection is broken. */
must_check ssize_t wire_socket_write(struct wire_connection *c, const struct iovec *parts, unsigned n_parts);
/* Queues the rest; wire_socket_done comes later. The memory stays until then. */
must_check int wire_socket_write_later(struct wire_connection *c, const struct iovec *parts, unsigned n_parts);
/* Bytes of queued answers that the peer has not taken: in libuv's queue and in the kernel's, which tells us of its own
 * progress in steps of a megabyte only. */
size_t wire_socket_pending(const struct wire_connection *c);
/* The peer has reset the connection: a write would fail. Of a TCP socket whose reading has ended. */
bool wire_socket_reset(const struct wire_connection *c);
void wire_socket_shutdown(struct wire_connection *c);
void wire_socket_close(struct wire_connection *c);
/* Called by the socket. An empty space: no memory, the socket closes. size 0: the peer has sent everything. */
struct iovec wire_connection_space(struct wire_connection *c);
void wire_connection_received(struct wire_connection *c, size_t size);
void wire_connection_broken(struct wire_connection *c);
void wire_connection_written(struct wire_connection *c, int status);

#endif
