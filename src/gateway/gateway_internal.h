/* State of the gateway process; shared by the files of this room only.
 *
 * A request's journey through this room: gateway_http.c (head: route, authenticate, admit) → api/serve (handler) →
 * gateway_infer.c (decode, submit) → gateway_lease.c (gather into the channel; take outputs) → gateway_infer.c (encode,
 * answer). */
#ifndef BULKHEAD_GATEWAY_INTERNAL_H
#define BULKHEAD_GATEWAY_INTERNAL_H

#include "base/arena.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "base/slab.h"
#include "bus/bus_loop.h"
#include "bus/metrics.h"
#include "bus/quota.h"
#include "catalog/catalog.h"
#include "channel/channel.h"
#include "gateway/gateway.h"
#include "gateway/gateway_batch.h"
#include "gateway/gateway_quota.h"
#include "schedule/schedule.h"

#include <openssl/evp.h>
#include <uv.h>

#define GATEWAY_KEY_BYTES_MAX 128u /* longer credentials are nobody's */

struct gateway_tenant {
    struct schedule_tenant schedule; /* first */
    struct gateway_quota *quota;     /* NULL: nothing of it is used */
    struct bus_tenant_now told;      /* what control knows of what it uses now */
    struct wire_owner *owner;        /* of its connections; NULL: it has none */
    struct budget_share memory;      /* of gateway.memory */
    uint64_t uid;
    uint64_t generation;             /* of the last catalog that held it … */
    uint32_t index;                  /* … and its place there */
    struct bus_metrics_row *metrics; /* of requests that have no model yet; NULL before the first */
    uint32_t n_versions;
    uint32_t n_requests; /* alive, in any state */
    uint32_t n_waiting;  /* waiting for a signature */
    uint32_t classes;    /* bit per class that its requests may have */
    char name[LIMIT_NAME_BYTES + 1];
};

struct gateway_version {
    struct schedule_target schedule; /* first */
    struct gateway *gateway;
    struct gateway_tenant *tenant;
    uint64_t key;            /* in gateway.versions */
    uint64_t uid, model_uid; /* uid: of the owner's version, where it is lent */
    uint64_t generation;
    struct tensor_signature *signature; /* NULL until a replica told it */
    bool shapes_fixed;                  /* beyond the batch axis no dim is dynamic: all requests may share a batch */
    struct list waiting;                /* requests that wait for the signature */
    struct list replicas;               /* all that exist, in any phase */
    struct gateway_line lines[SCHEDULE_CLASS_COUNT];
    struct gateway_places places;
    struct schedule_target lobby;  /* has no replicas: requests of the lines queue there until they begin */
    uint64_t n_generating;         /* generations in its lines */
    struct gateway_version *host;  /* whose replicas serve it: those of the model that is lent; NULL: its own */
    struct list guests, in_guests; /* the other way round */
    struct list in_generating;     /* in its host's places.versions, at least while it has some in its lines */
    struct list turns_queued[SCHEDULE_CLASS_COUNT]; /* struct gateway_turn; one for each seat that asked for it */
    uint32_t n_held; /* by seats, guests and shares of leases: its memory stays as long */
    bool lent;
    bool shared_batch; /* it is lent, and a turn may step its sequences with those of others who agree */
    uint32_t n_replicas;
    uint32_t n_requests; /* alive, in any state: the version's memory stays as long */
    uint32_t replicas_max;
    uint64_t cost_ns;          /* of a lease, slots counted: the most of lately; 0 = none has ended */
    uint64_t token_cost_ns;    /* of a token of a sequence that were alone; likewise */
    uint32_t demanded;         /* replicas asked of control and not yet seen */
    uint64_t demanded_ns;      /* when */
    uint64_t refused_until_ns; /* after a failed start */
    struct error refusal;
    uint64_t idle_since_ns, idle_after_ns;
    uint64_t blocked_logged_ns;          /* when a worker's refused calls were logged last; 0: never */
    struct bus_metrics_row *metrics;     /* shared by the model's versions; NULL before the first figure */
    struct gateway_version_stats *stats; /* NULL until the first inference request */
    uint32_t number;
    uint32_t batch_max;
    uint32_t n_preferred, preferred[LIMIT_BATCH_PREFERRED];
    uint32_t weight, slots, device;
    bool dedicated; /* its replicas have cores of their own; never changes */
    uint64_t delay_ns;
    enum schedule_class class; /* of requests that name none */
    bool cancellable;          /* its workers give running leases up: the last one loaded said so … */
    bool disobeyed;            /* … and no one has shown otherwise */
    char number_text[12];
    char model[LIMIT_NAME_BYTES + 1];
};

