#include "engine/llama_embed.h"

#include <math.h>
#include <stdlib.h>

static int embedder_open(struct llama *l, struct error *err)
{
    struct llama_context_params p = l->api->llama_context_default_params();
    uint32_t n = l->token.context < LLAMA_EMBEDDING_MAX ? l->token.context : LLAMA_EMBEDDING_MAX;
    p.n_ctx = p.n_batch = p.n_ubatch = n;
    p.n_seq_max = 1;
    p.n_threads = p.n_threads_batch = (int32_t)l->n_threads;
    p.embeddings = true;
    p.no_perf = true;
    l->embedder = l->api->llama_init_from_model(l->model, p);
    if (l->embedder && l->api->llama_pooling_type(l->embedder) == LLAMA_POOLING_TYPE_NONE) {
        l->api->llama_free(l->embedder);
        p.pooling_type = LLAMA_POOLING_TYPE_MEAN;
        l->embedder = l->api->llama_init_from_model(l->model, p);
    }
    if (!l->embedder)
        return error_set(err, ERROR_NO_MEMORY, "There is no memory for the model's embeddings.");
    if (l->threads)
        l->api->llama_attach_threadpool(l->embedder, l->threads, l->threads);
    llama_pace_init(l, l->embedder);
    return 0;
}

static int vector_take(struct llama *l, struct llama_sequence *s, struct error *err)
{
    const float *values = l->api->llama_get_embeddings_seq(l->embedder, 0);
    uint32_t n = l->token.embedding;
    s->vector = malloc(n * sizeof *s->vector);
    if (!values || !s->vector)
        return error_set(err, values ? ERROR_NO_MEMORY : ERROR_ENGINE, "The model gave no embedding.");
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
    for (uint32_t i = 0; i < n; i++)
        s->vector[i] = values[i] * scale;
    s->n_listed = n;
    return 0;
}

int llama_embed(struct llama *l, struct llama_sequence *s, struct error *err)
{
    if (!(l->token.flags & TENSOR_TOKEN_EMBED))
        return error_set(err, ERROR_INVALID_REQUEST, "This model gives no embeddings.");
    if (s->n_tokens == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "The input is empty.");
    if (s->n_tokens > l->token.context || s->n_tokens > LLAMA_EMBEDDING_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "The input has %u tokens; the model takes at most %u at once.",
                         s->n_tokens, l->token.context < LLAMA_EMBEDDING_MAX ? l->token.context : LLAMA_EMBEDDING_MAX);
    int r = l->embedder ? 0 : embedder_open(l, err);
    if (r < 0)
        return r;
    llama_adapter_embed(l, s->g.adapter);
    llama_memory_t memory = l->api->llama_get_memory(l->embedder);
    if (memory)
        l->api->llama_memory_clear(memory, true);
    struct llama_batch batch = l->api->llama_batch_init((int32_t)s->n_tokens, 0, 1);
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        batch.token[i] = s->tokens[i];
        batch.pos[i] = (llama_pos)i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    batch.n_tokens = (int32_t)s->n_tokens;
    bool encoder = l->api->llama_model_has_encoder(l->model) && !l->api->llama_model_has_decoder(l->model);
    int status;
    while (!llama_pace_decode(l, l->embedder, batch, encoder, &status))
        if (memory)
            l->api->llama_memory_clear(memory, true);
    l->api->llama_batch_free(batch);
    if (status != 0)
        return error_set(err, ERROR_ENGINE, "The model could not work on this input.");
    s->n_done = s->n_tokens;
    return vector_take(l, s, err);
}
