/* Where the bytes of a body go. */
#include "wire/wire_internal.h"

#include <assert.h>

static size_t body_begin(const struct wire_connection *c)
{
    return c->begin + c->head_bytes;
}

/* Grows the body's own memory to hold `wanted`, at least doubling, at most to `most`. */
static int memory_grow(struct wire_connection *c, size_t wanted, size_t most)
{
    struct wire_body *body = &c->body;
    if (wanted <= body->capacity)
        return 0;
    size_t capacity = body->capacity > 0 ? body->capacity * 2 : WIRE_BODY_FIRST_BYTES;
    if (capacity < wanted)
        capacity = wanted;
    if (capacity > most)
        capacity = most;
    size_t extra = capacity - body->capacity;
    int result = wire_memory_take(c, extra);
    if (result < 0)
        return result;
    char *memory = realloc(body->memory, capacity);
    if (!memory) {
        wire_memory_give(c, extra);
        return -ERROR_NO_MEMORY;
    }
    body->memory = memory;
    body->capacity = capacity;
    return 0;
}

void wire_body_release(struct wire_connection *c)
{
    wire_memory_give(c, c->body.capacity);
    free(c->body.memory);
    c->body = (struct wire_body){0};
}

void wire_body_measure(struct wire_connection *c)
{
    uint64_t length = c->exchange.request.content_length > 0 ? (uint64_t)c->exchange.request.content_length : 0;
    size_t here = c->fill - body_begin(c);
    if (here > length)
        here = (size_t)length;
    c->next = body_begin(c) + here;
    c->body.remaining = length - here;
}

int wire_body_start(struct wire_connection *c)
{
    struct wire_body *body = &c->body;
    const struct wire_request *request = &c->exchange.request;
    if (request->chunked) {
        body->kind = WIRE_BODY_CHUNKED;
        return 0;
    }
    if (request->content_length <= 0) {
        body->kind = WIRE_BODY_NONE;
        return 0;
    }
    uint64_t length = (uint64_t)request->content_length;
    if (length > body->bytes_max)
        return -ERROR_BODY_TOO_LARGE;
    size_t here = c->next - body_begin(c);
    if (body->mode == WIRE_STREAM) {
        body->kind = WIRE_BODY_STREAM;
        if (body->remaining == 0)
            return 0;
        size_t chunk = body->remaining < WIRE_STREAM_BYTES ? (size_t)body->remaining : WIRE_STREAM_BYTES;
        return memory_grow(c, chunk, chunk);
    }
    if (length <= c->block->capacity - body_begin(c)) {
        body->kind = WIRE_BODY_IN_PLACE;
        return 0;
    }
    body->kind = WIRE_BODY_MEMORY;
    int result = memory_grow(c, here + 1, (size_t)length);
    if (result < 0)
        return result;
    memcpy(body->memory, c->block->data + body_begin(c), here);
    body->size = here;
    c->fill = c->next = body_begin(c); /* remaining > 0, so nothing of the next request is here */
    return 0;
}

struct iovec wire_body_space(struct wire_connection *c)
{
    struct wire_body *body = &c->body;
    if (body->kind == WIRE_BODY_MEMORY || body->kind == WIRE_BODY_STREAM) {
        size_t free_bytes = body->capacity - body->size;
        if (free_bytes > body->remaining)
            free_bytes = (size_t)body->remaining;
        if (free_bytes > WIRE_READ_BYTES_MAX)
            free_bytes = WIRE_READ_BYTES_MAX;
        return (struct iovec){body->memory + body->size, free_bytes};
    }
    return (struct iovec){c->block->data + c->fill, c->block->capacity - c->fill};
}

void wire_body_received(struct wire_connection *c, size_t size)
{
    struct wire_body *body = &c->body;
    body->window_bytes += size;
    if (body->kind == WIRE_BODY_MEMORY || body->kind == WIRE_BODY_STREAM) {
        body->size += size;
        body->remaining -= size;
        return;
    }
    c->fill += size;
    if (body->kind == WIRE_BODY_IN_PLACE) {
        size_t wanted = size < body->remaining ? size : (size_t)body->remaining;
        body->remaining -= wanted;
        c->next += wanted;
    }
}

static bool stream_goes_on(const struct wire_connection *c)
{
    return c->state == WIRE_READ_BODY && !c->answered && !c->body.paused;
}

static void deliver(struct wire_connection *c, const char *data, size_t size)
{
    c->server->handler->data(c->server->ctx, &c->exchange, (struct str){data, size});
}

static int advance_stream(struct wire_connection *c)
{
    struct wire_body *body = &c->body;
    size_t here = c->next - body_begin(c);
    if (here > 0) { /* what came with the head */
        const char *data = c->block->data + body_begin(c);
        if (c->next == c->fill)
            c->next = c->fill = body_begin(c);
        else /* the next request is behind it already: the body is complete */
            c->head_bytes += here;
        deliver(c, data, here);
    } else if (body->size > 0) {
        size_t size = body->size;
        body->size = 0;
        deliver(c, body->memory, size);
    }
    return stream_goes_on(c) && body->remaining == 0;
}

/* Gathers what was decoded; if all of it lies behind the head, it stays there. */
static int chunked_whole(struct wire_connection *c, size_t decoded, bool complete)
{
    struct wire_body *body = &c->body;
    char *data = c->block->data + body_begin(c);
    if (complete && body->size == 0) {
        c->exchange.body = (struct str){data, decoded};
        return 1;
    }
    if (decoded > 0) {
        int result = memory_grow(c, body->size + decoded, body->bytes_max);
        if (result < 0)
            return result;
        memcpy(body->memory + body->size, data, decoded);
        body->size += decoded;
    }
    if (complete)
        c->exchange.body = (struct str){body->memory, body->size};
    return complete;
}

static int advance_chunked(struct wire_connection *c)
{
    struct wire_body *body = &c->body;
    size_t begin = body_begin(c), decoded, consumed;
    if (c->parser.complete) /* the handler had paused on the last chunk */
        return 1;
    int complete = wire_parser_chunks(&c->parser, c->block->data + begin, c->fill - begin, &decoded, &consumed);
    if (complete < 0)
        return complete;
    if (c->parser.body_bytes > body->bytes_max)
        return -ERROR_BODY_TOO_LARGE;
    if (complete)
        c->next = begin + consumed;
    else
        c->next = c->fill = begin;
    if (body->mode == WIRE_WHOLE)
        return chunked_whole(c, decoded, complete);
    if (decoded > 0)
        deliver(c, c->block->data + begin, decoded);
    return stream_goes_on(c) && complete;
}

int wire_body_advance(struct wire_connection *c)
{
    struct wire_body *body = &c->body;
    switch (body->kind) {
    case WIRE_BODY_NONE:
        return 1;
    case WIRE_BODY_IN_PLACE:
        if (body->remaining > 0)
            return 0;
        c->exchange.body = (struct str){c->block->data + body_begin(c), c->next - body_begin(c)};
        return 1;
    case WIRE_BODY_MEMORY:
        if (body->remaining > 0) {
            uint64_t length = (uint64_t)c->exchange.request.content_length;
            return body->size < body->capacity ? 0 : memory_grow(c, body->size + 1, (size_t)length);
        }
        c->exchange.body = (struct str){body->memory, body->size};
        return 1;
    case WIRE_BODY_STREAM:
        return advance_stream(c);
    case WIRE_BODY_CHUNKED:
        return advance_chunked(c);
    }
    assert(false);
    return -ERROR_INTERNAL;
}
