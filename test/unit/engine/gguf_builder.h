/* A tiny llama with random weights, written in GGUF: 3 special tokens, 256 bytes, and some pieces. */
#ifndef BULKHEAD_TEST_UNIT_ENGINE_GGUF_BUILDER_H
#define BULKHEAD_TEST_UNIT_ENGINE_GGUF_BUILDER_H

#include "base/buf.h"
#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    TINY_EMBEDDING = 32,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_LAYERS = 2,
    TINY_FEED = 64,
    TINY_CONTEXT = 512,
    TINY_PIECES = 4,
    TINY_VOCABULARY = 3 + 256 + TINY_PIECES,
    TINY_BYTE_FIRST = 3, /* token of byte 0 */
};

static inline void gguf_u32(struct buf *b, uint32_t value)
{
    buf_append(b, &value, sizeof value);
}

static inline void gguf_u64(struct buf *b, uint64_t value)
{
    buf_append(b, &value, sizeof value);
}

static inline void gguf_text(struct buf *b, const char *text)
{
    gguf_u64(b, strlen(text));
    buf_append_text(b, text);
}

static inline void gguf_key_u32(struct buf *b, const char *key, uint32_t value)
{
    gguf_text(b, key);
    gguf_u32(b, 4);
    gguf_u32(b, value);
}

static inline void gguf_key_f32(struct buf *b, const char *key, float value)
{
    gguf_text(b, key);
    gguf_u32(b, 6);
    buf_append(b, &value, sizeof value);
}

static inline void gguf_key_text(struct buf *b, const char *key, const char *value)
{
    gguf_text(b, key);
    gguf_u32(b, 8);
    gguf_text(b, value);
}

static inline void gguf_key_array(struct buf *b, const char *key, uint32_t type, uint64_t n)
{
    gguf_text(b, key);
    gguf_u32(b, 9);
    gguf_u32(b, type);
    gguf_u64(b, n);
}

static inline void tiny_vocabulary(struct buf *b)
{
    static const char *const pieces[TINY_PIECES] = {"\xE2\x96\x81the", "ab", "\xE2\x96\x81", "Gr"};
    gguf_key_text(b, "tokenizer.ggml.model", "llama");
    gguf_key_array(b, "tokenizer.ggml.tokens", 8, TINY_VOCABULARY);
    gguf_text(b, "<unk>");
    gguf_text(b, "<s>");
    gguf_text(b, "</s>");
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "<0x%02X>", i);
        gguf_text(b, text);
    }
    for (unsigned i = 0; i < TINY_PIECES; i++)
        gguf_text(b, pieces[i]);
    gguf_key_array(b, "tokenizer.ggml.scores", 6, TINY_VOCABULARY);
    for (unsigned i = 0; i < TINY_VOCABULARY; i++) {
        float score = i < 259 ? 0 : -(float)i;
        buf_append(b, &score, sizeof score);
    }
    gguf_key_array(b, "tokenizer.ggml.token_type", 5, TINY_VOCABULARY);
    for (unsigned i = 0; i < TINY_VOCABULARY; i++)
        gguf_u32(b, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1); /* unknown, control, byte, normal */
    gguf_key_u32(b, "tokenizer.ggml.bos_token_id", 1);
    gguf_key_u32(b, "tokenizer.ggml.eos_token_id", 2);
    gguf_key_u32(b, "tokenizer.ggml.unknown_token_id", 0);
}

struct tiny_tensor {
    char name[64];
    uint64_t dims[2];
    uint32_t rank;
};

static inline size_t tiny_tensors(struct tiny_tensor *list)
{
    static const struct {
        const char *name;
        uint64_t columns, rows;
    } layer[] = {
        {"attn_norm", TINY_EMBEDDING, 0},
        {"attn_q", TINY_EMBEDDING, TINY_EMBEDDING},
        {"attn_k", TINY_EMBEDDING, TINY_EMBEDDING / TINY_HEADS * TINY_KV_HEADS},
        {"attn_v", TINY_EMBEDDING, TINY_EMBEDDING / TINY_HEADS * TINY_KV_HEADS},
        {"attn_output", TINY_EMBEDDING, TINY_EMBEDDING},
        {"ffn_norm", TINY_EMBEDDING, 0},
        {"ffn_gate", TINY_EMBEDDING, TINY_FEED},
        {"ffn_up", TINY_EMBEDDING, TINY_FEED},
        {"ffn_down", TINY_FEED, TINY_EMBEDDING},
    };
    size_t n = 0;
    list[n++] = (struct tiny_tensor){"token_embd.weight", {TINY_EMBEDDING, TINY_VOCABULARY}, 2};
    list[n++] = (struct tiny_tensor){"output_norm.weight", {TINY_EMBEDDING, 1}, 1};
    list[n++] = (struct tiny_tensor){"output.weight", {TINY_EMBEDDING, TINY_VOCABULARY}, 2};
    for (unsigned i = 0; i < TINY_LAYERS; i++)
        for (size_t k = 0; k < sizeof layer / sizeof layer[0]; k++) {
            struct tiny_tensor *t = &list[n++];
            (void)snprintf(t->name, sizeof t->name, "blk.%u.%s.weight", i, layer[k].name);
            t->dims[0] = layer[k].columns;
            t->dims[1] = layer[k].rows ? layer[k].rows : 1;
            t->rank = layer[k].rows ? 2 : 1;
        }
    return n;
}

