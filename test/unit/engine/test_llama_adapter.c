/* Adapters in a running engine, and the look at their files. */
#include "engine/llama_internal.h"
#include "engine/lora_scan.h"
#include "llama_fixture.h"

#include <math.h>

enum { TINY_ADAPTER_LAYER = 4 * TINY_RANK * (3 * TINY_EMBEDDING + TINY_FEED) }; /* bytes */

static struct llama_model_file model;
static struct recorder record;
static struct buf adapter;

static const char prompt[] = "the abacus and the long road. ";

static struct told *ask_with(struct engine *e, uint64_t id, uint32_t number)
{
    struct generation g = llama_prompt(prompt, 24);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS;
    g.n_top_logprobs = 2;
    g.cache_secret[0] = 5;
    g.adapter = number;
    llama_must_submit(e, id, 1, &g);
    assert_int_equal(llama_turn_of(e, &record, 0, number), 0);
    return recorder_of(&record, id);
}

static char *place(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= adapter.size; i++)
        if (memcmp(adapter.data + i, text, n) == 0)
            return adapter.data + i;
    fail_msg("no '%s' in the file", text);
    return NULL;
}

static void fresh(void)
{
    buf_clear(&adapter);
    tiny_build_adapter(&adapter, 3);
}

static void test_turns_of_different_adapters(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file first = llama_tiny_adapter(3), second = llama_tiny_adapter(4);
    struct error err;
    memset(&record, 0, sizeof record);
    struct told *base = ask_with(e, 1, 0);
    assert_int_equal(llama_give(e, 7, &first, &err), 0);
    assert_int_equal(llama_give(e, 9, &second, &err), 0);
    assert_int_equal(llama_give(e, 9, &second, &err), -ERROR_INVALID_ARGUMENT);
    assert_int_equal(llama_give(e, 0, &second, &err), -ERROR_INVALID_ARGUMENT);
    struct told *a = ask_with(e, 2, 7), *b = ask_with(e, 3, 9);
    assert_int_equal(a->cached, 0); /* the base's cells are not the adapter's */
    assert_memory_not_equal(a->tokens, base->tokens, sizeof(int32_t) * 24);
    assert_memory_not_equal(b->tokens, a->tokens, sizeof(int32_t) * 24);
    /* In turns, each goes on as alone. */
    for (uint64_t id = 11; id <= 13; id++) {
        struct generation g = llama_prompt(prompt, 24);
        g.flags = GENERATION_IGNORE_END;
        g.adapter = id == 11 ? 0 : id == 12 ? 7 : 9;
        llama_must_submit(e, id, id, &g);
    }
    for (int left = 3; left > 0;) {
        static const uint32_t numbers[] = {0, 7, 9};
        for (uint32_t i = 0; i < 3 && left > 0; i++)
            left = llama_turn_of(e, &record, 2, numbers[i]);
    }
    assert_int_equal(told_same(recorder_of(&record, 11), base), 24);
    assert_int_equal(told_same(recorder_of(&record, 12), a), 24);
    assert_int_equal(told_same(recorder_of(&record, 13), b), 24);
    assert_true(ask_with(e, 14, 7)->cached > 0);
    e->ops->close(e);
    llama_model_done(&first);
    llama_model_done(&second);
}

