/* The registry: what tenants, models, grants, adapters, versions and keys there are, and how they may change.
 *
 * Control only, on its loop, blocking on the store. It decides and writes; it speaks neither HTTP nor the bus: the
 * admin API (api/manage) calls it with decoded JSON and publishes the new generation afterwards (control.h). All writes
 * of one call are one transaction: all or nothing. */
#ifndef BULKHEAD_CONTROL_REGISTRY_H
#define BULKHEAD_CONTROL_REGISTRY_H

#include "base/buf.h"
#include "base/error.h"
#include "base/list.h"
#include "bus/message.h"
#include "bus/quota.h"
#include "catalog/catalog.h"
#include "resource/resource.h"
#include "store/store.h"

struct registry;

struct registry_running { /* replicas of a tenant that have not ended, and the memory that they may use */
    uint32_t replicas;
    uint64_t memory_bytes;
    uint64_t adapter_bytes; /* loaded in one worker, that of most; whoever's replica it is */
};

struct registry_config {
    const struct store_ops *store;
    const char *database; /* path for store->open */
    int artifacts_dir;    /* descriptor of the folder of artifacts, named by their SHA-256 in hex; borrowed */
    const struct bus_device *devices; /* [n_devices], cpu first: a model that wants another one, or more cores than cpu
                                         has slots, is refused; borrowed */
    uint32_t n_devices;
    uint64_t memory_bytes_max; /* of the host: a model that wants more is refused */
    /* How much memory the host has to give now; false: nobody knows. NULL allowed: likewise. */
    bool (*memory_available)(void *ctx, uint64_t *ret_bytes);
    /* May a model run at this level on this host? 0, -ERROR_ISOLATION_UNAVAILABLE or -ERROR_AGAIN (not known yet), err
     * with the reason (from isolate's probe). Levels here and in struct registry_version are isolate's ranks: 1 =
     * shared … 5 = microvm (enum isolate_level). */
    int (*level_refusal)(void *ctx, uint32_t level, struct error *err);
    /* May workers of this level be run by this OCI runtime (index of spec.isolation.runtime; 0: any)? Likewise. */
    int (*runtime_refusal)(void *ctx, uint32_t level, uint32_t runtime, struct error *err);
    /* May replicas have so many cores of their own on this host? NULL allowed: no. 0, -ERROR_ISOLATION_UNAVAILABLE,
     * -ERROR_REFUSED or -ERROR_AGAIN, err with the reason. */
    int (*cores_refusal)(void *ctx, uint64_t cores, uint64_t replicas, struct error *err);
    /* Is there an engine of this name? */
    bool (*engine_known)(void *ctx, struct str name);
    /* May its models be at level shared: share a worker with others, or have one that serves several tenants? */
    bool (*engine_shared)(void *ctx, struct str name);
    /* May its models be lent: can one worker serve several tenants? */
    bool (*engine_lends)(void *ctx, struct str name);
    /* Tells the code that opens models for this engine from any other; 0: this server has none. */
    uint64_t (*engine_id)(void *ctx, struct str name);
    /* Called for each version that a new catalog holds; NULL allowed. */
    void (*served)(void *ctx, const char *engine, uint32_t level);
    /* What runs for a tenant now; NULL allowed: nothing. */
    void (*running)(void *ctx, uint64_t tenant_uid, struct registry_running *ret_running);
    /* Appends to an adapter's status where it is loaded: "replicas":1,"loaded":[…], with the comma behind it; NULL
     * allowed: nothing. */
    void (*adapter_loaded)(void *ctx, const char *tenant, const char *name, struct buf *status);
    /* What the gateway says that it uses now; NULL allowed: nothing. */
    void (*now)(void *ctx, uint64_t tenant_uid, struct bus_tenant_now *ret_now);
    void *ctx;
};

must_check int registry_open(const struct registry_config *config, struct registry **ret_registry, struct error *err);
void registry_close(struct registry *r); /* accepts NULL */

/* Result of a change. */
struct registry_change {
    uint64_t generation; /* of the catalog that holds it (= store revision) */
    uint32_t created, changed, unchanged;
};

/* All that is needed to start a replica of a version. */
struct registry_version {
    uint64_t uid, model_uid, tenant_uid;
    uint32_t number;
    char engine[32];
    uint32_t level;
    uint8_t image[STORE_DIGEST_BYTES]; /* of its root, another artifact; image_bytes 0: none */
    uint64_t image_bytes;
    uint32_t runtime;                   /* 0: any; as isolate counts them (enum isolate_runtime) */
    uint32_t floor;                     /* the tenant's isolation.minimum of now: a version below it must not run */
    struct registry_running tenant_max; /* its quota.replicas and quota.memory of now; 0 = no limit */
    uint64_t cpu_milli, memory_bytes;
    bool dedicated; /* cores of its own */
    bool repack;    /* spec.resources.repack */
    uint64_t artifact_bytes;
    uint8_t digest[STORE_DIGEST_BYTES];
    char tenant[LIMIT_NAME_BYTES + 1], model[LIMIT_NAME_BYTES + 1];
    char lender[LIMIT_NAME_BYTES + 1]; /* whose model it is; "": the tenant's own */
    uint32_t n_beside;                 /* other tenants, whom the owner's replicas serve too */
    bool hosted;                       /* lent: the owner's replicas serve it */
    bool lends;                        /* registry_config.engine_lends */
    bool newest;
    uint64_t replicas_min, replicas_max;
};

