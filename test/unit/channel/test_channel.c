/* Conformance of the channel's back-ends, and what a hostile other end can do. */
#include "channel/channel_internal.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

static const struct channel_geometry geometry = {64, 2, 8192, 4096};

struct pair {
    struct channel *host, *guest;
};

static int fake_setup(void **state)
{
    static struct pair pair;
    *state = &pair;
    return channel_fake_pair(&geometry, 7, &pair.host, &pair.guest);
}

static int shm_setup(void **state)
{
    static struct pair pair;
    *state = &pair;
    struct error err = {0};
    struct channel_fds host, guest;
    if (channel_create(&geometry, &host, &guest, &err) < 0)
        return -1;
    if (channel_check_sealed(host.inbox, &err) != -ERROR_PEER) /* not before the host has mapped it */
        return -1;
    if (channel_shm_open(true, &geometry, 7, &host, &pair.host, &err) < 0)
        return -1;
    if (channel_check_sealed(guest.inbox, &err) < 0)
        return -1;
    return channel_shm_open(false, &geometry, 7, &guest, &pair.guest, &err);
}

static int stream_setup(void **state)
{
    static struct pair pair;
    static const uint64_t nonce[2] = {0x1122334455667788, 0x99AABBCCDDEEFF00};
    *state = &pair;
    struct error err = {0};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ||
        channel_stream_open(true, &geometry, 7, nonce, &ends[0], &pair.host, &err) < 0)
        return -1;
    int r = channel_stream_open(false, &geometry, 7, nonce, &ends[1], &pair.guest, &err);
    channel_awake(pair.host); /* hears the guest's greeting */
    return r;
}

/* What an end's loop does: it looks at the bell, and hears it. Shared memory is there without. */
static void hear(struct channel *c)
{
    struct pollfd bell = {.fd = c->bell, .events = channel_wants(c)};
    if (c->bell >= 0 && poll(&bell, 1, 0) > 0)
        channel_awake(c);
}

static int teardown(void **state)
{
    struct pair *p = *state;
    channel_close(p->host);
    channel_close(p->guest);
    return 0;
}

static void frames_arrive_in_order(void **state)
{
    struct pair *p = *state;
    struct error err = {0};
    struct channel_frame got;
    for (uint32_t round = 0; round < 200; round++) { /* wraps the ring several times */
        hear(p->host);
        for (uint64_t i = 0; i < 50; i++) {
            struct channel_frame f = {.type = CHANNEL_ITEM, .request_id = round * 50 + i};
            assert_int_equal(channel_push(p->host, &f), 0);
        }
        assert_false(channel_pending(p->guest)); /* nothing before the ring */
        channel_ring(p->host);
        hear(p->guest);
        assert_true(channel_pending(p->guest));
        for (uint64_t i = 0; i < 50; i++) {
            assert_int_equal(channel_pull(p->guest, &got, &err), 1);
            assert_int_equal(got.request_id, round * 50 + i);
            assert_int_equal(got.epoch, 7);
        }
        assert_int_equal(channel_pull(p->guest, &got, &err), 0);
        assert_true(channel_park(p->guest));
    }
}

static void a_full_ring_takes_no_more(void **state)
{
    struct pair *p = *state;
    struct channel_frame f = {.type = CHANNEL_OPEN}, got;
    for (uint32_t i = 0; i < geometry.n_frames; i++)
        assert_int_equal(channel_push(p->guest, &f), 0);
    assert_int_equal(channel_room(p->guest), 0);
    assert_int_equal(channel_push(p->guest, &f), -ERROR_AGAIN);
    channel_ring(p->guest);
    struct error err = {0};
    hear(p->host);
    assert_int_equal(channel_pull(p->host, &got, &err), 1);
    channel_ring(p->host);
    hear(p->guest);
    assert_int_equal(channel_room(p->guest), 1);
    assert_int_equal(channel_push(p->guest, &f), 0);
}

static void payload_is_seen_by_the_other_end(void **state)
{
    struct pair *p = *state;
    struct error err = {0};
    memset(channel_slot_own(p->host, 1), 0xA5, geometry.inbox_slot_bytes);
    struct channel_frame f = {.type = CHANNEL_LEASE, .slot = 1, .length = geometry.inbox_slot_bytes}, got;
    assert_int_equal(channel_push(p->host, &f), 0);
    channel_ring(p->host);
    hear(p->guest);
    assert_int_equal(channel_pull(p->guest, &got, &err), 1);
    const unsigned char *seen = channel_slot_other(p->guest, got.slot);
    for (size_t i = 0; i < geometry.inbox_slot_bytes; i++)
        assert_int_equal(seen[i], 0xA5);
}

