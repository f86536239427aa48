/* System calls that replicas' filters refused: what the gateway tells of them, as status and explain show it. */
#include "control/control_internal.h"

void control_replica_blocked(struct control *c, const struct bus_replica_blocked *body)
{
    struct control_replica *replica = map_get(&c->replicas, body->replica_uid);
    for (uint32_t i = 0; replica && i < body->blocked.n && i <= LIMIT_BLOCKED_CALLS; i++)
        (void)blocked_raise(&replica->blocked, body->blocked.calls[i].number, body->blocked.calls[i].count);
}

void control_blocked_append(const struct blocked_list *list, struct buf *json)
{
    buf_format(json, ",\"blockedCalls\":{\"count\":%llu,\"calls\":[", (unsigned long long)blocked_sum(list));
    for (uint32_t i = 0; i < list->n; i++) {
        char name[BLOCKED_NAME_BYTES];
        const struct blocked_call *call = &list->calls[i];
        buf_format(json, "%s{\"call\":\"%s\",\"count\":%u}", i > 0 ? "," : "", blocked_name(call->number, name),
                   call->count);
    }
    buf_append_text(json, "]}");
}
