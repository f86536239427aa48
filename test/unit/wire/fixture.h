/* A real server on a loop of its own, its handler under the test's command, and peers that speak raw bytes to it. All
 * in one thread: the test waits by turning the loop, up to a generous ceiling. */
#ifndef BULKHEAD_TEST_WIRE_FIXTURE_H
#define BULKHEAD_TEST_WIRE_FIXTURE_H

#include "base/buf.h"
#include "base/clock.h"
#include "wire/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CEILING_NS (15 * NS_PER_S)

enum act {
    ACT_ECHO = 0, /* accept, answer at the end with "METHOD path query body_bytes" */
    ACT_HOLD,     /* accept, keep the exchange in f->held */
    ACT_REFUSE,   /* 401 in head() */
    ACT_REFUSE_CLOSE,
    ACT_STREAM,
    ACT_STREAM_PAUSE, /* pause at each chunk */
    ACT_STREAM_ANSWER /* answer at the first chunk */
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick; /* a turn never lasts longer than this */
    struct wire_server *server;
    struct wire_config config;
    bool is_unix;
    struct sockaddr_storage address;
    socklen_t address_bytes;
    /* orders */
    enum act act;
    size_t body_bytes_max;
    size_t answer_bytes; /* 0: the echo */
    bool answer_owned, answer_close;
    int answer_status;
    const struct wire_header *answer_headers;
    uint32_t n_answer_headers;
    bool peer_refused;
    struct wire_owner **owner; /* of the next requests' connections; NULL: they stay whose they are */
    bool stop_in_head, stop_in_end, stop_in_done, drain_in_end;
    /* observations */
    unsigned heads, ends, resets, dones, closeds, drains, stops;
    int reset_code;
    uint64_t data_bytes, data_sum;
    unsigned datas;
    char last_body[64]; /* its first bytes */
    size_t last_body_bytes;
    struct wire_exchange *held;
    unsigned users; /* connection_users given out and not returned */
};

struct peer {
    int fd;
    char *in;
    size_t size, capacity;
    bool eof;
    int error;
};

static inline void fixture_stop_server(struct fixture *f)
{
    f->stops++;
    struct wire_server *server = f->server;
    f->server = NULL;
    wire_server_stop(server);
}

static inline void fixture_drained(void *ctx)
{
    ((struct fixture *)ctx)->drains++;
}

static inline void fixture_answer(struct fixture *f, struct wire_exchange *x, int status)
{
    char echo[512];
    const struct wire_request *q = &x->request;
    int n = snprintf(echo, sizeof(echo), "%s %.*s %.*s %zu", wire_method_names[q->method], STR_ARG(q->path),
                     STR_ARG(q->query), x->body.size);
    if ((size_t)n >= sizeof(echo))
        n = (int)sizeof(echo) - 1;
    struct wire_answer a = {.status = f->answer_status ? f->answer_status : status,
                            .content_type = "text/plain",
                            .headers = f->answer_headers,
                            .n_headers = f->n_answer_headers,
                            .body = {echo, (size_t)n},
                            .close = f->answer_close};
    char *big = NULL;
    if (f->answer_bytes > 0) {
        big = malloc(f->answer_bytes);
        assert_non_null(big);
        for (size_t i = 0; i < f->answer_bytes; i++)
            big[i] = (char)('a' + i % 23);
        a.body = (struct str){big, f->answer_bytes};
        if (f->answer_owned)
            a.body_owned = big;
    }
    wire_answer(x, &a);
    if (!f->answer_owned)
        free(big);
}

static inline void fixture_head(void *ctx, struct wire_exchange *x)
{
    struct fixture *f = ctx;
    f->heads++;
    assert_null(x->user);
    assert_ptr_equal(x->server, f->server);
    assert_true(x->started_ns > 0);
    if (!*x->connection_user) {
        *x->connection_user = malloc(1);
        f->users++;
    }
    if (f->owner)
        assert_int_equal(wire_owner_set(x, f->owner), 0);
    if (f->stop_in_head) {
        fixture_stop_server(f);
        return;
    }
    if (f->act == ACT_REFUSE || f->act == ACT_REFUSE_CLOSE) {
        f->answer_close = f->act == ACT_REFUSE_CLOSE;
        fixture_answer(f, x, 401);
        return;
    }
    bool stream = f->act == ACT_STREAM || f->act == ACT_STREAM_PAUSE || f->act == ACT_STREAM_ANSWER;
    wire_accept(x, stream ? WIRE_STREAM : WIRE_WHOLE, f->body_bytes_max);
}

static inline void fixture_data(void *ctx, struct wire_exchange *x, struct str chunk)
{
    struct fixture *f = ctx;
    assert_true(chunk.size > 0);
    f->datas++;
    f->data_bytes += chunk.size;
    for (size_t i = 0; i < chunk.size; i++)
        f->data_sum = f->data_sum * 31 + (unsigned char)chunk.data[i];
    if (f->act == ACT_STREAM_PAUSE) {
        wire_pause(x);
        f->held = x;
    }
    if (f->act == ACT_STREAM_ANSWER)
        fixture_answer(f, x, 200);
}

