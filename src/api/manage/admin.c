/* The admin surface: exchanges of the admin socket become calls of control, by a table of routes. */
#include "admin_internal.h"

#include <assert.h>
#include <stdlib.h>

static void error_body(struct buf *body, int code, const char *text)
{
    buf_append_text(body, "{\"error\":");
    buf_append_json(body, str_from(text));
    buf_format(body, ",\"code\":\"%s\"}\n", error_info(code)->name);
}

/* Frees the request when neither wire nor control will come back to it. */
static void request_release(struct admin_request *request)
{
    if (!request->finished || request->callbacks > 0)
        return;
    registry_upload_abort(request->upload);
    buf_done(&request->answer);
    free(request);
}

static void answer_buffer(struct admin_request *request, int status)
{
    struct wire_exchange *x = take(&request->exchange);
    if (!x)
        return;
    struct wire_answer answer = {.status = status,
                                 .content_type = request->content_type ? request->content_type : "application/json",
                                 .body = {request->answer.data, request->answer.size},
                                 .body_owned = request->answer.data};
    request->answer = (struct buf){.capacity_max = ADMIN_ANSWER_BYTES_MAX};
    wire_answer(x, &answer); /* may end in admin_done: request may be gone */
}

void admin_answer(struct admin_request *request, int status)
{
    if (request->answer.failed) {
        admin_answer_error(request, request->answer.failed, NULL);
        return;
    }
    answer_buffer(request, status);
}

void admin_answer_error(struct admin_request *request, int code, const struct error *err)
{
    buf_clear(&request->answer);
    error_body(&request->answer, code, error_text(err, code));
    answer_buffer(request, error_info(code)->http_status);
}

void admin_callback_end(struct admin_request *request)
{
    assert(request->callbacks > 0);
    request->callbacks--;
    request_release(request);
}

/* --- finding the route --- */

/* The next part of a path, and what remains behind its slash. */
static bool path_part(struct str *path, struct str *ret_part)
{
    if (path->size == 0 || path->data[0] != '/')
        return false;
    struct str rest = str_skip(*path, 1);
    size_t length = 0;
    while (length < rest.size && rest.data[length] != '/')
        length++;
    *ret_part = (struct str){rest.data, length};
    *path = str_skip(rest, length);
    return true;
}

static bool route_matches(const struct admin_route *route, struct str path, struct str *ret_kind, struct str *ret_name)
{
    struct str pattern = str_from(route->path), wanted, part;
    while (path_part(&pattern, &wanted)) {
        if (!path_part(&path, &part) || part.size == 0)
            return false;
        if (str_equal(wanted, STR("{kind}")))
            *ret_kind = part;
        else if (str_equal(wanted, STR("{name}")))
            *ret_name = part;
        else if (!str_equal(wanted, part))
            return false;
    }
    return path.size == 0;
}

static int request_route(struct admin_request *request, const struct wire_request *head, struct error *err)
{
    bool other_method = false;
    struct str unknown = {NULL, 0};
    for (const struct admin_route *route = admin_routes; route->path; route++) {
        struct str kind = {NULL, 0}, name = {NULL, 0};
        if (!route_matches(route, head->path, &kind, &name))
            continue;
        enum resource_kind number = kind.size > 0 ? resource_kind_from_name(kind) : RESOURCE_NONE;
        if (kind.size > 0 && number == RESOURCE_NONE) {
            unknown = kind;
            continue;
        }
        if (route->method != head->method) {
            other_method = true;
            continue;
        }
        request->route = route;
        request->kind = number;
        request->name = name;
        return 0;
    }
    if (unknown.size > 0 && !other_method)
        return error_set(err, -ERROR_NOT_FOUND, "there is no kind \"" STR_FORMAT "\"",
                         (int)(unknown.size < 64 ? unknown.size : 64), unknown.data);
    return error_set_default(err, other_method ? -ERROR_METHOD_NOT_ALLOWED : -ERROR_NOT_FOUND);
}

/* Is `name` one of the words of `list`? */
static bool list_has(const char *list, struct str name)
{
    while (list && *list) {
        size_t length = strcspn(list, " ");
        if (str_equal((struct str){list, length}, name))
            return true;
        list += length + (list[length] == ' ');
    }
    return false;
}

