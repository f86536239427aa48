/* From what was submitted to tokens, and to a sampler. */
#include "engine/llama_internal.h"

#include "engine/llama_embed.h"

#include <stdlib.h>

static int too_long(const struct llama *l, struct error *err)
{
    return error_set(err, ERROR_INVALID_REQUEST,
                     "The prompt does not fit the model's context of %u tokens; send a shorter one.", l->token.context);
}

/* Room for `n` tokens more than there are. */
static int tokens_room(struct llama_sequence *s, uint32_t n, struct error *err)
{
    uint32_t wanted = s->n_tokens + n;
    if (wanted <= s->n_allocated)
        return 0;
    llama_token *tokens = realloc(s->tokens, (size_t)wanted * sizeof *tokens);
    if (!tokens)
        return error_set_default(err, ERROR_NO_MEMORY);
    s->tokens = tokens;
    s->n_allocated = wanted;
    return 0;
}

/* A text has at most as many tokens as bytes, and a few that the vocabulary puts around it. */
static int text_tokenize(struct llama *l, struct llama_sequence *s, struct str text, bool special, struct error *err)
{
    if (text.size > (size_t)l->token.context * LLAMA_BYTES_PER_TOKEN_MAX)
        return too_long(l, err);
    int r = tokens_room(s, (uint32_t)text.size + 16, err);
    if (r < 0)
        return r;
    bool around = !(s->g.flags & GENERATION_NO_SPECIAL);
    int32_t n = l->api->llama_tokenize(l->vocab, text.size > 0 ? text.data : "", (int32_t)text.size, s->tokens,
                                       (int32_t)s->n_allocated, around, special);
    if (n < 0)
        return error_set(err, ERROR_ENGINE, "The model's vocabulary cannot cut this text into tokens.");
    s->n_tokens = (uint32_t)n;
    return 0;
}

static int tokens_copy(struct llama *l, struct llama_sequence *s, struct error *err)
{
    int r = tokens_room(s, s->g.n_tokens, err);
    for (uint32_t i = 0; i < s->g.n_tokens && r == 0; i++) {
        int32_t token = generation_token(&s->g, i);
        if ((uint32_t)token >= l->n_vocabulary)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "Token %d of the prompt is %d, which is not in the model's vocabulary of %u.", (int)i,
                             (int)token, l->n_vocabulary);
        s->tokens[s->n_tokens++] = token;
    }
    return r;
}

static int detokenize(struct llama *l, struct llama_sequence *s, struct error *err)
{
    if (s->n_tokens > l->token.context)
        return too_long(l, err);
    size_t size = 0, room = (size_t)s->n_tokens * TOKEN_PIECE_BYTES;
    char *text = malloc(room * 3 + TOKEN_TEXT_BYTES);
    if (!text)
        return error_set_default(err, ERROR_NO_MEMORY);
    token_text_init(&s->text, NULL, 0);
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        char piece[TOKEN_PIECE_BYTES];
        int32_t n = l->api->llama_token_to_piece(l->vocab, s->tokens[i], piece, sizeof piece, 0, true);
        size += token_text_add(&s->text, (struct str){piece, n > 0 ? (size_t)n : 0}, i + 1 == s->n_tokens, text + size);
    }
    s->listed_text = text;
    s->n_listed = (uint32_t)size;
    return 0;
}

static int generation_start(struct llama *l, struct llama_sequence *s, struct error *err)
{
    if (!(l->token.flags & TENSOR_TOKEN_ANSWER))
        return error_set(err, ERROR_INVALID_REQUEST, "This model gives embeddings only; it does not generate text.");
    if (s->n_prompt == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "The prompt is empty.");
    if (s->n_prompt >= l->token.context)
        return too_long(l, err);
    token_text_init(&s->text, s->g.stops, s->g.n_stops);
    const char *stop;
    for (size_t i = 0; s->chat && (stop = l->api->llama_chat_stop(s->chat, i)) != NULL; i++)
        token_text_stop(&s->text, str_from(stop));
    int r = llama_samplers_make(l, s, err);
    uint32_t left = l->token.context - s->n_prompt;
    if (r == 0)
        r = tokens_room(s, s->g.max_tokens < left ? s->g.max_tokens : left, err);
    s->state = LLAMA_RUNNING;
    return r;
}

int llama_prepare(struct llama *l, struct llama_sequence *s, struct error *err)
{
    struct str prompt = s->g.prompt;
    int r = s->g.kind == GENERATION_CHAT ? llama_chat_begin(l, s, &prompt, err) : 0;
    if (r < 0)
        return r;
    r = s->g.n_tokens > 0 || s->g.kind == GENERATION_DETOKENIZE
            ? tokens_copy(l, s, err)
            : text_tokenize(l, s, prompt, s->g.kind != GENERATION_EMBEDDING, err);
    if (r < 0)
        return r;
    s->n_prompt = s->n_tokens;
    s->state = LLAMA_LISTING;
    switch (s->g.kind) {
    case GENERATION_TOKENIZE:
        s->n_listed = s->n_tokens;
        return 0;
    case GENERATION_DETOKENIZE:
        return detokenize(l, s, err);
    case GENERATION_EMBEDDING:
        return llama_embed(l, s, err);
    case GENERATION_COMPLETION:
    case GENERATION_CHAT:
        return generation_start(l, s, err);
    case GENERATION_NONE:
    case GENERATION_KIND_COUNT:
        break;
    }
    return error_set_default(err, ERROR_INTERNAL);
}