/* The life of a replica as the gateway sees it:
 *
 *   ANNOUNCED ─channel─► OPENING ─OPEN─► LOADING ─signature─► READY ─► DRAINING ─► GONE
 *        (any) ─ended, protocol broken, overdue──────────────────────────────────► GONE
 */
enum gateway_replica_state {
    GATEWAY_REPLICA_ANNOUNCED = 1,
    GATEWAY_REPLICA_OPENING,
    GATEWAY_REPLICA_LOADING,
    GATEWAY_REPLICA_READY,
    GATEWAY_REPLICA_DRAINING,
    GATEWAY_REPLICA_GONE, /* waiting for the supervisor's word that it ended */
    GATEWAY_REPLICA_STATE_COUNT
};

struct gateway_output { /* of the running lease */
    bool started, complete;
    enum tensor_dtype dtype;
    struct tensor_shape shape;
    uint64_t bytes, received;
    uint32_t pieces;
    uint64_t cut_row, cut; /* answers take their rows in order: where the next one's begin, and at which byte */
    const char *data;      /* in the outbox (fixed-size datatype in one piece), else == copy */
    char *copy;            /* gateway's own memory */
};

enum { GATEWAY_PHASE_INPUT, GATEWAY_PHASE_INFER, GATEWAY_PHASE_OUTPUT, GATEWAY_PHASES };

struct gateway_replica {
    struct schedule_replica schedule; /* first; registered while READY or DRAINING with a lease */
    struct gateway *gateway;
    struct gateway_version *version; /* NULL while its version is not in the catalog */
    struct list in_version, in_busy;
    uint64_t uid, version_uid;
    uint64_t tenant_uid; /* 0: not told yet */
    enum gateway_replica_state state;
    uint32_t level;            /* LADDER's rank, as the supervisor told */
    struct gateway_lone *lone; /* it was started for one request; NULL: it serves its version */
    struct channel *channel;
    uv_poll_t *bell;
    short bell_events;         /* that it polls for */
    bool opened;               /* the worker has said OPEN */
    bool loaded;               /* it was READY once */
    uint64_t n_rings, n_taken; /* bells heard, frames taken: an honest worker rings for frames only */
    uint64_t start_limit_ns;
    uint64_t lease_id;
    struct schedule_lease *lease;
    struct gateway_batch *batch;      /* NULL: no language model */
    uint32_t rows;                    /* of the running lease: the sum of its requests' rows */
    uint32_t n_cancelled;             /* of the running lease: requests that nobody waits for any more */
    uint64_t started_ns, sent_ns;     /* of the running lease: granted; its last frame pushed */
    uint64_t took_ns[GATEWAY_PHASES]; /* of the lease that just ended */
    uint32_t n_frames;                /* taken since the last lease began */
    uint64_t copied_bytes;            /* of the running lease's outputs: the sum of their copies */
    uint64_t outputs_wanted;
    struct gateway_output outputs[LIMIT_TENSORS];
    struct blocked_list blocked; /* system calls that its filter refused: the worker's own word */
    bool blocked_untold;         /* control does not know all of it */
    bool blocked_logged;
};

/* The life of a request:
 *
 *                                                               ┌─pre-empted─┐
 *   READING ─body─► HANDLED ─► WAITING (for a signature) ─► QUEUED ─────► LEASED ─► ANSWERED
 *                      └────────────────────────────────────┘ │                    ▲
 *      READING ─ large body ─► LARGE ─► HANDLED
 *      HANDLED, WAITING ─ language models ─► GENERATING ──────────────────────────┘
 *      (any but ANSWERED) ─ refused, failed, client gone ─────┴────────────────────┘
 *
 * LEASED ─ its shared worker was lost ─► QUEUED, once, for a worker of its own (gateway_lone.c). What is GENERATING
 * stays that, and waits for one.
 */
