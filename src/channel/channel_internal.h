/* Layout of a channel memory; shared by the back-ends of this room only. */
#ifndef BULKHEAD_CHANNEL_INTERNAL_H
#define BULKHEAD_CHANNEL_INTERNAL_H

#include "channel/channel.h"

#include <stdalign.h>
#include <stdatomic.h>

#define CHANNEL_PAGE_BYTES 4096u

/* First page of each memory, written by its owner only. One cache line per word: producer and consumer positions are
 * polled by the other core. */
struct channel_memory {
    alignas(64) _Atomic uint32_t produced; /* frames published in this memory, counts for ever (wraps) */
    alignas(64) _Atomic uint32_t consumed; /* frames taken from the other memory */
    alignas(64) _Atomic uint32_t parked;   /* 1: the owner sleeps, ring its bell after publishing */
    /* Host only: a futex that counts the leases given up while they run, and the latest of them. */
    alignas(64) _Atomic uint32_t cancels;
    _Atomic uint64_t cancelled_lease;
};

/* Sets positions and mappings of an end; memories are zeroed or continue a fresh channel. */
void channel_setup(struct channel *c, const struct channel_ops *ops, bool host, const struct channel_geometry *g,
                   uint32_t epoch);

/* What this end may pull: 0, or -ERROR_PEER. */
must_check int channel_frame_check(const struct channel *c, const struct channel_frame *f, struct error *err);
/* Bytes of payload that a frame carries which the host (or else the guest) sent; 0 for one that will be refused. */
uint64_t channel_frame_payload(const struct channel *c, const struct channel_frame *f, bool by_host);
/* Place of a frame in the ring of this end, and of the other. */
const struct channel_frame *channel_frame_own(struct channel *c, uint32_t position);
const struct channel_frame *channel_frame_other(const struct channel *c, uint32_t position);

#endif
