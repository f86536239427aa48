/* Answers that stream, over real sockets: slow readers, peers that leave, both kinds of socket. */
#include "test/unit/wire/fixture.h"

#include "wire/sse.h"
#include "wire/wire_internal.h"

static struct fixture f;
static unsigned rooms;
static struct wire_handler handler;

static void on_room(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
    rooms++;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&f);
    f.act = ACT_HOLD;
    rooms = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_done_all(&f);
    return 0;
}

static void start(void)
{
    fixture_start(&f);
    handler = fixture_handler;
    handler.room = on_room;
    f.server->handler = &handler;
}

static void ask(struct peer *p)
{
    assert_true(peer_say(&f, p, GET("/a")));
    until(&f, f.held);
    assert_int_equal(wire_sse_begin(f.held, NULL, 0, 64 * KIB, 0), 0);
}

static char piece[1024];

/* Takes one byte at a time while the answer is far ahead: nothing is lost, and never more than the buffer is kept. */
static void test_byte_by_byte(void **state)
{
    (void)state;
    start();
    struct peer p = peer_open(&f);
    ask(&p);
    size_t sent = 0, got = 0;
    bool stopped = false;
    unsigned stops = 0;
    while (sent < 8 * MIB || stops < 2) {
        if (!stopped) {
            int result = wire_stream_write(f.held, (struct str){piece, sizeof(piece)});
            assert_true(result >= 0);
            sent += sizeof(piece) + 7; /* "400\r\n…\r\n" */
            stopped = result == 1;
            stops += stopped;
            continue;
        }
        unsigned before = rooms;
        until(&f, ({
            char byte[4096];
            size_t wanted = got < 3000 ? 1 : sizeof(byte);
            ssize_t n = recv(p.fd, byte, wanted, MSG_DONTWAIT);
            got += n > 0 ? (size_t)n : 0;
            rooms > before;
        }));
        stopped = false;
    }
    wire_stream_end(f.held);
    until(&f, ({
        char bytes[65536];
        ssize_t n = recv(p.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        f.dones == 1 && n < 0;
    }));
    assert_in_range(got, sent + 5 + 100, sent + 5 + 300); /* the rest is the head */
    peer_close(&p);
}

/* Closes altogether, or resets, while the server only writes, and while it writes nothing. */
static void test_peer_leaves(void **state)
{
    (void)state;
    for (int is_unix = 0; is_unix < 2; is_unix++) {
        fixture_init(&f);
        f.act = ACT_HOLD;
        f.is_unix = is_unix;
        start();
        unsigned resets = 0;
        for (int how = 0; how < 4; how++) {
            struct peer p = peer_open(&f);
            ask(&p);
            int result = 0;
            while (how >= 2 && result == 0) /* until the kernel takes no more */
                result = wire_stream_write(f.held, (struct str){piece, sizeof(piece)});
            if (how % 2)
                peer_reset(&p);
            else
                peer_close(&p);
            until(&f, f.resets == resets + 1);
            assert_int_equal(f.reset_code, -ERROR_CANCELLED);
            resets++;
        }
        until(&f, stats_of(&f).connections == 0);
        if (!is_unix)
            fixture_done_all(&f);
    }
}

static void test_write_timeout(void **state)
{
    (void)state;
    f.config.write_timeout_ms = 60;
    start();
    struct peer p = peer_open(&f); /* never reads */
    ask(&p);
    while (wire_stream_write(f.held, (struct str){piece, sizeof(piece)}) == 0)
        ;
    until(&f, f.resets == 1);
    assert_int_equal(stats_of(&f).timeouts_write, 1);
    until(&f, stats_of(&f).connections == 0);
    peer_close(&p);
}

/* A stream that nobody writes to and whose peer is there outlives every time-out. */
static void test_quiet(void **state)
{
    (void)state;
    f.config.write_timeout_ms = f.config.idle_timeout_ms = f.config.head_timeout_ms = f.config.body_window_ms = 60;
    start();
    struct peer p = peer_open(&f);
    ask(&p);
    uint64_t until_ns = clock_monotonic_ns() + 300 * NS_PER_MS;
    until(&f, clock_monotonic_ns() > until_ns);
    assert_int_equal(f.resets, 0);
    wire_stream_end(f.held);
    until(&f, f.dones == 1);
    peer_close(&p);
}

/* The server stops in the middle of streams. */
static void test_stop(void **state)
{
    (void)state;
    start();
    struct peer a = peer_open(&f), b = peer_open(&f);
    ask(&a);
    while (wire_stream_write(f.held, (struct str){piece, sizeof(piece)}) == 0)
        ;
    f.held = NULL;
    ask(&b);
    fixture_stop_server(&f);
    assert_int_equal(f.resets, 2);
    peer_close(&a);
    peer_close(&b);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    memset(piece, 'p', sizeof(piece));
    const struct CMUnitTest tests[] = {
        TEST(test_byte_by_byte), TEST(test_peer_leaves), TEST(test_write_timeout), TEST(test_quiet), TEST(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
