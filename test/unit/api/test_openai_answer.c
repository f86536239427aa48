/* Answers of the OpenAI API: whole ones, chunks, embeddings, errors; all of it JSON whatever the model says. */
#include "api/serve/openai_codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <yyjson.h>

static struct buf out;
static yyjson_doc *doc;

static int setup(void **state)
{
    (void)state;
    buf_init(&out, MIB);
    doc = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    yyjson_doc_free(doc);
    buf_done(&out);
    return 0;
}

/* What was written, parsed; the buffer begins anew. */
static yyjson_val *parsed(void)
{
    assert_int_equal(out.failed, 0);
    yyjson_doc_free(doc);
    doc = yyjson_read(out.data, out.size, 0);
    if (!doc)
        fail_msg("no JSON: %.*s", (int)out.size, out.data);
    buf_clear(&out);
    return yyjson_doc_get_root(doc);
}

/* A pointer such as "/choices/0/text". */
static yyjson_val *at(const char *pointer)
{
    return yyjson_doc_ptr_get(doc, pointer);
}

static void text_is(const char *pointer, const char *want)
{
    const char *have = yyjson_get_str(at(pointer));
    if (!have || strcmp(have, want) != 0)
        fail_msg("%s is %s, not %s", pointer, have ? have : "nothing", want);
}

static const struct openai_answer chat = {OPENAI_CHAT, {"chatcmpl-1", 10}, 1700000000, {"m\"x", 3}};
static const struct openai_answer completion = {OPENAI_COMPLETION, {"cmpl-1", 6}, 1700000000, {"m", 1}};
static const struct openai_usage usage = {10, 4, 5};

static struct generation_event event_of(enum generation_event_kind kind, const char *text)
{
    return (struct generation_event){.kind = kind, .text = str_from(text)};
}

static void add(struct openai_choice *c, enum openai_kind kind, struct generation_event e, bool logprobs)
{
    assert_int_equal(openai_choice_add(c, kind, &e, logprobs), 0);
}

static struct generation_event tool_event(uint32_t index, const char *id, const char *name, const char *text)
{
    struct generation_event e = event_of(GENERATION_EVENT_TOOL, text);
    e.index = index;
    e.id = str_from(id);
    e.name = str_from(name);
    return e;
}

static void test_chat(void **state)
{
    (void)state;
    struct openai_choice choices[2];
    openai_choice_init(&choices[0], 1000);
    openai_choice_init(&choices[1], 1000);
    add(&choices[0], OPENAI_CHAT, event_of(GENERATION_EVENT_REASONING, "hm"), false);
    add(&choices[0], OPENAI_CHAT, event_of(GENERATION_EVENT_TEXT, "a\"\n"), false);
    add(&choices[0], OPENAI_CHAT, event_of(GENERATION_EVENT_TEXT, "b"), false);
    struct generation_event end = {.kind = GENERATION_EVENT_END, .finish = GENERATION_LENGTH};
    add(&choices[0], OPENAI_CHAT, end, false);
    add(&choices[1], OPENAI_CHAT, tool_event(0, "call_1", "f", "{\"a\":"), false);
    add(&choices[1], OPENAI_CHAT, tool_event(0, "", "", "1}"), false);
    add(&choices[1], OPENAI_CHAT, tool_event(1, "call_2", "g", "{}"), false);
    end.finish = GENERATION_TOOL_CALLS;
    add(&choices[1], OPENAI_CHAT, end, false);
    openai_answer_encode(&chat, choices, 2, false, &usage, &out);
    parsed();
    text_is("/object", "chat.completion");
    text_is("/model", "m\"x");
    text_is("/choices/0/message/content", "a\"\nb");
    text_is("/choices/0/message/reasoning_content", "hm");
    text_is("/choices/0/finish_reason", "length");
    assert_true(yyjson_is_null(at("/choices/0/logprobs")));
    assert_true(yyjson_is_null(at("/choices/1/message/content")));
    text_is("/choices/1/message/tool_calls/0/id", "call_1");
    text_is("/choices/1/message/tool_calls/0/type", "function");
    text_is("/choices/1/message/tool_calls/0/function/arguments", "{\"a\":1}");
    text_is("/choices/1/message/tool_calls/1/function/name", "g");
    text_is("/choices/1/finish_reason", "tool_calls");
    assert_int_equal(yyjson_get_uint(at("/usage/total_tokens")), 15);
    assert_int_equal(yyjson_get_uint(at("/usage/prompt_tokens_details/cached_tokens")), 4);
    /* a call that skips one, or that begins without end */
    struct generation_event wrong = tool_event(3, "x", "y", "");
    assert_int_equal(openai_choice_add(&choices[1], OPENAI_CHAT, &wrong, false), -ERROR_PEER);
    /* more than an answer gathers */
    static char large[2000];
    memset(large, 'x', sizeof large - 1);
    struct generation_event more = event_of(GENERATION_EVENT_TEXT, large);
    assert_int_equal(openai_choice_add(&choices[0], OPENAI_CHAT, &more, false), -ERROR_LIMIT);
    openai_choice_done(&choices[0]);
    openai_choice_done(&choices[1]);
}