/* Prefixes of the base and of adapters that rest come back to their own. */
static void test_rest(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file first = llama_tiny_adapter(3), second = llama_tiny_adapter(4);
    struct error err;
    memset(&record, 0, sizeof record);
    assert_int_equal(llama_give(e, 1, &first, &err), 0);
    assert_int_equal(llama_give(e, 2, &second, &err), 0);
    struct told *alone[3];
    for (uint32_t i = 0; i < 3; i++)
        alone[i] = ask_with(e, 1 + i, i);
    for (uint64_t round = 1; round <= 6; round++) {
        while (e->ops->rest(e))
            ;
        for (uint32_t k = 0; k < 3; k++) {
            uint32_t number = (uint32_t)(round + k) % 3;
            struct told *t = ask_with(e, 10 * round + k, number);
            assert_true(t->cached > 0);
            assert_int_equal(told_same(t, alone[number]), 24);
        }
    }
    while (e->ops->rest(e))
        ;
    e->ops->adapter_drop(e, 1);
    assert_int_equal(llama_give(e, 3, &first, &err), 0);
    struct told *t = ask_with(e, 100, 3);
    assert_true(t->cached == 0 && told_same(t, alone[1]) == 24);
    e->ops->close(e);
    llama_model_done(&first);
    llama_model_done(&second);
}

static void test_drop(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file file = llama_tiny_adapter(3), other = llama_tiny_adapter(4);
    struct error err;
    memset(&record, 0, sizeof record);
    assert_int_equal(llama_give(e, 1, &file, &err), 0);
    struct told *before = ask_with(e, 1, 1);
    e->ops->adapter_drop(e, 2); /* unknown */
    assert_true(ask_with(e, 2, 1)->cached > 0);
    /* While one of its sequences runs. */
    struct generation g = llama_prompt(prompt, 200);
    g.adapter = 1;
    llama_must_submit(e, 3, 1, &g);
    assert_int_equal(llama_turn_of(e, &record, 2, 1), 1);
    e->ops->adapter_drop(e, 1);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    struct told *ended = recorder_of(&record, 3);
    assert_true(ended->n_ends == 1 && ended->finish == GENERATION_ERROR && strstr(ended->error, "no adapter 1"));
    /* Another one under the same number (which no gateway gives) finds nothing of it. */
    assert_int_equal(llama_give(e, 1, &other, &err), 0);
    struct told *after = ask_with(e, 4, 1);
    assert_int_equal(after->cached, 0);
    assert_memory_not_equal(after->tokens, before->tokens, sizeof(int32_t) * 24);
    e->ops->adapter_drop(e, 0);
    assert_int_equal(llama_give(e, 1, &file, &err), 0);
    assert_int_equal(told_same(ask_with(e, 5, 1), before), 24);
    e->ops->close(e);
    llama_model_done(&file);
    llama_model_done(&other);
}

/* Parked, its adapter dropped, others computed meanwhile, and the adapter back under another number: as if nothing was,
 * at each of its steps. */
static void test_dropped_under_one_that_is_parked(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file file = llama_tiny_adapter(3), other = llama_tiny_adapter(4);
    struct error err;
    memset(&record, 0, sizeof record);
    uint32_t number = 1;
    assert_int_equal(llama_give(e, number, &file, &err), 0);
    struct told *alone = ask_with(e, 1, number), *base = ask_with(e, 2, 0);
    for (uint32_t steps = 0; steps < 6; steps++) {
        uint64_t id = 10 + 3 * steps;
        struct generation g = llama_prompt(prompt, 24);
        g.flags = GENERATION_IGNORE_END;
        g.adapter = number;
        g.cache_secret[0] = 5;
        llama_must_submit(e, id, 1, &g);
        if (steps > 0)
            assert_int_equal(llama_turn_of(e, &record, steps, number), 1);
        uint32_t before = recorder_of(&record, id)->n_events;
        assert_int_equal(e->ops->park(e, id, NULL), 0);
        e->ops->adapter_drop(e, number);
        assert_int_equal(llama_turn_of(e, &record, 0, number), 0); /* the rest of its lease */
        assert_int_equal(llama_give(e, number + 1, &other, &err), 0);
        assert_memory_not_equal(ask_with(e, id + 1, number + 1)->tokens, alone->tokens, sizeof(int32_t) * 24);
        assert_int_equal(told_same(ask_with(e, id + 2, 0), base), 24);
        assert_int_equal(recorder_of(&record, id)->n_events, before);
        e->ops->adapter_drop(e, number + 1);
        number += 2;
        assert_int_equal(llama_give(e, number, &file, &err), 0);
        assert_int_equal(e->ops->resume(e, id, number, NULL), 0);
        assert_int_equal(llama_turn_of(e, &record, 0, number), 0);
        assert_int_equal(told_same(recorder_of(&record, id), alone), 24);
    }
    assert_true(ask_with(e, 100, number)->cached > 0); /* what it leaves is a prefix under the new number */
    e->ops->close(e);
    llama_model_done(&file);
    llama_model_done(&other);
}

