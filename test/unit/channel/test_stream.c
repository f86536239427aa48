/* The channel over a byte stream: reads and writes cut at every byte, a host that comes back, hostile guests. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The descriptors of the tested code take and give so many bytes, then nothing until the next cut. */
static size_t budget_write = SIZE_MAX, budget_read = SIZE_MAX;
static ssize_t cut_send(int fd, const void *data, size_t size, int flags);
static ssize_t cut_write(int fd, const void *data, size_t size);
static ssize_t cut_read(int fd, void *data, size_t size);
#include "channel/channel_internal.h"
#include <sys/socket.h>
#include <unistd.h>
#define send  cut_send
#define write cut_write
#define read  cut_read
#include "channel/channel_stream.c" // NOLINT(bugprone-suspicious-include)
#undef send
#undef write
#undef read

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static const struct channel_geometry geometry = {64, 2, 16384, 16384};
static const uint64_t nonces[3][2] = {{1, 2}, {3, 4}, {5, 6}};

static size_t cut(size_t *budget, size_t size)
{
    size_t allowed = size < *budget ? size : *budget;
    if (*budget != SIZE_MAX)
        *budget -= allowed;
    if (allowed == 0)
        errno = EAGAIN;
    return allowed;
}

static ssize_t cut_send(int fd, const void *data, size_t size, int flags)
{
    size = cut(&budget_write, size);
    return size == 0 ? -1 : send(fd, data, size, flags);
}

static ssize_t cut_write(int fd, const void *data, size_t size)
{
    size = cut(&budget_write, size);
    return size == 0 ? -1 : write(fd, data, size);
}

static ssize_t cut_read(int fd, void *data, size_t size)
{
    size = cut(&budget_read, size);
    return size == 0 ? -1 : read(fd, data, size);
}

static void uncut(void)
{
    budget_write = budget_read = SIZE_MAX;
}

struct pair {
    struct channel *host, *guest;
    int fds[2]; /* of the stream, kept over epochs like the supervisor and the guest's init do */
};

static struct channel *end_open(struct pair *p, bool host, uint32_t epoch)
{
    struct channel *c = NULL;
    struct error err = {0};
    int fd = fcntl(p->fds[host ? 0 : 1], F_DUPFD_CLOEXEC, 3);
    assert_int_equal(channel_stream_open(host, &geometry, epoch, nonces[epoch - 1], &fd, &c, &err), 0);
    assert_int_equal(fd, -1);
    return c;
}

static void pair_open(struct pair *p)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p->fds), 0);
    p->host = end_open(p, true, 1);
    p->guest = end_open(p, false, 1);
}

static void pair_close(struct pair *p)
{
    channel_close(p->host);
    channel_close(p->guest);
    fd_close(&p->fds[0]);
    fd_close(&p->fds[1]);
}

static void push(struct channel *c, struct channel_frame f)
{
    assert_int_equal(channel_push(c, &f), 0);
}

/* Two small payloads and one that goes past the staging buffers, frames without any between them. */
static void conversation_send(struct channel *c)
{
    char *slot = channel_slot_own(c, 1);
    for (size_t i = 0; i < 16384; i++)
        slot[i] = (char)(i * 7 + i / 256);
    uint8_t payload = c->host ? CHANNEL_LEASE : CHANNEL_PART;
    push(c, (struct channel_frame){.type = payload, .slot = 1, .offset = 3, .length = 5});
    push(c, (struct channel_frame){.type = c->host ? CHANNEL_ITEM : CHANNEL_STATS, .a = 77});
    push(c, (struct channel_frame){.type = payload, .slot = 1, .offset = 128, .length = 6000});
    push(c, (struct channel_frame){.type = payload, .slot = 1, .offset = 16380, .length = 4});
    push(c, (struct channel_frame){.type = c->host ? CHANNEL_CREDIT : CHANNEL_DONE});
    channel_ring(c);
}
enum { CONVERSATION_BYTES = 5 * 64 + 5 + 6000 + 4 };

static void conversation_check(struct channel *c)
{
    struct channel_frame f;
    struct error err = {0};
    uint8_t payload = c->host ? CHANNEL_PART : CHANNEL_LEASE;
    const uint64_t ranges[5][2] = {{3, 5}, {0, 0}, {128, 6000}, {16380, 4}, {0, 0}};
    for (int k = 0; k < 5; k++) {
        assert_int_equal(channel_pull(c, &f, &err), 1);
        assert_true((f.type == payload) == (ranges[k][1] > 0));
        assert_int_equal(f.offset, ranges[k][0]);
        assert_int_equal(f.length, ranges[k][1]);
        const char *slot = channel_slot_other(c, f.slot);
        for (uint64_t i = f.offset; i < f.offset + f.length; i++)
            assert_int_equal(slot[i], (char)(i * 7 + i / 256));
    }
    assert_int_equal(channel_pull(c, &f, &err), 0);
}

