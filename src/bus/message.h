/* Messages between the roles: one table, fixed sizes, descriptors counted.
 *
 * X(type, who may send, who may receive, body struct, number of descriptors). Variable content travels in sealed
 * memfds. A message that the matrix does not allow, of the wrong size or with the wrong number of descriptors ends the
 * conversation: the receiver treats the sender as broken. Strings inside bodies are NUL-terminated; bus_recv checks
 * that for the fields that are text
 * (`text` offsets in message.c). */
#ifndef BULKHEAD_BUS_MESSAGE_H
#define BULKHEAD_BUS_MESSAGE_H

#include "base/blocked.h"
#include "base/error.h"
#include "base/limits.h"

#include <stdint.h>

enum bus_role { BUS_SUPERVISOR = 1, BUS_CONTROL = 2, BUS_GATEWAY = 4, BUS_WORKER = 8, BUS_INGEST = 16 };

#define BUS_MESSAGE_TABLE(X)                                                                          \
    /* start-up */                                                                                    \
    X(ROLE_CONFIG, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_role_config, 2)              \
    X(ROLE_RELOAD, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_role_config, 0)              \
    X(PEER, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_empty, 1)                           \
    X(READY, BUS_CONTROL | BUS_GATEWAY, BUS_SUPERVISOR, struct bus_empty, 0)                          \
    X(DRAIN, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_empty, 0)                          \
    X(DRAINED, BUS_GATEWAY | BUS_CONTROL, BUS_SUPERVISOR, struct bus_empty, 0)                        \
    /* all levels, then all runtimes, right after ROLE_CONFIG; one again when it changes */           \
    X(ISOLATION, BUS_SUPERVISOR, BUS_CONTROL, struct bus_isolation, 0)                                \
    X(RUNTIME, BUS_SUPERVISOR, BUS_CONTROL, struct bus_runtime, 0)                                    \
    X(ISOLATION_WANTED, BUS_CONTROL, BUS_SUPERVISOR, struct bus_isolation_wanted, 0)                  \
    /* catalog */                                                                                     \
    X(CATALOG, BUS_CONTROL, BUS_GATEWAY, struct bus_catalog, 1)                                       \
    X(CATALOG_TAKEN, BUS_GATEWAY, BUS_CONTROL, struct bus_catalog_taken, 0)                           \
    /* replicas */                                                                                    \
    X(DEMAND, BUS_GATEWAY, BUS_CONTROL, struct bus_demand, 0)                                         \
    X(DEMAND_REFUSED, BUS_CONTROL, BUS_GATEWAY, struct bus_demand_refused, 0)                         \
    X(DEMAND_LONE, BUS_GATEWAY, BUS_CONTROL, struct bus_demand_lone, 0)                               \
    X(REPLICA_START, BUS_CONTROL, BUS_SUPERVISOR, struct bus_replica_start, 2)                        \
    X(REPLICA_STOP, BUS_CONTROL | BUS_GATEWAY, BUS_SUPERVISOR, struct bus_replica, 0)                 \
    X(REPLICA_DRAIN, BUS_SUPERVISOR, BUS_GATEWAY, struct bus_replica, 0)                              \
    X(REPLICA_STATE, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_replica_state, 0)          \
    /* before a role learns of the replicas, and whenever it changes */                               \
    X(CORES, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_cores, 0)                          \
    X(REPLICAS_TOLD, BUS_SUPERVISOR, BUS_CONTROL | BUS_GATEWAY, struct bus_empty, 0)                  \
    /* each LOOK is answered by the FACTS of that model's replicas, then by itself */                 \
    X(LOOK, BUS_CONTROL, BUS_SUPERVISOR, struct bus_look, 0)                                          \
    X(REPLICA_FACTS, BUS_SUPERVISOR, BUS_CONTROL, struct bus_replica_facts, 0)                        \
    X(LOOKED, BUS_SUPERVISOR, BUS_CONTROL, struct bus_look, 0)                                        \
    X(REPLICA_LOADED, BUS_GATEWAY, BUS_CONTROL, struct bus_replica_loaded, 0)                         \
    X(CHANNEL, BUS_SUPERVISOR, BUS_GATEWAY, struct bus_channel, 4)                                    \
    X(CHANNEL_STREAM, BUS_SUPERVISOR, BUS_GATEWAY, struct bus_channel, 1)                             \
    X(CHANNEL_SEALED, BUS_GATEWAY, BUS_SUPERVISOR, struct bus_channel_sealed, 0)                      \
    X(WORKER_CONFIG, BUS_SUPERVISOR, BUS_WORKER, struct bus_worker_config, 2)                         \
    X(CHANNEL_GUEST, BUS_SUPERVISOR, BUS_WORKER, struct bus_channel, 4)                               \
    X(CHANNEL_STREAM_GUEST, BUS_SUPERVISOR, BUS_WORKER, struct bus_channel, 1)                        \
    /* into a virtual machine, through its port (bus/port.h) */                                       \
    X(GUEST_CONFIG, BUS_SUPERVISOR, BUS_WORKER, struct bus_guest_config, 0)                           \
    X(GUEST_CHANNEL, BUS_SUPERVISOR, BUS_WORKER, struct bus_channel, 0)                               \
    /* a worker started ahead loads its engine's library, says so, and waits for WORKER_CONFIG */     \
    X(WORKER_BLANK, BUS_SUPERVISOR, BUS_WORKER, struct bus_worker_blank, 0)                           \
    X(BLANK_READY, BUS_WORKER, BUS_SUPERVISOR, struct bus_empty, 0)                                   \
    X(POOL, BUS_CONTROL, BUS_SUPERVISOR, struct bus_pool, 0)                                          \
    /* after BLANK_READY: one more model; its own conversation starts with WORKER_CONFIG */           \
    X(WORKER_HOST, BUS_SUPERVISOR, BUS_WORKER, struct bus_empty, 1)                                   \
    /* describing a model once, before it is stored */                                                \
    X(INGEST_START, BUS_CONTROL, BUS_SUPERVISOR, struct bus_ingest_start, 2)                          \
    X(INGEST_STOP, BUS_CONTROL, BUS_SUPERVISOR, struct bus_ingest, 0)                                 \
    X(INGEST_CONFIG, BUS_SUPERVISOR, BUS_INGEST, struct bus_worker_config, 3)                         \
    X(DESCRIBED, BUS_INGEST, BUS_SUPERVISOR, struct bus_described, 1)                                 \
    X(DESCRIBE_FAILED, BUS_INGEST, BUS_SUPERVISOR, struct bus_describe_failed, 0)                     \
    X(INGEST_DONE, BUS_SUPERVISOR, BUS_CONTROL, struct bus_ingest_done, 1)                            \
    X(INGEST_FAILED, BUS_SUPERVISOR, BUS_CONTROL, struct bus_ingest_failed, 0)                        \
    /* requests of the operator, and figures */                                                       \
    X(INFER, BUS_CONTROL, BUS_GATEWAY, struct bus_infer, 1)                                           \
    X(INFER_DONE, BUS_GATEWAY, BUS_CONTROL, struct bus_infer_done, 1)                                 \
    X(STATS, BUS_GATEWAY, BUS_CONTROL, struct bus_stats, 0)                                           \
    /* fds: the page of bus/metrics.h; the socket of spec.metrics.listen */                           \
    X(METRICS, BUS_GATEWAY, BUS_CONTROL, struct bus_empty, 1)                                         \
    X(METRICS_LISTEN, BUS_SUPERVISOR, BUS_CONTROL, struct bus_empty, 1)                               \
    /* bus/quota.h; all that is stored follows a gateway's first catalog, which serves then */        \
    X(QUOTA_USED, BUS_GATEWAY, BUS_CONTROL, struct bus_quotas, 1)                                     \
    X(QUOTA_STORED, BUS_CONTROL, BUS_GATEWAY, struct bus_quotas, 1)                                   \
    /* an adapter of a language model, into a replica that runs; the worker answers on its channel */ \
    X(DEMAND_ADAPTER, BUS_GATEWAY, BUS_CONTROL, struct bus_demand_adapter, 0)                         \
    X(ADAPTER_REFUSED, BUS_CONTROL | BUS_SUPERVISOR, BUS_GATEWAY, struct bus_adapter_refused, 0)      \
    X(ADAPTER_GIVE, BUS_CONTROL, BUS_SUPERVISOR, struct bus_adapter_give, 1)                          \
    X(WORKER_ADAPTER, BUS_SUPERVISOR, BUS_WORKER, struct bus_adapter_give, 1)                         \
    /* what a replica's filter refused, in all, when it has changed */                                \
    X(REPLICA_BLOCKED, BUS_GATEWAY, BUS_CONTROL, struct bus_replica_blocked, 0)                       \
    /* rows of struct bus_tenant_now */                                                               \
    X(TENANTS_NOW, BUS_GATEWAY, BUS_CONTROL, struct bus_quotas, 1)                                    \
    /* an adapter in a replica, when that has changed */                                              \
    X(REPLICA_ADAPTER, BUS_GATEWAY, BUS_CONTROL, struct bus_replica_adapter, 0)

