/* The members of a request's root, one table for all kinds. What needs more than a line stands in openai_prompt.c
 * (prompts, messages, tools). */
#include "api/serve/openai_request.h"

#include <stdio.h>

enum {
    IN_CHAT = 1u << OPENAI_CHAT,
    IN_COMPLETION = 1u << OPENAI_COMPLETION,
    IN_EMBEDDING = 1u << OPENAI_EMBEDDING,
    IN_TOKENIZE = 1u << OPENAI_TOKENIZE,
    IN_DETOKENIZE = 1u << OPENAI_DETOKENIZE,
    IN_GENERATE = 1u << OPENAI_GENERATE,
    IN_TEXT = IN_CHAT | IN_COMPLETION,
    IN_SAMPLED = IN_TEXT | IN_GENERATE,
    IN_ALL = (1u << OPENAI_KIND_COUNT) - 1
};

static bool take_model(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_text(value, p->name, 2 * LIMIT_NAME_BYTES + 1, &p->request->model, p->error);
}

static bool take_count(struct openai_reader *p, yyjson_val *value, uint32_t max, uint32_t *ret)
{
    int64_t number;
    if (!openai_take_int(value, p->name, 1, max, &number, p->error))
        return false;
    *ret = (uint32_t)number;
    return true;
}

static bool take_max_tokens(struct openai_reader *p, yyjson_val *value)
{
    if (p->request->common.max_tokens > 0)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", p->name,
                             "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.");
    return take_count(p, value, INT32_MAX, &p->request->common.max_tokens);
}

static bool take_n(struct openai_reader *p, yyjson_val *value)
{
    return take_count(p, value, LIMIT_CHOICES, &p->request->n);
}

static bool take_best_of(struct openai_reader *p, yyjson_val *value)
{
    return take_count(p, value, LIMIT_CHOICES, &p->best_of);
}

static bool take_stream(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_bool(value, p->name, &p->request->stream, p->error);
}

static bool take_stream_options(struct openai_reader *p, yyjson_val *value)
{
    if (!yyjson_is_obj(value))
        return openai_refuse_type(p->error, p->name, "an object", value);
    if (!OPENAI_ONCE(value, p->name, p->error, STR("include_usage")))
        return false;
    yyjson_val *usage = yyjson_obj_get(value, "include_usage");
    p->stream_options = true;
    return !usage || yyjson_is_null(usage) ||
           openai_take_bool(usage, "stream_options.include_usage", &p->request->include_usage, p->error);
}

static bool take_temperature(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_number(value, p->name, 0, 2, &p->request->common.temperature, p->error);
}

static bool take_top_p(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_number(value, p->name, 0, 1, &p->request->common.top_p, p->error);
}

static bool take_min_p(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_number(value, p->name, 0, 1, &p->request->common.min_p, p->error);
}

static bool take_top_k(struct openai_reader *p, yyjson_val *value)
{
    int64_t number; /* -1 and 0: off, as vLLM and llama.cpp have it */
    if (!openai_take_int(value, p->name, -1, INT32_MAX, &number, p->error))
        return false;
    p->request->common.top_k = number > 0 ? (uint32_t)number : 0;
    return true;
}

static bool take_frequency_penalty(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_number(value, p->name, -2, 2, &p->request->common.frequency_penalty, p->error);
}

static bool take_presence_penalty(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_number(value, p->name, -2, 2, &p->request->common.presence_penalty, p->error);
}

static bool take_seed(struct openai_reader *p, yyjson_val *value)
{
    int64_t seed;
    if (!openai_take_int(value, p->name, INT64_MIN, INT64_MAX, &seed, p->error))
        return false;
    p->request->common.seed = (uint64_t)seed;
    p->request->common.flags |= GENERATION_SEEDED;
    return true;
}

static bool take_flag(struct openai_reader *p, yyjson_val *value, uint32_t flag, bool when)
{
    bool set;
    if (!openai_take_bool(value, p->name, &set, p->error))
        return false;
    if (set == when)
        p->request->common.flags |= flag;
    return true;
}

static bool take_ignore_eos(struct openai_reader *p, yyjson_val *value)
{
    return take_flag(p, value, GENERATION_IGNORE_END, true);
}

static bool take_cache_prompt(struct openai_reader *p, yyjson_val *value)
{
    return take_flag(p, value, GENERATION_NO_CACHE, false);
}

static bool take_parallel_tool_calls(struct openai_reader *p, yyjson_val *value)
{
    return take_flag(p, value, GENERATION_ONE_CALL, false);
}

static bool take_add_special(struct openai_reader *p, yyjson_val *value)
{
    return take_flag(p, value, GENERATION_NO_SPECIAL, false);
}

