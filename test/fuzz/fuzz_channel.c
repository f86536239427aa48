/*
 * A hostile guest: the input's bytes drive what it writes into its memory (frames, positions, slot contents, sound
 * frames too) between the host's pulls. The first byte picks what stands at the host's end:
 *
 *   even  the channel alone: whatever channel_pull lets through must be a frame that a guest may send, and its payload
 *         must be readable
 *   odd   the gateway with a lease of three requests on it: whatever comes, each request is answered exactly once, and
 *         nothing leaks
 *
 * A frame position makes the memory's contents matter at any place, so the guest writes with plain stores.
 */

#include "test/unit/gateway/lease_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_FRAMES = 64, SLOT_BYTES = 4096, BODY_BYTES_MAX = SLOT_BYTES / 2, N_OUTPUTS = 4, N_REQUESTS = 3 };

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

static uint32_t word(struct input *in)
{
    uint32_t value = byte(in);
    return value | (uint32_t)byte(in) << 8;
}

static void bytes(struct input *in, void *to, size_t size)
{
    size_t there = size < in->size ? size : in->size;
    if (there > 0)
        memcpy(to, in->data, there);
    in->data += there;
    in->size -= there;
}

/* Small numbers mostly; now and then one at an edge. */
static uint64_t number(struct input *in, uint64_t limit)
{
    uint8_t how = byte(in);
    switch (how % 8) {
    case 0:
        return UINT64_MAX - byte(in);
    case 1:
        return limit + byte(in) - 128;
    case 2:
        return limit;
    case 3:
        return 0;
    default:
        return word(in) % (limit + 1);
    }
}

static struct channel_frame frame_of(struct input *in)
{
    struct channel_frame f = {.type = byte(in)};
    f.flags = byte(in);
    f.slot = byte(in) & 3;
    f.index = byte(in) & 7;
    f.a = byte(in);
    f.status = -(byte(in) & 63);
    f.lease_id = byte(in) & 3;
    f.offset = number(in, SLOT_BYTES);
    f.length = number(in, SLOT_BYTES);
    return f;
}

static char *own(struct channel *guest, size_t *ret_bytes)
{
    uint64_t inbox, outbox;
    fixture_need(channel_geometry_bytes(&guest->geometry, &inbox, &outbox) == 0);
    *ret_bytes = outbox;
    return (char *)guest->_own;
}

static void publish(struct channel *guest, const struct channel_frame *f)
{
    if (channel_push(guest, f) < 0) {
        /* the ring is full: what is there is published again */
    }
    channel_ring(guest);
}

/* One act of the guest. */
static void act(struct channel *guest, struct input *in)
{
    size_t memory_bytes;
    char *memory = own(guest, &memory_bytes);
    struct channel_frame f;
    switch (byte(in) % 7) {
    case 0: /* any bytes anywhere: positions, frames, payload */
    {
        size_t at = (word(in) * 4u) % memory_bytes, n = byte(in) % 65u;
        bytes(in, memory + at, n < memory_bytes - at ? n : memory_bytes - at);
        break;
    }
    case 1: /* a frame of any bytes, published */
        memset(&f, 0, sizeof f);
        bytes(in, &f, sizeof f);
        publish(guest, &f);
        break;
    case 2: /* a plausible frame, published */
        f = frame_of(in);
        publish(guest, &f);
        break;
    case 3: /* a position ahead of the frames: what lies there comes again */
        atomic_store(&guest->_own->produced, atomic_load(&guest->_own->produced) + byte(in) % (N_FRAMES + 2));
        break;
    case 4:
        atomic_store(&guest->_own->consumed, atomic_load(&guest->_other->produced) - byte(in));
        break;
    case 5:
        atomic_store(&guest->_own->parked, byte(in) & 1);
        break;
    default: /* takes the host's frames, as an honest guest would */
        while (channel_pull(guest, &f, NULL) > 0)
            ;
        break;
    }
}

/* --- the channel alone --- */

static void payload_read(struct channel *host, const struct channel_frame *f)
{
    const volatile char *slot = channel_slot_other(host, f->slot);
    for (uint64_t i = 0; i < f->length; i++)
        (void)slot[f->offset + i]; /* ASan looks */
}