struct bus_empty {
    uint8_t _nothing;
};

#define BUS_ENGINES_MAX 8u

struct bus_engine {
    char name[32]; /* "": no further one */
    uint64_t id;   /* of its library and of the worker program */
};

struct bus_device {
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t slots; /* ≥ 1 */
    uint32_t _reserved;
};

struct bus_role_config { /* fds: control: admin socket, store folder; gateway: listening socket, empty folder */
    uint32_t uid, gid;
    uint32_t admin_gid; /* control: group that may use the admin socket; UINT32_MAX = none */
    uint32_t fifo;      /* 1: --scheduler fifo */
    uint32_t log_level;
    uint32_t connections_max;
    uint32_t allow_unlimited;
    uint32_t _reserved;
    uint64_t memory_bytes; /* of the host */
    uint64_t body_bytes_max;
    uint32_t head_timeout_ms, idle_timeout_ms, write_timeout_ms, drain_timeout_ms;
    uint32_t request_timeout_ms;
    uint32_t share_interactive, share_batch;  /* permille of each device; together at most 500 */
    uint32_t n_devices;                       /* ≥ 1 */
    struct bus_device devices[LIMIT_DEVICES]; /* [0]: cpu */
    uint64_t queue_bytes_max;
    uint64_t bodies_bytes_max; /* gateway: of all connections together */
    uint64_t data_bytes_max;   /* RLIMIT_DATA; 0 = none */
    /* Of each engine that this server has: what opens models for it. Another id: other code, so what was described may
     * differ. */
    struct bus_engine engines[BUS_ENGINES_MAX];
    char listen[64];
};

