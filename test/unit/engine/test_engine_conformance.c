/* What every engine promises in engine.h, run against every row of the registry. */
#include "engine_fixture.h"
#include "onnx_builder.h"

#include <pthread.h>

/* A model with inputs x FP32[-1,2] and y INT64[-1], and outputs that echo them. */
static struct pb model_for(const struct engine_ops *ops)
{
    struct pb model = {0};
    if (strcmp(ops->name, "identity") == 0) {
        static const char text[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,2]},"
                                   "{\"name\":\"y\",\"datatype\":\"INT64\",\"shape\":[-1]}]}";
        pb_raw(&model, text, sizeof text - 1);
    } else if (strcmp(ops->name, "onnx") == 0) {
        struct pb graph = {0};
        onnx_node(&graph, "Identity", "x", "x2", NULL);
        onnx_node(&graph, "Identity", "y", "y2", NULL);
        onnx_value(&graph, ONNX_INPUT, "x", ONNX_FLOAT, "N,2");
        onnx_value(&graph, ONNX_INPUT, "y", ONNX_INT64, "N");
        onnx_value(&graph, ONNX_OUTPUT, "x2", ONNX_FLOAT, "N,2");
        onnx_value(&graph, ONNX_OUTPUT, "y2", ONNX_INT64, "N");
        onnx_model(&model, &graph, 17);
    } else {
        fail_msg("no conformance model for engine %s", ops->name);
    }
    return model;
}

struct bench { /* an engine with a batch of 2 requests, 3 rows */
    const struct engine_ops *ops;
    struct engine *e;
    struct tensor_view inputs[2];
    struct engine_item items[2];
    struct engine_batch batch;
    struct fixture_sink seen;
    struct engine_sink sink;
    struct error err;
};

static const float xs[] = {1, 2, 3, 4, 5, 6};
static const int64_t ys[] = {7, 8, INT64_MIN};

static void bench_init(struct bench *b, const struct engine_ops *ops)
{
    struct pb model = model_for(ops);
    memset(b, 0, sizeof *b);
    b->ops = ops;
    b->e = fixture_must_open(ops, model.data, model.size);
    pb_free(&model);
    b->inputs[0] = fixture_view(TENSOR_FP32, 2, (int64_t[]){3, 2}, xs, sizeof xs);
    b->inputs[1] = fixture_view(TENSOR_INT64, 1, (int64_t[]){3}, ys, sizeof ys);
    b->items[0] = (struct engine_item){.request_id = 10, .tenant_id = 1, .rows = 1};
    b->items[1] = (struct engine_item){.request_id = 11, .tenant_id = 1, .rows = 2};
    b->batch = (struct engine_batch){
        .n_items = 2, .items = b->items, .rows = 3, .n_inputs = 2, .inputs = b->inputs, .outputs_wanted = 3};
    b->sink = (struct engine_sink){.ctx = &b->seen, .output = fixture_output};
}

static void bench_done(struct bench *b)
{
    b->ops->close(b->e);
    fixture_sink_done(&b->seen);
    fixture_view_free(&b->inputs[0]);
    fixture_view_free(&b->inputs[1]);
}

static int submit(struct bench *b)
{
    memset(&b->err, 0, sizeof b->err);
    return b->ops->submit(b->e, &b->batch, &b->err);
}

static int step(struct bench *b)
{
    fixture_sink_done(&b->seen);
    memset(&b->err, 0, sizeof b->err);
    return b->ops->step(b->e, UINT64_C(20000000), &b->sink, &b->err);
}

static void must_work(struct bench *b)
{
    assert_int_equal(submit(b), 0);
    assert_int_equal(step(b), 1);
    assert_int_equal(b->seen.given, 3);
    assert_int_equal(b->seen.outputs[0].dtype, TENSOR_FP32);
    assert_int_equal(b->seen.outputs[0].size, sizeof xs);
    assert_memory_equal(b->seen.outputs[0].data, xs, sizeof xs);
    assert_int_equal(b->seen.outputs[1].shape.dims[0], 3);
    assert_memory_equal(b->seen.outputs[1].data, ys, sizeof ys);
}

#define EACH_ENGINE(ops)                                     \
    const struct engine_ops *ops = NULL;                     \
    for (size_t i_ = 0; (ops = engine_at(i_)) != NULL; i_++) \
        if (ops->caps & ENGINE_TENSOR)

