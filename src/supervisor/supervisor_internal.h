/* State of the supervisor process; shared by the files of this room only. */
#ifndef BULKHEAD_SUPERVISOR_INTERNAL_H
#define BULKHEAD_SUPERVISOR_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "bus/bus_loop.h"
#include "channel/channel.h"
#include "isolate/isolate.h"
#include "isolate/isolate_cpus.h"
#include "role/role.h"
#include "supervisor/supervisor.h"

#include <uv.h>

enum { CHILD_CONTROL = 0, CHILD_GATEWAY, CHILD_COUNT };

/* A long-lived role and its conversation. */
struct supervisor_child {
    struct supervisor *supervisor;
    const struct role *role;
    pid_t pid; /* 0: not running */
    int pidfd;
    uv_poll_t *watch; /* on pidfd; heap, freed in its close callback */
    struct bus_conn *bus;
    bool ready;
    uint32_t failures; /* deaths in a row, for the back-off */
    uint64_t started_ns;
    uv_timer_t restart;
};

/* The life of a replica as the supervisor sees it:
 *
 *   OFFERED ──sealed──► RUNNING ──drain──► DRAINING ──► DYING ──pidfd──► (freed)
 *      ▲                   │                             ▲
 *      └── gateway died ───┘          any ──kill─────────┘
 */
enum replica_state { REPLICA_OFFERED = 1, REPLICA_RUNNING, REPLICA_DRAINING, REPLICA_DYING, REPLICA_STATE_COUNT };

/* Who a worker works for. `ended` comes last, once its process is gone; the owner then frees it. */
struct supervisor_worker_events {
    void (*message)(void *owner, struct bus_message *m);
    void (*gone)(void *owner); /* it closed its socket, or broke the protocol */
    void (*ended)(void *owner, int status, uint64_t oom_kills);
};

/* A process behind a wall, and its conversation. A blank one changes its owner when it becomes a replica's. */
struct supervisor_worker {
    struct supervisor *supervisor;
    const struct supervisor_worker_events *events;
    void *owner;
    const struct isolate_ops *ops;
    struct isolate_instance *instance;
    uv_poll_t *watch;
    struct bus_conn *bus; /* NULL: of a machine */
    struct list in_all;   /* of supervisor.workers, at last of its `leaving` */
    bool cpus_own;        /* its replica has processors of its own */
    uint32_t uid_index;   /* of the configured range */
    int32_t pid;
    char wall[256];
};

struct supervisor_worker_spec {
    const char *name;
    enum isolate_level level;
    int library_fd; /* -1: the engine is built in */
    struct isolate_limits limits;
    const struct isolate_cpus *cpus;       /* of its own; NULL: the rest, with all others */
    enum isolate_runtime runtime;          /* ANY where the level is not container */
    const struct isolate_image *image;     /* level container: NULL: a root of the server's own */
    const struct isolate_machine *machine; /* NULL: a process with a conversation */
    bool ingest;                           /* opens a model once, instead of serving it */
    bool unpack;                           /* is no worker but an ingest that unpacks an image */
};

struct supervisor_shared; /* supervisor_shared.c */

/* The blank workers of one engine. */
struct supervisor_pool {
    struct supervisor *supervisor;
    uint32_t engine;    /* index into config->engines */
    bool wanted;        /* a model of level pool needs this engine */
    struct list blanks; /* of struct blank */
    uint32_t failures;  /* in a row, for the back-off */
    uv_timer_t timer;
};

struct supervisor_replica {
    struct supervisor *supervisor;
    struct bus_replica_start start; /* what control asked for */
    enum replica_state state;
    const struct isolate_ops *ops;
    struct supervisor_worker *worker; /* NULL before it is started and when it could not be */
    struct channel_fds offered;       /* the worker's end, kept until the gateway has sealed the inbox */
    int control_fd, stream_fd;        /* of a machine: our ends of its two ports, kept for its life; else -1 */
    struct channel_geometry geometry;
    uint32_t epoch;
    uint32_t stop_reason; /* enum bus_stop_reason */
    bool wanted_end;
    bool out_of_memory;       /* how it ended */
    uint32_t shared_lost;     /* likewise: see bus_replica_state */
    struct isolate_cpus cpus; /* its own; empty: none are */
    bool no_cores;            /* it was to have some, and none were free */
    uint64_t started_ms;
    char wall[256]; /* its worker's, and how that came to it */
    /* Level shared: the worker, which is not this one's alone, and this one's place in it. */
    struct supervisor_shared *shared; /* NULL: the worker is its own */
    struct list in_shared;
    struct bus_conn *bus; /* its own conversation in there; NULL: ended */
    uint64_t leave_by_ns; /* it has been told to leave; 0: not */
    bool mistrusted;      /* it would not leave by itself, or what it does is not known */
};

