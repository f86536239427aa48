/* A hostile engine, in the place of `identity` in the program escape-worker: a real worker behind real walls runs it.
 *
 * Its model has one input `what` and one output `verdict`, both BYTES[1]. `what` is "NAME" or "NAME ARGUMENT" of an
 * attempt to get out (escape.h), answered with escape_run's text; or "neighbour NAME", a deed that is answered with
 * "done" if it returns at all; or "calls N": N calls of two kinds each that no worker may make, answered with how many
 * were EPERM; or "muffled": one such call while SIGSYS is blocked. The file of its model is not read. */
#include "channel/channel_internal.h"
#include "engine/engine_pending.h"
#include "escape.h"
#include "worker/worker_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WHAT_BYTES_MAX 4096

struct hostile {
    struct engine engine;
    struct engine_pending pending;
    struct tensor_signature signature;
};

static struct hostile *hostile_of(struct engine *e)
{
    return (struct hostile *)(void *)e; /* first member */
}

static void hostile_close(struct engine *e)
{
    if (!e)
        return;
    engine_pending_done(&hostile_of(e)->pending);
    free(e);
}

static void tensor_name(struct tensor_spec *spec, const char *name)
{
    (void)snprintf(spec->name, sizeof spec->name, "%s", name);
    spec->dtype = TENSOR_BYTES;
    spec->shape = (struct tensor_shape){.rank = 1, .dims = {1}};
}

static const struct engine_ops engine_hostile;
const struct engine_ops *__wrap_engine_find(struct str name);
const struct engine_ops *__real_engine_find(struct str name);

static int hostile_open(const struct engine_options *options, struct engine **ret_engine, struct error *err)
{
    (void)options;
    _free_ struct hostile *h = calloc(1, sizeof *h);
    if (!h || engine_pending_init(&h->pending, NULL, NULL) < 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    h->engine.ops = &engine_hostile;
    h->signature.n_inputs = h->signature.n_outputs = 1;
    tensor_name(&h->signature.inputs[0], "what");
    tensor_name(&h->signature.outputs[0], "verdict");
    (void)snprintf(h->signature.platform, sizeof h->signature.platform, "hostile");
    *ret_engine = &take(&h)->engine;
    return 0;
}

static int hostile_describe(struct engine *e, struct tensor_signature *ret_signature, struct error *err)
{
    (void)err;
    *ret_signature = hostile_of(e)->signature;
    return 0;
}

static int hostile_submit(struct engine *e, const struct engine_batch *batch, struct error *err)
{
    return engine_pending_submit(&hostile_of(e)->pending, &hostile_of(e)->signature, batch, err);
}

static int calls_refused(const char *number)
{
    uint64_t n = 0;
    int refused = 0;
    if (str_to_u64(str_from(number), &n) < 0)
        return -1;
    for (uint64_t i = 0; i < n; i++) {
        refused += syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == EPERM;
        refused += syscall(SYS_add_key, NULL, NULL, NULL, 0, 0) < 0 && errno == EPERM;
    }
    return refused;
}

static int call_muffled(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGSYS);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    return calls_refused("1");
}

/* `what`: the element without its length. */
static void obey(const char *what, char *text, size_t size)
{
    char copy[WHAT_BYTES_MAX + 1], *rest = copy;
    (void)snprintf(copy, sizeof copy, "%s", what);
    const char *name = strsep(&rest, " ");
    if (strcmp(name, "neighbour") == 0)
        (void)snprintf(text, size, "%s", neighbour_run(rest ? rest : "") ? "done" : "no such deed");
    else if (strcmp(name, "calls") == 0)
        (void)snprintf(text, size, "%d", calls_refused(rest ? rest : ""));
    else if (strcmp(name, "muffled") == 0)
        (void)snprintf(text, size, "%d", call_muffled());
    else if (escape_run(name, rest ? rest : "", text, size) < 0)
        (void)snprintf(text, size, "no such attempt");
}

/* Into all that the gateway reads: the ring of frames, or the stream. It stays then, as one that has been taken over.
 */
static void garbage(struct channel *c)
{
    char noise[4096];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * 131 + 89);
    for (uint32_t i = 0; i < c->geometry.n_frames; i++)
        memcpy((void *)(uintptr_t)channel_frame_own(c, i), noise + i % 64, sizeof(struct channel_frame));
    c->_produced += c->geometry.n_frames / 2;
    channel_ring(c);
    for (;;)
        if (write(c->bell, noise, sizeof noise) < 0)
            (void)poll(NULL, 0, 1);
}

static int hostile_step(struct engine *e, uint64_t budget_ns, const struct engine_sink *sink, struct error *err)
{
    struct hostile *h = hostile_of(e);
    (void)budget_ns;
    int r = engine_pending_start(&h->pending, err);
    if (r < 0)
        return r;
    const struct tensor_view *input = &h->pending.batch->inputs[0];
    char what[WHAT_BYTES_MAX + 1] = "", answer[4 + 512];
    uint32_t size = 0;
    if (input->size >= sizeof size)
        memcpy(&size, input->data, sizeof size);
    if (size <= WHAT_BYTES_MAX && input->size >= sizeof size + size)
        memcpy(what, (const char *)input->data + sizeof size, size);
    if (strcmp(what, "neighbour garbage") == 0) /* the sink's context is the lease that runs (worker/lease.c) */
        garbage(((struct worker_lease *)sink->ctx)->worker->channel);
    obey(what, answer + 4, sizeof answer - 4);
    size = (uint32_t)strlen(answer + 4);
    memcpy(answer, &size, sizeof size);
    struct tensor_view output = *input;
    output.name = STR("verdict");
    output.data = answer;
    output.size = sizeof size + size;
    if (sink->output(sink->ctx, 0, &output) != 0)
        r = error_set_default(err, ERROR_GONE);
    return engine_pending_finish(&h->pending, r, err);
}

static void hostile_stats(struct engine *e, struct engine_stats *ret_stats)
{
    *ret_stats = hostile_of(e)->pending.stats;
}

static const struct engine_ops engine_hostile = {
    .name = "identity",
    .caps = ENGINE_TENSOR,
    .open = hostile_open,
    .describe = hostile_describe,
    .submit = hostile_submit,
    .step = hostile_step,
    .stats = hostile_stats,
    .close = hostile_close,
};

/* In the place of engine_find: the linker's --wrap. */
const struct engine_ops *__wrap_engine_find(struct str name)
{
    return str_equal(name, STR("identity")) ? &engine_hostile : __real_engine_find(name);
}
