/* The routes of the admin surface and what each does. */
#include "admin_internal.h"

#include <stdio.h>
#include <yyjson.h>

/* --- changes: answered when the gateway has taken the generation, or has not in time --- */

static void change_taken(void *ctx, int status)
{
    struct admin_request *request = ctx;
    bool taken = status == 0;
    buf_format(&request->answer, ",\"generation\":%llu,\"taken\":%s}\n", (unsigned long long)request->done.generation,
               taken ? "true" : "false");
    admin_answer(request, taken ? 200 : error_info(-ERROR_PENDING)->http_status);
    admin_callback_end(request);
}

/* request->answer holds an object without its last members and brace; `done` the change. */
static int change_publish(struct admin_request *request)
{
    request->callbacks++;
    control_publish(request->control, request->done.generation, change_taken, request);
    return 0;
}

static void applied(void *ctx, int rc, const struct registry_change *change, const struct error *err)
{
    struct admin_request *request = ctx;
    request->apply = NULL;
    if (rc < 0) {
        admin_answer_error(request, rc, err);
    } else {
        request->done = *change;
        (void)change_publish(request); /* cannot fail */
    }
    admin_callback_end(request);
}

static int handle_apply(struct admin_request *request, struct str body, struct error *err)
{
    (void)err; /* applied() tells */
    buf_append_text(&request->answer, "{\"resources\":");
    request->callbacks++;
    control_apply(request->control, body, &request->answer, applied, request, &request->apply);
    return 0;
}

static int handle_delete(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    int rc = registry_delete(control_registry(request->control), request->kind, request->tenant, request->name,
                             &request->done, err);
    if (rc < 0)
        return rc;
    buf_format(&request->answer, "{\"kind\":\"%s\",\"name\":", resource_kinds[request->kind].name);
    buf_append_json(&request->answer, request->name);
    return change_publish(request);
}

static int handle_key_revoke(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    int rc = registry_key_revoke(control_registry(request->control), request->name, &request->done, err);
    if (rc < 0)
        return rc;
    buf_append_text(&request->answer, "{\"kind\":\"Key\",\"id\":");
    buf_append_json(&request->answer, request->name);
    return change_publish(request);
}

/* Members `tenant` (required) and `name` of a key's creation; nothing else. */
static int key_members(yyjson_val *root, struct str *ret_tenant, struct str *ret_name, struct error *err)
{
    if (!yyjson_is_obj(root))
        return error_set(err, -ERROR_INVALID_REQUEST, "expected {\"tenant\": NAME, \"name\": TEXT}");
    yyjson_obj_iter members = yyjson_obj_iter_with(root);
    for (yyjson_val *key = yyjson_obj_iter_next(&members); key; key = yyjson_obj_iter_next(&members)) {
        yyjson_val *value = yyjson_obj_iter_get_val(key);
        struct str *target = yyjson_equals_str(key, "tenant") ? ret_tenant
                             : yyjson_equals_str(key, "name") ? ret_name
                                                              : NULL;
        if (!target)
            return error_set(err, -ERROR_INVALID_REQUEST, "unknown member \"%.64s\"", yyjson_get_str(key));
        if (!yyjson_is_str(value))
            return error_set(err, -ERROR_INVALID_REQUEST, "%s: expected a string", yyjson_get_str(key));
        *target = (struct str){yyjson_get_str(value), yyjson_get_len(value)};
    }
    if (ret_tenant->size == 0)
        return error_set(err, -ERROR_INVALID_REQUEST, "tenant: required");
    return 0;
}

static int handle_key_create(struct admin_request *request, struct str body, struct error *err)
{
    yyjson_read_err why;
    yyjson_doc *json = yyjson_read_opts((char *)(uintptr_t)body.data, body.size, 0, NULL, &why);
    if (!json)
        return error_set_default(err, why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? -ERROR_NO_MEMORY
                                                                                      : -ERROR_INVALID_JSON);
    struct str tenant = {"", 0}, name = {"", 0};
    char key[REGISTRY_KEY_BYTES + 1];
    int rc = key_members(yyjson_doc_get_root(json), &tenant, &name, err);
    if (rc >= 0)
        rc = registry_key_create(control_registry(request->control), tenant, name, key, &request->done, err);
    yyjson_doc_free(json);
    if (rc < 0)
        return rc;
    /* base62 and underscores: no escaping */
    buf_format(&request->answer, "{\"id\":\"%.*s\",\"key\":\"%s\"", (int)STORE_KEY_ID_BYTES, key + 3, key);
    explicit_bzero(key, sizeof key);
    return change_publish(request);
}

/* --- the rest --- */