/* Both directions at once; one of the two descriptors' calls is cut after `at` bytes, once. */
static void conversation_cut(size_t *budget, size_t at)
{
    struct pair p;
    uncut();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p.fds), 0);
    *budget = at;
    p.host = end_open(&p, true, 1);
    p.guest = end_open(&p, false, 1);
    conversation_send(p.host);
    conversation_send(p.guest);
    channel_awake(p.host);
    channel_awake(p.guest);
    uncut();
    for (int i = 0; i < 3; i++) {
        channel_awake(p.host);
        channel_awake(p.guest);
    }
    assert_int_equal(channel_wants(p.host), POLLIN);
    assert_int_equal(channel_wants(p.guest), POLLIN);
    conversation_check(p.guest);
    conversation_check(p.host);
    pair_close(&p);
}

static void writes_may_end_at_every_byte(void **state)
{
    (void)state;
    for (size_t at = 0; at <= 2 * 64 + 2 * CONVERSATION_BYTES; at += at < 900 || at > 12000 ? 1 : 13)
        conversation_cut(&budget_write, at);
}

static void reads_may_end_at_every_byte(void **state)
{
    (void)state;
    for (size_t at = 0; at <= 2 * 64 + 2 * CONVERSATION_BYTES; at += at < 900 || at > 12000 ? 1 : 13)
        conversation_cut(&budget_read, at);
}

/* Given up in the middle of any record or payload: the word comes between two of them. */
static void a_lease_may_be_given_up_after_any_byte(void **state)
{
    (void)state;
    for (size_t at = 0; at <= CONVERSATION_BYTES + 64; at += at < 900 || at > 6000 ? 1 : 13) {
        struct pair p;
        uncut();
        pair_open(&p);
        channel_awake(p.host);
        channel_awake(p.guest);
        budget_write = at;
        conversation_send(p.host);
        channel_lease_cancel(p.host, 70);
        channel_lease_cancel(p.host, 77);
        uncut();
        channel_awake(p.host);
        channel_awake(p.guest);
        assert_int_equal(channel_lease_cancelled(p.guest), 77);
        conversation_check(p.guest);
        pair_close(&p);
    }
}

static void bytes_may_come_one_by_one(void **state)
{
    (void)state;
    struct pair p;
    uncut();
    pair_open(&p);
    channel_awake(p.host);
    conversation_send(p.host);
    for (int i = 0; i < 64 + CONVERSATION_BYTES; i++) {
        budget_read = 1;
        channel_awake(p.guest);
    }
    uncut();
    conversation_check(p.guest);
    pair_close(&p);
}

/* A host dies after any byte of what it sends, and the guest is left in the middle of a record too. The next host goes
 * on over the same descriptors, whatever the guest had read until it was told. */
static void a_new_host_goes_on_after_any_byte(void **state)
{
    (void)state;
    for (size_t at = 0; at <= 64 + CONVERSATION_BYTES; at += at < 900 || at > 6000 ? 1 : 29) {
        struct pair p;
        uncut();
        pair_open(&p);
        channel_awake(p.host);
        budget_write = at;
        conversation_send(p.host);
        budget_write = at;
        conversation_send(p.guest);
        uncut();
        channel_close(p.host);
        p.host = end_open(&p, true, 2);
        channel_awake(p.host); /* it discards what the old guest had sent */
        budget_read = at % 3 == 0 ? at / 2 : at % 3 == 1 ? SIZE_MAX : 0;
        channel_awake(p.guest);
        uncut();
        channel_close(p.guest);
        p.guest = end_open(&p, false, 2);
        conversation_send(p.host);
        conversation_send(p.guest);
        for (int i = 0; i < 2; i++) {
            channel_awake(p.guest);
            channel_awake(p.host);
        }
        conversation_check(p.guest);
        conversation_check(p.host);
        pair_close(&p);
    }
}

