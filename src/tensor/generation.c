/* The encoded generation: numbers, the lengths of what follows, then prompt, tokens, tools, tool choice, grammar, stop
 * strings each with its length, biases. */
#include "tensor/generation.h"

#include "tensor/generation_internal.h"

enum {
    VERSION = 1,
    HEAD_BYTES = 4 + 16 + 4 + 4 + 8 + 4 * 4 + 2 * 4 + 4 + 5 * 4 + 4, /* see numbers_write and lengths_write */
    TOKEN_BYTES = 4,
    BIAS_BYTES = 8,
    STOP_HEAD_BYTES = 2,
    TOOL_CHOICE_BYTES_MAX = 8,
};

_Static_assert(HEAD_BYTES + TOOL_CHOICE_BYTES_MAX + LIMIT_STOPS * (STOP_HEAD_BYTES + LIMIT_STOP_BYTES) +
                       LIMIT_LOGIT_BIASES * BIAS_BYTES <=
                   LIMIT_GENERATION_HEAD_BYTES,
               "what is not bounded by the body fits its bound");
_Static_assert(LIMIT_STOPS <= UINT8_MAX && LIMIT_TOP_LOGPROBS <= UINT8_MAX && LIMIT_STOP_BYTES <= UINT16_MAX &&
                   LIMIT_LOGIT_BIASES <= UINT16_MAX,
               "the widths of the fields");

void generation_init(struct generation *g, enum generation_kind kind)
{
    *g = (struct generation){.kind = kind, .max_tokens = 16, .top_p = 1};
}

int32_t generation_token(const struct generation *g, uint32_t index)
{
    struct wire_reader r = {(const uint8_t *)g->tokens + (size_t)index * TOKEN_BYTES, TOKEN_BYTES, false};
    return read_i32(&r);
}

struct generation_bias generation_bias(const struct generation *g, uint32_t index)
{
    struct wire_reader r = {(const uint8_t *)g->biases + (size_t)index * BIAS_BYTES, BIAS_BYTES, false};
    int32_t token = read_i32(&r);
    return (struct generation_bias){token, read_float(&r)};
}

/* --- what both ways refuse --- */

static const char *numbers_wrong(const struct generation *g)
{
    if (g->kind <= GENERATION_NONE || g->kind >= GENERATION_KIND_COUNT)
        return "its kind is unknown";
    if (g->flags & ~(uint32_t)GENERATION_FLAGS_ALL)
        return "a flag is unknown";
    if (g->max_tokens < 1)
        return "max_tokens must be at least 1";
    if (!float_between(g->temperature, 0, 2))
        return "temperature must be from 0 to 2";
    if (!float_between(g->top_p, 0, 1))
        return "top_p must be from 0 to 1";
    if (!float_between(g->min_p, 0, 1))
        return "min_p must be from 0 to 1";
    if (!float_between(g->frequency_penalty, -2, 2))
        return "frequency_penalty must be from -2 to 2";
    if (!float_between(g->presence_penalty, -2, 2))
        return "presence_penalty must be from -2 to 2";
    if (g->n_top_logprobs > LIMIT_TOP_LOGPROBS)
        return "top_logprobs is too large";
    if (g->grammar_kind < GENERATION_FREE || g->grammar_kind >= GENERATION_GRAMMAR_COUNT)
        return "the kind of its grammar is unknown";
    return NULL;
}

static const char *texts_wrong(const struct generation *g)
{
    if (!str_is_utf8(g->prompt))
        return "the prompt is not UTF-8";
    if (!str_is_utf8(g->tools))
        return "the tools are not UTF-8";
    if (g->grammar.size > LIMIT_GRAMMAR_BYTES || (g->grammar_kind == GENERATION_FREE && g->grammar.size > 0))
        return "the grammar is too large";
    if (!str_is_utf8(g->grammar))
        return "the grammar is not UTF-8";
    if (g->tool_choice.size > 0 && !str_equal(g->tool_choice, STR("auto")) && !str_equal(g->tool_choice, STR("none")) &&
        !str_equal(g->tool_choice, STR("required")))
        return "tool_choice must be auto, none or required";
    if (g->n_stops > LIMIT_STOPS)
        return "there are too many stop strings";
    for (uint32_t i = 0; i < g->n_stops; i++)
        if (g->stops[i].size < 1 || g->stops[i].size > LIMIT_STOP_BYTES || !str_is_utf8(g->stops[i]))
            return "a stop string is empty, too long or not UTF-8";
    return NULL;
}

static const char *lists_wrong(const struct generation *g)
{
    bool by_text = g->kind == GENERATION_CHAT || g->kind == GENERATION_TOKENIZE;
    if (g->n_tokens > LIMIT_PROMPT_TOKENS)
        return "the prompt has too many tokens";
    if ((g->n_tokens > 0 && (by_text || g->prompt.size > 0)) ||
        (g->kind == GENERATION_DETOKENIZE && g->prompt.size > 0))
        return "the prompt must be either text or tokens, as its kind has it";
    for (uint32_t i = 0; i < g->n_tokens; i++)
        if (generation_token(g, i) < 0)
            return "a token is negative";
    if (g->n_biases > LIMIT_LOGIT_BIASES)
        return "logit_bias has too many tokens";
    for (uint32_t i = 0; i < g->n_biases; i++) {
        struct generation_bias b = generation_bias(g, i);
        if (b.token < 0 || !float_between(b.bias, -100, 100))
            return "logit_bias must give tokens a bias from -100 to 100";
    }
    return NULL;
}

static const char *wrong(const struct generation *g)
{
    const char *reason = numbers_wrong(g);
    reason = reason ? reason : texts_wrong(g);
    return reason ? reason : lists_wrong(g);
}

