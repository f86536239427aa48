/* Whose connections are whose, and which of them gives way when there is no room for another (wire.h, wire_owner).
 *
 * Nothing here happens per request: an owner's connections lie in the order in which they came to it, and only who
 * looks for one that gives way looks at what they do, at a bounded number of them. */
#include "wire/wire_internal.h"

#include <assert.h>

void wire_owners_init(struct wire_server *server)
{
    for (uint32_t rank = 0; rank < WIRE_OWNER_RANKS; rank++)
        list_init(&server->owners[rank]);
    server->nobody.server = server;
    list_init(&server->nobody.connections);
}

static uint32_t rank_of(uint32_t n_connections)
{
    return 31u - (uint32_t)__builtin_clz(n_connections);
}

static void count(struct wire_owner *owner, uint32_t n_connections)
{
    struct wire_server *server = owner->server;
    uint32_t before = owner->n_connections;
    owner->n_connections = n_connections;
    if (before > 0 && n_connections > 0 && rank_of(before) == rank_of(n_connections))
        return;
    list_remove(&owner->in_rank);
    if (before == 0)
        server->n_owners++;
    if (n_connections == 0) {
        server->n_owners--;
        return;
    }
    struct list *rank = &server->owners[rank_of(n_connections)];
    if (owner == &server->nobody) /* first to give way among its like: who has no key is easily many */
        list_prepend(rank, &owner->in_rank);
    else
        list_append(rank, &owner->in_rank);
}

void wire_owner_join(struct wire_owner *owner, struct wire_connection *c)
{
    c->owner = owner;
    list_append(&owner->connections, &c->in_owner);
    count(owner, owner->n_connections + 1);
}

void wire_owner_leave(struct wire_connection *c)
{
    struct wire_owner *owner = c->owner;
    if (!owner)
        return;
    wire_memory_give(c, c->held_bytes);
    c->owner = NULL;
    list_remove(&c->in_owner);
    count(owner, owner->n_connections - 1);
    if (owner->n_connections > 0 || owner == &owner->server->nobody)
        return;
    assert(owner->memory.bytes == 0);
    if (owner->place)
        *owner->place = NULL;
    free(owner);
}

int wire_owner_set(struct wire_exchange *x, struct wire_owner **place)
{
    struct wire_connection *c = container_of(x, struct wire_connection, exchange);
    if (*place && *place == c->owner)
        return 0;
    assert(c->state == WIRE_READ_HEAD && !c->accepted && c->held_bytes == 0);
    struct wire_owner *owner = *place;
    if (!owner) {
        owner = calloc(1, sizeof(*owner));
        if (!owner)
            return -ERROR_NO_MEMORY;
        owner->server = c->server;
        owner->place = place;
        list_init(&owner->connections);
        *place = owner;
    }
    wire_owner_leave(c);
    wire_owner_join(owner, c);
    return 0;
}

bool wire_owner_has(const struct wire_owner *owner, const struct wire_exchange *x)
{
    return owner &&
           container_of((struct wire_exchange *)(uintptr_t)x, struct wire_connection, exchange)->owner == owner;
}

uint32_t wire_owner_connections(const struct wire_owner *owner)
{
    return owner ? owner->n_connections : 0;
}

size_t wire_owner_memory(const struct wire_owner *owner)
{
    return owner ? owner->memory.bytes : 0;
}

void wire_owner_forget(struct wire_owner **place)
{
    struct wire_owner *owner = take(place);
    if (owner)
        owner->place = NULL;
}

/* ---- memory ---- */

static struct budget_share *share_of(const struct wire_connection *c)
{
    return c->owner == &c->server->nobody ? NULL : &c->owner->memory;
}

int wire_memory_take(struct wire_connection *c, size_t bytes)
{
    int result = budget_take(&c->server->memory, share_of(c), c->held_bytes, bytes);
    if (result == 0)
        c->held_bytes += bytes;
    return result;
}

void wire_memory_give(struct wire_connection *c, size_t bytes)
{
    if (bytes > c->held_bytes) /* it was closed, and gave back all */
        bytes = c->held_bytes;
    if (bytes == 0)
        return;
    budget_give(&c->server->memory, share_of(c), bytes);
    c->held_bytes -= bytes;
}

