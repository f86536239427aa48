/* Who pays for a turn: the requests that it served, by the tokens that each was told, prompt tokens once and answer
 * tokens twice. The scheduler splits the lease by these shares and charges their tenants; quotas are charged the same
 * amounts. A request that ends within the turn pays when the turn does. */
#include "gateway/gateway_internal.h"

#include <assert.h>
#include <string.h>

static struct gateway_share *share_of(struct gateway_batch *b, struct gateway_request *r)
{
    for (uint32_t i = 0; i < b->n_shares; i++)
        if (b->shares[i].request == r)
            return &b->shares[i];
    assert(b->n_shares < LIMIT_SEQUENCES); /* none gets a place while it runs */
    struct gateway_share *share = &b->shares[b->n_shares++];
    *share = (struct gateway_share){.request = r, .version = r->version};
    gateway_version_hold(share->version);
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++) {
        share->quotas[level] = r->quotas[level];
        if (share->quotas[level])
            share->quotas[level]->n_requests++;
    }
    return share;
}

void gateway_share_add(struct gateway_batch *b, struct gateway_request *r, uint64_t served)
{
    if (served > 0 && (b->shared || r->version == b->seat->version))
        share_of(b, r)->served += served;
}

void gateway_share_leave(struct gateway_batch *b, const struct gateway_sequence *s)
{
    struct gateway_request *r = s->request;
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        n += b->sequences[i].request == r;
    if (!b->replica->lease || n > 1)
        return;
    if (gateway_is_stepped(b, s)) /* perhaps for nothing */
        (void)share_of(b, r);
    for (uint32_t i = 0; i < b->n_shares; i++)
        if (b->shares[i].request == r)
            b->shares[i].request = NULL;
}

/* Nobody was told anything: then those whose turn it was were worked on alike. */
static void shares_default(struct gateway_batch *b)
{
    uint64_t served = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (gateway_is_stepped(b, &b->sequences[i]))
            (void)share_of(b, b->sequences[i].request);
    for (uint32_t i = 0; i < b->n_shares; i++)
        served += b->shares[i].served;
    for (uint32_t i = 0; served == 0 && i < b->n_shares; i++)
        b->shares[i].served = b->shares[i].version == b->seat->version;
}

static void share_spend(const struct gateway_share *share, uint64_t cost_ns)
{
    if (share->request) {
        gateway_quota_spend(share->request, SCHEDULE_COMPUTE, cost_ns);
        return;
    }
    struct schedule_quota_ticket none = {0};
    for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
        if (share->quotas[level]) {
            schedule_quota_spend(&share->quotas[level]->schedule, &none, SCHEDULE_COMPUTE, cost_ns,
                                 gateway_quota_time());
            gateway_quota_changed(share->version->gateway, share->quotas[level]);
        }
}

/* Each version's part of it, as one lease. */
static void shares_show(struct gateway_batch *b, const struct schedule_lease *lease, struct schedule_part *parts)
{
    for (uint32_t i = 0; i < b->n_shares; i++) {
        uint64_t cost_ns = parts[i].cost_ns;
        bool shown = false;
        for (uint32_t j = 0; j < i && !shown; j++)
            shown = parts[j].target == parts[i].target;
        for (uint32_t j = i + 1; j < b->n_shares; j++)
            cost_ns += parts[j].target == parts[i].target ? parts[j].cost_ns : 0;
        if (!shown && cost_ns > 0)
            gateway_metrics_lease(b->shares[i].version, cost_ns / lease->slots, lease->slots, b->n_sequences);
    }
}

static void shares_let_go(struct gateway_batch *b)
{
    while (b->n_shares > 0) {
        struct gateway_share *share = &b->shares[--b->n_shares];
        for (int level = 0; level < GATEWAY_QUOTA_LEVELS; level++)
            if (share->quotas[level])
                share->quotas[level]->n_requests--;
        gateway_version_let_go(share->version);
    }
}

void gateway_shares_complete(struct gateway_batch *b, struct schedule_lease *lease)
{
    struct schedule_part parts[LIMIT_SEQUENCES];
    uint64_t sum_ns = 0, now_ns = uv_hrtime(), took_ns = now_ns - lease->started_ns;
    shares_default(b);
    for (uint32_t i = 0; i < b->n_shares; i++)
        parts[i] = (struct schedule_part){.target = &b->shares[i].version->schedule, .weight = b->shares[i].served};
    schedule_complete_parts(b->replica->gateway->schedule, lease, now_ns, parts, b->n_shares);
    for (uint32_t i = 0; i < b->n_shares; i++)
        sum_ns += parts[i].cost_ns;
    for (uint32_t i = 0; i < b->n_shares; i++)
        share_spend(&b->shares[i], parts[i].cost_ns);
    if (sum_ns == 0) {
        gateway_quota_spend_rest(b->seat->version, gateway_quota_cost(lease, took_ns));
        gateway_metrics_lease(b->seat->version, took_ns, lease->slots, b->n_sequences);
    }
    shares_show(b, lease, parts);
    shares_let_go(b);
}

void gateway_shares_lost(struct gateway_batch *b, const struct schedule_lease *lease)
{
    uint64_t cost_ns = gateway_quota_cost(lease, uv_hrtime() - lease->started_ns);
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        n += b->sequences[i].request->version == b->seat->version;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (b->sequences[i].request->version == b->seat->version)
            gateway_quota_spend(b->sequences[i].request, SCHEDULE_COMPUTE, cost_ns / n);
    if (n == 0)
        gateway_quota_spend_rest(b->seat->version, cost_ns);
    shares_let_go(b);
}
