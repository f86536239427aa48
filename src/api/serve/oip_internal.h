/* What the files of the OIP surface share. The routes stand in one table, oip.c; the handlers of Triton's extensions in
 * a file each. */
#ifndef BULKHEAD_API_OIP_INTERNAL_H
#define BULKHEAD_API_OIP_INTERNAL_H

#include "api/serve/oip.h"

/* All versions of all models that one tenant may have, at 300 bytes each; beyond, the answer is refused. */
#define SERVE_OIP_LIST_BYTES_MAX ((size_t)LIMIT_MODELS * LIMIT_VERSIONS_SERVED * 300)

/* Answers with `body`, or with the error that building it met. */
void serve_oip_answer(struct gateway_request *r, int status, const struct buf *body);
/* The model that the address names; answers itself and returns NULL when there is none. */
struct gateway_version *serve_oip_version(struct gateway_request *r, bool with_version);

/* oip_repository.c: model repository extension, the index */
void serve_oip_repository_index(struct gateway_request *r);

/* oip_config.c: model configuration extension */
void serve_oip_model_config(struct gateway_request *r);
void serve_oip_version_config(struct gateway_request *r);

/* oip_generate.c: generate extension; a text from a language model, in one piece or as server-sent events */
void serve_oip_generate(struct gateway_request *r);
void serve_oip_version_generate(struct gateway_request *r);
void serve_oip_generate_stream(struct gateway_request *r);
void serve_oip_version_generate_stream(struct gateway_request *r);

/* oip_stats.c: statistics extension */
void serve_oip_stats(struct gateway_request *r);
void serve_oip_model_stats(struct gateway_request *r);
void serve_oip_version_stats(struct gateway_request *r);

#endif
