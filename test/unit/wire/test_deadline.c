/* Time-outs to the millisecond, on the test's own clock and without a socket. */
#include "test/unit/wire/fake_socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

static struct wire_config config;
static unsigned heads, ends, dones, resets;
static struct wire_exchange *held;
static bool stream, refuse;

static void answer(struct wire_exchange *x, int status)
{
    struct wire_answer a = {.status = status, .body = STR("0123456789")};
    wire_answer(x, &a);
}

static void on_head(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    heads++;
    held = x;
    if (refuse)
        answer(x, 401);
    else
        wire_accept(x, stream ? WIRE_STREAM : WIRE_WHOLE, 1 << 20);
}

static void on_data(void *ctx, struct wire_exchange *x, struct str chunk)
{
    (void)ctx;
    (void)x;
    (void)chunk;
}

static void on_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
    ends++;
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    (void)x;
    (void)code;
    resets++;
}

static void on_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
    dones++;
}

static const struct wire_handler handler = {
    .head = on_head, .data = on_data, .end = on_end, .reset = on_reset, .done = on_done};

static int setup(void **state)
{
    (void)state;
    heads = ends = dones = resets = 0;
    stream = refuse = false;
    wire_config_default(&config);
    config.head_timeout_ms = 1000;
    config.idle_timeout_ms = 5000;
    config.body_window_ms = 500;
    config.body_rate_bytes_per_s = 1000; /* 500 per window */
    config.write_timeout_ms = 2000;
    assert_true(fake_open(&config, &handler, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_done();
    assert_int_equal(heads, dones + resets);
    return 0;
}

static void pass(uint64_t ms)
{
    fake.now_ms += ms;
    wire_deadlines_scan(fake.server);
}

static void feed(const char *text)
{
    assert_int_equal(fake_feed(text, strlen(text)), strlen(text));
}

static int status(void)
{
    bool answered = fake.out_bytes > 12 && memcmp(fake.out, "HTTP/1.1 ", 9) == 0;
    int code = answered ? (int)strtol(fake.out + 9, NULL, 10) : 0;
    fake.out_bytes = 0;
    return code;
}

#define POST(length) "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " length "\r\n\r\n"
static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

static void test_idle(void **state)
{
    (void)state;
    pass(4999); /* before the first request too */
    for (int i = 0; i < 10; i++) {
        feed(get);
        answer(held, 200);
        assert_int_equal(status(), 200);
        pass(4999);
        assert_false(fake.closing);
    }
    pass(1);
    assert_true(fake.closing);
    assert_int_equal(fake.out_bytes, 0);
}

static void test_head(void **state)
{
    (void)state;
    pass(3000);
    feed("GET");
    pass(999);
    feed(" / HTTP/1.1\r\nHost: a\r\nX");
    assert_int_equal(fake.out_bytes, 0);
    pass(1);
    assert_int_equal(status(), 408);
    assert_int_equal(fake.c->state, WIRE_LINGERING);
    pass(WIRE_LINGER_MS - 1);
    assert_false(fake.closing);
    pass(1);
    assert_true(fake.closing);
    assert_int_equal(heads, 0);
}

static void test_handling(void **state)
{
    (void)state;
    feed(get);
    pass(1000000);
    assert_int_equal(fake.c->state, WIRE_HANDLING);
    answer(held, 200);
    assert_int_equal(status(), 200);
}

/* One byte less than the rate in a window is too slow, the rate itself is not; each window counts for itself. */
static void test_body_rate(void **state)
{
    (void)state;
    static char bytes[500];
    memset(bytes, 'b', sizeof(bytes));
    feed(POST("5000"));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(fake_feed(bytes, 500), 500);
        pass(499);
        pass(1);
        assert_int_equal(resets, 0);
    }
    assert_int_equal(fake_feed(bytes, 499), 499);
    pass(499);
    assert_int_equal(resets, 0);
    pass(1);
    assert_int_equal(resets, 1);
    assert_int_equal(status(), 408);
    assert_int_equal(fake.server->stats.timeouts_body, 1);
}

static void test_pause(void **state)
{
    (void)state;
    stream = true;
    feed(POST("100"));
    pass(400);
    wire_pause(held);
    pass(400); /* within a window that began before */
    pass(100000);
    pass(499);
    wire_resume(held); /* a fresh window */
    pass(499);
    assert_int_equal(resets, 0);
    pass(1);
    assert_int_equal(resets, 1);
}

/* A peer that takes a byte now and then is slow, one that takes none for the time-out is gone. */
static void test_write(void **state)
{
    (void)state;
    fake.window = 0;
    feed(get);
    answer(held, 200);
    assert_int_equal(fake.c->state, WIRE_WRITING);
    for (int i = 0; i < 50; i++) {
        pass(1500);
        assert_int_equal(resets, 0);
        fake.queue[0].iov_base = (char *)fake.queue[0].iov_base + 1; /* the kernel takes one byte */
        fake.queue[0].iov_len--;
    }
    pass(500);
    for (int i = 0; i < 3; i++) {
        pass(500);
        assert_int_equal(resets, 0);
    }
    pass(500);
    assert_int_equal(resets, 1);
    assert_true(fake.closing);
    assert_int_equal(fake.server->stats.timeouts_write, 1);
}

static void test_discard(void **state)
{
    (void)state;
    refuse = true;
    static char bytes[500];
    feed(POST("1000"));
    assert_int_equal(status(), 401);
    assert_int_equal(fake.c->state, WIRE_DISCARDING);
    assert_int_equal(fake_feed(bytes, 500), 500);
    pass(500);
    assert_false(fake.closing);
    assert_int_equal(fake_feed(bytes, 499), 499);
    pass(500);
    assert_true(fake.closing); /* 499 of 500 */
}

/* New limits reach what is open already, to the millisecond, in both directions. */
static void test_limits_set(void **state)
{
    (void)state;
    pass(3000); /* idle since then; before 5000 */
    config.idle_timeout_ms = 4000;
    wire_server_limits_set(fake.server, &config);
    pass(999);
    assert_false(fake.closing);
    config.idle_timeout_ms = 9000;
    wire_server_limits_set(fake.server, &config);
    pass(5000);
    assert_false(fake.closing);
    feed("GET"); /* a head from here on */
    config.head_timeout_ms = 10;
    wire_server_limits_set(fake.server, &config);
    pass(9);
    assert_int_equal(fake.out_bytes, 0);
    pass(1);
    assert_int_equal(status(), 408);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_idle),  TEST(test_head),  TEST(test_handling), TEST(test_body_rate),
        TEST(test_pause), TEST(test_write), TEST(test_discard),  TEST(test_limits_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
