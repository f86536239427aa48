/* The channel between a gateway and one worker: frames in two one-way rings, payload in slots of shared memory.
 *
 * host = the gateway's end (in the gateway, on its loop), guest = the worker's end (in the worker, one thread but for
 * channel_cancels*). Back-ends: `shm` (two memfds and two pipes as bells; see below), `stream` (one byte stream to
 * where no memory can be shared: a socket, or a virtio-serial port in a guest) and `fake` (the same layout on the heap,
 * both ends in one process, for tests). One writer per memory: the host writes `inbox` only, the guest writes `outbox`
 * only; each end's consumer position is in its own memory.
 *
 * inbox:  header page | frames [n_frames] × 64 B | slot 0 | slot 1 …   written by the host, read by the guest
 * outbox: header page | frames [n_frames] × 64 B | slot 0 | slot 1 …   written by the guest, read by the host
 *
 * The other side is hostile: a frame is copied once and checked, positions are masked and bounded, an offset and length
 * must lie inside the slot they name. A guest that breaks the protocol makes host calls return -ERROR_PEER; the gateway
 * then asks for its death. Slot k carries the inputs (inbox) and outputs (outbox) of the lease in slot k; it is free
 * again when the host has taken that lease's DONE. An output larger than the outbox slot comes in several PARTs, each
 * waiting for CREDIT.
 *
 * shm's seals (DESIGN §4): the supervisor creates both memfds; the host maps inbox and seals it
 * SHRINK|GROW|FUTURE_WRITE|SEAL; the supervisor checks that before the guest gets it; outbox is sealed SHRINK|GROW|SEAL
 * by the supervisor, so it cannot be cut off under its reader.
 *
 * stream: each end keeps both memories for itself; what is published in one travels to its copy at the other end as
 * records: a frame of 64 bytes, then the bytes of the payload it names. Two more kinds of record (channel_stream.c):
 * HELLO, with which each direction begins, and ACK, which carries the consumer position. The bytes before the HELLO of
 * this epoch and nonce are discarded: they are the rest of an earlier conversation over the same descriptor, which was
 * left in the middle of a record when its gateway died. The nonce is fresh for each epoch, so that nothing that was in
 * the stream before can look like it. The guest speaks first: a host that did would speak to a guest that may not know
 * of the new epoch yet, and take its HELLO for the rest of a payload. Nothing blocks and nothing queues beyond the two
 * memories: what the descriptor does not take stays in the ring and its slot. */
#ifndef BULKHEAD_CHANNEL_CHANNEL_H
#define BULKHEAD_CHANNEL_CHANNEL_H

#include "base/cleanup.h"
#include "base/error.h"
#include "base/limits.h"

#include <stdint.h>

/* Tokens. A language model's sequences outlive leases, so these frames differ for it:
 *
 *   ITEM    host → guest, at any time, outside of a lease and in it: a new sequence. slot, request_id (never 0, never
 *           that of a living sequence), tenant_id, payload = a generation (tensor/generation.h). The guest copies it
 *           when it takes the frame; the host may write over it once it has taken the DONE of a LEASE that it pushed
 *           later. More than the model's `sequences` at once, living and parked, is -ERROR_PEER.
 *   LEASE   host → guest: the right to step until `a` microseconds (≥ 1) are over. No payload, b = 0, index = the
 *           kind of adapters whose sequences are stepped (0: those on the bare base), tenant_id = whose sequences, 0:
 *           everybody's. It ends at the first boundary of a step behind its time, or when there is nothing left that it
 *           may step, or, early, when another lease is better: the guest says DONE, status 0, a = microseconds, b = how
 *           many sequences of the whole worker could be stepped further. One lease at a time.
 *   PART    guest → host, in a lease only: what came of request_id: payload = one event (tensor/generation.h), at most
 *           LIMIT_EVENT_BYTES; index and a are 0. FINAL: its last event (END), after which the id is free. With
 *           request_id 0, no payload and WAIT: the slot is full; the guest goes on when it has CREDIT. DONE frees the
 *           slot as well, once the host has taken it.
 *   CANCEL  host → guest, at any time: the sequence is not wanted any more and gives no further event; it is gone when
 *           the guest takes the frame, which it does between two steps at the latest. Unknown ids are ignored: an END
 *           may have been on its way.
 *   PARK    host → guest, at any time: the sequence is not stepped, and keeps what it has, until RESUME or CANCEL.
 *   RESUME  host → guest. Both ignore unknown ids. index = the number of the sequence's adapter (0: it has none), which
 *           is another one when that was dropped while the sequence was parked, and has been loaded again.
 *   ADAPTER guest → host, at any time: an adapter has come (WORKER_ADAPTER on the bus) and is loaded, status 0, or is
 *           not, status negative; index = its number, a = its kind, ≥ 1 and < 2³² (0 when it is not loaded): those of
 *           one kind can be stepped together. An engine that takes none says -ERROR_UNSUPPORTED.
 *   ADAPTER_DROP  host → guest, at any time: the adapter `index` is not wanted any more: its memory and its cached
 *           prefixes go, and a sequence that still names it ends with an error when it is to be stepped; one that is
 *           parked keeps its cells. Unknown numbers are ignored. With a channel's epoch all adapters go.
 *
 * What a sequence does wrong is told by its own END (finish ERROR), never by the lease: a DONE with a status means that
 * the engine failed, and all its sequences are gone. With a channel's epoch all sequences end. */
