/* The life of connections and exchanges: keep-alive, pipelining, half-close, early answers, peers that go away. */
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

static void test_keep_alive(void **state)
{
    (void)state;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    for (int i = 0; i < 100; i++) {
        struct answer a = peer_ask(&f, &p, "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body, "POST /x y 5");
        assert_false(a.close);
        assert_non_null(strstr(a.head, "HTTP/1.1 200 OK\r\n"));
        assert_non_null(strstr(a.head, "\r\nContent-Type: text/plain\r\n"));
        assert_null(strstr(a.head, "Connection"));
    }
    assert_string_equal(f.last_body, "hello");
    struct wire_stats stats = stats_of(&f);
    assert_int_equal(stats.requests, 100);
    assert_int_equal(stats.accepted, 1);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(f.dones, 100);
    /* between requests a connection holds no buffer */
    assert_true(sizeof(struct wire_connection) <= 2048);
    struct wire_connection *c = container_of(list_first(&f.server->connections), struct wire_connection, all);
    assert_int_equal(c->state, WIRE_IDLE);
    assert_null(c->block);
    assert_null(c->body.memory);
    peer_close(&p);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(f.closeds, 1);
}

static void test_http10_keep_alive(void **state)
{
    (void)state;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    struct answer a = peer_ask(&f, &p, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_non_null(strstr(a.head, "\r\nConnection: keep-alive\r\n"));
    a = peer_ask(&f, &p, "GET / HTTP/1.0\r\n\r\n");
    assert_true(a.close);
    until(&f, peer_ended(&p));
    peer_close(&p);
}

/* The second request is parsed after the first is answered; what the client sends ahead is bounded. */
static void test_pipelining(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    enum { N = 1500 };
    static const char one[] = GET("/p");
    static char many[N * (sizeof(one) - 1)];
    size_t size = sizeof(many);
    for (int i = 0; i < N; i++)
        memcpy(many + (size_t)i * (sizeof(one) - 1), one, sizeof(one) - 1);
    size_t sent = 0;
    for (int n = 0; n < N; n++) {
        ssize_t now = send(p.fd, many + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += now > 0 ? (size_t)now : 0;
        until(&f, f.held);
        assert_int_equal(f.heads, n + 1);
        assert_int_equal(f.dones, n);
        if (n == 100) {
            for (int i = 0; i < 20; i++)
                turn(&f);
            assert_true(stats_of(&f).bytes_in < 100 * sizeof(GET("/p")) + 2 * WIRE_BLOCK_BYTES);
        }
        struct wire_exchange *x = f.held;
        f.held = NULL;
        fixture_answer(&f, x, 200);
        while (peer_poll(&p))
            ;
    }
    for (int n = 0; n < N; n++)
        assert_string_equal(peer_answer(&f, &p).body, "GET /p  0");
    peer_close(&p);
}

static void test_half_close(void **state)
{
    (void)state;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/a") GET("/b")));
    shutdown(p.fd, SHUT_WR);
    assert_string_equal(peer_answer(&f, &p).body, "GET /a  0");
    assert_string_equal(peer_answer(&f, &p).body, "GET /b  0");
    until(&f, peer_ended(&p));
    assert_int_equal(p.error, 0);
    peer_close(&p);

    f.act = ACT_HOLD;
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"));
    until(&f, f.held);
    shutdown(p.fd, SHUT_WR);
    for (int i = 0; i < 10; i++)
        turn(&f);
    assert_non_null(f.held);
    fixture_answer(&f, f.held, 200);
    assert_string_equal(peer_answer(&f, &p).body, "POST /c  2");
    until(&f, peer_ended(&p));
    peer_close(&p);
}

/* Who sends no more while its request is handled is asked with a 100 whether it is still there: once. */
static void test_half_close_or_gone(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/c")));
    until(&f, f.held);
    shutdown(p.fd, SHUT_WR);
    static const char probe[] = "HTTP/1.1 100 Continue\r\n\r\n";
    until(&f, (peer_poll(&p), p.size >= sizeof probe - 1));
    struct wire_connection *c = container_of(f.held, struct wire_connection, exchange);
    uint64_t asked_ms = c->deadline_ms;
    until(&f, c->deadline_ms > asked_ms); /* it was looked at again */
    (void)peer_poll(&p);
    assert_int_equal(p.size, sizeof probe - 1);
    assert_memory_equal(p.in, probe, sizeof probe - 1);
    p.size = 0;
    fixture_answer(&f, f.held, 200);
    assert_string_equal(peer_answer(&f, &p).body, "GET /c  0");
    until(&f, peer_ended(&p));
    assert_int_equal(p.error, 0);
    peer_close(&p);
    assert_int_equal(f.resets, 0);

    f.held = NULL;
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/d")));
    until(&f, f.held);
    peer_close(&p);
    until(&f, f.resets == 1);
    assert_int_equal(f.reset_code, -ERROR_CANCELLED);
    until(&f, stats_of(&f).connections == 0);

    f.held = NULL; /* HTTP/1.0 knows no 100 */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "GET /e HTTP/1.0\r\n\r\n"));
    until(&f, f.held);
    shutdown(p.fd, SHUT_WR);
    c = container_of(f.held, struct wire_connection, exchange);
    until(&f, c->eof);
    asked_ms = c->deadline_ms;
    until(&f, c->deadline_ms > asked_ms);
    fixture_answer(&f, f.held, 200);
    assert_string_equal(peer_answer(&f, &p).body, "GET /e  0");
    peer_close(&p);
}

static void test_no_body(void **state)
{
    (void)state;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"));
    struct answer a = peer_answer_to(&f, &p, true);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.head, "\r\nContent-Length: 10\r\n")); /* "HEAD /x  0" */
    f.answer_status = 204;
    a = peer_ask(&f, &p, GET("/"));
    assert_int_equal(a.status, 204);
    assert_null(strstr(a.head, "Content-Length"));
    f.answer_status = 304;
    a = peer_ask(&f, &p, GET("/"));
    assert_int_equal(a.status, 304);
    f.answer_status = 299;
    a = peer_ask(&f, &p, GET("/"));
    assert_int_equal(a.status, 299);
    assert_string_equal(a.body, "GET /  0");
    assert_int_equal(p.size, 0);
    peer_close(&p);
    /* wire's own errors too */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"));
    assert_int_equal(peer_answer_to(&f, &p, true).status, 413);
    until(&f, peer_ended(&p));
    assert_int_equal(p.size, 0);
    peer_close(&p);
}

