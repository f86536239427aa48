/* Leases against a worker that the test plays: what is gathered, what is taken back, what is refused. */
#include "test/unit/gateway/lease_fixture.h"

#include <poll.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { BODY_BYTES_MAX = 8192, BATCH_MAX = 8 };

/* The slots hold two bodies, as the supervisor makes them. */
static const struct channel_geometry geometry = {1024, 1, 2 * BODY_BYTES_MAX, 2 * BODY_BYTES_MAX};

static struct tensor_signature signature_of(enum tensor_dtype dtype, uint32_t n_tensors)
{
    struct tensor_signature s = {.n_inputs = n_tensors, .n_outputs = n_tensors, .batchable = true};
    for (uint32_t i = 0; i < n_tensors; i++) {
        s.inputs[i] = (struct tensor_spec){.dtype = dtype, .shape = {.rank = 2, .dims = {-1, -1}}};
        (void)snprintf(s.inputs[i].name, sizeof s.inputs[i].name, "t%u", i);
        s.outputs[i] = s.inputs[i];
    }
    return s;
}

static void setup(struct lease_fixture *f, enum tensor_dtype dtype, uint32_t n_tensors)
{
    static struct tensor_signature signature; /* 42 KiB */
    signature = signature_of(dtype, n_tensors);
    fixture_init(f, &geometry, BODY_BYTES_MAX, BATCH_MAX, &signature);
}

/* {"inputs":[{"name":"t0","datatype":…,"shape":[1,n],"data":[7,7,…]}, …]}, each tensor with n elements. */
static void request(struct lease_fixture *f, const char *dtype, uint32_t n_tensors, uint32_t n)
{
    _buf_ struct buf json;
    buf_init(&json, 1 << 20);
    buf_append_text(&json, "{\"inputs\":[");
    for (uint32_t i = 0; i < n_tensors; i++) {
        buf_format(&json, "%s{\"name\":\"t%u\",\"datatype\":\"%s\",\"shape\":[1,%u],\"data\":[", i > 0 ? "," : "", i,
                   dtype, n);
        for (uint32_t k = 0; k < n; k++)
            buf_append_text(&json, k > 0 ? ",7" : "7");
        buf_append_text(&json, "]}");
    }
    buf_append_text(&json, "]}");
    fixture_request(f, buf_terminate(&json));
}

static struct channel_frame guest_pull(struct lease_fixture *f, enum channel_frame_type type)
{
    struct channel_frame frame = {0};
    assert_int_equal(channel_pull(f->guest, &frame, NULL), 1);
    assert_int_equal(frame.type, type);
    return frame;
}

static void guest_push(struct lease_fixture *f, struct channel_frame frame)
{
    assert_int_equal(channel_push(f->guest, &frame), 0);
    channel_ring(f->guest);
}

/* Answers a lease as the identity engine would, one whole PART per tensor, and says that it took `took_us`. */
static void guest_answer_after(struct lease_fixture *f, const struct channel_frame *lease, uint32_t took_us)
{
    const char *in = channel_slot_other(f->guest, 0);
    char *out = channel_slot_own(f->guest, 0);
    const struct channel_lease *head = (const void *)(in + lease->offset);
    uint64_t used = 0;
    for (uint32_t i = 0; i < head->n_inputs; i++) {
        struct channel_tensor t = head->inputs[i];
        uint64_t from = t.data;
        t.data = used + 128;
        memcpy(out + used, &t, sizeof t);
        memcpy(out + t.data, in + from, t.bytes);
        guest_push(f, (struct channel_frame){.type = CHANNEL_PART,
                                             .flags = CHANNEL_FINAL,
                                             .lease_id = lease->lease_id,
                                             .index = i,
                                             .offset = used,
                                             .length = 128 + t.bytes});
        used = (t.data + t.bytes + 63) & ~UINT64_C(63);
    }
    guest_push(f, (struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease->lease_id, .a = took_us});
}

static void guest_answer(struct lease_fixture *f, const struct channel_frame *lease)
{
    guest_answer_after(f, lease, 0);
}

