/* Triton's statistics extension. */
#include "api/serve/oip_internal.h"

static void append_duration(struct buf *body, const char *name, const struct gateway_duration *d)
{
    buf_format(body, "\"%s\":{\"count\":%llu,\"ns\":%llu},", name, (unsigned long long)d->count,
               (unsigned long long)d->ns);
}

static void append_compute(struct buf *body, const struct gateway_compute *compute)
{
    append_duration(body, "compute_input", &compute->input);
    append_duration(body, "compute_infer", &compute->infer);
    append_duration(body, "compute_output", &compute->output);
}

/* Every member is written with a comma behind it; the last one of an object gives it back. */
static void end(struct buf *body, char bracket)
{
    if (body->size > 0 && body->data[body->size - 1] == ',')
        body->size--;
    buf_append_char(body, bracket);
}

static void append_batches(struct buf *body, const struct gateway_version_stats *stats)
{
    buf_append_text(body, "\"batch_stats\":[");
    for (uint32_t i = 0; i < stats->n_batches; i++) {
        buf_format(body, "{\"batch_size\":%u,", stats->batches[i].rows);
        append_compute(body, &stats->batches[i].compute);
        end(body, '}');
        buf_append_char(body, ',');
    }
    end(body, ']');
}

static void append_version(void *ctx, const struct gateway_version *v)
{
    static const struct gateway_duration no_cache;
    struct buf *body = ctx;
    const struct gateway_version_stats *stats = gateway_version_stats(v);
    buf_append_text(body, "{\"name\":");
    buf_append_json(body, gateway_version_model(v));
    buf_append_text(body, ",\"version\":");
    buf_append_json(body, gateway_version_text(v));
    buf_format(body, ",\"last_inference\":%llu,\"inference_count\":%llu,\"execution_count\":%llu,",
               (unsigned long long)stats->last_inference_ms, (unsigned long long)stats->inferences,
               (unsigned long long)stats->executions);
    buf_append_text(body, "\"inference_stats\":{");
    append_duration(body, "success", &stats->success);
    append_duration(body, "fail", &stats->failure);
    append_duration(body, "queue", &stats->queue);
    append_compute(body, &stats->compute);
    append_duration(body, "cache_hit", &no_cache);
    append_duration(body, "cache_miss", &no_cache);
    end(body, '}');
    buf_append_char(body, ',');
    append_batches(body, stats);
    buf_append_text(body, "},");
}

static void versions_answer(struct gateway_request *r, struct str model)
{
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, SERVE_OIP_LIST_BYTES_MAX);
    buf_append_text(&body, "{\"model_stats\":[");
    int code = gateway_versions_each(r, model, append_version, &body, &err);
    end(&body, ']');
    buf_append_char(&body, '}');
    if (code < 0)
        gateway_fail(r, code, &err);
    else
        serve_oip_answer(r, 200, &body);
}

void serve_oip_stats(struct gateway_request *r)
{
    versions_answer(r, (struct str){0});
}

void serve_oip_model_stats(struct gateway_request *r)
{
    versions_answer(r, gateway_param(r, 0));
}

void serve_oip_version_stats(struct gateway_request *r)
{
    const struct gateway_version *v = serve_oip_version(r, true);
    if (!v)
        return;
    _buf_ struct buf body;
    buf_init(&body, SERVE_OIP_LIST_BYTES_MAX);
    buf_append_text(&body, "{\"model_stats\":[");
    append_version(&body, v);
    end(&body, ']');
    buf_append_char(&body, '}');
    serve_oip_answer(r, 200, &body);
}
