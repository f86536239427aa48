/* What of a running batch a turn steps: of which classes, of which kind of adapters, and of which tenants. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

/* A tenant that was served in others' turns is stepped in them no more once it is so many turns ahead of its share: a
 * prompt's worth, or else its answer would stand still behind each prompt until all others have had as much, and they
 * would be stepped with less company meanwhile. */
#define TURNS_AHEAD 16u
/* While so much of a prompt is left (some steps' worth), a turn in common would be a loss for all who generate: each
 * of their tokens would wait for a step's part of that prompt, and a prompt costs the same in turns of its own. */
#define PROMPT_SHARED_MAX 256u

bool gateway_is_stepped(const struct gateway_batch *b, const struct gateway_sequence *s)
{
    return !gateway_rests(s) && s->worn.kind == b->kind && (b->shared || s->request->version == b->seat->version);
}

uint32_t gateway_sequences_stepped(const struct gateway_batch *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        n += gateway_is_stepped(b, &b->sequences[i]);
    return n;
}

/* The highest class of what runs, or could. */
uint32_t gateway_class_top(const struct gateway_batch *b)
{
    const struct gateway_request *waits = gateway_places_next(b, SCHEDULE_CLASS_COUNT - 1);
    uint32_t top = waits ? (uint32_t)waits->schedule.priority : SCHEDULE_CLASS_COUNT;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        uint32_t class = b->sequences[i].request->schedule.priority;
        top = !b->sequences[i].parked && !b->sequences[i].lifted && class < top ? class : top;
    }
    return top;
}

/* Those of a lower class than the turn's stay behind. */
static void classes_set(struct gateway_batch *b, enum schedule_class lowest)
{
    for (uint32_t i = 0; i < b->n_sequences; i++)
        b->sequences[i].yields = b->sequences[i].request->schedule.priority > lowest;
}

/* Those of a tenant's sequences that can be stepped together take turns with its others: the next kind of adapters
 * after the last one, or none. False: it has nothing to step. */
static bool kind_choose(struct gateway_batch *b)
{
    uint32_t next = UINT32_MAX, least = UINT32_MAX;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        const struct gateway_sequence *s = &b->sequences[i];
        if (gateway_rests(s) || s->request->version != b->seat->version)
            continue;
        least = s->worn.kind < least ? s->worn.kind : least;
        next = s->worn.kind > b->seat->kind && s->worn.kind < next ? s->worn.kind : next;
    }
    b->kind = b->seat->kind = next < UINT32_MAX ? next : least < UINT32_MAX ? least : 0;
    return least < UINT32_MAX;
}

/* Also of a prompt that waits behind others of its tenant, of which the worker has told nothing yet. */
static uint32_t prompt_left(const struct gateway_sequence *s)
{
    return (s->prompt_tokens > 0 ? s->prompt_tokens : s->prompt_expected) - s->prompt_done;
}

static bool agrees(const struct gateway_batch *b, const struct gateway_version *v)
{
    return v == b->replica->version || v->shared_batch;
}

/* Its other sequences too then have turns of their own: who has one long prompt may have many, of which some are near
 * their end at any time, and each token of others' would wait for these. */
static bool has_long_prompt(const struct gateway_batch *b, const struct gateway_version *v)
{
    bool found = false;
    for (uint32_t i = 0; i < b->n_sequences && !found; i++) {
        const struct gateway_sequence *s = &b->sequences[i];
        found = s->request->version == v && !s->parked && prompt_left(s) > PROMPT_SHARED_MAX;
    }
    return found;
}

/* Whether the turn steps others' sequences too: then those stay behind whose tenants do not agree, or have been served
 * in others' turns far beyond what all get, or have a long prompt. */
static void share_choose(struct gateway_batch *b, const struct schedule_lease *lease)
{
    uint64_t ahead_ns = TURNS_AHEAD * LIMIT_QUANTUM_US * NS_PER_US * lease->slots;
    const struct gateway_version *turn_of = b->seat->version;
    bool behind[LIMIT_SEQUENCES], shares = agrees(b, turn_of) && !has_long_prompt(b, turn_of), others = false;
    for (uint32_t i = 0; i < b->n_sequences; i++) {
        const struct gateway_sequence *s = &b->sequences[i];
        struct gateway_version *v = s->request->version;
        bool own = v == turn_of;
        behind[i] = false;
        if (gateway_rests(s) || s->worn.kind != b->kind)
            continue;
        behind[i] = !own && (!agrees(b, v) || has_long_prompt(b, v) ||
                             !schedule_may_join(v->gateway->schedule, &v->schedule, ahead_ns));
        others = others || (!own && !behind[i]);
    }
    b->shared = shares && others;
    for (uint32_t i = 0; i < b->n_sequences && b->shared; i++)
        b->sequences[i].yields = b->sequences[i].yields || behind[i];
}

bool gateway_turn_choose(struct gateway_batch *b, const struct schedule_lease *lease)
{
    classes_set(b, lease->priority);
    b->class_top = gateway_class_top(b);
    bool some = kind_choose(b);
    share_choose(b, lease);
    return some;
}