static void requests_share_a_lease(void **state)
{
    (void)state;
    struct lease_fixture f;
    setup(&f, TENSOR_FP32, 2);
    for (int i = 0; i < 3; i++)
        request(&f, "FP32", 2, 10);
    gateway_dispatch(&f.g);
    struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
    assert_int_equal(lease.a, 3);
    assert_int_equal(lease.b, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(guest_pull(&f, CHANNEL_ITEM).a, 1);
    const char *slot = channel_slot_other(f.guest, 0);
    const struct channel_lease *head = (const void *)(slot + lease.offset);
    assert_int_equal(head->n_inputs, 2);
    assert_int_equal(head->outputs_wanted, 3);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(head->inputs[i].dims[0], 3);
        assert_int_equal(head->inputs[i].bytes, 3 * 10 * 4);
        assert_int_equal(head->inputs[i].data % CHANNEL_DATA_ALIGN, 0);
        for (uint32_t k = 0; k < 30; k++) {
            float value;
            memcpy(&value, slot + head->inputs[i].data + 4 * k, 4);
            assert_true(value == 7.0f);
        }
    }
    guest_answer(&f, &lease);
    gateway_replica_pull(f.replica);
    assert_int_equal(f.g.requests.count, 0);
    assert_int_equal(f.replica->state, GATEWAY_REPLICA_READY);
    assert_int_equal(f.g.stats.leases, 1);
    fixture_done(&f);
}

/* A batch of no rows is work like any other, but alone: engines treat it differently. */
static void no_rows_run_alone(void **state)
{
    (void)state;
    struct lease_fixture f;
    setup(&f, TENSOR_FP32, 1);
    f.version->shapes_fixed = true; /* all others may share */
    static const char empty[] = "{\"inputs\":[{\"name\":\"t0\",\"datatype\":\"FP32\",\"shape\":[0,4],\"data\":[]}]}";
    request(&f, "FP32", 1, 4);
    fixture_request(&f, empty);
    request(&f, "FP32", 1, 4);
    fixture_request(&f, empty);
    static const uint32_t rows[] = {2, 0, 0}, requests[] = {2, 1, 1};
    for (int i = 0; i < 3; i++) {
        gateway_dispatch(&f.g);
        struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
        assert_int_equal(lease.a, rows[i]);
        assert_int_equal(lease.b, requests[i]);
        for (uint32_t k = 0; k < requests[i]; k++)
            assert_int_equal(guest_pull(&f, CHANNEL_ITEM).a, rows[i] > 0);
        const struct channel_lease *head = (const void *)((const char *)channel_slot_other(f.guest, 0) + lease.offset);
        assert_int_equal(head->inputs[0].dims[0], rows[i]);
        assert_int_equal(head->inputs[0].bytes, rows[i] * 16);
        guest_answer(&f, &lease);
        gateway_replica_pull(f.replica);
        assert_int_equal(f.replica->state, GATEWAY_REPLICA_READY);
    }
    assert_int_equal(f.g.requests.count, 0);
    assert_int_equal(f.g.stats.requests, 4);
    fixture_done(&f);
}

/* Requests of one row go in leases of `rows`; the worker says that each took `took_us`. */
static void lease_of_rows(struct lease_fixture *f, uint32_t rows, uint32_t took_us)
{
    for (uint32_t i = 0; i < rows; i++)
        request(f, "FP32", 1, 4);
    gateway_dispatch(&f->g);
    struct channel_frame lease = guest_pull(f, CHANNEL_LEASE);
    assert_int_equal(lease.a, rows);
    for (uint32_t i = 0; i < lease.b; i++)
        (void)guest_pull(f, CHANNEL_ITEM);
    guest_answer_after(f, &lease, took_us);
    gateway_replica_pull(f->replica);
}

static void figures_are_what_happened(void **state)
{
    (void)state;
    struct lease_fixture f;
    setup(&f, TENSOR_FP32, 1);
    const struct gateway_version_stats *stats = gateway_version_stats(f.version);
    assert_int_equal(stats->executions + stats->success.count + stats->failure.count + stats->n_batches, 0);
    uint64_t start_ns = uv_hrtime();
    static const uint32_t rows[] = {3, 8, 1, 3, 2};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        lease_of_rows(&f, rows[i], UINT32_MAX); /* over an hour */
    uint64_t all_ns = uv_hrtime() - start_ns;
    stats = gateway_version_stats(f.version);
    assert_int_equal(stats->executions, 5);
    assert_int_equal(stats->inferences, 17);
    assert_int_equal(stats->success.count, 17);
    assert_int_equal(stats->n_batches, 4);
    static const uint32_t sizes[] = {1, 2, 3, 8}, times[] = {1, 1, 2, 1};
    uint64_t lease_ns = 0;
    for (uint32_t i = 0; i < 4; i++) {
        const struct gateway_batch_stats *batch = &stats->batches[i];
        assert_int_equal(batch->rows, sizes[i]);
        assert_int_equal(batch->compute.infer.count, times[i]);
        lease_ns += batch->compute.input.ns + batch->compute.infer.ns + batch->compute.output.ns;
    }
    assert_true(lease_ns <= all_ns); /* whatever the worker says */

    request(&f, "FP32", 2, 4); /* no such input */
    request(&f, "FP32", 1, 4);
    gateway_dispatch(&f.g);
    struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
    (void)guest_pull(&f, CHANNEL_ITEM);
    guest_push(&f, (struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .status = -ERROR_ENGINE});
    gateway_replica_pull(f.replica);
    assert_int_equal(stats->failure.count, 2);
    assert_int_equal(stats->executions, 5);
    assert_int_equal(stats->success.count, 17);
    assert_int_equal(f.g.requests.count, 0);
    fixture_done(&f);
}

