#include "worker/worker.h"

#include "base/filter.h"
#include "base/log.h"
#include "isolate/isolate.h"
#include "worker/worker_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_TIMEOUT_MS 10000

int worker_wait(struct worker *w)
{
    channel_ring(w->channel);
    if (w->has_next)
        return 0;
    if (!channel_park(w->channel))
        return 1;
    short wanted = channel_wants(w->channel);
    struct pollfd waits[2] = {{.fd = wanted ? w->channel->bell : -1, .events = wanted},
                              {.fd = w->bus_fd, .events = POLLIN}};
    int r;
    do {
        r = poll(waits, 2, w->rest_ms > 0 ? (int)w->rest_ms : -1);
        if (r == 0)
            w->rest_ms = w->engine && w->ops->rest(w->engine) ? 1 : 0;
    } while (r == 0 || (r < 0 && errno == EINTR));
    channel_awake(w->channel);
    if (r < 0 || (waits[1].revents & (POLLERR | POLLHUP)))
        return -ERROR_GONE;
    if (waits[1].revents & POLLIN)
        r = worker_bus_look(w);
    return r < 0 ? r : r > 0;
}

int worker_push(struct worker *w, const struct channel_frame *frame)
{
    for (;;) {
        int r = channel_push(w->channel, frame);
        if (r != -ERROR_AGAIN)
            return r;
        /* The ring is full: the host is slow or gone. It takes frames without ringing, so look again soon. */
        channel_ring(w->channel);
        struct pollfd bus = {.fd = w->bus_fd, .events = POLLIN};
        if (w->has_next || (poll(&bus, 1, 1) > 0 && worker_bus_look(w) <= 0))
            return -ERROR_GONE; /* a new channel or the end: this lease is lost either way */
    }
}

int worker_blocked_tell(struct worker *w)
{
    if (blocked_take(&w->blocked))
        w->blocked_told = false;
    int r = 0;
    for (uint32_t i = 0; r >= 0 && i < w->blocked.n && !w->blocked_told; i++) {
        const struct blocked_call *call = &w->blocked.calls[i];
        struct channel_frame frame = {.type = CHANNEL_BLOCKED, .index = call->number, .a = call->count};
        r = worker_push(w, &frame);
    }
    w->blocked_told = r >= 0;
    return r;
}

static int open_frame(struct worker *w)
{
    struct channel_frame frame = {.type = CHANNEL_OPEN, .a = CHANNEL_PROTOCOL};
    int r = worker_push(w, &frame);
    channel_ring(w->channel);
    return r;
}

static bool channel_message(const struct bus_message *m)
{
    return m->type == BUS_CHANNEL_GUEST || m->type == BUS_CHANNEL_STREAM_GUEST;
}

static int take_channel(struct worker *w, struct bus_message *m)
{
    /* Both kinds have the same body. */
    const struct bus_channel *b = &m->body.CHANNEL_GUEST;
    struct channel_geometry geometry = {b->n_frames, b->n_slots, b->inbox_slot_bytes, b->outbox_slot_bytes};
    struct error err = {0};
    struct channel *channel;
    int r;
    if (m->type == BUS_CHANNEL_STREAM_GUEST) {
        r = channel_stream_open(false, &geometry, b->epoch, b->nonce, &m->fds[0], &channel, &err);
    } else {
        struct channel_fds fds = {m->fds[0], m->fds[1], m->fds[2], m->fds[3]};
        r = channel_shm_open(false, &geometry, b->epoch, &fds, &channel, &err);
        for (size_t i = 0; r >= 0 && i < 4; i++)
            m->fds[i] = -1;
    }
    if (r < 0) {
        log_error("channel_failed", "%s", error_text(&err, r));
        return r;
    }
    worker_watch_stop(w);
    channel_close(w->channel);
    w->channel = channel;
    w->blocked_told = false;
    worker_tokens_reset(w); /* their gateway is gone */
    worker_adapters_drop(w, 0);
    return open_frame(w);
}

/* What else than adapters came over the bus, if anything has. */
static int bus_frame(struct worker *w)
{
    int r = w->has_next ? 0 : worker_bus_look(w);
    if (r != 0)
        return r < 0 ? r : 0;
    w->has_next = false;
    r = channel_message(&w->next) ? take_channel(w, &w->next) : -ERROR_PEER;
    bus_message_done(&w->next);
    return r;
}

