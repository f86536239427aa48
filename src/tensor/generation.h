/* Generations and their events: the token side of what travels between gateway and worker, in one encoded form.
 *
 * A generation is one sequence that a language model is to work on (or a text to be cut into tokens, or tokens to be
 * put together): the payload of an ITEM frame, written by the gateway, read by the worker. An event is what came of it
 * in one step: the payload of a PART frame, written by the worker, which is hostile, and read by the gateway from its
 * own copy. Types and pure functions; nothing allocates, and what is decoded borrows from the bytes it came from.
 * Little-endian; nothing aligned.
 *
 * Here are no policies: which values a surface takes is its own affair, but what decodes lies in the ranges below. */
#ifndef BULKHEAD_TENSOR_GENERATION_H
#define BULKHEAD_TENSOR_GENERATION_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

enum generation_kind {
    GENERATION_NONE = 0,
    GENERATION_COMPLETION, /* prompt: text, or tokens */
    GENERATION_CHAT,       /* prompt: the messages, a JSON array as in the OpenAI API */
    GENERATION_EMBEDDING,  /* prompt: text, or tokens */
    GENERATION_TOKENIZE,   /* prompt: text */
    GENERATION_DETOKENIZE, /* prompt: tokens */
    GENERATION_KIND_COUNT
};

enum generation_flag {
    GENERATION_LOGPROBS = 1u << 0,   /* events carry the logarithm of each token's probability */
    GENERATION_IGNORE_END = 1u << 1, /* the model's own end of text does not end it: for measuring */
    GENERATION_SEEDED = 1u << 2,     /* `seed` counts; else each sequence draws its own */
    GENERATION_NO_SPECIAL = 1u << 3, /* text prompts: no token is put before or behind (BOS, EOS) */
    GENERATION_NO_CACHE = 1u << 4,   /* neither reads the prefix cache nor is kept in it */
    GENERATION_ONE_CALL = 1u << 5,   /* CHAT: of its tools the answer calls at most one, once */
    GENERATION_FLAGS_ALL = (1u << 6) - 1
};

enum generation_grammar {
    GENERATION_FREE = 0,
    GENERATION_GBNF,        /* `grammar` is a grammar in llama.cpp's GBNF, whose root rule is "root" */
    GENERATION_JSON_SCHEMA, /* `grammar` is a JSON schema; "{}" for any object */
    GENERATION_GRAMMAR_COUNT
};

struct generation_bias {
    int32_t token; /* ≥ 0; what the vocabulary does not have is the engine's to refuse */
    float bias;    /* −100 .. 100 */
};

/* One sequence. Of `n` choices the gateway makes n generations with ids, and where wanted seeds, of their own. */
struct generation {
    enum generation_kind kind;
    uint32_t flags;           /* enum generation_flag */
    uint64_t cache_secret[2]; /* the tenant's, made by the server: a cached prefix is found under the same secret only.
                                 Both 0: not cached */
    uint32_t adapter;         /* 0: the bare base; else the index under which an adapter was loaded */
    uint32_t max_tokens;      /* ≥ 1; of the answer; the engine lowers it to what its context holds */
    uint64_t seed;
    float temperature;       /* 0 .. 2; 0: greedy */
    float top_p;             /* 0 .. 1; 1: off */
    uint32_t top_k;          /* 0: off */
    float min_p;             /* 0 .. 1; 0: off */
    float frequency_penalty; /* −2 .. 2; 0: off */
    float presence_penalty;  /* −2 .. 2 */
    uint32_t n_top_logprobs; /* 0 .. LIMIT_TOP_LOGPROBS */
    enum generation_grammar grammar_kind;
    struct str grammar;     /* ≤ LIMIT_GRAMMAR_BYTES */
    struct str prompt;      /* UTF-8; empty where tokens are given */
    const void *tokens;     /* [n_tokens] int32_t, little-endian, not aligned; each ≥ 0. NULL when n_tokens is 0 */
    uint32_t n_tokens;      /* ≤ LIMIT_PROMPT_TOKENS */
    struct str tools;       /* CHAT: a JSON array as in the OpenAI API, or empty */
    struct str tool_choice; /* CHAT: "auto", "none", "required", or empty */
    uint32_t n_stops;       /* ≤ LIMIT_STOPS */
    struct str stops[LIMIT_STOPS]; /* 1 .. LIMIT_STOP_BYTES each */
    uint32_t n_biases;             /* ≤ LIMIT_LOGIT_BIASES */
    const void *biases;            /* [n_biases] struct generation_bias, little-endian, not aligned */
};

/* Greedy, no limit on anything that can be off, max_tokens 16, of that kind. */
void generation_init(struct generation *g, enum generation_kind kind);
/* 0 ≤ index < n_tokens, and < n_biases. */
int32_t generation_token(const struct generation *g, uint32_t index);
struct generation_bias generation_bias(const struct generation *g, uint32_t index);

/* Bytes of the encoded form; any generation whose numbers are in their limits has at most
 * LIMIT_GENERATION_HEAD_BYTES + prompt + tokens + tools + grammar. */