/* What this host can do at one level of isolation. */
struct supervisor_level {
    struct supervisor *supervisor;
    enum isolate_level level;
    const struct isolate_ops *ops; /* NULL: not in this build */
    bool open;                     /* its setup succeeded */
    uint32_t state;                /* enum bus_isolation_state */
    struct isolate_report report;
    /* a probe that runs in a process of its own */
    pid_t prober; /* 0: none runs */
    int prober_pidfd, prober_fd;
    uv_poll_t *prober_watch;
    uint64_t probed_ns; /* when the last one began */
    uv_timer_t overdue;
};

struct supervisor_cores {
    struct isolate_cpus host; /* all that the server was started with */
    struct isolate_cpus rest; /* of these, what no replica has for itself; never empty */
    uint32_t threads_per_core;
    uv_timer_t watch; /* runs while a replica has some of its own */
};

struct supervisor {
    struct supervisor_config config_now;    /* as started, and what SIGHUP changed */
    const struct supervisor_config *config; /* == &config_now */
    uv_loop_t *loop;
    int data_dir, store_dir, empty_dir, lock;
    int listen_fd, admin_fd, metrics_fd; /* metrics_fd -1: none is configured */
    char listen_text[64];
    uint32_t admin_gid;
    struct supervisor_level levels[ISOLATE_LEVEL_COUNT];
    struct supervisor_child children[CHILD_COUNT];
    struct supervisor_pool pools[SUPERVISOR_ENGINES_MAX];
    /* The workers of level shared: struct supervisor_shared. The timer runs while a member leaves. */
    struct list shared;
    struct list workers; /* every struct supervisor_worker that has not been freed by its owner */
    /* Those that have ended and are tidied up, one after another: the first is. The timer runs while there are any. */
    struct list leaving;
    uv_timer_t leaving_timer;
    struct supervisor_cores cores;
    uv_timer_t shared_timer;
    struct map replicas; /* uid → struct supervisor_replica */
    struct map ingests;  /* id → struct supervisor_ingest */
    uint8_t *uids_used;  /* [uid_count] */
    bool draining, gateway_drained, control_drained;
    uv_signal_t signals[3];
    uv_timer_t drain_timer;
    int exit_status;
};

/* supervisor_data.c: the data folder and the sockets. Everything is undone by supervisor_data_close. */
must_check int supervisor_data_open(struct supervisor *s, struct error *err);
void supervisor_data_close(struct supervisor *s);
/* What makes a file system of this kind (f_type of statfs) unfit for the data folder; NULL: it is fit. */
const char *supervisor_data_unfit(uint64_t f_type);

/* supervisor_child.c */
void supervisor_child_setup(struct supervisor *s, int index, const char *role);
must_check int supervisor_child_start(struct supervisor_child *c, struct error *err);
/* Kills it, waits for its end and forgets it; nothing when it does not run. */
void supervisor_child_end(struct supervisor_child *c);
/* What a role is told of the configuration, at its start and again after a reload. */
void supervisor_child_config(const struct supervisor_child *c, struct bus_role_config *ret_body);
/* Message to a role; quietly dropped when it is not there (it gets the whole picture when it comes back). */
void supervisor_tell(struct supervisor *s, int child, enum bus_type type, const void *body, const int *fds,
                     uint32_t n_fds);

/* supervisor_replica.c */
void supervisor_replica_start(struct supervisor *s, const struct bus_replica_start *start, int model_fd, int image_fd);
void supervisor_replica_stop(struct supervisor *s, uint64_t uid, uint32_t reason);
void supervisor_replica_sealed(struct supervisor *s, const struct bus_channel_sealed *sealed);
/* A new gateway: gives every living replica a fresh channel. */
void supervisor_replicas_offer(struct supervisor *s);
/* Tells one role, which has just started, about every replica. */
void supervisor_replicas_tell(struct supervisor *s, int child);
/* The gateway died: channels are void, what was draining can end. */
void supervisor_replicas_orphaned(struct supervisor *s);
void supervisor_replicas_kill(struct supervisor *s);
/* Its process has ended, or at level shared its part in one: tells both roles why, and frees it. lost_with: how many
 * replicas, itself included, were in the shared worker that was lost; 0: none was. */
