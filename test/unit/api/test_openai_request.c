/* Requests of the OpenAI API: what is taken, and how each refusal names its cause. */
#include "api/serve/openai_codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <yyjson.h>

static struct arena arena;
static struct openai_request request;
static struct openai_error error;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 4 * MIB);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static bool decode(enum openai_kind kind, const char *body)
{
    arena_reset(&arena);
    error = (struct openai_error){0};
    return openai_request_decode(kind, str_from(body), &arena, &request, &error);
}

static void good(enum openai_kind kind, const char *body)
{
    if (!decode(kind, body))
        fail_msg("%s refused: %s", body, error.message);
    /* what comes of it is a generation that the worker would take */
    static char bytes[MIB];
    for (uint32_t i = 0; i < request.n * request.n_prompts && i < 4; i++) {
        struct generation g, back;
        struct error err = {0};
        openai_generation(&request, i, 4096, &g);
        size_t size = generation_size(&g);
        assert_true(size <= sizeof bytes);
        if (generation_encode(&g, bytes, sizeof bytes, &err) < 0 || generation_decode(bytes, size, &back, &err) < 0)
            fail_msg("%s: %s", body, err.text);
    }
}

struct refusal {
    enum openai_kind kind;
    const char *body;
    const char *param; /* "" : null */
    const char *name;  /* NULL: null */
    const char *text;  /* a part of the message */
};

static void refused(const struct refusal *row)
{
    if (decode(row->kind, row->body))
        fail_msg("%s was taken", row->body);
    if (strcmp(error.param, row->param) != 0)
        fail_msg("%s: param %s, not %s (%s)", row->body, error.param, row->param, error.message);
    if (!error.name != !row->name || (row->name && strcmp(error.name, row->name) != 0))
        fail_msg("%s: code %s, not %s", row->body, error.name ? error.name : "null", row->name ? row->name : "null");
    if (!strstr(error.message, row->text))
        fail_msg("%s: \"%s\" does not say \"%s\"", row->body, error.message, row->text);
    assert_true(error.code < 0);
    _buf_ struct buf b;
    buf_init(&b, 4 * KIB);
    openai_error_encode(&error, &b);
    yyjson_doc *doc = yyjson_read(b.data, b.size, 0);
    assert_non_null(doc);
    yyjson_val *e = yyjson_obj_get(yyjson_doc_get_root(doc), "error");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(e, "message")), error.message);
    assert_non_null(yyjson_obj_get(e, "type"));
    assert_non_null(yyjson_obj_get(e, "param"));
    assert_non_null(yyjson_obj_get(e, "code"));
    yyjson_doc_free(doc);
}

#define HI   "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT "{\"model\":\"m\"," HI
#define TEXT "{\"model\":\"m\",\"prompt\":\"hi\""
#define TOOL "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}"

