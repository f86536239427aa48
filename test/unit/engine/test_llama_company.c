/* What a sequence computes does not depend on who is computed beside it: the same bits alone and in company, with the
 * trained example model and each of its adapters, or both. */
#include "llama_fixture.h"

enum { N_PROMPTS = 12, N_TOKENS = 32 };

static struct recorder alone, company;

/* Of 4 tokens to 264, neighbours often one apart, so that what is left of one beside another would be one token. */
static void submit(struct engine *e, uint64_t id, uint32_t adapter, bool cache)
{
    static const uint32_t words[N_PROMPTS] = {3, 4, 5, 6, 7, 8, 126, 127, 128, 129, 263, 60};
    char prompt[2048];
    int size = snprintf(prompt, sizeof prompt, "What is");
    for (uint32_t i = 0; i < words[id]; i++) /* of 5 bytes at most */
        size += snprintf(prompt + size, sizeof prompt - (size_t)size, "%s", i % 4 == id % 4 ? " love" : " the");
    struct generation g = llama_prompt(prompt, N_TOKENS);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS | (cache ? 0u : GENERATION_NO_CACHE);
    g.cache_secret[0] = 6;
    g.n_top_logprobs = 2;
    g.adapter = adapter;
    llama_must_submit(e, id + 1, id % 3 + 1, &g);
}

static void same_bits(const struct told *a, const struct told *b)
{
    told_same_bits(a, b, N_TOKENS);
}

/* The second time, all of the prompt but what must be left is there. */
static void compare_cached(struct engine *e, uint32_t adapter)
{
    for (uint64_t id = 0; id < N_PROMPTS; id++) {
        for (uint32_t i = 0; i < 2; i++) {
            memset(&company, 0, sizeof company);
            submit(e, id, adapter, true);
            assert_int_equal(llama_turn_of(e, &company, 0, adapter), 0);
        }
        const struct told *again = recorder_of(&company, id + 1);
        assert_int_equal(again->cached, again->prompt - 2);
        same_bits(recorder_of(&alone, id + 1), again);
    }
}

/* All at once, and one after the other while those before generate; of n adapters from the first on. */
static void compare(struct engine *e, uint32_t first, uint32_t n)
{
    memset(&alone, 0, sizeof alone);
    for (uint64_t id = 0; id < N_PROMPTS; id++) {
        submit(e, id, first + (uint32_t)id % n, false);
        assert_int_equal(llama_turn_of(e, &alone, 0, first), 0);
    }
    for (uint32_t steps = 0; steps < 4; steps += 3) {
        memset(&company, 0, sizeof company);
        for (uint64_t id = 0; id < N_PROMPTS; id++) {
            submit(e, id, first + (uint32_t)id % n, false);
            if (steps > 0)
                (void)llama_turn_of(e, &company, steps, first);
        }
        assert_int_equal(llama_turn_of(e, &company, 0, first), 0);
        for (uint64_t id = 1; id <= N_PROMPTS; id++)
            same_bits(recorder_of(&alone, id), recorder_of(&company, id));
    }
    if (first > 0 && n == 1)
        compare_cached(e, first);
}

static void test_company_changes_nothing(void **state)
{
    (void)state;
    if (!llama_kernels_agree())
        skip();
    struct llama_model_file model = llama_example("novelist"), scribe = llama_example("scribe"),
                            cynic = llama_example("cynic");
    struct engine *e = llama_must_open(&model);
    struct error err;
    assert_int_equal(llama_give(e, 1, &scribe, &err), 0);
    assert_int_equal(llama_give(e, 2, &cynic, &err), 0);
    for (uint32_t adapter = 0; adapter <= 2; adapter++)
        compare(e, adapter, 1);
    assert_int_equal(llama_kinds[1], llama_kinds[2]);
    compare(e, 1, 2);
    e->ops->close(e);
    llama_model_done(&model);
    llama_model_done(&scribe);
    llama_model_done(&cynic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_company_changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
