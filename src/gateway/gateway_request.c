/* Request objects: a pool, and one setter for their state. */
#include "gateway/gateway_internal.h"

#include <assert.h>

#define REQUESTS_FREE_MAX 1024u
/* Decoded JSON needs at most about 24 bytes per body byte ("[1,1,1…": 2 bytes a number, 16 for its node and 8 for the
 * element); the constant is for small requests. */
#define ARENA_PER_BODY_BYTE 24u
#define ARENA_BASE_BYTES    (256 * KIB)

static const bool moves[GATEWAY_REQUEST_STATE_COUNT][GATEWAY_REQUEST_STATE_COUNT] = {
    [GATEWAY_REQUEST_READING] = {[GATEWAY_REQUEST_HANDLED] = true, [GATEWAY_REQUEST_ANSWERED] = true},
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
    r->quota_refused = 0;
    r->quota_bytes = 0;
    r->quota_paused = r->quota_waited = false;
    r->quota_amount = 0;
    r->user = NULL;
    r->release = NULL;
    r->streaming = r->stopped = false;
    r->begun_ns = r->streamed_bytes = 0;
    r->lone = NULL;
    r->tried_alone = false;
    r->id = ++g->request_id_last;
    return r;
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
    if (r->tenant)
        r->tenant->n_requests--;
    arena_reset(&r->arena);
    if (g->n_requests_free >= REQUESTS_FREE_MAX) {
        arena_done(&r->arena);
        free(r);
        return;
    }
    g->n_requests_free++;
    list_prepend(&g->requests_free, &r->node);
}
