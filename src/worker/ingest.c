/* The ingest role: what a worker does to load a model, once, with the answer on the bus instead of a channel. With an
 * adapter the question is whether that fits the model. */
#include "base/clock.h"
#include "base/log.h"
#include "worker/worker.h"
#include "worker/worker_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>

#define TRIAL_NS (UINT64_C(60) * 1000 * NS_PER_MS) /* the supervisor's deadline is shorter */

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

static int on_trial_event(void *ctx, uint64_t request_id, const struct generation_event *event)
{
    (void)request_id;
    struct error *err = ctx;
    if (event->kind == GENERATION_EVENT_END && event->finish == GENERATION_ERROR)
        (void)error_set(err, ERROR_REFUSED, "The model cannot be stepped with the adapter: %.*s", (int)event->text.size,
                        event->text.data);
    return 0;
}

/* A token with it: what the library would fail on in a worker that serves, it fails on here. */
static int adapter_try(struct worker *w, uint32_t kind, struct error *err)
{
    static const int32_t token = 0;
    bool answers = w->signature->token.flags & TENSOR_TOKEN_ANSWER;
    struct engine_turn turn = {.budget_ns = TRIAL_NS, .kind = kind};
    struct engine_token_sink sink = {.ctx = err, .event = on_trial_event};
    struct generation g;
    generation_init(&g, answers ? GENERATION_COMPLETION : GENERATION_EMBEDDING);
    g.adapter = 1;
    g.tokens = &token;
    g.n_tokens = 1;
    g.max_tokens = 1;
    int r = w->ops->token_submit(w->engine, 1, 1, &g, err);
    if (r >= 0)
        r = w->ops->token_step(w->engine, &turn, &sink, err);
    return r < 0 ? r : err->code;
}

static int adapter_check(struct worker *w, int fd, struct error *err)
{
    const void *data = NULL;
    uint32_t kind = 0;
    uint64_t bytes = w->config.adapter_bytes;
    if (!w->ops->adapter_load)
        return error_set(err, ERROR_UNSUPPORTED, "The engine %s takes no adapters.", w->ops->name);
    int r = bus_memfd_map(fd, bytes, &data);
    if (r < 0)
        return r;
    r = w->ops->adapter_load(w->engine, 1, fd, (struct str){data, bytes}, &kind, err);
    (void)munmap((void *)(uintptr_t)data, bytes);
    return r < 0 ? r : adapter_try(w, kind, err);
}

/* An engine may well fail because of what it was refused. */
static void blocked_explain(struct worker *w, struct error *err)
{
    char name[BLOCKED_NAME_BYTES];
    if (blocked_take(&w->blocked))
        (void)error_wrap(err, err->code, "Refused the system call %s", blocked_name(w->blocked.calls[0].number, name));
}

static int describe(struct worker *w, int adapter_fd)
{
    struct bus_describe_failed failed = {0};
    int r = worker_model_open(w, &failed.error);
    if (r >= 0 && w->config.adapter_bytes > 0)
        r = adapter_check(w, adapter_fd, &failed.error);
    if (r >= 0)
        return signature_send(w);
    if (failed.error.code == 0)
        (void)error_set_default(&failed.error, r);
    blocked_explain(w, &failed.error);
    return bus_send(w->bus_fd, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBE_FAILED, &failed, NULL, 0);
}

int ingest_run(int bus_fd)
{
    struct worker w = {.bus_fd = bus_fd, .model_fd = -1, .library_fd = -1, .filter = &filter_ingest_run};
    struct bus_message m;
    _close_ int adapter_fd = -1;
    int r = worker_greet(&w, BUS_INGEST, &m);
    if (r >= 0) {
        adapter_fd = take_fd(&m.fds[2]);
        r = worker_configure(&w, BUS_INGEST_CONFIG, &m);
    }
    if (r >= 0)
        r = describe(&w, adapter_fd);
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