#define BUS_LEVEL_COUNT 6u /* ranks of enum isolate_level, `none` included */
enum bus_isolation_state { BUS_ISOLATION_TESTING = 1, BUS_ISOLATION_UNAVAILABLE, BUS_ISOLATION_AVAILABLE };

struct bus_isolation {               /* what this host can do at one level */
    uint32_t level;                  /* enum isolate_level; 1 … BUS_LEVEL_COUNT - 1 */
    uint32_t state;                  /* enum bus_isolation_state; AVAILABLE: models may run there */
    uint32_t limits;                 /* memory, cpu and pids can be limited */
    uint32_t degraded;               /* available, but less than the level is meant to be: the text says what */
    char text[ERROR_TEXT_BYTES_MAX]; /* why not, or what the level consists of here */
};

#define BUS_RUNTIME_COUNT 5u /* of enum isolate_runtime, `any` included */

struct bus_runtime {                       /* what an OCI runtime can do here */
    uint32_t runtime;                      /* enum isolate_runtime; 1 … BUS_RUNTIME_COUNT - 1 */
    uint32_t state;                        /* enum bus_isolation_state */
    uint32_t guest;                        /* it can run workers in virtual machines */
    uint32_t _reserved;                    /* */
    char text[ERROR_TEXT_BYTES_MAX];       /* why not */
    char guest_text[ERROR_TEXT_BYTES_MAX]; /* why not in virtual machines */
};

struct bus_isolation_wanted { /* somebody asked for a level, or a runtime, that is not tested yet */
    uint32_t level;
    uint32_t runtime; /* enum isolate_runtime; 0: the level alone */
};

struct bus_catalog {
    uint64_t generation;
    uint64_t bytes;
};

struct bus_catalog_taken {
    uint64_t generation;
    struct error error; /* code 0: taken */
};

struct bus_quotas { /* fd: n rows, a sealed memfd */
    uint32_t n;     /* ≤ LIMIT_QUOTA_ROWS */
    uint32_t last;  /* QUOTA_STORED: 1 = no more follow */
};