enum gateway_request_state {
    GATEWAY_REQUEST_READING = 1,
    GATEWAY_REQUEST_HANDLED,
    GATEWAY_REQUEST_WAITING,
    GATEWAY_REQUEST_QUEUED,
    GATEWAY_REQUEST_LEASED,
    GATEWAY_REQUEST_GENERATING, /* its generations queue or run */
    GATEWAY_REQUEST_ANSWERED,
    GATEWAY_REQUEST_LARGE, /* its large body is there; handled when it is its turn */
    GATEWAY_REQUEST_STATE_COUNT
};

struct gateway_request {
    struct schedule_request schedule; /* first */
    struct gateway *gateway;
    enum gateway_request_state state;
    struct wire_exchange *x; /* NULL: came over the bus, or the client is gone */
    uint64_t infer_id;       /* of the bus; 0: came over the wire */
    const struct gateway_route *route;
    struct gateway_tenant *tenant;
    struct gateway_version *version;
    struct list node; /* in version->waiting, gateway.large, a quota's queue or the free list */
    struct gateway_quota *quotas[GATEWAY_QUOTA_LEVELS]; /* that it counts in; NULL: no limits there */
    struct schedule_quota_ticket tickets[GATEWAY_QUOTA_LEVELS];
    enum bus_metrics_refusal refused_by; /* by which limit, where one did */
    uint64_t quota_ready_ns;             /* its body is not read before … */
    uint64_t quota_bytes;                /* … and has so many; 0 = not known */
    bool quota_paused;                   /* it is in gateway_quotas.paused */
    bool quota_waited;                   /* it has waited for a reservation: others do not come before it again */
    uint64_t quota_amount;               /* that it waits to reserve */
    /* While it is tried again, alone; never a third time. */
    struct gateway_lone *lone;
    bool tried_alone;
    uint64_t id;
    uint64_t arrival_ns; /* of an inference request: its body was there; 0: another request */
    uint64_t deadline_ns;
    uint32_t rows; /* along the batch axis, may be 0 (the scheduler then counts 1); 1 when the model is not batchable */
    struct str params[GATEWAY_PARAMS_MAX];
    struct str body;
    size_t json_size;
    void (*next)(struct gateway_request *r, const struct tensor_signature *signature);
    void *user; /* of the surface */
    void (*release)(void *user);
    const struct gateway_generate *generate; /* GENERATING */
    uint32_t n_generations, n_started, n_ended;
    uint32_t n_choices;   /* so many generations after each other have one prompt */
    uint64_t tokens_max;  /* that all of them can take */
    uint64_t tokens_paid; /* of its quotas; when it is tried again, … */
    uint64_t tokens_free; /* … so many of these cost nothing */
    uint64_t begun_ns;    /* the first of them got its place; 0: none yet */
    bool streaming;       /* the head of its answer is out */
    bool aside;           /* it waits for its adapter, or to be tried again, and not in a line */
    uint64_t adapter_uid; /* of the catalog, when it came; 0: the bare base */
    char adapter_name[LIMIT_NAME_BYTES + 1];
    uint64_t streamed_bytes; /* of an answer that streams, so far */
    bool stopped;            /* the client does not read: nothing runs */
    size_t held_bytes;       /* of gateway.memory, beside the arena's: gateway_hold */
    struct arena arena;
    struct oip_request oip; /* valid from decode on; large */
};

/* One per connection that has authenticated. */
struct gateway_connection {
    struct list node;    /* gateway.connections */
    void **handle;       /* wire's, to end it */
    uint64_t generation; /* of the catalog that `tenant` was looked up in */
    struct gateway_tenant *tenant;
    size_t key_bytes;
    char key[GATEWAY_KEY_BYTES_MAX];
};

