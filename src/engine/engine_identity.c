/* The identity engine: answers with its inputs. Built in; for measuring what everything around an engine costs, and,
 * with `busy`, for exercising the scheduler with steps of a known length. */
#include "engine/engine_pending.h"
#include "engine/identity_model.h"

#include "base/clock.h"

#include <stdio.h>

struct identity {
    struct engine engine;
    struct engine_pending pending;
    uint64_t busy_ns, busy_per_row_ns;
    struct tensor_signature signature;
};

static struct identity *identity_of(struct engine *e)
{
    return (struct identity *)(void *)e; /* first member */
}

static void identity_close(struct engine *e)
{
    if (!e)
        return;
    engine_pending_done(&identity_of(e)->pending);
    free(e);
}

static int identity_open(const struct engine_options *options, struct engine **ret_engine, struct error *err)
{
    _free_ struct identity *identity = calloc(1, sizeof *identity);
    if (!identity)
        return error_set_default(err, ERROR_NO_MEMORY);
    struct tensor_signature *signature = &identity->signature;
    struct identity_model model;
    int result = options->confine ? options->confine(options->confine_ctx, err) : 0;
    if (result == 0)
        result =
            identity_model_parse((struct str){options->model, options->model_bytes}, signature->inputs, &model, err);
    if (result < 0)
        return result;
    identity->engine.ops = &engine_identity;
    identity->busy_ns = model.busy_ns;
    identity->busy_per_row_ns = model.busy_per_row_ns;
    signature->n_inputs = signature->n_outputs = model.n_inputs;
    memcpy(signature->outputs, signature->inputs, sizeof signature->inputs);
    (void)snprintf(signature->platform, sizeof signature->platform, "bulkhead_identity"); /* fits */
    signature->batchable = true;
    for (uint32_t i = 0; i < model.n_inputs; i++) {
        const struct tensor_shape *shape = &signature->inputs[i].shape;
        if (shape->rank == 0 || shape->dims[0] != -1)
            signature->batchable = false;
    }
    result = engine_pending_init(&identity->pending, NULL, NULL);
    if (result < 0)
        return error_set_default(err, result);
    *ret_engine = &take(&identity)->engine;
    return 0;
}

static int identity_describe(struct engine *e, struct tensor_signature *ret_signature, struct error *err)
{
    (void)err; /* cannot fail */
    *ret_signature = identity_of(e)->signature;
    return 0;
}

static int identity_submit(struct engine *e, const struct engine_batch *batch, struct error *err)
{
    return engine_pending_submit(&identity_of(e)->pending, &identity_of(e)->signature, batch, err);
}

/* CPU time, not wall time: under a CPU limit a busy model takes longer, like a real one. */
static int identity_burn(struct identity *identity)
{
    uint64_t rows = identity->pending.batch->rows;
    uint64_t wanted_ns = identity->busy_ns;
    if (identity->busy_per_row_ns > 0 && rows > IDENTITY_BUSY_NS_MAX / identity->busy_per_row_ns)
        wanted_ns = IDENTITY_BUSY_NS_MAX;
    else
        wanted_ns += identity->busy_per_row_ns * rows;
    if (wanted_ns == 0)
        return 0;
    if (wanted_ns > IDENTITY_BUSY_NS_MAX)
        wanted_ns = IDENTITY_BUSY_NS_MAX;
    uint64_t start_ns = clock_thread_ns();
    while (clock_thread_ns() - start_ns < wanted_ns) {
        for (unsigned i = 0; i < 2000; i++) /* a microsecond or so: this clock is a system call */
            __asm__ volatile("");
        if (engine_pending_cancelled(&identity->pending))
            return -ERROR_CANCELLED;
    }
    return 0;
}

static int identity_step(struct engine *e, uint64_t budget_ns, const struct engine_sink *sink, struct error *err)
{
    struct identity *identity = identity_of(e);
    (void)budget_ns; /* a tensor engine finishes in one step */
    int result = engine_pending_start(&identity->pending, err);
    if (result < 0)
        return result;
    const struct engine_batch *batch = identity->pending.batch;
    result = identity_burn(identity);
    for (uint32_t i = 0; i < batch->n_inputs && result == 0; i++) {
        if (!(batch->outputs_wanted & (UINT64_C(1) << i)))
            continue;
        struct tensor_view output = batch->inputs[i];
        output.name = str_from(identity->signature.outputs[i].name);
        if (sink->output(sink->ctx, i, &output) != 0)
            result = error_set_default(err, ERROR_GONE);
    }
    return engine_pending_finish(&identity->pending, result, err);
}

static void identity_cancel(struct engine *e, uint64_t request_id)
{
    engine_pending_cancel(&identity_of(e)->pending, request_id);
}

static void identity_stats(struct engine *e, struct engine_stats *ret_stats)
{
    *ret_stats = identity_of(e)->pending.stats;
}

const struct engine_ops engine_identity = {
    .name = "identity",
    .caps = ENGINE_TENSOR | ENGINE_CANCEL | ENGINE_SHARED,
    .library = NULL,
    .open = identity_open,
    .describe = identity_describe,
    .submit = identity_submit,
    .step = identity_step,
    .cancel = identity_cancel,
    .stats = identity_stats,
    .close = identity_close,
};