enum channel_frame_type {
    CHANNEL_NONE = 0,
    CHANNEL_OPEN,   /* guest → host, first frame: alive; a = CHANNEL_PROTOCOL */
    CHANNEL_LOAD,   /* host → guest: load the model. guest → host: the result: status, and as payload the encoded
                       signature   or, on failure, a text for people */
    CHANNEL_UNLOAD, /* host → guest: exit */
    CHANNEL_LEASE,  /* host → guest: run a batch. slot, lease_id, a = rows (may be 0), b = number of ITEM frames that
                       follow; payload = struct channel_lease and the data it points at */
    CHANNEL_ITEM,   /* host → guest: one request of the lease before it: request_id, tenant_id, a = rows */
    CHANNEL_PART, /* guest → host: a piece of an output: slot, lease_id, index = output, a = number of the piece (0, 1,
                     …). request_id 0: of the whole lease, items in their order along axis 0. Piece 0 begins with a
                     struct channel_tensor; FINAL marks the last piece of this output; WAIT: the guest waits for CREDIT
                   */
    CHANNEL_CREDIT, /* host → guest: the pieces of this slot were taken; its memory may be written again */
    CHANNEL_CANCEL, /* host → guest: request_id of lease_id is not wanted any more */
    CHANNEL_PARK,   /* host → guest: keep the sequence but do not step it (tokens) */
    CHANNEL_RESUME, /* host → guest */
    CHANNEL_DONE,   /* guest → host: the lease is over: slot, lease_id, status, a = microseconds the worker took; on
                       failure   payload = text */
    CHANNEL_STATS,  /* guest → host: a = steps, b = items since the last one */
    CHANNEL_ADAPTER, /* guest → host: index = the adapter's number ≥ 1, status 0 or why it is not loaded, a = its kind
                      */
    CHANNEL_ADAPTER_DROP, /* host → guest: index = the adapter's number ≥ 1 */
    CHANNEL_BLOCKED, /* guest → host, before a LOAD or DONE: the filter has refused `a` ≥ 1 calls (UINT32_MAX: or
                        more) of the number `index` since the worker began; BLOCKED_OTHERS (base/blocked.h) is one */
    CHANNEL_TYPE_COUNT
};

enum channel_flag {
    CHANNEL_FINAL = 1u << 0,
    CHANNEL_WAIT = 1u << 1,
    CHANNEL_CANCELLABLE =
        1u << 2, /* of a LOAD that succeeded: leases that run can be given up (channel_lease_cancel) */
};

#define CHANNEL_PROTOCOL 1u