/* Two tokens, the second of half a character. */
static struct generation_event with_tokens(char buffer[static LIMIT_EVENT_BYTES])
{
    struct generation_event e = event_of(GENERATION_EVENT_TEXT, "\xc3\xa4");
    struct generation_token token = {.id = 1, .logprob = -0.5f, .text = STR("\xc3\xa4"), .n_top = 1};
    token.top[0].id = 1;
    token.top[0].logprob = -0.5f;
    token.top[0].text = STR("a");
    assert_int_equal(generation_event_add(&e, buffer, &token), 0);
    token.text = STR("\xc3");
    token.n_top = 0;
    assert_int_equal(generation_event_add(&e, buffer, &token), 0);
    return e;
}

static void test_probabilities(void **state)
{
    (void)state;
    static char buffer[LIMIT_EVENT_BYTES];
    struct openai_choice c;
    openai_choice_init(&c, 10000);
    add(&c, OPENAI_CHAT, with_tokens(buffer), true);
    add(&c, OPENAI_CHAT, with_tokens(buffer), true);
    openai_answer_encode(&chat, &c, 1, true, &usage, &out);
    parsed();
    assert_int_equal(yyjson_arr_size(at("/choices/0/logprobs/content")), 4);
    text_is("/choices/0/logprobs/content/0/token", "\xc3\xa4");
    text_is("/choices/0/logprobs/content/1/token", "\xef\xbf\xbd");
    assert_int_equal(yyjson_get_uint(at("/choices/0/logprobs/content/1/bytes/0")), 0xc3);
    assert_true(yyjson_get_real(at("/choices/0/logprobs/content/0/top_logprobs/0/logprob")) == -0.5);
    openai_choice_done(&c);
    openai_choice_init(&c, 10000);
    add(&c, OPENAI_COMPLETION, with_tokens(buffer), true);
    add(&c, OPENAI_COMPLETION, with_tokens(buffer), true);
    openai_answer_encode(&completion, &c, 1, true, &usage, &out);
    parsed();
    text_is("/object", "text_completion");
    text_is("/choices/0/text", "\xc3\xa4\xc3\xa4");
    assert_int_equal(yyjson_arr_size(at("/choices/0/logprobs/tokens")), 4);
    assert_int_equal(yyjson_arr_size(at("/choices/0/logprobs/token_logprobs")), 4);
    assert_int_equal(yyjson_arr_size(at("/choices/0/logprobs/top_logprobs")), 4);
    assert_int_equal(yyjson_get_uint(at("/choices/0/logprobs/text_offset/2")), 2);
    openai_choice_done(&c);
    /* in a chunk */
    uint64_t offset = 7;
    struct generation_event e = with_tokens(buffer);
    assert_true(openai_chunk_event(&completion, 0, &e, true, false, &offset, &out));
    parsed();
    assert_int_equal(yyjson_get_uint(at("/choices/0/logprobs/text_offset/0")), 7);
    assert_int_equal(offset, 9);
}

