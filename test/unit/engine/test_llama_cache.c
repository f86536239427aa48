/* What is kept of a tenant's prompts, who finds it, and that nobody else does. */
#include "engine/llama_internal.h"
#include "llama_fixture.h"

#include <math.h>

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

/* So much that there are n streams of 512 cells: 2 layers × 2 heads × 16 numbers × 2 bytes a token. */
static struct engine *open_streams(uint32_t n)
{
    struct engine *e = NULL;
    struct error err;
    static struct tensor_signature s;
    if (llama_fixture_open(&model, 1, 96 * MIB + 2 * (uint64_t)n * 512 * 128, &e, &err) < 0)
        fail_msg("open: %s", err.text);
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    assert_int_equal(s.token.sequences, n);
    assert_int_equal(s.token.cells, n * 512);
    assert_int_equal(s.token.context, TINY_CONTEXT);
    return e;
}

/* The copy of the weights is in the plan: there is less room for cells. */
static void test_repack_is_planned(void **state)
{
    (void)state;
    struct tensor_signature s;
    struct engine *e = NULL;
    struct error err = {0};
    uint64_t memory = 96 * MIB + 2 * (uint64_t)8 * 512 * 128;
    struct engine_options options = {.model = model.data,
                                     .model_bytes = model.size,
                                     .model_fd = model.fd,
                                     .library_fd = llama_fixture_library(),
                                     .threads = 1,
                                     .repack = true,
                                     .memory_bytes = memory};
    if (engine_llama.open(&options, &e, &err) < 0)
        fail_msg("open: %s", err.text);
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    assert_in_range(s.token.cells, 256, 8 * 512 - model.size / 2 / 128);
    fresh();
    assert_int_equal(ask(e, 1, 5, "the abacus", 0)->n_tokens, 4);
    e->ops->close(e);
    options.memory_bytes = 96 * MIB + model.size;
    assert_int_equal(engine_llama.open(&options, &e, &err), -ERROR_REFUSED);
    assert_non_null(strstr(err.text, "spec.resources.memory"));
}

/* One tenant that fills the cache takes nothing from another that stays within its share. */
static void test_shares(void **state)
{
    (void)state;
    struct engine *e = open_streams(8);
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

/* What a prompt shares with a longer one stays for the next, also when all streams have a prefix. */
static void test_branches(void **state)
{
    (void)state;
    struct engine *e = open_streams(8);
    fresh();
    char text[300];
    uint32_t prompt = 0;
    for (uint64_t id = 1; id <= 40; id++) {
        (void)snprintf(text, sizeof text, "%sQuestion %u", shared_prompt, (unsigned)(id * 7919 % 1000));
        struct told *t = ask(e, id, 5, text, 0);
        assert_true(id == 1 || t->cached >= prompt - 12);
        prompt = t->prompt;
        struct told *without = ask(e, 1000 + id, 5, text, GENERATION_NO_CACHE);
        assert_memory_equal(t->tokens, without->tokens, 4 * sizeof(int32_t));
        memset(&record, 0, sizeof record);
    }
    /* An answer that goes on as a conversation. */
    (void)snprintf(text, sizeof text, "%sQuestion", shared_prompt);
    for (uint64_t id = 101; id <= 106; id++) {
        struct told *t = ask(e, id, 6, text, 0);
        assert_true(id == 101 || t->cached >= prompt);
        prompt = t->prompt;
        memcpy(text + strlen(text), " Again.", sizeof " Again.");
    }
    e->ops->close(e);
}

/* As many as there are streams, some with prefixes of others' in the way, and no more; and they answer as if alone. */
static void test_all_streams(void **state)
{
    (void)state;
    struct engine *e = open_streams(8);
    fresh();
    char text[64];
    for (uint64_t id = 100; id < 106; id++) {
        (void)snprintf(text, sizeof text, "what tenant %u once asked, at length", (unsigned)id);
        (void)ask(e, id, id, text, 0);
    }
    struct generation g = llama_prompt("the abacus", 200);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS;
    g.n_top_logprobs = 2;
    for (uint64_t id = 1; id <= 8; id++) {
        g.cache_secret[0] = id % 3;
        llama_must_submit(e, id, id % 3, &g);
    }
    struct error err = {0};
    assert_int_equal(e->ops->token_submit(e, 9, 1, &g, &err), -ERROR_AGAIN);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint64_t id = 1; id <= 8; id++) {
        struct told *t = recorder_of(&record, id);
        assert_int_equal(t->n_ends, 1);
        assert_int_equal(t->finish, GENERATION_LENGTH);
        assert_int_equal(t->n_tokens, 200);
        (void)told_same(t, recorder_of(&record, 1));
    }
    e->ops->close(e);
}

