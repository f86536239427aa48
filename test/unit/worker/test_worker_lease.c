/* The worker's loop and its leases: the guest runs in a thread on an shm channel, some of them over a stream too; the
 * test plays gateway and supervisor. The engine is `identity`. */
#include "worker/worker.c"

#include "base/buf.h"
#include "base/clock.h"
#include "test/unit/worker/host_pull.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { WAIT_MS = 15000, INBOX_SLOT_BYTES = 128 * 1024, OUTBOX_SLOT_BYTES = 64 * 1024, OUTPUT_BYTES_MAX = 128 * 1024 };

struct fixture {
    struct worker w;
    int bus; /* the supervisor's end */
    struct channel *host;
    struct channel_fds guest_fds; /* of a channel that the guest has not yet */
    struct channel_geometry geometry;
    pthread_t thread;
    int result; /* what ended channel_work */
};

static void *guest_main(void *ctx)
{
    struct fixture *f = ctx;
    int r = 0;
    while (r == 0)
        r = channel_work(&f->w);
    f->result = r;
    return NULL;
}

/* A new channel: the host's end in f->host, the guest's as descriptors. */
static void channel_make(struct fixture *f, uint32_t epoch)
{
    struct error err = {0};
    struct channel_fds host;
    assert_int_equal(channel_create(&f->geometry, &host, &f->guest_fds, &err), 0);
    assert_int_equal(channel_shm_open(true, &f->geometry, epoch, &host, &f->host, &err), 0);
}

static bool over_stream; /* what setup makes */

static int stream_on(void **state)
{
    (void)state;
    over_stream = true;
    return 0;
}

static int stream_off(void **state)
{
    (void)state;
    over_stream = false;
    return 0;
}

static void stream_make(struct fixture *f)
{
    static const uint64_t nonce[2] = {1, 2};
    struct error err = {0};
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    f->guest_fds = CHANNEL_FDS_NONE;
    assert_int_equal(channel_stream_open(true, &f->geometry, 7, nonce, &ends[0], &f->host, &err), 0);
    assert_int_equal(channel_stream_open(false, &f->geometry, 7, nonce, &ends[1], &f->w.channel, &err), 0);
}

static void setup(struct fixture *f, const char *model, uint64_t outbox_slot_bytes)
{
    struct error err = {0};
    int fds[2];
    *f = (struct fixture){.w = {.library_fd = -1}, .geometry = {1024, 1, INBOX_SLOT_BYTES, outbox_slot_bytes}};
    assert_int_equal(bus_pair(fds, &err), 0);
    f->bus = fds[0];
    f->w.bus_fd = fds[1];
    f->w.ops = engine_find(STR("identity"));
    f->w.model = model;
    f->w.config.model_bytes = strlen(model);
    f->w.config.threads = 1;
    if (over_stream) {
        stream_make(f);
    } else {
        channel_make(f, 7);
        assert_int_equal(channel_shm_open(false, &f->geometry, 7, &f->guest_fds, &f->w.channel, &err), 0);
    }
    assert_int_equal(pthread_create(&f->thread, NULL, guest_main, f), 0);
}

/* Waits for the worker's end. */
static int join(struct fixture *f)
{
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    worker_watch_stop(&f->w);
    channel_close(f->host);
    channel_close(f->w.channel);
    channel_fds_close(&f->guest_fds);
    f->w.ops->close(f->w.engine);
    free(f->w.signature);
    fd_close(&f->bus);
    fd_close(&f->w.bus_fd);
    return f->result;
}

static void push(struct fixture *f, struct channel_frame frame)
{
    assert_int_equal(channel_push(f->host, &frame), 0);
}

static struct channel_frame pull(struct fixture *f)
{
    return host_pull(f->host, WAIT_MS);
}

static struct channel_frame pull_type(struct fixture *f, enum channel_frame_type type)
{
    struct channel_frame frame = pull(f);
    assert_int_equal(frame.type, type);
    return frame;
}

static const void *payload(struct fixture *f, const struct channel_frame *frame)
{
    return (const char *)channel_slot_other(f->host, frame->slot) + frame->offset;
}