/* "runc", as in spec.isolation.runtime. */
const char *registry_runtime_name(uint32_t runtime);

/* What one apply had described, from its first call of registry_apply to its last. */
struct registry_ingest {
    struct registry_version wanted; /* after 1: to be opened by `engine`; no uid */
    uint64_t wanted_id;             /* of that engine */
    bool wanted_image;              /* `wanted` is an image to be unpacked: registry_ingest_image, not …_add */
    /* artifact_bytes ≥ 1: whether that adapter fits `wanted` is to be found out; registry_ingest_add says that it does.
     * Of it only number, tenant, model (its own name), digest and artifact_bytes are set. */
    struct registry_version wanted_adapter;
    uint64_t began_ns;                   /* wall clock */
    struct list described, images, fits; /* private */
};
void registry_ingest_init(struct registry_ingest *ingest);
void registry_ingest_done(struct registry_ingest *ingest);
/* The signature of `wanted` (copied), ≤ LIMIT_SIGNATURE_BYTES. */
must_check int registry_ingest_add(struct registry_ingest *ingest, struct str signature);
/* The root of `wanted`, ≤ LIMIT_IMAGE_RESULT_BYTES, mapped, becomes an artifact, in slices; ingest and mapping outlive
 * it. begin: -ERROR_REFUSED for what is no root. */
struct registry_root;
must_check int registry_root_begin(struct registry *r, struct registry_ingest *ingest, struct str root,
                                   struct registry_root **ret_root, struct error *err);
/* At most LIMIT_COPY_SLICE_BYTES more: 1, or 0 when the ingest has it; blocks on the disk for that long. After 0 or a
 * failure only registry_root_free may follow. */
must_check int registry_root_step(struct registry_root *root, struct error *err);
void registry_root_free(struct registry_root *root); /* accepts NULL; what is not complete is removed */
/* Such an apply came to nothing: removes the artifacts that `body` names and no version does, but for those that
 * somebody has uploaded again since it began. */
void registry_apply_drop(struct registry *r, struct str body, const struct registry_ingest *ingest);

/* `body`: {"resources": [document…], "artifacts": {"<source as written>": "<64 hex digits>", …}}; every document's
 * spec.source must have its artifact, uploaded before (registry_artifact_*). Order within is free: a model may stand
 * before its tenant. Everything is checked before anything is written. Appends per resource
 * {"kind","name","tenant","result":"created"|"changed"|"unchanged", "version":N} to ret_results as a JSON array. A
 * change of engine, artifact, isolation.level or resources makes a new Version (next number); anything else only
 * changes the resource.
 * A new version whose artifact its engine has not described yet is not written: 1, with `wanted` in *ingest;
 * once that was opened (registry_ingest_add) the same call is repeated, until nothing is wanted. So are adapters with
 * their bases: those of the body, and all that rest on a model that gets a new version. Each call looks at everything
 * anew, so others may change what they like in between. What was described is kept with the versions. */
must_check int registry_apply(struct registry *r, struct str body, struct registry_ingest *ingest,
                              struct registry_change *ret_change, struct buf *ret_results, struct error *err);

/* A JSON array of whole documents of a kind (Tenant, Model, Grant, Adapter, Version, Key). tenant/name filters may be
 * empty. An unknown tenant or name is -ERROR_NOT_FOUND. */
must_check int registry_get(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                            struct buf *ret_items, struct error *err);

/* Tenant: refused (-ERROR_CONFLICT) while it has models or adapters, or is lent a model; its keys go with it. Model:
 * refused likewise while a Grant lends it or an Adapter of its owner rests on it; its versions go with it; artifacts no
 * version names any more are removed after commit. */
must_check int registry_delete(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                               struct registry_change *ret_change, struct error *err);

/* Makes a key `bh_<16 id>_<43 secret>`; only its SHA-256 is kept. ret_key is the only copy. */
#define REGISTRY_KEY_BYTES (3 + STORE_KEY_ID_BYTES + 1 + 43) /* characters, without NUL */
must_check int registry_key_create(struct registry *r, struct str tenant, struct str name,
                                   char ret_key[static REGISTRY_KEY_BYTES + 1], struct registry_change *ret_change,
                                   struct error *err);
