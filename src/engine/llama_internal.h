/* What the files of the llama engine share.
 *
 * A sequence is submitted, prepared (its prompt becomes tokens, its sampler is made), and then fed to the model step by
 * step; the tokens that the model's memory (KV cells) holds of it are always the first n_done of `tokens`:
 *
 *   WAITING ──prepare──► RUNNING ──────END──► FREE        cancel: any ──► FREE
 *      └──► LISTING: tokenize, detokenize, embedding: the answer is there and is told event by event
 *
 * All sequences share one llama_context, in which each has a stream of cells of its own, with room for the longest; a
 * stream's number is the sequence's id there. A sequence sees the cells of its own id only: that is what llama.cpp's
 * attention mask says, and a stream is cleared before it is used again. A finished sequence's cells may stay in its
 * stream as a cached prefix (llama_cache.c). */
#ifndef BULKHEAD_ENGINE_LLAMA_INTERNAL_H
#define BULKHEAD_ENGINE_LLAMA_INTERNAL_H

#include "engine/llama_library.h"
#include "engine/token_text.h"

#include <stdio.h>

/* Tokens of one decode call, and of prompts among them while answers are being generated: so a long prompt delays the
 * others' next token by at most the time that these take. */
#define LLAMA_BATCH_TOKENS 512u
#define LLAMA_PREFILL_BUSY 64u
/* More are computed one part after the other: what lies between layers is smaller, and stays in a processor's cache. */
#define LLAMA_PART_TOKENS 128u
/* A step of prompts alone takes tokens × parameters multiplications, of which a thread makes so many in some tenths of
 * a second: then others' turns, cancels and the gateway's patience come before the end of a long prompt. By the model's
 * size and never by the clock, because the sums of an answer depend on the pieces in which its prompt came. */
#define LLAMA_STEP_WORK     (UINT64_C(8) * 1000 * 1000 * 1000)
#define LLAMA_PREFILL_LEAST 32u
#define LLAMA_COPY_BYTES \
    (16 * MIB)                  /* of a prefix that a buffer holds; a longer one stays in cells, or all are copied */
#define LLAMA_SEQUENCES     32u /* at once; ≤ LIMIT_SEQUENCES */
#define LLAMA_CONTEXT_MAX   32768u
#define LLAMA_EMBEDDING_MAX 2048u /* tokens: an embedding is computed in one call */
/* Text has at least so many tokens: no vocabulary in the field has pieces so long that more bytes could fit. */
#define LLAMA_BYTES_PER_TOKEN_MAX 32u
#define LLAMA_PRESERVED_MAX       32u
/* Of a step, for cutting new prompts into tokens, applying templates, making grammars. */
#define LLAMA_PREPARE_NS (2 * 1000 * 1000)
/* A grammar that needs more processor time for one token ends its sequence; a busy machine does not. */
#define LLAMA_GRAMMAR_NS_MAX (100 * 1000 * 1000)

enum llama_state { LLAMA_FREE = 0, LLAMA_WAITING, LLAMA_RUNNING, LLAMA_LISTING };

struct llama_sequence {
    enum llama_state state;
    bool parked;
    uint64_t request_id, tenant_id;
    uint64_t age;        /* smaller came earlier */
    struct generation g; /* its texts point into `encoded` */
    void *encoded;       /* owned */
    int32_t id;          /* of its stream; -1: none */
    llama_token *tokens; /* owned [n_allocated]: the prompt, then the answer */
    uint32_t n_tokens, n_prompt, n_allocated;
    uint32_t n_done;   /* of tokens, in the cells */
    uint32_t n_cached; /* of the prompt, taken from the cache at first */
    uint32_t n_wanted; /* tokens of its prompt that this step has still to give */
    uint32_t n_given;  /* tokens of the call's batch */
    int32_t row;       /* of the batch, whose logits are this sequence's; -1: none */
    struct llama_sampler *chain, *grammar;
    struct llama_chat *chat; /* CHAT: what its template has made */
    int32_t preserved[LLAMA_PRESERVED_MAX];
    uint32_t n_preserved; /* special tokens that are part of the answer's text */
    struct token_text text;
    /* LISTING */
    char *listed_text; /* DETOKENIZE; owned */
    float *vector;     /* EMBEDDING; owned */
    uint32_t n_listed, n_told;
};

