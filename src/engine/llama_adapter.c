/* Adapters: LoRAs beside the model in memory, of which a turn uses one, or none.
 *
 * llama.cpp sets a LoRA for a whole context, so sequences of different adapters never share a decode call; which one
 * it computes with may change between calls for nothing (llama_matrices.c). Their files
 * were opened, and stepped with, by a one-shot process before they were stored (worker/ingest.c); all that can be
 * checked without llama.cpp is checked again here (lora_scan.h). */
#include "engine/llama_internal.h"

#include "engine/lora_scan.h"

#include <stdlib.h>
#include <unistd.h>

static struct llama_adapter *find(struct llama *l, uint32_t number)
{
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED && number > 0; i++)
        if (l->adapters[i].number == number)
            return &l->adapters[i];
    return NULL;
}

bool llama_adapter_loaded(struct llama *l, uint32_t number)
{
    return number == 0 || find(l, number) != NULL;
}

/* Nothing happens when it is set already; else the context plans its memory anew at the next decode. */
static void context_set(const struct llama *l, struct llama_context *context, const struct llama_adapter *a)
{
    struct llama_adapter_lora *loras[1] = {a ? a->lora : NULL};
    float scales[1] = {1};
    (void)l->api->llama_set_adapters_lora(context, loras, a ? 1 : 0, scales); /* fails for broken arguments only */
}

static void wear(struct llama *l, struct llama_adapter *a)
{
    if (l->worn)
        (void)llama_matrices_show(l->worn, l->worn);
    l->worn = a;
    l->learned = a && a->n_matrices == 0 ? a : NULL;
    context_set(l, l->context, a);
}

void llama_adapter_use(struct llama *l, uint32_t number)
{
    struct llama_adapter *a = find(l, number);
    l->adapter = a ? number : 0;
    if (!a || !l->worn || !llama_matrices_show(l->worn, a))
        wear(l, a);
}

void llama_adapter_embed(struct llama *l, uint32_t number)
{
    context_set(l, l->embedder, find(l, number)); /* not showing another's: only the one that is worn ever does */
}

static int file_open(int fd, FILE **ret_file, struct error *err)
{
    int copy = dup(fd);
    FILE *file = copy >= 0 ? fdopen(copy, "rb") : NULL;
    if (!file) {
        if (copy >= 0)
            (void)close(copy);
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    rewind(file); /* the position is shared with whoever has the descriptor */
    *ret_file = file;
    return 0;
}

int llama_adapter_load(struct engine *e, uint32_t number, int fd, struct str data, uint32_t *ret_kind,
                       struct error *err)
{
    struct llama *l = llama_of(e);
    struct llama_adapter *place = NULL;
    uint64_t used = 0;
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED; i++) {
        used += l->adapters[i].bytes;
        place = l->adapters[i].number == 0 && !place ? &l->adapters[i] : place;
    }
    if (number == 0 || number == UINT32_MAX || find(l, number))
        return error_set(err, ERROR_INVALID_ARGUMENT, "an adapter of this number is loaded already");
    if (!place || data.size > l->token.adapter_bytes - used)
        return error_set(err, ERROR_NO_MEMORY,
                         "There is no room for the adapter: this worker keeps %llu KiB of adapters, %u at most, and "
                         "has %llu KiB of them; raise the model's spec.resources.memory.",
                         (unsigned long long)(l->token.adapter_bytes / KIB), LIMIT_ADAPTERS_LOADED,
                         (unsigned long long)(used / KIB));
    FILE *file = NULL;
    int r = lora_scan(data, l->model_file, err);
    if (r == 0)
        r = llama_rows_begin(l, err);
    if (r == 0)
        r = file_open(fd, &file, err);
    if (r < 0)
        return r;
    struct llama_adapter_lora *lora = l->api->llama_adapter_lora_init_from_file_ptr(l->model, file);
    (void)fclose(file); /* read only */
    if (!lora)
        return error_set(err, ERROR_REFUSED, "llama.cpp refuses the adapter: it does not fit its base model.");
    struct llama_adapter a = {.number = number, .bytes = data.size, .lora = lora};
    r = llama_matrices_begin(&a, data, err);
    if (r < 0) {
        l->api->llama_adapter_lora_free(lora);
        return r;
    }
    *place = a;
    *ret_kind = number;
    return 0;
}

static void drop(struct llama *l, struct llama_adapter *a)
{
    if (l->context && (l->worn == a || l->adapter == a->number))
        llama_adapter_use(l, 0);
    if (l->embedder)
        context_set(l, l->embedder, NULL);
    for (uint32_t i = 0; i < l->token.sequences && l->context; i++) {
        if (l->streams[i].adapter == a->number)
            llama_prefix_forget(l, i);
        if (l->streams[i].taint == a->number)
            l->streams[i].taint = UINT32_MAX; /* the number may become another's */
    }
    l->api->llama_adapter_lora_free(a->lora);
    free(a->matrices);
    *a = (struct llama_adapter){0};
}

void llama_adapter_drop(struct engine *e, uint32_t number)
{
    struct llama *l = llama_of(e);
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED; i++)
        if (l->adapters[i].number > 0 && (number == 0 || l->adapters[i].number == number))
            drop(l, &l->adapters[i]);
}