static void test_registry(void **state)
{
    (void)state;
    size_t n = 0;
    EACH_ENGINE(ops)
    {
        assert_ptr_equal(engine_find(str_from(ops->name)), ops);
        assert_true(ops->caps & (ENGINE_TENSOR | ENGINE_TOKEN));
        assert_true(ops->open && ops->describe && ops->submit && ops->step && ops->stats && ops->close);
        assert_true(!(ops->caps & ENGINE_CANCEL) || ops->cancel);
        if (!(ops->caps & ENGINE_TOKEN))
            assert_true(!ops->park && !ops->resume);
        n++;
    }
    assert_int_equal(n, 2); /* token engines: test_llama.c */
    assert_null(engine_at(n + 1000));
    assert_null(engine_find(STR("")));
    assert_null(engine_find(STR("onnx2")));
}

static void test_close_takes_anything(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        ops->close(NULL);
        bench_init(&b, ops); /* opened only */
        bench_done(&b);
        bench_init(&b, ops); /* with a batch pending */
        assert_int_equal(submit(&b), 0);
        bench_done(&b);
    }
}

static void test_open_refuses(void **state)
{
    (void)state;
    static const char noise[] = "\x1f\x8b\x08not a model of any engine \xff\xfe\0\x7f";
    EACH_ENGINE(ops)
    {
        struct engine *e = (struct engine *)&e;
        struct error err;
        assert_int_equal(fixture_open(ops, noise, sizeof noise, &e, &err), -ERROR_REFUSED);
        assert_ptr_equal(e, &e); /* untouched */
        assert_int_equal(fixture_open(ops, noise, 0, &e, &err), -ERROR_REFUSED);
    }
}

static void test_describes(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        bench_init(&b, ops);
        struct tensor_signature *s = fixture_signature(b.e), *decoded = calloc(1, sizeof *decoded);
        assert_int_equal(s->n_inputs, 2);
        assert_int_equal(s->n_outputs, 2);
        assert_true(s->batchable);
        assert_true(s->platform[0] != '\0');
        assert_string_equal(s->inputs[0].name, "x");
        assert_int_equal(s->inputs[0].shape.dims[0], -1);
        assert_int_equal(s->inputs[0].shape.dims[1], 2);
        assert_int_equal(s->inputs[1].dtype, TENSOR_INT64);
        /* It travels to the gateway, which trusts nothing. */
        char *wire = malloc(TENSOR_SIGNATURE_BYTES_MAX);
        size_t size = 0;
        assert_true(wire && decoded);
        assert_int_equal(tensor_signature_encode(s, wire, TENSOR_SIGNATURE_BYTES_MAX, &size), 0);
        assert_int_equal(tensor_signature_decode(wire, size, decoded, &b.err), 0);
        free(wire);
        free(decoded);
        free(s);
        bench_done(&b);
    }
}

static void test_order(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        bench_init(&b, ops);
        assert_int_equal(step(&b), -ERROR_INTERNAL); /* nothing submitted */
        must_work(&b);
        assert_int_equal(step(&b), -ERROR_INTERNAL); /* nothing any more */
        assert_int_equal(submit(&b), 0);
        assert_int_equal(submit(&b), -ERROR_AGAIN);
        assert_int_equal(step(&b), 1); /* the first is still there */
        assert_int_equal(b.seen.n, 2);
        must_work(&b);
        bench_done(&b);
    }
}

static void test_wanted_outputs_only(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        bench_init(&b, ops);
        for (uint64_t wanted = 0; wanted < 4; wanted++) {
            b.batch.outputs_wanted = wanted | UINT64_C(1) << 63; /* of an output that is not there */
            assert_int_equal(submit(&b), 0);
            assert_int_equal(step(&b), 1);
            assert_int_equal(b.seen.given, wanted);
        }
        bench_done(&b);
    }
}

static void test_checks_batches(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        for (int fault = 0; fault < 10; fault++) {
            bench_init(&b, ops);
            switch (fault) {
            case 0:
                b.batch.n_inputs = 1;
                break;
            case 1:
                b.batch.n_items = 0;
                break;
            case 2:
                b.batch.n_items = LIMIT_BATCH_ITEMS + 1;
                break;
            case 3:
                b.items[1].rows = 3;
                break;
            case 4:
                b.inputs[0].dtype = TENSOR_INT32;
                break;
            case 5:
                b.inputs[0].shape.dims[1] = 3;
                break;
            case 6:
                b.inputs[0].shape.rank = 1;
                break;
            case 7:
                b.inputs[0].shape.dims[0] = 2, b.inputs[0].size = 16; /* whole, but too few rows */
                break;
            case 8:
                b.inputs[0].size -= 1;
                break;
            default:
                b.inputs[0].shape.dims[0] = -1;
                break;
            }
            assert_int_equal(submit(&b), -ERROR_INVALID_TENSOR);
            assert_true(b.err.text[0] != '\0');
            assert_int_equal(step(&b), -ERROR_INTERNAL); /* it was not taken */
            bench_done(&b);
        }
    }
}