static void load_model(struct fixture *f)
{
    push(f, (struct channel_frame){.type = CHANNEL_LOAD});
    struct channel_frame loaded = pull_type(f, CHANNEL_LOAD);
    if (loaded.status != 0)
        fail_msg("%.*s", (int)loaded.length, (const char *)payload(f, &loaded));
}

static void unload(struct fixture *f)
{
    push(f, (struct channel_frame){.type = CHANNEL_UNLOAD});
    channel_ring(f->host);
    assert_int_equal(join(f), 1);
}

/* --- leases --- */

struct tensor {
    enum tensor_dtype dtype;
    int64_t rows, columns; /* columns < 0: rank 1 */
    const void *data;
    uint64_t bytes;
};

/* Gathers as the gateway does; returns the LEASE frame, with one item per row. */
static struct channel_frame lease_of(struct fixture *f, const struct tensor *tensors, uint32_t n, uint64_t wanted)
{
    char *slot = channel_slot_own(f->host, 0);
    struct channel_lease *head = (struct channel_lease *)(void *)slot;
    *head = (struct channel_lease){.outputs_wanted = wanted, .n_inputs = n};
    uint64_t used = 64 + n * 128;
    for (uint32_t i = 0; i < n; i++) {
        head->inputs[i] = (struct channel_tensor){.dtype = tensors[i].dtype,
                                                  .rank = tensors[i].columns < 0 ? 1 : 2,
                                                  .dims = {tensors[i].rows, tensors[i].columns},
                                                  .data = used,
                                                  .bytes = tensors[i].bytes};
        memcpy(slot + used, tensors[i].data, tensors[i].bytes);
        used = (used + tensors[i].bytes + 63) & ~UINT64_C(63);
    }
    assert_true(used <= f->geometry.inbox_slot_bytes);
    uint32_t rows = (uint32_t)tensors[0].rows;
    return (struct channel_frame){.type = CHANNEL_LEASE, .lease_id = 5, .length = used, .a = rows, .b = rows};
}

static void lease_push(struct fixture *f, struct channel_frame lease)
{
    push(f, lease);
    for (uint32_t i = 0; i < lease.b; i++)
        push(f, (struct channel_frame){.type = CHANNEL_ITEM, .lease_id = 5, .request_id = 100 + i, .a = 1});
}

struct output {
    struct channel_tensor tensor;
    char *data; /* [OUTPUT_BYTES_MAX] */
    uint64_t bytes;
    uint32_t pieces;
    bool complete;
};

/* One PART as the gateway takes it: in order, inside the slot, aligned, never over what was already there. */
static void part_take(struct fixture *f, const struct channel_frame *part, struct output *outputs, uint64_t *slot_used)
{
    struct output *o = &outputs[part->index];
    const char *data = payload(f, part);
    uint64_t length = part->length;
    assert_int_equal(part->lease_id, 5);
    assert_int_equal(part->offset % CHANNEL_DATA_ALIGN, 0);
    assert_true(part->offset >= *slot_used); /* the host reads it where it lies */
    assert_int_equal(part->a, o->pieces);
    assert_false(o->complete);
    if (o->pieces++ == 0) {
        memcpy(&o->tensor, data, sizeof o->tensor);
        assert_int_equal(o->tensor.data % CHANNEL_DATA_ALIGN, 0);
        assert_in_range(o->tensor.data, part->offset + sizeof o->tensor, part->offset + part->length);
        length -= o->tensor.data - part->offset;
        data += o->tensor.data - part->offset;
    }
    assert_true(o->bytes + length <= o->tensor.bytes && o->tensor.bytes <= OUTPUT_BYTES_MAX);
    memcpy(o->data + o->bytes, data, length);
    o->bytes += length;
    o->complete = part->flags & CHANNEL_FINAL;
    assert_true(o->complete || (part->flags & CHANNEL_WAIT)); /* more can only follow a credit */
    *slot_used = part->offset + part->length;
    if (part->flags & CHANNEL_WAIT) {
        *slot_used = 0;
        push(f, (struct channel_frame){.type = CHANNEL_CREDIT, .lease_id = 5});
    }
}