static int host_pull(struct channel *host)
{
    for (uint32_t n = 0; n <= 2 * N_FRAMES; n++) {
        struct error err = {0};
        struct channel_frame f;
        memset(&f, 0xEE, sizeof f);
        int r = channel_pull(host, &f, &err);
        if (r == 0)
            return 0;
        if (r < 0) {
            fixture_need(r == -ERROR_PEER && err.text[0] != '\0');
            return r;
        }
        fixture_need(f.epoch == host->epoch);
        switch (f.type) {
        case CHANNEL_LOAD:
        case CHANNEL_PART:
        case CHANNEL_DONE:
            fixture_need(f.slot < host->geometry.n_slots);
            payload_read(host, &f);
            break;
        case CHANNEL_OPEN:
        case CHANNEL_STATS:
            break;
        default:
            abort(); /* only the host sends it */
        }
    }
    abort(); /* more frames than the ring holds, without the guest doing anything */
}

static void channel_alone(struct input *in)
{
    const struct channel_geometry geometry = {N_FRAMES, 2, SLOT_BYTES, SLOT_BYTES};
    struct channel *host, *guest;
    fixture_need(channel_fake_pair(&geometry, 1, &host, &guest) == 0);
    while (in->size > 0) {
        act(guest, in);
        if (byte(in) % 4 == 0) {
            struct channel_frame f = {.type = CHANNEL_CREDIT};
            if (channel_push(host, &f) == 0)
                channel_ring(host);
            (void)channel_park(host);
            fixture_need(channel_room(host) <= N_FRAMES);
        }
        if (host_pull(host) < 0)
            break; /* the gateway would have it killed now */
    }
    channel_close(host);
    channel_close(guest);
}

/* --- the gateway --- */

static const struct tensor_spec outputs[N_OUTPUTS] = {
    {"f", TENSOR_FP32, {2, {-1, 4}}},
    {"b", TENSOR_BOOL, {2, {-1, 3}}},
    {"s", TENSOR_BYTES, {1, {-1}}},
    {"d", TENSOR_INT64, {2, {-1, -1}}},
};

/* A piece 0 that is right, or nearly: its descriptor is written and its frame published. */
static void part_push(struct lease_fixture *f, struct input *in)
{
    uint32_t index = byte(in) % N_OUTPUTS;
    struct channel_frame frame = {.type = CHANNEL_PART,
                                  .flags = CHANNEL_FINAL,
                                  .lease_id = f->replica->lease_id,
                                  .index = index,
                                  .offset = index * 1024u};
    struct channel_tensor t = {.dtype = outputs[index].dtype, .rank = outputs[index].shape.rank};
    uint32_t rows = f->replica->lease ? f->replica->lease->rows : 1;
    t.dims[0] = rows;
    t.dims[1] = index == 0 ? 4 : index == 1 ? 3 : byte(in) % 40;
    t.data = frame.offset + 128;
    t.bytes = index == 2 ? rows * 5u : rows * (uint64_t)t.dims[1] * tensor_dtype_bytes(outputs[index].dtype);
    frame.length = 128 + t.bytes;
    uint8_t spoil = byte(in);
    switch (spoil % 16) {
    case 0:
        t.dims[byte(in) % LIMIT_TENSOR_RANK] = (int64_t)number(in, rows);
        break;
    case 1:
        t.bytes = number(in, t.bytes);
        break;
    case 2:
        t.data = number(in, t.data);
        break;
    case 3:
        frame.length = number(in, frame.length);
        break;
    case 4: /* the rest comes in further pieces */
        frame.flags = CHANNEL_WAIT;
        frame.length -= t.bytes / 2;
        break;
    case 5:
        t.rank = byte(in);
        break;
    case 6:
        t.dtype = byte(in);
        break;
    default:
        break;
    }
    char *slot = channel_slot_own(f->guest, 0);
    memcpy(slot + frame.offset, &t, sizeof t);
    if (index == 1)
        memset(slot + frame.offset + 128, spoil >> 7, 256);
    if (index == 2)
        for (uint32_t i = 0; i < rows; i++) /* elements of one byte */
            memcpy(slot + frame.offset + 128 + i * 5, "\1\0\0\0x", 5);
    publish(f->guest, &frame);
}