static void the_host_waits_for_the_guest(void **state)
{
    (void)state;
    struct pair p = {.guest = NULL};
    uncut();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p.fds), 0);
    p.host = end_open(&p, true, 1);
    push(p.host, (struct channel_frame){.type = CHANNEL_LOAD});
    channel_ring(p.host);
    channel_awake(p.host);
    char byte;
    assert_true(recv(p.fds[1], &byte, 1, MSG_DONTWAIT) < 0);
    p.guest = end_open(&p, false, 1);
    channel_awake(p.host);
    channel_awake(p.guest);
    struct channel_frame f;
    assert_int_equal(channel_pull(p.guest, &f, NULL), 1);
    assert_int_equal(f.type, CHANNEL_LOAD);
    pair_close(&p);
}

static void a_guest_that_does_not_read_holds_nobody(void **state)
{
    (void)state;
    struct pair p;
    uncut();
    pair_open(&p);
    channel_awake(p.host);
    for (uint32_t i = 0; i < geometry.n_frames; i++)
        push(p.host, (struct channel_frame){.type = CHANNEL_LEASE, .a = i, .length = 16384});
    channel_ring(p.host);
    assert_int_equal(channel_wants(p.host), POLLIN | POLLOUT);
    assert_int_equal(channel_room(p.host), 0);
    struct channel_frame f = {.type = CHANNEL_CANCEL};
    assert_int_equal(channel_push(p.host, &f), -ERROR_AGAIN);
    for (uint32_t i = 0; i < geometry.n_frames; i++) {
        for (int turns = 0; !channel_pending(p.guest) && turns < 100; turns++) {
            channel_awake(p.guest);
            channel_awake(p.host);
        }
        assert_int_equal(channel_pull(p.guest, &f, NULL), 1);
        assert_int_equal(f.a, i);
    }
    assert_true(channel_park(p.guest));
    channel_awake(p.host);
    assert_int_equal(channel_wants(p.host), POLLIN);
    assert_true(channel_room(p.host) > geometry.n_frames / 2); /* what is taken is told in bulk */
    pair_close(&p);
}

/* --- hostile guests: bytes of their own making --- */

static const uint64_t one = 1;

static struct channel_frame record(uint8_t type)
{
    return (struct channel_frame){.type = type, .epoch = 1};
}

/* A host, and the guest's greeting. */
static void host_open(struct pair *p)
{
    uncut();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p->fds), 0);
    p->guest = NULL;
    p->host = end_open(p, true, 1);
    struct channel_frame hello = record(RECORD_HELLO);
    hello.request_id = nonces[0][0];
    hello.tenant_id = nonces[0][1];
    hello.a = CHANNEL_PROTOCOL;
    assert_int_equal(send(p->fds[1], &hello, sizeof hello, 0), sizeof hello);
}

static void say(struct pair *p, struct channel_frame f)
{
    assert_int_equal(send(p->fds[1], &f, sizeof f, 0), sizeof f);
}

static void expect_refused(struct pair *p)
{
    struct channel_frame f;
    struct error err = {0};
    channel_awake(p->host);
    assert_int_equal(channel_pull(p->host, &f, &err), -ERROR_PEER);
    assert_true(err.text[0] != '\0');
    assert_int_equal(channel_wants(p->host), 0); /* and nothing more is read of it */
    assert_int_equal(channel_pull(p->host, &f, &err), -ERROR_PEER);
    pair_close(p);
}

