/* The ingest role: what a worker does to load a model, once, with the answer on the bus instead of a channel. */
#include "base/log.h"
#include "worker/worker.h"
#include "worker/worker_internal.h"

#include <errno.h>
#include <poll.h>

static int signature_send(struct worker *w)
{
    static char encoded[LIMIT_SIGNATURE_BYTES];
    struct bus_described body;
    size_t size = 0;
    _close_ int fd = -1;
    int r = tensor_signature_encode(w->signature, encoded, sizeof encoded, &size);
    if (r >= 0)
        r = bus_memfd("bulkhead-signature", encoded, size, &fd);
    body.bytes = size;
    return r < 0 ? r : bus_send(w->bus_fd, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBED, &body, &fd, 1);
}

static int describe(struct worker *w)
{
    struct bus_describe_failed failed = {0};
    int r = worker_model_open(w, &failed.error);
    if (r >= 0)
        return signature_send(w);
    if (failed.error.code == 0)
        (void)error_set_default(&failed.error, r);
    return bus_send(w->bus_fd, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBE_FAILED, &failed, NULL, 0);
}

int ingest_run(int bus_fd)
{
    struct worker w = {.bus_fd = bus_fd, .model_fd = -1, .library_fd = -1, .filter = &filter_ingest_run};
    struct bus_message m;
    int r = worker_greet(&w, BUS_INGEST, &m);
    if (r >= 0)
        r = worker_configure(&w, BUS_INGEST_CONFIG, &m);
    if (r >= 0)
        r = describe(&w);
    if (r < 0) {
        log_error("ingest", "the model cannot be described: %s", error_info(r)->name);
        return 1;
    }
    /* An end of our own could be seen before the answer is; the supervisor ends this process when it has it. */
    struct pollfd end = {.fd = bus_fd, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    return 0;
}