size_t generation_size(const struct generation *g);
/* Writes exactly generation_size bytes to `data`; -ERROR_LIMIT when `capacity` is less. -ERROR_INVALID_REQUEST, with
 * the reason, for what decode would refuse. */
must_check int generation_encode(const struct generation *g, void *data, size_t capacity, struct error *err);
/* Trusts nothing: -ERROR_PEER on numbers out of range, text that is not UTF-8, or a length that does not add up;
 * *ret untouched then. `ret` borrows from `data`. */
must_check int generation_decode(const void *data, size_t size, struct generation *ret, struct error *err);

/* --- events --- */

enum generation_event_kind {
    GENERATION_EVENT_NONE = 0,
    GENERATION_EVENT_PROGRESS,  /* a part of the prompt was worked on; nothing to tell the client but the counts */
    GENERATION_EVENT_TEXT,      /* the answer goes on by `text`, which may be empty while bytes are held back */
    GENERATION_EVENT_REASONING, /* likewise, of what the chat template marks as reasoning */
    GENERATION_EVENT_TOOL,      /* tool call `index` goes on: `id` and `name` in its first event, `text` is more of its
                                   arguments */
    GENERATION_EVENT_TOKENS,    /* TOKENIZE: more tokens */
    GENERATION_EVENT_VECTOR,    /* EMBEDDING: more of the vector */
    GENERATION_EVENT_END,       /* the last one: `finish`, and where that is ERROR `status` and `text` for people */
    GENERATION_EVENT_KIND_COUNT
};

enum generation_finish {
    GENERATION_RUNNING = 0,
    GENERATION_STOP,       /* the model's end of text, or a stop string */
    GENERATION_LENGTH,     /* max_tokens, or the context is full */
    GENERATION_TOOL_CALLS, /* as STOP, and the answer calls tools */
    GENERATION_ERROR,
    GENERATION_FINISH_COUNT
};

/* Token by token, where LOGPROBS was asked for with their probabilities. */
struct generation_token {
    int32_t id;
    float logprob;   /* ≤ 0, or 0 without LOGPROBS; −9999 for what cannot be */
    struct str text; /* its bytes, which need not be UTF-8; without LOGPROBS empty; cut off at LIMIT_TOKEN_BYTES */
    uint32_t n_top;  /* ≤ LIMIT_TOP_LOGPROBS */
    struct {
        int32_t id;
        float logprob;
        struct str text;
    } top[LIMIT_TOP_LOGPROBS]; /* most probable first */
};

struct generation_event {
    enum generation_event_kind kind;
    enum generation_finish finish; /* RUNNING but in END */
    int32_t status;                /* 0, or -enum error_code of an END with ERROR */
    uint32_t index;                /* of a tool call; of VECTOR's first element */
    struct str text;               /* UTF-8, never cut within a character; ≤ LIMIT_EVENT_TEXT_BYTES */
    struct str id, name;           /* of a tool call; ≤ LIMIT_REQUEST_ID_BYTES each */
    /* Counts of the whole sequence up to now, in each event. */
    uint32_t prompt_tokens;     /* of the prompt; 0 before it was cut into tokens */
    uint32_t cached_tokens;     /* of these, taken from the cache */
    uint32_t prompt_done;       /* of these, worked on or taken from the cache */
    uint32_t completion_tokens; /* of the answer */
    /* What is in `tokens`: TEXT, REASONING, TOOL and END count what they list; TOKENS lists what it brings. */
    uint32_t n_tokens;   /* ≤ LIMIT_EVENT_TOKENS */
    struct str tokens;   /* encoded; read with generation_event_token */
    uint32_t n_values;   /* VECTOR; ≤ LIMIT_EVENT_VALUES */
    const void *values;  /* [n_values] float, little-endian, not aligned */
    uint32_t n_elements; /* VECTOR: of the whole vector */
};

/* Appends a token to what will be `event->tokens`: `buffer` [LIMIT_EVENT_BYTES] belongs to the caller and holds the
 * tokens so far. -ERROR_LIMIT, with nothing changed, when it does not fit. */
must_check int generation_event_add(struct generation_event *event, void *buffer, const struct generation_token *token);
/* Takes the next token off `rest`, which begins as event->tokens of an event that was decoded; false at the end. */
bool generation_event_token(struct str *rest, struct generation_token *ret_token);

/* Bytes of the encoded form, ≤ LIMIT_EVENT_BYTES for all that encode takes. */
size_t generation_event_size(const struct generation_event *event);
/* -ERROR_LIMIT when `capacity` is too small, or a count is out of range. */
must_check int generation_event_encode(const struct generation_event *event, void *data, size_t capacity,
                                       size_t *ret_size);
/* Of the caller's own copy of what a worker wrote. -ERROR_PEER on anything out of range; *ret untouched then. All
 * tokens are looked at here, so that reading them later cannot fail. `ret` borrows from `data`. */
must_check int generation_event_decode(const void *data, size_t size, struct generation_event *ret, struct error *err);

#endif
