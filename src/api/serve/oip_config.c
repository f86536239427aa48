/* Triton's model configuration extension: what of a model is configured, in the members of its ModelConfig message that
 * have a meaning here. */
#include "api/serve/oip_internal.h"

/* ModelConfig's names: TYPE_ and ours, but for BYTES. */
static const char *type_name(enum tensor_dtype dtype)
{
    return dtype == TENSOR_BYTES ? "STRING" : tensor_dtype_name(dtype);
}

/* dims without the batch axis, which max_batch_size implies. */
static void append_tensors(struct buf *body, const struct tensor_spec *specs, uint32_t n, bool batchable)
{
    for (uint32_t i = 0; i < n; i++) {
        buf_append_text(body, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_append_json(body, str_from(specs[i].name));
        buf_format(body, ",\"data_type\":\"TYPE_%s\",\"dims\":[", type_name(specs[i].dtype));
        const struct tensor_shape *shape = &specs[i].shape;
        for (uint32_t d = batchable ? 1 : 0; d < shape->rank; d++)
            buf_format(body, d > (batchable ? 1 : 0) ? ",%lld" : "%lld", (long long)shape->dims[d]);
        buf_append_text(body, "]}");
    }
}

static void append_head(struct buf *body, const struct gateway_version *v, const struct tensor_signature *signature)
{
    struct str platform = str_from(signature->platform);
    buf_append_text(body, "{\"name\":");
    buf_append_json(body, gateway_version_model(v));
    buf_append_text(body, ",\"platform\":");
    buf_append_json(body, platform);
    buf_append_text(body, ",\"backend\":");
    buf_append_json(body, str_equal(platform, STR("onnxruntime_onnx")) ? STR("onnxruntime") : platform);
    buf_append_text(body, ",\"version_policy\":{\"specific\":{\"versions\":[");
    buf_append_str(body, gateway_version_text(v));
    buf_append_text(body, "]}}");
}

static void config_answer(struct gateway_request *r, const struct tensor_signature *signature)
{
    const struct gateway_version *v = gateway_version_of(r);
    struct gateway_version_limits limits = gateway_version_limits(v);
    _buf_ struct buf body;
    buf_init(&body, MIB); /* 128 tensors of 255 bytes and 8 dims, escaped */
    append_head(&body, v, signature);
    buf_format(&body, ",\"max_batch_size\":%u,\"input\":[", signature->batchable ? limits.batch_rows_max : 0);
    append_tensors(&body, signature->inputs, signature->n_inputs, signature->batchable);
    buf_append_text(&body, "],\"output\":[");
    append_tensors(&body, signature->outputs, signature->n_outputs, signature->batchable);
    buf_append_char(&body, ']');
    if (signature->batchable)
        buf_format(&body, ",\"dynamic_batching\":{\"max_queue_delay_microseconds\":%llu}",
                   (unsigned long long)(limits.batch_delay_ns / 1000));
    buf_format(&body, ",\"instance_group\":[{\"count\":%u,\"kind\":\"KIND_CPU\"}]}", limits.replicas_max);
    serve_oip_answer(r, 200, &body);
}

static void config(struct gateway_request *r, bool with_version)
{
    struct gateway_version *v = serve_oip_version(r, with_version);
    if (v)
        gateway_signature_wait(r, v, config_answer);
}

void serve_oip_model_config(struct gateway_request *r)
{
    config(r, false);
}

void serve_oip_version_config(struct gateway_request *r)
{
    config(r, true);
}
