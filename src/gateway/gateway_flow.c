/* Bytes of a tenant: of one body, of one answer, and per second.
 *
 * Bytes per second shape: a request whose turn has not come is accepted, but its body is not read until then, so that
 * it waits in the client and in the kernel and pins no memory here. An answer is never held back; who got a large one
 * waits with the next request. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

#define LOOK_MS 20u

static uint64_t body_announced(const struct gateway_request *r)
{
    int64_t length = r->x->request.content_length;
    return length > 0 ? (uint64_t)length : 0; /* of a chunked body it is known at its end */
}

/* The longest wait of all levels; *ret_level and *ret_limit: whose it is. */
static uint64_t wait_of(const struct gateway_request *r, enum schedule_direction flow, uint64_t now_ns, int *ret_level)
{
    uint64_t longest_ns = 0;
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        uint64_t ns = r->quotas[level] ? schedule_quota_flow_wait(&r->quotas[level]->schedule, flow, now_ns) : 0;
        if (ns <= longest_ns)
            continue;
        longest_ns = ns;
        *ret_level = level;
    }
    return longest_ns;
}

/* What it has used of bytes per second is another now, where it has such a limit. */
static void changed(struct gateway_request *r, int level)
{
    const uint64_t *flows = r->quotas[level]->schedule.limits.flows;
    if (flows[SCHEDULE_BYTES_IN] || flows[SCHEDULE_BYTES_OUT])
        gateway_quota_changed(r->gateway, r->quotas[level]);
}

static void bytes_came(struct gateway_request *r, uint64_t bytes, uint64_t now_ns)
{
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level]) {
            schedule_quota_flow_in(&r->quotas[level]->schedule, bytes, now_ns);
            changed(r, level);
        }
}

int gateway_flow_enter(struct gateway_request *r, uint64_t now_ns, struct error *err)
{
    const struct catalog_quota *row = gateway_quota_row(r->gateway, r->tenant, GATEWAY_QUOTA_TENANT);
    uint64_t bytes = body_announced(r);
    if (row && row->body_bytes > 0 && bytes > row->body_bytes)
        return error_set(err, ERROR_BODY_TOO_LARGE,
                         "The body has %llu bytes; the tenant's quota is %llu (spec.quota.bodyBytes).",
                         (unsigned long long)bytes, (unsigned long long)row->body_bytes);
    uint64_t wait_ns[SCHEDULE_DIRECTION_COUNT];
    for (enum schedule_direction flow = 0; flow < SCHEDULE_DIRECTION_COUNT; flow++) {
        int level = 0;
        wait_ns[flow] = wait_of(r, flow, now_ns, &level);
        struct schedule_quota_refusal refusal = {.limit = flow == SCHEDULE_BYTES_IN ? SCHEDULE_LIMIT_BYTES_IN
                                                                                    : SCHEDULE_LIMIT_BYTES_OUT,
                                                 .retry_ns = wait_ns[flow]};
        if (wait_ns[flow] > LIMIT_FLOW_WAIT_MS * NS_PER_MS)
            return gateway_quota_refuse(r, level, -ERROR_QUOTA_EXCEEDED, &refusal, err);
    }
    r->quota_ready_ns = now_ns + wait_ns[SCHEDULE_BYTES_IN];
    r->quota_bytes = bytes;
    bytes_came(r, bytes, now_ns);
    return 0;
}

size_t gateway_quota_body_max(const struct gateway_request *r, size_t max)
{
    const struct catalog_quota *row =
        r->quotas[GATEWAY_QUOTA_TENANT] ? gateway_quota_row(r->gateway, r->tenant, GATEWAY_QUOTA_TENANT) : NULL;
    return row && row->body_bytes > 0 && row->body_bytes < max ? row->body_bytes : max;
}

void gateway_body_explain(const struct gateway_request *r, int code, size_t max, struct error *err)
{
    const struct gateway *g = r->gateway;
    size_t quota = gateway_quota_body_max(r, max);
    if (code == -ERROR_BODY_TOO_LARGE && quota < max)
        (void)error_set(err, ERROR_BODY_TOO_LARGE,
                        "The body has more than %zu bytes, the tenant's quota (spec.quota.bodyBytes).", quota);
    else if (code == -ERROR_QUEUE_FULL && r->tenant)
        (void)error_set(err, ERROR_QUEUE_FULL,
                        "Bodies of the tenant's requests hold %zu bytes already, of %llu that the server has for all "
                        "tenants: send fewer at once, or faster.",
                        wire_owner_memory(r->tenant->owner), (unsigned long long)g->config.bodies_bytes_max);
    else
        (void)error_set_default(err, -code);
}

/* Goes ahead now, or false. */
static bool ready(struct gateway_request *r, uint64_t now_ns)
{
    int level;
    if (now_ns < r->quota_ready_ns || wait_of(r, SCHEDULE_BYTES_OUT, now_ns, &level) > 0)
        return false;
    for (level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level])
            schedule_quota_flow_expect(&r->quotas[level]->schedule, &r->tickets[level], now_ns);
    return true;
}

static void on_look(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    uint64_t now_ns = uv_hrtime();
    list_each_safe(node, &g->quotas.paused)
    {
        struct gateway_request *r = container_of(node, struct gateway_request, node);
        if (!ready(r, now_ns))
            continue;
        list_remove(node);
        r->quota_paused = false;
        wire_resume(r->x); /* may be its end */
    }
    if (list_empty(&g->quotas.paused))
        (void)uv_timer_stop(timer);
}

void gateway_quota_pace(struct gateway_request *r)
{
    struct gateway *g = r->gateway;
    if ((!r->quotas[GATEWAY_QUOTA_TENANT] && !r->quotas[GATEWAY_QUOTA_KEY]) || ready(r, uv_hrtime()))
        return;
    r->quota_paused = true;
    wire_pause(r->x);
    if (list_empty(&g->quotas.paused))
        (void)uv_timer_start(&g->quotas.timer, on_look, LOOK_MS, LOOK_MS); /* fails only on a closing handle */
    list_append(&g->quotas.paused, &r->node);
}

void gateway_quota_body(struct gateway_request *r)
{
    if (r->quota_bytes == 0 && r->body.size > 0)
        bytes_came(r, r->body.size, uv_hrtime());
}

int gateway_quota_answer(struct gateway_request *r, size_t bytes, struct error *err)
{
    if (!r->quotas[GATEWAY_QUOTA_TENANT] && !r->quotas[GATEWAY_QUOTA_KEY])
        return 0;
    const struct catalog_quota *row = gateway_quota_row(r->gateway, r->tenant, GATEWAY_QUOTA_TENANT);
    if (row && row->response_bytes > 0 && r->streamed_bytes + bytes > row->response_bytes)
        return error_set(
            err, ERROR_RESPONSE_TOO_LARGE,
            "The answer has %zu bytes; the tenant's quota is %llu (spec.quota.responseBytes): ask for fewer "
            "rows or outputs, or for binary ones.",
            (size_t)r->streamed_bytes + bytes, (unsigned long long)row->response_bytes);
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level]) {
            schedule_quota_flow_out(&r->quotas[level]->schedule, &r->tickets[level], bytes, uv_hrtime());
            changed(r, level);
        }
    return 0;
}

void gateway_flow_leave(struct gateway_request *r)
{
    if (!r->quota_paused)
        return;
    list_remove(&r->node);
    r->quota_paused = false;
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (r->quotas[level]) { /* nothing of it was read */
            schedule_quota_flow_unread(&r->quotas[level]->schedule, r->quota_bytes);
            changed(r, level);
        }
}
