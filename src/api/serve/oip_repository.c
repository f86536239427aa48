/* Triton's model repository extension: the index. Loading and unloading are the operator's (`bulkhead apply`). */
#include "api/serve/oip_internal.h"

#include <yyjson.h>

struct index {
    struct buf body;
    bool ready_only;
};

static void append_version(void *ctx, const struct gateway_version *v)
{
    struct index *index = ctx;
    struct buf *body = &index->body;
    struct error err = {0};
    bool ready = gateway_version_state(v, &err) >= 0;
    if (index->ready_only && !ready)
        return;
    buf_append_text(body, body->size == 1 ? "{\"name\":" : ",{\"name\":");
    buf_append_json(body, gateway_version_model(v));
    buf_append_text(body, ",\"version\":");
    buf_append_json(body, gateway_version_text(v));
    buf_append_text(body, ready ? ",\"state\":\"READY\",\"reason\":" : ",\"state\":\"UNAVAILABLE\",\"reason\":");
    buf_append_json(body, str_from(ready ? "" : err.text));
    buf_append_char(body, '}');
}

/* {} or {"ready": true}; a body may be missing altogether. */
static int ready_member(struct str body, bool *ret_ready, struct error *err)
{
    *ret_ready = false;
    if (body.size == 0)
        return 0;
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)body.data, body.size, YYJSON_READ_NOFLAG, NULL, &why);
    if (!doc && why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return error_set_default(err, ERROR_NO_MEMORY);
    if (!doc)
        return error_set(err, ERROR_INVALID_JSON, "The body is not JSON.");
    yyjson_val *root = yyjson_doc_get_root(doc), *ready = yyjson_obj_get(root, "ready");
    int code = 0;
    if (!yyjson_is_obj(root) || yyjson_obj_size(root) != (ready ? 1 : 0) || (ready && !yyjson_is_bool(ready)))
        code = error_set(err, ERROR_INVALID_REQUEST,
                         "The body must be a JSON object with no member but \"ready\", true or false.");
    else
        *ret_ready = yyjson_is_true(ready);
    yyjson_doc_free(doc);
    return code;
}

void serve_oip_repository_index(struct gateway_request *r)
{
    struct index index = {0};
    struct error err = {0};
    int code = ready_member(gateway_body(r), &index.ready_only, &err);
    if (code >= 0) {
        buf_init(&index.body, SERVE_OIP_LIST_BYTES_MAX);
        buf_append_char(&index.body, '[');
        code = gateway_versions_each(r, (struct str){0}, append_version, &index, &err);
    }
    if (code >= 0) {
        buf_append_char(&index.body, ']');
        serve_oip_answer(r, 200, &index.body);
    } else {
        gateway_fail(r, code, &err);
    }
    buf_done(&index.body);
}
