/* Answers that stream and end before their end: peers that leave, time-outs. */
#include "test/unit/wire/stream_fixture.h"

/* How far an answer is: not begun, begun, a piece written, a piece in the queue of libuv, one more behind it. */
enum step { BEFORE, BEGUN, WRITTEN, FLYING, WAITING, STEPS };

static void advance_to(enum step step)
{
    ask(get);
    assert_true(wire_peer_watch(held));
    if (step >= BEGUN)
        assert_int_equal(begin(), 0);
    if (step >= WRITTEN)
        assert_int_equal(say("x"), 0);
    fake.window = 0;
    if (step >= FLYING)
        assert_int_equal(say("x"), 0);
    if (step >= WAITING)
        assert_int_equal(say("x"), 0);
}

static void test_peer_closes(void **state)
{
    (void)state;
    for (enum step step = BEFORE; step < STEPS; step++) {
        advance_to(step);
        fake_eof();
        assert_int_equal(resets, step + 1);
        assert_int_equal(reset_code, -ERROR_CANCELLED);
        assert_true(fake.closing);
        restart();
    }
}

static void test_peer_resets(void **state)
{
    (void)state;
    for (enum step step = BEFORE; step < STEPS; step++) {
        advance_to(step);
        wire_connection_broken(fake.c);
        assert_int_equal(resets, step + 1);
        restart();
    }
}

static void test_writing_fails(void **state)
{
    (void)state;
    for (enum step step = BEGUN; step < STEPS; step++) {
        advance_to(step);
        fake.broken = true;
        if (step < FLYING)
            assert_int_equal(say("x"), -ERROR_CANCELLED);
        else {
            fake.n_queue = 0;
            wire_connection_written(fake.c, UV_EPIPE);
        }
        assert_int_equal(resets, step);
        restart();
    }
    advance_to(BEFORE);
    fake.broken = true;
    assert_int_equal(begin(), -ERROR_CANCELLED);
    restart();
    advance_to(BEGUN);
    fake.broken = true;
    wire_stream_end(held);
    assert_null(held);
    assert_int_equal(reset_code, -ERROR_CANCELLED);
}

/* The credential was revoked, or the server stops. */
static void test_server_ends(void **state)
{
    (void)state;
    for (enum step step = BEFORE; step < STEPS; step++) {
        advance_to(step);
        wire_connection_end(held->connection_user);
        assert_int_equal(resets, step + 1);
        assert_true(fake.closing);
        restart();
    }
}

/* After the end only the rest is written; a peer that closes its side still gets it. */
static void test_eof_after_end(void **state)
{
    (void)state;
    advance_to(WAITING);
    wire_stream_end(held);
    fake_eof();
    assert_int_equal(resets, 0);
    fake_flush();
    fake_flush();
    assert_int_equal(dones, 1);
    assert_string_equal(body(), "1\r\nx\r\n1\r\nx\r\n1\r\nx\r\n0\r\n\r\n");
    assert_true(fake.closing);
}

static void test_watch(void **state)
{
    (void)state;
    ask(get); /* nobody watches: it may wait for its answer */
    fake_eof();
    assert_int_equal(resets, 0);
    assert_false(wire_peer_watch(held)); /* too late */
    struct wire_answer a = {.status = 200, .body = STR("late")};
    wire_answer(held, &a);
    assert_string_equal(body(), "late");
    assert_int_equal(dones, 1);
    restart();
    ask(get);
    assert_true(wire_peer_watch(held));
    wire_answer(held, &a);
    ask(get); /* of the next request nobody has said it */
    fake_eof();
    assert_int_equal(resets, 0);
    wire_answer(held, &a);
    assert_int_equal(dones, 3);
}

/* --- time --- */

static void test_write_timeout(void **state)
{
    (void)state;
    advance_to(WAITING);
    for (int i = 0; i < 8; i++) /* at the first look something had been taken */
        pass(1000);
    assert_int_equal(resets, 0);
    pass(1000);
    assert_int_equal(resets, 1);
    assert_int_equal(fake.server->stats.timeouts_write, 1);
    assert_true(fake.closing);
}

/* Slow, but alive; though the answer grows faster than it is taken. */
static void test_slow_reader(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    fake.window = 0;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(say("xy"), 0);
        for (int k = 0; k < 6; k++)
            pass(1000);
        assert_int_equal(resets, 0);
        fake.queue[0].iov_base = (char *)fake.queue[0].iov_base + 1; /* the kernel takes one byte */
        fake.queue[0].iov_len--;
        if (fake.queue[0].iov_len == 0)
            fake_flush();
    }
    for (int i = 0; i < 9; i++)
        pass(1000);
    assert_int_equal(resets, 1);
}

static void test_write_timeout_off(void **state)
{
    (void)state;
    config.write_timeout_ms = 0;
    wire_server_limits_set(fake.server, &config);
    advance_to(WAITING);
    for (int i = 0; i < 1000; i++)
        pass(1000);
    assert_int_equal(resets, 0);
}

static void test_idle(void **state)
{
    (void)state;
    ask(get);
    assert_int_equal(begin(), 0);
    pass(2000);
    assert_string_equal(body(), "");
    pass(1000);
    assert_string_equal(body(), "7\r\n: idle\n\r\n");
    pass(1000);
    pass(1000);
    assert_int_equal(say("x"), 0);
    pass(1000);
    pass(1000);
    assert_string_equal(body(), "7\r\n: idle\n\r\n1\r\nx\r\n");
    fake.broken = true;
    pass(1000); /* so a peer that is gone is found out */
    assert_int_equal(resets, 1);
}

int main(void)
{
    big_fill();
    const struct CMUnitTest tests[] = {
        TEST(test_peer_closes),       TEST(test_peer_resets), TEST(test_writing_fails), TEST(test_server_ends),
        TEST(test_eof_after_end),     TEST(test_watch),       TEST(test_write_timeout), TEST(test_slow_reader),
        TEST(test_write_timeout_off), TEST(test_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
