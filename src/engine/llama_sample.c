/* The next token: the library's samplers in the order of llama.cpp's own server, and the probabilities that the OpenAI
 * API tells, which are those before any sampler. */
#include "engine/llama_internal.h"

#include "base/clock.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>

/* Penalties look at so many of the last tokens of the answer. */
#define PENALTY_TOKENS 1024

static int bias_add(struct llama *l, struct llama_sequence *s, struct error *err)
{
    struct llama_logit_bias biases[LIMIT_LOGIT_BIASES];
    for (uint32_t i = 0; i < s->g.n_biases; i++) {
        struct generation_bias b = generation_bias(&s->g, i);
        if ((uint32_t)b.token >= l->n_vocabulary)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "logit_bias names token %d, which is not in the model's vocabulary of %u.", (int)b.token,
                             l->n_vocabulary);
        biases[i] = (struct llama_logit_bias){b.token, b.bias};
    }
    if (s->g.n_biases > 0)
        l->api->llama_sampler_chain_add(
            s->chain, l->api->llama_sampler_init_logit_bias((int32_t)l->n_vocabulary, (int32_t)s->g.n_biases, biases));
    return 0;
}

static int grammar_make(struct llama *l, struct llama_sequence *s, struct error *err)
{
    char reason[LLAMA_COMMON_ERROR_BYTES] = "";
    if (s->chat) { /* what its tools ask for, and its schema or grammar, is one by now */
        if (l->api->llama_chat_sampler(s->chat, l->vocab, &s->grammar, reason))
            return 0;
        return error_set(err, ERROR_INVALID_REQUEST, "The grammar of the tools or the response format is refused: %s.",
                         reason);
    }
    if (s->g.grammar_kind == GENERATION_FREE)
        return 0;
    bool schema = s->g.grammar_kind == GENERATION_JSON_SCHEMA;
    s->grammar = l->api->llama_grammar_sampler(l->vocab, s->g.grammar.data, s->g.grammar.size, schema, reason);
    return s->grammar ? 0
                      : error_set(err, ERROR_INVALID_REQUEST, "The %s is refused: %s.",
                                  schema ? "JSON schema" : "grammar", reason);
}

int llama_samplers_make(struct llama *l, struct llama_sequence *s, struct error *err)
{
    const struct llama_library *api = l->api;
    const struct generation *g = &s->g;
    uint64_t seed = g->flags & GENERATION_SEEDED ? g->seed : random_u64();
    struct llama_sampler_chain_params params = api->llama_sampler_chain_default_params();
    params.no_perf = true;
    s->chain = api->llama_sampler_chain_init(params);
    int r = bias_add(l, s, err);
    if (r < 0)
        return r;
    if (g->frequency_penalty != 0 || g->presence_penalty != 0)
        api->llama_sampler_chain_add(s->chain,
                                     api->llama_sampler_init_penalties((int32_t)l->n_vocabulary, PENALTY_TOKENS, 1.0f,
                                                                       g->frequency_penalty, g->presence_penalty));
    if (g->temperature <= 0) {
        api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_greedy());
    } else {
        if (g->top_k > 0)
            api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_top_k((int32_t)(g->top_k & INT32_MAX)));
        if (g->top_p < 1)
            api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_top_p(g->top_p, 1));
        if (g->min_p > 0)
            api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_min_p(g->min_p, 1));
        api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_temp(g->temperature));
        api->llama_sampler_chain_add(s->chain, api->llama_sampler_init_dist((uint32_t)(seed ^ seed >> 32)));
    }
    return grammar_make(l, s, err);
}

/* --- probabilities --- */

static float at_least(double logprob)
{
    return logprob < -9999 || isnan(logprob) ? -9999 : logprob > 0 ? 0 : (float)logprob;
}

static struct str piece_text(struct llama *l, llama_token id, char *text)
{
    char piece[TOKEN_PIECE_BYTES];
    int32_t n = l->api->llama_token_to_piece(l->vocab, id, piece, sizeof piece, 0, true);
    size_t size = n < 0 ? 0 : (size_t)n < LIMIT_TOKEN_BYTES ? (size_t)n : LIMIT_TOKEN_BYTES;
    memcpy(text, piece, size);
    return (struct str){text, size};
}

static void probabilities(struct llama *l, const struct llama_sequence *s, const float *logits,
                          struct generation_token *t)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < l->n_vocabulary; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < l->n_vocabulary; i++)
        sum += exp(logits[i] - max);
    double all = max + log(sum);
    uint32_t wanted = s->g.n_top_logprobs < l->n_vocabulary ? s->g.n_top_logprobs : l->n_vocabulary;
    t->n_top = 0;
    for (uint32_t i = 0; i < l->n_vocabulary && wanted > 0; i++) {
        if (t->n_top == wanted && !(logits[i] > logits[t->top[wanted - 1].id]))
            continue;
        uint32_t at = t->n_top < wanted ? t->n_top++ : wanted - 1;
        for (; at > 0 && logits[i] > logits[t->top[at - 1].id]; at--)
            t->top[at].id = t->top[at - 1].id;
        t->top[at].id = (int32_t)i;
    }
    for (uint32_t i = 0; i < t->n_top; i++) {
        t->top[i].logprob = at_least(logits[t->top[i].id] - all);
        t->top[i].text = piece_text(l, t->top[i].id, l->token_texts[i + 1]);
    }
    t->logprob = at_least(logits[t->id] - all);
    t->text = piece_text(l, t->id, l->token_texts[0]);
}

