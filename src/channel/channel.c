#include "channel/channel_internal.h"

#include <assert.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHANNEL_SLOTS_MAX  8u
#define CHANNEL_FRAMES_MIN 64u
#define CHANNEL_FRAMES_MAX 65536u

enum { HOST_SENDS = 1, GUEST_SENDS = 2, NAMES_SLOT = 4, HAS_PAYLOAD = 8 };

static const uint8_t frame_rules[CHANNEL_TYPE_COUNT] = {
    [CHANNEL_OPEN] = GUEST_SENDS,
    [CHANNEL_LOAD] = HOST_SENDS | GUEST_SENDS | NAMES_SLOT | HAS_PAYLOAD,
    [CHANNEL_UNLOAD] = HOST_SENDS,
    [CHANNEL_LEASE] = HOST_SENDS | NAMES_SLOT | HAS_PAYLOAD,
    [CHANNEL_ITEM] = HOST_SENDS | NAMES_SLOT | HAS_PAYLOAD,
    [CHANNEL_PART] = GUEST_SENDS | NAMES_SLOT | HAS_PAYLOAD,
    [CHANNEL_CREDIT] = HOST_SENDS | NAMES_SLOT,
    [CHANNEL_CANCEL] = HOST_SENDS | NAMES_SLOT,
    [CHANNEL_PARK] = HOST_SENDS,
    [CHANNEL_RESUME] = HOST_SENDS,
    [CHANNEL_DONE] = GUEST_SENDS | NAMES_SLOT | HAS_PAYLOAD,
    [CHANNEL_STATS] = GUEST_SENDS,
    [CHANNEL_ADAPTER] = GUEST_SENDS,
    [CHANNEL_ADAPTER_DROP] = HOST_SENDS,
    [CHANNEL_BLOCKED] = GUEST_SENDS,
};

int channel_geometry_bytes(const struct channel_geometry *g, uint64_t *ret_inbox, uint64_t *ret_outbox)
{
    if (g->n_frames < CHANNEL_FRAMES_MIN || g->n_frames > CHANNEL_FRAMES_MAX || (g->n_frames & (g->n_frames - 1)) != 0)
        return -ERROR_LIMIT;
    if (g->n_slots < 1 || g->n_slots > CHANNEL_SLOTS_MAX)
        return -ERROR_LIMIT;
    if (g->inbox_slot_bytes % CHANNEL_PAGE_BYTES != 0 || g->outbox_slot_bytes % CHANNEL_PAGE_BYTES != 0 ||
        g->inbox_slot_bytes == 0 || g->outbox_slot_bytes == 0 || g->inbox_slot_bytes > 16 * GIB ||
        g->outbox_slot_bytes > 16 * GIB)
        return -ERROR_LIMIT;
    uint64_t head = CHANNEL_PAGE_BYTES + (uint64_t)g->n_frames * sizeof(struct channel_frame);
    *ret_inbox = head + g->n_slots * g->inbox_slot_bytes;
    *ret_outbox = head + g->n_slots * g->outbox_slot_bytes;
    return 0;
}

void channel_setup(struct channel *c, const struct channel_ops *ops, bool host, const struct channel_geometry *g,
                   uint32_t epoch)
{
    *c = (struct channel){.ops = ops, .geometry = *g, .epoch = epoch, .bell = -1, .host = host, ._bell_other = -1};
    c->_memory_fds[0] = c->_memory_fds[1] = -1;
}

void channel_close(struct channel *c)
{
    if (!c)
        return;
    c->ops->release(c);
    free(c);
}

static struct channel_frame *frame_place(struct channel *c, uint32_t position)
{
    struct channel_frame *frames = (struct channel_frame *)(void *)((char *)c->_own + CHANNEL_PAGE_BYTES);
    return &frames[position & (c->geometry.n_frames - 1)];
}

const struct channel_frame *channel_frame_other(const struct channel *c, uint32_t position)
{
    const struct channel_frame *frames =
        (const struct channel_frame *)(const void *)((const char *)c->_other + CHANNEL_PAGE_BYTES);
    return &frames[position & (c->geometry.n_frames - 1)];
}

const struct channel_frame *channel_frame_own(struct channel *c, uint32_t position)
{
    return frame_place(c, position);
}

uint32_t channel_room(const struct channel *c)
{
    uint32_t taken = atomic_load_explicit(&c->_other->consumed, memory_order_acquire);
    uint32_t waiting = c->_produced - taken;
    /* A hostile consumer position only costs its owner: more waiting than places means no room. */
    return waiting > c->geometry.n_frames ? 0 : c->geometry.n_frames - waiting;
}

int channel_push(struct channel *c, const struct channel_frame *frame)
{
    if (channel_room(c) == 0)
        return -ERROR_AGAIN;
    struct channel_frame *place = frame_place(c, c->_produced);
    *place = *frame;
    place->epoch = c->epoch;
    c->_produced++;
    return 0;
}