static void test_chat(void **state)
{
    (void)state;
    good(OPENAI_CHAT, CHAT "}");
    assert_true(str_equal(request.model, STR("m")));
    assert_true(str_equal(request.prompts[0].text, STR("[{\"role\":\"user\",\"content\":\"hi\"}]")));
    assert_int_equal(request.n, 1);
    assert_int_equal(request.common.max_tokens, 0);
    assert_true(request.common.temperature == 1 && request.common.top_p == 1);
    assert_false(request.stream);
    struct generation g;
    openai_generation(&request, 0, 777, &g);
    assert_int_equal(g.max_tokens, 777);
    assert_int_equal(g.kind, GENERATION_CHAT);
    good(OPENAI_CHAT, CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":3,\"seed\":-1,"
                           "\"max_completion_tokens\":5,\"temperature\":0,\"top_p\":0.5,\"stop\":[\"a\",\"b\"],"
                           "\"frequency_penalty\":-2,\"presence_penalty\":2,\"logprobs\":true,\"top_logprobs\":20,"
                           "\"logit_bias\":{\"5\":-100,\"6\":1.5},\"top_k\":40,\"min_p\":0.1,\"cache_prompt\":false,"
                           "\"user\":\"u\",\"metadata\":{\"a\":1},\"anything\":[{}],\"store\":true}");
    assert_true(request.stream && request.include_usage);
    assert_int_equal(request.common.n_stops, 2);
    assert_int_equal(request.common.n_biases, 2);
    assert_int_equal(generation_bias(&request.common, 1).token, 6);
    assert_true(generation_bias(&request.common, 1).bias == 1.5f);
    assert_int_equal(request.common.flags, GENERATION_LOGPROBS | GENERATION_SEEDED | GENERATION_NO_CACHE);
    assert_int_equal(request.common.n_top_logprobs, 20);
    openai_generation(&request, 2, 777, &g);
    assert_int_equal(g.max_tokens, 5);
    assert_true(g.seed == 1); /* −1 + 2 */
    /* null is absent */
    good(OPENAI_CHAT, CHAT ",\"stop\":null,\"max_tokens\":null,\"temperature\":null,\"stream\":null,\"seed\":null,"
                           "\"tools\":null,\"functions\":null,\"response_format\":null,\"stream_options\":null}");
    assert_int_equal(request.common.flags, 0);
    good(OPENAI_CHAT, CHAT ",\"parallel_tool_calls\":true}");
    assert_int_equal(request.common.flags, 0);
    good(OPENAI_CHAT, CHAT ",\"parallel_tool_calls\":false}");
    assert_int_equal(request.common.flags, GENERATION_ONE_CALL);
}

static void test_messages(void **state)
{
    (void)state;
    good(OPENAI_CHAT,
         "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{"
         "\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\","
         "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
         "\"tool_call_id\":\"1\",\"content\":\"ok\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\","
         "\"refusal\":\"no\"}]}]}");
    assert_memory_equal(request.prompts[0].text.data, "[{\"role\":\"system\"", 17);
    /* what is null counts as absent, what was refused is a text: the worker's reader knows neither */
    good(OPENAI_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"name\":null,\"tool_call_id\":null,"
                      "\"reasoning_content\":null,\"tool_calls\":null,\"content\":[{\"type\":\"refusal\",\"text\":1,"
                      "\"refusal\":\"no\"}]}]}");
    assert_true(
        str_equal(request.prompts[0].text,
                  STR("[{\"role\":\"assistant\",\"name\":\"\",\"tool_call_id\":\"\",\"reasoning_content\":\"\","
                      "\"tool_calls\":null,\"content\":[{\"type\":\"text\",\"ignored\":1,\"text\":\"no\"}]}]")));
#define M(messages) "{\"model\":\"m\",\"messages\":" messages "}"
    static const struct refusal rows[] = {
        {OPENAI_CHAT, "{\"model\":\"m\"}", "messages", "missing_required_parameter", "Missing required parameter"},
        {OPENAI_CHAT, M("[]"), "messages", "empty_array", "must not be empty"},
        {OPENAI_CHAT, M("\"hi\""), "messages", "invalid_type", "got a string instead"},
        {OPENAI_CHAT, M("[7]"), "messages[0]", "invalid_type", "got an integer instead"},
        {OPENAI_CHAT, M("[{\"content\":\"x\"}]"), "messages[0].role", "missing_required_parameter", "role"},
        {OPENAI_CHAT, M("[{\"role\":\"x\",\"content\":\"x\"}]"), "messages[0].role", "invalid_value", "'developer'"},
        {OPENAI_CHAT, M("[{\"role\":\"user\"}]"), "messages[0].content", "missing_required_parameter", "content"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":5}]"), "messages[0].content", "invalid_type", "an integer"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]"), "messages[0].content",
         "invalid_value", "'text'"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]"), "messages[0].content",
         "invalid_type", "text in each part"},
        {OPENAI_CHAT, M("[{\"role\":\"tool\",\"content\":\"x\"}]"), "messages[0].tool_call_id",
         "missing_required_parameter", "tool_call_id"},
        {OPENAI_CHAT, M("[{\"role\":\"assistant\"}]"), "messages[0].content", "missing_required_parameter", ""},
        {OPENAI_CHAT, M("[{\"role\":\"assistant\",\"tool_calls\":[{}]}]"), "messages[0].tool_calls", "invalid_value",
         "function.arguments"},
        {OPENAI_CHAT,
         M("[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}]"),
         "messages[0].tool_calls", "invalid_value", "type 'function'"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":5}]"), "messages[0].tool_calls",
         "invalid_type", "an integer"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":\"x\",\"name\":5}]"), "messages[0].name", "invalid_type",
         "an integer"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":\"x\",\"tool_call_id\":[]}]"), "messages[0].tool_call_id",
         "invalid_type", "an array"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":\"x\",\"reasoning_content\":{}}]"),
         "messages[0].reasoning_content", "invalid_type", "an object"},
        /* the worker's reader takes the last of two, this one the first */
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"role\":\"no role\",\"content\":\"x\"}]"), "messages[0]", "invalid_value",
         "'role' of 'messages[0]' is there twice"},
        {OPENAI_CHAT, M("[{\"role\":\"user\",\"content\":\"x\",\"content\":5}]"), "messages[0]", "invalid_value",
         "twice"},
        {OPENAI_CHAT,
         M("[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"type\":\"image_url\"}]}]"),
         "messages[0].content", "invalid_value", "twice"},
        {OPENAI_CHAT,
         M("[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":"
           "\"f\",\"name\":5,\"arguments\":\"\"}}]}]"),
         "messages[0].tool_calls", "invalid_value", "twice"},
        {OPENAI_CHAT, M("[{\"role\":\"assistant\",\"tool_calls\":{}}]"), "messages[0].tool_calls", "invalid_type",
         "an object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&rows[i]);
}

