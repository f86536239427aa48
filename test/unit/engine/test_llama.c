/* The llama engine on a tiny random model: what it generates equals a plain loop over llama.cpp, alone and in company.
 */
#include "llama_fixture.h"

#include "engine/llama_library.h"

#include <math.h>

static struct llama_model_file model;
static struct recorder record;

static struct told *told(uint64_t id)
{
    for (uint32_t i = 0; i < record.n_told; i++)
        if (record.told[i].request_id == id)
            return &record.told[i];
    return recorder_of(&record, id);
}

static void run(struct engine *e)
{
    int left = llama_turn(e, &record, 0);
    assert_int_equal(left, 0);
}

static void fresh(void)
{
    memset(&record, 0, sizeof record);
}

/* --- the plain loop --- */

static uint32_t plain_tokens(const struct llama_library *api, const struct llama_vocab *vocab, const char *prompt,
                             llama_token *tokens)
{
    int32_t n = api->llama_tokenize(vocab, prompt, (int32_t)strlen(prompt), tokens, 600, true, true);
    assert_true(n > 0);
    return (uint32_t)n;
}

/* Greedy; the tokens of the answer, without the end of text. */
static uint32_t plain_greedy(const char *prompt, uint32_t max_tokens, llama_token *answer)
{
    struct engine_options options = {.library_fd = llama_fixture_library()};
    const struct llama_library *api;
    assert_int_equal(llama_library_open(&options, &api, NULL), 0);
    FILE *file = fdopen(dup(model.fd), "rb");
    rewind(file);
    struct llama_model_params mp = api->llama_model_default_params();
    mp.use_extra_bufts = false;
    struct llama_model *m = api->llama_model_load_from_file_ptr(file, mp);
    assert_non_null(m);
    struct llama_context_params cp = api->llama_context_default_params();
    cp.n_ctx = TINY_CONTEXT;
    cp.n_threads = cp.n_threads_batch = 1;
    struct llama_context *c = api->llama_init_from_model(m, cp);
    const struct llama_vocab *vocab = api->llama_model_get_vocab(m);
    static llama_token tokens[2048];
    uint32_t n = plain_tokens(api, vocab, prompt, tokens), n_answer = 0, done = 0;
    struct llama_batch batch = api->llama_batch_init(600, 0, 1);
    for (;;) {
        batch.n_tokens = 0;
        for (; done < n; done++) {
            int32_t i = batch.n_tokens++;
            batch.token[i] = tokens[done];
            batch.pos[i] = (llama_pos)done;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = done + 1 == n;
        }
        assert_int_equal(api->llama_decode(c, batch), 0);
        const float *logits = api->llama_get_logits_ith(c, -1);
        llama_token best = 0;
        for (llama_token i = 1; i < TINY_VOCABULARY; i++)
            if (logits[i] > logits[best])
                best = i;
        if (api->llama_vocab_is_eog(vocab, best))
            break;
        tokens[n++] = answer[n_answer++] = best;
        if (n_answer == max_tokens)
            break;
    }
    api->llama_batch_free(batch);
    api->llama_free(c);
    api->llama_model_free(m);
    (void)fclose(file);
    return n_answer;
}

static const char *const prompts[] = {
    "Hello",
    "the theory of the abacus",
    "Grüße aus Köln",
    "0123456789",
    "a",
    "The quick brown fox jumps over the lazy dog",
    "\n\n",
    "{\"json\": true}",
};
enum { N_PROMPTS = sizeof prompts / sizeof prompts[0] };

