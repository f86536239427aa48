/* What the engine tests share: opening, one step, and what came out of it. */
#ifndef BULKHEAD_TEST_UNIT_ENGINE_ENGINE_FIXTURE_H
#define BULKHEAD_TEST_UNIT_ENGINE_ENGINE_FIXTURE_H

#include "engine/engine.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* The ONNX Runtime library of the tree; opened once. */
static inline int fixture_library(void)
{
    static int fd = -1;
    char path[4096];
    const char *source = getenv("BULKHEAD_SOURCE");
    if (fd >= 0)
        return fd;
    (void)snprintf(path, sizeof path, "%s/build/engines/libonnxruntime.so.1", source ? source : ".");
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)printf("Bail out! no ONNX Runtime library in build/engines of BULKHEAD_SOURCE: tools/deps install\n");
        exit(1);
    }
    return fd;
}

/* Opens `ops` on a model in memory. The text of a failure never names what is the server's business. */
static inline int fixture_open(const struct engine_ops *ops, const void *model, size_t size, struct engine **ret_engine,
                               struct error *err)
{
    static const char *const secrets[] = {"/proc", "onnxruntime_src", ".cc:", ".h:", "0x7f", "0x55"};
    struct engine_options options = {
        .model = model, .model_bytes = size, .library_fd = ops->library ? fixture_library() : -1, .threads = 1};
    memset(err, 0, sizeof *err);
    int result = ops->open(&options, ret_engine, err);
    if (result < 0) {
        assert_int_equal(err->code, result);
        assert_true(err->text[0] != '\0');
        for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++)
            if (strstr(err->text, secrets[i]))
                fail_msg("the text names an internal: %s", err->text);
    }
    return result;
}

static inline struct engine *fixture_must_open(const struct engine_ops *ops, const void *model, size_t size)
{
    struct engine *e = NULL;
    struct error err;
    if (fixture_open(ops, model, size, &e, &err) < 0)
        fail_msg("open: %s", err.text);
    return e;
}

static inline struct tensor_signature *fixture_signature(struct engine *e)
{
    struct error err = {0};
    struct tensor_signature *signature = calloc(1, sizeof *signature);
    assert_non_null(signature);
    assert_int_equal(e->ops->describe(e, signature, &err), 0);
    return signature;
}

/* A view on a 64-byte aligned copy of data, as the channel gives it; freed by fixture_view_free. */
static inline struct tensor_view fixture_view(enum tensor_dtype dtype, uint32_t rank, const int64_t *dims,
                                              const void *data, size_t size)
{
    struct tensor_view view = {.dtype = dtype, .shape.rank = rank, .size = size};
    memcpy(view.shape.dims, dims, rank * sizeof *dims);
    void *copy = aligned_alloc(64, (size / 64 + 1) * 64);
    assert_non_null(copy);
    if (size > 0)
        memcpy(copy, data, size);
    view.data = copy;
    return view;
}

static inline void fixture_view_free(const struct tensor_view *view)
{
    free((void *)(uintptr_t)view->data);
}

/* Records what a step gives. */
struct fixture_sink {
    uint32_t n;                                /* calls */
    uint32_t fail_at;                          /* the call that returns non-zero, counted from 1; 0: none */
    uint64_t given;                            /* bit i: output i came */
    struct tensor_view outputs[LIMIT_TENSORS]; /* copies */
};

static inline int fixture_output(void *ctx, uint32_t index, const struct tensor_view *output)
{
    struct fixture_sink *sink = ctx;
    assert_true(index < LIMIT_TENSORS);
    assert_false(sink->given & (UINT64_C(1) << index));
    sink->n++;
    sink->given |= UINT64_C(1) << index;
    sink->outputs[index] =
        fixture_view(output->dtype, output->shape.rank, output->shape.dims, output->data, output->size);
    return sink->n == sink->fail_at ? -1 : 0;
}

static inline void fixture_sink_done(struct fixture_sink *sink)
{
    for (uint32_t i = 0; i < LIMIT_TENSORS; i++)
        if (sink->given & (UINT64_C(1) << i))
            fixture_view_free(&sink->outputs[i]);
    memset(sink, 0, sizeof *sink);
}

/* Submits one item of `rows` rows and steps. */
static inline int fixture_run(struct engine *e, const struct tensor_view *inputs, uint32_t n_inputs, uint32_t rows,
                              uint64_t wanted, struct fixture_sink *sink, struct error *err)
{
    struct engine_item item = {.request_id = 1, .tenant_id = 1, .rows = rows};
    struct engine_batch batch = {
        .n_items = 1, .items = &item, .rows = rows, .n_inputs = n_inputs, .inputs = inputs, .outputs_wanted = wanted};
    struct engine_sink out = {.ctx = sink, .output = fixture_output};
    memset(err, 0, sizeof *err);
    int result = e->ops->submit(e, &batch, err);
    return result < 0 ? result : e->ops->step(e, UINT64_C(1000000), &out, err);
}

#endif
