#include "schedule/tokens.h"

#include "base/list.h"
#include "schedule/order.h"

#include <assert.h>

#define UNIT (UINT64_C(1) << 20)

static struct schedule_tokens_account *account_of(struct schedule_order_node *node)
{
    return container_of(node, struct schedule_tokens_account, _node);
}

/* What nobody who waits is below: the lift's level. */
static uint64_t level(const struct schedule_tokens *t)
{
    return t->_waiting ? t->_waiting->key : t->_left ? t->_left->count : t->_left_count;
}

static void count_set(struct schedule_tokens *t, struct schedule_tokens_account *a, uint64_t count)
{
    a->count = count;
    if (!a->waits)
        return;
    schedule_order_remove(&t->_waiting, &a->_node);
    schedule_order_insert(&t->_waiting, &a->_node, count);
}

void schedule_tokens_wait(struct schedule_tokens *t, struct schedule_tokens_account *a)
{
    if (a->waits)
        return;
    uint64_t least = level(t);
    if ((int64_t)(a->count - least) < 0)
        a->count = least;
    a->waits = true;
    schedule_order_insert(&t->_waiting, &a->_node, a->count);
}

void schedule_tokens_leave(struct schedule_tokens *t, struct schedule_tokens_account *a)
{
    if (!a->waits)
        return;
    a->waits = false;
    schedule_order_remove(&t->_waiting, &a->_node);
    t->_left = a;
}

struct schedule_tokens_account *schedule_tokens_next(const struct schedule_tokens *t)
{
    return t->_waiting ? account_of(t->_waiting) : NULL;
}

static uint64_t per_token(uint32_t weight)
{
    assert(weight > 0);
    return UNIT / weight > 0 ? UNIT / weight : 1;
}

bool schedule_tokens_may_pass(const struct schedule_tokens *t, const struct schedule_tokens_account *a, uint32_t weight,
                              uint32_t most, const struct schedule_tokens_barred *next)
{
    uint64_t lead = (uint64_t)next->expected * SCHEDULE_TOKEN_INPUT * per_token(next->weight);
    uint64_t bound = (uint64_t)most * SCHEDULE_TOKEN_OUTPUT * per_token(weight);
    return (int64_t)(a->count - level(t)) <= (int64_t)(lead < bound ? lead : bound);
}

void schedule_tokens_admit(struct schedule_tokens *t, struct schedule_tokens_account *a,
                           struct schedule_tokens_ticket *ticket, uint32_t weight, uint32_t expected)
{
    *ticket = (struct schedule_tokens_ticket){._per_token = per_token(weight)};
    schedule_tokens_input(t, a, ticket, expected > 0 ? expected : 1);
}

void schedule_tokens_input(struct schedule_tokens *t, struct schedule_tokens_account *a,
                           struct schedule_tokens_ticket *ticket, uint32_t input)
{
    uint64_t change = (uint64_t)input - ticket->_input; /* modulo 2^64, as counts are */
    ticket->_input = input;
    if (change != 0)
        count_set(t, a, a->count + change * SCHEDULE_TOKEN_INPUT * ticket->_per_token);
}

void schedule_tokens_output(struct schedule_tokens *t, struct schedule_tokens_account *a,
                            const struct schedule_tokens_ticket *ticket, uint32_t output)
{
    if (output > 0)
        count_set(t, a, a->count + (uint64_t)output * SCHEDULE_TOKEN_OUTPUT * ticket->_per_token);
}

void schedule_tokens_forget(struct schedule_tokens *t, struct schedule_tokens_account *a)
{
    assert(!a->waits);
    if (t->_left != a)
        return;
    t->_left = NULL;
    t->_left_count = a->count;
}
