/* A handler that holds each request until the test streams its answer, on the test's own clock and without a socket. */
#ifndef BULKHEAD_TEST_STREAM_FIXTURE_H
#define BULKHEAD_TEST_STREAM_FIXTURE_H

#include "test/unit/wire/fake_socket.h"

#include "wire/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

static struct wire_config config;
static unsigned heads, ends, dones, resets, rooms;
static int reset_code;
static struct wire_exchange *held;
static bool end_in_room;
static char big[100000];

static inline void on_head(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    heads++;
    wire_accept(x, WIRE_WHOLE, 1 << 20);
}

static inline void on_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    ends++;
    held = x;
}

static inline void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    assert_ptr_equal(x, held);
    resets++;
    reset_code = code;
    held = NULL;
}

static inline void on_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    assert_ptr_equal(x, held);
    dones++;
    held = NULL;
}

static inline void on_room(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    assert_ptr_equal(x, held);
    rooms++;
    if (end_in_room)
        wire_stream_end(x);
}

static const struct wire_handler handler = {
    .head = on_head, .end = on_end, .reset = on_reset, .done = on_done, .room = on_room};

static inline int setup(void **state)
{
    (void)state;
    heads = ends = dones = resets = rooms = 0;
    reset_code = 0;
    held = NULL;
    end_in_room = false;
    wire_config_default(&config);
    config.write_timeout_ms = 8000;
    assert_true(fake_open(&config, &handler, NULL));
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    fake_done();
    assert_int_equal(heads, dones + resets);
    return 0;
}

static inline void feed(const char *text)
{
    assert_int_equal(fake_feed(text, strlen(text)), strlen(text));
}

static inline void ask(const char *text)
{
    feed(text);
    assert_non_null(held);
}

static const char get[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

enum { BUFFER_BYTES = 1000 };

static inline int begin(void)
{
    struct wire_answer head = {.status = 200, .content_type = "text/plain"};
    struct wire_stream_options options = {.buffer_bytes_max = BUFFER_BYTES, .idle_ms = 3000, .idle = STR(": idle\n")};
    return wire_stream_begin(held, &head, &options);
}

static inline int say(const char *text)
{
    return wire_stream_write(held, str_from(text));
}

static inline void pass(uint64_t ms)
{
    fake.now_ms += ms;
    wire_deadlines_scan(fake.server);
}

/* What came behind the first head; the head is left in `head`. */
static char head[1024];
static inline const char *body(void)
{
    fake_take("", 1);
    fake.out_bytes--;
    const char *end = fake.out ? strstr(fake.out, "\r\n\r\n") : NULL;
    if (!end)
        return "";
    size_t size = (size_t)(end - fake.out);
    assert_true(size < sizeof(head));
    memcpy(head, fake.out, size);
    head[size] = '\0';
    return end + 4;
}

/* Leaves nothing behind and starts anew. */
static inline void restart(void)
{
    fake_done();
    assert_int_equal(heads, dones + resets);
    assert_true(fake_open(&config, &handler, NULL));
}

static inline void big_fill(void)
{
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 23);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