static void test_answer_headers(void **state)
{
    (void)state;
    static char huge[70000];
    memset(huge, 'h', sizeof(huge));
    struct wire_header headers[] = {{STR("X-A"), STR("1")},
                                    {STR("X-B"), STR("a\r\nInjected: yes\r\n\r\nHTTP/1.1 200")}};
    f.answer_headers = headers;
    f.n_answer_headers = 2;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    struct answer a = peer_ask(&f, &p, GET("/"));
    assert_non_null(strstr(a.head, "\r\nX-A: 1\r\n"));
    assert_non_null(strstr(a.head, "\r\nX-B: a  Injected: yes    HTTP/1.1 200\r\n"));
    headers[1].value = (struct str){huge, sizeof(huge)};
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 500);
    f.n_answer_headers = 0;
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    peer_close(&p);
}

static void test_close_after(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/") GET("/never")));
    until(&f, f.held);
    wire_close_after(f.held);
    fixture_answer(&f, f.held, 200);
    assert_true(peer_answer(&f, &p).close);
    until(&f, peer_ended(&p));
    assert_int_equal(f.heads, 1);
    peer_close(&p);
    f.answer_close = true;
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    fixture_answer(&f, f.held, 200);
    assert_true(peer_answer(&f, &p).close);
    until(&f, peer_ended(&p));
    peer_close(&p);
}

/* Refused in head(): what of the body is there, or is little, is skipped; more ends the connection, and the answer
 * arrives even though the peer goes on sending. */
