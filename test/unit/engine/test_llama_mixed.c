/* Sequences of different adapters in one decode call, each row with its own adapter's matrices: the same bits as each
 * sequence alone. The adapters are random, for the example model, whose weights are of Q8_0. */
#include "engine/gguf_scan.h"
#include "engine/llama_internal.h"
#include "llama_fixture.h"

#include <math.h>

enum { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };
enum { N_SEQUENCES = 16, N_ADAPTERS = 4, N_TOKENS = 16, N_MATRICES = 256 };

static struct llama_model_file model;
static struct recorder alone, company;

/* --- adapters --- */

struct recipe {
    uint32_t type, rank;
    float scale;        /* of its numbers, about */
    const char *prefix; /* of the tensors that it changes */
};

struct matrices {
    struct gguf_tensor found[N_MATRICES];
    uint32_t n;
    const char *prefix;
};

static int on_tensor(void *ctx, const struct gguf_tensor *t, struct error *err)
{
    (void)err;
    struct matrices *m = ctx;
    bool wanted =
        t->rank == 2 && t->name.size > strlen(m->prefix) && memcmp(t->name.data, m->prefix, strlen(m->prefix)) == 0;
    if (wanted && m->n < N_MATRICES)
        m->found[m->n++] = *t;
    return 0;
}

static size_t bytes_of(uint32_t type, uint64_t n)
{
    return type == F32 ? 4 * n : type == Q8_0 ? n / 32 * 34 : 2 * n;
}

/* Numbers of one size and any sign; an exponent each for the types of 16 bits. */
static void numbers_put(struct buf *b, const struct recipe *recipe, uint64_t n, uint64_t *seed)
{
    int exponent;
    (void)frexpf(recipe->scale, &exponent);
    for (uint64_t i = 0; i < n; i++) {
        float value = recipe->scale * tiny_random(seed);
        uint32_t random = (uint32_t)(*seed >> 40), sign = random << 15 & 0x8000;
        uint16_t half = (uint16_t)(sign | (uint32_t)(exponent + 14) << 10 | (random >> 1 & 0x3FF));
        uint16_t brain = (uint16_t)(sign | (uint32_t)(exponent + 126) << 7 | (random >> 1 & 0x7F));
        uint16_t step = (uint16_t)((uint32_t)(exponent + 8) << 10); /* of the signed byte that is the number */
        if (recipe->type == F32)
            buf_append(b, &value, sizeof value);
        else if (recipe->type == Q8_0 && i % 32 == 0)
            buf_append(b, &step, sizeof step);
        if (recipe->type == Q8_0)
            buf_append_char(b, (char)(random & 0xFF));
        else if (recipe->type != F32)
            buf_append(b, recipe->type == F16 ? &half : &brain, sizeof half);
    }
}

static struct llama_model_file adapter_make(const struct llama_model_file *base, const struct recipe *recipe,
                                            uint64_t seed)
{
    static struct matrices m;
    const struct gguf_visitor visitor = {.ctx = &m, .tensor = on_tensor};
    struct error err = {0};
    struct buf b;
    uint64_t start, offset = 0;
    m.n = 0;
    m.prefix = recipe->prefix;
    assert_int_equal(gguf_scan_each((struct str){base->data, base->size}, &visitor, &start, &err), 0);
    assert_true(m.n > 0);
    buf_init(&b, 16 * MIB);
    buf_append(&b, "GGUF", 4);
    gguf_u32(&b, 3);
    gguf_u64(&b, 2 * m.n);
    gguf_u64(&b, 4);
    gguf_key_text(&b, "general.architecture", "llama");
    gguf_key_text(&b, "general.type", "adapter");
    gguf_key_text(&b, "adapter.type", "lora");
    gguf_key_f32(&b, "adapter.lora.alpha", 16);
    for (uint32_t i = 0; i < 2 * m.n; i++) {
        const struct gguf_tensor *t = &m.found[i / 2];
        bool rows = memcmp(t->name.data, "token_embd", 10) == 0; /* are looked up: the other way round */
        uint64_t in = t->dims[rows ? 1 : 0], out = t->dims[rows ? 0 : 1];
        char name[96];
        (void)snprintf(name, sizeof name, "%.*s.lora_%c", (int)t->name.size, t->name.data, i % 2 ? 'b' : 'a');
        gguf_text(&b, name);
        gguf_u32(&b, 2);
        gguf_u64(&b, i % 2 || rows ? recipe->rank : in);
        gguf_u64(&b, i % 2 ? out : rows ? in : recipe->rank);
        gguf_u32(&b, recipe->type);
        gguf_u64(&b, offset);
        offset += (bytes_of(recipe->type, recipe->rank * (i % 2 ? out : in)) + 31) / 32 * 32;
    }
    while (b.size % 32 != 0)
        buf_append_char(&b, '\0');
    for (uint32_t i = 0; i < 2 * m.n; i++) {
        const struct gguf_tensor *t = &m.found[i / 2];
        bool rows = memcmp(t->name.data, "token_embd", 10) == 0;
        numbers_put(&b, recipe, recipe->rank * t->dims[(i % 2 == 0) == rows ? 1 : 0], &seed);
        while (b.size % 32 != 0)
            buf_append_char(&b, '\0');
    }
    assert_int_equal(b.failed, 0);
    struct llama_model_file file = llama_model_write(b.data, b.size);
    buf_done(&b);
    return file;
}