/* A batch request runs and a critical one wants its replica: the lease is named. */
static struct channel_frame lease_named(struct lease_fixture *f)
{
    f->version->class = SCHEDULE_BATCH;
    request(f, "FP32", 1, 4);
    gateway_dispatch(&f->g);
    struct channel_frame lease = guest_pull(f, CHANNEL_LEASE);
    (void)guest_pull(f, CHANNEL_ITEM);
    f->version->class = SCHEDULE_CRITICAL;
    request(f, "FP32", 1, 4);
    gateway_dispatch(&f->g);
    assert_true(f->replica->lease->preempted);
    return lease;
}

/* Two leases, the critical one first. */
static void lease_and_lease(struct lease_fixture *f)
{
    for (int i = 0; i < 2; i++) {
        gateway_dispatch(&f->g);
        assert_int_equal(f->replica->lease->priority, i == 0 ? SCHEDULE_CRITICAL : SCHEDULE_BATCH);
        struct channel_frame lease = guest_pull(f, CHANNEL_LEASE);
        (void)guest_pull(f, CHANNEL_ITEM);
        guest_answer(f, &lease);
        gateway_replica_pull(f->replica);
    }
    assert_int_equal(f->g.requests.count, 0);
}

static void a_worker_that_obeys_late_is_charged_and_asked_no_more(void **state)
{
    (void)state;
    static const uint64_t late_ns = (LIMIT_PREEMPT_MS + 1) * UINT64_C(1000000);
    enum { IN_TIME, CANCELLED_LATE, DONE_LATE, LOST_LATE, WAYS };
    for (int way = IN_TIME; way < WAYS; way++) {
        struct lease_fixture f;
        setup(&f, TENSOR_FP32, 1);
        struct gateway_quota quota = {.tenant = &f.tenant};
        for (int kind = 0; kind < SCHEDULE_QUOTA_KINDS; kind++)
            list_init(&quota.queues[kind].requests);
        f.tenant.classes = (1u << SCHEDULE_CLASS_COUNT) - 1;
        f.version->weight = f.version->slots = 1;
        f.version->cancellable = true;
        gateway_version_schedule(f.version);
        struct channel_frame lease = lease_named(&f);
        struct gateway_request *r = map_get(&f.g.requests, 1);
        r->quotas[GATEWAY_QUOTA_TENANT] = way == IN_TIME || way == CANCELLED_LATE ? &quota : NULL;
        if (way != IN_TIME)
            f.replica->lease->preempted_ns -= late_ns;
        const uint64_t *used_ns = &quota.schedule.use[SCHEDULE_COMPUTE_HOUR].used;
        if (way == LOST_LATE)
            gateway_replica_kill(f.replica, BUS_STOP_OVERDUE);
        else if (way == DONE_LATE)
            guest_answer(&f, &lease);
        else
            guest_push(&f, (struct channel_frame){
                               .type = CHANNEL_DONE, .lease_id = lease.lease_id, .status = -ERROR_CANCELLED});
        gateway_replica_pull(f.replica);
        if (way == IN_TIME)
            assert_true(*used_ns > 0 && *used_ns < late_ns);
        else if (way == CANCELLED_LATE)
            assert_true(*used_ns >= late_ns);
        assert_int_equal(f.version->cancellable, way == IN_TIME);
        if (way == IN_TIME || way == CANCELLED_LATE) {
            r->quotas[GATEWAY_QUOTA_TENANT] = NULL; /* there is no catalog, which answers are checked against */
            lease_and_lease(&f);
        }
        gateway_replica_kill(f.replica, BUS_STOP_PROTOCOL);
        gateway_version_fail(f.version, ERROR_WORKER_LOST, NULL);
        list_remove(&quota.in_changed);
        fixture_done(&f);
    }
}