struct gateway {
    uv_loop_t loop;
    struct bus_role_config config;
    struct bus_conn *supervisor, *control;
    struct wire_server *server;
    struct schedule *schedule;
    struct catalog *catalog;
    struct gateway_tenant **tenant_at;   /* [n_tenants of catalog] */
    struct gateway_version **version_at; /* [n_versions of catalog]; NULL until it is first asked for */
    struct map tenants, versions, replicas, requests;
    struct slab tenants_slab;
    struct gateway_quotas quotas;
    struct list busy;        /* replicas whose channel is looked at every turn */
    struct list look;        /* struct gateway_batch: does it need a turn, or is it drained? */
    bool look_again;         /* a turn had nothing to step: what it took back is asked for before the loop sleeps */
    struct list large;       /* requests whose large bodies wait to be handled */
    uint64_t large_last;     /* uid of the tenant whose was handled last; 0: none */
    struct list connections; /* struct gateway_connection */
    struct list lones_waiting, lones_running;
    uint32_t n_lones_running; /* demanded, so that their replicas exist or will */
    struct list requests_free;
    uint32_t n_requests_free;
    uint64_t request_id_last, lease_id_last;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer; /* the scheduler's next deadline */
    uv_timer_t housekeeping;
    uint64_t timer_ns;    /* when `timer` will fire; UINT64_MAX: stopped */
    struct buf answer;    /* scratch for one answer */
    struct budget memory; /* what requests take beside their bodies: decoded, and answers that are gathered */
    struct hash_seed shape_seed;
    struct hash_seed cache_seeds[2]; /* each tenant's secret for the prefix caches comes of them */
    EVP_MD_CTX *sha_ctx;
    EVP_MD *sha;
    struct bus_stats stats, stats_sent;
    struct bus_metrics *metrics;
    int metrics_fd;           /* for each control process */
    int no_memory_fd;         /* an answer for the operator when there is no memory for one: a sealed memfd … */
    uint64_t no_memory_bytes; /* … of so many bytes */
    bool draining;
};

/* gateway_request.c: pool and states */
struct gateway_request *gateway_request_new(struct gateway *g);
void gateway_request_state_set(struct gateway_request *r, enum gateway_request_state state);
/* It is that tenant's from now on, once. */
void gateway_request_own(struct gateway_request *r, struct gateway_tenant *t);
/* It fails with `code` (of either sign): the code to tell, which is another one where memory was refused because of
 * others' requests or its tenant's. Then err is set. */
int gateway_memory_explain(const struct gateway_request *r, int code, struct error *err);
/* Ends a request that has been answered (or whose client is gone); its memory is reused. */
void gateway_request_free(struct gateway_request *r);

/* gateway_http.c */
extern const struct wire_handler gateway_wire_handler;
/* Makes what the operator is answered when nothing can be made any more. -ERROR_NO_MEMORY, -ERROR_IO. */
must_check int gateway_bus_answers_start(struct gateway *g);
/* A request of the operator (`bulkhead infer`). */
void gateway_bus_infer(struct gateway *g, const struct bus_infer *body, int fd);
/* The control process that asked is gone: nobody waits for these answers, and the next one counts from 1 again. */
void gateway_bus_infers_lost(struct gateway *g);

/* gateway_large.c */
/* Its body is there: the route's handler, which may free r. */
void gateway_request_handle(struct gateway_request *r);
/* The same for a body of LIMIT_TURN_BYTES or more, in this turn of the loop or in a later one. */
void gateway_large_add(struct gateway_request *r);
/* Once per turn, when all that sockets had is read: handles some, the tenants one by one. */
void gateway_large_turn(struct gateway *g);

/* gateway_auth.c: the tenant of a request's key, and the key's id (CATALOG_KEY_ID_BYTES in the request's head). 0, or
 * -ERROR_UNAUTHENTICATED; -ERROR_NO_MEMORY says nothing about the key. */
must_check int gateway_authenticate(struct gateway *g, struct wire_exchange *x, struct gateway_tenant **ret_tenant,
                                    const char **ret_key_id, struct error *err);
void gateway_connection_closed(void *ctx, void *connection);

/* gateway_catalog.c */
must_check int gateway_catalog_take(struct gateway *g, int fd, size_t bytes, struct error *err);
/* The one whose replicas a tenant's are: its own, or one that is lent to it. NULL: the catalog does not hold it, or no
 * memory. */
