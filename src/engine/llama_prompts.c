/* How many tokens of which prompts a step works on. */
#include "engine/llama_internal.h"

/* What is left of a tenant's prompts, given all so far. */
static uint32_t tenant_left(struct llama_sequence *const prompts[], uint32_t n, uint64_t tenant_id)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < n; i++)
        if (prompts[i]->tenant_id == tenant_id)
            left += llama_left_of(prompts[i]) - prompts[i]->n_wanted;
    return left;
}

static bool tenant_before(struct llama_sequence *const prompts[], uint32_t first, uint32_t k, uint32_t n)
{
    for (uint32_t i = 0; i < k; i++)
        if (prompts[(first + i) % n]->tenant_id == prompts[(first + k) % n]->tenant_id)
            return true;
    return false;
}

/* Equal parts for the tenants; of each its oldest prompt first, so that one of them comes to its answer soon. Returns
 * what is left of the room. */
static uint32_t prompts_share(struct llama_sequence *const prompts[], uint32_t n, uint32_t first, uint32_t room)
{
    uint32_t tenants = 0;
    for (uint32_t k = 0; k < n; k++)
        tenants +=
            !tenant_before(prompts, first, k, n) && tenant_left(prompts, n, prompts[(first + k) % n]->tenant_id) > 0;
    for (uint32_t k = 0; k < n && tenants > 0; k++) {
        uint64_t tenant_id = prompts[(first + k) % n]->tenant_id;
        if (tenant_before(prompts, first, k, n) || tenant_left(prompts, n, tenant_id) == 0)
            continue;
        uint32_t part = (room + tenants - 1) / tenants;
        tenants--;
        for (uint32_t i = 0; i < n; i++) {
            struct llama_sequence *s = prompts[i];
            uint32_t left = s->tenant_id == tenant_id ? llama_left_of(s) - s->n_wanted : 0;
            uint32_t given = left < part ? left : part;
            s->n_wanted += given;
            part -= given;
            room -= given;
        }
    }
    return room;
}

/* Of each tenant the oldest prompt first, the tenants by turns, then each one's next. */
static void prompts_order(struct llama_sequence *prompts[], uint32_t n, uint64_t turn)
{
    uint32_t keys[LLAMA_SEQUENCES], tenant[LLAMA_SEQUENCES], behind[LLAMA_SEQUENCES], tenants = 0;
    for (uint32_t i = 0; i < n; i++) {
        behind[i] = 0;
        tenant[i] = tenants;
        for (uint32_t j = 0; j < i; j++)
            if (prompts[j]->tenant_id == prompts[i]->tenant_id) {
                behind[i]++;
                tenant[i] = tenant[j];
            }
        tenants += behind[i] == 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct llama_sequence *s = prompts[i];
        uint32_t key = behind[i] * tenants + (tenant[i] + tenants - (uint32_t)(turn % tenants)) % tenants, at = i;
        for (; at > 0 && keys[at - 1] > key; at--) {
            keys[at] = keys[at - 1];
            prompts[at] = prompts[at - 1];
        }
        keys[at] = key;
        prompts[at] = s;
    }
}

/* Beside answers there is little room, and a call costs as much as ten tokens before it has any: so one prompt gets all
 * of it, and others what that leaves only where it brings them to their end. */
static void prompts_want_few(struct llama_sequence *prompts[], uint32_t n, uint64_t turn, uint32_t room)
{
    bool first = true;
    prompts_order(prompts, n, turn);
    for (uint32_t i = 0; i < n && room > 0; i++) {
        struct llama_sequence *s = prompts[i];
        if (!first && llama_left_of(s) > room)
            continue;
        s->n_wanted = llama_left_of(s) < room ? llama_left_of(s) : room;
        room -= s->n_wanted;
        first = false;
    }
}

/* What each prompt gets in this step: whole blocks where it can, and never one token, nor all but one. */
void llama_prompts_want(struct llama *l, struct llama_sequence *prompts[], uint32_t n, bool busy)
{
    uint32_t room = l->prompt_tokens, before = 0;
    for (uint32_t i = 0; i < LLAMA_SEQUENCES; i++)
        l->sequences[i].n_wanted = 0;
    if (busy)
        prompts_want_few(prompts, n, l->stats.steps, room < LLAMA_PREFILL_BUSY ? room : LLAMA_PREFILL_BUSY);
    while (n > 0 && !busy && room > 0 && room != before) {
        before = room;
        room = prompts_share(prompts, n, (uint32_t)(l->stats.steps % n), room);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct llama_sequence *s = prompts[i];
        if (l->block > 0 && s->n_wanted > l->block && s->n_wanted < llama_left_of(s))
            s->n_wanted -= s->n_wanted % l->block;
        while (s->n_wanted == 1 || (s->n_wanted > 0 && llama_left_of(s) - s->n_wanted == 1))
            s->n_wanted++;
    }
}
