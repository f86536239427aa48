/* Chats on a tiny random model whose template the test writes: grammars make it say what makes sense. */
#include "engine/llama_library.h"
#include "llama_fixture.h"

static const char plain_template[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
static const char tool_template[] =
    "{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools>\n{% endif %}"
    "{%- for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n"
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"of a city\",\"parameters\":{\"type\":"
    "\"object\",\"properties\":{\"city\":{\"enum\":[\"Rome\",\"Oslo\"]}},\"required\":[\"city\"]}}}]";

static struct recorder record;

static struct told *told(uint64_t id)
{
    return recorder_of(&record, id);
}

static struct generation chat(const char *messages, uint32_t max_tokens)
{
    struct generation g;
    generation_init(&g, GENERATION_CHAT);
    g.prompt = str_from(messages);
    g.max_tokens = max_tokens;
    return g;
}

static void run(struct engine *e)
{
    assert_int_equal(llama_turn(e, &record, 0), 0);
}

static uint32_t flags(struct engine *e)
{
    static struct tensor_signature s;
    assert_int_equal(e->ops->describe(e, &s, NULL), 0);
    return s.token.flags;
}

static void test_template_makes_the_prompt(void **state)
{
    (void)state;
    struct llama_model_file model = llama_tiny_chat(1, plain_template);
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    assert_true(flags(e) & TENSOR_TOKEN_CHAT);
    struct generation g =
        chat("[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":\"Grüße\"}]", 30);
    struct generation same = llama_prompt("<system>be brief\n<user>Grüße\n<assistant>", 30);
    llama_must_submit(e, 1, 1, &g);
    llama_must_submit(e, 2, 1, &same);
    run(e);
    assert_int_equal(told(1)->status, 0);
    assert_int_equal(told(1)->prompt, told(2)->prompt);
    assert_int_equal(told(1)->n_tokens, told(2)->n_tokens);
    assert_memory_equal(told(1)->tokens, told(2)->tokens, told(2)->n_tokens * sizeof(int32_t));
    assert_int_equal(told(1)->text_size, told(2)->text_size);
    assert_memory_equal(told(1)->text, told(2)->text, told(2)->text_size);
    e->ops->close(e);
    llama_model_done(&model);
}

static void test_what_cannot_be_a_chat(void **state)
{
    (void)state;
    static char deep[3000];
    memset(deep, '[', sizeof deep - 1);
    const char *const bad[] = {"",
                               "no JSON",
                               "{}",
                               "[]x",
                               "[{\"content\":\"who?\"}]",
                               "[{\"role\":5}]",
                               deep,
                               "[{\"role\":\"user\",\"content\":{\"a\":1}}]"};
    struct llama_model_file model = llama_tiny_chat(1, plain_template), without = llama_tiny(1),
                            broken = llama_tiny_chat(1, "{% for m in messages %}{{ m.content");
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    uint64_t id = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct generation g = chat(bad[i], 5);
        llama_must_submit(e, ++id, 1, &g);
        run(e);
        if (told(id)->status != -ERROR_INVALID_REQUEST)
            fail_msg("'%.20s' is taken", bad[i]);
    }
    struct generation g = chat("[{\"role\":\"user\",\"content\":\"a\"}]", 5);
    g.tools = STR("{");
    llama_must_submit(e, ++id, 1, &g);
    g.tools = STR("");
    g.grammar_kind = GENERATION_JSON_SCHEMA;
    g.grammar = STR("{\"type\":\"no such type\"}");
    llama_must_submit(e, ++id, 1, &g);
    g.grammar = STR("{\"$ref\":\"#/nowhere\"}");
    llama_must_submit(e, ++id, 1, &g);
    run(e);
    for (uint64_t i = id - 2; i <= id; i++)
        assert_int_equal(told(i)->status, -ERROR_INVALID_REQUEST);
    e->ops->close(e);
    struct engine *none = llama_must_open(&without), *bad_template = llama_must_open(&broken);
    assert_int_equal(flags(none) & TENSOR_TOKEN_CHAT, 0);
    assert_int_equal(flags(bad_template) & TENSOR_TOKEN_CHAT, 0);
    g = chat("[{\"role\":\"user\",\"content\":\"a\"}]", 5);
    llama_must_submit(none, 100, 1, &g);
    run(none);
    assert_int_equal(told(100)->status, -ERROR_INVALID_REQUEST);
    none->ops->close(none);
    bad_template->ops->close(bad_template);
    llama_model_done(&model);
    llama_model_done(&without);
    llama_model_done(&broken);
}