/* Sequences come and go so that gaps are between those that run, and prompts of any length: each as alone. */
static void test_gaps(void **state)
{
    (void)state;
    static char text[400];
    struct engine *e = open_streams(8);
    uint64_t random = 3;
    uint32_t n[8] = {0};
    fresh();
    memset(text, 'q', sizeof text);
    for (uint64_t id = 1; id <= 40; id++) {
        uint32_t i = (uint32_t)id % 8;
        struct generation g = llama_prompt("the abacus", 12 + (uint32_t)(fabsf(tiny_random(&random)) * 40));
        g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS;
        g.n_top_logprobs = 2;
        g.cache_secret[0] = id % 2;
        if (id % 5 == 0) {
            g.prompt = (struct str){text, 20 + (size_t)(fabsf(tiny_random(&random)) * 360)};
            g.max_tokens = 2;
        }
        if (n[i] > 0)
            e->ops->cancel(e, n[i]);
        n[i] = (uint32_t)id;
        llama_must_submit(e, id, 1, &g);
        (void)llama_turn(e, &record, 1 + (uint32_t)id % 3);
        if (id % 7 == 0)
            (void)e->ops->park(e, id, NULL); /* it may be over */
    }
    (void)llama_turn(e, &record, 0);
    struct generation g = llama_prompt("the abacus", 60);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS;
    g.n_top_logprobs = 2;
    e->ops->cancel(e, 0);
    llama_must_submit(e, 100, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint64_t id = 1; id <= 40; id++)
        if (id % 5 != 0)
            (void)told_same(recorder_of(&record, id), recorder_of(&record, 100));
    e->ops->close(e);
}

static struct llama_library counting;
static const struct llama_library *counted;
static uint32_t n_calls[LLAMA_SEQUENCES + 1]; /* of one token each of so many */

static int32_t count_decode(struct llama_context *context, struct llama_batch batch)
{
    bool each = batch.n_tokens <= (int32_t)LLAMA_SEQUENCES;
    for (int32_t i = 1; i < batch.n_tokens && each; i++)
        each = batch.seq_id[i][0] != batch.seq_id[i - 1][0];
    n_calls[each ? batch.n_tokens : 0]++;
    return counted->llama_decode(context, batch);
}

/* Where whole blocks of tokens are cheaper: from 12 to 16 that generate it is one call of 16, with streams of others,
 * of prompts and of nobody in between, and each is as alone. */
