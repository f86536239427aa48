#include "api/serve/oip_internal.h"

void serve_oip_answer(struct gateway_request *r, int status, const struct buf *body)
{
    if (body->failed)
        gateway_fail(r, body->failed, NULL);
    else
        gateway_answer(r, status, "application/json", NULL, 0, (struct str){body->data, body->size});
}

static void answer_flag(struct gateway_request *r, bool flag, const char *name)
{
    _buf_ struct buf body;
    buf_init(&body, KIB);
    buf_format(&body, "{\"%s\":%s}", name, flag ? "true" : "false");
    serve_oip_answer(r, flag ? 200 : 503, &body);
}

static void server_metadata(struct gateway_request *r)
{
    gateway_answer(
        r, 200, "application/json", NULL, 0,
        STR("{\"name\":\"bulkhead\",\"version\":\"" BULKHEAD_VERSION
            "\",\"extensions\":[\"binary_tensor_data\",\"generate\",\"model_configuration\",\"model_repository(index)\",\"statistics\"]}"));
}

static void server_live(struct gateway_request *r)
{
    answer_flag(r, true, "live");
}

static void server_ready(struct gateway_request *r)
{
    answer_flag(r, gateway_ready(gateway_of(r)), "ready");
}

static void list_model(void *ctx, struct str name, const struct gateway_version *v)
{
    struct buf *body = ctx;
    struct error err = {0};
    if (body->failed)
        return;
    buf_append_text(body, body->data[body->size - 1] == '[' ? "{\"name\":" : ",{\"name\":");
    buf_append_json(body, name);
    buf_append_text(body, ",\"version\":");
    buf_append_json(body, gateway_version_text(v));
    buf_append_text(body, gateway_version_state(v, &err) < 0 ? ",\"ready\":false}" : ",\"ready\":true}");
}

