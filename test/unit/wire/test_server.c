/* The listener: limits, refusals, lack of descriptors, Unix peers, draining, stopping. */
#include "test/unit/wire/fixture.h"

#include "wire/wire_internal.h"

#include <sys/resource.h>

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

/* Turns the loop for so long. */
static void pass_ms(uint64_t ms)
{
    uint64_t until_ns = clock_monotonic_ns() + (ms + 1) * NS_PER_MS;
    while (clock_monotonic_ns() < until_ns)
        turn(&f);
}

static void test_connections_max(void **state)
{
    (void)state;
    f.config.connections_max = 3;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p[3];
    for (unsigned i = 0; i < 3; i++) { /* all are busy: none gives way */
        p[i] = peer_open(&f);
        assert_true(peer_say(&f, &p[i], GET("/")));
        until(&f, f.ends == i + 1);
    }
    pass_ms(WIRE_YIELD_AGE_MS);
    for (int i = 0; i < 50; i++) { /* refused ones leave nothing behind */
        struct peer over = peer_open(&f);
        struct answer a = peer_answer(&f, &over);
        assert_int_equal(a.status, 503);
        assert_string_equal(a.body, "overloaded");
        assert_true(a.close);
        until(&f, peer_ended(&over));
        peer_close(&over);
    }
    assert_int_equal(stats_of(&f).refused, 50);
    assert_int_equal(stats_of(&f).connections, 3);
    assert_int_equal(stats_of(&f).connections_peak, 3);
    peer_reset(&p[1]);
    until(&f, stats_of(&f).connections == 2);
    f.act = ACT_ECHO;
    p[1] = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p[1], GET("/")).status, 200);
    for (int i = 0; i < 3; i++)
        peer_close(&p[i]);
    assert_int_equal(stats_of(&f).yielded, 0);
}

/* Of who has most, the one longest between requests gives way; who has less than half as many loses none. */
static void test_idle_ones_give_way(void **state)
{
    (void)state;
    enum { MANY = 6, NEW = 3 };
    static struct wire_owner *many = NULL, *one = NULL;
    f.config.connections_max = MANY + 2;
    fixture_start(&f);
    struct peer greedy[MANY], other, nobodys, fresh[NEW];
    f.owner = &many;
    for (int i = 0; i < MANY; i++) {
        greedy[i] = peer_open(&f);
        assert_int_equal(peer_ask(&f, &greedy[i], GET("/")).status, 200);
    }
    pass_ms(2 * WIRE_YIELD_AGE_MS);
    assert_int_equal(peer_ask(&f, &greedy[0], GET("/")).status, 200);
    assert_int_equal(wire_owner_connections(many), MANY);
    f.owner = &one;
    other = peer_open(&f);
    assert_int_equal(peer_ask(&f, &other, GET("/")).status, 200);
    nobodys = peer_open(&f);
    until(&f, stats_of(&f).connections == MANY + 2);
    for (int i = 0; i < NEW; i++) {
        pass_ms(2 * WIRE_YIELD_AGE_MS);
        fresh[i] = peer_open(&f);
        assert_int_equal(peer_ask(&f, &fresh[i], GET("/")).status, 200);
        assert_int_equal(stats_of(&f).connections, MANY + 2);
        assert_int_equal(stats_of(&f).yielded, i + 1);
        assert_int_equal(wire_owner_connections(many), MANY - 1 - i);
    }
    assert_int_equal(wire_owner_connections(one), 1 + NEW);
    assert_int_equal(stats_of(&f).refused, 0);
    for (int i = 1; i <= NEW; i++)
        assert_true(peer_ended(&greedy[i]));
    f.owner = NULL;
    assert_int_equal(peer_ask(&f, &greedy[0], GET("/")).status, 200);
    assert_int_equal(peer_ask(&f, &other, GET("/")).status, 200);
    assert_int_equal(peer_ask(&f, &nobodys, GET("/")).status, 200);
    for (int i = 0; i < MANY; i++)
        peer_close(&greedy[i]);
    until(&f, many == NULL); /* its last connection has gone */
    peer_close(&other);
    peer_close(&nobodys);
    for (int i = 0; i < NEW; i++)
        peer_close(&fresh[i]);
    until(&f, one == NULL);
}