static void test_early_answer(void **state)
{
    (void)state;
    f.act = ACT_REFUSE;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    struct answer a = peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(a.status, 401);
    assert_false(a.close);
    static char body[1 << 20];
    memset(body, 'G', sizeof(body));
    static const size_t sizes[] = {WIRE_BLOCK_BYTES, WIRE_DISCARD_BYTES_MAX - 1, WIRE_DISCARD_BYTES_MAX};
    for (int i = 0; i < 3; i++) {
        assert_true(peer_sayf(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", sizes[i]));
        a = peer_answer(&f, &p);
        assert_int_equal(a.status, 401);
        assert_false(a.close);
        assert_true(peer_send(&f, &p, body, sizes[i]));
    }
    a = peer_ask(&f, &p, GET("/")); /* the same connection is in step */
    assert_int_equal(a.status, 401);
    assert_int_equal(f.heads, 5);

    assert_true(peer_say(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n"));
    (void)peer_send(&f, &p, body, sizeof(body)); /* may be cut off */
    a = peer_answer(&f, &p);
    assert_int_equal(a.status, 401);
    assert_true(a.close);
    until(&f, peer_ended(&p));
    peer_close(&p);

    p = peer_open(&f);
    a = peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_true(a.close);
    peer_close(&p);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(f.resets, 0);
}

static void test_continue(void **state)
{
    (void)state;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    struct answer a =
        peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(a.status, 100);
    assert_int_equal(f.ends, 0);
    a = peer_ask(&f, &p, "hello");
    assert_int_equal(a.status, 200);
    /* the body is there already: no word needed */
    a = peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_int_equal(a.status, 200);
    /* too large: told before it is sent */
    a = peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(a.status, 413);
    until(&f, peer_ended(&p));
    peer_close(&p);
    /* refused: the body may come or not, so the connection ends */
    f.act = ACT_REFUSE;
    p = peer_open(&f);
    a = peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(a.status, 401);
    assert_true(a.close);
    until(&f, peer_ended(&p));
    peer_close(&p);
}

static void test_peer_goes(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    /* reset while the handler holds the request */
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    peer_reset(&p);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(f.resets, 1);
    assert_int_equal(f.reset_code, -ERROR_CANCELLED);
    assert_null(f.held);
    /* reset and end within a body */
    for (int i = 0; i < 2; i++) {
        p = peer_open(&f);
        assert_true(peer_say(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nabc"));
        until(&f, f.heads == 2u + (unsigned)i);
        i == 0 ? peer_reset(&p) : peer_close(&p);
        until(&f, stats_of(&f).connections == 0);
        assert_int_equal(f.resets, 2 + i);
        assert_int_equal(f.reset_code, -ERROR_CANCELLED);
    }
    /* within a head: nobody heard of it */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "GET / HT"));
    until(&f, stats_of(&f).bytes_in > 0 && stats_of(&f).connections == 1);
    peer_close(&p);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(f.heads, 3);
    /* gone before the answer: it finds no one */
    p = peer_open(&f);
    f.answer_bytes = 8 << 20;
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    peer_close(&p);
    for (int i = 0; i < 5; i++)
        turn(&f);
    struct wire_exchange *x = f.held;
    if (x)
        fixture_answer(&f, x, 200);
    until(&f, stats_of(&f).connections == 0);
    assert_int_equal(f.resets, 4);
    assert_int_equal(stats_of(&f).memory_bytes, 0);
}

/* Larger than what the kernel takes at once, to a peer that reads late; copied and owned. */
static void test_large_answer(void **state)
{
    (void)state;
    fixture_start(&f);
    uint64_t sum = 0;
    enum { SIZE = 9 << 20 };
    for (size_t i = 0; i < SIZE; i++)
        sum = sum * 31 + (unsigned char)('a' + i % 23);
    for (int owned = 0; owned < 2; owned++) {
        f.answer_bytes = SIZE;
        f.answer_owned = owned;
        struct peer p = peer_open(&f);
        unsigned dones = f.dones;
        assert_true(peer_say(&f, &p, GET("/") GET("/next")));
        until(&f, stats_of(&f).bytes_out > 0 && f.ends % 2 == 1);
        for (int i = 0; i < 10; i++)
            turn(&f);
        assert_int_equal(f.dones, dones); /* the kernel has not taken all */
        for (int i = 0; i < 2; i++) {
            struct answer a = peer_answer(&f, &p);
            assert_int_equal(a.body_bytes, SIZE);
            assert_true(a.body_sum == sum);
        }
        until(&f, f.dones == dones + 2);
        peer_close(&p);
    }
    f.answer_bytes = 100; /* an owned body small enough to be copied */
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, GET("/")).body_bytes, 100);
    peer_close(&p);
}

/* What peers do not take of their answers is bounded: who has its part is cut off, and that costs nobody else anything.
 */
static void test_unread_answers(void **state)
{
    (void)state;
    static struct wire_owner *slow = NULL, *other = NULL;
    f.config.bodies_bytes_max = 9 << 20;
    fixture_start(&f);
    f.answer_bytes = 9 << 20;
    f.owner = &slow;
    struct peer p = peer_open(&f), q = peer_open(&f), r = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, wire_owner_memory(slow) > 3 << 20);
    assert_int_equal(stats_of(&f).memory_bytes, wire_owner_memory(slow));
    assert_true(peer_say(&f, &q, GET("/")));
    until(&f, f.resets == 1);
    assert_true(f.reset_code == -ERROR_QUEUE_FULL || f.reset_code == -ERROR_OVERLOADED);
    f.owner = &other;
    f.answer_bytes = 0;
    assert_int_equal(peer_ask(&f, &r, GET("/")).status, 200);
    assert_int_equal(peer_answer(&f, &p).body_bytes, 9 << 20);
    until(&f, stats_of(&f).memory_bytes == 0);
    peer_close(&p);
    peer_close(&q);
    peer_close(&r);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_keep_alive),         TEST(test_http10_keep_alive), TEST(test_pipelining),     TEST(test_half_close),
        TEST(test_half_close_or_gone), TEST(test_no_body),           TEST(test_answer_headers), TEST(test_close_after),
        TEST(test_early_answer),       TEST(test_continue),          TEST(test_peer_goes),      TEST(test_large_answer),
        TEST(test_unread_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