/* What was pre-empted goes back into a queue that nobody serves any more. */
static void a_model_that_was_deleted_while_a_lease_was_given_up(void **state)
{
    (void)state;
    struct lease_fixture f;
    setup(&f, TENSOR_FP32, 1);
    f.tenant.classes = (1u << SCHEDULE_CLASS_COUNT) - 1;
    f.version->weight = f.version->slots = 1;
    f.version->cancellable = true;
    gateway_version_schedule(f.version);
    struct channel_frame lease = lease_named(&f);
    f.g.stats.generation = f.version->generation + 1;             /* of a catalog without it, … */
    gateway_version_fail(f.version, ERROR_MODEL_NOT_FOUND, NULL); /* … which ends what queues */
    assert_int_equal(f.g.requests.count, 1);
    guest_push(&f,
               (struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .status = -ERROR_CANCELLED});
    gateway_replica_pull(f.replica);
    assert_int_equal(f.g.requests.count, 0);
    fixture_done(&f);
}

/* Neither no time nor a cancellation that nobody asked for saves a tenant anything. */
static void a_worker_that_lies_is_charged_all_the_same(void **state)
{
    (void)state;
    enum { WAIT_MS = 5 };
    struct lease_fixture f;
    setup(&f, TENSOR_FP32, 1);
    const struct gateway_version_stats *stats = gateway_version_stats(f.version);
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t before_ns = f.tenant.schedule.served_ns;
        request(&f, "FP32", 1, 4);
        gateway_dispatch(&f.g);
        struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
        (void)guest_pull(&f, CHANNEL_ITEM);
        (void)poll(NULL, 0, WAIT_MS);
        struct channel_frame done = {.type = CHANNEL_DONE, .lease_id = lease.lease_id, .status = -ERROR_CANCELLED};
        if (i == 0)
            guest_answer_after(&f, &lease, 0);
        else
            guest_push(&f, done);
        gateway_replica_pull(f.replica);
        assert_true(f.tenant.schedule.served_ns - before_ns >= WAIT_MS * UINT64_C(1000000));
        assert_int_equal(f.tenant.schedule.queued + f.tenant.schedule.leased, 0);
        stats = gateway_version_stats(f.version);
        assert_int_equal(stats->success.count, 1);
        assert_int_equal(stats->failure.count, i);
    }
    fixture_done(&f);
}

/* JSON is denser than what it means: "7," is two bytes and a FP64 eight. What does not fit the slot is refused. */
static void inputs_larger_than_the_slot_are_refused(void **state)
{
    (void)state;
    for (uint32_t n_tensors = 1; n_tensors <= LIMIT_TENSORS; n_tensors += 9) {
        uint32_t bytes = 2 * BODY_BYTES_MAX / n_tensors;
        uint32_t fitted = 0;
        for (uint32_t n = bytes / 8 > 120 ? bytes / 8 - 120 : 1; n < bytes / 8 + 40; n++) {
            struct lease_fixture f;
            setup(&f, TENSOR_FP64, n_tensors);
            request(&f, "FP64", n_tensors, n);
            gateway_dispatch(&f.g); /* ASan watches the slot's end */
            if (f.replica->lease) {
                struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
                assert_true(lease.length <= geometry.inbox_slot_bytes);
                fitted++;
            } else {
                assert_int_equal(f.g.requests.count, 0); /* answered at once */
            }
            assert_int_equal(f.replica->state, GATEWAY_REPLICA_READY);
            fixture_done(&f);
        }
        assert_true(fitted > 0);
    }
}

static void batches_fit_the_slot(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 400; n += 7) {
        struct lease_fixture f;
        setup(&f, TENSOR_FP64, 20);
        for (uint32_t i = 0; i < 2 * BATCH_MAX; i++)
            request(&f, "FP64", 20, n);
        for (uint32_t leases = 0; f.g.requests.count > 0 && leases < 100; leases++) {
            gateway_dispatch(&f.g);
            if (!f.replica->lease)
                break;
            struct channel_frame lease = guest_pull(&f, CHANNEL_LEASE);
            assert_true(lease.length <= geometry.inbox_slot_bytes);
            for (uint32_t i = 0; i < lease.b; i++)
                (void)guest_pull(&f, CHANNEL_ITEM);
            guest_push(
                &f, (struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .status = -ERROR_ENGINE});
            gateway_replica_pull(f.replica);
        }
        assert_int_equal(f.g.requests.count, 0);
        fixture_done(&f);
    }
}

