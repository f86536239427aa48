/*
 * Feeds bytes through a connection's whole life (parser, bodies, handler calls, answers) without a socket, three times:
 * in one piece, byte by byte, and cut at pseudo-random points. Crashes and sanitizer reports are findings, and so are
 * outcomes that hang on how the bytes were cut: that is how requests get smuggled.
 *
 * The input is plain HTTP. What the handler does, the path's second byte says: s streams, h answers only after more
 * bytes have come, c streams its answer in pieces, one whenever more bytes have come, w meets a kernel that takes
 * little, e answers before the body (and then the outcome may depend on how much had arrived), anything else takes the
 * whole body.
 */

#include "test/unit/wire/fake_socket.h"

#include <stdarg.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD_BYTES_MAX = 1 << 16, BODY_BYTES_MAX = 2000 };

struct record {
    char text[RECORD_BYTES_MAX];
    size_t size;
    uint64_t body_sum, body_bytes;
    uint32_t open; /* exchanges that have neither ended nor begun */
    bool early;
    struct wire_exchange *held;
    unsigned pieces; /* of the answer that streams, to come */
};

static void note(struct record *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct record *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->text + r->size, RECORD_BYTES_MAX - r->size, format, args);
    va_end(args);
    r->size += (size_t)n < RECORD_BYTES_MAX - r->size ? (size_t)n : 0; /* a longer record is cut in all three runs */
}

static char kind(const struct wire_exchange *x)
{
    return x->request.path.size > 1 ? x->request.path.data[1] : '/';
}

static void body_add(struct record *r, struct str part)
{
    for (size_t i = 0; i < part.size; i++)
        r->body_sum = r->body_sum * 1099511628211u + (unsigned char)part.data[i] + 1;
    r->body_bytes += part.size;
}

static void answer(struct wire_exchange *x)
{
    fake.window = kind(x) == 'w' ? 3 : SIZE_MAX;
    struct wire_answer a = {
        .status = kind(x) == 'n' ? 204 : 200, .content_type = "text/plain", .body = x->request.target};
    wire_answer(x, &a);
}

/* What is kept for the peer stays within its bounds, and no piece is refused: the pieces are few. */
static void answer_begin(struct record *r, struct wire_exchange *x)
{
    fake.window = 5;
    struct wire_answer head = {.status = 200};
    struct wire_stream_options options = {.buffer_bytes_max = 1000, .idle_ms = 1, .idle = STR("idle")};
    int result = wire_stream_begin(x, &head, &options);
    assert(result >= 0);
    r->held = x;
    r->pieces = 4;
}

static void answer_go_on(struct record *r, struct wire_exchange *x)
{
    if (--r->pieces > 0) {
        int result = wire_stream_write(x, STR("piece"));
        assert(result == 0);
        r->held = x;
        return;
    }
    wire_stream_end(x);
}

static void on_head(void *ctx, struct wire_exchange *x)
{
    struct record *r = ctx;
    assert(r->open == 0 && !x->user);
    r->open = 1;
    r->body_sum = r->body_bytes = 0;
    const struct wire_request *q = &x->request;
    note(r, "head %d %.*s|%.*s|%u %lld %d %d\n", q->method, STR_ARG(q->path), STR_ARG(q->query), q->n_headers,
         (long long)q->content_length, q->chunked, q->keep_alive);
    for (uint32_t i = 0; i < q->n_headers; i++) {
        assert(q->headers[i].name.size > 0);
        for (size_t k = 0; k < q->headers[i].value.size; k++)
            assert((unsigned char)q->headers[i].value.data[k] >= ' ' || q->headers[i].value.data[k] == '\t');
        note(r, "%.*s=%.*s\n", STR_ARG(q->headers[i].name), STR_ARG(q->headers[i].value));
    }
    if (kind(x) == 'e') {
        r->early = r->early || q->chunked || q->content_length > 0;
        answer(x);
        return;
    }
    wire_accept(x, kind(x) == 's' ? WIRE_STREAM : WIRE_WHOLE, BODY_BYTES_MAX);
}

static void on_data(void *ctx, struct wire_exchange *x, struct str chunk)
{
    assert(kind(x) == 's' && chunk.size > 0);
    body_add(ctx, chunk);
    if (chunk.data[0] == 'P')
        wire_pause(x);
}