static inline void fixture_end(void *ctx, struct wire_exchange *x)
{
    struct fixture *f = ctx;
    f->ends++;
    f->last_body_bytes = x->body.size;
    memset(f->last_body, 0, sizeof(f->last_body));
    if (x->body.size > 0)
        memcpy(f->last_body, x->body.data,
               x->body.size < sizeof(f->last_body) - 1 ? x->body.size : sizeof(f->last_body) - 1);
    if (f->stop_in_end) {
        fixture_stop_server(f);
        return;
    }
    if (f->drain_in_end)
        wire_server_drain(f->server, fixture_drained, f);
    if (f->act == ACT_HOLD)
        f->held = x;
    else
        fixture_answer(f, x, 200);
}

static inline void fixture_reset(void *ctx, struct wire_exchange *x, int code)
{
    struct fixture *f = ctx;
    f->resets++;
    f->reset_code = code;
    if (f->held == x)
        f->held = NULL;
}

static inline void fixture_done(void *ctx, struct wire_exchange *x)
{
    struct fixture *f = ctx;
    f->dones++;
    if (f->held == x)
        f->held = NULL;
    if (f->stop_in_done && f->server)
        fixture_stop_server(f);
}

static inline void fixture_closed(void *ctx, void *connection_user)
{
    struct fixture *f = ctx;
    f->closeds++;
    if (connection_user)
        f->users--;
    free(connection_user);
}

static inline void fixture_error(void *ctx, int code, const char *text, struct wire_answer *a)
{
    (void)ctx;
    a->content_type = "application/json";
    assert_non_null(text);
    a->body = str_from(error_info(code)->name);
}

static inline bool fixture_peer_allowed(void *ctx, uid_t uid, gid_t gid, pid_t pid)
{
    struct fixture *f = ctx;
    assert_int_equal(uid, geteuid());
    assert_int_equal(gid, getegid());
    assert_int_equal(pid, getpid());
    return !f->peer_refused;
}

static const struct wire_handler fixture_handler = {
    .head = fixture_head,
    .data = fixture_data,
    .end = fixture_end,
    .reset = fixture_reset,
    .done = fixture_done,
    .closed = fixture_closed,
    .error_answer = fixture_error,
    .peer_allowed = fixture_peer_allowed,
};

static inline void fixture_tick(uv_timer_t *tick)
{
    (void)tick;
}

/* Zeroes and sets defaults; the test may change f->config, f->is_unix and orders before fixture_start. */
static inline void fixture_init(struct fixture *f)
{
    *f = (struct fixture){.body_bytes_max = 1 << 20};
    wire_config_default(&f->config);
}

static inline void fixture_start(struct fixture *f)
{
    struct error err = {0};
    int fd = socket(f->is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (f->is_unix) { /* only the family given: the kernel picks an abstract name */
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(sa_family_t)), 0);
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    }
    f->address_bytes = sizeof(f->address);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&f->address, &f->address_bytes), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->tick), 0);
    assert_int_equal(uv_timer_start(&f->tick, fixture_tick, 2, 2), 0);
    assert_int_equal(wire_server_start(&f->loop, fd, &f->config, &fixture_handler, f, &f->server, &err), 0);
}

static inline void turn(struct fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_ONCE);
}