/* --- a hostile worker --- */

static struct channel_frame lease_of_one(struct lease_fixture *f, const char *dtype, uint32_t n_tensors)
{
    request(f, dtype, n_tensors, 8);
    gateway_dispatch(&f->g);
    struct channel_frame lease = guest_pull(f, CHANNEL_LEASE);
    (void)guest_pull(f, CHANNEL_ITEM);
    return lease;
}

/* A worker on another core can push frames as fast as the gateway takes them: each kind that leads nowhere must end. */
static void a_flood_of_frames_ends(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct lease_fixture f;
        setup(&f, TENSOR_FP64, 1);
        struct channel_frame lease = lease_of_one(&f, "FP64", 1);
        struct channel_frame flood = {.type = kind == 0 ? CHANNEL_STATS : CHANNEL_PART, .lease_id = lease.lease_id};
        if (kind == 1) { /* begins an output, and goes on with empty pieces */
            struct channel_tensor t = {TENSOR_FP64, 2, {1, 8}, 128, 64};
            memcpy(channel_slot_own(f.guest, 0), &t, sizeof t);
            flood.length = 128;
        }
        uint32_t frames = 0;
        while (f.replica->state == GATEWAY_REPLICA_READY && frames < 100000) {
            guest_push(&f, flood);
            gateway_replica_pull(f.replica);
            frames++;
            flood.length = 0;
            flood.a += kind == 1;
        }
        assert_in_range(frames, LIMIT_TENSORS, 10000);
        assert_int_equal(f.replica->state, GATEWAY_REPLICA_GONE);
        assert_int_equal(f.g.requests.count, 0);
        fixture_done(&f);
    }
}

/* But leases may go on for ever. */
static void many_leases_are_no_flood(void **state)
{
    (void)state;
    struct lease_fixture f;
    setup(&f, TENSOR_FP64, 3);
    for (int i = 0; i < 3000; i++) {
        struct channel_frame lease = lease_of_one(&f, "FP64", 3);
        guest_answer(&f, &lease);
        gateway_replica_pull(f.replica);
        assert_int_equal(f.replica->state, GATEWAY_REPLICA_READY);
    }
    assert_int_equal(f.g.requests.count, 0);
    fixture_done(&f);
}

/* Outputs that come in pieces lie in the gateway's memory: two slots' worth for a lease, however many outputs. */
static void outputs_of_a_lease_are_bounded_together(void **state)
{
    (void)state;
    enum { EACH = 1024 };
    struct lease_fixture f;
    setup(&f, TENSOR_FP64, LIMIT_TENSORS);
    struct channel_frame lease = lease_of_one(&f, "FP64", LIMIT_TENSORS);
    uint32_t started = 0;
    for (; started < LIMIT_TENSORS && f.replica->state == GATEWAY_REPLICA_READY; started++) {
        struct channel_tensor t = {TENSOR_FP64, 2, {1, EACH / 8}, 128, EACH};
        memcpy(channel_slot_own(f.guest, 0), &t, sizeof t);
        guest_push(&f, (struct channel_frame){
                           .type = CHANNEL_PART, .lease_id = lease.lease_id, .index = started, .length = 128 + 8});
        gateway_replica_pull(f.replica);
    }
    assert_int_equal(started, 2 * geometry.outbox_slot_bytes / EACH + 1);
    assert_int_equal(f.replica->state, GATEWAY_REPLICA_GONE);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_share_a_lease),
        cmocka_unit_test(no_rows_run_alone),
        cmocka_unit_test(a_model_that_was_deleted_while_a_lease_was_given_up),
        cmocka_unit_test(a_worker_that_lies_is_charged_all_the_same),
        cmocka_unit_test(a_worker_that_obeys_late_is_charged_and_asked_no_more),
        cmocka_unit_test(figures_are_what_happened),
        cmocka_unit_test(inputs_larger_than_the_slot_are_refused),
        cmocka_unit_test(batches_fit_the_slot),
        cmocka_unit_test(a_flood_of_frames_ends),
        cmocka_unit_test(many_leases_are_no_flood),
        cmocka_unit_test(outputs_of_a_lease_are_bounded_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