/* A connection whose request was answered needs no time of grace. */
static void test_answered_ones_give_way_at_once(void **state)
{
    (void)state;
    enum { MAX = 2 };
    f.config.connections_max = MAX;
    fixture_start(&f);
    struct peer p[MAX + 1];
    for (int i = 0; i < MAX + 1; i++) {
        p[i] = peer_open(&f);
        assert_int_equal(peer_ask(&f, &p[i], GET("/")).status, 200);
    }
    assert_int_equal(stats_of(&f).yielded, 1);
    for (int i = 0; i < MAX + 1; i++)
        peer_close(&p[i]);
}

/* Who proves nothing has no more right than an owner: a flood of silent connections, or of unfinished heads, makes room
 * for each newcomer. */
static void test_silent_ones_give_way(void **state)
{
    (void)state;
    enum { SILENT = 8 };
    static struct wire_owner *one = NULL;
    f.config.connections_max = SILENT;
    fixture_start(&f);
    struct peer silent[SILENT];
    for (int i = 0; i < SILENT; i++) {
        silent[i] = peer_open(&f);
        if (i % 2)
            assert_true(peer_say(&f, &silent[i], "GET / HT"));
    }
    until(&f, stats_of(&f).connections == SILENT);
    pass_ms(2 * WIRE_YIELD_AGE_MS);
    f.owner = &one;
    struct peer p = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    struct peer q = peer_open(&f);
    assert_int_equal(peer_ask(&f, &q, GET("/")).status, 200);
    assert_int_equal(stats_of(&f).yielded, 2);
    unsigned n_ended = 0, n_told = 0;
    for (int i = 0; i < SILENT; i++) {
        n_ended += peer_ended(&silent[i]);
        n_told += peer_has_answer(&silent[i], false);
        peer_close(&silent[i]);
    }
    assert_int_equal(n_ended, 2);
    assert_int_equal(n_told, 2); /* those that had begun a request: they were first, their time is shorter */
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    peer_close(&p);
    peer_close(&q);
}

