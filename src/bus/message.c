#include "bus/message.h"

#include "base/cleanup.h"

#include <stddef.h>

static const struct bus_type_info infos[BUS_TYPE_COUNT] = {
#define X(type, send, receive, body, fds) [BUS_##type] = {#type, send, receive, sizeof(body), fds},
    BUS_MESSAGE_TABLE(X)
#undef X
};

const struct bus_type_info *bus_type_info(uint32_t type)
{
    return type > BUS_NONE && type < BUS_TYPE_COUNT ? &infos[type] : NULL;
}

void bus_message_done(struct bus_message *m)
{
    for (uint32_t i = 0; i < LIMIT_BUS_FDS; i++)
        fd_close(&m->fds[i]);
    m->n_fds = 0;
}