static void test_blocks(void **state)
{
    (void)state;
    struct engine *e = open_streams(20);
    struct llama *l = llama_of(e);
    l->block = 16;
    l->fills_gaps = false;
    fresh();
    struct generation g = llama_prompt("the abacus", 100);
    g.flags = GENERATION_IGNORE_END | GENERATION_LOGPROBS;
    g.n_top_logprobs = 2;
    llama_must_submit(e, 100, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint64_t id = 1; id <= 20; id++) {
        g.max_tokens = 40 + (uint32_t)(id * 7 % 20) * 3;
        g.cache_secret[0] = id % 2;
        llama_must_submit(e, id, 1, &g);
    }
    counted = l->api;
    counting = *counted;
    counting.llama_decode = count_decode;
    l->api = &counting;
    uint32_t n_filled = 0, left = 20;
    for (uint32_t before = n_calls[16]; left > 0; before = n_calls[16]) {
        uint32_t n = left;
        left = (uint32_t)llama_turn(e, &record, 1);
        assert_true(n >= 12 || n_calls[16] == before);
        n_filled += n < 16 && n_calls[16] > before;
    }
    for (uint32_t n = 12; n < 16; n++)
        assert_int_equal(n_calls[n], 0);
    assert_true(n_filled > 0);
    for (uint64_t id = 1; id <= 20; id++) {
        assert_int_equal(recorder_of(&record, id)->n_tokens, 40 + id * 7 % 20 * 3);
        (void)told_same(recorder_of(&record, id), recorder_of(&record, 100));
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

/* n times one text between two others. */
static struct str repeated(const char *before, const char *text, uint32_t n, const char *after)
{
    struct buf b;
    buf_init(&b, 4 * MIB);
    buf_append_text(&b, before);
    for (uint32_t i = 0; i < n; i++)
        buf_append_text(&b, text);
    buf_append_text(&b, after);
    assert_int_equal(b.failed, 0);
    return (struct str){b.data, b.size};
}

/* Rules that lead to the next one twice. */
static struct str rules(const char *between)
{
    struct buf b;
    buf_init(&b, 64 * KIB);
    for (int i = 0; i < 40; i++)
        buf_format(&b, "r%d ::= r%d %s r%d\n", i, i + 1, between, i + 1);
    buf_append_text(&b, "r40 ::= \"a\" | \"\"\nroot ::= r0\n");
    return (struct str){b.data, b.size};
}

static struct str optional_members(uint32_t n)
{
    struct buf b;
    buf_init(&b, 64 * KIB);
    buf_append_text(&b, "{\"type\":\"object\",\"properties\":{");
    for (uint32_t i = 0; i < n; i++)
        buf_format(&b, "%s\"k%u\":{\"type\":\"integer\"}", i > 0 ? "," : "", i);
    buf_append_text(&b, "}}");
    return (struct str){b.data, b.size};
}

/* Each of these once overflowed the stack or went on for longer than a worker lives. A neighbour's answer goes on. */
static void test_hostile_grammars(void **state)
{
    (void)state;
    const struct {
        enum generation_grammar kind;
        struct str text;
        bool refused; /* at once; else it may answer */
    } hostile[] = {
        {GENERATION_GBNF, repeated("root ::= ", "(", 30000, "\"a\""), true},
        {GENERATION_GBNF, repeated("root ::= ", "(\"a\" | \"b\")? ", 4000, ""), true},
        {GENERATION_GBNF, repeated("root ::= ", "a? ", 20000, "\na ::= \"x\""), true},
        {GENERATION_GBNF, repeated("root ::= [", "a-z", 20000, "]"), true},
        {GENERATION_GBNF, repeated("root ::= \"a\" # ", "(", 30000, "\n"), false},
        {GENERATION_GBNF, repeated("root ::= \"a\" | \"", "(", 30000, "\""), false},
        {GENERATION_GBNF, rules(""), true},
        {GENERATION_GBNF, rules("|"), true},
        {GENERATION_GBNF,
         repeated("root ::= [^\\x00] root \"b\" | [^\\x00] root \"c\" | [^\\x00] root \"d\"", "", 0, ""), false},
        {GENERATION_JSON_SCHEMA, repeated("{\"properties\":{\"", "!", 30000, "\":{\"type\":\"integer\"}}}"), true},
        {GENERATION_JSON_SCHEMA, repeated("{\"$ref\":\"#/definitions/", "!", 30000, "\"}"), true},
        {GENERATION_JSON_SCHEMA, repeated("{\"type\":\"string\",\"pattern\":\"^", "(", 60000, "$\"}"), true},
        {GENERATION_JSON_SCHEMA, repeated("{\"type\":\"string\",\"pattern\":\"^", "a?", 2000, "$\"}"), true},
        {GENERATION_JSON_SCHEMA, repeated("{\"not\":", "[", 65, "]"), true},
        {GENERATION_JSON_SCHEMA, optional_members(1500), true},
    };
    enum { N = sizeof hostile / sizeof hostile[0] };
    struct engine *e = llama_must_open(&model);
    fresh();
    struct generation g = llama_prompt("Hello", 60), neighbour = llama_prompt("Good day", 60);
    neighbour.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 100, 2, &neighbour);
    for (uint32_t i = 0; i < N; i++) {
        g.grammar_kind = hostile[i].kind;
        g.grammar = hostile[i].text;
        llama_must_submit(e, 1 + i, 1, &g);
    }
    assert_int_equal(llama_turn(e, &record, 0), 0);
    for (uint32_t i = 0; i < N; i++) {
        const struct told *t = recorder_of(&record, 1 + i);
        assert_int_equal(t->n_ends, 1);
        if (hostile[i].refused && t->status != -ERROR_INVALID_REQUEST)
            fail_msg("grammar %u was not refused", i);
        assert_true(t->status == 0 || t->status == -ERROR_INVALID_REQUEST);
        free((void *)(uintptr_t)hostile[i].text.data);
    }
    const struct told *t = recorder_of(&record, 100);
    assert_int_equal(t->status, 0);
    assert_int_equal(t->n_tokens, 60);
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

/* --- the cells' memory --- */

/* Bytes of all cells in pages that are there. */
static size_t resident(const struct llama *l, size_t *ret_all)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), there = 0;
    *ret_all = 0;
    for (uint32_t i = 0; i < l->n_cells; i++) {
        size_t size = l->cells[i].stream_bytes * l->token.sequences;
        char *first = (char *)l->cells[i].data - (uintptr_t)l->cells[i].data % page;
        for (char *at = first; at < (char *)l->cells[i].data + size; at += page) {
            unsigned char known;
            assert_int_equal(mincore(at, page, &known), 0);
            there += (known & 1) * page;
        }
        *ret_all += size;
    }
    return there;
}