/* Runs a lease to its DONE and expects that every wanted output is its input. Returns the number of PARTs. */
static uint32_t lease_run(struct fixture *f, const struct tensor *tensors, uint32_t n, uint64_t wanted)
{
    static char memory[3][OUTPUT_BYTES_MAX + 1];
    struct output outputs[3] = {{.data = memory[0]}, {.data = memory[1]}, {.data = memory[2]}};
    uint64_t slot_used = 0;
    uint32_t parts = 0;
    lease_push(f, lease_of(f, tensors, n, wanted));
    struct channel_frame frame;
    while ((frame = pull(f)).type == CHANNEL_PART) {
        assert_true(frame.index < n && (wanted >> frame.index & 1));
        part_take(f, &frame, outputs, &slot_used);
        parts++;
    }
    assert_int_equal(frame.type, CHANNEL_DONE);
    assert_int_equal(frame.lease_id, 5);
    assert_int_equal(frame.status, 0);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(outputs[i].complete == (wanted >> i & 1));
        if (!outputs[i].complete)
            continue;
        assert_int_equal(outputs[i].tensor.dtype, tensors[i].dtype);
        assert_int_equal(outputs[i].tensor.dims[0], tensors[i].rows);
        assert_int_equal(outputs[i].bytes, tensors[i].bytes);
        assert_memory_equal(outputs[i].data, tensors[i].data, tensors[i].bytes);
    }
    return parts;
}

static const char *pattern(void)
{
    static char data[INBOX_SLOT_BYTES];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof data && data[sizeof data - 1] == 0; i++) {
        seed = seed * 1664525 + 1013904223;
        data[i] = (char)((seed >> 24) | 1);
    }
    return data;
}

static const char model_two[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[-1,-1]},"
                                "{\"name\":\"y\",\"datatype\":\"UINT8\",\"shape\":[-1,-1]}]}";

static struct tensor bytes_of(uint64_t columns)
{
    return (struct tensor){TENSOR_UINT8, 1, (int64_t)columns, pattern() + columns % 64, columns};
}

static void load_tells_the_signature(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, OUTBOX_SLOT_BYTES);
    for (int i = 0; i < 2; i++) { /* a new gateway asks again */
        push(&f, (struct channel_frame){.type = CHANNEL_LOAD});
        struct channel_frame loaded = pull_type(&f, CHANNEL_LOAD);
        struct error err = {0};
        _free_ struct tensor_signature *s = malloc(sizeof *s);
        assert_int_equal(loaded.status, 0);
        assert_int_equal(tensor_signature_decode(payload(&f, &loaded), loaded.length, s, &err), 0);
        assert_int_equal(s->n_outputs, 2);
        assert_string_equal(s->outputs[1].name, "y");
        assert_true(s->batchable);
    }
    unload(&f);
}

static void load_tells_why_not(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, "{\"inputs\":[]}", OUTBOX_SLOT_BYTES);
    push(&f, (struct channel_frame){.type = CHANNEL_LOAD});
    struct channel_frame loaded = pull_type(&f, CHANNEL_LOAD);
    assert_int_equal(loaded.status, -ERROR_REFUSED);
    assert_in_range(loaded.length, 1, ERROR_TEXT_BYTES_MAX);
    unload(&f);
}

static void small_outputs_come_whole(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, OUTBOX_SLOT_BYTES);
    load_model(&f);
    for (uint64_t columns = 0; columns < 300; columns += 13) {
        struct tensor tensors[] = {bytes_of(columns), bytes_of(columns * 3)};
        for (uint64_t wanted = 1; wanted < 4; wanted++)
            assert_int_equal(lease_run(&f, tensors, 2, wanted), wanted == 3 ? 2 : 1);
    }
    unload(&f);
}

static void batches_keep_their_rows(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, OUTBOX_SLOT_BYTES);
    load_model(&f);
    for (int64_t rows = 1; rows <= LIMIT_BATCH_ITEMS; rows = rows * 2 + (rows == 64)) {
        struct tensor tensors[] = {{TENSOR_UINT8, rows, 7, pattern(), (uint64_t)rows * 7},
                                   {TENSOR_UINT8, rows, 90, pattern() + 3, (uint64_t)rows * 90}};
        (void)lease_run(&f, tensors, 2, 3);
    }
    unload(&f);
}

static const char model_slow[] =
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[-1,-1]}],\"busy\":\"10s\"}";

