/* Cancelling a step that runs, from another thread. */
#include "engine_fixture.h"
#include "onnx_builder.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

struct canceller {
    struct engine *e;
    clockid_t engine_clock; /* CPU time of the thread that steps */
    uint64_t started_ns;    /* on it, just before the step */
};

static uint64_t thread_ns(clockid_t clock)
{
    struct timespec now;
    assert_int_equal(clock_gettime(clock, &now), 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Waits until the step has surely begun: the engine's thread has burnt CPU time. */
static void *cancel_when_running(void *ctx)
{
    struct canceller *c = ctx;
    while (thread_ns(c->engine_clock) < c->started_ns + 5 * NS_PER_MS)
        sched_yield();
    c->e->ops->cancel(c->e, 20);
    c->e->ops->cancel(c->e, 21); /* the last of the batch */
    return NULL;
}

/* Runs two requests that would take a very long time, and expects them back soon. */
static void cancel_running(struct engine *e, const struct tensor_view *input, uint32_t rows_each)
{
    struct engine_item items[2] = {{20, 1, rows_each}, {21, 1, rows_each}};
    struct engine_batch batch = {2, items, 2 * rows_each, 1, input, 1};
    struct fixture_sink seen = {0};
    struct engine_sink sink = {&seen, fixture_output};
    struct canceller canceller = {.e = e};
    struct error err = {0};
    pthread_t thread;
    assert_int_equal(pthread_getcpuclockid(pthread_self(), &canceller.engine_clock), 0);
    assert_int_equal(e->ops->submit(e, &batch, &err), 0);
    canceller.started_ns = thread_ns(canceller.engine_clock);
    assert_int_equal(pthread_create(&thread, NULL, cancel_when_running, &canceller), 0);
    assert_int_equal(e->ops->step(e, 0, &sink, &err), -ERROR_CANCELLED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(seen.n, 0);
}

static void test_identity(void **state)
{
    (void)state;
    static const char model[] =
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT64\",\"shape\":[-1]}],\"busyPerRow\":\"5s\"}";
    struct engine *e = fixture_must_open(&engine_identity, model, sizeof model - 1);
    struct tensor_view input = fixture_view(TENSOR_INT64, 1, (int64_t[]){2}, (int64_t[]){1, 2}, 16);
    cancel_running(e, &input, 1);
    fixture_view_free(&input);
    e->ops->close(e);
}

/* y = x after `trip` rounds of a loop that does nothing much. */
static struct pb loop_model(void)
{
    struct pb body = {0}, graph = {0}, model = {0}, attributes = {0};
    onnx_node(&body, "Identity", "cond", "cond2", NULL);
    onnx_node(&body, "Neg", "v", "v2", NULL);
    onnx_value(&body, ONNX_INPUT, "i", ONNX_INT64, "");
    onnx_value(&body, ONNX_INPUT, "cond", ONNX_BOOL, "");
    onnx_value(&body, ONNX_INPUT, "v", ONNX_INT64, "N");
    onnx_value(&body, ONNX_OUTPUT, "cond2", ONNX_BOOL, "");
    onnx_value(&body, ONNX_OUTPUT, "v2", ONNX_INT64, "N");
    pb_text(&body, 2, "body");
    onnx_attribute_graph(&attributes, "body", &body);
    /* trip = 2 * max(x): even, so that y = x */
    onnx_initializer(&graph, "two", ONNX_INT64, "", "\2\0\0\0\0\0\0\0", 8);
    struct pb keep = {0};
    onnx_attribute_int(&keep, "keepdims", 0);
    onnx_node(&graph, "ReduceMax", "x", "max", &keep);
    onnx_node(&graph, "Mul", "max,two", "trip", NULL);
    onnx_initializer(&graph, "true", ONNX_BOOL, "", "\1", 1);
    onnx_node(&graph, "Loop", "trip,true,x", "y", &attributes);
    onnx_value(&graph, ONNX_INPUT, "x", ONNX_INT64, "N");
    onnx_value(&graph, ONNX_OUTPUT, "y", ONNX_INT64, "N");
    onnx_model(&model, &graph, 17);
    return model;
}

static void test_onnx(void **state)
{
    (void)state;
    struct pb model = loop_model();
    struct engine *e = fixture_must_open(&engine_onnx, model.data, model.size);
    struct tensor_view forever = fixture_view(TENSOR_INT64, 1, (int64_t[]){2}, (int64_t[]){1, INT64_C(1) << 60}, 16);
    struct tensor_view quick = fixture_view(TENSOR_INT64, 1, (int64_t[]){2}, (int64_t[]){1, 3}, 16);
    for (int i = 0; i < 3; i++) {
        struct fixture_sink seen = {0};
        struct error err;
        cancel_running(e, &forever, 1);
        /* The wish to stop does not stick. */
        if (fixture_run(e, &quick, 1, 2, 1, &seen, &err) != 1)
            fail_msg("%s", err.text);
        assert_memory_equal(seen.outputs[0].data, quick.data, 16);
        fixture_sink_done(&seen);
    }
    fixture_view_free(&forever);
    fixture_view_free(&quick);
    e->ops->close(e);
    pb_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_onnx),
    };
    return cmocka_run_group_tests_name("engine_cancel", tests, NULL, NULL);
}