struct channel_frame { /* 64 bytes, little-endian hosts only */
    uint8_t type;      /* enum channel_frame_type */
    uint8_t flags;     /* enum channel_flag */
    uint16_t slot;
    uint32_t epoch; /* of the channel; a frame of another epoch is a protocol error */
    uint64_t request_id;
    uint64_t tenant_id;
    uint64_t lease_id;
    uint64_t offset; /* into the slot, bytes */
    uint64_t length; /* bytes */
    uint32_t index;
    int32_t status; /* 0 or -enum error_code */
    uint32_t a;
    uint32_t b;
};
_Static_assert(sizeof(struct channel_frame) == 64, "one cache line");

struct channel_geometry {
    uint32_t n_frames;         /* power of two, 64 .. 65536 */
    uint32_t n_slots;          /* 1 .. 8 */
    uint64_t inbox_slot_bytes; /* multiple of the page size */
    uint64_t outbox_slot_bytes;
};
/* Bytes of the two memories; -ERROR_LIMIT on overflow or a geometry out of range. */
must_check int channel_geometry_bytes(const struct channel_geometry *g, uint64_t *ret_inbox, uint64_t *ret_outbox);

struct channel_fds { /* owned by whoever holds the struct; -1 = absent */
    int inbox, outbox;
    int bell_guest; /* the host rings, the guest waits */
    int bell_host;  /* the guest rings, the host waits */
};
#define CHANNEL_FDS_NONE ((struct channel_fds){-1, -1, -1, -1})
void channel_fds_close(struct channel_fds *fds);

/* Supervisor: creates the memories (outbox sealed SHRINK|GROW|SEAL) and the bells. Each end has its own open files of
 * the bells: what the guest does to its flags, or how much it rings, cannot make the host block. Needs /proc. */
must_check int channel_create(const struct channel_geometry *g, struct channel_fds *ret_host,
                              struct channel_fds *ret_guest, struct error *err);
/* Supervisor: inbox carries SHRINK|GROW|FUTURE_WRITE|SEAL. */
must_check int channel_check_sealed(int inbox_fd, struct error *err);

struct channel; /* one end */

struct channel_ops {
    const char *name;
    void (*wake)(struct channel *c);  /* rings the other end's bell */
    void (*awake)(struct channel *c); /* silences the own bell */
    void (*pump)(struct channel *c);  /* moves bytes both ways as far as they go; NULL: the memory is shared */
    void (*cancel)(struct channel *c, uint64_t lease_id); /* NULL: by a word of the shared memory */
    short (*wants)(const struct channel *c);              /* NULL: POLLIN */
    void (*release)(struct channel *c);                   /* unmaps, closes */
};

struct channel_memory;

struct channel {
    const struct channel_ops *ops;
    struct channel_geometry geometry; /* read-only */
    uint32_t epoch;                   /* read-only */
    int bell;                         /* to poll on for channel_wants(); -1 for fake; owned */
    bool host;
    uint64_t stream_bytes; /* read-only: taken from a stream so far */
    /* private */
    struct channel_memory *_own;         /* written by this end */
    const struct channel_memory *_other; /* written by the other end, mapped read-only */
    size_t _own_bytes, _other_bytes;
    uint32_t _produced, _published; /* frames written; frames the other end may see */
    uint32_t _consumed;
    int _bell_other;
    int _memory_fds[2];
    const char *_broken; /* what the other end did wrong in the stream; told once all frames before it are taken */
};

/* Maps both memories. Host: maps inbox writable, then seals it. Takes over the descriptors on success. */
must_check int channel_shm_open(bool host, const struct channel_geometry *g, uint32_t epoch, struct channel_fds *fds,
                                struct channel **ret_channel, struct error *err);
/* An end of a byte stream, non-blocking: a stream socket (the host's), or anything that read, write and poll know (the
 * guest's). `nonce` is new for each epoch, the same at both ends, and unknown to whoever wrote
 * into this stream before. Takes over the descriptor on success. That the other end has closed is not told here: then
 * channel_wants is 0, and who watches the worker will know. */
must_check int channel_stream_open(bool host, const struct channel_geometry *g, uint32_t epoch,
                                   const uint64_t nonce[static 2], int *fd, struct channel **ret_channel,
                                   struct error *err);
/* Two ends in one process. */
must_check int channel_fake_pair(const struct channel_geometry *g, uint32_t epoch, struct channel **ret_host,
                                 struct channel **ret_guest);