/* Answers LOAD: the signature, or the reason why not. */
static int load_answer(struct worker *w, int status, const struct error *err)
{
    struct channel_frame frame = {
        .type = CHANNEL_LOAD, .status = status, .flags = w->watch.channel ? CHANNEL_CANCELLABLE : 0};
    void *slot = channel_slot_own(w->channel, 0);
    size_t size = 0;
    if (status == 0) {
        int r = tensor_signature_encode(w->signature, slot, TENSOR_SIGNATURE_BYTES_MAX, &size);
        if (r < 0)
            return r;
    } else {
        const char *text = error_text(err, status);
        size = strlen(text);
        memcpy(slot, text, size);
    }
    frame.length = size;
    int r = worker_blocked_tell(w);
    return r < 0 ? r : worker_push(w, &frame);
}

static int confine(void *ctx, struct error *err)
{
    struct worker *w = ctx;
    if (!w->filter) /* done: a blank worker gets its model later, one that was refused may be followed by another */
        return 0;
    tzset(); /* libc opens the time zone with the first date, which a log line has */
    int r = filter_install(w->filter, err);
    if (r >= 0)
        w->filter = NULL;
    return r;
}

int worker_model_open(struct worker *w, struct error *err)
{
    struct engine_options options = {
        .model = w->model,
        .model_bytes = w->config.model_bytes,
        .model_fd = w->model_fd,
        .memory_bytes = w->config.memory_bytes,
        .library_fd = w->library_fd,
        .library_path = w->config.library == BUS_LIBRARY_ROOT ? ISOLATE_LIBRARY_PATH : NULL,
        .threads = w->config.threads,
        .repack = w->config.repack,
        .confine = confine,
        .confine_ctx = w,
    };
    w->signature = calloc(1, sizeof *w->signature);
    if (!w->signature)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = w->ops->open(&options, &w->engine, err);
    if (r < 0)
        return r;
    return w->ops->describe(w->engine, w->signature, err);
}

static int load(struct worker *w)
{
    struct error err = {0};
    int r = w->engine ? 0 : worker_model_open(w, &err); /* a new gateway asks again: the model stays */
    if (r >= 0)
        worker_watch_start(w);
    int sent = load_answer(w, r, &err);
    channel_ring(w->channel);
    return sent < 0 ? sent : 0;
}

static int host_frame(struct worker *w, const struct channel_frame *frame)
{
    switch ((enum channel_frame_type)frame->type) {
    case CHANNEL_LOAD:
        return load(w);
    case CHANNEL_UNLOAD:
        return 1;
    case CHANNEL_LEASE:
        if (!w->engine)
            return -ERROR_PEER;
        return w->ops->token_step ? worker_tokens_lease(w, frame) : worker_lease_run(w, frame);
    case CHANNEL_ITEM:
    case CHANNEL_PARK:
    case CHANNEL_RESUME:
    case CHANNEL_ADAPTER_DROP:
        return w->engine && w->ops->token_step ? worker_tokens_frame(w, frame) : -ERROR_PEER;
    case CHANNEL_CANCEL: /* for tensors: of a lease that is over already */
    case CHANNEL_CREDIT:
        return w->engine && w->ops->token_step ? worker_tokens_frame(w, frame) : 0;
    case CHANNEL_NONE:
    case CHANNEL_OPEN:
    case CHANNEL_PART:
    case CHANNEL_DONE:
    case CHANNEL_STATS:
    case CHANNEL_ADAPTER:
    case CHANNEL_BLOCKED:
    case CHANNEL_TYPE_COUNT:
        break;
    }
    return -ERROR_PEER;
}

/* 1 = told to end, negative = the supervisor is gone. */
static int channel_work(struct worker *w)
{
    struct channel_frame frame;
    struct error err = {0};
    int r = worker_adapters_load(w);
    if (r >= 0)
        r = channel_pull(w->channel, &frame, &err);
    if (r == 0) {
        r = worker_wait(w);
        return r == 0 ? (bus_frame(w) < 0 ? -ERROR_GONE : 0) : (r < 0 ? r : 0);
    }
    r = r < 0 ? r : host_frame(w, &frame);
    if (r < 0 && r != -ERROR_GONE) {
        log_error("channel_broken", "%s", error_text(&err, r));
        return r;
    }
    if (r == -ERROR_GONE) /* the lease was lost with its channel; a new one may come */
        return bus_frame(w) < 0 ? -ERROR_GONE : 0;
    return r;
}

