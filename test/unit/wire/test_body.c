/* Bodies: every way they are stored, their limits, streaming with back-pressure. */
#include "test/unit/wire/fixture.h"

#include "wire/wire_internal.h"

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_init(&f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_done_all(&f);
    return 0;
}

enum { BODY_MAX = 1 << 20 };
static char body[BODY_MAX + 1];
static uint64_t body_sum(size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = sum * 31 + (unsigned char)body[i];
    return sum;
}

static void send_length(struct peer *p, const char *path, size_t size)
{
    assert_true(peer_sayf(&f, p, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", path, size));
    (void)peer_send(&f, p, body, size); /* a refusal may cut it off */
}

static void send_chunked(struct peer *p, const char *path, size_t size, size_t chunk)
{
    assert_true(peer_sayf(&f, p, "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", path));
    for (size_t at = 0; at < size; at += chunk) {
        size_t now = size - at < chunk ? size - at : chunk;
        if (!peer_sayf(&f, p, "%zx\r\n", now) || !peer_send(&f, p, body + at, now) || !peer_say(&f, p, "\r\n"))
            return;
    }
    (void)peer_say(&f, p, "0\r\n\r\n");
}

static void expect_count(struct peer *p, size_t size)
{
    struct answer a = peer_answer(&f, p);
    assert_int_equal(a.status, 200);
    assert_int_equal(memcmp(a.body, "POST /b  ", 9), 0);
    assert_int_equal(strtoul(a.body + 9, NULL, 10), size);
}

static void expect_echo(struct peer *p, size_t size)
{
    expect_count(p, size);
    assert_int_equal(memcmp(f.last_body, body, size < 63 ? size : 63), 0);
}

/* In the read buffer, in memory of their own, around each boundary between them. */
static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,
                                   1,
                                   4000,
                                   WIRE_BLOCK_BYTES - 100,
                                   WIRE_BLOCK_BYTES - 1,
                                   WIRE_BLOCK_BYTES,
                                   WIRE_BLOCK_BYTES + 1,
                                   WIRE_BODY_FIRST_BYTES - 1,
                                   WIRE_BODY_FIRST_BYTES,
                                   WIRE_BODY_FIRST_BYTES + 1,
                                   100000,
                                   BODY_MAX - 1,
                                   BODY_MAX};
    fixture_start(&f);
    struct peer p = peer_open(&f);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_length(&p, "/b", sizes[i]);
        expect_echo(&p, sizes[i]);
        send_chunked(&p, "/b", sizes[i], 1 + sizes[i] / 7);
        expect_echo(&p, sizes[i]);
        assert_int_equal(stats_of(&f).memory_bytes, 0);
    }
    /* with another request right behind, in the same piece */
    for (size_t size = WIRE_BLOCK_BYTES - 200; size < WIRE_BLOCK_BYTES + 100; size++) {
        _buf_ struct buf text;
        buf_init(&text, MIB);
        buf_format(&text, "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", size);
        buf_append(&text, body, size);
        buf_append_text(&text, GET("/next"));
        assert_true(peer_send(&f, &p, text.data, text.size));
        expect_count(&p, size);
        assert_string_equal(peer_answer(&f, &p).body, "GET /next  0");
    }
    /* a head that fills the read buffer, a chunked body behind */
    for (size_t pad = WIRE_BLOCK_BYTES - 1200; pad < WIRE_BLOCK_BYTES + 300; pad += 7) {
        static char padding[2 * WIRE_BLOCK_BYTES];
        memset(padding, 'x', pad);
        assert_true(
            peer_sayf(&f, &p,
                      "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: %.*s\r\n\r\n5\r\n%.5s\r\n"
                      "0\r\n\r\n",
                      (int)pad, padding, body));
        expect_echo(&p, 5);
    }
    peer_close(&p);
}

