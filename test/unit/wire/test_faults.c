/* Fails the n-th allocation, for every n, and the n-th write, through a conversation that touches every kind of body
 * and answer. Whatever happens: each exchange ends once, nothing leaks, no assert. */
#include <stdlib.h>

static void *fault_malloc(size_t size);
static void *fault_calloc(size_t count, size_t size);
static void *fault_realloc(void *old, size_t size);
#define malloc  fault_malloc
#define calloc  fault_calloc
#define realloc fault_realloc

#include "base/buf.c"
#include "wire/answer.c"
#include "wire/block.c"
#include "wire/body.c"
#include "wire/connection.c"
#include "wire/server.c"
#include "wire/stream.c"

#undef malloc
#undef calloc
#undef realloc

#include "test/unit/wire/fake_socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static unsigned countdown; /* to the failure; 0: none left */

static bool fault(void)
{
    return countdown > 0 && --countdown == 0;
}

static void *fault_malloc(size_t size)
{
    return fault() ? NULL : malloc(size);
}

static void *fault_calloc(size_t count, size_t size)
{
    return fault() ? NULL : calloc(count, size);
}

static void *fault_realloc(void *old, size_t size)
{
    return fault() ? NULL : realloc(old, size);
}

static unsigned n_heads, n_ends, n_dones, n_resets;
static unsigned write_countdown;
static char large[50000];

/* Until the kernel takes no more, and then the end: nothing that was taken may be lost. */
static void reply_in_pieces(struct wire_exchange *x)
{
    struct wire_answer head = {.status = 200};
    struct wire_stream_options options = {.buffer_bytes_max = 20000};
    int result = wire_stream_begin(x, &head, &options);
    while (result == 0)
        result = wire_stream_write(x, (struct str){large, 700});
    if (result > 0)
        wire_stream_end(x);
}

static void reply(struct wire_exchange *x)
{
    struct wire_answer a = {.status = 200, .body = x->request.path};
    char kind = x->request.path.data[1];
    fake.window = kind == 'w' || kind == 'o' ? 1000 : SIZE_MAX;
    if (write_countdown > 0 && --write_countdown == 0)
        fake.broken = true;
    if (kind == 'w')
        a.body = (struct str){large, sizeof(large)};
    if (kind == 'o') {
        a.body_owned = calloc(1, sizeof(large));
        assert_non_null(a.body_owned);
        a.body = (struct str){a.body_owned, sizeof(large)};
    }
    if (kind == 'c') {
        fake.window = 100;
        reply_in_pieces(x);
        return;
    }
    wire_answer(x, &a);
}

static void on_head(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    n_heads++;
    wire_accept(x, x->request.path.data[1] == 's' ? WIRE_STREAM : WIRE_WHOLE, MIB);
}

static void on_data(void *ctx, struct wire_exchange *x, struct str chunk)
{
    (void)ctx;
    (void)x;
    assert_true(chunk.size > 0);
}

static void on_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    n_ends++;
    reply(x);
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    (void)x;
    assert_true(code < 0);
    n_resets++;
}

static void on_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
    n_dones++;
}

static const struct wire_handler faulty = {
    .head = on_head, .data = on_data, .end = on_end, .reset = on_reset, .done = on_done};

static void feed_all(const char *data, size_t size)
{
    for (size_t taken; size > 0; data += taken, size -= taken) {
        taken = fake_feed(data, size);
        while (fake.n_queue > 0 && !fake.closing)
            fake_flush();
        if (taken == 0)
            break;
    }
}

static void say(const char *text)
{
    feed_all(text, strlen(text));
}

#define HOST "Host: a\r\n"

/* True when it went through without a fault. */
static bool converse(void)
{
    struct wire_config config;
    wire_config_default(&config);
    n_heads = n_ends = n_dones = n_resets = 0;
    if (!fake_open(&config, &faulty, NULL))
        return false;
    say("GET /a HTTP/1.1\r\n" HOST "\r\nGET /w HTTP/1.1\r\n" HOST "\r\n");
    say("GET /o HTTP/1.1\r\n" HOST "\r\n");
    say("GET /c HTTP/1.1\r\n" HOST "\r\n");
    say("POST /a HTTP/1.1\r\n" HOST "Content-Length: 50000\r\n\r\n");
    feed_all(large, sizeof(large));
    say("POST /s HTTP/1.1\r\n" HOST "Content-Length: 50000\r\n\r\n");
    feed_all(large, sizeof(large));
    say("POST /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nC350\r\n");
    feed_all(large, sizeof(large));
    say("\r\n0\r\n\r\n");
    say("GET /a HTTP/1.1\r\n" HOST "X: "); /* a head that outgrows the first buffer */
    feed_all(large, 10000);
    say("\r\n\r\n");
    say("nonsense\r\n\r\n");
    fake_eof();
    fake_flush();
    bool all = n_ends == 8 && n_dones == 8;
    fake_done();
    assert_int_equal(n_heads, n_dones + n_resets);
    return all;
}

static void test_allocations(void **state)
{
    (void)state;
    write_countdown = 0;
    unsigned n = 1;
    for (;; n++) {
        countdown = n;
        bool through = converse();
        if (countdown > 0) { /* n is more than there are */
            assert_true(through);
            break;
        }
    }
    assert_true(n > 10);
    countdown = 0;
}

static void test_writes(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 8; n++) {
        write_countdown = n;
        assert_false(converse());
        assert_int_equal(n_resets, 1);
        assert_int_equal(n_dones, n - 1);
    }
    write_countdown = 0;
    assert_true(converse());
}

int main(void)
{
    memset(large, 'l', sizeof(large));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
