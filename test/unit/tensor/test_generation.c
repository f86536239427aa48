#include "tensor/generation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t data[MIB];
static struct generation decoded;
static struct generation_event got;

static size_t encode(const struct generation *g)
{
    assert_int_equal(generation_encode(g, data, sizeof data, NULL), 0);
    return generation_size(g);
}

static void refused(const struct generation *g, const char *word)
{
    struct error err = {0};
    assert_int_equal(generation_encode(g, data, sizeof data, &err), -ERROR_INVALID_REQUEST);
    assert_non_null(strstr(err.text, word));
}

static struct generation full(void)
{
    static const int32_t biases[] = {7, 0, 9, 0};
    static int32_t with_values[4];
    float low = -100, high = 1.5f;
    memcpy(with_values, biases, sizeof biases);
    memcpy(&with_values[1], &low, 4);
    memcpy(&with_values[3], &high, 4);
    struct generation g;
    generation_init(&g, GENERATION_CHAT);
    g.flags = GENERATION_LOGPROBS | GENERATION_SEEDED;
    g.cache_secret[0] = UINT64_C(0x0123456789abcdef);
    g.cache_secret[1] = UINT64_MAX;
    g.adapter = 3;
    g.max_tokens = UINT32_MAX;
    g.seed = UINT64_MAX - 1;
    g.temperature = 0.7f;
    g.top_p = 0.95f;
    g.top_k = 40;
    g.min_p = 0.05f;
    g.frequency_penalty = -2;
    g.presence_penalty = 2;
    g.n_top_logprobs = LIMIT_TOP_LOGPROBS;
    g.grammar_kind = GENERATION_JSON_SCHEMA;
    g.grammar = STR("{}");
    g.prompt = STR("[{\"role\":\"user\",\"content\":\"Grüße\"}]");
    g.tools = STR("[]");
    g.tool_choice = STR("required");
    g.n_stops = 2;
    g.stops[0] = STR("\n\n");
    g.stops[1] = STR("Ende");
    g.n_biases = 2;
    g.biases = with_values;
    return g;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct generation g = full();
    size_t size = encode(&g);
    assert_int_equal(generation_decode(data, size, &decoded, NULL), 0);
    assert_int_equal(decoded.kind, GENERATION_CHAT);
    assert_int_equal(decoded.flags, g.flags);
    assert_true(decoded.cache_secret[0] == g.cache_secret[0] && decoded.cache_secret[1] == UINT64_MAX);
    assert_int_equal(decoded.adapter, 3);
    assert_int_equal(decoded.max_tokens, UINT32_MAX);
    assert_true(decoded.seed == g.seed);
    assert_true(decoded.temperature == 0.7f && decoded.top_p == 0.95f && decoded.min_p == 0.05f);
    assert_int_equal(decoded.top_k, 40);
    assert_true(decoded.frequency_penalty == -2 && decoded.presence_penalty == 2);
    assert_int_equal(decoded.n_top_logprobs, LIMIT_TOP_LOGPROBS);
    assert_int_equal(decoded.grammar_kind, GENERATION_JSON_SCHEMA);
    assert_true(str_equal(decoded.grammar, g.grammar) && str_equal(decoded.prompt, g.prompt));
    assert_true(str_equal(decoded.tools, g.tools) && str_equal(decoded.tool_choice, g.tool_choice));
    assert_int_equal(decoded.n_stops, 2);
    assert_true(str_equal(decoded.stops[1], g.stops[1]));
    assert_int_equal(decoded.n_biases, 2);
    struct generation_bias b = generation_bias(&decoded, 1);
    assert_true(b.token == 9 && b.bias == 1.5f);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(generation_decode(data, cut, &decoded, NULL), -ERROR_PEER);
    assert_int_equal(generation_decode(data, size + 1, &decoded, NULL), -ERROR_PEER);
    assert_int_equal(generation_encode(&g, data, size - 1, NULL), -ERROR_LIMIT);
}

static void test_tokens_as_prompt(void **state)
{
    (void)state;
    static const int32_t tokens[] = {0, 5, INT32_MAX}, negative[] = {-1};
    struct generation g;
    generation_init(&g, GENERATION_COMPLETION);
    g.tokens = tokens;
    g.n_tokens = 3;
    assert_int_equal(generation_decode(data, encode(&g), &decoded, NULL), 0);
    assert_int_equal(decoded.n_tokens, 3);
    assert_int_equal(generation_token(&decoded, 2), INT32_MAX);
    g.prompt = STR("and text");
    refused(&g, "either text or tokens");
    g.prompt = STR("");
    g.tokens = negative;
    g.n_tokens = 1;
    refused(&g, "negative");
    g.n_tokens = LIMIT_PROMPT_TOKENS + 1;
    refused(&g, "too many tokens");
}

