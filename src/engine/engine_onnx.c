/* The onnx engine: ONNX Runtime behind its C API.
 *
 * open scans the file (onnx_scan: nothing outside it or its own folder), loads the library once per process, makes a
 * session from the mapped bytes and reads its signature. A step is one Run for the whole batch: inputs are values on
 * the caller's memory, only the wanted outputs are computed, results go to the sink from the library's memory. cancel
 * sets the terminate flag of the run options, which the library looks at before each node. */
#include "engine/onnx_internal.h"
#include "engine/onnx_scan.h"

#define THREADS_MAX 1024u

static struct onnx *onnx_of(struct engine *e)
{
    return (struct onnx *)(void *)e; /* first member */
}

static void onnx_stop(void *ctx)
{
    struct onnx *onnx = ctx;
    OrtStatus *status = onnx->api->RunOptionsSetTerminate(onnx->run_options);
    if (status)
        onnx->api->ReleaseStatus(status); /* then the step runs to its end, and its answers are dropped */
}

static void onnx_close(struct engine *e)
{
    struct onnx *onnx = onnx_of(e);
    if (!onnx)
        return;
    engine_pending_done(&onnx->pending);
    if (onnx->memory)
        onnx->api->ReleaseMemoryInfo(onnx->memory);
    if (onnx->run_options)
        onnx->api->ReleaseRunOptions(onnx->run_options);
    if (onnx->session)
        onnx->api->ReleaseSession(onnx->session);
    buf_done(&onnx->strings);
    buf_done(&onnx->offsets);
    free(onnx);
}

static int onnx_prepare(struct onnx *onnx, struct error *err)
{
    static const char what[] = "ONNX Runtime";
    const OrtApi *api = onnx->api;
    int result = onnx_check(api, api->CreateRunOptions(&onnx->run_options), ERROR_INTERNAL, what, err);
    if (result == 0)
        result = onnx_check(api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &onnx->memory),
                            ERROR_INTERNAL, what, err);
    if (result == 0)
        result = onnx_check(api, api->GetAllocatorWithDefaultOptions(&onnx->allocator), ERROR_INTERNAL, what, err);
    return result;
}

/* Our own look at the file. A folder: *model becomes the file in it that is the model, *ret_in is the folder. */
static int model_scan(struct str *model, struct bundle *folder, struct bundle **ret_in, struct error *err)
{
    int result = 0;
    if (bundle_is(*model)) {
        result = bundle_open(*model, folder, err);
        if (result == 0)
            result = onnx_scan_folder(folder, model, err);
        *ret_in = folder;
    }
    return result < 0 ? result : onnx_scan(*model, *ret_in, err);
}

static int onnx_preload(const struct engine_options *options, struct error *err)
{
    const OrtApi *api;
    const OrtEnv *env;
    return onnx_library_open(options, &api, &env, err);
}

static int onnx_open(const struct engine_options *options, struct engine **ret_engine, struct error *err)
{
    struct str model = {options->model, options->model_bytes};
    struct bundle folder, *in = NULL;
    const OrtEnv *env;
    if (options->threads == 0 || options->threads > THREADS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "an engine takes 1 to %u threads, not %u", THREADS_MAX,
                         options->threads);
    struct onnx *onnx = calloc(1, sizeof *onnx);
    if (!onnx)
        return error_set_default(err, ERROR_NO_MEMORY);
    onnx->engine.ops = &engine_onnx;
    buf_init(&onnx->strings, ONNX_STRINGS_BYTES_MAX + 1);
    buf_init(&onnx->offsets, (ONNX_STRINGS_BYTES_MAX / sizeof(uint32_t) + 1) * sizeof(size_t));
    int result = engine_pending_init(&onnx->pending, onnx_stop, onnx);
    if (result < 0) {
        free(onnx);
        return error_set_default(err, result);
    }
    result = onnx_library_open(options, &onnx->api, &env, err);
    if (result == 0 && options->confine)
        result = options->confine(options->confine_ctx, err);
    if (result == 0)
        result = model_scan(&model, &folder, &in, err);
    if (result == 0)
        result = onnx_session_open(onnx->api, env, model, in, options->threads, &onnx->session, err);
    if (result == 0)
        result = onnx_describe_session(onnx->api, onnx->session, model, &onnx->signature, err);
    if (result == 0)
        result = onnx_prepare(onnx, err);
    if (result < 0) {
        onnx_close(&onnx->engine);
        return result;
    }
    *ret_engine = &onnx->engine;
    return 0;
}