void channel_close(struct channel *c); /* accepts NULL */

/* Publishes queued frames to the other end and wakes it if it sleeps (one system call, only then). */
void channel_ring(struct channel *c);
/* This end is about to sleep on its bell: true = nothing there, the other end will ring; false = frames are waiting. */
bool channel_park(struct channel *c);
/* This end is awake again for another reason than its bell: the other end need not ring. */
void channel_unpark(struct channel *c);
/* The events to poll the bell for: POLLIN, POLLOUT while a stream has bytes that its descriptor did not take, 0 when
 * nothing will come any more. Ask after the last call that may have moved something. */
short channel_wants(const struct channel *c);
/* After waking by the bell: unparks and silences it. */
void channel_awake(struct channel *c);
/* Frames are waiting to be pulled (one load; a hint). */
bool channel_pending(const struct channel *c);

/* Queues a frame (epoch is filled in); -ERROR_AGAIN when the ring is full. Visible to the other end after
 * channel_ring(). */
must_check int channel_push(struct channel *c, const struct channel_frame *frame);
/* Free places in the outgoing ring. */
uint32_t channel_room(const struct channel *c);
/* Takes the next frame: 1 = got one, 0 = none, -ERROR_PEER = the other side broke the protocol (position out of range,
 * unknown type, wrong direction, epoch, slot, offset or length). */
must_check int channel_pull(struct channel *c, struct channel_frame *ret_frame, struct error *err);

/* Host: nobody wants anything of this lease any more, and the guest may be computing it. Beside the CANCEL frames,
 * which a guest reads between its steps: this wakes whoever sleeps in channel_cancels_wait, or polls for
 * channel_cancels_take. One system call. */
void channel_lease_cancel(struct channel *c, uint64_t lease_id);
/* Guest, any thread: the latest lease given up so; 0: none. One load. */
uint64_t channel_lease_cancelled(const struct channel *c);
/* Guest, any thread: how many were given up, counted round. */
uint32_t channel_cancels(const struct channel *c);
/* Guest, a thread that does nothing else: sleeps while channel_cancels is `seen`; may come back early. Nothing is spent
 * on it until the host gives a lease up: that is why it is no bell. */
void channel_cancels_wait(const struct channel *c, uint32_t seen);
/* Guest: wakes its own thread out of that wait. */
void channel_cancels_wake(const struct channel *c);
/* Guest: over a stream nothing is told unless somebody reads it. While the guest computes and calls nothing else of
 * this end, a thread may do so: channel_cancels_take in place of channel_cancels_wait, which is for shared memory only.
 */
bool channel_cancels_read(const struct channel *c);
/* Takes what has come, frames too, which channel_pull gives out later. The events to poll the bell for next; 0: nothing
 * will come any more. */
short channel_cancels_take(struct channel *c);

/* Own slot memory for writing, [own slot bytes], 64-byte aligned. */
void *channel_slot_own(struct channel *c, uint32_t slot);
/* The other end's slot memory, for reading what a pulled frame named (offset and length already checked to lie inside).
 * On the host the bytes may change under the reader: copy once, check the copy. */
const void *channel_slot_other(const struct channel *c, uint32_t slot);

/* A tensor in a slot. `data` is an offset in the slot, 64-byte aligned. In an output, dims and bytes are those of the
 * whole tensor, though its bytes may come in several pieces. */
struct channel_tensor {
    uint32_t dtype; /* enum tensor_dtype */
    uint32_t rank;
    int64_t dims[LIMIT_TENSOR_RANK];
    uint64_t data;
    uint64_t bytes;
};

/* Start of a LEASE's payload. */
struct channel_lease {
    uint64_t outputs_wanted; /* bit i: output i of the signature */
    uint32_t n_inputs;
    uint32_t _reserved;
    struct channel_tensor inputs[]; /* [n_inputs] */
};

#define CHANNEL_DATA_ALIGN 64u

/* All outputs of one lease together hold at most so many outbox slots (they come in pieces). A worker refuses a batch
 * that would give more; more all the same breaks the protocol. */
#define CHANNEL_OUTPUT_SLOTS_MAX 2u

#endif
