/* The llama engine: llama.cpp behind its C API, GGUF models.
 *
 * open loads the library, scans the file (gguf_scan), lets llama.cpp map the model's own descriptor, so that all
 * workers of a model use the same pages, and makes one context with as many cells as the memory limit leaves room for.
 */
#include "engine/gguf_scan.h"
#include "engine/llama_internal.h"

#include "base/memory.h"

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS_MAX 512u
/* Of the memory limit: what the library itself, a batch's buffers and texts take; half of the rest is for cells, a
 * quarter for adapters, so that the embeddings' context and requests have room too. */
#define MEMORY_BASE    (96 * MIB)
#define MEMORY_DEFAULT (512 * MIB) /* in tests, where nobody says */
#define CELLS_STEP     256u        /* llama.cpp rounds to it */
#define CONTEXT_GOOD   4096u       /* a stream is at least so long, or as the model was trained for, */
#define SEQUENCES_FEW  8u          /* but where that gives fewer than so many */
#define CONTEXT_FAIR   1024u
#define POLLING        2u /* a step's threads look some milliseconds for the next before they sleep */

static void llama_close(struct engine *e)
{
    struct llama *l = llama_of(e);
    if (!l)
        return;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES && l->context; i++)
        llama_sequence_free(l, &l->sequences[i]);
    for (uint32_t i = 0; i < l->token.sequences && l->context; i++)
        llama_prefix_forget(l, i);
    llama_adapter_drop(e, 0);
    if (l->batch.token)
        l->api->llama_batch_free(l->batch);
    if (l->embedder)
        l->api->llama_free(l->embedder);
    if (l->context)
        l->api->llama_free(l->context);
    if (l->threads)
        l->api->threadpool_free(l->threads);
    if (l->templates)
        l->api->llama_templates_close(l->templates);
    if (l->model)
        l->api->llama_model_free(l->model);
    if (l->file)
        (void)fclose(l->file); /* read only */
    free(l->candidates);
    free(l->cells);
    free(l);
}

static int model_load(struct llama *l, const struct engine_options *options, struct error *err)
{
    int fd = dup(options->model_fd);
    l->file = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!l->file) {
        if (fd >= 0)
            (void)close(fd);
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    rewind(l->file); /* the position is shared with whoever has the descriptor */
    struct llama_model_params p = l->api->llama_model_default_params();
    p.load_mode = LLAMA_LOAD_MODE_MMAP;
    p.n_gpu_layers = 0;
    p.check_tensors = false;
    p.use_extra_bufts = options->repack;                   /* else all workers of the model use the same pages */
    void *place = memory_file_place(options->model_bytes); /* a step reads all of it: in huge pages, if it can */
    l->model = l->api->llama_model_load_from_file_ptr(l->file, p);
    memory_file_placed(place);
    if (!l->model)
        return error_set(err, ERROR_REFUSED,
                         "llama.cpp refuses the model: its architecture or a part of it is not what this release "
                         "knows, or it does not fit spec.resources.memory.");
    l->vocab = l->api->llama_model_get_vocab(l->model);
    int32_t n = l->api->llama_vocab_n_tokens(l->vocab);
    if (n < 1 || l->api->llama_vocab_type(l->vocab) == LLAMA_VOCAB_TYPE_NONE)
        return error_set(err, ERROR_REFUSED, "The model has no vocabulary.");
    l->n_vocabulary = (uint32_t)n;
    if (l->api->llama_model_is_diffusion(l->model))
        return error_set(err, ERROR_REFUSED, "Diffusion language models cannot be served.");
    return 0;
}

static uint64_t meta_number(const struct llama *l, const char *suffix)
{
    char arch[64], key[128], value[32];
    uint64_t number = 0;
    if (l->api->llama_model_meta_val_str(l->model, "general.architecture", arch, sizeof arch) < 0)
        return 0;
    (void)snprintf(key, sizeof key, "%s.%s", arch, suffix); /* cut off: then it is not found */
    int32_t n = l->api->llama_model_meta_val_str(l->model, key, value, sizeof value);
    return n > 0 && str_to_u64((struct str){value, (size_t)n}, &number) == 0 ? number : 0;
}

/* Others see tokens that come later, and must have all in one computation. */
static bool is_causal(const struct llama *l)
{
    char arch[64], key[128], value[8];
    if (l->api->llama_model_meta_val_str(l->model, "general.architecture", arch, sizeof arch) < 0)
        return false;
    (void)snprintf(key, sizeof key, "%s.attention.causal", arch); /* cut off: then it is not found */
    return l->api->llama_model_meta_val_str(l->model, key, value, sizeof value) < 0 || strcmp(value, "false") != 0;
}

