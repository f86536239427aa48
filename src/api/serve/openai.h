/* Surface: the OpenAI API for language models, as far as it does not need state of its own: models, chat completions,
 * completions, embeddings; and tokenize and detokenize as vLLM has them. */
#ifndef BULKHEAD_API_OPENAI_H
#define BULKHEAD_API_OPENAI_H

#include "gateway/gateway.h"

extern const struct gateway_surface serve_openai_surface;

#endif