static void give(struct engine *e, uint32_t number, const struct recipe *recipe, uint64_t seed)
{
    struct error err;
    struct llama_model_file file = adapter_make(&model, recipe, seed);
    if (llama_give(e, number, &file, &err) < 0)
        fail_msg("adapter %u: %s", number, err.text);
    llama_model_done(&file);
}

/* --- calls --- */

static const struct llama_library *library;
static struct {
    uint32_t n, widest, fillers; /* calls with one token of each stream; the most of them in one; nobody's tokens */
} calls;

static int32_t decode_counted(struct llama_context *context, struct llama_batch batch)
{
    bool one_each = true;
    for (int32_t i = 1; i < batch.n_tokens; i++)
        one_each = one_each && batch.seq_id[i][0] != batch.seq_id[i - 1][0];
    for (int32_t i = 0; i < batch.n_tokens && one_each; i++)
        calls.fillers += !batch.logits[i];
    calls.n += one_each;
    if (one_each && (uint32_t)batch.n_tokens > calls.widest)
        calls.widest = (uint32_t)batch.n_tokens;
    return library->llama_decode(context, batch);
}

static struct engine *open_counted(const struct llama_model_file *m)
{
    static struct llama_library counted;
    struct engine *e = llama_must_open(m);
    struct llama *l = llama_of(e);
    library = l->api;
    counted = *l->api;
    counted.llama_decode = decode_counted;
    l->api = &counted;
    memset(&calls, 0, sizeof calls);
    memset(&alone, 0, sizeof alone);
    memset(&company, 0, sizeof company);
    return e;
}

/* Of the same four prompts for each adapter. */
static void submit_for(struct engine *e, uint64_t id, uint32_t adapter, uint32_t max_tokens)
{
    static const char *const prompts[N_SEQUENCES / N_ADAPTERS] = {"What is love?",
                                                                  "The house stood on a hill, and nobody", "Once",
                                                                  "She said that the sea was never so calm as then"};
    struct generation g = llama_prompt(prompts[id / N_ADAPTERS % 4], max_tokens);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS | GENERATION_NO_CACHE;
    g.n_top_logprobs = 2;
    g.adapter = adapter;
    llama_must_submit(e, id, id % 3 + 1, &g);
}

static void alone_all(struct engine *e, uint32_t n_adapters)
{
    for (uint64_t id = N_SEQUENCES; id < 2 * N_SEQUENCES; id++) {
        uint32_t adapter = 1 + (uint32_t)id % n_adapters;
        submit_for(e, id, adapter, N_TOKENS);
        assert_int_equal(llama_turn_of(e, &alone, 0, adapter), 0);
    }
    assert_int_equal(calls.widest, 1);
    memset(&calls, 0, sizeof calls);
}

static void company_submit(struct engine *e, uint32_t n_adapters)
{
    for (uint64_t id = N_SEQUENCES; id < 2 * N_SEQUENCES; id++)
        submit_for(e, id, 1 + (uint32_t)id % n_adapters, N_TOKENS);
}

static void company_same(void)
{
    for (uint64_t id = N_SEQUENCES; id < 2 * N_SEQUENCES; id++)
        told_same_bits(recorder_of(&alone, id), recorder_of(&company, id), N_TOKENS);
}

static const struct recipe common = {F16, 8, 0.1f, "blk."};

