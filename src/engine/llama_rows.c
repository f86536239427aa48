/* What an adapter adds to a row, of the same bits alone and in company.
 *
 * ggml's kernels sum up a product with a matrix of 16 or 32 bits in another order when it has one row. Of a bare base's
 * Q8_0 the bits are the same; but a LoRA is of such matrices, and what differs in the last of 24 bits comes, through
 * the roundings of the next layers, to hundredths of a logit. So where a sequence alone would have one row, the rows of
 * all are put one behind the other in the third dimension, where every one of them is a matrix of one row: before the
 * computation begins, by the shapes of its nodes, which are in the public struct ggml_tensor. Nothing is moved.
 *
 * llama.cpp makes of every pair (A, B) the nodes scale(B × (A × rows)), and nobody else reads the products. */
#include "engine/llama_internal.h"

#include <stdlib.h>

#define PAIRS_PER_LAYER 32u /* kinds of llama.cpp's weights beside a layer's expert ones, and more */
#define COPIES_PER_PAIR 3u

int llama_rows_begin(struct llama *l, struct error *err)
{
    struct llama_rows *r = &l->rows;
    if (r->copies)
        return 0;
    r->n_max = ((uint32_t)l->api->llama_model_n_layer(l->model) + 1) * PAIRS_PER_LAYER * COPIES_PER_PAIR;
    r->copies = calloc(r->n_max, sizeof *r->copies);
    return r->copies ? 0 : error_set_default(err, ERROR_NO_MEMORY);
}

void llama_rows_call(struct llama *l, uint32_t n_tokens, bool one_each)
{
    l->rows.n = 0;
    l->rows.n_tokens = n_tokens;
    l->rows.one_each = one_each;
}

static bool of_adapter(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_MUL_MAT && node->ne[2] == 1 && node->ne[3] == 1 && llama_is_matrix(node->src[0]);
}

static struct ggml_tensor *copy_of(struct llama_rows *r, const struct ggml_tensor *t)
{
    r->copies[r->n] = *t;
    return &r->copies[r->n++];
}

static void spread(struct ggml_tensor *t)
{
    t->ne[2] = t->ne[1];
    t->nb[2] = t->nb[1];
    t->nb[3] = t->nb[2] * (size_t)t->ne[2];
    t->ne[1] = 1;
}

/* Its factor may be others' too, so a copy of that is spread, unless it was a product before. */
static void product_spread(struct llama_rows *r, struct ggml_tensor *product)
{
    if (product->src[1]->ne[1] > 1) {
        product->src[1] = copy_of(r, product->src[1]);
        spread(product->src[1]);
    }
    spread(product);
}

/* A computation that llama.cpp uses again comes with what was done to it, and with its copies. */
void llama_rows_look(struct llama *l, struct ggml_tensor *node)
{
    struct llama_rows *r = &l->rows;
    struct ggml_tensor *b = node->op == GGML_OP_SCALE ? node->src[0] : NULL;
    if (r->n_tokens == 0 || !b || (b >= r->copies && b < r->copies + r->n_max) || !of_adapter(b) || b->ne[1] < 2 ||
        b->src[1]->ne[2] != 1 || b->src[1]->ne[3] != 1 || r->n_max - r->n < COPIES_PER_PAIR)
        return;
    /* A part of a prompt has several rows alone too; but behind the last attention those that are wanted only. */
    if (!r->one_each && (uint64_t)b->ne[1] >= r->n_tokens)
        return;
    node->src[0] = copy_of(r, b);
    struct ggml_tensor *a = b->src[1];
    if (of_adapter(a) && a->src[1]->ne[2] == 1 && a->src[1]->ne[3] == 1)
        product_spread(r, a);
    product_spread(r, b);
}
