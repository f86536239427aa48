/* From the wire to a handler: route, authenticate, admit, take the body. And back: answers. */
#include "gateway/gateway_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <sys/mman.h>

/* --- routes --- */

static struct str segment_next(struct str *rest)
{
    size_t size = 0;
    while (size < rest->size && rest->data[size] != '/')
        size++;
    struct str segment = {rest->data, size};
    *rest = str_skip(*rest, size);
    return segment;
}

static bool path_matches(const char *pattern, struct str path, struct str params[static GATEWAY_PARAMS_MAX])
{
    struct str rest = str_from(pattern);
    size_t n_params = 0;
    while (rest.size > 0 && path.size > 0) {
        if (rest.data[0] != '/' || path.data[0] != '/')
            return false;
        rest = str_skip(rest, 1);
        path = str_skip(path, 1);
        struct str want = segment_next(&rest), have = segment_next(&path);
        if (!str_equal(want, STR("{}"))) {
            if (!str_equal(want, have))
                return false;
            continue;
        }
        if (have.size == 0 || n_params == GATEWAY_PARAMS_MAX)
            return false;
        params[n_params++] = have;
    }
    return rest.size == 0 && path.size == 0;
}

/* The route; or NULL, with *ret_path_known when another method would match. HEAD is GET without a body. */
static const struct gateway_route *route_find(const struct wire_request *request,
                                              struct str params[static GATEWAY_PARAMS_MAX], bool *ret_path_known)
{
    enum wire_method method = request->method == WIRE_HEAD ? WIRE_GET : request->method;
    *ret_path_known = false;
    for (size_t i = 0; gateway_surfaces[i]; i++)
        for (size_t k = 0; k < gateway_surfaces[i]->n_routes; k++) {
            const struct gateway_route *route = &gateway_surfaces[i]->routes[k];
            if (!path_matches(route->path, request->path, params))
                continue;
            if (route->method == method)
                return route;
            *ret_path_known = true;
        }
    return NULL;
}

/* --- answers --- */

static void error_body(int code, const char *text, struct buf *body)
{
    buf_append_text(body, "{\"error\":");
    buf_append_json(body, str_from(text));
    buf_format(body, ",\"code\":\"%s\"}", error_info(code)->name);
}

static void count_answer(struct gateway *g, int status)
{
    if (status < 400)
        g->stats.requests++;
    else if (status < 500)
        g->stats.refused++;
    else
        g->stats.failed++;
}

int gateway_bus_answers_start(struct gateway *g)
{
    _buf_ struct buf body;
    buf_init(&body, KIB);
    error_body(-ERROR_NO_MEMORY, error_info(-ERROR_NO_MEMORY)->text, &body);
    g->no_memory_bytes = body.size;
    return body.failed ? body.failed : bus_memfd("bulkhead-answer", body.data, body.size, &g->no_memory_fd);
}

/* An answer for the operator. Where there is no memory for it, the one that was made at the start says so: without any,
 * control would wait for ever. */
static void bus_answer(struct gateway *g, uint64_t id, int status, struct str body)
{
    struct bus_infer_done done = {.id = id, .bytes = body.size, .http_status = (uint32_t)status};
    _close_ int fd = -1;
    if (!body.data || bus_memfd("bulkhead-answer", body.data, body.size, &fd) < 0) {
        log_error("infer_answer", "no memory for a request of the operator, or its answer of %zu bytes", body.size);
        done.bytes = g->no_memory_bytes;
        done.http_status = (uint32_t)error_info(-ERROR_NO_MEMORY)->http_status;
    }
    /* a new control does not wait for it */
    (void)bus_conn_send(g->control, BUS_INFER_DONE, &done, fd >= 0 ? &fd : &g->no_memory_fd, 1);
}

void gateway_answer(struct gateway_request *r, int status, const char *content_type, const struct wire_header *headers,
                    uint32_t n_headers, struct str body)
{
    count_answer(r->gateway, status);
    gateway_metrics_answer(r, status);
    if (r->state != GATEWAY_REQUEST_ANSWERED)
        gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
    if (r->infer_id) {
        (void)map_remove(&r->gateway->requests, r->infer_id);
        bus_answer(r->gateway, r->infer_id, status, body);
        gateway_request_free(r);
        return;
    }
    if (!r->x) { /* the client went away meanwhile */
        gateway_request_free(r);
        return;
    }
    struct gateway_quota_headers quota;
    gateway_quota_headers(r, &quota);
    assert(n_headers <= sizeof quota.headers / sizeof quota.headers[0] - GATEWAY_QUOTA_HEADERS_MAX);
    for (uint32_t i = 0; i < n_headers; i++)
        quota.headers[quota.n++] = headers[i];
    struct wire_answer answer = {
        .status = status, .content_type = content_type, .headers = quota.headers, .n_headers = quota.n, .body = body};
    wire_answer(r->x, &answer); /* done() or reset() frees r */
}