/* `tenant=…&model=…`: every value is a token, so nothing needs decoding. */
static int request_query(struct admin_request *request, struct str query, struct error *err)
{
    while (query.size > 0) {
        const char *end = memchr(query.data, '&', query.size);
        struct str pair = {query.data, end ? (size_t)(end - query.data) : query.size};
        query = str_skip(query, pair.size + (end ? 1 : 0));
        const char *equals = pair.size > 0 ? memchr(pair.data, '=', pair.size) : NULL;
        struct str name = {pair.data, equals ? (size_t)(equals - pair.data) : pair.size};
        struct str value = equals ? str_skip(pair, name.size + 1) : (struct str){"", 0};
        if (!list_has(request->route->query, name))
            return error_set(err, -ERROR_INVALID_REQUEST, "this address does not take \"" STR_FORMAT "\" in its query",
                             (int)(name.size < 64 ? name.size : 64), name.data ? name.data : "");
        if (value.size > 0 && !str_is_name(value))
            return error_set_default(err, -ERROR_INVALID_NAME);
        if (str_equal(name, STR("tenant")))
            request->tenant = value;
        else
            request->model = value;
    }
    return 0;
}

/* --- the wire handler --- */

static void admin_head(void *ctx, struct wire_exchange *x)
{
    struct admin_request *request = calloc(1, sizeof *request);
    if (!request) {
        wire_answer(x, &(struct wire_answer){
                           .status = 503,
                           .content_type = "application/json",
                           .body = STR("{\"error\":\"The server is out of memory.\",\"code\":\"no_memory\"}\n"),
                           .close = true});
        return;
    }
    request->control = ctx;
    request->exchange = x;
    buf_init(&request->answer, ADMIN_ANSWER_BYTES_MAX);
    x->user = request;
    struct error err = {0};
    int rc = request_route(request, &x->request, &err);
    if (rc >= 0)
        rc = request_query(request, x->request.query, &err);
    if (rc >= 0 && request->route->mode == WIRE_STREAM)
        rc = registry_upload_begin(control_registry(request->control), &request->upload, &err);
    if (rc < 0) {
        admin_answer_error(request, rc, &err);
        return;
    }
    wire_accept(x, request->route->mode, request->route->body_max);
}

static void admin_data(void *ctx, struct wire_exchange *x, struct str chunk)
{
    (void)ctx;
    struct admin_request *request = x->user;
    if (!request || !request->exchange)
        return; /* refused meanwhile */
    struct error err = {0};
    int rc = registry_upload_write(request->upload, chunk, &err);
    if (rc >= 0)
        return;
    registry_upload_abort(take(&request->upload));
    admin_answer_error(request, rc, &err);
}

static void admin_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    struct admin_request *request = x->user;
    if (!request || !request->exchange)
        return; /* refused meanwhile */
    struct error err = {0};
    int rc = request->route->handler(request, x->body, &err);
    if (rc < 0)
        admin_answer_error(request, rc, &err);
}

static void admin_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    struct admin_request *request = x->user;
    if (!request)
        return;
    x->user = NULL;
    request->exchange = NULL;
    request->finished = true;
    if (request->apply) {
        control_apply_cancel(take(&request->apply));
        request->callbacks--;
    }
    request_release(request);
}

static void admin_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)code;
    admin_done(ctx, x);
}

static void admin_error_answer(void *ctx, int code, const char *text, struct wire_answer *answer)
{
    (void)ctx;
    struct buf body;
    buf_init(&body, 4 * KIB);
    error_body(&body, code, text && text[0] ? text : error_info(code)->text);
    answer->content_type = "application/json";
    answer->body = (struct str){body.data, body.size};
    answer->body_owned = body.data;
}

/* peer_allowed is left to the one who starts the server: the socket's mode and group (0660) already decide who
 * connects, and only control's start-up knows the group's number. */
static bool admin_peer_allowed(void *ctx, uid_t uid, gid_t gid, pid_t pid)
{
    (void)gid;
    (void)pid;
    return control_peer_allowed(ctx, uid);
}

const struct wire_handler manage_admin_handler = {
    .head = admin_head,
    .data = admin_data,
    .end = admin_end,
    .reset = admin_reset,
    .done = admin_done,
    .error_answer = admin_error_answer,
    .peer_allowed = admin_peer_allowed,
};
