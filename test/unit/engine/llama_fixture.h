/* What the tests of the llama engine share: the tiny model opened, and a sink that records events. */
#ifndef BULKHEAD_TEST_UNIT_ENGINE_LLAMA_FIXTURE_H
#define BULKHEAD_TEST_UNIT_ENGINE_LLAMA_FIXTURE_H

#include "engine/engine.h"
#include "gguf_builder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static inline int llama_fixture_library(void)
{
    static int fd = -1;
    char path[4096];
    const char *source = getenv("BULKHEAD_SOURCE");
    if (fd >= 0)
        return fd;
    (void)snprintf(path, sizeof path, "%s/build/engines/%s", source ? source : ".", engine_llama.library);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        (void)printf("Bail out! no llama.cpp library in build/engines of BULKHEAD_SOURCE: tools/deps install\n");
        exit(1);
    }
    return fd;
}

struct llama_model_file {
    int fd;
    const void *data;
    size_t size;
};

static inline struct llama_model_file llama_model_write(const void *data, size_t size)
{
    struct llama_model_file m = {.fd = memfd_create("model", MFD_CLOEXEC), .size = size};
    assert_true(m.fd >= 0);
    assert_int_equal(write(m.fd, data, size), size);
    m.data = mmap(NULL, size > 0 ? size : 1, PROT_READ, MAP_SHARED, m.fd, 0);
    assert_true(m.data != MAP_FAILED);
    return m;
}

static inline void llama_model_done(struct llama_model_file *m)
{
    (void)munmap((void *)(uintptr_t)m->data, m->size > 0 ? m->size : 1);
    (void)close(m->fd);
}

static inline struct llama_model_file llama_tiny_chat(uint64_t seed, const char *chat_template)
{
    struct buf b;
    buf_init(&b, 4 * MIB);
    tiny_build_chat(&b, seed, chat_template);
    assert_int_equal(b.failed, 0);
    struct llama_model_file m = llama_model_write(b.data, b.size);
    buf_done(&b);
    return m;
}

static inline struct llama_model_file llama_tiny(uint64_t seed)
{
    return llama_tiny_chat(seed, NULL);
}

static inline int llama_fixture_open(const struct llama_model_file *m, uint32_t threads, uint64_t memory_bytes,
                                     struct engine **ret_engine, struct error *err)
{
    struct engine_options options = {.model = m->data,
                                     .model_bytes = m->size,
                                     .model_fd = m->fd,
                                     .library_fd = llama_fixture_library(),
                                     .threads = threads,
                                     .memory_bytes = memory_bytes};
    memset(err, 0, sizeof *err);
    int r = engine_llama.open(&options, ret_engine, err);
    if (r < 0)
        assert_true(err->code == r && err->text[0] && !strstr(err->text, "/proc") && !strstr(err->text, ".so"));
    return r;
}

static inline struct engine *llama_must_open(const struct llama_model_file *m)
{
    struct engine *e = NULL;
    struct error err;
    if (llama_fixture_open(m, 1, 0, &e, &err) < 0)
        fail_msg("open: %s", err.text);
    return e;
}

/* One of examples/models. */
static inline struct llama_model_file llama_example(const char *name)
{
    struct llama_model_file m;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/examples/models/%s.gguf", getenv("BULKHEAD_SOURCE"), name);
    m.fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(m.fd >= 0);
    m.size = (size_t)lseek(m.fd, 0, SEEK_END);
    m.data = mmap(NULL, m.size, PROT_READ, MAP_SHARED, m.fd, 0);
    assert_true(m.data != MAP_FAILED);
    return m;
}

/* Of ggml's kernels for the model's own Q8_0, those of other processors sum up several rows in another order than one:
 * seen with AVX before AVX2, not tried elsewhere. */