struct bus_demand {
    uint64_t version_uid;
    uint64_t tenant_uid; /* whose replicas: of a borrower to whom it is lent; 0: the owner's */
    uint32_t replicas;   /* wanted in all; 0: idle, all may go */
    uint32_t _reserved;
};

struct bus_demand_refused { /* no replica of it will start for error.retry_after_ms */
    uint64_t version_uid;
    uint64_t tenant_uid;  /* as the DEMAND's */
    uint64_t replica_uid; /* a DEMAND_LONE's: only that one is refused; 0: a DEMAND's */
    struct error error;
};

struct bus_demand_lone { /* a replica of level process for one request, beside those of DEMAND */
    uint64_t version_uid;
    uint64_t replica_uid; /* which it is to have: the gateway's choice, random, not 0 */
};

struct bus_replica {
    uint64_t replica_uid;
    uint32_t reason; /* enum bus_stop_reason */
    uint32_t _reserved;
};

enum bus_stop_reason {
    BUS_STOP_WANTED = 0, /* no longer needed: drain first */
    BUS_STOP_DRAINED,    /* the gateway has let go of it */
    BUS_STOP_OVERDUE,    /* a lease took too long: kill */
    BUS_STOP_PROTOCOL,   /* it broke the channel's protocol: kill */
    BUS_STOP_LOAD,       /* it could not load its model: kill */
    BUS_STOP_ISOLATION,  /* this host lost the level that it runs at: kill; the supervisor's own reason */
    BUS_STOP_CORES,      /* it was moved away from processors of its own: kill; likewise */
    BUS_STOP_COUNT
};

enum bus_start_flag {
    BUS_START_LONE = 1u << 0,      /* for one request; ends with the gateway that asked for it */
    BUS_START_APART = 1u << 1,     /* level shared: in a worker that hosts nothing else */
    BUS_START_OWN = 1u << 2,       /* level shared: a process of its own, in which sequences of several tenants run */
    BUS_START_DEDICATED = 1u << 3, /* on processors of its own */
    BUS_START_REPACK = 1u << 4,    /* spec.resources.repack */
};

struct bus_replica_start { /* fds: the model; its image's root, or the model again; sealed memfds */
    uint64_t replica_uid, version_uid, model_uid, tenant_uid;
    uint64_t memory_bytes;
    uint64_t model_bytes;
    uint32_t cpu_milli;
    uint32_t level; /* enum isolate_level */
    uint32_t version_number;
    uint32_t runtime; /* enum isolate_runtime */
    uint32_t flags;   /* enum bus_start_flag */
    uint32_t _reserved;
    uint8_t model_sha256[32];
    uint8_t image_sha256[32];
    uint64_t image_bytes; /* 0: none */
    char engine[32];
    char tenant[LIMIT_NAME_BYTES + 1]; /* for log lines and `status` only */
    char model[LIMIT_NAME_BYTES + 1];
};

struct bus_cores {             /* processors that replicas have of their own */
    uint32_t usable;           /* 1: this host can give some */
    uint32_t total;            /* all that the server may use */
    uint32_t threads_per_core; /* whole cores are given; ≥ 1 */
    uint32_t dedicated;        /* that are given by now; < total */
    char taken[64];            /* which, "2-3,5"; may be cut */
    char text[200];            /* why not usable */
};

enum bus_replica_phase { BUS_REPLICA_STARTING = 1, BUS_REPLICA_RUNNING, BUS_REPLICA_STOPPING, BUS_REPLICA_ENDED };

struct bus_replica_state {
    uint64_t replica_uid, version_uid, model_uid, tenant_uid;
    uint32_t phase; /* enum bus_replica_phase */
    int32_t pid;
    uint32_t uid;
    uint32_t level;
    uint32_t version_number;
    uint32_t wanted;        /* ENDED: 1 = it was told to */
    uint32_t out_of_memory; /* ENDED: 1 = the kernel killed it at its memory limit */
    /* ENDED: it was lost with a shared worker, for a reason that is not known to be its own; how many were in there,
     * itself included. Else 0. */
    uint32_t shared_lost;
    uint32_t lone;     /* BUS_START_LONE */
    uint32_t no_cores; /* ENDED: it did not start, since no processors of its own are free: CORES tells when some are */
    uint64_t started_ms; /* wall clock */
    char engine[32];
    char tenant[LIMIT_NAME_BYTES + 1];
    char model[LIMIT_NAME_BYTES + 1];
    char text[256]; /* ENDED: why; else what the wall consists of */
};