static void test_limit(void **state)
{
    (void)state;
    fixture_start(&f);
    for (int chunked = 0; chunked < 2; chunked++) {
        for (int over = -1; over <= 1; over++) {
            f.body_bytes_max = 5000;
            struct peer p = peer_open(&f);
            size_t size = (size_t)(5000 + over);
            chunked ? send_chunked(&p, "/b", size, 999) : send_length(&p, "/b", size);
            struct answer a = peer_answer(&f, &p);
            assert_int_equal(a.status, over > 0 ? 413 : 200);
            assert_int_equal(a.close, over > 0);
            if (over > 0) {
                assert_string_equal(a.body, "body_too_large");
                assert_int_equal(f.reset_code, -ERROR_BODY_TOO_LARGE);
            }
            peer_close(&p);
        }
    }
    assert_int_equal(f.resets, 2);
    /* told before it is sent */
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5001\r\n\r\n").status, 413);
    peer_close(&p);
    /* chunk framing without end is no way round it */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;"));
    static char extension[3 * WIRE_FRAMING_BYTES_MAX];
    memset(extension, 'e', sizeof(extension));
    (void)peer_send(&f, &p, extension, sizeof(extension));
    assert_int_equal(peer_answer(&f, &p).status, 400);
    peer_close(&p);
}

/* Bodies of one owner hold at most what they leave free; its only body may have all that is free. */
static void test_owners_bodies(void **state)
{
    (void)state;
    static const char head[] = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    static struct wire_owner *mine = NULL, *other = NULL;
    f.config.bodies_bytes_max = 1000000;
    fixture_start(&f);
    f.owner = &mine;
    struct peer slow[4];
    for (unsigned i = 0; i < 4; i++) {
        slow[i] = peer_open(&f);
        assert_true(peer_say(&f, &slow[i], head));
        (void)peer_send(&f, &slow[i], body, 199999);
        if (i < 2)
            until(&f, wire_owner_memory(mine) == (i + 1) * 200000);
        else
            assert_int_equal(peer_answer(&f, &slow[i]).status, 429);
        assert_true(wire_owner_memory(mine) <= 500000);
    }
    assert_int_equal(f.reset_code, -ERROR_QUEUE_FULL);
    f.reset_code = 0;
    until(&f, wire_owner_memory(mine) == 400000);
    f.owner = &other; /* alone in it: more than what is left over */
    struct peer p = peer_open(&f);
    send_length(&p, "/b", 550000);
    expect_echo(&p, 550000);
    assert_int_equal(wire_owner_memory(other), 0);
    assert_true(peer_say(&f, &slow[0], "x"));
    expect_echo(&slow[0], 200000);
    peer_close(&slow[1]);
    until(&f, wire_owner_memory(mine) == 0);
    assert_int_equal(stats_of(&f).memory_bytes, 0);
    peer_close(&p);
    peer_close(&slow[0]);
    peer_close(&slow[2]);
    peer_close(&slow[3]);
}

/* The sum over connections is bounded, and memory is taken as bytes come, not as they are announced. */
static void test_bodies_bytes(void **state)
{
    (void)state;
    f.config.bodies_bytes_max = 300000;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer announcer[10];
    for (int i = 0; i < 10; i++) {
        announcer[i] = peer_open(&f);
        assert_true(peer_say(&f, &announcer[i], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
    }
    until(&f, f.heads == 10);
    assert_true(stats_of(&f).memory_bytes <= 10 * WIRE_BODY_FIRST_BYTES);
    for (int i = 0; i < 10; i++)
        peer_close(&announcer[i]);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(stats_of(&f).memory_bytes, 0);
    struct peer first = peer_open(&f), second = peer_open(&f);
    send_length(&first, "/b", 200000);
    until(&f, f.held);
    struct wire_exchange *x = f.held;
    f.held = NULL;
    send_length(&second, "/b", 200000);
    struct answer a = peer_answer(&f, &second);
    assert_int_equal(a.status, 503);
    assert_string_equal(a.body, "overloaded");
    assert_int_equal(f.reset_code, -ERROR_OVERLOADED);
    fixture_answer(&f, x, 200);
    expect_echo(&first, 200000);
    assert_int_equal(stats_of(&f).memory_bytes, 0);
    peer_close(&second);
    second = peer_open(&f);
    send_length(&second, "/b", 200000);
    until(&f, f.held);
    fixture_answer(&f, f.held, 200);
    expect_echo(&second, 200000);
    peer_close(&first);
    peer_close(&second);
}

static void test_stream(void **state)
{
    (void)state;
    f.act = ACT_STREAM;
    f.body_bytes_max = SIZE_MAX;
    fixture_start(&f);
    static const size_t sizes[] = {0,       1, 5000, WIRE_BLOCK_BYTES, WIRE_STREAM_BYTES, WIRE_STREAM_BYTES * 3 + 1,
                                   BODY_MAX};
    struct peer p = peer_open(&f);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int chunked = 0; chunked < 2; chunked++) {
            f.data_bytes = f.data_sum = 0;
            chunked ? send_chunked(&p, "/s", sizes[i], 3000) : send_length(&p, "/s", sizes[i]);
            assert_int_equal(peer_answer(&f, &p).status, 200);
            assert_int_equal(f.data_bytes, sizes[i]);
            assert_true(f.data_sum == body_sum(sizes[i]));
            assert_int_equal(f.last_body_bytes, 0);
        }
    }
    /* the next request comes in the same piece as the last bytes of the body */
    f.data_bytes = 0;
    assert_true(peer_say(&f, &p, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET("/n")));
    assert_string_equal(peer_answer(&f, &p).body, "PUT /  0");
    assert_string_equal(peer_answer(&f, &p).body, "GET /n  0");
    assert_int_equal(f.data_bytes, 3);
    peer_close(&p);
}