static void test_sink_stops(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        bench_init(&b, ops);
        assert_int_equal(submit(&b), 0);
        fixture_sink_done(&b.seen);
        b.seen.fail_at = 1;
        assert_int_equal(b.ops->step(b.e, 0, &b.sink, &b.err), -ERROR_GONE);
        assert_int_equal(b.seen.n, 1); /* not asked again */
        must_work(&b);
        bench_done(&b);
    }
}

static void test_cancels_what_waits(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        if (!(ops->caps & ENGINE_CANCEL))
            continue;
        bench_init(&b, ops);
        ops->cancel(b.e, 10); /* nothing there */
        must_work(&b);
        ops->cancel(b.e, 10); /* over */

        assert_int_equal(submit(&b), 0);
        ops->cancel(b.e, 99); /* unknown */
        ops->cancel(b.e, 10); /* one of two, twice: the other is wanted */
        ops->cancel(b.e, 10);
        assert_int_equal(step(&b), 1);
        assert_int_equal(b.seen.n, 2);

        assert_int_equal(submit(&b), 0);
        ops->cancel(b.e, 11);
        ops->cancel(b.e, 10);
        assert_int_equal(step(&b), -ERROR_CANCELLED);
        assert_int_equal(b.seen.n, 0);
        assert_int_equal(step(&b), -ERROR_INTERNAL); /* forgotten */
        must_work(&b);                               /* and the same ids may come again */
        bench_done(&b);
    }
}

static void test_counts(void **state)
{
    (void)state;
    EACH_ENGINE(ops)
    {
        struct bench b;
        struct engine_stats stats = {0};
        bench_init(&b, ops);
        ops->stats(b.e, &stats);
        assert_int_equal(stats.steps + stats.items + stats.step_ns_total, 0);
        must_work(&b);
        must_work(&b);
        ops->stats(b.e, &stats);
        assert_int_equal(stats.steps, 2);
        assert_int_equal(stats.items, 4);
        assert_true(stats.step_ns_last > 0 && stats.step_ns_last <= stats.step_ns_total);
        bench_done(&b);
    }
}

/* Level `shared`: several models in one process. */
static void test_several_at_once(void **state)
{
    (void)state;
    struct bench benches[6];
    EACH_ENGINE(ops)
    {
        for (size_t i = 0; i < 6; i++)
            bench_init(&benches[i], ops);
        for (size_t i = 0; i < 6; i++)
            assert_int_equal(submit(&benches[i]), 0);
        for (size_t i = 6; i-- > 0;)
            assert_int_equal(step(&benches[i]), 1);
        for (size_t i = 0; i < 6; i += 2)
            bench_done(&benches[i]);
        for (size_t i = 1; i < 6; i += 2) {
            must_work(&benches[i]);
            bench_done(&benches[i]);
        }
    }
}

static void *work(void *ctx)
{
    struct bench *b = ctx;
    for (int i = 0; i < 50; i++)
        must_work(b);
    return NULL;
}

/* Each in a thread of its own, while others come and go. */
static void test_several_in_threads(void **state)
{
    (void)state;
    struct bench benches[4];
    pthread_t threads[4];
    EACH_ENGINE(ops)
    {
        if (!(ops->caps & ENGINE_SHARED))
            continue;
        for (size_t i = 0; i < 4; i++) {
            bench_init(&benches[i], ops);
            assert_int_equal(pthread_create(&threads[i], NULL, work, &benches[i]), 0);
        }
        for (int i = 0; i < 5; i++) {
            struct bench b;
            bench_init(&b, ops);
            must_work(&b);
            bench_done(&b);
        }
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            bench_done(&benches[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_close_takes_anything),
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_describes),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_wanted_outputs_only),
        cmocka_unit_test(test_checks_batches),
        cmocka_unit_test(test_sink_stops),
        cmocka_unit_test(test_cancels_what_waits),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_several_at_once),
        cmocka_unit_test(test_several_in_threads),
    };
    return cmocka_run_group_tests_name("engine_conformance", tests, NULL, NULL);
}