/* n times a character between two texts; for the caller to free. */
static struct str filled(const char *before, char c, size_t n, const char *after)
{
    struct buf b;
    buf_init(&b, MIB);
    buf_append_text(&b, before);
    char *space = buf_reserve(&b, n);
    assert_non_null(space);
    memset(space, c, n);
    buf_commit(&b, n);
    buf_append_text(&b, after);
    assert_int_equal(b.failed, 0);
    return (struct str){b.data, b.size};
}

/* Conversations, tools and a template that its code would recurse over, or work on, without end. */
static void test_hostile_chats(void **state)
{
    (void)state;
    static const char endless[] = "{% if messages[0].content == 'endless' %}{% for i in range(1000000) %}{% for k in "
                                  "range(1000000) %}{{ k }}{% endfor %}{% endfor %}{% endif %}<assistant>";
    struct llama_model_file model = llama_tiny_chat(1, tool_template), loops = llama_tiny_chat(1, endless);
    struct engine *e = llama_must_open(&model), *looping = llama_must_open(&loops);
    memset(&record, 0, sizeof record);
    struct str all[] = {
        filled("[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
               "\"function\":{\"name\":\"weather\",\"arguments\":\"{\\\"a\\\":",
               '[', 6000, "\"}}]},{\"role\":\"user\",\"content\":\"a\"}]"),
        filled("[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":\"object\","
               "\"properties\":{\"",
               '!', 100000, "\":{\"type\":\"integer\"}}}}}]"),
        filled("[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"parameters\":{\"type\":\"object\","
               "\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^",
               '(', 100000, "$\"}}}}}]"),
    };
    struct generation neighbour = chat("[{\"role\":\"user\",\"content\":\"a\"}]", 30), g = neighbour;
    neighbour.flags = GENERATION_IGNORE_END;
    llama_must_submit(e, 100, 2, &neighbour);
    g.prompt = all[0];
    llama_must_submit(e, 1, 1, &g);
    g.prompt = neighbour.prompt;
    for (uint64_t i = 1; i < sizeof all / sizeof all[0]; i++) {
        g.tools = all[i];
        llama_must_submit(e, 1 + i, 1, &g);
    }
    run(e);
    for (uint64_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (told(1 + i)->status != -ERROR_INVALID_REQUEST)
            fail_msg("%u is taken", (unsigned)i);
        free((void *)(uintptr_t)all[i].data);
    }
    assert_int_equal(told(100)->n_tokens, 30);
    g = chat("[{\"role\":\"user\",\"content\":\"endless\"}]", 5);
    llama_must_submit(looping, 200, 1, &g);
    llama_must_submit(looping, 201, 2, &neighbour);
    run(looping);
    assert_int_equal(told(200)->status, -ERROR_INVALID_REQUEST);
    assert_non_null(strstr(told(200)->error, "too long"));
    assert_int_equal(told(201)->n_tokens, 30);
    e->ops->close(e);
    looping->ops->close(looping);
    llama_model_done(&model);
    llama_model_done(&loops);
}

/* Templates that call themselves, or whose expressions the library would walk deeper than the stack. */
static void test_deep_templates(void **state)
{
    (void)state;
    static const char recursive[] =
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{% macro g() %}{% call g() %}x{% endcall %}{% endmacro %}"
        "{% for m in messages %}{% if m.content == 'macro' %}{{ f(1) }}{% elif m.content == 'call' %}{{ g() }}"
        "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}<assistant>";
    struct llama_model_file model = llama_tiny_chat(1, recursive);
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    assert_true(flags(e) & TENSOR_TOKEN_CHAT);
    struct generation deep = chat("[{\"role\":\"user\",\"content\":\"macro\"}]", 5),
                      called = chat("[{\"role\":\"user\",\"content\":\"call\"}]", 5),
                      good = chat("[{\"role\":\"user\",\"content\":\"hi\"}]", 5);
    llama_must_submit(e, 1, 1, &deep);
    llama_must_submit(e, 2, 1, &called);
    llama_must_submit(e, 3, 1, &good);
    run(e);
    assert_int_equal(told(1)->status, -ERROR_INVALID_REQUEST);
    assert_int_equal(told(2)->status, -ERROR_INVALID_REQUEST);
    assert_int_equal(told(3)->status, 0);
    e->ops->close(e);
    llama_model_done(&model);
    /* those that are run into when the model is opened have no chat, but all else */
    struct str always[] = {filled("<assistant>{{ ", '(', 100000, "1"), filled("<assistant>{{ ", '-', 100000, "1 }}"),
                           filled("<assistant>{{ a", '!', 1100, " }}"), filled("<assistant>{{ ", '[', 65, " }}")};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        char *text = strndup(always[i].data, always[i].size);
        assert_non_null(text);
        model = llama_tiny_chat(1, text);
        e = llama_must_open(&model);
        assert_int_equal(flags(e) & (TENSOR_TOKEN_CHAT | TENSOR_TOKEN_ANSWER), TENSOR_TOKEN_ANSWER);
        e->ops->close(e);
        llama_model_done(&model);
        free(text);
        free((void *)(uintptr_t)always[i].data);
    }
}

