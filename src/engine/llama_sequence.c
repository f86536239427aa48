/* Sequences: finding, freeing, and what is told of them. */
#include "engine/llama_internal.h"

#include <stdlib.h>

#define LISTED_EVENTS 4u /* of one sequence in a step */

struct llama_sequence *llama_sequence_find(struct llama *l, uint64_t request_id)
{
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        if (l->sequences[i].state != LLAMA_FREE && l->sequences[i].request_id == request_id)
            return &l->sequences[i];
    return NULL;
}

void llama_sequence_free(struct llama *l, struct llama_sequence *s)
{
    llama_stream_give(l, s);
    l->api->llama_sampler_free(s->chain); /* takes NULL */
    l->api->llama_sampler_free(s->grammar);
    if (s->chat)
        l->api->llama_chat_close(s->chat);
    free(s->encoded);
    free(s->tokens);
    free(s->listed_text);
    free(s->vector);
    memset(s, 0, sizeof *s);
    s->id = -1;
}

struct generation_event llama_event(const struct llama_sequence *s, enum generation_event_kind kind)
{
    return (struct generation_event){
        .kind = kind,
        .prompt_tokens = s->n_prompt,
        .cached_tokens = s->n_cached,
        .prompt_done = s->n_done > s->n_prompt || s->n_tokens > s->n_prompt ? s->n_prompt
                       : s->n_done > s->n_cached                            ? s->n_done
                                                                            : s->n_cached,
        .completion_tokens = s->n_tokens - s->n_prompt,
    };
}

int llama_tell(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink,
               struct generation_event *event, const struct generation_token *token)
{
    int r = token ? generation_event_add(event, l->event_tokens, token) : 0;
    return r < 0 ? r : sink->event(sink->ctx, s->request_id, event) == 0 ? 0 : -ERROR_GONE;
}

int llama_end(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink,
              enum generation_finish finish, int status, const struct error *err)
{
    struct generation_event event = llama_event(s, GENERATION_EVENT_END);
    event.finish = finish;
    event.status = finish == GENERATION_ERROR ? status : 0;
    event.text = finish == GENERATION_ERROR ? str_from(error_text(err, status)) : STR("");
    uint64_t request_id = s->request_id;
    if (finish != GENERATION_ERROR)
        llama_prefix_keep(l, s); /* else its cells go with it */
    llama_sequence_free(l, s);
    return sink->event(sink->ctx, request_id, &event) == 0 ? 0 : -ERROR_GONE;
}

static int list_tokens(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink)
{
    struct generation_event event = llama_event(s, GENERATION_EVENT_TOKENS);
    while (s->n_told < s->n_listed) {
        struct generation_token token = {.id = s->tokens[s->n_told]};
        if (generation_event_add(&event, l->event_tokens, &token) < 0)
            break;
        s->n_told++;
    }
    return sink->event(sink->ctx, s->request_id, &event);
}

static int list_text(struct llama_sequence *s, const struct engine_token_sink *sink)
{
    struct generation_event event = llama_event(s, GENERATION_EVENT_TEXT);
    uint32_t left = s->n_listed - s->n_told;
    uint32_t size = left < LIMIT_EVENT_TEXT_BYTES ? left : LIMIT_EVENT_TEXT_BYTES;
    while (size < left && ((unsigned char)s->listed_text[s->n_told + size] & 0xC0) == 0x80)
        size--; /* never within a character: the text is UTF-8 */
    event.text = (struct str){s->listed_text + s->n_told, size};
    s->n_told += size;
    return sink->event(sink->ctx, s->request_id, &event);
}

static int list_vector(struct llama_sequence *s, const struct engine_token_sink *sink)
{
    struct generation_event event = llama_event(s, GENERATION_EVENT_VECTOR);
    uint32_t left = s->n_listed - s->n_told;
    event.index = s->n_told;
    event.n_values = left < LIMIT_EVENT_VALUES ? left : LIMIT_EVENT_VALUES;
    event.values = s->vector + s->n_told;
    event.n_elements = s->n_listed;
    s->n_told += event.n_values;
    return sink->event(sink->ctx, s->request_id, &event);
}

int llama_list(struct llama *l, struct llama_sequence *s, const struct engine_token_sink *sink)
{
    int r = 0;
    for (unsigned i = 0; i < LISTED_EVENTS && s->n_told < s->n_listed && r == 0; i++)
        r = s->g.kind == GENERATION_TOKENIZE     ? list_tokens(l, s, sink)
            : s->g.kind == GENERATION_DETOKENIZE ? list_text(s, sink)
                                                 : list_vector(s, sink);
    if (r != 0)
        return -ERROR_GONE;
    return s->n_told < s->n_listed ? 0 : llama_end(l, s, sink, GENERATION_STOP, 0, NULL);
}