static void parked_end_is_woken(void **state)
{
    struct pair *p = *state;
    struct channel_frame f = {.type = CHANNEL_OPEN};
    hear(p->host);
    assert_true(channel_park(p->host));
    assert_int_equal(channel_push(p->guest, &f), 0);
    channel_ring(p->guest);
    if (p->host->bell >= 0) {
        struct pollfd bell = {.fd = p->host->bell, .events = POLLIN};
        assert_int_equal(poll(&bell, 1, 0), 1);
    }
    assert_false(channel_park(p->host)); /* never sleeps on waiting frames */
    if (p->host->bell >= 0) {
        struct pollfd bell = {.fd = p->host->bell, .events = POLLIN};
        channel_awake(p->host);
        assert_int_equal(poll(&bell, 1, 0), 0);
    }
}

/* --- a hostile guest: each breaks one rule --- */

static void expect_peer_error(struct pair *p, struct channel_frame f)
{
    struct error err = {0};
    struct channel_frame got;
    assert_int_equal(channel_push(p->guest, &f), 0);
    channel_ring(p->guest);
    hear(p->host);
    assert_int_equal(channel_pull(p->host, &got, &err), -ERROR_PEER);
    assert_true(err.text[0] != '\0');
}

static void guest_may_not_send_the_hosts_frames(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_LEASE});
}

static void unknown_type_is_refused(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_TYPE_COUNT});
}

static void type_zero_is_refused(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_NONE});
}

static void slot_out_of_range_is_refused(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_DONE, .slot = 2});
}

static void payload_over_the_slot_is_refused(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_PART, .offset = 4000, .length = 97});
}

static void payload_that_wraps_is_refused(void **state)
{
    expect_peer_error(*state, (struct channel_frame){.type = CHANNEL_PART, .offset = 16, .length = UINT64_MAX - 8});
}

static void other_epoch_is_refused(void **state)
{
    struct pair *p = *state;
    p->guest->epoch = 8;
    expect_peer_error(p, (struct channel_frame){.type = CHANNEL_OPEN});
}

static void position_out_of_range_is_refused(void **state)
{
    struct pair *p = *state;
    struct error err = {0};
    struct channel_frame got;
    atomic_store(&p->guest->_own->produced, geometry.n_frames + 1);
    assert_int_equal(channel_pull(p->host, &got, &err), -ERROR_PEER);
}

static void hostile_consumer_position_only_blocks_its_owner(void **state)
{
    struct pair *p = *state;
    struct channel_frame f = {.type = CHANNEL_LOAD};
    atomic_store(&p->guest->_own->consumed, 12345);
    assert_int_equal(channel_room(p->host), 0);
    assert_int_equal(channel_push(p->host, &f), -ERROR_AGAIN);
}

/* --- shm only --- */

static void guest_cannot_write_the_inbox(void **state)
{
    struct pair *p = *state;
    int fd = p->guest->_memory_fds[0];
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_true(write(fd, "x", 1) < 0);
    assert_true(ftruncate(fd, 0) < 0);
    assert_true(ftruncate(p->guest->_memory_fds[1], 0) < 0); /* nor cut the outbox off under the host */
}

/* O_NONBLOCK belongs to the open file: were it shared, a guest could take it away. */
static void guest_cannot_make_the_host_block(void **state)
{
    struct pair *p = *state;
    struct channel_frame f = {.type = CHANNEL_LOAD};
    static const uint64_t most[512] = {UINT64_MAX - 1}; /* an eventfd would take the first */
    assert_true(channel_park(p->guest));
    while (write(p->guest->bell, most, sizeof most) > 0) {
    }
    for (int size = 8; size > 0; size -= 7)
        while (write(p->guest->bell, most, (size_t)size) > 0) {
        }
    int bells[2] = {p->guest->bell, p->guest->_bell_other};
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(bells[i], F_SETFL, fcntl(bells[i], F_GETFL) & ~O_NONBLOCK), 0);
    (void)alarm(20); /* a host that blocks would do so for ever */
    assert_int_equal(channel_push(p->host, &f), 0);
    channel_ring(p->host);
    channel_awake(p->host); /* though nobody rang */
    struct pollfd bell = {.fd = p->host->bell, .events = POLLIN};
    fd_close(&p->guest->bell);
    fd_close(&p->guest->_bell_other);
    assert_int_equal(poll(&bell, 1, 0), 0); /* an end of file would wake it for ever */
    assert_int_equal(channel_push(p->host, &f), 0);
    channel_ring(p->host);
    (void)alarm(0);
}