static void test_schemas(void **state)
{
    (void)state;
    struct llama_model_file model = llama_tiny_chat(1, plain_template);
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    struct generation g = chat("[{\"role\":\"user\",\"content\":\"a\"}]", 60), plain = llama_prompt("Hello", 60);
    g.grammar_kind = plain.grammar_kind = GENERATION_JSON_SCHEMA;
    g.grammar = plain.grammar = STR("{\"type\":\"object\",\"properties\":{\"c\":{\"enum\":[\"red\",\"green\"]}},"
                                    "\"required\":[\"c\"],\"additionalProperties\":false}");
    llama_must_submit(e, 1, 1, &g);
    llama_must_submit(e, 2, 1, &plain);
    run(e);
    for (uint64_t id = 1; id <= 2; id++) {
        const struct told *t = told(id);
        assert_int_equal(t->status, 0);
        assert_int_equal(t->finish, GENERATION_STOP);
        assert_true(memmem(t->text, t->text_size, "red", 3) || memmem(t->text, t->text_size, "green", 5));
        if (t->text[0] != '{')
            fail_msg("'%.*s'", (int)t->text_size, t->text);
    }
    e->ops->close(e);
    llama_model_done(&model);
}

static void test_grammars(void **state)
{
    (void)state;
    struct llama_model_file model = llama_tiny_chat(1, plain_template);
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    struct generation g = chat("[{\"role\":\"user\",\"content\":\"a\"}]", 60);
    g.grammar_kind = GENERATION_GBNF;
    g.grammar = STR("root ::= \"this and nothing else\"");
    llama_must_submit(e, 1, 1, &g);
    g.grammar = STR("root ::= nothing");
    llama_must_submit(e, 2, 1, &g);
    run(e);
    assert_int_equal(told(1)->status, 0);
    assert_int_equal(told(1)->finish, GENERATION_STOP);
    assert_int_equal(told(1)->text_size, strlen("this and nothing else"));
    assert_memory_equal(told(1)->text, "this and nothing else", told(1)->text_size);
    assert_int_equal(told(2)->status, -ERROR_INVALID_REQUEST);
    e->ops->close(e);
    llama_model_done(&model);
}

/* llama.cpp's own grammar lets a fence of backquotes around the answer in: pushed towards it, and cut off. */
static void test_no_fence_around_json(void **state)
{
    (void)state;
    struct llama_model_file model = llama_tiny_chat(1, plain_template);
    struct engine *e = llama_must_open(&model);
    memset(&record, 0, sizeof record);
    struct generation cut = llama_prompt("`", 1);
    cut.kind = GENERATION_TOKENIZE;
    cut.flags |= GENERATION_NO_SPECIAL;
    llama_must_submit(e, 1, 1, &cut);
    run(e);
    struct generation_bias bias = {.token = told(1)->tokens[told(1)->n_tokens - 1], .bias = 100};
    const char *const schemas[] = {"{}", "{\"type\":\"object\"}",
                                   "{\"type\":\"object\",\"properties\":{\"c\":{\"enum\":[1]}}}"};
    uint64_t id = 1;
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++)
        for (uint32_t max = 1; max <= 4; max++) {
            struct generation g = chat("[{\"role\":\"user\",\"content\":\"a\"}]", max);
            g.grammar_kind = GENERATION_JSON_SCHEMA;
            g.grammar = str_from(schemas[i]);
            g.biases = &bias;
            g.n_biases = 1;
            llama_must_submit(e, ++id, 1, &g);
            run(e);
            const struct told *t = told(id);
            assert_int_equal(t->status, 0);
            size_t space = 0;
            while (space < t->text_size && strchr(" \t\n", t->text[space]))
                space++;
            if (space < t->text_size && t->text[space] != '{')
                fail_msg("'%.*s'", (int)t->text_size, t->text);
        }
    e->ops->close(e);
    llama_model_done(&model);
}

/* --- what an answer means; a random model makes no tool call, so the answers are given --- */

struct meaning {
    char text[200], reasoning[200], arguments[2][200], name[2][64], id[2][64];
    uint32_t n_calls;
    bool enough;
};

