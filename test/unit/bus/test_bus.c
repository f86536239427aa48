/* The message matrix, sizes, descriptors, and what a broken peer can do. */
#include "bus/bus_loop.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

static int setup(void **state)
{
    static int pair[2];
    *state = pair;
    return bus_pair(pair, NULL);
}

static int teardown(void **state)
{
    int *pair = *state;
    fd_close(&pair[0]);
    fd_close(&pair[1]);
    return 0;
}

static void message_and_descriptor_arrive(void **state)
{
    int *pair = *state;
    struct bus_catalog body = {.generation = 42, .bytes = 5};
    _close_ int fd = -1;
    assert_int_equal(bus_memfd("test", "hello", 5, &fd), 0);
    assert_int_equal(bus_send(pair[0], BUS_CONTROL, BUS_GATEWAY, BUS_CATALOG, &body, &fd, 1), 0);
    struct bus_message m;
    assert_int_equal(bus_recv(pair[1], BUS_GATEWAY, BUS_CONTROL, &m), 1);
    assert_int_equal(m.type, BUS_CATALOG);
    assert_int_equal(m.body.CATALOG.generation, 42);
    const void *data;
    assert_int_equal(bus_memfd_map(m.fds[0], 5, &data), 0);
    assert_memory_equal(data, "hello", 5);
    (void)munmap((void *)(uintptr_t)data, 5);
    assert_int_equal(bus_memfd_map(m.fds[0], 6, &data), -ERROR_PEER); /* the size is checked, not believed */
    assert_true(fcntl(m.fds[0], F_GETFD) & FD_CLOEXEC);
    bus_message_done(&m);
    assert_int_equal(bus_recv(pair[1], BUS_GATEWAY, BUS_CONTROL, &m), 0);
}

static void wrong_sender_is_refused(void **state)
{
    int *pair = *state;
    struct bus_empty body = {0};
    struct bus_message m;
    assert_int_equal(bus_send(pair[0], BUS_GATEWAY, BUS_SUPERVISOR, BUS_READY, &body, NULL, 0), 0);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_WORKER, &m), -ERROR_PEER); /* a worker may say nothing */
}

static void raw_send(int fd, const void *data, size_t size)
{
    assert_int_equal(send(fd, data, size, 0), size);
}

static void garbage_is_refused(void **state)
{
    int *pair = *state;
    struct bus_message m;
    uint32_t unknown[2] = {9999, 0};
    raw_send(pair[0], "x", 1);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, &m), -ERROR_PEER);
    raw_send(pair[0], unknown, sizeof unknown);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, &m), -ERROR_PEER);
    uint32_t cut[3] = {BUS_CHANNEL_SEALED, 0, 1};
    raw_send(pair[0], cut, sizeof cut);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, &m), -ERROR_PEER);
}

static void descriptors_of_a_refused_message_are_closed(void **state)
{
    int *pair = *state;
    struct bus_empty body = {0};
    _close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int before = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    (void)close(before);
    assert_int_equal(bus_send(pair[0], BUS_SUPERVISOR, BUS_GATEWAY, BUS_PEER, &body, &fd, 1), 0);
    struct bus_message m;
    assert_int_equal(bus_recv(pair[1], BUS_GATEWAY, BUS_WORKER, &m), -ERROR_PEER);
    int after = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    assert_int_equal(before, after);
    (void)close(after);
}

static void descriptors_of_an_empty_packet_are_closed(void **state)
{
    int *pair = *state;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } space;
    memset(&space, 0, sizeof space);
    struct msghdr message = {.msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(head), &pair[0], sizeof(int));
    int before = fcntl(pair[0], F_DUPFD_CLOEXEC, 3);
    (void)close(before);
    assert_int_equal(sendmsg(pair[0], &message, 0), 0);
    struct bus_message m;
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_WORKER, &m), -ERROR_GONE);
    int after = fcntl(pair[0], F_DUPFD_CLOEXEC, 3);
    assert_int_equal(before, after);
    (void)close(after);
}

static void text_without_an_end_gets_one(void **state)
{
    int *pair = *state;
    struct bus_infer body = {.id = 1};
    memset(body.model, 'a', sizeof body.model);
    memset(body.tenant, 'b', sizeof body.tenant);
    _close_ int fd = -1;
    assert_int_equal(bus_memfd("test", "", 0, &fd), 0);
    assert_int_equal(bus_send(pair[0], BUS_CONTROL, BUS_GATEWAY, BUS_INFER, &body, &fd, 1), 0);
    struct bus_message m;
    assert_int_equal(bus_recv(pair[1], BUS_GATEWAY, BUS_CONTROL, &m), 1);
    assert_int_equal(strlen(m.body.INFER.model), sizeof body.model - 1);
    bus_message_done(&m);
}

/* As an OCI runtime leaves the descriptors that it passes on. */
static void a_blocking_end_blocks_nobody(void **state)
{
    int *pair = *state;
    struct bus_message m;
    struct bus_replica body = {.replica_uid = 1};
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(pair[i], F_SETFL, 0), 0);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_CONTROL, &m), 0);
    int r = 0;
    for (int i = 0; r == 0 && i < 100000; i++) /* until nobody has read too much of it */
        r = bus_send(pair[0], BUS_CONTROL, BUS_SUPERVISOR, BUS_REPLICA_STOP, &body, NULL, 0);
    assert_int_equal(r, -ERROR_AGAIN);
}

