/* The memory of the cells. llama.cpp writes zeros into all of it when it makes a context, so that every page is there
 * whether it is ever used or not. Giving pages back to the kernel leaves zeros too, and they come again with use.
 *
 * The C API does not say where the cells lie; but a context tells a callback every node of a computation before it
 * runs, and the nodes that write cells name what they write into. */
#include "engine/llama_internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PARAMETERS_PER_PAGE 3072u /* a step takes 3 % longer at so many; at half of it 12 % */

void llama_cells_look(struct llama *l, const struct ggml_tensor *node)
{
    const struct ggml_tensor *cells = node->op == GGML_OP_SET_ROWS ? node->view_src : NULL;
    if (!cells || l->cells_known || l->n_cells == l->n_cells_max)
        return;
    bool theirs = cells->data && cells->ne[2] == l->token.sequences && cells->ne[3] == 1;
    for (uint32_t i = 0; i < l->n_cells; i++)
        theirs = theirs && l->cells[i].data != cells->data;
    if (theirs)
        l->cells[l->n_cells++] = (struct llama_cells){.data = cells->data, .stream_bytes = cells->nb[2]};
}

/* What lies in whole pages of it: behind so many bytes, so many. */
static size_t whole_pages(const char *data, size_t size, size_t *ret_before)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *ret_before = (page - (uintptr_t)data % page) % page;
    return size > *ret_before ? (size - *ret_before) / page * page : 0;
}

/* In huge pages, as the buffer was asked for, the first token of a stream brings all of it: a stream's keys of a layer,
 * or its values, are about as large as one such page. In small ones a step looks for a page for each channel of values
 * in each stream, which costs time where these are many for the work that the model is. */
static void pages_choose(const struct llama *l, uint64_t bytes)
{
    uint64_t channels = bytes / l->token.cells / 2 / 2; /* in all layers; as many as of keys, 2 bytes each */
    if (channels * l->token.sequences > l->api->llama_model_n_params(l->model) / PARAMETERS_PER_PAGE)
        return;
    for (uint32_t i = 0; i < l->n_cells; i++) {
        char *data = l->cells[i].data;
        size_t before, whole = whole_pages(data, l->cells[i].stream_bytes * l->token.sequences, &before);
        if (whole > 0)
            (void)madvise(data + before, whole, MADV_NOHUGEPAGE); /* refused where there are no others */
    }
}

static void zero(char *data, size_t size)
{
    size_t before, whole = whole_pages(data, size, &before);
    if (whole == 0 || madvise(data + before, whole, MADV_DONTNEED) != 0) {
        memset(data, 0, size);
        return;
    }
    memset(data, 0, before);
    memset(data + before + whole, 0, size - before - whole);
}

bool llama_cells_zero(struct llama *l, uint32_t id)
{
    for (uint32_t i = 0; i < l->n_cells && l->cells_known; i++)
        zero((char *)l->cells[i].data + id * l->cells[i].stream_bytes, l->cells[i].stream_bytes);
    return l->cells_known;
}

int llama_cells_begin(struct llama *l, uint64_t bytes, struct error *err)
{
    llama_memory_t memory = l->api->llama_get_memory(l->context);
    if (!memory || l->api->llama_model_has_encoder(l->model) || !(l->token.flags & TENSOR_TOKEN_ANSWER))
        return 0;
    l->n_cells_max = 2 * (uint32_t)l->api->llama_model_n_layer(l->model);
    l->cells = calloc(l->n_cells_max, sizeof *l->cells);
    if (!l->cells)
        return error_set_default(err, ERROR_NO_MEMORY);
    struct llama_batch *b = &l->batch;
    b->n_tokens = 1;
    b->token[0] = 0;
    b->pos[0] = 0;
    b->n_seq_id[0] = 1;
    b->seq_id[0][0] = 0;
    b->logits[0] = true;
    int status = llama_pace_decode_once(l, l->context, *b);
    l->api->llama_memory_clear(memory, false);
    if (status != 0)
        return error_set(err, ERROR_REFUSED, "llama.cpp cannot step the model.");
    uint64_t found = 0;
    for (uint32_t i = 0; i < l->n_cells; i++)
        found += l->cells[i].stream_bytes * l->token.sequences;
    l->cells_known = found == bytes; /* a kind of memory that has more than these stays as it is */
    if (l->cells_known)
        pages_choose(l, bytes);
    for (uint32_t i = 0; i < l->token.sequences && llama_cells_zero(l, i); i++)
        ;
    return 0;
}