static void test_embedding(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file file = llama_tiny_adapter(3);
    struct error err;
    memset(&record, 0, sizeof record);
    assert_int_equal(llama_give(e, 1, &file, &err), 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct generation g;
        generation_init(&g, GENERATION_EMBEDDING);
        g.prompt = str_from(prompt);
        g.adapter = i % 2;
        llama_must_submit(e, 1 + i, 1, &g);
        assert_int_equal(llama_turn_of(e, &record, 0, i % 2), 0);
    }
    const struct told *t = record.told;
    assert_int_equal(t[0].n_values, TINY_EMBEDDING);
    assert_memory_equal(t[0].values, t[2].values, sizeof(float) * TINY_EMBEDDING);
    assert_memory_equal(t[1].values, t[3].values, sizeof(float) * TINY_EMBEDDING);
    assert_memory_not_equal(t[0].values, t[1].values, sizeof(float) * TINY_EMBEDDING);
    e->ops->adapter_drop(e, 1);
    e->ops->close(e);
    llama_model_done(&file);
}

static const struct told *embed_with(struct engine *e, uint64_t id, uint32_t number)
{
    struct generation g;
    generation_init(&g, GENERATION_EMBEDDING);
    g.prompt = str_from(prompt);
    g.adapter = number;
    llama_must_submit(e, id, 1, &g);
    assert_int_equal(llama_turn_of(e, &record, 0, number), 0);
    return recorder_of(&record, id);
}

/* Those of one kind have one LoRA of llama.cpp's, whose tensors show the one that is asked for. */
static void test_one_in_anothers_place(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    const struct llama *l = llama_of(e);
    struct llama_model_file files[3] = {llama_tiny_adapter(3), llama_tiny_adapter(4)};
    struct error err;
    float alpha = 7;
    fresh();
    memcpy(place("adapter.lora.alpha") + 18 + 4, &alpha, sizeof alpha); /* else as the first */
    files[2] = llama_model_write(adapter.data, adapter.size);
    memset(&record, 0, sizeof record);
    struct told *alone[3];
    const struct told *vectors[3];
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(llama_give(e, 1 + i, &files[i], &err), 0);
        alone[i] = ask_with(e, 1 + i, 1 + i);
        vectors[i] = embed_with(e, 11 + i, 1 + i);
    }
    assert_memory_not_equal(alone[2]->tokens, alone[0]->tokens, sizeof(int32_t) * 24);
    assert_true(llama_kinds[1] == llama_kinds[2] && llama_kinds[3] > 0 && llama_kinds[3] != llama_kinds[1]);
    static const uint32_t asked[] = {2, 1, 2, 3, 1, 2, 1};
    for (uint32_t i = 0; i < 7; i++) {
        uint64_t id = 100 + 10 * i;
        uint32_t k = asked[i] - 1;
        assert_int_equal(told_same(ask_with(e, id, asked[i]), alone[k]), 24);
        assert_int_equal(l->worn->number, llama_kinds[asked[i]]);
        assert_true(l->worn->seen && !l->worn->odd);
        assert_memory_equal(embed_with(e, id + 1, asked[i])->values, vectors[k]->values,
                            sizeof(float) * TINY_EMBEDDING);
    }
    /* The one that came first goes, and one that is shown; then the last of the kind, and it comes again. */
    assert_int_equal(told_same(ask_with(e, 200, 2), alone[1]), 24);
    e->ops->adapter_drop(e, 1);
    assert_int_equal(l->worn->number, llama_kinds[2]);
    assert_int_equal(told_same(ask_with(e, 201, 2), alone[1]), 24);
    assert_int_equal(llama_give(e, 4, &files[0], &err), 0);
    assert_int_equal(llama_kinds[4], llama_kinds[2]);
    assert_int_equal(told_same(ask_with(e, 202, 4), alone[0]), 24);
    assert_int_equal(told_same(ask_with(e, 203, 2), alone[1]), 24);
    e->ops->adapter_drop(e, 2);
    assert_int_equal(told_same(ask_with(e, 204, 4), alone[0]), 24);
    e->ops->adapter_drop(e, 4);
    assert_null(l->worn);
    assert_int_equal(llama_give(e, 5, &files[1], &err), 0);
    assert_true(llama_kinds[5] > llama_kinds[3]);
    assert_int_equal(told_same(ask_with(e, 205, 5), alone[1]), 24);
    e->ops->close(e);
    for (uint32_t i = 0; i < 3; i++)
        llama_model_done(&files[i]);
}