struct bus_replica_loaded { /* the gateway speaks to the worker, so it knows first */
    uint64_t replica_uid, version_uid;
    struct error error; /* code 0: the model is loaded */
};

struct bus_demand_adapter { /* at most LIMIT_ADAPTERS_WAITING of a replica without an answer */
    uint64_t replica_uid, adapter_uid;
    uint32_t number; /* ≥ 1; the gateway's choice, never used twice in a channel's life */
    uint32_t epoch;  /* of the channel: what comes too late for it is dropped, and not taken for another's number */
};

struct bus_adapter_refused { /* it will not be loaded. An ended replica, or another epoch: nothing is said */
    uint64_t replica_uid;
    uint32_t number, epoch;
    int32_t status; /* -enum error_code */
    uint32_t _reserved;
};

struct bus_adapter_give { /* fd: the adapter, a sealed memfd */
    uint64_t replica_uid;
    uint64_t bytes; /* ≥ 1 */
    uint32_t number, epoch;
};

struct bus_replica_blocked {
    uint64_t replica_uid;
    struct blocked_list blocked; /* as the worker told it */
    uint32_t _reserved;
};

struct bus_replica_adapter {
    uint64_t replica_uid, adapter_uid;
    uint64_t tenant_uid; /* whose it is */
    uint64_t bytes;
    uint32_t sequences; /* that use it now */
    uint32_t loaded;    /* 0: it is there no more */
    char tenant[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

struct bus_look {
    uint64_t id; /* control's own */
    uint64_t model_uid;
};

#define BUS_NAMESPACES 7u /* enum isolate_namespace */

struct bus_replica_facts { /* what /proc tells of the worker at this moment */
    uint64_t look_id;
    uint64_t replica_uid;
    uint64_t namespaces[BUS_NAMESPACES]; /* inode numbers; 0: not known */
    uint64_t capabilities;
    uint32_t own_namespaces; /* bit per namespace other than the supervisor's */
    uint32_t parts;          /* enum ladder_part */
    uint32_t seccomp;        /* mode, as in proc(5) */
    uint32_t no_new_privs;
    uint32_t uid;
    int32_t pid;
    uint32_t shared_replicas, shared_tenants; /* beside it in its worker: other replicas, and other tenants of theirs */
    char cpus[64];                            /* that it may use, as a list; may be cut */
    uint32_t own_cpus;                        /* 1: no other replica may */
    uint32_t _reserved;
    char cgroup[256];
    char kernel[96];
    char wall[ERROR_TEXT_BYTES_MAX]; /* of the back-end: what the wall consists of, such as the runtime */
};

struct bus_channel { /* fds: inbox, outbox, bell_guest, bell_host; of a stream: the stream */
    uint64_t replica_uid, version_uid;
    uint64_t nonce[2]; /* of a stream */
    uint64_t inbox_slot_bytes, outbox_slot_bytes;
    uint32_t n_frames, n_slots, epoch;
    uint32_t _reserved;
};

struct bus_channel_sealed {
    uint64_t replica_uid;
    uint32_t epoch;
    int32_t status; /* 0, or why the gateway could not take the channel */
};

enum bus_library {
    BUS_LIBRARY_NONE = 0, /* the engine is built in */
    BUS_LIBRARY_FD,       /* the second descriptor */
    BUS_LIBRARY_ROOT,     /* in the worker's root folder, at ISOLATE_LIBRARY_PATH */
    BUS_LIBRARY_COUNT
};

struct bus_worker_config { /* fds: the model; the engine's library, or the model again where none is sent;
                              INGEST_CONFIG: the adapter, or the model again */
    uint64_t replica_uid;
    uint64_t model_bytes;
    uint64_t adapter_bytes; /* INGEST_CONFIG: of an adapter that is to fit the model; 0: none */
    uint64_t memory_bytes;  /* the model's limit */
    uint32_t threads;
    uint32_t library; /* enum bus_library */
    uint32_t repack;  /* 1: weights may be copied into a faster order */
    uint32_t _reserved;
    char engine[32];
};

struct bus_worker_blank { /* nothing of any tenant */
    uint32_t library;     /* enum bus_library: NONE or ROOT */
    uint32_t hosts;       /* 1: level shared: WORKER_HOST follows, not WORKER_CONFIG */
    char engine[32];
};

struct bus_pool {     /* blank workers are wanted: sent when it changes */
    uint32_t engines; /* bit i: a model of level pool needs engines[i] of ROLE_CONFIG */
    uint32_t _reserved;
};

struct bus_ingest_start { /* fds: the model; the adapter, or the model again; sealed memfds */
    uint64_t id;          /* random, of control's choice */
    uint64_t memory_bytes;
    uint64_t model_bytes;
    uint64_t adapter_bytes; /* ≥ 1: whether that adapter fits the model is asked, and the answer is the model's
                               signature or why it does not; 0: there is none */
    uint32_t cpu_milli;
    uint32_t image;  /* 1: no model but a container image, to be unpacked; DESCRIBED then has its root */
    uint32_t repack; /* 1: as spec.resources.repack */
    uint32_t _reserved;
    char engine[32];                   /* "" for an image */
    char tenant[LIMIT_NAME_BYTES + 1]; /* for log lines only */
    char model[LIMIT_NAME_BYTES + 1];
};

struct bus_ingest { /* nobody waits for it any more */
    uint64_t id;
};

struct bus_described { /* fd: the signature as tensor_signature_encode makes it, a sealed memfd */
    uint64_t bytes;    /* of the fd, ≤ LIMIT_SIGNATURE_BYTES; of an image ≤ LIMIT_IMAGE_RESULT_BYTES */
};

struct bus_describe_failed {
    struct error error; /* the engine's words: those of a hostile process */
};

/* Exactly one of these two for each INGEST_START, once its process is gone. */
struct bus_ingest_done { /* fd: as DESCRIBED's, not looked at */
    uint64_t id;
    uint64_t bytes;
};

struct bus_ingest_failed {
    uint64_t id;
    struct error error; /* likewise, or the supervisor's own */
};

struct bus_guest_config { /* first message into a virtual machine: what to run there */
    struct bus_worker_config worker;
    uint8_t model_sha256[32]; /* of its disk's first model_bytes */
    uint64_t memory_bytes;    /* of the worker; the machine has more */
    uint32_t cpu_milli;
    uint32_t pids;
    uint32_t fds;
    uint32_t _reserved;
};

struct bus_infer { /* fd: the body, a sealed memfd */
    uint64_t id;
    uint64_t bytes;
    char tenant[LIMIT_NAME_BYTES + 1];
    char model[LIMIT_NAME_BYTES + 1];
};

struct bus_infer_done { /* fd: the answer's body, a sealed memfd */
    uint64_t id;
    uint64_t bytes;
    uint32_t http_status;
    uint32_t _reserved;
};

struct bus_stats {
    uint64_t requests, refused, failed; /* answered 2xx, 4xx, 5xx */
    uint64_t bytes_in, bytes_out;
    uint64_t leases, lease_ns;
    uint64_t generation; /* of the catalog in use */
    uint32_t connections, queued;
    uint32_t slots, slots_used;
};

enum bus_type {
    BUS_NONE = 0,
#define X(type, senders, receivers, body, fds) BUS_##type,
    BUS_MESSAGE_TABLE(X)
#undef X
        BUS_TYPE_COUNT
};

struct bus_type_info {
    const char *name;
    uint32_t senders, receivers; /* masks of enum bus_role */
    uint32_t body_bytes;
    uint32_t n_fds;
};
/* NULL for an unknown type. */
const struct bus_type_info *bus_type_info(uint32_t type);

union bus_body {
#define X(type, senders, receivers, body, fds) body type;
    BUS_MESSAGE_TABLE(X)
#undef X
};

/* A received message. The receiver owns the descriptors. */
struct bus_message {
    uint32_t type; /* enum bus_type */
    uint32_t n_fds;
    int fds[LIMIT_BUS_FDS]; /* -1 beyond n_fds */
    union bus_body body;
};

/* Puts a NUL at the end of each text of the body. */
void bus_text_terminate(struct bus_message *m);
/* Closes descriptors that nobody took. */
void bus_message_done(struct bus_message *m);

#endif
