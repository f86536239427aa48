/* A shared worker: models of several tenants in one process, each served by a thread of its own that has a
 * conversation, a channel and an engine object of its own. To the outside each is a worker like any other.
 *
 * The filter stands before the first of them is looked at, and each thread inherits it. */
#include "base/log.h"
#include "worker/worker_internal.h"

#include <assert.h>
#include <pthread.h>

static void *member_main(void *ctx)
{
    struct worker *w = ctx;
    struct bus_message m;
    int r = worker_greet(w, BUS_WORKER, &m);
    if (r >= 0)
        r = worker_configure(w, BUS_WORKER_CONFIG, &m);
    if (r >= 0)
        r = worker_serve(w);
    if (r < 0 && r != -ERROR_GONE)
        log_error("worker_member", "a model of a shared worker ends: %s", error_info(r)->name);
    fd_close(&w->bus_fd); /* last: the supervisor takes it for the end of all that was here */
    free(w);
    return NULL;
}

static int member_start(int *bus_fd)
{
    pthread_t thread;
    pthread_attr_t attributes;
    struct worker *w = calloc(1, sizeof *w);
    if (!w || pthread_attr_init(&attributes) != 0) {
        free(w);
        return -ERROR_NO_MEMORY;
    }
    w->bus_fd = *bus_fd;
    w->library_fd = -1;
    int failed = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (!failed)
        failed = pthread_create(&thread, &attributes, member_main, w);
    (void)pthread_attr_destroy(&attributes); /* always succeeds */
    if (failed) {
        free(w);
        return -ERROR_NO_MEMORY;
    }
    *bus_fd = -1;
    return 0;
}

void worker_host(struct worker *w, struct bus_message *m)
{
    int r = 1;
    assert(!w->filter); /* installed as a blank one: whoever is hosted is behind it from its first instruction on */
    while (r > 0) {
        r = m->type == BUS_WORKER_HOST ? member_start(&m->fds[0]) : -ERROR_PEER;
        bus_message_done(m);
        if (r < 0) /* the supervisor sees that nobody has taken the conversation */
            log_error("worker_host", "a model cannot be taken in: %s", error_info(r)->name);
        r = bus_wait(w->bus_fd, BUS_WORKER, BUS_SUPERVISOR, -1, m);
    }
}