static void publish(struct channel *c)
{
    atomic_store_explicit(&c->_own->produced, c->_produced, memory_order_release);
    c->_published = c->_produced;
    /* Pairs with the fence in channel_park: either we see `parked`, or the sleeper sees our frames. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&c->_other->parked, memory_order_relaxed))
        c->ops->wake(c);
}

void channel_ring(struct channel *c)
{
    if (c->_published != c->_produced)
        publish(c);
    if (c->ops->pump)
        c->ops->pump(c);
}

bool channel_pending(const struct channel *c)
{
    return atomic_load_explicit(&c->_other->produced, memory_order_acquire) != c->_consumed;
}

bool channel_park(struct channel *c)
{
    if (c->ops->pump)
        c->ops->pump(c);
    atomic_store_explicit(&c->_own->parked, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!channel_pending(c))
        return true;
    channel_unpark(c);
    return false;
}

void channel_unpark(struct channel *c)
{
    atomic_store_explicit(&c->_own->parked, 0, memory_order_relaxed);
}

short channel_wants(const struct channel *c)
{
    return c->ops->wants ? c->ops->wants(c) : POLLIN;
}

void channel_awake(struct channel *c)
{
    channel_unpark(c);
    c->ops->awake(c);
}

int channel_frame_check(const struct channel *c, const struct channel_frame *f, struct error *err)
{
    uint8_t rules = f->type < CHANNEL_TYPE_COUNT ? frame_rules[f->type] : 0;
    if (!(rules & (c->host ? GUEST_SENDS : HOST_SENDS)))
        return error_set(err, ERROR_PEER, "a frame of type %u may not come from there", f->type);
    if (f->epoch != c->epoch)
        return error_set(err, ERROR_PEER, "a frame of epoch %u came in epoch %u", f->epoch, c->epoch);
    if (!(rules & NAMES_SLOT))
        return 0;
    if (f->slot >= c->geometry.n_slots)
        return error_set(err, ERROR_PEER, "a frame names slot %u of %u", f->slot, c->geometry.n_slots);
    if (!(rules & HAS_PAYLOAD))
        return 0;
    uint64_t slot_bytes = c->host ? c->geometry.outbox_slot_bytes : c->geometry.inbox_slot_bytes;
    if (f->offset > slot_bytes || f->length > slot_bytes - f->offset)
        return error_set(err, ERROR_PEER, "a frame's payload lies outside its slot");
    return 0;
}

uint64_t channel_frame_payload(const struct channel *c, const struct channel_frame *f, bool by_host)
{
    uint64_t slot_bytes = by_host ? c->geometry.inbox_slot_bytes : c->geometry.outbox_slot_bytes;
    bool sound = f->type < CHANNEL_TYPE_COUNT && (frame_rules[f->type] & HAS_PAYLOAD) &&
                 f->slot < c->geometry.n_slots && f->offset <= slot_bytes && f->length <= slot_bytes - f->offset;
    return sound ? f->length : 0;
}

int channel_pull(struct channel *c, struct channel_frame *ret_frame, struct error *err)
{
    uint32_t produced = atomic_load_explicit(&c->_other->produced, memory_order_acquire);
    uint32_t waiting = produced - c->_consumed;
    if (waiting == 0)
        return c->_broken ? error_set(err, ERROR_PEER, "%s", c->_broken) : 0;
    if (waiting > c->geometry.n_frames)
        return error_set(err, ERROR_PEER, "the frame position is out of range");
    struct channel_frame copy; /* copied once, then only the copy is looked at */
    memcpy(&copy, channel_frame_other(c, c->_consumed), sizeof copy);
    __asm__ volatile("" : : "r"(&copy) : "memory"); /* keeps the compiler from reading the shared frame again */
    int r = channel_frame_check(c, &copy, err);
    if (r < 0)
        return r;
    c->_consumed++;
    atomic_store_explicit(&c->_own->consumed, c->_consumed, memory_order_release);
    *ret_frame = copy;
    return 1;
}

void channel_lease_cancel(struct channel *c, uint64_t lease_id)
{
    if (c->ops->cancel) {
        c->ops->cancel(c, lease_id);
        return;
    }
    atomic_store_explicit(&c->_own->cancelled_lease, lease_id, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->_own->cancels, 1, memory_order_seq_cst);
    (void)syscall(SYS_futex, &c->_own->cancels, FUTEX_WAKE, 1, NULL, NULL, 0); /* nobody sleeps: nothing to do */
}

uint64_t channel_lease_cancelled(const struct channel *c)
{
    return atomic_load_explicit(&c->_other->cancelled_lease, memory_order_acquire);
}

uint32_t channel_cancels(const struct channel *c)
{
    return atomic_load_explicit(&c->_other->cancels, memory_order_acquire);
}

/* The guest's mapping is read-only, which is enough to wait on and to wake. */
void channel_cancels_wait(const struct channel *c, uint32_t seen)
{
    (void)syscall(SYS_futex, &c->_other->cancels, FUTEX_WAIT, seen, NULL, NULL, 0); /* early or not, the caller looks */
}

void channel_cancels_wake(const struct channel *c)
{
    (void)syscall(SYS_futex, &c->_other->cancels, FUTEX_WAKE, 1, NULL, NULL, 0);
}

bool channel_cancels_read(const struct channel *c)
{
    return c->ops->cancel != NULL;
}

short channel_cancels_take(struct channel *c)
{
    c->ops->pump(c);
    return channel_wants(c);
}

static size_t slot_offset(const struct channel *c, uint32_t slot, uint64_t slot_bytes)
{
    assert(slot < c->geometry.n_slots);
    return CHANNEL_PAGE_BYTES + (size_t)c->geometry.n_frames * sizeof(struct channel_frame) + slot * slot_bytes;
}

void *channel_slot_own(struct channel *c, uint32_t slot)
{
    uint64_t bytes = c->host ? c->geometry.inbox_slot_bytes : c->geometry.outbox_slot_bytes;
    return (char *)c->_own + slot_offset(c, slot, bytes);
}

const void *channel_slot_other(const struct channel *c, uint32_t slot)
{
    uint64_t bytes = c->host ? c->geometry.outbox_slot_bytes : c->geometry.inbox_slot_bytes;
    return (const char *)c->_other + slot_offset(c, slot, bytes);
}