static bool take_chat_logprobs(struct openai_reader *p, yyjson_val *value)
{
    return take_flag(p, value, GENERATION_LOGPROBS, true);
}

static bool take_logprobs(struct openai_reader *p, yyjson_val *value)
{
    int64_t number; /* the old API: how many, at most 5 */
    if (!openai_take_int(value, p->name, 0, 5, &number, p->error))
        return false;
    p->request->common.flags |= GENERATION_LOGPROBS;
    p->request->common.n_top_logprobs = (uint32_t)number;
    return true;
}

static bool take_top_logprobs(struct openai_reader *p, yyjson_val *value)
{
    int64_t number;
    if (!openai_take_int(value, p->name, 0, LIMIT_TOP_LOGPROBS, &number, p->error))
        return false;
    p->request->common.n_top_logprobs = (uint32_t)number;
    return true;
}

static bool take_echo(struct openai_reader *p, yyjson_val *value)
{
    return openai_take_bool(value, p->name, &p->request->echo, p->error);
}

static bool take_encoding_format(struct openai_reader *p, yyjson_val *value)
{
    if (!yyjson_is_str(value))
        return openai_refuse_type(p->error, p->name, "a string", value);
    p->request->base64 = yyjson_equals_str(value, "base64");
    return p->request->base64 || yyjson_equals_str(value, "float") ||
           openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", p->name,
                         "Invalid value for '%s'. Supported values are: 'float' and 'base64'.", p->name);
}

static bool take_dimensions(struct openai_reader *p, yyjson_val *value)
{
    return take_count(p, value, 1u << 20, &p->request->dimensions);
}

static bool take_one_stop(struct openai_reader *p, yyjson_val *value)
{
    struct generation *g = &p->request->common;
    struct str text;
    if (!openai_take_text(value, p->name, LIMIT_STOP_BYTES, &text, p->error))
        return false;
    if (text.size == 0)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "string_below_min_length", p->name,
                             "Invalid '%s': a stop string must not be empty.", p->name);
    g->stops[g->n_stops++] = text;
    return true;
}

static bool take_stop(struct openai_reader *p, yyjson_val *value)
{
    if (!yyjson_is_arr(value))
        return yyjson_is_str(value) ? take_one_stop(p, value)
                                    : openai_refuse_type(p->error, p->name, "a string or an array of strings", value);
    if (yyjson_arr_size(value) > LIMIT_STOPS)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "array_above_max_length", p->name,
                             "Invalid '%s': array too long. Expected an array with maximum length %u, but got an array "
                             "with length %zu instead.",
                             p->name, LIMIT_STOPS, yyjson_arr_size(value));
    size_t i, n;
    yyjson_val *one;
    yyjson_arr_foreach(value, i, n, one)
    {
        if (!take_one_stop(p, one))
            return false;
    }
    return true;
}

static bool take_logit_bias(struct openai_reader *p, yyjson_val *value)
{
    struct generation *g = &p->request->common;
    if (!yyjson_is_obj(value))
        return openai_refuse_type(p->error, p->name, "an object", value);
    if (yyjson_obj_size(value) > LIMIT_LOGIT_BIASES)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", p->name,
                             "Invalid '%s': at most %u tokens can have a bias.", p->name, LIMIT_LOGIT_BIASES);
    struct generation_bias *biases = arena_array(p->arena, yyjson_obj_size(value) + 1, sizeof *biases);
    if (!biases)
        return openai_refuse_memory(p->error);
    yyjson_obj_iter iter = yyjson_obj_iter_with(value);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
        uint64_t token;
        float bias;
        if (str_to_u64(openai_json_str(key), &token) < 0 || token > INT32_MAX)
            return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", p->name,
                                 "Invalid key in '%s': must be the number of a token.", p->name);
        if (!openai_take_number(yyjson_obj_iter_get_val(key), p->name, -100, 100, &bias, p->error))
            return false;
        for (uint32_t i = 0; i < g->n_biases; i++)
            if (biases[i].token == (int32_t)token)
                return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", p->name,
                                     "Invalid '%s': token %d is there twice.", p->name, biases[i].token);
        biases[g->n_biases++] = (struct generation_bias){(int32_t)token, bias};
    }
    g->biases = biases;
    return true;
}

/* Members that would change the answer and that cannot be followed. */
static bool take_nothing(struct openai_reader *p, yyjson_val *value)
{
    if (yyjson_is_false(value) || (yyjson_is_str(value) && yyjson_get_len(value) == 0))
        return true;
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "unsupported_parameter", p->name,
                         "Unsupported parameter: '%s' is not supported with this server.", p->name);
}