static void test_ranges(void **state)
{
    (void)state;
    struct generation g;
#define REFUSED(change, word) \
    do {                      \
        g = full();           \
        change;               \
        refused(&g, word);    \
    } while (0)
    REFUSED(g.kind = GENERATION_KIND_COUNT, "kind");
    REFUSED(g.kind = GENERATION_NONE, "kind");
    REFUSED(g.flags = GENERATION_FLAGS_ALL + 1, "flag");
    REFUSED(g.max_tokens = 0, "max_tokens");
    REFUSED(g.temperature = NAN, "temperature");
    REFUSED(g.temperature = 2.1f, "temperature");
    REFUSED(g.top_p = -0.1f, "top_p");
    REFUSED(g.min_p = INFINITY, "min_p");
    REFUSED(g.frequency_penalty = 2.5f, "frequency_penalty");
    REFUSED(g.presence_penalty = -3, "presence_penalty");
    REFUSED(g.n_top_logprobs = LIMIT_TOP_LOGPROBS + 1, "top_logprobs");
    REFUSED(g.grammar_kind = GENERATION_GRAMMAR_COUNT, "grammar");
    REFUSED(g.grammar_kind = GENERATION_FREE, "grammar");
    REFUSED(g.grammar.size = LIMIT_GRAMMAR_BYTES + 1, "grammar");
    REFUSED(g.prompt = STR("\xff"), "UTF-8");
    REFUSED(g.tools = STR("\xc3"), "UTF-8");
    REFUSED(g.tool_choice = STR("maybe"), "tool_choice");
    REFUSED(g.n_stops = LIMIT_STOPS + 1, "stop");
    REFUSED(g.stops[0] = STR(""), "stop");
    REFUSED(g.stops[0].size = LIMIT_STOP_BYTES + 1, "stop");
    REFUSED(g.n_biases = LIMIT_LOGIT_BIASES + 1, "logit_bias");
#undef REFUSED
}

static struct generation_token token_of(int32_t id, uint32_t n_top)
{
    static char long_text[LIMIT_TOKEN_BYTES + 50];
    memset(long_text, 'x', sizeof long_text);
    struct generation_token t = {.id = id, .logprob = -0.5f, .text = {long_text, sizeof long_text}, .n_top = n_top};
    for (uint32_t i = 0; i < n_top; i++) {
        t.top[i].id = (int32_t)i;
        t.top[i].logprob = -9999;
        t.top[i].text = (struct str){long_text, sizeof long_text};
    }
    return t;
}

static void test_events(void **state)
{
    (void)state;
    static uint8_t tokens[LIMIT_EVENT_BYTES];
    size_t size = 0;
    struct generation_event e = {.kind = GENERATION_EVENT_TEXT,
                                 .text = STR("Grüße"),
                                 .prompt_tokens = 9,
                                 .cached_tokens = 4,
                                 .prompt_done = 9,
                                 .completion_tokens = 2};
    struct generation_token first = token_of(1, LIMIT_TOP_LOGPROBS), second = token_of(2, 0);
    assert_int_equal(generation_event_add(&e, tokens, &first), 0);
    assert_int_equal(generation_event_add(&e, tokens, &second), 0);
    assert_int_equal(generation_event_encode(&e, data, sizeof data, &size), 0);
    assert_int_equal(size, generation_event_size(&e));
    assert_int_equal(generation_event_decode(data, size, &got, NULL), 0);
    assert_true(str_equal(got.text, e.text));
    assert_true(got.cached_tokens == 4 && got.prompt_done == 9 && got.completion_tokens == 2 && got.n_tokens == 2);
    struct str rest = got.tokens;
    struct generation_token t;
    assert_true(generation_event_token(&rest, &t));
    assert_true(t.id == 1 && t.n_top == LIMIT_TOP_LOGPROBS && t.logprob == -0.5f);
    assert_int_equal(t.text.size, LIMIT_TOKEN_BYTES);
    assert_true(t.top[19].id == 19 && t.top[19].logprob == -9999);
    assert_true(generation_event_token(&rest, &t));
    assert_int_equal(t.id, 2);
    assert_false(generation_event_token(&rest, &t));
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(generation_event_decode(data, cut, &got, NULL), -ERROR_PEER);
    assert_int_equal(generation_event_decode(data, size + 1, &got, NULL), -ERROR_PEER);
}

