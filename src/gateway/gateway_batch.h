/* Language models: who waits for a place in a running batch, what runs in one, whose turn it is and who pays; part of
 * gateway_internal.h. docs/internals/scheduler.md says by which rules.
 *
 * gateway_generate.c (a request's generations) → gateway_places.c (their lines) → gateway_adapter.c (what they compute
 * with) → gateway_seat.c (asks for turns) → gateway_choose.c (what a turn steps) → gateway_turn.c (begins and ends it)
 * → gateway_share.c (who pays). */
#ifndef BULKHEAD_GATEWAY_BATCH_H
#define BULKHEAD_GATEWAY_BATCH_H

#include "base/list.h"
#include "catalog/catalog.h"
#include "channel/channel.h"
#include "gateway/gateway_quota.h"
#include "schedule/schedule.h"
#include "schedule/tokens.h"

struct bus_adapter_refused;
struct gateway_replica;
struct generation;
struct generation_event;

/* What of a tenant waits for a place in a running batch, in one class. */
struct gateway_line {
    struct schedule_tokens_account account;
    struct list requests; /* with generations that have not begun, next first */
};

/* Who waits for a place in the running batches of a version's replicas. */
struct gateway_places {
    struct schedule_tokens tokens[SCHEDULE_CLASS_COUNT];
    struct list versions;                 /* that may have requests in their lines */
    bool critical;                        /* a critical request has come: a place is kept for the next */
    uint64_t prompt_bytes, prompt_tokens; /* of texts of lately: how long a token is */
};

/* The adapter that a sequence computes with, or none (0, 0). */
struct gateway_worn {
    uint32_t number; /* in the replica */
    uint32_t kind;   /* as its worker says: those of one kind can be stepped together */
};

/* A sequence in a replica's running batch. */
struct gateway_sequence {
    struct gateway_request *request;
    uint64_t id;    /* in the channel */
    uint32_t index; /* of the request's generations */
    uint32_t max_tokens;
    uint32_t prompt_tokens, cached_tokens, prompt_done, completion_tokens; /* as last told */
    uint64_t prompt_bytes;                                                 /* 0: it was given as tokens */
    uint32_t prompt_expected;                                              /* tokens, until the worker has told them */
    struct schedule_tokens_ticket tokens;
    uint64_t n_events, n_events_max;
    uint64_t ran_ns; /* cost of the leases' time in which it was stepped, whoever else was */
    struct gateway_worn worn;
    bool parked; /* its client does not read */
    bool yields; /* it stays behind in the turn that runs: it is of a lower class, or its tenant's own turn is for it */
    bool lifted; /* its adapter was dropped for a higher class; until it is back */
    bool told_parked; /* what the worker knows; that it may go on it learns with a lease */
};

/* No turn steps it, whoever's that is, as long as one of these holds. */
static inline bool gateway_rests(const struct gateway_sequence *s)
{
    return s->parked || s->yields || s->lifted;
}

/* What was cancelled may have sent events before it knew: they are dropped until a later lease has ended. */
struct gateway_cancelled {
    uint64_t id, lease_id;
};

/* A version asks the scheduler for a lease of a language model. It belongs to the version: which of its seats gets the
 * lease is the scheduler's choice. */
struct gateway_turn {
    struct schedule_request schedule; /* first */
    struct list node;
};

/* A version that has something to run in a batch: the one of the replica itself, or one that it hosts. Each asks for
 * turns of its own; the replica runs one at a time (schedule/seat.c). */
struct gateway_seat {
    struct schedule_replica schedule; /* first */
    struct gateway_version *version;
    struct list in_batch;
    uint32_t kind;  /* of adapters, stepped last: the next turn is another's, where there is one */
    uint32_t asked; /* bit per class in which it has asked for a turn */
};

struct gateway_share {               /* of a running lease */
    struct gateway_request *request; /* NULL: it has left the batch since, and its reservation does not cover this */
    struct gateway_version *version;
    struct gateway_quota *quotas[GATEWAY_QUOTA_LEVELS]; /* its; NULL: no limits there */
    uint64_t served;                                    /* tokens, weighted */
};