/* Keys and values of one token in all layers, 2 bytes a number. */
static uint64_t cell_bytes(const struct llama *l)
{
    uint64_t layers = (uint64_t)l->api->llama_model_n_layer(l->model);
    uint64_t heads = (uint64_t)l->api->llama_model_n_head(l->model);
    uint64_t shared = (uint64_t)l->api->llama_model_n_head_kv(l->model);
    uint64_t embedding = (uint64_t)l->api->llama_model_n_embd(l->model);
    uint64_t each = heads > 0 ? embedding / heads : embedding;
    uint64_t key = meta_number(l, "attention.key_length"), value = meta_number(l, "attention.value_length");
    return 2 * layers * (shared > 0 ? shared : 1) * ((key ? key : each) + (value ? value : each));
}

/* As many streams as can be long; where that are few, more that are shorter. */
static void streams_choose(struct llama *l, uint32_t context, uint64_t cells)
{
    uint64_t n = cells / (context < CONTEXT_GOOD ? context : CONTEXT_GOOD);
    uint64_t more = cells / (context < CONTEXT_FAIR ? context : CONTEXT_FAIR);
    if (n < SEQUENCES_FEW)
        n = more < SEQUENCES_FEW ? more : SEQUENCES_FEW;
    n = n < 1 ? 1 : n > LLAMA_SEQUENCES ? LLAMA_SEQUENCES : n;
    uint64_t each = cells / n / CELLS_STEP * CELLS_STEP, most = (context + CELLS_STEP - 1) / CELLS_STEP * CELLS_STEP;
    each = each > most ? most : each < CELLS_STEP ? CELLS_STEP : each;
    l->token.sequences = (uint32_t)n;
    l->token.cells = (uint32_t)(n * each);
    l->token.context = context < each ? context : (uint32_t)each;
}

static int cells_choose(struct llama *l, const struct engine_options *options, struct error *err)
{
    uint64_t memory = options->memory_bytes ? options->memory_bytes : MEMORY_DEFAULT;
    uint64_t each = cell_bytes(l), copied = options->repack ? options->model_bytes : 0;
    memory = memory > copied ? memory - copied : 0;
    int32_t trained = l->api->llama_model_n_ctx_train(l->model);
    uint32_t context = trained < 1                             ? CELLS_STEP
                       : (uint32_t)trained < LLAMA_CONTEXT_MAX ? (uint32_t)trained
                                                               : LLAMA_CONTEXT_MAX;
    uint64_t cells = memory > MEMORY_BASE ? (memory - MEMORY_BASE) / 2 / (each ? each : 1) : 0;
    l->token.adapter_bytes = memory > MEMORY_BASE ? (memory - MEMORY_BASE) / 4 : 0;
    if (cells < CELLS_STEP && context >= CELLS_STEP)
        return error_set(err, ERROR_REFUSED,
                         "The model's spec.resources.memory leaves no room for a context: %u tokens take %llu MiB "
                         "beyond %llu MiB for the engine; raise it.",
                         CELLS_STEP, (unsigned long long)((2 * CELLS_STEP * each + MIB - 1) / MIB),
                         (unsigned long long)((MEMORY_BASE + copied + MIB - 1) / MIB));
    streams_choose(l, context, cells);
    return 0;
}

static uint32_t prompt_tokens(const struct llama *l)
{
    uint64_t parameters = l->api->llama_model_n_params(l->model);
    uint64_t tokens = LLAMA_STEP_WORK * l->n_threads / (parameters ? parameters : 1);
    return tokens < LLAMA_PREFILL_LEAST  ? LLAMA_PREFILL_LEAST
           : tokens < LLAMA_BATCH_TOKENS ? (uint32_t)tokens
                                         : LLAMA_BATCH_TOKENS;
}

static int threads_make(struct llama *l, struct error *err)
{
    if (l->n_threads == 1)
        return 0;
    struct ggml_threadpool_params p = l->api->ggml_threadpool_params_default((int)l->n_threads);
    p.poll = POLLING;
    l->threads = l->api->threadpool_new(&p);
    return l->threads ? 0 : error_set_default(err, ERROR_NO_MEMORY);
}

/* The processors' kernels for K quants do one token after the other unless the weights are repacked: then a call costs
 * what its tokens cost. All others have kernels that use what they have read of the weights for several tokens. */
static bool batches_gain(const struct llama *l, bool repacked)
{
    enum llama_ftype type = l->api->llama_model_ftype(l->model);
    return repacked ||
           !((type >= LLAMA_FTYPE_MOSTLY_Q2_K && type <= LLAMA_FTYPE_MOSTLY_Q6_K) || type == LLAMA_FTYPE_MOSTLY_Q2_K_S);
}

