/* Embeddings: in a context of their own, made when the first is asked for. One call each, so at most
 * LLAMA_EMBEDDING_MAX tokens. Pooling is the model's own, the mean where it names none; the vector has length 1. */
#ifndef BULKHEAD_ENGINE_LLAMA_EMBED_H
#define BULKHEAD_ENGINE_LLAMA_EMBED_H

#include "engine/llama_internal.h"

/* Fills s->vector and s->n_listed of a sequence whose tokens are there. */
must_check int llama_embed(struct llama *l, struct llama_sequence *s, struct error *err);

#endif