struct sleeper {
    const struct channel *guest;
    uint32_t seen;
};

static void *sleep_until_cancelled(void *ctx)
{
    struct sleeper *s = ctx;
    while (channel_cancels(s->guest) == s->seen)
        channel_cancels_wait(s->guest, s->seen);
    return NULL;
}

static void a_lease_given_up_wakes_who_waits_for_that(void **state)
{
    struct pair *p = *state;
    assert_false(channel_cancels_read(p->guest));
    assert_int_equal(channel_lease_cancelled(p->guest), 0);
    for (uint64_t lease = 5; lease < 50; lease += 9) {
        struct sleeper s = {p->guest, channel_cancels(p->guest)};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, sleep_until_cancelled, &s), 0);
        channel_lease_cancel(p->host, lease);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(channel_lease_cancelled(p->guest), lease);
    }
    assert_false(channel_pending(p->guest));
}

static void a_stream_tells_who_reads_it_of_leases_given_up(void **state)
{
    struct pair *p = *state;
    assert_true(channel_cancels_read(p->guest));
    for (uint64_t lease = 5; lease < 50; lease += 9) {
        struct channel_frame f = {.type = CHANNEL_CREDIT}, got;
        assert_int_equal(channel_push(p->host, &f), 0);
        channel_ring(p->host);
        channel_lease_cancel(p->host, lease - 1);
        channel_lease_cancel(p->host, lease);
        assert_int_not_equal(channel_lease_cancelled(p->guest), lease);
        assert_int_equal(channel_cancels_take(p->guest), POLLIN);
        assert_int_equal(channel_lease_cancelled(p->guest), lease);
        assert_int_equal(channel_pull(p->guest, &got, NULL), 1); /* what else came is there too */
        assert_int_equal(got.type, CHANNEL_CREDIT);
        assert_int_equal(channel_pull(p->guest, &got, NULL), 0);
    }
    channel_close(p->host);
    p->host = NULL;
    assert_int_equal(channel_cancels_take(p->guest), 0);
}

static void geometry_is_checked(void **state)
{
    (void)state;
    uint64_t inbox, outbox;
    struct channel_geometry bad[] = {{63, 1, 4096, 4096}, {96, 1, 4096, 4096}, {131072, 1, 4096, 4096},
                                     {64, 0, 4096, 4096}, {64, 9, 4096, 4096}, {64, 1, 0, 4096},
                                     {64, 1, 4097, 4096}, {64, 1, 4096, 100},  {64, 8, UINT64_MAX - 4095, 4096}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(channel_geometry_bytes(&bad[i], &inbox, &outbox), -ERROR_LIMIT);
    assert_int_equal(channel_geometry_bytes(&geometry, &inbox, &outbox), 0);
    assert_int_equal(inbox, 4096 + 64 * 64 + 2 * 8192);
    assert_int_equal(outbox, 4096 + 64 * 64 + 2 * 4096);
}

#define SHARED(test)                                    \
    {"fake: " #test, test, fake_setup, teardown, NULL}, \
    {                                                   \
        "shm: " #test, test, shm_setup, teardown, NULL  \
    }
#define ALL(test) {"stream: " #test, test, stream_setup, teardown, NULL}, SHARED(test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALL(frames_arrive_in_order),
        ALL(a_full_ring_takes_no_more),
        ALL(payload_is_seen_by_the_other_end),
        ALL(parked_end_is_woken),
        ALL(guest_may_not_send_the_hosts_frames),
        ALL(unknown_type_is_refused),
        ALL(type_zero_is_refused),
        ALL(slot_out_of_range_is_refused),
        ALL(payload_over_the_slot_is_refused),
        ALL(payload_that_wraps_is_refused),
        ALL(other_epoch_is_refused),
        SHARED(position_out_of_range_is_refused),
        SHARED(a_lease_given_up_wakes_who_waits_for_that),
        {"stream: a_stream_tells_who_reads_it", a_stream_tells_who_reads_it_of_leases_given_up, stream_setup, teardown,
         NULL},
        SHARED(hostile_consumer_position_only_blocks_its_owner),
        {"shm: guest_cannot_write_the_inbox", guest_cannot_write_the_inbox, shm_setup, teardown, NULL},
        {"shm: guest_cannot_make_the_host_block", guest_cannot_make_the_host_block, shm_setup, teardown, NULL},
        cmocka_unit_test(geometry_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