/* Cells, those of a sequence, or of a prefix that stayed, or of nobody. */
struct llama_stream {
    struct llama_sequence *owner;
    uint32_t taint; /* what was computed with this adapter may lie in cells that nobody sees; 0: with none */
    bool rests;     /* its pages are given back, and nothing came since */
    /* A prefix, without an owner only: */
    uint32_t n_tokens;   /* 0: there is none */
    llama_token *tokens; /* owned */
    uint64_t secret[2];
    uint8_t *packed; /* owned: what was in its cells, of which none are left; NULL: it is in them */
    size_t packed_bytes;
    uint64_t used; /* smaller was used longer ago */
    uint32_t adapter;
};

/* Keys, or values, of one layer: those of one stream after the other. */
struct llama_cells {
    void *data;
    size_t stream_bytes;
};

/* One of a kind's, in the order of their names. */
struct llama_matrix {
    struct ggml_tensor *tensor; /* llama.cpp's; its `extra` is this */
    size_t offset;              /* in a slot */
};

/* Adapters that differ in nothing but numbers: of the same tensors, shapes, types and scale. llama.cpp knows one of
 * them, whose tensors show what lies in the slot of the one that is computed with. llama_kinds.c */
struct llama_kind {
    uint32_t n_adapters; /* 0: no entry */
    uint32_t number;
    struct llama_adapter_lora *lora; /* owned */
    float alpha;
    bool plain;                    /* all are matrices that activations are multiplied with */
    bool seen;                     /* in a decode call */
    bool odd;                      /* and there not all as llama_rows.c expects them */
    struct llama_matrix *matrices; /* owned [n_matrices] */
    uint32_t n_matrices;
    char *slots; /* of slot_bytes each; within `mapping`, and without access where nobody is */
    size_t slot_bytes;
    uint32_t n_slots;
    uint64_t taken; /* slots */
    void *mapping;  /* owned */
    size_t mapping_bytes;
    struct ggml_tensor *copies; /* owned [n_copies_max]; llama_rows.c */
    uint32_t n_copies_max;
};

struct llama_adapter {
    uint32_t number;       /* 0: no entry */
    uint32_t kind;         /* what turns name it by: its own where it cannot be computed together with others */
    uint64_t bytes;        /* of its file, and about so many of memory */
    struct llama_kind *of; /* one of llama.kinds */
    uint32_t slot;
};

/* llama_rows.c */
struct llama_rows {
    struct llama_kind *kind;  /* of the running call; NULL: it is without an adapter */
    bool one_each;            /* one token of each stream */
    bool mixed;               /* of several adapters */
    uint32_t n_copies;        /* of the kind's */
    uint32_t n_uses, n_known; /* of its matrices, by nodes; as they are expected */
    /* Slots: of each token where each stream has one, and of those whose logits are wanted; and these for ggml. */
    int32_t all[LLAMA_SEQUENCES], wanted[LLAMA_SEQUENCES];
    struct ggml_tensor ids_all, ids_wanted;
};

/* llama_alone.c */
#define LLAMA_ALONE_MAX 3u
struct llama_alone {
    uint64_t call_ns[LLAMA_ALONE_MAX + 1]; /* of a call with a token each of so many sequences; 0: there was none yet */
    uint32_t n_choices;
};

/* llama_threads.c */
struct llama_pace {
    uint32_t n;                      /* threads of the next decode call */
    uint32_t n_operations;           /* of calls */
    uint64_t begin_ns, begin_cpu_ns; /* of the running call, or when it was looked at last */
    uint64_t wall_ns, cpu_ns;        /* of calls in the window */
    uint32_t ran;                    /* in the window before, in halves of a thread */
    uint64_t missing_ns;             /* of windows in which a thread was missing, less those with all; at least 0 */
    uint64_t until_ns, hold_ns;      /* fewer threads until then; the next time for so long */
    uint64_t give_up_ns;             /* missing_ns with which a running call is given up */
    bool given_up;
};

