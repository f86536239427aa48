/* Back-end `stream`: both memories at each end, records over one descriptor. */
#include "channel/channel_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Records that are no frames of the channel. Their fields: HELLO: epoch, request_id and tenant_id = the nonce,
 * a = CHANNEL_PROTOCOL. ACK: a = frames consumed so far. CANCEL, from the host: lease_id. */
enum { RECORD_HELLO = 0x80, RECORD_ACK = 0x81, RECORD_CANCEL = 0x82 };

#define RECORD_BYTES sizeof(struct channel_frame)
/* One read or write of small records; payloads from DIRECT_BYTES on go between descriptor and slot without a copy. */
#define STAGE_BYTES  (16 * KIB)
#define DIRECT_BYTES (4 * KIB)
/* Taken at once at most, so that a guest that never stops writing does not hold the gateway's loop. */
#define TAKE_BYTES_MAX (1 * MIB)
/* What an earlier conversation can have left in the descriptor's own buffers, beside a record. */
#define LEFT_BYTES_MAX (16 * MIB)

enum reader_state { READER_SEEKS = 0, READER_HEAD, READER_PAYLOAD, READER_ENDED };

struct stream_channel {
    struct channel channel; /* first: channel_close frees it */
    struct channel_frame hello;
    /* reader */
    enum reader_state state;
    struct channel_frame head; /* of the payload that is being read */
    uint64_t left;             /* payload bytes still to come, or, while it seeks, bytes that may still be discarded */
    size_t in_used, in_size;   /* of `in` */
    uint32_t acked;            /* consumer position that the other end was told */
    /* writer */
    uint32_t sent;       /* frames put into `out` */
    const char *payload; /* of the last frame, what is not yet written */
    uint64_t payload_left;
    size_t out_used, out_size; /* of `out` */
    bool stuck;                /* the descriptor took no more */
    bool cancels;              /* CANCEL is to be sent, of … */
    uint64_t cancelled_lease;
    char in[STAGE_BYTES], out[STAGE_BYTES];
};

static struct stream_channel *stream_of(struct channel *c)
{
    return (struct stream_channel *)(void *)c;
}

static struct channel_memory *other_of(struct stream_channel *s)
{
    return (struct channel_memory *)(uintptr_t)s->channel._other; /* the copy is ours */
}

static void broken(struct stream_channel *s, const char *what)
{
    s->channel._broken = what;
    s->state = READER_ENDED;
}

/* --- writer --- */

static void put(struct stream_channel *s, const struct channel_frame *record)
{
    memcpy(s->out + s->out_size, record, RECORD_BYTES);
    s->out_size += RECORD_BYTES;
}

/* Consumed frames are told along with frames of our own; alone only when the other end may be short of room. */
static bool ack_due(const struct stream_channel *s)
{
    const struct channel *c = &s->channel;
    uint32_t produced = atomic_load_explicit(&c->_other->produced, memory_order_relaxed);
    return c->_consumed != s->acked && produced - s->acked >= c->geometry.n_frames / 2;
}

static void ack_put(struct stream_channel *s)
{
    struct channel_frame record = {.type = RECORD_ACK, .epoch = s->channel.epoch, .a = s->channel._consumed};
    put(s, &record);
    s->acked = s->channel._consumed;
}

/* Fills `out` with what is published, up to the start of a large payload. */
static void stage(struct stream_channel *s)
{
    struct channel *c = &s->channel;
    if (s->out_used == s->out_size)
        s->out_used = s->out_size = 0;
    while (s->out_size + 2 * RECORD_BYTES <= STAGE_BYTES) {
        if (s->payload_left >= DIRECT_BYTES)
            return;
        if (s->payload_left > 0) {
            size_t room = STAGE_BYTES - s->out_size;
            size_t size = s->payload_left < room ? (size_t)s->payload_left : room;
            memcpy(s->out + s->out_size, s->payload, size);
            s->out_size += size;
            s->payload += size;
            s->payload_left -= size;
            continue;
        }
        if (s->cancels) {
            struct channel_frame record = {.type = RECORD_CANCEL, .epoch = c->epoch, .lease_id = s->cancelled_lease};
            put(s, &record);
            s->cancels = false;
            continue;
        }
        if (s->sent == c->_published) {
            if (ack_due(s))
                ack_put(s);
            return;
        }
        if (c->_consumed != s->acked)
            ack_put(s);
        const struct channel_frame *f = channel_frame_own(c, s->sent);
        put(s, f);
        s->sent++;
        s->payload_left = channel_frame_payload(c, f, c->host);
        if (s->payload_left > 0)
            s->payload = (const char *)channel_slot_own(c, f->slot) + f->offset;
    }
}