static void models_list(struct gateway_request *r)
{
    _buf_ struct buf body;
    buf_init(&body, 64 * MIB); /* LIMIT_MODELS × about 200 bytes, with room */
    buf_append_text(&body, "{\"models\":[");
    struct error err = {0};
    int code = gateway_models_each(r, list_model, &body, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    buf_append_text(&body, "]}");
    serve_oip_answer(r, 200, &body);
}

struct gateway_version *serve_oip_version(struct gateway_request *r, bool with_version)
{
    struct gateway_version *v = NULL;
    struct error err = {0};
    struct str version = with_version ? gateway_param(r, 1) : (struct str){0};
    int code = gateway_version_find(r, gateway_param(r, 0), version, &v, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return NULL;
    }
    return v;
}

static void ready_answer(struct gateway_request *r, bool with_version)
{
    struct gateway_version *v = serve_oip_version(r, with_version);
    struct error err = {0};
    if (!v)
        return;
    int code = gateway_version_state(v, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        answer_flag(r, true, "ready");
}

static void model_ready(struct gateway_request *r)
{
    ready_answer(r, false);
}

static void version_ready(struct gateway_request *r)
{
    ready_answer(r, true);
}

struct versions {
    uint32_t n;
    struct str text[LIMIT_VERSIONS_SERVED];
};

static void versions_add(void *ctx, const struct gateway_version *v)
{
    struct versions *versions = ctx;
    if (versions->n < LIMIT_VERSIONS_SERVED)
        versions->text[versions->n++] = gateway_version_text(v);
}

static void metadata_answer(struct gateway_request *r, const struct versions *versions,
                            const struct tensor_signature *signature)
{
    _buf_ struct buf body;
    buf_init(&body, MIB);
    oip_metadata_encode(gateway_version_model(gateway_version_of(r)), versions->text, versions->n, signature, &body);
    serve_oip_answer(r, 200, &body);
}

static void model_metadata_answer(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct versions versions = {0};
    struct error err = {0};
    int code = gateway_versions_each(r, gateway_version_model(gateway_version_of(r)), versions_add, &versions, &err);
    if (code < 0) /* deleted while this waited for its start */
        gateway_fail(r, code, &err);
    else
        metadata_answer(r, &versions, signature);
}

static void version_metadata_answer(struct gateway_request *r, const struct tensor_signature *signature)
{
    struct versions versions = {.n = 1, .text = {gateway_version_text(gateway_version_of(r))}};
    metadata_answer(r, &versions, signature);
}

static void model_metadata(struct gateway_request *r)
{
    struct gateway_version *v = serve_oip_version(r, false);
    if (v)
        gateway_signature_wait(r, v, model_metadata_answer);
}

static void version_metadata(struct gateway_request *r)
{
    struct gateway_version *v = serve_oip_version(r, true);
    if (v)
        gateway_signature_wait(r, v, version_metadata_answer);
}

static void infer(struct gateway_request *r, struct gateway_version *v)
{
    if (!v)
        return;
    struct str header = gateway_header(r, STR("inference-header-content-length"));
    struct error err = {0};
    size_t json_size;
    int code = oip_request_json_size(header, gateway_body(r).size, &json_size, &err);
    if (code < 0) {
        gateway_fail(r, code, &err);
        return;
    }
    if (header.data && json_size == 0)
        gateway_infer_raw(r, v);
    else
        gateway_infer(r, v, json_size);
}

static void model_infer(struct gateway_request *r)
{
    infer(r, serve_oip_version(r, false));
}

static void version_infer(struct gateway_request *r)
{
    infer(r, serve_oip_version(r, true));
}

/* The model that a header names, for clients whose address is fixed. No protocol knows it; the newest version only. */
static void header_infer(struct gateway_request *r)
{
    struct str model = gateway_header(r, STR("x-model-id"));
    struct gateway_version *v = NULL;
    struct error err = {0};
    int code = model.size == 0 ? error_set(&err, ERROR_INVALID_REQUEST,
                                           "The header X-Model-ID must name the model; or send the request to "
                                           "/v2/models/NAME/infer.")
                               : gateway_version_find(r, model, (struct str){0}, &v, &err);
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        infer(r, v);
}

static const struct gateway_route routes[] = {
    {WIRE_POST, "/v2/models/{}/infer", GATEWAY_TENANT, true, SIZE_MAX, model_infer, "Run a model's newest version."},
    {WIRE_POST, "/v2/models/{}/versions/{}/infer", GATEWAY_TENANT, true, SIZE_MAX, version_infer,
     "Run one version of a model."},
    {WIRE_POST, "/v2/infer", GATEWAY_TENANT, true, SIZE_MAX, header_infer,
     "Run the newest version of the model that X-Model-ID names."},
    {WIRE_POST, "/v2/models/{}/generate", GATEWAY_TENANT, true, SIZE_MAX, serve_oip_generate,
     "How a text goes on, by a language model."},
    {WIRE_POST, "/v2/models/{}/generate_stream", GATEWAY_TENANT, true, SIZE_MAX, serve_oip_generate_stream,
     "The same, piece by piece."},
    {WIRE_POST, "/v2/models/{}/versions/{}/generate", GATEWAY_TENANT, true, SIZE_MAX, serve_oip_version_generate,
     "The same by one version."},
    {WIRE_POST, "/v2/models/{}/versions/{}/generate_stream", GATEWAY_TENANT, true, SIZE_MAX,
     serve_oip_version_generate_stream, "The same by one version, piece by piece."},
    {WIRE_GET, "/v2", GATEWAY_TENANT, false, 0, server_metadata, "The server's name, version and extensions."},
    {WIRE_GET, "/v2/health/live", GATEWAY_OPEN, false, 0, server_live, "Is the server running?"},
    {WIRE_GET, "/v2/health/ready", GATEWAY_OPEN, false, 0, server_ready, "Does the server take requests?"},
    {WIRE_GET, "/v2/models", GATEWAY_TENANT, false, 0, models_list, "The tenant's models."},
    /* Before the next one: no model called "stats" has metadata. */
    {WIRE_GET, "/v2/models/stats", GATEWAY_TENANT, false, 0, serve_oip_stats, "Figures of all the tenant's models."},
    {WIRE_GET, "/v2/models/{}", GATEWAY_TENANT, false, 0, model_metadata, "Inputs and outputs of a model."},
    {WIRE_GET, "/v2/models/{}/ready", GATEWAY_TENANT, false, 0, model_ready, "Can the model serve?"},
    {WIRE_GET, "/v2/models/{}/config", GATEWAY_TENANT, false, 0, serve_oip_model_config,
     "A model's configuration in Triton's form."},
    {WIRE_GET, "/v2/models/{}/stats", GATEWAY_TENANT, false, 0, serve_oip_model_stats,
     "Figures of all versions of a model."},
    {WIRE_GET, "/v2/models/{}/versions/{}", GATEWAY_TENANT, false, 0, version_metadata,
     "Inputs and outputs of one version."},
    {WIRE_GET, "/v2/models/{}/versions/{}/ready", GATEWAY_TENANT, false, 0, version_ready, "Can the version serve?"},
    {WIRE_GET, "/v2/models/{}/versions/{}/config", GATEWAY_TENANT, false, 0, serve_oip_version_config,
     "The same for one version."},
    {WIRE_GET, "/v2/models/{}/versions/{}/stats", GATEWAY_TENANT, false, 0, serve_oip_version_stats,
     "Figures of one version."},
    {WIRE_POST, "/v2/repository/index", GATEWAY_TENANT, false, KIB, serve_oip_repository_index,
     "All versions of the tenant's models and their states."},
};

const struct gateway_surface serve_oip_surface = {"oip", routes, sizeof routes / sizeof routes[0]};
