/* A shared worker: several models in one process, each in a thread of its own; the test plays supervisor and gateway.
 */
#include "worker/worker_internal.h"

#include "test/unit/worker/host_pull.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { WAIT_MS = 15000, SLOT_BYTES = 128 * 1024, MEMBERS = 4 };

static const char model[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[-1,2]}]}";

struct host {
    int bus; /* the supervisor's end */
    int theirs;
    pthread_t thread;
};

struct member {
    int bus;
    struct channel *channel;
};

static void *host_main(void *ctx)
{
    struct host *h = ctx;
    struct worker w = {.bus_fd = h->theirs, .library_fd = -1};
    struct bus_message m;
    if (bus_wait(w.bus_fd, BUS_WORKER, BUS_SUPERVISOR, WAIT_MS, &m) == 1)
        worker_host(&w, &m);
    return NULL;
}

static void host_start(struct host *h)
{
    int pair[2];
    assert_int_equal(bus_pair(pair, NULL), 0);
    *h = (struct host){.bus = pair[0], .theirs = pair[1]};
    assert_int_equal(pthread_create(&h->thread, NULL, host_main, h), 0);
}

static void host_end(struct host *h)
{
    fd_close(&h->bus);
    assert_int_equal(pthread_join(h->thread, NULL), 0);
    fd_close(&h->theirs);
}

static struct channel_frame pull(struct member *b)
{
    return host_pull(b->channel, WAIT_MS);
}

/* Hands it over without a model yet. */
static void member_join(struct host *h, struct member *b)
{
    int pair[2];
    struct bus_empty nothing = {0};
    assert_int_equal(bus_pair(pair, NULL), 0);
    *b = (struct member){.bus = pair[0]};
    assert_int_equal(bus_send(h->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_WORKER_HOST, &nothing, &pair[1], 1), 0);
    fd_close(&pair[1]);
}

static void member_configure(struct member *b)
{
    const struct channel_geometry geometry = {1024, 1, SLOT_BYTES, SLOT_BYTES};
    struct bus_worker_config config = {.model_bytes = sizeof model - 1, .threads = 1, .engine = "identity"};
    int fd;
    assert_int_equal(bus_memfd("model", model, sizeof model - 1, &fd), 0);
    assert_int_equal(bus_send(b->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_WORKER_CONFIG, &config, (int[]){fd, fd}, 2), 0);
    fd_close(&fd);
    struct channel_fds host, guest;
    assert_int_equal(channel_create(&geometry, &host, &guest, NULL), 0);
    assert_int_equal(channel_shm_open(true, &geometry, 3, &host, &b->channel, NULL), 0);
    struct bus_channel body = {
        .inbox_slot_bytes = SLOT_BYTES, .outbox_slot_bytes = SLOT_BYTES, .n_frames = 1024, .n_slots = 1, .epoch = 3};
    assert_int_equal(bus_send(b->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_CHANNEL_GUEST, &body,
                              (int[]){guest.inbox, guest.outbox, guest.bell_guest, guest.bell_host}, 4),
                     0);
    channel_fds_close(&guest);
    assert_int_equal(pull(b).type, CHANNEL_OPEN);
}

static void must_answer(struct member *b)
{
    struct channel_frame load = {.type = CHANNEL_LOAD};
    assert_int_equal(channel_push(b->channel, &load), 0);
    channel_ring(b->channel);
    struct channel_frame loaded = pull(b);
    assert_int_equal(loaded.type, CHANNEL_LOAD);
    assert_int_equal(loaded.status, 0);
}

/* Its end of the conversation closes: nothing of it is left. */
static void must_end(struct member *b)
{
    struct pollfd end = {.fd = b->bus, .events = POLLIN};
    struct bus_message m;
    assert_int_equal(poll(&end, 1, WAIT_MS), 1);
    assert_int_equal(bus_recv(b->bus, BUS_SUPERVISOR, BUS_WORKER, &m), -ERROR_GONE);
    channel_close(b->channel);
    fd_close(&b->bus);
}

static void members_come_and_go(void **state)
{
    (void)state;
    struct host h;
    struct member members[MEMBERS];
    host_start(&h);
    for (size_t i = 0; i < MEMBERS; i++) {
        member_join(&h, &members[i]);
        member_configure(&members[i]);
    }
    for (size_t i = MEMBERS; i-- > 0;)
        must_answer(&members[i]);
    for (size_t i = 0; i < MEMBERS; i++) {
        assert_int_equal(shutdown(members[i].bus, SHUT_WR), 0); /* as the supervisor tells it to leave */
        must_end(&members[i]);
        for (size_t k = i + 1; k < MEMBERS; k++)
            must_answer(&members[k]);
    }
    member_join(&h, &members[0]); /* there is room again */
    member_configure(&members[0]);
    must_answer(&members[0]);
    fd_close(&members[0].bus);
    channel_close(members[0].channel);
    host_end(&h);
}

static void one_that_fails_ends_alone(void **state)
{
    (void)state;
    struct host h;
    struct member good, bad;
    host_start(&h);
    member_join(&h, &good);
    member_configure(&good);
    member_join(&h, &bad);
    struct bus_channel out_of_turn = {0};
    assert_int_equal(bus_send(bad.bus, BUS_SUPERVISOR, BUS_WORKER, BUS_CHANNEL_STREAM_GUEST, &out_of_turn, &bad.bus, 1),
                     0);
    must_end(&bad);
    member_join(&h, &bad); /* told to leave before it was told what to do */
    assert_int_equal(shutdown(bad.bus, SHUT_WR), 0);
    must_end(&bad);
    must_answer(&good);
    assert_int_equal(shutdown(good.bus, SHUT_WR), 0);
    must_end(&good);
    host_end(&h);
}

/* A greeting that is no member, such as a second model for a worker of one. */
static void what_is_no_member_is_dropped(void **state)
{
    (void)state;
    struct host h;
    struct member b;
    host_start(&h);
    member_join(&h, &b);
    member_configure(&b);
    struct bus_worker_blank blank = {.engine = "identity"};
    assert_int_equal(bus_send(h.bus, BUS_SUPERVISOR, BUS_WORKER, BUS_WORKER_BLANK, &blank, NULL, 0), 0);
    must_answer(&b);
    assert_int_equal(shutdown(b.bus, SHUT_WR), 0);
    must_end(&b);
    host_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(one_that_fails_ends_alone),
        cmocka_unit_test(what_is_no_member_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
