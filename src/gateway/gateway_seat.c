/* Whoever has something to step in a language model's running batch asks the scheduler for turns there: the model's own
 * tenant and each to whom it is lent, with its own weight and class. To the scheduler each has a seat on the replica,
 * which runs one lease at a time. Turns queue as requests do. */
#include "gateway/gateway_internal.h"

#include <assert.h>
#include <string.h>

void gateway_version_hold(struct gateway_version *v)
{
    v->n_held++;
}

void gateway_version_let_go(struct gateway_version *v)
{
    v->n_held--;
    gateway_version_release(v);
}

void gateway_batch_look(struct gateway_batch *b)
{
    if (!list_linked(&b->in_look))
        list_append(&b->replica->gateway->look, &b->in_look);
}

void gateway_batches_look(struct gateway_version *v)
{
    list_each(node, &gateway_version_host(v)->replicas)
    {
        struct gateway_replica *replica = container_of(node, struct gateway_replica, in_version);
        if (replica->batch)
            gateway_batch_look(replica->batch);
    }
}

/* Bit per class in which a version has something to step in the batch, or to put into it. */
static uint32_t classes_wanted(const struct gateway_batch *b, const struct gateway_version *v)
{
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (!b->sequences[i].parked && !b->sequences[i].lifted && b->sequences[i].request->version == v)
            wanted |= 1u << b->sequences[i].request->schedule.priority;
    if (b->replica->lone) {
        const struct gateway_request *r = gateway_places_next(b, SCHEDULE_CLASS_COUNT - 1);
        return r && r->version == v ? wanted | 1u << r->schedule.priority : wanted;
    }
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT && v->n_generating > 0; class ++)
        if (!list_empty(&v->lines[class].requests) && gateway_places_open(b, v, class))
            wanted |= 1u << class;
    return wanted;
}

/* False: no memory; asked again when something has moved. */
static bool turn_ask(struct gateway_version *v, uint32_t class)
{
    struct gateway_turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        return false;
    turn->schedule = (struct schedule_request){
        .target = &v->schedule, .priority = (enum schedule_class) class, .rows = 1, .carries_nothing = true};
    if (schedule_submit(v->gateway->schedule, &turn->schedule, uv_hrtime(), NULL) < 0) {
        free(turn);
        return false;
    }
    list_append(&v->turns_queued[class], &turn->node);
    return true;
}

static void turn_take_back(struct gateway_version *v, uint32_t class)
{
    struct gateway_turn *turn = container_of(list_first(&v->turns_queued[class]), struct gateway_turn, node);
    list_remove(&turn->node);
    bool queued = schedule_cancel(v->gateway->schedule, &turn->schedule);
    assert(queued);
    free(turn);
}

/* The seat has asked for a turn in each of these classes, and in no other; false: not in all. */
static bool turns_set(struct gateway_seat *seat, uint32_t wanted)
{
    bool all = true;
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        uint32_t bit = 1u << class;
        if ((wanted & bit) && !(seat->asked & bit)) {
            bool asked = turn_ask(seat->version, class);
            seat->asked |= asked ? bit : 0;
            all = all && asked;
        } else if (!(wanted & bit) && (seat->asked & bit)) {
            turn_take_back(seat->version, class);
            seat->asked &= ~bit;
        }
    }
    return all;
}

static void seat_free(struct gateway_seat *seat)
{
    struct gateway_version *v = seat->version;
    list_remove(&seat->in_batch);
    free(seat);
    gateway_version_let_go(v);
}

/* The seat has no lease and gets none. */
static void seat_leave(struct gateway_seat *seat)
{
    struct schedule_lease *none = NULL;
    (void)turns_set(seat, 0); /* takes back only */
    schedule_replica_remove(seat->version->gateway->schedule, &seat->schedule, uv_hrtime(), &none);
    assert(!none);
    seat_free(seat);
}

static struct gateway_seat *seat_find(struct gateway_batch *b, const struct gateway_version *v)
{
    list_each(node, &b->seats)
    {
        struct gateway_seat *seat = container_of(node, struct gateway_seat, in_batch);
        if (seat->version == v)
            return seat;
    }
    return NULL;
}