/* Bodies that never end: they stay while their owner has no more than an equal share, beyond it one gives way. */
static void test_transfers_give_way(void **state)
{
    (void)state;
    static struct wire_owner *slow = NULL, *other = NULL;
    f.config.connections_max = 4;
    fixture_start(&f);
    struct peer p[4], q[3];
    f.owner = &slow;
    for (unsigned i = 0; i < 4; i++) {
        p[i] = peer_open(&f);
        assert_true(peer_say(&f, &p[i], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"));
        until(&f, f.heads == i + 1);
    }
    pass_ms(2 * WIRE_YIELD_AGE_MS);
    f.owner = &other;
    f.act = ACT_HOLD;
    for (unsigned i = 0; i < 3; i++) { /* 4, 3 and 2 of 4, with one more owner to come: above 2, above 1, above 1 */
        q[i] = peer_open(&f);
        assert_true(peer_say(&f, &q[i], GET("/")));
        until(&f, f.ends == i + 1);
        assert_int_equal(wire_owner_connections(slow), 3 - i);
        assert_int_equal(f.reset_code, -ERROR_OVERLOADED);
        assert_int_equal(peer_answer(&f, &p[i]).status, 503);
    }
    struct peer over = peer_open(&f); /* one body, three that work */
    assert_int_equal(peer_answer(&f, &over).status, 503);
    assert_int_equal(stats_of(&f).refused, 1);
    assert_int_equal(stats_of(&f).memory_bytes, wire_owner_memory(slow));
    peer_close(&over);
    for (int i = 0; i < 4; i++)
        peer_close(&p[i]);
    for (int i = 0; i < 3; i++)
        peer_close(&q[i]);
}

/* A bound of its own, held by who calls wire_owner_yield; and an owner whose place goes before its connections. */
static void test_owner_yields(void **state)
{
    (void)state;
    static struct wire_owner *one = NULL, *two = NULL;
    assert_false(wire_owner_yield(one));
    fixture_start(&f);
    f.owner = &one;
    struct peer p = peer_open(&f), q = peer_open(&f);
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    assert_int_equal(peer_ask(&f, &q, GET("/")).status, 200);
    pass_ms(2 * WIRE_YIELD_AGE_MS);
    f.act = ACT_HOLD;
    assert_true(peer_say(&f, &q, GET("/")));
    until(&f, f.held);
    assert_true(wire_owner_has(one, f.held));
    assert_false(wire_owner_has(two, f.held));
    assert_true(wire_owner_yield(one)); /* p: q is busy */
    until(&f, peer_ended(&p));
    assert_false(wire_owner_yield(one));
    assert_int_equal(wire_owner_connections(one), 1);
    fixture_answer(&f, f.held, 200);
    assert_int_equal(peer_answer(&f, &q).status, 200);
    f.act = ACT_ECHO;
    f.owner = &two; /* it shows another key */
    assert_int_equal(peer_ask(&f, &q, GET("/")).status, 200);
    assert_null(one);
    assert_int_equal(wire_owner_connections(two), 1);
    wire_owner_forget(&two);
    assert_null(two);
    wire_owner_forget(&two);
    f.owner = NULL;
    assert_int_equal(peer_ask(&f, &q, GET("/")).status, 200);
    peer_close(&p);
    peer_close(&q);
    until(&f, stats_of(&f).connections == 0);
    assert_null(two);
}

static void test_unix(void **state)
{
    (void)state;
    f.is_unix = true;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_string_equal(peer_ask(&f, &p, GET("/x")).body, "GET /x  0");
    f.peer_refused = true;
    struct peer other = peer_open(&f);
    assert_int_equal(peer_answer(&f, &other).status, 403);
    until(&f, peer_ended(&other));
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    peer_close(&p);
    peer_close(&other);
    assert_int_equal(f.heads, 2);
}

/* Peers wait in the kernel's queue, the loop sleeps meanwhile, and they are served once there are descriptors again. */
static void test_no_descriptors(void **state)
{
    (void)state;
    fixture_start(&f);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct peer p = peer_open(&f), q = peer_open(&f);
    struct rlimit none = {0, old.rlim_max}; /* open ones go on working, new ones are refused */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    until(&f, f.server->accept_paused);
    assert_false(uv_is_active((uv_handle_t *)&f.server->listener));
    for (int i = 0; i < 20; i++)
        turn(&f);
    assert_int_equal(stats_of(&f).accepted, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(peer_ask(&f, &p, GET("/")).status, 200);
    assert_int_equal(peer_ask(&f, &q, GET("/")).status, 200);
    peer_close(&p);
    peer_close(&q);
}

static void test_start_refused(void **state)
{
    (void)state;
    fixture_start(&f);
    struct error err = {0};
    struct wire_server *server = NULL;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(wire_server_start(&f.loop, fd, &f.config, &fixture_handler, &f, &server, &err),
                     -ERROR_INVALID_ARGUMENT);
    assert_null(server);
    assert_int_equal(close(fd), 0); /* still ours */
    assert_int_equal(wire_server_start(&f.loop, -1, &f.config, &fixture_handler, &f, &server, NULL),
                     -ERROR_INVALID_ARGUMENT);
}

static void test_drain(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer idle = peer_open(&f), held = peer_open(&f), half = peer_open(&f), fresh = peer_open(&f);
    assert_true(peer_say(&f, &idle, GET("/")));
    until(&f, f.held);
    fixture_answer(&f, f.held, 200);
    assert_false(peer_answer(&f, &idle).close);
    assert_true(peer_say(&f, &half, "GET /half HTTP/1.1\r\nHo"));
    assert_true(peer_say(&f, &held, GET("/held")));
    until(&f, f.held && stats_of(&f).connections == 4 && stats_of(&f).bytes_in > 75);
    struct wire_exchange *x = f.held;
    f.held = NULL;
    wire_server_drain(f.server, fixture_drained, &f);
    until(&f, peer_ended(&idle) && peer_ended(&fresh));
    assert_int_equal(idle.size, 0);
    assert_int_equal(f.drains, 0);
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(late, (struct sockaddr *)&f.address, f.address_bytes), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(late);
    /* what has begun is finished */
    assert_true(peer_say(&f, &half, "st: a\r\n\r\n"));
    until(&f, f.held);
    fixture_answer(&f, f.held, 200);
    struct answer a = peer_answer(&f, &half);
    assert_string_equal(a.body, "GET /half  0");
    assert_true(a.close);
    assert_int_equal(f.drains, 0);
    fixture_answer(&f, x, 200);
    a = peer_answer(&f, &held);
    assert_string_equal(a.body, "GET /held  0");
    assert_true(a.close);
    until(&f, f.drains == 1);
    assert_int_equal(stats_of(&f).connections, 0);
    peer_close(&idle);
    peer_close(&held);
    peer_close(&half);
    peer_close(&fresh);
}

static void test_drain_nothing(void **state)
{
    (void)state;
    fixture_start(&f);
    wire_server_drain(f.server, fixture_drained, &f);
    assert_int_equal(f.drains, 1);
}

static void test_drain_in_end(void **state)
{
    (void)state;
    f.drain_in_end = true;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/a")));
    assert_true(peer_answer(&f, &p).close);
    until(&f, f.drains == 1 && peer_ended(&p));
    peer_close(&p);
}

static void test_stop(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer held = peer_open(&f), body = peer_open(&f), idle = peer_open(&f);
    assert_true(peer_say(&f, &held, GET("/")));
    assert_true(peer_say(&f, &body, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\nabc"));
    until(&f, f.heads == 2 && stats_of(&f).connections == 3);
    fixture_stop_server(&f);
    assert_int_equal(f.resets, 2);
    assert_int_equal(f.reset_code, -ERROR_DRAINING);
    assert_int_equal(f.closeds, 3); /* nothing is called later */
    until(&f, peer_ended(&held) && peer_ended(&body) && peer_ended(&idle));
    peer_close(&held);
    peer_close(&body);
    peer_close(&idle);
}

/* Stopped by the handler itself, while wire is calling it; and while an answer is on its way. */
static void test_stop_inside(void **state)
{
    (void)state;
    for (int where = 0; where < 4; where++) {
        fixture_init(&f);
        f.stop_in_head = where == 0;
        f.stop_in_end = where == 1;
        f.stop_in_done = where == 2;
        f.answer_bytes = where == 3 ? 9 << 20 : 0;
        fixture_start(&f);
        struct peer p = peer_open(&f);
        assert_true(peer_say(&f, &p, GET("/a") GET("/b")));
        until(&f, f.heads == 1 && (where < 3 ? f.stops == 1 : f.ends == 1));
        if (where == 3)
            fixture_stop_server(&f);
        until(&f, where == 3 || peer_ended(&p));
        assert_int_equal(f.heads, 1);
        assert_int_equal(f.resets, where != 2);
        assert_int_equal(f.dones, where == 2);
        peer_close(&p);
        fixture_done_all(&f);
    }
}

static void test_connection_end(void **state)
{
    (void)state;
    f.act = ACT_HOLD;
    fixture_start(&f);
    struct peer p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    void **user = f.held->connection_user;
    fixture_answer(&f, f.held, 200);
    (void)peer_answer(&f, &p);
    wire_connection_end(user); /* between requests */
    assert_int_equal(f.closeds, 1);
    until(&f, peer_ended(&p));
    peer_close(&p);
    p = peer_open(&f);
    assert_true(peer_say(&f, &p, GET("/")));
    until(&f, f.held);
    wire_connection_end(f.held->connection_user);
    assert_int_equal(f.resets, 1);
    assert_int_equal(f.closeds, 2);
    until(&f, peer_ended(&p));
    peer_close(&p);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_connections_max),
        TEST(test_idle_ones_give_way),
        TEST(test_answered_ones_give_way_at_once),
        TEST(test_silent_ones_give_way),
        TEST(test_transfers_give_way),
        TEST(test_owner_yields),
        TEST(test_unix),
        TEST(test_no_descriptors),
        TEST(test_start_refused),
        TEST(test_drain),
        TEST(test_drain_nothing),
        TEST(test_drain_in_end),
        TEST(test_stop),
        TEST(test_connection_end),
        cmocka_unit_test(test_stop_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
