/*
 * A hostile guest at the other end of a stream: the input's bytes are what it writes, after a sound greeting or none,
 * cut into reads at places that the input picks too. Whatever the host lets through must be a frame that a guest may
 * send, its payload must be readable, and no turn takes more than it may. Records of the stream come as the input's
 * bytes, or as frames with a few fields from it, so that payloads and acknowledgements are found quickly.
 */

#include "channel/channel_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SLOT_BYTES = 8192, RECORD_HELLO = 0x80, RECORD_ACK = 0x81 };

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t byte(struct input *in)
{
    if (in->size == 0)
        return 0;
    in->size--;
    return *in->data++;
}

static void need(bool condition)
{
    if (!condition)
        abort();
}

static void say(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        need(errno == EAGAIN || errno == EPIPE);
}

static struct channel_frame record(struct input *in)
{
    static const uint8_t types[] = {CHANNEL_OPEN, CHANNEL_LOAD, CHANNEL_PART, CHANNEL_DONE, CHANNEL_STATS, RECORD_ACK};
    struct channel_frame f = {.type = types[byte(in) % sizeof types], .epoch = 1};
    f.a = byte(in) % 4;
    f.length = (uint64_t)byte(in) << (byte(in) % 6);
    f.offset = byte(in);
    uint8_t spoil = byte(in);
    if (spoil % 16 == 0)
        f.type = byte(in);
    if (spoil % 16 == 1)
        f.epoch = byte(in);
    if (spoil % 16 == 2)
        f.slot = byte(in);
    if (spoil % 16 == 3)
        f.offset = UINT64_MAX - byte(in);
    if (spoil % 16 == 4)
        f.length = UINT64_MAX >> (byte(in) % 64);
    if (spoil % 16 == 5)
        f.a = UINT32_MAX - byte(in);
    return f;
}

static int host_pull(struct channel *host)
{
    for (;;) {
        struct channel_frame f;
        struct error err = {0};
        int r = channel_pull(host, &f, &err);
        if (r < 0)
            need(r == -ERROR_PEER && err.text[0] != '\0');
        if (r <= 0)
            return r;
        need(f.type == CHANNEL_OPEN || f.type == CHANNEL_LOAD || f.type == CHANNEL_PART || f.type == CHANNEL_DONE ||
             f.type == CHANNEL_STATS);
        need(f.epoch == host->epoch);
        if (f.type == CHANNEL_OPEN || f.type == CHANNEL_STATS)
            continue;
        need(f.slot < host->geometry.n_slots);
        const volatile char *slot = channel_slot_other(host, f.slot);
        for (uint64_t i = 0; i < f.length; i++)
            (void)slot[f.offset + i]; /* the sanitizer or the end of the mapping looks */
    }
}

static void act(int fd, struct channel *host, struct input *in)
{
    static const char zeros[SLOT_BYTES];
    uint8_t how = byte(in);
    struct channel_frame f;
    switch (how % 4) {
    case 0: /* bytes as they are */
    {
        size_t n = (size_t)byte(in) + 1;
        n = n < in->size ? n : in->size;
        say(fd, in->data, n);
        in->data += n;
        in->size -= n;
        break;
    }
    case 1: /* a record */
        f = record(in);
        say(fd, &f, sizeof f);
        break;
    case 2: /* what may be its payload */
        say(fd, zeros, (size_t)(how >> 2) * 130);
        break;
    default: /* the host has something to say */
        f = (struct channel_frame){.type = CHANNEL_LEASE, .length = (uint64_t)byte(in) * 32};
        if (channel_push(host, &f) == 0)
            channel_ring(host);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct channel_geometry geometry = {64, 2, SLOT_BYTES, SLOT_BYTES};
    static const uint64_t nonce[2] = {1, 2};
    struct input in = {data, size};
    int ends[2];
    struct channel *host;
    need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    need(channel_stream_open(true, &geometry, 1, nonce, &ends[0], &host, NULL) == 0);
    if (byte(&in) % 8 != 0) {
        struct channel_frame hello = {
            .type = RECORD_HELLO, .epoch = 1, .request_id = 1, .tenant_id = 2, .a = CHANNEL_PROTOCOL};
        say(ends[1], &hello, sizeof hello);
    }
    while (in.size > 0) {
        act(ends[1], host, &in);
        if (byte(&in) % 4 == 0)
            continue; /* the next bytes come with these */
        channel_awake(host);
        need(channel_room(host) <= geometry.n_frames);
        if (host_pull(host) < 0)
            break;
    }
    channel_close(host);
    fd_close(&ends[1]);
    return 0;
}