struct llama {
    struct engine engine;
    const struct llama_library *api;
    struct str model_file; /* mapped for our life */
    FILE *file;            /* of the model; its mapping's */
    struct llama_model *model;
    struct llama_templates *templates; /* NULL: no chat */
    const struct llama_vocab *vocab;
    struct llama_context *context;
    struct llama_context *embedder; /* NULL until the first embedding */
    struct ggml_threadpool *threads;
    struct llama_batch batch;
    llama_token_data *candidates; /* [n_vocabulary] */
    struct tensor_token_model token;
    uint32_t n_threads, n_vocabulary;
    struct llama_pace pace;
    struct llama_alone alone;
    uint32_t prompt_tokens; /* of a step in which nobody generates; LLAMA_PREFILL_LEAST to LLAMA_BATCH_TOKENS */
    uint64_t age;
    bool cacheable;  /* a sequence can be cut: not with recurrent state */
    bool windowed;   /* some layers see the last tokens only; what llama.cpp saves of a sequence lacks the others */
    bool fills_gaps; /* one token more in a call costs less than one call more */
    uint32_t block;  /* a call of so many tokens costs less than one of some fewer; 0: there is no such number */
    struct llama_sequence sequences[LLAMA_SEQUENCES];
    struct llama_stream streams[LLAMA_SEQUENCES]; /* [token.sequences] */
    uint64_t copied;                              /* streams in copies that the next decode call makes */
    struct llama_cells *cells;                    /* owned [n_cells_max] */
    uint32_t n_cells, n_cells_max;
    bool cells_known; /* `cells` are all that there are */
    struct llama_rows rows;
    struct llama_adapter adapters[LIMIT_ADAPTERS_LOADED];
    struct llama_kind kinds[LIMIT_ADAPTERS_LOADED];
    uint32_t last_kind;      /* number */
    struct llama_kind *worn; /* what `context` computes with; NULL: the bare base */
    struct engine_stats stats;
    /* of the event being made */
    char text[TOKEN_TEXT_BYTES];
    char token_texts[LIMIT_TOP_LOGPROBS + 1][LIMIT_TOKEN_BYTES];
    char event_tokens[LIMIT_EVENT_BYTES];
};

static inline struct llama *llama_of(struct engine *e)
{
    return (struct llama *)(void *)e; /* first member */
}

/* --- llama_prepare.c --- */

/* Turns a WAITING sequence into a RUNNING or LISTING one. Negative: it cannot be worked on, err says why. Some
 * milliseconds at most. */
must_check int llama_prepare(struct llama *l, struct llama_sequence *s, struct error *err);

/* --- llama_threads.c --- */

/* For each context that is made. */
void llama_pace_init(struct llama *l, struct llama_context *context);
/* llama_decode, or llama_encode, with as many threads as the host lets run at once. False: it was given up and is to be
 * done again with fewer, behind the cells that were there before; never more often than there are threads. */
must_check bool llama_pace_decode(struct llama *l, struct llama_context *context, struct llama_batch batch, bool encode,
                                  int *ret_status);
/* llama_decode with one thread, which is never given up and tells nothing about the host. Returns its status. */
must_check int llama_pace_decode_once(struct llama *l, struct llama_context *context, struct llama_batch batch);

/* --- llama_alone.c --- */

/* A call with a token each of n sequences, and nothing else, took so long. */
void llama_alone_note(struct llama *l, uint32_t n, uint64_t took_ns);
/* Whether n sequences get a call each. */
bool llama_alone_choose(struct llama *l, uint32_t n);

/* --- llama_adapter.c --- */

/* See engine_ops. */
must_check int llama_adapter_load(struct engine *e, uint32_t number, int fd, struct str data, uint32_t *ret_kind,
                                  struct error *err);
void llama_adapter_drop(struct engine *e, uint32_t number);
/* NULL: it is not loaded, or 0. */
struct llama_adapter *llama_adapter_find(struct llama *l, uint32_t number);
bool llama_adapter_loaded(struct llama *l, uint32_t number); /* 0 always is; of others sequences are ended */
/* Whether it is loaded and of that kind; 0 is the bare base's, and no other's. */
bool llama_adapter_is(struct llama *l, uint32_t number, uint32_t kind);
/* What `context` computes with from now on, where rows have nothing else; NULL: the bare base. */
void llama_adapter_use(struct llama *l, const struct llama_adapter *a);
/* What the embedder computes with; 0, or loaded. */
void llama_adapter_embed(struct llama *l, uint32_t number);

/* --- llama_kinds.c --- */

/* Puts what llama.cpp has made of a file where those of its kind are: sets kind, of and slot. The LoRA belongs to the
 * kind then, or is gone, also after a failure. */
must_check int llama_kind_join(struct llama *l, struct llama_adapter *a, struct llama_adapter_lora *lora,
                               struct error *err);
/* False: it was the last of its kind, and that must not be in use any more: llama_kind_done ends it. */
bool llama_kind_leave(struct llama_adapter *a);
void llama_kind_done(struct llama *l, struct llama_kind *k);
/* Whoever computes with the kind's LoRA computes with that adapter from now on. */
void llama_kind_show(const struct llama_adapter *a);
/* NULL: it is none of the kind's. */
const struct llama_matrix *llama_kind_matrix(const struct llama_kind *k, const struct ggml_tensor *t);

/* --- llama_rows.c --- */

/* Before each decode call, which is one computation: without an adapter, or with those of one kind in this order, one
 * token of each of its streams or several of each, all of one adapter then. */