#define until(f, condition)                                     \
    do {                                                        \
        uint64_t until_ns_ = clock_monotonic_ns() + CEILING_NS; \
        while (!(condition)) {                                  \
            if (clock_monotonic_ns() > until_ns_)               \
                fail_msg("not in 15 s: %s", #condition);        \
            turn(f);                                            \
        }                                                       \
    } while (0)

/* Stops what still runs, and checks that every exchange ended once and that nothing of the loop is left. */
static inline void fixture_done_all(struct fixture *f)
{
    if (f->server)
        fixture_stop_server(f);
    uv_close((uv_handle_t *)&f->tick, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(f->heads, f->dones + f->resets);
    assert_int_equal(f->users, 0);
}

static inline struct wire_stats stats_of(const struct fixture *f)
{
    struct wire_stats stats;
    wire_server_stats(f->server, &stats);
    return stats;
}

/* ---- peers ---- */

static inline struct peer peer_open(struct fixture *f)
{
    struct peer p = {.fd = socket(f->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(p.fd >= 0);
    assert_int_equal(connect(p.fd, (struct sockaddr *)&f->address, f->address_bytes), 0);
    assert_int_equal(fcntl(p.fd, F_SETFL, O_NONBLOCK), 0);
    return p;
}

static inline void peer_close(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    free(p->in);
    *p = (struct peer){.fd = -1};
}

/* With an RST. */
static inline void peer_reset(struct peer *p)
{
    struct linger linger = {1, 0};
    assert_int_equal(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    peer_close(p);
}

/* Turns the loop while the kernel is full. False: the server has closed. */
static inline bool peer_send(struct fixture *f, struct peer *p, const void *data, size_t size)
{
    uint64_t until_ns = clock_monotonic_ns() + CEILING_NS;
    while (size > 0) {
        ssize_t n = send(p->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN)
            return false;
        if (n > 0) {
            data = (const char *)data + n;
            size -= (size_t)n;
        }
        if (clock_monotonic_ns() > until_ns)
            fail_msg("sending did not end in 15 s");
        if (size > 0)
            turn(f);
    }
    return true;
}

static inline bool peer_say(struct fixture *f, struct peer *p, const char *text)
{
    return peer_send(f, p, text, strlen(text));
}

/* peer_say with a format. */
static inline bool peer_sayf(struct fixture *f, struct peer *p, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline bool peer_sayf(struct fixture *f, struct peer *p, const char *format, ...)
{
    _buf_ struct buf text;
    buf_init(&text, MIB);
    va_list args;
    va_start(args, format);
    buf_vformat(&text, format, args);
    va_end(args);
    assert_int_equal(text.failed, 0);
    return peer_send(f, p, text.data, text.size);
}

/* Takes what has come. True if there was something new. */
static inline bool peer_poll(struct peer *p)
{
    char piece[65536];
    if (p->eof || p->error)
        return false;
    ssize_t n = recv(p->fd, piece, sizeof(piece), MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EAGAIN)
            p->error = errno;
        return errno != EAGAIN;
    }
    if (n == 0) {
        p->eof = true;
        return true;
    }
    if (p->capacity < p->size + (size_t)n + 1) {
        p->capacity = 2 * (p->size + (size_t)n + 1);
        p->in = realloc(p->in, p->capacity);
        assert_non_null(p->in);
    }
    memcpy(p->in + p->size, piece, (size_t)n);
    p->size += (size_t)n;
    p->in[p->size] = '\0';
    return true;
}

static inline bool peer_ended(struct peer *p)
{
    while (peer_poll(p))
        ;
    return p->eof || p->error;
}

struct answer {
    int status;
    char head[2048]; /* NUL-terminated, with its empty line */
    size_t body_bytes;
    char body[512]; /* its first bytes, NUL-terminated */
    uint64_t body_sum;
    bool close; /* says Connection: close */
};

static inline bool peer_has_answer(struct peer *p, bool to_head)
{
    while (peer_poll(p))
        ;
    char *end = p->in ? strstr(p->in, "\r\n\r\n") : NULL;
    if (!end)
        return false;
    char *length = strstr(p->in, "Content-Length: ");
    size_t body = length && length < end && !to_head ? strtoul(length + 16, NULL, 10) : 0;
    return p->size >= (size_t)(end + 4 - p->in) + body;
}

/* Waits for one whole answer and takes it from the peer's input. to_head: an answer to HEAD, without its body. */
static inline struct answer peer_answer_to(struct fixture *f, struct peer *p, bool to_head)
{
    struct answer a = {0};
    until(f, peer_has_answer(p, to_head) || peer_ended(p));
    if (!peer_has_answer(p, to_head))
        fail_msg("the connection ended (%s) without a whole answer: %.200s", p->error ? strerror(p->error) : "FIN",
                 p->in ? p->in : "");
    size_t head_bytes = (size_t)(strstr(p->in, "\r\n\r\n") + 4 - p->in);
    assert_true(head_bytes < sizeof(a.head));
    memcpy(a.head, p->in, head_bytes);
    assert_int_equal(memcmp(a.head, "HTTP/1.1 ", 9), 0);
    a.status = (int)strtol(a.head + 9, NULL, 10);
    assert_true(a.status < 200 || strstr(a.head, "\r\nDate: "));
    char *length = strstr(a.head, "Content-Length: ");
    a.body_bytes = length && !to_head ? strtoul(length + 16, NULL, 10) : 0;
    a.close = strstr(a.head, "\r\nConnection: close\r\n");
    const char *body = p->in + head_bytes;
    memcpy(a.body, body, a.body_bytes < sizeof(a.body) - 1 ? a.body_bytes : sizeof(a.body) - 1);
    for (size_t i = 0; i < a.body_bytes; i++)
        a.body_sum = a.body_sum * 31 + (unsigned char)body[i];
    p->size -= head_bytes + a.body_bytes;
    memmove(p->in, body + a.body_bytes, p->size + 1);
    return a;
}

static inline struct answer peer_answer(struct fixture *f, struct peer *p)
{
    return peer_answer_to(f, p, false);
}

/* Says it all, and gets one answer. */
static inline struct answer peer_ask(struct fixture *f, struct peer *p, const char *text)
{
    assert_true(peer_say(f, p, text));
    return peer_answer(f, p);
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

#endif
