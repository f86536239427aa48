/* The thread that lets a lease be given up while the engine computes it. It sleeps on a word of the inbox that the
 * gateway writes for this only, so that a lease which nobody gives up costs no wake-up, only an uncontended lock. */
#include "worker/worker_internal.h"

#include "base/log.h"

#include <stdatomic.h>
#include <time.h>

#define STACK_BYTES (128 * KIB)

/* The lease that runs, if it is the one that was given up. With the lock held. */
static void lease_stop(struct worker_watch *watch)
{
    struct worker_lease *l = watch->running;
    if (!l || channel_lease_cancelled(watch->channel) != l->frame.lease_id)
        return;
    for (uint32_t i = 0; i < l->n_items; i++)
        l->worker->ops->cancel(l->worker->engine, l->items[i].request_id);
}

static void *watch_main(void *ctx)
{
    struct worker_watch *watch = ctx;
    while (!atomic_load(&watch->ending)) {
        uint32_t seen = channel_cancels(watch->channel);
        (void)pthread_mutex_lock(&watch->lock);
        lease_stop(watch);
        (void)pthread_mutex_unlock(&watch->lock);
        channel_cancels_wait(watch->channel, seen);
    }
    atomic_store(&watch->ended, true);
    return NULL;
}

void worker_watch_start(struct worker *w)
{
    struct worker_watch *watch = &w->watch;
    pthread_attr_t attr;
    if (watch->channel || !(w->ops->caps & ENGINE_CANCEL) || !channel_cancels_told(w->channel))
        return;
    atomic_store(&watch->ending, false);
    atomic_store(&watch->ended, false);
    watch->running = NULL;
    watch->channel = w->channel;
    int r = pthread_mutex_init(&watch->lock, NULL) == 0 && pthread_attr_init(&attr) == 0 ? 0 : -ERROR_NO_MEMORY;
    if (r == 0) {
        (void)pthread_attr_setstacksize(&attr, STACK_BYTES); /* else it has the usual size */
        r = pthread_create(&watch->thread, &attr, watch_main, watch) == 0 ? 0 : -ERROR_NO_MEMORY;
        (void)pthread_attr_destroy(&attr);
    }
    if (r < 0) {
        log_warn("worker_watch", "no thread to cancel running steps with; what is given up runs to its end");
        watch->channel = NULL;
    }
}

void worker_watch_stop(struct worker *w)
{
    struct worker_watch *watch = &w->watch;
    const struct timespec pause = {.tv_nsec = 1000000};
    if (!watch->channel)
        return;
    atomic_store(&watch->ending, true);
    while (!atomic_load(&watch->ended)) { /* it may just be on its way to sleep */
        channel_cancels_wake(watch->channel);
        (void)nanosleep(&pause, NULL);
    }
    (void)pthread_join(watch->thread, NULL);
    (void)pthread_mutex_destroy(&watch->lock);
    watch->channel = NULL;
}

void worker_watch_begin(struct worker_lease *l)
{
    struct worker_watch *watch = &l->worker->watch;
    if (!watch->channel)
        return;
    /* One section: whoever of us two has the lock second, with the word written before it, sees word and lease. */
    (void)pthread_mutex_lock(&watch->lock);
    watch->running = l;
    lease_stop(watch);
    (void)pthread_mutex_unlock(&watch->lock);
}

void worker_watch_end(struct worker_lease *l)
{
    struct worker_watch *watch = &l->worker->watch;
    if (!watch->channel)
        return;
    (void)pthread_mutex_lock(&watch->lock);
    watch->running = NULL;
    (void)pthread_mutex_unlock(&watch->lock);
}