static bool on_part(void *ctx, enum llama_chat_part part, uint32_t index, const char *id, const char *name,
                    const char *text, size_t size)
{
    struct meaning *m = ctx;
    assert_true(part != LLAMA_CHAT_TOOL || index < 2);
    char *to = part == LLAMA_CHAT_TEXT ? m->text : part == LLAMA_CHAT_REASONING ? m->reasoning : m->arguments[index];
    assert_true(strlen(to) + size < 200);
    (void)snprintf(to + strlen(to), 200 - strlen(to), "%.*s", (int)size, text);
    if (part == LLAMA_CHAT_TOOL && name[0]) {
        assert_int_equal(index, m->n_calls);
        m->n_calls++;
        (void)snprintf(m->name[index], sizeof m->name[index], "%s", name);
        (void)snprintf(m->id[index], sizeof m->id[index], "%s", id);
    }
    return true;
}

static void id_make(char *id)
{
    memcpy(id, "call_x", 7);
}

static struct meaning understand(const struct llama_library *api, const struct llama_templates *templates,
                                 const char *answer, size_t step, bool one_call)
{
    static const char messages[] = "[{\"role\":\"user\",\"content\":\"rain?\"}]";
    char error[LLAMA_COMMON_ERROR_BYTES];
    const char *prompt;
    size_t prompt_size;
    struct llama_chat_request request = {.messages = messages,
                                         .messages_size = sizeof messages - 1,
                                         .tools = tools,
                                         .tools_size = sizeof tools - 1,
                                         .tool_choice = "auto",
                                         .tool_choice_size = 4,
                                         .one_call = one_call};
    struct llama_chat *c = api->llama_chat_open(templates, &request, &prompt, &prompt_size, error);
    if (!c)
        fail_msg("%s", error);
    assert_non_null(memmem(prompt, prompt_size, "weather", 7));
    struct meaning m = {.n_calls = 0};
    struct llama_chat_sink sink = {.ctx = &m, .part = on_part, .id_make = id_make};
    size_t size = strlen(answer);
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        assert_true(api->llama_chat_add(c, answer + at, n, at + n == size, &sink));
    }
    m.enough = api->llama_chat_enough(c);
    assert_int_equal(api->llama_chat_calls(c), m.n_calls + m.enough);
    api->llama_chat_close(c);
    return m;
}

static void test_tools(void **state)
{
    (void)state;
    static const char call[] =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
    static const char two[] =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>\n"
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";
    struct llama_model_file file = llama_tiny_chat(1, tool_template);
    struct engine *e = llama_must_open(&file);
    assert_true(flags(e) & TENSOR_TOKEN_TOOLS);
    e->ops->close(e);
    struct engine_options options = {.library_fd = llama_fixture_library()};
    const struct llama_library *api;
    assert_int_equal(llama_library_open(&options, &api, NULL), 0);
    FILE *stream = fdopen(dup(file.fd), "rb");
    rewind(stream);
    struct llama_model *model = api->llama_model_load_from_file_ptr(stream, api->llama_model_default_params());
    assert_non_null(model);
    bool knows_tools;
    struct llama_templates *templates = api->llama_templates_open(model, &knows_tools);
    assert_true(templates && knows_tools);
    for (size_t step = 1; step < 100; step += step < 10 ? 1 : 13) {
        struct meaning m = understand(api, templates, call, step, false);
        assert_int_equal(m.n_calls, 1);
        assert_string_equal(m.name[0], "weather");
        assert_string_equal(m.id[0], "call_x");
        assert_non_null(strstr(m.arguments[0], "\"Rome\""));
        assert_int_equal(m.arguments[0][strlen(m.arguments[0]) - 1], '}');
        m = understand(api, templates, two, step, false);
        assert_int_equal(m.n_calls, 2);
        assert_false(m.enough);
        m = understand(api, templates, two, step, true);
        assert_int_equal(m.n_calls, 1);
        assert_true(m.enough && strstr(m.arguments[0], "\"Rome\"") && !strstr(m.arguments[0], "Oslo"));
        m = understand(api, templates, call, step, true);
        assert_true(m.n_calls == 1 && !m.enough);
        m = understand(api, templates, "It will not rain.", step, false);
        assert_int_equal(m.n_calls, 0);
        assert_string_equal(m.text, "It will not rain.");
        (void)understand(api, templates, "<tool_call>\n{\"name\": \"weather\", \"argum", step, false); /* cut off */
        (void)understand(api, templates, "<tool_call>{{{{]]]", step, false);
    }
    api->llama_templates_close(templates);
    api->llama_model_free(model);
    (void)fclose(stream);
    llama_model_done(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_makes_the_prompt),
        cmocka_unit_test(test_what_cannot_be_a_chat),
        cmocka_unit_test(test_hostile_chats),
        cmocka_unit_test(test_deep_templates),
        cmocka_unit_test(test_schemas),
        cmocka_unit_test(test_grammars),
        cmocka_unit_test(test_no_fence_around_json),
        cmocka_unit_test(test_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