static void kind_mixed(const struct recipe *recipe)
{
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= N_ADAPTERS; i++) {
        give(e, i, recipe, i);
        assert_int_equal(llama_kinds[i], llama_kinds[1]);
    }
    alone_all(e, N_ADAPTERS);
    for (uint64_t id = N_SEQUENCES + 1; id < N_SEQUENCES + N_ADAPTERS; id++) /* else nothing would be shown */
        assert_memory_not_equal(recorder_of(&alone, N_SEQUENCES)->logprobs, recorder_of(&alone, id)->logprobs,
                                sizeof(float) * N_TOKENS);
    company_submit(e, N_ADAPTERS);
    assert_int_equal(llama_turn_of(e, &company, 0, 1), 0);
    assert_int_equal(calls.widest, N_SEQUENCES);
    company_same();
    e->ops->close(e);
}

static void test_types_and_ranks(void **state)
{
    (void)state;
    static const struct recipe recipes[] = {
        {F16, 8, 0.1f, "blk."},  {F16, 16, 0.1f, "blk."},  {F32, 8, 0.1f, "blk."},         {F32, 16, 0.1f, "blk."},
        {BF16, 8, 0.1f, "blk."}, {Q8_0, 32, 0.1f, "blk."}, {F16, 5, 0.1f, "blk.1.attn_q"},
    };
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        kind_mixed(&recipes[i]);
}

/* In turns with the bare base, which is not among them. */
static void test_two_kinds(void **state)
{
    (void)state;
    static const struct recipe other = {F16, 16, 0.1f, "blk."};
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= N_ADAPTERS; i++)
        give(e, i, i % 2 ? &common : &other, i);
    assert_true(llama_kinds[1] == llama_kinds[3] && llama_kinds[2] == llama_kinds[4]);
    assert_true(llama_kinds[1] != llama_kinds[2] && llama_kinds[0] == 0);
    alone_all(e, N_ADAPTERS);
    company_submit(e, N_ADAPTERS);
    submit_for(e, 1, 0, N_TOKENS);
    for (int left = 1; left > 0;) {
        static const uint32_t numbers[] = {1, 0, 4};
        for (uint32_t i = 0; i < 3; i++)
            left = llama_turn_of(e, &company, 2, numbers[i]);
    }
    assert_int_equal(calls.widest, N_SEQUENCES / 2);
    company_same();
    e->ops->close(e);
}

/* Its own sequences end, and nothing of it gets to the rows beside it. */
static void test_infinite_beside_others(void **state)
{
    (void)state;
    static const struct recipe finite = {F32, 8, 0.1f, "blk."}, huge = {F32, 8, 3e38f, "blk."};
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= N_ADAPTERS; i++)
        give(e, i, &finite, i);
    give(e, 9, &huge, 9);
    assert_int_equal(llama_kinds[9], llama_kinds[1]);
    alone_all(e, N_ADAPTERS);
    for (uint64_t id = N_SEQUENCES; id < 2 * N_SEQUENCES; id++) {
        submit_for(e, id, 1 + (uint32_t)id % N_ADAPTERS, N_TOKENS);
        if (id % 2)
            submit_for(e, 100 + id, 9, N_TOKENS);
        (void)llama_turn_of(e, &company, 2, 1);
    }
    assert_int_equal(llama_turn_of(e, &company, 0, 1), 0);
    for (uint64_t id = N_SEQUENCES + 1; id < 2 * N_SEQUENCES; id += 2)
        assert_int_equal(recorder_of(&company, 100 + id)->finish, GENERATION_ERROR);
    company_same();
    e->ops->close(e);
}

static uint32_t slot_of(struct engine *e, uint32_t number)
{
    return llama_adapter_find(llama_of(e), number)->slot;
}

/* In the middle of answers: one adapter goes, another takes its slot, and it comes back in a third. */
static void test_another_slot(void **state)
{
    (void)state;
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= N_ADAPTERS; i++)
        give(e, i, &common, i);
    alone_all(e, N_ADAPTERS);
    company_submit(e, N_ADAPTERS);
    assert_true(llama_turn_of(e, &company, 4, 1) > 0);
    for (uint64_t id = N_SEQUENCES + 1; id < 2 * N_SEQUENCES; id += N_ADAPTERS)
        assert_int_equal(e->ops->park(e, id, NULL), 0);
    uint32_t before = slot_of(e, 2);
    e->ops->adapter_drop(e, 2);
    assert_true(llama_turn_of(e, &company, 3, 1) > 0);
    give(e, 5, &common, 77);
    give(e, 6, &common, 2);
    assert_true(slot_of(e, 5) == before && slot_of(e, 6) != before);
    submit_for(e, 1, 5, N_TOKENS);
    assert_true(llama_turn_of(e, &company, 3, 1) > 0);
    for (uint64_t id = N_SEQUENCES + 1; id < 2 * N_SEQUENCES; id += N_ADAPTERS)
        assert_int_equal(e->ops->resume(e, id, 6, NULL), 0);
    assert_int_equal(llama_turn_of(e, &company, 0, 1), 0);
    assert_int_equal(calls.widest, N_SEQUENCES + 1);
    company_same();
    e->ops->close(e);
}

