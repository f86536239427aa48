/* Read buffers. Taken from a last-in first-out list, so that with few requests in flight the same cache-warm blocks go
 * round however many connections are open. */
#include "wire/wire_internal.h"

static char *inline_data(const struct wire_server *server, struct wire_block *block)
{
    return (char *)(block->headers + server->config.headers_max);
}

struct wire_block *wire_block_take(struct wire_server *server)
{
    struct wire_block *block = server->spare;
    if (block) {
        server->spare = block->next;
        server->n_spare--;
        return block;
    }
    size_t headers_bytes = server->config.headers_max * sizeof(struct wire_header);
    block = malloc(sizeof(*block) + headers_bytes + WIRE_BLOCK_BYTES);
    if (!block)
        return NULL;
    block->headers = (struct wire_header *)(block + 1);
    block->data = inline_data(server, block);
    block->capacity = WIRE_BLOCK_BYTES;
    return block;
}

void wire_block_give(struct wire_server *server, struct wire_block *block)
{
    if (!block)
        return;
    if (block->data != inline_data(server, block)) {
        free(block->data);
        block->data = inline_data(server, block);
        block->capacity = WIRE_BLOCK_BYTES;
    }
    if (server->n_spare >= WIRE_BLOCKS_SPARE_MAX || server->stopped) {
        free(block);
        return;
    }
    block->next = server->spare;
    server->spare = block;
    server->n_spare++;
}

int wire_block_room(struct wire_connection *c, size_t bytes)
{
    struct wire_block *block = c->block;
    if (block->capacity - c->fill >= bytes)
        return 0;
    char *from = block->data + c->begin;
    size_t size = c->fill - c->begin;
    if (block->capacity - size >= bytes) {
        memmove(block->data, from, size);
        wire_parser_moved(&c->parser, from, block->data);
    } else {
        /* All of what is here may belong to the present head, or be body behind it. */
        size_t head_bytes = c->server->config.head_bytes_max > size ? c->server->config.head_bytes_max : size;
        size_t capacity = head_bytes + bytes + WIRE_BLOCK_SLACK_BYTES;
        char *data = malloc(capacity);
        if (!data)
            return -ERROR_NO_MEMORY;
        memcpy(data, from, size);
        wire_parser_moved(&c->parser, from, data);
        if (block->data != inline_data(c->server, block))
            free(block->data);
        block->data = data;
        block->capacity = capacity;
    }
    c->fill = size;
    c->next = c->next >= c->begin ? c->next - c->begin : 0;
    c->begin = 0;
    return 0;
}