/* Started ahead: everything that can be done without a model, up to the last filter. */
static int blank_prepare(struct worker *w, const struct bus_worker_blank *blank)
{
    struct error err = {0};
    struct bus_empty nothing = {0};
    struct engine_options options = {.library_fd = -1,
                                     .library_path = blank->library == BUS_LIBRARY_ROOT ? ISOLATE_LIBRARY_PATH : NULL};
    const struct engine_ops *ops = engine_find(str_from(blank->engine));
    int r = !ops || blank->library == BUS_LIBRARY_FD ? -ERROR_UNSUPPORTED : 0;
    if (r >= 0 && ops->preload)
        r = ops->preload(&options, &err);
    if (blank->hosts && w->filter)
        w->filter = &filter_worker_shared;
    if (r >= 0) /* before the filter, under which nothing is sent; what comes next is read behind it */
        r = bus_send(w->bus_fd, BUS_WORKER, BUS_SUPERVISOR, BUS_BLANK_READY, &nothing, NULL, 0);
    if (r >= 0)
        r = confine(w, &err);
    if (r < 0)
        log_error("worker_blank", "%s", error_text(&err, r));
    return r;
}

int worker_greet(struct worker *w, enum bus_role self, struct bus_message *ret_message)
{
    struct bus_message m;
    int r = bus_wait(w->bus_fd, self, BUS_SUPERVISOR, CONFIG_TIMEOUT_MS, &m);
    if (r >= 0 && m.type == BUS_WORKER_BLANK) { /* the matrix lets only a worker receive it */
        r = blank_prepare(w, &m.body.WORKER_BLANK);
        bus_message_done(&m);
        if (r >= 0)
            r = bus_wait(w->bus_fd, self, BUS_SUPERVISOR, -1, &m);
    }
    if (r < 0)
        return r;
    *ret_message = m;
    return 0;
}

int worker_configure(struct worker *w, enum bus_type type, struct bus_message *m)
{
    int r = m->type == type ? 0 : -ERROR_PEER;
    if (r >= 0) {
        w->config = m->body.WORKER_CONFIG; /* one struct for both */
        w->ops = engine_find(str_from(w->config.engine));
        if (w->config.library == BUS_LIBRARY_FD)
            w->library_fd = take_fd(&m->fds[1]);
        r = w->ops ? bus_memfd_map(m->fds[0], w->config.model_bytes, &w->model) : -ERROR_UNSUPPORTED;
        w->model_fd = take_fd(&m->fds[0]);
    }
    bus_message_done(m);
    return r;
}

int worker_serve(struct worker *w)
{
    struct bus_message m;
    int r = bus_wait(w->bus_fd, BUS_WORKER, BUS_SUPERVISOR, -1, &m);
    if (r > 0) {
        r = channel_message(&m) ? take_channel(w, &m) : -ERROR_PEER;
        bus_message_done(&m);
    }
    while (r == 0)
        r = channel_work(w);
    worker_watch_stop(w);
    worker_adapters_drop(w, 0);
    if (w->has_next)
        bus_message_done(&w->next);
    w->ops->close(w->engine);
    channel_close(w->channel);
    free(w->signature);
    if (w->model) /* the engine has used it in place */
        (void)munmap((void *)(uintptr_t)w->model, w->config.model_bytes);
    fd_close(&w->library_fd);
    fd_close(&w->model_fd);
    return r == 1 ? 0 : r;
}

int worker_run(int bus_fd)
{
    struct worker w = {.bus_fd = bus_fd, .model_fd = -1, .library_fd = -1, .filter = &filter_worker_run};
    struct bus_message m;
    int r = worker_greet(&w, BUS_WORKER, &m);
    if (r >= 0 && m.type == BUS_WORKER_HOST && !w.filter) {
        worker_host(&w, &m); /* until the supervisor is gone */
        _exit(0);            /* threads run: nothing of theirs may be taken apart under them */
    }
    if (r >= 0)
        r = worker_configure(&w, BUS_WORKER_CONFIG, &m);
    if (r < 0) {
        log_error("worker_config", "the worker cannot start: %s", error_info(r)->name);
        return 1;
    }
    return worker_serve(&w) < 0 ? 1 : 0;
}
