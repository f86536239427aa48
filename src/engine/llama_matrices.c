/* The matrices of adapters, and how one adapter's take the place of another's.
 *
 * A context that gets another adapter plans its memory anew at its next decode call, which takes as long as a third of
 * a step. But the computation of two adapters that change the same tensors by matrices of the same kind, as those of
 * one recipe do, differs in nothing but where the matrices lie. So the context keeps the adapter that it has (the one
 * it wears), and that adapter's tensors are made to point to what the other's hold.
 *
 * The C API does not tell the tensors of an adapter, but the nodes of a computation do, which a context tells a
 * callback before they run: the first decode call with an adapter finds them. Only where that are as many as the file
 * has can it take another's place. */
#include "engine/llama_internal.h"

#include <stdlib.h>

static bool ends_with(const struct ggml_tensor *t, const char *suffix)
{
    size_t n = strnlen(t->name, sizeof t->name), m = strlen(suffix);
    return n > m && memcmp(t->name + n - m, suffix, m) == 0;
}

bool llama_is_matrix(const struct ggml_tensor *t)
{
    return ends_with(t, ".lora_a") || ends_with(t, ".lora_b");
}

static struct llama_matrix *matrix_of(struct llama_adapter *a, const struct ggml_tensor *t)
{
    for (uint32_t i = 0; i < a->n_matrices; i++)
        if (a->matrices[i].tensor == t)
            return &a->matrices[i];
    return NULL;
}

void llama_matrices_look(struct llama *l, const struct ggml_tensor *node)
{
    struct llama_adapter *a = l->learned;
    struct ggml_tensor *t = node->src[0];
    if (!a || !t)
        return;
    if (node->op == GGML_OP_SCALE) { /* of what the second matrix gives */
        struct llama_matrix *m = t->src[0] ? matrix_of(a, t->src[0]) : NULL;
        if (m)
            m->scale = node->op_params[0];
        return;
    }
    if (!llama_is_matrix(t) || t->op != GGML_OP_NONE || matrix_of(a, t))
        return;
    if (a->n_matrices < a->n_tensors)
        a->matrices[a->n_matrices] = (struct llama_matrix){.tensor = t, .data = t->data};
    a->n_matrices++; /* one too many is none of the file's */
}

int llama_matrices_begin(struct llama_adapter *a, struct str file, struct error *err)
{
    uint64_t n;
    memcpy(&n, file.data + 8, sizeof n); /* behind magic and version; lora_scan has counted them */
    a->matrices = calloc(n > 0 ? n : 1, sizeof *a->matrices);
    a->n_tensors = (uint32_t)n;
    return a->matrices ? 0 : error_set_default(err, ERROR_NO_MEMORY);
}

static bool same_kind(const struct llama_adapter *a, const struct llama_adapter *b)
{
    bool same = a->n_matrices == a->n_tensors && b->n_matrices == b->n_tensors && a->n_tensors == b->n_tensors;
    for (uint32_t i = 0; i < a->n_tensors && same; i++) {
        const struct llama_matrix *m = &a->matrices[i], *k = &b->matrices[i];
        same = m->scale == k->scale && m->tensor->type == k->tensor->type &&
               memcmp(m->tensor->ne, k->tensor->ne, sizeof m->tensor->ne) == 0 &&
               memcmp(m->tensor->nb, k->tensor->nb, sizeof m->tensor->nb) == 0 &&
               strncmp(m->tensor->name, k->tensor->name, sizeof m->tensor->name) == 0;
    }
    return same;
}

bool llama_matrices_show(struct llama_adapter *a, const struct llama_adapter *other)
{
    if (a != other && !same_kind(a, other))
        return false;
    for (uint32_t i = 0; i < a->n_matrices && i < a->n_tensors; i++)
        a->matrices[i].tensor->data = other->matrices[i].data;
    return true;
}
