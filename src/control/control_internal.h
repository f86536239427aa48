/* State of the control process; shared by the files of this room only. */
#ifndef BULKHEAD_CONTROL_INTERNAL_H
#define BULKHEAD_CONTROL_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "bus/bus_loop.h"
#include "bus/metrics.h"
#include "control/control.h"

#include <uv.h>

/* In a replica, as the gateway says. */
struct control_adapter {
    uint64_t uid, tenant_uid, bytes;
    uint32_t sequences;
    char tenant[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

/* What control knows of a running replica; the supervisor has the truth. */
struct control_replica {
    struct bus_replica_state state;
    struct control_version *version;
    uint64_t memory_bytes; /* its limit; 0 = not looked up yet */
    int model_fd; /* its model, for further replicas of the version, whoever's, so that they share its pages; or -1 */
    bool loaded, stopping;
    bool lone;  /* for one request of the gateway's; counts for no version's replicas */
    bool lends; /* lone: its request may be another tenant's than the model */
    uint64_t loaded_ns;
    struct blocked_list blocked;      /* system calls that its filter refused */
    struct control_adapter *adapters; /* owned [LIMIT_ADAPTERS_LOADED]; NULL: never any */
    uint32_t n_adapters;
};

/* A version that has, had or should have replicas: its owner's, or a borrower's. */
struct control_version {
    struct control *control;
    uint64_t key; /* registry_version_key: its place in control.versions */
    uint64_t uid;
    uint64_t borrower_uid; /* 0: the owner's */
    uint32_t demanded;     /* by the gateway: replicas in all */
    uint32_t n_replicas;   /* alive, stopping ones too */
    uint32_t n_stopping;
    uint32_t n_lone;         /* beside them: replicas for one request each */
    uint32_t shared_losses;  /* in a row, of shared workers with several models in them */
    uint32_t failures;       /* in a row */
    uint32_t restarts;       /* in all, for `status` */
    uint64_t start_after_ns; /* back-off: no start before this */
    bool start_failed;       /* the last one, before there was a worker: nobody else tells the gateway */
    bool waits_cores;        /* the last start found no processors of its own: tried again as soon as some are free */
    bool level_refused;      /* the last one, for its isolation level: tried again as soon as the level is there */
    /* What its next replica is started with: model and image, copied by `copying`, one after the other. Kept while a
     * replica is wanted and not started. */
    struct control_copy *copying; /* NULL: none is under way */
    int files[2];                 /* CONTROL_MODEL, CONTROL_IMAGE; -1: not copied yet */
    bool waits_copy;              /* for another's copy of the same model */
    int copy_failed;              /* negative: the last copy, with last_error; 0 */
    struct list lones;            /* struct lone_wait: requests of the gateway's that wait for these */
    char last_error[256];
};
enum { CONTROL_MODEL, CONTROL_IMAGE };

struct control {
    uv_loop_t loop;
    struct bus_role_config config;
    int meminfo_fd; /* /proc/meminfo, which a chroot does not have; -1: this host has none */
    struct registry *registry;
    struct bus_conn *supervisor, *gateway;
    struct wire_server *admin;
    struct bus_isolation isolation[BUS_LEVEL_COUNT]; /* by level */
    struct bus_cores cores;
    struct bus_runtime runtimes[BUS_RUNTIME_COUNT];
    /* publishing */
    uv_prepare_t prepare;
    bool publish_wanted;
    uint64_t publish_at_ns; /* when to try again after a failure; UINT64_MAX: none */
    uint64_t generation_sent, generation_taken;
    struct list waiters;   /* struct waiter */
    uint32_t pool_engines; /* bit per config.engines: a version of level pool in the catalog needs it */
    uint32_t pool_sent;    /* UINT32_MAX: nothing yet, whatever an earlier control has said */
    /* replicas */
    struct map replicas;      /* uid → struct control_replica */
    struct map versions;      /* key → struct control_version */
    uint32_t n_lone;          /* of all versions */
    uint32_t n_lone_waits;    /* in the lists `lones` of all versions */
    bool told;                /* the supervisor has named all that run: starts may be decided */
    uint64_t reconcile_at_ns; /* when a back-off ends; UINT64_MAX: none runs */
    uv_timer_t timer;         /* every TICK_MS while there is something to wait for: waiters, back-off, publishing */
    struct map infers;        /* id → struct infer */
    struct map explains;      /* id → struct explain */
    uint64_t explain_last;
    uint64_t infer_last;
    struct list copies, copies_waiting; /* struct control_copy */
    uint32_t n_copies;                  /* in `copies`, ≤ LIMIT_COPIES */
    uv_idle_t copy_idle;                /* active while there are any */
    uv_idle_t remove_idle;              /* active while removed files are freed */
    struct map ingests;                 /* id → struct control_ingest: processes that open a model */
    struct list ingest_queue;           /* struct control_apply, in their order */
    uint32_t n_adapter_waits;           /* copies of adapters for replicas */
    uint32_t n_ingest_copies;           /* of those whose model is being copied for the process */
    struct list stores;                 /* struct control_store */
    uint32_t n_ingest_stores;           /* of those whose image's root is being stored */
    uv_idle_t store_idle;               /* active while there are any */
    struct map tenants_now;             /* tenant uid → struct bus_tenant_now: those that use something */
    bool quota_told;                    /* the gateway knows what was used */
    uint64_t quota_purge_ns;            /* when to forget next */
    struct bus_stats stats;             /* of the gateway, as last told */
    const struct bus_metrics *metrics;  /* its page; NULL: none yet */
    struct wire_server *metrics_server; /* NULL: spec.metrics.listen is not set */
};

/* control_publish.c */
void control_publish_flush(struct control *c);
void control_publish_taken(struct control *c, const struct bus_catalog_taken *body);
void control_publish_tick(struct control *c, uint64_t now_ns);
/* Is there anything that the tick is for? */
bool control_publish_waits(const struct control *c);
/* A new gateway: it has nothing yet. */
void control_publish_again(struct control *c);

/* control_quota.c */
void control_quota_used(struct control *c, const struct bus_quotas *body, int fd);
/* Tells a gateway that has its first catalog what was used; nothing where it knows. */
void control_quota_tell(struct control *c);
/* What tenants use now; the gateway's word. */
void control_now_told(struct control *c, const struct bus_quotas *body, int fd);
/* The gateway is gone, and with it what was in use. */
void control_now_lost(struct control *c);
/* ctx is the struct control. */
void control_now(void *ctx, uint64_t tenant_uid, struct bus_tenant_now *ret_now);

/* control_isolation.c */
/* What the supervisor says of one level; starts and stops follow. */
void control_isolation(struct control *c, const struct bus_isolation *body);
/* Processors that replicas have of their own, and whether there may be any. */
void control_cores(struct control *c, const struct bus_cores *body);
/* As cores_refusal of struct registry_config. */
int control_cores_refusal(void *ctx, uint64_t cores, uint64_t replicas, struct error *err);
/* What it says of one OCI runtime; likewise. */
void control_runtime(struct control *c, const struct bus_runtime *body);
/* May workers of this level be run by this runtime? 0 is any. Codes as of control_level_refusal. */
int control_runtime_refusal(void *ctx, uint32_t level, uint32_t runtime, struct error *err);
/* May a model run at this level on this host? 0; -ERROR_ISOLATION_UNAVAILABLE; -ERROR_AGAIN while it is being tested.
 * ctx is the struct control. */
int control_level_refusal(void *ctx, uint32_t level, struct error *err);
/* May this version run: is its level there, and not below its tenant's floor? Codes as above. */
int control_version_refusal(struct control *c, const struct registry_version *row, struct error *err);
/* Counts a version of the catalog that is being built; ctx is the struct control. */
void control_pool_served(void *ctx, const char *engine, uint32_t level);
/* Tells the supervisor for which engines blank workers are wanted, when that has changed. */
void control_pool_tell(struct control *c);
/* "process"; "none" for what is no level. */
const char *control_level_name(uint32_t level);
/* ,"blockedCalls":{…}: the member of a replica. */
void control_blocked_append(const struct blocked_list *list, struct buf *json);
/* Appends the JSON object `isolation` of `bulkhead status`. */
void control_isolation_append(const struct control *c, struct buf *json);

/* control_replica.c */
/* A level is there again: what was refused for it may start at once. */
void control_replicas_allow(struct control *c);
/* What runs for a tenant; ctx is the struct control. */
void control_running(void *ctx, uint64_t tenant_uid, struct registry_running *ret_running);
void control_replica_state(struct control *c, const struct bus_replica_state *body);
void control_replica_loaded(struct control *c, const struct bus_replica_loaded *body);
void control_replica_blocked(struct control *c, const struct bus_replica_blocked *body);
void control_demand(struct control *c, const struct bus_demand *body);
void control_demand_lone(struct control *c, const struct bus_demand_lone *body);

/* control_copy.c: artifacts into sealed memory while everything else goes on. */
void control_copies_init(struct control *c);
/* registry_copy_* of that artifact; nothing but *of must live on. `done` is called once, from the loop and never from
 * inside this call: rc 0 with a descriptor that it may take (take_fd), or negative with err. NULL: no memory. */
typedef void (*control_copied_cb)(void *ctx, int rc, int *fd, const struct error *err);
struct control_copy *control_copy_start(struct control *c, const struct registry_version *of, control_copied_cb done,
                                        void *ctx);
/* Nobody waits for it any more: `done` is not called. Accepts NULL. */
void control_copy_cancel(struct control_copy *p);
/* All of them end with -ERROR_DRAINING: the registry closes. */
void control_copies_end(struct control *c);

/* control_store.c: the root of an image, out of that memory into the store, while everything else goes on. */
struct control_store;
void control_stores_init(struct control *c);
/* registry_root_* of it: `done` is called once, from the loop and never from inside this call, with 0 or negative and err;
 * fd is the caller's, *ingest must live on. -ERROR_REFUSED: no such memory. */
typedef void (*control_stored_cb)(void *ctx, int rc, const struct error *err);
must_check int control_store_start(struct control *c, struct registry_ingest *ingest, int fd, uint64_t bytes,
                                   control_stored_cb done, void *ctx, struct control_store **ret_store,
                                   struct error *err);
/* Nobody waits for it any more: `done` is not called, what is not complete is removed. Accepts NULL. */
void control_store_cancel(struct control_store *p);

/* control_remove.c: removed files are freed while everything else goes on. */
void control_removals_init(struct control *c);
/* Called in each turn of the loop: starts what has been left to be freed. */
void control_removals_look(struct control *c);

/* control_adapter.c */
void control_demand_adapter(struct control *c, const struct bus_demand_adapter *body);
void control_replica_adapter(struct control *c, const struct bus_replica_adapter *body);
/* The gateway is gone, and with it every adapter. */
void control_adapters_lost(struct control *c);
/* ,"adapters":[…]: the member of a replica; nothing where it has none. */
void control_adapters_append(const struct control_replica *r, struct buf *json);
/* Size of a tenant's adapters in the worker where it has most. */
uint64_t control_adapters_most(struct control *c, uint64_t tenant_uid);
/* As registry_config.adapter_loaded. */
void control_adapter_loaded(void *ctx, const char *tenant, const char *name, struct buf *status);
/* Starts and stops replicas so that what runs is what is wanted. Called after any change. */
void control_reconcile(struct control *c);

/* control_metrics.c: the text of /metrics. m NULL: no pair has figures. */
void control_metrics_write(const struct bus_metrics *m, const struct bus_stats *stats, struct buf *ret_text);

/* control_explain.c */
void control_explain_facts(struct control *c, const struct bus_replica_facts *body);
void control_explain_looked(struct control *c, const struct bus_look *body);

/* control_apply.c */
void control_ingest_done(struct control *c, const struct bus_ingest_done *body, int fd);
void control_ingest_failed(struct control *c, const struct bus_ingest_failed *body);

/* control_infer.c */
void control_infer_done(struct control *c, const struct bus_infer_done *body, int fd);
/* The gateway is gone: nobody will answer. */
void control_infer_lost(struct control *c);

#endif