static int onnx_describe(struct engine *e, struct tensor_signature *ret_signature, struct error *err)
{
    (void)err; /* cannot fail */
    *ret_signature = onnx_of(e)->signature;
    return 0;
}

static int onnx_submit(struct engine *e, const struct engine_batch *batch, struct error *err)
{
    return engine_pending_submit(&onnx_of(e)->pending, &onnx_of(e)->signature, batch, err);
}

struct run { /* the values of one step; the arrays' tails stay NULL */
    const char *input_names[LIMIT_TENSORS], *output_names[LIMIT_TENSORS];
    OrtValue *inputs[LIMIT_TENSORS], *outputs[LIMIT_TENSORS];
    uint32_t output_indexes[LIMIT_TENSORS];
    uint32_t n_inputs, n_outputs;
};

static int run_execute(struct onnx *onnx, struct run *run, const struct engine_sink *sink, struct error *err)
{
    const struct engine_batch *batch = onnx->pending.batch;
    int result = 0;
    for (; run->n_inputs < batch->n_inputs && result == 0; run->n_inputs++) {
        run->input_names[run->n_inputs] = onnx->signature.inputs[run->n_inputs].name;
        result = onnx_value_from_view(onnx, &batch->inputs[run->n_inputs], &run->inputs[run->n_inputs], err);
    }
    if (result < 0)
        return result;
    for (uint32_t i = 0; i < onnx->signature.n_outputs; i++) {
        if (!(batch->outputs_wanted & (UINT64_C(1) << i)))
            continue;
        run->output_names[run->n_outputs] = onnx->signature.outputs[i].name;
        run->output_indexes[run->n_outputs++] = i;
    }
    if (run->n_outputs == 0)
        return 0; /* nothing is wanted: nothing to compute */
    const OrtApi *api = onnx->api;
    result =
        onnx_check(api,
                   api->Run(onnx->session, onnx->run_options, run->input_names, (const OrtValue *const *)run->inputs,
                            run->n_inputs, run->output_names, run->n_outputs, run->outputs),
                   ERROR_ENGINE, "the model failed on this input", err);
    for (uint32_t i = 0; i < run->n_outputs && result == 0; i++)
        result = onnx_value_give(onnx, run->output_indexes[i], run->outputs[i], sink, err);
    return result;
}

static int onnx_step(struct engine *e, uint64_t budget_ns, const struct engine_sink *sink, struct error *err)
{
    struct onnx *onnx = onnx_of(e);
    struct run run;
    (void)budget_ns; /* a tensor engine finishes in one step */
    memset(run.inputs, 0, sizeof run.inputs);
    memset(run.outputs, 0, sizeof run.outputs);
    run.n_inputs = run.n_outputs = 0;
    int result = engine_pending_start(&onnx->pending, err);
    if (result < 0)
        return result;
    result = run_execute(onnx, &run, sink, err);
    for (uint32_t i = 0; i < run.n_inputs; i++)
        onnx->api->ReleaseValue(run.inputs[i]); /* takes NULL */
    for (uint32_t i = 0; i < run.n_outputs; i++)
        onnx->api->ReleaseValue(run.outputs[i]);
    result = engine_pending_finish(&onnx->pending, result, err);
    /* Only now: from here on cancel finds nothing that runs, so no wish of its is lost. */
    OrtStatus *status = onnx->api->RunOptionsUnsetTerminate(onnx->run_options);
    if (status)
        onnx->api->ReleaseStatus(status); /* the next step then fails as if cancelled, and says so */
    return result;
}

static void onnx_cancel(struct engine *e, uint64_t request_id)
{
    engine_pending_cancel(&onnx_of(e)->pending, request_id);
}

static void onnx_stats(struct engine *e, struct engine_stats *ret_stats)
{
    *ret_stats = onnx_of(e)->pending.stats;
}

const struct engine_ops engine_onnx = {
    .name = "onnx",
    .caps = ENGINE_TENSOR | ENGINE_CANCEL | ENGINE_SHARED,
    .library = "libonnxruntime.so.1",
    .preload = onnx_preload,
    .open = onnx_open,
    .describe = onnx_describe,
    .submit = onnx_submit,
    .step = onnx_step,
    .cancel = onnx_cancel,
    .stats = onnx_stats,
    .close = onnx_close,
};