static void fail(struct gateway_request *r, int code, const struct error *err, struct str body)
{
    const struct error_info *info = error_info(code);
    if (r->arrival_ns != 0 && (r->x || r->infer_id))
        gateway_stats_failure(r);
    gateway_metrics_refusal(r, code < 0 ? code : -code);
    gateway_quota_refund(r, code);
    char seconds[16];
    struct wire_header header;
    uint32_t n_headers = 0;
    if (info->retryable) {
        uint32_t ms = err && err->retry_after_ms > 0 ? err->retry_after_ms : 1000;
        (void)snprintf(seconds, sizeof seconds, "%u", (ms + 999) / 1000);
        header = (struct wire_header){STR("Retry-After"), str_from(seconds)};
        n_headers = 1;
    } else if (info->http_status == 401) {
        header = (struct wire_header){STR("WWW-Authenticate"), STR("Bearer")};
        n_headers = 1;
    }
    gateway_answer(r, info->http_status, "application/json", n_headers > 0 ? &header : NULL, n_headers, body);
}

/* The surface whose errors this request gets, or NULL. */
static const struct gateway_surface *surface_of(const struct gateway_request *r)
{
    for (size_t i = 0; r->x && gateway_surfaces[i]; i++) {
        const struct gateway_surface *s = gateway_surfaces[i];
        bool mine = r->route && r->route >= s->routes && r->route < s->routes + s->n_routes;
        if (s->error_body && (mine || str_starts(r->x->request.path, str_from(s->prefix))))
            return s;
    }
    return NULL;
}

void gateway_fail(struct gateway_request *r, int code, const struct error *err)
{
    struct buf *body = &r->gateway->answer;
    const struct gateway_surface *surface = surface_of(r);
    struct error refused = {0};
    int told = gateway_memory_explain(r, code, &refused);
    if (told != code) {
        code = told;
        err = &refused;
    }
    buf_clear(body);
    if (surface)
        surface->error_body(code, error_text(err, code), body);
    else
        error_body(code, error_text(err, code), body);
    fail(r, code, err, (struct str){body->data, body->size});
}

void gateway_refuse(struct gateway_request *r, int code, struct str body)
{
    fail(r, code, NULL, body);
}

static void on_error_answer(void *ctx, int code, const char *text, struct wire_answer *answer)
{
    struct gateway *g = ctx;
    buf_clear(&g->answer);
    error_body(code, text, &g->answer);
    count_answer(g, error_info(code)->http_status);
    gateway_metrics_other(g, error_info(code)->http_status);
    answer->status = error_info(code)->http_status;
    answer->content_type = "application/json";
    answer->body = (struct str){g->answer.data, g->answer.size};
}

/* --- requests --- */

static int admit(struct gateway_request *r, const char *key_id, struct error *err)
{
    struct gateway *g = r->gateway;
    if (g->draining && r->route->scope != GATEWAY_OPEN)
        return error_set_default(err, ERROR_DRAINING);
    return r->route->metered ? gateway_quota_enter(r, key_id, err) : 0;
}

/* The connection becomes the tenant's. At its quota another one of it that does nothing gives way; where all are busy
 * this one is not taken. */
static int connection_own(struct gateway_request *r, struct error *err)
{
    struct gateway_tenant *tenant = r->tenant;
    struct wire_exchange *x = r->x;
    if (wire_owner_has(tenant->owner, x))
        return 0;
    const struct catalog_quota *row = gateway_quota_row(r->gateway, tenant, GATEWAY_QUOTA_TENANT);
    if (row && row->connections > 0 && wire_owner_connections(tenant->owner) >= row->connections &&
        !wire_owner_yield(tenant->owner)) {
        wire_close_after(x);
        r->refused_by = BUS_METRICS_CONNECTIONS;
        return error_set(err, ERROR_QUOTA_EXCEEDED,
                         "The tenant's quota of %llu connections at once is used up (spec.quota.connections).",
                         (unsigned long long)row->connections);
    }
    int code = wire_owner_set(x, &tenant->owner);
    return code < 0 ? error_set_default(err, code) : 0;
}

static int head_check(struct gateway_request *r, struct error *err)
{
    struct wire_exchange *x = r->x;
    bool path_known = false;
    const char *key_id = NULL; /* a metered route has a tenant */
    r->route = route_find(&x->request, r->params, &path_known);
    if (!r->route || r->route->scope != GATEWAY_OPEN) {
        struct gateway_tenant *tenant = NULL;
        int code = gateway_authenticate(r->gateway, x, &tenant, &key_id, err);
        if (code < 0)
            return code;
        gateway_request_own(r, tenant);
        code = connection_own(r, err);
        if (code < 0)
            return code;
    }
    if (!r->route)
        return error_set_default(err, path_known ? ERROR_METHOD_NOT_ALLOWED : ERROR_NOT_FOUND);
    return admit(r, key_id, err);
}

static size_t body_bytes_max(const struct gateway_request *r)
{
    return r->route->body_bytes_max == SIZE_MAX ? r->gateway->config.body_bytes_max : r->route->body_bytes_max;
}