static void on_end(void *ctx, struct wire_exchange *x)
{
    struct record *r = ctx;
    assert(r->open == 1);
    if (kind(x) != 's')
        body_add(r, x->body);
    assert(x->request.content_length < 0 || r->body_bytes == (uint64_t)x->request.content_length);
    note(r, "end %llu %llx\n", (unsigned long long)r->body_bytes, (unsigned long long)r->body_sum);
    if (kind(x) == 'c')
        answer_begin(r, x);
    else if (kind(x) == 'h')
        r->held = x;
    else
        answer(x);
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    struct record *r = ctx;
    (void)x;
    assert(r->open == 1 && code < 0);
    r->open = 0;
    r->held = NULL;
    r->pieces = 0;
    note(r, "reset\n");
}

static void on_done(void *ctx, struct wire_exchange *x)
{
    struct record *r = ctx;
    (void)x;
    assert(r->open == 1);
    r->open = 0;
    fake.window = SIZE_MAX; /* a "100 Continue" that the kernel takes in part only ends the connection */
    note(r, "done\n");
}

static void on_room(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
}

/* 400, 414 and 431 may stand for each other when an input has several faults: which is met first depends on the cuts.
 */
static void on_error(void *ctx, int code, const char *text, struct wire_answer *a)
{
    assert(text);
    bool head = code == -ERROR_HTTP_MALFORMED || code == -ERROR_URI_TOO_LONG || code == -ERROR_HEADERS_TOO_LARGE ||
                code == -ERROR_BODY_TOO_LARGE;
    note(ctx, "error %d\n", head ? 400 : a->status);
}

static const struct wire_handler handler = {.head = on_head,
                                            .data = on_data,
                                            .end = on_end,
                                            .reset = on_reset,
                                            .done = on_done,
                                            .room = on_room,
                                            .error_answer = on_error};

/* What the handler and the kernel left for later. */
static bool later(struct record *r)
{
    bool did = false;
    if (r->held) {
        struct wire_exchange *x = r->held;
        r->held = NULL;
        if (r->pieces > 0)
            answer_go_on(r, x);
        else
            answer(x);
        did = true;
    } else if (fake.c && !fake.closing && fake.n_queue > 0) {
        fake_flush();
        did = true;
    } else if (fake.c && !fake.closing && fake.c->body.paused) {
        wire_resume(&fake.c->exchange);
        did = true;
    }
    return did;
}

/* step: bytes per read; 0: pseudo-random from `seed`. */
static void live(struct record *r, const char *data, size_t size, size_t step, uint64_t seed)
{
    struct wire_config config;
    wire_config_default(&config);
    config.head_bytes_max = 1024;
    config.target_bytes_max = 100;
    config.headers_max = 12;
    *r = (struct record){0};
    bool opened = fake_open(&config, &handler, r);
    assert(opened);
    for (size_t at = 0; at < size;) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t wanted = step ? step : 1 + (seed >> 33) % ((seed >> 60) ? 40 : 2000);
        size_t taken = fake_feed(data + at, wanted < size - at ? wanted : size - at);
        at += taken;
        if (taken == 0 && !later(r))
            break; /* nothing goes on: the connection is done */
        if (taken > 0 && step == 0 && (seed & 1024))
            later(r);
    }
    while (later(r))
        ;
    fake_eof();
    while (later(r))
        ;
    assert(!fake.c || fake.closing || fake.c->state == WIRE_LINGERING || r->open);
    if (fake.out_bytes > 0)
        assert(fake.out_bytes < 9 ? fake.window <= 5 : memcmp(fake.out, "HTTP/1.1 ", 9) == 0);
    fake_done();
    assert(r->open == 0);
}

static struct record whole, bytes, pieces;

static void compare(const struct record *a, const struct record *b)
{
    if (a->size == b->size && memcmp(a->text, b->text, a->size) == 0)
        return;
    fprintf(stderr, "the outcome depends on the cuts:\n--- %.*s\n+++ %.*s\n", (int)a->size, a->text, (int)b->size,
            b->text);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t seed = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        seed = (seed ^ data[i]) * 1099511628211u;
    live(&whole, (const char *)data, size, SIZE_MAX, seed);
    live(&bytes, (const char *)data, size, 1, seed);
    live(&pieces, (const char *)data, size, 0, seed);
    if (whole.early || bytes.early || pieces.early)
        return 0;
    compare(&whole, &bytes);
    compare(&whole, &pieces);
    return 0;
}