/* The identity engine computes for ten seconds of its thread's time; nobody waits for those here. */
static void a_lease_given_up_ends_while_it_is_computed(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_slow, OUTBOX_SLOT_BYTES);
    load_model(&f);
    struct tensor tensor = bytes_of(4);
    for (int i = 0; i < 3; i++) {
        uint64_t before_ns = clock_monotonic_ns();
        struct channel_frame lease = lease_of(&f, &tensor, 1, 1);
        lease.lease_id = 70 + (uint64_t)i;
        push(&f, lease);
        push(&f, (struct channel_frame){.type = CHANNEL_ITEM, .lease_id = lease.lease_id, .request_id = 100, .a = 1});
        channel_ring(f.host);
        if (i == 0)
            while (f.w.watch.running == NULL) /* in the step; the other two are given up at any moment */
                (void)poll(NULL, 0, 1);
        channel_lease_cancel(f.host, lease.lease_id - 1); /* another one: nothing to it */
        channel_lease_cancel(f.host, lease.lease_id);
        struct channel_frame done = pull_type(&f, CHANNEL_DONE);
        assert_int_equal(done.lease_id, lease.lease_id);
        assert_int_equal(done.status, -ERROR_CANCELLED);
        assert_true(clock_monotonic_ns() - before_ns < 9 * NS_PER_S);
    }
    unload(&f);
}

/* All sizes around what fills a slot, for the first output and then for what follows it. */
static void outputs_larger_than_the_slot_come_in_pieces(void **state)
{
    (void)state;
    enum { SLOT = 4096 };
    struct fixture f;
    setup(&f, model_two, SLOT);
    load_model(&f);
    for (uint64_t first = SLOT - 128 - 600; first < SLOT - 128 + 80; first += 5)
        for (uint64_t second = 0; first + second <= CHANNEL_OUTPUT_SLOTS_MAX * SLOT; second += 1365) {
            struct tensor tensors[] = {bytes_of(first), bytes_of(second)};
            uint32_t parts = lease_run(&f, tensors, 2, 3);
            assert_true(parts <= 2 + 1 + (first + second + 256) / SLOT);
        }
    for (uint64_t size = SLOT; size < CHANNEL_OUTPUT_SLOTS_MAX * SLOT; size += 77) {
        struct tensor tensors[] = {bytes_of(size), bytes_of(1)};
        assert_true(lease_run(&f, tensors, 2, 3) > size / SLOT);
    }
    unload(&f);
}

static void bytes_travel_whole(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, "{\"inputs\":[{\"name\":\"s\",\"datatype\":\"BYTES\",\"shape\":[-1]}]}", 16384);
    load_model(&f);
    for (uint32_t rows = 1; rows <= 64; rows *= 4)
        for (uint32_t each = 0; each < 700; each += 233) {
            _buf_ struct buf b;
            buf_init(&b, INBOX_SLOT_BYTES);
            for (uint32_t i = 0; i < rows; i++) {
                uint32_t length = (each + i) % 700;
                buf_append(&b, &length, sizeof length);
                buf_append(&b, pattern() + i, length);
            }
            assert_int_equal(b.failed, 0);
            struct tensor t = {TENSOR_BYTES, rows, -1, b.data, b.size};
            (void)lease_run(&f, &t, 1, 1);
        }
    unload(&f);
}

/* --- failure and cancelling --- */

static void a_failed_lease_says_why(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, OUTBOX_SLOT_BYTES);
    load_model(&f);
    struct tensor tensors[] = {bytes_of(10), bytes_of(20)};
    struct channel_frame lease = lease_of(&f, tensors, 2, 3);
    lease.a = 2; /* rows that its items do not have */
    lease_push(&f, lease);
    struct channel_frame done = pull_type(&f, CHANNEL_DONE);
    assert_true(done.status < 0);
    assert_in_range(done.length, 10, ERROR_TEXT_BYTES_MAX);
    assert_non_null(memmem(payload(&f, &done), done.length, "the batch has 2 rows", 20));
    (void)lease_run(&f, tensors, 2, 3); /* and goes on */
    unload(&f);
}