static void check_answer(const struct told *t, const llama_token *answer, uint32_t n)
{
    assert_int_equal(t->n_ends, 1);
    assert_int_equal(t->status, 0);
    assert_int_equal(t->n_tokens, n);
    assert_int_equal(t->completion, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(t->tokens[i], answer[i]);
}

static void test_greedy_equals_a_plain_loop(void **state)
{
    (void)state;
    static llama_token answers[N_PROMPTS][64];
    uint32_t n[N_PROMPTS];
    struct engine *e = llama_must_open(&model);
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        n[i] = plain_greedy(prompts[i], 48, answers[i]);
        fresh();
        struct generation g = llama_prompt(prompts[i], 48);
        llama_must_submit(e, i + 1, 1, &g);
        run(e);
        check_answer(told(i + 1), answers[i], n[i]);
        assert_int_equal(told(i + 1)->finish, n[i] == 48 ? GENERATION_LENGTH : GENERATION_STOP);
    }
    /* All at once, joining one after the other. */
    fresh();
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        struct generation g = llama_prompt(prompts[i], 48);
        llama_must_submit(e, 100 + i, 1 + i % 3, &g);
        (void)llama_turn(e, &record, 4);
    }
    run(e);
    for (uint32_t i = 0; i < N_PROMPTS; i++)
        check_answer(told(100 + i), answers[i], n[i]);
    e->ops->close(e);
}

static void test_signature(void **state)
{
    (void)state;
    static struct tensor_signature s;
    struct engine *e = llama_must_open(&model);
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    assert_int_equal(s.n_inputs + s.n_outputs, 0);
    assert_int_equal(s.token.vocabulary, TINY_VOCABULARY);
    assert_int_equal(s.token.context, TINY_CONTEXT);
    assert_true(s.token.cells >= 2 * s.token.context);
    assert_int_equal(s.token.embedding, TINY_EMBEDDING);
    assert_true(s.token.flags & TENSOR_TOKEN_ANSWER);
    assert_int_equal(s.token.flags & TENSOR_TOKEN_CHAT, 0);
    e->ops->close(e);
}

static void test_long_prompts_come_in_chunks(void **state)
{
    (void)state;
    static char text[420];
    static llama_token answer[8];
    memset(text, 'q', sizeof text - 1);
    uint32_t n = plain_greedy(text, 8, answer);
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation small = llama_prompt("Hello", 64), large = llama_prompt(text, 8);
    small.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 1, 1, &small);
    (void)llama_turn(e, &record, 3);
    llama_must_submit(e, 2, 1, &large);
    /* While the long prompt is worked on, the other sequence gets a token in each step. */
    uint32_t steps = 0, before = told(1)->n_tokens;
    while (told(2)->n_tokens == 0) {
        (void)llama_turn(e, &record, 1);
        steps++;
        assert_int_equal(told(1)->n_tokens, before + steps);
    }
    assert_true(steps >= 420 / 64);
    run(e);
    check_answer(told(2), answer, n);
    e->ops->close(e);
}

/* Beside a third that generates, two tenants share the 64 tokens of prompts of each step, and each tenant's oldest
 * prompt comes first. */
static void test_prompts_of_tenants(void **state)
{
    (void)state;
    static char text[420], other[300];
    memset(text, 'q', sizeof text - 1);
    memset(other, 'q', sizeof other - 1);
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation small = llama_prompt("Hello", 400), many = llama_prompt(text, 8), one = llama_prompt(other, 8);
    small.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 9, 3, &small);
    (void)llama_turn(e, &record, 3);
    for (uint64_t id = 1; id <= 4; id++)
        llama_must_submit(e, id, 1, &many);
    llama_must_submit(e, 5, 2, &one);
    uint32_t first[6] = {0}; /* the step of a sequence's first token */
    for (uint32_t step = 1; first[4] == 0; step++) {
        assert_true(step < 100);
        (void)llama_turn(e, &record, 1);
        for (uint64_t id = 1; id <= 5; id++)
            if (first[id] == 0 && told(id)->n_tokens > 0)
                first[id] = step;
    }
    /* A step makes at least one prompt ready, so the last after 5; then 300 tokens, 32 in each. */
    assert_in_range(first[5], 1, 5 + 300 / 32 + 1);
    assert_true(first[1] < first[2] && first[2] < first[3] && first[3] < first[4] && first[5] < first[2]);
    e->ops->close(e);
}

