/* What is kept of a tenant's prompts, who finds it, and that nobody else does. */
#include "llama_fixture.h"

static struct llama_model_file model;
static struct recorder record;

static const char shared_prompt[] = "the same long system prompt that every request begins with, over and over. ";

static struct told *ask(struct engine *e, uint64_t id, uint64_t secret, const char *text, uint32_t flags)
{
    struct generation g = llama_prompt(text, 4);
    g.cache_secret[0] = secret;
    g.flags = GENERATION_IGNORE_END | flags;
    llama_must_submit(e, id, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    return recorder_of(&record, id);
}

static void fresh(void)
{
    memset(&record, 0, sizeof record);
}

static void test_own_prefix_is_found(void **state)
{
    (void)state;
    char longer[200];
    struct engine *e = llama_must_open(&model);
    fresh();
    (void)snprintf(longer, sizeof longer, "%sAnd now?", shared_prompt);
    assert_int_equal(ask(e, 1, 5, shared_prompt, 0)->cached, 0);
    struct told *again = ask(e, 2, 5, shared_prompt, 0);
    assert_int_equal(again->cached, again->prompt - 1); /* one is needed for the answer */
    assert_memory_equal(again->tokens, recorder_of(&record, 1)->tokens, 4 * sizeof(int32_t));
    struct told *more = ask(e, 3, 5, longer, 0);
    assert_true(more->cached >= sizeof shared_prompt - 5);
    /* The same answer as without a cache. */
    struct told *without = ask(e, 4, 5, longer, GENERATION_NO_CACHE);
    assert_int_equal(without->cached, 0);
    assert_memory_equal(more->tokens, without->tokens, 4 * sizeof(int32_t));
    e->ops->close(e);
}

static void test_nobody_elses_is(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    (void)ask(e, 1, 5, shared_prompt, 0);
    assert_int_equal(ask(e, 2, 6, shared_prompt, 0)->cached, 0);
    assert_int_equal(ask(e, 3, 0, shared_prompt, 0)->cached, 0); /* no secret: no cache */
    assert_int_equal(ask(e, 4, 0, shared_prompt, 0)->cached, 0);
    assert_true(ask(e, 5, 6, shared_prompt, 0)->cached > 0);
    for (uint64_t id = 2; id <= 5; id++)
        assert_memory_equal(recorder_of(&record, id)->tokens, recorder_of(&record, 1)->tokens, 4 * sizeof(int32_t));
    e->ops->close(e);
}

/* One tenant that fills the cache takes nothing from another that stays within its share. */
static void test_shares(void **state)
{
    (void)state;
    struct engine *e = NULL;
    struct error err;
    static struct tensor_signature s;
    /* As little as the smallest context needs: 2 layers × 2 heads × 16 numbers × 2 bytes a token. */
    assert_int_equal(llama_fixture_open(&model, 1, 96 * MIB + 2 * 1024 * 256, &e, &err), 0);
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    assert_true(s.token.cells <= 2048);
    fresh();
    char text[100];
    (void)ask(e, 1, 5, shared_prompt, 0);
    for (uint64_t id = 100; id < 160; id++) {
        (void)snprintf(text, sizeof text, "%u another tenant's prompt, each time another one: %u", (unsigned)id,
                       (unsigned)id * 7919);
        (void)ask(e, id, 6, text, 0);
        record.n_told = 1;
        memset(&record.told[1], 0, sizeof record.told[1]);
    }
    assert_true(ask(e, 2, 5, shared_prompt, 0)->cached > 0);
    e->ops->close(e);
}

/* More sequences than cells: they wait, or are fed again, and answer as if alone. */
static void test_cells_run_out(void **state)
{
    (void)state;
    struct engine *e = NULL;
    struct error err;
    static struct tensor_signature s;
    assert_int_equal(llama_fixture_open(&model, 1, 96 * MIB + 2 * 512 * 256, &e, &err), 0);
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    assert_true(s.token.cells <= 1024);
    fresh();
    for (uint64_t id = 1; id <= 20; id++) {
        struct generation g = llama_prompt("the abacus", 200);
        g.flags = GENERATION_IGNORE_END;
        g.flags |= GENERATION_LOGPROBS;
        g.n_top_logprobs = 2;
        g.cache_secret[0] = id % 3;
        llama_must_submit(e, id, id % 3, &g);
    }
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint64_t id = 1; id <= 20; id++) {
        struct told *t = recorder_of(&record, id);
        assert_int_equal(t->n_ends, 1);
        assert_int_equal(t->finish, GENERATION_LENGTH);
        assert_int_equal(t->n_tokens, 200);
        (void)told_same(t, recorder_of(&record, 1));
    }
    e->ops->close(e);
}