static void test_chunks(void **state)
{
    (void)state;
    uint64_t offset = 0;
    openai_chunk_role(&chat, 2, true, &out);
    parsed();
    text_is("/object", "chat.completion.chunk");
    text_is("/choices/0/delta/role", "assistant");
    assert_int_equal(yyjson_get_uint(at("/choices/0/index")), 2);
    assert_true(yyjson_is_null(at("/usage")));
    struct generation_event e = event_of(GENERATION_EVENT_TEXT, "x\xe2\x80\xa8");
    assert_true(openai_chunk_event(&chat, 0, &e, false, false, &offset, &out));
    parsed();
    text_is("/choices/0/delta/content", "x\xe2\x80\xa8");
    assert_null(at("/usage"));
    assert_true(yyjson_is_null(at("/choices/0/finish_reason")));
    e = tool_event(0, "call_1", "f", "");
    assert_true(openai_chunk_event(&chat, 0, &e, false, false, &offset, &out));
    parsed();
    text_is("/choices/0/delta/tool_calls/0/function/name", "f");
    e = tool_event(0, "", "", "{}");
    assert_true(openai_chunk_event(&chat, 0, &e, false, false, &offset, &out));
    parsed();
    assert_null(at("/choices/0/delta/tool_calls/0/id"));
    text_is("/choices/0/delta/tool_calls/0/function/arguments", "{}");
    e = (struct generation_event){.kind = GENERATION_EVENT_END, .finish = GENERATION_STOP};
    assert_true(openai_chunk_event(&chat, 0, &e, false, false, &offset, &out));
    parsed();
    assert_int_equal(yyjson_obj_size(at("/choices/0/delta")), 0);
    text_is("/choices/0/finish_reason", "stop");
    openai_chunk_usage(&chat, &usage, &out);
    parsed();
    assert_int_equal(yyjson_arr_size(at("/choices")), 0);
    assert_int_equal(yyjson_get_uint(at("/usage/prompt_tokens")), 10);
    /* nothing to tell */
    e = event_of(GENERATION_EVENT_PROGRESS, "");
    assert_false(openai_chunk_event(&chat, 0, &e, true, false, &offset, &out));
    e = event_of(GENERATION_EVENT_TEXT, "");
    assert_false(openai_chunk_event(&chat, 0, &e, true, false, &offset, &out));
    e = tool_event(0, "a", "b", "c");
    assert_false(openai_chunk_event(&completion, 0, &e, false, false, &offset, &out));
    assert_int_equal(out.size, 0);
}

static void test_embeddings(void **state)
{
    (void)state;
    static const float values[5] = {1, -2.5f, 3.14159274f, 1e-30f, 0};
    static const char *const packed[] = {"", "AACAPw==", "AACAPwAAIMA=", "AACAPwAAIMDbD0lA"};
    openai_embeddings_begin(&out);
    openai_embedding_append(0, values, 5, false, &out);
    openai_embedding_append(1, values, 3, true, &out);
    openai_embeddings_end(STR("m"), 9, &out);
    parsed();
    text_is("/object", "list");
    assert_int_equal(yyjson_arr_size(at("/data/0/embedding")), 5);
    assert_true((float)yyjson_get_num(at("/data/0/embedding/2")) == values[2]); /* each float comes back as it was */
    assert_true((float)yyjson_get_num(at("/data/0/embedding/3")) == values[3]);
    text_is("/data/1/embedding", packed[3]);
    assert_int_equal(yyjson_get_uint(at("/usage/total_tokens")), 9);
    for (uint32_t n = 1; n < 4; n++) {
        openai_embedding_append(0, values, n, true, &out);
        parsed();
        text_is("/embedding", packed[n]);
    }
}

static void test_failures(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *type, *name; /* NULL: null */
    } rows[] = {
        {-ERROR_UNAUTHENTICATED, "invalid_request_error", "invalid_api_key"},
        {-ERROR_MODEL_NOT_FOUND, "invalid_request_error", "model_not_found"},
        {-ERROR_NOT_FOUND, "invalid_request_error", "unknown_url"},
        {-ERROR_RATE_LIMITED, "requests", "rate_limit_exceeded"},
        {-ERROR_QUEUE_FULL, "requests", "rate_limit_exceeded"},
        {-ERROR_QUOTA_EXCEEDED, "insufficient_quota", "insufficient_quota"},
        {-ERROR_INVALID_REQUEST, "invalid_request_error", NULL},
        {ERROR_WORKER_LOST, "server_error", "worker_lost"},
        {-ERROR_INTERNAL, "server_error", "internal"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        openai_failure_encode(rows[i].code, "what \"happened\"", &out);
        parsed();
        text_is("/error/message", "what \"happened\"");
        text_is("/error/type", rows[i].type);
        if (rows[i].name)
            text_is("/error/code", rows[i].name);
        else
            assert_true(yyjson_is_null(at("/error/code")));
        assert_true(yyjson_is_null(at("/error/param")));
    }
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chat), TEST(test_probabilities), TEST(test_chunks), TEST(test_embeddings), TEST(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