must_check int registry_key_revoke(struct registry *r, struct str id, struct registry_change *ret_change,
                                   struct error *err);

/* Upload of an artifact: begin, write…, then finish (fsync, rename to its digest) or abort. At most a few at once. */
struct registry_upload;
must_check int registry_upload_begin(struct registry *r, struct registry_upload **ret_upload, struct error *err);
must_check int registry_upload_write(struct registry_upload *u, struct str chunk, struct error *err);
/* Frees u in any case. */
must_check int registry_upload_finish(struct registry_upload *u, char ret_hex[static 65], uint64_t *ret_bytes,
                                      struct error *err);
void registry_upload_abort(struct registry_upload *u); /* accepts NULL */

/* Is there anything left of removed files? */
bool registry_removing(const struct registry *r);
/* Frees at most LIMIT_REMOVE_SLICE_BYTES of them; only while there is something. Blocks on the file system for that
 * long. */
void registry_remove_step(struct registry *r);

/* What tenants and keys have used; put is durable when it returns, and changes no generation. -ERROR_PEER for a row
 * that bus_quota_check refuses: nothing is stored then. */
must_check int registry_quota_put(struct registry *r, const struct bus_quota *rows, uint32_t n, struct error *err);
/* Those that still mean something; tenant_uid 0 = all. each() returns non-zero to stop. */
must_check int registry_quota_each(struct registry *r, uint64_t tenant_uid,
                                   int (*row)(void *ctx, const struct bus_quota *row), void *ctx, struct error *err);
/* Forgets those that do not. */
must_check int registry_quota_purge(struct registry *r, struct error *err);

/* Builds the catalog of the present state into a sealed memfd. */
must_check int registry_catalog(struct registry *r, uint64_t *ret_generation, int *ret_fd, size_t *ret_bytes,
                                struct error *err);

/* What is needed for its owner (borrower_uid 0), or for a tenant to whom it is lent: then tenant, level, floor and
 * quotas are the borrower's, and model_uid is that of its row in the catalog if it has replicas of its own.
 * -ERROR_MODEL_NOT_FOUND when it, or the loan, is gone. */
must_check int registry_version_find(struct registry *r, uint64_t version_uid, uint64_t borrower_uid,
                                     struct registry_version *ret_version, struct error *err);
/* What (version_uid, borrower_uid) is counted under: one number for each pair; version_uid itself for the owner. */
must_check int registry_version_key(uint64_t version_uid, uint64_t borrower_uid, uint64_t *ret_key);
/* The newest version of a model of the tenant's own, or lent to it. -ERROR_NOT_FOUND when there is no such tenant or
 * model. */
must_check int registry_model_find(struct registry *r, struct str tenant, struct str model,
                                   struct registry_version *ret_version, struct error *err);
struct registry_adapter {
    struct registry_version content; /* for registry_copy_begin: tenant, model (its own name), number, digest, bytes */
    char base[LIMIT_NAME_BYTES + 1];
};
/* By its uid in the catalog. -ERROR_MODEL_NOT_FOUND when it is gone, or has another content by now. */
must_check int registry_adapter_find(struct registry *r, uint64_t adapter_uid, struct registry_adapter *ret_adapter,
                                     struct error *err);
/* May it be loaded into a replica of this version: is that its base, for its tenant, and was it found to fit?
 * -ERROR_REFUSED. */
must_check int registry_adapter_allowed(struct registry *r, const struct registry_adapter *a,
                                        const struct registry_version *v, struct error *err);
/* Every newest version with replicas.min > 0 (for the start). each() returns non-zero to stop. */
must_check int registry_version_each_wanted(struct registry *r,
                                            int (*each)(void *ctx, const struct registry_version *v), void *ctx,
                                            struct error *err);
/* The artifact of a version (or of a registry_adapter's content) into a new memfd, in slices: its SHA-256 is checked
 * while it is copied, and at the end it is sealed (SHRINK|GROW|WRITE|SEAL). begin refuses with -ERROR_NO_MEMORY what
 * the host has no memory for, with what all copies under way have still to take. */
struct registry_copy;
must_check int registry_copy_begin(struct registry *r, const struct registry_version *v,
                                   struct registry_copy **ret_copy, struct error *err);
/* At most LIMIT_COPY_SLICE_BYTES more: 1, or 0 with the whole in *ret_fd; blocks on the disk for that long. After 0 or
 * a failure only registry_copy_free may follow. */
must_check int registry_copy_step(struct registry_copy *copy, int *ret_fd, struct error *err);
void registry_copy_free(struct registry_copy *copy); /* accepts NULL; before the registry is closed */
/* The root of its image, for the same; v->image_bytes > 0. */
struct registry_version registry_image_of(const struct registry_version *v);

#endif
