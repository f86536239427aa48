/* Kinds of adapters: those that one recipe made, which differ in nothing but numbers.
 *
 * llama.cpp computes with the LoRAs that a context was given, and plans its memory anew after others were, which takes
 * as long as a third of a step. But the computations of two adapters of one kind differ in nothing but where their
 * matrices lie. So a kind has one LoRA of llama.cpp's, and a stack of slots, each with the matrices of one adapter at
 * the same places: the LoRA's tensors are made to show the slot that is computed with, or a computation takes for each
 * of its rows another slot (llama_rows.c).
 *
 * A slot is as large as what llama.cpp would have for the adapter, and there is memory in those only that somebody has.
 */
#include "engine/llama_internal.h"

#include "base/memory.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGNMENT       64u /* of a matrix: a cache line, and more than ggml's own */
#define COPIES_PER_PAIR 4u  /* llama_rows.c */

_Static_assert(LIMIT_ADAPTERS_LOADED <= 64, "slots are bits of a word");

static size_t round_up(size_t size, size_t step)
{
    return (size + step - 1) / step * step;
}

/* They are whole: llama.cpp has made them. */
static size_t bytes_of(const struct ggml_tensor *t)
{
    return t->nb[3] * (size_t)t->ne[3];
}

static int compare(const void *a, const void *b)
{
    const struct ggml_tensor *const *x = a, *const *y = b;
    return strncmp((*x)->name, (*y)->name, sizeof(*x)->name);
}

/* In the order of their names. NULL: no memory. */
static struct ggml_tensor **tensors_of(const struct llama *l, const struct llama_adapter_lora *lora, uint32_t *ret_n)
{
    size_t n = l->api->llama_adapter_matrices(lora, NULL, 0);
    struct ggml_tensor **tensors = calloc(n > 0 ? n : 1, sizeof(struct ggml_tensor *));
    if (!tensors)
        return NULL;
    *ret_n = (uint32_t)l->api->llama_adapter_matrices(lora, tensors, n); /* as lora_scan allows */
    qsort(tensors, n, sizeof(struct ggml_tensor *), compare);
    return tensors;
}

static bool same(const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    return a->type == b->type && memcmp(a->ne, b->ne, sizeof a->ne) == 0 && memcmp(a->nb, b->nb, sizeof a->nb) == 0 &&
           strncmp(a->name, b->name, sizeof a->name) == 0;
}

static bool fits(const struct llama_kind *k, struct ggml_tensor *const tensors[], uint32_t n, float alpha)
{
    bool found = k->n_adapters > 0 && k->n_matrices == n && memcmp(&k->alpha, &alpha, sizeof alpha) == 0;
    for (uint32_t i = 0; i < n && found; i++)
        found = same(k->matrices[i].tensor, tensors[i]);
    return found;
}

const struct llama_matrix *llama_kind_matrix(const struct llama_kind *k, const struct ggml_tensor *t)
{
    const struct llama_matrix *m = t->extra; /* or something of ggml's, of a matrix of the model's */
    return (uintptr_t)m >= (uintptr_t)k->matrices && (uintptr_t)m < (uintptr_t)(k->matrices + k->n_matrices) ? m : NULL;
}

/* Rows of the embeddings' are looked up, and experts' are products with several matrices already. */
static bool plain(const struct ggml_tensor *t)
{
    return t->ne[2] == 1 && t->ne[3] == 1 && strncmp(t->name, "token_embd.", 11) != 0;
}

