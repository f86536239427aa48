/* Runs one lease: inputs in place from the inbox, outputs into the outbox slot, piece by piece where they do not fit.
 */
#include "worker/worker_internal.h"

#include "base/clock.h"

#include <string.h>

#define STEP_BUDGET_NS (20 * NS_PER_MS) /* the quantum of DESIGN §6; tensor engines finish in one step */

static uint64_t align_up(uint64_t value)
{
    return (value + CHANNEL_DATA_ALIGN - 1) & ~(uint64_t)(CHANNEL_DATA_ALIGN - 1);
}

/* Waits for the next frame while a lease is running: CREDIT and CANCEL are possible, everything else is a mistake. */
static int frame_during_lease(struct worker_lease *l, struct channel_frame *ret_frame)
{
    struct worker *w = l->worker;
    for (;;) {
        int r = channel_pull(w->channel, ret_frame, NULL);
        if (r != 0)
            return r;
        r = worker_wait(w);
        if (r <= 0)
            return -ERROR_GONE;
    }
}

static void cancel(struct worker_lease *l, uint64_t request_id)
{
    for (uint32_t i = 0; i < l->n_items; i++)
        if (l->items[i].request_id == request_id)
            l->cancelled[i] = true;
    if (l->worker->ops->cancel)
        l->worker->ops->cancel(l->worker->engine, request_id);
}

/* The host has taken everything written to the slot so far. */
static int wait_for_credit(struct worker_lease *l)
{
    struct channel_frame frame;
    for (;;) {
        int r = frame_during_lease(l, &frame);
        if (r < 0)
            return r;
        if (frame.type == CHANNEL_CANCEL)
            cancel(l, frame.request_id);
        else if (frame.type == CHANNEL_CREDIT && frame.slot == l->frame.slot)
            break;
        else
            return -ERROR_PEER;
    }
    l->out_used = 0;
    return 0;
}

/* One piece: `size` bytes at `data`, behind the descriptor where `tensor` is given. The slot has room for it. */
static int piece_push(struct worker_lease *l, uint32_t output, uint32_t number, const struct channel_tensor *tensor,
                      const void *data, uint64_t size, uint8_t flags)
{
    char *slot = channel_slot_own(l->worker->channel, l->frame.slot);
    uint64_t start = align_up(l->out_used);
    uint64_t head = tensor ? align_up(sizeof *tensor) : 0;
    if (tensor) {
        struct channel_tensor copy = *tensor;
        copy.data = start + head;
        memcpy(slot + start, &copy, sizeof copy);
    }
    if (size > 0)
        memcpy(slot + start + head, data, size);
    l->out_used = start + head + size;
    struct channel_frame frame = {
        .type = CHANNEL_PART,
        .flags = flags,
        .slot = l->frame.slot,
        .lease_id = l->frame.lease_id,
        .index = output,
        .a = number,
        .offset = start,
        .length = head + size,
    };
    int r = worker_push(l->worker, &frame);
    if (r >= 0 && (flags & CHANNEL_WAIT))
        r = wait_for_credit(l);
    return r;
}

static int on_output(void *ctx, uint32_t output, const struct tensor_view *view)
{
    struct worker_lease *l = ctx;
    worker_watch_output(l);
    struct channel_tensor tensor = {.dtype = (uint32_t)view->dtype, .rank = view->shape.rank, .bytes = view->size};
    memcpy(tensor.dims, view->shape.dims, sizeof tensor.dims);
    uint64_t slot_bytes = l->worker->channel->geometry.outbox_slot_bytes;
    const char *data = view->data;
    uint64_t left = view->size;
    if (left > CHANNEL_OUTPUT_SLOTS_MAX * slot_bytes - l->out_total) {
        l->out_refused = true;
        return -ERROR_ENGINE;
    }
    l->out_total += left;
    for (uint32_t number = 0;; number++) {
        uint64_t head = number == 0 ? align_up(sizeof tensor) : 0;
        uint64_t used = align_up(l->out_used);
        uint64_t room = slot_bytes > used + head ? slot_bytes - used - head : 0;
        if (room == 0) { /* cannot hold even the start: let the host empty the slot; an empty piece asks for that */
            return -ERROR_LIMIT;
        }
        uint64_t size = left < room ? left : room;
        bool last = size == left;
        /* After the last piece the next output needs room for at least its descriptor and a byte. */
        bool full = !last || slot_bytes - (used + head + size) < 4 * align_up(sizeof tensor);
        uint8_t flags = (uint8_t)((last ? CHANNEL_FINAL : 0) | (full ? CHANNEL_WAIT : 0));
        int r = piece_push(l, output, number, number == 0 ? &tensor : NULL, data, size, flags);
        if (r < 0 || last)
            return r;
        data += size;
        left -= size;
    }
}