/* ---- who gives way ---- */

enum use { USE_NONE = 0, USE_FRESH, USE_TRANSFER, USE_WORK };

static enum use use_of(const struct wire_connection *c, uint64_t now_ms)
{
    if (c->processing)
        return USE_WORK;
    switch (c->state) {
    case WIRE_IDLE:
    case WIRE_READ_HEAD:
        return !c->served && now_ms - c->opened_ms < WIRE_YIELD_AGE_MS ? USE_FRESH : USE_NONE;
    case WIRE_LINGERING:
        return USE_NONE;
    case WIRE_READ_BODY:
    case WIRE_WRITING:
    case WIRE_DISCARDING:
        return USE_TRANSFER;
    case WIRE_HANDLING:
    case WIRE_STREAMING:
    case WIRE_CLOSING:
    case WIRE_STATE_COUNT:
        break;
    }
    return USE_WORK;
}

/* The one longest between requests among the owner's first; else, if `transfers`, one that receives or sends. Those
 * that are busy are moved to the end, so that the next look begins with others. *ret_fresh: it has one that may give
 * way soon.
 */
static struct wire_connection *candidate(struct wire_owner *owner, bool transfers, uint32_t *n_left, bool *ret_fresh)
{
    struct wire_connection *idle = NULL, *transfer = NULL;
    uint64_t now_ms = wire_socket_now_ms(owner->server);
    uint32_t n = owner->n_connections < WIRE_YIELD_SCAN ? owner->n_connections : WIRE_YIELD_SCAN;
    *ret_fresh = false;
    for (struct list *node = list_first(&owner->connections), *next; n > 0 && *n_left > 0;
         n--, --*n_left, node = next) {
        next = node->next;
        struct wire_connection *c = container_of(node, struct wire_connection, in_owner);
        enum use use = use_of(c, now_ms);
        if (use == USE_NONE && (!idle || c->deadline_ms < idle->deadline_ms))
            idle = c;
        else if (use == USE_TRANSFER && !transfer)
            transfer = c;
        *ret_fresh |= use == USE_FRESH;
        if (use == USE_NONE || use == USE_FRESH)
            continue;
        list_remove(node);
        list_append(&owner->connections, node);
    }
    return idle || !transfers ? idle : transfer;
}

/* It is told why where it waits for a word: not between two requests, when a connection may end at any time. */
static void yield(struct wire_connection *c)
{
    struct wire_server *server = c->server;
    server->stats.yielded++;
    if (c->state == WIRE_READ_HEAD || c->state == WIRE_READ_BODY) {
        struct iovec part = {server->scratch, wire_answer_refusal(server, -ERROR_OVERLOADED)};
        if (part.iov_len > 0 && wire_socket_write(c, &part, 1) > 0) {
            wire_socket_shutdown(c);
            wire_socket_drop(c);
        }
    }
    wire_connection_abort(c, -ERROR_OVERLOADED);
}

bool wire_owners_yield(struct wire_server *server)
{
    uint32_t n_left = WIRE_YIELD_SCAN_ALL, equal = server->config.connections_max / (server->n_owners + 1);
    for (uint32_t rank = WIRE_OWNER_RANKS; rank-- > 0;)
        list_each(node, &server->owners[rank])
        {
            struct wire_owner *owner = container_of(node, struct wire_owner, in_rank);
            bool transfers = owner->n_connections > 1 && owner->n_connections > equal;
            bool fresh = false;
            struct wire_connection *c = n_left > 0 ? candidate(owner, transfers, &n_left, &fresh) : NULL;
            if (!c && fresh) /* nobody who has fewer pays for them */
                return false;
            if (!c)
                continue;
            yield(c);
            return true;
        }
    return false;
}

bool wire_owner_yield(struct wire_owner *owner)
{
    uint32_t n_left = WIRE_YIELD_SCAN;
    bool fresh;
    struct wire_connection *c = owner ? candidate(owner, false, &n_left, &fresh) : NULL;
    if (c)
        yield(c);
    return c != NULL;
}