/* The next piece of an output that has begun, up to its end unless spoilt. */
static void piece_push(struct lease_fixture *f, struct input *in)
{
    uint32_t index = byte(in) % N_OUTPUTS;
    const struct gateway_output *o = &f->replica->outputs[index];
    struct channel_frame frame = {.type = CHANNEL_PART,
                                  .flags = CHANNEL_FINAL,
                                  .lease_id = f->replica->lease_id,
                                  .index = index,
                                  .a = o->pieces,
                                  .offset = index * 1024u,
                                  .length = o->bytes - o->received};
    uint8_t spoil = byte(in);
    if (spoil % 8 == 0)
        frame.length = number(in, frame.length);
    if (spoil % 8 == 1)
        frame.flags = byte(in);
    publish(f->guest, &frame);
}

static void done_push(struct lease_fixture *f, struct input *in)
{
    struct channel_frame frame = {.type = CHANNEL_DONE, .lease_id = f->replica->lease_id};
    if (byte(in) & 1) {
        frame.status = -1;
        frame.length = byte(in) * 4u;
    }
    publish(f->guest, &frame);
}

static void requests_start(struct lease_fixture *f, uint8_t kinds)
{
    static const char *const bodies[] = {
        "{\"id\":\"r\",\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[1,2],\"data\":[1,2]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[2,2],\"data\":[1,2,3,4]}],\"parameters\":"
        "{\"binary_data_output\":true}}",
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"UINT8\",\"shape\":[1,2],\"data\":[9,9]}],\"outputs\":"
        "[{\"name\":\"d\"},{\"name\":\"s\"}]}",
    };
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        fixture_request(f, bodies[(kinds >> 2 * i) % 3]);
    fixture_need(f->g.requests.count == N_REQUESTS);
    gateway_dispatch(&f->g);
    if (f->replica->state == GATEWAY_REPLICA_GONE) /* it had spoilt its consumer position: no room for the lease */
        fixture_need(f->g.requests.count == 0);
    else
        fixture_need(f->replica->lease && f->replica->lease->n_requests == N_REQUESTS);
}

/* The client of one request goes away while the lease runs. */
static void client_leaves(struct lease_fixture *f, uint64_t id)
{
    struct gateway_request *r = map_remove(&f->g.requests, id);
    if (!r)
        return;
    r->infer_id = 0;
    gateway_request_cancel(r);
}

static void gateway_act(struct lease_fixture *f, struct input *in)
{
    switch (byte(in) % 8) {
    case 0:
    case 1:
    case 2:
        part_push(f, in);
        break;
    case 3:
        done_push(f, in);
        break;
    case 4:
        piece_push(f, in);
        break;
    case 5:
        if (f->replica->lease)
            client_leaves(f, 1 + byte(in) % f->requests);
        break;
    default:
        act(f->guest, in);
        break;
    }
}

static void gateway_behind(struct input *in)
{
    static struct tensor_signature signature = {.n_inputs = 1, .n_outputs = N_OUTPUTS, .batchable = true};
    signature.inputs[0] = (struct tensor_spec){"x", TENSOR_UINT8, {2, {-1, 2}}};
    memcpy(signature.outputs, outputs, sizeof outputs);
    const struct channel_geometry geometry = {N_FRAMES, 1, SLOT_BYTES, SLOT_BYTES};
    struct lease_fixture f;
    fixture_init(&f, &geometry, BODY_BYTES_MAX, LIMIT_BATCH_ITEMS, &signature);
    requests_start(&f, byte(in));
    uint32_t rounds = 1;
    while (in->size > 0 && f.replica->state == GATEWAY_REPLICA_READY) {
        gateway_act(&f, in);
        gateway_replica_pull(f.replica);
        if (f.replica->state == GATEWAY_REPLICA_READY && !f.replica->lease) {
            fixture_need(f.g.requests.count == 0); /* the lease is over: all are answered */
            if (rounds++ < 4)
                requests_start(&f, byte(in));
        }
    }
    fixture_done(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (byte(&in) & 1)
        gateway_behind(&in);
    else
        channel_alone(&in);
    return 0;
}