static void why_it_failed_lies_beside_what_was_sent(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, 16 * KIB);
    load_model(&f);
    struct tensor tensors[] = {bytes_of(8 * KIB), bytes_of(30 * KIB)}; /* together more than the host takes */
    lease_push(&f, lease_of(&f, tensors, 2, 3));
    struct channel_frame part = pull_type(&f, CHANNEL_PART);
    struct channel_frame done = pull_type(&f, CHANNEL_DONE);
    assert_true(done.status < 0);
    assert_non_null(memmem(payload(&f, &done), done.length, "larger than the server takes", 28));
    struct channel_tensor tensor;
    memcpy(&tensor, payload(&f, &part), sizeof tensor); /* only now: a host takes frames when it likes */
    assert_int_equal(tensor.bytes, tensors[0].bytes);
    assert_memory_equal((const char *)payload(&f, &part) + (tensor.data - part.offset), tensors[0].data, tensor.bytes);
    unload(&f);
}

static void cancel_push(struct fixture *f, uint64_t request_id)
{
    push(f, (struct channel_frame){.type = CHANNEL_CANCEL, .lease_id = 5, .request_id = request_id});
}

static const char model_busy[] =
    "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[-1,-1]}],\"busy\":\"10s\"}";

/* Nobody waits any more: the engine is not even asked. (It would burn ten seconds of CPU.) */
static void a_lease_cancelled_before_it_runs_does_not_run(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_busy, OUTBOX_SLOT_BYTES);
    load_model(&f);
    struct tensor t = {TENSOR_UINT8, 3, 2, pattern(), 6};
    lease_push(&f, lease_of(&f, &t, 1, 1));
    for (uint64_t i = 0; i < 3; i++)
        cancel_push(&f, 102 - i);
    struct channel_frame done = pull_type(&f, CHANNEL_DONE);
    assert_int_equal(done.status, -ERROR_CANCELLED);
    unload(&f);
}

/* While the worker waits for credit it hears of cancelling; some cancelled items change nothing. */
static void cancel_while_waiting_for_credit(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, 4096);
    load_model(&f);
    struct tensor tensors[] = {{TENSOR_UINT8, 2, 3500, pattern(), 7000}, {TENSOR_UINT8, 2, 1, pattern(), 2}};
    for (int round = 0; round < 3; round++) { /* one of two, both, none known */
        lease_push(&f, lease_of(&f, tensors, 2, 3));
        struct channel_frame frame = pull_type(&f, CHANNEL_PART);
        assert_true(frame.flags & CHANNEL_WAIT);
        cancel_push(&f, round == 2 ? 999 : 100);
        if (round == 1)
            cancel_push(&f, 101);
        push(&f, (struct channel_frame){.type = CHANNEL_CREDIT, .lease_id = 5});
        while ((frame = pull(&f)).type == CHANNEL_PART)
            if (frame.flags & CHANNEL_WAIT)
                push(&f, (struct channel_frame){.type = CHANNEL_CREDIT, .lease_id = 5});
        assert_int_equal(frame.type, CHANNEL_DONE);
        assert_true(round == 1 || frame.status == 0);
    }
    (void)lease_run(&f, tensors, 2, 3); /* the next lease has the same ids: nothing of the last sticks to it */
    cancel_push(&f, 100);               /* of a lease that is over */
    (void)lease_run(&f, tensors, 2, 3);
    unload(&f);
}

/* --- the ends --- */

static void the_supervisor_goes_while_it_waits(void **state)
{
    (void)state;
    for (int waiting = 0; waiting < 2; waiting++) {
        struct fixture f;
        setup(&f, model_two, 4096);
        load_model(&f);
        if (waiting) {
            struct tensor tensors[] = {bytes_of(8000), bytes_of(1)};
            lease_push(&f, lease_of(&f, tensors, 2, 3));
            assert_true(pull_type(&f, CHANNEL_PART).flags & CHANNEL_WAIT); /* no credit will come */
        }
        fd_close(&f.bus);
        assert_int_equal(join(&f), -ERROR_GONE);
    }
}