static void test_tools_and_formats(void **state)
{
    (void)state;
    good(OPENAI_CHAT, CHAT ",\"tools\":[" TOOL "],\"parallel_tool_calls\":false}");
    assert_true(str_equal(request.common.tools, STR("[" TOOL "]")));
    good(OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":null}}]}");
    assert_true(str_equal(request.common.tools,
                          STR("[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"\"}}]")));
    good(OPENAI_CHAT, CHAT ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}},\"tools\":[" TOOL
                           ",{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]}");
    assert_true(str_equal(request.common.tools, STR("[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]")));
    assert_true(str_equal(request.common.tool_choice, STR("required")));
    good(OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"text\"}}");
    assert_int_equal(request.common.grammar_kind, GENERATION_FREE);
    good(OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_object\"}}");
    assert_int_equal(request.common.grammar_kind, GENERATION_JSON_SCHEMA);
    good(OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":"
                           "{\"type\":\"object\"}}}}");
    assert_true(str_equal(request.common.grammar, STR("{\"type\":\"object\"}")));
    good(OPENAI_COMPLETION, TEXT ",\"grammar\":\"root ::= \\\"a\\\"\"}");
    assert_int_equal(request.common.grammar_kind, GENERATION_GBNF);
    static const struct refusal rows[] = {
        {OPENAI_CHAT, CHAT ",\"tools\":{}}", "tools", "invalid_type", "an array of objects"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"web\"}]}", "tools.type", "invalid_value", "'function'"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]}",
         "tools.function.name", "invalid_value", "letters"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"parameters\":1}}]}",
         "tools.function.parameters", "invalid_type", "an object"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":\"auto\"}", "tool_choice", "invalid_parameter_combination", "'tools'"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":\"never\",\"tools\":[" TOOL "]}", "tool_choice", "invalid_value",
         "'auto'"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":{\"function\":{\"name\":\"g\"}},\"tools\":[" TOOL "]}", "tool_choice",
         "invalid_value", "no tool"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":7}", "tool_choice", "invalid_type", "an integer"},
        {OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"xml\"}}", "response_format.type", "invalid_value",
         "'text'"},
        {OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format.json_schema.schema",
         "missing_required_parameter", "schema"},
        {OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_object\"},\"tools\":[" TOOL "]}", "tools",
         "invalid_parameter_combination", "response_format"},
        {OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_object\"},\"grammar\":\"x\"}", "grammar",
         "invalid_parameter_combination", "both"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"description\":1}}]}",
         "tools.function.description", "invalid_type", "an integer"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\",\"name\":\"b c\"}}]}",
         "tools.function", "invalid_value", "'name' of 'tools.function' is there twice"},
        {OPENAI_CHAT, CHAT ",\"tools\":[{\"type\":\"function\",\"type\":\"x\",\"function\":{\"name\":\"a\"}}]}",
         "tools", "invalid_value", "twice"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":{\"type\":\"x\",\"function\":{\"name\":\"f\"}},\"tools\":[" TOOL "]}",
         "tool_choice.type", "invalid_value", "'function'"},
        {OPENAI_CHAT, CHAT ",\"tool_choice\":{\"function\":{\"name\":\"f\",\"name\":\"g\"}},\"tools\":[" TOOL "]}",
         "tool_choice", "invalid_value", "twice"},
        {OPENAI_CHAT, CHAT ",\"response_format\":{\"type\":\"json_object\",\"type\":\"text\"}}", "response_format",
         "invalid_value", "twice"},
        {OPENAI_CHAT,
         CHAT ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{},\"schema\":1}}}",
         "response_format.json_schema", "invalid_value", "twice"},
        {OPENAI_CHAT, CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_usage\":false}}",
         "stream_options", "invalid_value", "twice"},
        {OPENAI_CHAT, CHAT ",\"logit_bias\":{\"5\":1,\"05\":2}}", "logit_bias", "invalid_value",
         "token 5 is there twice"},
        {OPENAI_CHAT, CHAT ",\"functions\":[]}", "functions", "unsupported_parameter", "not supported"},
        {OPENAI_CHAT, CHAT ",\"modalities\":[\"text\",\"audio\"]}", "modalities", "invalid_value", "'text'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&rows[i]);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct refusal rows[] = {
        {OPENAI_CHAT, CHAT ",\"temperature\":2.1}", "temperature", "decimal_above_max_value", "<= 2"},
        {OPENAI_CHAT, CHAT ",\"temperature\":-0.1}", "temperature", "decimal_below_min_value", ">= 0"},
        {OPENAI_CHAT, CHAT ",\"temperature\":\"1\"}", "temperature", "invalid_type", "a decimal, but got a string"},
        {OPENAI_CHAT, CHAT ",\"top_p\":1.01}", "top_p", "decimal_above_max_value", "<= 1"},
        {OPENAI_CHAT, CHAT ",\"frequency_penalty\":2.5}", "frequency_penalty", "decimal_above_max_value", "<= 2"},
        {OPENAI_CHAT, CHAT ",\"presence_penalty\":-3}", "presence_penalty", "decimal_below_min_value", ">= -2"},
        {OPENAI_CHAT, CHAT ",\"n\":0}", "n", "integer_below_min_value", ">= 1"},
        {OPENAI_CHAT, CHAT ",\"n\":33}", "n", "integer_above_max_value", "<= 32"},
        {OPENAI_CHAT, CHAT ",\"n\":1.0}", "n", "invalid_type", "a decimal"},
        {OPENAI_CHAT, CHAT ",\"max_tokens\":0}", "max_tokens", "integer_below_min_value", ">= 1"},
        {OPENAI_CHAT, CHAT ",\"max_tokens\":18446744073709551615}", "max_tokens", "integer_above_max_value", "<="},
        {OPENAI_CHAT, CHAT ",\"max_tokens\":5,\"max_completion_tokens\":9}", "max_completion_tokens",
         "invalid_parameter_combination", "at the same time"},
        {OPENAI_CHAT, CHAT ",\"top_logprobs\":21,\"logprobs\":true}", "top_logprobs", "integer_above_max_value", "20"},
        {OPENAI_CHAT, CHAT ",\"top_logprobs\":1}", "top_logprobs", "invalid_parameter_combination", "'logprobs'"},
        {OPENAI_CHAT, CHAT ",\"logprobs\":1}", "logprobs", "invalid_type", "a boolean"},
        {OPENAI_CHAT, CHAT ",\"stream\":\"yes\"}", "stream", "invalid_type", "a boolean"},
        {OPENAI_CHAT, CHAT ",\"stream_options\":{}}", "stream_options", "invalid_parameter_combination", "'stream'"},
        {OPENAI_CHAT, CHAT ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "stream_options.include_usage",
         "invalid_type", "a boolean"},
        {OPENAI_CHAT, CHAT ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "stop", "array_above_max_length", "length 4"},
        {OPENAI_CHAT, CHAT ",\"stop\":\"\"}", "stop", "string_below_min_length", "empty"},
        {OPENAI_CHAT, CHAT ",\"stop\":[1]}", "stop", "invalid_type", "a string"},
        {OPENAI_CHAT, CHAT ",\"stop\":1}", "stop", "invalid_type", "a string or an array"},
        {OPENAI_CHAT, CHAT ",\"logit_bias\":{\"x\":1}}", "logit_bias", "invalid_value", "number of a token"},
        {OPENAI_CHAT, CHAT ",\"logit_bias\":{\"4294967296\":1}}", "logit_bias", "invalid_value", "number of a token"},
        {OPENAI_CHAT, CHAT ",\"logit_bias\":{\"1\":101}}", "logit_bias", "decimal_above_max_value", "<= 100"},
        {OPENAI_CHAT, CHAT ",\"seed\":1.5}", "seed", "invalid_type", "an integer"},
        {OPENAI_COMPLETION, TEXT ",\"logprobs\":6}", "logprobs", "integer_above_max_value", "<= 5"},
        {OPENAI_COMPLETION, TEXT ",\"best_of\":2}", "best_of", "unsupported_value", "'n'"},
        {OPENAI_COMPLETION, TEXT ",\"suffix\":\"x\"}", "suffix", "unsupported_parameter", "not supported"},
        {OPENAI_COMPLETION, TEXT ",\"echo\":true,\"logprobs\":1}", "echo", "unsupported_value", "'logprobs'"},
        {OPENAI_CHAT, "{" HI "}", "model", "missing_required_parameter", "'model'"},
        {OPENAI_CHAT, "{\"model\":7," HI "}", "model", "invalid_type", "a string"},
        {OPENAI_CHAT, "{\"model\":\"a\",\"model\":\"b\"," HI "}", "model", "invalid_value", "twice"},
        {OPENAI_CHAT, "", "", NULL, "it is empty"},
        {OPENAI_CHAT, "{\"model\":", "", NULL, "at byte"},
        {OPENAI_CHAT, "[]", "", NULL, "must be a JSON object"},
        {OPENAI_CHAT, "{\"model\":\"\xff\"}", "", NULL, "UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&rows[i]);
    /* the limits themselves are taken */
    good(OPENAI_CHAT, CHAT ",\"temperature\":2,\"top_p\":0,\"n\":32,\"max_tokens\":1,\"stop\":[],\"top_k\":-1}");
    good(OPENAI_COMPLETION, TEXT ",\"best_of\":2,\"n\":2,\"logprobs\":5,\"echo\":false,\"suffix\":\"\"}");
}

static void test_prompts(void **state)
{
    (void)state;
    good(OPENAI_COMPLETION, TEXT ",\"echo\":true,\"stream\":true}");
    good(OPENAI_COMPLETION, TEXT ",\"echo\":true}");
    assert_int_equal(request.common.max_tokens, 16);
    assert_true(request.echo);
    good(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\",[1,2]],\"n\":2}");
    assert_int_equal(request.n_prompts, 3);
    assert_true(request.parts);
    struct generation g;
    openai_generation(&request, 3, 1, &g);
    assert_true(str_equal(g.prompt, STR("b")));
    openai_generation(&request, 5, 1, &g);
    assert_int_equal(g.n_tokens, 2);
    assert_int_equal(generation_token(&g, 1), 2);
    good(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[5,6,7]}");
    assert_int_equal(request.n_prompts, 1);
    assert_int_equal(request.prompts[0].n_tokens, 3);
    good(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":\"\"}"); /* from the beginning of text */
    good(OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"encoding_format\":\"base64\",\"dimensions\":3}");
    assert_true(request.base64);
    assert_int_equal(request.dimensions, 3);
    good(OPENAI_TOKENIZE, "{\"model\":\"m\",\"prompt\":\"a\",\"add_special_tokens\":false}");
    assert_int_equal(request.common.flags, GENERATION_NO_SPECIAL);
    good(OPENAI_TOKENIZE, "{\"model\":\"m\",\"content\":\"a\",\"n\":\"ignored\"}");
    good(OPENAI_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[1]}");
    static const struct refusal rows[] = {
        {OPENAI_COMPLETION, "{\"model\":\"m\"}", "prompt", "missing_required_parameter", "'prompt'"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":{}}", "prompt", "invalid_type", "an object"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[]}", "prompt", "empty_array", "empty"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[[]]}", "prompt", "empty_array", "empty"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,\"a\"]}", "prompt", "invalid_type", "an integer"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",1]}", "prompt", "invalid_type", "strings or arrays"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[-1]}", "prompt", "integer_below_min_value", ">= 0"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[2147483648]}", "prompt", "integer_above_max_value", "<="},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"],\"n\":17}", "n", "invalid_value", "at most 32"},
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[1],\"echo\":true}", "echo", "unsupported_value", "tokens"},
        {OPENAI_EMBEDDING, "{\"model\":\"m\"}", "input", "missing_required_parameter", "'input'"},
        {OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":\"\"}", "input", "empty_array", "empty"},
        {OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"hex\"}", "encoding_format",
         "invalid_value", "base64"},
        {OPENAI_TOKENIZE, "{\"model\":\"m\",\"prompt\":[1]}", "prompt", "invalid_type", "a string"},
        {OPENAI_TOKENIZE, "{\"model\":\"m\",\"prompt\":\"a\",\"content\":\"b\"}", "content",
         "invalid_parameter_combination", "both"},
        {OPENAI_DETOKENIZE, "{\"model\":\"m\",\"tokens\":\"a\"}", "tokens", "invalid_type", "an array of integers"},
        {OPENAI_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[[1]]}", "tokens", "invalid_type", "an integer"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&rows[i]);
}

