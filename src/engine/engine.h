/* Engines: what executes a model. One shape for tensors and tokens.
 *
 * Lives in the worker only (and in one-shot describers), single-threaded unless `cancel` says otherwise. A new engine
 * is one file with one `const struct engine_ops` and a row in engine_registry.c; one conformance suite runs against
 * all. The model comes as a read-only memory mapping (a sealed memfd); an engine never opens a path of its own
 * choosing. */
#ifndef BULKHEAD_ENGINE_ENGINE_H
#define BULKHEAD_ENGINE_ENGINE_H

#include "tensor/generation.h"
#include "tensor/tensor.h"

struct engine;

struct engine_options {
    const void *model; /* [model_bytes] mapped read-only for the life of the engine */
    size_t model_bytes;
    int model_fd;             /* the same again, for an engine that maps it in its own way; borrowed. -1: none */
    uint64_t memory_bytes;    /* resources.memory, which an engine's buffers must fit; 0: not known */
    int library_fd;           /* the engine's shared library, opened by the supervisor; -1: the engine is built in. The
                                 engine dlopens it as /proc/self/fd/N; borrowed */
    const char *library_path; /* the library again, where the worker has a root folder of its own and no /proc; NULL: by
                                 descriptor */
    uint32_t threads;         /* resources.cpu, ≥ 1: intra-op threads */
    bool repack; /* weights may be copied, within memory_bytes, into an order that is faster to compute with */
    /* The process gives up what only loading a library needs (files, executable memory). Called once the library is
     * loaded and before the model is looked at; a failure fails `open`. NULL: nothing is given up. */
    int (*confine)(void *ctx, struct error *err);
    void *confine_ctx;
};

struct engine_item { /* one request inside a batch */
    uint64_t request_id;
    uint64_t tenant_id;
    uint32_t rows; /* along the batch axis, may be 0; 1 when the model is not batchable (then a batch has one item) */
};

/* A lease's work: the inputs of all items, gathered contiguously along axis 0 (BYTES likewise, element by element). */
struct engine_batch {
    uint32_t n_items;
    const struct engine_item *items;
    uint32_t rows;                    /* sum over items */
    uint32_t n_inputs;                /* = signature's, in its order */
    const struct tensor_view *inputs; /* shape[0] = rows where batchable; data in read-only shared memory, 64-byte
                                         aligned, and valid until step has reported done */
    uint64_t outputs_wanted;          /* bit i: output i of the signature is wanted by some item */
};

/* Where a step's results go; called from inside step. `output` is for the whole batch; the worker splits it by rows.
 * data valid during the call only. Return non-zero to stop the step (the channel is gone). */
struct engine_sink {
    void *ctx;
    int (*output)(void *ctx, uint32_t output_index, const struct tensor_view *output);
};

/* Token engines: what a turn may work on, and for how long. */
struct engine_turn {
    uint64_t budget_ns; /* the turn ends at the first boundary of a step behind it; ≥ 1 */
    uint64_t tenant_id; /* only sequences of this tenant; 0: of all */
    uint32_t kind;      /* only sequences with adapters of it, and those to be refused; 0: on the bare base */
    uint32_t ret_left;  /* out, on success: how many of these could be stepped further */
};

/* Where the events of a turn go; called from inside token_step. What `event` points at is valid during the call only.
 * `more` is asked before each step after the first: false ends the turn there (new frames, no room for events). */
struct engine_token_sink {
    void *ctx;
    int (*event)(void *ctx, uint64_t request_id, const struct generation_event *event);
    bool (*more)(void *ctx);
};

enum engine_cap {
    ENGINE_TENSOR = 1u << 0, /* finishes a batch in one step: submit, step */
    ENGINE_TOKEN = 1u << 1,  /* sequences that live over many steps: token_submit, token_step */
    ENGINE_CANCEL = 1u << 2, /* cancel works while a step runs */
    ENGINE_SHARED = 1u << 3, /* several objects of it work in one process, each in a thread of its own, and each gives
                                everything back at its close: level shared */
};

struct engine_stats {
    uint64_t steps, items, step_ns_last, step_ns_total;
};