static void test_pause(void **state)
{
    (void)state;
    f.act = ACT_STREAM_PAUSE;
    f.body_bytes_max = SIZE_MAX;
    fixture_start(&f);
    for (int chunked = 0; chunked < 2; chunked++) {
        struct peer p = peer_open(&f);
        f.data_bytes = f.data_sum = 0;
        unsigned ends = f.ends;
        assert_true(peer_sayf(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n%s",
                              chunked ? "Transfer-Encoding: chunked" : "Content-Length: 300000",
                              chunked ? "493e0\r\n" : ""));
        size_t sent = 0;
        bool trailed = false;
        while (f.ends == ends) {
            if (sent < 300000) {
                ssize_t n = send(p.fd, body + sent, 300000 - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                sent += n > 0 ? (size_t)n : 0;
            } else if (!trailed) {
                trailed = true;
                if (chunked)
                    assert_true(peer_say(&f, &p, "\r\n0\r\n\r\n"));
                assert_true(peer_say(&f, &p, GET("/behind")));
            }
            until(&f, f.held || f.ends > ends);
            if (!f.held)
                continue;
            /* nothing more comes while paused */
            uint64_t before = f.data_bytes;
            turn(&f);
            turn(&f);
            assert_int_equal(f.data_bytes, before);
            struct wire_exchange *x = f.held;
            f.held = NULL;
            wire_resume(x);
        }
        assert_int_equal(f.data_bytes, 300000);
        assert_true(f.data_sum == body_sum(300000));
        assert_int_equal(peer_answer(&f, &p).status, 200);
        assert_string_equal(peer_answer(&f, &p).body, "GET /behind  0");
        peer_close(&p);
    }
}

/* A refusal in the middle of a stream. */
static void test_answer_in_data(void **state)
{
    (void)state;
    f.act = ACT_STREAM_ANSWER;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    send_length(&p, "/b", 40000); /* little is left: the connection stays */
    assert_false(peer_answer(&f, &p).close);
    send_length(&p, "/b", 10);
    assert_false(peer_answer(&f, &p).close);
    send_length(&p, "/b", 1000000);
    assert_true(peer_answer(&f, &p).close);
    until(&f, peer_ended(&p));
    peer_close(&p);
    p = peer_open(&f);
    send_chunked(&p, "/b", 100000, 5000);
    assert_true(peer_answer(&f, &p).close);
    peer_close(&p);
    assert_int_equal(f.datas, 4);
    assert_int_equal(f.ends, 0);
    until(&f, stats_of(&f).memory_bytes == 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (char)('a' + i % 26 + (i >> 12) % 3);
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),  TEST(test_limit), TEST(test_bodies_bytes),   TEST(test_owners_bodies),
        TEST(test_stream), TEST(test_pause), TEST(test_answer_in_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