static void on_head(void *ctx, struct wire_exchange *x)
{
    struct gateway *g = ctx;
    struct gateway_request *r = gateway_request_new(g);
    if (!r) {
        static const char body[] = "{\"error\":\"The server is out of memory.\",\"code\":\"no_memory\"}";
        struct wire_answer answer = {
            .status = 503, .content_type = "application/json", .body = {body, sizeof body - 1}, .close = true};
        wire_answer(x, &answer);
        return;
    }
    r->x = x;
    x->user = r;
    struct error err = {0};
    int code = head_check(r, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    wire_accept(x, WIRE_WHOLE, gateway_quota_body_max(r, body_bytes_max(r)));
    gateway_quota_pace(r);
}

static void on_end(void *ctx, struct wire_exchange *x)
{
    struct gateway *g = ctx;
    struct gateway_request *r = x->user;
    g->stats.bytes_in += x->body.size;
    r->body = x->body;
    gateway_quota_body(r);
    if (r->body.size >= LIMIT_TURN_BYTES)
        gateway_large_add(r);
    else
        gateway_request_handle(r);
}

static void on_body_refused(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    struct gateway_request *r = x->user;
    struct error err = {0};
    gateway_body_explain(r, code, body_bytes_max(r), &err);
    gateway_fail(r, code, &err);
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    (void)code;
    struct gateway_request *r = x->user;
    if (!r)
        return;
    r->x = NULL;
    r->body = (struct str){0};
    gateway_request_cancel(r);
}

static void on_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    struct gateway_request *r = x->user;
    if (r)
        gateway_request_free(r);
}

/* The client of a stream reads again. */
static void on_room(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    gateway_generate_resume(x->user);
}

const struct wire_handler gateway_wire_handler = {
    .head = on_head,
    .end = on_end,
    .body_refused = on_body_refused,
    .reset = on_reset,
    .done = on_done,
    .room = on_room,
    .closed = gateway_connection_closed,
    .error_answer = on_error_answer,
};

/* --- a request that came over the bus --- */

static int bus_infer_start(struct gateway_request *r, const struct bus_infer *body, int fd, struct error *err)
{
    struct gateway *g = r->gateway;
    const void *data = NULL;
    if (body->bytes > g->config.body_bytes_max)
        return error_set_default(err, ERROR_BODY_TOO_LARGE);
    const struct catalog_tenant *row = g->catalog ? catalog_tenant_find(g->catalog, str_from(body->tenant)) : NULL;
    struct gateway_tenant *tenant = row ? map_get(&g->tenants, row->uid) : NULL;
    if (!tenant)
        return error_set(err, ERROR_NOT_FOUND, "There is no such tenant.");
    gateway_request_own(r, tenant);
    int code = bus_memfd_map(fd, body->bytes, &data);
    if (code < 0)
        return error_set_default(err, code);
    char *copy = arena_copy(&r->arena, (struct str){data, body->bytes});
    char *model = arena_copy(&r->arena, str_from(body->model));
    if (data)
        (void)munmap((void *)(uintptr_t)data, body->bytes); /* our own mapping */
    if (!copy || !model)
        return error_set_default(err, ERROR_NO_MEMORY);
    r->body = (struct str){copy, body->bytes};
    struct gateway_version *version;
    code = gateway_version_find(r, str_from(model), (struct str){0}, &version, err);
    if (code < 0)
        return code;
    gateway_infer(r, version, r->body.size);
    return 0;
}

void gateway_bus_infer(struct gateway *g, const struct bus_infer *body, int fd)
{
    struct gateway_request *r = gateway_request_new(g);
    if (!r || map_put(&g->requests, body->id, r) < 0) {
        bus_answer(g, body->id, 0, (struct str){0});
        if (r) {
            gateway_request_state_set(r, GATEWAY_REQUEST_ANSWERED);
            gateway_request_free(r);
        }
        return;
    }
    r->infer_id = body->id;
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    struct error err = {0};
    int code = bus_infer_start(r, body, fd, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
}

void gateway_bus_infers_lost(struct gateway *g)
{
    struct map lost = g->requests;
    map_init(&g->requests, lost.count_max);
    size_t cursor = 0;
    for (struct gateway_request *r; (r = map_next(&lost, &cursor));) {
        r->infer_id = 0;
        gateway_request_cancel(r); /* one that is leased goes with its lease */
    }
    map_done(&lost);
}

/* --- what handlers see --- */

struct gateway *gateway_of(const struct gateway_request *r)
{
    return r->gateway;
}

struct arena *gateway_arena(struct gateway_request *r)
{
    return &r->arena;
}

void gateway_user_set(struct gateway_request *r, void *user, void (*release)(void *user))
{
    assert(!r->release);
    r->user = user;
    r->release = release;
}

void *gateway_user(const struct gateway_request *r)
{
    return r->user;
}

struct str gateway_param(const struct gateway_request *r, size_t index)
{
    assert(index < GATEWAY_PARAMS_MAX);
    return r->params[index];
}

struct str gateway_body(const struct gateway_request *r)
{
    return r->body;
}

struct str gateway_header(const struct gateway_request *r, struct str name)
{
    return r->x ? wire_header_find(&r->x->request, name) : (struct str){0};
}

bool gateway_ready(const struct gateway *g)
{
    return g->catalog && !g->draining;
}