/* The gateway died with a lease: the supervisor hands in the channel of a new one, and the model is still loaded. */
static void a_new_channel_ends_the_lease(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, model_two, 4096);
    load_model(&f);
    struct tensor tensors[] = {bytes_of(8000), bytes_of(1)};
    lease_push(&f, lease_of(&f, tensors, 2, 3));
    assert_true(pull_type(&f, CHANNEL_PART).flags & CHANNEL_WAIT);
    channel_close(f.host);
    channel_make(&f, 8);
    struct bus_channel body = {.inbox_slot_bytes = f.geometry.inbox_slot_bytes,
                               .outbox_slot_bytes = f.geometry.outbox_slot_bytes,
                               .n_frames = f.geometry.n_frames,
                               .n_slots = f.geometry.n_slots,
                               .epoch = 8};
    const int fds[] = {f.guest_fds.inbox, f.guest_fds.outbox, f.guest_fds.bell_guest, f.guest_fds.bell_host};
    assert_int_equal(bus_send(f.bus, BUS_SUPERVISOR, BUS_WORKER, BUS_CHANNEL_GUEST, &body, fds, 4), 0);
    assert_int_equal(pull_type(&f, CHANNEL_OPEN).a, CHANNEL_PROTOCOL);
    load_model(&f);
    (void)lease_run(&f, tensors, 2, 3);
    unload(&f);
}

/* The gateway is trusted, yet a bug there must not make the worker read outside its memory. */
static void broken_leases_end_the_worker(void **state)
{
    (void)state;
    for (int kind = 0; kind < 9; kind++) {
        struct fixture f;
        setup(&f, model_two, OUTBOX_SLOT_BYTES);
        load_model(&f);
        struct tensor tensors[] = {bytes_of(10), bytes_of(20)};
        struct channel_frame lease = lease_of(&f, tensors, 2, 3);
        struct channel_lease *head = channel_slot_own(f.host, 0);
        switch (kind) {
        case 0:
            lease.length = 8;
            break;
        case 1:
            head->n_inputs = 1;
            break;
        case 2:
            head->n_inputs = UINT32_MAX;
            break;
        case 3:
            head->inputs[1].rank = LIMIT_TENSOR_RANK + 1;
            break;
        case 4:
            head->inputs[0].data = UINT64_MAX;
            break;
        case 5:
            head->inputs[0].bytes = UINT64_MAX;
            break;
        case 6:
            lease.offset = 1;
            break;
        case 7:
            lease.b = 0;
            break;
        default:
            lease.b = LIMIT_BATCH_ITEMS + 1;
            break;
        }
        push(&f, lease);
        for (uint32_t i = 0; i < (lease.b > 1 ? 0 : lease.b); i++)
            push(&f, (struct channel_frame){.type = CHANNEL_ITEM, .request_id = 1, .a = 1});
        channel_ring(f.host);
        assert_int_equal(join(&f), -ERROR_PEER);
    }
}

#define STREAM(test)                                        \
    {                                                       \
        "stream: " #test, test, stream_on, stream_off, NULL \
    }

int main(void)
{
    log_setup("test", LOG_LEVEL_ALERT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_tells_the_signature),
        cmocka_unit_test(load_tells_why_not),
        cmocka_unit_test(small_outputs_come_whole),
        cmocka_unit_test(batches_keep_their_rows),
        cmocka_unit_test(a_lease_given_up_ends_while_it_is_computed),
        cmocka_unit_test(outputs_larger_than_the_slot_come_in_pieces),
        cmocka_unit_test(bytes_travel_whole),
        cmocka_unit_test(a_failed_lease_says_why),
        cmocka_unit_test(why_it_failed_lies_beside_what_was_sent),
        cmocka_unit_test(a_lease_cancelled_before_it_runs_does_not_run),
        cmocka_unit_test(cancel_while_waiting_for_credit),
        cmocka_unit_test(the_supervisor_goes_while_it_waits),
        cmocka_unit_test(a_new_channel_ends_the_lease),
        cmocka_unit_test(broken_leases_end_the_worker),
        STREAM(small_outputs_come_whole),
        STREAM(batches_keep_their_rows),
        STREAM(a_lease_given_up_ends_while_it_is_computed),
        STREAM(bytes_travel_whole),
        STREAM(a_failed_lease_says_why),
        STREAM(why_it_failed_lies_beside_what_was_sent),
        STREAM(a_lease_cancelled_before_it_runs_does_not_run),
        STREAM(cancel_while_waiting_for_credit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