/* --- encoding --- */

size_t generation_size(const struct generation *g)
{
    size_t size = HEAD_BYTES + g->prompt.size + (size_t)g->n_tokens * TOKEN_BYTES + g->tools.size +
                  g->tool_choice.size + g->grammar.size + (size_t)g->n_biases * BIAS_BYTES;
    for (uint32_t i = 0; i < g->n_stops && i < LIMIT_STOPS; i++)
        size += STOP_HEAD_BYTES + g->stops[i].size;
    return size;
}

static void numbers_write(struct wire_writer *w, const struct generation *g)
{
    write_u64(w, VERSION, 1);
    write_u64(w, g->kind, 1);
    write_u64(w, g->flags, 1);
    write_u64(w, g->grammar_kind, 1);
    write_u64(w, g->cache_secret[0], 8);
    write_u64(w, g->cache_secret[1], 8);
    write_u64(w, g->adapter, 4);
    write_u64(w, g->max_tokens, 4);
    write_u64(w, g->seed, 8);
    write_float(w, g->temperature);
    write_float(w, g->top_p);
    write_u64(w, g->top_k, 4);
    write_float(w, g->min_p);
    write_float(w, g->frequency_penalty);
    write_float(w, g->presence_penalty);
    write_u64(w, g->n_top_logprobs, 1);
    write_u64(w, g->n_stops, 1);
    write_u64(w, g->n_biases, 2);
}

static void lengths_write(struct wire_writer *w, const struct generation *g)
{
    write_u64(w, g->prompt.size, 4);
    write_u64(w, g->n_tokens, 4);
    write_u64(w, g->tools.size, 4);
    write_u64(w, g->tool_choice.size, 4);
    write_u64(w, g->grammar.size, 4);
    write_u64(w, 0, 4);
}

int generation_encode(const struct generation *g, void *data, size_t capacity, struct error *err)
{
    const char *reason = wrong(g);
    if (reason)
        return error_set(err, ERROR_INVALID_REQUEST, "The request cannot be worked on: %s.", reason);
    size_t size = generation_size(g);
    if (size > capacity || size > UINT32_MAX)
        return error_set(err, ERROR_LIMIT, "The request is larger than the server takes.");
    struct wire_writer w = {.data = data};
    numbers_write(&w, g);
    lengths_write(&w, g);
    write_bytes(&w, g->prompt.data, g->prompt.size);
    write_bytes(&w, g->tokens, (size_t)g->n_tokens * TOKEN_BYTES);
    write_bytes(&w, g->tools.data, g->tools.size);
    write_bytes(&w, g->tool_choice.data, g->tool_choice.size);
    write_bytes(&w, g->grammar.data, g->grammar.size);
    for (uint32_t i = 0; i < g->n_stops; i++) {
        write_u64(&w, g->stops[i].size, STOP_HEAD_BYTES);
        write_bytes(&w, g->stops[i].data, g->stops[i].size);
    }
    write_bytes(&w, g->biases, (size_t)g->n_biases * BIAS_BYTES);
    return 0;
}

/* --- decoding --- */

static void numbers_read(struct wire_reader *r, struct generation *g)
{
    g->kind = (enum generation_kind)read_u32(r, 1);
    g->flags = read_u32(r, 1);
    g->grammar_kind = (enum generation_grammar)read_u32(r, 1);
    g->cache_secret[0] = read_u64(r, 8);
    g->cache_secret[1] = read_u64(r, 8);
    g->adapter = read_u32(r, 4);
    g->max_tokens = read_u32(r, 4);
    g->seed = read_u64(r, 8);
    g->temperature = read_float(r);
    g->top_p = read_float(r);
    g->top_k = read_u32(r, 4);
    g->min_p = read_float(r);
    g->frequency_penalty = read_float(r);
    g->presence_penalty = read_float(r);
    g->n_top_logprobs = read_u32(r, 1);
    g->n_stops = read_u32(r, 1);
    g->n_biases = read_u32(r, 2);
}

/* False when a list is longer than its limit: then its entries were not read. */
static bool lists_read(struct wire_reader *r, struct generation *g)
{
    uint32_t prompt = read_u32(r, 4), tokens = read_u32(r, 4), tools = read_u32(r, 4), choice = read_u32(r, 4),
             grammar = read_u32(r, 4), nothing = read_u32(r, 4);
    if (r->failed || nothing != 0 || tokens > LIMIT_PROMPT_TOKENS || g->n_stops > LIMIT_STOPS)
        return false;
    g->prompt = read_str(r, prompt);
    g->n_tokens = tokens;
    g->tokens = tokens > 0 ? read_bytes(r, (size_t)tokens * TOKEN_BYTES) : NULL;
    g->tools = read_str(r, tools);
    g->tool_choice = read_str(r, choice);
    g->grammar = read_str(r, grammar);
    for (uint32_t i = 0; i < g->n_stops; i++)
        g->stops[i] = read_str(r, read_u32(r, STOP_HEAD_BYTES));
    g->biases = g->n_biases > 0 ? read_bytes(r, (size_t)g->n_biases * BIAS_BYTES) : NULL;
    return !r->failed && r->size == 0;
}

int generation_decode(const void *data, size_t size, struct generation *ret, struct error *err)
{
    struct wire_reader r = {data, size, false};
    struct generation g = {0};
    uint32_t version = read_u32(&r, 1);
    numbers_read(&r, &g);
    const char *reason = NULL;
    if (version != VERSION || !lists_read(&r, &g))
        reason = "its lengths do not add up";
    reason = reason ? reason : wrong(&g);
    if (reason)
        return error_set(err, ERROR_PEER, "A generation is encoded wrongly: %s.", reason);
    *ret = g;
    return 0;
}
