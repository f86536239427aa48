/* What llama.cpp's C API lacks, out of libllama-common.so: chat templates, the parser of what a model answers under
 * one, grammars of JSON schemas, and what a LoRA consists of. The face of llama_common.cc, which is C++ and a shared
 * library of its own (libbulkhead-llama.so): bulkhead-worker stays C. No exception leaves it.
 *
 * Worker only. Errors come as text for people in `error` [LLAMA_COMMON_ERROR_BYTES]. */
#ifndef BULKHEAD_ENGINE_LLAMA_COMMON_H
#define BULKHEAD_ENGINE_LLAMA_COMMON_H

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LLAMA_COMMON_ERROR_BYTES 256
#define LLAMA_CHAT_ID_BYTES      32

struct llama_model;
struct llama_vocab;
struct llama_sampler;
struct llama_templates; /* of a model */
struct llama_chat;      /* one conversation's next answer */

/* NULL: the model has no template, or none that can be used. */
struct llama_templates *llama_templates_open(const struct llama_model *model, bool *ret_tools);
void llama_templates_close(struct llama_templates *t); /* takes NULL */

struct llama_chat_request {
    const char *messages, *tools, *tool_choice, *schema, *grammar; /* sizes below; tools to grammar may be empty */
    size_t messages_size, tools_size, tool_choice_size, schema_size, grammar_size;
    bool one_call; /* at most one call of a tool */
};

/* Whether a grammar can be made of a JSON schema; if not, error says why. */
bool llama_schema_check(const char *schema, size_t size, char *error);
/* Applies the template; the prompt belongs to the chat. NULL: error says why. */
struct llama_chat *llama_chat_open(const struct llama_templates *t, const struct llama_chat_request *request,
                                   const char **ret_prompt, size_t *ret_prompt_size, char *error);
void llama_chat_close(struct llama_chat *c); /* takes NULL */
/* The sampler of the grammar that tools or a schema ask for; NULL in *ret_sampler: none is needed. */
bool llama_chat_sampler(struct llama_chat *c, const struct llama_vocab *vocab, struct llama_sampler **ret_sampler,
                        char *error);
/* Further stop strings; NULL past the end. */
const char *llama_chat_stop(const struct llama_chat *c, size_t index);
/* Tokens that count as text though they are special; returns how many, at most `max`. */
size_t llama_chat_preserved(const struct llama_chat *c, const struct llama_vocab *vocab, int32_t *tokens, size_t max);

enum llama_chat_part { LLAMA_CHAT_TEXT = 0, LLAMA_CHAT_REASONING, LLAMA_CHAT_TOOL };
struct llama_chat_sink {
    void *ctx;
    /* More of the answer; of a tool call, id and name come with its first part. Returns false to stop. */
    bool (*part)(void *ctx, enum llama_chat_part part, uint32_t index, const char *id, const char *name,
                 const char *text, size_t size);
    void (*id_make)(char *id); /* [LLAMA_CHAT_ID_BYTES], with its NUL */
};

/* Takes more of the answer's text, and tells what it means so far. false: the sink said stop. */
bool llama_chat_add(struct llama_chat *c, const char *text, size_t size, bool last, const struct llama_chat_sink *sink);
/* Whether the answer goes on with what was not asked for (one_call), which is not told: time to end it. */
bool llama_chat_enough(const struct llama_chat *c);
/* Tool calls so far. */
uint32_t llama_chat_calls(const struct llama_chat *c);

/* The sampler of a GBNF grammar, or of a JSON schema; NULL: error says why. */
struct llama_sampler *llama_grammar_sampler(const struct llama_vocab *vocab, const char *grammar, size_t size,
                                            bool schema, char *error);

/* llama_sampler_accept and _apply of a grammar's sampler, which may come to no end. false: error says why, and the
 * sampler can only be freed. */
bool llama_sampler_accept_safe(struct llama_sampler *s, int32_t token, char *error);
bool llama_sampler_apply_safe(struct llama_sampler *s, llama_token_data_array *tokens, char *error);

struct llama_adapter_lora;
struct ggml_tensor;

/* The tensors of a LoRA, in no order; returns how many there are, of which at most `max` are told. */
size_t llama_adapter_matrices(const struct llama_adapter_lora *lora, struct ggml_tensor **tensors, size_t max);
/* What its products are scaled with, before the rank; 0: they are not. */
float llama_adapter_alpha(const struct llama_adapter_lora *lora);

#ifdef __cplusplus
}
#endif
#endif
