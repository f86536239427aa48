/* Replicas of several targets that are one worker. A lease on one seat takes the host's others out of their targets
 * until it ends.
 *
 * A tenant that only such a host keeps from running is *held*, and so is the one that has the lease and more queued.
 * The order among them must be what it would be if they had the host for themselves, though others, elsewhere, move
 * virtual time on meanwhile: were each of them lifted to virtual time as it comes back, as a tenant is that waited for
 * a replica of its own, who has short leases would lose, each time, what a neighbour's long lease took. So a held
 * tenant keeps its virtual time V, and when the host is free all who wait for it are moved on together, by as much as
 * brings the last of them to v: none lies behind v, and the distances between them stay. Nobody is moved on by more
 * than v has grown since it began to be held: so V ≤ v + (what one's own leases are ahead) stays true as well. */
#include "schedule/schedule_internal.h"

static struct schedule_replica *seat_at(struct list *node)
{
    return container_of(node, struct schedule_replica, _in_host);
}

/* The flow that the seat's target has in a class, if hosts are all that keeps it from running. */
static struct schedule_flow *held_flow(const struct schedule_replica *seat, uint32_t class)
{
    const struct schedule_lane *lane = seat->target->_lanes[class];
    return lane && lane->held && lane->flow->held_ns ? lane->flow : NULL;
}

static void held_move_on(struct schedule_host *host, struct schedule_class_state *c, uint32_t class)
{
    unsigned __int128 least = c->vtime;
    list_each(node, &host->_seats)
    {
        const struct schedule_flow *f = held_flow(seat_at(node), class);
        least = f && f->vtime < least ? f->vtime : least;
    }
    if (least == c->vtime)
        return;
    list_each(other, &host->_seats)
    {
        struct schedule_flow *f = held_flow(seat_at(other), class);
        if (!f)
            continue;
        unsigned __int128 most = c->vtime - ((unsigned __int128)(f->held_ns - 1) << 32), by = c->vtime - least;
        f->vtime += by < most ? by : most;
        f->held_ns = (uint64_t)(c->vtime >> 32) + 1;
        if (f->vtime > c->vtime_most)
            c->vtime_most = f->vtime;
    }
}

void schedule_seats_take(struct schedule *s, struct schedule_replica *r)
{
    r->target->_n_seats_out++;
    list_each(node, &r->host->_seats)
    {
        struct schedule_replica *seat = seat_at(node);
        if (seat == r)
            continue;
        assert(list_linked(&seat->_node));
        list_remove(&seat->_node);
        seat->target->replicas_free--;
        seat->target->_n_seats_out++;
        schedule_target_update(s, seat->target);
    }
}

void schedule_seats_give(struct schedule *s, struct schedule_replica *r)
{
    struct schedule_device *d = &s->devices[r->target->device];
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        held_move_on(r->host, &d->classes[class], class);
    list_each(node, &r->host->_seats)
    {
        struct schedule_replica *seat = seat_at(node);
        seat->target->_n_seats_out--;
        schedule_replica_give(seat->target, seat);
        schedule_target_update(s, seat->target);
    }
}

void schedule_seat_remove(struct schedule_replica *r)
{
    if (list_linked(&r->_node)) {
        list_remove(&r->_node);
        r->target->replicas_free--;
    } else {
        r->target->_n_seats_out--;
    }
    list_remove(&r->_in_host);
}

void schedule_seat_add(struct schedule *s, struct schedule_replica *r, struct schedule_target *g,
                       struct schedule_host *host)
{
    assert(!r->target && g->tenant);
    if (!host->_seats.next)
        list_init(&host->_seats);
    bool busy = false;
    list_each(node, &host->_seats)
    {
        assert(seat_at(node)->target->device == g->device);
        busy = busy || !list_linked(&seat_at(node)->_node);
    }
    r->target = g;
    r->lease = NULL;
    r->host = host;
    list_append(&host->_seats, &r->_in_host);
    g->replicas++;
    if (busy)
        g->_n_seats_out++;
    else
        schedule_replica_give(g, r);
    schedule_target_update(s, g);
}
