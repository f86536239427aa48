/* Two or three sequences get a call each where that is measured to be faster. */
#include "engine/llama_internal.h"
#include "llama_fixture.h"

#include "base/clock.h"

enum { ANSWER = 60 };

static void test_the_faster_way_is_taken(void **state)
{
    (void)state;
    static struct llama l;
    l = (struct llama){.fills_gaps = true};
    assert_false(llama_alone_choose(&l, 1));
    assert_false(llama_alone_choose(&l, 2)); /* nothing is known: each way is tried */
    llama_alone_note(&l, 2, 20 * NS_PER_MS);
    assert_true(llama_alone_choose(&l, 2));
    llama_alone_note(&l, 1, 6 * NS_PER_MS);
    assert_true(llama_alone_choose(&l, 2));
    assert_false(llama_alone_choose(&l, 3));
    llama_alone_note(&l, 3, 18 * NS_PER_MS + NS_PER_MS / 2); /* three are not much dearer in common */
    assert_false(llama_alone_choose(&l, 3));
    llama_alone_note(&l, 4, 1); /* of more than three nothing is kept */
    assert_false(llama_alone_choose(&l, 4));
    l.fills_gaps = false;
    assert_false(llama_alone_choose(&l, 2));
}

/* What was so once may be otherwise with another load: both ways are measured again and again. */
static void test_the_slower_way_is_tried_again(void **state)
{
    (void)state;
    static struct llama l;
    l = (struct llama){.fills_gaps = true};
    llama_alone_note(&l, 1, 6 * NS_PER_MS);
    llama_alone_note(&l, 2, 20 * NS_PER_MS);
    uint32_t n_common = 0;
    for (uint32_t i = 0; i < 1000 && n_common < 2; i++)
        n_common += !llama_alone_choose(&l, 2);
    assert_int_equal(n_common, 2);
    for (uint32_t i = 0; i < 100; i++)
        llama_alone_note(&l, 2, 8 * NS_PER_MS);
    assert_false(llama_alone_choose(&l, 2));
}

static void run(struct engine *e, struct recorder *record, uint32_t n)
{
    memset(record, 0, sizeof *record);
    for (uint64_t id = 1; id <= n; id++) {
        struct generation g = llama_prompt("the theory of the abacus", ANSWER);
        g.flags = GENERATION_IGNORE_END;
        llama_must_submit(e, id, id, &g);
    }
    (void)llama_turn(e, record, 0);
    for (uint64_t id = 1; id <= n; id++) {
        const struct told *t = recorder_of(record, id);
        assert_true(t->n_ends == 1 && t->status == 0 && t->n_tokens == ANSWER);
        assert_memory_equal(t->tokens, recorder_of(record, 1)->tokens, sizeof t->tokens[0] * ANSWER);
    }
}

static void test_answers_are_the_same_either_way(void **state)
{
    (void)state;
    static struct recorder alone, common;
    struct llama_model_file model = llama_tiny(1);
    struct engine *e = llama_must_open(&model);
    struct llama *l = llama_of(e);
    l->fills_gaps = true;
    for (uint32_t n = 2; n <= 3; n++) {
        l->alone = (struct llama_alone){.call_ns = {0, 1, NS_PER_S, NS_PER_S}};
        run(e, &alone, n);
        assert_true(l->alone.call_ns[1] > 1 && l->alone.call_ns[n] == NS_PER_S); /* there was none */
        l->alone = (struct llama_alone){.call_ns = {0, NS_PER_S, 1, 1}};
        run(e, &common, n);
        assert_true(l->alone.call_ns[1] == NS_PER_S && l->alone.call_ns[n] > 1);
        assert_memory_equal(recorder_of(&alone, 1)->tokens, recorder_of(&common, 1)->tokens,
                            sizeof alone.told[0].tokens[0] * ANSWER);
    }
    e->ops->close(e);
    llama_model_done(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_faster_way_is_taken),
        cmocka_unit_test(test_the_slower_way_is_tried_again),
        cmocka_unit_test(test_answers_are_the_same_either_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