/* A sequence whose embedding is computed in the middle of a turn, when another's adapter is shown. */
static void test_embedding_in_a_turn(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama_model_file first = llama_tiny_adapter(3), second = llama_tiny_adapter(4);
    struct error err;
    memset(&record, 0, sizeof record);
    assert_int_equal(llama_give(e, 1, &first, &err), 0);
    assert_int_equal(llama_give(e, 2, &second, &err), 0);
    struct told *a = ask_with(e, 1, 1), *b = ask_with(e, 2, 2);
    const struct told *vector = embed_with(e, 3, 2);
    assert_int_equal(told_same(ask_with(e, 4, 1), a), 24); /* shown by the second */
    struct generation g = llama_prompt(prompt, 24);
    g.flags = GENERATION_IGNORE_END;
    g.adapter = 1;
    llama_must_submit(e, 5, 1, &g);
    assert_int_equal(llama_turn_of(e, &record, 2, 1), 1);
    generation_init(&g, GENERATION_EMBEDDING);
    g.prompt = str_from(prompt);
    g.adapter = 1; /* of the same turn; the embedder gets what the context shows by another */
    llama_must_submit(e, 6, 1, &g);
    assert_int_equal(llama_turn_of(e, &record, 0, 1), 0);
    assert_int_equal(told_same(recorder_of(&record, 5), a), 24);
    assert_int_equal(recorder_of(&record, 6)->n_values, TINY_EMBEDDING);
    assert_memory_not_equal(recorder_of(&record, 6)->values, vector->values, sizeof(float) * TINY_EMBEDDING);
    assert_int_equal(told_same(ask_with(e, 7, 2), b), 24);
    e->ops->close(e);
    llama_model_done(&first);
    llama_model_done(&second);
}

static void test_room(void **state)
{
    (void)state;
    struct engine *e = NULL;
    struct error err;
    struct tensor_signature s;
    struct llama_model_file file = llama_tiny_adapter(3);
    assert_int_equal(llama_fixture_open(&model, 1, 97 * MIB, &e, &err), 0);
    assert_int_equal(e->ops->describe(e, &s, &err), 0);
    assert_int_equal(s.token.adapter_bytes, MIB / 4);
    uint32_t fit = 0;
    while (llama_give(e, fit + 1, &file, &err) == 0)
        fit++;
    assert_int_equal(err.code, -ERROR_NO_MEMORY);
    assert_true(fit >= 1 && fit * file.size <= MIB / 4 && (fit + 1) * file.size > MIB / 4);
    e->ops->adapter_drop(e, 1);
    assert_int_equal(llama_give(e, 100, &file, &err), 0);
    e->ops->close(e);
    llama_model_done(&file);
}