/* As many slots as there can be such adapters. */
static int slots_place(const struct llama *l, struct llama_kind *k, struct ggml_tensor *const tensors[],
                       struct error *err)
{
    size_t size = 0, data = 1;
    k->plain = true;
    for (uint32_t i = 0; i < k->n_matrices; i++) {
        k->matrices[i] = (struct llama_matrix){.tensor = tensors[i], .offset = size};
        tensors[i]->extra = &k->matrices[i];
        k->plain = k->plain && plain(tensors[i]);
        data += bytes_of(tensors[i]);
        size = round_up(size + bytes_of(tensors[i]), ALIGNMENT);
    }
    uint64_t fit = l->token.adapter_bytes / data + 1;
    k->n_slots = fit < LIMIT_ADAPTERS_LOADED ? (uint32_t)fit : LIMIT_ADAPTERS_LOADED;
    k->slot_bytes = memory_large_size(round_up(size > 0 ? size : 1, (size_t)sysconf(_SC_PAGESIZE)));
    size_t step = memory_large_alignment(k->slot_bytes);
    k->mapping_bytes = k->n_slots * k->slot_bytes + step;
    k->mapping = mmap(NULL, k->mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (k->mapping == MAP_FAILED) {
        k->mapping = NULL;
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    k->slots = (char *)k->mapping + (step - (uintptr_t)k->mapping % step) % step;
    return 0;
}

/* Takes the LoRA over only if it succeeds. */
static int kind_make(struct llama *l, struct llama_adapter_lora *lora, struct ggml_tensor *const tensors[], uint32_t n,
                     struct llama_kind **ret_kind, struct error *err)
{
    struct llama_kind *k = NULL;
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED && !k; i++)
        k = l->kinds[i].n_adapters == 0 ? &l->kinds[i] : NULL;
    if (!k)
        return error_set_default(err, ERROR_NO_MEMORY);
    *k = (struct llama_kind){.n_matrices = n, .alpha = l->api->llama_adapter_alpha(lora)};
    k->n_copies_max = n / 2 * COPIES_PER_PAIR;
    k->matrices = calloc(n > 0 ? n : 1, sizeof *k->matrices);
    k->copies = calloc(n > 0 ? k->n_copies_max : 1, sizeof *k->copies);
    int r = k->matrices && k->copies ? 0 : error_set_default(err, ERROR_NO_MEMORY);
    if (r == 0)
        r = slots_place(l, k, tensors, err);
    if (r < 0) {
        llama_kind_done(l, k);
        return r;
    }
    k->lora = lora;
    k->number = ++l->last_kind;
    *ret_kind = k;
    return 0;
}

/* The pages of a matrix that lies in its slot now, so that there is one of it at a time. */
static void source_give(const struct ggml_tensor *t)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), before = (page - (uintptr_t)t->data % page) % page;
    size_t size = bytes_of(t) > before ? (bytes_of(t) - before) / page * page : 0;
    if (size > 0)
        (void)madvise((char *)t->data + before, size, MADV_DONTNEED); /* else they stay */
}

static int slot_fill(struct llama_kind *k, struct llama_adapter *a, struct ggml_tensor *const tensors[],
                     struct error *err)
{
    uint32_t slot = 0;
    while (slot < k->n_slots && k->taken >> slot & 1)
        slot++;
    char *data = k->slots + slot * k->slot_bytes;
    if (slot == k->n_slots || mprotect(data, k->slot_bytes, PROT_READ | PROT_WRITE) != 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    memory_large_advise(data, k->slot_bytes);
    for (uint32_t i = 0; i < k->n_matrices; i++) {
        memcpy(data + k->matrices[i].offset, tensors[i]->data, bytes_of(tensors[i]));
        source_give(tensors[i]);
    }
    k->taken |= UINT64_C(1) << slot;
    k->n_adapters++;
    a->of = k;
    a->slot = slot;
    return 0;
}

static int join(struct llama *l, struct llama_adapter *a, struct llama_adapter_lora *lora,
                struct ggml_tensor *const tensors[], uint32_t n, struct error *err)
{
    struct llama_kind *k = NULL;
    float alpha = l->api->llama_adapter_alpha(lora);
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED && !k; i++)
        k = fits(&l->kinds[i], tensors, n, alpha) ? &l->kinds[i] : NULL;
    bool first = !k;
    int r = l->last_kind < UINT32_MAX - 2 ? 0 : error_set_default(err, ERROR_NO_MEMORY);
    if (r == 0 && first)
        r = kind_make(l, lora, tensors, n, &k, err);
    if (r == 0)
        r = slot_fill(k, a, tensors, err);
    if (r == 0)
        a->kind = k->plain ? k->number : ++l->last_kind;
    if (r < 0 && first && k)
        llama_kind_done(l, k); /* with the LoRA */
    else if (r < 0 || !first)
        l->api->llama_adapter_lora_free(lora);
    return r;
}

int llama_kind_join(struct llama *l, struct llama_adapter *a, struct llama_adapter_lora *lora, struct error *err)
{
    uint32_t n = 0;
    struct ggml_tensor **tensors = tensors_of(l, lora, &n);
    if (!tensors) {
        l->api->llama_adapter_lora_free(lora);
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    int r = join(l, a, lora, tensors, n, err);
    free(tensors);
    return r;
}

bool llama_kind_leave(struct llama_adapter *a)
{
    struct llama_kind *k = a->of;
    char *data = k->slots + a->slot * k->slot_bytes;
    k->taken &= ~(UINT64_C(1) << a->slot);
    (void)madvise(data, k->slot_bytes, MADV_DONTNEED);
    (void)mprotect(data, k->slot_bytes, PROT_NONE);
    return --k->n_adapters > 0;
}

void llama_kind_done(struct llama *l, struct llama_kind *k)
{
    if (k->lora)
        l->api->llama_adapter_lora_free(k->lora);
    if (k->mapping)
        (void)munmap(k->mapping, k->mapping_bytes);
    free(k->matrices);
    free(k->copies);
    *k = (struct llama_kind){0};
}

void llama_kind_show(const struct llama_adapter *a)
{
    const struct llama_kind *k = a->of;
    for (uint32_t i = 0; i < k->n_matrices; i++)
        k->matrices[i].tensor->data = k->slots + a->slot * k->slot_bytes + k->matrices[i].offset;
}