struct gateway_batch {         /* of a replica of a language model */
    struct schedule_host host; /* first */
    struct gateway_replica *replica;
    struct list in_look;
    struct list seats;
    struct gateway_seat *seat; /* of the running lease … */
    struct gateway_turn *turn;
    uint32_t class_top; /* the highest class that had something to run when it began, or since */
    bool shared;        /* … which steps everybody's sequences, … */
    uint32_t kind;      /* … those with adapters of this kind; 0: those on the bare base */
    uint32_t n_sequences, n_cancelled;
    uint32_t n_silent;     /* leases in a row without an event */
    uint64_t n_events;     /* of the running lease */
    uint64_t ran_until_ns; /* its time is noted in its sequences' ran_ns until then */
    struct list adapters;  /* struct gateway_adapter: in the worker or on their way, the least recently used first */
    uint32_t adapter_last; /* the last number that was chosen */
    uint64_t slot_used;    /* bytes of the slot that no lease which has ended lies behind */
    uint32_t n_shares;     /* of the running lease: of those that were told something, each request once */
    struct gateway_share shares[LIMIT_SEQUENCES];
    struct gateway_sequence sequences[LIMIT_SEQUENCES];
    struct gateway_cancelled cancelled[2 * LIMIT_SEQUENCES];
    char event[LIMIT_EVENT_BYTES]; /* the copy that is checked */
};

/* gateway_generate.c */
/* An event of one of its generations, checked; the request may be gone afterwards. */
void gateway_generate_event(struct gateway_request *r, uint32_t index, const struct generation_event *e);
/* Its quota of tokens is used up: what still runs of it ends as if max_tokens were reached. May be gone afterwards. */
void gateway_generate_cut(struct gateway_request *r);
/* Ends it with an error, wherever its generations are. */
void gateway_generate_fail(struct gateway_request *r, int code, const struct error *err);
/* Takes its generations out of wherever they are; nothing of them comes any more. */
void gateway_generate_stop(struct gateway_request *r);
/* Its client reads again. */
void gateway_generate_resume(struct gateway_request *r);

/* gateway_places.c: who is next in the running batches */
void gateway_places_init(struct gateway_version *v);
void gateway_places_done(struct gateway_version *v); /* its requests are gone */
/* Generations of a request wait for places. Until the first of them has one it queues with the scheduler, as any
 * request: bounds of queues, overload and its deadline take it out. Refusals are those of schedule_submit. */
must_check int gateway_places_wait(struct gateway_request *r, struct error *err);
/* They do so no more; accepts one that is in no line. */
void gateway_places_leave(struct gateway_request *r);
/* One that is in a line waits in that list instead, and for no place; or does so no more. */
void gateway_places_aside(struct gateway_request *r, struct list *aside);
void gateway_places_back(struct gateway_request *r);
/* Whether a version may have one more place in the batch for that class. Lower classes cannot take all: an eighth, at
 * least one, is kept from batch, and one from both for critical requests once there was one. Nor can a tenant, of a
 * model that is lent: a sixteenth, at least one, is kept for those who have none in the batch, while there are such.
 * (None of this where there is a single place.) */
bool gateway_places_open(const struct gateway_batch *b, const struct gateway_version *v, uint32_t class);
/* The one that gets the next place in the batch, of `lowest` or a higher class; NULL: nobody waits who may have one. In
 * a worker that was started for one request that one. */
struct gateway_request *gateway_places_next(const struct gateway_batch *b, uint32_t lowest);
/* One of the version's own; NULL: none waits. */
struct gateway_request *gateway_places_first(const struct gateway_version *v);
/* The next generation of a request in a line, g, got its place: it has begun. */
void gateway_places_take(struct gateway_request *r, struct gateway_sequence *s, const struct generation *g);
/* The worker told this of it (checked), before it is noted in s. */
void gateway_places_told(struct gateway_sequence *s, const struct generation_event *e);
/* It leaves the batch; how many tokens were worked on. */
uint64_t gateway_places_end(struct gateway_sequence *s);

/* gateway_adapter.c: adapters in the workers */
/* The catalog's row of a tenant's adapter, by "adapter" or "base:adapter"; NULL: it has none of that name. */
const struct catalog_adapter *gateway_adapter_row(const struct gateway *g, const struct gateway_tenant *t,
                                                  struct str name);
/* 1: the request needs none, or it is loaded there as told; 0: it comes, and the request waits for it aside
 * (gateway_adapter_wait) until it is back in its line; or the refusal. */
must_check int gateway_adapter_get(struct gateway_batch *b, struct gateway_request *r, struct gateway_worn *ret_worn,
                                   struct error *err);
void gateway_adapter_wait(struct gateway_batch *b, struct gateway_request *r);
/* A sequence in the batch names it, or no more. */
void gateway_adapter_used(struct gateway_batch *b, uint32_t number, bool used);
/* A lease that stepped one with it is over, or the sequence is. */
void gateway_adapter_stepped(struct gateway_batch *b, uint32_t number);
/* Asks for those that are wanted, as far as there is room; drops what nobody may use. Requests may be gone. */
void gateway_adapters_continue(struct gateway_batch *b);
/* Whether the worker will say something of one. */
bool gateway_adapters_expected(const struct gateway_batch *b);
/* The worker's word. Negative: it broke the protocol. */
must_check int gateway_adapter_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err);
void gateway_adapter_refused(struct gateway *g, const struct bus_adapter_refused *body);
/* Control learns which are loaded, and what uses them, where that has changed. */
void gateway_adapters_tell(struct gateway_batch *b);
/* A new control: what the old one did not bring is asked for again. */
void gateway_adapters_again(struct gateway_batch *b);
/* A new catalog was taken. */
void gateway_adapters_sweep(struct gateway *g);
/* The replica is gone: who waited goes back to its line. */
void gateway_adapters_lost(struct gateway_batch *b);