/* A tenant fills all places but one with long prompts; a short chat of another has its first token in as many steps as
 * beside as many of its own tenant that are through with their prompts, or one more, and then one in each step. */
static void test_short_chat_beside_long_prompts(void **state)
{
    (void)state;
    enum { LONG = 420, CHAT = 7, ANSWER = 8 };
    static char text[LONG];
    memset(text, 'q', sizeof text - 1);
    uint32_t steps[2][ANSWER] = {{0}};
    for (uint32_t beside = 0; beside < 2; beside++) {
        struct engine *e = llama_must_open(&model);
        struct tensor_signature s;
        assert_int_equal(e->ops->describe(e, &s, NULL), 0);
        fresh();
        struct generation other = llama_prompt(beside ? text : "Hello", 64), chat = llama_prompt("Hello", ANSWER);
        other.flags = chat.flags = GENERATION_IGNORE_END;
        for (uint32_t id = 1; id < s.token.sequences; id++)
            if (id != CHAT)
                llama_must_submit(e, id, beside ? 1 : 2, &other);
        (void)llama_turn(e, &record, beside ? 1 : s.token.sequences);
        llama_must_submit(e, CHAT, 2, &chat);
        for (uint32_t step = 1; told(CHAT)->n_tokens < ANSWER; step++) {
            uint32_t before = told(CHAT)->n_tokens;
            (void)llama_turn(e, &record, 1);
            assert_true(step < 100 && told(CHAT)->n_tokens <= before + 1);
            if (told(CHAT)->n_tokens > before)
                steps[beside][before] = step;
        }
        e->ops->close(e);
    }
    assert_int_equal(steps[0][0], 1);
    assert_in_range(steps[1][0], 1, 2);
    for (uint32_t i = 1; i < ANSWER; i++) {
        assert_int_equal(steps[0][i], steps[0][0] + i);
        assert_int_equal(steps[1][i], steps[1][0] + i);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    for (uint64_t id = 1; id <= 4; id++) {
        struct generation g = llama_prompt("Hello", 32);
        g.flags = GENERATION_SEEDED | GENERATION_IGNORE_END;
        g.temperature = 1.5f;
        g.top_k = 50;
        g.top_p = 0.99f;
        g.min_p = 0.001f;
        g.frequency_penalty = 0.5f;
        g.seed = id <= 2 ? 7 : id;
        llama_must_submit(e, id, 1, &g);
    }
    run(e);
    assert_int_equal(told(1)->n_tokens, 32);
    assert_memory_equal(told(1)->tokens, told(2)->tokens, 32 * sizeof(int32_t));
    assert_memory_not_equal(told(1)->tokens, told(3)->tokens, 32 * sizeof(int32_t));
    assert_memory_not_equal(told(3)->tokens, told(4)->tokens, 32 * sizeof(int32_t));
    e->ops->close(e);
}

static void test_bias_forces_and_forbids(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    static const int32_t token = TINY_BYTE_FIRST + 'z';
    int32_t bias[2] = {token, 0};
    float much = 100;
    memcpy(&bias[1], &much, sizeof much);
    fresh();
    struct generation g = llama_prompt("Hello", 5);
    g.biases = bias;
    g.n_biases = 1;
    llama_must_submit(e, 1, 1, &g);
    run(e);
    assert_int_equal(told(1)->text_size, 5);
    assert_memory_equal(told(1)->text, "zzzzz", 5);
    bias[0] = TINY_VOCABULARY;
    llama_must_submit(e, 2, 1, &g);
    run(e);
    assert_int_equal(told(2)->finish, GENERATION_ERROR);
    assert_int_equal(told(2)->status, -ERROR_INVALID_REQUEST);
    assert_non_null(strstr(told(2)->error, "logit_bias"));
    e->ops->close(e);
}

static void test_logprobs(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt("Hello", 6);
    g.flags = GENERATION_LOGPROBS | GENERATION_IGNORE_END;
    g.n_top_logprobs = LIMIT_TOP_LOGPROBS;
    llama_must_submit(e, 1, 1, &g);
    run(e);
    assert_int_equal(told(1)->n_tokens, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_true(told(1)->logprobs[i] < 0 && told(1)->logprobs[i] > -20);
    e->ops->close(e);
}

/* A stop string that the model will make: some bytes out of the middle of a free answer. */
static void test_stop_strings(void **state)
{
    (void)state;
    static const int32_t forced[] = {'x', 'y', 'z'};
    struct engine *e = llama_must_open(&model);
    for (uint32_t i = 0; i < 3; i++) { /* the same token again and again: a stop string of three tokens */
        fresh();
        float much = 100;
        int32_t bias[2] = {TINY_BYTE_FIRST + forced[i], 0};
        memcpy(&bias[1], &much, sizeof much);
        char stop[4] = {(char)forced[i], (char)forced[i], (char)forced[i], 0};
        struct generation g = llama_prompt("Hello", 50);
        g.biases = bias;
        g.n_biases = 1;
        g.n_stops = 1;
        g.stops[0] = str_from(stop);
        llama_must_submit(e, 1, 1, &g);
        run(e);
        assert_int_equal(told(1)->finish, GENERATION_STOP);
        assert_int_equal(told(1)->text_size, 0);
        assert_int_equal(told(1)->completion, 3);
    }
    e->ops->close(e);
}

static void test_prompts_that_cannot_be(void **state)
{
    (void)state;
    static char text[TINY_CONTEXT * 40];
    static const int32_t foreign[] = {TINY_VOCABULARY};
    struct engine *e = llama_must_open(&model);
    memset(text, 'q', sizeof text - 1);
    fresh();
    struct generation longer = llama_prompt(text, 1), fits = llama_prompt("a", 5), token = llama_prompt("", 5),
                      empty = llama_prompt("", 1), chat = llama_prompt("[]", 1);
    empty.flags = GENERATION_NO_SPECIAL;
    longer.prompt.size = TINY_CONTEXT + 5;
    token.tokens = foreign;
    token.n_tokens = 1;
    (void)chat;
    llama_must_submit(e, 1, 1, &longer);
    longer.prompt.size = sizeof text - 1;
    llama_must_submit(e, 2, 1, &longer);
    llama_must_submit(e, 3, 1, &token);
    llama_must_submit(e, 4, 1, &empty);
    llama_must_submit(e, 5, 1, &fits);
    struct error err = {0};
    assert_int_equal(e->ops->token_submit(e, 5, 1, &fits, &err), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(e->ops->token_submit(e, 0, 1, &fits, &err), -ERROR_INVALID_ARGUMENT);
    run(e);
    for (uint64_t id = 1; id <= 4; id++) {
        assert_int_equal(told(id)->n_ends, 1);
        assert_int_equal(told(id)->finish, GENERATION_ERROR);
        assert_int_equal(told(id)->status, -ERROR_INVALID_REQUEST);
    }
    assert_int_not_equal(told(5)->finish, GENERATION_ERROR);
    e->ops->close(e);
}

/* It ends alone, in whatever turn comes, and costs the others nothing. */
static void test_an_adapter_that_is_not_there(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    for (uint32_t adapter = 0; adapter < 2; adapter++) {
        fresh();
        struct generation without = llama_prompt("Hello", 10), with = without;
        with.adapter = 1;
        llama_must_submit(e, 1, 1, &without);
        llama_must_submit(e, 2, 1, &with);
        with.adapter = UINT32_MAX;
        llama_must_submit(e, 3, 2, &with);
        struct engine_turn turn = {.budget_ns = UINT64_C(60) * 1000 * 1000 * 1000, .kind = adapter};
        struct engine_token_sink sink = {.ctx = &record, .event = recorder_event, .more = recorder_more};
        struct error err = {0};
        assert_int_equal(e->ops->token_step(e, &turn, &sink, &err), adapter == 0 ? 0 : 1);
        assert_int_equal(turn.ret_left, 0);
        for (uint64_t id = 2; id <= 3; id++) {
            assert_int_equal(told(id)->n_ends, 1);
            assert_int_equal(told(id)->n_tokens, 0);
            assert_int_equal(told(id)->finish, GENERATION_ERROR);
            assert_int_equal(told(id)->status, -ERROR_INVALID_REQUEST);
            assert_non_null(strstr(told(id)->error, "no adapter"));
        }
        run(e);
        assert_int_equal(told(1)->n_ends, 1);
        assert_int_equal(told(1)->status, 0);
    }
    e->ops->close(e);
}

static void test_context_full(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt("Hello", UINT32_MAX);
    g.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 1, 1, &g);
    run(e);
    assert_int_equal(told(1)->finish, GENERATION_LENGTH);
    assert_int_equal(told(1)->prompt + told(1)->completion, TINY_CONTEXT);
    e->ops->close(e);
}

static void test_tokenize_and_back(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    static const char text[] = "Grüße, the abacus \xF0\x9F\x99\x82";
    fresh();
    struct generation g;
    generation_init(&g, GENERATION_TOKENIZE);
    g.prompt = str_from(text);
    g.flags = GENERATION_NO_SPECIAL;
    llama_must_submit(e, 1, 1, &g);
    run(e);
    assert_true(told(1)->n_tokens > 5);
    assert_int_equal(told(1)->finish, GENERATION_STOP);
    generation_init(&g, GENERATION_DETOKENIZE);
    g.tokens = told(1)->tokens;
    g.n_tokens = told(1)->n_tokens;
    llama_must_submit(e, 2, 1, &g);
    run(e);
    const struct told *t = told(2);
    size_t skip = t->text_size > 0 && t->text[0] == ' ' ? 1 : 0; /* SentencePiece's */
    assert_int_equal(t->text_size - skip, sizeof text - 1);
    assert_memory_equal(t->text + skip, text, sizeof text - 1);
    e->ops->close(e);
}

static void test_embeddings(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g;
    generation_init(&g, GENERATION_EMBEDDING);
    g.prompt = STR("the abacus");
    llama_must_submit(e, 1, 1, &g);
    llama_must_submit(e, 2, 2, &g);
    g.prompt = STR("0123");
    llama_must_submit(e, 3, 1, &g);
    run(e);
    double length = 0;
    assert_int_equal(told(1)->n_values, TINY_EMBEDDING);
    for (uint32_t i = 0; i < TINY_EMBEDDING; i++)
        length += (double)told(1)->values[i] * (double)told(1)->values[i];
    assert_true(fabs(length - 1) < 1e-4);
    assert_memory_equal(told(1)->values, told(2)->values, TINY_EMBEDDING * sizeof(float));
    assert_memory_not_equal(told(1)->values, told(3)->values, TINY_EMBEDDING * sizeof(float));
    assert_true(told(1)->prompt > 1);
    e->ops->close(e);
}

static int setup(void **state)
{
    (void)state;
    model = llama_tiny(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    llama_model_done(&model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_equals_a_plain_loop),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_long_prompts_come_in_chunks),
        cmocka_unit_test(test_prompts_of_tenants),
        cmocka_unit_test(test_short_chat_beside_long_prompts),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_bias_forces_and_forbids),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_prompts_that_cannot_be),
        cmocka_unit_test(test_an_adapter_that_is_not_there),
        cmocka_unit_test(test_context_full),
        cmocka_unit_test(test_tokenize_and_back),
        cmocka_unit_test(test_embeddings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