void supervisor_replica_ended(struct supervisor_replica *r, int status, uint64_t oom_kills, uint32_t lost_with);

/* What is said to its worker; NULL: of a machine, or it has ended. */
struct bus_conn *supervisor_replica_bus(const struct supervisor_replica *r);

/* supervisor_adapter.c: hands it to the replica's worker, or tells the gateway that it cannot be. Borrows adapter_fd.
 */
void supervisor_adapter_give(struct supervisor *s, const struct bus_adapter_give *give, int adapter_fd);

/* Its worker is not where it must be, on processors of its own: it is ended. */
void supervisor_replica_displaced(struct supervisor_replica *r);

/* supervisor_cores.c: processors of one replica alone. */
void supervisor_cores_open(struct supervisor *s); /* once, before the first worker */
/* Sets r->cpus where the replica is to have some of its own, and moves everything else away from them. -ERROR_LIMIT
 * with the reason while none are free. */
must_check int supervisor_cores_take(struct supervisor_replica *r, struct error *err);
void supervisor_cores_give(struct supervisor_replica *r); /* nothing where it has none */
/* Where all others run; NULL: this host has no cpusets, and nothing is set. */
const struct isolate_cpus *supervisor_cores_rest(const struct supervisor *s);
void supervisor_cores_tell(struct supervisor *s, int child);
/* Level process was probed: where the host gives none any more, replicas that have some end. */
void supervisor_cores_probed(struct supervisor *s);

/* supervisor_worker.c */
/* Starts bulkhead-worker; on failure nothing is left. The worker is the owner's until it frees it after `ended`. */
must_check int supervisor_worker_start(struct supervisor *s, const struct supervisor_worker_spec *spec,
                                       const struct supervisor_worker_events *events, void *owner,
                                       struct supervisor_worker **ret_worker, struct error *err);
/* Its end is seen by `ended`. Once only. */
void supervisor_worker_kill(struct supervisor_worker *w);
/* Its process must be gone; what is left of it is removed: at once, or where that takes long soon after. Accepts NULL.
 */
void supervisor_worker_free(struct supervisor_worker *w);
void supervisor_workers_open(struct supervisor *s);  /* once, before the first */
void supervisor_workers_close(struct supervisor *s); /* waits until nothing is left of those that have ended */
/* What a worker with these resources may have beside them. */
struct isolate_limits supervisor_worker_limits(uint64_t memory_bytes, uint32_t cpu_milli);
/* Where a worker of that back-end finds its engine's library. */
enum bus_library supervisor_library_where(const struct isolate_ops *ops, int library_fd);
/* The library of an engine (-1: built in), borrowed; -ERROR_UNSUPPORTED when there is no such engine. */
must_check int supervisor_library_of(const struct supervisor *s, const char *engine, int *ret_fd);

/* What a worker is told; also into a machine. */
void supervisor_worker_config(const struct supervisor_replica *r, int library_fd, struct bus_worker_config *ret_body);
void supervisor_channel_body(const struct supervisor_replica *r, struct bus_channel *ret_body);
/* Starts it behind its wall: with a conversation (machine NULL), or in a machine. */
must_check int supervisor_worker_spawn(struct supervisor_replica *r, const struct isolate_machine *machine,
                                       const struct isolate_image *image, int library_fd, struct error *err);

/* supervisor_machine.c: replicas in virtual machines. No descriptor goes in: configuration and channels are written to
 * one port of the machine, the channel is a stream through another. */
must_check int supervisor_machine_launch(struct supervisor_replica *r, int model_fd, int library_fd, struct error *err);
/* A stream of the next epoch, to the guest and to the gateway. */
must_check int supervisor_machine_offer(struct supervisor_replica *r, struct error *err);