/* Repacked Q4_K has a kernel for 16 rows at once where the processor has AVX-512, and a slow one for single rows. */
static uint32_t block_of(const struct llama *l, bool repacked)
{
#if defined(__x86_64__)
    enum llama_ftype type = l->api->llama_model_ftype(l->model);
    if (repacked && (type == LLAMA_FTYPE_MOSTLY_Q4_K_S || type == LLAMA_FTYPE_MOSTLY_Q4_K_M) &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return 16;
#endif
    (void)l;
    (void)repacked;
    return 0;
}

/* Of a computation, before any of it runs. */
static bool on_node(struct ggml_tensor *node, bool ask, void *ctx)
{
    if (ask) {
        llama_cells_look(ctx, node);
        llama_rows_look(ctx, node);
    }
    return false; /* not interested in what comes of it */
}

static int context_make(struct llama *l, struct error *err)
{
    struct llama_context_params p = l->api->llama_context_default_params();
    p.n_ctx = l->token.cells;
    p.n_batch = LLAMA_BATCH_TOKENS;
    p.n_ubatch = is_causal(l) ? LLAMA_PART_TOKENS : LLAMA_BATCH_TOKENS;
    p.n_seq_max = l->token.sequences;
    p.n_outputs_max = l->token.sequences; /* one a sequence */
    p.n_threads = p.n_threads_batch = (int32_t)l->n_threads;
    p.kv_unified = false;
    /* Its sums on processors are of 16 bits, so that an answer would depend even more on who else is in the batch. */
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.swa_full = true; /* else a prefix's cells would be gone */
    p.no_perf = true;
    p.cb_eval = on_node;
    p.cb_eval_user_data = l;
    l->context = l->api->llama_init_from_model(l->model, p);
    if (!l->context)
        return error_set(err, ERROR_REFUSED,
                         "llama.cpp cannot make a context of %u tokens for the model; raise spec.resources.memory.",
                         l->token.cells);
    if (l->threads)
        l->api->llama_attach_threadpool(l->context, l->threads, l->threads);
    llama_pace_init(l, l->context);
    l->batch = l->api->llama_batch_init((int32_t)(LLAMA_BATCH_TOKENS + LLAMA_SEQUENCES), 0, 1);
    l->candidates = calloc(l->n_vocabulary, sizeof *l->candidates);
    l->prompt_tokens = prompt_tokens(l);
    return l->batch.token && l->candidates ? 0 : error_set_default(err, ERROR_NO_MEMORY);
}

static void token_model_fill(struct llama *l, bool repacked)
{
    struct tensor_token_model *t = &l->token;
    bool decoder = l->api->llama_model_has_decoder(l->model) || !l->api->llama_model_has_encoder(l->model);
    bool answers = decoder && l->api->llama_pooling_type(l->context) == LLAMA_POOLING_TYPE_NONE;
    bool tools = false;
    if (answers)
        l->templates = l->api->llama_templates_open(l->model, &tools);
    t->flags = TENSOR_TOKEN_EMBED | (answers ? TENSOR_TOKEN_ANSWER : 0u) | (l->templates ? TENSOR_TOKEN_CHAT : 0u) |
               (tools ? TENSOR_TOKEN_TOOLS : 0u);
    t->vocabulary = l->n_vocabulary;
    t->embedding = (uint32_t)l->api->llama_model_n_embd_out(l->model);
    l->windowed = l->api->llama_model_n_swa(l->model) > 0;
    l->cacheable = !l->api->llama_model_is_recurrent(l->model) && !l->api->llama_model_is_hybrid(l->model);
    l->block = l->cacheable ? block_of(l, repacked) : 0;
    l->fills_gaps = l->cacheable && l->block == 0 && batches_gain(l, repacked);
    /* What an adapter leaves in a stream must be overwritten, from another one, before somebody else gets that. */
    if (!l->cacheable || t->sequences < 2)
        t->adapter_bytes = 0;
}

static int llama_preload(const struct engine_options *options, struct error *err)
{
    const struct llama_library *api;
    return llama_library_open(options, &api, err);
}

static int llama_open(const struct engine_options *options, struct engine **ret_engine, struct error *err)
{
    if (options->threads == 0 || options->threads > THREADS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "an engine takes 1 to %u threads, not %u", THREADS_MAX,
                         options->threads);
    struct llama *l = calloc(1, sizeof *l);
    if (!l)
        return error_set_default(err, ERROR_NO_MEMORY);
    l->engine.ops = &engine_llama;
    l->n_threads = options->threads;
    l->model_file = (struct str){options->model, options->model_bytes};
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        l->sequences[i].id = -1;
    int r = llama_library_open(options, &l->api, err);
    if (r == 0 && options->confine)
        r = options->confine(options->confine_ctx, err);
    if (r == 0)
        r = gguf_scan((struct str){options->model, options->model_bytes}, err);
    if (r == 0)
        r = model_load(l, options, err);
    if (r == 0)
        r = cells_choose(l, options, err);
    if (r == 0)
        r = threads_make(l, err);
    if (r == 0)
        r = context_make(l, err);
    if (r < 0) {
        llama_close(&l->engine);
        return r;
    }
    token_model_fill(l, options->repack);
    r = llama_cells_begin(l, cell_bytes(l) * l->token.cells, err);
    if (r < 0) {
        llama_close(&l->engine);
        return r;
    }
    (void)malloc_trim(0); /* what was needed while the file was read */
    *ret_engine = &l->engine;
    return 0;
}

static int llama_describe(struct engine *e, struct tensor_signature *ret_signature, struct error *err)
{
    (void)err; /* cannot fail */
    memset(ret_signature, 0, sizeof *ret_signature);
    ret_signature->token = llama_of(e)->token;
    memcpy(ret_signature->platform, "llamacpp_gguf", sizeof "llamacpp_gguf");
    return 0;
}

static int generation_copy(struct llama_sequence *s, const struct generation *g, struct error *err)
{
    size_t size = generation_size(g);
    s->encoded = malloc(size);
    if (!s->encoded)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = generation_encode(g, s->encoded, size, err);
    return r < 0 ? r : generation_decode(s->encoded, size, &s->g, err);
}

static int llama_token_submit(struct engine *e, uint64_t request_id, uint64_t tenant_id, const struct generation *g,
                              struct error *err)
{
    struct llama *l = llama_of(e);
    struct llama_sequence *s = NULL;
    if (request_id == 0 || llama_sequence_find(l, request_id))
        return error_set(err, ERROR_INVALID_ARGUMENT, "a sequence of this id lives already");
    for (uint32_t i = 0; i < l->token.sequences && !s; i++)
        if (l->sequences[i].state == LLAMA_FREE)
            s = &l->sequences[i];
    if (!s)
        return error_set_default(err, ERROR_AGAIN);
    int r = generation_copy(s, g, err);
    if (r < 0) {
        free(s->encoded);
        s->encoded = NULL;
        return r;
    }
    s->state = LLAMA_WAITING;
    s->request_id = request_id;
    s->tenant_id = tenant_id;
    s->age = ++l->age;
    s->id = s->row = -1;
    l->stats.items++;
    return 0;
}

static void llama_cancel(struct engine *e, uint64_t request_id)
{
    struct llama *l = llama_of(e);
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        if (l->sequences[i].state != LLAMA_FREE && (request_id == 0 || l->sequences[i].request_id == request_id))
            llama_sequence_free(l, &l->sequences[i]);
}

static int llama_park(struct engine *e, uint64_t request_id, struct error *err)
{
    struct llama_sequence *s = llama_sequence_find(llama_of(e), request_id);
    if (!s)
        return error_set(err, ERROR_NOT_FOUND, "there is no sequence of this id");
    s->parked = true;
    return 0;
}

static int llama_resume(struct engine *e, uint64_t request_id, uint32_t adapter, struct error *err)
{
    struct llama *l = llama_of(e);
    struct llama_sequence *s = llama_sequence_find(l, request_id);
    if (!s)
        return error_set(err, ERROR_NOT_FOUND, "there is no sequence of this id");
    s->parked = false;
    if (s->g.adapter > 0 && adapter > 0 && adapter != s->g.adapter) {
        s->g.adapter = adapter;
        if (s->id >= 0)
            l->streams[s->id].taint = adapter;
    }
    return 0;
}

static void llama_stats(struct engine *e, struct engine_stats *ret_stats)
{
    *ret_stats = llama_of(e)->stats;
}

const struct engine_ops engine_llama = {
    .name = "llama",
    .caps = ENGINE_TOKEN,
    .library = LLAMA_LIBRARY_NAME,
    .preload = llama_preload,
    .open = llama_open,
    .describe = llama_describe,
    .token_submit = llama_token_submit,
    .token_step = llama_token_step,
    .cancel = llama_cancel,
    .park = llama_park,
    .resume = llama_resume,
    .adapter_load = llama_adapter_load,
    .adapter_drop = llama_adapter_drop,
    .rest = llama_rest,
    .stats = llama_stats,
    .close = llama_close,
};