/* Views of the inputs in the inbox slot. The host is trusted, but its numbers are checked like anyone's. */
static int inputs_map(struct worker_lease *l, uint64_t *ret_wanted)
{
    struct worker *w = l->worker;
    const struct channel_frame *f = &l->frame;
    const char *slot = channel_slot_other(w->channel, f->slot);
    const struct channel_lease *lease = (const void *)(slot + f->offset);
    uint64_t end = f->offset + f->length;
    if (f->length < sizeof *lease || f->offset % CHANNEL_DATA_ALIGN != 0 || lease->n_inputs != w->signature->n_inputs ||
        f->length < sizeof *lease + lease->n_inputs * sizeof lease->inputs[0])
        return -ERROR_PEER;
    for (uint32_t i = 0; i < lease->n_inputs; i++) {
        const struct channel_tensor *t = &lease->inputs[i];
        if (t->rank > LIMIT_TENSOR_RANK || t->data > end || t->bytes > end - t->data)
            return -ERROR_PEER;
        struct tensor_view *view = &l->inputs[i];
        view->name = str_from(w->signature->inputs[i].name);
        view->dtype = (enum tensor_dtype)t->dtype;
        view->shape.rank = t->rank;
        memcpy(view->shape.dims, t->dims, sizeof view->shape.dims);
        view->data = slot + t->data;
        view->size = t->bytes;
    }
    *ret_wanted = lease->outputs_wanted;
    return 0;
}

static int items_take(struct worker_lease *l)
{
    if (l->frame.b < 1 || l->frame.b > LIMIT_BATCH_ITEMS)
        return -ERROR_PEER;
    while (l->n_items < l->frame.b) {
        struct channel_frame frame;
        int r = frame_during_lease(l, &frame);
        if (r < 0)
            return r;
        if (frame.type == CHANNEL_CANCEL) {
            cancel(l, frame.request_id);
            continue;
        }
        if (frame.type != CHANNEL_ITEM)
            return -ERROR_PEER;
        l->cancelled[l->n_items] = false;
        l->items[l->n_items++] = (struct engine_item){frame.request_id, frame.tenant_id, frame.a};
    }
    return 0;
}

/* What was cancelled while the lease waited to be taken stands right behind it. */
static int cancels_take(struct worker_lease *l)
{
    struct channel_frame frame;
    int r;
    while ((r = channel_pull(l->worker->channel, &frame, NULL)) > 0) {
        if (frame.type != CHANNEL_CANCEL)
            return -ERROR_PEER;
        cancel(l, frame.request_id);
    }
    return r;
}

static int engine_run(struct worker_lease *l, uint64_t wanted, struct error *err)
{
    struct worker *w = l->worker;
    struct engine_batch batch = {
        .n_items = l->n_items,
        .items = l->items,
        .rows = l->frame.a,
        .n_inputs = w->signature->n_inputs,
        .inputs = l->inputs,
        .outputs_wanted = wanted,
    };
    int r = w->ops->submit(w->engine, &batch, err);
    for (uint32_t i = 0; r == 0 && i < l->n_items && w->ops->cancel; i++)
        if (l->cancelled[i]) /* the engine did not know it then */
            w->ops->cancel(w->engine, l->items[i].request_id);
    struct engine_sink sink = {.ctx = l, .output = on_output};
    if (r == 0)
        worker_watch_begin(l);
    while (r == 0)
        r = w->ops->step(w->engine, STEP_BUDGET_NS, &sink, err);
    worker_watch_end(l);
    if (l->out_refused)
        r = error_set(err, ERROR_ENGINE,
                      "The outputs of this batch are larger than the server takes; ask for fewer rows or outputs.");
    return r;
}

static int done_push(struct worker_lease *l, int status, const struct error *err, uint64_t took_ns)
{
    struct channel_frame frame = {
        .type = CHANNEL_DONE,
        .slot = l->frame.slot,
        .lease_id = l->frame.lease_id,
        .status = status < 0 ? status : 0,
        .a = took_ns / NS_PER_US > UINT32_MAX ? UINT32_MAX : (uint32_t)(took_ns / NS_PER_US),
    };
    if (status < 0) { /* behind the outputs that were sent: the host may not have taken them yet */
        const char *text = error_text(err, status);
        uint64_t slot_bytes = l->worker->channel->geometry.outbox_slot_bytes;
        frame.offset = align_up(l->out_used);
        frame.offset = frame.offset < slot_bytes ? frame.offset : slot_bytes;
        frame.length = strnlen(text, slot_bytes - frame.offset);
        memcpy((char *)channel_slot_own(l->worker->channel, l->frame.slot) + frame.offset, text, frame.length);
    }
    int r = worker_blocked_tell(l->worker);
    if (r >= 0)
        r = worker_push(l->worker, &frame);
    channel_ring(l->worker->channel);
    return r;
}

int worker_lease_run(struct worker *w, const struct channel_frame *frame)
{
    struct worker_lease *l = &w->lease;
    l->worker = w;
    l->frame = *frame;
    l->n_items = 0;
    l->out_used = 0;
    l->out_total = 0;
    l->out_refused = false;
    uint64_t wanted = 0;
    uint64_t start_ns = clock_monotonic_ns();
    int r = items_take(l);
    if (r >= 0)
        r = inputs_map(l, &wanted);
    if (r >= 0)
        r = cancels_take(l);
    if (r < 0)
        return r;
    bool all_cancelled = true;
    for (uint32_t i = 0; i < l->n_items; i++)
        all_cancelled = all_cancelled && l->cancelled[i];
    struct error err = {0};
    r = all_cancelled ? error_set_default(&err, ERROR_CANCELLED) : engine_run(l, wanted, &err);
    if (r == -ERROR_GONE || r == -ERROR_PEER)
        return r;
    return done_push(l, r, &err, clock_monotonic_ns() - start_ns);
}