static void closed_peer_is_gone(void **state)
{
    int *pair = *state;
    struct bus_empty body = {0};
    struct bus_message m;
    fd_close(&pair[0]);
    assert_int_equal(bus_recv(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, &m), -ERROR_GONE);
    assert_int_equal(bus_send(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, BUS_DRAIN, &body, NULL, 0), -ERROR_GONE);
    assert_int_equal(bus_wait(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, 1, &m), -ERROR_GONE);
}

static void waiting_ends_in_time(void **state)
{
    int *pair = *state;
    struct bus_message m;
    assert_int_equal(bus_wait(pair[1], BUS_SUPERVISOR, BUS_GATEWAY, 5, &m), -ERROR_REQUEST_TIMEOUT);
}

static void unsealed_memory_is_refused(void **state)
{
    (void)state;
    const void *data;
    _close_ int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(write(fd, "hello", 5), 5);
    assert_int_equal(bus_memfd_map(fd, 5, &data), -ERROR_PEER);
}

static void every_row_of_the_table_is_sound(void **state)
{
    (void)state;
    for (uint32_t type = 1; type < BUS_TYPE_COUNT; type++) {
        const struct bus_type_info *info = bus_type_info(type);
        assert_non_null(info);
        assert_true(info->senders != 0 && info->receivers != 0);
        if (info->senders &
            BUS_WORKER) /* it speaks through its channel; on the bus, a blank one says that it is ready */
            assert_true(type == BUS_BLANK_READY && info->receivers == BUS_SUPERVISOR && info->n_fds == 0);
        if (info->senders & BUS_INGEST) /* and an ingest says one of two things to the supervisor */
            assert_true((type == BUS_DESCRIBED || type == BUS_DESCRIBE_FAILED) && info->receivers == BUS_SUPERVISOR);
        assert_true(info->n_fds <= LIMIT_BUS_FDS && info->body_bytes <= LIMIT_BUS_MESSAGE_BYTES - 8);
    }
    assert_null(bus_type_info(BUS_NONE));
    assert_null(bus_type_info(BUS_TYPE_COUNT));
}

/* --- on a loop: a full socket queues, and nothing is lost or reordered --- */

struct counter {
    uint64_t next;
    int gone;
};

static void count_message(void *ctx, struct bus_message *m)
{
    struct counter *c = ctx;
    assert_int_equal(m->body.DEMAND.version_uid, c->next);
    c->next++;
}

static void count_gone(void *ctx, int code)
{
    (void)code;
    ((struct counter *)ctx)->gone++;
}

static void queued_messages_arrive_in_order(void **state)
{
    int *pair = *state;
    static const struct bus_conn_events events = {count_message, count_gone};
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct counter sender = {0}, receiver = {0};
    struct bus_conn *a, *b;
    assert_int_equal(bus_conn_open(&loop, pair[0], BUS_GATEWAY, BUS_CONTROL, &events, &sender, &a), 0);
    assert_int_equal(bus_conn_open(&loop, pair[1], BUS_CONTROL, BUS_GATEWAY, &events, &receiver, &b), 0);
    pair[0] = pair[1] = -1;
    for (uint64_t i = 0; i < 5000; i++) {
        struct bus_demand body = {.version_uid = i};
        assert_int_equal(bus_conn_send(a, BUS_DEMAND, &body, NULL, 0), 0);
    }
    while (receiver.next < 5000)
        (void)uv_run(&loop, UV_RUN_ONCE);
    bus_conn_close(a);
    while (!receiver.gone)
        (void)uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(sender.gone, 0);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_peer_that_reads_nothing_is_gone(void **state)
{
    int *pair = *state;
    static const struct bus_conn_events events = {count_message, count_gone};
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct counter sender = {0};
    struct bus_conn *a;
    assert_int_equal(bus_conn_open(&loop, pair[0], BUS_GATEWAY, BUS_CONTROL, &events, &sender, &a), 0);
    pair[0] = -1;
    struct bus_demand body = {0};
    uint64_t sent = 0;
    while (bus_conn_send(a, BUS_DEMAND, &body, NULL, 0) == 0)
        body.version_uid = ++sent;
    assert_true(sent >= BUS_QUEUE_MAX);
    assert_int_equal(sender.gone, 0); /* only from the loop */
    assert_int_equal(bus_conn_send(a, BUS_DEMAND, &body, NULL, 0), -ERROR_GONE);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(sender.gone, 1);
    struct bus_message m;
    int r;
    while ((r = bus_recv(pair[1], BUS_CONTROL, BUS_GATEWAY, &m)) > 0)
        bus_message_done(&m);
    assert_int_equal(r, -ERROR_GONE); /* and the other end sees it too */
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(message_and_descriptor_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_sender_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_of_a_refused_message_are_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors_of_an_empty_packet_are_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(text_without_an_end_gets_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_blocking_end_blocks_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_peer_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(waiting_ends_in_time, setup, teardown),
        cmocka_unit_test(unsealed_memory_is_refused),
        cmocka_unit_test(every_row_of_the_table_is_sound),
        cmocka_unit_test_setup_teardown(queued_messages_arrive_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_peer_that_reads_nothing_is_gone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