/* A list that is one longer than what is taken, built by hand. */
static char *list(const char *before, const char *each, size_t n, const char *after)
{
    struct buf b;
    buf_init(&b, 8 * MIB);
    buf_append_text(&b, before);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_append_char(&b, ',');
        buf_append_text(&b, each);
    }
    buf_append_text(&b, after);
    (void)buf_terminate(&b);
    assert_int_equal(b.failed, 0);
    return b.data;
}

static void test_limits(void **state)
{
    (void)state;
    static const struct {
        enum openai_kind kind;
        const char *before, *each, *after, *param;
        size_t max;
    } rows[] = {
        {OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[", "\"a\"", "]}", "prompt", LIMIT_CHOICES},
        {OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":[", "\"a\"", "]}", "input", LIMIT_EMBEDDINGS},
        {OPENAI_CHAT, CHAT ",\"tools\":[", TOOL, "]}", "tools", LIMIT_TOOLS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int more = -1; more <= 1; more++) {
            char *body = list(rows[i].before, rows[i].each, rows[i].max + (size_t)more, rows[i].after);
            bool taken = decode(rows[i].kind, body);
            assert_int_equal(taken, more <= 0);
            if (!taken) {
                assert_string_equal(error.name, "array_above_max_length");
                assert_string_equal(error.param, rows[i].param);
            }
            free(body);
        }
    }
}

/* `before`, `each` n times, `after`: is it taken? What is refused was not parsed. */
static bool taken(enum openai_kind kind, const char *before, const char *each, size_t n, const char *after)
{
    char *body = list(before, each, n, after);
    bool whole = decode(kind, body);
    if (!whole) {
        assert_int_equal(error.code, -ERROR_INVALID_REQUEST);
        assert_string_equal(error.name, "request_too_large");
        assert_non_null(strstr(error.message, "131072"));
        assert_true(arena.bytes <= 64 * KIB);
    }
    free(body);
    return whole;
}

/* The gateway has one thread: what takes long to parse is refused before it is, but for what has its good reasons. */
static void test_values(void **state)
{
    (void)state;
    static const char text[] = "{\"model\":\"m\",\"prompt\":\"hi\",\"x\":[";
    arena_done(&arena);
    arena_init(&arena, 256 * MIB);
    for (int more = -1; more <= 1; more++) {
        size_t nodes =
            LIMIT_JSON_NODES - 7 + (size_t)more; /* the object, model and m, prompt and hi, x and its array */
        assert_int_equal(taken(OPENAI_COMPLETION, text, "\"\"", nodes, "]}"), more <= 0);
        size_t numbers = LIMIT_JSON_NODES + LIMIT_PROMPT_TOKENS - 3 + (size_t)more; /* three members */
        assert_int_equal(taken(OPENAI_COMPLETION, text, "1", numbers, "]}"), more <= 0);
        /* chats have no tokens */
        numbers = LIMIT_JSON_NODES - 6 + (size_t)more; /* three members, a message with two */
        assert_int_equal(taken(OPENAI_CHAT, CHAT ",\"x\":[", "1", numbers, "]}"), more <= 0);
    }
    assert_true(taken(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[", "12", LIMIT_PROMPT_TOKENS, "]}"));
    assert_int_equal(request.prompts[0].n_tokens, LIMIT_PROMPT_TOKENS);
    assert_true(taken(OPENAI_DETOKENIZE, "{\"model\":\"m\",\"tokens\":[", "12", LIMIT_PROMPT_TOKENS, "]}"));
    assert_true(taken(OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":[", "[1,2,3,4,5]", LIMIT_EMBEDDINGS, "]}"));
    assert_true(taken(OPENAI_CHAT, "{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\",\"content\":\"x, [y]: {z}\"}",
                      26000, "]}"));
    assert_true(taken(OPENAI_GENERATE, "{\"text_input\":\"", ":[{, \\\"\\\\", 200000, "\"}")); /* all in one string */
    assert_false(taken(OPENAI_CHAT, CHAT ",", "\"a\":1", 200000, "}"));
    assert_false(taken(OPENAI_CHAT, CHAT ",\"logit_bias\":{", "\"1\":0", 200000, "}}"));
    assert_false(taken(OPENAI_CHAT, CHAT ",\"tools\":[", "{}", 200000, "]}"));
    assert_false(taken(OPENAI_CHAT, CHAT ",\"stop\":[", "\"\"", 200000, "]}"));
    assert_false(
        taken(OPENAI_CHAT, "{\"model\":\"m\",\"messages\":[", "{\"role\":\"user\",\"content\":\"x\"}", 30000, "]}"));
    assert_false(taken(OPENAI_TOKENIZE, "{\"model\":\"m\",\"prompt\":\"x\",\"y\":[", "[]", 200000, "]}"));
    assert_false(taken(OPENAI_GENERATE, "{\"text_input\":\"x\",\"parameters\":{", "\"\":0", 200000, "}}"));
    assert_false(taken(OPENAI_EMBEDDING, "{\"model\":\"m\",\"input\":[", "[0]", 200000, "]}"));
}

/* Deep nesting costs memory, not stack; and memory ends with the arena. */
static void test_hostile(void **state)
{
    (void)state;
    struct buf deep;
    buf_init(&deep, MIB);
    buf_append_text(&deep, "{\"model\":\"m\",\"x\":");
    for (int i = 0; i < 200000; i++)
        buf_append_char(&deep, i < 100000 ? '[' : ']');
    buf_append_text(&deep, "," HI "}");
    assert_string_not_equal(buf_terminate(&deep), "");
    char *body = deep.data;
    if (!decode(OPENAI_CHAT, body))
        assert_int_equal(error.code, -ERROR_NO_MEMORY);
    free(body);
    arena_done(&arena);
    arena_init(&arena, 16 * KIB);
    body = list("{\"model\":\"m\",\"prompt\":[", "1", 100000, "]}");
    assert_false(decode(OPENAI_COMPLETION, body));
    assert_int_equal(error.code, -ERROR_NO_MEMORY);
    free(body);
    for (size_t max = 0; max < 20000; max += 500) { /* wherever memory ends */
        arena_done(&arena);
        arena_init(&arena, max);
        if (!decode(OPENAI_CHAT, CHAT ",\"tools\":[" TOOL "],\"logit_bias\":{\"1\":1},\"tool_choice\":{\"function\":{"
                                      "\"name\":\"f\"}}}"))
            assert_int_equal(error.code, -ERROR_NO_MEMORY);
    }
}

/* OIP's generate extension: the same parameters, beside the text or in an object of their own. */
static void test_generate(void **state)
{
    (void)state;
    good(OPENAI_GENERATE, "{\"text_input\":\"hi\"}");
    assert_true(str_equal(request.prompts[0].text, STR("hi")));
    assert_true(request.n_prompts == 1 && request.n == 1);
    assert_int_equal(request.common.kind, GENERATION_COMPLETION);
    assert_int_equal(request.common.max_tokens, 16);
    good(OPENAI_GENERATE,
         "{\"parameters\":{\"max_tokens\":7,\"temperature\":0.5,\"stop\":[\"a\",\"b\"],\"seed\":3,\"top_k\":4,"
         "\"stream\":true,\"n\":9,\"echo\":true,\"model\":5,\"prompt\":[]},\"top_p\":0.25,\"text_input\":\"\"}");
    assert_int_equal(request.common.max_tokens, 7);
    assert_int_equal(request.common.n_stops, 2);
    assert_int_equal(request.common.top_k, 4);
    assert_int_equal(request.common.flags, GENERATION_SEEDED);
    assert_true(request.common.temperature == 0.5f && request.common.top_p == 0.25f);
    assert_true(request.n == 1 && !request.echo && !request.stream); /* others' parameters */
    assert_int_equal(request.prompts[0].text.size, 0);
    good(OPENAI_GENERATE, "{\"text_input\":\"hi\",\"parameters\":null}");
    static const struct refusal rows[] = {
        {OPENAI_GENERATE, "{}", "text_input", "missing_required_parameter", "text_input"},
        {OPENAI_GENERATE, "[]", "", NULL, "must be a JSON object"},
        {OPENAI_GENERATE, "{\"text_input\":[\"a\",\"b\"]}", "text_input", "invalid_type", "a string"},
        {OPENAI_GENERATE, "{\"text_input\":\"a\",\"parameters\":[]}", "parameters", "invalid_type", "an object"},
        {OPENAI_GENERATE, "{\"text_input\":\"a\",\"seed\":1,\"parameters\":{\"seed\":2}}", "seed", "invalid_value",
         "twice"},
        {OPENAI_GENERATE, "{\"text_input\":\"a\",\"parameters\":{\"parameters\":{}}}", "parameters", "invalid_value",
         "twice"},
        {OPENAI_GENERATE, "{\"text_input\":\"a\",\"parameters\":{\"temperature\":3}}", "temperature",
         "decimal_above_max_value", "temperature"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        refused(&rows[i]);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_generate), TEST(test_chat),    TEST(test_messages), TEST(test_tools_and_formats),
        TEST(test_numbers),  TEST(test_prompts), TEST(test_limits),   TEST(test_hostile),
        TEST(test_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