static void a_frame_that_breaks_a_rule_is_refused(void **state)
{
    (void)state;
    const struct channel_frame bad[] = {
        {.type = CHANNEL_LEASE, .epoch = 1},
        {.type = CHANNEL_NONE, .epoch = 1},
        {.type = CHANNEL_TYPE_COUNT, .epoch = 1},
        {.type = 0xFF, .epoch = 1},
        {.type = CHANNEL_OPEN, .epoch = 2},
        {.type = CHANNEL_PART, .epoch = 1, .slot = 2},
        {.type = CHANNEL_PART, .epoch = 1, .offset = 1, .length = 16384},
        {.type = CHANNEL_PART, .epoch = 1, .offset = 16, .length = UINT64_MAX - 8},
        {.type = RECORD_HELLO, .epoch = 1, .request_id = one, .tenant_id = 2, .a = CHANNEL_PROTOCOL},
        {.type = RECORD_ACK, .epoch = 1, .a = 1},
        {.type = RECORD_ACK, .epoch = 1, .a = UINT32_MAX},
        {.type = RECORD_ACK, .epoch = 2, .a = 0},
        {.type = RECORD_CANCEL, .epoch = 1, .lease_id = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pair p;
        host_open(&p);
        say(&p, bad[i]);
        expect_refused(&p);
    }
}

static void what_came_before_a_fault_still_counts(void **state)
{
    (void)state;
    struct pair p;
    struct channel_frame f;
    host_open(&p);
    say(&p, record(CHANNEL_STATS));
    say(&p, record(CHANNEL_LEASE));
    say(&p, record(CHANNEL_STATS));
    channel_awake(p.host);
    assert_int_equal(channel_pull(p.host, &f, NULL), 1);
    assert_int_equal(f.type, CHANNEL_STATS);
    expect_refused(&p);
}

static void more_frames_than_the_ring_holds_are_refused(void **state)
{
    (void)state;
    struct pair p;
    struct channel_frame f;
    host_open(&p);
    for (uint32_t i = 0; i <= geometry.n_frames; i++)
        say(&p, record(CHANNEL_STATS));
    channel_awake(p.host);
    for (uint32_t i = 0; i < geometry.n_frames; i++)
        assert_int_equal(channel_pull(p.host, &f, NULL), 1);
    expect_refused(&p);
}

static void a_stream_that_does_not_begin_is_refused(void **state)
{
    (void)state;
    static char noise[64 * KIB];
    struct pair p = {.guest = NULL};
    uncut();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p.fds), 0);
    p.host = end_open(&p, true, 1);
    struct channel_frame hello = {.type = RECORD_HELLO, .epoch = 1, .request_id = 2, .tenant_id = 1};
    memcpy(noise + 100, &hello, sizeof hello); /* of another nonce */
    struct channel_frame f;
    struct error err = {0};
    uint64_t sent = 0, limit = LEFT_BYTES_MAX + 64 * KIB;
    while (channel_pull(p.host, &f, &err) == 0 && sent < 2 * limit) {
        ssize_t n = send(p.fds[1], noise, sizeof noise, MSG_DONTWAIT);
        sent += n > 0 ? (uint64_t)n : 0;
        channel_awake(p.host);
    }
    assert_in_range(sent, LEFT_BYTES_MAX, limit + MIB);
    expect_refused(&p);
}

static void a_guest_that_never_stops_holds_the_host_for_a_while_only(void **state)
{
    (void)state;
    struct pair p;
    host_open(&p);
    int size = 8 * (int)MIB;
    (void)setsockopt(p.fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size); /* best effort */
    channel_awake(p.host);
    static char bytes[64 * KIB];
    for (size_t i = 0; i + 64 <= sizeof bytes; i += 64) {
        struct channel_frame f = record(RECORD_ACK); /* sound, and it says nothing */
        memcpy(bytes + i, &f, sizeof f);
    }
    for (int i = 0; i < 128 && send(p.fds[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0; i++)
        ;
    uint64_t before = p.host->stream_bytes;
    channel_awake(p.host);
    assert_in_range(p.host->stream_bytes - before, 1, TAKE_BYTES_MAX + STAGE_BYTES);
    pair_close(&p);
}

static void the_end_of_a_stream_is_quiet(void **state)
{
    (void)state;
    struct pair p;
    struct channel_frame f;
    host_open(&p);
    say(&p, record(CHANNEL_STATS));
    fd_close(&p.fds[1]);
    channel_awake(p.host);
    assert_int_equal(channel_pull(p.host, &f, NULL), 1);
    channel_awake(p.host);
    assert_int_equal(channel_pull(p.host, &f, NULL), 0);
    assert_int_equal(channel_wants(p.host), 0);
    push(p.host, (struct channel_frame){.type = CHANNEL_CANCEL});
    channel_ring(p.host); /* no SIGPIPE */
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_may_end_at_every_byte),
        cmocka_unit_test(reads_may_end_at_every_byte),
        cmocka_unit_test(a_lease_may_be_given_up_after_any_byte),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(a_new_host_goes_on_after_any_byte),
        cmocka_unit_test(the_host_waits_for_the_guest),
        cmocka_unit_test(a_guest_that_does_not_read_holds_nobody),
        cmocka_unit_test(a_frame_that_breaks_a_rule_is_refused),
        cmocka_unit_test(what_came_before_a_fault_still_counts),
        cmocka_unit_test(more_frames_than_the_ring_holds_are_refused),
        cmocka_unit_test(a_stream_that_does_not_begin_is_refused),
        cmocka_unit_test(a_guest_that_never_stops_holds_the_host_for_a_while_only),
        cmocka_unit_test(the_end_of_a_stream_is_quiet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
