/* Request objects: a pool, and one setter for their state. */
#include "gateway/gateway_internal.h"

#include <assert.h>

#define REQUESTS_FREE_MAX 1024u
/* Decoded JSON needs at most about 24 bytes per body byte ("[1,1,1…": 2 bytes a number, 16 for its node and 8 for the
 * element); the constant is for small requests. */
#define ARENA_PER_BODY_BYTE 24u
#define ARENA_BASE_BYTES    (256 * KIB)

static const bool moves[GATEWAY_REQUEST_STATE_COUNT][GATEWAY_REQUEST_STATE_COUNT] = {
    [GATEWAY_REQUEST_READING] = {[GATEWAY_REQUEST_HANDLED] = true,
                                 [GATEWAY_REQUEST_LARGE] = true,
                                 [GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_LARGE] = {[GATEWAY_REQUEST_HANDLED] = true, [GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_HANDLED] = {[GATEWAY_REQUEST_WAITING] = true,
                                 [GATEWAY_REQUEST_QUEUED] = true,
                                 [GATEWAY_REQUEST_GENERATING] = true,
                                 [GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_GENERATING] = {[GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_WAITING] = {[GATEWAY_REQUEST_HANDLED] = true, [GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_QUEUED] = {[GATEWAY_REQUEST_LEASED] = true, [GATEWAY_REQUEST_ANSWERED] = true},
    [GATEWAY_REQUEST_LEASED] = {[GATEWAY_REQUEST_QUEUED] = true, [GATEWAY_REQUEST_ANSWERED] = true},
};

void gateway_request_state_set(struct gateway_request *r, enum gateway_request_state state)
{
    assert(moves[r->state][state]);
    r->state = state;
}

struct gateway_request *gateway_request_new(struct gateway *g)
{
    struct list *first = list_first(&g->requests_free);
    struct gateway_request *r;
    if (first) {
        list_remove(first);
        g->n_requests_free--;
        r = container_of(first, struct gateway_request, node);
    } else {
        r = calloc(1, sizeof *r);
        if (!r)
            return NULL;
        arena_init(&r->arena, ARENA_PER_BODY_BYTE * g->config.body_bytes_max + ARENA_BASE_BYTES);
    }
    arena_budget_set(&r->arena, &g->memory, NULL);
    r->gateway = g;
    r->schedule = (struct schedule_request){0};
    r->state = GATEWAY_REQUEST_READING;
    r->x = NULL;
    r->infer_id = 0;
    r->route = NULL;
    r->tenant = NULL;
    r->version = NULL;
    r->arrival_ns = 0;
    r->deadline_ns = 0;
    r->body = (struct str){0};
    r->next = NULL;
    memset(r->quotas, 0, sizeof r->quotas);
    memset(r->tickets, 0, sizeof r->tickets);
    r->refused_by = 0;
    r->quota_bytes = 0;
    r->quota_paused = r->quota_waited = false;
    r->quota_amount = 0;
    r->user = NULL;
    r->release = NULL;
    r->streaming = r->stopped = false;
    r->begun_ns = r->streamed_bytes = 0;
    r->aside = false;
    r->adapter_uid = 0;
    r->lone = NULL;
    r->tried_alone = false;
    r->tokens_paid = r->tokens_free = 0;
    r->id = ++g->request_id_last;
    r->held_bytes = 0;
    return r;
}

void gateway_request_own(struct gateway_request *r, struct gateway_tenant *t)
{
    r->tenant = t;
    t->n_requests++;
    arena_budget_set(&r->arena, &r->gateway->memory, &t->memory);
}

int gateway_memory_explain(const struct gateway_request *r, int code, struct error *err)
{
    int refused = error_info(code) == error_info(ERROR_NO_MEMORY) ? r->arena.refused : 0;
    if (refused == 0)
        return code;
    if (refused != -ERROR_QUEUE_FULL || !r->tenant)
        return error_set_default(err, refused);
    return error_set(
        err, ERROR_QUEUE_FULL,
        "The tenant's requests take %zu bytes already as they are decoded, of %zu that the server has for all "
        "tenants: send fewer at once, or binary tensors.",
        r->tenant->memory.bytes, r->gateway->memory.bytes_max);
}

int gateway_hold(struct gateway_request *r, size_t bytes, struct error *err)
{
    struct gateway *g = r->gateway;
    struct budget_share *share = r->tenant ? &r->tenant->memory : NULL;
    if (bytes <= r->held_bytes) {
        budget_give(&g->memory, share, r->held_bytes - bytes);
        r->held_bytes = bytes;
        return 0;
    }
    int code = budget_take(&g->memory, share, r->held_bytes, bytes - r->held_bytes);
    if (code == -ERROR_QUEUE_FULL)
        return error_set(
            err, ERROR_QUEUE_FULL,
            "The tenant's answers take %zu bytes already while they are gathered, of %zu that the server has "
            "for all tenants: ask for fewer at once, or for streams.",
            share->bytes, g->memory.bytes_max);
    if (code < 0)
        return error_set_default(err, code);
    r->held_bytes = bytes;
    return 0;
}

void gateway_request_free(struct gateway_request *r)
{
    struct gateway *g = r->gateway;
    assert(r->state == GATEWAY_REQUEST_ANSWERED);
    gateway_quota_leave(r);
    void (*release)(void *user) = take(&r->release);
    if (release)
        release(take(&r->user));
    if (r->lone)
        gateway_lone_left(r);
    if (r->version) {
        r->version->n_requests--;
        gateway_version_release(r->version);
    }
    (void)!gateway_hold(r, 0, NULL); /* less never fails */
    arena_reset(&r->arena);
    if (r->tenant)
        r->tenant->n_requests--;
    if (g->n_requests_free >= REQUESTS_FREE_MAX) {
        arena_done(&r->arena);
        free(r);
        return;
    }
    g->n_requests_free++;
    list_prepend(&g->requests_free, &r->node);
}