static bool take_modalities(struct openai_reader *p, yyjson_val *value)
{
    size_t i, n;
    yyjson_val *one;
    if (!yyjson_is_arr(value))
        return openai_refuse_type(p->error, p->name, "an array", value);
    yyjson_arr_foreach(value, i, n, one)
    {
        if (!yyjson_equals_str(one, "text"))
            return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", p->name,
                                 "Invalid value for '%s': the only modality here is 'text'.", p->name);
    }
    return true;
}

static bool take_text_input(struct openai_reader *p, yyjson_val *value)
{
    return yyjson_is_str(value) ? openai_take_prompts(p, value)
                                : openai_refuse_type(p->error, p->name, "a string", value);
}

static bool members_take(struct openai_reader *p, yyjson_val *object);

/* Beside text_input or in here, as clients of Triton's backends have it; each once. */
static bool take_parameters(struct openai_reader *p, yyjson_val *value)
{
    return yyjson_is_obj(value) ? members_take(p, value) : openai_refuse_type(p->error, p->name, "an object", value);
}

static const struct field {
    struct str name; /* a literal: NUL-terminated */
    unsigned kinds;
    bool (*read)(struct openai_reader *p, yyjson_val *value);
} fields[] = {
    {STR("model"), IN_ALL & ~IN_GENERATE, take_model},
    {STR("messages"), IN_CHAT, openai_take_messages},
    {STR("prompt"), IN_COMPLETION | IN_TOKENIZE, openai_take_prompts},
    {STR("content"), IN_TOKENIZE, openai_take_prompts},
    {STR("input"), IN_EMBEDDING, openai_take_prompts},
    {STR("tokens"), IN_DETOKENIZE, openai_take_prompts},
    {STR("text_input"), IN_GENERATE, take_text_input},
    {STR("parameters"), IN_GENERATE, take_parameters},
    {STR("max_tokens"), IN_SAMPLED, take_max_tokens},
    {STR("max_completion_tokens"), IN_CHAT, take_max_tokens},
    {STR("n"), IN_TEXT, take_n},
    {STR("best_of"), IN_COMPLETION, take_best_of},
    {STR("stream"), IN_TEXT, take_stream},
    {STR("stream_options"), IN_TEXT, take_stream_options},
    {STR("temperature"), IN_SAMPLED, take_temperature},
    {STR("top_p"), IN_SAMPLED, take_top_p},
    {STR("top_k"), IN_SAMPLED, take_top_k},
    {STR("min_p"), IN_SAMPLED, take_min_p},
    {STR("frequency_penalty"), IN_SAMPLED, take_frequency_penalty},
    {STR("presence_penalty"), IN_SAMPLED, take_presence_penalty},
    {STR("seed"), IN_SAMPLED, take_seed},
    {STR("stop"), IN_SAMPLED, take_stop},
    {STR("logit_bias"), IN_TEXT, take_logit_bias},
    {STR("logprobs"), IN_CHAT, take_chat_logprobs},
    {STR("logprobs"), IN_COMPLETION, take_logprobs},
    {STR("top_logprobs"), IN_CHAT, take_top_logprobs},
    {STR("response_format"), IN_SAMPLED, openai_take_response_format},
    {STR("grammar"), IN_SAMPLED, openai_take_grammar},
    {STR("tools"), IN_CHAT, openai_take_tools},
    {STR("tool_choice"), IN_CHAT, openai_take_tool_choice},
    {STR("parallel_tool_calls"), IN_CHAT, take_parallel_tool_calls},
    {STR("ignore_eos"), IN_SAMPLED, take_ignore_eos},
    {STR("cache_prompt"), IN_SAMPLED | IN_EMBEDDING, take_cache_prompt},
    {STR("add_special_tokens"), IN_TOKENIZE, take_add_special},
    {STR("add_special"), IN_TOKENIZE, take_add_special},
    {STR("echo"), IN_COMPLETION, take_echo},
    {STR("encoding_format"), IN_EMBEDDING, take_encoding_format},
    {STR("dimensions"), IN_EMBEDDING, take_dimensions},
    {STR("modalities"), IN_CHAT, take_modalities},
    {STR("suffix"), IN_COMPLETION, take_nothing},
    {STR("audio"), IN_CHAT, take_nothing},
    {STR("functions"), IN_CHAT, take_nothing},
    {STR("function_call"), IN_CHAT, take_nothing},
    {STR("web_search_options"), IN_CHAT, take_nothing},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };
_Static_assert(N_FIELDS <= 64, "one bit each");

static const struct field *field_find(enum openai_kind kind, struct str name, size_t *ret_index)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        if ((fields[i].kinds >> kind & 1) && str_equal(fields[i].name, name)) {
            *ret_index = i;
            return &fields[i];
        }
    }
    return NULL;
}