/* Cancels in every step of a life, with others beside, whose answers stay what they are. */
static void test_cancel_at_every_step(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt(shared_prompt, 30);
    g.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 1, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint32_t steps = 0; steps < 12; steps++) {
        uint64_t stays = 100 + 2 * steps, goes = stays + 1;
        llama_must_submit(e, stays, 1, &g);
        llama_must_submit(e, goes, 2, &g);
        if (steps > 0)
            (void)llama_turn(e, &record, steps);
        uint32_t events = recorder_of(&record, goes)->n_events;
        e->ops->cancel(e, goes);
        e->ops->cancel(e, goes);
        assert_int_equal(llama_turn(e, &record, 0), 0);
        assert_int_equal(recorder_of(&record, goes)->n_events, events);
        assert_memory_equal(recorder_of(&record, stays)->tokens, recorder_of(&record, 1)->tokens, 30 * sizeof(int32_t));
    }
    llama_must_submit(e, 500, 1, &g);
    e->ops->cancel(e, 0);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    assert_int_equal(recorder_of(&record, 500)->n_events, 0);
    e->ops->close(e);
}

static void test_turns_of_a_tenant(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt("Hello", 10);
    g.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 1, 1, &g);
    llama_must_submit(e, 2, 2, &g);
    struct engine_turn turn = {.budget_ns = UINT64_C(60) * 1000 * 1000 * 1000, .tenant_id = 2};
    struct engine_token_sink sink = {.ctx = &record, .event = recorder_event};
    assert_int_equal(e->ops->token_step(e, &turn, &sink, NULL), 1);
    assert_int_equal(turn.ret_left, 0);
    assert_int_equal(recorder_of(&record, 2)->n_ends, 1);
    assert_int_equal(recorder_of(&record, 1)->n_events, 0);
    record.fail_at = record.n_calls + 3; /* the sink says stop: all is forgotten */
    turn.tenant_id = 0;
    assert_int_equal(e->ops->token_step(e, &turn, &sink, NULL), -ERROR_GONE);
    assert_int_equal(e->ops->token_step(e, &turn, &sink, NULL), 0);
    e->ops->close(e);
}

static void test_grammars(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt("Hello", 40);
    g.grammar_kind = GENERATION_GBNF;
    g.grammar = STR("root ::= \"yes\" | \"no, \" [a-c]{5} \".\"");
    g.flags = GENERATION_SEEDED;
    g.temperature = 2;
    for (uint64_t id = 1; id <= 8; id++) {
        g.seed = id;
        llama_must_submit(e, id, 1, &g);
    }
    g.grammar = STR("root ::= root \"a\""); /* recursion without end, and repetitions beyond reason */
    llama_must_submit(e, 20, 1, &g);
    g.grammar = STR("root ::= ((((\"a\"{1000}){1000}){1000}){1000}){1000}");
    llama_must_submit(e, 21, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint64_t id = 1; id <= 8; id++) {
        const struct told *t = recorder_of(&record, id);
        struct str text = {t->text, t->text_size};
        assert_int_equal(t->finish, GENERATION_STOP);
        assert_true(str_equal(text, STR("yes")) || (text.size == 10 && memcmp(text.data, "no, ", 4) == 0));
    }
    assert_int_equal(recorder_of(&record, 20)->status, -ERROR_INVALID_REQUEST);
    assert_int_equal(recorder_of(&record, 21)->status, -ERROR_INVALID_REQUEST);
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
        cmocka_unit_test(test_own_prefix_is_found),
        cmocka_unit_test(test_nobody_elses_is),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_cells_run_out),
        cmocka_unit_test(test_cancel_at_every_step),
        cmocka_unit_test(test_turns_of_a_tenant),
        cmocka_unit_test(test_grammars),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