/* Where one has ended, its neighbours' calls go on over the gap, with the adapter that was there; but with none that is
 * not loaded any more. */
static void test_gaps(void **state)
{
    (void)state;
    for (uint32_t drops = 0; drops < 2; drops++) {
        struct engine *e = open_counted(&model);
        for (uint32_t i = 1; i <= N_ADAPTERS; i++)
            give(e, i, &common, i);
        give(e, 9, &common, 9);
        alone_all(e, N_ADAPTERS);
        for (uint64_t id = N_SEQUENCES; id < 2 * N_SEQUENCES; id++) {
            submit_for(e, id, 1 + (uint32_t)id % N_ADAPTERS, N_TOKENS);
            if (id % 3 == 0)
                submit_for(e, 100 + id, 9, 2);
        }
        assert_true(llama_turn_of(e, &company, 8, 1) > 0);
        if (drops)
            e->ops->adapter_drop(e, 9);
        calls.fillers = calls.widest = 0;
        assert_int_equal(llama_turn_of(e, &company, 0, 1), 0);
        assert_true(drops ? calls.fillers == 0 : calls.fillers > 0 && calls.widest > N_SEQUENCES);
        company_same();
        e->ops->close(e);
    }
}

/* Where a computation is not as expected, adapters of the kind are stepped one after the other, in the same turn. */
static void test_odd(void **state)
{
    (void)state;
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= N_ADAPTERS; i++)
        give(e, i, &common, i);
    alone_all(e, N_ADAPTERS);
    struct llama_kind *k = llama_adapter_find(llama_of(e), 1)->of;
    assert_true(k->seen && !k->odd && k->plain);
    k->odd = true;
    company_submit(e, N_ADAPTERS);
    assert_int_equal(llama_turn_of(e, &company, 0, 1), 0);
    assert_true(calls.widest <= N_SEQUENCES / N_ADAPTERS);
    company_same();
    e->ops->close(e);
}

/* What is looked up by token is no product: kinds of their own, though one LoRA of llama.cpp's serves both. */
static void test_embeddings_adapted(void **state)
{
    (void)state;
    static const struct recipe recipe = {F32, 4, 0.3f, "token_embd"};
    struct llama_model_file example = model;
    model = llama_tiny(1);
    struct engine *e = open_counted(&model);
    for (uint32_t i = 1; i <= 2; i++)
        give(e, i, &recipe, i);
    assert_true(llama_kinds[1] != llama_kinds[2]);
    assert_true(llama_adapter_find(llama_of(e), 1)->of == llama_adapter_find(llama_of(e), 2)->of);
    for (uint64_t id = 1; id <= 6; id++) {
        submit_for(e, id, (uint32_t)id % 3, N_TOKENS);
        assert_int_equal(llama_turn_of(e, &alone, 0, (uint32_t)id % 3), 0);
    }
    assert_true(llama_of(e)->kinds[0].odd);
    for (uint64_t id = 1; id <= 6; id++)
        submit_for(e, id, (uint32_t)id % 3, N_TOKENS);
    for (int left = 1; left > 0;)
        for (uint32_t i = 0; i < 3; i++)
            left = llama_turn_of(e, &company, 2, i);
    assert_memory_not_equal(recorder_of(&alone, 1)->logprobs, recorder_of(&alone, 2)->logprobs, 4 * N_TOKENS);
    for (uint64_t id = 1; id <= 6; id++)
        assert_int_equal(told_same(recorder_of(&company, id), recorder_of(&alone, id)), N_TOKENS);
    e->ops->close(e);
    llama_model_done(&model);
    model = example;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_ranks),
        cmocka_unit_test(test_two_kinds),
        cmocka_unit_test(test_infinite_beside_others),
        cmocka_unit_test(test_another_slot),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_odd),
        cmocka_unit_test(test_embeddings_adapted),
    };
    model = llama_example("novelist");
    int failed = llama_kernels_agree() ? cmocka_run_group_tests(tests, NULL, NULL) : 77; /* skipped */
    llama_model_done(&model);
    return failed;
}