static bool members_take(struct openai_reader *p, yyjson_val *root)
{
    yyjson_obj_iter iter = yyjson_obj_iter_with(root);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
        size_t index;
        const struct field *field = field_find(p->request->kind, openai_json_str(key), &index);
        if (!field)
            continue;
        if (p->seen >> index & 1) /* another reader of the same bytes may take the other one */
            return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", field->name.data,
                                 "'%s' is there twice.", field->name.data);
        p->seen |= UINT64_C(1) << index;
        yyjson_val *value = yyjson_obj_iter_get_val(key);
        p->name = field->name.data;
        if (!yyjson_is_null(value) && !field->read(p, value))
            return false;
    }
    return true;
}

static bool refuse_missing(struct openai_reader *p, const char *param)
{
    return openai_refuse(p->error, ERROR_INVALID_REQUEST, "missing_required_parameter", param,
                         "Missing required parameter: '%s'.", param);
}

/* What only all members together tell. */
static bool whole_check(struct openai_reader *p)
{
    static const char *const prompts[OPENAI_KIND_COUNT] = {"messages", "prompt", "input",
                                                           "prompt",   "tokens", "text_input"};
    struct openai_request *r = p->request;
    struct generation *g = &r->common;
    if (r->model.size == 0 && r->kind != OPENAI_GENERATE)
        return refuse_missing(p, "model");
    if (r->n_prompts == 0)
        return refuse_missing(p, prompts[r->kind]);
    if (p->stream_options && !r->stream)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", "stream_options",
                             "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    if (p->best_of > 0 && p->best_of != r->n)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "unsupported_value", "best_of",
                             "'best_of' other than 'n' is not supported with this server.");
    if (r->kind == OPENAI_CHAT && g->n_top_logprobs > 0 && !(g->flags & GENERATION_LOGPROBS))
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_parameter_combination", "top_logprobs",
                             "'top_logprobs' needs 'logprobs' to be true.");
    if (r->kind != OPENAI_EMBEDDING && (uint64_t)r->n_prompts * r->n > LIMIT_CHOICES)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "invalid_value", "n",
                             "%u prompts with %u choices each: a request may ask for at most %u.", r->n_prompts, r->n,
                             LIMIT_CHOICES);
    size_t echoed = 0;
    for (uint32_t i = 0; r->echo && i < r->n_prompts; i++) {
        if (r->prompts[i].tokens || (g->flags & GENERATION_LOGPROBS))
            return openai_refuse(p->error, ERROR_INVALID_REQUEST, "unsupported_value", "echo",
                                 "'echo' of tokens or with 'logprobs' is not supported with this server.");
        echoed += r->prompts[i].text.size; /* of one body */
    }
    if (r->stream && echoed > LIMIT_ECHO_BYTES / r->n)
        return openai_refuse(p->error, ERROR_INVALID_REQUEST, "unsupported_value", "echo",
                             "'echo' with 'stream' repeats %zu bytes at most, for all choices; leave one of them out.",
                             (size_t)LIMIT_ECHO_BYTES);
    return openai_tools_check(p);
}

bool openai_request_decode(enum openai_kind kind, struct str body, struct arena *arena,
                           struct openai_request *ret_request, struct openai_error *ret_error)
{
    static const enum generation_kind kinds[OPENAI_KIND_COUNT] = {GENERATION_CHAT,       GENERATION_COMPLETION,
                                                                  GENERATION_EMBEDDING,  GENERATION_TOKENIZE,
                                                                  GENERATION_DETOKENIZE, GENERATION_COMPLETION};
    struct openai_reader p = {.arena = arena, .request = ret_request, .error = ret_error};
    *ret_request = (struct openai_request){.kind = kind, .n = 1};
    generation_init(&ret_request->common, kinds[kind]);
    bool text = kind == OPENAI_CHAT || kind == OPENAI_COMPLETION || kind == OPENAI_GENERATE;
    ret_request->common.temperature = text ? 1 : 0;
    ret_request->common.max_tokens = text ? 0 : 1;
    openai_json_alloc_init(&p.alc, arena);
    yyjson_val *root = openai_json_parse(kind, body, arena, ret_error);
    if (!root || !members_take(&p, root) || !whole_check(&p))
        return false;
    if (kind != OPENAI_CHAT && ret_request->common.max_tokens == 0)
        ret_request->common.max_tokens = 16; /* the API's own default */
    return true;
}

void openai_generation(const struct openai_request *request, uint32_t index, uint32_t context,
                       struct generation *ret_generation)
{
    const struct openai_prompt *prompt = &request->prompts[index / request->n];
    struct generation *g = ret_generation;
    *g = request->common;
    g->prompt = prompt->text;
    g->tokens = prompt->tokens;
    g->n_tokens = prompt->n_tokens;
    g->seed += index % request->n;
    if (g->max_tokens == 0)
        g->max_tokens = context;
}
