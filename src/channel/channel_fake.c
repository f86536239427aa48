/* Back-end `fake`: the same memories on the heap, both ends in one process. For tests. */
#include "channel/channel_internal.h"

#include <string.h>

struct fake_memories { /* shared by both ends; freed with the second */
    struct channel_memory *inbox, *outbox;
    int ends;
};

struct fake_channel {
    struct channel channel; /* first: channel_close frees it */
    struct fake_memories *memories;
};

static void fake_nothing(struct channel *c)
{
    (void)c; /* both ends run in one thread: nobody sleeps */
}

static void fake_release(struct channel *c)
{
    struct fake_memories *m = ((struct fake_channel *)c)->memories;
    if (--m->ends > 0)
        return;
    free(m->inbox);
    free(m->outbox);
    free(m);
}

static const struct channel_ops fake_ops = {
    .name = "fake",
    .wake = fake_nothing,
    .awake = fake_nothing,
    .release = fake_release,
};

static void *memory_new(uint64_t bytes)
{
    void *memory = aligned_alloc(CHANNEL_PAGE_BYTES, bytes);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

int channel_fake_pair(const struct channel_geometry *g, uint32_t epoch, struct channel **ret_host,
                      struct channel **ret_guest)
{
    uint64_t inbox_bytes, outbox_bytes;
    int r = channel_geometry_bytes(g, &inbox_bytes, &outbox_bytes);
    if (r < 0)
        return r;
    struct fake_memories *m = calloc(1, sizeof *m);
    struct fake_channel *host = calloc(1, sizeof *host), *guest = calloc(1, sizeof *guest);
    if (m) {
        m->inbox = memory_new(inbox_bytes);
        m->outbox = memory_new(outbox_bytes);
    }
    if (!m || !host || !guest || !m->inbox || !m->outbox) {
        free(m ? m->inbox : NULL);
        free(m ? m->outbox : NULL);
        free(m);
        free(host);
        free(guest);
        return -ERROR_NO_MEMORY;
    }
    m->ends = 2;
    channel_setup(&host->channel, &fake_ops, true, g, epoch);
    channel_setup(&guest->channel, &fake_ops, false, g, epoch);
    host->memories = guest->memories = m;
    host->channel._own = m->inbox;
    host->channel._other = m->outbox;
    guest->channel._own = m->outbox;
    guest->channel._other = m->inbox;
    *ret_host = &host->channel;
    *ret_guest = &guest->channel;
    return 0;
}
