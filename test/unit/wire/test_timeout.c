/* Time-outs, small ones. What must expire is waited for; what must not expire is kept up for many times its time-out.
 */
#include "test/unit/wire/fixture.h"

#include "wire/wire_internal.h"

enum { SHORT_MS = 60 };

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

static uint64_t now_ms(void)
{
    return clock_monotonic_ns() / NS_PER_MS;
}

static void test_head(void **state)
{
    (void)state;
    f.config.head_timeout_ms = SHORT_MS;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, "GET /x HTTP/1.1\r\nHost").status, 408);
    until(&f, peer_ended(&p));
    assert_int_equal(stats_of(&f).timeouts_head, 1);
    peer_close(&p);
    /* a header now and then does not help */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, "GET /x HTTP/1.1\r\nX: "));
    uint64_t last_ms = 0;
    while (!peer_has_answer(&p, false)) {
        if (now_ms() > last_ms && !peer_say(&f, &p, "x"))
            break;
        last_ms = now_ms();
        turn(&f);
    }
    assert_int_equal(peer_answer(&f, &p).status, 408);
    peer_close(&p);
    /* nor does it when the first request was good */
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/x") "GET"));
    assert_int_equal(peer_answer(&f, &p).status, 200);
    assert_int_equal(peer_answer(&f, &p).status, 408);
    peer_close(&p);
    assert_int_equal(f.resets, 0);
}

static void test_idle(void **state)
{
    (void)state;
    f.config.idle_timeout_ms = SHORT_MS;
    fixture_start(&f);
    struct peer a = peer_open(&f), b = peer_open(&f);
    until(&f, peer_ended(&a) && peer_ended(&b));
    assert_int_equal(a.size, 0); /* silently */
    assert_int_equal(b.size, 0);
    peer_close(&a);
    peer_close(&b);
    until(&f, stats_of(&f).connections == 0);
    assert_false(uv_is_active((uv_handle_t *)&f.server->timer)); /* nothing to watch: no wake-ups */
}

static void test_body(void **state)
{
    (void)state;
    f.config.body_window_ms = SHORT_MS;
    f.config.body_rate_bytes_per_s = 10000; /* 600 bytes per window */
    fixture_start(&f);
    static const char *const heads[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n",   /* in place */
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n", /* in memory of its own */
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    };
    for (unsigned i = 0; i < 3; i++) {
        struct peer p = peer_open(&f);
        assert_true(peer_say(&f, &p, heads[i]));
        assert_int_equal(peer_ask(&f, &p, "0123456789").status, 408);
        assert_int_equal(f.resets, i + 1);
        assert_int_equal(f.reset_code, -ERROR_REQUEST_TIMEOUT);
        peer_close(&p);
    }
    assert_int_equal(stats_of(&f).timeouts_body, 3);
}

static void test_write(void **state)
{
    (void)state;
    f.config.write_timeout_ms = SHORT_MS;
    f.answer_bytes = 20 << 20;
    fixture_start(&f);
    struct peer p = peer_open(&f); /* never reads */
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.resets == 1);
    assert_int_equal(f.reset_code, -ERROR_CANCELLED);
    assert_int_equal(stats_of(&f).timeouts_write, 1);
    until(&f, stats_of(&f).connections == 0);
    peer_close(&p);
}

/* The handler has its own deadlines; the peers of an exchange in hand are left alone. */
static void test_handling(void **state)
{
    (void)state;
    f.config.head_timeout_ms = f.config.idle_timeout_ms = f.config.body_window_ms = f.config.write_timeout_ms =
        SHORT_MS;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    uint64_t start_ms = now_ms();
    until(&f, now_ms() > start_ms + 5 * SHORT_MS);
    fixture_answer(&f, f.held, 200);
    assert_int_equal(peer_answer(&f, &p).status, 200);
    peer_close(&p);
}

/* Refused, and the peer neither sends nor closes. */
static void test_linger(void **state)
{
    (void)state;
    fixture_start(&f);
    f.server->deadlines[WIRE_DEADLINE_LINGER].timeout_ms = SHORT_MS;
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, "nonsense\r\n\r\n").status, 400);
    until(&f, peer_ended(&p)); /* our FIN */
    until(&f, stats_of(&f).connections == 0);
    peer_close(&p);
    /* or sends without end */
    p = peer_open(&f);
    f.server->deadlines[WIRE_DEADLINE_LINGER].timeout_ms = 1000000;
    assert_int_equal(peer_ask(&f, &p, "nonsense\r\n\r\n").status, 400);
    until(&f, !peer_say(&f, &p, "more nonsense, and more, and more, and more, and more, and more, and more"));
    until(&f, stats_of(&f).connections == 0);
    assert_true(stats_of(&f).bytes_in < 3 * WIRE_DISCARD_BYTES_MAX);
    peer_close(&p);
}

/* The rest of a refused body must come at the body's rate. */
static void test_discard(void **state)
{
    (void)state;
    f.config.body_window_ms = SHORT_MS;
    f.act = ACT_REFUSE;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nabc").status, 401);
    until(&f, peer_ended(&p));
    peer_close(&p);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_head),     TEST(test_idle),   TEST(test_body),    TEST(test_write),
        TEST(test_handling), TEST(test_linger), TEST(test_discard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
