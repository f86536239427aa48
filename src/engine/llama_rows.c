/* What an adapter adds to a row: each row another adapter's, and of the same bits alone and in company.
 *
 * ggml's kernels sum up a product with a matrix of 16 or 32 bits in another order when it has one row. Of a bare base's
 * Q8_0 the bits are the same; but a LoRA is of such matrices, and what differs in the last of 24 bits comes, through
 * the roundings of the next layers, to hundredths of a logit. But ggml has another product (MUL_MAT_ID, for experts) in
 * which each row names the matrix of a stack that it is multiplied with, and which always sums up as the other does for
 * one row. So where a sequence alone would have one row, the nodes become such, over the slots of the kind
 * (llama_kinds.c), each row with its adapter's slot: before the computation begins, in the public struct ggml_tensor.
 * Nothing is moved: rows lie one behind the other in the third dimension then, as they did in the second.
 *
 * llama.cpp makes of every pair (A, B) the nodes scale(B × (A × rows)), and nobody else reads the products. Where a
 * computation uses a matrix in another way, adapters of that kind are not mixed. */
#include "engine/llama_internal.h"

#define COPIES_PER_PAIR 4u

void llama_rows_begin(struct llama *l, struct llama_kind *k, bool one_each)
{
    struct llama_rows *r = &l->rows;
    const struct ggml_tensor ids = {.type = GGML_TYPE_I32, .ne = {1, 0, 1, 1}, .nb = {sizeof(int32_t)}};
    *r = (struct llama_rows){.kind = k, .one_each = one_each, .ids_all = ids, .ids_wanted = ids};
    r->ids_all.data = r->all;
    r->ids_wanted.data = r->wanted;
}

static void id_add(struct ggml_tensor *ids, int32_t *slots, uint32_t slot)
{
    slots[ids->ne[1]++] = (int32_t)slot;
    ids->nb[1] = sizeof *slots;
    ids->nb[2] = ids->nb[3] = (size_t)ids->ne[1] * sizeof *slots;
}

void llama_rows_add(struct llama *l, const struct llama_adapter *a, bool wanted)
{
    struct llama_rows *r = &l->rows;
    if (r->one_each && r->ids_all.ne[1] < LLAMA_SEQUENCES) {
        r->mixed = r->mixed || (r->ids_all.ne[1] > 0 && r->all[0] != (int32_t)a->slot);
        id_add(&r->ids_all, r->all, a->slot);
    }
    if (wanted && r->ids_wanted.ne[1] < LLAMA_SEQUENCES)
        id_add(&r->ids_wanted, r->wanted, a->slot);
}

void llama_rows_again(struct llama *l)
{
    l->rows.n_copies = l->rows.n_uses = l->rows.n_known = 0;
}

static bool flat(const struct ggml_tensor *t)
{
    return t->ne[2] == 1 && t->ne[3] == 1;
}

static bool of_matrix(const struct llama_kind *k, const struct ggml_tensor *node)
{
    return node->op == GGML_OP_MUL_MAT && flat(node) && flat(node->src[0]) && flat(node->src[1]) &&
           llama_kind_matrix(k, node->src[0]);
}

static bool copied(const struct llama_kind *k, const struct ggml_tensor *t)
{
    return (uintptr_t)t >= (uintptr_t)k->copies && (uintptr_t)t < (uintptr_t)(k->copies + k->n_copies_max);
}

static struct ggml_tensor *copy_of(struct llama_rows *r, const struct ggml_tensor *t)
{
    struct ggml_tensor *copy = &r->kind->copies[r->n_copies++];
    *copy = *t;
    return copy;
}

static void spread(struct ggml_tensor *t)
{
    t->ne[2] = t->ne[1];
    t->nb[2] = t->nb[1];
    t->nb[3] = t->nb[2] * (size_t)t->ne[2];
    t->ne[1] = 1;
}

/* Its factor may be others' too, so a copy of that is spread, unless it was a product before. */
static void product_mix(struct llama_rows *r, struct ggml_tensor *product, struct ggml_tensor *ids)
{
    const struct llama_kind *k = r->kind;
    const struct llama_matrix *m = llama_kind_matrix(k, product->src[0]);
    struct ggml_tensor *stack = copy_of(r, product->src[0]);
    stack->data = k->slots + m->offset;
    stack->ne[2] = k->n_slots;
    stack->nb[2] = k->slot_bytes;
    stack->nb[3] = k->slot_bytes * k->n_slots;
    if (product->src[1]->op != GGML_OP_MUL_MAT_ID) {
        product->src[1] = copy_of(r, product->src[1]);
        spread(product->src[1]);
    }
    product->op = GGML_OP_MUL_MAT_ID;
    product->src[0] = stack;
    product->src[2] = ids;
    spread(product);
}

/* NULL: as it is. A part of a prompt has several rows alone too; but behind the last attention those that are wanted
 * only. */
static struct ggml_tensor *ids_of(struct llama_rows *r, const struct llama *l, int64_t n_rows)
{
    if (r->one_each)
        return l->batch.n_tokens < 2           ? NULL
               : n_rows == r->ids_all.ne[1]    ? &r->ids_all
               : n_rows == r->ids_wanted.ne[1] ? &r->ids_wanted
                                               : NULL;
    return n_rows > 1 && n_rows < l->batch.n_tokens && n_rows == r->ids_wanted.ne[1] ? &r->ids_wanted : NULL;
}

static void pair_look(struct llama *l, struct ggml_tensor *scale)
{
    struct llama_rows *r = &l->rows;
    struct ggml_tensor *b = scale->src[0], *a = b->src[1];
    if (copied(r->kind, b)) { /* a computation that is used again comes with what was done to it, and its copies */
        r->n_known += a->op == GGML_OP_MUL_MAT_ID ? 2 : 1;
        return;
    }
    if (!of_matrix(r->kind, b))
        return;
    bool both = of_matrix(r->kind, a);
    struct ggml_tensor *ids = ids_of(r, l, b->ne[1]);
    if (ids && r->kind->n_copies_max - r->n_copies < COPIES_PER_PAIR)
        return;
    if (ids || !r->one_each || l->batch.n_tokens < 2)
        r->n_known += both ? 2 : 1;
    if (!ids)
        return;
    scale->src[0] = copy_of(r, b);
    if (both)
        product_mix(r, a, ids);
    product_mix(r, b, ids);
}

void llama_rows_look(struct llama *l, struct ggml_tensor *node)
{
    struct llama_rows *r = &l->rows;
    if (!r->kind)
        return;
    for (int i = 0; i < 3; i++)
        r->n_uses += node->src[i] && llama_kind_matrix(r->kind, node->src[i]);
    if (node->op == GGML_OP_SCALE)
        pair_look(l, node);
}

bool llama_rows_done(struct llama *l)
{
    struct llama_rows *r = &l->rows;
    struct llama_kind *k = r->kind;
    r->kind = NULL;
    if (!k)
        return true;
    k->seen = true;
    k->odd = k->odd || r->n_uses != r->n_known;
    return !r->mixed || !k->odd;
}