/* supervisor_pool.c: the blank workers of level pool. */
void supervisor_pools_open(struct supervisor *s);
/* Control says which engines have models of level pool: a bit for each of config->engines. */
void supervisor_pools_want(struct supervisor *s, uint32_t engines);
/* Fills or empties them after something has changed: the configuration, the level's state. */
void supervisor_pools_step(struct supervisor *s);
/* A blank worker with the engine's library in it, these limits and processors (NULL: the rest), whose owner the caller
 * becomes (it sets events and owner); NULL: none is ready. */
struct supervisor_worker *supervisor_pool_take(struct supervisor *s, const char *engine,
                                               const struct isolate_limits *limits, const struct isolate_cpus *cpus);
/* For good: they are not filled again. */
void supervisor_pools_kill(struct supervisor *s);
uint32_t supervisor_pools_count(const struct supervisor *s); /* processes, those that end included */
void supervisor_pools_text(const struct supervisor *s, char *text, size_t capacity);

/* supervisor_shared.c: the workers of level shared. */
void supervisor_shared_open(struct supervisor *s);
/* Into a worker that has room, or a new one; sets shared, worker and bus. On failure none of them. */
must_check int supervisor_shared_join(struct supervisor_replica *r, int library_fd, struct error *err);
/* Its end follows, through supervisor_replica_ended. trusted: it goes alone, within LIMIT_SHARED_LEAVE_MS; else, or
 * when it does not, the worker is ended with all that is in it. */
void supervisor_shared_leave(struct supervisor_replica *r, bool trusted);
/* It is about to be freed. */
void supervisor_shared_forget(struct supervisor_replica *r);
uint32_t supervisor_shared_count(const struct supervisor *s); /* processes, those that end included */
void supervisor_shared_text(const struct supervisor *s, char *text, size_t capacity);
/* What else is in its worker: other replicas, and tenants of these other than its own. */
void supervisor_shared_beside(const struct supervisor_replica *r, uint32_t *ret_replicas, uint32_t *ret_tenants);

/* supervisor_ingest.c */
void supervisor_ingest_start(struct supervisor *s, const struct bus_ingest_start *start, int model_fd, int adapter_fd);
void supervisor_ingest_stop(struct supervisor *s, uint64_t id);
void supervisor_ingests_kill(struct supervisor *s);
/* Tells the code that opens models of config->engines[index] from any other that there was in its place. */
uint64_t supervisor_engine_id(const struct supervisor *s, uint32_t index);

/* Kills the replicas of a level; their end says why. */
void supervisor_replicas_level_lost(struct supervisor *s, enum isolate_level level);

/* supervisor_look.c: answers LOOK. */
void supervisor_look(struct supervisor *s, const struct bus_look *look);

/* supervisor_isolation.c: which levels this host can provide. */
/* Opens every back-end and probes it; a slow probe goes on in a process of its own and is told to control when it ends.
 * Fails when level `process`, which the whole server rests on, cannot be had. `scope` names the control groups. */
must_check int supervisor_isolation_open(struct supervisor *s, const char *scope, struct error *err);
/* After the last replica is gone. Accepts a server that was never opened. */
void supervisor_isolation_close(struct supervisor *s);
/* 0 when a replica may start at this level, else why not. */
must_check int supervisor_isolation_check(const struct supervisor *s, uint32_t level, struct error *err);
/* Tells control about every level. */
must_check int supervisor_isolation_tell(const struct supervisor *s, struct bus_conn *control);
/* Tells control about one, whose text has changed. */
void supervisor_isolation_tell_level(struct supervisor *s, enum isolate_level level);
/* Looks again whether the host still provides it; what was lost stops, what came back is told. Nothing when a probe of
 * it runs or began a moment ago. */
void supervisor_isolation_probe(struct supervisor *s, enum isolate_level level);
void supervisor_isolation_probe_all(struct supervisor *s);
/* Somebody asks for a level, or a runtime: its test begins, if none has yet. */
void supervisor_isolation_wanted(struct supervisor *s, const struct bus_isolation_wanted *wanted);

/* supervisor_reload.c: SIGHUP. On failure everything stays as it is. */
void supervisor_reload(struct supervisor *s);

/* supervisor.c */
void supervisor_drain_step(struct supervisor *s); /* looks whether the end is reached */

/* A poll handle whose memory goes in its close callback. fd stays the caller's. */
must_check int supervisor_watch(struct supervisor *s, int fd, uv_poll_cb callback, void *data, uv_poll_t **ret_poll);
void supervisor_unwatch(uv_poll_t **poll);

#endif
