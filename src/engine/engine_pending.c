#include "engine/engine_pending.h"

#include "base/clock.h"

int engine_pending_init(struct engine_pending *p, void (*stop)(void *ctx), void *ctx)
{
    *p = (struct engine_pending){._stop = stop, ._ctx = ctx};
    return pthread_mutex_init(&p->_lock, NULL) == 0 ? 0 : -ERROR_NO_MEMORY;
}

void engine_pending_done(struct engine_pending *p)
{
    (void)pthread_mutex_destroy(&p->_lock); /* fails only when locked, and nobody may be inside any more */
}

/* The gateway checked all this before it gathered the batch. It costs nothing against a step, and keeps a mistake there
 * from becoming a read past the slot here. */
static int input_check(const struct tensor_spec *spec, const struct tensor_view *input, bool batchable, uint32_t rows,
                       struct error *err)
{
    char expected[128], got[128];
    if (input->dtype != spec->dtype || !tensor_shape_matches(&input->shape, &spec->shape))
        return error_set(err, ERROR_INVALID_TENSOR, "input %s: expected %s%s, got %s%s", spec->name,
                         tensor_dtype_name(spec->dtype), tensor_shape_text(&spec->shape, expected, sizeof expected),
                         tensor_dtype_name(input->dtype), tensor_shape_text(&input->shape, got, sizeof got));
    if (batchable && input->shape.dims[0] != (int64_t)rows)
        return error_set(err, ERROR_INVALID_TENSOR, "input %s: shape %s does not start with the batch's %u rows",
                         spec->name, tensor_shape_text(&input->shape, got, sizeof got), rows);
    int result = tensor_data_check(input->dtype, &input->shape, input->data, input->size, err);
    return result < 0 ? error_wrap(err, result, "input %s", spec->name) : 0;
}

int engine_pending_submit(struct engine_pending *p, const struct tensor_signature *signature,
                          const struct engine_batch *batch, struct error *err)
{
    if (p->batch)
        return error_set(err, ERROR_AGAIN, "the engine holds a batch already");
    if (batch->n_items == 0 || batch->n_items > LIMIT_BATCH_ITEMS)
        return error_set(err, ERROR_INVALID_TENSOR, "a batch has 1 to %u requests, not %u", LIMIT_BATCH_ITEMS,
                         batch->n_items);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < batch->n_items; i++)
        rows += batch->items[i].rows;
    if (rows != batch->rows)
        return error_set(err, ERROR_INVALID_TENSOR, "the batch has %u rows, its requests %llu", batch->rows,
                         (unsigned long long)rows);
    if (!signature->batchable && batch->n_items != 1)
        return error_set(err, ERROR_INVALID_TENSOR, "the model takes one request at a time, not %u", batch->n_items);
    if (batch->n_inputs != signature->n_inputs)
        return error_set(err, ERROR_INVALID_TENSOR, "the model has %u inputs, the batch %u", signature->n_inputs,
                         batch->n_inputs);
    for (uint32_t i = 0; i < batch->n_inputs; i++) {
        int result = input_check(&signature->inputs[i], &batch->inputs[i], signature->batchable, batch->rows, err);
        if (result < 0)
            return result;
    }
    pthread_mutex_lock(&p->_lock);
    p->batch = batch;
    memset(p->_cancelled, 0, sizeof p->_cancelled);
    p->_n_cancelled = 0;
    p->_running = false;
    pthread_mutex_unlock(&p->_lock);
    return 0;
}

static void forget(struct engine_pending *p) /* with the lock held */
{
    p->batch = NULL;
    p->_running = false;
}

static bool all_cancelled(const struct engine_pending *p) /* with the lock held */
{
    return p->batch && p->_n_cancelled == p->batch->n_items;
}

int engine_pending_start(struct engine_pending *p, struct error *err)
{
    if (!p->batch)
        return error_set(err, ERROR_INTERNAL, "the engine was asked to work without a batch");
    pthread_mutex_lock(&p->_lock);
    bool cancelled = all_cancelled(p);
    if (cancelled)
        forget(p);
    else
        p->_running = true;
    pthread_mutex_unlock(&p->_lock);
    if (cancelled)
        return error_set_default(err, ERROR_CANCELLED);
    p->_started_ns = clock_monotonic_ns();
    return 0;
}

int engine_pending_finish(struct engine_pending *p, int result, struct error *err)
{
    uint64_t taken_ns = clock_monotonic_ns() - p->_started_ns;
    p->stats.steps++;
    p->stats.items += p->batch->n_items;
    p->stats.step_ns_last = taken_ns;
    p->stats.step_ns_total += taken_ns;
    pthread_mutex_lock(&p->_lock);
    bool cancelled = all_cancelled(p);
    forget(p);
    pthread_mutex_unlock(&p->_lock);
    if (result == 0)
        return 1;
    return cancelled ? error_set_default(err, ERROR_CANCELLED) : result;
}

void engine_pending_cancel(struct engine_pending *p, uint64_t request_id)
{
    pthread_mutex_lock(&p->_lock);
    uint32_t n = p->batch ? p->batch->n_items : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t *word = &p->_cancelled[i / 64], bit = UINT64_C(1) << (i % 64);
        if (p->batch->items[i].request_id != request_id || (*word & bit))
            continue;
        *word |= bit;
        p->_n_cancelled++;
        if (p->_running && p->_stop && all_cancelled(p))
            p->_stop(p->_ctx);
    }
    pthread_mutex_unlock(&p->_lock);
}

bool engine_pending_cancelled(struct engine_pending *p)
{
    pthread_mutex_lock(&p->_lock);
    bool cancelled = all_cancelled(p);
    pthread_mutex_unlock(&p->_lock);
    return cancelled;
}
