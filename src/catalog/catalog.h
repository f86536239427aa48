/* The catalog: everything the gateway must know of tenants, keys and models, as one immutable snapshot of offsets.
 *
 * Control builds it (catalog_build_*) into a memfd and seals it; the gateway copies it, checks *every* offset,
 * count and string once (catalog_open) and from then on reads without checks. No pointer inside, so it means the same
 * in every process. A bad snapshot is refused whole; the gateway serves on with the last good one. Lookups are O(1):
 * open-addressed index tables inside the snapshot, keyed hash with a random seed of the snapshot (a tenant chooses
 * names). Immutable after open: no locking. */
#ifndef BULKHEAD_CATALOG_CATALOG_H
#define BULKHEAD_CATALOG_CATALOG_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#define CATALOG_KEY_ID_BYTES  16u
#define CATALOG_DIGEST_BYTES  32u
#define CATALOG_ENGINE_BYTES  32u
#define CATALOG_CLASS_COUNT   3u /* = SCHEDULE_CLASS_COUNT; the gateway asserts it */
#define CATALOG_CLASS_DEFAULT 1u /* interactive */
#define CATALOG_DEVICE_NONE   UINT32_MAX
#define CATALOG_LEVEL_COUNT   6u /* = ISOLATE_LEVEL_COUNT; control, which sees both, asserts it */
#define CATALOG_LEVEL_SHARED  1u /* = LADDER_SHARED; likewise */

struct catalog_tenant {
    uint64_t uid;
    char name[LIMIT_NAME_BYTES + 1]; /* NUL-terminated DNS-1123, checked at open */
    uint32_t weight;                 /* ≥ 1 */
    uint32_t queue_max;              /* ≥ 1 */
    uint32_t quota;                  /* index + 1 of what it may use; 0 = no limits */
    uint32_t key_quota;              /* likewise of each of its keys */
    uint32_t classes;                /* bit per enum schedule_class that its requests may have; at least one */
    uint32_t _reserved;
    uint64_t queue_bytes_max;   /* 0 = no bound of its own */
    uint64_t adapter_bytes_max; /* of its adapters loaded in one worker; 0 = an equal share of the worker's room */
};

struct catalog_quota { /* 0 = no limit; of many tenants that have the same */
    uint64_t requests_per_minute;
    uint64_t burst; /* ≥ 1 */
    uint64_t concurrency;
    uint64_t compute_s_per_hour, compute_s_per_day; /* seconds of device slots, < 2^32 */
    uint64_t body_bytes, response_bytes;            /* of one request */
    uint64_t bytes_per_s_in, bytes_per_s_out;
    uint64_t tokens_per_minute, tokens_per_day;
    uint64_t connections;
};

struct catalog_key {
    char id[CATALOG_KEY_ID_BYTES];      /* base62, not NUL-terminated */
    uint8_t hash[CATALOG_DIGEST_BYTES]; /* SHA-256 of the whole key text */
    uint32_t tenant;                    /* index */
    uint32_t _reserved;
};

/* A model, or one that is lent to a tenant: then the borrower has a row of its own, of the owner's model's name. */
struct catalog_model {
    uint64_t uid;
    uint32_t tenant;        /* index */
    uint32_t version_first; /* index of its newest version; its versions are contiguous, newest first */
    uint32_t n_versions;    /* 1 .. LIMIT_VERSIONS_SERVED */
    uint32_t batch_max;     /* rows, ≥ 1 */
    uint64_t batch_delay_ns;
    uint32_t replicas_min, replicas_max;       /* min ≤ max, max in 1 .. LIMIT_REPLICAS_PER_MODEL */
    uint64_t idle_after_ns;                    /* 0 = never */
    uint32_t weight;                           /* against the tenant's other models; ≥ 1 */
    uint32_t class;                            /* enum schedule_class of requests that name none */
    uint32_t n_preferred;                      /* ≤ LIMIT_BATCH_PREFERRED */
    uint32_t preferred[LIMIT_BATCH_PREFERRED]; /* rows, ascending, 1 .. batch_max */
    uint32_t lender; /* index + 1 of the owner's row, which is of another tenant and not lent itself; 0: not lent */
    uint32_t shared_batch; /* lent: 1 = its sequences may be in one batch with those of others who agree; else 0 */
    uint32_t _reserved;
    char name[LIMIT_NAME_BYTES + 1];
};

/* A lent model has the versions of its owner's row, in number, uid, time, digest, engine, slots and device: (tenant,
 * uid) is what tells versions apart. */
struct catalog_version {
    uint64_t uid;
    uint64_t created_s; /* since 1970, UTC: when it was applied */
    uint32_t model;     /* index */
    uint32_t number;    /* ≥ 1 */
    uint32_t slots;     /* device slots a lease takes, ≥ 1 */
    uint32_t device;    /* index in the server's devices; CATALOG_DEVICE_NONE: it has no such device */
    uint32_t hosted;    /* lent: 1 = the owner's replicas serve it, at level shared; 0 = the borrower has its own */
    uint32_t dedicated; /* 1: its replicas have cores of their own: of device 0 its leases take no slots of others */
    uint32_t _reserved;
    uint32_t level;                    /* enum isolate_level as a number, < CATALOG_LEVEL_COUNT, for `status` */
    char engine[CATALOG_ENGINE_BYTES]; /* NUL-terminated DNS-1123 */
    uint8_t digest[CATALOG_DIGEST_BYTES];
};