/* Numbers that grow beyond all bounds: they end their own sequences, and what they leave in memory spoils nobody's. */
static void test_what_an_adapter_leaves(void **state)
{
    (void)state;
    struct engine *e = NULL;
    struct error err;
    struct buf b;
    buf_init(&b, MIB);
    tiny_build_adapter(&b, 3);
    float huge = 3e38f;
    /* The second half of the first layer's, so that the second layer has keys and values of them. */
    for (size_t at = b.size - 2 * TINY_ADAPTER_LAYER + TINY_ADAPTER_LAYER / 2; at < b.size - TINY_ADAPTER_LAYER;
         at += 4)
        memcpy(b.data + at, &huge, sizeof huge);
    struct llama_model_file bad = llama_model_write(b.data, b.size), good = llama_tiny_adapter(4);
    buf_done(&b);
    assert_int_equal(llama_fixture_open(&model, 1, 96 * MIB + 2 * 4 * 512 * 128, &e, &err), 0); /* 4 streams */
    memset(&record, 0, sizeof record);
    struct told *base = ask_with(e, 1, 0);
    assert_int_equal(llama_give(e, 1, &bad, &err), 0);
    assert_int_equal(llama_give(e, 2, &good, &err), 0);
    struct told *adapted = ask_with(e, 2, 2);
    for (uint32_t round = 0; round < 4; round++) {
        uint64_t first = 100 + 10 * round;
        char longer[8 * sizeof prompt] = ""; /* in more cells than what comes after it writes at once */
        for (uint32_t i = 0; i < 8; i++)
            memcpy(longer + i * (sizeof prompt - 1), prompt, sizeof prompt);
        struct generation g = llama_prompt(longer, 24);
        g.flags = GENERATION_IGNORE_END;
        g.adapter = 1;
        for (uint64_t id = first; id < first + 4; id++)
            llama_must_submit(e, id, 1, &g);
        (void)llama_turn_of(e, &record, 1 + round, 1);
        for (uint64_t id = first; id < first + 4; id++) {
            assert_int_equal(recorder_of(&record, id)->n_tokens, 0);
            e->ops->cancel(e, id);
        }
        if (round == 2) { /* the same number again, for another */
            e->ops->adapter_drop(e, 1);
            e->ops->adapter_drop(e, 2);
            assert_int_equal(llama_give(e, 1, &good, &err), 0);
        }
        uint32_t number = round == 2 ? 1 : 2;
        g.prompt = str_from(prompt);
        for (uint64_t id = first + 4; id < first + 8; id++) {
            g.adapter = id < first + 6 ? 0 : number;
            llama_must_submit(e, id, 2, &g);
        }
        for (int left = 1; left > 0;) {
            (void)llama_turn_of(e, &record, 2, 0);
            left = llama_turn_of(e, &record, 2, number);
        }
        for (uint64_t id = first + 4; id < first + 8; id++)
            assert_int_equal(told_same(recorder_of(&record, id), id < first + 6 ? base : adapted), 24);
        if (round == 2) {
            e->ops->adapter_drop(e, 0);
            assert_int_equal(llama_give(e, 1, &bad, &err), 0);
            assert_int_equal(llama_give(e, 2, &good, &err), 0);
        }
    }
    e->ops->close(e);
    llama_model_done(&bad);
    llama_model_done(&good);
}

/* --- the files --- */

static int scan(const void *data, size_t size, struct error *err)
{
    char *copy = malloc(size > 0 ? size : 1); /* so that a read beyond its end is seen */
    assert_non_null(copy);
    memcpy(copy, data, size);
    memset(err, 0, sizeof *err);
    int r = lora_scan((struct str){copy, size}, (struct str){model.data, model.size}, err);
    free(copy);
    assert_true(r == 0 || (r == -ERROR_REFUSED && err->code == r && err->text[0]));
    return r;
}

static void refused(const char *word)
{
    struct error err;
    assert_int_equal(scan(adapter.data, adapter.size, &err), -ERROR_REFUSED);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not say '%s'", err.text, word);
}

