/* System calls that a replica's filter refused, as its worker tells: counted for /metrics, told to control, logged
 * once. It is the worker's own word: one that was taken over may tell too few or too many of its own model, and nothing
 * is decided by it. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"
#include "base/log.h"

#define LOG_AGAIN_NS (60 * NS_PER_S) /* per model, however often its worker is replaced */

int gateway_blocked_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err)
{
    if (replica->state < GATEWAY_REPLICA_LOADING || f->a == 0)
        return error_set(err, ERROR_PEER, "refused calls before its model, or none of them");
    uint32_t grown = blocked_raise(&replica->blocked, f->index, f->a);
    replica->blocked_untold = replica->blocked_untold || grown > 0;
    if (replica->version)
        gateway_metrics_blocked(replica->version, grown);
    return 0;
}

static void log_once(struct gateway_replica *replica)
{
    struct gateway_version *v = replica->version;
    uint64_t now_ns = uv_hrtime();
    char words[BLOCKED_WORDS_BYTES];
    if (!v || replica->blocked_logged)
        return;
    replica->blocked_logged = true;
    if (v->blocked_logged_ns > 0 && now_ns - v->blocked_logged_ns < LOG_AGAIN_NS)
        return;
    v->blocked_logged_ns = now_ns;
    log_warn("worker_blocked_calls",
             "tenant=%s model=%s: its worker made system calls that no worker may make, and got EPERM: %s",
             v->tenant->name, v->model, blocked_words(&replica->blocked, words));
}

void gateway_blocked_tell(struct gateway_replica *replica)
{
    if (!replica->blocked_untold)
        return;
    struct bus_replica_blocked body = {.replica_uid = replica->uid, .blocked = replica->blocked};
    log_once(replica);
    if (replica->gateway->control && bus_conn_send(replica->gateway->control, BUS_REPLICA_BLOCKED, &body, NULL, 0) >= 0)
        replica->blocked_untold = false;
}