static inline bool llama_kernels_agree(void)
{
#ifdef __x86_64__
    return !__builtin_cpu_supports("avx") || __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* All that was told of one sequence. */
struct told {
    uint64_t request_id;
    uint32_t n_events, n_tokens, n_ends, n_values;
    int32_t tokens[4096];
    float logprobs[4096];
    float gaps[4096]; /* between the two most probable, where they were asked for */
    float values[64];
    char text[65536];
    size_t text_size;
    enum generation_finish finish;
    int32_t status;
    uint32_t prompt, cached, completion;
    char error[512];
};

struct recorder {
    struct told told[64];
    uint32_t n_told, n_calls;
    uint32_t fail_at;          /* the call that returns non-zero; 0: none */
    uint32_t steps_max, steps; /* `more` says no from the step with this number on; 0: never */
};

static inline struct told *recorder_of(struct recorder *r, uint64_t request_id)
{
    for (uint32_t i = 0; i < r->n_told; i++)
        if (r->told[i].request_id == request_id)
            return &r->told[i];
    assert_true(r->n_told < 64);
    r->told[r->n_told].request_id = request_id;
    return &r->told[r->n_told++];
}

/* Every event goes through its encoded form, as it does between worker and gateway. */
static inline int recorder_event(void *ctx, uint64_t request_id, const struct generation_event *event)
{
    static uint8_t data[LIMIT_EVENT_BYTES];
    struct recorder *r = ctx;
    struct generation_event e;
    struct error err = {0};
    size_t size;
    assert_int_equal(generation_event_encode(event, data, sizeof data, &size), 0);
    if (generation_event_decode(data, size, &e, &err) < 0)
        fail_msg("%s", err.text);
    struct told *t = recorder_of(r, request_id);
    assert_int_equal(t->n_ends, 0);
    t->n_events++;
    t->prompt = e.prompt_tokens;
    t->cached = e.cached_tokens;
    t->completion = e.completion_tokens;
    if (e.kind == GENERATION_EVENT_END) {
        t->n_ends++;
        t->finish = e.finish;
        t->status = e.status;
        (void)snprintf(t->error, sizeof t->error, "%.*s", (int)e.text.size, e.text.data);
    } else {
        assert_true(t->text_size + e.text.size < sizeof t->text);
        memcpy(t->text + t->text_size, e.text.data, e.text.size);
        t->text_size += e.text.size;
    }
    struct generation_token token;
    while (generation_event_token(&e.tokens, &token)) {
        assert_true(t->n_tokens < 4096);
        t->logprobs[t->n_tokens] = token.logprob;
        t->gaps[t->n_tokens] = token.n_top > 1 ? token.top[0].logprob - token.top[1].logprob : 0;
        t->tokens[t->n_tokens++] = token.id;
    }
    if (e.kind == GENERATION_EVENT_VECTOR) {
        assert_true(e.index == t->n_values && e.index + e.n_values <= 64);
        memcpy(t->values + e.index, e.values, e.n_values * sizeof(float));
        t->n_values += e.n_values;
    }
    return ++r->n_calls == r->fail_at;
}

/* Two answers are the same up to the first token where the reference could not tell its two best apart: batches of
 * another shape are summed up in another order. Returns how far they are. */
static inline uint32_t told_same(const struct told *a, const struct told *reference)
{
    uint32_t n = a->n_tokens < reference->n_tokens ? a->n_tokens : reference->n_tokens;
    for (uint32_t i = 0; i < n; i++)
        if (a->tokens[i] != reference->tokens[i]) {
            if (reference->gaps[i] >= 1e-3f)
                fail_msg("token %u differs, though the two best are %g apart", i, (double)reference->gaps[i]);
            return i;
        }
    return n;
}

/* All n tokens of both, with the same probabilities to the last bit. */
static inline void told_same_bits(const struct told *a, const struct told *b, uint32_t n)
{
    assert_int_equal(a->n_tokens, n);
    assert_int_equal(b->n_tokens, n);
    for (uint32_t i = 0; i < n; i++)
        if (a->tokens[i] != b->tokens[i] || memcmp(&a->logprobs[i], &b->logprobs[i], sizeof a->logprobs[i]) != 0 ||
            memcmp(&a->gaps[i], &b->gaps[i], sizeof a->gaps[i]) != 0)
            fail_msg("sequence %llu, token %u: %d at %.9g, in company %d at %.9g", (unsigned long long)a->request_id, i,
                     a->tokens[i], (double)a->logprobs[i], b->tokens[i], (double)b->logprobs[i]);
}

static inline bool recorder_more(void *ctx)
{
    struct recorder *r = ctx;
    return r->steps_max == 0 || ++r->steps < r->steps_max;
}

/* Of adapters by their numbers, as they were told when they were loaded last. */
static uint32_t llama_kinds[256];

/* Of all sequences whose adapters are of this one's kind. */
static inline int llama_turn_of(struct engine *e, struct recorder *r, uint32_t steps, uint32_t adapter)
{
    struct engine_turn turn = {.budget_ns = UINT64_C(60) * 1000 * 1000 * 1000, .kind = llama_kinds[adapter]};
    struct engine_token_sink sink = {.ctx = r, .event = recorder_event, .more = recorder_more};
    struct error err = {0};
    r->steps_max = steps;
    r->steps = 0;
    int result = e->ops->token_step(e, &turn, &sink, &err);
    if (result < 0 && result != -ERROR_GONE)
        fail_msg("step: %s", err.text);
    return result;
}

static inline int llama_turn(struct engine *e, struct recorder *r, uint32_t steps)
{
    return llama_turn_of(e, r, steps, 0);
}

static inline struct llama_model_file llama_tiny_adapter(uint64_t seed)
{
    struct buf b;
    buf_init(&b, MIB);
    tiny_build_adapter(&b, seed);
    assert_int_equal(b.failed, 0);
    struct llama_model_file m = llama_model_write(b.data, b.size);
    buf_done(&b);
    return m;
}

static inline int llama_give(struct engine *e, uint32_t number, const struct llama_model_file *m, struct error *err)
{
    uint32_t kind = 0;
    memset(err, 0, sizeof *err);
    int r = e->ops->adapter_load(e, number, m->fd, (struct str){m->data, m->size}, &kind, err);
    assert_true((r == 0 && kind > 0 && number < 256) || (err->code == r && err->text[0]));
    if (r == 0)
        llama_kinds[number] = kind;
    return r;
}

static inline void llama_must_submit(struct engine *e, uint64_t id, uint64_t tenant, const struct generation *g)
{
    struct error err = {0};
    if (e->ops->token_submit(e, id, tenant, g, &err) < 0)
        fail_msg("submit: %s", err.text);
}

static inline struct generation llama_prompt(const char *text, uint32_t max_tokens)
{
    struct generation g;
    generation_init(&g, GENERATION_COMPLETION);
    g.prompt = str_from(text);
    g.max_tokens = max_tokens;
    return g;
}

#endif
