/* The thread that lets a lease be given up while the engine computes it. It sleeps on a word of the inbox that the
 * gateway writes for this only, so that a lease which nobody gives up costs no wake-up, only an uncontended lock.
 *
 * Over a stream, where there is no such word, it is this thread that reads while the engine computes, from the start of
 * the step to its first output; who holds the lock with `running` set has the channel. That costs a wake-up per lease,
 * little beside what crossing a machine's border costs. */
#include "worker/worker_internal.h"

#include "base/log.h"

#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#define STACK_BYTES (128 * KIB)
/* How late it may notice that it is to end. */
#define READ_MS 100

/* The lease that runs, if it is the one that was given up. With the lock held. */
static void lease_stop(struct worker_watch *watch)
{
    struct worker_lease *l = watch->running;
    if (!l || channel_lease_cancelled(watch->channel) != l->frame.lease_id)
        return;
    for (uint32_t i = 0; i < l->n_items; i++)
        l->worker->ops->cancel(l->worker->engine, l->items[i].request_id);
}

static void watch_stream(struct worker_watch *watch)
{
    struct pollfd bell = {.fd = watch->channel->bell};
    (void)pthread_mutex_lock(&watch->lock);
    while (!atomic_load(&watch->ending)) {
        if (!watch->running) {
            (void)pthread_cond_wait(&watch->begun, &watch->lock);
            continue;
        }
        bell.events = channel_cancels_take(watch->channel);
        lease_stop(watch);
        (void)pthread_mutex_unlock(&watch->lock);
        (void)poll(&bell, bell.events ? 1 : 0, READ_MS); /* early or not, it looks */
        (void)pthread_mutex_lock(&watch->lock);
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

static void *watch_main(void *ctx)
{
    struct worker_watch *watch = ctx;
    if (channel_cancels_read(watch->channel))
        watch_stream(watch);
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
    if (watch->channel || !(w->ops->caps & ENGINE_CANCEL))
        return;
    atomic_store(&watch->ending, false);
    atomic_store(&watch->ended, false);
    watch->running = NULL;
    watch->channel = w->channel;
    int r = pthread_mutex_init(&watch->lock, NULL) == 0 && pthread_cond_init(&watch->begun, NULL) == 0 &&
                    pthread_attr_init(&attr) == 0
                ? 0
                : -ERROR_NO_MEMORY;
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
        if (channel_cancels_read(watch->channel))
            (void)pthread_cond_signal(&watch->begun);
        else
            channel_cancels_wake(watch->channel);
        (void)nanosleep(&pause, NULL);
    }
    (void)pthread_join(watch->thread, NULL);
    (void)pthread_cond_destroy(&watch->begun);
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
    if (channel_cancels_read(watch->channel))
        (void)pthread_cond_signal(&watch->begun);
    (void)pthread_mutex_unlock(&watch->lock);
}

void worker_watch_output(struct worker_lease *l)
{
    const struct worker_watch *watch = &l->worker->watch;
    if (watch->channel && channel_cancels_read(watch->channel))
        worker_watch_end(l);
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