static size_t nonzero(const struct llama *l, uint32_t id)
{
    size_t n = 0;
    for (uint32_t i = 0; i < l->n_cells; i++)
        for (size_t k = 0; k < l->cells[i].stream_bytes; k++)
            n += ((const char *)l->cells[i].data)[id * l->cells[i].stream_bytes + k] != 0;
    return n;
}

static void test_pages_come_with_use(void **state)
{
    (void)state;
    struct engine *e = llama_must_open(&model);
    struct llama *l = (struct llama *)(void *)e;
    size_t all, before = resident(l, &all);
    fresh();
    assert_true(l->cells_known && l->n_cells == 2 * TINY_LAYERS && l->token.sequences >= 8);
    assert_int_equal(all, l->token.cells * TINY_LAYERS * 2 * TINY_EMBEDDING / TINY_HEADS * TINY_KV_HEADS * 2);
    assert_true(before <= all / 2); /* the tiny model's streams share pages with their neighbours */
    (void)ask(e, 1, 0, shared_prompt, 0);
    size_t after = resident(l, &all);
    assert_true(after > before && after - before <= all / l->token.sequences + 2 * TINY_LAYERS * 4096);
    for (uint32_t id = 1; id < l->token.sequences; id++)
        assert_int_equal(nonzero(l, id), 0);
    /* Two at once are in the first two streams; what they leave there goes for one of them only. */
    struct generation g = llama_prompt(shared_prompt, 4);
    llama_must_submit(e, 2, 1, &g);
    llama_must_submit(e, 3, 1, &g);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    size_t second = nonzero(l, 1);
    assert_true(nonzero(l, 0) > 0 && second > 0);
    assert_true(llama_cells_zero(l, 0));
    assert_int_equal(nonzero(l, 0), 0);
    assert_int_equal(nonzero(l, 1), second);
    e->ops->close(e);
}