struct engine_ops {
    const char *name;    /* Model.spec.engine */
    uint32_t caps;       /* enum engine_cap */
    const char *library; /* file name looked up in the engines folder by the supervisor; NULL: built in */
    /* Loads what no model is needed for: the library. Looks at library_fd and library_path only; `open` does it too.
     * Codes as there. NULL: there is nothing to load. */
    int (*preload)(const struct engine_options *options, struct error *err);
    /* Loads; may take seconds and start threads - 1 threads. On failure err explains in our words what is wrong and
     * nothing is left behind: -ERROR_REFUSED (the model's fault), -ERROR_UNSUPPORTED (the server's library is missing
     * or does not load), -ERROR_INVALID_ARGUMENT (options), -ERROR_NO_MEMORY. */
    int (*open)(const struct engine_options *options, struct engine **ret_engine, struct error *err);
    /* The signature; valid after open. */
    int (*describe)(struct engine *e, struct tensor_signature *ret_signature, struct error *err);
    /* Takes a batch; -ERROR_AGAIN when one is pending already, -ERROR_INVALID_TENSOR when it does not fit the
     * signature. The batch and its arrays stay valid until step is done. */
    int (*submit)(struct engine *e, const struct engine_batch *batch, struct error *err);
    /* Works for at most about budget_ns where the engine can stop early (tensor engines cannot). Returns 1 when the
     * submitted batch is done, 0 when there is more to do, negative when the batch failed (it is then forgotten):
     * -ERROR_ENGINE (the model cannot take this input, or broke its own signature), -ERROR_CANCELLED, -ERROR_GONE (the
     * sink said stop), -ERROR_NO_MEMORY, -ERROR_INTERNAL (nothing was submitted). Outputs may have been given to the
     * sink before a failure. */
    int (*step)(struct engine *e, uint64_t budget_ns, const struct engine_sink *sink, struct error *err);
    /* Asks a running or pending request to stop; may come from another thread when ENGINE_CANCEL is set (but not during
     * close). A batch stops once all its requests are cancelled; one of several runs on, and its caller drops the
     * answer. Unknown ids are ignored. NULL: not possible.
     * Token engines: between two steps only (not from the sink). The sequence is gone at once and gives no event; 0
     * means all. */
    void (*cancel)(struct engine *e, uint64_t request_id);

    /* Token engines only, NULL else; never while a step runs. */

    /* Takes a sequence, which begins to run with the next step; what it needs of `g` is copied. It does no long work: a
     * prompt that cannot be used is told by the sequence's END. -ERROR_AGAIN when the signature's `sequences` live
     * already, -ERROR_INVALID_ARGUMENT for an id that lives, -ERROR_NO_MEMORY. request_id ≥ 1. */
    int (*token_submit)(struct engine *e, uint64_t request_id, uint64_t tenant_id, const struct generation *g,
                        struct error *err);
    /* Steps all sequences that the turn allows, again and again, until its time is over, `more` says no or nothing is
     * left to do. At least one step is made. A sequence
     * ends with exactly one END and is forgotten then. Returns how many sequences of the engine could be stepped
     * further (of any tenant or adapter, not parked), negative when the engine failed and all its sequences are gone:
     * -ERROR_ENGINE, -ERROR_NO_MEMORY, -ERROR_GONE (the sink said stop). */
    int (*token_step)(struct engine *e, struct engine_turn *turn, const struct engine_token_sink *sink,
                      struct error *err);
    /* The sequence keeps what it has and is not stepped, until resume. -ERROR_NOT_FOUND: unknown id. */
    int (*park)(struct engine *e, uint64_t request_id, struct error *err);
    /* Its adapter, where it has one, goes by that number now: it was dropped while the sequence was parked, and loaded
     * again, the same bytes. */
    int (*resume)(struct engine *e, uint64_t request_id, uint32_t adapter, struct error *err);
    /* An adapter for the model, under a number ≥ 1, not UINT32_MAX, that none has: sequences name it from then
     * on. `data` is the file, mapped, and `fd` the same; both are borrowed and not needed any more after the call.
     * May take seconds. -ERROR_REFUSED (the file's fault, err for people), -ERROR_NO_MEMORY (more than the signature's
     * adapter_bytes, or too many), -ERROR_INVALID_ARGUMENT. *ret_kind ≥ 1: turns name adapters by it, and those of one
     * kind are stepped together; never given to another kind again. Both NULL: it takes none. */
    int (*adapter_load)(struct engine *e, uint32_t number, int fd, struct str data, uint32_t *ret_kind,
                        struct error *err);
    /* Its memory and its cached prefixes go; its sequences end with an error in the next step, but those that are
     * parked, which keep what they have: they do so when they are resumed under a number that is not loaded. 0: all of
     * them. */
    void (*adapter_drop)(struct engine *e, uint32_t number);
    /* Nothing was asked for a while: gives memory back that it can fill again soon. Some milliseconds at most; true:
     * there is more to do. NULL: there never is. */
    bool (*rest)(struct engine *e);
    void (*stats)(struct engine *e, struct engine_stats *ret_stats);
    void (*close)(struct engine *e); /* accepts NULL */
};

/* Embedded first in each engine's own struct. */
struct engine {
    const struct engine_ops *ops;
};

extern const struct engine_ops engine_identity;
extern const struct engine_ops engine_onnx;
extern const struct engine_ops engine_llama;

/* By name, or NULL. */
const struct engine_ops *engine_find(struct str name);
/* Row i of the registry, NULL past the end. For --help and conformance tests. */
const struct engine_ops *engine_at(size_t index);

#endif