static int handle_artifact(struct admin_request *request, struct str body, struct error *err)
{
    (void)body; /* streamed: admin_data wrote it */
    char hex[65];
    uint64_t bytes = 0;
    int rc = registry_upload_finish(take(&request->upload), hex, &bytes, err);
    if (rc < 0)
        return rc;
    buf_format(&request->answer, "{\"digest\":\"%s\",\"bytes\":%llu}\n", hex, (unsigned long long)bytes);
    admin_answer(request, 200);
    return 0;
}

static int handle_get(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    if (request->kind == RESOURCE_SERVER)
        return error_set(err, -ERROR_NOT_FOUND, "the Server resource is the file of serve --config; see status");
    buf_append_text(&request->answer, "{\"items\":");
    if (request->kind == RESOURCE_REPLICA) {
        control_replicas(request->control, request->tenant, request->name, &request->answer);
    } else if (request->kind == RESOURCE_DEVICE) {
        if (control_devices(request->control, request->name, &request->answer) == 0)
            return error_set(err, -ERROR_NOT_FOUND, "there is no Device " STR_FORMAT, STR_ARG(request->name));
    } else {
        int rc = registry_get(control_registry(request->control), request->kind, request->tenant, request->name,
                              &request->answer, err);
        if (rc < 0)
            return rc;
    }
    buf_append_text(&request->answer, "}\n");
    admin_answer(request, 200);
    return 0;
}

static int handle_status(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    (void)err;
    control_status(request->control, &request->answer);
    buf_append_char(&request->answer, '\n');
    admin_answer(request, 200);
    return 0;
}

static int handle_top(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    int rc = control_top(request->control, &request->answer, err);
    if (rc >= 0)
        admin_answer(request, 200);
    return rc;
}

static int handle_metrics(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    (void)err;
    request->content_type = CONTROL_METRICS_TYPE;
    control_metrics(request->control, &request->answer);
    admin_answer(request, 200);
    return 0;
}

static void relay_done(void *ctx, int http_status, struct str body)
{
    struct admin_request *request = ctx;
    buf_append_str(&request->answer, body);
    admin_answer(request, http_status);
    admin_callback_end(request);
}

static int handle_infer(struct admin_request *request, struct str body, struct error *err)
{
    if (request->tenant.size == 0 || request->model.size == 0)
        return error_set(err, -ERROR_INVALID_REQUEST, "the query must name tenant and model");
    request->callbacks++;
    control_infer(request->control, request->tenant, request->model, body, relay_done, request);
    return 0;
}

static int handle_explain(struct admin_request *request, struct str body, struct error *err)
{
    (void)body;
    if (request->tenant.size == 0 || request->model.size == 0)
        return error_set(err, -ERROR_INVALID_REQUEST, "the query must name tenant and model");
    request->callbacks++;
    control_explain(request->control, request->tenant, request->model, relay_done, request);
    return 0;
}

#define V "/v1alpha1"
const struct admin_route admin_routes[] = {
    {WIRE_POST, V "/artifacts", WIRE_STREAM, LIMIT_ARTIFACT_BYTES, handle_artifact, "",
     "store an artifact under its digest"},
    {WIRE_POST, V "/apply", WIRE_WHOLE, LIMIT_ADMIN_BODY_BYTES, handle_apply, "",
     "create or change resources, all or nothing"},
    {WIRE_GET, V "/status", WIRE_WHOLE, 0, handle_status, "", "what runs, and behind which wall"},
    {WIRE_GET, V "/explain", WIRE_WHOLE, 0, handle_explain, "tenant model",
     "what the wall around a model contains, and its live facts"},
    {WIRE_GET, V "/top", WIRE_WHOLE, 0, handle_top, "", "figures for bulkhead top"},
    {WIRE_GET, "/metrics", WIRE_WHOLE, 0, handle_metrics, "", "figures for Prometheus"},
    {WIRE_POST, V "/infer", WIRE_WHOLE, LIMIT_BODY_BYTES, handle_infer, "tenant model",
     "one inference request as that tenant"},
    {WIRE_POST, V "/keys", WIRE_WHOLE, 4 * KIB, handle_key_create, "", "make an API key, shown once"},
    {WIRE_DELETE, V "/keys/{name}", WIRE_WHOLE, 0, handle_key_revoke, "", "revoke an API key by its id"},
    {WIRE_GET, V "/{kind}", WIRE_WHOLE, 0, handle_get, "tenant", "list resources of a kind"},
    {WIRE_GET, V "/{kind}/{name}", WIRE_WHOLE, 0, handle_get, "tenant", "one resource"},
    {WIRE_DELETE, V "/{kind}/{name}", WIRE_WHOLE, 0, handle_delete, "tenant", "delete what was applied"},
    {.path = NULL},
};
