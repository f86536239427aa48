/* Answers that stream: framing, back-pressure, order, server-sent events. */
#include "test/unit/wire/stream_fixture.h"

static void test_chunks(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    assert_string_equal(body(), "");
    assert_non_null(strstr(head, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(head, "\r\nTransfer-Encoding: chunked"));
    assert_null(strstr(head, "Content-Length"));
    assert_null(strstr(head, "Connection"));
    assert_int_equal(say("hello"), 0);
    assert_string_equal(body(), "5\r\nhello\r\n");
    assert_int_equal(say(""), 0); /* would be the last chunk */
    assert_int_equal(wire_stream_write(held, (struct str){big, 255}), 0);
    assert_int_equal(memcmp(body() + 10, "ff\r\n", 4), 0);
    assert_int_equal(dones, 0);
    wire_stream_end(held);
    assert_string_equal(body() + 10 + 4 + 255, "\r\n0\r\n\r\n");
    assert_int_equal(dones, 1);
    assert_int_equal(fake.c->state, WIRE_IDLE);
    /* and the connection goes on */
    fake.out_bytes = 0;
    ask(get);
    assert_int_equal(begin(), 0);
    wire_stream_end(held);
    assert_string_equal(body(), "0\r\n\r\n");
    assert_int_equal(dones, 2);
    assert_false(fake.closing);
}

/* A body that is decoded by hand, whatever the kernel takes at once. */
static size_t decode(const char *from, char *to)
{
    size_t total = 0;
    for (;;) {
        char *after;
        size_t size = strtoul(from, &after, 16);
        assert_memory_equal(after, "\r\n", 2);
        memcpy(to + total, after + 2, size);
        total += size;
        from = after + 2 + size;
        assert_memory_equal(from, "\r\n", 2);
        if (size == 0)
            return total;
        from += 2;
    }
}

static void test_windows(void **state)
{
    (void)state;
    static char got[sizeof(big)];
    for (size_t window = 0; window < 300; window += window < 40 ? 1 : 13) {
        fake.window = SIZE_MAX;
        fake.out_bytes = 0;
        ask(get);
        fake.window = window;
        assert_true(begin() >= 0);
        size_t sent = 0;
        for (size_t size = 1; size < 40; size++) {
            int result = wire_stream_write(held, (struct str){big + sent, size});
            if (result == -ERROR_AGAIN) {
                unsigned before = rooms;
                while (rooms == before)
                    fake_flush();
                size--;
                continue;
            }
            assert_true(result >= 0);
            sent += size;
            if (size % 7 == 0)
                fake_flush();
        }
        wire_stream_end(held);
        for (int i = 0; held && i < 100; i++)
            fake_flush();
        assert_null(held);
        assert_int_equal(decode(body(), got), sent);
        assert_memory_equal(got, big, sent);
    }
    assert_int_equal(resets, 0);
    assert_int_equal(fake.c->state, WIRE_IDLE);
}

/* A piece larger than the scratch memory comes in several chunks. */
static void test_large_piece(void **state)
{
    (void)state;
    static char got[sizeof(big)];
    ask(get);
    struct wire_answer a = {.status = 200};
    struct wire_stream_options options = {.buffer_bytes_max = 200000};
    fake.window = 7;
    assert_int_equal(wire_stream_begin(held, &a, &options), 0);
    assert_int_equal(wire_stream_write(held, (struct str){big, sizeof(big)}), 1);
    wire_stream_end(held);
    fake_flush();
    fake_flush();
    assert_int_equal(dones, 1);
    assert_int_equal(decode(body(), got), sizeof(big));
    assert_memory_equal(got, big, sizeof(big));
}

static void test_pressure(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    fake.out_bytes = 0;
    fake.window = 0;
    struct str piece = {big, 90}; /* 96 with its frame: "5a\r\n…\r\n" */
    int result;
    unsigned n = 0;
    while ((result = wire_stream_write(held, piece)) == 0)
        n++;
    assert_int_equal(result, 1);
    assert_int_equal(n, 5); /* 480 of 500 */
    n++;
    while ((result = wire_stream_write(held, piece)) == 1)
        n++;
    assert_int_equal(result, -ERROR_AGAIN);
    assert_int_equal(n, 10); /* 960 of 1000 */
    assert_int_equal(wire_stream_write(held, (struct str){big, BUFFER_BYTES}), -ERROR_LIMIT);
    assert_int_equal(rooms, 0);
    fake_flush(); /* the first piece; nine fly on */
    assert_int_equal(rooms, 0);
    fake_flush();
    assert_int_equal(rooms, 1);
    assert_int_equal(fake.out_bytes, 10 * 96);
    fake_flush();
    assert_int_equal(rooms, 1); /* once per stop */
    fake.window = SIZE_MAX;
    assert_int_equal(wire_stream_write(held, piece), 0);
    wire_stream_end(held);
    assert_int_equal(dones, 1);
}

/* The producer ends from inside room(). */
static void test_end_in_room(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    fake.window = 0;
    assert_int_equal(wire_stream_write(held, (struct str){big, 600}), 1);
    end_in_room = true;
    fake_flush();
    assert_int_equal(rooms, 1);
    fake_flush();
    assert_int_equal(dones, 1);
    assert_int_equal(fake.c->state, WIRE_IDLE);
}

/* Nobody is asked for more once the answer was ended. */
static void test_no_room_after_end(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    fake.window = 0;
    assert_int_equal(wire_stream_write(held, (struct str){big, 600}), 1);
    wire_stream_end(held);
    assert_int_equal(fake.c->state, WIRE_WRITING);
    fake_flush();
    fake_flush();
    assert_int_equal(rooms, 0);
    assert_int_equal(dones, 1);
}

static void test_pipelining(void **state)
{
    (void)state;
    feed("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(heads, 1);
    assert_int_equal(begin(), 0);
    assert_int_equal(say("one"), 0);
    feed("GET /c HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(heads, 1);
    fake.window = 2;
    assert_int_equal(say("two"), 0);
    wire_stream_end(held);
    assert_int_equal(heads, 1);
    fake.window = SIZE_MAX;
    fake_flush();
    fake_flush();
    assert_int_equal(heads, 2);
    assert_true(str_equal(held->request.path, STR("/b")));
    assert_string_equal(body(), "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    fake.out_bytes = 0;
    struct wire_answer a = {.status = 200, .body = STR("plain")};
    wire_answer(held, &a);
    assert_string_equal(body(), "plain");
    assert_true(str_equal(held->request.path, STR("/c")));
    fake.out_bytes = 0;
    assert_int_equal(begin(), 0);
    wire_stream_end(held);
    assert_int_equal(dones, 3);
}

static void test_to_head(void **state)
{
    (void)state;
    ask("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(begin(), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(wire_stream_write(held, (struct str){big, 900}), 0);
    pass(3000); /* no comment either */
    wire_stream_end(held);
    assert_string_equal(body(), "");
    assert_non_null(strstr(head, "Transfer-Encoding: chunked"));
    assert_int_equal(dones, 1);
    assert_int_equal(fake.c->state, WIRE_IDLE);
}

static void test_http10(void **state)
{
    (void)state;
    ask("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_int_equal(begin(), 0);
    assert_int_equal(say("hello "), 0);
    assert_int_equal(say("world"), 0);
    wire_stream_end(held);
    assert_string_equal(body(), "hello world");
    assert_null(strstr(head, "Transfer-Encoding"));
    assert_null(strstr(head, "Content-Length"));
    assert_non_null(strstr(head, "Connection: close"));
    assert_int_equal(dones, 1);
    assert_true(fake.shut); /* our FIN is the end of the body */
    assert_int_equal(fake.c->state, WIRE_LINGERING);
    fake_eof();
    assert_true(fake.closing);
}

static void test_close(void **state)
{
    (void)state;
    ask("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_int_equal(begin(), 0);
    assert_int_equal(say("x"), 0);
    wire_stream_end(held);
    assert_string_equal(body(), "1\r\nx\r\n0\r\n\r\n");
    assert_non_null(strstr(head, "Connection: close"));
    assert_true(fake.closing);
}

/* Draining waits for the end of a stream, and then closes though its head did not say so. */
static void test_drain(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    fake.server->draining = true;
    assert_int_equal(say("x"), 0);
    assert_false(fake.closing);
    wire_stream_end(held);
    assert_int_equal(dones, 1);
    assert_true(fake.closing);
}

static void test_headers_that_do_not_fit(void **state)
{
    (void)state;
    ask(get);
    struct wire_header h = {STR("X"), {big, 40000}};
    struct wire_answer a = {.status = 200, .headers = &h, .n_headers = 1};
    struct wire_stream_options options = {.buffer_bytes_max = 1000};
    assert_int_equal(wire_stream_begin(held, &a, &options), 0);
    assert_int_equal(memcmp(fake.out, "HTTP/1.1 500 ", 13), 0);
    wire_stream_end(held);
}

/* A head that the kernel does not take: larger than the buffer, all the same. */
static void test_large_head(void **state)
{
    (void)state;
    ask(get);
    fake.window = 0;
    struct wire_header h = {STR("X"), {big, 20000}};
    struct wire_answer a = {.status = 200, .headers = &h, .n_headers = 1};
    struct wire_stream_options options = {.buffer_bytes_max = 1000};
    assert_int_equal(wire_stream_begin(held, &a, &options), 1);
    assert_int_equal(say("x"), -ERROR_AGAIN);
    fake_flush();
    assert_int_equal(rooms, 1);
    fake.window = SIZE_MAX;
    assert_int_equal(say("x"), 0);
    wire_stream_end(held);
    assert_int_equal(dones, 1);
}

static void test_sse(void **state)
{
    (void)state;
    static const struct {
        const char *event, *data, *want;
    } rows[] = {
        {"", "x", "data: x\n\n"},
        {"", "", "data: \n\n"},
        {"error", "a\nb", "event: error\ndata: a\ndata: b\n\n"},
        {"", "a\r\nb\rc\n\nd\n", "data: a\ndata: b\ndata: c\ndata: \ndata: d\ndata: \n\n"},
        {"", "a\r\n", "data: a\ndata: \n\n"},
        {"", "a\n\ndata: [DONE]", "data: a\ndata: \ndata: data: [DONE]\n\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        _buf_ struct buf b;
        buf_init(&b, 1000);
        wire_sse_append(&b, str_from(rows[i].event), str_from(rows[i].data));
        assert_string_equal(buf_terminate(&b), rows[i].want);
    }
    ask(get);
    struct wire_header h = {STR("X-Request-Id"), STR("7")};
    assert_int_equal(wire_sse_begin(held, &h, 1, 1000, 5000), 0);
    assert_int_equal(wire_stream_write(held, WIRE_SSE_DONE), 0);
    for (int i = 0; i < 5; i++)
        pass(1000);
    wire_stream_end(held);
    assert_string_equal(body(), "e\r\ndata: [DONE]\n\n\r\ne\r\n: keep-alive\n\n\r\n0\r\n\r\n");
    assert_non_null(strstr(head, "\r\nContent-Type: text/event-stream\r\n"));
    assert_non_null(strstr(head, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(head, "\r\nX-Request-Id: 7\r\n"));
}

int main(void)
{
    big_fill();
    const struct CMUnitTest tests[] = {
        TEST(test_chunks),     TEST(test_windows),     TEST(test_large_piece),
        TEST(test_pressure),   TEST(test_end_in_room), TEST(test_no_room_after_end),
        TEST(test_pipelining), TEST(test_to_head),     TEST(test_http10),
        TEST(test_close),      TEST(test_drain),       TEST(test_headers_that_do_not_fit),
        TEST(test_large_head), TEST(test_sse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