/* gateway_share.c: who pays for a turn */
/* Of the running lease: a sequence of the request was told of so many tokens, weighted. In a turn that is not shared
 * only those of whose turn it is count. */
void gateway_share_add(struct gateway_batch *b, struct gateway_request *r, uint64_t served);
/* A sequence is about to leave the batch. */
void gateway_share_leave(struct gateway_batch *b, const struct gateway_sequence *s);
/* The lease is over: ends it in the scheduler, and charges quotas. */
void gateway_shares_complete(struct gateway_batch *b, struct schedule_lease *lease);
/* The worker was lost with it, and its sequences are still there: whose turn it was pays, in the scheduler too. */
void gateway_shares_lost(struct gateway_batch *b, const struct schedule_lease *lease);

/* gateway_seat.c: who asks for turns */
/* The seat of the batch, one of its version's, has got a turn of that class: whoever asked for it asks anew. */
void gateway_seat_turn(struct gateway_batch *b, uint32_t class);
/* The batch's lease is over and freed. Where there is more to step, and `again`, the seat has asked for its next one;
 * else it is let go. */
void gateway_seat_done(struct gateway_batch *b, struct schedule_lease *lease, bool again);
/* All seats go; the one of the running lease loses it. */
void gateway_seats_lost(struct gateway_batch *b);
/* Asks for turns where there is something to run; lets go what is drained. */
void gateway_turns_look(struct gateway *g);
/* Something of it has changed. */
void gateway_batch_look(struct gateway_batch *b);
void gateway_batches_look(struct gateway_version *v);
/* A share of a running lease keeps its version until the lease is done. */
void gateway_version_hold(struct gateway_version *v);
void gateway_version_let_go(struct gateway_version *v);

/* gateway_choose.c: what a turn steps */
/* Sets which sequences the lease that begins steps (gateway_is_stepped) and which yield. False: its seat has nothing
 * to step, but perhaps to begin. */
bool gateway_turn_choose(struct gateway_batch *b, const struct schedule_lease *lease);
/* The running lease steps it. */
bool gateway_is_stepped(const struct gateway_batch *b, const struct gateway_sequence *s);
uint32_t gateway_sequences_stepped(const struct gateway_batch *b); /* how many */
/* The highest class of what runs, or could. */
uint32_t gateway_class_top(const struct gateway_batch *b);

/* gateway_turn.c: the running batch of a replica */
must_check int gateway_batch_start(struct gateway_replica *replica);
void gateway_batch_free(struct gateway_replica *replica);
/* What becomes of it when a worker is lost. */
enum gateway_again {
    GATEWAY_AGAIN_NEVER,
    GATEWAY_AGAIN_ALL,
    GATEWAY_AGAIN_OTHERS, /* not those whose turn it was alone: the lease had no end */
};
/* The replica leaves: what it ran is lost, or tried again alone as far as its clients know nothing of it. Before
 * schedule_replica_remove, whose lease it takes over by then. */
void gateway_batch_lost(struct gateway_replica *replica, const struct error *err, enum gateway_again again);
/* The lease was granted. Negative: it takes no frames. */
must_check int gateway_turn_begin(struct gateway_replica *replica, struct schedule_lease *lease);
must_check int gateway_turn_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err);
/* Something of a higher class came than there was in the running lease: what it steps makes way, within a step. */
void gateway_batch_yield(struct gateway_batch *b);
/* Those with that adapter, which is about to be dropped, are parked until it is back: within a step. */
void gateway_sequences_lift(struct gateway_batch *b, uint32_t number);
/* A request that has such a sequence, by the adapter's uid; NULL: there is none. */
struct gateway_request *gateway_lifted_first(const struct gateway_batch *b, uint64_t adapter_uid);
/* It is back; returns how many have it. */
uint32_t gateway_lifted_return(struct gateway_batch *b, uint64_t adapter_uid, struct gateway_worn worn);
/* Sends the word that a request's sequences are not to be stepped, or not wanted any more. */
void gateway_batches_park(struct gateway_request *r, bool parked);
void gateway_batches_cancel(struct gateway_request *r);
/* Cancels one of them, and says what it was; false: there is none. */
bool gateway_batches_take(struct gateway_request *r, struct gateway_sequence *ret_sequence);
#endif