/* A prefix that makes room for another tenant's sequence takes nothing with it that it does not use. */
static void test_a_moved_prefix_is_its_cells(void **state)
{
    (void)state;
    struct engine *e = open_streams(8);
    struct llama *l = (struct llama *)(void *)e;
    static const uint16_t mark = 0x3C00; /* in the last cell of a stream */
    fresh();
    struct told *first = ask(e, 1, 5, shared_prompt, 0);
    uint32_t from = 0, to = 0;
    while (from < 8 && l->streams[from].secret[0] != 5)
        from++;
    assert_true(from < 8 && l->cells_known && !l->windowed);
    size_t last = l->cells[0].stream_bytes - sizeof mark;
    char *cells = l->cells[0].data;
    memcpy(cells + from * l->cells[0].stream_bytes + last, &mark, sizeof mark);
    (void)ask(e, 2, 6, shared_prompt, GENERATION_NO_CACHE); /* in the first stream */
    while (to < 8 && l->streams[to].secret[0] != 5)
        to++;
    assert_true(to < 8 && to != from && nonzero(l, to) > 0);
    assert_int_equal(cells[to * l->cells[0].stream_bytes + last + 1], 0);
    struct told *again = ask(e, 3, 5, shared_prompt, 0);
    assert_true(again->cached > 0);
    assert_memory_equal(again->tokens, first->tokens, 4 * sizeof(int32_t));
    e->ops->close(e);
}

static void rest(struct engine *e)
{
    while (e->ops->rest(e))
        ;
    assert_false(e->ops->rest(e));
}

/* What rests takes no cells, and is there again when it is wanted: in its place, beside others, from another place. */
static void test_rest(void **state)
{
    (void)state;
    struct engine *e = open_streams(8);
    struct llama *l = (struct llama *)(void *)e;
    char longer[600];
    (void)snprintf(longer, sizeof longer, "%s And so on, without an end.", shared_prompt);
    fresh();
    rest(e);
    struct told *first = ask(e, 1, 5, shared_prompt, 0), *more = ask(e, 2, 0, longer, 0);
    /* One that is under way keeps its cells. */
    struct generation g = llama_prompt(longer, 30);
    g.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 3, 1, &g);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(llama_turn(e, &record, 1), 1);
    rest(e);
    size_t there = 0;
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(l->streams[i].owner || nonzero(l, i) == 0);
        there += nonzero(l, i) > 0;
    }
    assert_int_equal(there, 1);
    assert_int_equal(llama_turn(e, &record, 0), 0);
    struct told *again = ask(e, 4, 5, shared_prompt, 0);
    assert_true(again->cached > 0);
    assert_memory_equal(again->tokens, first->tokens, 4 * sizeof(int32_t));
    assert_memory_equal(recorder_of(&record, 3)->tokens, more->tokens, 4 * sizeof(int32_t));
    for (uint64_t round = 0; round < 8; round++) { /* others take its place, it is copied, it goes on in its own */
        rest(e);
        for (uint64_t k = 0; k < round; k++)
            (void)ask(e, 100 + 10 * round + k, 6 + k % 2, longer, k % 3 == 0 ? GENERATION_NO_CACHE : 0);
        again = ask(e, 200 + round, 5, round % 2 ? longer : shared_prompt, 0);
        assert_true(again->cached > 0);
        assert_memory_equal(again->tokens, (round % 2 ? more : first)->tokens, 4 * sizeof(int32_t));
    }
    /* Of eight streams four may be another's prefixes; all that rest go with the engine. */
    rest(e);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(nonzero(l, i), 0);
    e->ops->close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_prefix_is_found),
        cmocka_unit_test(test_nobody_elses_is),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_repack_is_planned),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_all_streams),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_cancel_at_every_step),
        cmocka_unit_test(test_turns_of_a_tenant),
        cmocka_unit_test(test_grammars),
        cmocka_unit_test(test_hostile_grammars),
        cmocka_unit_test(test_pages_come_with_use),
        cmocka_unit_test(test_a_moved_prefix_is_its_cells),
        cmocka_unit_test(test_rest),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