struct catalog_adapter {
    uint64_t uid;       /* of its present content */
    uint64_t bytes;     /* of its artifact, ≥ 1 */
    uint64_t created_s; /* of that content, as a version's */
    uint32_t tenant;    /* index */
    uint32_t model;     /* index of its base: a row of the same tenant, which may be lent */
    uint8_t digest[CATALOG_DIGEST_BYTES];
    char name[LIMIT_NAME_BYTES + 1];
};

/* --- reading (gateway) --- */

struct catalog;

/* Copies and checks a sealed memfd of exactly `bytes` bytes (F_SEAL_SHRINK|GROW|WRITE|SEAL demanded: -ERROR_PEER). fd
 * is borrowed. -ERROR_PEER with a reason for anything wrong inside; -ERROR_NO_MEMORY. */
must_check int catalog_open(int fd, size_t bytes, struct catalog **ret_catalog, struct error *err);
void catalog_close(struct catalog *c); /* accepts NULL */

uint64_t catalog_generation(const struct catalog *c);
uint32_t catalog_n_quotas(const struct catalog *c);
uint32_t catalog_n_tenants(const struct catalog *c);
uint32_t catalog_n_keys(const struct catalog *c);
uint32_t catalog_n_models(const struct catalog *c);
uint32_t catalog_n_versions(const struct catalog *c);
uint32_t catalog_n_adapters(const struct catalog *c);
/* index < n, asserted. Borrowed until catalog_close. */
const struct catalog_quota *catalog_quota_at(const struct catalog *c, uint32_t index);
const struct catalog_tenant *catalog_tenant_at(const struct catalog *c, uint32_t index);
const struct catalog_key *catalog_key_at(const struct catalog *c, uint32_t index);
const struct catalog_model *catalog_model_at(const struct catalog *c, uint32_t index);
const struct catalog_version *catalog_version_at(const struct catalog *c, uint32_t index);
const struct catalog_adapter *catalog_adapter_at(const struct catalog *c, uint32_t index);
/* By id of CATALOG_KEY_ID_BYTES characters; NULL when unknown. */
const struct catalog_key *catalog_key_find(const struct catalog *c, const char *id);
/* By the pair (tenant index, name); NULL when unknown: another tenant's model does not exist. */
const struct catalog_model *catalog_model_find(const struct catalog *c, uint32_t tenant, struct str name);
/* Likewise. */
const struct catalog_adapter *catalog_adapter_find(const struct catalog *c, uint32_t tenant, struct str name);
const struct catalog_tenant *catalog_tenant_find(const struct catalog *c, struct str name);
/* Models of one tenant, lent ones with them, are contiguous: first index and count. So are its adapters. */
void catalog_models_of(const struct catalog *c, uint32_t tenant, uint32_t *ret_first, uint32_t *ret_n);
void catalog_adapters_of(const struct catalog *c, uint32_t tenant, uint32_t *ret_first, uint32_t *ret_n);

/* --- building (control) --- */

struct catalog_builder;

must_check int catalog_builder_new(uint64_t generation, struct catalog_builder **ret_builder);
void catalog_builder_free(struct catalog_builder *b); /* accepts NULL */
/* Copies. Add quotas first (one that was added lately is found again), then tenants, then each model (with tenant index
 * set; other index fields are filled by the builder) directly followed by its versions, newest first, at least one;
 * models grouped by tenant in ascending tenant index; adapters likewise, after their models. Keys at any time after
 * their tenant. Return the index, or -ERROR_INVALID_ARGUMENT (a row that catalog_open would refuse, or out of order),
 * -ERROR_LIMIT, -ERROR_NO_MEMORY; the builder is unchanged then. */
must_check int catalog_add_quota(struct catalog_builder *b, const struct catalog_quota *q);
must_check int catalog_add_tenant(struct catalog_builder *b, const struct catalog_tenant *t);
must_check int catalog_add_key(struct catalog_builder *b, const struct catalog_key *k);
must_check int catalog_add_model(struct catalog_builder *b, const struct catalog_model *m);
must_check int catalog_add_version(struct catalog_builder *b, const struct catalog_version *v);
must_check int catalog_add_adapter(struct catalog_builder *b, const struct catalog_adapter *a);
/* Says whose a lent model is, once both rows (indices) and their versions are there; catalog_build looks whether they
 * fit. -ERROR_INVALID_ARGUMENT for what is no index. */
must_check int catalog_set_lender(struct catalog_builder *b, uint32_t model, uint32_t lender);
/* Writes the snapshot into a new sealed memfd (*ret_fd, CLOEXEC, owned by the caller; *ret_bytes its size). The builder
 * may be added to and built again. -ERROR_INVALID_ARGUMENT: two rows of the same name, a model without a version, or a
 * lent one that is not its lender's. */
must_check int catalog_build(struct catalog_builder *b, int *ret_fd, size_t *ret_bytes, struct error *err);

#endif
