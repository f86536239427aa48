/* llama.cpp's libraries, opened once for the life of the process. All calls into them go through this table, so that a
 * worker without the library still runs the other engines.
 *
 * Worker only. The library logs what names the tenant's tensors and internal paths: nothing of it is written. */
#ifndef BULKHEAD_ENGINE_LLAMA_LIBRARY_H
#define BULKHEAD_ENGINE_LLAMA_LIBRARY_H

#include "engine/engine.h"
#include "engine/llama_common.h"

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <gguf.h>
#include <llama.h>

#define LLAMA_LIBRARY_FUNCTIONS(X)           \
    X(ggml_backend_dev_backend_reg)          \
    X(ggml_backend_dev_by_type)              \
    X(ggml_backend_load)                     \
    X(ggml_backend_reg_get_proc_address)     \
    X(ggml_threadpool_params_default)        \
    X(llama_adapter_alpha)                   \
    X(llama_adapter_lora_free)               \
    X(llama_adapter_lora_init_from_file_ptr) \
    X(llama_adapter_matrices)                \
    X(llama_attach_threadpool)               \
    X(llama_backend_init)                    \
    X(llama_batch_free)                      \
    X(llama_batch_init)                      \
    X(llama_chat_add)                        \
    X(llama_chat_calls)                      \
    X(llama_chat_close)                      \
    X(llama_chat_enough)                     \
    X(llama_chat_open)                       \
    X(llama_chat_preserved)                  \
    X(llama_chat_sampler)                    \
    X(llama_chat_stop)                       \
    X(llama_context_default_params)          \
    X(llama_decode)                          \
    X(llama_encode)                          \
    X(llama_free)                            \
    X(llama_get_embeddings_seq)              \
    X(llama_get_logits_ith)                  \
    X(llama_get_memory)                      \
    X(llama_grammar_sampler)                 \
    X(llama_init_from_model)                 \
    X(llama_log_set)                         \
    X(llama_memory_clear)                    \
    X(llama_memory_seq_cp)                   \
    X(llama_memory_seq_rm)                   \
    X(llama_model_default_params)            \
    X(llama_model_ftype)                     \
    X(llama_model_free)                      \
    X(llama_model_get_vocab)                 \
    X(llama_model_has_decoder)               \
    X(llama_model_has_encoder)               \
    X(llama_model_is_diffusion)              \
    X(llama_model_is_hybrid)                 \
    X(llama_model_is_recurrent)              \
    X(llama_model_load_from_file_ptr)        \
    X(llama_model_meta_val_str)              \
    X(llama_model_n_ctx_train)               \
    X(llama_model_n_embd)                    \
    X(llama_model_n_embd_out)                \
    X(llama_model_n_head)                    \
    X(llama_model_n_head_kv)                 \
    X(llama_model_n_layer)                   \
    X(llama_model_n_params)                  \
    X(llama_model_n_swa)                     \
    X(llama_pooling_type)                    \
    X(llama_sampler_accept)                  \
    X(llama_sampler_accept_safe)             \
    X(llama_sampler_apply)                   \
    X(llama_sampler_apply_safe)              \
    X(llama_sampler_chain_add)               \
    X(llama_sampler_chain_default_params)    \
    X(llama_sampler_chain_init)              \
    X(llama_sampler_free)                    \
    X(llama_sampler_init_dist)               \
    X(llama_sampler_init_greedy)             \
    X(llama_sampler_init_logit_bias)         \
    X(llama_sampler_init_min_p)              \
    X(llama_sampler_init_penalties)          \
    X(llama_sampler_init_temp)               \
    X(llama_sampler_init_top_k)              \
    X(llama_sampler_init_top_p)              \
    X(llama_schema_check)                    \
    X(llama_set_abort_callback)              \
    X(llama_set_adapters_lora)               \
    X(llama_set_n_threads)                   \
    X(llama_state_seq_get_data)              \
    X(llama_state_seq_get_size)              \
    X(llama_state_seq_set_data)              \
    X(llama_templates_close)                 \
    X(llama_templates_open)                  \
    X(llama_token_to_piece)                  \
    X(llama_tokenize)                        \
    X(llama_vocab_is_eog)                    \
    X(llama_vocab_n_tokens)                  \
    X(llama_vocab_type)

struct llama_library {
#define X(name) __typeof__(&(name)) name;
    LLAMA_LIBRARY_FUNCTIONS(X)
#undef X
    __typeof__(&ggml_threadpool_new) threadpool_new; /* of the processor's variant */
    __typeof__(&ggml_threadpool_free) threadpool_free;
};

/* The file that the supervisor opens: ours (llama_common.cc), which needs llama.cpp's, so that one handle finds all. */
#define LLAMA_LIBRARY_NAME "libbulkhead-llama.so"

/* Loads the library and the variant of its kernels for this processor, once for the process's life. A second call
 * ignores where it lies. -ERROR_UNSUPPORTED when it is missing or does not load. Thread-safe. */
must_check int llama_library_open(const struct engine_options *options, const struct llama_library **ret_library,
                                  struct error *err);

/* Text of the library for a person: one line, no control characters, no paths. */
void llama_text_clean(const char *text, char *clean, size_t capacity);

#endif
