/* Generations and events. The first byte chooses: a generation, as a worker reads it, or an event, as the gateway reads
 * it. What decodes must be in range and encode to the very same bytes. */
#undef NDEBUG
#include "tensor/generation.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_generation(const uint8_t *data, size_t size)
{
    struct generation g;
    struct error err = {0};
    int status = generation_decode(data, size, &g, &err);
    if (status < 0) {
        assert(status == -ERROR_PEER && err.code == status && err.text[0]);
        return;
    }
    assert(g.n_stops <= LIMIT_STOPS && g.n_biases <= LIMIT_LOGIT_BIASES && g.max_tokens >= 1);
    assert(g.temperature >= 0 && g.temperature <= 2 && g.n_top_logprobs <= LIMIT_TOP_LOGPROBS);
    assert(str_is_utf8(g.prompt) && str_is_utf8(g.grammar) && str_is_utf8(g.tools));
    for (uint32_t i = 0; i < g.n_tokens; i++)
        assert(generation_token(&g, i) >= 0);
    assert(generation_size(&g) == size);
    uint8_t *again = malloc(size);
    assert(again && generation_encode(&g, again, size, NULL) == 0 && memcmp(again, data, size) == 0);
    free(again);
}

static void check_event(const uint8_t *data, size_t size)
{
    static uint8_t again[LIMIT_EVENT_BYTES], tokens[LIMIT_EVENT_BYTES];
    struct generation_event e;
    struct error err = {0};
    int status = generation_event_decode(data, size, &e, &err);
    if (status < 0) {
        assert(status == -ERROR_PEER && err.code == status && err.text[0]);
        return;
    }
    assert(str_is_utf8(e.text) && e.text.size <= LIMIT_EVENT_TEXT_BYTES);
    assert((e.kind == GENERATION_EVENT_END) == (e.finish != GENERATION_RUNNING));
    assert(e.kind != GENERATION_EVENT_VECTOR || (uint64_t)e.index + e.n_values <= e.n_elements);
    struct generation_event copy = e;
    copy.n_tokens = 0;
    copy.tokens = (struct str){NULL, 0};
    struct str rest = e.tokens;
    struct generation_token t;
    while (generation_event_token(&rest, &t))
        assert(t.id >= 0 && t.logprob <= 0 && generation_event_add(&copy, tokens, &t) == 0);
    assert(rest.size == 0 && copy.n_tokens == e.n_tokens);
    size_t again_size = 0;
    assert(generation_event_encode(&copy, again, sizeof again, &again_size) == 0);
    assert(again_size == size && memcmp(again, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        check_event(data + 1, size - 1);
    else
        check_generation(data + 1, size - 1);
    return 0;
}