static void test_every_cut(void **state)
{
    (void)state;
    struct error err;
    fresh();
    assert_int_equal(scan(adapter.data, adapter.size, &err), 0);
    for (size_t size = 0; size < adapter.size; size += size < 1200 ? 1 : 31)
        assert_int_equal(scan(adapter.data, size, &err), -ERROR_REFUSED);
}

static void test_lies(void **state)
{
    (void)state;
    fresh();
    place("general.type")[12] = 4; /* a number where text belongs: the library would abort on it */
    refused("not text");
    fresh();
    buf_clear(&adapter);
    tiny_build_adapter_as(&adapter, 3, "lokr");
    refused("adapter.type");
    fresh();
    memcpy(place("general.architecture") + 20 + 4 + 8, "falco", 5);
    refused("general.architecture");
    fresh();
    place("blk.0.attn_q.weight.lora_a")[4] = '9';
    refused("pair");
    fresh();
    place("blk.0.attn_q.weight.lora_a")[25] = 'c';
    refused("pair");
    fresh();
    place("blk.0.attn_q.weight.lora_a")[4] = place("blk.0.attn_q.weight.lora_b")[4] = '9';
    refused("not in the model");
    fresh();
    memcpy(place("attn_q"), "attn_k", 6); /* of the tiny model half as wide */
    memcpy(place("attn_q"), "attn_k", 6);
    refused("dimensions");
}

/* Name, rank, two sides, then the type and the offset. */
static char *after_name(const char *name)
{
    return place(name) + strlen(name);
}

static void test_tensors(void **state)
{
    (void)state;
    const char *name = "blk.0.attn_q.weight.lora_a";
    fresh();
    after_name(name)[4 + 8] = TINY_RANK * 2;
    refused("dimensions");
    fresh();
    after_name(name)[4 + 16] = 26; /* I32 */
    refused("type");
    fresh();
    after_name(name)[4 + 16] = 12; /* Q4_K */
    refused("type");
    fresh();
    after_name("blk.1.ffn_up.weight.lora_b")[4 + 16 + 4 + 2] = 1; /* 64 KiB further on */
    refused("beyond");
    for (unsigned i = 0; i < 3; i++) {
        static const float bad[] = {INFINITY, -INFINITY, NAN};
        fresh();
        memcpy(adapter.data + adapter.size - 4 - 64 * i, &bad[i], sizeof bad[i]);
        refused("no numbers");
    }
    fresh();
    float alpha = NAN;
    memcpy(place("adapter.lora.alpha") + 18 + 4, &alpha, sizeof alpha);
    refused("alpha");
    fresh();
    place("adapter.lora.alpha")[18] = 4; /* of another type */
    refused("alpha");
}

/* Bits of the header changed, one at a time: refused or loaded, and where it is loaded it steps. */
static void test_every_bit(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    uint32_t n_loaded = 0;
    for (size_t at = 0; at < 1000; at += 3) {
        struct error err;
        fresh();
        adapter.data[at] = (char)(adapter.data[at] ^ 1 << (at % 8));
        struct llama_model_file file = llama_model_write(adapter.data, adapter.size);
        if (llama_give(e, 1, &file, &err) == 0) {
            memset(&record, 0, sizeof record);
            assert_int_equal(ask_with(e, 1, 1)->n_ends, 1);
            e->ops->adapter_drop(e, 1);
            n_loaded++;
        }
        llama_model_done(&file);
    }
    assert_true(n_loaded > 0);
    e->ops->close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_of_different_adapters),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_dropped_under_one_that_is_parked),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_one_in_anothers_place),
        cmocka_unit_test(test_embedding_in_a_turn),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_what_an_adapter_leaves),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_every_bit),
    };
    model = llama_tiny(1);
    buf_init(&adapter, MIB);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_done(&adapter);
    llama_model_done(&model);
    return failed;
}