/* A seat for whoever wants one and has none. False: tried again when something has moved. */
static bool seat_take(struct gateway_batch *b, struct gateway_version *v)
{
    uint32_t wanted = seat_find(b, v) ? 0 : classes_wanted(b, v);
    if (wanted == 0)
        return true;
    struct gateway_seat *seat = calloc(1, sizeof *seat);
    if (!seat)
        return false;
    seat->version = v;
    bool all = turns_set(seat, wanted);
    if (seat->asked == 0) {
        free(seat);
        return false;
    }
    gateway_version_hold(v);
    list_append(&b->seats, &seat->in_batch);
    schedule_seat_add(v->gateway->schedule, &seat->schedule, &v->schedule, &b->host);
    return all;
}

void gateway_seat_turn(struct gateway_batch *b, uint32_t class)
{
    struct gateway_version *v = b->seat->version;
    uint32_t bit = 1u << class;
    struct gateway_seat *seat = b->seat;
    list_each(node, &gateway_version_host(v)->replicas)
    {
        if (seat && (seat->asked & bit))
            break;
        struct gateway_batch *other = container_of(node, struct gateway_replica, in_version)->batch;
        seat = other ? seat_find(other, v) : NULL;
        if (seat && (seat->asked & bit))
            gateway_batch_look(other); /* its turn went to another of the seats: it asks again */
    }
    assert(seat && (seat->asked & bit));
    seat->asked &= ~bit;
}

static bool seats_look(struct gateway_batch *b)
{
    bool all = true;
    gateway_adapters_continue(b);
    list_each_safe(node, &b->seats)
    {
        struct gateway_seat *seat = container_of(node, struct gateway_seat, in_batch);
        uint32_t wanted = seat != b->seat ? classes_wanted(b, seat->version) : seat->asked;
        if (wanted == 0 && seat != b->seat)
            seat_leave(seat);
        else
            all = turns_set(seat, wanted) && all;
    }
    for (uint32_t i = 0; i < b->n_sequences; i++)
        if (!b->sequences[i].parked) /* also one that yields: its class has a share */
            all = seat_take(b, b->sequences[i].request->version) && all;
    struct gateway_request *alone = b->replica->lone ? gateway_lone_next(b->replica->lone) : NULL;
    if (alone)
        all = seat_take(b, alone->version) && all;
    list_each_safe(waiting, &b->replica->version->places.versions)
    {
        struct gateway_version *v = container_of(waiting, struct gateway_version, in_generating);
        if (v->n_generating == 0)
            list_remove(waiting);
        else
            all = seat_take(b, v) && all;
    }
    return all;
}

void gateway_turns_look(struct gateway *g)
{
    struct list later;
    list_init(&later);
    for (struct list *node; (node = list_first(&g->look));) {
        struct gateway_batch *b = container_of(node, struct gateway_batch, in_look);
        struct gateway_replica *replica = b->replica;
        list_remove(node);
        if (replica->state != GATEWAY_REPLICA_READY && replica->state != GATEWAY_REPLICA_DRAINING)
            continue;
        gateway_batch_yield(b);
        if (!seats_look(b))
            list_append(&later, node);
        else if (list_empty(&b->seats) && b->n_sequences == 0)
            gateway_replica_idle(replica); /* perhaps the end of it */
    }
    for (struct list *node; (node = list_first(&later));) {
        list_remove(node);
        list_append(&g->look, node);
    }
}

/* --- the end of a lease --- */

void gateway_seat_done(struct gateway_batch *b, struct schedule_lease *lease, bool again)
{
    struct gateway *g = b->replica->gateway;
    struct gateway_seat *seat = b->seat;
    /* Before it ends: so the seat keeps its place in the order. What is missing is asked for later. */
    (void)turns_set(seat, again ? classes_wanted(b, seat->version) : 0);
    gateway_shares_complete(b, lease);
    free(take(&b->turn));
    b->seat = NULL;
    schedule_lease_free(g->schedule, lease);
    if (seat->asked == 0)
        seat_leave(seat);
    gateway_batch_look(b);
}

void gateway_seats_lost(struct gateway_batch *b)
{
    struct gateway *g = b->replica->gateway;
    struct gateway_seat *seat = take(&b->seat);
    if (seat) {
        struct schedule_lease *lost = NULL;
        (void)turns_set(seat, 0);
        schedule_replica_remove(g->schedule, &seat->schedule, uv_hrtime(), &lost);
        assert(lost);
        schedule_lease_free(g->schedule, lost);
        free(take(&b->turn));
        seat_free(seat);
    }
    list_each_safe(node, &b->seats) seat_leave(container_of(node, struct gateway_seat, in_batch));
}