/* Bytes written, 0 when the descriptor takes no more (or never will: its end is seen by reading). */
static size_t stream_write(struct stream_channel *s, const char *data, size_t size)
{
    struct channel *c = &s->channel;
    ssize_t n;
    do {
        n = c->host ? send(c->bell, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) : write(c->bell, data, size);
    } while (n < 0 && errno == EINTR);
    s->stuck = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    return n > 0 ? (size_t)n : 0;
}

static void pump_out(struct stream_channel *s)
{
    if (s->channel.host && s->state == READER_SEEKS)
        return; /* the guest speaks first */
    for (;;) {
        stage(s);
        bool staged = s->out_used < s->out_size;
        if (!staged && s->payload_left == 0) {
            s->stuck = false;
            return;
        }
        size_t size = staged ? s->out_size - s->out_used : (size_t)s->payload_left;
        size_t n = stream_write(s, staged ? s->out + s->out_used : s->payload, size);
        if (n == 0)
            return;
        if (staged) {
            s->out_used += n;
        } else {
            s->payload += n;
            s->payload_left -= n;
        }
    }
}

/* --- reader --- */

static void frame_publish(struct stream_channel *s)
{
    struct channel_memory *other = other_of(s);
    uint32_t produced = atomic_load_explicit(&other->produced, memory_order_relaxed);
    struct channel_frame *place = (struct channel_frame *)(uintptr_t)channel_frame_other(&s->channel, produced);
    *place = s->head;
    atomic_store_explicit(&other->produced, produced + 1, memory_order_release);
    s->state = READER_HEAD;
}

static void ack_take(struct stream_channel *s)
{
    struct channel_memory *other = other_of(s);
    uint32_t before = atomic_load_explicit(&other->consumed, memory_order_relaxed);
    if (s->head.epoch != s->channel.epoch || s->head.a - before > s->sent - before)
        broken(s, "it says to have taken frames that were not sent");
    else
        atomic_store_explicit(&other->consumed, s->head.a, memory_order_release);
}

static void cancel_take(struct stream_channel *s)
{
    struct channel_memory *other = other_of(s);
    if (s->head.epoch != s->channel.epoch) {
        broken(s, "it gives up a lease of another epoch");
        return;
    }
    atomic_store_explicit(&other->cancelled_lease, s->head.lease_id, memory_order_relaxed);
    atomic_fetch_add_explicit(&other->cancels, 1, memory_order_release);
}

static void head_take(struct stream_channel *s)
{
    struct channel *c = &s->channel;
    if (s->head.type == RECORD_CANCEL && !c->host) {
        cancel_take(s);
        return;
    }
    if (s->head.type == RECORD_ACK) {
        ack_take(s);
        return;
    }
    uint32_t produced = atomic_load_explicit(&c->_other->produced, memory_order_relaxed);
    if (produced - c->_consumed >= c->geometry.n_frames) {
        broken(s, "it sent more frames than there is room for");
        return;
    }
    if (channel_frame_check(c, &s->head, NULL) < 0) { /* channel_pull refuses it in its turn; what follows is noise */
        frame_publish(s);
        s->state = READER_ENDED;
        return;
    }
    s->left = channel_frame_payload(c, &s->head, !c->host); /* != 0 only within its slot */
    if (s->left == 0)
        frame_publish(s);
    else
        s->state = READER_PAYLOAD;
}

static char *payload_place(struct stream_channel *s)
{
    const char *slot = channel_slot_other(&s->channel, s->head.slot);
    return (char *)(uintptr_t)slot + s->head.offset + (s->head.length - s->left);
}

static void payload_taken(struct stream_channel *s, size_t size)
{
    s->left -= size;
    if (s->left == 0)
        frame_publish(s);
}

/* Discards up to the HELLO of this conversation. It may begin at any byte, so less than one is kept for next time. */
static bool seek(struct stream_channel *s)
{
    size_t there = s->in_size - s->in_used;
    const char *found = memmem(s->in + s->in_used, there, &s->hello, RECORD_BYTES);
    size_t skipped = found                   ? (size_t)(found - (s->in + s->in_used))
                     : there >= RECORD_BYTES ? there - (RECORD_BYTES - 1)
                                             : 0;
    if (skipped > s->left) {
        broken(s, "it does not begin its stream");
        return false;
    }
    s->left -= skipped;
    s->in_used += skipped;
    if (!found)
        return false;
    s->in_used += RECORD_BYTES;
    s->state = READER_HEAD;
    if (s->channel.host)
        put(s, &s->hello); /* first of all in `out`: nothing was staged before */
    return true;
}

