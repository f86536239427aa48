/* The first byte chooses. 0 … 5: the rest is a request of that kind; what is taken must make generations that the
 * worker takes, what is refused an error that is JSON. 6 and more: the rest is an event as a worker encodes it;
 * whatever it tells, the chunk and the answer made of it are JSON. */
#include "api/serve/openai_codec.h"

#include <stdlib.h>
#include <yyjson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool condition)
{
    if (!condition)
        abort();
}

static void need_json(struct buf *b)
{
    need(b->failed == 0);
    yyjson_doc *doc = yyjson_read(b->data, b->size, 0);
    need(doc != NULL);
    yyjson_doc_free(doc);
    buf_clear(b);
}

static void request(enum openai_kind kind, struct str body)
{
    struct arena arena;
    struct openai_request r;
    struct openai_error refusal = {0};
    struct buf b;
    arena_init(&arena, MIB);
    buf_init(&b, 8 * MIB);
    if (openai_request_decode(kind, body, &arena, &r, &refusal)) {
        uint32_t n = r.n * r.n_prompts;
        need(n >= 1 && n <= LIMIT_EMBEDDINGS);
        for (uint32_t i = 0; i < n; i++) {
            struct generation g, back;
            openai_generation(&r, i, 100, &g);
            size_t bytes = generation_size(&g);
            buf_clear(&b);
            char *to = buf_reserve(&b, bytes);
            need(to && generation_encode(&g, to, bytes, NULL) >= 0);
            need(generation_decode(to, bytes, &back, NULL) >= 0);
        }
    } else {
        need(refusal.code < 0);
        openai_error_encode(&refusal, &b);
        need_json(&b);
    }
    buf_done(&b);
    arena_done(&arena);
}

static void event(enum openai_kind kind, const void *data, size_t size)
{
    static const struct openai_usage usage = {1, 1, 1};
    struct generation_event e;
    struct openai_choice choice;
    struct buf b;
    uint64_t offset = 0;
    if (generation_event_decode(data, size, &e, NULL) < 0)
        return;
    struct openai_answer a = {kind, STR("id"), 1, STR("m")};
    buf_init(&b, 8 * MIB);
    if (openai_chunk_event(&a, 0, &e, true, true, &offset, &b))
        need_json(&b);
    openai_choice_init(&choice, MIB);
    if (openai_choice_add(&choice, kind, &e, true) >= 0) {
        openai_answer_encode(&a, &choice, 1, true, &usage, &b);
        need_json(&b);
    }
    openai_choice_done(&choice);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] < OPENAI_KIND_COUNT)
        request((enum openai_kind)data[0], (struct str){(const char *)data + 1, size - 1});
    else
        event(data[0] % 2 ? OPENAI_CHAT : OPENAI_COMPLETION, data + 1, size - 1);
    return 0;
}
