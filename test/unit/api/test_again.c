/* Both surfaces of language models, when a worker is lost with what they have gathered: nothing of it comes twice, and
 * what a client knows is not begun anew. */
#include "api/serve/oip.h"
#include "api/serve/openai_call.h"
#include "test/unit/gateway/adapters_fixture.h"

enum { EMBEDDING = 4 };

static struct gateway_version *version_at[2];

static int setup_surface(void **state)
{
    (void)setup(state);
    w.f.version->signature->batchable = false;
    w.f.version->signature->token.flags |= TENSOR_TOKEN_EMBED;
    w.f.version->signature->token.embedding = EMBEDDING;
    w.f.replica->level = 1; /* shared */
    version_at[0] = w.f.version;
    w.f.g.version_at = version_at;
    return 0;
}

static int teardown_surface(void **state)
{
    gateway_lones_drain(&w.f.g);
    w.f.g.version_at = NULL;
    return teardown(state);
}

/* A request as its handler gets it; its generations are in the worker afterwards. */
static struct gateway_request *post(const struct gateway_surface *surface, const char *path, const char *model,
                                    const char *json)
{
    struct gateway_request *r = gateway_request_new(&w.f.g);
    assert_non_null(r);
    gateway_request_own(r, &w.f.tenant);
    gateway_request_state_set(r, GATEWAY_REQUEST_HANDLED);
    r->body = str_from(json);
    r->params[0] = str_from(model);
    for (size_t i = 0; i < surface->n_routes && !r->route; i++)
        if (surface->routes[i].method == WIRE_POST && str_equal(str_from(surface->routes[i].path), str_from(path)))
            r->route = &surface->routes[i];
    assert_non_null(r->route);
    r->route->handler(r);
    assert_int_equal(r->state, GATEWAY_REQUEST_GENERATING);
    assert_true(turn());
    return r;
}

static void tell(uint64_t id, struct generation_event e)
{
    size_t size = 0;
    e.prompt_tokens = e.prompt_done = 3;
    assert_int_equal(generation_event_encode(&e, channel_slot_own(w.f.guest, 0), BODY_BYTES_MAX, &size), 0);
    push(&(struct channel_frame){.type = CHANNEL_PART, .request_id = id, .lease_id = lease.lease_id, .length = size});
}

static struct generation_event text(const char *words)
{
    return (struct generation_event){.kind = GENERATION_EVENT_TEXT, .text = str_from(words), .completion_tokens = 1};
}

static void lose(struct gateway_request *r)
{
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    assert_non_null(r->lone);
    assert_int_equal(r->n_started, 0);
}

static bool is_text(const struct buf *b, const char *expected)
{
    return str_equal((struct str){b->data, b->size}, str_from(expected));
}

static void a_completion(void **state)
{
    (void)state;
    struct gateway_request *r = post(&serve_openai_surface, "/v1/completions", "",
                                     "{\"model\":\"m\",\"prompt\":\"ab\",\"n\":2,\"echo\":true,\"max_tokens\":5}");
    struct openai_call *call = gateway_user(r);
    tell(items[0], text("cd"));
    assert_true(is_text(&call->choices[0].text, "abcd") && is_text(&call->choices[1].text, "ab"));
    assert_true(call->gathered_bytes > 0 && r->held_bytes > 0 && openai_call_usage(call).completion_tokens == 1);
    lose(r);
    assert_true(is_text(&call->choices[0].text, "ab") && is_text(&call->choices[1].text, "ab"));
    assert_int_equal(call->choices[0].bytes, 0);
    assert_int_equal(call->gathered_bytes, 0);
    assert_int_equal(r->held_bytes, 0);
    struct openai_usage usage = openai_call_usage(call);
    assert_true(usage.completion_tokens == 0 && usage.prompt_tokens == 0);
}

static void an_embedding(void **state)
{
    (void)state;
    struct gateway_request *r =
        post(&serve_openai_surface, "/v1/embeddings", "", "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}");
    struct openai_call *call = gateway_user(r);
    const float values[2] = {1, 2};
    tell(items[0], (struct generation_event){
                       .kind = GENERATION_EVENT_VECTOR, .n_values = 2, .values = values, .n_elements = EMBEDDING});
    assert_int_equal(call->vectors[0].n_here, 2);
    lose(r);
    assert_int_equal(call->vectors[0].n_here, 0);
    assert_null(call->vectors[0].values);
    assert_int_equal(r->held_bytes, 0);
}

static void tokens(void **state)
{
    (void)state;
    struct gateway_request *r = post(&serve_openai_surface, "/tokenize", "", "{\"model\":\"m\",\"prompt\":\"ab\"}");
    struct openai_call *call = gateway_user(r);
    char buffer[LIMIT_EVENT_BYTES];
    struct generation_event e = {.kind = GENERATION_EVENT_TOKENS};
    assert_int_equal(generation_event_add(&e, buffer, &(struct generation_token){.id = 7, .text = STR("a")}), 0);
    tell(items[0], e);
    assert_int_equal(call->tokens.size, sizeof(int32_t));
    lose(r);
    assert_int_equal(call->tokens.size, 0);
}

/* What was told of a stream decides, not that its head is out. */
static void a_stream(void **state)
{
    (void)state;
    struct gateway_request *r = post(&serve_openai_surface, "/v1/completions", "",
                                     "{\"model\":\"m\",\"prompt\":\"ab\",\"stream\":true,\"max_tokens\":5}");
    struct openai_call *call = gateway_user(r);
    call->told = true;
    assert_false(r->generate->again(r));
    call->told = false;
    lose(r);
}

static void a_text(void **state)
{
    (void)state;
    const char *body = "{\"text_input\":\"ab\",\"parameters\":{\"max_tokens\":5}}";
    struct gateway_request *r = post(&serve_oip_surface, "/v2/models/{}/generate", "m", body);
    tell(items[0], text("cd"));
    r->streaming = true;
    assert_false(r->generate->again(r));
    r->streaming = false;
    lose(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_surface, teardown_surface)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(a_completion), TEST(an_embedding), TEST(tokens), TEST(a_stream),
                                       TEST(a_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
