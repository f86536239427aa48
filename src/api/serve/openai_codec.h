/* Codec of the OpenAI API's requests and answers for language models (chat completions, completions, embeddings,
 * tokenize, detokenize). Pure: knows no gateway, no socket and no clock.
 *
 * Gateway, on the loop. Everything in a request is hostile: each count and size is checked, nesting costs memory only,
 * and a refusal has the form that OpenAI's clients know: message, type, param, code. Members that are not known are
 * ignored, as clients send more from version to version; members that would change the answer and that nobody here
 * can follow (images, audio, the old `functions`) are refused by name. null counts as absent where OpenAI allows it.
 *
 * What comes of a request are generations (tensor/generation.h). All memory is the request's arena, and what is
 * decoded borrows from it; where it is full the request is refused with 503. */
#ifndef BULKHEAD_API_OPENAI_CODEC_H
#define BULKHEAD_API_OPENAI_CODEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "tensor/generation.h"

enum openai_kind {
    OPENAI_CHAT = 0,
    OPENAI_COMPLETION,
    OPENAI_EMBEDDING,
    OPENAI_TOKENIZE,
    OPENAI_DETOKENIZE,
    OPENAI_GENERATE, /* not OpenAI's: a request of OIP's generate extension, whose parameters are the same
                        (oip_generate.c) */
    OPENAI_KIND_COUNT
};

/* A refusal. Fixed size; no pointer but to constants. */
struct openai_error {
    int code;         /* -enum error_code, for the status and the server's own figures; 0: none */
    const char *name; /* the API's `code`, a constant; NULL: null */
    char param[64];   /* empty: null */
    char message[ERROR_TEXT_BYTES_MAX];
};

/* One text, or one list of tokens, that a generation begins with. */
struct openai_prompt {
    struct str text;
    const int32_t *tokens; /* [n_tokens] in the arena; NULL: text */
    uint32_t n_tokens;
};

struct openai_request {
    enum openai_kind kind;
    struct str model; /* GENERATE: empty, the address names it */
    bool stream, include_usage;
    bool echo;           /* COMPLETION: the answer begins with the prompt */
    bool base64;         /* EMBEDDING: encoding_format */
    uint32_t dimensions; /* EMBEDDING: as wished; 0: the model's */
    uint32_t n;          /* choices for each prompt, ≥ 1 */
    bool parts;          /* EMBEDDING, COMPLETION: `input` or `prompt` was an array of several */
    uint32_t n_prompts;  /* ≥ 1; n × n_prompts ≤ LIMIT_CHOICES, without n for embeddings: ≤ LIMIT_EMBEDDINGS */
    struct openai_prompt *prompts;
    /* All that the generations have in common: all but prompt, tokens and seed. max_tokens 0: as many as fit. */
    struct generation common;
};

/* Reads a body. False: refused, and *ret_error says why; *ret_request is then undefined. */
must_check bool openai_request_decode(enum openai_kind kind, struct str body, struct arena *arena,
                                      struct openai_request *ret_request, struct openai_error *ret_error);
/* The generation of one choice: choice `index` of n × n_prompts is the (index mod n)-th of prompt index / n. With a
 * seed, each choice of a prompt gets another one. `context`: what max_tokens 0 becomes. */
void openai_generation(const struct openai_request *request, uint32_t index, uint32_t context,
                       struct generation *ret_generation);

/* --- answers --- */

/* {"error":{"message":…,"type":…,"param":…,"code":…}} */
void openai_error_encode(const struct openai_error *error, struct buf *b);
/* The same for a failure of the server's own table (base/error.h). */
void openai_failure_encode(int code, const char *text, struct buf *b);

/* What all answers of one request have in common. */
struct openai_answer {
    enum openai_kind kind;
    struct str id;    /* "chatcmpl-…"; made by the caller */
    uint64_t created; /* seconds since 1970 */
    struct str model; /* as asked for */
};

struct openai_usage {
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

/* The probabilities of a choice's tokens. Chat: entries in lists[0]. Completions: tokens, their logarithms, their
 * rivals, where they begin. Entries are separated by commas. */
struct openai_logprobs {
    struct buf lists[4];
    uint64_t offset; /* COMPLETION: characters before the next token */
};

/* One tool call that was gathered. */
struct openai_tool_call {
    struct buf arguments;
    char id[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

/* What was gathered of one choice. */
struct openai_choice {
    struct buf text, reasoning;
    struct openai_logprobs logprobs;
    struct openai_tool_call *tools; /* [n_tools], on the heap */
    uint32_t n_tools;
    enum generation_finish finish;
    size_t bytes, bytes_max; /* of all of it */
};

void openai_choice_init(struct openai_choice *c, size_t bytes_max);
void openai_choice_done(struct openai_choice *c);
/* Adds what an event brings. -ERROR_LIMIT, -ERROR_NO_MEMORY; -ERROR_PEER: a tool call out of order. */
must_check int openai_choice_add(struct openai_choice *c, enum openai_kind kind, const struct generation_event *event,
                                 bool logprobs);

const char *openai_finish_text(enum generation_finish finish); /* "stop", "length", "tool_calls"; NULL while running */

/* A whole answer of chat completions or completions. A completion's text begins with what `choices` gathered. */
void openai_answer_encode(const struct openai_answer *a, const struct openai_choice *choices, uint32_t n_choices,
                          bool logprobs, const struct openai_usage *usage, struct buf *b);
/* The first chunk of a choice of a chat: its role. */
void openai_chunk_role(const struct openai_answer *a, uint32_t index, bool usage_null, struct buf *b);
/* A chunk with what one event brings: text, reasoning, a piece of a tool call, or the end; false, and nothing written,
 * when there is nothing to tell. `usage_null`: with the member "usage": null, which include_usage asks of all chunks
 * but the last. `offset`: as openai_logprobs, moved on. */
bool openai_chunk_event(const struct openai_answer *a, uint32_t index, const struct generation_event *event,
                        bool logprobs, bool usage_null, uint64_t *offset, struct buf *b);
/* The last chunk of include_usage: no choices. */
void openai_chunk_usage(const struct openai_answer *a, const struct openai_usage *usage, struct buf *b);

/* Answers of embeddings: begin, one element for each vector (as numbers, or base64 of the little-endian floats; values
 * [n], finite), end. */
void openai_embeddings_begin(struct buf *b);
void openai_embedding_append(uint32_t index, const float *values, uint32_t n, bool base64, struct buf *b);
void openai_embeddings_end(struct str model, uint64_t prompt_tokens, struct buf *b);

#endif