static inline float tiny_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(*state >> 32) / (float)INT32_MAX;
}

/* Into an empty buffer; the same seed gives the same model. `chat_template` NULL: it has none. */
static inline void tiny_build_chat(struct buf *b, uint64_t seed, const char *chat_template)
{
    static struct tiny_tensor tensors[3 + 9 * TINY_LAYERS];
    size_t n = tiny_tensors(tensors);
    buf_append(b, "GGUF", 4);
    gguf_u32(b, 3);
    gguf_u64(b, n);
    gguf_u64(b, 9 + 7 + (chat_template ? 1 : 0));
    gguf_key_text(b, "general.architecture", "llama");
    gguf_key_u32(b, "llama.context_length", TINY_CONTEXT);
    gguf_key_u32(b, "llama.embedding_length", TINY_EMBEDDING);
    gguf_key_u32(b, "llama.block_count", TINY_LAYERS);
    gguf_key_u32(b, "llama.feed_forward_length", TINY_FEED);
    gguf_key_u32(b, "llama.attention.head_count", TINY_HEADS);
    gguf_key_u32(b, "llama.attention.head_count_kv", TINY_KV_HEADS);
    gguf_key_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_key_u32(b, "llama.rope.dimension_count", TINY_EMBEDDING / TINY_HEADS);
    tiny_vocabulary(b);
    if (chat_template)
        gguf_key_text(b, "tokenizer.chat_template", chat_template);
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        gguf_text(b, tensors[i].name);
        gguf_u32(b, tensors[i].rank);
        for (uint32_t k = 0; k < tensors[i].rank; k++)
            gguf_u64(b, tensors[i].dims[k]);
        gguf_u32(b, 0);
        gguf_u64(b, offset);
        offset += (tensors[i].dims[0] * tensors[i].dims[1] * 4 + 31) / 32 * 32;
    }
    while (b->size % 32 != 0)
        buf_append_char(b, '\0');
    for (size_t i = 0; i < n; i++)
        for (uint64_t k = 0; k < tensors[i].dims[0] * tensors[i].dims[1]; k++) {
            float value = tensors[i].rank == 1 ? 1 : tiny_random(&seed) * 0.5f;
            buf_append(b, &value, sizeof value);
        }
}

enum { TINY_RANK = 4, TINY_PAIRS = 2 * TINY_LAYERS };

/* An adapter of the tiny model, of F32: the queries and what feeds forward. `type` is its adapter.type. */
static inline void tiny_build_adapter_as(struct buf *b, uint64_t seed, const char *type)
{
    static const struct {
        const char *name;
        uint64_t in, out;
    } adapted[2] = {{"attn_q", TINY_EMBEDDING, TINY_EMBEDDING}, {"ffn_up", TINY_EMBEDDING, TINY_FEED}};
    uint64_t offset = 0, numbers = 0;
    buf_append(b, "GGUF", 4);
    gguf_u32(b, 3);
    gguf_u64(b, 2 * TINY_PAIRS);
    gguf_u64(b, 4);
    gguf_key_text(b, "general.architecture", "llama");
    gguf_key_text(b, "general.type", "adapter");
    gguf_key_text(b, "adapter.type", type);
    gguf_key_f32(b, "adapter.lora.alpha", 8);
    for (unsigned i = 0; i < TINY_PAIRS * 2; i++) {
        unsigned which = i / 2 % 2;
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight.lora_%c", i / 4, adapted[which].name, i % 2 ? 'b' : 'a');
        gguf_text(b, name);
        gguf_u32(b, 2);
        gguf_u64(b, i % 2 ? TINY_RANK : adapted[which].in);
        gguf_u64(b, i % 2 ? adapted[which].out : TINY_RANK);
        gguf_u32(b, 0);
        gguf_u64(b, offset);
        offset += TINY_RANK * 4 * (i % 2 ? adapted[which].out : adapted[which].in);
    }
    while (b->size % 32 != 0)
        buf_append_char(b, '\0');
    for (numbers = offset / 4; numbers > 0; numbers--) {
        float value = tiny_random(&seed);
        buf_append(b, &value, sizeof value);
    }
}

static inline void tiny_build_adapter(struct buf *b, uint64_t seed)
{
    tiny_build_adapter_as(b, seed, "lora");
}

static inline void tiny_build(struct buf *b, uint64_t seed)
{
    tiny_build_chat(b, seed, NULL);
}

#endif