void llama_rows_begin(struct llama *l, struct llama_kind *k, bool one_each);
void llama_rows_add(struct llama *l, const struct llama_adapter *a, bool wanted);
/* The same call once more, after it was given up. */
void llama_rows_again(struct llama *l);
/* A node of a computation, before any of it runs. */
void llama_rows_look(struct llama *l, struct ggml_tensor *node);
/* After the call. False: what came of it is not to be used. */
must_check bool llama_rows_done(struct llama *l);

/* --- llama_cells.c --- */

/* A node of a computation, before it runs. */
void llama_cells_look(struct llama *l, const struct ggml_tensor *node);
/* Finds the cells, by stepping one token, and gives their pages back, if they take `bytes` in all. Negative: the model
 * cannot be stepped. Needs the context and the batch, before any sequence is there. */
must_check int llama_cells_begin(struct llama *l, uint64_t bytes, struct error *err);
/* Overwrites all cells of a stream that is in none of `copied`. False: nothing happened, they are not known. */
must_check bool llama_cells_zero(struct llama *l, uint32_t id);

/* --- llama_answer.c --- */

/* A chat's template, applied; its prompt into s->tokens comes with llama_prepare. */
must_check int llama_chat_begin(struct llama *l, struct llama_sequence *s, struct str *ret_prompt, struct error *err);
/* One of these that counts as text though it is special. */
bool llama_chat_keeps(const struct llama_sequence *s, llama_token token);
/* Tells what more text means, with the token that brought it (NULL: none). Negative: the sink said stop. */
must_check int llama_answer_tell(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink,
                                 struct str text, const struct generation_token *token, bool last);

/* --- llama_sample.c --- */

must_check int llama_samplers_make(struct llama *l, struct llama_sequence *s, struct error *err);
/* The next token of a sequence whose logits are there; with probabilities in *ret_token where they are wanted, whose
 * texts then lie in l->token_texts. Negative: it cannot go on. */
must_check int llama_sample(struct llama *l, struct llama_sequence *s, struct generation_token *ret_token,
                            struct error *err);

/* --- llama_sequence.c --- */

struct llama_sequence *llama_sequence_find(struct llama *l, uint64_t request_id);
/* Gives up everything, its cells included. */
void llama_sequence_free(struct llama *l, struct llama_sequence *s);
/* An event with the sequence's counts. */
struct generation_event llama_event(const struct llama_sequence *s, enum generation_event_kind kind);
/* Tells it, with this token (NULL: none). Negative: the sink said stop. */
must_check int llama_tell(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink,
                          struct generation_event *event, const struct generation_token *token);
/* Its END; frees it, keeping its cells as a prefix where that is allowed. */
must_check int llama_end(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink,
                         enum generation_finish finish, int status, const struct error *err);
/* Tells a part of a LISTING sequence's answer. */
must_check int llama_list(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink);

/* --- llama_prompts.c --- */

/* Tokens of its that are not computed yet; with more than one it is at its prompt. */
static inline uint32_t llama_left_of(const struct llama_sequence *s)
{
    return s->n_tokens - s->n_done;
}
/* Sets n_wanted of these, which are at their prompts, the oldest first, and 0 of all other sequences; `busy`: others
 * wait for their next token. Changes the order of `prompts`. What each gets are whole blocks where it can, and never
 * one token, nor all but one. */
void llama_prompts_want(struct llama *l, struct llama_sequence *prompts[], uint32_t n, bool busy);

/* --- llama_step.c --- */

must_check int llama_token_step(struct engine *e, struct engine_turn *turn, const struct engine_token_sink *sink,
                                struct error *err);

/* --- llama_cache.c --- */

/* A stream for a sequence, with the longest prefix of its tokens that is cached: sets id and n_done < n_tokens. false:
 * it has to wait for one. */
bool llama_stream_take(struct llama *l, struct llama_sequence *s);
/* Nothing of the sequence can be seen any more. Nothing happens without a stream. */
void llama_stream_give(struct llama *l, struct llama_sequence *s);
/* Leaves the stream of a sequence that ends with what is in it as a prefix, where that is allowed. */
void llama_prefix_keep(struct llama *l, struct llama_sequence *s);
/* Nothing happens where there is none. */
void llama_prefix_forget(struct llama *l, uint32_t id);
/* See engine_ops: packs a prefix, so that its stream needs no memory. */
bool llama_rest(struct engine *e);
/* How many cells of it somebody sees; and away with what was put behind these. */
uint32_t llama_stream_end(const struct llama *l, uint32_t id);
void llama_stream_cut(struct llama *l, uint32_t id);

#endif
