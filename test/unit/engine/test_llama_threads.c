/* Two threads where the host has one core for them: they become one, and answers stay what they were. */
#include "engine/llama_internal.h"
#include "llama_fixture.h"

#include "base/clock.h"

#include <sched.h>

enum { LONG = 300, ANSWER = 60 };

static struct llama_model_file model;
static struct recorder record;
static cpu_set_t cores;

/* The rest of this process, threads that begin later included, has one core. */
static void one_core(void)
{
    cpu_set_t one;
    int core = 0;
    while (!CPU_ISSET(core, &cores))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}

static struct engine *open_with(uint32_t threads)
{
    struct engine *e = NULL;
    struct error err;
    if (llama_fixture_open(&model, threads, 0, &e, &err) < 0)
        fail_msg("open: %s", err.text);
    return e;
}

/* Three at once, one of them with a long prompt. */
static void submit(struct engine *e)
{
    static char text[LONG];
    memset(text, 'q', sizeof text - 1);
    memset(&record, 0, sizeof record);
    for (uint64_t id = 1; id <= 3; id++) {
        struct generation g = llama_prompt(id == 2 ? text : "the theory of the abacus", ANSWER);
        g.flags = GENERATION_IGNORE_END;
        llama_must_submit(e, id, id, &g);
    }
}

static void answers_take(int32_t answers[3][ANSWER])
{
    for (uint64_t id = 1; id <= 3; id++) {
        const struct told *t = recorder_of(&record, id);
        assert_int_equal(t->n_ends, 1);
        assert_int_equal(t->status, 0);
        assert_int_equal(t->n_tokens, ANSWER);
        memcpy(answers[id - 1], t->tokens, sizeof answers[0]);
    }
}

/* An engine of two threads that have one core; what one of one thread answers is in `alone`. */
static struct engine *two_on_one_core(int32_t alone[3][ANSWER])
{
    struct engine *e = open_with(1);
    submit(e);
    (void)llama_turn(e, &record, 0);
    answers_take(alone);
    e->ops->close(e);
    one_core();
    return open_with(2);
}

static void test_threads_without_cores_become_fewer(void **state)
{
    (void)state;
    static int32_t alone[3][ANSWER], answers[3][ANSWER];
    struct engine *e = two_on_one_core(alone);
    struct llama_pace *pace = &llama_of(e)->pace;
    assert_int_equal(pace->n, 2);
    submit(e);
    uint32_t steps = 0;
    for (; pace->n == 2; steps++) {
        assert_true(steps < ANSWER);
        (void)llama_turn(e, &record, 1);
    }
    assert_int_equal(pace->n, 1);
    (void)llama_turn(e, &record, 0);
    answers_take(answers);
    assert_memory_equal(answers, alone, sizeof alone);
    e->ops->close(e);
}

/* Each call that two threads are tried in is given up in the middle and done again by one. */
static void test_a_call_is_given_up(void **state)
{
    (void)state;
    static int32_t alone[3][ANSWER], answers[3][ANSWER];
    struct engine *e = two_on_one_core(alone);
    struct llama_pace *pace = &llama_of(e)->pace;
    pace->give_up_ns = 0;
    submit(e);
    uint32_t n_given_up = 0;
    while (recorder_of(&record, 1)->n_ends + recorder_of(&record, 2)->n_ends + recorder_of(&record, 3)->n_ends < 3) {
        pace->until_ns = 0; /* tried again in each */
        uint64_t hold_ns = pace->hold_ns = NS_PER_S;
        (void)llama_turn(e, &record, 1);
        n_given_up += pace->hold_ns > hold_ns;
    }
    assert_true(n_given_up > 0);
    answers_take(answers);
    assert_memory_equal(answers, alone, sizeof alone);
    e->ops->close(e);
}

static int setup(void **state)
{
    (void)state;
    model = llama_tiny(1);
    return sched_getaffinity(0, sizeof cores, &cores);
}

static int teardown(void **state)
{
    (void)state;
    llama_model_done(&model);
    return sched_setaffinity(0, sizeof cores, &cores);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads_without_cores_become_fewer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_call_is_given_up, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