/* --- choosing --- */

#define LOOK 16u /* numbers that are looked at together, as vectors */

static bool any_larger(const float logits[LOOK], float than)
{
    int any = 0; /* no way out in the middle: so nothing waits for what was found before */
    for (uint32_t i = 0; i < LOOK; i++)
        any |= logits[i] > than;
    return any != 0;
}

/* The most probable, the first of several: what the library's greedy sampler takes, without a copy of all. Of 32,000 in
 * 5 us, where a look at one after the other takes 105, in which the other threads have nothing to do. */
static llama_token most_probable(const struct llama *l, const float *logits)
{
    uint32_t best = 0, n = l->n_vocabulary, whole = n - n % LOOK;
    for (uint32_t i = 0; i < n; i++) {
        if (i % LOOK == 0 && i < whole && !any_larger(logits + i, logits[best]))
            i += LOOK - 1;
        else
            best = logits[i] > logits[best] ? i : best;
    }
    return (llama_token)best;
}

static bool nothing_but_greedy(const struct generation *g)
{
    return g->temperature <= 0 && g->n_biases == 0 && g->frequency_penalty == 0 && g->presence_penalty == 0;
}

/* Negative: there is none, and `reason` says why. */
static llama_token choose(struct llama *l, struct llama_sequence *s, const float *logits, bool grammar_first,
                          char *reason)
{
    if (!grammar_first && nothing_but_greedy(&s->g))
        return most_probable(l, logits);
    for (uint32_t i = 0; i < l->n_vocabulary; i++)
        l->candidates[i] = (llama_token_data){(llama_token)i, logits[i], 0};
    llama_token_data_array all = {l->candidates, l->n_vocabulary, -1, false};
    if (grammar_first) {
        if (!l->api->llama_sampler_apply_safe(s->grammar, &all, reason))
            return -1;
        bool any = false;
        for (size_t i = 0; i < all.size && !any; i++)
            any = all.data[i].logit > -INFINITY;
        if (!any)
            return -1;
    }
    l->api->llama_sampler_apply(s->chain, &all);
    return all.selected >= 0 && (size_t)all.selected < all.size ? all.data[all.selected].id : -1;
}

/* Most tokens that a model chooses fit its grammar: so one is looked at before all are. */
static llama_token choose_by_grammar(struct llama *l, struct llama_sequence *s, const float *logits, char *reason)
{
    llama_token token = choose(l, s, logits, false, reason);
    if (token < 0)
        return token;
    llama_token_data one = {token, 1, 0};
    llama_token_data_array only = {&one, 1, -1, false};
    if (!l->api->llama_sampler_apply_safe(s->grammar, &only, reason))
        return -1;
    return one.logit > -INFINITY ? token : choose(l, s, logits, true, reason);
}

/* An adapter's numbers may have no finite result, on which the library's samplers assert. */
static bool logits_sound(const float *logits, uint32_t n)
{
    float zero[LOOK] = {0}, sum = 0; /* 0 for a finite one, else no number */
    for (uint32_t i = 0; i + LOOK <= n; i += LOOK)
        for (uint32_t j = 0; j < LOOK; j++)
            zero[j] += logits[i + j] - logits[i + j];
    for (uint32_t i = n - n % LOOK; i < n; i++)
        sum += logits[i] - logits[i];
    for (uint32_t j = 0; j < LOOK; j++)
        sum += zero[j];
    return sum == 0;
}

int llama_sample(struct llama *l, struct llama_sequence *s, struct generation_token *ret_token, struct error *err)
{
    const float *logits = l->api->llama_get_logits_ith(l->context, s->row);
    if (!logits)
        return error_set(err, ERROR_ENGINE, "The model gave no answer.");
    if (s->g.adapter > 0 && !logits_sound(logits, l->n_vocabulary))
        return error_set(err, ERROR_ENGINE, "The adapter gave an answer that is no number.");
    char reason[LLAMA_COMMON_ERROR_BYTES] = "it allows no token of the model's vocabulary here";
    uint64_t start_ns = clock_thread_ns();
    llama_token token = s->grammar ? choose_by_grammar(l, s, logits, reason) : choose(l, s, logits, false, reason);
    if (token < 0)
        return error_set(err, ERROR_INVALID_REQUEST, "The grammar cannot be followed: %s.", reason);
    ret_token->id = token;
    ret_token->logprob = 0;
    ret_token->n_top = 0;
    ret_token->text = STR("");
    if (s->g.flags & GENERATION_LOGPROBS)
        probabilities(l, s, logits, ret_token);
    l->api->llama_sampler_accept(s->chain, token);
    if (s->grammar && !l->api->llama_sampler_accept_safe(s->grammar, token, reason))
        return error_set(err, ERROR_INVALID_REQUEST, "The grammar cannot be followed: %s.", reason);
    if (s->grammar && clock_thread_ns() - start_ns > LLAMA_GRAMMAR_NS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "The grammar takes too long; make it simpler.");
    return 0;
}