struct gateway_version *gateway_version_of_uid(struct gateway *g, uint64_t uid, uint64_t tenant_uid);
/* Of those that it serves, and itself: how many generations and requests wait; whether any request is alive. */
uint64_t gateway_version_waiting(const struct gateway_version *v);
bool gateway_version_in_use(const struct gateway_version *v);
/* Frees versions and tenants that no catalog, request or replica needs any more. */
void gateway_version_release(struct gateway_version *v);
/* Whose replicas serve it. */
static inline struct gateway_version *gateway_version_host(const struct gateway_version *v)
{
    return v->host ? v->host : (struct gateway_version *)v;
}
/* The present catalog has the tenant; else it was deleted while its request was on the way. */
static inline bool gateway_tenant_present(const struct gateway *g, const struct gateway_tenant *t)
{
    return g->catalog && t->generation == catalog_generation(g->catalog);
}
/* Its host has told its signature. */
must_check int gateway_version_signature_copy(struct gateway_version *v);
/* Of a zeroed one: nothing waits, and no replica serves. */
void gateway_version_lists_init(struct gateway_version *v);
/* Tells the scheduler of its target as it is now: rows of the catalog, signature, workers. */
void gateway_version_schedule(struct gateway_version *v);

/* gateway_infer.c */
void gateway_request_submit(struct gateway_request *r);
/* The class of requests that name none; SCHEDULE_CLASS_COUNT: the tenant may use none. */
uint32_t gateway_class_default(const struct gateway_version *v);
/* The least of what the server grants, the header says and the body says (in microseconds, as in Triton). Counts from
 * arrival_ns. */
must_check int gateway_deadline_set(struct gateway_request *r, struct error *err);
/* What a request to a language model asks for by its headers. */
must_check int gateway_generate_enter(struct gateway_request *r, struct error *err);
/* Ends a request whose client went away before its answer: counted as 499, answered by nobody. */
void gateway_request_drop(struct gateway_request *r);
/* Answers one request of a finished lease from the replica's outputs; row0: its first row. */
void gateway_infer_answer(struct gateway_request *r, struct gateway_replica *replica, uint32_t row0);
/* The client is gone, or the request is given up: takes it out of wherever it waits. */
void gateway_request_cancel(struct gateway_request *r);
/* Asks control for replicas where a version needs some. */
void gateway_demand(struct gateway_version *v);
/* Answers all requests that wait or queue for a version with an error. */
void gateway_version_fail(struct gateway_version *v, int code, const struct error *err);

/* gateway_stats.c */
/* A lease has succeeded; infer_ns: what the worker says that it took. */
void gateway_stats_lease(struct gateway_replica *replica, uint64_t now_ns, uint64_t infer_ns);
/* A request of that lease is about to be answered. */
void gateway_stats_success(struct gateway_request *r, const struct gateway_replica *replica);
/* An inference request of a version is about to be refused. */
void gateway_stats_failure(struct gateway_request *r);
/* A request to a language model is answered. */
void gateway_stats_generated(struct gateway_request *r);
void gateway_stats_free(struct gateway_version *v);

/* gateway_metrics.c: what /metrics shows. Nothing here fails, and only a pair's first figure searches for its row. */
must_check int gateway_metrics_start(struct gateway *g, struct error *err);
void gateway_metrics_tell(struct gateway *g);
/* Any answer to a request. */
void gateway_metrics_answer(struct gateway_request *r, int status);
void gateway_metrics_refusal(struct gateway_request *r, int code);
/* An answer without a request, such as wire's own. */
void gateway_metrics_other(struct gateway *g, int status);
void gateway_metrics_took(struct gateway_request *r, uint64_t ns);
void gateway_metrics_waited(struct gateway_request *r, uint64_t ns);
void gateway_metrics_lease(struct gateway_version *v, uint64_t ns, uint32_t slots, uint32_t rows);
/* What is so now, and not counted: queues, devices. */
void gateway_metrics_look(struct gateway *g);
void gateway_metrics_restart(struct gateway_version *v);
void gateway_metrics_blocked(struct gateway_version *v, uint32_t n);
/* An adapter of the version's tenant was loaded into a worker, or is there no more. */
void gateway_metrics_adapter(struct gateway_version *v, enum bus_metrics_adapter what, uint64_t bytes);