/* Takes what can be taken from `in`. */
static void parse(struct stream_channel *s)
{
    for (;;) {
        size_t there = s->in_size - s->in_used;
        if (s->state == READER_SEEKS) {
            if (!seek(s))
                return;
        } else if (s->state == READER_HEAD) {
            if (there < RECORD_BYTES)
                return;
            memcpy(&s->head, s->in + s->in_used, RECORD_BYTES);
            s->in_used += RECORD_BYTES;
            head_take(s);
        } else if (s->state == READER_PAYLOAD) {
            size_t size = s->left < there ? (size_t)s->left : there;
            if (size == 0)
                return;
            memcpy(payload_place(s), s->in + s->in_used, size);
            s->in_used += size;
            payload_taken(s, size);
        } else {
            return;
        }
    }
}

/* Where the next bytes go: into the slot where a large payload is due, else behind what is left in `in`. */
static char *read_place(struct stream_channel *s, size_t *ret_size)
{
    if (s->in_used == s->in_size && s->state == READER_PAYLOAD && s->left >= DIRECT_BYTES) {
        *ret_size = s->left < TAKE_BYTES_MAX ? (size_t)s->left : TAKE_BYTES_MAX;
        return payload_place(s);
    }
    memmove(s->in, s->in + s->in_used, s->in_size - s->in_used); /* less than a record, whatever the state */
    s->in_size -= s->in_used;
    s->in_used = 0;
    *ret_size = STAGE_BYTES - s->in_size;
    return s->in + s->in_size;
}

static void pump_in(struct stream_channel *s)
{
    struct channel *c = &s->channel;
    for (size_t taken = 0; taken < TAKE_BYTES_MAX && s->state != READER_ENDED;) {
        size_t size;
        char *to = read_place(s, &size);
        bool direct = to < s->in || to >= s->in + STAGE_BYTES;
        ssize_t n = read(c->bell, to, size); /* the gateway's filter knows no recvfrom */
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            s->state = READER_ENDED;
            return;
        }
        taken += (size_t)n;
        c->stream_bytes += (uint64_t)n;
        if (direct) {
            payload_taken(s, (size_t)n);
        } else {
            s->in_size += (size_t)n;
            parse(s);
        }
        if ((size_t)n < size)
            return; /* that was all; polling tells of more */
    }
}

static void stream_pump(struct channel *c)
{
    pump_in(stream_of(c));
    pump_out(stream_of(c));
}

static void stream_cancel(struct channel *c, uint64_t lease_id)
{
    struct stream_channel *s = stream_of(c);
    s->cancelled_lease = lease_id;
    s->cancels = true;
    pump_out(s);
}

static short stream_wants(const struct channel *c)
{
    const struct stream_channel *s = (const struct stream_channel *)(const void *)c;
    if (s->state == READER_ENDED)
        return 0;
    return s->stuck ? POLLIN | POLLOUT : POLLIN;
}

static void stream_release(struct channel *c)
{
    if (c->_own)
        (void)munmap(c->_own, c->_own_bytes); /* cannot fail for a mapping of ours */
    if (c->_other)
        (void)munmap((void *)(uintptr_t)c->_other, c->_other_bytes); /* as above */
    fd_close(&c->bell);
}

static void stream_wake(struct channel *c)
{
    (void)c; /* no end ever looks parked to the other: the descriptor wakes it */
}

static const struct channel_ops stream_ops = {
    .name = "stream",
    .wake = stream_wake,
    .awake = stream_pump,
    .pump = stream_pump,
    .cancel = stream_cancel,
    .wants = stream_wants,
    .release = stream_release,
};

/* Touched only where used: a slot is as large as the largest batch. */
static void *memory_map(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int channel_stream_open(bool host, const struct channel_geometry *g, uint32_t epoch, const uint64_t nonce[static 2],
                        int *fd, struct channel **ret_channel, struct error *err)
{
    uint64_t inbox_bytes, outbox_bytes;
    int r = channel_geometry_bytes(g, &inbox_bytes, &outbox_bytes);
    if (r < 0)
        return error_set(err, r, "the channel geometry is out of range");
    struct stream_channel *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERROR_NO_MEMORY, "no memory for a channel");
    struct channel *c = &s->channel;
    channel_setup(c, &stream_ops, host, g, epoch);
    c->_own_bytes = host ? inbox_bytes : outbox_bytes;
    c->_other_bytes = host ? outbox_bytes : inbox_bytes;
    c->_own = memory_map(c->_own_bytes);
    c->_other = memory_map(c->_other_bytes);
    if (!c->_own || !c->_other) {
        channel_close(c); /* the caller keeps the descriptor */
        return error_set(err, ERROR_NO_MEMORY, "no memory for a channel");
    }
    s->hello = (struct channel_frame){
        .type = RECORD_HELLO, .epoch = epoch, .request_id = nonce[0], .tenant_id = nonce[1], .a = CHANNEL_PROTOCOL};
    s->left = c->_other_bytes + LEFT_BYTES_MAX;
    if (!host)
        put(s, &s->hello);
    c->bell = take_fd(fd);
    pump_out(s);
    *ret_channel = c;
    return 0;
}
