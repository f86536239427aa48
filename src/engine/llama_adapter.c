/* Adapters: LoRAs beside the model in memory, of which a turn uses those of one kind (llama_kinds.c), or none. Their
 * files were opened, and stepped with, by a one-shot process before they were stored (worker/ingest.c); all that can be
 * checked without llama.cpp is checked again here (lora_scan.h). */
#include "engine/llama_internal.h"

#include "engine/lora_scan.h"

#include <unistd.h>

struct llama_adapter *llama_adapter_find(struct llama *l, uint32_t number)
{
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED && number > 0; i++)
        if (l->adapters[i].number == number)
            return &l->adapters[i];
    return NULL;
}

bool llama_adapter_loaded(struct llama *l, uint32_t number)
{
    return number == 0 || llama_adapter_find(l, number) != NULL;
}

bool llama_adapter_is(struct llama *l, uint32_t number, uint32_t kind)
{
    const struct llama_adapter *a = llama_adapter_find(l, number);
    return a ? a->kind == kind : number == 0 && kind == 0;
}

/* Nothing happens when it is set already; else the context plans its memory anew at the next decode. */
static void context_set(const struct llama *l, struct llama_context *context, const struct llama_kind *k)
{
    struct llama_adapter_lora *loras[1] = {k ? k->lora : NULL};
    float scales[1] = {1};
    (void)l->api->llama_set_adapters_lora(context, loras, k ? 1 : 0, scales); /* fails for broken arguments only */
}

void llama_adapter_use(struct llama *l, const struct llama_adapter *a)
{
    l->worn = a ? a->of : NULL;
    if (a)
        llama_kind_show(a);
    context_set(l, l->context, l->worn);
}

void llama_adapter_embed(struct llama *l, uint32_t number)
{
    const struct llama_adapter *a = llama_adapter_find(l, number);
    if (a)
        llama_kind_show(a);
    context_set(l, l->embedder, a ? a->of : NULL);
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
    if (number == 0 || number == UINT32_MAX || llama_adapter_find(l, number))
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
        r = file_open(fd, &file, err);
    if (r < 0)
        return r;
    struct llama_adapter_lora *lora = l->api->llama_adapter_lora_init_from_file_ptr(l->model, file);
    (void)fclose(file); /* read only */
    if (!lora)
        return error_set(err, ERROR_REFUSED, "llama.cpp refuses the adapter: it does not fit its base model.");
    struct llama_adapter a = {.number = number, .bytes = data.size};
    r = llama_kind_join(l, &a, lora, err);
    if (r < 0)
        return r;
    *place = a;
    *ret_kind = a.kind;
    return 0;
}

static void drop(struct llama *l, struct llama_adapter *a)
{
    struct llama_kind *k = a->of;
    if (!llama_kind_leave(a)) {
        if (l->context && l->worn == k)
            llama_adapter_use(l, NULL);
        if (l->embedder)
            context_set(l, l->embedder, NULL);
        llama_kind_done(l, k);
    }
    for (uint32_t i = 0; i < l->token.sequences && l->context; i++) {
        if (l->streams[i].adapter == a->number)
            llama_prefix_forget(l, i);
        if (l->streams[i].taint == a->number)
            l->streams[i].taint = UINT32_MAX; /* the number may become another's */
    }
    *a = (struct llama_adapter){0};
}

void llama_adapter_drop(struct engine *e, uint32_t number)
{
    struct llama *l = llama_of(e);
    for (uint32_t i = 0; i < LIMIT_ADAPTERS_LOADED; i++)
        if (l->adapters[i].number > 0 && (number == 0 || l->adapters[i].number == number))
            drop(l, &l->adapters[i]);
}