/* However many are added, what was taken fits an event. */
static void test_event_is_bounded(void **state)
{
    (void)state;
    static uint8_t tokens[LIMIT_EVENT_BYTES];
    static char text[LIMIT_EVENT_TEXT_BYTES];
    size_t size;
    for (uint32_t n_top = 0; n_top <= LIMIT_TOP_LOGPROBS; n_top += 5) {
        memset(text, 'y', sizeof text);
        struct generation_event e = {.kind = GENERATION_EVENT_TEXT, .text = {text, sizeof text}};
        struct generation_token t = token_of(1, n_top);
        while (generation_event_add(&e, tokens, &t) == 0)
            ;
        assert_true(e.n_tokens >= 1);
        assert_int_equal(generation_event_encode(&e, data, LIMIT_EVENT_BYTES, &size), 0);
        assert_int_equal(generation_event_decode(data, size, &got, NULL), 0);
    }
    struct generation_event many = {.kind = GENERATION_EVENT_TOKENS};
    struct generation_token plain = {.id = 1};
    while (generation_event_add(&many, tokens, &plain) == 0)
        ;
    assert_int_equal(many.n_tokens, LIMIT_EVENT_TOKENS);
    assert_int_equal(generation_event_encode(&many, data, LIMIT_EVENT_BYTES, &size), 0);
}

static void test_vectors(void **state)
{
    (void)state;
    static float values[LIMIT_EVENT_VALUES];
    values[LIMIT_EVENT_VALUES - 1] = 2.5f;
    size_t size;
    struct generation_event e = {.kind = GENERATION_EVENT_VECTOR,
                                 .index = 100,
                                 .n_values = LIMIT_EVENT_VALUES,
                                 .n_elements = LIMIT_EVENT_VALUES + 100,
                                 .values = values};
    assert_int_equal(generation_event_encode(&e, data, sizeof data, &size), 0);
    assert_int_equal(generation_event_decode(data, size, &got, NULL), 0);
    float last;
    memcpy(&last, (const uint8_t *)got.values + (LIMIT_EVENT_VALUES - 1) * sizeof last, sizeof last);
    assert_true(last == 2.5f);
    e.n_elements--;
    assert_int_equal(generation_event_encode(&e, data, sizeof data, &size), 0);
    assert_int_equal(generation_event_decode(data, size, &got, NULL), -ERROR_PEER);
}

/* What a worker must not tell, each by one change to what it may. */
static void test_events_that_lie(void **state)
{
    (void)state;
    static uint8_t tokens[LIMIT_EVENT_BYTES];
    struct generation_token bad = {.id = -1}, loud = {.id = 1, .logprob = 1}, nan = {.id = 1, .logprob = NAN};
    struct generation_event with_bad = {.kind = GENERATION_EVENT_TEXT}, with_loud = with_bad, with_nan = with_bad;
    assert_int_equal(generation_event_add(&with_bad, tokens, &bad), 0);
    assert_int_equal(generation_event_add(&with_loud, tokens + 100, &loud), 0);
    assert_int_equal(generation_event_add(&with_nan, tokens + 200, &nan), 0);
    const struct generation_event lies[] = {
        {.kind = GENERATION_EVENT_NONE},
        {.kind = GENERATION_EVENT_KIND_COUNT},
        {.kind = GENERATION_EVENT_TEXT, .finish = GENERATION_STOP},
        {.kind = GENERATION_EVENT_END},
        {.kind = GENERATION_EVENT_END, .finish = GENERATION_FINISH_COUNT},
        {.kind = GENERATION_EVENT_END, .finish = GENERATION_ERROR},
        {.kind = GENERATION_EVENT_END, .finish = GENERATION_ERROR, .status = 1},
        {.kind = GENERATION_EVENT_END, .finish = GENERATION_ERROR, .status = -(int)ERROR_COUNT},
        {.kind = GENERATION_EVENT_END, .finish = GENERATION_STOP, .status = -ERROR_ENGINE},
        {.kind = GENERATION_EVENT_TEXT, .prompt_tokens = 1, .prompt_done = 2},
        {.kind = GENERATION_EVENT_TEXT, .prompt_tokens = 2, .prompt_done = 1, .cached_tokens = 2},
        {.kind = GENERATION_EVENT_TEXT, .text = STR("\xff")},
        {.kind = GENERATION_EVENT_TEXT, .name = STR("f")},
        {.kind = GENERATION_EVENT_TOOL, .id = STR("\xc3")},
        {.kind = GENERATION_EVENT_TEXT, .n_elements = 1},
        {.kind = GENERATION_EVENT_TEXT, .n_tokens = 1},
        {.kind = GENERATION_EVENT_TEXT, .tokens = STR("1234567890a")},
        with_bad,
        with_loud,
        with_nan,
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        size_t size;
        struct error err = {0};
        assert_int_equal(generation_event_encode(&lies[i], data, sizeof data, &size), 0);
        assert_int_equal(generation_event_decode(data, size, &got, &err), -ERROR_PEER);
        assert_int_equal(err.code, -ERROR_PEER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_tokens_as_prompt), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_events),          cmocka_unit_test(test_event_is_bounded), cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_events_that_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
