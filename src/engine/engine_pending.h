/* The batch an engine holds between submit and the end of its step: order, checks, cancelling, statistics. Shared by
 * the tensor engines, so that all of them behave alike.
 *
 * Worker. Everything runs on the engine's thread but engine_pending_cancel, which may come from any thread. A batch is
 * cancelled as a whole, and only once every request in it was: a request that shares its batch with others runs on, and
 * its caller drops the answer. */
#ifndef BULKHEAD_ENGINE_ENGINE_PENDING_H
#define BULKHEAD_ENGINE_ENGINE_PENDING_H

#include "engine/engine.h"

#include <pthread.h>

#define ENGINE_PENDING_WORDS ((LIMIT_BATCH_ITEMS + 63u) / 64u)

struct engine_pending {
    const struct engine_batch *batch; /* read-only; NULL: nothing submitted */
    struct engine_stats stats;        /* read-only */
    pthread_mutex_t _lock;            /* guards what follows, and batch against cancel */
    uint64_t _cancelled[ENGINE_PENDING_WORDS];
    uint32_t _n_cancelled;
    void (*_stop)(void *ctx); /* called once with the lock held when the last request of the batch was cancelled while
                                 it runs; must not block */
    void *_ctx;
    uint64_t _started_ns;
    bool _running;
};

/* stop(ctx) makes a running step return early; NULL: it asks engine_pending_cancelled itself. */
must_check int engine_pending_init(struct engine_pending *p, void (*stop)(void *ctx), void *ctx);
/* Only after a successful init. */
void engine_pending_done(struct engine_pending *p);

/* Takes the batch: -ERROR_AGAIN when there is one, -ERROR_INVALID_TENSOR when it does not fit the signature. */
must_check int engine_pending_submit(struct engine_pending *p, const struct tensor_signature *signature,
                                     const struct engine_batch *batch, struct error *err);
/* Begins the step: -ERROR_INTERNAL when nothing was submitted, -ERROR_CANCELLED (batch forgotten) when nobody wants it
 * any more. After success engine_pending_finish must follow. */
must_check int engine_pending_start(struct engine_pending *p, struct error *err);
/* Ends the step and forgets the batch. Returns what step shall return: 1 for result 0, -ERROR_CANCELLED in place of a
 * failure that came from cancelling, else `result`. */
must_check int engine_pending_finish(struct engine_pending *p, int result, struct error *err);

/* Any thread. Ignores ids that are not in the batch. */
void engine_pending_cancel(struct engine_pending *p, uint64_t request_id);
/* Any thread: every request of the batch was cancelled. */
bool engine_pending_cancelled(struct engine_pending *p);

#endif