/* gateway_lease.c */
struct gateway_replica *gateway_lease_replica(const struct schedule_lease *lease);
void gateway_dispatch(struct gateway *g);
/* Refuses queued requests whose deadline has passed. */
void gateway_expire(struct gateway *g, uint64_t now_ns);
/* A frame about the running lease came from the worker. Negative: it broke the protocol. */
must_check int gateway_lease_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err);
/* The replica died with a lease: its requests get err, or are tried again, each alone, where that may be. */
void gateway_lease_lost(struct gateway_replica *replica, struct schedule_lease *lease, const struct error *err,
                        bool again);

/* gateway_lone.c: requests that were lost with a shared worker and are tried once more, each in a worker of its own. */
/* Queues a request of a lost lease again. Failure means that it gets no second try, or none any more; nothing has
 * changed. */
must_check int gateway_lone_start(struct gateway_request *r);
/* The same for a request whose generations, or some of them, ran in a lost worker: all begin anew. */
must_check int gateway_lone_generate(struct gateway_request *r);
/* Its next generation waits for a place there. */
void gateway_lone_wait(struct gateway_request *r);
/* The request whose next generation waits for a place in that worker, or NULL. */
struct gateway_request *gateway_lone_next(const struct gateway_lone *lone);
/* Nobody waits for anything of it. */
bool gateway_lone_is_over(const struct gateway_lone *lone);
/* Asks control for workers, as far as there may be more. Once per turn of the loop. */
void gateway_lones_demand(struct gateway *g);
/* It was answered, or its client has gone, or all its generations are over. */
void gateway_lone_left(struct gateway_request *r);
/* Whose replica that is; NULL: nobody's. */
struct gateway_lone *gateway_lone_of(struct gateway *g, uint64_t replica_uid);
void gateway_lone_take(struct gateway_lone *lone, struct gateway_replica *replica);
struct schedule_target *gateway_lone_target(struct gateway_lone *lone);
/* Its replica has ended, or will not come; it is out of the scheduler. A request that is still there gets `code`. Frees
 * lone. */
void gateway_lone_ended(struct gateway_lone *lone, int code, const struct error *err);
/* A new control: what the old one has not started is asked for again. */
void gateway_lones_again(struct gateway *g);
/* No replica starts any more. */
void gateway_lones_drain(struct gateway *g);
void gateway_lones_check(struct gateway *g, uint64_t now_ns);

/* gateway_replica.c */
void gateway_replica_state(struct gateway *g, const struct bus_replica_state *body);
void gateway_replica_channel(struct gateway *g, const struct bus_channel *body, struct bus_message *m);
void gateway_replica_drain(struct gateway *g, uint64_t uid);
/* No replica will start soon: who waits is told why. */
void gateway_demand_refused(struct gateway *g, const struct bus_demand_refused *body);
/* Takes all frames that are there. */
void gateway_replica_pull(struct gateway_replica *replica);

/* gateway_blocked.c */
/* A BLOCKED frame; negative: the worker broke the protocol. */
must_check int gateway_blocked_frame(struct gateway_replica *replica, const struct channel_frame *f, struct error *err);
/* What is new of it goes to control and, once, to the log. */
void gateway_blocked_tell(struct gateway_replica *replica);
/* Polls the bell for what the channel now wants; before sleeping. */
void gateway_replica_listen(struct gateway_replica *replica);
/* Its channel need not be looked at, unless word of adapters is to come. */
void gateway_replica_rest(struct gateway_replica *replica);
/* The lease is over: free again, or drained. */
void gateway_replica_idle(struct gateway_replica *replica);
void gateway_replica_kill(struct gateway_replica *replica, enum bus_stop_reason reason);
/* Replicas that take too long to start; versions idle for long. */
void gateway_replicas_check(struct gateway *g, uint64_t now_ns);
/* No replica starts any more: who waits for one is told. */
void gateway_replicas_drain(struct gateway *g);
/* A new control process: tell it what is loaded. */
void gateway_replicas_tell(struct gateway *g);
/* Connects replicas to the versions of a new catalog. */
void gateway_replicas_attach(struct gateway *g);
#endif
