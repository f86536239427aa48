/* Prompts beside an answer: a step has little room for them, which goes to one, the tenants by turns. */
#include "engine/llama_internal.h"
#include "llama_fixture.h"

enum { ROOM = LLAMA_PREFILL_BUSY, LONG = 3 * ROOM, SHORT = 20 };

static struct llama_model_file model;
static struct recorder record;
static struct engine *e;
static int32_t tokens[LONG];

static void prompt(uint64_t id, uint64_t tenant, uint32_t n)
{
    struct generation g;
    generation_init(&g, GENERATION_COMPLETION);
    g.tokens = tokens;
    g.n_tokens = n;
    g.max_tokens = 100;
    g.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, id, tenant, &g);
    struct error err; /* now, as a step makes ready only what it has time for */
    assert_int_equal(llama_prepare(llama_of(e), llama_sequence_find(llama_of(e), id), &err), 0);
}

static uint32_t done_of(uint64_t id)
{
    const struct llama_sequence *s = llama_sequence_find(llama_of(e), id);
    assert_non_null(s);
    return s->n_done;
}

static int setup(void **state)
{
    (void)state;
    memset(&record, 0, sizeof record);
    for (uint32_t i = 0; i < LONG; i++)
        tokens[i] = 40 + (int32_t)i % 50;
    model = llama_tiny(1);
    e = llama_must_open(&model);
    prompt(1, 1, SHORT);
    (void)llama_turn(e, &record, 1);
    assert_int_equal(recorder_of(&record, 1)->n_tokens, 1); /* it answers */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    e->ops->close(e);
    llama_model_done(&model);
    return 0;
}

/* In each step one of the two gets all of the room, and each in every second one. */
static void test_tenants_take_turns(void **state)
{
    (void)state;
    prompt(2, 2, LONG);
    prompt(3, 3, LONG);
    for (uint32_t step = 1; step <= 4; step++) {
        (void)llama_turn(e, &record, 1);
        assert_int_equal(done_of(2) + done_of(3), step * ROOM);
        if (step % 2 == 0)
            assert_int_equal(done_of(2), done_of(3));
    }
    assert_int_equal(recorder_of(&record, 1)->n_tokens, 5); /* the answer never stood still */
}

/* A tenant with several prompts has no more turns than one with one, and its oldest goes first. */
static void test_several_prompts_are_one_turn(void **state)
{
    (void)state;
    for (uint64_t id = 2; id <= 5; id++)
        prompt(id, id < 5 ? 2 : 3, LONG);
    (void)llama_turn(e, &record, 1);
    (void)llama_turn(e, &record, 1);
    assert_true(done_of(2) == ROOM && done_of(5) == ROOM);
    assert_int_equal(done_of(3) + done_of(4), 0);
}

/* What one leaves of the room goes to those that it brings to their end. */
static void test_short_ones_fill_a_step(void **state)
{
    (void)state;
    prompt(2, 2, SHORT);
    prompt(3, 2, SHORT);
    prompt(4, 2, LONG);
    prompt(5, 2, SHORT);
    (void)llama_turn(e, &record, 1);
    assert_true(done_of(2) == SHORT && done_of(3) == SHORT && done_of(5) == SHORT);
    assert_int_equal(done_of(4), 0);
    (void)llama_turn(e, &record, 1);
    assert_int_equal(done_of(4), ROOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tenants_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_prompts_are_one_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_ones_fill_a_step, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
